"""Ctrl-C and SIGTERM in the midst of what must not be left half done."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from time import monotonic
from types import FrameType

PATIENCE_S = 3.0
"""What must not be left half done takes some milliseconds. If it still goes on so long after it was to be interrupted,
something that it waits for does not answer, such as a disk."""


@contextmanager
def undivided() -> Iterator[None]:
    """Let Ctrl-C wait until the end of this, and then do what it does; only the main thread ever hears of it.

    So does SIGTERM where it is heard, and does not end the process by itself. Of several the latest does what it does.
    One that comes PATIENCE_S after the first does not wait any more: what is going on stays half done, and the sessions
    it is part of may be of no use then; their logs are.
    """
    if current_thread() is not main_thread():
        yield
        return
    found = {which: signal.getsignal(which) for which in (signal.SIGINT, signal.SIGTERM)}
    usual = {which: handler for which, handler in found.items() if callable(handler)}
    came: list[tuple[signal.Signals, FrameType | None]] = []
    first_at = 0.0
    is_over = False

    def hear(number: int, frame: FrameType | None) -> None:
        nonlocal first_at
        which = signal.Signals(number)
        is_stuck = bool(came) and monotonic() - first_at >= PATIENCE_S
        if is_stuck:
            came.clear()
        if is_over or is_stuck:  # over: the other came while this one was about to be heard as usual again
            usual[which](which, frame)
            return
        first_at = first_at if came else monotonic()
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
