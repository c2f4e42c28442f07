"""An interval holds the truth about as often as it says, is the same for the same seed, and is not made of little."""

from __future__ import annotations

import numpy as np
import pytest

from lvbench import bootstrap
from lvbench.bootstrap import FEWEST, Interval, interval

VALUES = list(np.random.default_rng(0).normal(3, 1, 40))


def test_equal_seeds_give_equal_intervals_and_others_others():
    assert interval(VALUES, seed=1) == interval(VALUES, seed=1)
    assert interval(VALUES, seed=1) != interval(VALUES, seed=2)


def test_the_interval_is_that_of_the_normal_law_for_many_samples():
    values = np.random.default_rng(1).normal(3, 1, 400)
    found = interval(values, seed=0)
    error = np.std(values) / np.sqrt(len(values))
    assert found.mean == pytest.approx(np.mean(values))
    assert found.low == pytest.approx(found.mean - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(found.mean + 1.96 * error, abs=0.1 * error)


@pytest.mark.parametrize("count", [6, 8, 12])
@pytest.mark.parametrize(
    ("draw", "truth", "least"),
    [
        (lambda generator, count: generator.normal(0, 1, count), 0, 0.91),
        (lambda generator, count: np.abs(generator.normal(0, 1, count)), (2 / np.pi) ** 0.5, 0.91),
        (lambda generator, count: generator.exponential(1, count), 1, 0.88),
    ],
    ids=["normal", "half of it", "exponential"],
)
def test_it_covers_the_truth_about_as_often_as_it_says(monkeypatch, draw, truth, least, count):
    monkeypatch.setattr(bootstrap, "DRAWS", 1000)
    generator = np.random.default_rng(7)
    found = [interval(draw(generator, count), seed=at) for at in range(500)]
    assert least <= np.mean([one.low <= truth <= one.high for one in found]) <= 0.98


def test_answers_of_yes_and_no_have_an_interval_on_both_sides():
    found = interval([1.0] * 15 + [0.0], seed=0)
    assert 0.5 < found.low < found.mean - 0.05
    assert found.mean + 0.02 < found.high < 1.1


@pytest.mark.parametrize("values", [[4.0], [1.0, 2.0, 3.0, 4.0, 5.0], [0.1] * 10])
def test_few_samples_have_no_bounds_nor_have_those_that_are_all_alike(values):
    assert len(values) < FEWEST or len(set(values)) == 1
    assert interval(values, seed=0) == Interval(pytest.approx(np.mean(values)), None, None, len(values))


def test_nothing_has_no_mean():
    assert interval([], seed=0) == Interval(None, None, None, 0)


@pytest.mark.parametrize("scale", [2.0**-1000, 2.0**-3, 2.0**300])
def test_the_unit_does_not_count(scale):
    found, scaled = interval(VALUES, seed=0), interval([value * scale for value in VALUES], seed=0)
    assert scaled.low / scale == pytest.approx(found.low)
    assert scaled.high / scale == pytest.approx(found.high)


def test_the_size_of_a_draw_changes_nothing(monkeypatch):
    whole = interval(VALUES, seed=0)
    monkeypatch.setattr(bootstrap, "BATCH_NUMBERS", 1000)
    assert interval(VALUES, seed=0) == whole


def test_the_order_of_the_samples_changes_nothing():
    assert interval(VALUES[::-1], seed=0) == interval(VALUES, seed=0)


def test_no_bound_lies_where_no_value_can_be():
    values = [0.0] * 9 + [0.9]
    free = interval(values, seed=0)
    assert free.low < 0
    assert interval(values, seed=0, within=(0.0, 1.0)).low == 0
    assert interval([1 - value for value in values], seed=0, within=(0.0, 1.0)).high == 1
    assert interval(values, seed=0, within=(0.0, 1.0)).high == min(1.0, free.high)
    outside = interval(values, seed=0, within=(0.5, 1.0))  # of values that cannot be
    assert outside.low == outside.mean
