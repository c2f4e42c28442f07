"""Video files: frames in, an H.264 MP4 out that can be played at any moment, also after a crash or a full disk."""

from __future__ import annotations

from fractions import Fraction
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Final, NoReturn, Self

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from worldsim.errors import ConfigError, MissingDependency, ShapeError, VideoError

ENCODER: Final = "libx264"
# Zero latency, so that no frame waits inside the encoder when the program dies. At this quality a pixel that was
# enlarged comes back within a few of 255 levels, and tiles keep their edges.
ENCODER_OPTIONS = {"preset": "veryfast", "tune": "zerolatency", "crf": "14"}
MP4_FLAGS = "frag_keyframe+empty_moov+default_base_moof+skip_trailer"
BT709 = 1
LIMITED_RANGE = 1


class VideoWriter:
    """An MP4 file that grows by whole seconds, each playable as soon as it is there.

    The file is a row of fragments of at most one second, every one beginning with a key frame. A fragment goes to
    the file when it is complete, so what is in the file always plays. Leaving the `with` block writes the rest.

    Args:
        path: where to write, ending in .mp4; missing folders are made, an existing file is replaced.
        size: (height, width) of the frames in pixels.
        fps: frames a second.
        scale: whole factor of enlargement, without smoothing. Both enlarged sides must be even.

    Raises:
        ConfigError: a size, rate, scale or file name that cannot work.
        MissingDependency: this build of PyAV cannot encode H.264.
        VideoError: the file cannot be opened.
    """

    def __init__(self, path: str | Path, *, size: tuple[int, int], fps: int, scale: int = 1) -> None:
        self._path = Path(path)
        self._size = size
        self._fps = fps
        self._scale = scale
        _check(self._path, size, fps, scale)
        self._taken = 0
        self._safe_frames = 0
        self._safe_bytes = 0
        self._fragments = _Memory()
        self._container = av.open(self._fragments, "w", format="mp4", options={"movflags": MP4_FLAGS})
        self._stream = self._open_stream()
        self._file = self._open_file()
        self._container.start_encoding()
        self._save(0)

    @property
    def frames(self) -> int:
        """How many frames were written so far; all of them are in the file once it is closed."""
        return self._taken

    def write(self, frames: NDArray[np.uint8]) -> None:
        """Append frames, uint8 [F, height, width, 3] RGB, F from 0.

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
        for frame in frames:
            picture = self._picture(frame)
            self._taken += 1
            self._container.mux(self._stream.encode(picture))
            # The key frame just taken begins the next fragment; it completes the one before and is not yet in it.
            self._save(self._taken - 1)

    def close(self) -> None:
        """Write the last fragment and close the file. Closing twice is fine.

        Raises:
            VideoError: the disk is full. What is in the file plays.
        """
        if self._file.closed:
            return
        self._container.close()
        self._save(self._taken)
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open_stream(self) -> VideoStream:
        stream = self._container.add_stream(ENCODER, rate=self._fps, options=ENCODER_OPTIONS)
        stream.height, stream.width = (side * self._scale for side in self._size)
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.gop_size = self._fps
        context.thread_count = 1  # equal bytes on every machine, and the cores are the model's
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = LIMITED_RANGE
        return stream

    def _open_file(self) -> FileIO:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return FileIO(self._path, "w")
        except OSError as error:
            raise VideoError(
                f"cannot write {self._path}: {error.strerror}; name a file in a folder that can be written"
            ) from error

    def _picture(self, frame: NDArray[np.uint8]) -> VideoFrame:
        enlarged = frame.repeat(self._scale, axis=0).repeat(self._scale, axis=1)
        rgb = VideoFrame.from_ndarray(enlarged, format="rgb24")
        picture = rgb.reformat(format="yuv420p", dst_colorspace=BT709, dst_color_range=LIMITED_RANGE)
        picture.pts = self._taken
        picture.time_base = Fraction(1, self._fps)
        return picture

    def _save(self, frames: int) -> None:
        """Move what the container has completed to the file, which then holds that many frames."""
        if not self._fragments.data:
            return
        try:
            left = memoryview(self._fragments.data)
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            self._give_up(error)
        self._safe_bytes += len(self._fragments.data)
        self._safe_frames = frames
        self._fragments.data = b""

    def _give_up(self, error: OSError) -> NoReturn:
        self._file.truncate(self._safe_bytes)  # a torn fragment makes some players refuse the whole file
        self._file.close()
        raise VideoError(
            f"{self._path}: {error.strerror}; its first {self._safe_frames} frames "
            f"({self._safe_frames / self._fps:.1f} s) are safe and play; free some space or write elsewhere"
        ) from error


class _Memory:
    """What the container writes to: bytes in memory, so that only whole fragments ever reach the disk."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> int:
        self.data += data
        return len(data)


def _check(path: Path, size: tuple[int, int], fps: int, scale: int) -> None:
    if min(*size, fps, scale) < 1:
        raise ConfigError(f"sides, fps and scale are at least 1, got size={size}, fps={fps}, scale={scale}")
    if any(side * scale % 2 for side in size):
        raise ConfigError(f"H.264 needs even sides, got {size[0]} x {size[1]} at scale {scale}; use an even scale")
    if path.suffix.lower() != ".mp4":
        raise ConfigError(f"videos are written as MP4, got {path}; use a name that ends in .mp4")
    if ENCODER not in av.codecs_available:
        raise MissingDependency(
            f"PyAV {av.__version__} here was built without {ENCODER} and cannot write H.264; "
            "install its wheel: pip install --force-reinstall --only-binary av av"
        )
