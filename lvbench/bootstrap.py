"""What a mean over few videos is worth: intervals by drawing the videos again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 10_000
BATCH_NUMBERS = 2**22
"""Drawn at once, so that many videos need no more memory than few."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean, and between which bounds the means of samples drawn again lie; without bounds below two samples."""

    mean: float
    low: float | None
    high: float | None
    count: int


def interval(values: Sequence[float], *, seed: int, level: float = 0.95) -> Interval:
    """The mean of at least one number, with its percentile interval.

    Args:
        values: one finite number per video.
        seed: of the draws; equal seeds draw the same videos for scores of the same number of them.
        level: the share of the means that lies inside.

    Source: Efron 1979, the bootstrap; percentile interval.
    """
    sample = np.asarray(values, np.float64)
    count = len(sample)
    if count < 2:
        return Interval(float(sample.mean()), None, None, count)
    generator = np.random.default_rng(seed)
    rows = max(1, BATCH_NUMBERS // count)
    means = [
        sample[generator.integers(0, count, (min(rows, DRAWS - begun), count))].mean(1)
        for begun in range(0, DRAWS, rows)
    ]
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(sample.mean()), float(low), float(high), count)
