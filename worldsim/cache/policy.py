"""Which frames of the past a block sees, and at which positions: pure functions of frame numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol

from worldsim.cache.options import parse_options
from worldsim.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Seen:
    """One frame of the past as a block sees it.

    position counts frames from the first frame of the block, which is 0, so it is negative. It says nothing about
    the frame's number, so that no world ends where a table of positions does.
    """

    frame: int
    position: int


class Policy(Protocol):
    """Names the past frames that a block sees. Pure: equal arguments give equal answers."""

    @property
    def limit(self) -> int | None:
        """The most frames that `keep` ever returns; None without a bound."""
        ...

    def see(self, held: Sequence[int], block: int) -> Sequence[Seen]:
        """What a block sees.

        Args:
            held: the frames that are held, ascending, all before the block.
            block: the first frame of the block.

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

    def see(self, held: Sequence[int], block: int) -> Sequence[Seen]:
        return [Seen(frame, frame - block) for frame in held]

    def keep(self, held: Sequence[int], next_frame: int) -> Sequence[int]:
        return held


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """See the latest `frames` frames, at their true distance."""

    frames: int = 24

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise ConfigError(f"a window policy sees at least 1 frame, got frames={self.frames}")

    @property
    def limit(self) -> int:
        return self.frames

    def see(self, held: Sequence[int], block: int) -> Sequence[Seen]:
        return [Seen(frame, frame - block) for frame in self.keep(held, block)]

    def keep(self, held: Sequence[int], next_frame: int) -> Sequence[int]:
        return [frame for frame in held if frame >= next_frame - self.frames]


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkWindow:
    """See the first `sink` frames and the latest `window` frames, as if nothing lay between them.

    The window stands at its true distance and the sink directly before it, so positions never leave the range the
    model was trained on.

    Source: attention sinks, Xiao et al. 2023 (arXiv:2309.17453), section 3.2, over frames instead of tokens.
    """

    sink: int = 4
    window: int = 20

    def __post_init__(self) -> None:
        if self.sink < 0 or self.window < 1:
            raise ConfigError(
                f"a sink policy needs sink >= 0 and window >= 1, got sink={self.sink}, window={self.window}"
            )

    @property
    def limit(self) -> int:
        return self.sink + self.window

    def see(self, held: Sequence[int], block: int) -> Sequence[Seen]:
        kept = self.keep(held, block)
        return [Seen(frame, at - len(kept)) for at, frame in enumerate(kept)]

    def keep(self, held: Sequence[int], next_frame: int) -> Sequence[int]:
        return [frame for frame in held if frame < self.sink or frame >= next_frame - self.window]


POLICIES: dict[str, type[Full] | type[Window] | type[SinkWindow]] = {
    "full": Full,
    "window": Window,
    "sink": SinkWindow,
}


def parse_policy(text: str) -> Policy:
    """The policy that a text names: "full", "window:frames=24", "sink:sink=4,window=20".

    Options left out have their defaults.

    Raises:
        UnknownName: nobody knows that policy, or that option of it.
        ConfigError: an option is given twice, is not a whole number, or does not fit.
    """
    known = {name: [field.name for field in fields(kind)] for name, kind in POLICIES.items()}
    name, options = parse_options(text, known, kind="policy")
    return POLICIES[name](**options)


def policy_text(policy: Policy) -> str:
    """The text that parse_policy reads as this policy; of a policy it does not know, its repr."""
    for name, kind in POLICIES.items():
        if type(policy) is kind:
            options = ",".join(f"{field.name}={getattr(policy, field.name)}" for field in fields(kind))
            return f"{name}:{options}" if options else name
    return repr(policy)
