"""The random numbers of a session: pure functions of seed, block and step, the same in every process.

There is no generator state to save: after a rewind, in a fork or in another batch the same arguments give the same
numbers.

Source: Philox 4x64, Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3". The key holds the seed, the
counter holds what the numbers are for, so no two of them can share any.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from worldsim.errors import ConfigError

_NOISE, _UNIFORMS, _FRAME_NOISE, _FRAME_UNIFORMS, _ORDER = range(5)


def block_noise(seed: int, block: int, step: int, shape: Sequence[int]) -> Tensor:
    """Unit Gaussian numbers of that shape, float32, on the CPU.

    Args:
        seed: of the session, in [0, 2**64).
        block: index of the block they are for, in [0, 2**64).
        step: index of the level they are for, in [0, 2**64); 0 is the noise that a block begins with.
        shape: of the answer. A session's own, never a batch's: a batch stacks the noise of its sessions.

    Raises:
        ConfigError: seed, block or step is outside its range.
    """
    # The ziggurat of numpy is table look-ups almost everywhere, so it rounds alike on every machine, and it takes a
    # seventh of the time of Box-Muller. numpy does not promise to keep it: a test holds its numbers.
    normal = _generator(seed, block, step, _NOISE).standard_normal(tuple(shape), dtype=np.float32)
    return torch.from_numpy(normal)


def uniforms(seed: int, block: int, step: int, shape: Sequence[int]) -> Tensor:
    """Uniform numbers in [0, 1) of that shape, float64, on the CPU. Arguments and errors as for block_noise.

    They share no bits with the noise of the same seed, block and step.
    """
    return torch.from_numpy(_generator(seed, block, step, _UNIFORMS).random(tuple(shape)))


def frame_noise(seed: int, frame: int, shape: Sequence[int]) -> Tensor:
    """As block_noise, of one frame by its number, whatever block it is in; of those numbers no block has any."""
    normal = _generator(seed, frame, 0, _FRAME_NOISE).standard_normal(tuple(shape), dtype=np.float32)
    return torch.from_numpy(normal)


def frame_uniforms(seed: int, frame: int, shape: Sequence[int]) -> Tensor:
    """As uniforms, of one frame by its number, whatever block it is in."""
    return torch.from_numpy(_generator(seed, frame, 0, _FRAME_UNIFORMS).random(tuple(shape)))


def order(seed: int, window: int, size: int) -> tuple[int, ...]:
    """The numbers from 0 to size - 1 in an order by chance, for the window of that number."""
    # Not numpy's own shuffle, whose draws are no promise; the order of uniform numbers needs none.
    drawn = _generator(seed, window, 0, _ORDER).random(size)
    return tuple(int(place) for place in drawn.argsort(kind="stable"))


def _generator(seed: int, block: int, step: int, stream: int) -> np.random.Generator:
    for name, value in (("seed", seed), ("block", block), ("step", step)):
        if not 0 <= value < 2**64:
            raise ConfigError(f"a {name} is a whole number from 0 to 2**64 - 1, got {value}")
    key = np.array([seed, 0], dtype=np.uint64)
    # Philox counts upwards from the first word, which therefore belongs to nobody.
    counter = np.array([0, step, block, stream], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
