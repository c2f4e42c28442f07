"""How keys and values are kept: under which budget, where the rest goes, and whether a world has room for a session."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from worldsim.cache.context import Context
from worldsim.cache.policy import Full, Policy, SinkWindow, Window
from worldsim.cache.pool import PagePool, PageShape
from worldsim.cache.quant import parse_storage
from worldsim.cache.retrieval import Retrieval
from worldsim.decoding.plan import VideoPlan
from worldsim.decoding.prompting import PromptChange
from worldsim.errors import ConfigError
from worldsim.keeping import Keeping, check_budget, check_keeping, check_pages, tiers_of
from worldsim.samplers import few_step

CPU = torch.device("cpu")
SHAPE = PageShape(layers=2, tokens=3, heads=1, head_dim=4)
PAGE = 2 * 2 * 3 * 4 * 4
"""Bytes of one page of that shape in float32, keys and values together."""


def pool_of(pages: int, **keeping: Any) -> PagePool:
    return PagePool(SHAPE, pages=pages, dtype=torch.float32, device=CPU, **keeping)


def plan_of(policy: Policy, frames: int = 1) -> VideoPlan:
    return VideoPlan(frames_per_block=frames, sigmas=(1.0,), sampler=few_step, policy=policy)


def test_keys_and_values_are_kept_exactly_and_in_memory_unless_it_is_said_otherwise() -> None:
    assert (Keeping().storage, Keeping().tiers, tiers_of(None, None, CPU)) == (None, None, None)


@pytest.mark.parametrize(
    ("budget", "size"),
    [(123_456, 123_456), (np.int64(123_456), 123_456), ("256MB", 256_000_000), ("1.5GiB", 3 * 2**29)],
)
def test_a_budget_is_a_number_of_bytes_or_a_text(budget: str | int, size: int, tmp_path: Path) -> None:
    tiers = tiers_of(budget, tmp_path / "spill", CPU)
    assert tiers is not None
    assert tiers.budget.device == size


@pytest.mark.parametrize("budget", [True, 1.5e9, [3], b"256MB"])
def test_what_is_neither_is_no_budget(budget: Any) -> None:
    with pytest.raises(ConfigError, match=r"a whole number of bytes or a text such as 256MB, got "):
        tiers_of(budget, None, CPU)


@pytest.mark.parametrize("budget", ["256", "-1MB", "", "1GB,2GB", 0, -5])
def test_a_budget_that_is_no_size_is_refused(budget: str | int) -> None:
    with pytest.raises(ConfigError):
        tiers_of(budget, None, CPU)


def test_a_folder_for_pages_needs_a_budget_and_has_to_take_them(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing is moved to .*spill without a budget; give one, such as 256MB"):
        tiers_of(None, tmp_path / "spill", CPU)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="pages cannot be kept in"):
        tiers_of(10**9, tmp_path / "file" / "spill", CPU)


@pytest.mark.parametrize("seed", [1])
def test_pages_beyond_a_budget_lie_in_the_folder_and_come_back_as_they_were(tmp_path: Path, seed: int) -> None:
    tiers = tiers_of(3 * PAGE, str(tmp_path / "spill"), CPU)
    pool = pool_of(9, tiers=tiers)
    drawn = torch.randn(2, 9, 2, 1, 3, 1, 4, generator=torch.Generator().manual_seed(seed))
    pages = []
    for keys, values in drawn.unbind(1):
        pool.check_room(1)
        pages += pool.take(1)
        pool.write(pages[-1:], keys, values)
        assert pool.tier_bytes.device <= 3 * PAGE
    assert pool.tier_bytes.disk >= 6 * PAGE
    assert (tmp_path / "spill").is_dir()
    for page, (keys, values) in zip(pages, drawn.unbind(1), strict=True):
        assert torch.equal(pool.read(page)[0], keys[:, 0])
        assert torch.equal(pool.read(page)[1], values[:, 0])


@pytest.mark.parametrize(
    ("policy", "frames", "least"), [(Window(frames=5), 1, 7), (SinkWindow(sink=2, window=4), 3, 12)]
)
def test_a_pool_has_room_for_what_a_policy_holds_and_two_blocks(policy: Policy, frames: int, least: int) -> None:
    check_pages(pool_of(least), plan_of(policy, frames))
    with pytest.raises(
        ConfigError,
        match=rf"holds up to {policy.limit} frames, beside {2 * frames} of two blocks, .* share {least - 1} pages",
    ):
        check_pages(pool_of(least - 1), plan_of(policy, frames))


@pytest.mark.parametrize(("frames", "run"), [(1, 5), (1, 1), (3, 2), (3, 7)])
def test_a_pool_has_room_for_a_run_that_is_packed_beside_all_that_a_sparse_policy_holds(frames: int, run: int) -> None:
    policy = Retrieval(recent=4, run=run, bank=2, tau=0.5)
    plan, least = plan_of(policy, frames), policy.limit + frames + -(-frames // run) * run
    pool = pool_of(least)
    check_pages(pool, plan)
    context, block = Context(pool, policy.sparse), torch.zeros(2, frames, 3, 1, 4)
    for _ in range(20 * run):
        context.append(block, block, [torch.arange(3)] * frames)  # all tokens are kept, which is the most
        context.keep(policy.keep(context.frames, context.next_frame))
    with pytest.raises(
        ConfigError,
        match=rf"up to {policy.limit} frames, beside {least - policy.limit} of a block and of a run that grows old, "
        rf".* share {least - 1} pages of one frame; choose a policy that holds fewer, or shorter runs",
    ):
        check_pages(pool_of(least - 1), plan)


def test_a_pool_has_room_for_the_frames_that_a_new_prompt_computes_anew() -> None:
    plan = replace(plan_of(Window(frames=5), 1), on_prompt=PromptChange(anew=8))
    check_pages(pool_of(10), plan)
    with pytest.raises(ConfigError, match=r"holds up to 8 frames, beside 2 .* share 9 pages"):
        check_pages(pool_of(9), plan)


def test_a_policy_without_a_bound_is_given_any_pool() -> None:
    check_pages(pool_of(1), plan_of(Full()))


@pytest.mark.parametrize(
    ("policy", "frames", "told", "pages"),
    [
        (Window(frames=4), 1, "sees 4 frames before it", 5),
        (SinkWindow(sink=2, window=3), 4, "sees 5 frames before it", 9),
        (Full(), 2, "sees 1 or more frames before it", 3),
        (Retrieval(recent=4, top=1, run=3, bank=2, pick="first", like=0.9), 1, "sees 7 frames before it", 8),
    ],
)
def test_a_budget_holds_what_a_block_sees_and_adds(policy: Policy, frames: int, told: str, pages: int) -> None:
    pool, plan = pool_of(64), plan_of(policy, frames)
    check_budget(pool, plan, pages * PAGE)
    with pytest.raises(ConfigError, match=rf"a block of {frames} that {told} needs {pages * PAGE} bytes .*1MB or more"):
        check_budget(pool, plan, pages * PAGE - 1)


def test_a_budget_may_be_smaller_where_pages_are_coded() -> None:
    storage = parse_storage("int8:recent=1")
    pool, plan = pool_of(64, storage=storage), plan_of(Window(frames=4))
    # One frame and the block exactly; three coded, and the one that the block makes old.
    least = 2 * PAGE + 4 * storage.code.bytes(SHAPE)
    check_budget(pool, plan, least)
    with pytest.raises(ConfigError, match=f"needs {least} bytes"):
        check_budget(pool, plan, least - 1)


def test_what_a_pool_has_no_room_for_is_told_before_there_is_one() -> None:
    plan, least = plan_of(Window(frames=4), 2), pool_of(1).bytes_for(4, 2)
    for pages, budget, told in ((7, least, "share 7 pages"), (8, least - 1, f"the budget is {least - 1}")):
        tiers = tiers_of(budget, None, CPU)
        with pytest.raises(ConfigError, match=told):
            check_keeping(SHAPE, plan, Keeping(tiers=tiers), pages=pages, dtype=torch.float32)
    check_keeping(SHAPE, plan, Keeping(tiers=tiers_of(least, None, CPU)), pages=8, dtype=torch.float32)
