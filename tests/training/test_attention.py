"""The attention of a training pass against plain attention over everything with an explicit mask."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from worldsim.cache.rotary import Rotary
from worldsim.errors import ConfigError
from worldsim.training.attention import StreamAttention, StreamLayout, attend_masked, stream_mask

GRID = (2, 3)
TOKENS = GRID[0] * GRID[1]
ROTARY = Rotary(time=4, rows=2, columns=2, theta=100.0)
SHAPE = (2, 3, 10)  # windows, heads, head_dim; two dimensions of a head do not turn
LAYOUTS = [
    StreamLayout(frames=8, block=block, window=window, first=first, copies=copies)
    for block, window, first, copies in product((1, 2, 4), (0, 2, 5, 8), (0, 4), (0, 1, 2))
    if window + copies
]


def places(layout: StreamLayout) -> list[tuple[int, int]]:
    """The stream (0 clean, then copies) and the time of every frame of a pass, from the words of the layout alone."""
    clean = [(0, time) for time in range(layout.frames) if layout.window]
    return clean + [(copy + 1, time) for copy in range(layout.copies) for time in range(layout.first, layout.frames)]


def sees(layout: StreamLayout) -> Tensor:
    """Which frame sees which, [frames of the pass, frames of the pass]: its own block, and clean ones before that."""
    rows = []
    for stream, time in places(layout):
        begin = time - time % layout.block
        rows.append(
            [
                (other == stream and begin <= when < begin + layout.block)
                or (other == 0 and begin - layout.window <= when < begin)
                for other, when in places(layout)
            ]
        )
    return torch.tensor(rows)


def turned(x: Tensor, times: list[int]) -> Tensor:
    """Queries or keys [B, tokens, heads, head_dim] at their positions, in float64, as complex numbers."""
    angles = ROTARY.angles(times, *GRID).double()
    pairs = torch.view_as_complex(x[..., : 2 * angles.shape[1]].unflatten(-1, (-1, 2)).contiguous())
    moved = torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)[:, None]).flatten(-2)
    return torch.cat((moved, x[..., 2 * angles.shape[1] :]), dim=-1)


def dense(layout: StreamLayout, q: Tensor, k: Tensor, v: Tensor, dtype: torch.dtype) -> Tensor:
    """All against all with the mask: the truth in float64, what a user writes in float32."""
    times = [time for _, time in places(layout)]
    q, k = (turned(x.double(), times).to(dtype) for x in (q, k))
    mask = sees(layout).repeat_interleave(TOKENS, 0).repeat_interleave(TOKENS, 1)
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / SHAPE[2] ** 0.5
    weights = scores.masked_fill(~mask, float("-inf")).softmax(dim=-1)
    return torch.einsum("bhqk,bkhd->bqhd", weights, v.to(dtype))


def tensors(layout: StreamLayout, seed: int) -> Tensor:
    windows, heads, head_dim = SHAPE
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, windows, len(places(layout)) * TOKENS, heads, head_dim, generator=generator)


def attend(layout: StreamLayout, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return StreamAttention(layout, rotary=ROTARY, grid=GRID, device=q.device)(0, q, k, v)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_the_streams_attend_as_the_mask_says(layout: StreamLayout) -> None:
    """Within twice plain torch's own error, by root mean squares."""
    q, k, v = tensors(layout, seed=1)
    truth = dense(layout, q, k, v, torch.float64)
    ours, plain = ((x.double() - truth).square().mean().sqrt() for x in (
        attend(layout, q, k, v), dense(layout, q, k, v, torch.float32)
    ))  # fmt: skip
    assert ours <= 2 * plain


@pytest.mark.parametrize("layout", LAYOUTS[::3], ids=str)
def test_a_gpu_attends_under_the_same_mask(layout: StreamLayout) -> None:
    q, k, v = tensors(layout, seed=4).double()
    truth = dense(layout, q, k, v, torch.float64)
    angles = ROTARY.angles(layout.times, *GRID)
    ours = attend_masked(q, k, v, angles, stream_mask(layout, TOKENS, q.device))
    assert (ours - truth).abs().max() < 1e-6 * truth.abs().max()


@pytest.mark.parametrize("layout", LAYOUTS[::7], ids=str)
def test_gradients_are_those_of_the_mask(layout: StreamLayout) -> None:
    given = tensors(layout, seed=2)
    towards = torch.randn(given[0].shape, generator=torch.Generator().manual_seed(3))
    ours = given.clone().requires_grad_()
    (attend(layout, *ours) * towards).sum().backward()
    truth = given.double().requires_grad_()
    (dense(layout, *truth, torch.float64) * towards).sum().backward()
    plain = given.clone().requires_grad_()
    (dense(layout, *plain, torch.float32) * towards).sum().backward()
    assert ours.grad is not None
    assert plain.grad is not None
    error, limit = ((x.double() - truth.grad).square().mean().sqrt() for x in (ours.grad, plain.grad))
    assert error <= 2 * limit


def test_the_times_of_a_pass_are_those_of_its_streams() -> None:
    layout = StreamLayout(frames=6, block=2, window=6, first=4, copies=2)
    assert layout.times == (0, 1, 2, 3, 4, 5, 4, 5, 4, 5)
    assert layout.clean == 6


def test_without_a_window_there_is_no_clean_stream() -> None:
    layout = StreamLayout(frames=6, block=2, window=0, first=2, copies=2)
    assert layout.clean == 0
    assert layout.times == (2, 3, 4, 5, 2, 3, 4, 5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"block": 3},
        {"first": 1},
        {"first": 8},
        {"first": -2},
        {"window": -1},
        {"window": 0, "copies": 0},
        {"copies": -1},
    ],
)
def test_a_layout_that_cannot_work_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        StreamLayout(**({"frames": 8, "block": 2, "window": 8} | wrong))
