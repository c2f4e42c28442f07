"""A page shows exactly the frames it was made of, and nothing in it can be taken for markup."""

from __future__ import annotations

import re
from base64 import b64decode
from io import BytesIO

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from worldsim.runtime import notebook
from worldsim.runtime.notebook import Recent, film_html, note_html
from worldsim.session.log import Step


def step(block: int, line: str = "a") -> Step:
    return Step(block=block, keys=frozenset(), latents=line, frames=line)


def block_of(value: int, frames: int = 2) -> NDArray[np.uint8]:
    return np.full((frames, 6, 10, 3), value, np.uint8)


def values(recent: Recent) -> list[int]:
    return [] if recent.frames is None else [int(frame[0, 0, 0]) for frame in recent.frames]


def filled(blocks: int, *, frames: int) -> Recent:
    recent = Recent(frames)
    for block in range(blocks):
        recent.add(step(block), block_of(block))
    return recent


@pytest.mark.parametrize(("frames", "wanted"), [(6, [2, 2, 3, 3, 4, 4]), (5, [3, 3, 4, 4]), (1, [4])])
def test_the_oldest_blocks_are_forgotten_when_there_are_too_many_frames(frames, wanted):
    assert values(filled(5, frames=frames)) == wanted


def test_large_frames_are_forgotten_sooner_but_never_the_newest_block(monkeypatch):
    monkeypatch.setattr(notebook, "KEPT_BYTES", 2 * block_of(0).nbytes)
    assert values(filled(5, frames=100)) == [3, 3, 4, 4]
    monkeypatch.setattr(notebook, "KEPT_BYTES", 1)
    assert values(filled(5, frames=100)) == [4, 4]


def test_going_back_forgets_what_does_not_lead_there():
    recent = filled(4, frames=100)
    recent.back_to(step(2))
    assert values(recent) == [0, 0, 1, 1, 2, 2]
    recent.back_to(step(2, "another line"))
    assert values(recent) == []
    recent = filled(4, frames=100)
    recent.back_to(None)
    assert recent.frames is None


def test_a_copy_goes_its_own_way():
    recent = filled(2, frames=100)
    twin = recent.copy()
    twin.add(step(2), block_of(7))
    recent.back_to(step(0))
    assert (values(recent), values(twin)) == ([0, 0], [0, 0, 1, 1, 7, 7])


def data(page: str, kind: str) -> bytes:
    (found,) = re.findall(rf'src="data:{kind};base64,([^"]+)"', page)
    return b64decode(found, validate=True)


@pytest.mark.parametrize(("size", "shown"), [((6, 10), (288, 480)), ((72, 72), (288, 288)), ((9, 13), (288, 416))])
def test_several_frames_are_a_video_of_whole_enlarged_pixels(size, shown):
    frames = np.random.default_rng(5).integers(0, 256, (7, *size, 3), dtype=np.uint8)
    page = film_html(frames, fps=8, caption="")
    assert f'width="{shown[1]}" height="{shown[0]}"' in page
    with av.open(BytesIO(data(page, "video/mp4")), "r") as file:
        assert file.streams.video[0].average_rate == 8
        pictures = np.stack([picture.to_ndarray(format="rgb24") for picture in file.decode(file.streams.video[0])])
    assert pictures.shape == (7, *shown, 3)
    scale = shown[0] // size[0]
    middles = pictures[:, scale // 2 :: scale, scale // 2 :: scale]
    assert np.abs(middles.astype(int) - frames).mean() < 12


@pytest.mark.parametrize("size", [(6, 10), (577, 11)])
def test_one_frame_is_a_picture_bit_for_bit(size):
    frame = np.random.default_rng(5).integers(0, 256, (1, *size, 3), dtype=np.uint8)
    page = film_html(frame, fps=8, caption="")
    picture = cv2.cvtColor(cv2.imdecode(np.frombuffer(data(page, "image/png"), np.uint8), 1), cv2.COLOR_BGR2RGB)
    scale = picture.shape[0] // size[0]
    assert picture.shape[0] >= 288
    assert np.array_equal(picture, frame[0].repeat(scale, 0).repeat(scale, 1))


def test_texts_are_texts():
    for page in (film_html(block_of(3, 1), fps=8, caption="<b>&"), note_html("<b>&")):
        assert "<b>" not in page
        assert "&lt;b&gt;&amp;" in page
