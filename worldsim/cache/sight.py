"""What one block saw of its past, and how much of its attention each frame of it received."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple


class Run(NamedTuple):
    """Frames of consecutive numbers that were seen, and whether a policy brought them back."""

    frames: range
    retrieved: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What one block saw.

    frames: numbers of the past frames that it saw, ascending.
    retrieved: those among them that a policy brought back for this block, see Seen.
    shares: of its attention, in the mean over layers, heads and tokens, that each of those frames received; the rest
        stayed in the block. Empty where it was not measured.
    """

    frames: tuple[int, ...] = ()
    retrieved: tuple[int, ...] = ()
    shares: tuple[float, ...] = ()

    @property
    def runs(self) -> tuple[Run, ...]:
        """The frames as runs of consecutive numbers, ascending; what was retrieved is apart from what was not."""
        if not self.frames:
            return ()
        brought = {*self.retrieved}
        begins = [
            at
            for at, (before, after) in enumerate(pairwise(self.frames), 1)
            if after != before + 1 or (before in brought) != (after in brought)
        ]
        runs = [self.frames[begin:end] for begin, end in pairwise((0, *begins, len(self.frames)))]
        return tuple(Run(range(run[0], run[-1] + 1), run[0] in brought) for run in runs)

    def counted_from(self, first: int) -> Sight:
        """The same, the frame that was number `first` being number 0 and those before it below 0."""
        return Sight(
            frames=tuple(frame - first for frame in self.frames),
            retrieved=tuple(frame - first for frame in self.retrieved),
            shares=self.shares,
        )
