"""A video is read from one file and nothing else, within limits, whole or not at all."""

from __future__ import annotations

import os
import re
import socket
import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from lvbench import video as reading
from lvbench.errors import ConfigError, VideoRefused
from lvbench.video import Facts, Limits, batches, open_video
from tests.lvbench.films import cut, drifting, film, sound

ESSENCE = bytes.fromhex("060e2b3401020101 0d010301")
"""With which every picture of an MXF begins."""


def read(path: Path, limits: Limits | None = None) -> list[np.ndarray]:
    with open_video(path, limits or Limits()) as video:
        return list(video.frames())


@pytest.mark.parametrize(
    ("name", "codec", "fmt"),
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("a.mkv", "libx264", "yuv420p10le"),
        ("a.webm", "libvpx-vp9", "yuv420p"),
        ("a.avi", "mpeg4", "yuv420p"),
        ("a.mov", "mjpeg", "yuvj420p"),
        ("a.ts", "mpeg2video", "yuv420p"),
        ("a.gif", "gif", "rgb8"),
        ("a.nut", "ffv1", "bgr0"),
    ],
)
def test_a_video_of_any_container_and_codec_is_read(tmp_path, name, codec, fmt):
    path = film(tmp_path / name, drifting(13), codec, fps=25, fmt=fmt)
    with open_video(path, Limits()) as video:
        frames = list(video.frames())
        assert (video.facts.size, video.facts.fps) == ((48, 64), 25)
        assert video.facts.codec in {codec, "h264", "vp9"}
    assert len(frames) == 13
    assert all(frame.shape == (48, 64, 3) and frame.dtype == np.uint8 for frame in frames)


def test_lossless_frames_come_back_as_they_were(tmp_path):
    given = drifting(5)
    assert np.array_equal(read(film(tmp_path / "a.mkv", given, "ffv1", fmt="bgr0")), given)


@pytest.mark.parametrize("name", ["none.mp4", "."])
def test_what_is_no_file_is_refused(tmp_path, name):
    with pytest.raises(VideoRefused, match="it cannot be read"):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty: it has 0 bytes"),
        (b"hello\n" * 50, "it is text and no video"),
        ("hällo ".encode() * 999, "it is text and no video"),
        (b"\0" * 5000, "it is no video of a kind that the decoder knows"),
        (bytes(range(256)) * 40, "it is no video of a kind that the decoder knows"),
        (b"YUV4MPEG2 W0 H48 F16:1 C420\nFRAME\n", "it begins as Y4M but cannot be read as that"),
        (b"\x1a\x45\xdf\xa3\x83abc", "it begins as Matroska but cannot be read as that"),
    ],
)
def test_what_is_no_video_is_refused_for_what_it_is(tmp_path, content, reason):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(VideoRefused, match=reason):
        read(path)


def test_a_file_cut_before_its_index_is_said_to_be(tmp_path):
    with pytest.raises(
        VideoRefused, match=r"it is cut off before its index: it has [\d,]+ bytes and says that it goes"
    ):
        read(cut(film(tmp_path / "a.mp4", drifting(40)), 0.5, "b.mp4"))


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.avi"])
def test_a_file_without_frames_is_said_to_have_none(tmp_path, name):
    with av.open(tmp_path / name, "w") as file:
        stream = file.add_stream("mpeg4", rate=16)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        file.start_encoding()
    with pytest.raises(VideoRefused, match="it has no frames"):
        read(tmp_path / name)


def test_sound_without_pictures_is_refused(tmp_path):
    with pytest.raises(VideoRefused, match="no video stream, only audio"):
        read(sound(tmp_path / "a.mp4"))


def test_a_stream_without_frames_is_refused(tmp_path):
    whole = film(tmp_path / "a.mkv", drifting(40))
    with pytest.raises(VideoRefused):
        read(cut(whole, 0.2, "b.mkv"))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
@pytest.mark.parametrize("share", [0.4, 0.8])
def test_a_file_that_is_cut_off_is_refused(tmp_path, name, share):
    noise = np.random.default_rng(0).integers(0, 255, (60, 48, 64, 3), dtype=np.uint8)
    options = {"movflags": "faststart"} if name == "a.mp4" else {}
    whole = film(tmp_path / name, noise, "mpeg4", options=options)
    assert len(read(whole)) == 60
    with pytest.raises(VideoRefused, match=r"cut off|torn|decoded"):
        read(cut(whole, share, f"b{whole.suffix}"))


def faststart(folder: Path) -> tuple[Path, list[tuple[int, int]]]:
    """A video whose index comes first, and where each of its packets begins and ends."""
    path = film(folder / "a.mp4", drifting(40), "mpeg4", options={"movflags": "faststart"})
    with av.open(str(path)) as file:
        packets = [packet for packet in file.demux(video=0) if packet.size]
    return path, [(packet.pos or 0, (packet.pos or 0) + packet.size) for packet in packets]


def endless(data: bytes) -> bytes:
    """The same file with frames that go on to its end, wherever that is."""
    at = data.rindex(b"mdat")
    return data[: at - 4] + bytes(4) + data[at:]


def test_a_file_cut_between_two_frames_is_refused(tmp_path):
    path, places = faststart(tmp_path)
    path.write_bytes(path.read_bytes()[: places[30][1]])
    with pytest.raises(VideoRefused, match=r"it is cut off: it has [\d,]+ bytes and says that it goes on"):
        read(path)


def test_a_file_with_fewer_frames_than_it_says_is_refused(tmp_path):
    path, places = faststart(tmp_path)
    path.write_bytes(endless(path.read_bytes())[: places[30][1]])
    with pytest.raises(VideoRefused, match="it says 40 frames and has 31"):
        read(path)


def test_a_file_cut_in_its_last_frame_is_refused(tmp_path):
    path, places = faststart(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: places[39][1] - 2])
    with pytest.raises(VideoRefused, match="it is cut off: it has"):
        read(path)
    path.write_bytes(endless(data)[: places[39][1] - 2])
    with pytest.raises(VideoRefused, match="cut off or torn after 40 frames"):
        read(path)


def facts_of(path: Path) -> Facts:
    with open_video(path, Limits()) as video:
        return video.facts


@pytest.mark.parametrize(
    ("name", "codec", "fmt"),
    [
        ("a.mkv", "libx264", "yuv420p"),
        ("a.webm", "libvpx", "yuv420p"),
        ("a.y4m", "wrapped_avframe", "yuv444p"),
        ("a.gif", "gif", "rgb8"),
        ("a.apng", "apng", "rgb24"),
        ("a.avi", "mpeg4", "yuv420p"),
        ("a.nut", "mpeg4", "yuv420p"),
        ("a.ogv", "libvpx", "yuv420p"),
        ("a.ivf", "libvpx", "yuv420p"),
        ("a.ivf", "libvpx-vp9", "yuv420p"),
        ("a.wmv", "wmv2", "yuv420p"),
    ],
)
@pytest.mark.parametrize("share", [0.3, 0.5, 0.9, 0.97])
def test_a_cut_that_the_decoder_does_not_notice_is(tmp_path, name, codec, fmt, share):
    whole = film(tmp_path / name, drifting(60), codec, fmt=fmt)
    assert facts_of(whole).end_known == (name not in {"a.nut", "a.y4m"})
    with pytest.raises(VideoRefused):
        read(cut(whole, share, f"b{whole.suffix}"))


@pytest.mark.parametrize("flags", ["frag_every_frame+empty_moov", "frag_keyframe+empty_moov"])
def test_a_cut_in_the_fragments_of_a_file_is_noticed(tmp_path, flags):
    whole = film(tmp_path / "a.mp4", drifting(60), options={"movflags": flags})
    assert len(read(whole)) == 60
    assert facts_of(whole).end_known
    data, short = whole.read_bytes(), tmp_path / "b.mp4"
    last = data.rindex(b"moof") - 4  # where the last fragment begins: a cut there leaves a file of fewer fragments
    for end in (*range(last + 1, last + 13), last + 150, len(data) - 1):
        short.write_bytes(data[:end])
        with pytest.raises(VideoRefused):
            read(short)


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.ts", "mpeg2video", {}),
        ("a.mkv", "libx264", {"live": "1"}),
        ("a.mp4", "libx264", {"movflags": "frag_every_frame+empty_moov+skip_trailer"}),
        ("a.mpg", "mpeg2video", {}),
        ("a.h264", "libx264", {}),
        ("a.y4m", "wrapped_avframe", {}),
    ],
)
def test_what_does_not_say_where_it_ends_is_known_not_to(tmp_path, name, codec, options):
    path = film(tmp_path / name, drifting(20), codec, options=options, fps=25)
    assert not facts_of(path).end_known
    assert len(read(path)) == 20


def late(path: Path, begin_s: float, last_s: float) -> Path:
    """Write 60 frames, 16 a second, from begin_s on; in a GIF the last of them is shown for last_s."""
    with av.open(path, "w") as file:
        stream = file.add_stream("gif" if path.suffix == ".gif" else "libx264", rate=16)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "rgb8" if path.suffix == ".gif" else "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.codec_context.thread_count = 1  # the same bytes however many cores
        times = [begin_s + at / 16 for at in range(60)]
        for frame, time in zip(drifting(60), times, strict=True):
            shown = av.VideoFrame.from_ndarray(frame, format="rgb24")
            shown.pts, shown.time_base = round(1000 * time), Fraction(1, 1000)
            for packet in stream.encode(shown):
                file.mux(packet)
        for packet in stream.encode(None):
            file.mux(packet)
    if path.suffix == ".gif":
        data = bytearray(path.read_bytes())
        at = data.rindex(b"\x21\xf9\x04") + 4
        data[at : at + 2] = round(100 * last_s).to_bytes(2, "little")
        path.write_bytes(data)
    return path


def test_a_last_frame_that_stays_is_as_long_as_it_says(tmp_path):
    assert len(read(late(tmp_path / "a.gif", 0, 3))) == 60


def test_a_video_that_begins_late_is_whole_if_it_goes_on_as_long_as_it_says(tmp_path):
    whole = late(tmp_path / "a.mkv", 30, 0)
    assert len(read(whole)) == 60
    with pytest.raises(VideoRefused, match="it is cut off: it has"):
        read(cut(whole, 0.5, "b.mkv"))
    data = whole.read_bytes()
    at = data.index(b"\x18\x53\x80\x67") + 4
    whole.write_bytes(data[:at] + b"\x01" + b"\xff" * 7 + data[at + 8 :])  # as long as it may be
    assert len(read(whole)) == 60
    with pytest.raises(VideoRefused, match=r"it is cut off: it says 3\.8 s and has"):
        read(cut(whole, 0.5, "c.mkv"))


def test_a_video_that_ends_before_it_says_is_refused(tmp_path):
    whole = film(tmp_path / "a.mxf", drifting(60), "mpeg2video", fps=25)
    assert len(read(whole)) == 60
    with pytest.raises(VideoRefused, match=r"it is cut off: it has [\d,]+ bytes"):
        read(cut(whole, 0.8, "b.mxf"))
    data = bytearray(whole.read_bytes())
    data[44:52] = bytes(8)  # as if it was not known yet where the footer would be
    whole.write_bytes(data)
    assert len(read(whole)) == 60
    assert not facts_of(whole).end_known
    pictures = [found.start() for found in re.finditer(re.escape(ESSENCE), data)]
    assert len(pictures) == 60
    whole.write_bytes(data[: pictures[48]])
    with pytest.raises(VideoRefused, match=r"it says 2\.4 s and has 1\.9"):
        read(whole)


@pytest.mark.parametrize("codec", ["mpeg4", "mjpeg"])
def test_an_avi_in_which_frames_were_left_out_is_whole_and_slower(tmp_path, codec):
    path = tmp_path / "a.avi"
    with av.open(path, "w") as file:
        stream = file.add_stream(codec, rate=16)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for at, frame in enumerate(drifting(60)):
            shown = av.VideoFrame.from_ndarray(frame, format="rgb24")
            shown.pts, shown.time_base = at + at // 4, Fraction(1, 16)
            file.mux(stream.encode(shown))
        file.mux(stream.encode(None))
    assert len(read(path)) == 60
    assert facts_of(path).fps == pytest.approx(16 * 60 / 74)
    assert len(read(path, Limits(frames=60))) == 60
    data = path.read_bytes()
    at = data.rindex(b"idx1")
    path.write_bytes(data[:at] + b"JUNK" + data[at + 4 :])  # without its index
    assert len(read(path)) == 60


def test_an_avi_whose_last_frame_stays_is_whole_if_its_index_says_so(tmp_path):
    path = film(tmp_path / "a.avi", drifting(60), "mpeg4")
    data = bytearray(path.read_bytes())
    for head, field in ((b"avih", 24), (b"strh", 40)):
        at = data.index(head) + field
        assert data[at : at + 4] == (60).to_bytes(4, "little")
        data[at : at + 4] = (99).to_bytes(4, "little")
    path.write_bytes(data)
    assert len(read(path)) == 60
    at = data.rindex(b"idx1")
    path.write_bytes(data[:at] + b"JUNK" + data[at + 4 :])
    with pytest.raises(VideoRefused, match="it says 99 frames and has 60"):
        read(path)


def trimmed(path: Path, seconds: float) -> Path:
    """The same file with an edit that ends it after so many seconds, as telephones write it."""
    data = bytearray(path.read_bytes())
    units = int.from_bytes(data[data.index(b"mvhd") + 16 :][:4])
    at = data.index(b"elst") + 12
    data[at : at + 4] = round(seconds * units).to_bytes(4)
    other = path.with_name("trimmed.mp4")
    other.write_bytes(data)
    return other


def test_a_video_that_an_edit_made_shorter_is_whole(tmp_path):
    whole = film(tmp_path / "a.mp4", drifting(80), "mpeg4", options={"movflags": "faststart"})
    short = trimmed(whole, 3.0)
    assert np.array_equal(read(short), read(whole)[:48])
    assert facts_of(short).end_known
    with pytest.raises(VideoRefused, match="cut off"):
        read(cut(short, 0.4, "b.mp4"))


def test_what_counts_time_finer_than_frames_has_the_rate_of_its_frames(tmp_path):
    large = [np.pad(frame, ((0, 528), (0, 656), (0, 0))) for frame in drifting(5)]
    path = film(tmp_path / "a.dv", large, "dvvideo", fps=25)
    assert facts_of(path).fps == 25
    assert len(read(path)) == 5
    with pytest.raises(VideoRefused, match="it is cut off"):
        read(cut(path, 0.95, "b.dv"))


@pytest.mark.parametrize(
    ("name", "codec", "fmt"),
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("a.mkv", "libx264", "yuv420p"),
        ("a.avi", "mpeg4", "yuv420p"),
        ("a.gif", "gif", "rgb8"),
        ("a.apng", "apng", "rgb24"),
        ("a.ts", "mpeg2video", "yuv420p"),
        ("a.y4m", "wrapped_avframe", "yuv420p"),
        ("a.ivf", "libvpx", "yuv420p"),
        ("a.ogv", "libvpx", "yuv420p"),
        ("a.wmv", "wmv2", "yuv420p"),
        ("a.mpg", "mpeg2video", "yuv420p"),
    ],
)
@pytest.mark.parametrize("more", [b"\n", b"and a line of text that somebody put there" * 3])
def test_what_follows_a_whole_file_changes_nothing(tmp_path, name, codec, fmt, more):
    path = film(tmp_path / name, drifting(40), codec, fps=25, fmt=fmt)
    whole = read(path)
    path.write_bytes(path.read_bytes() + more)
    assert len(whole) == 40
    assert np.array_equal(read(path), whole)


def test_an_ivf_that_counts_time_or_hidden_frames_is_whole(tmp_path):
    path = film(tmp_path / "a.ivf", drifting(40), "libvpx")
    data, at = bytearray(path.read_bytes()), 32
    for number in range(40):
        data[at + 4 : at + 12] = (number * 3 // 4).to_bytes(8, "little")  # every fourth at the time of the next
        at += 12 + int.from_bytes(data[at : at + 4], "little")
    path.write_bytes(data)
    assert len(read(path)) == 40
    at = 32
    for number in range(40):
        data[at + 4 : at + 12] = (60 * number).to_bytes(8, "little")
        at += 12 + int.from_bytes(data[at : at + 4], "little")
    data[24:28] = (60 * 40).to_bytes(4, "little")
    path.write_bytes(data)
    assert len(read(path)) == 40


def test_frames_of_y4m_may_have_parameters(tmp_path):
    path = film(tmp_path / "a.y4m", drifting(5), "wrapped_avframe")
    whole = read(path)
    path.write_bytes(path.read_bytes().replace(b"FRAME\n", b"FRAME Ip\n"))
    assert np.array_equal(read(path), whole)


def test_a_gif_that_a_bit_makes_shorter_is_refused(tmp_path):
    path = film(tmp_path / "a.gif", drifting(60), "gif", fmt="rgb8")
    data = bytearray(path.read_bytes())
    at = data.rindex(b"\x21\xf9\x04", 0, len(data) // 2)
    data[at] ^= 1 << 3
    path.write_bytes(data)
    with pytest.raises(VideoRefused, match=f"it is torn: at byte {at:,} there should be a picture"):
        read(path)


def test_a_frame_that_the_decoder_knows_to_be_damaged_is_refused(tmp_path):
    path, places = faststart(tmp_path)
    data, (begin, end) = bytearray(path.read_bytes()), places[30]
    for at in range(begin + (end - begin) // 3, end):
        data[at] ^= 0x55
    path.write_bytes(data)
    with pytest.raises(VideoRefused, match="cut off or torn after"):
        read(path)


WHITE, GREY, RED = (235, 128, 128), (126, 128, 128), (81, 90, 240)


@pytest.mark.parametrize("fmt", ["yuv420p", "yuv422p", "yuv444p", "yuvj420p", "yuv420p10le", "yuv444p10le"])
@pytest.mark.parametrize("colour", [WHITE, GREY, RED, (16, 128, 128), (180, 100, 150)])
def test_a_flat_colour_is_that_of_the_formula(tmp_path, fmt, colour):
    deep, full, fmt = fmt.endswith("10le"), fmt.startswith("yuvj"), fmt.replace("yuvj", "yuv")
    frame = av.VideoFrame(64, 48, fmt)
    for plane, level in zip(frame.planes, colour, strict=True):
        level, kind = (4 * level, np.uint16) if deep else (level, np.uint8)
        plane.update(np.full(plane.buffer_size // np.dtype(kind).itemsize, level, kind).tobytes())
    with av.open(tmp_path / "a.mkv", "w") as file:
        stream = file.add_stream("ffv1", rate=16)
        stream.height, stream.width, stream.pix_fmt = 48, 64, fmt
        frame.color_range = stream.codec_context.color_range = 2 if full else 1
        for packet in (*stream.encode(frame), *stream.encode(None)):
            file.mux(packet)
    y, u, v = np.array(colour) - (0, 128, 128)
    if not full:
        y, u, v = (y - 16) * 255 / 219, u * 255 / 224, v * 255 / 224
    formula = np.clip([y + 1.402 * v, y - 0.344136 * u - 0.714136 * v, y + 1.772 * u], 0, 255)  # ITU-R BT.601
    (found,) = read(tmp_path / "a.mkv")
    assert np.abs(found - formula).max() <= 1


def test_the_main_video_is_read_and_not_the_picture_on_the_cover(tmp_path):
    film(tmp_path / "cover.mjpeg", [np.zeros((96, 96, 3), np.uint8)], "mjpeg", fmt="yuvj420p")
    with (
        av.open(tmp_path / "cover.mjpeg") as cover,
        av.open(film(tmp_path / "plain.mkv", drifting(20))) as plain,
        av.open(tmp_path / "a.mkv", "w") as file,
    ):
        streams = [file.add_stream_from_template(source.streams.video[0]) for source in (cover, plain)]
        streams[0].disposition = Disposition.attached_pic
        for source, stream in zip((cover, plain), streams, strict=True):
            for packet in source.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    file.mux(packet)
    assert len(read(tmp_path / "a.mkv")) == 20


def test_a_pipe_is_no_video_and_nobody_waits_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(VideoRefused, match="no regular file"):
        read(tmp_path / "pipe")


@pytest.mark.parametrize("degrees", [0, 90, 180, -90])
def test_a_video_that_says_how_it_was_held_is_read_upright(tmp_path, degrees):
    lying = film(tmp_path / "lying.mp4", drifting(5))
    path = tmp_path / "a.mp4"
    with av.open(str(lying)) as source, av.open(str(path), "w") as turned:
        stream = turned.add_stream_from_template(source.streams.video[0])
        stream.set_display_rotation(degrees)
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                turned.mux(packet)
    with open_video(path, Limits()) as video:
        frames = list(video.frames())
        assert video.facts.size == ((64, 48) if degrees % 180 else (48, 64))
    assert np.array_equal(frames, [np.rot90(frame, degrees // 90) for frame in read(lying)])
    assert all(frame.flags.c_contiguous for frame in frames)


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((1, 0, 0, 1), lambda frame: frame),
        ((-1, 0, 0, -1), lambda frame: frame[::-1, ::-1]),
        ((-1, 0, 0, 1), lambda frame: frame[:, ::-1]),
        ((1, 0, 0, -1), lambda frame: frame[::-1]),
        ((0, 1, -1, 0), lambda frame: np.rot90(frame, -1)),
        ((0, -1, 1, 0), lambda frame: np.rot90(frame)),
        ((0, 1, 1, 0), lambda frame: frame.transpose(1, 0, 2)),
        ((0, -1, -1, 0), lambda frame: np.rot90(frame, 2).transpose(1, 0, 2)),
        ((0.7071, 0.7071, -0.7071, 0.7071), lambda frame: frame),
    ],
)
def test_a_video_that_says_how_it_is_mirrored_is_read_as_it_is_meant(tmp_path, matrix, shown):
    plain = film(tmp_path / "plain.mp4", drifting(5))
    data, (a, b, c, d) = bytearray(plain.read_bytes()), (round(65536 * each) for each in matrix)
    at = data.index(b"tkhd") + 44
    data[at : at + 36] = b"".join(each.to_bytes(4, signed=True) for each in (a, b, 0, c, d, 0, 0, 0, 2**30))
    (tmp_path / "a.mp4").write_bytes(data)
    assert np.array_equal(read(tmp_path / "a.mp4"), [shown(frame) for frame in read(plain)])
    assert facts_of(tmp_path / "a.mp4").size == shown(drifting(1)[0]).shape[:2]


def test_a_frame_of_another_size_is_refused(tmp_path):
    path = tmp_path / "a.mjpeg"
    wide = [frame.repeat(2, axis=1) for frame in drifting(4)]
    parts = [
        film(tmp_path / "b.mjpeg", drifting(4), "mjpeg", fmt="yuvj420p"),
        film(tmp_path / "c.mjpeg", wide, "mjpeg", fmt="yuvj420p"),
    ]
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    with pytest.raises(VideoRefused, match="frame 4 is 128 x 48 in a video of 64 x 48"):
        read(path)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(pixels=48 * 64 - 1), r"64 x 48; a frame may have 3,071 pixels, or raise --max-pixels"),
        (Limits(frames=12), "13 frames; it may have 12, or raise --max-frames"),
        (Limits(seconds=1e-6), r"were not enough; cut it, or raise --max-seconds|cannot be decoded"),
    ],
)
def test_a_video_over_a_limit_is_refused(tmp_path, limits, reason):
    path = film(tmp_path / "a.mp4", drifting(13))
    with pytest.raises(VideoRefused, match=reason):
        read(path, limits)
    assert len(read(path, Limits(pixels=48 * 64, frames=13))) == 13


@pytest.mark.parametrize("pixels", [2**31, 3 * 10**9, 10**30])
def test_a_limit_beyond_what_the_decoder_takes_is_none(tmp_path, pixels):
    assert len(read(film(tmp_path / "a.mp4", drifting(3)), Limits(pixels=pixels))) == 3


def test_more_frames_than_the_file_says_are_refused_when_they_come(tmp_path):
    path = film(tmp_path / "a.ts", drifting(13), "mpeg2video")
    with pytest.raises(VideoRefused, match="more than 5 frames; cut it, or raise --max-frames"):
        read(path, Limits(frames=5))


def test_a_file_that_says_it_is_huge_is_refused_before_it_is_decoded(tmp_path):
    path = film(tmp_path / "a.gif", drifting(3), "gif", fmt="rgb8")
    data = bytearray(path.read_bytes())
    data[6:10] = (20_000).to_bytes(2, "little") * 2
    path.write_bytes(data)
    with pytest.raises(
        VideoRefused, match=r"it says (20000 x 20000|a far larger size, or none); a frame may have 9,437,184 pixels"
    ):
        read(path)


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "mpeg4"), ("a.webm", "libvpx-vp9"), ("a.mpg", "mpeg2video")])
def test_the_size_of_what_is_too_large_is_told_though_the_decoder_was_stopped(tmp_path, name, codec):
    path = film(tmp_path / name, drifting(3), codec, fps=25)
    with pytest.raises(VideoRefused, match=r"it says 64 x 48; a frame may have 3,000 pixels, or raise --max-pixels"):
        read(path, Limits(pixels=3000))


def test_what_its_reader_raises_is_no_fault_of_the_video(tmp_path):
    with pytest.raises(PermissionError), open_video(film(tmp_path / "a.mp4", drifting(3)), Limits()):
        raise PermissionError("the reader's own")


def test_limits_are_above_0_and_such_as_can_be_waited_for():
    with pytest.raises(ConfigError, match="0 frames"):
        Limits(frames=0)
    for seconds in (0.0, float("nan"), float("inf"), 1_000_001.0):
        with pytest.raises(ConfigError, match="of time up to 1,000,000 s"):
            Limits(seconds=seconds)
    assert Limits(seconds=1_000_000.0).seconds == 1_000_000


def test_the_longest_limit_of_time_can_be_waited_for(tmp_path):
    assert len(read(film(tmp_path / "a.mp4", drifting(3)), Limits(seconds=1_000_000.0))) == 3


@pytest.fixture
def secret(tmp_path):
    return film(tmp_path / "secret.mp4", drifting(7))


def playlists(secret: Path, port: int) -> dict[str, str]:
    hls = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n"
    return {
        "concat": f"ffconcat version 1.0\nfile {secret.name}\n",
        "absolute concat": f"ffconcat version 1.0\nfile {secret}\n",
        "hls": hls.format(secret),
        "hls over http": hls.format(f"http://127.0.0.1:{port}/a.ts"),
        "dash": f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period>'
        f'<AdaptationSet mimeType="video/mp4"><Representation id="0" bandwidth="1"><BaseURL>http://127.0.0.1:{port}/'
        '</BaseURL><SegmentList><SegmentURL media="a"/></SegmentList></Representation></AdaptationSet></Period></MPD>',
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
        "a=rtpmap:96 H264/90000\n",
        "smooth svg": f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{secret}"/></svg>',
        "subtitles": f"# VobSub index file, v7\nsize: 64x48\nid: en, index: 0\n{secret}\n",
    }


@pytest.mark.parametrize("kind", sorted(playlists(Path("secret.mp4"), 0)))
@pytest.mark.parametrize("suffix", [".mp4", ".m3u8", ".ffconcat", ".mpd"])
@pytest.mark.parametrize("is_known", [True, False])
def test_no_file_opens_another_file_or_address(tmp_path, secret, monkeypatch, kind, suffix, is_known):
    if not is_known:  # a format that nobody has listed: the other locks hold
        monkeypatch.setattr(reading, "REFERRING", frozenset({"sdp", "rtp"}))
    asked = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        path = tmp_path / f"a{suffix}"
        path.write_text(playlists(secret, server.getsockname()[1])[kind])
        with pytest.raises(VideoRefused):
            read(path, Limits(seconds=5))
        try:
            server.accept()
            asked.set()
        except TimeoutError:
            pass
    assert not asked.is_set()


def test_the_decoder_does_follow_a_reference_if_it_is_let(tmp_path, secret):
    path = tmp_path / "a.mp4"
    path.write_text(playlists(secret, 0)["concat"])
    with av.open(str(path)) as file:  # what the test above is about
        assert sum(1 for _ in file.decode(video=0)) == 7


def test_a_pattern_of_pictures_is_a_name_like_any_other(tmp_path):
    film(tmp_path / "a1.png", drifting(1), "png", fmt="rgb24", options={"update": "1"})
    with pytest.raises(VideoRefused, match="No such file"):
        read(tmp_path / "a%d.png")


@pytest.mark.parametrize(("size", "counts"), [(5, [5, 5, 3]), (1, [1] * 13), (99, [13])])
def test_batches_hold_as_many_frames_as_asked(size, counts):
    given = drifting(13)
    found = list(batches(iter(given), size))
    assert [len(batch) for batch in found] == counts
    assert np.array_equal(np.concatenate(found), given)


def test_batches_of_large_frames_hold_fewer(monkeypatch):
    monkeypatch.setattr(reading, "BATCH_BYTES", 3 * 48 * 64 * 3)
    assert [len(batch) for batch in batches(iter(drifting(7)), 16)] == [3, 3, 1]
    monkeypatch.setattr(reading, "BATCH_BYTES", 10)
    assert [len(batch) for batch in batches(iter(drifting(3)), 16)] == [1, 1, 1]
