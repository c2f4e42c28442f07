"""Files of tensors are whole or not there, others may read them, and what was left half written goes."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from worldsim.errors import ConfigError, WeightsError
from worldsim.files import (
    check_finite,
    check_free,
    check_holds_weights,
    checksum,
    drop_unfinished,
    make_folder,
    make_folders,
    naming,
    new_folder,
    path_of,
    read_bytes,
    write_tensors,
)
from worldsim.locks import locked

TENSORS = {
    "turned": torch.arange(6, dtype=torch.int16).view(2, 3).T,
    "number": torch.tensor(3.5),
    "half": torch.ones(3, dtype=torch.bfloat16, requires_grad=True),
}


@contextmanager
def limited_files() -> Iterator[None]:
    """No file grows beyond 100 bytes, as on a disk that is full."""
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
        signal.signal(signal.SIGXFSZ, handler)


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "some.safetensors"
    write_tensors(path, TENSORS, {"a": [1, None]})
    assert all(torch.equal(tensor, TENSORS[name]) for name, tensor in load_file(path).items())
    with safe_open(path, framework="pt") as file:
        assert {*file.keys()} == {*TENSORS}
        assert json.loads(file.metadata()["worldsim"]) == {"a": [1, None]}
    write_tensors(path, TENSORS)
    with safe_open(path, framework="pt") as file:
        assert file.metadata() is None
    assert [*tmp_path.iterdir()] == [path]


def test_a_file_is_replaced_only_by_a_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "some.safetensors"
    write_tensors(path, TENSORS)
    whole = path.read_bytes()
    with limited_files(), pytest.raises(OSError, match=r"some.safetensors cannot be written \(File too large\); free"):
        write_tensors(path, TENSORS, {"more": "x" * 100})
    assert path.read_bytes() == whole
    assert [*tmp_path.iterdir()] == [path], "what is torn takes no room from what is whole"


def test_of_files_that_are_written_to_one_path_at_once_each_is_whole_and_the_last_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, fsync, first = tmp_path / "some.safetensors", os.fsync, {"first": torch.zeros(3)}

    def meanwhile(descriptor: int) -> None:
        monkeypatch.undo()
        write_tensors(path, first)
        assert {*load_file(path)} == {*first}
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", meanwhile)
    write_tensors(path, TENSORS)
    assert {*load_file(path)} == {*TENSORS}
    assert [*tmp_path.iterdir()] == [path]


def test_a_file_that_is_taken_for_what_was_left_before_it_is_locked_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "some.safetensors"

    def too_late(descriptor: int) -> bool:
        monkeypatch.undo()
        drop_unfinished(tmp_path)
        assert not [*tmp_path.iterdir()]
        return locked(descriptor)

    monkeypatch.setattr("worldsim.files.locked", too_late)
    write_tensors(path, TENSORS)
    assert [*tmp_path.iterdir()] == [path]


def test_a_file_that_is_written_takes_away_what_was_left_of_it_and_of_no_other(tmp_path: Path) -> None:
    names = ("a[1].save.7.part", "a[1].save.8.part", "b.save.7.part", "a1.save.7.part", "a[1].save.x.part")
    left, going, *others = (tmp_path / name for name in names)
    for each in (left, going, *others):
        each.touch()
    with going.open("r+b") as file:
        assert locked(file.fileno())
        write_tensors(tmp_path / "a[1].save", TENSORS)
        assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "a[1].save", going, *others])


def test_where_there_are_no_locks_nothing_counts_as_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.save.7.part").touch()
    monkeypatch.setattr("worldsim.files.locked", lambda descriptor: True)
    drop_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.save.7.part"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_the_umask_says_who_may_read_a_file(tmp_path: Path, umask: int, mode: int) -> None:
    usual = os.umask(umask)
    try:
        write_tensors(tmp_path / "some.safetensors", TENSORS)
    finally:
        os.umask(usual)
    assert (tmp_path / "some.safetensors").stat().st_mode & 0o777 == mode


def test_a_checksum_tells_every_change_of_numbers_names_shapes_kinds_and_header() -> None:
    same = checksum({name: tensor.clone() for name, tensor in reversed(TENSORS.items())}, {"a": 1, "b": 2})
    assert checksum(TENSORS, {"b": 2, "a": 1}) == same
    others: list[dict[str, torch.Tensor]] = [
        TENSORS | {"number": torch.tensor(3.25)},
        TENSORS | {"number": torch.tensor([3.5])},
        TENSORS | {"turned": TENSORS["turned"].reshape(2, 3)},
        TENSORS | {"half": torch.ones(3, dtype=torch.float16)},
        {name: tensor for name, tensor in TENSORS.items() if name != "number"},
    ]
    sums = [checksum(other, {"a": 1, "b": 2}) for other in others] + [checksum(TENSORS, {"a": 1, "b": 3})]
    assert len({same, *sums}) == 7


def test_a_folder_is_made_or_it_is_told_what_is_in_the_way(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert [*(tmp_path / "a" / "b").iterdir()] == []
    (tmp_path / "file").touch()
    for wrong in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match=rf"{wrong} is no folder that can be written to \(.+\); name another one"):
            make_folder(wrong)


def test_what_a_killed_process_left_half_written_goes_and_what_is_being_written_stays(tmp_path: Path) -> None:
    names = ("a.safetensors.7.part", "b.save.8.part", "c.safetensors", "film.mp4.part", "7.part")
    left, going, *others = (tmp_path / name for name in names)
    for path in (left, going, *others):
        path.touch()
    code = "import sys, time; from worldsim.locks import locked; file = open(sys.argv[1], 'r+b'); "
    code += "print(locked(file.fileno()), flush=True); time.sleep(60)"
    command = [sys.executable, "-c", code, str(going)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writing:
        assert writing.stdout is not None
        assert writing.stdout.readline() == "True\n"
        drop_unfinished(tmp_path)
        assert sorted(tmp_path.iterdir()) == sorted([going, *others])
        writing.kill()
    drop_unfinished(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(others)


@pytest.mark.parametrize("given", [Path("a/b"), "a/b"])
def test_a_path_is_a_text_or_a_path(given: Path | str) -> None:
    assert path_of(given, "log") == Path("a/b")


@pytest.mark.parametrize("given", [5, None, b"a", ["a"], ""])
def test_what_is_no_path_is_told_by_the_name_of_its_argument(given: object) -> None:
    with pytest.raises(ConfigError, match=rf"log is a path, as a text or a Path, got {re.escape(repr(given))}"):
        path_of(given, "log")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty, as a download leaves it that failed; get it again"),
        (
            b"<!DOCTYPE html>\n<html>",
            "holds no weights, but a web page that begins with '<!DOCTYPE html>'; get the file",
        ),
        (b"\n <html><head>", "a web page that begins with '<html><head>'"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a pointer of Git LFS that begins with .*; run `git lfs"),
        (b"Entry not found", "a text that begins with 'Entry not found'; get the file itself, with `hf download`"),
        ('{"error": "größer"}'.encode(), "a text that begins with "),
        (None, "is a folder, and weights are a file; name that"),
    ],
)
def test_what_lies_in_place_of_weights_is_told(tmp_path: Path, content: bytes | None, told: str) -> None:
    path = tmp_path / "a.pth"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(WeightsError, match=rf"a.pth {told}" if content is None else told):
        check_holds_weights(path)


def test_what_may_hold_weights_passes(tmp_path: Path) -> None:
    write_tensors(tmp_path / "a.safetensors", TENSORS)
    torch.save(TENSORS, tmp_path / "a.pt")
    torch.save(TENSORS, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for path in tmp_path.iterdir():
        check_holds_weights(path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_numbers_that_are_none_are_told_and_all_others_pass(dtype: torch.dtype) -> None:
    tensor = torch.randn(7, 3, generator=torch.Generator().manual_seed(1)).to(dtype)
    for fine in (tensor, tensor[:0], tensor[0, 0]):
        assert check_finite(fine, "w", "a.pth") is fine
    for wrong in ("nan", "inf", "-inf"):
        spoilt = tensor.clone()
        spoilt[5, 1] = float(wrong)
        with pytest.raises(WeightsError, match=r"a\.pth is damaged: w holds numbers that are none"):
            check_finite(spoilt, "w", "a.pth")


@pytest.mark.parametrize("given", ["a\0b", Path("a\0b"), "a\ud800", "a" * 5_000])
def test_a_path_that_no_file_can_have_is_refused_with_its_argument(given: str | Path) -> None:
    with pytest.raises(ConfigError, match=r"^log is a .*path") as refused:
        path_of(given, "log")
    assert len(str(refused.value)) < 200
    assert str(refused.value).isprintable()


def test_a_device_and_a_pipe_are_not_read_as_files(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, pipes in ((Path("/dev/zero"), False), (Path("/dev/zero"), True), (pipe, False)):
        with pytest.raises(OSError, match="it is a device or a pipe and no file"):
            read_bytes(path, pipes=pipes)


def fed(pipe: Path, text: bytes) -> bytes:
    """What is read of a pipe that somebody writes that into."""
    os.mkfifo(pipe)

    def feed() -> None:
        with suppress(BrokenPipeError):
            pipe.write_bytes(text)

    writer = Thread(target=feed)
    writer.start()
    try:
        return read_bytes(pipe, pipes=True)
    finally:
        writer.join()


def test_a_pipe_is_read_where_one_may_be_and_only_up_to_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worldsim.files.MOST_PIPED", 100_000)
    assert fed(tmp_path / "short", b"x" * 100_000) == b"x" * 100_000
    with pytest.raises(OSError, match="it is a pipe with more than"):
        fed(tmp_path / "long", b"x" * 1_000_000)


def test_folders_are_made_unless_one_on_the_way_is_a_file(tmp_path: Path) -> None:
    make_folders(tmp_path / "a" / "b" / "file")
    assert (tmp_path / "a" / "b").is_dir()
    between = tmp_path / "a" / "text"
    between.write_text("x")
    for path in (between / "file", between / "b" / "file"):
        with pytest.raises(ConfigError, match=f"since {between} is a file and no folder; name another"):
            make_folders(path)
    for link, target in (("loop", "loop"), ("stray", "nowhere")):
        between = tmp_path / link
        between.symlink_to(target)
        with pytest.raises(ConfigError, match=f"since {between} is a link that leads to no folder; name another"):
            make_folders(between / "file")


def left(folder: Path, name: str, number: int = 7) -> Path:
    """What is left of a folder of that name whose process was killed."""
    part = folder / f".{name}.{number}.part"
    part.mkdir(parents=True)
    (part / "model.safetensors").write_bytes(b"half")
    return part


def test_a_folder_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    with pytest.raises(FileNotFoundError), new_folder(out) as beside:
        (beside / "a").rename(beside / "b")
    assert not [*out.parent.iterdir()]
    out.mkdir()
    (tmp_path / "link").symlink_to(out)
    with new_folder(tmp_path / "link") as beside:
        (beside / "a").touch()
        assert not [*out.iterdir()]
    assert [path.name for path in out.iterdir()] == ["a"]
    assert [*out.parent.iterdir()] == [out]


def test_what_killed_processes_left_of_a_folder_goes_and_nothing_else(tmp_path: Path) -> None:
    gone = [left(tmp_path, "o[u]t", number) for number in (7, os.getpid())]
    stay = [left(tmp_path, "other"), left(tmp_path, "o[u]t.2"), tmp_path / ".o[u]t.7x.part", tmp_path / ".o[u]t.8.part"]
    stay[2].mkdir()
    stay[3].touch()
    with new_folder(tmp_path / "o[u]t"):
        assert not gone[0].exists()
        assert not (gone[1] / "model.safetensors").exists()
    assert all(path.exists() for path in stay)


def test_a_folder_that_is_being_filled_is_told_and_left_alone(tmp_path: Path) -> None:
    out, told = (
        tmp_path / "out",
        r"out is being written already, here or in another process; name another folder, or wait",
    )
    with new_folder(out) as beside:
        (beside / "a").touch()
        for refuse in (check_free, lambda path: new_folder(path).__enter__()):
            with pytest.raises(ConfigError, match=told):
                refuse(out)
        check_free(tmp_path / "other")
    assert [path.name for path in out.iterdir()] == ["a"]


def test_a_folder_that_another_process_fills_is_left_alone_until_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from worldsim.files import new_folder\n"
        "with new_folder(Path(sys.argv[1])): print('there', flush=True); sys.stdin.read()"
    )
    out = tmp_path / "out"
    with subprocess.Popen(
        [sys.executable, "-c", program, out], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "there\n"
        with pytest.raises(ConfigError, match="is being written already"):
            check_free(out)
        other.kill()
    assert len([*tmp_path.iterdir()]) == 1
    with new_folder(out):
        pass
    assert [*tmp_path.iterdir()] == [out]


def test_what_is_in_the_way_of_a_folder_is_told(tmp_path: Path) -> None:
    check_free(tmp_path / "new" / "folder")
    (tmp_path / "empty").mkdir()
    check_free(tmp_path / "empty")
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file"):
        with pytest.raises(ConfigError, match="is there and not an empty folder; name a new one, or remove it first"):
            check_free(path)
    with pytest.raises(ConfigError, match=r"x cannot be made, since .*file is a file and no folder; name another"):
        check_free(tmp_path / "file" / "x")


def test_an_error_of_the_file_system_gets_the_name_that_is_meant() -> None:
    for given in (None, "part"):
        with pytest.raises(OSError, match="File too large") as error, naming(Path("out")):
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), given)
        assert error.value.filename == "out"
    with pytest.raises(OSError, match=r"^all is said$"), naming(Path("out")):
        raise OSError("all is said")
