"""What a file without a name holds is what was written, and nothing of it is left when its process is gone."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from worldsim.cache.spill import Offsets, SpillFile
from worldsim.errors import ConfigError

BYTES = bytes(range(256)) * 40


def kept(file: SpillFile, offset: int, size: int) -> bytes:
    found = bytearray(size)
    file.read(offset, memoryview(found))
    return bytes(found)


def test_what_is_read_is_what_was_written_there(tmp_path: Path) -> None:
    file = SpillFile(tmp_path)
    file.write(20_000, memoryview(BYTES))
    file.write(0, memoryview(BYTES[::-1]))
    file.write(500, memoryview(b"moss"))
    assert kept(file, 20_000, len(BYTES)) == BYTES
    assert kept(file, 0, 504) == BYTES[::-1][:500] + b"moss"


def test_what_was_never_written_cannot_be_read(tmp_path: Path) -> None:
    file = SpillFile(tmp_path)
    file.write(0, memoryview(BYTES))
    with pytest.raises(OSError, match=rf"ends too early: '{tmp_path}'"):
        kept(file, 1, len(BYTES))


def test_a_folder_is_made_where_it_is_missing_and_the_one_for_temporary_files_taken_if_none_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SpillFile(tmp_path / "a" / "b").write(0, memoryview(BYTES))
    assert (tmp_path / "a" / "b").is_dir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert SpillFile().folder == tmp_path


def test_a_folder_that_takes_no_file_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "deeper" / "still"):
        told = (
            rf"pages cannot be kept in {folder}: {tmp_path}/file is a file and no folder; name a folder that can be wri"
        )
        with pytest.raises(ConfigError, match=told):
            SpillFile(folder)


def test_files_in_one_folder_know_nothing_of_each_other_and_outlive_it(tmp_path: Path) -> None:
    one, other = SpillFile(tmp_path / "spill"), SpillFile(tmp_path / "spill")
    one.write(0, memoryview(BYTES))
    other.write(0, memoryview(BYTES[::-1]))
    shutil.rmtree(tmp_path / "spill")
    assert kept(one, 0, len(BYTES)) == BYTES
    other.write(len(BYTES), memoryview(BYTES))
    assert kept(other, 0, len(BYTES)) == BYTES[::-1]


@pytest.mark.skipif(sys.platform != "linux", reason="counts open files in /proc")
def test_a_file_is_closed_when_nobody_has_it(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    file = SpillFile(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    del file
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_process_that_is_killed_leaves_nothing_behind(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from worldsim.cache.spill import SpillFile\n"
        "file = SpillFile(Path(sys.argv[1])); file.write(0, memoryview(bytes(10**6))); print('written', flush=True)\n"
        "time.sleep(50)"
    )
    with subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        assert not [*tmp_path.iterdir()], "not even while it runs"
        process.send_signal(signal.SIGKILL)
    assert not [*tmp_path.iterdir()]


def test_offsets_never_overlap_and_are_used_again_by_what_has_their_size() -> None:
    offsets = Offsets()
    assert [offsets.take(size) for size in (7, 3, 7)] == [0, 7, 10]
    offsets.give_back(0)
    offsets.give_back(7)
    assert offsets.are_apart()
    assert [offsets.take(size) for size in (7, 7, 3)] == [0, 17, 7]
    assert offsets.used == {0: 7, 7: 3, 10: 7, 17: 7}
    assert offsets.are_apart()


@pytest.mark.parametrize("used", [{0: 7, 5: 7}, {0: 7, 8: 7}, {0: 7}])
def test_parts_that_overlap_or_are_lost_are_found(used: dict[int, int]) -> None:
    offsets = Offsets()
    for _ in range(2):
        offsets.take(7)
    offsets.used = used
    assert not offsets.are_apart()
