"""Noise in the order in which the published pipelines of the Wan family draw it, so that a seed gives their video.

They draw what all blocks of one video begin with at once, and then, block by block, fresh noise for every level after
the first. Where blocks are denoised in one window that rolls, each takes its part of noise for the whole window, and
leaves the rest. Either order has an end: the video's. Numbers agree where torch's generator does: on the same kind of
device.

Sources: the inference of Self-Forcing, Huang et al. 2025 (arXiv:2506.08009); that of RollingForcing, Liu et al. 2025
(arXiv:2509.25161); that of Matrix-Game 2.0, He et al. 2025 (arXiv:2508.13009), which lays videos out channel by
channel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from threading import Lock

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
        channels_first: whether a channel of all frames is drawn before the next one; otherwise it is frame by frame.
        rolls: whether blocks are denoised in one window, of as many blocks as there are levels.
    """

    seed: int
    total: int
    frames: int
    steps: int
    device: torch.device
    dtype: torch.dtype = torch.bfloat16
    channels_first: bool = False
    rolls: bool = False

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
        noise = (self._rolled if step and self.rolls else self._in_turn)(block, step, tuple(shape))
        return noise[None].to(torch.float32, copy=True).contiguous()

    def _in_turn(self, block: int, step: int, shape: tuple[int, ...]) -> Tensor:
        """The noise of a block for a step, [frames, *shape], where blocks are drawn one after the other."""
        begun, state = _begin(self, shape)
        noise = begun[block * self.frames : (block + 1) * self.frames]
        if step:
            # Drawn anew each time: no state to save, and a video is short.
            generator = _generator(self.device, state)
            for _ in range(block * (self.steps - 1) + step):
                noise = self._draw(self.frames, shape, generator, fresh=True)
        return noise

    def _rolled(self, block: int, step: int, shape: tuple[int, ...]) -> Tensor:
        """The noise of a block for a step after its first, [frames, *shape]: it is drawn after the window before it."""
        window = block + step - 1
        generator = _generator(self.device, _windows(self, shape).state(window))
        return dict(self._window(window, shape, generator))[block]

    def _window(self, window: int, shape: Sequence[int], generator: torch.Generator) -> Iterator[tuple[int, Tensor]]:
        """What is drawn after a window of a video that rolls: of each of its blocks but a clean one."""
        first, last = max(0, window - self.steps + 1), min(self.total // self.frames - 1, window)
        for block in range(max(0, window - self.steps + 2), last + 1):
            whole = self._draw((last + 1 - first) * self.frames, shape, generator, fresh=True)
            yield block, whole[(block - first) * self.frames : (block + 1 - first) * self.frames]

    def _draw(self, frames: int, shape: Sequence[int], generator: torch.Generator, *, fresh: bool = False) -> Tensor:
        """Of so many frames, [frames, *shape]; fresh noise between two levels, or what all blocks begin with."""
        drawn = partial(torch.empty, dtype=self.dtype, device=self.device)
        if not self.channels_first:
            return drawn(frames, *shape).normal_(generator=generator)
        channels, *sides = shape
        if fresh:
            # Theirs is drawn like frames that lie channel by channel; a CPU draws that otherwise than what lies so.
            return drawn(channels, frames, *sides).transpose(0, 1).normal_(generator=generator)
        return drawn(channels, frames, *sides).normal_(generator=generator).transpose(0, 1)


@lru_cache(maxsize=1)
def _begin(noise: PublishedNoise, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """What all blocks of a video begin with, [total, *shape], not to be changed; and the state of what drew it.

    Kept of the video that was asked for last: 0.2 MB a frame of 832 x 480.
    """
    generator = torch.Generator(noise.device).manual_seed(noise.seed)
    return noise._draw(noise.total, shape, generator), generator.get_state()


class _Windows:
    """Of a video that rolls, the state of what draws its noise when it comes to what is drawn after each window.

    Kept, 5 kB each, so that each window of a video is drawn once or twice, and not all before it again.
    """

    def __init__(self, noise: PublishedNoise, shape: tuple[int, ...]) -> None:
        self._noise, self._shape = noise, shape
        self._states = [_begin(noise, shape)[1]]
        self._extending = Lock()

    def state(self, window: int) -> Tensor:
        """That of one window, after those of all before it."""
        with self._extending:
            while len(self._states) <= window:
                generator = _generator(self._noise.device, self._states[-1])
                for _ in self._noise._window(len(self._states) - 1, self._shape, generator):
                    pass
                self._states.append(generator.get_state())
            return self._states[window]


@lru_cache(maxsize=16)
def _windows(noise: PublishedNoise, shape: tuple[int, ...]) -> _Windows:
    """Those of a video, of as many videos as are made at once."""
    return _Windows(noise, shape)


def _generator(device: torch.device, state: Tensor) -> torch.Generator:
    generator = torch.Generator(device)
    generator.set_state(state)
    return generator
