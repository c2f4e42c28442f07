"""The rules of the house that no linter knows, over all code that is not a test."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = ("worldsim", "kernels", "apps", "benchmarks", "lvbench")
MODULES = sorted(path for part in PARTS for path in (ROOT / part).rglob("*.py"))
CATCHES_ALL = {
    "worldsim/runtime/batching.py": "where sessions share calls, what goes wrong in one must not reach the others",
    "worldsim/models/wan/text.py": "tokenizers raises Exception itself of a file that it cannot read",
}
CHOOSES = {("worldsim/presets.py", "load"), ("worldsim/runtime/world.py", "open")}
"""The doors to a world and into it: what can be chosen there is named one by one, and may be left out."""
BROAD = {"Exception", "BaseException"}
GLOBAL_SEEDS = {"torch.manual_seed", "torch.cuda.manual_seed_all", "np.random.seed", "random.seed"}
Definition = ast.FunctionDef | ast.AsyncFunctionDef


def broken_rules(source: str, inside: str) -> Iterator[str]:
    """Every breach in the source of the file at `inside`, a path below the root."""
    lines = source.splitlines()
    tree = ast.parse(source)
    if len(lines) > 500:
        yield f"{inside}: longer than 500 lines; split it by subject"
    if tree.body and ast.get_docstring(tree) is None:
        yield f"{inside}:1: no docstring; say in one sentence what the module is"
    for number, line in enumerate(lines, start=1):
        if re.search(r"#.*\b(TODO|FIXME|XXX)\b", line):
            yield f"{inside}:{number}: a note to do something later; do it, or file an issue"
        if re.match(r"\s*#\s*([-=#*~])\1{3}", line):
            yield f"{inside}:{number}: a banner; split the file or name the parts"
    for node in ast.walk(tree):
        for breach in _breaches(node, inside):
            yield f"{inside}:{getattr(node, 'lineno', 1)}: {breach}"


def _breaches(node: ast.AST, inside: str) -> Iterator[str]:
    library = inside.startswith(("worldsim/", "kernels/"))
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            yield from _breaches_of_function(node, inside)
        case ast.Call(func=ast.Name("print")) if library:
            yield "print in a library; use logging or return the value"
        case ast.Call(func=ast.Attribute() as func) if ast.unparse(func) in GLOBAL_SEEDS:
            yield f"{ast.unparse(func)} seeds everybody; take a generator or a seed as an argument"
        case ast.Attribute() if library and ast.unparse(node) in {"os.environ", "os.getenv"}:
            yield "the environment is read only in apps; take an argument"
        case ast.Constant(str(text)) if text.startswith("cuda") and not inside.startswith("worldsim/runtime/"):
            yield "a device is chosen only in worldsim/runtime; take it from a tensor"
        case ast.ExceptHandler(type=caught) if inside not in CATCHES_ALL and (
            caught is None or BROAD & set(re.findall(r"\w+", ast.unparse(caught)))
        ):
            yield "catch the error you can handle; let the rest reach the caller"


def _breaches_of_function(node: Definition, inside: str) -> Iterator[str]:
    names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    is_command = "typer." in ast.unparse(node.args)  # its parameters are the flags of a command line
    is_kernel = "tl.constexpr" in ast.unparse(node.args)  # it takes numbers only, strides one by one
    is_free = is_command or is_kernel or (inside, node.name) in CHOOSES
    length = node.end_lineno - node.lineno if node.end_lineno is not None else 0
    if length - is_free * max(0, len(names) - 6) >= 60:  # of what is free, a parameter takes a line
        yield f"{node.name} is longer than 60 lines; name its parts"
    if len(names) - (names[:1] in (["self"], ["cls"])) > 6 and not is_free:
        yield f"{node.name} has more than six parameters; a dataclass is due"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_module_keeps_the_house_rules(path: Path) -> None:
    breaches = list(broken_rules(path.read_text(), path.relative_to(ROOT).as_posix()))
    assert not breaches, "\n".join(breaches)


@pytest.mark.parametrize(
    ("source", "breach"),
    [
        ("x = 1", "no docstring"),
        ('"""A."""\n' + "x = 1\n" * 500, "longer than 500 lines"),
        ('"""A."""\ndef f():\n' + "    x = 1\n" * 60, "f is longer than 60 lines"),
        ('"""A."""\ndef f(a, b, c, d, *, e, f, g): ...', "more than six parameters"),
        ('"""A."""\nprint(1)', "print in a library"),
        ('"""A."""\ntorch.manual_seed(1)', "seeds everybody"),
        ('"""A."""\nx = os.environ["X"]', "the environment is read only in apps"),
        ('"""A."""\nx = "cuda:0"', "a device is chosen only in worldsim/runtime"),
        ('"""A."""\ntry: ...\nexcept: ...', "catch the error you can handle"),
        ('"""A."""\ntry: ...\nexcept (OSError, Exception): ...', "catch the error you can handle"),
        ('"""A."""\nx = 1  # TODO: more', "a note to do something later"),
        ('"""A."""\n# ----- part one -----', "a banner"),
    ],
)
def test_a_breach_is_seen(source: str, breach: str) -> None:
    (found,) = broken_rules(source, "worldsim/samplers.py")
    assert breach in found


@pytest.mark.parametrize(
    ("source", "inside"),
    [
        ('"""A."""\ndef f(self, a, b, c, d, e, f): ...', "worldsim/samplers.py"),
        ('"""A."""\ndef f(a, b, c, d, e, f, g: Annotated[int, typer.Option()]): ...', "apps/worldsim_apps/cli.py"),
        ('"""A."""\ndef load(a, *, b, c, d, e, f, g): ...', "worldsim/presets.py"),
        ('"""A."""\nx = "cuda:0"', "worldsim/runtime/device.py"),
        ('"""A."""\nprint(1)', "benchmarks/decode.py"),
        ('"""A."""\ngenerator.manual_seed(1)', "worldsim/samplers.py"),
        ("", "worldsim/cache/__init__.py"),
    ],
)
def test_what_is_allowed_is_no_breach(source: str, inside: str) -> None:
    assert not list(broken_rules(source, inside))
