"""Who is let in: what is refused before a connection becomes a WebSocket."""

from __future__ import annotations

import hmac
import ipaddress
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from time import monotonic

from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from worldsim.errors import ConfigError, ProtocolError

PATH = "/v1/world"
MOST_ADDRESSES = 4_096
SHARE = 1 / 4
"""What one other machine may have of what there is for all. This one, and so a proxy that runs on it, may have all."""
SILENT = 2
"""For every connection that there may be, so many may be open: those that ask for health, or say nothing yet, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Where a server listens, and to whom.

    host, port: address; port 0 is any that is free.
    token: what a client must say first; needed wherever others than this machine can connect.
    origins: pages of other servers that may connect, such as "https://example.org", beside pages of this one.
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
        if not 0 <= self.port < 2**16 or self.connections < 1 or self.handshakes_per_s <= 0:
            raise ConfigError(f"a port is 0 to 65535 and limits are at least 1, got {self.port}, {self.connections}")

    def check(self, token: str) -> None:
        """Raise ProtocolError unless that is the token, or none is asked for."""
        given, wanted = (text.encode(errors="surrogatepass") for text in (token, self.token))
        if self.token and not hmac.compare_digest(given, wanted):
            raise ProtocolError("bad_token", "hello needs the token that the server was started with", close=3000)


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
    port: where the server listens, once it does.
    reached: how many connections there are, those that are none of WebSocket too.
    """

    door: Door
    health: Callable[[], tuple[HTTPStatus, str]]
    figures: Callable[[], bytes]
    refused: Callable[[str], None]
    port: int = 0
    reached: int = 0
    _open: Counter[str] = field(default_factory=Counter)
    _rates: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    def __call__(self, connection: ServerConnection, request: Request) -> Response | None:
        """The answer to a request, or None to let it become a WebSocket."""
        hosts, origins = request.headers.get_all("Host"), request.headers.get_all("Origin")
        path = request.path.partition("?")[0]
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts():
            return self._refuse(connection, HTTPStatus.MISDIRECTED_REQUEST, "host", "this server is not called that")
        if len(origins) > 1 or (origins and origins[0] not in self._origins()):
            return self._refuse(connection, HTTPStatus.FORBIDDEN, "origin", "pages of that origin may not connect")
        if path == "/healthz":
            return connection.respond(*self.health())
        if path == "/metrics":
            return connection.respond(HTTPStatus.OK, self.figures().decode())
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
        if not self._in_time(address, monotonic()):
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

    def reach(self) -> bool:
        """Count one more connection that has said nothing yet; whether it may stay. Each is to `leave`."""
        self.reached += 1
        return self.reached <= SILENT * self.door.connections

    def leave(self) -> None:
        """One of those that have reached the server is gone."""
        self.reached -= 1

    def _hosts(self) -> set[str]:
        return {*map(str.lower, self.door.hosts), *(f"{name}:{self.port}" for name in self._names())}

    def _origins(self) -> set[str]:
        return {*map(str.lower, self.door.origins), *(f"http://{name}:{self.port}" for name in self._names())}

    def _names(self) -> set[str]:
        host = self.door.host.lower()
        own = f"[{host}]" if ":" in host else host
        return {own, "localhost", "127.0.0.1", "[::1]"} if is_loopback(host) else {own}

    def _in_time(self, address: str, now: float) -> bool:
        """Take one from what that address may do now, if there is any left."""
        most = max(1.0, 5 * self.door.handshakes_per_s)
        left, then = self._rates.pop(address, (most, now))
        left = min(most, left + (now - then) * self.door.handshakes_per_s)
        is_in_time = left >= 1
        self._rates[address] = (left - is_in_time, now)
        while len(self._rates) > MOST_ADDRESSES:
            self._rates.popitem(last=False)
        return is_in_time

    def _later(self, connection: ServerConnection, why: str, text: str) -> Response:
        response = self._refuse(connection, HTTPStatus.SERVICE_UNAVAILABLE, why, text)
        response.headers["Retry-After"] = "2"
        return response

    def _refuse(self, connection: ServerConnection, status: HTTPStatus, why: str, text: str) -> Response:
        self.refused(why)
        return connection.respond(status, f"{text}\n")
