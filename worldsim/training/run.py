"""A whole training run of a world: recorded play in, a log, checkpoints and a weights file out."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from worldsim.cache.policy import Policy
from worldsim.decoding.plan import VideoPlan
from worldsim.errors import BrokenRun, ConfigError, DataError, WeightsError, shown
from worldsim.files import drop_unfinished, make_folder
from worldsim.locks import locked
from worldsim.models.compiling import check_compiler, compile_parts
from worldsim.models.protocol import Codec
from worldsim.models.small.backbone import SmallBackbone, SmallConfig
from worldsim.models.small.weights import load_weights, save_weights
from worldsim.samplers import Sampler
from worldsim.schedules import few_step_sigmas
from worldsim.training.data import Episodes
from worldsim.training.distillation import BeliefKeeping
from worldsim.training.evaluation import Evaluation, LatentWindows
from worldsim.training.palette import fit_palette
from worldsim.training.recollection import Recollections, find_restless
from worldsim.training.trainer import SEEDS, Distillation, Objective, Trainer, TrainingPlan, read_header

PALETTE_FRAMES = 50_000
"""Frames that a palette is made from, at the most; of Crafter they take 3.1 GB while it is made."""
CHECKPOINT, WEIGHTS, LOG = "checkpoint.safetensors", "weights.safetensors", "log.jsonl"


Kind = Literal["anew", "onward", "recalling"]
"""How a run begins: from random weights, from weights that know the world, or from such that are to recall it."""


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
    def plan_for(self, device: torch.device, kind: Kind, /) -> TrainingPlan: ...


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
        if not 0 <= self.seed < SEEDS:
            raise ConfigError(f"a seed of training lies in 0 .. 2**64 - 1, got {self.seed}; name another")
        if self.every < 1:
            raise ConfigError(f"a run is judged every update or more rarely, got every={self.every}")
        if self.resume and self.weights:
            raise ConfigError("a run that is resumed has weights of its own; leave --weights out, or begin a new run")
        if self.recalling and not (self.resume or self.weights):
            raise ConfigError("only weights that know a world can learn to recall it; name some with --weights")


Stopping = Callable[[], AbstractContextManager[Callable[[], bool]]]
"""Gives, for as long as a run makes updates, what is asked before each whether it is to stop."""


def never() -> AbstractContextManager[Callable[[], bool]]:
    """A run that stops at its end alone. See Stopping."""
    return nullcontext(lambda: False)


def plan_of(recipe: Recipe, out: Path, run: Run) -> TrainingPlan:
    """By what plan a run into that folder is made.

    Raises:
        ConfigError: the world has no plan for that.
        DataError: the folder is not as the run needs it, see train_world.
    """
    _check_folder(out, run)
    kind = _kind(out, run)
    plan = recipe.plan_for(run.device, kind)
    if kind == "anew" and plan.is_taught(plan.stages[0]):
        raise ConfigError("a plan cannot begin with a distillation: nothing is learned yet that could be taught")
    return replace(plan, seed=run.seed)


def _kind(out: Path, run: Run) -> Kind:
    """How a run begins, or did begin if it is resumed."""
    if not run.resume:
        return "recalling" if run.recalling else "onward" if run.weights else "anew"
    kind = cast(Kind, read_header(out / CHECKPOINT).get("kind", "anew"))
    if (kind == "recalling") != run.recalling:
        how = "with" if kind == "recalling" else "without"
        raise DataError(f"{out / CHECKPOINT} was trained {how} --recalling; resume it {how} it")
    return kind


def train_world(
    recipe: Recipe,
    data: Path,
    out: Path,
    run: Run,
    *,
    on_update: Callable[[int, float], None] = lambda *_: None,
    stopping: Stopping = never,
) -> dict[str, Any]:
    """Train a world on recorded play by its own plan, and judge its averaged weights on held-out episodes as it goes.

    Args:
        recipe: of the world.
        data: the folder that `record` wrote to, with held-out episodes too.
        out: the folder that gets checkpoint.safetensors, weights.safetensors (averaged, bfloat16) and log.jsonl, all
            at every evaluation, so that a run can be looked into while it goes on. One run at a time holds it.
        run: see Run.
        on_update: told the number of updates made and the loss of the last.
        stopping: see Stopping. A run that is stopped keeps where it is at once, and is not judged.

    Returns:
        The last line of the log: "update", "minutes" of this run, "train_loss" (mean since the line before; None if
        there was no update) and what Evaluation.judge returns. Of a run that was stopped only the first three, and no
        line.

    Raises:
        ConfigError: compiling was asked for, and nothing can be compiled here.
        DataError: no episodes for training or none held out, or all of them are too short; a checkpoint is there and
            `resume` is not asked for, or the other way round, or it is torn or of another backbone, plan or seed; there
            are weights or a log without a checkpoint; another process trains into that folder.
        WeightsError: the weights to begin from cannot be read, or are of a backbone of another size.
        BrokenRun: the loss, its gradient, the weights or what they are judged by are no finite numbers any more. What
            was kept before that stays.
        OSError: the folder cannot be written to.
    """
    plan = plan_of(recipe, out, run)
    if run.compiled:
        check_compiler(run.device)
    held_out, episodes = (_episodes(recipe, data, held_out, run.device) for held_out in (True, False))
    trainer = _trainer(recipe, episodes, plan, _backbone(recipe, episodes, run))
    evaluation = _evaluation(recipe, held_out, trainer)
    evaluation.check()
    for stage in plan.stages:
        episodes.check(1 + stage.objective.frames)
    if plan.acting is not None:
        episodes.check(1 + plan.acting.objective.frames, plan.acting.controls)
    with _opened(out, run) as log:
        journal = _Journal(out, log, evaluation, kind=_kind(out, run))
        if run.resume:
            trainer.load(out / CHECKPOINT)
        try:
            return _go_on(trainer, journal, run, on_update, stopping)
        except BrokenRun as error:
            raise BrokenRun(f"{error}; {_remedy(out)}") from error


def _go_on(
    trainer: Trainer, journal: _Journal, run: Run, on_update: Callable[[int, float], None], stopping: Stopping
) -> dict[str, Any]:
    """Make updates until the end, or until it is to stop; returns what train_world does."""
    last = min(trainer.plan.updates, run.updates or trainer.plan.updates)
    with stopping() as is_stopped:
        while trainer.update < last and (run.minutes is None or journal.minutes < run.minutes):
            if is_stopped():
                return journal.keep(trainer)
            loss = trainer.step()
            journal.losses.append(loss)
            on_update(trainer.update, loss)
            if trainer.update % run.every == 0 and trainer.update < last:
                journal.write(trainer)
        return journal.write(trainer)


def _check_folder(out: Path, run: Run) -> None:
    """Raise DataError unless a run can begin in that folder, or go on if it is to."""
    checkpoint = out / CHECKPOINT
    if out.exists():
        make_folder(out)
    if checkpoint.exists() != run.resume:
        raise DataError(
            f"there is no {checkpoint} to go on from; train without --resume first"
            if run.resume
            else f"{checkpoint} is there already; go on from it with --resume, or train into another folder"
        )
    left = [path for path in (out / WEIGHTS, out / LOG) if path.exists() and path.stat().st_size]
    if left and not run.resume:
        raise DataError(
            f"{left[0]} is there already, without a checkpoint to go on from; train into another folder, or move it"
        )


def _episodes(recipe: Recipe, data: Path, held_out: bool, device: torch.device) -> Episodes:
    config = recipe.backbone
    shown, _ = recipe.codec.decode(torch.zeros(1, config.channels, config.height, config.width), recipe.codec.open())
    height, width = shown.shape[1:3]
    frame = (height, width, 3, config.controls)
    return Episodes(data, world=recipe.name, held_out=held_out, device=device, frame=frame)


def _remedy(out: Path) -> str:
    """What to do about a run that broke."""
    if not (out / CHECKPOINT).exists():
        return "nothing was kept yet; look at the weights it began from, or begin with another --seed"
    return (
        f"what was kept before stays, and going on from it would come to the same: begin anew in another folder with "
        f"--weights {out / WEIGHTS} and another --seed"
    )


def _backbone(recipe: Recipe, episodes: Episodes, run: Run) -> SmallBackbone:
    """The backbone before its first update."""
    backbone = SmallBackbone(recipe.backbone, torch.Generator().manual_seed(run.seed)).to(run.device)
    if run.weights is not None:
        _begin_from(backbone, run.weights)
    elif backbone.palette is not None and not run.resume:
        backbone.palette.fill(_palette(recipe, episodes, backbone, run.seed))
        if recipe.backbone.scroll:
            backbone.palette.restless.copy_(find_restless(episodes, recipe.codec, backbone))
    if run.compiled:
        compile_parts(backbone.layers, ("before", "after"))
    return backbone


def _trainer(recipe: Recipe, episodes: Episodes, plan: TrainingPlan, backbone: SmallBackbone) -> Trainer:
    """A trainer at its first update."""
    recollections = _recollections(recipe, episodes, backbone)
    windows = LatentWindows(episodes, recipe.codec, plan.seldom, recollections=recollections)
    return Trainer(backbone, plan, windows)


def _recollections(recipe: Recipe, episodes: Episodes, backbone: SmallBackbone) -> Recollections | None:
    return Recollections(episodes, recipe.codec, backbone) if recipe.backbone.scroll else None


def _begin_from(backbone: SmallBackbone, weights: Path) -> None:
    given = load_weights(weights, dtype=torch.float32, device=torch.device("cpu"))
    if given.config not in (backbone.config, replace(backbone.config, scroll=None)):
        theirs, ours = given.config.to_dict(), backbone.config.to_dict()
        names = [name for name in ours if theirs[name] != ours[name]]
        apart = ", ".join(f"{name} {shown(theirs[name])} in place of {shown(ours[name])}" for name in names)
        raise WeightsError(
            f"{weights} is of another world or another size, {apart}; name weights of this one, or leave --weights out "
            "to train anew"
        )
    # What a backbone that does not remember yet lacks begins as if nothing were recalled.
    backbone.load_state_dict(given.state_dict(), strict=given.config == backbone.config)


def _palette(recipe: Recipe, episodes: Episodes, backbone: SmallBackbone, seed: int) -> Tensor:
    """The palette of frames spread evenly over all that was recorded."""
    every = -(-len(episodes.frames) // PALETTE_FRAMES)
    latents, _ = recipe.codec.encode(episodes.frames[::every], recipe.codec.open())
    patches = backbone.patchify(latents[None]).flatten(0, 2)
    return fit_palette(patches, recipe.backbone.palette, np.random.default_rng([seed, PALETTE_FRAMES]))


def _judged(plan: TrainingPlan) -> Objective:
    """The first objective of a plan that judges by what was recorded, alone or beside a teacher."""
    objectives = [stage.objective for stage in plan.stages]
    alone = [one.forcing if isinstance(one, BeliefKeeping) else one for one in objectives]
    return next(one for one in alone if not isinstance(one, Distillation))


def _evaluation(recipe: Recipe, held_out: Episodes, trainer: Trainer) -> Evaluation:
    backbone = cast(SmallBackbone, trainer.backbone)
    return Evaluation(
        episodes=held_out,
        recollections=_recollections(recipe, held_out, backbone),
        codec=recipe.codec,
        objective=_judged(trainer.plan),
        plan=VideoPlan(
            frames_per_block=1,
            sigmas=few_step_sigmas(recipe.steps, recipe.shift),
            sampler=recipe.sampler,
            policy=recipe.policy,
            draw=bool(recipe.backbone.palette),
            recall=recipe.backbone.scroll is not None,
        ),
    )


@contextmanager
def _opened(out: Path, run: Run) -> Iterator[FileIO]:
    """The log of a run. It is locked until the context ends, or the process does: one run at a time holds a folder."""
    make_folder(out)
    try:
        log = (out / LOG).open("ab", buffering=0)
    except OSError as error:
        raise OSError(f"{out / LOG} cannot be written ({error.strerror}); train into another folder") from error
    with log:
        if not locked(log.fileno()):
            raise DataError(f"another process trains into {out}; wait for its end, or train into another folder")
        drop_unfinished(out)
        _check_folder(out, run)  # once more: another run may have been here while this one got ready
        yield log


class _Journal:
    """What a run leaves behind: a line in the log, a checkpoint and the weights, each time it is written to."""

    def __init__(self, out: Path, log: FileIO, evaluation: Evaluation, *, kind: Kind) -> None:
        self.losses: list[float] = []
        self._out, self._log = out, log
        self._evaluation = evaluation
        self._kind = kind
        self._start = time.monotonic()

    @property
    def minutes(self) -> float:
        """Since this run began."""
        return (time.monotonic() - self._start) / 60

    def keep(self, trainer: Trainer) -> dict[str, Any]:
        """Write the checkpoint and the weights; returns what can be said of them unjudged."""
        trainer.save(self._out / CHECKPOINT, kind=self._kind)
        config = cast(SmallBackbone, trainer.backbone).config
        save_weights(self._out / WEIGHTS, config, trainer.averaged(), dtype=torch.bfloat16)
        return {
            "update": trainer.update,
            "minutes": round(self.minutes, 2),
            "train_loss": float(np.mean(self.losses)) if self.losses else None,
        }

    def write(self, trainer: Trainer) -> dict[str, Any]:
        """Judge the averaged weights and keep everything; returns the line of the log."""
        with trainer.on_average() as backbone:
            judged = self._evaluation.judge(backbone)
        if not all(map(math.isfinite, judged.values())):
            raise BrokenRun(f"after update {trainer.update} the averaged weights are judged {judged}")
        line = self.keep(trainer) | judged
        self.losses.clear()
        self._note(json.dumps(line) + "\n", trainer.update)
        return line

    def _note(self, line: str, update: int) -> None:
        """Add a line to the log, or nothing at all."""
        whole, text = self._log.tell(), line.encode()
        try:
            while text:
                text = text[self._log.write(text) :]
        except OSError as error:
            with suppress(OSError):
                self._log.truncate(whole)
            raise OSError(
                f"{self._out / LOG} cannot be written ({error.strerror}); the checkpoint and the weights of update "
                f"{update} are kept: free some space, and go on with --resume"
            ) from error
