"""The definition that decoders are judged by, against definitions of its own parts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from worldsim.cache.policy import Full, SinkWindow, Window
from worldsim.cache.pool import PageShape
from worldsim.cache.retrieval import Retrieval
from worldsim.cache.rotary import Rotary, rotate
from worldsim.cache.stream import Stream
from worldsim.decoding.noise_plan import NoisePlan
from worldsim.decoding.plan import VideoPlan
from worldsim.decoding.rolling import Rolling
from worldsim.decoding.video import LatentBlock
from worldsim.errors import ConfigError
from worldsim.noise import block_noise
from worldsim.samplers import few_step
from worldsim.schedules import few_step_sigmas
from worldsim.testing.conformance import check_decoder
from worldsim.testing.fakes import CONTROLS, tiny_backbone
from worldsim.testing.recompute import RecomputingDecoder, WholeAttention

ROTARY = Rotary(time=4, rows=2, columns=2)  # two dimensions of a head are left over
GRID = (2, 3)
LENGTHS = [1, 3, 2, 2]


def questions() -> Tensor:
    """Queries, keys and values of eight frames, [3, 1, 48, 2, 10]."""
    return block_noise(1, 0, 0, (3, 1, 48, 2, 10))


def attended(policy, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return WholeAttention(LENGTHS, policy, rotary=ROTARY, grid=GRID)(0, q, k, v)


def masked(q: Tensor, k: Tensor, v: Tensor, *, window: int) -> Tensor:
    """Attention at true distances through one mask over all frames."""
    angles = ROTARY.angles(range(8), *GRID)
    block = torch.repeat_interleave(torch.arange(4), torch.tensor(LENGTHS))
    start = torch.tensor([0, 1, 4, 6])[block][:, None]
    frame = torch.arange(8)
    seen = ((frame >= start - window) & (frame < start)) | (block == block[:, None])
    mask = seen.repeat_interleave(6, 0).repeat_interleave(6, 1)
    scores = torch.einsum("bqhd,bkhd->bhqk", rotate(q, angles), rotate(k, angles)) / 10**0.5
    return torch.einsum("bhqk,bkhd->bqhd", scores.masked_fill(~mask, -torch.inf).softmax(-1), v)


@pytest.mark.parametrize(("policy", "window"), [(Full(), 99), (Window(frames=2), 2), (Window(frames=5), 5)])
def test_at_true_distances_it_is_attention_through_a_mask(policy, window):
    q, k, v = questions()
    assert torch.allclose(attended(policy, q, k, v), masked(q, k, v, window=window), atol=1e-5)


def test_a_sink_stands_directly_before_the_window():
    q, k, v = questions()
    seen = torch.cat([torch.arange(6), torch.arange(30, 36), torch.arange(36, 48)])  # frames 0, 5 and the block 6, 7
    angles = ROTARY.angles([-2, -1, 0, 1], *GRID)
    scores = torch.einsum("bqhd,bkhd->bhqk", rotate(q[:, 36:], angles[12:]), rotate(k[:, seen], angles)) / 10**0.5
    wanted = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v[:, seen])
    assert torch.allclose(attended(SinkWindow(sink=1, window=1), q, k, v)[:, 36:], wanted, atol=1e-5)


def test_the_last_block_may_see_by_a_policy_of_its_own():
    q, k, v = questions()
    settings = {"rotary": ROTARY, "grid": GRID}
    mixed = WholeAttention(LENGTHS, Window(frames=2), last=Full(), **settings)(0, q, k, v)
    assert torch.equal(mixed[:, :36], attended(Window(frames=2), q, k, v)[:, :36])
    assert torch.equal(mixed[:, 36:], attended(Full(), q, k, v)[:, 36:])


def test_in_float64_nothing_is_rounded_to_float32():
    q, k, v = questions().double()
    exact = attended(Full(), q, k, v)
    assert exact.dtype == torch.float64
    shifted = attended(Full(), q * (1 + 1e-12), k, v)
    assert 0 < (shifted - exact).abs().max() < 1e-9


@pytest.mark.parametrize("rolling", [None, Rolling(joint=Window(frames=1))])
def test_it_keeps_the_contract_of_decoders(rolling):
    class Forkable(RecomputingDecoder):
        def fork(self) -> Forkable:
            twin = Forkable(self.backbone, self.plan, self.seed, [*self.past])
            twin.given, twin.ahead = self.given, self.ahead
            return twin

    plan = VideoPlan(
        frames_per_block=2,
        sigmas=few_step_sigmas(2, 3.0),
        sampler=few_step,
        policy=SinkWindow(sink=1, window=2),
        rolling=rolling,
    )
    held = torch.zeros(1, 2, len(CONTROLS))
    past = [LatentBlock(latents=block_noise(2, 0, 0, (1, 2, 12, 3, 5)), controls=held)]
    decoder = Forkable(tiny_backbone(1), plan, 3, past)
    check_decoder(decoder, (held, held + 1), values=lambda block: block.latents, blocks=3)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"policy": Retrieval(tau=0.5)}, "tau=0.5"),
        ({"noise": NoisePlan(window=4)}, "window=4"),
        ({"clean_pass": False}, "clean_pass=False"),
    ],
)
def test_what_is_not_in_its_definition_is_refused(settings: dict[str, Any], says: str) -> None:
    plan = VideoPlan(frames_per_block=1, sigmas=(1.0,), sampler=few_step, **{"policy": Full(), **settings})
    with pytest.raises(ConfigError, match=rf"{says}[\s\S]*holds frames whole, plain noise and a clean pass"):
        RecomputingDecoder(tiny_backbone(1), plan, 5, [])


@pytest.mark.parametrize("tokens", [6, 1])
@pytest.mark.parametrize(("policy", "window"), [(Full(), 99), (Window(frames=2), 2)])
def test_in_a_stream_it_is_attention_along_time_through_a_mask(policy, window, tokens):
    """Token by token; where one key stands for all tokens of a frame, all of them see that one."""
    stream = Stream(layers=1, heads=2, head_dim=10, rotary=Rotary(time=4, rows=0, columns=0, theta=256.0))
    pages = PageShape(layers=3, tokens=6, heads=2, head_dim=10)
    pages = pages.with_streams((stream,)) if tokens == 6 else pages.with_streams((), stream)
    q, k, v = questions()
    if tokens == 1:
        k, v = k[:, ::6], v[:, ::6]
    whole = WholeAttention(LENGTHS, policy, rotary=ROTARY, grid=GRID).over(pages)
    found = whole(3, q, k, v).unflatten(1, (8, 6))
    angles = stream.rotary.angles(range(8), 1, 1)
    block = torch.repeat_interleave(torch.arange(4), torch.tensor(LENGTHS))
    start = torch.tensor([0, 1, 4, 6])[block][:, None]
    seen = ((torch.arange(8) >= start - window) & (torch.arange(8) < start)) | (block == block[:, None])
    for token in range(6):
        asked = rotate(q.unflatten(1, (8, 6))[:, :, token], angles)
        keys, values = (x.unflatten(1, (8, tokens))[:, :, token % tokens] for x in (k, v))
        scores = torch.einsum("bqhd,bkhd->bhqk", asked, rotate(keys, angles)) / 10**0.5
        wanted = torch.einsum("bhqk,bkhd->bqhd", scores.masked_fill(~seen, -torch.inf).softmax(-1), values)
        assert torch.allclose(found[:, :, token], wanted, atol=1e-5)
    assert torch.equal(whole(1, *questions()), attended(policy, *questions()))
