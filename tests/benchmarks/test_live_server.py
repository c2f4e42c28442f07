"""A server to be measured is a process of its own that ends by itself when it is told to."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.live_server import served
from worldsim.client import BlockingClient

pytestmark = pytest.mark.timeout(240)  # seconds are enough, but not while other work has the cores


def test_a_served_world_can_be_played_measured_and_stopped() -> None:
    with served("dot", sessions=2, resume_s=0.5) as server:
        with BlockingClient(server.url, codec="raw") as client:
            client.start(seed=1, pace=0)
            assert [client.frame().block for _ in range(3)] == [0, 1, 2]
            assert server.gauge("worldsim_sessions") == 1
            assert server.gauge("worldsim_sessions", 'state="live"') == 1
            assert server.gauge("worldsim_pages_in_use") > 0
        assert [path.suffix for path in server.folder.iterdir()] == [".log"]
        assert Path(f"/proc/{server.pid}").exists()
    assert not Path(f"/proc/{server.pid}").exists()
