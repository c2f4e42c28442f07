"""Frames cut into tiles that overlap, and put together again without a seam."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from worldsim.errors import ConfigError


class Tile(NamedTuple):
    """A part of a frame, in pixels of whichever grid it is used on."""

    top: int
    left: int
    height: int
    width: int

    def scaled(self, factor: int) -> Tile:
        """The same part of a frame that is factor times as large."""
        return Tile(*(factor * number for number in self))

    def of(self, frames: Tensor) -> Tensor:
        """What [..., H, W] shows there, as a view."""
        return frames[..., self.top : self.top + self.height, self.left : self.left + self.width]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """How frames are cut to be coded with less memory: tiles of at most side x side latent pixels.

    side: of a tile, in latent pixels; the coder's peak is that of a frame of this size.
    overlap: latent pixels that neighbours share at least, over which one fades into the other. What lies in them is
        coded twice, and what each tile carries from frame to frame is kept twice: as they stand, a frame of 60 x 104
        latent pixels is 2 x 4 tiles, and its state 1.4 times that of a whole one.
    """

    side: int = 34
    overlap: int = 8

    def __post_init__(self) -> None:
        if not 0 < self.overlap < self.side:
            raise ConfigError(
                f"tiles of {self.side} latent pixels that share {self.overlap} do not tile a frame; "
                "let them share at least 1 and fewer than their side"
            )

    def cut(self, height: int, width: int) -> list[Tile]:
        """The tiles of a frame of height x width latent pixels, row after row; one if it is no larger than a tile."""
        rows, tall = self._along(height)
        columns, wide = self._along(width)
        return [Tile(top, left, tall, wide) for top in rows for left in columns]

    def _along(self, length: int) -> tuple[list[int], int]:
        """Where tiles start along one axis and how long they are: as few as need be, and no longer."""
        if length <= self.side:
            return [0], length
        count = math.ceil((length - self.overlap) / (self.side - self.overlap))
        each = math.ceil((length + (count - 1) * self.overlap) / count)
        return [round(number * (length - each) / (count - 1)) for number in range(count)], each


def blend(tiles: Sequence[Tile], parts: Sequence[Tensor], *, overlap: int) -> Tensor:
    """The whole of which parts are the tiles, float32 [..., H, W].

    A pixel that several tiles show is their mean, weighted by how far it lies inside each: from next to nothing at an
    inner edge to one at `overlap` pixels from it.

    Args:
        tiles: where each part lies; together they leave nothing out.
        parts: [..., height, width] of its tile each.
        overlap: pixels over which tiles fade.
    """
    height = max(tile.top + tile.height for tile in tiles)
    width = max(tile.left + tile.width for tile in tiles)
    first = parts[0]
    whole = first.new_zeros((*first.shape[:-2], height, width), dtype=torch.float32)
    shares = first.new_zeros((height, width), dtype=torch.float32)
    for tile, part in zip(tiles, parts, strict=True):
        at = torch.arange(max(tile.height, tile.width), dtype=torch.float32, device=first.device) + 0.5
        rows, columns = at[: tile.height], at[: tile.width]
        share = _fade(rows, tile.top, height, overlap)[:, None] * _fade(columns, tile.left, width, overlap)
        tile.of(whole).addcmul_(part.float(), share)
        tile.of(shares).add_(share)
    return whole / shares


def _fade(at: Tensor, start: int, whole: int, overlap: int) -> Tensor:
    """What each pixel of a tile counts along one axis, (0, 1], from where it is; edges of the frame do not fade."""
    share = torch.ones_like(at)
    if start:
        share = torch.minimum(share, at / overlap)
    if start + len(at) < whole:
        share = torch.minimum(share, (len(at) - at) / overlap)
    return share
