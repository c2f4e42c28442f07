"""Who is let in: the programs and pages that may, and nobody who says something near it."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.server import serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from worldsim.errors import ConfigError, ProtocolError
from worldsim_apps import gate as module
from worldsim_apps.gate import MOST_ADDRESSES, PATH, Door, Gate, is_loopback
from worldsim_apps.pages import answer

PORT = 8765
OWN = f"127.0.0.1:{PORT}"
NOT_CALLED = "this server is not called that; whoever runs it can tell it another name with --name\n"


class Connection:
    """What a gate sees of a connection: where it comes from, and how it is answered."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.remote_address = (address, 50_000)
        self.protocol = ServerProtocol()

    def respond(self, status: HTTPStatus, text: str) -> Response:
        return ServerProtocol().reject(status, text)


@dataclass
class Clock:
    now: float = 1_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class House:
    """A gate with everything that it asks or tells."""

    door: Door = field(default_factory=Door)
    health: tuple[HTTPStatus, str] = (HTTPStatus.OK, "ok\n")
    refused: list[str] = field(default_factory=list)
    stay: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        self.gate = Gate(self.door, lambda: self.health, lambda: b"# figures\n", self.refused.append, port=PORT)

    def fill(self, count: int, address: str = "127.0.0.1") -> None:
        """Let so many connections in that stay."""
        for _ in range(count):
            self.stay.enter_context(self.gate.inside(address))

    def ask(
        self, path: str = PATH, *, address: str = "127.0.0.1", method: str = "GET", **headers: list[str] | str
    ) -> Response | None:
        """The answer to a request; its Host is that of the server unless another is given."""
        told = Headers()
        for name, values in {"Host": OWN, **headers}.items():
            for value in [values] if isinstance(values, str) else values:
                told[name] = value
        return self.gate(Connection(address), Request(path, told, method))


@pytest.fixture
def clock(monkeypatch):
    one = Clock()
    monkeypatch.setattr(module, "monotonic", one)
    return one


@pytest.fixture
def house(clock):
    return House()


def refusal(house: House, response: Response | None) -> tuple[int, str, str]:
    """Status, text and counted reason of the one request that was refused."""
    assert response is not None
    assert response.headers["Connection"] == "close"
    (reason,) = house.refused
    return response.status_code, response.body.decode(), reason


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Host": f"localhost:{PORT}"},
        {"Host": f"[::1]:{PORT}"},
        {"Host": f"LocalHost:{PORT}"},
        {"Origin": f"http://127.0.0.1:{PORT}"},
        {"Origin": f"http://localhost:{PORT}"},
        {"Origin": f"http://[::1]:{PORT}"},
        {"Host": f"localhost:{PORT}", "Origin": f"http://127.0.0.1:{PORT}"},
    ],
    ids=str,
)
def test_programs_and_pages_of_this_machine_are_let_in(house, headers):
    assert house.ask(**headers) is None
    assert house.refused == []


BAD_ORIGINS = [
    "null",
    "",
    " ",
    "*",
    "http://evil.example",
    "https://evil.example",
    f"http://evil.example:{PORT}",
    "http://127.0.0.1",
    "http://localhost",
    "http://127.0.0.1:80",
    f"http://127.0.0.1:{PORT + 1}",
    f"http://127.0.0.1:{PORT}0",
    f"http://127.0.0.1:0{PORT}",
    f"http://127.0.0.1:{PORT}.evil.example",
    f"http://127.0.0.1.evil.example:{PORT}",
    f"http://localhost.evil.example:{PORT}",
    f"http://evil.example/http://127.0.0.1:{PORT}",
    f"http://evil.example#http://127.0.0.1:{PORT}",
    f"http://evil.example?http://127.0.0.1:{PORT}",
    f"http://127.0.0.1:{PORT}@evil.example",
    f"http://127.0.0.1:{PORT}#@evil.example",
    f"http://user@127.0.0.1:{PORT}",
    f"http://user:word@127.0.0.1:{PORT}",
    f"https://127.0.0.1:{PORT}",
    f"ws://127.0.0.1:{PORT}",
    f"file://127.0.0.1:{PORT}",
    f"chrome-extension://127.0.0.1:{PORT}",
    f"HTTP://127.0.0.1:{PORT}",
    f"http://LOCALHOST:{PORT}",
    f"http://Localhost:{PORT}",
    f"http://127.0.0.1:{PORT}/",
    f"http://127.0.0.1:{PORT}/v1/world",
    f" http://127.0.0.1:{PORT}",
    f"http://127.0.0.1:{PORT} ",
    f"http://127.0.0.1:{PORT}\t",
    f"http://127.0.0.1:{PORT}%00",
    f"http://127.0.0.1:{PORT}, http://evil.example",
    f"http://evil.example, http://127.0.0.1:{PORT}",
    f"http://localhost.:{PORT}",
    f"http://127.0.0.1.:{PORT}",
    f"http://127.0.0.2:{PORT}",
    f"http://127.1:{PORT}",
    f"http://2130706433:{PORT}",
    f"http://0.0.0.0:{PORT}",
    f"http://::1:{PORT}",
    f"http://[0:0:0:0:0:0:0:1]:{PORT}",
    f"http://[::ffff:127.0.0.1]:{PORT}",
    f"127.0.0.1:{PORT}",
    f"//127.0.0.1:{PORT}",
    f"http:127.0.0.1:{PORT}",
    f"http:\\\\127.0.0.1:{PORT}",
    f"http://loc\u00e0lhost:{PORT}",
    f"http://xn--lclhost-2of:{PORT}",
]


@pytest.mark.parametrize("path", [PATH, "/healthz", "/metrics", "/"])
@pytest.mark.parametrize("origin", BAD_ORIGINS)
def test_pages_of_others_are_refused_whatever_they_ask_for(house, origin, path):
    answer = refusal(house, house.ask(path, Origin=origin))
    assert answer == (403, "pages of that origin may not connect\n", "origin")


@pytest.mark.parametrize(
    "origins",
    [
        [f"http://127.0.0.1:{PORT}", f"http://127.0.0.1:{PORT}"],
        [f"http://127.0.0.1:{PORT}", "http://evil.example"],
        ["http://evil.example", f"http://127.0.0.1:{PORT}"],
        [f"http://127.0.0.1:{PORT}", ""],
    ],
)
def test_whoever_names_two_origins_is_refused(house, origins):
    assert refusal(house, house.ask(Origin=origins))[::2] == (403, "origin")


BAD_HOSTS = [
    "",
    " ",
    "*",
    f":{PORT}",
    "evil.example",
    f"evil.example:{PORT}",
    f"127.0.0.1.evil.example:{PORT}",
    f"localhost.evil.example:{PORT}",
    f"127.0.0.1.nip.example:{PORT}",
    f"evil.example:{PORT}@127.0.0.1:{PORT}",
    f"user@127.0.0.1:{PORT}",
    "127.0.0.1",
    "localhost",
    "[::1]",
    "127.0.0.1:80",
    "127.0.0.1:443",
    "localhost:0",
    "localhost:",
    f"127.0.0.1:{PORT + 1}",
    f"127.0.0.1:{PORT}0",
    f"127.0.0.1:0{PORT}",
    f"127.0.0.1:+{PORT}",
    f"127.0.0.1:{PORT}:{PORT}",
    f"127.0.0.1:{PORT}/",
    f"127.0.0.1:{PORT}/v1/world",
    f"http://127.0.0.1:{PORT}",
    f"localhost.:{PORT}",
    f"127.0.0.1.:{PORT}",
    f"127.0.0.2:{PORT}",
    f"127.1:{PORT}",
    f"127.0.1:{PORT}",
    f"2130706433:{PORT}",
    f"0x7f000001:{PORT}",
    f"0177.0.0.1:{PORT}",
    f"0.0.0.0:{PORT}",
    f"::1:{PORT}",
    f"[::]:{PORT}",
    f"[0:0:0:0:0:0:0:1]:{PORT}",
    f"[::ffff:127.0.0.1]:{PORT}",
    f"[::1%25lo]:{PORT}",
    f" 127.0.0.1:{PORT}",
    f"127.0.0.1:{PORT} ",
    f"127.0.0.1:{PORT}\t",
    f"127.0.0.1:{PORT}%00",
    f"127.0.0.1:{PORT}, evil.example",
    f"127.0.0.1:{PORT},127.0.0.1:{PORT}",
    f"loc\u00e0lhost:{PORT}",
    f"xn--lclhost-2of:{PORT}",
]


@pytest.mark.parametrize("path", [PATH, "/healthz", "/metrics", "/"])
@pytest.mark.parametrize("host", BAD_HOSTS)
def test_a_name_that_was_made_to_point_here_is_refused_whatever_is_asked_for(house, host, path):
    answer = refusal(house, house.ask(path, Host=host))
    assert answer == (421, NOT_CALLED, "host")


@pytest.mark.parametrize("hosts", [[], [OWN, OWN], [OWN, "evil.example"], ["evil.example", OWN], [OWN, ""]])
def test_whoever_names_no_host_or_two_is_refused(house, hosts):
    assert refusal(house, house.ask(Host=hosts))[::2] == (421, "host")


def test_a_good_origin_does_not_make_up_for_a_bad_host(house):
    answer = refusal(house, house.ask(Host=f"evil.example:{PORT}", Origin=f"http://127.0.0.1:{PORT}"))
    assert answer[::2] == (421, "host")


BAD_PATHS = [
    "",
    " ",
    "*",
    "/",
    "//",
    "/.",
    "/..",
    "/index.html",
    "/favicon.ico",
    "/v1",
    "/v1/",
    "/v1/world/",
    "/v1/worlds",
    "/v1/worl",
    "/v1/World",
    "/V1/world",
    "/V1/WORLD",
    "/v2/world",
    "/v1//world",
    "//v1/world",
    "///v1/world",
    "v1/world",
    "/v1/world/..",
    "/v1/world/.",
    "/v1/./world",
    "/./v1/world",
    "/v1/../v1/world",
    "/../v1/world",
    "/healthz/../v1/world",
    "/v1/world/../../metrics",
    "/v1/world?",
    "/v1/world?seed=7",
    "/v1/world?token=word",
    "/v1/world?/../../etc/passwd",
    "/v1/world#",
    "/v1/world#top",
    "/v1/world;a=b",
    "/v1/world%20",
    "/v1/world%00",
    "/v1/world\x00",
    "/v1/world\x00.html",
    "/v1/world ",
    " /v1/world",
    "/v1/world\t",
    "/v1/world\r\nX: y",
    "/v1/world\n",
    "/v1%2fworld",
    "/v1%2Fworld",
    "/v1/%77orld",
    "/%76%31/world",
    "/%2e%2e/v1/world",
    "/%252e%252e/v1/world",
    "/v1\\world",
    "\\v1\\world",
    "\\\\server\\share",
    "//server/share",
    "/\\\\server\\share",
    "/../../../../etc/passwd",
    "/..%2f..%2f..%2fetc/passwd",
    "/..%5c..%5cwindows\\win.ini",
    "/%c0%ae%c0%ae/etc/passwd",
    "/etc/passwd",
    "/proc/self/environ",
    "file:///etc/passwd",
    "C:\\windows\\win.ini",
    "/C:/windows/win.ini",
    f"http://127.0.0.1:{PORT}/v1/world",
    "http://evil.example/v1/world",
    "ws://127.0.0.1/v1/world",
    f"127.0.0.1:{PORT}",
    "/healthz/",
    "/Healthz",
    "//healthz",
    "/healthz;",
    "/healthz%00",
    "/metrics/",
    "/metrics.txt",
    "//metrics",
    "/metrics/../v1/world",
    "/v1/metrics",
    "/" + "a" * 8_000,
    "/v1/world" + "/.." * 1_000,
]


@pytest.mark.parametrize("path", BAD_PATHS, ids=lambda path: repr(path[:40]))
def test_every_other_path_is_refused(house, path):
    assert refusal(house, house.ask(path)) == (404, "worlds are at /v1/world\n", "path")


@given(st.text(st.characters(max_codepoint=127), max_size=30), st.integers(0, 9))
def test_no_path_near_that_of_worlds_is_it(more, at):
    path = PATH[:at] + more + PATH[at:]
    house = House()
    assert (house.ask(path) is None) is (path == PATH)


def test_the_corpora_are_as_long_as_they_should_be():
    assert min(len(set(BAD_ORIGINS)), len(set(BAD_HOSTS))) >= 40
    assert len(set(BAD_PATHS)) >= 70


@pytest.mark.parametrize("path", ["/healthz", "/healthz?", "/healthz?verbose=1"])
def test_health_is_told(house, path):
    response = house.ask(path)
    assert (response.status_code, response.body) == (200, b"ok\n")
    house.health = HTTPStatus.SERVICE_UNAVAILABLE, "draining\n"
    response = house.ask(path)
    assert (response.status_code, response.body) == (503, b"draining\n")
    assert house.refused == []


def test_the_page_is_handed_out_to_whoever_may_see_it(house):
    page = answer(b"<p>", "text/html")
    house.gate.pages = {"/": page}
    assert house.ask("/") is page
    assert house.ask("/?codec=h264") is page
    assert house.ask("/index.html").status_code == 404
    assert house.ask("/", Host="evil.example").status_code == 421
    assert house.ask("/", Origin="http://evil.example").status_code == 403
    house.health = HTTPStatus.SERVICE_UNAVAILABLE, "draining\n"
    assert house.ask("/") is page


@pytest.mark.parametrize("path", ["/", "/healthz", "/metrics", "/nowhere", PATH])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "TRACE", "OPTIONS", "get", ""])
def test_nothing_but_reading_is_allowed(house, method, path):
    house.gate.pages = {"/": answer(b"the page", "text/html")}
    response = house.ask(path, method=method)
    status, text, reason = refusal(house, response)
    allowed = {PATH: "GET"}.get(path, "GET, HEAD")
    assert (status, response.headers["Allow"], reason) == (405, allowed, "method")
    assert text == f"this is read with {allowed.replace(', ', ' or ')}\n"


@pytest.mark.parametrize(("path", "status"), [("/", 200), ("/healthz", 200), ("/metrics", 200), ("/nowhere", 404)])
def test_whoever_asks_for_the_head_is_told_the_length_of_a_body_and_given_none(house, path, status):
    house.gate.pages = {"/": answer(b"the page", "text/html")}
    whole, head = house.ask(path), house.ask(path, method="HEAD")
    assert (head.status_code, head.body) == (status, b"")
    assert head.headers["Content-Length"] == str(len(whole.body)) != "0"
    assert house.ask(path).body == whole.body


@pytest.mark.parametrize("path", ["/healthz", PATH])
def test_a_second_request_behind_the_first_ends_the_connection_and_nothing_is_logged(house, caplog, path):
    async def asked() -> None:
        async with serve(lambda _: asyncio.sleep(0), "127.0.0.1", 0, process_request=house.gate) as server:
            house.gate.port = next(iter(server.sockets)).getsockname()[1]
            reader, writer = await asyncio.open_connection("127.0.0.1", house.gate.port)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{house.gate.port}\r\n\r\n".encode() * 2)
            with suppress(ConnectionResetError):
                assert await reader.read() == b""
            writer.close()

    asyncio.run(asked())
    assert house.refused == ["request"]
    assert [record.message for record in caplog.records if record.levelname != "INFO"] == []


def test_figures_are_told_whether_or_not_the_server_is_full_or_stopping(house):
    house.health = HTTPStatus.SERVICE_UNAVAILABLE, "draining\n"
    house.fill(64)
    response = house.ask("/metrics")
    assert (response.status_code, response.body) == (200, b"# figures\n")
    assert response.headers["Content-Type"].startswith("text/plain")
    assert house.refused == []


def test_a_server_that_is_about_to_stop_lets_nobody_in(house):
    house.health = HTTPStatus.SERVICE_UNAVAILABLE, "draining\n"
    response = house.ask()
    assert refusal(house, response) == (503, "draining\n", "draining")
    assert response.headers["Retry-After"] == "2"


def test_so_many_connections_may_be_open_and_no_more(clock):
    house = House(Door(connections=3))
    house.fill(2)
    assert house.ask() is None
    with house.gate.inside("127.0.0.1"):
        response = house.ask()
        answer = refusal(house, response)
        assert answer == (503, "3 connections are open, which is all there may be\n", "connections")
        assert response.headers["Retry-After"] == "2"
    assert house.ask() is None


@pytest.mark.parametrize(("connections", "most"), [(64, 16), (8, 2), (3, 1), (1, 1)])
def test_another_machine_has_a_quarter_of_the_connections_and_this_one_all(clock, connections, most):
    house = House(Door(connections=connections, token="t", host="0.0.0.0", hosts=(OWN,)))
    house.fill(most - 1, address="192.0.2.1")
    assert house.ask(address="192.0.2.1") is None
    with house.gate.inside("192.0.2.1"):
        answer = refusal(house, house.ask(address="192.0.2.1"))
        if most < connections:
            assert answer == (503, f"{most} connections from there are open\n", "address")
            assert house.ask(address="192.0.2.2") is None
            assert house.ask(address="127.0.0.1") is None
    assert house.ask(address="192.0.2.1") is None


def test_connections_that_say_nothing_are_counted_too(house):
    dropped: list[int] = []
    for at in range(130):
        house.gate.reach(at, "127.0.0.1", lambda at=at: dropped.append(at))
    assert dropped == [0, 1]
    assert house.refused == ["connections"] * 2
    for at in (0, 1, 7):
        house.gate.leave(at, "127.0.0.1")
    house.gate.reach(130, "127.0.0.1", lambda: dropped.append(130))
    assert (dropped, house.gate.reached) == ([0, 1], 128)


def test_the_one_that_has_been_silent_for_longest_makes_room_and_none_that_speaks(clock):
    house, dropped = House(Door(connections=2, handshakes_per_s=1e3)), []
    for at in range(4):
        house.gate.reach(at, "127.0.0.1", lambda at=at: dropped.append(at))
    house.gate.speak(0, "127.0.0.1")
    house.gate.reach(4, "127.0.0.1", lambda: dropped.append(4))
    assert dropped == [1]


def test_silent_connections_of_another_machine_take_a_quarter_and_keep_nobody_else_out(house):
    dropped: list[tuple[str, int]] = []
    for address, count in (("192.0.2.1", 40), ("192.0.2.2", 1), ("127.0.0.1", 1)):
        for at in range(count):
            house.gate.reach(at, address, lambda address=address, at=at: dropped.append((address, at)))
    assert dropped == [("192.0.2.1", at) for at in range(32, 40)]


def test_another_machine_that_comes_too_often_is_dropped_before_it_says_anything_and_this_one_is_not(clock):
    house, dropped = House(Door(handshakes_per_s=1, connections=10_000)), []
    for at in range(12):
        house.gate.reach(at, "192.0.2.1", lambda at=at: dropped.append(at))
        house.gate.reach(at, "127.0.0.1", lambda: dropped.append(-1))
    assert dropped == [10, 11]
    clock.now += 0.5
    house.gate.reach(12, "192.0.2.1", lambda: dropped.append(12))
    assert dropped == [10, 11]


def test_a_server_for_everywhere_is_called_by_each_of_its_addresses_and_by_no_name_it_was_not_told(clock):
    house = House(Door(host="0.0.0.0", token="word", hosts=("play.example:8765",)))
    for host in (f"192.0.2.9:{PORT}", OWN, f"localhost:{PORT}", f"[2001:db8::1]:{PORT}", "play.example:8765"):
        assert house.ask(Host=host) is None
    for host in (f"evil.example:{PORT}", "192.0.2.9", "192.0.2.9:80", f"192.0.2.9.evil.example:{PORT}", ""):
        assert house.ask(Host=host).status_code == 421
    assert house.ask(Host=f"192.0.2.9:{PORT}", Origin=f"http://192.0.2.9:{PORT}") is None
    assert house.ask(Host=f"192.0.2.9:{PORT}", Origin=f"http://192.0.2.8:{PORT}").status_code == 403


@pytest.mark.parametrize(
    "setting",
    [
        {"origins": ("foo",)},
        {"origins": ("https://a.example/path",)},
        {"hosts": ("foo bar",)},
        {"hosts": ("http://a",)},
    ],
    ids=str,
)
def test_names_and_origins_that_can_be_none_are_refused_at_once(setting):
    with pytest.raises(ConfigError, match=r"is like \"(https://)?example.org"):
        Door(**setting)


def test_addresses_that_have_left_are_forgotten(house):
    for at in range(100):
        with house.gate.inside(f"192.0.2.{at}"):
            pass
    assert not house.gate._open


def test_one_address_may_connect_so_often(house, clock):
    """Fifty a second, and five times as many at once."""
    assert [house.ask() for _ in range(250)] == [None] * 250
    response = house.ask()
    assert refusal(house, response) == (503, "too many connections at once from there\n", "handshakes")
    assert response.headers["Retry-After"] == "2"
    assert house.ask(address="10.0.0.7") is None
    clock.now += 0.1
    assert [house.ask() is None for _ in range(6)] == [True] * 5 + [False]
    clock.now += 1e6
    assert sum(house.ask() is None for _ in range(1_000)) == 250


def test_whoever_knocks_too_often_is_let_in_as_often_as_anybody(house, clock):
    for _ in range(250):
        house.ask()
    let_in = 0
    for _ in range(2_048):
        clock.now += 1 / 128
        let_in += house.ask() is None
    assert let_in == pytest.approx(16 * 50, abs=1)


def test_a_rate_below_one_a_second_lets_one_in_at_a_time(clock):
    house = House(Door(handshakes_per_s=0.125))
    assert [house.ask() is None for _ in range(3)] == [True, False, False]
    clock.now += 8
    assert [house.ask() is None for _ in range(2)] == [True, False]


def test_requests_that_are_refused_for_another_reason_take_nothing_from_an_address(house):
    for _ in range(300):
        house.ask("/")
        house.ask(Host="evil.example")
        house.ask(Origin="null")
        house.ask("/healthz")
    assert house.ask() is None


def test_addresses_are_remembered_up_to_a_number(house):
    for number in range(MOST_ADDRESSES + 500):
        assert house.ask(address=f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}") is None
    assert len(house.gate._asks) == MOST_ADDRESSES


def test_of_the_addresses_those_that_came_last_are_remembered(house, clock, monkeypatch):
    monkeypatch.setattr(module, "MOST_ADDRESSES", 2)
    for _ in range(250):
        house.ask(address="10.0.0.1")
    house.ask(address="10.0.0.2")
    assert house.ask(address="10.0.0.1") is not None
    house.ask(address="10.0.0.3")
    assert set(house.gate._asks) == {"10.0.0.1", "10.0.0.3"}
    assert house.ask(address="10.0.0.1") is not None


def test_pages_and_names_that_the_server_was_told_of_are_let_in(clock):
    door = Door(host="10.0.0.1", token="word", hosts=("Play.example",), origins=("https://Play.example",))
    house = House(door)
    assert house.ask(Host="play.example", Origin="https://play.example") is None
    assert house.ask(Host="PLAY.example") is None
    assert house.ask(Host=f"10.0.0.1:{PORT}", Origin=f"http://10.0.0.1:{PORT}") is None
    assert house.refused == []
    for origin in ("http://play.example", "https://play.example:8765", "https://x.play.example", "https://play.exampl"):
        assert house.ask(Host="play.example", Origin=origin).status_code == 403
    for host in ("play.example:8765", "x.play.example", OWN, f"localhost:{PORT}"):
        assert house.ask(Host=host).status_code == 421


def test_pages_of_this_machine_are_strangers_to_a_server_for_others(clock):
    house = House(Door(host="10.0.0.1", token="word"))
    answer = refusal(house, house.ask(Host=f"10.0.0.1:{PORT}", Origin=f"http://localhost:{PORT}"))
    assert answer[::2] == (403, "origin")


@pytest.mark.parametrize(
    ("host", "name"),
    [("::1", "[::1]"), ("fe80::1", "[fe80::1]"), ("Play.example", "play.example"), ("localhost", "localhost")],
)
def test_a_server_is_called_by_its_address(clock, host, name):
    house = House(Door(host=host, token="word"))
    assert house.ask(Host=f"{name}:{PORT}", Origin=f"http://{name}:{PORT}") is None


def test_the_port_that_counts_is_the_one_that_was_found(clock):
    house = House(Door(port=0))
    house.gate.port = 50_001
    assert house.ask(Host="127.0.0.1:50001", Origin="http://localhost:50001") is None
    assert house.ask(Host="127.0.0.1:0").status_code == 421


@pytest.mark.parametrize("token", ["word", "w\u00f6rd", "\u96e8", "\ud800", "\udcff\U0001f600", "a" * 256, "\x00"])
def test_the_token_lets_in_and_nothing_else_does(token):
    door = Door(host="0.0.0.0", token=token)
    door.check(token)
    others = [
        "",
        token[:-1],
        token + " ",
        token + "\x00",
        token + token,
        "\ud801",
        "w\u00f6rd!",
        "word ",
        "WORD",
        "\udfff",
    ]
    for other in others:
        with pytest.raises(ProtocolError) as caught:
            door.check(other)
        assert str(caught.value) == "hello needs the token that the server was started with"
        assert (caught.value.code, caught.value.close) == ("bad_token", 3000)


@given(st.text(st.characters()), st.text(st.characters(), min_size=1))
def test_only_the_token_itself_is_the_token(given_token, token):
    door = Door(token=token)
    if given_token == token:
        door.check(given_token)
    else:
        with pytest.raises(ProtocolError, match="hello needs the token"):
            door.check(given_token)


@pytest.mark.parametrize("token", ["", "anything", "\ud800"])
def test_without_a_token_nobody_is_asked_for_one(token):
    Door().check(token)


HERE = ["127.0.0.1", "127.8.9.10", "localhost", "::1"]
OUTSIDE = [
    "0.0.0.0",
    "::",
    "10.0.0.1",
    "192.168.1.2",
    "8.8.8.8",
    "",
    "*",
    "example.org",
    "localhost.evil.example",
    "[::1]",
]


@pytest.mark.parametrize("host", HERE)
def test_where_only_this_machine_connects_no_token_is_needed(host):
    assert is_loopback(host)
    assert Door(host=host).token == ""


@pytest.mark.parametrize("host", OUTSIDE)
def test_where_others_can_connect_a_token_is_needed(host):
    assert not is_loopback(host)
    with pytest.raises(ConfigError, match="can be reached by others; start the server with a token"):
        Door(host=host)
    assert Door(host=host, token="word").host == host


@pytest.mark.parametrize(
    "setting",
    [
        {"port": -1},
        {"port": 2**16},
        {"connections": 0},
        {"connections": -1},
        {"handshakes_per_s": 0.0},
        {"handshakes_per_s": -1.0},
    ],
    ids=str,
)
def test_a_door_that_lets_nobody_in_is_refused(setting):
    with pytest.raises(ConfigError, match=r"a port is a number from 0 to 65535|a server takes 1 connection or more"):
        Door(**setting)
