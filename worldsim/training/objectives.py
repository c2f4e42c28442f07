"""What a training pass minimises so that a backbone learns what the clean frames are: their mean, or their law."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d

from worldsim.errors import ConfigError
from worldsim.models.protocol import Backbone, DrawingBackbone
from worldsim.training.passes import TrainingPass, add_noise, check_pass_plan, open_pass


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffusionForcing:
    """Flow matching in blocks, each at a noise level of its own, after a context that is a little noisy itself.

    Args:
        frames, first, blocks, copies, window, context_noise: see PassPlan.
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
    window: int | None = None
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
        sigma = _levels(window, self.shift, generator)
        estimate = window.estimate(backbone, add_noise(window.clean, sigma, generator), sigma)
        error = (estimate - window.clean).square().mean(dim=(2, 3, 4))
        return (error / sigma.clamp_min(self.floor).square()).mean()


@dataclass(frozen=True, slots=True, kw_only=True)
class BeliefForcing:
    """As DiffusionForcing, for a backbone that holds beliefs: how little they expected the clean frames.

    Args:
        frames, first, blocks, copies, window, context_noise: see PassPlan.
        shift: how far levels lean towards noise, see DiffusionForcing.
        known: the share of blocks of which some latent pixels are given without noise, any share of them, as
            worldsim.samplers.by_turns gives them; what is learned is the others.
        rows: how much the tokens of each row count against each other; all the same if empty. Since it does not depend
            on what happens there, what is believed of each token stays what is likely. It is for tokens that tell
            much and change seldom, such as a count: of all surprises theirs are too few to be learned from.

    Sources: score interpolation, Dieleman et al. 2022 (arXiv:2211.15089), section 3.2: every level counts the same;
        masks of any ratio, Chang et al. 2022 (arXiv:2202.04200), section 3.1.
    """

    frames: int = 16
    first: int = 4
    blocks: tuple[int, ...] = (1, 2, 4)
    copies: int = 1
    window: int | None = None
    shift: float = 3.0
    context_noise: float = 0.25
    known: float = 0.0
    rows: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_pass_plan(self)
        if not 0 <= self.known <= 1:
            raise ConfigError(f"known is a share of the blocks, 0 to 1, got {self.known}")
        if self.shift <= 0 or (self.rows and not (min(self.rows) >= 0 < max(self.rows))):
            raise ConfigError(f"need shift > 0 and rows that count 0 or more, some of them, got {self}")

    def loss(self, backbone: Backbone, latents: Tensor, controls: Tensor, generator: torch.Generator) -> Tensor:
        """The mean surprise of one pass in nats a token, a scalar with gradient. Arguments as for DiffusionForcing.

        Raises:
            ConfigError: the backbone holds no beliefs.
        """
        window = open_pass(self, latents, controls, generator)
        sigma = _levels(window, self.shift, generator)
        if self.known:
            sigma = sigma[:, :, None, None] * ~_known(window, self.known, generator)
        inputs = window.inputs(backbone, add_noise(window.clean, sigma, generator), sigma)
        surprise = cast(DrawingBackbone, backbone).surprise(*inputs, window.clean)
        counts = self._row_counts(surprise).expand_as(surprise)
        if self.known:
            # A token has something to say as long as one of its pixels is not known.
            counts = counts * adaptive_max_pool2d((sigma > 0).to(counts), surprise.shape[-2:])
        return (surprise * counts).sum() / counts.sum().clamp_min(torch.finfo(counts.dtype).tiny)

    def _row_counts(self, surprise: Tensor) -> Tensor:
        """How much each token counts, [rows, 1]."""
        counts = torch.tensor(self.rows or (1.0,) * surprise.shape[-2], dtype=surprise.dtype, device=surprise.device)
        if len(counts) != surprise.shape[-2]:
            raise ConfigError(
                f"there are {surprise.shape[-2]} rows of tokens, and {len(counts)} say how much they count"
            )
        return counts[:, None]


def _levels(window: TrainingPass, shift: float, generator: torch.Generator) -> Tensor:
    """A noise level for every block of the noisy streams, given to each of its frames."""
    u = torch.rand(window.blocks, generator=generator, device=window.clean.device)
    return (shift * u / (1 + (shift - 1) * u)).repeat_interleave(window.layout.block, dim=1)


def _known(window: TrainingPass, share: float, generator: torch.Generator) -> Tensor:
    """Which latent pixels of the noisy streams are given, [B, F, H, W]: of that share of the blocks any share."""
    device, block = window.clean.device, window.layout.block
    draw = torch.rand(2, *window.blocks, generator=generator, device=device).repeat_interleave(block, dim=2)
    ratio = draw[0] * (draw[1] < share)
    shape = (*window.clean.shape[:2], *window.clean.shape[3:])
    return torch.rand(shape, generator=generator, device=device) < ratio[:, :, None, None]
