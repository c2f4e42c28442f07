"""Videos that share backbone calls become what each would have become alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from worldsim.cache.policy import Full, Policy, SinkWindow, Window
from worldsim.cache.pool import PagePool
from worldsim.decoding.batch import RowsAttend, RowsCanvas, propose_together, write_together
from worldsim.decoding.noise_plan import NoisePlan
from worldsim.decoding.plan import VideoPlan
from worldsim.decoding.prompting import PromptChange
from worldsim.decoding.rolling import WindowCanvas
from worldsim.decoding.video import LatentBlock, VideoDecoder
from worldsim.errors import ConfigError, PoolFull
from worldsim.noise import block_noise, uniforms
from worldsim.samplers import LatentCanvas, few_step, heun
from worldsim.schedules import few_step_sigmas
from worldsim.testing.fakes import ToldBackbone, tiny_backbone

BACKBONES = {dtype: tiny_backbone(7, dtype=dtype) for dtype in (torch.float32, torch.float64)}
BELIEVING = tiny_backbone(7, palette=6)
REMEMBERING = tiny_backbone(7, palette=6, remembers=True)
SHAPE = BELIEVING.geometry.frame_shape


def proposed(decoders: Sequence[VideoDecoder], controls: Sequence[Tensor]) -> list[Tensor]:
    """The latents of the next block of each."""
    return [latents for latents, _ in propose_together(decoders, controls)]


def plan_of(policy: Policy, *, draw: bool = False, frames: int = 2) -> VideoPlan:
    sigmas = few_step_sigmas(2, 3.0)
    return VideoPlan(frames_per_block=frames, sigmas=sigmas, sampler=few_step, policy=policy, draw=draw)


def decoders(backbone, plan: VideoPlan, count: int = 3, *, pages: int = 90) -> list[VideoDecoder]:
    """Decoders of different seeds and pasts of different lengths, over one pool."""
    dtype = backbone.embed.weight.dtype
    pool = PagePool(backbone.pages, pages=pages, dtype=dtype, device=torch.device("cpu"))
    made = []
    for number in range(count):
        made.append(VideoDecoder(backbone, pool, plan, seed=number))
        frames = 1 + 3 * number
        past = block_noise(number, 0, 9, (1, frames, *SHAPE)).to(dtype)
        made[-1].prefill(past / 2, held(frames, number, 99, dtype))
    return made


def held(frames: int, decoder: int, block: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return uniforms(decoder, block, 1, (1, frames, BELIEVING.controls)).round().to(dtype)


def live(backbone, plan: VideoPlan, *, together: bool) -> Tensor:
    """Five blocks of three videos, [3, 5 * frames_per_block, C, H, W]."""
    videos, dtype = decoders(backbone, plan), backbone.embed.weight.dtype
    groups = [videos] if together else [[video] for video in videos]
    made: dict[int, list[Tensor]] = {video.seed: [] for video in videos}
    for block in range(5):
        for group in groups:
            controls = [held(plan.frames_per_block, video.seed, block, dtype) for video in group]
            latents = proposed(group, controls)
            blocks = [LatentBlock(latents=own, controls=keys) for own, keys in zip(latents, controls, strict=True)]
            write_together(group, blocks)
            for video, own in zip(group, latents, strict=True):
                video.blocks += 1
                made[video.seed].append(own)
    return torch.cat([torch.cat(blocks, dim=1) for blocks in made.values()])


@pytest.mark.parametrize("policy", [Full(), Window(frames=5), SinkWindow(sink=2, window=3)])
def test_together_is_as_exact_as_alone(policy):
    truth = live(BACKBONES[torch.float64], plan_of(policy), together=False)
    alone, together = (live(BACKBONES[torch.float32], plan_of(policy), together=both) for both in (False, True))
    error, limit = (float((made.double() - truth).abs().max()) for made in (together, alone))
    assert error <= 2 * limit, f"max error {error:.3g} is over twice that of decoding alone, {limit:.3g}"


def test_draws_are_the_same_together_as_alone():
    """A draw is one of six patches: it is the same or it is far off."""
    plan = plan_of(Window(frames=5), draw=True)
    alone, together = (live(BELIEVING, plan, together=both) for both in (False, True))
    assert float((alone - together).abs().max()) < 1e-4


def test_each_row_recalls_its_own():
    plan = replace(plan_of(Window(frames=5), draw=True), recall=True)
    alone, together = (live(REMEMBERING, plan, together=both) for both in (False, True))
    assert float((alone - together).abs().max()) < 1e-4
    assert float((alone - live(REMEMBERING, replace(plan, recall=False), together=False)).abs().max()) > 1e-2


@pytest.mark.parametrize("sampler", [few_step, heun])
def test_each_row_is_at_the_level_of_its_own_block(sampler):
    """Joined at different blocks, they become what they become alone."""
    plan = replace(plan_of(Window(frames=5)), sampler=sampler, noise=NoisePlan(low=40, period=5, window=4))
    made = []
    for together in (False, True):
        videos = decoders(BACKBONES[torch.float64], plan)
        for number, video in enumerate(videos):
            video.blocks = 2 * number
        groups = [videos] if together else [[video] for video in videos]
        controls = {video.seed: held(2, video.seed, 0, torch.float64) for video in videos}
        made.append(torch.cat([own for group in groups for own in proposed(group, [controls[v.seed] for v in group])]))
    assert torch.allclose(made[0], made[1], rtol=1e-9, atol=1e-9)


def test_rows_are_asked_about_together_each_at_its_level_until_all_are_clean():
    values = [torch.full((1, 2, *SHAPE), float(row)) for row in range(3)]
    rows = [LatentCanvas(own, (own.mean().item() / 4 + 0.25, 0.1), lambda step: torch.ones(1)) for own in values]
    canvas = RowsCanvas(tuple(WindowCanvas((row,)) for row in rows))
    assert torch.equal(canvas.values, torch.cat(values))
    assert canvas.levels.tolist() == [[0.25] * 2, [0.5] * 2, [0.75] * 2]
    assert canvas.steps == (0,)
    assert canvas.is_open
    closed = RowsCanvas(tuple(WindowCanvas((replace(row, at=2),)) for row in rows))
    assert not closed.is_open
    assert all(torch.equal(one, other) for one, other in zip(closed.kept, values, strict=True))


def test_one_call_serves_all_rows():
    calls = []

    def backbone(*inputs: Tensor) -> Tensor:
        calls.append(inputs[0].shape[0])
        return BELIEVING(*inputs)

    for name in ("geometry", "controls", "rotary", "pages"):
        setattr(backbone, name, getattr(BELIEVING, name))
    videos = decoders(BELIEVING, plan_of(Full()))
    for video in videos:
        video.backbone = backbone
    controls = [held(2, video.seed, 0) for video in videos]
    latents = proposed(videos, controls)
    write_together(videos, [LatentBlock(latents=x, controls=c) for x, c in zip(latents, controls, strict=True)])
    assert calls == [3, 3, 3]


def test_each_row_attends_by_its_own():
    q = torch.randn(3, 4, 2, 8, generator=torch.Generator().manual_seed(1))
    rows = [lambda layer, q, k, v, gain=gain: gain * q + layer for gain in (1, 2, 3)]
    assert torch.equal(RowsAttend(rows)(5, q, q, q), q * torch.tensor([1, 2, 3])[:, None, None, None] + 5)


def test_what_stops_the_work_between_two_calls_leaves_everything_as_it_was():
    videos = decoders(BELIEVING, plan_of(Full()))
    controls = [held(2, video.seed, 0) for video in videos]
    before = proposed(videos, controls)
    asked = []

    def stop() -> None:
        asked.append(1)
        if len(asked) == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        propose_together(videos, controls, between=stop)
    assert all(torch.equal(one, other) for one, other in zip(before, proposed(videos, controls), strict=True))


def test_without_memory_for_all_none_is_written():
    videos = decoders(BELIEVING, plan_of(Full()), pages=17)
    controls = [held(2, video.seed, 0) for video in videos]
    blocks = [
        LatentBlock(latents=own, controls=keys) for own, keys in zip(proposed(videos, controls), controls, strict=True)
    ]
    with pytest.raises(PoolFull, match="6 more pages are wanted and 5 of 17 are free"):
        write_together(videos, blocks)
    assert [len(video.context.frames) for video in videos] == [1, 4, 7]
    videos[0].pool.check_integrity([video.context for video in videos])


def test_only_what_belongs_together_is_decoded_together():
    plan = plan_of(Full())
    one, other = decoders(BELIEVING, plan, 1), decoders(BELIEVING, plan, 1)
    with pytest.raises(ConfigError, match="of one backbone, pool and plan"):
        propose_together([*one, *other], [held(2, 0, 0)] * 2)
    third = one[0].fork()
    third.plan = replace(plan, policy=Window(frames=3))
    with pytest.raises(ConfigError, match="of one backbone, pool and plan"):
        propose_together([*one, third], [held(2, 0, 0)] * 2)
    with pytest.raises(ConfigError, match="pass at least one"):
        propose_together([], [])


def test_a_backbone_that_is_told_something_is_told_which_frame_each_row_begins_with():
    told = []

    class Noting(ToldBackbone):
        def prompted(self, heard: Tensor, first: Sequence[int] = ()) -> ToldBackbone:
            told.append(list(first))
            return super().prompted(heard, first)

    backbone = Noting(inner=BACKBONES[torch.float32])
    pool = PagePool(backbone.pages, pages=60, dtype=torch.float32, device=torch.device("cpu"))
    plan = replace(plan_of(Window(frames=4)), from_nothing=True, on_prompt=PromptChange(anew=3))
    videos = [VideoDecoder(backbone, pool, plan, seed=number) for number in range(2)]
    for video in videos:
        video.heard = torch.zeros(backbone.geometry.channels)
    keys = [held(2, number, 0) for number in range(2)]
    videos[0].prefill(block_noise(1, 0, 9, (1, 5, *SHAPE)), held(5, 0, 99))
    assert told == [[0], [1], [3]]
    told.clear()
    made = [LatentBlock(latents=own, controls=one) for own, one in zip(proposed(videos, keys), keys, strict=True)]
    write_together(videos, made)
    assert told == [[5, 0], [5, 0]]
    told.clear()
    videos[0].tell(torch.ones(backbone.geometry.channels))
    assert told == [[4]]
