"""A walker that plays Crafter by what it sees: it keeps its bearings, knows the land, and finds its way."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from benchmarks.tiles import CENTRE, COLUMNS, ITEMS, MATERIALS, ROWS, SPRITES, WALKABLE, Reading
from benchmarks.world_metrics import MOVES

Place = tuple[int, int]
FREE = {MATERIALS.index(name) for name in WALKABLE}
FARTHEST = 14
"""Places from home at which the walker goes no farther away: two views."""
KNOWN = 20
"""Tiles in view that have to be known before they tell where a walker is."""
SURE = 0.3
"""By how much more of them the land has to fit elsewhere."""
OBVIOUS = 2
"""So many tiles tell better whether a player has moved than what stood ahead of it."""
NEAR = tuple((row, column) for row in (0, -1, 1) for column in (0, -1, 1))
NAMES = {step: name for name, step in MOVES.items()}
FACED = {f"player-{name.removeprefix('move_')}": step for name, step in MOVES.items()}


def far(place: Place) -> int:
    """How many steps a place is from home."""
    return abs(place[0]) + abs(place[1])


def _between(one: Place, other: Place) -> int:
    return far((one[0] - other[0], one[1] - other[1]))


@dataclass(slots=True)
class Walker:
    """Knows of a world what its frames showed: where it is, and what lies around.

    shown: the newest reading, of one frame.
    place: row and column of the player, home being (0, 0).
    land: the material seen last at each place.
    trodden: where it stood, by night too, when land cannot be told.
    seen_at: the frame at which each place was in view last.
    """

    shown: Reading | None = None
    place: Place = (0, 0)
    land: dict[Place, int] = field(default_factory=dict)
    trodden: set[Place] = field(default_factory=set)
    seen_at: dict[Place, int] = field(default_factory=dict)

    def see(self, shown: Reading, at: int, move: Place) -> None:
        """Take in frame `at`, the only one of a reading, made under a move that succeeded or not.

        Whether it did is told by what stood ahead, and by the tiles that are in view before and after where they speak
        against that. By day the land that is known corrects it.
        """
        if move != (0, 0) and self._moved(shown, move):
            self.place = self._next(move)
        self.shown = shown
        fits = {step: self._fit(shown, step) for step in NEAR}
        better = {step: fit for step, fit in fits.items() if fit > fits[0, 0] + SURE}
        if better:
            self.place = self._next(max(better, key=lambda step: better[step]))
        self.trodden.add(self.place)
        for place, row, column in self.view():
            self.seen_at[place] = at
            if shown.visible[0, row, column] and (row, column) != CENTRE:
                self.land[place] = int(shown.materials[0, row, column])

    def view(self) -> list[tuple[Place, int, int]]:
        """Every place in view, with its row and column there."""
        top, left = self.place[0] - CENTRE[0], self.place[1] - CENTRE[1]
        return [((top + row, left + column), row, column) for row, column in np.ndindex(ROWS, COLUMNS)]

    def away(self, rng: np.random.Generator) -> Place:
        """A step that leads away from home if one does, or back where that is too far, over free ground if there is."""
        ways = [way for way in MOVES.values() if self.is_free(self._next(way))] or list(MOVES.values())
        goes = 1 if far(self.place) < FARTHEST else -1
        pick = [way for way in ways if (far(self._next(way)) - far(self.place)) * goes > 0] or ways
        return pick[int(rng.integers(len(pick)))]

    def is_free(self, place: Place) -> bool:
        """Whether a place can be gone to, as far as is known."""
        return self.land.get(place) in FREE or (place in self.trodden and place not in self.land)

    def goes_on(self, way: Place) -> bool:
        """Whether the next step that way leads over free ground, and not too far from home."""
        there = self._next(way)
        return self.is_free(there) and far(there) <= FARTHEST

    def home(self) -> list[Place]:
        """The steps of the shortest way home over ground that was seen, if there is one, and round who stands there."""
        return self.path(self._is_home, self.crowd()) or self.path(self._is_home)

    @staticmethod
    def _is_home(place: Place) -> bool:
        return place == (0, 0)

    def towards(self, goal: Place) -> list[Place]:
        """The steps of the shortest way to the free ground nearest to a place; empty if none is nearer than here."""
        for most in range(_between(self.place, goal)):
            if steps := self.path(partial(self._is_near, goal, most), self.crowd()):
                return steps
        return []

    def _is_near(self, goal: Place, most: int, place: Place) -> bool:
        return self.is_free(place) and _between(place, goal) <= most

    def path(self, is_goal: Callable[[Place], bool], avoided: Container[Place] = ()) -> list[Place]:
        """The steps of the shortest way to a goal over free ground that was seen; the goal itself need not be free.

        Empty where no way leads to one, and where the walker stands on one.
        """
        came = {self.place: self.place}
        queue = deque([] if is_goal(self.place) else [self.place])
        while queue:
            here = queue.popleft()
            for way in MOVES.values():
                there = (here[0] + way[0], here[1] + way[1])
                if there in came:
                    continue
                if is_goal(there):
                    return _trace(came | {there: here}, there)
                if self.is_free(there) and there not in avoided:
                    came[there] = here
                    queue.append(there)
        return []

    def crowd(self) -> dict[Place, str]:
        """Who stands where in the newest frame, by the names of SPRITES, the walker left out."""
        if self.shown is None:
            return {}
        return {
            place: SPRITES[int(self.shown.sprites[0, row, column])]
            for place, row, column in self.view()
            if self.shown.sprites[0, row, column] and self.shown.visible[0, row, column] and (row, column) != CENTRE
        }

    def faces(self) -> Place | None:
        """The step that the player looks along; None of a sleeper, or before a frame was seen."""
        return None if self.shown is None else FACED.get(SPRITES[int(self.shown.sprites[0][CENTRE])])

    def has(self, item: str) -> int:
        """How many of an item the newest frame shows, 0 where that cannot be read."""
        return 0 if self.shown is None else max(0, int(self.shown.inventory[0, ITEMS.index(item)]))

    def _next(self, way: Place) -> Place:
        return self.place[0] + way[0], self.place[1] + way[1]

    def _moved(self, shown: Reading, move: Place) -> bool:
        """Whether a move was made that led to what is shown now."""
        if self.shown is None:
            return False
        more = _changed(self.shown, shown, move) - _changed(self.shown, shown, (0, 0))
        return more < (OBVIOUS if _free(self.shown, move) else -OBVIOUS)

    def _fit(self, shown: Reading, move: Place) -> float:
        """The share of tiles that can be told and show what was known at their places after a move; NaN of too few."""
        known = [
            (self.land[there], int(shown.materials[0, row, column]))
            for place, row, column in self.view()
            if (there := (place[0] + move[0], place[1] + move[1])) in self.land
            and (row, column) != CENTRE
            and shown.visible[0, row, column]
        ]
        return float(np.mean([one == other for one, other in known])) if len(known) >= KNOWN else float("nan")


def _free(shown: Reading, way: Place) -> bool:
    """Whether a reading of one frame shows free ground, and nobody on it, one step that way from a player awake."""
    ahead = 0, CENTRE[0] + way[0], CENTRE[1] + way[1]
    return int(shown.materials[ahead]) in FREE and not shown.sprites[ahead] and not shown.sleeping[0]


def _changed(before: Reading, after: Reading, move: Place) -> int:
    """How many of the tiles that can be told in readings of one frame each have changed if the view made that move."""
    down, right = move
    old = slice(max(0, down), ROWS + min(0, down)), slice(max(0, right), COLUMNS + min(0, right))
    new = slice(max(0, -down), ROWS + min(0, -down)), slice(max(0, -right), COLUMNS + min(0, -right))
    land = np.ones((ROWS, COLUMNS), bool)
    land[CENTRE] = False
    told = (before.visible[0] & land)[old] & (after.visible[0] & land)[new]
    return int((told & (before.materials[0][old] != after.materials[0][new])).sum())


def _trace(came: dict[Place, Place], goal: Place) -> list[Place]:
    """The steps that lead to a goal, given where each place was come to from."""
    steps: list[Place] = []
    here, before = goal, came[goal]
    while before != here:
        steps.append((here[0] - before[0], here[1] - before[1]))
        here, before = before, came[before]
    return steps[::-1]
