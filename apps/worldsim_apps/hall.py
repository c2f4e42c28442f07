"""What all sessions of a server share: an engine, threads, and the places that whoever comes gets, waits for or not."""

from __future__ import annotations

import asyncio
import base64
from asyncio import FIRST_COMPLETED
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from threading import Barrier
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from worldsim.errors import EngineFull, ProtocolError
from worldsim.runtime.engine import Engine, LiveSession
from worldsim.runtime.session import Session
from worldsim_apps.encoding import picture_of
from worldsim_apps.gauges import Gauges
from worldsim_apps.kept import Kept

if TYPE_CHECKING:
    from worldsim_apps.room import Room

RETRY_MS = 2_000
TURN_S = 20.0
"""How long one waits for the memory to go over to another world, which somebody with a long past may need longer."""
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True, eq=False)
class Hall:
    """What all sessions of a server share.

    engine: where they live.
    kept: where they are written.
    gauges: where they are measured.
    resume_s: how long one waits for a player whose connection was lost.
    picture: what sessions begin from of which nothing else is said, uint8 [1, H, W, 3].
    rooms: those that are open, by the name of their session.
    encoders: threads that encode.
    workers: a thread that reads and writes worlds.
    unpackers: a thread that unpacks the pictures that clients send.
    callers: threads that wait for the engine.
    turn: held by whoever is about to take the place of another session.
    door: held by whoever has somebody make room for it, so that nobody makes room whom nobody needs.
    left: set when somebody's place was taken.
    ended: names of the sessions that have ended, the newest of them.
    late: set once it was logged that blocks come late.
    """

    engine: Engine
    kept: Kept
    gauges: Gauges
    resume_s: float
    picture: NDArray[np.uint8] | None = None
    rooms: dict[str, Room] = field(default_factory=dict)
    encoders: ThreadPoolExecutor = field(default_factory=lambda: _threads("encoder", 2))
    workers: ThreadPoolExecutor = field(default_factory=lambda: _threads("worker", 1))
    unpackers: ThreadPoolExecutor = field(default_factory=lambda: _threads("unpacker", 1))
    callers: ThreadPoolExecutor = field(default_factory=lambda: _threads("caller", 4))
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    door: asyncio.Lock = field(default_factory=asyncio.Lock)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    ended: deque[str] = field(default_factory=lambda: deque(maxlen=10_000))
    late: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def threads(self) -> tuple[ThreadPoolExecutor, ...]:
        """All threads but those of the engine and of the connections."""
        return self.encoders, self.workers, self.unpackers, self.callers

    async def call(self, call: Callable[[], Answer]) -> Answer:
        """What the engine gives to a call that waits for it."""
        return await asyncio.get_running_loop().run_in_executor(self.callers, call)

    async def unpack(self, call: Callable[[], Any]) -> Any:
        """What unpacking a picture gives; a hostile one is in the way of others alone."""
        return await asyncio.get_running_loop().run_in_executor(self.unpackers, call)

    async def picture_of(self, image: str) -> NDArray[np.uint8]:
        """The picture that a client sent, a PNG or JPEG in base64, fitted to the world: uint8 [1, H, W, 3].

        Raises:
            ProtocolError: it is none, torn or too large, see encoding.picture_of.
        """
        try:
            data = base64.b64decode(image, validate=True)
        except ValueError as error:  # binascii.Error is one
            raise ProtocolError("bad_image", f"an image is a PNG or JPEG in base64 ({error})") from error
        fitted: NDArray[np.uint8] = await self.unpack(lambda: picture_of(data, self.engine.world.size))
        return fitted[None]

    async def work(self, call: Callable[[], Any]) -> Any:
        """What a call gives that takes too long for the thread of the connections."""
        return await asyncio.get_running_loop().run_in_executor(self.workers, call)

    async def encode(self, call: Callable[[], Any]) -> Any:
        """What an encoder gives; nothing else that takes long is in its way."""
        return await asyncio.get_running_loop().run_in_executor(self.encoders, call)

    def check_place(self) -> None:
        """Raise ProtocolError unless there is a place, or somebody who makes room or would."""
        leaves = any(room.may_end or room.is_ending for room in self.rooms.values())
        if self.engine.open_sessions >= self.engine.capacity and not leaves:
            raise self._full()

    def check_fork(self) -> None:
        """Raise ProtocolError if there is never a place for a fork while the session lives that it is of."""
        if self.engine.capacity == 1:
            text = (
                "a fork takes a place of its own, and this server has 1, which is taken by the session to be forked. "
                "Whoever serves it makes more, if there is memory for them, with --max-sessions 2"
            )
            raise ProtocolError("full", text)

    def check_start(self, start: int | None) -> None:
        """Raise ProtocolError if a starting place is asked for and the world has none."""
        world = self.engine.world
        if start is not None and not len(world.origin.starts):
            text = f"{world.origin.name} has no starting places, got start {start}; leave start out, or send an image"
            raise ProtocolError("bad_field", text)

    def check_told(self) -> None:
        """Raise ProtocolError unless the world is told in words what to show."""
        if not self.engine.world.is_told:
            raise ProtocolError("no_prompts", f"{self.engine.world.origin.name} is steered by keys alone")

    def check_picture(self) -> None:
        """Raise ProtocolError if the world begins from pictures, because there is none."""
        if self.engine.world.needs_picture:
            raise ProtocolError("no_picture", f"{self.engine.world.origin.name} begins from a picture, and got none")

    def told(self, prompt: str) -> dict[str, str]:
        """What a session is opened with that begins with a prompt, "" for none; ProtocolError as for `check_told`."""
        if prompt:
            self.check_told()
        return {"prompt": prompt} if self.engine.world.is_told else {}

    def _full(self) -> ProtocolError:
        count = self.engine.capacity
        text = (
            f"all {count} places are taken; try again in a while. Whoever serves it makes more, if there is memory for "
            f"them, with --max-sessions {count + 1}"
        )
        return ProtocolError("full", text, close=1013, retry_after_ms=RETRY_MS)

    async def admit(self, begin: Callable[[], Session], *, instead: bool = False, evict: bool = True) -> LiveSession:
        """A session in the engine; whoever has waited longest for a lost player makes room for it.

        Args:
            begin: makes it.
            instead: it takes the place of one that is closed next. If the memory has no room for both it waits its
                turn, and no longer than TURN_S.
            evict: whether somebody who waits makes room for it.

        Raises:
            ProtocolError: every place is taken by somebody who is there, or its turn did not come.
        """
        async with AsyncExitStack() as turn:
            if instead:
                await self._wait_turn(turn)
            return await self._admit(begin, instead=instead, evict=evict)

    async def _wait_turn(self, turn: AsyncExitStack) -> None:
        """Wait until the engine has a place for one who takes that of another, and let nobody else look meanwhile."""
        try:
            async with asyncio.timeout(TURN_S):
                await turn.enter_async_context(self.turn)
                while self.engine.open_sessions >= self.engine.places:
                    self.left.clear()
                    await self.left.wait()
        except TimeoutError:
            text = "there is no memory to go over to another world while others do; try again in a while"
            raise ProtocolError("full", text, retry_after_ms=RETRY_MS) from None

    async def _admit(self, begin: Callable[[], Session], *, instead: bool, evict: bool) -> LiveSession:
        try:
            return await self.call(lambda: self.engine.admit(begin, instead=instead))
        except EngineFull as error:
            if instead or not evict:
                raise self._full() from error
        # Asked again and again, since whoever came at the same moment may be faster to take what was free.
        async with self.door:
            while True:
                try:
                    return await self.call(lambda: self.engine.admit(begin))
                except EngineFull as error:
                    if not await self._made_room():
                        raise self._full() from error

    async def _made_room(self) -> bool:
        """Wait until a session has ended: one that is ending, or who has waited longest; False if there is neither."""
        waiting = sorted(
            (room for room in self.rooms.values() if room.may_end), key=lambda room: room.waits_since or 0.0
        )
        leaving = [room for room in self.rooms.values() if room.is_ending] or waiting[:1]
        if leaving:
            ends = [asyncio.create_task(room.end()) for room in leaving]
            for end in (await asyncio.wait(ends, return_when=FIRST_COMPLETED))[0]:
                end.result()
        return bool(leaving)


def _threads(name: str, count: int) -> ThreadPoolExecutor:
    """So many threads, all of them begun, so that a server has as many when it is new as when it is old."""
    pool, all_there = ThreadPoolExecutor(count, thread_name_prefix=name), Barrier(count)
    wait([pool.submit(all_there.wait) for _ in range(count)])
    return pool
