"""Worlds as gymnasium environments, for whoever trains or plans in them; importing it registers `worldsim/Crafter-v0`.

Gymnasium is an optional package: .venv/bin/pip install --constraint constraints.txt --editable '.[gym]'.
"""

from worldsim.errors import MissingDependency, installing

try:
    import gymnasium as gymnasium
except ImportError as error:
    raise MissingDependency(f"gymnasium is not installed; run: {installing('gym')}") from error

from worldsim.envs.planning import Plan, Shooting, random_shooting
from worldsim.envs.registration import register_worlds
from worldsim.envs.vector_env import VectorWorldEnv
from worldsim.envs.world_env import EnvState, WorldEnv

__all__ = ["EnvState", "Plan", "Shooting", "VectorWorldEnv", "WorldEnv", "random_shooting", "register_worlds"]

register_worlds()
