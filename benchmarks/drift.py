"""How far a minute of the bundled world drifts, beside the same walks in the real engine; scored by lvbench.

    python -m benchmarks.drift --workers 2

Walks leave real play after 32 frames, in both worlds under the same keys. Writes the videos to out/drift, both reports
and the curves to benchmarks/results, and docs/drift.md.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import count, islice
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray

import lvbench.cli
import worldsim
from benchmarks.record import RESULTS, ROOT, run, write
from benchmarks.report import DRIFTS, source, table
from benchmarks.world_quality import walk_keys
from lvbench.compare import Comparison, compare
from lvbench.curves import HEIGHT, WIDTH, curves, span_of
from lvbench.degradations import DEGRADATIONS, scores
from lvbench.degradations import table as degraded
from lvbench.light import Light
from lvbench.report import read_scores
from worldsim.controls import Keys
from worldsim.runtime.video import VideoWriter
from worldsim.simulators.crafter import Crafter

CONTEXT = 32
SCALE = 8
SEED = 600_000_000
STYLE = (
    "<style>path{fill:none;stroke:#c44;stroke-width:.6}.mean{stroke-width:2.5}.axis{stroke:#999}"
    "text{font:10px sans-serif;fill:#666}</style>"
)
MEANING = """\
Drift is the mean of |m_i - m_1| / |m_1| over the later chunks, m_i being what chunk i scored. A first chunk that has
next to nothing of what is measured leaves it unscored: up to half a pixel of motion between two looks, or a hundredth
of any other scale. Of dynamic each difference counts in parts of the larger of the two, so that twice as fast is as far
as half as fast and nothing counts more than 1. Of identity, m_i is how much of what a chunk shows was seen in the
first: a frame is as like that one as its cosine to the frame there that is most like it, or to the mean of them if
that is larger. m_i is the mean of this over chunk i, but at most m_1, which is the same of each frame of the first
chunk beside the others there."""
Frames = NDArray[np.uint8]
Fields = dict[str, Any]
KINDS: dict[str, Fields | None] = {"generated": {}, "real": None}
"""The settings of the generated world; None for the engine."""


def real_walk(seed: int, frames: int) -> tuple[Frames, tuple[Keys, ...], list[int | None]] | None:
    """The engine's frames of a walk, the keys held at each and its hour; None if the player walks into lava.

    He is healed before each frame: of walks like these few would last a minute.
    """
    simulator = Crafter(calm=True)
    keys = (frozenset[str](), *walk_keys(simulator.controls, np.random.default_rng([seed, 5]), frames - 1))
    shown, hours = [simulator.reset(seed)], [simulator.hour]
    for held in keys[1:]:
        if simulator.over:
            return None
        simulator.env._player.health = 9
        shown.append(simulator.step(held))
        hours.append(simulator.hour)
    return np.stack(shown), keys, hours


def walks(seconds: int) -> Iterator[int]:
    """Seeds of walks that the player survives in the engine, from SEED on."""
    frames = CONTEXT + seconds * Crafter.fps
    return (seed for seed in count(SEED) if real_walk(seed, frames) is not None)


def walk(seed: int, seconds: int, settings: Fields | None) -> Frames:
    """One walk, uint8 [frames, 72, 72, 3], as crafter with those settings shows it, or of None as the engine does."""
    found = real_walk(seed, CONTEXT + seconds * Crafter.fps)
    assert found is not None, "walks() leaves those out"
    shown, keys, hours = found
    if settings is None:
        return shown[CONTEXT:]
    torch.set_num_threads(1)
    world, hour = worldsim.load("crafter", **settings), hours[CONTEXT - 1]
    with world.open(seed=seed, frames=shown[:CONTEXT], keys=keys[:CONTEXT], hour=hour) as session:
        return np.concatenate([session.step(held).frames for held in keys[CONTEXT:]])


def write_video(path: Path, frames: Frames) -> None:
    """Write frames as they are scored."""
    with VideoWriter(path, size=frames.shape[1:3], fps=Crafter.fps, scale=SCALE) as video:
        video.write(frames)


def film(seed: int, seconds: int, folder: Path) -> None:
    """Write one walk as both worlds show it, without the frames that they share."""
    for kind, settings in KINDS.items():
        write_video(folder / kind / f"{seed}.mp4", walk(seed, seconds, settings))


def drawing(reports: Mapping[str, Fields]) -> str:
    """An SVG of the values of every chunk, a row for each dimension, generated walks left and real ones right.

    The two of a row have one scale.
    """
    parts = []
    for row, name in enumerate(DRIFTS):
        found = {
            kind: [video["chunks"][name] for video in reports[kind]["videos"] if name in video.get("chunks", {})]
            for kind in KINDS
        }
        span = span_of([line for lines in found.values() for line in lines])
        for column, kind in enumerate(KINDS):
            at = f'<svg x="{column * WIDTH}" y="{row * (HEIGHT + 20) + 20}" width="{WIDTH}" height="{HEIGHT}" '
            parts.append(curves(f"{name}, {kind}", found[kind], span).replace("<svg ", at, 1))
            parts.append(f'<text x="{column * WIDTH + 64}" y="{row * (HEIGHT + 20) + 14}">{name}, {kind}</text>')
    size = f'viewBox="0 0 {len(KINDS) * WIDTH} {len(DRIFTS) * (HEIGHT + 20) + 20}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{STYLE}{"".join(parts)}</svg>\n'


def page(result: Fields, reports: Mapping[str, Fields], effects: str) -> str:
    """docs/drift.md."""

    def mean(kind: str, score: str) -> str:
        found = reports[kind]["summary"][score]
        told = f"{found['mean']:.4f}" if found["count"] else "unscored"
        bounds = "" if found["low"] is None else f" ({found['low']:.4f} to {found['high']:.4f})"
        count = "" if found["count"] == result["walks"] else f", of {found['count']} walks"
        return f"{told}{bounds}{count}"

    verdicts = {one["score"]: one["verdict"] for one in result["comparisons"]}
    said = {"A is better": "the generated drift less", "B is better": "the real drift less"}
    rows = [
        [
            name,
            *(mean(kind, f"drift.{name}") for kind in KINDS),
            said.get(verdict := verdicts[f"drift.{name}"], verdict),
        ]
        for name in DRIFTS
    ]
    judged = sum(one["count"] > 0 for one in result["comparisons"])
    heads = ["drift of", "generated", "real", "told apart"]
    return f"""# How far a minute drifts

Written by `python -m benchmarks.drift`. {result["walks"]} walks of {result["seconds"]} s on seeds that were never
trained on: the generated world and the real engine go on from the same 32 frames under the same keys. Scored by
`lvbench` with the light extractor, ten chunks a video: how far later chunks are from the first, with the 95 % interval
of the mean. The real engine drifts too, since day turns to night and one walks from a meadow into a cave: it is the
yardstick, not 0.

{table(heads, rows)}

Two equal worlds would be told apart, in any of these or of the scores over whole videos, in at most 5 of 100 such
comparisons: {judged} scores, pair by pair, by signs that are random, with Holm's correction. An interval stands by
itself, and holds less often than 95 of 100 times where few walks rule the mean: two may lie apart and nothing is told.

{MEANING}

![Every chunk of every walk](../benchmarks/results/drift.svg)

{source(result)}

## What the light scores see

A drawn clip, and the same with something done to it that grows from nothing after the first chunk or sets in half way;
`python -m lvbench.degradations` makes this table.

{effects}
"""


def score(folder: Path, workers: int) -> dict[str, Fields]:
    """The reports of both kinds, by the command that anyone would use."""
    found = {}
    for kind in KINDS:
        reference = ["--reference", str(folder / "real")] if kind == "generated" else []
        report = folder / f"report-{kind}"
        code = lvbench.cli.main(["score", str(folder / kind), "-o", str(report), "--workers", str(workers), *reference])
        if code:
            raise typer.Exit(code)
        shutil.copyfile(report / "scores.json", RESULTS / f"drift-{kind}.json")
        found[kind] = json.loads((report / "scores.json").read_text())
    return found


def compared(folder: Path) -> Sequence[Comparison]:
    """Real walks against generated ones, pair by pair."""
    generated, real = (read_scores(folder / f"report-{kind}") for kind in KINDS)
    return compare(generated, real, seed=0)


def main(
    walked: Annotated[int, typer.Option("--walks", min=8, help="How many.")] = 16,
    seconds: Annotated[int, typer.Option(min=5, help="How long each is.")] = 60,
    workers: Annotated[int, typer.Option(min=1, help="Processes at once.")] = 1,
    folder: Annotated[Path, typer.Option(help="Where the videos go.")] = ROOT / "out" / "drift",
) -> None:
    """Walk, score and compare, and write docs/drift.md; figures go to benchmarks/results as drift.json and its like."""
    seeds = [*islice(walks(seconds), walked)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for seed, _ in zip(seeds, pool.map(partial(film, seconds=seconds, folder=folder), seeds), strict=True):
            typer.echo(f"walk {seed}")
    reports = score(folder, workers)
    comparisons = [one.to_json() for one in compared(folder)]
    path = write("drift", {"walks": walked, "seconds": seconds, "comparisons": comparisons})
    (RESULTS / "drift.svg").write_text(drawing(reports))
    effects = degraded({name: scores(one, Light()) for name, one in DEGRADATIONS.items()})
    (ROOT / "docs" / "drift.md").write_text(page(json.loads(path.read_text()), reports, effects))


if __name__ == "__main__":
    run(main)
