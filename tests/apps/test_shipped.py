"""The command line on the shipped weights, end to end: the video decodes to the walk that was asked for."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from worldsim.presets import CRAFTER
from worldsim_apps.cli import main

SHIPPED = CRAFTER.folder / "weights.safetensors"
TILE_PX, VIEW_PX = 8, 56
AHEAD = {"KeyD": (0, 1), "KeyA": (0, -1), "KeyW": (-1, 0), "KeyS": (1, 0)}
HELD = 6

pytestmark = pytest.mark.skipif(not SHIPPED.is_file(), reason="the weights of crafter are not in the package")


def decode(path: Path) -> tuple[NDArray[np.uint8], float]:
    """The frames of a video, one pixel of each enlarged one, and its rate."""
    with av.open(path) as file:
        stream = file.streams.video[0]
        shown = np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(stream)])
        assert shown.shape[1:] == (576, 576, 3)
        assert stream.average_rate is not None
        return shown[:, 4::8, 4::8], float(stream.average_rate)


def moved(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> tuple[int, int]:
    """The step in tiles, (down, right), that explains best how the view scrolled; (0, 0) if it stood still."""
    old, new = (frame[:VIEW_PX].astype(int) for frame in (before, after))
    height, width, _ = old.shape

    def error(step: tuple[int, int]) -> float:
        down, right = (tiles * TILE_PX for tiles in step)
        kept = old[max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)]
        seen = new[max(0, -down) : height + min(0, -down), max(0, -right) : width + min(0, -right)]
        return float(np.abs(kept - seen).mean())

    return min([(0, 0), *AHEAD.values()], key=error)


def test_the_terrain_scrolls_the_way_that_the_held_key_walks(tmp_path, capsys):
    script = tmp_path / "walk.jsonl"
    lines = [json.dumps({"block": number * HELD, "keys": [key]}) for number, key in enumerate(AHEAD)]
    script.write_text("\n".join(lines))
    steps: dict[str, list[tuple[int, int]]] = {key: [] for key in AHEAD}
    for start in ("0", "1"):
        path = tmp_path / f"{start}.mp4"
        options = ("--actions", str(script), "--start", start, "--seconds", "3", "-o", str(path), "--json")
        assert main(["generate", *options]) == 0
        told = json.loads(capsys.readouterr().out)
        frames, fps = decode(path)
        assert (len(frames), fps) == (24, 8.0)
        assert (told["frames"], told["fps"], told["size"]) == (24, 8, [576, 576])
        for block in range(1, 24):
            steps[[*AHEAD][block // HELD]].append(moved(frames[block - 1], frames[block]))
    for key, ahead in AHEAD.items():
        walked = [step for step in steps[key] if step != (0, 0)]
        assert len(walked) >= 2, f"{key} was held for {len(steps[key])} frames and nothing scrolled"
        assert walked.count(ahead) >= 0.8 * len(walked), f"{key} scrolled by {walked}"
