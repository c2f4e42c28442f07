"""The page tells numbers, reasons and caveats, and needs nothing from anywhere else."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from lvbench.examine import Refused, Settings
from lvbench.features import Features
from lvbench.judge import FORMS, judge
from lvbench.literature import CAVEAT, COLUMNS, ROWS
from lvbench.measures import COMPANIONS, DIMENSIONS
from lvbench.page import MEANINGS, Worst, better, page_of, worst_of
from lvbench.reference import LIKENESSES, Likeness
from lvbench.report import REPEATED, report_of
from lvbench.score import Score, Unscored
from tests.lvbench.test_measures import features
from tests.lvbench.test_report import record


@pytest.fixture
def report(tmp_path):
    settings = Settings(store=tmp_path, chunks=5)
    return report_of([record("a.mp4", 0), record("b.mp4", 1), Refused("<script>c", "no & frames")], settings, 3)


def without_aesthetic() -> Features:
    found = features()
    return Features(
        frames=found.frames, tracks={name: row for name, row in found.tracks.items() if name != "aesthetic"}
    )


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
    page = page_of(report, [Worst("a.mp4", {"clarity": 0.5}, b"\xff\xd8jpeg")], "walks")
    checked = Checked(page)
    assert checked.asked == ["data:image/jpeg;base64,/9hqcGVn"]
    assert "<script" not in page
    assert not re.search(r"https?://", page)


def test_the_page_tells_means_intervals_and_seed(report):
    page = page_of(report, [], "<walks>")
    assert "<p>&lt;walks&gt;: 2 videos scored, 1 not" in page
    assert f"{report['summary']['drift.clarity']['mean']:.4f}" in page
    assert not re.search(r"\([\d.]+ to [\d.]+\)", page)
    assert "none for fewer than 6 videos" in page
    assert "seed 3" in page
    assert "“light”" in page
    assert page.count("<svg") == len(report["settings"]["dimensions"])


def test_the_page_tells_intervals_of_six_videos(tmp_path):
    report = report_of([record(f"{at}.mp4", at) for at in range(6)], Settings(store=tmp_path, chunks=5), 3)
    found = report["summary"]["drift.clarity"]
    assert f"({found['low']:.4f} to {found['high']:.4f})" in page_of(report, [], "walks")


def test_the_page_tells_who_has_no_reference_and_whose_is_shorter(tmp_path):
    like = Likeness({"ssim": [0.5] * 5}, {"lpips": Unscored("no weights"), "ssim": Score(0.5, 40)})
    told = [record("a.mp4", 0, like), record("<b>.mp4", 1, Unscored("no such <file>"))]
    page = page_of(report_of(told, Settings(store=tmp_path, chunks=5), 3), [], "walks")
    assert "Beside the real videos" in page
    assert '0.5000<br><span class="dim">n 1, 1 left out [1]</span>' in page
    assert "<td>[1]</td><td>no such &lt;file&gt;</td><td>&lt;b&gt;.mp4</td>" in page
    assert page.count("no such &lt;file&gt;") == 1
    assert "the real video is shorter" in page
    assert "a.mp4 (40 of 43)." in page
    equal = Likeness({"ssim": [0.5] * 5}, {"ssim": Score(0.5, 43)})
    page = page_of(report_of([record("a.mp4", 0, equal)], Settings(store=tmp_path, chunks=5), 3), [], "walks")
    assert "Beside the real videos" in page
    assert "the real video is shorter" not in page


def test_of_many_reasons_the_page_marks_some_at_each_mean_and_tells_all_once(tmp_path):
    told = [record(f"{at}.mp4", 0, Unscored(f"no such file {at}")) for at in range(9)]
    page = page_of(report_of(told, Settings(store=tmp_path, chunks=5), 3), [], "walks")
    assert page.count("unscored, 9 left out [1] [2] [3] …") == 4
    assert all(page.count(f"no such file {at}") == 1 for at in range(9))


def test_a_reason_of_many_videos_and_scores_is_told_once(tmp_path):
    gone = {"aesthetic": "no network"}
    judged = judge(without_aesthetic(), gone, tuple(DIMENSIONS), 5)
    told = [replace(record(f"{at}.mp4", 0), judged=judged) for at in range(3)]
    page = page_of(report_of([*told, Refused("c.mp4", "torn")], Settings(store=tmp_path, chunks=5), 3), [], "walks")
    assert page.count("no network") == 1
    assert "<td>[1]</td><td>no network</td><td>every scored video</td>" in page
    assert page.count("unscored, 3 left out [1]") == len(FORMS) + 1
    assert page.count('<span class="dim">[1]</span>') == 3 * 2


def test_every_name_is_explained_and_every_column_says_which_way_is_good(report):
    page = page_of(report, [], "walks")
    assert set(MEANINGS) == {*DIMENSIONS, *FORMS, *COMPANIONS, *LIKENESSES, REPEATED}
    for name in (*DIMENSIONS, *FORMS, *COMPANIONS, REPEATED):
        assert MEANINGS[name] in page
    assert [better(name) for name in ("drift", "vde_log", "lpips")] == ["low is good"] * 3
    assert [better(name) for name in ("imaging_quality", "psnr")] == ["high is good"] * 2
    assert [better(name) for name in ("dynamic_degree", REPEATED)] == ["high is livelier", "a plain fact"]


def test_every_video_has_its_values_outside_drift_and_the_likenesses_it_has(tmp_path):
    like = Likeness({}, {"psnr": Score(31.25, 43)})
    told = [record("a.mp4", 0, like), record("b.mp4", 1)]
    page = page_of(report_of(told, Settings(store=tmp_path, chunks=5), 3), [], "walks")
    table = page.partition("Every video: over the whole of it")[2].partition("</table>")[0]
    first, second = (re.findall("<td>(.*?)</td>", row) for row in table.split("<tr>")[2:])
    values = [f"{told[0].judged.scores[name].value:.4f}" for name in COMPANIONS]
    assert first == ["a.mp4", *values, f"{told[0].judged.repeated.value:.4f}", "31.2500"]
    assert second[0] == "b.mp4"
    assert second[-1] == ""


def test_what_measured_stands_at_the_end_and_curves_below_their_captions(report):
    page = page_of(report, [], "walks")
    assert report["decoder"] in page.partition("Published")[2].partition("Measured with")[2]
    assert page.count(report["extractor"]["fingerprint"]) == 1
    assert page.count("</figcaption><svg") == page.count("<svg")


def test_lines_have_other_colours_on_a_dark_page(report):
    style = page_of(report, [], "walks").partition("<style>")[2].partition("</style>")[0]
    light, dark = style.split("@media (prefers-color-scheme:dark)")
    for colour in ("--thin", "--thick"):
        shades = [re.search(f"{colour}:#(..)(..)(..)", part).groups() for part in (light, dark)]
        brightness = [sum(int(shade, 16) for shade in each) for each in shades]
        assert brightness[1] > brightness[0] + 150


def test_background_and_subject_are_drawn_to_one_scale(report):
    page = page_of(report, [], "walks")
    scales = {
        label: re.findall("<text[^>]*>([^<]*)</text>", page.partition(f'aria-label="{label}"')[2])[:2]
        for label in ("background", "subject", "clarity")
    }
    assert scales["background"] == scales["subject"] != scales["clarity"]
    values = [
        value for video in report["videos"][1:] for name in ("background", "subject") for value in video["chunks"][name]
    ]
    assert scales["subject"] == [f"{max(values):.4g}", f"{min(values):.4g}"]


def test_reasons_and_names_are_text(report):
    page = page_of(report, [Worst("<b>", {"clarity": 0.5, "motion": 0.1}, "it is <gone>")], "walks")
    assert "&lt;b&gt;: clarity 0.5000, motion 0.1000" in page
    assert "&lt;script&gt;c" in page
    assert "no &amp; frames" in page
    assert "it is &lt;gone&gt;" in page
    Checked(page)


def test_published_rows_stand_beside_with_their_caveat(report):
    page = page_of(report, [], "walks")
    assert CAVEAT[:40] in page
    for name, row in ROWS.items():
        assert len(row) == len(COLUMNS)
        assert name in page
        assert f"{row[0]:.4f}" in page


def test_a_report_without_a_scored_video_still_has_a_page(tmp_path):
    page = page_of(report_of([Refused("a", "torn")], Settings(store=tmp_path), 0), [], "walks")
    Checked(page)
    assert "torn" in page


def test_the_worst_of_a_dimension_is_the_video_that_drifts_farthest_whatever_else_it_is_shown_for(report):
    scores = {video["name"]: video["scores"] for video in report["videos"] if "scores" in video}
    for name in DIMENSIONS:
        scores["a.mp4"][f"drift.{name}"], scores["b.mp4"][f"drift.{name}"] = {"value": 0.5}, {"value": 0.25}
    scores["b.mp4"]["drift.motion"] = {"value": 0.75}
    scores["a.mp4"]["drift.clarity"] = {"unscored": "it is black"}
    for each in scores.values():
        each["drift.identity"] = {"value": 0.00001}
    others = {name: 0.5 for name in DIMENSIONS if name not in {"motion", "clarity", "identity"}}
    assert worst_of(report) == {"b.mp4": {"clarity": 0.25, "motion": 0.75}, "a.mp4": others}
