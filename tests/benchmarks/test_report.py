"""The page of what was measured is what the results say, and nothing else."""

from __future__ import annotations

import json
import re

import pytest

from benchmarks.record import RESULTS, ROOT
from benchmarks.report import LIVE, PARTS, QUALITY, SECTIONS, report, table


def test_the_page_is_that_of_the_committed_results():
    assert (ROOT / "docs" / "measured.md").read_text() == report(RESULTS)


def test_every_section_has_its_table_and_says_what_it_came_from():
    page = report(RESULTS)
    for name, (title, _) in SECTIONS.items():
        told = json.loads((RESULTS / f"{name}.json").read_text())["provenance"]
        assert f"## {title}" in page
        assert f"`{told['command']}`" in page
        assert told["commit"][:12] in page


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
