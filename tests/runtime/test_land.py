"""The places that are remembered are drawn where they are, in the colours that they have."""

from __future__ import annotations

import numpy as np
import torch

from worldsim.codec.patches import PatchCodec
from worldsim.models.protocol import UNKNOWN, Chart
from worldsim.runtime.land import land_of
from worldsim.testing.fakes import DifferenceCodec

SIDE = 2
RED, GREY = np.array([255, 0, 0], np.uint8), np.array([90, 90, 90], np.uint8)


def sorts() -> torch.Tensor:
    """Two sorts, red and grey, as latents of one token; the grey is made of a lighter and a darker half."""
    looks = np.broadcast_to(np.stack((RED, GREY))[:, None, None], (2, SIDE, SIDE, 3)).copy()
    looks[1, 0] += 40
    looks[1, 1] -= 40
    return PatchCodec(side=SIDE).encode(torch.from_numpy(looks), None)[0]


def test_a_land_is_cut_to_what_is_known_and_each_place_has_its_colour():
    places = torch.full((7, 9), UNKNOWN)
    places[2, 3], places[2, 5], places[4, 4] = 0, 1, 0
    codec = DifferenceCodec(patches=PatchCodec(side=SIDE))
    land = land_of(Chart(places=places, sorts=sorts(), view=(1, 4, 2, 3)), codec)
    assert land.known.tolist() == [[True, False, True], [False] * 3, [False, True, False]]
    assert (land.pixels.dtype, land.pixels.shape) == (np.uint8, (3, 3, 3))
    assert [land.pixels[at].tolist() for at in ((0, 0), (0, 2), (2, 1), (1, 1))] == [
        RED.tolist(),
        GREY.tolist(),
        RED.tolist(),
        [0, 0, 0],
    ]
    assert land.view == (-1, 1, 2, 3)
