"""Self-forcing: frames of the context that the backbone has made itself, one after the other through the cache.

A recorded past is cleaner than any that a backbone will ever see once it follows its own frames. Here the frames of a
window are taken up as noise has left them and finished by the backbone, each block seeing those that it has made
before, as it does when decoding. What it then makes of such a past is judged by the true frames. Rollouts from noise
alone would leave the truth behind, and nothing could be learned from it; the level says how far they may.

Source: Resampling Forcing, Guo et al. 2025 (arXiv:2512.15702), which needs no teacher, where Self Forcing, Huang et al.
2025 (arXiv:2506.08009), matches distributions with one. No gradient goes through the rollouts in either.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from worldsim.cache.policy import Full
from worldsim.cache.pool import PagePool
from worldsim.decoding.batch import propose_together, write_together
from worldsim.decoding.plan import VideoPlan
from worldsim.decoding.rolling import WindowCanvas
from worldsim.decoding.video import LatentBlock, VideoDecoder
from worldsim.errors import ConfigError
from worldsim.models.protocol import Backbone
from worldsim.samplers import LatentCanvas, few_step
from worldsim.schedules import mix
from worldsim.training.passes import Play


@dataclass(frozen=True, slots=True, kw_only=True)
class Resampling:
    """How far the context of a pass is the backbone's own.

    Args:
        levels: the noise that the truth is left with, one level between these drawn for each pass, within (0, 1].
        share: of the passes whose context is made so.
    """

    levels: tuple[float, float] = (0.5, 1.0)
    share: float = 0.5

    def __post_init__(self) -> None:
        low, high = self.levels
        if not (0 < low <= high <= 1 and 0 < self.share <= 1):
            raise ConfigError(f"a context is made from levels and in a share of the passes in (0, 1], got {self}")

    def history(self, backbone: Backbone, play: Play, *, draw: bool, generator: torch.Generator) -> Tensor | None:
        """The windows as the backbone makes them, the first frame of each given, like play.latents; None if true.

        Args:
            backbone: the network; it is asked without gradient, in the precision of its weights.
            play: windows of 1 + frames frames.
            draw: whether it answers with draws from its beliefs, see VideoPlan.
            generator: the only source of randomness, on the device of the windows.
        """
        device = play.latents.device
        share, where = torch.rand(2, generator=generator, device=device).tolist()
        if share >= self.share:
            return None
        low, high = self.levels
        plan = VideoPlan(
            frames_per_block=1, sigmas=(low + (high - low) * where,), sampler=few_step, policy=Full(), draw=draw
        )
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            return _made(backbone, play, plan, generator)


@dataclass(slots=True, eq=False)
class _Guided(VideoDecoder):
    """A decoder whose next block begins as the truth under noise."""

    truth: Tensor = field(kw_only=True)

    def canvas(self) -> WindowCanvas:
        """The true frame at the plan's level."""
        values = mix(self.truth, self._fresh(0, 0), self.plan.sigmas[0])
        return WindowCanvas((LatentCanvas(values, self.plan.sigmas, partial(self._fresh, 0)),))


def _made(backbone: Backbone, play: Play, plan: VideoPlan, generator: torch.Generator) -> Tensor:
    """The windows of a play, made frame by frame after the first."""
    latents, device = play.latents.float(), play.latents.device
    windows, frames = latents.shape[:2]
    pool = PagePool(backbone.pages, pages=windows * frames, dtype=torch.float32, device=device)
    seeds = torch.randint(2**62, (windows,), generator=generator, device=device).tolist()
    made = [latents[:, :1]]
    with ExitStack() as stack:
        decoders = [_Guided(backbone, pool, plan, seed, truth=latents[:1, :1]) for seed in seeds]
        for row, decoder in enumerate(decoders):
            stack.enter_context(closing(decoder))
            decoder.prefill(latents[row : row + 1, :1], play.controls[row : row + 1, :1])
        for at in range(1, frames):
            made.append(_next(decoders, latents[:, at : at + 1], play.controls[:, at : at + 1]))
    return torch.cat(made, dim=1)


def _next(decoders: Sequence[_Guided], truth: Tensor, controls: Tensor) -> Tensor:
    """The next frame of each decoder, which becomes its past, [B, 1, C, H, W]; it begins as the truth, like it."""
    held = controls.split(1)
    for decoder, frame in zip(decoders, truth.split(1), strict=True):
        decoder.truth = frame
    found = [latents for latents, _ in propose_together(decoders, held)]
    blocks = [LatentBlock(latents=latents, controls=held) for latents, held in zip(found, held, strict=True)]
    write_together(decoders, blocks)
    for decoder in decoders:
        decoder.blocks += 1
    return torch.cat(found)
