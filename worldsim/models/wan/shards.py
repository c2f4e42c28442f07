"""Tensors on their way to safetensors files, one at a time, so that a model larger than memory can be written.

Source: the format of safetensors: 8 bytes of length, a JSON header padded with spaces, then the bytes of the tensors.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from worldsim.errors import WeightsError

LIMIT_BYTES = 5_000_000_000
"""Of tensors in one file; a model with more is spread over several."""
DTYPES: Mapping[torch.dtype, str] = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_shards(
    folder: Path, tensors: Mapping[str, Tensor], metas: Mapping[str, Tensor], *, limit_bytes: int = LIMIT_BYTES
) -> tuple[str, ...]:
    """The names of the files written: model.safetensors, or its numbered shards and model.safetensors.index.json.

    Args:
        folder: is there.
        tensors: each is asked for once, written and let go.
        metas: a tensor on "meta" for each, with its shape and dtype.
        limit_bytes: of tensors in one file; a larger tensor has a file of its own.

    Raises:
        WeightsError: safetensors has no name for a dtype, or a tensor is not what its meta says.
        OSError: a file could not be written, as on a full disk.
    """
    groups = list(_groups(metas, limit_bytes))
    if len(groups) == 1:
        _write(folder / "model.safetensors", groups[0], tensors, metas)
        return ("model.safetensors",)
    names = [f"model-{at:05d}-of-{len(groups):05d}.safetensors" for at in range(1, len(groups) + 1)]
    for name, group in zip(names, groups, strict=True):
        _write(folder / name, group, tensors, metas)
    where = {each: name for name, group in zip(names, groups, strict=True) for each in group}
    index = {"metadata": {"total_size": sum(meta.nbytes for meta in metas.values())}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    return (*names, "model.safetensors.index.json")


def _groups(metas: Mapping[str, Tensor], limit_bytes: int) -> Iterator[list[str]]:
    group: list[str] = []
    size = 0
    # Wide numbers first, so that every tensor begins at a multiple of its own width.
    for name in sorted(metas, key=lambda name: (-metas[name].element_size(), name)):
        if group and size + metas[name].nbytes > limit_bytes:
            yield group
            group, size = [], 0
        group.append(name)
        size += metas[name].nbytes
    yield group


def _write(path: Path, names: list[str], tensors: Mapping[str, Tensor], metas: Mapping[str, Tensor]) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name in names:
        meta = metas[name]
        if meta.dtype not in DTYPES:
            raise WeightsError(f"{name} is {meta.dtype}, which safetensors cannot hold; convert it before")
        header[name] = {
            "dtype": DTYPES[meta.dtype],
            "shape": list(meta.shape),
            "data_offsets": [at, at + meta.nbytes],
        }
        at += meta.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            tensor = tensors[name]
            if (tensor.shape, tensor.dtype) != (metas[name].shape, metas[name].dtype):
                raise WeightsError(f"{name} changed while it was written; leave its file alone and try again")
            if tensor.numel():
                file.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
