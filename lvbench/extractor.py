"""What turns the frames of a video into features: an extractor, and its work on one video."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lvbench.features import Features, Track
from lvbench.video import Facts


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
    """What it cannot measure, and why."""

    @property
    def fingerprint(self) -> str:
        """A hash of all that its numbers depend on beside the frames: its code, its weights, its libraries."""
        ...

    def begin(self, facts: Facts) -> Extraction:
        """Begin with a video of that size and rate."""
        ...
