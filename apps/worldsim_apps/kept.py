"""The folder in which a server keeps worlds: the log of every session, and what was saved of some."""

from __future__ import annotations

import os
import re
import secrets
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from worldsim.errors import ConfigError, LogError, ProtocolError, SnapshotError, WorldSimError
from worldsim.runtime.journal import read_log
from worldsim.runtime.snapshot import Snapshot, read_snapshot, write_snapshot
from worldsim.session.events import NAME
from worldsim.session.log import SessionLog, Step
from worldsim_apps.gate import SHARE, is_loopback

COUNT_S = 10.0
UNFINISHED = re.compile(r"\.(\d+)\.part$")


class Found(NamedTuple):
    """What is kept under a name.

    snapshot: where it goes on from; with a log alone, of that log.
    beyond: the steps that the log has after it.
    damage: what of it could not be read, in words; nothing if that is "".
    """

    snapshot: Snapshot
    beyond: tuple[Step, ...]
    damage: str


class Kept:
    """See the module. Names are drawn here and checked here; nothing that a client says becomes a path.

    Args:
        folder: made if it is not there. What a process that was killed had begun to write there is removed.
        most_bytes: it may grow to; beyond that nothing new is begun. What one other machine saves is at most a quarter
            of that, for as long as the server runs.
    """

    def __init__(self, folder: Path, *, most_bytes: int = 8 << 30) -> None:
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"worlds are kept in a folder, and {folder} is none; name another with --folder")
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._most_bytes = most_bytes
        for path in folder.glob("*.part"):
            if not _is_being_written(path):
                path.unlink(missing_ok=True)
        self._sizes: dict[str, int] = {}
        self._counted = -COUNT_S
        self._count()
        self._saved_by: Counter[str] = Counter()

    def new_name(self, owner: str = "127.0.0.1") -> str:
        """A name that nobody can guess.

        Args:
            owner: address of whoever wants to keep something under it.

        Raises:
            ProtocolError: the folder is full, or that machine has as much in it as one may.
        """
        self._check(owner)
        if self.size > self._most_bytes and monotonic() - self._counted >= COUNT_S:
            self._count()  # somebody may have made room
        if self.size > self._most_bytes:
            raise ProtocolError("disk_full", f"this server keeps {self._most_bytes / 1e9:.0f} GB of worlds and no more")
        return secrets.token_hex(16)

    def log(self, name: str) -> Path:
        """Where the log of the session of that name is written."""
        return self._path(name, ".log")

    @property
    def size(self) -> int:
        """What the folder holds, but for the logs of sessions that live."""
        return sum(self._sizes.values())

    def save(self, name: str, snapshot: Snapshot, owner: str = "127.0.0.1", *, logged: int | None = None) -> None:
        """Keep a snapshot under that name.

        Args:
            name: of a session, or one of its own.
            snapshot: what is kept.
            owner: address of whoever plays it.
            logged: how many bytes of the log of that name tell its steps, if it has none itself.

        Raises:
            ProtocolError: that machine has saved as much as one may.
            OSError: it could not be written.
        """
        self._check(owner)
        path = self._path(name, ".world")
        log = None
        if logged is not None:
            with self.log(name).open("rb") as file:
                log = file.read(logged)
        write_snapshot(path, snapshot, log)
        for written in (path, _before(path)):
            self._charge(written, owner)

    def begin_from(self, name: str, origin: str) -> None:
        """What was saved under the one name is also where the session of the other began, so that it is at hand."""
        saved, path = self._path(origin, ".world"), self._path(name, ".world")
        if saved.exists() and not path.exists():
            path.hardlink_to(saved)

    def film(self, name: str) -> Path:
        """Where a film of that name is written."""
        return self._path(name, ".mp4")

    def settle(self, name: str, owner: str = "127.0.0.1") -> None:
        """The session or the film of that name has ended: its file grows no more."""
        for path in (self.log(name), self.film(name)):
            self._charge(path, owner)

    def _charge(self, path: Path, owner: str) -> None:
        if path.exists():
            size = size_of(path)
            self._saved_by[owner] += size - self._sizes.get(path.name, 0)
            self._sizes[path.name] = size

    def _check(self, owner: str) -> None:
        """Raise ProtocolError if that machine has its share."""
        if not is_loopback(owner) and self._saved_by[owner] > SHARE * self._most_bytes:
            most = SHARE * self._most_bytes / 1e9
            raise ProtocolError("too_much", f"this server keeps {most:.3g} GB for one machine and no more")

    def forget(self, name: str) -> None:
        """Drop the log of a session that nobody saw. What was saved of it stays."""
        self.log(name).unlink(missing_ok=True)

    def find(self, name: str) -> Found:
        """What is kept under that name: what was saved, or else the log, and the steps that the log has beyond it.

        Of two that were kept, one is enough, also if the other is damaged; what that costs is told.

        Raises:
            ProtocolError: nothing is.
            SnapshotError, LogError: it is damaged.
        """
        saved: list[Snapshot] = []
        log: SessionLog | None = None
        damage: list[WorldSimError] = []
        newest = self._path(name, ".world")
        with self._told(damage):
            log = read_log(self.log(name)) if self.log(name).exists() else None
        for path in (newest, _before(newest)):
            with self._told(damage):
                if path.exists() and not any(log is None or _leads_on(one.log, log) for one in saved):
                    saved.append(read_snapshot(path))
        if not saved and log is None:
            raise damage[-1] if damage else ProtocolError("no_world", f"no world is kept under {name!r}")
        told = "; ".join(map(str, damage))
        for one in saved:
            if log is None or _leads_on(one.log, log):
                return Found(one, () if log is None else log.steps[len(one.log.steps) :], told)
        assert log is not None
        return Found(Snapshot(keep="log", log=log), (), told)

    @contextmanager
    def _told(self, damage: list[WorldSimError]) -> Iterator[None]:
        """Add what is damaged to a list, without a word of where on this machine the folder is."""
        try:
            yield
        except (LogError, SnapshotError) as error:
            damage.append(type(error)(str(error).replace(f"{self._folder}{os.sep}", "")))

    def _count(self) -> None:
        self._sizes = {path.name: size_of(path) for path in self._folder.iterdir()}
        self._counted = monotonic()

    def _path(self, name: str, ending: str) -> Path:
        if not NAME.fullmatch(name):
            raise ProtocolError("no_world", "a world is kept under 32 hexadecimal digits, as `saved` named it")
        return self._folder / f"{name}{ending}"


def _leads_on(saved: SessionLog, log: SessionLog) -> bool:
    """Whether what was saved is where the log was at some time, and not a branch that it has left."""
    return saved.opening == log.opening and log.steps[: len(saved.steps)] == saved.steps


def size_of(path: Path) -> int:
    """Bytes of a file, 0 if there is none."""
    with suppress(FileNotFoundError):  # a file that was being written has been given its name meanwhile
        return path.stat().st_size
    return 0


def _before(path: Path) -> Path:
    """Where write_snapshot leaves what was there before."""
    return path.with_name(f"{path.name}.before")


def _is_being_written(path: Path) -> bool:
    """Whether the process that began to write a file is still there, such as another server over one folder."""
    found = UNFINISHED.search(path.name)
    try:
        os.kill(int(found[1]) if found else 0, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return found is not None
