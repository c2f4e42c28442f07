"""The Crafter engine behind held keys: procedural terrain, animals, day and night, an inventory.

Source: Hafner 2021, "Benchmarking the Spectrum of Agent Capabilities" (arXiv:2109.06780); PyPI `crafter`, MIT.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from worldsim.controls import Action, Controls, Keys
from worldsim.errors import ConfigError, MissingDependency, installing

if TYPE_CHECKING:
    from worldsim.simulators.protocol import Frame

TILE_PX = 8
GRID = (9, 9)
LOCAL_ROWS = 7
WALKABLE = ("grass", "sand", "path")
DAY_FRAMES = 300
LEFT_TO_CHANCE = ("health", "food", "drink", "energy", "sapling")
"""What no frame foretells for sure: an event that told it would be drawn for what chance made of it."""
ORES = ("coal", "iron", "diamond")
BESIDE = np.array([(-1, 0), (1, 0), (0, -1), (0, 1)])
UNTOLD = 1 / 8
"""Share of the varied episodes that do not tell the hour, so that a world also learns to go on from frames alone."""

FAINT = 1 / 8
"""Share of the varied episodes with grace in which the player begins without health, as it is after a day without
water: most players of a generated world soon are, and what follows a death takes hundreds of frames."""

CROWDED = 1 / 8
"""Share of the varied episodes with grace that begin among zombies, more than the engine lets live. It takes one
away in three seconds by day; a generated world that has never seen so many keeps all that a night has brought."""
CROWD = (2, 9)
"""How many of them come, at least, and fewer than."""
CROWD_FRAMES = 100
"""How long such an episode is: by then most have left."""

CONTROLS = Controls(
    exclusive=True,
    day=DAY_FRAMES,
    actions=(
        Action(name="make_iron_sword", keys=("KeyK",)),
        Action(name="make_iron_pickaxe", keys=("KeyI",)),
        Action(name="make_stone_sword", keys=("KeyJ",)),
        Action(name="make_stone_pickaxe", keys=("KeyU",)),
        Action(name="make_wood_sword", keys=("KeyH",)),
        Action(name="make_wood_pickaxe", keys=("KeyY",)),
        Action(name="place_plant", keys=("KeyP",)),
        Action(name="place_furnace", keys=("KeyF",)),
        Action(name="place_table", keys=("KeyT",)),
        Action(name="place_stone", keys=("KeyR",)),
        Action(name="sleep", keys=("KeyZ",)),
        Action(name="do", keys=("Space", "Enter")),
        Action(name="move_left", keys=("KeyA", "ArrowLeft")),
        Action(name="move_right", keys=("KeyD", "ArrowRight")),
        Action(name="move_up", keys=("KeyW", "ArrowUp")),
        Action(name="move_down", keys=("KeyS", "ArrowDown")),
    ),
)


class Crafter:
    """One Crafter world at a time, rendered so that every tile is exactly 8 x 8 pixels.

    Args:
        varied: begin each episode at an hour, mostly at a place, and with an inventory drawn from its seed, so that
            recordings also hold nights, caves, shores, tools and ores without the hours of play that lead there; in one
            episode of eight the hour is not told. Off, an episode begins as the engine begins it: morning, the middle
            of the map, empty hands.
        calm: draw the static of the night, random grey at every pixel, at its mean, as fog. Nothing else changes: the
            same seed and keys lead to the same world. No model can foretell the static.
        grace: how many frames without health the player lives through, in all. A generated world never ends: it has to
            have seen what follows. Nothing else changes, and whoever eats and drinks gets well again.
    """

    controls = CONTROLS
    fps = 8
    size = (GRID[0] * TILE_PX, GRID[1] * TILE_PX)

    def __init__(self, *, varied: bool = False, calm: bool = False, grace: int = 0) -> None:
        self._varied = varied
        self._calm = calm
        self._grace = self._left = grace
        self._end = 0
        self._env: Any = None
        self._over = True
        self._told = True
        self._event = ""

    def reset(self, seed: int) -> Frame:
        """Begin the episode of that seed, a whole number from 0; returns its first frame, uint8 [72, 72, 3]."""
        if seed < 0:
            raise ConfigError(f"a seed is a whole number from 0, got {seed}")
        self._env = _deterministic_env(seed)
        if self._calm:
            _calm_night(self._env._local_view)
        frame = self._env.reset()
        self._over, self._left, self._end = False, self._grace, self._env._length
        self._event = ""
        if self._varied:
            self._vary(np.random.default_rng([seed, 1]))
            self._told = bool(np.random.default_rng([seed, 4]).random() >= UNTOLD)
            if self._grace and np.random.default_rng([seed, 5]).random() < FAINT:
                self._env._player.inventory.update(health=0, drink=0)
            crowd = np.random.default_rng([seed, 6])
            if self._grace and crowd.random() < CROWDED:
                self._crowd(crowd)
                self._end = self._env._step + CROWD_FRAMES
            frame = self._env.render()
        return np.ascontiguousarray(frame)

    def step(self, keys: Keys) -> Frame:
        """Advance by one frame (an eighth of a second) with these keys held; returns it, uint8 [72, 72, 3]."""
        held = self.controls.held(keys)
        name = held[0].name if held else "noop"
        asleep = self.env._player.sleeping
        faced, place, had = self._faced(), tuple(self.env._player.pos), dict(self.env._player.inventory)
        frame, _, over, _ = self.env.step(self.env.action_names.index(name))
        self._left -= not self.env._player.health
        is_late = self.env._step >= self._end
        self._over = is_late or (over and self._left < 0)
        moved = tuple(self.env._player.pos) != place
        have = {item: now for item, now in self._have().items() if item not in LEFT_TO_CHANCE}
        changes = [f"{item}{'+' if now > had[item] else '-'}" for item, now in have.items() if now != had[item]]
        what = [faced] if name.startswith(("do", "place")) else ["moved"] if moved else []
        self._event = "asleep" if asleep else " ".join([name, *what, *changes])
        return np.ascontiguousarray(frame)

    def close(self) -> None:
        """End the episode; nothing runs beside it."""
        self._env = None
        self._over = True

    @property
    def over(self) -> bool:
        """Whether the player has died, its grace used up, or the engine's own time limit was reached."""
        return self._over

    @property
    def hour(self) -> int | None:
        """The frame of the day that was shown last, 0 to 299; None if this episode does not tell."""
        return self.env._step % DAY_FRAMES if self._told else None

    @property
    def event(self) -> str:
        """The action of the last step, what it was done to, and what that is bound to change: "do tree wood+"."""
        return self._event

    @property
    def env(self) -> Any:
        """The engine itself, for whoever needs its truth: an explorer, a benchmark."""
        if self._env is None:
            raise ConfigError("no episode has begun; call reset(seed) first")
        return self._env

    def _have(self) -> dict[str, int]:
        inventory: dict[str, int] = self.env._player.inventory
        return inventory

    def _faced(self) -> str:
        """What the player looks at: a creature by its class, or else a material."""
        player = self.env._player
        material, found = self.env._world[player.pos + player.facing]
        return type(found).__name__ if found else str(material)

    def _vary(self, rng: np.random.Generator) -> None:
        self._env._step = int(rng.integers(DAY_FRAMES))
        self._env._update_time()
        player = self._env._player
        for place in self._places(rng):
            if player.is_free(place, WALKABLE):
                self._env._world.move(player, place)
                break
        if rng.random() < 0.2:
            return
        inventory = player.inventory
        for name in inventory:
            if name in ("health", "food", "drink", "energy"):
                inventory[name] = int(rng.integers(6 if name == "health" else 4, 10))
            elif rng.random() < (0.75 if "pickaxe" in name else 0.5):
                inventory[name] = int(rng.integers(1, 8)) if "_" not in name else 1

    def _crowd(self, rng: np.random.Generator) -> None:
        """Have zombies stand where the view shows free ground."""
        from crafter.objects import Zombie

        world, player = self._env._world, self._env._player
        seen = np.argwhere(np.ones((GRID[0], LOCAL_ROWS))) - (GRID[0] // 2, LOCAL_ROWS // 2) + player.pos
        free = [place for place in rng.permutation(seen) if player.is_free(place, WALKABLE)]
        for place in free[: int(rng.integers(*CROWD))]:
            world.add(Zombie(world, place, player))

    def _places(self, rng: np.random.Generator) -> Iterator[NDArray[np.integer[Any]]]:
        """Where to begin, best first: in one episode of three beside an ore; in one of five where the engine does."""
        luck = rng.random()
        if luck < 0.35:
            known = self._env._world._mat_ids
            ores = np.argwhere(self._env._world._mat_map == known[ORES[int(rng.integers(len(ORES)))]])
            for ore in rng.permutation(ores)[:20]:
                yield from ore + rng.permutation(BESIDE)
        if luck < 0.8:
            yield from rng.integers(2, 62, size=(100, 2))


def _deterministic_env(seed: int) -> Any:
    """The engine without the one thing in it that differs between processes.

    When it balances the number of animals it walks sets of objects, whose order is that of their addresses.
    """
    try:
        import crafter
    except ImportError as error:
        raise MissingDependency(f"the real Crafter engine is not installed; run: {installing('worlds')}") from error

    class DeterministicEnv(crafter.Env):  # type: ignore[misc]
        def _balance_chunk(self, chunk: Any, objs: Any) -> None:
            super()._balance_chunk(chunk, sorted(objs, key=lambda found: tuple(found.pos)))

    return DeterministicEnv(area=(64, 64), view=GRID, size=Crafter.size, length=10_000, seed=seed)


def _calm_night(view: Any) -> None:
    """Make the static of a view its mean. Its random numbers are still drawn, so that all else stays as it is."""
    mean = (32 + 127) / 2

    def fog(canvas: Any, amount: float, stddev: float) -> Any:
        view._world.random.uniform(size=canvas.shape[:2])
        mask = amount * view._vignette(canvas.shape, stddev)[..., None]
        return (1 - mask) * canvas + mask * mean

    view._noise = fog
