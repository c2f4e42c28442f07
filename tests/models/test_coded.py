"""Linear layers in 8 bits, against float64 on the same rounded numbers, and what rounding costs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from worldsim.models.coded import CodedLinear
from worldsim.models.fp8 import Fp8Linear
from worldsim.models.int8 import Int8Linear

INPUTS, OUTPUTS = 48, 80
KINDS = pytest.mark.parametrize("kind", [Fp8Linear, Int8Linear])


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


@KINDS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_of_zeros_and_the_largest_numbers_stay_finite(kind: type[CodedLinear], dtype: torch.dtype) -> None:
    rows = torch.stack((torch.zeros(INPUTS), torch.full((INPUTS,), 1e30), torch.full((INPUTS,), -3e-30))).to(dtype)
    coded, scale = kind.rounded(rows)
    assert coded.float().isfinite().all()
    assert scale.isfinite().all()
    assert torch.equal(coded[0].float(), torch.zeros(INPUTS))


@KINDS
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows_given", [1, 7, 33])
def test_a_layer_is_the_exact_product_of_what_was_rounded(
    kind: type[CodedLinear], rows_given: int, *, bias: bool, dtype: torch.dtype
) -> None:
    exact, x = linear(2, bias=bias).to(dtype), numbers(2, rows_given, INPUTS, seed=4).to(dtype)
    coded = kind(exact)
    rows, scale = kind.rounded(x.flatten(0, 1))
    truth = rows.double() @ coded.weight.double().t() * scale.double() * coded.scale.double()
    truth = truth if coded.bias is None else truth + coded.bias.double()
    found = coded(x)
    assert (found.shape, found.dtype) == ((2, rows_given, OUTPUTS), dtype)
    sizes = (rows.double().abs() @ coded.weight.double().abs().t()) * scale.double() * coded.scale.double()
    sizes = sizes if coded.bias is None else sizes + coded.bias.double().abs()
    assert ((found.flatten(0, 1).double() - truth).abs() <= 4 * torch.finfo(dtype).eps * sizes).all()


@pytest.mark.parametrize(("kind", "least", "most"), [(Fp8Linear, 0.005, 0.06), (Int8Linear, 0.002, 0.02)])
def test_rounding_costs_little_of_what_a_layer_says(kind: type[CodedLinear], least: float, most: float) -> None:
    exact, x = linear(5), numbers(64, INPUTS, seed=6)
    wanted, found = exact(x), kind(exact)(x)
    assert least < ((found - wanted).norm(dim=-1) / wanted.norm(dim=-1)).mean() < most


@KINDS
def test_several_layers_of_one_input_lie_side_by_side(kind: type[CodedLinear]) -> None:
    parts, x = [linear(7), linear(9, outputs=16)], numbers(5, INPUTS, seed=10)
    assert torch.equal(kind.of(*parts)(x), torch.cat([kind(part)(x) for part in parts], dim=-1))


@KINDS
def test_what_a_row_gives_does_not_depend_on_the_others(kind: type[CodedLinear]) -> None:
    coded, x = kind(linear(21)), numbers(40, INPUTS, seed=22)
    if kind is Int8Linear:  # whose sums are exact
        assert torch.equal(coded(x)[3:9], coded(x[3:9]))
    torch.testing.assert_close(coded(x)[3:9], coded(x[3:9]))


@KINDS
def test_weights_take_a_byte_each_and_a_layer_is_saved_whole(kind: type[CodedLinear]) -> None:
    coded, other = kind(linear(23)), kind(linear(24))
    assert coded.weight.nbytes == INPUTS * OUTPUTS
    other.load_state_dict(coded.state_dict())
    x = numbers(3, INPUTS, seed=25)
    assert torch.equal(other(x), coded(x))
