"""Ctrl-C ends the command quietly, whatever it is at."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Any

import pytest

from worldsim_apps.entry import main

SLOW = """
import sys, time
from worldsim_apps import entry

class Slow:
    def find_spec(self, name, *_):
        if name == "worldsim_apps.cli":
            print("loading", flush=True)
            time.sleep(50)

sys.meta_path.insert(0, Slow())
sys.exit(entry.main())
"""


def test_ctrl_c_while_it_loads_ends_it_in_one_line() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SLOW], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=50)
    assert (process.returncode, said) == (130, "worldsim: stopped by Ctrl-C\n")


def test_it_gives_the_exit_code_of_the_command(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["worldsim", "generate", "--sekonds", "3"])
    assert main() == 2
    assert capsys.readouterr().err.startswith("worldsim: No such option: --sekonds")


def test_it_imports_next_to_nothing_itself() -> None:
    code = "import sys; before = {*sys.modules}; import worldsim_apps.entry; print(*({*sys.modules} - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=True)
    assert {*done.stdout.split()} - {"__future__"} == {"worldsim_apps", "worldsim_apps.entry"}
