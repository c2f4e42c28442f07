"""A file tells where it ends, or is known not to."""

from __future__ import annotations

import io

import pytest

from lvbench.ending import end_of

MP4 = "mov,mp4,m4a,3gp,3g2,mj2"


def box(kind: bytes, content: bytes, *, wide: bool = False) -> bytes:
    """A box of MP4, with its length in 4 bytes or in 8."""
    if wide:
        return (1).to_bytes(4) + kind + (16 + len(content)).to_bytes(8) + content
    return (8 + len(content)).to_bytes(4) + kind + content


def element(name: bytes, length: bytes, content: bytes = b"") -> bytes:
    """An element of EBML."""
    return name + length + content


def riff(content: bytes) -> bytes:
    """A chunk of RIFF, of an even length."""
    return b"RIFF" + len(content).to_bytes(4, "little") + content + b"\0" * (len(content) % 2)


HEADER = element(b"\x1a\x45\xdf\xa3", b"\x83", b"abc")
PLAIN = box(b"ftyp", b"isom") + box(b"mdat", b"x" * 99, wide=True) + box(b"moov", b"y" * 9)
FRAGMENTS = box(b"moov", b"") + box(b"moof", b"z") + box(b"mdat", b"x" * 99)
Y4M = b"YUV4MPEG2 W4 H2 F16:1\n" + 3 * (b"FRAME\n" + bytes(12))


def end(container: str, data: bytes, picture: int = 12) -> int | None:
    return end_of(io.BytesIO(data), container, len(data), picture)


@pytest.mark.parametrize(
    ("container", "whole"),
    [
        (MP4, PLAIN),
        (MP4, FRAGMENTS + box(b"mfra", b"index")),
        ("matroska,webm", HEADER + element(b"\x18\x53\x80\x67", b"\x40\x65", bytes(101))),
        ("avi", riff(b"AVI " + bytes(41)) + riff(b"AVIX" + bytes(20))),
        ("gif", b"GIF89a\x01\x00\x00;"),
        ("apng", b"\x89PNG" + b"\0\0\0\0IEND\xaeB\x60\x82"),
        ("yuv4mpegpipe", Y4M),
    ],
)
def test_a_file_ends_where_it_says_and_goes_on_to_there_if_it_is_cut(container, whole):
    assert end(container, whole) == len(whole)
    for kept in (len(whole) - 1, len(whole) - 9):
        assert end(container, whole[:kept]) > kept


@pytest.mark.parametrize(
    ("container", "data"),
    [
        (MP4, FRAGMENTS),
        (MP4, box(b"ftyp", b"isom") + bytes(4) + b"mdat" + b"x" * 99),
        (MP4, PLAIN + b"\0" * 20),
        (MP4, PLAIN + b"\xff\xee\xdd\xcc\xbb\xaa\xff\xff"),
        ("matroska,webm", HEADER + element(b"\x18\x53\x80\x67", b"\x01" + b"\xff" * 7, bytes(101))),
        ("matroska,webm", HEADER + element(b"\x18\x53\x80\x67", b"\x00", bytes(101))),
        ("avi", b"RIFF" + bytes(99)),
        ("flv", b"FLV"),
        *(("mpegts", bytes(70 * packet)) for packet in (188, 192, 204)),
    ],
)
def test_what_does_not_say_where_it_ends_has_no_end(container, data):
    assert end(container, data) is None


def test_what_comes_after_a_whole_file_takes_nothing_from_it():
    whole = HEADER + element(b"\x18\x53\x80\x67", b"\x82", b"ab")
    assert end("matroska,webm", whole + b"more") == len(whole)
    assert end("avi", riff(b"AVI ") + b"more, and more") == len(riff(b"AVI "))


def test_a_transport_stream_cut_within_a_packet_goes_on_to_the_next():
    assert end("mpegts", bytes(70 * 188 + 1)) == 71 * 188
