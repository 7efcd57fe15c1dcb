"""Which pages go, in which order, and when: mm/vmscan.c and mm/swap.c of 2.6 (RMAP.md section 10)."""

from __future__ import annotations

from typing import Any

import pytest

from kernel.mm.filemap import AddressSpace, generic_file_read
from kernel.mm.fork import dup_mm
from kernel.mm.page import PG_active, PG_dirty, PG_lru, PG_referenced
from kernel.mm.rmap.check_memory import check_memory
from kernel.mm.types import PAGE_SIZE, MmStruct
from kernel.mm.unmap import RMAP_MISS, SWAP_AGAIN, SWAP_FAIL, SWAP_SUCCESS
from kernel.mm.vmstat import EVENTS, meminfo, meminfo_text, vmstat_text
from mmu.paging import PTE_A
from tests.kernel.fakes import FakeFile, FakeInode, make_mm, map_anon, map_file
from tests.kernel.swapfakes import fill, is_swapped, make_swap_kernel, peek, poke, verify

BASE = 0x1000_0000


@pytest.fixture
def kernel() -> Any:
    return make_swap_kernel(512, 1024, "2.6.7")


@pytest.fixture
def mm(kernel: Any) -> MmStruct:
    return make_mm(kernel)


def pfn_at(mm: MmStruct, vaddr: int) -> int:
    return mm.pt.get(vaddr) >> 12 & 0xFF_FFFF_FFFF


def clear_young(mm: MmStruct, start: int, nr_pages: int) -> None:
    for vaddr in range(start, start + nr_pages * PAGE_SIZE, PAGE_SIZE):
        index = mm.pt.pte_index(vaddr)
        mm.pt.q[index] &= ~PTE_A & 0xFFFF_FFFF_FFFF_FFFF


# ---- the lists ------------------------------------------------------------------------------------------------------


def test_new_anonymous_pages_are_active_file_pages_inactive(kernel: Any, mm: MmStruct) -> None:
    map_anon(mm, BASE, 3)
    fill(mm, BASE, 3)
    inode = FakeInode(kernel, bytes(4 * PAGE_SIZE))
    generic_file_read(inode.i_mapping, 0, 4 * PAGE_SIZE)
    kernel.lru.drain()
    assert kernel.lru.members(kernel.lru.active) == [pfn_at(mm, BASE + i * PAGE_SIZE) for i in range(3)]
    assert sorted(kernel.lru.members(kernel.lru.inactive)) == sorted(inode.i_mapping.pages.values())
    assert (kernel.lru.nr_active, kernel.lru.nr_inactive) == (3, 4)


def test_pages_are_taken_first_in_first_out(kernel: Any, mm: MmStruct) -> None:
    map_anon(mm, BASE, 100)
    fill(mm, BASE, 100)
    kernel.lru.drain()
    pfns = [pfn_at(mm, BASE + i * PAGE_SIZE) for i in range(100)]
    assert kernel.lru.isolate(kernel.lru.active, 32) == pfns[:32]
    assert kernel.lru.nr_active == 68
    for pfn in pfns[:32]:
        kernel.lru.putback(pfn)
    assert kernel.lru.members(kernel.lru.active) == pfns[32:] + pfns[:32]


def test_freed_and_moved_pages_leave_nothing_behind(kernel: Any, mm: MmStruct) -> None:
    for _ in range(40):
        vma = map_anon(mm, BASE, 60)
        fill(mm, BASE, 60)
        kernel.lru.drain()
        from kernel.mm.memory import zap_page_range

        zap_page_range(vma, BASE, BASE + 60 * PAGE_SIZE)
        mm.areas.unlink(vma)
    assert kernel.lru.nr_active == 0
    assert kernel.lru.isolate(kernel.lru.active, 32) == []
    assert len(kernel.lru.active) <= 3 * kernel.pages.nr_frames


def test_mark_page_accessed(kernel: Any) -> None:
    mapping: AddressSpace = FakeInode(kernel, bytes(PAGE_SIZE)).i_mapping
    generic_file_read(mapping, 0, 1)
    kernel.lru.drain()
    pfn = mapping.pages[0]
    flags = kernel.pages.flags
    flags[pfn] &= ~PG_referenced

    def state() -> tuple[bool, bool]:
        return bool(flags[pfn] & PG_active), bool(flags[pfn] & PG_referenced)

    states = []
    for _ in range(4):
        kernel.lru.mark_page_accessed(pfn)
        states.append(state())
    assert states == [(False, True), (True, False), (True, True), (True, True)]
    assert kernel.vmstat.pgactivate == 1


def test_a_file_read_twice_outlives_one_read_once(kernel: Any) -> None:
    often, once = (FakeInode(kernel, bytes(64 * PAGE_SIZE)) for _ in range(2))
    for inode, nr_times in ((often, 3), (once, 1)):
        for _ in range(nr_times):
            for pos in range(0, 64 * PAGE_SIZE, 512):
                generic_file_read(inode.i_mapping, pos, 512)
    kernel.lru.drain()
    assert kernel.lru.nr_active == 64
    kernel.reclaim.try_to_free_pages(64)
    assert len(often.i_mapping.pages) > 60 > 10 > len(once.i_mapping.pages)


# ---- page_referenced and try_to_unmap -------------------------------------------------------------------------------


def test_page_referenced_counts_and_clears_young_bits(kernel: Any, mm: MmStruct) -> None:
    map_anon(mm, BASE, 1)
    poke(mm, BASE, 1)
    child = dup_mm(mm)
    kernel.mms.append(child)
    peek(child, BASE)
    pfn = pfn_at(mm, BASE)
    kernel.pages.flags[pfn] |= PG_referenced
    rmap = kernel.reclaim.rmap
    assert rmap.page_referenced(pfn) == 3
    assert rmap.page_referenced(pfn) == 0
    assert rmap.referenced.as_dict() == {
        "walks": 2, "proposed": 4, "skipped": 0, "checked": 4, "hits": 4, "stale": 0, "missed": 0
    }  # fmt: skip


def test_try_to_unmap_refuses_what_was_used_or_is_held(kernel: Any, mm: MmStruct) -> None:
    map_anon(mm, BASE, 1)
    poke(mm, BASE, 1)
    pfn = pfn_at(mm, BASE)
    unmap = kernel.reclaim.rmap.try_to_unmap
    assert kernel.swap.cache.add_to_swap(pfn)
    assert unmap(pfn) == SWAP_FAIL, "young"
    kernel.pages.get_page(pfn)
    assert unmap(pfn) == SWAP_FAIL, "held"
    kernel.pages.put_page(pfn)
    assert unmap(pfn) == SWAP_SUCCESS
    assert is_swapped(mm, BASE)
    assert kernel.pages.flags[pfn] & PG_dirty


def test_stale_proposals_are_counted(kernel: Any, mm: MmStruct) -> None:
    map_anon(mm, BASE, 4)
    poke(mm, BASE, 1)
    child = dup_mm(mm)
    kernel.mms.append(child)
    poke(child, BASE, 2)
    own = pfn_at(child, BASE)
    kernel.reclaim.rmap.page_referenced(pfn_at(mm, BASE))
    stats = kernel.reclaim.rmap.referenced
    assert (stats.nr_proposed, stats.nr_checked, stats.nr_hits) == (2, 2, 1), "the child's area is asked first"
    clear_young(child, BASE, 1)
    assert kernel.swap.cache.add_to_swap(own)
    assert kernel.reclaim.rmap.try_to_unmap(own) == SWAP_SUCCESS


@pytest.mark.parametrize("profile", ["2.6.6-rmap39", "2.6.5-aa", "2.6.7"])
def test_a_mapping_that_the_policy_lost(profile: str) -> None:
    """--bug mprotect-grower: the page stays, the miss is told, the oracle says where it is (RMAP.md section 12.1)."""
    from kernel.mm.mmap import MmapRequest, arch_pick_mmap_layout, do_mmap
    from kernel.mm.mprotect import do_mprotect

    for bugs, nr_misses in (((), 0), (("mprotect-grower",), 1)):
        kernel = make_swap_kernel(512, 1024, profile, bugs=bugs)  # type: ignore[arg-type]
        mm = make_mm(kernel)
        arch_pick_mmap_layout(mm)
        do_mmap(mm, MmapRequest(BASE, 4 * PAGE_SIZE, 3, 0x32))
        do_mprotect(mm, BASE, 2 * PAGE_SIZE, 1)
        poke(mm, BASE + 2 * PAGE_SIZE, 7)
        poke(mm, BASE + 3 * PAGE_SIZE, 8)
        do_mprotect(mm, BASE + 2 * PAGE_SIZE, PAGE_SIZE, 1)
        violations = check_memory(kernel)
        assert [violation.invariant for violation in violations] == ["rmap-found"] * nr_misses
        pfn = pfn_at(mm, BASE + 2 * PAGE_SIZE)
        misses: list[Any] = []

        def probe(_tracepoint: Any, values: Any, misses: list[Any] = misses) -> None:
            misses.append(values)

        RMAP_MISS.attach(probe)
        try:
            clear_young(mm, BASE + 2 * PAGE_SIZE, 1)
            kernel.swap.cache.add_to_swap(pfn)
            result = kernel.reclaim.rmap.try_to_unmap(pfn)
        finally:
            RMAP_MISS.detach(probe)
        assert result == (SWAP_AGAIN if bugs else SWAP_SUCCESS)
        assert misses == [(pfn, "unmap", 1, 0, 0)] * nr_misses
        assert kernel.pages.mapcount[pfn] == nr_misses, "a mapped frame is never freed"
        assert peek(mm, BASE + 2 * PAGE_SIZE) == 7
        if bugs:
            assert "areas <Vma 10000000-10003000 r--p" in violations[0].detail
            assert "anon_vma None" in violations[0].detail


@pytest.mark.parametrize(
    ("profile", "shared", "private"),
    [
        ("2.6.6", (11, 11), (1, 1)),
        ("2.6.6-anonmm", (11, 11), (1, 1)),
        ("2.6.6-rmap39", (11, 11), (5, 5)),
        ("2.6.5-aa", (87, 11), (40, 5)),
        ("2.6.7", (87, 11), (40, 5)),
        ("one-anon-vma", (87, 11), (40, 5)),
        ("6.1", (11, 11), (1, 1)),
        ("6.18", (11, 11), (1, 1)),
    ],
)
def test_what_a_walk_costs_with_ten_children(profile: str, shared: tuple[int, int], private: tuple[int, int]) -> None:
    """Eight areas that share an anon_vma where the policy shares at all (RMAP.md sections 2 to 8, "Walk", "Cost")."""
    from tests.bench.pressure import WalkWork, walk_work

    assert walk_work(profile, 10) == (WalkWork(*shared), WalkWork(*private))


# ---- the scanner ----------------------------------------------------------------------------------------------------


def test_pages_in_use_go_last(kernel: Any, mm: MmStruct) -> None:
    map_anon(mm, BASE, 300)
    fill(mm, BASE, 300)
    kernel.reclaim.try_to_free_pages(1)  # brings the lists into their steady state
    for i in range(300):
        if i % 3 == 0:
            peek(mm, BASE + i * PAGE_SIZE)
    used = set(range(0, 300, 3))
    kernel.reclaim.try_to_free_pages(100)
    swapped = {i for i in range(300) if is_swapped(mm, BASE + i * PAGE_SIZE)}
    assert len(swapped) >= 100
    assert len(swapped & used) < len(swapped) // 4
    assert not check_memory(kernel)


def test_clean_file_pages_go_before_anonymous_memory_while_little_is_mapped(kernel: Any, mm: MmStruct) -> None:
    inode = FakeInode(kernel, bytes(200 * PAGE_SIZE))
    map_anon(mm, BASE, 50)
    fill(mm, BASE, 50)
    generic_file_read(inode.i_mapping, 0, 200 * PAGE_SIZE)
    kernel.reclaim.try_to_free_pages(100)
    assert len(inode.i_mapping.pages) <= 100
    assert mm.swap_pages == 0
    assert inode.writes == []
    assert kernel.vmstat.pgsteal_file >= 100


def test_refaults_of_file_pages_are_counted(kernel: Any) -> None:
    inode = FakeInode(kernel, bytes(64 * PAGE_SIZE))
    generic_file_read(inode.i_mapping, 0, 64 * PAGE_SIZE)
    kernel.reclaim.try_to_free_pages(64)
    assert len(inode.i_mapping.pages) < 10
    generic_file_read(inode.i_mapping, 0, 64 * PAGE_SIZE)
    kernel.lru.drain()
    assert kernel.vmstat.workingset_refault_file > 50


def test_kswapd_between_low_and_min_direct_reclaim_below() -> None:
    kernel = make_swap_kernel(1024, 4096, "2.6.7")
    pages, reclaim = kernel.pages, kernel.reclaim
    mm = make_mm(kernel)
    map_anon(mm, BASE, 3000)
    i = 0
    while not reclaim.kswapd_wanted:
        poke(mm, BASE + i * PAGE_SIZE, i)
        i += 1
    assert pages.watermark_min < pages.nr_free <= pages.watermark_low
    assert reclaim.nr_direct_passes == 0
    reclaim.kswapd_tick()
    assert pages.nr_free >= pages.watermark_high
    assert not reclaim.kswapd_wanted
    for page in range(i, i + 500):
        poke(mm, BASE + page * PAGE_SIZE, page)
        if reclaim.kswapd_wanted:
            reclaim.kswapd_tick()
    assert reclaim.nr_direct_passes == 0
    for page in range(i + 500, i + 1000):
        poke(mm, BASE + page * PAGE_SIZE, page)
    assert reclaim.nr_direct_passes > 0
    assert kernel.vmstat.allocstall_normal > 0
    assert not check_memory(kernel)


def test_kswapd_sleeps_when_it_finds_nothing() -> None:
    kernel = make_swap_kernel(256, 0)
    mm = make_mm(kernel)
    map_anon(mm, BASE, 300)
    reclaim = kernel.reclaim
    i = 0
    while not reclaim.kswapd_wanted:
        poke(mm, BASE + i * PAGE_SIZE, i)
        i += 1
    reclaim.kswapd_tick()
    assert reclaim.kswapd_failed
    passes = reclaim.nr_kswapd_passes
    reclaim.reclaim_hook(32)
    assert not reclaim.kswapd_wanted
    assert reclaim.nr_kswapd_passes == passes


def test_without_swap_anonymous_pages_stay(mm: MmStruct) -> None:
    kernel = make_swap_kernel(512, 0)
    mm = make_mm(kernel)
    map_anon(mm, BASE, 100)
    fill(mm, BASE, 100)
    assert kernel.reclaim.try_to_free_pages(50) == 0
    verify(mm, BASE, 100)
    assert kernel.reclaim.rmap.unmapped.nr_walks == 0


def test_swappiness_0_spares_mapped_pages(kernel: Any, mm: MmStruct) -> None:
    kernel.sysctl.swappiness = 0
    inode = FakeInode(kernel, bytes(200 * PAGE_SIZE))
    map_file(mm, BASE, 50, FakeFile(inode))
    for i in range(50):
        peek(mm, BASE + i * PAGE_SIZE)
    generic_file_read(inode.i_mapping, 50 * PAGE_SIZE, 150 * PAGE_SIZE)
    kernel.reclaim.try_to_free_pages(60)
    assert mm.rss_file == 50


# ---- what /proc says ------------------------------------------------------------------------------------------------


def test_meminfo_and_vmstat(kernel: Any, mm: MmStruct) -> None:
    inode = FakeInode(kernel, bytes(20 * PAGE_SIZE))
    shmem = FakeInode(kernel, is_shmem=True)
    shmem.i_size = 10 * PAGE_SIZE
    map_anon(mm, BASE, 100)
    map_file(mm, BASE * 2, 10, FakeFile(shmem), 0xB)
    fill(mm, BASE, 100)
    fill(mm, BASE * 2, 10)
    generic_file_read(inode.i_mapping, 0, 20 * PAGE_SIZE)
    info = meminfo(kernel)
    kb = PAGE_SIZE // 1024
    assert info["MemTotal"] == kernel.pages.nr_usable * kb
    assert info["MemFree"] == kernel.pages.nr_free * kb
    assert info["AnonPages"] == 100 * kb
    assert info["Cached"] == 30 * kb
    assert info["Shmem"] == 10 * kb
    assert info["Mapped"] == 10 * kb
    assert info["Active"] + info["Inactive"] == 130 * kb
    assert info["PageTables"] == (mm.pt.nr_tables + 1) * kb
    assert (info["SwapTotal"], info["SwapFree"]) == (1023 * kb, 1023 * kb)
    kernel.reclaim.try_to_free_pages(60)
    info = meminfo(kernel)
    used = kernel.swap.used_pages
    assert info["SwapTotal"] - info["SwapFree"] == used * kb
    first, *_ = meminfo_text(kernel).splitlines()
    assert first == f"MemTotal:       {kernel.pages.nr_usable * kb:8} kB"
    stat = dict(line.split() for line in vmstat_text(kernel).splitlines())
    assert int(stat["pswpout"]) == kernel.vmstat.pswpout > 0
    assert set(EVENTS) <= set(stat)
    assert sum(kernel.pages.flags_np & PG_lru != 0) == sum(
        int(stat[name]) for name in ("nr_active_anon", "nr_inactive_anon", "nr_active_file", "nr_inactive_file")
    )


def test_stats_are_numbers_by_name(kernel: Any, mm: MmStruct) -> None:
    map_anon(mm, BASE, 200)
    fill(mm, BASE, 200)
    kernel.reclaim.try_to_free_pages(100)
    stats = kernel.reclaim.stats()
    assert stats["swap"]["pages_out"] == stats["swap"]["used_pages"] >= 100
    assert stats["reclaim"]["stolen"] >= 100
    assert stats["rmap"]["unmap"]["hits"] >= 100
