"""What a part of a picture looks like, as a row of numbers that forgets where things are in it."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

LIGHTS, COLOURS, DIRECTIONS = 16, 16, 16
NUMBERS = LIGHTS + COLOURS**2 + DIRECTIONS
"""Of a row."""
COLOUR_RANGE = (48, 208)
"""Of the axes a and b of Lab, in bytes: what pictures have of them."""
STRONGEST = 64.0
"""Of the slopes of light, in levels of 255 a pixel: the scale on which a slope counts for texture."""
MASK = NDArray[np.uint8]


def centre(size: tuple[int, int]) -> MASK:
    """The middle half of each side of a picture of that (height, width), where a subject is most often: 255 inside."""
    height, width = size
    mask = np.zeros(size, np.uint8)
    mask[height // 4 : height - height // 4, width // 4 : width - width // 4] = 255
    return mask


def surroundings(size: tuple[int, int]) -> MASK:
    """The outer eighths of a picture of that (height, width), where the background is most often: 255 inside."""
    height, width = size
    mask = np.full(size, 255, np.uint8)
    mask[height // 8 : height - height // 8, width // 8 : width - width // 8] = 0
    return mask


def appearance(lab: NDArray[np.uint8], mask: MASK) -> NDArray[np.float32]:
    """How light, colour and the direction of slopes are distributed in a part of a picture.

    Args:
        lab: one picture in Lab, [H, W, 3].
        mask: 255 where the part is, [H, W].

    Returns:
        Square roots of three histograms with a third of the weight each, [288]: a row of length 1, so that the cosine
        of two of them is the mean of three Bhattacharyya coefficients; 1 for equal parts, 0 for such with nothing in
        common.
    """
    clipped = np.clip(lab, COLOUR_RANGE[0], COLOUR_RANGE[1] - 1)
    light = cv2.calcHist([lab], [0], mask, [LIGHTS], [0, 256])
    colour = cv2.calcHist([clipped], [1, 2], mask, [COLOURS, COLOURS], [*COLOUR_RANGE, *COLOUR_RANGE])
    spread = [_spread(np.asarray(one, np.float64)) for one in (light.ravel(), colour, _slopes(lab[..., 0], mask))]
    return np.asarray(np.sqrt(np.concatenate([one.ravel() / one.sum() / 3 for one in spread])), np.float32)


def _slopes(light: NDArray[np.uint8], mask: MASK) -> NDArray[np.float64]:
    """How steep the light is in each direction, and how much of the part is flat, [16]."""
    across = cv2.Scharr(light, cv2.CV_32F, 1, 0, scale=1 / 32)
    down = cv2.Scharr(light, cv2.CV_32F, 0, 1, scale=1 / 32)
    steep, angle = cv2.cartToPolar(across, down)
    inside = mask > 0
    turns = angle[inside] * ((DIRECTIONS - 1) / (2 * np.pi))
    weight = np.minimum(steep[inside] / STRONGEST, 1.0)
    directions = np.bincount(turns.astype(np.int64) % (DIRECTIONS - 1), weight, DIRECTIONS - 1)
    return np.append(directions, weight.size - weight.sum())


def _spread(histogram: NDArray[np.float64]) -> NDArray[np.float64]:
    """A histogram whose bins give a quarter to each neighbour: a value at the border of two is then in both."""
    for axis in range(histogram.ndim):
        padded = np.pad(histogram, [(1, 1) if at == axis else (0, 0) for at in range(histogram.ndim)], mode="edge")
        size = histogram.shape[axis]
        before, after = (np.take(padded, range(start, start + size), axis) for start in (0, 2))
        histogram = (before + 2 * histogram + after) / 4
    return histogram
