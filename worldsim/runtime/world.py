"""A world that is loaded: weights, codec and memory, from which sessions are opened."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldsim.cache.pool import PagePool
from worldsim.controls import Controls
from worldsim.decoding.video import VideoDecoder, VideoPlan
from worldsim.errors import ConfigError, PoolFull, ShapeError
from worldsim.models.protocol import Backbone, Codec
from worldsim.runtime.reality import Reality
from worldsim.runtime.session import Session
from worldsim.runtime.starts import Starts
from worldsim.simulators.protocol import Simulator


class World:
    """Made by worldsim.load; see there.

    Args:
        simulator: makes the real engine it was learned from.
        backbone: its network, on its device.
        codec: its codec.
        plan: how blocks are made.
        starts: the starting places that come with it.
        pool: where all its sessions keep their past.
    """

    def __init__(
        self,
        *,
        simulator: Callable[[], Simulator],
        backbone: Backbone,
        codec: Codec[Any],
        plan: VideoPlan,
        starts: Starts,
        pool: PagePool,
    ) -> None:
        self.backbone = backbone
        self.plan = plan
        self.starts = starts
        self.pool = pool
        self._simulator = simulator
        self._engine = simulator()
        self._codec = codec

    @property
    def controls(self) -> Controls:
        """What can be done in it, and the keys for it."""
        return self._engine.controls

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys it understands, W3C `event.code` names."""
        return self.controls.keys

    @property
    def fps(self) -> int:
        """Frames in one second of world time."""
        return self._engine.fps

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of a frame in pixels."""
        return self._engine.size

    @property
    def frames_per_block(self) -> int:
        """Frames in every chunk."""
        return self.plan.frames_per_block

    @property
    def calls_per_block(self) -> int:
        """Backbone calls that one block takes, the clean pass included."""
        return len(self.plan.sigmas) + 1

    def open(
        self,
        *,
        seed: int = 0,
        start: int | None = None,
        frames: NDArray[np.uint8] | None = None,
        keys: Sequence[Iterable[str]] | None = None,
    ) -> Session:
        """Begin to live in it.

        Args:
            seed: of everything that is left to chance, in [0, 2**64); it also picks the starting place if nothing
                else does.
            start: number of a starting place that comes with the world.
            frames: begin from these frames instead, uint8 [F, H, W, 3], the last being the present.
            keys: the keys held at each of those frames; none held if left out.

        Raises:
            ConfigError: a start or a seed outside the range, both start and frames, or keys without frames.
            UnknownName: a key that the world does not understand.
            ShapeError: frames of another size or dtype, or another number of keys.
            PoolFull: no memory for another session; nothing was opened.
        """
        if frames is not None and start is not None:
            raise ConfigError("begin from a start or from frames, not from both; leave one out")
        if keys is not None and frames is None:
            raise ConfigError("keys say what was held at given frames; pass the frames too, or leave both out")
        if frames is None:
            pixels, controls = self.starts.get(self.starts.pick(seed) if start is None else start)
        else:
            pixels, controls = self._given(frames, keys)
        decoder = VideoDecoder(self.backbone, self.pool, self.plan, seed)
        latents, state = self._codec.encode(pixels.to(self.pool.device), self._codec.open())
        try:
            decoder.prefill(latents[None], controls.to(self.pool.device)[None])
        except PoolFull:
            decoder.close()
            raise
        return Session(decoder, self._codec, state, self.controls)

    def reality(self, *, seed: int = 0) -> Reality:
        """The real engine, on the episode of that seed, in chunks of the same length."""
        return Reality(self._simulator(), seed=seed, frames_per_block=self.frames_per_block)

    def _given(self, frames: NDArray[np.uint8], keys: Sequence[Iterable[str]] | None) -> tuple[Tensor, Tensor]:
        height, width = self.size
        array = np.asarray(frames)
        if array.dtype != np.uint8 or array.ndim != 4 or not len(array) or array.shape[1:] != (height, width, 3):
            raise ShapeError(
                f"expected frames uint8 [F, {height}, {width}, 3] with F at least 1, "
                f"got {array.dtype} {list(array.shape)}"
            )
        held = [()] * len(array) if keys is None else list(keys)
        if len(held) != len(array):
            raise ShapeError(f"{len(array)} frames need the keys held at each, got keys for {len(held)}")
        controls = torch.tensor([self.controls.vector(now) for now in held])
        return torch.from_numpy(np.ascontiguousarray(array)), controls
