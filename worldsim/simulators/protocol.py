"""What recording, training and judging need of a real engine."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from worldsim.controls import Controls, Keys

Frame = NDArray[np.uint8]
"""One picture, [height, width, 3] RGB."""


class Simulator(Protocol):
    """A real engine behind held keys. Equal seeds and keys give equal frames, in every process."""

    @property
    def controls(self) -> Controls:
        """The keys it understands."""
        ...

    @property
    def fps(self) -> int:
        """Frames in one second of world time."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of a frame in pixels."""
        ...

    @property
    def hour(self) -> int | None:
        """The frame of the world's day that was shown last; None where there are no days, or it is not known."""
        ...

    @property
    def event(self) -> str:
        """What the last step did, in the same words for what is alike; "" where an engine does not tell.

        Training can then look more often at what seldom happens. It must follow from the state before and the keys:
        what is drawn for its outcome, where that is left to chance, is learned to be likelier than it is.
        """
        ...

    def reset(self, seed: int) -> Frame:
        """Begin the episode of that seed; returns its first frame."""
        ...

    def step(self, keys: Keys) -> Frame:
        """Advance by one frame with these keys held; returns that frame."""
        ...

    def close(self) -> None:
        """End the episode and whatever runs for it; reset begins another. Closing twice is fine."""
        ...

    @property
    def over(self) -> bool:
        """Whether the episode has ended (death, goal reached, time up); step may then no longer be called."""
        ...


class Explorer(Protocol):
    """Plays a simulator the way people do, for recording. Holds the rules and memory of one episode."""

    def choose(self) -> Keys:
        """The keys to hold for the next frame, from what the simulator's state says and the explorer's own seed."""
        ...
