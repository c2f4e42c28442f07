"""What files are called, made fit to be shown: a name may hold anything, and whoever reads it may do what it says."""

from __future__ import annotations

from collections.abc import Sequence

MOST_NAMES = 6
"""Names that are told in one sentence; the tables of a report tell the others."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a program for tables takes for the beginning of a formula."""


def printable(text: str) -> str:
    """The text with all that is not printable written out, so that it moves no cursor and ends no line."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def amount(count: int, thing: str) -> str:
    """How many there are of a thing whose plural ends in s, in words."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def some(names: Sequence[str]) -> str:
    """The names in one sentence, as many as it can have, and how many more there are."""
    more = f" and {len(names) - MOST_NAMES:,} more" if len(names) > MOST_NAMES else ""
    return f"{', '.join(names[:MOST_NAMES])}{more}"


def cell(text: str) -> str:
    """The text as a cell of a table, which no program takes for a formula."""
    shown = printable(text)
    return f"'{shown}" if text.startswith(FORMULA) else shown
