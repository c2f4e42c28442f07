"""Keeps what was measured of a video under the hash of its bytes, so that nothing is measured twice."""

from __future__ import annotations

import errno
import hashlib
import inspect
import io
import math
from collections.abc import Mapping
from pathlib import Path
from secrets import token_hex
from time import monotonic
from types import ModuleType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]
DIGEST_BYTES = 32
"""Of the SHA-256 that each file of measures ends with, of its words and all before: until that is right, nothing in it
is looked at, and what was put under other words is nothing, whatever the file is called."""
BLOCK_BYTES = 2**20


class Store:
    """A folder of measures. Several processes may use it at once: a file is whole or not there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, *key: str) -> Arrays | None:
        """What was put under these words; None if nothing was, or if the file is of other words or torn."""
        try:
            data = self._path(key).read_bytes()
        except OSError:
            return None
        content, digest = data[:-DIGEST_BYTES], data[-DIGEST_BYTES:]
        if _digest(content, key) != digest:
            return None
        with np.load(io.BytesIO(content), allow_pickle=False) as kept:
            return {name: kept[name] for name in kept.files}

    def put(self, arrays: Arrays, *key: str) -> None:
        """Keep these arrays under these words. Raises OSError if they cannot be: the disk is full, for one."""
        packed, path = io.BytesIO(), self._path(key)
        np.savez(packed, allow_pickle=False, **arrays)
        content = packed.getvalue()
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.stem}.{token_hex(4)}.part")  # of this process alone, on whatever machine
        try:
            part.write_bytes(content + _digest(content, key))
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def _path(self, key: tuple[str, ...]) -> Path:
        return self._folder / f"{_hash_of_words(key).hex()}.npz"


def _digest(content: bytes, key: tuple[str, ...]) -> bytes:
    return hashlib.sha256(_hash_of_words(key) + content).digest()


def _hash_of_words(key: tuple[str, ...]) -> bytes:
    return hashlib.sha256(chr(0).join(key).encode()).digest()


def hash_of_code(*modules: ModuleType) -> str:
    """SHA-256 of the source of these modules and of the versions of OpenCV and numpy: of what their numbers rest on."""
    told = hashlib.sha256(f"OpenCV {cv2.__version__}, numpy {np.__version__}".encode())
    for module in modules:
        told.update(inspect.getsource(module).encode())
    return told.hexdigest()


def hash_of(path: Path, seconds: float = math.inf) -> str:
    """SHA-256 of the bytes of a file, in hex. Raises OSError, a TimeoutError if that takes longer."""
    told, deadline = hashlib.sha256(), monotonic() + seconds
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            told.update(block)
            if monotonic() > deadline:
                raise TimeoutError(errno.ETIMEDOUT, f"{seconds:g} s were not enough to read its bytes", str(path))
    return told.hexdigest()
