"""What a policy answers, checked where it is asked: anybody may write one, and its faults show far from it else."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from numbers import Integral
from typing import TypeGuard

import numpy as np

from worldsim.cache.policy import Alike, Policy, Seen, Sparse, nothing_alike
from worldsim.errors import ConfigError, shown

FARTHEST = 2**53
"""Frames before a block: angles of positions are computed in float64, which tells whole numbers apart up to here."""
ADDRESS = " at 0x"
"""How the repr of an object, or of a function that it holds, says where that lies in memory."""
PARTS = ("limit", "sparse", "anew", "see", "keep")


def check_policy_parts(policy: Policy) -> None:
    """Raise ConfigError unless that has the parts of a policy, and says what one may say of itself, and which it is."""
    lacking = [name for name in PARTS if not hasattr(policy, name)]
    if lacking:
        raise ConfigError(
            f"a policy has {', '.join(PARTS)}, as worldsim.cache.policy.Policy says, and {shown(policy)} lacks "
            f"{', '.join(lacking)}; add what lacks, or name a policy such as window:frames=24"
        )
    limit, sparse, anew = policy.limit, policy.sparse, policy.anew
    wrong = {
        "limit": (limit, "a whole number of 1 or more, or None", limit is None or (_is_whole(limit) and limit > 0)),
        "sparse": (sparse, "a worldsim.cache.policy.Sparse, or None", sparse is None or isinstance(sparse, Sparse)),
        "anew": (anew, "True or False", isinstance(anew, bool)),
        "see": (policy.see, "a method that answers with what a block sees", callable(policy.see)),
        "keep": (policy.keep, "a method that answers with which frames stay held", callable(policy.keep)),
    }
    for name, (given, such, fits) in wrong.items():
        if not fits:
            raise ConfigError(f"the {name} of the policy {shown(policy)} is {shown(given)}; make it {such}")
    if ADDRESS in repr(policy):
        raise ConfigError(
            f"a log tells by the repr of a policy which one it was lived with, and {shown(policy)} is another each "
            "time; give it a repr that says what its answers depend on, as a dataclass has"
        )


def seen_by(policy: Policy, held: Sequence[int], block: int, alike: Alike = nothing_alike) -> tuple[Seen, ...]:
    """What a block sees under that policy, see Policy.see.

    Raises:
        ConfigError: the policy answers what no policy may.
    """
    answer: object = policy.see(held, block, alike)
    fault = _fault_of_sequence(answer, held)
    if fault is None and isinstance(answer, Sequence):
        fault = _fault_of_seen(answer, held, block) or _fault_of_number(policy, answer)
        if fault is None:
            return tuple(map(_plain, answer))
    raise ConfigError(
        f"the policy {shown(policy)} says that block {block} sees {shown(answer)}, and {fault}; let its `see` answer "
        f"with Seen(frame, position) of {some_of(held)}, ascending in frame and in position, the frame before the "
        f"block among them, at positions that are whole numbers from {-FARTHEST} to -1"
    )


def kept_by(policy: Policy, held: Sequence[int], next_frame: int) -> tuple[int, ...]:
    """The held frames that stay under that policy, see Policy.keep.

    Raises:
        ConfigError: the policy answers what no policy may.
    """
    answer: object = policy.keep(held, next_frame)
    fault = _fault_of_sequence(answer, held)
    if fault is None and isinstance(answer, Sequence):
        fault = _fault_of_frames(answer, held, next_frame) or _fault_of_number(policy, answer)
        if fault is None:
            return tuple(map(int, answer))
    raise ConfigError(
        f"the policy {shown(policy)} keeps {shown(answer)} before frame {next_frame}, and {fault}; let its `keep` "
        f"answer with some of {some_of(held)}, ascending, the newest among them"
    )


def _fault_of_sequence(answer: object, held: Sequence[int]) -> str | None:
    if isinstance(answer, Sequence) and not isinstance(answer, str | bytes):
        return None
    return f"that is a {type(answer).__name__} and no list"


def _fault_of_seen(answer: Sequence[object], held: Sequence[int], block: int) -> str | None:
    """What is wrong with what a block is said to see, in words; None if nothing is."""
    seen = [one for one in answer if isinstance(one, Seen)]
    if len(seen) < len(answer):
        return f"{shown(next(one for one in answer if not isinstance(one, Seen)))} is no Seen(frame, position)"
    positions = [one.position for one in seen]
    fault = _fault_of_frames([one.frame for one in seen], held, block)
    if fault is not None:
        return fault
    for position in positions:
        if not _is_whole(position):
            return f"position {shown(position)} is no whole number"
        if not -FARTHEST <= position < 0:
            return f"position {shown(position)} is {'too far back' if position < 0 else 'not before the block'}"
    odd = next((one for one in seen if not isinstance(one.retrieved, bool | np.bool_)), None)
    if odd is not None:
        return f"frame {odd.frame} is said to be retrieved={shown(odd.retrieved)}, which is neither True nor False"
    stuck = next((pair for pair in pairwise(positions) if pair[1] <= pair[0]), None)
    return None if stuck is None else f"position {stuck[1]} comes after position {stuck[0]}"


def _fault_of_frames(frames: Sequence[object], held: Sequence[int], next_frame: int) -> str | None:
    """What is wrong with the frames that are seen or kept before that one, in words; None if nothing is.

    Which frame is before the next one may itself be unknown: one that is about to be computed anew is not held.
    """
    known, before = set(held), -1
    for frame in frames:
        if not _is_whole(frame):
            return f"frame {shown(frame)} is no whole number"
        if frame not in known:
            return f"frame {shown(frame)} is not held"
        if frame <= before:
            return f"frame {frame} comes twice" if frame == before else f"frame {frame} comes after frame {before}"
        before = int(frame)
    if next_frame - 1 in known and before != next_frame - 1:
        return f"frame {next_frame - 1}, the newest, is left out"
    return None


def _fault_of_number(policy: Policy, answer: Sequence[object]) -> str | None:
    limit = policy.limit
    if limit is None or len(answer) <= limit:
        return None
    return f"these are {len(answer)} frames, more than its limit of {limit}"


def some_of(held: Sequence[int]) -> str:
    """What a policy may answer with, and ask about, in words."""
    return f"the frames held, {shown(list(held))}" if held else "no frames, since none is held"


def _plain(one: Seen) -> Seen:
    """The same in numbers of Python."""
    is_plain = type(one.frame) is type(one.position) is int and type(one.retrieved) is bool
    return one if is_plain else Seen(int(one.frame), int(one.position), bool(one.retrieved))


def _is_whole(given: object) -> TypeGuard[int]:
    # The first spares the many frames of an endless past the slow question.
    return type(given) is int or (isinstance(given, Integral) and not isinstance(given, bool))
