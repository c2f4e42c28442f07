"""Locks on open files: they end when the file is closed or the process ends, however it ends."""

from __future__ import annotations

import errno
import sys

if sys.platform != "win32":
    import fcntl

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)
"""How a file system says that it has no locks; a file there is written without one."""


def locked(descriptor: int) -> bool:
    """Lock an open file for whoever opened it; False if it is locked for somebody else, here or in another process.

    Reading and writing need no lock: it keeps out only those who ask for one. Where the platform or the file system has
    none, all who ask get it.
    """
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    return True
