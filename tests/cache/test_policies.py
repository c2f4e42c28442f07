"""How policies are named in text."""

from __future__ import annotations

from pathlib import Path

import pytest

from worldsim.cache.policies import ELSEWHERE, POLICIES, parse_policy, policy_text
from worldsim.cache.policy import Full, Policy, SinkWindow, Window
from worldsim.cache.retrieval import Retrieval
from worldsim.errors import ConfigError, UnknownName
from worldsim.wan import RECIPES


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("full", Full()),
        ("window", Window()),
        ("window:frames=9", Window(frames=9)),
        ("sink", SinkWindow()),
        ("sink:window=5", SinkWindow(window=5)),
        ("sink:sink=0,window=5", SinkWindow(sink=0, window=5)),
        ("recompute:frames=6", Window(frames=6, anew=True)),
        ("far-sink:sink=3,window=6", SinkWindow(sink=3, window=6, near=False)),
        ("adaptive", Retrieval(pick="first", recent=20, top=1, run=4, bank=16, like=0.9)),
        ("adaptive:like=0.75,run=2", Retrieval(pick="first", recent=20, top=1, run=2, bank=16, like=0.75)),
        ("blockvid", Retrieval(tau=0.98)),
        ("blockvid:tau=0.9,top=3", Retrieval(tau=0.9, top=3)),
        ("blockvid:tau=1", Retrieval()),
        ("blockvid:tau=0.000001", Retrieval(tau=1e-6)),
        ("pages:recent=8", Retrieval(within=64, recent=8)),
        ("random:run=4", Retrieval(pick="random", run=4)),
        ("mismatched", Retrieval(pick="unlikest")),
    ],
)
def test_a_policy_is_named_by_a_text(text: str, policy: Policy) -> None:
    assert parse_policy(text) == policy


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "windows",
            "there is no policy 'windows'; known: adaptive, blockvid, .*, window; did you mean 'window'",
        ),
        ("", "there is no policy ''"),
        ("window:frame=3", "there is no option 'frame' of policy 'window'; known: frames; did you mean 'frames'"),
        ("window:", "there is no option"),
        ("sink:near=1", "there is no option 'near' of policy 'sink'; known: sink, window"),
        ("window:24", "there is no option '24' of policy 'window'"),
        ("full:frames=3", "there is no option 'frames' of policy 'full'; known: none"),
    ],
)
def test_an_unknown_policy_or_option_is_answered_with_the_known_ones(text: str, says: str) -> None:
    with pytest.raises(UnknownName, match=says):
        parse_policy(text)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("infinity-rope", "of the policy sink:sink=1,window=2; its flush and cut are for --on-prompt"),
        ("cut:gap=42", "for --on-prompt"),
        ("LongLive", "of the policy far-sink:sink=3,window=6; its re-cache is for --on-prompt"),
        ("recache:frames=12", "its re-cache is for --on-prompt"),
        ("rolling", "the published world rolling-forcing"),
        ("krea", "the policy recompute"),
        ("streaming", "the policy adaptive"),
    ],
)
def test_what_is_no_policy_here_is_answered_with_where_it_is(text: str, where: str) -> None:
    with pytest.raises(UnknownName, match="there is no policy") as told:
        parse_policy(text)
    (note,) = told.value.__notes__
    assert where in note


def test_what_is_found_nowhere_has_no_note() -> None:
    for text in ("windows", "window:frame=3"):
        with pytest.raises(UnknownName) as told:
            parse_policy(text)
        assert not hasattr(told.value, "__notes__")


def test_the_notes_about_published_worlds_are_true() -> None:
    for name, recipe in RECIPES.items():
        if name in ELSEWHERE:
            assert f"the policy {policy_text(recipe.policy)};" in ELSEWHERE[name] or recipe.rolling, name
    assert {"infinity-rope", "longlive", "rolling-forcing"} <= ELSEWHERE.keys() & RECIPES.keys()


@pytest.mark.parametrize(
    "text",
    [
        "window:frames=few",
        "window:frames=",
        "window:frames=-3",
        "window:frames=2,frames=3",
        f"window:frames={'9' * 5_000}",
    ],
)
def test_an_option_that_is_no_single_whole_number_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"takes frames once, as a whole number of .*, got 'window:frames=") as told:
        parse_policy(text)
    assert len(str(told.value)) < 200


def test_an_option_that_does_not_fit_is_refused_by_the_policy() -> None:
    with pytest.raises(ConfigError, match="at least 1 frame"):
        parse_policy("window:frames=0")
    with pytest.raises(ConfigError, match=r"tau from 0\.000001 to 1, got .* tau=1\.0000001"):
        parse_policy("blockvid:tau=1.0000001")


@pytest.mark.parametrize(
    "policy",
    [
        Full(),
        Window(frames=3),
        Window(frames=3, anew=True),
        SinkWindow(sink=0, window=9),
        SinkWindow(sink=1, window=2, near=False),
        Retrieval(tau=0.75, bank=3),
        Retrieval(tau=1e-6),
        Retrieval(tau=0.1 + 0.2),
        Retrieval(within=16),
        Retrieval(pick="random", tau=0.5),
        *(parse_policy(name) for name in POLICIES),
    ],
)
def test_the_text_of_a_policy_names_it(policy: Policy) -> None:
    assert parse_policy(policy_text(policy)) == policy


def test_a_policy_that_nobody_knows_is_told_by_its_repr() -> None:
    class Own(Window):
        pass

    own = Own(frames=2)
    assert policy_text(own) == repr(own)


def test_the_page_about_memory_says_what_every_name_means_by_itself() -> None:
    page = (Path(__file__).parents[2] / "docs" / "memory.md").read_text()
    for name in POLICIES:
        policy = parse_policy(name)
        assert f"\n| `{policy_text(policy)}` |" in page
        assert not isinstance(policy, Retrieval) or f"up to {policy.limit}" in page
