"""Servers of worlds within one process: one for each way of making a world that somebody has chosen."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from types import TracebackType

from worldsim.cache.policies import parse_policy, policy_text
from worldsim.errors import ConfigError, NotShipped, UnknownName
from worldsim.presets import WORLDS, WorldRecipe, card, load
from worldsim.runtime.world import World
from worldsim.session.log import Opening
from worldsim_apps.gate import Door
from worldsim_apps.server import Server, Settings

MOST_STEPS = 4
MOST = 2
"""Servers at once; each has weights and a page pool of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which world, and how its blocks are made. Two that make equal blocks are equal.

    world: one of WORLDS.
    policy: what a block sees of the past, as parse_policy reads it.
    steps: backbone calls that denoise a block, 1 to MOST_STEPS.
    frames_per_block: a block length that the world was trained for.
    """

    world: str
    policy: str
    steps: int
    frames_per_block: int

    def __post_init__(self) -> None:
        if self.world not in WORLDS:
            raise UnknownName("world", self.world, WORLDS)
        object.__setattr__(self, "policy", policy_text(parse_policy(self.policy.strip())))
        if not 1 <= self.steps <= MOST_STEPS:
            raise ConfigError(f"a block is denoised in 1 to {MOST_STEPS} steps, got {self.steps}")
        blocks = self.recipe.blocks
        if self.frames_per_block not in blocks:
            known = ", ".join(map(str, blocks))
            raise ConfigError(f"{self.world} makes blocks of {known} frames, got {self.frames_per_block}")

    @property
    def recipe(self) -> WorldRecipe:
        """Of the world."""
        return WORLDS[self.world]

    @classmethod
    def of(cls, opening: Opening) -> Choice:
        """How the session that began so was made; errors as for a Choice, KeyError and TypeError if it says not."""
        plan = opening.plan
        return cls(
            world=opening.world,
            policy=str(plan["policy"]),
            steps=len(plan["sigmas"]),
            frames_per_block=plan["frames_per_block"],
        )

    def load(self, device: str) -> World:
        """That world, made that way; errors as for worldsim.load."""
        return load(
            self.world, device=device, policy=self.policy, steps=self.steps, frames_per_block=self.frames_per_block
        )


def shipped_worlds() -> tuple[str, ...]:
    """The worlds whose weights are in the package, in the order of WORLDS."""
    return tuple(name for name in WORLDS if _is_shipped(name))


def _is_shipped(name: str) -> bool:
    try:
        card(name)
    except NotShipped:
        return False
    return True


class Hosted:
    """A server on a thread of its own, from when it listens until it is closed.

    Args:
        world: which; nobody else may use it.
        settings: as for Server.
    """

    def __init__(self, world: World, settings: Settings) -> None:
        self.world = world
        self.server = Server(world, settings)
        self._ready: Future[None] = Future()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="server")
        self._ended = self._thread.submit(asyncio.run, self._serve())
        wait([self._ready, self._ended], return_when=FIRST_COMPLETED)
        if not self._ready.done():
            self._end()

    @property
    def url(self) -> str:
        """Of its player page, with a slash at the end."""
        return f"http://127.0.0.1:{self.server.port}/"

    def close(self) -> None:
        """Save every world that is lived in there, and end. Raises what ended it before, if something did."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._end()

    def _end(self) -> None:
        try:
            self._ended.result()
        finally:
            self._thread.shutdown()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with self.server.listening():
            self._ready.set_result(None)
            await self._stop.wait()


class Places:
    """The servers that are there. At the end of the context all are drained and every world is saved.

    Args:
        folder: where they keep worlds.
        origins: pages that may show their player page inside them, as for Door.
        device: where they compute, as for worldsim.load.
        most: how many there may be; the one that was asked for least lately makes room.
    """

    def __init__(self, folder: Path, *, origins: tuple[str, ...] = (), device: str = "auto", most: int = MOST) -> None:
        self.folder = folder
        self._door = Door(port=0, origins=origins)
        self._device = device
        self._most = most
        self._lock = Lock()
        self._hosted: OrderedDict[Choice, Hosted] = OrderedDict()
        self._is_closed = False

    @property
    def hosted(self) -> tuple[Hosted, ...]:
        """Those that are there, the one asked for last at the end."""
        with self._lock:
            return tuple(self._hosted.values())

    def open(self, choice: Choice) -> Hosted:
        """The server of a choice; made if it is not there, which takes as long as loading the world.

        Raises:
            ConfigError: the context has ended.
            WorldSimError: the world could not be loaded or served. Nobody had to make room for it then.
        """
        with self._lock:
            if self._is_closed:
                raise ConfigError("the app is ending; start it again")
            if choice not in self._hosted:
                settings = Settings(door=self._door, folder=self.folder)
                self._hosted[choice] = Hosted(choice.load(self._device), settings)
            self._hosted.move_to_end(choice)
            while len(self._hosted) > self._most:
                self._hosted.popitem(last=False)[1].close()
            return self._hosted[choice]

    def close(self) -> None:
        """Drain and end all of them. Closing twice is fine."""
        with self._lock:
            self._is_closed = True
            while self._hosted:
                self._hosted.popitem()[1].close()

    def __enter__(self) -> Places:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
