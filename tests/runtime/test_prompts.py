"""Sessions of a world that is told prompts: begun from nothing, changed at a block, saved, rewound, forked, relived."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from worldsim.decoding.prompting import PromptChange
from worldsim.errors import ConfigError, LogError, PoolFull
from worldsim.runtime.batching import step_together
from worldsim.runtime.journal import read_log
from worldsim.runtime.session import Session
from worldsim.runtime.snapshot import read_snapshot
from worldsim.testing.fakes import DotSimulator, tiny_world, told_world

WORLD = told_world()
CHANGES = [PromptChange(), PromptChange(sink=1, recent=2), PromptChange(anew=3)]


def frames(session: Session, blocks: int) -> np.ndarray:
    return np.concatenate([session.step(["KeyA"]).frames for _ in range(blocks)])


def test_a_world_that_is_told_begins_from_nothing():
    with WORLD.open(seed=3, prompt="a wood") as session:
        assert not session.look().any()
        assert frames(session, 2).shape == (4, *WORLD.size, 3)
        assert session.look().any()
        assert session.prompt == "a wood"


def test_other_words_show_other_frames_and_the_same_words_the_same():
    made = []
    for prompt in ("a wood", "a wood", "a lake by night", None):
        with WORLD.open(seed=3, prompt=prompt) as session:
            made.append(frames(session, 2))
    assert np.array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2])
    assert not np.array_equal(made[0], made[3])


def test_a_prompt_is_heard_from_the_next_block_on():
    with WORLD.open(seed=3, prompt="a wood") as one, WORLD.open(seed=3, prompt="a wood") as other:
        assert np.array_equal(frames(one, 2), frames(other, 2))
        other.set_prompt("a lake by night")
        assert other.prompt == "a lake by night"
        assert not np.array_equal(frames(one, 1), frames(other, 1))


def test_a_prompt_takes_effect_over_as_many_blocks_as_were_asked_for():
    with WORLD.open(seed=3, prompt="a wood") as session:
        frames(session, 1)
        twin = session.fork()
        session.set_prompt("a lake by night", over=3)
        twin.set_prompt("a lake by night")
        slow = [session._moment.decoder.heard for _ in range(5) if session.step()]
        fast = [twin._moment.decoder.heard for _ in range(5) if twin.step()]
        twin.close()
    assert all(one is other is slow[-1] for one, other in zip(slow[2:], fast[2:], strict=True))
    assert len({id(heard) for heard in slow[:3]}) == 3


def test_a_change_over_several_blocks_forgets_once():
    with told_world(on_prompt=PromptChange(sink=1, recent=2)).open(seed=5, prompt="a wood") as session:
        frames(session, 3)
        before = session._moment.decoder.context.frames
        session.set_prompt("a lake by night", over=2)
        frames(session, 2)
        after = session._moment.decoder.context.frames
    assert set(before[-2:]) < set(after)
    assert not set(before[1:-2]) & set(after)


@pytest.mark.parametrize("change", CHANGES)
def test_a_session_that_was_told_is_relived_rewound_and_restored_bit_for_bit(change, tmp_path):
    world = told_world(on_prompt=change)
    with world.open(seed=5, prompt="a wood", log=tmp_path / "log") as session:
        frames(session, 3)
        session.set_prompt("a lake by night", over=3)
        frames(session, 2)
        session.save(tmp_path / "saved")
        mark, twin = session.mark(), session.fork()
        ahead = frames(session, 4)
        assert np.array_equal(frames(twin, 4), ahead)
        session.rewind(mark)
        assert np.array_equal(frames(session, 4), ahead)
        session.rewind(6)
        assert session.prompt == "a wood"
        session.rewind(mark)
        assert session.prompt == "a lake by night"
        assert np.array_equal(frames(session, 4), ahead)
        twin.close()
    with world.restore(read_snapshot(tmp_path / "saved")) as restored:
        assert restored.prompt == "a lake by night"
        assert np.array_equal(frames(restored, 4), ahead)
    world.replay(read_log(tmp_path / "log"))
    with world.go_on(tmp_path / "log") as again:
        assert again.prompt == "a lake by night"
        assert [step.prompt for step in again.log.steps] == [None, None, None, "a lake by night", *[None] * 5]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("blocks", [0, 3])
def test_what_no_block_has_heard_is_heard_by_a_fork_and_after_a_rewind_to_a_mark(change, blocks):
    with told_world(on_prompt=change).open(seed=5, prompt="a wood") as session:
        session.step()
        for _ in range(blocks):
            session.step(["KeyA"])
        silent, quiet = session.mark(), frames(session, 3)
        session.rewind(silent)
        session.set_prompt("a lake by night", over=2)
        mark, twin = session.mark(), session.fork()
        ahead = frames(session, 3)
        assert not np.array_equal(ahead, quiet)
        assert (twin.prompt, twin.coming) == ("a lake by night", ("a lake by night", 2))
        assert np.array_equal(frames(twin, 3), ahead)
        for _ in range(2):
            session.set_prompt("a hill")
            session.rewind(mark)
            assert (session.prompt, session.coming) == ("a lake by night", ("a lake by night", 2))
            assert np.array_equal(frames(session, 3), ahead)
        twin.rewind(silent)
        twin.set_prompt("a hill")
        twin.rewind(silent)
        assert (twin.prompt, twin.coming) == ("a wood", None)
        assert np.array_equal(frames(twin, 3), quiet)
        twin.close()


def test_a_fork_that_is_told_something_else_leaves_the_other_what_it_was_told():
    with WORLD.open(seed=5, prompt="a wood") as session, session.fork() as twin:
        session.set_prompt("a lake by night")
        with session.fork() as other:
            other.set_prompt("a hill")
            frames(other, 1)
            assert (session.prompt, twin.prompt, other.prompt) == ("a lake by night", "a wood", "a hill")
            assert other.coming is None


@pytest.mark.parametrize("keep", ["log", "pages"])
def test_what_no_block_has_heard_is_saved(keep, tmp_path):
    with WORLD.open(seed=5, prompt="a wood") as session:
        frames(session, 3)
        session.set_prompt("a lake by night", over=3)
        session.save(tmp_path / "saved", keep=keep)
        ahead, log = frames(session, 4), session.log
    with WORLD.restore(read_snapshot(tmp_path / "saved"), log=tmp_path / "log") as restored:
        assert (restored.prompt, restored.coming) == ("a lake by night", ("a lake by night", 3))
        assert np.array_equal(frames(restored, 4), ahead)
        assert restored.log == log
    WORLD.replay(read_log(tmp_path / "log"))


def test_a_rewind_by_blocks_leaves_what_no_block_has_heard_to_the_next():
    with WORLD.open(seed=5, prompt="a wood") as session, WORLD.open(seed=5, prompt="a wood") as other:
        frames(session, 3)
        session.set_prompt("a lake by night")
        session.rewind(1)
        frames(other, 2)
        other.set_prompt("a lake by night")
        assert np.array_equal(frames(session, 2), frames(other, 2))


def test_a_rewind_that_fails_leaves_what_no_block_has_heard():
    with WORLD.open(seed=5, prompt="a wood") as session, WORLD.open(seed=6, prompt="a wood") as other:
        foreign = other.mark()
        session.set_prompt("a lake by night", over=2)
        with pytest.raises(ConfigError, match="another session"):
            session.rewind(foreign)
        assert session.coming == ("a lake by night", 2)


def test_a_mark_that_left_the_pool_still_hears_what_it_was_told():
    world = told_world(pages=24)
    with world.open(seed=5, prompt="a wood") as session:
        frames(session, 3)
        mark = session.mark()
        ahead = frames(session, 2)
        mark.leave_pool()
        session.set_prompt("a lake by night")
        frames(session, 2)
        session.rewind(mark)
        assert np.array_equal(frames(session, 2), ahead)


def test_what_was_told_before_the_first_block_is_in_the_log():
    with WORLD.open(seed=5, prompt="a wood") as session:
        session.set_prompt("a lake by night")
        made, log = frames(session, 2), session.log
    WORLD.replay(log)
    with WORLD.open(seed=5, prompt="a lake by night") as other:
        assert np.array_equal(frames(other, 2), made)


def test_a_block_that_could_not_be_made_has_told_nothing():
    world = told_world(on_prompt=PromptChange(sink=1, recent=1))
    with world.open(seed=5, prompt="a wood") as session:
        frames(session, 3)
        held = session._moment.decoder.context.frames
        taken = world.pool.take(world.pool.pages - world.pool.used)
        session.forget()
        session.set_prompt("a lake by night")
        more = world.pool.take(world.pool.pages - world.pool.used)
        with pytest.raises(PoolFull):
            session.step()
        assert session._moment.decoder.context.frames == held
        world.pool.release([*taken, *more])
        session.step()
        assert session.log.steps[-1].prompt == "a lake by night"
        world.pool.check_integrity([session])


def test_sessions_that_are_told_different_things_share_calls():
    prompts = ("a wood", "a lake by night")
    alone = []
    for prompt in prompts:
        with WORLD.open(seed=5, prompt=prompt) as session:
            alone.append(frames(session, 2))
    sessions = [WORLD.open(seed=5, prompt=prompt) for prompt in prompts]
    chunks = [[done.result() for done in step_together(sessions, [["KeyA"]] * 2)] for _ in range(2)]
    together = [np.concatenate([block[row].frames for block in chunks]) for row in range(2)]
    for session in sessions:
        session.close()
    assert all(np.abs(a.astype(int) - b).max() <= 1 for a, b in zip(alone, together, strict=True))


def test_a_world_that_is_told_goes_on_from_given_frames():
    given = np.full((3, *DotSimulator.size, 3), 90, np.uint8)
    with WORLD.open(seed=5, frames=given, prompt="a wood") as session:
        assert np.array_equal(session.look(), given[-1])
        made, log = frames(session, 2), session.log
    WORLD.replay(log)
    with WORLD.open(seed=5, prompt="a wood") as other:
        assert not np.array_equal(frames(other, 2), made)


def test_the_end_of_a_prompt_of_too_many_characters_is_left_out_and_that_is_said(monkeypatch):
    said = []
    # Not through caplog: other packages configure logging for the whole process, and switch loggers off.
    monkeypatch.setattr("worldsim.runtime.voice.log.warning", lambda text, *given: said.append(text % given))
    long = "a lake " * 1_000
    with WORLD.open(seed=5, prompt=long) as session:
        assert session.prompt == long[:4_000]
        made, log = frames(session, 2), session.log
        session.set_prompt(long + "by night")
        assert session.prompt == long[:4_000]
    told = "the prompt is too long: the last {} of its {} characters are left out, as one has 4000 at most"
    assert said == [told.format(3_000, 7_000), told.format(3_008, 7_008)]
    WORLD.replay(log)
    with WORLD.open(seed=5, prompt=long[:4_000]) as other:
        assert np.array_equal(frames(other, 2), made)
    assert len(said) == 2


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="keys alone"):
        tiny_world().open(prompt="a wood")
    with pytest.raises(ConfigError, match="prompt is a text"):
        WORLD.open(prompt=3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no engine"):
        WORLD.reality()
    with WORLD.open(prompt="a wood") as session:
        session.step()
        with pytest.raises(ConfigError, match="1 block or more"):
            session.set_prompt("a lake", over=0)
        log = session.log
    with pytest.raises(LogError, match="on_prompt"):
        told_world(on_prompt=CHANGES[1]).replay(replace(log))
