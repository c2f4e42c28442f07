"""Pictures show every value of a result in its row, and every committed result has the picture of what it says."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from benchmarks import plots
from benchmarks.record import RESULTS

NAMES = [name for name in plots.PLOTS if (RESULTS / f"{name}.json").exists()]


def shown(made: Figure, picture: int, series: int = 0) -> list[tuple[int, float]]:
    """Row and value of every dot of a series."""
    xs, ys = made.axes[picture].containers[series].lines[0].get_data()
    return [*zip(map(int, ys), map(float, xs), strict=True)]


def rows(made: Figure) -> list[str]:
    return [label.get_text() for label in made.axes[0].get_yticklabels()]


def share(rng: np.random.Generator) -> dict[str, Any]:
    low, value, high = sorted(rng.random(3))
    return {"value": value, "low": low, "high": high, "judged": 5}


@pytest.mark.parametrize("name", NAMES)
def test_a_committed_picture_names_every_row_of_its_result(name: str) -> None:
    result = json.loads((RESULTS / f"{name}.json").read_text())
    picture = (RESULTS / f"{name}.svg").read_text()
    for row in rows(plots.PLOTS[name](result)):
        assert f">{row}<" in picture, f"run python -m benchmarks.plots: {row} is missing"


def test_results_without_a_picture_and_pictures_without_a_result_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "live.json").write_text("{}")
    (tmp_path / "kv.json").write_bytes((RESULTS / "kv.json").read_bytes())
    plots.draw(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kv.json", "kv.svg", "live.json"]


@pytest.mark.parametrize("name", ["kv", "cost"])
def test_equal_results_give_equal_bytes_and_others_do_not(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.json"
    path.write_bytes((RESULTS / f"{name}.json").read_bytes())
    plots.draw(tmp_path)
    once = path.with_suffix(".svg").read_bytes()
    plots.draw(tmp_path)
    assert path.with_suffix(".svg").read_bytes() == once
    other = json.loads(path.read_text())
    first = next(iter(other["storages" if name == "kv" else "worlds"].values()))
    if name == "kv":
        first["likeness"]["change_db"] = {"value": -0.3, "low": -0.4, "high": -0.2}
    else:
        first["block_ms"] = {age: {**ms, "median": 3 * ms["median"]} for age, ms in first["block_ms"].items()}
    path.write_text(json.dumps(other))
    plots.draw(tmp_path)
    assert path.with_suffix(".svg").read_bytes() != once


@pytest.mark.parametrize("seed", range(3))
def test_places_are_drawn_with_interval_and_chance_and_a_world_nobody_came_home_in_has_no_dot(seed: int) -> None:
    rng = np.random.default_rng(seed)
    nothing = {"right": {"value": None, "low": None, "high": None, "judged": 0}, "by_chance": None}
    worlds = {name: {"right": share(rng), "by_chance": rng.random()} for name in ("recalls", "window", "full")}
    made = plots.remembering({"worlds": {**worlds, "lost": nothing}})
    assert rows(made) == ["recalls", "window", "full", "lost"]
    rights = [found["right"] for found in worlds.values()]
    assert shown(made, 0) == [(row, pytest.approx(right["value"])) for row, right in enumerate(rights)]
    segments = made.axes[0].containers[0].lines[2][0].get_segments()
    assert [segment[:, 0].tolist() for segment in segments] == [pytest.approx([r["low"], r["high"]]) for r in rights]
    by_chance = made.axes[0].get_lines()[-2]
    assert by_chance.get_xdata() == pytest.approx([found["by_chance"] for found in worlds.values()])


def test_every_age_has_its_dots_for_time_and_bytes() -> None:
    world = {"block_ms": {"1": {"median": 50.0}, "60": {"median": 55.0}}}
    world["bytes"] = {"1": {"pages": 2e6, "latents": 1e6}, "60": {"pages": 4e6, "latents": 1e6}}
    other = copy.deepcopy(world)
    other["block_ms"]["60"]["median"] = 99.0
    made = plots.growing_old({"worlds": {"one": world, "other": other}})
    assert [shown(made, 0, age) for age in (0, 1)] == [[(0, 50.0), (1, 50.0)], [(0, 55.0), (1, 99.0)]]
    assert [shown(made, 1, age) for age in (0, 1)] == [[(0, 3.0), (1, 3.0)], [(0, 5.0), (1, 5.0)]]
    assert [text.get_text() for text in made.legends[0].get_texts()] == ["1 min", "60 min"]


def test_drift_is_drawn_at_every_end_and_left_out_where_nothing_was_scored() -> None:
    def scored(mean: float, count: int) -> dict[str, Any]:
        one = {"mean": mean if count else None, "low": None, "high": None, "count": count}
        return {"clarity": one, "identity": {**one, "mean": 2 * mean if count else None}}

    real = {"drift": {"60": scored(0.5, 3), "600": scored(0.25, 3)}}
    worlds = {"real": real, "full": {"drift": {"60": scored(0.7, 2), "600": scored(0, 0)}}}
    made = plots.drifting({"worlds": worlds, "ends": [60, 600]})
    assert shown(made, 0, 0) == [(0, 0.5), (1, 0.7)]
    assert shown(made, 0, 1) == [(0, 0.25)]
    assert shown(made, 1, 0) == [(0, 1.0), (1, 1.4)]


def test_parts_are_drawn_with_the_spread_of_their_seeds_and_without_where_training_began() -> None:
    one = {kind: {"mean": 0.9, "min": 0.8, "max": 0.95} for kind in plots.WORTH}
    made = plots.worth({"rows": {"start": one, "base": one, "forcing": {}}})
    assert rows(made) == ["base", "forcing"]
    assert [shown(made, picture) for picture in range(len(plots.WORTH))] == [[(0, 0.9)]] * len(plots.WORTH)


def test_likenesses_are_drawn_from_the_best_to_the_worst() -> None:
    rng = np.random.default_rng(0)
    right = {name: share(rng) for name in ("random", "one", "two", "three")}
    made = plots.finding({"right": right})
    values = [value for _, value in shown(made, 0)]
    assert values == sorted(values, reverse=True)
    assert rows(made) == sorted(right, key=lambda name: -right[name]["value"])


def test_fewer_bits_are_drawn_with_their_bytes() -> None:
    codes = {
        name: {
            "likeness": {"change_db": {"value": change, "low": change, "high": change}},
            "bytes": {"window_share": s},
        }
        for name, change, s in (("exact", 0.0, 1.0), ("kivi2", -0.2, 0.25))
    }
    made = plots.fewer_bits({"storages": codes})
    assert shown(made, 0) == [(0, 0.0), (1, -0.2)]
    assert [bar.get_width() for bar in made.axes[1].patches] == [1.0, 0.25]
