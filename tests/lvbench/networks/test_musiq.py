"""MUSIQ gives the numbers of pyiqa's code, run on the same random weights, on pictures of any shape."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lvbench.networks.musiq import Musiq, same, scales
from tests.lvbench.random_weights import TINY, state_of


@pytest.mark.parametrize(
    ("shape", "scores"),
    [
        ((1, 3, 295, 512), [-0.9569985]),
        ((2, 3, 72, 72), [-1.0000038, -0.9985166]),
        ((1, 3, 37, 300), [-0.9302888]),
    ],
)
def test_scores_are_those_of_the_public_implementation(shape, scores):
    network = Musiq(TINY.clarity).eval()
    network.load_state_dict(state_of(network))
    pictures = torch.tensor(np.random.default_rng(0).random(shape), dtype=torch.float32)
    with torch.inference_mode():
        assert network(pictures).tolist() == pytest.approx(scores, abs=5e-6)


def test_a_picture_is_looked_at_in_three_sizes():
    found = list(scales(torch.zeros(1, 3, 295, 512)))
    assert [(patches.shape[1], scale) for patches, _, scale in found] == [(5 * 7, 0), (7 * 12, 1), (10 * 16, 2)]
    assert all(patches.shape[2:] == (3, 32, 32) for patches, *_ in found)


def test_the_places_of_patches_are_those_of_a_grid_of_ten():
    *_, (_, places, _) = scales(torch.zeros(1, 3, 64, 640))
    across = [at * 10 // 20 for at in range(20)]
    assert places[0].tolist() == [*across, *(50 + at for at in across)]


@pytest.mark.parametrize(
    ("side", "kernel", "stride", "added"), [(32, 7, 2, (2, 3)), (16, 3, 2, (0, 1)), (9, 3, 1, (1, 1))]
)
def test_what_is_added_makes_a_side_end_as_its_share(side, kernel, stride, added):
    assert same(torch.zeros(1, 1, side, side), kernel, stride) == (*added, *added)
