"""Curves go through their values, and are broken where there is none."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from lvbench.curves import BOTTOM, HEIGHT, LABEL_PX, LEFT, RIGHT, TOP, WIDTH, curves, span_of


def paths(svg: str, kind: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return [path.get("d", "") for path in root.iter("path") if path.get("class") == kind]


def test_a_line_goes_from_the_lower_left_to_the_upper_right():
    (line,) = paths(curves("clarity", [[1.0, 2.0, 3.0]]), "one")
    assert (
        line
        == f"M{LEFT:.1f},{HEIGHT - BOTTOM:.1f}L{(LEFT + WIDTH - RIGHT) / 2:.1f},{(TOP + HEIGHT - BOTTOM) / 2:.1f}"
        + (f"L{WIDTH - RIGHT:.1f},{TOP:.1f}")
    )


def test_there_is_a_line_for_each_video_and_one_for_the_mean():
    svg = curves("clarity", [[0.0, 4.0], [2.0, 4.0], [1.0, 1.0]])
    assert len(paths(svg, "one")) == 3
    (mean,) = paths(svg, "mean")
    heights = [float(y) for y in re.findall(r",([\d.]+)", mean)]
    span = HEIGHT - TOP - BOTTOM
    assert heights == pytest.approx([TOP + span * 3 / 4, TOP + span / 4], abs=0.06)


def test_a_line_is_broken_where_there_is_no_value():
    (line,) = paths(curves("clarity", [[1.0, None, 3.0, 2.0]]), "one")
    assert re.sub(r"[\d.,]", "", line) == "MML"


def test_what_never_changes_is_drawn_in_the_middle():
    (line,) = paths(curves("clarity", [[5.0, 5.0]]), "one")
    assert {float(y) for y in re.findall(r",([\d.]+)", line)} == {(TOP + HEIGHT - BOTTOM) / 2}


def test_no_value_is_no_picture():
    assert curves("clarity", [[None, None]]) == curves("clarity", []) == ""


def test_a_title_is_text_and_no_markup():
    assert ElementTree.fromstring(curves('"><script>', [[1.0, 2.0]])).get("aria-label") == '"><script>'


def test_pictures_of_one_scale_show_equal_values_at_equal_heights():
    lines, others = [[1.0, 2.0]], [[2.0, 5.0]]
    span = span_of([*lines, *others])
    assert span == (1.0, 5.0)
    ends = [paths(curves("a", each, span), "one")[0] for each in (lines, others)]
    assert ends[0].rpartition(",")[2] == ends[1].partition(",")[2].partition("L")[0]
    assert span_of([[None]]) is span_of([]) is None
    assert span_of([[0.0, 0.0]]) == (-0.5, 0.5)


def test_a_drift_of_a_hundredth_is_drawn_as_little_and_one_of_a_half_as_it_is():
    assert span_of([[85.26, None, 84.72]]) == pytest.approx((84.99 - 4.263, 84.99 + 4.263))
    assert span_of([[None, 3.0, 3.0], [None, None]]) == pytest.approx((2.85, 3.15))
    assert span_of([[-1.0, -1.01], [-3.0, -1.0]]) == (-3.0, -1.0)
    assert span_of([[0.8, 0.4]]) == (0.4, 0.8)
    (line,) = paths(curves("clarity", [[85.26, 84.72]]), "one")
    first, last = (float(y) for y in re.findall(r",([\d.]+)", line))
    assert last - first == pytest.approx((HEIGHT - TOP - BOTTOM) * 0.54 / 8.526, abs=0.11)


def labels(svg: str) -> dict[str, float]:
    root = ElementTree.fromstring(svg)
    return {text.text: float(text.get("y", "")) for text in root.iter("text") if text.get("class") == "label"}


def test_a_line_has_its_label_at_its_end_and_tells_its_name():
    svg = curves("clarity", [[1.0, 3.0], [2.0, 1.0], [1.0, None]], None, [("1", "a"), ("2", "<b>"), ("3", "c")])
    assert labels(svg) == {"1": TOP + 3, "2": HEIGHT - BOTTOM + 3}
    titles = [path.findtext("title") for path in ElementTree.fromstring(svg).iter("path") if path.get("class") == "one"]
    assert titles == ["a", "<b>", "c"]
    assert labels(curves("clarity", [[1.0, 3.0]])) == {}


def test_labels_do_not_cover_each_other_nor_stand_far_from_their_line():
    ends = [3.0] * 9 + [2.0, 1.0]
    found = labels(curves("clarity", [[1.0, end] for end in ends], None, [(str(at), "") for at in range(11)]))
    heights = sorted(found.values())
    assert all(below - above >= LABEL_PX for above, below in pairwise(heights))
    assert [found[label] for label in ("9", "10")] == [(TOP + HEIGHT - BOTTOM) / 2 + 3, HEIGHT - BOTTOM + 3]
    assert set(found) == {"0", "1", "2", "9", "10"}
