"""A contact sheet shows the middle of each chunk."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from lvbench.errors import VideoRefused
from lvbench.sheets import THUMB_PX, sheet
from lvbench.video import Limits
from tests.lvbench.films import film


def test_a_sheet_shows_the_middle_frame_of_each_chunk(tmp_path):
    frames = [np.full((48, 64, 3), (10 * at, 0, 0), np.uint8) for at in range(23)]
    path = film(tmp_path / "a.mkv", frames, "ffv1", fmt="bgr0")
    picture = cv2.imdecode(np.frombuffer(sheet(path, 23, 4, Limits()), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (126, 4 * THUMB_PX, 3)
    reds = [int(picture[60, THUMB_PX * at + 80, 2]) for at in range(4)]
    assert reds == pytest.approx([20, 70, 120, 170], abs=4)


def test_a_video_that_was_replaced_by_a_shorter_one_has_no_sheet(tmp_path):
    path = film(tmp_path / "a.mkv", [np.zeros((48, 64, 3), np.uint8)] * 2)
    with pytest.raises(VideoRefused, match="it had 23 frames when it was scored, and has fewer now"):
        sheet(path, 23, 4, Limits())


def test_a_video_that_is_gone_has_no_sheet(tmp_path):
    with pytest.raises(VideoRefused):
        sheet(tmp_path / "none.mp4", 23, 4, Limits())
