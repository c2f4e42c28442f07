"""What a video keeps of its past beside keys and values: the clean latents of each frame, and what led to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor


class Kept(NamedTuple):
    """A frame of the past: clean latents [1, 1, C, H, W], what steered it, [1, 1, A], and the gist of what it was told.

    gist: see PromptedBackbone.gist; None where nothing is said in words.
    """

    latents: Tensor
    controls: Tensor
    gist: Tensor | None = None


Held = Mapping[int, Kept]
"""Frames of the past by their numbers, ascending."""


def joined(frames: Iterable[Kept]) -> tuple[Tensor, Tensor]:
    """The latents of some frames side by side, [1, F, C, H, W], and what steered them, [1, F, A]; F at least 1."""
    latents, controls = zip(*((kept.latents, kept.controls) for kept in frames), strict=True)
    return torch.cat(latents, dim=1), torch.cat(controls, dim=1)


def gists_of(held: Held) -> list[Tensor]:
    """What each frame was told; of none, where nothing is said in words."""
    return [kept.gist for kept in held.values() if kept.gist is not None]
