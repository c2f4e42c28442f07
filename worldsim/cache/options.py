"""Choices as a user writes them: a name, and whole numbers for its options, as in "sink:sink=4,window=20"."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from worldsim.errors import ConfigError, UnknownName

LONGEST = 18
"""Digits of a number: more than any world lives, fewer than Python refuses to read."""


def parse_options(
    text: str, known: Mapping[str, Sequence[str]], *, kind: str, decimals: Collection[str] = ()
) -> tuple[str, dict[str, Any]]:
    """The name that a text begins with, and the options that it gives.

    Args:
        text: "name" or "name:option=number,option=number".
        known: the options of each name.
        kind: what is chosen, for the texts of errors.
        decimals: the options that are numbers such as 0.98; all others are whole.

    Raises:
        UnknownName: nobody knows that name, or that option of it.
        ConfigError: an option is given twice, or is not such a number.
    """
    name, colon, rest = text.partition(":")
    if name not in known:
        raise UnknownName(kind, name, known)
    options: dict[str, Any] = {}
    for part in rest.split(",") if colon else []:
        option, _, value = part.partition("=")
        if option not in known[name]:
            raise UnknownName("option", option, known[name], of=f"{kind} {name!r}")
        number = _number(value, decimal=option in decimals)
        if option in options or number is None:
            such = "number such as 0.98" if option in decimals else "whole number"
            raise ConfigError(
                f"{kind} {name!r} takes {option} once, as a {such} of at most {LONGEST} digits, got {text[:80]!r}"
            )
        options[option] = number
    return name, options


def _number(text: str, *, decimal: bool) -> float | int | None:
    """The number that a text is, if it is one that counts from 0."""
    if len(text) > LONGEST or not re.fullmatch(r"[0-9]+(\.[0-9]+)?" if decimal else r"[0-9]+", text):
        return None
    return float(text) if decimal else int(text)
