"""Slot maps, headers and areas: mm/swapfile.c, mkswap(8), swapon(2), proc(5)."""

from __future__ import annotations

import pytest

from kernel.abi.errno import Errno, KernelError
from kernel.mm.page_io import SwapIo
from kernel.mm.swap import SWAP_OFFSET_MASK, SWAPFILE_CLUSTER, SwapArea, mkswap, read_swap_header
from kernel.mm.swapoff import do_swapoff
from kernel.mm.types import PAGE_SIZE
from kernel.mm.vmstat import swaps_text
from tests.kernel.swapfakes import MemoryDevice, make_swap_kernel


def make_area(nr_pages: int) -> SwapArea:
    return SwapArea(0, b"/dev/vda", MemoryDevice(nr_pages), nr_pages, -2)


def test_header_as_mkswap_writes_it() -> None:
    page = mkswap(100, b"u" * 16, b"label")
    assert len(page) == PAGE_SIZE
    assert page[-10:] == b"SWAPSPACE2"
    assert page[1024:1032] == b"\x01\0\0\0\x63\0\0\0"  # version 1, last page 99
    assert page[1036:1052] == b"u" * 16
    assert read_swap_header(page, 100) == 100
    assert read_swap_header(page, 200) == 100, "the device may be larger"


@pytest.mark.parametrize(
    "page",
    [bytes(PAGE_SIZE), mkswap(101), mkswap(1), mkswap(100)[:1024] + b"\x02" + mkswap(100)[1025:]],
    ids=["no signature", "device too short", "empty", "version 2"],
)
def test_bad_headers_are_refused(page: bytes) -> None:
    with pytest.raises(KernelError) as failure:
        read_swap_header(page, 100)
    assert failure.value.errno == Errno.EINVAL


def test_slots_come_one_after_the_other_and_never_the_header() -> None:
    area = make_area(1000)
    assert [area.scan_swap_map() for _ in range(999)] == list(range(1, 1000))
    assert area.scan_swap_map() == 0
    assert area.inuse_pages == 999


def test_freed_slots_are_used_again_after_the_cluster() -> None:
    area = make_area(1 + 3 * SWAPFILE_CLUSTER)
    for _ in range(SWAPFILE_CLUSTER + 10):
        area.scan_swap_map()
    area.counts[5] = 0
    area.free_slot(5)
    # the cluster that was begun goes on, then the last empty one is taken, then holes
    taken = [area.scan_swap_map() for _ in range(2 * SWAPFILE_CLUSTER - 10)]
    assert taken == list(range(SWAPFILE_CLUSTER + 11, 3 * SWAPFILE_CLUSTER + 1))
    assert area.scan_swap_map() == 5
    assert area.scan_swap_map() == 0


def test_a_full_map_with_holes_is_filled_first_fit() -> None:
    area = make_area(400)
    for _ in range(399):
        area.scan_swap_map()
    for offset in (300, 7, 399, 8):
        area.counts[offset] = 0
        area.free_slot(offset)
    assert (area.lowest_bit, area.highest_bit) == (7, 399)
    assert [area.scan_swap_map() for _ in range(5)] == [7, 8, 300, 399, 0]


def test_reference_counts_and_free_pages() -> None:
    kernel = make_swap_kernel(swap_pages=100)
    swap = kernel.swap
    assert (swap.total_swap_pages, swap.nr_swap_pages, kernel.total_swap_pages) == (99, 99, 99)
    entry = swap.get_swap_page()
    swap.duplicate(entry)
    assert swap.nr_swap_pages == 98
    assert swap.free(entry) == 1
    assert swap.free(entry) == 0
    assert swap.nr_swap_pages == 99
    with pytest.raises(AssertionError):
        swap.free(entry)


def test_many_entries_at_once_count_as_one_by_one() -> None:
    kernel = make_swap_kernel(swap_pages=200)
    swap = kernel.swap
    ptes = [swap.get_swap_page() << 9 for _ in range(60)]
    swap.swap_duplicate(ptes)
    swap.swap_duplicate(ptes[:5])
    assert [swap.swap_count(pte) for pte in (ptes[0], ptes[4], ptes[5], ptes[59])] == [3, 3, 2, 2]
    swap.swap_free(ptes)
    swap.swap_free(ptes)
    assert swap.used_pages == 5
    swap.swap_free(ptes[:5])
    assert (swap.used_pages, swap.nr_swap_pages) == (0, 199)


def test_higher_priority_first_equal_ones_by_turns() -> None:
    kernel = make_swap_kernel(swap_pages=0)
    swap = kernel.swap
    low = swap.swapon_device(MemoryDevice(10), b"/dev/low")
    first = swap.swapon_device(MemoryDevice(4), b"/dev/first", 7)
    second = swap.swapon_device(MemoryDevice(4), b"/dev/second", 7)
    assert (low.prio, low.swp_type, first.swp_type, second.swp_type) == (-2, 0, 1, 2)
    types = [swap.get_swap_page() >> 50 for _ in range(8)]
    assert types == [1, 2, 1, 2, 1, 2, 0, 0]


def test_default_priorities_fall() -> None:
    kernel = make_swap_kernel(swap_pages=0)
    areas = [kernel.swap.swapon_device(MemoryDevice(10), b"/dev/%d" % i) for i in range(3)]
    assert [area.prio for area in areas] == [-2, -3, -4]


def test_default_priorities_close_up_after_swapoff() -> None:
    kernel = make_swap_kernel(swap_pages=0)
    swap = kernel.swap
    chosen = swap.swapon_device(MemoryDevice(10), b"/dev/chosen", 3)
    first, second, third = (swap.swapon_device(MemoryDevice(10), b"/dev/%d" % i) for i in range(3))
    do_swapoff(kernel, second)
    do_swapoff(kernel, chosen)
    assert [first.prio, third.prio] == [-2, -3]
    assert swap.swapon_device(MemoryDevice(10), b"/dev/new").prio == -4


def test_types_are_used_again() -> None:
    kernel = make_swap_kernel(swap_pages=10)
    swap = kernel.swap
    second = swap.swapon_device(MemoryDevice(10), b"/dev/b")
    do_swapoff(kernel, kernel.area)
    third = swap.swapon_device(MemoryDevice(10), b"/dev/c")
    assert (second.swp_type, third.swp_type) == (1, 0)
    assert swap.total_swap_pages == 18


def test_proc_swaps() -> None:
    kernel = make_swap_kernel(swap_pages=0)
    assert swaps_text(kernel) == "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
    kernel.swap.swapon_device(MemoryDevice(257), b"/dev/vda")
    area = kernel.swap.swapon_device(MemoryDevice(11), b"/a b", 5)
    area.is_partition = False
    kernel.swap.get_swap_page()
    assert swaps_text(kernel).splitlines()[1:] == [
        "/dev/vda                                partition\t1024\t\t0\t\t-2",
        "/a\\040b                                 file\t\t40\t\t4\t\t5",
    ]


def test_neighbours_go_to_the_device_in_one_request() -> None:
    kernel = make_swap_kernel(swap_pages=100)
    io: SwapIo = kernel.swap.io
    frames = [kernel.pages.alloc_page() for _ in range(5)]
    kernel.device.requests.clear()
    assert not io.write(kernel.area, list(zip([3, 4, 5, 9, 10], frames, strict=True)))
    assert kernel.device.requests == [("write", 3, 3), ("write", 9, 2)]
    assert kernel.vmstat.pswpout == 5


def test_one_bad_page_does_not_spoil_its_neighbours() -> None:
    kernel = make_swap_kernel(swap_pages=100)
    frames = [kernel.pages.alloc_page() for _ in range(3)]
    for i, pfn in enumerate(frames):
        kernel.physmem.write(pfn * PAGE_SIZE, bytes([i + 1]) * PAGE_SIZE)
    kernel.device.bad = {8}
    assert kernel.swap.io.write(kernel.area, [(7, frames[0]), (8, frames[1]), (9, frames[2])]) == {frames[1]}
    assert kernel.device.data[7 * PAGE_SIZE] == 1
    assert kernel.device.data[9 * PAGE_SIZE] == 3
    assert kernel.swap.io.nr_write_errors == 1
    assert kernel.log_lines[-1] == "Write-error on swap-device (/dev/vda:64)"
    assert kernel.swap.io.read(kernel.area, [(8, frames[1])]) == {frames[1]}
    assert kernel.log_lines[-1] == "Read-error on swap-device (/dev/vda:64)"


def test_entries_are_swap_ptes_without_their_low_bits() -> None:
    from kernel.mm.pagetable import swp_entry_to_pte

    kernel = make_swap_kernel(swap_pages=100)
    kernel.swap.swapon_device(MemoryDevice(50), b"/dev/b", 9)
    entry = kernel.swap.get_swap_page()
    assert entry >> 50 == 1
    assert swp_entry_to_pte(1, entry & SWAP_OFFSET_MASK) == entry << 9
