"""Ctrl-C and SIGTERM in the midst of what must not be left half done."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType


@contextmanager
def undivided() -> Iterator[None]:
    """Let Ctrl-C wait until the end of this, and then do what it does; only the main thread ever hears of it.

    So does SIGTERM where it is heard, and does not end the process by itself. Of several the latest does what it does.
    """
    if current_thread() is not main_thread():
        yield
        return
    found = {which: signal.getsignal(which) for which in (signal.SIGINT, signal.SIGTERM)}
    usual = {which: handler for which, handler in found.items() if callable(handler)}
    came: list[tuple[signal.Signals, FrameType | None]] = []
    is_over = False

    def hear(number: int, frame: FrameType | None) -> None:
        which = signal.Signals(number)
        if is_over:  # the other of the two came while this one was about to be heard as usual again
            usual[which](which, frame)
        else:
            came.append((which, frame))

    try:
        for which in usual:
            signal.signal(which, hear)
        yield
    finally:
        is_over = True
        for which, handler in usual.items():
            signal.signal(which, handler)
        if came:
            which, frame = came[-1]
            usual[which](which, frame)
