"""A viewer is told first and shown after; one that is slow misses whole blocks, one that does not read is let go."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosedError

from tests.apps.serving import WALK, alone, bounded, player, serving, settled, talk
from worldsim.errors import ProtocolError
from worldsim.session.wire import PIECE, Flag, Media, Piece
from worldsim_apps.gauges import Gauges
from worldsim_apps.viewer import BREATH_S, SMALLEST_BYTES, Viewer


class Connection:
    """Takes what it is sent, once it is allowed to."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.closed: tuple[int, str] | None = None
        self.aborted = False
        self.is_lost = False
        self.may_send = asyncio.Event()
        self.may_send.set()
        self.transport = SimpleNamespace(abort=self._abort)
        self.pongs: list[asyncio.Future[float]] = []

    async def send(self, message: str | bytes) -> None:
        if self.is_lost:
            raise ConnectionClosedError(None, None)
        await self.may_send.wait()
        if isinstance(message, str):
            self.sent.append(json.loads(message))
        else:
            self.sent.append(Piece.decode(message) if message[0] == PIECE else Media.decode(message))

    async def ping(self) -> asyncio.Future[float]:
        self.pongs.append(asyncio.get_running_loop().create_future())
        return self.pongs[-1]

    async def close(self, code: int, reason: str) -> None:
        self.closed = (code, reason)

    def _abort(self) -> None:
        self.aborted = True

    @property
    def order(self) -> list[Any]:
        """What was sent: texts by their type, frames by (block, frame), pieces by where they begin."""
        return [
            one["type"] if isinstance(one, dict) else one.offset if isinstance(one, Piece) else (one.block, one.frame)
            for one in self.sent
        ]


@asynccontextmanager
async def viewing(role: Any = "player") -> Any:
    """A viewer, its connection, and where it is measured."""
    connection, gauges = Connection(), Gauges(lambda: 0, lambda _: 0)
    viewer = Viewer(connection, gauges)
    viewer.become(role, "raw")
    yield viewer, connection, gauges
    viewer.stop()
    await viewer.done()


def block(number: int, frames: int = 1) -> list[Media]:
    """Frames of which only the first can be shown without those before it."""
    return [
        Media(
            flags=Flag.KEY if not at else Flag(0),
            epoch=0,
            block=number,
            frame=at,
            frames=frames,
            time_us=0,
            number=0,
            action=0,
            codec="h264",
            width=1,
            height=1,
            payload=b"",
        )
        for at in range(frames)
    ]


def figure(gauges: Gauges, name: str) -> float:
    """What is measured under that name and these labels."""
    lines = gauges.text().decode().splitlines()
    return float(next(line.rpartition(" ")[2] for line in lines if line.startswith(name)))


@bounded
async def test_texts_go_before_frames_that_wait():
    async with viewing() as (viewer, connection, _):
        for number in range(3):
            viewer.show(block(number, frames=2))
        viewer.tell("pong", t=1)
        viewer.tell("state")
        await settled(lambda: len(connection.sent) == 8)
        assert connection.order == ["pong", "state", (0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]
        assert [media.number for media in connection.sent[2:]] == list(range(6))


@bounded
async def test_a_text_overtakes_the_frames_behind_the_one_that_is_being_sent():
    async with viewing() as (viewer, connection, gauges):
        connection.may_send.clear()
        viewer.show(block(0, frames=3))
        await asyncio.sleep(0.01)
        viewer.tell("pong")
        connection.may_send.set()
        await settled(lambda: len(connection.sent) == 4)
        assert connection.order == [(0, 0), "pong", (0, 1), (0, 2)]
        assert figure(gauges, "worldsim_frames_sent_total") == 3


@bounded
async def test_a_player_misses_nothing_however_slow_it_is():
    async with viewing() as (viewer, connection, _):
        connection.may_send.clear()
        for number in range(60):
            viewer.show(block(number, frames=2))
        connection.may_send.set()
        await settled(lambda: len(connection.sent) == 120)
        assert connection.order == [(number, at) for number in range(60) for at in (0, 1)]


@bounded
async def test_a_slow_spectator_misses_whole_blocks_and_goes_on_with_a_key_frame():
    async with viewing("spectator") as (viewer, connection, gauges):
        connection.may_send.clear()
        viewer.show(block(0, frames=4))
        await asyncio.sleep(0.01)  # its first frame is being sent
        for number in range(1, 9):
            viewer.show(block(number, frames=4))
        assert figure(gauges, 'worldsim_frames_dropped_total{reason="slow"}') == 31
        connection.may_send.set()
        await settled(lambda: len(connection.sent) == 5)
        assert connection.order == [(0, 0), (8, 0), (8, 1), (8, 2), (8, 3)]
        viewer.show(block(9))
        await settled(lambda: len(connection.sent) == 6)


@bounded
async def test_a_spectator_that_comes_in_the_middle_begins_with_a_key_frame():
    async with viewing("spectator") as (viewer, connection, _):
        viewer.show(block(4, frames=3)[1:])
        viewer.show(block(5, frames=2))
        await settled(lambda: len(connection.sent) == 2)
        assert connection.order == [(5, 0), (5, 1)]


@bounded
async def test_frames_from_before_a_jump_are_not_sent():
    async with viewing() as (viewer, connection, _):
        connection.may_send.clear()
        viewer.tell("pong")
        await asyncio.sleep(0.01)
        viewer.show(block(7))
        viewer.forget()
        viewer.tell("state")
        viewer.show(block(2))
        connection.may_send.set()
        await settled(lambda: len(connection.sent) == 3)
        assert connection.order == ["pong", "state", (2, 0)]


@bounded
async def test_a_connection_is_closed_after_what_is_to_be_told_and_without_what_is_to_be_shown():
    async with viewing() as (viewer, connection, _):
        viewer.show(block(0))
        viewer.tell("drain")
        assert not viewer.is_closing
        viewer.close(1012, "restart")
        viewer.close(4410, "ended")
        assert viewer.is_closing
        await viewer.done()
        assert (connection.order, connection.closed) == (["drain"], (1012, "restart"))


@pytest.mark.parametrize(
    ("error", "told", "closed"),
    [
        (ProtocolError("no_mark", "none"), {"retryable": False}, None),
        (ProtocolError("full", "none", close=1013, retry_after_ms=9), {"retryable": True, "retry_after_ms": 9}, 1013),
    ],
)
def test_what_is_refused_is_told_and_counted_and_may_end_the_connection(error, told, closed):
    @bounded
    async def live():
        async with viewing() as (viewer, connection, gauges):
            viewer.refuse(error, "start")
            await settled(lambda: connection.sent and viewer.is_closing == (connection.closed is not None))
            assert connection.sent == [{"type": "error", "to": "start", "code": error.code, "message": "none", **told}]
            assert (connection.closed or (None,))[0] == closed
            assert figure(gauges, f'worldsim_refused_total{{reason="{error.code}"}}') == 1

    live()


@bounded
async def test_a_piece_of_a_film_goes_once_the_last_has_arrived_and_nothing_else_waits(tmp_path):
    film = tmp_path / "film.mp4"
    film.write_bytes(bytes(3 * SMALLEST_BYTES))
    async with viewing() as (viewer, connection, _):
        assert viewer.send(film)
        await settled(lambda: connection.pongs)
        viewer.show(block(0))
        await settled(lambda: len(connection.sent) == 2)
        await asyncio.sleep(2 * BREATH_S)
        connection.may_send.clear()
        viewer.show(block(1))
        connection.pongs[0].set_result(0.0)
        await asyncio.sleep(2 * BREATH_S)
        viewer.tell("pong")
        connection.may_send.set()
        await settled(lambda: len(connection.pongs) == 2)
        assert connection.order == [0, (0, 0), (1, 0), "pong", SMALLEST_BYTES]


@asynccontextmanager
async def slow(port: int, bytes_per_s: int) -> AsyncIterator[int]:
    """A port behind which that port is, over a link that carries so much in a second."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
        while data := await reader.read(4_096):
            writer.write(data)
            await writer.drain()
            await asyncio.sleep(len(data) * seconds)
        writer.close()

    async def link(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port, limit=4_096)
        await asyncio.gather(carry(reader, back, 0.0), carry(there, writer, 1 / bytes_per_s))

    async with await asyncio.start_server(link, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


@bounded
async def test_over_a_slow_link_a_film_arrives_while_the_game_goes_on(tmp_path):
    name, film = "ab" * 16, bytes(range(256)) * 2_000
    async with serving(tmp_path) as (server, _), slow(server.port, 150_000) as port:
        (tmp_path / f"{name}.mp4").write_bytes(film)
        server._gate.port = port
        async with player(f"ws://127.0.0.1:{port}", pace=1, paused=False) as one:
            await one.play(4)
            since, shown, pieces, longest = monotonic(), monotonic(), bytearray(), 0.0
            await one.say("control", op="film", world=name)
            while len(pieces) < len(film):
                message = await one.connection.recv()
                if isinstance(message, bytes) and message[0] == PIECE:
                    pieces += Piece.decode(message).payload
                elif isinstance(message, bytes):
                    media = Media.decode(message)
                    await one.say("ack", epoch=media.epoch, blocks=media.block + 1)
                    longest, shown = max(longest, monotonic() - shown), monotonic()
            assert bytes(pieces) == film
            assert max(longest, monotonic() - shown) < 1.5
            assert monotonic() - since < 15


@bounded
async def test_one_who_does_not_read_is_let_go(monkeypatch):
    monkeypatch.setattr("worldsim_apps.viewer.SEND_S", 0.05)
    async with viewing() as (viewer, connection, gauges):
        connection.may_send.clear()
        viewer.tell("pong")
        await viewer.done()
        assert connection.aborted
        assert figure(gauges, 'worldsim_refused_total{reason="not_reading"}') == 1


@bounded
async def test_one_who_makes_too_many_answers_wait_is_let_go():
    async with viewing() as (viewer, connection, _):
        connection.may_send.clear()
        for _ in range(256):
            viewer.tell("pong")
        assert not connection.aborted
        viewer.tell("pong")
        assert connection.aborted


@bounded
async def test_only_who_asks_is_told_what_a_block_saw():
    saw = ((range(-2, 0), True), (range(4, 9), False))
    async with viewing() as (viewer, connection, _):
        for asks in (False, True, False):
            viewer.asks_seen = asks
            viewer.show([replace(media, seen=saw) for media in block(0)[:1]])
            await settled(lambda: not viewer.waiting)
        assert [media.seen for media in connection.sent] == [(), saw, ()]


@bounded
async def test_a_viewer_whose_connection_is_lost_sends_nothing_more():
    async with viewing() as (viewer, connection, _):
        connection.is_lost = True
        viewer.tell("pong")
        await viewer.done()
        viewer.tell("pong")
        viewer.show(block(0))
        viewer.close(1000, "bye")
        assert (connection.sent, connection.closed) == ([], None)


@bounded
async def test_over_a_real_connection_one_who_does_not_read_is_let_go_and_the_others_stay(tmp_path, monkeypatch):
    monkeypatch.setattr("worldsim_apps.viewer.SEND_S", 0.3)
    async with serving(tmp_path) as (server, url), player(url, seed=3) as one:
        async with talk(url, role="spectator", session=one.session) as other:
            await other.hear("watching")
            (viewer,) = server.hall.rooms[one.session]._spectators
            other.connection.transport.pause_reading()
            for _ in range(8):
                viewer.tell("padding", pad="a" * 2_000_000)
            shown = await one.walk(WALK[:4])
            await settled(lambda: not server.hall.rooms[one.session]._spectators)
            assert shown + await one.walk(WALK[4:]) == alone(WALK, seed=3)
            other.connection.transport.abort()
        assert figure(server.hall.gauges, 'worldsim_refused_total{reason="not_reading"}') == 1


@bounded
async def test_progress_is_told_once_a_second_at_most_and_not_before(monkeypatch):
    now = 50.0
    monkeypatch.setattr("worldsim_apps.viewer.monotonic", lambda: now)
    async with viewing() as (viewer, connection, _):
        for done in range(40):
            viewer.tell_progress(done, 40)
            now += 0.25
        await settled(lambda: len(connection.sent) == 9)
        assert [told["blocks"] for told in connection.sent] == [*range(4, 40, 4)]
        assert {(told["type"], told["of"]) for told in connection.sent} == {("reliving", 40)}
        viewer.tell_progress(0, 9)
        viewer.tell_progress(1, 9)
        await asyncio.sleep(0.01)
        assert len(connection.sent) == 9
