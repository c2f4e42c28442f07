"""Ctrl-C and SIGTERM stop long work when it asks, and a second one at once."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.signalling import send
from worldsim_apps.stopping import stoppable, terminable

BOTH = pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
USUAL = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


@pytest.fixture(autouse=True)
def usual() -> Iterator[None]:
    """What Python does with both, whatever a library such as ray has left there."""
    before = {which: signal.signal(which, handler) for which, handler in USUAL.items()}
    yield
    for which, handler in before.items():
        signal.signal(which, handler)


@BOTH
def test_the_first_stops_when_it_is_asked_and_the_second_does_as_ever(which: signal.Signals) -> None:
    class Usual(Exception):
        pass

    def handler(*_: object) -> None:
        raise Usual

    before = signal.signal(which, handler)
    try:
        with stoppable() as is_stopped:
            assert not is_stopped()
            send(which)
            assert is_stopped()
            with pytest.raises(Usual):
                send(which)
        assert signal.getsignal(which) is handler
        with pytest.raises(Usual):
            send(which)
    finally:
        signal.signal(which, before)


@BOTH
def test_work_that_nobody_stops_leaves_signals_as_they_were(which: signal.Signals) -> None:
    before = signal.getsignal(which)
    with stoppable() as is_stopped:
        assert signal.getsignal(which) is not before
    assert not is_stopped()
    assert signal.getsignal(which) is before


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("second", "name"), [(signal.SIGINT, ""), (signal.SIGTERM, "SIGTERM")])
def test_a_second_signal_interrupts_by_its_name(first: signal.Signals, second: signal.Signals, name: str) -> None:
    @stoppable()
    def work() -> None:
        send(first)
        send(second)

    with pytest.raises(KeyboardInterrupt) as caught:
        work()
    assert str(caught.value) == name
    assert {which: signal.getsignal(which) for which in USUAL} == USUAL


def test_sigterm_interrupts_as_ctrl_c_does_for_as_long_as_it_is_to() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt, match=r"^SIGTERM$"), terminable():
        send(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
