"""A video file plays at any moment: closed, cut off by a crash, or stopped by a full disk."""

from __future__ import annotations

import errno
import subprocess
import sys
from io import BytesIO, FileIO
from itertools import groupby
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from worldsim.errors import ConfigError, MissingDependency, ShapeError, VideoError
from worldsim.runtime.video import VideoWriter, fits_h264, movie, shown_scale

SIZE = (9, 13)
FPS = 8

INTERRUPTED = """
import os, resource, sys
import numpy as np
from worldsim.runtime.video import VideoWriter

path, limit, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
writer = VideoWriter(path, size=(9, 13), fps=8, scale=16)
for frame in np.random.default_rng(5).integers(0, 256, (count, 1, 9, 13, 3), dtype=np.uint8):
    writer.write(frame, {"KeyA"})
if limit:
    writer.close()
os._exit(9)
"""


def noise(frames: int, seed: int = 5) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (frames, *SIZE, 3), dtype=np.uint8)


def decode(path: Path) -> tuple[NDArray[np.uint8], float]:
    with av.open(path) as file:
        stream = file.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(stream)]
        assert stream.average_rate is not None
        return np.stack(frames), float(stream.average_rate)


def cues(path: Path) -> list[tuple[str, float, float]]:
    """Text, beginning and end in seconds of what the subtitles say; cues of equal text that touch are one.

    A cue ends where the next begins: not every FFmpeg tells how long one in a fragment is.
    """
    with av.open(path) as file:
        (stream,) = file.streams.subtitles
        assert stream.codec_context.name == "mov_text"
        packets = [packet for packet in file.demux(stream) if packet.size]
        assert stream.time_base is not None
        times = [float(packet.pts * stream.time_base) for packet in packets if packet.pts is not None]
    texts = [bytes(packet)[2:].decode() for packet in packets]
    assert [int.from_bytes(bytes(packet)[:2], "big") for packet in packets] == [len(t.encode()) for t in texts]
    found: list[tuple[str, float, float]] = []
    for text, begin, end in zip(texts, times, [*times[1:], len(decode(path)[0]) / FPS], strict=True):
        if found and found[-1][0] == text:
            begin = found.pop()[1]
        found.append((text, begin, end))
    return [cue for cue in found if cue[0]]


def write_in_another_process(path: Path, *, limit_bytes: int, frames: int) -> str:
    arguments = [str(path), str(limit_bytes), str(frames)]
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, *arguments], capture_output=True, text=True, timeout=50, check=False
    )
    return done.stderr


def test_every_frame_comes_back_at_its_rate_enlarged_without_smoothing(tmp_path):
    frames = noise(21)
    path = tmp_path / "new" / "folder" / "walk.mp4"
    with VideoWriter(path, size=SIZE, fps=FPS, scale=16) as writer:
        writer.write(frames[:1])
        writer.write(frames[1:1])
        writer.write(frames[1:])
        assert writer.frames == 21
    shown, fps = decode(path)
    assert fps == FPS
    assert shown.shape == (21, 9 * 16, 13 * 16, 3)
    squares = shown.reshape(21, 9, 16, 13, 16, 3)
    middles = squares[:, :, 4:12, :, 4:12]  # chroma is stored at half size and bleeds over the edges of a square
    error = np.abs(middles.astype(int) - frames[:, :, None, :, None])
    assert error.mean() < 3
    assert error.max() < 24
    assert np.ptp(middles, axis=(2, 4)).mean() < 6


def test_the_file_declares_the_colours_it_was_encoded_with(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", size=SIZE, fps=FPS, scale=2) as writer:
        writer.write(noise(1))
    with av.open(tmp_path / "a.mp4") as file:
        context = file.streams.video[0].codec_context
        assert (context.colorspace, context.color_range, context.pix_fmt) == (1, 1, "yuv420p")


def test_every_second_begins_with_a_key_frame(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", size=SIZE, fps=FPS, scale=2) as writer:
        writer.write(np.repeat(noise(1), 30, axis=0))
    with av.open(tmp_path / "a.mp4") as file:
        packets = [packet for packet in file.demux(file.streams.video[0]) if packet.size]
        keys = [at for at, packet in enumerate(packets) if packet.is_keyframe]
    assert keys[0] == 0
    assert max(np.diff([*keys, 30])) <= FPS


def test_equal_frames_make_equal_files(tmp_path):
    for name in ("a.mp4", "b.mp4"):
        with VideoWriter(tmp_path / name, size=SIZE, fps=FPS, scale=4) as writer:
            writer.write(noise(11))
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def says_its_end(path: Path) -> bool:
    """Whether its last box is an index of fragments, which ends with how long it is."""
    data = path.read_bytes()
    at = len(data) - int.from_bytes(data[-4:])
    index = data[at:]
    return index[4:8] == b"mfra" and index[:4] == data[-4:] and index[8:16] == b"\0\0\0\x10mfro"


def test_a_file_that_was_closed_says_that_it_ends_and_one_that_grows_does_not(tmp_path):
    path = tmp_path / "a.mp4"
    with VideoWriter(path, size=SIZE, fps=FPS, scale=2) as writer:
        writer.write(noise(21), {"KeyA"})
        assert not says_its_end(path)
    assert says_its_end(path)
    assert ends_with_a_whole_box(path.read_bytes())
    assert (len(decode(path)[0]), cues(path)) == (21, [("KeyA", 0, 21 / FPS)])


def test_a_video_without_frames_is_still_a_video(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", size=SIZE, fps=FPS, scale=2):
        pass
    assert says_its_end(tmp_path / "a.mp4")
    with av.open(tmp_path / "a.mp4") as file:
        assert [*file.decode(file.streams.video[0])] == []


def test_an_error_inside_the_block_keeps_what_was_written(tmp_path):
    def interrupted() -> None:
        with VideoWriter(tmp_path / "a.mp4", size=SIZE, fps=FPS, scale=2) as writer:
            writer.write(noise(11))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(decode(tmp_path / "a.mp4")[0]) == 11


def test_what_a_killed_process_wrote_plays_but_for_its_last_second(tmp_path):
    write_in_another_process(tmp_path / "a.mp4", limit_bytes=0, frames=21)
    safe = len(decode(tmp_path / "a.mp4")[0])
    assert 21 - FPS <= safe <= 21
    assert not says_its_end(tmp_path / "a.mp4")
    assert cues(tmp_path / "a.mp4") == [("KeyA", 0, safe / FPS)]


def test_a_full_disk_is_told_with_what_is_safe_and_that_part_plays(tmp_path):
    path = tmp_path / "a.mp4"
    limit = 250_000
    said = write_in_another_process(path, limit_bytes=limit, frames=200).splitlines()[-1]
    safe = len(decode(path)[0])
    assert 0 < safe < 200
    assert path.stat().st_size < limit
    assert said == (
        f"worldsim.errors.VideoError: {path}: File too large; its first {safe} frames ({safe / FPS:.1f} s) "
        "are safe and play; free some space or write elsewhere"
    )


class SmallDisk(FileIO):
    """A file on a disk with room for 20,000 bytes; the write that reaches its end is a short one, as real ones are."""

    def write(self, data: Any, /) -> int:
        room = 20_000 - self.tell()
        if room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data[:room])


def test_after_a_full_disk_the_writer_is_closed_and_the_torn_second_is_gone(tmp_path, monkeypatch):
    monkeypatch.setattr("worldsim.runtime.growing.FileIO", SmallDisk)
    with VideoWriter(tmp_path / "a.mp4", size=SIZE, fps=FPS, scale=2) as writer:
        with pytest.raises(
            VideoError, match=r"No space left on device; its first \d+ frames \(\d\.\d s\) are safe"
        ) as full:
            writer.write(noise(200), {"KeyA"})
        with pytest.raises(VideoError, match="is closed"):
            writer.write(noise(1))
    safe = len(decode(tmp_path / "a.mp4")[0])
    assert f"its first {safe} frames" in str(full.value)
    assert cues(tmp_path / "a.mp4") == [("KeyA", 0, safe / FPS)]
    assert ends_with_a_whole_box((tmp_path / "a.mp4").read_bytes())


def test_a_video_that_exists_stays_until_the_new_one_ends(tmp_path):
    path = tmp_path / "a.mp4"
    write_held(path)
    old = path.read_bytes()
    with VideoWriter(path, size=SIZE, fps=FPS, scale=2) as writer:
        writer.write(noise(11))
        assert (path.read_bytes(), writer.path) == (old, tmp_path / "a.unfinished.mp4")
    assert (len(decode(path)[0]), writer.path) == (11, path)
    assert [*tmp_path.iterdir()] == [path]


def test_a_video_that_is_stopped_or_breaks_lies_beside_the_one_that_exists_and_plays(tmp_path):
    path = tmp_path / "a.mp4"
    write_held(path)
    old = path.read_bytes()
    with VideoWriter(path, size=SIZE, fps=FPS, scale=2) as writer:
        writer.write(noise(5))
        writer.stop()
    assert len(decode(writer.path)[0]) == 5
    assert says_its_end(writer.path)

    def broken() -> None:
        with VideoWriter(path, size=SIZE, fps=FPS, scale=2) as writer:
            writer.write(noise(1))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as raised:
        broken()
    assert raised.value.__notes__ == [f"what had been made, 1 frame, is in {tmp_path / 'a.unfinished-2.mp4'}"]
    assert len(decode(tmp_path / "a.unfinished-2.mp4")[0]) == 1
    assert len(decode(tmp_path / "a.unfinished.mp4")[0]) == 5
    assert path.read_bytes() == old


@pytest.mark.parametrize("exists", [True, False])
def test_an_error_before_the_first_frame_leaves_what_was_there(tmp_path, exists):
    path = tmp_path / "a.mp4"
    if exists:
        write_held(path)
    before = {each.name: each.read_bytes() for each in tmp_path.iterdir()}
    with pytest.raises(ZeroDivisionError), VideoWriter(path, size=SIZE, fps=FPS, scale=2):
        raise ZeroDivisionError
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == before


@pytest.mark.parametrize("exists", [True, False])
def test_a_writer_that_is_interrupted_while_it_is_made_leaves_what_was_there(tmp_path, monkeypatch, exists):
    path = tmp_path / "a.mp4"
    if exists:
        write_held(path)
    before = {each.name: each.read_bytes() for each in tmp_path.iterdir()}

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("worldsim.runtime.video._open_stream", interrupted)
    with pytest.raises(KeyboardInterrupt):
        VideoWriter(path, size=SIZE, fps=FPS, scale=2)
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == before


def test_two_never_write_one_video(tmp_path):
    path = tmp_path / "a.mp4"
    with VideoWriter(path, size=SIZE, fps=FPS, scale=2) as writer:
        with pytest.raises(
            VideoError, match=r"a\.mp4 is being written already, here or in another process; name another"
        ):
            VideoWriter(path, size=SIZE, fps=FPS, scale=2)
        writer.write(noise(2))
    assert len(decode(path)[0]) == 2


def test_a_full_disk_leaves_the_video_that_exists_and_says_where_the_part_is(tmp_path, monkeypatch):
    path = tmp_path / "a.mp4"
    write_held(path)
    old = path.read_bytes()
    monkeypatch.setattr("worldsim.runtime.growing.FileIO", SmallDisk)
    writer = VideoWriter(path, size=SIZE, fps=FPS, scale=2)
    with pytest.raises(VideoError, match=r"are safe and play in .*a\.unfinished\.mp4; free some space"):
        writer.write(noise(200))
    assert path.read_bytes() == old
    assert len(decode(tmp_path / "a.unfinished.mp4")[0]) > 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device here is always full")
def test_a_disk_that_is_full_from_the_beginning_is_told_as_such(tmp_path):
    (tmp_path / "a.mp4").symlink_to("/dev/full")
    with pytest.raises(VideoError, match=r"a\.mp4: No space left on device; no frame was written; free some space"):
        VideoWriter(tmp_path / "a.mp4", size=SIZE, fps=FPS, scale=2)


def ends_with_a_whole_box(data: bytes) -> bool:
    at = 0
    while at < len(data):
        at += int.from_bytes(data[at : at + 4], "big")
    return at == len(data)


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((1, 9, 12, 3), np.uint8),
        np.zeros((9, 13, 3), np.uint8),
        np.zeros((1, 9, 13, 4), np.uint8),
        np.zeros((1, 9, 13, 3), np.float32),
    ],
)
def test_frames_of_another_shape_or_dtype_are_refused_whole(tmp_path, frames):
    with VideoWriter(tmp_path / "a.mp4", size=SIZE, fps=FPS, scale=2) as writer:
        writer.write(noise(1))
        with pytest.raises(ShapeError, match=r"takes frames of uint8 \[F, 9, 13, 3\], got (uint8|float32) \["):
            writer.write(frames)
    assert len(decode(tmp_path / "a.mp4")[0]) == 1


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"scale": 1}, "even sides"),
        ({"scale": 0}, "at least 1"),
        ({"fps": 0}, "at least 1"),
        ({"size": (0, 8)}, "at least 1"),
        ({"size": (16, 16_400), "scale": 1}, r"16400x16 pixels is too large for H\.264, which takes at most 16,384 a"),
        ({"size": (8_193, 8), "scale": 2}, "16x16386 pixels is too large"),
        ({"size": (16_256, 16_256), "scale": 1}, "about 264 million in all; choose a smaller size"),
        ({"path": "walk.avi"}, r"ends in \.mp4"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_a_file_appears(tmp_path, monkeypatch, settings, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=says):
        VideoWriter(**{"path": "walk.mp4", "size": SIZE, "fps": FPS, "scale": 2} | settings)
    assert not [*tmp_path.iterdir()]


def test_a_file_that_cannot_be_opened_is_a_video_error(tmp_path):
    (tmp_path / "walk.mp4").mkdir()
    with pytest.raises(VideoError, match=r"cannot write .*walk\.mp4: Is a directory; name a file"):
        VideoWriter(tmp_path / "walk.mp4", size=SIZE, fps=FPS, scale=2)


def test_a_build_without_the_encoder_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(av, "codecs_available", {"vp9"})
    with pytest.raises(MissingDependency, match=r"without libx264 .* pip install"):
        VideoWriter(tmp_path / "walk.mp4", size=SIZE, fps=FPS, scale=2)


HELD = [((), 3), (("Space", "KeyD"), 14), ((), 1), (("KeyA",), 2), (("KeyA", "é" * 99), 5)]
"""Keys, and for how many frames: held over two borders of a fragment, and changed twice within one."""


def write_held(path: Path) -> None:
    with VideoWriter(path, size=SIZE, fps=FPS, scale=2) as writer:
        for keys, frames in HELD:
            for frame in noise(frames):
                writer.write(frame[None], keys)


def test_the_keys_are_subtitles_for_exactly_as_long_as_they_are_held(tmp_path):
    write_held(tmp_path / "a.mp4")
    wanted = [("KeyD + Space", 3, 17), ("KeyA", 18, 20), ("KeyA + " + "é" * 99, 20, 25)]
    assert cues(tmp_path / "a.mp4") == [(text, begin / FPS, end / FPS) for text, begin, end in wanted]


def test_keys_of_several_frames_at_once_and_the_last_alone_have_their_time_too(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", size=SIZE, fps=FPS, scale=2) as writer:
        writer.write(noise(13))
        writer.write(noise(3), {"KeyD"})
        writer.write(noise(1), {"KeyW"})
    assert cues(tmp_path / "a.mp4") == [("KeyD", 13 / FPS, 2), ("KeyW", 2, 17 / FPS)]


def test_a_player_is_given_the_text_as_text_and_only_while_keys_are_held(tmp_path):
    write_held(tmp_path / "a.mp4")
    with av.open(tmp_path / "a.mp4") as file:
        lines = [getattr(part, "ass", b"") for packet in file.demux(subtitles=0) for part in packet.decode()]
    texts = [line.decode().split(",", 8)[8] for line in lines]
    assert [text for text, _ in groupby(texts)] == ["KeyD + Space", "KeyA", "KeyA + " + "é" * 99]


def test_the_text_of_a_second_comes_before_its_frames(tmp_path):
    write_held(tmp_path / "a.mp4")
    with av.open(tmp_path / "a.mp4") as file:
        order = [(packet.stream.type, float(packet.pts * packet.time_base)) for packet in file.demux() if packet.size]
    for at, (kind, seconds) in enumerate(order):
        assert kind == "video" or all(later >= seconds // 1 for other, later in order[at:] if other == "video")


def test_a_video_under_no_keys_shows_no_text(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", size=SIZE, fps=FPS, scale=2) as writer:
        writer.write(noise(21))
    assert cues(tmp_path / "a.mp4") == []


def test_a_film_in_memory_is_a_whole_file_with_every_frame():
    frames = np.repeat(noise(1), 11, axis=0)
    with av.open(BytesIO(movie(frames, fps=FPS, scale=4)), "r") as file:
        stream = file.streams.video[0]
        assert (float(stream.average_rate or 0), file.duration) == (FPS, 11 / FPS * 1e6)
        shown = [frame.to_ndarray(format="rgb24") for frame in file.decode(stream)]
    assert [picture.shape for picture in shown] == [(36, 52, 3)] * 11


@pytest.mark.parametrize(
    ("size", "scale"),
    [
        *[((72, 72), 8), ((96, 128), 6), ((6, 10), 96), ((9, 13), 64), ((95, 96), 6), ((577, 800), 2), ((600, 800), 1)],
        *[((16, 832), 19), ((16, 16_384), 1), ((9, 1_301), 12), ((16, 16_400), 1)],
    ],
)
def test_what_is_shown_is_enlarged_by_the_largest_factor_with_even_sides_that_fits(size, scale):
    assert shown_scale(size) == scale


@pytest.mark.parametrize("size", [(16, 16_384), (16_384, 2)])
def test_the_longest_sides_are_written(tmp_path, size):
    with VideoWriter(tmp_path / "a.mp4", size=size, fps=FPS) as writer:
        writer.write(np.zeros((1, *size, 3), np.uint8))
    assert decode(tmp_path / "a.mp4")[0].shape == (1, *size, 3)


def test_no_more_pixels_are_tried_than_the_library_opens():
    # As libavcodec counts them, with 128 more a side.
    fits = [(16_254, 16_254), (16_128, 16_384), (16_384, 16_128)]
    too_large = [(16_256, 16_256), (16_130, 16_384), (16, 16_386), (16_386, 16)]
    assert [size for size in (*fits, *too_large) if fits_h264(size)] == fits
