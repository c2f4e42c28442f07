"""How like frames are to each other: by their latents, and by what they were told where they were told something."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, normalize

PARTS = 3
"""Rows and columns of parts into which a frame is divided; of each part the mean tells."""


def look(latents: Tensor) -> Tensor:
    """What a frame looks like, from its latents [C, H, W]: of length 1, float32 [C * PARTS * PARTS].

    The cosine of two looks tells how like their frames are.
    """
    return normalize(adaptive_avg_pool2d(latents.float(), PARTS).flatten(), dim=0)


def unlike(gists: Sequence[Tensor], now: Tensor) -> list[float]:
    """How unlike what frames were told is to what is told now, 0 of the same prompt to 2: by cosine, of their gists.

    Source: BlockVid, Zhang et al. 2025 (arXiv:2511.22973), which retrieves by the likeness of prompts.
    """
    told: list[float] = (1 - torch.stack([*gists]) @ now).tolist()
    return told


class Looks:
    """The looks of frames, each made once. It never changes: with other frames it is another."""

    def __init__(self, looks: Mapping[int, Tensor]) -> None:
        self._looks = looks

    def of(self, frames: Mapping[int, Tensor]) -> Looks:
        """Those of some frames, by their numbers, with the clean latents [C, H, W] of each."""
        known = self._looks
        return Looks({frame: known[frame] if frame in known else look(it) for frame, it in frames.items()})

    def like_newest(self) -> dict[int, float]:
        """How like the one with the largest number each frame is, -1 to 1; of none, nothing."""
        if not self._looks:
            return {}
        rows = torch.stack([*self._looks.values()])
        return dict(zip(self._looks, (rows @ self._looks[max(self._looks)]).tolist(), strict=True))
