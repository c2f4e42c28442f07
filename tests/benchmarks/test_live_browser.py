"""The time from a key to its picture is divided without a rest, and only blocks that were made under the key count."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks import live_browser
from benchmarks.live_browser import Times, split
from worldsim.session.events import Act
from worldsim_apps.room import Room
from worldsim_apps.stage import Stage

TIMES = Times(
    heard={1: 102.0, 2: 510.0}, begun={4: 140.0, 9: 530.0}, made={4: 205.0, 9: 600.0}, sent={4: 206.0, 9: 603.0}
)
KEYS = [[1, 100.0], [2, 500.0], [3, 900.0]]
FRAMES = [[4, 1, 208.0, 210.0], [5, 1, 330.0, 331.0], [9, 2, 605.0, 609.0]]


def test_the_parts_of_an_action_add_up_to_the_time_from_its_key_to_the_first_picture_with_it():
    found = split(TIMES, KEYS, FRAMES)
    assert found["actions"] == 2  # no block was made under the third
    parts = [found[f"{name}_ms"]["p50"] for name in PARTS]
    assert sum(parts) == pytest.approx(found["key_to_picture_ms"]["p50"])
    assert found["key_to_picture_ms"]["p50"] == pytest.approx((110 + 109) / 2)
    assert found["making_it_ms"]["p50"] == pytest.approx((65 + 70) / 2)


PARTS = ("to_the_server", "waiting_for_the_block", "making_it", "encoding", "to_the_page", "decoding_and_drawing")


def test_what_the_server_does_is_noted_only_meanwhile(monkeypatch):
    class Chunk:
        block = 7

    acted: list[Act] = []

    async def step(stage: Stage, keys: object) -> type[Chunk]:
        return Chunk

    monkeypatch.setattr(Room, "act", lambda room, action: acted.append(action))
    monkeypatch.setattr(Room, "_publish", lambda room, shown, block, sample: None)
    monkeypatch.setattr(Stage, "step", step)
    monkeypatch.setattr(live_browser, "time", iter(range(1, 99)).__next__)
    times, room, stage = Times(), object.__new__(Room), object.__new__(Stage)
    with times.noted():
        room.act(Act(seq=3))
        assert asyncio.run(stage.step(())) is Chunk
        room._publish({}, 7, None)
    room.act(Act(seq=4))
    assert (times.heard, times.begun, times.made, times.sent) == ({3: 1e3}, {7: 2e3}, {7: 3e3}, {7: 4e3})
    assert [action.seq for action in acted] == [3, 4]
