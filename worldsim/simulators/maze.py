"""The first-person maze behind held keys: ViZDoom's my_way_home, walked through in Freedoom's art.

Source: Kempka et al. 2016, "ViZDoom" (arXiv:1605.02097); PyPI `vizdoom`, MIT; Freedoom, BSD.
"""

from __future__ import annotations

import os
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from worldsim.controls import Action, Controls, Keys
from worldsim.errors import ConfigError, MissingDependency, installing

if TYPE_CHECKING:
    from vizdoom import DoomGame, GameState

    from worldsim.simulators.protocol import Frame

TICS_PER_FRAME = 3
FRAMES_PER_ROUND = 64
"""While a turn is held, from the first frame to the last, each turns the view by exactly one of these."""
TURN_DEGREES = 360 / FRAMES_PER_ROUND
FIELD_OF_VIEW_DEGREES = 90
"""From the left edge of a frame to its right edge."""
DEPTH_STEP, DEPTH_START = 7.15, 14.8
"""What the depth image shows as d is DEPTH_STEP * d + DEPTH_START of the engine's units away, as measured."""
LAST_SEED = 2**32 - 1

_SAMPLES = 4
# The engine's units. Walking settles at about 8 a frame: 96 a second, where a room is 160 wide.
_WALK_SPEED = 8
# No vest: touching it would end the episode. No view bob: its phase is a clock that no frame shows at rest.
_ENGINE_ARGUMENTS = "+alwaysapplydmflags 1 +sv_noarmor 1 +movebob 0"

CONTROLS = Controls(
    exclusive=False,
    actions=(
        Action(name="forward", keys=("KeyW", "ArrowUp")),
        Action(name="back", keys=("KeyS", "ArrowDown")),
        Action(name="turn_left", keys=("KeyA", "ArrowLeft")),
        Action(name="turn_right", keys=("KeyD", "ArrowRight")),
    ),
)


class Maze:
    """One walk through the maze at a time. The seed chooses the place and the direction it begins with; it never ends.

    A frame is three of the engine's 35 tics a second, so 12 frames a second run 2.9 % faster than Doom's own clock.
    The engine draws 512 x 384 and each pixel here is the mean of 4 x 4 of those: its textures have no mipmaps, and
    what shimmers cannot be predicted. Opposite keys held together cancel.
    """

    controls = CONTROLS
    hour = None
    event = ""
    fps = 12
    size = (96, 128)

    def __init__(self) -> None:
        self._game: DoomGame | None = None
        self._depth: NDArray[np.uint8] | None = None

    def reset(self, seed: int) -> Frame:
        """Begin the walk of that seed, 0 to 2**32 - 1; returns its first frame, uint8 [96, 128, 3].

        Raises:
            ConfigError: the seed is outside the range.
            MissingDependency: vizdoom is not installed.
        """
        if not 0 <= seed <= LAST_SEED:
            raise ConfigError(f"a seed of the maze is a whole number from 0 to {LAST_SEED}, got {seed}")
        if self._game is None:
            self._game = _start_engine()
        self._game.set_seed(seed)
        self._game.new_episode()
        return self._look(self._game.get_state())

    def step(self, keys: Keys) -> Frame:
        """Advance by one frame (a twelfth of a second) with these keys held; returns it, uint8 [96, 128, 3]."""
        forward, back, left, right = self.controls.vector(keys)
        if self._game is None:
            raise ConfigError("no walk has begun; call reset(seed) before step")
        walk = _WALK_SPEED * (forward - back)
        # All of the turn in the first tic: split over three it is no whole number of the engine's angles, and the
        # engine then turns further to the left than to the right.
        self._game.set_action([walk, TURN_DEGREES * (right - left)])
        self._game.advance_action(1, False)
        self._game.set_action([walk, 0])
        self._game.advance_action(TICS_PER_FRAME - 1)
        return self._look(self._game.get_state())

    @property
    def over(self) -> bool:
        """Whether no walk has begun; one that has begun goes on for as long as it is stepped."""
        return self._game is None

    @property
    def depth(self) -> NDArray[np.uint8]:
        """How far away each pixel of the engine's own picture is, along the view; see DEPTH_STEP. uint8 [384, 512]."""
        if self._depth is None:
            raise ConfigError("no walk has begun; call reset(seed) before looking at its depth")
        return self._depth

    def close(self) -> None:
        """End the engine's process. Closing twice is fine, and reset starts another."""
        if self._game is not None:
            self._game.close()
        self._game = None
        self._depth = None

    def _look(self, state: GameState) -> Frame:
        self._depth = state.depth_buffer
        height, width = self.size
        # Numpy's own mean over both axes takes four times as long as these sums.
        rows = state.screen_buffer.reshape(height, _SAMPLES, -1).sum(1, dtype=np.uint16)
        a, b, c, d = rows.reshape(height, width, _SAMPLES, 3).transpose(2, 0, 1, 3)
        frame: Frame = ((a + b + c + d + 8) // 16).astype(np.uint8)
        return frame


def _start_engine() -> DoomGame:
    try:
        import vizdoom
    except ImportError as error:
        raise MissingDependency(f"the real maze engine is not installed; run: {installing('worlds')}") from error
    game = vizdoom.DoomGame()
    # Named outright: of itself the engine prefers Doom 2's own art where that is installed.
    game.set_doom_game_path(str(Path(vizdoom.__file__).with_name("freedoom2.wad")))
    game.set_doom_scenario_path(str(Path(vizdoom.scenarios_path, "my_way_home.wad")))
    game.set_doom_config_path(os.devnull)
    game.add_game_args(_ENGINE_ARGUMENTS)
    game.set_doom_skill(5)
    game.set_episode_start_time(10)
    game.set_episode_timeout(0)
    game.set_window_visible(False)
    game.set_screen_resolution(vizdoom.ScreenResolution.RES_512X384)
    game.set_screen_format(vizdoom.ScreenFormat.RGB24)
    game.set_depth_buffer_enabled(True)
    game.set_render_hud(False)
    game.set_render_weapon(False)
    game.set_render_crosshair(False)
    game.set_render_messages(False)
    game.set_available_buttons([vizdoom.Button.MOVE_FORWARD_BACKWARD_DELTA, vizdoom.Button.TURN_LEFT_RIGHT_DELTA])
    # The engine makes a folder where it starts, and crashes the interpreter where it may not.
    with TemporaryDirectory() as folder, chdir(folder):
        game.init()
    return game
