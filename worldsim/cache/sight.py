"""What one block saw of its past, and how much of its attention each frame of it received."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What one block saw.

    frames: numbers of the past frames that it saw, ascending.
    shares: of its attention, in the mean over layers, heads and tokens, that each of those frames received; the rest
        stayed in the block. Empty where it was not measured.
    """

    frames: tuple[int, ...] = ()
    shares: tuple[float, ...] = ()

    @property
    def ranges(self) -> tuple[range, ...]:
        """The frames as runs of consecutive numbers, ascending."""
        if not self.frames:
            return ()
        gaps = [(before + 1, after) for before, after in pairwise(self.frames) if after != before + 1]
        ends, starts = [end for end, _ in gaps], [start for _, start in gaps]
        borders = zip((self.frames[0], *starts), (*ends, self.frames[-1] + 1), strict=True)
        return tuple(range(start, end) for start, end in borders)

    def counted_from(self, first: int) -> Sight:
        """The same, the frame that was number `first` being number 0 and those before it below 0."""
        return Sight(frames=tuple(frame - first for frame in self.frames), shares=self.shares)
