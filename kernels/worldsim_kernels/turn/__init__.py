"""Queries and keys turned by their positions: by one kernel, which takes a third of the time, where it can be had."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from worldsim_kernels.turn import reference

Turn = Callable[[Tensor, Tensor, Tensor], None]
"""Writes its first argument, turned by the second, to the third; see turn."""

log = logging.getLogger(__name__)


def turn(x: Tensor, by: Tensor, out: Tensor) -> None:
    """Write x to out, its pairs turned: dimensions 2i and 2i + 1 of a head are a complex number, multiplied by another.

    Without gradients. Source: RoPE, Su et al. 2021 (arXiv:2104.09864), section 3.4.

    Args:
        x: [..., tokens, heads, head_dim], of any floating dtype; computed in float32.
        by: complex64 [..., tokens, 1, head_dim / 2].
        out: like x, and may be of another floating dtype.
    """
    _chosen(x, by, out)(x, by, out)


def _chosen(x: Tensor, by: Tensor, out: Tensor) -> Turn:
    """The kernel where it can be had and takes such tensors, the reference elsewhere."""
    width = x.shape[-1]
    is_plain = x.ndim in (3, 4) and by.ndim == 3 and not width & (width - 1) and x.stride(-1) == out.stride(-1) == 1
    kernel = _kernel(x.device) if x.is_cuda and is_plain else None
    return kernel or reference.turn


@lru_cache(maxsize=8)
def _kernel(device: torch.device) -> Turn | None:
    """The kernel, once it has run; None where Triton is not installed or cannot compile, as without a C compiler."""
    try:
        module: Any = import_module("worldsim_kernels.turn.kernel")
    except ImportError as error:
        why = str(error)
    else:
        turn: Turn = module.turn
        if not (why := module.trouble(device)):
            return turn
    log.info("queries and keys are turned by several kernels, for Triton makes none here: %s", why)
    return None
