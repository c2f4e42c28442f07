"""Samplers, one step at a time: against the published algorithms, and on a Gaussian whose samples are known."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from worldsim.errors import ConfigError, ShapeError
from worldsim.noise import block_noise
from worldsim.samplers import LatentCanvas, Sampler, euler, few_step, heun
from worldsim.schedules import few_step_sigmas, mix, uniform_sigmas
from worldsim.testing.toys import GaussianVideo

SHAPE = (2, 3, 5, 7, 3)
SIGMAS = few_step_sigmas(4, 5.0)


def fresh(step: int) -> Tensor:
    return block_noise(3, 1, step, SHAPE).double()


def bent(noisy: Tensor, sigma: float) -> Tensor:
    """A denoiser with no structure that a sampler could profit from."""
    return torch.tanh(noisy * (1.3 - sigma)) + 0.2 * sigma


def run(sampler: Sampler, canvas: LatentCanvas, denoise: Callable[[Tensor, float], Tensor]) -> Tensor:
    while canvas.is_open:
        canvas = sampler(canvas, denoise(canvas.values, canvas.sigma))
    return canvas.kept


def open_canvas(sigmas: tuple[float, ...] = SIGMAS) -> LatentCanvas:
    return LatentCanvas(fresh(0), sigmas, fresh)


def test_few_step_is_the_algorithm_of_song_bit_for_bit():
    clean = bent(fresh(0), SIGMAS[0])
    for step, sigma in list(enumerate(SIGMAS))[1:]:
        clean = bent((1 - sigma) * clean + sigma * fresh(step), sigma)
    assert torch.equal(run(few_step, open_canvas(), bent), clean)


def test_euler_follows_the_slope_level_by_level():
    values = fresh(0)
    for high, low in zip(SIGMAS, (*SIGMAS[1:], 0.0), strict=True):
        values = values + (low - high) * (values - bent(values, high)) / high
    torch.testing.assert_close(run(euler, open_canvas(), bent), values)


def test_heun_is_the_algorithm_of_karras_on_the_straight_path():
    values = fresh(0)
    for high, low in zip(SIGMAS, (*SIGMAS[1:], 0.0), strict=True):
        slope = (values - bent(values, high)) / high
        trial = values + (low - high) * slope
        if low > 0:
            slope = (slope + (trial - bent(trial, low)) / low) / 2
        values = values + (low - high) * slope
    torch.testing.assert_close(run(heun, open_canvas(), bent), values)


@pytest.mark.parametrize("sampler", [few_step, euler])
def test_the_last_step_gives_the_clean_estimate_to_the_last_bit(sampler):
    canvas = LatentCanvas(fresh(0), (0.7,), fresh)
    clean = bent(fresh(0), 0.7)
    assert torch.equal(sampler(canvas, clean).kept, clean)


@pytest.mark.parametrize(
    ("sampler", "levels"),
    [
        (few_step, [1.0, 0.75, 0.5, 0.25]),
        (euler, [1.0, 0.75, 0.5, 0.25]),
        (heun, [1, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25]),
    ],
)
def test_a_sampler_asks_the_backbone_at_these_levels(sampler, levels):
    asked = []

    def denoise(noisy: Tensor, sigma: float) -> Tensor:
        asked.append(sigma)
        return bent(noisy, sigma)

    run(sampler, open_canvas(uniform_sigmas(4)), denoise)
    assert asked == levels


@pytest.mark.parametrize(("sampler", "steps"), [(few_step, [1, 2, 3]), (euler, []), (heun, [])])
def test_fresh_noise_is_drawn_once_a_level_after_the_first_and_only_by_the_sampler_that_mixes_it_in(sampler, steps):
    asked = []

    def counted(step: int) -> Tensor:
        asked.append(step)
        return fresh(step)

    run(sampler, LatentCanvas(fresh(0), SIGMAS, counted), bent)
    assert asked == steps


@pytest.mark.parametrize("sampler", [few_step, euler, heun])
def test_a_step_can_be_thrown_away_and_made_again(sampler):
    canvas = open_canvas()
    while canvas.is_open:
        before = canvas.values.clone()
        clean = bent(canvas.values, canvas.sigma)
        discarded, canvas_again = sampler(canvas, clean), sampler(canvas, clean)
        assert torch.equal(canvas.values, before)
        assert torch.equal(discarded.values, canvas_again.values)
        canvas = canvas_again


@pytest.mark.parametrize("sampler", [few_step, euler, heun])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_sampler_keeps_the_dtype(sampler, dtype):
    canvas = LatentCanvas(fresh(0).to(dtype), SIGMAS, lambda step: fresh(step).to(dtype))
    assert run(sampler, canvas, bent).dtype == dtype


@pytest.mark.parametrize("sampler", [few_step, euler, heun])
def test_a_perfect_estimate_is_reached_from_every_schedule(sampler):
    clean = block_noise(8, 8, 8, SHAPE).double()
    torch.testing.assert_close(run(sampler, open_canvas(), lambda noisy, sigma: clean), clean)


def spread(sampler: Sampler, steps: int) -> float:
    """Standard deviation of the samples of a Gaussian of deviation 0.6 and mean 0.8, which a linear sampler scales."""
    deviation, mean = 0.6, 0.8

    def denoise(noisy: Tensor, sigma: float) -> Tensor:
        gain = (1 - sigma) * deviation**2 / ((1 - sigma) ** 2 * deviation**2 + sigma**2)
        return mean + gain * (noisy - (1 - sigma) * mean)

    start = torch.tensor([0.0, 1.0], dtype=torch.float64).reshape(2, 1, 1, 1, 1)
    still = LatentCanvas(start, uniform_sigmas(steps), lambda step: start)
    low, high = run(sampler, still, denoise).flatten().tolist()
    return high - low


@pytest.mark.parametrize(("sampler", "order"), [(euler, 1), (heun, 2)])
def test_twice_the_steps_divide_the_error_by_two_to_the_order(sampler, order):
    errors = [abs(spread(sampler, steps) - 0.6) for steps in (64, 128, 256)]
    for coarse, fine in pairwise(errors):
        assert coarse / fine == pytest.approx(2**order, rel=0.1)


def few_step_block(denoise: Callable[..., Tensor], draw: Callable[[int], Tensor]) -> Tensor:
    past = torch.zeros(2, 0, 1, 150, 100, dtype=torch.float64)
    return run(few_step, LatentCanvas(draw(0), SIGMAS, draw), lambda noisy, sigma: denoise(noisy, sigma, past))


def test_few_step_with_a_consistency_model_has_the_exact_law_and_only_with_fresh_noise_and_that_model():
    video = GaussianVideo(0.7)

    def draw(step: int) -> Tensor:
        return block_noise(21, 0, step, (2, 3, 1, 150, 100)).double()

    def moments(block: Tensor) -> Tensor:
        frames = block.transpose(0, 1).flatten(1)
        return frames @ frames.T / frames.shape[1]

    _, truth = video.expect(torch.zeros(2, 0, 1, 150, 100, dtype=torch.float64), 3)
    limit = 5 * 2**0.5 / 30_000**0.5  # standard errors of a variance from 30,000 series
    assert (moments(few_step_block(video.jump, draw)) - truth).abs().max() < limit
    assert (moments(few_step_block(video.jump, lambda step: draw(0))) - truth).abs().max() > 4 * limit
    assert (moments(few_step_block(video.clean, draw)) - truth).abs().max() > 4 * limit


def test_a_canvas_may_begin_from_a_noisy_picture():
    picture = block_noise(8, 8, 8, SHAPE).double()
    canvas = LatentCanvas(mix(picture, fresh(0), 0.5), (0.5, 0.25), fresh)
    assert canvas.sigma == 0.5
    assert canvas.next_sigma == 0.25
    torch.testing.assert_close(run(euler, canvas, lambda noisy, sigma: picture), picture)


def test_an_estimate_of_another_shape_is_refused():
    for sampler in (few_step, euler, heun):
        with pytest.raises(ShapeError, match=r"the clean estimate is \[1, 3, 5, 7, 3\], the canvas \[2, 3, 5, 7, 3\]"):
            sampler(open_canvas(), fresh(0)[:1])


@pytest.mark.parametrize("sampler", [few_step, euler, heun])
def test_a_closed_canvas_is_refused(sampler):
    closed = LatentCanvas(fresh(0), SIGMAS, fresh, at=len(SIGMAS))
    assert closed.sigma == 0.0
    with pytest.raises(ConfigError, match="the canvas is closed"):
        sampler(closed, fresh(0))


def test_a_canvas_with_rising_levels_or_beyond_its_levels_is_refused():
    with pytest.raises(ConfigError, match="fall strictly"):
        LatentCanvas(fresh(0), (0.5, 1.0), fresh)
    with pytest.raises(ConfigError, match="a canvas of 4 levels is at 0 to 4, got 5"):
        LatentCanvas(fresh(0), SIGMAS, fresh, at=5)
