"""Weights files of small backbones: safetensors with the configuration inside, read without running anything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from worldsim.errors import WeightsError
from worldsim.models.small.backbone import SmallBackbone, SmallConfig

PICKLE_MARKS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")


def save_weights(path: Path, config: SmallConfig, tensors: Mapping[str, Tensor], *, dtype: torch.dtype) -> None:
    """Write the tensors of a backbone's state in that dtype, with its configuration.

    Raises:
        OSError: it could not be written, as on a full disk; what was there stays.
    """
    stored = {name: tensor.detach().cpu().to(dtype).contiguous() for name, tensor in tensors.items()}
    unfinished = path.with_suffix(".part")
    try:
        save_file(stored, unfinished, metadata={"worldsim": json.dumps(config.to_dict())})
    except SafetensorError as error:
        unfinished.unlink(missing_ok=True)
        raise OSError(f"{path} cannot be written ({error}); free some space or name another folder") from error
    unfinished.replace(path)


def load_weights(path: Path, *, dtype: torch.dtype, device: torch.device) -> SmallBackbone:
    """The backbone that a weights file describes, in evaluation mode.

    Raises:
        WeightsError: there is no such file, it is a pickle, torn, not written by worldsim, or its tensors are not
            those of the backbone it describes (missing, unexpected and mis-shaped ones are listed).
    """
    if not path.is_file():
        raise WeightsError(f"there is no weights file {path}; train one first, or give another path")
    with path.open("rb") as file:
        if file.read(4).startswith(PICKLE_MARKS):
            raise WeightsError(f"{path} is a pickle, which can run code when read; convert it to safetensors first")
    try:
        with safe_open(path, framework="pt") as opened:
            header = (opened.metadata() or {}).get("worldsim")
            tensors: dict[str, Tensor] = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise WeightsError(f"{path} is torn or no safetensors file ({error}); copy it again from its source") from error
    if header is None:
        raise WeightsError(f"{path} does not say which backbone it is for; only files of worldsim train can be loaded")
    try:
        described = json.loads(header)
        if isinstance(described, dict) and "keep" in described:
            raise WeightsError(
                f"{path} is a saved session and no weights file; worldsim.restore goes on with it, and the weights are "
                "those that it was lived with"
            )
        config = SmallConfig(**described)
        if config.layers > len(tensors):
            raise ValueError(f"{config.layers} layers cannot be made of {len(tensors)} tensors")
        with torch.device("meta"):
            backbone = SmallBackbone(config)
    except (TypeError, ValueError, RuntimeError, OverflowError, MemoryError) as error:
        why = str(error).partition("\n")[0]
        raise WeightsError(f"{path} describes no small backbone ({why}); it is of another version") from error
    _check(path, backbone, tensors)
    backbone.load_state_dict({name: tensor.to(dtype) for name, tensor in tensors.items()}, assign=True)
    return backbone.to(device).eval().requires_grad_(False)


def _check(path: Path, backbone: SmallBackbone, tensors: Mapping[str, Tensor]) -> None:
    wanted = {name: list(tensor.shape) for name, tensor in backbone.state_dict().items()}
    found = {name: list(tensor.shape) for name, tensor in tensors.items()}
    if wanted == found:
        return
    missing = sorted(wanted.keys() - found.keys())
    unexpected = sorted(found.keys() - wanted.keys())
    shaped = [
        f"{n} {found[n]} instead of {wanted[n]}" for n in sorted(wanted.keys() & found.keys()) if wanted[n] != found[n]
    ]
    raise WeightsError(
        f"{path} does not hold the backbone it describes: missing {_some(missing)}; unexpected {_some(unexpected)}; "
        f"mis-shaped {_some(shaped)}"
    )


def _some(names: list[str]) -> str:
    if not names:
        return "none"
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
