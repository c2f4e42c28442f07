"""What one step shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worldsim.controls import Keys

Frames = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Chunk:
    """What one step shows.

    frames: uint8 [F, H, W, 3], RGB.
    block: number of the block they belong to, from 0.
    keys: the keys it was made under.
    """

    frames: Frames
    block: int
    keys: Keys
