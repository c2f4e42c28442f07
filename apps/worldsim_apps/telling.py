"""What a command tells: its result on stdout, and on stderr, in one line each, remarks and why there is no result."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from typing import Any

import typer

from worldsim_apps.stopping import terminable

STOPPED = 130
"""The exit code after Ctrl-C or SIGTERM."""
LONGEST_WORD = 80
"""Characters of a word that somebody mistyped; what is longer is cut where it is told."""
OUT_OF_MEMORY = ("can't allocate memory", "out of memory")
"""What torch says when it has too little memory, on a CPU and on a GPU."""
LESS_MEMORY = (
    "there is too little memory for this; close other programs, or have less held, where the command has such options: "
    "--policy window:frames=12 sees a shorter past, --budget 256MB keeps most of a long one on disk"
)


REMEDIES: Mapping[int, str] = {
    errno.EFBIG: "raise the limit on the size of a file (ulimit -f), or name a place where files may be larger",
    errno.ENOSPC: "free some space, or name a place that has more",
    errno.EDQUOT: "free some space, or name a place that has more",
    errno.EEXIST: "remove what is there, or name another place",
    errno.EINVAL: "name an ordinary file",
    errno.ENOTDIR: "what it would lie in is a file and no folder, so name another place",
}
"""What to do about what the file system refuses, where that is not the same for all."""


class Refused(Exception):
    """What was asked cannot be done; the text says why, to the user."""


class Stopped(Exception):
    """Ctrl-C or SIGTERM ended it within a block; the text says which, and what is left of it."""


@contextmanager
def refusals() -> Iterator[None]:
    """Turn what worldsim, the file system and the memory refuse, Ctrl-C and SIGTERM into a line for the user."""
    from worldsim.errors import WorldSimError

    try:
        with terminable():
            yield
    except KeyboardInterrupt as error:
        # Named where it was not Ctrl-C, see stopping.
        raise Stopped(_noted(f"stopped by {str(error) or 'Ctrl-C'}", error)) from error
    except WorldSimError as error:
        raise Refused(_noted(str(error), error)) from error
    except OSError as error:
        raise Refused(_noted(_reason(error), error)) from error
    except MemoryError as error:
        raise Refused(_noted(LESS_MEMORY, error)) from error
    except RuntimeError as error:
        if not any(sign in str(error) for sign in OUT_OF_MEMORY):
            raise
        raise Refused(_noted(LESS_MEMORY, error)) from error


def report(result: str | dict[str, Any]) -> None:
    """Tell a result, a dict as JSON; quietly not, if whoever read it has gone.

    Raises:
        Refused: it cannot be written to where stdout leads.
    """
    try:
        typer.echo(printable(result) if isinstance(result, str) else json.dumps(result))
    except OSError as error:
        # What is still held back would be tried again when the process ends, and tell of it in many lines.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise Refused(
                f"all is done, but stdout cannot be written to: {error.strerror}; lead it elsewhere"
            ) from error


def say(text: str) -> None:
    """Tell a person something in one line on stderr."""
    with suppress(OSError):
        typer.echo(f"worldsim: {printable(' '.join(text.split()))}", err=True)


def printable(text: str) -> str:
    """The text with all that would steer a terminal as escapes, but for ends of lines."""
    return "".join(at if at.isprintable() or at == "\n" else repr(at)[1:-1] for at in text)


def write_anything() -> None:
    """Let stdout and stderr write escapes for what their encoding does not have."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def misused(error: typer.TyperException) -> str:
    """What was wrong with how a command was called, what was given, and which help says what fits."""
    from pydantic import ValidationError

    said = error.format_message().rstrip(".")
    if isinstance(error.__cause__, ValidationError):
        said = f"{said}, got {error.__cause__.errors()[0]['input']!r}"
    words = (word if len(word) <= LONGEST_WORD else f"{word[: LONGEST_WORD - 3]}..." for word in said.split())
    context = getattr(error, "ctx", None)  # which some of typer's errors have
    command = context.command_path if context else "worldsim"
    return f"{' '.join(words)}{'' if said.endswith('?') else '.'} {command} --help says what fits."


def _reason(error: OSError) -> str:
    """Why a file cannot be used, and what to do, where the system tells no more than a number."""
    if error.errno == errno.ENOMEM:
        return LESS_MEMORY
    remedy = None if error.errno is None else REMEDIES.get(error.errno)
    # Without a file and a number that only files have it is about something else, such as an address.
    if error.strerror is None or (error.filename is None and remedy is None):
        return str(error)
    remedy = remedy or "free some space, or name a place that can be written"
    return f"cannot use {error.filename or 'a file'}: {error.strerror}; {remedy}"


def _noted(text: str, error: BaseException) -> str:
    return "; ".join([text, *getattr(error, "__notes__", ())])
