"""Many videos at once, each in a process of its own: whatever a decoder does to one, the others are scored."""

from __future__ import annotations

import os
import resource
import select
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import Any, Protocol

import cv2

from lvbench.errors import ConfigError, VideoRefused
from lvbench.examine import Record, Refused, Settings, Task, compared, examine, unlikened
from lvbench.sheets import sheet
from lvbench.video import MOST_PIXELS

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
class _Process:
    """One that works: it sends what it finds through the pipe, and is given until the deadline for the next thing."""

    process: BaseProcess
    pipe: Connection
    deadline: float

    def found(self) -> Any:
        """What it sent, or _Failed if it ended or is late."""
        if not self.pipe.poll():
            self.end()
            return _Failed("it took too long and was stopped; cut it or encode it again, or raise --max-seconds")
        try:
            return self.pipe.recv()
        except (EOFError, OSError):  # before it sent anything, or in the midst of it
            self.process.join()
            return _Failed(f"the process that scored it ended with exit code {self.process.exitcode}; see stderr")

    def end(self) -> None:
        """End it, if it has not ended."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


@dataclass(frozen=True, slots=True)
class _Failed:
    reason: str


@dataclass(frozen=True, slots=True)
class _Job:
    """A video, the process that scores it, and what is known of it by itself once that is known."""

    task: Task
    process: _Process
    alone: Record | None = None


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
                task = waiting.popleft()
                process = _begin(partial(_records, task, settings), settings)
                running[process.pipe] = _Job(task, process)
            nearest = min(job.process.deadline for job in running.values())
            ready = [one for one in wait([*running], max(0.0, nearest - monotonic())) if isinstance(one, Connection)]
            for pipe in ready or [pipe for pipe, job in running.items() if job.process.deadline <= monotonic()]:
                job = running[pipe]
                record = _record(job, job.process.found())
                if isinstance(record, Record) and job.task.reference and not record.likeness:
                    process = replace(job.process, deadline=_deadline(settings))
                    running[pipe] = replace(job, process=process, alone=record)
                    continue
                running.pop(pipe).process.end()
                done[job.task.name] = record
                on_video(record)
    finally:
        for job in running.values():
            job.process.end()
    return [done[task.name] for task in tasks]


def sheet_of(path: Path, frames: int, settings: Settings) -> bytes | str:
    """The contact sheet of a video of so many frames as a JPEG, or why there is none; made in a process of its own."""
    process = _begin(partial(_sheets, path, frames, settings), settings)
    try:
        wait([process.pipe], max(0.0, process.deadline - monotonic()))
        found: bytes | _Failed = process.found()
    finally:
        process.end()
    return found.reason if isinstance(found, _Failed) else found


def _records(task: Task, settings: Settings) -> Iterator[Record | Refused]:
    """A video by itself, and then beside its reference: whatever that is, the first is known."""
    record = examine(task, settings)
    yield record
    if isinstance(record, Record) and task.reference is not None:
        yield compared(record, task.path, task.reference, settings)


def _sheets(path: Path, frames: int, settings: Settings) -> Iterator[bytes]:
    yield sheet(path, frames, settings.chunks, settings.limits)


def _record(job: _Job, found: Record | Refused | _Failed) -> Record | Refused:
    """What is known of a video now."""
    if not isinstance(found, _Failed):
        return found
    if job.alone is not None and job.task.reference is not None:
        return replace(job.alone, likeness=unlikened(job.task.reference, found.reason))
    return Refused(job.task.name, found.reason)


def _begin(work: Callable[[], Iterator[object]], settings: Settings) -> _Process:
    # A server that has imported everything once is forked for each video, in milliseconds; it has no threads.
    context = _context()
    context.set_forkserver_preload(["lvbench.run"])
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(theirs, work, settings), daemon=True)
    process.start()
    theirs.close()
    return _Process(process, ours, _deadline(settings))


def _deadline(settings: Settings) -> float:
    return monotonic() + settings.limits.seconds + GRACE_S


def _context() -> ForkServerContext | SpawnContext:
    return get_context("forkserver") if "forkserver" in get_all_start_methods() else get_context("spawn")


def _work(pipe: Connection, work: Callable[[], Iterator[object]], settings: Settings) -> None:
    Thread(target=_end_with_reader, args=(pipe.fileno(),), daemon=True).start()
    cv2.setNumThreads(1)  # the workers share out the cores; two threads on each would only wait for one another
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the first ends the others
    limit_bytes = _limit_memory(settings)
    try:
        for found in work():
            pipe.send(found)
    except VideoRefused as error:
        pipe.send(_Failed(str(error)))
    except MemoryError:
        pipe.send(_Failed(f"it takes more than {limit_bytes / 1e9:.1f} GB of memory; encode it again"))


def _limit_memory(settings: Settings) -> int:
    """Let this process have so many bytes, which it gives: a few bytes of a file may make a decoder ask for gigabytes.

    Networks take what they take, and only Linux keeps such a limit, so else it is what it was.
    """
    most, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if settings.networks is None and settings.lpips is None and HAS.exists():
        has = int(HAS.read_text().split()[5]) * resource.getpagesize()  # on many cores the libraries reserve gigabytes
        wanted = has + MEMORY_BYTES + PIXEL_BYTES * min(settings.limits.pixels, MOST_PIXELS)
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    return most


def _end_with_reader(pipe: int) -> None:
    """End this process once nobody can read what it would send: whoever asked was killed, and told it nothing."""
    broken = select.poll()
    broken.register(pipe, 0)
    broken.poll()
    os._exit(1)
