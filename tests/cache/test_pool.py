"""The pool's promises: pages are counted, committed pages never change, and the books can be checked at any time."""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from worldsim.cache.budget import Budget, TierBytes
from worldsim.cache.pool import PageBytes, PagePool, PageShape, Storage
from worldsim.cache.quant import Gear, PerToken
from worldsim.cache.rotary import Rotary
from worldsim.cache.stream import Stream
from worldsim.cache.tiers import Tiers
from worldsim.errors import ConfigError, IntegrityError, PoolFull, ShapeError, SpillError

SHAPE = PageShape(layers=2, tokens=5, heads=3, head_dim=7)
INT8 = Storage(code=PerToken(form="int8"), recent=0)


@dataclass(eq=False)
class Holder:
    pages: list[int]


def new_pool(pages: int, dtype: torch.dtype = torch.float32, storage: Storage | None = None) -> PagePool:
    return PagePool(SHAPE, pages=pages, dtype=dtype, device=torch.device("cpu"), storage=storage)


def frames(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Random keys and values of that many frames."""
    generator = torch.Generator().manual_seed(seed)
    keys, values = torch.randn(2, SHAPE.layers, count, SHAPE.tokens, SHAPE.heads, SHAPE.head_dim, generator=generator)
    return keys, values


def test_a_page_knows_its_memory() -> None:
    assert SHAPE.bytes(torch.float32) == 2 * 2 * 5 * 3 * 7 * 4
    assert SHAPE.bytes(torch.bfloat16) * 2 == SHAPE.bytes(torch.float32)


def test_sizes_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"at least 1, got .*tokens=0"):
        PageShape(layers=2, tokens=0, heads=1, head_dim=8)
    with pytest.raises(ConfigError, match="at least 1 page, got 0"):
        new_pool(0)


def test_the_lowest_free_page_is_taken_first() -> None:
    pool = new_pool(6)
    assert pool.take(4) == [0, 1, 2, 3]
    pool.release([2])
    pool.release([0])
    assert pool.take(3) == [0, 2, 4]
    assert (pool.free, pool.used) == (1, 5)


def test_a_full_pool_says_what_to_do_and_takes_nothing() -> None:
    pool = new_pool(4)
    pool.take(3)
    told = r"2 more pages are wanted and 1 of 4 are free; close .*, or plan a published .*: load\(\.\.\., sessions=N\)"
    with pytest.raises(PoolFull, match=told):
        pool.take(2)
    assert pool.free == 1


def test_what_is_written_is_read() -> None:
    pool = new_pool(4)
    keys, values = frames(2, seed=0)
    pages = pool.take(2)
    pool.write(pages, keys, values)
    for at, page in enumerate(pages):
        read_keys, read_values = pool.read(page)
        assert torch.equal(read_keys, keys[:, at])
        assert torch.equal(read_values, values[:, at])


def test_what_is_written_is_rounded_to_the_pool_and_carries_no_gradient() -> None:
    pool = new_pool(1, torch.bfloat16)
    keys, values = (x.requires_grad_() for x in frames(1, seed=1))
    pool.write(pool.take(1), keys, values)
    read_keys, read_values = pool.read(0)
    assert torch.equal(read_keys, keys[:, 0].bfloat16())
    assert torch.equal(read_values, values[:, 0].bfloat16())
    assert not read_keys.requires_grad


def test_a_committed_page_never_changes() -> None:
    pool = new_pool(3)
    keys, values = frames(1, seed=2)
    [page] = pool.take(1)
    pool.write([page], keys, values)
    with pytest.raises(IntegrityError, match=f"page {page} is committed"):
        pool.write([page], values, keys)
    assert torch.equal(pool.read(page)[0], keys[:, 0])


def test_a_page_that_was_freed_is_written_anew() -> None:
    pool = new_pool(1)
    pool.write(pool.take(1), *frames(1, seed=3))
    pool.release([0])
    pool.take(1)
    with pytest.raises(IntegrityError, match="page 0 is read before it was written"):
        pool.read(0)
    keys, values = frames(1, seed=4)
    pool.write([0], keys, values)
    assert torch.equal(pool.read(0)[1], values[:, 0])


def test_a_page_is_free_after_its_last_release() -> None:
    pool = new_pool(2)
    pages = pool.take(2)
    pool.retain(pages)
    pool.release(pages)
    assert pool.used == 2
    pool.release(pages)
    assert pool.used == 0


@pytest.mark.parametrize("page", [-1, 0, 2])
def test_a_page_that_nobody_holds_cannot_be_used(page: int) -> None:
    pool = new_pool(2)
    pool.take(2)
    pool.release([0])
    for use in (
        pool.retain,
        pool.release,
        lambda pages: pool.read(*pages),
        lambda pages: pool.write(pages, *frames(1, 5)),
    ):
        with pytest.raises(IntegrityError, match=f"nobody holds page {page} of 2"):
            use([page])
    assert pool.used == 1


def test_frames_of_another_shape_are_refused() -> None:
    pool = new_pool(3)
    pages = pool.take(2)
    keys, values = frames(2, seed=6)
    for wrong in (keys[:, :1], keys[..., :6], keys[:, :, :4], keys[:1], keys[0]):
        with pytest.raises(ShapeError):
            pool.write(pages, wrong, values)
        with pytest.raises(ShapeError):
            pool.write(pages, keys, wrong)
    with pytest.raises(ShapeError, match="2 pages cannot hold 1 frames"):
        pool.write(pages, keys[:, :1], values[:, :1])
    pool.write(pages, keys, values)


def test_pages_put_back_in_another_thread_are_free_when_asked_for() -> None:
    pool = new_pool(2)
    pages = pool.take(2)
    holder = Holder(pages)
    other = threading.Thread(target=pool.put_back, args=(pool.watch(holder, {0: pages[:1], 1: pages[1:]}),))
    other.start()
    other.join()
    assert pool.take(2) == pages


def test_balanced_books_pass() -> None:
    pool = new_pool(5)
    pool.check_integrity([])
    pages = pool.take(3)
    pool.retain(pages[:1])
    pool.check_integrity([Holder(pages), Holder(pages[:1])])
    pool.check_integrity([Holder([*pages, pages[0]])])


def test_a_page_lost_to_both_lists_is_found() -> None:
    pool = new_pool(3)
    pool._free.remove(1)
    with pytest.raises(IntegrityError, match=r"free \+ referenced = all does not hold: free \[0, 2\], referenced \[\]"):
        pool.check_integrity([])


def test_a_page_that_is_free_and_referenced_is_found() -> None:
    pool = new_pool(3)
    pages = pool.take(1)
    pool._free[:] = [0, 1]
    with pytest.raises(IntegrityError, match=r"free \+ referenced = all"):
        pool.check_integrity([Holder(pages)])


@pytest.mark.parametrize("held", [[], [0], [0, 1, 1], [0, 1, 2]])
def test_a_count_that_is_not_the_references_held_is_found(held: list[int]) -> None:
    pool = new_pool(3)
    pool.take(2)
    with pytest.raises(IntegrityError, match=r"counted = held does not hold; page: .*pass every context"):
        pool.check_integrity([Holder(held)])


def test_spare_room_is_used_again_where_it_fits() -> None:
    pool = new_pool(1)
    room = pool.room(9)
    assert room.shape == (2, 9)
    pool.spare_rooms.append(room)
    assert pool.room(9) is room
    pool.spare_rooms.append(room)
    assert pool.room(8).shape == (2, 8)
    assert not pool.spare_rooms


def test_a_pool_opened_in_inference_mode_is_writable_outside() -> None:
    with torch.inference_mode():
        pool = new_pool(1)
    keys, values = frames(1, seed=7)
    pages = pool.take(1)
    pool.write(pages, keys, values)
    kept_keys, kept_values = pool.read(pages[0])
    assert torch.equal(kept_keys, keys[:, 0])
    assert torch.equal(kept_values, values[:, 0])


def coding_pool(pages: int, held: int, storage: Storage = INT8, dtype: torch.dtype = torch.float32) -> PagePool:
    """A pool that codes, with so many pages taken and written."""
    pool = new_pool(pages, dtype, storage)
    pool.write(pool.take(held), *frames(held, seed=8))
    return pool


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_coded_page_reads_as_its_code_decodes_it(dtype: torch.dtype) -> None:
    pool = coding_pool(3, 2, dtype=dtype)
    exact = [x.clone() for x in pool.read(1)]
    coded = pool.encode(1)
    assert coded == 3, "coded pages are numbered after the exact ones"
    data = INT8.code.encode(*exact)
    for read, decoded in zip(pool.read(coded), INT8.code.decode(data, SHAPE), strict=True):
        assert read.dtype == dtype
        assert torch.equal(read, decoded.to(dtype))
    pool.check_integrity([Holder([0, coded])])


def test_whoever_does_not_encode_keeps_the_exact_page_and_whoever_does_shares_the_coded_one() -> None:
    pool = coding_pool(3, 1)
    exact = pool.read(0)[0].clone()
    pool.retain([0, 0])
    one, other = pool.encode(0), pool.encode(0)
    assert one == other
    assert torch.equal(pool.read(0)[0], exact)
    pool.check_integrity([Holder([one, other]), Holder([0])])
    assert pool.bytes == PageBytes(exact=SHAPE.bytes(torch.float32), coded=INT8.code.bytes(SHAPE))
    pool.release([0])
    pool.release([one])
    pool.check_integrity([Holder([other])])
    assert pool.bytes == PageBytes(exact=0, coded=INT8.code.bytes(SHAPE))
    pool.release([other])
    assert (pool.used, pool.bytes) == (0, PageBytes(exact=0, coded=0))


@pytest.mark.parametrize("first", ["exact", "coded"])
def test_pages_that_are_taken_anew_have_nothing_to_do_with_what_they_held(first: str) -> None:
    pool = coding_pool(1, 1)
    pool.retain([0])
    coded = pool.encode(0)
    left = coded if first == "exact" else 0
    pool.release([0 if first == "exact" else coded])
    if first == "exact":
        pool.release([left])
        pool.write(pool.take(1), *frames(1, seed=9))
    keys = pool.read(0)[0].clone()
    [again] = [pool.encode(0)]
    decoded, _ = INT8.code.decode(INT8.code.encode(keys, keys), SHAPE)
    assert torch.equal(pool.read(again)[0], decoded)
    pool.check_integrity([Holder([again])])


def test_a_pool_that_codes_has_as_many_free_as_it_has_of_the_scarcer_kind() -> None:
    pool = coding_pool(3, 2)
    coded = [pool.encode(page) for page in (0, 1)]
    assert (pool.free, pool.used) == (1, 2)
    pool.write(pool.take(1), *frames(1, seed=10))
    assert pool.free == 1, "two exact ones are free, and one coded one"
    coded.append(pool.encode(0))
    with pytest.raises(PoolFull, match="1 more pages are wanted and 0 of 3 are free"):
        pool.take(1)
    pool.check_integrity([Holder(coded)])


def test_a_page_is_not_encoded_where_no_coded_page_is_free() -> None:
    pool = coding_pool(2, 2)
    coded = [pool.encode(0), pool.encode(1)]
    pool._free_coded.clear()
    pool._free[:] = [1]
    pool._references[0] = 1
    pool.write([0], *frames(1, seed=11))
    with pytest.raises(PoolFull, match="all 2 coded pages are held"):
        pool.encode(0)
    pool.check_integrity([Holder([0, *coded])])


def test_only_an_exact_page_that_somebody_wrote_is_encoded() -> None:
    pool = coding_pool(3, 1)
    coded = pool.encode(0)
    with pytest.raises(IntegrityError, match=r"page 3 is coded already; encode exact pages, 0\.\.2"):
        pool.encode(coded)
    with pytest.raises(IntegrityError, match=f"page {coded} is committed"):
        pool.write([coded], *frames(1, seed=12))
    pool.take(1)
    with pytest.raises(IntegrityError, match="page 0 is read before it was written"):
        pool.encode(0)
    with pytest.raises(IntegrityError, match="nobody holds page 1 of 6"):
        pool.encode(1)


@pytest.mark.parametrize("storage", [INT8, Storage(code=Gear(bits=4, group=3), recent=0)], ids=["int8", "gear4"])
def test_what_was_decoded_is_kept_bit_for_bit_whether_or_not_its_code_gives_it_back(storage: Storage) -> None:
    pool = coding_pool(4, 1, storage)
    read = [x.clone() for x in pool.read(pool.encode(0))]
    pages = pool.take(2)
    pool.write(pages[:1], *(x[:, None] for x in read))
    kept = pool.encode_if_exact(pages[0])
    assert all(torch.equal(one, other) for one, other in zip(pool.read(kept), read, strict=True))
    assert (kept >= pool.pages) == (storage is INT8)
    pool.write(pages[1:], *frames(1, seed=13))
    assert pool.encode_if_exact(pages[1]) == pages[1], "what never was decoded stays exact"


def test_pages_count_once_however_often_they_are_listed() -> None:
    pool = coding_pool(4, 3)
    coded = pool.encode(2)
    page, small = SHAPE.bytes(torch.float32), INT8.code.bytes(SHAPE)
    assert pool.bytes_of([0, 1, 0, coded, coded]) == PageBytes(exact=2 * page, coded=small)
    assert pool.bytes_of([]) == PageBytes(exact=0, coded=0)
    assert new_pool(2).bytes == PageBytes(exact=0, coded=0)


def test_a_pair_of_which_one_page_is_free_is_found() -> None:
    pool = coding_pool(3, 1)
    pool._coded_of[1] = 4
    with pytest.raises(IntegrityError, match="exact and coded pages of one frame"):
        pool.check_integrity([Holder([0])])
    pool._exact_of[4] = 1
    with pytest.raises(IntegrityError, match="exact and coded pages of one frame"):
        pool.check_integrity([Holder([0])])


def test_a_window_of_less_than_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="recent=-1"):
        Storage(code=INT8.code, recent=-1)


@pytest.mark.parametrize("recent", [None, 1.5, True, "3"])
def test_a_window_that_is_no_whole_number_is_refused(recent: object) -> None:
    with pytest.raises(ConfigError, match="as a whole number"):
        Storage(code=INT8.code, recent=recent)  # type: ignore[arg-type]


@pytest.mark.parametrize("code", [None, "int8", INT8])
def test_what_encodes_no_pages_is_refused(code: object) -> None:
    with pytest.raises(ConfigError, match=r"has bytes, encode and decode, .* name one such as kv='int8'"):
        Storage(code=code, recent=0)  # type: ignore[arg-type]


class Shelf:
    """A disk in memory, which may be full."""

    def __init__(self) -> None:
        self.is_full = False
        self._kept: dict[int, bytes] = {}

    def write(self, offset: int, data: memoryview) -> None:
        if self.is_full:
            raise OSError("it is full")
        self._kept[offset] = bytes(data)

    def read(self, offset: int, into: memoryview) -> None:
        into[:] = self._kept[offset]


PAGE = SHAPE.bytes(torch.float32)
CODED = INT8.code.bytes(SHAPE)


def tiered_pool(
    pages: int,
    size: int,
    storage: Storage | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    disk: Shelf | None = None,
) -> PagePool:
    """A pool whose pages may take so many bytes of memory; nothing is done in the background."""
    device = torch.device("cpu")
    tiers = Tiers(Budget(device=size), device=device, disk=disk or Shelf(), run=lambda work: None)
    return PagePool(SHAPE, pages=pages, dtype=dtype, device=device, storage=storage, tiers=tiers)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("storage", [None, INT8, Storage(code=Gear(bits=4, group=3), recent=0)])
def test_a_pool_with_a_budget_holds_the_same_as_one_without(storage: Storage | None, dtype: torch.dtype) -> None:
    pools = [new_pool(7, dtype, storage), tiered_pool(7, 3 * PAGE, storage, dtype=dtype)]
    held: list[list[int]] = [[], []]
    for pool, own in zip(pools, held, strict=True):
        own += pool.take(5)
        pool.write(own[:2], *frames(2, seed=20))
        pool.write(own[2:], *frames(3, seed=21))
        if storage is not None:
            own[0:2] = [pool.encode(own[0]), pool.encode_if_exact(pool.encode_if_exact(own[1]))]
        pool.retain(own[3:])
        pool.release(own[4:])
        pool.check_integrity([Holder(own), Holder(own[3:4])])
    assert held[0] == held[1]
    assert (pools[0].bytes, pools[0].free, pools[0].used) == (pools[1].bytes, pools[1].free, pools[1].used)
    for page in held[0]:
        for one, other in zip(pools[0].read(page), pools[1].read(page), strict=True):
            assert one.dtype == other.dtype == dtype
            assert torch.equal(one, other)


def test_a_pool_says_how_much_of_it_lies_where() -> None:
    plain, tiered = coding_pool(6, 3), tiered_pool(6, 2 * PAGE + CODED, INT8)
    tiered.write(tiered.take(3), *frames(3, seed=8))
    for pool in (plain, tiered):
        pool.encode(0)
        assert pool.bytes == PageBytes(exact=2 * PAGE, coded=CODED)
    assert plain.tier_bytes == TierBytes(device=2 * PAGE + CODED)
    assert tiered.tier_bytes.device <= 2 * PAGE + CODED
    assert tiered.tier_bytes.device + tiered.tier_bytes.disk >= 2 * PAGE + CODED
    tiered.release([1, 2, 6])
    assert tiered.tier_bytes == TierBytes()


def test_a_pool_with_a_budget_takes_no_memory_of_its_own() -> None:
    pool = tiered_pool(100_000, 2 * PAGE, INT8)
    assert pool._keys.numel() == pool._values.numel() == pool._coded.numel() == 0
    assert (pool.free, pool.used) == (100_000, 0)


def test_a_budget_below_one_page_is_refused() -> None:
    with pytest.raises(ConfigError, match=f"a page takes {PAGE} bytes and the budget for all is {PAGE - 1}"):
        tiered_pool(3, PAGE - 1)


def test_what_a_block_needs_is_what_it_sees_and_adds_and_makes_old() -> None:
    assert new_pool(3).bytes_for(5, 2) == 7 * PAGE
    recent = Storage(code=INT8.code, recent=3)
    assert new_pool(3, storage=recent).bytes_for(5, 2) == 5 * PAGE + 4 * CODED
    assert new_pool(3, storage=recent).bytes_for(2, 1) == 3 * PAGE + CODED


def test_pages_that_found_no_room_are_free_again() -> None:
    disk = Shelf()
    pool = tiered_pool(6, 2 * PAGE, disk=disk)
    held = pool.take(1)
    pool.write(held, *frames(1, seed=22))
    disk.is_full = True
    with pytest.raises(SpillError, match="it is full"):
        pool.write(pool.take(3), *frames(3, seed=23))
    pool.check_integrity([Holder(held)])
    assert torch.equal(pool.read(0)[0], frames(1, seed=22)[0][:, 0])
    assert pool.used == 1


def test_a_page_that_cannot_be_encoded_stays_exact() -> None:
    disk = Shelf()
    pool = tiered_pool(4, 2 * PAGE, INT8, disk=disk)
    pages = pool.take(2)
    pool.write(pages, *frames(2, seed=24))
    disk.is_full = True
    with pytest.raises(SpillError, match="it is full"):
        pool.encode(0)
    assert torch.equal(pool.read(0)[0], frames(2, seed=24)[0][:, 0])
    assert (pool.used, pool._references[0], pool._references[4]) == (2, 1, 0)


def test_where_nothing_can_be_moved_to_disk_a_pool_has_as_many_free_as_find_room_in_memory() -> None:
    disk = Shelf()
    pool = tiered_pool(9, 4 * PAGE, disk=disk)
    pages = pool.take(3)
    pool.write(pages, *frames(3, seed=25))
    disk.is_full = True
    assert pool.free == 6, "a quarter of the budget is free, so nobody has tried"
    pool.check_room(1)
    with pytest.raises(PoolFull, match=r"2 more pages are wanted and memory has room for 1, since .*it is full; make"):
        pool.check_room(2)
    assert (pool.free, pool.used) == (1, 3)
    with pytest.raises(PoolFull, match="7 more pages are wanted and 6 of 9 are free"):
        pool.check_room(7)
    disk.is_full = False
    assert pool.free == 6
    pool.check_room(6)
    disk.is_full = True
    pool.check_room(4)


def test_pages_are_prefetched_if_somebody_holds_them_and_they_were_written() -> None:
    for pool in (new_pool(4), tiered_pool(4, 2 * PAGE)):
        pages = pool.take(4)
        pool.write(pages[:3], *frames(3, seed=26))
        pool.prefetch(pages)
        with pytest.raises(IntegrityError, match="nobody holds page 4"):
            pool.prefetch([4])
        assert torch.equal(pool.read(0)[0], frames(3, seed=26)[0][:, 0])


def test_a_page_that_is_not_where_the_books_say_is_found() -> None:
    pool = tiered_pool(4, 2 * PAGE)
    pages = pool.take(3)
    pool.write(pages, *frames(3, seed=27))
    pool.check_integrity([Holder(pages)])
    pool._tiers.drop(1)
    with pytest.raises(IntegrityError, match="kept = written does not hold"):
        pool.check_integrity([Holder(pages)])


@pytest.mark.skipif(sys.platform != "linux", reason="reads the resident size from /proc")
def test_memory_is_resident_only_once_it_is_written() -> None:
    def resident_pages() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1])

    before = resident_pages()
    pool = PagePool(
        PageShape(layers=8, tokens=81, heads=4, head_dim=64), pages=400, dtype=torch.float32, device=torch.device("cpu")
    )
    pool.take(400)
    assert (resident_pages() - before) * 4096 < 0.1 * 400 * pool.shape.bytes(torch.float32)


def test_streams_lie_in_as_few_layers_more_as_hold_them() -> None:
    time = Rotary(time=2, rows=0, columns=0)
    streams = tuple(Stream(layers=layers, heads=3, head_dim=4, rotary=time) for layers in (7, 2))  # 84 and 24 of 21
    shape = SHAPE.with_streams(streams, streams[1])
    assert (shape.layers, shape.main, shape.folds) == (2 + 4 + 2, 2, (4, 2))
    assert shape.beside == ((streams[0], 5), (streams[1], 5), (streams[1], 1))
    assert shape.attentions == 2 + 7 + 2 + 2
    assert shape.bytes(torch.float32) == 4 * SHAPE.bytes(torch.float32)
    assert (SHAPE.main, SHAPE.attentions, SHAPE.beside) == (2, 2, ())
    with pytest.raises(ConfigError, match="the streams take 6 layers of a page and leave none"):
        PageShape(layers=6, tokens=5, heads=3, head_dim=7, streams=streams)
