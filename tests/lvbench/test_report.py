"""A report tells every value and every reason, in the same bytes for the same records, and is read back."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest

from lvbench.errors import ReportError
from lvbench.examine import Record, Refused, Settings
from lvbench.judge import judge
from lvbench.measures import DIMENSIONS
from lvbench.reference import Likeness
from lvbench.report import read_scores, report_of, write, write_csv, write_json
from lvbench.score import Score, Unscored
from lvbench.video import Facts
from tests.lvbench.test_measures import features

FACTS = Facts(container="mp4", codec="h264", size=(48, 64), fps=16.0)


def record(name: str, seed: int, likeness: Likeness | Unscored | None = None) -> Record:
    judged = judge(features(seed=seed), {}, tuple(DIMENSIONS), 5)
    return Record(name=name, sha256="0" * 64, facts=FACTS, frames=43, judged=judged, likeness=likeness)


@pytest.fixture
def settings(tmp_path):
    return Settings(store=tmp_path / "cache", chunks=5)


@pytest.fixture
def records():
    like = Likeness({"ssim": [0.5, math.nan, 0.5, 0.5, 0.5]}, {"ssim": Score(0.5, 43)})
    return [record("b.mp4", 1, like), record("a.mp4", 0, Unscored("no such file")), Refused("c.mp4", "no frames")]


def test_a_report_has_every_value_and_every_reason(records, settings):
    report = report_of(records, settings, 7)
    assert report["schema"] == 1
    assert report["extractor"]["name"] == "light"
    assert report["extractor"]["reason"] == "it was asked for"
    assert len(report["extractor"]["fingerprint"]) == 64
    assert report["extractor"]["weights"] == report["lpips"] == {}
    assert report["decoder"].startswith("PyAV")
    assert report["settings"] == {"chunks": 5, "dimensions": list(DIMENSIONS), "seed": 7}
    a, b, c = report["videos"]
    assert c == {"name": "c.mp4", "unscored": "no frames"}
    assert b["chunks"]["clarity"] == list(records[0].judged.chunks["clarity"])
    assert b["scores"]["drift.clarity"]["value"] == records[0].judged.scores["drift.clarity"].value
    assert b["reference"]["chunks"]["ssim"] == [0.5, None, 0.5, 0.5, 0.5]
    assert a["reference"] == {"unscored": "no such file"}


def test_a_mean_counts_each_video_once_and_says_who_is_left_out(records, settings):
    judged = judge(features(), {}, tuple(DIMENSIONS), 5)
    infinite = {**judged.scores, "vde_linear.clarity": Score(math.inf, 5), "drift.clarity": Unscored("it is 0")}
    odd = Record(
        name="d.mp4",
        sha256="",
        facts=FACTS,
        frames=43,
        judged=type(judged)(judged.chunks, infinite),
    )
    summary = report_of([*records, odd], settings, 0)["summary"]
    values = [one.judged.scores["drift.clarity"].value for one in records[:2]]
    assert summary["drift.clarity"]["mean"] == pytest.approx(sum(values) / 2)
    assert summary["drift.clarity"]["unscored"] == {"it is 0": 1}
    assert summary["vde_linear.clarity"]["unscored"] == {"as published it is inf": 1}
    assert summary["drift.motion"]["count"] == 3
    assert summary["ssim"] == {"mean": 0.5, "low": None, "high": None, "count": 1, "unscored": {}}


def test_the_order_of_the_records_changes_no_byte(records, settings, tmp_path):
    for at, order in enumerate((records, records[::-1])):
        folder = tmp_path / str(at)
        folder.mkdir()
        report = report_of(order, settings, 0)
        write_json(report, folder)
        write_csv(report, folder)
    for name in ("scores.json", "scores.csv"):
        assert (tmp_path / "0" / name).read_bytes() == (tmp_path / "1" / name).read_bytes()


def test_json_is_strict_and_is_read_back(records, settings, tmp_path):
    write_json(report_of(records, settings, 0), tmp_path)
    json.loads((tmp_path / "scores.json").read_text(), parse_constant=pytest.fail)
    for place in (tmp_path, tmp_path / "scores.json"):
        scores = read_scores(place)
        assert set(scores.videos) == {"a.mp4", "b.mp4"}
        assert scores.videos["b.mp4"] == records[0].judged.scores
        assert scores.made_with["chunks"] == 5


def test_a_table_has_a_row_for_each_dimension_of_each_video(records, settings, tmp_path):
    write_csv(report_of(records, settings, 0), tmp_path)
    rows = list(csv.DictReader((tmp_path / "scores.csv").read_text().splitlines()))
    assert len(rows) == 2 * len(DIMENSIONS) + 1
    first = rows[0]
    assert (first["video"], first["dimension"]) == ("a.mp4", "clarity")
    assert float(first["drift"]) == records[1].judged.scores["drift.clarity"].value
    assert [float(first[f"chunk_{at}"]) for at in range(1, 6)] == list(records[1].judged.chunks["clarity"])
    assert (rows[-1]["video"], rows[-1]["unscored"]) == ("c.mp4", "no frames")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "cannot be read"),
        ("hello", "no report of lvbench"),
        ("[]", "no report of lvbench"),
        ("[" * 100_000, "no report of lvbench"),
        ('{"schema": 2}', "has schema 2, this lvbench reads 1"),
        ('{"schema": 1, "videos": [{"name": "a"}]}', "no report of lvbench"),
    ],
)
def test_what_is_no_report_is_refused(tmp_path, text, reason):
    if text is not None:
        (tmp_path / "scores.json").write_text(text)
    with pytest.raises(ReportError, match=reason):
        read_scores(tmp_path)


def test_a_file_that_cannot_be_written_says_so_and_leaves_the_old_one(tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(ReportError, match="cannot be written"):
        write(tmp_path / "file" / "scores.json", "new")
    assert (tmp_path / "file").read_text() == "old"
    (tmp_path / "folder").mkdir()
    with pytest.raises(ReportError, match="cannot be written"):
        write(tmp_path / "folder", "new")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}


def test_two_runs_may_write_one_report_at_once(tmp_path, monkeypatch):
    replace = Path.replace

    def interrupted(part, path):
        monkeypatch.setattr(Path, "replace", replace)
        write(path, "of the other")
        return replace(part, path)

    monkeypatch.setattr(Path, "replace", interrupted)
    write(tmp_path / "a", "of the one")
    assert (tmp_path / "a").read_text() == "of the one"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_name_of_any_bytes_can_be_written(tmp_path):
    write(tmp_path / "a", "video \udcff.mp4")
    assert (tmp_path / "a").read_text() == "video \\udcff.mp4"
