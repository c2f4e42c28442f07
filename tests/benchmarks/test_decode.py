"""What benchmarks.decode times, and how it counts."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial

import pytest
import torch
import typer
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import decode, decode_wan
from benchmarks.record import write
from worldsim.cache.policy import Window
from worldsim.testing.fakes import tiny_world


def flops(call) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


@pytest.mark.parametrize("frames", [1, 2, 4])
@pytest.mark.parametrize("past", [3, 6])
def test_the_floor_is_the_arithmetic_of_a_block_without_what_is_computed_once_a_frame(frames, past):
    world = tiny_world(policy=Window(frames=past), frames_per_block=frames)
    config = world.backbone.config
    bare = decode.floor(config, frames=frames, past=past, calls=world.calls_per_block, dtype=torch.float32)
    with world.open(seed=1, start=0) as session:
        while len(session._moment.decoder.context.frames) < past:
            session.step()
        whole = flops(session.step)
    levels = 2 * world.calls_per_block * frames  # multiply and add, for every frame of every call
    per_frame = (2 * 64 + config.dim + config.controls + 6 * config.dim + 2 * config.dim) * config.dim
    assert flops(bare) == whole - levels * per_frame


def test_the_floor_of_a_backbone_with_beliefs_holds_their_two_products_too():
    config = tiny_world().backbone.config
    plain, believing = (
        flops(decode.floor(one, frames=2, past=3, calls=4, dtype=torch.float32))
        for one in (config, replace(config, palette=7))
    )
    tokens, patch = 2 * config.geometry().tokens_per_frame, config.patch_values
    assert believing - plain == 4 * 2 * tokens * (config.dim * patch + patch * 7)


def test_a_timed_call_takes_at_least_as_long_as_it_sleeps():
    assert decode.timed(lambda: time.sleep(0.02)) >= 0.02


def test_a_walker_holds_every_key_of_the_world_in_turn():
    world = tiny_world()
    with world.open(seed=1) as session:
        step = decode.walker(world, session)
        held = [step().keys for _ in range(4 * len(world.keys))]
    assert held[::4] == [frozenset({key}) for key in world.keys]
    assert held[0] == held[3] != held[4]


def test_times_of_a_block_are_reported_with_their_ratio_to_the_floor_and_to_world_time():
    world = tiny_world(frames_per_block=2)
    found = decode.block_times(world, blocks=3)
    assert found["block_ms"]["count"] == 3
    assert found["fps"] == pytest.approx(2_000 / found["block_ms"]["median"])
    assert found["real_time_factor"] == pytest.approx(found["fps"] / world.fps)
    assert found["ratio_to_floor"]["min"] > 0


def test_a_long_run_compares_late_blocks_and_memory_with_early_ones():
    found = decode.long_run(tiny_world(), blocks=311)
    assert found["block_50_ms"]["count"] == found["block_300_ms"]["count"] == 20
    ratio = found["block_300_ms"]["median"] / found["block_50_ms"]["median"]
    assert found["ratio_300_to_50"] == pytest.approx(ratio)
    memory = found["resident_mb"]
    assert found["growth_once_settled"] == pytest.approx(memory["at_the_end"] / memory["at_block_155"] - 1)


def test_models_of_the_wan_family_are_timed_by_their_size_with_drawn_weights(monkeypatch, tmp_path):
    asked = []

    def measure(size, *, blocks, pixels, keep):
        asked.append((size, blocks, pixels))
        keep({"size": "half done"})
        assert '"size": "half done"' in (tmp_path / "decode-wan-tiny.json").read_text()
        return {"size": size}

    monkeypatch.setattr(decode_wan, "measure", measure)
    monkeypatch.setattr(decode, "write", partial(write, folder=tmp_path))
    decode.main(world="wan-tiny", blocks=3, random_weights=True, size="96x64")
    assert asked == [("tiny", 3, (64, 96))]
    assert '"size": "tiny"' in (tmp_path / "decode-wan-tiny.json").read_text()


@pytest.mark.parametrize(("world", "random_weights"), [("wan-tiny", False), ("crafter", True)])
def test_only_models_of_the_wan_family_have_random_weights(world, random_weights):
    with pytest.raises(typer.BadParameter, match="--random-weights"):
        decode.main(world=world, random_weights=random_weights)
