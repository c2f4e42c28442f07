"""One connection that a world is shown to: what it is told in text, and the frames, by a sender of its own."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, BinaryIO

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from worldsim.errors import ProtocolError
from worldsim.session.events import Codec, Role, write_message
from worldsim.session.machine import Relay
from worldsim.session.wire import Flag, Media, Piece
from worldsim_apps.gauges import Gauges

SEND_S = 10.0
"""A message that takes longer than this ends the connection: whoever is at the other end does not read."""
PROGRESS_S = 1.0
PIECE_S = 0.15
"""A piece of a film is as large as crosses in that time, since whatever is sent next comes after it."""
SMALLEST_BYTES, LARGEST_BYTES = 16 * 1024, 256 * 1024
BREATH_S = 0.02
"""Between two pieces: each is answered, and a client that says too much is cut off."""
MOST_FRAMES = 32
"""Frames that may wait for a spectator."""
MOST_TEXTS = 256
"""Messages of text that may wait for anybody."""


class Viewer:
    """See the module. It has no role until it is given one.

    Args:
        connection: which.
        gauges: where frames are counted.

    asks_seen: whether it is told of each block what that saw of the past.
    """

    def __init__(self, connection: ServerConnection, gauges: Gauges) -> None:
        self.role: Role | None = None
        self.codec: Codec = "jpeg"
        self.asks_seen = False
        self._connection = connection
        self._gauges = gauges
        self._relay = Relay[Media](MOST_FRAMES)
        self._texts: deque[str] = deque()
        self._file: BinaryIO | None = None
        self._total = 0
        self._piece_bytes = SMALLEST_BYTES
        self._is_crossing = False
        self._last: tuple[int, str] | None = None
        self._number = 0
        self._some = asyncio.Event()
        self._progress = 0.0
        self._sender = asyncio.create_task(self._send())

    @property
    def address(self) -> str:
        """Where the client is."""
        return str(self._connection.remote_address[0])

    @property
    def is_closing(self) -> bool:
        """Whether nothing that the client says counts any more."""
        return self._last is not None

    def become(self, role: Role, codec: Codec) -> None:
        """Who is there, and what the frames are sent as."""
        self.role, self.codec = role, codec
        self._relay = Relay(MOST_FRAMES if role == "spectator" else None)

    def tell(self, kind: str, **values: Any) -> None:
        """Send a message of text, before any frame that still waits."""
        if len(self._texts) >= MOST_TEXTS:
            self._connection.transport.abort()
        self._texts.append(write_message(kind, **values))
        self._some.set()

    def tell_progress(self, done: int, of: int) -> None:
        """Tell how much has been lived again, once a second at most."""
        now = monotonic()
        if not done:
            self._progress = now
        elif now - self._progress >= PROGRESS_S:
            self._progress = now
            self.tell("reliving", blocks=done, of=of)

    def refuse(self, error: ProtocolError, to: str | None) -> None:
        """Tell what went wrong with a message of that type, and close the connection if that is how bad it is."""
        self._gauges.refused.labels(error.code).inc()
        after = {} if error.retry_after_ms is None else {"retry_after_ms": error.retry_after_ms}
        retryable = error.retry_after_ms is not None
        self.tell("error", to=to, code=error.code, message=str(error), retryable=retryable, **after)
        if error.close is not None:
            self.close(error.close, error.code)

    def show(self, block: Sequence[Media]) -> None:
        """Send the frames of a block, as soon as it can take them."""
        dropped = self._relay.put([(media, Flag.KEY in media.flags) for media in block])
        if dropped:
            self._gauges.dropped.labels("slow").inc(dropped)
        self._some.set()

    @property
    def waiting(self) -> int:
        """Frames that wait to be sent."""
        return len(self._relay)

    def send(self, path: Path) -> bool:
        """Send a file in pieces, whenever nothing else waits and the last piece has arrived; False if there is none."""
        self._drop_file()
        if not path.is_file():
            return False
        self._file, self._total = path.open("rb"), path.stat().st_size
        self._some.set()
        return True

    def forget(self) -> None:
        """Send no frame that still waits."""
        self._relay.clear()

    def close(self, code: int, reason: str) -> None:
        """Close the connection after what is to be told; frames that still wait are not sent."""
        self._last = self._last or (code, reason)
        self._some.set()

    async def done(self) -> None:
        """Return when nothing more is sent."""
        await asyncio.wait([self._sender])

    def stop(self) -> None:
        """The connection is gone: send nothing more."""
        self._drop_file()
        self._sender.cancel()

    async def _send(self) -> None:
        try:
            while True:
                await self._some.wait()
                self._some.clear()
                while (message := self._next()) is not None:
                    async with asyncio.timeout(SEND_S):
                        await self._connection.send(message)
                if self._last is not None:
                    await self._connection.close(*self._last)
                    return
                if (piece := self._piece()) is not None:
                    async with asyncio.timeout(SEND_S):
                        await self._connection.send(piece)
                        pong = asyncio.ensure_future(await self._connection.ping())
                    pong.add_done_callback(partial(self._crossed, monotonic()))
        except TimeoutError:
            # A send that was given up leaves half a message behind; nothing can follow it.
            self._gauges.refused.labels("not_reading").inc()
            self._connection.transport.abort()
        except ConnectionClosed:
            return

    def _piece(self) -> bytes | None:
        """The next piece of the file that is being sent, unless one is on its way."""
        if self._file is None or self._is_crossing:
            return None
        self._is_crossing = True
        piece = Piece(offset=self._file.tell(), total=self._total, payload=self._file.read(self._piece_bytes))
        if piece.is_last or not piece.payload:
            self._drop_file()
        return piece.encode()

    def _crossed(self, since: float, pong: asyncio.Future[float]) -> None:
        """The ping behind a piece was answered: the piece has arrived, however much lies in buffers on the way."""
        fitting = round(self._piece_bytes * PIECE_S / max(monotonic() - since, 1e-3))
        self._piece_bytes = max(SMALLEST_BYTES, min(LARGEST_BYTES, 2 * self._piece_bytes, fitting))
        pong.get_loop().call_later(BREATH_S, self._go_on)

    def _go_on(self) -> None:
        self._is_crossing = False
        self._some.set()

    def _drop_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _next(self) -> str | bytes | None:
        if self._texts:
            return self._texts.popleft()
        media = None if self._last is not None else self._relay.take()
        if media is None:
            return None
        self._gauges.sent.inc()
        self._number += 1
        seen = media.seen if self.asks_seen else ()
        return replace(media, number=self._number - 1, seen=seen).encode()
