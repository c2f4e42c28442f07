"""Video through the page pool against its definition, and every way in which a decoder must change nothing."""

from __future__ import annotations

import gc
import hashlib
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from worldsim.cache.policy import Alike, Full, Policy, Seen, SinkWindow, Window, nothing_alike
from worldsim.cache.pool import PagePool
from worldsim.cache.retrieval import Retrieval
from worldsim.cache.sight import Sight
from worldsim.decoding.loop import Guarantee, decode_blocks
from worldsim.decoding.noise_plan import NoisePlan, parse_noise
from worldsim.decoding.plan import VideoPlan
from worldsim.decoding.video import LatentBlock, VideoDecoder
from worldsim.errors import ConfigError, PoolFull, SessionClosed, ShapeError
from worldsim.models.small.backbone import SmallBackbone
from worldsim.noise import block_noise, frame_noise, frame_uniforms, uniforms
from worldsim.samplers import euler, few_step, heun
from worldsim.schedules import few_step_sigmas, mix, uniform_sigmas
from worldsim.testing.conformance import check_decoder
from worldsim.testing.fakes import CONTROLS, tiny_backbone
from worldsim.testing.recompute import RecomputingDecoder

BACKBONE = tiny_backbone(7)
POLICIES = [
    Full(),
    Window(frames=5),
    Window(frames=5, anew=True),
    SinkWindow(sink=2, window=3),
    Retrieval(recent=3, top=2, run=2, bank=5),
]


@dataclass(frozen=True, kw_only=True)
class Asking(Window):
    """Asks how like a frame is, held or not."""

    frame: int

    def see(self, held: Sequence[int], block: int, alike: Alike = nothing_alike) -> Sequence[Seen]:
        assert -1 <= alike(self.frame) <= 1.001
        return super().see(held, block, alike)


ALL_POLICIES = [*POLICIES, Retrieval(recent=3, top=2, run=2, tau=0.6)]
FINGERPRINT = """
import runpy, sys
module = runpy.run_path(sys.argv[1])
print(module["fingerprint"](module["walk"](seed=5)))
"""


def pool_of(pages: int) -> PagePool:
    return PagePool(BACKBONE.pages, pages=pages, dtype=torch.float32, device=torch.device("cpu"))


def plan_of(policy: Policy = POLICIES[1], frames: int = 1) -> VideoPlan:
    return VideoPlan(frames_per_block=frames, sigmas=few_step_sigmas(2, 3.0), sampler=few_step, policy=policy)


def controls_for(frames: int, block: int) -> Tensor:
    """Which keys are held at each frame of a block, [1, frames, A]."""
    return uniforms(3, block, 0, (1, frames, BACKBONE.controls)).round().float()


def latents_for(frames: int) -> Tensor:
    return block_noise(4, 0, 0, (1, frames, *BACKBONE.geometry.frame_shape)) / 2


def decoder_with(frames: int, plan: VideoPlan | None = None, *, seed: int = 5, pages: int = 32) -> VideoDecoder:
    """A decoder that was given that many frames."""
    decoder = VideoDecoder(BACKBONE, pool_of(pages), plan_of() if plan is None else plan, seed)
    decoder.prefill(latents_for(frames), controls_for(frames, 99))
    return decoder


def walk(*, seed: int, blocks: int = 6, held: Iterable[Tensor] | None = None) -> Tensor:
    """Latents of a whole walk, [1, blocks * 2, C, H, W]."""
    decoder = decoder_with(3, plan_of(frames=2), seed=seed)
    conditions = [controls_for(2, block) for block in range(blocks)] if held is None else held
    return torch.cat([block.latents for block in decode_blocks(decoder, conditions)], dim=1)


def fingerprint(latents: Tensor) -> str:
    return hashlib.sha256(latents.numpy().tobytes()).hexdigest()


def cut(latents: Tensor, controls: Tensor, lengths: list[int]) -> list[LatentBlock]:
    pieces = zip(latents.split(lengths, dim=1), controls.split(lengths, dim=1), strict=True)
    return [LatentBlock(latents=frames, controls=held) for frames, held in pieces]


@pytest.mark.parametrize(("frames", "given"), [(1, [1, 1]), (2, [1, 2]), (4, [1, 1, 4])])
@pytest.mark.parametrize("policy", [*POLICIES, SinkWindow(sink=1, window=2, near=False)])
def test_generation_through_the_cache_is_as_exact_as_recomputing_the_whole_context(policy, frames, given):
    plan = plan_of(policy, frames)
    fast = decoder_with(sum(given), plan, pages=96)
    slow = {}
    for dtype in (torch.float32, torch.float64):
        past = cut(latents_for(sum(given)).to(dtype), controls_for(sum(given), 99), given)
        slow[dtype] = RecomputingDecoder(tiny_backbone(7, dtype=dtype), plan, 5, past)
    ours, plain, truth = [], [], []
    for number in range(20):
        controls = controls_for(frames, number)
        block = fast.propose(controls)
        ours.append(block.latents)
        plain.append(slow[torch.float32].propose(controls).latents)
        truth.append(slow[torch.float64].propose(controls).latents)
        fast.commit(block)
        for dtype, decoder in slow.items():
            decoder.commit(replace(block, latents=block.latents.to(dtype)))
    error, limit = (float((torch.cat(found).double() - torch.cat(truth)).abs().max()) for found in (ours, plain))
    assert error <= 2 * limit, f"max error {error:.3g} is over twice that of recomputing plainly, {limit:.3g}"


@pytest.mark.parametrize("frames", [1, 2])
def test_a_past_computed_anew_tells_nothing_of_what_was_before_it(frames):
    """After any past the next block is that of a decoder that was given the frames seen, and nothing before them."""
    decoder = decoder_with(9, plan_of(Window(frames=5, anew=True), frames), pages=64)
    plain = decoder_with(9, plan_of(Window(frames=5), frames), pages=64)
    for number in range(4):
        controls, state = controls_for(frames, number), decoder.state()
        used = decoder.pool.used
        block = decoder.propose(controls)
        assert decoder.pool.used == used
        fresh = VideoDecoder(BACKBONE, pool_of(64), plan_of(Window(frames=5), frames), 5, blocks=number)
        fresh.prefill(state.latents, state.controls)
        assert torch.equal(fresh.propose(controls).latents, block.latents)
        assert not torch.allclose(plain.propose(controls).latents, block.latents, atol=1e-3)
        decoder.commit(block)
        plain.commit(block)
    assert decoder.calls - plain.calls == 4 * (5 if frames == 1 else 3)


def test_a_block_that_finds_no_pages_to_compute_its_past_anew_changes_nothing():
    decoder = decoder_with(5, plan_of(Window(frames=5, anew=True)), pages=10)
    wanted = decoder.propose(controls_for(1, 0))
    other = decoder.fork()
    other.commit(wanted)
    with pytest.raises(PoolFull):
        decoder.view(2)
    decoder.pool.check_integrity([decoder.context, other.context])
    other.close()
    assert torch.equal(decoder.propose(controls_for(1, 0)).latents, wanted.latents)


def test_a_sparse_past_takes_fewer_pages_and_goes_on_from_its_state():
    """Bit for bit, also where what was old had been packed; and it is smaller than the whole one."""
    used = {}
    for tau in (0.3, 1.0):
        policy = Retrieval(recent=3, top=2, run=2, tau=tau)
        decoder = decoder_with(3, plan_of(policy), pages=96)
        for number in range(15):
            decoder.commit(decoder.propose(controls_for(1, number)))
        used[tau] = decoder.pool.used
        state = decoder.state()
        other = VideoDecoder(decoder.backbone, pool_of(96), decoder.plan, decoder.seed)
        other.resume(state)
        for number in range(15, 20):
            made = [each.propose(controls_for(1, number)) for each in (decoder, other)]
            assert torch.equal(made[0].latents, made[1].latents)
            for each, block in zip((decoder, other), made, strict=True):
                each.commit(block)
        assert other.pool.used == decoder.pool.used
    assert used[0.3] < 0.75 * used[1.0]


def test_what_is_retrieved_is_what_looks_like_the_newest_frame():
    decoder = decoder_with(1, plan_of(Retrieval(recent=2, top=1, run=1)), pages=64)
    looks = latents_for(12)
    for number in [0, 1, 2, 3, 4, 5, 6, 7, 2]:
        decoder.commit(LatentBlock(latents=looks[:, number : number + 1], controls=controls_for(1, number)))
    decoder.propose(controls_for(1, 9))
    assert [one.frame for one in decoder.view(1).seen] == [3, 8, 9]  # the one given is frame 0


def test_what_the_next_block_sees_is_prefetched_when_a_block_is_committed(monkeypatch):
    asked = []
    monkeypatch.setattr(PagePool, "prefetch", lambda pool, pages: asked.append(list(pages)))
    decoder = decoder_with(3, plan_of(Retrieval(recent=2, top=1, run=1)), pages=64)
    for number in range(6):
        asked.clear()
        decoder.commit(decoder.propose(controls_for(1, number)))
        wanted = list(asked[-1])
        decoder.propose(controls_for(1, number))
        assert [decoder.context.pages_of(one.frame)[0] for one in decoder.view(1).seen] == wanted
        assert len(asked) == 1


def test_what_the_next_block_sees_is_asked_for_before_a_block_is_committed_where_pages_may_lie_elsewhere(monkeypatch):
    asked = []
    monkeypatch.setattr(PagePool, "prefetch", lambda pool, pages: asked.append(list(pages)))
    plan = plan_of(Retrieval(recent=2, top=1, run=1))
    decoder, plain = decoder_with(3, plan, pages=64), decoder_with(3, plan, pages=64)
    for number in range(6):
        block = decoder.propose(controls_for(1, number))
        asked.clear()
        decoder.foresee(block)
        assert asked == []
        decoder.pool.is_tiered = True
        decoder.foresee(block)
        (foreseen,) = asked
        before = decoder.context.next_frame
        decoder.pool.is_tiered = False
        decoder.commit(block)
        wanted = [decoder.context.pages_of(one.frame)[0] for one in decoder.view(1).seen if one.frame < before]
        assert foreseen == wanted
        assert torch.equal(block.latents, plain.propose(controls_for(1, number)).latents)
        plain.commit(block)


def test_without_a_clean_pass_a_block_is_a_call_less_and_later_ones_see_what_its_last_call_saw():
    asked = []

    def backbone(noisy: Tensor, previous: Tensor, sigma: Tensor, *rest: object) -> Tensor:
        asked.append(float(sigma[0, 0]))
        return BACKBONE(noisy, previous, sigma, *rest)

    for name in ("geometry", "controls", "rotary", "pages"):
        setattr(backbone, name, getattr(BACKBONE, name))
    decoder = decoder_with(3, replace(plan_of(Window(frames=4), 2), sigmas=(1.0, 0.25), clean_pass=False))
    decoder.backbone = backbone
    block = decoder.propose(controls_for(2, 0))
    decoder.commit(block)
    assert asked == [1.0, 0.25]
    for at, frame in enumerate(decoder.context.frames[-2:]):
        keys, values, _ = decoder.context.read(frame)
        assert torch.equal(keys, block.recording.keys[:, at])
        assert torch.equal(values, block.recording.values[:, at])
    asked.clear()
    decoder.prefill(latents_for(2), controls_for(2, 7))
    assert asked == [0.0], "what is given is seen as it is"


def test_a_block_made_without_a_clean_pass_can_be_thrown_away_and_made_again():
    plan = replace(plan_of(Window(frames=4), 2), clean_pass=False)
    decoder = decoder_with(3, plan)
    first = decoder.propose(controls_for(2, 0))
    decoder.propose(controls_for(2, 1))
    again = decoder.propose(controls_for(2, 0))
    assert torch.equal(first.latents, again.latents)
    assert torch.equal(first.recording.keys, again.recording.keys)
    twin = decoder.fork()
    for each, block in ((decoder, first), (twin, again)):
        each.commit(block)
    following = [each.propose(controls_for(2, 2)).latents for each in (decoder, twin)]
    assert torch.equal(*following)


def believing(dtype: torch.dtype = torch.float32, *, remembers: bool = False) -> SmallBackbone:
    return tiny_backbone(7, dtype=dtype, palette=6, remembers=remembers)


def drawing(frames: int = 2, *, seed: int = 5, remembers: bool = False) -> VideoDecoder:
    """A decoder that draws from beliefs, with three frames given."""
    plan = replace(plan_of(frames=frames), draw=True, recall=remembers)
    decoder = VideoDecoder(believing(remembers=remembers), pool_of(32), plan, seed)
    decoder.prefill(latents_for(3), controls_for(3, 99))
    return decoder


@pytest.mark.parametrize("remembers", [False, True])
def test_draws_through_the_cache_are_those_of_recomputing_the_whole_context(remembers):
    fast, blocks = drawing(remembers=remembers), []
    backbone, given = believing(remembers=remembers), cut(latents_for(3), controls_for(3, 99), [1, 2])
    slow = RecomputingDecoder(backbone, fast.plan, 5, given)
    for number in range(12):
        blocks.append((fast.propose(controls_for(2, number)), slow.propose(controls_for(2, number))))
        fast.commit(blocks[-1][0])
        slow.commit(blocks[-1][0])
    # A draw is one of six patches: it is the same or it is far off. What is left is rounding in the offsets.
    assert max(float((one.latents - other.latents).abs().max()) for one, other in blocks) < 1e-4


def test_draws_are_asked_for_with_dice_of_their_own_at_every_step_and_block():
    decoder, asked = drawing(), []

    def backbone(*inputs: Tensor) -> Tensor:
        asked.append(inputs)
        return BACKBONE(*inputs[:5])

    for name in ("geometry", "controls", "rotary", "pages"):
        setattr(backbone, name, getattr(BACKBONE, name))
    decoder.backbone = backbone
    decoder.commit(decoder.propose(controls_for(2, 0)))
    decoder.propose(controls_for(2, 1))
    dice = [inputs[5] for inputs in asked if len(inputs) == 6]
    wanted = [uniforms(5, block, step, (1, 2, 3, 5)).float() for block in (0, 1) for step in (0, 1)]
    assert all(torch.equal(one, other) for one, other in zip(dice, wanted, strict=True))
    assert len(asked) == 5  # the commit needs no draw


def test_equal_seeds_draw_the_same_and_a_fork_goes_on_drawing_the_same():
    one, same, other = (drawing(seed=seed) for seed in (5, 5, 6))
    made = [
        torch.cat([b.latents for b in decode_blocks(d, [controls_for(2, n) for n in range(3)])]) for d in (one, other)
    ]
    assert not torch.equal(*made)
    same.commit(same.propose(controls_for(2, 0)))
    twin = same.fork()
    assert torch.equal(twin.propose(controls_for(2, 1)).latents, made[0][1:2])
    assert torch.equal(same.propose(controls_for(2, 1)).latents, made[0][1:2])


LEFT, RIGHT = (CONTROLS.number(name) for name in ("left", "right"))


def held(action: int) -> Tensor:
    """One frame under one action, [1, 1, A]."""
    controls = torch.zeros(1, 1, BACKBONE.controls)
    controls[..., action] = 1
    return controls


def test_what_is_recalled_shows_in_the_next_block():
    one, other = (drawing(1, remembers=True) for _ in range(2))
    seen = block_noise(8, 0, 0, (1, 1, *BACKBONE.geometry.frame_shape))
    other._memory = other.backbone.remember({}, seen, seen, controls_for(1, 0))
    for decoder in (one, other):  # to the left, and what was in view leaves it
        decoder._memory = decoder.backbone.remember(decoder._memory, seen, -seen, held(LEFT))
    assert not torch.equal(*(decoder.recalled(held(RIGHT)) for decoder in (one, other)))
    assert not torch.equal(*(decoder.propose(held(RIGHT)).latents for decoder in (one, other)))


@pytest.mark.parametrize("pages", [True, False])
def test_a_memory_is_shared_by_forks_and_resumed_with_its_state(pages):
    one = drawing(remembers=True)
    for number in range(6):
        one.commit(one.propose(controls_for(2, number)))
    state = one.state() if pages else one.state().without_pages()
    other = VideoDecoder(one.backbone, pool_of(64), one.plan, one.seed)
    with pytest.raises(ConfigError, match="without a memory"):
        other.resume(replace(state, memory={}))
    other.resume(state)
    twin = one.fork()
    for number in range(6, 9):
        controls = controls_for(2, number)
        assert torch.equal(other.recalled(controls), one.recalled(controls))
        made = [decoder.propose(controls) for decoder in (one, twin, other)]
        assert torch.equal(made[0].latents, made[1].latents)
        assert torch.equal(made[0].latents, made[2].latents) or not pages
        for decoder in (one, twin, other):
            decoder.commit(made[0])


@pytest.mark.parametrize("policy", ALL_POLICIES)
def test_a_decoder_that_resumes_a_state_goes_on_bit_for_bit(policy):
    one = decoder_with(3, plan_of(policy, 2), pages=64)
    for number in range(4):
        one.commit(one.propose(controls_for(2, number)))
    other = VideoDecoder(BACKBONE, pool_of(64), one.plan, one.seed)
    other.resume(one.state())
    for number in range(4, 8):
        made = [decoder.propose(controls_for(2, number)) for decoder in (one, other)]
        assert torch.equal(made[0].latents, made[1].latents)
        for decoder, block in zip((one, other), made, strict=True):
            decoder.commit(block)
    assert (other.blocks, other.context.frames) == (one.blocks, one.context.frames)


def test_without_pages_a_state_is_computed_anew_from_the_frames_that_were_held():
    one = decoder_with(3, plan_of(Window(frames=5), 2), pages=64)
    for number in range(4):
        one.commit(one.propose(controls_for(2, number)))
    state = one.state()
    other = VideoDecoder(BACKBONE, pool_of(64), one.plan, one.seed)
    other.resume(state.without_pages())
    assert (other.blocks, other.context.frames, other.context.next_frame) == (4, one.context.frames, 11)
    again = VideoDecoder(BACKBONE, pool_of(64), one.plan, one.seed, blocks=4)
    again.prefill(state.latents, state.controls)
    assert torch.equal(other.propose(controls_for(2, 4)).latents, again.propose(controls_for(2, 4)).latents)
    assert not torch.equal(other.propose(controls_for(2, 4)).latents, one.propose(controls_for(2, 4)).latents)


@pytest.mark.parametrize("frames", [1, 2])
@pytest.mark.parametrize("policy", [*ALL_POLICIES, SinkWindow(sink=2, window=3, near=False)])
def test_without_pages_a_state_holds_the_same_frames_under_their_numbers(policy, frames):
    """Those of a sink too, between which and the latest others were forgotten, and so does what goes on from there."""
    one = decoder_with(3, plan_of(policy, frames), pages=96)
    for number in range(5):
        one.commit(one.propose(controls_for(frames, number)))
    other = VideoDecoder(BACKBONE, pool_of(96), one.plan, one.seed)
    without, bare = one.state().without_pages(), one.state(pages=False)
    for part in ("latents", "controls", "keys", "values"):
        assert torch.equal(getattr(bare, part), getattr(without, part))
    assert bare.frames == without.frames
    other.resume(bare)
    assert torch.equal(other.state().latents, one.state().latents)
    for number in range(5, 10):
        assert (other.context.frames, other.context.next_frame) == (one.context.frames, one.context.next_frame)
        for decoder in (one, other):
            decoder.commit(decoder.propose(controls_for(frames, number)))


@pytest.mark.parametrize("spoil", [{"frames": ()}, {"frames": (1, 2, 3, 4)}, {"next_frame": 12}], ids=str)
@pytest.mark.parametrize("pages", [True, False])
def test_a_state_that_no_decoder_was_in_is_refused_and_changes_nothing(spoil, pages):
    one = decoder_with(5)
    state = replace(one.state(), **spoil)
    before = one.propose(controls_for(1, 0)).latents
    with pytest.raises(ConfigError):
        one.resume(state if pages else state.without_pages())
    assert torch.equal(one.propose(controls_for(1, 0)).latents, before)


def test_a_state_for_which_there_is_no_memory_changes_nothing():
    one = decoder_with(5)
    small = decoder_with(2, pages=4)
    before = small.propose(controls_for(1, 0)).latents
    for state in (one.state(), one.state().without_pages()):
        with pytest.raises(PoolFull):
            small.resume(state)
        assert torch.equal(small.propose(controls_for(1, 0)).latents, before)
        assert small.pool.used == 2


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("policy", ALL_POLICIES)
def test_a_video_decoder_keeps_the_contract_of_decoders(policy, frames):
    decoder = decoder_with(4, plan_of(policy, frames), pages=128)
    check_decoder(decoder, (controls_for(frames, 0), controls_for(frames, 1)), values=lambda block: block.latents)


def test_equal_seeds_and_controls_give_equal_latents_and_others_give_others():
    first = fingerprint(walk(seed=5))
    assert fingerprint(walk(seed=5)) == first
    assert fingerprint(walk(seed=6)) != first
    held = [controls_for(2, block) for block in range(6)]
    held[5][0, 1, 2] = 1 - held[5][0, 1, 2]
    assert fingerprint(walk(seed=5, held=held)) != first
    assert torch.equal(walk(seed=5, held=held)[:, :-2], walk(seed=5)[:, :-2])


@pytest.mark.timeout(180)  # seconds are enough, but not while other work has the cores
def test_another_process_makes_the_same_latents():
    done = subprocess.run(
        [sys.executable, "-c", FINGERPRINT, __file__], capture_output=True, text=True, timeout=170, check=True
    )
    assert done.stdout.strip() == fingerprint(walk(seed=5))


def test_how_the_given_frames_are_cut_does_not_depend_on_what_was_given_before_them():
    plan = plan_of(frames=3)
    at_once, in_parts = decoder_with(7, plan), VideoDecoder(BACKBONE, pool_of(32), plan, 5)
    latents, controls = latents_for(7), controls_for(7, 99)
    for piece in (slice(0, 1), slice(1, 7)):
        in_parts.prefill(latents[:, piece], controls[:, piece])
    block, same = (decoder.propose(controls_for(3, 0)) for decoder in (at_once, in_parts))
    assert torch.equal(block.latents, same.latents)


def test_latents_that_were_given_may_change_afterwards():
    plan, latents = plan_of(), latents_for(2)
    decoder = VideoDecoder(BACKBONE, pool_of(8), plan, 5)
    decoder.prefill(latents, controls_for(2, 99))
    latents.zero_()
    block, same = (each.propose(controls_for(1, 0)) for each in (decoder, decoder_with(2)))
    assert torch.equal(block.latents, same.latents)


@pytest.mark.parametrize(("sampler", "calls"), [(few_step, 4), (euler, 4), (heun, 6)])
def test_a_block_takes_the_calls_of_its_sampler_and_a_clean_pass(sampler, calls):
    plan = VideoPlan(frames_per_block=2, sigmas=uniform_sigmas(3), sampler=sampler, policy=Full())
    decoder = decoder_with(2, plan)
    assert decoder.calls == 1, "one clean pass of the two frames that were given"
    decoder.commit(decoder.propose(controls_for(2, 0)))
    assert (decoder.calls - 1, decoder.blocks) == (calls, 1)
    assert decoder.guarantee is Guarantee.APPROXIMATE


@pytest.mark.parametrize(("policy", "held"), [(Full(), 17), (Window(frames=5), 5), (SinkWindow(sink=2, window=3), 5)])
def test_only_what_the_policy_may_see_again_is_held_and_nothing_after_closing(policy, held):
    decoder = decoder_with(3, plan_of(policy, 2))
    for number in range(7):
        decoder.commit(decoder.propose(controls_for(2, number)))
    pool = decoder.pool
    pool.check_integrity([decoder.context])
    assert (pool.used, decoder.context.next_frame) == (held, 17)
    twin = decoder.fork()
    pool.check_integrity([decoder.context, twin.context])
    assert pool.used == held, "a fork copies no page"
    decoder.close()
    decoder.close()
    assert pool.used == held
    twin.close()
    assert pool.used == 0
    with pytest.raises(SessionClosed, match="closed"):
        twin.propose(controls_for(2, 0))


def test_a_decoder_that_nobody_holds_gives_its_pages_back():
    decoder = decoder_with(4)
    pool, twin = decoder.pool, decoder.fork()
    twin.commit(twin.propose(controls_for(1, 0)))
    assert pool.used == 5
    del twin
    gc.collect()
    assert pool.used == 4
    pool.check_integrity([decoder.context])


def test_a_block_that_finds_no_page_changes_nothing_and_is_made_the_same_once_there_is_one():
    decoder = decoder_with(4, plan_of(Full(), 2), pages=7)
    other = decoder.fork()
    other.commit(other.propose(controls_for(2, 1)))
    block = decoder.propose(controls_for(2, 0))
    with pytest.raises(PoolFull, match="2 more pages are wanted and 1 of 7 are free"):
        decoder.commit(block)
    assert (decoder.blocks, decoder.context.next_frame) == (0, 4)
    decoder.pool.check_integrity([decoder.context, other.context])
    other.close()
    again = decoder.propose(controls_for(2, 0))
    assert torch.equal(again.latents, block.latents)
    decoder.commit(again)
    free = decoder_with(4, plan_of(Full(), 2))
    free.commit(free.propose(controls_for(2, 0)))
    after, same = (each.propose(controls_for(2, 1)) for each in (free, decoder))
    assert torch.equal(after.latents, same.latents)


@pytest.mark.parametrize(
    ("latents", "controls", "told"),
    [
        (latents_for(2)[0], controls_for(2, 0), r"latents \[1, F, 12, 3, 5\], got \[2, 12, 3, 5\]"),
        (latents_for(2)[:, :0], controls_for(2, 0)[:, :0], r"got \[1, 0, 12, 3, 5\]"),
        (latents_for(2).expand(2, -1, -1, -1, -1), controls_for(2, 0), r"got \[2, 2, 12, 3, 5\]"),
        (latents_for(2)[..., :4], controls_for(2, 0), r"got \[1, 2, 12, 3, 4\]"),
        (latents_for(2), controls_for(3, 0), r"controls \[1, 2, 6\], got \[1, 3, 6\]"),
        (latents_for(2), controls_for(2, 0)[..., :2], r"controls \[1, 2, 6\], got \[1, 2, 2\]"),
    ],
)
def test_a_past_of_another_shape_is_refused_before_any_of_it_is_committed(latents, controls, told):
    decoder = VideoDecoder(BACKBONE, pool_of(8), plan_of(), 5)
    with pytest.raises(ShapeError, match=told):
        decoder.prefill(latents, controls)
    assert decoder.pool.used == 0


def test_a_decoder_without_a_past_or_with_controls_of_another_length_proposes_nothing():
    with pytest.raises(ConfigError, match="prefill at least one"):
        VideoDecoder(BACKBONE, pool_of(8), plan_of(), 5).propose(controls_for(1, 0))
    with pytest.raises(ShapeError, match=r"controls \[1, 1, 6\], got \[1, 2, 6\]"):
        decoder_with(2).propose(controls_for(2, 0))


@pytest.mark.parametrize("frame", [-1, 12_345])
def test_a_policy_that_asks_about_a_frame_that_is_not_held_is_refused_and_nothing_is_committed(frame):
    with pytest.raises(ConfigError, match=r"ask about no frames, since none is held$"):
        decoder_with(2, plan_of(Asking(frames=5, frame=frame)))
    decoder = decoder_with(2)
    block = decoder.propose(controls_for(1, 0))
    decoder.plan = plan_of(Asking(frames=5, frame=frame))
    with pytest.raises(
        ConfigError, match=rf"policy Asking.* asks how like frame {frame} is, .* the frames held, \[0, 1, 2\]$"
    ):
        decoder.commit(block)
    assert (decoder.context.frames, decoder.blocks) == ((0, 1), 0)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_outside_its_range_is_refused_at_once(seed):
    with pytest.raises(ConfigError, match=f"from 0 to .*got {seed}"):
        VideoDecoder(BACKBONE, pool_of(8), plan_of(), seed)


def noisy_with(noise: str, *, frames: int = 2, draw: bool = False) -> VideoDecoder:
    """A decoder with three frames given and a plan of noise."""
    backbone = believing() if draw else BACKBONE
    plan = replace(plan_of(frames=frames), draw=draw, noise=parse_noise(noise))
    decoder = VideoDecoder(backbone, pool_of(64), plan, 5)
    decoder.prefill(latents_for(3), controls_for(3, 99))
    return decoder


def test_a_block_begins_from_the_frame_before_it_at_its_level_and_goes_on_in_as_many_steps():
    decoder = noisy_with("linear:low=40,high=100,period=4")
    for block, level in enumerate((0.4, 0.6, 0.8, 1.0, 0.4)):
        (canvas,), noise = decoder.canvas().blocks, block_noise(5, block, 0, (1, 2, *BACKBONE.geometry.frame_shape))
        before, _ = decoder.newest
        assert torch.allclose(canvas.values, noise if level == 1 else mix(before, noise, level))
        assert canvas.sigmas == pytest.approx([level * sigma for sigma in decoder.plan.sigmas])
        assert torch.equal(canvas.fresh(1), block_noise(5, block, 1, noise.shape))
        decoder.commit(decoder.propose(controls_for(2, block)))


def test_the_backbone_is_asked_at_the_levels_of_the_block():
    decoder, asked = noisy_with("linear:low=40,period=4"), []

    def spy(noisy: Tensor, previous: Tensor, sigma: Tensor, *rest) -> Tensor:
        asked.append(sigma)
        return BACKBONE(noisy, previous, sigma, *rest)

    for name in ("geometry", "controls", "rotary", "pages"):
        setattr(spy, name, getattr(BACKBONE, name))
    decoder.backbone = spy
    decoder.commit(decoder.propose(controls_for(2, 0)))
    wanted = [*(0.4 * sigma for sigma in decoder.plan.sigmas), 0.0]
    assert all(torch.equal(sigma, torch.full((1, 2), level)) for sigma, level in zip(asked, wanted, strict=True))


def test_a_plan_that_rises_to_the_full_level_changes_nothing_where_it_is_full():
    plain, rising = noisy_with("plain"), noisy_with("linear:low=40,period=2")
    plain.blocks = rising.blocks = 1
    assert torch.equal(plain.propose(controls_for(2, 0)).latents, rising.propose(controls_for(2, 0)).latents)
    plain.blocks = rising.blocks = 2
    assert not torch.equal(plain.propose(controls_for(2, 0)).latents, rising.propose(controls_for(2, 0)).latents)


@pytest.mark.parametrize("frames", [1, 2, 4])
def test_shuffled_frames_begin_with_noise_by_their_number_whatever_the_block_length(frames):
    noise, dice = [], []
    decoder = noisy_with("shuffled:window=4", frames=frames, draw=True)
    for _ in range(16 // frames):
        noise.append(decoder.canvas().values)
        dice.append(decoder.dice([0]))
        decoder.blocks += 1
    shape = BACKBONE.geometry.frame_shape
    assert torch.equal(torch.cat(noise, dim=1), NoisePlan(window=4).shared(frame_noise, 5, range(16), shape))
    assert torch.equal(torch.cat(dice, dim=1), NoisePlan(window=4).shared(frame_uniforms, 5, range(16), (3, 5)).float())


@pytest.mark.parametrize("draw", [False, True])
def test_under_a_plan_of_noise_forks_and_resumed_decoders_make_the_same(draw):
    decoder = noisy_with("cosine:low=30,period=5,window=4", draw=draw)
    for block in range(3):
        decoder.commit(decoder.propose(controls_for(2, block)))
    fork, resumed = decoder.fork(), noisy_with("cosine:low=30,period=5,window=4", draw=draw)
    resumed.resume(decoder.state())
    for block in range(3, 9):
        made = [one.propose(controls_for(2, block)) for one in (decoder, fork, resumed)]
        assert torch.equal(made[0].latents, made[1].latents)
        assert torch.equal(made[0].latents, made[2].latents)
        for one, own in zip((decoder, fork, resumed), made, strict=True):
            one.commit(own)


def test_a_decoder_tells_what_its_newest_block_saw_and_a_fork_does_too():
    decoder = decoder_with(3, replace(plan_of(Window(frames=2)), probes=4))
    assert decoder.sight.frames == (0, 1)
    for number in range(2):
        decoder.commit(decoder.propose(controls_for(1, number)))
    assert decoder.sight.frames == (2, 3)
    assert len(decoder.sight.shares) == 2
    twin = decoder.fork()
    decoder.commit(decoder.propose(controls_for(1, 2)))
    assert (twin.sight.frames, decoder.sight.frames) == ((2, 3), (3, 4))
    other = VideoDecoder(BACKBONE, pool_of(32), decoder.plan, decoder.seed)
    other.resume(decoder.state())
    assert other.sight == Sight()


def test_only_a_decoder_that_recalls_has_a_chart():
    decoder = drawing(remembers=True)
    decoder.commit(decoder.propose(controls_for(2, 0)))
    assert decoder.chart() is not None
    assert decoder_with(3).chart() is None
