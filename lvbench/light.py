"""The extractor that needs no download and no GPU: classic measures of pictures, no learnt ones.

Clarity is measured in the resolution of the video. Where things go and what they look like is measured in a copy whose
longer side is 320 pixels: motion is a share of the picture, and a histogram has the same shape in any size.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Mapping
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from lvbench import appearance, clarity, dynamics, motion
from lvbench.appearance import centre, surroundings
from lvbench.features import Features, Rows, Track
from lvbench.store import hash_of_code
from lvbench.video import Facts

LONGER_PX = 320
"""Of the copy in which motion and looks are measured."""
SCALAR_TRACKS: tuple[Track, ...] = ("clarity", "interpolation_error", "difference", "flow")


class Light:
    """See the module, and Extractor."""

    name = "light"
    batch = 16
    missing: Mapping[Track, str] = {
        "aesthetic": "beauty is judged by a learnt network, and the light extractor has none"
    }

    @cached_property
    def fingerprint(self) -> str:
        """See Extractor: it has no weights, so this is of the code."""
        return hash_of_code(appearance, clarity, dynamics, motion, sys.modules[__name__])

    def begin(self, facts: Facts) -> LightExtraction:
        """See Extractor."""
        return LightExtraction(facts)


class LightExtraction:
    """See Extraction."""

    def __init__(self, facts: Facts) -> None:
        self._size = _small(facts.size)
        self._centre, self._surroundings = centre(self._size), surroundings(self._size)
        self._mover = motion.Mover()
        self._stride = dynamics.stride(facts.fps)
        self._last: NDArray[np.uint8] | None = None
        self._pictures: deque[NDArray[np.uint8]] = deque(maxlen=3)
        self._greys: deque[NDArray[np.uint8]] = deque(maxlen=max(3, self._stride + 1))
        self._scalars: dict[Track, list[float]] = {name: [] for name in SCALAR_TRACKS}
        self._subject, self._background = Rows(appearance.NUMBERS), Rows(appearance.NUMBERS)

    def add(self, frames: NDArray[np.uint8]) -> None:
        """See Extraction."""
        for frame in frames:
            self._look(frame)
            self._follow(frame)
            self._last = frame
        self._last = frames[-1].copy()  # a view of it would keep all of them

    def features(self) -> Features:
        """See Extraction."""
        tracks: dict[Track, NDArray[np.float32]] = {
            name: np.array(values, np.float32) for name, values in self._scalars.items()
        }
        tracks["subject"], tracks["background"] = self._subject.table(), self._background.table()
        return Features(frames=len(self._subject), tracks=tracks)

    def _look(self, frame: NDArray[np.uint8]) -> None:
        """Measure what one frame shows by itself."""
        grey = np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.uint8)
        self._scalars["clarity"].append(clarity.clarity(grey))
        picture = np.asarray(cv2.resize(frame, self._size[::-1], interpolation=cv2.INTER_AREA), np.uint8)
        lab = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2LAB), np.uint8)
        self._subject.append(appearance.appearance(lab, self._centre))
        self._background.append(appearance.appearance(lab, self._surroundings))
        self._pictures.append(picture)
        self._greys.append(np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8))

    def _follow(self, frame: NDArray[np.uint8]) -> None:
        """Measure how one frame goes on from those before; what belongs to an earlier frame is written there."""
        at = len(self._subject) - 1
        self._scalars["difference"].append(np.nan if self._last is None else motion.difference(self._last, frame))
        self._scalars["interpolation_error"].append(np.nan)
        if len(self._pictures) == 3:
            before, between, after = self._pictures
            guess = motion.halfway(before, after, self._mover.flow(self._greys[-3], self._greys[-1]))
            self._scalars["interpolation_error"][at - 1] = motion.difference(between, guess)
        self._scalars["flow"].append(np.nan)
        if at and at % self._stride == 0:
            length = dynamics.magnitude(self._mover.flow(self._greys[-1 - self._stride], self._greys[-1]))
            self._scalars["flow"][at - self._stride] = length * 256 / min(self._size)


def _small(size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the copy: no side longer than 320 pixels, none shorter than 32."""
    scale = min(1.0, LONGER_PX / max(size))
    height, width = (max(motion.SMALLEST_PX, round(side * scale)) for side in size)
    return height, width
