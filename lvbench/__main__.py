"""`python -m lvbench` is the command `lvbench`."""

from __future__ import annotations

import sys

from lvbench.cli import main

if __name__ == "__main__":
    sys.exit(main())
