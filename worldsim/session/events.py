"""What a client says to the server of a world, as plain values; frames go the other way, see worldsim.session.wire.

Every message is a JSON object with a "type". Fields that are not known are ignored: a later version may add some.
The page for whoever writes a client is docs/protocol.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from types import NoneType, UnionType
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

from worldsim.errors import ProtocolError

SUBPROTOCOL = "worldsim.v1"
MOST_TEXT = 64 * 1024
"""Bytes of the longest message that a server reads."""
MOST_PROMPT = 4_000
"""Characters of a prompt, at the most, wherever it comes from."""
MOST_OVER = 10**6
"""Blocks that a prompt takes effect over, at the most."""

MOST_WORD = 64
"""Characters of each text in a list, such as the name of a key."""

Role = Literal["player", "spectator"]
Codec = Literal["jpeg", "h264", "raw"]
Op = Literal[
    "pause", "resume", "step", "mark", "rewind", "fork", "save", "load", "reset", "look", "map", "record", "film"
]
NAME = re.compile(r"[0-9a-f]{32}")
"""What sessions, saved worlds and their logs are called: never anything that a client made up."""


def _text(most: int) -> Any:
    """A field of text of that many characters at most. "most" counts characters and items, and bounds numbers."""
    return field(default="", metadata={"most": most})


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """The first message of a client.

    role: who steers, or who watches.
    codecs: those that the client can show, the best first; such as are not known are passed over.
    token: what the server was started with, if it asks for one.
    session: which session to watch, or to go on with.
    resume: the single-use token of that session, from its `started`; only a player has one.
    epoch, blocks: up to where a player that goes on has received it: all of the blocks below that number.
    """

    role: Role = "player"
    codecs: tuple[str, ...] = field(default=("jpeg",), metadata={"most": 8})
    token: str = _text(256)
    session: str = _text(32)
    resume: str = _text(64)
    epoch: int = 0
    blocks: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Begin a session.

    seed: of everything that is left to chance.
    start: number of a starting place; drawn by the seed if null.
    image: begin from this picture instead, a PNG or JPEG in base64.
    prompt: what is shown, in a world that is told; "" for nothing in particular.
    pace: world time for one second of real time, 0 to 16; 0 is as fast as acknowledgements come.
    """

    seed: int = 0
    start: int | None = None
    image: str = _text(MOST_TEXT)
    prompt: str = _text(MOST_PROMPT)
    pace: float = field(default=1.0, metadata={"most": 16})


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """What the player holds from now on. State, not edges; the newest wins at the next block.

    seq: rises with every action; one that does not is late and left out.
    keys: W3C event.code names.
    """

    seq: int = field(metadata={"most": 2**32 - 1})
    keys: tuple[str, ...] = field(default=(), metadata={"most": 32})


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What the world is told in words from the next block on. Answered with `state`, or with `error`.

    text: what is to be shown.
    over: blocks until it is heard alone, from 1; until then each hears more of it and less of what was said before.
    """

    text: str = field(metadata={"most": MOST_PROMPT})
    over: int = field(default=1, metadata={"most": MOST_OVER})


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """A verb. Answered with `state`, or with `marked`, `forked`, `saved` or `error`.

    op: which.
    blocks: of `step`, how many to make while paused; of `rewind`, how many to go back.
    mark: of `rewind`, the mark to go back to instead.
    world: of `load`, what `saved` called it; of `film`, what `recorded` called it.
    seed, start: of `reset`, as in Start.
    image: of `reset`, as in Start; in a world that is shown pictures the same one as before if "".
    prompt: of `reset`, as in Start; what was said last if null.
    on: of `record`, whether to begin or to end.
    """

    op: Op
    blocks: int = field(default=1, metadata={"most": 10**6})
    mark: int | None = None
    world: str = _text(32)
    seed: int = 0
    start: int | None = None
    image: str = _text(MOST_TEXT)
    prompt: str | None = field(default=None, metadata={"most": MOST_PROMPT})
    on: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Tell:
    """What this connection is told with the frames from now on, beside what all are told.

    seen: which frames of the past their block saw.
    """

    seen: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """All blocks of that epoch below that number have arrived."""

    epoch: int
    blocks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping:
    """Asks for a `pong` with the same number, to measure the way there and back."""

    t: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bye:
    """The client is done: its session ends now, not in a minute."""


Message = Hello | Start | Act | Prompt | Control | Tell | Ack | Ping | Bye
MESSAGES: Mapping[str, type[Message]] = {
    "hello": Hello,
    "start": Start,
    "action": Act,
    "prompt": Prompt,
    "control": Control,
    "tell": Tell,
    "ack": Ack,
    "ping": Ping,
    "bye": Bye,
}


HINTS = {name: get_type_hints(kind) for name, kind in MESSAGES.items()}


def read_message(text: str) -> Message:
    """The message that a client wrote.

    Raises:
        ProtocolError: it is no JSON object with a type, which ends the connection; or its type is not known or a field
            does not fit, which does not.
    """
    try:
        given = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ProtocolError(
            "not_json", f"a control message is a JSON object, got no JSON: {why}", close=4400
        ) from error
    if not isinstance(given, dict) or not isinstance(given.get("type"), str):
        raise ProtocolError("no_type", 'a control message is a JSON object with a "type"', close=4400)
    kind = MESSAGES.get(given["type"])
    if kind is None:
        raise ProtocolError(
            "unknown_type", f"no message is called {given['type'][:40]!r}; known: {', '.join(MESSAGES)}"
        )
    hints = HINTS[given["type"]]
    values: dict[str, Any] = {}
    for one in fields(kind):
        if one.name in given:
            values[one.name] = _fit(given["type"], one.name, hints[one.name], given[one.name], one.metadata.get("most"))
    needed = [one.name for one in fields(kind) if one.default is MISSING and one.name not in values]
    if needed:
        raise ProtocolError("bad_field", f"{given['type']}: a field is missing: {', '.join(needed)}")
    return kind(**values)


def type_of(message: str | bytes) -> str | None:
    """The type that a message says it is of, None where none of those that are known can be made out."""
    try:
        said = json.loads(message)["type"]
    except (ValueError, RecursionError, TypeError, KeyError):
        return None
    return said if isinstance(said, str) and said in MESSAGES else None


def write_message(kind: str, **values: Any) -> str:
    """The text of a message of that type, to either end."""
    return json.dumps({"type": kind, **values}, separators=(",", ":"))


def _fit(kind: str, name: str, wanted: Any, value: Any, most: int | None) -> Any:
    """The value as a field of that type; ProtocolError where it does not fit."""
    if (most is None or _size(value) <= most) and _fits(wanted, value):
        return tuple(value) if get_origin(wanted) is tuple else float(value) if wanted is float else value
    if most is None and _size(value) >= 2**64:
        most = 2**64 - 1
    is_list = get_origin(wanted) is tuple
    limit = "" if most is None or is_list else f" of at most {most}"
    described, got = _described(wanted, most), _given(value, most) if is_list else json.dumps(value)[:60]
    raise ProtocolError("bad_field", f"{kind}: {name} is {described}{limit}, got {got}")


def _given(value: Any, most: int | None) -> str:
    """What was given for a list: how many or how long, where that is what is wrong."""
    if isinstance(value, list) and most is not None and len(value) > most:
        return f"{len(value):,} of them"
    longest = max((len(one) for one in value if isinstance(one, str)), default=0) if isinstance(value, list) else 0
    return f"one of {longest:,} characters" if longest > MOST_WORD else json.dumps(value)[:60]


def _size(value: Any) -> float:
    """Before anything that takes longer the longer a value is; 0 of what has no size, which fits nothing anyway."""
    if isinstance(value, str | list):
        return len(value)
    return value if isinstance(value, int | float) else 0


def _fits(wanted: Any, value: Any) -> bool:
    origin, inside = get_origin(wanted), get_args(wanted)
    if origin is Literal:
        return isinstance(value, str) and value in inside
    if origin is UnionType:
        return any(_fits(one, value) for one in inside)
    if origin is tuple:
        return isinstance(value, list) and all(_fits(inside[0], one) and _size(one) <= MOST_WORD for one in value)
    if wanted is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**64
    if wanted is bool:
        return isinstance(value, bool)
    if wanted is int:
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**64
    return isinstance(value, cast(type, NoneType if wanted is None else wanted))


def _described(wanted: Any, most: int | None = None) -> str:
    origin, inside = get_origin(wanted), get_args(wanted)
    if origin is Literal:
        return f"one of {', '.join(inside)}"
    if origin is UnionType:
        return " or ".join(_described(one) for one in inside)
    if origin is tuple:
        return f"a list of at most {most}, each {_described(inside[0])} of at most {MOST_WORD}"
    names = {
        bool: "true or false",
        float: "a number from 0",
        int: "a whole number from 0",
        str: "text",
        NoneType: "null",
    }
    return names[wanted]


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")
