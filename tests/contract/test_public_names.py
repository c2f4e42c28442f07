"""What `import worldsim` and `import lvbench` give is a promise: names, methods, arguments and defaults."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import is_dataclass
from types import ModuleType

import pytest

import lvbench
import worldsim

PROMISED = {
    "load": (
        "(name, *, device='auto', policy=None, steps=None, frames_per_block=None, weights=None, kv=None, recall=True, "
        "noise='plain', clean_pass=True, budget=None, spill=None, size=None, on_prompt=None, preview=None, "
        "sessions=None, compiled=False, linears=None, offload=None)"
    ),
    "restore": "(path, *, world=None, device='auto', weights=None, preview=None, budget=None)",
    "World.open": "(self, *, seed=0, start=None, frames=None, keys=None, hour=None, prompt=None, log=None)",
    "World.go_on": "(self, log)",
    "World.replay": "(self, log, *, verify=True, on_chunk=None)",
    "World.restore": "(self, snapshot, *, log=None)",
    "World.reality": "(self, *, seed=0)",
    "World.controls": "property",
    "World.keys": "property",
    "World.fps": "property",
    "World.size": "property",
    "World.frames_per_block": "property",
    "World.calls_per_block": "property",
    "World.remembered_frames": "property",
    "World.is_told": "property",
    "World.left_out": "(self, prompt)",
    "World.needs_picture": "property",
    "Session.block": "property",
    "Session.latest": "property",
    "Session.log": "property",
    "Session.pages": "property",
    "Session.paused": "property",
    "Session.remembered": "property",
    "Session.step": "(self, keys=())",
    "Session.look": "(self)",
    "Session.mark": "(self)",
    "Session.rewind": "(self, to)",
    "Session.fork": "(self, *, log=None)",
    "Session.forget": "(self)",
    "Session.save": "(self, path, *, keep='pages')",
    "Session.land": "(self)",
    "Session.seen": "property",
    "Session.snapshot": "(self, *, keep='pages')",
    "Session.record": "(self, path)",
    "Session.outline": "(self)",
    "Session.prompt": "property",
    "Session.set_prompt": "(self, text, *, over=1)",
    "Session.pause": "(self)",
    "Session.resume": "(self)",
    "Session.close": "(self)",
    "Chunk": "(*, frames, block, keys, seconds=<factory>, seen=<factory>)",
    "Mark.block": "property",
    "Mark.pages": "property",
    "Mark.close": "(self)",
    "Mark.leave_pool": "(self)",
    "Reality.over": "property",
    "Reality.simulator": "property",
    "Reality.step": "(self, keys=())",
}
SCORES = {
    "Score": "(value, count)",
    "Unscored": "(reason)",
    "consistency": "(features)",
    "drift": "(values, weights='equal', *, floor=0.0)",
    "dynamic_degree": "(magnitudes)",
    "identity": "(chunks)",
    "identity_drift": "(chunks, weights='equal')",
    "moves": "(magnitudes, size)",
    "vde": "(values, weights='linear')",
}
BOTH = pytest.mark.parametrize(("package", "promised"), [(worldsim, PROMISED), (lvbench, SCORES)])


def arguments(function: object) -> str:
    """Names, kinds and defaults of a function's parameters, without types."""
    assert callable(function)
    signature = inspect.signature(function)
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))


def promises(package: ModuleType, name: str) -> Iterator[tuple[str, str]]:
    """Every promise that one public name makes."""
    thing = getattr(package, name)
    if not callable(thing):
        return
    if not inspect.isclass(thing) or is_dataclass(thing):
        yield name, arguments(thing)
        return
    for attribute, value in vars(thing).items():
        if not attribute.startswith("_"):
            yield f"{name}.{attribute}", "property" if isinstance(value, property) else arguments(value)


def test_the_public_names_are_the_promised_ones() -> None:
    assert worldsim.__all__ == ["Chunk", "Mark", "Reality", "Session", "World", "WorldSimError", "load", "restore"]
    assert lvbench.__all__ == ["Result", *SCORES]
    assert lvbench.Result == lvbench.Score | lvbench.Unscored


@BOTH
def test_methods_arguments_and_defaults_are_the_promised_ones(package: ModuleType, promised: dict[str, str]) -> None:
    assert dict(found for name in package.__all__ for found in promises(package, name)) == promised


@BOTH
def test_everything_public_says_what_it_gives(package: ModuleType, promised: dict[str, str]) -> None:
    for name in (*package.__all__, *promised):
        thing = package
        for part in name.split("."):
            thing = getattr(thing, part)
        assert inspect.getdoc(thing), f"{name} has no docstring"
