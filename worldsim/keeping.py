"""How a world keeps keys and values: in how many bits, where, and within what budget."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from worldsim.cache.answers import seen_by
from worldsim.cache.budget import parse_budget
from worldsim.cache.pool import PagePool, PageShape, Storage
from worldsim.cache.spill import SpillFile
from worldsim.cache.tiers import Tiers
from worldsim.decoding.plan import VideoPlan
from worldsim.errors import ConfigError, shown, whole
from worldsim.files import path_of


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Keeping:
    """How a world keeps keys and values.

    storage: of frames that are no longer recent; exactly if None.
    tiers: where they lie, and how much memory they may take; all in memory if None. Of one world alone.
    """

    storage: Storage | None = None
    tiers: Tiers | None = None


def tiers_of(budget: str | int | None, spill: Path | str | None, device: torch.device) -> Tiers | None:
    """Where pages lie under that budget; ConfigError if it is none, or there is a folder without a budget."""
    if budget is None:
        if spill is not None:
            raise ConfigError(f"nothing is moved to {spill} without a budget; give one, such as 256MB")
        return None
    if not isinstance(budget, str):
        budget = whole(budget, "a budget is a whole number of bytes or a text such as 256MB")
    return Tiers(
        parse_budget(budget, device),
        device=device,
        disk=SpillFile(None if spill is None else path_of(spill, "spill")),
        run=ThreadPoolExecutor(1, thread_name_prefix="worldsim-pages").submit,
    )


def check_keeping(shape: PageShape, plan: VideoPlan, keeping: Keeping, *, pages: int, dtype: torch.dtype) -> None:
    """Raise ConfigError as check_pages and check_budget would of a pool of so many pages; nothing is allocated."""
    pool = PagePool(shape, pages=pages, dtype=dtype, device=torch.device("meta"), storage=keeping.storage)
    check_pages(pool, plan)
    if keeping.tiers is not None:
        check_budget(pool, plan, keeping.tiers.budget.device)


def check_pages(pool: PagePool, plan: VideoPlan) -> None:
    """Raise ConfigError if not even one session finds room for all that its policy holds."""
    held, is_sparse = plan.limit, plan.policy.sparse is not None
    if held is not None and held + plan.beside > pool.pages:
        others = "a block and of a run that grows old" if is_sparse else "two blocks"
        raise ConfigError(
            f"the policy holds up to {shown(held)} frames, beside {shown(plan.beside)} of {others}, and all sessions "
            f"of the world share {pool.pages} pages of one frame; choose a policy that holds fewer"
            f"{', or shorter runs' if is_sparse else ''}"
        )


def check_budget(pool: PagePool, plan: VideoPlan, budget: int) -> None:
    """Raise ConfigError if the budget has no room for what a block sees and adds; of an endless past, one frame."""
    held = plan.policy.limit
    seen = 1 if held is None else len(seen_by(plan.policy, range(held), held, lambda frame: 1.0))
    least = pool.bytes_for(seen, plan.frames_per_block)
    if budget < least:
        raise ConfigError(
            f"a block of {plan.frames_per_block} that sees {seen}{'' if held else ' or more'} frames before it needs "
            f"{least} bytes of keys and values in memory, and the budget is {budget}; choose one of "
            f"{-(-least // 10**6)}MB or more, a policy that sees fewer frames, or kv in fewer bits"
        )
