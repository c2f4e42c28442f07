"""The ablation trains what it says from where it says, compares seed by seed, and makes nothing twice."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import typer

from benchmarks import ablation
from benchmarks.ablation import ARMS, Arm, Training, ablate, objective_of, surprise, table
from worldsim.cache.policies import parse_policy
from worldsim.cache.policy import Window
from worldsim.codec.patches import PatchCodec
from worldsim.controls import Keys
from worldsim.decoding.noise_plan import PLAIN, parse_noise
from worldsim.models.small.weights import load_weights, save_weights
from worldsim.presets import CRAFTER, WorldRecipe
from worldsim.testing.fakes import CONTROLS, SIDE_PX, DotSimulator, tiny_backbone
from worldsim.training.data import Episodes, Recording, Series, record
from worldsim.training.objectives import BeliefForcing
from worldsim.training.run import CHECKPOINT, LOG, WEIGHTS, Run
from worldsim.training.trainer import Stage, Trainer, TrainingPlan

Roll = Callable[[Path, Arm], dict[str, float]]
OBJECTIVE = BeliefForcing(frames=8, first=0, blocks=(1, 2))


class Wanderer:
    """Goes left and right by its seed."""

    def __init__(self, simulator: DotSimulator, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def choose(self) -> Keys:
        return CONTROLS.press(str(self._rng.choice(["left", "right"])))


RECIPE = WorldRecipe(
    name="dot",
    simulator=DotSimulator,
    recording=Recording(world="dot", simulator=DotSimulator, explorer=Wanderer, longest=30),  # type: ignore[arg-type]
    codec=PatchCodec(side=SIDE_PX),
    backbone=tiny_backbone(0, palette=6, remembers=True).config,
    training=TrainingPlan(stages=(Stage(updates=9, objective=OBJECTIVE, windows=1, lr=(1e-3, 1e-3)),), seldom=0.0),
    policy=Window(frames=5),
)


@pytest.fixture
def training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Training:
    monkeypatch.setattr("worldsim.training.data.SHARD_FRAMES", 90)
    for held_out in (False, True):
        record(RECIPE.recording, tmp_path / "data", Series(held_out=held_out), frames=90)
    backbone = tiny_backbone(0, palette=6, remembers=True)
    save_weights(tmp_path / "start.safetensors", backbone.config, backbone.state_dict(), dtype=torch.float32)
    return Training(
        start=tmp_path / "start.safetensors", data=tmp_path / "data", out=tmp_path / "out", updates=3, lr=1e-2, judged=3
    )


def noted(asked: list[tuple[str, str, bool]]) -> Roll:
    """Rollouts that only note what was to be judged."""

    def roll(weights: Path, arm: Arm) -> dict[str, float]:
        whose = weights.parent.name if weights.name == WEIGHTS else weights.name
        asked.append((whose, arm.sampled, arm.policy == ablation.SPARSE))
        return {"tiles": len(asked) / 10}

    return roll


class Weighing:
    """Rollouts that tell the sum of some weights."""

    def __call__(self, weights: Path, arm: Arm) -> dict[str, float]:
        return {"sum": float(centre(weights).sum())}


def centre(path: Path) -> torch.Tensor:
    return load_weights(path, dtype=torch.float32, device=torch.device("cpu")).head.weight


def test_every_arm_is_trained_from_the_start_and_judged_with_its_own_weights_noise_and_policy(
    training: Training,
) -> None:
    training = replace(training, updates=12)  # a force changes few tokens
    asked: list[tuple[str, str, bool]] = []
    found = ablate(RECIPE, training, list(ARMS), range(2), noted(asked))
    rising = ablation.RISING
    forced = ["forcing", "forcing_lightly", "forcing_strongly", "forcing_latest"]
    one = [(arm, "plain", False) for arm in ("base", *forced, "self_forcing")]
    one += [("schedule", rising, False), ("base", rising, False), ("base", "shuffled:window=4", False)]
    one += [("base", "plain", True), ("all", f"{rising},window=4", True)]
    start = [("start.safetensors", "plain", False)]
    assert asked == start + [(f"{arm}-{seed}", noise, sparse) for seed in range(2) for arm, noise, sparse in one]
    assert {*found} == {*ARMS}
    assert found["start"][0] == found["start"][1]
    heads = [centre(training.folder(arm, seed) / WEIGHTS) for seed in range(2) for arm in ("base", *forced, "schedule")]
    heads.append(centre(training.start))
    assert all(not torch.equal(heads[i], heads[j]) for i in range(13) for j in range(i))


def test_workers_reach_what_one_reaches(training: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    def pool(workers: int, *, initializer: Callable[[int], None], **_: object) -> ThreadPoolExecutor:
        assert initializer is torch.set_num_threads
        return ThreadPoolExecutor(workers)

    arms, apart = ["start", "base", "shuffling"], replace(training, out=training.out.with_name("apart"))
    alone = ablate(RECIPE, training, arms, [3], Weighing())
    monkeypatch.setattr(ablation, "ProcessPoolExecutor", pool)
    assert ablate(RECIPE, apart, arms, [3], Weighing(), workers=2) == alone


def test_a_world_that_is_usually_trained_onward_by_another_plan_is_ablated_by_that_of_the_arm(
    training: Training,
) -> None:
    other = replace(RECIPE.training, stages=(replace(RECIPE.training.stages[0], updates=5),))
    ablation.train(replace(RECIPE, onward=other), training, "base", 0)
    log = (training.folder("base", 0) / LOG).read_text().splitlines()
    assert json.loads(log[-1])["update"] == training.updates


def test_arms_differ_from_the_base_in_what_they_are_named_for_alone(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, tuple[TrainingPlan, Run]] = {}

    def train_world(recipe: WorldRecipe, data: Path, out: Path, run: Run, **_: object) -> None:
        seen[out.name] = (recipe.training, run)

    monkeypatch.setattr(ablation, "train_world", train_world)
    for arm in ("base", "forcing", "self_forcing", "schedule", "all"):
        ablation.train(RECIPE, training, arm, 7)
    plans = {name: plan.stages[0] for name, (plan, _) in seen.items()}
    assert all(run == seen["base-7"][1] for _, run in seen.values())
    assert seen["base-7"][1].weights == training.start
    plain = {replace(stage.objective, forcing=None, resampling=None, noise=PLAIN) for stage in plans.values()}
    assert plain == {OBJECTIVE}
    assert len({(stage.windows, stage.lr) for stage in plans.values()}) == 1
    resampling = {name: stage.objective.resampling for name, stage in plans.items() if stage.objective.resampling}
    assert resampling == {"self_forcing-7": ARMS["self_forcing"].resampling}
    fewer = plans.pop("self_forcing-7").updates
    assert {stage.updates for stage in plans.values()} == {training.updates}
    assert fewer == round(training.updates / ablation.SELF_FORCING_TAKES)
    told = {name: (stage.objective.forcing, stage.objective.noise) for name, stage in plans.items()}
    force, rising = ARMS["forcing"].forcing, parse_noise(ablation.RISING)
    assert force is not None
    assert told == {
        "base-7": (None, PLAIN),
        "forcing-7": (force, PLAIN),
        "schedule-7": (None, rising),
        "all-7": (force, rising),
    }


def test_what_is_there_is_not_made_again_and_what_was_stopped_goes_on(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []
    whole = ablate(RECIPE, training, ["base"], range(1), noted(asked))
    weights = centre(training.folder("base", 0) / WEIGHTS)
    assert ablate(RECIPE, training, ["base"], range(1), noted(asked)) == whole
    assert len(asked) == 1

    stopped = replace(training, out=training.out.with_name("stopped"))
    step = Trainer.step

    def stop(trainer: Trainer) -> float:
        if trainer.update == 2:
            raise KeyboardInterrupt
        return step(trainer)

    monkeypatch.setattr(Trainer, "step", stop)
    monkeypatch.setattr(ablation, "EVERY", 1)
    with pytest.raises(KeyboardInterrupt):
        ablate(RECIPE, stopped, ["base"], range(1), noted([]))
    assert (stopped.folder("base", 0) / CHECKPOINT).exists()
    monkeypatch.setattr(Trainer, "step", step)
    ablate(RECIPE, stopped, ["base"], range(1), noted([]))
    assert torch.equal(centre(stopped.folder("base", 0) / WEIGHTS), weights)


def test_a_folder_of_other_settings_is_left_alone(training: Training) -> None:
    ablate(RECIPE, training, ["start"], range(1), noted([]))
    with pytest.raises(typer.BadParameter, match="name another folder"):
        ablate(RECIPE, replace(training, updates=4), ["start"], range(1), noted([]))
    ablate(RECIPE, training, ["start"], range(1), noted([]))
    training.start.write_bytes(training.start.read_bytes() + b" ")
    with pytest.raises(typer.BadParameter, match="name another folder"):
        ablate(RECIPE, training, ["start"], range(1), noted([]))


def test_surprise_is_told_for_each_kind_of_token_and_the_same_every_time(training: Training) -> None:
    held_out = Episodes(training.data, world="dot", held_out=True, device=ablation.CPU)
    found = surprise(RECIPE, training.start, held_out, 12)
    assert found == surprise(RECIPE, training.start, held_out, 12)
    # The view of this world stands still, so that nothing it asks for was ever seen.
    assert {*found} == {f"surprise {name}" for name in ("in_view", "new", "below")}
    assert len({*found.values()}) == 3
    assert found != surprise(RECIPE, training.start, held_out, 11)
    backbone = load_weights(training.start, dtype=torch.float32, device=ablation.CPU)
    steering = torch.tensor([CONTROLS.vector(CONTROLS.press("right"))])[None]
    recalled = torch.full((1, 1, 3, 5), ablation.UNKNOWN)
    recalled[..., 0, 4] = 3
    classes = ablation._classes(backbone, steering, recalled)
    assert classes["recalled"].nonzero().tolist() == [[0, 0, 0, 4]]
    assert classes["new"].nonzero().tolist() == [[0, 0, 1, 4]]
    assert classes["below"].nonzero().tolist() == [[0, 0, 2, column] for column in range(5)]
    assert int(sum(mask.int() for mask in classes.values()).max()) == 1
    assert int(sum(mask.sum() for mask in classes.values())) == 15


def test_differences_are_of_the_same_seed_and_count_where_all_agree() -> None:
    found = {
        "base": {0: {"tiles": 0.5, "ground": 0.2}, 1: {"tiles": 0.7, "ground": 0.3}},
        "forcing": {0: {"tiles": 0.6, "ground": 0.1}, 1: {"tiles": 0.9, "ground": 0.4}},
    }
    rows = table(found)
    tiles, ground = rows["forcing"]["tiles"], rows["forcing"]["ground"]
    assert (tiles["mean"], tiles["min"], tiles["max"], tiles["count"]) == (pytest.approx(0.75), 0.6, 0.9, 2)
    assert tiles["apart"] == {
        "mean": pytest.approx(0.15),
        "min": pytest.approx(0.1),
        "max": pytest.approx(0.2),
        "count": 2,
    }
    assert tiles["beyond_seeds"]
    assert not ground["beyond_seeds"]
    assert not rows["base"]["tiles"]["beyond_seeds"]
    assert table({"forcing": found["forcing"]})["forcing"]["tiles"]["apart"] is None


def test_rollouts_tell_what_was_judged_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(ablation.worldsim, "load", lambda name, **settings: asked.append((name, settings)) or "world")
    measures = {
        "tiles_one_block_ahead": {"value": 0.9, "judged": 5},
        "clean_after_60s": {"value": 0.8, "judged": 3},
        "effect_of_drink": {"value": math.nan, "judged": 0},
        "sun_sets": {"value": 1.0, "judged": 3},
    }
    monkeypatch.setattr(ablation, "measure", lambda world, amount, seed: ({"measures": measures}, None))
    roll = ablation.Rollouts(amount=ablation.Amount(seconds=10), seed=5, frames_per_block=2)
    arm = Arm(sampled="shuffled", policy="sink:window=3")
    assert roll(Path("w"), arm) == {"tiles_one_block_ahead": 0.9, "clean_after_10s": 0.8}
    how = {"noise": "shuffled", "policy": "sink:window=3", "frames_per_block": 2}
    assert asked == [("crafter", {"weights": Path("w"), "device": "cpu", **how})]


def test_the_arms_of_crafter_can_be_made() -> None:
    assert objective_of(CRAFTER).rows
    for arm in ARMS.values():
        parse_noise(arm.noise), parse_noise(arm.sampled), parse_policy(arm.policy)
        assert arm.weights_of in (None, "start", *ARMS)


def test_what_was_found_is_written_and_told(
    training: Training, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written = {}
    monkeypatch.setattr(ablation, "write", lambda name, results: written.update({name: results}))
    judged = {"base": {0: {"tiles": 0.5}}, "all": {0: {"tiles": 0.75}}}
    monkeypatch.setattr(ablation, "ablate", lambda recipe, training, arms, seeds, roll, workers: judged)
    ablation.main(data=training.data, weights=training.start, out=training.out, only=["base", "all"], name="n", seeds=1)
    assert written["n"]["seed_by_seed"] == judged
    json.dumps(written)
    assert "+0.2500 on every seed" in capsys.readouterr().out
    with pytest.raises(typer.BadParameter, match="no arm basis; known: start, base"):
        ablation.main(only=["basis"])
