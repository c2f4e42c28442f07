"""Rotation against complex multiplication in float64, and what makes it a position: only differences count."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from worldsim.cache.rotary import Rotary, rotate, turn, turns
from worldsim.errors import ConfigError

ROTARY = Rotary(time=6, rows=4, columns=2)
TIMES = [-1000, -7, -1, 0, 2]
ROWS, COLUMNS = 3, 5
HEADS, HEAD_DIM = 3, 15  # three dimensions are left over


def tokens(seed: int) -> Tensor:
    """Random tokens of all TIMES, [2, tokens, heads, head_dim]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, len(TIMES) * ROWS * COLUMNS, HEADS, HEAD_DIM, generator=generator)


def true_angles(rotary: Rotary, times: list[int]) -> Tensor:
    """The angles by their definition, token by token, in float64."""

    def of_axis(at: int, dims: int) -> list[float]:
        return [at * rotary.theta ** (-pair * 2 / dims) for pair in range(dims // 2)]

    return torch.tensor(
        [
            [*of_axis(time, rotary.time), *of_axis(row, rotary.rows), *of_axis(column, rotary.columns)]
            for time in times
            for row in range(ROWS)
            for column in range(COLUMNS)
        ],
        dtype=torch.float64,
    )


def truth(x: Tensor, angles: Tensor) -> Tensor:
    """Rotation as multiplication by e^(i angle), in float64."""
    pairs = angles.shape[1]
    x = x.double()
    numbers = torch.view_as_complex(x[..., : 2 * pairs].unflatten(-1, (pairs, 2)).contiguous())
    turned = numbers * torch.polar(torch.ones_like(angles), angles)[:, None]
    return torch.cat((torch.view_as_real(turned).flatten(-2), x[..., 2 * pairs :]), dim=-1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rotation_is_complex_multiplication(dtype: torch.dtype) -> None:
    x, angles = tokens(0).to(dtype), ROTARY.angles(TIMES, ROWS, COLUMNS)
    turned = rotate(x, angles)
    exact = truth(x, angles.double())
    assert turned.dtype == dtype
    plain = (exact.to(dtype).double() - exact).abs().max()
    assert (turned.double() - exact).abs().max() <= 3 * plain  # two products and a sum, each rounded


def test_angles_follow_time_rows_and_columns_in_this_order() -> None:
    exact = true_angles(ROTARY, TIMES)
    angles = ROTARY.angles(TIMES, ROWS, COLUMNS)
    assert angles.dtype == torch.float32
    assert torch.equal(angles, exact.float())


def test_the_product_of_query_and_key_depends_on_differences_only() -> None:
    rotary = Rotary(time=6, rows=4, columns=4)
    generator = torch.Generator().manual_seed(1)
    q, k = torch.randn(2, 1, 1, 14, generator=generator)
    bound = 32 * torch.finfo(torch.float32).eps * (q.norm() * k.norm()).item()  # angles of 24 radians are rounded

    def scores(query_time: int, key_time: int) -> Tensor:
        """Products of a query and a key at every pair of places, [row, column of q, row, column of k]."""
        turned_q = rotate(q.expand(12, 1, 14), rotary.angles([query_time], 3, 4))[:, 0]
        turned_k = rotate(k.expand(12, 1, 14), rotary.angles([key_time], 3, 4))[:, 0]
        return (turned_q @ turned_k.T).reshape(3, 4, 3, 4)

    near = scores(0, -5)
    assert (near - scores(24, 19)).abs().max() <= bound
    assert (near[0, 0, 1, 2] - near[1, 1, 2, 3]).abs() <= bound
    assert (near - scores(0, -6)).abs().max() > 1000 * bound
    assert (near[0, 0, 1, 2] - near[0, 0, 2, 1]).abs() > 1000 * bound


def test_position_zero_changes_nothing() -> None:
    x = tokens(2)[:, :1]
    assert torch.equal(rotate(x, ROTARY.angles([0], 1, 1)), x)


def test_dimensions_past_the_pairs_are_returned_as_they_are() -> None:
    x = tokens(3)
    turned = rotate(x, ROTARY.angles(TIMES, ROWS, COLUMNS))
    assert torch.equal(turned[..., 12:], x[..., 12:])
    assert not torch.equal(turned[..., :12], x[..., :12])


def test_a_head_without_leftovers_and_an_axis_without_dimensions_work() -> None:
    rotary = Rotary(time=4, rows=0, columns=2)
    x, angles = tokens(4)[..., :6], rotary.angles(TIMES, ROWS, COLUMNS)
    assert torch.equal(angles, true_angles(rotary, TIMES).float())
    assert torch.allclose(rotate(x, angles).double(), truth(x, angles.double()), rtol=0, atol=1e-6)


def test_no_times_give_no_angles() -> None:
    assert ROTARY.angles([], ROWS, COLUMNS).shape == (0, 6)


def test_the_input_is_left_unchanged_and_gradients_flow() -> None:
    x = tokens(5).requires_grad_()
    before = x.detach().clone()
    rotate(x, ROTARY.angles(TIMES, ROWS, COLUMNS)).square().sum().backward()
    assert torch.equal(x.detach(), before)
    assert x.grad is not None
    assert torch.allclose(x.grad, 2 * before, rtol=0, atol=1e-5)  # a rotation keeps the length


@pytest.mark.parametrize("settings", [(3, 0, 0), (0, 1, 2), (2, 2, -2)])
def test_an_axis_with_an_odd_or_negative_size_is_refused(settings: tuple[int, int, int]) -> None:
    time, rows, columns = settings
    with pytest.raises(ConfigError, match="even number of dimensions"):
        Rotary(time=time, rows=rows, columns=columns)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_turning_once_for_all_is_rotating(dtype: torch.dtype) -> None:
    x = torch.randn(12, 2, 14, generator=torch.Generator().manual_seed(7)).to(dtype)
    out = torch.full_like(x, torch.nan)
    turn(x, turns(ROTARY, -5, (3, 4), 14, x.device), out=out)
    assert (out - rotate(x, ROTARY.angles([-5], 3, 4))).abs().max() <= 4 * torch.finfo(dtype).eps
