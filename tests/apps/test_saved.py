"""The saved worlds of a folder are shown as they were left, the newest first, and none is read twice."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from worldsim_apps import saved as saved_module
from worldsim_apps.places import Choice
from worldsim_apps.saved import SavedWorlds

CHOICE = Choice(world="crafter", policy="window:frames=8", steps=1, frames_per_block=2)


@pytest.fixture(scope="module")
def world():
    return CHOICE.load("cpu")


@pytest.fixture
def folder(tmp_path, world):
    """Three saved worlds, 1, 2 and 3 blocks long; the first is the oldest."""
    with world.open(seed=1) as session:
        for number in range(1, 4):
            session.step({"KeyD"})
            path = tmp_path / f"{number:032x}.world"
            session.save(path)
            os.utime(path, ns=(number * 10**9, number * 10**9))
        np.save(tmp_path / "shown.npy", session.look())
    return tmp_path


def test_a_saved_world_shows_its_newest_frame_how_it_was_made_and_how_long_it_is(folder):
    newest, *rest = SavedWorlds(folder).newest()
    assert newest.name == f"{3:032x}"
    assert newest.choice == CHOICE
    assert newest.seconds == 6 / 8
    assert newest.saved_s == 3.0
    assert np.array_equal(newest.frame, np.load(folder / "shown.npy"))
    assert [saved.name for saved in rest] == [f"{2:032x}", f"{1:032x}"]


def test_no_more_are_read_than_are_shown_and_none_twice(folder, monkeypatch):
    read: list[str] = []
    real = saved_module._read
    monkeypatch.setattr(saved_module, "_read", lambda path, at: read.append(path.stem[-1:]) or real(path, at))
    worlds = SavedWorlds(folder)
    assert len(worlds.newest(2)) == 2
    assert read == ["3", "2"]
    worlds.newest(2)
    assert read == ["3", "2"]
    os.utime(folder / f"{2:032x}.world", ns=(4 * 10**9, 4 * 10**9))
    assert [saved.name[-1:] for saved in worlds.newest(2)] == ["2", "3"]
    assert read == ["3", "2", "2"]


def test_what_is_torn_foreign_or_gone_is_passed_over(folder):
    torn = folder / f"{3:032x}.world"
    torn.write_bytes(torn.read_bytes()[:100])
    (folder / f"{9:032x}.world").write_bytes(b"")
    (folder / "another.world").write_bytes((folder / f"{1:032x}.world").read_bytes())
    worlds = SavedWorlds(folder)
    assert [saved.name[-1:] for saved in worlds.newest()] == ["2", "1"]
    (folder / f"{2:032x}.world").unlink()
    assert [saved.name[-1:] for saved in worlds.newest(2)] == ["1"]


def test_a_file_of_several_names_is_shown_once_by_the_one_that_no_session_lives_under(folder):
    for name in (0, 7):
        (folder / f"{name:032x}.world").hardlink_to(folder / f"{3:032x}.world")
        (folder / f"{name:032x}.log").write_bytes(b"")
    assert [saved.name[-1:] for saved in SavedWorlds(folder).newest()] == ["3", "2", "1"]


def test_a_foreign_file_is_passed_over(folder):
    for number, header in enumerate(("[]", "null", "[" * 100_000, '{"format": 2, "keep": "pages", "blocks": 1e999}')):
        path = folder / f"{number + 10:032x}.world"
        save_file({"shown": torch.zeros(0, 0, 3, dtype=torch.uint8)}, path, metadata={"worldsim": header})
    assert [saved.name[-1:] for saved in SavedWorlds(folder).newest()] == ["3", "2", "1"]


def test_a_folder_that_is_not_there_has_none(tmp_path):
    assert SavedWorlds(tmp_path / "none").newest() == ()
