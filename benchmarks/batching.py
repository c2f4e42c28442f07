"""What sharing backbone calls gives: sessions that make their blocks together, against the same taking turns.

    python -m benchmarks.batching

Both are measured in one run, round after round in turn, so that the machine's moods fall on both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any

import numpy as np
import typer

import worldsim
from benchmarks.decode import timed
from benchmarks.record import spread, write
from worldsim.runtime.batching import step_together
from worldsim.runtime.engine import pages_of_session
from worldsim.runtime.session import Session
from worldsim.runtime.world import World

COUNTS = (1, 2, 4, 8)


def one_after_the_other(sessions: Sequence[Session], keys: str) -> None:
    """A block of each session, one backbone call after the other."""
    for session in sessions:
        session.step({keys})


def together(sessions: Sequence[Session], keys: str) -> None:
    """A block of each session by shared backbone calls."""
    for outcome in step_together(sessions, [{keys}] * len(sessions)):
        outcome.result()


def rounds(world: World, count: int, *, warm: int, blocks: int) -> dict[str, Any]:
    """Times of a round, one block of each of so many sessions, made in both ways in turn.

    Returns:
        For each way blocks a second and the latency of a block (its round) at the median and the 99th percentile, and
        how much faster the rounds together are, round by round.
    """
    ways: dict[str, Callable[[Sequence[Session], str], None]] = {"turns": one_after_the_other, "together": together}
    sessions = {way: [world.open(seed=seed) for seed in range(count)] for way in ways}
    times: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(warm + blocks):
        key = world.keys[number // 4 % len(world.keys)]
        for way, make in ways.items():
            took = timed(partial(make, sessions[way], key))
            if number >= warm:
                times[way].append(took)
    for session in (*sessions["turns"], *sessions["together"]):
        session.close()
    found: dict[str, Any] = {way: _latency(seconds, count) for way, seconds in times.items()}
    pairs = zip(times["turns"], times["together"], strict=True)
    return found | {"gain": spread([turns / shared for turns, shared in pairs])}


def _latency(seconds: Sequence[float], sessions: int) -> dict[str, float]:
    p50, p99 = np.percentile(seconds, [50, 99])
    return {"blocks_per_s": sessions / float(p50), "block_ms_p50": 1e3 * float(p50), "block_ms_p99": 1e3 * float(p99)}


def measure(world: World, *, counts: Sequence[int], blocks: int) -> dict[str, Any]:
    """Everything that this benchmark reports of a world."""
    window = world.plan.policy.limit or 0
    per_page = world.pool.shape.bytes(world.pool.dtype)
    return {
        "world": world.origin.name,
        "frames_per_block": world.frames_per_block,
        "planned_mb_per_session": pages_of_session(world) * per_page / 1e6,
        "mb_to_go_back_60_s": world.remembered_frames * per_page / 1e6,
        "sessions": {
            str(count): rounds(world, count, warm=window // world.frames_per_block, blocks=blocks) for count in counts
        },
    }


def main(
    world: Annotated[str, typer.Option(help="The world to time.")] = "crafter",
    frames_per_block: Annotated[int, typer.Option(help="Frames made at once.")] = 1,
    blocks: Annotated[int, typer.Option(help="Blocks of each session timed in each way.")] = 40,
) -> None:
    """Time sessions together and in turns, and write benchmarks/results/batching-WORLD.json."""
    loaded = worldsim.load(world, frames_per_block=frames_per_block)
    path = write(f"batching-{world}", measure(loaded, counts=COUNTS, blocks=blocks))
    typer.echo(path.read_text())


if __name__ == "__main__":
    typer.run(main)
