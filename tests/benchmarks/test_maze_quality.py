from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import worldsim
from benchmarks import maze_quality
from benchmarks.maze_metrics import Frames, sharpness
from benchmarks.maze_quality import BARS, Measure, Walk, contact_sheet, judge, likeness, play, report, turning
from worldsim.runtime.reality import Reality
from worldsim.runtime.session import Chunk
from worldsim.simulators.maze import Maze

APP = typer.Typer()
APP.command()(maze_quality.main)
FRAMES_PER_BLOCK = 2
SEEDS = (1, 2, 5)
SECONDS = 1.0
SWAPPED = {"KeyA": "KeyD", "KeyD": "KeyA"}
Fault = Callable[[Walk], Walk]


class StandIn:
    """A world whose generated frames are the real engine's own.

    swaps: it turns left where right is held, and the other way round.
    """

    fps = Maze.fps
    frames_per_block = FRAMES_PER_BLOCK

    def __init__(self, *, swaps: bool = False) -> None:
        self.swaps = swaps

    def reality(self, *, seed: int) -> Reality:
        return Reality(Maze(), seed=seed, frames_per_block=FRAMES_PER_BLOCK)

    def open(self, *, seed: int, frames: Frames, keys: Sequence[Iterable[str]]) -> StandInSession:
        truth = self.reality(seed=seed)
        assert len(keys) == len(frames)
        assert not keys[0]
        seen = [truth.first[None], *(truth.step(held).frames for held in keys[1::FRAMES_PER_BLOCK])]
        assert np.array_equal(np.concatenate(seen), frames), "the keys given do not lead to the frames given"
        return StandInSession(truth, swaps=self.swaps)


class StandInSession:
    def __init__(self, truth: Reality, *, swaps: bool) -> None:
        self.truth = truth
        self.swaps = swaps

    def step(self, keys: Iterable[str] = ()) -> Chunk:
        return self.truth.step({SWAPPED.get(key, key) for key in keys} if self.swaps else keys)

    def close(self) -> None:
        assert isinstance(self.truth.simulator, Maze)
        self.truth.simulator.close()


def none(walk: Walk) -> Walk:
    return walk


def late(walk: Walk) -> Walk:
    before = np.repeat(walk.last[None], FRAMES_PER_BLOCK, axis=0)
    return replace(walk, made=np.concatenate([before, walk.real[:-FRAMES_PER_BLOCK]]))


def frozen(walk: Walk) -> Walk:
    return replace(walk, made=np.repeat(walk.last[None], len(walk.real), axis=0))


def blurred(walk: Walk) -> Walk:
    return replace(walk, made=np.stack([cv2.GaussianBlur(frame, (0, 0), 1.5) for frame in walk.real]))


def wrong_at(index: int) -> Fault:
    def fault(walk: Walk) -> Walk:
        made = walk.made.copy()
        made[index] = 255 - made[index]
        return replace(walk, made=made)

    return fault


@pytest.fixture(autouse=True, scope="module")
def short_days() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, seconds in {"CONTEXT_S": 0.5, "SHORT_S": 1.0, "LONG_S": 0.5, "JUDGED_S": 0.5}.items():
            patch.setattr(maze_quality, name, seconds)
        yield


@cache
def walks(fault: Fault = none, *, swaps: bool = False) -> tuple[Walk, ...]:
    if fault is not none:
        return tuple(fault(walk) for walk in walks())
    return tuple(play(StandIn(swaps=swaps), seed, seconds=SECONDS) for seed in SEEDS)  # type: ignore[arg-type]


@cache
def measures(fault: Fault = none, *, swaps: bool = False) -> dict[str, Measure]:
    judged = walks(fault, swaps=swaps)
    sharp = tuple(np.stack([sharpness(getattr(walk, side)) for walk in judged]) for side in ("real", "made"))
    return judge(judged, (sharp[0], sharp[1]), fps=Maze.fps, seed=0)


def values(fault: Fault = none, *, swaps: bool = False) -> tuple[float, ...]:
    return tuple(measure.value for measure in measures(fault, swaps=swaps).values())


def test_what_equals_reality_reaches_every_bar() -> None:
    quarter, second, direction, size, sharp = values()
    assert min(quarter, second) > 20
    assert direction == 1
    assert size == pytest.approx(1)
    assert sharp == 1
    assert all(measure.passed for measure in measures().values())


def test_every_bar_is_measured() -> None:
    assert list(measures()) == list(BARS)
    for measure in measures().values():
        assert measure.low <= measure.value + 1e-9
        assert measure.high >= measure.value - 1e-9


def test_what_comes_a_block_late_is_less_like_reality() -> None:
    quarter, _, _, size, sharp = values(late)
    assert quarter < values()[0] - 10
    assert size < 0.9
    assert sharp > 0.8


def test_likeness_is_judged_after_a_quarter_of_a_second_and_after_one() -> None:
    third, last = round(0.25 * Maze.fps) - 1, Maze.fps - 1
    quarter, second, *_ = values(wrong_at(third))
    assert (quarter < 0, second > 20) == (True, True)
    quarter, second, *_ = values(wrong_at(last))
    assert (quarter > 20, second < 0) == (True, True)


def test_what_never_moves_is_as_likely_as_the_last_frame_and_turns_nowhere() -> None:
    quarter, second, direction, size, _ = values(frozen)
    assert (quarter, second, direction) == (0, 0, 0)
    assert math.isnan(size)
    assert not any(measure.passed for name, measure in measures(frozen).items() if name != "sharpness_after_60s")


def test_what_is_blurred_is_less_sharp_and_turns_as_it_should() -> None:
    quarter, _, direction, size, sharp = values(blurred)
    assert sharp < 0.3
    assert quarter < values()[0] - 10
    assert direction > 0.97
    assert size > 0.9


def test_what_turns_the_other_way_is_seen_to() -> None:
    _, _, direction, size, sharp = values(swaps=True)
    assert direction < 0.1
    assert size < 0
    assert sharp > 0.5


def test_both_worlds_see_the_same_keys_from_the_same_frames() -> None:
    blocks = math.ceil(SECONDS * Maze.fps / FRAMES_PER_BLOCK)
    for walk in walks():
        assert len(walk.held) == blocks
        assert len(walk.real) == blocks * FRAMES_PER_BLOCK
        assert np.array_equal(walk.real, walk.made)
        assert not np.array_equal(walk.last, walk.real[-1])


def test_likeness_is_of_the_frame_asked_for() -> None:
    (walk,) = walks()[:1]
    made = walk.made.copy()
    made[2] //= 2
    spoilt = [Walk(last=walk.last, held=walk.held, real=walk.real, made=made)]
    assert [likeness(spoilt, at_frame=number)[0].item() > 0 for number in (2, 3, 4)] == [False, True, False]


def test_turns_are_summed_over_blocks() -> None:
    held, real, made = turning(walks())
    assert held.shape == real.shape == (len(SEEDS), len(walks()[0].held))
    assert np.array_equal(real, made)
    per_block = real[held != 0] * held[held != 0]
    assert np.median(per_block) == pytest.approx(2 * 5.625, abs=1.5)


def test_the_sheet_shows_reality_above_what_was_made() -> None:
    sheet = contact_sheet(walks(blurred)[:2], fps=Maze.fps)
    height, width = Maze.size
    body = sheet[-4 * height :]
    walk = walks(blurred)[0]
    assert sheet.shape[1] == 4 * width  # the last frame, 0.25 s, 0.5 s and 1 s; later ones were not played
    assert np.array_equal(body[:height, width : 2 * width], walk.real[2])
    assert np.array_equal(body[height : 2 * height, width : 2 * width], walk.made[2])
    assert np.array_equal(body[2 * height : 3 * height, :width], walks(blurred)[1].last)
    assert sheet[: -4 * height].any()


def test_the_report_shows_likeness_over_time_beside_the_measures() -> None:
    found = report(measures(frozen), walks(frozen), fps=Maze.fps)
    assert list(found["psnr_db"]) == ["0.25s", "0.5s", "1s"]
    assert found["psnr_db"]["1s"]["made"] == found["psnr_db"]["1s"]["last_frame_again"]
    assert found["measures"]["turn_direction_right"]["value"] == 0
    assert not found["measures"]["turn_size_correlation"]["passed"]


@pytest.mark.parametrize(("swaps", "code"), [(False, 0), (True, 1)])
def test_the_command_writes_its_findings_and_says_whether_the_bars_are_reached(
    swaps: bool, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worldsim, "load", lambda name, **options: StandIn(swaps=swaps))
    arguments = ["--walks", "2", "--long-walks", "2", "--seed", "1", "-o", str(tmp_path / "new")]
    result = CliRunner().invoke(APP, arguments)
    assert result.exit_code == code, result.output
    found = json.loads((tmp_path / "new" / "maze_quality.json").read_text())
    assert list(found["measures"]) == list(BARS)
    assert found["measures"]["turn_direction_right"]["passed"] is not swaps
    assert cv2.imread(str(tmp_path / "new" / "maze_quality.png")).shape[1] == 4 * Maze.size[1]
    assert result.output.count("reached") + result.output.count("missed") == len(BARS)
    assert ("missed" in result.output) is swaps
