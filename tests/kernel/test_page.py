"""struct page and the allocator (mm/page_alloc.c)."""

from __future__ import annotations

import numpy as np
import pytest

from kernel.abi.errno import Errno, KernelError
from kernel.hardware import NullHardware
from kernel.mm.page import MemMap, PG_exec, PG_reserved, PG_stale
from mmu.physmem import PhysMem


def make_memmap(nr_frames: int = 256, reserved: range = range(0)) -> tuple[MemMap, NullHardware]:
    hw = NullHardware()
    return MemMap(PhysMem(nr_frames), hw, reserved), hw


def take_all(pages: MemMap) -> list[int]:
    taken: list[int] = []
    with pytest.raises(KernelError) as failure:
        while True:
            taken.append(pages.alloc_page())
    assert failure.value.errno == Errno.ENOMEM
    return taken


def test_numpy_and_memoryview_show_the_same_memory() -> None:
    pages, _ = make_memmap()
    for name in ("refcount", "mapcount", "flags", "index", "private"):
        getattr(pages, name)[17] = 5
        assert getattr(pages, f"{name}_np")[17] == 5
        getattr(pages, f"{name}_np")[18] = 6
        assert getattr(pages, name)[18] == 6
        assert type(getattr(pages, name)[17]) is int


def test_every_usable_frame_is_given_out_once() -> None:
    pages, _ = make_memmap(256, range(250, 256))
    nr_free = pages.nr_free
    taken = take_all(pages)
    assert len(taken) == len(set(taken)) == nr_free == 256 - 6 - 2  # frame 0 and the zero page
    assert not set(taken) & {0, pages.zero_pfn, *range(250, 256)}
    assert pages.nr_free == 0
    for pfn in taken:
        pages.put_page(pfn)
    assert pages.nr_free == nr_free
    assert sorted(take_all(pages)) == sorted(taken)


def test_reserved_frames_in_the_middle_are_skipped() -> None:
    pages, _ = make_memmap(300, range(20, 230))
    taken = take_all(pages)
    assert sorted(taken) == [*range(2, 20), *range(230, 300)]


def test_allocation_rises_and_then_reuses_the_last_freed() -> None:
    pages, _ = make_memmap()
    first = [pages.alloc_page() for _ in range(5)]
    assert first == [2, 3, 4, 5, 6]
    pages.put_page(first[1])
    pages.put_page(first[3])
    assert [pages.alloc_page(), pages.alloc_page(), pages.alloc_page()] == [first[3], first[1], 7]


def test_allocation_order_is_the_same_every_time() -> None:
    def run() -> list[int]:
        pages, _ = make_memmap(1024)
        taken = [pages.alloc_page() for _ in range(300)]
        pages.put_distinct_pages(np.array(taken[50:200]))
        for pfn in taken[:50]:
            pages.put_page(pfn)
        return [pages.alloc_zeroed_page() for _ in range(400)]

    assert run() == run()


def test_zeroed_page_is_zero_even_if_it_was_used() -> None:
    pages, _ = make_memmap()
    pfn = pages.alloc_page()
    pages.physmem.frame(pfn)[:] = b"x" * 4096
    pages.put_page(pfn)
    assert pages.flags[pfn] == PG_stale
    again = pages.alloc_zeroed_page()
    assert again == pfn
    assert bytes(pages.physmem.frame(pfn)) == bytes(4096)
    assert pages.flags[pfn] == 0 and pages.refcount[pfn] == 1


@pytest.mark.parametrize("alloc", ["alloc_page", "alloc_zeroed_page"])
def test_a_frame_that_held_code_is_invalidated_when_reused(alloc: str) -> None:
    pages, hw = make_memmap()
    pfn = pages.alloc_page()
    pages.flags[pfn] |= PG_exec
    pages.put_page(pfn)
    assert hw.stale_code == []
    assert getattr(pages, alloc)() == pfn
    assert hw.stale_code == [pfn]
    pages.put_page(pfn)
    getattr(pages, alloc)()
    assert hw.stale_code == [pfn]


def test_put_pages_counts_repeated_frames() -> None:
    pages, _ = make_memmap()
    one, two = pages.alloc_page(), pages.alloc_page()
    pages.get_page(one)
    pages.get_page(two)
    pages.get_page(two)
    nr_free = pages.nr_free
    pages.put_pages(np.array([two, one, two, one]))
    assert (pages.refcount[one], pages.refcount[two]) == (0, 1)
    assert pages.nr_free == nr_free + 1


def test_freeing_a_mapped_frame_is_a_bad_page() -> None:
    pages, _ = make_memmap()
    pfn = pages.alloc_page()
    pages.mapcount[pfn] = 1
    with pytest.raises(AssertionError, match="Bad page state"):
        pages.put_page(pfn)
    pages.refcount[pfn] = 1
    with pytest.raises(AssertionError, match="Bad page state"):
        pages.put_distinct_pages(np.array([pfn]))


def test_freeing_twice_or_freeing_the_zero_page_is_a_bad_page() -> None:
    pages, _ = make_memmap()
    pfn = pages.alloc_page()
    pages.put_page(pfn)
    with pytest.raises(AssertionError, match="Bad page state"):
        pages.put_page(pfn)
    with pytest.raises(AssertionError, match="Bad page state"):
        pages.put_page(pages.zero_pfn)


def test_the_zero_page_is_zero_and_reserved() -> None:
    pages, _ = make_memmap()
    assert bytes(pages.physmem.frame(pages.zero_pfn)) == bytes(4096)
    assert pages.flags[pages.zero_pfn] & PG_reserved


def test_reclaim_is_asked_below_the_watermark_and_again_at_the_end() -> None:
    pages, _ = make_memmap(512)
    calls: list[tuple[int, int]] = []

    def hook(nr_pages: int) -> int:
        calls.append((nr_pages, pages.nr_free))
        return 0

    pages.reclaim_hook = hook
    nr = len(take_all(pages))
    assert nr == 510
    assert calls[0][1] == pages.watermark_low
    assert calls[0][0] == pages.watermark_high - calls[0][1]
    assert calls[-1][1] == 0


def test_what_reclaim_frees_is_used_and_reclaim_does_not_recurse() -> None:
    pages, _ = make_memmap(128)
    held = [pages.alloc_page() for _ in range(100)]
    depth: list[int] = []

    def hook(nr_pages: int) -> int:
        depth.append(1)
        pages.put_page(pages.alloc_page())  # reclaim's own allocation
        depth.pop()
        assert not depth
        for _ in range(min(nr_pages, len(held))):
            pages.put_page(held.pop())
        return nr_pages

    pages.reclaim_hook = hook
    for _ in range(120):
        pages.alloc_page()
    assert len(held) < 100


def test_alloc_pages_gives_all_or_nothing() -> None:
    pages, _ = make_memmap(64)
    nr_free = pages.nr_free
    with pytest.raises(KernelError):
        pages.alloc_pages(nr_free + 1)
    assert pages.nr_free == nr_free
    assert len(pages.alloc_pages(nr_free)) == nr_free


def test_the_lru_batch_is_drained_on_refill() -> None:
    pages, _ = make_memmap(2048)
    drained: list[int] = []

    def drain() -> None:
        drained.extend(pages.lru_batch)
        pages.lru_batch.clear()

    pages.lru_drain = drain
    for _ in range(1000):
        pages.lru_add(pages.alloc_page())
    assert len(drained) + len(pages.lru_batch) == 1000
    assert len(pages.lru_batch) < 200


def test_allocations_can_be_made_to_fail() -> None:
    pages, _ = make_memmap()
    verdicts = iter([False, True, False])
    pages.inject_failures(lambda: next(verdicts))
    first = pages.alloc_page()
    with pytest.raises(KernelError) as failure:
        pages.alloc_zeroed_page()
    assert failure.value.errno == Errno.ENOMEM
    assert pages.alloc_page() == first + 1
