"""What a key takes to be seen in the player page, in headless Chromium on the same machine, and where the time goes.

    python -m benchmarks.live_browser

Keys are pressed at random moments while the world runs at its own pace; then two spectators watch for a while.
`--seconds 300` is ten minutes of the page; whatever the browser complains of meanwhile is noted.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from time import sleep, time
from typing import Annotated, Any
from unittest.mock import patch

import numpy as np
import typer

import worldsim
from benchmarks.live_wire import quantiles
from benchmarks.record import write
from worldsim.session.events import Act
from worldsim_apps.gate import Door
from worldsim_apps.room import Room
from worldsim_apps.server import Server, Settings
from worldsim_apps.stage import Stage

KEYS = ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp")
QUIET = ("disable-gpu", "disable-quic", "no-first-run", "disable-background-networking", "disable-component-update")
TRACE = """() => {
  const { screen, link } = worldsim, now = () => performance.timeOrigin + performance.now();
  const shown = screen.shown, hold = link.hold.bind(link);
  window.trace = { keys: [], frames: [] };
  let pressed = 0;
  document.addEventListener("keydown", (event) => { pressed = performance.timeOrigin + event.timeStamp; }, true);
  link.hold = (keys) => { const seq = hold(keys); if (keys.length) trace.keys.push([seq, pressed]); return seq; };
  screen.shown = (frame, told) => {
    shown(frame, told);
    trace.frames.push([frame.block, frame.action, now() - told.decodedMs, now()]);
  };
}"""


@dataclass(slots=True)
class Times:
    """When what happened in the server, in milliseconds of the clock that pages have too."""

    heard: dict[int, float] = field(default_factory=dict)
    begun: dict[int, float] = field(default_factory=dict)
    made: dict[int, float] = field(default_factory=dict)
    sent: dict[int, float] = field(default_factory=dict)

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note them for as long as the context lasts."""
        act, step, publish = Room.act, Stage.step, Room._publish

        def noting_act(room: Room, action: Act) -> None:
            self.heard[action.seq] = time() * 1e3
            act(room, action)

        async def noting_step(stage: Stage, keys: Any) -> Any:
            began = time() * 1e3
            chunk = await step(stage, keys)
            self.begun[chunk.block], self.made[chunk.block] = began, time() * 1e3
            return chunk

        def noting_publish(room: Room, shown: Any, block: int, sample: Any) -> None:
            self.sent[block] = time() * 1e3
            publish(room, shown, block, sample)

        with (
            patch.object(Room, "act", noting_act),
            patch.object(Stage, "step", noting_step),
            patch.object(Room, "_publish", noting_publish),
        ):
            yield


@contextmanager
def served(world: worldsim.World) -> Iterator[str]:
    """The address of the page of a server on a thread of its own."""
    ready: Future[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve(folder: str) -> None:
        server, stop = Server(world, Settings(door=Door(port=0), folder=Path(folder))), asyncio.Event()
        async with server.listening():
            ready.set_result((server.port, asyncio.get_running_loop(), stop))
            await stop.wait()

    with TemporaryDirectory() as folder:
        thread = Thread(target=lambda: asyncio.run(serve(folder)))
        thread.start()
        port, loop, stop = ready.result(30)
        try:
            yield f"http://127.0.0.1:{port}/"
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()


def press(page: Any, presses: int, seed: int) -> None:
    """Press keys for short moments, at random times."""
    rng = np.random.default_rng(seed)
    page.focus("#screen")
    for number in range(presses):
        sleep(float(rng.uniform(0.1, 0.5)))
        page.keyboard.press(KEYS[number % len(KEYS)], delay=float(rng.uniform(30, 120)))


def split(times: Times, keys: list[list[float]], frames: list[list[float]]) -> dict[str, Any]:
    """From the key event to the canvas, and the parts of it, of every action that a block was made under."""
    first = {int(action): (int(block), arrived, drawn) for block, action, arrived, drawn in reversed(frames)}
    parts: dict[str, list[float]] = {}
    for seq, pressed in keys:
        if int(seq) not in first:
            continue
        block, arrived, drawn = first[int(seq)]
        heard, begun, made, sent = times.heard[int(seq)], times.begun[block], times.made[block], times.sent[block]
        found = {
            "key_to_picture": drawn - pressed,
            "to_the_server": heard - pressed,
            "waiting_for_the_block": begun - heard,
            "making_it": made - begun,
            "encoding": sent - made,
            "to_the_page": arrived - sent,
            "decoding_and_drawing": drawn - arrived,
        }
        for name, taken in found.items():
            parts.setdefault(name, []).append(taken / 1e3)
    return {
        "actions": len(parts["key_to_picture"]),
        **{f"{name}_ms": quantiles(taken) for name, taken in parts.items()},
    }


def watch(page: Any, seconds: float) -> dict[str, float]:
    """Frames a second that are drawn, and the share of them that came more than half a frame's time late."""
    before = page.evaluate("[worldsim.screen.count, worldsim.screen.late]")
    sleep(seconds)
    after = page.evaluate("[worldsim.screen.count, worldsim.screen.late]")
    count, late = (now - then for now, then in zip(after, before, strict=True))
    return {"frames_per_second": count / seconds, "late": late / max(1, count)}


def main(
    presses: Annotated[int, typer.Option(min=5, help="Keys pressed.")] = 100,
    seconds: Annotated[float, typer.Option(help="For which frames are counted.")] = 20.0,
    seed: Annotated[int, typer.Option(help="Of the moments at which keys are pressed.")] = 0,
    name: Annotated[str, typer.Option(help="Of the file written to benchmarks/results.")] = "live_browser",
) -> None:
    """Measure the player page from the browser's side."""
    from playwright.sync_api import sync_playwright

    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    times = Times()
    with times.noted(), served(worldsim.load("crafter")) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", *(f"--{flag}" for flag in QUIET)]
        )
        page, complaints = browser.new_page(), list[str]()
        page.on("console", lambda told: complaints.append(told.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url)
        page.wait_for_selector("#state[data-state=live]")
        page.evaluate(TRACE)
        press(page, presses, seed)
        traced = page.evaluate("trace")
        alone = watch(page, seconds)
        link = f"{url}#watch={page.evaluate('worldsim.link.ticket.session')}"
        others = [browser.new_page() for _ in range(2)]
        for other in others:
            other.goto(link)
            other.wait_for_selector("#state[data-state=watching]")
        watched = {"player": watch(page, seconds), "spectators": [watch(other, seconds) for other in others]}
        found = {**split(times, **traced), "alone": alone, "with_two_spectators": watched}
        found |= {"browser": browser.version, "complaints": complaints}
        browser.close()
    typer.echo(found)
    write(name, {"presses": presses, "seconds": seconds, "seed": seed, **found})


if __name__ == "__main__":
    typer.run(main)
