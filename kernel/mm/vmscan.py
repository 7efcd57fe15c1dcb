"""Page reclaim: which pages go, and when.

Models ``mm/vmscan.c`` of 2.6.7 (2.6.9 for details that the former shares): ``try_to_free_pages``, ``balance_pgdat``,
``shrink_zone``, ``refill_inactive_zone``, ``shrink_cache``, ``shrink_list``, with the order and the quantities of
RMAP.md section 10.  Every profile reclaims in this way; what differs is how pages are found through the reverse map
(unmap.py).

Who calls: the allocator when free frames fall below the low watermark (``pages.reclaim_hook``).  Down to the min
watermark that only wakes kswapd, whose work the run loop does at the next safe place (:meth:`Reclaim.kswapd_tick`);
below it, the allocation reclaims itself ("direct reclaim"), and when that frees nothing the OOM killer chooses.

Pages in use elsewhere in the kernel have a reference more than their cache and their mappings account for, and are
left alone; so reclaim may run in the middle of any operation that allocates.

Deliberate differences: one zone; writes are done when a batch of 32 pages has been looked at, and the pages are freed
at once; no laptop mode, no congestion waits, no swap token; shmem pages are never activated by their write.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kernel.mm.filemap import AddressSpace
from kernel.mm.lru import Lru
from kernel.mm.oom import OomKiller
from kernel.mm.page import (
    PG_active,
    PG_anon,
    PG_dirty,
    PG_referenced,
    PG_swapbacked,
    PG_swapcache,
)
from kernel.mm.pageout import Pageout
from kernel.mm.swapfile import SwapSystem
from kernel.mm.unmap import SWAP_AGAIN, SWAP_FAIL, Rmap
from kernel.mm.vmstat import VmEvents
from kernel.trace import Tracepoint

if TYPE_CHECKING:
    from kernel.kernel import Kernel

RECLAIM_BEGIN = Tracepoint("vmscan:reclaim_begin", "who nr_wanted nr_free")
RECLAIM_END = Tracepoint("vmscan:reclaim_end", "who nr_reclaimed nr_scanned priority nr_free")

SWAP_CLUSTER_MAX = 32
DEF_PRIORITY = 12
_DIRECT, _KSWAPD = "direct", "kswapd"
_MAX_FRUITLESS_PASSES = 4
_NOT_ACTIVE = ~PG_active & 0xFFFF_FFFF
_ANON_OR_SWAPCACHE = PG_anon | PG_swapcache


class ScanControl:
    """``struct scan_control``: one pass.  ``nr_active`` and ``nr_inactive`` follow the lengths of the lists."""

    __slots__ = (
        "nr_active",
        "nr_inactive",
        "nr_mapped",
        "nr_reclaimed",
        "nr_scanned",
        "nr_to_reclaim",
        "priority",
        "reclaim_mapped",
        "who",
    )

    def __init__(self, who: str, nr_mapped: int, nr_active: int, nr_inactive: int) -> None:
        self.who = who
        self.nr_mapped = nr_mapped
        self.nr_active = nr_active
        self.nr_inactive = nr_inactive
        self.priority = DEF_PRIORITY
        self.reclaim_mapped = False
        self.nr_to_reclaim = SWAP_CLUSTER_MAX
        self.nr_scanned = 0
        self.nr_reclaimed = 0


class Reclaim:
    """The scanner with its state between passes (``struct zone``'s)."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self._pages = kernel.pages
        self._lru: Lru = kernel.lru
        self._vmstat: VmEvents = kernel.vmstat
        self.rmap = Rmap(kernel)
        self.pageout = Pageout(kernel)
        self.kswapd_wanted = False
        """Free memory is low: the run loop is to call :meth:`kswapd_tick`."""
        self.kswapd_failed = False
        """kswapd found nothing; it sleeps until somebody else does (``kswapd_failures``)."""
        self.nr_scan_active = self.nr_scan_inactive = 0
        """Pages to be scanned that did not yet make up a batch."""
        self.prev_priority = DEF_PRIORITY
        """How hard the last pass had to work."""
        self.nr_direct_passes = self.nr_kswapd_passes = 0
        self._running = False
        self.oom_disabled = 0
        """While not 0, an allocation that finds nothing fails instead of killing (swapoff)."""

    # ---- who calls ----------------------------------------------------------------------------------------------

    def reclaim_hook(self, nr_pages: int) -> int:
        """The allocator is below the low watermark and wants ``nr_pages`` frames; how many were freed."""
        pages = self._pages
        if self._running:
            return 0
        if pages.nr_free > pages.watermark_min:
            self.kswapd_wanted = not self.kswapd_failed
            return 0
        self._vmstat.allocstall_normal += 1
        freed = self._reclaim(_DIRECT, nr_pages)
        if freed:
            self.kswapd_failed = False
        elif not self.oom_disabled:
            before = pages.nr_free
            self.kernel.oom.out_of_memory()
            freed = max(0, pages.nr_free - before)
        return freed

    def kswapd_tick(self) -> None:
        """``balance_pgdat``: reclaim up to the high watermark.

        To be called between two operations of the kernel, when :attr:`kswapd_wanted` is set.
        """
        self.kswapd_wanted = False
        nr_wanted = self._pages.watermark_high - self._pages.nr_free
        if nr_wanted > 0:
            self._vmstat.pageoutrun += 1
            self.kswapd_failed = not self._reclaim(_KSWAPD, nr_wanted)

    def try_to_free_pages(self, nr_pages: int) -> int:
        """Reclaim ``nr_pages`` frames whatever the watermarks say; how many were freed."""
        return self._reclaim(_DIRECT, nr_pages)

    def _reclaim(self, who: str, nr_pages: int) -> int:
        """Passes until ``nr_pages`` were freed, or until some passes in a row freed nothing.

        The first pass may find every page used, the second clears the marks of use of mapped pages, the third frees.
        """
        if self._running:
            return 0  # what reclaim itself allocates comes from the reserve
        self._running = True
        freed = nr_fruitless = 0
        try:
            while freed < nr_pages and nr_fruitless < _MAX_FRUITLESS_PASSES:
                got = self._run(who, nr_pages - freed)
                nr_fruitless = 0 if got else nr_fruitless + 1
                freed += got
        finally:
            self._running = False
        return freed

    def _run(self, who: str, nr_wanted: int) -> int:
        """All priorities from the mildest on, until a batch (or ``nr_wanted``) was freed."""
        pages, lru = self._pages, self._lru
        if RECLAIM_BEGIN.on:
            RECLAIM_BEGIN.emit(who, nr_wanted, pages.nr_free)
        if who is _DIRECT:
            self.nr_direct_passes += 1
        else:
            self.nr_kswapd_passes += 1
        lru.drain()
        control = ScanControl(who, int(np.count_nonzero(pages.mapcount_np)), lru.nr_active, lru.nr_inactive)
        nr_wanted = max(nr_wanted, SWAP_CLUSTER_MAX)
        for priority in range(DEF_PRIORITY, -1, -1):
            control.priority = priority
            self._shrink_zone(control)
            if control.nr_reclaimed >= nr_wanted:
                break
        self.prev_priority = priority
        self.rmap.flush()
        if RECLAIM_END.on:
            RECLAIM_END.emit(who, control.nr_reclaimed, control.nr_scanned, priority, pages.nr_free)
        return control.nr_reclaimed

    # ---- the lists ----------------------------------------------------------------------------------------------

    def _shrink_zone(self, control: ScanControl) -> None:
        """One priority: scan both lists by a part of their length, in batches of 32."""
        priority = control.priority
        self.nr_scan_active += (control.nr_active >> priority) + 1
        nr_active = self.nr_scan_active
        if nr_active >= SWAP_CLUSTER_MAX:
            self.nr_scan_active = 0
        else:
            nr_active = 0
        self.nr_scan_inactive += (control.nr_inactive >> priority) + 1
        nr_inactive = self.nr_scan_inactive
        if nr_inactive >= SWAP_CLUSTER_MAX:
            self.nr_scan_inactive = 0
        else:
            nr_inactive = 0

        distress = 100 >> self.prev_priority
        mapped_ratio = control.nr_mapped * 100 // self._pages.nr_usable
        control.reclaim_mapped = mapped_ratio // 2 + distress + self.kernel.sysctl.swappiness >= 100
        control.nr_to_reclaim = SWAP_CLUSTER_MAX
        while nr_active or nr_inactive:
            if nr_active:
                nr_to_scan = min(nr_active, SWAP_CLUSTER_MAX)
                nr_active -= nr_to_scan
                self._refill_inactive(nr_to_scan, control)
            if nr_inactive:
                nr_to_scan = min(nr_inactive, SWAP_CLUSTER_MAX)
                nr_inactive -= nr_to_scan
                self._shrink_cache(nr_to_scan, control)
                if control.nr_to_reclaim <= 0:
                    break

    def _refill_inactive(self, nr_to_scan: int, control: ScanControl) -> None:
        """``refill_inactive_zone``: pages of the active tail that are not in use go to the inactive head."""
        lru, pages = self._lru, self._pages
        taken = lru.isolate(lru.active, nr_to_scan)
        no_swap = self.kernel.swap.total_swap_pages == 0
        reclaim_mapped = control.reclaim_mapped
        page_referenced, putback = self.rmap.page_referenced, lru.putback
        flags, mapcount = pages.flags, pages.mapcount
        nr_moved = 0
        for pfn in taken:
            if not mapcount[pfn] or (
                reclaim_mapped and not (no_swap and flags[pfn] & PG_anon) and not page_referenced(pfn)
            ):
                flags[pfn] &= _NOT_ACTIVE
                nr_moved += 1
            putback(pfn)
        control.nr_active -= nr_moved
        control.nr_inactive += nr_moved
        self._vmstat.pgrefill += len(taken)
        self._vmstat.pgdeactivate += nr_moved

    def _shrink_cache(self, nr_to_scan: int, control: ScanControl) -> None:
        """Scan the inactive tail; what cannot be freed goes back to a head."""
        lru, vmstat = self._lru, self._vmstat
        taken = lru.isolate(lru.inactive, nr_to_scan)
        if not taken:
            return
        activated = vmstat.pgactivate
        nr_freed = self.shrink_list(taken)
        activated = vmstat.pgactivate - activated
        if control.who is _DIRECT:
            vmstat.pgscan_direct += len(taken)
            vmstat.pgsteal_direct += nr_freed
        else:
            vmstat.pgscan_kswapd += len(taken)
            vmstat.pgsteal_kswapd += nr_freed
        control.nr_active += activated
        control.nr_inactive -= activated + nr_freed
        control.nr_scanned += len(taken)
        control.nr_to_reclaim -= nr_freed
        control.nr_reclaimed += nr_freed

    # ---- the pages ----------------------------------------------------------------------------------------------

    def shrink_list(self, page_list: list[int]) -> int:
        """Free what can be freed of isolated pages, put the others back in order; how many were freed."""
        pages, rmap, add_to_swap = self._pages, self.rmap, self.kernel.swap.cache.add_to_swap
        flags, mapcount, refcount = pages.flags, pages.mapcount, pages.refcount
        gone: set[int] = set()
        candidates: list[int] = []
        nr_anon = 0
        for pfn in page_list:
            old = flags[pfn]
            mapped = mapcount[pfn]
            is_anon = old & _ANON_OR_SWAPCACHE
            if is_anon:
                nr_anon += 1
            referenced = 0
            if mapped or old & PG_referenced:
                referenced = rmap.page_referenced(pfn)
                if referenced and self._mapping_inuse(pfn):
                    self._activate(pfn)
                    continue
            if is_anon and not old & PG_swapcache:
                if not old & PG_swapbacked:
                    if self._discard_lazyfree(pfn):
                        gone.add(pfn)
                    continue
                if refcount[pfn] != mapped or not add_to_swap(pfn):
                    self._activate(pfn)
                    continue
            if mapped:
                result = rmap.try_to_unmap(pfn)
                if result == SWAP_FAIL:
                    self._activate(pfn)
                    continue
                if result == SWAP_AGAIN:
                    continue
            if not (referenced and flags[pfn] & PG_dirty):
                candidates.append(pfn)
        self.pageout.write(candidates)
        nr_anon_freed = len(gone)
        for pfn in candidates:
            if refcount[pfn] == 1 and not mapcount[pfn] and not flags[pfn] & PG_dirty:
                nr_anon_freed += flags[pfn] & PG_swapcache != 0
                if self._free_clean(pfn):
                    gone.add(pfn)
        rmap.flush()
        putback = self._lru.putback
        for pfn in page_list:
            if pfn not in gone:
                putback(pfn)
        vmstat = self._vmstat
        vmstat.pgscan_anon += nr_anon
        vmstat.pgscan_file += len(page_list) - nr_anon
        vmstat.pgsteal_anon += nr_anon_freed
        vmstat.pgsteal_file += len(gone) - nr_anon_freed
        return len(gone)

    def _free_clean(self, pfn: int) -> bool:
        """Take a page that only its cache holds out of it, and so free it."""
        pages = self._pages
        if pages.flags[pfn] & PG_swapcache:
            self.kernel.swap.cache.delete(pfn)
            return True
        mapping = pages.mapping[pfn]
        if not isinstance(mapping, AddressSpace):
            return False  # truncated; whoever holds it will free it
        pgoff = pages.index[pfn]
        if not mapping.is_shmem:
            self._lru.note_eviction(mapping, pgoff)
        mapping.delete_page(pgoff)
        return True

    def _discard_lazyfree(self, pfn: int) -> bool:
        """A page given up by MADV_FREE: unmapped and free, unless it was written again."""
        pages = self._pages
        if pages.refcount[pfn] != pages.mapcount[pfn]:
            self._activate(pfn)
            return False
        pages.get_page(pfn)
        result = self.rmap.try_to_unmap(pfn)
        if result == SWAP_FAIL:
            self._activate(pfn)
        pages.put_page(pfn)
        if pages.refcount[pfn]:
            return False
        self._vmstat.pglazyfreed += 1
        return True

    def _activate(self, pfn: int) -> None:
        self._pages.flags[pfn] |= PG_active
        self._vmstat.pgactivate += 1

    def _mapping_inuse(self, pfn: int) -> bool:
        """``page_mapping_inuse``: mapped, in the swap cache, or of a file that somebody maps."""
        pages = self._pages
        if pages.mapcount[pfn] or pages.flags[pfn] & PG_swapcache:
            return True
        mapping = pages.mapping[pfn]
        return isinstance(mapping, AddressSpace) and len(mapping.i_mmap) > 0

    # ---- reports ------------------------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """For --stats.  Pages, unless the name says otherwise."""
        kernel, vmstat, swap = self.kernel, self._vmstat, self.kernel.swap
        counters = kernel.policy.counters
        return {
            "swap": {
                "total_pages": swap.total_swap_pages,
                "used_pages": swap.used_pages,
                "peak_used_pages": swap.peak_used_pages,
                "cached_pages": swap.cache.nr_pages,
                "pages_out": vmstat.pswpout,
                "pages_in": vmstat.pswpin,
                "write_requests": swap.io.nr_write_requests,
                "read_requests": swap.io.nr_read_requests,
                "write_errors": swap.io.nr_write_errors,
                "read_errors": swap.io.nr_read_errors,
                "read_ahead": vmstat.swap_ra,
                "read_ahead_hits": vmstat.swap_ra_hit,
            },
            "reclaim": {
                "direct_passes": self.nr_direct_passes,
                "kswapd_passes": self.nr_kswapd_passes,
                "scanned": vmstat.pgscan_direct + vmstat.pgscan_kswapd,
                "stolen": vmstat.pgsteal_direct + vmstat.pgsteal_kswapd,
                "refilled": vmstat.pgrefill,
                "activated": vmstat.pgactivate,
                "file_pages_written": self.pageout.nr_file_pages,
                "shmem_pages_out": self.pageout.nr_shmem_pages,
                "lazyfreed": vmstat.pglazyfreed,
                "refaults_anon": vmstat.workingset_refault_anon,
                "refaults_file": vmstat.workingset_refault_file,
                "oom_kills": kernel.oom.nr_kills,
            },
            "rmap": {
                "visited": counters.nr_visited,
                "out_of_range": counters.nr_visited - counters.nr_proposed,
                "referenced": self.rmap.referenced.as_dict(),
                "unmap": self.rmap.unmapped.as_dict(),
            },
        }


def setup_reclaim(kernel: Kernel) -> None:
    """Give ``kernel`` its LRU lists, swap, scanner and OOM killer, and the allocator its way to them."""
    kernel.vmstat = VmEvents()
    kernel.lru = Lru(kernel)
    kernel.swap = SwapSystem(kernel)
    kernel.oom = OomKiller(kernel)
    kernel.reclaim = Reclaim(kernel)
    kernel.pages.swap = kernel.swap
    kernel.pages.lru_drain = kernel.lru.drain
    kernel.pages.mark_page_accessed = kernel.lru.mark_page_accessed
    kernel.pages.reclaim_hook = kernel.reclaim.reclaim_hook
