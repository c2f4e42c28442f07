"""The pool's promises: pages are counted, committed pages never change, and the books can be checked at any time."""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from worldsim.cache.pool import PagePool, PageShape
from worldsim.errors import ConfigError, IntegrityError, PoolFull, ShapeError

SHAPE = PageShape(layers=2, tokens=5, heads=3, head_dim=7)


@dataclass
class Holder:
    pages: list[int]


def new_pool(pages: int, dtype: torch.dtype = torch.float32) -> PagePool:
    return PagePool(SHAPE, pages=pages, dtype=dtype, device=torch.device("cpu"))


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
    with pytest.raises(
        PoolFull, match=r"2 more pages are wanted and 1 of 4 are free; close .* or make the pool larger"
    ):
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
    other = threading.Thread(target=pool.put_back, args=(pages,))
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
    room = pool.room(1, 9)
    assert room.shape == (2, 2, 1, 9, 3, 7)
    pool.spare_rooms.append(room)
    assert pool.room(1, 9) is room
    pool.spare_rooms.append(room)
    assert pool.room(1, 8).shape == (2, 2, 1, 8, 3, 7)
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
