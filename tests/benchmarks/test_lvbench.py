"""What benchmarks.lvbench times, and how it counts."""

from __future__ import annotations

import importlib
import time
from pathlib import Path

import av
import numpy as np
import pytest

from benchmarks import lvbench as timing
from lvbench.extractor import Slots
from tests.lvbench.random_weights import TINY

COUNTS = timing.Counts(seconds=2, repeats=2, calls=2)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return timing.film(tmp_path_factory.mktemp("film") / "a.mp4", (48, 64), 2)


def test_it_does_not_stand_before_the_package_that_it_times():
    assert Path(importlib.import_module("lvbench").__file__).parent.name == "lvbench"
    assert timing.__name__ == "benchmarks.lvbench"


def test_the_film_moves_and_is_as_long_as_asked(small):
    with av.open(str(small)) as file:
        frames = [frame.to_ndarray(format="rgb24").astype(float) for frame in file.decode(video=0)]
        assert file.streams.video[0].average_rate == timing.FPS
    assert len(frames) == 2 * timing.FPS
    assert frames[0].shape == (48, 64, 3)
    assert min(np.abs(frames[at] - frames[at + 1]).mean() for at in range(len(frames) - 1)) > 3


def test_speed_is_seconds_of_video_by_seconds_taken(small, monkeypatch):
    monkeypatch.setattr(timing, "decoding", lambda path: time.sleep(0.02))
    monkeypatch.setattr(timing, "extracting", lambda path: time.sleep(0.1))
    found = timing.light(small, COUNTS)
    assert found["decoding_alone"]["max"] <= 2 / 0.02
    assert 2 / 0.3 < found["light"]["median"] <= 2 / 0.1
    assert found["light"]["count"] == 2
    times = found["light_takes_times_decoding"]
    assert times["min"] <= found["decoding_alone"]["max"] / found["light"]["min"]
    assert times["max"] > 1


def test_the_peak_is_of_a_process_that_only_measures(small):
    held = b"x" * 500_000_000
    assert 50 < timing.peak_mb(small) < len(held) / 1e6


def test_a_call_of_a_network_is_worth_the_frames_that_it_serves():
    frames = np.zeros((8, 48, 64, 3), np.uint8)
    called: list[tuple[str, object]] = []

    def slot(name):
        return lambda *given: called.append((name, [each.shape for each in given]))

    names = ("clarity", "aesthetic", "background", "subject", "between", "flow")
    found = timing.calls(Slots(**{name: slot(name) for name in names}), frames, 16.0)
    for call, _ in found.values():
        call()
    assert [name for name, _ in called] == list(names)
    assert called[0][1] == [(8, 48, 64, 3)]
    assert called[-1][1] == [(48, 64, 3)] * 2
    assert [worth for _, worth in found.values()] == [8, 8, 8, 8, 1, 2]  # flow is looked at every second frame of 16


def test_each_network_is_timed_with_weights_that_are_random_and_the_same(small, tmp_path):
    networks = timing.random_networks(tmp_path, TINY, seed=3)
    found = timing.published(small, networks, COUNTS)
    assert found["on"].startswith("torch ")
    each = [value for name, value in found.items() if name not in ("on", "all")]
    assert len(each) == 6
    assert all(value["count"] == 2 and value["min"] > 0 for value in each)
    assert found["all"]["max"] < min(value["max"] for value in each)
    hashes = {name: weights.sha256 for name, weights in networks.weights.items()}
    again = timing.random_networks(tmp_path, TINY, seed=3)
    assert {name: weights.sha256 for name, weights in again.weights.items()} == hashes


def test_a_call_that_serves_half_a_second_of_video_in_a_tenth_makes_five(small, monkeypatch):
    monkeypatch.setattr(timing, "slots_of", lambda networks: None)
    monkeypatch.setattr(timing, "calls", lambda slots, frames, fps: {"a": (lambda: time.sleep(0.1), fps / 2)})
    found = timing.published(small, None, COUNTS)
    assert 2 < found["a"]["median"] <= 5
    assert found["all"] == found["a"]


@pytest.mark.parametrize(("speed", "peak", "wanted"), [(1.0, 999.0, (True, True)), (0.9, 1000.0, (False, False))])
def test_a_bar_is_reached_or_not(speed, peak, wanted):
    found = {"seconds_of_video_a_second": {"light": {"median": speed}}, "peak_mb": {"large": peak}}
    assert tuple(timing.reached(found).values()) == wanted


def test_all_of_it_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "LARGE", (96, 128))
    monkeypatch.setattr(timing, "SIZE", (48, 64))
    found = timing.measure(COUNTS, tmp_path, TINY)
    assert set(found["reached"]) == set(found["bar"])
    assert found["film"] == {"seconds": 2, "fps": 16, "size": [48, 64], "large": [96, 128]}
    assert found["peak_mb"]["large"] > 0
