"""VDE is the published number, bit for bit; drift is the same without its faults."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lvbench.drift import drift, identity, identity_drift, vde
from lvbench.errors import UnknownName
from lvbench.score import Score, Unscored

FALLING = [0.80, 0.79, 0.78, 0.76, 0.75, 0.74, 0.73, 0.72, 0.71, 0.70]
LEVELS = [60, 61.2, 58.5, 57, 59.4, 55.8, 54.6, 56.4, 53.4, 52.8]
chunks = st.lists(st.floats(0.0625, 100, width=32), min_size=2, max_size=30)


@pytest.mark.parametrize(
    ("values", "weights", "published"),
    [
        ([0.5] * 4, "linear", 0.0),
        (FALLING, "linear", 2.4125006),
        (FALLING, "log", 0.71858084),
        ([1.0] * 9 + [0.5], "linear", 0.5),
        ([1.0] * 9 + [0.5], "log", 0.0),
        ([1.0, 0.5] + [1.0] * 8, "linear", 4.5),
        ([1.0, 0.5] + [1.0] * 8, "log", 1.0986123),
        (LEVELS, "linear", 2.0199999810),
        ([0, 1, 1], "linear", math.inf),
        ([0, 0], "linear", math.inf),
        ([True, False, True], "linear", 2.0),
        ([-1, -0.5, -2], "linear", -2.0),
        ([0.7], "linear", 0.0),
        ([], "log", 0.0),
    ],
)
def test_vde_is_the_published_number_bit_for_bit(values, weights, published):
    assert vde(values, weights) == float(np.float32(published))


@pytest.mark.parametrize("values", [[1, math.nan, 1], [math.nan, 1, 1], [math.inf, 1, 1]])
def test_vde_of_what_is_no_number_is_none_as_published(values):
    assert math.isnan(vde(values))


@pytest.mark.parametrize("count", [2, 5, 9, 10, 12, 17, 32])
def test_vde_is_what_a_float32_tensor_library_makes_of_the_formula(count):
    for seed in range(200):
        values = np.random.default_rng(seed).uniform(0.2, 1, count).astype(np.float32)
        m = torch.from_numpy(values.copy())
        steps = torch.arange(2, count + 1, dtype=torch.float32)
        published = torch.sum((count - steps + 1) * (torch.abs(m[1:] - m[0]) / m[0]))
        assert vde(values, "linear") == float(published)


def test_log_weights_are_the_logarithms_of_the_linear_ones():
    m = np.array(LEVELS)
    plain = sum(np.log(10 - i + 1) * abs(m[i - 1] - m[0]) / m[0] for i in range(2, 11))
    assert vde(LEVELS, "log") == pytest.approx(plain, rel=1e-6)


def test_an_unknown_weighting_is_refused():
    with pytest.raises(UnknownName, match="did you mean 'linear'"):
        vde(FALLING, "liner")  # type: ignore[arg-type]
    with pytest.raises(UnknownName, match="known: equal, rising"):
        drift(FALLING, "linear")  # type: ignore[arg-type]


@given(values=chunks)
def test_drift_is_the_weighted_mean_of_relative_distances(values):
    m = np.array(values)
    far = np.abs(m[1:] - m[0]) / abs(m[0])
    assert drift(values).value == pytest.approx(np.average(far), abs=1e-12)
    rising = np.average(far, weights=np.arange(1, len(m)))
    assert drift(values, "rising").value == pytest.approx(rising, abs=1e-12)


@given(values=chunks, scale=st.sampled_from([0.25, 2.0, 1024.0]))
def test_drift_does_not_depend_on_the_unit_of_the_score(values, scale):
    assert drift([value * scale for value in values]).value == pytest.approx(drift(values).value, rel=1e-9)
    assert drift([-value for value in values]) == drift(values)


def test_drift_does_not_depend_on_the_number_of_chunks():
    assert drift([1.0] + [0.9] * 9).value == pytest.approx(drift([1.0] + [0.9] * 90).value)
    assert vde([1.0] + [0.9] * 9) < vde([1.0] + [0.9] * 90)


def test_equal_weights_do_not_ask_when_and_rising_ones_count_the_end_most():
    early, late = [1.0, 0.5] + [1.0] * 8, [1.0] * 9 + [0.5]
    assert drift(early) == drift(late)
    assert drift(early, "rising").value < drift(late, "rising").value
    assert vde(early) > vde(late)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([], "at least 2 chunks, got 0"),
        ([0.4], "at least 2 chunks, got 1"),
        ([0.0, 0.5], "the first chunk scored 0"),
        ([0.5, math.nan, 0.5], "chunk 2 has no number"),
        ([0.5, 0.5, math.inf], "chunk 3 has no number"),
    ],
)
def test_drift_that_is_undefined_says_why(values, reason):
    result = drift(values)
    assert isinstance(result, Unscored)
    assert reason in result.reason


def test_a_video_that_stays_as_it_is_has_no_identity_drift():
    features = np.random.default_rng(0).random((30, 8))
    still = [features[:1].repeat(3, 0)] * 5
    assert identity_drift(still).value == pytest.approx(0, abs=1e-12)


def test_identity_drift_sees_a_change_that_is_slow_in_every_chunk():
    angle = np.linspace(0, np.pi / 2, 40)
    turning = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    likeness = identity(np.split(turning, 4))
    assert likeness == sorted(likeness, reverse=True)
    assert identity_drift(np.split(turning, 4)).value > 0.3
    assert identity_drift(np.split(turning, 4), "rising").value > identity_drift(np.split(turning, 4)).value


def test_identity_is_the_mean_cosine_to_the_mean_of_the_first_chunk():
    features = [np.random.default_rng(at).random((4, 6)) for at in range(3)]
    rows = [chunk / np.linalg.norm(chunk, axis=1, keepdims=True) for chunk in features]
    anchor = rows[0].mean(0) / np.linalg.norm(rows[0].mean(0))
    assert identity(features) == pytest.approx([float((chunk @ anchor).mean()) for chunk in rows])


def test_features_of_nothing_leave_identity_drift_unscored():
    result = identity_drift([np.ones((3, 4)), np.zeros((3, 4))])
    assert isinstance(result, Unscored)
    assert isinstance(identity_drift([]), Unscored)
    assert isinstance(identity_drift([np.ones((3, 4))] * 2), Score)
