"""The scores of one video: every form of drift of every dimension, and the companions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lvbench.drift import Weights, drift, vde
from lvbench.features import Features, Track
from lvbench.measures import COMPANIONS, DIMENSIONS, chunk_values, chunks_of, companion
from lvbench.score import Result, Score, Unscored


@dataclass(frozen=True, slots=True)
class Form:
    """One way to make one number of the values of the chunks of a dimension, which is given by its name."""

    title: str
    of: Callable[[Sequence[float], str], Result]


@dataclass(frozen=True, slots=True)
class Judged:
    """What a video scored.

    chunks: by dimension and by companion, one value for each chunk; NaN where it is undefined.
    scores: by "form.dimension" and by companion.
    repeated: see `repeated`; a plain fact, of which neither more nor less is better.
    """

    chunks: Mapping[str, Sequence[float]]
    scores: Mapping[str, Result]
    repeated: Result


SAME = 0.02
"""Mean absolute difference of two frames, 0 to 255, up to which they are equal but for what a codec does to them: in a
frozen film H.264 and VP9 left at most 0.004, and in a slow pan or fade over 0.4 wherever it went on."""
LARGEST = 1e100
"""Of a number that can be averaged with others, and its square too."""
ENDLESS = ("dynamic",)
"""Dimensions without a largest value: of a video that begins slowly the relative distance of later chunks may be any,
and one such video would rule the mean of all."""
STILLNESS = ("subject_consistency", "background_consistency", "motion_smoothness", "temporal_flicker")
"""Companions of which a video that stands still has most."""
FORMS: Mapping[str, Form] = {
    "drift": Form("drift", lambda values, name: _drift(values, name, "equal")),
    "drift_rising": Form("drift, rising weights", lambda values, name: _drift(values, name, "rising")),
    "vde_linear": Form("VDE, as published", lambda values, _: Score(vde(values, "linear"), len(values))),
    "vde_log": Form("VDE, log weights", lambda values, _: Score(vde(values, "log"), len(values))),
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
    parts = chunks_of(features.frames, chunks)
    measured = {
        name: chunk_values(features, name, chunks) for name in dimensions if DIMENSIONS[name].track in features.tracks
    }
    scores: dict[str, Result] = {}
    for form, how in FORMS.items():
        for name in dimensions:
            absent = Unscored(missing.get(DIMENSIONS[name].track, "it was not measured"))
            scores[f"{form}.{name}"] = how.of(measured[name], name) if name in measured else absent
    for name, measure in COMPANIONS.items():
        track = features.tracks.get(measure.track)
        if track is None:
            scores[name] = Unscored(missing.get(measure.track, "it was not measured"))
            continue
        scores[name] = companion(features, name)
        measured[name] = [float(np.float32(value)) for value in measure.values([track[part] for part in parts])]
    return Judged(measured, scores, repeated(features, missing))


def repeated(features: Features, missing: Mapping[Track, str]) -> Result:
    """The share of frames that are the same as the one before, 0 to 1: 1 for a frozen video, near 0 for one that loops.

    Args:
        features, missing: see judge.

    Frames are the same if their mean absolute difference is at most 0.02 of 255 levels, so that a thing of a few pixels
    may move unseen. A world that waits for its player repeats frames too, and so does a video at half its rate: this
    says what is there and no more.
    """
    if "difference" not in features.tracks:
        return Unscored(missing.get("difference", "it was not measured"))
    differences = features.tracks["difference"][1:]
    return Score(float(np.mean(differences <= SAME)), len(differences))


def higher_is_better(score: str) -> bool:
    """Which way a score of judge points: drift is better low, a companion high."""
    return score.partition(".")[0] not in FORMS


def is_won_by_freezing(score: str) -> bool:
    """Whether a video is better in a score of judge, the less happens in it; in no other score is it."""
    return not higher_is_better(score) or score in STILLNESS


def range_of(score: str) -> tuple[float, float]:
    """The least and the largest number that a score of judge can be."""
    form, _, name = score.partition(".")
    bounded = form not in FORMS or (form.startswith("drift") and name in (*ENDLESS, "identity"))
    return (0.0, 1.0 if bounded else math.inf)


def title(score: str) -> str:
    """A score of judge in words."""
    form, _, name = score.partition(".")
    return f"{DIMENSIONS[name].title}: {FORMS[form].title}" if form in FORMS else COMPANIONS[score].title


def number(result: Result) -> float | None:
    """The number of a result, None if it has none or one that nothing can be averaged with."""
    return result.value if isinstance(result, Score) and abs(result.value) < LARGEST else None


def reason(result: Result) -> str:
    """Why a result has no number; of one that is not finite, which only the published form gives, what made it so."""
    if isinstance(result, Unscored):
        return result.reason
    if math.isnan(result.value):
        return "a chunk has no number, so the published form has none"
    if math.isinf(result.value):
        return "the first chunk scored 0 or next to it, and the published form divides by that"
    return f"{result.value:g} is too large to be averaged with others"


def _drift(values: Sequence[float], name: str, weights: Weights) -> Result:
    """The drift of a dimension, at most 1 where its values have no largest.

    There what is so many times the first value counts like the same part of it: to move twice as fast is as far as to
    move half as fast.
    """
    first = values[0]
    if name in ENDLESS:
        values = [first * first / value if value > first else value for value in values]
    return drift(values, weights, floor=DIMENSIONS[name].floor)
