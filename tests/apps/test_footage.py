"""The end of a video is read as frames that a world goes on from, and what is none is refused in a line."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from worldsim.errors import ConfigError
from worldsim_apps.footage import last_frames

SIZE = (16, 24)


def video(path: Path, frames: int, *, degrees: int = 0, noisy: bool = False, live: bool = False) -> Path:
    """A video of 40 x 120 pixels: of so many frames each is brighter than the one before; its left half is black.

    Args:
        live: a Matroska that is watched while it is written, and so does not say where it ends.
    """
    options = {"live": "1"} if live else {"movflags": "faststart"} if path.suffix == ".mp4" else {}
    with av.open(str(path), "w", options=options) as file:
        stream = file.add_stream("libx264", rate=Fraction(30), options={"crf": "4"})
        stream.height, stream.width, stream.pix_fmt = 40, 120, "yuv420p"
        if degrees:
            stream.set_display_rotation(degrees)
        for at in range(frames):
            pixels = np.full((40, 120, 3), 100 + 3 * at, np.uint8)
            if noisy:
                pixels = np.random.default_rng(at).integers(0, 256, pixels.shape, np.uint8)
            pixels[:, :60] = 0
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode())
    return path


def brightness(frames: np.ndarray) -> list[int]:
    """By how many frames of the video each is brighter than its first."""
    return [round((float(frame[:, -4:].mean()) - 100) / 3) for frame in frames]


@pytest.mark.parametrize(
    ("frames", "most", "group", "taken"),
    [
        (12, 5, 4, range(7, 12)),
        (12, 5, 1, range(7, 12)),
        (12, 69, 4, range(3, 12)),  # 9 are one and two times four
        (13, 69, 4, range(13)),
        (12, 32, 1, range(12)),
        (3, 69, 4, range(2, 3)),
    ],
)
def test_the_last_frames_are_taken_as_many_as_fit(
    tmp_path: Path, frames: int, most: int, group: int, taken: range
) -> None:
    found = last_frames(video(tmp_path / "a.mp4", frames), SIZE, most=most, group=group)
    assert (found.dtype, found.shape) == (np.uint8, (len(taken), *SIZE, 3))
    assert brightness(found) == [*taken]


def test_frames_are_cut_to_the_middle_as_pictures_are(tmp_path: Path) -> None:
    (found,) = last_frames(video(tmp_path / "a.mkv", 3), SIZE, most=1, group=1)
    assert found[:, :10].max() < 20
    assert found[:, -10:].min() > 90
    (found,) = last_frames(video(tmp_path / "b.mp4", 3), (16, 48), most=1, group=1)
    assert (found[8] > 60).all(axis=-1).argmax() == 24


@pytest.mark.parametrize(("degrees", "dark"), [(90, np.s_[-4:]), (-90, np.s_[:4]), (180, np.s_[:, -4:])])
def test_frames_are_turned_as_they_were_held(tmp_path: Path, degrees: int, dark: tuple[slice, ...]) -> None:
    path = video(tmp_path / "a.mp4", 3, degrees=degrees)
    (found,) = last_frames(path, (48, 16) if abs(degrees) == 90 else (16, 48), most=1, group=1)
    assert found[dark].max() < 20
    assert found.max() > 90


def test_a_video_that_is_none_or_was_cut_off_is_told_in_a_line(tmp_path: Path) -> None:
    whole = video(tmp_path / "whole.mp4", 20, noisy=True).read_bytes()
    with pytest.raises(ConfigError, match=r"there is no video .*none\.mp4; give an MP4, MOV or WebM that plays"):
        last_frames(tmp_path / "none.mp4", SIZE, most=5, group=4)
    for at, share in enumerate((0.05, 0.4, 0.9)):
        torn = tmp_path / f"{at}.mp4"
        torn.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(
            ConfigError, match=r"mp4 is no video that can be read to its end \(Invalid data .*; give an"
        ):
            last_frames(torn, SIZE, most=5, group=4)
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ConfigError, match=r"text\.mp4 is no video that can be read to its end"):
        last_frames(tmp_path / "text.mp4", SIZE, most=5, group=4)


def cut(path: Path, size: int) -> Path:
    """The first so many bytes of a file, beside it."""
    short = path.with_stem("cut")
    short.write_bytes(path.read_bytes()[:size])
    return short


@pytest.mark.parametrize("seed", [1])
def test_a_matroska_that_says_that_it_goes_on_is_refused(
    tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = video(tmp_path / "whole.mkv", 30, noisy=True)
    size = whole.stat().st_size
    assert len(last_frames(whole, SIZE, most=99, group=1)) == 30
    for end in (size - 1, *np.random.default_rng(seed).integers(size // 9, size, 9)):
        with pytest.raises(
            ConfigError, match=rf"cut\.mkv was cut off: it has {end:,} bytes of the {size:,} it tells of; give an MP4"
        ):
            last_frames(cut(whole, end), SIZE, most=99, group=1)
    live = video(tmp_path / "live.mkv", 30, noisy=True, live=True)
    assert len(last_frames(cut(live, size // 2), SIZE, most=99, group=1)) < 30
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("seed", [2])
def test_of_a_stream_that_was_cut_off_the_torn_frame_is_left_out_and_that_is_said(
    tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = video(tmp_path / "whole.ts", 30, noisy=True)
    frames, size = last_frames(whole, SIZE, most=99, group=1), whole.stat().st_size
    assert (len(frames), capsys.readouterr().err) == (30, "")
    for end in np.random.default_rng(seed).integers(size // 3, size, 12):
        found = last_frames(cut(whole, end), SIZE, most=99, group=1)
        assert np.array_equal(found, frames[: len(found)])
        assert f"cut.ts was cut off, or is damaged at its end; the walk goes on after its first {len(found)} fr" in (
            capsys.readouterr().err
        )
    with av.open(str(whole)) as file:
        begin = [packet.pos for packet in file.demux(video=0) if packet.size][20]
    # Between two packets of the stream, of which a frame has several, only the decoder sees that one is torn.
    assert len(last_frames(cut(whole, begin + 3 * 188), SIZE, most=4, group=1)) == 4
    assert "after its first 20 frames" in capsys.readouterr().err


@pytest.mark.parametrize(("step", "before"), [(188, 0), (192, 4), (204, 0)])
def test_packets_of_a_stream_may_lie_further_apart(
    tmp_path: Path, step: int, before: int, capsys: pytest.CaptureFixture[str]
) -> None:
    data = video(tmp_path / "whole.ts", 30).read_bytes()
    packets = [data[at : at + 188] for at in range(0, len(data), 188)]
    apart = tmp_path / "apart.ts"
    apart.write_bytes(b"".join(bytes(before) + packet + bytes(step - before - 188) for packet in packets))
    assert len(last_frames(apart, SIZE, most=99, group=1)) == 30
    assert capsys.readouterr().err == ""
    assert len(last_frames(cut(apart, apart.stat().st_size - step + before + 90), SIZE, most=99, group=1)) < 30
    assert "was cut off" in capsys.readouterr().err


def test_a_stream_without_a_whole_frame_is_refused(tmp_path: Path) -> None:
    whole = video(tmp_path / "whole.ts", 3, noisy=True)
    with av.open(str(whole)) as file:
        begin = next(packet.pos for packet in file.demux(video=0) if packet.size)
    with pytest.raises(ConfigError, match=r"cut\.ts holds (no|0) frames? of video"):
        last_frames(cut(whole, begin + 5 * 188), SIZE, most=4, group=1)


def test_a_video_without_frames_or_with_too_few_of_those_it_tells_of_is_refused(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "sound.mp4"), "w") as file:
        stream = file.add_stream("aac", rate=44_100, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 44_100
        file.mux([*stream.encode(sound), *stream.encode()])
    with pytest.raises(ConfigError, match=r"sound\.mp4 holds 0 frames of video; give an"):
        last_frames(tmp_path / "sound.mp4", SIZE, most=5, group=4)
    whole = video(tmp_path / "whole.mp4", 20, noisy=True)
    with av.open(str(whole)) as file:
        packets = [packet for packet in file.demux(video=0) if packet.size]
        end = packets[10].pos
    (tmp_path / "half.mp4").write_bytes(whole.read_bytes()[:end])
    with pytest.raises(ConfigError, match=r"half\.mp4 holds 1?\d frames of video of the 20 it tells of; give an"):
        last_frames(tmp_path / "half.mp4", SIZE, most=5, group=4)
