"""The client for programs without asyncio: a `Client` on a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from contextlib import ExitStack
from threading import Thread
from typing import Any, TypeVar

from worldsim.client.live import Client, Frame, Ticket
from worldsim.errors import SessionClosed

Answer = TypeVar("Answer")


class BlockingClient:
    """A `Client` for programs without asyncio; the same arguments, methods and errors. A context manager."""

    def __init__(self, url: str, **settings: Any) -> None:
        self._client = Client(url, **settings)
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="worldsim-client", daemon=True)
        self._thread.start()

    def __enter__(self) -> BlockingClient:
        with ExitStack() as undo:
            undo.callback(self.leave)
            self._wait(self._client.__aenter__())
            undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def welcome(self) -> Mapping[str, Any]:
        """What the server says of itself and its world."""
        return self._client.welcome

    @property
    def world(self) -> str:
        """What the session is kept under."""
        return self._client.world

    @property
    def blocks(self) -> int:
        """How many had been made when the server last said."""
        return self._client.blocks

    @property
    def prompt(self) -> str | None:
        """See Client."""
        return self._client.prompt

    @property
    def ticket(self) -> Ticket | None:
        """See Client.ticket."""
        return self._client.ticket

    def start(
        self, *, seed: int = 0, start: int | None = None, image: bytes = b"", prompt: str = "", pace: float = 1.0
    ) -> None:
        """See Client.start."""
        self._wait(self._client.start(seed=seed, start=start, image=image, prompt=prompt, pace=pace))

    def hold(self, keys: Iterable[str]) -> int:
        """See Client.hold."""
        return self._wait(self._client.hold(keys))

    def set_prompt(self, text: str, over: int = 1) -> int:
        """See Client.set_prompt."""
        return self._wait(self._client.set_prompt(text, over))

    def frame(self) -> Frame:
        """See Client.frame."""
        return self._wait(self._client.frame())

    def __iter__(self) -> Iterator[Frame]:
        """All frames until this client is closed; errors as for `frame`, also where the session has ended otherwise."""
        while True:
            try:
                yield self.frame()
            except SessionClosed:
                if self._loop.is_closed() or self._client.is_closed:
                    return
                raise

    def pause(self) -> None:
        """See Client.pause."""
        self._wait(self._client.pause())

    def resume(self) -> None:
        """See Client.resume."""
        self._wait(self._client.resume())

    def step(self, blocks: int = 1) -> None:
        """See Client.step."""
        self._wait(self._client.step(blocks))

    def look(self) -> Frame:
        """See Client."""
        return self._wait(self._client.look())

    def mark(self) -> int:
        """See Client.mark."""
        return self._wait(self._client.mark())

    def rewind(self, blocks: int = 1, *, mark: int | None = None) -> None:
        """See Client.rewind."""
        self._wait(self._client.rewind(blocks, mark=mark))

    def fork(self) -> Ticket:
        """See Client.fork."""
        return self._wait(self._client.fork())

    def record(self) -> None:
        """See Client.record."""
        self._wait(self._client.record())

    def film(self) -> bytes:
        """See Client.film."""
        return self._wait(self._client.film())

    def save(self) -> str:
        """See Client.save."""
        return self._wait(self._client.save())

    def load(self, world: str) -> None:
        """See Client.load."""
        self._wait(self._client.load(world))

    def reset(self, *, seed: int = 0, start: int | None = None, image: bytes = b"", prompt: str | None = None) -> None:
        """See Client.reset."""
        self._wait(self._client.reset(seed=seed, start=start, image=image, prompt=prompt))

    def ping(self) -> float:
        """See Client.ping."""
        return self._wait(self._client.ping())

    def close(self) -> None:
        """End the session, the connection and the thread. Closing twice is fine."""
        self._end(self._client.close())

    def leave(self) -> None:
        """See Client.leave; the thread ends too."""
        self._end(self._client.leave())

    def _end(self, last: Coroutine[Any, Any, None]) -> None:
        if not self._loop.is_closed():
            self._wait(last)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
        last.close()

    def _wait(self, asked: Coroutine[Any, Any, Answer]) -> Answer:
        if self._loop.is_closed():
            asked.close()
            raise SessionClosed("this client was closed")
        return asyncio.run_coroutine_threadsafe(asked, self._loop).result()
