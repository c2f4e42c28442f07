"""Recorded play: shards of frames and the controls held at each, written by a simulator and its explorer."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from threading import Thread, main_thread
from typing import Any, cast
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from worldsim.errors import BrokenRun, ConfigError, DataError, WorldSimError, counted, shown
from worldsim.files import drop_unfinished, make_folder, write_tensors
from worldsim.simulators.protocol import Explorer, Simulator

TRAINING_SEEDS = 1 << 30
"""Training episodes have seeds from here on; every smaller seed is held out, so a world opened by a user's seed, or
judged on one, was never trained on."""
SHARD_FRAMES = 4096
WORKERS_PER_CORE = 4
"""Processes that play beside each other on one core, at the most."""
TENSORS = ("frames", "controls", "events", "starts")
_KINDS = [(4, torch.uint8), (2, torch.float32), (1, torch.int64), (1, torch.int64)]
"""How many dimensions each has, and of what numbers."""
EPISODES_PER_SHARD = 1 << 10
SHARDS_PER_SEED = 1 << 14
SEEDS = 64


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
        if not 0 <= self.seed < SEEDS:
            raise ConfigError(f"a recording's seed lies in 0 .. 63, got {self.seed}; name another")

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
    number of workers changes nothing. What ends it early leaves the shards that are whole, and no process.

    Returns:
        {"shards", "frames"} in the folder, of this series.

    Raises:
        ConfigError: no frames asked for, or more than one series has episodes for; no workers, or more than
            WORKERS_PER_CORE for each core.
        DataError: a shard that is there is torn, foreign or of another world.
        BrokenRun: a worker was killed, or there is no room for another.
        OSError: the folder or a shard cannot be written, as on a full disk; the shards before it stay.
    """
    if frames < 1 or workers < 1:
        raise ConfigError(f"record at least 1 frame with at least 1 worker, got {shown(frames)} and {shown(workers)}")
    cores = os.cpu_count() or 1
    if workers > WORKERS_PER_CORE * cores:
        raise ConfigError(
            f"this machine has {counted(cores, 'core')}, and more than {WORKERS_PER_CORE * cores} workers only take "
            f"memory, got {shown(workers)}; ask for {cores}"
        )
    shards = -(-frames // SHARD_FRAMES)
    if shards > SHARDS_PER_SEED:
        raise ConfigError(f"one seed has {SHARDS_PER_SEED * SHARD_FRAMES:,} frames, got {frames}; use several seeds")
    make_folder(folder)
    drop_unfinished(folder)
    write = partial(_write_shard, recording, folder, series)
    total = 0
    with closing(_spread(write, shards, workers)) as counts:
        for count in counts:
            total += count
            on_frames(count)
    return {"shards": shards, "frames": total}


def _spread(write: Callable[[int], int], shards: int, workers: int) -> Generator[int]:
    """What `write` answers for each shard, asked in so many processes, in the order in which the answers come.

    Processes of our own, because a pool of the standard library plays on when it is interrupted.
    """
    if workers == 1:
        yield from map(write, range(shards))
        return
    with _players(write, min(workers, shards)) as players:
        todo = iter(range(shards))
        for player, shard in zip(players, todo):  # noqa: B905
            player.send(shard)
        for _ in range(shards):
            player = cast(Connection, wait(players)[0])
            try:
                answer = player.recv()
            except (EOFError, ConnectionError) as error:
                raise BrokenRun(
                    "a process that played was killed, maybe for want of memory; the shards that are whole stay: run "
                    "the same command again, perhaps with fewer workers"
                ) from error
            if isinstance(answer, Exception):
                raise answer
            if (shard := next(todo, -1)) >= 0:
                player.send(shard)
            yield answer


@contextmanager
def _players(write: Callable[[int], int], number: int) -> Iterator[list[Connection]]:
    """Processes that take numbers of shards and give answers, for as long as the context lasts."""
    context = get_context("spawn")
    players: list[Connection] = []
    processes: list[SpawnProcess] = []
    try:
        with _unheard():
            for _ in range(number):
                try:
                    ours, theirs = context.Pipe()
                    process = context.Process(target=_answer, args=(theirs, write), daemon=True)
                    process.start()
                except OSError as error:
                    raise BrokenRun(
                        f"only {len(processes)} of {number} processes can be started here ({error.strerror}); run "
                        "the same command again, with fewer workers"
                    ) from error
                theirs.close()  # held by its process alone, it tells when that ends
                players.append(ours)
                processes.append(process)
        yield players
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


@contextmanager
def _unheard() -> Iterator[None]:
    """Let processes that are started meanwhile not hear Ctrl-C, which reaches all of a terminal."""
    if sys.platform == "win32":
        yield
        return
    usual = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, usual)


def _answer(asks: Connection, write: Callable[[int], int]) -> None:
    """Write the shards that are asked for, until nobody asks any more or this process is terminated."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends what runs beside, such as an engine
    Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError, ConnectionError):
        while True:
            shard = asks.recv()
            try:
                answer: int | Exception = write(shard)
            except (WorldSimError, OSError) as error:
                answer = error
            asks.send(answer)


def _end_with_parent() -> None:
    """Terminate this process when the one that started it has ended, in whatever way."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    if sys.platform == "win32":
        os._exit(1)
    signal.pthread_kill(main_thread().ident or 0, signal.SIGTERM)  # of the threads that one alone waits for work


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
        most = min(recording.longest, SHARD_FRAMES - len(frames))
        with closing(play(recording, episode, most=most)) as played:
            for frame, control, event in played:
                frames.append(frame)
                controls.append(control)
                events.append(crc32(event.encode()))
        if len(frames) >= SHARD_FRAMES:
            break
    tensors = {
        "frames": torch.from_numpy(np.stack(frames)),
        "controls": torch.tensor(controls, dtype=torch.float32),
        "events": torch.tensor(events, dtype=torch.int64),
        "starts": torch.tensor(starts, dtype=torch.int64),
    }
    header = {"world": recording.world, **asdict(series), "shard": shard, "frames": len(frames)}
    write_tensors(path, tensors, header)
    return len(frames)


Played = tuple[NDArray[np.uint8], tuple[float, ...], str]
"""A frame, the controls that led to it and its event."""


def play(recording: Recording, seed: int, *, most: int) -> Generator[Played]:
    """Yield the frames of one episode, each with the controls that led to it, the first with none, and its event.

    The simulator is closed at the end, and when the generator is.
    """
    with closing(recording.simulator()) as simulator:
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
    _check_named(path, fields)
    return fields


def _check_named(path: Path, fields: dict[str, Any]) -> None:
    """Raise DataError unless the name of a shard says as much of its episodes as it does itself."""
    held_out, seed = fields.get("held_out"), fields.get("seed")
    if not isinstance(held_out, bool) or type(seed) is not int or not 0 <= seed < SEEDS:
        raise DataError(f"{path} does not say which episodes it holds; delete it and record again")
    series = Series(seed=seed, held_out=held_out)
    if not path.name.startswith(f"{series.kind}-{seed:02d}-"):
        raise DataError(
            f"{path} holds {series.kind} episodes of seed {seed}, and its name says otherwise; episodes to judge by "
            "are never trained on: give it its own name again, or delete it"
        )


def _load(path: Path, world: str) -> dict[str, Tensor]:
    """The tensors of a shard of that world; DataError unless they are frames and what belongs to each."""
    _header(path, world)
    with safe_open(path, framework="pt") as file:
        part = {name: file.get_tensor(name) for name in TENSORS}
    frames, controls, events, starts = (part[name] for name in TENSORS)
    is_whole = [(tensor.ndim, tensor.dtype) for tensor in part.values()] == _KINDS
    edges = [-1, *starts.tolist(), len(frames)] if is_whole else []
    if (
        not is_whole
        or not len(frames) == len(controls) == len(events)
        or not len(starts)
        or edges[1]
        or sorted({*edges}) != edges
    ):
        held = ", ".join(f"{name} {list(part[name].shape)} of {part[name].dtype}" for name in TENSORS)
        raise DataError(f"{path} holds {held}, which is no recorded play; delete it and record again")
    if not bool(controls.isfinite().all()):
        raise DataError(f"{path} holds controls that are no finite numbers; delete it and record again")
    return part


def _check_alike(
    paths: Sequence[Path], parts: Sequence[dict[str, Tensor]], frame: tuple[int, int, int, int] | None
) -> None:
    """Raise DataError unless all shards hold frames of that shape, or of that of the first; see Episodes."""
    shapes = [(*part["frames"].shape[1:], part["controls"].shape[1]) for part in parts]
    wanted = frame or shapes[0]
    for path, shape in zip(paths, shapes, strict=True):
        if shape != wanted:
            needs = "the world needs" if frame else f"{paths[0].name} has"
            found, fits = (f"{h} x {w} x {c} with {n} controls" for h, w, c, n in (shape, wanted))
            raise DataError(f"{path} holds frames of {found}, {needs} {fits}; move it elsewhere or record it again")


FEWEST = 20
"""Events recorded less often are drawn as if they had been."""


class Episodes:
    """Recorded play in memory, on one device, from which windows of consecutive frames are drawn.

    Args:
        folder: where `record` wrote.
        world: the world they must be of.
        held_out: draw from the held-out episodes in place of those for training.
        device: where the frames are kept. A million Crafter frames take 15.6 GB.
        frame: the shape that each must have, (height, width, 3) and how many controls; that of the first if None.

    Raises:
        DataError: there is no shard, or one that is torn, foreign, of another world or of frames of another shape.
    """

    def __init__(
        self,
        folder: Path,
        *,
        world: str,
        held_out: bool,
        device: torch.device,
        frame: tuple[int, int, int, int] | None = None,
    ) -> None:
        kind = Series(held_out=held_out).kind
        paths = sorted(folder.glob(f"{kind}-*.safetensors"))
        if not paths:
            raise DataError(
                f"there is no {kind} shard in {folder}; record some first: worldsim record {world} -o {folder}"
                + (" --held-out" if held_out else "")
            )
        parts = [_load(path, world) for path in paths]
        _check_alike(paths, parts, frame)
        self.frames = torch.cat([part["frames"] for part in parts]).to(device)
        self.controls = torch.cat([part["controls"] for part in parts]).to(device)
        bounds: list[tuple[int, int]] = []
        offset = 0
        for part in parts:
            edges = [*part["starts"].tolist(), len(part["frames"])]
            bounds += [(offset + a, offset + b) for a, b in pairwise(edges)]
            offset += len(part["frames"])
        self.episodes = tuple(bounds)
        self._kind, self._folder = kind, folder
        self._events = torch.cat([part["events"] for part in parts]).numpy()
        self._laws: dict[tuple[int, float, tuple[int, ...]], tuple[NDArray[np.int64], NDArray[np.float64]]] = {}

    def draw(
        self,
        rng: np.random.Generator,
        *,
        windows: int,
        frames: int,
        seldom: float = 0.0,
        under: tuple[int, ...] = (),
    ) -> Tensor:
        """Draw windows of consecutive frames of one episode each.

        Args:
            rng: the only source of randomness.
            windows: how many.
            frames: how long each is.
            seldom: a window counts by how often the event of its last frame was recorded, to the power of -seldom: with
                0 every window is equally likely, with 1 every event, with 0.5 one that was seen a hundred times as
                often as another is drawn ten times as often. Events seen less than FEWEST times count as if seen so
                often, lest single windows be known by heart.
            under: numbers of controls of which one has to steer the last frame; any, or none, if empty.

        Returns:
            the numbers of their frames, int64 [windows, frames], among `frames` and `controls`.

        Raises:
            DataError: no episode is that long, or none is steered so.
        """
        if (frames, seldom, under) not in self._laws:
            self._laws[frames, seldom, under] = self._law(frames, seldom, under)
        starts, reached = self._laws[frames, seldom, under]
        picks = np.searchsorted(reached, rng.random(windows) * reached[-1], side="right")
        at = torch.from_numpy(starts[picks])[:, None] + torch.arange(frames)
        return at.to(self.frames.device)

    def check(self, frames: int, under: tuple[int, ...] = ()) -> None:
        """Raise DataError unless windows of that many frames can be drawn, see draw."""
        self._law(frames, seldom=0.0, under=under)

    def _law(self, frames: int, seldom: float, under: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The first frames of all windows, and how much they count, summed up to each."""
        ranges = [np.arange(start, end - frames + 1) for start, end in self.episodes if end - start >= frames]
        if not ranges:
            raise DataError(
                f"no {self._kind} episode in {self._folder} has {frames} frames, as a window needs; record others, "
                "with another --seed"
            )
        starts = np.concatenate(ranges).astype(np.int64)
        if under:
            steered = self.controls[:, under].any(1).cpu().numpy()
            starts = starts[steered[starts + frames - 1]]
            if not len(starts):
                raise DataError(f"in {self._folder} no {self._kind} window of {frames} frames ends with such a key")
        _, kinds, counts = np.unique(self._events[starts + frames - 1], return_inverse=True, return_counts=True)
        return starts, np.cumsum(counts.clip(min=FEWEST)[kinds] ** -seldom)
