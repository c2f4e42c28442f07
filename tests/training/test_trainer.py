"""Training goes on from a checkpoint as if it had never stopped, and refuses what is no checkpoint of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.training.test_distillation import remembering
from worldsim.errors import BrokenRun, ConfigError, DataError
from worldsim.files import checksum
from worldsim.models.small.backbone import SmallBackbone, SmallConfig
from worldsim.training.distillation import FewStepDistillation
from worldsim.training.objectives import DiffusionForcing
from worldsim.training.passes import Play
from worldsim.training.trainer import SEEDS, Acting, Distillation, Reweighted, Stage, Trainer, TrainingPlan, read_header

CONFIG = SmallConfig(channels=2, height=1, width=3, controls=1, dim=16, layers=1, heads=2)
FORCING = DiffusionForcing(frames=3, first=1, blocks=(1,))
FEW_STEP = FewStepDistillation(sigmas=(1.0, 0.6), substeps=1, frames=2, first=1, blocks=(1,))


def stage(updates: int, objective: DiffusionForcing | FewStepDistillation = FORCING, lr: float = 1e-2) -> Stage:
    return Stage(updates=updates, objective=objective, windows=2, lr=(lr, lr / 2))


PLAN = TrainingPlan(stages=(stage(3), stage(4, FEW_STEP), stage(3, FEW_STEP), stage(2)), warmup=2, average=0.8)


class Noise:
    """Windows of nothing in particular, all different."""

    def sample(self, rng: np.random.Generator, *, windows: int, frames: int, under: tuple[int, ...] = ()) -> Play:
        latents = rng.standard_normal((windows, frames, 2, 1, 3), dtype=np.float32)
        controls = rng.random((windows, frames, 1), dtype=np.float32)
        return Play(torch.from_numpy(latents), torch.from_numpy(controls))


def trainer(plan: TrainingPlan = PLAN, *, seed: int = 1, config: SmallConfig = CONFIG) -> Trainer:
    return Trainer(SmallBackbone(config, torch.Generator().manual_seed(seed)), plan, Noise())


def after(updates: int) -> Trainer:
    made = trainer()
    for _ in range(updates):
        made.step()
    return made


def assert_same(ours: Trainer, theirs: Trainer, folder: Path) -> None:
    """Every number of two trainers is the same to the last bit: weights, averages, optimisers and teachers."""
    ours.save(folder / "ours")
    theirs.save(folder / "theirs")
    one, other = (load_file(folder / name) for name in ("ours", "theirs"))
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.mark.parametrize("stop", [0, 2, 3, 5, 7, 8, 10, 11])
def test_training_goes_on_from_a_checkpoint_bit_for_bit(stop: int, tmp_path: Path) -> None:
    """Also at the border of two stages (3, 7, 10) and in the middle of a distillation (5, 8)."""
    path = tmp_path / "checkpoint.safetensors"
    after(stop).save(path)
    resumed = trainer(seed=2)
    resumed.load(path)
    assert resumed.update == stop
    losses = [resumed.step() for _ in range(stop, PLAN.updates)]
    whole = trainer()
    assert [whole.step() for _ in range(PLAN.updates)][stop:] == losses
    assert_same(resumed, whole, tmp_path)


def test_the_teacher_is_the_average_as_its_stage_began_until_the_stage_ends(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    begins = {3: after(3).averaged(), 7: after(7).averaged()}
    for update, taken in ((3, None), (4, 3), (7, 3), (8, 7), (10, 7), (11, None)):
        after(update).save(path)
        held = {name[8:]: t for name, t in load_file(path).items() if name.startswith("teacher/")}
        expected = begins[taken] if taken else {}
        assert held.keys() == expected.keys()
        assert all(torch.equal(held[name], expected[name]) for name in held)


def test_the_average_is_the_one_computed_by_hand() -> None:
    made = trainer()
    expected = {name: p.detach().double() for name, p in made.backbone.named_parameters()}
    for update in range(1, 6):
        made.step()
        decay = min(0.8, (1 + update) / (10 + update))
        for name, parameter in made.backbone.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * parameter.detach().double()
    for name, average in made.averaged().items():
        torch.testing.assert_close(average.double(), expected[name], rtol=1e-5, atol=1e-7)
        assert not torch.equal(average, made.backbone.get_parameter(name))


def test_equal_plans_give_equal_weights_and_another_seed_others(tmp_path: Path) -> None:
    assert_same(after(2), after(2), tmp_path)
    other = trainer(TrainingPlan(stages=PLAN.stages, warmup=2, average=0.8, seed=5))
    assert other.step() != trainer().step()


def test_a_few_updates_on_a_tiny_set_lower_the_loss() -> None:
    class Fixed(Noise):
        def sample(self, rng: np.random.Generator, *, windows: int, frames: int, under: tuple[int, ...] = ()) -> Play:
            return super().sample(np.random.default_rng(0), windows=windows, frames=frames, under=under)

    plan = TrainingPlan(stages=(stage(60, lr=2e-2),), warmup=5)
    made = Trainer(SmallBackbone(CONFIG, torch.Generator().manual_seed(1)), plan, Fixed())
    losses = [made.step() for _ in range(60)]
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_that_share_of_the_updates_learns_of_windows_that_end_where_something_is_done(share: float) -> None:
    asked: list[tuple[int, int, tuple[int, ...]]] = []

    class Noted(Noise):
        def sample(self, rng: np.random.Generator, *, windows: int, frames: int, under: tuple[int, ...] = ()) -> Play:
            asked.append((windows, frames, under))
            return super().sample(rng, windows=windows, frames=frames, under=under)

    short = DiffusionForcing(frames=1, first=0, blocks=(1,))
    acting = Acting(share=share, controls=(0,), objective=short, windows=5)
    plan = TrainingPlan(stages=(stage(60),), warmup=2, acting=acting)
    made = Trainer(SmallBackbone(CONFIG, torch.Generator().manual_seed(1)), plan, Noted())
    for _ in range(60):
        made.step()
    assert set(asked) <= {(5, 2, (0,)), (2, 4, ())}
    assert asked.count((5, 2, (0,))) == pytest.approx(60 * share, abs=14 if 0 < share < 1 else 0)


@pytest.mark.parametrize("wrong", [{"share": 1.5}, {"share": -0.1}, {"controls": ()}, {"windows": 0}])
def test_updates_that_act_have_a_share_controls_and_windows(wrong: dict[str, Any]) -> None:
    fits: dict[str, Any] = {"share": 0.5, "controls": (0,), "objective": FORCING, "windows": 1}
    with pytest.raises(ConfigError, match="a share of updates in"):
        Acting(**fits | wrong)


def test_a_plan_may_learn_some_parameters_and_leave_the_others_as_they_are() -> None:
    plan = TrainingPlan(stages=(stage(3),), warmup=2, only=("embed.", "head."))
    made, first = trainer(plan), trainer(plan).averaged()
    for _ in range(3):
        made.step()
    changed = [name for name, weight in made.averaged().items() if not torch.equal(weight, first[name])]
    assert changed == ["embed.weight", "embed.bias", "head.weight", "head.bias"]


def test_the_rate_warms_up_once_and_falls_within_each_stage() -> None:
    plan = TrainingPlan(stages=(stage(4, lr=1.0), stage(3, lr=0.1)), warmup=2)
    found = [plan.at(update) for update in range(7)]
    assert [where for where, _ in found] == [plan.stages[0]] * 4 + [plan.stages[1]] * 3
    assert [rate for _, rate in found] == pytest.approx([0.5, 5 / 6, 4 / 6, 0.5, 0.1, 0.075, 0.05])
    assert plan.begins == (0, 4)
    with pytest.raises(ConfigError, match="past the plan's 7"):
        plan.at(7)


def test_a_checkpoint_is_replaced_only_by_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoint.safetensors"
    after(1).save(path)
    whole = path.read_bytes()

    def full(path: Path, tensors: dict[str, Tensor], fields: dict[str, Any]) -> None:
        raise OSError(f"{path} cannot be written")

    monkeypatch.setattr("worldsim.training.trainer.write_tensors", full)
    with pytest.raises(OSError, match=r"checkpoint.safetensors cannot be written"):
        after(2).save(path)
    assert path.read_bytes() == whole


def rewrite(path: Path, tensors: dict[str, Tensor], header: object) -> None:
    save_file(tensors, path, metadata=None if header is None else {"worldsim": json.dumps(header)})


def signed(tensors: dict[str, Tensor], **fields: object) -> dict[str, object]:
    """A header that fits those tensors."""
    fields = {"update": 5, "seed": 0, "plan": PLAN.fingerprint} | fields
    return fields | {"sha256": checksum(tensors, fields)}


def test_a_checkpoint_says_what_it_was_made_by_and_what_it_is_told_to_note(tmp_path: Path) -> None:
    made = after(5)
    made.save(tmp_path / "checkpoint", recalling=True)
    kept = load_file(tmp_path / "checkpoint")
    assert read_header(tmp_path / "checkpoint") == signed(kept, recalling=True)
    made.load(tmp_path / "checkpoint")


def test_a_checkpoint_that_cannot_be_gone_on_from_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    path, good = tmp_path / "checkpoint.safetensors", tmp_path / "good.safetensors"
    after(5).save(good)
    tensors = load_file(good)
    header = read_header(good)
    other = trainer(config=SmallConfig(channels=2, height=1, width=3, controls=1, dim=32, layers=1, heads=2))
    early = {name: value for name, value in header.items() if name in ("update", "seed")}
    cases: list[tuple[str, Callable[[], object]]] = [
        ("not a readable checkpoint", lambda: path.write_bytes(good.read_bytes()[:-1])),
        ("not a readable checkpoint", lambda: path.write_bytes(b"")),
        ("not a readable checkpoint", path.unlink),
        ("no checkpoint of worldsim train", lambda: rewrite(path, tensors, None)),
        ("no checkpoint of worldsim train", lambda: rewrite(path, tensors, {"dim": 16})),
        ("no checkpoint of worldsim train", lambda: rewrite(path, tensors, [])),
        ("not a readable checkpoint", lambda: save_file(tensors, path, metadata={"worldsim": "[" * 100_000})),
        ("not a readable checkpoint", lambda: save_file(tensors, path, metadata={"worldsim": "{"})),
        ("of another backbone", lambda: other.save(path)),
        ("by an earlier version.*--weights", lambda: rewrite(path, tensors, early)),
        ("with seed 3, not 0; resume with seed 3", lambda: rewrite(path, tensors, signed(tensors, seed=3))),
        ("by another plan; resume it as it was begun", lambda: rewrite(path, tensors, signed(tensors, plan="other"))),
    ]
    for update in ("5", -1, 6, 13, None):
        cases.append(("is torn", lambda update=update: rewrite(path, tensors, header | {"update": update})))
    for name in ("optimizer/steer.weight/exp_avg_sq", "optimizer/steer.weight/step", "teacher/steer.weight"):
        less, cut, nought = ({**tensors} for _ in range(3))
        del less[name]
        cut[name] = torch.zeros(1)
        nought[name] = torch.zeros_like(nought[name])
        cases += [("is torn", lambda kept=kept: rewrite(path, kept, header)) for kept in (less, cut, nought)]
    made = after(1)
    for says, write in cases:
        write()
        with pytest.raises(DataError, match=says) as raised:
            made.load(path)
        assert str(path) in str(raised.value)
    assert_same(made, after(1), tmp_path)


def test_another_plan_has_another_fingerprint_and_another_seed_the_same() -> None:
    others = [replace(PLAN, warmup=3), replace(PLAN, only=("head.",)), replace(PLAN, stages=PLAN.stages[:1])]
    others.append(replace(PLAN, stages=(stage(3), stage(4, replace(FEW_STEP, substeps=2)), *PLAN.stages[2:])))
    assert len({plan.fingerprint for plan in (PLAN, *others)}) == 5
    assert replace(PLAN, seed=4).fingerprint == PLAN.fingerprint


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_training_before_anything_is_learned_from_it(wrong: float) -> None:
    class Wrong(Noise):
        def sample(self, rng: np.random.Generator, *, windows: int, frames: int, under: tuple[int, ...] = ()) -> Play:
            play = super().sample(rng, windows=windows, frames=frames, under=under)
            play.latents[0, 2, 0, 0, 0] = wrong
            return play

    made, same = (Trainer(SmallBackbone(CONFIG, torch.Generator().manual_seed(1)), PLAN, Wrong()) for _ in range(2))
    with pytest.raises(BrokenRun, match=r"update 1 has a loss of (nan|inf)"):
        made.step()
    assert made.update == 0
    assert all(torch.equal(a, b) for a, b in zip(made.backbone.parameters(), same.backbone.parameters(), strict=True))


def test_a_gradient_that_is_no_number_ends_training_too() -> None:
    class Root:
        frames = 2

        def loss(self, backbone: Any, play: Play, generator: torch.Generator) -> Tensor:
            return backbone.steer.bias.square().sum().mul(0).sqrt()  # 0, and its slope there is none

    with pytest.raises(BrokenRun, match="a loss of 0 and a gradient of norm nan"):
        trainer(TrainingPlan(stages=(Stage(updates=1, objective=Root(), windows=1, lr=(0.0, 0.0)),))).step()


def test_weights_that_are_no_numbers_never_take_the_place_of_those_that_are(tmp_path: Path) -> None:
    made = after(2)
    made.save(tmp_path / "checkpoint")
    whole = (tmp_path / "checkpoint").read_bytes()
    with torch.no_grad():
        made.backbone.get_parameter("steer.weight")[0, 0] = float("nan")
    with pytest.raises(BrokenRun, match=r"after update 2 there are numbers that are none in weights/steer.weight"):
        made.save(tmp_path / "checkpoint")
    assert (tmp_path / "checkpoint").read_bytes() == whole


def test_on_its_average_the_backbone_answers_with_that_and_then_with_its_own_again() -> None:
    made = after(4)
    own, average = [p.detach().clone() for p in made.backbone.parameters()], [a.clone() for a in made.average]
    with made.on_average() as backbone:
        assert backbone is made.backbone
        assert all(torch.equal(p, a) for p, a in zip(made.backbone.parameters(), average, strict=True))
    with pytest.raises(ZeroDivisionError), made.on_average():
        1 / 0  # noqa: B018
    assert all(torch.equal(p, w) for p, w in zip(made.backbone.parameters(), own, strict=True))
    assert all(torch.equal(a, w) for a, w in zip(made.average, average, strict=True))
    assert not all(torch.equal(w, a) for w, a in zip(own, average, strict=True))


def test_a_reweighted_backbone_answers_with_those_weights_and_leaves_its_own() -> None:
    own, others = (SmallBackbone(CONFIG, torch.Generator().manual_seed(seed)) for seed in (1, 2))
    for backbone in (own, others):
        torch.nn.init.ones_(backbone.head.weight)
    before = {name: tensor.clone() for name, tensor in own.state_dict().items()}
    reweighted = Reweighted(own, others.state_dict())
    latents = torch.randn(1, 2, 2, 1, 3, generator=torch.Generator().manual_seed(3))
    inputs = (latents, latents, torch.ones(1, 2), torch.zeros(1, 2, 1), lambda _, q, k, v: v)
    assert torch.equal(reweighted(*inputs), others(*inputs))
    assert not torch.equal(reweighted(*inputs), own(*inputs))
    assert all(torch.equal(tensor, before[name]) for name, tensor in own.state_dict().items())
    assert not Reweighted(own, dict(others.named_parameters()))(*inputs).requires_grad
    for name in ("geometry", "pages", "rotary", "controls"):
        assert getattr(reweighted, name) == getattr(own, name)


@pytest.mark.parametrize("recalls", [False, True])
def test_other_weights_believe_what_a_backbone_of_them_believes(recalls: bool) -> None:
    own, others = remembering(1), remembering(2)
    before = {name: tensor.clone() for name, tensor in own.state_dict().items()}
    latents = torch.randn(1, 2, 3, 2, 3, generator=torch.Generator().manual_seed(3))
    inputs = (latents, latents, torch.ones(1, 2), torch.zeros(1, 2, 2), lambda _, q, k, v: v, latents)
    recalled = torch.full((1, 2, 2, 3), 1) if recalls else None
    _, believed = Reweighted(own, others.state_dict()).weighed(*inputs, recalled=recalled)
    assert torch.equal(believed, (others if recalled is None else others.recalling(recalled)).weighed(*inputs)[1])
    assert not torch.equal(believed, own.weighed(*inputs)[1])
    assert not believed.requires_grad
    assert all(torch.equal(tensor, before[name]) for name, tensor in own.state_dict().items())


@pytest.mark.parametrize(
    ("learned", "acted", "is_taught"),
    [(FORCING, None, False), (FORCING, FORCING, False), (FEW_STEP, None, True), (FORCING, FEW_STEP, True)],
)
def test_a_stage_is_taught_if_its_updates_or_those_that_act_are(learned: Any, acted: Any, is_taught: bool) -> None:
    acting = None if acted is None else Acting(share=0.5, controls=(0,), objective=acted, windows=1)
    plan = TrainingPlan(stages=(stage(1), stage(2, learned)), acting=acting)
    assert plan.is_taught(plan.stages[1]) is is_taught


def test_a_distillation_is_told_from_an_objective() -> None:
    assert isinstance(FEW_STEP, Distillation)
    assert not isinstance(FORCING, Distillation)


@pytest.mark.parametrize(
    "wrong",
    [
        {"seldom": -0.1},
        {"seldom": 1.1},
        {"stages": ()},
        {"warmup": 0},
        {"average": 1.0},
        {"clip": 0.0},
        {"seed": -1},
        {"seed": SEEDS},
    ],
)
def test_a_plan_that_cannot_work_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        TrainingPlan(**({"stages": (stage(1),)} | wrong))  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"updates": 0}, {"windows": 0}, {"lr": (1e-3, -1e-3)}])
def test_a_stage_that_cannot_work_is_refused(wrong: dict[str, object]) -> None:
    settings: dict[str, object] = {"updates": 1, "objective": FORCING, "windows": 1, "lr": (1e-3, 0.0)}
    with pytest.raises(ConfigError):
        Stage(**(settings | wrong))  # type: ignore[arg-type]
