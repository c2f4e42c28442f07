"""Reads the numbers out of a TorchScript archive, which OpenAI published CLIP as, without running what else is in it.

An archive is a program beside its weights, and loading one as such runs parts of it. Here its records are only read:
tensors, numbers and names; whatever else it asks for is refused.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

KINDS = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
}


def is_archive(path: Path) -> bool:
    """Whether a file is a TorchScript archive, and no other kind of file that torch writes."""
    return zipfile.is_zipfile(path) and any(
        PurePosixPath(name).name == "constants.pkl" for name in zipfile.ZipFile(path).namelist()
    )


def read_archive(path: Path) -> dict[str, Tensor]:
    """The tensors in an archive by their names.

    Raises:
        pickle.UnpicklingError: it asks for more than tensors, numbers and names.
        OSError, ValueError, KeyError, zipfile.BadZipFile, RuntimeError: it is torn.
    """
    with zipfile.ZipFile(path) as archive:
        (record,) = (name for name in archive.namelist() if PurePosixPath(name).name == "data.pkl")
        module = _Reader(archive, PurePosixPath(record).parent / "data", archive.read(record)).load()
    return dict(_tensors(module, ""))


class _Part:
    """A module of the program: only what it holds."""


class _Reader(pickle.Unpickler):
    def __init__(self, archive: zipfile.ZipFile, folder: PurePosixPath, record: bytes) -> None:
        super().__init__(io.BytesIO(record))
        self._archive = archive
        self._folder = folder

    def find_class(self, module: str, name: str) -> Callable[..., Any] | torch.dtype:
        if module.split(".")[0] == "__torch__":
            return _Part
        if module == "torch" and name in KINDS:
            return KINDS[name]
        known: dict[tuple[str, str], Callable[..., Any]] = {
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("collections", "OrderedDict"): OrderedDict,
            **{("torch.jit._pickle", f"build_{kind}list"): list for kind in ("int", "double", "bool", "tensor")},
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return known[module, name]

    def persistent_load(self, told: Any) -> Tensor:
        _, kind, key, *_ = told
        numbers = bytearray(self._archive.read(str(self._folder / key)))
        return torch.frombuffer(numbers, dtype=kind) if numbers else torch.empty(0, dtype=kind)


def _tensor(storage: Tensor, offset: int, size: Sequence[int], stride: Sequence[int], *_: object) -> Tensor:
    return torch.as_strided(storage, size, stride, offset)


def _tensors(part: object, prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in vars(part).items():
        if isinstance(value, Tensor):
            yield prefix + name, value
        elif isinstance(value, _Part):
            yield from _tensors(value, f"{prefix}{name}.")
