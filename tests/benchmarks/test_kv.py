"""What benchmarks.kv counts, compares and calls reached."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks import kv
from worldsim.cache.policy import Window
from worldsim.cache.pool import PagePool
from worldsim.cache.quant import parse_storage
from worldsim.testing.fakes import tiny_world

PAGE = 2 * 2 * 15 * 32 * 4  # keys and values, layers, tokens, channels, bytes of a float32
INT8 = PAGE // 4 + 2 * 2 * 15 * 2


def world_with(storage: str | None, dtype: torch.dtype = torch.float32):
    world = tiny_world(policy=Window(frames=5))
    chosen = parse_storage(storage) if storage else None
    world.pool = PagePool(world.pool.shape, pages=64, dtype=dtype, device=torch.device("cpu"), storage=chosen)
    return world


def test_bytes_of_a_window_are_those_of_its_recent_frames_exactly_and_of_the_others_coded():
    assert kv.sizes(world_with(None)) == {"exact_page": PAGE, "window": 5 * PAGE, "window_share": 1.0}
    found = kv.sizes(world_with("int8:recent=2"))
    assert (found["exact_page"], found["coded_page"], found["window"]) == (PAGE, INT8, 2 * PAGE + 3 * INT8)
    assert found["window_share"] == pytest.approx((2 + 3 * INT8 / PAGE) / 5)
    assert kv.sizes(world_with("int8:recent=9"))["window_share"] == 1.0
    half = kv.sizes(world_with("int8:recent=0", torch.bfloat16))
    assert half["page_share"] == half["page_share_of_16_bits"] == 2 * found["page_share"]
    assert found["page_share_of_16_bits"] == half["page_share"]


def test_every_world_makes_the_block_that_follows_each_past_and_is_held_to_engine_and_exact_pages(monkeypatch):
    episode = SimpleNamespace(
        frames=np.full((9, 2, 2, 3), 50, np.uint8), keys=[frozenset({f"K{at}"}) for at in range(9)]
    )
    asked = []

    def branch(world, one, at, keys):
        asked.append((world.name, at, keys))
        return np.full((2, 2, 2, 3), 50 + world.error, np.uint8)

    monkeypatch.setattr(kv, "branch", branch)
    worlds = {
        name: SimpleNamespace(name=name, error=error, frames_per_block=2)
        for name, error in ((kv.EXACT, 3), ("int8", 5))
    }
    made = kv.ahead(worlds, [(episode, 4), (episode, 6)])
    assert asked == [(name, at, episode.keys[at : at + 2]) for at in (4, 6) for name in worlds]
    assert np.array_equal(made["int8"].to_engine, np.full((2, 2), 25.0))
    assert np.array_equal(made["int8"].to_exact, np.full((2, 2), 4.0))
    assert np.array_equal(made[kv.EXACT].to_exact, np.zeros((2, 2)))


def made(to_engine, to_exact):
    return kv.Made(to_engine=np.array(to_engine, float), to_exact=np.array(to_exact, float))


def test_likeness_is_of_all_frames_together_and_its_change_of_the_same_cases():
    rng = np.random.default_rng(1)
    exact = made([[1.0], [4.0], [9.0], [16.0]], np.zeros((4, 1)))
    worse = made(2 * exact.to_engine, [[0.0], [0.0], [0.0], [8.0]])
    found = kv.likeness(worse, exact, rng)
    assert found["psnr_db"] == pytest.approx(10 * np.log10(255**2 / 15))
    doubled = -10 * np.log10(2)
    assert found["change_db"] == pytest.approx({"value": doubled, "low": doubled, "high": doubled})
    assert found["psnr_to_exact_db"] == pytest.approx(10 * np.log10(255**2 / 2))
    assert (found["identical"], found["blocks"]) == (0.75, 4)
    one_case = made([[1.0], [4.0], [9.0], [32.0]], np.zeros((4, 1)))
    change = kv.likeness(one_case, exact, rng)["change_db"]
    assert change["low"] < change["value"] < change["high"] == 0


def test_blocks_are_timed_in_turn_and_what_is_held_at_the_end_is_told():
    worlds = {name or kv.EXACT: world_with(name) for name in (None, "int8:recent=0", "int8:recent=2")}
    found = kv.block_times(worlds, blocks=3)
    for one in found.values():
        assert one["block_ms"]["count"] == one["to_exact"]["count"] == 3
    assert found[kv.EXACT]["to_exact"] == {"median": 1.0, "min": 1.0, "max": 1.0, "count": 3}
    held = {name: one["held_bytes"] for name, one in found.items()}
    frames = held[kv.EXACT]["exact"] // PAGE
    assert held["int8:recent=0"] == {"exact": 0, "coded": frames * INT8, "share": pytest.approx(INT8 / PAGE)}
    assert held["int8:recent=2"]["exact"] == (frames - 3) * PAGE, "all that was recent to a moment it can go back to"
    assert held["int8:recent=2"]["coded"] == (frames - 2) * INT8
    assert all(world.pool.used == 0 for world in worlds.values())


@pytest.mark.parametrize(
    ("low", "high", "share", "reached"),
    [(-0.05, 0.05, 0.44, [True, True]), (-0.2, 0.0, 0.5, [False, True]), (0.0, 0.1, 0.51, [False, False])],
)
def test_a_bar_is_reached_by_all_that_are_judged_or_missed(low, high, share, reached):
    good = {"likeness": {"change_db": {"low": -0.01, "high": 0.01}}, "bytes": {"window_share": 0.3}}
    other = {"likeness": {"change_db": {"low": low, "high": high}}, "bytes": {"window_share": share}}
    bad = {"likeness": {"change_db": {"low": -9.0, "high": -8.0}}, "bytes": {"window_share": 1.0}}
    assert list(kv.verdicts({"int8": good, "int8:recent=0": other, "kivi2": bad}).values()) == reached
    assert list(kv.verdicts({"int8": other, "int8:recent=0": good, "kivi2": bad}).values()) == reached


def test_as_many_cases_are_judged_as_were_asked_for(monkeypatch):
    world = world_with(None)
    episode = SimpleNamespace(frames=np.zeros((60, 6, 10, 3), np.uint8), keys=[frozenset()] * 60)
    monkeypatch.setattr(kv, "explore_many", lambda seed, count, **_: iter([episode] * count))
    monkeypatch.setattr(kv, "branch", lambda world, one, at, keys: np.zeros((1, 6, 10, 3), np.uint8))
    found = kv.measure({kv.EXACT: world, "int8": world_with("int8")}, cases=11, blocks=1, seed=3)
    assert [one["likeness"]["blocks"] for one in found.values()] == [11, 11]
    assert found["int8"].keys() == {"bytes", "likeness", "block_ms", "to_exact", "held_bytes"}
