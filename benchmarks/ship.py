"""Puts a trained world into the package: weights, starting places and card.

python -m benchmarks.ship crafter runs/crafter
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from benchmarks.record import ROOT, commit
from worldsim.errors import ConfigError
from worldsim.presets import WORLDS, WorldRecipe
from worldsim.runtime.starts import Starts
from worldsim.training.data import play
from worldsim.training.run import WEIGHTS

START_FRAMES = 32
PLACES: dict[str, tuple[tuple[int, int], ...]] = {
    "crafter": ((59, 90), (27, 40), (36, 90), (42, 140), (29, 90), (40, 90), (20, 40), (4, 140)),
}
"""Seed and last frame of each starting place:
pond, beach, forest, lava by the sea, a furnace among ores, coast, caves, dusk."""


def main(
    world: Annotated[str, typer.Argument(help="The world to ship.")],
    run: Annotated[Path, typer.Argument(help="The folder that worldsim train wrote.")],
    data: Annotated[str, typer.Option(help="What it was trained on, for the card.")],
    hours: Annotated[str, typer.Option(help="How long it was trained, for the card.")],
    machine: Annotated[str, typer.Option(help="What it was trained on, for the card.")],
) -> None:
    """Copy the weights of a run into the package, with the places to start from and what is known of them."""
    recipe = WORLDS[world]
    recipe.folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(run / WEIGHTS, recipe.folder / WEIGHTS)
    Starts.save(recipe.folder / "starts.safetensors", [_place(recipe, seed, at) for seed, at in PLACES[world]])
    card = {**_card(recipe, run), "data": data, "training": hours, "hardware": machine}
    (recipe.folder / "card.json").write_text(json.dumps(card, indent=2) + "\n")


def _place(recipe: WorldRecipe, seed: int, at: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The frames of held-out play that end at that frame of that seed, and their controls."""
    played = list(play(recipe.recording, seed, most=at + 1))
    if not START_FRAMES <= len(played) == at + 1:
        raise ConfigError(f"seed {seed} has no {START_FRAMES} frames of play that end at {at}; choose another frame")
    frames, controls, _ = zip(*played[-START_FRAMES:], strict=True)
    return torch.from_numpy(np.stack(frames)), torch.tensor(controls)


def _trained(recipe: WorldRecipe, run: Path) -> list[str]:
    """The commands that train a world; one that remembers places learns to recall them when it knows the world."""
    train = f"worldsim train {recipe.name} --data data/{recipe.name}"
    if recipe.recalling is None:
        return [f"{train} --out {run}"]
    known = f"runs/{recipe.name}"
    return [f"{train} --out {known}", f"{train} --weights {known}/{WEIGHTS} --recalling --out {run}"]


def _card(recipe: WorldRecipe, run: Path) -> dict[str, Any]:
    last = json.loads((run / "log.jsonl").read_text().splitlines()[-1])
    return {
        "world": recipe.name,
        "licence": "Apache-2.0; learned from the engine named under data",
        "sha256": hashlib.sha256((run / WEIGHTS).read_bytes()).hexdigest(),
        "commands": [
            f"worldsim record {recipe.name} -o data/{recipe.name}",
            *_trained(recipe, run),
            f"python -m benchmarks.ship {recipe.name} {run}",
        ],
        "held_out": last,
        "commit": commit(ROOT),
        "backbone": recipe.backbone.to_dict(),
    }


if __name__ == "__main__":
    typer.run(main)
