"""Video files: frames in, an H.264 MP4 out that can be played at any moment, also after a crash or a full disk."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Final, NoReturn, Self

import av
import numpy as np
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from worldsim.errors import ConfigError, MissingDependency, ShapeError, VideoError, counted
from worldsim.runtime.growing import GrowingFile
from worldsim.runtime.subtitles import held_text, with_text, with_text_track
from worldsim.session.log import is_log

ENCODER: Final = "libx264"
# Zero latency, so that no frame waits inside the encoder when the program dies. At this quality a pixel that was
# enlarged comes back within a few of 255 levels, and tiles keep their edges.
ENCODER_OPTIONS = {"preset": "veryfast", "tune": "zerolatency", "crf": "14"}
MP4_FLAGS = "frag_keyframe+empty_moov+default_base_moof+skip_trailer"
# An index of fragments without an entry (mfra with only its mfro, ISO/IEC 14496-12, 8.8.9 and 8.8.11): nothing comes
# after it. The muxer's own would know neither the text nor where it has moved the video.
END: Final = b"\0\0\0\x18mfra\0\0\0\x10mfro\0\0\0\0\0\0\0\x18"
BT709 = 1
LIMITED_RANGE = 1
LONGEST_PX = 16_384
"""Of a side of what x264 encodes."""
MOST_PX = 2**28
"""Of what libavcodec opens: with this much around it, a picture has fewer pixels than that."""
AROUND_PX = 128
SHOWN_HEIGHT_PX = 576
"""Worlds are small; files of them are enlarged by the largest whole factor that stays within this height."""


class VideoWriter:
    """An MP4 file that grows by whole seconds, each playable as soon as it is there.

    The file is a row of fragments of at most one second, every one beginning with a key frame. A fragment goes to
    the file when it is complete, so what is in the file always plays. Leaving the `with` block writes the rest, and
    that the file ends there, which one that was cut off does not say.

    A file that exists is replaced when the new one ends, and stays if that does not come to its end: the part that was
    written then lies beside it, see GrowingFile. Of a video without a frame nothing is kept if it ends by an error.

    The keys held at its frames are subtitles, such as "KeyD + Space", nothing where none are held. Keys that stay held
    are one cue in each fragment, so that a second has its own wherever the file is cut off or entered.

    Args:
        path: where to write, ending in .mp4; missing folders are made.
        size: (height, width) of the frames in pixels.
        fps: frames a second.
        scale: whole factor of enlargement, without smoothing. Both enlarged sides must be even.

    Raises:
        ConfigError: a size (see check_size), rate, scale or file name that cannot work, or the file is the log of a
            session.
        MissingDependency: this build of PyAV cannot encode H.264.
        VideoError: the file cannot be opened, or is being written, here or in another process.
    """

    def __init__(self, path: str | Path, *, size: tuple[int, int], fps: int, scale: int = 1) -> None:
        self._path = Path(path)
        self._size = size
        self._fps = fps
        self._scale = scale
        _check(size, fps, scale)
        if self._path.suffix.lower() != ".mp4":
            raise ConfigError(f"videos are written as MP4, got {path}; use a name that ends in .mp4")
        self._taken = 0
        self._texts: list[str] = []
        self._safe_fragments = 0
        self._safe_frames = 0
        self._file = self._open_file()
        with ExitStack() as undo:
            undo.callback(self._file.discard)
            self._fragments = _Memory()
            self._container = av.open(self._fragments, "w", format="mp4", options={"movflags": MP4_FLAGS})
            self._stream = _open_stream(self._container, size, fps, scale)
            self._container.start_encoding()
            enlarged = (size[0] * scale, size[1] * scale)
            self._keep(with_text_track(self._fragments.take(), size=enlarged, fps=fps))
            undo.pop_all()

    @property
    def path(self) -> Path:
        """Where what was written lies now: the path that was asked for, or one beside it until that is replaced."""
        return self._file.path

    @property
    def frames(self) -> int:
        """How many frames were written so far; all of them are in the file once it is closed."""
        return self._taken

    @property
    def closed(self) -> bool:
        """Whether nothing more can be written: it was closed, or the disk is full."""
        return self._file.closed

    def write(self, frames: NDArray[np.uint8], keys: Iterable[str] = ()) -> None:
        """Append frames, uint8 [F, height, width, 3] RGB, F from 0, and as subtitles the keys held at all of them.

        Raises:
            ShapeError: another shape or dtype; nothing of it is written.
            VideoError: the disk is full, or the file was closed. What is in the file plays.
        """
        if frames.dtype != np.uint8 or frames.shape[1:] != (*self._size, 3):
            raise ShapeError(
                f"{self._path} takes frames of uint8 [F, {self._size[0]}, {self._size[1]}, 3], "
                f"got {frames.dtype} {list(frames.shape)}"
            )
        if self._file.closed:
            raise VideoError(f"{self._path} is closed; open another VideoWriter for more frames")
        text = held_text(keys)
        for frame in frames:
            picture = _picture(frame, self._scale, number=self._taken, fps=self._fps)
            self._taken += 1
            self._texts.append(text)
            self._container.mux(self._stream.encode(picture))
            # The key frame just taken begins the next fragment; it completes the one before and is not yet in it.
            self._save(self._taken - 1)

    def close(self) -> None:
        """Write the last fragment and the end, and put the file in its place. Closing twice is fine.

        Raises:
            VideoError: the disk is full, or a file that exists cannot be replaced. What was written plays.
        """
        if self._file.closed:
            return
        self._finish()
        try:
            self._file.close()
        except OSError as error:
            raise VideoError(
                f"cannot replace {self._path}: {error.strerror}; the video is {self._file.path}, move it where it fits"
            ) from error

    def stop(self) -> None:
        """As `close`, for a video that is not all of what was to be: a file that exists stays, and it lies beside it.

        Raises:
            VideoError: the disk is full. What was written plays.
        """
        if self._file.closed:
            return
        self._finish()
        if self._taken:
            self._file.leave()
        else:
            self._file.discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or self.closed:
            self.close()
            return
        self.stop()
        if self._taken:
            error.add_note(f"what had been made, {counted(self._taken, 'frame')}, is in {self.path}")

    def _finish(self) -> None:
        """Write the last fragment, and that nothing comes after it."""
        self._container.close()
        self._save(self._taken)
        self._keep(END)

    def _open_file(self) -> GrowingFile:
        try:
            if is_log(self._path):
                raise ConfigError(f"{self._path} is the log of a session, which no video replaces; name another file")
            return GrowingFile(self._path)
        except BlockingIOError as error:
            raise VideoError(
                f"{self._path} is being written already, here or in another process; name another file, or wait until "
                "that has ended"
            ) from error
        except OSError as error:
            raise VideoError(
                f"cannot write {self._path}: {error.strerror}; name a file in a folder that can be written"
            ) from error

    def _save(self, frames: int) -> None:
        """Move the fragment that the container has completed to the file, which then holds that many frames."""
        fragment = self._fragments.take()
        if not fragment:
            return
        texts = self._texts[: frames - self._safe_frames]
        self._keep(with_text(fragment, texts, number=self._safe_fragments, first=self._safe_frames))
        del self._texts[: len(texts)]
        self._safe_fragments += 1
        self._safe_frames = frames

    def _keep(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> NoReturn:
        self._container.close()  # into memory; left to the garbage collector it may outlive what it writes to
        if not self._safe_frames:
            self._file.discard()
            raise VideoError(
                f"{self._path}: {error.strerror}; no frame was written; free some space or write elsewhere"
            ) from error
        self._file.leave()
        beside = "" if self.path == self._path else f" in {self.path}"
        raise VideoError(
            f"{self._path}: {error.strerror}; its first {counted(self._safe_frames, 'frame')} "
            f"({self._safe_frames / self._fps:.1f} s) are safe and play{beside}; free some space or write elsewhere"
        ) from error


class _Memory:
    """What the container writes to: bytes in memory, so that only whole fragments ever reach the disk."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> int:
        self.data += data
        return len(data)

    def take(self) -> bytes:
        """What was written since it was last taken."""
        data, self.data = self.data, b""
        return data


def movie(frames: NDArray[np.uint8], *, fps: int, scale: int) -> bytes:
    """Those frames, uint8 [F, H, W, 3] RGB, as an ordinary MP4 in memory, for a page or a message; no subtitles.

    Args:
        frames: F from 1.
        fps: frames a second.
        scale: as for VideoWriter.

    Raises:
        ConfigError, MissingDependency: as for VideoWriter.
    """
    _, height, width, _ = frames.shape
    _check((height, width), fps, scale)
    written = BytesIO()
    with av.open(written, "w", format="mp4") as container:
        stream = _open_stream(container, (height, width), fps, scale)
        for number, frame in enumerate(frames):
            container.mux(stream.encode(_picture(frame, scale, number=number, fps=fps)))
    return written.getvalue()


def shown_scale(size: tuple[int, int], *, height_px: int = SHOWN_HEIGHT_PX) -> int:
    """The largest whole factor that enlarges (height, width) to at most that height, to even sides, and fits H.264.

    It is 1, or 2 for odd sides, where nothing larger fits.
    """
    step = 2 if any(side % 2 for side in size) else 1
    return max(step, min(height_px // size[0], LONGEST_PX // size[1]) // step * step)


def fits_h264(size: tuple[int, int]) -> bool:
    """Whether pictures of (height, width) in pixels are not too large for x264 to encode."""
    around = (size[0] + AROUND_PX) * (size[1] + AROUND_PX)
    return max(size) <= LONGEST_PX and around < MOST_PX


def check_size(size: tuple[int, int], *, scale: int = 1) -> None:
    """Raise ConfigError unless a video can be of pictures of (height, width) pixels, enlarged by that factor."""
    height, width = (side * scale for side in size)
    if height % 2 or width % 2:
        raise ConfigError(f"H.264 needs even sides, got {size[1]}x{size[0]} at scale {scale}; use an even scale")
    if not fits_h264((height, width)):
        raise ConfigError(
            f"a video of {width}x{height} pixels is too large for H.264, which takes at most {LONGEST_PX:,} a side and "
            "about 264 million in all; choose a smaller size"
        )


def _open_stream(container: OutputContainer, size: tuple[int, int], fps: int, scale: int) -> VideoStream:
    stream = container.add_stream(ENCODER, rate=fps, options=ENCODER_OPTIONS)
    stream.height, stream.width = (side * scale for side in size)
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.gop_size = fps
    context.thread_count = 1  # equal bytes on every machine, and the cores are the model's
    context.colorspace = context.color_primaries = context.color_trc = BT709
    context.color_range = LIMITED_RANGE
    return stream


def _picture(frame: NDArray[np.uint8], scale: int, *, number: int, fps: int) -> VideoFrame:
    enlarged = frame.repeat(scale, axis=0).repeat(scale, axis=1)
    rgb = VideoFrame.from_ndarray(enlarged, format="rgb24")
    picture = rgb.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
    picture.pts = number
    picture.time_base = Fraction(1, fps)
    return picture


def _check(size: tuple[int, int], fps: int, scale: int) -> None:
    if min(*size, fps, scale) < 1:
        raise ConfigError(f"sides, fps and scale are at least 1, got size={size}, fps={fps}, scale={scale}")
    check_size(size, scale=scale)
    if ENCODER not in av.codecs_available:
        raise MissingDependency(
            f"PyAV {av.__version__} here was built without {ENCODER} and cannot write H.264; "
            "install its wheel: pip install --force-reinstall --only-binary av av"
        )
