"""Many sessions on one thread: each lives as it would alone, and none can hurt another."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError, wait

import numpy as np
import pytest

from worldsim.cache.policy import Full, Window
from worldsim.errors import ConfigError, EngineFull, SessionClosed, UnknownName
from worldsim.runtime.engine import Engine, pages_of_session
from worldsim.testing.fakes import tiny_world

WALK = [{"KeyD"}, {"KeyD", "Space"}, set(), {"ArrowLeft"}, {"KeyA"}, {"Space"}]


@pytest.fixture
def engine():
    with Engine(tiny_world(pages=120), sessions=4) as running:
        yield running


def alone(seed, walk=WALK):
    with tiny_world().open(seed=seed) as session:
        return np.concatenate([session.step(keys).frames for keys in walk]).astype(int)


def test_sessions_asked_from_many_threads_live_as_they_would_alone(engine):
    shown = {}

    def live(seed):
        session = engine.open(seed=seed)
        shown[seed] = np.concatenate([session.step(keys).result(30).frames for keys in WALK]).astype(int)
        session.close()

    threads = [threading.Thread(target=live, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(4):
        assert abs(shown[seed] - alone(seed)).max() <= 1
    assert engine.open_sessions == 0
    assert engine.call(lambda: engine.world.pool.used).result() == 0


def test_blocks_asked_for_ahead_are_made_in_order(engine):
    session = engine.open(seed=3)
    chunks = [future.result(30) for future in [session.step(keys) for keys in WALK]]
    assert [chunk.block for chunk in chunks] == list(range(6))
    assert abs(np.concatenate([chunk.frames for chunk in chunks]).astype(int) - alone(3)).max() <= 1


def test_those_who_wait_make_their_block_together_and_nobody_waits_for_ever():
    world, sizes = tiny_world(pages=120), []
    backbone = world.backbone

    def counting(*inputs):
        sizes.append(inputs[0].shape[0])
        return backbone(*inputs)

    for name in ("geometry", "controls", "rotary", "pages"):
        setattr(counting, name, getattr(backbone, name))
    world.backbone = counting
    with Engine(world, sessions=5, together=3) as engine:
        sessions = [engine.open(seed=seed) for seed in range(5)]
        sizes.clear()
        hold = threading.Event()
        engine.call(lambda: hold.wait(30))
        futures = [session.step() for _ in range(3) for session in sessions]
        hold.set()
        wait(futures, timeout=30)
    assert sizes == [3] * (5 * world.calls_per_block)  # fifteen blocks, three at a time
    assert [future.result().block for future in futures] == [0] * 5 + [1] * 5 + [2] * 5


def test_over_capacity_is_refused_at_once_with_the_reason(engine):
    sessions = [engine.open(seed=seed) for seed in range(4)]
    used = engine.call(lambda: engine.world.pool.used).result()
    with pytest.raises(EngineFull, match=r"4 of 4 sessions are open, each planned with \d+ MB; try again when"):
        engine.open(seed=5)
    with pytest.raises(EngineFull):
        sessions[0].fork()
    assert engine.call(lambda: engine.world.pool.used).result() == used
    sessions[1].close()
    sessions[1].close()
    assert engine.open(seed=5).step().result(30).block == 0


def test_a_beginning_that_fails_takes_no_place(engine):
    for _ in range(9):
        with pytest.raises(ConfigError, match="no starting place 7"):
            engine.open(start=7)
    assert engine.open_sessions == 0


def test_verbs_are_done_between_blocks(engine, tmp_path):
    session = engine.open(seed=2)
    first = session.step({"KeyD"}).result(30).frames
    mark = session.do(lambda s: s.mark()).result(30)
    session.step({"KeyA"}).result(30)
    session.do(lambda s: s.rewind(mark)).result(30)
    twin = session.fork()
    assert [session.session.block, twin.session.block] == [1, 1]
    session.do(lambda s: s.rewind(1)).result(30)
    assert (session.step({"KeyD"}).result(30).frames == first).all()
    session.do(lambda s: s.save(tmp_path / "here")).result(30)
    with pytest.raises(ConfigError):
        session.do(lambda s: s.rewind(99)).result(30)
    assert (tmp_path / "here").exists()


def test_a_session_that_is_closed_in_the_middle_of_a_block_does_not_end_the_blocks_of_others():
    """It is closed from within the first backbone call of a block that three make together."""
    world = tiny_world(pages=120)
    backbone, victim = world.backbone, []

    def closing(*inputs):
        if victim and inputs[0].shape[0] == 3:
            live = victim.pop()
            threading.Thread(target=live.close).start()
            while live not in live.engine._desk.stopped:
                pass
        return backbone(*inputs)

    for name in ("geometry", "controls", "rotary", "pages"):
        setattr(closing, name, getattr(backbone, name))
    world.backbone = closing
    with Engine(world, sessions=3) as engine:
        sessions = [engine.open(seed=seed) for seed in range(3)]
        hold = threading.Event()
        engine.call(lambda: hold.wait(30))
        victim.append(sessions[1])
        futures = [session.step({"KeyD"}) for session in sessions]
        hold.set()
        assert isinstance(futures[1].exception(30), SessionClosed)
        for seed in (0, 2):
            assert abs(futures[seed].result(30).frames.astype(int) - alone(seed, WALK[:1])).max() <= 1
        with pytest.raises(SessionClosed):
            sessions[1].step()


def test_an_unknown_key_or_a_cancelled_wish_hurts_nobody(engine):
    one, other = engine.open(seed=0), engine.open(seed=1)
    hold = threading.Event()
    engine.call(lambda: hold.wait(30))
    wrong, cancelled, right = one.step({"KeyQ"}), one.step(), other.step()
    assert cancelled.cancel()
    hold.set()
    assert isinstance(wrong.exception(30), UnknownName)
    assert right.result(30).block == 0
    assert one.step().result(30).block == 0


def test_closing_an_engine_cancels_what_waits_and_refuses_what_comes():
    engine = Engine(tiny_world(), sessions=2)
    session, started, hold = engine.open(), threading.Event(), threading.Event()
    engine.call(lambda: (started.set(), hold.wait(30)))
    started.wait(30)
    waiting = session.step()
    closing = threading.Thread(target=engine.close)
    closing.start()
    while not engine._desk.closed:
        pass
    hold.set()
    closing.join()
    engine.close()
    with pytest.raises(CancelledError):
        waiting.result(30)
    for late in (session.step, engine.open, lambda: engine.call(int)):
        with pytest.raises(SessionClosed):
            late()
    session.close()


def test_capacity_is_planned_by_pages_before_anything_is_opened():
    assert pages_of_session(tiny_world(policy=Window(frames=5), frames_per_block=2)) == 9
    full = tiny_world(policy=Full(), frames_per_block=2)
    assert pages_of_session(full) == full.remembered_frames + 4
    with Engine(tiny_world(pages=64, policy=Window(frames=5))) as engine:
        assert engine.capacity == 64 // 7
    for wrong in ({"sessions": 10}, {"sessions": 0}, {"together": 0}):
        with pytest.raises(ConfigError, match="64 pages have room for 9 sessions of 7 pages each"):
            Engine(tiny_world(pages=64, policy=Window(frames=5)), **wrong)


def test_calls_that_never_end_leave_a_round_of_blocks_between_two_of_them(engine):
    session, hold, calls = engine.open(seed=3), threading.Event(), []
    engine.call(lambda: hold.wait(30))
    waiting = [session.step() for _ in range(4)]

    def again():
        calls.append(sum(block.done() for block in waiting))
        if calls[-1] < 4:
            engine.call(again)

    engine.call(again)
    hold.set()
    wait(waiting, 30)
    assert calls[:4] == [1, 2, 3, 4]
