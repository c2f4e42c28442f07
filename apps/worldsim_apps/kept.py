"""The folder in which a server keeps worlds: the log of every session, and what was saved of some."""

from __future__ import annotations

import errno
import logging
import os
import secrets
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from worldsim.errors import ConfigError, LogError, ProtocolError, SnapshotError, WorldSimError
from worldsim.files import drop_unfinished
from worldsim.runtime.journal import read_log
from worldsim.runtime.snapshot import Snapshot, read_snapshot, write_snapshot
from worldsim.session.events import NAME
from worldsim.session.log import SessionLog, Step
from worldsim_apps.gate import SHARE, is_loopback

COUNT_S = 10.0
log = logging.getLogger(__name__)


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

    Raises:
        ConfigError: the folder cannot be made, read or written.
    """

    def __init__(self, folder: Path, *, most_bytes: int = 8 << 30) -> None:
        _make(folder)
        drop_unfinished(folder)
        self._folder = folder
        self._most_bytes = most_bytes
        self._sizes: dict[str, tuple[int, int]] = {}
        self._links: dict[str, int] = {}
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
        """What the folder holds, but for the logs of sessions that live; a file of several names counts once."""
        return sum(dict(self._sizes.values()).values())

    def save(self, name: str, snapshot: Snapshot, owner: str = "127.0.0.1", *, logged: int | None = None) -> None:
        """Keep a snapshot under that name.

        Args:
            name: of a session, or one of its own.
            snapshot: what is kept.
            owner: address of whoever plays it.
            logged: how many bytes of the log of that name tell its steps, if it has none itself.

        Raises:
            ProtocolError: that machine has saved as much as one may.
            LogError: the log of that name is gone, or not all of it is there.
            OSError: it could not be written.
        """
        self._check(owner)
        path = self._path(name, ".world")
        write_snapshot(path, snapshot, None if logged is None else self._logged(name, logged))
        for written in (path, _before(path)):
            self._charge(written, owner)

    def _logged(self, name: str, size: int) -> bytes:
        text = b""
        with suppress(OSError), self.log(name).open("rb") as file:
            text = file.read(size)
        if len(text) < size:
            raise LogError(f"{name}.log has {len(text)} of the {size} bytes that were written to it; leave logs alone")
        return text

    def begin_from(self, name: str, origin: str) -> None:
        """What was saved under the one name is also where the session of the other began, so that it is at hand.

        Where it cannot be, that session is lived again from its log until it is saved itself.
        """
        saved, path = self._path(origin, ".world"), self._path(name, ".world")
        if not saved.exists() or path.exists():
            return
        try:
            path.hardlink_to(saved)
            self._links[name] = path.stat().st_ino
        except OSError as error:
            log.warning("%s has only its log until it is saved: no link to %s (%s)", name, saved, error.strerror)

    def film(self, name: str) -> Path:
        """Where a film of that name is written."""
        return self._path(name, ".mp4")

    def settle(self, name: str, owner: str = "127.0.0.1") -> None:
        """The session or the film of that name has ended: its file grows no more."""
        self._links.pop(name, None)
        for path in (self.log(name), self.film(name)):
            self._charge(path, owner)

    def _charge(self, path: Path, owner: str) -> None:
        if path.exists():
            before = self.size
            self._sizes[path.name] = _weight(path)
            self._saved_by[owner] += self.size - before

    def _check(self, owner: str) -> None:
        """Raise ProtocolError if that machine has its share."""
        if not is_loopback(owner) and self._saved_by[owner] > SHARE * self._most_bytes:
            most = SHARE * self._most_bytes / 1e9
            raise ProtocolError("too_much", f"this server keeps {most:.3g} GB for one machine and no more")

    def forget(self, name: str) -> None:
        """Drop the log of a session in which nothing was lived, and its link to where it began; what it saved stays.

        What cannot be deleted is logged and stays.
        """
        link, began = self._path(name, ".world"), self._links.pop(name, None)
        for path in (self.log(name), *([link] if _weight(link)[0] == began else [])):
            try:
                path.unlink(missing_ok=True)
                self._sizes.pop(path.name, None)
            except OSError:
                log.exception("%s could not be deleted", path)

    def holds(self, name: str) -> bool:
        """Whether anything is kept under that name."""
        path = self._path(name, ".world")
        return any(one.exists() for one in (path, _before(path), self.log(name)))

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
        self._sizes = {path.name: _weight(path) for path in self._folder.iterdir()}
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
    return _weight(path)[1]


def _weight(path: Path) -> tuple[int, int]:
    """Which file has that name, by its inode, and its bytes; 0 and 0 if there is none."""
    with suppress(FileNotFoundError):  # a file that was being written has been given its name meanwhile
        found = path.stat()
        return found.st_ino, found.st_size
    return 0, 0


def _before(path: Path) -> Path:
    """Where write_snapshot leaves what was there before."""
    return path.with_name(f"{path.name}.before")


def _make(folder: Path) -> None:
    """Make a folder if it is not there; ConfigError if worlds cannot be kept in it."""
    try:
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"worlds are kept in a folder, and {folder} is none; name another with --folder")
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise ConfigError(
            f"worlds cannot be kept in {folder} ({error.strerror}); name a folder that can be written with --folder"
        ) from error
