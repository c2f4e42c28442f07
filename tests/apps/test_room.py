"""A room waits for a player who was lost, lets in whoever has the token, and gives everything back when it ends."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.apps.serving import WALK, alone, bounded, errors_logged, hall_of, settled
from worldsim.cache.policy import SinkWindow
from worldsim.errors import ProtocolError, UnknownName, VideoError
from worldsim.runtime.video import VideoWriter
from worldsim.session.events import Ack, Act, Control, Hello
from worldsim.session.wire import Flag, Media
from worldsim.testing.fakes import tiny_world
from worldsim_apps.hall import Hall
from worldsim_apps.room import MOST_VERBS, Room
from worldsim_apps.stage import Stage


class Seen:
    """A viewer that remembers all that it was told and shown."""

    role = "player"

    def __init__(self, codec: Any = "raw") -> None:
        self.codec = codec
        self.told: list[dict[str, Any]] = []
        self.shown: list[Media] = []
        self.closed: tuple[int, str] | None = None
        self.forgot = self.waiting = 0
        self.progress: list[tuple[int, int]] = []

    def tell(self, kind: str, **values: Any) -> None:
        self.told.append({"type": kind, **values})

    def tell_progress(self, done: int, of: int) -> None:
        self.progress.append((done, of))

    def refuse(self, error: ProtocolError, to: str) -> None:
        assert to == "control"
        self.tell("error", code=error.code, message=str(error), close=error.close)

    def send(self, path: Path) -> bool:
        return path.exists()

    def show(self, block: list[Media]) -> None:
        self.shown += block

    def forget(self) -> None:
        self.forgot += 1
        self.shown.clear()

    def close(self, code: int, reason: str) -> None:
        self.closed = self.closed or (code, reason)

    async def done(self) -> None:
        self.tell("done")

    @property
    def kinds(self) -> list[str]:
        """The types of what it was told."""
        return [told["type"] for told in self.told]


def alone_still(*, seed: int, blocks: int) -> bytes:
    """What a world looks like after so many blocks without a key."""
    session = tiny_world().open(seed=seed)
    for _ in range(blocks):
        session.step()
    return session.look().tobytes()


async def opened(hall: Hall, *, seed: int = 3, pace: float = 0.0) -> tuple[Room, Any]:
    """A room and its player, who has been told so."""
    room, one = Room(hall, await Stage.open(hall, seed=seed), "raw", pace), Seen()
    room.enter(one)
    assert one.kinds == ["started"]
    return room, one


async def played(room: Room, one: Any, blocks: int = 2) -> None:
    """Take and acknowledge so many blocks."""
    await settled(lambda: len(one.shown) >= 2)
    for number in range(blocks):
        room.hear(Ack(epoch=0, blocks=number + 1))
        await settled(lambda number=number: len(one.shown) == number + 3)


async def played_on(room: Room, one: Any, until: int) -> None:
    """Take and acknowledge blocks until so many have been made."""
    while room._play.made < until:
        room.hear(Ack(epoch=0, blocks=room._play.made))
        await asyncio.sleep(0.001)


async def asked(room: Room, one: Any, op: Any, **fields: Any) -> dict[str, Any]:
    """What a verb is answered with."""
    before = len(one.told)
    room.ask(one, Control(op=op, **fields))
    await settled(lambda: len(one.told) > before)
    return dict(one.told[before])


def token(one: Any) -> str:
    """The newest token that it was given."""
    return str([told["resume"] for told in one.told if "resume" in told][-1])


def hello(one: Any, **fields: Any) -> Hello:
    """What a player says that comes back with the newest token of that one."""
    return Hello(**{"codecs": ("raw",), "resume": token(one), **fields})


@bounded
async def test_a_session_that_waits_too_long_is_saved_and_ends(tmp_path):
    async with hall_of(tmp_path, resume_s=0.1) as hall:
        room, one = await opened(hall)
        world = one.told[0]["world"]
        await played(room, one)
        assert room.leave(one)
        assert (room.state, room.may_end, hall.rooms) == ("waiting", True, {room.name: room})
        await settled(lambda: not hall.rooms)
        assert hall.engine.open_sessions == 0
        stage = await Stage.load(hall, world)
        assert stage.block == 4
        await stage.close()


@bounded
async def test_a_session_of_which_nothing_was_acknowledged_does_not_wait_and_leaves_nothing(tmp_path):
    async with hall_of(tmp_path) as hall:
        room, one = await opened(hall)
        await settled(lambda: len(one.shown) == 2)
        assert list(tmp_path.iterdir()) != []
        room.leave(one)
        await settled(lambda: not hall.rooms)
        assert list(tmp_path.iterdir()) == []


@bounded
async def test_one_who_comes_back_in_time_stops_the_clock(tmp_path):
    async with hall_of(tmp_path, resume_s=0.15) as hall:
        room, one = await opened(hall)
        await played(room, one)
        room.leave(one)
        other: Any = Seen()
        room.come_back(other, hello(one, blocks=2))
        assert (room.state, room.may_end) == ("live", False)
        await asyncio.sleep(0.3)
        assert hall.rooms == {room.name: room}


@bounded
async def test_a_session_stands_still_while_it_waits(tmp_path):
    async with hall_of(tmp_path) as hall:
        room, one = await opened(hall)
        await played(room, one)
        room.leave(one)
        room.hear(Ack(epoch=0, blocks=4))
        await asyncio.sleep(0.1)
        other: Any = Seen()
        room.come_back(other, hello(one, blocks=4))
        assert other.told[0]["blocks"] == 4
        await settled(lambda: len(other.shown) == 2)
        assert [media.block for media in other.shown] == [4, 5]


@bounded
async def test_exactly_what_has_not_arrived_is_sent_again_and_marked(tmp_path):
    async with hall_of(tmp_path) as hall:
        room, one = await opened(hall)
        await played(room, one, 3)
        room.leave(one)
        other: Any = Seen()
        room.come_back(other, hello(one, blocks=4))
        assert [(media.block, Flag.AGAIN in media.flags) for media in other.shown] == [(4, True)]
        assert other.shown[0].payload == one.shown[4].payload
        await settled(lambda: len(other.shown) == 2)
        assert [(media.block, Flag.AGAIN in media.flags) for media in other.shown] == [(4, True), (5, False)]
        third: Any = Seen()
        room.come_back(third, hello(other, epoch=7, blocks=99))  # of another time, so it says nothing
        assert [(media.block, Flag.AGAIN in media.flags) for media in third.shown] == [(4, True), (5, True)]
        assert [media.payload for media in [*one.shown[:4], *third.shown]] == alone([()] * 6, seed=3)


@bounded
async def test_a_token_is_good_until_the_next_has_arrived(tmp_path):
    async with hall_of(tmp_path) as hall:
        room, one = await opened(hall)
        await played(room, one)
        first = token(one)
        others: list[Any] = [Seen() for _ in range(5)]
        for other in others[:3]:  # none of them learns its token
            room.leave(one)
            room.come_back(other, Hello(codecs=("raw",), resume=first))
        room.hear()
        for wrong in (first, token(others[0]), token(others[1]), "", "\ud800"):
            with pytest.raises(ProtocolError, match="good for once") as refused:
                room.come_back(others[3], Hello(codecs=("raw",), resume=wrong))
            assert (refused.value.code, refused.value.close) == ("bad_token", 3000)
        room.come_back(others[4], hello(others[2]))
        assert others[2].closed == (4409, "replaced")
        assert (others[3].told, others[3].closed) == ([], None)


@bounded
async def test_one_who_cannot_show_what_the_session_is_sent_as_is_refused(tmp_path):
    async with hall_of(tmp_path) as hall:
        room, one = await opened(hall)
        with pytest.raises(ProtocolError, match="this session is sent as raw") as refused:
            room.come_back(Seen(), hello(one, codecs=("jpeg", "h264")))
        assert (refused.value.code, refused.value.close) == ("no_codec", 4400)
        assert one.closed is None


@bounded
async def test_one_who_was_replaced_is_no_longer_the_player(tmp_path):
    async with hall_of(tmp_path) as hall:
        room, one = await opened(hall)
        await played(room, one)
        other: Any = Seen()
        room.come_back(other, hello(one, blocks=4))
        assert one.closed == (4409, "replaced")
        assert not room.leave(one)
        assert room.state == "live"
        shown = len(one.shown)
        await settled(lambda: len(other.shown) == 2)
        assert len(one.shown) == shown
        assert room.leave(other)


@bounded
async def test_nobody_enters_a_room_that_is_ending_and_who_is_there_is_told(tmp_path):
    async with hall_of(tmp_path) as hall:
        room, one = await opened(hall)
        await played(room, one)
        other: Any = Seen()
        room.watch(other)
        assert other.kinds == ["watching"]
        assert not room.is_ending
        ending = asyncio.create_task(room.end())
        await asyncio.sleep(0)
        assert room.is_ending
        await ending
        await room.end()
        assert (one.closed, other.closed) == ((4410, "ended"), (4410, "ended"))
        room.leave(one)
        assert room._expiry.cancelled()
        assert hall.rooms == {}


@bounded
async def test_a_player_who_is_sent_away_is_told_first_where_the_world_is_kept(tmp_path):
    async with hall_of(tmp_path) as hall:
        room, one = await opened(hall)
        await played(room, one)
        await room.drain()
        assert one.told[-2:] == [{"type": "drain", "world": one.told[0]["world"]}, {"type": "done"}]
        assert one.closed == (1012, "restart")
        assert (tmp_path / f"{one.told[0]['world']}.world").exists()


@bounded
async def test_one_who_has_only_begun_is_sent_away_without_a_world(tmp_path):
    async with hall_of(tmp_path) as hall:
        room, one = await opened(hall)
        await room.drain()
        assert one.kinds == ["started", "done"]
        assert one.closed == (1012, "restart")
        assert list(tmp_path.iterdir()) == []


@bounded
async def test_a_world_that_cannot_be_saved_still_gives_its_place_back(tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    async with hall_of(tmp_path) as hall:
        room, one = await opened(hall)
        await played(room, one)
        monkeypatch.setattr("worldsim_apps.kept.write_snapshot", full)
        with errors_logged() as records:
            await room.end()
        (record,) = records
        world = one.told[0]["world"]
        assert record.getMessage() == f"{world} could not be saved; its log is all that is kept of it"
        assert (hall.engine.open_sessions, hall.rooms) == (0, {})
        stage = await Stage.load(hall, world)
        assert stage.block == 4
        await stage.close()


@bounded
async def test_a_world_whose_log_was_deleted_is_saved_all_the_same(tmp_path):
    async with hall_of(tmp_path) as hall:
        room, one = await opened(hall)
        await played(room, one)
        hall.kept.log(one.told[0]["world"]).unlink()
        await room.drain()
        assert one.kinds[-2:] == ["drain", "done"]
        stage = await Stage.load(hall, one.told[-2]["world"])
        assert (stage.block, stage.damage) == (4, "")
        await stage.close()


@bounded
async def test_a_player_of_whose_world_nothing_is_kept_is_not_told_that_it_was_saved(tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    async with hall_of(tmp_path) as hall:
        room, one = await opened(hall)
        await played(room, one)
        hall.kept.log(one.told[0]["world"]).unlink()
        monkeypatch.setattr("worldsim_apps.kept.write_snapshot", full)
        with errors_logged() as records:
            await room.drain()
        assert len(records) == 1
        assert (one.kinds, one.closed) == (["started", "done"], (1012, "restart"))


@bounded
async def test_a_session_whose_log_cannot_be_deleted_ends_and_that_is_logged(tmp_path, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    async with hall_of(tmp_path) as hall:
        room, one = await opened(hall)
        monkeypatch.setattr("pathlib.Path.unlink", refuse)
        with errors_logged() as records:
            room.leave(one)
            await settled(lambda: not hall.rooms)
        assert [record.getMessage() for record in records] == [
            f"{hall.kept.log(room._stage.world)} could not be deleted"
        ]
        monkeypatch.undo()


@bounded
async def test_a_session_that_fails_to_close_still_leaves_the_hall(tmp_path, monkeypatch):
    async with hall_of(tmp_path) as hall:
        room, one = await opened(hall)
        await played(room, one)

        def lost(*_: object) -> None:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(hall.kept, "settle", lost)
        with errors_logged() as records:
            await room.drain()
        assert [record.getMessage() for record in records] == [f"{room._stage.world} did not end as it should"]
        assert (hall.rooms, one.kinds[-2:], one.closed) == ({}, ["drain", "done"], (1012, "restart"))


@bounded
async def test_what_is_recorded_is_part_of_the_state(tmp_path):
    async with hall_of(tmp_path) as hall:
        room, one = await opened(hall)
        assert (one.told[0]["recording"], one.told[0]["film"]) == (None, None)
        name = (await asked(room, one, "record"))["film"]
        told = await asked(room, one, "pause")
        assert (told["recording"], told["film"]) == (name, None)
        await asked(room, one, "record", on=False)
        told = await asked(room, one, "pause")
        assert (told["recording"], told["film"]) == (None, name)
        newer = (await asked(room, one, "record"))["film"]
        other: Any = Seen()
        room.come_back(other, hello(one))
        assert (other.told[0]["recording"], other.told[0]["film"]) == (newer, name)
        told = await asked(room, other, "reset")
        assert (told["recording"], told["film"]) == (None, newer)


@bounded
async def test_a_film_is_fetched_when_it_is_whole(tmp_path):
    async with hall_of(tmp_path) as hall:
        room, one = await opened(hall)
        name = (await asked(room, one, "record"))["film"]
        assert (await asked(room, one, "film", world=name))["code"] == "no_film"
        await asked(room, one, "record", on=False)
        told = await asked(room, one, "film", world=name)
        assert (told["type"], told["name"]) == ("sending", name)
        assert told["bytes"] > 0


@bounded
async def test_a_film_that_the_disk_has_no_room_for_ends_and_that_is_told_once(tmp_path, monkeypatch):
    def full(writer: VideoWriter, *_: object) -> None:
        raise VideoError(f"{writer._path}: No space left on device; its first 0 frames are safe")

    async with hall_of(tmp_path) as hall:
        room, one = await opened(hall)
        await asked(room, one, "pause")
        name = (await asked(room, one, "record"))["film"]
        monkeypatch.setattr(VideoWriter, "write", full)
        await asked(room, one, "rewind", blocks=0)
        await asked(room, one, "step")
        await settled(lambda: one.kinds[-1] == "film")
        assert (one.told[-1]["name"], one.told[-1]["problem"][:19]) == (name, "the film: No space ")
        told = await asked(room, one, "step")
        assert (told["recording"], told["film"]) == (None, name)
        await settled(lambda: len(one.shown) == 2)
        assert one.kinds.count("film") == 1
        assert "not being recorded" in (await asked(room, one, "record", on=False))["message"]


@bounded
async def test_a_player_who_was_away_when_a_film_ended_is_told_then(tmp_path):
    async with hall_of(tmp_path) as hall:
        room, one = await opened(hall)
        await played(room, one)
        await asked(room, one, "record")
        room.leave(one)
        room._stage.ended_film = await room._stage.end_film()
        other: Any = Seen()
        room.come_back(other, hello(one))
        assert other.kinds == ["started", "film"]


@bounded
async def test_a_player_who_is_sent_away_is_told_of_the_film_that_ends(tmp_path):
    async with hall_of(tmp_path) as hall:
        room, one = await opened(hall)
        await played(room, one)
        name = (await asked(room, one, "record"))["film"]
        await room.drain()
        assert one.kinds[-3:] == ["film", "drain", "done"]
        assert one.told[-3]["name"] == name


@bounded
async def test_spectators_are_told_when_the_world_stands_still_and_goes_on(tmp_path, monkeypatch):
    async with hall_of(tmp_path) as hall:
        room, one = await opened(hall)
        spectator: Any = Seen()
        room.watch(spectator)
        await asked(room, one, "pause")
        assert spectator.told[-1]["paused"]
        await asked(room, one, "resume")
        assert not spectator.told[-1]["paused"]

        def broken(*_: object) -> None:
            raise OSError(5, "Input/output error", "/where/it/lies")

        monkeypatch.setattr("worldsim.runtime.session.Session._write", broken)
        room.hear(Ack(epoch=0, blocks=room._play.made))
        await settled(lambda: one.kinds[-1] == "error")
        assert (spectator.told[-1]["paused"], one.told[-1]["message"]) == (True, "Input/output error")
        monkeypatch.undo()


@bounded
async def test_spectators_are_not_told_that_one_who_said_bye_is_waited_for(tmp_path):
    async with hall_of(tmp_path) as hall:
        room, one = await opened(hall)
        spectator: Any = Seen()
        room.watch(spectator)
        room.leave(one, said_bye=True)
        await room.end(save=False)
        assert (spectator.kinds, spectator.closed) == (["watching"], (4410, "ended"))


@bounded
async def test_blocks_that_come_late_for_long_are_logged_once_for_a_server(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("worldsim_apps.room.LATE_S", 1.0)
    async with hall_of(tmp_path) as hall:
        rooms = [(await opened(hall, pace=pace))[0] for pace in (1.0, 1.0, 4.0, 0.0)]
        for room in rooms:
            await asked(room, room._player, "pause")
        late, other, fast, free = rooms
        for took_s in (0.3, 0.3, 0.3, 0.2, 0.3, 0.3, 0.3, 0.3):
            late._note_late(took_s)
        for room in (fast, free):
            for _ in range(40):
                room._note_late(0.3)
        assert caplog.messages == []
        late._note_late(0.3)
        for _ in range(9):
            other._note_late(0.3)
        assert [message[:45] for message in caplog.messages] == ["blocks of 250 ms take 300: this machine canno"]
        assert "4 worlds" in caplog.text
        assert "--max-sessions" in caplog.text


@bounded
async def test_verbs_are_answered_in_the_order_in_which_they_were_said(tmp_path):
    async with hall_of(tmp_path) as hall:
        room, one = await opened(hall)
        one.told.clear()
        for op, fields in (
            ("pause", {}),
            ("mark", {}),
            ("rewind", {"blocks": 10**6}),
            ("save", {}),
            ("fork", {}),
            ("rewind", {"mark": 0}),
            ("step", {"blocks": 2}),
            ("reset", {"seed": 1}),
            ("resume", {}),
            ("step", {}),
        ):
            room.ask(one, Control(op=op, **fields))
        await settled(lambda: len(one.told) == 10)
        wanted = ["state", "marked", "error", "saved", "forked", "state", "state", "state", "state", "error"]
        assert one.kinds == wanted
        assert [told["epoch"] for told in one.told if "epoch" in told] == [0, 1, 1, 2, 2]
        assert [told["code"] for told in one.told if "code" in told] == ["ConfigError", "not_paused"]
        await settled(lambda: [media.epoch for media in one.shown] == [2, 2])


@bounded
async def test_only_so_many_verbs_may_wait(tmp_path, monkeypatch):
    go_on = asyncio.Event()

    async def slow(self):
        await go_on.wait()
        return 0

    monkeypatch.setattr(Stage, "mark", slow)
    async with hall_of(tmp_path) as hall:
        room, one = await opened(hall)
        room.ask(one, Control(op="mark"))
        await settled(lambda: room._obeys)
        for _ in range(MOST_VERBS):
            room.ask(one, Control(op="mark"))
        with pytest.raises(ProtocolError, match="64 verbs wait to be done") as refused:
            room.ask(one, Control(op="mark"))
        assert (refused.value.code, refused.value.close) == ("too_fast", 4429)
        go_on.set()
        await settled(lambda: one.kinds.count("marked") == 65)


@bounded
async def test_a_verb_that_is_refused_never_ends_the_connection(tmp_path):
    async with hall_of(tmp_path, sessions=1) as hall:
        room, one = await opened(hall)
        told = await asked(room, one, "fork")
        assert (told["code"], told["close"], one.closed) == ("full", None, None)


@bounded
async def test_a_session_that_is_obeying_does_not_give_its_place_away(tmp_path, monkeypatch):
    go_on = asyncio.Event()

    async def slow(self):
        await go_on.wait()

    monkeypatch.setattr(Stage, "save", slow)
    async with hall_of(tmp_path) as hall:
        room, one = await opened(hall)
        await played(room, one)
        room.ask(one, Control(op="save"))
        await settled(lambda: room._obeys)
        room.leave(one)
        assert not room.may_end
        go_on.set()
        await settled(lambda: room.may_end)


@bounded
async def test_pause_forgets_the_steps_that_were_allowed(tmp_path):
    async with hall_of(tmp_path) as hall:
        room, one = await opened(hall)
        await asked(room, one, "pause")
        await asked(room, one, "reset")
        await asked(room, one, "step", blocks=10**6)
        await settled(lambda: len(one.shown) == 2)
        told = await asked(room, one, "pause")
        assert (told["paused"], told["blocks"]) == (True, 2)
        room.hear(Ack(epoch=1, blocks=2))
        await asyncio.sleep(0.1)
        assert len(one.shown) == 2


@bounded
async def test_a_fork_that_nobody_comes_for_is_saved_under_the_name_that_was_told_if_it_has_a_past(tmp_path):
    async with hall_of(tmp_path, resume_s=2.0) as hall:
        room, one = await opened(hall)
        await asked(room, one, "pause")
        await asked(room, one, "reset")
        await asked(room, one, "fork")
        await asked(room, one, "step", blocks=2)
        await settled(lambda: len(one.shown) == 2)
        world = (await asked(room, one, "fork"))["world"]
        assert len(hall.rooms) == 3
        await settled(lambda: len(hall.rooms) == 1)
        assert [path.stem for path in tmp_path.glob("*.world")] == [world]
        assert len(list(tmp_path.glob("*.log"))) == 2  # nothing had happened before the reset
        stage = await Stage.load(hall, world)
        assert stage.block == 2
        await stage.close()


@bounded
async def test_a_fork_can_be_entered_with_its_token_alone(tmp_path):
    async with hall_of(tmp_path) as hall:
        room, one = await opened(hall)
        await played(room, one)
        told = await asked(room, one, "fork")
        twin, other = hall.rooms[told["session"]], Seen()
        with pytest.raises(ProtocolError):
            twin.come_back(other, hello(one, resume=""))
        twin.come_back(other, hello(one))
        assert (other.told[0]["session"], other.told[0]["epoch"], other.told[0]["blocks"]) == (twin.name, 0, 4)
        await settled(lambda: len(other.shown) == 2)
        assert [media.block for media in other.shown] == [4, 5]


@bounded
async def test_after_a_jump_nothing_from_before_is_sent_again(tmp_path):
    async with hall_of(tmp_path) as hall:
        room, one = await opened(hall)
        await played(room, one)
        spectator: Any = Seen()
        room.watch(spectator)
        await asked(room, one, "pause")
        await asked(room, one, "rewind", blocks=3)
        assert (one.forgot, spectator.forgot) == (1, 1)
        assert spectator.told[-1] == {
            "type": "state",
            "epoch": 1,
            "blocks": 1,
            "paused": True,
            "waiting": False,
            "world": one.told[0]["world"],
            "exact": True,
            "recording": None,
            "film": None,
            "prompt": None,
            "left_out": 0,
        }
        room.leave(one)
        assert spectator.told[-1]["waiting"]
        other: Any = Seen()
        room.come_back(other, hello(one, epoch=0, blocks=4))
        assert (other.told[0]["epoch"], other.told[0]["blocks"], other.shown) == (1, 1, [])
        assert not spectator.told[-1]["waiting"]


@bounded
async def test_spectators_are_shown_the_same_in_the_codec_that_they_asked_for(tmp_path):
    async with hall_of(tmp_path) as hall:
        room, one = await opened(hall)
        same, other = Seen(), Seen("h264")
        room.watch(same)
        room.watch(other)
        await played(room, one)
        await settled(lambda: len(other.shown) >= 2 and len(same.shown) >= 2)
        assert same.shown == one.shown[-len(same.shown) :]
        assert {media.codec for media in other.shown} == {"h264"}
        assert [media.block for media in other.shown] == [media.block for media in one.shown[-len(other.shown) :]]
        room.leave(other)
        shown = len(other.shown)
        room.hear(Ack(epoch=0, blocks=4))
        await settled(lambda: len(one.shown) == 6)
        assert len(other.shown) == shown


@bounded
async def test_a_spectator_that_comes_while_a_block_is_encoded_is_shown_the_next(tmp_path, monkeypatch):
    encode, loop, other = Room._encode, asyncio.get_running_loop(), Seen("jpeg")

    async def join(room: Room) -> None:
        room.watch(other)

    def joined(room: Room, *block: Any) -> Any:
        found = encode(room, *block)
        if not other.told:
            asyncio.run_coroutine_threadsafe(join(room), loop).result(20)
        return found

    monkeypatch.setattr(Room, "_encode", joined)
    async with hall_of(tmp_path) as hall:
        room, one = await opened(hall)
        await played(room, one)
        assert [media.block for media in other.shown] == [1, 2, 3]
        assert {media.codec for media in other.shown} == {"jpeg"}


@bounded
async def test_an_encoder_that_has_failed_is_not_used_again(tmp_path):
    class Broken:
        codec, size, all_keys = "raw", (10, 6), True

        def encode(self, frames: Any) -> list[bytes]:
            raise RuntimeError("broken for good")

    async with hall_of(tmp_path) as hall:
        room, one = await opened(hall)
        await played(room, one)
        room._encoders["raw"] = Broken()
        room.hear(Ack(epoch=0, blocks=3))
        await settled(lambda: one.kinds[-1] == "error")
        assert (one.told[-1]["message"], one.told[-1]["blocks"]) == ("broken for good", 4)
        await asked(room, one, "resume")
        await settled(lambda: len(one.shown) == 5)
        assert [media.payload for media in one.shown] == alone([()] * 5, seed=3)


@bounded
async def test_a_block_that_fails_while_nobody_is_there_shows_when_the_player_comes_back(tmp_path, monkeypatch):
    async with hall_of(tmp_path) as hall:
        room, one = await opened(hall)
        await played(room, one)
        making, go_on, step = asyncio.Event(), asyncio.Event(), Stage.step

        async def failing(self, keys):
            making.set()
            await go_on.wait()
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(Stage, "step", failing)
        room.hear(Ack(epoch=0, blocks=4))
        await making.wait()
        room.leave(one)
        go_on.set()
        await settled(lambda: room._play.paused)
        monkeypatch.setattr(Stage, "step", step)
        assert "error" not in one.kinds
        other: Any = Seen()
        room.come_back(other, hello(one, blocks=4))
        assert (other.told[0]["blocks"], other.told[0]["paused"], room.state) == (4, True, "paused")
        assert (other.told[1]["code"], other.told[1]["message"]) == ("block_failed", "Input/output error")
        await asked(room, other, "resume")
        await settled(lambda: len(other.shown) == 2)
        assert [media.payload for media in other.shown] == alone([()] * 6, seed=3)[-2:]
        third: Any = Seen()
        room.come_back(third, hello(other, blocks=6))
        assert third.kinds == ["started"]


@bounded
async def test_what_is_held_counts_from_the_next_block_and_late_news_does_not(tmp_path):
    async with hall_of(tmp_path) as hall:
        room, one = await opened(hall)
        await asked(room, one, "pause")
        await asked(room, one, "reset", seed=3)
        with pytest.raises(UnknownName, match="there is no key 'KeyQ'"):
            room.act(Act(seq=9, keys=("KeyQ",)))
        for seq, keys in enumerate(WALK[:4], start=1):
            room.act(Act(seq=seq, keys=tuple(keys)))
            room.act(Act(seq=seq - 1, keys=("Space",)))
            await asked(room, one, "step")
            await settled(lambda seq=seq: len(one.shown) == seq)
            room.hear(Ack(epoch=1, blocks=seq))
        assert [media.payload for media in one.shown] == alone(WALK[:4], seed=3)
        assert [media.action for media in one.shown] == [1, 2, 3, 4]
        assert "worldsim_action_to_frame_seconds_count 4.0" in hall.gauges.text().decode()
        other: Any = Seen()
        room.come_back(other, hello(one))
        assert other.told[0]["seq"] == 4


@bounded
async def test_a_session_is_saved_now_and_then_so_that_little_is_lived_again_after_a_kill(tmp_path, monkeypatch):
    monkeypatch.setattr("worldsim_apps.room.KEPT_EVERY_S", 2)
    monkeypatch.setattr("worldsim_apps.room.KEPT_GAP_S", 0)
    async with hall_of(tmp_path) as hall:
        room, one = await opened(hall)
        world = room._stage.world
        every = 2 * hall.engine.world.fps // hall.engine.world.frames_per_block
        await played(room, one, every - 3)
        assert not (tmp_path / f"{world}.world").exists()
        await played_on(room, one, every + 2)
        await settled(lambda: (tmp_path / f"{world}.world").exists() and room._keeping.done())
        saved, beyond, _ = hall.kept.find(world)  # as it is on the disk if the process is killed now
        assert (saved.keep, len(saved.log.steps)) == ("pages", every)
        assert 0 < len(beyond) <= 4
        again = hall.engine.call(lambda: hall.engine.world.restore(saved)).result()
        assert again.block == every
        again.close()


@bounded
async def test_a_session_that_cannot_be_saved_now_and_then_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("worldsim_apps.room.KEPT_EVERY_S", 1)
    monkeypatch.setattr("worldsim_apps.room.KEPT_GAP_S", 0)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    async with hall_of(tmp_path) as hall:
        monkeypatch.setattr(hall.kept, "save", full)
        with errors_logged() as logged:
            room, one = await opened(hall)
            await played(room, one, 12)
            await settled(lambda: logged)
            monkeypatch.undo()
            await played_on(room, one, 16)
        assert "error" not in one.kinds
        assert all("could not be saved; its log is all" in record.getMessage() for record in logged)


@bounded
async def test_how_far_a_past_is_that_is_lived_again_is_told_to_the_player(tmp_path):
    async with hall_of(tmp_path, world=tiny_world(pages=16), sessions=1) as hall:
        room, one = await opened(hall)
        await played(room, one, 20)
        await asked(room, one, "pause")
        assert one.progress == []
        await asked(room, one, "rewind", blocks=18)
        made = one.progress[-1][1]
        assert one.progress == [(done, made) for done in range(made)]


@bounded
async def test_whoever_looks_is_shown_the_present_and_nobody_else_is(tmp_path):
    async with hall_of(tmp_path) as hall:
        room, one = await opened(hall)
        await played(room, one, 3)
        await asked(room, one, "pause")
        watcher: Any = Seen()
        watcher.role = "spectator"
        room.watch(watcher)
        newest, told = one.shown[-1], len(one.told)
        room.ask(watcher, Control(op="look"))
        await settled(lambda: watcher.shown)
        (still,) = watcher.shown
        assert still.payload == newest.payload
        assert (still.block, still.epoch) == (newest.block, newest.epoch)
        assert Flag.STILL in still.flags
        assert (len(one.told), one.shown[-1]) == (told, newest)
        await asked(room, one, "rewind", blocks=4)
        await asked(room, one, "look")
        await settled(lambda: one.shown)
        assert one.shown[0].payload == alone_still(seed=3, blocks=room._play.made)


@bounded
async def test_the_first_frame_of_a_block_says_what_that_saw(tmp_path):
    async with hall_of(tmp_path, world=tiny_world(policy=SinkWindow(sink=1, window=2), frames_per_block=2)) as hall:
        _, one = await opened(hall)
        await settled(lambda: len(one.shown) >= 4)
        assert [media.seen for media in one.shown[:4]] == [
            ((range(-5, -4), False), (range(-2, 0), False)),
            (),
            ((range(-5, -4), False), (range(0, 2), False)),
            (),
        ]


@bounded
async def test_a_map_is_told_with_how_many_places_it_shows(tmp_path, monkeypatch):
    async with hall_of(tmp_path, world=tiny_world(remembers=True)) as hall:
        room, one = await opened(hall)
        known = room._stage.live.session.land().known.copy()
        assert (await asked(room, one, "map"))["places"] == known.size
        known[0, 0] = False
        land = replace(room._stage.live.session.land(), known=known)
        monkeypatch.setattr(room._stage.live.session, "land", lambda: land)
        told = await asked(room, one, "map")
        picture = cv2.imdecode(np.frombuffer(base64.b64decode(told["picture"]), np.uint8), cv2.IMREAD_UNCHANGED)
        assert (told["type"], told["places"], told["view"]) == ("map", land.known.sum(), [*land.view])
        assert np.array_equal(picture[..., 3] == 255, land.known)
        assert np.array_equal(picture[land.known][:, 2::-1], land.pixels[land.known])


@bounded
async def test_a_world_that_remembers_no_places_has_an_empty_map(tmp_path):
    async with hall_of(tmp_path) as hall:
        room, one = await opened(hall)
        assert await asked(room, one, "map") == {"type": "map", "places": 0, "picture": "", "view": [0, 0, 0, 0]}


@bounded
async def test_looks_take_no_verb_from_the_player_and_one_at_a_time_is_enough(tmp_path):
    async with hall_of(tmp_path) as hall:
        room, one = await opened(hall)
        watchers: list[Any] = [Seen() for _ in range(3)]
        for watcher in watchers:
            watcher.role = "spectator"
            room.watch(watcher)
        for _ in range(MOST_VERBS):
            room.ask(one, Control(op="mark"))
        for watcher in watchers:
            room.ask(watcher, Control(op="look"))
            with pytest.raises(ProtocolError, match="one look at a time") as refused:
                room.ask(watcher, Control(op="look"))
            assert refused.value.close is None
        with pytest.raises(ProtocolError, match="64 verbs wait"):
            room.ask(one, Control(op="mark"))
        await settled(lambda: all(watcher.kinds.count("state") for watcher in watchers))
        for watcher in watchers:
            room.ask(watcher, Control(op="look"))
        await settled(lambda: one.kinds.count("marked") == MOST_VERBS)


@bounded
async def test_a_world_that_runs_fast_is_not_saved_all_the_time(tmp_path, monkeypatch):
    monkeypatch.setattr("worldsim_apps.room.KEPT_EVERY_S", 1)
    async with hall_of(tmp_path) as hall:
        saved: list[str] = []
        monkeypatch.setattr(hall.kept, "save", lambda name, *_, **__: saved.append(name))
        room, one = await opened(hall)
        await played(room, one, 1)
        await played_on(room, one, 60)
        assert len(saved) == 1
