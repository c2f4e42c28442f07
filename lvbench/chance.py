"""How often chance alone would show a difference as large, between generators that are equal."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

EXACT = 36
"""Differences, up to which all their signs are tried: those of one half beside those of the other."""
ROUND, MOST_ROUNDS = 10_000, 20
"""How many sets of signs are drawn before it is looked whether they are enough, and how often more are."""
ENOUGH = 400
"""Drawn sums that are as large, after which no more are drawn: their share is known to a twentieth of itself."""
BATCH_NUMBERS = 2**22
"""Signs kept at once, so that many videos need no more memory than few."""
ROUNDING = 1e-9
"""Of the sum of all magnitudes: by how much a sum may be less and still count as large."""


def chance(differences: Sequence[float], *, seed: int) -> float:
    """How often the mean of paired differences would be as far from 0 if each had either sign alike, 0 to 1.

    Args:
        differences: one number per pair, of a magnitude below 1e100; in whatever order, and from either side.
        seed: of the signs; up to 36 pairs all of them are tried, and of more so many drawn as it takes, 200,000 at
            most.

    That is what two equal generators give, whatever the law of their scores: each could have made either video of a
    pair. So this is 5 % or less in 5 of 100 comparisons of equal ones at most, with few pairs too; with five or fewer
    it never is, and beside other scores it takes more of them: see fewest.

    Source: Fisher 1935, The Design of Experiments, section 21; Phipson and Smyth 2010 (arXiv:1603.05766) for the
        one that is added to what is drawn; Besag and Clifford 1991 (Biometrika 78.2) for when to stop.
    """
    sizes = np.sort(np.abs(np.asarray(differences, np.float64)))
    least = abs(math.fsum(differences)) - ROUNDING * float(sizes.sum())
    if least <= 0:
        return 1.0
    return _tried(sizes, least) if len(sizes) <= EXACT else _drawn(sizes, least, seed)


def together(chances: Sequence[float]) -> list[float]:
    """The same chances for whoever looks at all of them: how often that or any rarer one would come, 0 to 1.

    Source: Holm 1979 (Scandinavian Journal of Statistics 6.2), the adjusted p-values.
    """
    order = sorted(range(len(chances)), key=lambda at: chances[at])
    found = [0.0] * len(chances)
    least = 0.0
    for rank, at in enumerate(order):
        least = found[at] = max(least, min(1.0, (len(chances) - rank) * chances[at]))
    return found


def fewest(scores: int, error: float) -> int:
    """How many pairs it takes for any of so many scores to be as rare as the error, however large their differences.

    Of n pairs that all differ one way the chance is 2 / 2**n, and Holm's correction takes the rarest of so many scores
    that many times: 6 pairs for one score and an error of 0.05, 9 for twelve.
    """
    return max(1, math.ceil(1 + math.log2(scores / error)))


def _tried(sizes: NDArray[np.float64], least: float) -> float:
    """The share of all signs with which the sum of so large numbers is at least so far from 0."""
    sums = [np.zeros(1), np.zeros(1)]
    for at, size in enumerate(sizes):
        half = sums[at % 2]
        sums[at % 2] = np.concatenate([half - size, half + size])
    one, other = sums[0], np.sort(sums[1])
    above = len(other) - np.searchsorted(other, least - one, side="left")
    below = np.searchsorted(other, -least - one, side="right")
    return int(above.sum() + below.sum()) / (len(one) * len(other))


def _drawn(sizes: NDArray[np.float64], least: float, seed: int) -> float:
    """The same share of signs that are drawn."""
    generator, count = np.random.default_rng(seed), len(sizes)
    rows = max(1, BATCH_NUMBERS // count)
    hits = tried = 0
    while hits < ENOUGH and tried < MOST_ROUNDS * ROUND:
        for begun in range(0, ROUND, rows):
            signs = np.where(generator.random((min(rows, ROUND - begun), count)) < 0.5, -1.0, 1.0)
            hits += int((np.abs((signs * sizes).sum(1)) >= least).sum())
        tried += ROUND
    return (hits + 1) / (tried + 1)
