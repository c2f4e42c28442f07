"""Whether there is room for a world of published weights, and what leaves the device where there is not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from worldsim.decoding.plan import VideoPlan
from worldsim.errors import ConfigError
from worldsim.keeping import Keeping, check_keeping
from worldsim.runtime.devices import free_bytes, is_gpu
from worldsim.wan_memory import Config, Shortcuts, check_memory, least_bytes, memory_plan, pages_of

SPARED = 8
"""A model of which so many times what it keeps fits into memory is not planned, where it computes on a CPU."""
Check = Callable[[Config, torch.dtype], bool]
"""Told the size of a backbone and what it computes in before anything is allocated, says whether the codec is to be
offloaded; what it raises ends the loading."""
OFFLOADED = (
    "the codec is offloaded, since there is no room for it on the GPU otherwise: frames are cut into tiles and take "
    "longer; a smaller window (policy), a budget for keys and values or the tiny decoder (preview) leave it room"
)

log = logging.getLogger(__name__)


def room_for(
    plan: VideoPlan,
    *,
    device: torch.device,
    shortcuts: Shortcuts,
    keeping: Keeping,
    sessions: int = 1,
    offload: bool | None = None,
) -> Check:
    """What raises ConfigError unless there is room for a world that makes blocks so, and a budget that fits.

    The weights decide how large a backbone is, so that it is for load_parts to ask, when it has seen their shapes.

    Args:
        plan: how blocks are made.
        device: where.
        shortcuts: what is computed otherwise than published, but for the codec.
        keeping: how keys and values are kept.
        sessions: how many are lived in at once.
        offload: whether the codec is offloaded; if None, where the world finds room on a GPU so and not otherwise.
    """

    def check(config: Config, dtype: torch.dtype) -> bool:
        check_keeping(config.pages, plan, keeping, pages=pages_of(plan, sessions=sessions), dtype=dtype)
        given: dict[str, Any] = {"dtype": dtype, "keeping": keeping, "sessions": sessions}
        least = least_bytes(config, plan, linears=shortcuts.linears, **given)
        free = free_bytes(device)
        # The plan takes seconds, of which small models on a CPU are spared.
        if free is None or not (is_gpu(device) or SPARED * least > free):
            return bool(offload)
        host = free_bytes(torch.device("cpu")) if is_gpu(device) else None
        refused: list[ConfigError] = []
        for away in [False, True] if offload is None and is_gpu(device) else [bool(offload)]:
            try:
                planned = memory_plan(config, plan, shortcuts=replace(shortcuts, offload=away), **given)
                check_memory(planned, free, host=host)
            except ConfigError as error:
                refused.append(error)
                continue
            if refused:
                log.warning(OFFLOADED)
            return away
        raise refused[0]

    return check
