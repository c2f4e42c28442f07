"""What benchmarks.reading asks about, what each past shows, and that teaching goes on from where it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import reading
from benchmarks.reading import POLICY, RECENT, Nearest, Teaching, made, materials_of, pasts, points, teach
from benchmarks.tiles import CENTRE, COLUMNS, MATERIALS, ROWS
from tests.benchmarks.test_ablation import RECIPE
from worldsim.cache.policy import Policy, Window
from worldsim.cache.retrieval import Retrieval
from worldsim.codec.patches import PatchCodec
from worldsim.decoding.video import LatentBlock, VideoDecoder
from worldsim.errors import DataError
from worldsim.models.small.weights import load_weights, save_weights
from worldsim.testing.fakes import SIDE_PX, tiny_backbone, tiny_world
from worldsim.training.data import Series, record
from worldsim.training.trainer import Stage, TrainingPlan


def there_and_back(steps: int, seed: int = 0) -> Any:
    """An episode that walks to the right and back again, over land of random materials."""
    columns = [*range(steps), *range(steps, -1, -1)]
    land = np.random.default_rng(seed).integers(0, len(MATERIALS), (ROWS, steps + COLUMNS + 1))
    materials = np.stack([land[:, column : column + COLUMNS] for column in columns])
    visible = np.ones(materials.shape, np.bool_)
    return SimpleNamespace(
        frames=np.zeros((len(columns), 6, 10, 3), np.uint8),
        play=SimpleNamespace(
            places=np.array([(0, column) for column in columns]),
            shown=SimpleNamespace(materials=materials, visible=visible, tiles=materials),
        ),
    )


def test_asked_about_is_ground_that_only_an_old_run_shows() -> None:
    episode = there_and_back(60)
    found = points(episode)
    assert found
    for now, ground in found.items():
        column = int(episode.play.places[now][1])
        assert now > 60, "of what comes on the way out nothing was seen before"
        assert ground == {(row, column - COLUMNS // 2) for row in range(-(ROWS // 2), ROWS // 2 + 1)}
        recent = episode.play.places[now - RECENT : now, 1]
        assert column + COLUMNS // 2 < recent.max() + COLUMNS
        assert (column - COLUMNS // 2 < recent - COLUMNS // 2).all()


def test_judged_is_what_the_engine_still_shows_as_it_was_seen_last() -> None:
    episode = there_and_back(60, seed=3)
    now, ground = max(points(episode).items())
    found = materials_of(episode, ground, now)
    assert found == {(row, 0): int(episode.play.shown.materials[now, row, 0]) for row in range(ROWS)}
    materials, visible = episode.play.shown.materials, episode.play.shown.visible
    materials[now, 2, 0] = (materials[now, 2, 0] + 1) % len(MATERIALS)
    visible[now, 3, 0] = False
    hidden = [(at, CENTRE[0] + row - CENTRE[0], column) for at, row, column in seen_at(episode, now, 4)]
    for where in hidden:
        visible[where] = False
    assert {*materials_of(episode, ground, now)} == {(row, 0) for row in (0, 1, 5, 6)}


def seen_at(episode: Any, now: int, row: int) -> list[tuple[int, int, int]]:
    """Where the place at the left of that row of a view was in earlier views."""
    land = int(episode.play.places[now][1])
    columns = [(at, land - int(episode.play.places[at][1])) for at in range(now)]
    return [(at, row, column) for at, column in columns if 0 <= column < COLUMNS]


@pytest.mark.parametrize("seed", [1, 2])
def test_the_nearest_runs_hold_the_frame_whose_place_is_nearest(seed: int) -> None:
    rng = np.random.default_rng(seed)
    steps = rng.choice([-1, 0, 1], (200, 2)).cumsum(0)
    policy = Nearest(places=tuple((int(row), int(column)) for row, column in steps))
    for block in rng.integers(100, 200, size=10).tolist():
        seen = policy.see(range(block), block)
        old = range((block - POLICY.recent) // POLICY.run * POLICY.run)
        away = np.abs(steps[: len(old)] - steps[block]).sum(1)
        assert min(away[one.frame] for one in seen if one.retrieved) == away.min()


def test_every_past_is_as_long() -> None:
    for past in pasts(there_and_back(60)).values():
        assert len(past["policy"].see(range(100), 100)) == RECENT


@pytest.mark.parametrize("policy", [Window(frames=3), Retrieval(recent=2, top=1, run=2)])
def test_a_frame_is_made_from_all_that_was_real_before_it(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    world, codec = tiny_world(policy=Retrieval(recent=4, top=1, run=2)), PatchCodec(side=SIDE_PX)
    monkeypatch.setattr(reading, "CRAFTER", SimpleNamespace(codec=codec))
    rng = np.random.default_rng(5)
    height, width = codec.decode(torch.zeros(1, *world.backbone.geometry.frame_shape), None)[0].shape[1:3]
    episode: Any = SimpleNamespace(
        frames=rng.integers(0, 256, (9, height, width, 3), dtype=np.uint8), keys=[frozenset[str]()] * 9, hour=0, seed=7
    )
    found = made(world, episode, [6, 8], {"policy": policy})
    latents = codec.encode(torch.from_numpy(episode.frames), codec.open())[0][None]
    steering = torch.tensor([world.controls.vector((), at) for at in range(9)])[None]
    for frame, now in zip(found, (6, 8), strict=True):
        decoder = VideoDecoder(world.backbone, world.pool, replace(world.plan, policy=policy), seed=7)
        decoder.prefill(latents[:, :1], steering[:, :1])
        for at in range(1, now):
            decoder.commit(LatentBlock(latents=latents[:, at : at + 1], controls=steering[:, at : at + 1]))
        block = decoder.propose(steering[:, now : now + 1])
        assert np.array_equal(frame, codec.decode(block.latents[0], codec.open())[0][0].numpy())
        decoder.close()
    assert world.pool.used == 0


def test_the_last_frame_of_an_episode_is_asked_about_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the place behind it nothing is known, and nobody asks."""
    world, codec = tiny_world(policy=POLICY, pages=64), PatchCodec(side=SIDE_PX)
    monkeypatch.setattr(reading, "CRAFTER", SimpleNamespace(codec=codec))
    height, width = codec.decode(torch.zeros(1, *world.backbone.geometry.frame_shape), None)[0].shape[1:3]
    frames = np.zeros((5, height, width, 3), np.uint8)
    episode: Any = SimpleNamespace(frames=frames, keys=[frozenset[str]()] * 5, hour=0, seed=7)
    places = tuple((0, at) for at in range(5))
    assert made(world, episode, [4], {"policy": Nearest(places=places)}).shape == (1, height, width, 3)


@pytest.fixture
def teaching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Teaching:
    monkeypatch.setattr("worldsim.training.data.SHARD_FRAMES", 90)
    record(RECIPE.recording, tmp_path / "data", Series(), frames=90)
    backbone = tiny_backbone(0, palette=6, remembers=True)
    save_weights(tmp_path / "start.safetensors", backbone.config, backbone.state_dict(), dtype=torch.float32)
    policy = Retrieval(recent=4, top=2, run=2)
    objective = replace(reading.plan_for(1, 0).stages[0].objective, frames=12, first=8, rows=())  # type: ignore[type-var]
    plan = TrainingPlan(stages=(Stage(updates=3, objective=objective, windows=1, lr=(1e-2, 1e-3)),), warmup=1)
    return Teaching(
        start=tmp_path / "start.safetensors", data=tmp_path / "data", out=tmp_path / "out", plan=plan, policy=policy
    )


def test_teaching_that_was_stopped_goes_on_and_comes_to_the_same(
    teaching: Teaching, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "EVERY", 1)
    whole = teach(RECIPE, teaching, lambda *_: None).read_bytes()
    stopped, made_here = replace(teaching, out=tmp_path / "stopped"), []

    def note(update: int, _: float) -> None:
        made_here.append(update)
        if len(made_here) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        teach(RECIPE, stopped, note)
    assert teach(RECIPE, stopped, note).read_bytes() == whole
    assert made_here == [1, 2, 2, 3]
    taught, start = (
        load_weights(at, dtype=torch.float32, device=torch.device("cpu"))
        for at in (teaching.out / reading.WEIGHTS, teaching.start)
    )
    assert not torch.equal(taught.head.weight, start.head.weight)
    assert teach(RECIPE, stopped, note).read_bytes() == whole
    with pytest.raises(DataError, match="trained by another plan"):
        teach(RECIPE, replace(stopped, plan=replace(teaching.plan, clip=2.0)), note)
