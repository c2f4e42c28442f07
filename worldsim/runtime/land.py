"""The places that a world remembers as a picture from above, one pixel a place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from worldsim.models.protocol import UNKNOWN, Chart, Codec


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Land:
    """All places that are remembered, and no row or column around them.

    pixels: the colour of each on average, RGB uint8 [rows, columns, 3], black where nothing is known.
    known: which are remembered, bool [rows, columns].
    view: (top, left, rows, columns) of what is in view, which may reach beyond what is known.
    """

    pixels: NDArray[np.uint8]
    known: NDArray[np.bool_]
    view: tuple[int, int, int, int]


def land_of(chart: Chart, codec: Codec[Any]) -> Land:
    """A chart in colours.

    Args:
        chart: with one place or more that is known.
        codec: decodes what each sort of place looks like, as the first frame of a video of that size.
    """
    everywhere = chart.places.cpu().numpy()
    rows, columns = (np.flatnonzero((everywhere != UNKNOWN).any(axis)) for axis in (1, 0))
    top, left = int(rows[0]), int(columns[0])
    places = everywhere[top : rows[-1] + 1, left : columns[-1] + 1]
    known = places != UNKNOWN
    pixels = np.zeros((*places.shape, 3), np.uint8)
    for sort in np.unique(places[known]):
        look, _ = codec.decode(chart.sorts[int(sort)][None], codec.open())
        pixels[places == sort] = look.float().mean((0, 1, 2)).round().to(torch.uint8).cpu().numpy()
    down, right, *size = chart.view
    return Land(pixels=pixels, known=known, view=(down - top, right - left, size[0], size[1]))
