"""What one step shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from worldsim.cache.sight import Sight
from worldsim.controls import Keys

Frames = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Chunk:
    """What one step shows.

    frames: uint8 [F, H, W, 3], RGB.
    block: number of the block they belong to, from 0.
    keys: the keys it was made under.
    seconds: what it took, by stage: "denoise" (shared by all that made theirs together), "decode", and "commit", which
        is the clean pass and the log; empty where it was not generated.
    seen: what its block saw of the past, see Session.seen; nothing where it was not generated.
    """

    frames: Frames
    block: int
    keys: Keys
    seconds: Mapping[str, float] = field(default_factory=dict)
    seen: Sight = field(default_factory=Sight)
