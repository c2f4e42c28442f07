"""What is told fits in a line, steers no terminal and reaches whoever is still there."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from typing import Any

import pytest
import torch
import typer

from tests.signalling import send
from worldsim.errors import ConfigError, PoolFull
from worldsim_apps.cli import app
from worldsim_apps.telling import Refused, Stopped, misused, printable, refusals, report, say

TELL = "from worldsim_apps.telling import report, write_anything; write_anything(); report({!r}); print('after')"


def refused(error: BaseException) -> str:
    with pytest.raises((Refused, Stopped)) as told, refusals():
        raise error
    return str(told.value)


def test_what_worldsim_refuses_is_told_as_it_is_with_what_is_left() -> None:
    error = ConfigError("no such thing; take another")
    error.add_note("the part is in a.mp4")
    assert refused(error) == "no such thing; take another; the part is in a.mp4"


def test_what_the_system_refuses_is_told_without_its_number_and_with_what_to_do() -> None:
    error = OSError(errno.EACCES, os.strerror(errno.EACCES), "walk.log")
    told = "cannot use walk.log: Permission denied; free some space, or name a place that can be written"
    assert refused(error) == told
    assert refused(OSError(errno.EADDRINUSE, "the port is taken")) == f"[Errno {errno.EADDRINUSE}] the port is taken"
    assert refused(OSError("walk.log cannot be locked; name another")) == "walk.log cannot be locked; name another"


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.EFBIG, "File too large; raise the limit on the size of a file (ulimit -f), or name a place where files"),
        (errno.ENOSPC, "No space left on device; free some space, or name a place that has more"),
        (errno.EEXIST, "File exists; remove what is there, or name another place"),
    ],
)
def test_what_to_do_is_what_helps(number: int, told: str) -> None:
    assert refused(OSError(number, os.strerror(number), "out")).startswith(f"cannot use out: {told}")
    assert refused(OSError(number, os.strerror(number))).startswith(f"cannot use a file: {told}")


def test_ctrl_c_says_what_is_left() -> None:
    error = KeyboardInterrupt()
    error.add_note("what had been made, 3 frames, is in a.mp4")
    assert refused(error) == "stopped by Ctrl-C; what had been made, 3 frames, is in a.mp4"


def test_what_is_stopped_by_another_signal_is_told_by_its_name() -> None:
    assert refused(KeyboardInterrupt("SIGTERM")) == "stopped by SIGTERM"


def test_sigterm_is_told_as_ctrl_c_is_and_ends_no_process_within_a_command() -> None:
    before = signal.getsignal(signal.SIGTERM)

    @refusals()
    def command() -> None:
        assert signal.getsignal(signal.SIGTERM) is not before
        send(signal.SIGTERM)

    with pytest.raises(Stopped, match=r"^stopped by SIGTERM$"):
        command()
    assert signal.getsignal(signal.SIGTERM) is before


def test_other_defects_are_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError), refusals():
        raise ZeroDivisionError


def test_nothing_that_is_told_steers_a_terminal(capsys: Any) -> None:
    say("the file\n \x1b[31mred\x07 \udce9 é")
    report("two\nlines \x9b")
    told = capsys.readouterr()
    assert told.err == "worldsim: the file \\x1b[31mred\\x07 \\udce9 é\n"
    assert told.out == "two\nlines \\x9b\n"
    assert printable("a\tb") == "a\\tb"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["generate", "--start", "x"],
            "Invalid value for '--start': Input should be a valid integer, unable to parse string as an integer, "
            "got 'x'. worldsim generate --help says what fits.",
        ),
        (["generatx"], "No such command 'generatx'. Did you mean 'generate'? worldsim --help says what fits."),
        (["replay"], "Missing argument 'log'. worldsim replay --help says what fits."),
        ([], "Missing command. worldsim --help says what fits."),
    ],
)
def test_a_slip_on_the_command_line_is_told_with_what_was_given_and_the_help_that_says_more(
    arguments: list[str], told: str
) -> None:
    with pytest.raises(typer.TyperException) as slip:
        app(arguments, prog_name="worldsim", standalone_mode=False)
    assert misused(slip.value) == told


def test_a_long_slip_is_cut() -> None:
    for arguments in (["generate", "--" + "x" * 5_000], ["y" * 5_000], ["generate", "--seed", "z" * 5_000]):
        with pytest.raises(typer.TyperException) as slip:
            app(arguments, prog_name="worldsim", standalone_mode=False)
        assert len(misused(slip.value)) < 300


def test_an_encoding_without_a_letter_gets_an_escape() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TELL.format("€ é")],
        capture_output=True,
        timeout=50,
        check=True,
        env=os.environ | {"PYTHONIOENCODING": "latin-1"},
    )
    assert done.stdout == b"\\u20ac \xe9\nafter\n"


def test_a_result_that_nobody_reads_is_dropped_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", TELL.format("a result")], stdout=writer, stderr=subprocess.PIPE, timeout=50, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device here is always full")
def test_a_result_that_cannot_be_written_is_refused_once() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", TELL.format("a result")],
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=50,
            check=False,
        )
    *_, last = done.stderr.decode().splitlines()
    assert last == "worldsim_apps.telling.Refused: all is done, but stdout cannot be written to: " + (
        "No space left on device; lead it elsewhere"
    )


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes."),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore of it"),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
    ],
)
def test_too_little_memory_is_told_with_what_takes_less_of_it(error: BaseException) -> None:
    error.add_note("the part is in a.mp4")
    told = refused(error)
    assert told.startswith("there is too little memory for this; close other programs")
    assert "--policy window:frames=12" in told
    assert "--budget 256MB" in told
    assert told.endswith("; the part is in a.mp4")
    assert "\n" not in told


def test_a_full_pool_says_what_it_is_and_a_defect_of_torch_is_not_hidden() -> None:
    assert refused(PoolFull("the pool is full")) == "the pool is full"
    with pytest.raises(RuntimeError, match="shapes differ"), refusals():
        raise RuntimeError("shapes differ")
