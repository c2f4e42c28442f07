"""The end of a video that somebody has, as the frames that a world goes on from."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame

from worldsim.errors import ConfigError
from worldsim.pictures import fit_picture
from worldsim.runtime.chunk import Frames

SHORTEST = 0.9
"""Of the frames that a file says it has, for what has to be there: some are said to be there that are never shown."""
OTHER = "give an MP4, MOV or WebM that plays to its end"


def last_frames(path: Path, size: tuple[int, int], *, most: int, group: int) -> Frames:
    """The last frames of a video, upright, uint8 [F, H, W, 3]: their middle, cut to the aspect of a world and resized.

    They are decoded twice, first to be counted: so those of a long or large video never lie in memory together.

    Args:
        path: of the video; its first stream of pictures is taken, frame by frame, whatever its speed.
        size: (height, width) in pixels of the world.
        most: how many are taken at most; fewer where the video is shorter.
        group: F is 1 and a multiple of it, since a codec takes the first frame by itself.

    Raises:
        ConfigError: there is no such video, or it holds no frame, is damaged or was cut off.
    """
    count = sum(1 for _ in _decoded(path))
    taken = min(count, most)
    taken -= (taken - 1) % group
    return np.concatenate([fit_picture(_upright(frame), size) for frame in islice(_decoded(path), count - taken, None)])


def _decoded(path: Path) -> Iterator[VideoFrame]:
    if not path.is_file():
        raise ConfigError(f"there is no video {path}; {OTHER}")
    count = 0
    try:
        with av.open(str(path)) as container:
            streams = container.streams.video
            for frame in container.decode(streams[0]) if streams else ():
                count += 1
                yield frame
            said = streams[0].frames if streams else 0
    except av.FFmpegError as error:
        raise ConfigError(f"{path} is no video that can be read to its end ({error.strerror}); {OTHER}") from error
    if count < max(1, SHORTEST * said):
        raise ConfigError(
            f"{path} holds {count} frames of video{f' of the {said} it tells of' if said else ''}; {OTHER}"
        )


def _upright(frame: VideoFrame) -> Frames:
    """A frame as it was held, uint8 [H, W, 3]; it says by how many degrees it is to be turned, counterclockwise."""
    return np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
