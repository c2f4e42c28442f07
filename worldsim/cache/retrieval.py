"""Policies that bring back what was seen long ago, by how like it is to what a block is about to show."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, get_args

from worldsim.cache.policy import Alike, Seen, Sparse, nothing_alike, settle_counts
from worldsim.errors import ConfigError, shown

Pick = Literal["likest", "unlikest", "random", "first"]
Run = tuple[int, ...]
DIGITS = 6
"""Decimals of tau: as many as its text has."""
PERIOD = 5_040
"""Frames after which what falls at random falls again as before: a session never ends, and its numbers stay small."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieval:
    """See the latest `recent` frames and, as if directly before them, `top` runs of older frames.

    Frames are counted in runs of `run`, from the first of the session. A run that has left the recent frames is held by
    its salient tokens alone, and brought back whenever it is among the likest; which they are is asked at every block.

    recent: frames seen whole.
    top: runs brought back.
    run: frames of a run.
    tau: share of the attention that the tokens which are kept of an old run hold; with 1 it is kept whole.
    bank: old runs that are held, the latest; where the first are taken, the oldest that is held stays so beside them.
    within: the runs come from the likest stretch of so many frames alone; 0 is no such stretch.
    pick: which runs are taken. The first of those that are alike is a sink that adapts: the very first for as long as
        the world looks like it, and then the oldest in the bank that it does look like. The unlikest and random ones
        are controls: what helps must beat them.
    like: how like a run has to be to what is asked for, 0 to 1, where the first are taken; none is brought back else.

    Sources: BlockVid, Zhang et al. 2025 (arXiv:2511.22973), its semantic sparse cache, which asks by prompts and when
    one changes; here the frame before the block asks, at every block. `within` and `run` are the two stages of
    WorldAttention, whose second asks by the pooled queries of the block to come; looks find the place more often than
    those do (benchmarks/retrieval.py). Positions follow one another up to the block: neither says what BlockVid does
    with them. The sink that adapts is that of StreamDiffusionV2, Feng et al. 2025 (arXiv:2511.07399),
    which puts the newest frames in its place once their keys and values are less alike than a threshold; here looks are
    compared, what takes its place goes on with the bank, and the very first serves again where the world looks like it.
    """

    recent: int = 16
    top: int = 2
    run: int = 8
    tau: float = 1.0
    bank: int = 64
    within: int = 0
    pick: Pick = "likest"
    like: float = 0.0

    def __post_init__(self) -> None:
        settle_counts(self, "recent", "top", "run", "bank", "within")
        for name in ("tau", "like"):
            given = getattr(self, name)
            if not isinstance(given, float | int) or isinstance(given, bool) or not math.isfinite(given):
                raise ConfigError(f"{name} of a policy is a number such as 0.98, got {shown(given)}")
            # What is out of range stays so: rounding may bring it in.
            object.__setattr__(self, name, round(given, DIGITS) if 0 <= given <= 1 else given)
        if min(self.recent, self.top, self.run, self.bank) < 1 or not 0 < self.tau <= 1:
            raise ConfigError(
                f"retrieval needs recent, top, run and bank of at least 1 and tau from {10**-DIGITS:.{DIGITS}f} to 1, "
                f"got recent={shown(self.recent)}, top={shown(self.top)}, run={shown(self.run)}, "
                f"bank={shown(self.bank)} and tau={shown(self.tau)}"
            )
        if self.within < 0 or self.within % self.run:
            raise ConfigError(
                f"a stretch has whole runs of {shown(self.run)} frames, or is none with 0, got "
                f"within={shown(self.within)}"
            )
        if self.pick not in get_args(Pick):
            raise ConfigError(f"pick of a policy is one of {', '.join(get_args(Pick))}, got {shown(self.pick)}")
        if not 0 <= self.like <= 1:
            raise ConfigError(
                f"like of a policy is a cosine that runs are to reach, from 0 to 1, got {shown(self.like)}; with 0.9 "
                "they look about the same"
            )

    @property
    def limit(self) -> int:
        return self.recent + self.run - 1 + (self.bank + (self.pick == "first")) * self.run

    @property
    def sparse(self) -> Sparse | None:
        return Sparse(recent=self.recent, run=self.run, tau=self.tau) if self.tau < 1 else None

    @property
    def anew(self) -> bool:
        return False

    def see(self, held: Sequence[int], block: int, alike: Alike = nothing_alike) -> Sequence[Seen]:
        old, recent = self._parts(held, block)
        brought = sorted(self._picked(self._nearest_stretch(old, alike), block, alike))
        old_frames = [frame for run in brought for frame in run]
        frames = [*old_frames, *(frame for frame in recent if frame >= block - self.recent)]
        return [Seen(frame, at - len(frames), at < len(old_frames)) for at, frame in enumerate(frames)]

    def keep(self, held: Sequence[int], next_frame: int) -> Sequence[int]:
        old, recent = self._parts(held, next_frame)
        return [*(frame for run in old for frame in run), *recent]

    def _parts(self, held: Sequence[int], block: int) -> tuple[list[Run], list[int]]:
        """The old runs that are held, and the frames of all that are not old."""
        border = (block - self.recent) // self.run
        runs = {number: tuple(frames) for number, frames in groupby(held, lambda frame: frame // self.run)}
        stays = min(runs) if runs and self.pick == "first" else border
        oldest = border - self.bank
        old = [run for number, run in runs.items() if number < border and (number >= oldest or number == stays)]
        return old, [frame for frame in held if frame >= border * self.run]

    def _nearest_stretch(self, runs: list[Run], alike: Alike) -> list[Run]:
        """The runs of the likest stretch, or all where there are no stretches."""
        if not self.within or not runs:
            return runs
        stretches = [list(each) for _, each in groupby(runs, lambda run: run[0] // self.within)]
        return max(stretches, key=lambda each: (_likest(alike, [frame for run in each for frame in run]), each))

    def _picked(self, runs: list[Run], block: int, alike: Alike) -> list[Run]:
        """The runs that are brought back; of equal ones the latest."""
        if self.pick == "first":
            return [run for run in runs if _likest(alike, run) >= self.like][: self.top]
        marks = {run: _drawn(block, run) if self.pick == "random" else _likest(alike, run) for run in runs}
        sign = -1 if self.pick == "unlikest" else 1
        return sorted(runs, key=lambda run: (sign * marks[run], run))[-self.top :]


def _likest(alike: Alike, frames: Sequence[int]) -> float:
    """How like the likest of some frames is: it finds a place more often than their mean does."""
    return max(map(alike, frames))


def _drawn(block: int, run: Run) -> float:
    """A number that falls at random, and always the same for this run before this block."""
    return float(int.from_bytes(hashlib.sha256(f"{block % PERIOD} {block - run[0]}".encode()).digest()[:6]))
