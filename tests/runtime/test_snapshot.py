"""A session on disk: what comes back is what was saved, or a reason why nothing does."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import worldsim
from worldsim.cache.policies import parse_policy
from worldsim.cache.policy import Window
from worldsim.decoding.rolling import Rolling
from worldsim.decoding.video import VideoState
from worldsim.errors import ConfigError, LogError, SnapshotError
from worldsim.files import drop_unfinished
from worldsim.runtime import snapshot as module
from worldsim.runtime.journal import read_log
from worldsim.runtime.snapshot import glimpse_snapshot, read_snapshot
from worldsim.testing.fakes import tiny_world, told_world

WALK = [{"KeyD"}, {"KeyD", "Space"}, set(), {"ArrowLeft"}, {"KeyA"}, {"Space"}, set()]


def lived(world, blocks=7, **options):
    session = world.open(seed=4, **options)
    for block in range(blocks):
        session.step(WALK[block % 7])
    return session


def future(session):
    return [step.frames for step in (session.step(keys) and session.log.steps[-1] for keys in WALK)]


@pytest.mark.parametrize("frames_per_block", [1, 2])
@pytest.mark.parametrize("keep", ["log", "pages"])
@pytest.mark.parametrize("remembers", [False, True])
def test_a_restored_session_goes_on_bit_for_bit(tmp_path, keep, frames_per_block, remembers):
    world, again = (tiny_world(frames_per_block=frames_per_block, remembers=remembers) for _ in range(2))
    session = lived(world)
    session.save(tmp_path / "here", keep=keep)
    restored = worldsim.restore(tmp_path / "here", world=again)
    assert restored.block == session.block == 7
    assert restored.log == session.log
    assert future(restored) == future(session)
    restored.rewind(10)
    session.rewind(10)
    assert future(restored) == future(session)


def rolling_world():
    world = tiny_world(steps=3)
    world.plan = replace(world.plan, rolling=Rolling(joint=Window(frames=2)))
    return world


@pytest.mark.parametrize("keep", ["log", "pages"])
def test_a_session_whose_window_rolls_goes_on_bit_for_bit(tmp_path, keep):
    """What is on its way is kept, as it is by a rewind, a fork and a replay."""
    session = lived(rolling_world())
    session.save(tmp_path / "here", keep=keep)
    restored = worldsim.restore(tmp_path / "here", world=rolling_world())
    twin, mark = session.fork(), session.mark()
    assert future(restored) == future(session) == future(twin)
    session.rewind(mark)
    restored.rewind(7)
    assert future(restored) == future(session)
    rolling_world().replay(session.log, verify=True)


def test_a_snapshot_has_what_is_on_its_way_if_anything_is(tmp_path):
    for world, wanted in ((rolling_world(), (1, 2, 12, 3, 5)), (tiny_world(), None)):
        session = lived(world)
        session.save(tmp_path / "here", keep="latents")
        state = read_snapshot(tmp_path / "here").state
        assert (None if state.ahead is None else state.ahead.shape) == wanted
        if wanted:
            assert torch.equal(state.ahead, session._moment.decoder.state().ahead)


def test_a_snapshot_says_what_no_block_has_heard_if_there_is_any(tmp_path):
    """Without it a file is as it was before that was kept, and files of that time are read."""
    session = told_world().open(seed=4, prompt="a wood")
    session.step()
    headers = []
    for name in ("silent", "told"):
        session.save(tmp_path / name)
        with safe_open(tmp_path / name, framework="pt") as file:
            headers.append(json.loads(file.metadata()["worldsim"]))
        session.set_prompt("a lake by night", over=3)
    assert "coming" not in headers[0]
    assert headers[1]["coming"] == ["a lake by night", 3]
    assert [header["format"] for header in headers] == [module.FORMAT] * 2
    assert [read_snapshot(tmp_path / name).coming for name in ("silent", "told")] == [None, ("a lake by night", 3)]


@pytest.mark.parametrize(
    "coming", [("a lake", 0), ("x" * 4_001, 1), (3, 1), ("a lake", True), ("a", 1, 2), (), ("a", "b")]
)
def test_a_snapshot_that_says_what_nobody_can_be_told_is_refused(tmp_path, coming):
    session = told_world().open(seed=4, prompt="a wood")
    module.write_snapshot(tmp_path / "here", replace(session.snapshot(), coming=coming))
    with pytest.raises(SnapshotError, match="no whole snapshot"):
        read_snapshot(tmp_path / "here")


def test_a_snapshot_of_a_world_of_keys_alone_that_was_told_something_is_refused(tmp_path):
    session = tiny_world().open(seed=4)
    module.write_snapshot(tmp_path / "here", replace(session.snapshot(), coming=("a lake", 1)))
    with pytest.raises(SnapshotError, match="keys alone"):
        read_snapshot(tmp_path / "here")


@pytest.mark.parametrize("keep", ["log", "pages"])
def test_a_session_that_brings_back_what_was_told_alike_goes_on_bit_for_bit(tmp_path, keep):
    world, again = (told_world(policy=parse_policy("blockvid:recent=2,top=1,run=2,bank=4,tau=1")) for _ in range(2))
    session = world.open(seed=4, prompt="a wood")
    for prompt in ("a lake by night", "the sea and ships"):
        for _ in range(2):
            session.step()
        session.set_prompt(prompt)
    session.step()
    session.save(tmp_path / "here", keep=keep)
    restored = worldsim.restore(tmp_path / "here", world=again)
    for each in (session, restored):
        each.set_prompt("a wood", over=2)
    assert future(restored) == future(session)


@pytest.mark.parametrize("keep", ["log", "latents", "pages"])
def test_a_session_is_saved_before_its_first_block(tmp_path, keep):
    world = told_world()
    session = world.open(seed=4, prompt="a wood")
    session.save(tmp_path / "here", keep=keep)
    restored = worldsim.restore(tmp_path / "here", world=world)
    assert future(restored) == future(session)


def test_what_latents_restore_goes_on_at_once_and_about_the_same(tmp_path):
    world = tiny_world()
    session = lived(world)
    session.save(tmp_path / "here", keep="latents")
    restored = worldsim.restore(tmp_path / "here", world=world)
    assert restored.log == session.log
    assert restored._moment.decoder.context.frames == session._moment.decoder.context.frames
    one, other = (made.step(WALK[0]).frames.astype(int) for made in (session, restored))
    far = lived(world, 7)
    far.step({"Space"})
    assert abs(one - other).mean() < abs(one - far.step(WALK[0]).frames.astype(int)).mean()


@pytest.mark.parametrize("start", [{"start": 2}, "frames"])
def test_every_kind_of_beginning_is_kept(tmp_path, start):
    world = tiny_world()
    if start == "frames":
        first = [world.open(seed=1).step(keys).frames[0] for keys in WALK[:3]]
        start = {"frames": np.stack(first), "keys": WALK[:3]}
    session = lived(world, **start)
    session.save(tmp_path / "here", keep="log")
    assert future(worldsim.restore(tmp_path / "here", world=world)) == future(session)


def test_sizes_grow_with_what_is_kept(tmp_path):
    session = lived(tiny_world())
    sizes = []
    for keep in ("log", "latents", "pages"):
        session.save(tmp_path / keep, keep=keep)
        sizes.append((tmp_path / keep).stat().st_size)
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2] / 3


def test_the_snapshot_before_stays_beside_the_new_one(tmp_path):
    session = lived(tiny_world(), 3)
    for blocks in (3, 4, 5):
        session.save(tmp_path / "here")
        assert len(read_snapshot(tmp_path / "here").log.steps) == blocks
        session.step()
    assert len(read_snapshot(tmp_path / "here.before").log.steps) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "here.before"]


def test_a_save_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    session = lived(tiny_world(), 3)
    session.save(tmp_path / "here")
    before = (tmp_path / "here").read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    session.step()
    with pytest.raises(OSError, match="No space") as told:
        session.save(tmp_path / "here")
    assert told.value.filename == str(tmp_path / "here")
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
    assert (tmp_path / "here").read_bytes() == before


def test_a_session_is_saved_whole_while_another_is_saved_to_the_same_path(tmp_path, monkeypatch):
    first, second, third = (lived(tiny_world(), blocks) for blocks in (1, 2, 3))
    path, before, fsync, link = tmp_path / "here", tmp_path / "here.before", os.fsync, Path.hardlink_to
    first.save(path)

    def while_written(descriptor):
        monkeypatch.setattr(os, "fsync", fsync)
        second.save(path)
        fsync(descriptor)

    def while_linked(made, target):
        monkeypatch.setattr(Path, "hardlink_to", link)
        assert read_snapshot(before).log == second.log
        second.save(path)
        link(made, target)

    monkeypatch.setattr(os, "fsync", while_written)
    first.save(path)
    assert [read_snapshot(each).log for each in (path, before)] == [first.log, second.log]
    monkeypatch.setattr(Path, "hardlink_to", while_linked)
    third.save(path)
    assert [read_snapshot(each).log for each in (path, before)] == [third.log, second.log]
    assert sorted(tmp_path.iterdir()) == [path, before]


def test_the_snapshot_before_is_kept_where_its_new_name_is_taken_away_or_it_has_it_already(tmp_path, monkeypatch):
    first, second = (lived(tiny_world(), blocks) for blocks in (1, 2))
    path, before, link = tmp_path / "here", tmp_path / "here.before", Path.hardlink_to
    first.save(path)

    def taken_away(made, target):
        monkeypatch.undo()
        link(made, target)
        drop_unfinished(tmp_path)
        assert not made.exists()

    monkeypatch.setattr(Path, "hardlink_to", taken_away)
    second.save(path)
    assert [read_snapshot(each).log for each in (path, before)] == [second.log, first.log]
    before.unlink()
    before.hardlink_to(path)
    first.save(path)
    assert [read_snapshot(each).log for each in (path, before)] == [first.log, second.log]
    assert sorted(tmp_path.iterdir()) == [path, before]


def test_a_save_takes_away_what_a_killed_process_left_of_one_to_the_same_path(tmp_path):
    session = lived(tiny_world(), 1)
    for name in ("here.7.part", "there.7.part"):
        (tmp_path / name).write_bytes(bytes(10))
    session.save(tmp_path / "here")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "there.7.part"]


@pytest.mark.parametrize("seed", range(25))
def test_a_torn_or_flipped_file_is_refused_and_the_one_before_it_named(tmp_path, seed):
    rng, session = random.Random(seed), lived(tiny_world(), 2)
    session.save(tmp_path / "here")
    session.save(tmp_path / "here")
    whole = bytearray((tmp_path / "here").read_bytes())
    (tmp_path / "here").unlink()
    if seed % 2:
        whole[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
    else:
        del whole[rng.randrange(len(whole)) :]
    (tmp_path / "here").write_bytes(whole)
    with pytest.raises(SnapshotError, match=r"here is no whole snapshot.*the one saved before it is .*here\.before"):
        read_snapshot(tmp_path / "here")
    assert read_snapshot(tmp_path / "here.before").log == session.log


def test_what_is_no_snapshot_is_refused(tmp_path):
    (tmp_path / "text").write_text("hello")
    save_file({"x": torch.zeros(3)}, tmp_path / "tensors")
    save_file({"x": torch.zeros(3)}, tmp_path / "other", metadata={"worldsim": json.dumps({"format": 99})})
    for name, says in (("text", "no whole snapshot"), ("tensors", "no whole"), ("other", "format is 99, known is 2")):
        with pytest.raises(SnapshotError, match=says):
            read_snapshot(tmp_path / name)
    with pytest.raises(SnapshotError, match="nowhere"):
        read_snapshot(tmp_path / "nowhere")


WHOLE = {"format": 2, "keep": "pages", "blocks": 2, "next_frame": 7, "frames": [5, 6]}
FOREIGN = [
    "[]",
    "null",
    "3",
    "[" * 100_000,
    json.dumps(WHOLE | {"blocks": 1e400}),
    json.dumps(WHOLE | {"blocks": 10**400}),
    json.dumps(WHOLE | {"blocks": -1}),
    json.dumps(WHOLE | {"next_frame": "7"}),
    json.dumps(WHOLE | {"frames": 7}),
    json.dumps(WHOLE | {"frames": [2.5]}),
]


@pytest.mark.parametrize("header", FOREIGN, ids=lambda header: header[:80])
def test_a_foreign_header_is_refused(tmp_path, header):
    session = lived(tiny_world(), 2)
    frame, text = torch.from_numpy(session.look()), torch.frombuffer(bytearray(session.log.encode()), dtype=torch.uint8)
    path = tmp_path / "here"
    save_file({"shown": frame, "log": text}, path, metadata={"worldsim": header})
    for read in (read_snapshot, glimpse_snapshot):
        with pytest.raises(SnapshotError, match="no whole snapshot"):
            read(path)
    assert module.is_snapshot(path) is header.startswith("{")


@pytest.mark.parametrize(
    "frame", [torch.zeros(0, 0, 3, dtype=torch.uint8), torch.zeros(2, 2, 4, dtype=torch.uint8), torch.zeros(2, 2, 3)]
)
def test_a_picture_that_is_none_is_refused(tmp_path, frame, monkeypatch):
    session, path = lived(tiny_world(), 2), tmp_path / "here"
    snapshot = replace(session.snapshot(), shown=frame.numpy())
    module.write_snapshot(path, snapshot)
    for read in (read_snapshot, glimpse_snapshot):
        with pytest.raises(SnapshotError, match="its newest frame is"):
            read(path)


def test_a_tensor_that_cannot_be_looked_at_as_bytes_is_refused(tmp_path):
    header = json.dumps(WHOLE | {"sha256": ""})
    save_file({"x": torch.tensor(1.0)}, tmp_path / "here", metadata={"worldsim": header})
    with pytest.raises(SnapshotError, match="no whole snapshot"):
        read_snapshot(tmp_path / "here")


@pytest.mark.parametrize("blocks", [10**15, 3, 1, 0])
def test_a_snapshot_that_counts_other_blocks_than_its_log_is_refused(tmp_path, blocks):
    snapshot = lived(tiny_world(), 2).snapshot()
    assert snapshot.state is not None
    module.write_snapshot(tmp_path / "here", replace(snapshot, state=replace(snapshot.state, blocks=blocks)))
    with pytest.raises(SnapshotError, match=rf"it says that it is of {blocks} blocks, and its log has 2\)"):
        read_snapshot(tmp_path / "here")


def test_a_glimpse_tells_how_a_saved_session_began_and_looks(tmp_path):
    session = lived(tiny_world(), 3)
    session.save(tmp_path / "here")
    seen = glimpse_snapshot(tmp_path / "here")
    assert (seen.opening, seen.blocks) == (session.log.opening, 3)
    assert np.array_equal(seen.shown, session.look())


def test_only_what_nobody_writes_any_more_is_dropped(tmp_path, monkeypatch):
    session = lived(tiny_world(), 1)
    (tmp_path / "old.world.1.part").write_bytes(bytes(10))
    fsync = os.fsync

    def meanwhile(descriptor: int) -> None:
        drop_unfinished(tmp_path)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", meanwhile)
    session.save(tmp_path / "here")
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
    assert read_snapshot(tmp_path / "here").log == session.log


def test_a_log_is_told_from_a_saved_session(tmp_path):
    lived(tiny_world(), 2, log=tmp_path / "life.log").close()
    with pytest.raises(SnapshotError, match=r"life.log is the log of a session and no saved one; World.go_on goes on"):
        worldsim.restore(tmp_path / "life.log", world=tiny_world())


def test_a_session_is_not_saved_over_a_folder(tmp_path):
    session = lived(tiny_world(), 1)
    with pytest.raises(
        ConfigError, match=rf"a session is saved to a file, and {tmp_path} is a folder; name a file in it"
    ):
        session.save(tmp_path)
    assert [*tmp_path.iterdir()] == []


def test_a_session_is_not_saved_over_a_pipe(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(ConfigError, match=rf"{path} is a device or a pipe; name a file"):
        lived(tiny_world(), 1).save(path)
    assert path.is_fifo()
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("name", ["life.log", "life"])
def test_a_session_is_not_saved_over_a_log_nor_is_one_taken_for_what_was_saved_before(tmp_path, name):
    session = tiny_world().open(seed=1, log=tmp_path / ("life.log" if name == "life.log" else "life.before"))
    session.step()
    (log,) = tmp_path.iterdir()
    with pytest.raises(ConfigError, match=rf"{log} is the log of a session, which no saved one replaces; name another"):
        session.save(tmp_path / name)
    assert [*tmp_path.iterdir()] == [log]
    assert read_log(log).steps == session.log.steps


def test_what_is_no_path_is_refused_wherever_one_is_given(tmp_path):
    world = tiny_world()
    with lived(world, 1) as session:
        for call in (
            lambda: session.save(7),
            lambda: session.record(7),
            lambda: session.fork(log=7),
            lambda: world.open(log=7),
            lambda: world.go_on(7),
            lambda: worldsim.restore(7),
            lambda: read_log(7),
        ):
            with pytest.raises(ConfigError, match=r"(path|log) is a path, as a text or a Path, got 7"):
                call()
        session.record(tmp_path / "a.mp4")
        with pytest.raises(ConfigError, match=r"path is a path, as a text or a Path, got 7"):
            session.record(7)
        session.fork(log=str(tmp_path / "a.log")).close()
        assert read_log(str(tmp_path / "a.log")) == read_log(tmp_path / "a.log")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.log", "a.mp4"]
    assert world.pool.used == 0


def test_what_sessions_remember_makes_room_for_one_that_is_restored(tmp_path):
    world = tiny_world(pages=24)
    session = lived(world)
    session.save(tmp_path / "here")
    for _ in range(4):
        future(session)
    assert world.pool.free < 5
    restored = worldsim.restore(tmp_path / "here", world=world)
    assert future(restored) == future(lived(tiny_world()))


def test_a_snapshot_of_another_world_or_plan_is_refused(tmp_path):
    lived(tiny_world()).save(tmp_path / "here")
    with pytest.raises(LogError, match="was lived with frames_per_block 1, here it is 2; load the world"):
        worldsim.restore(tmp_path / "here", world=tiny_world(frames_per_block=2))
    other = tiny_world()
    other.origin = replace(other.origin, weights="others")
    for keep in ("log", "pages"):
        lived(tiny_world()).save(tmp_path / keep, keep=keep)
        with pytest.raises(LogError, match="weights tiny, here it is others; load the world as it was then"):
            worldsim.restore(tmp_path / keep, world=other)
    assert other.pool.used == 0


ODD = (torch.int32, torch.bool, torch.float8_e4m3fn, torch.complex64)
SPARSE = parse_policy("blockvid:recent=3,run=2,top=2,bank=4,tau=0.6")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda state: {"salient": state.salient[:, 0]}, r"salient tokens bool \[11, 15\], got torch.bool \[11\]"),
        (lambda state: {"salient": torch.tensor(True)}, r"got torch.bool \[\]"),
        (lambda state: {"salient": state.salient[..., None].expand(-1, -1, 2)}, r"got torch.bool \[11, 15, 2\]"),
        (lambda state: {"salient": state.salient.repeat(1, 2)}, r"got torch.bool \[11, 30\]"),
        (lambda state: {"salient": state.salient * 0.5}, r"got torch.float32 \[11, 15\]"),
        (lambda state: {"salient": None}, "11 frames came with salient tokens of 0"),
        (lambda state: {"controls": state.controls * float("nan")}, "controls that are no numbers"),
        (lambda state: {"latents": state.latents * float("inf")}, "latents that are no numbers"),
        (lambda state: {"latents": state.latents.flatten()}, "none that a decoder was in"),
        (lambda state: {"keys": torch.tensor(0.0)}, "expected keys and values"),
        (lambda state: {"keys": state.keys[:, :0]}, "expected keys and values"),
        *(
            (lambda state, kind=kind: {"keys": state.keys.to(kind)}, f"keys are of one of .*, got {kind}")
            for kind in ODD
        ),
        (lambda state: {"values": state.values.to(torch.int8)}, "values are of one of bfloat16, .*, got torch.int8"),
        (lambda state: {"keys": state.keys / 0}, "keys that are no numbers"),
        (lambda state: {"values": state.values * float("nan")}, "values that are no numbers"),
        (lambda state: {"memory": {}}, "without a memory"),
        (lambda state: {"memory": {"x": torch.zeros(1)}}, "a memory of places has tiles"),
        (lambda state: {"memory": {**state.memory, "view": torch.tensor([10**6, 0])}}, "a memory of places has tiles"),
        (
            lambda state: {"memory": {**state.memory, "tiles": torch.full_like(state.memory["tiles"], 99)}},
            "of sorts that are not among 6",
        ),
    ],
)
def test_a_state_that_no_session_was_in_is_refused_and_holds_nothing(
    spoil: Callable[[VideoState], dict[str, Any]], told
):
    world = tiny_world(policy=SPARSE, remembers=True)
    with lived(world, 12) as session:
        snapshot = session.snapshot()
    spoilt = replace(snapshot, state=replace(snapshot.state, **spoil(snapshot.state)))
    with pytest.raises(SnapshotError, match=f"no session of this world was in the state that was saved: .*{told}"):
        world.restore(spoilt)
    assert world.pool.used == 0


def test_a_newest_frame_of_another_size_than_the_world_s_is_refused():
    world = tiny_world()
    snapshot = lived(tiny_world(), 2).snapshot()
    with pytest.raises(SnapshotError, match=r"expected a newest frame \[\d+, \d+, 3\], got \[1, 1, 3\]"):
        world.restore(replace(snapshot, shown=np.zeros((1, 1, 3), np.uint8)))
    assert world.pool.used == 0


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_what_a_pool_of_another_kind_of_numbers_held_goes_on_and_about_the_same(kind):
    session = lived(tiny_world(), 4)
    snapshot = session.snapshot()
    cast = replace(snapshot.state, keys=snapshot.state.keys.to(kind), values=snapshot.state.values.to(kind))
    restored = tiny_world().restore(replace(snapshot, state=cast))
    one, other = (made.step({"Space"}).frames.astype(int) for made in (session, restored))
    assert abs(one - other).mean() < 1


def test_only_known_amounts_can_be_kept(tmp_path):
    with pytest.raises(ConfigError, match="one of log, latents, pages, got 'all'"):
        lived(tiny_world(), 1).save(tmp_path / "here", keep="all")
    assert not list(tmp_path.iterdir())


def test_a_codec_state_that_is_no_tensor_cannot_be_saved(tmp_path):
    session = lived(tiny_world(), 1)
    snapshot = module.Snapshot(keep="pages", log=session.log, state=session._moment.decoder.state(), codec_state=[1])
    with pytest.raises(ConfigError, match="a codec state of list cannot be saved"):
        module.write_snapshot(tmp_path / "here", snapshot)
