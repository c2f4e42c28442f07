"""A difference is shown where there is one, and none where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from lvbench.compare import NO_DIFFERENCE, compare
from lvbench.errors import ReportError
from lvbench.measures import DIMENSIONS
from lvbench.report import Scores
from lvbench.score import Score, Unscored

MADE = {"name": "light", "fingerprint": "f", "chunks": 10, "decoder": "d"}


def scores(values, name="drift.clarity", made=MADE):
    return Scores(made, {f"{at}.mp4": {name: Score(float(value), 9)} for at, value in enumerate(values)})


def drifts(count, seed, mean=0.3):
    return np.random.default_rng(seed).normal(mean, 0.05, count)


def test_less_drift_is_better():
    base = drifts(30, 0)
    (found,) = compare(scores(base), scores(base + 0.1 + drifts(30, 1, 0)), seed=0)
    assert found.verdict == "A is better"
    assert found.difference.mean == pytest.approx(0.1, abs=0.03)
    (found,) = compare(scores(base), scores(base - 0.1 + drifts(30, 1, 0)), seed=0)
    assert found.verdict == "B is better"


def test_more_of_a_companion_is_better():
    base = drifts(30, 0)
    higher = base + 0.1 + drifts(30, 1, 0)
    (found,) = compare(scores(base, "motion_smoothness"), scores(higher, "motion_smoothness"), seed=0)
    assert found.verdict == "B is better"


def test_chance_alone_seldom_shows_a_difference():
    shown = [
        compare(scores(drifts(30, 2 * at)), scores(drifts(30, 2 * at + 1)), seed=0)[0].verdict != NO_DIFFERENCE
        for at in range(100)
    ]
    assert sum(shown) <= 12


def test_pairs_are_compared_and_not_means():
    base = np.linspace(0, 10, 30)  # videos differ far more than the generators do
    (found,) = compare(scores(base), scores(base + 0.01 + drifts(30, 0, 0) / 10), seed=0)
    assert found.verdict == "A is better"


def test_the_effect_is_cohens_d_for_pairs():
    one, other = drifts(20, 0), drifts(20, 1, 0.5)
    (found,) = compare(scores(one), scores(other), seed=0)
    assert found.effect == pytest.approx((other - one).mean() / (other - one).std(ddof=1))
    (same,) = compare(scores(one), scores(one), seed=0)
    assert same.effect is None
    assert same.verdict == NO_DIFFERENCE


def test_few_pairs_show_nothing_however_large_the_difference():
    (found,) = compare(scores(drifts(7, 0)), scores(drifts(7, 1, 9)), seed=0)
    assert found.verdict == NO_DIFFERENCE
    (found,) = compare(scores(drifts(8, 0)), scores(drifts(8, 1, 9)), seed=0)
    assert found.verdict == "A is better"


def test_many_scores_together_need_wider_intervals():
    one, other = (
        {f"{at}.mp4": {f"drift.{n}": Score(float(v), 9) for n in DIMENSIONS} for at, v in enumerate(drifts(30, seed))}
        for seed in range(2)
    )
    many = compare(Scores(MADE, one), Scores(MADE, other), seed=0)
    (alone,) = compare(scores(drifts(30, 0)), scores(drifts(30, 1)), seed=0)
    assert len(many) == 7
    assert many[0].difference.high - many[0].difference.low > alone.difference.high - alone.difference.low


def test_only_videos_with_a_number_in_both_count():
    one, other = scores(drifts(12, 0)), scores(drifts(14, 1))
    videos = {**one.videos, "3.mp4": {"drift.clarity": Unscored("it is 0")}}
    (found,) = compare(Scores(MADE, videos), other, seed=0)
    assert found.difference.count == 11


@pytest.mark.parametrize("name", ["vde_linear.clarity", "drift.beauty", "beauty"])
def test_published_forms_and_scores_that_nobody_knows_are_not_compared(name):
    with pytest.raises(ReportError, match="no score that one of their videos has in both"):
        compare(scores(drifts(9, 0), name), scores(drifts(9, 1), name), seed=0)


def test_a_score_that_the_first_video_lacks_is_compared_all_the_same():
    one, other = (scores(drifts(12, seed)) for seed in range(2))
    (found,) = compare(Scores(MADE, {**one.videos, "0.mp4": {}}), other, seed=0)
    assert (found.score, found.difference.count) == ("drift.clarity", 11)


def test_reports_that_do_not_belong_together_are_refused():
    base = scores(drifts(9, 0))
    with pytest.raises(ReportError, match="differ in chunks, fingerprint"):
        compare(base, scores(drifts(9, 0), made={**MADE, "chunks": 5, "fingerprint": "g"}), seed=0)
    with pytest.raises(ReportError, match="no scored video of the same name"):
        compare(base, Scores(MADE, {"other.mp4": {"drift.clarity": Score(1.0, 9)}}), seed=0)


def test_a_comparison_is_plain_values():
    (found,) = compare(scores(drifts(9, 0)), scores(drifts(9, 1)), seed=0)
    assert set(found.to_json()) == {"score", "mean", "low", "high", "count", "effect", "verdict"}
