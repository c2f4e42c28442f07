"""What chance decides of a block: a pure function of the seed, the number of the block and the step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from worldsim.decoding.noise_plan import NoisePlan
from worldsim.decoding.published_noise import PublishedNoise
from worldsim.geometry import LatentGeometry
from worldsim.noise import block_noise, frame_noise, frame_uniforms, uniforms


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """The noise and the dice of every block of one video.

    Args:
        seed: of the video, in [0, 2**64).
        plan: what the first step of a block shares with the blocks beside it.
        frames: of a block.
        geometry: of a frame.
        steps: levels of a block.
        device: where noise in the published order is drawn; all else is drawn on the CPU.
        rolls: whether blocks are denoised in one window, of as many as there are levels.
    """

    seed: int
    plan: NoisePlan
    frames: int
    geometry: LatentGeometry
    steps: int
    device: torch.device
    rolls: bool = False

    def noise(self, block: int, step: int) -> Tensor:
        """Unit noise of a block for a step, float32 [1, frames, C, H, W]; step 0 is what it begins with."""
        shape = self.geometry.frame_shape
        if self.plan.published:
            drawn = PublishedNoise(
                seed=self.seed,
                total=self.plan.published,
                frames=self.frames,
                steps=self.steps,
                device=self.device,
                channels_first=self.plan.channels_first,
                rolls=self.rolls,
            )
            return drawn.of(block, step, shape)
        if self._is_shared(step):
            return self.plan.shared(frame_noise, self.seed, self._numbers(block), shape)
        return block_noise(self.seed, block, step, (1, self.frames, *shape))

    def dice(self, block: int, step: int) -> Tensor:
        """Uniform numbers of a block for a step, float32 [1, frames, rows, columns]."""
        shape = (self.geometry.rows, self.geometry.columns)
        if self._is_shared(step):
            return self.plan.shared(frame_uniforms, self.seed, self._numbers(block), shape).to(torch.float32)
        return uniforms(self.seed, block, step, (1, self.frames, *shape)).to(torch.float32)

    def _is_shared(self, step: int) -> bool:
        return step == 0 and self.plan.window > 0

    def _numbers(self, block: int) -> range:
        """The frames of a block, counted from the first that was made."""
        return range(block * self.frames, (block + 1) * self.frames)
