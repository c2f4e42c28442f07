"""What remembering costs after a minute, ten minutes and an hour of world time: time of a block, and bytes held.

    python -m benchmarks.cost

A world grows old here by the clean passes of its first blocks, committed over and over, so that an hour takes minutes:
cache, policy and what a backbone remembers go through all that an hour brings, and only the pictures repeat. Then every
world at every age makes real blocks in turn, so that whatever else the machine does hits all. Exits with 1 where a bar
is missed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice, pairwise
from typing import Annotated, Any, cast

import typer
from torch import Tensor

import worldsim
from benchmarks import memory
from benchmarks.decode import timed
from benchmarks.memory import PLAIN
from benchmarks.record import run, spread, write
from worldsim.cache.sight import Sight
from worldsim.cache.view import Recording
from worldsim.decoding.video import LatentBlock, VideoDecoder
from worldsim.runtime.world import World

WORLDS = {PLAIN: memory.WORLDS[PLAIN], **{name: one for name, one in memory.WORLDS.items() if name != "full"}}
"""All that are bounded: what sees everything holds ever more."""
RETRIEVING = ("recalls", memory.SPARSE, memory.PAGES)
LIVED = 48
"""Blocks that are really made before they are committed over and over."""
LEAST = 0.1
"""Minutes in which a world can live so long."""
MOST_GROWTH = 1.1
MOST_RETRIEVAL = 1.15


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Made:
    """One block as it was committed: see worldsim.cache.view.Recording."""

    block: LatentBlock
    keys: Tensor
    values: Tensor
    salient: Sequence[Tensor]
    sight: Sight = field(default_factory=Sight)


def opened(world: World) -> VideoDecoder:
    """A decoder at the world's first starting place, which closing its session leaves alone."""
    with world.open(seed=7, start=0) as session:
        return session.fork()._moment.decoder


def live(world: World, decoder: VideoDecoder) -> LatentBlock:
    """Make and commit one block of one frame: each key of the world is held in turn for four blocks."""
    held = {world.keys[decoder.blocks // 4 % len(world.keys)]}
    before = decoder.newest[1]
    vector = world.controls.next(held, before[0, 0].tolist())
    block = decoder.propose(before.new_tensor(vector)[None, None])
    decoder.commit(block)
    return block


def grow_old(world: World, decoder: VideoDecoder, frames: int) -> None:
    """Let a decoder live until it has committed so many frames more, at least LIVED."""
    made = []
    for _ in range(LIVED):
        block, context = live(world, decoder), decoder.context
        keys, values = (side[:, None].clone() for side in context.spread(context.next_frame - 1))
        salient = [context.salient(context.next_frame - 1)] if context.sparse else []
        made.append(Made(block=block, keys=keys, values=values, salient=salient))
    for one in islice(cycle(made), frames - LIVED):
        decoder.absorb(one.block, cast(Recording, one))
        decoder.blocks += 1


def held_bytes(decoder: VideoDecoder) -> dict[str, int]:
    """What it holds: pages of keys and values, the latents of those frames, and what its backbone remembers."""
    state, pages = decoder.state(), decoder.pool.bytes_of(decoder.context.pages)
    return {
        "pages": pages.exact + pages.coded,
        "latents": state.latents.nbytes,
        "memory": sum(tensor.nbytes for tensor in state.memory.values()),
    }


def grown(worlds: Sequence[str], minutes: Sequence[float]) -> dict[str, dict[float, tuple[World, VideoDecoder]]]:
    """A decoder of each world at each of those ages, the youngest first."""
    found: dict[str, dict[float, tuple[World, VideoDecoder]]] = {}
    for name in worlds:
        world, found[name] = worldsim.load("crafter", **WORLDS[name]), {}
        decoder = opened(world)
        for age in minutes:
            grow_old(world, decoder, round(age * 60 * world.fps) - decoder.blocks)
            found[name][age] = world, decoder.fork()
            typer.echo(f"{name} is {age:g} minutes old")
    return found


def times(decoders: Mapping[str, Mapping[float, tuple[World, VideoDecoder]]], rounds: int) -> dict[str, Any]:
    """Milliseconds of a block of each world at each age, all made in turn."""
    took: dict[tuple[str, float], list[float]] = {(name, age): [] for name, ages in decoders.items() for age in ages}
    with typer.progressbar(range(rounds + 2), label="blocks") as going:
        for number in going:
            for name, age in took:
                world, decoder = decoders[name][age]
                ms = timed(lambda world=world, decoder=decoder: live(world, decoder)) * 1e3  # type: ignore[misc]
                if number >= 2:
                    took[name, age].append(ms)
    return {name: {age: took[name, age] for age in ages} for name, ages in decoders.items()}


def judge(took: Mapping[str, Mapping[float, list[float]]], held: Mapping[str, Any]) -> dict[str, Any]:
    """Each world: time of a block by age, how it grows, how it compares with the plain window, and bytes by age."""
    found: dict[str, Any] = {}
    for name, ages in took.items():
        young, old = min(ages), max(ages)
        found[name] = {
            "block_ms": {f"{age:g}": spread(ms) for age, ms in ages.items()},
            "growth": spread([b / a for a, b in zip(ages[young], ages[old], strict=True)]),
            "to_window": spread([b / a for a, b in zip(took[PLAIN][old], ages[old], strict=True)]),
            "bytes": held[name],
        }
    return found


def verdicts(found: Mapping[str, Any]) -> dict[str, bool]:
    """Whether no world slows down as it grows old, and none that retrieves takes much longer than the plain window."""
    return {
        "flat": all(world["growth"]["median"] <= MOST_GROWTH for world in found.values()),
        "retrieval": all(found[name]["to_window"]["median"] <= MOST_RETRIEVAL for name in RETRIEVING if name in found),
    }


def main(
    minutes: Annotated[
        list[float] | None, typer.Option(min=LEAST, help="Ages to compare; 1, 10 and 60 if left out.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=3, help="Blocks of each world at each age.")] = 60,
    only: Annotated[
        list[str] | None, typer.Option(help=f"Of these only, beside the plain window: {'; '.join(WORLDS)}.")
    ] = None,
    name: Annotated[str, typer.Option(help="Of the file written to benchmarks/results.")] = "cost",
) -> None:
    """Time crafter at several ages, and write benchmarks/results/NAME.json."""
    if unknown := {*(only or ())} - WORLDS.keys():
        raise typer.BadParameter(f"no world {'; '.join(sorted(unknown))}; known: {'; '.join(WORLDS)}")
    ages = sorted({*(minutes or [1, 10, 60])})
    if any(later - age < LEAST for age, later in pairwise(ages)):
        raise typer.BadParameter(
            f"ages are {LEAST:g} minutes apart or more, got {', '.join(f'{age:g}' for age in ages)}"
        )
    decoders = grown([one for one in WORLDS if one == PLAIN or one in (only or WORLDS)], ages)
    held = {
        which: {f"{age:g}": held_bytes(decoder) for age, (_, decoder) in old.items()} for which, old in decoders.items()
    }
    found = judge(times(decoders, rounds), held)
    for which, world in found.items():
        typer.echo(
            f"{which:45} {world['block_ms'][next(iter(world['block_ms']))]['median']:.0f} ms, grows "
            f"{world['growth']['median']:.2f}, to the window {world['to_window']['median']:.2f}"
        )
    passed = verdicts(found)
    write(name, {"worlds": found, "passed": passed})
    raise typer.Exit(not all(passed.values()))


if __name__ == "__main__":
    run(main)
