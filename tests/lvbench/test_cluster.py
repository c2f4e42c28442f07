"""A cluster gives the records that processes here give, whatever becomes of its workers."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import replace
from functools import partial
from multiprocessing import active_children

import pytest
import torch

from lvbench import cluster, run
from lvbench.cli import main
from lvbench.cluster import Unfit, examine_on_cluster, examine_there, versions
from lvbench.errors import ConfigError
from lvbench.examine import Record, Refused, Settings, Task
from lvbench.networks import loading
from lvbench.run import examine_all
from lvbench.video import Limits
from tests.lvbench.films import drifting, film, hang
from tests.lvbench.random_weights import lpips_in

pytestmark = [
    pytest.mark.timeout(180),  # a cluster begins in seconds, but not while other work has the cores
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of ray
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def tasks(tmp_path):
    (tmp_path / "bad.mp4").write_text("hello")
    good = [film(tmp_path / f"{at}.mkv", drifting(20 + at)) for at in range(4)]
    return [Task(name=path.name, path=path) for path in (good[0], tmp_path / "bad.mp4", *good[1:])]


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "cache").mkdir()
    return Settings(store=tmp_path / "cache", chunks=3)


@pytest.fixture(scope="module")
def two_workers():
    ray = pytest.importorskip("ray", reason="the extra `scale` is not installed")
    ray.init(num_cpus=2, address="local", logging_level="ERROR")
    yield ray
    ray.shutdown()


def test_a_cluster_of_two_workers_gives_the_records_of_processes_bit_for_bit(two_workers, tasks, settings, tmp_path):
    seen: list[str] = []
    there = examine_on_cluster(tasks, settings, on_video=lambda record: seen.append(record.name))
    here = examine_all(tasks, replace(settings, store=tmp_path / "here"), workers=1, on_video=lambda record: None)
    assert there == here
    assert sorted(seen) == sorted(task.name for task in tasks)
    assert [type(record) for record in there] == [Record, Refused, Record, Record, Record]
    assert two_workers.is_initialized()  # it was not begun here, so it is not ended


def test_paths_are_those_of_whoever_asks(two_workers, tasks, settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    near = [replace(task, path=task.path.relative_to(tmp_path), reference=tasks[0].path) for task in tasks[:1]]
    (found,) = examine_on_cluster(near, replace(settings, store=settings.store.relative_to(tmp_path)), on_video=print)
    assert isinstance(found, Record)
    assert len(list(settings.store.iterdir())) == 2


def dying(tries, times, task, settings, made_with):
    """Stands in for examine_there: the worker of video 1 is killed so many times."""
    if task.name == "1.mkv":
        (tries / str(time.monotonic_ns())).touch()
        if len(list(tries.iterdir())) <= times:
            os.kill(os.getpid(), signal.SIGKILL)
    return Refused(task.name, "done")


@pytest.mark.parametrize(("times", "reason"), [(1, "done"), (2, "its worker in the cluster died, 2 times: ")])
def test_a_video_whose_worker_dies_is_tried_once_more(
    two_workers, tasks, settings, tmp_path, monkeypatch, times, reason
):
    (tmp_path / "tries").mkdir()
    by_value(two_workers, monkeypatch, partial(dying, tmp_path / "tries", times))
    found = examine_on_cluster(tasks, settings, on_video=lambda record: None)
    assert len(list((tmp_path / "tries").iterdir())) == 2
    for record in found:
        assert isinstance(record, Refused)
        assert record.reason.startswith(reason if record.name == "1.mkv" else "done")


def by_value(ray, monkeypatch, function):
    """Let workers run a function of this module, which they cannot import."""
    module = sys.modules[__name__]
    ray.cloudpickle.register_pickle_by_value(module)
    monkeypatch.setattr(cluster, "examine_there", lambda *given: function(*given))


def hurried(task, settings, made_with):
    """Stands in for examine_there: with little patience for a process that hangs."""
    run.GRACE_S = 5.0
    return examine_there(task, settings, made_with)


def test_a_video_that_hangs_is_stopped_where_it_is_and_the_others_are_scored(two_workers, tasks, settings, monkeypatch):
    by_value(two_workers, monkeypatch, hurried)
    impatient = replace(settings, limits=Limits(seconds=12.0))  # which the others need on a machine that is busy
    hang(tasks[0], impatient)
    first, _, *rest = examine_on_cluster(tasks, impatient, on_video=lambda record: None)
    assert isinstance(first, Refused)
    assert "took too long" in first.reason
    assert all(isinstance(record, Record) for record in rest)


def sleeping(noted, task, settings, made_with):
    """Stands in for examine_there: all but the first video take long, in a process that is noted."""
    if task.name != "0.mkv":
        (noted / str(os.getpid())).touch()
        time.sleep(600)
    while not list(noted.iterdir()):
        time.sleep(0.01)
    return Refused(task.name, "done")


def test_nothing_runs_on_once_somebody_stops_it(two_workers, tasks, settings, tmp_path, monkeypatch):
    def stop(record):
        raise KeyboardInterrupt

    noted = tmp_path / "noted"
    noted.mkdir()
    by_value(two_workers, monkeypatch, partial(sleeping, noted))
    with pytest.raises(KeyboardInterrupt):
        examine_on_cluster(tasks, settings, on_video=stop)
    workers = [int(path.name) for path in noted.iterdir()]
    assert workers
    while any(map(runs, workers)):  # within the time limit of the test
        time.sleep(0.05)


def runs(process: int) -> bool:
    """Whether there is a process of that number."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def unfit(task, settings, made_with):
    """Stands in for examine_there on a machine that is not fit."""
    return Unfit("that machine is of another kind")


def broken(task, settings, made_with):
    """Stands in for examine_there on a machine that lacks what it needs."""
    raise ModuleNotFoundError("No module named 'lvbench'")


@pytest.mark.parametrize(
    ("function", "says"), [(unfit, "that machine is of another kind"), (broken, "cannot run lvbench: ModuleNotFound")]
)
def test_a_machine_that_cannot_take_part_ends_the_run(two_workers, tasks, settings, monkeypatch, function, says):
    by_value(two_workers, monkeypatch, function)
    with pytest.raises(ConfigError, match=says):
        examine_on_cluster(tasks, settings, on_video=lambda record: None)


def test_a_machine_is_fit_with_the_same_versions_and_the_same_files(tasks, settings, tmp_path):
    made_with = versions(settings)
    assert isinstance(examine_there(tasks[0], settings, made_with), Record)
    assert not active_children()
    for at in range(len(made_with)):
        told = examine_there(tasks[0], settings, (*made_with[:at], "another", *made_with[at + 1 :]))
        assert isinstance(told, Unfit)
        assert "has another version of lvbench, PyAV, OpenCV, numpy or torch" in told.reason
    elsewhere = replace(settings, store=tmp_path / "none")
    for task, there in ((tasks[0], elsewhere), (Task(name="a", path=tmp_path / "none" / "a.mp4"), settings)):
        told = examine_there(task, there, made_with)
        assert isinstance(told, Unfit)
        assert f"does not see {tmp_path / 'none'}; it has to be on a disk that all machines share" in told.reason


def test_a_machine_needs_the_weights_and_a_gpu_where_there_is_one(tasks, settings, tmp_path, monkeypatch):
    lpips = replace(settings, lpips=lpips_in(tmp_path / "weights"))
    made_with = versions(lpips)
    assert made_with != versions(settings)
    (tmp_path / "weights").rename(tmp_path / "moved")
    told = examine_there(tasks[0], lpips, made_with)
    assert isinstance(told, Unfit)
    assert f"does not see {tmp_path / 'weights'}" in told.reason
    monkeypatch.setattr(loading, "device", lambda: torch.device("meta"))
    assert [cluster._gpus(each) for each in (settings, lpips)] == [0, 1]
    monkeypatch.setattr(loading, "device", lambda: torch.device("cpu"))
    assert cluster._gpus(lpips) == 0


def test_the_command_writes_the_same_report(two_workers, tasks, tmp_path):
    for name, options in (("here", ["--workers", "2"]), ("there", ["--ray"])):
        arguments = ["score", str(tmp_path), "-o", str(tmp_path / name), "--chunks", "3", "--extractor", "light"]
        assert main([*arguments, *options]) == 3  # one video is bad
    for file in ("scores.json", "scores.csv", "report.html"):
        assert (tmp_path / "here" / file).read_bytes() == (tmp_path / "there" / file).read_bytes()


def test_without_ray_it_is_told_what_to_install(tasks, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["score", str(tasks[0].path), "-o", str(tmp_path / "report"), "--ray"]) == 2
    install = ".venv/bin/pip install --constraint constraints.txt --editable '.[scale]'"
    assert capsys.readouterr().err.endswith(f"lvbench: ray is not installed; run: {install}\n")


def test_workers_are_of_no_use_to_a_cluster(tasks, tmp_path, capsys):
    assert main(["score", str(tasks[0].path), "-o", str(tmp_path / "report"), "--ray", "--workers", "2"]) == 2
    assert "as many videos are scored at once as the cluster has processors" in capsys.readouterr().err
    assert not (tmp_path / "report" / "scores.json").exists()
