"""A walker knows where it is, finds its way, and does what its body asks for."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.tiles import ITEMS, MATERIALS, SPRITES
from benchmarks.walker import Walker
from benchmarks.world_metrics import MOVES
from benchmarks.world_quality import explore_many

pytest.importorskip("crafter")
GRASS, WATER = MATERIALS.index("grass"), MATERIALS.index("water")
COW, ZOMBIE = SPRITES.index("cow"), SPRITES.index("zombie")
ASLEEP = SPRITES.index("player-sleep")
LOOKS = {way: SPRITES.index(f"player-{way}") for way in ("left", "right", "up", "down")}


@pytest.mark.parametrize("night", [False, True])
def test_a_walker_keeps_its_bearings(night: bool) -> None:
    """Over whole episodes of the engine it is where the engine has it, but for a step on ground without a mark."""
    episode = next(explore_many(700_000_100, 1, frames_per_block=1))
    walker, wrong = Walker(), 0
    for at, action in enumerate(episode.play.actions):
        shown = episode.play.shown[at : at + 1]
        if night:
            shown = replace(shown, visible=np.zeros_like(shown.visible))
        walker.see(shown, at, MOVES.get(action, (0, 0)))
        wrong += walker.place != tuple(episode.play.places[at] - episode.play.places[0])
    assert len(episode.frames) > 100
    assert wrong <= 0.02 * len(episode.frames)


def reading(materials: list[list[int]], sprites: dict[tuple[int, int], int] | None = None, **has: int) -> Any:
    shown, on = np.full((1, 7, 9), GRASS), np.zeros((1, 7, 9), int)
    inventory = np.array([[has.get(item, 9) for item in ITEMS]])
    shown[0, : len(materials), : len(materials[0])] = materials
    for place, sprite in (sprites or {}).items():
        on[0, *place] = sprite
    return SimpleNamespace(
        materials=shown,
        sprites=on,
        visible=np.ones((1, 7, 9), bool),
        sleeping=np.zeros(1, bool),
        inventory=inventory,
    )


def test_a_walker_tells_by_what_it_sees_whether_it_moved() -> None:
    walker = Walker()
    for at, shown in enumerate(([[WATER, GRASS, WATER]], [[GRASS, WATER, GRASS]], [[GRASS, WATER, GRASS]])):
        walker.see(reading(shown), at, (0, 1))
    assert walker.place == (0, 1)


def test_a_walker_on_ground_without_a_mark_tells_it_by_what_stood_ahead() -> None:
    walker, cow = Walker(), 6
    walker.see(reading([[GRASS]]), 0, (0, 0))
    walker.see(reading([[GRASS]], {(3, 5): cow}), 1, (0, 1))
    assert walker.place == (0, 1)
    walker.see(reading([[GRASS]], {(3, 5): cow}), 2, (0, 1))
    assert walker.place == (0, 1)
    assert walker.home() == [(0, -1)]


def test_a_walker_that_was_mistaken_finds_its_place_by_the_land() -> None:
    land = np.random.default_rng(3).choice([GRASS, WATER], size=(7, 9)).tolist()
    walker = Walker()
    walker.see(reading(land), 0, (0, 0))
    walker.place = (1, -1)
    walker.see(reading(land), 1, (0, 0))
    assert walker.place == (0, 0)


def test_a_walker_finds_the_shortest_way_home_over_free_ground() -> None:
    walker = Walker(place=(0, 3))
    walker.land = {(0, column): GRASS for column in range(4)} | {(1, column): GRASS for column in range(4)}
    walker.land[0, 1] = WATER
    steps = walker.home()
    assert len(steps) == 5
    place = walker.place
    for step in steps:
        place = (place[0] + step[0], place[1] + step[1])
        assert walker.land.get(place) == GRASS or place == (0, 0)
    assert place == (0, 0)
    walker.land[1, 1] = WATER
    assert walker.home() == []


def test_a_walker_goes_round_who_stands_in_its_way_if_there_is_a_way_round() -> None:
    walker = Walker(place=(0, 3), shown=reading([[GRASS]], {(3, 3): 6}))
    walker.land = {(0, column): GRASS for column in range(4)}
    assert walker.home() == [(0, -1)] * 3
    walker.land |= {(1, column): GRASS for column in range(4)}
    assert len(walker.home()) == 5


def beside(row: int, column: int) -> list[list[int]]:
    """Grass with one tile of water in view."""
    land = [[GRASS] * 9 for _ in range(7)]
    land[row][column] = WATER
    return land


@pytest.mark.parametrize(("place", "way"), [((3, 6), "move_right"), ((1, 4), "move_up"), ((3, 1), "move_left")])
def test_the_thirsty_go_to_water_turn_to_it_and_drink_their_fill(place: tuple[int, int], way: str) -> None:
    walker = Walker()
    walker.see(reading(beside(*place), drink=3), 0, (0, 0))
    assert walker.care(0) == way
    step = MOVES[way]
    near = reading(beside(3 + step[0], 4 + step[1]), {(3, 4): LOOKS["down"]}, drink=3)
    walker = Walker()
    walker.see(near, 0, (0, 0))
    assert walker.care(0) == way
    for drink, action in ((3, "do"), (7, "do"), (8, None)):
        looks = LOOKS[way.removeprefix("move_")]
        walker.see(reading(beside(3 + step[0], 4 + step[1]), {(3, 4): looks}, drink=drink), 1, (0, 0))
        assert walker.care(0) == action


def test_the_hungry_go_for_a_cow_and_those_who_are_not_let_it_be() -> None:
    for food, action in ((3, "move_down"), (4, None)):
        walker = Walker()
        walker.see(reading([[GRASS]], {(5, 4): COW}, food=food), 0, (0, 0))
        assert walker.care(0) == action


@pytest.mark.parametrize(
    ("energy", "left", "creature", "sleeps"),
    [(2, 120, COW, 1), (3, 120, COW, 0), (2, 119, COW, 0), (2, 120, ZOMBIE, 0)],
)
def test_the_tired_sleep_where_no_zombie_is_and_there_is_time(
    energy: int, left: int, creature: int, sleeps: int
) -> None:
    walker = Walker()
    walker.see(reading([[GRASS]], {(0, 0): creature}, energy=energy), 0, (0, 0))
    assert (walker.care(left) == "sleep") == bool(sleeps)


def test_a_sleeper_sleeps_on() -> None:
    shown = reading([[GRASS]], {(3, 4): ASLEEP})
    shown.sleeping[:] = True
    assert Walker(shown=shown).care(0) == "sleep"
    assert Walker(shown=shown).faces() is None


def test_a_path_ends_on_its_goal_which_need_not_be_free() -> None:
    walker = Walker()
    walker.see(reading(beside(3, 7)), 0, (0, 0))
    assert walker.path(lambda place: walker.land.get(place) == WATER) == [(0, 1)] * 3
    assert len(walker.path(lambda place: walker.land.get(place) == WATER, {(0, 1)})) == 5
    assert walker.path(lambda place: place == walker.place) == []
    assert walker.path(lambda _: False) == []
