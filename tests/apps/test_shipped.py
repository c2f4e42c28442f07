"""The shipped weights, end to end: the video decodes to the walk that was asked for, and comes out the same again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

import worldsim
from worldsim.presets import CRAFTER
from worldsim.runtime.session import Session
from worldsim.runtime.world import World
from worldsim_apps.cli import main

SHIPPED = CRAFTER.folder / "weights.safetensors"
TILE_PX, VIEW_PX = 8, 56
AHEAD = {"KeyD": (0, 1), "KeyA": (0, -1), "KeyW": (-1, 0), "KeyS": (1, 0)}
HELD = 4
OPEN = ("0", "7")
"""Starting places from which one can walk in most directions."""

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


@pytest.fixture(scope="module")
def walks(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[NDArray[np.uint8], float]]:
    """Two seconds from each open place, every key held for half a second, as decoded from the videos."""
    folder = tmp_path_factory.mktemp("walks")
    lines = [json.dumps({"block": number * HELD, "keys": [key]}) for number, key in enumerate(AHEAD)]
    (folder / "walk.jsonl").write_text("\n".join(lines))
    decoded = []
    for start in OPEN:
        path = folder / f"{start}.mp4"
        options = ("--actions", str(folder / "walk.jsonl"), "--start", start, "--seconds", "2", "-o", str(path))
        assert main(["generate", *options]) == 0
        decoded.append(decode(path))
    return decoded


def test_the_video_has_the_frames_the_size_and_the_rate_asked_for(walks):
    for frames, fps in walks:
        assert (len(frames), fps) == (16, 8.0)


@pytest.mark.parametrize("key", AHEAD)
def test_the_terrain_scrolls_the_way_that_the_held_key_walks(walks, key):
    first = [*AHEAD].index(key) * HELD
    steps = [
        moved(frames[block - 1], frames[block])
        for frames, _ in walks
        for block in range(max(1, first), first + HELD)  # a block shows what its own keys did
    ]
    walked = [step for step in steps if step != (0, 0)]
    assert len(walked) >= len(steps) / 2, f"{key} was held for {len(steps)} frames and {len(walked)} scrolled"
    assert walked.count(AHEAD[key]) >= 0.8 * len(walked), f"{key} scrolled by {walked}"


@pytest.fixture(scope="module")
def world() -> World:
    return worldsim.load("crafter")


def lived(session: Session, keys: tuple[str, ...]) -> list[tuple[str, str]]:
    """SHA-256 of the latents and of the pixels of every block, once these keys were held for a block each."""
    for key in keys:
        session.step({key})
    return [(step.latents, step.frames) for step in session.log.steps]


def test_equal_seeds_and_keys_give_equal_latents_and_pixels_also_after_a_rewind_and_in_a_fork(world):
    walk = ("KeyD", "KeyS", "Space", "KeyA")
    session = world.open(seed=11, start=0)
    once = lived(session, walk)
    assert lived(world.open(seed=11, start=0), walk) == once
    session.rewind(2)
    twin = session.fork()
    assert lived(session, walk[2:]) == lived(twin, walk[2:]) == once
    session.rewind(2)
    other = lived(session, ("KeyW", "KeyW"))
    assert other[:2] == once[:2]
    assert all(mine != yours for mine, yours in zip(other[2], once[2], strict=True))
    assert lived(world.open(seed=12, start=0), walk) != once


def test_another_process_gives_the_same_latents_and_pixels(world, tmp_path):
    with world.open(seed=11, start=0, log=tmp_path / "life.log") as session:
        lived(session, ("KeyD", "KeyS", "Space"))
    command = "import sys; from worldsim_apps.cli import main; sys.exit(main())"
    again = [sys.executable, "-c", command, "replay", str(tmp_path / "life.log"), "--verify"]
    done = subprocess.run([*again, "-o", str(tmp_path / "again.mp4")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
