"""Pictures that worlds begin from: read from files, turned upright, and fitted to the size of a world."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from worldsim.errors import ConfigError, MissingDependency, installing

if TYPE_CHECKING:
    from PIL import Image

ORIENTATION = 0x0112
"""The field of Exif that says how the camera was held."""
BAND_PIXELS = 1 << 22
"""So much of a picture is there in floats at one time: of a large one all of it would take gigabytes."""
BEYOND = 0.01
"""So far outside 0 to 1 is still a level that was rounded."""
TORN = (
    *(OSError, EOFError, ValueError, SyntaxError, TypeError, LookupError, AttributeError, NotImplementedError),
    *(struct.error, zlib.error, OverflowError, RuntimeError),
)
"""What Pillow stumbles over in a file that is none it knows, was cut off, or in which a byte is another."""
Band = Callable[[slice, slice], NDArray[Any]]
"""Rows and columns of a picture, [H, W], or [H, W, 1, 3 or 4] in RGB."""


def open_picture(path: Path) -> Image.Image:
    """The picture in a file, read to its end.

    Raises:
        ConfigError: there is none, it is damaged, or it has more pixels than Pillow reads, 178,956,970.
        MissingDependency: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDependency(f"pictures need Pillow: {installing('wan')}") from error
    if not path.is_file():
        raise ConfigError(f"there is no picture {path}; give the path of a PNG, JPEG or WebP")
    try:
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")  # of what is large, and of what is odd beside the picture
            picture = Image.open(file)
            picture.load()
            picture.getexif()  # which is kept, and read from the file
    except Image.DecompressionBombError as error:
        raise ConfigError(f"{path} has too many pixels: {error} Make it smaller, and try again") from error
    except TORN as error:
        raise ConfigError(
            f"{path} is no picture that can be read ({error}); save it again, as PNG, JPEG or WebP"
        ) from error
    return picture


def upright(picture: Image.Image) -> Image.Image:
    """The picture turned as it says it was held.

    Raises:
        ConfigError: it is empty, cannot be read to its end, or is of a mode that does not say what its white is.
    """
    from PIL import Image, ImageOps

    if not isinstance(picture, Image.Image):
        raise ConfigError(f"expected an opened picture of Pillow, got a {type(picture).__name__}; open it first")
    if not picture.width or not picture.height or picture.mode == "I":
        raise ConfigError(
            f"a picture of {picture.width}x{picture.height} pixels of mode {picture.mode} shows no colours; give one "
            "of 1x1 or more in RGB, or in grey of 8 or 16 bits"
        )
    try:
        picture.load()
        # Who asks for a picture that lies as it should gets a copy.
        return picture if picture.getexif().get(ORIENTATION, 1) == 1 else ImageOps.exif_transpose(picture)
    except TORN as error:
        raise _unreadable(error) from error


def colours(picture: Image.Image) -> Image.Image:
    """A picture in RGB, over white where it is not there; of grey floats 1 is white. Errors as for `upright`."""
    from PIL import Image

    if picture.mode == "F":
        picture = Image.fromarray((_levels(np.asarray(picture))[..., 0].clip(0, 1) * 255).round().astype(np.uint8))
    try:
        if picture.mode.startswith("I;16"):
            picture = Image.fromarray((np.asarray(picture) / 257).round().astype(np.uint8))
        if not picture.has_transparency_data:
            return picture if picture.mode == "RGB" else picture.convert("RGB")
        there = picture.convert("RGBA")
    except TORN as error:
        raise _unreadable(error) from error
    white = Image.new("RGBA", there.size, "white")
    return Image.alpha_composite(white, there).convert("RGB")


def fit_picture(picture: str | Path | NDArray[Any], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture as a world begins from it, uint8 [1, H, W, 3]: its middle, cut to the aspect of the world and resized.

    Args:
        picture: a file, turned as it says it was held; or an array [H, W], [H, W, 1], [H, W, 3] in RGB or [H, W, 4]
            with how much of a pixel is there, of whole numbers to the end of their type or of floats in [0, 1].
        size: (height, width) in pixels.

    Raises:
        ConfigError: it is no picture, or none that can be read.
        MissingDependency: Pillow is not installed, and a file is given.
    """
    if isinstance(picture, str | Path):
        image = upright(open_picture(Path(picture)))

        def band_of_file(rows: slice, columns: slice) -> NDArray[Any]:
            return np.asarray(colours(image.crop((columns.start, rows.start, columns.stop, rows.stop))))

        return _fitted(band_of_file, (image.height, image.width), size)
    array = np.asarray(picture)
    channels = {2: 1, 3: array.shape[-1]}.get(array.ndim, 0) if array.size else 0
    if channels not in (1, 3, 4) or array.dtype.kind not in "buif":
        raise ConfigError(
            f"a picture is an array [H, W], [H, W, 3] or [H, W, 4] of numbers, got {array.dtype} {list(array.shape)}"
        )
    return _fitted(lambda rows, columns: array[rows, columns], array.shape[:2], size)


def _fitted(band: Band, given: tuple[int, ...], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The middle of a picture of (height, width) pixels, resized to another size, uint8 [1, H, W, 3]."""
    import cv2

    height, width = given
    tall, wide = min(height, width * size[0] / size[1]), min(width, height * size[1] / size[0])
    rows, columns = max(1, round(tall)), max(1, round(wide))
    # Of a large picture squares of pixels become one before all else, as long as twice as many stay as are needed.
    square = max(1, min(rows // (2 * size[0]), columns // (2 * size[1])))
    rows, columns = rows - rows % square, columns - columns % square
    top, left = (height - rows) // 2, (width - columns) // 2
    step = square * max(1, BAND_PIXELS // (columns * square))
    bands = []
    for at in range(0, rows, step):
        end = min(rows, at + step)
        levels = _in_colour(_levels(band(slice(top + at, top + end), slice(left, left + columns))))
        bands.append(cv2.resize(levels, (columns // square, (end - at) // square), interpolation=cv2.INTER_AREA))
    found = np.concatenate(bands)
    shrinks = found.shape[0] * found.shape[1] > size[0] * size[1]
    resized = cv2.resize(found, (size[1], size[0]), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    return (resized.clip(0, 1) * 255).round().astype(np.uint8)[None]


def _levels(array: NDArray[Any]) -> NDArray[np.float32]:
    """Levels from 0 to 1 as floats, [H, W, 1, 3 or 4]; ConfigError if they are none."""
    full = np.iinfo(array.dtype).max if array.dtype.kind in "ui" else 1
    levels = (array.reshape(*array.shape[:2], -1) / np.float32(full)).astype(np.float32)
    if array.dtype.kind == "f" and not ((levels >= -BEYOND) & (levels <= 1 + BEYOND)).all():
        raise ConfigError(
            f"a picture of floats has levels from 0, black, to 1, white, got {levels.min():.3g} to {levels.max():.3g}; "
            "divide them by their white, or give whole numbers"
        )
    return levels


def _in_colour(levels: NDArray[np.float32]) -> NDArray[np.float32]:
    """RGB, [H, W, 3], of levels, over white where the picture is not there."""
    if levels.shape[2] == 4:
        there = levels[..., 3:]
        return levels[..., :3] * there + (1 - there)
    return np.ascontiguousarray(np.broadcast_to(levels, (*levels.shape[:2], 3)))


def _unreadable(error: Exception) -> ConfigError:
    return ConfigError(f"the picture cannot be read ({error}); save it again, as PNG, JPEG or WebP in RGB")
