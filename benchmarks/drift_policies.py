"""How far ten minutes drift under every cache policy, beside the same walks in the real engine; scored by lvbench.

    python -m benchmarks.drift_policies --workers 2

Walks are those of benchmarks.drift, longer; of each video the first minutes are scored for themselves too. Films stay
in the folder, by the digest of the weights, how many and how long: what was filmed once is not made again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from hashlib import sha256
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import typer

import lvbench.cli
from benchmarks.drift import Fields, walk, walks, write_video
from benchmarks.memory import WORLDS, known
from benchmarks.record import ROOT, commit, run, write
from benchmarks.report import DRIFTS
from worldsim.presets import CRAFTER
from worldsim.simulators.crafter import Crafter

REAL = "the real engine"
ALL: dict[str, Fields | None] = {REAL: None, **WORLDS}
ENDS = (60, 300, 600)
"""Seconds after which walks are scored, if no others are asked for."""


def film(seed: int, ends: Sequence[int], settings: Fields | None, folder: Path) -> None:
    """Write one walk as often as it is scored, each time up to another second."""
    paths = {end: folder / str(end) / f"{seed}.mp4" for end in ends}
    if all(path.exists() for path in paths.values()):
        return
    frames = walk(seed, max(ends), settings)
    for end, path in paths.items():
        write_video(path, frames[: end * Crafter.fps])


def score(folder: Path, workers: int) -> dict[str, Fields]:
    """The mean drift of the videos in a folder and its interval, by dimension, by the command that anyone would use."""
    report = folder.with_name(f"{folder.name}-report")
    code = lvbench.cli.main(["score", str(folder), "-o", str(report), "--workers", str(workers)])
    if code:
        raise typer.Exit(code)
    summary = json.loads((report / "scores.json").read_text())["summary"]
    return {name: {key: summary[f"drift.{name}"][key] for key in ("mean", "low", "high", "count")} for name in DRIFTS}


def folder_of(world: str) -> str:
    """A name that any file system takes."""
    return re.sub(r"[^a-z0-9]+", "-", world)


def main(
    walked: Annotated[int, typer.Option("--walks", min=2, help="How many; intervals take 6.")] = 6,
    ends: Annotated[list[int] | None, typer.Option("--end", min=5, help=f"Seconds; else {ENDS}.")] = None,
    only: Annotated[list[str] | None, typer.Option(help=f"Of these only: {'; '.join(ALL)}.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes at once.")] = 1,
    folder: Annotated[Path, typer.Option(help="Where the videos go.")] = ROOT / "out" / "drift_policies",
    name: Annotated[str, typer.Option(help="Of the file written to benchmarks/results.")] = "drift_policies",
) -> None:
    """Walk and score, and write benchmarks/results/NAME.json."""
    if unknown := {*(only or ())} - ALL.keys():
        raise typer.BadParameter(f"no world {'; '.join(sorted(unknown))}; known: {'; '.join(ALL)}")
    digest = sha256((CRAFTER.folder / "weights.safetensors").read_bytes()).hexdigest()
    ends = sorted({*(ends or ENDS)})
    about = {"weights": digest, "walks": walked, "ends": ends}
    seeds, found = [*islice(walks(ends[-1]), walked)], known(name, about)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for world in only or list(ALL):
            kept = folder / digest[:12] / f"{walked} of {ends[-1]} s" / folder_of(world)
            one = partial(film, ends=ends, settings=ALL[world], folder=kept)
            for seed, _ in zip(seeds, pool.map(one, seeds), strict=True):
                typer.echo(f"{world}: walk {seed}")
            found[world] = {
                "drift": {str(end): score(kept / str(end), workers) for end in ends},
                "commit": commit(ROOT),
            }
            write(name, {**about, "worlds": {one: found[one] for one in ALL if one in found}})


if __name__ == "__main__":
    run(main)
