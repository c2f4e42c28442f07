"""Choices as a user writes them: a name, and whole numbers for its options, as in "sink:sink=4,window=20"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from worldsim.errors import ConfigError, UnknownName

LONGEST = 18
"""Digits of a number: more than any world lives, fewer than Python refuses to read."""


def parse_options(text: str, known: Mapping[str, Sequence[str]], *, kind: str) -> tuple[str, dict[str, int]]:
    """The name that a text begins with, and the options that it gives.

    Args:
        text: "name" or "name:option=number,option=number".
        known: the options of each name.
        kind: what is chosen, for the texts of errors.

    Raises:
        UnknownName: nobody knows that name, or that option of it.
        ConfigError: an option is given twice, or is not a whole number.
    """
    name, colon, rest = text.partition(":")
    if name not in known:
        raise UnknownName(kind, name, known)
    options: dict[str, int] = {}
    for part in rest.split(",") if colon else []:
        option, _, value = part.partition("=")
        if option not in known[name]:
            raise UnknownName(f"option of {kind} {name!r}", option, known[name])
        if option in options or not value.isdecimal() or len(value) > LONGEST:
            raise ConfigError(
                f"{kind} {name!r} takes {option} once, as a whole number of at most {LONGEST} digits, got {text[:80]!r}"
            )
        options[option] = int(value)
    return name, options
