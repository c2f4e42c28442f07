"""Weights files of small backbones: safetensors with the configuration inside, read without running anything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from worldsim.errors import WeightsError, shown
from worldsim.files import write_tensors
from worldsim.models.small.backbone import SmallBackbone, SmallConfig

LONGEST_REASON = 120
"""Characters that an error repeats of why a configuration is none."""
PICKLE_MARKS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")


def save_weights(path: Path, config: SmallConfig, tensors: Mapping[str, Tensor], *, dtype: torch.dtype) -> None:
    """Write the tensors of a backbone's state in that dtype, with its configuration.

    Raises:
        OSError: it could not be written, as on a full disk; what was there stays.
    """
    write_tensors(path, {name: tensor.to(dtype) for name, tensor in tensors.items()}, config.to_dict())


def load_weights(path: Path, *, dtype: torch.dtype, device: torch.device) -> SmallBackbone:
    """The backbone that a weights file describes, in evaluation mode.

    Raises:
        WeightsError: there is no such file, it is a pickle, torn, not written by worldsim, or its tensors are not
            those of the backbone it describes (missing, unexpected and mis-shaped ones are listed) or not all finite
            floating-point numbers in that dtype.
    """
    if _opening(path).startswith(PICKLE_MARKS):
        raise WeightsError(f"{path} is a pickle, which can run code when read; convert it to safetensors first")
    try:
        with safe_open(path, framework="pt") as opened:
            header = (opened.metadata() or {}).get("worldsim")
            tensors: dict[str, Tensor] = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
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
        why = str(error).partition("\n")[0][:LONGEST_REASON]
        raise WeightsError(
            f"{path} describes no small backbone ({why}); it is damaged or of another version: copy it again, or train "
            "one"
        ) from error
    _check(path, backbone, tensors)
    numbers = {name: _finite(path, name, tensor, dtype) for name, tensor in tensors.items()}
    backbone.load_state_dict(numbers, assign=True)
    return backbone.to(device).eval().requires_grad_(False)


def _opening(path: Path) -> bytes:
    """The first bytes of a weights file; WeightsError if there is none that can be read."""
    wanted = "give the .safetensors file that worldsim train wrote"
    try:
        if path.is_dir():
            raise WeightsError(f"{path} is a folder, and the weights of such a world are one file in it; {wanted}")
        if path.exists() and not path.is_file():
            raise WeightsError(f"{path} is a device or a pipe and no file; {wanted}")
        with path.open("rb") as file:
            return file.read(4)
    except FileNotFoundError as error:
        raise WeightsError(f"there is no weights file {path}; train one first, or give another path") from error
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror}); {wanted}") from error


def _finite(path: Path, name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A tensor of a file in that dtype; WeightsError unless it holds finite floating-point numbers."""
    trouble = f"{path} holds no weights that can be computed with: {shown(name)}"
    if not tensor.is_floating_point():
        raise WeightsError(f"{trouble} is of {tensor.dtype}; save it as torch.float32, or take the file it was made of")
    given = tensor.to(dtype)
    if broken := int((~given.isfinite()).sum()):
        raise WeightsError(
            f"{trouble} has {broken} of its {given.numel()} numbers beyond {dtype} or not a number at all; take "
            "weights from before the training broke"
        )
    return given


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
        f"mis-shaped {_some(shaped)}; copy it again from its source, or train one with this version"
    )


def _some(names: list[str]) -> str:
    if not names:
        return "none"
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
