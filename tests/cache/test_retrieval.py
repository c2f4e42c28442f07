"""What is brought back of a long past, and that it is the likest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from worldsim.cache.policies import parse_policy
from worldsim.cache.policy import Seen, Sparse
from worldsim.cache.retrieval import Retrieval
from worldsim.errors import ConfigError
from worldsim.testing.conformance import check_policy


@pytest.mark.parametrize("pick", ["likest", "unlikest", "random", "first"])
@pytest.mark.parametrize("within", [0, 6])
@pytest.mark.parametrize(("recent", "top", "run", "bank"), [(4, 2, 3, 5), (1, 1, 1, 1), (5, 3, 2, 4), (7, 1, 6, 2)])
def test_retrieval_keeps_the_contract(recent: int, top: int, run: int, bank: int, within: int, pick: Any) -> None:
    if within % run == 0:
        check_policy(Retrieval(recent=recent, top=top, run=run, bank=bank, within=within, pick=pick), max_frames=50)


def frames(seen: Sequence[Seen]) -> list[int]:
    assert [one.position for one in seen] == list(range(-len(seen), 0))
    return [one.frame for one in seen]


def test_the_likest_runs_stand_directly_before_the_recent_frames() -> None:
    policy = Retrieval(recent=4, top=2, run=3)
    likeness = {4: 0.9, 13: 0.8, 7: 0.7}
    assert frames(policy.see(range(30), 30, lambda frame: likeness.get(frame, 0.0))) == [
        *(3, 4, 5),
        *(12, 13, 14),
        *range(26, 30),
    ]


def test_runs_that_are_brought_back_are_told_apart_from_recent_frames_even_where_they_adjoin() -> None:
    for pick in ("likest", "unlikest", "random", "first"):
        seen = Retrieval(recent=2, top=2, run=2, pick=pick).see(range(6), 6)
        assert [(one.frame, one.retrieved) for one in seen if one.frame >= 4] == [(4, False), (5, False)]
        assert all(one.retrieved for one in seen if one.frame < 4)


@pytest.mark.parametrize("seed", [5])
def test_one_frame_that_is_like_it_brings_its_run_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    policy = Retrieval(recent=8, top=1, run=4, bank=100)
    for block in rng.integers(40, 200, size=20).tolist():
        likeness = rng.random(block)
        best = int(likeness[: (block - 8) // 4 * 4].argmax()) // 4 * 4
        assert frames(policy.see(range(block), block, likeness.__getitem__))[:4] == [*range(best, best + 4)]


def test_of_equal_runs_the_latest_is_brought_back() -> None:
    assert frames(Retrieval(recent=2, top=1, run=2).see(range(20), 20)) == [16, 17, 18, 19]


def test_mismatched_takes_the_runs_least_like_it() -> None:
    policy = Retrieval(recent=2, top=1, run=2, pick="unlikest")
    assert frames(policy.see(range(20), 20, lambda frame: -1.0 if frame == 7 else frame)) == [0, 1, 18, 19]
    assert frames(policy.see(range(20), 20, lambda frame: -1.0 if frame in (6, 7) else frame)) == [6, 7, 18, 19]


def test_a_sink_that_adapts_is_given_up_for_a_later_one_that_the_world_still_looks_like() -> None:
    policy = Retrieval(recent=4, top=1, run=3, pick="first", like=0.8)
    likeness = {1: 0.9, 7: 0.85, 16: 0.95}
    assert frames(policy.see(range(30), 30, lambda frame: likeness.get(frame, 0.1)))[:3] == [0, 1, 2]
    likeness[1] = 0.5
    assert frames(policy.see(range(30), 30, lambda frame: likeness.get(frame, 0.1)))[:3] == [6, 7, 8]
    assert frames(policy.see(range(30), 30, lambda frame: 0.79)) == [26, 27, 28, 29]
    assert frames(policy.see(range(30), 30)) == [26, 27, 28, 29], "of nothing that is known to be alike"


def test_a_sink_stays_for_as_long_as_the_world_looks_like_it_and_serves_again_when_it_does_again() -> None:
    policy = Retrieval(recent=4, top=1, run=3, bank=5, pick="first", like=0.8)
    held: Sequence[int] = []
    for block in range(300):
        like_first = 0.2 if 100 <= block < 200 else 0.9
        seen = frames(policy.see(held, block, lambda frame, like=like_first: like if frame < 3 else 0.85))
        border = (block - 4) // 3
        if block >= 10:
            sink = 0 if like_first == 0.9 or border <= 5 else border - 5
            assert seen[:3] == [*range(3 * sink, 3 * sink + 3)], block
        held = policy.keep([*held, block], block + 1)
        assert len(held) <= policy.limit == 4 + 2 + 15 + 3
    assert held[:3] == [0, 1, 2]


def test_random_takes_every_run_now_and_then_and_the_same_when_asked_again() -> None:
    policy = Retrieval(recent=2, top=1, run=2, pick="random", bank=4)
    taken = [frames(policy.see(range(block), block))[0] // 2 - block // 2 for block in range(100, 300, 2)]
    assert set(taken) == {-5, -4, -3, -2}
    assert max(taken.count(run) for run in set(taken)) < 50


def test_a_stretch_is_chosen_before_the_runs_in_it() -> None:
    likeness = {1: 0.9, 15: 0.95, 13: 0.5, 9: 0.8, 11: 0.7}
    policy = Retrieval(recent=2, top=2, run=2, within=6)
    assert frames(policy.see(range(20), 20, lambda frame: likeness.get(frame, 0.0)))[:4] == [12, 13, 14, 15]
    whole = Retrieval(recent=2, top=2, run=2)
    assert frames(whole.see(range(20), 20, lambda frame: likeness.get(frame, 0.0)))[:4] == [0, 1, 14, 15]


def test_the_bank_forgets_its_oldest_run() -> None:
    policy = Retrieval(recent=3, top=1, run=2, bank=2)
    assert policy.keep(range(20), 20) == [*range(12, 16), *range(16, 20)]
    assert policy.limit == 3 + 1 + 4
    assert frames(policy.see(range(20), 20, lambda frame: -frame)) == [12, 13, 17, 18, 19]


def test_only_what_loses_tokens_is_sparse() -> None:
    assert Retrieval().sparse is None
    assert Retrieval(recent=5, run=2, tau=0.5).sparse == Sparse(recent=5, run=2, tau=0.5)


@pytest.mark.parametrize(
    "settings", [{"recent": 0}, {"top": 0}, {"run": 0}, {"bank": 0}, {"tau": 0.0}, {"tau": 1e-7}, {"tau": 1.5}]
)
def test_retrieval_that_cannot_work_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"run and bank of at least 1 and tau from 0\.000001 to 1, got recent="):
        Retrieval(**settings)


def test_a_stretch_that_divides_a_run_is_refused() -> None:
    with pytest.raises(ConfigError, match="whole runs of 8 frames, or is none with 0, got within=12"):
        Retrieval(within=12)


@pytest.mark.parametrize("name", ["tau", "like"])
def test_a_share_that_is_no_number_is_refused_with_its_name(name: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name} of a policy is a number such as 0.98, got 'x'"):
        Retrieval(**{name: "x"})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"pick": "foo"}, "pick of a policy is one of likest, unlikest, random, first, got 'foo'"),
        ({"pick": ["likest"]}, r"pick of a policy is one of .*, got \['likest'\]"),
        ({"pick": None}, "pick of a policy is one of .*, got None"),
        ({"within": -8}, "or is none with 0, got within=-8"),
        ({"like": float("nan")}, r"like of a policy is a number such as 0\.98, got nan"),
        ({"like": float("inf")}, r"like of a policy is a number such as 0\.98, got inf"),
        ({"like": -0.5}, r"like of a policy is a cosine .* from 0 to 1, got -0\.5"),
        ({"like": -1e-9}, r"like of a policy is a cosine .* from 0 to 1, got -1e-09"),
        ({"like": 1.0000001}, r"like of a policy is a cosine .* from 0 to 1, got 1\.0000001"),
        ({"tau": 1.0000001}, r"tau from 0\.000001 to 1, got .* tau=1\.0000001"),
        ({"like": True}, r"like of a policy is a number such as 0\.98, got True"),
        ({"tau": True}, r"tau of a policy is a number such as 0\.98, got True"),
        ({"tau": float("nan")}, r"tau of a policy is a number such as 0\.98, got nan"),
    ],
)
def test_settings_that_no_text_could_name_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Retrieval(**settings)


def test_a_likeness_that_no_cosine_reaches_is_refused() -> None:
    assert parse_policy("adaptive:like=1") == parse_policy("adaptive:like=1.0")
    with pytest.raises(
        ConfigError, match=r"a cosine that runs are to reach, from 0 to 1, got 2\.0; with 0\.9 they look"
    ):
        parse_policy("adaptive:like=2")
