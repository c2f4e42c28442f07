"""Compiling the parts of layers: what runs between two products becomes one kernel."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from worldsim.errors import ConfigError


def compile_parts(layers: Iterable[nn.Module], parts: Sequence[str]) -> None:
    """Have methods of some layers compiled when they are first called, for sizes as they come then.

    Layers of one kind share what is compiled. Equal to what they were up to rounding.

    Args:
        layers: whose parameters may no longer move to another device or dtype.
        parts: the names of the methods, each without branches.
    """
    for layer in layers:
        for part in parts:
            setattr(layer, part, torch.compile(getattr(layer, part), dynamic=False))


def check_compiler(device: torch.device) -> None:
    """Raise ConfigError unless something can be compiled for that device."""

    def double(numbers: Tensor) -> Tensor:
        return numbers * 2

    size = 1 + secrets.randbelow(1 << 16)  # for one that was met before, code would come out of a cache
    try:
        torch.compile(double, dynamic=False)(torch.ones(size, device=device))
    except RuntimeError as error:
        why = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"nothing can be compiled here ({why}); install a C++ compiler such as g++, or leave --compile out"
        ) from error
