"""Which files of a folder are videos to score."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from lvbench.errors import ConfigError
from lvbench.examine import Task

SUFFIXES = frozenset(
    {
        *(".3gp", ".apng", ".asf", ".avi", ".divx", ".flv", ".gif", ".ivf", ".m2ts", ".m4v", ".mkv", ".mov"),
        *(".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".nut", ".ogv", ".ts", ".vob", ".webm", ".wmv", ".y4m"),
    }
)
"""Of a file that is taken for a video, whatever is inside."""


def tasks_of(place: Path, reference: Path | None = None) -> list[Task]:
    """A task for every video below a folder, or for one file, in the order of their names.

    What has the name of a video and is none (a broken link, a pipe) has a task too: it is told as unscored.

    Args:
        place: the folder; it and those in it are searched.
        reference: a folder with the real video of each under the same name.

    Raises:
        ConfigError: there is no such place, a folder in it cannot be read, or there is no video in it.
    """
    if reference is not None and not reference.is_dir():
        raise ConfigError(f"{reference} is no folder; --reference names one with a real video for each of the videos")
    if place.is_file():
        return [_task(place, place.parent, reference)]
    if not place.is_dir():
        raise ConfigError(f"{place} does not exist; name a folder of videos, or one video")
    files = sorted(path for path in _below(place) if path.suffix.lower() in SUFFIXES and not path.is_dir())
    if not files:
        raise ConfigError(f"there is no video in {place}; known are files that end in {' '.join(sorted(SUFFIXES))}")
    return [_task(path, place, reference) for path in files]


def _below(place: Path) -> Iterator[Path]:
    """Every file below a folder. Folders that are links are not entered: they may lead in a circle."""
    for folder, _, names in os.walk(place, onerror=_refuse):
        yield from (Path(folder, name) for name in names)


def _refuse(error: OSError) -> NoReturn:
    raise ConfigError(f"{error.filename} cannot be read: {error.strerror}; let it be read, or move it away") from error


def _task(path: Path, root: Path, reference: Path | None) -> Task:
    name = path.relative_to(root)
    return Task(name=name.as_posix(), path=path, reference=reference / name if reference else None)
