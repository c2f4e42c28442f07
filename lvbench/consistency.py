"""How alike the frames of a stretch of video are."""

from __future__ import annotations

import numpy as np

from lvbench.drift import Floats, table, unit
from lvbench.score import Result, Score, Unscored


def consistency(features: Floats) -> Result:
    """Mean similarity of frames to the frame before and to the first, 0 to 1.

    Args:
        features: one row per frame, [F, D], of any length.

    Returns:
        Mean over frames t = 2 .. F of [max(0, cos(f_t, f_t-1)) + max(0, cos(f_t, f_1))] / 2; Unscored below two frames
        and where a frame has features of 0, or none.

    Raises ConfigError unless features are a table of numbers.

    Source: VBench, Huang et al. 2024 (arXiv:2311.17982), subject and background consistency.
    """
    given = table(features)
    if len(given) < 2:
        return Unscored(f"consistency needs at least 2 frames, got {len(given)}")
    rows = unit(given)
    if not np.isfinite(rows).all():
        return Unscored(f"frame {int(np.flatnonzero(~np.isfinite(rows).all(1))[0])} has no features")
    before = (rows[1:] * rows[:-1]).sum(1)
    first = (rows[1:] * rows[0]).sum(1)
    return Score(float(np.mean((before.clip(0, 1) + first.clip(0, 1)) / 2)), count=len(rows) - 1)
