"""What the tests of the player page share: a server on a thread of its own, and a page in a real browser."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from worldsim.runtime.world import World
from worldsim_apps.gate import Door
from worldsim_apps.server import Server, Settings

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
QUIET = ("disable-gpu", "disable-quic", "no-first-run", "disable-background-networking", "disable-component-update")
NOT_THERE = "the page is tested in Chromium, which is not installed here (Debian: apt-get install chromium)"
READ = """() => {
  const canvas = document.getElementById("screen");
  return { ...canvas.dataset, url: canvas.toDataURL("image/png") };
}"""
LONGEST_S = 20.0


class Served:
    """A server of a world on a thread of its own, and a way to do something on that thread."""

    def __init__(self, world: World, folder: Path, **settings: Any) -> None:
        self._ready: Future[int] = Future()
        door = Door(port=settings.pop("port", 0), token=settings.pop("token", ""))
        self.server = Server(world, Settings(door=door, folder=folder, **settings))
        self._thread = Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._ready.result(LONGEST_S)}/"

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with self.server.listening():
            self._ready.set_result(self.server.port)
            await self._stop.wait()

    def do(self, call: Callable[[], Any]) -> Any:
        """What a call gives on the thread of the connections."""

        async def done() -> Any:
            return call()

        return asyncio.run_coroutine_threadsafe(done(), self._loop).result(LONGEST_S)

    def cut(self) -> None:
        """Break the connection of every player, in the middle of whatever is sent."""
        rooms = self.server.hall.rooms
        self.do(lambda: [room._player._connection.transport.abort() for room in rooms.values() if room._player])

    def close(self) -> None:
        """Drain, and wait until nothing is left."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(LONGEST_S)
        assert not self._thread.is_alive()


class Shown:
    """A player page that has been opened.

    problems: everything that the browser complained about.
    """

    def __init__(self, page: Any) -> None:
        self.page = page
        self.problems: list[str] = []
        page.on("console", lambda told: told.type in ("error", "warning") and self.problems.append(told.text))
        page.on("pageerror", lambda error: self.problems.append(str(error)))

    def open(self, url: str, *, until: str = "live") -> Shown:
        """Go there and wait until the page says that state."""
        self.page.goto(url)
        self.state(until)
        return self

    def state(self, kind: str) -> str:
        """Wait until the page is in that state; the text that says why."""
        self.page.wait_for_selector(f"#state[data-state={kind}]", timeout=LONGEST_S * 1_000)
        return str(self.page.inner_text("#message"))

    def until(self, is_so: Callable[[], Any]) -> Any:
        """Wait until it is so; what it gives then."""
        end = monotonic() + LONGEST_S
        while not (found := is_so()):
            assert monotonic() < end, self.page.evaluate("document.body.innerText")
            sleep(0.02)
        return found

    @property
    def told(self) -> str:
        """The line below the buttons."""
        return str(self.page.inner_text("#notice"))

    def read(self) -> tuple[int, NDArray[np.uint8]]:
        """The block that is on the canvas, and its pixels uint8 [H, W, 3]."""
        found = self.page.evaluate(READ)
        data = np.frombuffer(__import__("base64").b64decode(found["url"].partition(",")[2]), np.uint8)
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert picture is not None
        return int(found.get("block", -1)), np.asarray(picture[..., ::-1])

    def control(self, op: str, **fields: Any) -> Any:
        """What the server answers to a verb."""
        return self.page.evaluate("([op, fields]) => worldsim.link.control(op, fields)", [op, fields])

    def pause(self) -> int:
        """Stop the world; the number of blocks that were made, all of which are on the canvas then."""
        if self.page.get_attribute("#pause", "aria-pressed") == "false":
            self.page.click("#pause")
            self.state("paused")
        blocks = int(self.control("look")["blocks"])
        self.until(lambda: self.page.evaluate("worldsim.blocks") == blocks)
        return blocks

    def step(self, key: str = "") -> NDArray[np.uint8]:
        """The pixels of one more block of a paused world, with that key held down on the keyboard."""
        before = self.page.evaluate("worldsim.blocks")
        if key:
            self.page.focus("#screen")
            self.page.keyboard.down(key)
        self.control("step", blocks=1)
        self.until(lambda: self.page.evaluate("worldsim.blocks") == before + 1)
        if key:
            self.page.keyboard.up(key)
        return self.read()[1]


def digest(pixels: NDArray[np.uint8]) -> str:
    return hashlib.sha256(pixels.tobytes()).hexdigest()


@contextmanager
def browsing() -> Iterator[Any]:
    """A browser; what needs one is skipped where there is none."""
    if not CHROMIUM:
        pytest.skip(NOT_THERE)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", *(f"--{flag}" for flag in QUIET)]
        )
        yield browser
        browser.close()
