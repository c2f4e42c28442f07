"""What bad connections do to a server and to those on good ones: cuts, sudden deaths, stalled readers, crowds."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from time import monotonic
from typing import Any

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from benchmarks.live_server import Served
from worldsim.client import Client
from worldsim.errors import ProtocolError
from worldsim.runtime.journal import read_log
from worldsim.session.events import SUBPROTOCOL, write_message
from worldsim.session.log import SessionLog
from worldsim.session.wire import Media
from worldsim.testing.fakes import tiny_world

PATH = "/v1/world"
KEYS = (frozenset({"KeyD"}), frozenset({"Space"}), frozenset[str](), frozenset({"KeyA"}))
WARM = 200
STREAM_S = 60.0
"""A stream that has not ended after so long has come to a stop."""
SETTLE_S = 10.0
"""How long a server may take to notice that clients have died."""
RST = struct.pack("ii", 1, 0)


class Proxy:
    """Stands between clients and a server, and cuts each connection after a number of bytes.

    Args:
        url: of the server.
        lives: bytes after which the first, the second, ... connection is cut; those after the last live on.
    """

    def __init__(self, url: str, lives: Sequence[int]) -> None:
        self.cuts = 0
        self.cut_at = 0.0
        self._to = url.removeprefix("ws://").split(":")
        self._lives = list(lives)
        self._tasks: set[asyncio.Task[None]] = set()
        self._serving: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Its own URL, for as long as the context lasts."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()[:2]
        try:
            yield f"ws://{host}:{port}"
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._serving)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving = asyncio.current_task()
        assert serving is not None
        self._serving.add(serving)
        there, back = await asyncio.open_connection(*self._to)
        left = [self._lives.pop(0)] if self._lives else [2**62]
        ways = [self._pipe(reader, back, [2**62], is_head=True), self._pipe(there, writer, left, is_head=False)]
        tasks = [asyncio.ensure_future(way) for way in ways]
        self._tasks.update(tasks)
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if left[0] <= 0:
            self.cuts, self.cut_at = self.cuts + 1, monotonic()
        for end in (writer, back):
            end.transport.abort()

    async def _pipe(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, left: list[int], *, is_head: bool
    ) -> None:
        with suppress(ConnectionError):
            while left[0] > 0 and (data := await source.read(min(left[0], 65_536))):
                if is_head:  # the server checks what it is called
                    data, is_head = _renamed(data, sink.get_extra_info("peername")[1]), False
                left[0] -= len(data)
                sink.write(data)
                await sink.drain()


def _renamed(head: bytes, port: int) -> bytes:
    """A request with the server's own name in it in place of the proxy's."""
    before, host, after = head.partition(b"Host: 127.0.0.1:")
    return before + host + str(port).encode() + after.lstrip(b"0123456789")


async def cuts(served: Served, count: int, seed: int) -> dict[str, Any]:
    """Cut a player off so many times after random numbers of bytes, and compare what it saw with its log lived again.

    Returns:
        cuts: how many there were; equal: how many of them lie in streams that were whole, in order and the same bytes.
        resume_ms: from a cut to the next frame, at the median and the 95th percentile.
    """
    rng, whole, waits = np.random.default_rng(seed), 0, list[float]()
    done = 0
    while done < count:
        lives = [int(rng.integers(4_000, 9_000)), *rng.integers(1, 9_000, size=min(9, count - done - 1)).tolist()]
        proxy = Proxy(served.url, lives)
        seen: list[tuple[int, bytes]] = []
        async with proxy.listening() as url, Client(url, codec="raw") as client:
            with suppress(TimeoutError):  # a stream that has come to a stop is not whole
                async with asyncio.timeout(STREAM_S):
                    await _cut_off(client, proxy, len(lives), seen, waits, rng)
            name = client.world
        log = read_log(served.folder / f"{name}.log")
        lived = _lived(log)
        whole += proxy.cuts * (seen == [*enumerate(lived[: len(seen)])] and proxy.cuts == len(lives))
        done += max(1, proxy.cuts)
    return {"cuts": done, "equal": whole, "resume_ms": quantiles(waits)}


def _lived(log: SessionLog) -> list[bytes]:
    """The pixels of every block of a log, made again and compared with what was recorded of them."""
    found: list[bytes] = []
    tiny_world().replay(log, on_chunk=lambda chunk: found.append(chunk.frames.tobytes()))
    return found


async def _cut_off(
    client: Client,
    proxy: Proxy,
    planned: int,
    seen: list[tuple[int, bytes]],
    waits: list[float],
    rng: np.random.Generator,
) -> None:
    """Play through a proxy until all planned cuts are made and some blocks more, noting every block and every wait."""
    await client.start(seed=int(rng.integers(2**32)), pace=0)
    resumed, more = 0, 20
    while more:
        frame = await client.frame()
        seen.append((frame.block, frame.payload))
        if client.resumed > resumed:
            waits.append(monotonic() - proxy.cut_at)
            resumed = client.resumed
        if len(seen) % 5 == 0:
            await client.hold(KEYS[int(rng.integers(len(KEYS)))])
        more -= proxy.cuts >= planned


async def deaths(served: Served, count: int, seed: int) -> dict[str, Any]:
    """Let so many clients die at random phases, and count what is left of them in the server."""
    rng = np.random.default_rng(seed)
    await _let_die(served, WARM, rng)  # threads are begun when they are first needed, and kept
    await asyncio.sleep(0.5)
    before = served.descriptors, served.threads, served.resident_mb
    await _let_die(served, count, rng)
    left = served.gauge("worldsim_pages_in_use"), served.gauge("worldsim_sessions")
    plays = await _plays(served)
    await _settle(served)
    await asyncio.sleep(0.5)
    return {
        "deaths": count,
        "pages_left": left[0],
        "sessions_left": left[1],
        "descriptors_left": max(0, served.descriptors - before[0]),
        "threads_left": max(0, served.threads - before[1]),
        "resident_mb_more": served.resident_mb - before[2],
        "next_session_plays": plays,
    }


async def _let_die(served: Served, count: int, rng: np.random.Generator) -> None:
    """So many deaths, ten at once, and a while for the server to have noticed."""
    for first in range(0, count, 10):
        phases = rng.integers(5, size=min(10, count - first))
        await asyncio.gather(*(_die(served.url, int(phase), float(rng.uniform(0, 0.05))) for phase in phases))
    await _settle(served)
    await asyncio.sleep(0.5)


async def _plays(served: Served) -> bool:
    """Whether a new client sees frames."""
    async with asyncio.timeout(30), Client(served.url, codec="raw") as client:
        await client.start(pace=0)
        return [(await client.frame()).block for _ in range(5)] == list(range(5))


async def _settle(served: Served) -> None:
    """Wait for the server to have noticed, a few seconds at most."""
    until = monotonic() + SETTLE_S
    while monotonic() < until:
        if not served.gauge("worldsim_sessions"):
            return
        await asyncio.sleep(0.1)


async def _die(url: str, phase: int, after_s: float) -> None:
    """Come as far as a phase (bytes, handshake, hello, start, frames) and break off without a word."""
    host, port = url.removeprefix("ws://").split(":")
    if phase == 0:
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /v1/world HTTP/1.1\r\nHost:")
        _break_off(writer.transport)
        return
    async with _connected(url) as connection:
        with suppress(ConnectionClosed):
            if phase > 1:
                await connection.send(write_message("hello", codecs=["raw"]))
            if phase > 2:
                await connection.send(write_message("start", pace=0))
            await asyncio.sleep(after_s)
            if phase > 3:
                await _ack_some(connection, 3)
        _break_off(connection.transport)


async def _ack_some(connection: ClientConnection, blocks: int) -> None:
    async for message in connection:
        if isinstance(message, bytes):
            media = Media.decode(message)
            await connection.send(write_message("ack", epoch=media.epoch, blocks=media.block + 1))
            if media.block + 1 >= blocks:
                return
        elif '"error"' in message:
            return


def _break_off(transport: asyncio.Transport | asyncio.WriteTransport) -> None:
    """End a connection by a reset."""
    connected = transport.get_extra_info("socket")
    with suppress(OSError):  # the server was first
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
    transport.abort()


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[ClientConnection]:
    async with connect(
        url + PATH, subprotocols=[Subprotocol(SUBPROTOCOL)], compression=None, max_size=None, proxy=None
    ) as connection:
        yield connection


async def stall(served: Served, seconds: float) -> dict[str, Any]:
    """One player and one spectator stop reading for so long; what that costs the server and another player.

    Returns:
        resident_mb_more: the server's memory, beyond what as many frames of the other's life took before: that runs
            without a pace, and its log grows.
        slower: the other's 99th percentile of the time between two frames, over what it was before.
    """
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(Client(served.url, codec="raw"))
        await other.start(pace=0)
        await _gaps(other, seconds / 10)
        begun = served.resident_mb
        before, memory = await _gaps(other, seconds / 2), served.resident_mb
        per_frame = max(0.0, memory - begun) / len(before)
        stalled = await stack.enter_async_context(_connected(served.url))
        await stalled.send(write_message("hello", codecs=["raw"]))
        await stalled.send(write_message("start", pace=0))
        watching = await stack.enter_async_context(_connected(served.url))
        assert other.ticket is not None
        await watching.send(write_message("hello", role="spectator", codecs=["raw"], session=other.ticket.session))
        for silent in (stalled, watching):
            silent.transport.pause_reading()
        after = await _gaps(other, seconds)
        found = {
            "seconds": seconds,
            "resident_mb_more": served.resident_mb - memory - per_frame * len(after),
            "resident_mb_of_a_thousand_frames": 1_000 * per_frame,
            "slower": float(np.percentile(after, 99) / np.percentile(before, 99)),
        }
        for silent in (stalled, watching):
            silent.transport.abort()
    return found


async def _gaps(client: Client, seconds: float) -> list[float]:
    """Times between two frames, for so long."""
    found, then = [], monotonic()
    end = then + seconds
    while then < end:
        await client.frame()
        found.append(monotonic() - then)
        then += found[-1]
    return found


async def crowd(served: Served, capacity: int, seconds: float) -> dict[str, Any]:
    """Four times as many ask as there are places for, while those who are in go on playing.

    Returns:
        refused: how many were told so, with when to try again; refused_ms: how soon.
        slower: the median time between two frames of those who are in, over what it was before.
    """
    async with AsyncExitStack() as stack:
        inside = [await stack.enter_async_context(Client(served.url, codec="raw")) for _ in range(capacity)]
        for client in inside:
            await client.start(pace=0)
        await asyncio.gather(*(_gaps(client, 1.0) for client in inside))
        before = await asyncio.gather(*(_gaps(client, seconds) for client in inside))
        playing = asyncio.gather(*(_gaps(client, seconds) for client in inside))
        refusals = await asyncio.gather(*(_ask(served.url) for _ in range(4 * capacity)))
        after = await playing
    times = [took for took in refusals if took is not None]
    return {
        "asked": 4 * capacity,
        "refused": len(times),
        "refused_ms": quantiles(times),
        "slower": float(np.median(np.concatenate(after)) / np.median(np.concatenate(before))),
    }


async def _ask(url: str) -> float | None:
    """Ask for a place; how long the answer took if it was no, with when to try again."""
    async with Client(url, codec="raw") as client:
        began = monotonic()
        try:
            await client.start(pace=0)
        except ProtocolError as error:
            return monotonic() - began if error.code == "full" and error.retry_after_ms else None
    return None


def quantiles(seconds: Sequence[float]) -> dict[str, float]:
    """Median, 95th and 99th percentile in milliseconds."""
    return {f"p{q}": float(np.percentile(seconds, q) * 1e3) for q in (50, 95, 99)} if seconds else {}
