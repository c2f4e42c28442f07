"""What live worlds promise, measured: nothing is lost, nobody is held up, and what an action takes to be seen.

    python -m benchmarks.live

Sessions and servers are of the toy world; only actions are measured in crafter. Exits with 1 where a bar is missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

import torch
import typer

from benchmarks.live_latency import actions, bombs, encoding, transport
from benchmarks.live_server import served
from benchmarks.live_sessions import kills, scripts
from benchmarks.live_wire import crowd, cuts, deaths, stall
from benchmarks.record import write

CAPACITY = 2
Bar = tuple[str, Callable[[dict[str, Any]], bool]]
BARS: dict[str, list[Bar]] = {
    "scripts": [("all equal", lambda f: f["equal"] == f["scripts"])],
    "kills": [
        ("all restored, at most a block lost", lambda f: f["restored"] == f["kills"] and f["most_blocks_lost"] <= 1)
    ],
    "cuts": [
        ("all equal", lambda f: f["equal"] == f["cuts"]),
        ("resumed within 500 ms (p95)", lambda f: f["resume_ms"]["p95"] <= 500),
    ],
    "deaths": [
        (
            "nothing left",
            lambda f: not any(f[f"{what}_left"] for what in ("pages", "sessions", "descriptors", "threads")),
        ),
        ("the next session plays", lambda f: f["next_session_plays"]),
    ],
    "stall": [
        ("at most 8 MB", lambda f: f["resident_mb_more"] <= 8),
        ("others at most 10 % slower (p99)", lambda f: f["slower"] <= 1.1),
    ],
    "crowd": [
        ("all refused", lambda f: f["refused"] == f["asked"]),
        ("within 100 ms (p95)", lambda f: f["refused_ms"]["p95"] <= 100),
        ("those inside at most 5 % slower", lambda f: f["slower"] <= 1.05),
    ],
    "transport": [("within 5 ms (p99)", lambda f: f["transport_ms"]["p99"] <= 5)],
    "encoding": [("within 3 ms (p95)", lambda f: f["jpeg_ms"]["p95"] <= 3)],
    "bombs": [
        ("refused in 100 ms and 50 MB", lambda f: f["refused"] == 2 and f["longest_ms"] < 100 and f["memory_mb"] < 50)
    ],
    "actions": [("overhead within 20 ms (p99)", lambda f: f["overhead_ms"]["p99"] <= 20)],
}


def measure(share: float, seed: int, *, threads: int) -> dict[str, dict[str, Any]]:
    """Everything, each in that share of its full size."""

    def some(full: int, least: int = 2) -> int:
        return max(least, round(full * share))

    found = {"scripts": scripts(some(200), seed), "kills": kills(some(100), seed)}
    with served("dot") as server:
        found["cuts"] = asyncio.run(cuts(server, some(200), seed))
        found["stall"] = asyncio.run(stall(server, max(2.0, 60 * share)))
    with served("dot", resume_s=1.0) as server:
        found["deaths"] = asyncio.run(deaths(server, some(1_000, 20), seed))
    with served("dot", sessions=CAPACITY) as server:
        found["crowd"] = asyncio.run(crowd(server, CAPACITY, max(2.0, 20 * share)))
    found["transport"] = asyncio.run(transport(some(500, 50)))
    found["encoding"] = encoding(some(200, 20))
    found["bombs"] = bombs()
    with served("crafter", threads=threads) as server:
        found["actions"] = asyncio.run(actions(server, some(100, 5), seed))
    return found


def main(
    share: Annotated[float, typer.Option(min=0.001, help="Of the full size; more than 1 soaks.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    name: Annotated[str, typer.Option(help="Of the file written to benchmarks/results.")] = "live",
) -> None:
    """Measure what live worlds promise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the servers of the toy world, so that logs can be lived again
    found = measure(share, seed, threads=threads)
    missed = 0
    for what, figures in found.items():
        typer.echo(f"{what:10} {figures}")
        for text, holds in BARS[what]:
            figures.setdefault("bars", {})[text] = holds(figures)
            missed += not holds(figures)
            typer.echo(f"{'':10} {text}: {'reached' if holds(figures) else 'missed'}")
    write(name, {"share": share, "seed": seed, **found})
    raise typer.Exit(missed > 0)


if __name__ == "__main__":
    typer.run(main)
