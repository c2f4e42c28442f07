"""The judging of a generated Crafter world: the engine in its place passes, and what is reported is true."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

import worldsim
from benchmarks import world_quality
from benchmarks.tiles import Frames, class_of, day, read_frames
from benchmarks.world_metrics import Count, Kind, Rollout, entered
from benchmarks.world_quality import (
    BARS,
    CONTEXT,
    OWN,
    Amount,
    Episode,
    Measure,
    Walk,
    at_once,
    branch,
    contact_sheet,
    daylight_of,
    effect_points,
    engine,
    explore,
    explore_many,
    judge_neighbours,
    judge_rollouts,
    judge_walks,
    measure,
    regular_points,
    relive,
    roll,
    share,
    verdicts,
    walk,
    walk_keys,
)
from worldsim.controls import Keys
from worldsim.models.small.backbone import SmallBackbone
from worldsim.models.small.weights import save_weights
from worldsim.presets import CRAFTER
from worldsim.runtime.chunk import Chunk
from worldsim.simulators.crafter import CONTROLS, DAY_FRAMES, Crafter
from worldsim.simulators.protocol import Frame, Simulator

SEED = 3020
FRAMES = 96


begin: Callable[[Crafter, int], Frame] = Crafter.reset


@cache
def fresh(seed: int) -> tuple[dict[str, Any], Frame]:
    """An engine's state at the beginning of an episode, and its first frame."""
    simulator = engine()
    assert isinstance(simulator, Crafter)
    return simulator.__dict__, begin(simulator, seed)


@pytest.fixture(autouse=True)
def quick_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copy the beginning of an episode, which takes most of a second to make."""

    def reset(simulator: Crafter, seed: int) -> Frame:
        state, frame = fresh(seed)
        simulator.__dict__.update(copy.deepcopy(state))
        return frame

    monkeypatch.setattr(Crafter, "reset", reset)


@cache
def played(seed: int, frames_per_block: int) -> Episode:
    return explore(seed, frames_per_block=frames_per_block, most=FRAMES)


class StandIn:
    """A world whose generated frames are the engine's own."""

    fps = Crafter.fps
    controls = CONTROLS

    def __init__(self, *, frames_per_block: int = 1) -> None:
        self.frames_per_block = frames_per_block

    def open(self, *, seed: int, frames: Frames, keys: Sequence[Keys], hour: int) -> StandInSession:
        episode = played(seed, self.frames_per_block)
        ends = [
            at
            for at in range(len(frames), len(episode.frames) + 1)
            if np.array_equal(episode.frames[at - len(frames) : at], frames)
            and list(episode.keys[at - len(frames) : at]) == list(keys)
        ]
        assert ends, "the frames and keys given are not those of the episode"
        simulator = engine()
        simulator.reset(seed)
        for held in episode.keys[1 : ends[0]]:
            simulator.step(held)
        assert hour == simulator.env._step % DAY_FRAMES, "the hour given is not that of the last frame"
        return StandInSession(simulator, self.frames_per_block)


class StandInSession:
    def __init__(self, simulator: Simulator, frames_per_block: int) -> None:
        self.simulator = simulator
        self.frames_per_block = frames_per_block

    def __enter__(self) -> StandInSession:
        return self

    def __exit__(self, *_: object) -> None: ...

    def step(self, keys: Iterable[str]) -> Chunk:
        held = frozenset(keys)
        frames = np.stack([self.simulator.step(held) for _ in range(self.frames_per_block)])
        return Chunk(frames=frames, block=0, keys=held)


def stand_in(*, frames_per_block: int = 1) -> Any:
    return StandIn(frames_per_block=frames_per_block)


@pytest.fixture
def short_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real play of 96 frames, each episode once."""
    monkeypatch.setattr(world_quality, "explore", lambda seed, *, frames_per_block: played(seed, frames_per_block))


@pytest.mark.parametrize("frames_per_block", [1, 4])
def test_real_play_is_whole_and_holds_its_keys_through_blocks(frames_per_block: int) -> None:
    episode = played(SEED, frames_per_block)
    total = len(episode.frames)
    assert FRAMES <= total < FRAMES + frames_per_block
    assert (
        len(episode.keys) == len(episode.play.shown) == len(episode.play.places) == len(episode.play.actions) == total
    )
    for start in range(1, total, frames_per_block):
        assert len(set(episode.keys[start : start + frames_per_block])) == 1
    assert np.abs(np.diff(episode.play.places, axis=0)).sum(axis=1).max() == 1
    daylight = day()[(episode.hour + np.arange(total)) % 300]
    np.testing.assert_allclose(episode.play.shown.daylight, daylight, atol=0.05)


def test_real_play_is_that_of_its_seed() -> None:
    again = explore(SEED, frames_per_block=1, most=9)
    np.testing.assert_array_equal(again.frames, played(SEED, 1).frames[:9])
    assert again.keys == played(SEED, 1).keys[:9]


def test_episodes_too_short_to_leave_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = played(SEED, 1)

    def ending(seed: int, *, frames_per_block: int) -> Episode:
        return replace(whole, seed=seed, frames=whole.frames[: CONTEXT + OWN + seed % 2])

    monkeypatch.setattr(world_quality, "explore", ending)
    assert [episode.seed for episode in explore_many(10, 3, frames_per_block=1)] == [11, 13, 15]


@pytest.mark.parametrize("frames_per_block", [1, 4])
def test_a_branch_under_the_same_keys_repeats_real_play(frames_per_block: int) -> None:
    episode = played(SEED, frames_per_block)
    at = regular_points(episode, 3, frames_per_block=frames_per_block)[1]
    made = branch(stand_in(frames_per_block=frames_per_block), episode, at, episode.keys[at : at + 8])
    np.testing.assert_array_equal(made, episode.frames[at : at + 8])


@pytest.mark.parametrize("frames_per_block", [1, 2, 4])
def test_regular_points_are_block_borders_with_room(frames_per_block: int) -> None:
    points = regular_points(played(SEED, 1), 4, frames_per_block=frames_per_block)
    assert len(points) == 4
    assert points == sorted(set(points))
    assert all(at % frames_per_block == 1 % frames_per_block for at in points)
    assert points[0] >= CONTEXT
    assert points[-1] + OWN <= FRAMES


def test_an_episode_without_room_has_no_points() -> None:
    whole = played(SEED, 1)
    assert regular_points(replace(whole, frames=whole.frames[: CONTEXT + OWN - 1]), 4, frames_per_block=1) == []


def test_effects_are_drawn_up_to_a_number_of_each_kind() -> None:
    episode = played(SEED, 1)
    every = effect_points([episode], 1_000, frames_per_block=1, rng=np.random.default_rng(0))
    few = effect_points([episode], 2, frames_per_block=1, rng=np.random.default_rng(0))
    assert "blocked" in every
    for kind, cases in every.items():
        assert len(few[kind]) == min(2, len(cases))
        assert {at for _, at in few[kind]} <= {at for _, at in cases}
        assert all(at >= CONTEXT for _, at in cases)


def test_a_walk_mostly_moves_and_is_that_of_its_seed() -> None:
    keys = walk_keys(CONTROLS, np.random.default_rng(3), 480)
    assert len(keys) == 480
    assert keys == walk_keys(CONTROLS, np.random.default_rng(3), 480)
    assert keys != walk_keys(CONTROLS, np.random.default_rng(4), 480)
    moving = [held for held in keys if held & {"KeyA", "KeyD", "KeyW", "KeyS"}]
    assert len(moving) > 0.85 * 480
    assert len(set(moving)) == 4


def test_a_walk_is_relived_by_the_engine() -> None:
    one = walk(stand_in(), played(SEED, 1), seconds=5)
    assert len(one.made) == 40
    np.testing.assert_array_equal(relive(one, [39])[0], one.frames[0])
    np.testing.assert_allclose(one.made.daylight, daylight_of(one), atol=0.05)


@pytest.mark.timeout(180)  # each process imports everything anew
def test_processes_that_generate_at_once_answer_in_the_order_of_the_cases(tmp_path: Path) -> None:
    weights, backbone = tmp_path / "weights.safetensors", SmallBackbone(CRAFTER.backbone)
    save_weights(weights, CRAFTER.backbone, backbone.state_dict(), dtype=torch.bfloat16)
    cases = [(played(seed, 1), 1) for seed in (SEED, SEED + 1, SEED)]
    with at_once(2, {"weights": weights, "steps": 1}) as every:
        walks = every("walks", world_quality._walk_on, cases)
    assert [one.episode.seed for one in walks] == [SEED, SEED + 1, SEED]
    assert [len(one.made) for one in walks] == [8, 8, 8]
    np.testing.assert_array_equal(walks[0].made.tiles, walks[2].made.tiles)


@pytest.mark.parametrize("frames_per_block", [1, 4])
@pytest.mark.usefixtures("short_episodes")
def test_the_engine_in_the_worlds_place_reaches_the_bars(frames_per_block: int) -> None:
    world = stand_in(frames_per_block=frames_per_block)
    found, sheet = measure(world, Amount(episodes=2, rollouts=2, effects=1, walks=1, seconds=5), SEED)
    measures = found["measures"]
    for name in (
        *("tiles_one_block_ahead", "sprite_one_block_ahead", "inventory_one_block_ahead"),
        *("ground_after_16_frames", "effect_of_blocked", "clean_after_60s"),
    ):
        assert measures[name]["value"] == 1.0, name
        assert measures[name]["passed"]
    assert measures["neighbour_variation"]["value"] == 0.0
    assert measures["neighbour_variation"]["passed"]
    assert sheet.shape == (5 * (14 + 288), 6 * 144, 3)


def late(rollout: Rollout, frames: Frames) -> Rollout:
    """The rollout with every generated frame shown one frame late."""
    delayed = np.concatenate([frames[:1], frames[:-1]])
    return replace(rollout, made=rollout.real.shown[:CONTEXT].then(read_frames(delayed)))


def test_a_world_that_is_late_misses_bars() -> None:
    episode = played(SEED, 1)
    points = regular_points(episode, 3, frames_per_block=1)
    rolled = [roll(stand_in(), episode, at, OWN) for at in points]
    good = judge_rollouts([rollout for rollout, _ in rolled], 4, np.random.default_rng(0))
    bad = judge_rollouts([late(rollout, made) for rollout, made in rolled], 4, np.random.default_rng(0))
    assert good["tiles_one_block_ahead"].value == 1.0
    assert bad["tiles_one_block_ahead"].value < 0.99
    assert bad["sprite_one_block_ahead"].value < 0.99


@pytest.fixture
def perfect() -> list[Rollout]:
    """Real play against itself."""
    episode = played(SEED + 2, 1)
    return [
        Rollout(real=part, made=part.shown, past=CONTEXT)
        for part in (episode.play[at - CONTEXT : at + OWN] for at in regular_points(episode, 8, frames_per_block=1))
    ]


def test_what_comes_into_view_has_to_have_the_engines_neighbours(perfect: list[Rollout]) -> None:
    flooded = []
    for rollout in perfect:
        tiles = rollout.made.tiles.copy()
        for at in range(CONTEXT, CONTEXT + OWN):
            tiles[at][entered(rollout, at)] = class_of("water")
        flooded.append(replace(rollout, made=replace(rollout.made, tiles=tiles)))
    good = judge_neighbours(perfect, np.random.default_rng(0))
    bad = judge_neighbours(flooded, np.random.default_rng(0))
    assert good["neighbour_variation"].value == 0.0
    assert bad["neighbour_variation"].value > 0.3
    assert good["neighbour_variation"].judged == bad["neighbour_variation"].judged > 0
    chance = good["neighbour_variation_by_chance"]
    assert 0.0 < chance.value < 1.0
    assert chance == bad["neighbour_variation_by_chance"]  # it knows nothing of the generated world


def test_what_chance_has_had_a_say_in_is_not_judged(perfect: list[Rollout], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world_quality.metrics, "decided", lambda rollout: np.zeros(len(rollout.made), np.bool_))
    found = judge_rollouts(perfect, 1, np.random.default_rng(0))
    assert {measure.judged for measure in found.values()} == {0}
    assert all(np.isnan(measure.value) for measure in found.values())


def test_a_walk_under_a_sun_that_stands_still_or_in_a_blur_is_seen() -> None:
    episode = replace(played(SEED, 1), hour=0)
    frame = episode.play.shown[40:41]
    frames = 480
    still = replace(
        frame,
        **{
            name: getattr(frame, name).repeat(frames, 0)
            for name in ("tiles", "distance", "visible", "daylight", "sleeping", "inventory")
        },
    )
    keys = (frozenset[str](),) * frames
    fixed = Walk(episode=episode, at=CONTEXT, keys=keys, frames=episode.frames[:6], made=still)
    follows = replace(fixed, made=replace(still, daylight=np.array(daylight_of(fixed), np.float32)))
    blurred = replace(fixed, made=replace(still, distance=still.distance + 9))
    rng = np.random.default_rng(0)
    assert judge_walks([fixed], 8, rng)["sun_sets"].value == 0.0
    assert judge_walks([follows], 8, rng)["sun_sets"].value == 1.0
    assert judge_walks([fixed], 8, rng)["clean_after_60s"].value == 1.0
    assert judge_walks([blurred], 8, rng)["clean_after_60s"].value == 0.0


def test_a_share_is_over_all_cases_and_unknown_without_any() -> None:
    rng = np.random.default_rng(0)
    found = share([[Count(1, 2), Count(0, 0)], [Count(4, 4)]], rng)
    assert found.value == pytest.approx(5 / 6)
    assert 0.5 <= found.low <= found.value <= found.high <= 1
    assert found.judged == 6
    assert np.isnan(share([[], [Count(0, 0)]], rng).value)


def test_a_verdict_needs_the_value_on_the_right_side_of_its_bar() -> None:
    def found(value: float) -> Measure:
        return Measure(value=value, low=value, high=value, judged=1)

    verdict = verdicts({"neighbour_variation": found(0.04), "effect_of_drink": found(0.94), "extra": found(0.5)})
    assert verdict["neighbour_variation"]["passed"]
    assert not verdict["effect_of_drink"]["passed"]
    assert "passed" not in verdict["extra"]
    assert not verdict["sun_sets"]["passed"]  # never measured
    assert set(BARS) <= set(verdict)


def test_the_sheet_shows_real_above_generated_for_every_strip() -> None:
    real, made = np.full((3, 72, 72, 3), 200, np.uint8), np.full((3, 72, 72, 3), 90, np.uint8)
    sheet = contact_sheet([(["a", "b", "c"], real, made), (["d"], real[:1], made[:1])])
    strip = 14 + 2 * 144
    assert sheet.shape == (2 * strip, 3 * 144, 3)
    assert (sheet[14 : 14 + 144] == 200).all()
    assert (sheet[14 + 144 : strip] == 90).all()
    assert (sheet[:14] > 0).any()  # the times
    assert (sheet[strip + 14 :, 144:] == 0).all()


@pytest.mark.parametrize("passed", [True, False])
def test_the_command_writes_both_files_and_exits_with_the_verdict(
    passed: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    measures = {"effect_of_drink": {"value": 0.5, "low": 0.4, "high": 0.6, "judged": 9, "passed": passed}}
    sheet = np.zeros((4, 6, 3), np.uint8)
    sheet[..., 0] = 250
    loaded = type("Loaded", (), {"calls_per_block": 4})
    monkeypatch.setattr(worldsim, "load", lambda *_, **__: loaded)
    monkeypatch.setattr(world_quality, "measure", lambda *_: ({"measures": measures}, sheet))
    monkeypatch.setattr(world_quality, "RESULTS", tmp_path)
    app = typer.Typer()
    app.command()(world_quality.main)
    result = CliRunner().invoke(app, ["--name", "trial", "--frames-per-block", "2"])
    assert result.exit_code == (0 if passed else 1), result.output
    found = json.loads((tmp_path / "trial.json").read_text())
    assert found["measures"] == measures
    assert found["frames_per_block"] == 2
    assert found["provenance"]["commit"]
    picture = cv2.imread(str(tmp_path / "trial.png"))
    assert picture is not None
    assert (picture[..., 2] == 250).all()  # OpenCV reads blue first


def test_every_kind_of_effect_with_a_bar_is_a_kind() -> None:
    kinds: set[Kind] = {"blocked", "collect", "drink"}
    assert {f"effect_of_{kind}" for kind in kinds} == {name for name in BARS if name.startswith("effect")}
