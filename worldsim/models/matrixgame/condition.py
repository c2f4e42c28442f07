"""What a Matrix-Game 2 world sees of its picture at every frame: channels that stand beside the noise.

Source: Matrix-Game 2.0 (arXiv:2508.13009), by the channels of Wan 2.1's image-to-video models (arXiv:2503.20314).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from worldsim.errors import ConfigError, MissingDependency, ShapeError, installing
from worldsim.pictures import colours, upright

if TYPE_CHECKING:
    from PIL import Image

MASKS = 4
"""So many channels say where the picture is, one for each frame of pixels that a latent frame stands for."""
MOST = 32
"""So many frames are encoded at most. What the codec of Wan 2.1 answers rests after 30: it sees no further back."""


class PictureCodec(Protocol):
    """What is needed of a codec, see worldsim.codec.wan.WanCodec."""

    @property
    def group(self) -> int:
        """Frames of pixels that a latent frame stands for."""
        ...

    def open(self) -> Mapping[str, Tensor]:
        """The state before the first frame."""
        ...

    def encode_levels(self, levels: Tensor, state: Mapping[str, Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Frames of pixels [F, H, W, 3], floats in [-1, 1], to latents [f, C, h, w], and the state after."""
        ...


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PictureCondition:
    """The picture as frames of any number see it.

    latents: of the picture and of the grey behind it, [m, C, h, w]; later frames see the last of them again.
    settled: whether those are exactly what encoding on would give; otherwise encoding ended before its answer rested.
    """

    latents: Tensor
    settled: bool

    @property
    def encoded(self) -> int:
        """How many frames have latents of their own."""
        return len(self.latents)

    def channels(self, first: int, frames: int) -> Tensor:
        """The channels of frames first, first + 1, ..., [frames, 4 + C, h, w]: where the picture is, then its latents.

        Args:
            first: number of the first of them; 0 is the frame that shows the picture.
            frames: how many.

        Raises:
            ConfigError: there are no such frames.
        """
        if first < 0 or frames < 1:
            raise ConfigError(f"frames are counted from 0, and 1 or more are asked for, got {frames} from {first} on")
        numbers = torch.arange(first, first + frames, device=self.latents.device)
        seen = self.latents[numbers.clamp(max=self.encoded - 1)]
        shown = (numbers == 0).to(seen.dtype).reshape(-1, 1, 1, 1)
        return torch.cat((shown.expand(-1, MASKS, *seen.shape[2:]), seen), dim=1)


def picture_condition(picture: Tensor, codec: PictureCodec, *, most: int = MOST) -> PictureCondition:
    """What frames see of a picture, float32 on the codec's device.

    As published a video of the picture and grey for all the rest is encoded. What a causal codec carries rests after as
    many grey frames as it can see: from there on every frame has the same latents, bit for bit, and is not encoded.

    Args:
        picture: uint8 [H, W, 3], see cut_picture.
        codec: encodes it.
        most: so many frames are encoded at most. Fewer take less time, and the last of them, which is not yet at rest,
            stands for all later ones: with 25 they are up to 7e-5 off, of latents that spread by 0.4, and with 18 1e-2.

    Raises:
        ConfigError: most is below 1.
        ShapeError: it is no picture, or the codec cannot encode one of its size.
    """
    if most < 1:
        raise ConfigError(f"the picture itself is encoded, so most is 1 or more, got {most}")
    levels = picture_levels(picture)
    grey = torch.zeros(codec.group, *levels.shape)
    latents, state = codec.encode_levels(levels[None], codec.open())
    found, settled = [latents], False
    while len(found) < most and not settled:
        before = state
        latents, state = codec.encode_levels(grey, before)
        found.append(latents)
        settled = _same(before, state)
    while len(found) > 1 and torch.equal(found[-1], found[-2]):
        found.pop()
    return PictureCondition(latents=torch.cat(found), settled=settled)


def picture_levels(picture: Tensor) -> Tensor:
    """A picture uint8 [H, W, 3] as float32 in [-1, 1]. Raises ShapeError if it is none."""
    if picture.dtype != torch.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.numel():
        raise ShapeError(f"expected a picture uint8 [H, W, 3], got {picture.dtype} {list(picture.shape)}")
    return picture.float().div(127.5).sub(1)


def cut_picture(picture: Image.Image, size: tuple[int, int]) -> Tensor:
    """The middle of a picture, cut to the aspect of a world and resized, uint8 [H, W, 3].

    It is cut and resized as published, level for level. Where it is transparent white shows, as with every world, and
    not the colours that lie unseen in its file, which are published to be taken.

    Args:
        picture: of any size, turned as it says it was held. It may have 16 bits of grey; other modes of more than 8
            bits do not say what their white is, but for floats, whose white is 1.
        size: (height, width) in pixels.

    Raises:
        ConfigError: it is empty, cannot be read to its end, or is of a mode that has no colours.
        MissingDependency: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDependency(f"pictures need Pillow: {installing('wan')}") from error
    whole = upright(picture)
    middle = colours(whole.crop(_middle(whole.size, size)))
    resized = middle.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized))


def _same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _middle(given: tuple[int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the middle of a picture of (width, height) pixels, with the aspect of a size."""
    width, height = given
    tall, wide = size
    if height / width > tall / wide:
        across, down = width, int(width * tall / wide)
    else:
        across, down = int(height * wide / tall), height
    left, top = round((width - across) / 2), round((height - down) / 2)
    # Both ends are rounded, as published, so that odd rests make the middle a pixel larger or smaller.
    return left, top, max(left + 1, round((width + across) / 2)), max(top + 1, round((height + down) / 2))
