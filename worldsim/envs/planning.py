"""Planning in a world by trying out what might be done, from clones of one moment."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from worldsim.envs.episode import Score
from worldsim.envs.world_env import EnvState, WorldEnv
from worldsim.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Shooting:
    """How far and how widely random shooting looks.

    sequences: of actions that are tried.
    length: of each, in blocks.
    actions: numbers of those to draw from; all of the environment's if None.
    """

    sequences: int
    length: int
    actions: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.sequences < 1 or self.length < 1:
            raise ConfigError(
                f"try at least 1 sequence of at least 1 action, got sequences={self.sequences}, length={self.length}"
            )
        if self.actions is not None and not self.actions:
            raise ConfigError("there are no actions to draw from; name at least one, or leave them out for all")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do next.

    actions: one for each block.
    score: of the frame that they lead to.
    """

    actions: tuple[int, ...]
    score: float


def random_shooting(
    env: WorldEnv, state: EnvState, score: Score, *, shooting: Shooting, generator: np.random.Generator
) -> Plan:
    """The best of some random sequences of actions: the one whose last frame scores highest, the first of equals.

    Each is played from the same moment, in which the environment is again afterwards, also if something goes wrong.
    Under the same actions that moment leads to the frames that were scored, bit for bit.

    Args:
        env: where they are played; its own score is asked too, and not used.
        state: where they begin.
        score: how good it is to stand at a frame.
        shooting: how many, how long, of which actions.
        generator: draws the actions; the same state of it draws the same.

    Raises:
        ConfigError: an action that the environment does not have, a state of another world, or a score that is none.
        SessionClosed: the state was closed.
        PoolFull: no memory for another block.

    Source: random shooting as in Nagabandi et al. 2018 (arXiv:1708.02596), section IV-C, without replanning.
    """
    choices = range(len(env.action_names)) if shooting.actions is None else shooting.actions
    drawn = generator.choice(np.asarray(choices, np.int64), (shooting.sequences, shooting.length))
    best: Plan | None = None
    try:
        for actions in drawn.tolist():
            env.restore_state(state)
            for action in actions:
                frame = env.step(action)[0]
            reached = _number(score(frame))
            if best is None or reached > best.score:
                best = Plan(actions=tuple(actions), score=reached)
    finally:
        env.restore_state(state)
    assert best is not None
    return best


def _number(score: float) -> float:
    if math.isnan(score):
        raise ConfigError(
            "a frame scored NaN, which is neither better nor worse than any other; score it with a number"
        )
    return float(score)
