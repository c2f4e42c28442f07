"""Ctrl-C waits for what must not be left half done, and then does what it does."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from types import FrameType

import pytest

from tests.signalling import send
from worldsim import interrupts
from worldsim.interrupts import undivided
from worldsim.runtime.journal import read_log
from worldsim.testing.fakes import tiny_world

WALK: list[set[str]] = [{"KeyD"}, set(), {"KeyA"}, {"KeyD"}]


def test_ctrl_c_waits_for_the_end_and_then_interrupts() -> None:
    usual, done = signal.getsignal(signal.SIGINT), []

    @undivided()
    def work() -> None:
        send(signal.SIGINT)
        send(signal.SIGINT)
        done.append(1)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == [1]
    assert signal.getsignal(signal.SIGINT) is usual
    with undivided():
        pass


@pytest.mark.parametrize(
    ("first", "last", "told"),
    [(signal.SIGINT, signal.SIGTERM, (signal.SIGTERM,)), (signal.SIGTERM, signal.SIGINT, ())],
)
def test_sigterm_waits_too_where_it_is_heard_and_the_latest_interrupts(
    first: signal.Signals, last: signal.Signals, told: tuple[signal.Signals, ...]
) -> None:
    done: list[int] = []

    def interrupt(which: int, _: object) -> None:
        raise KeyboardInterrupt(which)

    @undivided()
    def work() -> None:
        send(first)
        send(last)
        done.append(1)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            work()
        assert (done, caught.value.args) == ([1], told)
        assert signal.getsignal(signal.SIGTERM) is interrupt
    finally:
        signal.signal(signal.SIGTERM, before)


def test_whoever_hears_of_ctrl_c_otherwise_hears_of_it_later() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda which, _: heard.append(which))
    try:
        with undivided():
            send(signal.SIGINT)
            assert not heard
        assert heard == [signal.SIGINT]
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with undivided():
            send(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_that_comes_much_later_again_interrupts_what_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    usual, now, done = signal.getsignal(signal.SIGINT), [100.0], []
    monkeypatch.setattr(interrupts, "monotonic", lambda: now[0])

    @undivided()
    def work(*waits: float) -> None:
        send(signal.SIGINT)
        for wait in waits:
            now[0] += wait
            send(signal.SIGINT)
            done.append(wait)

    with pytest.raises(KeyboardInterrupt) as caught:
        work(interrupts.PATIENCE_S - 0.1, 0.2, 1.0)
    assert done == [interrupts.PATIENCE_S - 0.1]
    assert caught.value.__context__ is None, "it interrupts once"
    assert signal.getsignal(signal.SIGINT) is usual
    with undivided():
        now[0] += 100


def test_ctrl_c_goes_before_what_went_wrong_meanwhile() -> None:
    @undivided()
    def work() -> None:
        send(signal.SIGINT)
        raise ZeroDivisionError

    with pytest.raises(KeyboardInterrupt) as caught:
        work()
    assert isinstance(caught.value.__context__, ZeroDivisionError)


@pytest.mark.parametrize("at", ["begins", "ends"])
def test_both_go_on_being_heard_when_one_comes_just_as_the_wait_begins_or_ends(
    monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    heard: list[int] = []
    usual, put = signal.getsignal(signal.SIGINT), signal.signal

    def put_and_come(which: int, handler: Callable[[int, FrameType | None], object]) -> object:
        before = put(which, handler)
        if which == signal.SIGINT:
            other = signal.SIGTERM if at == "begins" else signal.SIGINT
            if (handler is usual) == (at == "ends"):
                send(other)
        return before

    def hear(which: int, _: FrameType | None) -> None:
        heard.append(which)
        raise ZeroDivisionError

    before = signal.signal(signal.SIGTERM, hear)
    try:
        monkeypatch.setattr(signal, "signal", put_and_come)
        with pytest.raises((ZeroDivisionError, KeyboardInterrupt)), undivided():
            pass
        monkeypatch.undo()
        heard.clear()
        with pytest.raises(ZeroDivisionError):
            send(signal.SIGTERM)
        assert heard == [signal.SIGTERM]
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, usual)


def test_in_another_thread_nothing_is_changed() -> None:
    usual, found = signal.getsignal(signal.SIGINT), []

    def look() -> None:
        with undivided():
            found.append(signal.getsignal(signal.SIGINT))

    thread = Thread(target=look)
    thread.start()
    thread.join()
    assert found == [usual]


@pytest.mark.parametrize("where", ["worldsim.runtime.batching.write_together", "os.write", "os.fsync"])
def test_ctrl_c_while_a_block_is_kept_or_undone_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    world = tiny_world(frames_per_block=2)
    whole, session = world.open(seed=3), world.open(seed=3, log=tmp_path / "a.log")
    shown = [whole.step(keys).frames for keys in WALK]
    session.step(WALK[0])
    module, _, name = where.rpartition(".")
    usual = getattr(sys.modules[module], name)

    def pressed(*arguments: object) -> object:
        try:
            return usual(*arguments)
        finally:
            send(signal.SIGINT)

    monkeypatch.setattr(where, pressed)
    with pytest.raises(KeyboardInterrupt):
        session.step(WALK[1])
    assert session.block == 2
    if not where.endswith("together"):  # which a rewind does not call
        with pytest.raises(KeyboardInterrupt):
            session.rewind(2)
        assert session.block == 0
    monkeypatch.undo()
    for made, keys in enumerate(WALK[session.block :], session.block):
        assert (session.step(keys).frames == shown[made]).all()
    assert read_log(tmp_path / "a.log").steps == session.log.steps == whole.log.steps
