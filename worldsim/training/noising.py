"""The noise of the blocks that a pass learns from: each at a level of its own, or where a plan of noise puts it."""

from __future__ import annotations

import torch
from torch import Tensor

from worldsim.decoding.noise_plan import NoisePlan
from worldsim.training.passes import TrainingPass, add_noise

BEGINNING = 0.5
"""Share of the blocks that stand where a plan begins them; the others stand further on."""


def noisy_blocks(
    window: TrainingPass, shift: float, plan: NoisePlan, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The noisy streams of a pass and their levels: like window.clean, and [B, copies * (frames - first)].

    Under a plain plan levels are independent: sigma = shift * u / (1 + (shift - 1) * u) for every block, u uniform.

    Under a plan that rises, the blocks of a window have consecutive numbers from one by chance, the same in all copies,
    and so the plan's levels. What a sampler then meets is learned as it meets it: half of the blocks stand at their
    level and are made from the frame before them, as a decoder begins them; the others are the clean frames at the
    levels above, each scaled to the block's own, as a sampler reaches them. All windows follow the plan; what a sampler
    meets under a plain one is still among it, where the plan's levels reach 1.

    Args:
        window: the pass.
        shift: how far levels lean towards noise.
        plan: its shuffling does not matter here, because no block sees the noise of another.
        generator: the only source of randomness, on the device of the windows.
    """
    device, block = window.clean.device, window.layout.block
    u = torch.rand(window.blocks, generator=generator, device=device)
    own = shift * u / (1 + (shift - 1) * u)
    if plan.is_level:
        sigma = own.repeat_interleave(block, dim=1)
        return add_noise(window.clean, sigma, generator), sigma
    windows, blocks = window.blocks
    levels = torch.tensor([plan.level(number) for number in range(plan.period)], device=device)
    first = torch.randint(plan.period, (windows, 1), generator=generator, device=device)
    at = torch.arange(blocks, device=device) % (blocks // window.layout.copies)
    level = levels[(first + at) % plan.period]
    begins = torch.rand(window.blocks, generator=generator, device=device) < BEGINNING
    sigma, begun = (
        part.repeat_interleave(block, dim=1) for part in (torch.where(begins, level, level * own), begins & (level < 1))
    )
    under = torch.where(begun[:, :, None, None, None], window.tails, window.clean)
    return add_noise(under, sigma, generator), sigma
