"""Samplers of one latent block, each a function that takes a canvas from one noise level to the next.

A step at a time, because whoever drives them may stop between two steps, throw a canvas away, or ask the backbone for
the clean estimates of several canvases at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from worldsim.errors import ConfigError, ShapeError
from worldsim.schedules import check_sigmas, mix, velocity


@dataclass(frozen=True, slots=True, eq=False)
class LatentCanvas:
    """A latent block on its way from noise to clean.

    values: [B, F, C, H, W] at noise level `sigma`; clean once the canvas is closed. A step replaces them and never
        writes into them.
    sigmas: the levels at which the backbone is asked, strictly falling within (0, 1]; the level 0 that follows is
        left out.
    fresh: the unit noise of a step, like values. Step n belongs to sigmas[n]; step 0 is the noise values began as.
    at: index of the present level in sigmas; len(sigmas) is the level 0.
    carry: what a sampler keeps between two calls for one level, like values.
    """

    values: Tensor
    sigmas: tuple[float, ...]
    fresh: Callable[[int], Tensor]
    at: int = 0
    carry: Tensor | None = None

    def __post_init__(self) -> None:
        check_sigmas(self.sigmas)
        if not 0 <= self.at <= len(self.sigmas):
            raise ConfigError(f"a canvas of {len(self.sigmas)} levels is at 0 to {len(self.sigmas)}, got {self.at}")

    @property
    def is_open(self) -> bool:
        """Whether noise is left in it."""
        return self.at < len(self.sigmas)

    @property
    def kept(self) -> Tensor:
        """All of it."""
        return self.values

    @property
    def sigma(self) -> float:
        """The present level, 0 once closed."""
        return self._level(self.at)

    @property
    def next_sigma(self) -> float:
        """The level after the present one."""
        return self._level(self.at + 1)

    def _level(self, at: int) -> float:
        return self.sigmas[at] if at < len(self.sigmas) else 0.0


class Sampler(Protocol):
    """Moves a canvas on by one backbone call."""

    def __call__(self, canvas: LatentCanvas, clean: Tensor, /) -> LatentCanvas:
        """The canvas after that call.

        Args:
            canvas: open; left unchanged.
            clean: the backbone's estimate of the clean block from canvas.values at canvas.sigma, like values.

        Raises:
            ShapeError: clean has another shape than the canvas.
        """
        ...


def few_step(canvas: LatentCanvas, clean: Tensor) -> LatentCanvas:
    """Mix the clean estimate with fresh noise for the next level; one call a level.

    For models distilled to jump to the end of the path from any level. With one that only knows the mean of what is
    possible, the variety of the samples is lost.

    Source: multistep consistency sampling, Song et al. 2023 (arXiv:2303.01469), algorithm 1, on the straight path.
    """
    _check(canvas, clean)
    following = replace(canvas, values=clean, at=canvas.at + 1)
    if not following.is_open:
        return following
    return replace(following, values=mix(clean, canvas.fresh(following.at), following.sigma))


def euler(canvas: LatentCanvas, clean: Tensor) -> LatentCanvas:
    """Follow the velocity to the next level; one call a level, error of first order in the distance of levels.

    Source: the deterministic sampler of Karras et al. 2022 (arXiv:2206.00364), algorithm 1 without its correction,
        on the straight path.
    """
    _check(canvas, clean)
    # values + (next_sigma - sigma) * velocity, written so that the step to level 0 gives clean to the last bit.
    values = torch.lerp(clean, canvas.values, canvas.next_sigma / canvas.sigma)
    return replace(canvas, values=values, at=canvas.at + 1)


def heun(canvas: LatentCanvas, clean: Tensor) -> LatentCanvas:
    """Follow the mean of the velocities at both ends of an interval; second order, 2 * len(sigmas) - 1 calls.

    The first call of an interval tries an Euler step and carries its velocity, the second corrects the canvas at the
    level reached. The interval that ends at level 0 is a plain Euler step.

    Source: Karras et al. 2022 (arXiv:2206.00364), algorithm 1, on the straight path.
    """
    if canvas.carry is None:
        return replace(euler(canvas, clean), carry=velocity(canvas.values, clean, canvas.sigma))
    _check(canvas, clean)
    interval = canvas.sigma - canvas.sigmas[canvas.at - 1]
    turn = velocity(canvas.values, clean, canvas.sigma) - canvas.carry
    return replace(canvas, values=canvas.values + interval / 2 * turn, carry=None)


def _check(canvas: LatentCanvas, clean: Tensor) -> None:
    if not canvas.is_open:
        raise ConfigError("the canvas is closed, nothing is left to sample; open a new one for the next block")
    if clean.shape != canvas.values.shape:
        raise ShapeError(
            f"the clean estimate is {list(clean.shape)}, the canvas {list(canvas.values.shape)}; "
            "a backbone answers in the shape it was asked in"
        )
