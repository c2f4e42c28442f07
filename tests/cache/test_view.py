"""Attention through a view against plain attention over explicitly rotated keys, for every policy."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.functional import scaled_dot_product_attention

from worldsim.cache.context import Context
from worldsim.cache.policy import Full, Policy, Seen, SinkWindow, Sparse, Window
from worldsim.cache.pool import PagePool, PageShape, Storage
from worldsim.cache.quant import PerToken
from worldsim.cache.retrieval import Retrieval
from worldsim.cache.rotary import Rotary, rotate
from worldsim.cache.sight import Sight
from worldsim.cache.stream import Stream, StreamView
from worldsim.cache.view import ContextView, Recording
from worldsim.errors import ConfigError, SessionClosed, ShapeError

SHAPE = PageShape(layers=3, tokens=15, heads=3, head_dim=10)
GRID = (3, 5)
ROTARY = Rotary(time=4, rows=2, columns=2)  # two dimensions of a head are left over
POLICIES = [Full(), Window(frames=1), Window(frames=4), SinkWindow(sink=2, window=3), SinkWindow(sink=0, window=2)]


def random(*sizes: int, seed: int) -> Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed))


def past(frames: int, *, dtype: torch.dtype = torch.float32) -> tuple[Context, Tensor, Tensor]:
    """A context with that many frames, and the keys and values that its pool holds for all of them."""
    pool = PagePool(SHAPE, pages=frames + 4, dtype=dtype, device=torch.device("cpu"))
    context = Context(pool)
    keys, values = random(2, SHAPE.layers, frames, SHAPE.tokens, SHAPE.heads, SHAPE.head_dim, seed=0).to(dtype)
    context.append(keys, values)
    return context, keys, values


def block(frames: int, seed: int) -> Tensor:
    """Queries, keys and values of a block's own tokens, [3, 1, frames * tokens, heads, head_dim]."""
    return random(3, 1, frames * SHAPE.tokens, SHAPE.heads, SHAPE.head_dim, seed=seed)


def view_of(context: Context, policy: Policy, frames: int) -> ContextView:
    return ContextView(context, policy.see(context.frames, context.next_frame), rotary=ROTARY, grid=GRID, frames=frames)


def rotated(x: Tensor, times: list[int]) -> Tensor:
    """Rotation of x [tokens, heads, head_dim] in its own dtype, float64 included."""
    angles = ROTARY.angles(times, *GRID)
    if x.dtype != torch.float64:
        return rotate(x, angles)
    angles = angles.double()
    even, odd = x[..., :8:2], x[..., 1:8:2]
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    return torch.cat((torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2), x[..., 8:]), -1)


def plain(seen: tuple[Seen, ...], keys: Tensor, values: Tensor, own: Tensor, frames: int) -> Tensor:
    """What a user without a view writes, for one layer: gather, rotate, concatenate, attend; in the dtype given.

    keys, values: every frame of that layer, [frames, tokens, heads, head_dim]; returns like own[0].
    """
    chosen = [one.frame for one in seen]
    q, k, v = (x[0] for x in own)
    whole = torch.cat((keys[chosen].flatten(0, 1), k))
    whole = rotated(whole, [*(one.position for one in seen), *range(frames)])
    q, k, v = (
        x.transpose(0, 1)[None]
        for x in (rotated(q, list(range(frames))), whole, torch.cat((values[chosen].flatten(0, 1), v)))
    )
    if q.dtype == torch.float64:
        attended = torch.softmax(q @ k.mT / SHAPE.head_dim**0.5, dim=-1) @ v
    else:
        attended = scaled_dot_product_attention(q, k, v)
    return attended.transpose(1, 2)


def assert_no_worse(ours: Tensor, plainly: Tensor, truth: Tensor) -> None:
    """Fail if ours is more than twice as far from the truth as plain torch is.

    By root mean squares: the largest of so few rounding errors differs twofold by chance, and one wrong element in
    a thousand still counts a thousand times more than all rounding.
    """
    limit = 2 * (plainly.double() - truth).square().mean().sqrt().item()
    error = (ours.double() - truth).square().mean().sqrt().item()
    assert error <= limit, f"error {error:.3g} is over 2 x plain torch = {limit:.3g}"


@pytest.mark.parametrize("policy", POLICIES, ids=str)
@pytest.mark.parametrize(("held", "frames"), [(9, 1), (9, 3), (2, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_view_attends_like_plain_torch(policy: Policy, held: int, frames: int, dtype: torch.dtype) -> None:
    context, keys, values = past(held, dtype=dtype)
    view = view_of(context, policy, frames)
    assert view.seen == tuple(policy.see(range(held), held))
    ours, plainly, truth = [], [], []
    for layer in range(SHAPE.layers):
        own = block(frames, seed=layer).to(dtype)
        ours.append(view.attend(layer, *own))
        plainly.append(plain(view.seen, keys[layer], values[layer], own, frames))
        truth.append(plain(view.seen, keys[layer].double(), values[layer].double(), own.double(), frames))
    assert ours[0].dtype == dtype
    assert ours[0].shape == (1, frames * SHAPE.tokens, SHAPE.heads, SHAPE.head_dim)
    assert_no_worse(torch.cat(ours), torch.cat(plainly), torch.cat(truth))


def test_a_world_without_a_past_attends_to_its_block() -> None:
    pool = PagePool(SHAPE, pages=1, dtype=torch.float32, device=torch.device("cpu"))
    view = view_of(Context(pool), Full(), 2)
    own, nothing = block(2, seed=1), torch.empty(0, SHAPE.tokens, SHAPE.heads, SHAPE.head_dim)
    truth = plain((), nothing.double(), nothing.double(), own.double(), 2)
    assert view.seen == ()
    assert_no_worse(view.attend(0, *own), plain((), nothing, nothing, own, 2), truth)


def test_frames_that_were_forgotten_leave_no_gap_in_the_layout() -> None:
    context, keys, values = past(9)
    context.keep([0, 3, 7, 8])
    view = view_of(context, Full(), 1)
    own = block(1, seed=2)
    assert view.seen == (Seen(0, -9), Seen(3, -6), Seen(7, -2), Seen(8, -1))
    truth = plain(view.seen, keys[1].double(), values[1].double(), own.double(), 1)
    assert_no_worse(view.attend(1, *own), plain(view.seen, keys[1], values[1], own, 1), truth)


def test_the_dtype_of_the_pool_holds_inside_and_that_of_the_block_outside() -> None:
    context, keys, values = past(4, dtype=torch.bfloat16)
    own = block(2, seed=3)
    view = view_of(context, Full(), 2)
    attended = view.attend(0, *own)
    truth = plain(view.seen, keys[0].double(), values[0].double(), own.double(), 2)
    assert attended.dtype == torch.float32
    assert_no_worse(attended, plain(view.seen, keys[0], values[0], own.bfloat16(), 2), truth)


def test_one_step_leaves_no_trace_in_the_next() -> None:
    context, _, _ = past(5)
    view, fresh = view_of(context, Window(frames=3), 2), view_of(context, Window(frames=3), 2)
    view.attend(1, *block(2, seed=4))
    later = block(2, seed=5)
    before = later.clone()
    assert torch.equal(view.attend(1, *later), fresh.attend(1, *later))
    assert torch.equal(later, before)


def test_a_view_outlives_the_pages_it_was_made_from() -> None:
    context, keys, values = past(6)
    own = block(1, seed=6)
    view, twin = view_of(context, Full(), 1), view_of(context, Full(), 1)
    expected = twin.attend(2, *own)
    context.keep([])
    context.append(-keys, -values)
    assert torch.equal(view.attend(2, *own), expected)


def test_a_view_sees_what_is_old_as_its_code_gives_it_back_and_what_is_recent_as_it_was() -> None:
    code = PerToken(form="int8")
    pool = PagePool(
        SHAPE, pages=9, dtype=torch.float32, device=torch.device("cpu"), storage=Storage(code=code, recent=3)
    )
    context = Context(pool)
    _, keys, values = past(7)
    context.append(keys, values)
    for frame in range(4):
        keys[:, frame], values[:, frame] = code.decode(code.encode(keys[:, frame], values[:, frame]), SHAPE)
    told, _, _ = past(7)
    plainly = Context(told.pool)
    told.close()
    plainly.append(keys, values)
    own = block(2, seed=15)
    assert torch.equal(view_of(context, Full(), 2).attend(1, *own), view_of(plainly, Full(), 2).attend(1, *own))


def test_attending_changes_nothing_in_the_pool() -> None:
    context, keys, values = past(3)
    view_of(context, Full(), 2).attend(0, *block(2, seed=7))
    for at, page in enumerate(context.pages):
        read_keys, read_values = context.pool.read(page)
        assert torch.equal(read_keys, keys[:, at])
        assert torch.equal(read_values, values[:, at])
    assert context.pool.used == 3


def test_two_views_that_live_at_once_share_no_memory_and_later_ones_take_it_over() -> None:
    context, _, _ = past(4)
    first, second = view_of(context, Full(), 1), view_of(context, Full(), 1)
    own = block(1, seed=8)
    expected = first.attend(0, *own)
    second.attend(0, *block(1, seed=9))
    second._keys.fill_(torch.nan)
    assert torch.equal(first.attend(0, *own), expected)
    taken = second._keys.data_ptr()
    del second
    assert [room.data_ptr() for room in context.pool.spare_rooms] == [taken]
    third = view_of(context, Full(), 1)
    assert third._keys.data_ptr() == taken
    assert torch.equal(third.attend(0, *own), expected)


@pytest.mark.parametrize("inside_first", [True, False])
def test_views_work_in_and_out_of_inference_mode(*, inside_first: bool) -> None:
    context, _, _ = past(4)
    own = block(1, seed=10)
    answers = []
    for inside in (inside_first, not inside_first):
        with torch.inference_mode(inside):
            view = view_of(context, Full(), 1)
            answers.append(view.attend(0, *own))
        answers.append(view.attend(0, *own))
        del view
    assert all(torch.equal(answer, answers[0]) for answer in answers)


def test_no_gradient_flows_through_a_view() -> None:
    context, _, _ = past(2)
    own = block(1, seed=11).requires_grad_()
    recording = Recording(view_of(context, Full(), 1))
    for layer in range(SHAPE.layers):
        assert not recording.attend(layer, *own).requires_grad
    assert not recording.keys.requires_grad


def test_a_strided_slice_of_a_fused_projection_is_taken_as_it_is() -> None:
    context, _, _ = past(3)
    own = block(1, seed=12)
    fused = own.permute(1, 2, 0, 3, 4).contiguous().unbind(2)
    assert torch.equal(view_of(context, Full(), 1).attend(0, *fused), view_of(context, Full(), 1).attend(0, *own))


def test_a_recording_attends_like_its_view_and_keeps_exactly_what_was_passed() -> None:
    context, _, _ = past(3)
    recording = Recording(view_of(context, Full(), 2))
    view = view_of(context, Full(), 2)
    passed = [block(2, seed=20 + layer) for layer in range(SHAPE.layers)]
    for layer, own in enumerate(passed):
        assert torch.equal(recording.attend(layer, *own), view.attend(layer, *own))
    frames = (2, SHAPE.tokens, SHAPE.heads, SHAPE.head_dim)
    assert torch.equal(recording.keys, torch.stack([own[1, 0].view(frames) for own in passed]))
    assert torch.equal(recording.values, torch.stack([own[2, 0].view(frames) for own in passed]))
    context.append(recording.keys, recording.values)
    assert torch.equal(context.read(4)[0], recording.keys[:, 1])


def test_a_recording_holds_nothing_twice_and_a_second_pass_takes_the_place_of_the_first() -> None:
    recording = Recording(view_of(past(1)[0], Full(), 2))
    frames = (2, SHAPE.tokens, SHAPE.heads, SHAPE.head_dim)
    for seed in (60, 70):
        passed = [block(2, seed=seed + layer) for layer in range(SHAPE.layers)]
        wanted = torch.stack([own[1, 0].view(frames) for own in passed])
        held = []
        for layer, own in enumerate(passed):
            q, k, v = own.unbind()
            k = k.clone()
            held.append(StorageWeakRef(k.untyped_storage()))
            recording.attend(layer, q, k, v)
        del k
        assert not any(one.expired() for one in held)
        assert torch.equal(recording.keys, wanted)
        assert all(one.expired() for one in held)
        assert torch.equal(recording.keys, wanted)


def test_a_recording_of_half_a_pass_is_refused() -> None:
    context, _, _ = past(1)
    recording = Recording(view_of(context, Full(), 1))
    recording.attend(1, *block(1, seed=13))
    with pytest.raises(ShapeError, match=r"attends in each of 3 layers, this one did in \[1\]"):
        _ = recording.keys


def test_a_block_of_another_shape_is_refused() -> None:
    context, _, _ = past(2)
    view = view_of(context, Full(), 2)
    q, k, v = block(2, seed=14)
    short = block(1, seed=14)[0]
    for wrong in ((short, k, v), (q, short, v), (q, k, short), (q.expand(2, -1, -1, -1), k, v)):
        with pytest.raises(ShapeError, match=r"expected q, k and v of 2 frames \[1, 30, 3, 10\]"):
            view.attend(0, *wrong)


def test_a_grid_or_rotary_that_does_not_fit_is_refused() -> None:
    context, _, _ = past(2)
    with pytest.raises(ShapeError, match="a grid of 4x4 tokens is not the 15 tokens of a page"):
        ContextView(context, Full().see(context.frames, context.next_frame), rotary=ROTARY, grid=(4, 4), frames=1)
    with pytest.raises(ConfigError, match="pairs of more dimensions than a head of 10 has"):
        ContextView(
            context,
            Full().see(context.frames, context.next_frame),
            rotary=Rotary(time=4, rows=4, columns=4),
            grid=GRID,
            frames=1,
        )
    odd = PagePool(
        PageShape(layers=1, tokens=15, heads=1, head_dim=9), pages=1, dtype=torch.float32, device=torch.device("cpu")
    )
    with pytest.raises(ConfigError, match="a head of 9"):
        ContextView(Context(odd), [], rotary=ROTARY, grid=GRID, frames=1)


def test_a_policy_that_sees_what_is_not_held_is_refused() -> None:
    class Dreamer(Full):
        def see(self, held: object, block: int) -> list[Seen]:
            return [Seen(block - 2, -1)]

    context, _, _ = past(3)
    context.keep([2])
    with pytest.raises(ConfigError, match="frame 1 is not held"):
        view_of(context, Dreamer(), 1)


def test_a_closed_context_shows_nothing() -> None:
    context, _, _ = past(3)
    context.close()
    with pytest.raises(SessionClosed):
        view_of(context, Full(), 1)


@pytest.mark.parametrize("policy", [Full(), SinkWindow(sink=2, window=3)], ids=str)
def test_a_view_tells_the_share_of_attention_that_each_frame_receives(policy: Policy) -> None:
    context, keys, _ = past(9)
    view, frames = view_of(context, policy, 2), 2
    q, k, v = block(frames, seed=5)
    view.attend(1, q, k, v)
    chosen = [one.frame for one in view.seen]
    whole = torch.cat((keys[1, chosen].flatten(0, 1), k[0])).double()
    whole = rotated(whole, [*(one.position for one in view.seen), *range(frames)])
    asked = rotated(q[0].double(), [*range(frames)])
    weights = (torch.einsum("qhd,khd->hqk", asked, whole) / SHAPE.head_dim**0.5).softmax(-1)
    truth = weights.mean((0, 1))[: len(chosen) * SHAPE.tokens].view(len(chosen), -1).sum(1)
    shares = view.shares(1, q, probes=q.shape[1])
    torch.testing.assert_close(shares.double(), truth, rtol=1e-4, atol=0)
    assert 0 < float(shares.sum()) < 1


def test_a_recording_tells_what_its_block_saw_and_measures_only_if_it_is_asked() -> None:
    context, _, _ = past(9)
    view = view_of(context, SinkWindow(sink=2, window=3), 1)
    plainly, asked = Recording(view), Recording(view, probes=4)
    shares = []
    for layer in range(SHAPE.layers):
        own = block(1, seed=layer)
        assert torch.equal(plainly.attend(layer, *own), asked.attend(layer, *own))
        shares.append(view.shares(layer, own[0], probes=4))
    assert plainly.sight == Sight(frames=(0, 1, 6, 7, 8))
    assert asked.sight.frames == (0, 1, 6, 7, 8)
    assert asked.sight.shares == tuple(torch.stack(shares).mean(0).tolist())


def test_a_recording_tells_what_was_retrieved_for_its_block() -> None:
    context, _, _ = past(9)
    view = view_of(context, Retrieval(recent=2, top=1, run=2), 1)
    assert Recording(view).sight == Sight(frames=(4, 5, 7, 8), retrieved=(4, 5))


def test_a_block_without_a_past_pays_all_attention_to_itself() -> None:
    pool = PagePool(SHAPE, pages=1, dtype=torch.float32, device=torch.device("cpu"))
    recording = Recording(view_of(Context(pool), Full(), 1), probes=4)
    for layer in range(SHAPE.layers):
        recording.attend(layer, *block(1, seed=layer))
    assert recording.sight == Sight()


@pytest.mark.parametrize("seed", [4])
def test_a_frame_that_is_held_in_part_is_attended_to_in_part(seed: int) -> None:
    """As if its other tokens had never been: each token that is held keeps its own row, column and position."""
    pool = PagePool(SHAPE, pages=12, dtype=torch.float32, device=torch.device("cpu"))
    context = Context(pool, Sparse(recent=1, run=2, tau=0.5))
    keys, values = random(2, SHAPE.layers, 3, SHAPE.tokens, SHAPE.heads, SHAPE.head_dim, seed=seed)
    held = [torch.tensor([0, 4, 7]), torch.tensor([2]), torch.tensor([1])]
    context.append(keys, values, held)
    seen = [Seen(0, -9), Seen(1, -3), Seen(2, -1)]
    view = ContextView(context, seen, rotary=ROTARY, grid=GRID, frames=1)
    q, k, v = block(1, seed=seed + 1)
    parts = [held[0], held[1], torch.arange(SHAPE.tokens)]
    for layer in range(SHAPE.layers):
        past = [rotated(keys[layer, one.frame], [one.position])[some] for one, some in zip(seen, parts, strict=True)]
        all_keys = torch.cat((*past, rotated(k[0], [0])))
        all_values = torch.cat((*(values[layer, frame, some] for frame, some in enumerate(parts)), v[0]))
        heads = (x.transpose(0, 1) for x in (rotated(q[0], [0]), all_keys, all_values))
        expected = torch.nn.functional.scaled_dot_product_attention(*heads).transpose(0, 1)
        torch.testing.assert_close(view.attend(layer, q, k, v)[0], expected)
        assert view.shares(layer, q, probes=3).shape == (3,)


@pytest.mark.parametrize("seed", [6])
def test_the_salient_tokens_of_a_frame_are_those_that_its_block_attends_to(seed: int) -> None:
    recording = Recording(view_of(past(3)[0], Full(), 2), tau=0.4)
    q, k, v = block(2, seed=seed)
    k = 0.01 * k
    k[0, 3] = k[0, SHAPE.tokens + 7] = 20 * q[0].mean(0)
    for layer in range(SHAPE.layers):
        recording.attend(layer, q, k, v)
    first, second = recording.salient
    assert 3 in first
    assert 7 in second
    assert max(len(first), len(second)) < SHAPE.tokens // 2
    assert Recording(view_of(past(3)[0], Full(), 2)).salient == []


TIME = Rotary(time=4, rows=0, columns=0, theta=256.0)
MOUSE = Stream(layers=4, heads=2, head_dim=6, rotary=TIME)
HANDS = Stream(layers=2, heads=5, head_dim=8, rotary=replace(TIME, time=2))
STEERED = Stream(layers=4, heads=2, head_dim=4, rotary=TIME)
STREAMED = SHAPE.with_streams((MOUSE, HANDS), STEERED)
OWN = [(SHAPE.tokens, 3, 10)] * 3 + [(SHAPE.tokens, 2, 6)] * 4 + [(SHAPE.tokens, 5, 8)] * 2 + [(1, 2, 4)] * 4
"""Tokens with keys and values of their own, heads and head_dim of each of its layers."""


def streamed_pool(storage: Storage | None = None) -> PagePool:
    return PagePool(STREAMED, pages=12, dtype=torch.float32, device=torch.device("cpu"), storage=storage)


def blocks_of_streams(frames: int, seed: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Queries, keys and values of a block in every layer."""
    made = []
    for layer, (tokens, heads, head_dim) in enumerate(OWN):
        q = random(1, frames * SHAPE.tokens, heads, head_dim, seed=seed + 2 * layer)
        k, v = random(2, 1, frames * tokens, heads, head_dim, seed=seed + 2 * layer + 1)
        made.append((q, k, v))
    return made


def steered_by(frames: int, seed: int) -> Tensor:
    return random(2, STEERED.layers, frames, STEERED.heads, STEERED.head_dim, seed=seed)


def recorded(view: ContextView, block: list[tuple[Tensor, Tensor, Tensor]], **settings: float) -> Recording:
    recording = Recording(view, **settings)
    for layer, own in enumerate(block):
        recording.attend(layer, *own)
    return recording


def streamed(held: int, seed: int, storage: Storage | None = None) -> tuple[Context, list[tuple[Tensor, ...]]]:
    """A context with that many frames, which one block wrote, and what that block attended with in every layer."""
    context, block = Context(streamed_pool(storage)), blocks_of_streams(held, seed)
    view = ContextView(context, [], rotary=ROTARY, grid=GRID, frames=held, steered=steered_by(0, seed))
    recording = recorded(view, block)
    context.append(recording.keys, recording.values)
    return context, block


@pytest.mark.parametrize("policy", [Full(), Window(frames=2), SinkWindow(sink=1, window=2)], ids=str)
@pytest.mark.parametrize("seed", [100])
def test_streams_are_read_back_from_pages_and_attended_to_along_time(policy: Policy, seed: int) -> None:
    """The main layers as without them; the streams as by a view of each, filled with what the past had of them."""
    context, before = streamed(5, seed)
    plainly = Context(PagePool(SHAPE, pages=9, dtype=torch.float32, device=torch.device("cpu")))
    plainly.append(*(torch.cat([own[side].view(1, 5, 15, 3, 10) for own in before[:3]]) for side in (1, 2)))
    seen = policy.see(context.frames, context.next_frame)
    steered = steered_by(len(seen), seed + 50)
    view = ContextView(context, seen, rotary=ROTARY, grid=GRID, frames=2, steered=steered)
    alone = view_of(plainly, policy, 2)
    block, starts = blocks_of_streams(2, seed + 60), {3: MOUSE, 7: HANDS, 9: STEERED}
    for layer in range(3):
        assert torch.equal(view.attend(layer, *block[layer]), alone.attend(layer, *block[layer]))
    for start, stream in starts.items():
        tokens = OWN[start][0]
        room = torch.empty(2, stream.layers, len(seen) + 2, tokens, stream.heads, stream.head_dim)
        apart = StreamView(stream, room, positions=[one.position for one in seen], frames=2)
        for at, one in enumerate(seen):
            for_layers = range(start, start + stream.layers)
            past = [
                torch.stack([before[layer][side][0].unflatten(0, (5, -1))[one.frame] for layer in for_layers])
                for side in (1, 2)
            ]
            apart.put(at, *(steered[:, :, at : at + 1] if stream is STEERED else past))
        for layer in range(stream.layers):
            own = block[start + layer]
            assert torch.equal(view.attend(start + layer, *own), apart.attend(layer, *own))


@pytest.mark.parametrize("seed", [200])
def test_frames_held_in_part_are_seen_along_time_by_the_tokens_that_they_hold(seed: int) -> None:
    context = Context(streamed_pool(), Sparse(recent=1, run=2, tau=0.5))
    block = blocks_of_streams(3, seed)
    view = ContextView(context, [], rotary=ROTARY, grid=GRID, frames=3, steered=steered_by(0, seed))
    recording = recorded(view, block)
    held = [torch.tensor([0, 4, 7]), torch.tensor([2]), torch.tensor([1])]
    context.append(recording.keys, recording.values, held)
    seen = [Seen(0, -9), Seen(1, -3), Seen(2, -1)]
    view = ContextView(context, seen, rotary=ROTARY, grid=GRID, frames=1, steered=steered_by(3, seed + 50))
    room = torch.empty(2, MOUSE.layers, 4, SHAPE.tokens, MOUSE.heads, MOUSE.head_dim)
    apart = StreamView(MOUSE, room, positions=[-9, -3, -1], frames=1)
    past = [torch.stack([own[side][0].unflatten(0, (3, -1)) for own in block[3:7]]) for side in (1, 2)]
    for at, tokens in enumerate([held[0], held[1], torch.arange(SHAPE.tokens)]):
        apart.put(at, *(side[:, at, tokens] for side in past), None if at == 2 else tokens)
    for layer, own in enumerate(blocks_of_streams(1, seed + 60)[3:7]):
        # Masked, the same numbers that lie elsewhere in memory are rounded otherwise on some processors.
        torch.testing.assert_close(view.attend(3 + layer, *own), apart.attend(layer, *own))


@pytest.mark.parametrize("seed", [300])
def test_streams_are_kept_in_fewer_bits_like_all_of_a_page(seed: int) -> None:
    exact, _ = streamed(4, seed)
    coded, _ = streamed(4, seed, Storage(code=PerToken(form="int8"), recent=1))
    steered, block = steered_by(4, seed + 50), blocks_of_streams(1, seed + 60)
    answers = []
    for context in (exact, coded):
        seen = Full().see(context.frames, 4)
        view = ContextView(context, seen, rotary=ROTARY, grid=GRID, frames=1, steered=steered)
        answers.append([view.attend(layer, *own) for layer, own in enumerate(block)])
    apart = [float((one - other).abs().max()) for one, other in zip(*answers, strict=True)]
    assert all(0 < each < 0.05 for each in apart[:9])
    assert apart[9:] == [0] * 4  # no page holds what follows from what steers a frame


@pytest.mark.parametrize("seed", [400])
def test_what_a_block_saw_is_measured_in_the_layers_that_see_all_tokens(seed: int) -> None:
    context, _ = streamed(3, seed)
    view = ContextView(
        context, Full().see((0, 1, 2), 3), rotary=ROTARY, grid=GRID, frames=1, steered=steered_by(3, seed)
    )
    block = blocks_of_streams(1, seed + 60)
    recording = recorded(view, block, probes=4, tau=0.5)
    shares = torch.stack([view.shares(layer, block[layer][0], probes=4) for layer in range(3)]).mean(0)
    assert recording.sight.shares == tuple(shares.tolist())
    assert len(recording.salient) == 1


def test_views_with_streams_take_over_the_memory_of_those_before_them() -> None:
    context, _ = streamed(3, 500)
    arguments = {"rotary": ROTARY, "grid": GRID, "frames": 1, "steered": steered_by(3, 1)}
    seen = Full().see((0, 1, 2), 3)
    first = ContextView(context, seen, **arguments)
    taken = first._keys.data_ptr()
    del first
    assert ContextView(context, seen, **arguments)._keys.data_ptr() == taken


@pytest.mark.parametrize("frames", [0, 2, 4])
def test_a_view_wants_what_follows_from_what_steered_the_frames_that_it_sees(frames: int) -> None:
    context, _ = streamed(3, 600)
    seen = Full().see((0, 1, 2), 3)
    for steered in (None, steered_by(frames, 1)):
        with pytest.raises(ShapeError, match=r"steered 3 frames, \[2, 4, 3, 2, 4\], got .*steered\(\) of the backbone"):
            ContextView(context, seen, rotary=ROTARY, grid=GRID, frames=1, steered=steered)
    with pytest.raises(ShapeError, match="steered 2 frames, None, got"):
        ContextView(
            past(2)[0], [Seen(0, -2), Seen(1, -1)], rotary=ROTARY, grid=GRID, frames=1, steered=steered_by(2, 1)
        )


def test_a_layer_that_no_attention_has_is_refused() -> None:
    context, _ = streamed(1, 700)
    view = ContextView(context, [Seen(0, -1)], rotary=ROTARY, grid=GRID, frames=1, steered=steered_by(1, 1))
    with pytest.raises(ShapeError, match="pages of 13 layers of attention have none of that number"):
        view.attend(13, *blocks_of_streams(1, 1)[12])
