"""A session's log on disk: every record is there before the next block begins."""

from __future__ import annotations

import os
from pathlib import Path

from worldsim.errors import ConfigError, LogError
from worldsim.session.log import Record, SessionLog, encode


class Journal:
    """A log file that records are added to. One process writes a file.

    A record is on the disk when `append` returns, so that a process that is killed loses the block in flight and
    nothing before it.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def begin(cls, path: Path, log: SessionLog) -> Journal:
        """A new file with that log in it.

        Raises:
            ConfigError: there is such a file already; a log is never overwritten.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o600)
        except FileExistsError as error:
            raise ConfigError(f"{path} exists and a log is never overwritten; name another file") from error
        journal = cls(path, descriptor)
        try:
            journal._write(log.encode())
            _sync_folder(path.parent)
        except OSError:
            journal.close()
            path.unlink()
            raise
        return journal

    @classmethod
    def go_on(cls, path: Path) -> Journal:
        """The file of an earlier session, to be added to; a record that was torn at its end is cut off.

        Raises:
            LogError: it is no log.
        """
        whole = read_log(path).whole
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.ftruncate(descriptor, whole)
        return cls(path, descriptor)

    def append(self, *records: Record) -> None:
        """Write these records; they are on the disk when this returns."""
        self._write(b"".join(map(encode, records)))

    def close(self) -> None:
        """Nothing more is written. Closing twice is fine."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, text: bytes) -> None:
        """Write all of it, or nothing: what was written of a record that failed must not stand before the next."""
        whole = os.fstat(self._descriptor).st_size
        try:
            while text:
                text = text[os.write(self._descriptor, text) :]
            os.fsync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, whole)
            raise


def read_log(path: Path) -> SessionLog:
    """The log in a file, up to where it is torn.

    Raises:
        LogError: there is no such file, or it is no log.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise LogError(f"{path} cannot be read ({error.strerror}); name the log of a session") from error
    try:
        return SessionLog.decode(text)
    except LogError as error:
        raise LogError(f"{path}: {error}") from error


def _sync_folder(folder: Path) -> None:
    """Make a new name in a folder last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
