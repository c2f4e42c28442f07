"""Scripts of a walk: JSON lines that say from when on which keys are held, or what a world is told in words."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any, NoReturn

from worldsim.controls import Controls, Keys
from worldsim.errors import ActionsError, ConfigError, UnknownName
from worldsim.files import read_bytes
from worldsim.session.prompt import Coming, check_over, cut_prompt
from worldsim_apps.telling import say

EXAMPLES = {"keys": '{"block": 12, "keys": ["KeyW", "ArrowLeft"]}', "prompt": '{"block": 12, "prompt": "a lake"}'}
"""A line of each kind of script, by the field that it has beside its time."""
KINDS = {"keys": "actions", "prompt": "prompts"}
TIMES = {"block", "seconds"}
"""A line has one of these."""
OPTIONS = {"keys": set[str](), "prompt": {"over"}}
"""What a line of each kind may have besides."""
MOST_SECONDS = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How the blocks of a walk follow each other in world time.

    fps: frames in one second.
    frames: of a block.
    lacking: so many fewer has the first one.
    """

    fps: int
    frames: int
    lacking: int = 0

    def block_at(self, seconds: float) -> int:
        """The first block that begins at or after that time since the walk began."""
        # Of the decimals that were written: as floats, 0.28 s at 25 frames a second are more than 7 frames.
        return self.blocks(Fraction(str(seconds)) * self.fps)

    def blocks(self, frames: int | Fraction) -> int:
        """How many blocks have begun before so many frames are made."""
        return ceil((frames + self.lacking) / self.frames) if frames else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Actions:
    """Which keys are held at each block: those of the latest line at or before it, none before the first line.

    blocks: where each line begins, strictly ascending from 0.
    held: the keys of each line.
    prompts: what the world is told and over how many blocks, by the block that is the first to hear it.
    """

    blocks: tuple[int, ...] = ()
    held: tuple[Keys, ...] = ()
    prompts: Mapping[int, Coming] = field(default_factory=dict)

    def told(self, prompts: Mapping[int, Coming]) -> Actions:
        """The same keys, and prompts."""
        return replace(self, prompts=prompts)

    @property
    def beginning(self) -> str | None:
        """What the world is told to begin with, if it is told anything."""
        return self.prompts[0][0] if 0 in self.prompts else None

    def keys_at(self, block: int) -> Keys:
        """The keys held at that block, counted from 0."""
        line = bisect_right(self.blocks, block)
        return self.held[line - 1] if line else frozenset()


def read_actions(path: Path, controls: Controls, pace: Pace) -> Actions:
    """Read an actions file, UTF-8, one object a line, such as {"block": 12, "keys": ["KeyW", "ArrowLeft"]}.

    In place of its block a line may have a time, as in {"seconds": 2.5, "keys": []}: that of the first block which
    begins then or later. A state holds until the next line; blank lines count for nothing.

    Raises:
        ActionsError: the file cannot be read, or a line of it; names the file, the line and what would fit.
    """
    blocks: list[int] = []
    held: list[Keys] = []
    for line, block, fields in _script(path, "keys", pace):
        keys = fields["keys"]
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            line.refuse(f'keys is a list of names such as ["KeyW"], or [] for none; got {line.given}')
        try:
            held.append(controls.check(keys))
        except UnknownName as error:
            line.refuse(str(error))
        blocks.append(block)
    return Actions(blocks=tuple(blocks), held=tuple(held))


def read_prompts(path: Path, pace: Pace) -> dict[int, Coming]:
    """Read a prompts file, UTF-8, one object a line, such as {"block": 12, "prompt": "a lake"}: prompts by block.

    A time may be there in place of a block, as for read_actions, and "over": 3 besides, for a prompt that is heard
    alone from the third block on. It holds until the next line; of more than 4,000 characters the end is left out,
    which is said on stderr. Blank lines count for nothing.

    Raises:
        ActionsError: as for read_actions.
    """
    told: dict[int, Coming] = {}
    for line, block, fields in _script(path, "prompt", pace):
        prompt = fields["prompt"]
        if not isinstance(prompt, str) or not prompt.strip() or not _is_text(prompt):
            line.refuse(f'prompt is a text such as "a lake"; got {line.given}')
        kept, lost = cut_prompt(prompt)
        told[block] = kept, line.over(fields, block)
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


def _script(path: Path, field: str, pace: Pace) -> Iterator[tuple[_Line, int, dict[str, Any]]]:
    """Each line of a script with its block and its fields, of which nobody has looked at others."""
    latest = -1
    for line in _lines(path, field):
        fields = line.parse(field)
        block = line.block(fields, pace)
        if block <= latest:
            first = f" (the first from {fields['seconds']} s on)" if "seconds" in fields else ""
            line.refuse(f"block {block}{first} comes after block {latest}; blocks ascend from line to line")
        latest = block
        yield line, block, fields


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

    def parse(self, field: str) -> dict[str, Any]:
        """Its fields: that one, a time, and what it may have besides."""
        try:
            fields = json.loads(self.text, object_pairs_hook=_fields)
        except (ValueError, RecursionError) as error:
            self.refuse(f"not JSON ({error}): {self.given}; write {EXAMPLES[field]}")
        given = fields.keys() - OPTIONS[field] if isinstance(fields, dict) else set()
        if given not in [{field, time} for time in TIMES]:
            besides = "".join(f', and may have "{option}" besides' for option in OPTIONS[field])
            self.refuse(
                f"a line has the field {field} and either block or seconds, such as {EXAMPLES[field]} or "
                f'"seconds": 2.5 in place of its block{besides}; got {self.given}'
            )
        return dict(fields)

    def block(self, fields: Mapping[str, Any], pace: Pace) -> int:
        """The block that it is of."""
        if "seconds" in fields:
            seconds = fields["seconds"]
            if type(seconds) not in (int, float) or not 0 <= seconds <= MOST_SECONDS:  # bool is an int too
                self.refuse(f"seconds is a number from 0 to {MOST_SECONDS:,}, got {self.given}")
            return pace.block_at(seconds)
        block = fields["block"]
        if type(block) is not int or block < 0:
            self.refuse(f"block is a whole number from 0, got {self.given}")
        return block

    def over(self, fields: Mapping[str, Any], block: int) -> int:
        """Over how many blocks its prompt takes effect."""
        try:
            over = check_over(fields.get("over", 1))
        except ConfigError as error:
            self.refuse(f"{error}, in {self.given}")
        if block == 0 and over > 1:
            self.refuse(f"before block 0 nothing is told that a prompt could follow on; leave over out of {self.given}")
        return over

    def remark(self, text: str) -> None:
        say(f"{self.path}, line {self.number}: {text}")

    def refuse(self, reason: str) -> NoReturn:
        raise ActionsError(f"{self.path}, line {self.number}: {reason}")

    @property
    def given(self) -> str:
        return self.text if len(self.text) <= 80 else self.text[:77] + "..."
