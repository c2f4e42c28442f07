"""A file takes the place of what lay under its name when it is whole, and never before."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from io import FileIO
from pathlib import Path
from stat import S_IMODE
from typing import Any

import pytest

from worldsim.runtime.growing import GrowingFile, is_beside

KILLED = """
import os, signal, sys
from pathlib import Path
from worldsim.runtime.growing import GrowingFile

file = GrowingFile(Path(sys.argv[1]))
file.write(b"torn")
print("ready", flush=True)
signal.pause()
"""


def test_where_nothing_lies_a_file_grows_under_its_own_name(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.mp4"
    file = GrowingFile(path)
    for wanted in (b"one", b"onetwo"):
        file.write(wanted[-3:])
        assert path.read_bytes() == wanted
    assert file.path == path
    file.close()
    file.close()
    assert file.closed
    assert (path.read_bytes(), os.listdir(path.parent)) == (b"onetwo", ["a.mp4"])


def test_what_lies_there_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")
    path.chmod(0o640)
    file = GrowingFile(path)
    file.write(b"new")
    assert (path.read_bytes(), file.path) == (b"old", tmp_path / "a.unfinished.mp4")
    assert file.path.read_bytes() == b"new"
    file.close()
    assert (path.read_bytes(), file.path, os.listdir(tmp_path)) == (b"new", path, ["a.mp4"])
    assert S_IMODE(path.stat().st_mode) == 0o640, "who may read it is as it was"


@pytest.mark.parametrize("old", [True, False])
def test_what_is_left_before_it_is_whole_replaces_nothing(tmp_path: Path, old: bool) -> None:
    path = tmp_path / "a.mp4"
    if old:
        path.write_bytes(b"old")
    file = GrowingFile(path)
    file.write(b"new")
    file.leave()
    file.close()
    file.discard()
    assert file.path.read_bytes() == b"new"
    assert path.read_bytes() == (b"old" if old else b"new")


@pytest.mark.parametrize("old", [True, False])
def test_what_comes_to_nothing_leaves_nothing(tmp_path: Path, old: bool) -> None:
    path = tmp_path / "a.mp4"
    if old:
        path.write_bytes(b"old")
    file = GrowingFile(path)
    file.write(b"new")
    file.discard()
    assert [each.read_bytes() for each in tmp_path.iterdir()] == ([b"old"] if old else [])


@pytest.mark.parametrize("old", [True, False])
def test_one_at_a_time_grows_under_a_name(tmp_path: Path, old: bool) -> None:
    path = tmp_path / "a.mp4"
    if old:
        path.write_bytes(b"old")
    (tmp_path / "link.mp4").symlink_to("a.mp4")
    file = GrowingFile(path)
    file.write(b"first")
    for other in (path, tmp_path / "link.mp4"):
        with pytest.raises(BlockingIOError):
            GrowingFile(other)
    file.close()
    assert path.read_bytes() == b"first"
    later = GrowingFile(path)
    later.write(b"second")
    later.close()
    assert path.read_bytes() == b"second"


@pytest.mark.parametrize("old", [True, False])
def test_what_a_killed_process_left_is_in_nobodys_way(tmp_path: Path, old: bool) -> None:
    path = tmp_path / "a.mp4"
    if old:
        path.write_bytes(b"old")
    with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(BlockingIOError):
            GrowingFile(path)
        process.send_signal(signal.SIGKILL)
    file = GrowingFile(path)
    file.write(b"new")
    file.close()
    left = ["a.unfinished.mp4"] if old else []  # somebody may want what was made
    assert (path.read_bytes(), sorted(os.listdir(tmp_path))) == (b"new", ["a.mp4", *left])


def test_a_link_stays_a_link_to_what_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real.mp4").write_bytes(b"old")
    link = tmp_path / "link.mp4"
    link.symlink_to("real.mp4")
    file = GrowingFile(link)
    file.write(b"new")
    file.close()
    assert link.is_symlink()
    assert (tmp_path / "real.mp4").read_bytes() == b"new"


def test_a_link_to_itself_and_a_folder_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    for path in (tmp_path / "loop.mp4", tmp_path):
        with pytest.raises(OSError, match=r"Too many levels|Is a directory"):
            GrowingFile(path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device here is always full")
def test_a_device_is_written_to_as_it_is_and_says_when_it_is_full(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").symlink_to("/dev/full")
    file = GrowingFile(tmp_path / "a.mp4")
    with pytest.raises(OSError, match="No space left on device"):
        file.write(b"new")
    file.discard()
    assert (tmp_path / "a.mp4").is_char_device()


class Small(FileIO):
    """A file on a disk with room for five bytes; the write that reaches its end is a short one, as real ones are."""

    def write(self, data: Any, /) -> int:
        room = 5 - self.tell()
        if room <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data[:room])


def test_a_piece_that_cannot_be_written_whole_is_not_there_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worldsim.runtime.growing.FileIO", Small)
    file = GrowingFile(tmp_path / "a.mp4")
    file.write(b"one")
    with pytest.raises(OSError, match="No space"):
        file.write(b"four")
    assert (tmp_path / "a.mp4").read_bytes() == b"one"
    file.write(b"to")
    file.close()
    assert (tmp_path / "a.mp4").read_bytes() == b"oneto"


def test_a_file_that_was_dropped_is_in_nobodys_way(tmp_path: Path) -> None:
    file = GrowingFile(tmp_path / "a.mp4")
    with pytest.warns(ResourceWarning):
        del file
    GrowingFile(tmp_path / "a.mp4").close()


def test_what_lies_under_the_name_beside_it_stays_and_no_link_is_followed(tmp_path: Path) -> None:
    path, taken, mine = (tmp_path / name for name in ("a.mp4", "a.unfinished.mp4", "mine.txt"))
    path.write_bytes(b"old")
    mine.write_bytes(b"mine")
    taken.symlink_to(mine)
    (tmp_path / "a.unfinished-2.mp4").write_bytes(b"left by a kill")
    file = GrowingFile(path)
    assert file.path == tmp_path / "a.unfinished-3.mp4"
    file.write(b"new")
    file.close()
    assert (path.read_bytes(), mine.read_bytes(), taken.is_symlink()) == (b"new", b"mine", True)
    assert (tmp_path / "a.unfinished-2.mp4").read_bytes() == b"left by a kill"
    assert not (tmp_path / "a.unfinished-3.mp4").exists()


def test_a_file_that_grows_beside_another_is_not_taken_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"old")
    file = GrowingFile(tmp_path / "a.mp4")
    with pytest.raises(BlockingIOError):
        GrowingFile(file.path)
    file.write(b"new")
    file.close()
    assert (tmp_path / "a.mp4").read_bytes() == b"new"


@pytest.mark.parametrize("taken", [[], ["a.unfinished.mp4"]])
def test_the_names_that_a_file_grows_under_are_known(tmp_path: Path, taken: list[str]) -> None:
    for name in ("a.mp4", *taken):
        (tmp_path / name).touch()
    file = GrowingFile(tmp_path / "a.mp4")
    assert is_beside(file.path, tmp_path / "a.mp4")
    file.discard()
    for other in ("a.mp4", "b.unfinished.mp4", "a.unfinished.log", "a.unfinished-x.mp4", "below/a.unfinished.mp4"):
        assert not is_beside(tmp_path / other, tmp_path / "a.mp4")
