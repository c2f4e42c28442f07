"""How the bundled worlds are trained: anew, onward from weights that know them, and to recall."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from worldsim.simulators.crafter import Crafter
from worldsim.training.distillation import BeliefKeeping
from worldsim.training.objectives import BeliefForcing, DiffusionForcing
from worldsim.training.trainer import Acting, Stage, TrainingPlan

CRAFTER_ROWS = (1.0,) * 7 + (12.0,) * 2
"""Seven rows of the map, and two of the inventory."""
CRAFTER_SPOTS = ((2, 4, 12.0), (4, 4, 12.0), (3, 3, 12.0), (3, 5, 12.0))
"""The tiles around the player: what hands do shows there and in the inventory, and has to be believed in both."""
CRAFTER_COUNTS: dict[str, Any] = {"rows": CRAFTER_ROWS, "spots": CRAFTER_SPOTS}

CRAFTER_TRAINING = TrainingPlan(
    stages=(
        Stage(
            updates=3_500,
            objective=BeliefForcing(frames=4, first=0, window=0, **CRAFTER_COUNTS),
            windows=4,
            lr=(2e-3, 2e-3),
        ),
        Stage(
            updates=17_000,
            objective=BeliefForcing(frames=4, first=0, window=0, **CRAFTER_COUNTS),
            windows=8,
            lr=(2e-3, 1e-3),
        ),
        Stage(
            updates=900,
            objective=BeliefForcing(frames=8, first=4, copies=2, **CRAFTER_COUNTS),
            windows=3,
            lr=(1e-3, 1e-3),
        ),
        Stage(
            updates=3_500,
            objective=BeliefForcing(frames=24, first=8, blocks=(1, 1, 2, 4), **CRAFTER_COUNTS),
            windows=2,
            lr=(1e-3, 1e-5),
        ),
    ),
    warmup=50,
    seldom=0.5,
)

CRAFTER_ACTING = Acting(
    share=0.5,
    controls=tuple(
        at for at, action in enumerate(Crafter.controls.actions) if action.name.startswith(("make", "place", "do"))
    ),
    objective=BeliefKeeping(forcing=BeliefForcing(frames=6, first=4, copies=4, blocks=(1, 1, 2), **CRAFTER_COUNTS)),
    windows=6,
)
"""Every other update learns what comes of keys that do something to what lies ahead, or make something."""

CRAFTER_ONWARD = TrainingPlan(
    stages=(
        Stage(
            updates=3_000,
            objective=BeliefKeeping(
                forcing=BeliefForcing(frames=24, first=16, copies=2, blocks=(1, 1, 2, 4), **CRAFTER_COUNTS)
            ),
            windows=2,
            lr=(6e-5, 6e-6),
        ),
    ),
    warmup=50,
    average=0.998,
    seldom=0.8,
    acting=CRAFTER_ACTING,
)

CRAFTER_ONWARD_ON_GPU = TrainingPlan(
    stages=(
        Stage(
            updates=1_771,
            objective=BeliefKeeping(
                forcing=BeliefForcing(frames=24, first=16, copies=2, blocks=(1, 1, 2, 4), **CRAFTER_COUNTS),
                keeps=1.0,
                everywhere=False,
            ),
            windows=16,
            lr=(2e-4, 4e-6),
        ),
    ),
    warmup=100,
    average=0.998,
    seldom=0.5,
    acting=replace(CRAFTER_ACTING, share=0.33, windows=48),
)
"""From as much play as a GPU gets through in minutes, windows drawn evenly tell what lies where by themselves. An
update takes 116 ms on an H200."""

CRAFTER_RECALLING = TrainingPlan(
    stages=(
        Stage(
            updates=1_500,
            objective=BeliefForcing(frames=16, first=0, blocks=(1, 1, 1, 2, 4), rows=CRAFTER_ROWS, entering=6.0),
            windows=2,
            lr=(2e-3, 1e-4),
        ),
    ),
    warmup=50,
    average=0.995,
    only=("recollect.", "trust."),
)

CRAFTER_ON_GPU = TrainingPlan(
    stages=(
        Stage(
            updates=2_400,
            objective=BeliefForcing(frames=4, first=0, blocks=(1,), window=0, **CRAFTER_COUNTS),
            windows=256,
            lr=(1.5e-3, 1.2e-3),
        ),
        Stage(
            updates=6_600,
            objective=BeliefForcing(frames=32, first=8, blocks=(1, 1, 2, 4), window=32, **CRAFTER_COUNTS),
            windows=32,
            lr=(1.2e-3, 1e-5),
        ),
    ),
    warmup=100,
    seldom=0.5,
)

MAZE_TRAINING = TrainingPlan(
    stages=(
        Stage(updates=20_000, objective=DiffusionForcing(frames=8, first=4, copies=2), windows=8, lr=(1e-3, 1e-3)),
        Stage(updates=10_000, objective=DiffusionForcing(frames=16, first=4), windows=8, lr=(1e-3, 1e-5)),
    ),
)
