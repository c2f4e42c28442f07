"""A client shows what the world makes, tells what goes wrong, and goes on by itself when its connection is lost."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

import worldsim.runtime.batching as batching
from tests.apps.serving import WALK, alone, bounded, serving, settled, talk
from worldsim.client import Client, Frame, Ticket, live
from worldsim.errors import ConfigError, ProtocolError, SessionClosed
from worldsim.session.events import SUBPROTOCOL
from worldsim.session.wire import Flag, Media, Piece
from worldsim.testing.fakes import tiny_world, told_world
from worldsim_apps.stage import Stage

JPEG_OF_2_BY_2 = cv2.imencode(".jpg", np.zeros((2, 2, 3), np.uint8))[1].tobytes()


def media_of(codec: Any) -> Media:
    return Media(
        flags=Flag.KEY | Flag.FIRST,
        epoch=0,
        block=0,
        frame=0,
        frames=1,
        time_us=0,
        number=0,
        action=0,
        codec=codec,
        width=10,
        height=6,
        payload=b"",
    )


@asynccontextmanager
async def playing(url: str, *, seed: int = 3, codec: Any = "raw") -> AsyncIterator[Client]:
    """A client whose session is paused before its first block, in epoch 1."""
    async with Client(url, codec=codec) as client:
        await client.start(seed=seed, pace=0)
        await client.pause()
        await client.rewind(client.blocks)
        yield client


async def walk(client: Client, keys: Iterable[Iterable[str]]) -> list[bytes]:
    """The payloads of blocks under these keys, one step at a time."""
    return [(await one_step(client, held)).payload for held in keys]


async def one_step(client: Client, held: Iterable[str]) -> Frame:
    await client.hold(held)
    await client.step()
    return await client.frame()


def cut(client: Client) -> None:
    """Lose the connection as a cable does that is pulled."""
    assert client._connection is not None
    client._connection.transport.abort()


async def code_of(waiting: Any) -> str:
    """The code of the error that this ends with."""
    with pytest.raises(ProtocolError) as caught:
        await waiting
    return caught.value.code


@bounded
async def test_a_client_shows_what_the_world_makes_under_its_keys(tmp_path):
    async with serving(tmp_path) as (_, url), Client(url, codec="raw") as client:
        assert (client.welcome["name"], client.welcome["size"], client.ticket) == ("dot", [6, 10], None)
        await client.start(seed=3, pace=0)
        await client.pause()
        await client.rewind(client.blocks)
        assert await client.hold(["KeyD", "Space"]) == 1
        await client.step()
        frame = await client.frame()
        assert (frame.block, frame.frame, frame.epoch, frame.action, frame.seconds) == (0, 0, 1, 1, 0.0)
        assert (frame.pixels.shape, frame.pixels.dtype) == ((6, 10, 3), np.uint8)
        assert frame.pixels.tobytes() == frame.payload == alone([{"KeyD", "Space"}], seed=3)[0]
        assert (await one_step(client, ())).seconds == 0.25


@bounded
async def test_frames_come_as_long_as_they_are_taken(tmp_path):
    async with serving(tmp_path) as (server, url), Client(url, codec="raw") as client:
        await client.start(seed=3, pace=0)
        shown = []
        async for frame in client:
            shown.append(frame.payload)
            if len(shown) == 10:
                break
        assert shown == alone([()] * 10, seed=3)
        await settled(lambda: server.hall.rooms[client.ticket.session]._play.made == 12)  # and two more ahead
        await asyncio.sleep(0.1)
        assert server.hall.rooms[client.ticket.session]._play.made == 12


@pytest.mark.parametrize(
    ("codec", "size", "away"), [("raw", (6, 10), 0), ("jpeg", (6, 10), 40), ("h264", (12, 20), 80)]
)
@pytest.mark.parametrize("frames", [1, 3])
def test_what_is_decoded_has_the_right_size_and_looks_right(tmp_path, codec, size, away, frames):
    @bounded
    async def live():
        wanted = alone(WALK, world=tiny_world(frames_per_block=frames), seed=3)
        async with (
            serving(tmp_path, world=tiny_world(frames_per_block=frames)) as (_, url),
            playing(url, codec=codec) as client,
        ):
            pictures = []
            for keys in WALK:
                await client.hold(keys)
                await client.step()
                pictures += [(await client.frame()).pixels for _ in range(frames)]
            assert {(picture.shape, picture.dtype) for picture in pictures} == {((*size, 3), np.dtype(np.uint8))}
            scale = size[0] // 6
            for picture, payload in zip(pictures, wanted, strict=True):
                small = picture.reshape(6, scale, 10, scale, 3).mean((1, 3))
                exact = np.frombuffer(payload, np.uint8).reshape(6, 10, 3)
                assert abs(small - exact).mean() <= away

    live()


@bounded
async def test_every_verb(tmp_path):
    async with AsyncExitStack() as stack:
        _, url = await stack.enter_async_context(serving(tmp_path))
        client = await stack.enter_async_context(playing(url))
        first = await walk(client, WALK[:3])
        mark = await client.mark()
        world = await client.save()
        ticket = await client.fork()
        rest = await walk(client, WALK[3:])
        assert first + rest == alone(WALK, seed=3)
        await client.rewind(mark=mark)
        assert await walk(client, WALK[3:]) == rest
        await client.rewind(4)
        assert (client.blocks, await walk(client, WALK[4:])) == (4, rest[1:])
        await client.load(world)
        assert (client.blocks, client.world != world) == (3, True)
        assert await walk(client, WALK[3:]) == rest
        await client.reset(seed=5, start=1)
        assert await walk(client, WALK) == alone(WALK, seed=5, start=1)
        await client.resume()
        assert [(await client.frame()).payload for _ in range(2)] == alone([*WALK, *[WALK[-1]] * 2], seed=5, start=1)[
            -2:
        ]
        await client.pause()
        assert await client.ping() > 0
        twin = await stack.enter_async_context(Client(url, codec="raw", ticket=ticket))
        await twin.pause()
        await twin.rewind(twin.blocks - 3)
        assert await walk(twin, WALK[3:]) == rest


@bounded
async def test_a_saved_world_can_be_loaded_in_place_of_a_start(tmp_path):
    async with serving(tmp_path) as (_, url):
        async with playing(url) as client:
            shown = await walk(client, WALK[:3])
            world = await client.save()
        async with Client(url, codec="raw") as client:
            await client.load(world)
            await client.pause()
            await client.rewind(client.blocks - 3)
            assert shown + await walk(client, WALK[3:5]) == alone(WALK[:5], seed=3)


@bounded
async def test_a_world_can_be_begun_from_a_picture(tmp_path):
    picture = np.arange(180, dtype=np.uint8).reshape(6, 10, 3)
    async with serving(tmp_path) as (_, url), Client(url, codec="raw") as client:
        await client.start(seed=3, image=cv2.imencode(".png", picture[..., ::-1])[1].tobytes(), pace=0)
        assert (await client.frame()).payload == alone([()], seed=3, frames=picture[None])[0]


@bounded
async def test_what_goes_wrong_is_raised_with_its_code_where_it_was_asked(tmp_path):
    async with serving(tmp_path, sessions=1) as (_, url), playing(url) as client:
        assert await code_of(client.start()) == "started"
        assert await code_of(client.rewind(99)) == "ConfigError"
        assert await code_of(client.rewind(mark=7)) == "no_mark"
        assert await code_of(client.load("0" * 32)) == "no_world"
        assert await code_of(client.fork()) == "full"
        await client.resume()
        assert await code_of(client.step()) == "not_paused"
        async with Client(url) as other:
            with pytest.raises(ProtocolError, match="all 1 places are taken") as caught:
                await other.start()
            assert (caught.value.code, caught.value.retry_after_ms) == ("full", 2_000)


@bounded
async def test_who_is_not_let_in_is_told_why(tmp_path):
    async with serving(tmp_path, token="right") as (_, url):
        assert await code_of(Client(url).__aenter__()) == "bad_token"
        assert await code_of(Client(url, token="right", watch="1" * 32).__aenter__()) == "no_session"
        async with Client(url, codec="raw", token="right") as client:
            await client.start(seed=3, pace=0)
            await client.frame()
            wrong = Ticket(client.ticket.session, "wrong")
            assert await code_of(Client(url, codec="raw", token="right", ticket=wrong).__aenter__()) == "bad_token"
            assert await code_of(Client(url, token="right", ticket=client.ticket).__aenter__()) == "no_codec"
            await client.frame()
    with pytest.raises(OSError, match=rf"nobody answers at {url}/v1/world \(.*Connect call failed.*worldsim serve"):
        await Client(url).__aenter__()


@bounded
async def test_an_unknown_key_is_told_with_the_next_frame_and_not_by_a_verb(tmp_path):
    async with serving(tmp_path) as (_, url), playing(url) as client:
        await client.hold(["KeyQ"])
        assert await client.mark() == 0
        assert await code_of(client.frame()) == "UnknownName"
        assert await walk(client, WALK) == alone(WALK, seed=3)


@bounded
async def test_a_block_that_failed_is_told_with_the_next_frame_and_not_by_a_verb(tmp_path, monkeypatch):
    async with serving(tmp_path) as (server, url), playing(url) as client:
        shown = await walk(client, WALK[:2])
        with monkeypatch.context() as patch:
            patch.setattr(batching, "_decode", lambda turn: 1 / 0)
            await client.hold(WALK[2])
            await client.step()
            assert await client.mark() == 0
            assert await client.mark() == 1
            assert await code_of(client.frame()) == "block_failed"
        assert await client.mark() == 2
        assert shown + await walk(client, WALK[2:]) == alone(WALK, seed=3)
        assert server.hall.gauges.failed._value.get() == 1


@bounded
async def test_a_block_that_failed_while_the_connection_was_lost_is_told_too(tmp_path, monkeypatch):
    async with serving(tmp_path) as (server, url), playing(url) as client:
        shown = await walk(client, WALK[:2])
        with monkeypatch.context() as patch:
            patch.setattr(batching, "_decode", lambda turn: 1 / 0)
            client._connection.transport.pause_reading()
            await client.hold(WALK[2])
            stepping = asyncio.create_task(client.step())
            await settled(lambda: server.hall.gauges.failed._value.get() == 1)
            cut(client)
            assert await code_of(stepping) == "lost"
            assert await code_of(client.frame()) == "block_failed"
        assert shown + await walk(client, WALK[2:]) == alone(WALK, seed=3)


@bounded
async def test_a_lost_connection_is_taken_up_again_and_no_frame_is_missing_or_twice(tmp_path):
    async with serving(tmp_path) as (_, url), playing(url) as client:
        shown, ticket = await walk(client, WALK[:2]), client.ticket
        for number in range(2, len(WALK)):
            cut(client)
            await settled(lambda number=number: client.resumed == number - 1)
            shown += await walk(client, WALK[number : number + 1])
        assert shown == alone(WALK, seed=3)
        assert client.ticket.session == ticket.session
        assert client.ticket.resume != ticket.resume


@bounded
async def test_blocks_that_were_under_way_when_the_connection_was_lost_come_again(tmp_path):
    wanted = alone([()] * 40, world=tiny_world(frames_per_block=2), seed=3)
    async with serving(tmp_path, world=tiny_world(frames_per_block=2)) as (_, url), Client(url, codec="raw") as client:
        await client.start(seed=3, pace=0)
        shown = []
        for number in range(80):
            shown.append((await client.frame()).payload)
            if number % 7 == 5:
                await client.ping()  # the first acknowledgement has arrived: there is something to come back to
                cut(client)
        assert shown == wanted
        assert client.resumed == 11


@bounded
async def test_what_is_held_is_said_again_even_if_that_is_nothing(tmp_path):
    async with serving(tmp_path) as (_, url), playing(url) as client:
        shown = await walk(client, [{"KeyD"}])
        for keys in ({"Space"}, (), {"KeyA"}):
            cut(client)
            await client.hold(keys)
            await settled(lambda: client._connection.state.name == "OPEN")
            await client.step()
            shown.append((await client.frame()).payload)
        assert shown == alone([{"KeyD"}, {"Space"}, (), {"KeyA"}], seed=3)


@bounded
async def test_a_verb_whose_answer_is_lost_says_so_and_the_next_gets_its_own(tmp_path, monkeypatch):
    saving, go_on = asyncio.Event(), asyncio.Event()
    save = Stage.save

    async def slow(self):
        saving.set()
        await go_on.wait()
        return await save(self)

    async with serving(tmp_path) as (_, url), playing(url) as client:
        shown = await walk(client, WALK[:3])
        with monkeypatch.context() as patch:
            patch.setattr(Stage, "save", slow)
            lost = asyncio.create_task(client.save())
            await saving.wait()
            cut(client)
            with pytest.raises(ProtocolError, match="it may have been done or not") as caught:
                await lost
            assert (caught.value.code, caught.value.retry_after_ms) == ("lost", 0)
            go_on.set()
            assert await client.mark() == 0
            assert len(await client.save()) == 32
        assert shown + await walk(client, WALK[3:]) == alone(WALK, seed=3)


@bounded
async def test_the_answer_to_a_verb_that_nobody_waits_for_any_more_is_given_to_no_other(tmp_path, monkeypatch):
    go_on, save = asyncio.Event(), Stage.save

    async def slow(self):
        await go_on.wait()
        return await save(self)

    monkeypatch.setattr(Stage, "save", slow)
    async with serving(tmp_path) as (_, url), playing(url) as client:
        for verb in (client.save, client.resume, client.pause):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(verb(), 0.05)
        asyncio.get_running_loop().call_later(0.1, go_on.set)
        await client.step()
        assert (await client.frame()).block == 0
        assert await code_of(client.rewind(99)) == "ConfigError"
        await client.resume()
        assert (await client.frame()).block == 1


@bounded
async def test_a_jump_whose_answer_is_lost_does_not_lose_the_frames_behind_it(tmp_path):
    async with serving(tmp_path) as (server, url), playing(url) as client:
        await walk(client, WALK[:4])
        await client.resume()
        room = server.hall.rooms[client.ticket.session]
        await settled(lambda: room._play.made == 6 and len(client._media) == 2)
        client._connection.transport.pause_reading()
        lost = asyncio.create_task(client.rewind(6))
        await settled(lambda: room._play.epoch == 2 and room._play.made == 2)
        cut(client)
        assert await code_of(lost) == "lost"
        held = [(frame.epoch, frame.block, frame.payload) for frame in [await client.frame() for _ in range(5)]]
        wanted = alone([WALK[3]] * 5, seed=3)
        assert held == [(2, block, wanted[block]) for block in range(5)]


@bounded
async def test_a_jump_that_is_made_after_its_player_came_back_begins_a_new_epoch_for_it(tmp_path, monkeypatch):
    turning, go_on = asyncio.Event(), asyncio.Event()
    go_to = Stage.go_to

    async def slow(self, mark):
        turning.set()
        await go_on.wait()
        await go_to(self, mark)

    monkeypatch.setattr(Stage, "go_to", slow)
    async with serving(tmp_path) as (_, url), playing(url) as client:
        mark = await client.mark()
        await walk(client, WALK[:4])
        await client.resume()
        await settled(lambda: len(client._media) == 2)
        lost = asyncio.create_task(client.rewind(mark=mark))
        await turning.wait()
        cut(client)
        assert await code_of(lost) == "lost"
        assert [media.epoch for media in client._media] == [1, 1]
        go_on.set()
        await settled(lambda: client._media and client._media[0].epoch == 2)
        held = [(frame.epoch, frame.block, frame.payload) for frame in [await client.frame() for _ in range(5)]]
        wanted = alone([WALK[3]] * 5, seed=3)
        assert held == [(2, block, wanted[block]) for block in range(5)]


@bounded
async def test_a_client_that_leaves_hands_its_session_to_the_next_with_its_ticket(tmp_path):
    async with serving(tmp_path) as (_, url):
        async with playing(url) as client:
            shown = await walk(client, WALK[:3])
            await client.leave()
            ticket = client.ticket
        async with Client(url, codec="raw", ticket=ticket) as client:
            assert client.blocks == 3
            shown += await walk(client, WALK[3:5])
            await client.leave()
            ticket = client.ticket
        async with Client(url, codec="raw", ticket=ticket) as client:
            assert shown + await walk(client, WALK[5:]) == alone(WALK, seed=3)


@bounded
async def test_one_who_goes_on_with_a_ticket_releases_no_key_of_the_one_before(tmp_path):
    async with serving(tmp_path) as (_, url):
        async with playing(url) as client:
            shown = await walk(client, [{"KeyD"}])
            await client.leave()
        async with Client(url, codec="raw", ticket=client.ticket) as client:
            cut(client)
            await settled(lambda: client.resumed == 1)
            await client.step()
            assert [*shown, (await client.frame()).payload] == alone([{"KeyD"}] * 2, seed=3)


@bounded
async def test_a_spectator_watches_and_may_not_steer(tmp_path):
    async with serving(tmp_path) as (_, url), playing(url) as client:
        session = client.ticket.session
        async with Client(url, codec="raw", watch=session) as other:
            shown = await walk(client, WALK)
            assert [(await other.frame()).payload for _ in WALK] == shown
            assert await code_of(other.pause()) == "not_yours"
            await client.reset(seed=5)
            shown = await walk(client, WALK[:2])
            assert [(await other.frame()).payload for _ in range(2)] == shown
            cut(other)
            await settled(lambda: other.resumed == 1)
            shown = await walk(client, WALK[2:4])
            assert [(await other.frame()).payload for _ in range(2)] == shown
            await client.close()
            with pytest.raises(SessionClosed, match=r"ended \(code 4410\)"):
                await other.frame()


@bounded
async def test_a_client_that_was_closed_says_so_and_can_be_closed_twice(tmp_path):
    async with serving(tmp_path) as (server, url), playing(url) as client:
        waiting = [asyncio.create_task(client.frame()), asyncio.create_task(anext(aiter(client), None))]
        await asyncio.sleep(0)
        await client.close()
        with pytest.raises(SessionClosed, match="this client was closed"):
            await waiting[0]
        assert await waiting[1] is None
        await client.close()
        await client.leave()
        for late in (client.frame, client.pause, client.mark, lambda: client.hold(())):
            with pytest.raises(SessionClosed, match="this client was closed"):
                await late()
        await settled(lambda: not server.hall.rooms)


@bounded
async def test_a_client_can_be_closed_while_it_connects_again(tmp_path):
    async with serving(tmp_path) as (server, url), playing(url) as client:
        await walk(client, WALK[:2])
        before = server._gate.open
        cut(client)
        await asyncio.sleep(0)
        await client.leave()
        await settled(lambda: server._gate.open < before)


@bounded
async def test_when_the_server_ends_the_session_has_ended_and_its_world_is_known(tmp_path, monkeypatch):
    saving, go_on, save = asyncio.Event(), asyncio.Event(), Stage.save

    async def slow(self):
        saving.set()
        await go_on.wait()
        return await save(self)

    async with AsyncExitStack() as stack:
        async with serving(tmp_path) as (_, url):
            client = await stack.enter_async_context(playing(url))
            busy = await stack.enter_async_context(playing(url, seed=4))
            idle = await stack.enter_async_context(Client(url))
            await walk(client, WALK[:2])
            await walk(busy, WALK[:2])
            monkeypatch.setattr(Stage, "save", slow)
            asked = asyncio.create_task(busy.save())
            await saving.wait()
            late = asyncio.create_task(busy.mark())
            asyncio.get_running_loop().call_later(0.1, go_on.set)
        name = await asked
        with pytest.raises(SessionClosed, match=r"restart \(code 1012\)"):
            await late
        with pytest.raises(SessionClosed, match=r"restart \(code 1012\)"):
            await client.frame()
        with pytest.raises(SessionClosed, match=r"restart \(code 1012\)"):
            await client.save()
        with pytest.raises(SessionClosed, match=r"restart \(code 1012\)"):
            await idle.start()
    monkeypatch.setattr(Stage, "save", save)
    async with serving(tmp_path) as (_, url), playing(url, seed=9) as other:
        for world in (client.world, busy.world, name):
            await other.load(world)
            assert other.blocks == 2


@bounded
async def test_when_the_server_is_gone_for_good_the_session_has_ended(tmp_path):
    async with serving(tmp_path, resume_s=0.3) as (server, url), playing(url) as client:
        await walk(client, WALK[:2])
        client._url = "ws://127.0.0.1:9/v1/world"  # where nobody listens
        cut(client)
        with pytest.raises(SessionClosed, match=r"the connection was lost \(code 1006\)"):
            await client.frame()
        assert client.resumed == 0
        await settled(lambda: not server.hall.rooms)


@bounded
async def test_when_the_session_is_gone_the_server_says_what_can_be_done(tmp_path):
    async with serving(tmp_path) as (server, url), playing(url) as client:
        await walk(client, WALK[:2])
        room = server.hall.rooms[client.ticket.session]
        client._connection.transport.pause_reading()
        await room.end()
        cut(client)
        with pytest.raises(SessionClosed, match="what was kept of it can be loaded"):
            await client.frame()


@bounded
async def test_frames_that_have_arrived_are_shown_before_the_end_is_told(tmp_path):
    async with serving(tmp_path) as (_, url), playing(url) as client:
        await client.step(2)
        await settled(lambda: len(client._media) == 2)
        hello = {"session": client.ticket.session, "resume": client.ticket.resume}
        async with talk(url, role="player", **hello):
            await settled(lambda: client._over)
            assert [(await client.frame()).payload for _ in range(2)] == alone([()] * 2, seed=3)
            with pytest.raises(SessionClosed, match=r"replaced \(code 4409\)"):
                [frame async for frame in client]


@bounded
async def test_one_who_looks_is_shown_the_present_even_before_the_first_block_and_a_spectator_may_too(tmp_path):
    async with serving(tmp_path) as (_, url), playing(url) as client:
        session = tiny_world().open(seed=3)
        assert np.array_equal((await client.look()).pixels, session.look())
        async with Client(url, codec="raw", watch=client.ticket.session) as other:
            await client.step()
            shown = await client.frame()
            seen = await other.look()
            assert np.array_equal(seen.pixels, shown.pixels)
            assert (seen.block, seen.epoch) == (shown.block, shown.epoch)


@bounded
async def test_a_film_is_fetched_whole_and_has_what_was_shown(tmp_path, monkeypatch):
    monkeypatch.setattr("worldsim_apps.viewer.SMALLEST_BYTES", 100)
    async with serving(tmp_path) as (_, url), playing(url) as client:
        assert await code_of(client.film()) == "recording"
        await client.record()
        shown = await walk(client, WALK[:3])
        film = await client.film()
        (path,) = tmp_path.glob("*.mp4")
        assert film == path.read_bytes()
        assert len(film) > 1_000
        with av.open(io.BytesIO(film)) as container:
            assert len(list(container.decode(video=0))) == len(shown)
        assert await code_of(client._control("sending", op="film", world="0" * 32)) == "no_film"
        assert await code_of(client._control("sending", op="film", world="../x")) == "no_world"
        assert len(await walk(client, WALK[3:5])) == len(WALK[3:5]) * len(shown) // 3


@bounded
async def test_a_film_is_fetched_although_the_connection_is_lost_when_it_has_ended(tmp_path, monkeypatch):
    end_film = Stage.end_film

    async def cut_off(self):
        film = await end_film(self)
        cut(client)
        return film

    async with serving(tmp_path) as (_, url), playing(url) as client:
        await client.record()
        await walk(client, WALK[:3])
        with monkeypatch.context() as patch:
            patch.setattr(Stage, "end_film", cut_off)
            film = await client.film()
        (path,) = tmp_path.glob("*.mp4")
        assert film == path.read_bytes()
        assert client.resumed == 1


@pytest.mark.parametrize("cuts", [live.TRIES - 1, live.TRIES])
def test_a_film_is_asked_for_again_when_the_connection_is_lost_but_not_for_ever(tmp_path, monkeypatch, cuts):
    @bounded
    async def lived():
        async with serving(tmp_path) as (_, url), playing(url) as client:

            def decode(message: bytes) -> Piece:
                piece = Piece.decode(message)
                if client.resumed >= cuts:
                    return piece
                cut(client)
                return replace(piece, payload=piece.payload[:1])

            await client.record()
            await walk(client, WALK[:3])
            with monkeypatch.context() as patch:
                patch.setattr(live, "Piece", SimpleNamespace(decode=decode))
                if cuts == live.TRIES:
                    with pytest.raises(ProtocolError, match="lost 5 times before the film had come; ask") as caught:
                        await client.film()
                    assert caught.value.code == "lost"
            film = await client.film()
            (path,) = tmp_path.glob("*.mp4")
            assert film == path.read_bytes()

    lived()


@bounded
async def test_one_who_goes_on_with_a_ticket_fetches_the_film_that_is_made_or_was(tmp_path):
    async with serving(tmp_path) as (_, url):
        async with playing(url) as client:
            await client.record()
            await walk(client, WALK[:3])
            await client.leave()
        async with Client(url, codec="raw", ticket=client.ticket) as client:
            film = await client.film()
            await client.leave()
        async with Client(url, codec="raw", ticket=client.ticket) as client:
            assert await client.film() == film
            await client.record()
            await client.reset(seed=5)
            assert await client.film() != film


@bounded
async def test_a_film_that_ends_with_its_session_is_told(tmp_path):
    async with serving(tmp_path) as (_, url), talk(url, role="player") as one:
        await one.say("start", seed=3, pace=0)
        await one.hear("started")
        name = (await one.ask("record", "recording"))["film"]
        await one.say("control", op="reset", seed=4)
        await one.hear("state")
        told = await one.hear("film")
        assert (told["name"], told["problem"]) == (name, "")
        await one.ask("film", "sending", world=name)


@bounded
async def test_a_server_that_makes_no_sense_ends_the_session(tmp_path):
    async with serving(tmp_path) as (server, url), playing(url) as client:
        (viewer,) = server.hall.rooms[client.ticket.session]._everybody()
        await viewer._connection.send(b"no frame")
        with pytest.raises(SessionClosed, match="a frame has 40 bytes of header or more"):
            await client.frame()


@pytest.mark.parametrize("codec", ["raw", "jpeg", "h264"])
@pytest.mark.parametrize("payload", [b"", b"no picture", bytes(200), JPEG_OF_2_BY_2])
def test_a_picture_that_cannot_be_read_or_has_another_size_is_told_with_the_next_frame(tmp_path, codec, payload):
    @bounded
    async def live():
        async with serving(tmp_path) as (_, url), playing(url, codec=codec) as client:
            client._media.append(replace(media_of(codec), payload=payload))
            assert await code_of(client.frame()) == "bad_media"
            await client.step()
            assert (await client.frame()).block == 0

    live()


@bounded
async def test_what_a_server_says_to_a_wrong_address_is_told(tmp_path):
    async with serving(tmp_path) as (server, _):
        with pytest.raises(ProtocolError, match=r"answers 421: this server is not called that.*--name"):
            async with Client(f"ws://[::ffff:127.0.0.1]:{server.port}"):
                pass


@bounded
async def test_a_session_that_has_ended_is_told_with_the_world_to_load(tmp_path):
    async with AsyncExitStack() as clients:
        async with serving(tmp_path) as (_, url):
            client = await clients.enter_async_context(playing(url))
            await walk(client, WALK[:2])
        with pytest.raises(SessionClosed, match=f"restart.*its world is {client.world}, which `load` goes on with"):
            _ = [frame async for frame in client]


@bounded
async def test_a_server_that_never_answers_a_hello_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(live, "ANSWER_S", 0.2)

    async def silent(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async with serve(silent, "127.0.0.1", 0, subprotocols=[Subprotocol(SUBPROTOCOL)]) as listener:
        port = next(iter(listener.sockets)).getsockname()[1]
        with pytest.raises(TimeoutError):
            async with Client(f"ws://127.0.0.1:{port}"):
                pass


@bounded
async def test_keys_are_held_in_a_session_and_in_none_that_has_not_begun(tmp_path):
    async with serving(tmp_path) as (_, url), Client(url, codec="raw") as client:
        with pytest.raises(ConfigError, match="no session has begun in which keys could be held; call start"):
            await client.hold({"KeyD"})
        await client.start(seed=3, pace=0)
        assert await client.hold({"KeyD"}) == 1
        assert (await client.frame()).block == 0


@bounded
async def test_a_text_is_not_taken_for_a_set_of_keys(tmp_path):
    async with serving(tmp_path) as (_, url), playing(url) as client:
        with pytest.raises(ConfigError, match="got the text 'KeyD'"):
            await client.hold("KeyD")


@bounded
async def test_a_client_outside_of_its_context_says_how_it_is_used(tmp_path):
    async with serving(tmp_path) as (_, url):
        for ask in (Client(url).frame, Client(url).start, lambda: Client(url).hold(())):
            with pytest.raises(ConfigError, match="async with Client"):
                await ask()


@bounded
async def test_a_url_may_name_the_path_too_and_a_frame_is_short_to_print(tmp_path):
    async with serving(tmp_path) as (_, url), Client(url + "/v1/world", codec="raw") as client:
        await client.start(seed=3, pace=0)
        assert len(repr(await client.frame())) < 200


@bounded
async def test_a_rewind_goes_back_one_block_if_nothing_else_is_said(tmp_path):
    async with serving(tmp_path) as (_, url), playing(url) as client:
        await walk(client, WALK[:3])
        await client.rewind()
        assert client.blocks == 2


@bounded
async def test_a_world_is_told_what_to_show_from_the_next_block_on(tmp_path):
    world = told_world()
    with world.open(seed=3, prompt="a wood") as session:
        made = [session.step().frames]
        session.set_prompt("a lake by night", over=2)
        made += [session.step().frames for _ in range(2)]
    expected = [frame.tobytes() for frames in made for frame in frames]
    async with serving(tmp_path, world=world) as (_, url), Client(url, codec="raw") as client:
        await client.start(seed=3, prompt="a wood", pace=0)
        await client.pause()
        await client.rewind(client.blocks)
        assert client.prompt == "a wood"
        await client.step()
        shown = [await client.frame() for _ in range(2)]
        assert await client.set_prompt("a lake by night", over=2) == 1
        assert client.prompt == "a lake by night"
        await client.step(2)
        shown += [await client.frame() for _ in range(4)]
        assert [frame.payload for frame in shown] == expected
        async with Client(url, watch=client.ticket.session) as other:
            assert other.prompt == "a lake by night"
            await client.set_prompt("a hill")
            async with asyncio.timeout(10):
                while other.prompt != "a hill":
                    await asyncio.sleep(0.005)
        await client.reset(seed=4)
        assert client.prompt == "a hill"
        await client.reset(seed=4, prompt="")
        assert client.prompt == ""


@bounded
async def test_what_cannot_be_told_is_raised_where_it_is_said(tmp_path):
    async with serving(tmp_path) as (_, url), playing(url) as client:
        assert client.prompt is None
        assert await code_of(client.set_prompt("a wood")) == "no_prompts"
        assert await code_of(client.reset(prompt="a wood")) == "no_prompts"
        assert await walk(client, WALK) == alone(WALK, seed=3)
    async with serving(tmp_path, world=told_world()) as (_, url), playing(url) as client:
        assert await code_of(client.set_prompt("a wood", over=0)) == "ConfigError"
        assert await code_of(client.set_prompt("x" * 4_001)) == "bad_field"
        assert await client.set_prompt("x" * 4_000) == 0
