"""What Ctrl-C and SIGTERM do to long work: it keeps what it has and ends."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C or SIGTERM into an answer to "is it to stop?"; a second one interrupts at once, as ever."""
    stopped = False
    usual = {which: signal.getsignal(which) for which in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for which, handler in usual.items():
            signal.signal(which, handler)

    def stop(_signal: int, _frame: Any) -> None:
        nonlocal stopped
        stopped = True
        restore()

    for which in usual:
        signal.signal(which, stop)
    try:
        yield lambda: stopped
    finally:
        restore()


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM interrupt as Ctrl-C does, so that whatever was opened is closed."""
    usual = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, usual)
