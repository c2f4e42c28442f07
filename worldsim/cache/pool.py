"""The page pool: keys and values of every session, one frame a page, shared by counting references.

A pool may keep older frames in fewer bits. A frame then has two pages, an exact one and a coded one, each immutable and
counted by itself: a context that has moved on from a frame gives up its reference to the exact page for one to the
coded page, and whoever has not (a mark, a fork, what is remembered) keeps the exact one alive. So what a block sees
depends on how far its own context has come and on nothing that others did, and a session is the same after a rewind, in
a fork, restored and lived again. The price: while a frame is recent to one and old to another, it takes both pages.
"""

from __future__ import annotations

import heapq
import math
import weakref
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from worldsim.cache.budget import TierBytes
from worldsim.cache.stream import Stream
from worldsim.cache.tiers import Tiers
from worldsim.errors import ConfigError, IntegrityError, PoolFull, ShapeError, shown, whole
from worldsim.interrupts import undivided


@dataclass(frozen=True, slots=True, kw_only=True)
class PageShape:
    """The keys (and, alike, the values) of one frame: [layers, tokens, heads, head_dim].

    A backbone that attends along time beside its main attention has streams. Layers of attention are numbered through:
    those of the main one, those of each stream, those of the steered one.

    streams: what they hold lies folded in the last layers of a page, see worldsim.cache.stream.fold.
    steered: a stream that no page holds, since its keys and values follow from what steers a frame alone. They are made
        anew for every view, one for all tokens of a frame.
    """

    layers: int
    tokens: int
    heads: int
    head_dim: int
    streams: tuple[Stream, ...] = ()
    steered: Stream | None = None

    def __post_init__(self) -> None:
        if min(self.layers, self.tokens, self.heads, self.head_dim) < 1:
            raise ConfigError(f"every size of a page is at least 1, got {self}")
        if self.main < 1:
            raise ConfigError(f"the streams take {sum(self.folds)} layers of a page and leave none, got {self}")

    def with_streams(self, streams: tuple[Stream, ...], steered: Stream | None = None) -> PageShape:
        """The same page with as many layers more as these streams take."""
        return replace(self, layers=self.layers + sum(map(self._folds, streams)), streams=streams, steered=steered)

    @property
    def folds(self) -> tuple[int, ...]:
        """How many layers of a page each of its streams takes."""
        return tuple(map(self._folds, self.streams))

    @property
    def main(self) -> int:
        """The layers of the main attention, which come first."""
        return self.layers - sum(self.folds)

    @property
    def beside(self) -> tuple[tuple[Stream, int], ...]:
        """The streams, and the steered one last, each with its tokens of one frame."""
        stored = tuple((stream, self.tokens) for stream in self.streams)
        return stored if self.steered is None else (*stored, (self.steered, 1))

    @property
    def attentions(self) -> int:
        """The layers of attention, those of streams too."""
        return self.main + sum(stream.layers for stream, _ in self.beside)

    def _folds(self, stream: Stream) -> int:
        return -(-stream.numbers // (self.heads * self.head_dim))

    def bytes(self, dtype: torch.dtype) -> int:
        """The memory of one page, keys and values together, in bytes."""
        return 2 * self.layers * self.tokens * self.heads * self.head_dim * dtype.itemsize

    def pages(self, keys: Tensor, values: Tensor) -> int:
        """How many pages these fill; ShapeError unless both are [layers, pages, tokens, heads, head_dim]."""
        pages = keys.shape[1] if keys.ndim == 5 else 0
        wanted = (self.layers, pages, self.tokens, self.heads, self.head_dim)
        if keys.shape != wanted or values.shape != wanted:
            raise ShapeError(
                f"expected keys and values [{self.layers}, pages, {self.tokens}, {self.heads}, {self.head_dim}], "
                f"got {list(keys.shape)} and {list(values.shape)}; pass whole frames of the model this pool is for"
            )
        return pages


class PageCode(Protocol):
    """Keys and values of a page in fewer bits. Pure, page by page: equal pages give equal bytes."""

    def bytes(self, shape: PageShape) -> int:
        """The memory of one coded page, with all that decoding needs, in bytes; even."""
        ...

    def encode(self, keys: Tensor, values: Tensor) -> Tensor:
        """The coded page, uint8 [bytes], of keys and values [layers, tokens, heads, head_dim] of any float dtype."""
        ...

    def decode(self, data: Tensor, shape: PageShape) -> tuple[Tensor, Tensor]:
        """The keys and values of a coded page, each float32 [layers, tokens, heads, head_dim], contiguous."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """How a pool keeps frames that are no longer recent.

    code: what their pages are encoded with.
    recent: how many of the newest frames of a context stay exact, from 0. With 0 nothing is ever held twice; otherwise
        a session that can go back to its latest blocks holds what was recent at each of them exactly too.
    """

    code: PageCode
    recent: int

    def __post_init__(self) -> None:
        if whole(self.recent, "the newest 0 or more frames stay exact, as a whole number") < 0:
            raise ConfigError(f"the newest 0 or more frames stay exact, got recent={self.recent}")
        if not all(callable(getattr(self.code, part, None)) for part in ("bytes", "encode", "decode")):
            raise ConfigError(
                f"pages are encoded by what has bytes, encode and decode, as worldsim.cache.quant.PerToken, got "
                f"{shown(self.code)}; name one such as kv='int8', or make one such as PerToken(form='int8')"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class PageBytes:
    """Memory of some pages in bytes: of the exact ones, and of the coded ones with scales and all."""

    exact: int
    coded: int


class HoldsPages(Protocol):
    """Whatever holds references to pages: one reference for each time a page is listed."""

    @property
    def pages(self) -> Sequence[int]:
        """The pages it holds."""
        ...


class PagePool:
    """Keys and values of every session, in pages: two tensors [layers, pages, tokens, heads, head_dim].

    A page is taken, written once, read while anybody holds a reference to it, and free again after the last release.
    Keys are stored as the backbone makes them, before rotary embedding. Memory becomes resident when a page is first
    written, and the lowest free page is taken first, so the resident size follows the most pages ever in use.

    With a storage there are as many coded pages, numbered after the exact ones, in a tensor of bytes of their own.

    With tiers (is_tiered) every page is a tensor of its own, which lies where they put it, and memory has an exact
    budget. Whatever reads or writes pages may then raise SpillError: a page that is lost is lost to all who hold it.

    One thread uses a pool. Only `put_back` may be called from any thread at any moment.
    """

    def __init__(
        self,
        shape: PageShape,
        *,
        pages: int,
        dtype: torch.dtype,
        device: torch.device,
        storage: Storage | None = None,
        tiers: Tiers | None = None,
    ) -> None:
        if pages < 1:
            raise ConfigError(f"a pool has at least 1 page, got {pages}")
        self.shape = shape
        self.pages = pages
        self.dtype = dtype
        self.device = device
        self.storage = storage
        self._tiers = tiers
        self.is_tiered = tiers is not None
        self._check_budget()
        self.spare_rooms: deque[Tensor] = deque(maxlen=2)
        size = (shape.layers, 0 if tiers else pages, shape.tokens, shape.heads, shape.head_dim)
        self._keys, self._values = self.room(math.prod(size)).view(2, *size)
        self._free = list(range(pages))
        self._coded = self._room_for_coded()
        self._free_coded = list(range(pages, pages if storage is None else 2 * pages))
        self._references = [0] * (pages + len(self._free_coded))
        self._written = [False] * pages
        self._coded_of: dict[int, int] = {}
        self._exact_of: dict[int, int] = {}
        self._held_by: dict[weakref.ref[object], Mapping[int, Sequence[int]]] = {}
        self._put_back: deque[weakref.ref[object]] = deque()

    def room(self, numbers: int) -> Tensor:
        """Memory for that many keys and as many values like those of the pool, [2, numbers], with any content.

        Spare room is used again: asking the system for tens of MB at every block costs as much as filling them, and
        makes the resident size swing. Writable in and out of inference mode, wherever it was first asked for.
        """
        while self.spare_rooms:
            spare = self.spare_rooms.popleft()
            if spare.shape[1] == numbers:
                return spare
        with torch.inference_mode(False):
            return torch.empty(2, numbers, dtype=self.dtype, device=self.device)

    @property
    def free(self) -> int:
        """How many pages can be taken, each with a coded page for a frame that it makes old."""
        free = self.pages - self.used
        return free if self._tiers is None else min(free, self._tiers.room() // self.bytes_for(0, 1))

    @property
    def used(self) -> int:
        """How many pages somebody holds, of the kind of which more are held."""
        self._settle()
        return self.pages - (len(self._free) if self.storage is None else min(len(self._free), len(self._free_coded)))

    @property
    def bytes(self) -> PageBytes:
        """The memory of all pages that somebody holds."""
        self._settle()
        return self.bytes_of(page for page, count in enumerate(self._references) if count)

    def bytes_of(self, pages: Iterable[int]) -> PageBytes:
        """The memory of those pages, each counted once however often it is listed."""
        coded = [page >= self.pages for page in set(pages)]
        return PageBytes(
            exact=coded.count(False) * self.shape.bytes(self.dtype), coded=coded.count(True) * self._coded.shape[1]
        )

    @property
    def tier_bytes(self) -> TierBytes:
        """The memory of all pages that somebody holds, by where they lie; without tiers, all on the device."""
        if self._tiers is not None:
            return self._tiers.bytes
        held = self.bytes
        return TierBytes(device=held.exact + held.coded)

    def bytes_for(self, seen: int, frames: int) -> int:
        """The memory of so many frames that a block sees, of those that it adds and of as many that it makes old."""
        exact, coded = self.shape.bytes(self.dtype), self._coded.shape[1]
        recent = seen if self.storage is None else min(seen, self.storage.recent)
        return (recent + frames) * exact + (seen - recent + frames) * coded

    def take(self, count: int) -> list[int]:
        """Take that many pages, each with one reference, to be written next.

        Raises PoolFull, and takes nothing, if fewer are free.
        """
        self._check_free(count)
        pages = [heapq.heappop(self._free) for _ in range(count)]
        for page in pages:
            self._references[page] = 1
        return pages

    def check_room(self, count: int) -> None:
        """Raise PoolFull unless so many pages can be taken and, with tiers, memory has room for them."""
        self._check_free(count)
        if self._tiers is None:
            return
        each = self.bytes_for(0, 1)
        if count > (room := self._tiers.room(count * each) // each):
            raise PoolFull(
                f"{count} more pages are wanted and memory has room for {room}, since nothing can be moved to disk: "
                f"{self._tiers.trouble}; make room there, close sessions and marks, or choose a larger budget"
            )

    def retain(self, pages: Iterable[int]) -> None:
        """Add one reference to each page."""
        for page in pages:
            self._check_held(page)
            self._references[page] += 1

    def release(self, pages: Iterable[int]) -> None:
        """Drop one reference to each page; a page without references is free."""
        for page in pages:
            self._check_held(page)
            self._references[page] -= 1
            if not self._references[page]:
                self._part(page)
                if self._tiers is not None and (page >= self.pages or self._written[page]):
                    self._tiers.drop(page)
                if page < self.pages:
                    self._written[page] = False
                    heapq.heappush(self._free, page)
                else:
                    heapq.heappush(self._free_coded, page)

    def watch(self, holder: object, held: Mapping[int, Sequence[int]]) -> weakref.ref[object]:
        """Have what is held put back when its holder is gone; the reference to it is what `put_back` takes before."""
        reference = weakref.ref(holder, self._put_back.append)
        self._held_by[reference] = held
        return reference

    def put_back(self, holder: weakref.ref[object]) -> None:
        """Release what a holder holds, which is not to change any more, when the pool is next asked for a page.

        Twice is fine. The garbage collector may do the same in any thread and in the middle of any method here, and
        appending to a deque is the one thing that is safe then. No line of Python runs for it: Ctrl-C would raise
        there, where nobody hears of it, and the pages stay held for ever.
        """
        self._put_back.append(holder)

    @torch.no_grad()
    def write(self, pages: Sequence[int], keys: Tensor, values: Tensor) -> None:
        """Fill pages just taken; from then on they never change.

        Args:
            pages: as `take` returned them.
            keys, values: [layers, len(pages), tokens, heads, head_dim], keys before rotary embedding; copied, and
                rounded to the pool's dtype. Gradients do not flow through a pool.

        Raises:
            ShapeError: keys or values are not that many pages.
            IntegrityError: a page is free, or has been written since it was taken.
            SpillError: memory has no room for them, and nothing can be moved out of it. As after whatever else goes
                wrong while room is made, the pages are free again.
        """
        if self.shape.pages(keys, values) != len(pages):
            raise ShapeError(f"{len(pages)} pages cannot hold {keys.shape[1]} frames; pass one frame for each page")
        for page in pages:
            self._check_held(page)
            if page >= self.pages or self._written[page]:
                raise IntegrityError(f"page {page} is committed and never changes; take a new page")
        if self._tiers is not None:
            self._write_to(self._tiers, pages, keys, values)
            return
        for at, page in enumerate(pages):
            self._keys[:, page] = keys[:, at]
            self._values[:, page] = values[:, at]
            self._written[page] = True

    def _write_to(self, tiers: Tiers, pages: Sequence[int], keys: Tensor, values: Tensor) -> None:
        with ExitStack() as undo:
            undo.callback(self.release, pages)
            for at, page in enumerate(pages):
                with torch.inference_mode(False):
                    data = torch.empty((2, *keys[:, at].shape), dtype=self.dtype, device=self.device)
                data[0], data[1] = keys[:, at], values[:, at]
                tiers.put(page, data)
                self._written[page] = True
            undo.pop_all()

    def read(self, page: int) -> tuple[Tensor, Tensor]:
        """The keys and values of one page, each [layers, tokens, heads, head_dim], in place: not to be changed.

        Those of a coded page are decoded anew each time, in the dtype of the pool.
        """
        self._check_held(page)
        if page >= self.pages:
            assert self.storage is not None
            data = self._coded[page - self.pages] if self._tiers is None else self._tiers.get(page)
            keys, values = self.storage.code.decode(data, self.shape)
            return keys.to(self.dtype), values.to(self.dtype)
        if not self._written[page]:
            raise IntegrityError(f"page {page} is read before it was written")
        if self._tiers is None:
            return self._keys[:, page], self._values[:, page]
        keys, values = self._tiers.get(page)
        return keys, values

    def lost(self, pages: Iterable[int]) -> bool:
        """Whether what one of those pages held is known to be lost below; nothing is read for that."""
        return self._tiers is not None and self._tiers.lost(
            page for page in pages if page >= self.pages or self._written[page]
        )

    def prefetch(self, pages: Iterable[int]) -> None:
        """Have pages that are read soon brought to memory in the background; nothing to do without tiers."""
        wanted = [*pages]
        for page in wanted:
            self._check_held(page)
        if self._tiers is not None:
            self._tiers.prefetch(page for page in wanted if page >= self.pages or self._written[page])

    @torch.no_grad()
    def encode(self, page: int) -> int:
        """Give up one reference to an exact page for one to its coded page, which is returned.

        All who do so while anybody holds both pages share one.

        Raises:
            IntegrityError: nobody holds the page, it was not written, or it is a coded page.
            PoolFull: there is no room for another coded page; nothing has changed.
        """
        assert self.storage is not None
        coded = self._coded_of.get(page)
        if coded is None:
            if page >= self.pages:
                raise IntegrityError(f"page {page} is coded already; encode exact pages, 0..{self.pages - 1}")
            data = self.storage.code.encode(*self.read(page))
            if not self._free_coded:
                raise PoolFull(f"all {self.pages} coded pages are held; close sessions and marks, or enlarge the pool")
            if self._tiers is None:
                self._coded[self._free_coded[0] - self.pages] = data
            else:
                self._tiers.put(self._free_coded[0], data)
            coded = heapq.heappop(self._free_coded)
            self._coded_of[page], self._exact_of[coded] = coded, page
        self._references[coded] += 1
        self.release([page])
        return coded

    def encode_if_exact(self, page: int) -> int:
        """The same where decoding gives the page back bit for bit, as of one that was decoded before; else that page.

        This is how what was read of a coded page, and put down elsewhere, comes back unchanged.
        """
        assert self.storage is not None
        kept = self.read(page)
        again = self.storage.code.decode(self.storage.code.encode(*kept), self.shape)
        same = all(torch.equal(one, other.to(self.dtype)) for one, other in zip(kept, again, strict=True))
        return self.encode(page) if same else page

    def check_integrity(self, holders: Iterable[HoldsPages]) -> None:
        """Raise IntegrityError, naming the equation that fails, unless the books balance.

        Args:
            holders: everything that holds pages of this pool, such as all contexts, marks included.

        With tiers every copy on disk is read, and SpillError raised where one is not what was written.
        """
        self._settle()
        everything = len(self._references)
        referenced = [page for page in range(everything) if self._references[page]]
        free = sorted([*self._free, *self._free_coded])
        if sorted([*free, *referenced]) != list(range(everything)):
            raise IntegrityError(
                f"free + referenced = all does not hold: free {free}, referenced {referenced}, all 0..{everything - 1}"
            )
        coded = {page: coded for coded, page in self._exact_of.items()}
        if coded != self._coded_of or not {*coded, *coded.values()} <= set(referenced):
            raise IntegrityError(
                f"exact and coded pages of one frame are held by somebody does not hold: {self._coded_of} one way, "
                f"{coded} the other, referenced {referenced}"
            )
        held = Counter(page for holder in holders for page in holder.pages)
        counted = Counter({page: self._references[page] for page in referenced})
        if held != counted:
            wrong = {page: (counted[page], held[page]) for page in sorted({*held, *counted})}
            wrong = {page: pair for page, pair in wrong.items() if pair[0] != pair[1]}
            raise IntegrityError(
                f"counted = held does not hold; page: (counted, held by those given) is {wrong}; "
                f"pass every context and mark of this pool"
            )
        if self._tiers is not None:
            self._tiers.check(page for page in referenced if page >= self.pages or self._written[page])

    def _room_for_coded(self) -> Tensor:
        """Memory for as many coded pages as exact ones, uint8 [pages, bytes]; for none if they lie in tiers."""
        pages = 0 if self.storage is None or self._tiers is not None else self.pages
        size = (pages, 0 if self.storage is None else self.storage.code.bytes(self.shape))
        with torch.inference_mode(False):
            return torch.empty(size, dtype=torch.uint8, device=self.device)

    def _check_free(self, count: int) -> None:
        free = self.pages - self.used
        if count > free:
            raise PoolFull(
                f"{count} more pages are wanted and {free} of {self.pages} are free; close sessions and marks "
                "that are no longer needed, choose a policy that holds fewer frames, or plan a published model for "
                "more sessions: load(..., sessions=N)"
            )

    def _check_budget(self) -> None:
        """Raise ConfigError if not even one page finds room."""
        if self._tiers is None:
            return
        coded = 0 if self.storage is None else self.storage.code.bytes(self.shape)
        least = max(self.shape.bytes(self.dtype), coded)
        if self._tiers.budget.device < least:
            raise ConfigError(
                f"a page takes {least} bytes and the budget for all is {self._tiers.budget.device}; choose a larger one"
            )

    def _part(self, page: int) -> None:
        """Forget which page is of the same frame as a page that is no longer held."""
        other = self._coded_of.pop(page, None) if page < self.pages else self._exact_of.pop(page, None)
        if other is not None:
            (self._exact_of if page < self.pages else self._coded_of).pop(other)

    def _check_held(self, page: int) -> None:
        if not (0 <= page < len(self._references) and self._references[page]):
            raise IntegrityError(f"nobody holds page {page} of {len(self._references)}; take it first")

    @undivided()
    def _settle(self) -> None:
        while self._put_back:
            held = self._held_by.pop(self._put_back.popleft(), {})
            self.release(page for pages in held.values() for page in pages)
