"""Contact sheets: the middle frame of each chunk of a video side by side, to see what a number means."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from lvbench.errors import VideoRefused
from lvbench.measures import chunks_of
from lvbench.video import Frame, Limits, open_video

THUMB_PX = 168
"""Width of one frame on a sheet."""
QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 82]


def sheet(path: Path, frames: int, chunks: int, limits: Limits) -> bytes:
    """The middle frames of the chunks of a video of so many frames, from left to right, as one JPEG.

    Raises:
        VideoRefused: the video cannot be read any more, or is another and shorter one now.
    """
    wanted = [(part.start + part.stop) // 2 for part in chunks_of(frames, chunks)]
    with open_video(path, limits) as video:
        kept = [_thumb(frame) for at, frame in enumerate(islice(video.frames(), wanted[-1] + 1)) if at in wanted]
    if len(kept) < chunks:
        raise VideoRefused(f"it had {frames:,} frames when it was scored, and has fewer now; score it again")
    return _jpeg(kept)


def _thumb(frame: Frame) -> Frame:
    height = max(1, min(4 * THUMB_PX, round(frame.shape[0] * THUMB_PX / frame.shape[1])))
    return np.asarray(cv2.resize(frame, (THUMB_PX, height), interpolation=cv2.INTER_AREA), np.uint8)


def _jpeg(thumbs: Sequence[Frame]) -> bytes:
    row = cv2.cvtColor(np.concatenate(thumbs, axis=1), cv2.COLOR_RGB2BGR)
    return bytes(cv2.imencode(".jpg", row, QUALITY)[1])
