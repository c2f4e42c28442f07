"""Who is let in: what is refused before a connection becomes a WebSocket."""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from time import monotonic

from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from worldsim.errors import ConfigError, ProtocolError
from worldsim.session.machine import Budget

PATH = "/v1/world"
MOST_ADDRESSES = 4_096
SHARE = 1 / 4
"""What one other machine may have of what there is for all. This one, and so a proxy that runs on it, may have all."""
SILENT = 2
"""For every connection that there may be, so many may be open: those that ask for health, or say nothing yet, too."""
HOST = re.compile(r"([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
ORIGIN = re.compile(rf"[a-z][a-z0-9+.-]*://{HOST.pattern}")
EVERYWHERE = {"0.0.0.0", "::"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Where a server listens, and to whom.

    host, port: address; port 0 is any that is free.
    token: what a client must say first; needed wherever others than this machine can connect.
    origins: pages of other servers that may connect, and show the player page inside them, such as
        "https://example.org", beside pages of this one.
    hosts: names that this server is called by, beside its address, such as "example.org:8765".
    connections: how many at once; a quarter of them of one other machine.
    handshakes_per_s: new connections of one address, on average; five times as many at once.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    token: str = ""
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    connections: int = 64
    handshakes_per_s: float = 50.0

    def __post_init__(self) -> None:
        if not self.token and not is_loopback(self.host):
            raise ConfigError(f"{self.host} can be reached by others; start the server with a token, or on 127.0.0.1")
        if not 0 <= self.port < 2**16:
            raise ConfigError(f"a port is a number from 0 to 65535, 0 for any that is free; got {self.port}")
        if self.connections < 1 or self.handshakes_per_s <= 0:
            raise ConfigError(
                f"a server takes 1 connection or more, got {self.connections}, and {self.handshakes_per_s} a second"
            )
        for origin in self.origins:
            if not ORIGIN.fullmatch(origin.lower()):
                raise ConfigError(f'an origin is like "https://example.org", without a path; got {origin!r}')
        for name in self.hosts:
            if not HOST.fullmatch(name.lower()):
                raise ConfigError(f'a name of the server is like "example.org:8765", got {name!r}')

    def check(self, token: str) -> None:
        """Raise ProtocolError unless that is the token, or none is asked for."""
        given, wanted = (text.encode(errors="surrogatepass") for text in (token, self.token))
        if self.token and not hmac.compare_digest(given, wanted):
            raise ProtocolError("bad_token", "hello needs the token that the server was started with", close=3000)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _budget(known: OrderedDict[str, Budget], address: str, per_s: float) -> Budget:
    """What an address may still do; those that have come least lately are forgotten."""
    budget = known.pop(address, None) or Budget(per_s, max(1.0, 5 * per_s), monotonic())
    known[address] = budget
    while len(known) > MOST_ADDRESSES:
        known.popitem(last=False)
    return budget


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to that address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(slots=True, eq=False)
class Gate:
    """Answers requests that are none for a world, and refuses those that may not have one.

    door: what is allowed.
    health: the answer of /healthz, its status and its text.
    figures: the answer of /metrics.
    refused: told the reason of every refusal.
    pages: answers to the paths of the player page.
    port: where the server listens, once it does.
    reached: how many connections there are, those that are none of WebSocket too.
    """

    door: Door
    health: Callable[[], tuple[HTTPStatus, str]]
    figures: Callable[[], bytes]
    refused: Callable[[str], None]
    pages: Mapping[str, Response] = field(default_factory=dict)
    port: int = 0
    reached: int = 0
    _open: Counter[str] = field(default_factory=Counter)
    _silent: dict[tuple[object, str], Callable[[], None]] = field(default_factory=dict)
    _asks: OrderedDict[str, Budget] = field(default_factory=OrderedDict)
    _arrivals: OrderedDict[str, Budget] = field(default_factory=OrderedDict)

    def __call__(self, connection: ServerConnection, request: Request) -> Response | Awaitable[None] | None:
        """The answer to a request, or None to let it become a WebSocket; nothing that is waited for is answered."""
        if connection.protocol.close_expected():
            # Behind it came what no WebSocket says, such as a second request, and nothing can be sent any more.
            self.refused("request")
            connection.transport.abort()
            return connection.wait_closed()
        # An older websockets passes nothing but GET on, and does not say so.
        method = getattr(request, "method", "GET")
        answer = self._answer(connection, request, method)
        return replace(answer, body=b"") if answer is not None and method == "HEAD" else answer

    def _answer(self, connection: ServerConnection, request: Request, method: str) -> Response | None:
        hosts, origins = request.headers.get_all("Host"), request.headers.get_all("Origin")
        path = request.path.partition("?")[0]
        if len(hosts) != 1 or not self._is_called(hosts[0].lower()):
            text = "this server is not called that; whoever runs it can tell it another name with --name"
            return self._refuse(connection, HTTPStatus.MISDIRECTED_REQUEST, "host", text)
        if len(origins) > 1 or (origins and not self._is_ours(origins[0], hosts[0].lower())):
            return self._refuse(connection, HTTPStatus.FORBIDDEN, "origin", "pages of that origin may not connect")
        allowed = ("GET",) if path == PATH else ("GET", "HEAD")
        if method not in allowed:
            text = f"this is read with {' or '.join(allowed)}"
            response = self._refuse(connection, HTTPStatus.METHOD_NOT_ALLOWED, "method", text)
            response.headers["Allow"] = ", ".join(allowed)
            return response
        if path == "/healthz":
            return connection.respond(*self.health())
        if path == "/metrics":
            return connection.respond(HTTPStatus.OK, self.figures().decode())
        if path in self.pages:
            return self.pages[path]
        if request.path != PATH:
            return self._refuse(connection, HTTPStatus.NOT_FOUND, "path", f"worlds are at {PATH}")
        status, text = self.health()
        if status != HTTPStatus.OK:
            return self._later(connection, "draining", text.strip())
        address = str(connection.remote_address[0])
        if self.open >= self.door.connections:
            return self._later(
                connection, "connections", f"{self.open} connections are open, which is all there may be"
            )
        if not is_loopback(address) and self._open[address] >= max(1, SHARE * self.door.connections):
            return self._later(connection, "address", f"{self._open[address]} connections from there are open")
        if not _budget(self._asks, address, self.door.handshakes_per_s).take(monotonic()):
            return self._later(connection, "handshakes", "too many connections at once from there")
        return None

    @property
    def open(self) -> int:
        """How many connections became WebSockets and have not ended."""
        return self._open.total()

    @contextmanager
    def inside(self, address: str) -> Iterator[None]:
        """Count a connection from there for as long as the context lasts."""
        self._open[address] += 1
        try:
            yield
        finally:
            self._open[address] -= 1
            self._open += Counter()  # drops those that are at 0

    def reach(self, connection: object, address: str, drop: Callable[[], None]) -> None:
        """Count one more connection that has said nothing yet; each is to `leave`.

        If there are too many, the one that has been silent for longest is dropped; one of an address that comes too
        often, or of another machine that has its share already, is dropped itself.
        """
        self.reached += 1
        most = SILENT * self.door.connections
        theirs = sum(where == address for _, where in self._silent)
        is_often = not is_loopback(address) and not _budget(
            self._arrivals, address, 2 * self.door.handshakes_per_s
        ).take(monotonic())
        if is_often or (not is_loopback(address) and theirs >= max(1, SHARE * most)):
            self.refused("connections")
            return drop()
        self._silent[connection, address] = drop
        if self.reached > most and self._silent:
            self.refused("connections")
            self._silent.pop(next(iter(self._silent)))()

    def speak(self, connection: object, address: str) -> None:
        """That connection became a WebSocket."""
        self._silent.pop((connection, address), None)

    def leave(self, connection: object, address: str) -> None:
        """One of those that have reached the server is gone."""
        self.reached -= 1
        self.speak(connection, address)

    def _is_called(self, host: str) -> bool:
        """Whether that is a name of this server; where it listens at all addresses, each of them is."""
        if host in map(str.lower, self.door.hosts) or host in (f"{name}:{self.port}" for name in self._names()):
            return True
        name, _, port = host.rpartition(":")
        return self.door.host in EVERYWHERE and port == str(self.port) and _is_address(name.strip("[]"))

    def _is_ours(self, origin: str, host: str) -> bool:
        """Whether pages of that origin may connect: those of this server are, at whichever of its addresses."""
        known = {*map(str.lower, self.door.origins), *(f"http://{name}:{self.port}" for name in self._names())}
        return origin in known or (self.door.host in EVERYWHERE and origin == f"http://{host}")

    def _names(self) -> set[str]:
        host = self.door.host.lower()
        own = f"[{host}]" if ":" in host else host
        is_here = is_loopback(host) or host in EVERYWHERE
        return {own, "localhost", "127.0.0.1", "[::1]"} if is_here else {own}

    def _later(self, connection: ServerConnection, why: str, text: str) -> Response:
        response = self._refuse(connection, HTTPStatus.SERVICE_UNAVAILABLE, why, text)
        response.headers["Retry-After"] = "2"
        return response

    def _refuse(self, connection: ServerConnection, status: HTTPStatus, why: str, text: str) -> Response:
        self.refused(why)
        return connection.respond(status, f"{text}\n")
