"""Tiers of storage below the page pool: memory of the device up to a budget, then host memory, then a file on disk.

Pages never change, so moving one is copying it, and only where its bytes lie ever differs: what is read is equal, bit
for bit, with any budget. A page that is read goes on being held by whoever read it, even if it leaves meanwhile.
"""

from __future__ import annotations

import errno
import math
import os
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from threading import Condition
from zlib import crc32

import torch
from torch import Tensor

from worldsim.cache.budget import Budget, TierBytes
from worldsim.cache.spill import Disk, Offsets
from worldsim.errors import IntegrityError, SpillError
from worldsim.interrupts import undivided

AHEAD = 4
"""One part in so many of the budget can be emptied without waiting for a copy."""


@dataclass(slots=True, eq=False)
class _Page:
    """Where one page lies.

    near: on the device, if it does.
    host, offset: its copy, in host memory or in the file, if there is one.
    read: when it was last read, as a count of reads.
    moving: a thread copies it and has let go of the books meanwhile.
    lost: its copy could not be read, or was another, when that was last tried.
    """

    size: int
    dtype: torch.dtype
    shape: torch.Size
    near: Tensor | None = None
    host: Tensor | None = None
    offset: int | None = None
    checksum: int = 0
    read: int = 0
    moving: bool = False
    dropped: bool = False
    lost: bool = False

    @property
    def safe(self) -> bool:
        """Whether it can leave the device: its copy is whole."""
        return self.host is not None or self.offset is not None


class Tiers:
    """Pages by their number: those read last on the device, as many as the budget has room for, the others below it.

    The page that was least recently read leaves first. One that is read below comes back only in place of one that
    was not read since its own read before: else a past that is longer than the budget, read from end to end for every
    block, would push out each page just before its turn.

    Below is host memory while it has room, then the disk. A copy on disk is read back and its checksum compared before
    the page leaves memory, and compared again whenever it is read. Copies are made in the background before room is
    needed, so that a part of the budget is always free or can be freed at once.

    One thread uses it, of the process that made it: in one that was forked off, everything raises SpillError.

    Args:
        budget: what may lie in memory.
        device: where pages are used.
        disk: where they are kept at last.
        run: does what it is given in the background; it is given one thing at a time.

    trouble: what went wrong when a page was last moved to disk; empty if nothing did.
    """

    def __init__(
        self, budget: Budget, *, device: torch.device, disk: Disk, run: Callable[[Callable[[], None]], object]
    ) -> None:
        self.budget = budget
        self.trouble = ""
        self._ahead = budget.device // AHEAD
        self._device = device
        self._disk = disk
        self._run = run
        self._process = os.getpid()
        self._changed = Condition()
        self._pages: dict[int, _Page] = {}
        self._near: OrderedDict[_Page, None] = OrderedDict()
        self._wanted: OrderedDict[_Page, int] = OrderedDict()
        self._near_bytes = self._host_bytes = 0
        self._offsets = Offsets()
        self._clock = count(1)
        self._moves = 0
        self._working = False

    @property
    def bytes(self) -> TierBytes:
        """What lies where now."""
        with self._books():
            disk = sum(self._offsets.used.values())
            return TierBytes(device=self._near_bytes, host=self._host_bytes, disk=disk)

    def room(self, size: int = 0) -> int:
        """Bytes that find room: without bound if what has to leave for that many was copied, as it is now.

        For what is larger than the budget, all that lies on the device is copied.
        """
        with self._books():
            try:
                while (entry := self._due(max(size, self._ahead))) is not None:
                    self._secure(entry)
                if self.trouble and (entry := self._due(self.budget.device)) is not None:
                    self._secure(entry)
            except SpillError:
                return self.budget.device - self._near_bytes + sum(entry.size for entry in self._near if entry.safe)
            return sys.maxsize

    def put(self, page: int, data: Tensor) -> None:
        """Keep a new page, contiguous and on the device, no larger than the budget; it is not to be changed any more.

        Raises:
            SpillError: what would have to leave for it cannot be copied; nothing was kept.
        """
        entry = _Page(data.nbytes, data.dtype, data.shape)
        with self._books():
            self._make_room(entry.size, math.inf)
            self._pages[page] = entry
            self._near_bytes += entry.size
            self._arrive(entry, data)
            self._look_ahead()

    def get(self, page: int) -> Tensor:
        """The page, on the device, not to be changed.

        Raises:
            SpillError: it cannot be read back, or came back otherwise than it was written. It is lost.
        """
        with self._books():
            entry = self._pages[page]
            self._wanted.pop(entry, None)
            while entry.near is None:
                if entry.moving:
                    self._changed.wait()
                    continue
                keep = self._has_room(entry.size, entry.read)
                if entry.near is None and not entry.moving:  # it may have come while room was made
                    return self._fetch(entry, keep=keep)
            self._touch(entry)
            return entry.near

    def lost(self, pages: Iterable[int]) -> bool:
        """Whether one of those pages is known not to come back; nothing is read for that."""
        with self._books():
            return any(self._pages[page].lost for page in pages)

    def prefetch(self, pages: Iterable[int]) -> None:
        """Bring pages that are read soon to the device in the background, in place of what was read before this."""
        with self._books():
            since = next(self._clock)
            for page in pages:
                entry = self._pages[page]
                if entry.near is not None:
                    self._touch(entry)
                else:
                    self._wanted[entry] = since
            self._look_ahead()

    def drop(self, page: int) -> None:
        """Forget a page."""
        with self._books():
            entry = self._pages.pop(page)
            entry.dropped = True
            self._wanted.pop(entry, None)
            if entry.near is not None:
                self._leave(entry)
            if not entry.moving:
                self._forget(entry)

    def check(self, pages: Iterable[int]) -> None:
        """Raise IntegrityError, naming what fails, unless it holds just those pages, each whole, within the budget.

        Reads every copy.

        Raises:
            SpillError: a copy cannot be read, or is not what was written.
        """
        with self._books():
            while self._moves:
                self._changed.wait()
            entries = self._pages.values()
            wanted = set(pages)
            if wanted != self._pages.keys():
                raise IntegrityError(f"kept = written does not hold: kept {sorted(self._pages)}, written {wanted}")
            lost = [page for page, entry in self._pages.items() if entry.near is None and not entry.safe]
            if lost:
                raise IntegrityError(f"every page lies somewhere does not hold: pages {lost} lie nowhere")
            near = sum(entry.size for entry in entries if entry.near is not None)
            host = sum(entry.size for entry in entries if entry.host is not None)
            found = TierBytes(device=near, host=host, disk=sum(self._offsets.used.values()))
            if found != self.bytes or near > self.budget.device or host > self.budget.host:
                raise IntegrityError(f"counted = found <= budget does not hold: {self.bytes}, {found}, {self.budget}")
            offsets = {entry.offset: entry.size for entry in entries if entry.offset is not None}
            if offsets != self._offsets.used or not self._offsets.are_apart():
                raise IntegrityError(f"used + free = all of the file does not hold: used {offsets}")
            for entry in entries:
                if entry.safe:
                    self._load(entry)

    @contextmanager
    def _books(self) -> Iterator[None]:
        """Nobody else changes anything, but while bytes are on their way, and Ctrl-C waits for the end of it.

        Raises:
            SpillError: this process was forked off the one whose pages these are. It has neither a file of its own nor
                the thread that may have been moving pages just then, so that not even what lies in memory is read.
        """
        if os.getpid() != self._process:
            raise SpillError(
                f"keys and values that have a budget lie in a file of process {self._process}: process {os.getpid()}, "
                'forked off it, would overwrite them; start processes with "spawn", or load the world anew in each'
            )
        with undivided(), self._changed:
            yield

    def _make_room(self, size: int, before: float) -> bool:
        """Have pages last read before that moment leave the device until so many bytes fit; whether they do.

        Raises:
            SpillError: what would have to leave cannot be copied.
            IntegrityError: it never will be, since bytes are counted there that no page takes.
        """
        while self._near_bytes + size > self.budget.device:
            entry = next(iter(self._near), None)
            if entry is None:
                if not self._moves:
                    raise IntegrityError(
                        f"counted = found does not hold: {self._near_bytes} bytes of a budget of {self.budget.device} "
                        f"are taken by no page, and {size} more are wanted; report it, load the world again and open "
                        "its sessions from their logs"
                    )
                self._changed.wait()  # what is on its way here takes all the room
                continue
            if entry.read >= before:
                return False
            if not entry.safe:
                try:
                    self._secure(entry)
                    continue
                except SpillError:
                    other = next((near for near in self._near if near.safe and near.read < before), None)
                    if other is None:
                        raise
                    entry = other
            self._leave(entry)
        return True

    def _has_room(self, size: int, before: float) -> bool:
        """The same for a page that can do without: nothing fails for it."""
        with suppress(SpillError):
            return self._make_room(size, before)
        return False

    def _due(self, size: int) -> _Page | None:
        """The first to leave that could not, of those that have to for that many bytes to find room."""
        short = self._near_bytes + size - self.budget.device
        for entry in self._near:
            if short <= 0:
                return None
            if not entry.safe:
                return entry
            short -= entry.size
        return None

    def _look_ahead(self) -> None:
        """Have what is wanted brought and what may leave copied, in the background."""
        if not self._working and (self._wanted or self._due(self._ahead)):
            self._working = True
            self._run(self._work)

    def _work(self) -> None:
        with self._changed:
            try:
                while self._wanted or self._due(self._ahead):
                    self._work_once()
            except SpillError:
                pass  # whoever needs the room tries again, and is told
            finally:
                self._working = False

    def _work_once(self) -> None:
        if not self._wanted:
            entry = self._due(self._ahead)
            assert entry is not None
            self._secure(entry)
            return
        entry, since = self._wanted.popitem(last=False)
        if self._has_room(entry.size, since) and not (entry.dropped or entry.moving or entry.near is not None):
            with suppress(SpillError):  # whoever reads it is told
                self._fetch(entry, keep=True)

    def _secure(self, entry: _Page) -> None:
        """Copy a page below, or wait until another thread has; SpillError if it cannot be."""
        if entry.moving:
            self._changed.wait()
            return
        near = entry.near
        assert near is not None
        offset = None
        if self._host_bytes + entry.size <= self.budget.host:
            self._host_bytes += entry.size
        else:
            offset = self._offsets.take(entry.size)
        is_copied = False
        try:
            with self._moving(entry):
                row = near.cpu()
                if offset is None:
                    entry.host = row
                else:
                    entry.checksum = self._write(offset, row)
                    entry.offset = offset
                is_copied = True
        except OSError as error:
            self.trouble = str(error)
            raise SpillError(
                f"keys and values cannot be moved to disk: {error}; make room there, close sessions and marks that are "
                f"no longer needed, or choose a larger budget"
            ) from error
        finally:
            if not is_copied:
                self._return(entry.size, offset)
        if offset is not None:
            self.trouble = ""

    def _write(self, offset: int, row: Tensor) -> int:
        """Write a page to the disk and read it back; its checksum."""
        data = row.flatten().view(torch.uint8).numpy().data
        checksum = crc32(data)
        self._disk.write(offset, data)
        again = memoryview(bytearray(len(data)))
        self._disk.read(offset, again)
        if crc32(again) != checksum:
            raise OSError(errno.EIO, "what was written came back otherwise")
        return checksum

    def _fetch(self, entry: _Page, *, keep: bool) -> Tensor:
        """A page from below; kept on the device, where there is room for it, or not."""
        is_kept, reserved = False, entry.size if keep else 0
        self._near_bytes += reserved
        try:
            with self._moving(entry):
                data = self._load(entry)
            is_kept = keep and not entry.dropped
        finally:
            if not is_kept:
                self._near_bytes -= reserved
        if is_kept:
            self._arrive(entry, data)
        else:
            entry.read = next(self._clock)
        return data

    def _load(self, entry: _Page) -> Tensor:
        if entry.host is not None:
            return entry.host.to(self._device)
        assert entry.offset is not None
        row = torch.empty(entry.size, dtype=torch.uint8)
        entry.lost = True
        try:
            self._disk.read(entry.offset, row.numpy().data)
        except OSError as error:
            raise _lost(f"cannot be read back from disk: {error}") from error
        if crc32(row.numpy().data) != entry.checksum:
            raise _lost("came back from disk otherwise than they were written: their checksum is wrong")
        entry.lost = False
        return row.view(entry.dtype).view(entry.shape).to(self._device)

    @contextmanager
    def _moving(self, entry: _Page) -> Iterator[None]:
        """Let go of the books while the bytes of a page are on their way; nobody else moves it meanwhile."""
        entry.moving = True
        self._moves += 1
        self._changed.release()
        try:
            yield
        finally:
            self._changed.acquire()
            self._moves -= 1
            entry.moving = False
            if entry.dropped:
                self._forget(entry)
            self._changed.notify_all()

    def _touch(self, entry: _Page) -> None:
        entry.read = next(self._clock)
        self._near.move_to_end(entry)

    def _arrive(self, entry: _Page, data: Tensor) -> None:
        """Let a page lie on the device, in room that is counted already."""
        entry.near = data
        self._near[entry] = None
        self._touch(entry)

    def _leave(self, entry: _Page) -> None:
        entry.near = None
        del self._near[entry]
        self._near_bytes -= entry.size

    def _forget(self, entry: _Page) -> None:
        """Give the room of its copy back."""
        if entry.host is not None:
            entry.host = None
            self._return(entry.size, None)
        if entry.offset is not None:
            self._return(entry.size, entry.offset)
            entry.offset = None

    def _return(self, size: int, offset: int | None) -> None:
        """Give back the room of a copy: in host memory, or at that offset of the file."""
        if offset is None:
            self._host_bytes -= size
        else:
            self._offsets.give_back(offset)


def _lost(what: str) -> SpillError:
    return SpillError(
        f"keys and values {what}; sessions that hold them cannot go on as they are: rewind them, by 0 blocks if to no "
        "other moment, which lives again what is lost, or open them again from their logs"
    )
