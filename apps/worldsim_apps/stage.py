"""One session in an engine, and all that can be done to it between two blocks without holding up the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from worldsim.errors import EngineFull, ProtocolError
from worldsim.runtime.chunk import Chunk
from worldsim.runtime.engine import Engine, LiveSession
from worldsim.runtime.session import Session
from worldsim.runtime.snapshot import Snapshot
from worldsim.session.log import SessionLog, Step
from worldsim_apps.gauges import Gauges
from worldsim_apps.kept import Kept

if TYPE_CHECKING:
    from worldsim_apps.room import Room

RETRY_MS = 2_000
MOST_MARKS = 256
Wanted = Callable[[int, int], bool]


@dataclass(frozen=True, slots=True, eq=False)
class Hall:
    """What all sessions of a server share.

    engine: where they live.
    kept: where they are written.
    gauges: where they are measured.
    resume_s: how long one waits for a player whose connection was lost.
    rooms: those that are open, by the name of their session.
    encoders: threads that encode.
    workers: a thread for all else that takes long: reading and writing worlds, unpacking pictures.
    """

    engine: Engine
    kept: Kept
    gauges: Gauges
    resume_s: float
    rooms: dict[str, Room] = field(default_factory=dict)
    encoders: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2, thread_name_prefix="encoder"))
    workers: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="worker"))

    async def work(self, call: Callable[[], Any]) -> Any:
        """What a call gives that takes too long for the thread of the connections."""
        return await asyncio.get_running_loop().run_in_executor(self.workers, call)

    async def encode(self, call: Callable[[], Any]) -> Any:
        """What an encoder gives; nothing else that takes long is in its way."""
        return await asyncio.get_running_loop().run_in_executor(self.encoders, call)

    def check_place(self) -> None:
        """Raise ProtocolError unless there is a place, or somebody who would make room."""
        if self.engine.open_sessions >= self.engine.capacity and not any(room.may_end for room in self.rooms.values()):
            raise self._full()

    def _full(self) -> ProtocolError:
        text = f"all {self.engine.capacity} places are taken; try again in a while"
        return ProtocolError("full", text, close=1013, retry_after_ms=RETRY_MS)

    async def admit(self, begin: Callable[[], Session], *, instead: bool = False, evict: bool = True) -> LiveSession:
        """A session in the engine; whoever has waited longest for a lost player makes room for it.

        Args:
            begin: makes it.
            instead: it takes the place of one that is closed next.
            evict: whether somebody who waits makes room for it.

        Raises:
            ProtocolError: every place is taken by somebody who is there.
        """
        engine = self.engine
        if engine.open_sessions >= engine.capacity and evict and not instead:
            waiting = [room for room in self.rooms.values() if room.may_end]
            if waiting:
                await min(waiting, key=lambda room: room.waits_since or 0.0).end()
        try:
            if engine.open_sessions >= engine.capacity and not instead:
                raise self._full()
            return await asyncio.to_thread(lambda: engine.admit(begin, instead=instead))
        except EngineFull as error:
            raise self._full() from error


class Stage:
    """See the module. One verb at a time.

    Args:
        hall: which server.
        world: what it is kept under.
        live: the session.

    owner: address of whoever plays it.
    exact: whether all of it came out as it was first made, bit for bit. What is lived again beside other sessions,
        or was made beside some at first, agrees about: blocks that are made together are rounded together.
    wanted: told between two blocks that are lived again how many are and of how many; says whether anybody still
        waits for them.
    """

    def __init__(self, hall: Hall, world: str, live: LiveSession) -> None:
        self.world = world
        self.live = live
        self.owner = "127.0.0.1"
        self.exact = True
        self.wanted: Wanted = lambda done, of: True
        self._hall = hall
        self._marks: list[SessionLog] = []

    @classmethod
    async def open(cls, hall: Hall, *, instead: bool = False, **beginning: Any) -> Stage:
        """A new session.

        Args:
            hall: which server.
            instead: it takes the place of one that is closed next.
            beginning: as for World.open; errors too, and ProtocolError where there is no place.
        """
        world = hall.kept.new_name()
        place, log = hall.engine.world, hall.kept.log(world)
        return cls(hall, world, await hall.admit(lambda: place.open(**beginning, log=log), instead=instead))

    @classmethod
    async def load(
        cls, hall: Hall, name: str, *, instead: bool = False, wanted: Wanted = lambda done, of: True
    ) -> Stage:
        """A session that goes on where a kept one was: at once if it was saved, else its log is lived again.

        Args:
            hall: which server.
            name: what it is kept under.
            instead: it takes the place of one that is closed next.
            wanted: see Stage.

        Raises:
            ProtocolError: nothing is kept under that name, there is no place, or it is no longer wanted.
            LogError, SnapshotError: what is kept is torn, or of another world.
        """
        snapshot, beyond = await hall.work(lambda: hall.kept.find(name))
        if snapshot.state is None:
            begun = Snapshot(keep="log", log=SessionLog(opening=snapshot.log.opening, steps=()))
            return await cls._relive(hall, begun, snapshot.log.steps, instead=instead, wanted=wanted)
        return await cls._relive(hall, snapshot, beyond, instead=instead, wanted=wanted)

    @property
    def block(self) -> int:
        """How many blocks have been made."""
        return self.live.session.block

    async def step(self, keys: Iterable[str]) -> Chunk:
        """The next block; errors as for Session.step."""
        return await asyncio.wrap_future(self.live.step(keys))

    async def mark(self) -> int:
        """The number of a mark of this moment. It holds no memory but what happened."""
        if len(self._marks) >= MOST_MARKS:
            raise ProtocolError("too_many", f"a session has at most {MOST_MARKS} marks")
        self._marks.append(await self._do(lambda session: session.log))
        return len(self._marks) - 1

    async def rewind(self, blocks: int) -> None:
        """Go back so many blocks: at once as far as is remembered, else by living them again.

        Raises:
            ConfigError: so many have not been made.
        """
        lived = await self._do(lambda session: _near(session, blocks))
        if lived is not None:
            await self._turn_to(SessionLog(opening=lived.opening, steps=lived.steps[: len(lived.steps) - blocks]))

    async def go_to(self, mark: int) -> None:
        """Go back to a mark, or over to it if it is on a branch that was left."""
        if not 0 <= mark < len(self._marks):
            raise ProtocolError("no_mark", f"there is no mark {mark}; marks are numbered from 0 as `marked` said")
        wanted, lived = self._marks[mark], await self._do(lambda session: session.log)
        if lived.opening == wanted.opening and lived.steps[: len(wanted.steps)] == wanted.steps:
            await self.rewind(len(lived.steps) - len(wanted.steps))
        else:
            await self._turn_to(wanted)

    async def save(self) -> str:
        """Keep it as it is now under a name of its own, which is returned; what happens later does not change it."""
        name = self._hall.kept.new_name()
        await self._save_as(name)
        return name

    async def put_away(self) -> None:
        """Keep it under the name of its log, so that it can go on at once from its end."""
        await self._save_as(self.world)

    async def _save_as(self, name: str) -> None:
        snapshot = await self._do(lambda session: session.snapshot())
        await self._hall.work(lambda: self._hall.kept.save(name, snapshot, self.owner))

    async def fork(self) -> Stage:
        """A second session that begins with this one's past."""
        world = self._hall.kept.new_name()
        log, session = self._hall.kept.log(world), self.live.session
        twin = Stage(self._hall, world, await self._hall.admit(lambda: session.fork(log=log), evict=False))
        twin.owner, twin.exact = self.owner, self.exact
        return twin

    async def close(self) -> None:
        """Give the place back. What was logged and saved stays."""
        await asyncio.to_thread(self.live.close)
        self._hall.kept.settle(self.world)

    async def forget(self) -> None:
        """Give the place back and keep nothing."""
        await asyncio.to_thread(self.live.close)
        self._hall.kept.forget(self.world)

    async def become(self, other: Stage) -> None:
        """Go on as another session, whose place this one takes."""
        left, name = self.live, self.world
        self.live, self.world, self.exact = other.live, other.world, other.exact
        await asyncio.to_thread(left.close)
        self._hall.kept.settle(name)

    async def _turn_to(self, log: SessionLog) -> None:
        begun = Snapshot(keep="log", log=SessionLog(opening=log.opening, steps=()))
        await self.become(await self._relive(self._hall, begun, log.steps, instead=True, wanted=self.wanted))

    @classmethod
    async def _relive(
        cls, hall: Hall, begun: Snapshot, steps: tuple[Step, ...], *, instead: bool, wanted: Wanted
    ) -> Stage:
        """A session that has lived these steps after a snapshot, block by block in turn with the others."""
        world = hall.kept.new_name()
        place, path = hall.engine.world, hall.kept.log(world)
        stage = cls(hall, world, await hall.admit(lambda: place.restore(begun, log=path), instead=instead))
        async with AsyncExitStack() as undo:
            undo.push_async_callback(stage.forget)
            for done, recorded in enumerate(steps):
                if not wanted(done, len(steps)):
                    raise ProtocolError("ended", "nobody waits for that world any more")
                await stage.step(recorded.keys)
                stage.exact = stage.exact and stage.live.session.latest == recorded
            undo.pop_all()
        return stage

    async def _do(self, verb: Callable[[Session], Any]) -> Any:
        return await asyncio.wrap_future(self.live.do(verb))


def _near(session: Session, blocks: int) -> SessionLog | None:
    """Go back if that is done at once, or if it cannot be done; otherwise the log to live again."""
    if session.remembered < blocks <= session.block:
        return session.log
    session.rewind(blocks)
    return None
