"""Many videos on the machines of a Ray cluster, each video in a process of its own there, as run has them here.

A cluster that RAY_ADDRESS names is used, else one that runs on this machine, else one of this machine alone is begun
and ended: what ray.init() does. All machines need this version of lvbench and the libraries it stands on, and have to
see the videos and the folder of the report under the same paths: a shared disk. A machine that does not ends the run,
and is named. Records are those of run, bit for bit where the processors are of one kind.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from platform import node
from typing import TYPE_CHECKING, Any

from lvbench.errors import ConfigError
from lvbench.examine import READER, Record, Refused, Settings, Task
from lvbench.presets import extractor_of
from lvbench.reference import fingerprint
from lvbench.run import examine_all
from lvbench.video import DECODER

if TYPE_CHECKING:
    from ray import ObjectRef

TRIES = 2
"""For a video whose worker dies: the machine may have gone, which is no fault of the video."""
STOPS = 10
"""Seconds, and times that what runs is told to end once somebody stops it."""


@dataclass(frozen=True, slots=True)
class Unfit:
    """A machine that cannot take part, and why."""

    reason: str


def examine_on_cluster(
    tasks: Sequence[Task], settings: Settings, *, on_video: Callable[[Record | Refused], None]
) -> list[Record | Refused]:
    """Score every video, as many at once as the cluster has processors; see the module, and run.examine_all.

    The limits of a video hold on its machine. A video whose worker dies is tried once more, then told as unscored.

    Raises:
        ConfigError: ray is not installed, or a machine of the cluster cannot take part.
    """
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "ray is not installed; run: .venv/bin/pip install --constraint constraints.txt --editable '.[scale]'"
        ) from error
    done: dict[str, Record | Refused] = {}
    with _cluster(ray):
        wants = {"num_cpus": 1, "num_gpus": _gpus(settings), "max_retries": TRIES - 1}
        examine = ray.remote(**wants)(examine_there)
        made_with = versions(settings)
        there = replace(settings, store=settings.store.absolute())
        waiting = {examine.remote(_absolute(task), there, made_with): task for task in tasks}
        try:
            while waiting:
                (ready,), _ = ray.wait([*waiting], num_returns=1)
                task = waiting.pop(ready)
                done[task.name] = _outcome(ray, ready, task)
                on_video(done[task.name])
        finally:
            _stop(ray, [*waiting])
    return [done[task.name] for task in tasks]


def versions(settings: Settings) -> tuple[str, ...]:
    """What the numbers of this machine depend on, beside the videos."""
    extractor = extractor_of(settings.extractor, settings.networks)
    return DECODER, READER, extractor.fingerprint, fingerprint(settings.lpips)


def examine_there(task: Task, settings: Settings, made_with: tuple[str, ...]) -> Record | Refused | Unfit:
    """Score one video on this machine, if it is fit to: with the same decoder, extractor and files as whoever asks.

    Args:
        task: the video, under its absolute path.
        settings: see Settings.
        made_with: the versions where the report is made.
    """
    if versions(settings) != made_with:
        return Unfit(
            f"{node()} has another version of lvbench, PyAV, OpenCV, numpy or torch, or no GPU where the others have "
            "one; make all machines alike"
        )
    networks = [each for each in (settings.networks, settings.lpips) if each]
    weights = [each.path for network in networks for each in network.weights.values()]
    for place in (settings.store, task.path.parent, *weights):
        if not place.exists():
            return Unfit(f"{node()} does not see {place}; it has to be on a disk that all machines share")
    (record,) = examine_all([task], settings, workers=1, on_video=lambda _: None)
    return record


def _gpus(settings: Settings) -> int:
    """How many GPUs a video takes: one for networks, where there are any."""
    if not settings.networks and not settings.lpips:
        return 0
    from lvbench.networks.loading import device

    return int(device().type != "cpu")


def _absolute(task: Task) -> Task:
    return replace(task, path=task.path.absolute(), reference=task.reference and task.reference.absolute())


def _outcome(ray: Any, ready: ObjectRef[Any], task: Task) -> Record | Refused:
    """What a worker gave, or what became of it."""
    try:
        outcome: Record | Refused | Unfit = ray.get(ready)
    except ray.exceptions.RayTaskError as error:
        raise ConfigError(
            f"a worker of the cluster cannot run lvbench: {error.cause!r}; install it everywhere"
        ) from error
    except ray.exceptions.RayError as error:
        why = " ".join(str(error).split())[:200]
        return Refused(task.name, f"its worker in the cluster died, {TRIES} times: {why}")
    if isinstance(outcome, Unfit):
        raise ConfigError(outcome.reason)
    return outcome


def _stop(ray: Any, running: Sequence[ObjectRef[Any]]) -> None:
    """End what nobody waits for any more; the processes that it waits for end with it, see run."""
    for _ in range(STOPS if running else 0):
        for one in running:
            ray.cancel(one, force=True)  # one that is just beginning may not be reached the first time
        _, running = ray.wait(running, num_returns=len(running), timeout=1.0)
        if not running:
            return


@contextmanager
def _cluster(ray: Any) -> Iterator[None]:
    """The cluster this process is in, or one that it joins and leaves."""
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault(
        "RAY_USAGE_STATS_ENABLED", "0"
    )  # a cluster begun here tells nobody of it, unless it is asked to
    ray.init(logging_level="ERROR")
    try:
        yield
    finally:
        ray.shutdown()
