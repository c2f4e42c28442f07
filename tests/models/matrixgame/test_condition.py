"""The channels of a picture are those of encoding it with grey for all the rest, however far a video goes."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from worldsim.codec.wan import LATENT_MEAN, LATENT_STD, WanCodec
from worldsim.codec.wan_tiles import Tiling
from worldsim.errors import ConfigError, MissingDependency, ShapeError
from worldsim.models.matrixgame.condition import (
    MASKS,
    MOST,
    PictureCondition,
    cut_picture,
    picture_condition,
    picture_levels,
)

diffusers = pytest.importorskip("diffusers")
pillow = pytest.importorskip("PIL.Image")
HEIGHT, WIDTH = 16, 24
RESTS = 30
"""So many frames of Wan 2.1's codec see the picture, or the beginning, in some way."""
WHOLE = 33


@cache
def network(seed: int, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The smallest network of the layout, with random weights that keep numbers about as large as they come in."""
    with torch.device("meta"):
        model: nn.Module = diffusers.AutoencoderKLWan(base_dim=8)
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, tensor in model.state_dict().items():
        drawn = torch.randn(tensor.shape, generator=generator)
        fan_in = tensor[0].numel() if name.endswith("weight") else 100
        weights[name] = (1 + drawn / 10 if name.endswith("gamma") else drawn / fan_in**0.5).to(dtype)
    model.load_state_dict(weights, assign=True)
    return model.eval().requires_grad_(requires_grad=False)


def picture_of(seed: int, height: int = HEIGHT, width: int = WIDTH) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (height, width, 3), generator=generator, dtype=torch.uint8)


def whole(codec: WanCodec, picture: Tensor, frames: int) -> Tensor:
    """All latents in one go, as published: the picture, then zeros, where -1 is black and 1 is white."""
    levels = torch.zeros(1 + 4 * (frames - 1), *picture.shape)
    levels[0] = picture / 127.5 - 1
    return codec.encode_levels(levels, codec.open())[0]


@cache
def whole_of(seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return whole(WanCodec(network(seed, dtype)), picture_of(seed), WHOLE)


def by_diffusers(codec: WanCodec, picture: Tensor, frames: int, dtype: torch.dtype) -> Tensor:
    """The same by the network's own way to encode a video, normalised."""
    model: Any = network(1) if dtype == torch.float32 else nn.Module.to(diffusers.AutoencoderKLWan(base_dim=8), dtype)
    model.load_state_dict(network(1).state_dict())
    video = torch.zeros(1, 3, 1 + 4 * (frames - 1), *picture.shape[:2], dtype=dtype)
    video[0, :, 0] = (picture.to(dtype) / 255 * 2 - 1).movedim(-1, 0)
    with torch.no_grad():
        raw = model.eval().encode(video).latent_dist.mode()[0].movedim(0, 1)
    mean, std = (torch.tensor(numbers, dtype=dtype)[:, None, None] for numbers in (LATENT_MEAN, LATENT_STD))
    found: Tensor = (raw - mean) / std
    return found


@pytest.mark.parametrize(("seed", "dtype"), [(1, torch.float32), (2, torch.float32), (3, torch.bfloat16)])
def test_later_frames_see_exactly_what_encoding_all_of_them_gives(seed: int, dtype: torch.dtype) -> None:
    codec, picture = WanCodec(network(seed, dtype)), picture_of(seed)
    condition = picture_condition(picture, codec)
    assert (condition.encoded, condition.settled) == (RESTS, True)
    truth = whole_of(seed, dtype)
    assert torch.equal(condition.channels(0, WHOLE)[:, MASKS:], truth)
    assert not torch.equal(truth[RESTS - 1], truth[RESTS - 2]), "the last that is encoded is the last that moved"
    assert torch.equal(condition.channels(10_000, 1)[0, MASKS:], truth[-1])


def test_the_latents_are_those_of_diffusers() -> None:
    codec, picture = WanCodec(network(1)), picture_of(1)
    found = picture_condition(picture, codec).channels(0, 6)[:, MASKS:]
    truth = by_diffusers(codec, picture, 6, torch.float64)
    plain = by_diffusers(codec, picture, 6, torch.float32)
    assert (found.double() - truth).abs().max() <= 2 * (plain.double() - truth).abs().max()


def test_a_tiled_codec_gives_the_same_as_tiled_encoding_of_all() -> None:
    codec, picture = WanCodec(network(1), tiling=Tiling(side=4, overlap=2)), picture_of(5, 48, 32)
    condition = picture_condition(picture, codec, most=4)
    assert torch.equal(condition.channels(0, 4)[:, MASKS:], whole(codec, picture, 4))


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(("most", "error"), [(1, 2.0), (18, 2e-2), (25, 2e-4), (28, 2e-6)])
def test_the_fewer_frames_are_encoded_the_more_later_ones_differ(seed: int, most: int, error: float) -> None:
    condition = picture_condition(picture_of(seed), WanCodec(network(seed)), most=most)
    assert (condition.encoded, condition.settled) == (most, False)
    found, truth = condition.channels(0, WHOLE)[:, MASKS:], whole_of(seed)
    assert torch.equal(found[:most], truth[:most])
    assert 0 < (found - truth).abs().max() < error
    assert truth.std() > 0.3, "latents this flat would prove nothing"


def test_no_more_are_encoded_than_are_needed() -> None:
    class Counting:
        """A codec of whose two convolutions one sees one frame back, so that all rests after two."""

        group = 4
        passes = 0

        def open(self) -> Mapping[str, Tensor]:
            return {}

        def encode_levels(self, levels: Tensor, state: Mapping[str, Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
            self.passes += 1
            assert len(levels) == (self.group if state else 1)
            assert levels.dtype == torch.float32
            now = levels.mean((0, 1, 2)).reshape(1, 3, 1, 1)
            return now + 2 * state.get("encode.0.0", 0), {"encode.0.0": now}

    codec = Counting()
    condition = picture_condition(torch.full((4, 5, 3), 255, dtype=torch.uint8), codec)
    assert condition.latents.flatten().tolist() == [1] * 3 + [2] * 3 + [0] * 3
    assert (condition.encoded, condition.settled, codec.passes) == (3, True, 3)
    assert MOST > RESTS


@pytest.mark.parametrize(("first", "frames"), [(0, 1), (0, 3), (1, 3), (3, 4), (29, 7), (600, 2)])
def test_the_mask_stands_before_the_latents_and_is_of_the_first_frame_alone(first: int, frames: int) -> None:
    latents = torch.randn(5, 16, 2, 3, generator=torch.Generator().manual_seed(first))
    condition = PictureCondition(latents=latents, settled=True)
    found = condition.channels(first, frames)
    assert (found.shape, found.dtype) == ((frames, 20, 2, 3), torch.float32)
    for at, frame in enumerate(found):
        assert (frame[:4] == (first + at == 0)).all()
        assert torch.equal(frame[4:], latents[min(first + at, 4)])


@pytest.mark.parametrize(("first", "frames"), [(-1, 3), (0, 0)])
def test_frames_that_are_none_are_told(first: int, frames: int) -> None:
    condition = PictureCondition(latents=torch.zeros(2, 16, 2, 3), settled=True)
    with pytest.raises(ConfigError, match=f"got {frames} from {first} on"):
        condition.channels(first, frames)


def test_what_cannot_be_encoded_is_told() -> None:
    codec = WanCodec(network(1))
    with pytest.raises(ConfigError, match="so most is 1 or more, got 0"):
        picture_condition(picture_of(1), codec, most=0)
    with pytest.raises(ShapeError, match=r"expected a picture uint8 \[H, W, 3\], got torch.float32 \[16, 24, 3\]"):
        picture_condition(picture_of(1).float(), codec)
    with pytest.raises(ShapeError, match="15x24 do not divide"):
        picture_condition(picture_of(1)[:15], codec)


def test_levels_go_from_black_to_white() -> None:
    grey = torch.tensor([0, 51, 255], dtype=torch.uint8)[:, None, None].expand(3, 2, 3)
    assert picture_levels(grey)[:, 0, 0].tolist() == pytest.approx([-1, -0.6, 1])


def smoothed(pixels: NDArray[Any], wanted: int) -> NDArray[Any]:
    """Rows [n, ...] as so many, each a mean that falls off evenly to both sides, as far as it has to reach."""
    given = len(pixels)
    reach = max(1.0, given / wanted)
    middles = (np.arange(wanted) + 0.5) * given / wanted
    far = np.abs(np.arange(given) + 0.5 - middles[:, None])
    shares = np.clip(1 - far / reach, 0, None)
    return np.tensordot(shares / shares.sum(1, keepdims=True), pixels, 1)


def levels(height: int, width: int, *, seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("height", "width", "cut"),
    [
        (44, 80, (0, 0, 44, 80)),
        (352, 640, (0, 0, 352, 640)),
        (100, 80, (28, 0, 72, 80)),
        (44, 101, (0, 10, 44, 90)),
        (45, 92, (0, 6, 45, 86)),  # 81.8 pixels are 81, from 5.5 to 86.5, and both ends are rounded to even ones
        (45, 94, (0, 6, 45, 88)),
        (9, 11, (2, 0, 8, 11)),
        (7, 5, (2, 0, 4, 5)),
    ],
)
def test_the_middle_is_cut_to_the_aspect_and_resized(height: int, width: int, cut: tuple[int, ...]) -> None:
    pixels = levels(height, width, seed=height)
    top, left, bottom, right = cut
    across = smoothed(pixels[top:bottom, left:right].astype(float).swapaxes(0, 1), 80).swapaxes(0, 1)
    found = cut_picture(pillow.fromarray(pixels), (44, 80))
    assert (found.shape, found.dtype) == ((44, 80, 3), torch.uint8)
    assert np.abs(found.numpy() - smoothed(across, 44)).max() <= 1.01


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 900), (900, 1), (2, 3), (2, 1), (33, 1000)])
def test_a_picture_of_any_size_and_aspect_is_cut(height: int, width: int) -> None:
    for size in ((44, 80), (80, 44)):
        found = cut_picture(pillow.new("RGB", (width, height), (3, 77, 251)), size)
        assert found.shape == (*size, 3)
        assert (found == torch.tensor([3, 77, 251])).all()


def white(mode: str) -> Any:
    """All white, 9 x 7."""
    by_numbers = {"LAB": (255, 128, 128), "CMYK": (0, 0, 0, 0), "HSV": (0, 0, 255), "YCbCr": (255, 128, 128)}
    if mode.startswith("I;16"):
        return pillow.frombytes(mode, (9, 7), b"\xff" * 126)
    made = pillow.new("P" if mode == "PA" else mode, (9, 7), by_numbers.get(mode, "white"))
    return made.convert("PA") if mode == "PA" else made


@pytest.mark.parametrize(
    "mode", ["1", "L", "P", "RGB", "RGBA", "RGBX", "RGBa", "LA", "PA", "CMYK", "YCbCr", "HSV", "LAB", "I;16", "I;16B"]
)
def test_white_is_white_in_every_mode(mode: str) -> None:
    picture = white(mode)
    assert picture.mode == mode
    assert (cut_picture(picture, (5, 8)) >= 254).all()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "P"])
def test_colours_stay_what_they_are_in_every_mode_that_has_some(mode: str) -> None:
    pixels = np.zeros((6, 9, 3), np.uint8)
    pixels[..., 0], pixels[..., 1], pixels[3:, :, 2] = 200, 90, 30
    picture = pillow.fromarray(pixels)
    found = cut_picture(picture.quantize(8) if mode == "P" else picture.convert(mode), (6, 9))
    assert np.abs(found.numpy().astype(int) - pixels).max() <= 5


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_grey_of_sixteen_bits_is_not_cut_off(mode: str) -> None:
    grey = np.array([[0, 257 * 100 + 120], [257 * 200 - 120, 65535]], ">u2" if mode == "I;16B" else "<u2")
    found = cut_picture(pillow.frombytes(mode, (2, 2), grey.tobytes()), (2, 2))
    assert found[..., 1].tolist() == [[0, 100], [200, 255]]


@pytest.mark.parametrize("mode", ["RGBA", "RGBa", "LA"])
def test_where_a_picture_is_transparent_white_shows(mode: str) -> None:
    picture = pillow.new("RGBA", (8, 6), (40, 40, 40, 255))
    picture.paste((0, 0, 0, 0), (4, 0, 8, 6))
    picture.paste((0, 0, 0, 51), (0, 0, 4, 3))
    found = cut_picture(picture.convert(mode), (6, 8))
    assert (found[:, 4:] == 255).all()
    assert (found[3:, :4] == 40).all()
    assert (found[:3, :4] == 204).all()


def test_a_colour_of_a_palette_may_be_transparent() -> None:
    palette = pillow.fromarray(np.array([[0, 1]], np.uint8), "L").convert("P")
    palette.putpalette([9, 9, 9, 200, 0, 0])
    palette.info["transparency"] = 0
    assert cut_picture(palette, (1, 2)).tolist() == [[[255, 255, 255], [200, 0, 0]]]


def test_a_picture_held_upright_is_turned() -> None:
    pixels = levels(4, 6, seed=1)
    turned = pillow.Exif()
    turned[0x0112] = 6
    stored = BytesIO()
    pillow.fromarray(np.rot90(pixels).copy()).save(stored, "PNG", exif=turned)
    assert np.array_equal(cut_picture(pillow.open(stored), (4, 6)).numpy(), pixels)


@pytest.mark.parametrize(
    ("picture", "told"),
    [
        (pillow.new("I", (4, 4)), "a picture of 4x4 pixels of mode I shows no colours; give one"),
        (pillow.new("F", (4, 4), 2), "from 0, black, to 1, white, got 2 to 2"),
        (pillow.new("RGB", (0, 4)), "a picture of 0x4 pixels"),
        (pillow.new("La", (4, 4)), "the picture cannot be read .*La"),
        ("picture.png", "expected an opened picture of Pillow, got a str; open it first"),
        (np.zeros((4, 4, 3), np.uint8), "got a ndarray"),
    ],
)
def test_what_shows_no_picture_is_refused(picture: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        cut_picture(picture, (44, 80))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF"])
def test_a_file_that_was_cut_off_is_refused(kind: str) -> None:
    stored = BytesIO()
    pillow.fromarray(levels(40, 60, seed=2)).save(stored, kind)
    torn = BytesIO(stored.getvalue()[: len(stored.getvalue()) // 2])
    with pytest.raises(ConfigError, match="the picture cannot be read"):
        cut_picture(pillow.open(torn), (44, 80))


def test_pillow_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    picture, real = pillow.new("RGB", (4, 4)), builtins.__import__

    def without_pillow(name: str, *args: Any, **options: Any) -> Any:
        if name == "PIL":
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without_pillow)
    with pytest.raises(MissingDependency, match=r"pictures need Pillow: .*pip install .* --editable '\.\[wan\]'"):
        cut_picture(picture, (4, 4))
