"""Random shooting finds the best of what it tries, changes nothing, and reaches water in the bundled world."""

from __future__ import annotations

import numpy as np
import pytest

import worldsim
from benchmarks.tiles import CENTRE, MATERIALS, SPRITES, read_frames
from worldsim.envs import Shooting, WorldEnv, random_shooting
from worldsim.errors import ConfigError, SessionClosed
from worldsim.simulators.protocol import Frame
from worldsim.testing.fakes import tiny_world

STEP = {"player-left": (0, -1), "player-right": (0, 1), "player-up": (-1, 0), "player-down": (1, 0)}


@pytest.fixture
def env() -> WorldEnv:
    env = WorldEnv(tiny_world(frames_per_block=2))
    env.reset(seed=4)
    return env


def test_the_best_is_returned_and_leads_to_the_frame_that_was_scored(env):
    scored: list[float] = []

    def score(frame: Frame) -> float:
        scored.append(float(frame.mean()))
        return scored[-1]

    env.step(1)
    state = env.clone_state()
    plan = random_shooting(
        env, state, score, shooting=Shooting(sequences=9, length=4), generator=np.random.default_rng(1)
    )
    assert len(scored) == 9
    assert len(set(scored)) > 5
    assert plan.score == max(scored)
    assert len(plan.actions) == 4
    for action in plan.actions:
        frame, *_, info = env.step(action)
    assert info["block"] == 4, "it went on from the moment that was cloned"
    assert frame.mean() == plan.score


def test_of_equals_the_first_is_returned(env):
    expected = np.random.default_rng(1).choice(np.arange(4), (5, 3))[0]
    shooting = Shooting(sequences=5, length=3)
    plan = random_shooting(env, env.clone_state(), lambda _: 2.5, shooting=shooting, generator=np.random.default_rng(1))
    assert (plan.actions, plan.score) == (tuple(expected.tolist()), 2.5)


def test_equal_generators_plan_the_same_and_a_generator_goes_on(env):
    def plans(seed: int) -> list[tuple[int, ...]]:
        generator, state = np.random.default_rng(seed), env.clone_state()
        shooting = Shooting(sequences=2, length=6)
        return [random_shooting(env, state, np.mean, shooting=shooting, generator=generator).actions for _ in range(2)]

    assert plans(1) == plans(1)
    assert plans(1) != plans(2)
    assert len(set(plans(1))) == 2


def test_only_the_actions_named_are_tried(env):
    shooting = Shooting(sequences=8, length=9, actions=(1, 3))
    plan = random_shooting(env, env.clone_state(), np.mean, shooting=shooting, generator=np.random.default_rng(1))
    assert set(plan.actions) == {1, 3}
    unknown = Shooting(sequences=8, length=9, actions=(4,))
    with pytest.raises(ConfigError, match="there is no action 4"):
        random_shooting(env, env.clone_state(), np.mean, shooting=unknown, generator=np.random.default_rng(1))


@pytest.mark.parametrize("fails", [False, True])
def test_the_environment_is_where_it_was_also_if_something_goes_wrong(env, fails):
    def score(frame: Frame) -> float:
        return 1 / 0 if fails else 1.0

    state = env.clone_state()
    first = env.step(1)[0]
    try:
        shooting = Shooting(sequences=3, length=2)
        random_shooting(env, state, score, shooting=shooting, generator=np.random.default_rng(1))
    except ZeroDivisionError:
        assert fails
    assert np.array_equal(env.step(1)[0], first)


def test_what_cannot_be_compared_or_begun_is_refused(env):
    state, shooting = env.clone_state(), Shooting(sequences=3, length=2)
    with pytest.raises(ConfigError, match="a frame scored NaN"):
        random_shooting(env, state, lambda _: np.nan, shooting=shooting, generator=np.random.default_rng(1))
    state.close()
    with pytest.raises(SessionClosed, match="mark was closed"):
        random_shooting(env, state, np.mean, shooting=shooting, generator=np.random.default_rng(1))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"sequences": 0, "length": 1}, "at least 1 sequence"),
        ({"sequences": 1, "length": 0}, "at least 1 action"),
        ({"sequences": 1, "length": 1, "actions": ()}, "no actions to draw from"),
    ],
)
def test_a_search_that_finds_nothing_is_refused(settings, told):
    with pytest.raises(ConfigError, match=told):
        Shooting(**settings)


def stands_before_water(frame: Frame) -> bool:
    """Whether the tile that the player faces is water, read from the pixels."""
    reading = read_frames(frame[None])
    row, column = STEP.get(SPRITES[reading.sprites[0][CENTRE]], (0, 0))
    return MATERIALS[reading.materials[0, CENTRE[0] + row, CENTRE[1] + column]] == "water"


def towards_water(frame: Frame) -> float:
    """Minus the steps to the nearest water in view, and half a step less for who faces it."""
    rows, columns = np.nonzero(read_frames(frame[None]).materials[0] == MATERIALS.index("water"))
    steps = np.abs(rows - CENTRE[0]) + np.abs(columns - CENTRE[1])
    return float(-steps.min(initial=20)) + stands_before_water(frame) / 2


@pytest.mark.timeout(180)  # seconds are enough, but not while other work has the cores
def test_planning_with_clones_reaches_water_where_walking_at_random_seldom_does():
    env = WorldEnv(worldsim.load("crafter", device="cpu", steps=1, policy="window:frames=4"))
    first, _ = env.reset(seed=1, options={"start": 2})
    assert towards_water(first) == -3
    start, moves = env.clone_state(), [number for number, name in enumerate(env.action_names) if "move" in name]

    def planned(generator: np.random.Generator) -> bool:
        env.restore_state(start)
        for _ in range(2):
            shooting = Shooting(sequences=8, length=3, actions=moves)
            plan = random_shooting(env, env.clone_state(), towards_water, shooting=shooting, generator=generator)
            for action in plan.actions:
                frame, *_ = env.step(action)
        return stands_before_water(frame)

    def walked(generator: np.random.Generator) -> bool:
        env.restore_state(start)
        return any([stands_before_water(env.step(action)[0]) for action in generator.choice(moves, 6).tolist()])

    assert all(planned(np.random.default_rng(seed)) for seed in range(3))
    assert sum(walked(np.random.default_rng(seed)) for seed in range(8)) <= 4, "no step of a walk has to be the last"
