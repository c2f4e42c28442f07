"""Subtitles of a fragmented MP4: a track beside the video, and for every fragment of video one of text before it.

PyAV before 16 cannot open a mov_text encoder, and FFmpeg's own muxer moves text that arrives after its fragment, so the
boxes are written here: a few hundred bytes, the same with every PyAV.

Source: ISO/IEC 14496-12 (boxes, movie fragments), 3GPP TS 26.245 (timed text, `tx3g`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

VIDEO, TEXT = 1, 2
"""Track numbers; the video is the first that PyAV makes."""
FONT = b"Sans-Serif"
WHITE = (255, 255, 255, 255)
BOTTOM, CENTRE = -1, 1
UNITY = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
UNDETERMINED = 0x55C4
"""The language "und", three letters of five bits."""
SEQUENCE_AT = 20
"""Where a fragment has its number: behind the heads of moof and mfhd, and the version of mfhd."""


def held_text(keys: Iterable[str]) -> str:
    """How keys that are held are written, such as "KeyD + Space"; "" if there are none."""
    return " + ".join(sorted(keys))


def with_text_track(head: bytes, *, size: tuple[int, int], fps: int) -> bytes:
    """The head of a fragmented MP4 with one video track, given a second track for text.

    Args:
        head: all boxes up to the first fragment.
        size: (height, width) of the picture in pixels; text stands at the bottom of it, in the middle.
        fps: frames a second, in which the text is timed.
    """
    return b"".join(
        _box(kind, _movie(content, size, fps)) if kind == b"moov" else _box(kind, content)
        for kind, content in _boxes(head)
    )


def with_text(fragment: bytes, texts: Sequence[str], *, number: int, first: int) -> bytes:
    """A fragment of video with the text that belongs to it before it, so that a player has read it in time.

    Text that stays is one cue, but none is longer than its fragment: what is cut off after a fragment has its text,
    and a player that jumps to one too. Cues of equal text that touch look like one.

    Args:
        fragment: one moof and its mdat.
        texts: what is shown at each of its frames; "" shows nothing.
        number: of the fragment, from 0.
        first: number of its first frame.
    """
    cues = [(text.encode(), len([*run])) for text, run in groupby(texts)]
    samples = b"".join(struct.pack(">H", len(text)) + text for text, _ in cues)
    table = b"".join(struct.pack(">II", frames, 2 + len(text)) for text, frames in cues)
    base_is_moof, offset_duration_size = 0x020000, 0x000301

    def moof(offset: int) -> bytes:
        track = (
            _full(b"tfhd", struct.pack(">I", TEXT), flags=base_is_moof),
            _full(b"tfdt", struct.pack(">Q", first), version=1),
            _full(b"trun", struct.pack(">Ii", len(cues), offset) + table, flags=offset_duration_size),
        )
        return _box(b"moof", _full(b"mfhd", struct.pack(">I", 2 * number + 1)), _box(b"traf", *track))

    text = moof(len(moof(0)) + 8) + _box(b"mdat", samples)
    video = fragment[:SEQUENCE_AT] + struct.pack(">I", 2 * number + 2) + fragment[SEQUENCE_AT + 4 :]
    return text + video


def _movie(content: bytes, size: tuple[int, int], fps: int) -> bytes:
    """The content of a moov with the text track behind the video track."""
    made = []
    for kind, inner in _boxes(content):
        if kind == b"mvhd":
            inner = inner[:-4] + struct.pack(">I", TEXT + 1)  # the number of the next track
        elif kind == b"mvex":
            made.append(_box(b"trak", *_track(size, fps)))
            inner += _full(b"trex", struct.pack(">IIIII", TEXT, 1, 0, 0, 0))
        made.append(_box(kind, inner))
    return b"".join(made)


def _track(size: tuple[int, int], fps: int) -> Iterator[bytes]:
    height, width = size
    enabled_in_movie, same_file, subtitles = 3, 1, 2
    about = struct.pack(">8xI16xhhhH", TEXT, 0, subtitles, 0, 0)
    place = struct.pack(">II", width << 16, height << 16)
    yield _full(b"tkhd", about + UNITY + place, flags=enabled_in_movie)
    tables = (
        _full(b"stsd", struct.pack(">I", 1) + _text_entry(size)),
        _full(b"stts", bytes(4)),
        _full(b"stsc", bytes(4)),
        _full(b"stsz", bytes(8)),
        _full(b"stco", bytes(4)),
    )
    source = _full(b"dref", struct.pack(">I", 1) + _full(b"url ", b"", flags=same_file))
    yield _box(
        b"mdia",
        _full(b"mdhd", struct.pack(">IIIIHH", 0, 0, fps, 0, UNDETERMINED, 0)),
        _full(b"hdlr", struct.pack(">I4s12x", 0, b"sbtl") + b"keys held\0"),
        _box(b"minf", _full(b"nmhd", b""), _box(b"dinf", source), _box(b"stbl", *tables)),
    )


def _text_entry(size: tuple[int, int]) -> bytes:
    """How the text looks where a player follows it: white, at the bottom of the picture, in the middle."""
    height, width = size
    font = 1
    style = struct.pack(">HHHBB4B", 0, 0, font, 0, min(255, max(1, height // 20)), *WHITE)
    look = struct.pack(">Ibb4x4h", 0, CENTRE, BOTTOM, 0, 0, height, width) + style
    fonts = _box(b"ftab", struct.pack(">HHB", 1, font, len(FONT)) + FONT)
    return _box(b"tx3g", struct.pack(">6xH", 1), look, fonts)


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of each box."""
    at = 0
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        yield kind, data[at + 8 : at + size]
        at += size


def _box(kind: bytes, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def _full(kind: bytes, content: bytes, *, version: int = 0, flags: int = 0) -> bytes:
    """A box with a version and flags."""
    return _box(kind, struct.pack(">I", version << 24 | flags), content)
