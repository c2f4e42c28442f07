"""What a block saw, told as runs of frames."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from worldsim.cache.sight import Run, Sight


def test_frames_are_told_as_runs_of_consecutive_numbers():
    assert Sight(frames=(-4, -3, 0, 7, 8, 9)).runs == (Run(range(-4, -2)), Run(range(0, 1)), Run(range(7, 10)))
    assert Sight(frames=(5,)).runs == (Run(range(5, 6), False),)
    assert Sight().runs == ()


def test_what_was_retrieved_is_told_apart_where_it_adjoins_what_is_recent():
    sight = Sight(frames=(0, 4, 5, 6, 7), retrieved=(4, 5))
    assert sight.runs == (Run(range(0, 1), False), Run(range(4, 6), True), Run(range(6, 8), False))


@given(st.dictionaries(st.integers(-50, 50), st.booleans()))
def test_the_runs_hold_the_frames_and_none_could_be_longer(brought):
    frames = tuple(sorted(brought))
    runs = Sight(frames=frames, retrieved=tuple(frame for frame in frames if brought[frame])).runs
    assert tuple(frame for run in runs for frame in run.frames) == frames
    assert all(brought[frame] is run.retrieved for run in runs for frame in run.frames)
    for before, after in pairwise(runs):
        assert before.frames.stop < after.frames.start or before.retrieved is not after.retrieved


def test_frames_can_be_counted_from_another_and_keep_their_shares():
    sight = Sight(frames=(3, 9), retrieved=(3,), shares=(0.25, 0.5))
    assert sight.counted_from(4) == Sight(frames=(-1, 5), retrieved=(-1,), shares=(0.25, 0.5))
