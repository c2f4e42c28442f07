"""Which files of a folder are videos to score."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
        place: the folder; it and those in it are searched, but for links to folders.
        reference: a folder with the real video of each under the same name, or under one that only ends otherwise, if
            no other video here or there has that name.

    Raises:
        ConfigError: there is no such place, a folder in it cannot be read, or there is no video in it.
    """
    if reference is not None and not reference.is_dir():
        raise ConfigError(f"{reference} is no folder; --reference names one with a real video for each of the videos")
    if place.is_file():
        return _tasks([place], place.parent, reference)
    if not place.is_dir():
        what = "is neither a folder nor a file" if os.path.lexists(place) else "does not exist"
        raise ConfigError(f"{place} {what}; name a folder of videos, or one video")
    files = sorted(path for path in _below(place) if _is_named_as_video(path))
    if not files:
        links = sorted(path.name for path in _links(place))
        to = f"; a link to a folder is not followed, name {links[0]} alone to score what is in it" if links else ""
        raise ConfigError(f"there is no video in {place}; known are files that end in {' '.join(sorted(SUFFIXES))}{to}")
    return _tasks(files, place, reference)


def passed_over(place: Path, report: Path) -> list[str]:
    """The names of what is below a folder and not taken for videos, in case it is; none for one file.

    First come links to folders, which may hold many, and then files.

    Args:
        place: as for tasks_of.
        report: a folder whose files are left out.

    Raises:
        ConfigError: a folder in it cannot be read.
    """
    if not place.is_dir():
        return []
    root, left_out = place.resolve(), report.resolve()  # one may be given from here and the other from the root

    def names(paths: Iterator[Path]) -> list[str]:
        return sorted(path.relative_to(root).as_posix() for path in paths if not path.is_relative_to(left_out))

    links = [f"{name} (a link to a folder)" for name in names(_links(root))]
    return [*links, *names(path for path in _below(root) if not _is_named_as_video(path))]


def _is_named_as_video(path: Path) -> bool:
    return Path(f"_{path.name.lower()}").suffix in SUFFIXES  # with something before it, for a name that is all suffix


def _below(place: Path) -> Iterator[Path]:
    """Every file below a folder. Folders that are links are not entered: they may lead in a circle."""
    for folder, _, names in os.walk(place, onerror=_refuse):
        yield from (Path(folder, name) for name in names)


def _links(place: Path) -> Iterator[Path]:
    """Every link to a folder below a folder."""
    for folder, folders, _ in os.walk(place, onerror=_refuse):
        yield from (path for name in folders if (path := Path(folder, name)).is_symlink())


def _refuse(error: OSError) -> NoReturn:
    raise ConfigError(f"{error.filename} cannot be read: {error.strerror}; let it be read, or move it away") from error


def _tasks(files: Sequence[Path], root: Path, reference: Path | None) -> list[Task]:
    names = [path.relative_to(root) for path in files]
    if reference is None:
        return [Task(name=name.as_posix(), path=path) for name, path in zip(names, files, strict=True)]
    ours = _by_stem(names)
    real = _by_stem(path.relative_to(reference) for path in _below(reference) if _is_named_as_video(path))
    tasks = []
    for name, path in zip(names, files, strict=True):
        alike = real[stem] if len(ours[stem := name.with_suffix("")]) == 1 else []
        partner = alike[0] if len(alike) == 1 and not os.path.lexists(reference / name) else name
        tasks.append(Task(name=name.as_posix(), path=path, reference=reference / partner))
    return tasks


def _by_stem(names: Iterable[Path]) -> Mapping[Path, Sequence[Path]]:
    """Names of files by what they are without their extension; none for any other."""
    found = defaultdict[Path, list[Path]](list)
    for name in names:
        found[name.with_suffix("")].append(name)
    return found
