"""The straight noise path of flow matching, and the noise levels at which a sampler stops on it.

A noisy latent at level sigma in [0, 1] is (1 - sigma) * clean + sigma * noise, so its velocity is noise - clean.

Source: flow matching, Lipman et al. 2022 (arXiv:2210.02747), on the path of rectified flow, Liu et al. 2022
(arXiv:2209.03003).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from worldsim.errors import ConfigError, shown

MOST_STEPS = 1_000
"""Levels that such models are trained at: with more steps neighbours would be told apart by nothing."""


def mix(clean: Tensor, noise: Tensor, sigma: float | Tensor) -> Tensor:
    """The noisy latent at level sigma, which is a number or a tensor that broadcasts against clean."""
    return (1 - sigma) * clean + sigma * noise


def velocity(noisy: Tensor, clean: Tensor, sigma: float | Tensor) -> Tensor:
    """The slope of the path through noisy that ends in clean; sigma in (0, 1], as for mix."""
    return (noisy - clean) / sigma


def shift_sigma(sigma: float, shift: float) -> float:
    """The level sigma in [0, 1] moved towards 1 by a shift over 1, towards 0 by one below; 0 and 1 stay.

    Source: Esser et al. 2024 (arXiv:2403.03206), section 5.3.2.
    """
    if not 0 <= sigma <= 1:
        raise ConfigError(f"a noise level lies in [0, 1], got {sigma}")
    if not shift > 0:
        raise ConfigError(f"a shift is over 0, and 1 changes nothing, got {shift}")
    # The denominator is 1 + (shift - 1) * sigma, written so that the level 1 stays exactly 1.
    return shift * sigma / (shift * sigma + (1 - sigma))


def uniform_sigmas(steps: int) -> tuple[float, ...]:
    """That many equally spaced levels, 1 to 1,000, falling from 1; the level 0 that follows the last is left out."""
    if not 1 <= steps <= MOST_STEPS:
        raise ConfigError(f"a schedule has at least 1 step and at most {MOST_STEPS:,}, got {shown(steps)}")
    return tuple((steps - step) / steps for step in range(steps))


def few_step_sigmas(steps: int, shift: float) -> tuple[float, ...]:
    """That many levels for a few-step model: uniform_sigmas, each moved by shift."""
    return tuple(shift_sigma(sigma, shift) for sigma in uniform_sigmas(steps))


def check_sigmas(sigmas: Sequence[float]) -> None:
    """Raise ConfigError unless there is a level, all lie in (0, 1] and each is below the one before."""
    falling = all(high > low for high, low in zip((2.0, *sigmas), (*sigmas, 0.0), strict=True))
    if not sigmas or sigmas[0] > 1 or not falling:
        raise ConfigError(f"noise levels fall strictly within (0, 1] and leave out the last 0, got {list(sigmas)}")
