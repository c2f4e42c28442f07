"""Many videos at once, each in a process of its own: whatever a decoder does to one, the others are scored."""

from __future__ import annotations

import os
import resource
import select
import signal
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import Protocol

import cv2

from lvbench.errors import ConfigError
from lvbench.examine import Record, Refused, Settings, Task, examine

GRACE_S = 30.0
"""Over the limit of a video, before its process is ended: it may hang inside the decoder, where no limit is seen."""
MEMORY_BYTES, PIXEL_BYTES = 2**31, 160
"""What a process without networks may have beside what it begins with: so much, and for each pixel that a frame may
have as much as twenty frames of the deepest kind."""
HAS = Path("/proc/self/statm")


class Examiner(Protocol):
    """Scores many videos; gives a record for each task, in their order, and hands on each as it comes."""

    def __call__(
        self, tasks: Sequence[Task], settings: Settings, /, *, on_video: Callable[[Record | Refused], None]
    ) -> list[Record | Refused]: ...


@dataclass(frozen=True, slots=True)
class _Job:
    task: Task
    process: BaseProcess
    deadline: float


def examine_all(
    tasks: Sequence[Task], settings: Settings, *, workers: int, on_video: Callable[[Record | Refused], None]
) -> list[Record | Refused]:
    """Score every video; neither the number of workers nor who is ready first changes any record.

    Args:
        tasks: the videos.
        settings: see Settings.
        workers: processes at once.
        on_video: called with each record as it comes.

    Returns:
        A record for each task, in their order.
    """
    if workers < 1:
        raise ConfigError(f"somebody has to work: ask for at least 1 worker, got {workers}")
    waiting, running = deque(tasks), dict[Connection, _Job]()
    done: dict[str, Record | Refused] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                _start(waiting.popleft(), settings, running)
            nearest = min(job.deadline for job in running.values())
            ready = [one for one in wait([*running], max(0.0, nearest - monotonic())) if isinstance(one, Connection)]
            for pipe in ready or [pipe for pipe, job in running.items() if job.deadline <= monotonic()]:
                job = running.pop(pipe)
                done[job.task.name] = _outcome(pipe, job)
                on_video(done[job.task.name])
    finally:
        for job in running.values():
            job.process.kill()
            job.process.join()
    return [done[task.name] for task in tasks]


def _start(task: Task, settings: Settings, running: dict[Connection, _Job]) -> None:
    # A server that has imported everything once is forked for each video, in milliseconds; it has no threads.
    context = _context()
    context.set_forkserver_preload(["lvbench.examine"])
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(theirs, task, settings), daemon=True)
    process.start()
    theirs.close()
    running[ours] = _Job(task, process, monotonic() + settings.limits.seconds + GRACE_S)


def _context() -> ForkServerContext | SpawnContext:
    return get_context("forkserver") if "forkserver" in get_all_start_methods() else get_context("spawn")


def _work(pipe: Connection, task: Task, settings: Settings) -> None:
    Thread(target=_end_with_reader, args=(pipe.fileno(),), daemon=True).start()
    cv2.setNumThreads(1)  # the workers share out the cores; two threads on each would only wait for one another
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the first ends the others
    limit_bytes = _limit_memory(settings)
    try:
        outcome: Record | Refused = examine(task, settings)
    except MemoryError:
        outcome = Refused(task.name, f"it takes more than {limit_bytes / 1e9:.1f} GB of memory; encode it again")
    except OSError as error:
        outcome = Refused(task.name, f"what was measured of it cannot be kept: {error}; make room, and score it again")
    pipe.send(outcome)


def _limit_memory(settings: Settings) -> int:
    """Let this process have so many bytes, which it gives: a few bytes of a file may make a decoder ask for gigabytes.

    Networks take what they take, and only Linux keeps such a limit, so else it is what it was.
    """
    most, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if settings.networks is None and settings.lpips is None and HAS.exists():
        has = int(HAS.read_text().split()[5]) * resource.getpagesize()  # on many cores the libraries reserve gigabytes
        wanted = has + MEMORY_BYTES + PIXEL_BYTES * settings.limits.pixels
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    return most


def _end_with_reader(pipe: int) -> None:
    """End this process once nobody can read what it would send: whoever asked was killed, and told it nothing."""
    broken = select.poll()
    broken.register(pipe, 0)
    broken.poll()
    os._exit(1)


def _outcome(pipe: Connection, job: _Job) -> Record | Refused:
    """What a process sent, or what became of it."""
    with pipe:
        if not pipe.poll():
            job.process.kill()
            job.process.join()
            return Refused(job.task.name, "it took too long in the decoder and was stopped; encode it again")
        try:
            outcome: Record | Refused = pipe.recv()
        except EOFError:
            job.process.join()
            code = job.process.exitcode
            outcome = Refused(job.task.name, f"the process that scored it ended with exit code {code}; see stderr")
    job.process.join()
    return outcome
