"""One world for many: sessions on one thread that make their blocks together and can be asked from any thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from threading import Condition, Thread
from typing import Any, TypeVar
from weakref import WeakSet

from worldsim.decoding.batch import TOGETHER
from worldsim.errors import ConfigError, EngineFull, SessionClosed
from worldsim.runtime.batching import Stopped, attempt, step_together
from worldsim.runtime.chunk import Chunk
from worldsim.runtime.session import Session
from worldsim.runtime.world import World

Answer = TypeVar("Answer")


@dataclass(slots=True, eq=False)
class _Step:
    """A block that somebody waits for."""

    live: LiveSession
    keys: Iterable[str]
    outcome: Future[Chunk]


@dataclass(slots=True, eq=False)
class _Call:
    """Something to be done between blocks."""

    call: Callable[[], Any]
    outcome: Future[Any]


@dataclass(slots=True, eq=False)
class _Desk:
    """What the threads that ask leave for the one that works; guarded by `changed`.

    beginning: places taken for sessions that are still to be begun.
    living: the sessions that hold memory; one that everybody has dropped gives its own back, and its place.
    stopped: those of them that are being closed.
    """

    changed: Condition = field(default_factory=Condition)
    calls: deque[_Call] = field(default_factory=deque)
    steps: deque[_Step] = field(default_factory=deque)
    beginning: int = 0
    living: WeakSet[LiveSession] = field(default_factory=WeakSet)
    stopped: set[LiveSession] = field(default_factory=set)
    closed: bool = False


class Engine:
    """The sessions of one world. A context manager; all its methods may be called from any thread.

    Sessions that wait for a block when one is begun make it together, at most `together` of them, those that have
    waited longest first; the others are next. A session that nobody asks costs nothing but its pages.

    Args:
        world: where they live; nobody else may use it, since one thread uses a pool.
        sessions: how many there may be; as many as the pool is planned for if None.
        together: how many make a block at once, at most.

    places: how many the pool has room for; one more than there may be, so that one can take the place of another.
    capacity: how many there may be.
    """

    def __init__(self, world: World, *, sessions: int | None = None, together: int = TOGETHER) -> None:
        self.places = world.pool.pages // pages_of_session(world)
        fit = self.places - 1
        self.capacity = fit if sessions is None else sessions
        if not 1 <= self.capacity <= fit or together < 1:
            raise ConfigError(
                f"{world.pool.pages} pages have room for {max(fit, 0)} sessions of {pages_of_session(world)} pages "
                f"each and one that takes the place of another, and at least 1 makes a block; got sessions={sessions} "
                f"and together={together}"
            )
        self.world = world
        self._together = together
        self._desk = _Desk()
        self._thread = Thread(target=self._work, name="worldsim-engine", daemon=True)
        self._thread.start()

    @property
    def open_sessions(self) -> int:
        """How many sessions there are, those that are being begun included."""
        with self._desk.changed:
            return self._desk.beginning + len(self._desk.living)

    def open(self, **beginning: Any) -> LiveSession:
        """Begin a session; arguments and errors as for World.open.

        Raises:
            EngineFull: there are as many as it has capacity for; nothing was allocated.
        """
        return self.admit(lambda: self.world.open(**beginning))

    def admit(self, begin: Callable[[], Session], *, instead: bool = False) -> LiveSession:
        """A session that is begun on the engine's thread, such as a restored one; EngineFull as for `open`.

        Args:
            begin: makes it.
            instead: it takes the place of one that is closed next, so there may be more until then: as many as the
                pool has places for, which is one more at least.
        """
        with self._desk.changed:
            self._check_place(instead=instead)
            begun = self.call(lambda: self._begin(begin))
            self._desk.beginning += 1
        return begun.result()

    def call(self, call: Callable[[], Answer]) -> Future[Answer]:
        """Have something done on the engine's thread, before the next block is begun."""
        outcome: Future[Answer] = Future()
        with self._desk.changed:
            if self._desk.closed:
                raise SessionClosed("this engine was closed; start another")
            self._desk.calls.append(_Call(call, outcome))
            self._desk.changed.notify()
        return outcome

    def close(self) -> None:
        """End the thread after the call that it is in, and close the sessions that are open.

        What still waits is cancelled. Closing twice is fine, and so is closing a session afterwards, which raises what
        went wrong when it was closed here.
        """
        with self._desk.changed:
            self._desk.closed = True
            self._desk.changed.notify()
        self._thread.join()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, step: _Step) -> None:
        with self._desk.changed:
            if self._desk.closed or step.live._closed:
                raise SessionClosed("this session was closed; open another")
            self._desk.steps.append(step)
            self._desk.changed.notify()

    def _check_place(self, *, instead: bool) -> None:
        if self._desk.closed:
            raise SessionClosed("this engine was closed; start another")
        if self.open_sessions >= self.places:
            raise EngineFull(
                f"the memory has room for {self.places} sessions and all are there, of which some take the place of "
                "others; try again when one of those has been closed"
            )
        if self.open_sessions >= self.capacity and not instead:
            pool, pages = self.world.pool, pages_of_session(self.world)
            raise EngineFull(
                f"{self.open_sessions} of {self.capacity} sessions are open, each planned with "
                f"{pages * pool.shape.bytes(pool.dtype) / 1e6:.0f} MB; try again when one has been closed"
            )

    def _begin(self, begin: Callable[[], Session]) -> LiveSession:
        """Begin a session on this thread; from then on it is closed when the engine is, whoever has it."""
        begun: list[LiveSession] = []
        try:
            begun.append(LiveSession(self, begin()))
        finally:
            with self._desk.changed:
                self._desk.beginning -= 1
                self._desk.living.update(begun)
        return begun[0]

    def _stop(self, live: LiveSession) -> bool:
        """Make no block of that session any more, not even the one being made; False if that was said already."""
        with self._desk.changed:
            if live._closed:
                return False
            live._closed = True
            self._desk.stopped.add(live)
            for step in [step for step in self._desk.steps if step.live is live]:
                self._desk.steps.remove(step)
                step.outcome.cancel()
            return True

    def _finish(self, live: LiveSession) -> None:
        """Have the session closed on the engine's thread, which closes what is left when it ends."""
        try:
            self.call(lambda: self._end(live)).result()
        except (SessionClosed, CancelledError):
            self._thread.join()
        live._ended.result()

    def _end(self, live: LiveSession) -> None:
        """Close the session on this thread, and say what came of it."""
        attempt(live.session.close, live._ended)
        with self._desk.changed:
            self._desk.living.discard(live)
            self._desk.stopped.discard(live)

    def _work(self) -> None:
        while self._work_once():
            pass
        with self._desk.changed:
            for outcome in (*(c.outcome for c in self._desk.calls), *(s.outcome for s in self._desk.steps)):
                outcome.cancel()
            self._desk.beginning = 0
            left = [*self._desk.living]
        for live in left:
            self._end(live)

    def _work_once(self) -> bool:
        """Do one call and make one round of blocks, when there are any; False if the engine was closed."""
        with self._desk.changed:
            self._desk.changed.wait_for(lambda: self._desk.calls or self._desk.steps or self._desk.closed)
            if self._desk.closed:
                return False
            # One call, then a round of blocks: a queue of calls that never ends must not keep the sessions waiting.
            asked = self._desk.calls.popleft() if self._desk.calls else None
        if asked is not None and asked.outcome.set_running_or_notify_cancel():
            attempt(asked.call, asked.outcome)
        with self._desk.changed:
            due = [] if self._desk.closed else self._due()
        if due:
            self._make(due)
        return True

    def _due(self) -> list[_Step]:
        """Whose block is next: of those who wait, each session once, the longest waiting first."""
        taken: dict[LiveSession, _Step] = {}
        for step in self._desk.steps:
            if len(taken) < self._together:
                taken.setdefault(step.live, step)
        for step in taken.values():
            self._desk.steps.remove(step)
        return [step for step in taken.values() if step.outcome.set_running_or_notify_cancel()]

    def _make(self, due: list[_Step]) -> None:
        """Give everybody in a round what comes of it, whatever that is: nobody waits for ever."""

        def between() -> None:
            if self._desk.closed or any(step.live in self._desk.stopped for step in due):
                raise Stopped

        made: Future[list[Future[Chunk]]] = Future()
        attempt(lambda: step_together([s.live.session for s in due], [s.keys for s in due], between=between), made)
        if isinstance(made.exception(), Stopped):
            gone = [step for step in due if self._desk.closed or step.live in self._desk.stopped]
            for step in gone:
                step.outcome.set_exception(SessionClosed("this session was closed while its block was being made"))
            if left := [step for step in due if step not in gone]:
                self._make(left)
            return
        # Each has its own answer, unless it was none's fault in particular.
        outcomes: Sequence[Future[Any]] = made.result() if made.exception() is None else [made] * len(due)
        for step, outcome in zip(due, outcomes, strict=True):
            if (error := outcome.exception()) is not None:
                step.outcome.set_exception(error)
            else:
                step.outcome.set_result(outcome.result())


class LiveSession:
    """A session that lives in an engine. Made by Engine.open; all its methods may be called from any thread."""

    def __init__(self, engine: Engine, session: Session) -> None:
        self.engine = engine
        self.session = session
        self._closed = False
        self._ended: Future[None] = Future()

    def step(self, keys: Iterable[str] = ()) -> Future[Chunk]:
        """The next block, made when its turn comes; what can go wrong as for Session.step."""
        outcome: Future[Chunk] = Future()
        # Copied, since they may change meanwhile; what are no keys is refused when its turn comes.
        held = [*keys] if isinstance(keys, Iterable) and not isinstance(keys, str) else keys
        self.engine._ask(_Step(self, held, outcome))
        return outcome

    def do(self, verb: Callable[[Session], Answer]) -> Future[Answer]:
        """Have something done with the session between two blocks: a mark, a rewind, a save."""
        return self.engine.call(lambda: verb(self.session))

    def fork(self) -> LiveSession:
        """A second session that begins with this one's past; EngineFull if there is no place for it."""
        return self.engine.admit(self.session.fork)

    def close(self) -> None:
        """Give its memory and its place back, at the next step of the block that is being made. Twice is fine."""
        if self.engine._stop(self):
            self.engine._finish(self)


def pages_of_session(world: World) -> int:
    """Pages that a session is planned with: what its blocks see, and what it takes beside that, see VideoPlan."""
    held = world.plan.limit
    return (world.remembered_frames if held is None else held) + world.plan.beside
