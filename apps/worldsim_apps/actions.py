"""Scripted key presses: JSON lines that say from which block on which keys are held."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from worldsim.controls import Controls, Keys
from worldsim.errors import ActionsError, UnknownName

EXAMPLE = '{"block": 12, "keys": ["KeyW", "ArrowLeft"]}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Actions:
    """Which keys are held at each block: those of the latest line at or before it, none before the first line.

    blocks: where each line begins, strictly ascending from 0.
    held: the keys of each line.
    """

    blocks: tuple[int, ...] = ()
    held: tuple[Keys, ...] = ()

    def keys_at(self, block: int) -> Keys:
        """The keys held at that block, counted from 0."""
        line = bisect_right(self.blocks, block)
        return self.held[line - 1] if line else frozenset()


def read_actions(path: Path, controls: Controls) -> Actions:
    """Read an actions file, UTF-8, one object a line, such as {"block": 12, "keys": ["KeyW", "ArrowLeft"]}.

    A state holds until the next line; blank lines count for nothing.

    Raises:
        ActionsError: the file cannot be read, or a line of it; names the file, the line and what would fit.
    """
    blocks: list[int] = []
    held: list[Keys] = []
    for line in _lines(path):
        block, keys = line.parse(controls)
        if blocks and block <= blocks[-1]:
            line.refuse(f"block {block} comes after block {blocks[-1]}; blocks ascend from line to line")
        blocks.append(block)
        held.append(keys)
    return Actions(blocks=tuple(blocks), held=tuple(held))


def _lines(path: Path) -> Iterator[_Line]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ActionsError(f"cannot read the actions file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ActionsError(f"{path} is not UTF-8 text (byte {error.start}); write lines such as {EXAMPLE}") from error
    for number, content in enumerate(text.split("\n"), start=1):
        if content.strip():
            yield _Line(path, number, content.strip())


@dataclass(frozen=True, slots=True)
class _Line:
    path: Path
    number: int
    text: str

    def parse(self, controls: Controls) -> tuple[int, Keys]:
        try:
            fields = json.loads(self.text)
        except (ValueError, RecursionError) as error:
            self.refuse(f"not JSON ({error}): {self._given}; write {EXAMPLE}")
        if not isinstance(fields, dict) or fields.keys() != {"block", "keys"}:
            self.refuse(f"a line has the two fields block and keys, such as {EXAMPLE}; got {self._given}")
        block, keys = fields["block"], fields["keys"]
        if type(block) is not int or block < 0:  # bool is an int too
            self.refuse(f"block is a whole number from 0, got {self._given}")
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            self.refuse(f'keys is a list of names such as ["KeyW"], or [] for none; got {self._given}')
        try:
            return block, controls.check(keys)
        except UnknownName as error:
            self.refuse(str(error))

    def refuse(self, reason: str) -> NoReturn:
        raise ActionsError(f"{self.path}, line {self.number}: {reason}")

    @property
    def _given(self) -> str:
        return self.text if len(self.text) <= 80 else self.text[:77] + "..."
