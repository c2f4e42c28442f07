"""The checks that plug-in authors run must themselves find each kind of fault."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from worldsim.cache.policy import Full, Policy, Seen, SinkWindow, Window
from worldsim.testing.conformance import check_policy

See = Callable[[Sequence[int], int], Sequence[Seen]]
Keep = Callable[[Sequence[int], int], Sequence[int]]


@dataclass
class Custom:
    """The policy of a plug-in author: a window of five frames unless told otherwise."""

    see: See = Window(frames=5).see
    keep: Keep = Window(frames=5).keep
    limit: int | None = 5


@dataclass
class Moody:
    """Answers differently when asked again."""

    limit: int | None = None
    asked: list[int] = field(default_factory=list)

    def see(self, held: Sequence[int], block: int) -> Sequence[Seen]:
        self.asked.append(block)
        return Full().see(held, block)[-1 - len(self.asked) % 2 :]

    def keep(self, held: Sequence[int], next_frame: int) -> Sequence[int]:
        return held


def at_distance(frames: Sequence[int], block: int) -> list[Seen]:
    return [Seen(frame, frame - block) for frame in frames]


@pytest.mark.parametrize("policy", [Full(), Window(frames=1), Window(frames=7), SinkWindow(sink=0, window=1), Custom()])
def test_a_policy_that_keeps_its_contract_passes(policy: Policy) -> None:
    check_policy(policy)


BROKEN: dict[str, Policy] = {
    "not ascending": Custom(see=lambda held, block: at_distance(held[-5:], block)[::-1]),
    "not held": Custom(see=lambda held, block: at_distance(range(max(0, block - 6), block), block)),
    "leaves out the newest": Custom(see=lambda held, block: at_distance(held[-5:-1], block)),
    "do not rise": Custom(see=lambda held, block: [Seen(frame, -1) for frame in held[-5:]]),
    "which starts at 0": Custom(see=lambda held, block: [Seen(frame, frame - block + 1) for frame in held[-5:]]),
    "depend on frame numbers": Custom(see=lambda held, block: [Seen(frame, frame - 1024) for frame in held[-5:]]),
    "keep had given up": Custom(keep=Window(frames=3).keep),
    "brings back": Custom(keep=lambda held, next_frame: held[-5:] if next_frame < 9 else range(next_frame), limit=None),
    "keep.*not ascending": Custom(keep=lambda held, next_frame: held[::-1]),
    "more than its limit": Custom(limit=4),
    "asked again": Moody(),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_policy_that_breaks_its_contract_is_told_how(fault: str) -> None:
    with pytest.raises(AssertionError, match=fault):
        check_policy(BROKEN[fault])
