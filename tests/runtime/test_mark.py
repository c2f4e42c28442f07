"""A mark keeps its moment whatever the pool needs: in pages while there is room, and then beside them."""

from __future__ import annotations

import numpy as np
import pytest

from worldsim.cache.policy import Full
from worldsim.errors import PoolFull, SessionClosed
from worldsim.runtime.session import Session
from worldsim.testing.fakes import tiny_world

WALK = ({"KeyD"}, set(), {"Space"}, {"KeyA"})


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
