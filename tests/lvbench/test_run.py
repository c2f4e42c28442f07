"""Many videos are scored by many processes as by one, and none takes another with it."""

from __future__ import annotations

import os
from multiprocessing import active_children

import pytest

from lvbench import run
from lvbench.errors import ConfigError
from lvbench.examine import Record, Refused, Settings, Task
from lvbench.run import examine_all
from lvbench.video import Limits
from tests.lvbench.films import drifting, film


@pytest.fixture
def tasks(tmp_path):
    (tmp_path / "bad.mp4").write_text("hello")
    good = [film(tmp_path / f"{at}.mkv", drifting(20 + at)) for at in range(4)]
    return [Task(name=path.name, path=path) for path in (good[0], tmp_path / "bad.mp4", *good[1:])]


def test_workers_and_order_change_no_record(tasks, tmp_path):
    seen: list[str] = []
    alone = examine_all(
        tasks,
        Settings(store=tmp_path / "1", chunks=3),
        workers=1,
        on_video=lambda record: seen.append(record.name),
    )
    many = examine_all(tasks[::-1], Settings(store=tmp_path / "2", chunks=3), workers=3, on_video=lambda record: None)
    assert alone == many[::-1]
    assert [record.name for record in alone] == seen == [task.name for task in tasks]
    assert [type(record) for record in alone] == [Record, Refused, Record, Record, Record]


def test_a_process_that_dies_is_told_and_costs_nobody_else(tasks, tmp_path):
    settings = Settings(store=tmp_path / "cache", chunks=3, extractor="unknown")
    found = examine_all(tasks[:2], settings, workers=2, on_video=lambda record: None)
    assert [record.reason for record in found if isinstance(record, Refused)] == [
        "the process that scored it ended with exit code 1; see stderr"
    ] * 2


def test_a_video_that_hangs_is_stopped_and_the_others_are_scored(tasks, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "GRACE_S", 3.0)
    os.mkfifo(tmp_path / "pipe.mp4")  # opening it waits for somebody who never writes
    hung = Task(name="pipe.mp4", path=tmp_path / "pipe.mp4")
    settings = Settings(store=tmp_path / "cache", chunks=3, limits=Limits(seconds=1.0))
    found = examine_all([hung, *tasks[2:]], settings, workers=2, on_video=lambda record: None)
    assert isinstance(found[0], Refused)
    assert "took too long" in found[0].reason
    assert not active_children()
    assert all(isinstance(record, Record) for record in found[1:])


def test_nothing_runs_on_once_somebody_stops_it(tasks, tmp_path):
    def stop(record):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        examine_all(tasks, Settings(store=tmp_path / "cache", chunks=3), workers=2, on_video=stop)


def test_no_worker_is_no_work(tasks, tmp_path):
    with pytest.raises(ConfigError, match="at least 1 worker, got 0"):
        examine_all(tasks, Settings(store=tmp_path), workers=0, on_video=lambda record: None)
