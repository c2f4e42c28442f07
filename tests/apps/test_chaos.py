"""Connections that break anywhere, clients that die at any moment and messages of all kinds do the server no harm."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import socket
import struct
import weakref
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.apps.serving import WALK, alone, bounded, player, serving, settled, tasks
from worldsim.client import Client
from worldsim.errors import ProtocolError
from worldsim.session.events import SUBPROTOCOL
from worldsim.session.machine import Limits
from worldsim.testing.fakes import tiny_world

CUTS = 20
DEATHS = 100
MESSAGES = 150
NO_WAIT = struct.pack("ii", 1, 0)


class Proxy:
    """Passes bytes on, and once it is armed cuts every connection after a random number of them."""

    def __init__(self, port: int, seed: int, cuts: int) -> None:
        self.left = cuts
        self.port = 0
        self._to = port
        self._random = random.Random(seed)
        self._armed = False
        self._budgets: dict[object, int] = {}
        self._writers: dict[object, list[asyncio.StreamWriter]] = {}

    def arm(self) -> None:
        """Begin to cut."""
        self._armed = True
        for pair in self._writers:
            self._budgets[pair] = self._drawn()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Its address."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            self.port = server.sockets[0].getsockname()[1]
            yield f"ws://127.0.0.1:{self.port}"

    def _drawn(self) -> int:
        return self._random.randrange(self._random.choice((900, 4_000, 6_000)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._to)
        pair = object()
        self._writers[pair] = [writer, back]
        if self._armed:
            self._budgets[pair] = self._drawn()
        await asyncio.gather(self._pass(pair, reader, back), self._pass(pair, there, writer))
        for one in self._writers.pop(pair):
            one.close()
            with suppress(OSError):
                await one.wait_closed()

    async def _pass(self, pair: object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(4_096):
                whole = len(data)
                if pair in self._budgets and self.left:
                    data = data[: self._budgets[pair]]
                    self._budgets[pair] -= len(data)
                # What this server is called it is called by its port; the proxy has another.
                writer.write(
                    data.replace(f"Host: 127.0.0.1:{self.port}".encode(), f"Host: 127.0.0.1:{self._to}".encode())
                )
                await writer.drain()
                if len(data) < whole:
                    self.left -= 1
                    break
        for one in self._writers[pair]:
            one.transport.abort()


async def one_block(client: Client, keys: Iterable[str]) -> tuple[int, int, bytes]:
    """One block of a paused session under these keys, made once however often the connection is lost meanwhile."""
    while True:
        made = client.blocks
        await client.hold(keys)
        if await done(client.step()):
            break
        while not await done(client.pause()):
            pass
        if client.blocks > made:
            break
    frame = await client.frame()
    while not await done(client.pause()):
        pass
    return frame.epoch, frame.block, frame.payload


async def done(verb: Any) -> bool:
    """Whether a verb was answered; False if its answer was lost."""
    try:
        await verb
    except ProtocolError as error:
        if error.code != "lost":
            raise
        return False
    return True


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_played_session_is_the_same_however_often_its_connection_is_cut(tmp_path, seed):
    @bounded
    async def live():
        drawn, walk, shown = random.Random(seed), [], []
        async with AsyncExitStack() as stack:
            server, _ = await stack.enter_async_context(serving(tmp_path))
            proxy = Proxy(server.port, seed, CUTS)
            url = await stack.enter_async_context(proxy.listening())
            client = await stack.enter_async_context(Client(url, codec="raw"))
            await client.start(seed=seed, pace=0)
            await client.pause()
            await client.rewind(client.blocks)
            proxy.arm()
            while proxy.left or len(walk) < 20:
                walk.append(drawn.choice(WALK))
                shown.append(await one_block(client, walk[-1]))
            assert shown == [(1, block, payload) for block, payload in enumerate(alone(walk, seed=seed))]
            assert client.resumed > 0

    live()


@pytest.mark.parametrize("seed", [4, 5, 6])
def test_frames_that_flow_are_the_same_however_often_the_connection_is_cut(tmp_path, seed):
    @bounded
    async def live():
        shown: list[tuple[int, int, bytes]] = []
        async with AsyncExitStack() as stack:
            world = tiny_world(frames_per_block=2)
            server, _ = await stack.enter_async_context(serving(tmp_path, world=world))
            proxy = Proxy(server.port, seed, CUTS)
            url = await stack.enter_async_context(proxy.listening())
            client = await stack.enter_async_context(Client(url, codec="raw"))
            await client.start(seed=seed, pace=0)
            await client.frame()
            await client.frame()
            await client.ping()  # the first acknowledgement has arrived: there is something to come back to
            proxy.arm()
            while proxy.left or len(shown) < 40:
                frame = await client.frame()
                shown.append((frame.block, frame.frame, frame.payload))
        wanted = alone([()] * (len(shown) // 2 + 2), world=tiny_world(frames_per_block=2), seed=seed)
        assert shown == [(at // 2, at % 2, wanted[at]) for at in range(2, len(shown) + 2)]
        assert client.resumed > 0

    live()


async def die(connection: ClientConnection) -> None:
    """End a connection as a machine does that loses its power, and the one it talks to is told by a reset."""
    with suppress(OSError):  # it has been closed before
        connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_WAIT)
    connection.transport.abort()


PHASES = ("handshake", "hello", "start", "started", "frames", "save", "fork", "rewind", "reset", "load", "watch")


async def live_and_die(url: str, phase: str, world: str, watched: str, pause: float) -> None:
    """A client that comes as far as that phase, waits a moment and dies."""
    if phase == "handshake":
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_WAIT)
            one.sendall(b"GET /v1/world HTTP/1.1\r\nHost: "[: int(1 + pause * 1e4)])
            await asyncio.sleep(pause)
        return
    async with connect(f"{url}/v1/world", subprotocols=[SUBPROTOCOL], proxy=None) as connection:

        async def say(kind: str, **fields: Any) -> None:
            await connection.send(json.dumps({"type": kind, "codecs": ["raw"], **fields}))

        if phase == "watch":
            await say("hello", role="spectator", session=watched)
            await connection.recv()
        else:
            await say("hello")
        if phase == "load":
            await say("control", op="load", world=world)
        elif phase not in ("hello", "watch"):
            await say("start", pace=0)
        if phase not in ("hello", "start", "load", "watch"):
            for kind in ("welcome", "started"):
                assert json.loads(await connection.recv())["type"] == kind
        if phase in ("frames", "save", "fork", "rewind", "reset"):
            for block in range(3):
                frame = await connection.recv()
                assert isinstance(frame, bytes), frame
                await say("ack", epoch=0, blocks=block + 1)
        if phase in ("save", "fork", "rewind", "reset"):
            await say("control", op=phase)
        await asyncio.sleep(pause)
        await die(connection)


@bounded
async def test_clients_that_die_at_any_moment_leave_nothing_behind(tmp_path):
    drawn = random.Random(7)
    async with serving(tmp_path, world=tiny_world(pages=256), resume_s=0.1) as (server, url):
        hall = server.hall
        async with player(url, seed=3) as one:
            shown = await one.walk(WALK[:3])
            world = (await one.ask("save", "saved"))["world"]
            await asyncio.to_thread(lambda: None)
            before = tasks(), hall.engine.call(lambda: hall.engine.world.pool.used).result()
            descriptors = len(os.listdir("/proc/self/fd"))
            for first in range(0, DEATHS, 10):
                await asyncio.gather(
                    *(
                        live_and_die(url, PHASES[number % len(PHASES)], world, one.session, drawn.random() * 0.02)
                        for number in range(first, first + 10)
                    )
                )
            await settled(lambda: len(hall.rooms) == 1, within_s=20)
            await settled(lambda: server._gate.open == 1)
            await settled(lambda: tasks() <= before[0])
            assert hall.engine.open_sessions == 1
            gc.collect()
            assert hall.engine.call(lambda: hall.engine.world.pool.used).result() == before[1]
            await settled(lambda: len(os.listdir("/proc/self/fd")) <= descriptors)
            assert shown + await one.walk(WALK[3:]) == alone(WALK, seed=3)
        async with player(url, seed=4) as one:
            assert await one.walk(WALK) == alone(WALK, seed=4)


@bounded
async def test_sessions_that_have_ended_are_forgotten(tmp_path):
    async with serving(tmp_path, resume_s=0.05) as (server, url):
        known: list[weakref.ref[Any]] = []
        for last in ("bye", "ping"):
            async with player(url, seed=3) as one:
                await one.walk(WALK[:2])
                await one.jump("reset")
                room = server.hall.rooms[one.session]
                known += map(weakref.ref, (room, room._stage, room._stage.live, room._stage.live.session))
                del room
                await one.say(last)
        await settled(lambda: not server.hall.rooms)
        await asyncio.wrap_future(server.hall.engine.call(int))  # the thread that works keeps what it did last
        gc.collect()
        assert [one() for one in known] == [None] * 8


@bounded
async def test_one_who_does_not_read_for_a_while_stops_nobody_else_and_misses_nothing(tmp_path):
    async with AsyncExitStack() as stack:
        _, url = await stack.enter_async_context(serving(tmp_path))
        slow = await stack.enter_async_context(player(url, seed=3, paused=False))
        await slow.play(2)
        slow.connection.transport.pause_reading()
        other = await stack.enter_async_context(player(url, seed=4, paused=False))
        shown = await other.play(30)
        slow.connection.transport.resume_reading()
        later = await slow.play(4)
        for payloads, seed in ((shown, 4), (later, 3)):
            wanted = alone([()] * 30, seed=seed)
            wanted = wanted if seed == 4 else wanted[2:6]
            assert (
                max(
                    abs(a - b) for one, two in zip(payloads, wanted, strict=True) for a, b in zip(one, two, strict=True)
                )
                <= 1
            )  # beside another a session agrees with itself alone up to rounding


VALUES: list[Any] = [
    None, True, 0, -1, 1, 2, 3, 7, 2**31, 2**32, 2**53, 2**63, 2**64, 10**30, 0.0, -0.5, 1e-300, 1e300, "", "a",
    "KeyD", "\ud800", "\u0000", "\u00e9" * 40, "0" * 32, "f" * 32, "../../etc/passwd", "a" * 5_000, [], ["KeyD"],
    ["raw"], [[]], {}, {"type": "hello"}, ["KeyD"] * 33, [None],
]  # fmt: skip
KINDS: dict[str, tuple[str, ...]] = {
    "hello": ("role", "codecs", "token", "session", "resume", "epoch", "blocks"),
    "start": ("seed", "start", "image", "pace"),
    "action": ("seq", "keys"),
    "ack": ("epoch", "blocks"),
    "control": ("op", "blocks", "mark", "world", "seed", "start"),
    "prompt": ("text",),
    "ping": ("t",),
    "bye": (),
    "dance": ("seq",),
    "tell": ("seen",),
}
OPS = ("pause", "resume", "step", "mark", "rewind", "fork", "save", "load", "reset", "map", "dance")


def nonsense(drawn: random.Random, worlds: list[str]) -> str | bytes:
    """A message that may be right, nearly right, or nothing at all."""
    kind = drawn.choices(tuple(KINDS), weights=(3, 4, 4, 4, 12, 1, 1, 0.3, 1, 1))[0]
    fields: dict[str, Any] = {"type": kind}
    for name in KINDS[kind]:
        if drawn.random() < 0.4:
            fields[name] = drawn.choice(VALUES)
    if kind == "control" and drawn.random() < 0.9:
        fields["op"] = drawn.choice(OPS)
        fields["world"] = drawn.choice(worlds)
    text = json.dumps(fields)
    wrong = drawn.random()
    if wrong < 0.08:
        at = drawn.randrange(len(text))
        return text[:at] + chr(drawn.randrange(1, 0x300)) + text[at + drawn.randrange(3) :]
    if wrong < 0.1:
        return text[: drawn.randrange(len(text))]
    if wrong < 0.12:
        return drawn.randbytes(drawn.randrange(100))
    if wrong < 0.13:
        return "[" * drawn.randrange(50_000)
    return text


@pytest.mark.parametrize("seed", range(8))
def test_no_message_makes_the_server_fail(tmp_path, seed):
    @bounded
    async def live():
        drawn, codes, said = random.Random(seed), [], 0
        limits = Limits(messages_per_s=1e6, burst=10**6)
        async with AsyncExitStack() as stack:
            world = tiny_world(pages=128, frames_per_block=1 + seed % 2)
            server, url = await stack.enter_async_context(serving(tmp_path, world=world, resume_s=0.05, limits=limits))
            one = await stack.enter_async_context(player(url, seed=3))
            await one.walk(WALK[:2])
            saved = (await one.ask("save", "saved"))["world"]
            while said < MESSAGES:
                async with connect(f"{url}/v1/world", subprotocols=[SUBPROTOCOL], proxy=None) as connection:
                    reading = asyncio.create_task(read_all(connection))
                    with suppress(ConnectionClosed):
                        if drawn.random() < 0.9:
                            await connection.send('{"type":"hello","codecs":["raw"]}')
                        if drawn.random() < 0.8:
                            await connection.send('{"type":"start","pace":0}')
                        for _ in range(drawn.randrange(1, 25)):
                            await connection.send(nonsense(drawn, [saved, one.session, ""]))
                            said += 1
                            if drawn.random() < 0.2:
                                await asyncio.sleep(drawn.random() * 0.02)
                    if drawn.random() < 0.5:
                        await die(connection)
                    await connection.close()
                    await reading
                    codes.append(connection.close_code)
            assert set(codes) <= {1000, 1003, 1006, 1013, 3000, 4400, 4410}, codes
            await settled(lambda: len(server.hall.rooms) == 1, within_s=20)
            assert len(await one.walk(WALK[2:])) == (len(WALK) - 2) * world.frames_per_block

    live()


async def read_all(connection: ClientConnection) -> None:
    """Take in whatever the server says."""
    with suppress(ConnectionClosed):
        async for message in connection:
            if isinstance(message, str):
                json.loads(message)
