"""Blocks made together are those made alone, and what goes wrong in one session stays there."""

from __future__ import annotations

import sys
from concurrent.futures import Future
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch

from worldsim.cache.policy import Full, Seen, Window
from worldsim.decoding.video import VideoDecoder
from worldsim.errors import BrokenBlock, ConfigError, PoolFull, SessionPaused, UnknownName
from worldsim.runtime.batching import Stopped, attempt, step_together
from worldsim.runtime.history import Moment
from worldsim.testing.fakes import tiny_world, told_world

WALK = [{"KeyD"}, {"KeyD", "Space"}, set(), {"ArrowLeft"}]


def opened(world, count=3):
    sessions = [world.open(seed=seed) for seed in range(count)]
    for session, blocks in zip(sessions, range(count), strict=True):
        for _ in range(blocks):
            session.step({"KeyA"})
    return sessions


def pixels(session, blocks=4):
    return [session.step(WALK[block]).frames for block in range(blocks)]


def test_blocks_made_together_are_those_made_alone():
    """The pixels are rounded to 256 levels, so that rounding in shared products shows in few of them, by one."""
    together, alone = (opened(tiny_world(frames_per_block=2)) for _ in range(2))
    for keys in WALK:
        done = step_together(together, [keys] * 3)
        for chunk, session in zip(done, alone, strict=True):
            other = session.step(keys)
            assert (chunk.result().block, chunk.result().keys) == (other.block, other.keys)
            assert abs(chunk.result().frames.astype(int) - other.frames.astype(int)).max() <= 1


def test_far_pages_that_the_next_block_sees_are_asked_for_before_a_block_is_decoded_and_written(monkeypatch):
    order = []
    for name in ("foresee", "absorb"):
        own = getattr(VideoDecoder, name)
        monkeypatch.setattr(VideoDecoder, name, lambda *args, own=own, name=name: [order.append(name), own(*args)][1])
    with tiny_world().open(seed=1) as session:
        codec = session._home.codec
        session._home = replace(
            session._home,
            codec=SimpleNamespace(decode=lambda *args: [order.append("decode"), codec.decode(*args)][1]),
        )
        order.clear()
        session.step({"KeyA"})
    assert order == ["foresee", "decode", "absorb"]


def break_codec(session):
    class Broken:
        def __getattr__(self, name):
            raise RuntimeError("planted in the codec")

    session._home = replace(session._home, codec=Broken())


def break_backbone(session):
    """Attention over this session's past fails, and so does every shared call that it is part of."""

    class Broken:
        frames = session._moment.decoder.plan.frames_per_block

        def attend(self, *_):
            raise RuntimeError("planted in the view")

    session._moment.decoder._view = Broken()


def break_numbers(session):
    held = session._moment.decoder._held
    newest = max(held)
    held[newest] = held[newest]._replace(latents=held[newest].latents * float("nan"))


def break_steering(session):
    class Broken:
        check = session._home.controls.check

        def next(self, *_):
            raise RuntimeError("planted in the controls")

    session._home = replace(session._home, controls=Broken())


class Unforkable(Moment):
    def fork(self):
        raise RuntimeError("planted in the fork")


def break_fork(session):
    moment = session._moment
    session._moment = Unforkable(moment.decoder, moment.codec_state, moment.trail, moment.shown)


def break_log(session):
    class Broken:
        def append(self, *_):
            raise OSError(28, "No space left on device")

        def close(self):
            pass

    session._journal = Broken()


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (break_codec, RuntimeError),
        (break_backbone, RuntimeError),
        (break_numbers, BrokenBlock),
        (break_steering, RuntimeError),
        (break_fork, RuntimeError),
        (break_log, OSError),
        (lambda session: session.pause(), SessionPaused),
    ],
    ids=["codec", "backbone", "numbers", "steering", "fork", "log", "paused"],
)
@pytest.mark.parametrize("which", [0, 1, 2])
def test_what_goes_wrong_in_one_session_stays_there(spoil, error, which):
    world = tiny_world()
    sessions, others = opened(world), opened(tiny_world())
    spoil(sessions[which])
    done = step_together(sessions, [{"KeyD"}] * 3)
    for number, (outcome, session) in enumerate(zip(done, sessions, strict=True)):
        if number == which:
            assert isinstance(outcome.exception(), error)
            assert session.block == len(session.log.steps) == number
        else:
            chunk, other = outcome.result(), others[number].step({"KeyD"})
            assert abs(chunk.frames.astype(int) - other.frames.astype(int)).max() <= 1
            assert session.block == number + 1
    world.pool.check_integrity(sessions)


class Moody(Window):
    """A policy that answers as a window does, until it is told what to answer."""

    moods: ClassVar[dict[str, Any]] = {}

    def see(self, held, block, alike=None):
        return self.moods.get("see", Window(frames=self.frames).see(held, block))

    def keep(self, held, next_frame):
        return self.moods.get("keep", Window.keep(self, held, next_frame))


@pytest.mark.parametrize(
    ("part", "answer"),
    [
        ("see", None),
        ("see", []),
        ("see", [Seen(-995, -1)]),
        ("see", [Seen(6, 0)]),
        ("see", [Seen(6, float("nan"))]),
        ("keep", None),
        ("keep", []),
        ("keep", [5, 5, 6, 7]),
        ("keep", [99]),
    ],
)
@pytest.mark.parametrize("when", ["block", "commit"])
def test_a_policy_that_answers_what_none_may_makes_no_block_and_once_mended_goes_on(part, answer, when, monkeypatch):
    """Whether the answer goes wrong when a block is begun, or when it is made and the next one is asked for."""
    monkeypatch.setattr(Moody, "moods", {})
    world = tiny_world(policy=Moody(frames=3))
    with world.open() as session, tiny_world(policy=Window(frames=3)).open() as other:
        session.step({"KeyD"}), other.step({"KeyD"})
        if when == "block":
            session._moment.decoder._seen = None
        Moody.moods[part] = answer
        for _ in range(2):
            with pytest.raises(ConfigError, match=r"the policy Moody\(frames=3, anew=False\) .*; let its `"):
                session.step({"KeyD"})
        assert session.block == len(session.log.steps) == 1
        Moody.moods.clear()
        assert all((session.step(keys).frames == other.step(keys).frames).all() for keys in WALK)
        assert session.log.steps == other.log.steps
        world.pool.check_integrity([session])


@pytest.mark.parametrize(
    ("has_keys", "fits"), [(True, "step again with other keys"), (False, "tell it another prompt")]
)
def test_a_block_of_no_numbers_says_what_can_be_done_in_that_world(has_keys, fits):
    with told_world().open() as session:
        session.step()
        break_numbers(session)
        if not has_keys:
            controls = session._home.controls
            keyless = SimpleNamespace(check=controls.check, next=controls.next, keys=())
            session._home = replace(session._home, controls=keyless)
        told = rf"its last block: {fits}, or rewind further; where all blocks come out so, load other weights"
        with pytest.raises(BrokenBlock, match=told):
            session.step()


def test_a_block_that_fails_once_it_is_written_leaves_the_session_where_it_was(monkeypatch):
    world, calls = tiny_world(), []
    sessions, others = opened(world), opened(tiny_world())

    def moment(*given):
        calls.append(given)
        if len(calls) == 2:
            raise RuntimeError("planted behind the write")
        return Moment(*given)

    with monkeypatch.context() as patch:
        patch.setattr("worldsim.runtime.batching.Moment", moment)
        done = step_together(sessions, [{"KeyD"}] * 3)
    assert [type(outcome.exception()) for outcome in done] == [type(None), RuntimeError, type(None)]
    assert [session.block for session in sessions] == [1, 1, 3]
    world.pool.check_integrity(sessions)
    sessions[1].step({"KeyD"})
    for session, other in zip(sessions, others, strict=True):
        other.step({"KeyD"})
        assert abs(session.step({"Space"}).frames.astype(int) - other.step({"Space"}).frames).max() <= 1


def test_what_was_written_when_a_shared_write_fails_is_not_written_twice(monkeypatch):
    world, calls = tiny_world(), []
    sessions, others = opened(world), opened(tiny_world())
    absorb = VideoDecoder.absorb

    def absorbing(*given):
        calls.append(given)
        if len(calls) == 2:
            raise RuntimeError("planted in the middle of the write")
        absorb(*given)

    with monkeypatch.context() as patch:
        patch.setattr(VideoDecoder, "absorb", absorbing)
        done = step_together(sessions, [{"KeyD"}] * 3)
    assert [outcome.result().block for outcome in done] == [0, 1, 2]
    world.pool.check_integrity(sessions)
    for session, other in zip(sessions, others, strict=True):
        other.step({"KeyD"})
        assert session._moment.decoder.context.next_frame == other._moment.decoder.context.next_frame
        assert abs(session.step({"Space"}).frames.astype(int) - other.step({"Space"}).frames).max() <= 1


def test_an_unknown_key_is_refused_to_whoever_pressed_it():
    sessions = opened(tiny_world(), 2)
    wrong, right = step_together(sessions, [{"KeyQ"}, {"KeyD"}])
    assert isinstance(wrong.exception(), UnknownName)
    assert right.result().block == 1


def test_without_memory_for_all_those_that_fit_go_on():
    world = tiny_world(policy=Full(), pages=20)
    sessions = opened(world)
    done = [type(outcome.exception()) for outcome in step_together(sessions, [set()] * 3)]
    assert done == [type(None), type(None), PoolFull]
    assert [session.block for session in sessions] == [1, 2, 2]
    world.pool.check_integrity(sessions)


@pytest.mark.parametrize("count", [1, 3])
def test_a_past_that_is_computed_anew_finds_room_where_memories_fill_the_pool(count):
    policy = Window(frames=3, anew=True)
    small, large = (tiny_world(policy=policy, pages=pages) for pages in (6 * count + 3, 400))
    sessions, others = ([world.open(seed=seed) for seed in range(count)] for world in (small, large))
    for block in range(24):
        keys = [WALK[block % 4]] * count
        made, wanted = ([one.result() for one in step_together(each, keys)] for each in (sessions, others))
        assert all((one.frames == other.frames).all() for one, other in zip(made, wanted, strict=True))
    assert max(session.remembered for session in sessions) < min(other.remembered for other in others)
    small.pool.check_integrity(sessions)


def test_stopping_between_two_calls_makes_nothing():
    world = tiny_world()
    sessions = opened(world)

    def between():
        raise Stopped

    with pytest.raises(Stopped):
        step_together(sessions, [set()] * 3, between=between)
    assert [session.block for session in sessions] == [0, 1, 2]
    world.pool.check_integrity(sessions)


def test_an_attempt_gives_its_outcome_the_answer_or_the_error():
    right, wrong, ended = Future(), Future(), Future()
    attempt(lambda: 3, right)
    attempt(lambda: 1 / 0, wrong)
    attempt(sys.exit, ended)
    assert right.result() == 3
    assert isinstance(wrong.exception(), ZeroDivisionError)
    assert isinstance(ended.exception(), SystemExit)


def test_nothing_to_do_is_done():
    assert step_together([], []) == []
    assert torch.is_grad_enabled()
