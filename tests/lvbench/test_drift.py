"""VDE is the published number, bit for bit; drift is the same without its faults."""

from __future__ import annotations

import math
import re
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lvbench.drift import drift, identity, identity_drift, vde
from lvbench.errors import ConfigError, UnknownName
from lvbench.score import Score, Unscored

FALLING = [0.80, 0.79, 0.78, 0.76, 0.75, 0.74, 0.73, 0.72, 0.71, 0.70]
LEVELS = [60, 61.2, 58.5, 57, 59.4, 55.8, 54.6, 56.4, 53.4, 52.8]
module = sys.modules["lvbench.drift"]
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
        ([0, 0, 0], "linear", math.inf),
        ([0, 0, 0], "log", math.inf),
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
        ([0.0, 0.5], "the first chunk scored 0 or less"),
        ([1, 1e308, -1e308], "too large for a number"),
        ([1, 1e308, 1.7e308, 1.7e308], "too large for a number"),
        ([1e-300, 1e300], "too large for a number"),
        ([-1.7e308, 1.7e308], "too large for a number"),
        ([0.5, math.nan, 0.5], "chunk 2 has no number"),
        ([0.5, 0.5, math.inf], "chunk 3 has no number"),
    ],
)
def test_drift_that_is_undefined_says_why(values, reason):
    result = drift(values)
    assert isinstance(result, Unscored)
    assert reason in result.reason


@given(values=st.lists(st.floats(), max_size=12), floor=st.sampled_from([0.0, 0.5]))
def test_drift_is_a_number_or_a_reason_whatever_the_values(values, floor):
    for weights in ("equal", "rising"):
        result = drift(values, weights, floor=floor)
        assert isinstance(result, Unscored) or math.isfinite(result.value)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_first_chunk_of_next_to_nothing_leaves_drift_unscored(sign):
    still = [sign * value for value in (0.0032, 40, 40, 41, 40)]
    assert drift(still).value > 10_000
    assert drift(still, floor=0.5) == Unscored("the first chunk scored 0.5 or less, so relative drift is undefined")
    assert isinstance(drift([0.5, 1], floor=0.5), Unscored)
    assert drift([0.501, 1], floor=0.5) == drift([0.501, 1])


def test_a_video_that_stays_as_it_is_has_no_identity_drift():
    features = np.random.default_rng(0).random((30, 8))
    still = [features[:1].repeat(3, 0)] * 5
    assert identity_drift(still).value == pytest.approx(0, abs=1e-12)


def test_identity_drift_sees_a_change_that_is_slow_in_every_chunk():
    angle = np.linspace(0, np.pi / 2, 40)
    turning = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    likeness = identity(np.split(turning, 4))
    assert likeness == sorted(likeness, reverse=True)
    assert identity_drift(np.split(turning, 4)).value > 0.2
    assert identity_drift(np.split(turning, 4), "rising").value > identity_drift(np.split(turning, 4)).value


def test_identity_is_the_cosine_to_the_likest_frame_of_the_first_chunk_or_to_their_mean():
    features = [np.random.default_rng(at).normal(size=(4, 6)) + 0.2 for at in range(3)]
    first, *later = (chunk / np.linalg.norm(chunk, axis=1, keepdims=True) for chunk in features)

    def like(frame, known):
        mean = known.mean(0) / np.linalg.norm(known.mean(0))
        return max(0.0, mean @ frame, *(known @ frame))

    own = np.mean([like(frame, np.delete(first, at, 0)) for at, frame in enumerate(first)])
    plain = [own, *(min(own, np.mean([like(frame, first) for frame in chunk])) for chunk in later)]
    assert identity(features) == pytest.approx(plain)


def seen(*, frames: int = 12, size: int = 64, seed: int = 0) -> NDArray[np.float64]:
    """Features of a first chunk, of frames that are alike but not the same."""
    generator = np.random.default_rng(seed)
    return generator.random(size) + 0.3 * generator.random((frames, size))


def test_what_repeats_the_first_chunk_in_any_order_or_stays_at_a_frame_or_the_mean_of_it_does_not_drift():
    first = seen()
    turned = np.random.default_rng(1).permutation(first)
    mean = (first / np.linalg.norm(first, axis=1, keepdims=True)).mean(0, keepdims=True)
    for later in (first, turned, first[3:4].repeat(7, 0), mean.repeat(12, 0), 5 * first):
        assert identity_drift([first, later, later]).value == pytest.approx(0, abs=1e-12)


def test_what_goes_to_and_fro_between_two_faces_does_not_drift_and_a_third_does():
    one, other, third = np.eye(3)
    both = np.stack([one, other] * 6)
    assert identity_drift([both, (one + other)[None].repeat(12, 0)]).value == pytest.approx(0, abs=1e-12)
    new = ((one + other) / 2 + third / 2**0.5)[None].repeat(12, 0)
    assert identity_drift([both, new]).value == pytest.approx(1 - 0.5**0.5)
    assert identity_drift([both, third[None].repeat(12, 0)]).value == 1


def test_more_frames_of_something_new_are_more_identity_drift():
    first = seen()
    new = np.random.default_rng(9).random(64) * np.linspace(0, 3, 64)
    found = []
    for count in range(13):
        later = first.copy()
        later[:count] = new
        found.append(identity_drift([first, later]).value)
    assert found[0] == pytest.approx(0, abs=1e-12)
    assert all(before < after for before, after in pairwise(found[2:]))
    assert found[12] > 0.05


@given(seed=st.integers(0, 10_000), signed=st.booleans())
def test_identity_drift_is_between_0_and_1_and_does_not_ask_for_the_order_within_a_chunk(seed, signed):
    generator = np.random.default_rng(seed)
    features = [generator.random((5, 4)) - 0.5 * signed for _ in range(3)]
    found = identity_drift(features)
    mixed = identity_drift([generator.permutation(chunk) for chunk in features])
    if isinstance(found, Score):
        assert 0 <= found.value <= 1
        assert mixed.value == pytest.approx(found.value, abs=1e-9)


def test_chunks_of_noise_around_one_thing_hardly_drift():
    generator = np.random.default_rng(0)
    subject = generator.random(64)
    noisy, other = ([what + 0.2 * generator.normal(size=64) for _ in range(30)] for what in (subject, subject[::-1]))
    assert identity_drift([np.array(noisy[:15]), np.array(noisy[15:])]).value < 0.01
    assert identity_drift([np.array(noisy[:15]), np.array(other[15:])]).value > 0.1


def test_long_chunks_are_compared_by_parts(monkeypatch):
    features = [seen(frames=20, seed=at) for at in range(3)]
    whole = identity(features)
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 7)
    assert identity(features) == whole


def test_features_of_nothing_leave_identity_drift_unscored():
    result = identity_drift([np.ones((3, 4)), np.zeros((3, 4))])
    assert isinstance(result, Unscored)
    assert isinstance(identity_drift([]), Unscored)
    assert isinstance(identity_drift([np.ones((1, 4)), np.ones((3, 4))]), Unscored)
    assert isinstance(identity_drift([np.ones((3, 4)), np.ones((0, 4))]), Unscored)
    assert isinstance(identity_drift([np.eye(3), np.eye(3)]), Unscored)
    assert isinstance(identity_drift([np.ones((3, 4))] * 2), Score)


def test_chunks_of_one_length_may_be_one_array():
    features = np.random.default_rng(3).random((4, 5, 3))
    assert identity_drift(features) == identity_drift(list(features))
    assert identity(features) == identity(list(features))


@pytest.mark.parametrize(
    ("features", "shapes"),
    [
        (np.ones((20, 3)), r"chunks of \[3\], \[3\], \[3\]; cut"),
        (np.ones(4), r"chunks of \[\], \[\], \[\]; cut"),
        ([np.ones((4, 3)), np.ones((4, 2))], r"chunks of \[4, 3\], \[4, 2\]; cut"),
        (np.ones((2, 2, 3, 4)), r"chunks of \[2, 3, 4\], \[2, 3, 4\]; cut"),
        ([[["a"]], [["b"]]], r"chunks of \[\['a'\]\], \[\['b'\]\]; cut"),
        (3, r"chunks of \[\]; cut"),
    ],
)
def test_features_that_are_not_cut_into_chunks_are_refused_with_their_shapes(features, shapes):
    with pytest.raises(ConfigError, match=shapes):
        identity_drift(features)


@pytest.mark.parametrize("form", [vde, drift])
@pytest.mark.parametrize(("values", "shape"), [(np.ones((4, 5)), r"\[4, 5\]"), (np.float64(1), r"\[\]")])
def test_scores_of_several_videos_at_once_are_refused_with_their_shape(form, values, shape):
    with pytest.raises(ConfigError, match=f"one score for each chunk of one video, .N. numbers, got {shape}"):
        form(values)


@pytest.mark.parametrize("form", [vde, drift])
@pytest.mark.parametrize("values", [["a"], [[1], [1, 2]], [1, 1j], {1: 2}])
def test_what_are_no_numbers_is_refused_with_what_was_given(form, values):
    with pytest.raises(ConfigError, match=re.escape(f"got {values!r}; call it for each video")):
        form(values)


def test_null_of_a_report_is_no_number():
    assert math.isnan(vde([1.0, None, 1.0]))
    assert drift([1.0, None, 1.0]) == Unscored("chunk 2 has no number")
