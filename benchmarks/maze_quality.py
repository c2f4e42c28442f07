"""Judges the generated maze against the real one: the same starts, the same keys, seeds that were never trained on.

    python -m benchmarks.maze_quality --weights runs/maze/weights.safetensors

Short walks are judged for likeness and turning, long ones for sharpness. Exits with 1 where a bar is missed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from numpy.typing import NDArray

import worldsim
from benchmarks.maze_metrics import (
    Floats,
    Frames,
    direction_share,
    interval,
    psnr,
    psnr_gain,
    sharpness,
    sharpness_ratio,
    squared_error,
    turn_correlation,
    turns,
)
from benchmarks.record import RESULTS, write
from worldsim.controls import Keys
from worldsim.runtime.world import World
from worldsim.simulators.maze import CONTROLS, FIELD_OF_VIEW_DEGREES, Maze
from worldsim.simulators.maze_explorer import MazeExplorer

CONTEXT_S = 2.0
SHORT_S = 4.0
LONG_S = 60.0
JUDGED_S = 2.0
"""For how long sharpness is judged once LONG_S have passed."""
BARS = {
    "psnr_gain_db_at_0.25s": 3.0,
    "psnr_gain_db_at_1s": 2.0,
    "turn_direction_right": 0.97,
    "turn_size_correlation": 0.9,
    "sharpness_after_60s": 0.7,
}
SHOWN_AT_S = (0.25, 0.5, 1.0, 2.0, 4.0)
SHEET_WALKS = 8
LABEL_PX = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """The same keys in both worlds, from the same frames on.

    last: the last frame that both had seen, uint8 [H, W, 3].
    held: the keys of each block.
    real, made: what followed, uint8 [blocks * frames_per_block, H, W, 3].
    """

    last: NDArray[np.uint8]
    held: tuple[Keys, ...]
    real: Frames
    made: Frames


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A number, its 95 % interval over the choice of walks, and the least that it has to be."""

    value: float
    low: float
    high: float
    bar: float

    @property
    def passed(self) -> bool:
        """Whether the bar is reached; what could not be measured does not reach it."""
        return self.value >= self.bar


def play(world: World, seed: int, *, seconds: float) -> Walk:
    """Explore the real maze of that seed for CONTEXT_S, then go on in both worlds under the same keys."""
    blocks_per_s = world.fps / world.frames_per_block
    reality = world.reality(seed=seed)
    assert isinstance(reality.simulator, Maze)
    explorer = MazeExplorer(reality.simulator, seed)
    context = [reality.step(explorer.choose()) for _ in range(math.ceil(CONTEXT_S * blocks_per_s))]
    frames = np.concatenate([reality.first[None], *(chunk.frames for chunk in context)])
    keys = [frozenset[str](), *chain.from_iterable([chunk.keys] * world.frames_per_block for chunk in context)]
    session = world.open(seed=seed, frames=frames, keys=keys)
    real, made = [], []
    for _ in range(math.ceil(seconds * blocks_per_s)):
        real.append(reality.step(explorer.choose()))
        made.append(session.step(real[-1].keys))
    session.close()
    reality.simulator.close()
    return Walk(
        last=frames[-1],
        held=tuple(chunk.keys for chunk in real),
        real=np.concatenate([chunk.frames for chunk in real]),
        made=np.concatenate([chunk.frames for chunk in made]),
    )


def likeness(walks: Sequence[Walk], *, at_frame: int) -> tuple[Floats, Floats]:
    """Squared errors of a frame, numbered from 1: as generated, and with the last seen frame shown again, [walks]."""
    real = np.stack([walk.real[at_frame - 1] for walk in walks])
    made = np.stack([walk.made[at_frame - 1] for walk in walks])
    return squared_error(real, made), squared_error(real, np.stack([walk.last for walk in walks]))


def turning(walks: Sequence[Walk]) -> tuple[Floats, Floats, Floats]:
    """The turn of each block: held (1 right, -1 left, 0 none), real and generated in degrees, each [walks, blocks]."""

    def by_block(walk: Walk, frames: Frames) -> Floats:
        seen = np.concatenate([walk.last[None], frames])
        per_frame = turns(seen, field_of_view_degrees=FIELD_OF_VIEW_DEGREES)
        return np.asarray(per_frame.reshape(len(walk.held), -1).sum(axis=1))

    def held(keys: Keys) -> float:
        _, _, left, right = CONTROLS.vector(keys)
        return right - left

    return (
        np.array([[held(keys) for keys in walk.held] for walk in walks]),
        np.stack([by_block(walk, walk.real) for walk in walks]),
        np.stack([by_block(walk, walk.made) for walk in walks]),
    )


def judge(short: Sequence[Walk], sharp: tuple[Floats, Floats], *, fps: int, seed: int) -> dict[str, Measure]:
    """Every measure with a bar.

    Args:
        short: walks of SHORT_S, all of one length.
        sharp: sharpness of real and of generated frames after LONG_S, [walks, frames].
        fps: frames in one second.
        seed: of the intervals.
    """
    rng = np.random.default_rng(seed)

    def measure(name: str, statistic: Callable[..., float], *samples: Floats) -> tuple[str, Measure]:
        low, high = interval(statistic, *samples, rng=rng)
        return name, Measure(value=statistic(*samples), low=low, high=high, bar=BARS[name])

    held, real, made = turning(short)
    return dict(
        [
            measure("psnr_gain_db_at_0.25s", psnr_gain, *likeness(short, at_frame=round(0.25 * fps))),
            measure("psnr_gain_db_at_1s", psnr_gain, *likeness(short, at_frame=fps)),
            measure("turn_direction_right", direction_share, held, real, made),
            measure("turn_size_correlation", turn_correlation, real, made),
            measure("sharpness_after_60s", sharpness_ratio, *sharp),
        ]
    )


def times_within(walks: Sequence[Walk], *, fps: int) -> list[float]:
    """Those of SHOWN_AT_S that the walks are long enough for."""
    return [seconds for seconds in SHOWN_AT_S if round(seconds * fps) <= len(walks[0].real)]


def contact_sheet(walks: Sequence[Walk], *, fps: int) -> Frames:
    """Real frames above generated ones of each walk, the last seen frame first, the times written on top, [H, W, 3]."""
    times = times_within(walks, fps=fps)
    numbers = [round(seconds * fps) for seconds in times]
    strips = [
        np.concatenate([walk.last, *(frames[number - 1] for number in numbers)], axis=1)
        for walk in walks
        for frames in (walk.real, walk.made)
    ]
    head = np.zeros((LABEL_PX, strips[0].shape[1], 3), np.uint8)
    width = walks[0].last.shape[1]
    for column, seconds in enumerate((0.0, *times)):
        place = (column * width + 2, LABEL_PX - 2)
        cv2.putText(head, f"{seconds:g} s", place, cv2.FONT_HERSHEY_SIMPLEX, 0.35, (255, 255, 255))
    return np.concatenate([head, *strips])


def report(measures: dict[str, Measure], walks: Sequence[Walk], *, fps: int) -> dict[str, Any]:
    """The measures, and the likeness behind them over time."""
    errors = {seconds: likeness(walks, at_frame=round(seconds * fps)) for seconds in times_within(walks, fps=fps)}
    return {
        "measures": {name: {**asdict(measure), "passed": measure.passed} for name, measure in measures.items()},
        "psnr_db": {
            f"{seconds:g}s": {"made": psnr(made), "last_frame_again": psnr(again)}
            for seconds, (made, again) in errors.items()
        },
    }


def main(
    weights: Annotated[Path | None, typer.Option(help="A weights file; the one in the package if left out.")] = None,
    frames_per_block: Annotated[int, typer.Option(help="Frames made together.")] = 1,
    walks: Annotated[int, typer.Option(min=2, help="Walks of four seconds.")] = 64,
    long_walks: Annotated[int, typer.Option(min=2, help="Walks of a minute.")] = 8,
    seed: Annotated[int, typer.Option(help="Of the first walk; the others follow.")] = 0,
    output: Annotated[Path, typer.Option("-o", help="Folder for maze_quality.json and .png.")] = RESULTS,
) -> None:
    """Judge the maze, and write what was found with a contact sheet."""
    world = worldsim.load("maze", weights=weights, frames_per_block=frames_per_block)
    with typer.progressbar(range(seed, seed + walks), label="short walks") as seeds:
        short = [play(world, one, seconds=SHORT_S) for one in seeds]
    sharp = []
    with typer.progressbar(range(seed, seed + long_walks), label="long walks") as seeds:
        for one in seeds:
            walk = play(world, one, seconds=LONG_S + JUDGED_S)
            judged = -round(JUDGED_S * world.fps)
            sharp.append((sharpness(walk.real[judged:]), sharpness(walk.made[judged:])))
    measures = judge(
        short, (np.stack([a for a, _ in sharp]), np.stack([b for _, b in sharp])), fps=world.fps, seed=seed
    )
    about = {"weights": str(weights or "in the package"), "frames_per_block": frames_per_block, "walks": walks}
    path = write("maze_quality", {**about, **report(measures, short, fps=world.fps)}, folder=output)
    sheet = cv2.cvtColor(contact_sheet(short[:SHEET_WALKS], fps=world.fps), cv2.COLOR_RGB2BGR)
    path.with_suffix(".png").write_bytes(cv2.imencode(".png", sheet)[1].tobytes())
    for name, measure in measures.items():
        typer.echo(
            f"{name:24} {measure.value:7.3f} [{measure.low:.3f}, {measure.high:.3f}]"
            f"  bar {measure.bar:g}  {'reached' if measure.passed else 'missed'}"
        )
    raise typer.Exit(not all(measure.passed for measure in measures.values()))


if __name__ == "__main__":
    typer.run(main)
