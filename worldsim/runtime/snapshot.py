"""A session on disk: written whole or not at all, read only if nothing in it is torn or foreign."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from worldsim.decoding.state import COMPUTED, VideoState
from worldsim.errors import ConfigError, LogError, ShapeError, SnapshotError
from worldsim.files import checksum, naming, path_of, unfinished, unfinished_name
from worldsim.runtime.chunk import Frames
from worldsim.session.log import Opening, SessionLog, is_log
from worldsim.session.prompt import Coming, check_over, check_prompt

FORMAT = 2
Keep = Literal["log", "latents", "pages"]
"""What a snapshot keeps, from small to large.

"log": what happened; the session is lived again from its beginning, and is the same bit for bit.
"latents": the frames that the next block sees; the session goes on at once, from a context that is computed anew and so
    agrees only about.
"pages": the keys and values too; the session goes on at once, and bit for bit.
"""
_STATE = ("latents", "controls", "keys", "values")
_MAYBE = ("salient", "gists", "ahead")
"""What some plans leave in a state and others do not."""
_PAGE = (torch.bfloat16, *COMPUTED)
"""The kinds of numbers that keys and values may be: a pool casts them to its own, which a GPU may have others of."""
_MEMORY = "memory."
_MOST = 2**53
"""No session has as many blocks or frames; a larger number is none that was counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A saved session.

    log: from its beginning.
    state: of its decoder, if more than the log was kept; without pages, keys and values are empty.
    codec_state: what the codec knew, if more than the log was kept.
    shown: the newest frame, uint8 [H, W, 3], likewise.
    coming: what the session was told and no block has heard yet, if anything.
    """

    keep: Keep
    log: SessionLog
    state: VideoState | None = None
    codec_state: Any = None
    shown: Frames | None = None
    coming: Coming | None = None

    def state_for(self, size: tuple[int, int]) -> VideoState:
        """Its state, to go on from in a world of frames of that size, (height, width) in pixels; it must have one.

        Looked at is what a decoder that resumes it does not look at.

        Raises:
            ConfigError, ShapeError: no session of such a world was in it.
        """
        assert self.state is not None
        assert self.shown is not None
        for name in ("keys", "values"):
            _check_page(name, getattr(self.state, name))
        if self.shown.shape != (*size, 3):
            raise ShapeError(
                f"expected a newest frame {[*size, 3]}, got {list(self.shown.shape)}; restore a whole one of this world"
            )
        return self.state


def write_snapshot(path: Path | str, snapshot: Snapshot, log: bytes | None = None) -> None:
    """Write a snapshot to a file: under another name, to the disk, and only then under its own.

    The snapshot that was there before stays beside it, with ".before" at the end of its name. Any number may be written
    to one path at once, here and in other processes: each is whole, and the last to be so stays. What a killed process
    had begun to write to it is removed.

    Args:
        path: of the file.
        snapshot: what is kept.
        log: the log that leads there as a log file has it, for a snapshot that has none of its steps.

    Raises:
        ConfigError: the codec has a state that cannot be written, or it is no path, or that of a folder, of a
            device or of a log.
        OSError: it could not be written; what was there stays.
    """
    path = path_of(path, "path")
    if path.is_dir():
        raise ConfigError(f"a session is saved to a file, and {path} is a folder; name a file in it")
    if path.exists() and not path.is_file():
        raise ConfigError(f"a session is saved to a file, and {path} is a device or a pipe; name a file")
    for there in (path, _before(path)):
        if is_log(there):
            raise ConfigError(f"{there} is the log of a session, which no saved one replaces; name another file")
    text = snapshot.log.encode() if log is None else log
    tensors = {"log": torch.frombuffer(bytearray(text), dtype=torch.uint8)}
    header: dict[str, Any] = {"format": FORMAT, "keep": snapshot.keep}
    if snapshot.coming is not None:  # left out otherwise, as it was before there was such a thing
        header["coming"] = list(snapshot.coming)
    if snapshot.shown is not None:
        tensors["shown"] = torch.from_numpy(snapshot.shown.copy())
    if snapshot.state is not None:
        tensors |= {name: getattr(snapshot.state, name).contiguous().cpu() for name in _STATE}
        tensors |= _present(snapshot.state)
        tensors |= {f"{_MEMORY}{name}": tensor for name, tensor in snapshot.state.memory.items()}
        tensors |= _codec_tensors(snapshot.codec_state)
        header |= {name: getattr(snapshot.state, name) for name in ("blocks", "next_frame", "frames")}
    header["sha256"] = checksum(tensors, header)
    with naming(path), ExitStack() as begun:
        path.parent.mkdir(parents=True, exist_ok=True)
        file, beside = begun.enter_context(unfinished(path))
        file.write(save(tensors, metadata={"worldsim": json.dumps(header)}))
        file.flush()
        os.fsync(file.fileno())
        _replace(beside, path)


def read_snapshot(path: Path | str) -> Snapshot:
    """Read what `write_snapshot` wrote.

    Raises:
        SnapshotError: there is no such file, or it is torn or foreign; it says so if the one before it is still there.
        ConfigError: it is no path.
    """
    path = path_of(path, "path")
    with _whole(path):
        return _read(path)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Glimpse:
    """What a saved session tells at a glance: what it began from, the number of its blocks, and its newest frame."""

    opening: Opening
    blocks: int
    shown: Frames


def glimpse_snapshot(path: Path) -> Glimpse:
    """Read what can be told without reading it all, so that neither its checksum nor its log is checked.

    Raises:
        SnapshotError: it is torn or foreign, or it keeps its log alone.
    """
    with _whole(path), safe_open(path, framework="pt") as file:
        blocks = _header(file.metadata())["blocks"]
        text = file.get_tensor("log").numpy().tobytes()
        # The first line is enough, and spares decoding every step of a long life.
        opening = SessionLog.decode(text[: text.index(b"\n") + 1]).opening
        return Glimpse(opening=opening, blocks=blocks, shown=_shown(file.get_tensor("shown")).copy())


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Whatever shows inside that a file is torn or foreign is a SnapshotError."""
    try:
        yield
    # A RuntimeError is JSON that is nested too deeply, or a tensor that cannot be looked at as bytes.
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError, LogError) as error:
        if not isinstance(error, OSError) and is_log(path):
            raise SnapshotError(
                f"{path} is the log of a session and no saved one; World.go_on goes on with it, and `worldsim replay` "
                "lives it again"
            ) from error
        before = _before(path)
        hint = f"; the one saved before it is {before}" if before.exists() else ""
        if isinstance(error, FileNotFoundError):
            raise SnapshotError(f"there is no {path}; name the file of a saved session{hint}") from error
        raise SnapshotError(f"{path} is no whole snapshot of a session ({error}){hint}") from error


def is_snapshot(path: Path) -> bool:
    """Whether a file is a saved session, whole or not."""
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("worldsim", "null"))
    except (SafetensorError, OSError, ValueError, RecursionError):
        return False
    return isinstance(header, dict) and "keep" in header


def check_keep(keep: str) -> None:
    """Raise ConfigError unless keep is one of Keep."""
    if keep not in get_args(Keep):
        raise ConfigError(f"a snapshot keeps one of {', '.join(get_args(Keep))}, got {keep!r}")


def _read(path: Path) -> Snapshot:
    with safe_open(path, framework="pt") as file:
        header = _header(file.metadata())
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if header.pop("sha256") != checksum(tensors, header):
        raise ValueError("its checksum is not that of its content")
    check_keep(header["keep"])
    text = tensors["log"].numpy().tobytes()
    log = SessionLog.decode(text)
    if log.whole != len(text):
        raise ValueError("its log is torn")
    coming = _coming(header, log.opening)
    if header.get("blocks", len(log.steps)) != len(log.steps):
        raise ValueError(f"it says that it is of {header['blocks']} blocks, and its log has {len(log.steps)}")
    if "frames" not in header:
        return Snapshot(keep=header["keep"], log=log, coming=coming)
    state = VideoState(
        blocks=header["blocks"],
        next_frame=header["next_frame"],
        frames=tuple(header["frames"]),
        **{name: tensors[name] for name in _STATE},
        **{name: tensors[name] for name in _MAYBE if name in tensors},
        memory={name.removeprefix(_MEMORY): tensors[name] for name in tensors if name.startswith(_MEMORY)},
    )
    return Snapshot(
        keep=header["keep"],
        log=log,
        state=state,
        codec_state=_codec_state(tensors),
        shown=_shown(tensors["shown"]),
        coming=coming,
    )


def _header(metadata: Mapping[str, str] | None) -> dict[str, Any]:
    """What a file says of itself, if a snapshot of this format says that."""
    header = json.loads((metadata or {})["worldsim"])
    if not isinstance(header, dict):
        raise TypeError("its header is no object")
    if header.get("format") != FORMAT:
        raise ValueError(f"its format is {header.get('format')}, known is {FORMAT}")
    if header["keep"] != "log":
        counted = [header["blocks"], header["next_frame"], *header["frames"]]
        if not all(isinstance(count, int) and 0 <= count < _MOST for count in counted):
            raise ValueError("its blocks and frames are no numbers of any")
    return header


def _coming(header: Mapping[str, Any], opening: Opening) -> Coming | None:
    """What no block has heard yet; nothing in a file from before that was kept."""
    if "coming" not in header:
        return None
    if opening.prompt is None:
        raise ValueError("it is told something, in a world that is steered by keys alone")
    text, over = header["coming"]
    return check_prompt(text), check_over(over)


def _shown(frame: Tensor) -> Frames:
    if frame.dtype != torch.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or not frame.numel():
        raise ValueError(f"its newest frame is {frame.dtype} {list(frame.shape)}")
    return frame.numpy()


def _check_page(name: str, found: Tensor) -> None:
    if found.dtype not in _PAGE:
        kinds = ", ".join(str(each).removeprefix("torch.") for each in _PAGE)
        raise ConfigError(f"{name} are of one of {kinds}, got {found.dtype}; restore a whole state")
    # Far faster than isfinite of each: NaN is the least and the most of all.
    if found.numel() and not torch.stack(found.aminmax()).isfinite().all():
        raise ConfigError(f"a state with {name} that are no numbers is none that a decoder was in; restore a whole one")


def _present(state: VideoState) -> dict[str, Tensor]:
    parts = {name: getattr(state, name) for name in _MAYBE}
    return {name: part.contiguous().cpu() for name, part in parts.items() if part is not None}


def _codec_tensors(state: Any) -> dict[str, Tensor]:
    match state:
        case None:
            return {}
        case Tensor():
            return {"codec": state.contiguous().cpu()}
        case _:
            raise ConfigError(f"a codec state of {type(state).__name__} cannot be saved; keep the log only")


def _codec_state(tensors: Mapping[str, Tensor]) -> Tensor | None:
    return tensors.get("codec")


def _replace(beside: Path, path: Path) -> None:
    """Give the new file its name; at no moment is there neither the old one nor the new one under it."""
    _keep_before(path)
    beside.replace(path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _keep_before(path: Path) -> None:
    """Give what lies under a name that of the one before, too; at no moment is nothing under it that was there."""
    while path.exists():
        link = unfinished_name(path)
        # It is not locked, so whoever drops what was left may take it away.
        with suppress(FileNotFoundError):
            link.hardlink_to(path)
            try:
                link.replace(_before(path))
                return
            finally:
                link.unlink(missing_ok=True)  # it stays if the one before is the same file already


def _before(path: Path) -> Path:
    return path.parent / f"{path.name}.before"
