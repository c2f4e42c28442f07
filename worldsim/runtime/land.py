"""The places that a world remembers as a picture from above, one pixel a place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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


class Colours:
    """The colour of each sort of place on average, decoded when it is first asked for and kept for all of a world."""

    def __init__(self) -> None:
        self._sorts = torch.empty(0)
        self._known = np.zeros(0, np.bool_)
        self._colours = np.zeros((0, 3), np.uint8)

    def of(self, sorts: Tensor, codec: Codec[Any], wanted: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        """RGB uint8 [sorts, 3], right for those that are wanted.

        Args:
            sorts: what each looks like, [sorts, C, patch, patch]; if they are others than before, all is forgotten.
            codec: decodes each as the first frame of a video of that size, the same every time.
            wanted: numbers of sorts, each once.
        """
        if not torch.equal(self._sorts.to(sorts.device), sorts):
            self._sorts = sorts.clone()
            self._known = np.zeros(len(sorts), np.bool_)
            self._colours = np.zeros((len(sorts), 3), np.uint8)
        missing = wanted[~self._known[wanted]]
        if missing.size:
            looks = torch.cat([codec.decode(sorts[int(sort)][None], codec.open())[0] for sort in missing])
            self._colours[missing] = looks.float().mean((1, 2)).round().to(torch.uint8).cpu().numpy()
            self._known[missing] = True
        return self._colours


def land_of(chart: Chart, codec: Codec[Any], colours: Colours) -> Land:
    """A chart in colours.

    Args:
        chart: with one place or more that is known.
        codec: decodes what each sort of place looks like, as the first frame of a video of that size.
        colours: of charts of the same world, to which those are added that this one shows first.
    """
    everywhere = chart.places.cpu().numpy()
    rows, columns = (np.flatnonzero((everywhere != UNKNOWN).any(axis)) for axis in (1, 0))
    top, left = int(rows[0]), int(columns[0])
    places = everywhere[top : rows[-1] + 1, left : columns[-1] + 1]
    known = places != UNKNOWN
    shown = places[known]
    pixels = np.zeros((*places.shape, 3), np.uint8)
    pixels[known] = colours.of(chart.sorts, codec, np.flatnonzero(np.bincount(shown)))[shown]
    down, right, *size = chart.view
    return Land(pixels=pixels, known=known, view=(down - top, right - left, size[0], size[1]))
