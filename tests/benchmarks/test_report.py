"""The page of what was measured is what the results say, and nothing else."""

from __future__ import annotations

import json
import re

import pytest

from benchmarks.record import RESULTS, ROOT
from benchmarks.report import (
    DRIFTS,
    LIVE,
    PARTS,
    QUALITY,
    SECTIONS,
    drifting,
    fewer_bits,
    finding,
    growing_old,
    policies,
    published,
    reading,
    remembering,
    report,
    table,
    worth,
)


def test_the_page_is_that_of_the_committed_results():
    assert (ROOT / "docs" / "measured.md").read_text() == report(RESULTS)


def test_every_section_has_its_table_and_says_what_it_came_from():
    page = report(RESULTS)
    measured = {name: title for name, (title, _) in SECTIONS.items() if (RESULTS / f"{name}.json").exists()}
    assert {"world_quality", "decode-crafter", "live"} <= set(measured)
    for name, title in measured.items():
        told = json.loads((RESULTS / f"{name}.json").read_text())["provenance"]
        assert f"## {title}" in page
        assert f"`{told['command']}`" in page
        assert told["commit"][:12] in page
        assert told["hardware"].get("gpu", "") in page


def test_a_number_that_changes_in_the_results_changes_on_the_page(tmp_path):
    result = json.loads((RESULTS / "world_quality.json").read_text())
    result["measures"]["sun_sets"]["value"] = 0.123
    (tmp_path / "world_quality.json").write_text(json.dumps(result))
    page = report(tmp_path)
    assert f"{QUALITY['sun_sets']} | 12.3%" in page
    assert page.count("## ") == 1


def test_a_bar_that_was_missed_is_named(tmp_path):
    result = json.loads((RESULTS / "live.json").read_text())
    result["cuts"]["bars"]["all equal"] = False
    (tmp_path / "live.json").write_text(json.dumps(result))
    (row,) = (line for line in report(tmp_path).splitlines() if "cut at random bytes" in line)
    assert row.endswith("| missed: all equal |")


def test_of_every_past_it_is_told_what_is_read_of_it_before_and_after_teaching():
    def right(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 0.05, "high": value + 0.05, "judged": 321}

    rows = {"the window": 0.2, "the nearest runs": 0.4}
    found = {
        "as shipped": {past: right(value) for past, value in rows.items()},
        "taught in 9 updates": {past: right(2 * value) for past, value in rows.items()},
    }
    page = reading({"right": found})
    head, _, *lines = page.splitlines()[:4]
    assert "| tiles right, as shipped (95 %) | tiles right, taught in 9 updates (95 %) | judged |" in head
    assert lines == [
        "| the window | 20.0% (15.0% to 25.0%) | 40.0% (35.0% to 45.0%) | 321 |",
        "| the nearest runs | 40.0% (35.0% to 45.0%) | 80.0% (75.0% to 85.0%) | 321 |",
    ]


def test_what_is_remembered_is_told_of_every_world():
    right = {"value": 0.912, "low": 0.85, "high": 0.95, "judged": 321}
    nothing = {"value": None, "low": None, "high": None, "judged": 0}
    worlds = {
        "recalls": {"right": right, "by_chance": 0.3, "lost": 1, "farthest": {"median": 17}, "psnr_db": 21.24},
        "window": {"right": nothing, "by_chance": None, "lost": 10, "farthest": None, "psnr_db": None},
    }
    rest = {"asked": 10, "changed": {"right": 3, "judged": 4}, "commit": "0123456789abcdef"}
    found = {name: {**one, **rest} for name, one in worlds.items()}
    page = remembering({"away_s": 15, "worlds": found})
    assert "| recalls | 91.2% (85.0% to 95.0%) | 321 | 30.0% | 9 of 10 | 17 | 21.2 dB | 3 of 4 |" in page
    assert "| window |  | 0 |  | 0 of 10 | 0 |  | 3 of 4 |" in page
    assert "stays away for 15 s" in page
    assert "at several commits" not in page
    found["window"]["commit"] = "e" * 40
    page = remembering({"away_s": 15, "worlds": found})
    assert page.endswith("and their names: at `0123456789ab` recalls; at `eeeeeeeeeeee` window.")
    assert "goes round a square" in remembering({"away_s": None, "worlds": found})
    found["window"]["commit"] = found["recalls"]["commit"]
    told = "Rows were measured by this command with `--only` and their names."
    for only, is_told in (("", False), (" --only recalls --only window", False), (" --only window", True)):
        page = remembering({"away_s": 5, "worlds": found, "provenance": {"command": f"python -m it{only}"}})
        assert (told in page) is is_told


def test_what_remembering_costs_is_told_by_age():
    world = {
        "block_ms": {"1": {"median": 50.0}, "60": {"median": 51.2}},
        "growth": {"median": 1.024},
        "to_window": {"median": 1.05},
        "bytes": {"1": {"pages": 2_000_000, "latents": 500_000}, "60": {"pages": 3_000_000, "latents": 0}},
    }
    page = growing_old({"worlds": {"recalls": world}})
    assert "ms a block at 1 / 60 minutes" in page
    assert "| recalls | 50 / 51 | 1.02 | 1.05 | 2.5 / 3.0 | 0.01 |" in page


def test_every_policy_is_told_side_by_side_whatever_of_it_was_measured():
    spent = {"block_ms": {"1": {"median": 1.0}, "60": {"median": 97.4}}, "to_window": {"median": 1.113}}
    cost = {"worlds": {"pages": spent | {"bytes": {"1": {"pages": 1}, "60": {"pages": 2e8, "latents": 9e7}}}}}
    ends = {"30": {}, "60": {kind: {"mean": 0.0123} for kind in DRIFTS}}
    drift = {"ends": [30, 60], "worlds": {"the real engine": {"drift": ends}, "pages": {"drift": ends}}}
    right = {"value": 0.311, "low": 0.242, "high": 0.378, "judged": 979}
    memory = {"away_s": 15.0, "worlds": {"pages": {"right": right}, "full": {"right": {"value": None}}}}
    lines = policies(cost, drift, memory).splitlines()
    assert lines[2:5] == [
        "| the real engine | - | - | 0.012 | 0.012 | - |",
        "| pages | 97; 1.11 | 290 | 0.012 | 0.012 | 31% (24% to 38%) |",
        "| full | - | - | - | - | - |",
    ]
    assert "walks of 60 s" in lines[-1]


def test_likenesses_are_told_from_the_best_to_the_worst():
    one = {"low": 0.1, "high": 0.9, "judged": 7}
    page = finding({"right": {"one": {"value": 0.3, **one}, "two": {"value": 0.5, **one}}})
    assert page.index("| two | 50.0% (10.0% to 90.0%) | 7 |") < page.index("| one | 30.0%")


def test_fewer_bits_are_told_with_what_they_cost():
    change = {"value": 0.01, "low": -0.02, "high": 0.03}
    one = {
        "bytes": {"window_share": 0.254, "page_share_of_16_bits": 0.508},
        "held_bytes": {"share": 1.0442},
        "to_exact": {"median": 1.234},
        "likeness": {"change_db": change, "identical": 0.5},
    }
    page = fewer_bits({"storages": {"int8": one}})
    assert "| int8 | 0.254 | 0.508 | 1.044 | 1.23 | +0.010 dB (-0.020 to +0.030) | 50.0% |" in page


def test_what_differs_from_the_base_on_every_seed_is_set_apart():
    one = {"mean": 0.98, "min": 0.96, "max": 0.99, "count": 2, "beyond_seeds": False}
    rows = {"base": {"clean_after_10s": one}, "forcing": {"clean_after_10s": {**one, "beyond_seeds": True}}}
    page = worth({"rows": rows, "seeds": 2})
    assert "| base | - | - | - | - | - | - | - | 98.0% (96.0% to 99.0%) |" in page
    assert "| forcing | - | - | - | - | - | - | - | **98.0% (96.0% to 99.0%)** |" in page
    assert "Means of 2 seeds" in page


def test_drift_is_told_of_every_world_at_every_end():
    def scored(mean, count):
        bounds = {"low": mean - 0.1, "high": mean + 0.1} if count else {"low": None, "high": None}
        one = {"mean": mean if count else None, "count": count, **bounds}
        return dict.fromkeys(DRIFTS, one)

    real, full = {"60": scored(0.5, 3), "600": scored(0.25, 3)}, {"60": scored(1, 0)}
    worlds = {"real": {"drift": real, "commit": "f" * 40}, "full": {"drift": full, "commit": "e" * 40}}
    page = drifting({"worlds": worlds, "walks": 3, "ends": [60, 600]})
    assert "| real " + 6 * "| 0.500 / 0.250 (0.150 to 0.350) " + "|" in page
    assert "| full " + 6 * "| - " + "|" in page
    assert "3 walks at 60 / 600 seconds" in page
    assert page.endswith("at `ffffffffffff` real; at `eeeeeeeeeeee` full.")


@pytest.mark.parametrize("rows", [[], [["1", "2"]], [["1", "2"], ["3", "4"]]])
def test_a_table_has_as_many_cells_in_every_line(rows):
    lines = table(["a", "b"], rows).splitlines()
    assert len(lines) == 2 + len(rows)
    assert {len(re.findall(r"\|", line)) for line in lines} == {3}


def test_all_that_is_measured_has_a_name():
    measures = json.loads((RESULTS / "world_quality.json").read_text())["measures"]
    assert set(QUALITY) <= set(measures)
    live = json.loads((RESULTS / "live.json").read_text())
    assert set(LIVE) == {name for name, found in live.items() if isinstance(found, dict) and "bars" in found}
    assert len(PARTS) == 7


def test_what_a_block_of_a_published_model_takes_is_told_by_part():
    def spread(median):
        return {"median": median, "min": 1, "max": 999, "count": 3}

    parts = {"denoise_ms": 201.2, "commit_ms": 50.4, "decode_ms": 20.9, "whole_ms": 280.1}
    block = {name: spread(value) for name, value in parts.items()} | {"fps": 42.84, "ratio_to_floor": spread(0.915)}
    settings = {"window 12": block, "window 21": {**block, "peak_gb": 21.37}}
    page = published({"pixels": [480, 832], "dtype": "bfloat16", "settings": settings})
    rows = [line for line in page.splitlines() if line.startswith("| window")]
    assert [[cell.strip() for cell in row.strip("|").split("|")] for row in rows] == [
        ["window 12", "42.8", "201", "50", "21", "280", "0.92", "-"],
        ["window 21", "42.8", "201", "50", "21", "280", "0.92", "21.4"],
    ]
    assert "832 x 480" in page
    assert "bfloat16" in page
