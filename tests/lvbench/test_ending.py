"""A file tells where it ends, or is known not to."""

from __future__ import annotations

import io

import pytest

from lvbench.ending import end_of
from lvbench.errors import VideoRefused

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


def page(stream: int, content: bytes, flags: int = 0) -> bytes:
    """A page of Ogg with one packet of up to 254 bytes; it begins a stream with 2 and ends it with 4."""
    head = b"OggS\0" + bytes([flags]) + bytes(8) + stream.to_bytes(4, "little") + bytes(8)
    return head + bytes([1, len(content)]) + content


def ivf(count: int, times: range) -> bytes:
    """An IVF of frames of 9 bytes at these times, that says it has so many."""
    head = b"DKIF\0\0" + (32).to_bytes(2, "little") + b"VP80" + bytes(12) + count.to_bytes(4, "little") + bytes(4)
    return head + b"".join((9).to_bytes(4, "little") + time.to_bytes(8, "little") + b"x" * 9 for time in times)


def asf(name: str, content: bytes) -> bytes:
    """An object of ASF, by its identifier as it is written."""
    parts = name.split("-")
    code = b"".join(bytes.fromhex(part)[::-1] for part in parts[:3]) + bytes.fromhex("".join(parts[3:]))
    return code + (24 + len(content)).to_bytes(8, "little") + content


def wmv(*, live: bool = False) -> bytes:
    properties = asf("8CABDCA1-A947-11CF-8EE4-00C00C205365", bytes(64) + bytes([live, 0, 0, 0]) + bytes(12))
    header = asf("75B22630-668E-11CF-A6D9-00AA0062CE6C", bytes(6) + properties)
    data = asf("75B22636-668E-11CF-A6D9-00AA0062CE6C", bytes(200))
    return header + data + asf("33000890-E5B1-11CF-89F4-00A0C90349CB", bytes(30))


def klv(kind: int, value: bytes) -> bytes:
    """A partition pack of MXF, or of a kind above 4 something else; with a length of 4 bytes."""
    name = b"\x0d\1\2\1\1" + bytes([kind, 4, 0]) if kind <= 4 else b"\x0d\1\3\1" + bytes([kind, 0, 0, 0])
    return b"\x06\x0e\x2b\x34\2\5\1\1" + name + b"\x83" + len(value).to_bytes(3) + value


def mxf(*, footer: bool) -> bytes:
    body = klv(9, b"x" * 70)
    at = 20 + 60 + len(body) if footer else 0
    return klv(2, bytes(24) + at.to_bytes(8) + bytes(28)) + body + klv(4, bytes(88)) + klv(9, b"index")


def picture(wide: bytes = b"") -> bytes:
    """A picture of a GIF, with a palette of 4 colours if its flags are told."""
    return b"," + bytes(8) + (wide or b"\0") + (bytes(12) if wide else b"") + b"\2\3abc\4defg\0"


def packets(step: int, count: int = 70) -> bytes:
    """Of MPEG-TS, with a time before each or a check after it."""
    before = b"\0" * 4 if step == 192 else b""
    return count * (before + b"G" + bytes(187) + b"\0" * (step - 188 - len(before)))


PES = b"\0\0\1\xe0" + (50).to_bytes(2) + bytes(50)
PACKS = {
    "MPEG-2": 9 * (b"\0\0\1\xba\x44" + bytes(8) + b"\xfa\xff\xff" + PES),
    "MPEG-1": 9 * (b"\0\0\1\xba\x21" + bytes(7) + PES),
}
GIF = b"GIF89a" + bytes(4) + b"\x91\0\0" + bytes(12) + b"!\xf9\4abcd\0" + picture() + picture(b"\x81") + b";"
PNG = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4) + b"IHDR" + bytes(17) + bytes(4) + b"IEND\xae\x42\x60\x82"
OGG = page(1, b"\x80theora", 2) + page(2, b"\1vorbis", 2) + 3 * page(1, b"x" * 99) + page(1, b"y", 4) + page(2, b"z")
HEADER = element(b"\x1a\x45\xdf\xa3", b"\x83", b"abc")
PLAIN = box(b"ftyp", b"isom") + box(b"mdat", b"x" * 99, wide=True) + box(b"moov", b"y" * 9)
FRAGMENTS = box(b"moov", b"") + box(b"moof", b"z") + box(b"mdat", b"x" * 99)
Y4M = b"YUV4MPEG2 W4 H2 F16:1\n" + 3 * (b"FRAME Ip\n" + bytes(12))
UNITS = b"\x12\0" + b"\x0a\3abc" + b"\x36\0\x84\1" + bytes(132)
JPEGS = 2 * (b"\xff\xd8\xff\xe0" + b"x" * 50 + b"\xff\xd9")
TAPE = b"\x1f\7\0\xbf" + bytes(143_996)


def end(container: str, data: bytes, picture: int = 12) -> int | None:
    return end_of(io.BytesIO(data), container, len(data), picture)


@pytest.mark.parametrize(
    ("container", "whole"),
    [
        (MP4, PLAIN),
        (MP4, FRAGMENTS + box(b"mfra", b"index")),
        (MP4, box(b"ftyp", b"isom") + box(b"moov", b"y") + box(b"mdat", b"x" * 99)),
        ("matroska,webm", HEADER + element(b"\x18\x53\x80\x67", b"\x40\x65", bytes(101))),
        ("avi", riff(b"AVI " + bytes(41)) + riff(b"AVIX" + bytes(20))),
        ("gif", GIF),
        ("apng", PNG),
        ("ogg", OGG[: -len(page(2, b"z"))]),
        ("ivf", ivf(5, range(5))),
        ("ivf", ivf(5, range(0, 300, 60))),
        ("ivf", ivf(300, range(0, 300, 60))),
        ("asf", wmv()),
        ("mxf", mxf(footer=True)),
        ("mpegvideo", b"x" * 50 + b"\0\0\1\xb7"),
    ],
)
def test_a_file_ends_where_it_says_and_goes_on_to_there_if_it_is_cut(container, whole):
    assert end(container, whole) == len(whole)
    for kept in (len(whole) - 1, len(whole) - 9):
        found = end(container, whole[:kept])
        assert found is None if container == "mpegvideo" else found > kept


@pytest.mark.parametrize(
    ("container", "data"),
    [
        ("yuv4mpegpipe", Y4M),
        ("mpegts", packets(188)),
        ("mpegts", packets(192)),
        ("mpegts", packets(204)),
        ("mpeg", PACKS["MPEG-1"]),
        ("mpeg", PACKS["MPEG-2"]),
        ("ivf", ivf(0, range(5))),
        ("ivf", ivf(2**32 - 1, range(5))),
        ("obu", UNITS),
        ("mjpeg", JPEGS),
        ("dv", 2 * TAPE),
        ("dv", 2 * (b"\x1f\7\0\x3f" + bytes(119_996))),
    ],
)
def test_what_does_not_say_which_part_is_its_last_is_still_found_to_be_cut_within_one(container, data):
    assert end(container, data) is None
    lost = 17 if container == "mpegts" and len(data) % 204 == 0 else 1  # its check is no part of a packet
    assert end(container, data[:-lost]) > len(data) - lost
    assert end(container, data[:-30]) > len(data) - 30


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
        ("asf", wmv(live=True)[:-50]),
        ("mxf", mxf(footer=False)[:-50]),
        ("mxf", b"no partition"),
        ("ogg", page(3, b"\x7fFLAC", 2)),
        ("obu", b"\x10 a unit without a length"),
        *(("mpegts", packets(step) + b"\nmore") for step in (188, 192, 204)),
        ("mpegts", bytes(9000)),
        ("mpeg", PACKS["MPEG-2"] + b"more"),
        ("mpeg", b"x" * 99),
        ("mjpeg", JPEGS + b"\n"),
        ("dv", TAPE + b"\n"),
        ("hevc", b"x" * 50),
    ],
)
def test_what_does_not_say_where_it_ends_has_no_end(container, data):
    assert end(container, data) is None


@pytest.mark.parametrize(
    ("container", "whole"),
    [
        (MP4, PLAIN),
        ("matroska,webm", HEADER + element(b"\x18\x53\x80\x67", b"\x82", b"ab")),
        ("avi", riff(b"AVI ")),
        ("gif", GIF),
        ("apng", PNG),
        ("yuv4mpegpipe", Y4M),
        ("ogg", OGG[: -len(page(2, b"z"))]),
        ("ivf", ivf(5, range(5))),
        ("asf", wmv()),
        ("mxf", mxf(footer=True)),
        ("mpeg", PACKS["MPEG-2"] + b"\0\0\1\xb9"),
    ],
)
@pytest.mark.parametrize("more", [b"\n", b"more, and more, and a great deal more of it"])
def test_what_comes_after_a_whole_file_takes_nothing_from_it(container, whole, more):
    assert end(container, whole + more) == len(whole)


def test_a_video_in_ogg_may_end_before_its_sound():
    assert end("ogg", OGG) == len(OGG)
    assert end("ogg", OGG[: OGG.rindex(b"OggS", 0, -30)]) > len(OGG) - len(page(1, b"y")) - len(page(2, b"z"))


def test_zeros_may_follow_the_mark_of_an_end():
    for container, mark in (
        ("mpegvideo", b"\0\0\1\xb7"),
        ("h264", b"\0\0\1\x0b"),
        ("hevc", b"\0\0\1\x4a\1"),
    ):
        assert end(container, b"x" * 50 + mark + b"\0" * 9) == 50 + len(mark) + 9


def test_a_program_that_follows_another_is_not_hidden_by_its_end():
    one = PACKS["MPEG-2"] + b"\0\0\1\xb9"
    assert end("mpeg", one + one) == 2 * len(one)
    assert end("mpeg", one + PACKS["MPEG-2"]) is None
    assert end("mpeg", one + PACKS["MPEG-2"][:-3]) > len(one) + len(PACKS["MPEG-2"]) - 3


@pytest.mark.parametrize("step", [188, 192, 204])
def test_a_transport_stream_that_lost_bytes_is_torn_but_may_begin_within_a_packet(step):
    whole = packets(step, 200)
    assert end("mpegts", whole[70:]) is None
    with pytest.raises(VideoRefused, match="it is torn: its last packets do not follow from the first"):
        end("mpegts", whole[: 100 * step + 50] + whole[100 * step + 90 :])


def test_a_gif_in_which_a_length_is_another_is_torn():
    torn = GIF.replace(b"\3abc\4defg", b"\3abc\0defg", 1)
    with pytest.raises(VideoRefused, match=r"it is torn: at byte \d+ there should be a picture or the end of a GIF"):
        end("gif", torn)
