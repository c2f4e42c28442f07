"""Real encoded videos for the tests, small and in no time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from lvbench.examine import READER, Settings, Task
from lvbench.light import Light
from lvbench.store import Store, hash_of
from lvbench.video import DECODER

SIZE = (48, 64)
Frame = NDArray[np.uint8]


def synthetic(frames: int = 12) -> NDArray[np.uint8]:
    """The clip on which the published parts were measured, [F, 48, 64, 3]."""
    t, y, x, c = np.meshgrid(range(frames), range(48), range(64), range(3), indexing="ij")
    return ((3 * x + 5 * y + 7 * t + 40 * c + (x * y * (t + 1)) // 50) % 256).astype(np.uint8)


def drifting(frames: int) -> list[Frame]:
    """A textured picture that moves two pixels a frame and gets darker."""
    base = np.random.default_rng(3).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    return [(np.roll(base, 2 * at, axis=1) * (1 - at / (2 * frames))).astype(np.uint8) for at in range(frames)]


def film(
    path: Path,
    frames: Iterable[Frame],
    codec: str = "libx264",
    *,
    fps: int = 16,
    fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
) -> Path:
    """Write frames [H, W, 3] as a video in the container that the name of the file asks for."""
    with av.open(path, "w", options=options or {}) as file:
        stream = None
        for frame in frames:
            if stream is None:
                stream = file.add_stream(codec, rate=fps)
                stream.height, stream.width, stream.pix_fmt = *frame.shape[:2], fmt
                stream.codec_context.thread_count = 1  # the same bytes however many cores
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        assert stream is not None
        file.mux(stream.encode(None))
    return path


def sound(path: Path) -> Path:
    """Write a file of silence, without pictures."""
    with av.open(path, "w") as file:
        stream = file.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 8000
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def cut(path: Path, share: float, name: str) -> Path:
    """The first share of the bytes of a file, under another name beside it."""
    data = path.read_bytes()
    short = path.with_name(name)
    short.write_bytes(data[: int(share * len(data))])
    return short


def counted(calls: list[object], function: Callable[..., object]) -> Callable[..., object]:
    """A function that also notes what it was called with."""

    def noting(*args: object, **named: object) -> object:
        calls.append(args)
        return function(*args, **named)

    return noting


def hang(task: Task, settings: Settings) -> None:
    """Let the process that scores a video wait for somebody who never writes, where its measures would be kept."""
    key = (hash_of(task.path), Light().fingerprint, DECODER, READER)
    settings.store.mkdir(exist_ok=True)
    os.mkfifo(Store(settings.store)._path(key))
