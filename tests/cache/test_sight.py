"""What a block saw, told as runs of frames."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from worldsim.cache.sight import Sight


def test_frames_are_told_as_runs_of_consecutive_numbers():
    assert Sight(frames=(-4, -3, 0, 7, 8, 9)).ranges == (range(-4, -2), range(0, 1), range(7, 10))
    assert Sight(frames=(5,)).ranges == (range(5, 6),)
    assert Sight().ranges == ()


@given(st.sets(st.integers(-50, 50)).map(sorted))
def test_the_runs_hold_the_frames_and_do_not_touch(frames):
    runs = Sight(frames=tuple(frames)).ranges
    assert [frame for run in runs for frame in run] == frames
    assert all(before.stop < after.start for before, after in pairwise(runs))


def test_frames_can_be_counted_from_another_and_keep_their_shares():
    assert Sight(frames=(3, 9), shares=(0.25, 0.5)).counted_from(4) == Sight(frames=(-1, 5), shares=(0.25, 0.5))
