"""Whether a backbone reads what is retrieved, as it is shipped and after being taught with retrieved runs in its past.

    python -u -m benchmarks.reading --data data/crafter --updates 1000 --workers 2

Wherever a step of real play brings ground into view that no recent frame shows and older ones do, the next frame is
made from that play under every kind of past; right are tiles of that ground that are made of what the engine shows. So
what is asked is whether retrieved frames are read, apart from whether a walk stays together long enough to come back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

import worldsim
from benchmarks.record import run, write
from benchmarks.retrieval import Ground, coming, shows
from benchmarks.tiles import CENTRE, Frames, Reading, read_frames
from benchmarks.world_metrics import Count
from benchmarks.world_quality import Episode, explore_many, share
from worldsim.cache.policy import Alike, Seen, Window, nothing_alike
from worldsim.cache.retrieval import Retrieval
from worldsim.decoding.video import LatentBlock, VideoDecoder
from worldsim.files import make_folder
from worldsim.models.small.backbone import SmallBackbone
from worldsim.models.small.weights import load_weights, save_weights
from worldsim.plans import CRAFTER_ROWS
from worldsim.presets import CRAFTER, WorldRecipe
from worldsim.runtime.devices import pick_device
from worldsim.runtime.world import World
from worldsim.simulators.crafter import DAY_FRAMES
from worldsim.training.data import Episodes
from worldsim.training.objectives import BeliefForcing
from worldsim.training.recollection import places_of
from worldsim.training.retrieving import RetrievedWindows
from worldsim.training.run import CHECKPOINT, WEIGHTS
from worldsim.training.trainer import Stage, Trainer, TrainingPlan

POLICY = Retrieval(recent=16, top=2, run=8)
RECENT = 32
"""Frames of the window that retrieval is compared with, which sees as many; what they show is not asked about."""
LEARNED = 8
EVERY = 50
"""Updates between two checkpoints."""
Place = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Nearest:
    """As POLICY, of those runs that were nearest to where the body will be: what no likeness can know."""

    places: tuple[Place, ...]
    limit: int | None = POLICY.limit
    sparse: None = None
    anew: bool = False

    def see(self, held: Sequence[int], block: int, alike: Alike = nothing_alike) -> Sequence[Seen]:
        """See worldsim.cache.policy.Policy."""
        now = self.places[block]
        return POLICY.see(held, block, lambda at: -sum(abs(a - b) for a, b in zip(self.places[at], now, strict=True)))

    def keep(self, held: Sequence[int], next_frame: int) -> Sequence[int]:
        """See worldsim.cache.policy.Policy."""
        return POLICY.keep(held, next_frame)


def pasts(episode: Episode) -> dict[str, dict[str, Any]]:
    """By name, what a block sees of an episode, and whether places are recalled: settings of a plan."""
    places = tuple((int(row), int(column)) for row, column in episode.play.places)
    return {
        "the window": {"policy": Window(frames=RECENT)},
        "the likest runs": {"policy": POLICY},
        "the nearest runs": {"policy": Nearest(places=places)},
        "runs drawn by chance": {"policy": replace(POLICY, pick="random")},
        "the window, and places recalled": {"policy": Window(frames=RECENT), "recall": True},
    }


def points(episode: Episode) -> dict[int, Ground]:
    """The frames before which ground comes into view that only old frames show, and that ground."""
    found: dict[int, Ground] = {}
    for at in range(RECENT + POLICY.top * POLICY.run, len(episode.frames) - 1):
        ground = coming(episode, at, RECENT)
        old = range((at + 1 - POLICY.recent) // POLICY.run * POLICY.run)
        if ground and shows(episode, old, ground):
            found[at + 1] = ground
    return found


def materials_of(episode: Episode, ground: Ground, now: int) -> dict[Place, int]:
    """What the engine shows on that ground at frame `now`, of the places that were seen so when last seen before."""
    shown, found = episode.play.shown, {}
    for place in ground:
        views = [(at, _in_view(episode, place, at)) for at in range(now)]
        earlier = [(at, *view) for at, view in views if view is not None and shown.visible[(at, *view)]]
        here = _in_view(episode, place, now)
        if not earlier or here is None or not shown.visible[(now, *here)]:
            continue
        if shown.materials[earlier[-1]] == (material := int(shown.materials[(now, *here)])):
            found[here] = material
    return found


def _in_view(episode: Episode, place: Place, at: int) -> Place | None:
    """The row and column of a place in the view of a frame, if it is there."""
    row, column = (int(place[axis] - episode.play.places[at][axis] + CENTRE[axis]) for axis in (0, 1))
    inside = 0 <= row < episode.play.shown.tiles.shape[1] and 0 <= column < episode.play.shown.tiles.shape[2]
    return (row, column) if inside else None


def made(world: World, episode: Episode, at: Sequence[int], past: Mapping[str, Any]) -> Frames:
    """Those frames of an episode, each made from all before it in real play; uint8 [len(at), H, W, 3]."""
    decoder = VideoDecoder(world.backbone, world.pool, replace(world.plan, **past), seed=episode.seed)
    hours = [(episode.hour + frame) % DAY_FRAMES for frame in range(len(episode.frames))]
    steering = torch.tensor([world.controls.vector(*each) for each in zip(episode.keys, hours, strict=True)])[None]
    latents = CRAFTER.codec.encode(torch.from_numpy(episode.frames), CRAFTER.codec.open())[0][None]
    shown: list[Frames] = []
    with closing(decoder):
        decoder.prefill(latents[:, :1], steering[:, :1])
        for frame in range(1, max(at) + 1):
            piece = slice(frame, frame + 1)
            if frame in at:
                block = decoder.propose(steering[:, piece])
                shown.append(CRAFTER.codec.decode(block.latents[0], CRAFTER.codec.open())[0].numpy())
            if frame < max(at):  # behind the last a policy would be asked what comes after the episode
                decoder.commit(LatentBlock(latents=latents[:, piece], controls=steering[:, piece]))
    return np.concatenate(shown)


def judge(world: World, episode: Episode) -> dict[str, Count]:
    """How much of the ground that came back is right, by what was seen of the past."""
    truth = {now: materials_of(episode, ground, now) for now, ground in points(episode).items()}
    at = [now for now in truth if truth[now]]
    if not at:
        return dict.fromkeys(pasts(episode), Count(0, 0))
    found = {}
    for name, past in pasts(episode).items():
        read: Reading = read_frames(made(world, episode, at, past))
        rights = [
            read.materials[(number, *here)] == material
            for number, now in enumerate(at)
            for here, material in truth[now].items()
        ]
        found[name] = Count(int(sum(rights)), len(rights))
    return found


def _judge_with(weights: Path, episode: Episode) -> dict[str, Count]:
    """In a process of its own."""
    torch.set_num_threads(1)
    return judge(worldsim.load("crafter", weights=weights, policy=POLICY, recall=False, device="cpu"), episode)


def plan_for(updates: int, seed: int) -> TrainingPlan:
    """What is learned: what a move brings into view counts most, since only that can be read from far back."""
    past = POLICY.top * POLICY.run + POLICY.recent
    objective = BeliefForcing(frames=past + LEARNED, first=past, copies=2, rows=CRAFTER_ROWS, entering=12.0)
    stage = Stage(updates=updates, objective=objective, windows=2, lr=(1e-4, 1e-5))
    return TrainingPlan(stages=(stage,), seed=seed, warmup=20, average=0.99)


@dataclass(frozen=True, slots=True, kw_only=True)
class Teaching:
    """What is taught: from which weights, by which recorded play, where it is kept, and by what policy runs come."""

    start: Path
    data: Path
    out: Path
    plan: TrainingPlan
    policy: Retrieval = POLICY


def teach(recipe: WorldRecipe, teaching: Teaching, on_update: Callable[[int, float], None]) -> Path:
    """Train on with retrieved runs in the past, from where it was; returns the weights. Nothing is recalled of places.

    Raises:
        DataError: the folder holds a checkpoint of another plan, seed or backbone.
    """
    device, out = pick_device(), teaching.out
    episodes = Episodes(teaching.data, world=recipe.name, held_out=False, device=device)
    known = load_weights(teaching.start, dtype=torch.float32, device=device)
    backbone = SmallBackbone(known.config, torch.Generator()).to(device)
    backbone.load_state_dict(known.state_dict())
    windows = RetrievedWindows(
        episodes=episodes,
        codec=recipe.codec,
        policy=teaching.policy,
        places=places_of(episodes, recipe.codec, backbone),
    )
    trainer = Trainer(backbone, teaching.plan, windows)
    if (out / CHECKPOINT).exists():
        trainer.load(out / CHECKPOINT)
    while trainer.update < teaching.plan.updates:
        on_update(trainer.update + 1, trainer.step())
        if trainer.update % EVERY == 0 or trainer.update == teaching.plan.updates:
            make_folder(out)
            save_weights(out / WEIGHTS, known.config, trainer.averaged(), dtype=torch.bfloat16)
            trainer.save(out / CHECKPOINT)  # behind the weights, so that none is found that has older ones beside it
    return out / WEIGHTS


def main(
    data: Annotated[Path, typer.Option(help="Recorded play.")] = Path("data/crafter"),
    weights: Annotated[Path, typer.Option(help="The weights that are taught; by default the shipped.")] = (
        CRAFTER.folder / "weights.safetensors"
    ),
    out: Annotated[Path, typer.Option(help="Where the taught weights are kept.")] = Path("runs/reading"),
    updates: Annotated[int, typer.Option(min=1, help="Of teaching.")] = 1000,
    episodes: Annotated[int, typer.Option(min=2, help="Real episodes to judge by.")] = 24,
    seed: Annotated[int, typer.Option(help="Of the teaching, and added to that of the first episode.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes that judge at once.")] = 1,
    name: Annotated[str, typer.Option(help="Of the file written to benchmarks/results.")] = "reading",
) -> None:
    """Teach crafter to read what is retrieved, ask before and after, and write benchmarks/results/NAME.json."""
    losses: list[float] = []

    def on_update(update: int, loss: float) -> None:
        losses.append(loss)
        if update % EVERY == 0:
            typer.echo(f"update {update}: {np.mean(losses[-EVERY:]):.4f}", err=True)

    taught = teach(CRAFTER, Teaching(start=weights, data=data, out=out, plan=plan_for(updates, seed)), on_update)
    real = list(explore_many(600_000_000 + seed, episodes, frames_per_block=1))
    found = {
        which: _judged(path, real, workers, np.random.default_rng(seed))
        for which, path in (("as shipped", weights), (f"taught in {updates} updates", taught))
    }
    for which, rows in found.items():
        for past, right in rows.items():
            told = f"{right['value']:.1%} [{right['low']:.1%}, {right['high']:.1%}] of {right['judged']} tiles"
            typer.echo(f"{which:24} {past:24} {told}")
    write(name, {"updates": updates, "episodes": episodes, "seed": seed, "right": found})


def _judged(weights: Path, real: Sequence[Episode], workers: int, rng: np.random.Generator) -> Mapping[str, Any]:
    """By what is seen of the past, the share that is right, over all episodes."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        counts = list(pool.map(partial(_judge_with, weights), real))
    return {past: asdict(share([[one[past]] for one in counts], rng)) for past in counts[0]}


if __name__ == "__main__":
    run(main)
