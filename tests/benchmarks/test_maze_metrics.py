from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from benchmarks.maze_metrics import (
    Floats,
    Frames,
    direction_share,
    interval,
    psnr,
    psnr_gain,
    sharpness,
    sharpness_ratio,
    squared_error,
    turn_correlation,
    turns,
)

HEIGHT, WIDTH = 71, 93


def textured(rng: np.random.Generator, height: int, width: int, *, grain_px: float) -> Floats:
    noise = cv2.GaussianBlur(rng.random((height, width)), (0, 0), grain_px)
    return (noise - noise.min()) / np.ptp(noise) * 255


def view(panorama: Floats, angle: float, *, field_of_view: float = 90) -> Frames:
    """What a camera turned that far to the right sees of a wall around it, painted with 8 columns a degree."""
    focal = WIDTH / 2 / np.tan(np.radians(field_of_view / 2))
    x, y = np.arange(WIDTH) + 0.5 - WIDTH / 2, np.arange(HEIGHT) + 0.5 - HEIGHT / 2
    column = 8 * (180 + angle + np.degrees(np.arctan(x / focal)))
    row = len(panorama) / 2 + 8 * np.degrees(y[:, None] / np.hypot(focal, x)[None])
    columns, rows = (np.broadcast_to(at, (HEIGHT, WIDTH)).astype(np.float32) for at in (column, row))
    grey = cv2.remap(panorama.astype(np.float32), columns, rows, cv2.INTER_LINEAR)
    return np.repeat(grey.round().astype(np.uint8)[..., None], 3, axis=-1)


@pytest.fixture(scope="module")
def panorama() -> Floats:
    return textured(np.random.default_rng(0), 1000, 2880, grain_px=30)


def test_squared_error_is_of_each_frame() -> None:
    truth = np.full((3, 5, 7, 3), 100, np.uint8)
    guess = truth.copy()
    guess[1] += 3
    guess[2, 0] -= 10
    assert squared_error(truth, guess) == pytest.approx([0, 9, 20])


def test_psnr_takes_the_frames_together() -> None:
    assert psnr(np.array([0.0, 0.0, 300.0])) == pytest.approx(10 * math.log10(255**2 / 100))


def test_psnr_of_what_is_equal_is_bounded_by_rounding() -> None:
    assert psnr(np.zeros(4)) == pytest.approx(10 * math.log10(255**2 * 12))


def test_a_tenth_of_the_error_is_ten_decibels_more() -> None:
    assert psnr_gain(np.array([3.0, 5.0]), np.array([30.0, 50.0])) == pytest.approx(10)


@pytest.mark.parametrize("degrees", [-8, -3, 2, 6])
def test_a_turn_is_read_in_degrees_to_the_right(panorama: Floats, degrees: float) -> None:
    frames = np.stack([view(panorama, 0), view(panorama, degrees), view(panorama, degrees)])
    turned, still = turns(frames, field_of_view_degrees=90)
    assert turned == pytest.approx(degrees, abs=0.25)
    assert still == pytest.approx(0, abs=0.05)


def test_the_field_of_view_sets_the_scale(panorama: Floats) -> None:
    frames = np.stack([view(panorama, angle, field_of_view=60) for angle in (0, 4)])
    (narrow,) = turns(frames, field_of_view_degrees=60)
    (wide,) = turns(frames, field_of_view_degrees=90)
    assert narrow == pytest.approx(4, abs=0.25)
    assert wide > 1.5 * narrow


def test_walking_forward_is_no_turn(panorama: Floats) -> None:
    before = view(panorama, 0)
    after = cv2.warpAffine(
        before, cv2.getRotationMatrix2D((WIDTH / 2 - 0.5, HEIGHT / 2 - 0.5), 0, 1.1), (WIDTH, HEIGHT)
    )
    (turned,) = turns(np.stack([before, after]), field_of_view_degrees=90)
    assert turned == pytest.approx(0, abs=0.3)


def test_direction_is_judged_where_a_turn_is_held_and_the_real_frames_show_it() -> None:
    held = np.array([1, 1, -1, -1, 0, 1])
    real = np.array([6, 6, -6, -5, 9, -1])
    made = np.array([5, -2, -9, 0, 4, -3])
    assert direction_share(held, real, made) == 2 / 4


def test_direction_without_a_turn_held_is_unknown() -> None:
    assert math.isnan(direction_share(np.zeros(3), np.ones(3), np.ones(3)))


def test_correlation_is_pearsons() -> None:
    rng = np.random.default_rng(1)
    real = rng.normal(size=(5, 7))
    made = 0.5 * real + rng.normal(size=real.shape)
    centred = real - real.mean(), made - made.mean()
    by_hand = (centred[0] * centred[1]).sum() / math.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum())
    assert turn_correlation(real, made) == pytest.approx(by_hand)
    assert turn_correlation(real, -3 * real) == pytest.approx(-1)


@pytest.mark.parametrize("made", [np.zeros((2, 3)), np.full((2, 3), 4.0)])
def test_correlation_with_what_never_turns_is_unknown(made: Floats) -> None:
    real = np.arange(6.0).reshape(2, 3)
    assert math.isnan(turn_correlation(real, made))
    assert math.isnan(turn_correlation(made, real))


def test_sharpness_is_the_variance_of_the_laplacian() -> None:
    grey = np.random.default_rng(2).integers(0, 256, (9, 13))
    around = np.pad(grey, 1, mode="reflect")
    laplacian = around[:-2, 1:-1] + around[2:, 1:-1] + around[1:-1, :-2] + around[1:-1, 2:] - 4 * grey
    frame = np.repeat(grey.astype(np.uint8)[..., None], 3, axis=-1)
    assert sharpness(frame[None]) == pytest.approx([laplacian.var()])


def test_a_blurred_picture_is_less_sharp_and_a_flat_one_not_at_all(panorama: Floats) -> None:
    frame = view(panorama, 0)
    sharp, blurred, flat = sharpness(np.stack([frame, cv2.GaussianBlur(frame, (0, 0), 3), np.full_like(frame, 40)]))
    assert 0 == flat < blurred < 0.5 * sharp


def test_the_ratio_of_sharpness_is_of_means() -> None:
    assert sharpness_ratio(np.array([[10.0, 30.0]]), np.array([[5.0, 5.0]])) == pytest.approx(0.25)
    assert math.isnan(sharpness_ratio(np.zeros((2, 2)), np.ones((2, 2))))


def test_an_interval_holds_the_value_and_narrows_with_more_walks() -> None:
    def mean(sample: Floats) -> float:
        return float(sample.mean())

    rng = np.random.default_rng(3)
    few, many = rng.normal(size=(12, 5)), rng.normal(size=(300, 5))
    widths = []
    for sample in (few, many):
        low, high = interval(mean, sample, rng=rng)
        assert low < mean(sample) < high
        widths.append(high - low)
    assert widths[1] < 0.5 * widths[0]


def test_an_interval_is_as_wide_as_the_standard_error_says() -> None:
    sample = np.random.default_rng(4).normal(size=400)
    low, high = interval(lambda drawn: float(drawn.mean()), sample, rng=np.random.default_rng(5))
    assert high - low == pytest.approx(2 * 1.96 * sample.std() / math.sqrt(400), rel=0.15)


def test_samples_are_drawn_together() -> None:
    real = np.random.default_rng(6).normal(size=(20, 3))
    low, high = interval(lambda a, b: float((b - a).mean()), real, real + 2, rng=np.random.default_rng(7))
    assert (low, high) == pytest.approx((2, 2))


def test_the_interval_of_what_is_never_known_is_unknown() -> None:
    assert np.isnan(interval(lambda drawn: float("nan"), np.ones(5), rng=np.random.default_rng(0))).all()


def test_draws_in_which_a_statistic_is_unknown_do_not_widen_its_interval() -> None:
    def share(drawn: Floats) -> float:
        return 1.0 if drawn.any() else float("nan")

    assert interval(share, np.array([0.0, 1.0]), rng=np.random.default_rng(0)) == (1, 1)


def test_equal_generators_give_equal_intervals() -> None:
    sample = np.random.default_rng(8).normal(size=30)
    twice = [interval(lambda drawn: float(drawn.mean()), sample, rng=np.random.default_rng(9)) for _ in range(2)]
    assert twice[0] == twice[1]
