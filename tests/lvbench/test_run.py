"""Many videos are scored by many processes as by one, and none takes another with it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from importlib import import_module
from multiprocessing import active_children

import pytest

from lvbench import run
from lvbench.errors import ConfigError
from lvbench.examine import Record, Refused, Settings, Task
from lvbench.reference import Likeness
from lvbench.run import examine_all, sheet_of
from lvbench.score import Unscored
from lvbench.sheets import sheet
from lvbench.video import Limits
from tests.lvbench.films import counted, drifting, film, hang


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
    monkeypatch.setattr(run, "GRACE_S", 5.0)
    settings = Settings(store=tmp_path / "cache", chunks=3, limits=Limits(seconds=1.0))
    hang(tasks[0], settings)
    found = examine_all([tasks[0], *tasks[2:]], settings, workers=2, on_video=lambda record: None)
    assert isinstance(found[0], Refused)
    assert "took too long" in found[0].reason
    assert not active_children()
    assert all(isinstance(record, Record) for record in found[1:])


def test_what_is_no_file_costs_nobody_else(tasks, tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "broken.mp4").symlink_to(tmp_path / "none")
    others = [Task(name=name, path=tmp_path / name) for name in ("pipe.mp4", "broken.mp4")]
    settings = Settings(store=tmp_path / "cache", chunks=3)
    *found, last = examine_all([*others, tasks[0]], settings, workers=1, on_video=lambda record: None)
    assert found == [
        Refused("pipe.mp4", "it cannot be read: no regular file"),
        Refused("broken.mp4", "it cannot be read: No such file or directory"),
    ]
    assert isinstance(last, Record)


def test_a_full_disk_costs_no_video(tasks, tmp_path):
    (tmp_path / "file").touch()  # no folder can be made below it
    settings = Settings(store=tmp_path / "file" / "cache", chunks=3)
    (found,) = examine_all(tasks[:1], settings, workers=1, on_video=lambda record: None)
    assert isinstance(found, Record)
    assert found.unkept is not None
    assert found.unkept.startswith("[Errno 20] Not a directory")


def test_a_reference_is_compared_and_has_time_of_its_own(tasks, tmp_path, monkeypatch):
    seen: list[object] = []
    deadlines: list[object] = []
    monkeypatch.setattr(run, "_deadline", counted(deadlines, run._deadline))
    beside = replace(tasks[0], reference=tasks[2].path)
    (found,) = examine_all(
        [beside], Settings(store=tmp_path / "cache", chunks=3), workers=1, on_video=lambda record: seen.append(record)
    )
    assert isinstance(found.likeness, Likeness)
    assert seen == [found]
    assert len(deadlines) == 2


def test_a_process_that_ends_in_the_midst_of_what_it_says_is_told(tmp_path):
    ours, theirs = run._context().Pipe(duplex=False)
    ended = run._context().Process(target=os._exit, args=(5,))
    ended.start()
    os.write(theirs.fileno(), (100).to_bytes(4) + b"half")
    theirs.close()
    found = run._Process(ended, ours, 0.0).found()
    ours.close()
    assert found.reason == "the process that scored it ended with exit code 5; see stderr"


SCORED_FIRST = """
import os, time
class {name}:
    name = "real.mkv"
    def lstat(self): pass
    def stat(self): {then}
"""


@pytest.mark.parametrize(
    ("name", "then", "reason"),
    [
        ("Hanging", "time.sleep(600)", "it took too long and was stopped"),
        ("Dying", "os._exit(7)", "the process that scored it ended with exit code 7"),
        ("Large", "return bytearray(10**10)", "it takes more than"),
    ],
)
def test_a_reference_costs_a_video_none_of_its_own_scores(tasks, tmp_path, monkeypatch, name, then, reason):
    (tmp_path / f"{name.lower()}.py").write_text(SCORED_FIRST.format(name=name, then=then))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(run, "GRACE_S", 3.0)
    settings = Settings(store=tmp_path / "cache", chunks=3, limits=Limits(seconds=3.0))
    real = getattr(import_module(name.lower()), name)()
    (found,) = examine_all([replace(tasks[0], reference=real)], settings, workers=1, on_video=lambda record: None)
    assert isinstance(found, Record)
    assert isinstance(found.likeness, Unscored)
    assert found.likeness.reason.startswith(f"its reference real.mkv: {reason}")
    (alone,) = examine_all(tasks[:1], settings, workers=1, on_video=lambda record: None)
    assert found.judged == alone.judged


def test_a_limit_of_pixels_beyond_any_memory_costs_no_video(tasks, tmp_path):
    settings = Settings(store=tmp_path / "cache", chunks=3, limits=Limits(pixels=10**30))
    (found,) = examine_all(tasks[:1], settings, workers=1, on_video=lambda record: None)
    assert isinstance(found, Record)


def test_a_sheet_is_made_in_a_process_of_its_own(tasks, tmp_path, monkeypatch):
    settings = Settings(store=tmp_path / "cache", chunks=3, limits=Limits(seconds=1.0))
    assert sheet_of(tasks[0].path, 20, settings) == sheet(tasks[0].path, 20, 3, Limits())
    assert "it had 99 frames when it was scored" in str(sheet_of(tasks[0].path, 99, settings))
    (tmp_path / "hanging.py").write_text(SCORED_FIRST.format(name="Hanging", then="time.sleep(600)"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(run, "GRACE_S", 3.0)
    told = sheet_of(import_module("hanging").Hanging(), 20, settings)
    assert isinstance(told, str)
    assert told == "it took too long and was stopped; cut it or encode it again, or raise --max-seconds"
    assert not active_children()


def test_nothing_runs_on_once_somebody_stops_it(tasks, tmp_path):
    def stop(record):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        examine_all(tasks, Settings(store=tmp_path / "cache", chunks=3), workers=2, on_video=stop)


SLOW = """
import pathlib, time
class Slow:
    def stat(self):
        pathlib.Path("begun").touch()
        time.sleep(600)
"""
HANGING = """
from pathlib import Path
from lvbench.run import Settings, Task, examine_all
from slow import Slow
examine_all([Task(name="a", path=Slow())], Settings(store=Path("cache")), workers=1, on_video=print)
"""


def test_no_process_outlives_one_that_is_killed(tmp_path):
    (tmp_path / "slow.py").write_text(SLOW)
    with subprocess.Popen([sys.executable, "-c", HANGING], cwd=tmp_path, start_new_session=True) as asking:
        while not (tmp_path / "begun").exists():
            time.sleep(0.05)
        asking.kill()
    while members(asking.pid):  # within the time limit of the test
        time.sleep(0.05)


GREEDY = """
class Greedy:
    def stat(self): return bytearray(6_000_000_000)
"""
ASKING = """
from pathlib import Path
from greedy import Greedy
from lvbench.run import Settings, Task, examine_all
from lvbench.video import Limits
for pixels in (4096 * 2304, 10**8):
    settings = Settings(store=Path("cache"), limits=Limits(pixels=pixels))
    print(examine_all([Task(name="a", path=Greedy())], settings, workers=1, on_video=lambda _: None)[0].reason)
"""


def test_a_video_that_asks_for_gigabytes_is_refused_unless_its_frames_may_be_large(tmp_path):
    (tmp_path / "greedy.py").write_text(GREEDY)
    told = subprocess.run([sys.executable, "-c", ASKING], cwd=tmp_path, capture_output=True, text=True, check=True)
    refused, granted = told.stdout.splitlines()
    assert re.fullmatch(r"it takes more than [34]\.\d GB of memory; encode it again", refused)
    assert granted == "the process that scored it ended with exit code 1; see stderr"
    assert "'bytearray' object has no attribute 'st_mode'" in told.stderr


def members(group: int) -> list[int]:
    """The processes of a group that are not dead."""
    told = subprocess.run(["ps", "-eo", "pid=,pgid=,state="], capture_output=True, text=True, check=True).stdout
    lines = [line.split() for line in told.splitlines()]
    return [int(pid) for pid, of, state in lines if int(of) == group and state != "Z"]


def test_no_worker_is_no_work(tasks, tmp_path):
    with pytest.raises(ConfigError, match="at least 1 worker, got 0"):
        examine_all(tasks, Settings(store=tmp_path), workers=0, on_video=lambda record: None)
