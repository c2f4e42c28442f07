"""Block Forcing: what is to come is drawn a little towards the past that it is most like, so that it does not drift.

Source: BlockVid, Zhang et al. 2025 (arXiv:2511.22973), as it is quoted: the mean of |v - (noise - gamma * x)|^2 is
added to the loss, v being the velocity at noise level sigma and x the latents of what was retrieved. An estimate e of
the clean block c has the velocity noise - c + (c - e) / sigma, so that the added error is that of the estimate to
c + sigma * (gamma * x - c), over sigma: the more noise there is, the further it leans towards the past. That is how it
is computed here.

What is not published is filled in so: x is that run of frames in the window before the block, as long as the block,
which is nearest to it in mean squared distance. Retrieval by what the block will show is more than a decoder can know;
but only the loss knows it, and a wrong x would teach what is false. gamma is 1, because a darker past is not what was
seen. The weight is small, because where x is not c the term is wrong, and must not win against the truth. A block with
no whole run before it is forced towards itself, which is no force.

Tried by benchmarks.ablation on the bundled world, which the force does not help: the heavier, the more harm (0.03, 0.1
and 0.3, of which the lightest is taken here), and with the run right before the block as x as much as with the nearest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from worldsim.errors import ConfigError, UnknownName
from worldsim.training.attention import StreamLayout


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockForcing:
    """How much blocks are forced towards the past.

    Args:
        weight: of the added term, over 0.
        gamma: what the past is multiplied by, over 0.
        past: which run of earlier frames it is: one of PASTS, "alike" or "latest".
    """

    weight: float = 0.03
    gamma: float = 1.0
    past: str = "alike"

    def __post_init__(self) -> None:
        if self.past not in PASTS:
            raise UnknownName("past to be forced towards", self.past, PASTS)
        if not (self.weight > 0 and self.gamma > 0):
            raise ConfigError(f"a force has a weight and a gamma over 0, got {self}; leave it out for none")

    def aim(self, clean: Tensor, alike: Tensor, sigma: Tensor) -> Tensor:
        """Where estimates of clean frames [B, n, C, H, W] at levels [B, n] are forced to, by what is alike."""
        return torch.lerp(clean, self.gamma * alike, sigma[:, :, None, None, None])

    def drawn(
        self, clean: Tensor, alike: Tensor, sigma: Tensor, grid: tuple[int, int], generator: torch.Generator
    ) -> Tensor:
        """Clean frames [B, n, C, H, W] with some tokens of what is alike in their places, for beliefs to expect.

        A token is another with the chance sigma * weight / (1 + weight): with it the mean of what is expected, if both
        are numbers, is where the sum of the two errors is least.

        Args:
            clean, alike: as for aim.
            sigma: levels, [B, n].
            grid: rows and columns of tokens in a frame.
            generator: the only source of randomness, on their device.
        """
        dice = torch.rand(*sigma.shape, *grid, generator=generator, device=sigma.device)
        other = dice < (sigma * self.weight / (1 + self.weight))[:, :, None, None]
        for axis, size in zip((2, 3), grid, strict=True):
            other = other.repeat_interleave(clean.shape[axis + 1] // size, dim=axis)
        return torch.where(other[:, :, None], alike, clean)


Pick = Callable[[Tensor, int, int], Tensor]
"""From squared distances of the frames of windows [B, F, F], where a block begins and how long it is, where the run
begins that it is forced towards, one of [0, begin - block] for each window."""


def past_of(latents: Tensor, layout: StreamLayout, past: str = "alike") -> Tensor:
    """For the frames of each noisy block a run of earlier frames, [B, copies * (frames - first), ...].

    Args:
        latents: windows of 1 + frames frames, clean, [B, 1 + frames, C, H, W].
        layout: of the pass.
        past: which run, one of PASTS.
    """
    flat = latents.float().flatten(2)
    apart = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist").square()
    found = []
    for begin in range(1 + layout.first, 1 + layout.frames, layout.block):
        own = torch.arange(begin, begin + layout.block, device=latents.device)
        if begin - layout.block < 0:
            found.append(own.expand(len(latents), -1))
            continue
        found.append(PASTS[past](apart, begin, layout.block)[:, None] + own - begin)
    picks = torch.cat(found, dim=1)
    runs = latents[torch.arange(len(latents), device=latents.device)[:, None], picks]
    return runs.repeat(1, layout.copies, 1, 1, 1)


def _alike(apart: Tensor, begin: int, block: int) -> Tensor:
    """The run that is most like the block."""
    missed = torch.stack([apart[:, begin + at, at : at + begin - block + 1] for at in range(block)]).sum(0)
    return missed.argmin(1)


def _latest(apart: Tensor, begin: int, block: int) -> Tensor:
    """The run that ends where the block begins."""
    return torch.full((len(apart),), begin - block, device=apart.device)


PASTS: dict[str, Pick] = {"alike": _alike, "latest": _latest}
