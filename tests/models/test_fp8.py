"""Products of 8 bits, against float64 on the same rounded numbers, and what rounding costs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from worldsim.errors import ConfigError
from worldsim.models import fp8
from worldsim.models.fp8 import LARGEST, Fp8Linear, is_native, rounded

INPUTS, OUTPUTS = 48, 80


def numbers(*shape: int, seed: int) -> Tensor:
    """Random ones, whose rows are of very different sizes."""
    generator = torch.Generator().manual_seed(seed)
    size = 10 ** (6 * torch.rand(*shape[:-1], 1, generator=generator) - 3)
    return torch.randn(shape, generator=generator) * size


def linear(seed: int, *, bias: bool = True, outputs: int = OUTPUTS) -> nn.Linear:
    """A layer whose outputs are of very different sizes."""
    layer = nn.Linear(INPUTS, outputs, bias=bias).requires_grad_(False)
    layer.weight.copy_(numbers(outputs, INPUTS, seed=seed))
    if bias:
        layer.bias.copy_(numbers(outputs, 1, seed=seed + 1)[:, 0])
    return layer


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
    coded, scale = rounded(rows)
    assert (coded.dtype, scale.dtype, scale.shape) == (fp8.FP8, torch.float32, (6, 1))
    assert (coded.double().abs().amax(-1) == LARGEST).all()
    found, wanted = coded.double() * scale.double(), nearest(rows)
    # Where float32 divides otherwise than float64, a number in the middle between two falls to the other.
    assert ((found - wanted).abs() > 1e-5 * wanted.abs()).double().mean() < 0.01
    assert ((found - rows).abs() <= rows.abs() / 16 + rows.abs().amax(-1, keepdim=True) / 448 * 2**-10 * 1.01).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_of_zeros_and_the_largest_numbers_stay_finite(dtype: torch.dtype) -> None:
    rows = torch.stack((torch.zeros(INPUTS), torch.full((INPUTS,), 1e30), torch.full((INPUTS,), -3e-30))).to(dtype)
    coded, scale = rounded(rows)
    assert coded.float().isfinite().all()
    assert scale.isfinite().all()
    assert torch.equal(coded[0].float(), torch.zeros(INPUTS))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_is_the_exact_product_of_what_was_rounded(*, bias: bool, dtype: torch.dtype) -> None:
    exact, x = linear(2, bias=bias).to(dtype), numbers(2, 7, INPUTS, seed=4).to(dtype)
    coded = Fp8Linear(exact)
    rows, scale = rounded(x)
    truth = rows.double() @ coded.weight.double().t() * scale.double() * coded.scale.double()
    truth = truth if coded.bias is None else truth + coded.bias.double()
    found = coded(x)
    assert (found.shape, found.dtype) == ((2, 7, OUTPUTS), dtype)
    sizes = (rows.double().abs() @ coded.weight.double().abs().t()) * scale.double() * coded.scale.double()
    sizes = sizes if coded.bias is None else sizes + coded.bias.double().abs()
    assert ((found.double() - truth).abs() <= 4 * torch.finfo(dtype).eps * sizes).all()


def test_rounding_costs_a_few_percent_of_what_a_layer_says() -> None:
    exact, x = linear(5), numbers(64, INPUTS, seed=6)
    wanted, found = exact(x), Fp8Linear(exact)(x)
    assert 0.005 < ((found - wanted).norm(dim=-1) / wanted.norm(dim=-1)).mean() < 0.06


def test_several_layers_of_one_input_lie_side_by_side() -> None:
    parts, x = [linear(7), linear(9, outputs=16)], numbers(5, INPUTS, seed=10)
    assert torch.equal(Fp8Linear(*parts)(x), torch.cat([Fp8Linear(part)(x) for part in parts], dim=-1))


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
