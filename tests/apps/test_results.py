"""Every result of a command has a file of its own, and none is one that the command reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from worldsim_apps.results import LONGEST_S, check_files, check_seconds
from worldsim_apps.telling import Refused


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf"), 1e308, LONGEST_S + 1])
def test_a_length_of_time_that_is_none_or_endless_is_refused(seconds: float) -> None:
    with pytest.raises(Refused, match=r"--seconds is a length of time above 0 and at most 31622400 \(a year\), got"):
        check_seconds(seconds)


def test_any_other_length_of_time_is_fine() -> None:
    check_seconds(0.001)
    check_seconds(LONGEST_S)


@pytest.mark.parametrize("name", ["a.mp4", "./a.mp4", "new/../a.mp4", "soft.mp4", "hard.mp4"])
def test_a_result_is_not_what_is_read_whatever_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("new").mkdir()
    Path("a.mp4").write_bytes(b"read")
    Path("soft.mp4").symlink_to("a.mp4")
    Path("hard.mp4").hardlink_to("a.mp4")
    with pytest.raises(Refused) as raised:
        check_files({"the log": None, "the video": Path(name)}, {"the actions": Path("a.mp4"), "the picture": None})
    assert str(raised.value) == f"the actions and the video are both {Path(name)}; give each a file of its own"


def test_two_results_have_two_files_also_where_none_is_there_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    with pytest.raises(Refused, match=r"the log and what is explained are both b\.png"):
        check_files({"the log": Path("new/../b.png"), "what is explained": Path("b.png")}, {})
    check_files({"the log": Path("b"), "the video": Path("loop")}, {"the picture": Path("c"), "the weights": Path("c")})


@pytest.mark.parametrize("name", ["a.unfinished.mp4", "new/../a.unfinished-2.mp4"])
def test_a_log_is_not_where_the_video_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("new").mkdir()
    with pytest.raises(Refused, match=r"the log is .*, where the video grows until it is whole; give it another name"):
        check_files({"the video": Path("a.mp4"), "the log": Path(name)}, {})
    check_files({"the video": Path("a.mp4"), "the log": Path("new/a.unfinished.mp4")}, {})
    check_files({"the video": Path("b.mp4"), "the log": Path(name)}, {})
