"""Whoever comes gets a place, waits for one or is told; and pictures that clients send are unpacked on a thread."""

from __future__ import annotations

import asyncio
import base64
import threading

import cv2
import numpy as np
import pytest

from tests.apps.serving import WALK, alone, bounded, hall_of, settled, walk
from worldsim.errors import ProtocolError
from worldsim.pictures import fit_picture
from worldsim.session.machine import Play
from worldsim.testing.fakes import tiny_world
from worldsim_apps.hall import Hall
from worldsim_apps.room import Room
from worldsim_apps.stage import Stage


async def waiting(hall: Hall, seed: int, *, blocks: int = 2) -> Room:
    """A room whose player has seen something and was lost."""
    room = Room(hall, await Stage.open(hall, seed=seed), "raw", 0.0)
    await walk(room._stage, WALK[:blocks])
    room._play = Play(0.0, 0.0, blocks)
    room._play.connected = False
    room._play.epoch = 1
    return room


async def crowd(hall: Hall) -> list[Stage]:
    """As many as there may be, each with a past that is not remembered to its beginning."""
    stages = [await Stage.open(hall, seed=seed) for seed in range(hall.engine.capacity)]
    for _ in range(3):
        await asyncio.gather(*(walk(stage, WALK) for stage in stages))
    return stages


@bounded
async def test_when_all_places_are_taken_by_somebody_it_is_said_so(tmp_path):
    async with hall_of(tmp_path, sessions=2) as hall:
        stages = [await Stage.open(hall, seed=seed) for seed in range(2)]
        for begin in (lambda: Stage.open(hall), stages[0].fork):
            with pytest.raises(ProtocolError, match="all 2 places are taken; try again in a while") as refused:
                await begin()
            assert "Whoever serves it makes more" in str(refused.value)
            assert str(refused.value).endswith("with --max-sessions 3")
            assert (refused.value.code, refused.value.close, refused.value.retry_after_ms) == ("full", 1013, 2_000)
        for stage in stages:
            await stage.close()


@bounded
async def test_whoever_waits_longest_for_a_lost_player_makes_room_and_is_saved(tmp_path):
    async with hall_of(tmp_path, sessions=3) as hall:
        rooms = [await waiting(hall, seed) for seed in range(3)]
        rooms[0].waits_since, rooms[1].waits_since, rooms[2].waits_since = 30.0, 10.0, 20.0
        worlds = [room._stage.world for room in rooms]
        stage = await Stage.open(hall, seed=9)
        assert set(hall.rooms) == {rooms[0].name, rooms[2].name}
        assert [path.stem for path in tmp_path.glob("*.world")] == [worlds[1]]
        stages = [stage, await Stage.open(hall, seed=8), await Stage.open(hall, seed=7)]
        assert (hall.rooms, hall.engine.open_sessions) == ({}, 3)
        for stage in stages:
            await stage.close()
        stage = await Stage.load(hall, worlds[1])
        assert await walk(stage, WALK[2:]) == alone(WALK, seed=1)[2:]
        await stage.close()


@bounded
async def test_who_is_there_or_is_obeying_makes_no_room(tmp_path):
    async with hall_of(tmp_path, sessions=2) as hall:
        rooms = [await waiting(hall, seed) for seed in range(2)]
        rooms[0].waits_since, rooms[1]._obeys = None, True
        with pytest.raises(ProtocolError, match="all 2 places are taken"):
            await Stage.open(hall)
        assert len(hall.rooms) == 2


@bounded
async def test_of_two_who_come_for_one_place_one_gets_it(tmp_path):
    async with hall_of(tmp_path, sessions=1) as hall:
        await waiting(hall, 3)
        got = await asyncio.gather(*(Stage.open(hall, seed=seed) for seed in range(4)), return_exceptions=True)
        stages = [one for one in got if isinstance(one, Stage)]
        refused = [one for one in got if isinstance(one, ProtocolError)]
        assert (len(stages), [error.code for error in refused]) == (1, ["full"] * 3)
        await stages[0].close()


@bounded
async def test_those_who_come_at_the_same_moment_all_get_in_if_somebody_who_waits_makes_room(tmp_path):
    for lost in (1, 3):
        async with hall_of(tmp_path / str(lost), sessions=3) as hall:
            for seed in range(lost):
                await waiting(hall, seed)
            stages = await asyncio.gather(*(Stage.open(hall, seed=seed) for seed in range(4, 7)))
            assert (hall.rooms, hall.engine.open_sessions) == ({}, 3)
            for stage in stages:
                await stage.close()


@bounded
async def test_of_those_who_wait_no_more_make_room_than_are_needed(tmp_path):
    async with hall_of(tmp_path, sessions=3) as hall:
        rooms = [await waiting(hall, seed) for seed in range(2)]
        rooms[0].waits_since = 30.0
        rooms[1].waits_since = 10.0
        stages = await asyncio.gather(*(Stage.open(hall, seed=seed) for seed in range(4, 6)))
        assert [*hall.rooms] == [rooms[0].name]
        for stage in stages:
            await stage.close()


@bounded
async def test_who_comes_while_a_session_ends_gets_its_place(tmp_path):
    async with hall_of(tmp_path, sessions=1) as hall:
        room = await waiting(hall, 3)
        ending = asyncio.create_task(room.end())
        await settled(lambda: room.is_ending)
        hall.check_place()
        stage = await Stage.open(hall, seed=4)
        await ending
        with pytest.raises(ProtocolError, match="all 1 places are taken"):
            hall.check_place()
        await stage.close()


@bounded
async def test_a_fork_for_which_there_is_never_a_place_is_refused_for_good(tmp_path):
    async with hall_of(tmp_path, sessions=1) as hall:
        stage = await Stage.open(hall)
        with pytest.raises(ProtocolError, match="a fork takes a place of its own, and this server has 1") as refused:
            await stage.fork()
        assert str(refused.value).endswith("with --max-sessions 2")
        assert (refused.value.code, refused.value.close, refused.value.retry_after_ms) == ("full", None, None)
        await stage.close()


@bounded
async def test_when_all_places_are_taken_everybody_can_begin_anew_at_once(tmp_path):
    async with hall_of(tmp_path, world=tiny_world(pages=35)) as hall:
        stages = await crowd(hall)
        assert len(stages) == 4

        async def anew(stage: Stage, seed: int) -> None:
            await stage.become(await Stage.open(hall, seed=seed, instead=True))

        for seed in range(3):
            await asyncio.gather(*(anew(stage, seed) for stage in stages))
            await asyncio.gather(*(walk(stage, WALK) for stage in stages))
        assert hall.engine.open_sessions == 4
        for stage in stages:
            await stage.close()


@bounded
async def test_when_all_places_are_taken_everybody_can_go_over_to_another_world_at_once(tmp_path):
    """To one that was saved, and to one that has to be lived again."""
    async with hall_of(tmp_path, world=tiny_world(pages=35)) as hall:
        stages = await crowd(hall)
        saved, logged = await stages[0].save(), stages[0].world

        async def load(stage: Stage, name: str) -> None:
            await stage.become(await Stage.load(hall, name, instead=True))

        for name in (saved, logged):
            await asyncio.gather(*(load(stage, name) for stage in stages))
            assert [stage.block for stage in stages] == [24] * 4
        assert hall.engine.open_sessions == 4
        for stage in stages:
            await stage.close()


@bounded
async def test_who_waits_for_memory_gets_it_when_a_past_is_not_wanted_any_more(tmp_path, monkeypatch):
    monkeypatch.setattr("worldsim_apps.hall.TURN_S", 8.0)
    async with hall_of(tmp_path, world=tiny_world(pages=21)) as hall:
        stages = await crowd(hall)
        lived = Stage.load(hall, stages[0].world, instead=True, wanted=lambda done, of: done < 20)
        left = asyncio.create_task(lived)
        await settled(lambda: hall.engine.open_sessions == 3)
        anew = asyncio.create_task(Stage.open(hall, seed=9, instead=True))
        with pytest.raises(ProtocolError, match="nobody waits for that world any more"):
            await left
        await stages[1].become(await anew)
        for stage in stages:
            await stage.close()


@bounded
async def test_who_waits_too_long_for_the_memory_of_another_world_stays_and_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("worldsim_apps.hall.TURN_S", 0.05)
    async with hall_of(tmp_path, world=tiny_world(pages=21)) as hall:
        stages = [await Stage.open(hall, seed=seed) for seed in range(2)]
        other = await Stage.open(hall, seed=8, instead=True)
        with pytest.raises(ProtocolError, match="no memory to go over to another world while others do") as refused:
            await Stage.open(hall, seed=9, instead=True)
        assert (refused.value.code, refused.value.close, refused.value.retry_after_ms) == ("full", None, 2_000)
        assert (len(list(tmp_path.iterdir())), hall.engine.open_sessions) == (3, 3)
        await stages[0].become(other)
        await stages[1].become(await Stage.open(hall, seed=9, instead=True))
        assert await walk(stages[1], WALK[:2]) == alone(WALK[:2], seed=9)
        for stage in stages:
            await stage.close()


@bounded
async def test_work_that_takes_long_does_not_hold_up_the_thread_of_the_connections(tmp_path):
    async with hall_of(tmp_path) as hall:
        go_on, seen = asyncio.Event(), asyncio.get_running_loop()
        work = asyncio.create_task(hall.work(lambda: asyncio.run_coroutine_threadsafe(go_on.wait(), seen).result(20)))
        await settled(lambda: True)
        go_on.set()
        assert await work is True


@bounded
async def test_a_hall_has_all_its_threads_from_the_beginning(tmp_path):
    async with hall_of(tmp_path) as hall:
        before = threading.active_count()
        stages = [await Stage.open(hall, seed=seed) for seed in range(4)]
        await asyncio.gather(*(walk(stage, WALK[:2]) for stage in stages), *(stage.save() for stage in stages))
        await asyncio.gather(*(stage.close() for stage in stages))
        assert threading.active_count() == before


@bounded
@pytest.mark.parametrize("aspect", [(1, 1), (3, 1), (1, 3)])
async def test_a_picture_that_a_client_sends_is_cut_to_the_aspect_of_the_world(tmp_path, aspect):
    sent = np.random.default_rng(4).integers(0, 256, (20 * aspect[0], 20 * aspect[1], 3), np.uint8)
    image = base64.b64encode(cv2.imencode(".png", sent[..., ::-1])[1].tobytes()).decode()
    async with hall_of(tmp_path) as hall:
        shown = await hall.picture_of(image)
    assert np.array_equal(shown, fit_picture(sent, tiny_world().size))


@bounded
@pytest.mark.parametrize("image", ["no base64", base64.b64encode(b"no picture").decode()])
async def test_what_is_no_picture_is_refused(tmp_path, image):
    async with hall_of(tmp_path) as hall:
        with pytest.raises(ProtocolError, match="PNG or") as refused:
            await hall.picture_of(image)
    assert refused.value.code == "bad_image"
