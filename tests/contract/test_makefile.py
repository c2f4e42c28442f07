"""The Makefile: its commands set up what they need in the right order, and set up only once."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder as make sees it on a fresh machine: the files that the set-up depends on, and no .venv."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy2(ROOT / name, tmp_path)
    return tmp_path


def commands(checkout: Path, target: str) -> list[str]:
    """What make would run, without running it. A make that runs these tests must not take it for a part of itself."""
    alone = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    done = subprocess.run(
        ["make", "--dry-run", target], cwd=checkout, env=alone, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def position(lines: list[str], text: str) -> int:
    """The place of the only line that holds this text."""
    (found,) = [place for place, line in enumerate(lines) if text in line]
    return found


def test_the_demo_is_made_on_a_fresh_machine_with_torch_installed_first(checkout: Path) -> None:
    lines = commands(checkout, "demo")
    order = ["-m venv .venv", "'^torch=='", "--editable .", "touch .venv/.run", "-o out/demo.mp4"]
    places = [position(lines, text) for text in order]
    assert places == sorted(places)
    assert places[-1] == len(lines) - 1


def test_the_tests_run_format_lint_types_and_layers_first(checkout: Path) -> None:
    lines = commands(checkout, "test")
    order = [
        "[worlds,ui,wan,dev]",
        "touch .venv/.dev",
        "format --check",
        "ruff check",
        "bin/mypy",
        "lint-imports",
        "bin/pytest",
    ]
    places = [position(lines, text) for text in order]
    assert places == sorted(places)
    assert places[-1] == len(lines) - 1


@pytest.mark.parametrize("target", ["demo", "test", "lint"])
def test_the_second_time_nothing_is_set_up(checkout: Path, target: str) -> None:
    (checkout / ".venv").mkdir()
    for stamp in (".run", ".dev"):
        (checkout / ".venv" / stamp).touch()
    assert not [line for line in commands(checkout, target) if "pip" in line or "venv .venv" in line]


def test_a_changed_constraint_sets_up_again(checkout: Path) -> None:
    test_the_second_time_nothing_is_set_up(checkout, "test")
    # A clock ticks too seldom for a touch to be surely later than those before it.
    later = 1 + max(path.stat().st_mtime for path in (checkout / ".venv").rglob("*"))
    os.utime(checkout / "constraints.txt", (later, later))
    position(commands(checkout, "test"), "--editable .")


def test_every_target_is_a_command_and_no_file(checkout: Path) -> None:
    for target in ("demo", "test", "lint", "clean"):
        (checkout / target).touch()
        assert "is up to date" not in commands(checkout, target)[-1], f"a file named {target} hides the command"


def test_constraints_pin_exact_public_versions() -> None:
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert pins
    for pin in pins:
        name, version = pin.split("==")
        assert name
        assert "+" not in version, f"{pin} names a build that other machines do not have"
