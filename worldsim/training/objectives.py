"""What a training pass minimises."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from worldsim.errors import ConfigError, ShapeError
from worldsim.models.protocol import Backbone
from worldsim.training.attention import StreamAttention, StreamLayout


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffusionForcing:
    """Flow matching in blocks, each at a noise level of its own, after a context that is a little noisy itself.

    Args:
        frames: length of a window; the frame before it is drawn too, as the first frame's past.
        first: the first frame that is learned; those before it are context only.
        blocks: block lengths in frames, one drawn for each pass, so that one set of weights serves them all.
        copies: noisy streams a window, each with noise and levels of its own.
        shift: how far levels lean towards noise: sigma = shift * u / (1 + (shift - 1) * u), u uniform.
        context_noise: the highest level of noise mixed into the context, for half of its frames, so that the model's
            own small errors do not feed back.
        floor: an estimate's error counts 1 / max(sigma, floor)^2, the error of its velocity.

    Sources: flow matching, Lipman et al. 2022 (arXiv:2210.02747); diffusion forcing, Chen et al. 2024
    (arXiv:2407.01392), algorithm 1; context noise, Valevski et al. 2024 (arXiv:2408.14837), section 3.2.1. A departure
    from diffusion forcing: a noisy block sees clean frames (a stream of their own), as it will when decoding.
    """

    frames: int = 16
    first: int = 4
    blocks: tuple[int, ...] = (1, 2, 4)
    copies: int = 1
    shift: float = 3.0
    context_noise: float = 0.25
    floor: float = 0.2

    def __post_init__(self) -> None:
        for block in self.blocks:
            StreamLayout(frames=self.frames, block=block, window=self.frames, first=self.first, copies=self.copies)
        if not 0 <= self.context_noise < 1 or not 0 < self.floor <= 1 or self.shift <= 0:
            raise ConfigError(f"need 0 <= context_noise < 1, 0 < floor <= 1 and shift > 0, got {self}")

    def loss(self, backbone: Backbone, latents: Tensor, controls: Tensor, generator: torch.Generator) -> Tensor:
        """The mean weighted error of one pass, a scalar with gradient.

        Args:
            backbone: the network.
            latents: windows of clean latents, [B, 1 + frames, C, H, W].
            controls: what steered each of those frames, [B, 1 + frames, A].
            generator: the only source of randomness, on the device of latents.
        """
        if latents.shape[1] != 1 + self.frames or controls.shape[:2] != latents.shape[:2]:
            raise ShapeError(
                f"expected windows of 1 + {self.frames} frames with as many controls, "
                f"got latents {list(latents.shape)} and controls {list(controls.shape)}"
            )
        block = self.blocks[int(torch.randint(len(self.blocks), (), generator=generator, device=latents.device))]
        layout = StreamLayout(
            frames=self.frames, block=block, window=self.frames, first=self.first, copies=self.copies
        )
        context, context_sigma = self._context(latents, generator)
        clean = latents[:, 1 + self.first :].repeat(1, self.copies, 1, 1, 1)
        sigma = self._levels(clean, block, generator)
        noisy = _mix(clean, sigma, generator)
        previous = torch.cat((context[:, :-1], self._previous(noisy, context, block)), dim=1)
        geometry = backbone.geometry
        attend = StreamAttention(
            layout, rotary=backbone.rotary, grid=(geometry.rows, geometry.columns), device=latents.device
        )
        estimate = backbone(
            torch.cat((context[:, 1:], noisy), dim=1),
            previous,
            torch.cat((context_sigma[:, 1:], sigma), dim=1),
            torch.cat((controls[:, 1:], controls[:, 1 + self.first :].repeat(1, self.copies, 1)), dim=1),
            attend,
        )
        error = (estimate[:, self.frames :].float() - clean).square().mean(dim=(2, 3, 4))
        return (error / sigma.clamp_min(self.floor).square()).mean()

    def _context(self, latents: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The window with a little noise in half of its frames, and how much."""
        draw = torch.rand(2, *latents.shape[:2], generator=generator, device=latents.device)
        sigma = self.context_noise * draw[0] * (draw[1] < 0.5)
        return _mix(latents, sigma, generator), sigma

    def _levels(self, clean: Tensor, block: int, generator: torch.Generator) -> Tensor:
        """A noise level for every block, the same for its frames, [B, F]."""
        batch, frames = clean.shape[:2]
        u = torch.rand(batch, frames // block, generator=generator, device=clean.device)
        return (self.shift * u / (1 + (self.shift - 1) * u)).repeat_interleave(block, dim=1)

    def _previous(self, noisy: Tensor, context: Tensor, block: int) -> Tensor:
        """The frame before each noisy one: of the context at the start of a block, inside it of the block itself."""
        before = context[:, self.first : -1].repeat(1, self.copies, 1, 1, 1)
        inside = torch.arange(noisy.shape[1], device=noisy.device) % block > 0
        return torch.where(inside[None, :, None, None, None], noisy.roll(1, dims=1), before)


def _mix(clean: Tensor, sigma: Tensor, generator: torch.Generator) -> Tensor:
    """(1 - sigma) * clean + sigma * noise, a level for each frame."""
    noise = torch.randn(clean.shape, generator=generator, device=clean.device, dtype=clean.dtype)
    level = sigma[:, :, None, None, None]
    return (1 - level) * clean + level * noise
