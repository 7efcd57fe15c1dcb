"""The swap cache: pages that have both a frame and a slot.

Models ``mm/swap_state.c`` of 2.6.7 (``add_to_swap``, ``delete_from_swap_cache``, ``read_swap_cache_async``) with
``can_share_swap_page`` of ``mm/swapfile.c``, and today's ``swap_cluster_readahead``: the window grows and shrinks with
its use (2.6.7 read 2**page_cluster pages whatever happened to them).

A page in the swap cache has PG_swapcache, its entry in ``private``, one reference for the cache; its slot has one
reference for the cache.  PG_dirty: the slot's content on the device is not the page's.  A page that leaves the cache
while somebody maps it becomes dirty: no copy of it exists any more.

Deliberate differences: a page that could not be read is not put into the cache, the next fault reads again; read-ahead
frames are allocated together, so they come before the page that is wanted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kernel.abi.errno import Errno, KernelError
from kernel.mm.page import PG_dirty, PG_swapbacked, PG_swapcache, PG_uptodate
from kernel.mm.swap import SWAP_OFFSET_MASK

if TYPE_CHECKING:
    from kernel.kernel import Kernel
    from kernel.mm.page import PfnArray
    from kernel.mm.swap import SwapArea
    from kernel.mm.swapfile import SwapSystem

_NOT_SWAPCACHE = ~PG_swapcache & 0xFFFF_FFFF
_NEW_CACHE_PAGE = PG_swapcache | PG_swapbacked | PG_uptodate


class SwapReadError(KernelError):
    """The device could not read the page that is wanted."""

    def __init__(self) -> None:
        super().__init__(Errno.EIO, "swap cannot be read")


class SwapCache:
    """``swapper_space``."""

    def __init__(self, kernel: Kernel, swap: SwapSystem) -> None:
        self._kernel = kernel
        self._pages = kernel.pages
        self._swap = swap
        self._ahead: set[int] = set()
        """Frames that were read ahead and that nobody has asked for yet."""
        self._hits = 4
        """Pages of ``_ahead`` that were asked for since the last read."""
        self._last_offset = 0
        self._last_window = 0

    # ---- looking --------------------------------------------------------------------------------------------------

    def lookup(self, entry: int) -> int:
        """The page that holds ``entry``, or 0."""
        pfn: int = self._swap.area_of(entry).cache[entry & SWAP_OFFSET_MASK]
        if pfn and self._ahead and pfn in self._ahead:
            self._ahead.discard(pfn)
            self._hits += 1
            self._kernel.vmstat.swap_ra_hit += 1
        return pfn

    @property
    def nr_pages(self) -> int:
        return int(np.count_nonzero(self._pages.flags_np & PG_swapcache))

    def nr_swap_users(self, pfn: int) -> int:
        """How many PTEs and mappings still hold the entry of a page in the cache."""
        entry = self._pages.private[pfn]
        return int(self._swap.area_of(entry).counts[entry & SWAP_OFFSET_MASK]) - 1

    # ---- in and out -------------------------------------------------------------------------------------------------

    def add_to_swap(self, pfn: int) -> int:
        """Give a page a slot and put it, dirty, into the cache; its entry, or 0 if swap is full."""
        entry = self._swap.get_swap_page()
        if entry:
            self._insert(self._swap.area_of(entry), entry, pfn)
            self._pages.flags[pfn] |= PG_swapcache | PG_dirty
        return entry

    def _insert(self, area: SwapArea, entry: int, pfn: int) -> None:
        """The slot's reference for the cache has been counted already."""
        area.cache[entry & SWAP_OFFSET_MASK] = pfn
        pages = self._pages
        pages.private[pfn] = entry
        pages.refcount[pfn] += 1

    def delete(self, pfn: int) -> None:
        """``delete_from_swap_cache``: the page gives up its slot; without other users it is freed."""
        pages = self._pages
        entry = pages.private[pfn]
        self._swap.area_of(entry).cache[entry & SWAP_OFFSET_MASK] = 0
        pages.flags[pfn] = pages.flags[pfn] & _NOT_SWAPCACHE | PG_dirty
        pages.private[pfn] = 0
        self._ahead.discard(pfn)
        self._swap.free(entry)
        pages.put_page(pfn)

    def try_to_free_swap(self, pfn: int) -> bool:
        """Take the page out of the cache if no PTE or mapping holds its entry (``folio_free_swap``)."""
        if not self._pages.flags[pfn] & PG_swapcache or self.nr_swap_users(pfn):
            return False
        self.delete(pfn)
        return True

    def release(self, pfns: PfnArray) -> None:
        """``free_swap_cache``: these pages were unmapped; who has no user left gives up its slot.

        To be called while the caller still holds a reference on each.
        """
        pages = self._pages
        unused = pfns[((pages.flags_np[pfns] & PG_swapcache) != 0) & (pages.mapcount_np[pfns] == 0)]
        for pfn in np.unique(unused).tolist():
            self.try_to_free_swap(pfn)

    def can_share(self, pfn: int) -> bool:
        """``can_share_swap_page``: a page in the cache that nobody maps and whose entry nobody else holds.

        For a page about to be mapped by the caller, who has dropped its own reference on the slot.
        """
        pages = self._pages
        if pages.mapcount[pfn]:
            return False
        if pages.flags[pfn] & PG_swapcache:
            return pages.refcount[pfn] == 1 and not self.nr_swap_users(pfn)
        return pages.refcount[pfn] == 1

    # ---- reading ----------------------------------------------------------------------------------------------------

    def swapin_readahead(self, entry: int) -> int:
        """Read the page of ``entry``, and its neighbours on the device, into the cache; returns its frame.

        May run reclaim.  0: another look at the PTE is needed, its slot was freed meanwhile.  Raises
        KernelError(ENOMEM) and :class:`SwapReadError`.
        """
        area = self._swap.area_of(entry)
        wanted = entry & SWAP_OFFSET_MASK
        offsets = self._readahead_slots(area, wanted)
        pages = self._pages
        frames: list[int] = []
        try:
            for _ in range(len(offsets) + 1):
                frames.append(pages.alloc_page())
        except KernelError:
            if not frames:
                raise
        jobs = []
        counts, cache = area.counts, area.cache
        if not counts[wanted] or cache[wanted]:
            offsets = []  # reclaim or the OOM killer was faster; who asked must look again
        else:
            jobs.append((wanted, frames.pop()))
        for offset in offsets:
            if frames and counts[offset] and not cache[offset]:
                jobs.append((offset, frames.pop()))
        for pfn in frames:
            pages.put_page(pfn)
        if not jobs:
            return 0
        target = jobs[0][1]
        jobs.sort()
        failed = self._swap.io.read(area, jobs)
        flags, batch, refcount = pages.flags, pages.lru_batch, pages.refcount
        nr_read = 0
        for offset, pfn in jobs:
            if pfn in failed:
                pages.put_page(pfn)
                continue
            counts[offset] += 1
            flags[pfn] = _NEW_CACHE_PAGE
            pages.private[pfn] = area.entry_base | offset
            cache[offset] = pfn
            assert refcount[pfn] == 1  # the allocation's reference is the cache's now
            batch.append(pfn)
            nr_read += 1
            if pfn != target:
                self._ahead.add(pfn)
        vmstat = self._kernel.vmstat
        vmstat.workingset_refault_anon += nr_read
        if target in failed:
            raise SwapReadError
        vmstat.swap_ra += nr_read - 1
        return target

    def _readahead_slots(self, area: SwapArea, wanted: int) -> list[int]:
        """The slots to read with ``wanted``: those in use and not cached in its aligned window."""
        mask = self._swapin_nr_pages(wanted) - 1
        if not mask:
            return []
        counts, cache = area.counts, area.cache
        first = wanted & ~mask or 1
        last = min(wanted | mask, area.max - 1)
        return [i for i in range(first, last + 1) if counts[i] and not cache[i] and i != wanted]

    def _swapin_nr_pages(self, offset: int) -> int:
        """The window, a power of two: wide while what is read ahead is asked for, 1 for random access."""
        max_pages = 1 << self._kernel.sysctl.page_cluster
        if max_pages <= 1:
            return 1
        hits, self._hits = self._hits, 0
        window = 1
        if hits:
            window = 4
            while window < hits + 2:
                window <<= 1
        elif abs(offset - self._last_offset) == 1:
            window = 2
        if not hits:
            self._last_offset = offset
        # Not to be shrunk too fast.
        self._last_window = window = max(min(window, max_pages), self._last_window // 2)
        return window
