"""Published worlds on an accelerator: lived in again bit for bit, what they show on a CPU, and what they take."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import worldsim
from benchmarks.decode_wan import drawn_backbone, drawn_codec
from tests.test_matrixgame import WALK, loaded_on, picture, published
from tests.test_wan import PROMPT, converted, tiny_decoder
from tests.test_wan import loaded_on as told_on
from worldsim.cache.policy import Window
from worldsim.codec.wan import WanCodec
from worldsim.keeping import Keeping, tiers_of
from worldsim.matrixgame import RECIPES as PLAYED
from worldsim.models.wan.config import wan_config
from worldsim.runtime.batching import step_together
from worldsim.runtime.session import Session
from worldsim.runtime.world import World
from worldsim.wan import RECIPES, SELF_FORCING, WanParts, assemble_wan
from worldsim.wan_memory import memory_plan

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here"),
]
GPU = torch.device("cuda")
KEYS = [(), ("KeyW",), ("KeyW",), ("KeyD",)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return converted(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def games(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published(tmp_path_factory.mktemp("matrixgame"))


def shown(session: Session, keys: Any) -> np.ndarray:
    return np.concatenate([session.step(held).frames for held in keys])


def live_again(world: World, saved: Path, keys: Any, **begun: Any) -> np.ndarray:
    """What a session shows, found again after a rewind, in a fork, restored from its pages and lived from its log."""
    half = len(keys) // 2
    saved.mkdir(exist_ok=True)
    with world.open(seed=3, **begun) as session:
        first = shown(session, keys[:half])
        mark = session.mark()
        session.save(saved / "pages", keep="pages")
        session.save(saved / "log", keep="log")
        with session.fork() as twin:
            rest = shown(session, keys[half:])
            assert np.array_equal(shown(twin, keys[half:]), rest)
        session.rewind(mark)
        assert np.array_equal(shown(session, keys[half:]), rest)
    for kept in ("pages", "log"):
        with worldsim.restore(saved / kept, world=world) as restored:
            assert np.array_equal(shown(restored, keys[half:]), rest), kept
    return np.concatenate((first, rest))


@pytest.mark.parametrize("name", RECIPES)
def test_a_world_that_is_told_is_lived_in_again_bit_for_bit(folder: Path, tmp_path: Path, name: str) -> None:
    live_again(told_on("cuda", name, folder), tmp_path, [()] * 6, prompt=PROMPT)


@pytest.mark.parametrize("name", PLAYED)
def test_a_world_that_is_played_is_lived_in_again_bit_for_bit(games: Path, tmp_path: Path, name: str) -> None:
    live_again(loaded_on("cuda", name, games), tmp_path, WALK, frames=picture(4))


def test_the_bundled_world_is_lived_in_again_bit_for_bit(tmp_path: Path) -> None:
    live_again(worldsim.load("crafter", device="cuda"), tmp_path, KEYS * 6, start=0)


@pytest.mark.parametrize("name", ["self-forcing", "longlive", "rolling-forcing", "causal-forcing-framewise"])
def test_what_a_world_shows_is_what_it_shows_on_a_cpu_but_for_rounding(folder: Path, name: str) -> None:
    found = []
    for device, seed in (("cuda", 3), ("cpu", 3), ("cpu", 4)):
        with told_on(device, name, folder).open(seed=seed, prompt=PROMPT) as session:
            found.append(shown(session, [()] * 3).astype(np.float64))
    here, there, another = found
    # The GPU computes in bfloat16, the CPU in float32.
    assert np.abs(here - there).mean() < 0.2 * np.abs(another - there).mean()


@pytest.mark.parametrize("kv", [None, "int8:recent=3"])
def test_pages_that_move_to_host_memory_and_back_change_no_bit(folder: Path, tmp_path: Path, kv: str | None) -> None:
    plain = told_on("cuda", "self-forcing", folder, kv=kv, sessions=3)
    budget = 26 * plain.pool.shape.bytes(plain.pool.dtype)
    moved = told_on("cuda", "self-forcing", folder, kv=kv, sessions=3, budget=budget)
    wanted = live_again(plain, tmp_path / "plain", [()] * 10, prompt=PROMPT)
    assert np.array_equal(live_again(moved, tmp_path / "moved", [()] * 10, prompt=PROMPT), wanted)
    with moved.open(seed=3, prompt=PROMPT) as session, session.fork() as twin:
        for each in (session, twin) * 8:
            each.step()
        lies = moved.pool.tier_bytes
    assert lies.device <= budget
    assert lies.host > 0


def test_sessions_that_make_blocks_together_show_what_each_shows_alone_but_for_rounding(folder: Path) -> None:
    world = told_on("cuda", "self-forcing", folder, sessions=3)
    with world.open(seed=5, prompt=PROMPT) as one, world.open(seed=6, prompt="a road") as other:
        rounds = [step_together([one, other], [(), ()]) for _ in range(3)]
        together = [np.concatenate([each[at].result().frames for each in rounds]).astype(int) for at in range(2)]
    for seed, prompt, found in zip((5, 6), (PROMPT, "a road"), together, strict=True):
        with world.open(seed=seed, prompt=prompt) as session:
            alone = shown(session, [()] * 3).astype(int)
        assert np.abs(found - alone).mean() < 0.2 * np.abs(together[0] - together[1]).mean()


def test_a_preview_and_an_offloaded_codec_show_the_same_again_bit_for_bit(folder: Path, tmp_path: Path) -> None:
    video = np.random.default_rng(2).integers(0, 255, (9, 64, 96, 3), dtype=np.uint8)
    for settings in ({"preview": tiny_decoder(tmp_path / "taew2_1.pth")}, {"offload": True}):
        world = told_on("cuda", "longlive", folder, **settings)
        live_again(world, tmp_path / next(iter(settings)), [()] * 4, prompt=PROMPT, frames=video)


@pytest.mark.parametrize(("frames", "budget"), [(9, None), (9, "320MB")])
def test_a_world_takes_what_is_planned_for_it(frames: int, budget: str | None) -> None:
    config = replace(wan_config("1.3b", height_px=240, width_px=416), layers=12)
    plan = SELF_FORCING.plan(policy=Window(frames=frames))
    keeping = Keeping(tiers=tiers_of(budget, None, GPU))
    told = memory_plan(config, plan, dtype=torch.bfloat16, keeping=keeping)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    codec = drawn_codec(preview=False, device=GPU, dtype=torch.bfloat16)
    assert isinstance(codec, WanCodec)
    backbone = drawn_backbone(config, device=GPU, dtype=torch.bfloat16)
    words = torch.randn(40, config.text_dim, generator=torch.Generator().manual_seed(1))
    parts = WanParts(backbone=backbone, codec=codec, embed=lambda _: words, identity="drawn")
    world = assemble_wan(SELF_FORCING, plan, parts, keeping=keeping)
    picture = np.zeros((1, *world.size, 3), np.uint8)
    with world.open(seed=1, prompt="drawn", frames=picture) as session:
        for _ in range(8):
            session.step()
    took = torch.cuda.max_memory_allocated() - before
    assert 0.75 * told.device < took < 1.05 * told.device, f"{took / 1e9:.2f} of {told.device / 1e9:.2f} GB"
