"""Which frames of the past a block sees, and at which positions: pure functions that know no tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from worldsim.errors import ConfigError, shown, whole

Alike = Callable[[int], float]
"""How like a held frame is to what a block is about to show, -1 to 1: in a decoder, the cosine of their looks."""


def settle_counts(policy: object, *names: str) -> None:
    """Make these numbers of a policy, which is being made, whole; ConfigError if one is none."""
    for name in names:
        object.__setattr__(policy, name, whole(getattr(policy, name), f"{name} of a policy is a whole number"))


def nothing_alike(frame: int) -> float:
    """The likeness of frames of which nothing is known: none."""
    return 0.0


@dataclass(frozen=True, slots=True)
class Seen:
    """One frame of the past as a block sees it.

    position counts frames from the first frame of the block, which is 0, so it is negative. It says nothing about
    the frame's number, so that no world ends where a table of positions does.

    retrieved: whether it is brought back for this block, by what it shows; a sink, which every block sees, is not. It
        changes nothing of what is seen, and is told to whoever asks what a block saw.
    """

    frame: int
    position: int
    retrieved: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sparse:
    """How frames that have grown old are held: by the fewest of their tokens that hold most of the attention.

    recent: frames before the next that are held whole.
    run: old frames are packed in runs of so many, counted from the first of the session, once all of it is old.
    tau: the share of the attention within its frame that the tokens kept of a frame hold, above 0 and at most 1.
    """

    recent: int
    run: int
    tau: float

    def __post_init__(self) -> None:
        settle_counts(self, "recent", "run")
        if self.recent < 0 or self.run < 1 or not (isinstance(self.tau, float | int) and 0 < self.tau <= 1):
            raise ConfigError(
                "old frames are held in runs of 1 frame or more behind 0 or more recent ones, by a share of the "
                f"attention above 0 and at most 1, got recent={shown(self.recent)}, run={shown(self.run)} and "
                f"tau={shown(self.tau)}"
            )

    def old(self, next_frame: int) -> int:
        """The first frame that is held whole before that one: the first of a run."""
        return max(0, (next_frame - self.recent) // self.run * self.run)

    def packed(self, frames: int) -> int:
        """The most frames that are packed, into as many pages beside their own, while so many are committed."""
        return -(-frames // self.run) * self.run


class Policy(Protocol):
    """Names the past frames that a block sees. Pure: equal arguments give equal answers.

    Logs and saved sessions tell by its repr which one of a user's own they were lived with, and go on with one of the
    same repr alone: it says what the answers depend on, as that of a dataclass does, and not where it lies in memory.
    """

    @property
    def limit(self) -> int | None:
        """The most frames that `keep` ever returns; None without a bound."""
        ...

    @property
    def sparse(self) -> Sparse | None:
        """How old frames are held; None for whole."""
        ...

    @property
    def anew(self) -> bool:
        """Whether the keys and values of what a block sees are computed anew for it, from the clean frames alone."""
        ...

    def see(self, held: Sequence[int], block: int, alike: Alike = nothing_alike) -> Sequence[Seen]:
        """What a block sees.

        Args:
            held: the frames that are held, ascending, all before the block.
            block: the first frame of the block.
            alike: of every held frame.

        Returns:
            Some of the held frames, ascending in frame and in position, the newest always among them.
        """
        ...

    def keep(self, held: Sequence[int], next_frame: int) -> Sequence[int]:
        """The held frames, ascending, that a block starting at next_frame or later may ever see."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Full:
    """See everything, at its true distance. Time and memory grow with the length of the session."""

    @property
    def limit(self) -> None:
        return None

    @property
    def sparse(self) -> None:
        return None

    @property
    def anew(self) -> bool:
        return False

    def see(self, held: Sequence[int], block: int, alike: Alike = nothing_alike) -> Sequence[Seen]:
        return [Seen(frame, frame - block) for frame in held]

    def keep(self, held: Sequence[int], next_frame: int) -> Sequence[int]:
        return held


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """See the latest `frames` frames, at their true distance.

    anew: as if nothing had been before them: for every block their keys and values are computed anew, block by block,
        the first of them seeing none. What they once knew of frames that have left the window does not linger in them,
        and neither do its errors.

    Source: anew, Krea realtime, 2025, which computes its last three latents anew before every block. Departure: there
        the first of them is encoded anew too, from its pixels.
    """

    frames: int = 24
    anew: bool = False

    def __post_init__(self) -> None:
        settle_counts(self, "frames")
        if self.frames < 1:
            raise ConfigError(f"a window policy sees at least 1 frame, got frames={shown(self.frames)}")

    @property
    def limit(self) -> int:
        return self.frames

    @property
    def sparse(self) -> None:
        return None

    def see(self, held: Sequence[int], block: int, alike: Alike = nothing_alike) -> Sequence[Seen]:
        return [Seen(frame, frame - block) for frame in self.keep(held, block)]

    def keep(self, held: Sequence[int], next_frame: int) -> Sequence[int]:
        return [frame for frame in held if frame >= next_frame - self.frames]


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkWindow:
    """See the first `sink` frames and the latest `window` frames, which stand at their true distance.

    near: the sink stands directly before the window, as if nothing lay between them, so that positions never leave the
        range the model was trained on. Else it too stands at its true distance, further back with every block.

    Sources: attention sinks, Xiao et al. 2023 (arXiv:2309.17453), section 3.2, over frames instead of tokens: near, and
        so does RollingForcing, Liu et al. 2025 (arXiv:2509.25161), place its anchor, the first block. Far, as the frame
        sink of LongLive, Yang et al. 2025 (arXiv:2509.22622), whose cached keys were turned when they were written.
    """

    sink: int = 4
    window: int = 20
    near: bool = True

    def __post_init__(self) -> None:
        settle_counts(self, "sink", "window")
        if self.sink < 0 or self.window < 1:
            raise ConfigError(
                f"a sink policy needs sink >= 0 and window >= 1, got sink={shown(self.sink)}, "
                f"window={shown(self.window)}"
            )

    @property
    def limit(self) -> int:
        return self.sink + self.window

    @property
    def sparse(self) -> None:
        return None

    @property
    def anew(self) -> bool:
        return False

    def see(self, held: Sequence[int], block: int, alike: Alike = nothing_alike) -> Sequence[Seen]:
        kept = self.keep(held, block)
        return [Seen(frame, at - len(kept) if self.near else frame - block) for at, frame in enumerate(kept)]

    def keep(self, held: Sequence[int], next_frame: int) -> Sequence[int]:
        return [frame for frame in held if frame < self.sink or frame >= next_frame - self.window]
