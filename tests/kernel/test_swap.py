"""Pages that go out and come back: do_swap_page, try_to_unmap, swapoff; madvise(2), mlock(2), fork(2), mremap(2).

Under all eight kernels, with every counter recounted after each step.
"""

from __future__ import annotations

from typing import Any

import pytest

from kernel.abi.errno import Errno, KernelError
from kernel.mm.exit import mmput
from kernel.mm.fault import FaultResult, handle_mm_fault
from kernel.mm.fork import dup_mm, new_mm
from kernel.mm.madvise import do_madvise
from kernel.mm.mlock import do_mlock, do_munlock
from kernel.mm.mmap import MmapRequest, arch_pick_mmap_layout, do_mmap
from kernel.mm.mprotect import do_mprotect
from kernel.mm.mremap import MremapRequest, do_mremap
from kernel.mm.munmap import do_munmap
from kernel.mm.page import PG_exclusive, PG_swapcache
from kernel.mm.rmap.check import check_all
from kernel.mm.rmap.check_memory import check_memory
from kernel.mm.swapoff import do_swapoff
from kernel.mm.types import PAGE_SIZE, VM_LOCKED, MmStruct
from tests.kernel.fakes import FakeFile, FakeInode, map_file
from tests.kernel.swapfakes import (
    PROFILES,
    MemoryDevice,
    check,
    fill,
    is_swapped,
    make_swap_kernel,
    peek,
    poke,
    swap_out,
    verify,
)

BASE = 0x1000_0000
READ, WRITE = 1, 2
ANON_FIXED = 0x32
MADV_PAGEOUT = 21


@pytest.fixture(params=PROFILES)
def kernel(request: pytest.FixtureRequest) -> Any:
    return make_swap_kernel(512, 4096, request.param)


def make_mm(kernel: Any) -> MmStruct:
    mm = new_mm(kernel)
    kernel.mms.append(mm)
    arch_pick_mmap_layout(mm)
    return mm


def map_anon(mm: MmStruct, nr_pages: int, start: int = BASE, prot: int = READ | WRITE) -> None:
    do_mmap(mm, MmapRequest(start, nr_pages * PAGE_SIZE, prot, ANON_FIXED))


def fork(mm: MmStruct) -> MmStruct:
    child = dup_mm(mm)
    child.kernel.mms.append(child)  # type: ignore[attr-defined]
    return child


def leave(mm: MmStruct) -> None:
    mm.kernel.mms.remove(mm)  # type: ignore[attr-defined]
    mmput(mm)


def recount(kernel: Any) -> None:
    violations = check_memory(kernel) + check_all(kernel)
    assert not violations, "\n".join(map(str, violations))


# ---- out and in -----------------------------------------------------------------------------------------------------


def test_several_times_ram(kernel: Any) -> None:
    mm = make_mm(kernel)
    map_anon(mm, 1600)
    fill(mm, BASE, 1600)
    recount(kernel)
    assert mm.swap_pages > 1000
    verify(mm, BASE, 1600)
    fill(mm, BASE, 800, 2)
    recount(kernel)
    verify(mm, BASE, 800, 2)
    verify(mm, BASE + 800 * PAGE_SIZE, 0)
    recount(kernel)
    assert kernel.oom.nr_kills == 0
    check(kernel)
    leave(mm)
    recount(kernel)
    check(kernel)
    assert kernel.swap.used_pages == 0


def test_a_page_goes_out_and_comes_back(kernel: Any) -> None:
    mm = make_mm(kernel)
    map_anon(mm, 1)
    poke(mm, BASE, 77)
    swap_out(mm, BASE)
    assert is_swapped(mm, BASE)
    assert (mm.rss_anon, mm.swap_pages) == (0, 1)
    assert mm.hiwater_rss == 1
    recount(kernel)
    assert handle_mm_fault(mm, BASE, 0) is FaultResult.MAJOR
    assert peek(mm, BASE) == 77
    assert (mm.rss_anon, mm.swap_pages) == (1, 0)
    assert not mm.pt.get(BASE) & 2, "a read maps it read-only"
    recount(kernel)


def test_a_clean_page_is_dropped_without_writing(kernel: Any) -> None:
    mm = make_mm(kernel)
    map_anon(mm, 1)
    poke(mm, BASE, 1)
    swap_out(mm, BASE)
    assert peek(mm, BASE) == 1
    written = kernel.vmstat.pswpout
    swap_out(mm, BASE)
    assert is_swapped(mm, BASE)
    assert kernel.vmstat.pswpout == written
    assert peek(mm, BASE) == 1
    poke(mm, BASE, 2)
    swap_out(mm, BASE)
    assert kernel.vmstat.pswpout == written + 1
    assert peek(mm, BASE) == 2
    recount(kernel)


def test_a_write_fault_of_the_only_user_maps_writable_at_once(kernel: Any) -> None:
    mm = make_mm(kernel)
    map_anon(mm, 1)
    poke(mm, BASE, 1)
    swap_out(mm, BASE)
    handle_mm_fault(mm, BASE, 2)
    pte = mm.pt.get(BASE)
    assert pte & 0x42 == 0x42, "writable and dirty"
    assert kernel.pages.flags[pte >> 12 & 0xFFFF_FFFF] & PG_exclusive
    recount(kernel)


def test_sharers_find_the_page_in_the_swap_cache(kernel: Any) -> None:
    mm = make_mm(kernel)
    map_anon(mm, 1)
    poke(mm, BASE, 5)
    children = [fork(mm) for _ in range(3)]
    swap_out(mm, BASE)
    assert all(is_swapped(one, BASE) for one in (mm, *children))
    entry = mm.pt.get(BASE)
    assert kernel.swap.swap_count(entry) == 4
    recount(kernel)
    assert handle_mm_fault(children[1], BASE, 0) is FaultResult.MAJOR
    assert handle_mm_fault(mm, BASE, 0) is FaultResult.MINOR
    pfn = mm.pt.get(BASE) >> 12 & 0xFF_FFFF
    assert children[1].pt.get(BASE) >> 12 & 0xFF_FFFF == pfn
    assert kernel.pages.flags[pfn] & PG_swapcache
    assert kernel.swap.swap_count(entry) == 2
    recount(kernel)
    # a write breaks the sharing in the same fault
    assert handle_mm_fault(children[0], BASE, 2) <= FaultResult.MAJOR
    poke(children[0], BASE, 6)
    assert [peek(one, BASE) for one in (mm, *children)] == [5, 6, 5, 5]
    recount(kernel)
    for one in (mm, *children):
        leave(one)
        recount(kernel)
    assert kernel.swap.used_pages == 0


def test_the_last_sharer_need_not_copy(kernel: Any) -> None:
    mm = make_mm(kernel)
    map_anon(mm, 1)
    poke(mm, BASE, 5)
    child = fork(mm)
    swap_out(mm, BASE)
    leave(mm)
    handle_mm_fault(child, BASE, 2)
    assert child.pt.get(BASE) & 2
    assert peek(child, BASE) == 5
    recount(kernel)


def test_forked_children_each_see_their_own(kernel: Any) -> None:
    mm = make_mm(kernel)
    map_anon(mm, 300)
    fill(mm, BASE, 300)
    children = [fork(mm) for _ in range(5)]
    for number, child in enumerate(children, 10):
        fill(child, BASE, 100, number)
        recount(kernel)
    fill(mm, BASE, 50, 2)
    for number, child in enumerate(children, 10):
        verify(child, BASE, 100, number)
        assert peek(child, BASE + 299 * PAGE_SIZE) == peek(mm, BASE + 299 * PAGE_SIZE)
        recount(kernel)
    verify(mm, BASE, 50, 2)
    for one in (children[2], mm, *children[:2], *children[3:]):
        leave(one)
        recount(kernel)
    assert kernel.swap.used_pages == 0


def test_fork_while_pages_are_in_swap(kernel: Any) -> None:
    mm = make_mm(kernel)
    map_anon(mm, 200)
    fill(mm, BASE, 200)
    kernel.reclaim.try_to_free_pages(150)
    child = fork(mm)
    assert child.swap_pages == mm.swap_pages > 0
    recount(kernel)
    fill(mm, BASE, 200, 2)
    verify(child, BASE, 200)
    verify(mm, BASE, 200, 2)
    recount(kernel)


# ---- moves ----------------------------------------------------------------------------------------------------------


def move(mm: MmStruct, old: int, new: int, nr_pages: int = 1) -> None:
    do_mremap(mm, MremapRequest(old, nr_pages * PAGE_SIZE, nr_pages * PAGE_SIZE, 3, new))


FAR = 0x3000_0000


@pytest.mark.parametrize("mover", ["parent", "child", "both"])
def test_shared_pages_are_found_after_mremap(kernel: Any, mover: str) -> None:
    mm = make_mm(kernel)
    map_anon(mm, 64)
    fill(mm, BASE, 64)
    child = fork(mm)
    if mover != "child":
        move(mm, BASE, FAR, 64)
        recount(kernel)
    if mover != "parent":
        move(child, BASE, FAR + 0x100_0000, 64)
        recount(kernel)
    kernel.reclaim.try_to_free_pages(200)
    recount(kernel)
    assert mm.swap_pages + child.swap_pages > 100
    assert kernel.reclaim.rmap.unmapped.nr_missed == 0
    verify(mm, BASE if mover == "child" else FAR, 64)
    verify(child, BASE if mover == "parent" else FAR + 0x100_0000, 64)
    recount(kernel)


@pytest.mark.parametrize("first", [0, 1])
def test_pages_moved_while_in_swap(kernel: Any, first: int) -> None:
    """Under anonmm whoever faults second gets a copy: the page is known at the other's address."""
    mm = make_mm(kernel)
    map_anon(mm, 4)
    fill(mm, BASE, 4)
    child = fork(mm)
    for i in range(4):
        swap_out(mm, BASE + i * PAGE_SIZE)
    move(mm, BASE, FAR, 4)
    recount(kernel)
    places = [(mm, FAR), (child, BASE)]
    verify(*places[first], 4)
    recount(kernel)
    verify(*places[1 - first], 4)
    recount(kernel)
    shared = mm.pt.get(FAR) >> 12 == child.pt.get(BASE) >> 12
    assert shared != (kernel.policy.name == "anonmm")
    assert kernel.policy.counters.nr_unshared == (4 if kernel.policy.name == "anonmm" else 0)


# ---- protection and locks -------------------------------------------------------------------------------------------


def test_mprotect_under_pressure(kernel: Any) -> None:
    mm = make_mm(kernel)
    map_anon(mm, 400)
    fill(mm, BASE, 400)
    for i in range(0, 400, 40):
        do_mprotect(mm, BASE + i * PAGE_SIZE, 20 * PAGE_SIZE, READ if i % 80 else 0)
        kernel.reclaim.try_to_free_pages(40)
        recount(kernel)
    assert poke(mm, BASE, 1) is FaultResult.SIGSEGV_ACCERR
    do_mprotect(mm, BASE, 400 * PAGE_SIZE, READ | WRITE)
    verify(mm, BASE, 400)
    recount(kernel)


def test_pages_without_permission_are_swapped_too(kernel: Any) -> None:
    mm = make_mm(kernel)
    map_anon(mm, 1)
    poke(mm, BASE, 9)
    do_mprotect(mm, BASE, PAGE_SIZE, 0)
    swap_out(mm, BASE)
    assert is_swapped(mm, BASE)
    do_swapoff(kernel, kernel.area)
    assert not mm.pt.get(BASE) & 1, "still not for the processor"
    recount(kernel)
    do_mprotect(mm, BASE, PAGE_SIZE, READ)
    assert peek(mm, BASE) == 9


def test_locked_pages_stay(kernel: Any) -> None:
    mm = make_mm(kernel)
    map_anon(mm, 300)
    fill(mm, BASE, 100)
    do_mlock(mm, BASE + 20 * PAGE_SIZE, 30 * PAGE_SIZE, VM_LOCKED)
    fill(mm, BASE + 100 * PAGE_SIZE, 200, 2)
    kernel.reclaim.try_to_free_pages(250)
    recount(kernel)
    swapped = [i for i in range(300) if is_swapped(mm, BASE + i * PAGE_SIZE)]
    assert len(swapped) > 200
    assert not set(swapped) & set(range(20, 50))
    do_munlock(mm, BASE, 300 * PAGE_SIZE)
    for i in range(20, 50):
        swap_out(mm, BASE + i * PAGE_SIZE)
    assert mm.swap_pages > 220
    verify(mm, BASE, 100)
    recount(kernel)


def test_mlock_brings_pages_in(kernel: Any) -> None:
    mm = make_mm(kernel)
    map_anon(mm, 8)
    fill(mm, BASE, 8)
    for i in range(8):
        swap_out(mm, BASE + i * PAGE_SIZE)
    do_mlock(mm, BASE, 8 * PAGE_SIZE, VM_LOCKED)
    assert (mm.swap_pages, mm.rss_anon) == (0, 8)
    assert kernel.swap.used_pages == 0, "a locked page gives its slot up"
    recount(kernel)


# ---- files and shared memory ----------------------------------------------------------------------------------------


def test_private_file_half_written(kernel: Any) -> None:
    mm = make_mm(kernel)
    data = b"".join(i.to_bytes(8, "little").ljust(PAGE_SIZE, b"x") for i in range(100))
    inode = FakeInode(kernel, data)
    map_file(mm, BASE, 100, FakeFile(inode))
    for i in range(0, 100, 2):
        poke(mm, BASE + i * PAGE_SIZE, 1000 + i)
    child = fork(mm)
    kernel.reclaim.try_to_free_pages(400)
    check(kernel)
    assert not check_memory(kernel)
    assert mm.swap_pages > 40
    for i in range(100):
        assert peek(mm, BASE + i * PAGE_SIZE) == (i if i % 2 else 1000 + i)
        assert peek(child, BASE + i * PAGE_SIZE) == (i if i % 2 else 1000 + i)
    assert inode.writes == []
    check(kernel)


def test_dirty_shared_file_pages_are_written_and_dropped(kernel: Any) -> None:
    mm = make_mm(kernel)
    inode = FakeInode(kernel, bytes(100 * PAGE_SIZE))
    map_file(mm, BASE, 100, FakeFile(inode), 0xB)  # read, write, shared
    fill(mm, BASE, 100)
    kernel.reclaim.try_to_free_pages(200)
    assert not check_memory(kernel)
    assert mm.rss_file < 10
    assert len(inode.writes) > 90
    assert len(inode.i_mapping.pages) < 10
    verify(mm, BASE, 100)
    check(kernel)


def test_failed_write_back_keeps_the_page(kernel: Any) -> None:
    mm = make_mm(kernel)
    inode = FakeInode(kernel, bytes(64 * PAGE_SIZE))
    map_file(mm, BASE, 64, FakeFile(inode), 0xB)
    fill(mm, BASE, 64)
    works = inode.writepage

    def full(pgoff: int, data: bytes) -> None:
        raise KernelError(Errno.ENOSPC, "no space")

    inode.writepage = full  # type: ignore[method-assign]
    kernel.reclaim.try_to_free_pages(100)
    assert len(inode.i_mapping.pages) == 64
    assert inode.i_mapping.writeback_error == Errno.ENOSPC
    assert not check_memory(kernel)
    inode.writepage = works  # type: ignore[method-assign]
    verify(mm, BASE, 64)


def test_shared_anonymous_memory(kernel: Any) -> None:
    mm = make_mm(kernel)
    inode = FakeInode(kernel, is_shmem=True)
    inode.i_size = 100 * PAGE_SIZE
    map_file(mm, BASE, 100, FakeFile(inode), 0xB)
    fill(mm, BASE, 100)
    child = fork(mm)
    verify(child, BASE, 100)
    kernel.reclaim.try_to_free_pages(200)
    assert not check_memory(kernel)
    assert len(inode.i_mapping.swapped) > 80
    assert kernel.reclaim.pageout.nr_shmem_pages > 80
    fill(child, BASE, 50, 3)
    verify(mm, BASE, 50, 3)
    assert peek(mm, BASE + 99 * PAGE_SIZE) == peek(child, BASE + 99 * PAGE_SIZE)
    assert not check_memory(kernel)


# ---- advice ---------------------------------------------------------------------------------------------------------


def test_madvise_pageout(kernel: Any) -> None:
    mm = make_mm(kernel)
    map_anon(mm, 10)
    fill(mm, BASE, 10)
    do_madvise(mm, BASE + 2 * PAGE_SIZE, 5 * PAGE_SIZE, MADV_PAGEOUT)
    assert [is_swapped(mm, BASE + i * PAGE_SIZE) for i in range(10)] == [2 <= i < 7 for i in range(10)]
    recount(kernel)
    verify(mm, BASE, 10)


@pytest.mark.parametrize("written_again", [False, True])
def test_madvise_free(kernel: Any, written_again: bool) -> None:
    mm = make_mm(kernel)
    map_anon(mm, 64)
    fill(mm, BASE, 64)
    do_madvise(mm, BASE, 64 * PAGE_SIZE, 8)
    if written_again:
        for i in range(64):
            poke(mm, BASE + i * PAGE_SIZE, i + 1)
    kernel.reclaim.try_to_free_pages(64)
    recount(kernel)
    if written_again:
        assert [peek(mm, BASE + i * PAGE_SIZE) for i in range(64)] == list(range(1, 65))
        assert kernel.vmstat.pglazyfreed == 0
    else:
        assert kernel.vmstat.pglazyfreed > 40
        assert kernel.vmstat.pswpout == 0, "nothing is written"
        assert peek(mm, BASE) == 0


# ---- swapoff --------------------------------------------------------------------------------------------------------


def test_swapoff_brings_everything_back(kernel: Any) -> None:
    mm = make_mm(kernel)
    inode = FakeInode(kernel, is_shmem=True)
    inode.i_size = 32 * PAGE_SIZE
    map_anon(mm, 100)
    map_file(mm, FAR, 32, FakeFile(inode), 0xB)
    fill(mm, BASE, 100)
    fill(mm, FAR, 32, 2)
    child = fork(mm)
    kernel.reclaim.try_to_free_pages(130)
    used = kernel.swap.used_pages
    assert used > 80
    do_swapoff(kernel, kernel.area)
    assert (mm.swap_pages, child.swap_pages, inode.i_mapping.swapped) == (0, 0, {})
    assert (kernel.swap.total_swap_pages, kernel.swap.nr_swap_pages, kernel.total_swap_pages) == (0, 0, 0)
    assert kernel.swap.active_areas() == []
    assert not check_memory(kernel)
    verify(mm, BASE, 100)
    verify(child, BASE, 100)
    verify(child, FAR, 32, 2)


def test_swapoff_to_another_area(kernel: Any) -> None:
    mm = make_mm(kernel)
    map_anon(mm, 900)
    fill(mm, BASE, 900)
    kernel.swap.swapon_device(MemoryDevice(2000), b"/dev/vdb")
    do_swapoff(kernel, kernel.area)
    assert [area.path for area in kernel.swap.active_areas()] == [b"/dev/vdb"]
    recount(kernel)
    verify(mm, BASE, 900)
    recount(kernel)


def test_swapoff_without_room(kernel: Any) -> None:
    mm = make_mm(kernel)
    map_anon(mm, 900)
    fill(mm, BASE, 900)
    with pytest.raises(KernelError) as failure:
        do_swapoff(kernel, kernel.area)
    assert failure.value.errno == Errno.ENOMEM
    assert kernel.area.writeok
    assert kernel.oom.nr_kills == 0
    recount(kernel)
    verify(mm, BASE, 900)
    leave(mm)
    do_swapoff(kernel, kernel.area)


# ---- errors ---------------------------------------------------------------------------------------------------------


def test_a_page_that_cannot_be_read_is_a_bus_error(kernel: Any) -> None:
    mm = make_mm(kernel)
    map_anon(mm, 8)
    fill(mm, BASE, 8)
    for i in range(8):
        swap_out(mm, BASE + i * PAGE_SIZE)
    bad = mm.pt.get(BASE + 3 * PAGE_SIZE) >> 9
    kernel.device.bad = {bad}
    assert handle_mm_fault(mm, BASE + 3 * PAGE_SIZE, 0) is FaultResult.SIGBUS_ADRERR
    recount(kernel)
    assert peek(mm, BASE + 2 * PAGE_SIZE), "its neighbours can be read"
    kernel.device.bad = set()
    verify(mm, BASE, 8)
    recount(kernel)


def test_a_page_that_cannot_be_written_stays(kernel: Any) -> None:
    mm = make_mm(kernel)
    map_anon(mm, 64)
    fill(mm, BASE, 64)
    kernel.device.bad = set(range(1, 4096))
    kernel.reclaim.try_to_free_pages(64)
    assert kernel.vmstat.pswpout == 0
    assert kernel.swap.io.nr_write_errors > 0
    recount(kernel)
    verify(mm, BASE, 64)
    kernel.device.bad = set()
    kernel.reclaim.try_to_free_pages(64)
    assert kernel.vmstat.pswpout > 0
    verify(mm, BASE, 64)
    recount(kernel)


def test_full_swap_keeps_pages_in_memory() -> None:
    kernel = make_swap_kernel(256, 20)
    mm = make_mm(kernel)
    for i in range(4):
        map_anon(mm, 100, BASE + i * 100 * PAGE_SIZE)
    written = 0
    while poke(mm, BASE + written * PAGE_SIZE, written + 1) <= FaultResult.MAJOR:
        written += 1
    assert kernel.swap.nr_swap_pages == 0
    assert written > 200
    assert "Out of memory and no killable processes..." in kernel.log_lines
    assert not check_memory(kernel)
    do_munmap(mm, BASE + (written - 40) * PAGE_SIZE, 200 * PAGE_SIZE)
    for i in range(written - 40):
        assert peek(mm, BASE + i * PAGE_SIZE) == i + 1
    assert not check_memory(kernel)


def test_slots_are_given_back_when_swap_is_half_full() -> None:
    kernel = make_swap_kernel(512, 101)
    mm = make_mm(kernel)
    map_anon(mm, 100)
    fill(mm, BASE, 100)
    for i in range(40):
        swap_out(mm, BASE + i * PAGE_SIZE)
    poke(mm, BASE, 1)
    assert kernel.swap.used_pages == 40, "less than half: the slot is kept for the next time"
    for i in range(40, 60):
        swap_out(mm, BASE + i * PAGE_SIZE)
    poke(mm, BASE + PAGE_SIZE, 1)
    assert kernel.swap.used_pages == 59
    assert not check_memory(kernel)


# ---- read-ahead -----------------------------------------------------------------------------------------------------


def test_reading_in_order_reads_ahead() -> None:
    kernel = make_swap_kernel(512, 1024)
    mm = make_mm(kernel)
    map_anon(mm, 128)
    fill(mm, BASE, 128)
    for i in range(128):
        swap_out(mm, BASE + i * PAGE_SIZE)
    kernel.device.requests.clear()
    verify(mm, BASE, 128)
    reads = [request for request in kernel.device.requests if request[0] == "read"]
    assert len(reads) < 30
    assert kernel.vmstat.swap_ra_hit > 90


def test_reading_at_random_does_not() -> None:
    kernel = make_swap_kernel(512, 1024)
    mm = make_mm(kernel)
    map_anon(mm, 256)
    fill(mm, BASE, 256)
    for i in range(256):
        swap_out(mm, BASE + i * PAGE_SIZE)
    for i in range(64):
        peek(mm, BASE + i * 37 % 256 * PAGE_SIZE)
    assert kernel.vmstat.swap_ra < 64


def test_page_cluster_0_reads_single_pages() -> None:
    kernel = make_swap_kernel(512, 1024)
    kernel.sysctl.page_cluster = 0
    mm = make_mm(kernel)
    map_anon(mm, 32)
    fill(mm, BASE, 32)
    for i in range(32):
        swap_out(mm, BASE + i * PAGE_SIZE)
    kernel.device.requests.clear()
    verify(mm, BASE, 32)
    assert kernel.device.requests == [("read", 1 + i, 1) for i in range(32)]
