"""An episode begins where it was asked to, and an action is a number that stands for keys."""

from __future__ import annotations

import numpy as np
import pytest

from worldsim.envs.episode import (
    action_keys,
    action_names,
    action_space,
    begin,
    check_render_mode,
    frame_space,
    loaded,
    world_metadata,
)
from worldsim.errors import ConfigError, ShapeError, UnknownName
from worldsim.runtime.world import World
from worldsim.simulators.crafter import Crafter
from worldsim.testing.fakes import CONTROLS, DotSimulator, tiny_world

FRAMES = np.zeros((1, 6, 10, 3), np.uint8)


@pytest.fixture
def world() -> World:
    return tiny_world()


@pytest.mark.parametrize(("options", "place"), [(None, 2), ({}, 2), ({"start": 1}, 1)])
def test_an_episode_shows_the_last_frame_of_the_place_it_begins_at(world, options, place):
    episode = begin(world, seed=5, options=options)
    frames, _ = world.origin.starts.get(place)
    assert np.array_equal(episode.frame, frames[-1].numpy())
    assert (episode.seed, episode.session.block) == (5, 0)


def test_an_episode_begins_from_frames_with_their_keys_and_hour(world):
    simulator = DotSimulator()
    frames = np.stack([simulator.reset(9), simulator.step(frozenset({"KeyA"}))])
    given = {"frames": frames, "keys": [(), ("KeyA",)], "hour": 1}
    episode = begin(world, seed=5, options=given)
    assert np.array_equal(episode.frame, frames[1])
    chunk = episode.session.step()
    assert np.array_equal(chunk.frames, world.open(seed=5, **given).step().frames)
    assert not np.array_equal(chunk.frames, world.open(seed=5, frames=frames, hour=1).step().frames)


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        (
            {"strat": 1},
            UnknownName,
            r"option 'strat' of reset; known: frames, hour, keys, start; did you mean 'start'",
        ),
        ({"seed": 1}, UnknownName, "no option 'seed' of reset"),
        ({"start": 3}, ConfigError, "choose from 0 to 2"),
        ({"hour": 3}, ConfigError, "keys and hour are of given frames"),
        ({"frames": np.zeros((1, 3, 3, 3), np.uint8)}, ShapeError, "expected frames uint8"),
        ([1], ConfigError, r'the options of a reset are like \{"start": 2\}, got \[1\]'),
        ("abc", ConfigError, "the options of a reset are like .*, got 'abc'"),
        ({"frames": FRAMES, "hour": "x"}, ConfigError, "an hour is a frame of the day, a whole number, got 'x'"),
        ({"frames": FRAMES, "hour": 1.5}, ConfigError, "an hour is a frame of the day, a whole number, got 1.5"),
        ({"frames": FRAMES, "keys": 5}, ConfigError, "a set of names for each frame, got 5"),
        ({"frames": FRAMES, "keys": [5]}, ConfigError, r"a set of names for each frame, got \[5\]"),
    ],
)
def test_an_option_that_cannot_be_met_opens_nothing(world, options, error, told):
    with pytest.raises(error, match=told):
        begin(world, seed=5, options=options)
    assert world.pool.used == 0


def test_the_first_action_waits_and_the_others_are_the_worlds_own_in_their_order():
    assert action_names(CONTROLS) == ("wait", "left", "right", "jump")
    assert [set(action_keys(CONTROLS, number)) for number in range(4)] == [set(), {"KeyA"}, {"KeyD"}, {"Space"}]
    assert action_keys(CONTROLS, np.int64(3)) == {"Space"}
    names = action_names(Crafter.controls)
    assert (len(names), names[0], names[-1]) == (17, "wait", "move_down")
    for number, name in list(enumerate(names))[1:]:
        assert [held.name for held in Crafter.controls.held(action_keys(Crafter.controls, number))] == [name]


@pytest.mark.parametrize("action", [-1, 4, 1.0, "left", None, np.array([1])])
def test_any_other_action_is_told_which_there_are(action):
    with pytest.raises(ConfigError, match=r"there is no action .*0 wait, 1 left, 2 right, 3 jump"):
        action_keys(CONTROLS, action)


def test_the_spaces_are_those_of_the_world(world):
    assert action_space(world.controls).n == 4
    space = frame_space(world)
    assert (space.shape, space.dtype) == ((6, 10, 3), np.uint8)
    assert np.array([[[0, 255, 7]] * 10] * 6, np.uint8) in space


@pytest.mark.parametrize(("frames", "fps"), [(1, 4), (2, 2), (4, 1)])
def test_as_many_frames_are_rendered_in_a_second_as_blocks_are_made_in_it(frames, fps):
    assert world_metadata(tiny_world(frames_per_block=frames)) == {"render_modes": ["rgb_array"], "render_fps": fps}


def test_a_world_that_is_loaded_is_taken_as_it_is(world):
    assert loaded(world, {}) is world
    with pytest.raises(ConfigError, match="loaded already; leave out steps, device"):
        loaded(world, {"steps": 2, "device": "cpu"})
    with pytest.raises(UnknownName, match="no world 'dot'"):
        loaded("dot", {})


def test_a_render_mode_that_there_is_not_is_refused():
    assert (check_render_mode(None), check_render_mode("rgb_array")) == (None, "rgb_array")
    with pytest.raises(UnknownName, match="no render mode 'human'; known: rgb_array"):
        check_render_mode("human")
