"""An interval holds the mean, is the same for the same seed, and is not made of one sample."""

from __future__ import annotations

import numpy as np
import pytest

from lvbench import bootstrap
from lvbench.bootstrap import interval

VALUES = list(np.random.default_rng(0).normal(3, 1, 40))


def test_equal_seeds_give_equal_intervals_and_others_others():
    assert interval(VALUES, seed=1) == interval(VALUES, seed=1)
    assert interval(VALUES, seed=1) != interval(VALUES, seed=2)


def test_the_interval_is_that_of_the_normal_law_for_many_samples():
    found = interval(VALUES, seed=0)
    error = np.std(VALUES) / np.sqrt(len(VALUES))
    assert found.mean == pytest.approx(np.mean(VALUES))
    assert found.low == pytest.approx(found.mean - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(found.mean + 1.96 * error, abs=0.1 * error)


def test_a_higher_level_is_a_wider_interval():
    narrow, wide = interval(VALUES, seed=0, level=0.9), interval(VALUES, seed=0, level=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_it_covers_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(5)
    found = [interval(generator.normal(0, 1, 30), seed=at) for at in range(200)]
    assert 0.88 <= np.mean([one.low <= 0 <= one.high for one in found]) <= 0.98


def test_one_sample_has_no_interval():
    found = interval([4.0], seed=0)
    assert (found.mean, found.low, found.high, found.count) == (4.0, None, None, 1)


def test_the_size_of_a_draw_changes_nothing(monkeypatch):
    whole = interval(VALUES, seed=0)
    monkeypatch.setattr(bootstrap, "BATCH_NUMBERS", 1000)
    assert interval(VALUES, seed=0) == whole
