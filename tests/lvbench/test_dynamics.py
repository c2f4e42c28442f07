"""The dynamic degree is the published rule, and a frozen video never passes it."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from lvbench import motion
from lvbench.dynamics import STILL_PX, dynamic_degree, magnitude, moves, stride
from lvbench.score import Score, Unscored


def test_the_magnitude_is_the_published_one():
    y, x = np.mgrid[0:48, 0:64]
    assert magnitude(np.stack([0.1 * x, 0.05 * y], axis=-1)) == pytest.approx(6.366351604, abs=1e-6)


def test_the_magnitude_is_the_mean_of_the_fastest_twentieth():
    flow = np.random.default_rng(0).normal(size=(20, 30, 2))
    lengths = np.sort(np.linalg.norm(flow, axis=-1).ravel())
    assert magnitude(flow) == pytest.approx(lengths[-30:].mean())


@pytest.mark.parametrize(("hits", "is_moving"), [(11, False), (12, True), (47, True)])
def test_48_looks_need_12_pairs_over_the_threshold(hits, is_moving):
    over, under = 11.26, 11.25
    assert moves([over] * hits + [under] * (47 - hits), (480, 832)) is is_moving


def test_16_looks_need_4():
    assert moves([12.0] * 4 + [0.0] * 11, (480, 832))
    assert not moves([12.0] * 3 + [0.0] * 12, (480, 832))


def test_a_single_look_moves_as_published_and_is_unscored_here():
    assert moves([], (480, 832))
    assert isinstance(dynamic_degree([]), Unscored)


@pytest.mark.parametrize("pairs", [1, 2, 47])
def test_a_frozen_video_never_moves(pairs):
    assert dynamic_degree([0.0] * pairs) == Score(0.0, pairs)


def test_a_video_that_moves_does():
    assert dynamic_degree([7.0] * 9) == Score(1.0, 9)


def test_a_look_without_a_number_leaves_it_unscored():
    assert isinstance(dynamic_degree([7.0, math.nan]), Unscored)


@pytest.mark.parametrize(("fps", "frames"), [(1, 1), (8, 1), (16, 2), (24, 3), (30, 4), (60, 8)])
def test_looks_are_an_eighth_of_a_second_apart(fps, frames):
    assert stride(fps) == frames


def test_noise_over_a_still_picture_is_too_little_to_be_motion_and_a_pixel_is_not():
    generator = np.random.default_rng(0)
    picture = cv2.GaussianBlur(generator.uniform(0, 255, (192, 256)).astype(np.float32), (0, 0), 3) * 4 - 400
    still, noisy = (np.clip(picture + generator.normal(0, 2, picture.shape), 0, 255).astype(np.uint8) for _ in range(2))
    mover = motion.Mover()
    assert magnitude(mover.flow(still, noisy)) < STILL_PX
    assert magnitude(mover.flow(still, np.roll(noisy, 1, axis=1))) > STILL_PX
