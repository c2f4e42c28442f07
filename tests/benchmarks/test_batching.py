"""What benchmarks.batching times, and how it counts."""

from __future__ import annotations

import pytest

from benchmarks import batching
from worldsim.testing.fakes import tiny_world


def test_both_ways_make_the_same_blocks():
    world = tiny_world()
    turns, shared = ([world.open(seed=seed) for seed in range(3)] for _ in range(2))
    for key in ("KeyD", "Space"):
        batching.one_after_the_other(turns, key)
        batching.together(shared, key)
    assert [session.block for session in (*turns, *shared)] == [2] * 6
    for one, other in zip(turns, shared, strict=True):
        assert [step.keys for step in one.log.steps] == [step.keys for step in other.log.steps]


def test_a_session_that_fails_ends_the_benchmark():
    session = tiny_world().open()
    session.close()
    with pytest.raises(Exception, match="closed"):
        batching.together([session], "KeyD")


def test_rates_are_those_of_the_rounds_and_every_page_comes_back():
    world = tiny_world(frames_per_block=2, pages=200)
    found = batching.measure(world, counts=(1, 3), blocks=4)
    assert found["sessions"].keys() == {"1", "3"}
    for count, row in found["sessions"].items():
        assert row["gain"]["count"] == 4
        for way in ("turns", "together"):
            assert row[way]["blocks_per_s"] == pytest.approx(int(count) * 1e3 / row[way]["block_ms_p50"])
            assert row[way]["block_ms_p99"] >= row[way]["block_ms_p50"]
    per_page = world.pool.shape.bytes(world.pool.dtype) / 1e6
    assert found["planned_mb_per_session"] == pytest.approx(9 * per_page)
    assert found["mb_to_go_back_60_s"] == pytest.approx(240 * per_page)
    assert world.pool.used == 0
