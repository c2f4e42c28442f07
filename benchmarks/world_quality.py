"""Judges the generated Crafter world against the engine: the same starts, the same keys, seeds never trained on.

    python -m benchmarks.world_quality --weights runs/crafter/weights.safetensors

Rollouts of two seconds leave real play at regular points; single blocks leave it where an action does something; walks
go on for a minute. Exits with 1 where a bar is missed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import cv2
import numpy as np
import torch
import typer
from numpy.typing import NDArray

import worldsim
from benchmarks import world_metrics as metrics
from benchmarks.maze_metrics import interval
from benchmarks.record import RESULTS, write
from benchmarks.tiles import MATERIALS, Frames, Reading, day, read_frames
from benchmarks.world_metrics import Count, Kind, Play, Rollout
from worldsim.controls import Controls, Keys
from worldsim.presets import CRAFTER
from worldsim.runtime.world import World
from worldsim.simulators.crafter import DAY_FRAMES, Crafter

CONTEXT = 28
OWN = 16
EPISODE = 200
LONG_S = 60
WALKED = ("move_left", "move_right", "move_up", "move_down")
SUN_FOLLOWS, SUN_LAG = 0.8, 75
"""The sun sets where daylight correlates that much with the engine's, at most a quarter of a day early or late."""
BARS: dict[str, tuple[Literal["least", "most"], float]] = {
    "tiles_one_block_ahead": ("least", 0.995),
    "sprite_one_block_ahead": ("least", 0.99),
    "inventory_one_block_ahead": ("least", 0.99),
    "ground_after_16_frames": ("least", 0.97),
    "effect_of_collect": ("least", 0.95),
    "effect_of_drink": ("least", 0.95),
    "effect_of_blocked": ("least", 0.95),
    "neighbour_variation": ("most", 0.05),
    "clean_after_60s": ("least", 0.99),
    "sun_sets": ("least", 0.9),
}
SHEET_ROLLOUTS, SHEET_WALKS, SHEET_SCALE, LABEL_PX = 5, 3, 2, 14
SHEET_FRAMES, SHEET_SECONDS = (1, 2, 4, 8, 12, 16), (5, 10, 20, 30, 45, 60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """Explored play in the engine: what it looks like, the keys held at each of its frames, and its truth.

    hour: the frame of the engine's day at which it begins.
    """

    seed: int
    frames: Frames
    keys: tuple[Keys, ...]
    play: Play
    hour: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """A minute in the generated world from frame `at` of an episode on: the frames kept for the sheet, and all read."""

    episode: Episode
    at: int
    keys: tuple[Keys, ...]
    frames: Frames
    made: Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A number, its 95 % interval over the choice of rollouts, and the cases that it is of."""

    value: float
    low: float
    high: float
    judged: int


def engine() -> Crafter:
    """The engine that a world is judged by: hours and hands as in recordings, and nights with all their static."""
    return Crafter(varied=True)


def explore(seed: int, *, frames_per_block: int, most: int = EPISODE) -> Episode:
    """Play the engine's episode of a held-out seed as recordings do, changing keys at the borders of blocks only."""
    simulator = engine()
    frames, keys = [simulator.reset(seed)], [frozenset[str]()]
    places, hour = [_place(simulator)], int(simulator.env._step)
    explorer = CRAFTER.recording.explorer(simulator, seed)
    while len(frames) < most and not simulator.over:
        held = explorer.choose()
        for _ in range(frames_per_block):
            if not simulator.over:
                frames.append(simulator.step(held))
                keys.append(held)
                places.append(_place(simulator))
    shown = np.stack(frames)
    play = Play(shown=read_frames(shown), places=np.array(places), actions=_names(simulator.controls, keys))
    return Episode(seed=seed, frames=shown, keys=tuple(keys), play=play, hour=hour)


def explore_many(seed: int, episodes: int, *, frames_per_block: int) -> Iterator[Episode]:
    """Episodes of the seeds from `seed` on, without those that end before a rollout could leave them."""
    found = 0
    while found < episodes:
        episode = explore(seed, frames_per_block=frames_per_block)
        seed += 1
        if len(episode.frames) > CONTEXT + OWN:
            found += 1
            yield episode


def branch(world: World, episode: Episode, at: int, keys: Sequence[Keys]) -> Frames:
    """Leave real play before its frame `at` and live on under these keys, one set a frame, held through each block."""
    past = slice(at - CONTEXT, at)
    hour = (episode.hour + at - 1) % DAY_FRAMES
    with world.open(seed=episode.seed, frames=episode.frames[past], keys=episode.keys[past], hour=hour) as session:
        return np.concatenate([session.step(held).frames for held in keys[:: world.frames_per_block]])


def roll(world: World, episode: Episode, at: int, frames: int) -> tuple[Rollout, Frames]:
    """The rollout of that many frames from frame `at` of an episode on, and its generated frames."""
    end = at + frames
    frames_made = branch(world, episode, at, episode.keys[at:end])
    real = episode.play[at - CONTEXT : end]
    return Rollout(real=real, made=real.shown[:CONTEXT].then(read_frames(frames_made)), past=CONTEXT), frames_made


def regular_points(episode: Episode, count: int, *, frames_per_block: int) -> list[int]:
    """Up to that many first frames of blocks, evenly spread over an episode, that leave room before and after."""
    points = range(1, len(episode.frames) - OWN + 1, frames_per_block)
    free = [at for at in points if at >= CONTEXT]
    return [free[pick] for pick in np.unique(np.linspace(0, len(free) - 1, count).round().astype(int))] if free else []


def effect_points(
    episodes: Sequence[Episode], most: int, *, frames_per_block: int, rng: np.random.Generator
) -> dict[Kind, list[tuple[Episode, int]]]:
    """For each kind of effect up to that many blocks that had it, drawn from all episodes."""
    found: dict[Kind, list[tuple[Episode, int]]] = {kind: [] for kind in get_args(Kind)}
    for episode in episodes:
        for at in range(1, len(episode.frames) - frames_per_block + 1, frames_per_block):
            kind = metrics.effect_of(episode.play, at, frames_per_block) if at >= CONTEXT else None
            if kind:
                found[kind].append((episode, at))
    return {
        kind: [cases[pick] for pick in rng.permutation(len(cases))[:most]] for kind, cases in found.items() if cases
    }


def walk_keys(controls: Controls, rng: np.random.Generator, frames: int) -> tuple[Keys, ...]:
    """Keys of a walk: straight on for one to three seconds, then another way; now and then a pause or an act."""
    held: list[Keys] = []
    while len(held) < frames:
        name = str(rng.choice((*WALKED, *WALKED, *WALKED, "do", "wait")))
        length = int(rng.integers(8, 25)) if name in WALKED else int(rng.integers(1, 5))
        held += [controls.press(name)] * length
    return tuple(held[:frames])


def walk(world: World, episode: Episode, *, seconds: int) -> Walk:
    """Walk on in the generated world from where an episode has its first full context."""
    at = next(at for at in range(1, len(episode.frames), world.frames_per_block) if at >= CONTEXT)
    frames = -(-seconds * world.fps // world.frames_per_block) * world.frames_per_block
    rng = np.random.default_rng([episode.seed, 3])
    per_block = walk_keys(world.controls, rng, frames // world.frames_per_block)
    keys = tuple(held for held in per_block for _ in range(world.frames_per_block))
    made = branch(world, episode, at, keys)
    kept = made[[second * world.fps - 1 for second in SHEET_SECONDS if second <= seconds]]
    return Walk(episode=episode, at=at, keys=keys, frames=kept, made=read_frames(made))


def share(counts: Sequence[Sequence[Count]], rng: np.random.Generator) -> Measure:
    """The share of right cases over all rollouts, each given as the counts of its frames."""
    right, judged = (
        np.array([sum(count[part] for count in rollout) for rollout in counts], np.float64) for part in (0, 1)
    )

    def ratio(right: NDArray[np.float64], judged: NDArray[np.float64]) -> float:
        return float(right.sum() / judged.sum()) if judged.sum() else float("nan")

    low, high = interval(ratio, right, judged, rng=rng)
    return Measure(value=ratio(right, judged), low=low, high=high, judged=int(judged.sum()))


def judge_rollouts(rollouts: Sequence[Rollout], frames_per_block: int, rng: np.random.Generator) -> dict[str, Measure]:
    """What regular rollouts tell: one block ahead, after 16 frames, and what comes into view."""

    def over(measure: Callable[[Rollout, int], Count], own: range) -> Measure:
        counts = [
            [measure(rollout, at) for at in (CONTEXT + frame for frame in own) if metrics.decided(rollout)[at]]
            for rollout in rollouts
        ]
        return share(counts, rng)

    block, end = range(frames_per_block), range(OWN - 1, OWN)
    return {
        "tiles_one_block_ahead": over(metrics.right_tiles, block),
        "sprite_one_block_ahead": over(metrics.right_sprite, block),
        "inventory_one_block_ahead": over(metrics.right_inventory, block),
        "ground_after_16_frames": over(metrics.right_ground, end),
        "sprite_after_16_frames": over(metrics.right_sprite, end),
        "inventory_after_16_frames": over(metrics.right_inventory, end),
        "ground_come_back_to": over(metrics.right_return, range(OWN)),
        **judge_neighbours(rollouts, rng),
    }


def judge_effects(
    effects: dict[Kind, list[Rollout]], frames_per_block: int, rng: np.random.Generator
) -> dict[str, Measure]:
    """How often each kind of action had its effect."""
    return {
        f"effect_of_{kind}": share([[metrics.right_effect(one, kind, frames_per_block)] for one in rollouts], rng)
        for kind, rollouts in effects.items()
    }


def judge_walks(walks: Sequence[Walk], fps: int, rng: np.random.Generator) -> dict[str, Measure]:
    """What is left after a minute: clean tiles and readable numbers in its last second, and the sun."""
    last = [one.made[-fps:] for one in walks]
    readable = [Count(int((end.inventory >= 0).sum()), end.inventory.size) for end in last]
    suns = [metrics.sun(daylight_of(one), one.made.daylight.tolist(), most_lag=SUN_LAG) for one in walks]
    return {
        "clean_after_60s": share([[metrics.clean_tiles(end)] for end in last], rng),
        "inventory_readable_after_60s": share([[count] for count in readable], rng),
        "sun_sets": share([[Count(int(follows >= SUN_FOLLOWS), 1)] for follows, _ in suns], rng),
    }


def daylight_of(one: Walk) -> list[float]:
    """The daylight that the engine would have at each frame of a walk."""
    first = one.episode.hour + one.at
    return [float(day()[(first + frame) % len(day())]) for frame in range(len(one.made))]


def course(walks: Sequence[Walk], fps: int) -> dict[str, float]:
    """The share of clean tiles in each tenth second of the walks."""
    found = {}
    for second in range(10, len(walks[0].made) // fps + 1, 10):
        right, judged = np.sum([metrics.clean_tiles(one.made[(second - 1) * fps : second * fps]) for one in walks], 0)
        found[f"{second}s"] = float(right / judged) if judged else float("nan")
    return found


def judge_neighbours(rollouts: Sequence[Rollout], rng: np.random.Generator) -> dict[str, Measure]:
    """Total variation between real and generated neighbours in what comes into view, over all rollouts.

    And beside it what two samples of the real law, of that size, differ by: no world can be known to be better.
    """
    real, made = (np.array([_neighbours(one, which) for one in rollouts]) for which in ("real", "made"))

    def variation(real: NDArray[np.float64], made: NDArray[np.float64]) -> float:
        return metrics.total_variation(real.sum(0), made.sum(0))

    low, high = interval(variation, real, made, rng=rng)
    picks = rng.integers(len(real), size=(100, 2, len(real)))
    # A sample in which nothing came into view says nothing.
    found = [variation(real[one], real[other]) for one, other in picks]
    chance = [value for value in found if not np.isnan(value)] or [float("nan")]
    least, most = np.percentile(chance, [2.5, 97.5])
    pairs = int(real.sum())
    return {
        "neighbour_variation": Measure(value=variation(real, made), low=low, high=high, judged=pairs),
        "neighbour_variation_by_chance": Measure(
            value=float(np.mean(chance)), low=float(least), high=float(most), judged=pairs
        ),
    }


def _neighbours(rollout: Rollout, which: Literal["real", "made"]) -> NDArray[np.float64]:
    """How often each material lies beside each other in what comes into view over a rollout."""
    shown = rollout.real.shown if which == "real" else rollout.made
    visible, sure = rollout.real.shown.visible, metrics.decided(rollout)
    total = np.zeros((len(MATERIALS), len(MATERIALS)))
    for at in range(rollout.past, len(shown)):
        if sure[at]:
            total += metrics.neighbours(shown.materials[at], metrics.entered(rollout, at), visible[at])
    return total


def _place(simulator: Crafter) -> tuple[int, int]:
    across, down = simulator.env._player.pos
    return int(down), int(across)


def _names(controls: Controls, keys: Sequence[Keys]) -> tuple[str, ...]:
    held = [controls.held(now) for now in keys]
    return tuple(actions[0].name if actions else "wait" for actions in held)


def relive(one: Walk, frames: Sequence[int]) -> Frames:
    """What the engine shows at these frames of a walk, under its keys; black once the player has died there."""
    simulator = engine()
    shown = [simulator.reset(one.episode.seed)]
    for held in (*one.episode.keys[1 : one.at], *one.keys):
        shown.append(np.zeros_like(shown[0]) if simulator.over else simulator.step(held))
    return np.stack([shown[one.at + frame] for frame in frames])


def contact_sheet(strips: Sequence[tuple[Sequence[str], Frames, Frames]]) -> Frames:
    """Real frames above generated ones, [H, W, 3], for each strip of (labels, real, made)."""
    rows = []
    for labels, real, made in strips:
        pictures = [np.concatenate(list(frames), axis=1) for frames in (real, made)]
        pair = np.concatenate(pictures).repeat(SHEET_SCALE, 0).repeat(SHEET_SCALE, 1)
        head = np.zeros((LABEL_PX, pair.shape[1], 3), np.uint8)
        for column, label in enumerate(labels):
            place = (column * pair.shape[1] // len(labels) + 2, LABEL_PX - 3)
            cv2.putText(head, label, place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255))
        rows += [head, pair]
    widest = max(row.shape[1] for row in rows)
    return np.concatenate([np.pad(row, ((0, 0), (0, widest - row.shape[1]), (0, 0))) for row in rows])


def verdicts(measures: dict[str, Measure]) -> dict[str, dict[str, Any]]:
    """Every measure as plain numbers, with its bar where it has one; what could not be measured does not reach it."""
    found = {name: asdict(measure) for name, measure in measures.items()}
    for name, (side, bar) in BARS.items():
        value = found.setdefault(name, asdict(Measure(value=np.nan, low=np.nan, high=np.nan, judged=0)))["value"]
        found[name] |= {f"at_{side}": bar, "passed": bool(value >= bar if side == "least" else value <= bar)}
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """How much is judged: episodes, rollouts that leave each, cases of each effect, walks, and seconds of each."""

    episodes: int = 64
    rollouts: int = 8
    effects: int = 100
    walks: int = 64
    seconds: int = LONG_S


Case = TypeVar("Case")
Found = TypeVar("Found")
Every = Callable[[str, Callable[[World, Case], Found], Sequence[Case]], list[Found]]
"""Do something in the world for every case, under a label; answers in the order of the cases."""


def in_turn(world: World) -> Every[Any, Any]:
    """One case after the other, in this process."""

    def every(label: str, do: Callable[[World, Case], Found], cases: Sequence[Case]) -> list[Found]:
        with typer.progressbar(cases, label=label) as going:
            return [do(world, case) for case in going]

    return every


@contextmanager
def at_once(workers: int, settings: dict[str, Any]) -> Iterator[Every[Any, Any]]:
    """Several cases at once, each process with a world of its own, loaded with those settings, and one thread."""

    def every(label: str, do: Callable[[World, Case], Found], cases: Sequence[Case]) -> list[Found]:
        answers = pool.map(partial(_in_worker, do), cases)
        with typer.progressbar(answers, label=label, length=len(cases)) as going:
            return list(going)

    spawn = get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_load_here, initargs=(settings,)) as pool:
        yield every


_here: list[World] = []


def _load_here(settings: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    _here.append(worldsim.load("crafter", **settings))


def _in_worker(do: Callable[[World, Case], Found], case: Case) -> Found:
    return do(_here[0], case)


def _roll_on(world: World, case: tuple[Episode, int]) -> tuple[Rollout, Frames]:
    return roll(world, *case, OWN)


def _act(world: World, case: tuple[Episode, int]) -> Rollout:
    return roll(world, *case, world.frames_per_block)[0]


def _walk_on(world: World, case: tuple[Episode, int]) -> Walk:
    return walk(world, case[0], seconds=case[1])


def measure(
    world: World, amount: Amount, seed: int, every: Every[Any, Any] | None = None
) -> tuple[dict[str, Any], Frames]:
    """Everything that this benchmark reports of a world, and its contact sheet."""
    every = every or in_turn(world)
    per_block, rng = world.frames_per_block, np.random.default_rng(seed)
    with typer.progressbar(
        explore_many(seed, amount.episodes, frames_per_block=per_block), length=amount.episodes, label="real play"
    ) as exploring:
        episodes = list(exploring)
    points = [(one, at) for one in episodes for at in regular_points(one, amount.rollouts, frames_per_block=per_block)]
    rolled = every("rollouts", _roll_on, points)
    acts = effect_points(episodes, amount.effects, frames_per_block=per_block, rng=rng)
    effects = {kind: every(kind, _act, cases) for kind, cases in acts.items()}
    walks = every("walks", _walk_on, [(episode, amount.seconds) for episode in episodes[: amount.walks]])
    rollouts = [rollout for rollout, _ in rolled]
    found = {
        **judge_rollouts(rollouts, per_block, rng),
        **judge_effects(effects, per_block, rng),
        **judge_walks(walks, world.fps, rng),
    }
    strips = [_rollout_strip(world, *points[pick], rolled[pick][1]) for pick in _some(len(points), SHEET_ROLLOUTS)]
    strips += [_walk_strip(world, walks[pick], amount.seconds) for pick in _some(len(walks), SHEET_WALKS)]
    return {"measures": verdicts(found), "clean": course(walks, world.fps)}, contact_sheet(strips)


def _some(count: int, wanted: int) -> list[int]:
    return sorted({int(pick) for pick in np.linspace(0, count - 1, wanted)})


def _rollout_strip(world: World, episode: Episode, at: int, made: Frames) -> tuple[list[str], Frames, Frames]:
    picks = [frame - 1 for frame in SHEET_FRAMES]
    return [f"{frame / world.fps:g} s" for frame in SHEET_FRAMES], episode.frames[at:][picks], made[picks]


def _walk_strip(world: World, one: Walk, seconds: int) -> tuple[list[str], Frames, Frames]:
    shown = [second for second in SHEET_SECONDS if second <= seconds]
    return [f"{second} s" for second in shown], relive(one, [second * world.fps - 1 for second in shown]), one.frames


def main(
    weights: Annotated[Path | None, typer.Option(help="A weights file; the one in the package if left out.")] = None,
    frames_per_block: Annotated[int, typer.Option(help="Frames made together.")] = 1,
    steps: Annotated[int | None, typer.Option(help="Backbone calls that denoise a block; the world's own.")] = None,
    episodes: Annotated[int, typer.Option(min=2, help="Real episodes, up to eight rollouts each.")] = 64,
    rollouts: Annotated[int, typer.Option(min=1, help="Rollouts that leave each episode, at most.")] = 8,
    effects: Annotated[int, typer.Option(min=2, help="Cases of each effect, at most.")] = 100,
    walks: Annotated[int, typer.Option(min=2, help="Walks of a minute, at most one an episode.")] = 64,
    workers: Annotated[int, typer.Option(min=1, help="Processes that generate at once.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the first episode.")] = 500_000_000,
    name: Annotated[str, typer.Option(help="Of the files written to benchmarks/results.")] = "world_quality",
) -> None:
    """Judge crafter."""
    settings: dict[str, Any] = {"weights": weights, "frames_per_block": frames_per_block, "steps": steps}
    world = worldsim.load("crafter", **settings)
    amount = Amount(episodes=episodes, rollouts=rollouts, effects=effects, walks=walks)
    if workers == 1:
        found, sheet = measure(world, amount, seed)
    else:
        with at_once(workers, settings) as every:
            found, sheet = measure(world, amount, seed, every)
    about: dict[str, Any] = {"weights": str(weights or "in the package"), "calls_per_block": world.calls_per_block}
    about |= {"frames_per_block": frames_per_block, "seed": seed, **asdict(amount)}
    write(name, {**about, **found}, folder=RESULTS)
    picture = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 9])[1]
    (RESULTS / f"{name}.png").write_bytes(picture.tobytes())
    for key, item in found["measures"].items():
        verdict = "" if "passed" not in item else "reached" if item["passed"] else "missed"
        typer.echo(f"{key:28} {item['value']:.4f} [{item['low']:.4f}, {item['high']:.4f}] {verdict}")
    raise typer.Exit(not all(item.get("passed", True) for item in found["measures"].values()))


if __name__ == "__main__":
    typer.run(main)
