"""Turning against complex multiplication in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from worldsim_kernels.turn.reference import turn


def truth(x: Tensor, by: Tensor) -> Tensor:
    """Dimensions 2i and 2i + 1 as a complex number, times its turn, in float64."""
    even, odd, cos, sin = x[..., ::2].double(), x[..., 1::2].double(), by.real.double(), by.imag.double()
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


def drawn(seed: int, outer: tuple[int, ...], width: int) -> tuple[Tensor, Tensor]:
    """Seven tokens of three heads among nine, as they lie where queries, keys and values are one; and their turns."""
    generator = torch.Generator().manual_seed(seed)
    angles = 100 * torch.randn(7, 1, width // 2, generator=generator)
    return torch.randn(*outer, 7, 9, width, generator=generator)[..., 3:6, :], torch.polar(torch.ones(()), angles)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("width", [2, 6, 64])
@pytest.mark.parametrize("outer", [(), (1,), (5,), (2, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_turning_is_complex_multiplication_rounded_once(
    seed: int, width: int, outer: tuple[int, ...], dtype: torch.dtype
) -> None:
    x, by = drawn(seed, outer, width)
    x = x.to(dtype)
    out = torch.full(x.shape, torch.nan, dtype=dtype)
    turn(x, by, out)
    exact = truth(x, by)
    # Two products and a sum in float32, each rounded, and then once to dtype.
    rounding = 3 * torch.finfo(torch.float32).eps * x.double().abs().max() * 2**0.5
    plain = (exact.to(dtype).double() - exact).abs()
    assert ((out.double() - exact).abs() <= plain + torch.finfo(dtype).eps * exact.abs() / 2 + rounding).all()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_written_may_be_of_another_dtype(seed: int, dtype: torch.dtype) -> None:
    x, by = drawn(seed, (2,), 8)
    other = {torch.float32: torch.bfloat16, torch.bfloat16: torch.float32}[dtype]
    x, out = x.to(dtype), torch.full((2, 7, 3, 8), torch.nan, dtype=other)
    turn(x, by, out)
    exact = truth(x, by)
    assert ((out.double() - exact).abs() <= torch.finfo(other).eps * (exact.abs() + 4 * x.abs().max())).all()


@pytest.mark.parametrize("seed", range(3))
def test_only_the_target_is_written(seed: int) -> None:
    x, by = drawn(seed, (2,), 8)
    x, room = x.bfloat16(), torch.full((2, 11, 3, 8), 7.0).bfloat16()
    before, apart = x.clone(), torch.empty_like(x)
    turn(x, by, room[:, 4:])
    turn(x, by, apart)
    assert torch.equal(x, before)
    assert torch.equal(room[:, 4:], apart)
    assert (room[:, :4] == 7).all()
