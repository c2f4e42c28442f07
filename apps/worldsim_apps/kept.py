"""The folder in which a server keeps worlds: the log of every session, and what was saved of some."""

from __future__ import annotations

import secrets
from contextlib import suppress
from pathlib import Path

from worldsim.errors import ProtocolError, SnapshotError
from worldsim.runtime.journal import read_log
from worldsim.runtime.snapshot import Snapshot, read_snapshot, write_snapshot
from worldsim.session.events import NAME
from worldsim.session.log import SessionLog, Step


class Kept:
    """See the module. Names are drawn here and checked here; nothing that a client says becomes a path.

    Args:
        folder: made if it is not there.
        most_bytes: it may grow to; beyond that nothing new is begun.
    """

    def __init__(self, folder: Path, *, most_bytes: int = 8 << 30) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._most_bytes = most_bytes

    def new_name(self) -> str:
        """A name that nobody can guess.

        Raises:
            ProtocolError: the folder is full.
        """
        if self._bytes() > self._most_bytes:
            raise ProtocolError("disk_full", f"this server keeps {self._most_bytes / 1e9:.0f} GB of worlds and no more")
        return secrets.token_hex(16)

    def log(self, name: str) -> Path:
        """Where the log of the session of that name is written."""
        return self._path(name, ".log")

    def save(self, name: str, snapshot: Snapshot) -> None:
        """Keep a snapshot under the name of its session; OSError if it cannot be written."""
        write_snapshot(self._path(name, ".world"), snapshot)

    def forget(self, name: str) -> None:
        """Drop the log of a session that nobody saw. What was saved of it stays."""
        self.log(name).unlink(missing_ok=True)

    def find(self, name: str) -> tuple[Snapshot, tuple[Step, ...]]:
        """What is kept under that name: what was saved, or else the log, and the steps that the log has beyond it.

        Raises:
            ProtocolError: nothing is.
            SnapshotError, LogError: it is torn.
        """
        log = read_log(self.log(name)) if self.log(name).exists() else None
        saved = self._saved(name)
        if saved is None and log is None:
            raise ProtocolError("no_world", f"no world is kept under {name!r}")
        if saved is None or (log is not None and not _leads_on(saved.log, log)):
            assert log is not None
            return Snapshot(keep="log", log=log), ()
        return saved, () if log is None else log.steps[len(saved.log.steps) :]

    def _saved(self, name: str) -> Snapshot | None:
        """The newest whole file of that name."""
        newest = self._path(name, ".world")
        for path in (newest, newest.with_name(f"{newest.name}.before")):
            if path.exists():
                try:
                    return read_snapshot(path)
                except SnapshotError:
                    continue
        return None

    def _bytes(self) -> int:
        total = 0
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):  # a file that was being written has been given its name meanwhile
                total += path.stat().st_size
        return total

    def _path(self, name: str, ending: str) -> Path:
        if not NAME.fullmatch(name):
            raise ProtocolError("no_world", "a world is kept under 32 hexadecimal digits, as `saved` named it")
        return self._folder / f"{name}{ending}"


def _leads_on(saved: SessionLog, log: SessionLog) -> bool:
    """Whether what was saved is where the log was at some time, and not a branch that it has left."""
    return saved.opening == log.opening and log.steps[: len(saved.steps)] == saved.steps
