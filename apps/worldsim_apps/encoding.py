"""Frames to bytes for a viewer: raw, JPEG, or H.264 as WebCodecs takes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Protocol

import av
import cv2
import numpy as np
from av.video.frame import PictureType
from numpy.typing import NDArray

from worldsim.errors import ProtocolError
from worldsim.pictures import fit_picture
from worldsim.runtime.video import check_size, fits_h264
from worldsim.session.events import Codec

JPEG = [cv2.IMWRITE_JPEG_QUALITY, 92, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
COLOURS = "colorprim=smpte170m:transfer=smpte170m:colormatrix=smpte170m"
"""BT.601, as swscale converts: said in the stream, so that nobody has to guess."""
FINE_PX = 256
"""Below this height a frame is doubled for H.264, which keeps colours at half the resolution; one of odd sides too."""
LARGEST_PX = 1_280
"""Of the longer side of a picture that a client sends."""
FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
SKIPPED_MARKERS = frozenset({0xC4, 0xCC, 0xDB, 0xDC, 0xDD, *range(0xE0, 0xF0), 0xFE})
"""What may come in a JPEG before its frame: with a length, so that every reader sees the frame that was checked."""
FILL = 0xFF
MOST_SCANS = 16
"""Of a JPEG; each goes over the whole picture, however little of it there is."""
PNG = b"\x89PNG\r\n\x1a\n"
PNG_CHUNKS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
TORN = "that image is torn; send a whole PNG or JPEG"


class Encoder(Protocol):
    """Makes bytes of the blocks of one session, one after the other. Used by one thread at a time."""

    codec: Codec

    def encode(self, frames: NDArray[np.uint8]) -> list[bytes]:
        """One message for each frame of a block, uint8 [F, H, W, 3]; the first can be shown without any before it."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of what is shown."""
        ...

    @property
    def all_keys(self) -> bool:
        """Whether every frame can be shown without those before it."""
        ...


class RawEncoder:
    """RGB, a byte each, row by row: nothing is lost."""

    codec: Codec = "raw"
    all_keys = True

    def __init__(self, size: tuple[int, int], fps: int) -> None:
        self.size = size[1], size[0]

    def encode(self, frames: NDArray[np.uint8]) -> list[bytes]:
        """See Encoder."""
        return [np.ascontiguousarray(frame).tobytes() for frame in frames]


class JpegEncoder:
    """A JPEG a frame, with colours at full resolution."""

    codec: Codec = "jpeg"
    all_keys = True

    def __init__(self, size: tuple[int, int], fps: int) -> None:
        self.size = size[1], size[0]

    def encode(self, frames: NDArray[np.uint8]) -> list[bytes]:
        """See Encoder."""
        return [cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), JPEG)[1].tobytes() for frame in frames]


class H264Encoder:
    """An access unit a frame, each block a closed group that begins with an IDR picture and its parameter sets.

    ConfigError if frames of that size are too large for it.
    """

    codec: Codec = "h264"
    all_keys = False

    def __init__(self, size: tuple[int, int], fps: int) -> None:
        is_odd = bool(size[0] % 2 or size[1] % 2)
        self._scale = 2 if is_odd or (size[0] < FINE_PX and fits_h264((2 * size[0], 2 * size[1]))) else 1
        check_size(size, scale=self._scale)
        self.size = size[1] * self._scale, size[0] * self._scale
        context = av.CodecContext.create("libx264", "w")
        assert isinstance(context, av.VideoCodecContext)
        context.width, context.height = self.size
        context.pix_fmt = "yuv420p"
        context.time_base = Fraction(1, fps)
        context.thread_count = 1
        context.options = {
            "preset": "superfast",
            "tune": "zerolatency",
            "profile": "baseline",
            "crf": "18",
            "forced-idr": "1",
            "x264-params": f"keyint=1000:min-keyint=1:scenecut=0:repeat-headers=1:annexb=1:{COLOURS}",
        }
        self._context = context
        self._count = 0

    def encode(self, frames: NDArray[np.uint8]) -> list[bytes]:
        """See Encoder."""
        return [self._unit(frame, is_first=at == 0) for at, frame in enumerate(frames)]

    def _unit(self, frame: NDArray[np.uint8], *, is_first: bool) -> bytes:
        shown = frame.repeat(self._scale, 0).repeat(self._scale, 1)
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(shown), format="rgb24").reformat(format="yuv420p")
        picture.pts, picture.pict_type = self._count, PictureType.I if is_first else PictureType.NONE
        self._count += 1
        return b"".join(bytes(packet) for packet in self._context.encode(picture))


ENCODERS: Mapping[Codec, Callable[[tuple[int, int], int], Encoder]] = {
    "h264": H264Encoder,
    "jpeg": JpegEncoder,
    "raw": RawEncoder,
}


def png_of(pixels: NDArray[np.uint8], known: NDArray[np.bool_]) -> bytes:
    """A PNG of pixels RGB uint8 [H, W, 3], transparent where they are not known, [H, W]."""
    return cv2.imencode(".png", np.dstack((pixels[..., ::-1], 255 * known.astype(np.uint8))))[1].tobytes()


def picture_of(data: bytes, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A PNG or JPEG that a client sent, as a frame uint8 [H, W, 3] of that (height, width), see fit_picture.

    Raises:
        ProtocolError: it is neither, torn, or larger than 1,280 pixels a side; its header is read before anything is
            unpacked.
    """
    width, height = _declared(data)
    if not 0 < max(width, height) <= LARGEST_PX or min(width, height) < 1:
        raise ProtocolError(
            "bad_image", f"an image has 1 to {LARGEST_PX} pixels a side, this one says {width} x {height}"
        )
    if data.count(b"\xff\xda") > MOST_SCANS and not data.startswith(PNG):
        raise ProtocolError("bad_image", f"a JPEG has at most {MOST_SCANS} scans here; send a baseline one, or a PNG")
    decoded = cv2.imdecode(np.frombuffer(_plain(data), np.uint8), cv2.IMREAD_COLOR)
    if decoded is None:
        raise ProtocolError("bad_image", TORN)
    fitted: NDArray[np.uint8] = fit_picture(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), size)[0]
    return fitted


def _declared(data: bytes) -> tuple[int, int]:
    """(width, height) as the header of a PNG or JPEG says."""
    if data.startswith(PNG) and data[12:16] == b"IHDR":
        return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    at = 2 if data.startswith(b"\xff\xd8") else len(data)
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        if marker in FRAME_MARKERS:
            return int.from_bytes(data[at + 7 : at + 9]), int.from_bytes(data[at + 5 : at + 7])
        if marker not in SKIPPED_MARKERS and marker != FILL:
            break
        at += 1 if marker == FILL else 2 + length
    raise ProtocolError("bad_image", "an image is a PNG or a JPEG; this is neither")


def _plain(data: bytes) -> bytes:
    """A PNG without all that is not its one picture; a JPEG as it is.

    A reader makes room for all that a chunk says it holds, and the one of OpenCV may crash over a torn animation.

    Raises:
        ProtocolError: a chunk says that it is longer than what is there.
    """
    if not data.startswith(PNG):
        return data
    kept, at = [PNG], len(PNG)
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4])
        if end > len(data):
            raise ProtocolError("bad_image", TORN)
        if data[at + 4 : at + 8] in PNG_CHUNKS:
            kept.append(data[at:end])
        at = end
    return b"".join(kept)
