"""The record of a benchmark: true, complete, and readable by anybody."""

from __future__ import annotations

import json
import math
import os
import runpy
import subprocess
from pathlib import Path

import pytest
import torch
import typer

from benchmarks.record import ROOT, commit, hardware, provenance, run, spread, write
from worldsim.errors import DataError


def git(folder: Path, *args: str) -> str:
    name = ("-c", "user.name=A", "-c", "user.email=a@b.c")
    return subprocess.run(["git", *name, *args], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


REFUSED = "worldsim: it is torn; record again\n"


@pytest.mark.parametrize("name", ["ablation", "cost", "drift", "kv", "memory", "retrieval"])
def test_a_benchmark_that_is_refused_something_says_so_in_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def torn(*_: object, **__: object) -> None:
        raise DataError("it is torn; record again")

    for door in (
        "worldsim.load",
        "benchmarks.world_quality.explore_many",
        "worldsim.simulators.crafter.Crafter.__init__",
    ):
        monkeypatch.setattr(door, torn)
    monkeypatch.setattr("worldsim.training.data.Episodes", torn)
    monkeypatch.setattr("sys.argv", [name, *(["--out", str(tmp_path / "arms")] if name == "ablation" else [])])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "benchmarks" / f"{name}.py"), run_name="__main__")
    assert (ended.value.code, capsys.readouterr()) == (2, ("", REFUSED))
    assert not [*tmp_path.iterdir()]


def test_a_file_that_is_not_there_is_refused_so_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> None:
        Path("/nowhere/weights").read_bytes()

    monkeypatch.setattr("sys.argv", ["memory"])
    with pytest.raises(SystemExit) as ended:
        run(main)
    assert (ended.value.code, capsys.readouterr().err.count("\n")) == (2, 1)


def test_a_benchmark_that_goes_well_ends_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    def main(code: int) -> None:
        raise typer.Exit(code)

    for code in (0, 1):
        monkeypatch.setattr("sys.argv", ["memory", str(code)])
        with pytest.raises(SystemExit) as ended:
            run(main)
        assert ended.value.code == code


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init")
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    (tmp_path / "code.py").write_text("1")
    (tmp_path / "benchmarks" / "results" / "old.json").write_text("{}")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--message", "Begin")
    return tmp_path


def test_a_spread_is_median_least_greatest_and_count() -> None:
    assert spread([5.0, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 5.0, "count": 3}


def test_the_hardware_is_this_machine() -> None:
    found = hardware()
    assert found["cpu"]
    assert 1 <= found["cores"] <= (os.cpu_count() or 1)
    assert 0.1 < found["memory_gib"] < 100_000
    assert ("gpu" in found) == torch.cuda.is_available()


def test_provenance_names_versions_threads_and_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.orig_argv", ["/somewhere/python3", "-m", "benchmarks.record", "two words"])
    found = provenance()
    assert found["torch"] == torch.__version__
    assert found["threads"] == torch.get_num_threads()
    assert found["command"] == "python -m benchmarks.record 'two words'"
    assert found["hardware"] == hardware()


def test_a_commit_is_named_and_so_are_changes_to_it(repository: Path) -> None:
    head = git(repository, "rev-parse", "HEAD")
    assert commit(repository) == head
    (repository / "benchmarks" / "results" / "old.json").write_text("[]")
    assert commit(repository) == head
    (repository / "code.py").write_text("2")
    assert commit(repository) == f"{head} with changes"


def test_a_folder_outside_git_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert commit(tmp_path) == "unknown"


def test_what_is_written_can_be_read_back_with_where_it_comes_from(tmp_path: Path) -> None:
    path = write("speed", {"times": [1.23456789, 2.0], "of": {"blocks": 4, "name": "x"}}, folder=tmp_path / "new")
    found = json.loads(path.read_text())
    assert path == tmp_path / "new" / "speed.json"
    assert found["times"] == [1.235, 2.0]
    assert found["of"] == {"blocks": 4, "name": "x"}
    assert found["provenance"]["hardware"] == hardware()


def test_what_could_not_be_measured_is_null(tmp_path: Path) -> None:
    path = write("gaps", {"a": math.nan, "b": [math.inf]}, folder=tmp_path)
    found = json.loads(path.read_text())
    assert found["a"] is None
    assert found["b"] == [None]


def test_whoever_is_stopped_while_it_writes_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("one", {"value": 1}, folder=tmp_path)
    usual = Path.write_text

    def stopped(self: Path, text: str) -> int:
        usual(self, text[: len(text) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", stopped)
    with pytest.raises(KeyboardInterrupt):
        write("one", {"value": 2}, folder=tmp_path)
    assert json.loads(path.read_text())["value"] == 1
