"""Where things go from one picture to another, and how well a picture is foretold from its neighbours."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Flow = NDArray[np.float32]
"""Where each pixel of one picture is in another: [H, W, 2], x then y, in pixels."""
SMALLEST_PX = 32
"""Of a side, below which the search has no room."""


class Mover:
    """Finds the flow between pictures; each by itself, with no memory of those before.

    Source: dense inverse search, Kroeger et al. 2016 (arXiv:1603.03590), as in OpenCV.
    """

    def __init__(self) -> None:
        self._search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)

    def flow(self, before: NDArray[np.uint8], after: NDArray[np.uint8]) -> Flow:
        """The flow from one grey picture [H, W], at least 32 x 32, to another of the same size."""
        return np.asarray(self._search.calc(before, after, None), np.float32)  # type: ignore[call-overload]


def halfway(before: NDArray[np.uint8], after: NDArray[np.uint8], flow: Flow) -> NDArray[np.uint8]:
    """The picture in the middle of two, [H, W, C]: each moved half of the flow towards the other, then averaged."""
    height, width = flow.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    half = np.asarray(flow / 2, np.float32)

    def moved(picture: NDArray[np.uint8], step: Flow) -> cv2.typing.MatLike:
        return cv2.remap(picture, x + step[..., 0], y + step[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    return np.asarray(cv2.addWeighted(moved(before, np.negative(half)), 0.5, moved(after, half), 0.5, 0), np.uint8)


def difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Mean absolute difference of two pictures of the same shape, 0 to 255."""
    return float(cv2.sumElems(cv2.absdiff(one.reshape(-1, 1), other.reshape(-1, 1)))[0] / one.size)
