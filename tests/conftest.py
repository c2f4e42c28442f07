"""What every test run needs: one thread, because its tensors are too small to share out, and a Ctrl-C that is heard."""

from __future__ import annotations

import os
import signal

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch when it is first imported, and by subprocesses


@pytest.fixture(autouse=True)
def _hear_ctrl_c() -> None:
    """A shell's background job begins with it ignored, and a test before this one may have left it so."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
