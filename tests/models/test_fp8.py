"""Floating numbers of 8 bits, and how a GPU is asked to multiply them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.models.test_coded import INPUTS, OUTPUTS, linear, numbers
from worldsim.errors import ConfigError
from worldsim.models import fp8
from worldsim.models.fp8 import LARGEST, Fp8Linear, is_native


def grid() -> Tensor:
    """All numbers that 8 bits hold, sorted, float64."""
    every = torch.arange(256, dtype=torch.uint8).view(fp8.FP8).double()
    return every[every.isfinite()].unique()


def nearest(rows: Tensor) -> Tensor:
    """Rows scaled so that the largest number of each is 448, and rounded to the nearest of 8 bits; float64."""
    scale = rows.double().abs().amax(-1, keepdim=True) / 448
    scaled = rows.double() / scale
    near = (scaled[..., None] - grid()).abs().argmin(-1)
    return grid()[near] * scale


def test_rows_are_rounded_to_the_nearest_of_8_bits_each_with_its_own_scale() -> None:
    rows = numbers(6, INPUTS, seed=1)
    coded, scale = Fp8Linear.rounded(rows)
    assert (coded.dtype, scale.dtype, scale.shape) == (fp8.FP8, torch.float32, (6, 1))
    assert (coded.double().abs().amax(-1) == LARGEST).all()
    found, wanted = coded.double() * scale.double(), nearest(rows)
    # Where float32 divides otherwise than float64, a number in the middle between two falls to the other.
    assert ((found - wanted).abs() > 1e-5 * wanted.abs()).double().mean() < 0.01
    assert ((found - rows).abs() <= rows.abs() / 16 + rows.abs().amax(-1, keepdim=True) / 448 * 2**-10 * 1.01).all()


def test_what_goes_to_the_gpu_is_laid_out_as_it_multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def multiply(rows: Tensor, weight: Tensor, **given: object) -> Tensor:
        asked.update(given, rows=rows, weight=weight)
        return torch.ones(rows.shape[0], weight.shape[1], dtype=torch.bfloat16)

    monkeypatch.setattr(torch, "_scaled_mm", multiply)
    coded = Fp8Linear(linear(11).bfloat16())
    coded._is_native = True
    coded(numbers(2, 16, INPUTS, seed=12).bfloat16())
    assert asked["rows"].is_contiguous()
    assert asked["weight"].t().is_contiguous()
    assert (asked["scale_a"].shape, asked["scale_b"].shape) == ((32, 1), (1, OUTPUTS))
    assert asked["scale_a"].is_contiguous()
    assert asked["scale_b"].is_contiguous()
    assert asked["out_dtype"] == torch.bfloat16


@pytest.mark.parametrize(("inputs", "outputs"), [(40, 48), (48, 40)])
def test_sizes_that_no_gpu_multiplies_are_refused(inputs: int, outputs: int) -> None:
    with pytest.raises(ConfigError, match=f"multiples of 16, and a layer has {inputs} and {outputs}"):
        Fp8Linear(nn.Linear(inputs, outputs))


def test_a_cpu_multiplies_no_numbers_of_8_bits() -> None:
    assert not is_native(torch.device("cpu"))
    with pytest.raises(
        ConfigError, match=r"an H100 .*; choose linears='int8' .* on a CPU, or leave linears='fp8' .* out"
    ):
        Fp8Linear.check_device(torch.device("cpu"))
