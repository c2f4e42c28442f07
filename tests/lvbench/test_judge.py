"""A video has every form of drift of every dimension, and a reason where it has none."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lvbench.drift import drift, identity_drift, vde
from lvbench.errors import VideoRefused
from lvbench.features import TRACKS, Features
from lvbench.judge import FORMS, higher_is_better, is_won_by_freezing, judge, number, range_of, reason, title
from lvbench.measures import COMPANIONS, DIMENSIONS, chunks_of, companion
from lvbench.score import Score, Unscored
from tests.lvbench.test_measures import features

ALL = tuple(DIMENSIONS)


def test_the_forms_are_made_of_the_values_of_the_chunks():
    judged = judge(features(), {}, ALL, 5)
    for name in ALL:
        values = judged.chunks[name]
        floor = DIMENSIONS[name].floor
        if name == "dynamic":
            continue  # see below
        assert judged.scores[f"drift.{name}"] == drift(values, floor=floor)
        assert judged.scores[f"drift_rising.{name}"] == drift(values, "rising", floor=floor)
    for name in ALL:
        values = judged.chunks[name]
        assert judged.scores[f"vde_linear.{name}"] == Score(vde(values), 5)
        assert judged.scores[f"vde_log.{name}"] == Score(vde(values, "log"), 5)


def moving(speeds):
    """Features of chunks of 8 frames that move so fast."""
    found = features(frames=8 * len(speeds))
    flow = np.repeat(np.array(speeds, np.float32), 8)
    return Features(frames=8 * len(speeds), tracks={**found.tracks, "flow": flow})


def test_to_move_twice_as_fast_is_as_much_drift_as_to_move_half_as_fast():
    for speeds, weights in (([4, 8, 2, 4], [0.5, 0.5, 0]), ([4, 6, 1, 40], [1 / 3, 3 / 4, 0.9])):
        judged = judge(moving(speeds), {}, ALL, 4)
        assert judged.scores["drift.dynamic"].value == pytest.approx(np.mean(weights))
        assert judged.scores["drift_rising.dynamic"].value == pytest.approx(np.average(weights, weights=[1, 2, 3]))
        assert judged.scores["vde_linear.dynamic"].value == pytest.approx(vde(speeds))


def test_one_video_that_begins_slowly_does_not_rule_the_mean_of_dynamic_drift():
    steady = [judge(moving([8, 8.04, 7.96, 8]), {}, ALL, 4).scores["drift.dynamic"].value for _ in range(9)]
    slow = judge(moving([0.6, 7, 6.5, 6]), {}, ALL, 4).scores["drift.dynamic"].value
    assert 0.9 < slow < 1
    assert np.mean([*steady, slow]) < 0.1


def test_companions_have_their_chunks_too():
    found = features()
    judged = judge(found, {}, ("motion",), 5)
    part = chunks_of(43, 5)[2]
    of_part = Features(frames=8, tracks={name: track[part] for name, track in found.tracks.items()})
    for name in COMPANIONS:
        assert judged.chunks[name][2] == pytest.approx(companion(of_part, name).value, rel=1e-6)
        assert len(judged.chunks[name]) == 5


def test_identity_drift_is_that_of_the_subject():
    found = features()
    parts = [found.tracks["subject"][at * 8 : at * 8 + 8] for at in range(5)]
    judged = judge(found, {}, ("identity",), 5)
    assert judged.scores["drift.identity"].value == pytest.approx(identity_drift(parts).value, rel=1e-5)


def test_what_was_not_measured_says_why_and_counts_as_no_number():
    found = features()
    tracks = {name: track for name, track in found.tracks.items() if name != "aesthetic"}
    judged = judge(Features(frames=found.frames, tracks=tracks), {"aesthetic": "no network"}, ALL, 5)
    assert not {"aesthetic", "aesthetic_quality"} & set(judged.chunks)
    assert judged.scores["drift.aesthetic"] == judged.scores["aesthetic_quality"] == Unscored("no network")
    assert judged.scores["vde_linear.aesthetic"] == Unscored("no network")
    assert isinstance(judged.scores["drift.clarity"], Score)


def test_only_the_dimensions_asked_for_are_scored():
    judged = judge(features(), {}, ("motion",), 5)
    assert set(judged.chunks) == {"motion", *COMPANIONS}
    assert set(judged.scores) == {f"{form}.motion" for form in FORMS} | set(COMPANIONS)


def test_a_short_video_is_refused():
    with pytest.raises(VideoRefused, match="too few"):
        judge(features(), {}, ALL, 20)


def test_a_frozen_video_does_not_win():
    rows = {name: np.full(40, 5, np.float32) for name in TRACKS if name not in {"subject", "background"}}
    looks = {name: np.ones((40, 4), np.float32) for name in ("subject", "background")}
    judged = judge(Features(frames=40, tracks={**rows, **looks, "flow": np.zeros(40, np.float32)}), {}, ALL, 10)
    assert judged.scores["drift.subject"] == Score(0.0, 9)
    assert judged.scores["dynamic_degree"] == Score(0.0, 40)
    assert isinstance(judged.scores["drift.dynamic"], Unscored)


def test_what_begins_still_or_black_has_no_drift_to_be_measured_by_and_its_published_number():
    found = features()
    flow, clarity = np.full(43, 9, np.float32), np.full(43, 50, np.float32)
    flow[:8], clarity[:8] = 0.003, 0.2
    judged = judge(Features(frames=43, tracks={**found.tracks, "flow": flow, "clarity": clarity}), {}, ALL, 5)
    for name, floor in (("dynamic", 0.5), ("clarity", 1)):
        for form in ("drift", "drift_rising"):
            reason = judged.scores[f"{form}.{name}"].reason
            assert reason == f"the first chunk scored {floor} or less, so relative drift is undefined"
        assert judged.scores[f"vde_linear.{name}"] == Score(vde(judged.chunks[name]), 5)


def test_less_drift_is_better_and_more_of_a_companion():
    assert not higher_is_better("drift.clarity")
    assert not higher_is_better("vde_log.motion")
    assert all(higher_is_better(name) for name in COMPANIONS)


def test_what_stands_still_has_most_of_what_is_won_by_freezing_and_of_no_other():
    rows = {name: np.full(40, 0 if name in ("difference", "flow") else 5, np.float32) for name in TRACKS[:5]}
    rows["interpolation_error"][:] = 0
    looks = {name: np.ones((40, 4), np.float32) for name in ("subject", "background")}
    judged = judge(Features(frames=40, tracks={**rows, **looks}), {}, ALL, 10)
    won = {name for name in COMPANIONS if judged.scores[name] == Score(1.0, 40)}
    assert {name for name in COMPANIONS if is_won_by_freezing(name)} == won
    assert all(is_won_by_freezing(f"{form}.{name}") for form in FORMS for name in ALL)


def test_a_score_lies_in_its_range():
    for seed in range(5):
        for name, result in judge(features(seed=seed), {}, ALL, 5).scores.items():
            low, high = range_of(name)
            if name not in {"aesthetic_quality", "motion_smoothness"}:  # drawn where there are no such values
                assert low <= result.value <= high, name
    assert range_of("drift.clarity") == range_of("vde_log.dynamic") == (0, math.inf)
    assert range_of("drift.dynamic") == range_of("drift_rising.identity") == range_of("imaging_quality") == (0, 1)


def test_every_score_has_its_title():
    titles = [title(name) for name in judge(features(), {}, ALL, 5).scores]
    assert len(set(titles)) == len(titles) == len(ALL) * len(FORMS) + len(COMPANIONS)


def test_an_infinite_number_is_none_to_average_with():
    assert number(Score(0.5, 1)) == 0.5
    for value, why in (
        (math.inf, "the first chunk scored 0 or next to it, and the published form divides by that"),
        (-math.inf, "the first chunk scored 0 or next to it, and the published form divides by that"),
        (math.nan, "a chunk has no number, so the published form has none"),
        (-1e100, "-1e+100 is too large to be averaged with others"),
    ):
        assert number(Score(value, 1)) is None
        assert reason(Score(value, 1)) == why
    assert number(Unscored("why")) is None
    assert reason(Unscored("why")) == "why"


def test_frames_that_are_the_same_as_the_one_before_are_counted_whatever_a_codec_does_to_them():
    found = features()
    differences = np.full(43, 5, np.float32)
    differences[[0, 1, 2, 3, 4]] = np.nan, 0, 0.019, 0.021, np.nan
    tracks = {**found.tracks, "difference": differences}
    assert judge(Features(frames=43, tracks=tracks), {}, ALL, 5).repeated == Score(2 / 42, 42)
    del tracks["difference"]
    without = Features(frames=43, tracks=tracks)
    assert judge(without, {"difference": "no eyes"}, ALL, 5).repeated == Unscored("no eyes")
