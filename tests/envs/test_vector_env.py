"""Several episodes are played together as each would be alone, and a step is made in all of them or in none."""

from __future__ import annotations

import copy
import pickle

import gymnasium
import numpy as np
import pytest

from worldsim.cache.policy import Full
from worldsim.envs import VectorWorldEnv, WorldEnv, vector_env
from worldsim.errors import ConfigError, PoolFull, UnknownName
from worldsim.testing.fakes import tiny_world

WALKS = np.random.default_rng(0).integers(4, size=(8, 3))
"""What each of three does at each step."""


@pytest.fixture
def together(monkeypatch) -> list[int]:
    """How many sessions made each block together."""
    sizes: list[int] = []
    real = vector_env.step_together

    def counted(sessions, keys):
        sizes.append(len(sessions))
        return real(sessions, keys)

    monkeypatch.setattr(vector_env, "step_together", counted)
    return sizes


def test_each_plays_what_it_would_play_alone_to_a_level_and_all_are_made_together(together):
    envs = VectorWorldEnv(tiny_world(frames_per_block=2), num_envs=3)
    singles = [WorldEnv(tiny_world(frames_per_block=2)) for _ in range(3)]
    frames, infos = envs.reset(seed=4)
    for number, single in enumerate(singles):
        assert np.array_equal(frames[number], single.reset(seed=4 + number)[0])
    assert infos["seed"].tolist() == [4, 5, 6]
    for block, actions in enumerate(WALKS):
        frames, rewards, terminated, truncated, infos = envs.step(actions)
        assert frames in envs.observation_space
        assert infos["block"].tolist() == [block] * 3
        assert (rewards.tolist(), terminated.any(), truncated.any()) == ([0.0] * 3, False, False)
        for number, single in enumerate(singles):
            alone = single.step(actions[number])[4]["frames"]
            assert np.abs(infos["frames"][number].astype(int) - alone).max() <= 1
            assert np.array_equal(frames[number], infos["frames"][number][-1])
    assert together == [3] * len(WALKS)


def test_one_alone_plays_bit_for_bit_what_an_environment_plays_through_all_its_episodes():
    envs, env = VectorWorldEnv(tiny_world(), max_episode_steps=2), WorldEnv(tiny_world())
    assert np.array_equal(envs.reset(seed=4)[0][0], env.reset(seed=4)[0])
    for number, action in enumerate(WALKS[:, 0]):
        frames, _, _, truncated, infos = envs.step([action])
        if number % 3 == 2:
            frame, info = env.reset()
            assert infos["seed"].tolist() == [info["seed"]]
        else:
            frame, *_ = env.step(action)
        assert np.array_equal(frames[0], frame)
        assert truncated.tolist() == [number % 3 == 1]


def test_truncated_episodes_begin_anew_at_the_next_step_which_pays_nothing():
    envs = VectorWorldEnv(tiny_world(), num_envs=3, max_episode_steps=2, score=lambda frame: frame.mean())
    envs.reset(seed=4)
    for number in range(7):
        frames, rewards, terminated, truncated, infos = envs.step(WALKS[number])
        begins = number % 3 == 2
        assert truncated.tolist() == [number % 3 == 1] * 3
        assert not terminated.any()
        assert rewards.tolist() == [0.0] * 3 if begins else rewards.tolist() == frames.mean((1, 2, 3)).tolist()
        assert ("seed" in infos, "block" in infos) == (begins, not begins)
        if not begins:
            assert infos["block"].tolist() == [number % 3] * 3


def test_seeds_are_one_for_all_or_one_for_each():
    envs = VectorWorldEnv(tiny_world(), num_envs=3)
    assert envs.reset(seed=4)[1]["seed"].tolist() == [4, 5, 6]
    drawn = envs.reset()[1]["seed"].tolist()
    assert len({*drawn, 4, 5, 6}) == 6
    assert envs.reset(seed=[5, None, 2**64 - 1])[1]["seed"].tolist()[::2] == [5, 2**64 - 1]
    assert envs.reset(seed=4)[1]["seed"].tolist() == [4, 5, 6]
    assert envs.reset()[1]["seed"].tolist() == drawn
    assert envs.reset(seed=np.int64(4))[1]["seed"].tolist() == [4, 5, 6]
    assert envs.reset()[1]["seed"].tolist() == drawn
    assert envs.reset(seed=np.array([5, 7, 9]))[1]["seed"].tolist() == [5, 7, 9]
    with pytest.raises(ConfigError, match="3 environments need a seed each, got 2"):
        envs.reset(seed=[1, 2])
    for wrong in (-1, 1.5, "abc", [1, 2, "a"], 2**64 - 1):
        with pytest.raises(ConfigError, match="a seed is a whole number from 0 to"):
            envs.reset(seed=wrong)


def test_all_begin_where_the_options_say():
    envs = VectorWorldEnv(tiny_world(), num_envs=2)
    frames, _ = envs.reset(seed=4, options={"start": 2})
    assert all(np.array_equal(frame, envs.world.origin.starts.get(2)[0][-1].numpy()) for frame in frames)


def test_a_reset_that_fails_leaves_all_episodes_as_they_are():
    envs, calm = (VectorWorldEnv(tiny_world(), num_envs=2) for _ in range(2))
    envs.reset(seed=4)
    calm.reset(seed=4)
    with pytest.raises(UnknownName, match="no option 'strat' of reset"):
        envs.reset(options={"strat": 1})
    with pytest.raises(ConfigError, match="a seed is a whole number") as failed:
        envs.reset(seed=[1, 2**64])
    assert np.array_equal(envs.step([1, 2])[0], calm.step([1, 2])[0])
    assert envs.world.pool.used == calm.world.pool.used, f"what was begun is held beside {failed.value}"


def test_a_step_that_fails_in_one_is_made_in_none_and_says_in_which(together):
    world = tiny_world(policy=Full(), pages=18)
    envs, calm = VectorWorldEnv(world, num_envs=2), VectorWorldEnv(tiny_world(policy=Full(), pages=64), num_envs=2)
    other = world.open(seed=9, start=1)
    world.open(seed=9, start=1).close()
    for each in (envs, calm):
        each.reset(seed=3)
        each.step([1, 2])
    for _ in range(2):
        with pytest.raises(PoolFull, match="1 more pages are wanted") as failed:
            envs.step([3, 0])
        assert failed.value.__notes__ == ["this happened in environment 1 of 2; no block was made in any"]
        assert [episode.session.block for episode in envs._episodes] == [1, 1]
        world.pool.check_integrity([other, *(episode.session for episode in envs._episodes)])
    other.close()
    for actions in ([3, 0], [2, 2]):
        assert np.array_equal(envs.step(actions)[4]["frames"], calm.step(actions)[4]["frames"])


@pytest.mark.parametrize(
    ("actions", "told"),
    [
        ([0], "2 environments need an action each, got 1"),
        (5, "2 environments need an action each, got 5"),
        (None, "2 environments need an action each, got None"),
        (np.array(1), r"2 environments need an action each, got array\(1\)"),
        ([0, 4], "there is no action 4"),
        ([-1, 0], "no action -1"),
    ],
)
def test_actions_that_there_are_not_make_nothing(actions, told):
    envs = VectorWorldEnv(tiny_world(), num_envs=2)
    envs.reset(seed=4)
    with pytest.raises(ConfigError, match=told):
        envs.step(actions)
    assert envs.step([0, 0])[4]["block"].tolist() == [0, 0]


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_several_are_not_copied(copied):
    envs = VectorWorldEnv(tiny_world(), num_envs=2)
    with pytest.raises(ConfigError, match=r"neither copied nor pickled; .* take a WorldEnv, its clone_state\(\)"):
        copied(envs)


@pytest.mark.parametrize("numbers", [{"num_envs": 0}, {"max_episode_steps": 0}])
def test_numbers_that_cannot_be_are_refused(numbers):
    with pytest.raises(ConfigError, match="at least 1"):
        VectorWorldEnv(tiny_world(), **numbers)


def test_nothing_is_stepped_before_it_has_begun_and_closing_gives_all_pages_back():
    envs = VectorWorldEnv(tiny_world(), num_envs=3)
    with pytest.raises(ConfigError, match="no episode has begun"):
        envs.step([0, 0, 0])
    for _ in range(2):
        envs.reset(seed=4)
        before = envs._episodes
        envs.reset(seed=4)
        envs.step([0, 1, 2])
        assert envs.world.pool.used == 18, f"{len(before)} sessions were left and hold nothing"
        envs.close()
        assert envs.world.pool.used == 0
        envs.close()


def test_what_is_rendered_are_the_newest_frames():
    envs = VectorWorldEnv(tiny_world(), num_envs=2, render_mode="rgb_array")
    frames, _ = envs.reset(seed=4)
    assert np.array_equal(np.stack(envs.render()), frames)
    frames, *_ = envs.step([1, 2])
    assert np.array_equal(np.stack(envs.render()), frames)
    blind = VectorWorldEnv(tiny_world(), num_envs=2)
    blind.reset(seed=4)
    assert blind.render() is None


def test_gymnasiums_wrappers_take_it_for_what_it_is():
    envs = VectorWorldEnv(tiny_world(), num_envs=2, max_episode_steps=3, score=lambda _: 1.0)
    counted = gymnasium.wrappers.vector.RecordEpisodeStatistics(envs)
    counted.reset(seed=4)
    told = [counted.step([0, 1])[4] for _ in range(4)]
    assert told[2]["episode"]["r"].tolist() == [3.0, 3.0]
    assert told[2]["episode"]["l"].tolist() == [3, 3]
    assert "episode" not in told[3]
    counted.close()
