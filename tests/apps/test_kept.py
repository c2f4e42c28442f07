"""The folder of worlds: what was kept is found again, torn or not, and nothing outside of it is touched."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from worldsim.errors import ConfigError, LogError, ProtocolError, SnapshotError
from worldsim.runtime import snapshot as snapshots
from worldsim.testing.fakes import tiny_world
from worldsim_apps import kept as module
from worldsim_apps.kept import Kept

WALK = [{"KeyD"}, {"KeyD", "Space"}, set(), {"ArrowLeft"}, {"KeyA"}, {"Space"}, set()]
NAME = "0123456789abcdef" * 2


@pytest.fixture
def kept(tmp_path):
    return Kept(tmp_path / "worlds")


def folder(kept: Kept) -> Path:
    return kept.log(NAME).parent


def names(kept: Kept) -> list[str]:
    return sorted(path.name for path in folder(kept).iterdir())


def lived(kept: Kept, name: str, blocks: int = 5):
    """A session of the tiny world that is logged under that name."""
    session = tiny_world().open(seed=4, log=kept.log(name))
    for keys in WALK[:blocks]:
        session.step(keys)
    return session


def future(session) -> list[str]:
    return [step.frames for step in (session.step(keys) and session.latest for keys in WALK)]


def refusal(call, *arguments) -> tuple[str, int | None, str]:
    with pytest.raises(ProtocolError) as caught:
        call(*arguments)
    return caught.value.code, caught.value.close, str(caught.value)


def tear(path: Path) -> None:
    """Leave half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_the_folder_is_made_for_nobody_else(tmp_path):
    Kept(tmp_path / "some" / "where")
    assert (tmp_path / "some" / "where").stat().st_mode & 0o077 == 0
    Kept(tmp_path / "some" / "where")


def test_names_are_32_hexadecimal_digits_and_never_come_twice(kept):
    drawn = [kept.new_name() for _ in range(1_000)]
    assert all(re.fullmatch("[0-9a-f]{32}", name) for name in drawn)
    assert len(set(drawn)) == 1_000
    assert names(kept) == []


def test_what_was_saved_is_found_and_goes_on_bit_for_bit(kept):
    name = kept.new_name()
    session = lived(kept, name)
    kept.save(name, session.snapshot())
    found, *_ = kept.find(name)
    assert found.log == session.log
    assert found.keep == "pages"
    assert future(tiny_world().restore(found)) == future(session)
    assert names(kept) == [f"{name}.log", f"{name}.world"]


def test_what_was_saved_is_where_it_was_then_although_the_log_goes_on(kept):
    name = kept.new_name()
    session = lived(kept, name, 3)
    kept.save(name, session.snapshot())
    session.step()
    assert len(kept.find(name)[0].log.steps) == 3


def test_what_was_never_saved_is_found_by_its_log(kept):
    name = kept.new_name()
    session = lived(kept, name)
    found, *_ = kept.find(name)
    assert (found.keep, found.state, found.log) == ("log", None, session.log)
    assert future(tiny_world().restore(found)) == future(session)


@pytest.mark.parametrize(
    "damage", [tear, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"x" * 999)]
)
def test_of_a_torn_world_the_one_that_was_saved_before_it_is_found(kept, damage):
    name = kept.new_name()
    session = lived(kept, name, 2)
    kept.save(name, session.snapshot())
    session.step()
    kept.save(name, session.snapshot())
    assert len(kept.find(name)[0].log.steps) == 3
    damage(folder(kept) / f"{name}.world")
    found, *_ = kept.find(name)
    assert len(found.log.steps) == 2
    assert tiny_world().restore(found).block == 2


def test_a_world_that_is_gone_is_found_as_it_was_saved_before(kept):
    name = kept.new_name()
    session = lived(kept, name, 2)
    for _ in range(2):
        kept.save(name, session.snapshot())
    (folder(kept) / f"{name}.world").unlink()
    assert len(kept.find(name)[0].log.steps) == 2


@pytest.mark.parametrize("saves", [1, 2])
def test_of_torn_worlds_the_log_is_found(kept, saves):
    name = kept.new_name()
    session = lived(kept, name)
    for _ in range(saves):
        kept.save(name, session.snapshot())
    for path in folder(kept).glob(f"{name}.world*"):
        tear(path)
    found, *_ = kept.find(name)
    assert (found.keep, found.log) == ("log", session.log)


def test_a_world_of_another_version_is_passed_over_as_a_torn_one_is(kept, monkeypatch):
    name = kept.new_name()
    session = lived(kept, name)
    monkeypatch.setattr(snapshots, "FORMAT", snapshots.FORMAT + 1)
    kept.save(name, session.snapshot())
    monkeypatch.undo()
    assert kept.find(name)[0].keep == "log"


def test_a_torn_log_is_found_up_to_where_it_is_whole(kept):
    name = kept.new_name()
    lived(kept, name, 5)
    path = kept.log(name)
    path.write_bytes(path.read_bytes()[:-3])
    assert len(kept.find(name)[0].log.steps) == 4


def test_when_all_is_torn_it_is_said_so(kept):
    name = kept.new_name()
    session = lived(kept, name)
    kept.save(name, session.snapshot())
    for path in folder(kept).iterdir():
        path.write_bytes(b"torn")
    with pytest.raises(SnapshotError, match=f"^{name}.world is no whole snapshot"):
        kept.find(name)


def test_a_damaged_log_keeps_nothing_from_what_was_saved_and_it_is_told(kept):
    name = kept.new_name()
    session = lived(kept, name, blocks=2)
    kept.save(name, session.snapshot())
    saved = session.log
    session.step({"KeyD"})
    path = kept.log(name)
    for damaged in (b"", b"garbage", path.read_bytes().replace(b"KeyD", b"KeyE", 1)):
        path.write_bytes(damaged)
        found, beyond, damage = kept.find(name)
        assert (found.keep, found.log, beyond) == ("pages", saved, ())
        assert f"{name}.log" in damage


def test_a_torn_world_is_told_where_its_log_is_whole(kept):
    name = kept.new_name()
    session = lived(kept, name)
    kept.save(name, session.snapshot())
    tear(folder(kept) / f"{name}.world")
    found, beyond, damage = kept.find(name)
    assert (found.keep, found.log, beyond) == ("log", session.log, ())
    assert damage.startswith(f"{name}.world is no whole snapshot")


def test_when_a_world_is_torn_and_has_no_log_that_is_said(kept):
    name = kept.new_name()
    kept.save(name, lived(kept, name).snapshot())
    kept.forget(name)
    tear(folder(kept) / f"{name}.world")
    with pytest.raises(SnapshotError, match=f"^{name}.world is no whole snapshot"):
        kept.find(name)


def test_of_a_session_that_is_forgotten_nothing_is_found(kept):
    name, other = kept.new_name(), kept.new_name()
    lived(kept, name)
    lived(kept, other)
    kept.forget(name)
    assert refusal(kept.find, name) == ("no_world", None, f"no world is kept under {name!r}")
    assert names(kept) == [f"{other}.log"]
    kept.forget(name)


def test_what_was_saved_is_not_forgotten(kept):
    name = kept.new_name()
    session = lived(kept, name)
    kept.save(name, session.snapshot())
    kept.forget(name)
    assert kept.find(name)[0].log == session.log
    assert names(kept) == [f"{name}.world"]


def test_a_save_that_fails_leaves_what_was_there(kept, monkeypatch):
    name = kept.new_name()
    session = lived(kept, name, 2)
    kept.save(name, session.snapshot())
    session.step()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        kept.save(name, session.snapshot())
    monkeypatch.undo()
    assert len(kept.find(name)[0].log.steps) == 2
    assert names(kept) == [f"{name}.log", f"{name}.world"]


def test_a_name_under_which_nothing_is_kept_is_named(kept):
    assert refusal(kept.find, NAME) == ("no_world", None, f"no world is kept under {NAME!r}")


BAD_NAMES = [
    "",
    ".",
    "..",
    "/",
    "../" + NAME,
    "../secret",
    "..\\secret",
    "../../../../etc/passwd",
    "..%2fsecret",
    "%2e%2e%2fsecret",
    "....//secret",
    "./" + NAME,
    NAME + "/",
    NAME + "/..",
    NAME + "/../secret",
    NAME[:-3] + "/..",
    "../" + NAME[3:],
    "/" + NAME[1:],
    "/etc/passwd",
    "/dev/zero",
    "//server/share",
    "\\\\server\\share",
    "C:\\secret",
    "file:///etc/passwd",
    "~/secret",
    "~root",
    "$HOME",
    "secret",
    "secret.log",
    "secret.world",
    NAME + ".log",
    NAME + ".world",
    NAME + ".world.before",
    NAME + "\n",
    NAME + "\x00",
    "\x00" + NAME[1:],
    NAME[:-1],
    NAME + "0",
    " " + NAME[1:],
    NAME[:-1] + " ",
    NAME.upper(),
    "g" * 32,
    "*" * 32,
    "?" * 32,
    "." * 32,
    "../" * 10 + "ab",
    "\u0660" * 32,
    "\uff10" * 32,
    "\ud800" * 32,
    "a" * 10_000,
]


@pytest.fixture(scope="module")
def one_block():
    """A session of one block, as it is saved."""
    session = tiny_world().open(seed=4)
    session.step({"KeyD"})
    return session.snapshot()


@pytest.fixture
def untouched(tmp_path, kept, one_block, monkeypatch):
    """Worlds in the folder, beside it and below it; none is read, and afterwards all is as it was."""
    for name in ("secret", NAME):
        for path in (tmp_path / name, folder(kept) / name, folder(kept) / "inside" / name):
            snapshots.write_snapshot(path.with_name(f"{name}.world"), one_block)
            path.with_name(f"{name}.log").write_bytes(one_block.log.encode())
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def fail(*_: object) -> None:
        raise AssertionError("a file was read or written")

    with monkeypatch.context() as patched:
        for name in ("read_snapshot", "write_snapshot", "read_log"):
            patched.setattr(f"worldsim_apps.kept.{name}", fail)
        yield
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: ascii(name[:40]))
def test_a_name_that_is_none_reads_and_writes_nothing(kept, one_block, name):
    says = ("no_world", None, "a world is kept under 32 hexadecimal digits, as `saved` named it")
    assert refusal(kept.find, name) == says
    assert refusal(kept.log, name) == says
    assert refusal(kept.forget, name) == says
    assert refusal(kept.save, name, one_block) == says


def test_the_corpus_is_as_long_as_it_should_be():
    assert len(set(BAD_NAMES)) >= 45


@given(st.text(st.characters(), max_size=40) | st.from_regex(r"[0-9a-f/.]{30,33}", fullmatch=True))
@example(NAME)
def test_only_a_name_becomes_a_path_and_that_one_is_in_the_folder(tmp_path_factory, name):
    home = tmp_path_factory.getbasetemp() / "kept"
    kept = Kept(home)
    try:
        path = kept.log(name)
    except ProtocolError:
        assert not re.fullmatch("[0-9a-f]{32}", name)
        return
    assert path == home / f"{name}.log"
    assert path.resolve().parent == home.resolve()


def test_a_folder_that_is_full_begins_nothing_new_but_gives_back_what_it_has(tmp_path, monkeypatch):
    now = 100.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    with (tmp_path / "large").open("wb") as file:
        file.truncate(2_000_000_001)
    kept, name = Kept(tmp_path, most_bytes=2_000_000_000), NAME
    session = lived(kept, name)
    assert refusal(kept.new_name) == ("disk_full", None, "this server keeps 2 GB of worlds and no more")
    kept.save(name, session.snapshot())
    assert kept.find(name)[0].log == session.log
    (tmp_path / "large").unlink()
    now += 9.9
    assert refusal(kept.new_name)[0] == "disk_full"
    now += 0.2
    assert kept.new_name() != name


def test_what_was_saved_and_the_logs_of_what_has_ended_fill_the_folder(tmp_path):
    kept = Kept(tmp_path)
    session = lived(kept, NAME)
    assert kept.size == 0
    kept.settle(NAME)
    log = kept.log(NAME).stat().st_size
    assert kept.size == log
    for _ in range(3):  # the newest and the one before it
        kept.save(NAME, session.snapshot())
    world = (tmp_path / f"{NAME}.world").stat().st_size
    assert kept.size == log + 2 * world == Kept(tmp_path).size


def test_another_machine_saves_a_quarter_of_the_folder_and_this_one_all(tmp_path):
    kept = Kept(tmp_path)
    session = lived(kept, NAME)
    kept.save(NAME, session.snapshot())
    size = (tmp_path / f"{NAME}.world").stat().st_size
    kept = Kept(tmp_path, most_bytes=12 * size)

    def save(owner: str) -> None:
        kept.save(kept.new_name(), session.snapshot(), owner)

    for _ in range(4):
        save("192.0.2.1")
    assert refusal(save, "192.0.2.1")[0] == "too_much"
    save("192.0.2.2")
    for _ in range(6):
        save("127.0.0.1")
    assert kept.size == 12 * size + kept.log(NAME).stat().st_size


def test_what_a_killed_process_had_begun_to_write_is_removed_although_its_number_is_in_use_again(tmp_path):
    path = tmp_path / f"a.world.{os.getpid()}.part"
    path.write_bytes(bytes(10))
    Kept(tmp_path)
    assert not path.exists()


def test_a_file_of_several_names_counts_once(tmp_path):
    kept = Kept(tmp_path)
    kept.save(NAME, lived(kept, NAME).snapshot(), "192.0.2.1")
    size, charged = kept.size, kept._saved_by["192.0.2.1"]
    for number in range(3):
        kept.begin_from(f"{number:032x}", NAME)
    assert len(list(tmp_path.glob("*.world"))) == 4
    assert Kept(tmp_path).size == size + kept.log(NAME).stat().st_size
    assert (kept.size, charged) == (size, size)


def test_a_session_that_is_forgotten_takes_its_link_with_it_and_nothing_that_was_saved(kept):
    session, twin, other = lived(kept, NAME), "1" * 32, "2" * 32
    kept.save(NAME, session.snapshot())
    for name in (twin, other):
        kept.begin_from(name, NAME)
    kept.save(other, session.snapshot())
    for name in (twin, other):
        kept.forget(name)
    assert names(kept) == [f"{NAME}.log", f"{NAME}.world", f"{other}.world", f"{other}.world.before"]


def test_what_cannot_be_deleted_is_logged_and_ends_nothing(kept, monkeypatch, caplog):
    lived(kept, NAME)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refuse)
        kept.forget(NAME)
    assert caplog.messages == [f"{kept.log(NAME)} could not be deleted"]
    assert kept.holds(NAME)


def test_where_no_link_can_be_made_that_is_logged(kept, monkeypatch, caplog):
    kept.save(NAME, lived(kept, NAME).snapshot())

    def refuse(*_: object) -> None:
        raise OSError(31, "Too many links")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    kept.begin_from("1" * 32, NAME)
    assert "has only its log until it is saved" in caplog.text
    assert not kept.holds("1" * 32)


@pytest.mark.parametrize("logged", [1, 10_000])
def test_a_log_of_which_not_all_is_there_is_not_saved_with_a_world(kept, logged):
    session = lived(kept, NAME)
    kept.log(NAME).write_bytes(b"")
    with pytest.raises(LogError, match=f"{NAME}.log has 0 of the {logged} bytes"):
        kept.save(NAME, session.snapshot(), logged=logged)
    assert names(kept) == [f"{NAME}.log"]


@pytest.mark.parametrize("folder", ["/proc/nowhere", "/dev/null", "/dev/null/below"])
def test_a_folder_in_which_nothing_can_be_kept_is_named_with_what_to_do(folder):
    with pytest.raises(ConfigError, match=rf"{folder}\b.*name .*--folder"):
        Kept(Path(folder))


def test_a_folder_that_cannot_be_written_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    with pytest.raises(ConfigError, match=r"cannot be kept in .*Permission denied"):
        Kept(tmp_path)


def test_a_torn_log_is_refused_without_a_word_of_where_it_lies(kept):
    lived(kept, NAME)
    path = kept.log(NAME)
    path.write_text(path.read_text().replace("KeyD", "KeyE", 1))
    with pytest.raises(LogError) as caught:
        kept.find(NAME)
    assert NAME in str(caught.value)
    assert str(folder(kept)) not in str(caught.value)


@pytest.mark.parametrize("size", [999, 1_000, 1_001])
def test_a_folder_is_full_when_all_in_it_is_more_than_it_may_be(tmp_path, size):
    (tmp_path / f"{NAME}.log").write_bytes(bytes(400))
    (tmp_path / f"{NAME}.world").write_bytes(bytes(size - 400))
    kept = Kept(tmp_path, most_bytes=1_000)
    if size > 1_000:
        assert refusal(kept.new_name)[0] == "disk_full"
    else:
        kept.new_name()


def test_a_file_that_goes_away_while_sizes_are_added_up_is_no_mistake(kept):
    """As the unfinished part of a world does that is being saved; a link to nothing looks the same."""
    (folder(kept) / f"{NAME}.world.7.part").symlink_to(folder(kept) / "nothing")
    assert len(kept.new_name()) == 32


def test_what_a_log_has_beyond_what_was_saved_comes_with_it(kept):
    session = lived(kept, NAME, blocks=2)
    kept.save(NAME, session.snapshot())
    for keys in WALK[2:5]:
        session.step(keys)
    saved, beyond, _ = kept.find(NAME)
    assert (saved.keep, len(saved.log.steps)) == ("pages", 2)
    assert beyond == session.log.steps[2:]


def test_a_log_that_has_left_what_was_saved_counts_alone(kept):
    session = lived(kept, NAME, blocks=3)
    kept.save(NAME, session.snapshot())
    session.rewind(2)
    session.step({"Space"})
    found, beyond, _ = kept.find(NAME)
    assert (found.keep, found.log, beyond) == ("log", session.log, ())


def test_after_a_rewind_past_what_was_saved_last_what_was_saved_before_it_counts(kept):
    session = lived(kept, NAME, blocks=2)
    kept.save(NAME, session.snapshot())
    session.step({"KeyD"})
    session.step({"KeyD"})
    kept.save(NAME, session.snapshot())
    session.rewind(1)
    session.step({"Space"})
    found, beyond, damage = kept.find(NAME)
    assert (found.keep, len(found.log.steps), damage) == ("pages", 2, "")
    assert beyond == session.log.steps[2:]


def test_logs_and_films_of_another_machine_are_charged_to_it(tmp_path):
    kept = Kept(tmp_path, most_bytes=10_000)
    for name, ending in (("1" * 32, ".log"), ("2" * 32, ".mp4")):
        (tmp_path / f"{name}{ending}").write_bytes(bytes(1_500))
        assert len(kept.new_name("192.0.2.1")) == 32
        kept.settle(name, "192.0.2.1")
        kept.settle(name, "192.0.2.1")  # counted once
    assert refusal(kept.new_name, "192.0.2.1")[0] == "too_much"
    assert len(kept.new_name("192.0.2.2")) == len(kept.new_name()) == 32
