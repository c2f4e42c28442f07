"""A name is shown and does nothing."""

from __future__ import annotations

import pytest

from lvbench.text import MOST_NAMES, amount, cell, printable, some


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("größer 4.mp4", "größer 4.mp4"),
        ("a\nb", "a\\nb"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\u202e4pm", "\\u202e4pm"),
        ("\udcff", "\\udcff"),
    ],
)
def test_what_is_not_printable_is_written_out(text, shown):
    assert printable(text) == shown


@pytest.mark.parametrize("begun", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_begins_a_formula(begun):
    assert cell(f"{begun}1+cmd|' /C calc'!A0") == f"'{printable(begun)}1+cmd|' /C calc'!A0"


def test_other_cells_are_what_they_were_but_for_what_moves_a_cursor():
    assert cell("a=b.mp4") == "a=b.mp4"
    assert cell("\x1b]0;a\x07.mp4") == "\\x1b]0;a\\x07.mp4"
    assert cell("") == ""


def test_one_of_a_thing_has_no_s():
    assert [amount(count, "video") for count in (0, 1, 2, 1200)] == ["0 videos", "1 video", "2 videos", "1,200 videos"]


def test_as_many_names_are_told_as_fit_in_a_sentence():
    names = [f"{at}.txt" for at in range(MOST_NAMES + 2)]
    assert some(names[:1]) == "0.txt"
    assert some(names[:2]) == "0.txt, 1.txt"
    assert some(names[:MOST_NAMES]).endswith(f", {names[MOST_NAMES - 1]}")
    assert some(names) == f"{some(names[:MOST_NAMES])} and 2 more"
