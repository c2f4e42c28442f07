"""What outlives a change of the prompt: named, and as the decoder then goes on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from worldsim.cache.policy import Full, Seen, SinkWindow, Window, nothing_alike
from worldsim.cache.pool import PagePool
from worldsim.cache.retrieval import Retrieval
from worldsim.decoding.plan import VideoPlan
from worldsim.decoding.prompting import KEEP, PromptChange, newest_run, parse_prompt_change, prompt_change_text
from worldsim.decoding.video import VideoDecoder
from worldsim.errors import ConfigError, PoolFull, UnknownName
from worldsim.samplers import few_step
from worldsim.testing.fakes import ToldBackbone, embed_words, tiny_backbone

BACKBONE = ToldBackbone(inner=tiny_backbone(0))
PLAN = VideoPlan(frames_per_block=2, sigmas=(1.0, 0.6), sampler=few_step, policy=Full(), from_nothing=True)
HELD = torch.zeros(1, 2, BACKBONE.controls)


@dataclass(frozen=True)
class Distant(Full):
    """Sees everything, further back than it is."""

    by: int = 0

    def see(self, held, block, alike=nothing_alike):
        return [Seen(one.frame, one.position - self.by) for one in super().see(held, block, alike)]


def heard(text: str) -> Tensor:
    return BACKBONE.hear(embed_words(text))


def decoder(plan: VideoPlan = PLAN, *, pages: int = 64) -> VideoDecoder:
    pool = PagePool(BACKBONE.pages, pages=pages, dtype=torch.float32, device=torch.device("cpu"))
    made = VideoDecoder(BACKBONE, pool, plan, seed=4)
    made.tell(heard("a wood"))
    return made


def live(video: VideoDecoder, blocks: int) -> list[Tensor]:
    made = []
    for _ in range(blocks):
        block = video.propose(HELD)
        video.commit(block)
        made.append(block.latents)
    return made


@pytest.mark.parametrize(
    "text", ["keep", "flush:sink=1,recent=2", "flush:sink=0,recent=5", "cut:gap=9,sink=2,recent=4", "recache:frames=7"]
)
def test_a_change_goes_by_its_text(text):
    assert prompt_change_text(parse_prompt_change(text)) == text


def test_what_is_left_out_of_a_text_is_as_usual():
    assert parse_prompt_change("flush") == PromptChange(sink=1, recent=2)
    assert parse_prompt_change("cut") == PromptChange(sink=1, recent=2, gap=42)
    assert parse_prompt_change("recache") == PromptChange(anew=12)
    assert parse_prompt_change("keep") == KEEP


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("forget", UnknownName),
        ("keep:frames=1", UnknownName),
        ("flush:recent=0", ConfigError),
        ("cut:gap=-1", ConfigError),
        ("recache:frames=0", ConfigError),
        ("flush:sink=x", ConfigError),
    ],
)
def test_a_text_that_names_no_change_is_refused(text, error):
    with pytest.raises(error):
        parse_prompt_change(text)


def test_a_flush_keeps_the_first_and_the_newest():
    change = PromptChange(sink=2, recent=3)
    assert list(change.keep(range(4, 12))) == [4, 5, 9, 10, 11]
    assert list(change.keep([4, 5])) == [4, 5]
    assert list(KEEP.keep(range(5))) == [0, 1, 2, 3, 4]


def test_so_many_frames_are_held_as_are_computed_anew():
    change = PromptChange(anew=5)
    assert change.hold([0, 1, 2, 3], [0, 3]) == [0, 1, 2, 3]
    assert change.hold(range(9), [0, 7, 8]) == [0, 5, 6, 7, 8]
    assert change.hold(range(9), [3, 4, 5, 6, 7, 8]) == [3, 4, 5, 6, 7, 8]
    assert KEEP.hold(range(9), [0, 8]) == [0, 8]


def test_frames_that_are_held_to_be_computed_anew_are_seen_by_no_block_before_that():
    policy = SinkWindow(sink=1, window=2, near=False)
    video, plain = (
        decoder(replace(PLAN, policy=policy, on_prompt=PromptChange(anew=6))),
        decoder(replace(PLAN, policy=policy)),
    )
    assert video.plan.limit == 6
    assert plain.plan.limit == 3
    assert decoder(replace(PLAN, on_prompt=PromptChange(anew=6))).plan.limit is None
    assert all(torch.equal(one, other) for one, other in zip(live(video, 5), live(plain, 5), strict=True))
    assert video.context.frames == (0, 5, 6, 7, 8, 9)
    assert [one.frame for one in video.view(2).seen] == [0, 8, 9]
    video.tell(heard("a lake"))
    assert video.context.frames == (0, 5, 6, 7, 8, 9)
    assert [one.frame for one in video.view(2).seen] == [0, 8, 9]


def test_the_newest_run_ends_at_a_gap():
    assert newest_run([0, 1, 4, 5, 6], 7) == [4, 5, 6]
    assert newest_run([0, 1, 4], 7) == []


def test_a_video_begins_from_nothing_only_if_that_is_the_plan():
    assert live(decoder(), 1)[0].shape == (1, 2, *BACKBONE.geometry.frame_shape)
    with pytest.raises(ConfigError, match="prefill"):
        decoder(replace(PLAN, from_nothing=False)).propose(HELD)


def test_what_is_told_shows_in_the_next_block_and_in_none_before():
    one, other = decoder(), decoder()
    assert torch.equal(live(one, 2)[1], live(other, 2)[1])
    other.tell(heard("a lake by night"))
    assert float((live(one, 1)[0] - live(other, 1)[0]).abs().max()) > 1e-2


def test_a_flush_leaves_the_frames_that_it_names():
    video = decoder(replace(PLAN, on_prompt=PromptChange(sink=1, recent=3)))
    live(video, 4)
    video.tell(heard("a lake"))
    assert video.context.frames == (0, 5, 6, 7)
    assert video.state().latents.shape[1] == 4
    live(video, 1)
    assert video.context.frames == (0, 5, 6, 7, 8, 9)


def test_a_further_step_of_a_change_forgets_no_more_and_moves_nothing_away():
    for gap in (0, 7):
        video = decoder(replace(PLAN, on_prompt=PromptChange(sink=1, recent=3, gap=gap)))
        live(video, 4)
        video.tell(heard("a lake"))
        assert [one.position + gap for one in video.view(2).seen] == [-8, -3, -2, -1]
        live(video, 1)
        video.tell(heard("a lake by night"), again=True)
        assert [(one.frame, one.position) for one in video.view(2).seen] == [
            (frame, frame - 10) for frame in (0, 5, 6, 7, 8, 9)
        ]
        video.tell(heard("a wood"))
        assert video.context.frames == (0, 7, 8, 9)
    assert PromptChange(anew=3).further == PromptChange(anew=3)


@pytest.mark.parametrize("policy", [Full(), Window(frames=5), SinkWindow(sink=2, window=4)])
@pytest.mark.parametrize("anew", [1, 3, 4])
def test_frames_computed_anew_are_what_one_pass_over_them_makes_under_the_new_prompt(policy, anew):
    """An independent way there: a second decoder that was given the older frames under the old words."""
    video = decoder(replace(PLAN, policy=policy, on_prompt=PromptChange(anew=anew)))
    latents = torch.cat(live(video, 4), dim=1)
    old = video.state()
    video.tell(heard("a lake"))
    state = video.state()
    assert state.frames == old.frames
    assert torch.equal(state.latents, old.latents)

    one_pass = decoder(replace(PLAN, policy=policy, frames_per_block=anew))
    held = [at for at, frame in enumerate(old.frames) if frame < 8 - anew]
    one_pass.resume(
        replace(
            old,
            frames=old.frames[: len(held)],
            next_frame=old.frames[len(held) - 1] + 1,
            latents=old.latents[:, held],
            controls=old.controls[:, held],
            keys=old.keys[:, held],
            values=old.values[:, held],
            gists=old.gists[held],
        )
    )
    one_pass.context.skip(8 - anew - one_pass.context.next_frame)
    one_pass.heard = heard("a lake")
    one_pass.prefill(latents[:, 8 - anew :], torch.zeros(1, anew, BACKBONE.controls))
    wanted = one_pass.state()
    assert wanted.frames == state.frames
    assert torch.equal(wanted.keys, state.keys)
    assert torch.equal(wanted.values, state.values)
    assert float((state.keys - old.keys).abs().max()) > 1e-3


def test_a_fork_does_not_hear_what_the_other_is_told():
    video = decoder(replace(PLAN, on_prompt=PromptChange(sink=1, recent=1)))
    live(video, 3)
    twin = video.fork()
    video.tell(heard("a lake"))
    assert (video.context.frames, twin.context.frames) == ((0, 5), (0, 1, 2, 3, 4, 5))
    alone = decoder()
    live(alone, 3)
    assert torch.equal(live(twin, 1)[0], live(alone, 1)[0])


def test_where_there_is_no_room_to_compute_anew_nothing_changes():
    video = decoder(replace(PLAN, on_prompt=PromptChange(anew=2)), pages=8)
    live(video, 3)
    twin, taken = video.fork(), video.pool.take(1)
    before, told = video.state(), video.heard
    with pytest.raises(PoolFull):
        video.tell(heard("a lake"))
    assert video.heard is told
    assert torch.equal(video.state().keys, before.keys)
    video.pool.release(taken)
    twin.close()
    video.tell(heard("a lake"))
    assert not torch.equal(video.state().keys, before.keys)
    video.pool.check_integrity([video.context])


@pytest.mark.parametrize("gap", [1, 42])
def test_a_cut_moves_the_past_back_for_one_block_and_that_block_alone(gap):
    change = PromptChange(sink=1, recent=3, gap=gap)
    video = decoder(replace(PLAN, on_prompt=change))
    live(video, 4)
    video.tell(heard("a storm"))
    assert video.context.frames == (0, 5, 6, 7)
    assert [one.position for one in video.view(2).seen] == [at - gap for at in (-8, -3, -2, -1)]
    twin = video.fork()
    assert all(torch.equal(one, other) for one, other in zip(live(video, 2), live(twin, 2), strict=True))
    assert [one.position for one in video.view(2).seen] == [-12, -7, -6, -5, -4, -3, -2, -1]


@pytest.mark.parametrize("seed", [1, 2])
def test_a_cut_shows_another_block_than_a_flush_and_is_what_that_distance_shows(seed):
    """The block after a cut is that of a past that truly lies so far back."""
    made = []
    for change, policy in (
        (PromptChange(sink=1, recent=3), Full()),
        (PromptChange(sink=1, recent=3, gap=5), Full()),
        (PromptChange(sink=1, recent=3), Distant(by=5)),
    ):
        video = decoder(replace(PLAN, on_prompt=change))
        video.seed = seed
        live(video, 4)
        video.plan = replace(video.plan, policy=policy)
        video.tell(heard("a storm"))
        made += live(video, 1)
    flushed, cut, far = made
    assert torch.equal(cut, far)
    assert not torch.allclose(cut, flushed)


def test_a_past_computed_anew_goes_on_over_the_gap_that_a_flush_leaves():
    """What is seen stands as far back as it is; of what lay in the gap nothing is left."""
    flush = PromptChange(sink=1, recent=2)
    video = decoder(replace(PLAN, policy=Window(frames=24, anew=True), on_prompt=flush))
    live(video, 4)
    video.tell(heard("a lake"))
    assert video.view(2).seen == (Seen(0, -8), Seen(6, -2), Seen(7, -1))
    plain = decoder(replace(PLAN, policy=Full()))
    plain.tell(heard("a lake"))
    held = video.state().latents
    for frame, latents in zip((0, 6, 7), held.split(1, dim=1), strict=True):
        plain.context.skip(frame - plain.context.next_frame)
        plain.prefill(latents, HELD[:, :1])
    plain.blocks = 4
    error = (live(video, 1)[0] - live(plain, 1)[0]).abs().max()
    assert error < 1e-3


def test_a_change_that_the_policy_has_no_answer_to_changes_nothing(monkeypatch):
    video, other = decoder(), decoder()
    live(video, 2), live(other, 2)
    with monkeypatch.context() as patch:
        patch.setattr(Full, "see", lambda *_: [])
        with pytest.raises(ConfigError, match="the newest, is left out"):
            video.tell(heard("a lake"))
    assert torch.equal(live(video, 1)[0], live(other, 1)[0])
    assert video.context.frames == other.context.frames


def test_runs_that_were_told_the_same_are_brought_back_and_a_fork_remembers_what_they_were_told():
    policy = Retrieval(recent=2, top=1, run=2, bank=4, tau=1)
    video = decoder(replace(PLAN, policy=policy))
    for text in ("a wood", "a lake by night", "the sea and ships"):
        video.tell(heard(text))
        live(video, 2)
    for text, wanted in (("a lake by night", {4, 5, 6, 7}), ("a wood", {0, 1, 2, 3}), ("the sea and ships", {8, 9})):
        for told in (video.fork(), other := decoder(replace(PLAN, policy=policy))):
            if told is other:
                other.heard = heard("the sea and ships")
                other.resume(video.state())
            told.tell(heard(text))
            far = {one.frame for one in told.view(2).seen} - {10, 11}
            assert far
            assert far <= wanted
