"""Many sessions on one thread: each lives as it would alone, and none can hurt another."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import CancelledError, wait
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest

from worldsim.cache.policy import Full, Window
from worldsim.cache.retrieval import Retrieval
from worldsim.errors import ConfigError, EngineFull, SessionClosed, UnknownName
from worldsim.runtime.engine import Engine, LiveSession, pages_of_session
from worldsim.runtime.history import Moment
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
    sparse = Retrieval(recent=3, run=4, bank=2, tau=0.5)
    assert pages_of_session(tiny_world(policy=sparse)) == sparse.limit + 1 + 4
    full = tiny_world(policy=Full(), frames_per_block=2)
    assert pages_of_session(full) == full.remembered_frames + 4
    with Engine(tiny_world(pages=64, policy=Window(frames=5))) as engine:
        assert (engine.places, engine.capacity) == (64 // 7, 64 // 7 - 1)
    for wrong in ({"sessions": 9}, {"sessions": 0}, {"together": 0}):
        with pytest.raises(ConfigError, match="64 pages have room for 8 sessions of 7 pages each and one that takes"):
            Engine(tiny_world(pages=64, policy=Window(frames=5)), **wrong)
    with pytest.raises(ConfigError, match="6 pages have room for 0 sessions"):
        Engine(tiny_world(pages=6, policy=Window(frames=5)))


def test_one_takes_the_place_of_another_while_there_is_memory_for_both():
    """At full capacity one does at a time; the next is refused until the one that was replaced is closed."""
    world = tiny_world(pages=22)
    with Engine(world) as engine:
        assert (engine.places, engine.capacity) == (3, 2)
        sessions = [engine.open(seed=seed) for seed in range(2)]
        for session in sessions:
            session.step().result(30)
        sessions.append(engine.admit(lambda: world.open(seed=2), instead=True))
        wait([session.step() for session in sessions], 30)
        with pytest.raises(EngineFull, match="room for 3 sessions and all are there, of which some take the place"):
            engine.admit(lambda: world.open(seed=3), instead=True)
        with pytest.raises(EngineFull, match="room for 3 sessions and all are there"):
            engine.open(seed=3)
        sessions.pop(0).close()
        sessions.append(engine.admit(lambda: world.open(seed=3), instead=True))
        assert [session.step().result(30).block for session in sessions] == [2, 1, 0]


def break_steering(session, monkeypatch):
    class Broken:
        check = session._home.controls.check

        def next(self, *_):
            raise RuntimeError("planted")

    monkeypatch.setattr(session, "_home", replace(session._home, controls=Broken()))


def break_fork(session, monkeypatch):
    class Unforkable(Moment):
        def fork(self):
            raise RuntimeError("planted")

    moment = session._moment
    broken = Unforkable(moment.decoder, moment.codec_state, moment.trail, moment.shown)
    monkeypatch.setattr(session, "_moment", broken)


@pytest.mark.parametrize("spoil", [break_steering, break_fork])
def test_an_error_anywhere_in_a_block_is_told_and_the_engine_lives_on(engine, monkeypatch, spoil):
    one, other = engine.open(seed=0), engine.open(seed=1)
    with monkeypatch.context() as patch:
        spoil(one.session, patch)
        hold = threading.Event()
        engine.call(lambda: hold.wait(30))
        wrong, right = one.step(WALK[0]), other.step(WALK[0])
        hold.set()
        assert str(wrong.exception(30)) == "planted"
        assert abs(right.result(30).frames.astype(int) - alone(1, WALK[:1])).max() <= 1
    assert [one.step().result(30).block, other.step().result(30).block] == [0, 1]


def test_an_error_that_is_the_fault_of_nobody_is_told_to_everybody_in_the_round(engine, monkeypatch):
    def broken(*_, **__):
        raise SystemExit("planted")

    sessions = [engine.open(seed=seed) for seed in range(2)]
    with monkeypatch.context() as patch:
        patch.setattr("worldsim.runtime.engine.step_together", broken)
        assert [str(session.step().exception(30)) for session in sessions] == ["planted"] * 2
    assert [session.step().result(30).block for session in sessions] == [0, 0]


def test_closing_an_engine_closes_its_sessions_and_their_owners_may_do_it_again():
    world = tiny_world()
    with Engine(world) as engine:
        sessions = [engine.open(seed=seed) for seed in range(3)]
        sessions.append(sessions[0].fork())
        sessions[1].step().result(30)
    assert engine.open_sessions == 0
    world.pool.check_integrity(())
    assert world.pool.used == 0
    for session in sessions:
        session.close()
        session.close()
    assert engine.open_sessions == 0


def test_what_goes_wrong_with_a_session_when_its_engine_ends_is_told_to_whoever_closes_it(monkeypatch):
    with Engine(tiny_world()) as engine:
        wrong, right = engine.open(seed=0), engine.open(seed=1)
        close = wrong.session.close

        def closing():
            close()
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(wrong.session, "close", closing)
    right.close()
    with pytest.raises(OSError, match="No space"):
        wrong.close()
    assert engine.open_sessions == 0
    assert engine.world.pool.used == 0


def test_a_session_that_is_closed_while_its_engine_ends_is_closed_when_that_returns():
    engine = Engine(tiny_world())
    session, started, hold = engine.open(), threading.Event(), threading.Event()
    engine.call(lambda: (started.set(), hold.wait(30)))
    started.wait(30)
    threads = [threading.Thread(target=session.close), threading.Thread(target=engine.close)]
    threads[0].start()
    while not engine._desk.calls:
        pass
    threads[1].start()
    while not engine._desk.closed:
        pass
    hold.set()
    threads[0].join()
    assert (engine.open_sessions, engine.world.pool.used) == (0, 0)
    threads[1].join()


def test_of_two_threads_that_close_one_session_one_does(engine):
    live, other, closed, both = engine.open(), engine.open(seed=1), [], threading.Barrier(2)
    close = live.session.close
    live.session.close = lambda: (closed.append(1), close())

    class Slow(LiveSession):
        """Whether it was closed is read by both threads before either says that it is, if nothing keeps them apart."""

        @property
        def _closed(self):
            was = self.__dict__["_closed"]
            with suppress(threading.BrokenBarrierError):
                both.wait(0.3)
            return was

        @_closed.setter
        def _closed(self, value):
            self.__dict__["_closed"] = value

    live.__class__ = Slow
    threads = [threading.Thread(target=live.close) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (closed, engine.open_sessions) == ([1], 1)
    other.close()


def test_a_session_that_everybody_has_dropped_gives_its_place_and_memory_back(engine):
    session = engine.open()
    session.step().result(30)
    engine.call(int).result(30)
    del session
    gc.collect()
    assert (engine.open_sessions, engine.call(lambda: engine.world.pool.used).result(30)) == (0, 0)


@pytest.mark.parametrize("wrong", [None, 7, "KeyD"])
def test_what_are_no_keys_is_refused_when_its_turn_comes(engine, wrong):
    session = engine.open()
    assert isinstance(session.step(wrong).exception(30), ConfigError)
    assert session.step().result(30).block == 0


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
