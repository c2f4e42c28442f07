"""One thread is in it at a time, as often as it likes, and another is told so at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from worldsim.errors import SessionBusy
from worldsim.runtime.busy import Busy


def enter(busy: Busy) -> None:
    with busy:
        pass


def test_another_thread_is_refused_while_one_is_in_it_and_let_in_after():
    busy = Busy()
    with ThreadPoolExecutor(1) as other:
        with busy:
            with busy:
                pass
            with pytest.raises(SessionBusy, match=r"in use by another thread; .* through a worldsim\.Engine"):
                other.submit(enter, busy).result()
        other.submit(enter, busy).result()
        enter(busy)


def test_whoever_fails_in_it_leaves_it():
    busy = Busy()
    with pytest.raises(ZeroDivisionError), busy:
        _ = 1 / 0
    with ThreadPoolExecutor(1) as other:
        other.submit(enter, busy).result()
