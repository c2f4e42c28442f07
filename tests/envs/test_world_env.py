"""An environment plays what a session plays, and comes back to every moment that was cloned, bit for bit."""

from __future__ import annotations

import copy
import gc
import pickle
from dataclasses import replace

import gymnasium
import numpy as np
import pytest

from worldsim.cache.policy import Full
from worldsim.envs import EnvState, WorldEnv
from worldsim.errors import ConfigError, PoolFull, SessionClosed
from worldsim.testing.fakes import tiny_world

WALK = [2, 2, 3, 0, 1, 3, 0]


@pytest.fixture
def env() -> WorldEnv:
    return WorldEnv(tiny_world(frames_per_block=2))


def play(env: WorldEnv, actions: list[int] = WALK) -> bytes:
    """All pixels of a walk."""
    return b"".join(env.step(action)[4]["frames"].tobytes() for action in actions)


@pytest.mark.parametrize("frames", [1, 2, 4])
def test_a_step_is_the_block_that_a_session_makes_under_the_keys_of_the_action(frames):
    world = tiny_world(frames_per_block=frames)
    env, session = WorldEnv(world), world.open(seed=4)
    env.reset(seed=4)
    for block, action in enumerate(WALK):
        frame, reward, terminated, truncated, info = env.step(np.int64(action))
        chunk = session.step(world.controls.press(env.action_names[action]))
        assert np.array_equal(info["frames"], chunk.frames)
        assert info["block"] == block
        assert np.array_equal(frame, chunk.frames[-1])
        assert frame in env.observation_space
        assert (reward, terminated, truncated) == (0.0, False, False)


def test_a_reset_begins_where_it_is_told_to_and_tells_its_seed(env):
    first, info = env.reset(seed=4, options={"start": 2})
    assert info == {"seed": 4}
    assert np.array_equal(first, env.world.origin.starts.get(2)[0][-1].numpy())
    session = env.world.open(seed=4, start=2)
    assert play(env, [1]) == session.step({"KeyA"}).frames.tobytes()


def test_equal_seeds_play_the_same_and_so_do_the_episodes_that_follow(env):
    def episodes(seed: int) -> list[tuple[int, bytes]]:
        return [(env.reset(seed=given)[1]["seed"], play(env)) for given in (seed, None, None)]

    first = episodes(4)
    assert episodes(7) != first
    assert episodes(4) == first
    assert len({seed for seed, _ in first}) == len({frames for _, frames in first}) == 3
    assert env.reset(seed=first[1][0])[1]["seed"] == first[1][0]
    assert play(env) == first[1][1], "the seed that was told is the one to play it again"


def test_a_score_pays_for_the_frame_that_a_step_leads_to():
    env = WorldEnv(tiny_world(frames_per_block=2), score=lambda frame: frame.mean())
    env.reset(seed=4)
    for action in WALK:
        frame, reward, *_ = env.step(action)
        assert reward == frame.mean()
        assert type(reward) is float


def test_what_is_rendered_is_the_newest_frame():
    env = WorldEnv(tiny_world(), render_mode="rgb_array")
    first, _ = env.reset(seed=4)
    assert np.array_equal(env.render(), first)
    frame, *_ = env.step(1)
    assert np.array_equal(env.render(), frame)
    assert not np.array_equal(frame, first)


def test_without_a_render_mode_nothing_is_rendered(env):
    env.reset(seed=4)
    assert env.render() is None


def test_what_is_done_to_what_was_given_changes_nothing():
    def spoil(frame) -> float:
        frame[:] = 0
        return 1.0

    env, clean = WorldEnv(tiny_world(), score=spoil, render_mode="rgb_array"), WorldEnv(tiny_world())
    clean.reset(seed=4)
    env.reset(seed=4)[0][:] = 0
    state, expected = env.clone_state(), play(clean)
    for _ in range(2):
        made = []
        for action in WALK:
            frame, *_, info = env.step(action)
            made.append(info["frames"].tobytes())
            for array in (frame, info["frames"], env.render()):
                assert array.tobytes() == made[-1]
                array[:] = 0
            assert env.render().tobytes() == made[-1]
        assert b"".join(made) == expected
        env.restore_state(state)


def test_nothing_can_be_done_before_an_episode_has_begun(env):
    for use in (lambda: env.step(0), env.clone_state, WorldEnv(env.world, render_mode="rgb_array").render):
        with pytest.raises(ConfigError, match="no episode has begun; call reset"):
            use()


def test_a_reset_or_a_step_that_fails_leaves_the_episode_as_it_is(env):
    env.reset(seed=4)
    first = play(env)
    env.reset(seed=4)
    with pytest.raises(ConfigError, match="choose from 0 to 2"):
        env.reset(options={"start": 3})
    with pytest.raises(ConfigError, match="there is no action 4"):
        env.step(4)
    assert play(env) == first


def test_a_step_that_finds_no_memory_changes_nothing():
    world = tiny_world(policy=Full(), pages=12)
    env, other, calm = WorldEnv(world), world.open(seed=5), WorldEnv(tiny_world(policy=Full()))
    for each in (env, calm):
        each.reset(seed=4)
        play(each, WALK[:2])
    with pytest.raises(PoolFull):
        env.step(WALK[2])
    other.close()
    assert play(env, WALK[2:5]) == play(calm, WALK[2:5])


def test_moments_are_restored_in_any_order_and_as_often_as_wanted(env):
    env.reset(seed=4)
    moments = []
    for action in WALK:
        state = env.clone_state()
        moments.append((state, action, env.step(action)[4]["frames"]))
    for number in (5, 2, 6, 0, 2, 2, 3, 0):
        state, action, frames = moments[number]
        env.restore_state(state)
        assert state.block == number
        frame, *_, info = env.step(action)
        assert (info["block"], info["frames"].tobytes()) == (number, frames.tobytes())
        assert np.array_equal(frame, frames[-1])


def test_a_moment_outlives_its_episode(env):
    env.reset(seed=4)
    env.step(1)
    state = env.clone_state()
    first = play(env)
    for seed in (5, 6):
        env.reset(seed=seed)
        env.step(2)
        other = env.clone_state()
        env.restore_state(state)
        assert play(env) == first
        env.restore_state(other)
        assert env.clone_state().seed == seed
        assert play(env) != first


def test_a_restored_environment_shows_the_frame_of_that_moment():
    env = WorldEnv(tiny_world(), render_mode="rgb_array")
    first, _ = env.reset(seed=4)
    state = env.clone_state()
    env.step(1)
    env.restore_state(state)
    assert np.array_equal(env.render(), first)


def test_random_lives_are_the_same_wherever_they_go_through(env):
    """A walk through resets, clones and restores, beside a table of what every list of actions has shown."""
    rng = np.random.default_rng(3)
    shown: dict[tuple[int, ...], bytes] = {}
    states: list[tuple[tuple[int, ...], EnvState]] = []
    at: tuple[int, ...] = (0,)
    env.reset(seed=0)
    again = 0
    for verb in rng.choice(["step", "clone", "restore", "drop", "reset"], p=[0.5, 0.15, 0.25, 0.05, 0.05], size=300):
        if verb == "step":
            action = int(rng.integers(3))
            at = (*at, action)
            frames = env.step(action)[4]["frames"].tobytes()
            again += at in shown
            assert shown.setdefault(at, frames) == frames
        elif verb == "clone":
            states.append((at, env.clone_state()))
        elif verb == "restore" and states:
            at, state = states[int(rng.integers(len(states)))]
            env.restore_state(state)
        elif verb == "drop" and states:
            states.pop(int(rng.integers(len(states))))
        elif verb == "reset":
            at = (int(rng.integers(2)),)
            env.reset(seed=at[0])
    assert again > 20
    assert len(set(shown.values())) > 50


def test_clones_copy_no_page_and_what_is_dropped_gives_its_pages_back(env):
    env.reset(seed=4)
    pool = env.world.pool
    states = [env.clone_state() for _ in range(9)]
    assert pool.used == 5
    play(env)
    assert pool.used == 5 + 2 * len(WALK)
    env.restore_state(states[4])
    assert pool.used == 5
    before = env._episode
    env.reset(seed=7, options={"start": 0})
    assert pool.used == 10, "what the states hold, and the new episode"
    with pytest.raises(SessionClosed):
        before.session.step()
    del states
    gc.collect()
    assert pool.used == 5
    pool.check_integrity([env._episode.session])


def test_states_leave_a_pool_that_is_full_and_come_back():
    env = WorldEnv(tiny_world(pages=18))
    env.reset(seed=4)
    moments = []
    for number in range(40):
        state = env.clone_state()
        moments.append((state, env.step(number % 4)[0]))
    assert not all(state.mark.pages for state, _ in moments), "40 moments of 5 pages, each sharing 4 with the next"
    for number in (0, 39, 17, 3, 0):
        state, frame = moments[number]
        env.restore_state(state)
        assert np.array_equal(env.step(number % 4)[0], frame)


def test_closing_gives_all_pages_back_those_of_its_states_too(env):
    env.reset(seed=4)
    old = env.clone_state()
    env.reset(seed=5)
    state = env.clone_state()
    play(env)
    env.close()
    assert env.world.pool.used == 0
    for closed in (old, state):
        with pytest.raises(SessionClosed):
            env.restore_state(closed)
    env.close()
    env.reset(seed=4)
    play(env)
    assert env.world.pool.used > 0


def test_a_closed_state_is_refused_and_the_episode_goes_on(env):
    env.reset(seed=4)
    state = env.clone_state()
    first = play(env)
    env.restore_state(state)
    other = env.clone_state()
    other.close()
    other.close()
    with pytest.raises(SessionClosed, match="mark was closed"):
        env.restore_state(other)
    assert play(env) == first
    env.restore_state(state)
    assert play(env) == first


def test_another_environment_of_the_same_world_restores_it_and_goes_its_own_way(env):
    twin = WorldEnv(env.world)
    env.reset(seed=4)
    env.step(1)
    state = env.clone_state()
    first = play(env)
    for _ in range(2):
        twin.restore_state(state)
        assert play(twin) == first
    twin.restore_state(state)
    own = twin.clone_state()
    env.close()
    assert play(twin) == first
    twin.reset(seed=5)
    twin.restore_state(own)
    assert play(twin) == first
    with pytest.raises(SessionClosed):
        twin.restore_state(state)


def test_a_state_of_another_world_is_refused_and_the_episode_goes_on(env):
    env.reset(seed=4)
    state = env.clone_state()
    first = play(env)
    env.restore_state(state)
    with pytest.raises(ConfigError, match="that state is of another world"):
        env.restore_state(replace(state, world=tiny_world()))
    assert play(env) == first


@pytest.mark.parametrize("state", [None, 5])
def test_what_is_no_state_is_not_restored(env, state):
    env.reset(seed=4)
    with pytest.raises(ConfigError, match=f"a state that clone_state returned, got {state}"):
        env.restore_state(state)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_an_environment_is_cloned_and_not_copied(env, copied):
    with pytest.raises(ConfigError, match=r"neither copied nor pickled; keep a moment with clone_state\(\)"):
        copied(env)
    env.reset(seed=4)
    state = env.clone_state()
    for whole in (env, state):
        with pytest.raises(ConfigError, match="copied"):
            copied(whole)
    env.world.pool.check_integrity([env._episode.session, state.line, state.mark])


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "a"])
def test_a_seed_that_is_none_is_refused_and_the_episode_goes_on(env, seed):
    env.reset(seed=4)
    with pytest.raises(ConfigError, match="a seed is a whole number from 0 to"):
        env.reset(seed=seed)
    assert env.step(0)[4]["block"] == 0
    assert env.reset(seed=np.int64(4))[1] == {"seed": 4}


def test_gymnasiums_time_limit_truncates(env):
    limited = gymnasium.wrappers.TimeLimit(env, 3)
    limited.reset(seed=4)
    assert [limited.step(0)[2:4] for _ in range(3)] == [(False, False), (False, False), (False, True)]
