"""LPIPS gives the numbers of its authors' own code, run on the same random weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lvbench.networks.lpips import AlexNet, Head, distance
from tests.lvbench.random_weights import drawn, state_of


def networks() -> tuple[AlexNet, Head]:
    seeing, head = AlexNet(), Head()
    seeing.load_state_dict({name: drawn(f"features.{name}", tuple(t.shape)) for name, t in seeing.state_dict().items()})
    head.load_state_dict({name: tensor.abs() for name, tensor in state_of(head).items()})
    return seeing, head


def pictures(seed: int) -> torch.Tensor:
    return torch.tensor(np.random.default_rng(seed).random((2, 3, 64, 80)), dtype=torch.float32) * 255


def test_distances_are_those_of_the_public_implementation():
    with torch.inference_mode():
        found = distance(*networks(), pictures(0), pictures(1))
        assert found.tolist() == pytest.approx([0.0497758947, 0.0499472506], abs=1e-6)
        assert distance(*networks(), pictures(0), pictures(0)).tolist() == [0, 0]


def test_weights_are_named_as_they_were_published():
    assert {name: tuple(tensor.shape) for name, tensor in Head().state_dict().items()} == {
        f"lin{at}.model.1.weight": (1, channels, 1, 1) for at, channels in enumerate((64, 192, 384, 256, 256))
    }
    assert sum(parameter.numel() for parameter in AlexNet().parameters()) == 2_469_696
    assert list(AlexNet().state_dict()) == [f"{at}.{kind}" for at in (0, 3, 6, 8, 10) for kind in ("weight", "bias")]
