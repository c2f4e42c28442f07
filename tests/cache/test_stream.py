"""Streams: how they lie in pages, and attention along time against its definition, token by token."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from worldsim.cache.rotary import Rotary
from worldsim.cache.stream import Stream, StreamView, fold, unfold
from worldsim.errors import ConfigError, ShapeError

TIME = Rotary(time=4, rows=0, columns=0, theta=256.0)
STREAM = Stream(layers=3, heads=2, head_dim=6, rotary=TIME)
TOKENS, FRAMES, POSITIONS = 5, 2, (-7, -3, -1)


def random(*sizes: int, seed: int) -> Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("heads", "head_dim", "layers"), [(3, 10, 2), (1, 36, 1), (1, 35, 2), (2, 100, 1), (1, 2, 18)])
@pytest.mark.parametrize("seed", [1])
def test_what_is_folded_into_pages_comes_out_as_it_was(heads: int, head_dim: int, layers: int, seed: int) -> None:
    rows = random(3, 7, 2, 6, seed=seed)
    pages = fold(rows, heads, head_dim)
    assert pages.shape == (layers, 7, heads, head_dim)
    assert torch.equal(unfold(pages, STREAM), rows)
    assert int((pages == 0).sum()) == 7 * (layers * heads * head_dim - STREAM.numbers)


@pytest.mark.parametrize("seed", [2])
def test_a_token_of_a_page_holds_that_token_of_the_stream_and_no_other(seed: int) -> None:
    rows, some = random(3, 7, 2, 6, seed=seed), torch.tensor([0, 3, 6])
    assert torch.equal(unfold(fold(rows, 3, 5)[:, some], STREAM), rows[:, some])


def slow(q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor, held: Tensor) -> Tensor:
    """The definition in float64: each token asks its own keys in the frames that hold it, and in the block.

    q [F, tokens, H, D]; k, v [F, t, H, D], of the past keys, values [P, t, H, D] and held [P, t], bool.
    """
    answers = torch.empty(q.shape, dtype=torch.float64)
    for frame in range(FRAMES):
        for token in range(TOKENS):
            own = token if k.shape[1] > 1 else 0
            past = [at for at in range(len(POSITIONS)) if held[at, own]]
            times = [*(POSITIONS[at] for at in past), *range(FRAMES)]
            seen = torch.cat((keys[past, own], k[:, own])).double()
            told = torch.cat((values[past, own], v[:, own])).double()
            turned = torch.stack([turned_to(time, row) for time, row in zip(times, seen, strict=True)])
            scores = torch.einsum("hd,fhd->hf", turned_to(frame, q[frame, token].double()), turned) / 6**0.5
            answers[frame, token] = torch.einsum("hf,fhd->hd", scores.softmax(-1), told)
    return answers.flatten(0, 1)[None]


def turned_to(time: int, row: Tensor) -> Tensor:
    """One token's heads [H, 6]: pairs (0, 1) and (2, 3) turn, by a radian and by a sixteenth of one a frame."""
    turned = row.clone()
    for pair, angle in enumerate((time, time / 256**0.5)):
        cos, sin = torch.tensor(float(angle), dtype=torch.float64).cos(), torch.tensor(float(angle)).double().sin()
        even, odd = row[:, 2 * pair], row[:, 2 * pair + 1]
        turned[:, 2 * pair], turned[:, 2 * pair + 1] = even * cos - odd * sin, even * sin + odd * cos
    return turned


def view_of(keys: Tensor, values: Tensor, held: Tensor, *, dtype: torch.dtype = torch.float32) -> StreamView:
    """A view of those frames, in memory that held something else before."""
    tokens = keys.shape[2]
    room = torch.full((2, STREAM.layers, len(POSITIONS) + FRAMES, tokens, 2, 6), torch.nan, dtype=dtype)
    view = StreamView(STREAM, room, positions=POSITIONS, frames=FRAMES)
    for at, some in enumerate(held):
        tokens_held = some.nonzero()[:, 0]
        place = None if some.all() else tokens_held
        view.put(at, keys[:, at, tokens_held].to(dtype), values[:, at, tokens_held].to(dtype), place)
    return view


@pytest.mark.parametrize(("tokens", "whole"), [(TOKENS, True), (TOKENS, False), (1, True)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("seed", [3])
def test_a_token_sees_its_own_in_the_frames_that_hold_it(
    tokens: int, *, whole: bool, dtype: torch.dtype, seed: int
) -> None:
    keys, values = random(2, STREAM.layers, len(POSITIONS), tokens, 2, 6, seed=seed).to(dtype)
    held = torch.ones(len(POSITIONS), tokens, dtype=torch.bool)
    if not whole:
        held[0, 2:] = held[1, :2] = False
    view = view_of(keys, values, held, dtype=dtype)
    for layer in range(STREAM.layers):
        q = random(1, FRAMES * TOKENS, 2, 6, seed=seed + 10 + layer).to(dtype)
        k, v = random(2, 1, FRAMES * tokens, 2, 6, seed=seed + 20 + layer).to(dtype)
        frames = [x[0].unflatten(0, (FRAMES, -1)) for x in (q, k, v)]
        truth = slow(*frames, keys[layer], values[layer], held)
        found = view.attend(layer, q, k, v)
        assert (found.dtype, found.shape) == (dtype, q.shape)
        error = (found.double() - truth).square().mean().sqrt()
        assert error < torch.finfo(dtype).eps


@pytest.mark.parametrize("seed", [4])
def test_one_step_leaves_no_trace_in_the_next_and_changes_nothing_that_it_is_given(seed: int) -> None:
    keys, values = random(2, STREAM.layers, len(POSITIONS), TOKENS, 2, 6, seed=seed)
    held = torch.ones(len(POSITIONS), TOKENS, dtype=torch.bool)
    one, other = random(2, 3, 1, FRAMES * TOKENS, 2, 6, seed=seed + 1)
    view, given = view_of(keys, values, held), one.clone()
    view.attend(1, *other)
    assert torch.equal(view.attend(1, *one), view_of(keys, values, held).attend(1, *one))
    assert torch.equal(one, given)


@pytest.mark.parametrize(
    "wrong",
    [
        {"layers": 0},
        {"heads": 0},
        {"head_dim": 5},
        {"head_dim": 2},
        {"rotary": Rotary(time=2, rows=2, columns=0)},
        {"rotary": Rotary(time=2, rows=0, columns=2)},
    ],
)
def test_a_stream_that_cannot_turn_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="stream"):
        Stream(**({"layers": 3, "heads": 2, "head_dim": 6, "rotary": TIME} | wrong))


@pytest.mark.parametrize(
    ("q", "k"),
    [
        ((1, 9, 2, 6), (1, 10, 2, 6)),
        ((1, 20, 2, 6), (1, 10, 2, 6)),
        ((1, 10, 2, 6), (1, 2, 2, 6)),
        ((1, 10, 2, 4), (1, 10, 2, 4)),
        ((10, 2, 6), (1, 10, 2, 6)),
    ],
)
def test_a_block_of_another_shape_is_refused(q: tuple[int, ...], k: tuple[int, ...]) -> None:
    held = torch.ones(len(POSITIONS), TOKENS, dtype=torch.bool)
    keys = torch.zeros(STREAM.layers, len(POSITIONS), TOKENS, 2, 6)
    with pytest.raises(ShapeError, match=r"a stream in 2 frames \[1, 10, 2, 6\], got"):
        view_of(keys, keys, held).attend(0, torch.zeros(q), torch.zeros(k), torch.zeros(k))
