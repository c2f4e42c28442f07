"""A session can be marked, rewound, forked and closed, and what it shows is a function of its seed and keys alone."""

from __future__ import annotations

import gc
import hashlib
import re
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO

import av
import numpy as np
import pytest
import torch

from worldsim.cache.policy import Full, SinkWindow, Window
from worldsim.cache.sight import Sight
from worldsim.codec.patches import PatchCodec
from worldsim.decoding.loop import decode_blocks
from worldsim.decoding.video import VideoDecoder
from worldsim.errors import (
    ConfigError,
    NotReproduced,
    PoolFull,
    SessionBusy,
    SessionClosed,
    SessionPaused,
    UnknownName,
)
from worldsim.runtime.journal import read_log
from worldsim.runtime.mark import Mark
from worldsim.runtime.notebook import film_html
from worldsim.runtime.session import Session
from worldsim.runtime.snapshot import read_snapshot, write_snapshot
from worldsim.runtime.world import World
from worldsim.testing.fakes import DifferenceCodec, tiny_world

WALK = [{"KeyD"}, {"KeyD", "Space"}, set(), {"ArrowLeft"}, {"KeyA"}, {"Space"}, set()]
FINGERPRINT = """
import runpy, sys
module = runpy.run_path(sys.argv[1])
print(module["fingerprint"](module["tiny_world"](frames_per_block=2).open(seed=4)))
"""


def fingerprint(session: Session, walk: Iterable[set[str]] = WALK) -> str:
    """SHA-256 of all pixels of a walk."""
    pixels = np.concatenate([session.step(keys).frames for keys in walk])
    return hashlib.sha256(pixels.tobytes()).hexdigest()


def check_books(world: World, *holders: Session | Mark) -> None:
    """Every page is free or held by one of those that are said to be alive."""
    world.pool.check_integrity(holders)


@pytest.fixture
def world() -> World:
    return tiny_world(frames_per_block=2)


@pytest.mark.parametrize("frames", [1, 2, 4])
def test_a_step_shows_one_block_made_under_the_keys_held(frames):
    session = tiny_world(frames_per_block=frames).open(seed=1)
    for number, keys in enumerate(WALK):
        assert session.block == number
        chunk = session.step(keys)
        assert (chunk.frames.dtype, chunk.frames.shape) == (np.uint8, (frames, 6, 10, 3))
        assert (chunk.block, chunk.keys) == (number, frozenset(keys))


def test_a_session_shows_what_its_decoder_makes_decoded_as_one_stream(world):
    codec = DifferenceCodec(patches=PatchCodec(side=2))
    frames, controls = world.origin.starts.get(1)
    latents, state = codec.encode(frames, codec.open())
    decoder = VideoDecoder(world.backbone, world.pool, world.plan, 4)
    decoder.prefill(latents[None], controls[None])
    hours = range(5, 5 + 2 * len(WALK))
    steering = [world.controls.vector(WALK[at // 2], hour % 12) for at, hour in enumerate(hours)]
    held = [torch.tensor([pair]) for pair in zip(steering[::2], steering[1::2], strict=True)]
    made = torch.cat([block.latents[0] for block in decode_blocks(decoder, held)])
    session = world.open(seed=4, start=1)
    shown = np.concatenate([session.step(keys).frames for keys in WALK])
    assert np.array_equal(shown, codec.decode(made, state)[0].numpy())


@pytest.mark.parametrize("policy", [Full(), Window(frames=3), SinkWindow(sink=1, window=3)])
def test_equal_seeds_and_keys_give_equal_pixels_and_others_give_others(policy):
    world = tiny_world(policy=policy, pages=128)
    first = fingerprint(world.open(seed=4))
    assert fingerprint(world.open(seed=4)) == first
    assert fingerprint(tiny_world(policy=policy, pages=32).open(seed=4)) == first
    assert fingerprint(world.open(seed=7, start=1)) != first, "the same start under another seed"
    assert fingerprint(world.open(seed=4, start=0)) != first
    for changed in range(len(WALK)):
        keys = [*WALK[:changed], WALK[changed] ^ {"Space"}, *WALK[changed + 1 :]]
        assert fingerprint(world.open(seed=4), keys) != first, f"another key at block {changed} changes nothing"


def test_two_keys_for_one_action_give_equal_pixels(world):
    left, same = ([{key}, {"Space"}, {key, "Space"}] for key in ("KeyA", "ArrowLeft"))
    assert fingerprint(world.open(seed=4), left) == fingerprint(world.open(seed=4), same)


@pytest.mark.timeout(180)  # seconds are enough, but not while other work has the cores
def test_another_process_shows_the_same_pixels(world):
    done = subprocess.run(
        [sys.executable, "-c", FINGERPRINT, __file__], capture_output=True, text=True, timeout=170, check=True
    )
    assert done.stdout.strip() == fingerprint(world.open(seed=4))


def test_after_a_rewind_the_same_keys_show_the_same_and_a_mark_can_be_used_again(world):
    session = world.open(seed=4)
    session.step({"Space"})
    mark = session.mark()
    first = fingerprint(session)
    for _ in range(2):
        session.rewind(mark)
        assert session.block == mark.block == 1
        assert fingerprint(session) == first
    session.rewind(mark)
    assert fingerprint(session, WALK[::-1]) != first


def test_marks_of_different_moments_can_be_visited_in_any_order(world):
    session, marks, shown = world.open(seed=4), [], []
    for keys in WALK:
        marks.append(session.mark())
        shown.append(session.step(keys).frames)
    for number in (5, 2, 6, 0, 3):
        session.rewind(marks[number])
        assert np.array_equal(session.step(WALK[number]).frames, shown[number])


def test_a_fork_shows_the_same_under_the_same_keys_and_neither_notices_the_other(world):
    session = world.open(seed=4)
    session.step({"KeyA"})
    twin, third = session.fork(), session.fork().fork()
    assert fingerprint(twin, WALK[::-1]) != fingerprint(session)
    session.close()
    twin.close()
    alone = world.open(seed=4)
    alone.step({"KeyA"})
    assert fingerprint(third) == fingerprint(alone)


def test_a_fork_can_be_rewound_to_a_mark_of_the_session_it_was_forked_from(world):
    session = world.open(seed=4)
    mark, first = session.mark(), fingerprint(session)
    twin = session.fork()
    session.close()
    twin.rewind(mark)
    assert fingerprint(twin) == first


def test_a_session_goes_over_to_the_future_of_a_fork_and_its_log_is_lived_again(world, tmp_path):
    path = tmp_path / "log"
    with world.open(seed=4, log=path) as session:
        fingerprint(session, WALK[:4])
        twin = session.fork()
        fingerprint(twin, [{"Space"}, {"KeyA"}])
        session.step({"KeyD"})
        session.rewind(twin.mark())
        assert session.log.steps == twin.log.steps
        assert session.block == 6
        assert np.array_equal(session.look(), twin.look())
        assert fingerprint(session) == fingerprint(twin)
        assert read_log(path).steps == session.log.steps
        world.replay(read_log(path))
    third = twin.fork()
    third.step()
    twin.rewind(third.mark())
    assert twin.log.steps == third.log.steps


@pytest.mark.parametrize("to", ["x", None, 1.5, [1]])
def test_what_is_neither_a_mark_nor_a_number_is_not_gone_back_to(world, to):
    session = world.open(seed=4)
    fingerprint(session, WALK[:3])
    with pytest.raises(ConfigError, match="a session is rewound to a mark, or by a number of blocks, got ") as refused:
        session.rewind(to)
    assert str(refused.value).endswith(repr(to))
    session.rewind(np.int64(1))
    assert session.block == 2


@pytest.mark.parametrize("keys", [None, 7])
def test_what_are_no_keys_makes_nothing(world, keys):
    session = world.open(seed=4)
    with pytest.raises(ConfigError, match=f"keys are a set of names, got {keys}; pass ()"):
        session.step(keys)
    assert session.block == 0


def test_a_fork_may_be_rewound_far_behind_its_beginning_while_the_other_lives_on(world):
    session, alone = world.open(seed=4), world.open(seed=4)
    mark = session.mark()
    session.step({"KeyD"})
    alone.step({"KeyD"})
    session.fork().rewind(mark)
    assert fingerprint(session) == fingerprint(alone)


def test_a_fork_goes_back_at_once_as_far_as_what_it_was_forked_from(world, monkeypatch):
    monkeypatch.setattr("worldsim.runtime.session.relive", None)
    session = world.open(seed=4)
    fingerprint(session)
    used = world.pool.used
    twin = session.fork()
    assert twin.remembered == session.remembered == 7
    assert world.pool.used == used, "no page is copied"
    check_books(world, session, twin)
    twin.rewind(5)
    assert twin.log.steps == session.log.steps[:2]
    fingerprint(twin, WALK[2:])
    assert hashes(twin) == hashes(session)
    third = twin.fork()
    twin.close()
    check_books(world, session, third)
    session.rewind(7)
    third.rewind(6)
    session.close()
    assert (third.block, third.remembered) == (1, 1)
    check_books(world, third)
    third.close()
    assert world.pool.used == 0


def test_what_forks_remember_together_is_forgotten_for_a_block():
    world = tiny_world(frames_per_block=1, pages=24)
    session = world.open(seed=4)
    fingerprint(session)
    fingerprint(session)
    twins = [session.fork() for _ in range(3)]
    for twin in twins[:2]:
        fingerprint(twin)
    assert world.pool.free == 0
    check_books(world, session, *twins)
    alone = tiny_world(frames_per_block=1).open(seed=4)
    for _ in range(3):
        fingerprint(alone)
    assert hashes(twins[0]) == hashes(twins[1]) == hashes(alone)


def test_marks_forks_and_sessions_hold_their_pages_until_they_are_closed(world):
    session = world.open(seed=4)
    held = world.pool.used
    assert held == 5
    mark, twin = session.mark(), session.fork()
    check_books(world, session, mark, twin)
    assert world.pool.used == held, "neither copies a page"
    fingerprint(session)
    fingerprint(twin)
    check_books(world, session, mark, twin)
    made = 7 * world.frames_per_block
    assert world.pool.used == held + 2 * made, "what was seen is remembered, and what they share is shared"
    session.rewind(mark)
    check_books(world, session, mark, twin)
    assert world.pool.used == held + made
    mark.close()
    twin.close()
    check_books(world, session)
    assert world.pool.used == held
    session.close()
    check_books(world)
    assert world.pool.used == 0


def test_what_nobody_holds_gives_its_pages_back(world):
    session = world.open(seed=4)
    mark, twin = session.mark(), session.fork()
    fingerprint(session)
    fingerprint(twin)
    del mark, twin
    gc.collect()
    check_books(world, session)
    assert world.pool.used == 5 + 7 * world.frames_per_block
    del session
    gc.collect()
    check_books(world)
    assert world.pool.used == 0


def test_a_step_that_finds_no_memory_changes_nothing_and_a_rewind_still_works():
    world = tiny_world(policy=Full(), frames_per_block=2, pages=13)
    session = world.open(seed=4)
    mark, first = session.mark(), fingerprint(session, WALK[:4])
    for _ in range(2):
        with pytest.raises(PoolFull, match="2 more pages are wanted and 0 of 13 are free"):
            session.step(WALK[4])
        assert session.block == 4
        check_books(world, session, mark)
    session.rewind(mark)
    assert fingerprint(session, WALK[:4]) == first


def test_after_memory_was_freed_a_failed_step_is_made_as_if_nothing_had_happened():
    world = tiny_world(frames_per_block=2, pages=12)
    session, alone = world.open(seed=4), tiny_world(frames_per_block=2).open(seed=4)
    for keys in WALK[:3]:
        session.step(keys)
        alone.step(keys)
    others = [session.fork(), world.open(seed=5)]
    others[0].step()
    with pytest.raises(PoolFull):
        session.step(WALK[3])
    for other in others:
        other.close()
    assert fingerprint(session, WALK[3:]) == fingerprint(alone, WALK[3:])


def test_a_key_that_the_world_does_not_understand_makes_nothing(world):
    session, alone = world.open(seed=4), world.open(seed=4)
    with pytest.raises(UnknownName, match=r"there is no key 'KeyQ'.*KeyA"):
        session.step({"KeyD", "KeyQ"})
    with pytest.raises(ConfigError, match="got the text 'KeyD'"):
        session.step("KeyD")
    assert session.block == 0
    assert fingerprint(session) == fingerprint(alone)


def test_a_closed_session_does_nothing_more(world):
    with world.open(seed=4) as session:
        mark = session.mark()
        twin = session.fork()
    for use in (session.step, session.mark, session.fork, lambda: session.rewind(mark)):
        with pytest.raises(SessionClosed, match="closed; open another"):
            use()
    session.close()
    assert twin.step().block == 0


def test_a_session_is_closed_when_its_block_of_code_fails(world):
    def live() -> None:
        with world.open(seed=4):
            raise KeyError

    with pytest.raises(KeyError):
        live()
    assert world.pool.used == 0


def test_a_closed_mark_cannot_be_rewound_to_and_the_session_goes_on(world):
    session, alone = world.open(seed=4), world.open(seed=4)
    mark = session.mark()
    mark.close()
    mark.close()
    with pytest.raises(SessionClosed, match="mark was closed; rewind to another"):
        session.rewind(mark)
    assert fingerprint(session) == fingerprint(alone)


def test_a_mark_of_another_session_is_refused_and_the_session_goes_on(world):
    session, other, alone = world.open(seed=4), world.open(seed=4), world.open(seed=4)
    with pytest.raises(ConfigError, match="of another session, which no fork connects with this one; rewind"):
        session.rewind(other.mark())
    assert fingerprint(session) == fingerprint(alone)


def hashes(session: Session) -> list[tuple[str, str]]:
    """What the log says of every block."""
    return [(step.latents, step.frames) for step in session.log.steps]


@pytest.mark.parametrize("back", range(8))
def test_going_back_by_blocks_and_on_again_shows_the_same(world, back):
    with world.open(seed=4) as session:
        fingerprint(session)
        before = hashes(session)
        session.rewind(back)
        assert session.block == 7 - back
        assert hashes(session) == before[: 7 - back]
        for keys in WALK[7 - back :]:
            session.step(keys)
        assert hashes(session) == before
        check_books(world, session)


def test_what_is_no_longer_remembered_is_lived_again_bit_for_bit(world):
    with world.open(seed=4) as session:
        fingerprint(session)
        before = hashes(session)
        session._history.clear()
        session.rewind(5)
        fingerprint(session, WALK[2:])
        assert hashes(session) == before
        check_books(world, session)


def test_a_past_that_does_not_come_out_the_same_is_refused_and_the_present_stays(world):
    session = world.open(seed=4)
    fingerprint(session)
    session._history.clear()
    before, trail = hashes(session), session._moment.trail
    object.__setattr__(trail.before.before.before.step, "frames", "0" * 64)
    with pytest.raises(NotReproduced, match="block 3 came out otherwise"):
        session.rewind(2)
    assert session.block == 7
    assert hashes(session)[4:] == before[4:]
    check_books(world, session)


@pytest.mark.parametrize("blocks", [-1, 8])
def test_only_what_was_made_can_be_gone_back(world, blocks):
    session = world.open(seed=4)
    fingerprint(session)
    with pytest.raises(ConfigError, match="7 blocks have been made; go back 0 to 7 of them"):
        session.rewind(blocks)
    assert session.block == 7


def test_what_was_forgotten_takes_no_memory_and_is_lived_again(world):
    session, other = world.open(seed=3), world.open(seed=3)
    for one in (session, other):
        for _ in range(6):
            one.step(())
    held = len(set(session.pages))
    session.forget()
    assert session.remembered == 0
    assert len(set(session.pages)) < held
    session.rewind(2)
    other.rewind(2)
    assert session.step(()).frames.tolist() == other.step(()).frames.tolist()


def test_after_a_rewind_to_a_mark_only_what_led_there_is_remembered(world):
    with world.open(seed=4) as session:
        fingerprint(session, WALK[:4])
        mark = session.mark()
        fingerprint(session, WALK[4:])
        session.rewind(6)
        session.step({"Space"})
        session.rewind(mark)
        before = hashes(session)
        session.rewind(2)
        assert hashes(session) == before[:2]
        fingerprint(session, WALK[2:4])
        assert hashes(session) == before
        check_books(world, session, mark)


def test_memories_make_room_for_blocks_and_for_other_sessions():
    world = tiny_world(frames_per_block=1, pages=24)
    one = world.open(seed=4)
    for _ in range(6):
        fingerprint(one)
    assert one.block == 42
    other = world.open(seed=5)
    for _ in range(3):
        fingerprint(other)
    check_books(world, one, other)
    before = hashes(one)
    one.rewind(20)  # long forgotten
    assert hashes(one) == before[:22]
    check_books(world, one, other)


def test_a_paused_session_makes_nothing_until_it_is_resumed(world):
    session = world.open(seed=4)
    session.pause()
    assert session.paused
    with pytest.raises(SessionPaused, match="resume it before the next step"):
        session.step()
    assert session.block == 0
    session.resume()
    assert fingerprint(session) == fingerprint(world.open(seed=4))


def test_a_session_that_another_thread_uses_refuses_at_once_and_is_where_it_was(world):
    session = world.open(seed=4)
    uses = (session.step, session.mark, session.fork, session.snapshot, lambda: session.rewind(0))
    with ThreadPoolExecutor(1) as other, session._busy:
        for use in uses:
            with pytest.raises(SessionBusy):
                other.submit(use).result()
    assert session.block == 0
    assert fingerprint(session) == fingerprint(world.open(seed=4))


def test_a_session_is_in_use_until_what_its_block_had_apart_is_given_back(world, monkeypatch):
    session, refused = world.open(seed=4), []

    def drop(_: object) -> None:
        with ThreadPoolExecutor(1) as other:
            refused.append(isinstance(other.submit(session.mark).exception(), SessionBusy))

    monkeypatch.setattr("worldsim.runtime.batching._drop_forks", drop)
    session.step()
    assert refused == [True]


def test_the_log_on_disk_follows_every_rewind_also_to_a_mark_of_another_line(world, tmp_path):
    path = tmp_path / "log"
    with world.open(seed=4, log=path) as session:
        fingerprint(session, WALK[:5])
        mark = session.mark()
        session.rewind(3)
        assert read_log(path) == session.log
        assert path.read_bytes().count(b"\n") == 1 + 5 + 1, "a rewind is one record"
        fingerprint(session, [{"Space"}, {"KeyA"}])
        assert read_log(path) == session.log
        session.rewind(mark)
        assert read_log(path) == session.log
        assert session.block == 5
        session.step(WALK[5])
        twin = session.fork(log=tmp_path / "twin")
        twin.step({"KeyA"})
        assert read_log(path) == session.log
        assert read_log(tmp_path / "twin") == twin.log
        before = session.log
        twin.close()
    with world.go_on(path) as session:
        assert session.log == before
        session.rewind(2)
        fingerprint(session, WALK[4:6])
        assert session.log.steps == before.steps
        assert read_log(path) == session.log


def test_a_block_that_cannot_be_logged_was_not_made(world, tmp_path, monkeypatch):
    session = world.open(seed=4, log=tmp_path / "log")
    session.step(WALK[0])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(session._journal, "append", full)
    with pytest.raises(OSError, match="No space"):
        session.step(WALK[1])
    assert session.block == len(session.log.steps) == 1
    check_books(world, session)
    monkeypatch.undo()
    fingerprint(session, WALK[1:])
    assert hashes(session) == hashes_of(world)


def hashes_of(world: World) -> list[tuple[str, str]]:
    with world.open(seed=4) as session:
        fingerprint(session)
        return hashes(session)


def test_a_session_is_not_recorded_over_its_own_log(world, tmp_path):
    path = tmp_path / "life.mp4"
    with world.open(seed=4, log=path) as session:
        session.step()
        with pytest.raises(ConfigError, match="is the log of a session, which no video replaces"):
            session.record(path)
        session.step()
    assert read_log(path).steps == session.log.steps


def test_the_latest_step_is_that_of_the_newest_block_and_goes_back_with_it(world):
    session = world.open(seed=4)
    assert session.latest is None
    chunks = [session.step(keys) for keys in WALK[:3]]
    assert session.latest is not None
    assert (session.latest.block, session.latest.keys) == (2, chunks[2].keys)
    assert session.latest == session.log.steps[-1]
    session.rewind(2)
    assert session.latest == session.log.steps[-1]
    session.rewind(1)
    assert session.latest is None


def test_a_session_says_how_far_it_can_go_back_at_once():
    world = tiny_world(pages=400)
    session = world.open(seed=4)
    longest = world.remembered_frames
    for blocks in range(1, longest + 3):
        session.step()
        assert session.remembered == min(blocks, longest)
    session.rewind(5)
    assert session.remembered == longest - 5


def test_a_snapshot_is_a_copy_that_the_session_does_not_change_any_more(world, tmp_path):
    session = world.open(seed=4)
    fingerprint(session, WALK[:2])
    snapshot = session.snapshot()
    after = fingerprint(session, WALK[2:4])
    restored = world.restore(snapshot)
    assert restored.block == 2
    assert fingerprint(restored, WALK[2:4]) == after


def test_a_chunk_tells_what_it_took_by_stage(world):
    chunk = world.open(seed=4).step({"KeyD"})
    assert list(chunk.seconds) == ["denoise", "decode", "commit"]
    assert all(seconds > 0 for seconds in chunk.seconds.values())


def test_a_session_says_what_its_newest_block_saw_counted_from_its_first_frame():
    world = tiny_world(policy=SinkWindow(sink=1, window=3), frames_per_block=2)
    session = world.open(seed=4)
    assert session.seen == Sight()
    chunks = [session.step(keys) for keys in WALK[:4]]
    assert [chunk.seen.frames for chunk in chunks] == [(-5, -3, -2, -1), (-5, -1, 0, 1), (-5, 1, 2, 3), (-5, 3, 4, 5)]
    assert session.seen == chunks[3].seen
    assert session.seen.shares == ()
    twin = session.fork()
    session.rewind(2)
    assert session.seen == chunks[1].seen
    assert session.step(WALK[2]).seen == chunks[2].seen
    session.rewind(3)
    assert session.seen == Sight()
    assert twin.seen == chunks[3].seen
    restored = world.restore(twin.snapshot())
    assert restored.seen == Sight()
    assert restored.step().seen.frames == (-5, 5, 6, 7)


def test_what_blocks_attend_to_is_measured_where_the_plan_asks_and_changes_nothing():
    world, plain = (tiny_world(frames_per_block=2) for _ in range(2))
    world.plan = replace(world.plan, probes=5)
    session = world.open(seed=4)
    assert fingerprint(session) == fingerprint(plain.open(seed=4))
    assert len(session.seen.shares) == len(session.seen.frames) == 5
    assert min(session.seen.shares) > 0
    assert 0.1 < sum(session.seen.shares) < 0.99


def test_a_session_shows_the_places_that_it_remembers_and_goes_back_with_them():
    world = tiny_world(remembers=True)
    session = world.open(seed=4)
    lands = [session.land() for _ in range(6) if session.step({"KeyD"})]
    assert all(land.known.any() and land.pixels.shape == (*land.known.shape, 3) for land in lands)
    session.rewind(4)
    again = session.land()
    assert np.array_equal(again.known, lands[1].known)
    assert np.array_equal(again.pixels, lands[1].pixels)
    assert again.view == lands[1].view
    assert tiny_world().open(seed=4).land() is None
    session.close()
    with pytest.raises(SessionClosed):
        session.land()


def test_a_world_of_keys_says_that_it_has_no_prompt_and_goes_on():
    session = tiny_world().open(seed=3)
    with pytest.raises(ConfigError, match="dot is steered by keys alone and has no prompt to set to 'a red dot'"):
        session.set_prompt("a red dot")
    session.step({"KeyD"})
    session.close()
    with pytest.raises(SessionClosed):
        session.set_prompt("")


WORLD_START = tiny_world().origin.starts.get(0)[0].numpy()


def test_a_look_is_the_newest_frame_and_changes_nothing():
    session, twin = tiny_world(frames_per_block=2).open(seed=3), tiny_world(frames_per_block=2).open(seed=3)
    assert np.array_equal(session.look(), WORLD_START[-1])
    for keys in ({"KeyD"}, set(), {"Space"}):
        chunk = session.step(keys)
        assert np.array_equal(session.look(), chunk.frames[-1])
        assert np.array_equal(twin.step(keys).frames, chunk.frames)
    session.rewind(1)
    twin.rewind(1)
    assert np.array_equal(session.look(), twin.look())
    session.close()
    with pytest.raises(SessionClosed):
        session.look()


def page_frames(session: Session) -> np.ndarray | None:
    """What the video in a session's page shows, in the world's own pixels, uint8 [F, 6, 10, 3]; None if it has none."""
    found = re.search(r'src="data:video/mp4;base64,([^"]+)"', session._repr_html_())
    if found is None:
        return None
    with av.open(BytesIO(b64decode(found[1])), "r") as file:
        return np.stack([f.to_ndarray(format="rgb24")[24::48, 24::48] for f in file.decode(file.streams.video[0])])


def about(shown: np.ndarray | None, frames: np.ndarray) -> bool:
    return shown is not None and shown.shape == frames.shape and np.abs(shown.astype(int) - frames).mean() < 4


def test_a_session_shows_its_last_five_seconds_and_says_what_it_is(world):
    session = world.open(seed=4)
    frames = np.concatenate([session.step(keys).frames for keys in (*WALK, *WALK)])
    assert about(page_frames(session), frames[-5 * world.fps :])
    assert "<figcaption>dot, seed 4, 14 blocks, keys held last: none</figcaption>" in session._repr_html_()
    session.step({"Space", "KeyD"})
    assert "15 blocks, keys held last: KeyD + Space</figcaption>" in session._repr_html_()


def test_a_session_without_a_block_or_of_which_no_frame_is_known_shows_its_present(world, tmp_path):
    session = world.open(seed=4)
    assert session._repr_html_() == film_html(
        session.look()[None], fps=world.fps, caption="dot, seed 4, 0 blocks, keys held last: none"
    )
    session.step({"KeyD"})
    session.save(tmp_path / "a.save")
    restored = world.restore(read_snapshot(tmp_path / "a.save"))
    assert restored._repr_html_() == film_html(
        restored.look()[None], fps=world.fps, caption="dot, seed 4, 1 blocks, keys held last: KeyD"
    )


def test_a_session_shows_nothing_that_was_rewound_and_nothing_of_its_twin(world):
    session = world.open(seed=4)
    frames = [session.step(keys).frames for keys in WALK[:4]]
    mark, twin = session.mark(), session.fork()
    twin.step({"Space"})
    session.rewind(2)
    after = session.step({"Space"}).frames
    assert about(page_frames(session), np.concatenate([*frames[:2], after]))
    session.rewind(mark)
    assert page_frames(session) is None, "what lies between is not known any more"
    shown = page_frames(twin)
    assert shown is not None
    assert about(shown[:8], np.concatenate(frames))
    session.rewind(4)
    assert page_frames(session) is None


def test_a_closed_session_says_so_and_names_are_escaped(world):
    session = world.open(seed=4)
    session._opening = replace(session._opening, world="<b>")
    assert "&lt;b&gt;, seed 4" in session._repr_html_()
    session.close()
    assert session._repr_html_() == "<p>a session of &lt;b&gt;, closed after 0 blocks; open another</p>"


def test_a_rewind_to_a_mark_outside_of_a_full_pool_that_cannot_be_logged_changes_nothing(tmp_path, monkeypatch):
    world = tiny_world(pages=8)
    session, twin = world.open(seed=3, log=tmp_path / "log"), tiny_world(pages=8).open(seed=3)
    session.step({"KeyD"})
    mark = session.mark()
    for one in (session, twin):
        for keys in [{"KeyD"}] * (one is twin) + [{"Space"}, set()] * 6:
            one.step(keys)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(session._journal, "append", full)
    with pytest.raises(OSError, match="No space left"):
        session.rewind(mark)
    monkeypatch.undo()
    assert np.array_equal(session.step({"KeyD"}).frames, twin.step({"KeyD"}).frames)
    session.rewind(mark)
    assert session.block == 1
    session.close()
    mark.close()
    assert world.pool.used == 0


def test_an_outline_and_the_bytes_of_its_log_are_a_snapshot_whatever_was_written_since(tmp_path):
    session = tiny_world().open(seed=3, log=tmp_path / "log")
    for keys in ({"KeyD"}, set(), {"Space"}):
        session.step(keys)
    session.rewind(1)
    session.step({"KeyA"})
    whole, (outline, logged) = session.snapshot(), session.outline()
    assert (outline.log.steps, len(whole.log.steps)) == ((), 3)
    rest = [session.step(keys).frames for keys in ({"KeyD"}, set())]
    write_snapshot(tmp_path / "saved", outline, (tmp_path / "log").read_bytes()[:logged])
    read = read_snapshot(tmp_path / "saved")
    assert read.log == whole.log
    restored = tiny_world().restore(read)
    assert all(
        np.array_equal(restored.step(keys).frames, shown) for keys, shown in zip(({"KeyD"}, set()), rest, strict=True)
    )


def test_a_session_without_a_log_file_has_no_outline():
    with pytest.raises(ConfigError, match="writes no log file"):
        tiny_world().open(seed=3).outline()
