"""One session's past: which frames it still holds, and in which page each one lies."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from torch import Tensor

from worldsim.cache.pool import PagePool
from worldsim.errors import ConfigError, SessionClosed


class Context:
    """A list of page references in time order, each with the frame it holds.

    A fork shares the pages and copies only the list. A mark is a fork that nobody appends to, and a rewind goes on
    from a fork of it, so both cost no memory but the pages that they alone still hold.

    Where the pool has a storage, a frame is held exactly while it is one of the `recent` newest to be committed before
    `next_frame`, and from then on by its coded page: which of the two is a function of the numbers of frame and next
    frame, not of what other contexts hold.
    """

    def __init__(self, pool: PagePool) -> None:
        self.pool = pool
        self._held: dict[int, int] = {}
        self._next_frame = 0
        self._first_exact = 0
        self._give_back = weakref.finalize(self, _give_back, pool, self._held)
        self._give_back.atexit = False

    @property
    def frames(self) -> tuple[int, ...]:
        """The frames still held, ascending; raises SessionClosed once the context is closed."""
        self._check_open()
        return tuple(self._held)

    @property
    def pages(self) -> tuple[int, ...]:
        """The page of each frame in `frames`."""
        return tuple(self._held.values())

    @property
    def next_frame(self) -> int:
        """The index of the next frame to be committed; it grows without end."""
        return self._next_frame

    def page(self, frame: int) -> int:
        """The page that holds that frame; raises ConfigError if it is not held."""
        if frame not in self._held:
            raise ConfigError(f"frame {frame} is not held; choose from {list(self._held)}")
        return self._held[frame]

    def append(self, keys: Tensor, values: Tensor) -> None:
        """Commit F frames at once.

        Args:
            keys, values: [layers, F, tokens, heads, head_dim], keys before rotary embedding; copied.

        Raises:
            PoolFull, ShapeError: nothing has changed.
            SessionClosed: the context was closed.
        """
        self._check_open()
        first = self._next_frame
        self._next_frame += self._take(range(first, first + self.pool.shape.pages(keys, values)), keys, values)
        self._encode_old(self.pool.encode)

    @classmethod
    def holding(cls, pool: PagePool, frames: Sequence[int], next_frame: int, keys: Tensor, values: Tensor) -> Context:
        """A context that holds those frames, as another one did.

        Args:
            pool: where it holds them.
            frames: their numbers, ascending.
            next_frame: the frame to be committed next, after all of them.
            keys, values: as for `append`, one page for each frame, as read from the pages of the other one: what was
                coded there reads the same here, bit for bit.

        Raises:
            ConfigError: the numbers do not ascend to below next_frame.
            PoolFull, ShapeError: nothing was taken.
        """
        numbers = [-1, *frames, next_frame]
        if any(later <= earlier for earlier, later in pairwise(numbers)) or pool.shape.pages(keys, values) != len(
            frames
        ):
            raise ConfigError(
                f"{keys.shape[1]} pages cannot be frames {list(frames)} before frame {next_frame}; "
                "give ascending numbers, one for each page"
            )
        context = cls(pool)
        context._take(frames, keys, values)
        context._next_frame = next_frame
        context._encode_old(pool.encode_if_exact)
        return context

    def keep(self, frames: Iterable[int]) -> None:
        """Forget every held frame but these; raises ConfigError, and forgets nothing, if one of them is not held."""
        self._check_open()
        kept = {frame: self.page(frame) for frame in frames}
        self.pool.release([self._held.pop(frame) for frame in self.frames if frame not in kept])

    def skip(self, frames: int) -> None:
        """Number the next frame as if so many had been committed and forgotten before it.

        Raises:
            PoolFull: there is no room to encode what has become old; some of it may have been.
        """
        self._check_open()
        if frames < 0:
            raise ConfigError(f"frames are numbered upwards; skip 0 or more of them, not {frames}")
        self._next_frame += frames
        self._encode_old(self.pool.encode)

    def truncate(self, frame: int) -> None:
        """Forget that frame and all after it: it is the next to be committed.

        Frames that were forgotten before do not come back, nor do those exactly that were encoded; a mark keeps them.
        """
        if not 0 <= frame <= self._next_frame:
            raise ConfigError(f"cannot go back to frame {frame}; the past ends before frame {self._next_frame}")
        self.keep([held for held in self.frames if held < frame])
        self._next_frame = frame
        self._first_exact = min(self._first_exact, frame)

    def fork(self) -> Context:
        """A second context with the same past; no key or value is copied."""
        self._check_open()
        self.pool.retain(self.pages)
        twin = Context(self.pool)
        twin._held.update(self._held)
        twin._next_frame = self._next_frame
        twin._first_exact = self._first_exact
        return twin

    def close(self) -> None:
        """Give all pages back. Closing twice is fine; a context that is garbage collected closes itself."""
        self._give_back()

    def _take(self, frames: Sequence[int], keys: Tensor, values: Tensor) -> int:
        """Hold those frames in pages just taken; how many they are."""
        pages = self.pool.take(len(frames))
        self.pool.write(pages, keys, values)
        self._held.update(zip(frames, pages, strict=True))
        return len(pages)

    def _encode_old(self, encode: Callable[[int], int]) -> None:
        """Hold what is no longer recent by its coded page.

        At most as many frames are as were appended, since the last call left none; the pool keeps that many pages.
        """
        if self.pool.storage is None:
            return
        border = self._next_frame - self.pool.storage.recent
        for frame in [held for held in self._held if self._first_exact <= held < border]:
            self._held[frame] = encode(self._held[frame])
        self._first_exact = max(self._first_exact, border)

    def _check_open(self) -> None:
        if not self._give_back.alive:
            raise SessionClosed("this context was closed and holds nothing; open a new one, or fork it before closing")


def _give_back(pool: PagePool, held: dict[int, int]) -> None:
    pool.put_back(tuple(held.values()))
    held.clear()
