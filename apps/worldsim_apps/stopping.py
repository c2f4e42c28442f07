"""What Ctrl-C and SIGTERM do to long work: it keeps what it has and ends."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn


@contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C or SIGTERM into an answer to "is it to stop?"; a second one interrupts as ever.

    A second SIGTERM, which would else end the process within whatever it is at, interrupts as Ctrl-C does.
    """
    stopped = False
    usual = {which: signal.getsignal(which) for which in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for which, handler in usual.items():
            signal.signal(which, handler)

    def stop(_signal: int, _frame: Any) -> None:
        nonlocal stopped
        stopped = True
        restore()
        if usual[signal.SIGTERM] == signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _interrupt)

    for which in usual:
        signal.signal(which, stop)
    try:
        yield lambda: stopped
    finally:
        restore()


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM interrupt as Ctrl-C does, so that whatever was opened is closed."""
    usual = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, usual)


def _interrupt(which: int, _frame: Any) -> NoReturn:
    """Interrupt as Ctrl-C does, by the name of the signal that it was."""
    raise KeyboardInterrupt(signal.Signals(which).name)
