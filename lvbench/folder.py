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
        *(".264", ".265", ".3g2", ".3gp", ".apng", ".asf", ".av1", ".avi", ".avif", ".divx", ".dv", ".f4v"),
        *(".flv", ".gif", ".h264", ".h265", ".hevc", ".ivf", ".m1v", ".m2t", ".m2ts", ".m2v", ".m4v", ".mjpeg"),
        *(".mjpg", ".mk3d", ".mkv", ".mov", ".mp4", ".mp4v", ".mpe", ".mpeg", ".mpg", ".mpv", ".mts", ".mxf", ".nut"),
        *(".obu", ".ogm", ".ogv", ".ogx", ".qt", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".webp", ".wmv", ".y4m"),
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
    files = sorted(path for path in _below(place) if _is_named_as_video(path))
    if not files:
        raise ConfigError(f"there is no video in {place}; known are files that end in {' '.join(sorted(SUFFIXES))}")
    return [_task(path, place, reference) for path in files]


def passed_over(place: Path, report: Path) -> list[str]:
    """The names of the files below a folder that are not taken for videos, in case one is; none for one file.

    Args:
        place: as for tasks_of.
        report: a folder whose files are left out.

    Raises:
        ConfigError: a folder in it cannot be read.
    """
    files = _below(place) if place.is_dir() else ()
    others = (path for path in files if not _is_named_as_video(path) and not path.is_relative_to(report))
    return sorted(path.relative_to(place).as_posix() for path in others)


def _is_named_as_video(path: Path) -> bool:
    return Path(f"_{path.name.lower()}").suffix in SUFFIXES  # with something before it, for a name that is all suffix


def _below(place: Path) -> Iterator[Path]:
    """Every file below a folder. Folders that are links are not entered: they may lead in a circle."""
    for folder, _, names in os.walk(place, onerror=_refuse):
        yield from (Path(folder, name) for name in names)


def _refuse(error: OSError) -> NoReturn:
    raise ConfigError(f"{error.filename} cannot be read: {error.strerror}; let it be read, or move it away") from error


def _task(path: Path, root: Path, reference: Path | None) -> Task:
    name = path.relative_to(root)
    return Task(name=name.as_posix(), path=path, reference=reference / name if reference else None)
