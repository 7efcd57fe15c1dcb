"""A kernel without a processor that can swap: fakes.py with the reclaim code and a device in memory."""

from __future__ import annotations

from typing import Any

from kernel.fault_inject import FailPoints
from kernel.mm.fault import MAJOR, FaultResult, touch
from kernel.mm.swap import mkswap
from kernel.mm.types import PAGE_SHIFT, PAGE_SIZE, MmStruct
from kernel.mm.vmscan import setup_reclaim
from tests.kernel import fakes

PROFILES = ("2.6.6", "2.6.6-anonmm", "2.6.6-rmap39", "2.6.5-aa", "2.6.7", "one-anon-vma", "6.1", "6.18")


class MemoryDevice:
    """A swap device in host memory; ``bad`` are page offsets that give an I/O error."""

    def __init__(self, nr_pages: int, header: bytes | None = None) -> None:
        self.data = bytearray(nr_pages * PAGE_SIZE)
        self.data[:PAGE_SIZE] = mkswap(nr_pages) if header is None else header
        self.bad: set[int] = set()
        self.requests: list[tuple[str, int, int]] = []

    @property
    def nr_pages(self) -> int:
        return len(self.data) // PAGE_SIZE

    def read_pages(self, offset: int, frames: list[memoryview]) -> None:
        self._check("read", offset, len(frames))
        for i, frame in enumerate(frames):
            start = (offset + i) * PAGE_SIZE
            frame[:] = self.data[start : start + PAGE_SIZE]

    def write_pages(self, offset: int, frames: list[memoryview]) -> None:
        self._check("write", offset, len(frames))
        for i, frame in enumerate(frames):
            start = (offset + i) * PAGE_SIZE
            self.data[start : start + PAGE_SIZE] = frame

    def _check(self, direction: str, offset: int, nr_pages: int) -> None:
        self.requests.append((direction, offset, nr_pages))
        if self.bad.intersection(range(offset, offset + nr_pages)):
            raise OSError(5, "bad page")


def make_swap_kernel(
    ram_pages: int = 512, swap_pages: int = 2048, profile: str = "6.18", fail: tuple[str, ...] = (), **overrides: str
) -> Any:
    """A kernel with ``ram_pages`` frames and, unless ``swap_pages`` is 0, one swap area."""
    kernel = fakes.make_kernel(ram_pages, profile, **overrides)
    kernel.fail = FailPoints(fail)
    setup_reclaim(kernel)
    if swap_pages:
        kernel.device = MemoryDevice(swap_pages)
        kernel.area = kernel.swap.swapon_device(kernel.device, b"/dev/vda")
    if kernel.fail.watches("alloc"):
        kernel.pages.inject_failures(lambda: kernel.fail.should_fail("alloc"))
    return kernel


def poke(mm: MmStruct, vaddr: int, value: int) -> FaultResult:
    """Store a 64-bit word as a program would; the fault's result if it cannot be done."""
    result = touch(mm, vaddr, write=True)
    if result <= MAJOR:
        mm.kernel.physmem.q[_word(mm, vaddr)] = value
    return result


def peek(mm: MmStruct, vaddr: int) -> int:
    """Load a 64-bit word as a program would; AssertionError if the access ends in a signal."""
    result = touch(mm, vaddr)
    assert result <= MAJOR, f"read of {vaddr:#x}: {result!r}"
    return int(mm.kernel.physmem.q[_word(mm, vaddr)])


def _word(mm: MmStruct, vaddr: int) -> int:
    return ((mm.pt.get(vaddr) & 0x000F_FFFF_FFFF_F000) | (vaddr & 0xFFF)) >> 3


def pattern(mm_nr: int, page: int) -> int:
    """What page ``page`` of a test's area number ``mm_nr`` holds."""
    return (mm_nr << 40 | page) * 0x9E37_79B9_7F4A_7C15 & 0xFFFF_FFFF_FFFF_FFFF


def fill(mm: MmStruct, start: int, nr_pages: int, number: int = 1) -> None:
    """Write a pattern to the first and the last word of each page."""
    for i in range(nr_pages):
        vaddr = start + (i << PAGE_SHIFT)
        result = poke(mm, vaddr, pattern(number, i))
        assert result <= MAJOR, f"write to {vaddr:#x}: {result!r}"
        poke(mm, vaddr + PAGE_SIZE - 8, ~pattern(number, i) & 0xFFFF_FFFF_FFFF_FFFF)


def verify(mm: MmStruct, start: int, nr_pages: int, number: int = 1) -> None:
    """Read what :func:`fill` wrote."""
    for i in range(nr_pages):
        vaddr = start + (i << PAGE_SHIFT)
        assert peek(mm, vaddr) == pattern(number, i), f"first word of page {i}"
        assert peek(mm, vaddr + PAGE_SIZE - 8) == ~pattern(number, i) & 0xFFFF_FFFF_FFFF_FFFF, f"last word of page {i}"


def is_swapped(mm: MmStruct, vaddr: int) -> bool:
    pte = mm.pt.get(vaddr)
    return pte != 0 and not pte & 0x101


def swap_out(mm: MmStruct, vaddr: int) -> None:
    """Take the anonymous page at ``vaddr`` out of memory, as MADV_PAGEOUT does for a page that is not shared."""
    kernel: Any = mm.kernel
    kernel.lru.drain()
    pfn = mm.pt.get(vaddr) >> PAGE_SHIFT & 0xFF_FFFF_FFFF
    for _ in range(3):  # once to clear its marks of use
        if kernel.lru.isolate_page(pfn):
            kernel.reclaim.shrink_list([pfn])


def swap_cache_of(kernel: Any) -> dict[int, int]:
    """entry -> pfn, for ``fakes.check_kernel``."""
    found = {}
    for area in kernel.swap.active_areas():
        for offset, pfn in enumerate(area.cache_np.tolist()):
            if pfn:
                found[area.entry_base | offset] = pfn
    return found


def check(kernel: Any) -> None:
    """Every recount there is."""
    fakes.check_kernel(kernel, swap_cache_of(kernel))
