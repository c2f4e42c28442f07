"""The measure of memory is full for a world that forgets nothing and at chance for one that forgets all."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from benchmarks import memory
from benchmarks.memory import Loop, by_chance, go, judge, points, verdicts
from benchmarks.tiles import MATERIALS
from benchmarks.world_quality import Episode, engine
from worldsim.cache.policies import parse_policy, policy_text
from worldsim.simulators.crafter import Crafter

pytest.importorskip("crafter")
AWAY_S = 5
GRASS, WATER, TREE = (MATERIALS.index(name) for name in ("grass", "water", "tree"))


@dataclass
class RealWorld:
    """The engine in place of a generated world: it goes on from where an episode is left, and may shuffle its map."""

    episode: Episode
    at: int
    forgets: bool = False
    fps = 8
    controls = Crafter.controls

    @contextmanager
    def open(self, **_: Any) -> Iterator[Any]:
        simulator = engine()
        simulator.reset(self.episode.seed)
        for keys in self.episode.keys[1 : self.at]:
            simulator.step(keys)
        yield SimpleNamespace(step=lambda keys: self._step(simulator, keys), block=0)

    def _step(self, simulator: Crafter, keys: Any) -> Any:
        frame = simulator.step(keys)
        if self.forgets:
            world, rng = simulator.env._world, np.random.default_rng(int(simulator.env._step))
            row, column = simulator.env._player.pos
            hidden = np.ones(world._mat_map.shape, bool)
            hidden[max(0, row - 4) : row + 5, max(0, column - 3) : column + 4] = False
            world._mat_map[hidden] = rng.permutation(world._mat_map[hidden])
        return SimpleNamespace(frames=frame[None])


@pytest.fixture(scope="module")
def cases() -> list[tuple[Episode, int]]:
    return points(700_000_000, 3, AWAY_S)


def test_loops_begin_and_end_by_day(cases: list[tuple[Episode, int]]) -> None:
    for episode, at in cases:
        assert at >= 32
        assert episode.play.shown.visible[at - 1].all()
        assert not episode.play.shown.sleeping[at - 1]
        for frame in (at, at + 8 * AWAY_S):
            progress = (episode.hour + frame) / 300 + 0.3  # as the engine tells its light
            assert 1 - abs(np.cos(np.pi * progress)) ** 3 > 0.3


@pytest.mark.parametrize("away_s", [AWAY_S, None])
def test_a_world_that_forgets_nothing_is_right_and_one_that_forgets_is_not(
    cases: list[tuple[Episode, int]], away_s: float | None
) -> None:
    rng = np.random.default_rng(1)
    real, other = (
        judge([go(RealWorld(*case, forgets=forgets), *case, away_s) for case in cases], rng)  # type: ignore[arg-type]
        for forgets in (False, True)
    )
    assert real["loops"] >= 2
    assert real["right"]["judged"] > 25
    assert real["right"]["value"] > 0.98
    assert other["right"]["value"] < 0.8
    assert real["changed"]["right"] == real["changed"]["judged"] > 0


def loop(truth: list[int], found: list[int]) -> Loop:
    return Loop(
        seed=0,
        at=0,
        frames=9,
        truth=np.array(truth),
        found=np.array(found),
        missed=np.zeros(len(truth)),
        farthest=3,
    )


def test_chance_is_what_other_loops_would_have_got() -> None:
    loops = [loop([GRASS] * 9 + [WATER], [GRASS] * 9 + [WATER]) for _ in range(40)]
    assert by_chance(loops) == pytest.approx(0.82)
    assert judge(loops, np.random.default_rng(3))["right"]["value"] == 1.0


def test_no_loop_is_by_chance_as_right_as_its_own_truth() -> None:
    assert by_chance([loop([material] * 4, [material] * 4) for material in (GRASS, WATER, TREE)]) == 0
    mixed = [loop([GRASS], [GRASS]), loop([GRASS, WATER, WATER, WATER], [GRASS] * 3)]
    assert by_chance(mixed) == pytest.approx((0.25 + 3) / 4), "every tile that is found counts alike"
    assert math.isnan(by_chance([loop([GRASS], [GRASS])]))


def test_a_walker_that_was_lost_is_told_apart_and_judges_nothing() -> None:
    lost = Loop(seed=0, at=0, farthest=9)
    found = judge([lost, loop([WATER], [GRASS])], np.random.default_rng(4))
    assert (found["lost"], found["loops"], found["right"]["value"]) == (1, 1, 0.0)


@pytest.mark.parametrize(("low", "high", "apart"), [(0.9, 0.8, True), (0.9, 0.95, False)])
def test_a_world_is_apart_from_the_window_if_their_intervals_are(low: float, high: float, apart: bool) -> None:
    found = {
        "recalls": {"right": {"value": 0.92, "low": low}},
        "window:frames=32": {"right": {"value": 0.7, "high": high}},
    }
    assert verdicts(found) == {"right_on_return": True, "apart_from_the_window": apart}
    found["recalls"]["right"]["value"] = memory.LEAST_RIGHT - 0.01
    assert not verdicts(found)["right_on_return"]


def test_the_sheet_shows_what_was_left_above_what_was_come_back_to() -> None:
    pictures = np.random.default_rng(5).integers(0, 255, (2, 72, 72, 3)).astype(np.uint8)
    home, lost = replace(loop([WATER], [WATER]), pictures=pictures), replace(loop([], []), frames=None)
    ((labels, left, back),) = memory.strip("recalls", [lost, home, home])
    assert labels == ["recalls", ""]
    assert np.array_equal(left, np.stack([pictures[0]] * 2))
    assert np.array_equal(back, np.stack([pictures[1]] * 2))
    assert memory.strip("recalls", [lost]) == []


def test_what_an_earlier_run_found_on_the_same_loops_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "RESULTS", tmp_path)
    about = {"weights": "in the package", "away_s": 15, "seed": 3, "loops": 50}
    assert memory.known("memory_15s", about) == {}
    (tmp_path / "memory_15s.json").write_text(json.dumps({**about, "worlds": {"full": {"lost": 1}}}))
    assert memory.known("memory_15s", about) == {"full": {"lost": 1}}
    for other in ({"loops": 49}, {"seed": 4}, {"weights": "w.safetensors"}):
        assert memory.known("memory_15s", {**about, **other}) == {}


@pytest.mark.parametrize("seed", [3])
def test_of_every_loop_enough_is_kept_to_judge_it_again(seed: int) -> None:
    rng = np.random.default_rng(seed)
    loops = [loop(*(rng.integers(len(MATERIALS), size=30).tolist() for _ in range(2))) for _ in range(5)]
    kept = json.loads(json.dumps([one.record for one in [*loops, Loop(seed=7, at=0, farthest=9)]]))
    again = [loop([int(tile, 16) for tile in one["truth"]], [int(tile, 16) for tile in one["found"]]) for one in kept]
    assert by_chance(again) == by_chance(loops)
    assert [one.count for one in again[:-1]] == [one.count for one in loops]
    assert (kept[-1]["seed"], kept[-1]["frames"], kept[-1]["truth"]) == (7, None, "")


def test_every_world_of_the_benchmark_can_be_loaded() -> None:
    for settings in memory.WORLDS.values():
        if "policy" in settings:
            assert policy_text(parse_policy(settings["policy"])).startswith(settings["policy"].partition(":")[0])
    budgets = [parse_policy(policy) for policy in memory.POLICIES[:-1]]
    assert {len(policy.see(range(1_000), 1_000, lambda frame: 1.0)) for policy in budgets} == {32}


def test_a_world_nobody_knows_is_answered_with_those_that_are_judged(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.BadParameter, match=r"no world blockvid; known: recalls; window:frames=32; blockvid:"):
        memory.main(only=["recalls", "blockvid"])
    app = typer.Typer()
    app.command()(memory.main)
    told = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "400"}).output
    assert "; ".join(memory.WORLDS) in " ".join(told.split())


def test_weights_that_are_not_there_are_refused_before_anything_is_played(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "points", lambda *_: pytest.fail("it was played"))
    with pytest.raises(FileNotFoundError):
        memory.main(weights=Path("/nowhere/weights"))
