"""One pass over windows of frames: a context that is a little noisy, and noisy copies of its frames to be estimated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor

from worldsim.errors import ConfigError, ShapeError
from worldsim.models.protocol import UNKNOWN, Attend, Backbone, RememberingBackbone
from worldsim.schedules import mix
from worldsim.training.attention import StreamAttention, StreamLayout

FORGETFUL = 0.15
"""Share of the windows in which places are forgotten."""
MISTAKEN = 0.01
"""Share of the places that are taken for another."""


@dataclass(frozen=True, slots=True, eq=False)
class Play:
    """Windows of recorded play.

    latents: clean, [B, F, C, H, W].
    controls: what steered each frame, [B, F, A].
    recalled: what is recalled of each frame when it is the first, the second ... of its block, int64
        [B, ahead, F, rows, columns], see worldsim.training.recollection; None if nothing is.
    chosen: which windows were drawn for what happens in them, bool [B]; None if that is all the same. What happens
        depends on what lies around, so of that such windows do not tell how likely it is.
    history: the windows as their frames are to be seen where they are context, like latents; None if as they are.
    """

    latents: Tensor
    controls: Tensor
    recalled: Tensor | None = None
    chosen: Tensor | None = None
    history: Tensor | None = None


class PassPlan(Protocol):
    """What every objective over two streams of frames says about its passes."""

    @property
    def frames(self) -> int:
        """Length of a window; the frame before it is drawn too, as the first frame's past."""
        ...

    @property
    def first(self) -> int:
        """The first frame that is learned; those before it are context only."""
        ...

    @property
    def blocks(self) -> tuple[int, ...]:
        """Block lengths in frames, one drawn for each pass, so that one set of weights serves them all."""
        ...

    @property
    def copies(self) -> int:
        """Noisy streams a window, each with noise and levels of its own."""
        ...

    @property
    def window(self) -> int | None:
        """How many frames before it a block sees; None for all of the window, 0 for nothing but the previous frame."""
        ...

    @property
    def context_noise(self) -> float:
        """The highest level of noise mixed into the context, for half of its frames.

        The model's own small errors then do not feed back. Source: Valevski et al. 2024 (arXiv:2408.14837),
        section 3.2.1.
        """
        ...


def check_pass_plan(plan: PassPlan) -> None:
    """Raise ConfigError unless every block length gives a layout with something to learn."""
    if not plan.blocks or plan.copies < 1 or not 0 <= plan.context_noise < 1:
        raise ConfigError(f"need a block length, 1 or more copies and 0 <= context_noise < 1, got {plan}")
    for block in plan.blocks:
        _layout(plan, block)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TrainingPass:
    """Windows laid out for one pass, all but the noise of what is to be estimated.

    Args:
        layout: which frames stand where.
        clean: what the noisy streams hold once they are clean, [B, copies * (frames - first), C, H, W].
        context: the windows with a little noise, each after the frame before it, [B, 1 + frames, C, H, W].
        context_sigma: its noise levels, [B, 1 + frames].
        controls: what steered each of those frames, [B, 1 + frames, A].
    recalled: what is recalled of each noisy frame, [B, copies * (frames - first), rows, columns]; None if nothing is.
    """

    layout: StreamLayout
    clean: Tensor
    context: Tensor
    context_sigma: Tensor
    controls: Tensor
    recalled: Tensor | None = None

    @property
    def blocks(self) -> tuple[int, int]:
        """How many windows there are, and noisy blocks in each."""
        return self.clean.shape[0], self.clean.shape[1] // self.layout.block

    @property
    def steering(self) -> Tensor:
        """What steers the noisy frames, [B, copies * (frames - first), A]."""
        return self.controls[:, 1 + self.layout.first :].repeat(1, self.layout.copies, 1)

    def estimate(self, backbone: Backbone, noisy: Tensor, sigma: Tensor) -> Tensor:
        """What the backbone takes the noisy frames for, like clean, float32.

        Args:
            backbone: the network.
            noisy: the clean frames at their levels, like clean.
            sigma: those levels, [B, copies * (frames - first)].
        """
        estimate = self.recalling(backbone)(*self.inputs(backbone, noisy, sigma))
        return estimate[:, self.layout.clean :].float()

    def inputs(self, backbone: Backbone, noisy: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Attend]:
        """What a backbone is called with: the clean stream and behind it the noisy ones. Arguments as for estimate."""
        layout, geometry = self.layout, backbone.geometry
        if backbone.pages.beside:
            raise ConfigError(
                f"a training pass attends over all tokens of what a block sees, in no stream, got {backbone.pages}; "
                "train a backbone without streams"
            )
        attend = StreamAttention(
            layout, rotary=backbone.rotary, grid=(geometry.rows, geometry.columns), device=noisy.device
        )
        clean = layout.clean
        return (
            torch.cat((self.context[:, 1 : 1 + clean], noisy), dim=1),
            torch.cat((self.context[:, :clean], self._previous(noisy)), dim=1),
            torch.cat((self.context_sigma[:, 1 : 1 + clean], sigma), dim=1),
            torch.cat((self.controls[:, 1 : 1 + clean], self.steering), dim=1),
            attend,
        )

    def recalling(self, backbone: Backbone) -> Backbone:
        """The backbone with what is recalled of the noisy frames, if anything is."""
        return recalling(backbone, self.recalled)

    @property
    def tails(self) -> Tensor:
        """For each noisy frame the frame before its block, as the context shows it, like clean."""
        layout = self.layout
        begins = torch.arange(layout.first, layout.frames, device=self.context.device) // layout.block * layout.block
        return self.context[:, begins].repeat(1, layout.copies, 1, 1, 1)

    def _previous(self, noisy: Tensor) -> Tensor:
        """The frame before each noisy one: of the context at the start of a block, inside it of the block itself."""
        before = self.context[:, self.layout.first : -1].repeat(1, self.layout.copies, 1, 1, 1)
        inside = torch.arange(noisy.shape[1], device=noisy.device) % self.layout.block > 0
        return torch.where(inside[None, :, None, None, None], noisy.roll(1, dims=1), before)


def recalling(backbone: Backbone, recalled: Tensor | None) -> Backbone:
    """A backbone that recalls this, if anything is; see RememberingBackbone."""
    return backbone if recalled is None else cast(RememberingBackbone, backbone).recalling(recalled)


def open_pass(plan: PassPlan, play: Play, generator: torch.Generator) -> TrainingPass:
    """Draw a block length, the noise of the context, and what is forgotten.

    Args:
        plan: of the objective.
        play: windows of 1 + frames frames.
        generator: the only source of randomness, on the device of the windows.

    Raises:
        ShapeError: windows of another length.
    """
    latents, controls = play.latents, play.controls
    if latents.shape[1] != 1 + plan.frames or controls.shape[:2] != latents.shape[:2]:
        raise ShapeError(
            f"expected windows of 1 + {plan.frames} frames with as many controls, "
            f"got latents {list(latents.shape)} and controls {list(controls.shape)}"
        )
    device = latents.device
    block = plan.blocks[int(torch.randint(len(plan.blocks), (), generator=generator, device=device))]
    draw = torch.rand(2, *latents.shape[:2], generator=generator, device=device)
    sigma = plan.context_noise * draw[0] * (draw[1] < 0.5)
    layout = _layout(plan, block)
    return TrainingPass(
        layout=layout,
        clean=latents[:, 1 + plan.first :].repeat(1, plan.copies, 1, 1, 1),
        context=add_noise(latents if play.history is None else play.history, sigma, generator),
        context_sigma=sigma,
        controls=controls,
        recalled=None if play.recalled is None else _recalled(layout, forget(play.recalled, generator)),
    )


def forget(recalled: Tensor, generator: torch.Generator) -> Tensor:
    """What is recalled, [B, ahead, F, rows, columns], with gaps and mistakes, as a memory of one's own frames has them.

    In some windows a share of the places is forgotten, any share; and some places are taken for another of those that
    are recalled.
    """
    device, windows = recalled.device, (len(recalled), 1, 1, 1, 1)
    forgetful = torch.rand(windows, generator=generator, device=device) < FORGETFUL
    share = torch.rand(windows, generator=generator, device=device) * forgetful
    gaps = torch.rand(recalled.shape, generator=generator, device=device) < share
    mistaken = torch.rand(recalled.shape, generator=generator, device=device) < MISTAKEN
    known = recalled != UNKNOWN
    codes = recalled[known]
    others = codes[torch.randint(max(1, len(codes)), codes.shape, generator=generator, device=device)]
    mistakes = recalled.masked_scatter(known, others)
    return torch.where(gaps, UNKNOWN, torch.where(mistaken, mistakes, recalled))


def _recalled(layout: StreamLayout, recalled: Tensor) -> Tensor:
    """What is recalled of each noisy frame of a pass, from what is for every place in a block, see Play."""
    times = torch.tensor(layout.times[layout.clean :], device=recalled.device)
    return recalled[:, times % layout.block, 1 + times]


def add_noise(clean: Tensor, sigma: Tensor, generator: torch.Generator) -> Tensor:
    """Frames [B, F, C, H, W] with fresh noise, each at its level of sigma [B, F]."""
    noise = torch.randn(clean.shape, generator=generator, device=clean.device, dtype=clean.dtype)
    return mix(clean, noise, sigma[:, :, None, None, None])


def _layout(plan: PassPlan, block: int) -> StreamLayout:
    window = plan.frames if plan.window is None else plan.window
    return StreamLayout(frames=plan.frames, block=block, window=window, first=plan.first, copies=plan.copies)
