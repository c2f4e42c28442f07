"""What recorded play tells of places: which patches do not rest, and what a backbone that remembers would recall.

That is told of every recorded frame, as it would have been when that was to be made.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from worldsim.errors import ConfigError
from worldsim.models.protocol import UNKNOWN, Codec
from worldsim.models.small.atlas import Atlas, Codes, Dim
from worldsim.models.small.backbone import SmallBackbone
from worldsim.training.data import Episodes

AHEAD = 4
"""The longest block, in frames: how far ahead of what was seen a frame may lie."""
OFTEN, SEEN = 0.1, 10
"""A patch is restless that is gone a frame later that often, if it was seen so many times. Of Crafter's palette these
are 96 of 576 patches, each of them a creature or an arrow by day or night."""
PORTION = 512
"""Frames that are looked at together."""


class Recollections:
    """What is recalled of each frame of some episodes, all before it in its episode having been seen.

    All are found when the first are asked for, by the palette that the backbone has then: of 400,000 Crafter frames in
    two minutes on two cores. They take 4 x 126 bytes a frame.

    Args:
        episodes: the recorded play.
        codec: of the world.
        backbone: whose palette tells what a token shows.

    Raises:
        ConfigError: the backbone has no scroll.
    """

    def __init__(self, episodes: Episodes, codec: Codec[Any], backbone: SmallBackbone) -> None:
        if backbone.config.scroll is None:
            raise ConfigError("a backbone without a scroll recalls nothing; train it without recollections")
        self._episodes, self._codec, self._backbone = episodes, codec, backbone
        self._scroll, self._geometry = backbone.config.scroll, backbone.geometry

    def of(self, frames: Tensor) -> Tensor:
        """What is recalled of the frames of those numbers, [windows, F]: int64 [windows, AHEAD, F, rows, columns].

        It is told for a frame that is the first, the second ... of its block: seen was what lies before the block.
        """
        land = self._recalled[:, frames].transpose(0, 1).long()
        below = self._geometry.rows - self._scroll.rows
        return pad(land, (0, 0, 0, below), value=UNKNOWN)

    @cached_property
    def _recalled(self) -> Tensor:
        """Of every frame, int16 [AHEAD, N, scroll.rows, columns]."""
        assert self._backbone.palette is not None
        restless = self._backbone.palette.is_restless.cpu().numpy()
        asked = self._scroll.asked(self._episodes.controls.cpu()).numpy()
        recalled = np.full((AHEAD, len(asked), self._scroll.rows, self._geometry.columns), UNKNOWN, np.int16)
        for begin, end in self._episodes.episodes:
            codes, made, dims = _looked_at(self._episodes, (begin, end), self._codec, self._backbone)
            atlas = Atlas.of({}, self._scroll, self._geometry.columns)
            atlas = atlas.see(codes[0], (0, 0), dims[0], restless=restless)
            for at in range(1, end - begin):
                now = begin + at
                moves = asked[now : min(now + AHEAD, end)].cumsum(0)
                for ahead, move in enumerate(moves):
                    recalled[ahead, now + ahead] = atlas.recall(move)
                atlas = atlas.see(codes[at], made[at], dims[at], restless=restless)
        return torch.from_numpy(recalled).to(self._episodes.frames.device)


def find_restless(episodes: Episodes, codec: Codec[Any], backbone: SmallBackbone) -> Tensor:
    """Which patches of the palette of a backbone with a scroll are often gone from their place a frame later, bool [K].

    A shade of the same patch is the same. Where the body stands, and what only ever is there, nothing is told of.
    """
    assert backbone.palette is not None
    assert backbone.config.scroll is not None
    scroll, kin = backbone.config.scroll, backbone.palette.kin.bool().cpu().numpy()
    moves = {(0, 0), *((rows, columns) for _, rows, columns in scroll.moves)}
    seen, gone = np.zeros((2, len(kin)), np.int64)
    for episode in episodes.episodes:
        codes, made, _ = _looked_at(episodes, episode, codec, backbone)
        for move in moves:
            now = 1 + np.flatnonzero((made[1:] == move).all(-1))
            old, new, land = scroll.shared(codes.shape[2], move)
            there = land.numpy()
            before, after = codes[now - 1, : scroll.rows], codes[now, : scroll.rows]
            before, after = before[:, *old][:, there], after[:, *new][:, there]
            seen += np.bincount(before.ravel(), minlength=len(kin))
            gone += np.bincount(before[~kin[before, after]], minlength=len(kin))
    return torch.from_numpy((seen >= SEEN) & (gone >= OFTEN * seen))


def places_of(episodes: Episodes, codec: Codec[Any], backbone: SmallBackbone) -> Tensor:
    """Where the body is at every frame, by the moves that were made since its episode began: int64 [N, 2].

    Raises:
        ConfigError: the backbone has no scroll.
    """
    if backbone.config.scroll is None:
        raise ConfigError("a backbone without a scroll knows of no moves, and so of no places")
    made = [_looked_at(episodes, episode, codec, backbone)[1] for episode in episodes.episodes]
    return torch.from_numpy(np.concatenate([moves.cumsum(0) for moves in made]))


@torch.no_grad()
def _looked_at(
    episodes: Episodes, episode: tuple[int, int], codec: Codec[Any], backbone: SmallBackbone
) -> tuple[Codes, NDArray[np.int64], list[Dim | None]]:
    """Of the N frames of an episode what every token shows, by which move each was reached, and what it tells by night.

    int16 [N, rows, columns], int64 [N, 2] and N of Dim or None; the first as if it had been there before.
    """
    palette, scroll = backbone.palette, backbone.config.scroll
    assert palette is not None
    assert scroll is not None
    begin, end = episode
    grid = (backbone.geometry.rows, backbone.geometry.columns)
    codes = torch.empty(end - begin, *grid, dtype=torch.int16)
    made = torch.empty(end - begin, 2, dtype=torch.int64)
    dims: list[Dim | None] = []
    for at in range(begin, end, PORTION):
        until = min(at + PORTION, end)
        now = slice(at - begin, until - begin)
        numbers = torch.arange(at - 1, until, device=episodes.frames.device).clamp_min(begin)
        latents, _ = codec.encode(episodes.frames[numbers], codec.open())
        patches = backbone.patchify(latents[None])[0].unflatten(1, grid)
        codes[now] = palette.nearest(patches[1:]).short().cpu()
        made[now] = scroll.made(patches[:-1], patches[1:], episodes.controls[at:until]).cpu()
        dims += scroll.dim(patches[:-1], patches[1:], made[now].tolist(), palette.centres)
    return codes.numpy(), made.numpy(), dims
