"""A program without asyncio plays just the same, and leaves no thread behind."""

from __future__ import annotations

import asyncio
import threading

import pytest

from tests.apps.serving import WALK, alone, bounded, serving
from worldsim.client import BlockingClient
from worldsim.errors import ConfigError, ProtocolError, SessionClosed
from worldsim.testing.fakes import told_world


@bounded
async def test_a_program_without_asyncio_plays_just_the_same(tmp_path):
    def play(url: str) -> list[bytes]:
        with BlockingClient(url, codec="raw") as client:
            assert client.welcome["name"] == "dot"
            with pytest.raises(ConfigError, match="no session has begun"):
                client.hold(())
            client.start(seed=3, pace=0)
            client.pause()
            client.rewind(client.blocks)
            shown = []
            for keys in WALK[:4]:
                client.hold(keys)
                client.step()
                shown.append(client.frame().payload)
            mark, world, ticket = client.mark(), client.save(), client.fork()
            assert client.ping() > 0
            client.rewind(mark=mark)
            client.reset(seed=8)
            client.load(world)
            assert client.world != world
            assert client.ticket.session != ticket.session
            client.hold(WALK[4])
            client.resume()
            for frame in client:
                shown.append(frame.payload)
                if len(shown) == 6:
                    client.close()
            with pytest.raises(SessionClosed, match="this client was closed"):
                client.frame()
            return shown

    async with serving(tmp_path) as (_, url):
        shown = await asyncio.to_thread(play, url)
        assert shown[:6] == alone([*WALK[:5], WALK[4]], seed=3)
    assert not [thread for thread in threading.enumerate() if thread.name == "worldsim-client"]


@bounded
async def test_a_blocking_client_that_cannot_connect_leaves_no_thread(tmp_path):
    async with serving(tmp_path, token="right") as (_, url):
        for error, settings in ((ProtocolError, {}), (TypeError, {"colour": "red"})):
            with pytest.raises(error):
                await asyncio.to_thread(BlockingClient(url, **settings).__enter__)
    with pytest.raises(OSError, match=f"nobody answers at {url}/v1/world .*worldsim serve"):
        await asyncio.to_thread(BlockingClient(url).__enter__)
    assert not [thread for thread in threading.enumerate() if thread.name == "worldsim-client"]


@bounded
async def test_a_blocking_client_that_waits_in_one_thread_can_be_closed_in_another(tmp_path):
    async with serving(tmp_path) as (_, url):
        client = await asyncio.to_thread(BlockingClient(url, codec="raw").__enter__)
        await asyncio.to_thread(client.start, seed=3, pace=0)
        await asyncio.to_thread(client.pause)
        waiting = asyncio.create_task(asyncio.to_thread(lambda: [frame.block for frame in client]))
        await asyncio.sleep(0.2)
        await asyncio.to_thread(client.leave)
        assert len(await waiting) <= 2
        await asyncio.to_thread(client.close)


@bounded
async def test_a_program_without_asyncio_tells_a_world_what_to_show(tmp_path):
    def play(url: str) -> tuple[bytes, ...]:
        with BlockingClient(url, codec="raw") as client:
            client.start(seed=3, prompt="a wood", pace=0)
            client.pause()
            client.rewind(client.blocks)
            assert client.prompt == "a wood"
            assert client.set_prompt("a lake by night", 2) == 0
            client.step(2)
            shown = tuple(client.frame().payload for _ in range(4))
            client.reset(seed=3, prompt="a hill")
            assert client.prompt == "a hill"
            return shown

    world = told_world()
    with world.open(seed=3, prompt="a wood") as session:
        session.set_prompt("a lake by night", over=2)
        expected = tuple(frame.tobytes() for _ in range(2) for frame in session.step().frames)
    async with serving(tmp_path, world=world) as (_, url):
        assert await asyncio.to_thread(play, url) == expected
