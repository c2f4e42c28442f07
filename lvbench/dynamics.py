"""Whether a video moves at all: a frozen one never drifts, and must not win by it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lvbench.drift import Floats
from lvbench.score import Result, Score, Unscored

THRESHOLD = 6.0
"""Pixels between two looks, in a picture whose shorter side is 256, from which on something moves."""
STILL_PX = 0.5
"""The same, up to which nothing does: noise and fading light look like as much."""
LOOKS_PER_SECOND = 8
FASTEST_SHARE = 0.05
"""Of all pixels: those that decide, so that a small thing that moves is seen before a still background."""


def stride(fps: float) -> int:
    """How many frames lie between two looks at a video of so many frames a second."""
    return max(1, round(fps / LOOKS_PER_SECOND))


def magnitude(flow: Floats) -> float:
    """How far the fastest 5 % of the pixels move: the mean of their flow [H, W, 2], in pixels."""
    lengths = np.sqrt((np.asarray(flow, np.float64) ** 2).sum(-1)).ravel()
    fastest = max(1, int(FASTEST_SHARE * lengths.size))
    return float(np.partition(lengths, lengths.size - fastest)[-fastest:].mean())


def moves(magnitudes: Sequence[float], size: tuple[int, int]) -> bool:
    """Whether a stretch of video moves, as published.

    Args:
        magnitudes: of the flow from each look to the next, in pixels.
        size: (height, width) of the pictures that the flow was measured in.

    At least round(4 (looks / 16)) of them must be over 6 min(height, width) / 256; at one or two looks that is none,
    and the answer is yes whatever is seen.

    Source: VBench, Huang et al. 2024 (arXiv:2311.17982), dynamic degree.
    """
    looks = len(magnitudes) + 1
    over = sum(value > THRESHOLD * min(size) / 256 for value in magnitudes)
    return over >= round(4 * looks / 16)


def dynamic_degree(magnitudes: Sequence[float]) -> Result:
    """1 if a stretch of video moves and 0 if it stands still.

    Args:
        magnitudes: of the flow from each look to the next, in pixels of a picture whose shorter side is 256.

    As `moves`, but Unscored without two looks, and at least one of them must be over the threshold.
    """
    if not len(magnitudes):
        return Unscored("the dynamic degree needs at least 2 looks, an eighth of a second apart")
    if not all(map(math.isfinite, magnitudes)):
        return Unscored("a look has no number")
    moved = moves(magnitudes, (256, 256)) and max(magnitudes) > THRESHOLD
    return Score(float(moved), count=len(magnitudes))
