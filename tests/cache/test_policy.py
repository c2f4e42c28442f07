"""Which frames each policy shows, at which positions, and how policies are named in text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from worldsim.cache.policy import Full, Policy, Seen, SinkWindow, Window
from worldsim.cache.retrieval import Retrieval
from worldsim.errors import ConfigError
from worldsim.testing.conformance import check_policy


def pairs(seen: object) -> list[tuple[int, int]]:
    assert isinstance(seen, list)
    return [(one.frame, one.position) for one in seen]


@pytest.mark.parametrize(
    "policy",
    [
        Full(),
        *(Window(frames=frames) for frames in (1, 2, 7, 100)),
        *(
            SinkWindow(sink=sink, window=window, near=near)
            for sink in (0, 1, 3)
            for window in (1, 2, 7)
            for near in (True, False)
        ),
    ],
)
def test_every_shipped_policy_keeps_the_contract(policy: Policy) -> None:
    check_policy(policy, max_frames=40)


def test_full_sees_everything_at_its_true_distance() -> None:
    assert pairs(Full().see([0, 1, 2], 3)) == [(0, -3), (1, -2), (2, -1)]
    assert Full().keep([0, 1, 2], 3) == [0, 1, 2]
    assert Full().limit is None


def test_a_window_sees_the_latest_frames_at_their_true_distance() -> None:
    window = Window(frames=3)
    assert pairs(window.see([5, 6, 7, 8, 9], 10)) == [(7, -3), (8, -2), (9, -1)]
    assert pairs(window.see([5, 6, 9], 10)) == [(9, -1)]
    assert window.keep([5, 6, 7, 8, 9], 10) == [7, 8, 9]
    assert window.limit == 3


def test_a_sink_stands_directly_before_the_window() -> None:
    policy = SinkWindow(sink=2, window=3)
    assert pairs(policy.see(range(100), 100)) == [(0, -5), (1, -4), (97, -3), (98, -2), (99, -1)]
    assert policy.keep(range(100), 100) == [0, 1, 97, 98, 99]
    assert policy.limit == 5


def test_a_sink_stands_at_its_true_distance_until_the_window_has_left_it() -> None:
    for block in range(6):
        for near in (True, False):
            policy = SinkWindow(sink=2, window=3, near=near)
            assert policy.see(range(block), block) == Full().see(range(block), block)


def turned_when_written(blocks: int, frames: int, *, sink: int, size: int) -> list[list[tuple[int, int]]]:
    """What each block sees of a buffer of so many frames whose keys are turned, once, to the number of their frame.

    Whatever overflows it pushes out the oldest that is no sink. A block finds its own frames in the buffer already.
    """
    buffer: list[int] = []
    seen = []
    for first in range(0, blocks * frames, frames):
        buffer += range(first, first + frames)
        while len(buffer) > size:
            del buffer[sink]
        seen.append([(turned, turned - first) for turned in buffer if turned < first])
    return seen


@pytest.mark.parametrize(("sink", "size", "frames"), [(3, 12, 3), (0, 21, 3), (1, 6, 1), (2, 7, 2)])
def test_a_far_sink_is_what_a_buffer_of_turned_keys_shows(sink: int, size: int, frames: int) -> None:
    """The cache of LongLive has 12 frames and 3 sinks, that of Self-Forcing 21 and none."""
    policy, held = SinkWindow(sink=sink, window=size - sink - frames, near=False), list[int]()
    for number, wanted in enumerate(turned_when_written(15, frames, sink=sink, size=size)):
        first = number * frames
        assert pairs(policy.see(held, first)) == wanted
        held = list(policy.keep([*held, *range(first, first + frames)], first + frames))


def anchored(first: int, *, anchor: int, working: int) -> list[tuple[int, int]]:
    """What a window of RollingForcing from that frame on sees: frames before it, and the first beside them."""
    latest = range(max(0, first - working), first)
    turned = [first - working - anchor + frame for frame in range(anchor)]
    return [(frame, at - first) for frame, at in enumerate(turned)] + [(frame, frame - first) for frame in latest]


@pytest.mark.parametrize("working", [3, 15])
def test_a_near_sink_is_the_anchor_of_rolling_forcing(working: int) -> None:
    policy = SinkWindow(sink=3, window=working)
    for first in range(3 + working, 60, 3):
        assert pairs(policy.see(range(first), first)) == anchored(first, anchor=3, working=working)


def test_a_far_sink_moves_back_with_every_block_and_a_near_one_does_not() -> None:
    far, near = (SinkWindow(sink=2, window=3, near=near) for near in (False, True))
    assert pairs(far.see(range(100), 100)) == [(0, -100), (1, -99), (97, -3), (98, -2), (99, -1)]
    assert [pairs(near.see(range(block), block))[0] for block in (50, 51)] == [(0, -5), (0, -5)]
    assert far.keep(range(100), 100) == near.keep(range(100), 100)
    assert far.limit == near.limit


def test_positions_stay_small_in_a_world_that_never_ends() -> None:
    late = 10**9
    for policy in (Window(frames=24), SinkWindow(sink=4, window=20)):
        seen = policy.see([0, 1, 2, 3, *range(late - 30, late)], late)
        assert [one.position for one in seen] == list(range(-24, 0))


def test_a_seen_frame_is_a_value() -> None:
    assert Seen(3, -1) == Seen(frame=3, position=-1)


@pytest.mark.parametrize("settings", [{"frames": 0}, {"frames": -1}])
def test_a_window_without_frames_is_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=f"at least 1 frame, got frames={settings['frames']}"):
        Window(**settings)


@pytest.mark.parametrize("settings", [{"sink": -1, "window": 3}, {"sink": 0, "window": 0}])
def test_a_sink_that_cannot_work_is_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="sink >= 0 and window >= 1"):
        SinkWindow(**settings)


@pytest.mark.parametrize("wrong", [2.5, True, "3", None])
@pytest.mark.parametrize(
    ("kind", "name"), [(Window, "frames"), (SinkWindow, "sink"), (SinkWindow, "window"), (Retrieval, "top")]
)
def test_a_count_that_is_no_whole_number_is_refused_with_its_name(kind: Any, name: str, wrong: object) -> None:
    with pytest.raises(ConfigError, match=f"^{name} of a policy is a whole number, got {wrong!r}"):
        kind(**{name: wrong})


def test_a_count_may_be_of_any_kind_of_whole_number() -> None:
    assert type(Window(frames=np.int64(5)).frames) is int  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="got frames=a number of more digits than can be written"):
        Window(frames=-(10**5_000))
