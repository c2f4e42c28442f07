from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from vizdoom import GameVariable

from worldsim.controls import Keys
from worldsim.simulators.maze import DEPTH_START, DEPTH_STEP, FRAMES_PER_ROUND, Maze
from worldsim.simulators.maze_explorer import MazeExplorer, clearance
from worldsim.simulators.protocol import Frame

COLUMNS = 65
SEEDS = (1, 17)
FRAMES = 450


@pytest.fixture(scope="module")
def maze() -> Iterator[Maze]:
    maze = Maze()
    yield maze
    maze.close()


class Stage:
    """A maze of cardboard: a depth image and nothing else."""

    def __init__(self, nearest: int, farthest: int | None = None) -> None:
        self.depth = np.full((48, 8 * COLUMNS), nearest, np.uint8)
        if farthest is not None:
            self.depth[:, 4 * COLUMNS :] = farthest


@dataclass(frozen=True)
class Moment:
    keys: Keys
    frame: Frame
    ahead: float
    square: tuple[int, int]


@pytest.fixture(scope="module")
def walks(maze: Maze) -> list[Moment]:
    moments = []
    for seed in SEEDS:
        maze.reset(seed)
        explorer = MazeExplorer(maze, seed)
        for _ in range(FRAMES):
            keys = explorer.choose()
            frame = maze.step(keys)
            middle = maze.depth[maze.depth.shape[0] // 2, maze.depth.shape[1] // 2]
            moments.append(Moment(keys, frame, DEPTH_STEP * float(middle) + DEPTH_START, square(maze)))
    return moments


def square(maze: Maze) -> tuple[int, int]:
    assert maze._game is not None
    x = maze._game.get_game_variable(GameVariable.POSITION_X)
    y = maze._game.get_game_variable(GameVariable.POSITION_Y)
    return int(x // 80), int(y // 80)


def explore(maze: Maze, seed: int, frames: int) -> tuple[list[Keys], list[Frame]]:
    seen, explorer, pressed = [maze.reset(seed)], MazeExplorer(maze, seed), []
    for _ in range(frames):
        pressed.append(explorer.choose())
        seen.append(maze.step(pressed[-1]))
    return pressed, seen


def one(ahead: NDArray[np.float64], heading: float) -> float:
    return float(clearance(ahead, np.array([heading]))[0])


def longest_run(keys: list[Keys], key: str) -> int:
    return max((len(list(run)) for held, run in itertools.groupby(key in held for held in keys) if held), default=0)


def test_a_flat_wall_is_as_far_as_it_stands() -> None:
    assert one(np.full(COLUMNS, 120.0), 0) == pytest.approx(120)


def test_a_flat_wall_is_met_earlier_than_its_middle_by_a_body_that_walks_aslant() -> None:
    assert 120 < one(np.full(COLUMNS, 120.0), 30) < 120 / np.cos(np.radians(30))


def test_a_narrow_post_beside_the_way_is_not_in_the_way() -> None:
    ahead = np.full(COLUMNS, 300.0)
    ahead[COLUMNS // 2 + 16] = 80  # 80 ahead and about 39 to the right
    assert one(ahead, 0) == pytest.approx(300)
    assert one(ahead, 26) < 100


def test_a_post_on_the_left_is_met_on_the_left() -> None:
    ahead = np.full(COLUMNS, 300.0)
    ahead[COLUMNS // 2 - 16] = 80
    assert one(ahead, -26) < 100 < one(ahead, 26)


def test_directions_are_judged_one_by_one() -> None:
    ahead = np.linspace(50, 200, COLUMNS)
    headings = np.array([-30.0, 0.0, 12.0])
    assert np.array_equal(clearance(ahead, headings), [one(ahead, heading) for heading in headings])


def test_equal_seeds_press_equal_keys(maze: Maze) -> None:
    keys, frames = explore(maze, 3, 120)
    again, seen = explore(maze, 3, 120)
    assert keys == again
    assert np.array_equal(frames, seen)


def test_other_seeds_press_other_keys(maze: Maze) -> None:
    explorers = []
    maze.reset(3)
    for seed in (1, 2):
        explorer = MazeExplorer(maze, seed)
        explorers.append([explorer.choose() for _ in range(60)])
    assert explorers[0] != explorers[1]


def test_a_long_walk_holds_everything_a_player_does(walks: list[Moment]) -> None:
    keys = [moment.keys for moment in walks]
    share = {key: sum(key in held for held in keys) / len(keys) for key in ("KeyW", "KeyS", "KeyA", "KeyD")}
    assert share["KeyW"] > 0.3
    assert share["KeyS"] > 0.01
    assert min(share["KeyA"], share["KeyD"]) > 0.15
    assert sum({"KeyW", "KeyA"} <= held or {"KeyW", "KeyD"} <= held for held in keys) > 0.02 * len(keys)
    assert max(longest_run(keys, "KeyA"), longest_run(keys, "KeyD")) >= FRAMES_PER_ROUND // 2
    assert frozenset() in keys


def test_a_long_walk_is_mostly_in_motion(walks: list[Moment]) -> None:
    assert np.mean([not np.array_equal(a.frame, b.frame) for a, b in itertools.pairwise(walks)]) > 0.9


def test_a_long_walk_meets_walls_now_and_then_and_keeps_away_from_them_mostly(walks: list[Moment]) -> None:
    assert 0.005 < np.mean(["KeyW" in moment.keys and moment.ahead < 25 for moment in walks]) < 0.15


def test_a_long_walk_leaves_the_room_it_began_in(walks: list[Moment]) -> None:
    """A room is 160 wide, so at most nine squares of 80 lie in it or partly in it."""
    for start in range(0, len(walks), FRAMES):
        assert len({moment.square for moment in walks[start : start + FRAMES]}) > 9


def test_a_walk_is_steered_to_the_side_that_is_open() -> None:
    stage = Stage(14, 60)
    explorer = MazeExplorer(stage, 0)  # type: ignore[arg-type]
    assert explorer._steer() == ("turn_right",)
    stage.depth = stage.depth[:, ::-1]
    assert explorer._steer() == ("turn_left",)


def test_a_walk_that_is_open_ahead_is_not_steered() -> None:
    assert MazeExplorer(Stage(40), 0)._steer() == ()  # type: ignore[arg-type]


def test_every_kind_of_plan_is_drawn() -> None:
    explorer = MazeExplorer(Stage(9), 0)  # type: ignore[arg-type]
    drawn = {explorer._draw().gi_code.co_name for _ in range(200)}  # type: ignore[attr-defined]
    assert drawn == {"_stroll", "_turn", "_look_back", "_curve", "_retreat", "_bump", "_wait"}


def test_looking_back_is_half_a_round_and_half_a_round_again() -> None:
    for seed in range(5):
        held = list(MazeExplorer(Stage(9), seed)._look_back())  # type: ignore[arg-type]
        turned = [buttons for buttons in held if buttons in (("turn_left",), ("turn_right",))]
        assert len(turned) == FRAMES_PER_ROUND
        assert len(set(turned[: FRAMES_PER_ROUND // 2])) == len(set(turned[FRAMES_PER_ROUND // 2 :])) == 1


def test_with_its_nose_to_a_wall_it_turns_to_one_side_until_something_opens() -> None:
    explorer = MazeExplorer(Stage(1), 0)  # type: ignore[arg-type]
    stroll = explorer._stroll()
    held = {next(stroll) for _ in range(FRAMES_PER_ROUND)}
    assert len(held) == 1
    assert held <= {("turn_left",), ("turn_right",)}


def test_a_stroll_goes_where_it_is_open() -> None:
    explorer = MazeExplorer(Stage(2, 60), 0)  # type: ignore[arg-type]
    held = next(explorer._stroll())
    assert "turn_right" in held
    assert DEPTH_STEP * 2 + DEPTH_START < 36
