"""Ways to leave a place and come back to it, for a walker that sees nothing but the frames."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from benchmarks.tiles import MATERIALS
from benchmarks.walker import FREE, NAMES, Place, Walker
from benchmarks.world_metrics import MOVES

STRAIGHT_ON = 0.8
"""How often a walker who is away goes on as before where it can, so that its ways lead somewhere."""
HOME: Place = (0, 0)
LATE = 96
"""So many steps more than a trip takes if nothing is in the way, and the walker counts as lost: 12 s."""
GROUND = ("grass", "sand", "path")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What an action makes of the place ahead: of which materials which, and how many of which item it takes."""

    action: str
    onto: tuple[str, ...]
    makes: str
    item: str = "health"
    least: int = 1


CHANGES = (
    Change(action="do", onto=("tree",), makes="grass"),
    Change(action="do", onto=("stone",), makes="path", item="wood_pickaxe"),
    Change(action="place_stone", onto=(*GROUND, "water"), makes="stone", item="stone"),
    Change(action="place_table", onto=GROUND, makes="table", item="wood", least=2),
)


class Trip(Protocol):
    """A way out and back."""

    @property
    def longest(self) -> int:
        """So many steps later the walker counts as lost."""

    def step(self, walker: Walker) -> Place | None:
        """The next step; None once the trip is over."""


@dataclass(slots=True, kw_only=True)
class Away:
    """Away for a while, never far, and home the shortest way over ground that was seen or stood on.

    frames: how long in all.
    rng: decides where to.
    gone: how many steps were made.
    way: the one it is on.
    """

    frames: int
    rng: np.random.Generator
    gone: int = 0
    way: Place | None = None

    @property
    def longest(self) -> int:
        """So many steps later the walker counts as lost."""
        return self.frames + LATE

    def step(self, walker: Walker) -> Place | None:
        """The next step; None if the walker is home in time."""
        # Where the way was dark none is known; then by what is seen towards home.
        home = walker.home() or walker.towards(HOME)
        returns = self.frames - self.gone - len(home) - 2 <= 0
        if returns and walker.place == HOME and self.gone:
            return None
        self.gone += 1
        if self.way is None or not walker.goes_on(self.way) or self.rng.random() >= STRAIGHT_ON:
            self.way = walker.away(self.rng)
        return home[0] if returns and home else self.way


@dataclass(slots=True, kw_only=True)
class Square:
    """Round a square, so that home comes into view on another side than it went out of view.

    side: in places.
    rng: decides to which side, and which way round.
    corners: those still to come, home being the last.
    """

    side: int
    rng: np.random.Generator
    corners: list[Place] = field(default_factory=list)

    def __post_init__(self) -> None:
        down, right = (int(sign) * self.side for sign in self.rng.choice((-1, 1), 2))
        ends = [(down, 0), (0, right)]
        self.corners = [*ends[:1], (down, right), *ends[1:], HOME]
        if self.rng.random() < 0.5:
            self.corners[:3] = self.corners[2::-1]

    @property
    def longest(self) -> int:
        """So many steps later the walker counts as lost."""
        return 4 * self.side + LATE

    def step(self, walker: Walker) -> Place | None:
        """The next step; None once all corners are behind the walker, or as near as it could come to them."""
        while self.corners:
            steps = walker.towards(self.corners[0])
            if steps:
                return steps[0]
            self.corners.pop(0)
        return None


def change(walker: Walker) -> tuple[list[str], Place, int] | None:
    """How a walker at home can change a place beside it: the actions, where, the material it becomes; None if not."""
    crowd, faced = walker.crowd(), walker.faces()
    for way in MOVES.values():
        ahead = walker.land.get(way, -1)
        # Towards what is in the way a walker only turns.
        if way in crowd or ahead < 0 or (way != faced and ahead in FREE):
            continue
        for one in CHANGES:
            if MATERIALS[ahead] in one.onto and walker.has(one.item) >= one.least:
                turn = [] if way == faced else [NAMES[way]]
                return [*turn, one.action], way, MATERIALS.index(one.makes)
    return None
