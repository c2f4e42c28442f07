"""What every test run needs: one thread, because the tensors of the tests are too small to share out."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch when it is first imported, and by subprocesses
