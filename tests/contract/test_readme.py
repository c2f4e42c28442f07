"""What the README and the pages in docs print runs: every fenced sh and python block, in an empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = (README, *sorted((ROOT / "docs").glob("*.md")))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
SET_UP = ("git clone ", "python3 -m venv ", ".venv/bin/pip install ")


def blocks(language: str, pages: Sequence[Path] = PAGES) -> list[str]:
    """The fenced blocks of one language, in order."""
    return [text for page in pages for name, text in FENCE.findall(page.read_text()) if name == language]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_fence_says_what_it_holds(page: Path) -> None:
    assert {name for name, _ in FENCE.findall(page.read_text())} <= {"sh", "python", "text"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_points_to_is_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_readme_is_short_and_names_every_page() -> None:
    text = README.read_text()
    assert len(text.splitlines()) <= 130
    assert [page.name for page in PAGES[1:] if f"docs/{page.name}" not in text and page.stem != "drift"] == []


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
        exec(compile(program, "serving.md", "exec"), {})
        server.terminate()
        assert server.wait(60) == 0


@pytest.mark.timeout(180)
@pytest.mark.parametrize("block", [block for block in blocks("python") if "BlockingClient" not in block])
def test_a_python_block_runs(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "page", "exec"), {})


def test_the_first_program_has_at_most_eight_lines() -> None:
    assert len(blocks("python", [README])[0].splitlines()) <= 8


def test_the_tree_names_folders_that_exist() -> None:
    (tree,) = blocks("text", [README])
    for line in tree.splitlines():
        assert (ROOT / line.split()[0]).is_dir(), line
