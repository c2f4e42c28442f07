"""Whether sessions come back as they were: random lives, rewound, forked, saved and lived again, and killed ones."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

import worldsim
from worldsim.errors import SnapshotError, WorldSimError
from worldsim.runtime.journal import read_log
from worldsim.runtime.mark import Mark
from worldsim.runtime.session import Session
from worldsim.runtime.snapshot import Snapshot
from worldsim.runtime.world import World
from worldsim.session.log import Step
from worldsim.testing.fakes import tiny_world

VERBS = (*["step"] * 8, "mark", "rewind", "rewind", "return", "fork", "save", "pause")
FAR = 6
"""Blocks that a random life goes back at most."""
LATER = 4
"""Blocks that a restored session is compared over."""
READY_S = 60.0


@dataclass(slots=True, eq=False)
class Life:
    """A session, and beside it what its steps ought to be, kept by a list that knows no pages."""

    session: Session
    steps: list[Step] = field(default_factory=list)
    marks: list[tuple[Mark, int]] = field(default_factory=list)

    def step(self, keys: Iterable[str]) -> None:
        """One block; what was rewound and is made again under the same keys has to be the same."""
        self.session.step(keys)
        assert self.session.latest is not None
        self.steps.append(self.session.latest)

    def is_as_it_ought(self) -> bool:
        """Whether the log says the same as the list."""
        return self.session.log.steps == tuple(self.steps)


def random_keys(world: World, rng: np.random.Generator) -> frozenset[str]:
    """Up to two of the keys that a world understands."""
    return frozenset(rng.choice(world.keys, size=int(rng.integers(3)), replace=False).tolist())


def live(world: World, folder: Path, rng: np.random.Generator, verbs: int) -> tuple[Life, Path | None]:
    """A life of so many random verbs, logged to folder; the file that it was saved to last, if it was, at its end."""
    life = Life(world.open(seed=int(rng.integers(2**32)), log=folder / "life.log"))
    for _ in range(verbs):
        match rng.choice(VERBS):
            case "step":
                life.step(random_keys(world, rng))
            case "mark":
                life.marks.append((life.session.mark(), len(life.steps)))
            case "rewind":
                back = int(rng.integers(min(len(life.steps), FAR) + 1))
                life.session.rewind(back)
                del life.steps[len(life.steps) - back :]
                life.marks = [(mark, at) for mark, at in life.marks if at <= len(life.steps)]
            case "return" if life.marks:
                mark, at = life.marks[int(rng.integers(len(life.marks)))]
                life.session.rewind(mark)
                del life.steps[at:]
                life.marks = [(other, place) for other, place in life.marks if place <= at]
            case "fork":
                twin = life.session.fork()
                twin.step(random_keys(world, rng))
                twin.close()
            case "pause":
                life.session.pause()
                life.session.resume()
            case "save":
                life.session.save(folder / "life.save", keep="pages" if rng.random() < 0.5 else "log")
    saved = folder / "life.save"
    if saved.exists():
        life.session.save(saved, keep="pages" if rng.random() < 0.5 else "log")
    return life, saved if saved.exists() else None


Continue = Callable[[Path, Path | None, Sequence[frozenset[str]]], list[list[tuple[str, str]]]]
"""What `continued` gives, wherever it is computed."""


def script(world: World, elsewhere: Continue, seed: int) -> bool:
    """Whether a random life is the same rewound, replayed, forked, saved and restored, here and in another process."""
    try:
        return _is_the_same(world, elsewhere, np.random.default_rng(seed))
    except (WorldSimError, IndexError):  # where a session is elsewhere than it should be, the next verb may not fit
        return False


def _is_the_same(world: World, elsewhere: Continue, rng: np.random.Generator) -> bool:
    with TemporaryDirectory() as folder:
        life, saved = live(world, Path(folder), rng, verbs=40)
        with life.session as session:
            ahead = [random_keys(world, rng) for _ in range(LATER)]
            with session.fork() as twin:
                told = [hashes(twin, keys) for keys in ahead]
            world.replay(session.log)
            there = elsewhere(Path(folder) / "life.log", saved, ahead)
            here = continued(Path(folder) / "life.log", saved, ahead)
            as_it_ought = life.is_as_it_ought()
            return as_it_ought and all(same == told for same in [*here, *there, [hashes(session, k) for k in ahead]])


def hashes(session: Session, keys: Iterable[str]) -> tuple[str, str]:
    """SHA-256 of the latents and of the pixels of the next block."""
    session.step(keys)
    assert session.latest is not None
    return session.latest.latents, session.latest.frames


def continued(log: Path, saved: Path | None, ahead: Sequence[frozenset[str]]) -> list[list[tuple[str, str]]]:
    """What follows the end of a log, and what follows a saved session if there is one, in this process."""
    world = tiny_world()
    lived = [world.restore(Snapshot(keep="log", log=read_log(log)))]
    if saved is not None:
        lived.append(worldsim.restore(saved, world=world))
    return [[hashes(session, keys) for keys in ahead] for session in lived]


def scripts(count: int, seed: int) -> dict[str, Any]:
    """How many of so many random lives came out the same every way; see `script`. One thread, here and there."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    spawn = get_context("spawn")
    try:
        with ProcessPoolExecutor(1, spawn, initializer=torch.set_num_threads, initargs=(1,)) as pool:

            def elsewhere(*given: Any) -> list[list[tuple[str, str]]]:
                return pool.submit(continued, *given).result()

            same = [script(tiny_world(), elsewhere, seed + number) for number in range(count)]
    finally:
        torch.set_num_threads(threads)
    return {"scripts": count, "equal": sum(same)}


def victim(told: Connection, folder: Path, seed: int) -> None:
    """Live and save for ever, telling what was done after each: a process that is meant to be killed."""
    torch.set_num_threads(1)
    world, rng = tiny_world(), np.random.default_rng(seed)
    session = world.open(seed=seed, log=folder / "life.log")
    told.send(("open", 0))
    while True:
        session.step(random_keys(world, rng))
        told.send(("step", session.block))
        if rng.random() < 0.4:
            session.save(folder / "life.save")
            told.send(("save", session.block))


def kill(seed: int) -> dict[str, Any]:
    """Kill a victim at a random moment, and go on from what it left.

    Returns:
        lost: blocks it had told of that the log lacks (0 is right: what is told is on the disk).
        restored: whether the log goes on, and what was saved last loads, both as they were.
    """
    fork, rng = get_context("forkserver"), np.random.default_rng(seed)
    with TemporaryDirectory() as name:
        folder = Path(name)
        ours, theirs = fork.Pipe(duplex=False)
        process = fork.Process(target=victim, args=(theirs, folder, seed), daemon=True)
        process.start()
        theirs.close()
        assert ours.poll(READY_S), "the victim did not begin to live"
        deadline = time.monotonic() + float(rng.uniform(0, 0.4))
        time.sleep(max(0.0, deadline - time.monotonic()))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        done = dict.fromkeys(("open", "step", "save"), 0)
        with suppress(EOFError):
            while True:
                verb, block = ours.recv()
                done[verb] = block
        return _left(folder, done)


def _left(folder: Path, done: dict[str, int]) -> dict[str, Any]:
    """What a victim left behind, having told of so much."""
    world, log = tiny_world(), folder / "life.log"
    with world.go_on(log) as session:  # lives every block of it again and compares
        blocks = session.block
        session.step()
    restored = blocks <= done["step"] + 1
    if done["save"]:
        saved = folder / "life.save"
        try:
            restored = restored and worldsim.restore(saved, world=world).block >= done["save"]
        except SnapshotError:
            restored = False
    return {"lost": max(0, done["step"] - blocks), "restored": restored}


def kills(count: int, seed: int) -> dict[str, Any]:
    """How many of so many killed sessions went on from the disk; see `kill`."""
    get_context("forkserver").set_forkserver_preload(["benchmarks.live_sessions"])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = [kill(seed + number) for number in range(count)]
    finally:
        torch.set_num_threads(threads)
    return {
        "kills": count,
        "restored": sum(one["restored"] for one in found),
        "most_blocks_lost": max(one["lost"] for one in found),
    }
