"""What a training pass minimises so that a backbone learns what the clean frames are: their mean, or their law."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from worldsim.decoding.noise_plan import PLAIN, NoisePlan
from worldsim.errors import ConfigError
from worldsim.models.protocol import Backbone, DrawingBackbone, RememberingBackbone
from worldsim.training.forcing import BlockForcing, past_of
from worldsim.training.noising import noisy_blocks
from worldsim.training.passes import Play, check_pass_plan, open_pass
from worldsim.training.resampling import Resampling


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffusionForcing:
    """Flow matching in blocks, each at a noise level of its own, after a context that is a little noisy itself.

    Args:
        frames, first, blocks, copies, window, context_noise: see PassPlan.
        shift: how far levels lean towards noise: sigma = shift * u / (1 + (shift - 1) * u), u uniform.
        floor: an estimate's error counts 1 / max(sigma, floor)^2, the error of its velocity.
        noise: where in a plan of noise the blocks of a window stand, see noisy_blocks; levels of their own if plain.
        forcing: see BlockForcing; none if None.
        resampling: see Resampling; all contexts are true if None.

    Sources: flow matching, Lipman et al. 2022 (arXiv:2210.02747); diffusion forcing, Chen et al. 2024
    (arXiv:2407.01392), algorithm 1. A departure from diffusion forcing: a noisy block sees clean frames (a stream of
    their own), as it will when decoding.
    """

    frames: int = 16
    first: int = 4
    blocks: tuple[int, ...] = (1, 2, 4)
    copies: int = 1
    window: int | None = None
    shift: float = 3.0
    context_noise: float = 0.25
    floor: float = 0.2
    noise: NoisePlan = PLAIN
    forcing: BlockForcing | None = None
    resampling: Resampling | None = None

    def __post_init__(self) -> None:
        check_pass_plan(self)
        if not 0 < self.floor <= 1 or self.shift <= 0:
            raise ConfigError(f"need 0 < floor <= 1 and shift > 0, got {self}")

    def loss(self, backbone: Backbone, play: Play, generator: torch.Generator) -> Tensor:
        """The mean weighted error of one pass, a scalar with gradient.

        Args:
            backbone: the network.
            play: windows of 1 + frames frames.
            generator: the only source of randomness, on the device of the windows.
        """
        window = open_pass(self, _followed(self.resampling, backbone, play, generator, draw=False), generator)
        noisy, sigma = noisy_blocks(window, self.shift, self.noise, generator)
        estimate = window.estimate(backbone, noisy, sigma)

        def error(target: Tensor) -> Tensor:
            missed = (estimate - target).square().mean(dim=(2, 3, 4))
            return (missed / sigma.clamp_min(self.floor).square()).mean()

        if self.forcing is None:
            return error(window.clean)
        aim = self.forcing.aim(window.clean, past_of(play.latents, window.layout, self.forcing.past), sigma)
        return error(window.clean) + self.forcing.weight * error(aim)


@dataclass(frozen=True, slots=True, kw_only=True)
class BeliefForcing:
    """As DiffusionForcing, for a backbone that holds beliefs: how little they expected the clean frames.

    Args:
        frames, first, blocks, copies, window, context_noise: see PassPlan.
        shift: how far levels lean towards noise, see DiffusionForcing.
        rows: how much the tokens of each row count against each other; all the same if empty. Since it does not depend
            on what happens there, what is believed of each token stays what is likely. It is for tokens that tell
            much and change seldom, such as a count: of all surprises theirs are too few to be learned from.
        spots: (row, column, how much) of tokens that count otherwise than their row, such as those that hands reach.
        entering: how much a token counts that a move may bring into view, against one that is in view; over 1 it is for
            a RememberingBackbone that learns to recall. It depends on the controls alone, as rows do on the place. Of
            chosen windows, see Play, such tokens do not count at all.
        noise: see DiffusionForcing.
        forcing: see BlockForcing; none if None. Its gamma is 1, because a code has no size; and its two terms are not
            summed, which would take the backbone twice, but one of them is drawn for each token, see drawn.
        resampling: see Resampling; all contexts are true if None.

    Source: score interpolation, Dieleman et al. 2022 (arXiv:2211.15089), section 3.2: every level counts the same.
    """

    frames: int = 16
    first: int = 4
    blocks: tuple[int, ...] = (1, 2, 4)
    copies: int = 1
    window: int | None = None
    shift: float = 3.0
    context_noise: float = 0.25
    rows: tuple[float, ...] = ()
    spots: tuple[tuple[int, int, float], ...] = ()
    entering: float = 1.0
    noise: NoisePlan = PLAIN
    forcing: BlockForcing | None = None
    resampling: Resampling | None = None

    def __post_init__(self) -> None:
        check_pass_plan(self)
        counts = (*self.rows, *(much for _, _, much in self.spots))
        if self.shift <= 0 or self.entering < 0 or (counts and not (min(counts) >= 0 < max(counts))):
            raise ConfigError(f"need shift > 0, and rows, spots and entering that count 0 or more, got {self}")
        if self.forcing is not None and self.forcing.gamma != 1:
            raise ConfigError(f"beliefs are forced towards codes, which have no size: gamma is 1, got {self.forcing}")

    def loss(self, backbone: Backbone, play: Play, generator: torch.Generator) -> Tensor:
        """The mean surprise of one pass in nats a token, a scalar with gradient. Arguments as for DiffusionForcing.

        Raises:
            ConfigError: the backbone holds no beliefs.
        """
        window = open_pass(self, _followed(self.resampling, backbone, play, generator, draw=True), generator)
        noisy, sigma = noisy_blocks(window, self.shift, self.noise, generator)
        target = window.clean
        if self.forcing is not None:
            grid = (backbone.geometry.rows, backbone.geometry.columns)
            alike = past_of(play.latents, window.layout, self.forcing.past)
            target = self.forcing.drawn(target, alike, sigma, grid, generator)
        inputs = window.inputs(backbone, noisy, sigma)
        surprise, _ = cast(DrawingBackbone, window.recalling(backbone)).weighed(*inputs, target)
        if self.entering != 1 or play.chosen is not None:
            entering = cast(RememberingBackbone, backbone).enters(window.steering)
            surprise = surprise * torch.where(entering, self._entering(play), 1.0)
        return self.mean(surprise)

    def mean(self, surprise: Tensor) -> Tensor:
        """The mean over tokens [B, n, rows, columns], of which each counts as its row or its spot does; a scalar."""
        if not self.rows and not self.spots:
            return surprise.mean()
        counts = self._counts(surprise)
        return (surprise.mean((0, 1)) * counts).sum() / counts.sum()

    def _entering(self, play: Play) -> Tensor:
        """How much tokens count that may come into view, [B, 1, 1, 1] or [1, 1, 1, 1]."""
        chosen = torch.zeros(1, dtype=torch.bool) if play.chosen is None else play.chosen
        return torch.where(chosen, 0.0, self.entering).to(play.latents)[:, None, None, None]

    def _counts(self, surprise: Tensor) -> Tensor:
        """How much each token of a frame counts, [rows, columns], of surprise [..., rows, columns]."""
        rows, columns = surprise.shape[-2:]
        if self.rows and len(self.rows) != rows:
            raise ConfigError(f"there are {rows} rows of tokens, and {len(self.rows)} say how much they count")
        counts = torch.tensor(self.rows or (1.0,) * rows)[:, None].repeat(1, columns)
        for row, column, much in self.spots:
            if not (0 <= row < rows and 0 <= column < columns):
                raise ConfigError(f"there is no token {row}, {column} among {rows} rows and {columns} columns")
            counts[row, column] = much
        return counts.to(surprise)


def _followed(
    resampling: Resampling | None, backbone: Backbone, play: Play, generator: torch.Generator, *, draw: bool
) -> Play:
    """The play with the context that a backbone is to follow."""
    if resampling is None:
        return play
    return replace(play, history=resampling.history(backbone, play, draw=draw, generator=generator))
