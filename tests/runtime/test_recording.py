"""A recording holds what its session showed, under its keys, and whatever becomes of it the world goes on."""

from __future__ import annotations

import errno
from io import FileIO
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from worldsim.errors import ConfigError, SessionClosed, VideoError
from worldsim.runtime.batching import step_together
from worldsim.runtime.engine import Engine
from worldsim.runtime.recording import Recording
from worldsim.runtime.session import Session
from worldsim.runtime.world import World
from worldsim.testing.fakes import tiny_world

WALK = [{"KeyD"}, {"KeyD", "Space"}, set(), {"ArrowLeft"}, {"KeyA"}]
SCALE = 96


@pytest.fixture
def world() -> World:
    return tiny_world(frames_per_block=2)


def walk(session: Session) -> NDArray[np.uint8]:
    return np.concatenate([session.step(keys).frames for keys in WALK])


def shown(path: Path) -> NDArray[np.uint8]:
    """The middle of every enlarged pixel, where no neighbour's colour reaches: uint8 [F, 6, 10, 3]."""
    with av.open(path) as file:
        stream = file.streams.video[0]
        assert stream.average_rate == 4
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(stream)]
    return np.stack(frames)[:, SCALE // 2 :: SCALE, SCALE // 2 :: SCALE]


def held(path: Path) -> list[str]:
    """What the subtitles say at every frame."""
    with av.open(path) as file:
        stream = file.streams.subtitles[0]
        cues = [(packet.pts, bytes(packet)[2:].decode()) for packet in file.demux(stream) if packet.size]
    texts = []
    for frame in range(len(shown(path))):
        texts.append([text for begin, text in cues if begin is not None and begin <= frame][-1])
    return texts


def assert_same(recorded: NDArray[np.uint8], frames: NDArray[np.uint8]) -> None:
    assert recorded.shape == frames.shape
    assert np.abs(recorded.astype(int) - frames).mean() < 4
    wrong = [at for at in range(len(frames)) if np.abs(recorded[at].astype(int) - frames[at]).mean() > 8]
    assert not wrong, f"frames {wrong} are others"


def test_every_chunk_from_then_on_is_in_the_file_with_its_keys(world, tmp_path):
    with world.open(seed=4) as session:
        session.step({"KeyA"})
        with session.record(tmp_path / "new" / "walk.mp4") as recording:
            frames = walk(session)
            assert recording.frames == len(frames) == 10
        session.step({"KeyA"})
        assert recording.frames == 10
    assert_same(shown(tmp_path / "new" / "walk.mp4"), frames)
    assert held(tmp_path / "new" / "walk.mp4") == [
        text for text in ("KeyD", "KeyD + Space", "", "ArrowLeft", "KeyA") for _ in range(2)
    ]


def test_a_recording_changes_nothing_that_is_seen(world, tmp_path):
    with world.open(seed=4) as session, world.open(seed=4) as alone, session.record(tmp_path / "a.mp4"):
        assert np.array_equal(walk(session), walk(alone))


def test_of_sessions_that_step_together_only_the_recorded_one_is_in_the_file(world, tmp_path):
    with world.open(seed=4) as one, world.open(seed=5, start=2) as other, one.record(tmp_path / "a.mp4"):
        made = [[done.result().frames for done in step_together([other, one], [set(), keys])] for keys in WALK]
    assert_same(shown(tmp_path / "a.mp4"), np.concatenate([own for _, own in made]))


def test_a_session_of_an_engine_is_recorded_between_two_blocks(world, tmp_path):
    with Engine(world, sessions=2) as engine:
        live, other = engine.open(seed=4), engine.open(seed=5)
        live.do(lambda session: session.record(tmp_path / "a.mp4")).result()
        frames = []
        for keys in WALK:
            beside = other.step()
            frames.append(live.step(keys).result().frames)
            beside.result()
        live.close()
        other.close()
    assert_same(shown(tmp_path / "a.mp4"), np.concatenate(frames))


def test_after_a_rewind_it_goes_on_with_what_is_shown_next_and_not_with_what_is_lived_again(world, tmp_path):
    with world.open(seed=4) as session, session.record(tmp_path / "a.mp4") as recording:
        before = walk(session)
        session._history.clear()
        session.rewind(3)
        assert recording.frames == 10
        after = session.step({"Space"}).frames
    assert_same(shown(tmp_path / "a.mp4"), np.concatenate([before, after]))
    assert held(tmp_path / "a.mp4")[-2:] == ["Space"] * 2


def test_a_fork_is_not_recorded(world, tmp_path):
    with world.open(seed=4) as session, session.record(tmp_path / "a.mp4") as recording:
        with session.fork() as twin:
            walk(twin)
        assert recording.frames == 0
        session.step()
        assert recording.frames == 2


def test_two_recordings_may_run_at_once_and_end_apart(world, tmp_path):
    with world.open(seed=4) as session:
        long = session.record(tmp_path / "long.mp4")
        session.step()
        with session.record(tmp_path / "short.mp4"):
            session.step()
        session.step()
        long.close()
        long.close()
        session.step()
        with session.record(tmp_path / "long.mp4"):
            session.step()
    assert (len(shown(tmp_path / "short.mp4")), len(shown(tmp_path / "long.mp4"))) == (2, 2)


def test_closing_the_session_completes_the_file_and_closing_twice_is_fine(world, tmp_path):
    session = world.open(seed=4)
    recording = session.record(tmp_path / "a.mp4")
    frames = walk(session)
    session.close()
    session.close()
    recording.close()
    assert_same(shown(tmp_path / "a.mp4"), frames)


def test_what_cannot_be_written_is_refused_at_once_and_the_session_goes_on(world, tmp_path):
    (tmp_path / "taken").write_text("a file")
    with world.open(seed=4) as session:
        with session.record(tmp_path / "a.mp4") as running:
            for path, error, says in (
                ("taken/a.mp4", VideoError, r"cannot write .*taken"),
                ("a.avi", ConfigError, r"ends in \.mp4"),
                ("sub/../a.mp4", ConfigError, "is being recorded to .* already; close that recording first"),
            ):
                with pytest.raises(error, match=says):
                    session.record(tmp_path / path)
            session.step()
            assert running.frames == 2
        session.close()
        with pytest.raises(SessionClosed):
            session.record(tmp_path / "b.mp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "taken"]


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk with room for one second of the film and no more."""

    class Small(FileIO):
        def write(self, data: Any, /) -> int:
            room = 60_000 - self.tell()
            if room <= 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data[:room])

    monkeypatch.setattr("worldsim.runtime.growing.FileIO", Small)


def fill(session: Session, recording: Recording) -> None:
    """Step until the disk is full."""
    for _ in range(200):
        session.step({"Space"})
        if recording.error is not None:
            return
    pytest.fail("the disk never filled")


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_ends_the_recording_and_not_the_world(world, tmp_path):
    with world.open(seed=4) as session, world.open(seed=4) as alone:
        recording = session.record(tmp_path / "a.mp4")
        fill(session, recording)
        blocks, frames = session.block, recording.frames
        assert len(session.log.steps) == blocks > 0
        for _ in range(blocks):
            alone.step({"Space"})
        assert np.array_equal(walk(session), walk(alone)), "the block at which the disk filled stays"
        assert recording.frames == frames, "it takes no more"
        with pytest.raises(
            VideoError, match=r"No space left on device; its first \d+ frames .* are safe and play"
        ) as told:
            recording.close()
        recording.close()
        assert recording.error is None
    assert f"its first {len(shown(tmp_path / 'a.mp4'))} frames" in str(told.value)


@pytest.mark.usefixtures("full_disk")
def test_a_session_that_closes_tells_what_became_of_its_recording_and_holds_nothing(world, tmp_path):
    session = world.open(seed=4, log=tmp_path / "log")
    fill(session, session.record(tmp_path / "a.mp4"))
    session.record(tmp_path / "b.mp4")
    with pytest.raises(VideoError, match="No space left on device"):
        session.close()
    assert world.pool.used == 0
    session.close()
    with av.open(tmp_path / "b.mp4") as other:
        assert other.streams.video, "the other one is completed"
    with world.go_on(tmp_path / "log") as again:
        assert again.block == session.block


@pytest.mark.usefixtures("full_disk")
def test_an_engine_gets_the_place_back_even_if_a_recording_could_not_be_completed(world, tmp_path):
    with Engine(world, sessions=1) as engine:
        live = engine.open(seed=4)
        recording = live.do(lambda session: session.record(tmp_path / "a.mp4")).result()
        while recording.error is None:
            live.step().result()
        with pytest.raises(VideoError):
            live.close()
        assert engine.open_sessions == 0
        engine.open(seed=5).close()


def test_an_encoder_that_fails_ends_the_recording_and_not_the_world(world, tmp_path, monkeypatch):
    with world.open(seed=4) as session:
        recording = session.record(tmp_path / "a.mp4")
        session.step()

        def broken(*_: object) -> None:
            raise av.FFmpegError(1, "the encoder broke")

        monkeypatch.setattr(recording._video, "write", broken)
        session.step()
        assert session.block == 2
        with pytest.raises(av.FFmpegError, match="the encoder broke"):
            recording.close()
    assert len(shown(tmp_path / "a.mp4")) == 2
