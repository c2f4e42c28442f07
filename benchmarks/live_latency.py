"""How long a frame and an action are on their way: to a client on the same machine, past everything but the model."""

from __future__ import annotations

import asyncio
import tracemalloc
import zlib
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any

import cv2
import numpy as np
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from benchmarks.live_server import Served
from benchmarks.live_wire import KEYS, quantiles
from worldsim.client import Client
from worldsim.errors import ProtocolError
from worldsim.presets import CRAFTER
from worldsim.runtime.starts import Starts
from worldsim.session.wire import Flag, Media
from worldsim_apps.encoding import JpegEncoder, picture_of
from worldsim_apps.gauges import Gauges
from worldsim_apps.viewer import Viewer

SIZE = (480, 832)
PACE = 1.0


async def actions(served: Served, count: int, seed: int) -> dict[str, Any]:
    """From sending an action to having the first frame that it is in.

    Returns:
        live: while the world runs at its own pace, so that the next block may not be due yet.
        at_once: while it stands still and is told to make one block with the action: what is left is
        block: the part of it in which the block was made, by the server's figures, and overhead: all else.
    """
    rng = np.random.default_rng(seed)
    live, at_once, blocks = list[float](), list[float](), list[float]()
    async with Client(served.url) as client:
        await client.start(pace=PACE)
        frame = await client.frame()
        for number in range(count):
            until = monotonic() + float(rng.uniform(0, 0.2))
            while monotonic() < until:
                frame = await client.frame()
            live.append(await _acted(client, number, step=False))
        frame = await client.frame()
        await client.pause()
        while frame.block + 1 < client.blocks:
            frame = await client.frame()
        for number in range(count):
            before = _made_s(served)
            at_once.append(await _acted(client, number, step=True))
            blocks.append(_made_s(served) - before)
    overheads = [whole - block for whole, block in zip(at_once, blocks, strict=True)]
    found = {"live": live, "at_once": at_once, "block": blocks, "overhead": overheads}
    return {"actions": count, **{f"{name}_ms": quantiles(times) for name, times in found.items()}}


def _made_s(served: Served) -> float:
    """Seconds in which blocks were made, in all."""
    return sum(served.gauge("worldsim_block_seconds_sum", f'"{stage}"') for stage in ("denoise", "decode", "commit"))


async def _acted(client: Client, number: int, *, step: bool) -> float:
    began = monotonic()
    seq = await client.hold(KEYS[number % len(KEYS)])
    asked = asyncio.ensure_future(client.step()) if step else None
    while (await client.frame()).action < seq:
        pass
    took = monotonic() - began
    if asked is not None:
        await asked
    return took


async def transport(frames: int) -> dict[str, Any]:
    """From a frame of 832 x 480 being encoded to its bytes being at a client: the way through a viewer's queue."""
    payload = JpegEncoder(SIZE, 16).encode(scenes(1))[0]
    sent: list[float] = []
    times: list[float] = []

    async def show(connection: ServerConnection) -> None:
        viewer = Viewer(connection, Gauges(lambda: 0, lambda _: 0))
        viewer.become("player", "jpeg")
        for number in range(frames):
            sent.append(monotonic())
            viewer.show([_media(number, payload)])
            await asyncio.sleep(0.01)
        viewer.close(1000, "done")
        await viewer.done()

    async with serve(show, "127.0.0.1", 0, compression=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with connect(f"ws://127.0.0.1:{port}", compression=None, max_size=None, proxy=None) as client:
            async for _ in client:
                times.append(monotonic() - sent[len(times)])
    return {"frames": frames, "bytes": len(payload), "transport_ms": quantiles(times)}


def _media(number: int, payload: bytes) -> Media:
    return Media(
        flags=Flag.KEY | Flag.FIRST | Flag.LAST,
        epoch=0,
        block=number,
        frame=0,
        frames=1,
        time_us=0,
        number=0,
        action=0,
        codec="jpeg",
        width=SIZE[1],
        height=SIZE[0],
        payload=payload,
    )


def scenes(count: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Frames of 832 x 480, uint8 [F, 480, 832, 3]: the starting places of the bundled world, enlarged smoothly."""
    starts = Starts.load(CRAFTER.folder / "starts.safetensors")
    small = [starts.get(number % len(starts))[0][number % 8].numpy() for number in range(count)]
    return np.stack([cv2.resize(frame, SIZE[::-1], interpolation=cv2.INTER_CUBIC) for frame in small])


def encoding(frames: int) -> dict[str, Any]:
    """What a JPEG of 832 x 480 takes."""
    encoder, shown = JpegEncoder(SIZE, 16), scenes(frames)
    return {"frames": frames, "jpeg_ms": quantiles([_timed(partial(encoder.encode, frame[None])) for frame in shown])}


def bombs() -> dict[str, Any]:
    """What it costs to refuse pictures that would unpack to gigabytes."""
    chunk = b"IHDR" + (60_000).to_bytes(4) * 2 + b"\x08\x02\x00\x00\x00"
    png = b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0d" + chunk + zlib.crc32(chunk).to_bytes(4)
    jpeg = b"\xff\xd8\xff\xc0\x00\x11\x08" + (65_535).to_bytes(2) * 2 + b"\x03" + bytes(9)
    refused, times = 0, []
    tracemalloc.start()
    for bomb in (png, jpeg):
        began = monotonic()
        try:
            picture_of(bomb, SIZE)
        except ProtocolError:
            refused += 1
        times.append(monotonic() - began)
    memory = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {"bombs": 2, "refused": refused, "longest_ms": max(times) * 1e3, "memory_mb": memory / 1e6}


def _timed(call: Callable[[], Any]) -> float:
    began = monotonic()
    call()
    return monotonic() - began
