"""Which frames each policy shows, at which positions, and how policies are named in text."""

from __future__ import annotations

import pytest

from worldsim.cache.policy import Full, Policy, Seen, SinkWindow, Window
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
        *(SinkWindow(sink=sink, window=window) for sink in (0, 1, 3) for window in (1, 2, 7)),
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
        assert SinkWindow(sink=2, window=3).see(range(block), block) == Full().see(range(block), block)


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
