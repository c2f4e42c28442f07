"""The page tells numbers, reasons and caveats, and needs nothing from anywhere else."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import cv2
import numpy as np
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
from tests.lvbench.test_report import FACTS, record

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")


@pytest.fixture
def report(tmp_path):
    settings = Settings(store=tmp_path, chunks=5)
    return report_of([record("a.mp4", 0), record("b.mp4", 1), Refused("<script>c", "no & frames")], settings, 3)


def without_aesthetic(seed: int) -> Features:
    found = features(seed=seed)
    return Features(
        frames=found.frames, tracks={name: row for name, row in found.tracks.items() if name != "aesthetic"}
    )


class Checked(HTMLParser):
    """Fails on tags that do not close, and notes all that is asked for from elsewhere."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.asked: list[str] = []
        self.pictures: list[str] = []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        if tag not in {"meta", "img", "br"}:
            self.open.append(tag)
        self.pictures += [dict(attrs)["alt"]] if tag == "img" else []
        self.asked += [value for name, value in attrs if name in {"src", "href"} and value is not None]

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_asks_for_nothing(report):
    page = page_of(report, [Worst("a.mp4", {"clarity": 0.5}, b"\xff\xd8jpeg")], "walks")
    checked = Checked(page)
    assert checked.asked == ["data:image/jpeg;base64,/9hqcGVn"]
    assert checked.pictures == ["a.mp4: the middle frame of each of 5 chunks, the first on the left"]
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
    assert "misses the truth in about 5 of 100 such reports, and in more where a few videos lie far from" in page


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
    told = [record(f"{at}.mp4", at, Unscored(f"no such file {at}")) for at in range(9)]
    page = page_of(report_of(told, Settings(store=tmp_path, chunks=5), 3), [], "walks")
    assert page.count("unscored, 9 left out [1] [2] [3] …") == 4
    assert all(page.count(f"no such file {at}") == 1 for at in range(9))


def test_a_reason_of_many_videos_and_scores_is_told_once(tmp_path):
    gone = {"aesthetic": "no network"}
    judged = [judge(without_aesthetic(seed), gone, tuple(DIMENSIONS), 5) for seed in range(3)]
    told = [replace(record(f"{at}.mp4", 0), judged=one) for at, one in enumerate(judged)]
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
    assert first == [
        '<span class="dim">1</span>&nbsp;a.mp4',
        *values,
        f"{told[0].judged.repeated.value:.4f}",
        "31.2500",
    ]
    assert second[0] == '<span class="dim">2</span>&nbsp;b.mp4'
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
        for label in ("background", "subject", "clarity")  # the first two texts
    }
    assert scales["background"] == scales["subject"] != scales["clarity"]
    values = [
        value for video in report["videos"][1:] for name in ("background", "subject") for value in video["chunks"][name]
    ]
    assert scales["subject"] == [f"{max(values):.4g}", f"{min(values):.4g}"]


def test_videos_whose_end_is_not_known_and_copies_are_named(tmp_path):
    facts = replace(FACTS, end_known=False)
    told = [record("a.ts", 0, facts=facts), record("b.mp4", 1), record("c.mp4", 1), record("d.ts", 1, facts=facts)]
    page = page_of(report_of(told, Settings(store=tmp_path, chunks=5), 3), [], "walks")
    assert "since their files do not say where they end: a.ts, d.ts." in page
    assert "count once with it: c.mp4 (of b.mp4), d.ts (of b.mp4)." in page
    notes = re.findall(r"</span>&nbsp;([^<]*)<br><span class=\"dim\">([^<]*)</span>", page)
    assert notes == [("a.ts", "end not known"), ("c.mp4", "as b.mp4"), ("d.ts", "end not known; as b.mp4")] * 2
    page = page_of(report_of(told[1:2], Settings(store=tmp_path, chunks=5), 3), [], "walks")
    assert "walks: 1 video scored, 0 not" in page
    assert "where they end" not in page
    assert "Copies" not in page
    many = [record(f"{at}.ts", at, facts=facts) for at in range(9)]
    assert "4.ts, 5.ts and 3 more." in page_of(report_of(many, Settings(store=tmp_path, chunks=5), 3), [], "walks")


def test_every_line_over_time_tells_which_video_it_is(report):
    page = page_of(report, [], "walks")
    drawn = [svg.partition("</svg>")[0] for svg in page.split("<svg")[1:]]
    for svg in drawn:
        assert re.findall("<title>(.*?)</title>", svg) == ["1 a.mp4", "2 b.mp4"]
        assert set(re.findall('class="label"[^>]*>(.*?)<', svg)) == {"1", "2"}


def test_companions_are_drawn_over_time_where_no_dimension_is_the_same(tmp_path):
    def drawn(dimensions):
        settings = Settings(store=tmp_path, chunks=5, dimensions=dimensions)
        one = replace(record("a.mp4", 0), judged=judge(features(), {}, dimensions, 5))
        page = page_of(report_of([one], settings, 3), [], "walks")
        return set(re.findall('<svg[^>]* aria-label="(.*?)"', page)), page

    shown, page = drawn(tuple(DIMENSIONS))
    assert shown == {*DIMENSIONS, "steadiness (temporal flickering)", "dynamic degree"}
    assert "clarity (of a whole video: imaging quality)" in page
    shown, _ = drawn(("clarity",))
    assert shown == {"clarity", *(COMPANIONS[name].title for name in COMPANIONS if name != "imaging_quality")}


def test_the_chunks_of_a_contact_sheet_are_numbered(report):
    page = page_of(report, [Worst("a.mp4", {"clarity": 0.5}, b"\xff\xd8jpeg")], "walks")
    labels = page.partition('style="--chunks:5"><div class="dim">')[2].partition("</div>")[0]
    assert re.findall("<span>(.*?)</span>", labels) == ["chunk 1", "2", "3", "4", "5"]


@pytest.mark.parametrize("mark", ["\x1b[31m", "\u202e", "\u2066", "\x07", "\u200f"])
def test_what_is_not_printable_in_a_name_is_written_out(tmp_path, mark):
    name = f"{mark}a.mp4"
    told = [record(name, 0, Unscored(f"its reference {name}: gone")), record(f"b{name}", 0), Refused(f"c{name}", name)]
    report = report_of(told, Settings(store=tmp_path, chunks=5), 3)
    page = page_of(report, [Worst(name, {"clarity": 0.5}, b"jpeg"), Worst(name, {}, f"gone: {name}")], "walks")
    assert mark[0] not in page
    assert ascii(mark)[1:-1] + "a.mp4" in page


def test_what_is_wider_than_a_phone_can_be_scrolled_by_keys_and_shows_that_it_goes_on(report):
    page = page_of(report, [], "walks")
    assert page.count('<div class="wide" tabindex="0" role="region" aria-label=') == page.count("<h2>")
    assert "swipe" in page.partition("</style>")[2]


def test_why_an_extractor_was_taken_is_told_once_and_not_at_the_top(tmp_path):
    settings = Settings(store=tmp_path, chunks=5, reason="the published networks lack seven files")
    page = page_of(report_of([record("a.mp4", 0)], settings, 3), [], "walks")
    assert page.count("lack seven files") == 1
    assert "lack seven files" in page.partition("Measured with</h2>")[2]


@pytest.mark.skipif(not CHROMIUM, reason="the page is tested in Chromium, which is not installed here")
@pytest.mark.parametrize("width", [390, 1280])
def test_in_a_browser_nothing_is_wider_than_the_page_and_tiles_can_be_seen(tmp_path, width):
    playwright = pytest.importorskip("playwright.sync_api")
    like = Likeness({}, {name: Score(0.5, 43) for name in LIKENESSES})
    told = [record(f"walk_with_a_rather_long_name_{at}.mp4", at, like) for at in range(6)]
    picture = bytes(cv2.imencode(".jpg", np.zeros((94, 5 * 168, 3), np.uint8))[1])
    worst = [Worst("walk_with_a_rather_long_name_0.mp4", {"clarity": 0.5}, picture)]
    path = tmp_path / "report.html"
    path.write_text(page_of(report_of(told, Settings(store=tmp_path, chunks=5), 3), worst, "walks"))
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 800})
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate("document.querySelector('img').clientWidth") >= 5 * 100
        wider = page.evaluate(
            "[...document.querySelectorAll('.wide')].filter(e => e.scrollWidth > e.clientWidth).length"
        )
        assert (wider == 0) == (width == 1280)
        browser.close()


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
