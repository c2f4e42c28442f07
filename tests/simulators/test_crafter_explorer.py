"""The explorer of Crafter does what players do, and the same in every run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest

from worldsim.controls import Keys
from worldsim.simulators.crafter import CONTROLS, Crafter
from worldsim.simulators.crafter_explorer import MOVES, CrafterExplorer

SEEDS = (0, 1, 7, 8, 10, 13, 23, 24, 25)
PLANS = ("_walk", "_travel", "_return", "_use", "_dig", "_hunt", "_craft", "_wait", "_sleep", "_fumble")


@dataclass
class Walk:
    """What happened in one episode."""

    pressed: list[Keys] = field(default_factory=list)
    plans: Counter[str] = field(default_factory=Counter)
    places: list[tuple[int, int]] = field(default_factory=list)
    asleep: int = 0
    darkest: float = 1.0
    achievements: Counter[str] = field(default_factory=Counter)


def explore(seed: int, frames: int = 320) -> Walk:
    simulator, walk = Crafter(varied=True), Walk()
    simulator.reset(seed)
    explorer = CrafterExplorer(simulator, seed)
    for name in PLANS:
        setattr(explorer, name, counted(walk, name, getattr(explorer, name)))
    while not simulator.over and len(walk.pressed) < frames:
        walk.pressed.append(explorer.choose())
        simulator.step(walk.pressed[-1])
        player = simulator.env._player
        walk.places.append(tuple(player.pos))
        walk.asleep += player.sleeping
        walk.darkest = min(walk.darkest, float(simulator.env._world.daylight))
    walk.achievements.update(player.achievements)
    return walk


def counted(walk, name, plan):
    """The plan, which notes when it is begun, and for what material if for one."""

    def begin(*arguments, **options):
        walk.plans[" ".join((name, *arguments))] += 1
        return plan(*arguments, **options)

    return begin


@pytest.fixture(scope="module")
def walks() -> list[Walk]:
    return [explore(seed) for seed in SEEDS]


def test_every_plan_is_begun_within_a_few_episodes(walks):
    begun = sum((walk.plans for walk in walks), Counter())
    assert {name.split()[0] for name in begun} == set(PLANS)
    assert {"_use tree", "_use water", "_use grass", "_hunt Cow", "_hunt Zombie"} <= begun.keys()
    assert begun.keys() & {"_use stone", "_use coal", "_use iron", "_use diamond"}


def test_every_key_is_pressed_and_moves_most_of_all(walks):
    pressed = Counter(keys for walk in walks for keys in walk.pressed)
    assert pressed.keys() == {frozenset(), *(CONTROLS.press(action.name) for action in CONTROLS.actions)}
    assert sum(pressed[CONTROLS.press(name)] for name in MOVES.values()) > pressed.total() / 3


def test_it_collects_drinks_eats_fights_and_builds(walks):
    done = sum((walk.achievements for walk in walks), Counter())
    assert {"collect_wood", "collect_stone", "collect_drink", "eat_cow", "defeat_zombie", "place_table"} <= done.keys()


def test_it_walks_far_and_comes_back_to_where_it_was_long_before(walks):
    assert max(len(set(walk.places)) for walk in walks) > 80
    far = [max(abs(x - walk.places[0][0]) + abs(y - walk.places[0][1]) for x, y in walk.places) for walk in walks]
    assert max(far) > 20
    back = sum(place in walk.places[: max(0, at - 40)] for walk in walks for at, place in enumerate(walk.places))
    assert back > 50


def test_it_sees_the_night_and_sleeps_and_wakes(walks):
    assert min(walk.darkest for walk in walks) < 0.1
    assert sum(walk.asleep for walk in walks) > 50
    assert any(walk.achievements["wake_up"] for walk in walks)


def test_what_it_presses_depends_on_its_seed():
    simulator = Crafter()
    simulator.reset(1)
    one, same, other = (CrafterExplorer(simulator, seed) for seed in (5, 5, 6))
    pressed = [[explorer.choose() for _ in range(40)] for explorer in (one, same, other)]
    assert pressed[0] == pressed[1]
    assert pressed[0] != pressed[2]
