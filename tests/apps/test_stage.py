"""What is done to a session between two blocks succeeds or leaves it as it was."""

from __future__ import annotations

import asyncio

import av
import numpy as np
import pytest

from tests.apps.serving import WALK, alone, bounded, hall_of, walk
from worldsim.errors import ConfigError, LogError, ProtocolError, SessionClosed, VideoError
from worldsim.runtime.recording import Recording
from worldsim.runtime.video import VideoWriter
from worldsim.testing.fakes import tiny_world
from worldsim_apps.stage import Film, Stage, refusal_of


@bounded
async def test_a_stage_shows_what_a_session_shows(tmp_path):
    async with hall_of(tmp_path) as hall:
        stage = await Stage.open(hall, seed=3)
        assert await walk(stage, WALK) == alone(WALK, seed=3)
        assert (stage.block, hall.engine.open_sessions) == (8, 1)
        await stage.close()
        assert hall.engine.open_sessions == 0
        assert [path.name for path in tmp_path.iterdir()] == [f"{stage.world}.log"]
        with pytest.raises(SessionClosed):
            await stage.step(())


@bounded
async def test_what_is_forgotten_leaves_no_file(tmp_path):
    async with hall_of(tmp_path) as hall:
        stage = await Stage.open(hall, seed=3)
        await walk(stage, WALK[:2])
        await stage.forget()
        assert (list(tmp_path.iterdir()), hall.engine.open_sessions) == ([], 0)


@bounded
async def test_a_beginning_that_fails_takes_no_place_and_leaves_no_file(tmp_path):
    async with hall_of(tmp_path, sessions=1) as hall:
        for _ in range(3):
            with pytest.raises(ConfigError, match="no starting place 5"):
                await Stage.open(hall, start=5)
            with pytest.raises(ProtocolError, match="no world is kept under"):
                await Stage.load(hall, "0" * 32)
        assert (list(tmp_path.iterdir()), hall.engine.open_sessions) == ([], 0)


@bounded
async def test_a_mark_holds_no_memory_and_is_found_again(tmp_path):
    async with hall_of(tmp_path) as hall:
        stage = await Stage.open(hall, seed=3)
        shown = await walk(stage, WALK[:3])
        used = hall.engine.world.pool.used
        assert [await stage.mark(), await stage.mark()] == [0, 1]
        assert hall.engine.world.pool.used == used
        shown += await walk(stage, WALK[3:])
        world = stage.world
        await stage.go_to(1)
        assert (stage.block, stage.world) == (3, world)
        assert await walk(stage, WALK[3:]) == shown[3:]
        for wrong in (2, 99):
            with pytest.raises(ProtocolError, match=f"there is no mark {wrong}; marks are numbered from 0"):
                await stage.go_to(wrong)
        await stage.close()


@bounded
async def test_a_mark_on_a_branch_that_was_left_is_lived_again_in_place_of_this_one(tmp_path, monkeypatch):
    monkeypatch.setattr("worldsim_apps.stage.HELD_MARKS", 0)
    async with hall_of(tmp_path, world=tiny_world(pages=21), sessions=1) as hall:
        stage = await Stage.open(hall, seed=3)
        assert await stage.mark() == 0
        await walk(stage, WALK[:5])
        assert await stage.mark() == 1
        rest, world = await walk(stage, WALK[5:]), stage.world
        await stage.rewind(6)
        await walk(stage, [{"Space"}] * 5)
        await stage.go_to(1)
        assert (stage.block, hall.engine.open_sessions) == (5, 1)
        assert stage.world != world
        assert await walk(stage, WALK[5:]) == rest
        await stage.become(await Stage.open(hall, seed=8, instead=True))
        assert await walk(stage, WALK[:2]) == alone(WALK[:2], seed=8)
        await stage.go_to(0)
        assert await walk(stage, WALK) == alone(WALK, seed=3)
        await stage.go_to(1)
        assert await walk(stage, WALK[5:]) == rest
        await stage.close()


@bounded
async def test_there_are_only_so_many_marks(tmp_path, monkeypatch):
    monkeypatch.setattr("worldsim_apps.stage.MOST_MARKS", 3)
    async with hall_of(tmp_path) as hall:
        stage = await Stage.open(hall, seed=3)
        assert [await stage.mark() for _ in range(3)] == [0, 1, 2]
        with pytest.raises(ProtocolError, match="a session has at most 3 marks") as refused:
            await stage.mark()
        assert (refused.value.code, refused.value.close) == ("too_many", None)
        await stage.close()


@bounded
async def test_going_back_further_than_is_remembered_lives_it_again(tmp_path):
    async with hall_of(tmp_path, world=tiny_world(pages=16), sessions=1) as hall:
        stage, keys = await Stage.open(hall, seed=3), [*WALK] * 3
        shown, world = await walk(stage, keys), stage.world
        remembered = stage.live.session.remembered
        assert remembered < 20
        await stage.rewind(remembered)
        assert (stage.world, stage.block) == (world, 24 - remembered)
        await stage.rewind(stage.block - 2)
        assert stage.world != world
        assert await walk(stage, keys[2:]) == shown[2:]
        with pytest.raises(ConfigError, match="24 blocks have been made"):
            await stage.rewind(25)
        assert (stage.block, hall.engine.open_sessions) == (24, 1)
        await stage.close()


@bounded
async def test_a_past_that_is_not_wanted_any_more_changes_nothing_and_leaves_no_file(tmp_path):
    async with hall_of(tmp_path, world=tiny_world(pages=16), sessions=1) as hall:
        stage, keys = await Stage.open(hall, seed=3), [*WALK] * 3
        shown, world, asked = await walk(stage, keys[:23]), stage.world, iter([True, False])
        stage.wanted = lambda done, of: of == 3 and next(asked)
        with pytest.raises(ProtocolError, match="nobody waits for that world any more"):
            await stage.rewind(20)
        await stage.put_away()
        assert (stage.world, stage.block, hall.engine.open_sessions) == (world, 23, 1)
        assert sorted(path.name for path in tmp_path.iterdir()) == [f"{world}.log", f"{world}.world"]
        assert shown + await walk(stage, keys[23:]) == alone(keys, seed=3)
        await stage.close()


@bounded
async def test_a_past_that_does_not_come_out_the_same_says_that_it_is_not_exact(tmp_path, monkeypatch):
    async with hall_of(tmp_path, world=tiny_world(pages=16), sessions=1) as hall:
        stage, keys = await Stage.open(hall, seed=3), [*WALK] * 3
        await walk(stage, keys[:23])
        await stage.rewind(20)
        assert (stage.block, stage.exact) == (3, True)
        await walk(stage, keys[3:23])
        with monkeypatch.context() as patch:
            patch.setattr("worldsim.runtime.session.Session.latest", property(lambda _: None))
            await stage.rewind(20)
        assert (stage.block, stage.exact) == (3, False)
        await stage.close()


@bounded
async def test_the_newest_marks_are_gone_to_at_once_wherever_the_session_is_and_hold_nothing_after_it(tmp_path):
    async with hall_of(tmp_path) as hall:
        stage = await Stage.open(hall, seed=3)
        shown = []
        for keys in WALK[:6]:
            await stage.mark()
            shown += await walk(stage, [keys])
        world, rest = stage.world, await walk(stage, WALK[6:])
        for mark in (5, 2, 4, 3, 5):
            await stage.go_to(mark)
            assert (stage.block, stage.world) == (mark, world)
            assert await walk(stage, WALK[mark:]) == [*shown[mark:], *rest]
        await stage.go_to(1)  # too old to be held, but remembered
        assert stage.block == 1
        assert await walk(stage, WALK[1:]) == [*shown[1:], *rest]
        await stage.close()


@bounded
async def test_others_make_their_blocks_while_a_past_is_lived_again(tmp_path, monkeypatch):
    monkeypatch.setattr("worldsim_apps.stage.HELD_MARKS", 0)
    async with hall_of(tmp_path) as hall:
        stage, other = await Stage.open(hall, seed=3), await Stage.open(hall, seed=4)
        await walk(stage, [*WALK] * 3)
        await stage.mark()
        await stage.rewind(20)
        await walk(stage, WALK)
        left = asyncio.create_task(stage.go_to(0))
        blocks = 0
        while not left.done():
            await other.step(())
            blocks += 1
        assert blocks > 1
        assert left.exception() is None
        await stage.close()
        await other.close()


@bounded
async def test_a_saved_world_goes_on_at_once_and_one_that_was_only_logged_is_lived_again(tmp_path):
    async with hall_of(tmp_path) as hall:
        stage = await Stage.open(hall, seed=3)
        await walk(stage, WALK[:3])
        name = await stage.save()
        await stage.put_away()
        rest, world = await walk(stage, WALK[3:]), stage.world
        await stage.close()
        saved = await Stage.load(hall, name)
        assert (saved.block, saved.exact, len({saved.world, world, name})) == (3, True, 3)
        assert await walk(saved, WALK[3:]) == rest
        await saved.close()
        beyond = await Stage.load(hall, world)  # where it was put away, and what its log has beyond that
        assert (beyond.block, beyond.exact) == (8, True)
        assert await walk(beyond, WALK[:1]) == alone([*WALK, WALK[0]], seed=3)[-1:]
        await beyond.close()
        (tmp_path / f"{world}.world").unlink()
        lived = await Stage.load(hall, world)
        assert lived.block == 8
        assert await walk(lived, WALK[:1]) == alone([*WALK, WALK[0]], seed=3)[-1:]
        await lived.close()


@bounded
async def test_a_log_of_another_world_is_refused(tmp_path):
    async with hall_of(tmp_path, world=tiny_world(frames_per_block=2)) as hall:
        stage = await Stage.open(hall, seed=3)
        await walk(stage, WALK[:2])
        await stage.put_away()
        await stage.close()
    for saved in (True, False):
        if not saved:
            (tmp_path / f"{stage.world}.world").unlink()
        async with hall_of(tmp_path) as hall:
            with pytest.raises(LogError, match="lived with frames_per_block 2, here it is 1; load the world"):
                await Stage.load(hall, stage.world)
            assert hall.engine.open_sessions == 0


@bounded
async def test_a_fork_has_a_name_and_a_log_of_its_own(tmp_path):
    async with hall_of(tmp_path) as hall:
        stage = await Stage.open(hall, seed=3)
        await walk(stage, WALK[:3])
        await stage.mark()
        twin = await stage.fork()
        assert (twin.block, twin.world != stage.world) == (3, True)
        with pytest.raises(ProtocolError, match="there is no mark 0"):
            await twin.go_to(0)
        rest = await walk(stage, WALK[3:])
        await stage.forget()
        assert await walk(twin, WALK[3:]) == rest
        await twin.close()
        lived = await Stage.load(hall, twin.world)
        assert lived.block == 8
        await lived.close()


@bounded
async def test_a_world_is_begun_from_given_frames(tmp_path):
    picture = np.arange(180, dtype=np.uint8).reshape(1, 6, 10, 3)
    async with hall_of(tmp_path) as hall:
        stage = await Stage.open(hall, seed=3, frames=picture)
        assert await walk(stage, WALK) == alone(WALK, seed=3, frames=picture)
        await stage.close()


@bounded
async def test_a_film_has_the_blocks_between_its_begin_and_its_end(tmp_path):
    async with hall_of(tmp_path) as hall:
        stage = await Stage.open(hall, seed=3)
        await walk(stage, WALK[:2])
        with pytest.raises(ProtocolError, match="not being recorded"):
            await stage.end_film()
        name = await stage.record()
        with pytest.raises(ProtocolError, match="this session is being recorded"):
            await stage.record()
        await walk(stage, WALK[2:6])
        made, path = 4 * hall.engine.world.frames_per_block, hall.kept.film(name)
        film = await stage.end_film()
        assert film == Film(name=name, seconds=made / hall.engine.world.fps, bytes=path.stat().st_size, problem="")
        with av.open(str(path)) as container:
            assert len(list(container.decode(video=0))) == made
        assert hall.kept.size >= film.bytes
        await stage.close()


@bounded
async def test_a_film_ends_with_the_session_that_it_is_of_and_that_can_be_told(tmp_path):
    async with hall_of(tmp_path) as hall:
        stage = await Stage.open(hall, seed=3)
        name = await stage.record()
        await walk(stage, WALK[:4])
        await stage.become(await Stage.open(hall, seed=4, instead=True))
        await walk(stage, WALK[:4])
        assert stage.ended_film is not None
        assert (stage.ended_film.name, stage.ended_film.problem) == (name, "")
        with av.open(str(hall.kept.film(name))) as container:
            assert len(list(container.decode(video=0))) == 4 * hall.engine.world.frames_per_block
        await stage.record()
        await stage.close()


@bounded
async def test_a_film_that_cannot_be_written_holds_up_neither_a_jump_nor_the_end_of_its_session(tmp_path, monkeypatch):
    close = Recording.close

    def full(recording: Recording) -> None:
        was_over = recording.over
        close(recording)
        if not was_over:
            raise VideoError(f"{recording.path}: the disk is full; 2 seconds are safe")

    async with hall_of(tmp_path) as hall:
        stage = await Stage.open(hall, seed=3)
        monkeypatch.setattr(Recording, "close", full)
        await stage.record()
        film = await stage.end_film()
        assert film.problem == "the film: the disk is full; 2 seconds are safe"
        await stage.record()
        await stage.become(await Stage.open(hall, seed=4, instead=True))
        assert stage.ended_film.problem == film.problem
        await stage.record()
        await stage.close()
        assert hall.engine.open_sessions == 0


@bounded
async def test_a_session_that_begins_where_another_was_saved_has_that_at_hand(tmp_path):
    async with hall_of(tmp_path) as hall:
        stage = await Stage.open(hall, seed=3)
        await walk(stage, WALK[:4])
        await stage.put_away()
        await walk(stage, WALK[4:6])
        twin = await stage.fork()
        loaded = await Stage.load(hall, stage.world)
        for one in (twin, loaded):  # as they are on the disk if the process is killed now
            await walk(one, WALK[6:7])
            found, beyond, damage = hall.kept.find(one.world)
            assert (found.keep, len(found.log.steps), len(beyond), damage) == ("pages", 4, 3, "")
            await one.close()
        await stage.close()


@bounded
@pytest.mark.parametrize("is_there", [False, True])
async def test_a_session_whose_log_was_deleted_is_put_away_from_what_it_knows(tmp_path, is_there):
    async with hall_of(tmp_path) as hall:
        stage = await Stage.open(hall, seed=3)
        await walk(stage, WALK[:4])
        log = hall.kept.log(stage.world)
        log.unlink()
        if is_there:
            log.write_bytes(b"")
        await stage.put_away()
        await stage.close()
        log.unlink(missing_ok=True)
        loaded = await Stage.load(hall, stage.world)
        assert await walk(loaded, WALK[4:]) == alone(WALK, seed=3)[4:]
        await loaded.close()


@bounded
async def test_a_world_that_is_loaded_and_left_as_it_was_leaves_nothing_behind(tmp_path):
    async with hall_of(tmp_path) as hall:
        stage = await Stage.open(hall, seed=3)
        await walk(stage, WALK[:4])
        name = await stage.save()
        await stage.forget()
        loaded = await Stage.load(hall, name)
        assert len(list(tmp_path.iterdir())) == 3
        await loaded.become(await Stage.load(hall, name, instead=True))
        assert len(list(tmp_path.iterdir())) == 3
        await loaded.close()
        assert [path.name for path in tmp_path.iterdir()] == [f"{name}.world"]
        loaded = await Stage.load(hall, name)
        await walk(loaded, WALK[4:5])
        await loaded.close()
        assert len(list(tmp_path.iterdir())) == 3


@bounded
async def test_a_world_that_has_no_more_links_is_loaded_without_one(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(31, "Too many links")

    async with hall_of(tmp_path) as hall:
        stage = await Stage.open(hall, seed=3)
        await walk(stage, WALK[:4])
        name = await stage.save()
        monkeypatch.setattr("pathlib.Path.hardlink_to", refuse)
        loaded = await Stage.load(hall, name)
        assert await walk(loaded, WALK[4:]) == await walk(stage, WALK[4:])
        await stage.become(await Stage.load(hall, name, instead=True))
        assert hall.engine.open_sessions == 2
        await loaded.close()
        await stage.close()
        monkeypatch.undo()


@bounded
async def test_a_film_that_cannot_be_begun_says_why_and_leaves_no_file(tmp_path, monkeypatch):
    def full(writer: VideoWriter, _: bytes) -> None:
        writer._give_up(OSError(28, "No space left on device"))

    async with hall_of(tmp_path) as hall:
        stage = await Stage.open(hall, seed=3)
        monkeypatch.setattr(VideoWriter, "_keep", full)
        with pytest.raises(VideoError, match=r"^the film: No space left on device;") as refused:
            await stage.record()
        assert str(refusal_of(refused.value)) == str(refused.value)
        assert (stage.recording, list(tmp_path.glob("*.mp4"))) == (None, [])
        await stage.close()
