"""What a server does with what it hears: who may say what, when the next block is due, and what a slow viewer misses.

Pure: no sockets, no clock; the time is an argument, in seconds of any clock that only goes forward.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from worldsim.errors import ProtocolError
from worldsim.session.events import (
    Ack,
    Act,
    Bye,
    Control,
    Hello,
    Message,
    Ping,
    Prompt,
    Role,
    Start,
    Tell,
    read_message,
)

WINDOW = 2
"""Blocks that may be made beyond those that the player has acknowledged."""
SILENCE_S = 3.0
"""After so long without a word from the player the keys count as released."""
Packet = TypeVar("Packet")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one connection may do.

    hello_s: seconds until the first message must be there.
    start_s: seconds after it until the connection plays or watches a session.
    messages_per_s: on average; burst: how many at once.
    """

    hello_s: float = 5.0
    start_s: float = 300.0
    messages_per_s: float = 120.0
    burst: int = 240


class Budget:
    """So much at once, and so much a second on average.

    Args:
        per_s: what comes back in a second.
        burst: what there is at most.
        now: when it is full.
    """

    __slots__ = ("_burst", "_left", "_per_s", "_then")

    def __init__(self, per_s: float, burst: float, now: float) -> None:
        self._per_s, self._burst = per_s, burst
        self._left, self._then = burst, now

    def take(self, now: float, amount: float = 1.0) -> bool:
        """Take that much if there is as much."""
        self._left = min(self._burst, self._left + (now - self._then) * self._per_s)
        self._then = now
        if self._left < amount:
            return False
        self._left -= amount
        return True


class Dialogue:
    """One connection as the protocol sees it: its role, whether it has a session, and how much it has said.

    Args:
        limits: see there.
        now: when it was opened.
    """

    def __init__(self, limits: Limits, now: float) -> None:
        self.role: Role | None = None
        self.live = False
        self._limits = limits
        self._budget = Budget(limits.messages_per_s, limits.burst, now)

    def hear(self, message: str | bytes, now: float) -> Message:
        """What the client said, if it may say that now.

        Raises:
            ProtocolError: it may not, or it makes no sense; its `close` says whether the connection ends.
        """
        if not self._budget.take(now):
            raise ProtocolError("too_fast", f"more than {self._limits.messages_per_s:g} messages a second", close=4429)
        if isinstance(message, bytes):
            raise ProtocolError("binary", "a client says everything in text; got a binary message", close=1003)
        heard = read_message(message)
        self._check(heard)
        if isinstance(heard, Hello):
            self.role = heard.role
        return heard

    def _check(self, heard: Message) -> None:
        match heard:
            case Hello() if self.role is not None:
                raise ProtocolError("hello_twice", "this connection has said hello before", close=4400)
            case Hello() | Ping() | Bye():
                return
            case _ if self.role is None:
                raise ProtocolError("no_hello", "the first message is a hello", close=3000)
            case Tell():
                return
            case Control(op="look") if self.live:
                return
            case _ if self.role == "spectator" and not isinstance(heard, Ack):
                raise ProtocolError("not_yours", "a spectator watches; only the player of a session steers it")
            case Start() if self.live:
                raise ProtocolError("started", "this connection has a session; say control reset to begin it anew")
            case Act() | Prompt() | Ack() if not self.live:
                raise ProtocolError("no_session", "no session has begun on this connection; say start first")
            case Control() if not self.live and heard.op != "load":
                raise ProtocolError("no_session", "no session has begun on this connection; say start or load first")


@dataclass(frozen=True, slots=True)
class Sample:
    """What a block is made under: the keys held, and the seq of the action that said so, 0 for none."""

    keys: frozenset[str]
    action: int


class Play:
    """One session as its player steers it: when its next block is due, and under which keys.

    Args:
        period: seconds of real time between two blocks; 0 makes them as fast as they are acknowledged.
        now: when it begins.
        blocks: how many had been made.
    """

    def __init__(self, period: float, now: float, blocks: int = 0) -> None:
        self.period = period
        self.epoch = 0
        self.made = blocks
        self.acked = blocks
        self.paused = False
        self.connected = True
        self._extra = 0
        self._newest = Sample(frozenset(), 0)
        self._heard = now
        self._next = now

    def hear(self, now: float) -> None:
        """The player said something, whatever it was; after a silence the keys stay up until the next action."""
        self._release(now)
        self._heard = now

    def act(self, action: Act, keys: frozenset[str]) -> None:
        """Hold these keys from the next block on, unless a newer action came first."""
        if action.seq > self._newest.action:
            self._newest = Sample(keys, action.seq)

    def ack(self, ack: Ack) -> None:
        """Blocks have arrived; what is acknowledged of an epoch that is over says nothing.

        Raises:
            ProtocolError: blocks that were not sent.
        """
        if ack.epoch > self.epoch or (ack.epoch == self.epoch and ack.blocks > self.made):
            raise ProtocolError(
                "bad_ack",
                f"blocks below {self.made} of epoch {self.epoch} were sent; acknowledged were those below {ack.blocks} "
                f"of epoch {ack.epoch}",
            )
        if ack.epoch == self.epoch:
            self.acked = max(self.acked, ack.blocks)

    def pause(self) -> None:
        """Make no block until it goes on or is allowed some; what it was allowed before is forgotten."""
        self.paused, self._extra = True, 0

    def allow(self, blocks: int) -> None:
        """Make so many blocks although paused."""
        self._extra += blocks

    def resume(self, now: float) -> None:
        """Go on after a pause, without making up for it."""
        self.paused, self._extra = False, 0
        self._next = max(self._next, now)

    def jump(self, blocks: int) -> None:
        """Time has jumped to where so many blocks had been made; nothing sent or allowed before counts any more."""
        self.epoch += 1
        self.made = self.acked = blocks
        self._extra = 0

    def due_in(self, now: float) -> float | None:
        """Seconds until the next block is due, None while something has to be heard first."""
        if not self.connected or self.made - self.acked >= WINDOW or (self.paused and not self._extra):
            return None
        return 0.0 if self.paused else max(0.0, self._next - now)

    def begin(self, now: float) -> Sample:
        """What the block that is begun now is made under; the keys are up if the player has been silent."""
        if self.paused:
            self._extra = max(0, self._extra - 1)
        else:
            self._next = max(self._next + self.period, now)
        self._release(now)
        return self._newest

    def _release(self, now: float) -> None:
        if now - self._heard > SILENCE_S:
            self._newest = Sample(frozenset(), self._newest.action)

    def finish(self) -> None:
        """The block has been made."""
        self.made += 1


class Relay(Generic[Packet]):
    """What still has to be sent to one viewer, in order.

    A player's is never longer than its credit. A spectator that is slow misses whole blocks: what waits is dropped, and
    nothing is sent before a packet that needs none before it.

    Args:
        most: packets that may wait for a spectator, None for a player.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._waiting: deque[Packet] = deque()
        self._broken = True

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, packets: Iterable[tuple[Packet, bool]]) -> int:
        """Add a block of packets, each with whether it can be shown without those before it; returns how many drop."""
        block = list(packets)
        dropped = 0
        if self._most is not None and self._waiting and len(self._waiting) + len(block) > self._most:
            dropped, self._broken = len(self._waiting), True
            self._waiting.clear()
        for packet, is_key in block:
            self._broken = self._broken and not is_key
            if self._broken:
                dropped += 1
            else:
                self._waiting.append(packet)
        return dropped

    def take(self) -> Packet | None:
        """The next to be sent."""
        return self._waiting.popleft() if self._waiting else None

    def clear(self) -> None:
        """Forget what waits; the next to be sent needs nothing before it."""
        self._waiting.clear()
        self._broken = True
