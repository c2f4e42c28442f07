"""The levels of the blocks that are learned from, and what lies under their noise."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from worldsim.decoding.noise_plan import PLAIN, NoisePlan
from worldsim.training.noising import BEGINNING, noisy_blocks
from worldsim.training.objectives import DiffusionForcing
from worldsim.training.passes import Play, TrainingPass, add_noise, open_pass

PLAN = NoisePlan(low=20, high=100, period=9)
LEVELS = [PLAN.level(number) for number in range(PLAN.period)]


def opened(windows: int, *, block: int = 2, copies: int = 1, seed: int = 1) -> tuple[TrainingPass, torch.Generator]:
    """A pass over windows of eight frames, the last six to be learned, frame n being n everywhere."""
    objective = DiffusionForcing(frames=8, first=2, blocks=(block,), copies=copies, context_noise=0.0)
    latents = torch.arange(9.0)[None, :, None, None, None].expand(windows, -1, 2, 1, 40)
    generator = torch.Generator().manual_seed(seed)
    return open_pass(objective, Play(latents, torch.zeros(windows, 9, 2)), generator), generator


def parts(windows: int, *, block: int = 2, copies: int = 1, shift: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """Levels [windows, blocks], and the mean frame under the noise, with the true ones, [windows, frames]."""
    window, generator = opened(windows, block=block, copies=copies)
    again = torch.Generator().manual_seed(0)
    again.set_state(generator.get_state())
    noisy, sigma = noisy_blocks(window, shift, PLAN, generator)
    blocks = sigma.unflatten(1, (-1, block))
    assert torch.equal(blocks, blocks[..., :1].expand_as(blocks))
    # The noise is the last that is drawn: drawn again behind as many numbers, it can be taken out.
    for _ in range(2):
        torch.rand(window.blocks, generator=again)
        if _ == 0:
            torch.randint(9, (windows, 1), generator=again)
    only = add_noise(torch.zeros_like(window.clean), sigma, again)
    spread = (1 - sigma)[:, :, None, None, None]
    under = ((noisy - only) / spread.clamp_min(1e-6)).mean((2, 3, 4))
    return blocks[..., 0], under, window.clean.mean((2, 3, 4))


def test_plain_levels_and_noise_are_those_of_every_block_alone() -> None:
    window, generator = opened(3)
    noisy, sigma = noisy_blocks(window, 3.0, PLAIN, generator)
    window, generator = opened(3)
    u = torch.rand(3, 3, generator=generator)
    levels = (3 * u / (1 + 2 * u)).repeat_interleave(2, dim=1)
    assert torch.equal(sigma, levels)
    assert torch.equal(noisy, add_noise(window.clean, levels, generator))


def test_shuffling_alone_changes_nothing_here() -> None:
    (window, generator), (_, other) = opened(3), opened(3)
    one, two = noisy_blocks(window, 3.0, PLAIN, generator), noisy_blocks(window, 3.0, NoisePlan(window=4), other)
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])


def test_blocks_at_the_beginning_have_levels_of_consecutive_numbers_and_lie_over_the_frame_before() -> None:
    levels, under, clean = parts(600)
    before = torch.tensor([2.0, 2.0, 4.0, 4.0, 6.0, 6.0])
    begun = ((under - before).abs() < 1e-3)[:, ::2] & (levels < 0.999)
    number = torch.tensor(
        [[min(range(9), key=lambda n, x=x: abs(LEVELS[n] - x)) for x in row] for row in levels.tolist()]
    )
    assert (torch.tensor(LEVELS)[number] - levels)[begun].abs().max() < 1e-6
    both = begun[:, :-1] & begun[:, 1:]
    assert both.sum() > 200
    assert torch.equal(number[:, 1:][both], (number[:, :-1][both] + 1) % 9)
    assert set(number[begun].tolist()) == set(range(8))
    assert (torch.where(begun.repeat_interleave(2, 1), before.expand_as(under), clean) - under)[
        (levels < 0.999).repeat_interleave(2, 1)
    ].abs().max() < 2e-3


def test_half_of_the_blocks_stand_at_the_beginning_and_the_others_below_their_level() -> None:
    levels, under, _ = parts(2_000)
    begun = ((under - torch.tensor([2.0, 2.0, 4.0, 4.0, 6.0, 6.0])).abs() < 1e-3)[:, ::2] & (levels < 0.999)
    expected = BEGINNING * 8 / 9
    assert abs(begun.float().mean() - expected) < 4 * (expected * (1 - expected) / begun.numel()) ** 0.5
    # Of a level by chance and a uniform share of it; a ninth of those at the beginning begin at 1 and count as neither.
    rest = levels[~begun & (levels < 0.999)]
    assert abs(rest.mean() - sum(LEVELS) / 9 / 2) < 0.02
    assert rest.max() < 1


def test_copies_of_a_block_have_its_number() -> None:
    levels, _, _ = parts(300, copies=3)
    whole = levels.unflatten(1, (3, 3))
    begun = (whole[..., None] - torch.tensor(LEVELS)).abs().amin(-1) < 1e-6
    both = begun[:, 0] & begun[:, 2]
    assert both.sum() > 100
    assert torch.equal(whole[:, 0][both], whole[:, 2][both])


@pytest.mark.parametrize("shift", [1.0, 4.0])
def test_levels_on_the_way_lean_towards_the_beginning_by_the_shift(shift: float) -> None:
    levels, _, _ = parts(3_000, shift=shift)
    on_the_way = levels[levels < 0.19]  # below the lowest beginning
    share = on_the_way.numel() / levels.numel()
    below = [0.19 / level / (shift - (shift - 1) * 0.19 / level) for level in LEVELS]
    assert abs(share - (1 - BEGINNING) * sum(below) / 9) < 0.02


def test_equal_generators_give_equal_blocks() -> None:
    (window, generator), (_, other) = opened(4), opened(4)
    one, two = noisy_blocks(window, 2.0, PLAN, generator), noisy_blocks(window, 2.0, PLAN, other)
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
