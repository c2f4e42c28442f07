"""Files that are written whole or not at all, and the folders that they lie in."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from worldsim.locks import locked


def write_tensors(path: Path, tensors: Mapping[str, Tensor], fields: Mapping[str, Any] | None = None) -> None:
    """Write a safetensors file: under another name, to the disk, and only then under its own.

    Args:
        path: of the file.
        tensors: what it holds, by name.
        fields: its header, plain values; no header if None.

    Raises:
        OSError: it could not be written, as on a full disk; what was there stays.
    """
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    unfinished = unfinished_name(path)
    try:
        with unfinished.open("wb") as file:
            locked(file.fileno())
            # Not save_file: that writes under a name of its own, with a mode that keeps all others from reading.
            file.write(save(stored, metadata=None if fields is None else {"worldsim": json.dumps(fields)}))
            file.flush()
            os.fsync(file.fileno())
            unfinished.replace(path)
    except OSError as error:
        raise OSError(f"{path} cannot be written ({error.strerror}); free some space or name another folder") from error
    finally:
        unfinished.unlink(missing_ok=True)


def unfinished_name(path: Path) -> Path:
    """The name under which this process writes a file before it takes its own, see drop_unfinished."""
    return path.with_name(f"{path.name}.{os.getpid()}.part")


def checksum(tensors: Mapping[str, Tensor], fields: Mapping[str, Any]) -> str:
    """SHA-256 of tensors and a header, to be kept in that header."""
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def make_folder(folder: Path) -> None:
    """Make a folder unless it is there; OSError says what is in the way of writing to it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(
            f"{folder} is no folder that can be written to ({error.strerror}); name another one, or mend that"
        ) from error


def drop_unfinished(folder: Path) -> None:
    """Remove what was being written there when its process was killed, but for what cannot be deleted.

    Whoever writes holds a lock; the number of its process tells nothing, since it may be another one's by now.
    """
    for path in folder.glob("*.part"):
        if not re.fullmatch(r".+\.\d+\.part", path.name):  # nothing that unfinished_name names
            continue
        with suppress(OSError), path.open("r+b") as file:
            if locked(file.fileno()):
                path.unlink()
