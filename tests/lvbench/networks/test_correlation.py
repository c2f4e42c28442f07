"""Correlation is a product of features, and what is looked up is what is there."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from lvbench.networks.correlation import Correlation, places, turned, volume_of

SIZE = (16, 24)


def features() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randn(1, 4, *SIZE, generator=generator) for _ in range(2))
    return one, other


def test_a_volume_has_the_product_of_every_place_with_every_other():
    one, other = features()
    volume = volume_of(one, other)
    assert volume.shape == (16 * 24, 1, *SIZE)
    assert volume[24 * 3 + 5, 0, 7, 11] == pytest.approx(float(one[0, :, 3, 5] @ other[0, :, 7, 11]) / 2, abs=1e-6)


def test_a_volume_turned_is_that_of_the_pictures_the_other_way_round():
    one, other = features()
    torch.testing.assert_close(turned(volume_of(one, other)), volume_of(other, one))


def test_around_a_place_lies_what_the_volume_has_there_in_each_level():
    volume = volume_of(*features())
    found = Correlation(volume, 1).around(places(features()[0]) + torch.tensor([2.0, 1.0]).view(1, 2, 1, 1))
    assert found.shape == (1, 4 * 9, *SIZE)
    seen = found[0, :, 3, 5]  # this place looks at row 4 and column 7
    level = volume[24 * 3 + 5, 0]
    assert seen[:9].view(3, 3).T.flatten().tolist() == pytest.approx(level[3:6, 6:9].flatten().tolist(), abs=1e-5)
    half = F.avg_pool2d(level[None], 2)[0]
    assert float(seen[9 + 4]) == pytest.approx(float((half[2, 3] + half[2, 4]) / 2), abs=1e-5)


def test_outside_of_the_picture_nothing_is_alike():
    far = places(features()[0]) + 1000
    assert not Correlation(volume_of(*features()), 2).around(far).any()
