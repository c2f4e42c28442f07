"""A mark keeps its moment whatever the pool needs: in pages while there is room, and then beside them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch

import worldsim
from worldsim.cache.budget import Budget
from worldsim.cache.policies import parse_policy
from worldsim.cache.policy import Full
from worldsim.cache.pool import PagePool
from worldsim.cache.tiers import Tiers
from worldsim.errors import NotReproduced, PoolFull, SessionClosed, SpillError
from worldsim.runtime.journal import read_log
from worldsim.runtime.mark import Mark
from worldsim.runtime.session import Session
from worldsim.runtime.snapshot import read_snapshot
from worldsim.runtime.world import World
from worldsim.testing.fakes import tiny_world

WALK = ({"KeyD"}, set(), {"Space"}, {"KeyA"})


class Shelf:
    """A disk in memory, which may be full."""

    def __init__(self) -> None:
        self.bytes: dict[int, bytearray] = {}
        self.full = False

    def write(self, offset: int, data: memoryview) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.bytes[offset] = bytearray(data)

    def read(self, offset: int, into: memoryview) -> None:
        into[:] = self.bytes[offset]


def tiered_world(shelf: Shelf, *, pages: int, budget: int, policy: str = "window:frames=5") -> World:
    """A tiny world with so many pages, of which that many may lie in memory."""
    world = tiny_world(policy=parse_policy(policy))
    shape, device = world.pool.shape, torch.device("cpu")
    room = Budget(device=budget * shape.bytes(torch.float32))
    tiers = Tiers(room, device=device, disk=shelf, run=lambda work: None)
    world.pool = PagePool(shape, pages=pages, dtype=torch.float32, device=device, tiers=tiers)
    return world


def shown(session: Session, *, times: int = 1) -> bytes:
    return b"".join(session.step(keys).frames.tobytes() for keys in WALK * times)


def test_a_mark_knows_its_block_and_holds_the_pages_of_its_moment() -> None:
    session = tiny_world(pages=40).open(seed=4)
    shown(session)
    mark = session.mark()
    held = mark.pages
    shown(session)
    assert mark.block == 4
    assert held
    assert mark.pages == held


def test_a_mark_that_had_to_leave_the_pool_is_gone_back_to_bit_for_bit() -> None:
    world = tiny_world(pages=20)
    session = world.open(seed=4)
    shown(session)
    mark = session.mark()
    after = shown(session)
    others = [world.open(seed=seed) for seed in (5, 6)]
    for other in others:
        shown(other, times=3)
    shown(session, times=3)
    assert mark.pages == ()
    assert mark.block == 4
    session.rewind(mark)
    assert shown(session) == after
    session.rewind(mark)
    assert shown(session) == after
    world.pool.check_integrity([session, *others, mark])


def test_memories_are_forgotten_before_a_mark_has_to_leave_the_pool_and_the_oldest_mark_leaves_first() -> None:
    world = tiny_world(pages=32)
    session = world.open(seed=4)
    marks = []
    for _ in range(3):
        shown(session, times=2)
        marks.append(session.mark())
    others = []
    while marks[0].pages:
        assert len(others) < 8
        others.append(world.open(seed=len(others)))
    assert session.remembered == 0
    assert marks[1].pages
    assert marks[2].pages


def test_a_mark_that_left_may_take_the_pages_of_the_present() -> None:
    world = tiny_world(policy=Full(), pages=13)
    session = world.open(seed=4)
    mark = session.mark()
    first = shown(session, times=2)
    with pytest.raises(PoolFull):
        session.step()
    assert mark.pages == ()
    session.rewind(mark)
    assert shown(session, times=2) == first


def test_a_mark_that_finds_no_room_leaves_the_present_as_it_is() -> None:
    world = tiny_world(policy=Full(), pages=18)
    session = world.open(seed=4)
    shown(session)
    mark = session.mark()
    session.rewind(4)
    other = world.open(seed=5)
    with pytest.raises(PoolFull):
        shown(other, times=9)
    assert mark.pages == ()
    with pytest.raises(PoolFull):
        session.rewind(mark)
    assert session.block == 0
    other.close()
    alone = tiny_world(policy=Full()).open(seed=4)
    assert np.array_equal(session.step(WALK[0]).frames, alone.step(WALK[0]).frames)


def test_a_closed_mark_holds_nothing_wherever_its_memory_was() -> None:
    world = tiny_world(pages=24)
    session = world.open(seed=4)
    inside, outside = session.mark(), session.mark()
    outside.leave_pool()
    for mark in (inside, outside):
        mark.close()
        mark.close()
        assert mark.pages == ()
        with pytest.raises(SessionClosed, match="that mark was closed"):
            session.rewind(mark)


def lost_mark(session: Session, world: World, shelf: Shelf) -> tuple[Mark, bytes]:
    """A mark of which a page is damaged and that had to leave the pool, and what its session showed after it."""
    shown(session)
    mark = session.mark()
    after = shown(session, times=2)
    damaged = [entry.offset for page in mark.pages if (entry := world.pool._tiers._pages[page]).offset is not None]
    assert damaged
    for offset in damaged:
        shelf.bytes[offset][0] ^= 1
    other = world.open(seed=5)
    forks = [other.fork() for _ in range(2)]
    for one in (other, *forks):  # make the room that they need
        shown(one, times=2)
    assert mark.pages == ()
    assert mark._lost
    for one in (other, *forks):
        one.close()
    return mark, after


def test_a_lost_page_that_a_mark_holds_alone_is_felt_by_nobody_else_and_the_mark_is_lived_again(tmp_path: Path) -> None:
    shelf = Shelf()
    world = tiered_world(shelf, pages=22, budget=6)
    session = world.open(seed=4, log=tmp_path / "log")
    mark, after = lost_mark(session, world, shelf)
    for _ in range(2):
        session.rewind(mark)
        assert session.block == mark.block == 4
        assert shown(session, times=2) == after
    assert read_log(tmp_path / "log").steps == session.log.steps
    world.pool.check_integrity([session, mark])


def test_a_lost_mark_that_does_not_come_out_the_same_leaves_the_present_as_it_is() -> None:
    shelf = Shelf()
    world = tiered_world(shelf, pages=22, budget=6)
    session = world.open(seed=4)
    mark, _ = lost_mark(session, world, shelf)
    twin = tiny_world().open(seed=4)
    shown(twin, times=3)
    with torch.no_grad():
        changed = next(world.backbone.parameters())
        changed += 1
        with pytest.raises(NotReproduced):
            session.rewind(mark)
        changed -= 1
    assert session.block == 12
    assert session.look().tobytes() == twin.look().tobytes()
    mark.close()
    with pytest.raises(SessionClosed, match="that mark was closed"):
        session.rewind(mark)


def test_a_rewind_that_finds_no_room_on_a_full_disk_keeps_the_present_until_there_is_some(tmp_path: Path) -> None:
    policy = "blockvid:recent=2,run=2,top=1,bank=3,tau=0.8"
    shelf = Shelf()
    world = tiered_world(shelf, pages=64, budget=6, policy=policy)
    session = world.open(seed=4)
    shown(session)
    mark = session.mark()
    after = shown(session, times=3)
    mark.leave_pool()
    twin = tiny_world(policy=parse_policy(policy)).open(seed=4)
    shown(twin, times=4)
    shelf.full = True
    with pytest.raises(PoolFull):  # until nothing is left to make room with
        shown(session, times=9)
    while twin.block < session.block:
        twin.step(WALK[twin.block % 4])
    for to in (mark, mark):
        with pytest.raises((PoolFull, SpillError)):
            session.rewind(to)
    assert session.block == twin.block
    assert session.pages == ()
    assert np.array_equal(session.look(), twin.look())
    for needs_pages in (session.step, session.mark, session.fork, lambda: session.rewind(0)):
        with pytest.raises((PoolFull, SpillError)):
            needs_pages()
    session.save(tmp_path / "saved")
    assert tiny_world(policy=parse_policy(policy)).restore(read_snapshot(tmp_path / "saved")).step().frames.any()
    shelf.full = False
    assert shown(session) == shown(twin)
    session.rewind(mark)
    assert shown(session, times=3) == after
    world.pool.check_integrity([session, mark])


def test_where_pages_are_lost_all_that_reads_none_can_still_be_saved(tmp_path: Path) -> None:
    shelf = Shelf()
    policy = "blockvid:recent=2,run=2,top=1,bank=3,tau=0.8"
    world = tiered_world(shelf, pages=64, budget=6, policy=policy)
    session = world.open(seed=4)
    shown(session, times=4)
    session.save(tmp_path / "whole", keep="latents")
    assert shelf.bytes
    shelf.bytes = {offset: bytearray(len(data)) for offset, data in shelf.bytes.items()}
    with pytest.raises(SpillError, match="checksum is wrong"):
        session.save(tmp_path / "pages")
    assert not (tmp_path / "pages").exists()
    for keep in ("latents", "log"):
        session.save(tmp_path / keep, keep=keep)
    whole, saved = (read_snapshot(tmp_path / name).state for name in ("whole", "latents"))
    assert whole is not None
    assert saved is not None
    assert torch.equal(whole.latents, saved.latents)
    assert whole.frames == saved.frames
    twin = tiny_world(policy=parse_policy(policy))
    assert worldsim.restore(tmp_path / "log", world=twin).log == session.log
