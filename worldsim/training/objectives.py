"""What a training pass minimises so that a backbone learns the mean of the clean frames."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from worldsim.errors import ConfigError
from worldsim.models.protocol import Backbone
from worldsim.training.passes import add_noise, check_pass_plan, open_pass


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffusionForcing:
    """Flow matching in blocks, each at a noise level of its own, after a context that is a little noisy itself.

    Args:
        frames, first, blocks, copies, context_noise: see PassPlan.
        shift: how far levels lean towards noise: sigma = shift * u / (1 + (shift - 1) * u), u uniform.
        floor: an estimate's error counts 1 / max(sigma, floor)^2, the error of its velocity.

    Sources: flow matching, Lipman et al. 2022 (arXiv:2210.02747); diffusion forcing, Chen et al. 2024
    (arXiv:2407.01392), algorithm 1. A departure from diffusion forcing: a noisy block sees clean frames (a stream of
    their own), as it will when decoding.
    """

    frames: int = 16
    first: int = 4
    blocks: tuple[int, ...] = (1, 2, 4)
    copies: int = 1
    shift: float = 3.0
    context_noise: float = 0.25
    floor: float = 0.2

    def __post_init__(self) -> None:
        check_pass_plan(self)
        if not 0 < self.floor <= 1 or self.shift <= 0:
            raise ConfigError(f"need 0 < floor <= 1 and shift > 0, got {self}")

    def loss(self, backbone: Backbone, latents: Tensor, controls: Tensor, generator: torch.Generator) -> Tensor:
        """The mean weighted error of one pass, a scalar with gradient.

        Args:
            backbone: the network.
            latents: windows of clean latents, [B, 1 + frames, C, H, W].
            controls: what steered each of those frames, [B, 1 + frames, A].
            generator: the only source of randomness, on the device of latents.
        """
        window = open_pass(self, latents, controls, generator)
        u = torch.rand(window.blocks, generator=generator, device=latents.device)
        sigma = (self.shift * u / (1 + (self.shift - 1) * u)).repeat_interleave(window.layout.block, dim=1)
        estimate = window.estimate(backbone, add_noise(window.clean, sigma, generator), sigma)
        error = (estimate - window.clean).square().mean(dim=(2, 3, 4))
        return (error / sigma.clamp_min(self.floor).square()).mean()
