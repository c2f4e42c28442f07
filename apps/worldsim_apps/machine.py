"""What this machine has that matters to a world: versions, device, threads, number formats, codecs."""

from __future__ import annotations

import platform
from time import perf_counter
from typing import Any

import av
import torch

from worldsim.runtime.devices import pick_device
from worldsim.runtime.video import ENCODER


def machine() -> dict[str, Any]:
    """A description that fits into JSON. Takes some milliseconds, because bfloat16 is measured, not looked up."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "torch": torch.__version__,
        "device": str(pick_device()),
        "threads": torch.get_num_threads(),
        "cpu_bf16_speedup": float(f"{_matmul_s(torch.float32) / _matmul_s(torch.bfloat16):.3g}"),
        "av": av.__version__,
        "h264": ENCODER in av.codecs_available,
    }


def _matmul_s(dtype: torch.dtype, *, side: int = 512, tries: int = 5) -> float:
    """The shortest time of a matrix product on the CPU, the first one left out."""
    factor = torch.ones(side, side, dtype=dtype)
    times = []
    for _ in range(1 + tries):
        began = perf_counter()
        factor @ factor
        times.append(perf_counter() - began)
    return min(times[1:])
