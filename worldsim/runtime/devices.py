"""The one place that picks a device."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from worldsim.errors import ConfigError, UnknownName, counted, shown

LONGEST = 16
"""Characters of the name of a device: more than any machine needs, fewer than Python refuses to read."""
MEMINFO = Path("/proc/meminfo")
"""What Linux tells of its memory."""


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; "auto" is the GPU where there is one and the CPU elsewhere.

    Raises:
        UnknownName: no such kind of device.
        ConfigError: it is not there, for nothing falls back in silence, or it is no name.
    """
    if not isinstance(name, str):
        raise ConfigError(f"a device is chosen by a name such as 'auto' or 'cpu', got {shown(name)}")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        return torch.device(name)
    found = re.fullmatch(r"cuda(?::([0-9]+))?", name)
    count = torch.cuda.device_count()
    if not found:
        raise UnknownName("device", name, ["auto", "cpu", *(["cuda", "cuda:0"] if count else [])])
    if len(name) > LONGEST or int(found[1] or 0) >= count:
        raise ConfigError(f"device {shown(name)} is not there: torch sees {counted(count, 'GPU')}; use 'auto' or 'cpu'")
    return torch.device(name)


def is_gpu(device: torch.device) -> bool:
    """Whether work on that device is launched kernel by kernel, so that little of it costs as much as more."""
    return device.type == "cuda"


def free_bytes(device: torch.device) -> int | None:
    """How much memory can still be had there.

    Of a GPU with what torch holds ready on it; of a CPU with what the system can give up, and what it can swap to. None
    where the system does not tell that.
    """
    if is_gpu(device):
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    try:
        told = dict(re.findall(r"^(\w+): +([0-9]+) kB$", MEMINFO.read_text(), re.MULTILINE))
        return 1024 * (int(told["MemAvailable"]) + int(told["SwapFree"]))
    except (OSError, KeyError):
        return None
