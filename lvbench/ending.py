"""Where a file says that it ends, in bytes: what was cut off may well decode, a few frames shorter, without a word."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import IO

from lvbench.errors import VideoRefused

TRANSPORT_PACKETS, SYNC, TS_BYTES, TS_TAIL_BYTES = (188, 192, 204), 0x47, 188, 8192
"""Bytes from one packet of MPEG-TS to the next: plain, as on Blu-ray, and as it is broadcast; all begin with the same
byte, and the first 188 are the packet. Of both ends so many bytes are looked at."""
EBML_HEADER, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
BOXES = frozenset(
    {
        *(b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"mfra", b"sidx", b"ssix", b"prft", b"emsg", b"meta", b"free"),
        *(b"skip", b"wide", b"uuid", b"pnot", b"udta", b"pdin"),
    }
)
"""Of MP4 that stand in a file by themselves. Others may too, but one that would go on beyond the file is no box."""
OGG_VIDEOS = (b"\x80theora", b"OVP80", b"BBCD\0", b"\x01video")
"""With which the first packet of a video in Ogg begins: Theora, VP8, Dirac, and what OGM took from AVI."""
ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
ASF_INDEXES = (
    bytes.fromhex("90080033b1e5cf1189f400a0c90349cb"),
    bytes.fromhex("d329e2d6da35d111903400a0c90349be"),
    bytes.fromhex("f803b1fead12644c840f2a1d2f7ad48c"),
)
MXF_KEY, MXF_PARTITION = bytes.fromhex("060e2b34"), bytes.fromhex("060e2b34020501010d01020101")
PACK, PROGRAM_END = b"\0\0\1\xba", 0xB9
DV_BYTES = (120_000, 144_000)
"""Of a frame of 60 and of 50 fields a second; those with more have a multiple of it."""
TAIL_BYTES = 2**18
"""Of the end of a file that is searched for where its last part begins."""
Rule = Callable[[IO[bytes], int, int], int | None]
"""From a file of so many bytes, whose pictures have so many if they are not compressed, to its end; see end_of."""


def end_of(file: IO[bytes], container: str, size: int, picture: int) -> int | None:
    """The byte at which a file says that it ends, beyond its size if it was cut off; None if it does not say.

    Args:
        file: opened for reading, anywhere.
        container: its format by the name that the decoder has for it.
        size: of the file, in bytes.
        picture: bytes of one picture as it is decoded.

    Raises:
        VideoRefused: there is something else where the next part should begin, and the decoder would end there.

    Source: ISO/IEC 14496-12 (boxes), RFC 8794 (EBML), RIFF, GIF89a, PNG, YUV4MPEG2, ISO/IEC 13818-1 (transport and
        program streams), RFC 3533 (Ogg), ASF 01.20.03, SMPTE 377-1 (MXF), IVF, AV1 (OBU), ISO/IEC 13818-2, H.264,
        H.265, IEC 61834 (DV).
    """
    rule = RULES.get(container)
    return rule(file, size, picture) if rule else None


def _boxes(file: IO[bytes], size: int, _: int) -> int | None:
    """MP4: boxes, each with its length. Of fragments nobody knows how many come, but for an index after the last."""
    at, kinds = 0, [b""]
    while at < size:
        head = _read(file, at, 16)
        length, kind = int.from_bytes(head[:4]), head[4:8]
        if size - at < 4 and b"moof" in kinds and kinds[-1] != b"mfra":
            return size + 1  # cut in the length of another fragment
        if length == 1:
            length = int.from_bytes(head[8:])
        if not length or not kind.isascii():
            return None  # up to the end, wherever that is; or something else after the boxes
        if kind not in BOXES and at + length > size and b"moov" in kinds and (head[0] or b"moof" not in kinds):
            break  # but another fragment, of which there is no name yet, would begin with a 0
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


def _gif(file: IO[bytes], size: int, _: int) -> int:
    """GIF: pictures and extensions, in blocks of up to 255 bytes, up to a trailer."""
    at = 13 + _palette(_read(file, 10, 1)[0])
    while at < size:
        kind = _read(file, at, 1)
        if kind == b";":
            return at + 1
        if kind == b"!":
            at += 2
        elif kind == b",":
            at += 11 + _palette(_read(file, at + 9, 1)[0])
        else:
            raise _torn(at, "a picture or the end of a GIF")
        while at < size and (length := _read(file, at, 1)[0]):
            at += 1 + length
        at += 1
    return max(at, size + 1)


def _palette(flags: int) -> int:
    """Bytes of the palette that these flags of a GIF tell of."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _png(file: IO[bytes], size: int, _: int) -> int:
    """APNG: chunks, each with its length, up to one that is called the end."""
    at = 8
    while at < size:
        head = _read(file, at, 8)
        at += 12 + int.from_bytes(head[:4])
        if head[4:] == b"IEND":
            return at
    return max(at, size + 1)


def _pictures(file: IO[bytes], size: int, picture: int) -> int | None:
    """Y4M: a line, and then pictures that are all as large, each after a line of its own. How many it does not say."""
    file.seek(0)
    at = len(file.readline(1000))
    while at < size:
        file.seek(at)
        line = file.readline(1000)
        if not line.startswith(b"FRAME"):  # something else after the last picture, or the first bytes of another
            return size + 1 if b"FRAME".startswith(line) else at
        at += len(line) + picture
    return None if at == size else at


def _packets(file: IO[bytes], size: int, _: int) -> int | None:
    """MPEG-TS: packets; after which of them it ends it does not say, and something else may follow."""
    begin = max(0, size - TS_TAIL_BYTES)
    head, tail = _row(_read(file, 0, min(size, TS_TAIL_BYTES))), _row(_read(file, begin, size - begin))
    if tail is None:
        return None
    step, _, last = tail
    if head is not None and (begin + last - head[1]) % step:
        raise VideoRefused(
            "it is torn: its last packets do not follow from the first, bytes are missing; copy it again"
        )
    end = begin + last + TS_BYTES
    return end if end > size else None


def _row(data: bytes) -> tuple[int, int, int] | None:
    """Packets of MPEG-TS one after another: from one to the next, to the first and to the last, in bytes."""
    for step in TRANSPORT_PACKETS:
        for first in range(min(step, len(data))):
            last = first
            while last + step < len(data) and data[last] == data[last + step] == SYNC:
                last += step
            if last - first >= 5 * step:
                return step, first, last
    return None


def _program(file: IO[bytes], size: int, _: int) -> int | None:
    """MPEG-PS: packs of packets, each with its length; an end that many leave out."""
    begin = max(0, size - TAIL_BYTES)
    tail, first = _read(file, begin, size - begin), -1
    while (first := tail.find(PACK, first + 1)) >= 0:
        at = first
        while tail[at : at + 3] == PACK[:3] and at + 3 < len(tail) and tail[at + 3] >= PROGRAM_END:
            if tail[at + 3] == PROGRAM_END and not tail.startswith(PACK, at + 4):  # else programs follow one another
                return begin + at + 4
            at += 4 if tail[at + 3] == PROGRAM_END else _unit(tail[at : at + 14].ljust(14, b"\0"))
        if at == len(tail):
            return None
        if PACK.startswith(tail[at:]):
            return max(begin + at, size + 1)
    return None  # something else follows, or this is in the midst of a longer packet than there are


def _unit(head: bytes) -> int:
    """Bytes of a pack header of MPEG-2 or MPEG-1, or of a packet, which has its length after its name."""
    if head[:4] != PACK:
        return 6 + int.from_bytes(head[4:6])
    return 14 + (head[13] & 7) if head[4] >> 6 == 1 else 12


def _ogg(file: IO[bytes], size: int, _: int) -> int | None:
    """Ogg: pages, of which the last of each stream is marked; None if no stream is a video that is known here."""
    at, videos, running = 0, 0, set[bytes]()
    while at < size and (head := _read(file, at, 27 + 255 + 8))[:4] == b"OggS":
        begin, stream = 27 + head[26], head[14:18]
        if head[5] & 2 and head[begin:].startswith(OGG_VIDEOS):
            videos += 1
            running.add(stream)
        if head[5] & 4:
            running.discard(stream)
        at += begin + sum(head[27:begin])
    if running or at > size:
        return max(at, size + 1)
    return at if videos else None


def _ivf(file: IO[bytes], size: int, _: int) -> int | None:
    """IVF: frames, each with its length and time; a header that counts them, or how long they last, or neither."""
    head = _read(file, 0, 32)
    told = int.from_bytes(head[24:28], "little")
    at, count, times = int.from_bytes(head[6:8], "little"), 0, [0, 0]
    while at < size:
        length = 12 + int.from_bytes(_read(file, at, 4), "little")
        if at + length > size:
            break
        times[min(count, 1)] = int.from_bytes(_read(file, at + 4, 8), "little")
        count += 1
        at += length
    # FFmpeg before 4.4 wrote how long all last by the mean of their distances, in units of time.
    lasts = count * (times[1] - times[0]) // (count - 1) if count > 1 else 0
    known = told not in (0, 2**32 - 1)
    if known and (count >= told or lasts == told):
        return at
    return size + 1 if known or at < size else None


def _objects(file: IO[bytes], size: int, _: int) -> int | None:
    """WMV and ASF: a header, the data and indexes, each with its length, unless it was written while it was shown."""
    at = _asf_length(_read(file, 0, 24))
    header = _read(file, 0, min(at, TAIL_BYTES))
    found = header.find(ASF_PROPERTIES)
    if found >= 0 and int.from_bytes(header[found + 88 : found + 92], "little") & 1:
        return None
    head = _read(file, at, 24)
    if head[:16] != ASF_DATA or _asf_length(head) < 50:
        return max(at, size + 1) if at >= size else None
    while at < size and head[:16] in (ASF_DATA, *ASF_INDEXES):
        at += max(_asf_length(head), 24)
        head = _read(file, at, 24)
    return at


def _asf_length(head: bytes) -> int:
    return int.from_bytes(head[16:24], "little")


def _partitions(file: IO[bytes], size: int, _: int) -> int | None:
    """MXF: a header that says where the footer is, which is the last part; None if it was not known yet."""
    begin = _read(file, 0, min(size, 2**16 + 32)).find(MXF_PARTITION)
    value, _ = _mxf_length(_read(file, begin + 16, 9))
    at = begin + int.from_bytes(_read(file, begin + 16 + value + 24, 8))
    if begin < 0 or at == begin:
        return None
    if _read(file, at, 14) != MXF_PARTITION + b"\4":
        return size + 1
    while at < size and _read(file, at, 4) == MXF_KEY:
        width, length = _mxf_length(_read(file, at + 16, 9))
        at += 16 + width + length
    return at


def _mxf_length(head: bytes) -> tuple[int, int]:
    """How many bytes the length of a value in MXF takes, and that length."""
    if head[0] < 0x80:
        return 1, head[0]
    width = head[0] & 0x7F
    return 1 + width, int.from_bytes(head[1 : 1 + min(width, 8)])


def _units(file: IO[bytes], size: int, _: int) -> int | None:
    """AV1 by itself: units, each with its length; which of them is the last it does not say."""
    at = 0
    while at < size:
        head = _read(file, at, 10)
        if head[0] & 0x82 != 2:
            return None
        length, width = 0, 1 + (head[0] >> 2 & 1)
        for shift in range(8):
            length |= (head[width] & 0x7F) << 7 * shift
            width += 1
            if head[width - 1] < 0x80 or width == 10:
                break
        at += width + length
    return at if at > size else None


def _jpegs(file: IO[bytes], size: int, _: int) -> int | None:
    """MJPEG by itself: pictures with a mark before and after each; which of them is the last it does not say."""
    begin = max(0, size - TAIL_BYTES)
    tail = _read(file, begin, size - begin)
    return size + 1 if tail.rfind(b"\xff\xd8\xff") > tail.rfind(b"\xff\xd9") else None


def _tape(file: IO[bytes], size: int, _: int) -> int | None:
    """DV by itself: frames of one size; which of them is the last it does not say."""
    head = _read(file, 0, 4)
    each = DV_BYTES[head[3] >> 7]
    last = size // each * each
    return last + each if last < size and _read(file, last, 2) == head[:2] else None


def _mark(marks: tuple[bytes, ...], file: IO[bytes], size: int, _: int) -> int | None:
    """What may have a mark after all else, and zeros after that."""
    begin = max(0, size - TAIL_BYTES)
    return size if _read(file, begin, size - begin).rstrip(b"\0").endswith(marks) else None


def _torn(at: int, wanted: str) -> VideoRefused:
    return VideoRefused(f"it is torn: at byte {at:,} there should be {wanted}; copy it again")


def _read(file: IO[bytes], at: int, count: int) -> bytes:
    """So many bytes from there, zeros where there are none."""
    file.seek(at)
    return file.read(count).ljust(count, b"\0")


RULES: Mapping[str, Rule] = {
    "mov,mp4,m4a,3gp,3g2,mj2": _boxes,
    "matroska,webm": _elements,
    "avi": _riff,
    "gif": _gif,
    "apng": _png,
    "yuv4mpegpipe": _pictures,
    "mpegts": _packets,
    "mpeg": _program,
    "ogg": _ogg,
    "ivf": _ivf,
    "asf": _objects,
    "mxf": _partitions,
    "obu": _units,
    "dv": _tape,
    "mjpeg": _jpegs,
    "mpegvideo": partial(_mark, (b"\0\0\1\xb7",)),
    "h264": partial(_mark, (b"\0\0\1\x0a", b"\0\0\1\x0b")),
    "hevc": partial(_mark, (b"\0\0\1\x48\1", b"\0\0\1\x4a\1")),
}
