"""Reads a video that nobody vouches for, frame by frame, from one file and from nothing else."""

from __future__ import annotations

import codecs
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
from av.sidedata.sidedata import SideData
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from lvbench.ending import BOXES, EBML_HEADER, end_of
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
SLOWEST, FASTEST = 0.1, 1000
"""Frames a second that can be scored."""
MOST_PIXELS = 2**31 - 1
"""Of a frame: a higher limit is none that FFmpeg takes."""
WIDER = 4
"""Times the limit of pixels: up to there the size of what is refused is looked for, so that it can be told."""
MP4, AVI, IVF, Y4M = "mov,mp4,m4a,3gp,3g2,mj2", "avi", "ivf", "yuv4mpegpipe"
BEGINNINGS = {
    **{b"YUV4MPEG2 ": "Y4M", b"RIFF": "AVI", EBML_HEADER: "Matroska", b"OggS": "Ogg", b"GIF8": "GIF", b"FLV": "FLV"},
    **{b"\x89PNG": "PNG", b"DKIF": "IVF", b"\x30\x26\xb2\x75": "WMV", b"\x06\x0e\x2b\x34": "MXF", b".RMF": "RealMedia"},
}
"""Of files, by which they are told apart where they cannot be opened."""
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
            raise VideoRefused(f"it has more than {self.frames:,} frames; cut it, or raise --max-frames")


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
        self._kind = facts.container
        self._listed = _listed(stream)
        self._coming = self._decoded()
        self._first = next(self._coming, None)  # a file says only with a frame how it is turned to be shown
        self._pose = _pose(self._first)
        self.facts = replace(facts, size=facts.size[::-1]) if self._pose.lies else facts

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
            yield self._pose.upright(np.asarray(shown.to_ndarray(), np.uint8))
        if not count:
            raise VideoRefused("it has no frames")

    def _decoded(self) -> Iterator[av.VideoFrame]:
        packets, ticks, begin_s, end_s = 0, 0, math.inf, 0.0
        with _refusals(self._limits):
            for packet in self._container.demux(self._stream):
                packets += packet.size > 0
                ticks = max(ticks, 1 + (packet.dts or 0))
                if monotonic() > self._deadline:
                    raise VideoRefused(f"{self._limits.seconds:g} s were not enough; cut it, or raise --max-seconds")
                for frame in packet.decode():
                    if frame.is_corrupt:  # VP8, VP9 and MJPEG seldom know it, and show whatever comes out
                        raise VideoRefused(f"it is cut off or torn after {packets} frames; copy it again")
                    shown_s = frame.time or 0.0
                    lasts_s = float(frame.duration * (frame.time_base or 0)) or 1 / self._fps
                    begin_s, end_s = min(begin_s, shown_s), max(end_s, shown_s + lasts_s)
                    yield frame
        self._check_whole(packets, ticks, max(0.0, end_s - begin_s))

    def _check_whole(self, packets: int, ticks: int, has_s: float) -> None:
        """Raise VideoRefused if the file says that it has more than was found in it.

        Args:
            packets: with a frame in them.
            ticks: of AVI, which counts them instead of frames: a frame may have none, and last until the next.
            has_s: from the first frame to the last.
        """
        says, has, listed = self._stream.frames, packets, _listed(self._stream)
        # MP4 counts frames that it then leaves out or repeats, but for all that are to come there is an index, and
        # so there is in AVI; unless it is made while the file is read.
        whole = bool(says) and (self._kind == AVI) < self._listed == listed <= packets
        if self._kind == MP4:
            says = listed if says and listed == self._listed else max(says, listed)
        elif self._kind == AVI:
            has = ticks
        elif self._kind == IVF:
            whole = True  # as far as it says so, see ending: that may be in frames, hidden ones too, or units of time
        if has < says and not whole:
            raise VideoRefused(f"it is cut off: it says {says} frames and has {has}; copy it again")
        declared_s = self._declared_s()
        if has_s < SHORTEST * declared_s and not whole:
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
        with _refusals(limits):
            size_bytes = _size(path)
            container = opened.enter_context(_container(path, size_bytes, limits, opened))
            stream = _stream(container)
            _check_pixels(path, size_bytes, stream, limits)
            facts = _facts(container, stream, limits)
            end = _end(path, size_bytes, facts.container, stream)
            if end is not None and end < size_bytes and facts.container in (IVF, Y4M):
                # Their decoders take what follows the end for a frame, and a broken one.
                container = opened.enter_context(_container(path, end, limits, opened))
                stream = _stream(container)
            facts = replace(facts, end_known=end is not None or _says_frames(facts.container, stream))
        stream.codec_context.options = _options(limits)  # a frame may be larger than the file says
        stream.codec_context.thread_count = 1  # the same frames of a torn video, however many cores
        yield Video(container, stream, facts, limits)


def _size(path: Path) -> int:
    """Bytes of a file. A pipe has none, and somebody may never write to it."""
    told = path.stat()
    if not S_ISREG(told.st_mode):
        raise OSError(errno.EINVAL, "no regular file", str(path))
    if not told.st_size:
        raise VideoRefused("it is empty: it has 0 bytes; copy it again")
    return told.st_size


def _end(path: Path, size_bytes: int, container: str, stream: VideoStream) -> int | None:
    """Where a file says that it ends, None if it does not. Raises VideoRefused if it ends before."""
    layout = stream.codec_context.format
    planes = [each.width * each.height * -(-each.bits // 8) for each in layout.components] if layout else []
    with path.open("rb") as file:  # not that of the decoder, which knows how far it has read
        end = end_of(file, container, size_bytes, sum(planes))
    if end is not None and end > size_bytes:
        raise VideoRefused(f"it is cut off: it has {size_bytes:,} bytes and says that it goes on; copy it again")
    return end


def _says_frames(container: str, stream: VideoStream) -> bool:
    return container != IVF and stream.frames > 0


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
    """A file up to a byte, without its name, from which the decoder would follow relative references."""

    def __init__(self, file: IO[bytes], end: int) -> None:
        self.seek = file.seek
        self.tell = file.tell
        self._file = file
        self._end = end

    def read(self, count: int) -> bytes:
        return self._file.read(max(0, min(count, self._end - self._file.tell())))


def _container(path: Path, end: int, limits: Limits, opened: ExitStack) -> InputContainer:
    file = opened.enter_context(path.open("rb"))
    formats = ",".join(sorted(name for name in av.formats_available if name not in REFERRING))
    try:
        container = av.open(
            _Nameless(file, end),
            "r",
            options=_options(limits),
            container_options={"format_whitelist": formats, "protocol_whitelist": "none", "enable_drefs": "0"},
            metadata_errors="replace",
            io_open=_refuse,
            timeout=limits.seconds,
        )
    except (av.ExitError, av.MemoryError):
        raise
    except av.FFmpegError as error:
        raise VideoRefused(_unopened(path, end, error)) from error
    assert isinstance(container, InputContainer)
    return container


def _options(limits: Limits) -> dict[str, str]:
    return {"max_pixels": str(min(limits.pixels, MOST_PIXELS))}


def _unopened(path: Path, size_bytes: int, error: av.FFmpegError) -> str:
    """What a file is that cannot be opened: the decoder says the same of text and of half a video."""
    with path.open("rb") as file:
        head = file.read(4096)
        is_mp4 = head[4:8] in BOXES
        end = end_of(file, MP4, size_bytes, 0) if is_mp4 else None
    if end is not None and end > size_bytes:
        return f"it is cut off before its index: it has {size_bytes:,} bytes and says that it goes on; copy it again"
    if isinstance(error, av.EOFError):
        return "it has no frames: it ends after its header; copy it again, or encode it again"
    kinds = ["MP4"] if is_mp4 else [kind for begin, kind in BEGINNINGS.items() if head.startswith(begin)]
    if kinds:
        return f"it begins as {kinds[0]} but cannot be read as that: it is cut off or damaged; copy it again"
    if _is_text(head):
        return "it is text and no video; leave it out, or put the video in its place"
    return "it is no video of a kind that the decoder knows; encode it again, as H.264 in an .mp4 for one"


def _is_text(head: bytes) -> bool:
    try:
        told = codecs.getincrementaldecoder("utf-8")().decode(head)  # its last letter may be cut in two
    except UnicodeDecodeError:
        return False
    return all(letter.isprintable() or letter.isspace() for letter in told)


def _refuse(url: str, flags: int, options: dict[str, str]) -> IO[bytes]:
    raise VideoRefused(f"it refers to another file or address, {url[:100]!r}; put all of it into one file")


def _stream(container: InputContainer) -> VideoStream:
    if not container.streams.video:
        kinds = sorted({stream.type for stream in container.streams})
        raise VideoRefused(
            f"it has no video stream, only {', '.join(kinds)}" if kinds else "it has no frames, and no stream for any"
        )
    stream = container.streams.best("video")
    assert isinstance(stream, VideoStream)
    if stream.codec_context is None:
        raise VideoRefused("there is no decoder for its video stream; encode it again, as H.264 in an .mp4 for one")
    return stream


def _check_pixels(path: Path, size_bytes: int, stream: VideoStream, limits: Limits) -> None:
    """Raise VideoRefused if a frame has more pixels than the limit, with its size."""
    width, height = stream.codec_context.width, stream.codec_context.height
    if 0 < width * height <= limits.pixels:
        return
    with ExitStack() as opened:
        if not width:  # most decoders tell no size once the limit has stopped them
            wide = replace(limits, pixels=WIDER * limits.pixels)
            codec = _stream(opened.enter_context(_container(path, size_bytes, wide, opened))).codec_context
            width, height = codec.width, codec.height
    size = f"{width} x {height}" if width else "a far larger size, or none"
    raise VideoRefused(f"it says {size}; a frame may have {limits.pixels:,} pixels, or raise --max-pixels")


def _facts(container: InputContainer, stream: VideoStream, limits: Limits) -> Facts:
    codec = stream.codec_context
    listed, says = _listed(stream), stream.frames if _says_frames(container.format.name, stream) else 0
    if container.format.name in (MP4, AVI):  # see Video._check_whole
        says = listed
    if says > limits.frames:
        raise VideoRefused(f"it says {says:,} frames; it may have {limits.frames:,}, or raise --max-frames")
    fps = _fps(container.format.name, stream, listed)
    if not SLOWEST <= fps <= FASTEST:
        raise VideoRefused(f"it says {fps:g} frames a second; {SLOWEST} to {FASTEST} can be scored")
    return Facts(container=container.format.name, codec=codec.name, size=(codec.height, codec.width), fps=fps)


def _listed(stream: VideoStream) -> int:
    """How many frames the index of a file has, as far as it is known by now. That of Matroska has only some of them."""
    return sum(entry.size > 0 for entry in stream.index_entries)


def _fps(container: str, stream: VideoStream, listed: int) -> float:
    """Frames a second on average, or by and by where that is none: DV says only how it counts time."""
    average = float(stream.average_rate or 0)
    if container == AVI and 1 < listed < stream.frames:
        average *= listed / stream.frames  # AVI counts times at which a frame might come
    return average if SLOWEST <= average <= FASTEST else float(stream.guessed_rate or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pose:
    """How the frames of a file lie: on their side (rows are columns), and then upside down or mirrored."""

    lies: bool = False
    upside_down: bool = False
    mirrored: bool = False

    def upright(self, frame: NDArray[np.uint8]) -> Frame:
        turned = frame.transpose(1, 0, 2) if self.lies else frame
        return np.ascontiguousarray(turned[:: -1 if self.upside_down else 1, :: -1 if self.mirrored else 1])


def _pose(frame: av.VideoFrame | None) -> _Pose:
    """From the matrix that a frame comes with, if it turns by whole right angles.

    Source: ISO/IEC 14496-12, 6.2.2: x' = a x + c y and y' = b x + d y, with y downwards.
    """
    told = frame.side_data.get("DISPLAYMATRIX") if frame is not None else None
    if not isinstance(told, SideData):
        return _Pose()
    a, b, _, c, d = (int(each) for each in np.frombuffer(bytes(told), np.int32)[:5])
    straight, across = abs(a) + abs(d), abs(b) + abs(c)
    if min(straight, across) > 0.01 * max(straight, across):
        return _Pose()
    if across > straight:
        return _Pose(lies=True, upside_down=b < 0, mirrored=c < 0)
    return _Pose(upside_down=d < 0, mirrored=a < 0)


@contextmanager
def _refusals(limits: Limits) -> Iterator[None]:
    """Turn what the decoder and the file system raise into a reason."""
    try:
        yield
    except av.ExitError as error:
        raise VideoRefused(f"{limits.seconds:g} s were not enough; cut it, or raise --max-seconds") from error
    except av.EOFError as error:
        raise VideoRefused("it has no frames: it ends after its header; copy it again, or encode it again") from error
    except av.FFmpegError as error:
        raise VideoRefused(
            f"it cannot be decoded: {error.strerror or error}; encode it again, as H.264 in an .mp4 for one"
        ) from error
    except OSError as error:
        raise VideoRefused(f"it cannot be read: {error.strerror or error}") from error
