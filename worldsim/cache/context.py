"""One session's past: which frames it still holds, and in which page each one lies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby, pairwise

import torch
from torch import Tensor

from worldsim.cache.packing import pack
from worldsim.cache.policy import Sparse
from worldsim.cache.pool import PagePool
from worldsim.errors import ConfigError, SessionClosed, ShapeError
from worldsim.interrupts import undivided


class Context:
    """A list of page references in time order, each with the frame it holds.

    A fork shares the pages and copies only the list. A mark is a fork that nobody appends to, and a rewind goes on
    from a fork of it, so both cost no memory but the pages that they alone still hold.

    Where the pool has a storage, a frame is held exactly while it is one of the `recent` newest to be committed before
    `next_frame`, and from then on by its coded page: which of the two is a function of the numbers of frame and next
    frame, not of what other contexts hold.

    Where it is sparse, frames that have grown old are held by their salient tokens alone, packed run by run into pages
    that the frames of a run share.

    Ctrl-C waits for whatever changes it: between a page that is taken and one that is held, it would be nobody's.

    Args:
        pool: where its pages are.
        sparse: how old frames are held; None for whole.
    """

    def __init__(self, pool: PagePool, sparse: Sparse | None = None) -> None:
        self.pool = pool
        self.sparse = sparse
        self._held: dict[int, tuple[int, ...]] = {}
        self._next_frame = 0
        self._first_exact = 0
        self._first_whole = 0
        self._salient: dict[int, Tensor] = {}
        self._places: dict[int, slice] = {}
        self._is_closed = False
        self._watched = pool.watch(self, self._held)

    @property
    def frames(self) -> tuple[int, ...]:
        """The frames still held, ascending; raises SessionClosed once the context is closed."""
        self._check_open()
        return tuple(self._held)

    @property
    def pages(self) -> tuple[int, ...]:
        """The pages of each frame in `frames`: one, or up to two where frames are packed."""
        return tuple(page for pages in self._held.values() for page in pages)

    @property
    def next_frame(self) -> int:
        """The index of the next frame to be committed; it grows without end."""
        return self._next_frame

    def pages_of(self, frame: int) -> tuple[int, ...]:
        """The pages that hold that frame; raises ConfigError if it is not held."""
        if frame not in self._held:
            raise ConfigError(f"frame {frame} is not held; choose from {list(self._held)}")
        return self._held[frame]

    def read(self, frame: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """The keys and values of a held frame, each [layers, tokens held, heads, head_dim], not to be changed.

        The third tells which tokens these are, int64, ascending; None for all of the frame.
        """
        read = [self.pool.read(page) for page in self.pages_of(frame)]
        place = self._places.get(frame)
        if place is None:
            return *read[0], None
        keys, values = read[0] if len(read) == 1 else (torch.cat(side, dim=1) for side in zip(*read, strict=True))
        return keys[:, place], values[:, place], self._salient[frame]

    def spread(self, frame: int) -> tuple[Tensor, Tensor]:
        """The keys and values of a held frame, each [layers, tokens, heads, head_dim]; zeros for tokens not held."""
        keys, values, tokens = self.read(frame)
        if tokens is None:
            return keys, values
        whole = [side.new_zeros(side.shape[0], self.pool.shape.tokens, *side.shape[2:]) for side in (keys, values)]
        whole[0][:, tokens], whole[1][:, tokens] = keys, values
        return whole[0], whole[1]

    def salient(self, frame: int) -> Tensor:
        """The tokens of a held frame that stay when it grows old, int64, ascending; all unless it is sparse."""
        self.pages_of(frame)
        return self._salient[frame] if self.sparse else torch.arange(self.pool.shape.tokens)

    def wants(self, frames: int) -> int:
        """The most pages that are taken while so many frames are committed."""
        return frames if self.sparse is None else frames + self.sparse.packed(frames)

    @undivided()
    def append(self, keys: Tensor, values: Tensor, salient: Sequence[Tensor] = ()) -> None:
        """Commit F frames at once.

        Args:
            keys, values: [layers, F, tokens, heads, head_dim], keys before rotary embedding; copied.
            salient: if the context is sparse, of each frame the tokens that stay when it grows old, int64, ascending,
                at least one.

        Raises:
            PoolFull, ShapeError: nothing has changed.
            SessionClosed: the context was closed.
        """
        self._check_open()
        frames = range(self._next_frame, self._next_frame + self.pool.shape.pages(keys, values))
        self._check_salient(len(frames), salient)
        self.pool.check_room(self.wants(len(frames)))
        self._take(frames, keys, values, salient)
        self._next_frame = frames.stop
        self._grow_old()

    @undivided()
    def hold(
        self, frames: Sequence[int], next_frame: int, keys: Tensor, values: Tensor, salient: Sequence[Tensor] = ()
    ) -> Context:
        """Hold those frames, as another context did; this one is new, and is returned.

        Args:
            frames: their numbers, ascending.
            next_frame: the frame to be committed next, after all of them.
            keys, values: as for `append`, one page for each frame, as read from the other one: what was coded there
                reads the same here, bit for bit. Of frames that have grown old only the salient tokens matter.
            salient: as for `append`.

        Raises:
            ConfigError: the numbers do not ascend to below next_frame.
            PoolFull, ShapeError: it holds nothing.
        """
        numbers, pages = [-1, *frames, next_frame], self.pool.shape.pages(keys, values)
        if any(later <= earlier for earlier, later in pairwise(numbers)) or pages != len(frames):
            raise ConfigError(
                f"{pages} pages cannot be frames {list(frames)} before frame {next_frame}; "
                "give ascending numbers, one for each page"
            )
        self._check_salient(pages, salient)
        border = self._border(next_frame)
        old, runs = sum(frame < border for frame in frames), list(self._runs(frames, border))
        tokens = dict(zip(frames, salient, strict=bool(self.sparse)))
        packed = sum(-(-sum(len(tokens[frame]) for frame in run) // self.pool.shape.tokens) for run in runs)
        self.pool.check_room(packed + len(frames) - old)
        self._next_frame, self._first_whole, self._salient = next_frame, border, tokens
        at = {frame: number for number, frame in enumerate(frames)}
        for run in runs:
            self._put(run, [(keys[:, at[frame], tokens[frame]], values[:, at[frame], tokens[frame]]) for frame in run])
        self._take(frames[old:], keys[:, old:], values[:, old:], salient[old:])
        self._encode_old(self.pool.encode_if_exact)
        return self

    @undivided()
    def keep(self, frames: Iterable[int]) -> None:
        """Forget every held frame but these; raises ConfigError, and forgets nothing, if one of them is not held."""
        self._check_open()
        kept = {frame: self.pages_of(frame) for frame in frames}
        for frame in [frame for frame in self._held if frame not in kept]:
            self.pool.release(self._held.pop(frame))
            self._salient.pop(frame, None)
            self._places.pop(frame, None)

    @undivided()
    def skip(self, frames: int) -> None:
        """Number the next frame as if so many had been committed and forgotten before it.

        Raises:
            PoolFull: there is no room to encode what has become old; some of it may have been.
        """
        self._check_open()
        if frames < 0:
            raise ConfigError(f"frames are numbered upwards; skip 0 or more of them, not {frames}")
        self._next_frame += frames
        self._grow_old()

    @undivided()
    def truncate(self, frame: int) -> None:
        """Forget that frame and all after it: it is the next to be committed.

        Frames that were forgotten before do not come back, nor do those whole that were packed or those exactly that
        were encoded; a mark keeps them.
        """
        if not 0 <= frame <= self._next_frame:
            raise ConfigError(f"cannot go back to frame {frame}; the past ends before frame {self._next_frame}")
        self.keep([held for held in self.frames if held < frame])
        self._next_frame = frame
        self._first_exact = min(self._first_exact, frame)
        self._first_whole = min(self._first_whole, frame)

    @undivided()
    def fork(self) -> Context:
        """A second context with the same past; no key or value is copied."""
        self._check_open()
        self.pool.retain(self.pages)
        twin = Context(self.pool, self.sparse)
        twin._held.update(self._held)
        twin._salient.update(self._salient)
        twin._places.update(self._places)
        twin._next_frame = self._next_frame
        twin._first_exact = self._first_exact
        twin._first_whole = self._first_whole
        return twin

    @undivided()
    def close(self) -> None:
        """Give all pages back. Closing twice is fine; a context that is garbage collected closes itself."""
        self._is_closed, self._held = True, {}  # the pool has what was held, and now nobody changes that
        self.pool.put_back(self._watched)

    def _take(self, frames: Sequence[int], keys: Tensor, values: Tensor, salient: Sequence[Tensor]) -> None:
        """Hold those frames in pages just taken."""
        pages = self.pool.take(len(frames))
        self.pool.write(pages, keys, values)
        self._held.update((frame, (page,)) for frame, page in zip(frames, pages, strict=True))
        self._salient.update(zip(frames, salient, strict=bool(self.sparse)))

    def _grow_old(self) -> None:
        """Hold what has grown old by its coded page, and by its salient tokens.

        Packed is only what is coded, if anything is: a page that came of coded frames and exact ones would not come of
        what is read of it.
        """
        self._encode_old(self.pool.encode)
        border = self._border(self._next_frame)
        for run in self._runs([frame for frame in self._held if frame >= self._first_whole], border):
            self._pack(run)
        self._first_whole = max(self._first_whole, border)

    def _border(self, next_frame: int) -> int:
        """The first frame that is held whole before that one: the first of a run; 0 in a context that is not sparse."""
        if self.sparse is None:
            return 0
        recent = 0 if self.pool.storage is None else self.pool.storage.recent
        return self.sparse.old(next_frame - max(0, recent - self.sparse.recent))

    def _runs(self, frames: Sequence[int], border: int) -> Iterator[list[int]]:
        """Those before the border, run by run."""
        if self.sparse is not None:
            run = self.sparse.run
            yield from (
                list(each) for _, each in groupby((f for f in frames if f < border), lambda frame: frame // run)
            )

    def _pack(self, frames: Sequence[int]) -> None:
        """Hold whole frames by their salient tokens; the pool has room for the pages that these are packed into."""
        whole = [self._held[frame][0] for frame in frames]
        read = [self.pool.read(page) for page in whole]
        tokens = [self._salient[frame] for frame in frames]
        parts = [(keys[:, some], values[:, some]) for (keys, values), some in zip(read, tokens, strict=True)]
        self._put(frames, parts)
        self.pool.release(whole)
        if self.pool.storage is not None:
            for frame in frames:
                self._held[frame] = tuple(map(self.pool.encode, self._held[frame]))

    def _put(self, frames: Sequence[int], parts: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Hold parts of frames in pages just taken."""
        packed = pack(parts, self.pool.shape.tokens)
        pages = self.pool.take(packed.keys.shape[1])
        self.pool.write(pages, packed.keys, packed.values)
        self.pool.retain(pages[number] for numbers in packed.pages for number in numbers)
        self.pool.release(pages)  # each is held once by every frame in it
        for frame, numbers, place in zip(frames, packed.pages, packed.places, strict=True):
            self._held[frame], self._places[frame] = tuple(pages[number] for number in numbers), place

    def _check_salient(self, frames: int, salient: Sequence[Tensor]) -> None:
        if len(salient) != (frames if self.sparse else 0) or any(not len(some) for some in salient):
            raise ShapeError(
                f"{frames} frames came with salient tokens of {len(salient)}; a sparse context takes some of each, "
                "another takes none"
            )

    def _encode_old(self, encode: Callable[[int], int]) -> None:
        """Hold what is no longer recent by its coded page.

        At most as many frames are as were appended, since the last call left none; the pool keeps that many pages.
        """
        if self.pool.storage is None:
            return
        border = self._next_frame - self.pool.storage.recent
        for frame in [held for held in self._held if self._first_exact <= held < border]:
            self._held[frame] = tuple(map(encode, self._held[frame]))
        self._first_exact = max(self._first_exact, border)

    def _check_open(self) -> None:
        if self._is_closed:
            raise SessionClosed("this context was closed and holds nothing; open a new one, or fork it before closing")
