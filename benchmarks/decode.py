"""How fast a world is made here, beside the bare arithmetic it is made of.

    python -m benchmarks.decode --world crafter
    python -m benchmarks.decode --world wan-small --random-weights --size 96x64

The floor of a block is the time of its matrix products and attention alone, of the same shapes and dtype, without
norms, modulation, rotary positions, gathering, sampling or decoding. Blocks and floors are timed in turn, so that
whatever else the machine does hits both.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch.nn.functional import linear, scaled_dot_product_attention

import worldsim
from benchmarks import decode_wan
from benchmarks.record import spread, write
from worldsim.models.small.backbone import SmallBackbone, SmallConfig
from worldsim.presets import WORLDS, assemble
from worldsim.runtime.session import Session
from worldsim.runtime.world import World
from worldsim.wan import parse_size

WAN = "wan-"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
FIRST_FRAME = "import worldsim; worldsim.load({world!r}).open(seed=7).step(())"


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How often each thing is timed: blocks a setting, blocks of the long run, starts of the process."""

    blocks: int = 60
    long: int = 1_600
    starts: int = 5


def timed(call: Callable[[], object]) -> float:
    """The seconds that one call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def walker(world: World, session: Session) -> Callable[[], object]:
    """Makes the next block at every call, each key of the world held in turn for four blocks."""
    return lambda: session.step({world.keys[session.block // 4 % len(world.keys)]})


def floor(config: SmallConfig, *, frames: int, past: int, calls: int, dtype: torch.dtype) -> Callable[[], None]:
    """The matrix products and attention of one block, and nothing else.

    Args:
        config: of the backbone.
        frames: in the block.
        past: frames that it sees besides itself.
        calls: backbone calls, the clean pass included.
    """
    tokens = config.geometry().tokens_per_frame
    dim, patch, attended = config.dim, config.patch_values, config.heads * config.head_dim
    own, seen = frames * tokens, (past + frames) * tokens
    shapes = [(3 * attended, dim), (dim, attended), (config.mlp_ratio * dim, dim), (dim, config.mlp_ratio * dim)]
    ends = [(dim, patch), (dim, 9 * patch), (patch, dim)]
    if config.palette:
        ends += [(patch, dim), (config.palette, patch)]
    if config.glance:
        ends += [(config.glance, patch)]
    weights = [torch.randn(shape, dtype=dtype) for shape in (*ends, *shapes * config.layers)]
    x = {width: torch.randn(own, width, dtype=dtype) for width in {weight.shape[1] for weight in weights}}
    glance = torch.randn(frames, tokens * config.glance, dtype=dtype)
    told = torch.randn(dim, tokens * config.glance, dtype=dtype)
    q = torch.randn(1, own, config.heads, config.head_dim, dtype=dtype).transpose(1, 2)
    k, v = torch.randn(2, 1, seen, config.heads, config.head_dim, dtype=dtype).transpose(2, 3)

    def run() -> None:
        for _ in range(calls):
            for weight in weights:
                linear(x[weight.shape[1]], weight)
            linear(glance, told)
            for _ in range(config.layers):
                scaled_dot_product_attention(q, k, v)

    return run


def block_times(world: World, *, blocks: int) -> dict[str, Any]:
    """Time of a block with a full window, its floor, and what follows: frames a second, real-time factor, ratio."""
    assert isinstance(world.backbone, SmallBackbone)
    past = world.plan.policy.limit
    assert past is not None
    base = floor(
        world.backbone.config,
        frames=world.frames_per_block,
        past=past,
        calls=world.calls_per_block,
        dtype=world.pool.dtype,
    )
    with world.open(seed=7, start=0) as session:
        step = walker(world, session)
        for _ in range(max(3, past // world.frames_per_block)):
            step()
            base()
        pairs = [(timed(step), timed(base)) for _ in range(blocks)]
    times = spread([block * 1e3 for block, _ in pairs])
    return {
        "calls_per_block": world.calls_per_block,
        "block_ms": times,
        "floor_ms": spread([bare * 1e3 for _, bare in pairs]),
        "ratio_to_floor": spread([bare / block for block, bare in pairs]),
        "fps": world.frames_per_block / times["median"] * 1e3,
        "real_time_factor": world.frames_per_block / times["median"] * 1e3 / world.fps,
    }


def long_run(world: World, *, blocks: int) -> dict[str, Any]:
    """Whether the thousandth block costs what the fiftieth did: time and resident memory over a long session."""
    times: list[float] = []
    memory: list[int] = []
    with world.open(seed=7, start=0) as session:
        step = walker(world, session)
        for _ in range(blocks):
            times.append(timed(step) * 1e3)
            memory.append(_resident_bytes())
    early, late = times[40:60], times[290:310]
    # What a session can go back to fills up first; from then on nothing may grow.
    settled = min(world.remembered_frames // world.frames_per_block + 50, blocks // 2)
    return {
        "blocks": blocks,
        "block_50_ms": spread(early or times),
        "block_300_ms": spread(late or times),
        "ratio_300_to_50": spread(late or times)["median"] / spread(early or times)["median"],
        "resident_mb": {
            "at_block_50": memory[min(50, blocks - 1)] / 1e6,
            f"at_block_{settled}": memory[settled] / 1e6,
            "at_the_end": memory[-1] / 1e6,
        },
        "growth_once_settled": memory[-1] / memory[settled] - 1,
    }


def first_frame(name: str, *, starts: int) -> dict[str, float]:
    """Seconds from the start of a process to the first frame it has made."""
    command = [sys.executable, "-c", FIRST_FRAME.format(world=name)]
    return spread([timed(lambda: subprocess.run(command, check=True)) for _ in range(starts)])


def _in_dtype(name: str, frames_per_block: int, dtype: torch.dtype) -> World:
    plan = worldsim.load(name, frames_per_block=frames_per_block).plan
    recipe = WORLDS[name]
    weights = recipe.folder / "weights.safetensors"
    return assemble(recipe, plan, weights, device=torch.device("cpu"), dtype=dtype)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def measure(name: str, counts: Counts) -> dict[str, Any]:
    """Everything this benchmark reports of one world."""
    per_block = {
        f"{frames} frames, {label}": block_times(_in_dtype(name, frames, dtype), blocks=counts.blocks)
        for frames in (1, 2, 4)
        for label, dtype in DTYPES.items()
    }
    return {
        "world": name,
        "per_block": per_block,
        "long_run": long_run(worldsim.load(name), blocks=counts.long),
        "first_frame_s": first_frame(name, starts=counts.starts),
    }


def main(
    world: Annotated[str, typer.Option(help="The world to time.")] = "crafter",
    blocks: Annotated[int, typer.Option(help="Blocks timed for each setting.")] = 60,
    long: Annotated[
        int, typer.Option(help="Blocks of the long run, 310 at the least to compare block 300 with 50.")
    ] = 1_600,
    starts: Annotated[int, typer.Option(help="Processes started.")] = 5,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Of wan-1.3b, wan-14b, wan-small or wan-tiny, drawn by chance.")
    ] = False,
    size: Annotated[str, typer.Option(help="Width x height of their pictures.")] = "832x480",
) -> None:
    """Time a world and write benchmarks/results/decode-WORLD.json."""
    if world.startswith(WAN) != random_weights:
        raise typer.BadParameter(f"worlds called {WAN}SIZE have random weights, and no others do; see --random-weights")
    if random_weights:
        keep = partial(write, f"decode-{world}")
        found = decode_wan.measure(world.removeprefix(WAN), blocks=blocks, pixels=parse_size(size), keep=keep)
        typer.echo(keep(found).read_text())
        return
    path = write(f"decode-{world}", measure(world, Counts(blocks=blocks, long=long, starts=starts)))
    typer.echo(path.read_text())


if __name__ == "__main__":
    typer.run(main)
