"""AMT-S gives the numbers of its authors' own code, run on the same random weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lvbench.networks.amt import Amt, warped
from tests.lvbench.random_weights import state_of


def test_the_picture_between_is_that_of_the_public_implementation():
    network = Amt().eval()
    network.load_state_dict(state_of(network))
    pair = [torch.tensor(np.random.default_rng(seed).random((1, 3, 128, 144)), dtype=torch.float32) for seed in (0, 1)]
    with torch.inference_mode():
        found = network(*pair).double()
    assert found.shape == (1, 3, 128, 144)
    assert found.flatten()[:3].tolist() == pytest.approx([0.0498351, 0.0, 0.069383], abs=5e-5)
    assert [float(found.mean()), float(found.std())] == pytest.approx([0.18158746, 0.25325154], abs=1e-5)


def test_a_picture_is_fetched_from_where_the_flow_points_and_its_edge_goes_on():
    picture = torch.randn(1, 2, 7, 9, generator=torch.Generator().manual_seed(0))
    flow = torch.zeros(1, 2, 7, 9)
    flow[:, 0], flow[:, 1] = 2, -1
    rows, columns = torch.arange(-1, 6).clamp(0, 6), torch.arange(2, 11).clamp(0, 8)
    torch.testing.assert_close(warped(picture, flow), picture[..., rows, :][..., columns])
