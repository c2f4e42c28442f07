"""What was sent becomes pixels again, and what is no picture is told as such."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from worldsim.client.pictures import Pictures
from worldsim.errors import ProtocolError
from worldsim.runtime.chunk import Chunk
from worldsim.session.wire import Flag, Media
from worldsim_apps.encoding import ENCODERS
from worldsim_apps.packing import pack

SIZE, FPS = (24, 40), 8
WORLD: Any = SimpleNamespace(frames_per_block=3, plan=SimpleNamespace(frames_per_block=3), fps=FPS)
WRONG = {
    "empty": b"",
    "no picture": b"no picture",
    "zeros": bytes(200),
    "a picture of another size": cv2.imencode(".jpg", np.zeros((2, 2, 3), np.uint8))[1].tobytes(),
}


def scene(seed: int) -> np.ndarray:
    """Three frames of large tiles in random colours."""
    tiles = np.random.default_rng(seed).integers(0, 256, (3, SIZE[0] // 8, SIZE[1] // 8, 3), np.uint8)
    return tiles.repeat(8, 1).repeat(8, 2)


def sent(codec: Any, pixels: np.ndarray) -> list[Media]:
    return pack(ENCODERS[codec](SIZE, FPS), Chunk(frames=pixels, block=0, keys=frozenset()), WORLD, epoch=0, action=0)


@pytest.mark.parametrize(("codec", "off"), [("raw", 0), ("jpeg", 4), ("h264", 12)])
def test_frames_come_out_as_they_were_made_as_nearly_as_their_codec_keeps_them(codec, off):
    pictures = Pictures()
    for seed in range(2):
        made = scene(seed)
        for media, frame in zip(sent(codec, made), made, strict=True):
            scale = media.width // SIZE[1]
            shown = pictures.pixels(media)[scale // 2 :: scale, scale // 2 :: scale]
            assert np.abs(shown.astype(int) - frame).mean() <= off


@pytest.mark.parametrize("codec", ENCODERS)
@pytest.mark.parametrize("payload", WRONG.values(), ids=WRONG)
def test_what_is_no_picture_of_its_size_is_told_and_the_next_block_can_be_read(codec, payload):
    pictures, made = Pictures(), scene(3)
    good = sent(codec, made)
    bad = Media(**{name: getattr(good[0], name) for name in Media.__slots__} | {"payload": payload, "flags": Flag.KEY})
    with pytest.raises(ProtocolError) as caught:
        pictures.pixels(bad)
    assert caught.value.code == "bad_media"
    assert pictures.pixels(good[0]).shape == (good[0].height, good[0].width, 3)
