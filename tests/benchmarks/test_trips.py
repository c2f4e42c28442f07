"""A walker goes away, or round a square, comes home, and leaves a mark where it can."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.tiles import CENTRE, COLUMNS, ITEMS, MATERIALS, ROWS, SPRITES
from benchmarks.trips import HOME, Away, Square, Trip, change
from benchmarks.walker import FREE, Place, Walker, far

GRASS, TREE, STONE, PATH = (MATERIALS.index(name) for name in ("grass", "tree", "stone", "path"))


def land(size: int, rng: np.random.Generator, trees: float = 0.0) -> dict[Place, int]:
    """Grass and trees, home being free."""
    places = [(row, column) for row in range(-size, size + 1) for column in range(-size, size + 1)]
    return {place: TREE if place != HOME and rng.random() < trees else GRASS for place in places}


def walk(trip: Trip, known: dict[Place, int]) -> list[Place]:
    """Where a walker that knows all of the land was, until the trip was over or had taken too long."""
    walker, places = Walker(land=known), [HOME]
    for _ in range(trip.longest):
        step = trip.step(walker)
        if step is None:
            break
        there = walker.place[0] + step[0], walker.place[1] + step[1]
        walker.place = there if known.get(there) in FREE else walker.place
        places.append(walker.place)
    return places


@pytest.mark.parametrize("seed", range(8))
def test_a_walker_is_away_for_as_long_as_asked_and_then_at_home(seed: int) -> None:
    rng = np.random.default_rng(seed)
    places = walk(Away(frames=60, rng=rng), land(20, rng, trees=0.1))
    assert places[-1] == HOME
    assert 58 <= len(places) <= 62
    assert max(map(far, places)) >= 8


@pytest.mark.parametrize("seed", range(8))
def test_a_square_is_gone_round_by_its_corners(seed: int) -> None:
    rng = np.random.default_rng(seed)
    places = walk(Square(side=9, rng=rng), land(12, rng))
    assert len(places) == 4 * 9 + 1
    assert {(abs(row), abs(column)) for row, column in places} >= {(0, 9), (9, 9), (9, 0)}
    assert places[-1] == HOME


@pytest.mark.parametrize("seed", range(8))
def test_a_corner_that_cannot_be_reached_is_come_near_to_and_left_out(seed: int) -> None:
    rng = np.random.default_rng(seed)
    places = walk(Square(side=9, rng=rng), land(6, rng))
    assert {(abs(row), abs(column)) for row, column in places} >= {(0, 6), (6, 6), (6, 0)}
    assert places[-1] == HOME


def beside(ahead: int, *, facing: str = "player-right", **items: int) -> Walker:
    """A walker on grass between lava that has items, and to its right that material."""
    sprites = np.zeros((1, ROWS, COLUMNS), np.int64)
    sprites[0][CENTRE] = SPRITES.index(facing)
    inventory = np.array([[{"health": 9, **items}.get(item, 0) for item in ITEMS]])
    shown: Any = SimpleNamespace(sprites=sprites, inventory=inventory, visible=np.ones((1, ROWS, COLUMNS), bool))
    around = dict.fromkeys([(-1, 0), (1, 0), (0, -1)], MATERIALS.index("lava"))
    return Walker(shown=shown, land={**around, (0, 1): ahead, HOME: GRASS})


@pytest.mark.parametrize(
    ("walker", "actions", "makes"),
    [
        (beside(TREE), ["do"], GRASS),
        (beside(TREE, facing="player-left"), ["move_right", "do"], GRASS),
        (beside(STONE, wood_pickaxe=1), ["do"], PATH),
        (beside(GRASS, stone=1), ["place_stone"], STONE),
        (beside(GRASS, wood=2), ["place_table"], MATERIALS.index("table")),
    ],
)
def test_a_place_is_changed_by_what_the_walker_has(walker: Walker, actions: list[str], makes: int) -> None:
    assert change(walker) == (actions, (0, 1), makes)


@pytest.mark.parametrize("walker", [beside(STONE), beside(GRASS), beside(GRASS, wood=1), Walker()])
def test_a_walker_that_has_nothing_to_change_a_place_with_leaves_it(walker: Walker) -> None:
    assert change(walker) is None


def test_ground_beside_a_walker_is_not_turned_to_for_it_would_step_there() -> None:
    assert change(beside(GRASS, facing="player-left", stone=1)) is None
