"""What every benchmark leaves behind: its numbers, with the hardware, the commit and the command they came from.

And how one is run as a command.
"""

from __future__ import annotations

import json
import math
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
import typer

from worldsim_apps.telling import Refused, refusals, say

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
DIGITS = 4


def run(main: Callable[..., None]) -> None:
    """Run a benchmark as a command; what cannot be done is told in one line on stderr, and ends it with 2."""
    try:
        with refusals():
            plain = typer.Typer(add_completion=False, rich_markup_mode=None)  # rich would cut long names short
            plain.command()(main)
            plain()
    except Refused as error:
        say(str(error))
        raise SystemExit(2) from error


def hardware() -> dict[str, Any]:
    """The machine: processor, cores this process may use, memory in GiB, and the GPU where there is one."""
    found: dict[str, Any] = {
        "cpu": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def provenance() -> dict[str, Any]:
    """Where numbers come from: command, commit, versions, hardware and what else the machine was doing.

    load: processes that wanted a core over the last minute, this one included.
    """
    return {
        "command": shlex.join(["python", *sys.orig_argv[1:]]),
        "commit": commit(ROOT),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
        "hardware": hardware(),
    }


def commit(folder: Path) -> str:
    """The commit checked out in folder, "... with changes" if code differs from it, "unknown" outside of git."""
    try:
        head = _git(folder, "rev-parse", "HEAD")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results")
    return f"{head} with changes" if changed else head


def spread(samples: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest of some measurements of one thing, and how many there were (at least one)."""
    return {"median": median(samples), "min": min(samples), "max": max(samples), "count": len(samples)}


def write(name: str, results: dict[str, Any], *, folder: Path = RESULTS) -> Path:
    """Write results (numbers, texts, lists and dicts of them) to folder/NAME.json, after where they come from.

    Numbers keep four digits; what could not be measured (NaN) becomes null. Whoever is killed meanwhile leaves what was
    there: the results of hours. Returns the path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, begun = (folder / f"{name}.{ending}" for ending in ("json", "json.part"))
    begun.write_text(json.dumps(_plain({"provenance": provenance(), **results}), indent=2, allow_nan=False) + "\n")
    begun.replace(path)
    return path


def _plain(value: Any) -> Any:
    """The same, of types that JSON knows."""
    match value:
        case dict():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case float():
            return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
        case _:
            return value


def _processor() -> str:
    """The processor's name: where Linux keeps it, else what Python knows."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _git(folder: Path, *args: str) -> str:
    return subprocess.run(["git", *args], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()
