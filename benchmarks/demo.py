"""Finds keys worth showing: a guest that sees nothing but the frames plays in the bundled world, and the best is kept.

    python -m benchmarks.demo --tries 24 --workers 2

A guest goes from one errand to the next, whichever is nearest: wood, stone, ores, water, a cow, a table, a sapling, a
stone put into the water. What counts is how many kinds of things came of it, and how far it walked; clean tiles decide
between equals. Writes worldsim/assets/crafter/demo.jsonl, which `make demo` plays, and says the start and the seed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

import worldsim
from benchmarks.tiles import CREATURES, MATERIALS, SPRITES, Reading, read_frames
from benchmarks.walker import NAMES, Place, Walker
from benchmarks.world_metrics import MOVES
from worldsim.presets import CRAFTER
from worldsim.runtime.world import World
from worldsim.simulators.crafter import CONTROLS

BLOCKS = 160
STARTS = 8
PATIENCE = 6
"""So many blocks more than the way an errand may take."""
OFTEN = 3
"""So many times an errand is begun at most."""
MOST = 9
"""Nobody has more of anything."""
NIGHT, DIM = 0.1, 0.25
"""A night that long is shown, as a share of all blocks; it is night where there is less daylight than that."""
ALIVE = 0.5
"""Somebody is in view for that share of the blocks, and more is no better."""
CROWDED = 4
"""More creatures in view than that are more than the engine shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """Something to do to what lies ahead, until it changes what the player has.

    at: the materials, or the cow, that it is done to.
    act: the name of the action.
    item, by: what it changes, and by how much in all.
    needs, least: of which item so many have to be there.
    """

    name: str
    at: tuple[str, ...]
    act: str
    item: str
    by: int
    needs: str = "health"
    least: int = 1


ERRANDS = (
    Errand(name="wood", at=("tree",), act="do", item="wood", by=2),
    Errand(name="water", at=("water",), act="do", item="drink", by=2),
    Errand(name="stone", at=("stone",), act="do", item="stone", by=2, needs="wood_pickaxe"),
    Errand(name="coal", at=("coal",), act="do", item="coal", by=1, needs="wood_pickaxe"),
    Errand(name="iron", at=("iron",), act="do", item="iron", by=1, needs="stone_pickaxe"),
    Errand(name="diamond", at=("diamond",), act="do", item="diamond", by=1, needs="iron_pickaxe"),
    Errand(name="cow", at=("cow",), act="do", item="food", by=1),
    Errand(name="table", at=("grass", "sand"), act="place_table", item="wood", by=-1, needs="wood"),
    Errand(name="plant", at=("grass",), act="place_plant", item="sapling", by=-1, needs="sapling"),
    Errand(name="dam", at=("water",), act="place_stone", item="stone", by=-1, needs="stone"),
)


@dataclass(slots=True)
class Guest:
    """Plays by sight.

    rng: decides between equals.
    walker: where it is and what lies around.
    done: the errands that came to something.
    begun: all errands so far.
    errand: the one it is about, if it is about any.
    had: of that errand's item when it was begun.
    patience: blocks until it is given up.
    way: where it strolls when nothing is to be done.
    """

    rng: np.random.Generator
    walker: Walker = field(default_factory=Walker)
    done: list[str] = field(default_factory=list)
    begun: list[str] = field(default_factory=list)
    errand: Errand | None = None
    had: int = 0
    patience: int = 0
    way: Place = (0, 1)

    def choose(self) -> str:
        """The name of the next action."""
        if self._has_ended():
            self._begin()
        path = self._path(self.errand) if self.errand else []
        if self.errand is None or not path:
            self.errand = None
            return self._stroll()
        if len(path) == 1 and self.walker.faces() == path[0]:
            return self.errand.act
        return NAMES[path[0]]

    def _has_ended(self) -> bool:
        """Whether there is nothing to be about: the errand came to something, or took too long."""
        self.patience -= 1
        if self.errand and (self.walker.has(self.errand.item) - self.had) * self.errand.by >= self.errand.by**2:
            self.done.append(self.errand.name)
            self.errand = None
        if self.patience <= 0:
            self.errand = None
        return self.errand is None

    def _begin(self) -> None:
        """Take up the errand that was begun least often, and of such the nearest."""
        open_ = [one for one in ERRANDS if self.begun.count(one.name) < OFTEN and self._can(one)]
        ways = [(self.begun.count(one.name), len(path), one) for one in open_ if (path := self._path(one))]
        if not ways:
            return
        _, away, self.errand = min(ways, key=lambda one: one[:2])
        self.patience = away + PATIENCE
        self.begun.append(self.errand.name)
        self.had = self.walker.has(self.errand.item)

    def _can(self, errand: Errand) -> bool:
        return self.walker.has(errand.needs) >= errand.least and self.walker.has(errand.item) + errand.by <= MOST

    def _stroll(self) -> str:
        if not self.walker.goes_on(self.way) or self.rng.random() < 0.1:
            self.way = self.walker.away(self.rng)
        return NAMES[self.way]

    def _path(self, errand: Errand) -> list[Place]:
        """The steps to what the errand is about, the last onto it."""
        crowd, land = self.walker.crowd(), self.walker.land
        if errand.at == ("cow",):
            return self.walker.path(lambda place: crowd.get(place) == "cow", crowd)
        wanted = {MATERIALS.index(name) for name in errand.at}
        return self.walker.path(
            lambda place: land.get(place) in wanted and place not in crowd and place != self.walker.place, crowd
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One play and what came of it.

    start, seed: it was opened at.
    actions: one a block.
    done: the errands that came to something.
    places: on so many it stood.
    clean: the share of the tiles to be told that are textures of the engine.
    crowd: the most creatures that were in view at once.
    alive: the share of the blocks in which one was.
    dark: the share of the blocks in which it was night.
    """

    start: int
    seed: int
    actions: tuple[str, ...]
    done: tuple[str, ...]
    places: int
    clean: float
    crowd: int
    alive: float
    dark: float

    @property
    def score(self) -> float:
        """How much there was to see: an errand of another kind counts as much as thirty places, company as four."""
        shown = 4 * len({*self.done}) + len(self.done) + self.places / 8 + 16 * min(self.alive, ALIVE) / ALIVE
        return shown - 100 * (1 - self.clean) - 4 * max(0, self.crowd - CROWDED) - 100 * abs(self.dark - NIGHT)

    def __str__(self) -> str:
        told = f"start {self.start} seed {self.seed}: {self.score:.1f}, {self.places} places, {self.clean:.1%} clean"
        company = f"{self.alive:.0%} in company of at most {self.crowd}"
        return f"{told}, {company}, {self.dark:.0%} night, {' '.join(self.done)}"


def visit(world: World, start: int, seed: int, blocks: int = BLOCKS) -> Visit:
    """Play for so many blocks of one frame from that start."""
    guest, actions, places, shown = Guest(rng=np.random.default_rng([start, seed])), [], set(), []
    with world.open(start=start, seed=seed) as session:
        for number in range(blocks):
            actions.append(guest.choose() if number else "wait")
            shown.append(read_frames(session.step(CONTROLS.press(actions[-1])).frames[-1:]))
            guest.walker.see(shown[-1], number, MOVES.get(actions[-1], (0, 0)))
            places.add(guest.walker.place)
    creatures = [_creatures(one) for one in shown]
    return Visit(
        start=start,
        seed=seed,
        actions=tuple(actions),
        done=tuple(guest.done),
        places=len(places),
        clean=float(np.concatenate([one.clean[one.visible] for one in shown]).mean()),
        crowd=max(creatures),
        alive=float(np.mean([found > 0 for found in creatures])),
        dark=float(np.mean([one.daylight[0] < DIM for one in shown])),
    )


def _creatures(shown: Reading) -> int:
    return sum(SPRITES[int(sprite)] in CREATURES[:3] for sprite in shown.sprites[shown.visible])


def _visit(case: tuple[int, int]) -> Visit:
    torch.set_num_threads(1)
    return visit(worldsim.load("crafter"), *case)


def script(actions: Sequence[str]) -> str:
    """The lines of an actions file that holds the keys of these actions, one a block."""
    changed = [at for at, name in enumerate(actions) if name != (actions[at - 1] if at else "wait")]
    lines = ({"block": at, "keys": sorted(CONTROLS.press(actions[at]))} for at in changed)
    return "".join(f"{json.dumps(line)}\n" for line in lines)


def main(
    tries: Annotated[int, typer.Option(min=1, help="Plays, from one starting place after the other.")] = 24,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    output: Annotated[Path, typer.Option("-o", help="The actions file.")] = CRAFTER.folder / "demo.jsonl",
) -> None:
    """Play, keep the keys of the play that shows most, and say where it began."""
    visits = []
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for one in pool.map(_visit, [(number % STARTS, number // STARTS) for number in range(tries)]):
            visits.append(one)
            typer.echo(str(one))
    best = max(visits, key=lambda one: one.score)
    output.write_text(script(best.actions))
    typer.echo(f"worldsim generate --actions {output} --start {best.start} --seed {best.seed} --seconds 20 -o demo.mp4")


if __name__ == "__main__":
    typer.run(main)
