"""Clarity falls with blur and with noise, and noise is measured in grey levels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from lvbench.clarity import clarity, noise, sharpness


@pytest.fixture(scope="module")
def picture():
    """A drawn scene: shapes with sharp borders on a slope of light."""
    grey = np.tile(np.linspace(60, 180, 320), (184, 1))
    generator = np.random.default_rng(0)
    for _ in range(60):
        x, y, r = generator.integers((0, 0, 4), (320, 184, 20))
        cv2.circle(grey, (int(x), int(y)), int(r), float(generator.integers(20, 235)), -1)
    return np.rint(grey).astype(np.uint8)


def noisy(picture, sigma):
    grain = np.random.default_rng(1).normal(0, sigma, picture.shape)
    return np.clip(np.rint(picture + grain), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("sigma", [0, 2, 6])
def test_the_more_blur_the_less_clear_however_noisy(picture, sigma):
    blurred = [picture, *(cv2.GaussianBlur(picture, (0, 0), width) for width in (1, 2, 4))]
    found = [clarity(noisy(shown, sigma)) for shown in blurred]
    assert found == sorted(found, reverse=True)
    assert found[0] > 1.5 * found[2]


@pytest.mark.parametrize("width", [0.1, 1, 2, 4])
def test_the_more_noise_the_less_clear_however_blurred(picture, width):
    shown = cv2.GaussianBlur(picture, (0, 0), width)
    found = [clarity(noisy(shown, sigma)) for sigma in (0, 2, 4, 8, 16)]
    assert found == sorted(found, reverse=True)
    assert found[0] > 2 * found[3]


@pytest.mark.parametrize("sigma", [3.0, 8.0, 15.0])
def test_noise_is_the_standard_deviation_that_was_put_in(sigma):
    slope = np.tile(np.linspace(80, 170, 320), (184, 1))
    assert noise(noisy(slope, sigma)) == pytest.approx(sigma, rel=0.05)


def test_borders_are_no_noise(picture):
    assert noise(picture) < 0.5


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_picture_of_one_grey_shows_nothing(level):
    flat = np.full((48, 64), level, np.uint8)
    assert clarity(flat) == sharpness(flat) == noise(flat) == 0


@pytest.mark.parametrize("above", [0, 9])
def test_sharpness_is_what_a_blur_takes_away_of_what_is_above_the_noise(picture, above):
    wide = picture.astype(np.int64)
    kernel = np.ones(9) / 9
    shares = []
    for axis in (0, 1):
        padded = np.pad(wide, [(4, 4) if at == axis else (0, 0) for at in (0, 1)], mode="reflect")
        blurred = np.rint(np.apply_along_axis(np.convolve, axis, padded, kernel, mode="valid"))
        before, after = np.abs(np.diff(wide, axis=axis)), np.abs(np.diff(blurred, axis=axis))
        detail = np.where(before > above, before, 0)
        shares.append(np.maximum(detail - after, 0).sum() / before.sum())
    assert sharpness(picture, above) == pytest.approx(min(shares), abs=1e-3)


def test_a_blur_in_one_direction_is_seen(picture):
    assert sharpness(cv2.blur(picture, (9, 1))) < 0.7 * sharpness(picture)
    assert sharpness(cv2.blur(picture, (1, 9))) < 0.7 * sharpness(picture)
