"""What turns the frames of a video into features: an extractor, its work on one video, and networks that it may use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lvbench.features import Features, Track
from lvbench.video import Facts

Frames = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]


class Extraction(Protocol):
    """Measures one video, whose frames it is given once and in order. Keeps numbers and a few frames, never all."""

    def add(self, frames: NDArray[np.uint8]) -> None:
        """Measure the next frames, RGB [n, H, W, 3] with any n above 0, which changes nothing in what is measured."""
        ...

    def features(self) -> Features:
        """What was measured of all frames so far."""
        ...


class Extractor(Protocol):
    """Begins extractions. Networks, if it has any, are loaded once and shared by them."""

    name: str
    batch: int
    """How many frames are best given at once."""
    missing: Mapping[Track, str]
    """What it does not measure, and why."""

    @property
    def fingerprint(self) -> str:
        """A hash of all that its numbers depend on beside the frames: its code, its weights, its libraries."""
        ...

    def begin(self, facts: Facts) -> Extraction:
        """Begin with a video of that size and rate."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """What networks do, each a function of frames, in numpy: who answers needs torch, and who asks does not.

    clarity, aesthetic: of frames [n, H, W, 3], a number for each, [n].
    background, subject: of frames [n, H, W, 3], a row for each, [n, D].
    between: of two frames [H, W, 3], the one in the middle.
    flow: of two frames [H, W, 3], where each pixel goes, [H, W, 2] in pixels.
    """

    clarity: Callable[[Frames], Floats]
    aesthetic: Callable[[Frames], Floats]
    background: Callable[[Frames], Floats]
    subject: Callable[[Frames], Floats]
    between: Callable[[Frames, Frames], Frames]
    flow: Callable[[Frames, Frames], Floats]
