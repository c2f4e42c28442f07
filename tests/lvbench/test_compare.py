"""A difference is shown where there is one, and none where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from lvbench import bootstrap, chance
from lvbench.compare import COMPARED, NO_DIFFERENCE, compare, pairs_of
from lvbench.errors import ReportError
from lvbench.report import Scores
from lvbench.score import Score, Unscored

MADE = {"name": "light", "fingerprint": "f", "chunks": 10, "decoder": "d", "scoring": "s"}


def scores(values, name="drift.clarity", made=MADE):
    return Scores(made, {f"{at}.mp4": {name: Score(float(value), 9)} for at, value in enumerate(values)})


def table(rows):
    """A report of all scores, given [videos, scores]."""
    return Scores(
        MADE,
        {
            f"{at}.mp4": {name: Score(float(value), 9) for name, value in zip(COMPARED, row, strict=True)}
            for at, row in enumerate(rows)
        },
    )


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


@pytest.mark.parametrize("pairs", [8, 12, 16])
@pytest.mark.parametrize(
    "draw",
    [
        lambda generator, shape: generator.normal(size=shape),
        lambda generator, shape: generator.lognormal(size=shape),
        lambda generator, shape: generator.standard_t(3, shape) + generator.normal(size=(shape[0], 1)),
    ],
    ids=["normal", "skewed", "of heavy tails that go together"],
)
def test_equal_generators_have_a_verdict_in_5_of_100_comparisons_at_most(monkeypatch, draw, pairs):
    for module in (bootstrap, chance):
        monkeypatch.setattr(module, "DRAWS", 400)
    generator, comparisons, shape = np.random.default_rng(pairs), 60, (pairs, len(COMPARED))
    shown = 0
    for _ in range(comparisons):
        found = compare(table(draw(generator, shape)), table(draw(generator, shape)), seed=0)
        shown += any(one.verdict != NO_DIFFERENCE for one in found)
    assert shown <= 7  # 3 are to be expected at most


def test_pairs_are_compared_and_not_means():
    base = np.linspace(0, 10, 30)  # videos differ far more than the generators do
    (found,) = compare(scores(base), scores(base + 0.01 + drifts(30, 0, 0) / 10), seed=0)
    assert found.verdict == "A is better"


def test_the_effect_is_cohens_d_for_pairs():
    one, other = drifts(20, 0), drifts(20, 1, 0.5)
    (found,) = compare(scores(one), scores(other), seed=0)
    assert found.effect == pytest.approx((other - one).mean() / (other - one).std(ddof=1), rel=1e-4)
    (same,) = compare(scores(one), scores(one), seed=0)
    assert same.effect is None
    assert same.verdict == NO_DIFFERENCE


def test_few_pairs_show_nothing_however_large_the_difference():
    (found,) = compare(scores(drifts(5, 0)), scores(drifts(5, 1, 9)), seed=0)
    assert (found.verdict, found.chance) == (NO_DIFFERENCE, 2 / 2**5)
    (found,) = compare(scores(drifts(6, 0)), scores(drifts(6, 1, 9)), seed=0)
    assert (found.verdict, found.chance) == ("A is better", 2 / 2**6)


def test_of_many_scores_each_has_to_be_rarer():
    base, far = (np.random.default_rng(seed).normal(mean, 0.05, (8, len(COMPARED))) for seed, mean in ((0, 0), (1, 9)))
    assert {one.verdict for one in compare(table(base), table(far), seed=0)} == {NO_DIFFERENCE}
    (alone,) = compare(scores(base[:, 0]), scores(far[:, 0]), seed=0)
    assert alone.verdict == "A is better"


def test_the_interval_of_a_score_is_its_own():
    one, other = (np.random.default_rng(seed).normal(size=(9, len(COMPARED))) for seed in range(2))
    (alone,) = compare(scores(one[:, 0]), scores(other[:, 0]), seed=0)
    assert compare(table(one), table(other), seed=0)[0].difference == alone.difference


def test_only_videos_with_a_number_in_both_count_and_the_others_are_told():
    one, other = scores(drifts(12, 0)), scores(drifts(14, 1))
    odd = {
        "3.mp4": {"drift.clarity": Unscored("it is 0")},
        "4.mp4": Unscored("it has no frames"),
        "5.mp4": {"motion_smoothness": Score(0.9, 9)},
        "6.mp4": {"drift.clarity": Score(float("inf"), 9)},
        "7.mp4": {"drift.clarity": Score(-1.7e308, 9)},
    }
    found, smoothness = compare(Scores(MADE, {**one.videos, **odd}), other, seed=0)
    assert found.difference.count == 7
    assert found.unscored["a"] == {
        "3.mp4": "it is 0",
        "4.mp4": "it has no frames",
        "5.mp4": "it was not scored",
        "6.mp4": "it is inf",
        "7.mp4": "it is -1.7e+308",
    }
    assert found.unscored["b"] == {}
    assert (smoothness.verdict, smoothness.difference.mean, smoothness.chance) == ("not compared", None, 1)
    assert set(smoothness.unscored["b"]) == set(one.videos)


def test_videos_that_one_report_lacks_are_told():
    one, other = scores(drifts(12, 0)), scores(drifts(14, 1))
    del one.videos["2.mp4"]
    pairs = pairs_of(one, other)
    assert pairs.to_json() == {"only": {"a": [], "b": ["12.mp4", "13.mp4", "2.mp4"]}, "copies": {}}
    assert len(pairs.names) == 11


@pytest.mark.parametrize("side", [0, 1])
def test_a_video_that_is_there_more_than_once_counts_once(side):
    reports = [scores(drifts(10, 0)), scores(drifts(10, 1, 9))]
    (distinct,) = compare(*reports, seed=0)
    assert (distinct.verdict, distinct.difference.count) == ("A is better", 10)
    odd = {"vde_linear.dynamic": Score(float("nan"), 9), **reports[side].videos["0.mp4"]}
    copies = {f"{at}.mp4": {**odd, "vde_linear.dynamic": Score(float("nan"), 9)} for at in range(8)}
    reports[side] = Scores(MADE, {**reports[side].videos, **copies})
    (found,) = compare(*reports, seed=0)
    assert (found.verdict, found.difference.count) == (NO_DIFFERENCE, 3)
    assert pairs_of(*reports).copies == {f"{at}.mp4": "0.mp4" for at in range(1, 8)}


def test_videos_that_could_not_be_scored_are_no_copies():
    one, other = scores(drifts(10, 0)), scores(drifts(10, 1))
    refused = Scores(MADE, {**one.videos, "1.mp4": Unscored("torn"), "2.mp4": Unscored("torn")})
    (found,) = compare(refused, other, seed=0)
    assert found.unscored["a"] == {"1.mp4": "torn", "2.mp4": "torn"}
    assert pairs_of(refused, other).copies == {}


def test_what_is_smaller_than_rounding_is_no_difference():
    base = drifts(20, 0)
    (found,) = compare(scores(base), scores(base + 4e-7), seed=0)
    assert (found.verdict, found.chance, found.difference.mean, found.effect) == (NO_DIFFERENCE, 1, 0, None)
    (found,) = compare(scores(base), scores(base + 1e-5 + drifts(20, 1, 0) / 1e5), seed=0)
    assert found.verdict == "A is better"


def test_still_videos_lose_to_moving_ones_though_all_differences_are_alike():
    rows = np.random.default_rng(0).normal(size=(16, len(COMPARED)))
    moving = rows.copy()
    rows[:, COMPARED.index("dynamic_degree")], moving[:, COMPARED.index("dynamic_degree")] = 0, 1
    found = compare(table(rows), table(moving), seed=0)[COMPARED.index("dynamic_degree")]
    assert (found.verdict, found.effect, found.difference.low) == ("B is better", None, None)


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
    with pytest.raises(ReportError, match="differ in scoring; score both alike, with one lvbench"):
        compare(base, scores(drifts(9, 0), made={**MADE, "scoring": "t"}), seed=0)
    with pytest.raises(ReportError, match="no video of the same name"):
        compare(base, Scores(MADE, {"other.mp4": {"drift.clarity": Score(1.0, 9)}}), seed=0)


def test_a_comparison_is_plain_values():
    (found,) = compare(scores(drifts(9, 0)), scores(drifts(9, 1)), seed=0)
    assert set(found.to_json()) == {"score", "mean", "low", "high", "count", "effect", "chance", "verdict", "unscored"}
