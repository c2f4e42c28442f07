"""One session in an engine, and all that can be done to it between two blocks without holding up the others."""

from __future__ import annotations

import asyncio
import base64
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any, cast

import av
import numpy as np
from numpy.typing import NDArray

from worldsim.errors import LogError, ProtocolError, VideoError, WorldSimError
from worldsim.runtime.chunk import Chunk
from worldsim.runtime.engine import LiveSession
from worldsim.runtime.land import Land
from worldsim.runtime.mark import Mark
from worldsim.runtime.recording import Recording
from worldsim.runtime.session import Session
from worldsim.runtime.snapshot import Snapshot
from worldsim.session.log import SessionLog, Step
from worldsim_apps.encoding import png_of
from worldsim_apps.hall import Hall
from worldsim_apps.kept import size_of

MOST_MARKS = 256
HELD_MARKS = 4
"""The newest marks of a session, which are gone back to at once wherever it is."""
Wanted = Callable[[int, int], bool]


def refusal_of(error: WorldSimError | OSError) -> ProtocolError:
    """What a client is told of an error; where on this machine a file is, is none of its business."""
    return ProtocolError(type(error).__name__, words_of(error))


def words_of(error: BaseException | None) -> str:
    """What went wrong, without the path that an error of the file system names."""
    if isinstance(error, OSError) and not isinstance(error, WorldSimError):
        return error.strerror or "the file system failed"
    return str(error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """A recording that has ended: its name, its seconds of world time, its size, and what went wrong, in words."""

    name: str
    seconds: float
    bytes: int
    problem: str


class Stage:
    """See the module. One verb at a time.

    Args:
        hall: which server.
        world: what it is kept under.
        live: the session.

    owner: address of whoever plays it.
    damage: what of the files that it was loaded from could not be read, in words.
    ended_film: a film that ended by itself, with its session or on a full disk, and of which nobody was told yet.
    film: the name of the film that ended last.
    prompt: what the next block is told to show; None in a world that is steered by keys alone.
    exact: whether all of it came out as it was first made, bit for bit. What is lived again beside other sessions,
        or was made beside some at first, agrees about: blocks that are made together are rounded together.
    wanted: told between two blocks that are lived again how many are and of how many; says whether anybody still
        waits for them.
    """

    def __init__(self, hall: Hall, world: str, live: LiveSession) -> None:
        self.world = world
        self.live = live
        self.owner = "127.0.0.1"
        self.damage = ""
        self.exact = True
        self.wanted: Wanted = lambda done, of: True
        self._hall = hall
        self._marks: list[Snapshot] = []
        self._held: OrderedDict[int, Mark] = OrderedDict()
        self.ended_film: Film | None = None
        self.film: str | None = None
        self.prompt = live.session.prompt
        self._is_as_loaded = False
        self._film: tuple[str, Recording] | None = None

    @classmethod
    async def open(cls, hall: Hall, owner: str = "127.0.0.1", *, instead: bool = False, **beginning: Any) -> Stage:
        """A new session.

        Args:
            hall: which server.
            owner: address of whoever plays it.
            instead: it takes the place of one that is closed next.
            beginning: as for World.open; errors too, and ProtocolError where there is no place.
        """
        world = hall.kept.new_name(owner)
        place, log = hall.engine.world, hall.kept.log(world)
        stage = cls(hall, world, await hall.admit(lambda: place.open(**beginning, log=log), instead=instead))
        stage.owner = owner
        return stage

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
            LogError, SnapshotError: all that is kept is damaged, or it is of another world.
        """
        snapshot, beyond, damage = await hall.work(lambda: hall.kept.find(name))
        if beyond:  # they heard what was still to be heard, or it was forgotten
            snapshot = replace(snapshot, coming=None)
        if snapshot.state is None:
            beyond, snapshot = snapshot.log.steps, _begun(snapshot)
        stage = await cls._relive(hall, snapshot, beyond, instead=instead, wanted=wanted)
        stage.damage = damage
        stage._is_as_loaded = True
        hall.kept.begin_from(stage.world, name)
        return stage

    @property
    def block(self) -> int:
        """How many blocks have been made."""
        return self.live.session.block

    @property
    def recording(self) -> str | None:
        """The name of the film that is being made."""
        return self._film[0] if self._film else None

    async def step(self, keys: Iterable[str]) -> Chunk:
        """The next block; errors as for Session.step. A film that could not take it ends."""
        chunk, self._is_as_loaded = await asyncio.wrap_future(self.live.step(keys)), False
        if self._film is not None and self._film[1].error is not None:
            self.ended_film = await self.end_film()
        return chunk

    async def tell(self, prompt: str, over: int) -> None:
        """Tell the world something from the next block on; errors as for Session.set_prompt."""
        await self._do(lambda session: session.set_prompt(prompt, over=over))
        self.prompt = prompt

    async def again(self, prompt: str | None, image: str = "") -> dict[str, Any]:
        """What a session begins with that is begun anew in its place: what it is told and its picture, or these.

        Raises:
            ProtocolError: the world is told nothing, or the image is none.
        """
        anew: dict[str, Any] = {**self._hall.told(self.prompt or "" if prompt is None else prompt)}
        if image:
            anew["frames"] = await self._hall.picture_of(image)
        elif self._hall.engine.world.needs_picture:
            given = (await self._do(lambda session: session.log.opening)).given
            anew["frames"] = np.frombuffer(given.pixels, np.uint8).reshape(given.shape)
        return anew

    async def look(self) -> NDArray[np.uint8]:
        """What the world looks like now, uint8 [H, W, 3]."""
        return cast("NDArray[np.uint8]", await self._do(lambda session: session.look()))

    async def map(self) -> dict[str, Any]:
        """The places that are remembered, as a client is told: how many, a picture of them, and where the view is."""
        land: Land | None = await self._do(lambda session: session.land())
        if land is None:
            return {"places": 0, "picture": "", "view": [0, 0, 0, 0]}
        picture = base64.b64encode(await self._hall.encode(lambda: png_of(land.pixels, land.known))).decode()
        return {"places": int(land.known.sum()), "picture": picture, "view": [*land.view]}

    async def mark(self) -> int:
        """The number of a mark of this moment. The newest few hold memory, the others but what happened."""
        if len(self._marks) >= MOST_MARKS:
            raise ProtocolError("too_many", f"a session has at most {MOST_MARKS} marks")
        number = len(self._marks)
        snapshot, mark = await self._do(lambda session: (session.snapshot(keep="log"), session.mark()))
        self._marks.append(snapshot)
        self._held[number] = mark
        await self._drop(most=HELD_MARKS)
        return number

    async def rewind(self, blocks: int) -> None:
        """Go back so many blocks: at once as far as is remembered, else by living them again.

        Raises:
            ConfigError: so many have not been made.
        """
        await self._back(lambda session: _near(session, blocks))

    async def take_back(self) -> None:
        """Go back before the newest block, which nobody could be shown; what it heard first is still to be heard."""
        await self._back(_untold)

    async def _back(self, go: Callable[[Session], Snapshot | None]) -> None:
        """Go back on the engine's thread, or by living again what that gives."""
        lived, self.prompt = await self._do(lambda session: (go(session), session.prompt))
        if lived is not None:
            await self._turn_to(lived)

    async def go_to(self, mark: int) -> None:
        """Go back to a mark, or over to it if it is on a branch that was left."""
        if not 0 <= mark < len(self._marks):
            raise ProtocolError("no_mark", f"there is no mark {mark}; marks are numbered from 0 as `marked` said")
        if (held := self._held.get(mark)) is not None:
            self.prompt = await self._do(lambda session: _back_to(session, held))
            return
        wanted = self._marks[mark]
        is_there, self.prompt = await self._do(lambda session: (_is_back_at(session, wanted), session.prompt))
        if not is_there:
            await self._turn_to(wanted)

    async def record(self) -> str:
        """Make a film of what the session shows from the next block on; returns its name.

        Raises:
            ProtocolError: there is one in the making.
            VideoError: it cannot be begun, such as on a full disk; no file stays.
        """
        if self._film is not None:
            raise ProtocolError("recording", "this session is being recorded; end that first")
        kept = self._hall.kept
        name = kept.new_name(self.owner)
        path = kept.film(name)
        try:
            self._film = name, await self._do(lambda session: session.record(path))
        except VideoError as error:
            path.unlink(missing_ok=True)
            raise VideoError(str(error).replace(str(path), "the film")) from error
        return name

    async def end_film(self) -> Film:
        """End the film that is in the making; if the disk was full, what is in its file plays.

        Raises:
            ProtocolError: there is none.
        """
        if self._film is None:
            raise ProtocolError("recording", "this session is not being recorded")
        (name, recording), self._film = self._film, None
        self.film, problem = name, ""
        try:
            await asyncio.wrap_future(self._hall.engine.call(recording.close))
        except (WorldSimError, OSError, av.FFmpegError) as error:
            problem = str(error).replace(str(self._hall.kept.film(name)), "the film")
        self._hall.kept.settle(name, self.owner)
        seconds = recording.frames / self._hall.engine.world.fps
        return Film(name=name, seconds=seconds, bytes=size_of(self._hall.kept.film(name)), problem=problem)

    async def save(self) -> str:
        """Keep it as it is now under a name of its own, which is returned; what happens later does not change it."""
        name = self._hall.kept.new_name(self.owner)
        snapshot = await self._do(lambda session: session.snapshot())
        await self._hall.work(lambda: self._hall.kept.save(name, snapshot, self.owner))
        return name

    async def put_away(self) -> None:
        """Keep it under the name of its log, so that it can go on at once from its end."""
        kept, name = self._hall.kept, self.world
        outline, logged = await self._do(lambda session: session.outline())
        try:
            await self._hall.work(lambda: kept.save(name, outline, self.owner, logged=logged))
        except LogError:  # somebody has deleted its log; the session knows all that was in it
            snapshot = await self._do(lambda session: session.snapshot())
            await self._hall.work(lambda: kept.save(name, snapshot, self.owner))

    async def fork(self) -> Stage:
        """A second session that begins with this one's past; ProtocolError where there is no place for it."""
        self._hall.check_fork()
        world = self._hall.kept.new_name(self.owner)
        log, session = self._hall.kept.log(world), self.live.session
        twin = Stage(self._hall, world, await self._hall.admit(lambda: session.fork(log=log), evict=False))
        twin.owner, twin.exact = self.owner, self.exact
        self._hall.kept.begin_from(world, self.world)
        return twin

    async def close(self) -> None:
        """Give the place back. What was logged and saved stays, unless it was loaded and left as it was."""
        await self._leave()
        if self._is_as_loaded:
            self._hall.kept.forget(self.world)
        else:
            self._hall.kept.settle(self.world, self.owner)

    async def forget(self) -> None:
        """Give the place back and keep nothing."""
        await self._leave()
        self._hall.kept.forget(self.world)

    async def _leave(self) -> None:
        """End what hangs on the session, and the session."""
        await self._drop()
        if self._film is not None:
            self.ended_film = await self.end_film()
        try:
            await self._hall.call(self.live.close)
        finally:
            self._hall.left.set()

    async def become(self, other: Stage) -> None:
        """Go on as another session, whose place this one takes."""
        name, was_lived = self.world, self.block > 0 and not self._is_as_loaded
        await self._leave()
        self.live, self.world, self.exact, self.damage = other.live, other.world, other.exact, other.damage
        self.prompt, self._is_as_loaded = other.prompt, other._is_as_loaded
        if was_lived:
            self._hall.kept.settle(name, self.owner)
        else:
            self._hall.kept.forget(name)

    async def _turn_to(self, to: Snapshot) -> None:
        """Go on from where that snapshot was taken, by living its log again."""
        name, steps = self.world, to.log.steps
        await self.become(await self._relive(self._hall, _begun(to), steps, instead=True, wanted=self.wanted))
        self._hall.kept.begin_from(self.world, name)

    @classmethod
    async def _relive(
        cls, hall: Hall, begun: Snapshot, steps: tuple[Step, ...], *, instead: bool, wanted: Wanted
    ) -> Stage:
        """A session that has lived these steps after a snapshot, block by block in turn with the others.

        What the snapshot says is still to be heard is to be heard after them.
        """
        world = hall.kept.new_name()
        place, path, silent = hall.engine.world, hall.kept.log(world), replace(begun, coming=None)
        stage = cls(hall, world, await hall.admit(lambda: place.restore(silent, log=path), instead=instead))
        async with AsyncExitStack() as undo:
            undo.callback(hall.left.set)
            undo.push_async_callback(stage.forget)
            for done, recorded in enumerate(steps):
                if not wanted(done, len(steps)):
                    raise ProtocolError("ended", "nobody waits for that world any more")
                if recorded.prompt is not None:
                    await stage.tell(recorded.prompt, recorded.over)
                await stage.step(recorded.keys)
                stage.exact = stage.exact and stage.live.session.latest == recorded
            if begun.coming is not None:
                await stage.tell(*begun.coming)
            undo.pop_all()
        return stage

    async def _drop(self, most: int = 0) -> None:
        """Give the memory of all but so many marks back, on the engine's thread."""
        while len(self._held) > most:
            _, mark = self._held.popitem(last=False)
            await asyncio.wrap_future(self._hall.engine.call(mark.close))

    async def _do(self, verb: Callable[[Session], Any]) -> Any:
        return await asyncio.wrap_future(self.live.do(verb))


def _back_to(session: Session, mark: Mark) -> str | None:
    """Go back to a mark; returns what the next block is told there."""
    session.rewind(mark)
    return session.prompt


def _near(session: Session, blocks: int) -> Snapshot | None:
    """Go back if that is done at once, or if it cannot be done; otherwise what is to be lived again."""
    if session.remembered < blocks <= session.block:
        whole = session.snapshot(keep="log")
        steps = whole.log.steps[: len(whole.log.steps) - blocks]
        return replace(whole, log=SessionLog(opening=whole.log.opening, steps=steps))
    session.rewind(blocks)
    return None


def _untold(session: Session) -> Snapshot | None:
    """As `_near` by one block, but what that was the first to hear is to be heard next, unless there is newer."""
    newest, lived = session.latest, _near(session, 1)
    if newest is None or newest.prompt is None or session.coming is not None:
        return lived
    coming = newest.prompt, newest.over
    if lived is not None:
        return replace(lived, coming=coming)
    session.coming = coming
    return None


def _is_back_at(session: Session, wanted: Snapshot) -> bool:
    """Go back to where that snapshot was taken if it is on this branch and that is done at once."""
    lived, steps = session.log, wanted.log.steps
    blocks = session.block - len(steps)
    if lived.opening != wanted.log.opening or lived.steps[: len(steps)] != steps or blocks > session.remembered:
        return False
    session.rewind(blocks)
    session.coming = wanted.coming
    return True


def _begun(snapshot: Snapshot) -> Snapshot:
    """That snapshot without what was lived, which is then lived again."""
    return replace(snapshot, log=SessionLog(opening=snapshot.log.opening, steps=()))
