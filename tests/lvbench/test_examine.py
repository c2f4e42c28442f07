"""A video becomes a record, is measured once, and a bad one becomes a reason."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lvbench import examine as examining
from lvbench.errors import ConfigError
from lvbench.examine import Record, Refused, Settings, Task, compared, examine, extract
from lvbench.light import Light
from lvbench.reference import Likeness
from lvbench.score import Unscored
from lvbench.store import hash_of
from lvbench.video import Limits, open_video
from tests.lvbench.films import counted, drifting, film


@pytest.fixture
def settings(tmp_path):
    return Settings(store=tmp_path / "cache", chunks=5)


@pytest.fixture
def video(tmp_path):
    return film(tmp_path / "a.mkv", drifting(31))


def test_a_video_becomes_a_record(settings, video):
    record = examine(Task(name="a.mkv", path=video), settings)
    assert isinstance(record, Record)
    assert (record.frames, record.facts.size, record.sha256) == (31, (48, 64), hash_of(video))
    assert len(record.judged.chunks["clarity"]) == 5
    assert record.likeness is None


def test_a_video_is_measured_once_and_the_record_is_the_same(settings, video, monkeypatch):
    calls: list[object] = []
    monkeypatch.setattr(examining, "extract", counted(calls, extract))
    first = examine(Task(name="a.mkv", path=video), settings)
    assert examine(Task(name="a.mkv", path=video), settings) == first
    assert len(calls) == 1


def test_what_was_measured_serves_any_number_of_chunks_and_any_dimension(settings, video, monkeypatch):
    examine(Task(name="a.mkv", path=video), settings)
    monkeypatch.setattr(examining, "extract", None)  # not called any more
    other = examine(Task(name="b", path=video), Settings(store=settings.store, chunks=3, dimensions=("motion",)))
    assert isinstance(other, Record)
    assert "motion" in other.judged.chunks
    assert "clarity" not in other.judged.chunks


def test_other_bytes_are_measured_again(settings, tmp_path, monkeypatch):
    calls: list[object] = []
    monkeypatch.setattr(examining, "extract", counted(calls, extract))
    for name, frames in (("a.mkv", drifting(31)), ("b.mkv", drifting(32))):
        examine(Task(name=name, path=film(tmp_path / name, frames)), settings)
    assert len(calls) == 2


def test_another_extractor_measures_again(settings, video, monkeypatch):
    calls: list[object] = []
    monkeypatch.setattr(examining, "extract", counted(calls, extract))
    examine(Task(name="a.mkv", path=video), settings)
    monkeypatch.setattr(Light, "fingerprint", "other")
    examine(Task(name="a.mkv", path=video), settings)
    assert len(calls) == 2


@pytest.mark.parametrize("content", [b"hello", b""])
def test_a_bad_video_is_a_reason(settings, tmp_path, content):
    path = tmp_path / "bad.mp4"
    path.write_bytes(content)
    assert isinstance(examine(Task(name="bad.mp4", path=path), settings), Refused)


def test_a_video_that_is_gone_and_one_too_short_are_reasons(settings, tmp_path):
    gone = examine(Task(name="gone", path=tmp_path / "gone.mp4"), settings)
    assert gone == Refused("gone", "it cannot be read: No such file or directory")
    short = examine(Task(name="short", path=film(tmp_path / "s.mkv", drifting(14))), settings)
    assert isinstance(short, Refused)
    assert "14 frames are too few for 5 chunks" in short.reason


def test_a_reference_is_compared_once_and_a_bad_one_costs_nothing_else(settings, video, tmp_path, monkeypatch):
    alone = examine(Task(name="a", path=video), settings)
    beside = compared(alone, video, video, settings)
    assert isinstance(beside.likeness, Likeness)
    assert (alone.reference_sha256, beside.reference_sha256) == (None, hash_of(video))
    monkeypatch.setattr(examining, "liken", None)  # not called any more
    assert compared(alone, video, video, settings) == beside
    lost = compared(alone, video, tmp_path / "none.mkv", settings)
    assert lost.likeness == Unscored("there is no reference of that name; put the real video there under it")
    (tmp_path / "broken.mkv").symlink_to(tmp_path / "none.mkv")
    broken = compared(alone, video, tmp_path / "broken.mkv", settings)
    assert broken.likeness == Unscored("its reference broken.mkv: it cannot be read: No such file or directory")
    assert alone.judged == beside.judged == lost.judged
    assert lost.reference_sha256 is broken.reference_sha256 is None


def test_which_real_video_does_not_fit_is_told_by_its_hash(settings, video, tmp_path):
    alone = examine(Task(name="a", path=video), settings)
    wide = film(tmp_path / "wide.mkv", [frame.repeat(2, axis=1) for frame in drifting(31)])
    short = film(tmp_path / "short.mkv", drifting(9))
    for real in (wide, short):
        beside = compared(alone, video, real, settings)
        assert isinstance(beside.likeness, Unscored)
        assert beside.reference_sha256 == hash_of(real)


@pytest.mark.parametrize("limits", [Limits(frames=30), Limits(pixels=48 * 64 - 1)])
def test_what_was_measured_before_is_refused_as_what_was_not(settings, video, tmp_path, limits):
    task, alone = Task(name="a", path=video), examine(Task(name="a", path=video), settings)
    compared(alone, video, video, settings)
    refused = [
        examine(task, replace(settings, store=store, limits=limits)) for store in (settings.store, tmp_path / "empty")
    ]
    assert isinstance(refused[0], Refused)
    assert refused[0] == refused[1]
    if limits.pixels < 48 * 64:
        assert isinstance(compared(alone, video, video, replace(settings, limits=limits)).likeness, Unscored)


def test_what_cannot_be_kept_costs_no_score_and_is_told(settings, video, tmp_path):
    (tmp_path / "file").touch()  # no folder can be made below it
    kept, task = examine(Task(name="a", path=video), settings), Task(name="a", path=video)
    unkept = examine(task, replace(settings, store=tmp_path / "file" / "cache"))
    assert unkept == kept
    assert kept.unkept is None
    assert "Not a directory" in unkept.unkept
    beside = compared(kept, video, video, replace(settings, store=tmp_path / "file" / "cache"))
    assert isinstance(beside.likeness, Likeness)
    assert "Not a directory" in beside.unkept


def test_a_damaged_file_of_measures_is_replaced(settings, video):
    first = examine(Task(name="a", path=video), settings)
    (file,) = settings.store.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    assert examine(Task(name="a", path=video), settings) == first
    assert file.read_bytes() == whole


def test_a_file_too_large_to_be_read_in_time_is_refused(settings, video):
    with video.open("r+b") as file:
        file.truncate(300 * 10**9)
    refused = examine(Task(name="a", path=video), replace(settings, limits=Limits(seconds=0.3)))
    assert isinstance(refused, Refused)
    assert "0.3 s were not enough to read its bytes" in refused.reason


def test_a_video_that_is_read_otherwise_is_measured_again(settings, video, monkeypatch):
    calls: list[object] = []
    monkeypatch.setattr(examining, "extract", counted(calls, extract))
    examine(Task(name="a.mkv", path=video), settings)
    monkeypatch.setattr(examining, "READER", "another")
    examine(Task(name="a.mkv", path=video), settings)
    assert len(calls) == 2


def test_more_chunks_than_a_video_may_have_frames_for_are_refused(tmp_path):
    assert Settings(store=tmp_path, chunks=12_000).chunks == 12_000
    with pytest.raises(ConfigError, match="at most 12,000 chunks, got 100,000,000"):
        Settings(store=tmp_path, chunks=100_000_000)
    with pytest.raises(ConfigError, match="at most 3 chunks, got 4"):
        Settings(store=tmp_path, chunks=4, limits=Limits(frames=11))


def test_drift_needs_two_chunks(tmp_path):
    with pytest.raises(ConfigError, match="at least 2"):
        Settings(store=tmp_path, chunks=1)


@pytest.mark.parametrize("batch", [1, 4, 99])
def test_the_batch_changes_no_bit(video, monkeypatch, batch):
    found = []
    for size in (Light.batch, batch):
        monkeypatch.setattr(Light, "batch", size)
        with open_video(video, Limits()) as opened:
            found.append(extract(opened, Light()))
    whole, other = found
    assert all(np.array_equal(other.tracks[name], whole.tracks[name], equal_nan=True) for name in whole.tracks)
