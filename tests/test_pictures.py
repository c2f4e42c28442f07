"""Pictures of any kind, size and mode become what a world begins from, or are refused with what would do."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from worldsim.errors import ConfigError
from worldsim.models.matrixgame.condition import cut_picture
from worldsim.pictures import fit_picture, open_picture

SIZE = (64, 96)
"""Height and width of the world here."""
RAMP = np.tile(np.linspace(0, 255, 120).round().astype(np.uint8), (50, 1))
"""Grey [50, 120], brighter from left to right."""


def as_modes() -> Mapping[str, np.ndarray]:
    colour = np.stack((RAMP, RAMP, RAMP), axis=-1)
    return {
        "grey": RAMP,
        "grey with an axis": RAMP[..., None],
        "colour": colour,
        "opaque": np.concatenate((colour, np.full_like(colour[..., :1], 255)), axis=-1),
        "16 bit": RAMP.astype(np.uint16) * 257,
        "float": RAMP.astype(np.float32) / 255,
        "double": RAMP / 255,
    }


@pytest.mark.parametrize("mode", as_modes())
def test_an_array_of_any_mode_becomes_the_same_picture(mode: str) -> None:
    fitted = fit_picture(as_modes()[mode], SIZE)
    assert (fitted.shape, fitted.dtype) == ((1, *SIZE, 3), np.uint8)
    assert np.array_equal(fitted, fit_picture(RAMP, SIZE))
    # Its middle: 75 of 120 columns, which are 96 then.
    assert abs(int(fitted[0, 32, 0, 0]) - int(RAMP[0, 22])) <= 3
    assert abs(int(fitted[0, 32, -1, 0]) - int(RAMP[0, 97])) <= 3


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("a.png", RAMP),
        ("a.png", np.stack((RAMP, RAMP, RAMP), axis=-1)),
        ("a.png", np.stack((RAMP, RAMP, RAMP, np.full_like(RAMP, 255)), axis=-1)),
        ("a.png", RAMP.astype(np.uint16) * 257),
        ("a.tiff", RAMP.astype(np.float32) / 255),
        ("a.bmp", RAMP),
        ("a.webp", np.stack((RAMP, RAMP, RAMP), axis=-1)),
        ("ä b.jpg", RAMP),
    ],
)
def test_a_file_of_any_mode_becomes_the_same_picture(tmp_path: Path, name: str, stored: np.ndarray) -> None:
    (tmp_path / name).write_bytes(cv2.imencode(Path(name).suffix, stored)[1].tobytes())
    fitted = fit_picture(tmp_path / name, SIZE)
    assert np.abs(fitted.astype(int) - fit_picture(RAMP, SIZE)).max() <= (6 if name.endswith(("jpg", "webp")) else 0)
    assert np.array_equal(fitted, fit_picture(str(tmp_path / name), SIZE))


def test_colours_keep_their_order_and_what_is_not_there_is_white(tmp_path: Path) -> None:
    red = np.zeros((7, 9, 4), np.uint8)
    red[..., 0], red[..., 3] = 255, 255
    red[:, :, 3] = np.where(np.arange(9) < 4, 255, 0)
    cv2.imwrite(str(tmp_path / "a.png"), cv2.cvtColor(red, cv2.COLOR_RGBA2BGRA))
    for given in (red, tmp_path / "a.png"):
        fitted = fit_picture(given, (7, 9))
        assert fitted[0, 3, 0].tolist() == [255, 0, 0]
        assert fitted[0, 3, 8].tolist() == [255, 255, 255]


def test_a_picture_with_a_palette_and_one_held_upright_are_read(tmp_path: Path) -> None:
    pillow = pytest.importorskip("PIL.Image")
    stripes = np.zeros((40, 20, 3), np.uint8)
    stripes[:20] = (200, 30, 10)
    image = pillow.fromarray(stripes)
    image.quantize(4).save(tmp_path / "palette.png")
    turned_round = pillow.Exif()
    turned_round[0x0112] = 6  # the camera was held upright: what is stored lies on its left side
    pillow.fromarray(np.rot90(stripes).copy()).save(tmp_path / "upright.jpg", exif=turned_round, quality=95)
    pillow.fromarray(np.rot90(stripes).copy()).save(tmp_path / "upright.tiff", exif=turned_round)
    for name in ("palette.png", "upright.jpg", "upright.tiff"):
        fitted = fit_picture(tmp_path / name, (40, 20))[0].astype(int)
        assert np.abs(fitted - stripes)[[3, 36]].max() <= 12, name


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 3000), (3000, 1), (33, 47), (720, 1280)])
def test_a_picture_of_any_size_and_aspect_fits(height: int, width: int) -> None:
    fitted = fit_picture(np.full((height, width, 3), 77, np.uint8), SIZE)
    assert fitted.shape == (1, *SIZE, 3)
    assert (fitted == 77).all()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (np.zeros((2, 3, 5)), r"got float64 \[2, 3, 5\]"),
        (np.zeros(7, np.uint8), r"got uint8 \[7\]"),
        (np.zeros((0, 4, 3), np.uint8), r"got uint8 \[0, 4, 3\]"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"got uint8 \[1, 4, 4, 3\]"),
        (np.full((4, 4), "x"), r"of numbers, got <U1 \[4, 4\]"),
        (np.full((4, 4), np.nan), "from 0, black, to 1, white, got nan to nan"),
        (np.full((4, 4), 255.0), "got 255 to 255; divide them by their white"),
        ("nowhere.png", "there is no picture nowhere.png"),
        (".", r"there is no picture \.; give the path of a PNG"),
    ],
)
def test_what_is_no_picture_is_refused(given: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        fit_picture(given, SIZE)


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_a_file_that_is_no_picture_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ConfigError, match=r"a\.png (is no picture that|cannot) .*be read"):
        fit_picture(tmp_path / "a.png", SIZE)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"])
@pytest.mark.parametrize("seed", [1])
def test_a_damaged_file_is_read_or_refused_by_its_name(tmp_path: Path, kind: str, seed: int) -> None:
    dice = random.Random(seed)
    path = tmp_path / f"a.{kind.lower()}"
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 30, 3), np.uint8)).save(path, kind)
    whole, told = path.read_bytes(), []
    for _ in range(60):
        damaged = bytearray(whole[: dice.choice((len(whole), dice.randrange(len(whole))))])
        for _ in range(min(len(damaged), dice.choice((1, 4, 40)))):
            damaged[dice.randrange(min(len(damaged), 200))] = dice.randrange(256)
        path.write_bytes(damaged)
        try:
            fitted = fit_picture(path, SIZE)
        except ConfigError as error:
            told.append(str(error))
        else:
            assert fitted.shape == (1, *SIZE, 3)
    assert told
    assert all(str(path) in text for text in told)


def test_a_grey_picture_of_floats_is_the_same_in_every_family(tmp_path: Path) -> None:
    Image.fromarray(RAMP.astype(np.float32) / 255).save(tmp_path / "float.tiff")
    Image.fromarray(RAMP).save(tmp_path / "bytes.tiff")
    for fit in (lambda path: fit_picture(path, SIZE), lambda path: cut_picture(open_picture(path), SIZE).numpy()):
        assert np.array_equal(fit(tmp_path / "float.tiff"), fit(tmp_path / "bytes.tiff"))
    Image.fromarray(RAMP.astype(np.float32)).save(tmp_path / "levels.tiff")  # as they are in bytes
    for fit in (lambda path: fit_picture(path, SIZE), lambda path: cut_picture(open_picture(path), SIZE).numpy()):
        with pytest.raises(ConfigError, match=r"from 0, black, to 1, white, got .* to 2.*; divide them"):
            fit(tmp_path / "levels.tiff")


@pytest.mark.parametrize("channels", [3, 4])
def test_a_large_picture_takes_little_beside_itself_and_is_the_mean_of_its_pixels(channels: int) -> None:
    rows, columns = (120 + 100 * np.sin(np.arange(count) / 400) for count in (4001, 3001))
    noise = np.random.default_rng(3).integers(0, 20, (4001, 3001, channels), np.uint8)
    large = ((rows[:, None] + columns) / 2).astype(np.uint8)[..., None] + noise
    large[..., 3:] = 255
    tracemalloc.start()
    fitted = fit_picture(large, SIZE)[0].astype(int)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 4 * large.nbytes
    wanted = cv2.resize(large[1000:3001, :, :3].astype(np.float32), SIZE[::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(fitted - wanted).max() <= 2


def test_what_is_large_or_odd_is_no_noise_on_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Image.new("1", (20_000, 5_000), 1).save(tmp_path / "large.png")
    assert (fit_picture(tmp_path / "large.png", SIZE) == 255).all()
    Image.new("1", (20_000, 9_000)).save(tmp_path / "larger.png")
    with pytest.raises(ConfigError, match=r"larger\.png has too many pixels: .*180000000 pixels.* Make it smaller"):
        fit_picture(tmp_path / "larger.png", SIZE)
    Image.new("RGB", (20, 20)).save(tmp_path / "odd.png", icc_profile=b"none")
    fit_picture(tmp_path / "odd.png", SIZE)
    assert capfd.readouterr() == ("", "")
