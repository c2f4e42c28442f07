"""What it costs to keep older keys and values in fewer bits: memory, the time of a block, likeness one block ahead.

    python -m benchmarks.kv

Every code makes the one block that follows the same real past under the same keys and seed, and is judged by the real
engine's frames and by what exact pages make. Further on, one draw that falls otherwise is another life, and likeness
would measure chaos. Exits with 1 where a bar is missed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import worldsim
from benchmarks.decode import timed, walker
from benchmarks.maze_metrics import Floats, interval, psnr, squared_error
from benchmarks.record import run, spread, write
from benchmarks.tiles import Frames
from benchmarks.world_quality import CONTEXT, Episode, branch, explore_many, regular_points
from worldsim.runtime.world import World

EXACT = "exact"
CODES = ("int8", "int8:recent=0", "fp8", "fp8:recent=0", "kivi4", "kivi4:recent=0", "kivi2", "gear4", "gear2")
JUDGED = ("int8", "int8:recent=0")
MOST_CHANGE_DB = 0.1
MOST_BYTES = 0.5
PER_EPISODE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What one world made of some cases.

    to_engine: squared error of each frame to the engine's, [cases, frames].
    to_exact: the same to what exact pages make.
    """

    to_engine: Floats
    to_exact: Floats


def sizes(world: World) -> dict[str, float]:
    """Bytes of a page, exact and coded, and of all that a block sees, in this storage and over that of exact pages."""
    pool, limit = world.pool, world.plan.policy.limit
    assert limit is not None
    page = pool.shape.bytes(pool.dtype)
    if pool.storage is None:
        return {"exact_page": page, "window": limit * page, "window_share": 1.0}
    coded, recent = pool.storage.code.bytes(pool.shape), min(pool.storage.recent, limit)
    window = recent * page + (limit - recent) * coded
    return {
        "exact_page": page,
        "coded_page": coded,
        "page_share": coded / page,
        "page_share_of_16_bits": coded / (page * 2 / pool.dtype.itemsize),
        "window": window,
        "window_share": window / (limit * page),
    }


def ahead(worlds: Mapping[str, World], cases: Sequence[tuple[Episode, int]]) -> dict[str, Made]:
    """The next block of every world after the same pasts, by its squared errors.

    Args:
        worlds: by the name of their storage, EXACT among them.
        cases: episodes, and the frame before which each is left.
    """
    frames = worlds[EXACT].frames_per_block
    errors: dict[str, list[tuple[Floats, Floats]]] = {name: [] for name in worlds}
    with typer.progressbar(cases, label="blocks") as going:
        for episode, at in going:
            keys, real = episode.keys[at : at + frames], episode.frames[at : at + frames]
            made: dict[str, Frames] = {name: branch(world, episode, at, keys) for name, world in worlds.items()}
            for name, block in made.items():
                errors[name].append((squared_error(real, block), squared_error(made[EXACT], block)))
    pairs = {name: [np.stack(side) for side in zip(*found, strict=True)] for name, found in errors.items()}
    return {name: Made(to_engine=engine, to_exact=exact) for name, (engine, exact) in pairs.items()}


def likeness(made: Made, exact: Made, rng: np.random.Generator) -> dict[str, Any]:
    """PSNR to the engine's frames, how far that is from what exact pages reach on the same cases, PSNR to their frames.

    identical: the share of frames that are those of exact pages to the last level.
    """

    def change(ours: Floats, theirs: Floats) -> float:
        return psnr(ours) - psnr(theirs)

    low, high = interval(change, made.to_engine, exact.to_engine, rng=rng, draws=2_000)
    return {
        "psnr_db": psnr(made.to_engine),
        "change_db": {"value": change(made.to_engine, exact.to_engine), "low": low, "high": high},
        "psnr_to_exact_db": psnr(made.to_exact),
        "identical": float((made.to_exact == 0).mean()),
        "blocks": len(made.to_engine),
    }


def block_times(worlds: Mapping[str, World], *, blocks: int) -> dict[str, dict[str, Any]]:
    """Time of a block with a full window in every world, over that of exact pages in the same round; then what is held.

    Sessions remember what they can go back to, and a frame that is recent there and old here takes both pages: what is
    held at the end includes that.
    """
    sessions = {name: world.open(seed=7, start=0) for name, world in worlds.items()}
    steps = {name: walker(worlds[name], session) for name, session in sessions.items()}
    warm = max(3, (worlds[EXACT].plan.policy.limit or 0) // worlds[EXACT].frames_per_block)
    times: dict[str, list[float]] = {name: [] for name in worlds}
    for number in range(warm + blocks):
        for name, step in steps.items():
            took = timed(step)
            if number >= warm:
                times[name].append(took)
    held = {name: asdict(world.pool.bytes) for name, world in worlds.items()}
    for session in sessions.values():
        session.close()
    return {
        name: {
            "block_ms": spread([second * 1e3 for second in seconds]),
            "to_exact": spread([ours / bare for ours, bare in zip(seconds, times[EXACT], strict=True)]),
            "held_bytes": {**held[name], "share": sum(held[name].values()) / sum(held[EXACT].values())},
        }
        for name, seconds in times.items()
    }


def verdicts(found: Mapping[str, dict[str, Any]]) -> dict[str, bool]:
    """Whether each bar is reached by every code that is judged: for the change of PSNR by its whole interval."""
    changes = [found[name]["likeness"]["change_db"] for name in JUDGED]
    return {
        "psnr_changes_by_less_than_0.1_db": all(
            -MOST_CHANGE_DB < one["low"] <= one["high"] < MOST_CHANGE_DB for one in changes
        ),
        "half_the_bytes": all(found[name]["bytes"]["window_share"] <= MOST_BYTES for name in JUDGED),
    }


def measure(worlds: Mapping[str, World], *, cases: int, blocks: int, seed: int) -> dict[str, Any]:
    """Everything that this benchmark reports.

    Args:
        worlds: by the name of their storage, EXACT among them.
        cases: blocks judged, each after a past of its own.
        blocks: blocks timed in every world.
        seed: of the first episode of the engine.
    """
    per_block = worlds[EXACT].frames_per_block
    episodes = explore_many(seed, -(-cases // PER_EPISODE), frames_per_block=per_block)
    points = [(one, at) for one in episodes for at in regular_points(one, PER_EPISODE, frames_per_block=per_block)]
    made, times = ahead(worlds, points[:cases]), block_times(worlds, blocks=blocks)
    return {
        name: {
            "bytes": sizes(world),
            "likeness": likeness(made[name], made[EXACT], np.random.default_rng(seed)),
            **times[name],
        }
        for name, world in worlds.items()
    }


def main(
    weights: Annotated[Path | None, typer.Option(help="A weights file; the one in the package if left out.")] = None,
    frames_per_block: Annotated[int, typer.Option(help="Frames made together.")] = 1,
    cases: Annotated[int, typer.Option(min=2, help="Blocks judged, each after a past of its own.")] = 256,
    blocks: Annotated[int, typer.Option(min=1, help="Blocks timed in every storage.")] = 60,
    seed: Annotated[int, typer.Option(help="Of the first episode.")] = 500_000_000,
    name: Annotated[str, typer.Option(help="Of the file written to benchmarks/results.")] = "kv",
) -> None:
    """Compare the codes for keys and values on crafter, and write benchmarks/results/NAME.json."""
    worlds = {
        kv or EXACT: worldsim.load("crafter", weights=weights, frames_per_block=frames_per_block, kv=kv)
        for kv in (None, *CODES)
    }
    found = measure(worlds, cases=cases, blocks=blocks, seed=seed)
    passed = verdicts(found)
    about = {"weights": str(weights or "in the package"), "frames_per_block": frames_per_block, "seed": seed}
    write(name, {**about, "context_frames": CONTEXT, "storages": found, "passed": passed})
    for kv, one in found.items():
        change = one["likeness"]["change_db"]
        typer.echo(
            f"{kv:16} window {one['bytes']['window_share']:.3f}  block {one['to_exact']['median']:.3f}  "
            f"PSNR {one['likeness']['psnr_db']:.2f} dB, {change['value']:+.3f} [{change['low']:+.3f}, "
            f"{change['high']:+.3f}]  identical {one['likeness']['identical']:.1%}"
        )
    typer.echo("  ".join(f"{bar}: {'reached' if reached else 'missed'}" for bar, reached in passed.items()))
    raise typer.Exit(not all(passed.values()))


if __name__ == "__main__":
    run(main)
