"""The moments that sessions can go back to at once: as many as their pool has room for, the oldest forgotten first."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar
from weakref import ref

from worldsim.decoding.video import VideoDecoder
from worldsim.runtime.chunk import Frames
from worldsim.session.log import Trail
from worldsim.session.prompt import Told


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """A past to go on from, what the codec knew at that point, the steps that led there, and what was shown last.

    shown: the newest frame, uint8 [H, W, 3].
    told: what it is told in words, if its world is told anything.
    """

    decoder: VideoDecoder
    codec_state: Any
    trail: Trail | None
    shown: Frames
    told: Told | None = None

    @property
    def block(self) -> int:
        """How many blocks had been made."""
        return self.decoder.blocks

    @property
    def lost(self) -> bool:
        """Whether some of the past that it holds is known not to come back from below: nothing can go on from it."""
        return self.decoder.pool.lost(self.decoder.context.pages)

    def fork(self) -> Moment:
        return replace(self, decoder=self.decoder.fork())


class History:
    """The latest moments of one session, at most `longest` of them, each before one of its blocks."""

    def __init__(self, longest: int) -> None:
        self._moments: deque[Moment] = deque()
        self._longest = longest

    def __len__(self) -> int:
        return len(self._moments)

    @property
    def pages(self) -> tuple[int, ...]:
        """The pages that its moments hold, each once for every reference."""
        return tuple(page for moment in self._moments for page in moment.decoder.context.pages)

    def add(self, moment: Moment) -> None:
        """Remember a moment, which is closed when it is forgotten."""
        self._moments.append(moment)
        if len(self._moments) > self._longest:
            self.forget_oldest()

    def forget_oldest(self) -> None:
        self._moments.popleft().decoder.close()

    def at(self, block: int) -> Moment | None:
        """The moment at which so many blocks had been made, if it is still remembered."""
        return next((moment for moment in self._moments if moment.block == block), None)

    def keep_before(self, moment: Moment) -> None:
        """Forget every moment that did not lead to that one."""
        led, at = set(), moment.trail
        for _ in range(self._longest):
            at = at.before if at is not None else None
            led.add(id(at))
        kept = [past for past in self._moments if past.block < moment.block and id(past.trail) in led]
        for past in self._moments:
            if past not in kept:
                past.decoder.close()
        self._moments = deque(kept)

    def clear(self) -> None:
        while self._moments:
            self.forget_oldest()


class Holder(Protocol):
    """Somebody who holds pages of a past, and can keep it elsewhere."""

    @property
    def block(self) -> int:
        """How many blocks had been made."""
        ...

    @property
    def pages(self) -> tuple[int, ...]:
        """What it holds."""
        ...

    def leave_pool(self) -> None:
        """Give the pages back, whatever they hold, and keep that in the memory of the host if it can be read."""
        ...


class Histories:
    """All histories and marks over one pool."""

    def __init__(self) -> None:
        # No WeakSet: that runs lines of Python when one is dropped, and of Ctrl-C that raises there nobody hears.
        self._histories: set[ref[History]] = set()
        self._holders: set[ref[Holder]] = set()

    def open(self, longest: int) -> History:
        """A history for one more session."""
        history = History(longest)
        self._histories.add(ref(history, self._histories.discard))
        return history

    def fork(self, history: History) -> History:
        """A second history of the same moments, for a fork; no key or value is copied, and each forgets on its own."""
        twin = self.open(history._longest)
        for moment in history._moments:
            twin.add(moment.fork())
        return twin

    def hold(self, holder: Holder) -> None:
        """One more mark, for as long as somebody has it."""
        self._holders.add(ref(holder, self._holders.discard))

    def make_room(self) -> bool:
        """Forget the oldest moment of whoever remembers most, else move the oldest mark out; False if there is none."""
        longest = max(_living(self._histories), key=len, default=None)
        if longest is not None and len(longest):
            longest.forget_oldest()
            return True
        oldest = min((mark for mark in _living(self._holders) if mark.pages), key=lambda mark: mark.block, default=None)
        if oldest is None:
            return False
        oldest.leave_pool()
        return True


One = TypeVar("One")


def _living(references: set[ref[One]]) -> list[One]:
    """Those that somebody still has; of a copy, since one may be dropped meanwhile."""
    return [one for reference in references.copy() if (one := reference()) is not None]
