"""The README's commands run: every fenced sh and python block, as printed, in an empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FENCES = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / "README.md").read_text(), flags=re.MULTILINE | re.DOTALL)
SET_UP = ("git clone ", "python3 -m venv ", ".venv/bin/pip install ")


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language, in order."""
    return [text for name, text in FENCES if name == language]


def test_every_fence_says_what_it_holds() -> None:
    assert {name for name, _ in FENCES} == {"sh", "python", "text"}


def serves(block: str) -> bool:
    return block.startswith("worldsim serve ")


@pytest.mark.timeout(180)  # seconds are enough, but not while other work has the cores
@pytest.mark.parametrize("block", [block for block in blocks("sh") if not serves(block)])
def test_a_shell_block_runs(block: str, tmp_path: Path) -> None:
    lines = [line for line in block.splitlines() if not line.startswith(SET_UP)]
    for line in [line for line in lines if line.startswith("make ")]:
        # These set up or run the tests that are running now, so it is only seen that make knows them.
        subprocess.run([*line.split(), "--dry-run"], cwd=ROOT, check=True, capture_output=True, timeout=20)
    script = "\n".join(["set -e", *(line for line in lines if not line.startswith("make "))])
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(180)
def test_what_is_served_is_played_by_the_program_below_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (command,) = [block.split() for block in blocks("sh") if serves(block)]
    (program,) = [block for block in blocks("python") if "BlockingClient" in block]
    path = str(Path(sys.executable).parent / command[0])
    with subprocess.Popen([path, *command[1:]], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert "ws://127.0.0.1:8765" in server.stdout.readline()
        monkeypatch.chdir(tmp_path)
        exec(compile(program, "README.md", "exec"), {})
        server.terminate()
        assert server.wait(60) == 0


@pytest.mark.timeout(180)
@pytest.mark.parametrize("block", [block for block in blocks("python") if "BlockingClient" not in block])
def test_a_python_block_runs(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})


def test_the_first_program_has_at_most_eight_lines() -> None:
    assert len(blocks("python")[0].splitlines()) <= 8


def test_the_tree_names_folders_that_exist() -> None:
    (tree,) = blocks("text")
    for line in tree.splitlines():
        assert (ROOT / line.split()[0]).is_dir(), line
