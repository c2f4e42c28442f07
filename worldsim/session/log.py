"""A session's log: what it began from and what each block was made under, enough to live it again.

A log is text, a record a line, each followed by its checksum. What was being written when the power went is dropped;
everything before it stays.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from worldsim.errors import ConfigError, LogError
from worldsim.session.prompt import check_over, check_prompt

FORMAT = 1
Keys = frozenset[str]
UNTOLD = ("linears", "compiled", "offload", "preview")
"""What could be chosen before logs told of it: where one does not, nobody knows."""
_PLANNED = {
    "policy": (str,),
    "sigmas": (list,),
    "frames_per_block": (int,),
    "kv": (str, type(None)),
    "recall": (bool,),
    "noise": (str,),
    "clean_pass": (bool,),
    "linears": (str, type(None)),
    "compiled": (bool,),
    "offload": (bool,),
    "preview": (str, type(None)),
}
"""What a plan in a log says, and the types that it has there."""
_BEFORE = {
    **{"kv": None, "recall": False, "noise": "plain", "clean_pass": True},
    **{"linears": None, "compiled": False, "offload": False},
}
"""What is taken for it where a log does not say it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Frames that a session was begun from: their bytes, uint8 [F, H, W, 3], and the keys held at each.

    hour: the frame of the world's day that the last of them shows, if that is known.
    """

    pixels: bytes
    shape: tuple[int, int, int, int]
    keys: tuple[Keys, ...]
    hour: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What a session began from.

    world, weights: name of the world and SHA-256 of its weights file.
    plan: how its blocks are made, in plain values; equal plans make equal blocks.
    machine: what decides the last bits: library, device, number format, threads.
    seed: of all that is left to chance.
    start: number of the starting place, or None if it was begun from given frames.
    given: those frames.
    prompt: what it was told to show, if its world is told anything.
    """

    world: str
    weights: str
    plan: Mapping[str, Any]
    machine: Mapping[str, Any]
    seed: int
    start: int | None = None
    given: Given | None = None
    prompt: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One block: its number, the keys it was made under, and SHA-256 of its latents and of the pixels shown.

    prompt: what it is the first to hear of; None if it was told nothing new.
    over: blocks until that is heard alone.
    """

    block: int
    keys: Keys
    latents: str
    frames: str
    prompt: str | None = None
    over: int = 1


@dataclass(frozen=True, slots=True)
class Rewind:
    """The session went back to where it had made that many blocks."""

    blocks: int


Record = Opening | Step | Rewind


@dataclass(frozen=True, slots=True, eq=False)
class Trail:
    """The steps that led to a moment, the latest first; forks share what they have in common."""

    step: Step
    before: Trail | None

    def steps(self) -> tuple[Step, ...]:
        """All of them, the earliest first."""
        found: list[Step] = []
        at: Trail | None = self
        while at is not None:
            found.append(at.step)
            at = at.before
        return tuple(reversed(found))


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLog:
    """A whole log, with what was rewound left out.

    whole: the bytes of the text that could be read.
    torn: the bytes behind them, of a record that was not written to its end.
    """

    opening: Opening
    steps: tuple[Step, ...]
    whole: int = field(default=0, compare=False)
    torn: int = field(default=0, compare=False)

    def encode(self) -> bytes:
        """The text of this log."""
        return encode(self.opening) + b"".join(map(encode, self.steps))

    @classmethod
    def decode(cls, text: bytes) -> SessionLog:
        """Read the text of a log up to where it is torn.

        Raises:
            LogError: it does not begin as a log of this format, or its records do not follow from each other.
        """
        records = _records(text)
        opening, whole = next(records, (None, 0))
        if not isinstance(opening, Opening):
            raise LogError("this is no session log: it does not begin with a whole opening record")
        steps: list[Step] = []
        for number, (record, end) in enumerate(records, 2):
            match record:
                case Step() if record.block == len(steps):
                    steps.append(record)
                case Rewind() if 0 <= record.blocks <= len(steps):
                    del steps[record.blocks :]
                case _:
                    raise LogError(
                        f"line {number} {_says(record, len(steps))}; lines are missing, or two sessions were written "
                        "to one file; keep the file, and cut a copy off before that line to go on from there"
                    )
            whole = end
        return cls(opening=opening, steps=tuple(steps), whole=whole, torn=len(text) - whole)


def encode(record: Record) -> bytes:
    """One line of a log."""
    match record:
        case Opening():
            fields = {"format": FORMAT, **_plain(record, "world", "weights", "plan", "machine", "seed", "start")}
            # What was not there is left out, as it was before there was such a thing.
            if record.given is not None:
                fields["given"] = _encode_given(record.given)
            if record.prompt is not None:
                fields["prompt"] = record.prompt
        case Step():
            fields = _plain(record, "block", "latents", "frames") | {"keys": sorted(record.keys)}
            if record.prompt is not None:
                fields |= _plain(record, "prompt", "over")
        case Rewind():
            fields = {"rewind": record.blocks}
    text = json.dumps(fields, separators=(",", ":"), sort_keys=True).encode()
    return b"%s\t%08x\n" % (text, zlib.crc32(text))


def _plain(record: Record, *names: str) -> dict[str, Any]:
    return {name: getattr(record, name) for name in names}


def _records(text: bytes) -> Iterator[tuple[Record, int]]:
    """The whole records of a text, each with the place where it ends; stops where the text is torn.

    Only an end can be torn. A record that is not whole although whole ones follow was damaged, and is a LogError.
    """
    end, lines = 0, text.split(b"\n")
    for number, line in enumerate(lines):
        body = _whole(line)
        if body is None or number == len(lines) - 1:
            if any(_whole(later) is not None for later in lines[number + 1 :]):
                raise LogError(
                    f"line {number + 1} is damaged, and whole records follow it; keep the file, and cut a copy "
                    "off before that line to go on from there"
                )
            return
        end += len(line) + 1
        yield _decode(_fields(body)), end


def is_log(path: Path) -> bool:
    """Whether a file begins as a log of this format does."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        line = file.readline()
    try:
        return any(isinstance(record, Opening) for record, _ in _records(line))
    except LogError:
        return False


def detour(here: Trail | None, there: Trail | None) -> list[Record]:
    """What a log has to be told when a session leaves one trail for another."""
    steps = there.steps() if there else ()
    old = here.steps() if here else ()
    shared = 0
    while shared < min(len(steps), len(old)) and steps[shared] is old[shared]:
        shared += 1
    back: list[Record] = [Rewind(shared)] if shared < len(old) else []
    return [*back, *steps[shared:]]


def plan_told(opening: Opening) -> dict[str, Any]:
    """The plan of a session, also what its log is too old to say; LogError if no world was ever loaded with it."""
    plan = _BEFORE | dict(opening.plan)
    wrong = [f"{name} {plan.get(name)!r:.80}" for name, kind in _PLANNED.items() if type(plan.get(name)) not in kind]
    if wrong:
        raise LogError(f"that log tells of a plan that no world was loaded with: {'; '.join(wrong)}")
    return plan


def check_lived(then: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Raise LogError, which names what differs, unless what was lived so can be lived again here.

    Args:
        then: what a log tells of its world: name, weights and plan.
        here: the same of the world that is here.
    """
    wrong = {
        name: f"{name} {then.get(name)}, here it is {here.get(name)}"
        for name in dict.fromkeys((*here, *then))
        if then.get(name) != here.get(name) and (name not in UNTOLD or (name in then and name in here))
    }
    if "linears" in wrong:
        wrong.pop("weights", None)  # those of 8 bits have a SHA-256 of their own
    which = ""
    if "preview" in wrong:
        named = ": preview=FILE or --preview FILE, the file with that SHA-256"
        which = named if then["preview"] else ": without a preview"
    if wrong:
        raise LogError(
            f"that session was lived with {'; '.join(wrong.values())}; load the world as it was then, with the same "
            f"options{which}"
        )


def _says(record: Record, made: int) -> str:
    """What is wrong with a record that comes after so many blocks, in words."""
    match record:
        case Opening():
            return f"begins another session, after {made} blocks of the first"
        case Step():
            return f"is of block {record.block}, and block {made} comes next"
        case Rewind():
            return f"goes back to where {record.blocks} blocks had been made, out of {made}"


def _fields(body: bytes) -> dict[str, Any]:
    try:
        fields: dict[str, Any] = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise LogError(f"a whole record is not one of a session log ({error!r})") from error
    if not isinstance(fields, dict):
        raise LogError("a whole record is not one of a session log: it is no object")
    return fields


def _whole(line: bytes) -> bytes | None:
    """What a line says, None if its checksum is not right."""
    body, tab, checksum = line.rpartition(b"\t")
    return body if tab and checksum == b"%08x" % zlib.crc32(body) else None


def _decode(fields: dict[str, Any]) -> Record:
    try:
        if "rewind" in fields:
            return Rewind(int(fields["rewind"]))
        if "block" in fields:
            return _decode_step(fields)
        if fields["format"] != FORMAT:
            raise LogError(f"this log has format {fields['format']}, known is {FORMAT}; read it with its own version")
        return _decode_opening(fields)
    except (ConfigError, KeyError, TypeError, ValueError, OverflowError, binascii.Error, zlib.error) as error:
        raise LogError(f"a whole record is not one of a session log ({error!r})") from error


def _decode_step(fields: dict[str, Any]) -> Step:
    step = Step(
        block=fields["block"],
        keys=_keys(fields["keys"]),
        latents=fields["latents"],
        frames=fields["frames"],
        prompt=_prompt(fields),
    )
    return step if step.prompt is None else replace(step, over=check_over(fields["over"]))


def _prompt(fields: dict[str, Any]) -> str | None:
    return None if fields.get("prompt") is None else check_prompt(fields["prompt"])


def _decode_opening(fields: dict[str, Any]) -> Opening:
    plan, machine, seed, start, given = (fields.get(name) for name in ("plan", "machine", "seed", "start", "given"))
    if not (isinstance(plan, dict) and isinstance(machine, dict) and isinstance(seed, int) and 0 <= seed < 2**64):
        raise TypeError("a plan and a machine are objects, and a seed a whole number")
    world, weights = fields["world"], fields["weights"]
    if not (isinstance(world, str) and isinstance(weights, str)):
        raise TypeError("a world and its weights are told by words")
    prompt = _prompt(fields)
    if not isinstance(start, int) and (start is not None or (given is None and prompt is None)):
        raise TypeError("a session begins at a place, from given frames or with a prompt")
    return Opening(
        world=world,
        weights=weights,
        plan=plan,
        machine=machine,
        seed=seed,
        start=start,
        given=None if given is None else _decode_given(given),
        prompt=prompt,
    )


def _encode_given(given: Given) -> dict[str, Any]:
    packed = base64.b85encode(zlib.compress(given.pixels)).decode()
    keys = [sorted(keys) for keys in given.keys]
    return {"shape": given.shape, "keys": keys, "pixels": packed, "hour": given.hour}


def _decode_given(fields: dict[str, Any]) -> Given:
    frames, height, width, channels = fields["shape"]
    size = frames * height * width * channels
    # A few bytes can unpack to any size: take one more than fits, no more.
    pixels = zlib.decompressobj().decompress(base64.b85decode(fields["pixels"]), size + 1)
    if len(pixels) != size:
        raise ValueError(f"{fields['shape']} has {size} bytes, not {len(pixels)}")
    keys = tuple(_keys(held) for held in fields["keys"])
    hour = fields["hour"] if fields["hour"] is None else int(fields["hour"])
    return Given(pixels=pixels, shape=(frames, height, width, channels), keys=keys, hour=hour)


def _keys(names: Iterable[Any]) -> Keys:
    keys = frozenset(names)
    if not all(isinstance(name, str) for name in keys):
        raise TypeError(f"keys are words, got {sorted(map(repr, keys))}")
    return keys
