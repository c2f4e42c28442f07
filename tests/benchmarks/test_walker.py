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
COW = SPRITES.index("cow")
LOOKS = {"player-left": (0, -1), "player-right": (0, 1), "player-up": (-1, 0), "player-down": (1, 0)}


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


def test_a_walker_tells_who_stands_where_what_it_looks_at_and_what_it_has() -> None:
    walker = Walker()
    assert (walker.crowd(), walker.faces(), walker.has("wood")) == ({}, None, 0)
    for way, step in LOOKS.items():
        walker.see(reading([[GRASS]], {(3, 4): SPRITES.index(way), (1, 6): COW}, wood=5, coal=-1), 0, (0, 0))
        assert walker.faces() == step
        assert walker.crowd() == {(-2, 2): "cow"}
        assert (walker.has("wood"), walker.has("coal"), walker.has("iron")) == (5, 0, 9)
    walker.see(reading([[GRASS]], {(3, 4): SPRITES.index("player-sleep")}), 1, (0, 0))
    assert walker.faces() is None


def test_a_path_ends_on_its_goal_which_need_not_be_free() -> None:
    walker = Walker()
    walker.see(reading(beside(3, 7)), 0, (0, 0))
    assert walker.path(lambda place: walker.land.get(place) == WATER) == [(0, 1)] * 3
    assert len(walker.path(lambda place: walker.land.get(place) == WATER, {(0, 1)})) == 5
    assert walker.path(lambda place: place == walker.place) == []
    assert walker.path(lambda _: False) == []


def test_a_walker_goes_back_by_night_where_it_has_stood_though_no_land_can_be_told() -> None:
    walker = Walker()
    for at, step in enumerate([(0, 0), (0, 1), (0, 1), (1, 0)]):
        shown = reading([[GRASS]])
        shown.visible = np.zeros((1, 7, 9), bool)
        walker.see(shown, at, step)
    assert walker.land == {}
    assert walker.place == (1, 2)
    assert walker.home() == [(-1, 0), (0, -1), (0, -1)]
    walker.land[0, 1] = WATER
    assert walker.home() == []


def test_a_walker_that_is_too_far_away_turns_back() -> None:
    walker = Walker(place=(0, 14))
    walker.land = {(0, column): GRASS for column in range(30)}
    assert {walker.away(np.random.default_rng(seed)) for seed in range(9)} == {(0, -1)}
    walker.place = (0, 13)
    assert {walker.away(np.random.default_rng(seed)) for seed in range(9)} == {(0, 1)}
