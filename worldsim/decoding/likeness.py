"""How like frames are to each other: by their latents, and by what they were told where they were told something."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, normalize

from worldsim.cache.answers import some_of
from worldsim.cache.policy import Policy
from worldsim.decoding.held import Held, gists_of
from worldsim.errors import ConfigError, shown

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


@dataclass(slots=True, eq=False)
class Likeness:
    """How like held frames are to what comes next, an Alike: as to the newest, which what comes next is most like.

    Where frames were told something it is less by how unlike that is to what is told now.

    Args:
        held: the frames.
        now: the gist of what comes next is told; None where nothing is said in words.
        policy: who asks.

    looks: those that are known; once anything was asked, of all that is held.
    """

    looks: Looks
    held: Held
    now: Tensor | None
    policy: Policy
    _told: dict[int, float] = field(init=False, default_factory=dict)

    def __call__(self, frame: int) -> float:
        """Of one of them, -1 to 1 or less; ConfigError of another."""
        if not self._told:
            self.looks = self.looks.of({number: kept.latents[0, 0] for number, kept in self.held.items()})
            self._told = self.looks.like_newest()
            if self.now is not None:
                for number, by in zip(self.held, unlike(gists_of(self.held), self.now), strict=True):
                    self._told[number] -= by
        if frame not in self._told:
            raise ConfigError(
                f"the policy {shown(self.policy)} asks how like frame {shown(frame)} is, which is not held; let its "
                f"`see` ask about {some_of(tuple(self.held))}"
            )
        return self._told[frame]
