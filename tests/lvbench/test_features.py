"""Every track of features has a row for each frame."""

from __future__ import annotations

import numpy as np
import pytest

from lvbench.features import TRACKS, Features, Rows


def test_a_track_that_lacks_a_frame_is_a_defect():
    with pytest.raises(AssertionError, match="clarity has 2 rows for 3 frames"):
        Features(frames=3, tracks={"clarity": np.zeros(2, np.float32)})


def test_the_tracks_are_those_that_extractors_may_measure():
    assert len(TRACKS) == len(set(TRACKS)) == 7


def test_a_table_grows_row_by_row_and_is_given_as_a_copy():
    rows, given = Rows(3), np.random.default_rng(0).random((200, 3)).astype(np.float32)
    assert rows.table().shape == (0, 3)
    for row in given:
        rows.append(row)
    assert len(rows) == 200
    assert np.array_equal(rows.table(), given)
    rows.table()[0] = 9
    assert np.array_equal(rows.table(), given)
