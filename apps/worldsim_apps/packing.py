"""A block as the messages that show it: a frame each, numbered, timed and encoded."""

from __future__ import annotations

from worldsim.runtime.chunk import Chunk
from worldsim.runtime.world import World
from worldsim.session.wire import Flag, Media
from worldsim_apps.encoding import Encoder


def pack(encoder: Encoder, chunk: Chunk, world: World, *, epoch: int, action: int) -> list[Media]:
    """The messages of a block, in the order in which they are shown.

    A block takes its time of the world however few frames it has: the first of a session that begins from nothing may
    lack some, which are those before its first. What is numbered and timed counts them.

    Args:
        encoder: makes the pictures.
        chunk: the block; at most world.frames_per_block frames.
        world: whose it is.
        epoch: in which it was made.
        action: seq of the newest action in it, 0 for none.
    """
    count = len(chunk.frames)
    first = (chunk.block + 1) * world.frames_per_block - count
    shown = world.frames_per_block // world.plan.frames_per_block  # for each frame that a block saw
    seen = tuple((range(shown * run.start, shown * run.stop), retrieved) for run, retrieved in chunk.seen.runs)
    return [
        Media(
            flags=(Flag.KEY if encoder.all_keys or not at else Flag(0))
            | (Flag.FIRST if not at else Flag(0))
            | (Flag.LAST if at == count - 1 else Flag(0)),
            epoch=epoch,
            block=chunk.block,
            frame=at,
            frames=count,
            time_us=(first + at) * 1_000_000 // world.fps,
            number=0,
            action=action,
            codec=encoder.codec,
            width=encoder.size[0],
            height=encoder.size[1],
            payload=payload,
            seen=seen if not at else (),
        )
        for at, payload in enumerate(encoder.encode(chunk.frames))
    ]
