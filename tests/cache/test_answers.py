"""Whatever a policy answers that none may is refused with its name, and nothing that ours answer is."""

from __future__ import annotations

import random
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from worldsim.cache.answers import FARTHEST, check_policy_parts, kept_by, seen_by
from worldsim.cache.policies import POLICIES, parse_policy
from worldsim.cache.policy import Full, Seen, Sparse
from worldsim.decoding.prompting import PromptChange
from worldsim.errors import ConfigError

HELD = (2, 3, 5, 6)
NAN = float("nan")


@dataclass(frozen=True)
class Mine:
    """A policy that answers whatever it is made with."""

    sees: Any = ()
    keeps: Any = ()
    limit: Any = None
    sparse: Any = None
    anew: Any = False

    def see(self, held, block, alike=None):
        return self.sees

    def keep(self, held, next_frame):
        return self.keeps


def at(*pairs: tuple[Any, Any]) -> list[Seen]:
    return [Seen(frame, position) for frame, position in pairs]


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (None, "that is a NoneType and no list"),
        ("all", "that is a str and no list"),
        ({2: -1}, "that is a dict and no list"),
        (iter(at((6, -1))), "and no list"),
        ([5, 6], r"5 is no Seen\(frame, position\)"),
        ([(6, -1)], r"\(6, -1\) is no Seen"),
        (at((-995, -2), (6, -1)), "frame -995 is not held"),
        (at((4, -2), (6, -1)), "frame 4 is not held"),
        (at((5, -2), (5, -1)), "frame 5 comes twice"),
        (at((5, -3), (3, -2), (6, -1)), "frame 3 comes after frame 5"),
        (at((6.0, -1)), "frame 6.0 is no whole number"),
        (at((NAN, -1)), "frame nan is no whole number"),
        (at((None, -1)), "frame None is no whole number"),
        (at((True, -1)), "frame True is no whole number"),
        (at((6, 0)), "position 0 is not before the block"),
        (at((6, 5)), "position 5 is not before the block"),
        (at((6, -1.5)), "position -1.5 is no whole number"),
        (at((6, NAN)), "position nan is no whole number"),
        (at((6, Fraction(-1, 2))), "is no whole number"),
        (at((6, -True)), None),
        (at((6, -(10**30))), f"position -{10**30} is too far back"),
        (at((6, -FARTHEST - 1)), "is too far back"),
        (at((5, -1), (6, -1)), "position -1 comes after position -1"),
        ([Seen(6, -1, "no")], "frame 6 is said to be retrieved='no', which is neither True nor False"),
        ([Seen(6, -1, np.array([1, 0]))], "which is neither True nor False"),
        ([Seen(6, -1, 1)], "frame 6 is said to be retrieved=1, which is neither True nor False"),
        (at((5, -1), (6, -2)), "position -2 comes after position -1"),
        (at((2, -2), (5, -1)), "frame 6, the newest, is left out"),
        ([], "frame 6, the newest, is left out"),
        (at((5, -2), (6, -1)), None),
        (tuple(at((5, -FARTHEST), (6, -1))), None),
    ],
)
def test_what_no_block_sees_is_refused_with_the_policy_that_says_so(answer, fault):
    if fault is None:
        assert seen_by(Mine(sees=answer), HELD, 7) == tuple(answer)
        return
    with pytest.raises(ConfigError, match=rf"the policy Mine.* says that block 7 sees .*{fault}.*\[2, 3, 5, 6\]") as at:
        seen_by(Mine(sees=answer), HELD, 7)
    assert "\n" not in str(at.value)


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (None, "that is a NoneType and no list"),
        ({5, 6}, "that is a set and no list"),
        ([], "frame 6, the newest, is left out"),
        ([2, 3], "frame 6, the newest, is left out"),
        ([5, 6, 6], "frame 6 comes twice"),
        ([6, 5], "frame 5 comes after frame 6"),
        ([4, 6], "frame 4 is not held"),
        ([5, 6, 7], "frame 7 is not held"),
        ([5.0, 6], "frame 5.0 is no whole number"),
        ([2, 3, 5, 6], None),
        (range(5, 7), None),
    ],
)
def test_what_no_policy_keeps_is_refused_with_its_name(answer, fault):
    if fault is None:
        assert kept_by(Mine(keeps=answer), HELD, 7) == tuple(answer)
        return
    with pytest.raises(ConfigError, match=rf"the policy Mine.* keeps .* before frame 7, .*{fault}.*\[2, 3, 5, 6\]"):
        kept_by(Mine(keeps=answer), HELD, 7)


def test_more_frames_than_the_limit_of_a_policy_are_refused():
    policy = Mine(sees=at((3, -3), (5, -2), (6, -1)), keeps=[3, 5, 6], limit=2)
    for ask in (seen_by, kept_by):
        with pytest.raises(ConfigError, match="these are 3 frames, more than its limit of 2"):
            ask(policy, HELD, 7)


def test_whole_numbers_of_numpy_are_taken_as_such():
    policy = Mine(sees=[Seen(np.int64(6), np.int32(-1), np.bool_(True))], keeps=list(np.array([5, 6])))
    (one,), kept = seen_by(policy, HELD, 7), kept_by(policy, HELD, 7)
    assert {type(number) for number in (one.frame, one.position, *kept)} == {int}
    assert one.retrieved is True


@pytest.mark.parametrize(
    ("parts", "fault"),
    [
        ({"limit": 0}, "the limit of the policy Mine.* is 0; make it a whole number of 1 or more, or None"),
        ({"limit": -3}, "is -3; make it a whole"),
        ({"limit": 4.0}, "is 4.0; make it a whole"),
        ({"limit": True}, "is True; make it a whole"),
        ({"limit": "8"}, "is '8'; make it a whole"),
        ({"sparse": (1, 2, 0.5)}, r"the sparse of the policy Mine.* is \(1, 2, 0.5\); make it a .*Sparse, or None"),
        ({"sparse": True}, "is True; make it a worldsim"),
        ({"anew": "no"}, "the anew of the policy Mine.* is 'no'; make it True or False"),
    ],
)
def test_what_no_policy_says_of_itself_is_refused(parts, fault):
    with pytest.raises(ConfigError, match=fault):
        check_policy_parts(Mine(**parts))


def test_a_policy_that_its_repr_does_not_tell_apart_is_refused():
    class Plain(Full):
        __repr__ = object.__repr__

    for own in (Plain(), Mine(sees=lambda: None)):
        with pytest.raises(ConfigError, match=r"tells by the repr of a policy .*, as a dataclass has$"):
            check_policy_parts(own)
    check_policy_parts(Mine())


def test_something_that_lacks_parts_of_a_policy_is_refused():
    with pytest.raises(ConfigError, match=r"a policy has limit, sparse, anew, see, keep, .* 'full' lacks limit"):
        check_policy_parts("full")


@pytest.mark.parametrize("part", ["see", "keep"])
def test_a_policy_whose_methods_cannot_be_called_is_refused(part):
    policy = Mine()
    object.__setattr__(policy, part, None)
    with pytest.raises(ConfigError, match=rf"the {part} of the policy .* is None; make it a method that answers with"):
        check_policy_parts(policy)


@pytest.mark.parametrize(
    "wrong",
    [{"run": 0}, {"run": -1}, {"run": 1.5}, {"recent": -1}, {"recent": None}, {"tau": 0}, {"tau": 1.1}, {"tau": NAN}],
)
def test_frames_are_held_in_runs_of_one_or_more_by_a_share_of_the_attention(wrong):
    with pytest.raises(ConfigError):
        Sparse(**({"recent": 1, "run": 2, "tau": 0.5} | wrong))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", POLICIES)
def test_nothing_that_our_policies_answer_is_refused(name, seed):
    """From nothing on, over prompts that leave a few frames, and where the newest frames are about to be made anew."""
    policy, dice = parse_policy(name), random.Random(seed)
    if seed and not isinstance(policy, Full):
        smaller = {"window": "frames=2", "recompute": "frames=2", "sink": "sink=1,window=1", "far-sink": "window=1"}
        policy = parse_policy(f"{name}:{smaller.get(name, 'recent=2,run=2,bank=2')}")
    check_policy_parts(policy)
    changes = [PromptChange(), PromptChange(sink=1, recent=2), PromptChange(anew=6), PromptChange(sink=1, recent=1)]
    held: tuple[int, ...] = ()
    next_frame = dice.choice([0, 1, 10**12])
    for _ in range(80):
        seen_by(policy, held, next_frame, lambda frame: dice.uniform(-1, 1))
        change, block = dice.choice(changes), dice.randint(1, 4)
        if held and dice.random() < 0.2:
            held = tuple(change.keep(held))
            seen_by(policy, held[: -change.anew or None], next_frame - min(change.anew, len(held)))
        held = (*held, *range(next_frame, next_frame + block))
        next_frame += block
        held = tuple(change.hold(held, kept_by(policy, held, next_frame)))
