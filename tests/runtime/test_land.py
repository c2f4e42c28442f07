"""The places that are remembered are drawn where they are, in the colours that they have."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from worldsim.codec.patches import PatchCodec
from worldsim.models.protocol import UNKNOWN, Chart
from worldsim.runtime.land import Colours, land_of
from worldsim.runtime.world import World
from worldsim.testing.fakes import SIDE_PX, DifferenceCodec, tiny_world

SIDE = 2
RED, GREY = np.array([255, 0, 0], np.uint8), np.array([90, 90, 90], np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True)
class CountingCodec(DifferenceCodec):
    """It keeps what it was given to decode."""

    decoded: list[Tensor] = field(default_factory=list)

    def decode(self, latents: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor | None]:
        self.decoded.append(latents)
        return DifferenceCodec.decode(self, latents, state)


def sorts() -> Tensor:
    """Two sorts, red and grey, as latents of one token; the grey is made of a lighter and a darker half."""
    looks = np.broadcast_to(np.stack((RED, GREY))[:, None, None], (2, SIDE, SIDE, 3)).copy()
    looks[1, 0] += 40
    looks[1, 1] -= 40
    return PatchCodec(side=SIDE).encode(torch.from_numpy(looks), None)[0]


def row_of(places: list[int], looks: Tensor) -> Chart:
    """A chart of one row."""
    return Chart(places=torch.tensor([places], dtype=torch.int16), sorts=looks, view=(0, 0, 1, 1))


def test_a_land_is_cut_to_what_is_known_and_each_place_has_its_colour():
    places = torch.full((7, 9), UNKNOWN)
    places[2, 3], places[2, 5], places[4, 4] = 0, 1, 0
    codec = DifferenceCodec(patches=PatchCodec(side=SIDE))
    land = land_of(Chart(places=places, sorts=sorts(), view=(1, 4, 2, 3)), codec, Colours())
    assert land.known.tolist() == [[True, False, True], [False] * 3, [False, True, False]]
    assert (land.pixels.dtype, land.pixels.shape) == (np.uint8, (3, 3, 3))
    assert [land.pixels[at].tolist() for at in ((0, 0), (0, 2), (2, 1), (1, 1))] == [
        RED.tolist(),
        GREY.tolist(),
        RED.tolist(),
        [0, 0, 0],
    ]
    assert land.view == (-1, 1, 2, 3)


def test_each_sort_is_decoded_once_and_only_when_it_is_first_shown():
    codec, colours = CountingCodec(patches=PatchCodec(side=SIDE)), Colours()
    counts = []
    for places in ([1, 1], [1, UNKNOWN, 0], [0, 1, 1, 0]):
        land = land_of(row_of(places, sorts()), codec, colours)
        wanted = [[[0, 0, 0], RED.tolist(), GREY.tolist()][place + 1] for place in places]
        assert land.pixels[0].tolist() == wanted
        counts.append(len(codec.decoded))
    assert counts == [1, 2, 2]


def test_sorts_that_changed_are_decoded_anew_even_if_they_changed_in_place():
    codec, colours, looks = DifferenceCodec(patches=PatchCodec(side=SIDE)), Colours(), sorts()
    assert land_of(row_of([0, 1], looks), codec, colours).pixels[0].tolist() == [RED.tolist(), GREY.tolist()]
    looks.copy_(looks.flip(0))
    assert land_of(row_of([0, 1], looks), codec, colours).pixels[0].tolist() == [GREY.tolist(), RED.tolist()]
    assert land_of(row_of([0], looks[1:]), codec, colours).pixels[0].tolist() == [RED.tolist()]


def test_all_sessions_of_a_world_share_its_colours():
    codec, tiny = CountingCodec(patches=PatchCodec(side=SIDE_PX)), tiny_world(remembers=True)
    world = World(tiny.origin, backbone=tiny.backbone, codec=codec, plan=tiny.plan, pool=tiny.pool)
    lands, counts = [], []
    for _ in range(2):
        with world.open(seed=4) as session:
            session.step({"KeyD"})
            codec.decoded.clear()
            lands.append(session.land())
            counts.append(len(codec.decoded))
    assert counts[0] > 0
    assert counts[1] == 0
    assert np.array_equal(lands[0].pixels, lands[1].pixels)
