"""Signals that are heard before the next line of a test runs."""

from __future__ import annotations

import signal
import threading


def send(which: signal.Signals) -> None:
    """Send the calling thread a signal and let its handler run at once.

    `signal.raise_signal` only marks it as come: Python may go on some way before it looks, and two are then one.
    """
    signal.pthread_kill(threading.get_ident(), which)
