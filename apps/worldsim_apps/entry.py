"""What the command `worldsim` begins with: so little that Ctrl-C finds it ready."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command with the arguments of the process; returns the exit code."""
    try:
        from worldsim_apps.cli import main as command

        return command()
    except KeyboardInterrupt:
        print("worldsim: stopped by Ctrl-C", file=sys.stderr)
        return 130
