"""Whether a world remembers: away from a place for a while, back again, and what is there now.

    python -m benchmarks.memory --away 15 --loops 50
    python -m benchmarks.memory --square --loops 50

Every loop begins from real play. A walker that sees nothing but the frames changes a place beside it if it can, say by
felling a tree, goes away, and finds its way home over ground that it has seen. What the engine showed at the beginning
is the truth: terrain stays, but for that place. Loops are the same seeds for every world; what is chance is told by the
same pictures compared with those of other loops. Exits with 1 where a bar is missed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import torch
import typer
from numpy.typing import NDArray

import worldsim
from benchmarks.record import RESULTS, ROOT, commit, run, spread, write
from benchmarks.tiles import CENTRE, COLUMNS, MATERIALS, Frames, read_frames
from benchmarks.trips import HOME, Away, Square, Trip, change
from benchmarks.walker import NAMES, Place, Walker, far
from benchmarks.world_metrics import MOVES, Count
from benchmarks.world_quality import CONTEXT, Episode, contact_sheet, explore_many, share
from worldsim.controls import Controls
from worldsim.presets import CRAFTER
from worldsim.runtime.session import Session
from worldsim.runtime.world import World
from worldsim.simulators.crafter import DAY_FRAMES

ABSENT_S = 2
"""A tile is judged if it was out of view for so long before it came back."""
LEAST_RIGHT = 0.9
SIDE = 9
"""Places that a square is wide: as many as a view, so that nothing of home is in view from the next corner."""
SHOWN = 6
NOON, BRIGHT = 60, 75
"""The brightest frame of a day, and how many frames before and after it tiles can be told."""
FPS = 8
Strip = tuple[list[str], Frames, Frames]
PLAIN, SPARSE = "window:frames=32", "blockvid:recent=16,top=2,run=8,tau=0.98"
SINK, PAGES = "sink:sink=4,window=28", "pages:recent=16,top=2,run=8,within=64"
POLICIES = (
    PLAIN,
    SPARSE,
    SINK,
    "far-sink:sink=4,window=28",
    "adaptive:recent=28,run=4,like=0.9",
    PAGES,
    "random:recent=16,top=2,run=8,tau=1",
    "mismatched:recent=16,top=2,run=8,tau=1",
    "recompute:frames=32",
    "full",
)
"""All but the last show a block as many tokens of the past, or a few less."""
WORLDS: dict[str, dict[str, Any]] = {
    "recalls": {},
    **{policy: {"recall": False, "policy": policy} for policy in POLICIES},
    "recalls, without clean passes": {"clean_pass": False},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """One way out and back.

    seed, at: the episode and the frame from which it begins.
    farthest: places from home at its farthest.
    frames: how long it took; None if the walker was lost.
    truth, found: what the judged tiles showed at the beginning and show at the end, indices into MATERIALS.
    missed: the squared error of each of those tiles, of 255, mean over its pixels.
    changed: the material that the walker made of a place before it left, and what is there at the end; empty if it
        changed none, or has not seen it again.
    pictures: home when it was left and when it was come back to, uint8 [2, 72, 72, 3]; none of a walker that was lost.
    """

    seed: int
    at: int
    farthest: int
    frames: int | None = None
    truth: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    found: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    missed: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    changed: tuple[tuple[int, int], ...] = ()
    pictures: Frames | None = None

    @property
    def count(self) -> Count:
        return Count(int((self.truth == self.found).sum()), len(self.truth))

    @property
    def record(self) -> dict[str, Any]:
        """What is kept of it, so that other questions about it take no hours: a digit of base 16 for every material."""
        truth, found = ("".join(f"{material:x}" for material in tiles) for tiles in (self.truth, self.found))
        return {"seed": self.seed, "frames": self.frames, "truth": truth, "found": found}


@dataclass(slots=True, kw_only=True)
class Walk:
    """A walk in a world from the end of some real play.

    walker: what it knows.
    at: the number of the newest frame.
    absent: for how many frames each place was out of view, when that was longest.
    farthest: places from home at its farthest.
    last: the newest frame, uint8 [72, 72, 3].
    """

    session: Session
    controls: Controls
    walker: Walker
    at: int
    last: Frames
    absent: dict[Place, int] = field(default_factory=dict)
    farthest: int = 0

    def act(self, action: str) -> None:
        """Make one block under an action and see what it shows."""
        before = dict(self.walker.seen_at)
        self.last, self.at = self.session.step(self.controls.press(action)).frames[-1], self.at + 1
        self.walker.see(read_frames(self.last[None]), self.at, MOVES.get(action, HOME))
        for place, _, _ in self.walker.view():
            self.absent[place] = max(self.absent.get(place, 0), self.at - before.get(place, self.at) - 1)
        self.farthest = max(self.farthest, far(self.walker.place))

    def change(self) -> dict[Place, int]:
        """Change a place at home if one can be: it, and the material that it has become."""
        actions, place, makes = change(self.walker) or ([], HOME, -1)
        for action in actions:
            self.act(action)
        return {place: makes} if self.walker.land.get(place) == makes else {}

    def make(self, trip: Trip) -> None:
        """Go on a trip until it is over or has taken too long."""
        for _ in range(trip.longest):
            step = trip.step(self.walker)
            if step is None:
                break
            self.act(NAMES[step])

    def come_back(self) -> list[tuple[Place, int, int]]:
        """The places now in view that were out of view for long, with their row and column."""
        shown = read_frames(self.last[None])
        return [
            (place, row, column)
            for place, row, column in self.walker.view()
            if shown.visible[0, row, column] and self.absent.get(place, 0) >= ABSENT_S * FPS and (row, column) != CENTRE
        ]


def go(world: World, episode: Episode, at: int, away_s: float | None) -> Loop:
    """Leave an episode before its frame `at`, for so long or, of None, round a square, and come home."""
    rng = np.random.default_rng([episode.seed, at, 5])
    past, hour = slice(at - CONTEXT, at), (episode.hour + at - 1) % DAY_FRAMES
    walker, first = _arrived(episode, at)
    with world.open(seed=episode.seed, frames=episode.frames[past], keys=episode.keys[past], hour=hour) as session:
        truth, newest = dict(walker.land), max(walker.seen_at.values())
        walk = Walk(session=session, controls=world.controls, walker=walker, at=newest, last=first)
        changed = walk.change()
        walk.make(Square(side=SIDE, rng=rng) if away_s is None else Away(frames=round(away_s * FPS), rng=rng))
    loop = Loop(seed=episode.seed, at=at, farthest=walk.farthest)
    if walker.place != HOME:
        return loop
    back = walk.come_back()
    found = {place: walker.land[place] for place, _, _ in back}
    same = [(place, row, column) for place, row, column in back if place in truth and place not in changed]
    return replace(
        loop,
        frames=walk.at - newest,
        truth=np.array([truth[place] for place, _, _ in same], np.int64),
        found=np.array([found[place] for place, _, _ in same], np.int64),
        missed=np.array([_missed(first, walk.last, row, column) for _, row, column in same]),
        changed=tuple((made, found[place]) for place, made in changed.items() if place in found),
        pictures=np.stack((first, walk.last)),
    )


def _missed(first: Frames, last: Frames, row: int, column: int) -> float:
    side = first.shape[1] // COLUMNS
    tile = slice(row * side, (row + 1) * side), slice(column * side, (column + 1) * side)
    return float(((first[tile].astype(float) - last[tile]) ** 2).mean())


def _arrived(episode: Episode, at: int) -> tuple[Walker, Frames]:
    """A walker that has seen the given frames and stands at home, and what it sees there."""
    walker, places = Walker(), episode.play.places
    for frame in range(at - CONTEXT, at):
        row, column = places[frame] - places[at - 1]
        walker.place = (int(row), int(column))
        walker.see(episode.play.shown[frame : frame + 1], frame, (0, 0))
    return walker, episode.frames[at - 1]


def by_chance(loops: Sequence[Loop]) -> float:
    """The share of tiles that would be right if what is found in each loop were compared with the truth of the others.

    Of every found tile with every tile of another loop, each of which counts alike; nan if there are not two loops.
    """
    whole = [loop for loop in loops if len(loop.truth)]
    if len(whole) < 2:
        return float("nan")
    truth = np.array([np.bincount(loop.truth, minlength=len(MATERIALS)) / len(loop.truth) for loop in whole])
    others = (truth.sum(axis=0) - truth) / (len(whole) - 1)
    return float(np.concatenate([share[loop.found] for share, loop in zip(others, whole, strict=True)]).mean())


def judge(loops: Sequence[Loop], rng: np.random.Generator) -> dict[str, Any]:
    """What loops tell of one world."""
    home = [loop for loop in loops if loop.frames is not None and len(loop.truth)]
    right = share([[loop.count] for loop in home], rng)
    changed = [pair for loop in home for pair in loop.changed]
    errors = np.concatenate([loop.missed for loop in home]) if home else np.zeros(0)
    return {
        "right": asdict(right),
        "by_chance": by_chance(home),
        "psnr_db": float(10 * np.log10(255**2 / max(1 / 12, errors.mean()))) if len(errors) else float("nan"),
        "loops": len(home),
        "changed": {"right": sum(made == now for made, now in changed), "judged": len(changed)},
        "lost": sum(loop.frames is None for loop in loops),
        "asked": len(loops),
        "frames": spread([loop.frames or 0 for loop in home]) if home else None,
        "farthest": spread([loop.farthest for loop in home]) if home else None,
    }


def strip(name: str, loops: Sequence[Loop]) -> list[Strip]:
    """Home when it was left, and below it when it was come back to, of the first loops that came home."""
    pictures = [loop.pictures for loop in loops if loop.pictures is not None][:SHOWN]
    if not pictures:
        return []
    return [([name, *[""] * (len(pictures) - 1)], *np.stack(pictures, axis=1))]


def points(seed: int, loops: int, away_s: float | None) -> list[tuple[Episode, int]]:
    """Where loops begin: one frame, the nearest to the middle that fits, of that many episodes of held-out seeds.

    It is day there and will be when the walker comes home, so that what is found can be told; the player is awake.
    """
    found: list[tuple[Episode, int]] = []
    frames = 4 * SIDE if away_s is None else round(away_s * FPS)
    for episode in explore_many(seed, 8 * loops, frames_per_block=1):
        shown, middle = episode.play.shown, len(episode.frames) // 2
        fit = [
            at
            for at in range(CONTEXT, len(episode.frames))
            if by_day(episode.hour + at) and by_day(episode.hour + at + frames)
            if shown.visible[at - 1].all() and not shown.sleeping[at - 1]
        ]
        if fit:
            found.append((episode, min(fit, key=lambda at: abs(at - middle))))
        if len(found) == loops:
            break
    return found


def by_day(frame: int) -> bool:
    """Whether a frame of the engine's days is light enough."""
    return abs((frame - NOON + DAY_FRAMES // 2) % DAY_FRAMES - DAY_FRAMES // 2) <= BRIGHT


def _one(settings: dict[str, Any], away_s: float | None, case: tuple[Episode, int]) -> Loop:
    torch.set_num_threads(1)
    return go(_world(tuple(sorted(settings.items()))), *case, away_s)


_LOADED: dict[Any, World] = {}


def _world(settings: tuple[tuple[str, Any], ...]) -> World:
    """A world with these settings, loaded once in each process."""
    if settings not in _LOADED:
        _LOADED.clear()
        _LOADED[settings] = worldsim.load("crafter", **dict(settings))
    return _LOADED[settings]


def verdicts(found: dict[str, dict[str, Any]]) -> dict[str, bool]:
    """Whether what recalls is right often enough, and surely more often than the plain window."""
    ours, plain = found["recalls"]["right"], found[PLAIN]["right"]
    return {"right_on_return": ours["value"] >= LEAST_RIGHT, "apart_from_the_window": ours["low"] > plain["high"]}


def main(
    weights: Annotated[Path | None, typer.Option(help="A weights file; the one in the package if left out.")] = None,
    away: Annotated[float, typer.Option(min=4, help="Seconds of world time away from home.")] = 15,
    square: Annotated[bool, typer.Option("--square", help="Go round a square instead, however long it takes.")] = False,
    loops: Annotated[int, typer.Option(min=2, help="Loops of each world.")] = 50,
    seed: Annotated[int, typer.Option(help="Of the first episode.")] = 600_000_000,
    only: Annotated[list[str] | None, typer.Option(help=f"Of these only: {'; '.join(WORLDS)}.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    name: Annotated[str, typer.Option(help="Of the file written to benchmarks/results.")] = "memory",
) -> None:
    """Judge what crafter remembers of a place, and write benchmarks/results/NAME_AWAYs.json or NAME_square.json."""
    if unknown := {*(only or ())} - WORLDS.keys():
        raise typer.BadParameter(f"no world {'; '.join(sorted(unknown))}; known: {'; '.join(WORLDS)}")
    away_s, name = (None, f"{name}_square") if square else (away, f"{name}_{away:g}s")
    rng = np.random.default_rng(seed)
    digest = sha256((weights or CRAFTER.folder / "weights.safetensors").read_bytes()).hexdigest()
    about = {"weights": digest, "away_s": away_s, "seed": seed, "loops": loops}
    cases, found = points(seed, loops, away_s), known(name, about)
    strips: list[Strip] = []
    passed: dict[str, bool] = {}
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for world in only or list(WORLDS):
            settings = WORLDS[world] | ({"weights": str(weights)} if weights else {})
            with typer.progressbar(pool.map(partial(_one, settings, away_s), cases), len(cases), label=world) as going:
                made = list(going)
            found[world] = {**judge(made, rng), "commit": commit(ROOT), "walks": [loop.record for loop in made]}
            strips += strip(world, made) if strips or world == "recalls" else []
            typer.echo(told(world, found[world]))
            passed = verdicts(found) if {"recalls", PLAIN} <= found.keys() else {}
            save(name, {**about, "worlds": found, "passed": passed}, strips)
    raise typer.Exit(not all(passed.values()))


def known(name: str, about: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What an earlier run found of other worlds on the same loops, if one did: all take hours."""
    path = RESULTS / f"{name}.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    return dict(before["worlds"]) if before and about == {key: before.get(key) for key in about} else {}


def told(world: str, found: dict[str, Any]) -> str:
    """A line about one world."""
    right = found["right"]
    return (
        f"{world:45} right {right['value']:.1%} [{right['low']:.1%}, {right['high']:.1%}] of {right['judged']} tiles, "
        f"by chance {found['by_chance']:.1%}, {found['lost']} of {found['asked']} lost"
    )


def save(name: str, result: dict[str, Any], strips: Sequence[Strip]) -> None:
    """Write what was found so far: a world takes minutes. The sheet is made by a run that begins with what recalls."""
    path = write(name, result)
    if strips:
        cv2.imwrite(str(path.with_suffix(".png")), cv2.cvtColor(contact_sheet(strips), cv2.COLOR_RGB2BGR))


if __name__ == "__main__":
    run(main)
