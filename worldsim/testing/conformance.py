"""The contracts of worldsim as checks: run them on a part you wrote, as our tests do on every part we ship."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from worldsim.cache.policy import Policy
from worldsim.cache.pool import PageShape
from worldsim.decoding.loop import Block, BlockDecoder, Condition_contra
from worldsim.models.protocol import UNKNOWN, Backbone, Codec, Memory, RememberingBackbone
from worldsim.noise import block_noise, uniforms

FAR = 1_441_440
"""Frames. Runs of up to 16 are counted alike from here on."""
"""Frames by which a past is moved to see whether positions depend on frame numbers."""


def check_policy(policy: Policy, *, max_frames: int = 64) -> None:
    """Raise AssertionError, with the failing case, unless policy keeps its contract.

    A session of max_frames frames is played in blocks of 1, 2 and 3 frames. Each block must see held frames only, in
    order, at rising negative positions, the newest frame always among them; frames that are seen too where all numbers
    are moved alike must stand where they stood, so that a position may tell a distance, however long, but no number;
    a block must see the same whether or not the frames that `keep` gave up are still there; and equal questions must
    have equal answers.
    """
    for frames in (1, 2, 3):
        held: list[int] = []
        for block in range(0, max_frames, frames):
            _check_see(policy, held, block)
            _check_see(policy, held[::-2][::-1], block)
            _check_shift(policy, held, block)
            seen, of_all = list(policy.see(held, block)), list(policy.see(range(block), block))
            assert seen == of_all, f"keep had given up a frame that is seen: {seen} of {held}, {of_all} of all frames"
            held = _kept(policy, [*held, *range(block, block + frames)])


def _check_see(policy: Policy, held: Sequence[int], block: int) -> None:
    seen = policy.see(held, block)
    case = f"see({list(held)}, {block}) = {list(seen)}"
    frames = [one.frame for one in seen]
    positions = [one.position for one in seen]
    assert frames == sorted(set(frames)), f"{case} is not ascending and distinct"
    assert set(frames) <= set(held), f"{case} names frames that are not held"
    assert set(held[-1:]) <= set(frames), f"{case} leaves out the newest frame"
    assert positions == sorted(set(positions)), f"{case} has positions that do not rise with the frames"
    assert all(position < 0 for position in positions), f"{case} puts the past into the block, which starts at 0"
    assert list(policy.see(tuple(held), block)) == list(seen), f"{case} is not the answer when asked again"


def _check_shift(policy: Policy, held: Sequence[int], block: int) -> None:
    here = {one.frame: one.position for one in policy.see(held, block)}
    seen = policy.see([frame + FAR for frame in held], block + FAR)
    there = {one.frame - FAR: one.position for one in seen}
    moved = {frame: (here[frame], there[frame]) for frame in here.keys() & there.keys() if here[frame] != there[frame]}
    assert not moved, f"positions depend on frame numbers: {FAR} frames later see({held}, {block}) moves {moved}"


def _kept(policy: Policy, held: list[int]) -> list[int]:
    next_frame = held[-1] + 1
    kept = list(policy.keep(held, next_frame))
    case = f"keep({held}, {next_frame}) = {kept}"
    assert kept == sorted(set(kept)), f"{case} is not ascending and distinct"
    assert set(kept) <= set(held), f"{case} brings back frames that were forgotten"
    assert policy.limit is None or len(kept) <= policy.limit, f"{case} is more than its limit, {policy.limit}"
    assert list(policy.keep(tuple(held), next_frame)) == kept, f"{case} is not the answer when asked again"
    return kept


def check_backbone(backbone: Backbone, *, seed: int = 0) -> None:
    """Raise AssertionError, with the failing case, unless backbone keeps its contract.

    It is asked in float32, on the CPU, about two videos of 1, 2 and 3 frames. The answer must have the shape and
    dtype of the question and be the same when asked again; attend must be called once in every layer, in order (those
    of a stream in theirs), with every token of the question; what is asked of one video must not show in the answer for
    the other; keys must not depend on when a frame is, which only attend knows; and the tensors it is given must stay
    as they are.
    """
    for frames in (1, 2, 3):
        question = _Question.draw(backbone, frames, seed)
        kept = replace(question, **{name: tensor.clone() for name, tensor in question.tensors.items()})
        answer, _ = _ask(backbone, question)
        again, _ = _ask(backbone, question)
        assert torch.equal(again, answer), f"{frames} frames: the answer is another when asked again"
        for name, tensor in question.tensors.items():
            assert torch.equal(tensor, kept.tensors[name]), f"{frames} frames: the call changed its argument {name}"
        _check_rows(backbone, question, answer)
    _check_keys(backbone, seed)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Question:
    """The tensors of one call of a backbone, see there."""

    noisy: Tensor
    previous: Tensor
    sigma: Tensor
    controls: Tensor

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def draw(cls, backbone: Backbone, frames: int, seed: int) -> _Question:
        shape = (2, frames, *backbone.geometry.frame_shape)
        return cls(
            noisy=block_noise(seed, 0, frames, shape),
            previous=block_noise(seed, 1, frames, shape),
            sigma=uniforms(seed, 2, frames, shape[:2]).float(),
            controls=uniforms(seed, 3, frames, (2, frames, backbone.controls)).round().float(),
        )


class _PlainAttention:
    """Attention of the frames of one call among each other, without positions; notes what it is asked."""

    def __init__(self, pages: PageShape, frames: int) -> None:
        self._frames = frames
        self._pages = pages
        main = (pages.tokens, pages.heads, pages.head_dim)
        beside = [(tokens, one.heads, one.head_dim) for one, tokens in pages.beside for _ in range(one.layers)]
        self._shapes = [*[main] * pages.main, *beside]
        ends = accumulate((pages.main, *(one.layers for one, _ in pages.beside)), initial=0)
        self._runs = [range(*borders) for borders in pairwise(ends)]
        self._keys: dict[int, Tensor] = {}

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, /) -> Tensor:
        layers = len(self._shapes)
        due = [next((at for at in run if at not in self._keys), None) for run in self._runs if layer in run]
        assert due == [layer], f"attend is called for layer {layer} when {[*due, layers][0]} of {layers} is due"
        tokens, *heads = self._shapes[layer]
        for name, tensor, own in (("q", q, self._pages.tokens), ("k", k, tokens), ("v", v, tokens)):
            wanted = (2, self._frames * own, *heads)
            assert tensor.shape == wanted, f"{name} of layer {layer} is {list(tensor.shape)}, not {wanted}"
        self._keys[layer] = k.clone()
        return _attended(q, k, v) if layer < self._pages.main else self._along(q, k, v)

    def _along(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Each token of a frame by itself."""
        rows = [
            x.unflatten(1, (self._frames, -1)).transpose(1, 2) for x in (q, k, v)
        ]  # [2, tokens, F, heads, head_dim]
        q, k, v = (x.expand(-1, self._pages.tokens, -1, -1, -1).flatten(0, 1) for x in rows)
        attended: Tensor = _attended(q, k, v).unflatten(0, (2, -1)).transpose(1, 2).flatten(1, 2)
        return attended

    @property
    def keys(self) -> list[Tensor]:
        """Those of every layer."""
        return [self._keys[layer] for layer in range(len(self._shapes))]

    def check_all_layers(self) -> None:
        asked, layers = len(self._keys), len(self._shapes)
        assert asked == layers, f"attend was called for {asked} of {layers} layers"


def _attended(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Plain attention, [B, n, heads, head_dim]."""
    attended: Tensor = scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return attended.transpose(1, 2)


@torch.no_grad()
def _ask(backbone: Backbone, question: _Question) -> tuple[Tensor, list[Tensor]]:
    """The answer, and the keys of every layer."""
    attend = _PlainAttention(backbone.pages, question.noisy.shape[1])
    answer = backbone(question.noisy, question.previous, question.sigma, question.controls, attend)
    attend.check_all_layers()
    found, wanted = (f"{x.dtype} {list(x.shape)}" for x in (answer, question.noisy))
    assert found == wanted, f"the answer is {found}, the question {wanted}"
    return answer, attend.keys


def _check_rows(backbone: Backbone, question: _Question, answer: Tensor) -> None:
    other = replace(question, **{name: torch.stack((x[0], 1 - x[1])) for name, x in question.tensors.items()})
    mixed, _ = _ask(backbone, other)
    assert torch.equal(mixed[0], answer[0]), "what is asked of one video of a batch shows in the answer for another"


def _check_keys(backbone: Backbone, seed: int) -> None:
    """Ask about one frame three times over: without positions, nothing may tell the three apart."""
    one = _Question.draw(backbone, 1, seed)
    three = replace(one, **{name: torch.cat((x, x, x), dim=1) for name, x in one.tensors.items()})
    _, keys = _ask(backbone, three)
    for layer, found in enumerate(keys):
        times = found.unflatten(1, (3, -1))
        apart = float((times - times[:, :1]).abs().max() / times.abs().max())
        assert apart < 1e-3, (
            f"keys of layer {layer} depend on when a frame is; attend turns them, hand over unturned ones"
        )


@torch.no_grad()
def check_memory(backbone: RememberingBackbone, *, seed: int = 0, frames: int = 12) -> None:
    """Raise AssertionError, with the failing case, unless backbone keeps its contract about what it remembers.

    It is shown a video of so many frames. A memory that it was given must stay as it is; the same frames must leave the
    same memory, one by one as all at once; what is recalled must be the same when asked again, for 1, 2 and 3 frames,
    and be taken by the call, where what one video recalls must not show in the answer for another.
    """
    shape = (1, frames, *backbone.geometry.frame_shape)
    video = block_noise(seed, 4, frames, shape)
    controls = uniforms(seed, 5, frames, (1, frames, backbone.controls)).round().float()
    before = torch.cat((video[:, :1], video[:, :-1]), dim=1)
    memory: Memory = {}
    for frame in range(frames):
        at, kept = slice(frame, frame + 1), {name: tensor.clone() for name, tensor in memory.items()}
        more = backbone.remember(memory, video[:, at], before[:, at], controls[:, at])
        _check_same(memory, kept, f"remembering frame {frame} changed the memory that was given")
        memory = more
    whole = backbone.remember({}, video, video[:, :1], controls)
    _check_same(whole, memory, "frames that are remembered at once leave another memory than one by one")
    for length in (1, 2, 3):
        _check_recall(backbone, memory, length, seed)


def _check_recall(backbone: RememberingBackbone, memory: Memory, frames: int, seed: int) -> None:
    question = _Question.draw(backbone, frames, seed)
    recalled = backbone.recall(memory, question.controls[:1])
    again = backbone.recall(memory, question.controls[:1])
    assert torch.equal(recalled, again), f"{frames} frames: something else is recalled when asked again"
    assert recalled.shape[:2] == (1, frames), f"{frames} frames: what is recalled is {list(recalled.shape)}"
    nothing = torch.full_like(recalled, UNKNOWN)
    answers = []
    for other in (recalled, nothing):
        attend = _PlainAttention(backbone.pages, frames)
        told = backbone.recalling(torch.cat((recalled, other)))
        answers.append(told(question.noisy, question.previous, question.sigma, question.controls, attend))
    assert torch.equal(answers[0][0], answers[1][0]), "what one video recalls shows in the answer for another"


def _check_same(one: Memory, other: Memory, told: str) -> None:
    same = one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert same, told


def check_codec(codec: Codec[Any], *, size: tuple[int, int], seed: int = 0) -> None:
    """Raise AssertionError, with the failing case, unless codec keeps its contract.

    Frames uint8 of size = (height, width), for seven of its latent frames, are coded on the CPU: whole, then in pieces
    of 1, 2 and 4, which must give the same latents and pixels; each piece twice from one state, which must stay as it
    is; the arguments too.
    """
    pieces = (1, 2 * codec.group, 4 * codec.group)
    frames = (uniforms(seed, 0, 0, (sum(pieces), *size, 3)) * 256).to(torch.uint8)
    latents = _check_coding("encode", codec.encode, frames, codec.open, pieces)
    assert latents.dtype == torch.float32, f"encode gives {latents.dtype}, not torch.float32"
    assert (latents.ndim, len(latents)) == (4, 7), f"encode gives {list(latents.shape)} for {len(frames)} frames"
    pixels = _check_coding("decode", codec.decode, latents, codec.open, (1, 2, 4))
    found, wanted = (f"{x.dtype} {list(x.shape)}" for x in (pixels, frames))
    assert found == wanted, f"decode gives {found} for the latents of {wanted}"


Code = Callable[[Tensor, Any], tuple[Tensor, Any]]


def _check_coding(verb: str, code: Code, given: Tensor, open: Callable[[], Any], cuts: Sequence[int]) -> Tensor:
    """Code it whole and in pieces; returns the answer."""
    kept = given.clone()
    whole, _ = code(given, open())
    assert torch.equal(given, kept), f"{verb} changed its argument"
    state, pieces = open(), []
    for piece in given.split(list(cuts)):
        answer, following = code(piece, state)
        again, _ = code(piece, state)
        assert torch.equal(again, answer), (
            f"{verb} changed the state it was handed: the answer is another when asked again"
        )
        pieces.append(answer)
        state = following
    assert torch.equal(torch.cat(pieces), whole), f"{verb} in pieces differs from {verb} of the whole"
    return whole


class ForkableDecoder(BlockDecoder[Condition_contra, Block], Protocol[Condition_contra, Block]):
    """A decoder whose past can be shared."""

    def fork(self) -> Self:
        """A second decoder with the same past and the same future under the same conditions."""
        ...


Asked = TypeVar("Asked")


def check_decoder(
    decoder: ForkableDecoder[Asked, Block],
    conditions: tuple[Asked, Asked],
    *,
    values: Callable[[Block], Tensor],
    blocks: int = 5,
) -> None:
    """Raise AssertionError, with the failing case, unless decoder keeps its contract. It goes on by some blocks.

    Proposing must change nothing: a proposal comes out the same after others were made and thrown away. A fork must
    propose what the decoder proposes, and not notice what is committed elsewhere. A commit must show: two forks that
    committed different blocks must differ in the block after.

    Args:
        decoder: as it would be used, so with a past if it needs one.
        conditions: two under which it makes different blocks.
        values: what is compared of a block.
        blocks: how many to make.
    """
    for number in range(blocks):
        one, other = (decoder.propose(condition) for condition in conditions)
        case = f"block {number}"
        assert not torch.equal(values(one), values(other)), f"{case} is the same under both conditions"
        for condition, block in zip(conditions, (one, other), strict=True):
            again, twin = decoder.propose(condition), decoder.fork().propose(condition)
            assert torch.equal(values(again), values(block)), f"{case}: a proposal that was thrown away shows"
            assert torch.equal(values(twin), values(block)), f"{case}: a fork proposes another block"
        still, elsewhere = decoder.fork(), decoder.fork()
        decoder.commit(one)
        assert torch.equal(values(still.propose(conditions[0])), values(one)), f"{case}: a commit shows in a fork"
        still.commit(one)
        elsewhere.commit(other)
        after, same, apart = (values(each.propose(conditions[0])) for each in (decoder, still, elsewhere))
        assert torch.equal(same, after), f"{case}: a fork that committed the same block goes on differently"
        assert not torch.equal(apart, after), f"{case}: what was committed does not show in the block after"
