"""How clear one picture is, without another to compare it with: sharp, and free of noise."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

FAR = 3 * 2**0.5
"""Times the deviation of noise: what the difference of two pixels that differ by noise alone hardly ever reaches."""
LAPLACIANS = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
"""The difference of two Laplacians: blind to edges and slopes, with a gain of 6 for white noise."""
MEDIAN_TO_DEVIATION = 1.4826
"""Of the magnitude of what is normally distributed."""


def clarity(grey: NDArray[np.uint8]) -> float:
    """How much of what a picture shows is detail, above the noise: 0, nothing can be made out, to 100.

    Args:
        grey: one picture [H, W] in its own resolution.

    Both blur and noise lower it: one takes the detail, the other covers it and adds to what is no detail.
    """
    return 100 * sharpness(grey, FAR * noise(grey))


def sharpness(grey: NDArray[np.uint8], above: float = 0.0) -> float:
    """What share of the differences between neighbours a blur takes away, in the direction where it takes less.

    A sharp picture has much to lose, a blurred one little; 0 for a picture of one grey, which shows nothing.

    Args:
        grey: one picture [H, W].
        above: levels up to which a difference is noise: it counts for the whole, but not for what can be lost.

    Source: the blur effect, Crete et al. 2007 (SPIE 6492), as 1 minus it; `above` is a departure, without which noise
        passes for detail.
    """
    return min(_lost(grey, above), _lost(np.asarray(cv2.transpose(grey), np.uint8), above))


def _lost(grey: NDArray[np.uint8], above: float) -> float:
    """The share that a blur down the columns takes of the differences down them; 0 where there are none."""
    blurred = cv2.blur(grey, (1, 9))
    before, after = (cv2.absdiff(picture[1:], picture[:-1]) for picture in (grey, blurred))
    detail = cv2.threshold(before, above, 255, cv2.THRESH_TOZERO)[1]
    total = cv2.sumElems(before)[0]
    return cv2.sumElems(cv2.subtract(detail, after))[0] / total if total else 0.0  # of bytes: none is below 0


def noise(grey: NDArray[np.uint8]) -> float:
    """Standard deviation of the noise of a picture, in grey levels.

    Args:
        grey: one picture [H, W].

    Source: Immerkaer 1996 (CVIU 64.2); a departure in the median in place of the mean, which texture does not lift.
    """
    response = cv2.convertScaleAbs(cv2.filter2D(grey, cv2.CV_16S, LAPLACIANS))
    return MEDIAN_TO_DEVIATION * _median(np.asarray(response, np.uint8)) / 6


def _median(values: NDArray[np.uint8]) -> float:
    """The median of bytes that were rounded, as if those of one value were spread evenly around it; not below 0."""
    counts = np.bincount(values.ravel(), minlength=256)
    below = np.cumsum(counts) - counts
    at = int(np.flatnonzero(below + counts >= values.size / 2)[0])
    return max(0.0, at - 0.5 + (values.size / 2 - float(below[at])) / float(counts[at]))
