"""The names under which gymnasium makes the worlds."""

from __future__ import annotations

import gymnasium

from worldsim.presets import WORLDS


def env_id(name: str) -> str:
    """What gymnasium calls the world of that name: worldsim/Crafter-v0 for crafter."""
    return f"worldsim/{name.capitalize()}-v0"


def register_worlds() -> None:
    """Make every world known to gymnasium, once however often it is called.

    One whose weights are not in the package raises NotShipped when it is made without `weights=FILE`.
    """
    for name in WORLDS:
        if env_id(name) not in gymnasium.registry:
            gymnasium.register(
                env_id(name),
                entry_point="worldsim.envs.world_env:WorldEnv",
                vector_entry_point="worldsim.envs.vector_env:VectorWorldEnv",
                kwargs={"world": name},
            )
