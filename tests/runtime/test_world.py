"""A world says what it is, opens where it is told to, and refuses what does not fit."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from worldsim.cache.policy import Full, SinkWindow, Window
from worldsim.cache.pool import PagePool
from worldsim.cache.quant import parse_storage
from worldsim.decoding.noise_plan import parse_noise
from worldsim.decoding.video import VideoDecoder
from worldsim.errors import ConfigError, LogError, PoolFull, ShapeError, UnknownName
from worldsim.runtime.journal import read_log
from worldsim.runtime.session import Session
from worldsim.runtime.snapshot import read_snapshot
from worldsim.runtime.world import World
from worldsim.testing.fakes import DotSimulator, tiny_world

WORLD = tiny_world(frames_per_block=2)


def played(frames: int, *, seed: int = 2) -> NDArray[np.uint8]:
    """That many frames of the dot going right."""
    engine = DotSimulator()
    return np.stack([engine.reset(seed), *(engine.step(frozenset({"KeyD"})) for _ in range(frames - 1))])


def shown(session: Session) -> NDArray[np.uint8]:
    return np.concatenate([session.step(keys).frames for keys in ({"KeyD"}, set(), {"Space"})])


def coding_world(kv: str, **settings: object) -> World:
    """A tiny world that keeps older keys and values in fewer bits."""
    world = tiny_world(**settings)
    was = world.pool
    world.pool = PagePool(was.shape, pages=was.pages, dtype=was.dtype, device=was.device, storage=parse_storage(kv))
    return world


def test_a_world_says_what_it_is():
    assert (WORLD.fps, WORLD.size, WORLD.frames_per_block, WORLD.calls_per_block) == (4, (6, 10), 2, 3)
    assert WORLD.keys == ("KeyA", "ArrowLeft", "KeyD", "ArrowRight", "Space")
    assert WORLD.controls is DotSimulator.controls


@pytest.mark.parametrize(("seed", "start"), [(0, 0), (1, 1), (5, 2), (2**64 - 1, 0)])
def test_the_seed_picks_the_start_if_nothing_else_does(seed, start):
    assert np.array_equal(shown(WORLD.open(seed=seed)), shown(WORLD.open(seed=seed, start=start)))
    others = [shown(WORLD.open(seed=seed, start=other)) for other in range(3) if other != start]
    assert not any(np.array_equal(shown(WORLD.open(seed=seed)), other) for other in others)


def test_a_session_can_begin_from_the_frames_and_keys_of_a_start():
    frames, _ = WORLD.origin.starts.get(1)
    begun = WORLD.open(seed=9, frames=frames.numpy(), keys=[set(), *[{"KeyD"}] * 4], hour=4)
    assert np.array_equal(shown(begun), shown(WORLD.open(seed=9, start=1)))


def test_what_a_start_comes_to_is_computed_once_and_equal_for_every_seed(monkeypatch):
    world, other = tiny_world(frames_per_block=2), tiny_world(frames_per_block=2)
    calls = []
    prefill = VideoDecoder.prefill
    monkeypatch.setattr(VideoDecoder, "prefill", lambda *given: (calls.append(1), prefill(*given)))
    shows = [shown(world.open(seed=seed, start=2)) for seed in (4, 9, 4)]
    assert len(calls) == 1
    assert np.array_equal(shows[0], shown(other.open(seed=4, start=2)))
    assert np.array_equal(shows[1], shown(tiny_world(frames_per_block=2).open(seed=9, start=2)))
    assert np.array_equal(shows[2], shows[0])
    world.open(start=1)
    assert len(calls) == 4


def test_the_hour_given_is_that_of_the_last_frame_and_shows_unlike_one_that_is_not_known():
    frames = played(3)
    shows = [shown(WORLD.open(frames=frames, hour=hour)) for hour in (0, 7, None)]
    assert np.array_equal(shown(WORLD.open(frames=frames, hour=7)), shows[1])
    assert len({each.tobytes() for each in shows}) == 3
    log = WORLD.open(frames=frames, hour=0).log
    vectors = WORLD._steering(log.opening.given)
    assert [WORLD.controls.hour(vector) for vector in vectors] == [10, 11, 0]


@pytest.mark.parametrize("hour", [-1, 12])
def test_an_hour_outside_the_day_is_refused_with_the_range(hour):
    with pytest.raises(ConfigError, match=f"0 to 11, got {hour}"):
        WORLD.open(frames=played(3), hour=hour)


def test_keys_left_out_are_none_held_and_keys_given_count():
    frames = played(3)
    without = shown(WORLD.open(frames=frames))
    assert np.array_equal(shown(WORLD.open(frames=frames, keys=[(), (), ()])), without)
    assert not np.array_equal(shown(WORLD.open(frames=frames, keys=[(), ["KeyD"], ()])), without)


def test_the_last_frame_given_is_the_present_and_earlier_ones_count_too():
    frames = played(4)
    whole = shown(WORLD.open(frames=frames))
    assert not np.array_equal(shown(WORLD.open(frames=frames[1:])), whole)
    assert not np.array_equal(shown(WORLD.open(frames=frames[::-1])), whole)


def test_one_frame_is_enough_and_frames_need_not_lie_contiguously():
    assert shown(WORLD.open(frames=played(1))).shape == (6, 6, 10, 3)
    frames = played(7)
    assert np.array_equal(shown(WORLD.open(frames=frames[::2])), shown(WORLD.open(frames=frames[::2].copy())))


@pytest.mark.parametrize(
    "frames",
    [
        played(3)[:, :5],
        played(3)[:, :, :, :2],
        played(3).transpose(0, 2, 1, 3),
        played(3)[0],
        played(3)[:0],
        played(3).astype(np.float32),
        played(3).astype(np.int8),
        played(3)[None],
    ],
    ids=lambda frames: f"{frames.dtype} {frames.shape}",
)
def test_frames_of_another_size_or_dtype_are_refused(frames):
    with pytest.raises(ShapeError, match=r"expected frames uint8 \[F, 6, 10, 3\] with F at least 1, got") as error:
        WORLD.open(frames=frames)
    assert f"{frames.dtype} {list(frames.shape)}" in str(error.value)


@pytest.mark.parametrize("count", [0, 2, 4])
def test_another_number_of_keys_than_of_frames_is_refused(count):
    with pytest.raises(ShapeError, match=f"3 frames need the keys held at each, got keys for {count}"):
        WORLD.open(frames=played(3), keys=[()] * count)


def test_a_key_that_the_world_does_not_understand_is_refused_in_the_past_too():
    with pytest.raises(UnknownName, match=r"there is no key 'ArowRight'.*did you mean 'ArrowRight'"):
        WORLD.open(frames=played(2), keys=[{"KeyD"}, {"ArowRight"}])
    with pytest.raises(ConfigError, match="got the text 'KeyD'"):
        WORLD.open(frames=played(1), keys=["KeyD"])


@pytest.mark.parametrize("start", [-1, 3])
def test_a_start_outside_the_range_is_refused_with_the_range(start):
    with pytest.raises(ConfigError, match=f"no starting place {start}; choose from 0 to 2"):
        WORLD.open(start=start)


def test_a_start_and_frames_or_keys_without_frames_are_refused():
    with pytest.raises(ConfigError, match="from a start or from frames, not from both"):
        WORLD.open(start=0, frames=played(2))
    with pytest.raises(ConfigError, match="pass the frames too"):
        WORLD.open(start=0, keys=[()])


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_outside_its_range_is_refused_when_the_world_is_opened(seed):
    with pytest.raises(ConfigError, match=f"from 0 to .*got {seed}"):
        WORLD.open(seed=seed)


@pytest.mark.parametrize("seed", ["a", None, 1.5, "2", [1]])
def test_a_seed_that_is_no_whole_number_is_refused(seed):
    with pytest.raises(ConfigError, match=r"a seed is a whole number from 0 to 2\*\*64 - 1, got ") as refused:
        WORLD.open(seed=seed)
    assert str(refused.value).endswith(repr(seed))


@pytest.mark.parametrize("start", ["a", 1.5, [1]])
def test_a_start_that_is_no_number_is_refused(start):
    with pytest.raises(ConfigError, match="a starting place is given by its number, got "):
        WORLD.open(start=start)


def test_whole_numbers_of_numpy_are_numbers_and_can_be_logged(tmp_path):
    with WORLD.open(seed=np.int64(4), start=np.uint8(1), log=tmp_path / "log") as session:
        assert (session.log.opening.seed, session.log.opening.start) == (4, 1)
        assert np.array_equal(shown(session), shown(WORLD.open(seed=4, start=1)))


def test_a_past_that_does_not_fit_into_memory_leaves_all_of_it_free():
    world = tiny_world(policy=Full(), pages=7)
    with pytest.raises(PoolFull, match="1 more pages are wanted and 0 of 7 are free") as error:
        world.open(frames=played(8))
    assert world.pool.used == 0, f"while {error.value!r} is still being handled"
    world.open(frames=played(6))


def test_all_sessions_of_a_world_share_its_memory():
    world = tiny_world(pages=11)
    sessions = [world.open(seed=seed) for seed in range(2)]
    assert world.pool.used == 10
    with pytest.raises(PoolFull):
        world.open(seed=2)
    sessions[0].close()
    world.open(seed=2)


WALK = [{"KeyD"}, set(), {"Space"}, {"KeyA"}, {"KeyD"}, {"KeyD"}, set(), {"ArrowLeft"}, {"Space"}, {"KeyA"}] * 2


def wandered(world: World, folder: Path, seed: int) -> Session:
    """The walk, with marks, forks, rewinds, savings and detours on the way that all lead back to it."""
    chance = random.Random(seed)
    session, kept = world.open(seed=3, start=1), []
    while session.block < len(WALK):
        session.step(WALK[session.block])
        match chance.randrange(6):
            case 0:
                kept.append(session.mark())
            case 1:
                session.rewind(chance.randint(0, session.block))
            case 2:
                kept.append(session)
                session = session.fork()
            case 3:
                session.save(folder / "life.save")
                session = world.restore(read_snapshot(folder / "life.save"))
            case 4:
                mark = session.mark()
                for _ in range(chance.randint(1, 5)):
                    session.step({"Space"})
                if chance.random() < 0.5:
                    mark.leave_pool()
                session.rewind(mark)
            case 5 if kept:
                kept.pop(chance.randrange(len(kept))).close()
    return session


def check_wandering(made: Callable[[], World], plain: World, folder: Path) -> None:
    """A walk is another than in a plain world, the same whatever was done on the way, and lived again by its log."""
    session, other = made().open(seed=3, start=1, log=folder / "walk.log"), plain.open(seed=3, start=1)
    straight = [session.step(keys) for keys in WALK]
    assert not all(np.array_equal(other.step(one.keys).frames, one.frames) for one in straight)
    world = made()
    for seed in range(4):
        assert wandered(world, folder, seed).log.steps == session.log.steps
    session.close()
    world.replay(read_log(folder / "walk.log"))


@pytest.mark.parametrize("kv", ["int8:recent=2", "fp8:recent=0", "kivi2:recent=3", "gear4:recent=2,outliers=1"])
@pytest.mark.parametrize("policy", [Window(frames=6), SinkWindow(sink=2, window=4)], ids=["window", "sink"])
def test_with_coded_pages_a_walk_is_the_same_whatever_was_done_on_the_way(tmp_path, kv, policy):
    settings = {"policy": policy, "frames_per_block": 2, "pages": 256}
    check_wandering(lambda: coding_world(kv, **settings), tiny_world(**settings), tmp_path)


def test_a_log_tells_how_pages_were_coded_and_is_lived_again_only_so(tmp_path):
    kept = "int8:recent=8"
    log = coding_world("int8").open(seed=3).log
    assert log.opening.plan["kv"] == kept
    plain = tiny_world().open(seed=3).log
    assert "kv" not in plain.opening.plan
    coding_world(kept).replay(log)
    for world, other in ((tiny_world(), log), (coding_world("int8:recent=7"), log), (coding_world(kept), plain)):
        with pytest.raises(LogError, match=r"kv (int8:recent=8|None), here it is (None|int8:recent=[78])"):
            world.replay(other)


def noisy_world(noise: str, **settings: object) -> World:
    """A tiny world whose blocks begin with noise by that plan."""
    world = tiny_world(**settings)
    world.plan = replace(world.plan, noise=parse_noise(noise))
    return world


@pytest.mark.parametrize("noise", ["shuffled:window=4", "cosine:low=40,period=5,window=2"])
def test_with_a_plan_of_noise_a_walk_is_the_same_whatever_was_done_on_the_way(tmp_path, noise):
    settings = {"frames_per_block": 2, "pages": 256, "remembers": True}
    check_wandering(lambda: noisy_world(noise, **settings), tiny_world(**settings), tmp_path)


def test_without_clean_passes_a_walk_is_the_same_whatever_was_done_on_the_way(tmp_path):
    settings = {"frames_per_block": 2, "pages": 256, "remembers": True}

    def hasty() -> World:
        world = tiny_world(**settings)
        world.plan = replace(world.plan, clean_pass=False)
        return world

    check_wandering(hasty, tiny_world(**settings), tmp_path)


def test_a_log_tells_the_noise_that_blocks_began_with_and_is_lived_again_only_so():
    log, plain = noisy_world("linear").open(seed=3).log, tiny_world().open(seed=3).log
    assert log.opening.plan["noise"] == "linear:low=60,high=100,period=32,window=0"
    assert "noise" not in plain.opening.plan
    noisy_world("linear:low=60").replay(log)
    for world, other in ((tiny_world(), log), (noisy_world("linear:low=61"), log), (noisy_world("linear"), plain)):
        with pytest.raises(LogError, match=r"noise (linear:low=60,\S+|None), here it is (None|linear:low=6[01],\S+)"):
            world.replay(other)


def test_frames_that_make_no_array_are_refused():
    with pytest.raises(ShapeError, match=r"frames are one array uint8 \[F, 6, 10, 3\], got \[\[1\], \[2, 3\]\]"):
        tiny_world().open(frames=[[1], [2, 3]])


def test_a_world_and_a_session_say_in_a_line_what_they_are():
    world = tiny_world(frames_per_block=2)
    assert repr(world) == f"<World {world.origin.name}: 10 x 6, {world.fps} fps, blocks of 2>"
    with world.open(seed=7) as session:
        session.step()
        assert repr(session) == f"<Session of {world.origin.name}: seed 7, next block 1, open>"
        session.pause()
        assert repr(session).endswith("paused>")
    assert repr(session).endswith("closed>")


def test_what_is_lived_again_is_a_log_and_what_is_restored_a_snapshot():
    for wrong in ("walk.log", None, WORLD):
        with pytest.raises(ConfigError, match=r"a SessionLog is replayed.* got .*read_log"):
            WORLD.replay(wrong)
        with pytest.raises(ConfigError, match=r"restores a Snapshot.* got .*worldsim.restore\(path"):
            WORLD.restore(wrong)


def test_keys_that_can_be_gone_through_once_count_as_any():
    frames = played(2)
    once = WORLD.open(frames=frames, keys=(held for held in ({"KeyD"}, ())))
    twice = WORLD.open(frames=frames, keys=[{"KeyD"}, ()])
    assert once.log.opening == twice.log.opening


@pytest.mark.parametrize("keys", [np.array(5), torch.zeros(1), [torch.tensor(1)], [np.array(5)], [None], 5])
def test_keys_of_given_frames_that_hold_no_names_are_refused(keys):
    with pytest.raises(ConfigError, match=r"keys .*are a set of names"):
        WORLD.open(frames=played(1), keys=keys)


@pytest.mark.parametrize(
    "frames",
    [
        torch.zeros(1, 16, 16, 3, requires_grad=True),
        torch.zeros(1, 16, 16, 3, dtype=torch.uint8, device="meta"),
        torch.zeros(1, 16, 16, 3, dtype=torch.uint8).to_sparse(),
        torch.zeros(1, 16, 16, 3, dtype=torch.bfloat16),
        [np.zeros((16, 16, 3), np.uint8), np.zeros((5, 16, 3), np.uint8)],
    ],
)
def test_frames_that_numpy_cannot_look_at_are_refused_in_a_line(frames):
    with pytest.raises(ShapeError, match=r"frames are one array uint8 .*\.detach") as refused:
        WORLD.open(frames=frames)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 250


@pytest.mark.parametrize("sign", [1, -1])
def test_a_number_of_thousands_of_digits_is_refused_as_any(sign):
    number = sign * 10**5_000
    session = WORLD.open()
    opened = (
        lambda: WORLD.open(start=number),
        lambda: WORLD.open(seed=number),
        lambda: WORLD.open(frames=played(1), hour=number),
        lambda: session.rewind(number),
        lambda: session.step([number]),
    )
    for opening in opened:
        with pytest.raises(ConfigError, match="a number of more digits than can be written"):
            opening()
