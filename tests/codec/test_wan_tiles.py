"""Tiles: nothing is left out, and what is put together is what was cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from worldsim.codec.wan_tiles import Tile, Tiling, blend
from worldsim.errors import ConfigError

SIZES = [(1, 1), (5, 9), (9, 5), (10, 23), (31, 17)]


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize(("side", "overlap"), [(9, 2), (9, 8), (6, 1)])
def test_tiles_leave_nothing_out_and_neighbours_share_what_they_should(
    height: int, width: int, side: int, overlap: int
) -> None:
    tiles = Tiling(side=side, overlap=overlap).cut(height, width)
    shown = torch.zeros(height, width)
    for tile in tiles:
        assert tile.of(shown).shape == (tile.height, tile.width) == tiles[0][2:]
        tile.of(shown).add_(1)
    assert shown.min() >= 1
    for starts, each, length in (
        ({tile.top for tile in tiles}, tiles[0].height, height),
        ({tile.left for tile in tiles}, tiles[0].width, width),
    ):
        assert each <= side
        assert max(starts) + each == length
        assert all(0 < later - earlier <= each - overlap for earlier, later in pairwise(sorted(starts)))


def test_a_frame_no_larger_than_a_tile_is_one_tile() -> None:
    assert Tiling(side=9, overlap=2).cut(9, 7) == [Tile(0, 0, 9, 7)]


def test_tiles_are_as_few_as_reach_the_end_and_no_longer_than_that_takes() -> None:
    assert Tiling(side=9, overlap=2).cut(16, 9) == [Tile(0, 0, 9, 9), Tile(7, 0, 9, 9)]
    assert Tiling(side=9, overlap=2).cut(17, 9) == [Tile(0, 0, 7, 9), Tile(5, 0, 7, 9), Tile(10, 0, 7, 9)]


def test_a_frame_of_480_by_832_pixels_is_eight_tiles() -> None:
    tiles = Tiling().cut(60, 104)
    assert len(tiles) == 8
    assert sum(tile.height * tile.width for tile in tiles) < 1.4 * 60 * 104


def test_tiles_lie_row_after_row_and_scale() -> None:
    tiles = Tiling(side=4, overlap=2).cut(6, 6)
    assert tiles == [Tile(0, 0, 4, 4), Tile(0, 2, 4, 4), Tile(2, 0, 4, 4), Tile(2, 2, 4, 4)]
    assert tiles[1].scaled(8) == Tile(0, 16, 32, 32)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("seed", [1, 2])
def test_what_was_cut_is_put_together_again(height: int, width: int, seed: int) -> None:
    whole = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(seed))
    tiles = Tiling(side=8, overlap=3).cut(height, width)
    again = blend(tiles, [tile.of(whole) for tile in tiles], overlap=3)
    # A weighted mean of equal numbers: a few roundings of float32.
    assert (again - whole).abs().max() <= 4 * torch.finfo(torch.float32).eps * whole.abs().max()


def test_one_tile_fades_into_the_next_without_a_step() -> None:
    tiles = Tiling(side=8, overlap=4).cut(1, 12)
    seam = blend(tiles, [torch.zeros(1, 8), torch.ones(1, 8)], overlap=4)[0]
    assert seam[:4].tolist() == [0] * 4
    assert seam[4:8].tolist() == pytest.approx([0.125, 0.375, 0.625, 0.875])
    assert seam[8:].tolist() == [1] * 4


def test_parts_of_any_dtype_are_put_together_in_float32() -> None:
    tiles = Tiling(side=8, overlap=4).cut(8, 12)
    whole = blend(tiles, [torch.ones(8, 8, dtype=torch.bfloat16)] * 2, overlap=4)
    assert whole.dtype == torch.float32


@pytest.mark.parametrize(("side", "overlap"), [(4, 0), (4, 4), (4, -1), (0, 0)])
def test_tiles_that_do_not_tile_are_refused(side: int, overlap: int) -> None:
    with pytest.raises(ConfigError, match="do not tile"):
        Tiling(side=side, overlap=overlap)
