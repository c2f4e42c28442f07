"""What a frame and an action take on their way is measured in parts that add up."""

from __future__ import annotations

import asyncio
import time

import pytest

from benchmarks import live_latency
from benchmarks.live_latency import actions, bombs, encoding, scenes, transport
from benchmarks.live_server import served
from worldsim_apps.encoding import JpegEncoder

pytestmark = pytest.mark.timeout(240)  # seconds are enough, but not while other work has the cores


def test_an_action_takes_the_block_it_is_in_and_the_overhead_beyond_it() -> None:
    with served("dot") as server:
        found = asyncio.run(actions(server, 3, seed=1))
        assert server.gauge("worldsim_frames_sent_total") > 6
        assert server.resident_mb > 10
        assert server.descriptors > 3
        assert server.threads >= 1
    assert found["actions"] == 3
    assert found["at_once_ms"]["p50"] > found["block_ms"]["p50"] > 0
    assert found["overhead_ms"]["p50"] < found["at_once_ms"]["p50"]


def test_every_frame_that_is_sent_arrives_and_is_timed() -> None:
    found = asyncio.run(transport(5))
    assert found["frames"] == 5
    assert found["bytes"] > 10_000
    assert set(found["transport_ms"]) == {"p50", "p95", "p99"}


def test_an_encoder_that_dawdles_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    encode = JpegEncoder.encode

    def dawdle(self, frames):
        time.sleep(0.05)
        return encode(self, frames)

    monkeypatch.setattr(live_latency.JpegEncoder, "encode", dawdle)
    assert encoding(2)["jpeg_ms"]["p50"] > 50


def test_scenes_have_the_size_that_models_make_and_differ() -> None:
    frames = scenes(3)
    assert frames.shape == (3, 480, 832, 3)
    assert len({frame.tobytes() for frame in frames}) == 3


def test_bombs_are_refused() -> None:
    found = bombs()
    assert (found["bombs"], found["refused"]) == (2, 2)
    assert found["memory_mb"] < 50
