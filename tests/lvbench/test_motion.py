"""Flow is found, half of it foretells the picture between, and neither depends on threads or on what came before."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from lvbench.motion import Mover, difference, halfway


def picture(shift: int = 0) -> np.ndarray:
    base = np.random.default_rng(0).integers(0, 255, (24, 40), dtype=np.uint8)
    wide = cv2.resize(base, (320, 184), interpolation=cv2.INTER_CUBIC)
    return np.roll(wide, shift, axis=1)


def test_the_flow_of_a_shift_is_the_shift():
    flow = Mover().flow(picture(), picture(4))
    assert flow.shape == (184, 320, 2)
    assert np.median(flow[20:-20, 20:-20, 0]) == pytest.approx(4, abs=0.2)
    assert np.median(flow[20:-20, 20:-20, 1]) == pytest.approx(0, abs=0.2)


def test_the_picture_between_is_foretold_better_than_by_the_one_before():
    before, between, after = (np.stack([picture(at)] * 3, axis=-1) for at in (0, 3, 6))
    guess = halfway(before, after, Mover().flow(picture(0), picture(6)))
    assert difference(guess, between) < 0.3 * difference(before, between)


def test_without_flow_the_picture_between_is_the_average():
    before, after = (np.stack([picture(at)] * 3, axis=-1) for at in (0, 9))
    guess = halfway(before, after, np.zeros((184, 320, 2), np.float32))
    assert np.abs(guess - (before / 2 + after / 2)).max() <= 0.5


def test_difference_is_the_mean_of_absolute_differences():
    one, other = np.random.default_rng(0).integers(0, 255, (2, 31, 17, 3), dtype=np.uint8)
    assert difference(one, other) == pytest.approx(np.abs(one.astype(int) - other).mean())


def test_a_flow_does_not_depend_on_the_one_before():
    mover = Mover()
    mover.flow(picture(0), picture(20))
    assert np.array_equal(mover.flow(picture(), picture(4)), Mover().flow(picture(), picture(4)))


def test_the_smallest_pictures_have_a_flow():
    small = picture()[:32, :32].copy()
    assert Mover().flow(small, small).shape == (32, 32, 2)
