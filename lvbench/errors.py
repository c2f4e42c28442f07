"""Everything lvbench raises on purpose.

LvbenchError
├── ConfigError       a setting cannot work, whatever the videos
│   └── UnknownName   a dimension, extractor or weighting by a name nobody knows
├── AnnotationError   a file that tells of videos in words cannot be read
├── VideoRefused      one video cannot be read or scored; its text is the reason in the report
└── ReportError       a report cannot be read, written or compared with another
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class LvbenchError(Exception):
    """Catch this to catch every error that lvbench raises on purpose."""


class ConfigError(LvbenchError, ValueError):
    """A setting cannot work, whatever the videos."""


class UnknownName(ConfigError):
    """A name that nobody knows, with the names that would fit."""

    def __init__(self, kind: str, given: object, known: Iterable[str]) -> None:
        names = sorted(known)
        near = get_close_matches(str(given), names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        super().__init__(f"there is no {kind} {given!r}; known: {', '.join(names)}{hint}")


class AnnotationError(LvbenchError):
    """A file that tells of videos in words cannot be read; names the file, the video and the segment."""


class VideoRefused(LvbenchError):
    """One video cannot be read or scored; the others are scored all the same."""


class ReportError(LvbenchError):
    """A report cannot be read, written or compared with another."""
