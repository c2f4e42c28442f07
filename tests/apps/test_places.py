"""Servers in one process: one for each choice, few at once, and nothing is lost when one makes room or all end."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from urllib.request import urlopen

import pytest

from worldsim.client import BlockingClient
from worldsim.errors import ConfigError, UnknownName
from worldsim.runtime.snapshot import read_snapshot
from worldsim_apps import places as places_module
from worldsim_apps.gate import Door
from worldsim_apps.places import Choice, Hosted, Places, shipped_worlds
from worldsim_apps.server import Settings

ONE = Choice(world="crafter", policy="window:frames=8", steps=1, frames_per_block=1)
OTHER = Choice(world="crafter", policy="full", steps=2, frames_per_block=2)
THIRD = Choice(world="crafter", policy="full", steps=1, frames_per_block=4)


@pytest.mark.parametrize(
    ("wrong", "error", "text"),
    [
        ({"world": "atlantis"}, UnknownName, "there is no world 'atlantis'"),
        ({"policy": "windw"}, UnknownName, "did you mean 'window'"),
        ({"policy": "window:frames=none"}, ConfigError, "as a whole number"),
        ({"steps": 5}, ConfigError, "in 1 to 4 steps, got 5"),
        ({"steps": 0}, ConfigError, "in 1 to 4 steps, got 0"),
        ({"frames_per_block": 3}, ConfigError, "makes blocks of 1, 2, 4 frames, got 3"),
    ],
)
def test_what_cannot_be_made_is_refused_with_what_could(wrong, error, text):
    fields = {"world": "crafter", "policy": "full", "steps": 1, "frames_per_block": 1} | wrong
    with pytest.raises(error, match=text):
        Choice(**fields)


def test_choices_that_make_equal_blocks_are_equal():
    short = Choice(world="crafter", policy=" window ", steps=1, frames_per_block=1)
    assert short == Choice(world="crafter", policy="window:frames=24", steps=1, frames_per_block=1)


def test_only_worlds_with_weights_are_offered(monkeypatch, tmp_path):
    assert "crafter" in shipped_worlds()
    monkeypatch.setattr("worldsim.presets.ASSETS", tmp_path)
    assert shipped_worlds() == ()


def test_a_choice_has_one_server_which_makes_what_was_chosen_and_remembers_how(tmp_path):
    with Places(tmp_path) as places:
        hosted = places.open(OTHER)
        assert places.open(OTHER) is hosted
        assert (hosted.world.frames_per_block, hosted.world.calls_per_block) == (2, 3)
        with BlockingClient(f"ws{hosted.url[4:].rstrip('/')}") as client:
            client.start(seed=5)
            next(iter(client))
            name = client.save()
        assert Choice.of(read_snapshot(tmp_path / f"{name}.world").log.opening) == OTHER


def test_the_one_asked_for_least_lately_makes_room_and_its_worlds_are_saved(tmp_path):
    with Places(tmp_path, most=2) as places:
        first, second = places.open(ONE), places.open(OTHER)
        with BlockingClient(f"ws{second.url[4:].rstrip('/')}") as client:
            client.start(seed=5)
            action = client.hold({"KeyD"})
            next(frame for frame in client if frame.action == action)
            places.open(ONE)
            third = places.open(THIRD)
        assert places.hosted == (first, third)
        assert len(list(tmp_path.glob("*.world"))) == 1
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", second.server.port), timeout=2)
    assert places.hosted == ()


def test_nobody_makes_room_for_a_world_that_cannot_be_loaded(tmp_path, monkeypatch):
    with Places(tmp_path, most=1) as places:
        hosted = places.open(ONE)
        monkeypatch.setattr("worldsim.presets.ASSETS", tmp_path)
        with pytest.raises(places_module.NotShipped):
            places.open(OTHER)
        assert places.hosted == (hosted,)


def test_nobody_makes_room_for_a_choice_that_is_refused_and_no_thread_stays(tmp_path):
    with Places(tmp_path, most=1) as places:
        hosted = places.open(ONE)
        threads = threading.active_count()
        with pytest.raises(ConfigError, match="pages have room for"):
            places.open(Choice(world="crafter", policy="window:frames=1500", steps=1, frames_per_block=1))
        assert places.hosted == (hosted,)
        assert threading.active_count() == threads
        socket.create_connection(("127.0.0.1", hosted.server.port), timeout=2).close()


def test_a_folder_that_cannot_be_made_leaves_no_thread():
    threads = threading.active_count()
    with Places(Path("/proc/nowhere")) as places, pytest.raises(ConfigError, match="cannot be kept in /proc/nowhere"):
        places.open(ONE)
    assert threading.active_count() == threads


def test_nothing_is_opened_after_the_end(tmp_path):
    with Places(tmp_path) as places:
        pass
    with pytest.raises(ConfigError, match="the app is ending"):
        places.open(ONE)


def test_a_server_that_cannot_listen_says_so(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        door = Door(port=taken.getsockname()[1])
        with pytest.raises(ConfigError, match="is taken"):
            Hosted(ONE.load("cpu"), Settings(door=door, folder=tmp_path))


def test_pages_of_the_named_origins_and_no_others_may_show_the_player(tmp_path):
    page = "http://127.0.0.1:7860"
    with Places(tmp_path, origins=(page,)) as places, urlopen(places.open(ONE).url, timeout=10) as answer:
        policy = answer.headers["Content-Security-Policy"]
    assert policy.endswith("frame-ancestors 'self' http://127.0.0.1:7860")
