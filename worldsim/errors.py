"""Everything worldsim raises on purpose.

WorldSimError
├── ConfigError           a setting cannot work, whatever the input
│   └── UnknownName       a world, key, policy, device or codec by a name nobody knows
├── ShapeError            a tensor does not fit what it was given to
├── WeightsError          a weights file is torn, foreign or of another shape
├── NotShipped            a world is known but its weights are not in the package
├── ActionsError          a line of an actions or a prompts file cannot be read
├── DataError             recorded episodes are missing, torn or of another world
├── BrokenRun             a recording or a training run cannot go on; what it kept before is whole
├── EngineFull            an engine has as many sessions as it has capacity for
├── PoolFull              the page pool has no page left for the next block
├── SpillError            keys and values cannot be moved out of memory, or not be read back
├── IntegrityError        the page pool's books do not balance: a defect in worldsim, report it
├── BrokenBlock           a block came out with numbers that are none
├── SessionClosed         a session was used after it was closed
├── SessionPaused         a session was asked for a block while it was paused
├── SessionBusy           a session was used while another thread is using it
├── LogError              a session log cannot be read, or does not fit the world it is lived again in
├── SnapshotError         a saved session is torn, foreign or of another world
├── NotReproduced         a log that was lived again gave other latents or pixels than it had recorded
├── ProtocolError         a client and a server misunderstood each other, or one asked for what it may not have
├── VideoError            a video file could not be written to its end
└── MissingDependency     an optional package is needed for this and is not installed
"""

from __future__ import annotations

import operator
import shlex
from collections.abc import Iterable
from difflib import get_close_matches

LONGEST_SHOWN = 80
"""Characters of what was given that an error repeats."""


def shown(given: object) -> str:
    """What was given, as an error repeats it: its repr, which steers no terminal, cut where it is long."""
    try:
        text = " ".join(repr(given).split("\n"))
    except ValueError:
        return "a number of more digits than can be written"
    except (AttributeError, TypeError, RuntimeError):
        text = f"a {type(given).__name__} that cannot be written"
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 3]}..."


def whole(given: object, wanted: str) -> int:
    """The whole number that was given; ConfigError, which says what is wanted, if it is none."""
    try:
        if not isinstance(given, bool):
            return int(operator.index(given))  # type: ignore[arg-type]  # it says whether it fits
    except TypeError:
        pass
    raise ConfigError(f"{wanted}, got {shown(given)}")


def counted(number: int, what: str) -> str:
    """So many of something, as a text: "1 frame", "2 frames"."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def installing(extra: str) -> str:
    """The command that installs an optional part of worldsim, in its folder."""
    return f".venv/bin/pip install --constraint constraints.txt --editable '.[{extra}]'"


def fetching(repository: str, *names: str, into: object) -> str:
    """The command that brings files of a repository on the Hugging Face hub into a folder."""
    return f"`{shlex.join(['hf', 'download', repository, *names, '--local-dir', str(into)])}`"


class WorldSimError(Exception):
    """Catch this to catch every error that worldsim raises on purpose."""


class ConfigError(WorldSimError, ValueError):
    """A setting cannot work, whatever the input."""


class UnknownName(ConfigError):
    """A name that nobody knows, with the names that would fit.

    Args:
        kind: what it would be the name of.
        given: the name.
        known: those that fit.
        of: what it would belong to, if that is not all of worldsim.
    """

    def __init__(self, kind: str, given: object, known: Iterable[str], *, of: str = "") -> None:
        names = sorted(known)
        near = get_close_matches(given[:LONGEST_SHOWN], names, n=1) if isinstance(given, str) else []
        hint = f"; did you mean {near[0]!r}?" if near else ""
        owner = f" of {of}" if of else ""
        super().__init__(f"there is no {kind} {shown(given)}{owner}; known: {', '.join(names) or 'none'}{hint}")


class ShapeError(WorldSimError, ValueError):
    """A tensor does not fit what it was given to."""


class WeightsError(WorldSimError):
    """A weights file is torn, foreign or of another shape."""


class NotShipped(WorldSimError):
    """A world is known but its weights are not in the package."""


class ActionsError(WorldSimError, ValueError):
    """A line of an actions or a prompts file cannot be read."""


class DataError(WorldSimError):
    """Recorded episodes are missing, torn or of another world."""


class BrokenRun(WorldSimError):
    """A recording or a training run cannot go on; what it kept before is whole."""


class EngineFull(WorldSimError):
    """An engine has as many sessions as it has capacity for; try again when one has been closed."""


class PoolFull(WorldSimError, MemoryError):
    """The page pool has no page left for the next block."""


class SpillError(WorldSimError, OSError):
    """Keys and values cannot be moved out of memory, or not be read back; the logs of sessions rebuild them."""


class IntegrityError(WorldSimError):
    """The page pool's books do not balance: a defect in worldsim, report it."""


class BrokenBlock(WorldSimError):
    """A block came out with numbers that are none; the session is where it was before it."""


class SessionClosed(WorldSimError):
    """A session was used after it was closed."""


class SessionPaused(WorldSimError):
    """A session was asked for a block while it was paused."""


class SessionBusy(WorldSimError):
    """A session was used while another thread is using it; nothing has changed."""


class LogError(WorldSimError):
    """A session log cannot be read, or does not fit the world it is lived again in."""


class SnapshotError(WorldSimError):
    """A saved session is torn, foreign or of another world."""


class NotReproduced(WorldSimError):
    """A log that was lived again gave other latents or pixels than it had recorded."""


class ProtocolError(WorldSimError):
    """A client and a server misunderstood each other, or one asked for what it may not have.

    Args:
        code: one word for programs.
        text: a sentence for people.
        close: the code that the connection is closed with; None leaves it open.
        retry_after_ms: when to try again, where that can help.
    """

    def __init__(self, code: str, text: str, *, close: int | None = None, retry_after_ms: int | None = None) -> None:
        super().__init__(text)
        self.code = code
        self.close = close
        self.retry_after_ms = retry_after_ms


class VideoError(WorldSimError, OSError):
    """A video file could not be written to its end; the part written stays playable."""


class MissingDependency(WorldSimError, ImportError):
    """An optional package is needed for this and is not installed."""
