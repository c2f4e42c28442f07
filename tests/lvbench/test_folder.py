"""Every video below a folder is found, once and in order."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lvbench.errors import ConfigError
from lvbench.folder import passed_over, tasks_of


def test_videos_are_found_by_their_suffix_below_the_folder_in_order(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("b.MP4", "a.webm", "deep/c.mkv", "notes.txt", "a.json"):
        (tmp_path / name).touch()
    (tmp_path / "folder.mp4").mkdir()
    found = tasks_of(tmp_path)
    assert [task.name for task in found] == ["a.webm", "b.MP4", "deep/c.mkv"]
    assert all(task.reference is None for task in found)


@pytest.mark.parametrize("name", ["a.m2v", "a.H264", "a.f4v", "a.qt", "a.mpe", "a.mjpeg", "a.m2t", "a.webp", ".mp4"])
def test_a_rarer_name_of_a_video_is_one_too(tmp_path, name):
    (tmp_path / name).touch()
    assert [task.name for task in tasks_of(tmp_path)] == [name]


def test_what_is_passed_over_is_known_but_for_the_report(tmp_path):
    (tmp_path / "report" / "cache").mkdir(parents=True)
    (tmp_path / "deep").mkdir()
    for name in ("a.mp4", "b.video", "deep/notes.txt", "mp4", "report/cache/0.npz"):
        (tmp_path / name).touch()
    assert passed_over(tmp_path, tmp_path / "report") == ["b.video", "deep/notes.txt", "mp4"]
    assert passed_over(tmp_path / "b.video", tmp_path / "report") == []


def test_a_link_to_a_folder_is_not_passed_over_in_silence(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.mp4").touch()
    place = tmp_path / "place"
    (place / "deep").mkdir(parents=True)
    (place / "deep" / "more").symlink_to(tmp_path / "real")
    (place / "a.txt").touch()
    with pytest.raises(ConfigError, match=r"a link to a folder is not followed, name more alone"):
        tasks_of(place)
    (place / "b.mp4").touch()
    assert [task.name for task in tasks_of(place)] == ["b.mp4"]
    assert passed_over(place, tmp_path / "report") == ["deep/more (a link to a folder)", "a.txt"]
    assert [task.name for task in tasks_of(place / "deep" / "more")] == ["a.mp4"]


@pytest.mark.parametrize("is_absolute", [True, False])
def test_the_report_is_not_passed_over_however_it_and_the_folder_are_named(tmp_path, monkeypatch, is_absolute):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "report").mkdir()
    for name in ("a.mp4", "b.video", "report/0.npz"):
        (tmp_path / name).touch()
    place, report = (tmp_path, Path("report")) if is_absolute else (Path(), tmp_path / "report")
    assert passed_over(place, report) == ["b.video"]


def test_what_only_has_the_name_of_a_video_is_not_passed_over_in_silence(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "broken.mp4").symlink_to(tmp_path / "none")
    (tmp_path / "round.mp4").symlink_to(tmp_path)
    assert [task.name for task in tasks_of(tmp_path)] == ["broken.mp4", "pipe.mp4"]


def test_a_folder_that_cannot_be_read_is_not_passed_over_in_silence(tmp_path, monkeypatch):
    def scandir(path):
        if path.endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    (tmp_path / "a.mp4").touch()
    (tmp_path / "closed").mkdir()
    listed = os.scandir
    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(ConfigError, match=r"closed cannot be read: Permission denied; let it be read"):
        tasks_of(tmp_path)


def test_one_file_is_scored_whatever_it_is_called(tmp_path):
    (tmp_path / "video").touch()
    assert [task.name for task in tasks_of(tmp_path / "video")] == ["video"]


def test_the_reference_of_a_video_has_its_name(tmp_path):
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "a.mp4").touch()
    assert [task.reference for task in tasks_of(tmp_path, real)] == [real / "a.mp4"]
    with pytest.raises(ConfigError, match="is no folder"):
        tasks_of(tmp_path, tmp_path / "none")


@pytest.mark.parametrize(
    ("ours", "real", "partners"),
    [
        (["a.mp4"], ["a.mkv"], ["a.mkv"]),
        (["deep/a.mp4"], ["deep/a.mkv", "a.mkv"], ["deep/a.mkv"]),
        (["a.b.mp4"], ["a.b.mkv", "a.mkv"], ["a.b.mkv"]),
        (["a.mp4"], ["a.mp4", "a.mkv"], ["a.mp4"]),
        (["a.mp4"], ["a.mov", "a.mkv"], ["a.mp4"]),
        (["a.gif", "a.mp4"], ["a.mp4"], ["a.gif", "a.mp4"]),
        (["a.mp4"], ["a.txt"], ["a.mp4"]),
    ],
)
def test_a_reference_may_end_otherwise_where_only_one_can_be_meant(tmp_path, ours, real, partners):
    for name in [*(f"ours/{name}" for name in ours), *(f"real/{name}" for name in real)]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = tasks_of(tmp_path / "ours", tmp_path / "real")
    assert [task.reference for task in found] == [tmp_path / "real" / name for name in partners]


def test_what_is_no_file_and_no_folder_is_said_to_be_neither():
    with pytest.raises(ConfigError, match="/dev/null is neither a folder nor a file"):
        tasks_of(Path("/dev/null"))


@pytest.mark.parametrize(("name", "reason"), [(".", "there is no video in"), ("none", "does not exist")])
def test_a_place_without_videos_is_refused(tmp_path, name, reason):
    with pytest.raises(ConfigError, match=reason):
        tasks_of(tmp_path / name)
