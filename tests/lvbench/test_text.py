"""A name is shown and does nothing."""

from __future__ import annotations

import pytest

from lvbench.text import amount, cell, printable


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
