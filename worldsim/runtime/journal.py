"""A session's log on disk: every record is there before the next block begins."""

from __future__ import annotations

import os
import weakref
from contextlib import ExitStack
from pathlib import Path

from worldsim.errors import ConfigError, LogError
from worldsim.files import make_folders, path_of, read_bytes
from worldsim.locks import locked
from worldsim.runtime.snapshot import is_snapshot
from worldsim.session.log import Record, SessionLog, encode


class Journal:
    """A log file that records are added to.

    A record is on the disk when `append` returns, so that a process that is killed loses the block in flight and
    nothing before it. One journal writes a file: it holds a lock on it, where the platform has one, until it is closed
    or dropped or the process ends, however it ends. Reading needs no lock.

    Args:
        path: of the file.
        descriptor: of the file, open for appending; the journal closes it, also if it cannot have the lock.

    Raises:
        LogError: another journal is writing to the file.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._size = os.fstat(descriptor).st_size
        self._close = weakref.finalize(self, os.close, descriptor)
        with ExitStack() as undo:
            undo.callback(self.close)
            if not locked(descriptor):
                raise LogError(
                    f"{path} is in use by another session, here or in another process; close that one first, or go on "
                    "with a copy of the file"
                )
            undo.pop_all()

    @classmethod
    def begin(cls, path: Path | str, log: SessionLog) -> Journal:
        """A new file with that log in it.

        Raises:
            ConfigError: there is such a file already; a log is never overwritten. Or it is no path, or lies in a file.
        """
        path = path_of(path, "log")
        make_folders(path)
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o600)
        except FileExistsError as error:
            raise ConfigError(f"{path} exists and a log is never overwritten; name another file") from error
        with ExitStack() as undo:
            undo.callback(path.unlink)
            journal = cls(path, descriptor)
            undo.callback(journal.close)
            journal._write(log.encode())
            _sync_folder(path.parent)
            undo.pop_all()
        return journal

    @classmethod
    def go_on(cls, path: Path | str) -> Journal:
        """The file of an earlier session, to be added to; a record that was torn at its end is cut off.

        Raises:
            LogError: it is no log, or another session writes to it, in this process or another.
            ConfigError: it is no path.
        """
        path = path_of(path, "log")
        read_log(path)
        journal = cls(path, os.open(path, os.O_WRONLY | os.O_APPEND))
        with ExitStack() as undo:
            undo.callback(journal.close)
            # Read once more: until now another session may have written to it.
            journal._size = read_log(path).whole
            os.ftruncate(journal._descriptor, journal._size)
            undo.pop_all()
        return journal

    @property
    def size(self) -> int:
        """Bytes of what has been written."""
        return self._size

    def append(self, *records: Record) -> None:
        """Write these records; they are on the disk when this returns.

        Raises:
            LogError: somebody else has deleted the file, cut it off or added to it; nothing was written.
            OSError: it could not be written; nothing was.
        """
        self._write(b"".join(map(encode, records)))

    def close(self) -> None:
        """Nothing more is written, and another may write. Closing twice is fine."""
        self._descriptor = -1
        self._close()

    def _write(self, text: bytes) -> None:
        """Write all of it, or nothing: what was written of a record that failed must not stand before the next."""
        found, left = os.fstat(self._descriptor), text
        if not found.st_nlink or found.st_size != self._size:
            done = "deleted" if not found.st_nlink else f"changed, from {self._size} to {found.st_size} bytes,"
            raise LogError(
                f"{self.path} was {done} by somebody else, and tells no more what was lived; fork the session with "
                "another file, log=FILE, to go on"
            )
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
            os.fsync(self._descriptor)
        except OSError as error:
            error.filename = str(self.path)
            os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(text)


def read_log(path: Path | str) -> SessionLog:
    """The log in a file, up to where it is torn.

    Raises:
        LogError: there is no such file, it is no log, or a device or a pipe.
        ConfigError: it is no path.
    """
    path = path_of(path, "log")
    try:
        text = read_bytes(path)
    except OSError as error:
        raise LogError(f"{path} cannot be read ({error.strerror}); name the log of a session") from error
    try:
        return SessionLog.decode(text)
    except LogError as error:
        if is_snapshot(path):
            raise LogError(f"{path} is a saved session and no log; worldsim.restore goes on with it") from error
        raise LogError(f"{path}: {error}") from error


def _sync_folder(folder: Path) -> None:
    """Make a new name in a folder last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
