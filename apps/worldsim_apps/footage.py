"""The end of a video that somebody has, as the frames that a world goes on from."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from worldsim.errors import ConfigError, counted
from worldsim.pictures import fit_picture
from worldsim.runtime.chunk import Frames
from worldsim_apps.telling import say

SHORTEST = 0.9
"""Of the frames that a file says it has, for what has to be there: some are said to be there that are never shown."""
OTHER = "give an MP4, MOV or WebM that plays to its end"
EBML_HEADER, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
TRANSPORT_PACKETS, SYNC, TS_BYTES = (188, 192, 204), 0x47, 188
"""Bytes from one packet of MPEG-TS to the next: plain, as on Blu-ray, and as it is broadcast; all begin with the same
byte, and the first 188 are the packet."""


def last_frames(path: Path, size: tuple[int, int], *, most: int, group: int) -> Frames:
    """The last frames of a video, upright, uint8 [F, H, W, 3]: their middle, cut to the aspect of a world and resized.

    They are decoded twice, first to be counted: so those of a long or large video never lie in memory together.

    A stream that does not say where it ends may have been cut off within a frame, such as a recording: that frame is
    left out, and it is said. A file that says that it goes on is refused.

    Args:
        path: of the video; its first stream of pictures is taken, frame by frame, whatever its speed.
        size: (height, width) in pixels of the world.
        most: how many are taken at most; fewer where the video is shorter.
        group: F is 1 and a multiple of it, since a codec takes the first frame by itself.

    Raises:
        ConfigError: there is no such video, or it holds no frame, is damaged or was cut off.
    """
    if not path.is_file():
        raise ConfigError(f"there is no video {path}; {OTHER}")
    _check_whole(path)
    is_cut, count, whole = _is_cut(path), 0, 0
    for frame in _decoded(path, is_cut=is_cut):
        count += 1
        whole = whole if frame.is_corrupt else count
    if not whole:
        raise ConfigError(f"{path} holds no frame of video that is whole; {OTHER}")
    if is_cut or whole < count:
        say(f"{path} was cut off, or is damaged at its end; the walk goes on after its first {counted(whole, 'frame')}")
    taken = min(whole, most)
    taken -= (taken - 1) % group
    shown = islice(_decoded(path, is_cut=is_cut), whole - taken, whole)
    return np.concatenate([fit_picture(_upright(frame), size) for frame in shown])


def _decoded(path: Path, *, is_cut: bool) -> Iterator[VideoFrame]:
    """The frames in the order they are shown; without what is left of the last one in a file that was cut off."""
    count = 0
    try:
        with av.open(str(path)) as container:
            streams = container.streams.video
            for packet in _packets(container, streams[0], is_cut=is_cut) if streams else ():
                for frame in packet.decode():
                    count += 1
                    yield frame
            said = streams[0].frames if streams else 0
    except av.FFmpegError as error:
        raise ConfigError(f"{path} is no video that can be read to its end ({error.strerror}); {OTHER}") from error
    if count < max(1, SHORTEST * said):
        raise ConfigError(
            f"{path} holds {count} frames of video{f' of the {said} it tells of' if said else ''}; {OTHER}"
        )


def _packets(container: InputContainer, stream: VideoStream, *, is_cut: bool) -> Iterator[Packet[VideoStream]]:
    """What is to be decoded of a stream, and what says that it has ended; without the last that is cut off.

    Not every decoder says of a frame that it is torn, and others may be made from it.
    """
    held: Packet[VideoStream] | None = None
    for packet in container.demux(stream):
        if held is not None and not (is_cut and not packet.size):
            yield held
        held = packet
    if held is not None:
        yield held


def _check_whole(path: Path) -> None:
    """Raise ConfigError if a Matroska or WebM says that it goes on: cut off, it is read to there without a word.

    It is a header and what it is of, each with its length, unless it was written while it was shown.

    Source: RFC 8794 (EBML), sections 6.2 and 11.
    """
    at, size = 0, path.stat().st_size
    with path.open("rb") as file:
        while at < size and (head := file.read(12).ljust(12, b"\0"))[:4] in (EBML_HEADER, SEGMENT):
            width = 9 - head[4].bit_length()
            longest = (1 << 7 * width) - 1
            length = int.from_bytes(head[4 : 4 + width]) & longest
            if width > 8 or length == longest:
                return
            at += 4 + width + length
            file.seek(at)
    if at > size:
        raise ConfigError(f"{path} was cut off: it has {size:,} bytes of the {at:,} it tells of; {OTHER}")


def _is_cut(path: Path) -> bool:
    """Whether a file is an MPEG-TS that ends within a packet. Source: ISO/IEC 13818-1, section 2.4.3.2."""
    with path.open("rb") as file:
        head = file.read(8192)
    for step in TRANSPORT_PACKETS:
        for first in range(step):
            packets = head[first::step]
            if len(packets) >= 6 and not packets.strip(bytes([SYNC])):
                return 0 < (path.stat().st_size - first) % step < TS_BYTES
    return False


def _upright(frame: VideoFrame) -> Frames:
    """A frame as it was held, uint8 [H, W, 3]; it says by how many degrees it is to be turned, counterclockwise."""
    return np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
