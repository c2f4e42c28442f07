"""Recorded play: shards of frames and the controls held at each, written by a simulator and its explorer."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from worldsim.errors import ConfigError, DataError
from worldsim.simulators.protocol import Explorer, Simulator

TRAINING_SEEDS = 1 << 30
"""Training episodes have seeds from here on; every smaller seed is held out, so a world opened by a user's seed, or
judged on one, was never trained on."""
SHARD_FRAMES = 4096
TENSORS = ("frames", "controls", "events", "starts")
EPISODES_PER_SHARD = 1 << 10
SHARDS_PER_SEED = 1 << 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """What to play: a simulator, somebody to play it, and for how long one episode at most.

    Both callables are module-level functions, so that other processes can call them too.
    """

    world: str
    simulator: Callable[[], Simulator]
    explorer: Callable[[Simulator, int], Explorer]
    longest: int = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Which episodes are played: those of a seed, 0 .. 63, for training or held out from it; no two share any."""

    seed: int = 0
    held_out: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 64:
            raise ConfigError(f"a recording's seed lies in 0 .. 63, got {self.seed}")

    @property
    def kind(self) -> str:
        """What its files are called before their numbers."""
        return "held-out" if self.held_out else "train"

    def episodes(self, shard: int) -> range:
        """The seeds of the episodes of one of its shards, more than it needs."""
        first = (self.seed * SHARDS_PER_SEED + shard) * EPISODES_PER_SHARD
        offset = 0 if self.held_out else TRAINING_SEEDS
        return range(offset + first, offset + first + EPISODES_PER_SHARD)


def record(
    recording: Recording,
    folder: Path,
    series: Series,
    *,
    frames: int,
    workers: int = 1,
    on_frames: Callable[[int], None] = lambda _: None,
) -> dict[str, int]:
    """Play until at least `frames` frames lie in folder, in shards of 4,096 or a little more.

    A shard depends on its series and its number alone: shards that are there already are left as they are, and the
    number of workers changes nothing.

    Returns:
        {"shards", "frames"} in the folder, of this series.

    Raises:
        ConfigError: no frames asked for, or more than one series has episodes for.
        DataError: a shard that is there is torn, foreign or of another world.
        OSError: a shard cannot be written, as on a full disk; those before it stay.
    """
    if frames < 1 or workers < 1:
        raise ConfigError(f"record at least 1 frame with at least 1 worker, got {frames} and {workers}")
    shards = -(-frames // SHARD_FRAMES)
    if shards > SHARDS_PER_SEED:
        raise ConfigError(f"one seed has {SHARDS_PER_SEED * SHARD_FRAMES:,} frames, got {frames}; use several seeds")
    folder.mkdir(parents=True, exist_ok=True)
    write = partial(_write_shard, recording, folder, series)
    total = 0
    for count in _spread(write, shards, workers):
        total += count
        on_frames(count)
    return {"shards": shards, "frames": total}


def _spread(write: Callable[[int], int], shards: int, workers: int) -> Iterator[int]:
    if workers == 1:
        yield from map(write, range(shards))
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_end_with_parent) as pool:
        yield from pool.map(write, range(shards))


def _end_with_parent() -> None:
    """Have this process end when the one that started it has ended, in whatever way: it would wait for ever."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def _write_shard(recording: Recording, folder: Path, series: Series, shard: int) -> int:
    """Play one shard and write it, unless it is there; returns its number of frames."""
    path = folder / f"{series.kind}-{series.seed:02d}-{shard:05d}.safetensors"
    if path.exists():
        return int(_header(path, recording.world)["frames"])
    frames: list[NDArray[np.uint8]] = []
    controls: list[tuple[float, ...]] = []
    events: list[int] = []
    starts: list[int] = []
    for episode in series.episodes(shard):
        starts.append(len(frames))
        for frame, control, event in play(recording, episode, most=min(recording.longest, SHARD_FRAMES - len(frames))):
            frames.append(frame)
            controls.append(control)
            events.append(crc32(event.encode()))
        if len(frames) >= SHARD_FRAMES:
            break
    tensors: dict[str, NDArray[Any]] = {
        # safetensors writes memory as it lies, and a frame that an engine turned is laid out turned.
        "frames": np.ascontiguousarray(np.stack(frames)),
        "controls": np.asarray(controls, dtype=np.float32),
        "events": np.asarray(events, dtype=np.int64),
        "starts": np.asarray(starts, dtype=np.int64),
    }
    header = {"world": recording.world, **asdict(series), "shard": shard, "frames": len(frames)}
    unfinished = path.with_suffix(f".{os.getpid()}.part")
    try:
        save_file(tensors, unfinished, metadata={"worldsim": json.dumps(header)})
    except SafetensorError as error:
        unfinished.unlink(missing_ok=True)
        raise OSError(f"{path} cannot be written ({error}); free some space or name another folder") from error
    unfinished.replace(path)
    return len(frames)


def play(recording: Recording, seed: int, *, most: int) -> Iterator[tuple[NDArray[np.uint8], tuple[float, ...], str]]:
    """Yield the frames of one episode, each with the controls that led to it, the first with none, and its event."""
    simulator = recording.simulator()
    frame = simulator.reset(seed)
    explorer = recording.explorer(simulator, seed)
    controls = simulator.controls
    yield frame, controls.vector((), simulator.hour), ""
    for _ in range(most - 1):
        if simulator.over:
            return
        keys = explorer.choose()
        frame = simulator.step(keys)
        yield frame, controls.vector(keys, simulator.hour), simulator.event


def _header(path: Path, world: str) -> dict[str, Any]:
    """What a shard says of itself; DataError unless it is a shard of that world."""
    try:
        with safe_open(path, framework="np") as file:
            fields: dict[str, Any] = json.loads((file.metadata() or {}).get("worldsim", "{}"))
            held = {*file.keys()}
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not a readable shard ({error}); delete it and record again") from error
    known = isinstance(fields, dict) and {"world", "shard", "frames"} <= fields.keys()
    if not known or not isinstance(fields["frames"], int):
        raise DataError(f"{path} was not written by worldsim record; move it elsewhere")
    if missing := {*TENSORS} - held:
        names = ", ".join(sorted(missing))
        raise DataError(f"{path} was recorded by an earlier version, without {names}; delete it and record again")
    if fields["world"] != world:
        raise DataError(f"{path} holds frames of {fields['world']!r}, not of {world!r}; give each world its own folder")
    return fields


def _load(path: Path, world: str) -> dict[str, Tensor]:
    """The tensors of a shard of that world; DataError unless they are frames and what belongs to each."""
    _header(path, world)
    with safe_open(path, framework="pt") as file:
        part = {name: file.get_tensor(name) for name in TENSORS}
    frames, controls, events, starts = (part[name] for name in TENSORS)
    is_whole = [tensor.ndim for tensor in part.values()] == [4, 2, 1, 1] and frames.dtype == torch.uint8
    edges = [-1, *starts.flatten().tolist(), len(frames)] if is_whole else []
    if not is_whole or not len(frames) == len(controls) == len(events) or edges[1] or sorted({*edges}) != edges:
        shapes = ", ".join(f"{name} {list(part[name].shape)}" for name in TENSORS)
        raise DataError(f"{path} holds {shapes}, which is no recorded play; delete it and record again")
    return part


class Episodes:
    """Recorded play in memory, on one device, from which windows of consecutive frames are drawn.

    Args:
        folder: where `record` wrote.
        world: the world they must be of.
        held_out: draw from the held-out episodes in place of those for training.
        device: where the frames are kept. A million Crafter frames take 15.6 GB.
    """

    def __init__(self, folder: Path, *, world: str, held_out: bool, device: torch.device) -> None:
        kind = Series(held_out=held_out).kind
        paths = sorted(folder.glob(f"{kind}-*.safetensors"))
        if not paths:
            raise DataError(
                f"there is no {kind} shard in {folder}; record some first: worldsim record {world} -o {folder}"
                + (" --held-out" if held_out else "")
            )
        parts = [_load(path, world) for path in paths]
        if len({(part["frames"].shape[1:], part["controls"].shape[1:]) for part in parts}) > 1:
            raise DataError(f"the {kind} shards in {folder} differ in the size of their frames or controls; part them")
        self.frames = torch.cat([part["frames"] for part in parts]).to(device)
        self.controls = torch.cat([part["controls"] for part in parts]).to(device)
        bounds: list[tuple[int, int]] = []
        offset = 0
        for part in parts:
            edges = [*part["starts"].tolist(), len(part["frames"])]
            bounds += [(offset + a, offset + b) for a, b in pairwise(edges)]
            offset += len(part["frames"])
        self.episodes = tuple(bounds)
        self._events = torch.cat([part["events"] for part in parts]).numpy()
        self._laws: dict[tuple[int, bool], tuple[NDArray[np.int64], NDArray[np.float64]]] = {}

    def draw(self, rng: np.random.Generator, *, windows: int, frames: int, seldom: bool = False) -> Tensor:
        """Draw windows of consecutive frames of one episode each.

        Args:
            rng: the only source of randomness.
            windows: how many.
            frames: how long each is.
            seldom: off, every window is equally likely. On, one counts by the inverse root of how often the event of
                its last frame was recorded: of two events, one seen a hundred times as often as the other, it is then
                drawn ten times as often.

        Returns:
            the numbers of their frames, int64 [windows, frames], among `frames` and `controls`.

        Raises:
            DataError: no episode is that long.
        """
        if (frames, seldom) not in self._laws:
            self._laws[frames, seldom] = self._law(frames, seldom)
        starts, reached = self._laws[frames, seldom]
        picks = np.searchsorted(reached, rng.random(windows) * reached[-1], side="right")
        at = torch.from_numpy(starts[picks])[:, None] + torch.arange(frames)
        return at.to(self.frames.device)

    def _law(self, frames: int, seldom: bool) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The first frames of all windows, and how much they count, summed up to each."""
        ranges = [np.arange(start, end - frames + 1) for start, end in self.episodes if end - start >= frames]
        if not ranges:
            raise DataError(f"no recorded episode has {frames} frames; record longer ones or train on shorter windows")
        starts = np.concatenate(ranges).astype(np.int64)
        _, kinds, counts = np.unique(self._events[starts + frames - 1], return_inverse=True, return_counts=True)
        return starts, np.cumsum(counts[kinds] ** -0.5 if seldom else np.ones(len(starts)))
