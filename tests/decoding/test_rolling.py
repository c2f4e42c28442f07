"""The joint window against the published order of its calls, its definition and its law, and what changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from worldsim.cache.policy import Full, Policy, SinkWindow, Window
from worldsim.cache.pool import PagePool, PageShape
from worldsim.cache.retrieval import Retrieval
from worldsim.cache.rotary import Rotary
from worldsim.decoding.batch import propose_together
from worldsim.decoding.noise_plan import NoisePlan
from worldsim.decoding.plan import VideoPlan
from worldsim.decoding.prompting import PromptChange
from worldsim.decoding.rolling import Ahead, Rolling, WindowCanvas, open_window, rolling_text
from worldsim.decoding.video import LatentBlock, VideoDecoder
from worldsim.errors import ConfigError, ShapeError
from worldsim.geometry import LatentGeometry
from worldsim.models.protocol import Attend, Backbone
from worldsim.noise import block_noise, uniforms
from worldsim.samplers import LatentCanvas, euler, few_step, heun
from worldsim.schedules import few_step_sigmas, mix
from worldsim.testing.conformance import check_decoder
from worldsim.testing.fakes import ToldBackbone, embed_words, tiny_backbone
from worldsim.testing.recompute import RecomputingDecoder, WholeAttention

BACKBONE = tiny_backbone(7)
SHAPE = BACKBONE.geometry.frame_shape
SIGMAS = few_step_sigmas(3, 5.0)
PUBLISHED = Rolling(joint=SinkWindow(sink=2, window=2), clean=Window(frames=5))
"""The anchor and a short window for the joint call, a longer window without the anchor for the clean pass."""
POLICIES: list[tuple[Policy, Rolling]] = [
    (SinkWindow(sink=2, window=6), PUBLISHED),
    (Full(), Rolling()),
    (SinkWindow(sink=1, window=3, near=False), Rolling()),
    (Retrieval(recent=3, top=2, run=2, bank=5), Rolling()),
]


def plan_of(policy: Policy = POLICIES[0][0], rolling: Rolling | None = PUBLISHED, **options: Any) -> VideoPlan:
    settings = {"frames_per_block": 2, "sigmas": SIGMAS, "sampler": few_step} | options
    return VideoPlan(policy=policy, rolling=rolling, **settings)


def pool_of(backbone: Backbone, pages: int = 96) -> PagePool:
    return PagePool(backbone.pages, pages=pages, dtype=torch.float32, device=torch.device("cpu"))


def held(block: int, *, seed: int = 3) -> Tensor:
    return uniforms(seed, block, 0, (1, 2, BACKBONE.controls)).round().float()


def given(dtype: torch.dtype = torch.float32) -> LatentBlock:
    """Two frames to go on from."""
    return LatentBlock(latents=(block_noise(4, 0, 0, (1, 2, *SHAPE)) / 2).to(dtype), controls=held(99).to(dtype))


def decoder_with(plan: VideoPlan, *, backbone: Any = BACKBONE, seed: int = 5, pool: PagePool | None = None) -> Any:
    decoder = VideoDecoder(backbone, pool_of(backbone) if pool is None else pool, plan, seed)
    decoder.prefill(given().latents, given().controls)
    return decoder


def live(decoder: VideoDecoder, blocks: Sequence[int]) -> Tensor:
    made = []
    for number in blocks:
        made.append(decoder.propose(held(number)))
        decoder.commit(made[-1])
    return torch.cat([block.latents for block in made], dim=1)


def as_published(dtype: torch.dtype, *, seed: int, blocks: int, video: int | None = None) -> Tensor:
    """The order of calls of the published pipeline, over a video of a known length, with nothing cached.

    Windows run over the numbers of blocks. While they grow, their levels are the noisiest ones of all; the input of
    one is what was noised for it, and noise for its last block. They shrink only after the blocks that are returned, or
    at the end of a video of so many blocks, of which all noise is then drawn as it is published.
    """
    backbone, levels = tiny_backbone(7, dtype=dtype), SIGMAS[::-1]
    number = len(levels)
    past, noisy, clean = [given(dtype)], dict[int, Tensor](), dict[int, Tensor]()
    last_of_all = blocks + number if video is None else video - 1
    noise = None if video is None else drawn_as_published(seed=seed, video=video, number=number)

    def drawn(block: int, step: int) -> Tensor:
        found = block_noise(seed, block, step, (1, 2, *SHAPE)) if noise is None else noise[block, step]
        return found.to(dtype)

    for window_index in range(blocks + number - 1):
        first, last = max(0, window_index - number + 1), min(last_of_all, window_index)
        window = range(first, last + 1)
        own = levels[-len(window) :] if first == 0 else levels[: len(window)]
        known = [noisy[block] for block in window if block < window_index]
        joins = [drawn(window_index, 0)] if window_index == last else []
        values = torch.cat([*known, *joins], dim=1)
        answer = estimated(backbone, past, values, own, held(first).to(dtype)).split(2, dim=1)
        for block, level, frames in zip(window, own, answer, strict=True):
            step = SIGMAS.index(level) + 1
            if step < number:
                noisy[block] = mix(frames, drawn(block, step), SIGMAS[step])
            else:
                clean[block] = frames
                past.append(LatentBlock(latents=frames, controls=held(block).to(dtype)))
    return torch.cat([clean[block] for block in range(blocks)], dim=1)


def drawn_as_published(*, seed: int, video: int, number: int) -> dict[tuple[int, int], Tensor]:
    """By block and step all noise of a video of so many blocks and levels, as one loop over its windows comes upon it.

    What the blocks begin with is drawn at once. After a window each of its blocks that is not clean is noised by its
    part of noise for all of the window, which is drawn for every block anew.
    """
    generator = torch.Generator().manual_seed(seed)
    begun = torch.randn((1, 2 * video, *SHAPE), generator=generator, dtype=torch.bfloat16).float().split(2, dim=1)
    found = {(block, 0): begun[block] for block in range(video)}
    for window_index in range(video + number - 1):
        window = range(max(0, window_index - number + 1), min(video - 1, window_index) + 1)
        for place, block in enumerate(window):
            if window_index - block < number - 1:
                whole = torch.randn((2 * len(window), *SHAPE), generator=generator, dtype=torch.bfloat16).float()
                found[block, window_index - block + 1] = whole[None, 2 * place : 2 * place + 2]
    return found


def estimated(backbone: Any, past: Sequence[LatentBlock], values: Tensor, levels: Sequence[float], keys: Tensor):
    """The clean estimate of a window at these levels, with all of the past beside it in one call."""
    lengths = [*(block.latents.shape[1] for block in past), values.shape[1]]
    # All that a window sees, with itself and the anchor, is always as long.
    last = SinkWindow(sink=2, window=2 + 2 * len(SIGMAS) - values.shape[1])
    attend = WholeAttention(lengths, Window(frames=5), rotary=backbone.rotary, grid=(3, 5), last=last)
    frames = torch.cat([*(block.latents for block in past), values], dim=1)
    sigma = torch.zeros(1, frames.shape[1])
    sigma[:, -values.shape[1] :] = torch.tensor([level for level in levels for _ in range(2)])
    controls = torch.cat([*(block.controls for block in past), keys.repeat(1, len(levels), 1)], dim=1)
    previous = torch.cat((frames[:, :1], frames[:, :-1]), dim=1)
    with torch.no_grad():
        return backbone(frames, previous, sigma, controls, attend)[:, -values.shape[1] :]


@pytest.mark.parametrize("seed", [5, 6])
def test_blocks_are_those_of_the_published_order_of_calls(seed):
    ours = live(decoder_with(plan_of(), seed=seed), range(8))
    plain, truth = (as_published(dtype, seed=seed, blocks=8) for dtype in (torch.float32, torch.float64))
    error, limit = (float((found.double() - truth).abs().max()) for found in (ours, plain))
    assert error <= 2 * limit, f"max error {error:.3g} is over twice that of recomputing plainly, {limit:.3g}"


@pytest.mark.parametrize(("seed", "video"), [(5, 3), (6, 4), (7, 8)])
def test_a_video_of_published_noise_is_that_of_the_published_order_to_its_end(seed, video):
    ours = live(decoder_with(plan_of(noise=NoisePlan(published=2 * video)), seed=seed), range(video))
    plain, truth = (
        as_published(dtype, seed=seed, blocks=video, video=video) for dtype in (torch.float32, torch.float64)
    )
    error, limit = (float((found.double() - truth).abs().max()) for found in (ours, plain))
    assert error <= 2 * limit, f"max error {error:.3g} is over twice that of recomputing plainly, {limit:.3g}"


def test_at_the_end_of_a_video_windows_shrink_and_behind_it_nothing_is_made():
    asked: list[tuple[int, int]] = []
    decoder = decoder_with(plan_of(noise=NoisePlan(published=10)), backbone=spied(BACKBONE, asked))
    live(decoder, range(3))
    asked.clear()
    live(decoder, [3, 4])
    assert asked == [(1, 4), (1, 2), (1, 2), (1, 2)]
    assert decoder.state().ahead is None
    with pytest.raises(ConfigError, match="10 frames, 2 a block, and block 5 is none of them"):
        decoder.propose(held(5))


@pytest.mark.parametrize("blocks", [0, 2, 3, 4])
def test_near_the_end_of_a_video_it_goes_on_bit_for_bit_as_well(blocks):
    plan = plan_of(noise=NoisePlan(published=10))
    decoder = decoder_with(plan)
    for number in range(blocks):
        live(decoder, [number])
    state, future = decoder.state(), live(decoder, range(blocks, 5))
    resumed = VideoDecoder(BACKBONE, pool_of(BACKBONE), plan, 5)
    resumed.resume(state)
    assert torch.equal(live(resumed, range(blocks, 5)), future)
    if state.ahead is not None:
        with pytest.raises(ShapeError, match="latents of blocks on their way"):
            resumed.resume(replace(state, ahead=state.ahead[:, :-2]))


def test_videos_of_published_noise_share_calls_wherever_they_are():
    plan, asked = plan_of(noise=NoisePlan(published=12)), list[tuple[int, int]]()
    backbone = spied(BACKBONE, asked)
    pool = pool_of(backbone)
    decoders = [decoder_with(plan, backbone=backbone, seed=seed, pool=pool) for seed in range(6)]
    for decoder, made in zip(decoders, (0, 2, 2, 4, 5, 0), strict=True):
        for number in range(made):
            live(decoder, [number])
    again = decoders[5]
    for number in range(5):
        again.commit(LatentBlock(latents=given().latents, controls=held(number)))
    alone = [decoder.propose(held(0)) for decoder in decoders]
    asked.clear()
    together = propose_together(decoders, [held(0)] * 6)
    assert sorted(asked) == sorted([*[(1, 2), (1, 4), (1, 6)], (2, 6), (1, 4), (1, 2), *[(1, 2)] * 3])
    for one, (latents, ahead) in zip(alone, together, strict=True):
        assert torch.allclose(one.latents, latents, atol=1e-5)
        assert (ahead is None) == (one.recording is None)
        if ahead is not None:
            assert torch.allclose(one.recording.latents, ahead.latents, atol=1e-5)


def in_dtype(block: LatentBlock, dtype: torch.dtype) -> LatentBlock:
    latents, controls, ahead = (x.to(dtype) for x in (block.latents, block.controls, block.recording.latents))
    return LatentBlock(latents=latents, controls=controls, recording=Ahead(ahead))


@pytest.mark.parametrize("sampler", [few_step, euler])
@pytest.mark.parametrize(("policy", "rolling"), POLICIES)
def test_through_the_cache_it_is_as_exact_as_recomputing_the_whole_context(policy, rolling, sampler):
    """What is kept and what is ahead."""
    plan, slow = plan_of(policy, rolling, sampler=sampler), {}
    fast = decoder_with(plan)
    for dtype in (torch.float32, torch.float64):
        slow[dtype] = RecomputingDecoder(tiny_backbone(7, dtype=dtype), plan, 5, [given(dtype)])
    ours, plain, truth = [], [], []
    for number in range(10):
        block = fast.propose(held(number))
        wanted = {dtype: each.propose(held(number).to(dtype)) for dtype, each in slow.items()}
        for into, each in ((ours, block), (plain, wanted[torch.float32]), (truth, wanted[torch.float64])):
            into.append(torch.cat((each.latents, each.recording.latents), dim=1))
        fast.commit(block)
        for dtype, each in slow.items():
            each.commit(in_dtype(block, dtype))
    exact = torch.cat(truth)
    error, limit = (float((torch.cat(found).double() - exact).abs().max()) for found in (ours, plain))
    assert error <= 2 * limit, f"max error {error:.3g} is over twice that of recomputing plainly, {limit:.3g}"


@pytest.mark.parametrize("remembers", [False, True])
def test_draws_are_those_of_recomputing_the_whole_context(remembers):
    """A draw is one of six patches: it is the same or it is far off."""
    plan, backbone = plan_of(draw=True, recall=remembers), tiny_backbone(7, palette=6, remembers=remembers)
    fast, slow = decoder_with(plan, backbone=backbone), RecomputingDecoder(backbone, plan, 5, [given()])
    for number in range(6):
        block, wanted = (each.propose(held(number)) for each in (fast, slow))
        for one, other in ((block, wanted), (block.recording, wanted.recording)):
            assert float((one.latents - other.latents).abs().max()) < 1e-4
        fast.commit(block)
        slow.commit(block)


def spied(backbone: Any, asked: list[tuple[int, int]]) -> Any:
    """The same backbone, which writes down of how many rows and frames it was asked."""

    def ask(noisy: Tensor, *rest: Any) -> Tensor:
        asked.append((noisy.shape[0], noisy.shape[1]))
        answer: Tensor = backbone(noisy, *rest)
        return answer

    for name in ("geometry", "controls", "rotary", "pages"):
        setattr(ask, name, getattr(backbone, name))
    return ask


def test_a_window_grows_until_its_first_block_is_clean_and_then_a_block_is_one_call_and_its_clean_pass():
    asked: list[tuple[int, int]] = []
    decoder = decoder_with(plan_of(sigmas=few_step_sigmas(5, 5.0)), backbone=spied(BACKBONE, asked))
    asked.clear()
    live(decoder, [0])
    assert asked == [(1, 2), (1, 4), (1, 6), (1, 8), (1, 10), (1, 2)]
    asked.clear()
    live(decoder, range(1, 4))
    assert asked == [(1, 10), (1, 2)] * 3


def test_a_video_may_begin_from_nothing():
    decoder = VideoDecoder(BACKBONE, pool_of(BACKBONE), plan_of(from_nothing=True), 5)
    assert live(decoder, range(3)).shape == (1, 6, *SHAPE)
    assert decoder.context.frames == tuple(range(6))


def test_a_window_sees_by_one_policy_and_a_clean_pass_by_another():
    decoder = decoder_with(plan_of())
    live(decoder, range(5))
    assert decoder.context.frames == (0, 1, 6, 7, 8, 9, 10, 11)
    assert decoder.sight.frames == (5, 6, 7, 8, 9)
    looks = [decoder.view(frames, joint=joint).seen for frames, joint in ((6, True), (2, False), (2, True))]
    assert [[(one.frame, one.position) for one in seen] for seen in looks] == [
        [(0, -4), (1, -3), (10, -2), (11, -1)],
        [(7, -5), (8, -4), (9, -3), (10, -2), (11, -1)],
        [(0, -8), (1, -7), *((frame, frame - 12) for frame in range(6, 12))],
    ]


def test_a_window_that_is_shorter_sees_as_many_more_frames_of_a_sink_window_alone():
    assert PUBLISHED.joint_of(0) == PUBLISHED.joint
    assert PUBLISHED.joint_of(4) == SinkWindow(sink=2, window=6)
    assert Rolling(joint=Window(frames=3)).joint_of(4) == Window(frames=3)
    assert Rolling().joint_of(4) is None


def test_it_keeps_the_contract_of_decoders():
    check_decoder(decoder_with(plan_of()), (held(0), 1 - held(0)), values=lambda block: block.latents, blocks=3)


@pytest.mark.parametrize("blocks", [0, 1, 4])
def test_forks_and_resumed_decoders_go_on_bit_for_bit_and_so_does_whoever_goes_back(blocks):
    decoder = decoder_with(plan_of())
    for number in range(blocks):
        live(decoder, [number])
    mark, state = decoder.fork(), decoder.state()
    future = live(decoder, range(blocks, blocks + 4))
    assert torch.equal(live(mark.fork(), range(blocks, blocks + 4)), future)
    resumed = VideoDecoder(BACKBONE, pool_of(BACKBONE), plan_of(), 5)
    resumed.resume(state)
    assert torch.equal(live(resumed, range(blocks, blocks + 4)), future)
    assert torch.equal(live(mark, range(blocks, blocks + 4)), future)
    for each in (decoder, mark):
        each.close()
    decoder.pool.check_integrity([])


def test_without_pages_it_goes_on_with_the_blocks_that_were_on_their_way():
    decoder = decoder_with(plan_of(Full(), Rolling()))
    live(decoder, range(4))
    resumed = VideoDecoder(BACKBONE, pool_of(BACKBONE), decoder.plan, 5)
    resumed.resume(decoder.state().without_pages())
    assert torch.equal(resumed.state().ahead, decoder.state().ahead)
    assert float((live(resumed, [4]) - live(decoder, [4])).abs().max()) < 1e-4


@pytest.mark.parametrize(
    "spoil",
    [
        lambda ahead: ahead[:, :-1],
        lambda ahead: ahead * float("nan"),
        lambda ahead: ahead[..., :-1],
        lambda ahead: ahead.flatten(),
    ],
)
def test_a_state_with_blocks_on_their_way_that_none_was_in_is_refused(spoil):
    decoder = decoder_with(plan_of())
    live(decoder, range(2))
    state, fresh = decoder.state(), VideoDecoder(BACKBONE, pool_of(BACKBONE), plan_of(), 5)
    with pytest.raises((ConfigError, ShapeError), match="latents of blocks on their way"):
        fresh.resume(replace(state, ahead=spoil(state.ahead)))
    assert fresh.pool.used == 0
    alone = VideoDecoder(BACKBONE, pool_of(BACKBONE), plan_of(rolling=None), 5)
    with pytest.raises(ShapeError, match=r"on their way \[1, 0, 12, 3, 5\], got \[1, 4"):
        alone.resume(state)


def test_what_is_ahead_was_noised_by_the_number_of_each_block_and_its_step():
    """Under a backbone that answers every question with zeros, what is ahead is nothing but noise."""

    def silent(noisy: Tensor, *rest: Any) -> Tensor:
        answer: Tensor = BACKBONE(noisy, *rest)
        return 0 * answer

    for name in ("geometry", "controls", "rotary", "pages"):
        setattr(silent, name, getattr(BACKBONE, name))
    decoder = decoder_with(plan_of(), backbone=silent)
    for number in range(3):
        decoder.commit(decoder.propose(held(number)))
        wanted = [SIGMAS[step] * block_noise(5, number + 3 - step, step, (1, 2, *SHAPE)) for step in (2, 1)]
        assert torch.equal(decoder.state().ahead, torch.cat(wanted, dim=1))


def test_a_block_that_was_not_proposed_is_followed_by_a_window_that_begins_anew():
    asked: list[tuple[int, int]] = []
    decoder = decoder_with(plan_of(), backbone=spied(BACKBONE, asked))
    live(decoder, range(2))
    decoder.commit(LatentBlock(latents=given().latents, controls=given().controls))
    assert decoder.state().ahead is None
    asked.clear()
    live(decoder, [3])
    assert asked == [(1, 2), (1, 4), (1, 6), (1, 2)]


def test_frames_that_are_given_end_what_was_on_its_way():
    decoder = decoder_with(plan_of())
    live(decoder, range(2))
    assert decoder.state().ahead is not None
    decoder.prefill(given().latents, given().controls)
    assert decoder.state().ahead is None


def test_all_blocks_on_their_way_follow_the_newest_controls_and_words():
    backbone = ToldBackbone(inner=BACKBONE)
    decoder = VideoDecoder(backbone, pool_of(backbone), plan_of(from_nothing=True), 5)
    decoder.tell(backbone.hear(embed_words("a wood")))
    live(decoder, range(3))
    before = decoder.propose(held(3))
    twin = decoder.fork()
    twin.tell(backbone.hear(embed_words("a lake by night")))
    for after in (decoder.propose(1 - held(3)), twin.propose(held(3))):
        apart = after.recording.latents - before.recording.latents
        assert all(float(block.abs().max()) > 1e-3 for block in apart.split(2, dim=1))
        assert float((after.latents - before.latents).abs().max()) > 1e-3


def test_a_past_that_is_computed_anew_leaves_what_is_on_its_way():
    backbone = ToldBackbone(inner=BACKBONE)
    plan = plan_of(from_nothing=True, on_prompt=PromptChange(anew=3))
    decoder = VideoDecoder(backbone, pool_of(backbone), plan, 5)
    decoder.tell(backbone.hear(embed_words("a wood")))
    live(decoder, range(3))
    before = decoder.state()
    decoder.tell(backbone.hear(embed_words("a lake")))
    assert torch.equal(decoder.state().ahead, before.ahead)
    assert not torch.equal(decoder.state().keys, before.keys)


def test_those_at_their_beginning_go_apart_from_those_with_blocks_ahead():
    asked: list[tuple[int, int]] = []
    backbone = spied(BACKBONE, asked)
    pool = pool_of(backbone)
    decoders = [decoder_with(plan_of(), backbone=backbone, seed=seed, pool=pool) for seed in range(4)]
    for decoder in (decoders[1], decoders[3]):
        live(decoder, range(2))
    alone = [decoder.propose(held(0)) for decoder in decoders]
    asked.clear()
    together = propose_together(decoders, [held(0)] * 4)
    assert asked == [(2, 2), (2, 4), (2, 6), (2, 6)]
    for one, (latents, ahead) in zip(alone, together, strict=True):
        assert torch.allclose(one.latents, latents, atol=1e-5)
        assert torch.allclose(one.recording.latents, ahead.latents, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"sampler": heun}, "the sampler heun"),
        ({"noise": NoisePlan(low=40)}, "noise linear:low=40,high=100,period=32,window=0"),
        ({"clean_pass": False, "sampler": heun}, "the sampler heun and no clean pass"),
    ],
    ids=["sampler", "noise", "clean_pass"],
)
def test_a_plan_that_cannot_roll_is_refused(options, told):
    with pytest.raises(ConfigError, match=rf"a window that rolls moves every block a level on .*, got {told}; choose"):
        plan_of(**options)
    plan_of(rolling=None, **options)
    plan_of(noise=NoisePlan(window=4))
    told = (
        "has 3 blocks of 2 frames, and a published video no fewer, got noise published:frames=4; name frames=6 or more"
    )
    with pytest.raises(ConfigError, match=told):
        plan_of(noise=NoisePlan(published=4))
    for rolling in (PUBLISHED, None):
        told = "is that of whole blocks of 2 latent frames, got published:frames=7; name frames=8"
        with pytest.raises(ConfigError, match=told):
            plan_of(rolling=rolling, noise=NoisePlan(published=7))


def test_the_published_sizes_show_every_call_21_frames_at_most():
    """Windows of 5 blocks of 3 frames behind an anchor and 3 frames, and clean passes behind 18."""
    rolling = Rolling(joint=SinkWindow(sink=3, window=3), clean=Window(frames=18))
    plan = plan_of(SinkWindow(sink=3, window=18), rolling, frames_per_block=3, sigmas=few_step_sigmas(5, 5.0))
    decoder = VideoDecoder(BACKBONE, pool_of(BACKBONE), replace(plan, from_nothing=True), 5)
    keys = torch.zeros(1, 3, BACKBONE.controls)
    for block in range(10):
        assert len(decoder.view(15, joint=True).seen) == min(6, 3 * block)
        assert len(decoder.view(3).seen) == min(18, 3 * block)
        decoder.commit(decoder.propose(keys))
    assert [one.position for one in decoder.view(15, joint=True).seen] == list(range(-6, 0))
    assert [one.frame for one in decoder.view(15, joint=True).seen] == [0, 1, 2, 27, 28, 29]
    assert [one.frame for one in decoder.view(3).seen] == list(range(12, 30))
    assert decoder.plan.ahead == 12


def test_what_the_calls_see_by_has_a_text():
    assert rolling_text(PUBLISHED) == "joint=sink:sink=2,window=2 clean=window:frames=5"
    assert rolling_text(Rolling()) == "joint=policy clean=policy"


def test_how_old_frames_are_held_is_not_for_a_window_to_say():
    with pytest.raises(ConfigError, match="the policy of the plan alone says how old frames are held"):
        Rolling(joint=Retrieval(tau=0.5))


def test_with_one_level_it_is_a_plan_that_does_not_roll():
    plans = (plan_of(Window(frames=3), rolling, sigmas=(1.0,)) for rolling in (Rolling(), None))
    one, other = (live(decoder_with(plan), range(3)) for plan in plans)
    assert torch.equal(one, other)


def canvas_of(blocks: int, sigmas: tuple[float, ...] = (1.0, 0.5, 0.2)) -> WindowCanvas:
    def fresh(behind: int, step: int) -> Tensor:
        return torch.full((1, 2, 1, 1, 1), 10.0 * behind + step)

    ahead = Ahead(torch.arange(2.0 * blocks).view(1, -1, 1, 1, 1)) if blocks else None
    return open_window(ahead, 2, sigmas, fresh)


def test_a_window_opens_with_what_is_ahead_and_a_new_block_behind():
    canvas = canvas_of(2)
    assert canvas.levels == [0.2, 0.2, 0.5, 0.5, 1.0, 1.0]
    assert canvas.values.flatten().tolist() == [0, 1, 2, 3, 20, 20]
    assert canvas_of(0).levels == [1.0, 1.0]


def test_a_window_moves_each_block_by_its_own_level_and_closes_with_its_first():
    canvas = canvas_of(2)
    moved = canvas.moved(few_step, torch.zeros(1, 6, 1, 1, 1))
    assert not moved.is_open
    assert moved.kept.flatten().tolist() == [0, 0]
    assert moved.ahead is not None
    assert moved.ahead.latents.flatten().tolist() == pytest.approx([0.2 * 12] * 2 + [0.5 * 21] * 2)
    growing = canvas_of(0).moved(few_step, torch.zeros(1, 2, 1, 1, 1))
    assert growing.is_open
    assert growing.levels == [0.5, 0.5, 1.0, 1.0]
    assert growing.values.flatten().tolist() == pytest.approx([0.5, 0.5, 10, 10])


def test_a_block_alone_has_nothing_ahead_and_nothing_follows_it():
    canvas = WindowCanvas((LatentCanvas(torch.zeros(1, 2, 1, 1, 1), (1.0, 0.5), lambda step: torch.ones(1)),))
    moved = canvas.moved(few_step, torch.zeros(1, 2, 1, 1, 1))
    assert moved.ahead is None
    assert moved.levels == [0.5, 0.5]
    with pytest.raises(ShapeError):
        moved.moved(few_step, torch.zeros(1, 1, 1, 1, 1))


class GaussianBackbone:
    """Draws the clean frames of a window as they may be, given the noisy ones and the frame before: exactly.

    Every token is a series of its own, each number the one before it times the memory and something new. The draw
    meets all frames of the call at once, each at its level.
    """

    geometry = LatentGeometry(channels=1, height=24, width=25, patch=1, frames_per_block=1)
    pages = PageShape(layers=1, tokens=600, heads=1, head_dim=2)
    rotary = Rotary(time=2, rows=0, columns=0)
    controls = 1

    def __init__(self, memory: float) -> None:
        self._memory = memory

    def __call__(
        self,
        noisy: Tensor,
        previous: Tensor,
        sigma: Tensor,
        controls: Tensor,
        attend: Attend,
        dice: Tensor | None = None,
        /,
    ) -> Tensor:
        tokens = noisy.flatten(1)[..., None, None].expand(-1, -1, 1, 2).contiguous()
        attend(0, tokens, tokens, tokens)
        if dice is None:
            return noisy
        frames, series = noisy.shape[1], noisy.flatten(2)[0].double()
        steps = torch.eye(frames).double() - self._memory * torch.eye(frames).double().roll(1, 0).tril()
        prior = steps.T @ steps / (1 - self._memory**2)
        levels = sigma[0].double()
        precision = prior + torch.diag(((1 - levels) / levels) ** 2)
        mean = self._memory ** torch.arange(1.0, frames + 1).double()[:, None] * previous[0, 0].flatten().double()
        told = prior @ mean + ((1 - levels) / levels**2)[:, None] * series
        chance = 2**0.5 * torch.erfinv(2 * dice[0].flatten(1).double().clamp(1e-7, 1 - 1e-7) - 1)
        root = torch.linalg.cholesky(precision)
        drawn = torch.cholesky_solve(told, root) + torch.linalg.solve_triangular(root.T, chance, upper=True)
        return drawn.view_as(noisy).float()


@pytest.mark.parametrize("frames", [1, 2])
def test_a_window_that_draws_from_the_exact_posterior_has_the_exact_law(frames):
    """Of the frames that are kept: each has variance 1, and correlates by its distance from another."""
    memory, backbone, blocks = 0.8, GaussianBackbone(0.8), 60
    plan = plan_of(Window(frames=1), Rolling(), sigmas=few_step_sigmas(3, 2.0), draw=True, frames_per_block=frames)
    decoder = VideoDecoder(backbone, pool_of(backbone), plan, 12)
    decoder.prefill(block_noise(1, 0, 0, (1, 1, *backbone.geometry.frame_shape)), torch.zeros(1, 1, 1))
    made = []
    for _ in range(blocks // frames):
        made.append(decoder.propose(torch.zeros(1, frames, 1)))
        decoder.commit(made[-1])
    video = torch.cat([block.latents for block in made], dim=1)[0].flatten(1).double()
    for lag in range(4):
        pairs = video[lag:] * video[: len(video) - lag]
        # A series of its own per token: its mean over time is one sample of it, whatever correlates within.
        found, spread = pairs.mean(), pairs.mean(0).std() / pairs.shape[1] ** 0.5
        assert abs(float(found) - memory**lag) < 5 * float(spread)
        assert float(spread) < 0.02
