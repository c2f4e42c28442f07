"""The saved worlds of a folder, as pictures: how each looked when it was left, and how it was made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from worldsim.errors import WorldSimError
from worldsim.runtime.snapshot import glimpse_snapshot
from worldsim.session.events import NAME
from worldsim_apps.places import Choice

MOST = 24


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Saved:
    """One saved world.

    name: what it is loaded by.
    choice: how it was made, and has to be made again.
    frame: its newest, uint8 [H, W, 3].
    seconds: world time that was lived in it.
    saved_s: when, in seconds since 1970.
    """

    name: str
    choice: Choice
    frame: NDArray[np.uint8]
    seconds: float
    saved_s: float


class SavedWorlds:
    """See the module. A file is read once, and of it the picture and the log, not what the model remembers.

    Args:
        folder: need not be there yet.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[tuple[str, int], Saved | None] = {}
        self._lock = Lock()

    def newest(self, most: int = MOST) -> tuple[Saved, ...]:
        """So many of them, those that were saved last first; files that cannot be read are passed over."""
        with self._lock:
            found = dict(self._find(most))
            self._known = found
            return tuple(saved for saved in found.values() if saved is not None)

    def _find(self, most: int) -> Iterator[tuple[tuple[str, int], Saved | None]]:
        """The newest files by name and time, also those that are no saved worlds, until there are enough that are."""
        shown: set[int] = set()
        for changed_ns, _, path, inode in sorted(self._files(), reverse=True):
            if most < 1:
                return
            if inode in shown:
                continue
            shown.add(inode)
            key = path.name, changed_ns
            saved = self._known[key] if key in self._known else _read(path, changed_ns / 1e9)
            most -= saved is not None
            yield key, saved

    def _files(self) -> Iterator[tuple[int, bool, Path, int]]:
        """When each was written, whether it has no log, its path, and its inode.

        A file has a second name where a session began from it, which has a log and may have left it since.
        """
        for path in self._folder.glob("*.world"):
            with suppress(FileNotFoundError):  # somebody deletes it just now
                if NAME.fullmatch(path.stem):
                    found = path.stat()
                    yield found.st_mtime_ns, not path.with_suffix(".log").exists(), path, found.st_ino


def _read(path: Path, saved_s: float) -> Saved | None:
    """A saved world, if that is one of a world that can be made here; its checksum is checked when it is loaded."""
    try:
        found = glimpse_snapshot(path)
        choice = Choice.of(found.opening)
    except (KeyError, TypeError, ValueError, WorldSimError):
        return None
    seconds = found.blocks * choice.frames_per_block / choice.recipe.simulator().fps
    return Saved(name=path.stem, choice=choice, frame=found.shown, seconds=seconds, saved_s=saved_s)
