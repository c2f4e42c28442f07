"""Where pages lie that memory has no room for: a file without a name."""

from __future__ import annotations

import errno
import os
import tempfile
import weakref
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from worldsim.errors import ConfigError


class Disk(Protocol):
    """Where bytes are kept by their offset. Used by two threads at once, never at the same place."""

    def write(self, offset: int, data: memoryview) -> None:
        """Keep all of the data; OSError if that fails."""
        ...

    def read(self, offset: int, into: memoryview) -> None:
        """Fill `into` with what was kept there; OSError if that fails."""
        ...


class SpillFile:
    """A Disk in one file that has no name: when its process ends, however it does, the system takes the space back.

    Args:
        folder: where it takes space, made if it is missing; that for temporary files if None.

    Raises:
        ConfigError: no file can be made there.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = Path(tempfile.gettempdir()) if folder is None else folder
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder, prefix="worldsim-") as file:
                self._file = os.dup(file.fileno())
        except (FileExistsError, NotADirectoryError) as error:
            between = next(part for part in (self.folder, *self.folder.parents) if os.path.lexists(part))
            raise ConfigError(
                f"pages cannot be kept in {self.folder}: {between} is a file and no folder; name a folder that can be "
                "written"
            ) from error
        except OSError as error:
            raise ConfigError(
                f"pages cannot be kept in {self.folder}: {error.strerror}; name a folder that can be written, or leave "
                f"the budget out"
            ) from error
        weakref.finalize(self, os.close, self._file)

    def write(self, offset: int, data: memoryview) -> None:
        """See Disk."""
        done = 0
        while done < len(data):
            with self._named():
                done += os.pwrite(self._file, data[done:], offset + done)

    def read(self, offset: int, into: memoryview) -> None:
        """See Disk."""
        done = 0
        while done < len(into):
            with self._named():
                found = os.preadv(self._file, [into[done:]], offset + done)
                if not found:
                    raise OSError(errno.EIO, "the file ends too early")
            done += found

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Have an error say where it happened: the file itself has no name."""
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.folder)) from error


class Offsets:
    """Which parts of a file are in use; those of one size are used again."""

    def __init__(self) -> None:
        self.used: dict[int, int] = {}
        self._end = 0
        self._free: defaultdict[int, list[int]] = defaultdict(list)

    def take(self, size: int) -> int:
        if self._free[size]:
            offset = self._free[size].pop()
        else:
            offset, self._end = self._end, self._end + size
        self.used[offset] = size
        return offset

    def give_back(self, offset: int) -> None:
        self._free[self.used.pop(offset)].append(offset)

    def are_apart(self) -> bool:
        """Whether what is used and what is free is all there is, once."""
        parts = [*self.used.items(), *((at, size) for size, free in self._free.items() for at in free)]
        end = 0
        for offset, size in sorted(parts):
            if offset != end:
                return False
            end += size
        return end == self._end
