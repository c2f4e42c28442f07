"""Plays Crafter as people do, for recording: walks far, turns back, collects, drinks, fights, sleeps, crafts."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from worldsim.controls import Keys
from worldsim.simulators.crafter import CONTROLS, ORES, WALKABLE, Crafter

Place = tuple[int, int]

MOVES: dict[Place, str] = {(-1, 0): "move_left", (1, 0): "move_right", (0, -1): "move_up", (0, 1): "move_down"}
MAKES = tuple(action.name for action in CONTROLS.actions if action.name.startswith("make_"))
ROCK = ("stone", *ORES)
PLACES = tuple(action.name for action in CONTROLS.actions if action.name.startswith("place_"))


class CrafterExplorer:
    """One episode's player. Looks at the engine's map to find its way; presses keys like anybody.

    It follows one plan at a time (a generator of action names) and draws the next when that ends.
    """

    def __init__(self, simulator: Crafter, seed: int) -> None:
        self._simulator = simulator
        self._rng = np.random.default_rng([seed, 2])
        self._plan: Iterator[str] = iter(())
        self._trail: list[Place] = []

    def choose(self) -> Keys:
        """The keys to hold for the next frame."""
        self._trail.append(self._at)
        if self._enemy_within(1) and not self._player.sleeping and self._rng.random() < 0.8:
            self._plan = self._hunt("Zombie", reach=2)
        name = next(self._plan, None)
        while name is None:
            self._plan = self._draw()
            name = next(self._plan, None)
        if self._rng.random() < 0.03:  # a slip of the finger, so that plans are also seen interrupted
            name = str(self._rng.choice([action.name for action in CONTROLS.actions]))
        return CONTROLS.press(name)

    @property
    def _player(self) -> Any:
        return self._simulator.env._player

    @property
    def _at(self) -> Place:
        x, y = self._player.pos
        return int(x), int(y)

    def _draw(self) -> Iterator[str]:
        """The next plan: what the body needs first, else something drawn at random."""
        need = self._player.inventory
        if need["drink"] < 4 and self._rng.random() < 0.7:
            return self._use("water", times=8)
        if need["food"] < 4 and self._rng.random() < 0.7:
            return self._hunt("Cow")
        dark = self._simulator.env._world.daylight < 0.3
        if need["energy"] < (7 if dark else 3) and not self._enemy_within(8) and self._rng.random() < 0.5:
            return self._sleep()
        plans: list[tuple[float, Callable[[], Iterator[str]]]] = [
            (3.0, self._walk),
            (1.0, self._travel),
            (1.5, self._return),
            (8.0, lambda: self._use("tree", times=9)),
            (1.0, lambda: self._use("stone", times=2)),
            (6.0 if need["wood_pickaxe"] else 0.5, self._dig),
            (6.0, lambda: self._mine(str(self._rng.choice(ORES)))),
            (3.0, lambda: self._use("water", times=6)),
            (0.5, lambda: self._use("grass", times=4)),
            (0.7, lambda: self._hunt(str(self._rng.choice(["Cow", "Cow", "Skeleton"])))),
            (4.0, self._craft),
            (3.0 if need["stone"] else 0.2, self._build),
            (0.7, self._wait),
            (0.1, self._sleep),
            (0.5, self._fumble),
        ]
        weights = np.array([weight for weight, _ in plans])
        return plans[int(self._rng.choice(len(plans), p=weights / weights.sum()))][1]()

    def _walk(self) -> Iterator[str]:
        """Straight on for a while, past obstacles only by chance: blocked steps are part of the world too."""
        move = list(MOVES)[int(self._rng.integers(4))]
        blocked = 0
        for _ in range(int(self._rng.geometric(0.12))):
            before = self._at
            if self._material((before[0] + move[0], before[1] + move[1])) == "lava":
                return
            yield MOVES[move]
            blocked = blocked + 1 if self._at == before else 0
            if blocked > 1:
                return

    def _travel(self) -> Iterator[str]:
        """To a far place, by the shortest way."""
        x, y = (int(value) for value in self._rng.integers(2, 62, size=2))
        return self._go(lambda place: abs(place[0] - x) + abs(place[1] - y) <= 2, most=60)

    def _return(self) -> Iterator[str]:
        """Back to where it was a while ago."""
        if len(self._trail) < 10:
            return iter(())
        back = int(self._rng.integers(5, min(len(self._trail), 120)))
        goal = self._trail[-back]
        return self._go(lambda place: place == goal, most=80)

    def _use(self, material: str, *, times: int) -> Iterator[str]:
        """Go beside the nearest of that material, face it and act on it some times."""
        yield from self._go(lambda place: self._beside(place, material) is not None, most=40)
        side = self._beside(self._at, material)
        if side is None:
            return
        yield MOVES[side]
        for _ in range(int(self._rng.integers(1, times + 1))):
            yield "do"

    def _dig(self) -> Iterator[str]:
        """Go to the nearest rock and drive a tunnel into it, with a turn now and then."""
        yield from self._go(lambda place: self._beside(place, "stone") is not None, most=40)
        way = self._beside(self._at, "stone")
        for _ in range(int(self._rng.integers(4, 16))):
            if way is None:
                return
            before = self._at
            yield MOVES[way]
            if self._at == before:
                yield "do"
            if self._material(self._ahead(way)) not in ROCK or self._rng.random() < 0.1:
                way = next((turn for turn in MOVES if self._material(self._ahead(turn)) in ROCK), None)

    def _mine(self, ore: str) -> Iterator[str]:
        """Go to the nearest ore of that kind, through rock where there is a pickaxe for it, and take it."""
        through = WALKABLE + (("stone",) if self._player.inventory["wood_pickaxe"] else ())
        yield from self._go(lambda place: self._beside(place, ore) is not None, most=60, through=through)
        side = self._beside(self._at, ore)
        if side is not None:
            yield MOVES[side]
            yield "do"
            yield str(self._rng.choice(["do", MOVES[side]]))

    def _build(self) -> Iterator[str]:
        """Put stones where it looks, and take some of them up again."""
        for _ in range(int(self._rng.integers(1, 6))):
            yield list(MOVES.values())[int(self._rng.integers(4))]
            yield "place_stone"
            if self._rng.random() < 0.5:
                yield "do"

    def _hunt(self, kind: str, *, reach: int = 12) -> Iterator[str]:
        """Chase the nearest creature of that kind and hit it until it falls or is further away than `reach` tiles."""
        for _ in range(25):
            creatures = [found for found in self._simulator.env._world.objects if type(found).__name__ == kind]
            if not creatures:
                return
            target = min(creatures, key=self._player.distance)
            dx, dy = (int(value) for value in target.pos - self._player.pos)
            if abs(dx) + abs(dy) > reach:
                return
            ways = [way for way in ((int(np.sign(dx)), 0), (0, int(np.sign(dy)))) if way in MOVES]
            if not ways:  # it is gone, or was never there
                return
            way = ways[int(self._rng.integers(len(ways)))]
            beside = abs(dx) + abs(dy) == 1
            yield "do" if beside and tuple(self._player.facing) == way else MOVES[way]

    def _craft(self) -> Iterator[str]:
        """Place or make something, whether or not it is possible here."""
        if self._rng.random() < 0.5:
            yield from self._go(lambda place: self._near(place, "table"), most=25)
        if not self._near(self._at, "table") and self._player.inventory["wood"] >= 2 and self._rng.random() < 0.6:
            yield "place_table"
        if self._near(self._at, "table") and self._player.inventory["stone"] >= 4 and self._rng.random() < 0.3:
            yield "place_furnace"
        names = MAKES if self._near(self._at, "table") else PLACES
        for _ in range(int(self._rng.integers(1, 4))):
            yield str(self._rng.choice(names))
            if self._rng.random() < 0.3:
                yield list(MOVES.values())[int(self._rng.integers(4))]

    def _wait(self) -> Iterator[str]:
        for _ in range(int(self._rng.integers(1, 12))):
            yield "wait"

    def _sleep(self) -> Iterator[str]:
        """Lie down and mostly sleep until awake again; one sleeper in three struggles with other keys."""
        for _ in range(int(self._rng.integers(10, 150))):
            yield "sleep" if self._rng.random() < 0.7 else "wait"
            if not self._player.sleeping:
                return

    def _fumble(self) -> Iterator[str]:
        for _ in range(int(self._rng.integers(2, 10))):
            yield str(self._rng.choice([action.name for action in CONTROLS.actions]))

    def _enemy_within(self, tiles: int) -> bool:
        return any(
            type(found).__name__ == "Zombie" and self._player.distance(found) <= tiles
            for found in self._simulator.env._world.objects
        )

    def _material(self, place: Place) -> str | None:
        name: str | None = self._simulator.env._world[place][0]
        return name

    def _ahead(self, way: Place) -> Place:
        x, y = self._at
        return x + way[0], y + way[1]

    def _beside(self, place: Place, material: str) -> Place | None:
        """The direction in which that material lies next to place, if it does."""
        for move in MOVES:
            if self._material((place[0] + move[0], place[1] + move[1])) == material:
                return move
        return None

    def _near(self, place: Place, material: str) -> bool:
        x, y = place
        around = [(x + dx, y + dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1)]
        return any(self._material(spot) == material for spot in around)

    def _go(self, is_goal: Callable[[Place], bool], *, most: int, through: tuple[str, ...] = WALKABLE) -> Iterator[str]:
        """Go the shortest way to the nearest goal, `most` steps at the most; finds another way when blocked.

        Where the way leads through what cannot be walked on, it is taken away first.
        """
        path = self._path(is_goal, through)
        for _ in range(most):
            if not path:
                return
            step = path.popleft()
            before = self._at
            rock = self._material(self._ahead(step)) not in WALKABLE
            yield MOVES[step]
            if rock:
                yield "do"
                yield MOVES[step]
            if self._at != (before[0] + step[0], before[1] + step[1]):
                path = self._path(is_goal, through)

    def _path(self, is_goal: Callable[[Place], bool], through: tuple[str, ...]) -> deque[Place]:
        """Breadth-first over such tiles to the nearest goal; empty where there is none or it is here."""
        start = self._at
        came: dict[Place, Place] = {start: start}
        queue = deque([start])
        while queue:
            place = queue.popleft()
            if is_goal(place):
                return self._trace(came, start, place)
            for move in MOVES:
                after = (place[0] + move[0], place[1] + move[1])
                if after not in came and self._material(after) in through:
                    came[after] = place
                    queue.append(after)
        return deque()

    @staticmethod
    def _trace(came: dict[Place, Place], start: Place, goal: Place) -> deque[Place]:
        steps: deque[Place] = deque()
        while goal != start:
            before = came[goal]
            steps.appendleft((goal[0] - before[0], goal[1] - before[1]))
            goal = before
        return steps
