"""The real simulator of a world, behind the same keys and the same chunks as a session."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from worldsim.errors import SessionClosed
from worldsim.runtime.chunk import Chunk
from worldsim.simulators.protocol import Frame, Simulator


class Reality:
    """One episode of a real engine. Made by World.reality.

    first: the frame it begins with, uint8 [H, W, 3], which no chunk holds.
    """

    def __init__(self, simulator: Simulator, *, seed: int, frames_per_block: int) -> None:
        self._simulator = simulator
        self._frames_per_block = frames_per_block
        self._block = 0
        self.first: Frame = simulator.reset(seed)

    @property
    def over(self) -> bool:
        """Whether the episode has ended, so that there is no next step."""
        return self._simulator.over

    @property
    def simulator(self) -> Simulator:
        """The engine, for whoever needs its truth."""
        return self._simulator

    def step(self, keys: Iterable[str] = ()) -> Chunk:
        """Advance by one block with these keys held.

        Raises:
            UnknownName: a key that the world does not understand.
            ConfigError: what is given are no keys.
            SessionClosed: the episode ended before or within this block.
        """
        held = self._simulator.controls.check(keys)
        frames = []
        for _ in range(self._frames_per_block):
            if self._simulator.over:
                raise SessionClosed("the real episode has ended (death, goal or time); begin another with another seed")
            frames.append(self._simulator.step(held))
        self._block += 1
        return Chunk(frames=np.stack(frames), block=self._block - 1, keys=held)
