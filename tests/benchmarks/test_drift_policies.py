"""Long walks are filmed once, scored up to several moments, and told of every world that was asked for."""

from __future__ import annotations

import json

import av
import numpy as np
import pytest
import typer

from benchmarks import drift_policies
from benchmarks.report import DRIFTS


@pytest.fixture
def asked(monkeypatch):
    """The walks that were made: settings and seconds of each."""
    made = []

    def walk(seed, seconds, settings):
        made.append((seed, seconds, settings))
        return np.random.default_rng(seed).integers(0, 255, (8 * seconds, 72, 72, 3), np.uint8)

    monkeypatch.setattr(drift_policies, "walk", walk)
    return made


def test_one_walk_is_filmed_up_to_every_end_and_never_again(tmp_path, asked):
    for _ in range(2):
        drift_policies.film(3, (1, 2), {"policy": "full"}, tmp_path)
    assert asked == [(3, 2, {"policy": "full"})]
    for end in (1, 2):
        with av.open(tmp_path / str(end) / "3.mp4") as film:
            assert sum(1 for _ in film.decode(video=0)) == 8 * end


def test_folders_of_worlds_are_apart():
    folders = {drift_policies.folder_of(world) for world in drift_policies.ALL}
    assert len(folders) == len(drift_policies.ALL)
    assert all(set(folder) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") for folder in folders)


def test_drift_is_read_off_the_report_of_lvbench(tmp_path):
    drift_policies.film(600_000_000, (5,), None, tmp_path)
    found = drift_policies.score(tmp_path / "5", workers=1)
    assert list(found) == list(DRIFTS)
    told = json.loads((tmp_path / "5-report" / "scores.json").read_text())["summary"]
    assert {name: found[name]["mean"] for name in DRIFTS} == {name: told[f"drift.{name}"]["mean"] for name in DRIFTS}
    assert found["clarity"]["count"] == 1


def test_every_world_that_is_asked_for_is_written_beside_those_known(tmp_path, monkeypatch):
    written, filmed = {}, []
    monkeypatch.setattr(drift_policies, "write", lambda name, result: written.update(json.loads(json.dumps(result))))
    monkeypatch.setattr(drift_policies, "walks", lambda seconds: iter([5, 6, 7]))
    monkeypatch.setattr(drift_policies, "score", lambda folder, workers: {"clarity": {"mean": int(folder.name)}})
    monkeypatch.setattr(drift_policies, "known", lambda name, about: {"full": {"drift": "known"}})
    monkeypatch.setattr(drift_policies, "ProcessPoolExecutor", Here)
    folders = set()

    def film(seed, ends, settings, folder):
        filmed.append((seed, ends, settings))
        folders.add(folder.relative_to(tmp_path).parts[1:])

    monkeypatch.setattr(drift_policies, "film", film)
    drift_policies.main(walked=2, ends=[9, 7], only=["the real engine", "recalls"], folder=tmp_path)
    assert filmed == [(seed, [7, 9], settings) for settings in (None, {}) for seed in (5, 6)]
    assert list(written["worlds"]) == ["the real engine", "recalls", "full"]
    assert written["worlds"]["recalls"]["drift"] == {"7": {"clarity": {"mean": 7}}, "9": {"clarity": {"mean": 9}}}
    assert written["ends"] == [7, 9]
    assert folders == {("2 of 9 s", "the-real-engine"), ("2 of 9 s", "recalls")}


def test_a_world_that_is_not_there_is_refused():
    with pytest.raises(typer.BadParameter, match="no world fulll; known: the real engine; recalls"):
        drift_policies.main(only=["fulll"])


class Here:
    """A pool without processes."""

    def __init__(self, workers, mp_context):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def map(self, do, items):
        return [do(item) for item in items]
