"""Integers of 8 bits: rounded to the nearest, their sums exact."""

from __future__ import annotations

import pytest
import torch

from tests.models.test_coded import INPUTS, OUTPUTS, linear, numbers
from worldsim.errors import ConfigError
from worldsim.models.int8 import LARGEST, Int8Linear


def test_rows_are_rounded_to_the_nearest_integer_each_with_its_own_scale() -> None:
    rows = numbers(6, INPUTS, seed=1)
    coded, scale = Int8Linear.rounded(rows)
    assert (coded.dtype, scale.dtype, scale.shape) == (torch.int8, torch.float32, (6, 1))
    assert (coded.int().abs().amax(-1) == LARGEST).all()
    assert ((coded * scale - rows).abs() <= scale / 2 * (1 + 1e-5)).all()


@pytest.mark.parametrize("size", [1, 5, 16, 130])
def test_sums_of_products_are_exact_at_any_number_of_rows(size: int) -> None:
    coded = Int8Linear(linear(2, bias=False))
    coded.scale.fill_(1)
    rows = torch.randint(-LARGEST, LARGEST + 1, (size, INPUTS), generator=torch.Generator().manual_seed(size)).to(
        torch.int8
    )
    found = coded.multiply(rows, torch.ones(size, 1), torch.float32)
    assert torch.equal(found.long(), rows.long() @ coded.weight.long().t())
    assert found.shape == (size, OUTPUTS)


def test_any_size_is_multiplied() -> None:
    layer = torch.nn.Linear(7, 13).requires_grad_(False)
    x = torch.randn(3, 7, generator=torch.Generator().manual_seed(3))
    found, wanted = Int8Linear(layer)(x), layer(x)
    assert (found - wanted).norm() < 0.03 * wanted.norm()


@pytest.mark.parametrize("device", ["cuda:1", "meta"])
def test_integers_are_for_cpus(device: str) -> None:
    with pytest.raises(ConfigError, match=rf"this world is on {device}; choose linears='fp8' .* or leave .* out"):
        Int8Linear.check_device(torch.device(device))
    Int8Linear.check_device(torch.device("cpu"))
