"""What the tests of the server share: a server of the tiny world, and a client that says what a test tells it to."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from worldsim.codec.patches import PatchCodec
from worldsim.runtime.engine import Engine
from worldsim.runtime.voice import Voice
from worldsim.runtime.world import World
from worldsim.session.events import SUBPROTOCOL, write_message
from worldsim.session.machine import Limits
from worldsim.session.wire import Flag, Media
from worldsim.testing.fakes import DifferenceCodec, embed_words, tiny_world, told_world
from worldsim_apps.gate import Door
from worldsim_apps.gauges import Gauges
from worldsim_apps.hall import Hall
from worldsim_apps.kept import Kept
from worldsim_apps.server import Server, Settings
from worldsim_apps.stage import Stage

WALK = ({"KeyD"}, {"KeyD", "Space"}, set(), {"ArrowLeft"}, {"KeyA"}, {"Space"}, set(), {"KeyD"})
"""The keys of one block after the other."""
LONGEST_S = 45.0
"""No test waits longer than this for anything."""


def bounded(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make a test of a coroutine: it may not hang, leave tasks behind, or have an error that nobody heard of."""

    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        unheard: list[dict[str, Any]] = []

        async def all_of_it() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
            async with asyncio.timeout(LONGEST_S):
                await test(*arguments, **named)
            await settled(lambda: not tasks())

        asyncio.run(all_of_it())
        assert not unheard

    return run


def tasks() -> set[asyncio.Task[Any]]:
    """All tasks but the one that asks."""
    return asyncio.all_tasks() - {asyncio.current_task()}


async def settled(is_so: Callable[[], Any], *, within_s: float = 10.0) -> None:
    """Wait until it is so; fail if it does not become so."""
    async with asyncio.timeout(within_s):
        while not is_so():
            await asyncio.sleep(0.005)


@contextmanager
def errors_logged() -> Iterator[list[logging.LogRecord]]:
    """The records of errors that are logged meanwhile."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = records.append
    logging.getLogger().addHandler(handler)
    try:
        yield records
    finally:
        logging.getLogger().removeHandler(handler)


@asynccontextmanager
async def serving(
    folder: Path,
    *,
    world: World | None = None,
    sessions: int | None = None,
    resume_s: float = 60.0,
    limits: Limits | None = None,
    token: str = "",
    connections: int = 1_000,
    logged: Sequence[str] = (),
    picture: Any = None,
) -> AsyncIterator[tuple[Server, str]]:
    """A server of the tiny world and its address; when it has ended it holds nothing, and has logged these errors."""
    world = world or tiny_world()
    settings = Settings(
        door=Door(port=0, handshakes_per_s=1e6, connections=connections, token=token),
        folder=folder,
        sessions=sessions,
        resume_s=resume_s,
        limits=limits or Limits(messages_per_s=1e6, burst=10**6),
        picture=picture,
    )
    with errors_logged() as records:
        server = Server(world, settings)
        async with server.listening():
            yield server, f"ws://127.0.0.1:{server.port}"
    assert server.hall.rooms == {}
    assert server.hall.engine.open_sessions == 0
    world.pool.check_integrity(())
    assert world.pool.used == 0
    told = [record.getMessage() for record in records]
    assert len(told) == len(logged), told
    assert all(part in text for part, text in zip(logged, told, strict=True)), told


@asynccontextmanager
async def hall_of(
    folder: Path, *, world: World | None = None, sessions: int | None = None, resume_s: float = 60.0
) -> AsyncIterator[Hall]:
    """A hall without a server around it."""
    world = world or tiny_world()
    hall = Hall(Engine(world, sessions=sessions), Kept(folder), Gauges(lambda: world.pool.used, lambda _: 0), resume_s)
    yield hall
    for room in list(hall.rooms.values()):
        await room.end()
    for threads in hall.threads:
        threads.shutdown()
    hall.engine.close()
    assert hall.engine.open_sessions == 0
    world.pool.check_integrity(())
    assert world.pool.used == 0


class Talk:
    """One connection: texts and frames apart, in the order in which they came."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.session = self.resume = self.world = ""
        self._texts: deque[dict[str, Any]] = deque()
        self._frames: deque[Media] = deque()
        self._seq = 0

    async def say(self, kind: str, **fields: Any) -> None:
        await self.connection.send(write_message(kind, **fields))

    async def hold(self, *keys: str) -> int:
        self._seq += 1
        await self.say("action", seq=self._seq, keys=list(keys))
        return self._seq

    async def hear(self, kind: str) -> dict[str, Any]:
        """The next text, which is of that type."""
        while not self._texts:
            await self._take()
        told = self._texts.popleft()
        assert told["type"] == kind, told
        self.session, self.resume = told.get("session", self.session), told.get("resume", self.resume)
        self.world = told.get("world", self.world)
        return told

    async def ask(self, op: str, kind: str = "state", **fields: Any) -> dict[str, Any]:
        """What a verb is answered with."""
        await self.say("control", op=op, **fields)
        return await self.hear(kind)

    async def jump(self, op: str, **fields: Any) -> dict[str, Any]:
        """What a verb is answered with that makes all frames so far worthless."""
        told = await self.ask(op, **fields)
        self._frames.clear()
        return told

    async def refused(self, op: str, code: str, **fields: Any) -> str:
        """The text of the error that a verb is answered with."""
        told = await self.ask(op, "error", **fields)
        assert told["code"] == code, told
        return str(told["message"])

    async def frame(self) -> Media:
        """The next frame."""
        while not self._frames:
            await self._take()
        return self._frames.popleft()

    async def play(self, blocks: int) -> list[bytes]:
        """The payloads of the next blocks, each of which is acknowledged."""
        payloads = []
        while blocks:
            media = await self.frame()
            payloads.append(media.payload)
            if Flag.LAST in media.flags:
                blocks -= 1
                await self.say("ack", epoch=media.epoch, blocks=media.block + 1)
        return payloads

    async def walk(self, walk: Iterable[Iterable[str]]) -> list[bytes]:
        """The payloads of blocks under these keys; the session is paused before and after."""
        payloads = []
        for keys in walk:
            await self.hold(*keys)
            await self.ask("step", blocks=1)
            payloads += await self.play(1)
        return payloads

    async def silent(self, seconds: float = 0.25) -> list[Media]:
        """The frames that come within a while in which nothing is said."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    await self._take()
        except TimeoutError:
            frames = list(self._frames)
            self._frames.clear()
            return frames

    async def end(self) -> tuple[int, str]:
        """The code and the reason that the server closes the connection with."""
        with suppress(ConnectionClosed):
            while True:
                await self._take()
        return self.connection.close_code or 0, self.connection.close_reason or ""

    async def _take(self) -> None:
        message = await self.connection.recv()
        if isinstance(message, bytes):
            self._frames.append(Media.decode(message))
        else:
            self._texts.append(json.loads(message))


@asynccontextmanager
async def talk(url: str, **hello: Any) -> AsyncIterator[Talk]:
    """A connection that has said hello, if anything is given for that, and has been welcomed."""
    async with connect(f"{url}/v1/world", subprotocols=[SUBPROTOCOL], compression=None, proxy=None) as connection:
        one = Talk(connection)
        if hello:
            await one.say("hello", **{"codecs": ["raw"], **hello})
            await one.hear("welcome")
        yield one


@asynccontextmanager
async def player(url: str, *, pace: float = 0, paused: bool = True, **start: Any) -> AsyncIterator[Talk]:
    """One who has begun a session; if wanted it is paused, and back before its first block, in epoch 1."""
    async with talk(url, role="player") as one:
        await one.say("start", pace=pace, **start)
        await one.hear("started")
        if paused:
            made = await one.ask("pause")
            await one.jump("rewind", blocks=made["blocks"])
        yield one


def alone(walk: Sequence[Iterable[str]], *, world: World | None = None, **beginning: Any) -> list[bytes]:
    """The payloads of a walk that nobody served."""
    with (world or tiny_world()).open(**beginning) as session:
        return [frame.tobytes() for keys in walk for frame in session.step(keys).frames]


class Doubled:
    """A codec of which every latent frame but the first of a video stands for two frames of pixels, one dimmed."""

    group = 2

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def open(self) -> None:
        return None

    def decode(self, latents: torch.Tensor, state: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        frames, last = self._inner.decode(latents, state)
        both = torch.stack((frames // 2, frames), 1).flatten(0, 1)
        return both[1:] if state is None else both, last


def doubled_world() -> World:
    """A world that is told prompts, whose blocks have four frames of pixels, the first of a session three."""
    told = told_world()
    codec, hears = (
        Doubled(DifferenceCodec(patches=PatchCodec(side=2))),
        Voice(embed_words, told.backbone, told.pool.device),
    )
    return World(told.origin, backbone=told.backbone, codec=codec, plan=told.plan, pool=told.pool, hears=hears)


async def walk(stage: Stage, keys: Iterable[Iterable[str]]) -> list[bytes]:
    """The pixels of blocks under these keys."""
    return [frame.tobytes() for held in keys for frame in (await stage.step(held)).frames]
