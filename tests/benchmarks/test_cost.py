"""What benchmarks.cost lets grow old, and what it calls flat."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import typer

from benchmarks import cost, memory
from worldsim.cache.policy import Full, Policy, Window
from worldsim.cache.retrieval import Retrieval
from worldsim.testing.fakes import tiny_world


@pytest.mark.parametrize(
    "policy", [Window(frames=5), Retrieval(recent=3, top=2, run=2, bank=4), Retrieval(recent=3, run=2, bank=4, tau=0.5)]
)
@pytest.mark.parametrize("remembers", [False, True])
def test_a_decoder_grows_old_by_so_many_frames_and_lives_on(policy: Policy, remembers: bool) -> None:
    world = tiny_world(policy=policy, remembers=remembers)
    decoder = cost.opened(world)
    born = decoder.context.next_frame
    cost.grow_old(world, decoder, 100)
    assert decoder.context.next_frame == born + 100
    assert decoder.blocks == 100
    held = cost.held_bytes(decoder)
    assert held["pages"] > 0
    assert (held["memory"] > 0) == remembers
    cost.live(world, decoder)
    cost.grow_old(world, decoder, 99)
    assert cost.held_bytes(decoder)["pages"] == held["pages"]
    assert torch.isfinite(cost.live(world, decoder).latents).all()
    decoder.close()
    assert world.pool.used == 0


def test_what_sees_everything_holds_ever_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "LIVED", 6)
    world = tiny_world(policy=Full())
    decoder = cost.opened(world)
    cost.grow_old(world, decoder, 20)
    early = cost.held_bytes(decoder)
    cost.grow_old(world, decoder, 20)
    late = cost.held_bytes(decoder)
    assert late["pages"] - early["pages"] == 20 * world.pool.shape.bytes(world.pool.dtype)
    assert late["latents"] > early["latents"]


def test_worlds_of_all_ages_make_blocks_in_turn() -> None:
    world = tiny_world(policy=Window(frames=4))
    decoders = {name: {age: (world, cost.opened(world)) for age in (1, 10)} for name in ("one", "other")}
    before = {id(one): one.blocks for ages in decoders.values() for _, one in ages.values()}
    took = cost.times(decoders, 3)
    assert {name: {age: len(ms) for age, ms in ages.items()} for name, ages in took.items()} == {
        "one": {1: 3, 10: 3},
        "other": {1: 3, 10: 3},
    }
    assert all(one.blocks == before[id(one)] + 5 for ages in decoders.values() for _, one in ages.values())


def test_growth_is_old_over_young_and_retrieval_is_held_to_the_window_of_the_same_age() -> None:
    name = cost.RETRIEVING[0]
    took = {cost.PLAIN: {1.0: [10.0, 20.0], 60.0: [11.0, 22.0]}, name: {1.0: [10.0, 20.0], 60.0: [12.0, 24.0]}}
    held: dict[str, Any] = {cost.PLAIN: {"1": {}}, name: {"1": {}}}
    found = cost.judge(took, held)
    assert found[cost.PLAIN]["growth"]["median"] == pytest.approx(1.1)
    assert found[name]["growth"]["median"] == pytest.approx(1.2)
    assert found[name]["to_window"]["median"] == pytest.approx(12 / 11)
    assert found[name]["block_ms"].keys() == {"1", "60"}


@pytest.mark.parametrize(
    ("growth", "to_window", "passed"),
    [(1.05, 1.1, [True, True]), (1.11, 1.1, [False, True]), (1.0, 1.2, [True, False])],
)
def test_bars_are_missed_by_any_world(growth: float, to_window: float, passed: list[bool]) -> None:
    found = {name: {"growth": {"median": 1.0}, "to_window": {"median": 1.0}} for name in cost.WORLDS}
    found[cost.RETRIEVING[-1]] = {"growth": {"median": growth}, "to_window": {"median": to_window}}
    assert list(cost.verdicts(found).values()) == passed


@pytest.mark.parametrize("minutes", [[1, 1.05], [10, 1, 0.95]])
def test_ages_that_are_too_near_each_other_are_refused(minutes: list[float]) -> None:
    with pytest.raises(typer.BadParameter, match=r"ages are 0\.1 minutes apart or more, got .*1"):
        cost.main(minutes=minutes)


def test_all_but_what_sees_everything_is_timed_and_a_choice_keeps_the_plain_window(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[list[str]] = []

    class Enough(Exception):
        pass

    def grown(worlds: list[str], _: object) -> None:
        asked.append(worlds)
        raise Enough

    monkeypatch.setattr(cost, "grown", grown)
    for only in (None, [cost.RETRIEVING[1]]):
        with pytest.raises(Enough):
            cost.main(only=only)
    assert asked == [list(cost.WORLDS), [cost.PLAIN, cost.RETRIEVING[1]]]
    assert set(memory.WORLDS) - set(cost.WORLDS) == {"full"}


def test_a_world_that_is_not_timed_is_refused_by_name() -> None:
    with pytest.raises(typer.BadParameter, match=r"no world full; known: window:frames=32; recalls; "):
        cost.main(only=["full"])


def test_what_was_not_timed_misses_no_bar() -> None:
    found = {cost.PLAIN: {"growth": {"median": 1.0}, "to_window": {"median": 1.0}}}
    assert cost.verdicts(found) == {"flat": True, "retrieval": True}
