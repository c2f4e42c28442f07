"""Cuts, deaths, stalled readers and crowds are measured on a running server, and one that mishandles them is found."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import pytest
import torch

from benchmarks import live_wire
from benchmarks.live_server import Served
from benchmarks.live_wire import crowd, cuts, deaths, quantiles, stall
from worldsim.session.machine import Limits
from worldsim.testing.fakes import tiny_world
from worldsim_apps.gate import Door
from worldsim_apps.room import Room
from worldsim_apps.server import Server, Settings

pytestmark = pytest.mark.timeout(240)  # seconds are enough, but not while other work has the cores


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@contextmanager
def serving(folder: Path, *, sessions: int = 3, resume_s: float = 0.5) -> Iterator[Served]:
    """A server in a thread of this process, where it can be broken."""
    found: list[Served] = []
    ready, stop = Event(), Event()

    async def serve() -> None:
        settings = Settings(
            door=Door(port=0, connections=500, handshakes_per_s=1e6),
            folder=folder,
            sessions=sessions,
            resume_s=resume_s,
            limits=Limits(messages_per_s=1e5, burst=100_000),
        )
        server = Server(tiny_world(pages=256), settings)
        async with server.listening():
            found.append(Served(f"ws://127.0.0.1:{server.port}", os.getpid(), folder))
            ready.set()
            while not stop.is_set():
                await asyncio.sleep(0.02)

    thread = Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(30)
    try:
        yield found[0]
    finally:
        stop.set()
        thread.join()


def test_streams_that_were_cut_are_whole(tmp_path: Path) -> None:
    with serving(tmp_path, resume_s=30) as served:
        found = asyncio.run(cuts(served, 6, seed=3))
    assert (found["cuts"], found["equal"]) == (6, 6)
    assert found["resume_ms"]["p50"] <= found["resume_ms"]["p95"]


def test_a_server_that_forgets_what_did_not_arrive_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    come_back = Room.come_back

    def forgetful(self: Room, *given: object) -> None:
        self._unacked.clear()
        come_back(self, *given)

    monkeypatch.setattr(Room, "come_back", forgetful)
    monkeypatch.setattr(live_wire, "STREAM_S", 3.0)
    with serving(tmp_path, resume_s=30) as served:
        found = asyncio.run(cuts(served, 6, seed=3))
    assert found["equal"] < found["cuts"]


def test_clients_that_died_leave_nothing(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        found = asyncio.run(deaths(served, 20, seed=1))
    assert {name: found[name] for name in ("pages_left", "sessions_left", "next_session_plays")} == {
        "pages_left": 0,
        "sessions_left": 0,
        "next_session_plays": True,
    }


def test_a_server_that_waits_for_ever_for_who_is_gone_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_wire, "SETTLE_S", 0.5)
    with serving(tmp_path, resume_s=60) as served:
        found = asyncio.run(deaths(served, 20, seed=1))
    assert found["sessions_left"] > 0
    assert found["pages_left"] > 0


def test_who_asks_for_a_place_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with serving(tmp_path, sessions=2) as served:
        found = asyncio.run(crowd(served, 2, 0.3))
    assert (found["asked"], found["refused"]) == (8, 8)
    assert found["slower"] > 0


def test_a_server_with_places_for_all_is_found_to_refuse_nobody(tmp_path: Path) -> None:
    with serving(tmp_path, sessions=12) as served:
        found = asyncio.run(crowd(served, 2, 0.3))
    assert found["refused"] == 0


def test_a_stalled_reader_is_measured_beside_another_player(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        found = asyncio.run(stall(served, 1.0))
    assert found["slower"] > 0
    assert found["seconds"] == 1.0


def test_quantiles_are_in_milliseconds() -> None:
    assert quantiles([0.001] * 99 + [0.1])["p50"] == pytest.approx(1.0)
    assert quantiles([]) == {}
