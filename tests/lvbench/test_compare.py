"""A difference is shown where there is one, and none where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from lvbench import bootstrap, chance
from lvbench.compare import COMPARED, NO_DIFFERENCE, compare, pairs_of, too_few
from lvbench.errors import ReportError
from lvbench.reference import LIKENESSES
from lvbench.report import Scored, Scores, range_of
from lvbench.score import Score, Unscored

MADE = {"name": "light", "fingerprint": "f", "chunks": 10, "decoder": "d", "scoring": "s"}
OWN = [name for name in COMPARED if name not in LIKENESSES]


def video(results, **facts):
    """A video of a report, of 12 s unless it is said otherwise."""
    known = {"size": (48, 64), "fps": 10.0, "frames": 120, "repeated": Score(0.0, 119)}
    return Scored(results=results, **{**known, **facts})


def scores(values, name="drift.clarity", made=MADE, **facts):
    return Scores(
        made, {f"{at}.mp4": video({name: Score(float(value), 9)}, **facts) for at, value in enumerate(values)}
    )


def table(rows, **facts):
    """A report of all scores of videos by themselves, given [videos, scores]."""
    named = [{name: Score(float(value), 9) for name, value in zip(OWN, row, strict=True)} for row in rows]
    return Scores(MADE, {f"{at:02}.mp4": video(results, **facts) for at, results in enumerate(named)})


def verdicts(found):
    return {one.score: one.verdict for one in found}


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


@pytest.mark.parametrize("pairs", [8, 12, 41])
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
    monkeypatch.setattr(bootstrap, "DRAWS", 400)
    monkeypatch.setattr(chance, "ROUND", 250)
    generator, comparisons, shape = np.random.default_rng(pairs), 60, (pairs, len(OWN))
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
    base, far = (np.random.default_rng(seed).normal(mean, 0.05, (8, len(OWN))) for seed, mean in ((0, 0), (1, 9)))
    assert {one.verdict for one in compare(table(base), table(far), seed=0)} == {NO_DIFFERENCE}
    (alone,) = compare(scores(base[:, 0]), scores(far[:, 0]), seed=0)
    assert alone.verdict == "A is better"


def test_the_interval_of_a_score_is_its_own():
    one, other = (np.random.default_rng(seed).normal(size=(9, len(OWN))) for seed in range(2))
    (alone,) = compare(scores(one[:, 0]), scores(other[:, 0]), seed=0)
    assert compare(table(one), table(other), seed=0)[0].difference == alone.difference


def test_only_videos_with_a_number_in_both_count_and_the_others_are_told():
    one, other = scores(drifts(12, 0)), scores(drifts(14, 1))
    odd = {
        "3.mp4": video({"drift.clarity": Unscored("it is 0")}),
        "4.mp4": Unscored("it has no frames"),
        "5.mp4": video({"motion_smoothness": Score(0.9, 9)}),
        "6.mp4": video({"drift.clarity": Score(float("inf"), 9)}),
        "7.mp4": video({"drift.clarity": Score(-1.7e308, 9)}),
    }
    found, smoothness = compare(Scores(MADE, {**one.videos, **odd}), other, seed=0)
    assert found.difference.count == 7
    assert found.unscored["a"] == {
        "3.mp4": "it is 0",
        "4.mp4": "it has no frames",
        "5.mp4": "it was not scored",
        "6.mp4": "the first chunk scored 0 or next to it, and the published form divides by that",
        "7.mp4": "-1.7e+308 is too large to be averaged with others",
    }
    assert found.unscored["b"] == {}
    assert (smoothness.verdict, smoothness.difference.mean, smoothness.chance) == ("not compared", None, 1)
    assert set(smoothness.unscored["b"]) == set(one.videos)


def test_videos_that_one_report_lacks_are_told():
    one, other = scores(drifts(12, 0)), scores(drifts(14, 1))
    del one.videos["2.mp4"]
    pairs = pairs_of(one, other)
    assert pairs.only == {"a": [], "b": ["12.mp4", "13.mp4", "2.mp4"]}
    assert len(pairs.names) == 11
    told = pairs.to_json()
    assert told == {
        "pairs": 11,
        "only": {"a": [], "b": ["12.mp4", "13.mp4", "2.mp4"]},
        "copies": {},
        "unlike": {},
        "frozen": {"a": [], "b": []},
        "repeats": {"a": 0, "b": 0},
    }


def test_pairs_that_repeat_together_count_once():
    reports = [scores(drifts(10, 0)), scores(drifts(10, 1, 9))]
    (distinct,) = compare(*reports, seed=0)
    assert (distinct.verdict, distinct.difference.count) == ("A is better", 10)
    odd = {"vde_linear.dynamic": Score(float("nan"), 9)}
    for at, report in enumerate(reports):
        one = {**report.videos["0.mp4"].results, **odd}
        reports[at] = Scores(MADE, {**report.videos, **{f"{at}.mp4": video(dict(one)) for at in range(8)}})
    (found,) = compare(*reports, seed=0)
    assert (found.verdict, found.difference.count) == (NO_DIFFERENCE, 3)
    pairs = pairs_of(*reports)
    assert pairs.copies == {f"{at}.mp4": "0.mp4" for at in range(1, 8)}
    assert pairs.to_json()["pairs"] == len(pairs.distinct) == 3


@pytest.mark.parametrize("side", [0, 1])
def test_a_generator_that_always_makes_the_same_is_told_apart_and_named(side):
    reports = [scores([9.0] * 12), scores(drifts(12, 1))]
    (found,) = compare(*reports[:: 1 - 2 * side], seed=0)
    assert (found.verdict, found.difference.count) == (f"{'BA'[side]} is better", 12)
    pairs = pairs_of(*reports[:: 1 - 2 * side])
    assert pairs.copies == {}
    assert pairs.repeats == {"a": 12 * (1 - side), "b": 12 * side}
    two = scores([9.0, 9.0, 8.0])
    assert pairs_of(two, scores(drifts(3, 1))).repeats == {"a": 2, "b": 0}


@pytest.mark.parametrize("count", [12, 41])
def test_what_the_videos_are_called_and_who_is_first_changes_no_number(count):
    one, other = (table(np.random.default_rng(seed).normal(0.03 * seed, 0.1, (count, len(OWN)))) for seed in range(2))
    order = np.random.default_rng(5).permutation(count)
    renamed = [
        Scores(MADE, {f"{order[at]:02}.mp4": each for at, each in enumerate(report.videos.values())})
        for report in (one, other)
    ]
    found = compare(one, other, seed=0)
    assert compare(*renamed, seed=0) == found
    turned = compare(other, one, seed=0)
    assert [each.chance for each in turned] == [each.chance for each in found]


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
    rows = np.random.default_rng(0).normal(size=(16, len(OWN)))
    moving = rows.copy()
    rows[:, OWN.index("dynamic_degree")], moving[:, OWN.index("dynamic_degree")] = 0, 1
    found = compare(table(rows), table(moving), seed=0)[OWN.index("dynamic_degree")]
    assert (found.verdict, found.effect, found.difference.low) == ("B is better", None, None)


@pytest.mark.parametrize("name", ["vde_linear.clarity", "drift.beauty", "beauty"])
def test_published_forms_and_scores_that_nobody_knows_are_not_compared(name):
    with pytest.raises(ReportError, match="no score that one of their videos has in both"):
        compare(scores(drifts(9, 0), name), scores(drifts(9, 1), name), seed=0)


def test_reports_whose_shared_videos_are_unscored_are_refused_with_the_reason_of_one():
    base = scores(drifts(3, 0))
    one = Scores(MADE, {**base.videos, "1.mp4": Unscored("torn"), "2.mp4": Unscored("torn")})
    other = Scores(MADE, {"0.mp4": Unscored("it is empty"), "1.mp4": video({}), "9.mp4": base.videos["0.mp4"]})
    with pytest.raises(ReportError, match=r"no video is scored in both reports, such as 0\.mp4 in B: it is empty; "):
        compare(one, other, seed=0)
    with pytest.raises(ReportError, match=r"such as 1\.mp4 in A: torn; "):
        compare(one, Scores(MADE, {"1.mp4": base.videos["1.mp4"]}), seed=0)
    with pytest.raises(ReportError, match="score both alike"):
        compare(base, other, seed=0)


def test_a_score_that_the_first_video_lacks_is_compared_all_the_same():
    one, other = (scores(drifts(12, seed)) for seed in range(2))
    (found,) = compare(Scores(MADE, {**one.videos, "0.mp4": video({})}), other, seed=0)
    assert (found.score, found.difference.count) == ("drift.clarity", 11)


def test_reports_that_do_not_belong_together_are_refused():
    base = scores(drifts(9, 0))
    with pytest.raises(ReportError, match="differ in chunks, fingerprint"):
        compare(base, scores(drifts(9, 0), made={**MADE, "chunks": 5, "fingerprint": "g"}), seed=0)
    with pytest.raises(ReportError, match="differ in scoring; score both alike, with one lvbench"):
        compare(base, scores(drifts(9, 0), made={**MADE, "scoring": "t"}), seed=0)
    with pytest.raises(ReportError, match="no video of the same name"):
        compare(base, Scores(MADE, {"other.mp4": video({"drift.clarity": Score(1.0, 9)})}), seed=0)
    networks = [scores(drifts(9, 0), made={**MADE, "lpips": {"lpips": hashed}}) for hashed in "ab"]
    with pytest.raises(ReportError, match="differ in lpips"):
        compare(*networks, seed=0)
    for reports in ((base, networks[0]), (networks[0], base)):  # one has LPIPS and the other has not
        compare(*reports, seed=0)


def test_a_comparison_is_plain_values():
    (found,) = compare(scores(drifts(9, 0)), scores(drifts(9, 1)), seed=0)
    told = {"score", "mean", "low", "high", "count", "effect", "chance", "verdict", "unscored", "unlike"}
    assert set(found.to_json()) == told


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"frames": 30}, "it is 12 s long in A and 3 s in B"),
        ({"frames": 117}, "it is 12 s long in A and 11.7 s in B"),
        ({"size": (64, 64)}, "it is 64 x 48 in A and 64 x 64 in B"),
        ({"fps": 24.0, "frames": 288}, "it has 10 frames a second in A and 24 in B"),
        (
            {"fps": 5.0, "size": (9, 9)},
            "it is 64 x 48 in A and 9 x 9 in B, it has 10 frames a second in A and 5 in B, it is 12 s long in A and 24",
        ),
    ],
)
def test_videos_of_different_length_rate_or_size_are_not_compared_and_named(facts, why):
    one, other = scores(drifts(12, 0)), scores(drifts(12, 1, 9))
    with pytest.raises(
        ReportError, match=r"no two videos of a pair are of one kind, such as 0.mp4: .*; make both alike"
    ):
        compare(one, Scores(MADE, scores(drifts(12, 1, 9), **facts).videos), seed=0)
    odd = {"3.mp4": video(other.videos["3.mp4"].results, **facts)}
    mixed = Scores(MADE, {**other.videos, **odd})
    (found,) = compare(one, mixed, seed=0)
    assert (found.difference.count, found.verdict) == (11, "A is better")
    unlike = pairs_of(one, mixed).unlike
    assert set(unlike) == {"3.mp4"}
    assert unlike["3.mp4"].startswith(why)


@pytest.mark.parametrize("facts", [{"frames": 118}, {"fps": 10.05}, {"frames": 122}])
def test_what_containers_round_is_no_difference(facts):
    assert pairs_of(scores(drifts(9, 0)), scores(drifts(9, 1), **facts)).unlike == {}


def test_short_videos_may_differ_by_a_frame():
    one, other = scores(drifts(9, 0), frames=10), scores(drifts(9, 1), frames=11)
    assert pairs_of(one, other).unlike == {}
    assert len(pairs_of(one, scores(drifts(9, 1), frames=12)).unlike) == 9


def frozen(rows, **facts):
    """The same report of videos that hardly change, and as good as can be in all scores but for dynamics."""
    best = [range_of(name)[not name.startswith("drift")] for name in OWN]
    moves = OWN.index("dynamic_degree")
    still = [[*best[:moves], 0, *best[moves + 1 :]] for _ in rows]
    report = table(np.array(still) + np.random.default_rng(7).normal(0, 1e-3, (len(rows), len(OWN))), **facts)
    return report


STILL = {"repeated": Score(0.98, 119)}
QUALITIES = {"aesthetic_quality", "imaging_quality"}
"""Which a frozen video may win: they say nothing of how it goes on."""


@pytest.mark.parametrize("side", ["A", "B"])
def test_a_frozen_generator_wins_nothing_by_it(side):
    rows = np.random.default_rng(0).uniform(0.3, 0.7, (14, len(OWN)))
    reports = [frozen(rows, **STILL), table(rows)][:: 1 if side == "A" else -1]
    found = verdicts(compare(*reports, seed=0))
    moving = "AB"[side == "A"]
    for name, verdict in found.items():
        if name == "dynamic_degree":
            assert verdict == f"{moving} is better"
        else:
            assert verdict == (f"{side} is better" if name in QUALITIES else f"withheld, since {side} is frozen")
    assert len(pairs_of(*reports).frozen[side.lower()]) == 14


def test_those_of_many_that_are_frozen_win_nothing_and_the_others_do():
    base, better = drifts(20, 0), drifts(20, 0) - 0.1 + drifts(20, 1, 0) / 10
    one, other = scores(base), scores(better)
    other.videos.update({f"{at}.mp4": video(other.videos[f"{at}.mp4"].results, **STILL) for at in range(15)})
    (found,) = compare(one, other, seed=0)
    assert found.verdict == "withheld, since B is frozen"
    other.videos.update({f"{at}.mp4": video(other.videos[f"{at}.mp4"].results) for at in range(8)})
    (found,) = compare(one, other, seed=0)
    assert found.verdict == "B is better"
    assert len(pairs_of(one, other).frozen["b"]) == 7


def test_a_frozen_video_may_lose():
    one, other = scores(drifts(12, 0), **STILL), scores(drifts(12, 1) - 0.3)
    (found,) = compare(one, other, seed=0)
    assert found.verdict == "B is better"


def test_videos_that_both_repeat_their_frames_are_at_a_fraction_of_their_rate_and_not_frozen():
    for shares in ((0.5, 0.0), (0.67, 0.67), (0.67, 0.5), (0.99, 0.99)):
        one, other = (scores(drifts(12, at), repeated=Score(share, 119)) for at, share in enumerate(shares))
        assert pairs_of(one, other).frozen == {"a": [], "b": []}
    one, other = (scores(drifts(12, at), repeated=Score(share, 119)) for at, share in enumerate((0.67, 0.98)))
    assert len(pairs_of(one, other).frozen["b"]) == 12
    unknown = scores(drifts(12, 0), repeated=Unscored("no eyes"))
    assert pairs_of(unknown, other).frozen == {"a": [], "b": []}


def beside(values, compared=120, name="psnr", real="r"):
    """A report whose videos differ in how like their references they are alone."""
    return Scores(
        MADE,
        {
            f"{at}.mp4": video(
                {"drift.clarity": Score(0.1 * at, 9)},
                likenesses={name: Score(float(value), 9)},
                compared=compared,
                reference_sha256=real,
            )
            for at, value in enumerate(values)
        },
    )


@pytest.mark.parametrize(("name", "better"), [("psnr", "B"), ("lpips", "A"), ("ssim", "B"), ("flow_agreement", "B")])
def test_how_like_their_references_videos_are_is_compared_too(name, better):
    found = verdicts(compare(beside(drifts(12, 0), name=name), beside(drifts(12, 1) + 0.5, name=name), seed=0))
    assert found == {"drift.clarity": NO_DIFFERENCE, name: f"{better} is better"}


def test_likenesses_of_one_side_alone_or_over_another_length_are_not_compared():
    one, other = beside(drifts(12, 0)), beside(drifts(12, 1), compared=60)
    base = scores(0.1 * np.arange(12))
    assert set(verdicts(compare(one, base, seed=0))) == {"drift.clarity"}
    _, found = compare(one, other, seed=0)
    assert found.verdict == "not compared"
    assert set(found.unlike.values()) == {"its reference is of another length in A than in B"}
    _, found = compare(one, beside(drifts(12, 1), compared=119), seed=0)
    assert found.difference.count == 12


def test_likenesses_to_another_real_video_are_not_compared():
    one, other = beside(drifts(12, 0)), beside(drifts(12, 1))
    other.videos["3.mp4"] = beside(drifts(12, 1), real="s").videos["3.mp4"]
    drift, psnr = compare(one, other, seed=0)
    assert (drift.difference.count, psnr.difference.count) == (12, 11)
    why = {"3.mp4": "its reference is another video in A than in B"}
    assert (drift.unlike, psnr.unlike, psnr.unscored) == ({}, why, {"a": {}, "b": {}})
    assert psnr.to_json()["unlike"] == why
    for before in (beside(drifts(12, 0), real=None), one):  # a report that does not tell which
        assert compare(before, beside(drifts(12, 1), real=None), seed=0)[1].difference.count == 12


def test_copies_beside_other_references_are_likened_to_something_else():
    one, other = beside(drifts(12, 0)), beside(drifts(12, 1))
    for report in (one, other):
        for name, each in report.videos.items():
            report.videos[name] = video({"drift.clarity": Score(0.1, 9)}, likenesses=each.likenesses, compared=120)
    drift, psnr = compare(one, other, seed=0)
    assert (drift.difference.count, psnr.difference.count) == (1, 12)
    assert len(pairs_of(one, other).distinct) == 1


def renamed(report, *names):
    return Scores(MADE, dict(zip(names, report.videos.values(), strict=True)))


def test_names_that_differ_in_the_extension_alone_are_a_pair_where_there_is_one():
    one = renamed(scores(drifts(4, 0)), "x/w1.mp4", "w2.mp4", "w3.mp4", "v1.0")
    other = renamed(scores(drifts(6, 1)), "x/w1.MKV", "w2.mp4", "w2.mkv", "w3.webm", "w3.mov", "v1.1")
    pairs = pairs_of(one, other)
    assert pairs.names == {"w2.mp4": "w2.mp4", "x/w1.mp4": "x/w1.MKV"}
    assert pairs.only == {"a": ["v1.0", "w3.mp4"], "b": ["v1.1", "w2.mkv", "w3.mov", "w3.webm"]}
    (found,) = compare(one, other, seed=0)
    assert found.difference.count == 2
    assert found.difference.mean == pytest.approx(np.mean((drifts(6, 1) - [*drifts(4, 0), 0, 0])[:2]), abs=1e-6)


def test_how_many_pairs_a_verdict_needs_is_told_by_how_many_scores_there_are():
    assert too_few(compare(scores(drifts(5, 0)), scores(drifts(5, 1)), seed=0)) == (5, 6)
    assert too_few(compare(scores(drifts(6, 0)), scores(drifts(6, 1)), seed=0)) is None
    for pairs, few in ((9, (9, 10)), (10, None)):
        rows = np.random.default_rng(0).normal(size=(2, pairs, len(OWN)))
        found = compare(table(rows[0]), table(rows[1] + 9), seed=0)
        assert too_few(found) == few
        assert (set(verdicts(found).values()) == {NO_DIFFERENCE}) == (few is not None)
    rows = np.random.default_rng(0).normal(size=(2, 9, len(OWN)))
    reports = [table(part) for part in rows]
    for report in reports:
        for name, each in report.videos.items():
            report.videos[name] = video({score: each.results[score] for score in OWN[:12]})
    assert too_few(compare(*reports, seed=0)) is None


def test_no_bound_of_a_difference_lies_where_none_can_be():
    rows = np.random.default_rng(0).uniform(size=(2, 8, len(OWN)))
    at = OWN.index("dynamic_degree")
    rows[0, :, at], rows[1, :, at] = 0, [1] * 7 + [0]
    found = compare(table(rows[0]), table(rows[1]), seed=0)[at]
    assert found.difference.high == 1
