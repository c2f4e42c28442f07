"""A frame on its way: forty bytes that never change their meaning, and behind them the picture as it is."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worldsim.errors import ProtocolError
from worldsim.session.wire import CODECS, HEADER, MOST_RUNS, NAMES, Flag, Media, Piece

MEDIA = Media(
    flags=Flag.KEY | Flag.FIRST,
    epoch=0x01020304,
    block=0x11121314,
    frame=0x2122,
    frames=0x3132,
    time_us=0x4142434445464748,
    number=0x51525354,
    action=0x61626364,
    codec="h264",
    width=0x7172,
    height=0x8182,
    payload=b"picture",
)
WRITTEN = bytes.fromhex(
    "01"  # a frame
    "0a"  # ten times four bytes of header
    "0300"  # can be shown without any before it; first of its block
    "04030201"  # epoch
    "14131211"  # block
    "2221"  # frame
    "3231"  # frames
    "4847464544434241"  # microseconds
    "54535251"  # number of the message
    "64636261"  # seq of the action
    "04"  # H.264
    "00"
    "7271"  # width
    "8281"  # height
    "0000"
    "70696374757265"
)
SEEN = replace(MEDIA, seen=((range(-2, 1), True), (range(0x01020304, 0x01020305), False)))
WRITTEN_SEEN = bytes.fromhex(
    "010e"  # fourteen times four bytes of header
    + WRITTEN[2:38].hex()
    + "0200"  # two runs of frames
    "feffffff"  # from frame -2 on
    "03000080"  # three of them, which were retrieved
    "04030201"
    "01000000"
    "70696374757265"
)
RUNS = st.builds(
    lambda first, many, retrieved: (range(first, first + many), retrieved),
    st.integers(-(2**31), 2**31 - 1),
    st.integers(1, 2**31 - 1),
    st.booleans(),
)
U8, U16, U32, U64 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64))


def media() -> st.SearchStrategy[Media]:
    return st.builds(
        Media,
        flags=st.integers(0, 15).map(Flag),
        epoch=U32,
        block=U32,
        frame=U16,
        frames=U16,
        time_us=U64,
        number=U32,
        action=U32,
        codec=st.sampled_from(sorted(CODECS)),
        width=U16,
        height=U16,
        payload=st.binary(max_size=100),
        seen=st.lists(RUNS, max_size=5).map(tuple),
    )


def test_a_frame_is_written_as_it_always_was():
    assert MEDIA.encode().hex() == WRITTEN.hex()


def test_a_frame_is_read_as_it_always_was():
    assert Media.decode(WRITTEN) == MEDIA


def test_what_a_block_saw_stands_behind_the_forty_bytes():
    assert SEEN.encode().hex() == WRITTEN_SEEN.hex()
    assert Media.decode(WRITTEN_SEEN) == SEEN


def test_of_more_runs_than_a_header_has_room_for_the_newest_are_told():
    runs = tuple((range(3 * at, 3 * at + 2), False) for at in range(MOST_RUNS + 5))
    written = replace(MEDIA, seen=runs).encode()
    assert 4 * written[1] + 8 > 4 * 255
    assert Media.decode(written) == replace(MEDIA, seen=runs[5:])


def test_more_runs_than_the_header_is_long_are_refused():
    written = bytearray(WRITTEN_SEEN)
    written[38] = 3
    with pytest.raises(ProtocolError, match="a header of 56 bytes has no room for 3 runs of frames") as caught:
        Media.decode(bytes(written))
    assert (caught.value.code, caught.value.close) == ("bad_media", None)


def test_the_first_frame_of_a_session_is_written_as_it_always_was():
    first = Media(
        flags=Flag.KEY | Flag.FIRST | Flag.LAST,
        epoch=0,
        block=0,
        frame=0,
        frames=1,
        time_us=125_000,
        number=0,
        action=0,
        codec="jpeg",
        width=72,
        height=72,
        payload=b"\xff\xd8",
    )
    assert first.encode().hex() == (
        "010a070000000000000000000000010048e801000000000000000000000000000100480048000000ffd8"
    )


def test_flags_and_codecs_have_the_numbers_of_the_protocol():
    assert {flag.name: flag.value for flag in Flag} == {"KEY": 1, "FIRST": 2, "LAST": 4, "AGAIN": 8, "STILL": 16}
    assert CODECS == {"raw": 0, "jpeg": 1, "h264": 4}
    assert HEADER.size == 40


@given(media())
def test_what_is_written_is_read_back(sent):
    written = sent.encode()
    assert len(written) == 40 + 8 * len(sent.seen) + len(sent.payload)
    assert Media.decode(written) == sent


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_the_picture_is_bytes_whatever_was_read(kind):
    read = Media.decode(kind(WRITTEN))
    assert read == MEDIA
    assert isinstance(read.payload, bytes)


@given(media(), st.integers(1, 235), st.randoms(use_true_random=False))
def test_what_a_later_version_has_in_its_header_is_skipped(sent, units, rng):
    written = bytearray(sent.encode())
    length = 4 * written[1]
    written[1] += units
    later = bytes(written[:length]) + rng.randbytes(4 * units) + bytes(written[length:])
    assert Media.decode(later) == sent


def test_flags_of_a_later_version_do_no_harm():
    later = bytearray(WRITTEN)
    later[2:4] = b"\xf1\xff"
    read = Media.decode(bytes(later))
    assert Flag.KEY in read.flags
    assert Flag.FIRST not in read.flags
    assert replace(read, flags=MEDIA.flags) == MEDIA


@given(media())
def test_bytes_that_mean_nothing_yet_are_ignored(sent):
    written = bytearray(sent.encode())
    written[33] = 0xFF
    assert Media.decode(bytes(written)) == sent


@pytest.mark.parametrize("length", range(40))
def test_a_header_that_was_cut_short_is_refused(length):
    with pytest.raises(ProtocolError, match=r"a frame has 40 bytes of header or more, got ") as caught:
        Media.decode(WRITTEN[:length])
    assert (caught.value.code, caught.value.close) == ("bad_media", None)
    assert str(caught.value).endswith(WRITTEN[: min(length, 8)].hex())


@pytest.mark.parametrize("units", [0, 1, 9, 12, 255])
def test_a_header_that_cannot_be_so_long_is_refused(units):
    written = bytes([1, units]) + WRITTEN[2:]
    with pytest.raises(ProtocolError, match=f"a frame has 40 bytes of header or more, got 01{units:02x}0300"):
        Media.decode(written)


@pytest.mark.parametrize("first", [0, 2, 0x7B, 0xFF])
def test_what_is_no_frame_is_refused(first):
    with pytest.raises(ProtocolError, match=f"got {first:02x}0a0300"):
        Media.decode(bytes([first]) + WRITTEN[1:])


@pytest.mark.parametrize("codec", [2, 3, 5, 127, 255])
def test_a_codec_that_nobody_knows_is_refused(codec):
    assert codec not in NAMES
    says = f"no codec has the number {codec}; known: {{0: 'raw', 1: 'jpeg', 4: 'h264'}}"
    with pytest.raises(ProtocolError, match=re.escape(says)):
        Media.decode(WRITTEN[:32] + bytes([codec]) + WRITTEN[33:])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80) | st.binary(min_size=38, max_size=60).map(lambda rest: b"\x01\x0a" + rest))
def test_no_bytes_do_more_than_be_refused(message):
    try:
        read = Media.decode(message)
    except ProtocolError:
        return
    assert read.payload == message[4 * message[1] :]


@given(offset=st.integers(0, 2**40), size=st.integers(0, 256), more=st.integers(0, 2**40), pad=st.integers(0, 3))
def test_a_piece_of_a_film_is_read_as_it_was_written_whatever_a_later_header_adds(offset, size, more, pad):
    piece = Piece(offset=offset, total=offset + size + more, payload=bytes(range(256))[:size])
    message = piece.encode()
    assert Piece.decode(message) == piece
    assert message[0] == 2
    assert bool(int.from_bytes(message[2:4], "little") & 4) is piece.is_last is (more == 0)
    longer = message[:1] + bytes([6 + pad]) + message[2:24] + bytes(4 * pad) + message[24:]
    assert Piece.decode(longer) == piece


@pytest.mark.parametrize(
    "message", [b"", b"\x02" * 23, b"\x01\x06" + bytes(22), b"\x02\x05" + bytes(22), b"\x02\x07" + bytes(22)]
)
def test_what_is_no_piece_is_refused(message):
    with pytest.raises(ProtocolError, match="a piece has 24 bytes of header or more"):
        Piece.decode(message)
