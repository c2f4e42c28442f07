"""Where the results of a command go: each to a file of its own, and none over what the command reads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import permutations
from pathlib import Path

from worldsim.runtime.growing import is_beside
from worldsim_apps.telling import Refused

LONGEST_S = 366 * 24 * 3600
"""World time of the longest video, a year: more is a slip of the hand."""


def check_seconds(seconds: float) -> None:
    """Refuse a length of time that is none, or longer than anybody waits."""
    if not 0 < seconds <= LONGEST_S:
        raise Refused(f"--seconds is a length of time above 0 and at most {LONGEST_S} (a year), got {seconds}")


def check_files(results: Mapping[str, Path | None], read: Mapping[str, Path | str | None]) -> None:
    """Refuse two results in one file, one where another grows, and a result in a file that is read.

    Args:
        results: what is written where, by what it is called; None if it is not.
        read: what is read from where, likewise.
    """
    taken = {_identity(path): what for what, path in read.items() if path is not None}
    for what, path in results.items():
        other = taken.setdefault(_identity(path), what) if path is not None else what
        if other != what:
            raise Refused(f"{other} and {what} are both {path}; give each a file of its own")
    written = [(what, path) for what, path in results.items() if path is not None]
    for (what, path), (other, target) in permutations(written, 2):
        if is_beside(path, target):
            raise Refused(f"{what} is {path}, where {other} grows until it is whole; give it another name")


def _identity(path: Path | str) -> tuple[int, int] | str:
    """What two names of one file have in common, links of both kinds among them."""
    try:
        found = os.stat(path)
    except OSError:
        return os.path.realpath(path)
    return found.st_dev, found.st_ino
