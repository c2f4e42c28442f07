"""The straight path and the lists of levels."""

from __future__ import annotations

import pytest
import torch

from worldsim.errors import ConfigError
from worldsim.noise import block_noise
from worldsim.schedules import check_sigmas, few_step_sigmas, mix, shift_sigma, uniform_sigmas, velocity


def test_four_steps_with_shift_five_are_the_list_of_self_forcing():
    assert [1000 * sigma for sigma in few_step_sigmas(4, 5.0)] == pytest.approx([1000, 937.5, 833.3333, 625])


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("shift", [0.3, 1.0, 5.0, 8.0])
def test_few_step_levels_start_at_one_and_fall_strictly_above_zero(steps, shift):
    sigmas = few_step_sigmas(steps, shift)
    check_sigmas(sigmas)
    assert len(sigmas) == steps
    assert sigmas[0] == 1.0


def test_uniform_levels_are_equally_spaced_and_leave_out_zero():
    assert uniform_sigmas(4) == (1.0, 0.75, 0.5, 0.25)


def test_a_shift_of_one_changes_nothing():
    assert few_step_sigmas(7, 1.0) == uniform_sigmas(7)


@pytest.mark.parametrize("shift", [0.3, 5.0])
def test_shifting_back_by_the_inverse_gives_the_level_again(shift):
    for sigma in (0.0, 0.2, 0.5, 1.0):
        assert shift_sigma(shift_sigma(sigma, shift), 1 / shift) == pytest.approx(sigma)


def test_a_shift_scales_the_ratio_of_noise_to_signal():
    shifted = shift_sigma(0.4, 3.0)
    assert shifted / (1 - shifted) == pytest.approx(3.0 * 0.4 / 0.6)


@pytest.mark.parametrize("sigma", [-0.1, 1.1, float("nan")])
def test_a_level_outside_the_unit_interval_is_refused(sigma):
    with pytest.raises(ConfigError, match=r"lies in \[0, 1\]"):
        shift_sigma(sigma, 5.0)


@pytest.mark.parametrize("shift", [0.0, -1.0, float("nan")])
def test_a_shift_that_is_not_over_zero_is_refused(shift):
    with pytest.raises(ConfigError, match="a shift is over 0"):
        few_step_sigmas(4, shift)


@pytest.mark.parametrize("steps", [0, -1, 1_001, 10**12, pytest.param(10**5_000, id="endless")])
def test_a_schedule_without_steps_or_without_end_is_refused(steps):
    with pytest.raises(ConfigError, match="at least 1 step and at most 1,000, got"):
        uniform_sigmas(steps)


def test_the_longest_schedule_still_falls():
    check_sigmas(few_step_sigmas(1_000, 5.0))


@pytest.mark.parametrize("sigmas", [(), (1.0, 1.0), (0.5, 0.7), (1.0, 0.0), (1.2, 0.5), (1.0, float("nan")), (-0.5,)])
def test_levels_that_do_not_fall_strictly_within_the_path_are_refused(sigmas):
    with pytest.raises(ConfigError, match="fall strictly"):
        check_sigmas(sigmas)


def test_the_path_runs_from_clean_to_noise():
    clean, noise = block_noise(0, 0, 0, (2, 3, 5)), block_noise(0, 0, 1, (2, 3, 5))
    assert torch.equal(mix(clean, noise, 0.0), clean)
    assert torch.equal(mix(clean, noise, 1.0), noise)
    assert torch.equal(mix(clean, noise, 0.25), 0.75 * clean + 0.25 * noise)


def test_every_frame_may_have_its_own_level():
    clean, noise = block_noise(0, 0, 0, (2, 3, 5)), block_noise(0, 0, 1, (2, 3, 5))
    levels = torch.tensor([[0.2, 0.9, 1.0], [0.4, 0.3, 0.1]])
    mixed = mix(clean, noise, levels[..., None])
    for row in range(2):
        for frame in range(3):
            expected = mix(clean[row, frame], noise[row, frame], float(levels[row, frame]))
            torch.testing.assert_close(mixed[row, frame], expected)


def test_the_velocity_is_the_noise_less_the_clean_latent_at_every_level():
    clean, noise = block_noise(0, 0, 0, (2, 3, 5)).double(), block_noise(0, 0, 1, (2, 3, 5)).double()
    for sigma in (0.1, 0.5, 1.0):
        slope = velocity(mix(clean, noise, sigma), clean, sigma)
        torch.testing.assert_close(slope, noise - clean)
