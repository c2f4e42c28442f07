"""Wherever a page lies it reads the same: under any budget, however slow, full or broken the disk is."""

from __future__ import annotations

import errno
import os
import random
import signal
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event, Thread

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from torch import Tensor

from tests.signalling import send
from worldsim.cache.budget import Budget, TierBytes
from worldsim.cache.policy import Window
from worldsim.cache.pool import PagePool, PageShape, Storage
from worldsim.cache.quant import PerToken
from worldsim.cache.spill import Disk, SpillFile
from worldsim.cache.tiers import Tiers
from worldsim.errors import IntegrityError, PoolFull, SpillError
from worldsim.runtime.session import Session
from worldsim.runtime.world import World
from worldsim.testing.fakes import tiny_world

CPU = torch.device("cpu")
SIZE = 12 * 4
"""Bytes of the pages that `page` makes."""


class Shelf:
    """A disk in memory that does what it is told.

    room: bytes from which on it is full.
    broken, torn: offsets that cannot be read, and at which a bit has turned.
    rots: a bit turns in whatever is written from now on.
    gate: it waits there before it writes or reads, and `reached` says that it does.
    on_the_way: called before it reads, and in the midst of writing.
    """

    def __init__(self) -> None:
        self.bytes: dict[int, bytearray] = {}
        self.room = 10**9
        self.broken: set[int] = set()
        self.torn: set[int] = set()
        self.rots = False
        self.writes: list[int] = []
        self.reads: list[int] = []
        self.unread: set[int] = set()
        self.on_the_way: Callable[[], None] = lambda: None
        self.gate, self.reached = Event(), Event()
        self.gate.set()

    def write(self, offset: int, data: memoryview) -> None:
        self.reached.set()
        self.gate.wait()
        if offset + len(data) > self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.on_the_way()
        self.writes.append(offset)
        self.unread.add(offset)
        self.bytes[offset] = bytearray(data)
        if self.rots:
            self.bytes[offset][5] ^= 4

    def read(self, offset: int, into: memoryview) -> None:
        self.reached.set()
        self.gate.wait()
        self.on_the_way()
        if offset in self.broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if offset in self.unread:
            self.unread.remove(offset)  # read back to see that it was written
        else:
            self.reads.append(offset)
        into[:] = self.bytes[offset]
        if offset in self.torn:
            into[7] ^= 1

    def close_gate(self) -> None:
        self.gate.clear()
        self.reached.clear()

    def forget_reads(self) -> list[int]:
        """What was read since the last call."""
        reads, self.reads = self.reads, []
        return reads


class Later:
    """Background work that is done when the test says so."""

    def __init__(self) -> None:
        self.left: deque[Callable[[], None]] = deque()

    def __call__(self, work: Callable[[], None]) -> None:
        self.left.append(work)

    def now(self) -> None:
        while self.left:
            self.left.popleft()()


def interrupt() -> None:
    raise KeyboardInterrupt


def run_out() -> None:
    raise MemoryError


def press_ctrl_c() -> None:
    send(signal.SIGINT)


def page(number: int) -> Tensor:
    return torch.arange(12.0).view(2, 3, 2) * (number + 1)


def new_tiers(pages: int, *, host: int = 0, disk: Disk | None = None, later: Later | None = None) -> Tiers:
    """Tiers with room for that many pages on the device, and in host memory."""
    budget = Budget(device=pages * SIZE + 5, host=host * SIZE)
    return Tiers(budget, device=CPU, disk=disk or Shelf(), run=later or Later())


def filled(tiers: Tiers, pages: int) -> Tiers:
    for number in range(pages):
        tiers.put(number, page(number))
    return tiers


def test_what_memory_has_no_room_for_lies_on_disk_and_reads_the_same() -> None:
    tiers = filled(new_tiers(4), 9)
    assert tiers.bytes == TierBytes(device=4 * SIZE, disk=5 * SIZE)
    for number in (8, 0, 4, 4, 3):
        read = tiers.get(number)
        assert torch.equal(read, page(number))
        assert (read.dtype, read.shape) == (torch.float32, (2, 3, 2))
    tiers.check(range(9))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.uint8])
def test_every_bit_of_every_dtype_comes_back(dtype: torch.dtype) -> None:
    tiers = new_tiers(1)
    bits = torch.randint(256, (SIZE,), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for number in range(2):
        tiers.put(number, bits.view(dtype).view(2, -1))
    assert torch.equal(tiers.get(0).view(torch.uint8).flatten(), bits), "not a number is a number of bits too"


def test_the_page_that_was_read_longest_ago_leaves_first() -> None:
    shelf = Shelf()
    tiers = filled(new_tiers(3, disk=shelf), 3)
    tiers.get(0)
    tiers.put(3, page(3))
    shelf.forget_reads()
    for number in (0, 2, 3):
        tiers.get(number)
    assert shelf.forget_reads() == []
    tiers.get(1)
    assert len(shelf.forget_reads()) == 1


def test_a_past_longer_than_the_budget_costs_only_what_has_no_room() -> None:
    shelf = Shelf()
    tiers = filled(new_tiers(6, disk=shelf), 9)
    for _ in range(3):
        shelf.forget_reads()
        for number in range(9):
            tiers.get(number)
        assert len(shelf.forget_reads()) == 3


def test_a_page_that_is_read_again_and_again_comes_back_in_place_of_one_that_is_not() -> None:
    shelf = Shelf()
    tiers = filled(new_tiers(3, disk=shelf), 6)
    shelf.forget_reads()
    for _ in range(4):
        for number in (0, 4, 5):
            assert torch.equal(tiers.get(number), page(number))
    assert len(shelf.forget_reads()) == 2, "once when it is asked for, and once more to stay"
    assert tiers.bytes.device == 3 * SIZE


def test_a_page_that_left_once_needs_no_second_copy() -> None:
    shelf = Shelf()
    tiers = filled(new_tiers(2, disk=shelf), 4)
    written = len(shelf.writes)
    tiers.prefetch([0, 1])
    tiers._run.now()
    tiers.prefetch([2, 3])
    tiers._run.now()
    assert len(shelf.writes) <= written + 2 == 4


def test_what_may_leave_next_is_copied_in_the_background_before_room_is_needed() -> None:
    shelf, later = Shelf(), Later()
    tiers = filled(new_tiers(8, disk=shelf, later=later), 6)
    assert (shelf.writes, later.left) == ([], deque()), "nothing is copied while a quarter of the budget is free"
    tiers.put(6, page(6))
    tiers.put(7, page(7))
    assert len(later.left) == 1, "one thing at a time"
    later.now()
    assert len(shelf.writes) == 2
    shelf.close_gate()  # whoever writes now waits for ever
    tiers.put(8, page(8))
    tiers.put(9, page(9))
    assert tiers.bytes.device == 8 * SIZE


def test_pages_that_are_read_soon_are_brought_in_the_background() -> None:
    shelf, later = Shelf(), Later()
    tiers = filled(new_tiers(4, disk=shelf, later=later), 9)
    later.now()
    tiers.prefetch([0, 8, 2, 1])
    shelf.forget_reads()
    later.now()
    assert len(shelf.forget_reads()) == 3
    for number in (0, 8, 2, 1):
        assert torch.equal(tiers.get(number), page(number))
    assert shelf.forget_reads() == []
    assert tiers.bytes.device <= tiers.budget.device


def test_no_more_is_brought_than_there_is_room_for_and_nothing_that_is_wanted_leaves_for_it() -> None:
    shelf, later = Shelf(), Later()
    tiers = filled(new_tiers(4, disk=shelf, later=later), 9)
    tiers.prefetch(range(9))
    later.now()
    shelf.forget_reads()
    for number in range(9):
        assert torch.equal(tiers.get(number), page(number))
    assert len(shelf.forget_reads()) == 5
    tiers.check(range(9))


def test_a_page_that_is_read_before_it_was_brought_is_read_once() -> None:
    shelf, later = Shelf(), Later()
    tiers = filled(new_tiers(2, disk=shelf, later=later), 4)
    later.now()
    tiers.prefetch([0])
    shelf.forget_reads()
    assert torch.equal(tiers.get(0), page(0))
    later.now()
    assert len(shelf.forget_reads()) == 1


def test_who_reads_a_page_on_its_way_waits_for_it() -> None:
    shelf, later = Shelf(), Later()
    tiers = filled(new_tiers(2, disk=shelf, later=later), 4)
    later.now()
    tiers.prefetch([0])
    shelf.forget_reads()
    shelf.close_gate()
    background, got = Thread(daemon=True, target=later.now), list[Tensor]()
    background.start()
    assert shelf.reached.wait(10)
    reader = Thread(daemon=True, target=lambda: got.append(tiers.get(0)))
    reader.start()
    assert torch.equal(tiers.get(3), page(3)), "who reads another does not"
    assert not got
    shelf.gate.set()
    reader.join()
    background.join()
    assert torch.equal(got[0], page(0))
    assert len(shelf.forget_reads()) == 1


def test_a_page_that_is_dropped_on_its_way_here_leaves_its_place_when_the_disk_is_done_with_it() -> None:
    shelf, later = Shelf(), Later()
    tiers = filled(new_tiers(2, disk=shelf, later=later), 4)
    later.now()
    tiers.prefetch([0])
    shelf.close_gate()
    background = Thread(daemon=True, target=later.now)
    background.start()
    assert shelf.reached.wait(10)
    before = tiers.bytes.disk
    tiers.drop(0)
    assert tiers.bytes.disk == before
    shelf.gate.set()
    background.join()
    assert tiers.bytes.disk == before - SIZE
    tiers.check([1, 2, 3])


def test_a_check_waits_for_what_is_on_its_way() -> None:
    shelf, later = Shelf(), Later()
    tiers = filled(new_tiers(2, disk=shelf, later=later), 4)
    later.now()
    tiers.prefetch([0])
    shelf.close_gate()
    with ThreadPoolExecutor(2) as executor:
        background = executor.submit(later.now)
        assert shelf.reached.wait(10)
        checked = executor.submit(tiers.check, range(4))
        time.sleep(0.05)
        waited = not checked.done()
        shelf.gate.set()
        background.result()
        checked.result()
    assert waited


def test_a_page_that_came_while_room_was_made_for_it_comes_once() -> None:
    shelf, later = Shelf(), Later()
    tiers = filled(new_tiers(2, disk=shelf, later=later), 4)
    tiers.get(0)  # from now on it was read later than those that lie in memory
    tiers.prefetch([0])
    shelf.close_gate()
    background, reader = Thread(daemon=True, target=later.now), Thread(daemon=True, target=lambda: tiers.get(0))
    background.start()
    assert shelf.reached.wait(10)
    reader.start()
    time.sleep(0.05)  # it waits for the room that the other thread makes
    shelf.gate.set()
    reader.join()
    background.join()
    tiers.check(range(4))


def test_a_page_on_its_way_out_is_read_from_memory_and_one_that_is_dropped_meanwhile_gives_its_place_back() -> None:
    shelf, later = Shelf(), Later()
    tiers = filled(new_tiers(4, disk=shelf, later=later), 4)
    shelf.close_gate()
    background = Thread(daemon=True, target=later.now)
    background.start()
    assert shelf.reached.wait(10)
    assert torch.equal(tiers.get(0), page(0))
    tiers.drop(0)
    tiers.put(4, page(4))
    shelf.gate.set()
    background.join()
    tiers.check([1, 2, 3, 4])
    for number in (1, 2, 3, 4):
        tiers.drop(number)
    assert tiers.bytes == TierBytes()
    tiers.check([])


def test_host_memory_takes_what_it_has_room_for_and_the_disk_the_rest() -> None:
    shelf = Shelf()
    tiers = filled(new_tiers(3, host=2, disk=shelf), 8)
    assert tiers.bytes == TierBytes(device=3 * SIZE, host=2 * SIZE, disk=3 * SIZE)
    shelf.forget_reads()
    for number in range(8):
        assert torch.equal(tiers.get(number), page(number))
    assert len(shelf.forget_reads()) == 3
    tiers.check(range(8))
    for number in range(8):
        tiers.drop(number)
    assert tiers.bytes == TierBytes()


def test_a_full_disk_keeps_what_lies_in_memory_and_takes_nothing_new_until_it_has_room() -> None:
    shelf = Shelf()
    tiers = filled(new_tiers(3, disk=shelf), 5)
    shelf.room = 0
    for _ in range(2):
        with pytest.raises(SpillError, match=r"cannot be moved to disk: .*No space left.*; make room there"):
            tiers.put(5, page(5))
    assert "No space left" in tiers.trouble
    tiers.check(range(5))
    assert tiers.room() < SIZE
    tiers.drop(3)
    assert SIZE <= tiers.room() < 2 * SIZE
    tiers.put(5, page(5))
    shelf.room = 10**9
    tiers.put(6, page(6))
    assert tiers.trouble == ""
    assert tiers.room() > 10**9
    for number in (0, 1, 2, 4, 5, 6):
        assert torch.equal(tiers.get(number), page(number))
    tiers.check([0, 1, 2, 4, 5, 6])


def test_where_one_page_cannot_leave_another_that_has_its_copy_does() -> None:
    shelf = Shelf()
    tiers = filled(new_tiers(3, disk=shelf), 4)
    tiers.prefetch([0])  # it comes back, and takes its copy with it
    tiers._run.now()
    for number in (2, 3):
        tiers.get(number)
    shelf.room = 0
    tiers.get(0)
    tiers.put(4, page(4))
    assert tiers.bytes.device == 3 * SIZE
    for number in range(5):
        assert torch.equal(tiers.get(number), page(number))


def test_a_read_does_not_fail_for_what_could_not_be_pushed_out() -> None:
    shelf = Shelf()
    tiers = filled(new_tiers(2, disk=shelf), 4)
    shelf.room = 0
    for _ in range(3):
        assert torch.equal(tiers.get(0), page(0))
    tiers.check(range(4))


def test_a_page_stays_in_memory_until_its_copy_was_read_back_as_it_was_written() -> None:
    shelf = Shelf()
    tiers = filled(new_tiers(2, disk=shelf), 2)
    shelf.rots = True
    with pytest.raises(SpillError, match="what was written came back otherwise"):
        tiers.put(2, page(2))
    assert tiers.bytes == TierBytes(device=2 * SIZE)
    for number in range(2):
        assert torch.equal(tiers.get(number), page(number))


@pytest.mark.parametrize(
    ("fault", "told"), [("torn", "their checksum is wrong"), ("broken", r"cannot be read back .*Input/output error")]
)
def test_a_page_that_did_not_come_back_is_never_given_out_and_no_other_is_lost_with_it(fault: str, told: str) -> None:
    shelf, later = Shelf(), Later()
    tiers = filled(new_tiers(2, disk=shelf, later=later), 5)
    bad = tiers._pages[1].offset
    getattr(shelf, fault).add(bad)
    tiers.prefetch([1, 2])
    later.now()
    for _ in range(2):
        with pytest.raises(SpillError, match=f"keys and values .*{told}.*open them again from their logs"):
            tiers.get(1)
    with pytest.raises(SpillError, match=told):
        tiers.check(range(5))
    for number in (0, 2, 3, 4):
        assert torch.equal(tiers.get(number), page(number))
    tiers.drop(1)
    getattr(shelf, fault).clear()
    tiers.check([0, 2, 3, 4])
    assert tiers.bytes.device <= tiers.budget.device


@pytest.mark.parametrize("happens", [interrupt, run_out, press_ctrl_c])
def test_a_read_that_came_to_nothing_takes_no_room(happens: Callable[[], None]) -> None:
    shelf = Shelf()
    tiers = filled(new_tiers(2, disk=shelf), 5)
    tiers.drop(4)  # so that what is read next finds room
    shelf.on_the_way = happens
    for number in (0, 1, 2):
        with pytest.raises((KeyboardInterrupt, MemoryError)):
            tiers.get(number)
    shelf.on_the_way = lambda: None
    tiers.check(range(4))
    with ThreadPoolExecutor(1) as executor:
        assert torch.equal(executor.submit(tiers.get, 0).result(10), page(0)), "another thread is let in"
    assert torch.equal(tiers.get(0), page(0))


@pytest.mark.parametrize("host", [0, 1])
@pytest.mark.parametrize("happens", [interrupt, run_out, press_ctrl_c])
def test_a_copy_that_came_to_nothing_takes_no_room(
    monkeypatch: pytest.MonkeyPatch, happens: Callable[[], None], host: int
) -> None:
    def on_its_way(near: Tensor) -> Tensor:
        happens()
        return near

    tiers = filled(new_tiers(2, host=host), 2)
    monkeypatch.setattr(Tensor, "cpu", on_its_way)
    with pytest.raises((KeyboardInterrupt, MemoryError)):
        tiers.room(3 * SIZE)
    monkeypatch.undo()
    tiers.check(range(2))
    with ThreadPoolExecutor(1) as executor:
        executor.submit(tiers.put, 2, page(2)).result(10)
    tiers.check(range(3))


def test_pages_are_free_again_whatever_went_wrong_while_they_were_written() -> None:
    shelf = Shelf()
    tiers = Tiers(Budget(device=2 * BYTES), device=CPU, disk=shelf, run=Later())
    pool = PagePool(SHAPE, pages=9, dtype=torch.float32, device=CPU, tiers=tiers)
    shelf.on_the_way = run_out
    with pytest.raises(MemoryError):
        pool.write(pool.take(3), *torch.zeros(2, 2, 3, 3, 1, 5))
    assert pool.used == 0
    pool.check_integrity([])


def test_where_no_page_takes_the_room_nobody_waits_for_it() -> None:
    tiers = new_tiers(2)
    tiers._near_bytes = 2 * SIZE
    with pytest.raises(IntegrityError, match=f"{2 * SIZE} bytes of a budget of {2 * SIZE + 5} are taken by no page"):
        tiers.put(0, page(0))


def test_a_page_held_by_nobody_or_by_both_is_found() -> None:
    tiers = filled(new_tiers(2), 4)
    for wrong in (range(3), range(5)):
        with pytest.raises(IntegrityError, match="kept = written does not hold"):
            tiers.check(wrong)


def test_a_page_that_lies_nowhere_is_found() -> None:
    tiers = filled(new_tiers(2), 4)
    tiers._pages[0].offset = None
    with pytest.raises(IntegrityError, match=r"pages \[0\] lie nowhere"):
        tiers.check(range(4))


@pytest.mark.parametrize("count", ["_near_bytes", "_host_bytes"])
def test_a_wrong_count_is_found(count: str) -> None:
    tiers = filled(new_tiers(2, host=1), 4)
    setattr(tiers, count, getattr(tiers, count) - 1)
    with pytest.raises(IntegrityError, match="counted = found <= budget does not hold"):
        tiers.check(range(4))


def test_more_in_memory_than_the_budget_is_found() -> None:
    tiers = filled(new_tiers(2), 4)
    tiers.budget = Budget(device=2 * SIZE - 1)
    with pytest.raises(IntegrityError, match="counted = found <= budget does not hold"):
        tiers.check(range(4))


def test_two_pages_at_one_place_are_found() -> None:
    tiers = filled(new_tiers(2), 4)
    tiers._pages[0].offset = tiers._pages[1].offset
    with pytest.raises(IntegrityError, match=r"used \+ free = all of the file"):
        tiers.check(range(4))


def test_on_a_slow_disk_with_a_real_thread_every_page_reads_right(tmp_path: Path) -> None:
    class Slow(SpillFile):
        def write(self, offset: int, data: memoryview) -> None:
            time.sleep(chance.random() * 2e-3)
            super().write(offset, data)

        def read(self, offset: int, into: memoryview) -> None:
            time.sleep(chance.random() * 1e-3)
            super().read(offset, into)

    chance = random.Random(5)
    with ThreadPoolExecutor(1) as executor:
        tiers = Tiers(Budget(device=5 * SIZE, host=SIZE), device=CPU, disk=Slow(tmp_path), run=executor.submit)
        held: set[int] = set()
        for number in range(300):
            tiers.put(number, page(number))
            held.add(number)
            tiers.prefetch(chance.sample(sorted(held), min(3, len(held))))
            for other in chance.sample(sorted(held), min(4, len(held))):
                assert torch.equal(tiers.get(other), page(other))
            assert tiers.bytes.device <= 5 * SIZE
            if len(held) > 12:
                dropped = chance.choice(sorted(held))
                tiers.drop(dropped)
                held.remove(dropped)
        tiers.check(held)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_that_is_forked_off_is_told_so_and_harms_nobody(tmp_path: Path) -> None:
    tiers = filled(new_tiers(2, disk=SpillFile(tmp_path)), 5)
    calls = (tiers.room, partial(tiers.get, 0), partial(tiers.get, 4), partial(tiers.put, 5, page(5)))
    parent = os.getpid()
    if not (child := os.fork()):
        told = 0
        with ExitStack() as end:
            end.callback(lambda: os._exit(told))
            for call in calls:
                try:
                    call()
                except SpillError as error:
                    told += f"file of process {parent}: process {os.getpid()}, forked off it" in str(error)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == len(calls)
    for number in range(5):
        assert torch.equal(tiers.get(number), page(number))
    tiers.check(range(5))


SHAPE = PageShape(layers=2, tokens=3, heads=1, head_dim=5)
BYTES = SHAPE.bytes(torch.float32)
INT8 = Storage(code=PerToken(form="int8"), recent=0)


@dataclass
class Holder:
    pages: list[int]


class Moves(RuleBasedStateMachine):
    """A pool under a tiny budget beside a dict of what was written; background work and faults come at any moment."""

    pick = st.integers(0, 10**6)
    host = 0

    def __init__(self) -> None:
        super().__init__()
        self.shelf, self.later = Shelf(), Later()
        budget = Budget(device=3 * BYTES + 7, host=self.host)
        tiers = Tiers(budget, device=CPU, disk=self.shelf, run=self.later)
        self.pool = PagePool(SHAPE, pages=9, dtype=torch.float32, device=CPU, storage=INT8, tiers=tiers)
        self.model: dict[int, tuple[Tensor, Tensor]] = {}
        self.references: Counter[int] = Counter()
        self.kept: deque[tuple[Tensor, Tensor, int]] = deque(maxlen=4)
        self.seeds = 0

    def some(self, pick: int) -> int:
        return sorted(self.model)[pick % len(self.model)]

    @rule(count=st.integers(1, 4))
    def write(self, count: int) -> None:
        exact = sum(number < self.pool.pages for number in self.model)
        if count + max(exact, len(self.model) - exact) > self.pool.pages:
            with pytest.raises(PoolFull):
                self.pool.take(count)
            return
        self.seeds += 1
        generator = torch.Generator().manual_seed(self.seeds)
        keys, values = torch.randn(2, 2, count, 3, 1, 5, generator=generator)
        try:
            if asks := self.seeds % 2 and count <= 2:
                self.pool.check_room(count)
            pages = self.pool.take(count)
            self.pool.write(pages, keys, values)
        except PoolFull:
            assert asks
            assert self.shelf.room == 0
            return
        except SpillError:
            assert not asks, "there was to be room"
            assert self.shelf.room == 0
            return
        for at, number in enumerate(pages):
            assert number not in self.model
            self.model[number] = keys[:, at], values[:, at]
            self.references[number] = 1

    @precondition(lambda self: self.model)
    @rule(pick=pick)
    def read(self, pick: int) -> None:
        number = self.some(pick)
        keys, values = self.pool.read(number)
        assert torch.equal(keys, self.model[number][0])
        assert torch.equal(values, self.model[number][1])
        self.kept.append((keys, keys.clone(), number))

    @precondition(lambda self: self.model)
    @rule(pick=pick)
    def encode(self, pick: int) -> None:
        number = self.some(pick)
        coded = sum(other >= self.pool.pages for other in self.model)
        if number >= self.pool.pages or coded == self.pool.pages:
            return
        exact = self.model[number]
        try:
            found = self.pool.encode(number)
        except SpillError:
            assert self.shelf.room == 0
            return
        self.model[found] = INT8.code.decode(INT8.code.encode(*exact), SHAPE)
        self.references[found] += 1
        self.drop(number)

    @precondition(lambda self: self.model)
    @rule(pick=pick)
    def retain(self, pick: int) -> None:
        self.pool.retain([self.some(pick)])
        self.references[self.some(pick)] += 1

    @precondition(lambda self: self.model)
    @rule(pick=pick)
    def release(self, pick: int) -> None:
        number = self.some(pick)
        self.pool.release([number])
        self.drop(number)

    def drop(self, number: int) -> None:
        self.references[number] -= 1
        if not self.references[number]:
            del self.model[number], self.references[number]

    @precondition(lambda self: self.model)
    @rule(picks=st.lists(pick, min_size=1, max_size=4, unique=True))
    def prefetch(self, picks: list[int]) -> None:
        self.pool.prefetch([self.some(pick) for pick in picks])

    @rule()
    def work_in_the_background(self) -> None:
        self.later.now()

    @rule()
    def the_disk_is_full_or_no_longer(self) -> None:
        self.shelf.room = 0 if self.shelf.room else 10**9

    @invariant()
    def nothing_is_lost_and_the_budget_kept(self) -> None:
        assert self.pool.tier_bytes.device <= 3 * BYTES + 7
        self.pool.check_integrity([Holder([*self.references.elements()])])
        for kept, copy, _ in self.kept:
            assert torch.equal(kept, copy), "what somebody still holds never changes under them"


class MovesByTheHost(Moves):
    """The same with room for two pages in host memory before the disk."""

    host = 2 * BYTES


@pytest.mark.parametrize("machine", [Moves, MovesByTheHost])
def test_whatever_is_done_pages_read_as_they_were_written(machine: type[Moves]) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )


KEYS = ({"KeyD"}, set(), {"KeyA"}, {"KeyD"}, {"Space"}) * 5


def tiered_world(pages: float, disk: Disk, *, later: Later | None = None, storage: Storage | None = None) -> World:
    """A tiny world that sees the last five frames, with a budget of so many pages."""
    world = tiny_world(policy=Window(frames=5))
    was = world.pool
    budget = Budget(device=int(pages * was.shape.bytes(was.dtype)))
    tiers = Tiers(budget, device=CPU, disk=disk, run=later or Later())
    world.pool = PagePool(was.shape, pages=was.pages, dtype=was.dtype, device=CPU, storage=storage, tiers=tiers)
    return world


def shown(session: Session) -> list[np.ndarray]:
    return [session.step(keys).frames for keys in KEYS]


def equal(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return len(one) == len(other) and all(np.array_equal(*pair) for pair in zip(one, other, strict=True))


def test_a_world_shows_the_same_with_and_without_a_budget(tmp_path: Path) -> None:
    plain = shown(tiny_world(policy=Window(frames=5)).open(seed=3))
    with ThreadPoolExecutor(1) as executor:
        world = tiered_world(7.5, SpillFile(tmp_path), later=executor.submit)
        session = world.open(seed=3)
        assert equal(shown(session), plain)
        assert world.pool.tier_bytes.device <= 7.5 * world.pool.shape.bytes(torch.float32)
        assert world.pool.tier_bytes.disk > 10 * world.pool.shape.bytes(torch.float32)
        world.pool.check_integrity([session])
        session.rewind(len(KEYS))
        assert equal(shown(session), plain), "and after what lay on disk came back"


def test_two_worlds_that_spill_into_one_folder_at_once_do_not_meet(tmp_path: Path) -> None:
    worlds = [tiered_world(7, SpillFile(tmp_path)) for _ in range(2)]
    sessions = [world.open(seed=seed) for seed, world in enumerate(worlds)]
    steps = [[session.step(keys).frames for session in sessions] for keys in KEYS]
    for seed, world in enumerate(worlds):
        plain = shown(tiny_world(policy=Window(frames=5)).open(seed=seed))
        assert equal([step[seed] for step in steps], plain)
        world.pool.check_integrity([sessions[seed]])


def test_on_a_full_disk_a_world_forgets_what_it_could_go_back_to_and_goes_on() -> None:
    plain = shown(tiny_world(policy=Window(frames=5)).open(seed=3))
    shelf = Shelf()
    world = tiered_world(9, shelf)
    shelf.room = 6 * world.pool.shape.bytes(torch.float32)
    session = world.open(seed=3)
    assert equal(shown(session), plain)
    assert 0 < session.remembered < len(KEYS)
    world.pool.check_integrity([session])
    back = session.remembered
    session.rewind(back)
    assert equal([session.step(keys).frames for keys in KEYS[-back:]], plain[-back:])


def test_where_nothing_is_left_to_forget_no_block_is_made_and_the_session_stays_where_it_was() -> None:
    shelf = Shelf()
    world = tiered_world(7, shelf)
    sessions = [world.open(seed=3), world.open(seed=4)]
    made: list[list[np.ndarray]] = [[], []]

    def go_on() -> None:
        for at in range(len(made[1]), len(KEYS)):
            for session, own in zip(sessions, made, strict=True):
                if session.block == at:
                    own.append(session.step(KEYS[at]).frames)

    shelf.room = 0
    for _ in range(2):
        with pytest.raises(PoolFull):
            go_on()
        world.pool.check_integrity(sessions)
        assert [session.remembered for session in sessions] == [0, 0]
        assert [session.block for session in sessions] == [len(own) for own in made]
    with pytest.raises(PoolFull, match=r"nothing can be moved to disk: .*No space left.*; make room there"):
        world.pool.check_room(2)
    shelf.room = 10**9
    go_on()
    for seed, own in zip((3, 4), made, strict=True):
        assert equal(own, shown(tiny_world(policy=Window(frames=5)).open(seed=seed)))


@pytest.mark.parametrize("fault", ["torn", "broken"])
def test_after_a_lost_page_no_wrong_picture_is_shown_and_the_log_makes_the_world_again(
    fault: str, tmp_path: Path
) -> None:
    plain = shown(tiny_world(policy=Window(frames=5)).open(seed=3))
    shelf = Shelf()
    world = tiered_world(7, shelf)
    session = world.open(seed=3, log=tmp_path / "walk.log")
    made = [session.step(keys).frames for keys in KEYS[:6]]
    mark = session.mark()
    made += [session.step(keys).frames for keys in KEYS[6:12]]
    getattr(shelf, fault).update(shelf.bytes)
    session.rewind(mark)
    with pytest.raises(SpillError, match="open them again from their logs"):
        session.step(KEYS[6])
    assert session.block == 6
    session.close()
    mark.close()
    getattr(shelf, fault).clear()
    again = world.go_on(tmp_path / "walk.log")
    assert again.block == 6
    rest = [again.step(keys).frames for keys in KEYS[6:]]
    assert equal([*made[:6], *rest], plain)
    world.pool.check_integrity([again])
    world.replay(again.log)


@pytest.mark.parametrize("to", ["a mark", "a block", "the present"])
def test_a_session_goes_on_after_a_rewind_that_lives_again_what_was_lost(to: str) -> None:
    twin = tiny_world(policy=Window(frames=5)).open(seed=3)
    plain = shown(twin)
    shelf = Shelf()
    world = tiered_world(7, shelf)
    session = world.open(seed=3)
    made = [session.step(keys).frames for keys in KEYS[:6]]
    mark = session.mark()
    made += [session.step(keys).frames for keys in KEYS[6:12]]
    for kept in shelf.bytes.values():
        kept[0] ^= 1
    session.rewind(mark)  # nothing is known to be lost before it is looked for
    with pytest.raises(SpillError, match="rewind them"):
        session.step(KEYS[6])
    session.rewind({"a mark": mark, "a block": 2, "the present": 0}[to])
    at = 4 if to == "a block" else 6
    assert session.block == at
    assert equal([*made[:at], *(session.step(keys).frames for keys in KEYS[at:])], plain)
