"""A log on disk: whole after every record, never overwritten, and gone on with behind what was torn."""

from __future__ import annotations

import errno
import gc
import os
import signal
import subprocess
import sys
import time

import pytest

from worldsim.errors import ConfigError, LogError, NotReproduced
from worldsim.runtime.journal import Journal, read_log
from worldsim.session.log import Opening, Rewind, SessionLog, Step
from worldsim.testing.fakes import tiny_world

OPENING = Opening(world="dot", weights="", plan={}, machine={}, seed=7, start=0)
LIVE = """
import sys
from worldsim.testing.fakes import tiny_world
session = tiny_world().open(seed=4, log=sys.argv[1])
while True:
    session.step({"KeyD"} if session.block % 3 else {"Space"})
    print(session.block, flush=True)
"""


def step(block: int) -> Step:
    return Step(block=block, keys=frozenset({"KeyA"}), latents="l", frames="f")


def begun(path) -> Journal:
    return Journal.begin(path, SessionLog(opening=OPENING, steps=(step(0),)))


def test_every_record_is_in_the_file_when_it_was_added(tmp_path):
    path = tmp_path / "new" / "log"
    journal = begun(path)
    assert read_log(path).steps == (step(0),)
    journal.append(step(1), step(2))
    assert read_log(path).steps == (step(0), step(1), step(2))
    journal.append(Rewind(1))
    assert read_log(path).steps == (step(0),)
    journal.close()
    journal.close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_log_is_never_overwritten(tmp_path):
    begun(tmp_path / "log").close()
    before = (tmp_path / "log").read_bytes()
    with pytest.raises(ConfigError, match="exists and a log is never overwritten"):
        begun(tmp_path / "log")
    assert (tmp_path / "log").read_bytes() == before


def test_going_on_cuts_off_what_was_torn(tmp_path):
    path = tmp_path / "log"
    begun(path).close()
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"block": 1, "keys"')
    journal = Journal.go_on(path)
    assert path.read_bytes() == whole
    journal.append(step(1))
    assert read_log(path).steps == (step(0), step(1))


def test_one_session_at_a_time_writes_to_a_log_and_anybody_reads_it(tmp_path):
    world, path = tiny_world(), tmp_path / "log"
    refusal = "log is in use by another session, here or in another process; close that one first, or go on with a"
    with world.open(seed=4, log=path) as session:
        session.step({"KeyD"})
        with pytest.raises(LogError, match=refusal):
            world.go_on(path)
        assert read_log(path) == session.log
        session.step({"KeyA"})
        live = session.log
    first = world.go_on(path)
    with pytest.raises(LogError, match=refusal):
        world.go_on(path)
    first.step()
    assert read_log(path).steps[:2] == live.steps
    first.close()
    with world.go_on(path) as again:
        assert again.block == 3
    assert world.pool.used == 0


def test_a_torn_end_is_not_cut_off_while_another_session_writes(tmp_path):
    journal = begun(tmp_path / "log")
    with (tmp_path / "log").open("ab") as file:
        file.write(b'{"block": 1')
    before = (tmp_path / "log").read_bytes()
    with pytest.raises(LogError, match="in use by another"):
        Journal.go_on(tmp_path / "log")
    assert (tmp_path / "log").read_bytes() == before
    journal.close()


@pytest.mark.timeout(180)
def test_a_log_is_in_use_until_the_process_that_writes_it_ends(tmp_path):
    path = tmp_path / "log"
    with subprocess.Popen([sys.executable, "-c", LIVE, str(path)], stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        with pytest.raises(LogError, match="in use by another session"):
            tiny_world().go_on(path)
        os.kill(process.pid, signal.SIGKILL)
    with tiny_world().go_on(path) as session:
        assert session.block >= 1


def test_a_session_that_was_dropped_or_could_not_go_on_leaves_its_log_free(tmp_path):
    world, path = tiny_world(), tmp_path / "log"
    session = world.open(seed=4, log=path)
    session.step({"KeyD"})
    del session
    gc.collect()
    for _ in range(2):
        with pytest.raises(LogError, match="load the world as it was then"):
            tiny_world(frames_per_block=2).go_on(path)
    world.go_on(path).close()


@pytest.mark.parametrize(("error", "goes_on"), [(errno.ENOLCK, True), (errno.ENOTSUP, True), (errno.EIO, False)])
def test_a_file_system_without_locks_is_written_to_without(tmp_path, monkeypatch, error, goes_on):
    def refusing(*_):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr("fcntl.flock", refusing)
    if not goes_on:
        with pytest.raises(OSError, match=os.strerror(error)):
            begun(tmp_path / "log")
        assert list(tmp_path.iterdir()) == []
        return
    journal = begun(tmp_path / "log")
    journal.append(step(1))
    assert read_log(tmp_path / "log").steps == (step(0), step(1))


def test_a_saved_session_is_told_from_a_log(tmp_path):
    world = tiny_world()
    with world.open(seed=4) as session:
        session.step()
        session.save(tmp_path / "life.save")
    before = (tmp_path / "life.save").read_bytes()
    for read in (read_log, world.go_on):
        with pytest.raises(LogError, match=r"life.save is a saved session and no log; worldsim.restore goes on"):
            read(tmp_path / "life.save")
    assert (tmp_path / "life.save").read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"hello\n", bytes(range(256))])
def test_what_is_no_log_is_refused_with_its_name_and_left_as_it_is(tmp_path, content):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    for read in (read_log, Journal.go_on):
        with pytest.raises(LogError, match=r"notes.txt: this is no session log"):
            read(path)
    assert path.read_bytes() == content
    with pytest.raises(LogError, match="cannot be read"):
        read_log(tmp_path / "nowhere")


@pytest.mark.timeout(180)
@pytest.mark.parametrize("moment", [0.0, 0.03, 0.11])
def test_a_session_that_was_killed_loses_the_block_in_flight_and_no_more(tmp_path, moment):
    path = tmp_path / "log"
    with subprocess.Popen([sys.executable, "-c", LIVE, str(path)], stdout=subprocess.PIPE, text=True) as process:
        for _ in range(5):
            process.stdout.readline()
        time.sleep(moment)
        os.kill(process.pid, signal.SIGKILL)
        told = [int(line) for line in process.stdout.read().split()]
    shown = max([5, *told])
    world = tiny_world()
    with world.go_on(path) as session:
        assert shown <= session.block <= shown + 1
        goes_on = session.step({"KeyA"})
    with world.open(seed=4) as other:
        for block in range(goes_on.block):
            other.step({"KeyD"} if block % 3 else {"Space"})
        assert (other.step({"KeyA"}).frames == goes_on.frames).all()
    assert len(read_log(path).steps) == goes_on.block + 1


def test_a_log_that_was_changed_is_not_gone_on_with(tmp_path):
    world, path = tiny_world(), tmp_path / "log"
    with world.open(seed=4, log=path) as session:
        session.step({"KeyD"})
        log = session.log
    path.unlink()
    forged = Step(block=0, keys=frozenset({"KeyA"}), latents=log.steps[0].latents, frames=log.steps[0].frames)
    Journal.begin(path, SessionLog(opening=log.opening, steps=(forged,))).close()
    with pytest.raises(NotReproduced, match="block 0 came out otherwise"):
        world.go_on(path)
    assert world.pool.used == 0


@pytest.mark.parametrize("fails", ["write", "fsync"])
def test_a_record_that_could_not_be_written_leaves_nothing_behind(tmp_path, monkeypatch, fails):
    """The disk is full after half of a record, or breaks once it is written: what follows is read all the same."""
    with tiny_world().open(seed=4, log=tmp_path / "walk.log") as session:
        session.step()
        with monkeypatch.context() as patch:
            write = os.write

            def half(descriptor: int, text: bytes) -> int:
                if len(text) < 20:
                    raise OSError(errno.ENOSPC, "no space left")
                return write(descriptor, text[: len(text) // 2])

            def broken(descriptor: int) -> None:
                raise OSError(errno.EIO, "the disk broke")

            patch.setattr(os, fails, half if fails == "write" else broken)
            with pytest.raises(OSError, match=r"(no space left|the disk broke): '.*walk.log'"):
                session.step({"KeyD"})
        session.step({"KeyA"})
        assert read_log(tmp_path / "walk.log").steps == session.log.steps
        assert len(session.log.steps) == 2


def test_a_log_that_cannot_be_begun_leaves_no_file_and_no_memory(tmp_path, monkeypatch):
    world = tiny_world()

    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, "the disk broke")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="the disk broke"):
        world.open(seed=4, log=tmp_path / "walk.log")
    assert list(tmp_path.iterdir()) == []
    assert world.pool.used == 0


def test_a_device_is_no_log_and_a_log_lies_in_no_file(tmp_path):
    for path in ("/dev/zero", "/dev/full"):
        with pytest.raises(LogError, match=f"{path} cannot be read .it is a device or a pipe and no file"):
            read_log(path)
        with pytest.raises(LogError, match=f"{path} cannot be read"):
            tiny_world().go_on(path)
    (tmp_path / "text").write_text("x")
    with pytest.raises(ConfigError, match="text is a file and no folder; name another"):
        tiny_world().open(log=tmp_path / "text" / "walk.log")


@pytest.mark.parametrize("how", ["deleted", "cut off", "added to"])
def test_a_log_that_somebody_else_takes_away_or_changes_is_written_to_no_more_and_the_world_goes_on_in_another(
    tmp_path, how
):
    path = tmp_path / "log"
    with tiny_world().open(seed=1, log=path) as session:
        for _ in range(3):
            session.step()
        if how == "deleted":
            path.unlink()
        elif how == "cut off":
            os.truncate(path, path.stat().st_size - 7)
        else:
            path.write_bytes(path.read_bytes() + b"\n")
        told = "deleted by" if how == "deleted" else r"changed, from \d+ to \d+ bytes, by"
        for _ in range(2):
            with pytest.raises(
                LogError, match=rf"{path} was {told} somebody else, .* fork the session with another file"
            ):
                session.step()
        assert session.block == 3
        with session.fork(log=tmp_path / "other") as twin:
            twin.step()
    log = read_log(tmp_path / "other")
    assert len(log.steps) == 4
    tiny_world().replay(log)
