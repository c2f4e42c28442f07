"""DINO gives the numbers of its authors' own code, run on the same random weights, on pictures of any shape."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lvbench.networks.dino import Dino
from tests.lvbench.random_weights import TINY, state_of


@pytest.mark.parametrize(
    ("shape", "first", "spread"),
    [
        ((2, 3, 224, 224), [-0.6701077, 1.6725736, -0.2391496], [0.0015606057, 1.0787898]),
        ((1, 3, 224, 388), [-0.6708119, 1.6735862, -0.2342202], [0.0015688132, 1.0877244]),
        ((1, 3, 300, 224), [-0.6731114, 1.6795635, -0.248065], [0.0014696322, 1.0877655]),
    ],
)
def test_features_are_those_of_the_public_implementation(shape, first, spread):
    network = Dino(TINY.subject).eval()
    network.load_state_dict(state_of(network))
    pictures = torch.tensor(np.random.default_rng(0).random(shape), dtype=torch.float32)
    with torch.inference_mode():
        found = network(pictures).double()
    assert found.shape == (shape[0], 32)
    assert found.flatten()[:3].tolist() == pytest.approx(first, abs=5e-6)
    assert [float(found.mean()), float(found.std())] == pytest.approx(spread, abs=5e-6)
