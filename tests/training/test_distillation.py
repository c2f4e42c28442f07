"""The few-step stage turns a mean into a sampler of the right law."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from worldsim.cache.pool import PageShape
from worldsim.cache.rotary import Rotary
from worldsim.errors import ConfigError
from worldsim.geometry import LatentGeometry
from worldsim.models.protocol import Attend, Backbone
from worldsim.samplers import LatentCanvas, few_step
from worldsim.schedules import few_step_sigmas
from worldsim.training.distillation import FewStepDistillation
from worldsim.training.passes import Play

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
