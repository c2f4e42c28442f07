"""One thread at a time."""

from __future__ import annotations

from threading import RLock

from worldsim.errors import SessionBusy


class Busy:
    """A context that one thread is in at a time; another does not wait for it but raises SessionBusy."""

    def __init__(self) -> None:
        self._lock = RLock()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise SessionBusy(
                "this session is in use by another thread; use a session from one thread at a time, or all of a world "
                "through a worldsim.Engine, which takes calls from any"
            )

    def __exit__(self, *_: object) -> None:
        self._lock.release()
