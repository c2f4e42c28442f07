"""RAFT gives the numbers of its authors' own code, run on the same random weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lvbench.networks.raft import Raft
from tests.lvbench.random_weights import state_of


def test_flow_is_that_of_the_public_implementation():
    network = Raft(3).eval()
    network.load_state_dict(state_of(network))
    pair = [
        torch.tensor(np.random.default_rng(seed).random((1, 3, 128, 136)), dtype=torch.float32) * 255 for seed in (0, 1)
    ]
    with torch.inference_mode():
        found = network(*pair).double()
    assert found.shape == (1, 2, 128, 136)
    assert found.flatten()[:3].tolist() == pytest.approx([3.8719077, 3.774735, 3.93926], abs=1e-4)
    assert [float(found.mean()), float(found.std())] == pytest.approx([9.9996536, 2.2133302], abs=1e-4)
