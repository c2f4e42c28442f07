"""Where a file says that it ends, in bytes: what was cut off may well decode, a few frames shorter, without a word."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import IO

TRANSPORT_PACKETS = (188, 192, 204)
"""Bytes of a packet of MPEG-TS: plain, as on Blu-ray, and as it is broadcast."""
EBML_HEADER, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
Rule = Callable[[IO[bytes], int, int], int | None]
"""From a file of so many bytes, whose pictures have so many if they are not compressed, to its end; see end_of."""


def end_of(file: IO[bytes], container: str, size: int, picture: int) -> int | None:
    """The byte at which a file says that it ends, beyond its size if it was cut off; None if it does not say.

    Args:
        file: opened for reading, anywhere.
        container: its format by the name that the decoder has for it.
        size: of the file, in bytes.
        picture: bytes of one picture as it is decoded.

    Source: ISO/IEC 14496-12 (boxes), RFC 8794 (EBML), RIFF, GIF89a, PNG, YUV4MPEG2, ISO/IEC 13818-1.
    """
    rule = RULES.get(container)
    return rule(file, size, picture) if rule else None


def _boxes(file: IO[bytes], size: int, _: int) -> int | None:
    """MP4: boxes, each with its length. Of fragments nobody knows how many come, but for an index after the last."""
    at, kinds = 0, [b""]
    while at < size:
        head = _read(file, at, 16)
        length, kind = int.from_bytes(head[:4]), head[4:8]
        if length == 1:
            length = int.from_bytes(head[8:])
        if not length or not kind.isascii():
            return None  # up to the end, wherever that is; or something else after the boxes
        at += max(length, 8)
        kinds.append(kind)
    return at if b"moof" not in kinds or kinds[-1] == b"mfra" or at > size else None


def _elements(file: IO[bytes], size: int, _: int) -> int | None:
    """Matroska: a header and what it is of, each with its length, unless it was written while it was shown."""
    at = 0
    while at < size and (head := _read(file, at, 12))[:4] in (EBML_HEADER, SEGMENT):
        width = 9 - head[4].bit_length()
        longest = (1 << 7 * width) - 1
        length = int.from_bytes(head[4 : 4 + width]) & longest
        if width > 8 or length == longest:
            return None
        at += 4 + width + length
    return at


def _riff(file: IO[bytes], size: int, _: int) -> int | None:
    """AVI: a chunk with its length, and more of them where it is long; 0 in one that was never finished."""
    at = 0
    while at < size and (head := _read(file, at, 8))[:4] == b"RIFF":
        length = int.from_bytes(head[4:], "little")
        if not length:
            return None
        at += 8 + length + length % 2
    return at


def _mark(mark: bytes, file: IO[bytes], size: int, _: int) -> int:
    """What has a mark after all else."""
    return size if _read(file, max(0, size - len(mark)), len(mark)) == mark else size + 1


def _pictures(file: IO[bytes], size: int, picture: int) -> int:
    """Y4M: a line, and then pictures that are all as large, each after a line of its own."""
    file.seek(0)
    first, each = len(file.readline(1000)), len(b"FRAME\n") + picture
    return first + -(-(size - first) // each) * each


def _packets(file: IO[bytes], size: int, _: int) -> int | None:
    """MPEG-TS: packets; after which of them it ends it does not say."""
    return None if any(size % packet == 0 for packet in TRANSPORT_PACKETS) else size + -size % TRANSPORT_PACKETS[0]


def _read(file: IO[bytes], at: int, count: int) -> bytes:
    """So many bytes from there, zeros where there are none."""
    file.seek(at)
    return file.read(count).ljust(count, b"\0")


RULES: Mapping[str, Rule] = {
    "mov,mp4,m4a,3gp,3g2,mj2": _boxes,
    "matroska,webm": _elements,
    "avi": _riff,
    "gif": partial(_mark, b"\0;"),
    "apng": partial(_mark, b"\0\0\0\0IEND\xaeB`\x82"),
    "yuv4mpegpipe": _pictures,
    "mpegts": _packets,
}
