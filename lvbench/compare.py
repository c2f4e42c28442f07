"""Whether one generator drifts less than another, over videos that both have made."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np

from lvbench.bootstrap import Interval, interval
from lvbench.chance import chance, fewest, together
from lvbench.errors import ReportError
from lvbench.folder import SUFFIXES
from lvbench.judge import is_won_by_freezing, number, reason
from lvbench.measures import COMPANIONS, DIMENSIONS
from lvbench.reference import LIKENESSES
from lvbench.report import Scored, Scores, higher_is_better, range_of
from lvbench.score import Result, Unscored

ERROR = 0.05
"""How often a verdict may come of chance alone, over all scores of a comparison together."""
DECIMALS = 6
"""Of a difference: the values of chunks are float32, and what is smaller is their rounding."""
ALIKE_SECONDS = 0.02
"""Of the longer of two videos: by how much the other may be shorter, or by a frame if that is more."""
ALIKE_FPS = 0.01
"""Of a frame rate: containers round it."""
FROZEN = 0.5
"""Share of repeated frames over which a video stands still, if it also has less than half as many new ones as the other
of its pair: both may be at a fraction of their rate."""
COMPARED = (*(f"drift.{name}" for name in DIMENSIONS), *COMPANIONS, *LIKENESSES)
NO_DIFFERENCE, NOT_COMPARED, WITHHELD = "no difference shown", "not compared", "withheld, since {} is frozen"
Side = Literal["a", "b"]
Reasons = Mapping[str, str]
"""By the name of a video in A."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Which videos of two reports stand beside each other; a pair goes by the name of its video in A.

    names: all that can be compared, with the name in B.
    only: by side, names that the other does not have.
    copies: by name, the pair before it that has the same scores, all of them, on both sides.
    unlike: by name, why what the two scored does not compare: they differ in length, rate or size.
    frozen: by side, the pairs in which its video stands still and the other does not.
    repeats: by side, how many videos have all the scores of another of their side, beside one that has not.
    """

    names: Mapping[str, str]
    only: Mapping[Side, Sequence[str]]
    copies: Mapping[str, str]
    unlike: Reasons
    frozen: Mapping[Side, Sequence[str]]
    repeats: Mapping[Side, int]

    @property
    def distinct(self) -> list[str]:
        """The names of those that are no copies."""
        return [name for name in self.names if name not in self.copies]

    def to_json(self) -> dict[str, Any]:
        """As plain values, with how many of the pairs count."""
        told = {name: dict(value) for name, value in asdict(self).items() if name != "names"}
        return {"pairs": len(self.distinct), **told}


@dataclass(frozen=True, slots=True)
class Comparison:
    """One score of two reports.

    difference: mean of B minus A over the pairs, with the 95 % interval of this score alone.
    effect: that mean by the standard deviation of the differences (Cohen's d for pairs); None where they are all alike.
    chance: how often two equal generators would show as much in this or any rarer score of the comparison; in what a
        frozen video is better in, the pairs that it wins for that count as equal.
    verdict: "A is better", "B is better" or "no difference shown"; better is less drift, or more of a companion. Or
        "withheld, since A is frozen", where A would be better if they counted. Or "not compared", without a pair.
    unscored: by side, why pairs are left out.
    unlike: by name, why more of them are: what the two videos were likened to does not compare.
    """

    score: str
    difference: Interval
    effect: float | None
    chance: float
    verdict: str
    unscored: Mapping[Side, Reasons]
    unlike: Reasons

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "score": self.score,
            **asdict(self.difference),
            "effect": self.effect,
            "chance": self.chance,
            "verdict": self.verdict,
            "unscored": {side: dict(reasons) for side, reasons in self.unscored.items()},
            "unlike": dict(self.unlike),
        }


@dataclass(frozen=True, slots=True)
class _Differences:
    """B minus A of one score, for each pair in which both have a number.

    all: as they are, in ascending order: what the videos are called says nothing.
    counted: the same, where what a frozen video wins is 0.
    """

    all: Sequence[float]
    counted: Sequence[float]
    unscored: Mapping[Side, Reasons]
    unlike: Reasons


def pairs_of(one: Scores, other: Scores) -> Pairs:
    """The pairs of A, the one, and B, the other.

    Videos of the same name are a pair; of the rest those whose names differ in the extension alone, if on either side
    there is one. Raises ReportError if there is no pair.
    """
    named = _named(sorted(one.videos), sorted(other.videos))
    if not named:
        raise ReportError("the reports have no video of the same name; name the videos of both alike")
    first: dict[str, str] = {}
    copies, unlike, names = {}, {}, {}
    frozen: dict[Side, list[str]] = {"a": [], "b": []}
    for name, its in named.items():
        a, b = one.videos[name], other.videos[its]
        if isinstance(a, Scored) and isinstance(b, Scored):
            if differs := _differs(a, b):
                unlike[name] = differs
                continue
            if (before := first.setdefault(_told(a) + _told(b), name)) != name:
                copies[name] = before
            elif side := _frozen(a, b):
                frozen[side].append(name)
        names[name] = its
    only: Mapping[Side, Sequence[str]] = {
        "a": sorted(one.videos.keys() - named.keys()),
        "b": sorted(other.videos.keys() - set(named.values())),
    }
    distinct = {name: its for name, its in names.items() if name not in copies}
    repeats: Mapping[Side, int] = {
        "a": _repeats([one.videos[name] for name in distinct]),
        "b": _repeats([other.videos[name] for name in distinct.values()]),
    }
    return Pairs(names, only, copies, unlike, frozen, repeats)


def compare(one: Scores, other: Scores, *, seed: int) -> list[Comparison]:
    """Compare B, the other, with A, the one: every drift with equal weights, every companion and every likeness.

    Of 100 comparisons of generators that are equal, at most 5 have a verdict in any score; see chance.

    Args:
        one, other: reports of videos with the same names, made by the same code, extractor, decoder and chunks.
        seed: of the draws.

    Raises:
        ReportError: the reports do not belong together, or have no number in common.
    """
    differing = sorted(name for name, value in one.made_with.items() if other.made_with.get(name, value) != value)
    if differing:
        raise ReportError(f"the reports differ in {', '.join(differing)}; score both alike, with one lvbench")
    pairs = pairs_of(one, other)
    if not pairs.names:
        name, why = next(iter(pairs.unlike.items()))
        raise ReportError(
            f"no two videos of a pair are of one kind, such as {name}: {why}; make both alike, and score them"
        )
    told = [{score for video in side.videos.values() for score in _results(video)} for side in (one, other)]
    either, both = told[0] | told[1], told[0] & told[1]
    asked = [score for score in COMPARED if score in (both if score in LIKENESSES else either)]
    found = {score: _differences(one, other, pairs, score) for score in asked}
    paired = [score for score in found if found[score].all]
    if not paired:
        raise ReportError(_nothing_in_common(one, other, pairs))
    chances = dict(zip(paired, together([chance(found[score].counted, seed=seed) for score in paired]), strict=True))
    raw = dict(zip(paired, together([chance(found[score].all, seed=seed) for score in paired]), strict=True))
    return [
        _compared(score, differences, chances.get(score, 1.0), raw.get(score, 1.0), seed)
        for score, differences in found.items()
    ]


def _nothing_in_common(one: Scores, other: Scores, pairs: Pairs) -> str:
    """Why no pair has a score in both reports."""
    told = []
    for name, its in pairs.names.items():
        for side, video in (("A", one.videos[name]), ("B", other.videos[its])):
            if isinstance(video, Unscored):
                told.append(f"{name} in {side}: {video.reason}")
                break
    if len(told) < len(pairs.names):
        return "the reports have no score that one of their videos has in both; score both alike"
    return f"no video is scored in both reports, such as {told[0]}; mend it or make it again, and score both"


def too_few(found: Sequence[Comparison]) -> tuple[int, int] | None:
    """How many pairs a comparison has, and how many it needs for a verdict in any score; None if it has as many."""
    counts = [one.difference.count for one in found if one.difference.count]
    needed = fewest(len(counts), ERROR)
    return (max(counts), needed) if max(counts) < needed else None


def _named(ones: Sequence[str], others: Sequence[str]) -> dict[str, str]:
    """The name in B of each video in A that has one there, in the order of those in A."""
    found = {name: name for name in ones if name in set(others)}
    rest = [[name for name in names if name not in found] for names in (ones, others)]
    counts = [Counter(map(_stem, names)) for names in rest]
    stems = {_stem(name): name for name in rest[1]}
    for name in rest[0]:
        stem = _stem(name)
        if counts[0][stem] == counts[1][stem] == 1:
            found[name] = stems[stem]
    return dict(sorted(found.items()))


def _stem(name: str) -> str:
    """A name without the extension of a video."""
    path = PurePosixPath(name)
    return str(path.with_suffix("")) if path.suffix.lower() in SUFFIXES else name


def _differs(a: Scored, b: Scored) -> str:
    """In what two videos differ that scores depend on, whoever made them; nothing if in nothing."""
    told = []
    if a.size != b.size:
        told.append(f"it is {a.size[1]} x {a.size[0]} in A and {b.size[1]} x {b.size[0]} in B")
    if abs(a.fps - b.fps) > ALIKE_FPS * max(a.fps, b.fps):
        told.append(f"it has {a.fps:g} frames a second in A and {b.fps:g} in B")
    longest = max(a.seconds, b.seconds)
    if abs(a.seconds - b.seconds) > max(ALIKE_SECONDS * longest, 1.001 / min(a.fps, b.fps)):
        told.append(f"it is {a.seconds:.4g} s long in A and {b.seconds:.4g} s in B")
    return ", ".join(told)


def _told(video: Scored) -> str:
    """All that a video scored by itself, as text: two numbers that are none are not equal."""
    return repr((video.size, video.frames, sorted(video.results.items()), video.repeated))


def _repeats(videos: Sequence[Scored | Unscored]) -> int:
    counts = Counter(_told(video) for video in videos if isinstance(video, Scored))
    return sum(count for count in counts.values() if count > 1)


def _frozen(a: Scored, b: Scored) -> Side | None:
    """Which of two videos stands still beside the other, if one does."""
    ours, its = number(a.repeated), number(b.repeated)
    if ours is None or its is None or max(ours, its) <= FROZEN or 1 - max(ours, its) >= (1 - min(ours, its)) / 2:
        return None
    return "a" if ours > its else "b"


def _results(video: Scored | Unscored) -> Mapping[str, Result]:
    return {} if isinstance(video, Unscored) else {**video.results, **video.likenesses}


def _differences(one: Scores, other: Scores, pairs: Pairs, score: str) -> _Differences:
    found: list[tuple[float, float]] = []
    unscored: dict[Side, dict[str, str]] = {"a": {}, "b": {}}
    unlike: dict[str, str] = {}
    for name in _likened(one, other, pairs) if score in LIKENESSES else pairs.distinct:
        videos = (one.videos[name], other.videos[pairs.names[name]])
        if score in LIKENESSES and (differs := _beside_unlike(*videos)):
            unlike[name] = differs
            continue
        a, b = (_result(video, score) for video in videos)
        values = (number(a), number(b))
        for side, value, result in zip(unscored, values, (a, b), strict=True):
            if value is None:
                unscored[side][name] = reason(result)
        if values[0] is not None and values[1] is not None:
            difference = round(values[1] - values[0], DECIMALS)
            better: Side = "b" if (difference > 0) == higher_is_better(score) else "a"
            won = is_won_by_freezing(score) and name in pairs.frozen[better]
            found.append((difference, 0.0 if won else difference))
    found.sort()
    return _Differences([each for each, _ in found], [each for _, each in found], unscored, unlike)


def _likened(one: Scores, other: Scores, pairs: Pairs) -> list[str]:
    """Those pairs that count where videos are likened to references: a copy beside another one counts too."""
    known: dict[str, str] = {}
    for name, its in pairs.names.items():
        likenesses = [sorted(_likenesses(video).items()) for video in (one.videos[name], other.videos[its])]
        known.setdefault(repr((pairs.copies.get(name, name), likenesses)), name)
    return list(known.values())


def _likenesses(video: Scored | Unscored) -> Mapping[str, Result]:
    return {} if isinstance(video, Unscored) else video.likenesses


def _result(video: Scored | Unscored, score: str) -> Result:
    return video if isinstance(video, Unscored) else _results(video).get(score, Unscored("it was not scored"))


def _beside_unlike(a: Scored | Unscored, b: Scored | Unscored) -> str:
    """In what the references differ that two videos were compared with; nothing if in nothing, or if one has none."""
    if isinstance(a, Unscored) or isinstance(b, Unscored) or not (a.compared and b.compared):
        return ""
    if abs(a.compared - b.compared) > max(1, ALIKE_SECONDS * max(a.compared, b.compared)):
        return "its reference is of another length in A than in B"
    told = {a.reference_sha256, b.reference_sha256} - {None}
    return "its reference is another video in A than in B" if len(told) > 1 else ""


def _compared(score: str, differences: _Differences, chance: float, raw: float, seed: int) -> Comparison:
    """The comparison of one score, given the chance of what counts and of all there is, among all scores."""
    low, high = range_of(score)
    found = interval(differences.all, seed=seed, within=(low - high, high - low))
    alike = len(set(differences.all)) < 2
    effect = None if alike else float(np.mean(differences.all) / np.std(differences.all, ddof=1))
    verdict = NO_DIFFERENCE if differences.all else NOT_COMPARED
    if chance <= ERROR or (raw <= ERROR and differences.counted != differences.all):
        total = math.fsum(differences.counted if chance <= ERROR else differences.all)
        better = "B" if (total > 0) == higher_is_better(score) else "A"
        verdict = f"{better} is better" if chance <= ERROR else WITHHELD.format(better)
    return Comparison(score, found, effect, chance, verdict, differences.unscored, differences.unlike)
