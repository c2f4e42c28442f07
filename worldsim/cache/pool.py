"""The page pool: keys and values of every session, one frame a page, shared by counting references."""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from worldsim.errors import ConfigError, IntegrityError, PoolFull, ShapeError


@dataclass(frozen=True, slots=True, kw_only=True)
class PageShape:
    """The keys (and, alike, the values) of one frame: [layers, tokens, heads, head_dim]."""

    layers: int
    tokens: int
    heads: int
    head_dim: int

    def __post_init__(self) -> None:
        if min(self.layers, self.tokens, self.heads, self.head_dim) < 1:
            raise ConfigError(f"every size of a page is at least 1, got {self}")

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

    One thread uses a pool. Only `put_back` may be called from any thread at any moment.
    """

    def __init__(self, shape: PageShape, *, pages: int, dtype: torch.dtype, device: torch.device) -> None:
        if pages < 1:
            raise ConfigError(f"a pool has at least 1 page, got {pages}")
        self.shape = shape
        self.pages = pages
        self.dtype = dtype
        self.device = device
        self.spare_rooms: deque[Tensor] = deque(maxlen=2)
        self._keys, self._values = self.room(pages, shape.tokens)
        self._free = list(range(pages))
        self._references = [0] * pages
        self._written = [False] * pages
        self._put_back: deque[Sequence[int]] = deque()

    def room(self, *sizes: int) -> Tensor:
        """Memory for keys and values like those of the pool, [2, layers, *sizes, heads, head_dim], with any content.

        Spare room is used again: asking the system for tens of MB at every block costs as much as filling them, and
        makes the resident size swing. Writable in and out of inference mode, wherever it was first asked for.
        """
        size = (2, self.shape.layers, *sizes, self.shape.heads, self.shape.head_dim)
        while self.spare_rooms:
            spare = self.spare_rooms.popleft()
            if spare.shape == size:
                return spare
        with torch.inference_mode(False):
            return torch.empty(size, dtype=self.dtype, device=self.device)

    @property
    def free(self) -> int:
        """How many pages can be taken."""
        self._settle()
        return len(self._free)

    @property
    def used(self) -> int:
        """How many pages somebody holds."""
        return self.pages - self.free

    def take(self, count: int) -> list[int]:
        """Take that many pages, each with one reference, to be written next.

        Raises PoolFull, and takes nothing, if fewer are free.
        """
        if count > self.free:
            raise PoolFull(
                f"{count} more pages are wanted and {self.free} of {self.pages} are free; close sessions and marks "
                f"that are no longer needed, choose a policy that holds fewer frames, or make the pool larger"
            )
        pages = [heapq.heappop(self._free) for _ in range(count)]
        for page in pages:
            self._references[page] = 1
        return pages

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
                self._written[page] = False
                heapq.heappush(self._free, page)

    def put_back(self, pages: Sequence[int]) -> None:
        """Release pages when the pool is next asked for one.

        This is the release for finalizers: the garbage collector may run in any thread and in the middle of any
        method here, and appending to a deque is the one thing that is safe then.
        """
        self._put_back.append(pages)

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
        """
        if self.shape.pages(keys, values) != len(pages):
            raise ShapeError(f"{len(pages)} pages cannot hold {keys.shape[1]} frames; pass one frame for each page")
        for page in pages:
            self._check_held(page)
            if self._written[page]:
                raise IntegrityError(f"page {page} is committed and never changes; take a new page")
        for at, page in enumerate(pages):
            self._keys[:, page] = keys[:, at]
            self._values[:, page] = values[:, at]
            self._written[page] = True

    def read(self, page: int) -> tuple[Tensor, Tensor]:
        """The keys and values of one page, each [layers, tokens, heads, head_dim], in place: not to be changed."""
        self._check_held(page)
        if not self._written[page]:
            raise IntegrityError(f"page {page} is read before it was written")
        return self._keys[:, page], self._values[:, page]

    def check_integrity(self, holders: Iterable[HoldsPages]) -> None:
        """Raise IntegrityError, naming the equation that fails, unless the books balance.

        Args:
            holders: everything that holds pages of this pool, such as all contexts, marks included.
        """
        self._settle()
        referenced = [page for page in range(self.pages) if self._references[page]]
        if sorted([*self._free, *referenced]) != list(range(self.pages)):
            raise IntegrityError(
                f"free + referenced = all does not hold: free {sorted(self._free)}, referenced {referenced}, "
                f"all 0..{self.pages - 1}"
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

    def _check_held(self, page: int) -> None:
        if not (0 <= page < self.pages and self._references[page]):
            raise IntegrityError(f"nobody holds page {page} of {self.pages}; take it first")

    def _settle(self) -> None:
        while self._put_back:
            self.release(self._put_back.popleft())
