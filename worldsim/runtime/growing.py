"""A file that is written piece by piece, and takes the place of what lay under its name only when it is whole."""

from __future__ import annotations

import os
import re
from contextlib import ExitStack, suppress
from io import FileIO
from itertools import count
from pathlib import Path
from stat import S_IMODE

from worldsim.files import lies_there
from worldsim.locks import locked


class GrowingFile:
    """A file to which pieces are added, each there as soon as it is written.

    Where nothing lies under its name it grows under that name. Where a file does, that stays until `close`, and the new
    one grows beside it, as `walk.unfinished.mp4` beside `walk.mp4`, or `walk.unfinished-2.mp4` where something has that
    name: what a killed process left there may be wanted.

    Only one at a time grows under a name: it has a lock on what lies there until it is closed or the process ends.

    Args:
        path: its name; missing folders are made. A link stands for what it leads to; into a device or a pipe the pieces
            are written as they come.

    Raises:
        BlockingIOError: one grows under that name already, here or in another process.
        OSError: it cannot be written there.
    """

    def __init__(self, path: Path) -> None:
        self._target = Path(os.path.realpath(path))
        self._path = path
        self._beside: Path | None = None
        self._size = 0
        self._target.parent.mkdir(parents=True, exist_ok=True)
        self._is_kept = not self._target.exists() or self._target.is_file()
        if not self._is_kept:
            self._file = self._lock = FileIO(self._target, "w")
            return
        descriptor, is_new = _claimed(self._target)
        self._file = self._lock = FileIO(descriptor, "r+")
        if is_new:
            return
        with ExitStack() as undo:
            undo.callback(self._lock.close)
            self._beside, beside = _made_beside(path)
            self._file = FileIO(beside, "r+")
            os.fchmod(beside, S_IMODE(os.fstat(descriptor).st_mode))
            undo.pop_all()

    @property
    def path(self) -> Path:
        """Where it lies now."""
        return self._beside or self._path

    @property
    def closed(self) -> bool:
        """Whether nothing more is added."""
        return self._file.closed

    def write(self, data: bytes) -> None:
        """Add all of a piece, or nothing: OSError if it cannot be written, and what came before it stays."""
        left = memoryview(data)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError:
            with suppress(OSError):  # a device has no end that could be cut off
                self._file.truncate(self._size)
                self._file.seek(self._size)
            raise
        self._size += len(data)

    def close(self) -> None:
        """It is whole: it takes its place. Closing twice is fine; OSError if it cannot, and it stays beside that."""
        if self.closed:
            return
        with ExitStack() as ends:
            ends.callback(self._release)
            if self._beside is not None:
                os.fsync(self._file.fileno())
                os.replace(self._beside, self._target)
                self._beside = None

    def leave(self) -> None:
        """It ends before it is whole: it stays where it lies, and so does what lay under its name."""
        if not self.closed:
            self._release()

    def discard(self) -> None:
        """It comes to nothing, and what lay under its name stays."""
        if not self.closed and self._is_kept:
            (self._beside or self._target).unlink(missing_ok=True)
        self.leave()

    def _release(self) -> None:
        self._file.close()
        self._lock.close()


def is_beside(path: Path, target: Path) -> bool:
    """Whether a path has a name that a file grows under which is to take the place of another, see GrowingFile."""
    stem, ending = re.escape(target.stem), re.escape(target.suffix)
    alike = re.fullmatch(rf"{stem}\.unfinished(-[0-9]+)?{ending}", path.name)
    return alike is not None and os.path.realpath(path.parent) == os.path.realpath(target.parent)


def _claimed(path: Path) -> tuple[int, bool]:
    """What lies under a name, opened and locked, and whether it was made for that; BlockingIOError if it is locked."""
    while True:
        try:
            descriptor, is_new = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666), True
        except FileExistsError:
            descriptor, is_new = os.open(path, os.O_RDWR), False
        with ExitStack() as undo:
            undo.callback(os.close, descriptor)
            if not locked(descriptor):
                raise BlockingIOError(f"{path} is being written")
            # Somebody may have put another file in its place before it was locked.
            if lies_there(path, descriptor):
                undo.pop_all()
                return descriptor, is_new


def _made_beside(path: Path) -> tuple[Path, int]:
    """A new file beside that one, opened and locked, under the first name that nothing has."""
    for number in count(1):
        beside = path.with_name(f"{path.stem}.unfinished{'' if number == 1 else f'-{number}'}{path.suffix}")
        with suppress(FileExistsError):
            descriptor = os.open(beside, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
            locked(descriptor)
            return beside, descriptor
    raise AssertionError("there are more names than files")
