"""What was measured of one video, frame by frame, before any score is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Track = Literal["clarity", "aesthetic", "interpolation_error", "difference", "flow", "subject", "background"]
TRACKS: tuple[Track, ...] = get_args(Track)


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """Measures of the F frames of a video: small enough to keep, and enough for any number of chunks.

    tracks, each float32 and each left out by an extractor that does not measure it:
        clarity: how clear a frame is, 0 to 100, [F].
        aesthetic: how beautiful a frame is, 0 to 1, [F].
        interpolation_error: mean absolute difference, 0 to 255, of a frame from what its two neighbours foretell of it,
            [F]; NaN at both ends.
        difference: mean absolute difference of a frame from the one before, 0 to 255, [F]; NaN at the first.
        flow: how far the fastest 5 % of the pixels move to the next look, in pixels of a picture whose shorter side is
            256, [F]; NaN at frames that are no look, and at the last one.
        subject: what the subject looks like, [F, D].
        background: what is around it looks like, [F, E].
    """

    frames: int
    tracks: Mapping[Track, NDArray[np.float32]]

    def __post_init__(self) -> None:
        for name, track in self.tracks.items():
            assert len(track) == self.frames, f"{name} has {len(track)} rows for {self.frames} frames"


class Rows:
    """A table of float32 that grows by rows, in one block of memory.

    Thousands of small arrays that stay, made between large ones that go, would leave the memory of the large ones in
    pieces that the allocator cannot use again: 1.7 GB after a minute of 1080p.
    """

    def __init__(self, width: int) -> None:
        self._rows = np.empty((64, width), np.float32)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, row: NDArray[np.float32]) -> None:
        """Copy a row [width] to the end."""
        if self._count == len(self._rows):
            self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
        self._rows[self._count] = row
        self._count += 1

    def table(self) -> NDArray[np.float32]:
        """A copy of all rows, [n, width]."""
        return self._rows[: self._count].copy()
