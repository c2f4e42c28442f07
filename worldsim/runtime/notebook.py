"""What a notebook shows of a session: its last seconds, as a page that needs nothing but itself."""

from __future__ import annotations

from base64 import b64encode
from collections import deque
from html import escape

import cv2
import numpy as np

from worldsim.runtime.chunk import Frames
from worldsim.runtime.video import movie
from worldsim.session.log import Step

SHOWN_S = 5
"""World time that is shown again, at most."""
KEPT_BYTES = 16_000_000
"""Of frames that a session keeps for it, at most: all of the bundled worlds, half a second of 832 x 480."""
HEIGHT_PX = 288
"""Worlds are small; they are enlarged by the smallest whole factor that reaches this height."""


class Recent:
    """The frames that a session showed last, without a gap up to its present; none where those are not known.

    Args:
        frames: how many are kept at most; those of the newest block are kept in any case.
    """

    def __init__(self, frames: int) -> None:
        self._limit = frames
        self._blocks: deque[tuple[Step, Frames]] = deque()

    @property
    def frames(self) -> Frames | None:
        """uint8 [F, H, W, 3], the newest last."""
        blocks = list(self._blocks)
        return np.concatenate([frames for _, frames in blocks])[-self._limit :] if blocks else None

    def add(self, step: Step, frames: Frames) -> None:
        """The block that follows, uint8 [F, H, W, 3]; the oldest ones are forgotten where they are too many."""
        self._blocks.append((step, frames))
        while len(self._blocks) > 1 and self._too_many():
            self._blocks.popleft()

    def back_to(self, step: Step | None) -> None:
        """Forget what does not lead to that step; None is the beginning."""
        while self._blocks and self._blocks[-1][0] != step:
            self._blocks.pop()

    def copy(self) -> Recent:
        """The same frames, to go on from in another way."""
        twin = Recent(self._limit)
        twin._blocks = self._blocks.copy()
        return twin

    def clear(self) -> None:
        self._blocks.clear()

    def _too_many(self) -> bool:
        kept = [frames for _, frames in self._blocks]
        return sum(map(len, kept)) > self._limit or sum(frames.nbytes for frames in kept) > KEPT_BYTES


def film_html(frames: Frames, *, fps: int, caption: str) -> str:
    """A page of those frames: a picture, or a video of several, enlarged without smoothing.

    Args:
        frames: uint8 [F, H, W, 3], F from 1.
        fps: frames in one second of world time.
        caption: plain text below it.
    """
    _, height, width, _ = frames.shape
    scale = -(-HEIGHT_PX // height)
    if any(side * scale % 2 for side in (height, width)):
        scale += 1  # H.264 takes even sides
    sides = f'width="{width * scale}" height="{height * scale}" style="image-rendering:pixelated"'
    if len(frames) == 1:
        shown = f'<img {sides} alt="" src="data:image/png;base64,{_text(_png(frames[0], scale))}">'
    else:
        source = f"data:video/mp4;base64,{_text(movie(frames, fps=fps, scale=scale))}"
        shown = f'<video {sides} controls autoplay loop muted playsinline src="{source}"></video>'
    return f'<figure style="margin:0">{shown}<figcaption>{escape(caption)}</figcaption></figure>'


def note_html(text: str) -> str:
    """A page that says only this, plain text."""
    return f"<p>{escape(text)}</p>"


def _png(frame: Frames, scale: int) -> bytes:
    enlarged = frame.repeat(scale, axis=0).repeat(scale, axis=1)
    return cv2.imencode(".png", cv2.cvtColor(enlarged, cv2.COLOR_RGB2BGR))[1].tobytes()


def _text(data: bytes) -> str:
    return b64encode(data).decode()
