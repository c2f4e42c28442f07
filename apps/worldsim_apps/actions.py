"""Scripts of a walk: JSON lines that say from which block on which keys are held, or what a world is told in words."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from worldsim.controls import Controls, Keys
from worldsim.errors import ActionsError, UnknownName
from worldsim.files import read_bytes
from worldsim.session.prompt import cut_prompt
from worldsim_apps.telling import say

EXAMPLES = {"keys": '{"block": 12, "keys": ["KeyW", "ArrowLeft"]}', "prompt": '{"block": 12, "prompt": "a lake"}'}
"""A line of each kind of script, by the field that it has beside its block."""
KINDS = {"keys": "actions", "prompt": "prompts"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Actions:
    """Which keys are held at each block: those of the latest line at or before it, none before the first line.

    blocks: where each line begins, strictly ascending from 0.
    held: the keys of each line.
    prompts: what the world is told, by the block that is the first to hear it.
    """

    blocks: tuple[int, ...] = ()
    held: tuple[Keys, ...] = ()
    prompts: Mapping[int, str] = field(default_factory=dict)

    def told(self, prompts: Mapping[int, str]) -> Actions:
        """The same keys, and prompts."""
        return replace(self, prompts=prompts)

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
    for line, block, keys in _script(path, "keys"):
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            line.refuse(f'keys is a list of names such as ["KeyW"], or [] for none; got {line.given}')
        try:
            held.append(controls.check(keys))
        except UnknownName as error:
            line.refuse(str(error))
        blocks.append(block)
    return Actions(blocks=tuple(blocks), held=tuple(held))


def read_prompts(path: Path) -> dict[int, str]:
    """Read a prompts file, UTF-8, one object a line, such as {"block": 12, "prompt": "a lake"}: prompts by block.

    A prompt holds until the next line; of more than 4,000 characters the end is left out, which is said on stderr.
    Blank lines count for nothing.

    Raises:
        ActionsError: as for read_actions.
    """
    told: dict[int, str] = {}
    for line, block, prompt in _script(path, "prompt"):
        if not isinstance(prompt, str) or not prompt.strip() or not _is_text(prompt):
            line.refuse(f'prompt is a text such as "a lake"; got {line.given}')
        told[block], lost = cut_prompt(prompt)
        if lost:
            line.remark(
                f"the last {lost:,} of the {len(prompt):,} characters of its prompt are left out, being too many"
            )
    return told


def unread(begins: Sequence[int], blocks: int) -> str:
    """What of a script has no part in so many blocks, given the block that each line is of; nothing if all has."""
    late = [block for block in begins if block >= blocks]
    if not begins:
        return "it has no line, so it changes nothing"
    if late:
        return f"the walk has blocks 0 to {blocks - 1}, so its line of block {late[0]} and all after it change nothing"
    return ""


def _script(path: Path, field: str) -> Iterator[tuple[_Line, int, Any]]:
    """Each line of a script with its block and what its other field holds, which nobody has looked at."""
    latest = -1
    for line in _lines(path, field):
        block, value = line.parse(field)
        if block <= latest:
            line.refuse(f"block {block} comes after block {latest}; blocks ascend from line to line")
        latest = block
        yield line, block, value


def _lines(path: Path, field: str) -> Iterator[_Line]:
    try:
        text = read_bytes(path, pipes=True).decode("utf-8-sig")
    except OSError as error:
        raise ActionsError(f"cannot read the {KINDS[field]} file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ActionsError(
            f"{path} is not UTF-8 text (byte {error.start}); write lines such as {EXAMPLES[field]}"
        ) from error
    for number, content in enumerate(re.split("\r\n?|\n", text), start=1):
        if content.strip():
            yield _Line(path, number, content.strip())


def _fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The fields of an object; ValueError if one is there twice, of which JSON would silently take the last."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a field is there twice")
    return fields


def _is_text(text: str) -> bool:
    """Whether it can be written: JSON may hold half of a character."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


@dataclass(frozen=True, slots=True)
class _Line:
    path: Path
    number: int
    text: str

    def parse(self, field: str) -> tuple[int, Any]:
        """Its block, and what the one other field that it may have holds."""
        try:
            fields = json.loads(self.text, object_pairs_hook=_fields)
        except (ValueError, RecursionError) as error:
            self.refuse(f"not JSON ({error}): {self.given}; write {EXAMPLES[field]}")
        if not isinstance(fields, dict) or fields.keys() != {"block", field}:
            self.refuse(f"a line has the two fields block and {field}, such as {EXAMPLES[field]}; got {self.given}")
        block = fields["block"]
        if type(block) is not int or block < 0:  # bool is an int too
            self.refuse(f"block is a whole number from 0, got {self.given}")
        return block, fields[field]

    def remark(self, text: str) -> None:
        say(f"{self.path}, line {self.number}: {text}")

    def refuse(self, reason: str) -> NoReturn:
        raise ActionsError(f"{self.path}, line {self.number}: {reason}")

    @property
    def given(self) -> str:
        return self.text if len(self.text) <= 80 else self.text[:77] + "..."
