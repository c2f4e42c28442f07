"""Squares of pixels as channels: exact, local, and without memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from worldsim.codec.patches import PatchCodec
from worldsim.errors import ConfigError, ShapeError


def frames(*lead: int, rows: int, columns: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (*lead, rows, columns, 3), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("side", [1, 3, 8])
@pytest.mark.parametrize("lead", [(), (5,), (2, 3)])
def test_every_colour_comes_back_exactly(side: int, lead: tuple[int, ...]) -> None:
    codec, given = PatchCodec(side=side), frames(*lead, rows=2 * side, columns=5 * side, seed=1)
    latents, state = codec.encode(given, codec.open())
    assert latents.shape == (*lead, 3 * side * side, 2, 5)
    assert latents.dtype == torch.float32
    decoded, _ = codec.decode(latents, state)
    assert torch.equal(decoded, given)


def test_all_256_values_lie_in_range_and_come_back() -> None:
    codec = PatchCodec(side=2)
    given = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).expand(-1, -1, -1, 3)
    latents, state = codec.encode(given, codec.open())
    assert (latents.min(), latents.max()) == (-1, 1)
    assert torch.equal(codec.decode(latents, state)[0], given)


def test_one_square_is_one_latent_pixel_both_ways() -> None:
    codec, given = PatchCodec(side=4), frames(3, rows=12, columns=20, seed=2)
    latents, state = codec.encode(given, codec.open())
    given[1, 4:8, 8:12] = 255 - given[1, 4:8, 8:12]
    changed = (codec.encode(given, codec.open())[0] != latents).any(dim=1)
    assert changed.nonzero().tolist() == [[1, 1, 2]]
    before, _ = codec.decode(latents, state)
    latents[1, :, 1, 2] = -latents[1, :, 1, 2]
    differs = (codec.decode(latents, state)[0] != before).any(dim=-1)
    assert differs.nonzero().min(dim=0).values.tolist() == [1, 4, 8]
    assert differs.nonzero().max(dim=0).values.tolist() == [1, 7, 11]


def test_channels_are_the_pixels_of_the_square_row_by_row() -> None:
    codec, given = PatchCodec(side=2), frames(rows=2, columns=4, seed=3)
    latents, _ = codec.encode(given, codec.open())
    assert torch.equal(latents[:, 0, 1], given[:, 2:].flatten() / 127.5 - 1)


def test_coding_in_pieces_equals_coding_whole() -> None:
    codec, given = PatchCodec(side=3), frames(7, rows=6, columns=9, seed=4)
    whole, _ = codec.encode(given, codec.open())
    state, pieces = codec.open(), []
    for piece in given.split((1, 4, 2)):
        latents, state = codec.encode(piece, state)
        pieces.append(latents)
    assert torch.equal(torch.cat(pieces), whole)
    shown = [codec.decode(piece, state)[0] for piece in whole.split((3, 4))]
    assert torch.equal(torch.cat(shown), codec.decode(whole, codec.open())[0])


def test_latents_out_of_range_are_clipped() -> None:
    codec = PatchCodec(side=1)
    shown, _ = codec.decode(torch.tensor([-9.0, 0.0, 9.0]).reshape(3, 1, 1), codec.open())
    assert shown.flatten().tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (torch.zeros(6, 6, 3), "uint8"),
        (torch.zeros(6, 6, 4, dtype=torch.uint8), r"got torch.uint8 \[6, 6, 4\]"),
        (torch.zeros(6, 3, dtype=torch.uint8), r"\[6, 3\]"),
        (torch.zeros(2, 7, 6, 3, dtype=torch.uint8), "7x6 do not divide into squares of 3"),
        (torch.zeros(2, 6, 8, 3, dtype=torch.uint8), "6x8 do not divide into squares of 3"),
    ],
)
def test_frames_that_do_not_fit_are_refused(given: Tensor, says: str) -> None:
    codec = PatchCodec(side=3)
    with pytest.raises(ShapeError, match=says):
        codec.encode(given, codec.open())


@pytest.mark.parametrize("shape", [(26, 2, 2), (27, 2)])
def test_latents_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    codec = PatchCodec(side=3)
    with pytest.raises(ShapeError, match=r"latents \[..., 27, h, w\]"):
        codec.decode(torch.zeros(shape), codec.open())


def test_a_square_without_pixels_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1 pixel"):
        PatchCodec(side=0)
