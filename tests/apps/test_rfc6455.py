"""The server keeps to RFC 6455 against clients that do not, byte by byte, and goes on serving those that do."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.apps.serving import errors_logged, settled
from worldsim.session.machine import Limits
from worldsim.testing.fakes import tiny_world
from worldsim_apps.gate import Door
from worldsim_apps.server import Server, Settings

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
KEY = base64.b64encode(bytes(range(16))).decode()
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
MOST = 65_536


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Where a server listens that serves all tests of this module, and comes out of them without an error."""
    settings = Settings(
        door=Door(port=0, connections=1_000, handshakes_per_s=1e6),
        folder=tmp_path_factory.mktemp("worlds"),
        limits=Limits(hello_s=20.0, messages_per_s=1e6, burst=10**6),
    )
    server, ready, stop = Server(tiny_world(), settings), threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with server.listening():
            ready.set()
            await stop.wait()
            await settled(lambda: server._gate.open == 0)

    with errors_logged() as records:
        thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
        thread.start()
        assert ready.wait(20)
        yield server.port
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
    assert not records, [record.getMessage() for record in records]
    assert server.hall.rooms == {}


def request(port: int, *, line: str = "GET /v1/world HTTP/1.1", **changed: str | None) -> bytes:
    """An opening handshake; a header given as None is left out."""
    headers: dict[str, str | None] = {
        "Host": f"127.0.0.1:{port}",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Protocol": "worldsim.v1",
    }
    headers |= {name.replace("_", "-"): value for name, value in changed.items()}
    lines = [line, *(f"{name}: {value}" for name, value in headers.items() if value is not None)]
    return "".join(f"{one}\r\n" for one in (*lines, "")).encode("latin-1")


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = b"\x12\x34\x56\x78",
    form: str = "",
    length: int | None = None,
) -> bytes:
    """A frame as a client sends it, with any of it wrong.

    Args:
        opcode, payload, fin, rsv: see the RFC.
        mask: None sends it unmasked.
        form: "H" or "Q" writes the length in more bytes than it needs.
        length: what it is said to be.
    """
    said = len(payload) if length is None else length
    form = form or ("" if said < 126 else "H" if said < 65_536 else "Q")
    short = {"": said, "H": 126, "Q": 127}[form]
    head = bytes([fin << 7 | rsv << 4 | opcode, (mask is not None) << 7 | short])
    head += struct.pack(f"!{form}", said) if form else b""
    if mask is None:
        return head + payload
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def ping(t: int) -> bytes:
    """A message that the server answers."""
    return json.dumps({"type": "ping", "t": t}).encode()


class Raw:
    """A connection of which every byte is written by hand."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def status(self) -> int:
        """The status of the answer to a handshake, 0 if the connection ends without one."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = self._receive(1)
            if not byte:
                return 0
            head += byte
        lines = head.decode("latin-1").splitlines()
        self.headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        return int(lines[0].split()[1])

    def open(self, port: int) -> Raw:
        self.send(request(port))
        assert self.status() == 101
        return self

    def frame(self) -> tuple[int, bytes] | None:
        """The opcode and the payload of the next frame; None where the connection ends."""
        head = self._receive(2)
        if len(head) < 2:
            return None
        assert head[0] & 0x80, "a server never sends half a message"
        assert head[0] & 0x70 == 0
        assert head[1] < 0x80, "a server never masks"
        length = head[1]
        if length > 125:
            length = int.from_bytes(self._receive(2 if length == 126 else 8))
        return head[0] & 0x0F, self._receive(length)

    def pong(self) -> float:
        """The number that the next message answers."""
        got = self.frame()
        assert got is not None
        assert got[0] == TEXT
        told = json.loads(got[1])
        assert told["type"] == "pong", told
        return float(told["t"])

    def end(self) -> int:
        """The code of the close frame that comes next, 0 if it has none, -1 if there is no such frame."""
        got = self.frame()
        if got is None:
            return -1
        assert got[0] == CLOSE, got
        assert self.frame() is None, "nothing follows a close frame"
        return int.from_bytes(got[1][:2])

    def reset(self) -> None:
        """End the connection as a cable does that is cut."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def _receive(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                more = self._socket.recv(count - len(data))
            except ConnectionResetError:
                return data
            if not more:
                return data
            data += more
        return data


@pytest.fixture
def raw(port: int) -> Iterator[Raw]:
    """An open connection; afterwards the server still serves another."""
    with Raw(port) as one:
        yield one.open(port)
    is_served(port)


def is_served(port: int) -> None:
    """Check that who keeps to the rules is served."""
    with Raw(port) as one:
        one.open(port)
        one.send(frame(TEXT, ping(7)))
        assert one.pong() == 7
        one.send(frame(CLOSE, struct.pack("!H", 1000)))
        assert one.end() == 1000


def test_a_handshake_is_accepted_as_the_rfc_says(port):
    with Raw(port) as one:
        one.send(request(port))
        assert one.status() == 101
        digest = hashlib.sha1(f"{KEY}{GUID}".encode()).digest()
        assert one.headers["sec-websocket-accept"] == base64.b64encode(digest).decode().lower()
        assert one.headers["sec-websocket-protocol"] == "worldsim.v1"
        assert (one.headers["upgrade"], one.headers["connection"]) == ("websocket", "upgrade")
        assert "sec-websocket-extensions" not in one.headers
        assert "server" not in one.headers


@pytest.mark.parametrize(
    "changed",
    [
        {"Upgrade": "WebSocket"},
        {"Connection": "keep-alive, upgrade"},
        {"Sec_WebSocket_Protocol": "chat, worldsim.v1"},
        {"Sec_WebSocket_Extensions": "permessage-deflate; client_max_window_bits"},
        {"User_Agent": "caf\xe9"},
        {"Content_Length": "0"},
    ],
)
def test_what_the_rfc_allows_is_accepted(port, changed):
    with Raw(port) as one:
        one.send(request(port, **changed))
        assert one.status() == 101
        assert "sec-websocket-extensions" not in one.headers
        one.send(frame(TEXT, ping(1)))
        assert one.pong() == 1


@pytest.mark.parametrize(
    ("status", "changed"),
    [
        (426, {"Upgrade": None}),
        (426, {"Upgrade": "h2c"}),
        (426, {"Upgrade": "websocket, h2c"}),
        (426, {"Connection": None}),
        (426, {"Connection": "keep-alive"}),
        (400, {"Connection": ",,"}),
        (400, {"Sec_WebSocket_Key": None}),
        (400, {"Sec_WebSocket_Key": "short"}),
        (400, {"Sec_WebSocket_Key": "!" * 24}),
        (400, {"Sec_WebSocket_Key": base64.b64encode(bytes(17)).decode()}),
        (400, {"Sec_WebSocket_Version": None}),
        (400, {"Sec_WebSocket_Version": "8"}),
        (400, {"Sec_WebSocket_Version": "13, 8"}),
        (400, {"Sec_WebSocket_Protocol": None}),
        (400, {"Sec_WebSocket_Protocol": "worldsim.v2"}),
        (400, {"Sec_WebSocket_Protocol": ""}),
        (405, {"line": "POST /v1/world HTTP/1.1"}),
        (405, {"line": "OPTIONS /v1/world HTTP/1.1"}),
        (505, {"line": "GET /v1/world HTTP/1.0"}),
        (404, {"line": "GET /v1 HTTP/1.1"}),
        (200, {"line": "GET / HTTP/1.1"}),
        (404, {"line": "GET /v1/world/ HTTP/1.1"}),
        (404, {"line": "GET /v1/../v1/world HTTP/1.1"}),
        (421, {"Host": None}),
        (421, {"Host": "example.org"}),
        (421, {"Host": "127.0.0.1"}),
        (403, {"Origin": "https://example.org"}),
        (0, {"line": "GET /v1/world HTTP/2.0"}),
        (0, {"line": "GET /v1/world"}),
        (0, {"line": "no request"}),
        (0, {"line": "GET /v1/w\xf6rld HTTP/1.1"}),
        (414, {"line": f"GET /{'a' * 10_000} HTTP/1.1"}),
        (431, {"Cookie": "a" * 10_000}),
        (0, {"Cookie": "a\x01b"}),
        (0, {"Content_Length": "5"}),
        (0, {"Transfer_Encoding": "chunked"}),
        (431, {f"X{number}": "a" for number in range(200)}),
        (0, {"Cookie": "a\r\n folded"}),
    ],
)
def test_a_handshake_that_is_wrong_is_refused(port, status, changed):
    with Raw(port) as one:
        one.send(request(port, **changed))
        assert one.status() == status
    is_served(port)


@pytest.mark.parametrize("name", ["Host", "Origin", "Sec-WebSocket-Key", "Sec-WebSocket-Version"])
def test_a_header_that_comes_twice_is_refused(port, name):
    own = {"Host": f"127.0.0.1:{port}", "Origin": f"http://127.0.0.1:{port}", "Sec-WebSocket-Key": KEY}
    line = f"{name}: {own.get(name, '13')}\r\n"
    lines = request(port, Origin=own["Origin"]).split(b"\r\n", 1)
    with Raw(port) as one:
        one.send(lines[0] + b"\r\n" + line.encode() + lines[1])
        assert one.status() == {"Host": 421, "Origin": 403}.get(name, 400)
    is_served(port)


def test_a_handshake_is_read_however_it_is_cut(port):
    with Raw(port) as one:
        for byte in request(port):
            one.send(bytes([byte]))
        assert one.status() == 101
    with Raw(port) as one:
        one.send(request(port) + frame(TEXT, ping(3)) + frame(TEXT, ping(4)))
        assert one.status() == 101
        assert [one.pong(), one.pong()] == [3, 4]


@pytest.mark.parametrize("count", [0, 1, 20, 120])
def test_one_who_leaves_in_the_middle_of_the_handshake_is_forgotten(port, count):
    for leave in (Raw.reset, Raw.__exit__):
        one = Raw(port)
        one.send(request(port)[:count])
        leave(one)
    is_served(port)


WHOLE = frame(TEXT, ping(1))
FAULTS = {
    "an unmasked frame": (1002, frame(TEXT, ping(1), mask=None)),
    "an unmasked ping": (1002, frame(PING, b"a", mask=None)),
    "an unmasked close": (1002, frame(CLOSE, struct.pack("!H", 1000), mask=None)),
    "reserved bit 1": (1002, frame(TEXT, ping(1), rsv=4)),
    "reserved bit 2": (1002, frame(TEXT, ping(1), rsv=2)),
    "reserved bit 3": (1002, frame(TEXT, ping(1), rsv=1)),
    "all reserved bits of a ping": (1002, frame(PING, b"", rsv=7)),
    **{f"reserved opcode {code:x}": (1002, frame(code, b"a")) for code in (*range(0x3, 0x8), *range(0xB, 0x10))},
    "a ping in fragments": (1002, frame(PING, b"a", fin=False) + frame(CONTINUATION, b"b")),
    "a pong in fragments": (1002, frame(PONG, b"a", fin=False)),
    "a close in fragments": (1002, frame(CLOSE, struct.pack("!H", 1000), fin=False)),
    "a ping of 126 bytes": (1002, frame(PING, b"a" * 126)),
    "a pong of 126 bytes": (1002, frame(PONG, b"a" * 126)),
    "a close of 126 bytes": (1002, frame(CLOSE, struct.pack("!H", 1000) + b"a" * 124)),
    "a ping of 65,536 bytes": (1002, frame(PING, b"a" * MOST)),
    "a continuation of nothing": (1002, frame(CONTINUATION, ping(1))),
    "a continuation of a whole message": (1002, frame(CONTINUATION, ping(2), fin=False)),
    "a new text inside a message": (1002, frame(TEXT, b"{", fin=False) + WHOLE),
    "a binary inside a text": (1002, frame(TEXT, b"{", fin=False) + frame(BINARY, b"a")),
    "a close inside a message": (1002, frame(TEXT, b"{", fin=False) + frame(CLOSE, struct.pack("!H", 1000))),
    "text that is no UTF-8": (1007, frame(TEXT, b"\xff\xfe")),
    "text with half a code point": (1007, frame(TEXT, b"\xe2\x82")),
    "text with a surrogate": (1007, frame(TEXT, b"\xed\xa0\x80")),
    "text with an overlong slash": (1007, frame(TEXT, b"\xc0\xaf")),
    "text beyond the last code point": (1007, frame(TEXT, b"\xf4\x90\x80\x80")),
    "fragments that are no UTF-8": (1007, frame(TEXT, b'"\xe2', fin=False) + frame(CONTINUATION, b'("')),
    "a binary message": (1003, frame(BINARY, b"{}")),
    "an empty binary message": (1003, frame(BINARY)),
    "an empty text": (4400, frame(TEXT)),
    "an empty text in fragments": (4400, frame(TEXT, fin=False) + frame(CONTINUATION)),
    "one byte too much": (1009, frame(TEXT, b" " * (MOST + 1))),
    "a length of 65,537 alone": (1009, frame(TEXT, b"", length=MOST + 1, form="Q")),
    "a length with the top bit": (1009, frame(TEXT, b"", length=2**63 + 5, form="Q")),
    "the longest length": (1009, frame(TEXT, b"", length=2**64 - 1, form="Q")),
    "a binary of 4 GB": (1009, frame(BINARY, b"", length=2**32, form="Q")),
    "one byte too much in fragments": (1009, frame(TEXT, b" " * MOST, fin=False) + frame(CONTINUATION, b" ")),
    "many small fragments": (
        1009,
        frame(TEXT, b" " * 128, fin=False) + frame(CONTINUATION, b" " * 128, fin=False) * 512,
    ),
    "a close code of one byte": (1002, frame(CLOSE, b"\x03")),
    "a close reason that is no UTF-8": (1007, frame(CLOSE, struct.pack("!H", 1000) + b"\xff")),
    "a close reason with half a code point": (1007, frame(CLOSE, struct.pack("!H", 1000) + b"\xe2\x82")),
    **{
        f"close code {code}": (1002, frame(CLOSE, struct.pack("!H", code)))
        for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535)
    },
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_ends_the_connection_with_the_code_that_says_why(raw, fault):
    code, sent = FAULTS[fault]
    raw.send(sent)
    got = raw.frame()
    while got is not None and got[0] == TEXT:
        assert json.loads(got[1])["type"] == "error"  # of the protocol that is spoken over it
        got = raw.frame()
    assert got is not None
    assert got[0] == CLOSE
    assert int.from_bytes(got[1][:2]) == code
    if code in (1002, 1007, 1009):
        assert raw.frame() is None, "who breaks the rules is not waited for"


@pytest.mark.parametrize(
    "code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1014, 3000, 3999, 4000, 4999]
)
def test_a_close_is_answered_with_the_same_code(raw, code):
    raw.send(frame(CLOSE, struct.pack("!H", code) + "b\u00fcrgerlich".encode()))
    assert raw.end() == code


def test_a_close_without_a_code_is_answered_without_one(raw):
    raw.send(frame(CLOSE))
    assert raw.end() == 0


def test_what_follows_a_close_is_not_heard(raw):
    raw.send(frame(CLOSE, struct.pack("!H", 1000)) + WHOLE + frame(PING, b"a") + b"\xff" * 50)
    assert raw.end() == 1000


def test_what_follows_a_message_that_ends_the_connection_is_not_heard(raw):
    raw.send(frame(TEXT, b"no json") + frame(TEXT, ping(5)) + frame(TEXT, b"no json") + frame(TEXT, ping(6)))
    got = raw.frame()
    assert got is not None
    assert json.loads(got[1])["code"] == "not_json"
    got = raw.frame()
    assert got == (CLOSE, struct.pack("!H", 4400) + b"not_json")


@pytest.mark.parametrize(
    "sent",
    [
        frame(TEXT, ping(5)),
        frame(TEXT, ping(5), mask=bytes(4)),
        frame(TEXT, ping(5), form="H"),  # longer than it needs to be, which does no harm
        frame(TEXT, ping(5), form="Q"),
        frame(TEXT, ping(5) + b" " * 200),
        frame(TEXT, ping(5) + b" " * (MOST - len(ping(5)))),
        frame(TEXT, ping(5)[:3], fin=False) + frame(CONTINUATION, ping(5)[3:]),
        frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 9 + frame(CONTINUATION, ping(5)),
        frame(TEXT, ping(5), fin=False) + frame(CONTINUATION, b" " * 100) + frame(PONG, b"nobody asked"),
        frame(TEXT, ping(5)[:3], fin=False) + frame(PONG, b"inside") + frame(CONTINUATION, ping(5)[3:]),
        frame(TEXT, b'{"type":"ping","t":5,"a":"\xe2', fin=False) + frame(CONTINUATION, b'\x82\xac"}'),
        b"".join(frame(TEXT if not at else CONTINUATION, ping(5)[at : at + 1], fin=False) for at in range(len(ping(5))))
        + frame(CONTINUATION),
    ],
)
def test_a_message_is_read_however_it_is_written(raw, sent):
    raw.send(sent)
    assert raw.pong() == 5
    for byte in sent[:4_000]:
        raw.send(bytes([byte]))
    raw.send(sent[4_000:])
    assert raw.pong() == 5


@pytest.mark.parametrize("payload", [b"", b"a", b"\x00\xff" * 62, b"a" * 125])
def test_a_ping_is_answered_with_the_same_payload(raw, payload):
    raw.send(frame(PING, payload))
    assert raw.frame() == (PONG, payload)


def test_pings_inside_a_message_are_answered_at_once(raw):
    raw.send(frame(TEXT, ping(5)[:4], fin=False) + frame(PING, b"one") + frame(PING, b"two"))
    assert [raw.frame(), raw.frame()] == [(PONG, b"one"), (PONG, b"two")]
    raw.send(frame(CONTINUATION, ping(5)[4:]))
    assert raw.pong() == 5


@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_one_who_leaves_in_the_middle_of_a_frame_is_forgotten(port, count):
    for leave in (Raw.reset, Raw.__exit__):
        one = Raw(port).open(port)
        one.send(WHOLE[:count])
        leave(one)
    is_served(port)


def test_one_who_leaves_in_the_middle_of_a_message_is_forgotten(port):
    for leave in (Raw.reset, Raw.__exit__):
        one = Raw(port).open(port)
        one.send(frame(TEXT, b"{", fin=False))
        leave(one)
    is_served(port)


def test_one_who_leaves_in_the_middle_of_a_session_is_forgotten(port):
    for leave in (Raw.reset, Raw.__exit__):
        one = Raw(port).open(port)
        for message in ({"type": "hello"}, {"type": "start"}):
            one.send(frame(TEXT, json.dumps(message).encode()))
        told: list[Any] = [one.frame() for _ in range(3)]
        assert [opcode for opcode, _ in told] == [TEXT, TEXT, BINARY]
        leave(one)
    is_served(port)
