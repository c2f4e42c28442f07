"""What can be settled before the first block, how much of the past is held for it, and what does not go together."""

from __future__ import annotations

import pytest

from worldsim.cache.policy import Full, Policy, SinkWindow, Window
from worldsim.cache.retrieval import Retrieval
from worldsim.decoding.plan import VideoPlan
from worldsim.decoding.prompting import PromptChange
from worldsim.decoding.rolling import Rolling
from worldsim.errors import ConfigError
from worldsim.samplers import few_step


def plan_of(policy: Policy, *, frames: int = 1, sigmas: tuple[float, ...] = (1.0, 0.5), anew: int = 0) -> VideoPlan:
    """A plan under which so many frames are computed anew on a change of the prompt."""
    told = PromptChange(anew=anew)
    return VideoPlan(frames_per_block=frames, sigmas=sigmas, sampler=few_step, policy=policy, on_prompt=told)


def test_a_plan_that_cannot_work_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1 frame, got 0"):
        plan_of(Full(), frames=0)
    with pytest.raises(ConfigError, match="noise levels"):
        plan_of(Full(), sigmas=())


def test_a_window_that_rolls_does_not_compute_its_past_anew() -> None:
    policy = Window(frames=6, anew=True)
    with pytest.raises(ConfigError, match=r"got a past that is computed anew; choose .* a policy of another name"):
        VideoPlan(frames_per_block=1, sigmas=(1.0, 0.5), sampler=few_step, policy=policy, rolling=Rolling())


@pytest.mark.parametrize(
    ("policy", "anew", "limit"),
    [
        (Full(), 0, None),
        (Window(frames=6), 0, 6),
        (Window(frames=6), 9, 9),
        (SinkWindow(sink=2, window=6), 3, 8),
        (Window(frames=6, anew=True), 0, 12),
        (Window(frames=6, anew=True), 9, 15),
    ],
)
def test_what_is_held_is_what_blocks_see_what_a_prompt_renews_and_what_is_computed_anew(
    policy: Policy, anew: int, limit: int | None
) -> None:
    assert plan_of(policy, anew=anew).limit == limit


@pytest.mark.parametrize(
    ("policy", "frames", "anew", "beside"),
    [
        (Full(), 2, 0, 4),
        (Window(frames=6), 3, 9, 6),
        (Retrieval(run=5, tau=0.5), 1, 0, 1 + 5),
        (Retrieval(run=5, tau=0.5), 7, 0, 7 + 10),
        (Retrieval(run=5, tau=0.5), 3, 11, 3 + 15),
    ],
)
def test_beside_what_a_session_holds_are_two_blocks_or_one_and_what_is_packed_at_once(
    policy: Policy, frames: int, anew: int, beside: int
) -> None:
    assert plan_of(policy, frames=frames, anew=anew).beside == beside


def test_ahead_of_the_past_are_all_blocks_of_a_rolling_window_but_its_first() -> None:
    plan = VideoPlan(
        frames_per_block=3, sigmas=(1.0, 0.7, 0.4), sampler=few_step, policy=Window(frames=6), rolling=Rolling()
    )
    assert plan.ahead == 6
    assert plan_of(Window(frames=6), frames=3).ahead == 0
