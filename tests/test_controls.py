"""Held keys and what they steer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from worldsim.controls import Action, Controls, Rows
from worldsim.errors import ConfigError, UnknownName

JUMP, LEFT, RIGHT = (
    Action(name="jump", keys=("Space",)),
    Action(name="left", keys=("KeyA", "ArrowLeft")),
    Action(name="right", keys=("KeyD", "ArrowRight")),
)
ONE_AT_A_TIME = Controls(actions=(JUMP, LEFT, RIGHT), exclusive=True)
TOGETHER = Controls(actions=(JUMP, LEFT, RIGHT), exclusive=False)


def test_the_keys_of_a_world_are_those_of_its_actions_in_order() -> None:
    assert TOGETHER.keys == ("Space", "KeyA", "ArrowLeft", "KeyD", "ArrowRight")
    assert len(TOGETHER) == 3


def test_a_key_that_two_actions_claim_is_refused() -> None:
    with pytest.raises(ConfigError, match="a key belongs to one action"):
        Controls(actions=(LEFT, Action(name="other", keys=("KeyA",))), exclusive=True)


def test_either_key_of_an_action_asks_for_it() -> None:
    assert TOGETHER.held({"KeyA"}) == TOGETHER.held({"ArrowLeft"}) == TOGETHER.held({"KeyA", "ArrowLeft"}) == (LEFT,)


def test_of_exclusive_actions_the_first_in_order_of_precedence_wins() -> None:
    assert ONE_AT_A_TIME.held(["KeyD", "KeyA"]) == (LEFT,)
    assert ONE_AT_A_TIME.held(["KeyD", "KeyA", "Space"]) == (JUMP,)


def test_actions_that_do_not_exclude_each_other_all_count() -> None:
    assert TOGETHER.held(["KeyD", "Space"]) == (JUMP, RIGHT)


def test_a_frame_is_steered_by_one_number_per_action() -> None:
    assert TOGETHER.vector({"ArrowRight", "Space"}) == (1.0, 0.0, 1.0)
    assert ONE_AT_A_TIME.vector({"ArrowRight", "Space"}) == (1.0, 0.0, 0.0)


def test_no_keys_mean_wait() -> None:
    assert ONE_AT_A_TIME.held(()) == ()
    assert ONE_AT_A_TIME.vector(()) == (0.0, 0.0, 0.0)


def test_an_unknown_key_is_named_with_the_keys_that_fit() -> None:
    with pytest.raises(UnknownName, match="there is no key 'KeyX'; known: ArrowLeft, ArrowRight, KeyA, KeyD, Space"):
        TOGETHER.check(["KeyA", "KeyX"])


def test_a_key_that_is_not_text_is_refused_beside_keys_that_are() -> None:
    with pytest.raises(UnknownName, match="there is no key 7"):
        TOGETHER.check(["KeyA", 7])


def test_a_text_is_not_taken_for_a_set_of_letters() -> None:
    with pytest.raises(ConfigError, match=r"got the text 'KeyA'; pass \{'KeyA'\}"):
        TOGETHER.check("KeyA")


@pytest.mark.parametrize("action", [JUMP, LEFT, RIGHT])
def test_pressing_an_action_holds_keys_that_ask_for_it(action: Action) -> None:
    assert ONE_AT_A_TIME.held(ONE_AT_A_TIME.press(action.name)) == (action,)


def test_an_action_is_found_by_the_number_that_it_has_among_those_that_steer_a_frame() -> None:
    for action in TOGETHER.actions:
        vector = TOGETHER.vector(TOGETHER.press(action.name))
        assert [at for at, number in enumerate(vector) if number] == [TOGETHER.number(action.name)]
    with pytest.raises(UnknownName, match="there is no action 'fly'"):
        TOGETHER.number("fly")


def test_pressing_wait_holds_nothing() -> None:
    assert ONE_AT_A_TIME.press("wait") == frozenset()


def test_an_unknown_action_is_named_with_those_that_fit() -> None:
    with pytest.raises(UnknownName, match="there is no action 'fly'; known: jump, left, right, wait"):
        TOGETHER.press("fly")


BY_DAY = Controls(actions=(JUMP, LEFT), exclusive=True, day=300)


def test_in_a_world_with_days_the_hour_steers_a_frame_too() -> None:
    assert len(BY_DAY) == 5
    assert BY_DAY.vector({"Space"}) == (1.0, 0.0, 0.0, 0.0, 0.0)
    assert BY_DAY.vector({"Space"}, 0) == (1.0, 0.0, 1.0, 0.0, 1.0)
    assert BY_DAY.vector((), 75) == pytest.approx((0.0, 0.0, 0.0, 1.0, 1.0))


@pytest.mark.parametrize("day", [1, 2, 12, 300])
def test_the_hour_can_be_read_off_the_numbers_even_in_single_precision(day: int) -> None:
    world = Controls(actions=(JUMP,), exclusive=True, day=day)
    for hour in range(day):
        assert world.hour(np.float32(world.vector((), hour)).tolist()) == hour
    assert world.hour(world.vector(())) is None


def test_the_next_frame_is_an_hour_later_and_after_the_last_comes_the_first() -> None:
    assert BY_DAY.next({"KeyA"}, BY_DAY.vector({"Space"}, 7)) == BY_DAY.vector({"KeyA"}, 8)
    assert BY_DAY.next((), BY_DAY.vector((), 299)) == BY_DAY.vector((), 0)


def test_an_hour_that_is_not_known_stays_so_and_a_world_without_days_has_none() -> None:
    assert BY_DAY.next({"KeyA"}, BY_DAY.vector(())) == BY_DAY.vector({"KeyA"})
    assert TOGETHER.next({"KeyA"}, TOGETHER.vector({"Space"})) == TOGETHER.vector({"KeyA"})
    assert TOGETHER.hour(TOGETHER.vector({"Space"})) is None


@pytest.mark.parametrize("hour", [-1, 300])
def test_an_hour_outside_the_day_is_refused(hour: int) -> None:
    with pytest.raises(ConfigError, match=f"an hour is a frame of the day, 0 to 299, got {hour}"):
        BY_DAY.vector((), hour)


def test_an_hour_for_a_world_without_days_is_refused() -> None:
    with pytest.raises(ConfigError, match="this world has no days, so no hour can be given; got hour=3"):
        TOGETHER.check_hour(3)


RUN = Controls(
    actions=(Action(name="left", keys=("KeyA",), adds=(0, -1)), Action(name="right", keys=("KeyD",), adds=(0, 1))),
    exclusive=False,
    rows=Rows(idle=(1, 0), count=5, step=3),
)
IDLE, LEFT_ROW, RIGHT_ROW = (1, 0), (0, -1), (0, 1)


def test_the_first_frame_is_steered_as_if_nothing_else_had_been_held_before() -> None:
    assert len(RUN) == 10
    assert RUN.next(["KeyA"], None) == RUN.vector(["KeyA"]) == LEFT_ROW * 5
    assert RUN.next([], None) == IDLE * 5
    assert TOGETHER.next(["KeyA"], None) == TOGETHER.vector(["KeyA"])


def test_rows_move_on_by_a_frame_whose_last_moment_steers_from_the_next_one_on() -> None:
    second = RUN.next(["KeyD"], RUN.vector(["KeyA"]))
    assert second == LEFT_ROW * 3 + RIGHT_ROW * 2
    assert RUN.next([], second) == LEFT_ROW * 0 + RIGHT_ROW * 2 + RIGHT_ROW + IDLE * 2


def test_rows_go_on_from_numbers_that_were_kept_as_tensors_keep_them() -> None:
    tilted = Controls(
        actions=(Action(name="look", keys=("KeyI",), adds=(0.1, 0.0)),),
        exclusive=False,
        rows=Rows(idle=(0.0, 0.0), count=5, step=3),
    )
    before, kept = tilted.vector(["KeyI"]), np.float32(tilted.vector(["KeyI"])).tolist()
    assert np.array_equal(np.float32(tilted.next([], before)), np.float32(tilted.next([], kept)))


def test_what_is_held_together_adds_up_to_a_row() -> None:
    assert RUN.vector(["KeyA", "KeyD"]) == (0, 0) * 5


@pytest.mark.parametrize(
    "changed",
    [
        {"actions": (Action(name="left", keys=("KeyA",), adds=(1,)),)},
        {"actions": (LEFT,)},
        {"day": 12},
    ],
)
def test_rows_that_do_not_fit_their_actions_are_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="in a world of rows every action adds to each of the 2 numbers of one"):
        replace(RUN, **changed)
    with pytest.raises(ConfigError, match="in a world of rows"):
        Controls(actions=RUN.actions, exclusive=False)


@pytest.mark.parametrize("wrong", [{"idle": ()}, {"step": 0}, {"step": 6}])
def test_rows_without_numbers_or_with_fewer_than_moments_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="a frame as many rows as moments or more"):
        replace(RUN.rows, **wrong)


@pytest.mark.parametrize("keys", [None, 3, 1.5, np.array(5), np.array("KeyA")])
def test_what_holds_no_names_are_no_keys(keys: Any) -> None:
    with pytest.raises(ConfigError, match=r"keys are a set of names, got .*; pass \(\)"):
        TOGETHER.check(keys)


@pytest.mark.parametrize("keys", [[["KeyA"]], [{"KeyA": 1}], [None], [3], [b"KeyA"], [("KeyA",)]])
def test_a_key_that_is_no_text_is_a_key_that_nobody_knows(keys: Any) -> None:
    with pytest.raises(UnknownName, match="there is no key "):
        TOGETHER.check(keys)
