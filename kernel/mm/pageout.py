"""Writing dirty pages so that their frames can be freed.

Models ``pageout`` of ``mm/vmscan.c``, ``swap_writepage``, ``shmem_writepage`` of ``mm/shmem.c``.

Pages come here unmapped, off the LRU, held by nobody but their cache.  Pages of swap are gathered and go to the
device in order of their slots, neighbours in one request.  A page whose write failed stays dirty and in its cache.

Deliberate difference: a shmem page that was never written and holds only zeros is dropped: it is a hole again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.abi.errno import KernelError
from kernel.mm.filemap import AddressSpace
from kernel.mm.page import PG_dirty, PG_swapcache
from kernel.mm.swap import SWAP_OFFSET_MASK, SwapArea
from kernel.mm.types import PAGE_SHIFT, PAGE_SIZE

if TYPE_CHECKING:
    from kernel.kernel import Kernel

_NOT_DIRTY = ~PG_dirty & 0xFFFF_FFFF


class Pageout:
    """The way of dirty pages out of memory, and what it did."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._pages = kernel.pages
        self.nr_file_pages = 0
        """Dirty pages of files written by reclaim."""
        self.nr_file_errors = 0
        self.nr_shmem_pages = 0
        """Pages of shared memory that got a slot."""

    def write(self, candidates: list[int]) -> None:
        """Make ``candidates`` clean where that is possible: who keeps PG_dirty could not be written."""
        pages, swap = self._pages, self._kernel.swap
        flags, refcount, private = pages.flags, pages.refcount, pages.private
        jobs: dict[SwapArea, list[tuple[int, int]]] = {}
        for pfn in candidates:
            old = flags[pfn]
            if refcount[pfn] != 1:
                continue
            if old & PG_swapcache:
                if not old & PG_dirty:
                    continue
            else:
                mapping = pages.mapping[pfn]
                if not isinstance(mapping, AddressSpace):
                    continue
                if not mapping.is_shmem:
                    if old & PG_dirty:
                        self._write_file_page(mapping, pfn)
                    continue
                if not self._shmem_to_swap(mapping, pfn):
                    continue
            entry = private[pfn]
            area = swap.area_of(entry)
            jobs.setdefault(area, []).append((entry & SWAP_OFFSET_MASK, pfn))
        for area, area_jobs in jobs.items():
            area_jobs.sort()
            failed = swap.io.write(area, area_jobs)
            for _offset, pfn in area_jobs:
                if pfn not in failed:
                    flags[pfn] &= _NOT_DIRTY

    def _write_file_page(self, mapping: AddressSpace, pfn: int) -> None:
        """One dirty page of a file; nobody maps it, so nobody can write to it meanwhile."""
        pages = self._pages
        pgoff = pages.index[pfn]
        start = pfn << PAGE_SHIFT
        try:
            mapping.host.writepage(pgoff, pages.physmem.buf[start : start + PAGE_SIZE])
        except KernelError as error:
            mapping.writeback_error = error.errno
            self.nr_file_errors += 1
            return
        pages.flags[pfn] &= _NOT_DIRTY
        mapping.dirty.pop(pgoff, None)
        self.nr_file_pages += 1
        vmstat = self._kernel.vmstat
        vmstat.nr_written += 1
        vmstat.nr_vmscan_write += 1
        vmstat.pgpgout += 4

    def _shmem_to_swap(self, mapping: AddressSpace, pfn: int) -> bool:
        """Move a page from its shmem mapping to the swap cache; False if it is a hole, or if swap is full."""
        pages, swap = self._pages, self._kernel.swap
        if not pages.flags[pfn] & PG_dirty:
            if not pages.physmem.words[pfn].any():
                return False
            pages.flags[pfn] |= PG_dirty
        pgoff = pages.index[pfn]
        pages.get_page(pfn)
        entry = swap.cache.add_to_swap(pfn)
        if entry:
            swap.duplicate(entry)
            mapping.swapped[pgoff] = entry
            mapping.delete_page(pgoff)
            pages.flags[pfn] |= PG_dirty
            self.nr_shmem_pages += 1
        pages.put_page(pfn)
        return entry != 0
