"""Through the reverse map: was this page used, and take it out of every page table.

Models ``page_referenced`` and ``try_to_unmap`` of ``mm/rmap.c`` in 2.6.7 (RMAP.md section 10), with today's rule for
pages given up by MADV_FREE.

The policy *proposes* places (``policy.walk``), this code *checks* the PTE of each: it is a hit if the PTE maps the
page, else stale.  When the walk is over and the page is still mapped somewhere, the mapping was missed: counted,
``rmap:miss`` is raised, and the page stays: a mapped frame is never freed, whatever a policy says.  File pages are
found through ``i_mmap``, but under pte_chains, where they have chains too.

Deliberate differences: a locked area counts as use in any case, so locked pages get no swap slot (2.6.7: only of
shared files); no trylocks, so nothing is "busy"; of the reference that isolation takes in Linux there is none here,
so a page that only its cache and its mappings hold has ``refcount == mapcount + 1``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from kernel.mm.page import PG_anon, PG_dirty, PG_exclusive, PG_referenced, PG_swapbacked, PG_swapcache
from kernel.mm.pagetable import PTE_PRESENT, PTE_SPECIAL
from kernel.mm.swap import PTE_ENTRY_SHIFT
from kernel.mm.types import PAGE_SHIFT, VM_LOCKED, VM_RESERVED, MmStruct, Vma
from kernel.trace import Tracepoint
from mmu.paging import PTE_A, PTE_D, PTE_PFN_MASK

if TYPE_CHECKING:
    from kernel.kernel import Kernel

RMAP_MISS = Tracepoint("rmap:miss", "pfn why mapcount found nr_proposed")
"""A walk for page ``pfn`` found ``found`` mappings and left ``mapcount`` unfound; ``why``: referenced or unmap."""
RMAP_UNMAP = Tracepoint("rmap:try_to_unmap", "pfn result nr_unmapped nr_proposed")

# What try_to_unmap answers
SWAP_SUCCESS = 0
"""No PTE maps the page any more."""
SWAP_AGAIN = 1
"""Some mapping was not found; try another time."""
SWAP_FAIL = 2
"""It must not be unmapped: locked, used again, or somebody else holds it."""

_RESULT_NAMES = ("success", "again", "fail")
_IS_MAPPED = PTE_PFN_MASK | PTE_SPECIAL
_NOT_A = ~PTE_A & 0xFFFF_FFFF_FFFF_FFFF
_NOT_REFERENCED = ~PG_referenced & 0xFFFF_FFFF
_NOT_EXCLUSIVE = ~PG_exclusive & 0xFFFF_FFFF
_KEEP = VM_LOCKED | VM_RESERVED


class WalkStats:
    """What the walks of one kind came to."""

    __slots__ = ("nr_checked", "nr_hits", "nr_missed", "nr_proposed", "nr_walks")

    def __init__(self) -> None:
        self.nr_walks = 0
        self.nr_proposed = 0
        """Places that the policy (or i_mmap) named."""
        self.nr_checked = 0
        """PTEs looked at; the rest lay in address spaces that have no pages at all."""
        self.nr_hits = 0
        self.nr_missed = 0
        """Mappings that were never found."""

    def as_dict(self) -> dict[str, int]:
        return {
            "walks": self.nr_walks,
            "proposed": self.nr_proposed,
            "skipped": self.nr_proposed - self.nr_checked,
            "checked": self.nr_checked,
            "hits": self.nr_hits,
            "stale": self.nr_checked - self.nr_hits,
            "missed": self.nr_missed,
        }


class Rmap:
    """The two walks.  ``tlb_stale`` is set when a PTE lost a right; whoever began the pass flushes."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._pages = kernel.pages
        self._policy = kernel.policy
        self._q = kernel.physmem.q
        self.referenced = WalkStats()
        self.unmapped = WalkStats()
        self.tlb_stale = False

    def flush(self) -> None:
        """Flush the TLB if a walk changed what it may hold."""
        if self.tlb_stale:
            self.tlb_stale = False
            self._kernel.hw.flush_tlb()

    # ---- was it used? -------------------------------------------------------------------------------------------

    def page_referenced(self, pfn: int) -> int:
        """How many marks of use the page had; they are cleared.  A locked area counts as use."""
        pages = self._pages
        page_flags = pages.flags
        flags = page_flags[pfn]
        referenced = 0
        if flags & PG_referenced:
            page_flags[pfn] = flags & _NOT_REFERENCED
            referenced = 1
        mapcount = left = pages.mapcount[pfn]
        if not mapcount:
            return referenced
        stats, q = self.referenced, self._q
        want = pfn << PAGE_SHIFT
        nr_proposed = nr_checked = 0
        for mm, vaddr, vma in self._policy.walk(pfn) if flags & PG_anon else self._file_places(pfn):
            nr_proposed += 1
            if not (mm.rss_anon or mm.rss_file or mm.rss_shmem):
                continue
            nr_checked += 1
            table = mm.pt.leaf.get(vaddr >> 21)
            if table is None:
                continue
            index = table + (vaddr >> PAGE_SHIFT & 511)
            pte = q[index]
            if pte & _IS_MAPPED != want or not pte & PTE_PRESENT:
                continue
            if pte & PTE_A:
                q[index] = pte & _NOT_A
                referenced += 1
                self.tlb_stale = True
            elif mm.locked_vm and _is_locked(mm, vaddr, vma):
                referenced += 1
            left -= 1
            if not left:
                break
        stats.nr_walks += 1
        stats.nr_proposed += nr_proposed
        stats.nr_checked += nr_checked
        stats.nr_hits += mapcount - left
        if left:
            self._missed(stats, "referenced", pfn, left, mapcount - left, nr_proposed)
        return referenced

    def _file_places(self, pfn: int) -> Iterable[tuple[MmStruct, int, Vma | None]]:
        """Where a page of a file may be mapped."""
        if self._policy.per_pte:
            return self._policy.walk(pfn)
        pgoff = self._pages.index[pfn]
        return [
            (vma.vm_mm, vma.vm_start + ((pgoff - vma.vm_pgoff) << PAGE_SHIFT), vma)
            for vma in self._pages.mapping[pfn].i_mmap.overlapping(pgoff, pgoff)
        ]

    # ---- unmap it -----------------------------------------------------------------------------------------------

    def try_to_unmap(self, pfn: int) -> int:
        """Take a mapped page out of all page tables: SWAP_SUCCESS, SWAP_AGAIN or SWAP_FAIL.

        An anonymous page must be in the swap cache, unless it was given up by MADV_FREE; then the caller must hold a
        reference.
        """
        kernel, pages, stats, q = self._kernel, self._pages, self.unmapped, self._q
        policy, mapcount, refcount = self._policy, pages.mapcount, pages.refcount
        stats.nr_walks += 1
        flags = pages.flags[pfn]
        is_anon = flags & PG_anon
        is_lazyfree = is_anon and not flags & (PG_swapbacked | PG_swapcache)
        swap_pte = pages.private[pfn] << PTE_ENTRY_SHIFT if flags & PG_swapcache else 0
        before = left = mapcount[pfn]
        want = pfn << PAGE_SHIFT
        result = SWAP_AGAIN
        nr_proposed = nr_checked = 0
        is_dirty = False
        for mm, vaddr, vma in policy.walk(pfn) if is_anon else self._file_places(pfn):
            nr_proposed += 1
            rss = mm.rss_anon + mm.rss_file + mm.rss_shmem
            if not rss:
                continue
            nr_checked += 1
            table = mm.pt.leaf.get(vaddr >> 21)
            if table is None:
                continue
            index = table + (vaddr >> PAGE_SHIFT & 511)
            pte = q[index]
            if pte & _IS_MAPPED != want or not pte & PTE_PRESENT:
                continue
            if vma is None:
                vma = mm.areas.find_exact(vaddr)
            if vma is None or vma.vm_flags & _KEEP:
                result = SWAP_FAIL
                break
            if pte & PTE_A:  # used again since page_referenced looked
                q[index] = pte & _NOT_A
                self.tlb_stale = True
                result = SWAP_FAIL
                break
            if is_anon and refcount[pfn] != left + 1:  # somebody in the kernel holds it
                result = SWAP_FAIL
                break
            if is_lazyfree and (pte & PTE_D or flags & PG_dirty):
                pages.flags[pfn] |= PG_swapbacked  # written again after MADV_FREE: an ordinary page
                result = SWAP_FAIL
                break
            if swap_pte:
                kernel.swap.duplicate(swap_pte >> PTE_ENTRY_SHIFT)
                mm.swap_pages += 1
            q[index] = swap_pte
            is_dirty = is_dirty or bool(pte & PTE_D)
            if rss > mm.hiwater_rss:
                mm.hiwater_rss = rss
            if is_anon:
                mm.rss_anon -= 1
            elif flags & PG_swapbacked:
                mm.rss_shmem -= 1
            else:
                mm.rss_file -= 1
            if policy.per_pte:
                policy.page_remove_rmap(pfn, vma, vaddr, index)
            refcount[pfn] -= 1
            left -= 1
            mapcount[pfn] = left
            if not left:
                result = SWAP_SUCCESS
                break
        if left != before:
            self.tlb_stale = True
            if is_anon:
                pages.flags[pfn] = pages.flags[pfn] & _NOT_EXCLUSIVE | (PG_dirty if is_dirty else 0)
            elif is_dirty:
                pages.mapping[pfn].set_page_dirty(pfn)
        stats.nr_proposed += nr_proposed
        stats.nr_checked += nr_checked
        stats.nr_hits += before - left
        if result == SWAP_AGAIN:
            self._missed(stats, "unmap", pfn, left, before - left, nr_proposed)
        if RMAP_UNMAP.on:
            RMAP_UNMAP.emit(pfn, _RESULT_NAMES[result], before - left, nr_proposed)
        return result

    @staticmethod
    def _missed(stats: WalkStats, why: str, pfn: int, nr_missed: int, nr_hits: int, nr_proposed: int) -> None:
        stats.nr_missed += nr_missed
        if RMAP_MISS.on:
            RMAP_MISS.emit(pfn, why, nr_missed, nr_hits, nr_proposed)


def _is_locked(mm: MmStruct, vaddr: int, vma: Vma | None) -> bool:
    if vma is None:
        vma = mm.areas.find_exact(vaddr)
    return vma is not None and bool(vma.vm_flags & VM_LOCKED)
