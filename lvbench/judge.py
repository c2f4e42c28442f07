"""The scores of one video: every form of drift of every dimension, and the companions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lvbench.drift import drift, vde
from lvbench.features import Features, Track
from lvbench.measures import COMPANIONS, DIMENSIONS, chunk_values, companion
from lvbench.score import Result, Score, Unscored


@dataclass(frozen=True, slots=True)
class Form:
    """One way to make one number of the values of the chunks."""

    title: str
    of: Callable[[Sequence[float]], Result]


@dataclass(frozen=True, slots=True)
class Judged:
    """What a video scored.

    chunks: by dimension, one value for each chunk; NaN where it is undefined.
    scores: by "form.dimension" and by companion.
    """

    chunks: Mapping[str, Sequence[float]]
    scores: Mapping[str, Result]


FORMS: Mapping[str, Form] = {
    "drift": Form("drift", lambda values: drift(values, "equal")),
    "drift_rising": Form("drift, rising weights", lambda values: drift(values, "rising")),
    "vde_linear": Form("VDE, as published", lambda values: Score(vde(values, "linear"), len(values))),
    "vde_log": Form("VDE, log weights", lambda values: Score(vde(values, "log"), len(values))),
}


def judge(features: Features, missing: Mapping[Track, str], dimensions: Sequence[str], chunks: int) -> Judged:
    """The scores that the features of a video give.

    Args:
        features: of the video.
        missing: why the extractor left out the tracks that it did.
        dimensions: names in DIMENSIONS.
        chunks: how many equal parts the video has.

    Raises:
        VideoRefused: the video is too short for so many chunks.
    """
    measured = {
        name: chunk_values(features, name, chunks) for name in dimensions if DIMENSIONS[name].track in features.tracks
    }
    scores: dict[str, Result] = {}
    for form, how in FORMS.items():
        for name in dimensions:
            absent = Unscored(missing.get(DIMENSIONS[name].track, "it was not measured"))
            scores[f"{form}.{name}"] = how.of(measured[name]) if name in measured else absent
    for name, measure in COMPANIONS.items():
        absent = Unscored(missing.get(measure.track, "it was not measured"))
        scores[name] = companion(features, name) if measure.track in features.tracks else absent
    return Judged(measured, scores)


def higher_is_better(score: str) -> bool:
    """Which way a score of judge points: drift is better low, a companion high."""
    return score.partition(".")[0] not in FORMS


def title(score: str) -> str:
    """A score of judge in words."""
    form, _, name = score.partition(".")
    return f"{DIMENSIONS[name].title}: {FORMS[form].title}" if form in FORMS else COMPANIONS[score].title


def number(result: Result) -> float | None:
    """The number of a result, None if it has none or one that nothing can be averaged with."""
    return result.value if isinstance(result, Score) and math.isfinite(result.value) else None
