"""What a user writes is read as it was meant, or refused with what would fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worldsim.cache.options import LONGEST, parse_options
from worldsim.errors import ConfigError, UnknownName

KNOWN = {"plain": [], "sink": ["sink", "window"]}


@given(st.permutations(["sink", "window"]), st.lists(st.integers(0, 10**LONGEST - 1), min_size=2, max_size=2))
def test_options_are_read_in_any_order(names: list[str], values: list[int]) -> None:
    options = dict(zip(names, values, strict=True))
    text = "sink:" + ",".join(f"{name}={value}" for name, value in options.items())
    assert parse_options(text, KNOWN, kind="policy") == ("sink", options)


def test_a_name_may_stand_alone() -> None:
    assert parse_options("plain", KNOWN, kind="policy") == ("plain", {})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("snik", "there is no policy 'snik'; known: plain, sink"),
        ("sink:frames=3", "there is no option 'frames' of policy 'sink'; known: sink, window"),
        ("plain:", "there is no option '' of policy 'plain'"),
    ],
)
def test_what_nobody_knows_is_named_with_what_is_known(text: str, told: str) -> None:
    with pytest.raises(UnknownName, match=told):
        parse_options(text, KNOWN, kind="policy")


@pytest.mark.parametrize(
    "rest",
    [
        "sink=4,sink=4",
        "sink=-1",
        "sink=1.5",
        "sink=",
        "sink",
        "sink=\u0665",
        "sink=\u0b6b",
        "sink=" + "9" * (LONGEST + 1),
    ],
)
def test_an_option_is_given_once_as_a_whole_number(rest: str) -> None:
    with pytest.raises(ConfigError, match="takes sink once, as a whole number of at most 18 digits"):
        parse_options(f"sink:{rest}", KNOWN, kind="policy")


@pytest.mark.parametrize(("text", "value"), [("0.98", 0.98), ("1", 1.0), ("0.5", 0.5)])
def test_an_option_may_be_a_number_with_a_point(text: str, value: float) -> None:
    _, options = parse_options(f"sink:sink={text},window=3", KNOWN, kind="policy", decimals=("sink",))
    assert options == {"sink": value, "window": 3}
    assert [type(option) for option in options.values()] == [float, int]


@pytest.mark.parametrize(
    "value", ["-0.5", "nan", "inf", "1e3", "0,5", ".", ".5", "0.", "0.\u0665", "\u0660.5", "0." + "3" * LONGEST]
)
def test_what_is_no_such_number_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match=r"sink once, as a number such as 0\.98|no option"):
        parse_options(f"sink:sink={value}", KNOWN, kind="policy", decimals=("sink",))
