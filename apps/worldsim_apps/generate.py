"""A walk through a learned world, from scripted keys to a video file."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any

from worldsim.cache.policies import policy_text
from worldsim.controls import Keys
from worldsim.errors import ConfigError, SpillError, counted
from worldsim.runtime.chunk import Chunk, Frames
from worldsim.runtime.session import Session
from worldsim.runtime.video import VideoWriter, check_size, shown_scale
from worldsim.runtime.world import World
from worldsim.session.log import SessionLog
from worldsim_apps.actions import Actions
from worldsim_apps.stopping import stoppable


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
        return f"{self.path}: {counted(self.frames, 'frame')}, {self.seconds:.1f} s, {speed}"

    def to_dict(self) -> dict[str, Any]:
        """All of it, fit for JSON."""
        return asdict(self) | {"path": str(self.path), "seconds": self.seconds, "speed": self.speed}


def check_film(size: tuple[int, int]) -> None:
    """Raise ConfigError unless there can be a film of a world whose frames are of (height, width) pixels."""
    check_size(size, scale=shown_scale(size))


def film_file(world: World, path: Path) -> VideoWriter:
    """A file for a film of a world, an MP4; errors as for VideoWriter."""
    return VideoWriter(path, size=world.size, fps=world.fps, scale=shown_scale(world.size))


def settings_of(world: World) -> dict[str, Any]:
    """How its blocks are made, by the names under which `worldsim.load` takes what is chosen of that; fit for JSON.

    Blocks are of so many frames as are shown.
    """
    plan = world.plan
    return {
        "policy": policy_text(plan.policy),
        "steps": len(plan.sigmas),
        "frames_per_block": world.frames_per_block,
        "clean_pass": plan.clean_pass,
    }


def length_of(world: World, seconds: float, *, start: int | None, begun: Frames | None) -> int:
    """How many frames a film of so many seconds has, at least 1.

    Args:
        world: in which it is made.
        seconds: of world time, over 0.
        start: number of the starting place, if one was chosen.
        begun: the frames that it begins from instead, if any are.

    Raises:
        ConfigError: there is no memory for so long a past, noise in the published order ends before, or there is no
            such starting place.
    """
    frames = max(1, round(seconds * world.fps))
    past = len(begun) if begun is not None else 0
    if begun is None and (start is not None or len(world.origin.starts)):
        past = len(world.origin.starts.get(start or 0)[0])
    length = world.plan.frames_per_block
    group = world.frames_per_block // length
    room = (world.pool.pages - past // group) // length * world.frames_per_block
    if world.plan.policy.limit is None and frames > room:
        raise ConfigError(
            f"a policy that forgets nothing has memory for {room} frames, {room / world.fps:.0f} s, and {frames} are "
            f"asked for; ask for --seconds {room // world.fps} or less, or for a policy such as window:frames=32"
        )
    lacking = group - 1 if world.plan.from_nothing and not past else 0  # of its first latent frame one is shown
    _check_noise(world, frames, lacking)
    return frames


def _check_noise(world: World, frames: int, lacking: int) -> None:
    """Raise ConfigError unless noise in the published order, if that is the plan, is that of so many frames or more.

    lacking: how many frames fewer the first block shows.
    """
    published, length = world.plan.noise.published, world.plan.frames_per_block
    most = published // length * world.frames_per_block - lacking
    if published and frames > most:
        raise ConfigError(
            f"noise in the published order is that of {published} latent frames, which are {most} frames, and "
            f"{frames} are asked for; ask for --seconds {most / world.fps:.2f} or less, or for more latent frames, as "
            f"in --noise published:frames={-(-(frames + lacking) // world.frames_per_block) * length}"
        )


def film(
    world: World,
    session: Session,
    actions: Actions,
    video: VideoWriter,
    *,
    frames: int,
    on_frames: Callable[[int], None],
) -> Film:
    """Play the actions in the session for that many frames and write what is seen to a video, which is then closed.

    The keys held are its subtitles. What the session is told at its first block it was opened with.

    Ctrl-C or SIGTERM ends it after the block it is in; the video then holds what was made until there, and replaces no
    other.

    Args:
        on_frames: called after every block with the number of frames it added.

    Raises:
        VideoError: the file cannot be written to its end; the part written plays.
    """
    height, width = world.size
    scale = shown_scale(world.size)
    began = perf_counter()
    with stoppable() as is_stopped:
        for block in count():
            keys = actions.keys_at(block)
            if block and block in actions.prompts:
                text, over = actions.prompts[block]
                session.set_prompt(text, over=over)
            added = _stepped(session, keys)[: frames - video.frames]
            session.forget()  # a script never goes back
            video.write(added, keys)
            on_frames(len(added))
            if is_stopped() or video.frames == frames:
                break
        if video.frames == frames:
            video.close()
        else:
            video.stop()
    return Film(
        path=video.path,
        frames=video.frames,
        fps=world.fps,
        size=(height * scale, width * scale),
        took_s=perf_counter() - began,
        stopped=is_stopped(),
    )


def _stepped(session: Session, keys: Keys) -> Frames:
    """The frames of the next block."""
    try:
        return session.step(keys).frames
    except SpillError as error:
        error.add_note("a walk by script is made again by the same command")
        raise


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
            video = stack.enter_context(film_file(world, path))

        def show(chunk: Chunk) -> None:
            if video is not None:
                video.write(chunk.frames, chunk.keys)
            on_block()

        world.replay(log, verify=verify, on_chunk=show)
