"""The points of the plots say what blocks took since the last look, and nothing where none was made."""

from __future__ import annotations

import mmap
from types import SimpleNamespace
from typing import Any

import pytest

from worldsim_apps.gauges import Gauges
from worldsim_apps.meter import EVERY_S, SHOWN_S, Meter, resident_mb


class Served(SimpleNamespace):
    """As much of a Hosted as is read."""

    __hash__ = object.__hash__


def hosted(pages: int) -> Any:
    gauges = Gauges(lambda: pages, lambda state: 0)
    return Served(
        server=SimpleNamespace(hall=SimpleNamespace(gauges=gauges)),
        world=SimpleNamespace(pool=SimpleNamespace(used=pages)),
    )


def note(one: Any, stage: str, *seconds: float) -> None:
    for each in seconds:
        one.server.hall.gauges.block.labels(stage).observe(each)


def test_a_reading_is_of_the_blocks_since_the_one_before_over_all_servers():
    first, second = hosted(3), hosted(4)
    meter = Meter(lambda: (first, second))
    note(first, "denoise", 9.0)
    meter.read(0.0)
    note(first, "denoise", 0.1, 0.2)
    note(second, "denoise", 0.6)
    note(second, "encode", 0.003)
    note(second, "wait", 7.0)
    latest = meter.read(2.0)[-1]
    assert latest.blocks_ms == pytest.approx({"denoise": 300.0, "encode": 3.0})
    assert latest.pages == 7


def test_where_no_block_was_made_there_is_no_point():
    meter = Meter(lambda: (hosted(0),))
    assert meter.read(0.0)[-1].blocks_ms == {}


def test_a_server_that_was_closed_takes_nothing_away():
    first, second = hosted(1), hosted(1)
    there = [first, second]
    meter = Meter(lambda: tuple(there))
    note(first, "commit", 0.5, 0.5)
    meter.read(0.0)
    there.remove(first)
    note(second, "commit", 0.1)
    assert meter.read(2.0)[-1].blocks_ms == pytest.approx({"commit": 100.0})


def test_several_viewers_share_readings_and_old_ones_are_dropped():
    meter = Meter(lambda: ())
    meter.read(0.0)
    assert len(meter.read(EVERY_S / 2)) == 1
    for second in range(2, 301, 2):
        readings = meter.read(float(second))
    assert readings[0].at_s == 300.0 - SHOWN_S
    assert readings[-1].at_s == 300.0


def test_memory_is_that_of_this_process():
    before = resident_mb()
    with mmap.mmap(-1, 50_000_000) as held:  # not out of what was given back before
        held.write(b"\1" * 50_000_000)
        assert resident_mb() - before > 40
