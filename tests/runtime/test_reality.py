"""The real engine comes in the chunks of a session."""

from __future__ import annotations

import numpy as np
import pytest

from worldsim.errors import ConfigError, SessionClosed, UnknownName
from worldsim.runtime.reality import Reality
from worldsim.testing.fakes import DotSimulator, tiny_world


@pytest.mark.parametrize("frames", [1, 2, 4])
def test_its_chunks_have_the_shape_block_and_keys_of_a_sessions(frames):
    world = tiny_world(frames_per_block=frames)
    session, real = world.open(seed=7), world.reality(seed=7)
    assert real.first.shape == (*world.size, 3)
    for keys in ({"KeyD"}, set(), {"KeyA", "Space"}):
        made, found = session.step(keys), real.step(keys)
        assert (found.frames.shape, found.frames.dtype) == (made.frames.shape, made.frames.dtype)
        assert (found.block, found.keys) == (made.block, made.keys)


def test_a_chunk_holds_every_frame_of_the_engine_under_the_keys_held():
    real, engine = Reality(DotSimulator(), seed=3, frames_per_block=3), DotSimulator()
    assert np.array_equal(real.first, engine.reset(3))
    for keys in ({"KeyD"}, {"Space"}):
        wanted = np.stack([engine.step(frozenset(keys)) for _ in range(3)])
        assert np.array_equal(real.step(keys).frames, wanted)
    assert isinstance(real.simulator, DotSimulator)


def test_equal_seeds_and_keys_give_equal_frames_and_two_episodes_share_nothing():
    world = tiny_world(frames_per_block=2)
    one, same, other = world.reality(seed=7), world.reality(seed=7), world.reality(seed=8)
    assert np.array_equal(one.first, same.first)
    assert not np.array_equal(one.first, other.first)
    for keys in ({"KeyD"}, {"KeyD", "Space"}, set()):
        other.step({"KeyA"})
        assert np.array_equal(one.step(keys).frames, same.step(keys).frames)


@pytest.mark.parametrize(("length", "whole"), [(4, 2), (5, 2), (1, 0)])
def test_an_episode_that_ends_gives_its_whole_blocks_and_then_an_error(length, whole):
    real = tiny_world(frames_per_block=2, length=length).reality(seed=1)
    for number in range(whole):
        assert not real.over
        assert real.step().block == number
    assert real.over is (length % 2 == 0)
    for _ in range(2):
        with pytest.raises(SessionClosed, match=r"has ended .*; begin another"):
            real.step()
    assert real.over


def test_a_key_that_the_world_does_not_understand_moves_nothing():
    real, same = (tiny_world().reality(seed=1) for _ in range(2))
    with pytest.raises(UnknownName, match="there is no key 'KeyW'"):
        real.step({"KeyD", "KeyW"})
    with pytest.raises(ConfigError, match="got the text"):
        real.step("KeyD")
    found = real.step({"KeyD"})
    assert found.block == 0
    assert np.array_equal(found.frames, same.step({"KeyD"}).frames)


@pytest.mark.parametrize("seed", ["3", None, 1.5, True, -1, 2**64, pytest.param(10**5_000, id="endless")])
def test_a_seed_that_is_none_begins_no_episode(seed):
    with pytest.raises(ConfigError, match=r"a seed is a whole number from 0 to 2\*\*64 - 1, got "):
        tiny_world().reality(seed=seed)


@pytest.mark.parametrize("keys", [None, 3, [["KeyD"]]])
def test_what_are_no_keys_moves_nothing(keys):
    real, same = (tiny_world().reality(seed=1) for _ in range(2))
    with pytest.raises(ConfigError, match=r"keys are a set of names, got|there is no key \['KeyD'\]"):
        real.step(keys)
    assert np.array_equal(real.step({"KeyD"}).frames, same.step({"KeyD"}).frames)
