from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from vizdoom import DoomGame, GameVariable

from worldsim.controls import Keys
from worldsim.errors import ConfigError, MissingDependency, UnknownName
from worldsim.simulators import maze as module
from worldsim.simulators.maze import DEPTH_START, DEPTH_STEP, FRAMES_PER_ROUND, LAST_SEED, Maze
from worldsim.simulators.protocol import Frame

FORWARD, BACK = frozenset({"KeyW"}), frozenset({"KeyS"})
LEFT, RIGHT = frozenset({"KeyA"}), frozenset({"KeyD"})
WAIT: Keys = frozenset()
WALK = [FORWARD] * 7 + [FORWARD | LEFT] * 9 + [RIGHT] * 5 + [BACK] * 4 + [WAIT] * 2
FINGERPRINT = """
import runpy, sys
module = runpy.run_path(sys.argv[1])
print(module["fingerprint"](module["Maze"](), 11))
"""


def play(maze: Maze, seed: int, keys: list[Keys]) -> list[Frame]:
    return [maze.reset(seed), *(maze.step(held) for held in keys)]


def fingerprint(maze: Maze, seed: int) -> str:
    return hashlib.sha256(np.stack(play(maze, seed, WALK)).tobytes()).hexdigest()


def distance(maze: Maze) -> float:
    """To what the middle of the view shows, in the engine's units."""
    height, width = maze.depth.shape
    return DEPTH_STEP * float(maze.depth[height // 2, width // 2]) + DEPTH_START


@pytest.fixture(scope="module")
def maze() -> Iterator[Maze]:
    maze = Maze()
    yield maze
    maze.close()


def test_a_frame_has_the_size_that_the_maze_names(maze: Maze) -> None:
    for frame in play(maze, 3, [FORWARD, WAIT]):
        assert frame.dtype == np.uint8
        assert frame.shape == (*maze.size, 3)


def test_a_pixel_is_the_mean_of_the_engines_pixels(maze: Maze) -> None:
    frame = maze.reset(5)
    assert maze._game is not None
    drawn = maze._game.get_state().screen_buffer.astype(np.float64)
    height, width = maze.size
    mean = drawn.reshape(height, len(drawn) // height, width, drawn.shape[1] // width, 3).mean((1, 3))
    assert np.abs(frame - mean).max() <= 0.5


def test_equal_seeds_and_keys_give_equal_frames_whatever_was_played_before(maze: Maze) -> None:
    first = fingerprint(maze, 11)
    assert fingerprint(maze, 12) != first
    assert fingerprint(maze, 11) == first


def test_equal_seeds_and_keys_give_equal_frames_in_another_process(maze: Maze) -> None:
    command = [sys.executable, "-c", FINGERPRINT, __file__]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == fingerprint(maze, 11)


def test_seeds_begin_at_different_places(maze: Maze) -> None:
    assert len({maze.reset(seed).tobytes() for seed in range(20)}) == 20


def test_two_mazes_do_not_disturb_each_other(maze: Maze) -> None:
    alone = play(maze, 4, [FORWARD, FORWARD])
    other = Maze()
    maze.reset(4)
    other.reset(9)
    frames = []
    for _ in range(2):
        frames.append(maze.step(FORWARD))
        other.step(RIGHT)
    other.close()
    assert np.array_equal(frames, alone[1:])


@pytest.mark.parametrize("side", [LEFT, RIGHT])
def test_a_whole_round_on_the_spot_ends_where_it_began(maze: Maze, side: Keys) -> None:
    frames = play(maze, 6, [side] * (FRAMES_PER_ROUND))
    assert np.array_equal(frames[0], frames[-1])
    assert not np.array_equal(frames[0], frames[len(frames) // 2])


def test_turning_right_moves_the_picture_left(maze: Maze) -> None:
    def mismatch(shift_px: int) -> float:
        moved = np.roll(before, shift_px, axis=1)
        return float(np.abs(moved[:, 40:90].astype(int) - after[:, 40:90]).mean())

    before, after = play(maze, 7, [RIGHT])
    assert mismatch(-7) < 0.5 * mismatch(7)


def test_walking_forward_comes_nearer_and_back_goes_away(maze: Maze) -> None:
    maze.reset(9)
    far = distance(maze)
    for _ in range(10):
        maze.step(FORWARD)
    near = distance(maze)
    for _ in range(15):
        maze.step(BACK)
    assert near < far - 40
    assert distance(maze) > near + 40


def test_a_wall_stops_the_player_at_arms_length_by_the_depth_image(maze: Maze) -> None:
    frames = play(maze, 9, [FORWARD] * 60)
    assert np.abs(frames[-1].astype(int) - frames[-2]).mean() < 1
    assert distance(maze) == pytest.approx(16, abs=DEPTH_STEP)


@pytest.mark.parametrize(
    ("letter", "arrow"),
    [("KeyW", "ArrowUp"), ("KeyS", "ArrowDown"), ("KeyA", "ArrowLeft"), ("KeyD", "ArrowRight")],
)
def test_arrows_do_what_letters_do(maze: Maze, letter: str, arrow: str) -> None:
    letters = play(maze, 8, [frozenset({letter})] * 5)
    arrows = play(maze, 8, [frozenset({arrow})] * 5)
    assert np.array_equal(letters, arrows)
    assert not np.array_equal(letters[0], letters[-1])


@pytest.mark.parametrize("both", [LEFT | RIGHT, FORWARD | BACK])
def test_opposite_keys_cancel(maze: Maze, both: Keys) -> None:
    assert np.array_equal(play(maze, 8, [both] * 5), play(maze, 8, [WAIT] * 5))


def test_a_picture_at_rest_stays_the_same(maze: Maze) -> None:
    frames = play(maze, 8, [WAIT] * 40)
    assert all(np.array_equal(frame, frames[0]) for frame in frames)


def test_walking_does_not_make_the_view_bob(maze: Maze) -> None:
    heights = []
    maze.reset(9)
    assert maze._game is not None
    for _ in range(12):
        maze.step(FORWARD)
        heights.append(maze._game.get_game_variable(GameVariable.CAMERA_POSITION_Z))
    assert len(set(heights)) == 1


def test_standing_where_the_vest_was_does_not_end_the_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ENGINE_ARGUMENTS", module._ENGINE_ARGUMENTS + " +sv_cheats 1")
    maze = Maze()
    maze.reset(0)
    assert maze._game is not None
    maze._game.send_game_command("warp 1040 -352")
    for _ in range(3):
        maze.step(FORWARD)
        assert not maze._game.is_episode_finished()
    maze.close()


def test_a_walk_is_over_until_it_is_begun_and_after_it_is_closed() -> None:
    maze = Maze()
    assert maze.over
    maze.reset(0)
    assert not maze.over
    maze.close()
    assert maze.over
    maze.close()
    maze.reset(0)
    assert not maze.over
    maze.close()


def test_a_walk_that_has_not_begun_says_so() -> None:
    maze = Maze()
    with pytest.raises(ConfigError, match="call reset"):
        maze.step(WAIT)
    with pytest.raises(ConfigError, match="call reset"):
        _ = maze.depth


@pytest.mark.parametrize("seed", [-1, LAST_SEED + 1])
def test_a_seed_outside_the_range_is_refused_with_the_range(maze: Maze, seed: int) -> None:
    with pytest.raises(ConfigError, match=f"0 to {LAST_SEED}, got {seed}"):
        maze.reset(seed)


def test_the_last_seed_works(maze: Maze) -> None:
    assert maze.reset(LAST_SEED).shape == (*maze.size, 3)


def test_a_key_that_the_maze_does_not_know_is_refused(maze: Maze) -> None:
    maze.reset(0)
    with pytest.raises(UnknownName, match="KeyQ"):
        maze.step(frozenset({"KeyQ"}))


def test_the_depth_image_is_of_the_latest_frame(maze: Maze) -> None:
    maze.reset(9)
    before = maze.depth
    kept = before.copy()
    maze.step(RIGHT)
    assert np.array_equal(before, kept)
    assert not np.array_equal(maze.depth, kept)


def test_the_engine_leaves_nothing_behind_where_it_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    maze = Maze()
    maze.reset(0)
    maze.close()
    assert Path.cwd() == tmp_path
    assert not list(tmp_path.iterdir())


def test_the_art_is_freedooms_even_where_doom_2_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    start = DoomGame.init

    def init(game: DoomGame) -> bool:
        asked.append(Path(game.get_doom_game_path()).name)
        return start(game)

    monkeypatch.setattr(DoomGame, "init", init)
    maze = Maze()
    maze.reset(0)
    maze.close()
    assert asked == ["freedoom2.wad"]


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a folder in which nobody may write")
def test_the_engine_starts_where_it_may_not_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/proc/self")
    maze = Maze()
    assert maze.reset(0).shape == (96, 128, 3)
    maze.close()


def test_without_vizdoom_the_maze_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vizdoom", None)
    with pytest.raises(MissingDependency, match=r"pip install .* --editable '\.\[worlds\]'"):
        Maze().reset(0)
