"""A world that is told in words what to show, over real connections: who tells it, who sees that, and what is kept."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.apps.serving import Talk, bounded, doubled_world, player, serving, talk
from worldsim.decoding.prompting import PromptChange
from worldsim.runtime.journal import read_log
from worldsim.runtime.session import Session
from worldsim.runtime.world import World
from worldsim.session.events import MOST_PROMPT
from worldsim.testing.fakes import MOST_WORDS, tiny_world, told_world
from worldsim_apps.stage import Stage

WOOD, LAKE, HILL = "a wood", "a lake by night", "a bare hill under the moon"
KEYS = frozenset({"KeyD"})


def frames(session: Session, blocks: int) -> list[bytes]:
    return [frame.tobytes() for _ in range(blocks) for frame in session.step(KEYS).frames]


def lived(*told: tuple[str, int, int], world: World | None = None, seed: int = 3) -> list[bytes]:
    """The payloads of blocks that nobody served: what was told, over how many blocks, and how many were made then."""
    (first, _, blocks), *later = told
    with (world or told_world()).open(seed=seed, prompt=first) as session:
        shown = frames(session, blocks)
        for prompt, over, more in later:
            session.set_prompt(prompt, over=over)
            shown += frames(session, more)
    return shown


async def tell(one: Talk, text: str, **fields: Any) -> dict[str, Any]:
    """What a prompt is answered with."""
    await one.say("prompt", text=text, **fields)
    return await one.hear("state")


async def walk(one: Talk, blocks: int) -> list[bytes]:
    return await one.walk([KEYS] * blocks)


@bounded
async def test_the_welcome_says_whether_a_world_is_told(tmp_path):
    for world, is_told in ((told_world(), True), (tiny_world(), False)):
        async with serving(tmp_path, world=world) as (_, url), talk(url) as one:
            await one.say("hello")
            welcome = await one.hear("welcome")
            assert welcome["prompts"] is is_told
            assert welcome["limits"]["prompt_characters"] == MOST_PROMPT


@bounded
async def test_a_session_begins_with_a_prompt_and_hears_another_from_the_next_block_on(tmp_path):
    async with serving(tmp_path, world=told_world()) as (_, url), player(url, seed=3, prompt=WOOD) as one:
        shown = await walk(one, 2)
        told = await tell(one, LAKE)
        assert (told["prompt"], told["blocks"], told["epoch"], told["paused"]) == (LAKE, 2, 1, True)
        shown += await walk(one, 2)
        assert shown == lived((WOOD, 1, 2), (LAKE, 1, 2))
        assert shown[4:] != lived((WOOD, 1, 4))[4:]


@bounded
async def test_how_much_of_a_prompt_is_not_heard_is_told_to_whoever_says_or_sees_it(tmp_path):
    long = "tree " * (MOST_WORDS + 7)
    async with (
        serving(tmp_path, world=told_world()) as (_, url),
        player(url, prompt=long) as one,
        talk(url, role="spectator", session=one.session) as other,
    ):
        assert (await other.hear("watching"))["left_out"] == 7
        assert (await one.ask("look"))["left_out"] == 7
        assert (await tell(one, LAKE))["left_out"] == 0
        assert (await tell(one, f"{long} and a lake"))["left_out"] == 10
        assert [(await other.hear("state"))["left_out"] for _ in range(2)] == [0, 10]


@bounded
async def test_a_prompt_takes_effect_over_as_many_blocks_as_were_asked_for(tmp_path):
    async with serving(tmp_path, world=told_world()) as (_, url), player(url, seed=3, prompt=WOOD) as one:
        shown = await walk(one, 1)
        await tell(one, LAKE, over=3)
        shown += await walk(one, 4)
        assert shown == lived((WOOD, 1, 1), (LAKE, 3, 4))
        assert shown != lived((WOOD, 1, 1), (LAKE, 1, 4))


@bounded
async def test_who_begins_without_a_prompt_is_shown_nothing_in_particular(tmp_path):
    async with serving(tmp_path, world=told_world()) as (_, url), talk(url, role="player") as one:
        await one.say("start", seed=3)
        assert (await one.hear("started"))["prompt"] == ""


@bounded
async def test_who_asks_for_a_starting_place_of_a_world_without_any_is_told_what_a_client_can_say(tmp_path):
    async with serving(tmp_path, world=told_world()) as (_, url), talk(url, role="player") as one:
        await one.say("start", start=0)
        told = await one.hear("error")
        assert (told["to"], told["code"], told["retryable"]) == ("start", "bad_field", False)
        assert told["message"] == "told has no starting places, got start 0; leave start out, or send an image"
        await one.say("start", seed=3)
        await one.hear("started")
        assert "leave start out, or send an image" in await one.refused("reset", "bad_field", start=2)


@bounded
async def test_the_newest_of_two_prompts_before_a_block_is_the_one_it_hears(tmp_path):
    async with serving(tmp_path, world=told_world()) as (_, url), player(url, seed=3, prompt=WOOD) as one:
        await tell(one, LAKE, over=4)
        await tell(one, HILL)
        assert await walk(one, 2) == lived((HILL, 1, 2))


@bounded
async def test_spectators_are_told_what_a_world_is_told_and_may_not_tell_it_anything(tmp_path):
    async with (
        serving(tmp_path, world=told_world()) as (_, url),
        player(url, seed=3, prompt=WOOD) as one,
        talk(url, role="spectator", session=one.session) as other,
    ):
        assert (await other.hear("watching"))["prompt"] == WOOD
        await walk(one, 1)
        await tell(one, LAKE)
        told = await other.hear("state")
        assert (told["prompt"], told["blocks"]) == (LAKE, 1)
        await other.say("prompt", text=HILL)
        assert (await other.hear("error"))["code"] == "not_yours"
        assert (await one.ask("look"))["prompt"] == LAKE


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, "bad_field"),
        ({"text": 3}, "bad_field"),
        ({"text": "x" * (MOST_PROMPT + 1)}, "bad_field"),
        ({"text": LAKE, "over": -1}, "bad_field"),
        ({"text": LAKE, "over": 10**7}, "bad_field"),
        ({"text": LAKE, "over": 0}, "ConfigError"),
        ({"text": "half a character: \ud83c"}, "ConfigError"),
    ],
)
def test_what_is_no_prompt_is_an_error_and_the_world_goes_on(tmp_path, fields, code):
    @bounded
    async def live():
        async with serving(tmp_path, world=told_world()) as (_, url), player(url, seed=3, prompt=WOOD) as one:
            await one.say("prompt", **fields)
            told = await one.hear("error")
            assert (told["to"], told["code"], told["retryable"]) == ("prompt", code, False)
            assert (await one.ask("look"))["prompt"] == WOOD
            await one.frame()
            assert await walk(one, 2) == lived((WOOD, 1, 2))

    live()


@bounded
async def test_nothing_is_told_before_a_session_begins(tmp_path):
    async with serving(tmp_path, world=told_world()) as (_, url), talk(url, role="player") as one:
        await one.say("prompt", text=WOOD)
        assert (await one.hear("error"))["code"] == "no_session"


@bounded
async def test_a_world_that_is_steered_by_keys_alone_says_so_wherever_it_is_told_something(tmp_path):
    async with serving(tmp_path) as (_, url), talk(url, role="player") as one:
        await one.say("start", prompt=WOOD)
        told = await one.hear("error")
        assert (told["to"], told["code"], told["message"]) == ("start", "no_prompts", "dot is steered by keys alone")
        await one.say("start", seed=3)
        assert (await one.hear("started"))["prompt"] is None
        await one.say("prompt", text=WOOD)
        told = await one.hear("error")
        assert (told["to"], told["code"]) == ("prompt", "no_prompts")
        assert "keys alone" in await one.refused("reset", "no_prompts", prompt=WOOD)
        assert (await one.ask("reset"))["prompt"] is None


@pytest.mark.parametrize("change", [PromptChange(), PromptChange(sink=1, recent=2), PromptChange(anew=3)])
def test_time_goes_back_to_what_was_told_then_and_a_fork_hears_what_this_hears(tmp_path, change):
    world = told_world(on_prompt=change)

    @bounded
    async def live():
        async with serving(tmp_path, world=world) as (_, url), player(url, seed=3, prompt=WOOD) as one:
            shown = await walk(one, 2)
            await tell(one, LAKE, over=2)
            shown += await walk(one, 1)
            mark = (await one.ask("mark", "marked"))["mark"]
            forked = await one.ask("fork", "forked")
            shown += await walk(one, 2)
            told = (WOOD, 1, 2), (LAKE, 2, 3)
            assert shown == lived(*told, world=told_world(on_prompt=change))
            assert (await one.jump("rewind", blocks=4))["prompt"] == WOOD
            assert await walk(one, 1) == shown[2:4]
            assert (await one.jump("rewind", mark=mark))["prompt"] == LAKE
            assert await walk(one, 2) == shown[6:]
            ticket = {"session": forked["session"], "resume": forked["resume"]}
            async with talk(url, role="player", **ticket) as twin:
                assert (await twin.hear("started"))["prompt"] == LAKE
                made = (await twin.ask("pause"))["blocks"]
                await twin.jump("rewind", blocks=made - 3)
                assert await walk(twin, 2) == shown[6:]

    live()


@bounded
async def test_what_no_block_has_heard_is_heard_after_time_went_back_and_by_a_fork(tmp_path):
    async with serving(tmp_path, world=told_world()) as (server, url), player(url, seed=3, prompt=WOOD) as one:
        shown = await walk(one, 3)
        (room,) = server.hall.rooms.values()
        await tell(one, LAKE)
        forked = await one.ask("fork", "forked")
        assert server.hall.rooms[forked["session"]]._stage.prompt == LAKE
        assert (await one.jump("rewind", blocks=1))["prompt"] == LAKE
        assert await walk(one, 1) == lived((WOOD, 1, 2), (LAKE, 1, 1))[4:]
        await tell(one, HILL)
        await room._stage._do(lambda session: session.forget())
        assert (await one.jump("rewind", blocks=2))["prompt"] == HILL  # a time that has to be lived again
        assert await walk(one, 2) == lived((WOOD, 1, 1), (HILL, 1, 2))[2:]
        assert shown == lived((WOOD, 1, 3))
        await tell(one, LAKE)
        world = (await one.ask("save", "saved"))["world"]
        await tell(one, WOOD)
        assert (await one.jump("load", world=world))["prompt"] == LAKE
        assert await walk(one, 1) == lived((WOOD, 1, 1), (HILL, 1, 2), (LAKE, 1, 1))[6:]


@bounded
async def test_a_rewind_to_a_mark_brings_back_what_was_still_to_be_heard_there_and_nothing_else(tmp_path):
    async with serving(tmp_path, world=told_world()) as (server, url), player(url, seed=3, prompt=WOOD) as one:
        (room,) = server.hall.rooms.values()
        await walk(one, 1)
        silent = (await one.ask("mark", "marked"))["mark"]
        await tell(one, LAKE, over=2)
        told = (await one.ask("mark", "marked"))["mark"]
        expected = {silent: (WOOD, lived((WOOD, 1, 3))[2:]), told: (LAKE, lived((WOOD, 1, 1), (LAKE, 2, 2))[2:])}
        for lost in ("nothing", "the memory of marks", "the memory of blocks"):
            for mark in (told, silent, told):
                if lost != "nothing":
                    await room._stage._drop()
                if lost == "the memory of blocks":
                    await room._stage._do(lambda session: session.forget())
                await tell(one, HILL)
                assert (await one.jump("rewind", mark=mark))["prompt"] == expected[mark][0]
                assert await walk(one, 2) == expected[mark][1]


@bounded
async def test_what_no_block_has_heard_is_heard_by_a_world_that_is_loaded_unless_later_blocks_were_made(tmp_path):
    async with serving(tmp_path, world=told_world()) as (server, url), player(url, seed=3, prompt=WOOD) as one:
        (room,) = server.hall.rooms.values()
        await walk(one, 1)
        await tell(one, LAKE, over=3)
        await room._stage.put_away()
        world = room._stage.world
        copy_world(tmp_path, world, "0" * 32)
        await walk(one, 1)
        await one.jump("rewind", blocks=1)
        shown = await walk(one, 1)
        assert shown == lived((WOOD, 1, 2))[2:]
        copy_world(tmp_path, world, "1" * 32)
        assert (await one.jump("load", world="0" * 32))["prompt"] == LAKE
        assert await walk(one, 2) == lived((WOOD, 1, 1), (LAKE, 3, 2))[2:]
        told = await one.jump("load", world="1" * 32)
        assert (told["prompt"], told["blocks"]) == (WOOD, 2)
        assert await walk(one, 1) == lived((WOOD, 1, 3))[4:]


@pytest.mark.parametrize("is_remembered", [True, False])
def test_a_prompt_whose_first_block_nobody_could_be_shown_is_heard_by_the_one_in_its_place(tmp_path, is_remembered):
    class Broken:
        """An encoder that fails; what could be gone back to at once may be forgotten by then."""

        def __init__(self, stage: Stage) -> None:
            self._stage = stage

        def encode(self, frames: Any) -> list[bytes]:
            if not is_remembered:
                self._stage.live.do(lambda session: session.forget()).result(20)
            raise RuntimeError("broken")

    @bounded
    async def live() -> None:
        async with serving(tmp_path, world=told_world()) as (server, url), player(url, seed=3, prompt=WOOD) as one:
            (room,) = server.hall.rooms.values()
            await walk(one, 2)
            await tell(one, LAKE, over=3)
            for _ in range(2):
                room._encoders[room.codec] = Broken(room._stage)
                await one.ask("step", blocks=1)
                told = await one.hear("error")
                assert (told["code"], told["blocks"], told["prompt"]) == ("block_failed", 2, LAKE)
            assert await walk(one, 3) == lived((WOOD, 1, 2), (LAKE, 3, 3))[4:]
            room._encoders[room.codec] = Broken(room._stage)
            await one.ask("step", blocks=1)
            assert (await one.hear("error"))["prompt"] == LAKE
            assert await walk(one, 1) == lived((WOOD, 1, 2), (LAKE, 3, 4))[10:], "it is not told anew"
            log = read_log(server.hall.kept.log(room._stage.world))
            assert [(step.prompt, step.over) for step in log.steps] == [(None, 1)] * 2 + [(LAKE, 3)] + [(None, 1)] * 3

    live()


@bounded
async def test_what_is_lived_again_hears_what_it_heard(tmp_path):
    async with serving(tmp_path, world=told_world()) as (server, url), player(url, seed=3, prompt=WOOD) as one:
        (room,) = server.hall.rooms.values()
        shown = await walk(one, 1)
        await tell(one, LAKE, over=3)
        shown += await walk(one, 3)
        await tell(one, HILL)
        shown += await walk(one, 1)
        await room._stage._do(lambda session: session.forget())
        told = await one.jump("rewind", blocks=2)
        assert (told["prompt"], told["exact"]) == (LAKE, True)
        assert await walk(one, 1) == shown[6:8] == lived((WOOD, 1, 1), (LAKE, 3, 3))[6:]


@bounded
async def test_a_world_that_was_saved_or_of_which_the_log_is_left_goes_on_hearing_what_it_heard(tmp_path):
    expected = lived((WOOD, 1, 1), (LAKE, 3, 4))
    async with serving(tmp_path, world=told_world()) as (_, url), player(url, seed=3, prompt=WOOD) as one:
        await walk(one, 1)
        await tell(one, LAKE, over=3)
        await walk(one, 1)
        world = (await one.ask("save", "saved"))["world"]
        log = (await one.ask("look"))["world"]
        await one.frame()
        copy_log(tmp_path, log, "0" * 32)
        await walk(one, 1)
        for kept in (world, "0" * 32):
            told = await one.jump("load", world=kept)
            assert (told["prompt"], told["blocks"], told["exact"]) == (LAKE, 2, True)
            assert await walk(one, 3) == expected[4:]


def copy_world(folder: Path, name: str, other: str) -> None:
    copy_log(folder, name, other)
    shutil.copy(folder / f"{name}.world", folder / f"{other}.world")


def copy_log(folder: Path, name: str, other: str) -> None:
    shutil.copy(folder / f"{name}.log", folder / f"{other}.log")


@bounded
async def test_who_comes_back_is_told_what_the_world_is_told(tmp_path):
    async with serving(tmp_path, world=told_world()) as (_, url), player(url, seed=3, prompt=WOOD) as one:
        await walk(one, 1)
        await tell(one, LAKE)
        await one.say("ping", t=1)
        await one.hear("pong")
        one.connection.transport.abort()
        async with talk(url, role="player", session=one.session, resume=one.resume, epoch=1, blocks=1) as again:
            assert (await again.hear("started"))["prompt"] == LAKE
            assert await walk(again, 1) == lived((WOOD, 1, 1), (LAKE, 1, 1))[2:]


@bounded
async def test_who_begins_anew_is_shown_what_was_told_last_or_what_is_told_now(tmp_path):
    async with serving(tmp_path, world=told_world()) as (_, url), player(url, seed=3, prompt=WOOD) as one:
        await walk(one, 1)
        await tell(one, LAKE)
        assert (await one.jump("reset", seed=5))["prompt"] == LAKE
        assert await walk(one, 2) == lived((LAKE, 1, 2), seed=5)
        assert (await one.jump("reset", seed=5, prompt=HILL))["prompt"] == HILL
        assert await walk(one, 1) == lived((HILL, 1, 1), seed=5)
        assert (await one.jump("reset", seed=5, prompt=""))["prompt"] == ""
        assert await walk(one, 1) == lived(("", 1, 1), seed=5)


@bounded
async def test_prompts_are_heard_in_their_order_among_verbs(tmp_path):
    async with serving(tmp_path, world=told_world()) as (_, url), player(url, seed=3, prompt=WOOD) as one:
        await one.hold(*KEYS)
        told: Sequence[tuple[str, dict[str, Any]]] = (
            ("prompt", {"text": LAKE}),
            ("control", {"op": "mark"}),
            ("prompt", {"text": HILL}),
            ("control", {"op": "step"}),
        )
        for kind, fields in told:
            await one.say(kind, **fields)
        assert (await one.hear("state"))["prompt"] == LAKE
        await one.hear("marked")
        assert [(await one.hear("state"))["prompt"] for _ in range(2)] == [HILL, HILL]
        assert await one.play(1) == lived((HILL, 1, 1))


@pytest.mark.parametrize("codec", ["raw", "jpeg", "h264"])
def test_a_world_whose_first_block_is_shorter_is_played_gone_back_in_and_filmed(tmp_path, codec):
    @bounded
    async def live():
        async with (
            serving(tmp_path, world=doubled_world()) as (_, url),
            talk(url, role="player", codecs=[codec]) as one,
        ):
            await one.say("start", seed=3, pace=0)
            await one.hear("started")
            await one.jump("rewind", blocks=(await one.ask("pause"))["blocks"])
            film = (await one.ask("record", "recording"))["film"]
            await one.say("tell", seen=True)
            await one.ask("step", blocks=2)
            media = [await one.frame() for _ in range(7)]
            assert [(frame.block, frame.frame, frame.frames) for frame in media] == [
                *((0, at, 3) for at in range(3)),
                *((1, at, 4) for at in range(4)),
            ]
            assert [frame.time_us for frame in media] == [250_000 * at for at in range(1, 8)]
            assert media[3].seen == ((range(4), False),)
            await one.say("ack", epoch=1, blocks=2)
            ended = await one.ask("record", "recorded", on=False)
            assert (ended["name"], ended["seconds"], ended["problem"]) == (film, 1.75, "")
            await one.jump("rewind", blocks=1)
            await one.ask("step")
            again = [await one.frame() for _ in range(4)]
            assert [(frame.codec, frame.time_us) for frame in again] == [(codec, frame.time_us) for frame in media[3:]]
            if codec != "h264":  # of which bytes depend on all that was encoded before
                assert [frame.payload for frame in again] == [frame.payload for frame in media[3:]]
            assert (await one.ask("look"))["blocks"] == 2

    live()
