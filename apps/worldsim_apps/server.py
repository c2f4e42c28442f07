"""Worlds over WebSocket: `worldsim serve`. What is said over the wire is in docs/protocol.md."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from errno import EADDRINUSE
from functools import partial
from http import HTTPStatus
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray
from websockets.asyncio.server import Server as Listener
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.protocol import Event, State

from worldsim.errors import ConfigError, ProtocolError, WorldSimError
from worldsim.runtime.engine import Engine
from worldsim.runtime.world import World
from worldsim.session.events import (
    MOST_PROMPT,
    MOST_TEXT,
    SUBPROTOCOL,
    Ack,
    Act,
    Bye,
    Codec,
    Control,
    Hello,
    Message,
    Ping,
    Prompt,
    Start,
    Tell,
    type_of,
)
from worldsim.session.machine import SILENCE_S, WINDOW, Budget, Dialogue, Limits
from worldsim_apps.encoding import ENCODERS
from worldsim_apps.gate import Door, Gate
from worldsim_apps.gauges import Gauges
from worldsim_apps.hall import Hall
from worldsim_apps.kept import Kept
from worldsim_apps.pages import player_pages
from worldsim_apps.room import Room
from worldsim_apps.stage import Stage, refusal_of
from worldsim_apps.viewer import Viewer

PING_S = 10
MOST_UNREAD = 4 << 20
"""Bytes that may wait for a client that does not read. Answers to its pings are not held back by anything else."""
WRITE_LIMIT = 256 * 1024
PIECE = 4_096
MOST_AFTER = 256 * 1024
"""Bytes that are read of a client that was sent away, or has not said what it wants, until it is cut off."""
SPARE_PER_S, SPARE_AT_ONCE = 60, 600
"""Frames of WebSocket that begin no message: pings, pongs, and the pieces of messages that come in many."""
IDLE_S = 1.0
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a server is run.

    door: where it listens, and to whom.
    folder: where it keeps worlds.
    sessions: how many there may be; as many as there is memory for if None.
    resume_s: how long a session waits for a player whose connection was lost.
    limits: what one connection may do.
    picture: what sessions begin from whose clients say nothing of that, uint8 [1, H, W, 3].
    """

    door: Door = field(default_factory=Door)
    folder: Path = Path("worlds")
    sessions: int | None = None
    resume_s: float = 60.0
    limits: Limits = field(default_factory=Limits)
    picture: NDArray[np.uint8] | None = None


class Guarded(ServerConnection):
    """A connection that is given up when its client asks and asks and never reads, or when too many are open.

    Args:
        gate: counts it, from before it says anything.
    """

    def __init__(self, gate: Gate, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._gate = gate
        self._after = 0
        self._spare = Budget(SPARE_PER_S, SPARE_AT_ONCE, monotonic())

    @property
    def _address(self) -> str:
        return str(self.remote_address[0])

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        super().connection_made(transport)
        self._gate.reach(id(self), self._address, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._gate.leave(id(self), self._address)
        super().connection_lost(exc)

    def process_event(self, event: Event) -> None:
        """See ServerConnection."""
        is_spare = isinstance(event, Frame) and event.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CLOSE)
        if is_spare and not self._spare.take(monotonic()):
            self._gate.refused("frames")
            self.transport.abort()
            return
        super().process_event(event)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol; in pieces, so that little is read of what is too much."""
        for at in range(0, len(data), PIECE):
            if self.transport.is_closing():
                return
            self._after += len(data[at : at + PIECE]) if self.protocol.state is not State.OPEN else 0
            if self._after > MOST_AFTER:
                return self.transport.abort()
            super().data_received(data[at : at + PIECE])
            if self.transport.get_write_buffer_size() > MOST_UNREAD:
                self.transport.abort()


class Server:
    """One world served to many. `async with server.listening():` opens and drains it.

    Args:
        world: which; nobody else may use it.
        settings: see there.
    """

    def __init__(self, world: World, settings: Settings) -> None:
        self._world = world
        self._settings = settings
        self._draining = False
        kept = Kept(settings.folder)
        engine = Engine(world, sessions=settings.sessions)
        gauges = Gauges(lambda: world.pool.used, self._sessions)
        self.hall = Hall(engine, kept, gauges, settings.resume_s, settings.picture)
        self._gate = Gate(
            settings.door,
            self._health,
            gauges.text,
            lambda why: gauges.refused.labels(why).inc(),
            player_pages(settings.door.origins),
        )

    @property
    def port(self) -> int:
        """Where it listens, once it does."""
        return self._gate.port

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Listener]:
        """Serve until the end of the context; then save every world, send everybody away, and end the engine."""
        try:
            async with AsyncExitStack() as stack:
                listener = await self._listen(stack)
                self._gate.port = next(iter(listener.sockets)).getsockname()[1]
                try:
                    yield listener
                finally:
                    await self._drain()
                    listener.close(code=1012, reason="restart")
        finally:
            await self._drain()  # who began while the others were sent away
            for threads in self.hall.threads:
                threads.shutdown()
            self.hall.engine.close()

    async def _listen(self, stack: AsyncExitStack) -> Listener:
        door = self._settings.door
        listening = serve(
            self._talk,
            door.host,
            door.port,
            process_request=self._gate,
            create_connection=partial(Guarded, self._gate),  # type: ignore[arg-type]
            subprotocols=[SUBPROTOCOL],  # type: ignore[list-item]
            compression=None,
            max_size=MOST_TEXT,
            max_queue=16,
            write_limit=WRITE_LIMIT,
            open_timeout=self._settings.limits.hello_s,
            ping_interval=PING_S,
            ping_timeout=PING_S,
            close_timeout=3,
            server_header=None,
        )
        try:
            return await stack.enter_async_context(listening)
        except OSError as error:
            raise ConfigError(_why_not(door, error)) from error

    async def _drain(self) -> None:
        self._draining = True
        while self.hall.rooms:  # the last verb of one may be a fork
            rooms = [room.drain() for room in list(self.hall.rooms.values())]
            for failed in await asyncio.gather(*rooms, return_exceptions=True):
                if failed is not None:
                    log.error("a session was not drained as it should", exc_info=failed)

    def _sessions(self, state: str) -> int:
        return sum(room.state == state for room in self.hall.rooms.values())

    def _health(self) -> tuple[HTTPStatus, str]:
        if self._draining:
            return HTTPStatus.SERVICE_UNAVAILABLE, "draining\n"
        return HTTPStatus.OK, "ok\n"

    async def _talk(self, connection: ServerConnection) -> None:
        """Everything that one connection says, from its hello to its end."""
        visit = Visit(self, connection, self._settings.limits)
        self._gate.speak(id(connection), visit.address)
        with self._gate.inside(visit.address):
            try:
                while True:
                    async with asyncio.timeout_at(visit.deadline):
                        message = await connection.recv()
                    await visit.hear(message)
            except TimeoutError:
                await connection.close(3008, "start" if visit.has_said_hello else "hello")
            except ConnectionClosed:
                pass
            finally:
                await visit.end()

    def welcome(self) -> dict[str, Any]:
        """What a client has to know of this server and its world."""
        world, limits = self._world, self._settings.limits
        actions = {action.name: list(action.keys) for action in world.controls.actions}
        return {
            "name": world.origin.name,
            "size": list(world.size),
            "fps": world.fps,
            "frames_per_block": world.frames_per_block,
            "actions": actions,
            "starts": len(world.origin.starts),
            "prompts": world.is_told,
            "pictures": world.needs_picture,
            "codecs": list(ENCODERS),
            "limits": {
                **asdict(limits),
                "message_bytes": MOST_TEXT,
                "prompt_characters": MOST_PROMPT,
                "window_blocks": WINDOW,
                "silence_s": SILENCE_S,
                "resume_s": self.hall.resume_s,
                "remembered_s": world.remembered_frames / world.fps,
            },
        }

    def check(self, token: str) -> None:
        """Raise ProtocolError unless that token lets somebody in."""
        self._settings.door.check(token)


class Visit:
    """One connection: what it says is checked by a Dialogue and passed on to its room."""

    def __init__(self, server: Server, connection: ServerConnection, limits: Limits) -> None:
        self._server = server
        self._hall = server.hall
        self._connection = connection
        self._dialogue = Dialogue(limits, monotonic())
        self._viewer = Viewer(connection, server.hall.gauges)
        self._room: Room | None = None
        self._said_bye = False
        self._start_s = limits.start_s
        self._until = asyncio.get_running_loop().time() + limits.hello_s

    @property
    def address(self) -> str:
        """Where the client is."""
        return self._viewer.address

    @property
    def has_said_hello(self) -> bool:
        """Whether the client has said who it is."""
        return self._dialogue.role is not None

    @property
    def deadline(self) -> float | None:
        """Until when something has to be heard, by the clock of the loop; None once it plays or watches a session."""
        return None if self._room is not None else self._until

    async def hear(self, message: str | bytes) -> None:
        """Do what the client says, or tell it why not."""
        if self._viewer.is_closing:
            return
        try:
            await self._do(self._dialogue.hear(message, monotonic()))
        except ProtocolError as error:
            self._viewer.refuse(error, type_of(message))
        except (WorldSimError, OSError) as error:
            self._viewer.refuse(refusal_of(error), type_of(message))

    async def end(self) -> None:
        """The connection is gone."""
        if self._room is not None:
            was_player = self._room.leave(self._viewer, said_bye=self._said_bye)
            if self._said_bye and was_player:
                await self._room.end(save=False)
        self._viewer.stop()

    async def _do(self, heard: Message) -> None:
        room = self._room
        if room is not None and self._viewer.role == "player":
            room.hear(heard if isinstance(heard, Ack) else None)
        match heard:
            case Hello():
                self._greet(heard)
            case Start():
                self._hall.check_start(heard.start)
                self._hall.check_place()
                beginning: dict[str, Any] = {"seed": heard.seed, "start": heard.start}
                beginning |= self._hall.told(heard.prompt)
                if heard.image and heard.start is not None:
                    raise ProtocolError("bad_field", "start: begin from a start or from an image, not from both")
                if heard.image:
                    beginning["frames"] = await self._hall.picture_of(heard.image)
                elif heard.start is None and self._hall.picture is not None:
                    beginning["frames"] = self._hall.picture
                else:
                    self._hall.check_picture()
                self._begin(await Stage.open(self._hall, self.address, **beginning), heard.pace)
            case Control() if room is None:
                self._hall.check_place()
                self._begin(await Stage.load(self._hall, heard.world, wanted=self._is_there), 1.0)
            case Control() | Prompt() if room is not None:
                room.ask(self._viewer, heard)
            case Act() if room is not None:
                room.act(heard)
            case Tell():
                self._viewer.asks_seen = heard.seen
            case Ping():
                self._viewer.tell("pong", t=heard.t)
            case Bye():
                self._said_bye = True
                self._viewer.tell("bye")
                self._viewer.close(1000, "bye")

    def _greet(self, hello: Hello) -> None:
        self._server.check(hello.token)
        codecs: list[Codec] = [codec for codec in ENCODERS if codec in hello.codecs]
        codecs.sort(key=hello.codecs.index)
        if not codecs:
            raise ProtocolError("no_codec", f"frames come as {', '.join(ENCODERS)}; name one of them", close=4400)
        room = self._hall.rooms.get(hello.session)
        if hello.role == "spectator" and hello.session and room is None and hello.session not in self._hall.ended:
            raise ProtocolError("no_session", "there was no session of that name since this server began", close=4404)
        if hello.session and (room is None or room.is_ending):
            raise ProtocolError("no_session", "that session has ended; what was kept of it can be loaded", close=4410)
        self._until = asyncio.get_running_loop().time() + self._start_s
        self._viewer.become(hello.role, codecs[0])
        self._viewer.tell("welcome", **self._server.welcome())
        if room is None:
            if hello.role == "spectator":
                raise ProtocolError("no_session", "a spectator says which session to watch", close=4400)
            return
        if hello.role == "spectator":
            room.watch(self._viewer)
        else:
            self._viewer.codec = room.codec
            room.come_back(self._viewer, hello)
        self._enter(room)

    def _begin(self, stage: Stage, pace: float) -> None:
        stage.owner = self.address
        room = Room(self._hall, stage, self._viewer.codec, pace)
        room.enter(self._viewer)
        self._enter(room)

    def _is_there(self, done: int, of: int) -> bool:
        self._viewer.tell_progress(done, of)
        return self._connection.state is State.OPEN

    def _enter(self, room: Room) -> None:
        self._room = room
        self._dialogue.live = True


async def run(world: World, settings: Settings, on_ready: Callable[[int], None]) -> None:
    """Serve until SIGTERM or Ctrl-C, then drain.

    Args:
        world: which.
        settings: how.
        on_ready: told the port, once connections are taken.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = Server(world, settings)
    async with server.listening():
        on_ready(server.port)
        warming = asyncio.create_task(_begin_everywhere(server.hall.engine))
        await stop.wait()
        warming.cancel()


def _why_not(door: Door, error: OSError) -> str:
    """Why a server cannot listen there, and what to do."""
    if error.errno == EADDRINUSE:
        return f"port {door.port} of {door.host} is taken; choose another with --port, or 0 for any that is free"
    why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
    return (
        f"cannot listen at host {door.host}, port {door.port} ({why}); name an address of this machine with --host, "
        "and a port that may be used with --port, or 0 for any that is free"
    )


async def _begin_everywhere(engine: Engine) -> None:
    """Begin at each starting place once while nobody plays, since the first time takes long and holds up who does."""
    for place in range(len(engine.world.origin.starts)):
        while engine.open_sessions:
            await asyncio.sleep(IDLE_S)
        await asyncio.wrap_future(engine.call(partial(_begin, engine.world, place)))


def _begin(world: World, place: int) -> None:
    world.open(start=place).close()
