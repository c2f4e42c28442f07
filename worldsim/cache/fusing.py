"""Whether keys and queries can be turned by one kernel here, which takes a third of the time of torch's own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

Turn = Callable[[Tensor, Tensor, Tensor], None]
"""Writes its first argument, turned by the second, to the third; see worldsim.cache.rotary.turn."""

log = logging.getLogger(__name__)


def turn_fused(x: Tensor, by: Tensor, out: Tensor) -> bool:
    """Turn by one kernel, arguments as for worldsim.cache.rotary.turn; False, and nothing done, if there is none."""
    width = x.shape[-1]
    is_plain = x.ndim in (3, 4) and by.ndim == 3 and not width & (width - 1) and x.stride(-1) == out.stride(-1) == 1
    turn = _kernel(x.device) if x.is_cuda and is_plain else None
    if turn is None:
        return False
    turn(x, by, out)
    return True


@lru_cache(maxsize=8)
def _kernel(device: torch.device) -> Turn | None:
    """That kernel, once it has run; None where Triton is not installed or cannot compile, as without a C compiler."""
    try:
        kernels: Any = import_module("worldsim.cache.kernels")
    except ImportError as error:
        why = str(error)
    else:
        turn: Turn = kernels.turn
        if not (why := kernels.trouble(device)):
            return turn
    log.info("queries and keys are turned by several kernels, for Triton makes none here: %s", why)
    return None
