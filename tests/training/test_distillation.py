"""The few-step stage turns a mean into a sampler of the right law, and what is kept stays as a teacher believes it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from worldsim.cache.pool import PageShape
from worldsim.cache.rotary import Rotary
from worldsim.errors import ConfigError
from worldsim.geometry import LatentGeometry
from worldsim.models.protocol import Attend, Backbone
from worldsim.models.small.atlas import Scroll
from worldsim.models.small.backbone import SmallBackbone, SmallConfig
from worldsim.samplers import LatentCanvas, few_step
from worldsim.schedules import few_step_sigmas
from worldsim.training.distillation import BeliefKeeping, FewStepDistillation
from worldsim.training.forcing import BlockForcing
from worldsim.training.objectives import BeliefForcing
from worldsim.training.passes import Play
from worldsim.training.trainer import Reweighted

MEAN, DEVIATION = 0.7, 0.5
SIGMAS = few_step_sigmas(3, 3.0)
FRAMES = 5


class Pointwise(nn.Module):
    """A backbone over single numbers that looks at nothing but their own noisy value."""

    geometry = LatentGeometry(channels=2, height=1, width=3, patch=1, frames_per_block=1)
    pages = PageShape(layers=1, tokens=3, heads=1, head_dim=8)
    rotary = Rotary(time=4, rows=2, columns=2)
    controls = 1


class PosteriorMean(Pointwise):
    """The exact mean of clean frames N(MEAN, DEVIATION^2) given noisy ones."""

    def forward(self, noisy: Tensor, previous: Tensor, sigma: Tensor, controls: Tensor, attend: Attend) -> Tensor:
        level = sigma[:, :, None, None, None]
        variance = ((1 - level) * DEVIATION) ** 2 + level**2
        return MEAN + (1 - level) * DEVIATION**2 / variance * (noisy - (1 - level) * MEAN)


class Student(Pointwise):
    """A line for every level of SIGMAS, learned; it begins as zero."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(len(SIGMAS)))
        self.offset = nn.Parameter(torch.zeros(len(SIGMAS)))

    def forward(self, noisy: Tensor, previous: Tensor, sigma: Tensor, controls: Tensor, attend: Attend) -> Tensor:
        which = (sigma[..., None] - torch.tensor(SIGMAS)).abs().argmin(-1)[:, :, None, None, None]
        return self.slope[which] * noisy + self.offset[which]


def frames_of(windows: int, generator: torch.Generator) -> Play:
    """Independent Gaussian frames and no controls."""
    latents = MEAN + DEVIATION * torch.randn(windows, 1 + FRAMES, 2, 1, 3, generator=generator)
    return Play(latents, torch.zeros(windows, 1 + FRAMES, 1))


def distil(seed: int, updates: int) -> Student:
    generator = torch.Generator().manual_seed(seed)
    objective = FewStepDistillation(
        sigmas=SIGMAS, substeps=4, frames=FRAMES, first=1, blocks=(1,), copies=3, context_noise=0.2
    )
    student, loss = Student(), objective.taught_by(PosteriorMean())
    optimizer = torch.optim.Adam(student.parameters(), lr=0.1)
    for update in range(updates):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - update / updates)
        value = loss(student, frames_of(16, generator), generator)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return student


@torch.no_grad()
def sample(backbone: Backbone, count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    fresh = [torch.randn(count, 1, 2, 1, 3, generator=generator) for _ in SIGMAS]
    canvas = LatentCanvas(fresh[0], SIGMAS, fresh.__getitem__)
    while canvas.is_open:
        sigma = torch.full((count, 1), canvas.sigma)
        clean = backbone(canvas.values, canvas.values, sigma, torch.zeros(count, 1, 1), lambda _, q, k, v: v)
        canvas = few_step(canvas, clean)
    return canvas.kept.flatten().double()


def test_the_trained_few_step_sampler_has_the_law_of_the_frames_and_its_teacher_has_not() -> None:
    """Mean and variance of 60,000 samples within 4 standard errors of the truth, and 1 % of variance for the walk."""
    count = 60_000
    student = sample(distil(seed=1, updates=100), count // 6, seed=2)
    teacher = sample(PosteriorMean(), count // 6, seed=2)
    bound = 4 * DEVIATION**2 * math.sqrt(2 / count) + 0.01 * DEVIATION**2
    assert abs(student.mean() - MEAN) < 4 * DEVIATION / math.sqrt(count)
    assert abs(student.var() - DEVIATION**2) < bound
    assert abs(teacher.mean() - MEAN) < 4 * DEVIATION / math.sqrt(count)
    assert teacher.var() < 0.2 * DEVIATION**2


@pytest.mark.parametrize("block", [1, 5])
def test_the_target_is_the_end_of_the_path_from_every_level(block: int) -> None:
    """Of a student that is the exact jump the loss is the error of the walk alone, about 1e-3 of the variance."""

    class Jump(Pointwise):
        def forward(self, noisy: Tensor, previous: Tensor, sigma: Tensor, controls: Tensor, attend: Attend) -> Tensor:
            level = sigma[:, :, None, None, None]
            own = ((1 - level) * DEVIATION) ** 2 + level**2
            return MEAN + DEVIATION * own.rsqrt() * (noisy - (1 - level) * MEAN)

    generator = torch.Generator().manual_seed(3)
    objective = FewStepDistillation(sigmas=SIGMAS, substeps=32, frames=FRAMES, first=0, blocks=(block,))
    loss = objective.taught_by(PosteriorMean())
    windows = frames_of(32, generator)
    assert loss(Jump(), windows, generator) < 1e-6
    assert loss(PosteriorMean(), windows, generator) > 1e-2


def test_levels_are_those_of_the_sampler_and_the_same_inside_a_block() -> None:
    seen: list[Tensor] = []

    class Watched(PosteriorMean):
        def forward(self, noisy: Tensor, previous: Tensor, sigma: Tensor, controls: Tensor, attend: Attend) -> Tensor:
            seen.append(sigma[:, 6:])
            return super().forward(noisy, previous, sigma, controls, attend)

    generator = torch.Generator().manual_seed(4)
    latents, controls = torch.randn(40, 7, 2, 1, 3, generator=generator), torch.zeros(40, 7, 1)
    objective = FewStepDistillation(sigmas=SIGMAS, substeps=1, frames=6, first=2, blocks=(2,), copies=2)
    objective.taught_by(PosteriorMean())(Watched(), Play(latents, controls), generator)
    (sigma,) = seen
    blocks = sigma.unflatten(1, (4, 2))
    assert torch.equal(blocks[..., 0], blocks[..., 1])
    found, counts = blocks[..., 0].unique(return_counts=True)
    assert torch.equal(found, torch.tensor(SIGMAS).sort().values)
    assert counts.min() > 160 / 3 - 4 * math.sqrt(160 * 2 / 9)


def test_the_teacher_gets_no_gradient() -> None:
    teacher, student = Student(), Student()
    generator = torch.Generator().manual_seed(5)
    objective = FewStepDistillation(sigmas=SIGMAS, frames=FRAMES, first=1, blocks=(1,))
    objective.taught_by(teacher)(student, frames_of(2, generator), generator).backward()
    assert student.slope.grad is not None
    assert teacher.slope.grad is None


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"sigmas": (0.5, 0.5)}, "fall strictly"),
        ({"sigmas": ()}, "fall strictly"),
        ({"substeps": 0}, "at least 1 step"),
        ({"copies": 0}, "1 or more copies"),
        ({"blocks": (3,)}, "multiples of the block"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, object], says: str) -> None:
    settings: dict[str, object] = {"sigmas": SIGMAS, "frames": 8, "first": 4} | wrong
    with pytest.raises(ConfigError, match=says):
        FewStepDistillation(**settings)  # type: ignore[arg-type]


REMEMBERING = SmallConfig(
    channels=3,
    height=2,
    width=3,
    controls=2,
    dim=16,
    layers=1,
    heads=2,
    palette=3,
    scroll=Scroll(rows=2, body=(0, 1), moves=((0, 0, 1),)),
)
FORCING = BeliefForcing(frames=4, first=2, blocks=(1,), rows=(1.0, 5.0))


def remembering(seed: int) -> SmallBackbone:
    """A backbone of three patches that remembers places, of random weights; its first control moves it on."""
    generator = torch.Generator().manual_seed(seed)
    backbone = SmallBackbone(REMEMBERING, generator)
    assert backbone.palette is not None
    backbone.palette.fill(torch.eye(3) * 3)
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) / 4)
    return backbone


def moving(windows: int, seed: int, *, recalls: bool = False) -> Play:
    """Windows of those patches by chance; in the last two frames the view moves."""
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randint(3, (windows, 5, 2, 3), generator=generator)
    controls = torch.zeros(windows, 5, 2)
    controls[:, 3:, 0] = 1
    recalled = torch.randint(-1, 3, (windows, 4, 5, 2, 3), generator=generator) if recalls else None
    return Play((torch.eye(3) * 3)[picks].movedim(-1, 2), controls, recalled=recalled)


def kept(
    backbone: SmallBackbone,
    teacher: SmallBackbone,
    play: Play,
    *,
    keeps: float,
    forcing: BeliefForcing,
    everywhere: bool = True,
) -> Tensor:
    keeping = BeliefKeeping(forcing=forcing, keeps=keeps, everywhere=everywhere)
    loss = keeping.taught_by(Reweighted(backbone, dict(teacher.named_parameters())))
    return loss(backbone, play, torch.Generator().manual_seed(13))


@pytest.mark.parametrize("recalls", [False, True])
@pytest.mark.parametrize("seed", [1, 2])
def test_who_believes_what_the_teacher_does_learns_only_of_what_is_in_view(seed: int, recalls: bool) -> None:
    backbone, play = remembering(seed), moving(3, seed, recalls=recalls)
    same = kept(backbone, remembering(seed), play, keeps=4.0, forcing=FORCING)
    in_view = replace(FORCING, entering=0.0).loss(backbone, play, torch.Generator().manual_seed(13))
    assert torch.allclose(same, in_view, rtol=1e-5)
    other = kept(backbone, remembering(seed + 5), play, keeps=4.0, forcing=FORCING)
    twice = kept(backbone, remembering(seed + 5), play, keeps=8.0, forcing=FORCING)
    assert other > in_view
    assert torch.allclose(twice - in_view, 2 * (other - in_view), rtol=1e-3)


@pytest.mark.parametrize("seed", [1, 2])
def test_windows_that_were_not_drawn_for_what_happens_tell_what_may_come_into_view(seed: int) -> None:
    backbone, teacher, play = remembering(seed), remembering(seed + 5), moving(3, seed)

    def loss(chosen: list[bool], everywhere: bool) -> Tensor:
        told = replace(play, chosen=torch.tensor(chosen))
        return kept(backbone, teacher, told, keeps=4.0, forcing=FORCING, everywhere=everywhere).detach()

    none, some, every = (loss(chosen, everywhere=False) for chosen in ([False] * 3, [True, False, False], [True] * 3))
    plain = replace(FORCING, entering=1.0).loss(backbone, play, torch.Generator().manual_seed(13)).detach()
    assert torch.allclose(none, plain, rtol=1e-5)
    assert torch.allclose(every, loss([False] * 3, everywhere=True), rtol=1e-5)
    assert len({float(none), float(some), float(every)}) == 3


def test_what_may_come_into_view_comes_to_be_believed_as_the_teacher_believes_it() -> None:
    backbone, teacher = remembering(3), remembering(4)
    forcing = replace(FORCING, rows=())

    def astray() -> float:
        play = moving(200, 5)
        loss = kept(backbone, teacher, play, keeps=1.0, forcing=forcing)
        in_view = replace(forcing, entering=0.0).loss(backbone, play, torch.Generator().manual_seed(13))
        return float((loss - in_view).detach())

    before, optimizer = astray(), torch.optim.Adam(backbone.parameters(), lr=3e-3)
    for update in range(60):
        optimizer.zero_grad()
        kept(backbone, teacher, moving(16, 100 + update), keeps=8.0, forcing=forcing).backward()
        optimizer.step()
    assert before > 0.02
    assert astray() < before / 3


@pytest.mark.parametrize(
    "wrong", [{"keeps": 0.0}, {"keeps": float("nan")}, {"forcing": replace(FORCING, forcing=BlockForcing(gamma=1.0))}]
)
def test_a_keeping_that_cannot_work_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="counts more than 0"):
        BeliefKeeping(**({"forcing": FORCING} | wrong))  # type: ignore[arg-type]
