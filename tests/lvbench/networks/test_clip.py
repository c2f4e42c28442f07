"""The part of CLIP that sees gives the numbers of OpenAI's own code, run on the same random weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lvbench.networks.clip import Clip
from tests.lvbench.random_weights import TINY, state_of


def test_features_are_those_of_the_public_implementation():
    network = Clip(TINY.aesthetic).eval()
    network.load_state_dict(state_of(network))
    pictures = torch.tensor(np.random.default_rng(0).random((2, 3, 224, 224)), dtype=torch.float32)
    with torch.inference_mode():
        found = network(pictures).double()
    assert found.shape == (2, 10)
    assert found.flatten()[:3].tolist() == pytest.approx([-0.6686609, 0.1707239, 0.5150378], abs=5e-6)
    assert [float(found.mean()), float(found.std())] == pytest.approx([-0.21433667, 0.56447316], abs=5e-6)
