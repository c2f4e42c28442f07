"""Prompts: how far one has taken effect, and what is none."""

from __future__ import annotations

import pytest

from worldsim.errors import ConfigError
from worldsim.session.events import MOST_OVER, MOST_PROMPT
from worldsim.session.prompt import Told, check_over, check_prompt, cut_prompt, first_told


def test_a_prompt_takes_effect_little_by_little_and_then_stays():
    told = Told(text="a lake", before="a wood", since=3, over=4)
    assert [told.share(block) for block in range(3, 9)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert (told.since, told.until) == (3, 7)


def test_what_a_session_begins_with_is_heard_alone_from_its_first_block():
    told = first_told("a wood")
    assert (told.share(0), told.share(9), told.until) == (1, 1, 1)


@pytest.mark.parametrize("prompt", [None, 3, b"a wood", "x" * (MOST_PROMPT + 1), "rain \udfff"])
def test_what_is_no_prompt_is_refused(prompt):
    with pytest.raises(ConfigError, match="a prompt"):
        check_prompt(prompt)


def test_a_prompt_that_is_too_long_is_cut_and_one_that_is_none_is_not():
    for text, lost in (
        ("", 0),
        ("x" * MOST_PROMPT, 0),
        ("雨" * (MOST_PROMPT + 1), 1),
        ("x" * 10**7, 10**7 - MOST_PROMPT),
    ):
        assert cut_prompt(text) == (text[:MOST_PROMPT], lost)
    for given in (None, 3, b"a wood", "rain \udfff"):
        with pytest.raises(ConfigError, match="a prompt"):
            cut_prompt(given)


@pytest.mark.parametrize("over", [0, -1, 1.5, True, "2", None, MOST_OVER + 1, 10**9])
def test_a_prompt_takes_effect_over_whole_blocks(over):
    with pytest.raises(ConfigError, match="1 block or more"):
        check_over(over)
    assert (check_over(2), check_over(MOST_OVER)) == (2, MOST_OVER)


def test_a_prompt_may_be_as_long_as_a_client_may_say_and_in_any_letters():
    for text in ("", "x" * MOST_PROMPT, "雨 🌧"):
        assert check_prompt(text) == text
