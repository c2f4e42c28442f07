"""What a backbone learns from a teacher: to jump to the end of its path, or to go on believing what it believed.

The few-step stage learns to jump from a noisy block to the end of the path that its teacher would walk.
A backbone trained by flow matching answers with the mean of what is possible, so a sampler that takes its answer for
a sample loses variety. The end of the probability-flow path is a sample: over noisy blocks of one level it has the law
of clean blocks, and then so has every step of multistep consistency sampling (worldsim.samplers.few_step).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor

from worldsim.errors import ConfigError
from worldsim.models.protocol import Backbone, DrawingBackbone, RememberingBackbone
from worldsim.schedules import check_sigmas
from worldsim.training.noising import noisy_blocks
from worldsim.training.objectives import BeliefForcing
from worldsim.training.passes import Play, TrainingPass, add_noise, check_pass_plan, open_pass
from worldsim.training.trainer import Loss, Reweighted


@dataclass(frozen=True, slots=True, kw_only=True)
class FewStepDistillation:
    """The squared distance between a jump from a noisy block and the teacher's walk from it to the clean end.

    Args:
        sigmas: the noise levels at which the few-step sampler will call; each block is at one of them by chance.
        substeps: midpoint steps of the walk from any of them to level 0, equally spaced, two teacher calls each.
            Under an exact teacher of Gaussian frames of deviation 0.2 to 1, and with few_step_sigmas(3, 3.0), 2, 4 and
            8 of them keep at least 0.89, 0.98 and 0.99 of the variance; as many calls in Euler steps 0.44, 0.67, 0.82.
        frames, first, blocks, copies, window, context_noise: see PassPlan.

    Sources: consistency distillation, Song et al. 2023 (arXiv:2303.01469), section 4; few fixed levels as in multistep
    consistency models, Heek et al. 2024 (arXiv:2403.06807). Two departures: the target is the teacher's whole walk and
    not the student's own answer one step further, which costs more calls and cannot drift; and the walk takes midpoint
    steps (Karras et al. 2022, arXiv:2206.00364, algorithm 3 with alpha = 1/2) and not Euler's.
    """

    sigmas: tuple[float, ...]
    substeps: int = 4
    frames: int = 16
    first: int = 4
    blocks: tuple[int, ...] = (1, 2, 4)
    copies: int = 1
    window: int | None = None
    context_noise: float = 0.25

    def __post_init__(self) -> None:
        check_pass_plan(self)
        check_sigmas(self.sigmas)
        if self.substeps < 1:
            raise ConfigError(f"a walk has at least 1 step, got {self}")

    def taught_by(self, teacher: Backbone) -> Loss:
        """The loss under a teacher that no longer changes."""
        return partial(self._loss, teacher)

    def _loss(self, teacher: Backbone, backbone: Backbone, play: Play, generator: torch.Generator) -> Tensor:
        """See DiffusionForcing.loss."""
        window = open_pass(self, play, generator)
        device = play.latents.device
        levels = torch.tensor(self.sigmas, device=device)
        picks = torch.randint(len(levels), window.blocks, generator=generator, device=device)
        sigma = levels[picks].repeat_interleave(window.layout.block, dim=1)
        noisy = add_noise(window.clean, sigma, generator)
        end = self._walk(teacher, window, noisy, sigma)
        return (window.estimate(backbone, noisy, sigma) - end).square().mean()

    @torch.no_grad()
    def _walk(self, teacher: Backbone, window: TrainingPass, noisy: Tensor, sigma: Tensor) -> Tensor:
        """The end of the teacher's path from noisy frames at their levels, like noisy.

        A step goes from the level sigma * left / substeps to sigma * (left - 1) / substeps, with the velocity in the
        middle. Levels cancel out of it: what is left of the noise is (middle - clean) / half of one step.
        """
        for left in range(self.substeps, 0, -1):
            half = left - 0.5
            clean = window.estimate(teacher, noisy, sigma * left / self.substeps)
            middle = torch.lerp(clean, noisy, half / left)
            clean = window.estimate(teacher, middle, sigma * half / self.substeps)
            noisy = noisy - (middle - clean) / half
        return noisy


@dataclass(frozen=True, slots=True, kw_only=True)
class BeliefKeeping:
    """As BeliefForcing, but of what a move may bring into view a backbone goes on believing what its teacher does.

    Windows that are drawn for what hands do, see Play.chosen, tell nothing of how likely the land around them is, and
    what else is learned from them moves that law as well. So their tokens that may come into view are not judged by the
    recording, but by how far what is believed of them is from what the teacher believes: the Kullback-Leibler
    divergence, in nats.

    Args:
        forcing: what all other tokens learn; how much its `entering` counts decides nothing.
        keeps: how much one nat of that counts against one of surprise.
        everywhere: keep to the teacher in all windows, for recordings too small to tell what lies where.

    Source: learning without forgetting, Li & Hoiem 2016 (arXiv:1606.09282), section 3.
    """

    forcing: BeliefForcing
    keeps: float = 8.0
    everywhere: bool = True

    def __post_init__(self) -> None:
        forced = self.forcing.forcing is not None or self.forcing.resampling is not None
        if not self.keeps > 0 or forced:
            raise ConfigError(
                f"what is kept counts more than 0, after a true context and not forced towards other blocks, got {self}"
            )

    @property
    def frames(self) -> int:
        """Frames of a window after its first."""
        return self.forcing.frames

    def taught_by(self, teacher: Reweighted, /) -> Loss:
        """The loss under a teacher that no longer changes."""
        return partial(self._loss, teacher)

    def _loss(self, teacher: Reweighted, backbone: Backbone, play: Play, generator: torch.Generator) -> Tensor:
        """See BeliefForcing.loss."""
        window = open_pass(self.forcing, play, generator)
        noisy, sigma = noisy_blocks(window, self.forcing.shift, self.forcing.noise, generator)
        inputs = (*window.inputs(backbone, noisy, sigma), window.clean)
        surprise, believed = cast(DrawingBackbone, window.recalling(backbone)).weighed(*inputs)
        _, taught = teacher.weighed(*inputs, recalled=window.recalled)
        astray = (taught.exp() * (taught - believed)).sum(-1)
        kept = cast(RememberingBackbone, backbone).enters(window.steering)
        if not self.everywhere and play.chosen is not None:
            kept = kept & play.chosen[:, None, None, None]
        return self.forcing.mean(torch.where(kept, self.keeps * astray, surprise))
