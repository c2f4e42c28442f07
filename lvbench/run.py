"""Many videos at once, each in a process of its own: whatever a decoder does to one, the others are scored."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from time import monotonic

import cv2

from lvbench.errors import ConfigError
from lvbench.examine import Record, Refused, Settings, Task, examine

GRACE_S = 30.0
"""Over the limit of a video, before its process is ended: it may hang inside the decoder, where no limit is seen."""


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
    cv2.setNumThreads(1)  # the workers share out the cores; two threads on each would only wait for one another
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the first ends the others
    pipe.send(examine(task, settings))


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
