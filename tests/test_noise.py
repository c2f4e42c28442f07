"""The noise of a session: its numbers, their law and their independence."""

from __future__ import annotations

import subprocess
import sys
from itertools import permutations

import pytest
import torch

from worldsim.errors import ConfigError
from worldsim.noise import block_noise, frame_noise, frame_uniforms, order, uniforms

MASK = 2**64 - 1


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox 4x64 in 10 rounds, written from the paper."""
    for _ in range(10):
        low, high = 0xD2E7470EE14C6C93 * counter[0], 0xCA5A826395121157 * counter[2]
        counter = [(high >> 64) ^ counter[1] ^ key[0], high & MASK, (low >> 64) ^ counter[3] ^ key[1], low & MASK]
        key = [(key[0] + 0x9E3779B97F4A7C15) & MASK, (key[1] + 0xBB67AE8584CAA73B) & MASK]
    return counter


def test_the_philox_of_this_test_gives_the_published_numbers():
    published = [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B]
    assert philox([0, 0, 0, 0], [0, 0]) == published


@pytest.mark.parametrize(("seed", "block", "step"), [(0, 0, 0), (7, 3, 2), (MASK, MASK, MASK)])
def test_uniforms_are_philox_with_the_seed_as_key_and_block_and_step_in_the_counter(seed, block, step):
    words = [word for running in (1, 2, 3) for word in philox([running, step, block, 1], [seed, 0])]
    assert uniforms(seed, block, step, (11,)).tolist() == [(word >> 11) / 2**53 for word in words[:11]]


def test_noise_keeps_its_numbers_whatever_the_version_of_numpy():
    expected = [-0.5464224815368652, 0.797028124332428, 0.3362360894680023, 0.3698093295097351, 1.8809772729873657]
    assert block_noise(7, 3, 2, (5,)).tolist() == expected


def test_noise_is_float32_of_the_shape_asked_for_on_the_cpu():
    noise = block_noise(1, 2, 3, (3, 5, 7, 2))
    assert noise.shape == (3, 5, 7, 2)
    assert noise.dtype == torch.float32
    assert noise.device.type == "cpu"


def test_uniforms_are_float64_in_the_half_open_unit_interval():
    coins = uniforms(5, 0, 0, (301, 97))
    assert coins.dtype == torch.float64
    assert 0 <= coins.min() < 1e-3
    assert 0.999 < coins.max() < 1
    assert abs(coins.mean() - 0.5) < 5 / (12 * coins.numel()) ** 0.5


def test_noise_is_a_unit_gaussian():
    noise = block_noise(11, 4, 1, (99_999,)).double().sort().values
    expected = torch.special.ndtr(noise)
    distance = (torch.arange(1, 100_000) / 99_999 - expected).abs().max()
    assert distance < 1.95 / 99_999**0.5, "Kolmogorov's test at a level of 0.1 % refuses it"


def test_drawing_does_not_depend_on_what_was_drawn_before():
    first = block_noise(3, 1, 4, (9,))
    block_noise(3, 1, 5, (1_000,))
    uniforms(3, 1, 4, (17,))
    assert torch.equal(block_noise(3, 1, 4, (9,)), first)


def test_another_process_draws_the_same():
    code = "from worldsim.noise import block_noise; print(block_noise(9, 8, 7, (6,)).tolist())"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == str(block_noise(9, 8, 7, (6,)).tolist())


def test_no_two_of_seed_block_step_and_kind_share_numbers():
    # Seeds, blocks and steps that would meet if the three were added or packed together too tightly.
    names = [0, 1, 2, 3, 2**32, 2**32 + 1, 2**63]
    draws = [
        tuple(draw(seed, block, step, (64,)).tolist())
        for draw in (block_noise, uniforms)
        for seed in names
        for block in names
        for step in names
    ]
    numbers = {number for draw in draws for number in draw[:4]}
    assert len(set(draws)) == len(draws)
    assert len(numbers) > 0.999 * 4 * len(draws)


def test_noise_of_neighbouring_blocks_steps_and_seeds_is_uncorrelated():
    here = block_noise(5, 6, 7, (40_000,))
    for other in [(5, 6, 8), (5, 7, 7), (6, 6, 7), (5, 7, 6), (6, 5, 7)]:
        correlation = float((here * block_noise(*other, (40_000,))).mean())
        assert abs(correlation) < 5 / 40_000**0.5, f"noise of (5, 6, 7) and of {other} goes together"


@pytest.mark.parametrize("draw", [block_noise, uniforms])
@pytest.mark.parametrize("name", ["seed", "block", "step"])
@pytest.mark.parametrize("value", [-1, 2**64])
def test_a_seed_block_or_step_out_of_range_is_refused_by_name(draw, name, value):
    given = {"seed": 0, "block": 0, "step": 0, name: value}
    with pytest.raises(ConfigError, match=f"a {name} is a whole number from 0 to 2\\*\\*64 - 1, got {value}"):
        draw(**given, shape=(1,))


def test_noise_and_uniforms_of_frames_keep_their_numbers():
    assert frame_noise(7, 3, (3,)).tolist() == [-0.5497923493385315, -1.4114214181900024, 0.3922562003135681]
    words = [word for running in (1, 2) for word in philox([running, 0, 3, 3], [7, 0])]
    assert frame_uniforms(7, 3, (5,)).tolist() == [(word >> 11) / 2**53 for word in words[:5]]


def test_an_order_is_a_permutation_by_uniforms_of_its_own():
    words = [word for running in (1, 2) for word in philox([running, 0, 6, 4], [5, 0])][:7]
    assert order(5, 6, 7) == tuple(sorted(range(7), key=lambda at: words[at]))
    assert {order(1, window, 3) for window in range(60)} == set(permutations(range(3)))


@pytest.mark.parametrize("draw", [frame_noise, frame_uniforms])
def test_numbers_of_a_frame_are_those_of_no_block(draw):
    of_frames = {number for frame in range(9) for number in draw(4, frame, (50,)).tolist()}
    of_blocks = {
        number
        for block in range(9)
        for step in range(3)
        for number in (*block_noise(4, block, step, (50,)).tolist(), *uniforms(4, block, step, (50,)).tolist())
    }
    assert len(of_frames) > 440
    assert not of_frames & of_blocks
