"""What blocks take and what is held, over the last minutes: the points of the plots."""

from __future__ import annotations

import resource
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from worldsim_apps.places import Hosted

STAGES = ("denoise", "decode", "commit", "encode")
SHOWN_S = 120.0
EVERY_S = 1.0
STATUS = Path("/proc/self/status")
Totals = dict[tuple[Hosted, str], tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What was so at one moment.

    at_s: when, by the clock of whoever read.
    blocks_ms: what a block took since the reading before, by stage, on average; nothing if none was made. Not the
        median: a histogram tells its sum and count exactly, a median only to a factor of two.
    resident_mb: memory of the process.
    pages: frames of keys and values that are held.
    """

    at_s: float
    blocks_ms: dict[str, float]
    resident_mb: float
    pages: int


class Meter:
    """Reads the figures of some servers, for any number of viewers.

    Args:
        hosted: gives the servers that are there.
    """

    def __init__(self, hosted: Callable[[], Sequence[Hosted]]) -> None:
        self._hosted = hosted
        self._totals: Totals = {}
        self._readings: deque[Reading] = deque()
        self._lock = Lock()

    def read(self, now_s: float) -> tuple[Reading, ...]:
        """The readings of the last SHOWN_S seconds, the newest last; a new one if the last is EVERY_S old."""
        with self._lock:
            if not self._readings or now_s - self._readings[-1].at_s >= EVERY_S:
                self._readings.append(self._new(now_s))
            while self._readings[0].at_s < now_s - SHOWN_S:
                self._readings.popleft()
            return tuple(self._readings)

    def _new(self, now_s: float) -> Reading:
        hosted = self._hosted()
        before, self._totals = self._totals, {key: value for each in hosted for key, value in _totals(each).items()}
        spent = dict.fromkeys(STAGES, 0.0)
        count = dict.fromkeys(STAGES, 0.0)
        for key, (seconds, blocks) in self._totals.items():
            known_s, known = before.get(key, (0.0, 0.0))
            spent[key[1]] += seconds - known_s
            count[key[1]] += blocks - known
        return Reading(
            at_s=now_s,
            blocks_ms={stage: 1_000 * spent[stage] / count[stage] for stage in STAGES if count[stage]},
            resident_mb=resident_mb(),
            pages=sum(each.world.pool.used for each in hosted),
        )


def resident_mb() -> float:
    """Memory that this process holds, in MB; where the system does not tell, the most that it has held."""
    if STATUS.exists():
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1_024 / 1e6
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 1e6 if sys.platform == "darwin" else most * 1_024 / 1e6


def _totals(hosted: Hosted) -> Totals:
    """Seconds and blocks since a server began, by stage."""
    found: dict[str, dict[str, float]] = {stage: {} for stage in STAGES}
    for metric in hosted.server.hall.gauges.block.collect():
        for sample in metric.samples:
            if (stage := sample.labels.get("stage", "")) in found:
                found[stage][sample.name.rpartition("_")[2]] = sample.value
    return {(hosted, stage): (values["sum"], values["count"]) for stage, values in found.items() if values}
