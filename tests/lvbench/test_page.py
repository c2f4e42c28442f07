"""The page tells numbers, reasons and caveats, and needs nothing from anywhere else."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from lvbench.examine import Refused, Settings
from lvbench.literature import CAVEAT, COLUMNS, ROWS
from lvbench.page import Worst, page_of, worst_of
from lvbench.report import report_of
from tests.lvbench.test_report import record


@pytest.fixture
def report(tmp_path):
    settings = Settings(store=tmp_path, chunks=5)
    return report_of([record("a.mp4", 0), record("b.mp4", 1), Refused("<script>c", "no & frames")], settings, 3)


class Checked(HTMLParser):
    """Fails on tags that do not close, and notes all that is asked for from elsewhere."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.asked: list[str] = []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        if tag not in {"meta", "img", "br"}:
            self.open.append(tag)
        self.asked += [value for name, value in attrs if name in {"src", "href"} and value is not None]

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_asks_for_nothing(report):
    page = page_of(report, [Worst("a.mp4", "clarity", 0.5, b"\xff\xd8jpeg")])
    checked = Checked(page)
    assert checked.asked == ["data:image/jpeg;base64,/9hqcGVn"]
    assert "<script" not in page
    assert not re.search(r"https?://", page)


def test_the_page_tells_means_intervals_and_seed(report):
    page = page_of(report, [])
    found = report["summary"]["drift.clarity"]
    assert f"{found['mean']:.4f}" in page
    assert f"({found['low']:.4f} to {found['high']:.4f})" in page
    assert "2 videos scored, 1 not" in page
    assert "seed 3" in page
    assert "“light”" in page
    assert page.count("<svg") == len(report["settings"]["dimensions"])


def test_reasons_and_names_are_text(report):
    page = page_of(report, [Worst("<b>", "clarity", 0.5, "it is <gone>")])
    assert "&lt;script&gt;c" in page
    assert "no &amp; frames" in page
    assert "it is &lt;gone&gt;" in page
    Checked(page)


def test_published_rows_stand_beside_with_their_caveat(report):
    page = page_of(report, [])
    assert CAVEAT[:40] in page
    for name, row in ROWS.items():
        assert len(row) == len(COLUMNS)
        assert name in page
        assert f"{row[0]:.4f}" in page


def test_a_report_without_a_scored_video_still_has_a_page(tmp_path):
    page = page_of(report_of([Refused("a", "torn")], Settings(store=tmp_path), 0), [])
    Checked(page)
    assert "torn" in page


def test_the_worst_are_the_largest_drifts_of_different_videos_and_dimensions(report):
    found = worst_of(report)
    assert len(found) == 2
    assert {video for video, _, _ in found} == {"a.mp4", "b.mp4"}
    assert len({name for _, name, _ in found}) == 2
    assert found[0][2] >= found[1][2]
    largest = max(
        result["value"]
        for video in report["videos"][1:]
        for name, result in video["scores"].items()
        if name.startswith("drift.")
    )
    assert found[0][2] == largest
