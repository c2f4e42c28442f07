"""Keeps what was measured of a video under the hash of its bytes, so that nothing is measured twice."""

from __future__ import annotations

import errno
import hashlib
import inspect
import zipfile
from collections.abc import Mapping
from pathlib import Path
from secrets import token_hex
from stat import S_ISREG
from types import ModuleType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]


class Store:
    """A folder of measures. Several processes may use it at once: a file is whole or not there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, *key: str) -> Arrays | None:
        """What was put under these words; None if nothing was, or if the file is torn."""
        try:
            with self._path(key).open("rb") as file, np.load(file, allow_pickle=False) as kept:
                return {name: kept[name] for name in kept.files}
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
            return None

    def put(self, arrays: Arrays, *key: str) -> None:
        """Keep these arrays under these words. Raises OSError if they cannot be: the disk is full, for one."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.stem}.{token_hex(4)}.part")  # of this process alone, on whatever machine
        try:
            with part.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def _path(self, key: tuple[str, ...]) -> Path:
        return self._folder / f"{hashlib.sha256(chr(0).join(key).encode()).hexdigest()}.npz"


def hash_of_code(*modules: ModuleType) -> str:
    """SHA-256 of the source of these modules and of the versions of OpenCV and numpy: of what their numbers rest on."""
    told = hashlib.sha256(f"OpenCV {cv2.__version__}, numpy {np.__version__}".encode())
    for module in modules:
        told.update(inspect.getsource(module).encode())
    return told.hexdigest()


def hash_of(path: Path) -> str:
    """SHA-256 of the bytes of a file, in hex. Raises OSError, for a pipe too: somebody may never write to it."""
    if not S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "no regular file", str(path))
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
