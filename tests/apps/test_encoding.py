"""Frames as bytes: what a viewer unpacks is what was made, and a client's picture cannot hurt whoever unpacks it."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator

import av
import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worldsim.errors import ConfigError, ProtocolError
from worldsim.pictures import fit_picture
from worldsim.session.wire import CODECS
from worldsim_apps import encoding as module
from worldsim_apps.encoding import ENCODERS, LARGEST_PX, H264Encoder, JpegEncoder, RawEncoder, picture_of

FPS = 8
SIZES = [(6, 10), (1, 1), (7, 5), (72, 72), (120, 160), (256, 300), (257, 301)]
COLOURS = {
    "red": (230, 20, 20),
    "green": (20, 200, 20),
    "blue": (20, 20, 230),
    "yellow": (220, 220, 20),
    "dark": (12, 16, 20),
    "white": (255, 255, 255),
    "black": (0, 0, 0),
}


def plain(colour: tuple[int, int, int], size: tuple[int, int] = (6, 10), frames: int = 1) -> np.ndarray:
    """Frames of one colour, [frames, H, W, 3]."""
    return np.broadcast_to(np.uint8(colour), (frames, *size, 3)).copy()


def scene(seed: int, size: tuple[int, int], frames: int = 1) -> np.ndarray:
    """Frames of large tiles in random colours, [frames, H, W, 3]."""
    height, width = size
    tiles = np.random.default_rng(seed).integers(0, 256, (frames, -(-height // 8), -(-width // 8), 3), np.uint8)
    return tiles.repeat(8, 1).repeat(8, 2)[:, :height, :width]


def test_h264_doubles_what_is_small_only_where_it_fits_and_says_what_is_too_large() -> None:
    for size, shown in (((16, 8_192), (16_384, 32)), ((16, 8_194), (8_194, 16))):
        encoder = H264Encoder(size, FPS)
        assert encoder.size == shown
        assert encoder.encode(np.zeros((1, *size, 3), np.uint8))[0]
    for size in ((16, 16_386), (9, 8_193)):
        with pytest.raises(ConfigError, match=r"too large for H\.264, which takes at most 16,384 a side"):
            H264Encoder(size, FPS)


def error(shown: np.ndarray, made: np.ndarray) -> float:
    assert shown.shape == made.shape
    return float(abs(shown.astype(int) - made.astype(int)).mean())


def nals(unit: bytes) -> list[bytes]:
    """The parts of an access unit in Annex B, each without its start code."""
    starts, at = [], unit.find(b"\x00\x00\x01")
    while at >= 0:
        starts.append(at)
        at = unit.find(b"\x00\x00\x01", at + 3)
    assert unit[: starts[0]] in (b"", b"\x00")
    return [unit[start + 3 : end] for start, end in zip(starts, [*starts[1:], len(unit)], strict=True)]


def kinds(unit: bytes) -> list[int]:
    """1 a picture that needs those before it, 5 an IDR picture, 6 remarks, 7 and 8 parameter sets."""
    return [nal[0] & 31 for nal in nals(unit)]


def seen(units: list[bytes]) -> np.ndarray:
    """What a viewer sees of H.264: every unit given by itself, [frames, H, W, 3]."""
    context = av.CodecContext.create("h264", "r")
    context.thread_count = 1
    frames = []
    for unit in units:
        frames += context.decode(av.Packet(unit))
    frames += context.decode(None)
    return np.stack([frame.to_ndarray(format="rgb24") for frame in frames])


def enlarged(frames: np.ndarray, encoder: H264Encoder) -> np.ndarray:
    scale = encoder.size[0] // frames.shape[2]
    return frames.repeat(scale, 1).repeat(scale, 2)


def test_every_codec_of_the_protocol_has_an_encoder_of_its_name():
    assert ENCODERS.keys() == CODECS.keys()
    for name, encoder in ENCODERS.items():
        assert encoder((6, 10), FPS).codec == name


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("codec", ENCODERS)
@pytest.mark.parametrize("frames", [1, 4])
def test_a_frame_of_any_size_is_one_message(codec, size, frames):
    encoder = ENCODERS[codec](size, FPS)
    for block in range(3):
        messages = encoder.encode(scene(block, size, frames))
        assert len(messages) == frames
        assert all(type(message) is bytes and message for message in messages)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("codec", ENCODERS)
def test_what_is_shown_is_the_world_or_a_whole_factor_larger(codec, size):
    width, height = ENCODERS[codec](size, FPS).size
    assert width % size[1] == height % size[0] == 0
    assert width // size[1] == height // size[0] == (2 if codec == "h264" and size != (256, 300) else 1)


@pytest.mark.parametrize("codec", ENCODERS)
def test_the_same_frames_give_the_same_bytes(codec):
    blocks = [scene(seed, (72, 72), 2) for seed in range(4)]
    one, other = ENCODERS[codec]((72, 72), FPS), ENCODERS[codec]((72, 72), FPS)
    assert [one.encode(block) for block in blocks] == [other.encode(block.copy()) for block in blocks]


@pytest.mark.parametrize("codec", ENCODERS)
def test_frames_that_lie_in_memory_in_another_order_give_the_same_bytes(codec):
    frames = scene(3, (72, 80), 2)
    turned = np.asfortranarray(frames[:, ::-1])[:, ::-1]
    assert not turned.flags.c_contiguous
    assert ENCODERS[codec]((72, 80), FPS).encode(turned) == ENCODERS[codec]((72, 80), FPS).encode(frames)


@pytest.mark.parametrize("codec", ENCODERS)
def test_encoding_leaves_the_frames_as_they_were(codec):
    frames = scene(1, (6, 10), 2)
    before = frames.copy()
    frames.flags.writeable = False
    ENCODERS[codec]((6, 10), FPS).encode(frames)
    assert (frames == before).all()


@pytest.mark.parametrize("size", SIZES)
def test_raw_loses_nothing(size):
    frames = np.random.default_rng(0).integers(0, 256, (3, *size, 3), np.uint8)
    encoder = RawEncoder(size, FPS)
    assert encoder.all_keys
    assert [np.frombuffer(message, np.uint8).tolist() for message in encoder.encode(frames)] == [
        frame.ravel().tolist() for frame in frames
    ]


def unpacked(message: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(message, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


@pytest.mark.parametrize("size", SIZES)
def test_a_jpeg_is_close_to_what_was_made(size):
    frames = scene(5, size, 2)
    encoder = JpegEncoder(size, FPS)
    assert encoder.all_keys
    for message, frame in zip(encoder.encode(frames), frames, strict=True):
        assert message.startswith(b"\xff\xd8\xff")
        assert message.endswith(b"\xff\xd9")
        assert error(unpacked(message), frame) < 4


def test_even_noise_is_about_the_same_as_a_jpeg():
    frames = np.random.default_rng(0).integers(0, 256, (1, 72, 72, 3), np.uint8)
    (message,) = JpegEncoder((72, 72), FPS).encode(frames)
    assert error(unpacked(message), frames[0]) < 12


@pytest.mark.parametrize("colour", COLOURS.values(), ids=COLOURS)
def test_colours_stay_what_they_are_as_a_jpeg(colour):
    (message,) = JpegEncoder((6, 10), FPS).encode(plain(colour))
    assert abs(unpacked(message).astype(int) - colour).max() <= 4


def test_single_red_pixels_keep_their_colour_as_a_jpeg():
    """Colours are kept at full resolution: worlds are drawn in few pixels."""
    frames = plain((20, 20, 230), (72, 72))
    frames[0, ::3, ::3] = (230, 20, 20)
    (message,) = JpegEncoder((72, 72), FPS).encode(frames)
    assert abs(unpacked(message)[::3, ::3].astype(int) - (230, 20, 20)).mean() < 12


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("frames", [1, 4])
def test_each_block_of_h264_begins_with_an_idr_picture_and_its_parameter_sets(size, frames):
    encoder = H264Encoder(size, FPS)
    assert not encoder.all_keys
    for block in range(5):
        first, *others = [kinds(unit) for unit in encoder.encode(scene(block, size, frames))]
        assert [kind for kind in first if kind != 6] == [7, 8, 5]
        assert others == [[1]] * (frames - 1)


@pytest.mark.parametrize("size", [(6, 10), (120, 160), (480, 640)])
def test_each_message_of_h264_is_exactly_one_access_unit(size):
    """One picture: one part of it that begins at its first macroblock, and no part of any other."""
    encoder = H264Encoder(size, FPS)
    for block in range(3):
        for unit in encoder.encode(scene(block, size, 3)):
            pictures = [nal for nal in nals(unit) if nal[0] & 31 in (1, 5)]
            assert [nal[1] >> 7 for nal in pictures] == [1]


def test_h264_is_of_the_simplest_profile_that_every_viewer_unpacks():
    (unit,) = H264Encoder((72, 72), FPS).encode(scene(0, (72, 72)))
    (parameters,) = [nal for nal in nals(unit) if nal[0] & 31 == 7]
    assert parameters[1] == 66


@pytest.mark.parametrize("size", SIZES)
def test_h264_is_close_to_what_was_made_and_in_order(size):
    encoder = H264Encoder(size, FPS)
    blocks = [scene(seed, size, 3) for seed in range(4)]
    shown = seen([unit for block in blocks for unit in encoder.encode(block)])
    made = enlarged(np.concatenate(blocks), encoder)
    assert len(shown) == len(made) == 12
    for at, frame in enumerate(shown):
        assert error(frame, made[at]) < 8


@pytest.mark.parametrize("colour", COLOURS.values(), ids=COLOURS)
def test_colours_stay_what_they_are_as_h264(colour):
    shown = seen(H264Encoder((6, 10), FPS).encode(plain(colour, frames=3)))
    assert shown.shape == (3, 12, 20, 3)
    assert abs(shown.astype(int) - colour).max() <= 6


def test_a_viewer_of_h264_may_begin_with_any_block():
    size = (72, 72)
    encoder = H264Encoder(size, FPS)
    blocks = [scene(seed, size, 3) for seed in range(6)]
    units = [encoder.encode(block) for block in blocks]
    for first in range(6):
        shown = seen([unit for block in units[first:] for unit in block])
        made = enlarged(np.concatenate(blocks[first:]), encoder)
        assert len(shown) == len(made)
        assert max(map(error, shown, made)) < 6


def test_a_viewer_of_h264_may_miss_blocks():
    size = (72, 72)
    encoder = H264Encoder(size, FPS)
    blocks = [scene(seed, size, 2) for seed in range(9)]
    units = [encoder.encode(block) for block in blocks]
    shown = seen([unit for block in units[::4] for unit in block])
    assert max(map(error, shown, enlarged(np.concatenate(blocks[::4]), encoder))) < 6


def test_many_blocks_of_h264_stay_in_order():
    """Longer than a second of any kind: nothing in the stream depends on how long it is."""
    encoder = H264Encoder((6, 10), FPS)
    shown = seen([unit for at in range(1_200) for unit in encoder.encode(plain((at % 200 + 20,) * 3))])
    assert len(shown) == 1_200
    assert max(abs(frame.mean() - at % 200 - 20) for at, frame in enumerate(shown)) < 3


SIZE = (6, 10)
FULL_COLOUR = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)


def packed(ending: str, pixels: np.ndarray, *options: int) -> bytes:
    """A PNG or JPEG of those pixels, whose colours come in the order red, green, blue."""
    turned = pixels if pixels.ndim == 2 else pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    return cv2.imencode(ending, turned, options)[1].tobytes()


@pytest.mark.parametrize("ending", [".png", ".jpg"])
@pytest.mark.parametrize("colour", COLOURS.values(), ids=COLOURS)
def test_the_colours_of_a_picture_are_those_of_the_frame(ending, colour):
    frame = picture_of(packed(ending, plain(colour)[0]), SIZE)
    assert (frame.dtype, frame.shape) == (np.uint8, (6, 10, 3))
    assert abs(frame.astype(int) - colour).max() <= 4


def test_a_png_of_the_right_size_comes_through_as_it_is():
    pixels = np.random.default_rng(0).integers(0, 256, (6, 10, 3), np.uint8)
    assert (picture_of(packed(".png", pixels), SIZE) == pixels).all()


@pytest.mark.parametrize("ending", [".png", ".jpg"])
@pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1), (12, 20), (3, 5), (1280, 1), (1, 1280), (719, 1279)])
def test_of_a_picture_of_any_size_the_middle_is_made_to_fit(ending, size):
    pixels = plain((10, 120, 240), size)[0]
    pixels[size[0] // 2 :] = (240, 120, 10)
    frame = picture_of(packed(ending, pixels, *FULL_COLOUR), SIZE)
    assert frame.shape == (6, 10, 3)
    assert abs(frame.astype(int) - fit_picture(pixels, SIZE)[0]).max() <= 4


@pytest.mark.parametrize(
    "data",
    [
        packed(".png", plain((90, 90, 90))[0, ..., 0]),
        packed(".png", np.dstack([plain((90, 90, 90))[0], np.full(SIZE, 40, np.uint8)])),
        packed(".png", plain((90, 90, 90))[0].astype(np.uint16) * 257),
        packed(".jpg", plain((90, 90, 90))[0, ..., 0]),
        packed(".jpg", plain((90, 90, 90))[0], cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        packed(".jpg", plain((90, 90, 90))[0], cv2.IMWRITE_JPEG_RST_INTERVAL, 1),
    ],
    ids=["grey PNG", "transparent PNG", "deep PNG", "grey JPEG", "progressive JPEG", "JPEG with restarts"],
)
def test_every_kind_of_png_and_jpeg_is_read(data):
    frame = picture_of(data, SIZE)
    assert frame.shape == (6, 10, 3)
    assert abs(frame.astype(int) - 90).max() <= 2


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    return len(body).to_bytes(4) + kind + body + zlib.crc32(kind + body).to_bytes(4)


def png(width: int, height: int, *more: bytes) -> bytes:
    """The beginning of a PNG that says it has that size, and chunks behind it."""
    header = chunk(b"IHDR", width.to_bytes(4) + height.to_bytes(4) + b"\x08\x02\x00\x00\x00")
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more)


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2) + body


def frame_header(width: int, height: int) -> bytes:
    """What says in a JPEG how large its picture is."""
    return b"\x08" + height.to_bytes(2) + width.to_bytes(2) + b"\x03\x01\x11\x00\x02\x11\x01\x03\x11\x01"


def jpeg(width: int, height: int, *before: bytes, marker: int = 0xC0) -> bytes:
    """The beginning of a JPEG that says it has that size."""
    return b"\xff\xd8" + b"".join(before) + segment(marker, frame_header(width, height)) + bytes(40)


IDAT = chunk(b"IDAT", zlib.compress(bytes(1 << 20)))
GOOD_PNG, GOOD_JPEG = packed(".png", scene(0, (20, 30))[0]), packed(".jpg", scene(0, (20, 30))[0])
BOMBS = {
    "PNG of 30,000 a side": png(30_000, 30_000, IDAT, chunk(b"IEND")),
    "PNG header alone": png(30_000, 30_000),
    "PNG that is one too wide": png(LARGEST_PX + 1, 1, IDAT),
    "PNG that is one too high": png(1, LARGEST_PX + 1, IDAT),
    "PNG of all that fits the numbers": png(2**32 - 1, 2**32 - 1, IDAT),
    "PNG of negative size": png(2**31, 2**31, IDAT),
    "PNG of no width": png(0, 10, IDAT),
    "PNG of no height": png(10, 0, IDAT),
    "JPEG of 65,535 a side": jpeg(65_535, 65_535),
    "JPEG that is one too wide": jpeg(LARGEST_PX + 1, 1),
    "JPEG that is one too high": jpeg(1, LARGEST_PX + 1),
    "JPEG of no width": jpeg(0, 10),
    "JPEG that says its height later": jpeg(10, 0),
    "JPEG behind remarks": jpeg(65_535, 65_535, segment(0xE0, b"JFIF\x00" + bytes(9)), segment(0xFE, bytes(50_000))),
    "progressive JPEG": jpeg(65_535, 65_535, marker=0xC2),
    "arithmetic JPEG": jpeg(65_535, 65_535, marker=0xC9),
    "lossless JPEG": jpeg(65_535, 65_535, marker=0xC3),
    "JPEG behind a filling byte": jpeg(65_535, 65_535, b"\xff\xff\xff"),
    "JPEG with a small frame in a remark": jpeg(65_535, 65_535, segment(0xFE, segment(0xC0, frame_header(8, 8)))),
}


@pytest.fixture
def unpacking_fails(monkeypatch):
    def unpack(*_: object) -> None:
        raise AssertionError("it was unpacked")

    monkeypatch.setattr(module.cv2, "imdecode", unpack)


@pytest.mark.usefixtures("unpacking_fails")
@pytest.mark.parametrize("data", BOMBS.values(), ids=BOMBS)
def test_a_picture_that_says_it_is_too_large_or_nothing_is_not_unpacked(data):
    with pytest.raises(ProtocolError, match=r"an image has 1 to 1280 pixels a side, this one says \d+ x \d+") as caught:
        picture_of(data, SIZE)
    assert (caught.value.code, caught.value.close) == ("bad_image", None)


HIDDEN = {
    "behind a marker without a length": b"\xff\x01",
    "behind a restart": b"\xff\xd0",
    "behind a second beginning": b"\xff\xd8",
    "behind an end": b"\xff\xd9",
    "behind the pixels": b"\xff\xda",
    "behind a zero": b"\xff\x00",
    "behind a frame of no kind": b"\xff\xc8",
    "behind a reserved marker": b"\xff\x02",
}


@pytest.mark.usefixtures("unpacking_fails")
@pytest.mark.parametrize("marker", HIDDEN.values(), ids=HIDDEN)
def test_a_jpeg_cannot_show_a_small_frame_to_us_and_a_large_one_to_whoever_unpacks_it(marker):
    """A reader that takes two bytes behind the marker for a length jumps over the frame that others see."""
    large = segment(0xC0, frame_header(20_000, 20_000))
    with pytest.raises(ProtocolError, match="an image is a PNG or a JPEG; this is neither"):
        picture_of(jpeg(16, 16, marker + (len(large) + 2).to_bytes(2) + large), SIZE)


NEITHER = {
    "nothing": b"",
    "a byte": b"\x00",
    "zeros": bytes(1_000),
    "text": b"no picture",
    "GIF": b"GIF89a\x0a\x00\x06\x00\x80\x00\x00" + bytes(60),
    "BMP": packed(".bmp", plain((1, 2, 3))[0]),
    "TIFF": packed(".tiff", plain((1, 2, 3))[0]),
    "WebP": packed(".webp", plain((1, 2, 3))[0]),
    "PPM": packed(".ppm", plain((1, 2, 3))[0]),
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>',
    "signature of a PNG": GOOD_PNG[:8],
    "half a header of a PNG": GOOD_PNG[:14],
    "PNG with another first chunk": GOOD_PNG[:8] + chunk(b"tEXt", b"x\x00y") + GOOD_PNG[8:],
    "two bytes of a JPEG": GOOD_JPEG[:2],
    "JPEG up to its frame": GOOD_JPEG[: GOOD_JPEG.index(b"\xff\xc0") + 8],
    "JPEG without a frame": b"\xff\xd8" + segment(0xFE, b"x") * 9 + b"\xff\xd9",
    "JPEG with a length of 0": b"\xff\xd8\xff\xe0\x00\x00" + GOOD_JPEG[2:],
    "JPEG with a length of 1": b"\xff\xd8\xff\xe0\x00\x01" + GOOD_JPEG[2:],
    "JPEG behind a byte": b"\x00" + GOOD_JPEG,
    "JPEG with a byte between": b"\xff\xd8\x00" + GOOD_JPEG[2:],
    "filling bytes alone": b"\xff\xd8" + b"\xff" * 10_000,
}


@pytest.mark.usefixtures("unpacking_fails")
@pytest.mark.parametrize("data", NEITHER.values(), ids=NEITHER)
def test_what_is_neither_png_nor_jpeg_is_not_unpacked(data):
    with pytest.raises(ProtocolError, match="an image is a PNG or a JPEG; this is neither") as caught:
        picture_of(data, SIZE)
    assert (caught.value.code, caught.value.close) == ("bad_image", None)


@pytest.mark.usefixtures("unpacking_fails")
@pytest.mark.parametrize(
    "data",
    [
        png(30, 20, (2**32 - 1).to_bytes(4) + b"IDAT" + bytes(20)),
        png(30, 20, (2**31 - 1).to_bytes(4) + b"tEXt" + bytes(20)),
        png(30, 20, b"\x00"),
        GOOD_PNG[:-1],
        GOOD_PNG + b"\x00",
    ],
    ids=["most of all", "most of what is allowed", "no whole chunk", "one byte short", "one byte more"],
)
def test_a_png_that_says_a_chunk_is_longer_than_what_is_there_is_not_unpacked(data):
    with pytest.raises(ProtocolError, match="that image is torn; send a whole PNG or JPEG"):
        picture_of(data, SIZE)


def test_of_a_png_nothing_is_unpacked_but_its_one_picture(monkeypatch):
    """Animations, profiles and remarks are left to nobody."""
    unpack, given_to = cv2.imdecode, []

    def note(data: np.ndarray, *options: int) -> np.ndarray:
        given_to.append(data.tobytes())
        return unpack(data, *options)

    monkeypatch.setattr(module.cv2, "imdecode", note)
    control = (30).to_bytes(4) + (20).to_bytes(4) + bytes(8) + b"\x00\x0a\x03\xe8\x00\x00"
    first = chunk(b"acTL", (2).to_bytes(4) + bytes(4)) + chunk(b"fcTL", bytes(4) + control)
    second = chunk(b"fcTL", (1).to_bytes(4) + control) + chunk(b"fdAT", bytes(4) + bytes(10))
    more = chunk(b"iCCP", b"x\x00\x00" + zlib.compress(bytes(1 << 16))) + chunk(b"zTXt", b"y") + chunk(b"eXIf", b"z")
    animated = GOOD_PNG[:33] + first + more + GOOD_PNG[33:-12] + second + GOOD_PNG[-12:]
    assert (picture_of(animated, (20, 30)) == scene(0, (20, 30))[0]).all()
    assert given_to == [GOOD_PNG]


def torn() -> Iterator[bytes]:
    rng = random.Random(0)
    pixels = rng.randbytes(500)
    yield png(30, 20, chunk(b"IDAT", zlib.compress(pixels)), chunk(b"IEND"))
    yield png(30, 20, chunk(b"IDAT", pixels), chunk(b"IEND"))
    yield png(30, 20, chunk(b"IEND"))
    yield png(30, 20)
    yield jpeg(30, 20)
    yield GOOD_JPEG[: GOOD_JPEG.index(b"\xff\xda")]
    yield jpeg(30, 20) + GOOD_JPEG


@pytest.mark.parametrize("data", list(torn()), ids=lambda data: f"{len(data)} bytes")
def test_a_torn_picture_is_refused(data):
    with pytest.raises(ProtocolError, match="that image is torn; send a whole PNG or JPEG") as caught:
        picture_of(data, SIZE)
    assert (caught.value.code, caught.value.close) == ("bad_image", None)


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from([GOOD_PNG, GOOD_JPEG]), st.integers(0, 2**32))
def test_a_garbled_picture_does_no_more_than_be_refused(whole, seed):
    rng, data = random.Random(seed), bytearray(whole)
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(2, rng.choice([60, len(data) - 20]))
        data[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
    try:
        frame = picture_of(bytes(data), SIZE)
    except ProtocolError:
        return
    assert (frame.dtype, frame.shape) == (np.uint8, (6, 10, 3))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8", b"\xff\xd8\xff", GOOD_PNG[:8], GOOD_PNG[:33]]))
def test_no_bytes_do_more_than_be_refused(data, beginning):
    with pytest.raises(ProtocolError):
        picture_of(beginning + data, SIZE)


def scans(count: int) -> bytes:
    """A progressive JPEG that says it goes over itself so many times."""
    whole = cv2.imencode(".jpg", np.zeros((1_280, 1_280, 3), np.uint8), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    last = whole.rindex(b"\xff\xda")
    return whole[:last] + whole[last:-2] * count + whole[-2:]


def test_a_jpeg_that_goes_over_itself_again_and_again_is_refused_before_it_is_unpacked(monkeypatch):
    assert picture_of(scans(1), (72, 72)).shape == (72, 72, 3)
    monkeypatch.setattr(cv2, "imdecode", None)
    for count in (16, 2_000):
        with pytest.raises(ProtocolError, match="a JPEG has at most 16 scans here"):
            picture_of(scans(count), (72, 72))
