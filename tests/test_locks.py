"""A lock keeps others out, here and elsewhere, until its file is closed or its process ends."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from worldsim import locks
from worldsim.locks import NO_LOCKS, locked

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no such locks there")


def test_a_file_is_locked_for_one_until_that_one_closes_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("a") as first, path.open("a") as second:
        assert locked(first.fileno())
        assert locked(first.fileno())
        assert not locked(second.fileno())
        first.close()
        assert locked(second.fileno())


def test_a_lock_ends_with_its_process_however_that_ends(tmp_path: Path) -> None:
    path = tmp_path / "file"
    code = "import sys, time; from worldsim.locks import locked; file = open(sys.argv[1], 'a'); "
    code += "print(locked(file.fileno()), flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        with path.open("a") as file:
            assert not locked(file.fileno())
            other.kill()
            other.wait()
            assert locked(file.fileno())


@pytest.mark.parametrize("number", [*NO_LOCKS, errno.EBADF])
def test_where_there_are_no_locks_all_get_one_and_other_errors_are_told(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    if number in NO_LOCKS:
        assert locked(0)
    else:
        with pytest.raises(OSError, match="no"):
            locked(0)
