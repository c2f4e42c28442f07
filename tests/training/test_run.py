"""A whole training run: what it leaves behind, that it goes on where it was, and that nothing is lost in silence."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from worldsim.cache.policy import Window
from worldsim.codec.patches import PatchCodec
from worldsim.controls import Action, Controls, Keys
from worldsim.errors import BrokenRun, ConfigError, DataError, WeightsError
from worldsim.models.small.atlas import Scroll
from worldsim.models.small.backbone import SmallBackbone, SmallConfig
from worldsim.models.small.weights import load_weights
from worldsim.presets import CRAFTER
from worldsim.samplers import few_step
from worldsim.training import run as runs
from worldsim.training.data import Episodes, Recording, Series, record
from worldsim.training.distillation import FewStepDistillation
from worldsim.training.evaluation import Evaluation
from worldsim.training.objectives import BeliefForcing, DiffusionForcing
from worldsim.training.recollection import Recollections, find_restless
from worldsim.training.run import Run, plan_of, train_world
from worldsim.training.trainer import Acting, Stage, Trainer, TrainingPlan, read_header

CPU = torch.device("cpu")


class Ramp:
    """A picture of 2 x 2 tiles that gets brighter under the key."""

    controls = Controls(actions=(Action(name="go", keys=("KeyW",)),), exclusive=True)
    fps = 4
    size = (4, 4)
    over = False
    hour = None
    event = ""

    def reset(self, seed: int) -> NDArray[np.uint8]:
        self._level = seed % 7 * 20
        return self._show()

    def close(self) -> None: ...

    def step(self, keys: Keys) -> NDArray[np.uint8]:
        self._level = (self._level + 20 * len(keys)) % 256
        return self._show()

    def _show(self) -> NDArray[np.uint8]:
        return np.full((4, 4, 3), self._level, dtype=np.uint8)


class Player:
    """Presses by chance, from its seed."""

    def __init__(self, simulator: Ramp, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def choose(self) -> Keys:
        return frozenset(["KeyW"]) if self._rng.random() < 0.5 else frozenset()


FORCING = DiffusionForcing(frames=2, first=1, blocks=(1,))
FEW_STEP = FewStepDistillation(sigmas=(1.0, 0.6), substeps=1, frames=2, first=1, blocks=(1,))


class Tiny:
    """A recipe of a world that is learned in no time, badly."""

    name = "ramp"
    codec = PatchCodec(side=2)
    backbone = SmallConfig(channels=12, height=2, width=2, controls=1, dim=16, layers=1, heads=2)
    training = TrainingPlan(
        stages=(
            Stage(updates=2, objective=FORCING, windows=1, lr=(1e-3, 1e-3)),
            Stage(updates=3, objective=FEW_STEP, windows=1, lr=(1e-3, 0.0)),
        ),
        warmup=2,
    )
    onward = None
    recalling = None
    policy = Window(frames=3)
    steps = 2
    shift = 1.5
    sampler = staticmethod(few_step)

    @classmethod
    def plan_for(cls, device, kind="anew"):
        assert device == CPU
        return {"anew": cls.training, "onward": cls.onward or cls.training, "recalling": cls.recalling}[kind]


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("worldsim.training.data.SHARD_FRAMES", 40)
    recording = Recording(world="ramp", simulator=Ramp, explorer=Player)
    for held_out in (False, True):
        record(recording, tmp_path / "data", Series(held_out=held_out), frames=40)
    return tmp_path / "data"


def train(data: Path, name: str, **settings: Any) -> dict[str, Any]:
    return train_world(Tiny(), data, data.parent / name, Run(device=CPU, every=4, **settings))


def played(data: Path) -> Episodes:
    return Episodes(data, world="ramp", held_out=False, device=CPU)


def lines(data: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (data.parent / name / "log.jsonl").read_text().splitlines()]


def test_a_run_leaves_a_log_a_checkpoint_and_weights_that_load(recorded: Path) -> None:
    seen: list[int] = []
    out = recorded.parent / "new" / "out"
    result = train_world(
        Tiny(), recorded, out, Run(device=CPU, every=4), on_update=lambda update, loss: seen.append(update)
    )
    assert seen == [1, 2, 3, 4, 5]
    assert sorted(path.name for path in out.iterdir()) == ["checkpoint.safetensors", "log.jsonl", "weights.safetensors"]
    log = lines(recorded, "new/out")
    assert [line["update"] for line in log] == [4, 5]
    assert log[-1] == result
    assert result.keys() == {"update", "minutes", "train_loss", "loss", "tiles", "still"}
    backbone = load_weights(out / "weights.safetensors", dtype=torch.float32, device=CPU)
    assert backbone.config == Tiny().backbone
    kept = load_file(out / "checkpoint.safetensors")
    for name, weight in backbone.state_dict().items():
        assert torch.equal(weight, kept[f"average/{name}"].bfloat16().float())


def test_a_resumed_run_ends_with_the_same_bytes_as_one_that_was_never_stopped(recorded: Path) -> None:
    """Stopped in the middle of the distillation; the log goes on too."""
    whole = train(recorded, "whole", seed=5)
    train(recorded, "parts", seed=5, updates=3)
    parts = train(recorded, "parts", seed=5, resume=True)
    for name in ("weights.safetensors", "checkpoint.safetensors"):
        assert (recorded.parent / "whole" / name).read_bytes() == (recorded.parent / "parts" / name).read_bytes()
    assert [line["update"] for line in lines(recorded, "parts")] == [3, 4, 5]
    assert {name: whole[name] for name in ("loss", "tiles")} == {name: parts[name] for name in ("loss", "tiles")}
    train(recorded, "other", seed=6, updates=1)
    other = recorded.parent / "other" / "weights.safetensors"
    assert other.read_bytes() != (recorded.parent / "whole" / "weights.safetensors").read_bytes()


def begun(recipe: Tiny, folder: Path, run: Run) -> Trainer:
    """The trainer of a run before its first update."""
    plan = replace(recipe.plan_for(run.device), seed=run.seed)
    return runs._trainer(recipe, played(folder), plan, runs._backbone(recipe, played(folder), run))


def test_the_seed_decides_the_first_weights(recorded: Path) -> None:
    one, same, other = (
        begun(Tiny(), recorded, Run(device=CPU, seed=seed)).averaged()["embed.weight"] for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


class Believing(Tiny):
    """The same, with beliefs over a palette of what was recorded."""

    backbone = replace(Tiny.backbone, palette=8)
    training = TrainingPlan(
        stages=(Stage(updates=4, objective=BeliefForcing(frames=2, first=0, blocks=(1,)), windows=1, lr=(1e-3, 0.0)),),
        warmup=2,
    )


def test_a_palette_is_made_of_what_was_recorded_shipped_with_the_weights_and_kept_on_resuming(recorded: Path) -> None:
    """The ramp shows some twenty greys, and near each of the eight of the palette lies one of them."""
    whole, parts = (recorded.parent / name for name in ("whole", "parts"))
    train_world(Believing(), recorded, whole, Run(device=CPU, every=4))
    train_world(Believing(), recorded, parts, Run(device=CPU, every=4, updates=2))
    train_world(Believing(), recorded, parts, Run(device=CPU, every=4, resume=True))
    assert (whole / "weights.safetensors").read_bytes() == (parts / "weights.safetensors").read_bytes()
    palette = load_weights(whole / "weights.safetensors", dtype=torch.float32, device=CPU).palette
    assert palette is not None
    shown = Tiny.codec.encode(played(recorded).frames, None)[0].movedim(1, -1).flatten(0, 2).unique(dim=0)
    assert torch.cdist(shown, palette.centres).min(0).values.max() < 0.25 < palette.centres.std()


def test_a_run_begins_from_given_weights_and_their_palette(recorded: Path) -> None:
    first, second = (recorded.parent / name for name in ("first", "second"))
    train_world(Believing(), recorded, first, Run(device=CPU, seed=3))
    given = first / "weights.safetensors"
    trainer = begun(Believing(), recorded, Run(device=CPU, seed=4, weights=given))
    want = load_weights(given, dtype=torch.float32, device=CPU).state_dict()
    assert all(torch.equal(weight, want[name]) for name, weight in trainer.backbone.state_dict().items())
    assert [name for name, p in trainer.backbone.named_parameters() if not p.requires_grad] == [
        "palette.centres",
        "palette.codes",
        "palette.restless",
    ]
    train_world(Believing(), recorded, second, Run(device=CPU, seed=4, weights=given))
    after = load_weights(second / "weights.safetensors", dtype=torch.float32, device=CPU).state_dict()
    assert torch.equal(after["palette.centres"], want["palette.centres"])
    assert not torch.equal(after["embed.weight"], want["embed.weight"])


class Remembering(Believing):
    """The same, with a memory of places, as of a view that the key moves."""

    backbone = replace(Believing.backbone, scroll=Scroll(rows=2, body=(1, 1), moves=((0, 0, 1),)))
    recalling = TrainingPlan(
        stages=(
            Stage(
                updates=4,
                objective=BeliefForcing(frames=2, first=0, blocks=(1,), entering=2.0),
                windows=2,
                lr=(1e-2, 1e-3),
            ),
        ),
        warmup=2,
        only=("recollect.", "trust."),
    )


def test_which_patches_are_restless_is_measured_when_a_palette_is_made_of_a_view_that_moves(recorded: Path) -> None:
    one, other = (begun(recipe, recorded, Run(device=CPU, seed=3)).backbone for recipe in (Remembering(), Believing()))
    assert isinstance(one, SmallBackbone)
    assert isinstance(other, SmallBackbone)
    assert one.palette is not None
    assert other.palette is not None
    found = find_restless(played(recorded), Tiny.codec, one)
    assert found.any()
    assert torch.equal(one.palette.restless, found.float())
    assert not other.palette.restless.any()


def test_weights_that_remember_nothing_learn_to_recall_and_stay_as_they_are_else(
    recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Under its one key nothing comes back into view.
    monkeypatch.setattr(Recollections, "of", lambda _, at: (at[:, None, :, None, None] % 8).expand(-1, 4, -1, 2, 2))
    first, second, parts = (recorded.parent / name for name in ("first", "second", "parts"))
    train_world(Believing(), recorded, first, Run(device=CPU, seed=3))
    given = first / "weights.safetensors"
    train_world(Remembering(), recorded, second, Run(device=CPU, weights=given, recalling=True, every=2))
    before = load_weights(given, dtype=torch.float32, device=CPU).state_dict()
    after = load_weights(second / "weights.safetensors", dtype=torch.float32, device=CPU)
    assert after.config == Remembering.backbone
    assert all(torch.equal(weight, after.state_dict()[name]) for name, weight in before.items())
    learned = after.state_dict().keys() - before.keys()
    assert {name.split(".")[0] for name in learned} == {"recollect", "trust"}
    assert all(bool(after.state_dict()[name].any()) for name in learned)
    train_world(Remembering(), recorded, parts, Run(device=CPU, weights=given, recalling=True, every=2, updates=2))
    train_world(Remembering(), recorded, parts, Run(device=CPU, resume=True, recalling=True, every=2))
    assert (parts / "weights.safetensors").read_bytes() == (second / "weights.safetensors").read_bytes()


def test_only_weights_that_know_a_world_can_be_taught_by_themselves(recorded: Path) -> None:
    class Taught(Tiny):
        training = TrainingPlan(stages=(Stage(updates=1, objective=FEW_STEP, windows=1, lr=(1e-3, 0.0)),))

    with pytest.raises(ConfigError, match="nothing is learned yet that could be taught"):
        train_world(Taught(), recorded, recorded.parent / "out", Run(device=CPU))


def test_weights_that_know_a_world_go_on_by_a_plan_of_their_own_also_when_they_are_resumed(recorded: Path) -> None:
    class Onward(Tiny):
        onward = TrainingPlan(
            stages=(Stage(updates=4, objective=FORCING, windows=2, lr=(1e-3, 1e-4)),),
            warmup=1,
            acting=Acting(share=0.5, controls=(0,), objective=FEW_STEP, windows=1),
        )

    first, whole, parts = (recorded.parent / name for name in ("first", "whole", "parts"))
    train_world(Tiny(), recorded, first, Run(device=CPU, updates=1))
    given = Run(device=CPU, weights=first / "weights.safetensors", every=2)
    assert plan_of(Onward(), whole, given) == Onward.onward
    assert plan_of(Onward(), whole, Run(device=CPU, seed=5)) == replace(Onward.training, seed=5)
    assert train_world(Onward(), recorded, whole, given)["update"] == 4
    train_world(Onward(), recorded, parts, replace(given, updates=2))
    train_world(Onward(), recorded, parts, Run(device=CPU, resume=True, every=2))
    assert (parts / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()
    with pytest.raises(DataError, match="by another plan"):
        train_world(Tiny(), recorded, parts, Run(device=CPU, resume=True))


def test_only_weights_that_know_a_world_learn_to_recall_it() -> None:
    with pytest.raises(ConfigError, match="name some with --weights"):
        Run(device=CPU, recalling=True)


def test_weights_to_begin_from_must_fit_and_are_not_for_a_resumed_run(recorded: Path) -> None:
    out = recorded.parent / "out"
    train_world(Tiny(), recorded, out, Run(device=CPU, updates=1))
    for recipe in (Believing(), Remembering()):
        with pytest.raises(WeightsError, match=r"another size, palette 0 in place of 8.*name weights of this"):
            train_world(recipe, recorded, out.with_name("new"), Run(device=CPU, weights=out / "weights.safetensors"))
    assert not out.with_name("new").exists()
    with pytest.raises(ConfigError, match="leave --weights out"):
        Run(device=CPU, resume=True, weights=out / "weights.safetensors")


def test_a_finished_run_that_is_resumed_is_judged_again_and_stays_as_it_is(recorded: Path) -> None:
    first = train(recorded, "out", updates=1)
    again = train(recorded, "out", updates=1, resume=True)
    assert again["train_loss"] is None
    assert {**again, "minutes": 0, "train_loss": 0} == {**first, "minutes": 0, "train_loss": 0}


def test_a_run_stops_when_its_time_is_up(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10**6, 25))  # every look at it takes 25 s, and there is one before each update
    monkeypatch.setattr(runs, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    assert train(recorded, "out", minutes=1)["update"] == 2


def test_an_existing_checkpoint_is_neither_overwritten_nor_gone_on_from_unasked(recorded: Path) -> None:
    train(recorded, "out", updates=1)
    before = {path.name: path.read_bytes() for path in (recorded.parent / "out").iterdir()}
    with pytest.raises(DataError, match=r"out/checkpoint.safetensors is there already; go on from it with --resume"):
        train(recorded, "out")
    with pytest.raises(DataError, match="with seed 0, not 1"):
        train(recorded, "out", seed=1, resume=True)
    assert before == {path.name: path.read_bytes() for path in (recorded.parent / "out").iterdir()}


def test_what_a_run_needs_is_said_before_anything_is_written(recorded: Path) -> None:
    with pytest.raises(DataError, match="to go on from"):
        train(recorded, "out", resume=True)
    next(recorded.glob("held-out-*")).unlink()
    with pytest.raises(DataError, match="no held-out shard"):
        train(recorded, "out")
    next(recorded.glob("train-*")).unlink()
    with pytest.raises(DataError, match="shard"):
        train(recorded, "out")
    assert not (recorded.parent / "out").exists()


@pytest.mark.parametrize("compiled", [False, True])
def test_layers_are_compiled_only_when_asked(recorded: Path, monkeypatch: pytest.MonkeyPatch, compiled: bool) -> None:
    names: list[str] = []

    def compile_(function: Callable[..., Any], *, dynamic: bool) -> Callable[..., Any]:
        assert not dynamic
        names.append(function.__name__)
        return function

    monkeypatch.setattr(torch, "compile", compile_)
    monkeypatch.setattr(runs, "check_compiler", lambda device: names.append(device.type))
    train(recorded, "out", updates=1, compiled=compiled)
    assert names == (["cpu", "before", "after"] if compiled else [])


@pytest.mark.parametrize(
    "wrong", [{"minutes": 0.0}, {"minutes": float("nan")}, {"updates": 0}, {"seed": -1}, {"seed": 2**64}, {"every": 0}]
)
def test_a_run_that_cannot_be_made_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Run(device=CPU, **wrong)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Poisoned(PatchCodec):
    """A codec that makes numbers that are none, from a given call on."""

    left = 0

    def encode(self, frames: torch.Tensor, state: None) -> tuple[torch.Tensor, None]:
        latents, state = super().encode(frames, state)
        Poisoned.left -= 1
        return latents * (float("nan") if Poisoned.left < 0 else 1), state


class Poisoning(Tiny):
    """The same, with that codec."""

    codec = Poisoned(side=2)


def test_a_run_whose_numbers_become_none_ends_and_leaves_what_it_kept_before(recorded: Path) -> None:
    out = recorded.parent / "out"
    Poisoned.left = 10**9
    train_world(Poisoning(), recorded, out, Run(device=CPU, every=1, updates=1))
    before = files(out)
    Poisoned.left = 0
    with pytest.raises(
        BrokenRun, match=r"update 2 has a loss of nan.* what was kept before stays.*--weights .*out/wei"
    ):
        train_world(Poisoning(), recorded, out, Run(device=CPU, every=1, resume=True))
    assert files(out) == before
    with pytest.raises(BrokenRun, match=r"update 1 has a loss of nan.* nothing was kept yet; look at"):
        train_world(Poisoning(), recorded, out.with_name("new"), Run(device=CPU))
    assert files(out.with_name("new")) == {"log.jsonl": b""}


def test_weights_that_are_judged_by_no_number_are_not_kept(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(recorded, "out", updates=1)
    before = files(recorded.parent / "out")
    monkeypatch.setattr(Evaluation, "judge", lambda *_: {"loss": float("inf"), "tiles": 0.5})
    with pytest.raises(BrokenRun, match=r"after update 2 the averaged weights are judged .*inf.*what was kept before"):
        train(recorded, "out", updates=2, resume=True)
    assert files(recorded.parent / "out") == before


def test_a_run_is_resumed_by_the_plan_it_was_begun_by(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(recorded, "out", updates=1)
    before = files(recorded.parent / "out")
    with pytest.raises(DataError, match=r"was trained without --recalling; resume it without it"):
        train_world(Remembering(), recorded, recorded.parent / "out", Run(device=CPU, resume=True, recalling=True))
    other = replace(Tiny.training, warmup=3)
    monkeypatch.setattr(Tiny, "training", other)
    with pytest.raises(DataError, match=r"was trained by another plan; resume it as it was begun"):
        train(recorded, "out", resume=True)
    assert files(recorded.parent / "out") == before


def test_a_run_that_is_stopped_keeps_the_update_it_came_to_unjudged_and_goes_on_from_there(recorded: Path) -> None:
    whole, out = (recorded.parent / name for name in ("whole", "out"))
    train_world(Tiny(), recorded, whole, Run(device=CPU))
    asked = iter([False, False, True])
    left: list[str] = []

    @contextmanager
    def stopping() -> Iterator[Callable[[], bool]]:
        yield lambda: next(asked)
        left.append("left")

    told = train_world(Tiny(), recorded, out, Run(device=CPU), stopping=stopping)
    assert told.keys() == {"update", "minutes", "train_loss"}
    assert told["update"] == 2
    assert left == ["left"]
    assert files(out)["log.jsonl"] == b""
    assert read_header(out / "checkpoint.safetensors")["update"] == 2
    load_weights(out / "weights.safetensors", dtype=torch.float32, device=CPU)
    train_world(Tiny(), recorded, out, Run(device=CPU, resume=True))
    for name in ("weights.safetensors", "checkpoint.safetensors"):
        assert files(whole)[name] == files(out)[name]


@pytest.mark.parametrize("name", ["weights.safetensors", "log.jsonl"])
def test_what_lies_there_without_a_checkpoint_is_not_overwritten(recorded: Path, name: str) -> None:
    out = recorded.parent / "out"
    out.mkdir()
    (out / name).write_text("dear")
    with pytest.raises(DataError, match=rf"out/{name} is there already, without a checkpoint.*into another folder"):
        train(recorded, "out")
    assert files(out) == {name: b"dear"}


def test_one_run_at_a_time_holds_a_folder_and_the_next_clears_what_a_killed_one_left(recorded: Path) -> None:
    out = recorded.parent / "out"
    out.mkdir()
    torn = out / "checkpoint.safetensors.7.part"
    torn.write_bytes(b"torn")

    def meanwhile(update: int, loss: float) -> None:
        assert not torn.exists()
        with pytest.raises(DataError, match=r"another process trains into .*out; wait for its end, or train into"):
            train(recorded, "out")

    train_world(Tiny(), recorded, out, Run(device=CPU, updates=1), on_update=meanwhile)
    assert files(out).keys() == {"log.jsonl", "weights.safetensors", "checkpoint.safetensors"}


def test_a_run_that_ended_while_another_got_ready_is_not_overwritten(
    recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = runs._evaluation

    def meanwhile(*given: Any) -> Evaluation:
        monkeypatch.setattr(runs, "_evaluation", ready)
        train(recorded, "out", seed=3)
        return ready(*given)

    monkeypatch.setattr(runs, "_evaluation", meanwhile)
    with pytest.raises(DataError, match="is there already; go on from it with --resume"):
        train(recorded, "out")
    assert read_header(recorded.parent / "out" / "checkpoint.safetensors")["seed"] == 3


def test_what_a_run_writes_has_the_mode_that_the_umask_says(recorded: Path) -> None:
    usual = os.umask(0o027)
    try:
        train(recorded, "out", updates=1)
    finally:
        os.umask(usual)
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in (recorded.parent / "out").iterdir()}
    assert set(modes.values()) == {"0o640"}


def test_episodes_too_short_to_be_judged_or_learned_from_are_told_before_the_first_update(
    recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = Recording(world="ramp", simulator=Ramp, explorer=Player, longest=8)
    for held_out in (True, False):
        for path in recorded.iterdir():
            path.unlink()
        record(short, recorded, Series(held_out=held_out), frames=40)
        record(replace(short, longest=40), recorded, Series(held_out=not held_out), frames=40)
        if not held_out:
            last = Stage(updates=1, objective=replace(FORCING, frames=8), windows=1, lr=(1e-3, 0.0))
            monkeypatch.setattr(Tiny, "training", replace(Tiny.training, stages=(*Tiny.training.stages, last)))
        kind = "held-out" if held_out else "train"
        with pytest.raises(DataError, match=rf"no {kind} episode in .*data has 9 frames, as a window needs"):
            train(recorded, "out")
    assert not (recorded.parent / "out").exists()


def test_frames_of_another_size_are_told_with_what_the_world_needs(recorded: Path) -> None:
    class Larger(Tiny):
        backbone = replace(Tiny.backbone, height=3, controls=2)

    says = r"held-out-00-00000.* holds frames of 4 x 4 x 3 with 1 controls, the world needs 6 x 4 x 3 with 2 controls"
    with pytest.raises(DataError, match=says):
        train_world(Larger(), recorded, recorded.parent / "out", Run(device=CPU))


def test_compiling_where_nothing_can_be_compiled_is_refused(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_(function: Callable[..., Any], *, dynamic: bool) -> Callable[..., Any]:
        def compiled(_: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no compiler found\n\nSet TORCHDYNAMO_VERBOSE=1")

        return compiled

    monkeypatch.setattr(torch, "compile", compile_)
    with pytest.raises(ConfigError, match=r"here \(no compiler found\); install a C\+\+ .* or leave --compile out"):
        train(recorded, "out", compiled=True)
    assert not (recorded.parent / "out").exists()


def test_a_folder_that_is_a_file_is_told_at_once(recorded: Path) -> None:
    (recorded.parent / "out").touch()
    with pytest.raises(OSError, match=r"out is no folder that can be written to"):
        train(recorded, "out")


def test_a_world_of_the_presets_is_a_recipe() -> None:
    recipe: runs.Recipe = CRAFTER
    names = [name for name in vars(runs.Recipe) if not name.startswith("_")]
    assert all(hasattr(recipe, name) for name in names)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device here is always full")
def test_a_log_on_a_full_disk_is_told_with_what_is_kept(recorded: Path) -> None:
    out = recorded.parent / "full"
    out.mkdir()
    (out / "log.jsonl").symlink_to("/dev/full")
    told = r"full/log.jsonl cannot be written \(No space left on device\); the checkpoint and the weights of update \d+"
    with pytest.raises(OSError, match=told):
        train(recorded, "full")
    assert {"checkpoint.safetensors", "weights.safetensors"} < {path.name for path in out.iterdir()}
