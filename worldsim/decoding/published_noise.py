"""Noise in the order in which the published pipelines of the Wan family draw it, so that a seed gives their video.

They draw what all blocks of one video begin with at once, and then, block by block, fresh noise for every level after
the first. That order has an end: the video's. Numbers agree where torch's generator does: on the same kind of device.

Source: the inference of Self-Forcing, Huang et al. 2025 (arXiv:2506.08009).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from worldsim.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedNoise:
    """The noise of one video.

    Args:
        seed: as their pipelines take it, in [0, 2**64).
        total: frames of the whole video, in whole blocks.
        frames: of a block.
        steps: levels of a block, the first among them.
        device: where it is drawn.
        dtype: in which it is drawn; bfloat16 where theirs is run.
    """

    seed: int
    total: int
    frames: int
    steps: int
    device: torch.device
    dtype: torch.dtype = torch.bfloat16

    def of(self, block: int, step: int, shape: Sequence[int]) -> Tensor:
        """The noise of a block for a step, float32 [1, frames, *shape], shape being that of a frame.

        Raises:
            ConfigError: the video has no such block, or does not divide into blocks.
        """
        blocks, rest = divmod(self.total, self.frames)
        if rest or not 0 <= block < blocks:
            raise ConfigError(
                f"noise in the published order is that of {self.total} frames, {self.frames} a block, and block "
                f"{block} is none of them; name as many frames as the video has, in whole blocks, or take plain noise"
            )
        # Drawn anew each time: no state to save, and a video is short.
        generator = torch.Generator(self.device).manual_seed(self.seed)
        noise = self._draw((1, self.total, *shape), generator)[:, block * self.frames : (block + 1) * self.frames]
        for _ in range(block * (self.steps - 1) + step if step else 0):
            noise = self._draw((self.frames, *shape), generator)[None]
        return noise.float()

    def _draw(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        return torch.randn(tuple(shape), generator=generator, dtype=self.dtype, device=self.device)
