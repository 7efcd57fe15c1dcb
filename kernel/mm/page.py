"""``struct page`` and the page allocator.

Models ``include/linux/mm_types.h`` (``struct page``), ``include/linux/page-flags.h``, ``mm/page_alloc.c`` (one zone,
order 0 only, with a per-cpu list before the main one) and the batching half of ``mm/swap.c``.

``struct page`` is a set of parallel arrays indexed by pfn.  Every numeric field has two names for the same memory:
``x`` is a memoryview (one element in 30 ns) and ``x_np`` a NumPy array (whole page tables at once).

Reference counts are Linux's: one for each PTE, one for the page cache, one for the swap cache, one for each user inside
the kernel.  ``mapcount`` counts PTEs alone (Linux's ``_mapcount + 1``).

Invariants (checked by tests/kernel/fakes.py and rmap/check.py):
* ``refcount >= mapcount``; a free frame has both 0, ``mapping`` None, and none of the flags but PG_stale and PG_exec;
* the zero page and reserved frames are counted nowhere and never freed;
* frames on ``lru_batch`` may have been freed, reused or put there twice since: who drains it must look at PG_lru.

Deliberate differences: flags have the numbers of ``include/uapi/linux/kernel-page-flags.h``, so that /proc/kpageflags
needs no translation; no zones, nodes, orders or compound pages; the order of allocation is last in, first out, then
rising frame numbers, the same every run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from kernel.abi.errno import Errno, KernelError
from kernel.mm.types import PAGE_SHIFT, PAGE_SIZE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kernel.hardware import Hardware
    from kernel.mm.fault import Served
    from kernel.mm.filemap import AddressSpace
    from kernel.mm.types import Vma
    from mmu.physmem import PhysMem

    PfnArray = NDArray[np.int64]

# page flags: KPF_* numbers up to 26; those above are ours
PG_locked = 1 << 0
PG_error = 1 << 1
PG_referenced = 1 << 2
PG_uptodate = 1 << 3
PG_dirty = 1 << 4
PG_lru = 1 << 5
PG_active = 1 << 6
PG_writeback = 1 << 8
PG_reclaim = 1 << 9
PG_anon = 1 << 12
PG_swapcache = 1 << 13
PG_swapbacked = 1 << 14
PG_unevictable = 1 << 18
PG_table = 1 << 26
"""A page-table page: ``mapping`` is its mm, ``index`` the first byte address it maps, ``private`` its used entries."""
PG_mlocked = 1 << 27
PG_reserved = 1 << 28
PG_exclusive = 1 << 29
"""PageAnonExclusive: one mm maps this anonymous page and nobody else can get at it."""
PG_exec = 1 << 30
"""Was mapped executable since it was allocated: the processor may hold instructions translated from it."""
PG_stale = 1 << 31
"""A free frame whose content is not known to be zero."""

PG_NEW_ANON = PG_anon | PG_swapbacked | PG_uptodate | PG_exclusive
"""What a page has that a fault just gave to one process alone."""

_PCP_BATCH = 64
_PCP_HIGH = 512
_ZERO_PAGE_BYTES = bytes(PAGE_SIZE)


class SwapOps(Protocol):
    """What page-table code asks of the swap code (``mm/swapfile.c``).  ``pte``: a swap entry as a table holds it."""

    def swap_duplicate(self, ptes: list[int]) -> None:
        """Each of ``ptes`` was copied into one more page table (fork)."""
        ...

    def swap_free(self, ptes: list[int]) -> None:
        """Each of ``ptes`` was removed from one page table."""
        ...

    def do_swap_page(self, vma: Vma, vaddr: int, pte_word_index: int, pte: int, access: int) -> Served:
        """Bring the page in and map it."""
        ...

    def try_to_free_swap(self, pfn: int) -> bool:
        """Take the page out of the swap cache if no page table holds its entry; was it done?"""
        ...

    def release_swap_cache(self, pfns: PfnArray) -> None:
        """These pages of the swap cache were unmapped (their references are still held): free slots nobody needs."""
        ...

    def swap_count(self, pte: int) -> int:
        """How many page tables hold this entry (PSS of smaps)."""
        ...


def _view(array: Any) -> memoryview:
    """A memoryview of a NumPy array's memory: one element as a plain int, three times faster than NumPy gives it."""
    return memoryview(array)


class MemMap:
    """``mem_map[]`` with its allocator.  ``reserved`` are frames that belong to others (the CPU's own, the ROM's)."""

    def __init__(self, physmem: PhysMem, hw: Hardware, reserved: Iterable[int] = ()) -> None:
        nr_frames = physmem.nr_frames
        self.physmem = physmem
        self.hw = hw
        self.nr_frames = nr_frames
        self.refcount_np = np.zeros(nr_frames, np.int32)
        self.mapcount_np = np.zeros(nr_frames, np.int32)
        self.flags_np = np.zeros(nr_frames, np.uint32)
        self.index_np = np.zeros(nr_frames, np.int64)
        self.private_np = np.zeros(nr_frames, np.int64)
        self.refcount = _view(self.refcount_np)
        self.mapcount = _view(self.mapcount_np)
        self.flags = _view(self.flags_np)
        self.index = _view(self.index_np)
        self.private = _view(self.private_np)
        self.mapping: list[Any] = [None] * nr_frames
        """AddressSpace of a file page, rmap object of an anonymous one, mm of a page-table page, else None."""

        # The allocator: hot frames, then the main free list, then frames that nobody had yet.
        self._pcp: list[int] = []
        self._free: list[int] = []
        self._next_fresh = 1  # frame 0 is kept back: a zero PFN in a PTE is then always a mistake
        self._nr_reserved_ahead = 0
        self.lru_batch: list[int] = []
        """New pages on their way to the LRU lists (``folio_batch``)."""
        self.lru_drain: Callable[[], None] = self.lru_batch.clear
        """Moves ``lru_batch`` to the LRU lists; set by the reclaim code.  Without one the batch is forgotten."""
        self.mark_page_accessed: Callable[[int], None] = self._mark_referenced
        """``read`` or ``write`` used a page of the page cache; the reclaim code gives a better one."""
        self.reclaim_hook: Callable[[int], int] | None = None
        """``reclaim_hook(nr_pages)`` tries to free that many frames and returns how many it freed."""
        self._in_reclaim = False
        self.swap: SwapOps | None = None
        """The swap code; None while there is no swap area, and then no PTE can be a swap entry."""
        self.mappings: dict[AddressSpace, None] = {}
        """Every mapping that holds a page, in the order in which they got their first one."""

        self._reserve(0)
        for pfn in reserved:
            self._reserve(pfn)
            self._nr_reserved_ahead += 1
        self.nr_usable = nr_frames - 1 - self._nr_reserved_ahead
        """``totalram_pages``."""
        self._pcp_high = min(_PCP_HIGH, max(8, self.nr_usable >> 6))
        # calculate_min_free_kbytes: sqrt(lowmem_kbytes * 16); low = min * 5/4, high = min * 3/2
        min_free = int((self.nr_usable * 4 * 16) ** 0.5) // 4
        self.set_watermarks(min(min_free, self.nr_usable // 32))
        self.zero_pfn = self.alloc_page()
        """The one page of zeros that read faults map (``empty_zero_page``)."""
        self.flags[self.zero_pfn] = PG_reserved | PG_uptodate

    def _reserve(self, pfn: int) -> None:
        self.flags[pfn] = PG_reserved
        self.refcount[pfn] = 1

    def set_watermarks(self, min_free_pages: int) -> None:
        """``min_free_kbytes``: below ``watermark_low`` allocation calls for reclaim up to ``watermark_high``."""
        self.watermark_min = min_free_pages
        self.watermark_low = min_free_pages + (min_free_pages >> 2)
        self.watermark_high = min_free_pages + (min_free_pages >> 1)

    @property
    def nr_free(self) -> int:
        """Frames that can be had without reclaim."""
        return len(self._pcp) + len(self._free) + self.nr_frames - self._next_fresh - self._nr_reserved_ahead

    # ---- allocation ---------------------------------------------------------------------------------------------

    def alloc_page(self) -> int:
        """A frame with refcount 1, no flags, unknown content.

        Raises KernelError(ENOMEM).  May run reclaim: who looked at a PTE or the page cache before must look again.
        """
        try:
            pfn = self._pcp.pop()
        except IndexError:
            self._refill()
            pfn = self._pcp.pop()
        flags = self.flags
        if flags[pfn] & PG_exec:
            self.hw.invalidate_code(pfn)
        flags[pfn] = 0
        self.refcount[pfn] = 1
        return pfn

    def alloc_zeroed_page(self) -> int:
        """As :meth:`alloc_page`, all bytes zero.  Frames never used before are zero already."""
        try:
            pfn = self._pcp.pop()
        except IndexError:
            self._refill()
            pfn = self._pcp.pop()
        flags = self.flags
        old = flags[pfn]
        if old:
            if old & PG_exec:
                self.hw.invalidate_code(pfn)
            if old & PG_stale:
                address = pfn << PAGE_SHIFT
                self.physmem.mem[address : address + PAGE_SIZE] = _ZERO_PAGE_BYTES
            flags[pfn] = 0
        self.refcount[pfn] = 1
        return pfn

    def alloc_pages(self, nr_pages: int) -> list[int]:
        """``nr_pages`` frames as :meth:`alloc_page` gives them, or none at all (ENOMEM)."""
        pfns: list[int] = []
        try:
            for _ in range(nr_pages):
                pfns.append(self.alloc_page())
        except KernelError:
            for pfn in reversed(pfns):
                self.put_page(pfn)
            raise
        return pfns

    def inject_failures(self, should_fail: Callable[[], bool]) -> None:
        """Ask ``should_fail`` before every allocation (``--fail alloc:N``; CONFIG_FAIL_PAGE_ALLOC)."""

        def failing(allocate: Callable[[], int]) -> Callable[[], int]:
            def allocate_or_fail() -> int:
                if should_fail():
                    raise KernelError(Errno.ENOMEM, "allocation made to fail")
                return allocate()

            return allocate_or_fail

        for name in ("alloc_page", "alloc_zeroed_page"):
            setattr(self, name, failing(getattr(self, name)))

    def _refill(self) -> None:
        """``rmqueue_bulk``: the hot list is empty; here, and only here, the watermarks are looked at."""
        if len(self.lru_batch) >= _PCP_BATCH:
            self.lru_drain()
        free = self._free
        pcp = self._pcp
        if self.nr_free <= self.watermark_low:
            self._reclaim(self.watermark_high - self.nr_free)
        if not free:
            self._take_fresh()
        if not free:
            self._reclaim(_PCP_BATCH)
        if not free:
            raise KernelError(Errno.ENOMEM, "no free page frame")
        # Not past the watermark in one go: nobody looks again before this batch is used up.
        nr_batch = max(1, min(_PCP_BATCH, self.nr_free - self.watermark_low))
        pcp.extend(free[-nr_batch:])
        del free[-nr_batch:]

    def _take_fresh(self) -> None:
        """Put the next frames that nobody had yet on the free list, lowest on top."""
        flags = self.flags
        start = self._next_fresh
        stop = min(start + _PCP_BATCH, self.nr_frames)
        fresh = [pfn for pfn in range(stop - 1, start - 1, -1) if not flags[pfn] & PG_reserved]
        self._next_fresh = stop
        self._nr_reserved_ahead -= (stop - start) - len(fresh)
        self._free.extend(fresh)
        if not fresh and stop < self.nr_frames:
            self._take_fresh()

    def _reclaim(self, nr_pages: int) -> None:
        """Direct reclaim.  What reclaim itself allocates comes from below the watermarks (PF_MEMALLOC)."""
        if self.reclaim_hook is None or self._in_reclaim:
            return
        self._in_reclaim = True
        try:
            self.reclaim_hook(nr_pages)
        finally:
            self._in_reclaim = False
            # What was freed is to be handed out in batches that stop at the watermark.
            self._free.extend(self._pcp)
            self._pcp.clear()

    # ---- references ---------------------------------------------------------------------------------------------

    def get_page(self, pfn: int) -> None:
        self.refcount[pfn] += 1

    def put_page(self, pfn: int) -> None:
        """Drop one reference; the last one frees the frame."""
        refcount = self.refcount
        left = refcount[pfn] - 1
        refcount[pfn] = left
        if left <= 0:
            self._free_page(pfn)

    def _free_page(self, pfn: int) -> None:
        flags = self.flags
        if self.refcount[pfn] < 0 or self.mapcount[pfn] or flags[pfn] & PG_reserved:
            raise AssertionError(
                f"Bad page state: pfn {pfn:#x} refcount {self.refcount[pfn]} mapcount {self.mapcount[pfn]} "
                f"flags {flags[pfn]:#x}"
            )
        flags[pfn] = flags[pfn] & PG_exec | PG_stale
        self.mapping[pfn] = None
        self.private[pfn] = 0
        pcp = self._pcp
        pcp.append(pfn)
        if len(pcp) > self._pcp_high:
            nr_spilled = len(pcp) // 2
            self._free.extend(pcp[:nr_spilled])
            del pcp[:nr_spilled]

    def put_pages(self, pfns: PfnArray) -> None:
        """Drop one reference on each of ``pfns`` (a frame may stand there several times)."""
        refcount = self.refcount_np
        np.subtract.at(refcount, pfns, 1)
        dead = pfns[refcount[pfns] <= 0]
        if dead.size:
            self._free_pages(np.unique(dead))

    def put_distinct_pages(self, pfns: PfnArray) -> None:
        """As :meth:`put_pages` where no frame stands twice: what one area's page table holds."""
        refcount = self.refcount_np
        left = refcount[pfns] - 1
        refcount[pfns] = left
        dead = pfns[left <= 0]
        if dead.size:
            self._free_pages(dead)

    def _free_pages(self, pfns: PfnArray) -> None:
        flags = self.flags_np
        old = flags[pfns]
        if self.mapcount_np[pfns].any() or self.refcount_np[pfns].any() or (old & PG_reserved).any():
            raise AssertionError(f"Bad page state in {pfns.tolist()}")
        flags[pfns] = old & PG_exec | PG_stale
        self.private_np[pfns] = 0
        mapping = self.mapping
        # The first of the range is freed last, so that it is the first to be used again.
        frames: list[int] = pfns[::-1].tolist()
        for pfn in frames:
            mapping[pfn] = None
        self._free.extend(frames)

    def free_frames(self) -> PfnArray:
        """All free frames, each as often as it is listed (for rmap/check_memory.py)."""
        fresh = np.arange(self._next_fresh, self.nr_frames)
        fresh = fresh[(self.flags_np[fresh] & PG_reserved) == 0]
        return np.concatenate((np.array(self._pcp + self._free, np.int64), fresh))

    # ---- the rest -----------------------------------------------------------------------------------------------

    def _mark_referenced(self, pfn: int) -> None:
        self.flags[pfn] |= PG_referenced

    def lru_add(self, pfn: int) -> None:
        """``folio_add_lru``: the page will be on an LRU list when the batch is drained."""
        self.lru_batch.append(pfn)
