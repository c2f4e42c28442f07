"""The checks that plug-in authors run must themselves find each kind of fault."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import pytest
import torch
from torch import Tensor

from worldsim.cache.policy import Full, Policy, Seen, SinkWindow, Window
from worldsim.cache.pool import PageShape
from worldsim.cache.rotary import Rotary
from worldsim.cache.stream import Stream
from worldsim.codec.patches import PatchCodec
from worldsim.models.protocol import Attend, Memory
from worldsim.testing.conformance import check_backbone, check_codec, check_decoder, check_memory, check_policy
from worldsim.testing.fakes import DifferenceCodec, tiny_backbone

See = Callable[[Sequence[int], int], Sequence[Seen]]
Keep = Callable[[Sequence[int], int], Sequence[int]]


@dataclass
class Custom:
    """The policy of a plug-in author: a window of five frames unless told otherwise."""

    see: See = Window(frames=5).see
    keep: Keep = Window(frames=5).keep
    limit: int | None = 5


@dataclass
class Moody:
    """Answers differently when asked again."""

    limit: int | None = None
    asked: list[int] = field(default_factory=list)

    def see(self, held: Sequence[int], block: int) -> Sequence[Seen]:
        self.asked.append(block)
        return Full().see(held, block)[-1 - len(self.asked) % 2 :]

    def keep(self, held: Sequence[int], next_frame: int) -> Sequence[int]:
        return held


def at_distance(frames: Sequence[int], block: int) -> list[Seen]:
    return [Seen(frame, frame - block) for frame in frames]


@pytest.mark.parametrize(
    "policy",
    [
        Full(),
        Window(frames=1),
        Window(frames=7),
        SinkWindow(sink=0, window=1),
        SinkWindow(sink=2, window=3, near=False),
        Custom(),
    ],
)
def test_a_policy_that_keeps_its_contract_passes(policy: Policy) -> None:
    check_policy(policy)


BROKEN: list[tuple[str, Policy]] = [
    ("not ascending", Custom(see=lambda held, block: at_distance(held[-5:], block)[::-1])),
    ("not held", Custom(see=lambda held, block: at_distance(range(max(0, block - 6), block), block))),
    (
        "see.*not held",
        Custom(see=lambda held, block: at_distance(held and range(max(held[0], block - 5), block), block)),
    ),
    ("leaves out the newest", Custom(see=lambda held, block: at_distance(held[-5:-1], block))),
    ("do not rise", Custom(see=lambda held, block: [Seen(frame, -1) for frame in held[-5:]])),
    ("which starts at 0", Custom(see=lambda held, block: [Seen(frame, frame - block + 1) for frame in held[-5:]])),
    ("depend on frame numbers", Custom(see=lambda held, block: [Seen(frame, frame - 1024) for frame in held[-5:]])),
    ("keep had given up", Custom(keep=Window(frames=3).keep)),
    ("brings back", Custom(keep=lambda held, after: held[-5:] if after < 9 else range(after), limit=None)),
    ("keep.*not ascending", Custom(keep=lambda held, after: held[::-1])),
    ("more than its limit", Custom(limit=4)),
    ("asked again", Moody()),
]


@pytest.mark.parametrize(("fault", "policy"), BROKEN, ids=[fault for fault, _ in BROKEN])
def test_a_policy_that_breaks_its_contract_is_told_how(fault: str, policy: Policy) -> None:
    with pytest.raises(AssertionError, match=fault):
        check_policy(policy)


def test_what_the_bundled_worlds_are_made_of_passes() -> None:
    check_backbone(tiny_backbone(1))
    check_codec(PatchCodec(side=2), size=(6, 10))
    check_codec(DifferenceCodec(patches=PatchCodec(side=2)), size=(6, 10))


class Wrapped:
    """A backbone of a plug-in author: the tiny one, with one fault put in."""

    def __init__(self, fault: Callable[..., Tensor]) -> None:
        self._right = tiny_backbone(1)
        self._fault = fault
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._right, name)

    def __call__(self, noisy: Tensor, previous: Tensor, sigma: Tensor, controls: Tensor, attend: Attend) -> Tensor:
        self.asked += 1

        def ask(*question: Tensor, attend: Attend = attend) -> Tensor:
            answer: Tensor = self._right(*question, attend)
            return answer

        return self._fault(self, ask, attend, noisy, previous, sigma, controls)


def tells_time(self, ask, attend, *question):
    times = torch.arange(question[0].shape[1]).repeat_interleave(15)[None, :, None, None]
    return ask(*question, attend=lambda layer, q, k, v: attend(layer, q, k + times, v))


def skips_a_layer(self, ask, attend, *question):
    return ask(*question, attend=lambda layer, q, k, v: q if layer == 0 else attend(layer, q, k, v))


def forgets_a_layer(self, ask, attend, *question):
    return ask(*question, attend=lambda layer, q, k, v: q if layer == 1 else attend(layer, q, k, v))


def attends_twice(self, ask, attend, *question):
    def twice(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend(layer, q, k, attend(layer, q, k, v))

    return ask(*question, attend=twice)


def drops_tokens(self, ask, attend, *question):
    def shorter(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.cat((attend(layer, q[:, :-1], k[:, :-1], v[:, :-1]), v[:, -1:]), dim=1)

    return ask(*question, attend=shorter)


def drops_a_frame(self, ask, attend, *question):
    return ask(*question)[:, :-1]


def answers_in_another_dtype(self, ask, attend, *question):
    return ask(*question).double()


def has_moods(self, ask, attend, *question):
    return ask(*question) + self.asked


def writes_into_its_argument(self, ask, attend, *question):
    answer = ask(*question)
    question[1].clamp_(-0.1, 0.1)
    return answer * 0


def mixes_the_batch(self, ask, attend, *question):
    answer = ask(*question)
    return answer - answer.mean()


BROKEN_BACKBONES: dict[str, Callable[..., Tensor]] = {
    "depend on when a frame is": tells_time,
    "called for layer 1 when 0": skips_a_layer,
    "called for 1 of 2 layers": forgets_a_layer,
    "called for layer 0 when 1": attends_twice,
    "q of layer 0 is": drops_tokens,
    r"\[2, 0, 12, 3, 5\], the question": drops_a_frame,
    "float64.*, the question.*float32": answers_in_another_dtype,
    "is another when asked again": has_moods,
    "changed its argument previous": writes_into_its_argument,
    "shows in the answer for another": mixes_the_batch,
}


@pytest.mark.parametrize("fault", BROKEN_BACKBONES)
def test_a_backbone_that_breaks_its_contract_is_told_how(fault: str) -> None:
    with pytest.raises(AssertionError, match=fault):
        check_backbone(Wrapped(BROKEN_BACKBONES[fault]))


class Streamed(Wrapped):
    """The tiny backbone again, which attends in one layer along time, and in one more to keys of each frame."""

    STREAM = Stream(layers=1, heads=2, head_dim=4, rotary=Rotary(time=2, rows=0, columns=0))

    @property
    def pages(self) -> PageShape:
        return self._right.pages.with_streams((self.STREAM,), self.STREAM)

    def __call__(self, noisy: Tensor, previous: Tensor, sigma: Tensor, controls: Tensor, attend: Attend) -> Tensor:
        answer: Tensor = self._right(noisy, previous, sigma, controls, attend)
        own, told = noisy.flatten(2).repeat(1, 1, 3)[..., :120], controls.repeat(1, 1, 8)[..., :8]
        tokens = own.unflatten(2, (15, 2, 4)).flatten(1, 2)
        for layer, keys in ((2, tokens), (3, told.unflatten(2, (2, 4)))):
            answer = answer + self._fault(attend, layer, tokens, keys, keys).mean((1, 2, 3))[:, None, None, None, None]
        return answer


def attends_along(attend, layer, q, k, v):
    return attend(layer, q, k, v)


def attends_in_a_layer_too_many(attend, layer, q, k, v):
    return attend(layer, q, k, v) if layer == 2 else attend(layer + 1, q, k, v)


def attends_along_twice(attend, layer, q, k, v):
    return attend(layer, q, k, attend(layer, q, k, v) if layer == 2 else v)


def forgets_a_stream(attend, layer, q, k, v):
    return attend(layer, q, k, v) if layer == 2 else q


def has_keys_for_every_token(attend, layer, q, k, v):
    return attend(layer, q, q, q)


def knows_when_a_frame_is(attend, layer, q, k, v):
    return attend(layer, q, k + torch.arange(k.shape[1])[None, :, None, None], v)


BROKEN_STREAMS: dict[str, Callable[..., Tensor]] = {
    "called for layer 4 when 4 of 4": attends_in_a_layer_too_many,
    "called for layer 2 when None of 4": attends_along_twice,
    "called for 3 of 4 layers": forgets_a_stream,
    r"k of layer 3 is \[2, 15, 2, 4\], not \(2, 1, 2, 4\)": has_keys_for_every_token,
    "keys of layer 2 depend on when": knows_when_a_frame_is,
}


def test_a_backbone_with_streams_passes() -> None:
    check_backbone(Streamed(attends_along))


@pytest.mark.parametrize("fault", BROKEN_STREAMS)
def test_a_backbone_that_breaks_the_contract_of_its_streams_is_told_how(fault: str) -> None:
    with pytest.raises(AssertionError, match=fault):
        check_backbone(Streamed(BROKEN_STREAMS[fault]))


class Forgetful:
    """A backbone of a plug-in author that remembers: the tiny one, with one fault put in."""

    def __init__(self, fault: str) -> None:
        self._right = tiny_backbone(1, palette=6, remembers=True)
        self._fault = fault
        self._asked = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._right, name)

    def remember(self, memory: Memory, latents: Tensor, before: Tensor, controls: Tensor) -> Memory:
        if self._fault == "writes into the memory" and memory:
            memory["tiles"].fill_(3)
        if self._fault == "remembers the last frame of a call" and latents.shape[1] > 1:
            return self._right.remember(memory, latents[:, -1:], before, controls[:, -1:])
        return self._right.remember(memory, latents, before, controls)

    def recall(self, memory: Memory, controls: Tensor) -> Tensor:
        self._asked += 1
        recalled = self._right.recall(memory, controls)
        if self._fault == "recalls by mood":
            return recalled + self._asked
        return recalled[:, :1] if self._fault == "recalls one frame" else recalled

    def recalling(self, recalled: Tensor) -> Any:
        return self._right.recalling(recalled.flip(0) if self._fault == "mixes what is recalled" else recalled)


BROKEN_MEMORIES = {
    "writes into the memory": "changed the memory that was given",
    "remembers the last frame of a call": "another memory than one by one",
    "recalls by mood": "when asked again",
    "recalls one frame": r"2 frames: what is recalled is \[1, 1, 3, 5\]",
    "mixes what is recalled": "shows in the answer for another",
}


def test_a_backbone_that_remembers_passes() -> None:
    check_memory(tiny_backbone(1, palette=6, remembers=True))


@pytest.mark.parametrize("fault", BROKEN_MEMORIES)
def test_a_memory_that_breaks_its_contract_is_told_how(fault: str) -> None:
    with pytest.raises(AssertionError, match=BROKEN_MEMORIES[fault]):
        check_memory(Forgetful(fault))  # type: ignore[arg-type]


@dataclass
class CustomCodec:
    """The codec of a plug-in author, who keeps what was coded last in a list."""

    encode: Any
    decode: Any
    group = 1

    def open(self) -> list[Tensor]:
        return []


def right(given: Tensor, state: Any) -> tuple[Tensor, Any]:
    """Encodes or decodes, so that coding twice gives back what was given."""
    return (given.float() if given.dtype == torch.uint8 else given.to(torch.uint8)), state


def changes_its_state(given: Tensor, state: Any) -> tuple[Tensor, Any]:
    state.append(given)
    return right(given, state)[0] + len(state), state


def forgets_its_state(given: Tensor, state: Any) -> tuple[Tensor, Any]:
    return right(given, state)[0] - right(given[:1], state)[0], state


def writes_into_the_frames(given: Tensor, state: Any) -> tuple[Tensor, Any]:
    return right(given.clamp_(0, 9), state)


BROKEN_CODECS: dict[str, CustomCodec] = {
    "encode changed the state": CustomCodec(changes_its_state, right),
    "decode changed the state": CustomCodec(right, changes_its_state),
    "encode in pieces differs": CustomCodec(forgets_its_state, right),
    "decode in pieces differs": CustomCodec(right, forgets_its_state),
    "encode changed its argument": CustomCodec(writes_into_the_frames, right),
    "encode gives torch.float64": CustomCodec(lambda frames, state: (frames.double(), state), right),
    r"encode gives \[7, 6, 10\] for 7": CustomCodec(lambda frames, state: (frames[..., 0].float(), state), right),
    "decode gives torch.float32": CustomCodec(right, lambda latents, state: (latents, state)),
    r"decode gives torch.uint8 \[7, 6, 9": CustomCodec(
        right, lambda latents, state: (latents[:, :, 1:].to(torch.uint8), state)
    ),
}


def test_a_codec_that_keeps_its_contract_passes() -> None:
    check_codec(CustomCodec(right, right), size=(6, 10))


@pytest.mark.parametrize("fault", BROKEN_CODECS)
def test_a_codec_that_breaks_its_contract_is_told_how(fault: str) -> None:
    with pytest.raises(AssertionError, match=fault):
        check_codec(BROKEN_CODECS[fault], size=(6, 10))


@dataclass
class Diary:
    """A decoder that writes down what it was told; a block is a hash of all pages and the new condition."""

    pages: list[int] = field(default_factory=list)

    def propose(self, condition: int) -> Tensor:
        return torch.tensor(hash((*self.pages, condition)))

    def commit(self, block: Tensor) -> None:
        self.pages = [*self.pages, int(block)]

    def fork(self) -> Self:
        return type(self)(self.pages)


class WritesProposals(Diary):
    def propose(self, condition: int) -> Tensor:
        self.pages = [*self.pages, condition]
        return super().propose(condition)


class IgnoresItsCondition(Diary):
    def propose(self, condition: int) -> Tensor:
        return super().propose(0)


class SharesItsPages(Diary):
    def commit(self, block: Tensor) -> None:
        self.pages.append(int(block))


class ForksToTheStart(Diary):
    def fork(self) -> Self:
        return type(self)()


class ForksLosePart(Diary):
    def commit(self, block: Tensor) -> None:
        self.pages = [*self.pages, int(block), id(self)]


class CountsBlocksOnly(Diary):
    def commit(self, block: Tensor) -> None:
        self.pages = [*self.pages, len(self.pages)]


BROKEN_DECODERS: dict[str, type[Diary]] = {
    "a proposal that was thrown away shows": WritesProposals,
    "block 0 is the same under both conditions": IgnoresItsCondition,
    "block 0: a commit shows in a fork": SharesItsPages,
    "block 1: a fork proposes another block": ForksToTheStart,
    "block 0: a fork that committed the same block": ForksLosePart,
    "what was committed does not show": CountsBlocksOnly,
}


def check_diary(diary: Diary) -> None:
    check_decoder(diary, (3, 4), values=lambda block: block)


def test_a_decoder_that_keeps_its_contract_passes_and_goes_on() -> None:
    diary = Diary()
    check_diary(diary)
    assert len(diary.pages) == 5


@pytest.mark.parametrize("fault", BROKEN_DECODERS)
def test_a_decoder_that_breaks_its_contract_is_told_how(fault: str) -> None:
    with pytest.raises(AssertionError, match=fault):
        check_diary(BROKEN_DECODERS[fault]())
