"""One episode of an environment: a session, and the frame that it shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsInt, TypedDict, cast

import numpy as np
from gymnasium import spaces

from worldsim.cache.policy import Policy
from worldsim.controls import Controls, Keys
from worldsim.errors import ConfigError, UnknownName
from worldsim.presets import load
from worldsim.runtime.session import Session
from worldsim.runtime.world import World
from worldsim.session.log import Opening
from worldsim.simulators.protocol import Frame

BEGINNINGS = ("start", "frames", "keys", "hour")
"""What the options of a reset may say; see World.open for each."""
RENDER_MODES = ("rgb_array",)

Score = Callable[[Frame], float]
"""How good it is to stand at a frame, uint8 [H, W, 3] RGB."""


class Loading(TypedDict, total=False):
    """How a world is loaded; see worldsim.load for each."""

    device: str
    policy: str | Policy | None
    steps: int | None
    frames_per_block: int
    weights: Path | str | None


@dataclass(slots=True, eq=False, kw_only=True)
class Episode:
    """A session being played.

    seed: that it was begun from.
    frame: the newest, uint8 [H, W, 3]; nobody else may write to it.
    """

    session: Session
    seed: int
    frame: Frame


def loaded(world: World | str, loading: Loading) -> World:
    """The world of that name, loaded so, or the given one, which was loaded before.

    Raises:
        ConfigError: a world that is loaded is to be loaded in another way; and as for worldsim.load.
    """
    if isinstance(world, str):
        return load(world, **loading)
    if loading:
        raise ConfigError(f"this world is loaded already; leave out {', '.join(loading)}, or pass its name")
    return world


def begin(world: World, *, seed: int, options: Mapping[str, Any] | None) -> Episode:
    """An episode at its first frame.

    Args:
        world: where it is lived.
        seed: as for World.open.
        options: those of BEGINNINGS that are to be other than World.open has them.

    Raises:
        UnknownName: an option that is none of BEGINNINGS; and as for World.open.
        ConfigError: the options are no names with what they are.
    """
    if options is not None and not isinstance(options, Mapping):
        raise ConfigError(f'the options of a reset are like {{"start": 2}}, got {options!r}')
    beginning = dict(options or {})
    for name in beginning:
        if name not in BEGINNINGS:
            raise UnknownName("option", name, BEGINNINGS, of="reset")
    session = world.open(seed=seed, **beginning)
    return Episode(session=session, seed=seed, frame=_first(world, session.log.opening))


def action_names(controls: Controls) -> tuple[str, ...]:
    """What each action of an environment does: the first waits, then come the world's own in their order."""
    return ("wait", *(action.name for action in controls.actions))


def action_keys(controls: Controls, action: SupportsInt) -> Keys:
    """The keys that an action of an environment holds.

    Raises:
        ConfigError: there is no action of that number.
    """
    names = action_names(controls)
    if not isinstance(action, int | np.integer) or not 0 <= action < len(names):
        told = ", ".join(f"{number} {name}" for number, name in enumerate(names))
        raise ConfigError(f"there is no action {action!r}; choose from {told}")
    return controls.press(names[action])


def action_space(controls: Controls) -> spaces.Discrete:
    """The numbers of a world's actions."""
    return spaces.Discrete(len(action_names(controls)))


def frame_space(world: World) -> spaces.Space[Frame]:
    """The frames of a world, uint8 [H, W, 3]."""
    return cast(spaces.Space[Frame], spaces.Box(0, 255, (*world.size, 3), np.uint8))


def world_metadata(world: World) -> dict[str, Any]:
    """What gymnasium asks of an environment of that world: a rendered frame is the newest of a block."""
    return {"render_modes": list(RENDER_MODES), "render_fps": world.fps / world.frames_per_block}


def check_render_mode(mode: str | None) -> str | None:
    """The render mode; raises UnknownName unless it is one of RENDER_MODES, or None."""
    if mode is not None and mode not in RENDER_MODES:
        raise UnknownName("render mode", mode, RENDER_MODES)
    return mode


def _first(world: World, opening: Opening) -> Frame:
    """The last of the frames that a session begins from, which is the present when nothing has been made."""
    if opening.given is not None:
        given: Frame = np.frombuffer(opening.given.pixels, np.uint8).reshape(opening.given.shape)[-1]
        return given
    assert opening.start is not None
    frames, _ = world.origin.starts.get(opening.start)
    present: Frame = frames[-1].numpy().copy()
    return present
