"""Which keys a world understands, and how the keys held at a frame become the numbers that steer it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from worldsim.errors import ConfigError, UnknownName

Keys = frozenset[str]
"""The keys held at one moment, as W3C `event.code` names: {"KeyW", "ArrowLeft"}. Empty means wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One thing a world can be told to do, and the keys that say it (any of them)."""

    name: str
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """The actions of one world, in order of precedence.

    exclusive: one action a frame; of several held the first in `actions` wins. Otherwise all held count.
    day: frames in a day of the world, if it has days. What time it is then steers a frame too, since no window of the
        past is long enough to tell.

    A frame is steered by one number per action, 1.0 for each that counts, so waiting is all zeros; in a world with days
    three more follow: cosine and sine of the hour, and 1.0, or all zeros if the hour is not known.
    """

    actions: tuple[Action, ...]
    exclusive: bool
    day: int | None = None

    def __post_init__(self) -> None:
        keys = self.keys
        if len(set(keys)) != len(keys):
            raise ConfigError(f"a key belongs to one action, got {keys}")

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key the world understands."""
        return tuple(key for action in self.actions for key in action.keys)

    def __len__(self) -> int:
        return len(self.actions) + (0 if self.day is None else 3)

    def check(self, keys: Iterable[str]) -> Keys:
        """The keys as a frozen set; raises UnknownName for the first that the world does not understand."""
        if isinstance(keys, str):
            raise ConfigError(f"keys are a set of names, got the text {keys!r}; pass {{{keys!r}}}")
        held = frozenset(keys)
        for key in sorted(held, key=str):
            if key not in self.keys:
                raise UnknownName("key", key, self.keys)
        return held

    def held(self, keys: Iterable[str]) -> tuple[Action, ...]:
        """The actions that these keys ask for, in order of precedence; at most one where they exclude each other."""
        names = self.check(keys)
        wanted = tuple(action for action in self.actions if names.intersection(action.keys))
        return wanted[:1] if self.exclusive else wanted

    def vector(self, keys: Iterable[str], hour: int | None = None) -> tuple[float, ...]:
        """The numbers that steer one frame under these keys, at that frame of the day; see the class."""
        wanted = self.held(keys)
        acts = tuple(1.0 if action in wanted else 0.0 for action in self.actions)
        if self.day is None:
            return acts
        if hour is None:
            return (*acts, 0.0, 0.0, 0.0)
        angle = math.tau * (self.check_hour(hour) / self.day)
        return (*acts, math.cos(angle), math.sin(angle), 1.0)

    def hour(self, vector: Sequence[float]) -> int | None:
        """The frame of the day that numbers of `vector` were made at, None if they do not say."""
        if self.day is None or vector[-1] < 0.5:
            return None
        return round(math.atan2(vector[-2], vector[-3]) / math.tau * self.day) % self.day

    def next(self, keys: Iterable[str], vector: Sequence[float]) -> tuple[float, ...]:
        """The numbers that steer the frame under these keys which follows one steered by those numbers."""
        hour = self.hour(vector)
        return self.vector(keys, None if self.day is None or hour is None else (hour + 1) % self.day)

    def check_hour(self, hour: int) -> int:
        """The hour; raises ConfigError unless it is a frame of the world's day."""
        if self.day is None:
            raise ConfigError(f"this world has no days, so no hour can be given; got hour={hour}")
        if not 0 <= hour < self.day:
            raise ConfigError(f"an hour is a frame of the day, 0 to {self.day - 1}, got {hour}")
        return hour

    def number(self, name: str) -> int:
        """Which of the numbers that steer a frame is that of the action of that name."""
        names = [action.name for action in self.actions]
        if name not in names:
            raise UnknownName("action", name, names)
        return names.index(name)

    def press(self, name: str) -> Keys:
        """The keys to hold for the action of that name; "wait" holds none."""
        if name == "wait":
            return frozenset()
        for action in self.actions:
            if action.name == name:
                return frozenset(action.keys[:1])
        raise UnknownName("action", name, ["wait", *(action.name for action in self.actions)])
