"""Every module has its test module: worldsim/cache/pool.py is tested by tests/cache/test_pool.py."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOMES = {
    "worldsim": "tests",
    "kernels/worldsim_kernels": "tests/kernels",
    "apps/worldsim_apps": "tests/apps",
    "benchmarks": "tests/benchmarks",
    "lvbench": "tests/lvbench",
}
EXEMPT = {
    "kernels/worldsim_kernels/turn/kernel.py": "runs on GPUs only; tests/gpu runs it there",
    "worldsim/models/protocol.py": "declares what others implement; tests/testing/test_conformance.py runs it",
    "worldsim/runtime/chunk.py": "holds no code of its own; whoever makes chunks is tested",
    "worldsim/simulators/protocol.py": "declares what others implement; its simulators are tested",
}


def has_code(path: Path) -> bool:
    """Whether a module defines anything: the __init__.py of a folder often does not."""
    return any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in ast.walk(ast.parse(path.read_text())))


MODULES = {
    path.relative_to(ROOT).as_posix(): ROOT / tests / path.relative_to(ROOT / home).with_name(f"test_{path.name}")
    for home, tests in HOMES.items()
    for path in sorted((ROOT / home).rglob("*.py"))
    if has_code(path)
}


@pytest.mark.parametrize("module", sorted(MODULES.keys() - EXEMPT.keys()))
def test_a_module_has_its_test_module(module: str) -> None:
    assert MODULES[module].is_file(), f"{module} needs {MODULES[module].relative_to(ROOT)}"


@pytest.mark.parametrize("module", sorted(EXEMPT))
def test_an_exemption_is_still_needed(module: str) -> None:
    assert module in MODULES
    assert not MODULES[module].is_file()
