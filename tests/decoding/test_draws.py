"""Noise and dice by the numbers of blocks and steps, and what of them neighbours share."""

from __future__ import annotations

import pytest
import torch

from worldsim.decoding.draws import Draws
from worldsim.decoding.noise_plan import PLAIN, NoisePlan
from worldsim.decoding.published_noise import PublishedNoise
from worldsim.geometry import LatentGeometry
from worldsim.noise import block_noise, frame_noise, frame_uniforms, uniforms

GEOMETRY = LatentGeometry(channels=3, height=6, width=10, patch=2, frames_per_block=1)


CPU = torch.device("cpu")


def draws(*, frames: int = 2, window: int = 0, plan: NoisePlan | None = None) -> Draws:
    plan = plan or (NoisePlan(window=window) if window else PLAIN)
    return Draws(seed=5, plan=plan, frames=frames, geometry=GEOMETRY, steps=3, device=CPU)


@pytest.mark.parametrize(("block", "step"), [(0, 0), (7, 0), (7, 2)])
def test_a_block_has_noise_and_dice_of_its_number_and_step(block, step):
    assert torch.equal(draws().noise(block, step), block_noise(5, block, step, (1, 2, 3, 6, 10)))
    assert torch.equal(draws().dice(block, step), uniforms(5, block, step, (1, 2, 3, 5)).float())


@pytest.mark.parametrize("frames", [1, 2, 4])
def test_what_is_shared_goes_by_the_number_of_the_frame_whatever_the_block_length(frames):
    shuffled, blocks, plan = draws(frames=frames, window=4), range(16 // frames), NoisePlan(window=4)
    noise = torch.cat([shuffled.noise(block, 0) for block in blocks], dim=1)
    assert torch.equal(noise, plan.shared(frame_noise, 5, range(16), (3, 6, 10)))
    assert len(noise[0].unique(dim=0)) == 10
    dice = torch.cat([shuffled.dice(block, 0) for block in blocks], dim=1)
    assert torch.equal(dice, plan.shared(frame_uniforms, 5, range(16), (3, 5)).float())


def test_only_what_a_block_begins_with_is_shared():
    shuffled, plain = draws(window=4), draws()
    assert not torch.equal(shuffled.noise(0, 0), plain.noise(0, 0))
    assert not torch.equal(shuffled.dice(0, 0), plain.dice(0, 0))
    assert torch.equal(shuffled.noise(0, 1), plain.noise(0, 1))
    assert torch.equal(shuffled.dice(0, 1), plain.dice(0, 1))


def test_dice_are_float32():
    assert draws().dice(0, 1).dtype == draws(window=2).dice(0, 0).dtype == torch.float32


@pytest.mark.parametrize(("block", "step"), [(0, 0), (1, 2), (3, 1)])
def test_noise_in_the_published_order_is_drawn_by_it(block, step):
    plan = NoisePlan(published=8)
    own = draws(plan=plan)
    wanted = PublishedNoise(seed=5, total=8, frames=2, steps=3, device=CPU).of(block, step, (3, 6, 10))
    assert torch.equal(own.noise(block, step), wanted)
    assert torch.equal(own.dice(block, step), draws().dice(block, step))
