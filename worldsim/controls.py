"""Which keys a world understands, and how the keys held at a frame become the numbers that steer it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from worldsim.errors import ConfigError, UnknownName, shown

Keys = frozenset[str]
"""The keys held at one moment, as W3C `event.code` names: {"KeyW", "ArrowLeft"}. Empty means wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One thing a world can be told to do, and the keys that say it (any of them).

    adds: in a world whose frames are steered by rows, what it adds to a row, see Rows.
    """

    name: str
    keys: tuple[str, ...]
    adds: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """How a frame that stands for several moments is steered by what was held at them, and at others before.

    A row has the numbers of one moment: the sum of what the actions held there add. A frame is steered by `count` rows
    that follow each other, the oldest first. The last of its moments is not among them: that steers from the next frame
    on. What was held at moments before the first counts as what was held there.

    idle: the row of a moment at which nothing is held.
    count: rows that steer a frame.
    step: moments that a frame stands for; the first frame of all stands for one.
    """

    idle: tuple[float, ...]
    count: int
    step: int

    def __post_init__(self) -> None:
        if not self.idle or not 1 <= self.step <= self.count:
            raise ConfigError(f"a row has numbers, and a frame as many rows as moments or more, got {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """The actions of one world, in order of precedence.

    exclusive: one action a frame; of several held the first in `actions` wins. Otherwise all held count.
    day: frames in a day of the world, if it has days. What time it is then steers a frame too, since no window of the
        past is long enough to tell.
    rows: how a frame is steered if that is by more than what is held at it.

    A frame is steered by one number per action, 1.0 for each that counts, so waiting is all zeros; in a world with days
    three more follow: cosine and sine of the hour, and 1.0, or all zeros if the hour is not known. With rows, it is
    steered by the numbers of its rows, one row after the other.
    """

    actions: tuple[Action, ...]
    exclusive: bool
    day: int | None = None
    rows: Rows | None = None

    def __post_init__(self) -> None:
        keys = self.keys
        if len(set(keys)) != len(keys):
            raise ConfigError(f"a key belongs to one action, got {keys}")
        width = 0 if self.rows is None else len(self.rows.idle)
        if any(len(action.adds) != width for action in self.actions) or (width and self.day is not None):
            raise ConfigError(
                f"in a world of rows every action adds to each of the {width} numbers of one, and there are no days; "
                f"got {self}"
            )

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key the world understands."""
        return tuple(key for action in self.actions for key in action.keys)

    def __len__(self) -> int:
        if self.rows is not None:
            return self.rows.count * len(self.rows.idle)
        return len(self.actions) + (0 if self.day is None else 3)

    def check(self, keys: Iterable[str]) -> Keys:
        """The keys as a frozen set.

        Raises:
            UnknownName: one that the world does not understand.
            ConfigError: what is given are no keys.
        """
        if isinstance(keys, str):
            raise ConfigError(f"keys are a set of names, got the text {shown(keys)}; pass {{{shown(keys)}}}")
        try:
            held = list(keys)
        except TypeError as error:
            raise ConfigError(
                f"keys are a set of names, got {shown(keys)}; pass (), or leave them out, if none is held"
            ) from error
        for key in sorted(held, key=shown):
            if not isinstance(key, str) or key not in self.keys:
                owner = "" if self.keys else "a world that has none, and is told in words what to show"
                raise UnknownName("key", key, self.keys, of=owner)
        return frozenset(held)

    def held(self, keys: Iterable[str]) -> tuple[Action, ...]:
        """The actions that these keys ask for, in order of precedence; at most one where they exclude each other."""
        names = self.check(keys)
        wanted = tuple(action for action in self.actions if names.intersection(action.keys))
        return wanted[:1] if self.exclusive else wanted

    def vector(self, keys: Iterable[str], hour: int | None = None) -> tuple[float, ...]:
        """The numbers that steer one frame under these keys, at that frame of the day; see the class.

        With rows it is a frame before which nothing else was held.
        """
        wanted = self.held(keys)
        if self.rows is not None:
            return self._row(wanted) * self.rows.count
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

    def next(self, keys: Iterable[str], vector: Sequence[float] | None) -> tuple[float, ...]:
        """The numbers that steer the frame under these keys which follows one steered by those numbers.

        None stands for no frame at all: the one that is steered is the first.
        """
        if vector is None:
            return self.vector(keys)
        if self.rows is not None:
            return self._moved_on(self.rows, tuple(vector), self._row(self.held(keys)))
        hour = self.hour(vector)
        return self.vector(keys, None if self.day is None or hour is None else (hour + 1) % self.day)

    def _row(self, wanted: Sequence[Action]) -> tuple[float, ...]:
        """The row of a moment at which these actions are held."""
        assert self.rows is not None
        return tuple(map(sum, zip(*(action.adds for action in wanted), strict=True))) if wanted else self.rows.idle

    @staticmethod
    def _moved_on(rows: Rows, before: tuple[float, ...], row: tuple[float, ...]) -> tuple[float, ...]:
        """The numbers of the next frame: it hears of the last moment of the one before, and not yet of its own last.

        What is held changes from frame to frame alone, so the newest row of a frame is that of its last moment too.
        """
        return (*before[rows.step * len(row) :], *before[-len(row) :], *row * (rows.step - 1))

    def check_hour(self, hour: int) -> int:
        """The hour; raises ConfigError unless it is a frame of the world's day."""
        if self.day is None:
            raise ConfigError(f"this world has no days, so no hour can be given; got hour={shown(hour)}")
        if not 0 <= hour < self.day:
            raise ConfigError(f"an hour is a frame of the day, 0 to {self.day - 1}, got {shown(hour)}")
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
