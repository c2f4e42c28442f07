"""Consistency is the published formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lvbench.consistency import consistency
from lvbench.errors import ConfigError
from lvbench.score import Unscored
from tests.lvbench.films import synthetic

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_consistency_is_the_published_number_on_the_published_clip():
    frames = torch.from_numpy(synthetic()).permute(0, 3, 1, 2).float()
    shown = F.interpolate(frames, size=(224, 298), mode="bilinear") / 255
    shown = (shown - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(DEVIATION).view(1, 3, 1, 1)
    weights = torch.linspace(-1, 1, 6144).reshape(8, 768)
    features = F.adaptive_avg_pool2d(shown, 16).flatten(1) @ weights.T
    assert consistency(features.numpy()).value == pytest.approx(0.999981932, abs=1e-6)


def test_consistency_is_the_mean_of_two_cosines_that_are_not_below_0():
    f = np.random.default_rng(1).normal(size=(9, 5))
    u = f / np.linalg.norm(f, axis=1, keepdims=True)
    pairs = [(max(0, u[t] @ u[t - 1]) + max(0, u[t] @ u[0])) / 2 for t in range(1, 9)]
    result = consistency(f)
    assert result.value == pytest.approx(np.mean(pairs))
    assert result.count == 8


def test_the_length_of_a_row_does_not_count():
    f = np.random.default_rng(2).random((4, 3))
    assert consistency(f * [[1], [5], [0.1], [7]]).value == pytest.approx(consistency(f).value)


def test_frames_that_are_all_alike_are_1_and_not_more():
    for seed in range(200):
        f = np.random.default_rng(seed).random((1, 5)).repeat(4, 0)
        assert 1 - 1e-12 < consistency(f).value <= 1


@pytest.mark.parametrize(
    ("features", "reason"),
    [
        (np.ones((1, 3)), "at least 2 frames, got 1"),
        ([], "at least 2 frames, got 0"),
        (np.array([[1.0, 0], [0, 0], [1, 0]]), "frame 1 has no features"),
        (np.array([[1.0, 0], [1, 0], [np.nan, 0]]), "frame 2 has no features"),
    ],
)
def test_consistency_that_is_undefined_says_why(features, reason):
    assert reason in consistency(features).reason
    assert isinstance(consistency(features), Unscored)


@pytest.mark.parametrize(
    ("features", "given"),
    [([1, 2], r"\[2\]"), (np.ones((3, 4, 5)), r"\[3, 4, 5\]"), ([["a"]] * 3, "'a'"), ([[1], [1, 2]], r"\[1, 2\]")],
)
def test_what_is_no_table_of_numbers_is_refused_with_what_was_given(features, given):
    with pytest.raises(ConfigError, match=f"features of the frames of one video, .F, D. numbers, got .*{given}.*stack"):
        consistency(features)
