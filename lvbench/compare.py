"""Whether one generator drifts less than another, over videos that both have made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lvbench.bootstrap import Interval, interval
from lvbench.errors import ReportError
from lvbench.judge import higher_is_better, number
from lvbench.measures import COMPANIONS, DIMENSIONS
from lvbench.report import Scores

FEWEST_PAIRS = 8
"""Below which drawing pairs again says too little of others; the verdict is then that no difference was shown."""
ERROR = 0.05
"""How often a verdict may come of chance alone, over all scores of a comparison together."""
COMPARED = (*(f"drift.{name}" for name in DIMENSIONS), *COMPANIONS)
NO_DIFFERENCE = "no difference shown"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One score of two reports.

    difference: mean of B minus A over the pairs, with an interval so wide that all of a comparison hold together.
    effect: that mean by the standard deviation of the differences (Cohen's d for pairs); None where they are all alike.
    verdict: "A is better", "B is better" or "no difference shown"; better is less drift, or more of a companion.
    """

    score: str
    difference: Interval
    effect: float | None
    verdict: str

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {"score": self.score, **asdict(self.difference), "effect": self.effect, "verdict": self.verdict}


def compare(one: Scores, other: Scores, *, seed: int) -> list[Comparison]:
    """Compare B, the other, with A, the one: every drift with equal weights, and every companion.

    Args:
        one, other: reports of videos with the same names, made with the same extractor, decoder and chunks.
        seed: of the draws.

    Raises:
        ReportError: the reports do not belong together, or have no video in common.
    """
    differing = sorted(name for name, value in one.made_with.items() if other.made_with.get(name) != value)
    if differing:
        raise ReportError(f"the reports differ in {', '.join(differing)}; score both alike")
    names = sorted(one.videos.keys() & other.videos.keys())
    if not names:
        raise ReportError("the reports have no scored video of the same name; name the videos of both alike")
    pairs = {score: found for score in COMPARED if (found := _differences(one, other, names, score))}
    if not pairs:
        raise ReportError("the reports have no score that one of their videos has in both; score both alike")
    level = 1 - ERROR / len(pairs)
    return [_compared(score, found, level, seed) for score, found in pairs.items()]


def _differences(one: Scores, other: Scores, names: Sequence[str], score: str) -> list[float]:
    """B minus A for each video in which both have a number."""
    found = []
    for name in names:
        a, b = _number(one.videos[name], score), _number(other.videos[name], score)
        if a is not None and b is not None:
            found.append(b - a)
    return found


def _number(results: Mapping[str, Any], score: str) -> float | None:
    return number(results[score]) if score in results else None


def _compared(score: str, differences: Sequence[float], level: float, seed: int) -> Comparison:
    found = interval(differences, seed=seed, level=level)
    spread = float(np.std(differences, ddof=1)) if len(differences) > 1 else 0.0
    effect = found.mean / spread if spread else None
    return Comparison(score, found, effect, _verdict(found, more_is_better=higher_is_better(score)))


def _verdict(found: Interval, *, more_is_better: bool) -> str:
    if found.low is None or found.high is None or found.count < FEWEST_PAIRS or found.low <= 0 <= found.high:
        return NO_DIFFERENCE
    return "B is better" if (found.low > 0) == more_is_better else "A is better"
