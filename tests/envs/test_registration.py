"""Gymnasium makes the worlds by their names, and says what is missing."""

from __future__ import annotations

import importlib
import sys

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from worldsim import presets
from worldsim.cache.policy import Window
from worldsim.envs import VectorWorldEnv, WorldEnv, register_worlds
from worldsim.envs.registration import env_id
from worldsim.errors import ConfigError, MissingDependency, NotShipped, UnknownName
from worldsim.models.small.backbone import SmallBackbone
from worldsim.models.small.weights import save_weights
from worldsim.presets import WORLDS
from worldsim.runtime.starts import Starts
from worldsim.simulators.maze import Maze

FAST = {"device": "cpu", "steps": 1, "policy": "window:frames=2"}


def test_every_world_has_a_name_and_registering_again_changes_nothing():
    assert [env_id(name) for name in WORLDS] == ["worldsim/Crafter-v0", "worldsim/Maze-v0"]
    specs = [gymnasium.spec(env_id(name)) for name in WORLDS]
    register_worlds()
    assert all(gymnasium.spec(spec.id) is spec for spec in specs)
    assert [spec.kwargs for spec in specs] == [{"world": name} for name in WORLDS]


@pytest.mark.timeout(180)  # seconds are enough, but not while other work has the cores
def test_crafter_passes_the_checks_of_gymnasium():
    env = gymnasium.make("worldsim/Crafter-v0", render_mode="rgb_array", **FAST)
    check_env(env.unwrapped)
    env.close()
    assert env.unwrapped.world.pool.used == 0


def test_arguments_of_make_reach_the_world_and_a_time_limit_truncates():
    env = gymnasium.make("worldsim.envs:worldsim/Crafter-v0", frames_per_block=2, max_episode_steps=2, **FAST)
    world = env.unwrapped.world
    assert (world.frames_per_block, world.calls_per_block, world.plan.policy) == (2, 2, Window(frames=2))
    assert isinstance(env.unwrapped, WorldEnv)
    env.reset(seed=3)
    ends = [env.step(1)[2:4] for _ in range(2)]
    assert ends == [(False, False), (False, True)]
    env.close()


@pytest.mark.parametrize(
    ("settings", "error", "told"),
    [
        ({"frames_per_block": 3}, ConfigError, "makes blocks of 1, 2, 4 frames"),
        ({"policy": "windw"}, UnknownName, "no policy 'windw'"),
        ({"width": 3}, TypeError, "width"),
    ],
)
def test_arguments_of_make_that_cannot_work_are_told(settings, error, told):
    with pytest.raises(error, match=told):
        gymnasium.make("worldsim/Crafter-v0", **settings)


def test_many_made_at_once_are_one_world_whose_blocks_are_made_together():
    envs = gymnasium.make_vec("worldsim/Crafter-v0", num_envs=2, max_episode_steps=1, **FAST)
    assert isinstance(envs, VectorWorldEnv)
    assert envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    envs.reset(seed=3)
    frames, _, _, truncated, _ = envs.step(np.array([1, 14]))
    assert (frames.shape, truncated.tolist()) == ((2, 72, 72, 3), [True, True])
    envs.close()
    assert envs.world.pool.used == 0


@pytest.mark.parametrize("name", ["worldsim/Crafter-v0", "worldsim/Maze-v0"])
def test_a_world_without_weights_says_so_when_it_is_made(name, tmp_path, monkeypatch):
    monkeypatch.setattr(presets, "ASSETS", tmp_path)
    with pytest.raises(NotShipped, match="are not in the package"):
        gymnasium.make(name)


def test_without_gymnasium_it_is_told_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "gymnasium" or "worldsim.envs" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(MissingDependency, match=r"pip install .* --editable '\.\[gym\]'"):
        importlib.import_module("worldsim.envs")


@pytest.mark.filterwarnings("ignore::UserWarning")  # check_env's advice on bounds and spaces
def test_the_maze_is_an_environment_as_soon_as_it_has_weights_and_starting_places(tmp_path, monkeypatch):
    """Untrained weights and starting places of noise: what it shows is wrong, how it behaves is not."""
    monkeypatch.setattr(presets, "ASSETS", tmp_path)
    recipe = presets.MAZE
    backbone = SmallBackbone(recipe.backbone, torch.Generator().manual_seed(0))
    recipe.folder.mkdir()
    save_weights(recipe.folder / "weights.safetensors", recipe.backbone, backbone.state_dict(), dtype=torch.bfloat16)
    noise = np.random.default_rng(0).integers(0, 256, (2, *Maze.size, 3), dtype=np.uint8)
    place = torch.from_numpy(noise), torch.zeros(2, len(Maze.controls))
    Starts.save(recipe.folder / "starts.safetensors", [place])
    env = gymnasium.make("worldsim/Maze-v0", steps=1, policy="window:frames=4").unwrapped
    check_env(env)
    assert env.action_names == ("wait", "forward", "back", "turn_left", "turn_right")
    env.close()
