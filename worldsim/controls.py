"""Which keys a world understands, and how the keys held at a frame become the numbers that steer it."""

from __future__ import annotations

from collections.abc import Iterable
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
    A frame is steered by one number per action, 1.0 for each that counts, so waiting is all zeros.
    """

    actions: tuple[Action, ...]
    exclusive: bool

    def __post_init__(self) -> None:
        keys = self.keys
        if len(set(keys)) != len(keys):
            raise ConfigError(f"a key belongs to one action, got {keys}")

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key the world understands."""
        return tuple(key for action in self.actions for key in action.keys)

    def __len__(self) -> int:
        return len(self.actions)

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

    def vector(self, keys: Iterable[str]) -> tuple[float, ...]:
        """The numbers that steer one frame under these keys, one per action."""
        wanted = self.held(keys)
        return tuple(1.0 if action in wanted else 0.0 for action in self.actions)

    def press(self, name: str) -> Keys:
        """The keys to hold for the action of that name; "wait" holds none."""
        if name == "wait":
            return frozenset()
        for action in self.actions:
            if action.name == name:
                return frozenset(action.keys[:1])
        raise UnknownName("action", name, ["wait", *(action.name for action in self.actions)])
