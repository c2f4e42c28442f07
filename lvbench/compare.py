"""Whether one generator drifts less than another, over videos that both have made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from lvbench.bootstrap import Interval, interval
from lvbench.chance import chance, together
from lvbench.errors import ReportError
from lvbench.judge import higher_is_better, number, reason
from lvbench.measures import COMPANIONS, DIMENSIONS
from lvbench.report import Scores, Video
from lvbench.score import Unscored

ERROR = 0.05
"""How often a verdict may come of chance alone, over all scores of a comparison together."""
DECIMALS = 6
"""Of a difference: the values of chunks are float32, and what is smaller is their rounding."""
COMPARED = (*(f"drift.{name}" for name in DIMENSIONS), *COMPANIONS)
NO_DIFFERENCE, NOT_COMPARED = "no difference shown", "not compared"
Side = Literal["a", "b"]
Reasons = Mapping[str, str]
"""By the name of a video."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Which videos of two reports stand beside each other.

    names: those that count.
    only: by side, names that the other does not have.
    copies: by name, the pair before it of which one of its videos is a copy: it has the same scores, all of them.
    """

    names: Sequence[str]
    only: Mapping[Side, Sequence[str]]
    copies: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """What does not count, as plain values."""
        return {"only": dict(self.only), "copies": dict(self.copies)}


@dataclass(frozen=True, slots=True)
class Comparison:
    """One score of two reports.

    difference: mean of B minus A over the pairs, with the 95 % interval of this score alone.
    effect: that mean by the standard deviation of the differences (Cohen's d for pairs); None where they are all alike.
    chance: how often two equal generators would show as much in this or any rarer score of the comparison.
    verdict: "A is better", "B is better" or "no difference shown"; better is less drift, or more of a companion. Or
        "not compared", without a pair.
    unscored: by side, why pairs are left out.
    """

    score: str
    difference: Interval
    effect: float | None
    chance: float
    verdict: str
    unscored: Mapping[Side, Reasons]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "score": self.score,
            **asdict(self.difference),
            "effect": self.effect,
            "chance": self.chance,
            "verdict": self.verdict,
            "unscored": {side: dict(reasons) for side, reasons in self.unscored.items()},
        }


def pairs_of(one: Scores, other: Scores) -> Pairs:
    """The pairs of A, the one, and B, the other. Raises ReportError if they have no name in common."""
    names = sorted(one.videos.keys() & other.videos.keys())
    if not names:
        raise ReportError("the reports have no video of the same name; name the videos of both alike")
    first: dict[tuple[Side, str], str] = {}
    copies: dict[str, str] = {}
    for name in names:
        # As text: two numbers that are none are not equal.
        keys: list[tuple[Side, str]] = [("a", repr(one.videos[name])), ("b", repr(other.videos[name]))]
        before = next((first[key] for key in keys if key in first), None)
        if before is not None:
            copies[name] = before
        elif not any(isinstance(side.videos[name], Unscored) for side in (one, other)):
            first.update(dict.fromkeys(keys, name))
    only: Mapping[Side, Sequence[str]] = {
        "a": sorted(one.videos.keys() - other.videos.keys()),
        "b": sorted(other.videos.keys() - one.videos.keys()),
    }
    return Pairs([name for name in names if name not in copies], only, copies)


def compare(one: Scores, other: Scores, *, seed: int) -> list[Comparison]:
    """Compare B, the other, with A, the one: every drift with equal weights, and every companion.

    Of 100 comparisons of generators that are equal, at most 5 have a verdict in any score; see chance.

    Args:
        one, other: reports of videos with the same names, made by the same code, extractor, decoder and chunks.
        seed: of the draws.

    Raises:
        ReportError: the reports do not belong together, or have no number in common.
    """
    differing = sorted(name for name, value in one.made_with.items() if other.made_with.get(name) != value)
    if differing:
        raise ReportError(f"the reports differ in {', '.join(differing)}; score both alike, with one lvbench")
    names = pairs_of(one, other).names
    told = {score for side in (one, other) for video in side.videos.values() for score in _results(video)}
    found = {score: _differences(one, other, names, score) for score in COMPARED if score in told}
    paired = {score: differences for score, (differences, _) in found.items() if differences}
    if not paired:
        raise ReportError("the reports have no score that one of their videos has in both; score both alike")
    chances = together([chance(differences, seed=seed) for differences in paired.values()])
    by_score = dict(zip(paired, chances, strict=True))
    return [
        _compared(score, differences, by_score.get(score, 1.0), unscored, seed)
        for score, (differences, unscored) in found.items()
    ]


def _results(video: Video) -> Mapping[str, Any]:
    return {} if isinstance(video, Unscored) else video


def _differences(
    one: Scores, other: Scores, names: Sequence[str], score: str
) -> tuple[list[float], dict[Side, dict[str, str]]]:
    """B minus A for each video in which both have a number, and by side why the others have none."""
    found: list[float] = []
    unscored: dict[Side, dict[str, str]] = {"a": {}, "b": {}}
    for name in names:
        values: list[float] = []
        for side, report in zip(unscored, (one, other), strict=True):
            video = report.videos[name]
            result = video if isinstance(video, Unscored) else video.get(score, Unscored("it was not scored"))
            value = number(result)
            if value is None:
                unscored[side][name] = reason(result)
            else:
                values.append(value)
        if len(values) == 2:
            found.append(round(values[1] - values[0], DECIMALS))
    return found, unscored


def _compared(
    score: str, differences: Sequence[float], chance: float, unscored: Mapping[Side, Reasons], seed: int
) -> Comparison:
    found = interval(differences, seed=seed)
    alike = len(set(differences)) < 2
    effect = None if alike else float(np.mean(differences) / np.std(differences, ddof=1))
    verdict = NO_DIFFERENCE if differences else NOT_COMPARED
    if chance <= ERROR:
        verdict = "B is better" if (sum(differences) > 0) == higher_is_better(score) else "A is better"
    return Comparison(score, found, effect, chance, verdict, unscored)
