"""A guest does what there is to do, and what it did can be played again from a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.demo import ALIVE, CROWDED, ERRANDS, NIGHT, Visit, script, visit
from worldsim.simulators.crafter import CONTROLS, Crafter

pytest.importorskip("crafter")


class RealWorld:
    """The engine, with a place and hands of its own at each start, in place of a generated world."""

    @contextmanager
    def open(self, *, start: int, seed: int) -> Iterator[Any]:
        simulator = Crafter(varied=True)
        simulator.reset(1_000 * start + seed)
        yield SimpleNamespace(step=lambda keys: SimpleNamespace(frames=simulator.step(keys)[None]))


@pytest.mark.parametrize("seed", [1, 2])
def test_a_guest_comes_to_something_in_the_engine_and_says_what(seed: int) -> None:
    found = visit(RealWorld(), 4, seed, blocks=60)  # type: ignore[arg-type]
    assert len(found.actions) == 60
    assert len(found.done) >= 1
    assert {*found.done} <= {errand.name for errand in ERRANDS}
    assert found.places > 3
    assert found.clean > 0.99
    assert " ".join(found.done) in str(found)


def test_errands_are_of_actions_that_the_world_has() -> None:
    for errand in ERRANDS:
        assert CONTROLS.press(errand.act)


def test_a_play_counts_for_what_came_of_it_and_not_for_crowds_or_smears() -> None:
    def score(
        done: str, places: int = 8, clean: float = 1.0, crowd: int = 0, alive: float = 0, dark: float = NIGHT
    ) -> float:
        names = tuple(done.split())
        what = {"done": names, "places": places, "clean": clean, "crowd": crowd, "alive": alive, "dark": dark}
        return Visit(start=0, seed=0, actions=(), **what).score  # type: ignore[arg-type]

    assert score("wood water") > score("wood wood") > score("wood")
    assert score("wood", places=60) > score("wood")
    assert score("wood", dark=0.0) < score("wood") > score("wood", dark=0.5)
    assert score("wood", clean=0.9) < score("wood")
    assert score("wood", alive=1) == score("wood", alive=ALIVE) > score("wood", alive=ALIVE / 2) > score("wood")
    assert score("wood", crowd=CROWDED) == score("wood") > score("wood", crowd=CROWDED + 1)


@pytest.mark.parametrize("seed", [3, 4])
def test_a_script_holds_the_keys_of_every_action(seed: int) -> None:
    names = ["wait", *(action.name for action in CONTROLS.actions)]
    actions = np.random.default_rng(seed).choice(names, 40).repeat(2).tolist()
    held, lines = (
        frozenset[str](),
        {line["block"]: line["keys"] for line in map(json.loads, script(actions).splitlines())},
    )
    for block, name in enumerate(actions):
        held = frozenset(lines.get(block, held))
        assert held == CONTROLS.press(name)
