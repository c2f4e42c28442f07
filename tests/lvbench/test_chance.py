"""Chance alone shows a difference no more often than it is said to, with few pairs and many scores too."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from lvbench import chance as module
from lvbench.chance import EXACT, chance, fewest, together

LAWS = {
    "normal": lambda generator, shape: generator.normal(size=shape),
    "heavy tails": lambda generator, shape: generator.standard_t(3, shape),
    "skewed": lambda generator, shape: generator.lognormal(size=shape),
    "scores that go together": lambda generator, shape: generator.normal(size=shape) + generator.normal(size=shape[1]),
}
"""Of the scores of one generator, [scores, pairs]."""


@pytest.mark.parametrize("pairs", [6, 9, 12, 41])
@pytest.mark.parametrize("law", LAWS)
def test_equal_generators_are_told_apart_in_5_of_100_comparisons_at_most(monkeypatch, law, pairs):
    monkeypatch.setattr(module, "ROUND", 250)
    generator, shape, comparisons = np.random.default_rng(pairs), (7, pairs), 120
    told = 0
    for _ in range(comparisons):
        found = [chance(one, seed=0) for one in LAWS[law](generator, shape) - LAWS[law](generator, shape)]
        told += min(together(found)) <= 0.05
    assert told <= 0.05 * comparisons + 3 * (0.05 * 0.95 * comparisons) ** 0.5


def test_one_score_is_told_apart_as_often_as_is_said_and_not_less():
    generator = np.random.default_rng(0)
    found = np.array([chance(generator.normal(size=9), seed=0) for _ in range(1000)])
    assert [np.mean(found <= level) for level in (0.05, 0.5)] == pytest.approx([0.05, 0.5], abs=0.05)


def test_a_difference_is_seen():
    generator = np.random.default_rng(0)
    found = [min(together([chance(generator.normal(1, 1, 16), seed=0)] + [1.0] * 13)) for _ in range(100)]
    assert np.mean(np.array(found) <= 0.05) > 0.6


@pytest.mark.parametrize("pairs", [1, 5, 8])
def test_all_signs_are_tried_of_few_pairs(pairs):
    sample = np.random.default_rng(pairs).normal(0.4, 1, pairs)
    means = [abs(np.dot(signs, sample)) for signs in product((-1, 1), repeat=pairs)]
    assert chance(sample, seed=0) == pytest.approx(np.mean(np.array(means) >= abs(sample.sum()) - 1e-12))


@pytest.mark.parametrize("pairs", [17, 36])
def test_halves_of_many_pairs_say_what_drawn_signs_do(monkeypatch, pairs):
    sample = np.random.default_rng(pairs).normal(0.3, 1, pairs)
    exact = chance(sample, seed=0)
    assert chance(sample, seed=1) == exact
    monkeypatch.setattr(module, "EXACT", 5)
    monkeypatch.setattr(module, "ENOUGH", 40_000)
    assert chance(sample, seed=0) == pytest.approx(exact, abs=4 * (exact / 200_000) ** 0.5)
    assert chance(sample, seed=0) != chance(sample, seed=1)
    whole = chance(sample, seed=0)
    monkeypatch.setattr(module, "BATCH_NUMBERS", 1000)
    assert chance(sample, seed=0) == whole


def test_of_rare_sums_so_many_signs_are_drawn_that_the_share_is_known_to_a_tenth():
    sample = np.random.default_rng(3).normal(0.55, 1, EXACT + 9)
    found = [chance(sample, seed=seed) for seed in range(8)]
    assert 0.001 < np.mean(found) < 0.01
    assert np.std(found) < 0.1 * np.mean(found)


@pytest.mark.parametrize("pairs", [20, EXACT + 5])
def test_the_order_of_the_pairs_and_who_is_first_change_nothing(pairs):
    generator = np.random.default_rng(pairs)
    sample = generator.normal(0.4, 1, pairs)
    whole = chance(sample, seed=0)
    for _ in range(5):
        assert chance(generator.permutation(sample), seed=0) == whole
        assert chance(-generator.permutation(sample), seed=0) == whole


def test_what_is_drawn_is_never_impossible(monkeypatch):
    monkeypatch.setattr(module, "ROUND", 50)
    assert chance([1.0] * 40, seed=0) == 1 / (module.MOST_ROUNDS * 50 + 1)


@pytest.mark.parametrize("scores", [1, 2, 12, 16, 25])
def test_the_fewest_pairs_are_those_of_which_the_rarest_sum_is_rare_enough(scores):
    needed = fewest(scores, 0.05)
    rarest = [min(together([chance([1.0] * pairs, seed=0)] * scores)) for pairs in (needed - 1, needed)]
    assert rarest[0] > 0.05 >= rarest[1]
    assert (fewest(1, 0.05), fewest(12, 0.05)) == (6, 9)


def test_no_difference_is_always_there_by_chance():
    assert chance([], seed=0) == chance([0.0] * 9, seed=0) == chance([0.0] * 40, seed=0) == 1


def test_sums_that_differ_by_rounding_count_as_equal():
    assert chance([0.1, 0.2, -0.3 + 1e-17, 0.3], seed=0) == chance([1, 2, -3, 3], seed=0)


def test_the_unit_and_the_sign_of_differences_do_not_count():
    sample = np.random.default_rng(2).normal(0.3, 1, 10)
    for scale in (-1.0, 1e-90, 1e90):
        assert chance(sample * scale, seed=0) == chance(sample, seed=0)


def test_many_scores_need_rarer_ones_each():
    assert together([0.03, 0.01, 0.04]) == pytest.approx([0.06, 0.03, 0.06])
    assert together([0.5, 0.9]) == [1.0, 1.0]
    assert together([0.02]) == [0.02]
    assert together([]) == []
