"""The benchmark of drift: the same keys in both worlds, and a page that says what the reports say."""

from __future__ import annotations

from xml.etree import ElementTree

import av
import numpy as np
import pytest

from benchmarks import drift

SECONDS = 1


@pytest.fixture(scope="module")
def walk():
    found = drift.real_walk(drift.SEED, drift.CONTEXT + 8 * SECONDS)
    assert found is not None
    return found


def test_a_walk_is_the_same_every_time_and_has_a_key_and_an_hour_for_each_frame(walk):
    shown, keys, hours = walk
    again, *_ = drift.real_walk(drift.SEED, drift.CONTEXT + 8 * SECONDS)
    assert len(shown) == len(keys) == len(hours) == drift.CONTEXT + 8 * SECONDS
    assert np.array_equal(shown, again)
    assert len(set(keys)) > 1
    assert [hour - hours[0] for hour in hours] == list(range(len(hours)))


def test_walks_on_which_the_player_dies_are_left_out(monkeypatch):
    monkeypatch.setattr(drift, "real_walk", lambda seed, frames: None if seed % 3 else seed)
    assert [seed % 3 for seed, _ in zip(drift.walks(SECONDS), range(4), strict=False)] == [0] * 4


def test_a_walk_begins_where_the_shared_frames_end(walk):
    assert np.array_equal(drift.walk(drift.SEED, SECONDS, None), walk[0][drift.CONTEXT :])


def test_both_worlds_are_filmed_from_where_they_part(tmp_path, walk):
    drift.film(drift.SEED, SECONDS, tmp_path)
    for kind in drift.KINDS:
        with av.open(tmp_path / kind / f"{drift.SEED}.mp4") as film:
            frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
        assert len(frames) == 8 * SECONDS
        assert frames[0].shape == (576, 576, 3)
        if kind == "real":
            shown = walk[0][drift.CONTEXT].repeat(drift.SCALE, 0).repeat(drift.SCALE, 1)
            assert np.abs(frames[0].astype(float) - shown).mean() < 6


def report(value):
    chunks = {name: [value, value / 2] for name in drift.DRIFTS}
    known = {"mean": value, "low": value - 0.1, "high": value + 0.1, "count": 9}
    few = {"mean": value, "low": None, "high": None, "count": 4}
    none = {"mean": None, "low": None, "high": None, "count": 0}
    summary = {f"drift.{name}": known for name in drift.DRIFTS} | {"drift.dynamic": few, "drift.identity": none}
    return {"videos": [{"chunks": chunks}, {"unscored": "too short"}], "summary": summary}


def test_the_page_tells_the_means_and_who_drifts_less():
    comparisons = [{"score": f"drift.{name}", "verdict": "no difference shown", "count": 9} for name in drift.DRIFTS]
    comparisons[0]["verdict"] = "B is better"
    comparisons[-1] |= {"verdict": "not compared", "count": 0}
    hardware = {"cpu": "an abacus", "cores": 2}
    result = {
        "walks": 9,
        "seconds": 60,
        "comparisons": comparisons,
        "provenance": {"command": "it", "hardware": hardware, "commit": "c" * 40},
    }
    text = drift.page(result, {"generated": report(0.5), "real": report(0.25)}, "| effects |")
    assert "| clarity | 0.5000 (0.4000 to 0.6000) | 0.2500 (0.1500 to 0.3500) | the real drift less |" in text
    assert "| dynamic | 0.5000, of 4 walks | 0.2500, of 4 walks | no difference shown |" in text
    assert "| identity | unscored, of 0 walks | unscored, of 0 walks | not compared |" in text
    assert text.count("| no difference shown |") == len(drift.DRIFTS) - 2
    assert f"{len(drift.DRIFTS) - 1} scores, pair by pair" in text
    assert "9 walks of 60 s" in text
    assert "| effects |" in text


def test_the_drawing_has_a_curve_for_each_dimension_of_each_world():
    root = ElementTree.fromstring(drift.drawing({"generated": report(0.5), "real": report(0.25)}))
    inside = root.findall("{http://www.w3.org/2000/svg}svg")
    assert [one.get("aria-label") for one in inside] == [
        f"{name}, {kind}" for name in drift.DRIFTS for kind in drift.KINDS
    ]
    assert len({(one.get("x"), one.get("y")) for one in inside}) == len(inside)


def test_what_is_generated_and_what_is_real_is_drawn_on_one_scale():
    root = ElementTree.fromstring(drift.drawing({"generated": report(0.5), "real": report(0.25)}))
    inside = root.findall("{http://www.w3.org/2000/svg}svg")
    scales = [[text.text for text in one.iter("{http://www.w3.org/2000/svg}text")] for one in inside]
    assert scales[::2] == scales[1::2]
    assert len(scales[0]) >= 2
