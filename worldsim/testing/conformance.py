"""The contracts of worldsim as checks: run them on a part you wrote, as our tests do on every part we ship."""

from __future__ import annotations

from collections.abc import Sequence

from worldsim.cache.policy import Policy

FAR = 2**20
"""Frames by which a past is moved to see whether positions depend on frame numbers."""


def check_policy(policy: Policy, *, max_frames: int = 64) -> None:
    """Raise AssertionError, with the failing case, unless policy keeps its contract.

    A session of max_frames frames is played in blocks of 1, 2 and 3 frames. Each block must see held frames only, in
    order, at rising negative positions that do not depend on how far the session has come, the newest frame always
    among them; it must see the same whether or not the frames that `keep` gave up are still there; and equal
    questions must have equal answers.
    """
    for frames in (1, 2, 3):
        held: list[int] = []
        for block in range(0, max_frames, frames):
            _check_see(policy, held, block)
            _check_see(policy, held[::-2][::-1], block)
            _check_shift(policy, held, block)
            seen, of_all = list(policy.see(held, block)), list(policy.see(range(block), block))
            assert seen == of_all, f"keep had given up a frame that is seen: {seen} of {held}, {of_all} of all frames"
            held = _kept(policy, [*held, *range(block, block + frames)])


def _check_see(policy: Policy, held: Sequence[int], block: int) -> None:
    seen = policy.see(held, block)
    case = f"see({list(held)}, {block}) = {list(seen)}"
    frames = [one.frame for one in seen]
    positions = [one.position for one in seen]
    assert frames == sorted(set(frames)), f"{case} is not ascending and distinct"
    assert set(frames) <= set(held), f"{case} names frames that are not held"
    assert set(held[-1:]) <= set(frames), f"{case} leaves out the newest frame"
    assert positions == sorted(set(positions)), f"{case} has positions that do not rise with the frames"
    assert all(position < 0 for position in positions), f"{case} puts the past into the block, which starts at 0"
    assert list(policy.see(tuple(held), block)) == list(seen), f"{case} is not the answer when asked again"


def _check_shift(policy: Policy, held: Sequence[int], block: int) -> None:
    here = {one.frame: one.position for one in policy.see(held, block)}
    seen = policy.see([frame + FAR for frame in held], block + FAR)
    there = {one.frame - FAR: one.position for one in seen}
    moved = {frame: (here[frame], there[frame]) for frame in here.keys() & there.keys() if here[frame] != there[frame]}
    assert not moved, f"positions depend on frame numbers: {FAR} frames later see({held}, {block}) moves {moved}"


def _kept(policy: Policy, held: list[int]) -> list[int]:
    next_frame = held[-1] + 1
    kept = list(policy.keep(held, next_frame))
    case = f"keep({held}, {next_frame}) = {kept}"
    assert kept == sorted(set(kept)), f"{case} is not ascending and distinct"
    assert set(kept) <= set(held), f"{case} brings back frames that were forgotten"
    assert policy.limit is None or len(kept) <= policy.limit, f"{case} is more than its limit, {policy.limit}"
    assert list(policy.keep(tuple(held), next_frame)) == kept, f"{case} is not the answer when asked again"
    return kept
