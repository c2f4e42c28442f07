"""How many seconds of video lvbench scores in a second, and what memory it takes.

    python -m benchmarks.lvbench

Decoding alone and the light extractor are timed in turn over the same film, so that whatever else the machine does hits
both. The published networks have their sizes and random weights, which cost what trained ones cost; each is timed by
itself on frames of that film. Memory is the peak of a process that does nothing else.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import av
import cv2
import numpy as np
import torch
import typer
from numpy.typing import NDArray

from benchmarks.decode import timed
from benchmarks.record import spread, write
from lvbench.dynamics import stride
from lvbench.examine import extract
from lvbench.extractor import Slots
from lvbench.light import Light
from lvbench.networks.loading import built, machine, slots_of
from lvbench.sizes import Sizes
from lvbench.video import Limits, open_video
from lvbench.weights import SOURCES, Networks, hashed

SIZE, LARGE = (480, 832), (1080, 1920)
FPS = 16
GROUP = 8
"""Frames that a network is given at once."""
BAR = {"light_at_least": 1.0, "peak_mb_below": 1000.0}
"""Seconds of video a second at 832 x 480 and 16 frames a second, and megabytes for a minute of 1920 x 1080."""
PEAK = """
from pathlib import Path
from lvbench.examine import extract
from lvbench.light import Light
from lvbench.video import Limits, open_video
with open_video(Path({path!r}), Limits()) as video:
    extract(video, Light())
print(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")).split()[1])
"""
Frames = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How much is timed: seconds of film, how often decoding and the light extractor, how often each network."""

    seconds: int = 60
    repeats: int = 5
    calls: int = 3


def film(path: Path, size: tuple[int, int], seconds: int) -> Path:
    """Write a video of a soft texture that wanders, with grain: about what footage costs a decoder and a flow."""
    generator = np.random.default_rng(7)
    base = cv2.GaussianBlur(generator.integers(0, 255, (*size, 3), dtype=np.uint8), (0, 0), 4)
    base = cv2.convertScaleAbs(base, alpha=6, beta=-640)
    grain = generator.integers(-6, 7, (8, *size, 3), dtype=np.int16)
    with av.open(path, "w") as file:
        stream = file.add_stream("libx264", rate=FPS, options={"preset": "veryfast"})
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        for at in range(seconds * FPS):
            frame = (np.roll(base, (at, 3 * at), (0, 1)).astype(np.int16) + grain[at % 8]).clip(0, 255).astype(np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode(None))
    return path


def decoding(path: Path) -> None:
    """Decode a video and leave its frames."""
    with open_video(path, Limits()) as video:
        for _ in video.frames():
            pass


def extracting(path: Path) -> None:
    """Measure a video with the light extractor."""
    with open_video(path, Limits()) as video:
        extract(video, Light())


def light(path: Path, counts: Counts) -> dict[str, Any]:
    """Seconds of video a second: decoded, and measured; how many times longer measuring takes than decoding alone."""
    decoding(path)
    pairs = [(timed(lambda: decoding(path)), timed(lambda: extracting(path))) for _ in range(counts.repeats)]
    return {
        "decoding_alone": spread([counts.seconds / bare for bare, _ in pairs]),
        "light": spread([counts.seconds / whole for _, whole in pairs]),
        "light_takes_times_decoding": spread([whole / bare for bare, whole in pairs]),
    }


def peak_mb(path: Path) -> float:
    """The most memory that a process held at once that measured a video with the light extractor, in MB."""
    told = subprocess.run(
        [sys.executable, "-c", PEAK.format(path=str(path))], check=True, capture_output=True, text=True
    ).stdout
    return int(told) * 1024 / 1e6


def random_networks(folder: Path, sizes: Sizes, seed: int) -> Networks:
    """Files of random weights for the published networks."""
    generator = torch.Generator().manual_seed(seed)
    for name in SOURCES:
        state = built(name, sizes).state_dict()
        torch.save({key: _drawn(key, tensor, generator) for key, tensor in state.items()}, folder / f"{name}.pth")
    return Networks(weights=hashed({name: folder / f"{name}.pth" for name in SOURCES}), sizes=sizes)


def calls(slots: Slots, frames: Frames, fps: float) -> Mapping[str, tuple[Callable[[], object], float]]:
    """By network, what one call of it does, and how many frames of video that is worth.

    Args:
        slots: the networks.
        frames: a group of them, [8, H, W, 3].
        fps: of the video.
    """
    return {
        "clarity, MUSIQ": (lambda: slots.clarity(frames), len(frames)),
        "aesthetic, CLIP L/14": (lambda: slots.aesthetic(frames), len(frames)),
        "background, CLIP B/32": (lambda: slots.background(frames), len(frames)),
        "subject, DINO B/16": (lambda: slots.subject(frames), len(frames)),
        "motion, AMT-S": (lambda: slots.between(frames[0], frames[2]), 1),
        "dynamic, RAFT": (lambda: slots.flow(frames[0], frames[-1]), stride(fps)),
    }


def published(path: Path, networks: Networks, counts: Counts) -> dict[str, Any]:
    """Seconds of video a second, for each network by itself and for all of them one after another."""
    with open_video(path, Limits()) as video:
        frames = np.stack(list(islice(video.frames(), GROUP)))
    slots = slots_of(networks)
    seconds: dict[str, list[float]] = {}
    for name, (call, worth) in calls(slots, frames, FPS).items():
        call()
        seconds[name] = [timed(call) * FPS / worth for _ in range(counts.calls)]
    each = {name: spread([1 / taken for taken in found]) for name, found in seconds.items()}
    together = [sum(found) for found in zip(*seconds.values(), strict=True)]
    return {"on": machine(), **each, "all": spread([1 / taken for taken in together])}


def measure(counts: Counts, folder: Path, sizes: Sizes) -> dict[str, Any]:
    """Everything this benchmark reports; films and weights go to a folder."""
    small = film(folder / "small.mp4", SIZE, counts.seconds)
    large = film(folder / "large.mp4", LARGE, counts.seconds)
    found = {
        "film": {"seconds": counts.seconds, "fps": FPS, "size": list(SIZE), "large": list(LARGE)},
        "seconds_of_video_a_second": light(small, counts),
        "seconds_of_large_video_a_second": light(large, counts),
        "peak_mb": {"small": peak_mb(small), "large": peak_mb(large)},
        "published_seconds_of_video_a_second": published(small, random_networks(folder, sizes, seed=3), counts),
    }
    return {**found, "bar": BAR, "reached": reached(found)}


def reached(found: Mapping[str, Any]) -> dict[str, bool]:
    """Which bars are."""
    speed = found["seconds_of_video_a_second"]["light"]["median"]
    return {
        "light_at_least": bool(speed >= BAR["light_at_least"]),
        "peak_mb_below": bool(found["peak_mb"]["large"] < BAR["peak_mb_below"]),
    }


def _drawn(name: str, like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Weights of that shape and kind: about 1 where something is scaled, else so small that sums stay as large."""
    if not like.is_floating_point():
        return torch.ones(like.shape, dtype=like.dtype)
    numbers = torch.randn(like.shape, generator=generator)
    if name.endswith("running_var") or (like.ndim == 1 and name.endswith("weight")):
        return (1 + 0.1 * numbers).abs()
    scale: float = 0.5 / max(1, like[:1].numel()) ** 0.5
    return numbers * scale


def main(
    seconds: Annotated[int, typer.Option(help="Length of the films.")] = 60,
    repeats: Annotated[int, typer.Option(help="How often decoding and the light extractor are timed.")] = 5,
    network_calls: Annotated[int, typer.Option("--calls", help="How often each network is timed.")] = 3,
) -> None:
    """Time lvbench and write benchmarks/results/lvbench.json."""
    counts = Counts(seconds=seconds, repeats=repeats, calls=network_calls)
    with tempfile.TemporaryDirectory() as folder:
        path = write("lvbench", measure(counts, Path(folder), Sizes()))
    typer.echo(path.read_text())


if __name__ == "__main__":
    typer.run(main)
