"""A walk through a learned world, from scripted keys to a video file."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any

from worldsim.runtime.chunk import Chunk
from worldsim.runtime.session import Session
from worldsim.runtime.video import VideoWriter, shown_scale
from worldsim.runtime.world import World
from worldsim.session.log import SessionLog
from worldsim_apps.actions import Actions


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """What was written, and how long that took."""

    path: Path
    frames: int
    fps: int
    size: tuple[int, int]
    took_s: float
    stopped: bool

    @property
    def seconds(self) -> float:
        """World time, in seconds."""
        return self.frames / self.fps

    @property
    def speed(self) -> float:
        """World time over the time it took; from 1 on it can be walked through live."""
        return self.seconds / self.took_s

    def __str__(self) -> str:
        """A line about it."""
        speed = f"made at {self.speed:.2f} times the speed of the world"
        return f"{self.path}: {self.frames} frames, {self.seconds:.1f} s, {speed}"

    def to_dict(self) -> dict[str, Any]:
        """All of it, fit for JSON."""
        return asdict(self) | {"path": str(self.path), "seconds": self.seconds, "speed": self.speed}


def film(
    world: World,
    session: Session,
    actions: Actions,
    path: Path,
    *,
    frames: int,
    on_frames: Callable[[int], None],
) -> Film:
    """Play the actions in the session for that many frames and write what is seen to path, an MP4 file.

    The keys held are its subtitles. What the session is told at its first block it was opened with.

    Ctrl-C ends it after the block it is in; the file then holds what was made until there.

    Args:
        on_frames: called after every block with the number of frames it added.

    Raises:
        VideoError: the file cannot be written to its end; the part written plays.
    """
    height, width = world.size
    scale = shown_scale(world.size)
    began = perf_counter()
    with VideoWriter(path, size=world.size, fps=world.fps, scale=scale) as video, _interruptible() as is_stopped:
        for block in count():
            keys = actions.keys_at(block)
            if block and block in actions.prompts:
                session.set_prompt(actions.prompts[block])
            added = session.step(keys).frames[: frames - video.frames]
            session.forget()  # a script never goes back
            video.write(added, keys)
            on_frames(len(added))
            if is_stopped() or video.frames == frames:
                break
    return Film(
        path=path,
        frames=video.frames,
        fps=world.fps,
        size=(height * scale, width * scale),
        took_s=perf_counter() - began,
        stopped=is_stopped(),
    )


def film_log(world: World, log: SessionLog, path: Path | None, *, verify: bool, on_block: Callable[[], None]) -> None:
    """Live a log again and write what is seen to path, an MP4 file, if there is one.

    Args:
        verify: see World.replay.
        on_block: called after every block.

    Raises:
        NotReproduced: a block came out otherwise than it was recorded; the file holds what was made until there.
        VideoError: the file cannot be written to its end; the part written plays.
    """
    with ExitStack() as stack:
        video = None
        if path is not None:
            scale = shown_scale(world.size)
            video = stack.enter_context(VideoWriter(path, size=world.size, fps=world.fps, scale=scale))

        def show(chunk: Chunk) -> None:
            if video is not None:
                video.write(chunk.frames, chunk.keys)
            on_block()

        world.replay(log, verify=verify, on_chunk=show)


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into an answer to "was it pressed?"; a second one interrupts at once, as ever."""
    pressed = False
    usual = signal.getsignal(signal.SIGINT)

    def press(_signal: int, _frame: Any) -> None:
        nonlocal pressed
        pressed = True
        signal.signal(signal.SIGINT, usual)

    signal.signal(signal.SIGINT, press)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, usual)
