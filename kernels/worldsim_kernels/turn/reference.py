"""Turning in plain torch, for every device and every layout."""

from __future__ import annotations

import torch
from torch import Tensor


def turn(x: Tensor, by: Tensor, out: Tensor) -> None:
    """Write x to out, turned as worldsim_kernels.turn says; computed in float32 and rounded once."""
    out.copy_(torch.view_as_real(_pairs(x.float()) * by).flatten(-2))


def _pairs(x: Tensor) -> Tensor:
    return torch.view_as_complex(x.view(*x.shape[:-1], -1, 2))
