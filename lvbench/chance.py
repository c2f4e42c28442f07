"""How often chance alone would show a difference as large, between generators that are equal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

EXACT = 14
"""Differences, up to which all their signs are tried."""
DRAWS = 10_000
BATCH_NUMBERS = 2**22
"""Signs drawn at once, so that many videos need no more memory than few."""
ROUNDING = 1e-9
"""Of the sum of all magnitudes: by how much a sum may be less and still count as large."""


def chance(differences: Sequence[float], *, seed: int) -> float:
    """How often the mean of paired differences would be as far from 0 if each had either sign alike, 0 to 1.

    Args:
        differences: one number per pair, of a magnitude below 1e100.
        seed: of the signs; up to 14 pairs all of them are tried, and of more 10,000 drawn.

    That is what two equal generators give, whatever the law of their scores: each could have made either video of a
    pair. So this is 5 % or less in 5 of 100 comparisons of equal ones at most, with few pairs too; with five or fewer
    it never is.

    Source: Fisher 1935, The Design of Experiments, section 21; Phipson and Smyth 2010 (arXiv:1603.05766) for the
        one that is added to what is drawn.
    """
    sample = np.asarray(differences, np.float64)
    least = abs(sample.sum()) - ROUNDING * np.abs(sample).sum()
    hits, tried = 0, 0
    for signs in _signs(len(sample), seed):
        hits += int((np.abs((signs * sample).sum(1)) >= least).sum())
        tried += len(signs)
    drawn = int(len(sample) > EXACT)
    return (hits + drawn) / (tried + drawn)


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


def _signs(count: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Rows of count signs: all there are, but for those that are others turned round; or drawn ones."""
    if count <= EXACT:
        bits = np.arange(2 ** max(0, count - 1))[:, None] >> np.arange(count)
        yield np.where(bits & 1, -1.0, 1.0)
        return
    generator = np.random.default_rng(seed)
    rows = max(1, BATCH_NUMBERS // count)
    for begun in range(0, DRAWS, rows):
        yield np.where(generator.random((min(rows, DRAWS - begun), count)) < 0.5, -1.0, 1.0)
