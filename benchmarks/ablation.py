"""What sparse KV, Block Forcing, self-forcing, a schedule of noise and shuffling are worth: equal starts and compute.

    python -m benchmarks.ablation --data data/crafter --updates 150 --seeds 2

Every arm goes on from the same weights for as many updates of as many windows, or for fewer where an update takes
longer, and is judged on held-out windows and by rollouts from the same points as all others. What an arm with the same
seed reaches is compared pair by pair with the base. Arms that were trained and judged before in the same folder are not
made again, and one that was stopped in the middle goes on from its checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import numpy as np
import torch
import typer

import worldsim
from benchmarks.memory import PLAIN as PLAIN_WINDOW
from benchmarks.memory import SPARSE
from benchmarks.record import run, write
from benchmarks.world_quality import Amount, measure
from worldsim.decoding.noise_plan import PLAIN, parse_noise
from worldsim.models.protocol import UNKNOWN
from worldsim.models.small.backbone import SmallBackbone
from worldsim.models.small.weights import load_weights
from worldsim.presets import CRAFTER, WorldRecipe
from worldsim.runtime.devices import pick_device
from worldsim.training.data import Episodes
from worldsim.training.evaluation import SEED, LatentWindows
from worldsim.training.forcing import BlockForcing
from worldsim.training.noising import noisy_blocks
from worldsim.training.objectives import BeliefForcing
from worldsim.training.passes import open_pass
from worldsim.training.recollection import Recollections
from worldsim.training.resampling import Resampling
from worldsim.training.run import CHECKPOINT, LOG, WEIGHTS, Run, train_world
from worldsim.training.trainer import Stage, TrainingPlan

RISING = "cosine:low=60,high=100,period=32"
ROLLOUTS = 4
SELF_FORCING_TAKES = 1.27
"""Half of the updates make their context themselves first, and take 1.53 times as long (six pairs on two cores of an
Intel Xeon, 1.46 to 1.66)."""
EVERY = 50
"""Updates between two checkpoints of an arm."""
LEFT_OUT = {"sun_sets", "neighbour_variation_by_chance"}
CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """What differs from the base.

    forcing, resampling, noise: of the objective.
    takes: how much longer one of its updates takes than one of the base.
    sampled: the noise that blocks begin with when it is judged.
    policy: what a block then sees of the past, as many tokens as that of the base.
    weights_of: the arm whose weights it is judged with, if it is not trained itself; "start" for the weights that all
        begin from.
    """

    forcing: BlockForcing | None = None
    resampling: Resampling | None = None
    takes: float = 1.0
    noise: str = "plain"
    sampled: str = "plain"
    policy: str = PLAIN_WINDOW
    weights_of: str | None = None


FORCED = BlockForcing(weight=0.1)
ARMS = {
    "start": Arm(weights_of="start"),
    "base": Arm(),
    "forcing": Arm(forcing=FORCED),
    "forcing_lightly": Arm(forcing=replace(FORCED, weight=0.03)),
    "forcing_strongly": Arm(forcing=replace(FORCED, weight=0.3)),
    "forcing_latest": Arm(forcing=replace(FORCED, past="latest")),
    "self_forcing": Arm(resampling=Resampling(), takes=SELF_FORCING_TAKES),
    "schedule": Arm(noise=RISING, sampled=RISING),
    "schedule_untaught": Arm(sampled=RISING, weights_of="base"),
    "shuffling": Arm(sampled="shuffled:window=4", weights_of="base"),
    "sparse_kv": Arm(policy=SPARSE, weights_of="base"),
    "all": Arm(forcing=FORCED, noise=RISING, sampled=f"{RISING},window=4", policy=SPARSE),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What all arms have in common.

    Args:
        start: the weights they begin from.
        data: recorded play, held-out episodes too.
        out: where the arms are kept.
        updates, windows: how many of the base, and of how many windows each.
        lr: learning rate of the first update; it falls to a tenth.
        judged: held-out windows.
    """

    start: Path
    data: Path
    out: Path
    updates: int = 150
    windows: int = 2
    lr: float = 2e-4
    judged: int = 48

    def updates_of(self, name: str) -> int:
        """How many updates of an arm take as long as all of the base."""
        return round(self.updates / ARMS[name].takes)

    def folder(self, name: str, seed: int) -> Path:
        """Where an arm of that seed is kept."""
        return self.out / f"{name}-{seed}"

    def weights(self, name: str, seed: int) -> Path:
        """The weights that an arm is judged with."""
        owner = ARMS[name].weights_of or name
        return self.start if owner == "start" else self.folder(owner, seed) / WEIGHTS


Roll = Callable[[Path, Arm], dict[str, float]]
"""What rollouts with a weights file tell, made as that arm is judged."""


def objective_of(recipe: WorldRecipe) -> BeliefForcing:
    """What the base goes on with: what the world learned last."""
    objective = (recipe.recalling or recipe.training).stages[-1].objective
    assert isinstance(objective, BeliefForcing), f"{recipe.name} holds no beliefs; there is no ablation of it"
    return objective


def train(recipe: WorldRecipe, training: Training, name: str, seed: int) -> None:
    """Train an arm to its end, from where it was; an arm that is there already stays."""
    folder, arm, updates = training.folder(name, seed), ARMS[name], training.updates_of(name)
    if _is_done(folder, updates):
        return
    objective = replace(
        objective_of(recipe), forcing=arm.forcing, resampling=arm.resampling, noise=parse_noise(arm.noise)
    )
    lr = (training.lr, training.lr / 10)
    stage = Stage(updates=updates, objective=objective, windows=training.windows, lr=lr)
    plan = TrainingPlan(stages=(stage,), warmup=10, average=0.98, seldom=recipe.training.seldom)
    begun = (folder / CHECKPOINT).exists()
    run = Run(device=pick_device(), seed=seed, resume=begun, weights=None if begun else training.start, every=EVERY)
    with typer.progressbar(length=updates, label=f"{name} {seed}") as going:

        def on_update(update: int, _loss: float) -> None:
            going.update(update - going.pos)

        ours = replace(recipe, training=plan, onward=None, training_on_gpu=None, onward_on_gpu=None)
        train_world(ours, training.data, folder, run, on_update=on_update)


def _is_done(folder: Path, updates: int) -> bool:
    log = folder / LOG
    return log.exists() and json.loads(log.read_text().splitlines()[-1])["update"] >= updates


@torch.no_grad()
def surprise(recipe: WorldRecipe, weights: Path, held_out: Episodes, windows: int) -> dict[str, float]:
    """How little held-out windows were expected, in nats a token, by what a token shows.

    Returns:
        "surprise in_view": of the land, what was in view before; "surprise recalled", "surprise new": what a move
        brings into view, seen before or not; "surprise below": what is no land. Windows, levels and noise are the same
        for all weights, and plain. What none of their tokens showed is left out.
    """
    backbone = load_weights(weights, dtype=torch.float32, device=CPU)
    objective, recollections = objective_of(recipe), Recollections(held_out, recipe.codec, backbone)
    drawn = LatentWindows(held_out, recipe.codec, recollections=recollections)
    found: dict[str, list[torch.Tensor]] = {}
    for index in range(windows):
        play = drawn.sample(np.random.default_rng([SEED, index]), windows=1, frames=1 + objective.frames)
        generator = torch.Generator().manual_seed(SEED + index)
        window = open_pass(objective, play, generator)
        noisy, sigma = noisy_blocks(window, objective.shift, PLAIN, generator)
        recalling = window.recalling(backbone)
        missed, _ = recalling.weighed(*window.inputs(backbone, noisy, sigma), window.clean)  # type: ignore[attr-defined]
        assert window.recalled is not None
        for name, mask in _classes(backbone, window.steering, window.recalled).items():
            found.setdefault(f"surprise {name}", []).append(missed[mask])
    whole = {name: torch.cat(parts) for name, parts in found.items()}
    return {name: float(each.mean()) for name, each in whole.items() if len(each)}


def _classes(backbone: SmallBackbone, steering: torch.Tensor, recalled: torch.Tensor) -> dict[str, torch.Tensor]:
    """Which tokens [B, n, rows, columns] show what."""
    assert backbone.config.scroll is not None
    entering, known = backbone.enters(steering), recalled != UNKNOWN
    land = (torch.arange(backbone.geometry.rows) < backbone.config.scroll.rows)[:, None].expand(entering.shape)
    return {
        "in_view": land & ~entering,
        "recalled": entering & known,
        "new": entering & ~known,
        "below": ~land,
    }


Pair = tuple[str, int]
"""An arm and a seed."""
Every = Callable[[Callable[[Pair], Any], Sequence[Pair]], list[Any]]


def ablate(
    recipe: WorldRecipe, training: Training, arms: Sequence[str], seeds: Sequence[int], roll: Roll, workers: int = 1
) -> dict[str, dict[int, dict[str, float]]]:
    """What every arm of every seed reached, by arm and seed; with several workers `roll` can be pickled."""
    _held_out(recipe.name, training.data)  # whoever names a folder without recordings leaves no settings behind
    _check_same(training)
    # The start is the same for every seed.
    judged = [(name, seed) for seed in seeds for name in arms if name != "start" or seed == seeds[0]]
    owners = {(ARMS[name].weights_of or name, seed): None for name, seed in judged}
    with _at_once(workers) as every:
        every(partial(_train_one, recipe, training), [pair for pair in owners if pair[0] != "start"])
        found = dict(zip(judged, every(partial(_judge_one, recipe, training, roll), judged), strict=True))
    return {name: {seed: found[name, seeds[0] if name == "start" else seed] for seed in seeds} for name in arms}


@contextmanager
def _at_once(workers: int) -> Iterator[Every]:
    """Does something for every pair, in so many processes of a thread each; of one, here."""
    if workers == 1:
        yield lambda do, pairs: [do(pair) for pair in pairs]
        return
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        yield lambda do, pairs: list(pool.map(do, pairs))


def _train_one(recipe: WorldRecipe, training: Training, pair: Pair) -> None:
    train(recipe, training, *pair)


def _judge_one(recipe: WorldRecipe, training: Training, roll: Roll, pair: Pair) -> dict[str, float]:
    """What one arm of one seed reached; what is known already is read."""
    path, weights = training.folder(*pair) / "judged.json", training.weights(*pair)
    if not path.exists():
        held_out = _held_out(recipe.name, training.data)
        judged = surprise(recipe, weights, held_out, training.judged) | roll(weights, ARMS[pair[0]])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(judged))
    return dict(json.loads(path.read_text()))


@lru_cache(maxsize=1)
def _held_out(world: str, data: Path) -> Episodes:
    return Episodes(data, world=world, held_out=True, device=CPU)


def _check_same(training: Training) -> None:
    """Refuse a folder whose arms were made under other settings; note ours if there are none yet."""
    ours = {name: str(value) for name, value in asdict(training).items()}
    ours["start"] = sha256(training.start.read_bytes()).hexdigest()
    path = training.out / "settings.json"
    if not path.exists():
        training.out.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(ours))
    if (theirs := json.loads(path.read_text())) != ours:
        raise typer.BadParameter(f"{training.out} holds arms made with {theirs}, not {ours}; name another folder")


def table(found: dict[str, dict[int, dict[str, float]]]) -> dict[str, dict[str, Any]]:
    """For every arm and measure its mean, least and greatest over seeds, and how far it is from the base, seed by seed.

    apart: the same of the differences to the base of the same seed; None where there is no base.
    beyond_seeds: whether all differences have one sign. Of two seeds that is so by chance half of the time.
    """
    base = found.get("base", {})
    rows: dict[str, dict[str, Any]] = {}
    for name, by_seed in found.items():
        rows[name] = {}
        for kind in next(iter(by_seed.values())):
            values = [judged[kind] for judged in by_seed.values()]
            apart = [judged[kind] - base[seed][kind] for seed, judged in by_seed.items() if seed in base]
            signs = {np.sign(one) for one in apart}
            rows[name][kind] = {
                **_spread(values),
                "apart": _spread(apart) if apart else None,
                "beyond_seeds": len(signs) == 1 and 0 not in signs,
            }
    return rows


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"mean": mean(values), "min": min(values), "max": max(values), "count": len(values)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollouts:
    """Judges a Crafter world as benchmarks.world_quality does, by so much play of those seeds. See Roll."""

    amount: Amount
    seed: int
    frames_per_block: int

    def __call__(self, weights: Path, arm: Arm) -> dict[str, float]:
        how: dict[str, Any] = {"noise": arm.sampled, "policy": arm.policy, "frames_per_block": self.frames_per_block}
        world = worldsim.load("crafter", weights=weights, device="cpu", **how)
        found, _ = measure(world, self.amount, self.seed)
        return {
            name.replace("60s", f"{self.amount.seconds}s"): item["value"]
            for name, item in found["measures"].items()
            if name not in LEFT_OUT and item["judged"]
        }


def main(
    data: Annotated[Path, typer.Option(help="Recorded play, held-out episodes too.")] = Path("data/crafter"),
    weights: Annotated[Path, typer.Option(help="The weights that all arms begin from; by default the shipped.")] = (
        CRAFTER.folder / "weights.safetensors"
    ),
    out: Annotated[Path, typer.Option(help="Where the arms are kept.")] = Path("runs/ablation"),
    updates: Annotated[int, typer.Option(min=1, help="Of the base; of others as many as take as long.")] = 150,
    windows: Annotated[int, typer.Option(min=1, help="In one update.")] = 2,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each arm.")] = 2,
    only: Annotated[list[str] | None, typer.Option(help=f"Of these arms only: {', '.join(ARMS)}.")] = None,
    judged: Annotated[int, typer.Option(min=1, help="Held-out windows.")] = 48,
    episodes: Annotated[int, typer.Option(min=2, help="Real episodes that rollouts leave.")] = 8,
    seconds: Annotated[int, typer.Option(min=5, help="World time of a walk.")] = 10,
    frames_per_block: Annotated[int, typer.Option(help="Frames made together in rollouts.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Processes that train and judge at once.")] = 1,
    name: Annotated[str, typer.Option(help="Of the file written to benchmarks/results.")] = "ablation",
) -> None:
    """Ablate crafter, and write benchmarks/results/NAME.json."""
    if unknown := {*(only or ())} - ARMS.keys():
        raise typer.BadParameter(f"no arm {', '.join(sorted(unknown))}; known: {', '.join(ARMS)}")
    training = Training(start=weights, data=data, out=out, updates=updates, windows=windows, judged=judged)
    amount = Amount(
        episodes=episodes, rollouts=ROLLOUTS, effects=4 * episodes, walks=max(2, episodes // 2), seconds=seconds
    )
    roll = Rollouts(amount=amount, seed=800_000_000, frames_per_block=frames_per_block)
    found = ablate(CRAFTER, training, only or list(ARMS), range(seeds), roll, workers)
    rows = table(found)
    about = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(training).items()}
    about |= {"seeds": seeds, "frames_per_block": frames_per_block, "amount": asdict(amount)}
    write(name, {**about, "arms": {arm: asdict(ARMS[arm]) for arm in found}, "rows": rows, "seed_by_seed": found})
    for arm, row in rows.items():
        for kind, item in row.items():
            apart = "" if item["apart"] is None else f"{item['apart']['mean']:+.4f}"
            sure = " on every seed" if item["beyond_seeds"] else ""
            typer.echo(f"{arm:18} {kind:28} {item['mean']:.4f} [{item['min']:.4f}, {item['max']:.4f}] {apart}{sure}")


if __name__ == "__main__":
    run(main)
