"""A report tells every value and every reason, in the same bytes for the same records, and is read back."""

from __future__ import annotations

import csv
import errno
import json
import math
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lvbench.consistency import consistency
from lvbench.drift import drift, identity
from lvbench.dynamics import dynamic_degree
from lvbench.errors import ReportError
from lvbench.examine import READER, Record, Refused, Settings
from lvbench.judge import judge
from lvbench.measures import COMPANIONS, DIMENSIONS, chunk_values
from lvbench.motion import Mover
from lvbench.reference import LIKENESSES, Likeness
from lvbench.report import (
    JUDGING,
    csv_of,
    higher_is_better,
    range_of,
    read_scores,
    report_of,
    title,
    write,
    write_report,
)
from lvbench.score import Score, Unscored
from lvbench.store import hash_of_code
from lvbench.video import Facts
from tests.lvbench.test_measures import features

FACTS = Facts(container="mp4", codec="h264", size=(48, 64), fps=16.0)


REAL = "1" * 64


def record(name: str, seed: int, likeness: Likeness | Unscored | None = None, facts: Facts = FACTS) -> Record:
    judged = judge(features(seed=seed), {}, tuple(DIMENSIONS), 5)
    real = REAL if isinstance(likeness, Likeness) else None
    return Record(
        name=name,
        sha256="0" * 64,
        facts=facts,
        frames=43,
        judged=judged,
        likeness=likeness,
        reference_sha256=real,
    )


@pytest.fixture
def settings(tmp_path):
    return Settings(store=tmp_path / "cache", chunks=5)


@pytest.fixture
def records():
    like = Likeness({"ssim": [0.5, math.nan, 0.5, 0.5, 0.5]}, {"ssim": Score(0.5, 43)})
    return [record("b.mp4", 1, like), record("a.mp4", 0, Unscored("no such file")), Refused("c.mp4", "no frames")]


def test_a_report_has_every_value_and_every_reason(records, settings):
    report = report_of(records, settings, 7)
    assert report["schema"] == 2
    assert report["extractor"]["name"] == "light"
    assert report["extractor"]["reason"] == "it was asked for"
    assert len(report["extractor"]["fingerprint"]) == 64
    assert report["extractor"]["weights"] == report["lpips"] == {}
    assert report["decoder"].startswith("PyAV")
    assert report["settings"] == {"chunks": 5, "dimensions": list(DIMENSIONS), "seed": 7}
    a, b, c = report["videos"]
    assert c == {"name": "c.mp4", "unscored": "no frames"}
    assert b["repeated_frames"] == {"value": records[0].judged.repeated.value, "count": 42}
    assert report["summary"]["repeated_frames"]["count"] == 2
    assert b["chunks"]["clarity"] == list(records[0].judged.chunks["clarity"])
    assert b["scores"]["drift.clarity"]["value"] == records[0].judged.scores["drift.clarity"].value
    assert b["reference"]["chunks"]["ssim"] == [0.5, None, 0.5, 0.5, 0.5]
    assert (b["reference"]["frames"], b["reference"]["sha256"]) == (43, REAL)
    assert a["reference"] == {"unscored": "no such file"}


def test_a_real_video_that_does_not_fit_is_told_by_its_hash_too(settings):
    report = report_of([replace(record("a", 0, Unscored("too long")), reference_sha256=REAL)], settings, 0)
    assert report["videos"][0]["reference"] == {"sha256": REAL, "unscored": "too long"}
    assert report["summary"]["psnr"]["unscored"] == {"too long": 1}
    assert "psnr,,,,,,,,,,,too long" in csv_of(report)


def test_a_mean_counts_each_video_once_and_says_who_is_left_out(records, settings):
    judged = judge(features(seed=9), {}, tuple(DIMENSIONS), 5)
    infinite = {**judged.scores, "vde_linear.clarity": Score(math.inf, 5), "drift.clarity": Unscored("it is 0")}
    odd = Record(
        name="d.mp4",
        sha256="",
        facts=FACTS,
        frames=43,
        judged=type(judged)(judged.chunks, infinite, judged.repeated),
    )
    summary = report_of([*records, odd], settings, 0)["summary"]
    values = [one.judged.scores["drift.clarity"].value for one in records[:2]]
    assert summary["drift.clarity"]["mean"] == pytest.approx(sum(values) / 2)
    assert summary["drift.clarity"]["unscored"] == {"it is 0": 1}
    (why,) = summary["vde_linear.clarity"]["unscored"]
    assert "the first chunk scored 0" in why
    assert summary["drift.motion"]["count"] == 3
    assert summary["ssim"] == {"mean": 0.5, "low": None, "high": None, "count": 1, "unscored": {"no such file": 1}}
    assert summary["psnr"] == {"mean": None, "low": None, "high": None, "count": 0, "unscored": {"no such file": 1}}


def test_what_reads_videos_and_makes_scores_is_told_by_hashes_of_its_code(records, settings, tmp_path):
    makers = (consistency, drift, identity, dynamic_degree, judge, chunk_values, Mover, Likeness)
    assert {f"lvbench.{name}" for name in JUDGING} == {maker.__module__ for maker in makers}
    code = hash_of_code(
        *(sys.modules[maker.__module__] for maker in makers if maker is not identity)  # of one module with drift
    )
    report = report_of(records, settings, 0)
    assert report["scoring"] == f"{READER} {code}"
    write_report(report, "", tmp_path)
    assert read_scores(tmp_path).made_with["scoring"] == report["scoring"]


def test_the_order_of_the_records_changes_no_byte(records, settings, tmp_path):
    for at, order in enumerate((records, records[::-1])):
        folder = tmp_path / str(at)
        folder.mkdir()
        write_report(report_of(order, settings, 0), "", folder)
    for name in ("scores.json", "scores.csv"):
        assert (tmp_path / "0" / name).read_bytes() == (tmp_path / "1" / name).read_bytes()


def test_json_is_strict_and_is_read_back(records, settings, tmp_path):
    write_report(report_of(records, settings, 0), "", tmp_path)
    json.loads((tmp_path / "scores.json").read_text(), parse_constant=pytest.fail)
    for place in (tmp_path, tmp_path / "scores.json"):
        scores = read_scores(place)
        assert set(scores.videos) == {"a.mp4", "b.mp4", "c.mp4"}
        assert scores.videos["c.mp4"] == Unscored("no frames")
        read = scores.videos["b.mp4"]
        assert (read.results, read.repeated) == (records[0].judged.scores, records[0].judged.repeated)
        assert (read.size, read.fps, read.frames, read.seconds) == ((48, 64), 16, 43, 43 / 16)
        assert (read.likenesses, read.compared, read.reference_sha256) == ({"ssim": Score(0.5, 43)}, 43, REAL)
        alone = scores.videos["a.mp4"]
        assert (alone.likenesses, alone.compared) == (dict.fromkeys(LIKENESSES, Unscored("no such file")), 0)
        assert alone.reference_sha256 is None
        assert scores.made_with["chunks"] == 5
        assert scores.made_with["networks"] == []
        assert "lpips" not in scores.made_with


def test_a_report_of_before_that_does_not_tell_which_real_video_is_read(records, settings, tmp_path):
    write_report(report_of(records, settings, 0), "", tmp_path)
    report = json.loads((tmp_path / "scores.json").read_text())
    del report["videos"][1]["reference"]["sha256"]
    (tmp_path / "scores.json").write_text(json.dumps(report))
    read = read_scores(tmp_path).videos["b.mp4"]
    assert (read.compared, read.reference_sha256) == (43, None)


def test_copies_are_named_and_count_once_in_a_mean(settings):
    told = [record(f"{at:02}.mp4", at % 2) for at in range(60)]
    report = report_of(told, settings, 0)
    assert len(report["copies"]) == 58
    assert (report["copies"]["02.mp4"], report["copies"]["59.mp4"]) == ("00.mp4", "01.mp4")
    assert report["summary"] == report_of(told[:2], settings, 0)["summary"]
    renamed = [replace(one, name=f"{99 - at:02}.mp4") for at, one in enumerate(told)]
    assert report_of(renamed, settings, 0)["summary"] == report["summary"]


def test_a_copy_beside_another_reference_is_likened_to_something_else(settings):
    def like(value):
        return Likeness({"ssim": [value] * 5}, {"ssim": Score(value, 43)})

    told = [record("a", 0, like(0.5)), record("b", 0, like(0.25)), record("c", 0, like(0.5))]
    summary = report_of(told, settings, 0)["summary"]
    assert (summary["ssim"]["mean"], summary["ssim"]["count"]) == (0.375, 2)
    assert summary["drift.clarity"]["count"] == 1


def test_no_bound_of_a_mean_lies_where_no_value_can_be(settings):
    told = [record(f"{at}", at) for at in range(8)]
    for at, one in enumerate(told):
        one.judged.scores["dynamic_degree"] = Score(float(at > 0), 43)
        one.judged.scores["drift.motion"] = Score(0.9 * (at == 0), 4)
    summary = report_of(told, settings, 0)["summary"]
    assert summary["dynamic_degree"]["high"] == 1
    assert summary["drift.motion"]["low"] == 0


def test_every_score_points_one_way_and_has_words_and_a_range():
    assert [higher_is_better(name) for name in ("drift.motion", "lpips", "psnr", "imaging_quality")] == [
        False,
        False,
        True,
        True,
    ]
    assert title("lpips") == LIKENESSES["lpips"]
    assert title("drift.motion") == "motion: drift"
    assert [range_of(name) for name in ("ssim", "repeated_frames", "dynamic_degree")] == [(-1, 1), (0, 1), (0, 1)]


def test_a_table_has_a_row_for_each_dimension_of_each_video(records, settings, tmp_path):
    write_report(report_of(records, settings, 0), "", tmp_path)
    rows = list(csv.DictReader((tmp_path / "scores.csv").read_text().splitlines()))
    assert len(rows) == 2 * (len(DIMENSIONS) + len(COMPANIONS) + 1) + len(LIKENESSES) + 1 + 1
    first = rows[0]
    assert (first["video"], first["dimension"]) == ("a.mp4", "clarity")
    assert float(first["drift"]) == records[1].judged.scores["drift.clarity"].value
    assert [float(first[f"chunk_{at}"]) for at in range(1, 6)] == list(records[1].judged.chunks["clarity"])
    flicker = next(row for row in rows if row["dimension"] == "temporal_flicker")
    assert float(flicker["chunk_3"]) == records[1].judged.chunks["temporal_flicker"][2]
    values = {row["dimension"]: row["value"] for row in rows if row["video"] == "a.mp4" and row["value"]}
    companions = {name: str(records[1].judged.scores[name].value) for name in COMPANIONS}
    assert values == {**companions, "repeated_frames": str(records[1].judged.repeated.value)}
    assert (rows[-1]["video"], rows[-1]["unscored"]) == ("c.mp4", "no frames")
    alone = [row for row in rows if row["video"] == "a.mp4" and row["dimension"] in LIKENESSES]
    assert {row["dimension"] for row in alone} == set(LIKENESSES)
    assert {(row["drift"], row["chunk_1"], row["unscored"]) for row in alone} == {("", "", "no such file")}
    beside = rows[-2]
    assert (beside["video"], beside["dimension"], beside["value"]) == ("b.mp4", "ssim", "0.5")
    assert (beside["chunk_1"], beside["chunk_2"]) == ("0.5", "")


def test_no_name_nor_reason_is_a_formula_or_moves_a_cursor(settings):
    told = [Refused("=1+1.mp4", "@SUM(A1)"), Refused("\x1b[2J.mp4", "-1"), record("+1.mp4", 0, Unscored("=2"))]
    text = csv_of(report_of(told, settings, 0))
    assert "\x1b" not in text
    rows = list(csv.reader(text.splitlines()))
    assert {row[0] for row in rows[1:]} == {"'=1+1.mp4", "\\x1b[2J.mp4", "'+1.mp4"}
    assert {"'@SUM(A1)", "'-1", "'=2"} < {row[-1] for row in rows}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "cannot be read"),
        ("hello", "no report of lvbench"),
        ("[]", "no report of lvbench"),
        ("[" * 100_000, "no report of lvbench"),
        ('{"schema": 1}', "has schema 1, this lvbench reads 2"),
        ('{"schema": 2, "videos": [{"name": "a"}]}', "no report of lvbench"),
    ],
)
def test_what_is_no_report_is_refused(tmp_path, text, reason):
    if text is not None:
        (tmp_path / "scores.json").write_text(text)
    with pytest.raises(ReportError, match=reason):
        read_scores(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [("count", math.inf), ("value", 10**400), ("fps", 0), ("fps", math.inf), ("frames", "many"), ("width", math.inf)],
)
def test_a_report_with_a_number_that_cannot_be_is_refused(records, settings, tmp_path, field, value):
    write_report(report_of(records, settings, 0), "", tmp_path)
    report = json.loads((tmp_path / "scores.json").read_text())
    video = report["videos"][0]
    (video["scores"]["drift.motion"] if field in {"count", "value"} else video)[field] = value
    (tmp_path / "scores.json").write_text(json.dumps(report))
    with pytest.raises(ReportError, match="no report of lvbench"):
        read_scores(tmp_path)


@pytest.mark.timeout(10)
def test_a_pipe_is_no_report_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "scores.json")
    for place in (tmp_path, tmp_path / "scores.json"):
        with pytest.raises(ReportError, match=r"scores.json is no file; name the report"):
            read_scores(place)


def test_a_file_that_cannot_be_written_says_so_and_leaves_the_old_one(tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(ReportError, match="cannot be written"):
        write(tmp_path / "file" / "scores.json", "new")
    assert (tmp_path / "file").read_text() == "old"
    (tmp_path / "folder").mkdir()
    with pytest.raises(ReportError, match="cannot be written"):
        write(tmp_path / "folder", "new")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}


@pytest.mark.parametrize("failing", ["scores.json", "scores.csv", "report.html"])
def test_of_a_report_all_three_files_are_written_or_none(records, settings, tmp_path, monkeypatch, failing):
    write_report(report_of(records, settings, 0), "old", tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(before) == {"scores.json", "scores.csv", "report.html"}
    plain = Path.write_text

    def full(path, *args, **named):
        if failing in path.name:
            plain(path, "half")
            raise OSError(errno.ENOSPC, "No space left on device")
        return plain(path, *args, **named)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(ReportError, match=f"{failing} cannot be written: No space left"):
        write_report(report_of(records[:1], settings, 0), "new", tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_in_place_of_one_of_three_files_leaves_the_others_as_they_are(records, settings, tmp_path):
    (tmp_path / "report.html").mkdir()
    with pytest.raises(ReportError, match=r"report\.html cannot be written"):
        write_report(report_of(records, settings, 0), "new", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


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
