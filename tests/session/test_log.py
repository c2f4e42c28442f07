"""A session's log: text that can be read back, that says where it is torn, and that refuses what it is not."""

from __future__ import annotations

import json
import random
import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worldsim.errors import LogError
from worldsim.session.log import (
    FORMAT,
    Given,
    Opening,
    Rewind,
    SessionLog,
    Step,
    Trail,
    check_lived,
    detour,
    encode,
    is_log,
    plan_told,
)

GIVEN = Given(pixels=bytes(range(24)) * 2, shape=(2, 2, 4, 3), keys=(frozenset(), frozenset({"KeyA", "Space"})), hour=3)
OPENING = Opening(
    world="dot", weights="ab" * 32, plan={"policy": "window:frames=5"}, machine={"threads": 1}, seed=7, start=3
)


def step(block: int, *keys: str) -> Step:
    return Step(block=block, keys=frozenset(keys), latents=f"{block:064x}", frames=f"{block + 1:064x}")


def text(*records: Opening | Step | Rewind) -> bytes:
    return b"".join(map(encode, records))


def line(fields: object) -> bytes:
    body = json.dumps(fields).encode()
    return b"%s\t%08x\n" % (body, zlib.crc32(body))


@pytest.mark.parametrize("given", [None, GIVEN])
def test_a_log_is_read_back_as_it_was_written(given):
    opening = Opening(
        world="dot",
        weights="ab",
        plan={"draw": True},
        machine={},
        seed=2**64 - 1,
        start=None if given else 0,
        given=given,
    )
    log = SessionLog(opening=opening, steps=(step(0, "KeyA"), step(1), step(2, "Space", "KeyD")))
    written = log.encode()
    read = SessionLog.decode(written)
    assert read == log
    assert read.whole == len(written)


def test_what_was_rewound_is_left_out():
    log = SessionLog.decode(text(OPENING, step(0), step(1), step(2), Rewind(1), step(1, "KeyA"), Rewind(2), step(2)))
    assert log.steps == (step(0), step(1, "KeyA"), step(2))


@given(st.integers(0, 10_000))
def test_a_torn_log_is_read_up_to_its_last_whole_record(cut):
    records = (OPENING, step(0), step(1, "KeyA"), Rewind(1), step(1), step(2))
    whole = text(*records)
    ends = [len(text(*records[: count + 1])) for count in range(len(records))]
    torn = whole[: cut % (len(whole) + 1)]
    if len(torn) < ends[0]:
        with pytest.raises(LogError, match="does not begin with a whole opening"):
            SessionLog.decode(torn)
        return
    read = SessionLog.decode(torn)
    assert read.whole == max(end for end in ends if end <= len(torn))
    assert read.whole + read.torn == len(torn)


def test_a_file_that_begins_as_a_log_is_told_from_others(tmp_path):
    path = tmp_path / "a.log"
    assert not is_log(path)
    assert not is_log(tmp_path)
    path.write_bytes(text(OPENING, step(0)))
    assert is_log(path)
    for other in (b"", b"hello\n", encode(step(0)), encode(OPENING)[:-1], encode(OPENING)[1:], line({"format": 2})):
        path.write_bytes(other)
        assert not is_log(path)


def test_a_log_is_told_how_far_back_a_session_goes_and_what_it_then_had_made():
    shared = Trail(step(1), Trail(step(0), None))
    here, there = Trail(step(2), shared), Trail(step(3, "KeyA"), Trail(step(2, "KeyA"), shared))
    assert detour(here, there) == [Rewind(2), step(2, "KeyA"), step(3, "KeyA")]
    assert detour(shared, here) == [step(2)]
    assert detour(here, shared) == [Rewind(2)]
    assert detour(here, None) == [Rewind(0)]
    assert detour(here, here) == detour(None, None) == []


@pytest.mark.parametrize("seed", range(20))
def test_a_flipped_bit_in_the_last_record_ends_the_log_before_it(seed):
    rng = random.Random(seed)
    whole = bytearray(text(OPENING, *(step(block) for block in range(5))))
    last = len(text(OPENING, *(step(block) for block in range(4))))
    whole[rng.randrange(last, len(whole))] ^= 1 << rng.randrange(8)
    log = SessionLog.decode(bytes(whole))
    assert (log.whole, log.steps) == (last, tuple(step(block) for block in range(4)))


@pytest.mark.parametrize("seed", range(20))
def test_a_flipped_bit_before_whole_records_is_damage_and_no_torn_end(seed):
    rng = random.Random(seed)
    records = [OPENING, *(step(block) for block in range(5))]
    whole = bytearray(text(*records))
    first, last = len(text(OPENING)), len(text(*records[:-1])) - 1
    at = rng.randrange(first, last)
    line = whole[:at].count(b"\n") + 1
    whole[at] ^= 1 << rng.randrange(8)
    with pytest.raises(LogError, match=f"line {line} is damaged, and whole records follow it"):
        SessionLog.decode(bytes(whole))


@pytest.mark.parametrize(
    ("records", "says"),
    [
        ((step(0), OPENING), "does not begin with a whole opening"),
        ((OPENING, step(1)), "line 2 is of block 1, and block 0 comes next; lines are missing, or two sessions were"),
        ((OPENING, step(0), step(0)), "line 3 is of block 0, and block 1 comes next; .* cut a copy off before that"),
        ((OPENING, step(0), Rewind(2)), "line 3 goes back to where 2 blocks had been made, out of 1"),
        ((OPENING, step(0), Rewind(-1)), "line 3 goes back to where -1 blocks had been made, out of 1"),
        ((OPENING, OPENING), "line 2 begins another session, after 0 blocks of the first"),
    ],
)
def test_records_that_do_not_follow_from_each_other_are_refused(records, says):
    with pytest.raises(LogError, match=says):
        SessionLog.decode(text(*records))


OPENED = json.loads(encode(OPENING).partition(b"\t")[0])
PACKED = json.loads(
    encode(Opening(world="dot", weights="", plan={}, machine={}, seed=0, given=GIVEN)).partition(b"\t")[0]
)["given"]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (OPENED | {"format": FORMAT + 1}, f"has format {FORMAT + 1}, known is {FORMAT}"),
        ({"format": FORMAT}, "not one of a session log"),
        ({}, "not one of a session log"),
        ([1, 2], "not one of a session log"),
        (OPENED | {"given": PACKED | {"shape": [2, 2, 4]}}, "not one of a session log"),
        (OPENED | {"given": PACKED | {"shape": [2, 2, 5, 3]}}, "has 60 bytes, not 48"),
        (OPENED | {"given": PACKED | {"pixels": "not base 85: ~\u007f"}}, "not one of a session log"),
        (OPENED | {"given": PACKED | {"keys": [[1]]}}, "keys are words"),
        (OPENED | {"given": PACKED | {"hour": 1e400}}, "not one of a session log"),
        (OPENED | {"given": PACKED | {"shape": [10**30, 1, 1, 1]}}, "not one of a session log"),
        (OPENED | {"plan": []}, "a plan and a machine are objects"),
        (OPENED | {"machine": None}, "a plan and a machine are objects"),
        (OPENED | {"world": ["dot"]}, "told by words"),
        (OPENED | {"weights": None}, "told by words"),
        (OPENED | {"seed": 2**64}, "a seed a whole number"),
        (OPENED | {"seed": "7"}, "a seed a whole number"),
        (OPENED | {"start": None}, "begins at a place, from given frames or with a prompt"),
        (OPENED | {"start": "3"}, "begins at a place, from given frames or with a prompt"),
        ({"rewind": 1e400}, "not one of a session log"),
    ],
)
def test_a_whole_record_of_something_else_is_refused(fields, says):
    with pytest.raises(LogError, match=says):
        SessionLog.decode(line(fields))


def test_pixels_that_unpack_to_more_than_was_said_are_not_unpacked():
    """Sixteen megabytes of zeros behind a promise of 48 bytes."""
    bomb = Given(pixels=bytes(1 << 24), shape=(2, 2, 4, 3), keys=())
    with pytest.raises(LogError, match="has 48 bytes, not 49"):
        SessionLog.decode(encode(Opening(world="", weights="", plan={}, machine={}, seed=0, given=bomb)))


def test_a_trail_gives_its_steps_in_order_and_is_shared_by_what_branches_off():
    stem = Trail(step(1), Trail(step(0), None))
    one, other = Trail(step(2, "KeyA"), stem), Trail(step(2, "KeyD"), stem)
    assert one.steps() == (step(0), step(1), step(2, "KeyA"))
    assert other.steps()[:2] == stem.steps()


def test_a_plan_is_told_with_what_its_log_is_too_old_to_say():
    plan = {"policy": "window:frames=5", "sigmas": [1.0], "frames_per_block": 3}
    later = {"kv": None, "recall": False, "noise": "plain", "clean_pass": True}
    chosen = {"linears": None, "compiled": False, "offload": False}
    assert plan_told(replace(OPENING, plan=plan)) == plan | later | chosen
    said = plan | {name: None for name in ("kv", "preview")} | {"linears": "int8", "compiled": True, "offload": True}
    assert plan_told(replace(OPENING, plan=said)) == said | {"recall": False, "noise": "plain", "clean_pass": True}
    with pytest.raises(LogError, match=r"no world was loaded with: sigmas None; compiled 1$"):
        plan_told(replace(OPENING, plan={"policy": "full", "frames_per_block": 3, "compiled": 1}))


THEN = {"weights": "a", "kv": None, "linears": "int8", "compiled": False, "preview": "sha256:a"}


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"kv": "fp8"}, "kv None, here it is fp8; load the world as it was then, with the same options$"),
        ({"weights": "b", "compiled": True}, "weights a, here it is b; compiled False, here it is True; load"),
        ({"weights": "b", "linears": None}, "linears int8, here it is None; load"),
        ({"preview": None}, "preview sha256:a, here it is None; .*: preview=FILE or --preview FILE, the file with"),
    ],
)
def test_what_was_lived_otherwise_is_refused_by_what_differs(changed, told):
    check_lived(THEN, THEN)
    with pytest.raises(LogError, match=f"^that session was lived with {told}"):
        check_lived(THEN, THEN | changed)


def test_what_a_log_or_a_world_cannot_tell_is_not_held_against_it():
    old = {"weights": "a", "kv": None}
    check_lived(old, THEN)
    check_lived(THEN, old)
    with pytest.raises(LogError, match=r"lived with kv int8, here it is None;"):
        check_lived(old | {"kv": "int8"}, {"weights": "a"})
