from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from worldsim.controls import Keys
from worldsim.simulators.maze import DEPTH_START, DEPTH_STEP, TURN_DEGREES, Maze
from worldsim.simulators.maze_explorer import MazeExplorer, clearance
from worldsim.simulators.protocol import Frame

COLUMNS = 65


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
            self.depth[:, -3 * COLUMNS :] = farthest


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


def test_a_long_walk_holds_everything_a_player_does(maze: Maze) -> None:
    runs = [explore(maze, seed, 300) for seed in (0, 1, 2, 3)]
    keys = [held for pressed, _ in runs for held in pressed]
    share = {key: sum(key in held for held in keys) / len(keys) for key in ("KeyW", "KeyS", "KeyA", "KeyD")}
    assert share["KeyW"] > 0.3
    assert share["KeyS"] > 0.01
    assert min(share["KeyA"], share["KeyD"]) > 0.15
    assert sum({"KeyW", "KeyA"} <= held or {"KeyW", "KeyD"} <= held for held in keys) > 0.02 * len(keys)
    assert max(longest_run(keys, "KeyA"), longest_run(keys, "KeyD")) >= 180 // TURN_DEGREES
    assert frozenset() in keys


def test_a_long_walk_is_mostly_in_motion_and_sometimes_blocked(maze: Maze) -> None:
    blocked = moving = 0
    for seed in (0, 1, 2, 3):
        keys, frames = explore(maze, seed, 300)
        for held, before, after in zip(keys, frames, frames[1:], strict=False):
            still = np.array_equal(before, after)
            blocked += still and held == {"KeyW"}
            moving += not still
    assert moving > 0.9 * 1200
    assert blocked > 0


def test_a_long_walk_leaves_the_room_it_began_in(maze: Maze) -> None:
    from vizdoom import GameVariable

    places = set()
    for seed in (0, 1, 2):
        maze.reset(seed)
        explorer = MazeExplorer(maze, seed)
        assert maze._game is not None
        spots = set()
        for _ in range(400):
            maze.step(explorer.choose())
            x, y = (
                maze._game.get_game_variable(variable)
                for variable in (GameVariable.POSITION_X, GameVariable.POSITION_Y)
            )
            spots.add((x // 80, y // 80))
        assert len(spots) >= 6
        places |= spots
    assert len(places) >= 20


def test_with_its_nose_to_a_wall_it_turns_to_one_side_until_something_opens() -> None:
    explorer = MazeExplorer(Stage(1), 0)  # type: ignore[arg-type]
    stroll = explorer._stroll()
    held = {next(stroll) for _ in range(70)}
    assert len(held) == 1
    assert held <= {("turn_left",), ("turn_right",)}


def test_a_stroll_goes_where_it_is_open() -> None:
    explorer = MazeExplorer(Stage(3, 60), 0)  # type: ignore[arg-type]
    held = next(explorer._stroll())
    assert "turn_right" in held
    assert DEPTH_STEP * 3 + DEPTH_START < 36
