"""What `import worldsim` gives is a promise: its names, their methods, the arguments and the defaults."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import is_dataclass

import worldsim

PROMISED = {
    "load": "(name, *, device='auto', policy=None, steps=None, frames_per_block=1, weights=None)",
    "restore": "(path, *, world=None, device='auto', weights=None)",
    "World.open": "(self, *, seed=0, start=None, frames=None, keys=None, hour=None, log=None)",
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
    "Session.save": "(self, path, *, keep='pages')",
    "Session.snapshot": "(self, *, keep='pages')",
    "Session.record": "(self, path)",
    "Session.outline": "(self)",
    "Session.set_prompt": "(self, text)",
    "Session.pause": "(self)",
    "Session.resume": "(self)",
    "Session.close": "(self)",
    "Chunk": "(*, frames, block, keys, seconds=<factory>)",
    "Mark.block": "property",
    "Mark.pages": "property",
    "Mark.close": "(self)",
    "Mark.leave_pool": "(self)",
    "Reality.over": "property",
    "Reality.simulator": "property",
    "Reality.step": "(self, keys=())",
}


def arguments(function: object) -> str:
    """Names, kinds and defaults of a function's parameters, without types."""
    assert callable(function)
    signature = inspect.signature(function)
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))


def promises(name: str) -> Iterator[tuple[str, str]]:
    """Every promise that one public name makes."""
    thing = getattr(worldsim, name)
    if not inspect.isclass(thing) or is_dataclass(thing):
        yield name, arguments(thing)
        return
    for attribute, value in vars(thing).items():
        if not attribute.startswith("_"):
            yield f"{name}.{attribute}", "property" if isinstance(value, property) else arguments(value)


def test_the_public_names_are_the_promised_ones() -> None:
    assert worldsim.__all__ == ["Chunk", "Mark", "Reality", "Session", "World", "WorldSimError", "load", "restore"]


def test_methods_arguments_and_defaults_are_the_promised_ones() -> None:
    assert dict(found for name in worldsim.__all__ for found in promises(name)) == PROMISED


def test_everything_public_says_what_it_gives() -> None:
    for name in (*worldsim.__all__, *PROMISED):
        thing = worldsim
        for part in name.split("."):
            thing = getattr(thing, part)
        assert inspect.getdoc(thing), f"{name} has no docstring"
