"""The measures of a generated Crafter world: perfect for the engine itself, and moved by each planted fault."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.tiles import (
    CENTRE,
    CLASSES,
    COLUMNS,
    ITEMS,
    MATERIALS,
    ROWS,
    TILE_PX,
    Reading,
    class_of,
    day,
    read_frames,
)
from benchmarks.world_metrics import (
    Count,
    Kind,
    Play,
    Rollout,
    clean_tiles,
    decided,
    effect_of,
    entered,
    near,
    neighbours,
    right_effect,
    right_ground,
    right_inventory,
    right_return,
    right_sprite,
    right_tiles,
    shifted,
    sun,
    total_variation,
)
from worldsim.simulators.crafter import Crafter

Frames = NDArray[np.uint8]
Fault = Callable[[Frames], Frames]
PAST = 4
OWN = 5
GRASS, WATER, COW = class_of("grass"), class_of("water"), class_of("grass", "cow")
LOCAL = (slice(None), slice(0, ROWS * TILE_PX))
PLAYER_TILE = (
    slice(None),
    *(slice(middle * TILE_PX, (middle + 1) * TILE_PX) for middle in CENTRE),
)


class Script:
    """Plays the engine by a list of actions, with its map and the player's hands arranged before each."""

    def __init__(self) -> None:
        self.simulator = Crafter()
        self.frames = [self.simulator.reset(4)]
        self.places = [self._place()]
        self.actions = ["wait"]
        world = self.simulator.env._world
        for found in [found for found in world.objects if found is not self.player]:
            world.remove(found)

    @property
    def player(self) -> Any:
        return self.simulator.env._player

    def put(self, material: str, **inventory: int) -> None:
        """Lay a material before the player and put things into his hands."""
        self.simulator.env._world[self.player.pos + self.player.facing] = material
        self.player.inventory.update(inventory)

    def act(self, action: str) -> int:
        """Take an action; returns the number of its frame."""
        self.frames.append(self.simulator.step(self.simulator.controls.press(action)))
        self.places.append(self._place())
        self.actions.append(action)
        return len(self.frames) - 1

    def play(self) -> Play:
        shown = read_frames(np.stack(self.frames))
        return Play(shown=shown, places=np.array(self.places), actions=tuple(self.actions))

    def _place(self) -> tuple[int, int]:
        return int(self.player.pos[1]), int(self.player.pos[0])


@pytest.fixture(scope="module")
def script() -> tuple[Script, dict[int, Kind | None]]:
    """Every kind of effect, and acts that have none, with what each frame should be found to be."""
    script = Script()
    found: dict[int, Kind | None] = {}
    script.act("move_left")
    for material, action, inventory, kind in (
        ("tree", "do", {"wood": 2}, "collect"),
        ("stone", "do", {"wood_pickaxe": 0, "stone": 1}, None),
        ("stone", "do", {"wood_pickaxe": 1}, "collect"),
        ("diamond", "do", {"iron_pickaxe": 1}, "collect"),
        ("water", "do", {"drink": 5}, "drink"),
        ("water", "do", {"drink": 9}, None),
        ("water", "move_left", {}, "blocked"),
        ("table", "make_wood_sword", {"wood": 3}, "make"),
        ("table", "make_stone_sword", {"wood": 0}, None),
        ("grass", "place_stone", {"stone": 3}, "place"),
        ("stone", "move_left", {}, "blocked"),
        ("table", "place_stone", {"stone": 3}, None),
        ("sand", "place_table", {"wood": 5}, "place"),
        ("sand", "wait", {}, None),
    ):
        script.put(material, **inventory)
        script.act("wait")  # the frame before the act shows what was arranged
        found[script.act(action)] = kind
    script.put("grass")
    for action in ("move_left", "move_left", "move_up", "move_up", "move_right", "move_down", "move_down"):
        script.put("grass")
        found[script.act(action)] = None
    return script, found


@pytest.fixture(scope="module")
def play(script: tuple[Script, dict[int, Kind | None]]) -> Play:
    return script[0].play()


@pytest.fixture(scope="module")
def walk(script: tuple[Script, dict[int, Kind | None]], play: Play) -> tuple[Frames, Rollout]:
    """The last frames of the script, where the player walks: the frames, and real against real."""
    real = play[-PAST - OWN :]
    return np.stack(script[0].frames[-PAST - OWN :]), Rollout(real=real, made=real.shown, past=PAST)


def broken(walk: tuple[Frames, Rollout], fault: Fault) -> Rollout:
    """The walk with a fault in all of its generated frames."""
    frames, rollout = walk
    return replace(rollout, made=rollout.real.shown[:PAST].then(read_frames(fault(frames[PAST:].copy()))))


def roll(play: Play, at: int, made: Reading | None = None) -> Rollout:
    """The rollout that begins at frame `at`, real against real or against another reading of the same frames."""
    real = play[at - 1 : at + 1]
    return Rollout(real=real, made=real.shown if made is None else made[at - 1 : at + 1], past=1)


def shift_by_a_tile(frames: Frames) -> Frames:
    frames[LOCAL] = np.roll(frames[LOCAL], TILE_PX, axis=2)
    return frames


def mirror_the_player(frames: Frames) -> Frames:
    frames[PLAYER_TILE] = frames[PLAYER_TILE][:, :, ::-1]
    return frames


def blur(frames: Frames) -> Frames:
    around = [np.roll(frames, (down, across), (1, 2)) for down in (-1, 0, 1) for across in (-1, 0, 1)]
    return np.mean(around, axis=0).astype(np.uint8)


def swap_food_and_drink(frames: Frames) -> Frames:
    cells = frames[:, ROWS * TILE_PX : (ROWS + 1) * TILE_PX, TILE_PX : 3 * TILE_PX]
    cells[:] = np.roll(cells, TILE_PX, axis=2)
    return frames


def freeze(frames: Frames) -> Frames:
    frames[:] = frames[:1]
    return frames


MEASURES = (right_tiles, right_ground, right_return, right_sprite, right_inventory)


@pytest.mark.parametrize("measure", MEASURES)
def test_the_engine_against_itself_is_perfect(
    walk: tuple[Frames, Rollout], measure: Callable[[Rollout, int], Count]
) -> None:
    counts = [measure(walk[1], at) for at in range(PAST, PAST + OWN)]
    assert sum(judged for _, judged in counts) > 0
    assert all(right == judged for right, judged in counts)


@pytest.mark.parametrize(
    ("fault", "measure", "at_most"),
    [
        (shift_by_a_tile, right_tiles, 0.9),
        (shift_by_a_tile, right_ground, 0.9),
        (freeze, right_ground, 0.9),
        (swap_food_and_drink, right_inventory, 0.9),
        (blur, right_inventory, 0.9),
    ],
)
def test_a_fault_is_seen(
    walk: tuple[Frames, Rollout], fault: Fault, measure: Callable[[Rollout, int], Count], at_most: float
) -> None:
    right, judged = measure(broken(walk, fault), PAST + OWN - 1)
    assert right <= at_most * judged


def test_a_mirrored_facing_is_seen_and_nothing_else(walk: tuple[Frames, Rollout]) -> None:
    at = walk[1].real.actions.index("move_right", PAST)
    fault = broken(walk, mirror_the_player)
    assert right_sprite(fault, at) == Count(0, 1)
    assert right_sprite(walk[1], at) == Count(1, 1)
    for measure in (right_tiles, right_ground, right_inventory):
        right, judged = measure(fault, at)
        assert right == judged


def test_a_blurred_frame_has_no_clean_tiles(walk: tuple[Frames, Rollout]) -> None:
    frames, rollout = walk
    assert clean_tiles(rollout.real.shown) == Count(len(frames) * ROWS * COLUMNS, len(frames) * ROWS * COLUMNS)
    right, judged = clean_tiles(read_frames(blur(frames)))
    assert right < 0.1 * judged


def test_what_came_back_into_view_is_judged_from_memory(walk: tuple[Frames, Rollout]) -> None:
    rollout = walk[1]
    forgotten = rollout.real.shown.tiles.copy()
    gone = np.array([entered(rollout, at) for at in range(1, PAST + OWN)])
    forgotten[1:][gone] = WATER
    fault = replace(rollout, made=replace(rollout.real.shown, tiles=forgotten))
    counts = [right_return(fault, at) for at in range(PAST, PAST + OWN)]
    assert sum(judged for _, judged in counts) >= ROWS
    assert sum(right for right, _ in counts) < sum(judged for _, judged in counts)


def test_each_act_is_known_by_its_effect(play: Play, script: tuple[Script, dict[int, Kind | None]]) -> None:
    assert {at: effect_of(play, at) for at in script[1]} == script[1]


def test_a_block_of_two_frames_has_an_effect_only_under_one_action(play: Play) -> None:
    at = play.actions.index("do")
    assert effect_of(play, at) == "collect"
    assert effect_of(play, at, frames=2) is None  # the second frame waits


def test_the_engines_own_effects_are_right(play: Play, script: tuple[Script, dict[int, Kind | None]]) -> None:
    for at, kind in script[1].items():
        if kind:
            assert right_effect(roll(play, at), kind) == Count(1, 1)


def test_an_act_without_its_effect_is_wrong(play: Play, script: tuple[Script, dict[int, Kind | None]]) -> None:
    frames = np.stack(script[0].frames)
    frames[1:] = frames[:-1]  # every frame shows what was before its act
    late = read_frames(frames)
    for at, kind in script[1].items():
        if kind in ("collect", "drink", "place", "make"):
            assert right_effect(roll(play, at, late), kind) == Count(0, 1)


def test_a_blocked_move_that_goes_through_is_wrong(play: Play, script: tuple[Script, dict[int, Kind | None]]) -> None:
    at = next(at for at, kind in script[1].items() if kind == "blocked")
    tiles = play.shown.tiles.copy()
    tiles[at] = shifted(tiles[at], np.array((0, -1)), fill=GRASS)
    tiles[(at, *CENTRE)] = play.shown.tiles[(at, *CENTRE)]
    assert right_effect(roll(play, at, replace(play.shown, tiles=tiles)), "blocked") == Count(0, 1)


def test_an_effect_needs_both_the_tile_and_the_numbers(
    play: Play, script: tuple[Script, dict[int, Kind | None]]
) -> None:
    at = next(at for at, kind in script[1].items() if kind == "collect")
    tiles, inventory = play.shown.tiles.copy(), play.shown.inventory.copy()
    tiles[at], inventory[at] = tiles[at - 1], inventory[at - 1]
    assert right_effect(roll(play, at, replace(play.shown, tiles=tiles)), "collect") == Count(0, 1)
    assert right_effect(roll(play, at, replace(play.shown, inventory=inventory)), "collect") == Count(0, 1)


def test_a_blocked_player_who_faces_another_way_is_wrong(
    play: Play, script: tuple[Script, dict[int, Kind | None]]
) -> None:
    at = next(at for at, kind in script[1].items() if kind == "blocked")
    tiles = play.shown.tiles.copy()
    tiles[(at, *CENTRE)] = class_of("grass", "player-right")
    assert right_effect(roll(play, at, replace(play.shown, tiles=tiles)), "blocked") == Count(0, 1)


def test_what_stayed_in_view_is_no_memory() -> None:
    assert right_return(standing(meadow(3)), 2).judged == 0


def still(tiles: NDArray[np.int16], *, sleeping: tuple[bool, ...] = ()) -> Reading:
    """A reading of tiles [N, 7, 9] by day."""
    return Reading(
        tiles=tiles,
        distance=np.zeros(tiles.shape, np.float32),
        visible=np.ones(tiles.shape, np.bool_),
        daylight=np.ones(len(tiles), np.float32),
        sleeping=np.array(sleeping or len(tiles) * (False,)),
        inventory=np.zeros((len(tiles), len(ITEMS)), np.int8),
    )


def meadow(frames: int) -> NDArray[np.int16]:
    tiles = np.full((frames, ROWS, COLUMNS), GRASS, np.int16)
    tiles[(slice(None), *CENTRE)] = class_of("grass", "player-down")
    return tiles


def standing(tiles: NDArray[np.int16], made: NDArray[np.int16] | None = None, *, action: str = "wait") -> Rollout:
    """A rollout of one given frame in which the player stays where he is."""
    actions = ("wait", *(len(tiles) - 1) * (action,))
    real = Play(shown=still(tiles), places=np.zeros((len(tiles), 2), np.int64), actions=actions)
    return Rollout(real=real, made=still(tiles if made is None else made), past=1)


def test_tiles_that_a_creature_may_walk_onto_are_not_judged() -> None:
    tiles = meadow(3)
    tiles[:, 1, 1] = COW
    everything = ROWS * COLUMNS - 1
    assert right_tiles(standing(tiles), 1) == Count(everything - 5, everything - 5)
    assert right_tiles(standing(tiles), 2).judged == everything - 5 - 6  # what two steps reach inside of the view
    assert right_ground(standing(tiles), 2).judged == everything


def test_a_creature_out_of_nowhere_is_wrong_on_untouched_ground_but_its_ground_is_right() -> None:
    tiles, made = meadow(2), meadow(2)
    made[1, 6, 8] = COW
    right, judged = right_tiles(standing(tiles, made), 1)
    assert judged - right == 1
    right, judged = right_ground(standing(tiles, made), 1)
    assert right == judged


def test_what_the_player_changed_is_not_untouched() -> None:
    tiles = meadow(2)
    tiles[0, 4, 4] = class_of("tree")
    assert right_tiles(standing(tiles), 1).judged == ROWS * COLUMNS - 2
    assert right_ground(standing(tiles), 1).judged == ROWS * COLUMNS - 2


def test_hidden_tiles_are_not_judged() -> None:
    rollout = standing(meadow(2))
    rollout.real.shown.visible[1, :, :3] = False
    assert right_tiles(rollout, 1).judged == ROWS * COLUMNS - 1 - 3 * ROWS
    assert clean_tiles(rollout.real.shown[1:]).judged == ROWS * (COLUMNS - 3)


@pytest.mark.parametrize("whose", ["real", "made"])
def test_a_move_to_where_a_creature_may_stand_is_chance_unless_it_is_the_first(whose: str) -> None:
    tiles, other = meadow(4), meadow(4)
    (tiles if whose == "real" else other)[2, 3, 2] = COW  # beside where a move to the left leads
    assert decided(standing(tiles, other, action="move_left")).tolist() == [True, True, True, False]
    assert decided(standing(tiles, other, action="move_right")).all()
    assert decided(standing(tiles, other, action="do")).all()
    tiles[0, 3, 3] = other[0, 3, 3] = COW  # before the first generated frame, which is no chance
    assert decided(standing(tiles, other, action="move_left"))[1]


def test_a_move_onto_ground_that_no_given_frame_shows_is_chance_where_the_worlds_have_drawn_different_ground() -> None:
    tiles, other = meadow(4), meadow(4)
    other[1, 3, 5] = WATER  # where a move to the right leads
    rollout = standing(tiles, other, action="move_right")
    assert decided(rollout).all(), "it was in view in the given frame"
    far = rollout.real.places.copy()
    far[1:] = (0, COLUMNS // 2)
    gone = replace(rollout, real=replace(rollout.real, places=far))
    assert decided(gone).tolist() == [True, True, False, False]
    same = standing(tiles, tiles, action="move_right")
    assert decided(replace(same, real=replace(same.real, places=far))).all()


def test_waking_up_is_chance() -> None:
    rollout = standing(meadow(4))
    asleep = replace(rollout.real, shown=still(meadow(4), sleeping=(True, True, False, False)))
    assert decided(replace(rollout, real=asleep)).tolist() == [True, True, False, False]


def test_a_view_shifts_against_the_players_move() -> None:
    grid = np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS)
    moved = shifted(grid, np.array((2, -1)), fill=-1)
    assert moved[0, 1] == grid[2, 0]
    assert (moved[-2:] == -1).all()
    assert (moved[:, 0] == -1).all()
    back = shifted(moved, np.array((-2, 1)), fill=-1)
    np.testing.assert_array_equal(back[2:, :-1], grid[2:, :-1])
    assert (shifted(grid, np.array((0, 9)), fill=-1) == -1).all()


def test_near_counts_steps_not_diagonals() -> None:
    one = np.zeros((ROWS, COLUMNS), np.bool_)
    one[3, 4] = True
    assert [near(one, steps).sum() for steps in (0, 1, 2)] == [1, 5, 13]


def test_what_comes_into_view_lies_ahead(walk: tuple[Frames, Rollout]) -> None:
    rollout = walk[1]
    at = rollout.real.actions.index("move_right")
    new = entered(rollout, at)
    assert new[:, -1].all()
    assert new.sum() == ROWS
    assert not entered(standing(meadow(2)), 1).any()


def test_neighbours_are_counted_once_where_one_is_new() -> None:
    materials = np.full((ROWS, COLUMNS), MATERIALS.index("grass"))
    materials[:, -1] = MATERIALS.index("sand")
    new = np.zeros((ROWS, COLUMNS), np.bool_)
    new[:, -1] = True
    counts = neighbours(materials, new, np.ones_like(new))
    grass, sand = MATERIALS.index("grass"), MATERIALS.index("sand")
    assert counts[grass, sand] == ROWS
    assert counts[sand, sand] == ROWS - 1
    assert counts.sum() == 2 * ROWS - 1
    assert neighbours(materials, new, ~new).sum() == 0
    np.testing.assert_array_equal(neighbours(materials[:, ::-1], new[:, ::-1], np.ones_like(new)), counts)


def test_total_variation_is_zero_for_equal_laws_and_one_for_disjoint_ones() -> None:
    one, other = np.array([[2, 6], [0, 0]]), np.array([[0, 0], [5, 0]])
    assert total_variation(one, 3 * one) == 0.0
    assert total_variation(one, other) == 1.0
    assert total_variation(one, np.array([[4, 4], [0, 0]])) == pytest.approx(0.25)
    assert np.isnan(total_variation(one, 0 * one))


def test_the_sun_follows_the_engines_or_does_not() -> None:
    days = np.tile(day(), 3)[40:520].tolist()
    assert sun(days, days, most_lag=75) == (pytest.approx(1.0), 0)
    late = np.tile(day(), 3)[20:500].tolist()
    assert sun(days, late, most_lag=75) == (pytest.approx(1.0), 20)
    assert sun(days, len(days) * [0.8], most_lag=75)[0] == 0.0
    faster = day()[(40 + 2 * np.arange(480)) % 300].tolist()
    assert sun(days, faster, most_lag=75)[0] < 0.8


def test_every_class_that_can_be_met_has_a_name() -> None:
    assert len(set(CLASSES)) == len(CLASSES)
