"""The client for asyncio: one connection to a world, and as many after it as it takes."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

from worldsim.client.pictures import Pictures
from worldsim.errors import ConfigError, ProtocolError, SessionClosed
from worldsim.session.events import SUBPROTOCOL, Codec, Role, write_message
from worldsim.session.wire import PIECE, Flag, Media, Piece

MOST_BYTES = 64 << 20  # of one message that a client reads
ANSWER_S = 10.0  # for a server to answer a hello
FIRST_WAIT_S, LONGEST_WAIT_S = 0.05, 5.0
LOST = "the connection was lost before the answer came; it may have been done or not"
ANSWERED = {"hello", "start", "prompt", "control", "ping"}  # what errors answer; others are raised by `frame`
TRIES = 5  # to fetch a film
FINAL = {1000, 1008, 1009, 3000, 3003}  # codes after which it is no use to connect again, beside all from 4000 on


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Frame:
    """One frame of a world.

    pixels: uint8 [H, W, 3], RGB.
    block, frame: which frame of which block.
    epoch: rises when time jumps (a rewind, a load, a reset).
    action: number of the newest action in it, as `hold` returned it; 0 is none.
    seconds: world time since the session began.
    payload: the bytes that it was sent as.
    """

    pixels: NDArray[np.uint8] = field(repr=False)
    block: int
    frame: int
    epoch: int
    action: int
    seconds: float
    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Ticket:
    """What lets a client go on with a session: from `fork`, or of a client that was lost."""

    session: str
    resume: str


class Client:
    """One connection to a world. `async with Client(url) as client:`.

    Args:
        url: of the server, such as "ws://127.0.0.1:8765".
        codec: what frames are sent as: "jpeg", "h264" or "raw", which loses nothing.
        token: what the server was started with, if it asks for one.
        watch: name of a session to watch as a spectator; otherwise this is a player.
        ticket: of a session to go on with.

    welcome: what the server says of itself and its world.
    world: what the session is kept under.
    blocks: how many had been made when the server last said, which it does in answer to verbs.
    prompt: what the world is told to show, as the server last said; None if it is steered by keys alone.
    resumed: how often the connection was lost and taken up again.
    """

    def __init__(
        self, url: str, *, codec: Codec = "jpeg", token: str = "", watch: str = "", ticket: Ticket | None = None
    ) -> None:
        self.welcome: Mapping[str, Any] = {}
        self.world = ""
        self.prompt: str | None = None
        self.blocks = self.resumed = 0
        self._url = url.rstrip("/").removesuffix("/v1/world") + "/v1/world"
        self._role: Role = "spectator" if watch else "player"
        self._codec: Codec = codec
        self._token = token
        self._ticket = Ticket(watch, "") if watch else ticket
        self._connection: ClientConnection | None = None
        self._media: deque[Media] = deque()
        self._still: Media | None = None
        self._pieces = bytearray()
        self._film = ""  # the one that is made, else the last that ended
        self._answers: deque[dict[str, Any]] = deque()
        self._troubles: deque[dict[str, Any]] = deque()
        self._news = asyncio.Condition()
        self._seen, self._seq = (0, 0, -1), 0
        self._held: tuple[str, ...] | None = None
        self._over: Exception | None = None
        self._reader: asyncio.Task[None] | None = None
        self._verb = asyncio.Lock()
        self._pictures = Pictures()
        self._left = False

    async def __aenter__(self) -> Client:
        await self._connect()
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def is_closed(self) -> bool:
        """Whether `close` or `leave` was called."""
        return self._left

    @property
    def ticket(self) -> Ticket | None:
        """What lets another client go on with this session once this one is gone."""
        return self._ticket

    async def start(
        self, *, seed: int = 0, start: int | None = None, image: bytes = b"", prompt: str = "", pace: float = 1.0
    ) -> None:
        """Begin a session.

        Args:
            seed: of everything that is left to chance.
            start: number of a starting place; drawn by the seed if None.
            image: a PNG or JPEG to begin from instead.
            prompt: what is shown, in a world that is told.
            pace: world time for one second of real time; 0 is as fast as frames are taken.

        Raises:
            ProtocolError: the server refuses; its `code` says why.
        """
        picture = base64.b64encode(image).decode()
        await self._ask("started", "start", seed=seed, start=start, image=picture, prompt=prompt, pace=pace)

    async def hold(self, keys: Iterable[str]) -> int:
        """Hold these keys from the next block on; returns the number of the action, which frames carry.

        Raises:
            ConfigError: keys is a text, not a set of names, or no session has begun. A key that the world does not
                know is told by `frame`.
        """
        self._check_connected()
        if not self.world and self._over is None:
            raise ConfigError("no session has begun in which keys could be held; call start() or load() first")
        if isinstance(keys, str):
            raise ConfigError(f"keys are a set of names, got the text {keys!r}; pass {{{keys!r}}}")
        self._seq += 1
        self._held = tuple(sorted(keys))
        await self._say("action", seq=self._seq, keys=list(self._held))
        return self._seq

    async def set_prompt(self, text: str, over: int = 1) -> int:
        """Tell the world something from the next block on; returns the number of that block.

        Args:
            text: what is to be shown.
            over: blocks until it is heard alone; until then each hears a mean of both, with more and more of it.

        Raises:
            ProtocolError: the world is steered by keys alone, or this cannot be told to it; its `code` says which.
        """
        return int((await self._ask("state", "prompt", text=text, over=over))["blocks"])

    async def frame(self) -> Frame:
        """The next frame. A block counts as arrived, and a further one is made, when its last frame is taken.

        Raises:
            ProtocolError: a block could not be made; the world stands still until `resume`. Or what came is no frame.
            SessionClosed: the session or the connection has ended.
        """
        self._check_connected()
        async with self._news:
            await self._news.wait_for(lambda: self._media or self._troubles or self._over)
            if self._troubles:
                _raised(self._troubles.popleft())
            if self._over and not self._media:
                raise self._over
            media = self._media.popleft()
        frame = self._decode(media)
        if Flag.LAST in media.flags and self._role == "player" and self._over is None:
            await self._say("ack", epoch=media.epoch, blocks=media.block + 1)
        return frame

    async def __aiter__(self) -> AsyncIterator[Frame]:
        """All frames until this client is closed; errors as for `frame`, also where the session has ended otherwise."""
        while True:
            try:
                yield await self.frame()
            except SessionClosed:
                if self._left:
                    return
                raise

    async def pause(self) -> None:
        """Make no block until `resume`."""
        await self._control("state", op="pause")

    async def resume(self) -> None:
        """Go on after a pause."""
        await self._control("state", op="resume")

    async def step(self, blocks: int = 1) -> None:
        """Make so many blocks while paused."""
        await self._control("state", op="step", blocks=blocks)

    async def look(self) -> Frame:
        """What the world looks like now, a block or none having been made."""
        self._still = None
        await self._control("state", op="look")
        async with self._news:
            await self._news.wait_for(lambda: self._still or self._over)
            if self._still is None:
                assert self._over is not None
                raise self._over
            return self._decode(self._still)

    async def mark(self) -> int:
        """The number of a mark of this moment, for `rewind`."""
        return int((await self._control("marked", op="mark"))["mark"])

    async def rewind(self, blocks: int = 1, *, mark: int | None = None) -> None:
        """Go back so many blocks, or to a mark."""
        await self._control("state", op="rewind", blocks=blocks, mark=mark)

    async def fork(self) -> Ticket:
        """A ticket for a second session that begins with this one's past."""
        answer = await self._control("forked", op="fork")
        return Ticket(answer["session"], answer["resume"])

    async def record(self) -> None:
        """Make a film of what is shown from the next block on."""
        await self._control("recording", op="record")

    async def film(self) -> bytes:
        """End the film and fetch it: an MP4, with the keys held as subtitles. If none is made, the last that ended.

        Raises:
            ProtocolError: there is no film; or the connection was lost again and again before it had come, which is
                told with the code "lost", and the film can be asked for once more.
        """
        name = await self._end_film()
        for _ in range(TRIES):
            resumed, self._pieces = self.resumed, bytearray()
            try:
                total = (await self._control("sending", op="film", world=name))["bytes"]
            except ProtocolError as error:
                if error.code != "lost":
                    raise
                continue
            async with self._news:
                await self._news.wait_for(
                    lambda: len(self._pieces) >= total or self._over or self.resumed != resumed  # noqa: B023
                )
                if len(self._pieces) >= total:
                    return bytes(self._pieces)
                if self._over:
                    raise self._over
        raise _given_up("the film had come")

    async def save(self) -> str:
        """Keep the world as it is; returns the name to `load` it by."""
        return str((await self._control("saved", op="save"))["world"])

    async def load(self, world: str) -> None:
        """Go on where a kept world was; begins a session if there is none."""
        await self._control("state", "started", op="load", world=world)

    async def reset(
        self, *, seed: int = 0, start: int | None = None, image: bytes = b"", prompt: str | None = None
    ) -> None:
        """Begin anew: with what was told last if there is no prompt, and in a world of pictures with the last one."""
        picture = base64.b64encode(image).decode()
        await self._control("state", op="reset", seed=seed, start=start, image=picture, prompt=prompt)

    async def ping(self) -> float:
        """Seconds to the server and back."""
        began = asyncio.get_running_loop().time()
        await self._ask("pong", "ping", t=began)
        return asyncio.get_running_loop().time() - began

    async def close(self) -> None:
        """End the session and the connection. Closing twice is fine."""
        if self._over is None:
            await self._say("bye")
        await self.leave()

    async def leave(self) -> None:
        """End the connection alone: the session waits for whoever comes with its ticket, for a minute."""
        self._over, self._left = self._over or SessionClosed("this client was closed"), True
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait([self._reader])
        await self._tell()
        if self._connection is not None:
            await self._connection.close()

    async def _connect(self) -> None:
        """Open a connection and say hello, as who this is and up to where frames have arrived."""
        try:
            connection = await connect(
                self._url, subprotocols=[Subprotocol(SUBPROTOCOL)], compression=None, max_size=MOST_BYTES, proxy=None
            )
        except InvalidStatus as error:
            if error.response.status_code == 503:
                raise  # in a while it may be let in
            why = (error.response.body or b"").decode(errors="replace").strip()
            raise ProtocolError("refused", f"{self._url} answers {error.response.status_code}: {why}") from error
        except OSError as error:
            raise ConnectionError(
                f"nobody answers at {self._url} ({error}); start a server with `worldsim serve`, or check the address"
            ) from error
        ticket, (epoch, block, _) = self._ticket or Ticket("", ""), self._seen
        hello = {"role": self._role, "codecs": [self._codec], "token": self._token, "session": ticket.session}
        async with AsyncExitStack() as undo, asyncio.timeout(ANSWER_S):
            undo.push_async_callback(connection.close)
            await connection.send(write_message("hello", **hello, resume=ticket.resume, epoch=epoch, blocks=block))
            self.welcome = _raised(json.loads(await connection.recv()))
            if self._ticket is not None:
                # Nothing is said before this has come: whatever is said next makes the token before it worthless.
                self._situate(_raised(json.loads(await connection.recv())))
            undo.pop_all()
        self._connection = connection

    async def _read(self) -> None:
        """Take in what the server says, over as many connections as it takes."""
        while self._over is None:
            assert self._connection is not None
            try:
                async for message in self._connection:
                    await self._take(message)
            except ConnectionClosed:
                pass
            except (ProtocolError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
                self._over = SessionClosed(f"the server says what cannot be read: {error}")
            await self._lost(self._connection)

    async def _take(self, message: str | bytes) -> None:
        async with self._news:
            if isinstance(message, bytes) and message[:1] == bytes([PIECE]):
                self._pieces += Piece.decode(message).payload
            elif isinstance(message, bytes):
                self._receive(Media.decode(message))
            else:
                self._hear(json.loads(message))
            self._news.notify_all()

    def _receive(self, media: Media) -> None:
        if Flag.STILL in media.flags:
            self._still = media
            return
        at = (media.epoch, media.block, media.frame)
        if at <= self._seen and media.epoch == self._seen[0] and Flag.AGAIN in media.flags:
            return
        if media.epoch > self._seen[0]:
            self._media.clear()
        self._media.append(media)
        is_last = Flag.LAST in media.flags
        self._seen = (media.epoch, media.block + is_last, -1 if is_last else media.frame)

    def _hear(self, told: dict[str, Any]) -> None:
        self._situate(told)
        if told["type"] == "drain":
            self._ticket = None  # the session ends with the server; its world can be loaded from the next
        elif told["type"] == "error" and told.get("to") not in ANSWERED:
            self._troubles.append(told)
        elif self._verb.locked():
            self._answers.append(told)

    def _situate(self, told: dict[str, Any]) -> None:
        """Note which session this is, and where it is."""
        if told["type"] in ("started", "watching"):
            self._ticket = Ticket(told["session"], told.get("resume", ""))
        if told.get("epoch", 0) > self._seen[0]:
            self._media.clear()
            self._seen = (told["epoch"], 0, -1)
        self._seq = max(self._seq, told.get("seq", 0))
        if told["type"] == "film":
            self._film = told["name"]
        elif told["type"] != "error":
            self._film = told.get("recording") or told.get("film") or self._film
        self.blocks, self.prompt = told.get("blocks", self.blocks), told.get("prompt", self.prompt)
        if told["type"] != "saved":  # a saved world has a name of its own
            self.world = told.get("world", self.world)

    async def _end_film(self) -> str:
        """The name of the film that is made, which ends here, or of one that has ended."""
        for _ in range(TRIES):
            try:
                return str((await self._control("recorded", op="record", on=False))["name"])
            except ProtocolError as error:
                if error.code == "recording" and self._film:
                    return self._film
                if error.code != "lost":
                    raise
        raise _given_up("the film had ended")

    async def _lost(self, connection: ClientConnection) -> None:
        """Connect again if that is of use; otherwise everything that waits is told."""
        code, reason = connection.close_code or 1006, connection.close_reason or "the connection was lost"
        ticket, wait = self._ticket, FIRST_WAIT_S
        lasts = asyncio.get_running_loop().time() + float(self.welcome["limits"]["resume_s"])
        while ticket is not None and self._over is None and code < 4000 and code not in FINAL:
            try:
                await self._connect()
                self.resumed += 1
                await self._tell()
                if self._held is not None:
                    await self.hold(self._held)
                if self._verb.locked() and not self._answers:
                    await self._take(write_message("error", to="control", code="lost", message=LOST, retry_after_ms=0))
                return
            except ProtocolError as error:
                reason = str(error)
                break
            except (OSError, InvalidHandshake, ConnectionClosed):
                if asyncio.get_running_loop().time() + wait > lasts:
                    break
                await asyncio.sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT_S)
        hint = f"; its world is {self.world}, which `load` goes on with" if self.world else ""
        self._over = self._over or SessionClosed(f"the session has ended: {reason} (code {code}){hint}")
        await self._tell()

    async def _tell(self) -> None:
        """Have everybody who waits look again."""
        async with self._news:
            self._news.notify_all()

    async def _control(self, *kinds: str, **fields: Any) -> dict[str, Any]:
        return await self._ask(*kinds, "control", **fields)

    async def _ask(self, *kinds_and_type: str, **fields: Any) -> dict[str, Any]:
        """Say something and wait for an answer of one of these types; the last name is that of what is said."""
        return await asyncio.shield(self._asked(*kinds_and_type, **fields))

    async def _asked(self, *kinds_and_type: str, **fields: Any) -> dict[str, Any]:
        """What `_ask` waits for. It is not cancelled, so that nobody takes its answer for another."""
        *kinds, kind = kinds_and_type
        async with self._verb:
            await self._say(kind, **fields)
            while True:
                async with self._news:
                    await self._news.wait_for(lambda: self._answers or self._over)
                    if self._over and not self._answers:
                        raise self._over
                    answer = _raised(self._answers.popleft())
                if answer["type"] in kinds:
                    return answer

    def _check_connected(self) -> None:
        if self._reader is None:
            raise ConfigError("a client is connected for as long as its context lasts; write `async with Client(...)`")

    async def _say(self, kind: str, **fields: Any) -> None:
        self._check_connected()
        if self._over is not None:
            raise self._over
        assert self._connection is not None
        with suppress(ConnectionClosed):  # what is held and what has arrived is said again on the next connection
            await self._connection.send(write_message(kind, **fields))

    def _decode(self, media: Media) -> Frame:
        return Frame(
            pixels=self._pictures.pixels(media),
            block=media.block,
            frame=media.frame,
            epoch=media.epoch,
            action=media.action,
            seconds=media.time_us / 1e6,
            payload=media.payload,
        )


def _given_up(what: str) -> ProtocolError:
    text = f"the connection was lost {TRIES} times before {what}; ask for it again"
    return ProtocolError("lost", text, retry_after_ms=0)


def _raised(told: dict[str, Any]) -> dict[str, Any]:
    """The message, unless it is an error, which is raised."""
    if told["type"] == "error":
        raise ProtocolError(told["code"], told["message"], retry_after_ms=told.get("retry_after_ms"))
    return told
