"""The Crafter engine behind held keys: the same in every process, tile by tile, and every key does its action."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from worldsim.errors import ConfigError, MissingDependency, UnknownName
from worldsim.simulators.crafter import CONTROLS, GRID, LOCAL_ROWS, ORES, TILE_PX, Crafter
from worldsim.simulators.crafter_explorer import CrafterExplorer
from worldsim.simulators.protocol import Frame

WAIT: frozenset[str] = frozenset()
FINGERPRINT = """
import runpy, sys
print(runpy.run_path(sys.argv[1])["fingerprint"]())
"""


def fingerprint() -> str:
    """SHA-256 of what an explorer sees and presses, through a night and past the engine's balancing of animals."""
    simulator, digest = Crafter(varied=True), hashlib.sha256()
    digest.update(simulator.reset(0).tobytes())
    explorer = CrafterExplorer(simulator, 0)
    for _ in range(310):
        keys = explorer.choose()
        digest.update(repr(sorted(keys)).encode() + simulator.step(keys).tobytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def begun() -> Crafter:
    """An episode that has begun, for tests that set their own stage."""
    simulator = Crafter()
    simulator.reset(3)
    return simulator


def test_an_episode_is_over_once_it_is_closed_and_another_may_begin() -> None:
    simulator = Crafter()
    first = simulator.reset(3)
    simulator.close()
    simulator.close()
    assert simulator.over
    with pytest.raises(ConfigError, match="no episode has begun"):
        simulator.env  # noqa: B018
    assert (simulator.reset(3) == first).all()
    assert not simulator.over


def stage(simulator: Crafter, ahead: str = "grass", *near: str, **inventory: int) -> Any:
    """Put the player on an empty meadow, facing down, with only that in the inventory; returns the player."""
    world, player = simulator.env._world, simulator.env._player
    for found in list(world.objects):
        if found is not player:
            world.remove(found)
    x, y = player.pos
    for dx in range(-4, 5):
        for dy in range(-4, 5):
            world[x + dx, y + dy] = "grass"
    world[x, y + 1] = ahead
    for dx, material in enumerate(near):
        world[x + dx, y - 1] = material
    player.facing, player.sleeping = (0, 1), False
    player.inventory.update(dict.fromkeys(player.inventory, 0) | {"health": 9, "food": 9, "drink": 9, "energy": 9})
    player.inventory.update(inventory)
    return player


def tile(frame: Frame, row: int, column: int) -> Frame:
    return frame[row * TILE_PX : (row + 1) * TILE_PX, column * TILE_PX : (column + 1) * TILE_PX]


def by_day(simulator: Crafter) -> Frame:
    """The picture of this moment in full light, in which the engine draws its textures as they are."""
    simulator.env._world.daylight = 1.0
    frame: Frame = simulator.env.render()
    return frame


def texture(simulator: Crafter, name: str, side: int = TILE_PX) -> Frame:
    drawn: Frame = simulator.env._textures.get(name, (side, side)).transpose(1, 0, 2)
    return drawn


@pytest.mark.timeout(180)  # seconds are enough, but not while other work has the cores
def test_another_process_with_another_hash_seed_plays_the_same():
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    done = subprocess.run(
        [sys.executable, "-c", FINGERPRINT, __file__],
        capture_output=True,
        text=True,
        timeout=170,
        check=True,
        env=environment,
    )
    assert done.stdout.strip() == fingerprint()


def test_a_frame_is_kept_as_it_is_while_the_world_goes_on(begun):
    frame = begun.step(WAIT)
    kept = frame.copy()
    stage(begun, "water")
    assert not np.array_equal(begun.step(WAIT), kept)
    assert np.array_equal(frame, kept)


def test_the_view_is_seven_rows_of_tiles_that_sit_on_the_grid(begun):
    player = stage(begun, "tree", "water", "stone", "coal")
    frame, (x, y) = by_day(begun), player.pos
    assert GRID == (9, 9)
    for row in range(LOCAL_ROWS):
        for column in range(GRID[1]):
            material = begun.env._world[x + column - 4, y + row - 3][0]
            if (row, column) != (3, 4):
                assert np.array_equal(tile(frame, row, column), texture(begun, material)[..., :3]), (row, column)
    drawn = texture(begun, "player-down")
    alpha = drawn[..., 3:].astype(float) / 255
    blended = alpha * drawn[..., :3] + (1 - alpha) * texture(begun, "grass")[..., :3]
    assert np.abs(tile(frame, 3, 4) - blended).max() < 1


def test_the_inventory_is_two_rows_of_tiles_in_the_engines_order(begun):
    stage(begun, wood=3, sapling=0, iron_sword=1)
    frame = by_day(begun)
    names = list(begun.env._player.inventory)
    assert names[:4] == ["health", "food", "drink", "energy"]
    for index in range(18):
        amount = begun.env._player.inventory[names[index]] if index < len(names) else 0
        assert bool(tile(frame, LOCAL_ROWS + index // 9, index % 9).any()) is (amount > 0), index


@pytest.mark.parametrize(
    ("name", "step", "facing"),
    [
        ("move_left", (-1, 0), "player-left"),
        ("move_right", (1, 0), "player-right"),
        ("move_up", (0, -1), "player-up"),
        ("move_down", (0, 1), "player-down"),
    ],
)
def test_a_move_key_walks_one_tile_turns_the_player_and_scrolls_the_view_by_a_tile(begun, name, step, facing):
    player = stage(begun)
    before, start = by_day(begun), tuple(player.pos)
    begun.step(CONTROLS.press(name))
    after, (dx, dy) = by_day(begun), step
    assert tuple(player.pos) == (start[0] + dx, start[1] + dy)
    assert player.texture == facing
    shown = np.roll(before, (-dy * TILE_PX, -dx * TILE_PX), axis=(0, 1))
    still = [(row, column) for row in (1, 5) for column in range(1, 8)]
    assert all(np.array_equal(tile(after, *place), tile(shown, *place)) for place in still)


@pytest.mark.parametrize("material", ["water", "stone", "tree", "table"])
def test_a_move_into_something_solid_only_turns_the_player(begun, material):
    player = stage(begun, material)
    start = tuple(player.pos)
    begun.step(CONTROLS.press("move_up"))
    begun.step(CONTROLS.press("move_down"))
    begun.step(CONTROLS.press("move_down"))
    assert (tuple(player.pos), player.texture) == (start, "player-down")


COLLECTS = [
    ("tree", "wood", {}),
    ("stone", "stone", {"wood_pickaxe": 1}),
    ("coal", "coal", {"wood_pickaxe": 1}),
    ("iron", "iron", {"stone_pickaxe": 1}),
    ("diamond", "diamond", {"iron_pickaxe": 1}),
    ("water", "drink", {"drink": 4}),
]


@pytest.mark.parametrize("key", ["Space", "Enter"])
@pytest.mark.parametrize(("material", "item", "given"), COLLECTS)
def test_do_takes_what_lies_ahead(begun, key, material, item, given):
    player = stage(begun, material, **given)
    before = player.inventory[item]
    begun.step(frozenset({key}))
    assert player.inventory[item] == before + 1


@pytest.mark.parametrize(
    ("name", "uses"),
    [("stone", {"stone": 1}), ("table", {"wood": 2}), ("furnace", {"stone": 4}), ("plant", {"sapling": 1})],
)
def test_a_place_key_puts_the_thing_ahead_and_uses_up_what_it_is_made_of(begun, name, uses):
    player = stage(begun, "grass", "table", **uses)
    begun.step(CONTROLS.press(f"place_{name}"))
    material, found = begun.env._world[player.pos[0], player.pos[1] + 1]
    assert name in (material, found and found.texture.removesuffix("-ripe"), found and "plant")
    assert not any(player.inventory[item] for item in uses)


@pytest.mark.parametrize("kind", ["pickaxe", "sword"])
@pytest.mark.parametrize("material", ["wood", "stone", "iron"])
def test_a_make_key_makes_the_tool_beside_a_table_and_a_furnace(begun, material, kind):
    uses = {"wood": {"wood": 1}, "stone": {"wood": 1, "stone": 1}, "iron": {"wood": 1, "coal": 1, "iron": 1}}[material]
    player = stage(begun, "grass", "table", "furnace", **uses)
    begun.step(CONTROLS.press(f"make_{material}_{kind}"))
    assert player.inventory[f"{material}_{kind}"] == 1
    assert not any(player.inventory[item] for item in uses)


def test_the_sleep_key_lies_down_and_waiting_does_nothing(begun):
    player = stage(begun, "tree", energy=5)
    before = (dict(player.inventory), tuple(player.pos))
    begun.step(WAIT)
    assert not player.sleeping
    assert (dict(player.inventory), tuple(player.pos)) == before
    begun.step(CONTROLS.press("sleep"))
    assert player.sleeping


@pytest.mark.parametrize(
    ("ahead", "given", "name", "event"),
    [
        ("tree", {}, "do", "do tree wood+"),
        ("iron", {"wood_pickaxe": 1}, "do", "do iron"),
        ("grass", {"stone": 2}, "place_stone", "place_stone grass stone-"),
        ("water", {}, "move_down", "move_down"),
        ("sand", {}, "move_down", "move_down moved"),
        ("water", {"drink": 4}, "do", "do water"),
    ],
)
def test_an_event_tells_the_action_what_it_was_done_to_and_what_that_changed(begun, ahead, given, name, event):
    stage(begun, ahead, **given)
    begun.step(CONTROLS.press(name))
    assert begun.event == event


def test_what_a_sleeper_presses_is_no_event(begun):
    stage(begun, "tree", energy=5)
    begun.step(CONTROLS.press("sleep"))
    assert begun.event == "sleep"
    begun.step(CONTROLS.press("do"))
    assert begun.event == "asleep"
    begun.reset(3)
    assert begun.event == ""


def test_many_varied_episodes_begin_beside_an_ore():
    def beside(seed):
        world = Crafter(varied=True)
        world.reset(seed)
        around = world.env._player.pos + np.array([(0, 1), (1, 0), (0, -1), (-1, 0)])
        return any(world.env._world[place][0] in ORES for place in around)

    assert sum(beside(seed) for seed in range(12)) >= 2


def test_every_action_of_the_engine_has_a_key_and_of_several_held_the_first_wins(begun):
    assert {action.name for action in CONTROLS.actions} == set(begun.env.action_names) - {"noop"}
    player = stage(begun, "tree")
    start = tuple(player.pos)
    begun.step(frozenset({"KeyA", "Space"}))
    assert (player.inventory["wood"], tuple(player.pos)) == (1, start)


def test_an_episode_begins_in_the_morning_with_empty_hands_and_is_over_when_the_player_dies_or_time_is_up():
    simulator = Crafter()
    assert simulator.over
    frame = simulator.reset(1)
    assert (frame.dtype, frame.shape) == (np.uint8, (72, 72, 3))
    assert frame.flags["C_CONTIGUOUS"]
    assert (simulator.over, simulator.env._step) == (False, 0)
    assert tuple(simulator.env._player.inventory.values()) == (9, 9, 9, 9, *[0] * 12)
    simulator.env._step = 9_998
    for over in (False, True):
        simulator.step(WAIT)
        assert simulator.over is over
    simulator.env._step = 0
    simulator.step(WAIT)
    assert not simulator.over
    simulator.env._player.health = 0
    simulator.step(WAIT)
    assert simulator.over


def test_varied_episodes_begin_at_different_hours_with_different_things_that_their_first_frame_shows():
    hours, hands = set(), set()
    for seed in range(3):
        simulator = Crafter(varied=True)
        frame = simulator.reset(seed)
        inventory = list(simulator.env._player.inventory.values())
        hours.add(simulator.env._step)
        hands.add(tuple(inventory))
        assert min(inventory[:4]) >= 3
        assert [bool(tile(frame, LOCAL_ROWS + at // 9, at % 9).any()) for at in range(16)] == [
            had > 0 for had in inventory
        ]
        lit = np.abs(by_day(simulator)[:56].astype(float) - frame[:56]).mean()
        simulator.env._update_time()
        assert np.abs(simulator.env.render()[:56].astype(float) - frame[:56]).mean() < lit / 2
    assert len(hours) == 3
    assert len(hands) >= 2


def test_varied_episodes_mostly_begin_elsewhere_than_in_the_middle():
    places = []
    for seed in range(12):
        simulator = Crafter(varied=True)
        simulator.reset(seed)
        player = simulator.env._player
        places.append(tuple(int(at) for at in player.pos))
        assert simulator.env._world[player.pos][0] in ("grass", "sand", "path")
    assert len(set(places)) >= 8


def test_a_calm_night_is_the_same_world_with_the_static_at_its_mean():
    """Twenty frames of one night: what happens is the same, and over them static and fog agree by their mean."""
    stormy, calm = Crafter(varied=True), Crafter(varied=True, calm=True)
    shown = []
    for simulator in (stormy, calm):
        simulator.reset(4)
        simulator.env._step = 200
        shown.append(np.stack([simulator.step(WAIT) for _ in range(20)]).astype(float))
    assert simulator.env._world.daylight < 0.1
    assert stormy.env._player.inventory == calm.env._player.inventory
    assert [tuple(found.pos) for found in stormy.env._world.objects] == [
        tuple(found.pos) for found in calm.env._world.objects
    ]
    corner = (slice(None), slice(0, 8), slice(0, 8))
    assert shown[0][corner].std(0).mean() > 5 * shown[1][corner].std(0).mean()
    # The static is uniform over 95 grey levels, at most half of which reach the picture: its mean over 64 pixels and
    # 20 frames has a standard error of 0.4; cutting to whole numbers takes up to 1 more.
    assert abs(shown[0][corner].mean() - shown[1][corner].mean()) < 5 * 0.4 + 1


def test_days_are_the_same_whether_calm_or_not():
    plain, calm = Crafter(), Crafter(calm=True)
    assert np.array_equal(plain.reset(9), calm.reset(9))
    for at in range(60):
        keys = frozenset({("KeyA", "KeyS", "Space")[at % 3]})
        assert np.array_equal(plain.step(keys), calm.step(keys))


def test_a_death_is_lived_through_for_as_many_frames_as_are_granted_and_nothing_else_changes():
    granted, mortal = Crafter(varied=True, grace=5), Crafter(varied=True)
    for simulator in (granted, mortal):
        simulator.reset(8)
        simulator.env._player.inventory["health"] = 0
    assert np.array_equal(granted.step({"KeyW"}), mortal.step({"KeyW"}))
    assert mortal.over
    assert not granted.over
    granted.env._player.inventory["health"] = 2  # he who has eaten gets well again, and may die again
    granted.step({"KeyW"})
    granted.env._player.inventory["health"] = 0
    lived = 1
    while not granted.over:
        granted.step({"KeyD"})
        lived += 1
    assert lived == 6
    granted.reset(8)
    granted.env._player.inventory["health"] = 0
    granted.step(())
    assert not granted.over, "every episode has its own grace"


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_of_those_who_live_through_death_begin_without_health_and_nothing_else_is_another(share, monkeypatch):
    monkeypatch.setattr("worldsim.simulators.crafter.FAINT", share)
    monkeypatch.setattr("worldsim.simulators.crafter.CROWDED", 0.0)
    granted, mortal = Crafter(varied=True, grace=5), Crafter(varied=True)
    one, other = (simulator.reset(12) for simulator in (granted, mortal))
    assert np.array_equal(one[:56], other[:56])
    inventories = [dict(simulator.env._player.inventory) for simulator in (granted, mortal)]
    assert inventories[1]["health"] > 0
    assert inventories[0] == inventories[1] | ({"health": 0, "drink": 0} if share else {})
    assert not granted.over


def zombies(simulator):
    """How far each is from the player, in columns and rows."""
    engine = simulator.env
    found = [thing.pos - engine._player.pos for thing in engine._world.objects if type(thing).__name__ == "Zombie"]
    return np.abs(np.array(found).reshape(-1, 2))


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("seed", [12, 13, 14])
def test_a_share_of_those_who_live_through_death_begin_among_zombies(seed, share, monkeypatch):
    monkeypatch.setattr("worldsim.simulators.crafter.FAINT", 0.0)
    monkeypatch.setattr("worldsim.simulators.crafter.CROWDED", share)
    crowded, calm = Crafter(varied=True, grace=500), Crafter(varied=True)
    for simulator in (crowded, calm):
        simulator.reset(seed)
    more = len(zombies(crowded)) - len(zombies(calm))
    assert 2 <= more < 9 if share else more == 0
    assert (zombies(crowded) <= (4, 3)).all(1).sum() >= more
    assert np.array_equal(crowded.env._player.pos, calm.env._player.pos)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_who_begins_among_zombies_plays_until_most_have_left(share, monkeypatch):
    monkeypatch.setattr("worldsim.simulators.crafter.CROWDED", share)
    simulator = Crafter(varied=True, grace=10_000)
    simulator.reset(15)
    frames = 0
    while not simulator.over and frames < 130:
        simulator.step(WAIT)
        frames += 1
    assert frames == (100 if share else 130)


def test_by_day_the_engine_takes_a_crowd_away():
    came, left = 0, 0
    for seed in range(20, 24):
        simulator = Crafter(varied=True, grace=500)
        simulator.reset(seed)
        simulator.env._step = 10
        before = len(zombies(simulator))
        simulator._crowd(np.random.default_rng(seed))
        came += len(zombies(simulator)) - before
        for _ in range(100):
            simulator.step(WAIT)
        left += (zombies(simulator) <= (4, 3)).all(1).sum()
    assert came >= 8
    assert left < came * 0.7


def test_time_is_up_whatever_is_granted():
    simulator = Crafter(grace=1000)
    simulator.reset(8)
    simulator.env._step = simulator.env._length - 1
    simulator.step(())
    assert simulator.over


def test_an_episode_that_has_not_begun_a_seed_below_zero_and_an_unknown_key_are_refused(begun):
    with pytest.raises(ConfigError, match=r"no episode has begun; call reset"):
        Crafter().step(WAIT)
    with pytest.raises(ConfigError, match="a seed is a whole number from 0, got -1"):
        Crafter().reset(-1)
    with pytest.raises(UnknownName, match="no key 'KeyQ'"):
        begun.step(frozenset({"KeyQ"}))


def test_without_crafter_the_world_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "crafter", None)
    with pytest.raises(MissingDependency, match=r"pip install .* --editable '\.\[worlds\]'"):
        Crafter().reset(0)


def test_the_hour_goes_on_with_every_frame_whatever_is_pressed_and_begins_anew_after_a_day():
    simulator = Crafter()
    simulator.reset(3)
    hours = [simulator.hour]
    for at in range(3):
        simulator.step(CONTROLS.press("sleep" if at else "move_left"))
        hours.append(simulator.hour)
    simulator.env._step = 299
    simulator.step(WAIT)
    assert [*hours, simulator.hour] == [0, 1, 2, 3, 0]


def test_a_varied_episode_begins_at_the_hour_it_tells_and_one_of_eight_does_not_tell():
    told = []
    for seed in range(20, 44):
        simulator = Crafter(varied=True)
        simulator.reset(seed)
        if simulator.hour is not None:
            told.append(simulator.hour)
            assert simulator.hour == simulator.env._step
    assert len(told) == 20
    assert len(set(told)) > 12
