"""The training loop of the bundled worlds: stages, a moving average, checkpoints that resume bit for bit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.func import functional_call

from worldsim.cache.pool import PageShape
from worldsim.cache.rotary import Rotary
from worldsim.errors import BrokenRun, ConfigError, DataError
from worldsim.files import checksum, write_tensors
from worldsim.geometry import LatentGeometry
from worldsim.models.protocol import Backbone, DrawingBackbone
from worldsim.training.passes import Play, recalling

SEEDS = 1 << 64
"""How many seeds torch tells apart."""

Loss = Callable[[Backbone, Play, torch.Generator], Tensor]
"""A scalar with gradient, of a backbone, windows of 1 + frames frames and the only source of randomness, on their
device."""


class Windows(Protocol):
    """Where a trainer gets its windows from."""

    def sample(self, rng: np.random.Generator, *, windows: int, frames: int, under: tuple[int, ...] = ()) -> Play:
        """That many windows, of that many frames each.

        Where controls are named, one of them steers the last frame of each window, and whatever came of it, each event
        that was recorded, is drawn as often as every other.
        """
        ...


class Objective(Protocol):
    """What a stage minimises over windows of 1 + frames frames."""

    @property
    def frames(self) -> int:
        """Frames of a window after its first."""
        ...

    def loss(self, backbone: Backbone, play: Play, generator: torch.Generator, /) -> Tensor:
        """See Loss."""
        ...


@runtime_checkable
class Distillation(Protocol):
    """What a stage minimises when it learns from what was learned before it."""

    @property
    def frames(self) -> int:
        """Frames of a window after its first."""
        ...

    def taught_by(self, teacher: Reweighted, /) -> Loss:
        """The loss under a teacher: the averaged weights as they were when the stage began, frozen."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Some updates of one objective.

    Args:
        updates: how many.
        objective: what is minimised.
        windows: windows in one update.
        lr: learning rate at its first and at its last update, linear between.
    """

    updates: int
    objective: Objective | Distillation
    windows: int
    lr: tuple[float, float]

    def __post_init__(self) -> None:
        if self.updates < 1 or self.windows < 1 or min(self.lr) < 0:
            raise ConfigError(f"a stage needs updates and windows of at least 1 and lr of at least 0, got {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Acting:
    """Updates that learn what hands do, of short windows that each end where something is done.

    What is done follows from the frame before it. A long window spends all its other frames on what is known by then,
    and by the share of its frames one that takes a diamond would hardly ever be drawn.

    share: of all updates.
    controls: one of them steers the last frame of each window, see Windows.
    objective: what is minimised, in place of that of the stage.
    windows: windows in one update.
    """

    share: float
    controls: tuple[int, ...]
    objective: Objective | Distillation
    windows: int

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1 or not self.controls or self.windows < 1:
            raise ConfigError(
                f"a share of updates in [0, 1] has windows, at least 1, that end with one of 1 control or more, got "
                f"{self}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """All that decides the weights beside the data.

    Args:
        stages: one after the other.
        seed: of the weights at the start, the windows drawn and their noise.
        warmup: updates over which the learning rate rises from 0, at the very start.
        weight_decay: on the matrices of the layers.
        average: decay of the moving average of the weights, which is what is shipped; it grows into that value.
        clip: the largest norm of a gradient.
        seldom: the share of windows drawn for the event of their last frame, see LatentWindows.
        acting: a share of updates that learn something else than their stage; none if None.
        only: how the names of the parameters begin that are learned while all others stay as they are; all if empty.
    """

    stages: tuple[Stage, ...]
    seed: int = 0
    warmup: int = 200
    weight_decay: float = 0.01
    average: float = 0.999
    clip: float = 1.0
    seldom: float = 0.0
    acting: Acting | None = None
    only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.seed < SEEDS:
            raise ConfigError(f"a seed of training lies in 0 .. 2**64 - 1, got {self.seed}; name another")
        if not self.stages or self.warmup < 1 or not 0 <= self.average < 1 or not self.clip > 0:
            raise ConfigError(f"a plan needs a stage, warmup >= 1, 0 <= average < 1 and clip > 0, got {self}")
        if not 0 <= self.seldom <= 1:
            raise ConfigError(f"a share of windows lies in [0, 1], got seldom={self.seldom}")

    def is_taught(self, stage: Stage) -> bool:
        """Whether updates of that stage need what was learned before it."""
        objectives = [stage.objective, *([] if self.acting is None else [self.acting.objective])]
        return any(isinstance(objective, Distillation) for objective in objectives)

    @property
    def fingerprint(self) -> str:
        """What tells this plan from every other, but for its seed; objectives tell all that they are in their repr."""
        return hashlib.sha256(repr(replace(self, seed=0)).encode()).hexdigest()[:16]

    @property
    def updates(self) -> int:
        return sum(stage.updates for stage in self.stages)

    @property
    def begins(self) -> tuple[int, ...]:
        """The first update of every stage."""
        return (0, *accumulate(stage.updates for stage in self.stages[:-1]))

    def at(self, update: int) -> tuple[Stage, float]:
        """The stage of that update and its learning rate."""
        inside = update
        for stage in self.stages:
            if inside < stage.updates:
                first, last = stage.lr
                rate = first + (last - first) * inside / max(1, stage.updates - 1)
                return stage, rate * min(1.0, (update + 1) / self.warmup)
            inside -= stage.updates
        raise ConfigError(f"update {update} lies past the plan's {self.updates}")


class Reweighted:
    """A backbone with other weights in place of its own, which stay as they are; frozen. See Backbone.

    Not a deep copy: compiled parts of a copied module would go on computing with the weights of the first.
    """

    def __init__(self, backbone: nn.Module, weights: Mapping[str, Tensor]) -> None:
        self._module = backbone
        self._backbone = cast(Backbone, backbone)
        self._weights = dict(weights)

    @property
    def geometry(self) -> LatentGeometry:
        return self._backbone.geometry

    @property
    def pages(self) -> PageShape:
        return self._backbone.pages

    @property
    def rotary(self) -> Rotary:
        return self._backbone.rotary

    @property
    def controls(self) -> int:
        return self._backbone.controls

    @torch.no_grad()
    def __call__(self, *inputs: Any) -> Tensor:
        estimate: Tensor = functional_call(self._module, self._weights, inputs)
        return estimate

    @torch.no_grad()
    def weighed(self, *inputs: Any, recalled: Tensor | None) -> tuple[Tensor, Tensor]:
        """See DrawingBackbone.weighed; of one that recalls this, if anything is."""
        weights = {f"backbone.{name}": weight for name, weight in self._weights.items()}
        found: tuple[Tensor, Tensor] = functional_call(_Weighing(self._module, recalled), weights, inputs)
        return found


class _Weighing(nn.Module):
    """Calls `weighed` of a backbone, which may recall something."""

    def __init__(self, backbone: nn.Module, recalled: Tensor | None) -> None:
        super().__init__()
        self.backbone = backbone
        self.recalled = recalled

    def forward(self, *inputs: Any) -> tuple[Tensor, Tensor]:
        backbone: Any = self.backbone
        return cast(DrawingBackbone, recalling(backbone, self.recalled)).weighed(*inputs)


class Trainer:
    """One model in training: the backbone, its average, the optimiser, and how many updates there were.

    Args:
        backbone: what is trained, in float32, on the device of the windows.
        plan: see TrainingPlan.
        windows: where windows of latents come from.
    """

    def __init__(self, backbone: nn.Module, plan: TrainingPlan, windows: Windows) -> None:
        self.backbone = backbone
        self.plan = plan
        self.update = 0
        self._windows = windows
        self._device = next(backbone.parameters()).device
        self._names = [name for name, _ in backbone.named_parameters()]
        self._parameters: list[Tensor] = list(backbone.parameters())
        if plan.only:
            for name, parameter in backbone.named_parameters():
                parameter.requires_grad_(parameter.requires_grad and name.startswith(plan.only))
        self.average = [parameter.detach().clone() for parameter in self._parameters]
        self._teacher: dict[str, Tensor] = {}
        self._optimizers = _optimizers(backbone, plan.weight_decay)

    def step(self) -> float:
        """One update; returns its loss. What it draws depends on the plan's seed and the update's number alone.

        Raises:
            BrokenRun: the loss or its gradient is no finite number. The update was not made.
        """
        stage, rate = self.plan.at(self.update)
        rng = np.random.default_rng([self.plan.seed, self.update])
        generator = torch.Generator(self._device).manual_seed(int(rng.integers(2**62)))
        self._take_teacher(stage)
        loss_of, play = self._draw(stage, rng)
        with torch.autocast(self._device.type, dtype=torch.bfloat16):
            loss = loss_of(cast(Backbone, self.backbone), play, generator)
        self.backbone.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self.plan.clip, foreach=True)
        if not bool((loss.detach() + norm).isfinite()):
            raise BrokenRun(
                f"update {self.update + 1} has a loss of {float(loss.detach()):.3g} and a gradient of norm "
                f"{float(norm):.3g}, from which nothing is learned"
            )
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
        self.update += 1
        decay = min(self.plan.average, (1 + self.update) / (10 + self.update))
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self._parameters, 1 - decay)
        return float(loss.detach())

    def _draw(self, stage: Stage, rng: np.random.Generator) -> tuple[Loss, Play]:
        """What an update of that stage learns, and from what."""
        acting = self.plan.acting
        if acting is not None and rng.random() < acting.share:
            frames, under = 1 + acting.objective.frames, acting.controls
            play = self._windows.sample(rng, windows=acting.windows, frames=frames, under=under)
            return self._loss(acting.objective), play
        return self._loss(stage.objective), self._windows.sample(
            rng, windows=stage.windows, frames=1 + stage.objective.frames
        )

    def averaged(self) -> dict[str, Tensor]:
        """The moving average of the weights, by name: what is judged and shipped."""
        return dict(zip(self._names, self.average, strict=True))

    @contextmanager
    def on_average(self) -> Iterator[Backbone]:
        """The backbone with its averaged weights in place of its own, for as long as the context lasts."""
        own = [parameter.detach().clone() for parameter in self._parameters]
        try:
            self._put(self.average)
            yield cast(Backbone, self.backbone)
        finally:
            self._put(own)

    @torch.no_grad()
    def _put(self, weights: Sequence[Tensor]) -> None:
        for parameter, weight in zip(self._parameters, weights, strict=True):
            parameter.copy_(weight)

    def save(self, path: Path, **notes: object) -> None:
        """Write everything that `load` needs to go on bit for bit; the file before it stays until this one is whole.

        Args:
            path: of the file.
            notes: plain values that its header is to hold too, see read_header.

        Raises:
            BrokenRun: what would be written is not all finite numbers.
            OSError: it could not be written, as on a full disk.
        """
        tensors: dict[str, Tensor] = {f"teacher/{name}": tensor for name, tensor in self._teacher.items()}
        for index, (name, parameter) in enumerate(zip(self._names, self._parameters, strict=True)):
            tensors[f"weights/{name}"] = parameter.detach()
            tensors[f"average/{name}"] = self.average[index]
            for key, value in self._state(parameter).items():
                tensors[f"optimizer/{name}/{key}"] = value
        if broken := [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]:
            raise BrokenRun(f"after update {self.update} there are numbers that are none in {broken[0]}")
        fields = {"update": self.update, "seed": self.plan.seed, "plan": self.plan.fingerprint, **notes}
        write_tensors(path, tensors, fields | {"sha256": checksum(tensors, fields)})

    def load(self, path: Path) -> None:
        """Go on from a checkpoint that `save` wrote.

        Raises:
            DataError: the file is not such a checkpoint, torn, of another backbone, plan or seed. Nothing has changed.
        """
        fields, tensors = read_header(path), _read(path)
        claimed = fields.pop("sha256")
        if claimed != checksum(tensors, fields):
            raise DataError(f"{path} is torn: it is not as it was written; {_ANEW}")
        parts = {kind: _part(tensors, kind) for kind in ("weights", "average", "teacher")}
        shapes = {name: p.shape for name, p in zip(self._names, self._parameters, strict=True)}
        for kind, part in parts.items():
            if (part or kind != "teacher") and {name: tensor.shape for name, tensor in part.items()} != shapes:
                raise DataError(f"{path} is a checkpoint of another backbone; start anew in another folder")
        self._check(path, fields)
        self.update = fields["update"]
        self._teacher = {name: tensor.to(self._device) for name, tensor in parts["teacher"].items()}
        with torch.no_grad():
            for index, (name, parameter) in enumerate(zip(self._names, self._parameters, strict=True)):
                parameter.copy_(parts["weights"][name])
                self.average[index].copy_(parts["average"][name])
                state = self._state(parameter)
                state.clear()
                for key, value in _part(tensors, f"optimizer/{name}").items():
                    state[key] = value if key == "step" else value.to(self._device)

    def _take_teacher(self, stage: Stage) -> None:
        """Keep the teacher of a stage that has one: it is taken at the stage's first update."""
        if not self.plan.is_taught(stage):
            self._teacher = {}
        elif self.update in self.plan.begins:
            self._teacher = {name: tensor.clone() for name, tensor in self.averaged().items()}

    def _loss(self, objective: Objective | Distillation) -> Loss:
        if not isinstance(objective, Distillation):
            return objective.loss
        return objective.taught_by(Reweighted(self.backbone, self._teacher))

    def _check(self, path: Path, fields: dict[str, Any]) -> None:
        """Raise DataError unless it was this plan that the checkpoint was made by."""
        seed = fields["seed"]
        if seed != self.plan.seed:
            raise DataError(f"{path} was trained with seed {seed}, not {self.plan.seed}; resume with seed {seed}")
        if fields["plan"] != self.plan.fingerprint:
            raise DataError(
                f"{path} was trained by another plan; resume it as it was begun, on the same kind of device and with "
                f"the same version, or {_ANEW}"
            )

    def _state(self, parameter: Tensor) -> dict[str, Tensor]:
        """What its optimiser remembers of one parameter; it may be written to."""
        (optimizer,) = (o for o in self._optimizers if any(parameter is p for g in o.param_groups for p in g["params"]))
        state: dict[str, Tensor] = optimizer.state[parameter]
        return state


_ANEW = "begin anew in another folder, from the weights beside it with --weights if they are there"


def read_header(path: Path) -> dict[str, Any]:
    """What a checkpoint says of itself: "update", "seed", "plan", "sha256" and what `save` was told to note.

    Raises:
        DataError: it is no checkpoint of this version.
    """
    try:
        with safe_open(path, framework="pt") as file:
            fields = json.loads((file.metadata() or {}).get("worldsim", "{}"))
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not a readable checkpoint ({error}); {_ANEW}") from error
    if not isinstance(fields, dict) or "update" not in fields:
        raise DataError(f"{path} is no checkpoint of worldsim train; {_ANEW}")
    if not {"seed", "plan", "sha256"} <= fields.keys():
        raise DataError(f"{path} was written by an earlier version, which did not note its plan; {_ANEW}")
    return fields


def _read(path: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} is not a readable checkpoint ({error}); {_ANEW}") from error


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors below a prefix, by the rest of their names."""
    start = f"{prefix}/"
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def _optimizers(backbone: nn.Module, weight_decay: float) -> tuple[torch.optim.Optimizer, ...]:
    """Muon for the matrices of the layers, AdamW for all else.

    After two minutes on one core each, Muon's error on held-out episodes was a tenth below that of AdamW alone.
    Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers"; its rate scaled to that of AdamW as in
    Liu et al. 2025 (arXiv:2502.16982), section 2.2.
    """
    layers = {id(p) for name, p in backbone.named_parameters() if name.startswith("layers.") and "weight" in name}
    matrices = [p for p in backbone.parameters() if id(p) in layers and p.ndim == 2]
    others = [p for p in backbone.parameters() if not any(p is matrix for matrix in matrices)]
    return (
        torch.optim.Muon(matrices, lr=0.0, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=0.0, betas=(0.9, 0.99), weight_decay=0.0, foreach=True),
    )
