"""A world that is served behaves as docs/protocol.md says, over real connections, whatever a client does."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import subprocess
import sys
from contextlib import AsyncExitStack, suppress
from time import monotonic
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

import worldsim.runtime.batching as batching
from tests.apps.serving import (
    WALK,
    alone,
    bounded,
    player,
    serving,
    settled,
    talk,
)
from worldsim.errors import ConfigError
from worldsim.runtime.engine import Engine
from worldsim.session.machine import Limits
from worldsim.session.wire import Flag
from worldsim.testing.fakes import tiny_world
from worldsim_apps.gate import Door
from worldsim_apps.room import Room
from worldsim_apps.server import Server, Settings, _begin_everywhere
from worldsim_apps.stage import Stage

SERVE = """
import sys
from pathlib import Path
from worldsim.testing.fakes import tiny_world
from worldsim_apps.gate import Door
from worldsim_apps.server import Settings, run
import asyncio
settings = Settings(door=Door(port=0), folder=Path(sys.argv[1]))
asyncio.run(run(tiny_world(), settings, lambda port: print(port, flush=True)))
"""
STAGES = ("wait", "denoise", "decode", "commit", "encode")
PICTURE = np.arange(180, dtype=np.uint8).reshape(6, 10, 3)


def png(picture: np.ndarray) -> str:
    """A picture as a client sends it."""
    return base64.b64encode(cv2.imencode(".png", picture[..., ::-1])[1].tobytes()).decode()


async def get(url: str, path: str, *, host: str = "") -> tuple[str, str]:
    """The status line and the body that plain HTTP is answered with."""
    address = url.removeprefix("ws://")
    reader, writer = await asyncio.open_connection(*address.split(":"))
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {host or address}\r\n\r\n".encode())
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return head.splitlines()[0], body


@bounded
async def test_a_session_as_the_protocol_page_shows_it(tmp_path):
    async with serving(tmp_path) as (server, url), talk(url) as one:
        await one.say("hello", role="player", codecs=["raw", "jpeg"], later="field")
        welcome = await one.hear("welcome")
        assert (welcome["name"], welcome["size"], welcome["fps"]) == ("dot", [6, 10], 4)
        assert (welcome["frames_per_block"], welcome["starts"]) == (1, 3)
        assert welcome["actions"]["left"] == ["KeyA", "ArrowLeft"]
        assert welcome["limits"]["window_blocks"] == 2
        await one.say("start", seed=7, pace=0)
        started = await one.hear("started")
        assert (started["epoch"], started["blocks"], started["paused"]) == (0, 0, False)
        assert started["session"] in server.hall.rooms
        assert await one.play(3) == alone([()] * 3, seed=7)
        await one.say("ping", t=2.5)
        assert (await one.hear("pong"))["t"] == 2.5
        await one.say("bye")
        await one.hear("bye")
        assert await one.end() == (1000, "bye")
        await settled(lambda: not server.hall.rooms)


@bounded
async def test_every_frame_says_what_it_is(tmp_path):
    world = tiny_world(frames_per_block=2)
    async with serving(tmp_path, world=world) as (_, url), player(url, seed=1) as one:
        seq = await one.hold("KeyD")
        await one.ask("step", blocks=2)
        first, second = await one.frame(), await one.frame()
        assert (first.flags, second.flags) == (Flag.KEY | Flag.FIRST, Flag.KEY | Flag.LAST)
        assert (first.block, first.frame, first.frames, first.epoch, first.action) == (0, 0, 2, 1, seq)
        third = await one.frame()
        assert (third.block, third.time_us, third.number) == (1, 500_000, second.number + 1)
        assert (third.codec, third.width, third.height, len(third.payload)) == ("raw", 10, 6, 180)


@bounded
async def test_frames_carry_the_newest_action_and_what_was_held_shows_in_them(tmp_path):
    async with serving(tmp_path) as (_, url), player(url, seed=3) as one:
        shown = await one.walk(WALK)
        assert shown == alone(WALK, seed=3)
        assert shown != alone([()] * len(WALK), seed=3)
        await one.hold("KeyA")
        newest = await one.hold("KeyD")
        await one.ask("step")
        assert (await one.frame()).action == newest


@bounded
async def test_who_asks_is_told_what_each_block_saw_from_then_on_and_others_are_not(tmp_path):
    async with (
        serving(tmp_path) as (_, url),
        player(url, seed=3) as one,
        talk(url, role="spectator", session=one.session) as other,
    ):
        await other.hear("watching")
        await one.walk(WALK[:1])
        await one.say("tell", seen=True)
        await one.ask("step")
        media = await one.frame()
        assert (media.block, media.seen) == (1, ((range(-4, 1), False),))
        assert [(await other.frame()).seen for _ in range(2)] == [(), ()]
        await one.say("ack", epoch=media.epoch, blocks=2)
        await one.say("tell", seen=False)
        await one.ask("step")
        assert (await one.frame()).seen == ()


@bounded
async def test_a_late_action_is_left_out(tmp_path):
    async with serving(tmp_path) as (_, url), player(url, seed=3) as one:
        await one.say("action", seq=5, keys=["KeyD"])
        await one.say("action", seq=5, keys=["KeyA"])
        await one.say("action", seq=4, keys=["KeyA"])
        await one.ask("step")
        media = await one.frame()
        assert (media.action, media.payload) == (5, alone([{"KeyD"}], seed=3)[0])


@bounded
async def test_an_unknown_key_is_an_error_and_the_connection_stays(tmp_path):
    async with serving(tmp_path) as (_, url), player(url, seed=3) as one:
        await one.hold("KeyQ")
        told = await one.hear("error")
        assert (told["code"], told["retryable"]) == ("UnknownName", False)
        assert told["message"].startswith("there is no key 'KeyQ'; known: ArrowLeft, ")
        assert await one.walk(WALK[:2]) == alone(WALK[:2], seed=3)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"type": "dance"}, "unknown_type"),
        ({"type": "action"}, "bad_field"),
        ({"type": "action", "seq": -1}, "bad_field"),
        ({"type": "action", "seq": 1, "keys": "KeyD"}, "bad_field"),
        ({"type": "ack", "epoch": 1, "blocks": 10**6}, "bad_ack"),
        ({"type": "ack", "epoch": 9, "blocks": 0}, "bad_ack"),
        ({"type": "control", "op": "dance"}, "bad_field"),
        ({"type": "start", "seed": 1}, "started"),
        ({"type": "prompt", "text": "it rains"}, "no_prompts"),
    ],
)
def test_what_does_not_fit_is_an_error_and_the_connection_stays(tmp_path, message, code):
    @bounded
    async def live():
        async with serving(tmp_path) as (_, url), player(url, seed=3) as one:
            await one.say(message.pop("type"), **message)
            assert (await one.hear("error"))["code"] == code
            assert await one.walk(WALK[:2]) == alone(WALK[:2], seed=3)

    live()


@bounded
async def test_a_spectator_sees_the_same_and_may_not_steer(tmp_path):
    async with AsyncExitStack() as stack:
        _, url = await stack.enter_async_context(serving(tmp_path))
        one = await stack.enter_async_context(player(url, seed=3))
        before = await one.walk(WALK[:2])
        other = await stack.enter_async_context(talk(url, role="spectator", session=one.session))
        watching = await other.hear("watching")
        assert (watching["blocks"], watching["paused"], watching["session"]) == (2, True, one.session)
        assert "resume" not in watching
        shown = await one.walk(WALK[2:])
        assert before + shown == alone(WALK, seed=3)
        assert [(await other.frame()).payload for _ in shown] == shown
        for kind, fields in (
            ("action", {"seq": 99}),
            ("control", {"op": "reset"}),
            ("start", {}),
            ("prompt", {"text": "a"}),
        ):
            await other.say(kind, **fields)
            assert (await other.hear("error"))["code"] == "not_yours"
        await other.say("ack", epoch=1, blocks=10**5)
        await one.jump("reset", seed=4)
        told = await other.hear("state")
        assert (told["epoch"], told["blocks"]) == (2, 0)
        assert await one.walk(WALK[:2]) == alone(WALK[:2], seed=4)
        await one.say("bye")
        assert await other.end() == (4410, "ended")


@bounded
async def test_a_spectator_that_leaves_or_says_bye_ends_nothing(tmp_path):
    async with serving(tmp_path) as (_, url), player(url, seed=3) as one:
        for last in ("bye", "ping"):
            async with talk(url, role="spectator", session=one.session) as other:
                await other.hear("watching")
                await other.say(last)
        assert await one.walk(WALK) == alone(WALK, seed=3)


@bounded
async def test_without_acknowledgements_at_most_two_blocks_come(tmp_path):
    async with serving(tmp_path) as (_, url), player(url, paused=False, seed=3) as one:
        assert [media.block for media in await one.silent()] == [0, 1]
        await one.say("ack", epoch=0, blocks=1)
        assert [media.block for media in await one.silent()] == [2]
        await one.say("ack", epoch=0, blocks=3)
        assert [media.block for media in await one.silent()] == [3, 4]


@bounded
async def test_pace_is_kept_and_keys_of_one_who_says_nothing_are_released(tmp_path, monkeypatch):
    monkeypatch.setattr("worldsim.session.machine.SILENCE_S", 0.75)
    async with serving(tmp_path) as (_, url), player(url, seed=3, pace=0.5) as one:  # a block each half second
        await one.hold("KeyD")
        await one.ask("resume")
        shown = [await one.frame()]
        began = asyncio.get_running_loop().time()
        shown.append(await one.frame())
        assert asyncio.get_running_loop().time() - began > 0.3
        assert [media.payload for media in shown] == alone([{"KeyD"}, ()], seed=3)
        assert [media.action for media in shown] == [1, 1]


@bounded
async def test_pause_step_and_resume(tmp_path):
    async with serving(tmp_path) as (_, url), player(url, seed=3) as one:
        assert await one.silent(0.1) == []
        told = await one.ask("step", blocks=2)
        assert (told["paused"], told["blocks"]) == (True, 0)
        assert await one.play(2) == alone([()] * 2, seed=3)
        assert await one.silent(0.1) == []
        assert (await one.ask("resume"))["paused"] is False
        assert "say pause first" in await one.refused("step", "not_paused")
        assert await one.play(3) == alone([()] * 5, seed=3)[2:]
        assert (await one.ask("pause"))["paused"] is True


@bounded
async def test_after_a_rewind_the_same_keys_show_the_same(tmp_path):
    async with serving(tmp_path) as (_, url), player(url, seed=3) as one:
        first = await one.walk(WALK[:2])
        marked = await one.ask("mark", "marked")
        assert (marked["mark"], marked["block"]) == (0, 2)
        rest = await one.walk(WALK[2:])
        assert first + rest == alone(WALK, seed=3)
        told = await one.jump("rewind", mark=0)
        assert (told["epoch"], told["blocks"], told["paused"]) == (2, 2, True)
        assert await one.walk(WALK[2:]) == rest
        told = await one.jump("rewind", blocks=3)
        assert (told["epoch"], told["blocks"]) == (3, 5)
        assert await one.walk(WALK[5:]) == rest[3:]
        assert "8 blocks have been made" in await one.refused("rewind", "ConfigError", blocks=9)
        assert "there is no mark 1;" in await one.refused("rewind", "no_mark", mark=1)
        assert await one.walk(WALK[:1]) == alone([*WALK, WALK[0]], seed=3)[-1:]


@bounded
async def test_what_is_no_longer_remembered_is_lived_again(tmp_path):
    walk = [*WALK] * 3
    async with serving(tmp_path, world=tiny_world(pages=16), sessions=1) as (server, url), player(url, seed=3) as one:
        shown = await one.walk(walk)
        world = one.world
        assert shown == alone(walk, seed=3)
        assert server.hall.rooms[one.session]._stage.live.session.remembered < 20
        told = await one.jump("rewind", blocks=22)
        assert (told["epoch"], told["blocks"]) == (2, 2)
        assert told["world"] != world
        assert await one.walk(walk[2:]) == shown[2:]
        assert server.hall.engine.open_sessions == 1


@bounded
async def test_a_mark_on_a_branch_that_was_left_is_found_again(tmp_path):
    async with serving(tmp_path) as (_, url), player(url, seed=3) as one:
        await one.walk(WALK[:4])
        await one.ask("mark", "marked")
        rest = await one.walk(WALK[4:])
        await one.jump("rewind", blocks=7)
        await one.walk([{"Space"}] * 2)
        assert (await one.jump("rewind", mark=0))["blocks"] == 4
        assert await one.walk(WALK[4:]) == rest
        await one.jump("reset", seed=5)
        assert (await one.jump("rewind", mark=0))["blocks"] == 4
        assert await one.walk(WALK[4:]) == rest


@bounded
async def test_a_fork_begins_with_the_same_past_and_goes_its_own_way(tmp_path):
    async with AsyncExitStack() as stack:
        server, url = await stack.enter_async_context(serving(tmp_path))
        one = await stack.enter_async_context(player(url, seed=3))
        session = one.session
        await one.walk(WALK[:3])
        ticket = await one.ask("fork", "forked")
        assert ticket["session"] != session
        rest = await one.walk(WALK[3:])
        hello = {"role": "player", "session": ticket["session"], "resume": ticket["resume"]}
        twin = await stack.enter_async_context(talk(url, **hello))
        started = await twin.hear("started")
        assert (started["session"], started["epoch"], started["blocks"]) == (ticket["session"], 0, 3)
        await twin.ask("pause")
        await twin.jump("rewind", blocks=(await twin.ask("pause"))["blocks"] - 3)
        assert await twin.walk(WALK[3:]) == rest
        await one.say("bye")
        await settled(lambda: session not in server.hall.rooms)
        assert await twin.walk(WALK[:2]) == alone([*WALK, *WALK[:2]], seed=3)[-2:]


@bounded
async def test_a_fork_for_which_there_is_no_place_is_refused_and_the_session_goes_on(tmp_path):
    async with serving(tmp_path, sessions=1) as (_, url), player(url, seed=3) as one:
        await one.walk(WALK[:3])
        told = await one.ask("fork", "error")
        assert (told["code"], told["retryable"], told.get("retry_after_ms")) == ("full", False, None)
        assert told["message"].startswith("a fork takes a place of its own, and this server has 1")
        assert await one.walk(WALK[3:]) == alone(WALK, seed=3)[3:]


@bounded
async def test_a_saved_world_is_loaded_by_its_name(tmp_path):
    async with AsyncExitStack() as stack:
        _, url = await stack.enter_async_context(serving(tmp_path))
        one = await stack.enter_async_context(player(url, seed=3))
        await one.walk(WALK[:3])
        saved = await one.ask("save", "saved")
        assert (saved["world"], saved["block"]) == (one.world, 3)
        rest = await one.walk(WALK[3:])
        told = await one.jump("load", world=saved["world"])
        assert (told["epoch"], told["blocks"]) == (2, 3)
        assert told["world"] != saved["world"]
        assert await one.walk(WALK[3:]) == rest
        other = await stack.enter_async_context(talk(url, role="player"))
        assert "no world is kept" in await other.refused("load", "no_world", world="0" * 32)
        assert "32 hexadecimal digits" in await other.refused("load", "no_world", world="../etc/passwd")
        started = await other.ask("load", "started", world=saved["world"])
        assert (started["epoch"], started["blocks"]) == (0, 3)
        await other.hold(*WALK[3])
        shown = await other.play(1)
        assert shown[0] in (rest[0], alone([*WALK[:3], ()], seed=3)[-1])


@bounded
async def test_a_session_that_was_never_saved_is_loaded_from_its_log(tmp_path):
    async with serving(tmp_path) as (server, url):
        async with player(url, seed=3) as one:
            await one.walk(WALK[:3])
            await one.say("bye")
            await one.hear("bye")
        await settled(lambda: not server.hall.rooms)
        assert not (tmp_path / f"{one.world}.world").exists()
        async with player(url, seed=9) as other:
            assert (await other.jump("load", world=one.world))["blocks"] == 3
            assert await other.walk(WALK[3:]) == alone(WALK, seed=3)[3:]


@bounded
async def test_a_kept_world_that_is_torn_is_refused_and_nothing_is_left_behind(tmp_path):
    async with serving(tmp_path) as (server, url), player(url, seed=3) as one:
        await one.walk(WALK[:3])
        (tmp_path / f"{'0' * 32}.log").write_text("torn")
        await one.refused("load", "LogError", world="0" * 32)
        other = (tmp_path / f"{one.world}.log").read_bytes().splitlines(keepends=True)
        wrong = (tmp_path / f"{'1' * 32}.log").open("wb")
        with wrong:
            wrong.writelines([other[0].replace(b'"seed":3', b'"seed":4'), *other[1:]])
        files = sorted(path.name for path in tmp_path.iterdir())
        await one.refused("load", "LogError", world="1" * 32)
        assert sorted(path.name for path in tmp_path.iterdir()) == files
        assert server.hall.engine.open_sessions == 1
        assert await one.walk(WALK[3:]) == alone(WALK, seed=3)[3:]


@bounded
async def test_a_log_that_does_not_come_out_the_same_is_told_to_be_inexact(tmp_path, monkeypatch):
    async with serving(tmp_path) as (server, url), player(url, seed=3) as one:
        await one.walk(WALK[:3])
        assert (await one.ask("load", world=one.world))["exact"] is True
        with monkeypatch.context() as patch:
            patch.setattr("worldsim.runtime.session.Session.latest", property(lambda _: None))
            assert (await one.ask("load", world=one.world))["exact"] is False
        assert server.hall.engine.open_sessions == 1


@bounded
async def test_reset_begins_anew(tmp_path):
    async with serving(tmp_path) as (server, url), player(url, seed=3) as one:
        await one.walk(WALK[:3])
        told = await one.jump("reset", seed=8, start=2)
        assert (told["epoch"], told["blocks"], told["paused"]) == (2, 0, True)
        assert await one.walk(WALK) == alone(WALK, seed=8, start=2)
        assert "no starting place 3" in await one.refused("reset", "ConfigError", start=3)
        assert server.hall.engine.open_sessions == 1


@bounded
async def test_a_world_is_begun_from_a_picture(tmp_path):
    async with serving(tmp_path) as (_, url), player(url, seed=3, image=png(PICTURE)) as one:
        assert await one.walk(WALK) == alone(WALK, seed=3, frames=PICTURE[None])


@pytest.mark.parametrize(
    ("beginning", "code"),
    [
        ({"image": "AAAA"}, "bad_image"),
        ({"image": "A"}, "bad_image"),
        ({"image": "\u00e9\u00e9\u00e9\u00e9"}, "bad_image"),
        ({"image": png(PICTURE)[:-40]}, "bad_image"),
        ({"image": png(PICTURE), "start": 1}, "bad_field"),
        ({"start": 3}, "ConfigError"),
        ({"start": 2**64 - 1}, "ConfigError"),
        ({"pace": 17}, "bad_field"),
        ({"seed": 2**64}, "bad_field"),
        ({"seed": 1.5}, "bad_field"),
    ],
)
def test_a_beginning_that_does_not_fit_is_an_error_and_another_may_follow(tmp_path, beginning, code):
    @bounded
    async def live():
        async with serving(tmp_path) as (server, url), talk(url, role="player") as one:
            await one.say("start", **beginning)
            assert (await one.hear("error"))["code"] == code
            assert (server.hall.engine.open_sessions, list(tmp_path.iterdir())) == (0, [])
            await one.say("start", seed=3, pace=0)
            await one.hear("started")
            assert await one.play(1) == alone([()], seed=3)

    live()


async def closed_after(url: str, *messages: str | bytes) -> tuple[int, str, list[str]]:
    """The code, the reason and the codes of errors that a connection ends with which says only this."""
    async with talk(url) as one:
        for message in messages:
            await one.connection.send(message)
        code, reason = await one.end()
        return code, reason, [told["code"] for told in one._texts if told["type"] == "error"]


HELLO = '{"type":"hello"}'


@pytest.mark.parametrize(
    ("messages", "code", "reason"),
    [
        ((), 3008, "hello"),
        (('{"type":"ping"}',), 3008, "hello"),
        (('{"type":"start"}',), 3000, "no_hello"),
        (('{"type":"hello","token":"wrong"}',), 3000, "bad_token"),
        (('{"type":"hello","token":"\\ud800"}',), 3000, "bad_token"),
        ((b"{}",), 1003, "binary"),
        ((HELLO, b"\x01\x0a"), 1003, "binary"),
        (("no json",), 4400, "not_json"),
        (("[" * 60_000,), 4400, "not_json"),
        (('{"type":"ping","t":NaN}',), 4400, "not_json"),
        (('["hello"]',), 4400, "no_type"),
        (('{"type":7}',), 4400, "no_type"),
        ((HELLO, HELLO), 4400, "hello_twice"),
        (('{"type":"hello","codecs":["h264"],"role":"spectator"}',), 4400, "no_session"),
        (('{"type":"hello","codecs":[]}',), 4400, "no_codec"),
        (('{"type":"hello","session":"5"}',), 4410, "no_session"),
        (('{"type":"hello","session":"5","role":"spectator"}',), 4404, "no_session"),
        ((HELLO, '{"type":"bye"}'), 1000, "bye"),
        (('{"type":"bye"}',), 1000, "bye"),
    ],
)
def test_a_connection_is_closed_with_the_code_that_says_why(tmp_path, messages, code, reason):
    token = "right" if "token" in "".join(map(str, messages)) else ""

    @bounded
    async def live():
        async with serving(tmp_path, limits=Limits(hello_s=0.2), token=token) as (_, url):
            seen, why, errors = await closed_after(url, *messages)
            assert (seen, why) == (code, reason)
            assert errors == [] if reason in ("hello", "bye") else [reason]
            async with talk(url, token=token):
                pass

    live()


@bounded
async def test_one_who_has_said_hello_may_be_silent(tmp_path):
    async with serving(tmp_path, limits=Limits(hello_s=0.1)) as (_, url), talk(url, role="player") as one:
        await asyncio.sleep(0.3)
        await one.say("ping", t=7)
        assert (await one.hear("pong"))["t"] == 7


@bounded
async def test_one_who_plays_nothing_for_too_long_is_sent_away_and_a_player_is_not(tmp_path):
    limits = Limits(start_s=0.3)
    async with serving(tmp_path, limits=limits) as (_, url), talk(url, role="player") as idle, player(url) as one:
        await idle.say("ping")
        await idle.hear("pong")
        began = monotonic()
        assert await idle.end() == (3008, "start")
        assert monotonic() - began < 15
        await asyncio.sleep(0.3)
        assert len(await one.walk(WALK[:2])) == 2


@pytest.mark.parametrize("opcode", [0x9, 0xA])
@pytest.mark.parametrize("has_said_hello", [True, False])
def test_one_who_floods_with_pings_is_cut_off_and_holds_nobody_up(tmp_path, opcode, has_said_hello):
    @bounded
    async def live():
        async with serving(tmp_path) as (server, url), player(url, seed=3) as one, talk(url) as other:
            if has_said_hello:
                await other.say("hello", role="player")
            flood = bytes([0x80 | opcode, 0x80, 0, 0, 0, 0]) * 40_000
            other.connection.transport.write(flood)
            began = monotonic()
            await settled(lambda: server._gate.open == 1)
            assert monotonic() - began < 15
            assert len(await one.walk(WALK[:2])) == 2

    live()


@pytest.mark.parametrize(
    "last", ['{"type":"bye"}', b"binary", "no json"], ids=["after a bye", "after a binary message", "after no JSON"]
)
def test_one_who_goes_on_talking_after_the_end_is_cut_off(tmp_path, last):
    @bounded
    async def live():
        async with serving(tmp_path) as (server, url), talk(url, role="player") as one:
            await one.connection.send(last)
            one.connection.transport.write((b"\x81\x80" + bytes(4)) * 200_000)  # 1.2 MB of empty texts
            began = monotonic()
            await settled(lambda: server._gate.reached == 0)
            assert monotonic() - began < 15

    live()


@bounded
async def test_pieces_of_no_message_are_cut_off_soon(tmp_path):
    async with serving(tmp_path) as (server, url), talk(url) as one:
        one.connection.transport.write((b"\x00\x80" + bytes(4)) * 200_000)
        began = monotonic()
        await settled(lambda: server._gate.reached == 0)
        assert monotonic() - began < 15


@bounded
async def test_a_message_in_more_pieces_than_anybody_sends_is_cut_off(tmp_path):
    async with serving(tmp_path) as (server, url), talk(url, role="player") as one:
        pieces = b"\x01\x80" + bytes(4) + (b"\x00\x80" + bytes(4)) * 20_000
        one.connection.transport.write(pieces)
        began = monotonic()
        await settled(lambda: server._gate.open == 0)
        assert monotonic() - began < 15


@bounded
async def test_connections_that_never_speak_are_too_many_at_twice_those_that_may_be_open(tmp_path):
    async with AsyncExitStack() as stack:
        server, url = await stack.enter_async_context(serving(tmp_path, connections=4))
        one = await stack.enter_async_context(player(url, seed=3))
        silent = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(12)]
        for _, writer in silent:
            stack.callback(writer.transport.abort)
        await settled(lambda: server._gate.reached == 8)
        for reader, _ in silent[:5]:  # those that have been silent for longest
            with suppress(ConnectionError):
                assert await reader.read() == b""
        assert len(await one.walk(WALK[:2])) == 2
        await stack.enter_async_context(talk(url, role="player"))
        for _, writer in silent:
            writer.transport.abort()
        await settled(lambda: server._gate.reached == 2)
        await stack.enter_async_context(talk(url, role="player"))


@bounded
async def test_a_message_that_is_too_long_closes_with_1009(tmp_path):
    async with serving(tmp_path) as (_, url):
        code, _, errors = await closed_after(url, HELLO, json.dumps({"type": "ping", "pad": "a" * 65_536}))
        assert (code, errors) == (1009, [])
        async with talk(url, role="player") as one:
            await one.say("ping", pad="a" * (65_536 - len('{"type":"ping","pad":""}')))
            await one.hear("pong")


@bounded
async def test_one_who_says_too_much_is_closed_with_4429(tmp_path):
    async with serving(tmp_path, limits=Limits(messages_per_s=1, burst=10)) as (_, url):
        code, reason, errors = await closed_after(url, HELLO, *['{"type":"ping"}'] * 10)
        assert (code, reason, errors) == (4429, "too_fast", ["too_fast"])


@bounded
async def test_one_with_too_many_verbs_waiting_is_closed_with_4429(tmp_path, monkeypatch):
    hold = asyncio.Event()

    async def slow(self):
        await hold.wait()

    monkeypatch.setattr(Stage, "save", slow)
    async with serving(tmp_path) as (_, url), player(url, seed=3) as one:
        for _ in range(66):
            await one.say("control", op="save")
        assert (await one.hear("error"))["code"] == "too_fast"
        assert await one.end() == (4429, "too_fast")
        hold.set()


@bounded
async def test_when_all_places_are_taken_it_is_said_when_to_come_again(tmp_path):
    async with serving(tmp_path, sessions=1) as (server, url), player(url, seed=3) as one:
        async with talk(url, role="player") as other:
            await other.say("start", pace=0)
            told = await other.hear("error")
            assert (told["code"], told["retryable"], told["retry_after_ms"]) == ("full", True, 2_000)
            assert "all 1 places are taken" in told["message"]
            assert await other.end() == (1013, "full")
        await one.say("bye")
        await settled(lambda: not server.hall.rooms)
        async with player(url, seed=4) as other:
            assert await other.walk(WALK[:1]) == alone(WALK[:1], seed=4)


@bounded
async def test_one_who_waits_for_nobody_makes_room_for_another(tmp_path):
    async with serving(tmp_path, sessions=1) as (_, url):
        async with player(url, seed=3) as one:
            shown = await one.walk(WALK[:3])
        async with player(url, seed=4) as other:
            async with talk(url) as again:
                await again.say("hello", session=one.session, resume=one.resume, codecs=["raw"])
                assert (await again.hear("error"))["code"] == "no_session"
                assert await again.end() == (4410, "no_session")
            assert (await other.jump("load", world=one.world))["blocks"] == 3
            assert shown + await other.walk(WALK[3:]) == alone(WALK, seed=3)


@bounded
async def test_a_lost_player_goes_on_where_it_was_and_a_token_is_good_once(tmp_path):
    async with AsyncExitStack() as stack:
        _, url = await stack.enter_async_context(serving(tmp_path))
        first = await stack.enter_async_context(player(url, seed=3))
        shown = await first.walk(WALK[:3])
        for keys in WALK[3:5]:
            await first.hold(*keys)
            await first.ask("step")
            shown.append((await first.frame()).payload)  # not acknowledged
        hello = {"role": "player", "session": first.session, "resume": first.resume, "epoch": 1, "blocks": 4}
        second = await stack.enter_async_context(talk(url, **hello))
        started = await second.hear("started")
        assert (started["epoch"], started["blocks"], started["paused"]) == (1, 5, True)
        assert await first.end() == (4409, "replaced")
        again = await second.frame()
        assert (again.block, again.flags & Flag.AGAIN, again.payload) == (4, Flag.AGAIN, shown[4])
        await second.say("ack", epoch=1, blocks=5)
        await second.say("action", seq=50, keys=list(WALK[5]))
        await second.ask("step")
        media = await second.frame()
        assert (media.payload, media.flags & Flag.AGAIN) == (alone(WALK, seed=3)[5], 0)
        third = await stack.enter_async_context(talk(url, **hello))
        assert (await third.hear("error"))["code"] == "bad_token"
        assert await third.end() == (3000, "bad_token")
        await second.ask("step")


@bounded
async def test_a_bye_ends_no_session_that_another_has_taken_over(tmp_path):
    async with AsyncExitStack() as stack:
        server, url = await stack.enter_async_context(serving(tmp_path))
        one = await stack.enter_async_context(player(url, seed=3))
        await one.walk(WALK[:3])
        one.connection.transport.pause_reading()
        await one.say("bye")
        await settled(
            lambda: one.session not in server.hall.rooms or next(iter(server.hall.rooms.values()))._player.is_closing
        )
        hello = {"role": "player", "session": one.session, "resume": one.resume, "epoch": 1, "blocks": 3}
        other = await stack.enter_async_context(talk(url, **hello))
        await other.hear("started")
        one.connection.transport.abort()
        await settled(lambda: server._gate.open == 1)
        await other.say("action", seq=9, keys=list(WALK[3]))
        await other.ask("step")
        assert (await other.frame()).payload == alone(WALK, seed=3)[3]


@bounded
async def test_nobody_comes_back_to_a_session_that_is_ending(tmp_path, monkeypatch):
    go_on, save = asyncio.Event(), Stage.save

    async def slow(self):
        await go_on.wait()
        await save(self)

    monkeypatch.setattr(Stage, "save", slow)
    async with serving(tmp_path) as (server, url), player(url, seed=3) as one:
        await one.walk(WALK[:3])
        ending = asyncio.create_task(server.hall.rooms[one.session].end())
        assert await one.end() == (4410, "ended")
        for role in ("player", "spectator"):
            async with talk(url) as other:
                await other.say("hello", role=role, codecs=["raw"], session=one.session, resume=one.resume)
                assert (await other.hear("error"))["code"] == "no_session"
                assert await other.end() == (4410, "no_session")
        go_on.set()
        await ending


@bounded
async def test_one_who_comes_back_is_told_what_the_newest_action_was(tmp_path):
    async with serving(tmp_path) as (_, url), player(url, seed=3) as one:
        await one.walk(WALK[:3])
        hello = {"role": "player", "session": one.session, "resume": one.resume, "epoch": 1, "blocks": 3}
        async with talk(url, **hello) as again:
            assert (await again.hear("started"))["seq"] == 3


@pytest.mark.parametrize("refused", [{"blocks": 9}, {"resume": ""}, {"resume": "\ud800"}, {"codecs": ["jpeg"]}])
def test_a_hello_that_may_not_go_on_takes_nothing_from_the_player(tmp_path, refused):
    @bounded
    async def live():
        async with serving(tmp_path) as (_, url), player(url, seed=3) as one:
            await one.walk(WALK[:3])
            hello = {"role": "player", "session": one.session, "resume": one.resume, "epoch": 1, "blocks": 3}
            async with talk(url, **{**hello, **refused}) as other:
                assert (await other.hear("error"))["code"] in ("bad_ack", "bad_token", "no_codec")
            assert await one.walk(WALK[3:]) == alone(WALK, seed=3)[3:]

    live()


def near(shown: list[bytes], wanted: list[bytes]) -> bool:
    """Whether two walks agree as sessions do that share their products with others: to the last bit of a pixel."""
    one, other = (np.frombuffer(b"".join(payloads), np.uint8).astype(int) for payloads in (shown, wanted))
    return one.shape == other.shape and abs(one - other).max() <= 1


def failing_decoder(patch: Any, victim: Any) -> None:
    decode = batching._decode

    def failing(turn):
        if turn.session is victim:
            raise RuntimeError("planted")
        decode(turn)

    patch.setattr(batching, "_decode", failing)


def failing_backbone(patch: Any, victim: Any) -> None:
    decode = batching._decode

    def broken(turn):
        if turn.session is victim:
            turn.block.latents.fill_(torch.nan)
        decode(turn)

    patch.setattr(batching, "_decode", broken)


def failing_encoder(patch: Any, victim: Any) -> None:
    pack = "worldsim_apps.room.Room._pack"
    encode = __import__("worldsim_apps.room").room.Room._pack

    def failing(room, encoder, chunk, sample):
        if room._stage.live.session is victim:
            raise RuntimeError("planted")
        return encode(room, encoder, chunk, sample)

    patch.setattr(pack, failing)


@pytest.mark.parametrize(
    ("plant", "why"),
    [
        (failing_decoder, "planted"),
        (failing_backbone, "block 2 came out with numbers that are none"),
        (failing_encoder, "planted"),
    ],
)
def test_a_block_that_fails_stops_its_own_session_alone_and_can_be_made_later(tmp_path, monkeypatch, plant, why):
    @bounded
    async def live():
        async with AsyncExitStack() as stack:
            server, url = await stack.enter_async_context(serving(tmp_path))
            one = await stack.enter_async_context(player(url, seed=3))
            other = await stack.enter_async_context(player(url, seed=4))
            shown = await one.walk(WALK[:2])
            beside = await other.walk(WALK[:2])
            with monkeypatch.context() as patch:
                plant(patch, server.hall.rooms[one.session]._stage.live.session)
                await one.hold(*WALK[2])
                await one.ask("step", blocks=3)
                told = await one.hear("error")
                assert (told["code"], told["retryable"]) == ("block_failed", True)
                assert (told["blocks"], told["paused"], told["epoch"]) == (2, True, 1)
                assert told["message"].startswith(why)
                beside += await other.walk(WALK[2:])
                assert await one.silent(0.1) == []
            assert (await one.ask("pause"))["blocks"] == 2
            assert shown + await one.walk(WALK[2:]) == alone(WALK, seed=3)
            assert near(beside, alone(WALK, seed=4))
            await one.ask("resume")
            assert await one.play(2) == alone([*WALK, WALK[-1], WALK[-1]], seed=3)[-2:]
            assert "worldsim_blocks_failed_total 1.0" in server.hall.gauges.text().decode()

    live()


@bounded
async def test_a_defect_ends_the_session_with_1011_and_keeps_its_world(tmp_path, monkeypatch):
    async with serving(tmp_path, logged=["session stopped"]) as (server, url):
        async with player(url, seed=3) as one:
            shown = await one.walk(WALK[:3])
            with monkeypatch.context() as patch:
                patch.setattr("worldsim_apps.stage.Stage.mark", None)
                await one.say("control", op="mark")
                assert await one.end() == (1011, "defect")
        await settled(lambda: not server.hall.rooms)
        async with player(url, seed=9) as other:
            await other.jump("load", world=one.world)
            assert shown + await other.walk(WALK[3:]) == alone(WALK, seed=3)


@bounded
async def test_health_and_figures_are_plain_http(tmp_path):
    async with serving(tmp_path) as (server, url), player(url, seed=3) as one:
        assert await get(url, "/healthz") == ("HTTP/1.1 200 OK", "ok\n")
        await one.walk(WALK[:3])
        status, text = await get(url, "/metrics")
        assert status == "HTTP/1.1 200 OK"
        for line in (
            'worldsim_sessions{state="paused"} 1.0',
            'worldsim_sessions{state="live"} 0.0',
            *(f'worldsim_block_seconds_count{{stage="{stage}"}} ' for stage in STAGES),
            "worldsim_frames_sent_total ",
            "worldsim_pages_in_use ",
        ):
            assert f"\n{line}" in text
        assert (await get(url, "/v1/nowhere"))[0] == "HTTP/1.1 404 Not Found"
        assert (await get(url, "/healthz", host="evil.example"))[0] == "HTTP/1.1 421 Misdirected Request"
        server._draining = True
        assert await get(url, "/healthz") == ("HTTP/1.1 503 Service Unavailable", "draining\n")
        server._draining = False


@pytest.mark.parametrize("offered", [None, ["worldsim.v0"]])
def test_without_the_subprotocol_there_is_no_connection(tmp_path, offered):
    @bounded
    async def live():
        async with serving(tmp_path) as (_, url):
            with pytest.raises(InvalidStatus) as refused:
                await connect(f"{url}/v1/world", subprotocols=offered, proxy=None)
            assert refused.value.response.status_code == 400
            assert b"subprotocol" in refused.value.response.body

    live()


@bounded
async def test_a_server_that_ends_saves_every_world_and_the_next_one_goes_on_with_them(tmp_path):
    async with AsyncExitStack() as clients:
        players = []
        async with serving(tmp_path) as (_, url):
            for seed in range(3):
                one = await clients.enter_async_context(player(url, seed=seed))
                players.append((one, await one.walk(WALK[: 3 + seed])))
            lost = await clients.enter_async_context(player(url, seed=7))
            await lost.walk(WALK[:2])
            lost.connection.transport.abort()
            spectator = await clients.enter_async_context(talk(url, role="spectator", session=players[0][0].session))
            await spectator.hear("watching")
            quiet = await clients.enter_async_context(talk(url, role="player"))
        for one, _ in players:
            assert (await one.hear("drain"))["world"] == one.world
            assert await one.end() == (1012, "restart")
        assert await spectator.end() == (1012, "restart")
        assert await quiet.end() == (1012, "restart")
    async with serving(tmp_path) as (_, url), player(url) as other:
        for seed, (one, shown) in enumerate(players):
            assert (await other.jump("load", world=one.world))["blocks"] == len(shown)
            assert shown + await other.walk(WALK[len(shown) :]) == alone(WALK, seed=seed)
        assert (await other.jump("load", world=lost.world))["blocks"] == 2
        assert await other.walk(WALK[2:]) == alone(WALK, seed=7)[2:]


@bounded
async def test_a_session_that_begins_while_the_server_ends_leaves_nothing_behind(tmp_path, monkeypatch):
    opening, go_on = asyncio.Event(), asyncio.Event()
    admit = Stage.open.__func__

    async def slow(cls, *given, **beginning):
        opening.set()
        await go_on.wait()
        return await admit(cls, *given, **beginning)

    monkeypatch.setattr(Stage, "open", classmethod(slow))
    async with AsyncExitStack() as clients:
        async with serving(tmp_path) as (_, url):
            one = await clients.enter_async_context(talk(url, role="player"))
            await one.say("start", seed=3, pace=0)
            await opening.wait()
            asyncio.get_running_loop().call_later(0.2, go_on.set)
        assert (await one.end())[0] == 1012
    assert list(tmp_path.iterdir()) == []


@bounded
async def test_a_fork_that_is_made_while_the_server_ends_is_kept_too(tmp_path, monkeypatch):
    forking, go_on = asyncio.Event(), asyncio.Event()
    fork = Stage.fork

    async def slow(self):
        forking.set()
        await go_on.wait()
        return await fork(self)

    monkeypatch.setattr(Stage, "fork", slow)
    async with AsyncExitStack() as clients:
        async with serving(tmp_path) as (server, url):
            one = await clients.enter_async_context(player(url, seed=3))
            await one.walk(WALK[:2])
            await one.say("control", op="fork")
            await forking.wait()
            asyncio.get_running_loop().call_later(0.2, go_on.set)
            await server._drain()
            assert server.hall.rooms == {}
        assert (await one.end())[0] == 1012
    assert len(list(tmp_path.glob("*.world"))) == len(list(tmp_path.glob("*.log"))) == 2


@bounded
async def test_a_world_that_cannot_be_saved_does_not_keep_the_others_from_it(tmp_path, monkeypatch):
    async with AsyncExitStack() as clients:
        async with serving(tmp_path, logged=["could not be saved; its log is all"]) as (server, url):
            one = await clients.enter_async_context(player(url, seed=3))
            other = await clients.enter_async_context(player(url, seed=4))
            await one.walk(WALK[:2])
            await other.walk(WALK[:2])
            save = server.hall.kept.save

            def failing(name, snapshot, owner, **logged):
                if name == one.world:
                    raise OSError(28, "No space left on device")
                save(name, snapshot, owner, **logged)

            monkeypatch.setattr(server.hall.kept, "save", failing)
        assert (await one.hear("drain"))["world"] == one.world
        assert (await other.hear("drain"))["world"] == other.world
    assert not (tmp_path / f"{one.world}.world").exists()
    assert (tmp_path / f"{other.world}.world").exists()
    async with serving(tmp_path) as (_, url), player(url) as third:
        assert (await third.jump("load", world=one.world))["blocks"] == 2


@bounded
async def test_a_session_that_cannot_be_drained_does_not_keep_the_others_from_it(tmp_path, monkeypatch):
    drain, failed = Room.drain, []

    async def failing(room: Room) -> None:
        await drain(room)
        if not failed:
            failed.append(room)
            raise RuntimeError("a defect")

    monkeypatch.setattr(Room, "drain", failing)
    async with AsyncExitStack() as clients:
        async with serving(tmp_path, logged=["was not drained as it should"]) as (_, url):
            players = [await clients.enter_async_context(player(url, seed=seed)) for seed in (3, 4)]
            for one in players:
                await one.walk(WALK[:2])
        for one in players:
            assert (await one.hear("drain"))["world"] == one.world
            assert await one.end() == (1012, "restart")


@bounded
async def test_one_who_watches_is_told_whether_a_session_has_ended_or_never_was(tmp_path):
    async with serving(tmp_path) as (server, url):
        async with player(url, seed=3) as one, talk(url, role="spectator", session=one.session) as spectator:
            await spectator.hear("watching")
            await one.say("bye")
            assert await spectator.end() == (4410, "ended")
            assert not spectator._texts  # nobody waits for one who said bye
        await settled(lambda: not server.hall.rooms)
        for session, says, code in ((one.session, "has ended", 4410), ("0" * 32, "no session of that name", 4404)):
            async with talk(url) as other:
                await other.say("hello", role="spectator", session=session)
                assert says in (await other.hear("error"))["message"]
                assert await other.end() == (code, "no_session")


@bounded
async def test_a_foreign_file_is_refused_and_the_session_goes_on(tmp_path):
    save_file({"x": torch.zeros(3)}, tmp_path / f"{'a' * 32}.world", metadata={"worldsim": "[]"})
    async with serving(tmp_path) as (_, url), player(url, seed=3) as one:
        await one.refused("load", "SnapshotError", world="a" * 32)
        assert await one.walk(WALK) == alone(WALK, seed=3)


@pytest.mark.parametrize(
    ("host", "says"),
    [
        ("192.0.2.77", "host 192.0.2.77, port 0 .Cannot assign requested address"),
        ("no.such.invalid", "no.such.invalid"),
    ],
)
def test_an_address_where_nobody_can_listen_is_named_with_what_to_do(tmp_path, host, says):
    async def listen() -> None:
        async with Server(
            tiny_world(), Settings(door=Door(host=host, port=0, token="long"), folder=tmp_path)
        ).listening():
            pass

    with pytest.raises(ConfigError, match=f"{says}.*--host.*--port"):
        asyncio.run(listen())


@bounded
async def test_starting_places_are_begun_at_while_nobody_plays(tmp_path, monkeypatch):
    monkeypatch.setattr("worldsim_apps.server.IDLE_S", 0.01)
    world = tiny_world()
    with Engine(world) as engine:
        live = engine.open(seed=0)
        warming = asyncio.create_task(_begin_everywhere(engine))
        await asyncio.sleep(0.1)
        assert len(world._begun) == 1
        live.close()
        await warming
        assert len(world._begun) == 3


@bounded
async def test_the_real_process_drains_when_it_is_told_to_end(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", SERVE, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        port = int(await asyncio.to_thread(process.stdout.readline))
        async with player(f"ws://127.0.0.1:{port}", seed=3) as one:
            shown = await one.walk(WALK[:3])
            process.send_signal(signal.SIGTERM)
            assert (await one.hear("drain"))["world"] == one.world
            assert await one.end() == (1012, "restart")
        assert await asyncio.to_thread(process.wait, 30) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    async with serving(tmp_path) as (_, url), player(url) as other:
        await other.jump("load", world=one.world)
        assert shown + await other.walk(WALK[3:]) == alone(WALK, seed=3)


@bounded
async def test_whoever_asks_by_pings_and_never_reads_is_let_go(tmp_path, monkeypatch):
    monkeypatch.setattr("worldsim_apps.server.MOST_UNREAD", 100_000)
    async with serving(tmp_path) as (server, url), player(url, seed=3) as other:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        head = (
            f"GET /v1/world HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        )
        head += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        writer.write(f"{head}Sec-WebSocket-Protocol: worldsim.v1\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()
        ping = bytes([0x89, 0x80 | 125, 0, 0, 0, 0]) + bytes(125)

        async def ask_for_ever():
            while True:
                writer.write(ping * 100)
                await writer.drain()

        with pytest.raises(ConnectionError):
            await ask_for_ever()
        writer.transport.abort()
        assert len(await other.walk(WALK[:2])) == 2
