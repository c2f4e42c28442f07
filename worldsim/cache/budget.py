"""How much memory pages may take, as a user writes it: "256MB", on a GPU also "8GB,32GB"."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from decimal import Decimal

import torch

from worldsim.errors import ConfigError, shown

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How many bytes of pages may lie in memory: on the device of the pool, and in host memory beside it.

    What a block copies of them to see it is not counted, as it is not without a budget.
    """

    device: int
    host: int = 0

    def __post_init__(self) -> None:
        if self.device < 1 or self.host < 0:
            beside = f" and {shown(self.host)} bytes beside it" if self.host else ""
            raise ConfigError(
                f"a budget is 1 byte or more on the device and 0 or more beside it, got {shown(self.device)} "
                f"bytes{beside}; choose one such as 256MB, or none for all there is"
            )


def parse_budget(given: str | int, device: torch.device) -> Budget:
    """The budget that a text or a number of bytes names: 256_000_000, "256MB", "1.5GiB", on a GPU also "8GB,32GB".

    The second size is of host memory, where the device is a GPU; all there is if left out.

    Raises:
        ConfigError: it is no size, or there are more of them than there are kinds of memory.
    """
    sizes = [given] if isinstance(given, int) else [parse_bytes(size) for size in given.split(",")]
    if device.type == "cpu":
        if len(sizes) > 1:
            raise ConfigError(f"a CPU computes in host memory; give a budget of one size, not {given!r}")
        return Budget(device=sizes[0])
    if len(sizes) > 2:
        raise ConfigError(f"a budget is a size for the GPU and one for host memory, got {given!r}")
    return Budget(device=sizes[0], host=sizes[1] if len(sizes) > 1 else sys.maxsize)


def parse_bytes(text: str) -> int:
    """The number of bytes that a text such as "256MB", "1.5GiB" or "900B" names; ConfigError if it names none."""
    found = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([KMGT]I?|)B", text.strip().upper())
    if not found:
        raise ConfigError(f"a size is a number and its unit, such as 256MB, 1.5GB or 512MiB, got {text[:40]!r}")
    return int(Decimal(found[1]) * UNITS[found[2]])


@dataclass(frozen=True, slots=True, kw_only=True)
class TierBytes:
    """Bytes of pages in each tier. One that left memory and came back keeps its copy below, and counts in both."""

    device: int = 0
    host: int = 0
    disk: int = 0
