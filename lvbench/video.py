"""Reads a video that nobody vouches for, frame by frame, from one file and from nothing else."""

from __future__ import annotations

import errno
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from stat import S_ISREG
from time import monotonic
from typing import IO

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from lvbench.ending import end_of
from lvbench.errors import ConfigError, VideoRefused

Frame = NDArray[np.uint8]
"""RGB, [H, W, 3]."""
REFERRING = {
    *("concat", "dash", "hls", "hds", "image2", "imf", "lavfi", "webm_dash_manifest", "smoothstreaming", "ffmetadata"),
    *("rtp", "rtsp", "sap", "sdp", "msnwctcp", "fifo", "vobsub", "sbg", "tty", "txd", "ivr", "rcwt", "svg_pipe"),
    *("alsa", "fbdev", "kmsgrab", "oss", "video4linux2,v4l2", "x11grab"),
}
"""Formats that name other files, addresses or devices, or that draw text."""
BATCH_BYTES = 48 * 2**20
"""Of decoded frames that are handed on at once."""
MOST_SECONDS = 1_000_000
"""Of a limit: what the decoder and the system can wait for."""
SHORTEST = 0.9
"""Of the length that a file says it has, for what it has to count as the whole: times are not exact in all of them."""
EXACT = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.BITEXACT | Interpolation.FULL_CHR_H_INT
"""To RGB in the same numbers on every CPU, and in those of the formula: without the last, white is 253.

A flat colour is within two levels of what OpenCV and PyAV make of it by themselves. Where colour is half as large as
light they repeat it and this blends it, so that edges of colours differ by more.
"""
DECODER = "PyAV {} with {}".format(
    av.__version__,
    ", ".join(f"{name} {'.'.join(map(str, version))}" for name, version in sorted(av.library_versions.items())),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a video may cost. A longer, larger or slower one is refused, not cut.

    pixels: of one frame.
    frames: in all.
    seconds: of real time from opening it to its last frame, whoever uses the frames included; a million at most.
    """

    pixels: int = 4096 * 2304
    frames: int = 36_000
    seconds: float = 3600.0

    def __post_init__(self) -> None:
        if self.pixels < 1 or self.frames < 1 or not 0 < self.seconds <= MOST_SECONDS:
            raise ConfigError(
                f"limits are above 0, and of time up to {MOST_SECONDS:,} s; "
                f"got {self.pixels} pixels, {self.frames} frames, {self.seconds} s"
            )

    def check(self, frames: int) -> None:
        """Raise VideoRefused if a video has more frames."""
        if frames > self.frames:
            raise VideoRefused(f"it has more than {self.frames:,} frames; cut it, or raise the limit")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a file says of its video.

    size: (height, width), as it is shown.
    fps: frames a second, on average.
    end_known: whether it says where it ends; of one that does not, such as a transport stream, nobody can tell whether
        it was cut off between two frames.
    """

    container: str
    codec: str
    size: tuple[int, int]
    fps: float
    end_known: bool = True


class Video:
    """One opened video; see open_video."""

    def __init__(self, container: InputContainer, stream: VideoStream, facts: Facts, limits: Limits) -> None:
        self._size = facts.size
        self._container = container
        self._stream = stream
        self._limits = limits
        self._deadline = monotonic() + limits.seconds
        self._reformatter = VideoReformatter()
        self._fps = facts.fps
        self._coming = self._decoded()
        self._first = next(self._coming, None)  # a file says only with a frame how it is turned to be shown
        self._turns = self._first.rotation // 90 if self._first is not None and self._first.rotation % 90 == 0 else 0
        self.facts = replace(facts, size=facts.size[::-1]) if self._turns % 2 else facts

    def frames(self) -> Iterator[Frame]:
        """The frames in the order they are shown and as they are, upright, uint8 RGB [H, W, 3]. Once.

        Raises:
            VideoRefused: a limit is passed, a frame cannot be decoded or has another size, or the file is cut off.
        """
        count = 0
        for frame in () if self._first is None else chain([self._first], self._coming):
            if (frame.height, frame.width) != self._size:
                raise VideoRefused(
                    f"frame {count} is {frame.width} x {frame.height} in a video of {self._size[1]} x "
                    f"{self._size[0]}; encode it in one size"
                )
            count += 1
            self._limits.check(count)
            shown = self._reformatter.reformat(frame, format="rgb24", interpolation=EXACT, threads=1)
            yield np.ascontiguousarray(np.rot90(shown.to_ndarray(), self._turns), np.uint8)
        if not count:
            raise VideoRefused("it has no frames")

    def _decoded(self) -> Iterator[av.VideoFrame]:
        packets, begin_s, end_s = 0, math.inf, 0.0
        with _refusals():
            for packet in self._container.demux(self._stream):
                packets += packet.size > 0
                if monotonic() > self._deadline:
                    raise VideoRefused(f"{self._limits.seconds:g} s were not enough; cut it, or raise the limit")
                for frame in packet.decode():
                    if frame.is_corrupt:  # VP8, VP9 and MJPEG seldom know it, and show whatever comes out
                        raise VideoRefused(f"it is cut off or torn after {packets} frames; copy it again")
                    shown_s = frame.time or 0.0
                    lasts_s = float(frame.duration * (frame.time_base or 0)) or 1 / self._fps
                    begin_s, end_s = min(begin_s, shown_s), max(end_s, shown_s + lasts_s)
                    yield frame
        if packets < self._stream.frames:
            raise VideoRefused(f"it is cut off: it says {self._stream.frames} frames and has {packets}; copy it again")
        declared_s, has_s = self._declared_s(), max(0.0, end_s - begin_s)
        if has_s < SHORTEST * declared_s:
            raise VideoRefused(f"it is cut off: it says {declared_s:.1f} s and has {has_s:.1f}; copy it again")

    def _declared_s(self) -> float:
        """How long the file says that its video is; 0 if it does not, or may mean its sound."""
        unit_s = float(self._stream.time_base or 0)
        if self._stream.duration is not None:
            return self._stream.duration * unit_s
        if self._container.duration is None or len(self._container.streams) > 1:
            return 0.0
        # Where the file says it and not the stream, it says when it ends.
        return self._container.duration / av.time_base - (self._stream.start_time or 0) * unit_s


@contextmanager
def open_video(path: Path, limits: Limits) -> Iterator[Video]:
    """Open the video of a file of any container and codec that PyAV reads: its main one, and not its cover picture.

    The decoder gets the bytes of this file and not its name, may use no format that refers to another file or address,
    no protocol, and nothing that it asks to be opened is: a playlist under the name of a video is refused.

    Raises:
        VideoRefused: it is not a readable video, or larger than the limits.
    """
    with ExitStack() as opened:
        with _refusals():
            size_bytes = _size(path)
            container = opened.enter_context(_container(opened.enter_context(path.open("rb")), limits))
            stream = _stream(container)
            facts = _facts(container, stream, limits)
            facts = replace(facts, end_known=_says_end(path, size_bytes, facts.container, stream))
        stream.codec_context.options = {"max_pixels": str(limits.pixels)}  # a frame may be larger than the file says
        stream.codec_context.thread_count = 1  # the same frames of a torn video, however many cores
        yield Video(container, stream, facts, limits)


def _size(path: Path) -> int:
    """Bytes of a file. A pipe has none, and somebody may never write to it."""
    told = path.stat()
    if not S_ISREG(told.st_mode):
        raise OSError(errno.EINVAL, "no regular file", str(path))
    return told.st_size


def _says_end(path: Path, size_bytes: int, container: str, stream: VideoStream) -> bool:
    """Whether a file says where it ends. Raises VideoRefused if it ends before."""
    layout = stream.codec_context.format
    planes = [each.width * each.height * -(-each.bits // 8) for each in layout.components] if layout else []
    with path.open("rb") as file:  # not that of the decoder, which knows how far it has read
        end = end_of(file, container, size_bytes, sum(planes))
    if end is not None and end > size_bytes:
        raise VideoRefused(f"it is cut off: it has {size_bytes:,} bytes and says that it goes on; copy it again")
    return end is not None or stream.frames > 0


def batches(frames: Iterator[Frame], size: int) -> Iterator[NDArray[np.uint8]]:
    """The frames in groups [n, H, W, 3] of `size`; where they are large of fewer, 48 MB or one frame at least."""
    held: list[Frame] = []
    for frame in frames:
        held.append(frame)
        if len(held) >= min(size, BATCH_BYTES // frame.nbytes):
            yield np.stack(held)
            held = []
    if held:
        yield np.stack(held)


class _Nameless:
    """A file without its name, from which the decoder would follow relative references."""

    def __init__(self, file: IO[bytes]) -> None:
        self.read = file.read
        self.seek = file.seek
        self.tell = file.tell


def _container(file: IO[bytes], limits: Limits) -> InputContainer:
    formats = ",".join(sorted(name for name in av.formats_available if name not in REFERRING))
    container = av.open(
        _Nameless(file),
        "r",
        options={"max_pixels": str(limits.pixels)},
        container_options={"format_whitelist": formats, "protocol_whitelist": "none", "enable_drefs": "0"},
        metadata_errors="replace",
        io_open=_refuse,
        timeout=limits.seconds,
    )
    assert isinstance(container, InputContainer)
    return container


def _refuse(url: str, flags: int, options: dict[str, str]) -> IO[bytes]:
    raise VideoRefused(f"it refers to another file or address, {url[:100]!r}; put all of it into one file")


def _stream(container: InputContainer) -> VideoStream:
    if not container.streams.video:
        kinds = sorted({stream.type for stream in container.streams})
        raise VideoRefused("it has no video stream, only " + (", ".join(kinds) or "nothing"))
    stream = container.streams.best("video")
    assert isinstance(stream, VideoStream)
    if stream.codec_context is None:
        raise VideoRefused("there is no decoder for its video stream; encode it again, as H.264 in an .mp4 for one")
    return stream


def _facts(container: InputContainer, stream: VideoStream, limits: Limits) -> Facts:
    codec = stream.codec_context
    if not 0 < codec.width * codec.height <= limits.pixels:  # 0 too where the decoder was stopped by the same limit
        size = f"{codec.width} x {codec.height}" if codec.width else "no size that fits"
        raise VideoRefused(f"it says {size}; a frame may have {limits.pixels:,} pixels, or raise the limit")
    if stream.frames > limits.frames:
        raise VideoRefused(f"it says {stream.frames:,} frames; it may have {limits.frames:,}, or raise the limit")
    fps = float(stream.average_rate or stream.guessed_rate or 0)
    if not 0.1 <= fps <= 1000:
        raise VideoRefused(f"it says {fps:g} frames a second; 0.1 to 1000 can be scored")
    return Facts(container=container.format.name, codec=codec.name, size=(codec.height, codec.width), fps=fps)


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn what the decoder and the file system raise into a reason."""
    try:
        yield
    except av.FFmpegError as error:
        raise VideoRefused(
            f"it cannot be decoded: {error.strerror or error}; encode it again, as H.264 in an .mp4 for one"
        ) from error
    except OSError as error:
        raise VideoRefused(f"it cannot be read: {error.strerror or error}") from error
