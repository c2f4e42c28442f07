"""A whole training run of a world: recorded play in, a log, checkpoints and a weights file out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from worldsim.cache.policy import Policy
from worldsim.decoding.video import VideoPlan
from worldsim.errors import ConfigError, DataError, WeightsError
from worldsim.models.protocol import Codec
from worldsim.models.small.backbone import SmallBackbone, SmallConfig
from worldsim.models.small.weights import load_weights, save_weights
from worldsim.samplers import Sampler
from worldsim.schedules import few_step_sigmas
from worldsim.training.data import Episodes
from worldsim.training.evaluation import Evaluation, LatentWindows
from worldsim.training.palette import fit_palette
from worldsim.training.recollection import Recollections
from worldsim.training.trainer import Distillation, Trainer, TrainingPlan

PALETTE_FRAMES = 50_000
"""Frames that a palette is made from, at the most; of Crafter they take 3.1 GB while it is made."""
CHECKPOINT, WEIGHTS, LOG = "checkpoint.safetensors", "weights.safetensors", "log.jsonl"


class Recipe(Protocol):
    """What training needs to know of a world; worldsim.presets.WorldRecipe is one."""

    @property
    def name(self) -> str: ...
    @property
    def codec(self) -> Codec[Any]: ...
    @property
    def backbone(self) -> SmallConfig: ...
    @property
    def policy(self) -> Policy: ...
    @property
    def steps(self) -> int: ...
    @property
    def shift(self) -> float: ...
    @property
    def sampler(self) -> Sampler: ...
    def plan_for(self, device: torch.device, *, recalling: bool) -> TrainingPlan: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a user says about a training run.

    Args:
        device: where to train.
        seed: of the weights at the start, the windows drawn and their noise. Equal seeds, data, devices and numbers of
            threads give equal weights.
        minutes: stop after this long, between two updates; no limit if None.
        updates: stop after so many in all, those before a resumption included; those of the plan if None or more.
        resume: go on from the checkpoint in the folder.
        weights: begin from this weights file, with the palette it has; from random weights if None.
        compiled: compile the layers. On two CPU cores an update of Crafter then took 0.7 s in place of 0.95 s, after
            15 to 60 s of compiling: right for runs of more than a few minutes. It needs a C++ compiler on a CPU.
        every: updates between two evaluations, each with a line in the log and a checkpoint.
        recalling: train by the plan by which weights that know the world, but remember no places, learn to recall them.
    """

    device: torch.device
    seed: int = 0
    minutes: float | None = None
    updates: int | None = None
    resume: bool = False
    weights: Path | None = None
    compiled: bool = False
    every: int = 250
    recalling: bool = False

    def __post_init__(self) -> None:
        if (self.minutes is not None and not self.minutes > 0) or (self.updates is not None and self.updates < 1):
            raise ConfigError(f"train for more than 0 minutes and 1 update or more, got {self.minutes}, {self.updates}")
        if self.seed < 0 or self.every < 1:
            raise ConfigError(f"a run needs seed >= 0 and every >= 1, got {self.seed} and {self.every}")
        if self.resume and self.weights:
            raise ConfigError("a run that is resumed has weights of its own; leave --weights out, or begin a new run")
        if self.recalling and not (self.resume or self.weights):
            raise ConfigError("only weights that know a world can learn to recall it; name some with --weights")


def train_world(
    recipe: Recipe, data: Path, out: Path, run: Run, *, on_update: Callable[[int, float], None] = lambda *_: None
) -> dict[str, Any]:
    """Train a world on recorded play by its own plan, and judge its averaged weights on held-out episodes as it goes.

    Args:
        recipe: of the world.
        data: the folder that `record` wrote to, with held-out episodes too.
        out: the folder that gets checkpoint.safetensors, weights.safetensors (averaged, bfloat16) and log.jsonl, all
            at every evaluation, so that a run can be looked into while it goes on.
        run: see Run.
        on_update: told the number of updates made and the loss of the last.

    Returns:
        The last line of the log: "update", "minutes" of this run, "train_loss" (mean since the line before; None if
        there was no update) and what Evaluation.judge returns.

    Raises:
        DataError: no episodes for training or none held out; a checkpoint is there and `resume` is not asked for, or
            the other way round, or it is torn or of another backbone, plan or seed.
        WeightsError: the weights to begin from cannot be read, or are of a backbone of another size.
    """
    checkpoint = out / CHECKPOINT
    if checkpoint.exists() != run.resume:
        raise DataError(
            f"there is no {checkpoint} to go on from; train without --resume first"
            if run.resume
            else f"{checkpoint} is there already; go on from it with --resume, or train into another folder"
        )
    held_out, episodes = (
        Episodes(data, world=recipe.name, held_out=held_out, device=run.device) for held_out in (True, False)
    )
    backbone = _backbone(recipe, episodes, run)
    trainer = _trainer(recipe, episodes, run, backbone)
    journal = _Journal(recipe, held_out, out, trainer)
    if run.resume:
        trainer.load(checkpoint)
    out.mkdir(parents=True, exist_ok=True)
    last = min(trainer.plan.updates, run.updates or trainer.plan.updates)
    while trainer.update < last and (run.minutes is None or journal.minutes < run.minutes):
        loss = trainer.step()
        journal.losses.append(loss)
        on_update(trainer.update, loss)
        if trainer.update % run.every == 0 and trainer.update < last:
            journal.write(trainer)
    return journal.write(trainer)


def _backbone(recipe: Recipe, episodes: Episodes, run: Run) -> SmallBackbone:
    """The backbone before its first update."""
    backbone = SmallBackbone(recipe.backbone, torch.Generator().manual_seed(run.seed)).to(run.device)
    if run.weights is not None:
        _begin_from(backbone, run.weights)
    elif backbone.palette is not None and not run.resume:
        backbone.palette.fill(_palette(recipe, episodes, backbone, run.seed))
    if run.compiled:
        for layer in backbone.layers:
            for part in ("before", "after"):
                setattr(layer, part, torch.compile(getattr(layer, part), dynamic=False))
    return backbone


def _trainer(recipe: Recipe, episodes: Episodes, run: Run, backbone: SmallBackbone) -> Trainer:
    """A trainer at its first update."""
    plan = recipe.plan_for(run.device, recalling=run.recalling)
    recollections = _recollections(recipe, episodes, backbone)
    windows = LatentWindows(episodes, recipe.codec, plan.seldom, recollections)
    return Trainer(backbone, replace(plan, seed=run.seed), windows)


def _recollections(recipe: Recipe, episodes: Episodes, backbone: SmallBackbone) -> Recollections | None:
    return Recollections(episodes, recipe.codec, backbone) if recipe.backbone.scroll else None


def _begin_from(backbone: SmallBackbone, weights: Path) -> None:
    given = load_weights(weights, dtype=torch.float32, device=torch.device("cpu"))
    if replace(given.config, scroll=backbone.config.scroll) != backbone.config:
        raise WeightsError(f"{weights} is of {given.config}, the world is learned with {backbone.config}; train anew")
    # What a backbone that does not remember yet lacks begins as if nothing were recalled.
    backbone.load_state_dict(given.state_dict(), strict=given.config == backbone.config)


def _palette(recipe: Recipe, episodes: Episodes, backbone: SmallBackbone, seed: int) -> Tensor:
    """The palette of frames spread evenly over all that was recorded."""
    every = -(-len(episodes.frames) // PALETTE_FRAMES)
    latents, _ = recipe.codec.encode(episodes.frames[::every], recipe.codec.open())
    patches = backbone.patchify(latents[None]).flatten(0, 2)
    return fit_palette(patches, recipe.backbone.palette, np.random.default_rng([seed, PALETTE_FRAMES]))


class _Journal:
    """What a run leaves behind: a line in the log, a checkpoint and the weights, each time it is written to."""

    def __init__(self, recipe: Recipe, held_out: Episodes, out: Path, trainer: Trainer) -> None:
        backbone = cast(SmallBackbone, trainer.backbone)
        self.losses: list[float] = []
        self._config = recipe.backbone
        self._out = out
        self._start = time.monotonic()
        self._evaluation = Evaluation(
            episodes=held_out,
            recollections=_recollections(recipe, held_out, backbone),
            codec=recipe.codec,
            objective=next(s.objective for s in trainer.plan.stages if not isinstance(s.objective, Distillation)),
            plan=VideoPlan(
                frames_per_block=1,
                sigmas=few_step_sigmas(recipe.steps, recipe.shift),
                sampler=recipe.sampler,
                policy=recipe.policy,
                draw=bool(recipe.backbone.palette),
                recall=recipe.backbone.scroll is not None,
            ),
        )

    @property
    def minutes(self) -> float:
        """Since this run began."""
        return (time.monotonic() - self._start) / 60

    def write(self, trainer: Trainer) -> dict[str, Any]:
        """Judge the averaged weights and keep everything; returns the line of the log."""
        weights = trainer.averaged()
        trainer.save(self._out / CHECKPOINT)
        save_weights(self._out / WEIGHTS, self._config, weights, dtype=torch.bfloat16)
        line = {
            "update": trainer.update,
            "minutes": round(self.minutes, 2),
            "train_loss": float(np.mean(self.losses)) if self.losses else None,
            **self._judge(trainer),
        }
        self.losses.clear()
        with (self._out / LOG).open("a") as log:
            log.write(json.dumps(line) + "\n")
        return line

    def _judge(self, trainer: Trainer) -> dict[str, float]:
        with trainer.on_average() as backbone:
            return self._evaluation.judge(backbone)
