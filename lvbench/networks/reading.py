"""From a file of weights to a network that has them, or to what is wrong with the file."""

from __future__ import annotations

import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lvbench.errors import ConfigError
from lvbench.networks.archive import is_archive, read_archive

WRAPPED = ("state_dict", "params")
"""Names under which some files keep what others are."""
TORN = (
    *(RuntimeError, ValueError, LookupError, TypeError, AttributeError, EOFError),
    *(AssertionError, struct.error, zipfile.BadZipFile),
)
"""What torch and pickle stumble over in a file that was cut off, or in which a byte is another."""


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name: safetensors, what torch saves, or a TorchScript archive. Runs nothing in it.

    Raises:
        ConfigError: it cannot be read, is torn, or holds more than numbers.
    """
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        found = read_archive(path) if is_archive(path) else _saved(path)
        for name in WRAPPED:
            found = found[name] if isinstance(found.get(name), Mapping) else found
        return {str(name): tensor for name, tensor in found.items() if isinstance(tensor, Tensor)}
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    except (SafetensorError, pickle.UnpicklingError, *TORN) as error:
        raise ConfigError(
            f"{path} is torn, or holds more than weights; get it again from where it comes from"
        ) from error


def fill(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> nn.Module:
    """The network with these weights as float32, ready to judge.

    Args:
        network: on any device, "meta" too.
        state: tensors by name, with "visual.", "module." or "features." before it where the file has that.
        path: of the file, for the message.

    Raises:
        ConfigError: a tensor is missing, has another shape or kind, is one too many or not finite.
    """
    prefix = next(
        (each for each in ("visual.", "module.", "features.") if any(name.startswith(each) for name in state)), ""
    )
    given = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    wanted = network.state_dict()
    wrong = [f"it lacks {name}" for name in wanted.keys() - given.keys()]
    wrong += [f"{name} is one too many" for name in given.keys() - wanted.keys()]
    wrong += [
        f"{name} is {_kind(given[name])} {list(given[name].shape)} and should be {_kind(tensor)} {list(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in given and (given[name].shape != tensor.shape or _kind(given[name]) != _kind(tensor))
    ]
    if wrong:
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise ConfigError(f"{path} has the weights of another network: {min(wrong)}{more}")
    plain = {name: tensor.to(wanted[name].dtype) for name, tensor in given.items()}
    broken = [name for name, tensor in plain.items() if tensor.is_meta or not tensor.isfinite().all()]
    if broken:
        raise ConfigError(
            f"{path} has no finite numbers in {min(broken)}, or not only such; get it again from where it comes from"
        )
    network.load_state_dict(plain, assign=True)
    return network.eval().requires_grad_(requires_grad=False)


def _kind(tensor: Tensor) -> str:
    """What its numbers are: floats of any size are one kind, and what holds none, or holds them otherwise, another."""
    if tensor.layout != torch.strided or tensor.is_quantized:
        return "packed"
    return "floats" if tensor.is_floating_point() else str(tensor.dtype).removeprefix("torch.")


def _saved(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what torch then refuses it also warns
        return torch.load(path, map_location="cpu", weights_only=True)
