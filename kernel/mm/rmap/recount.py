"""All page tables read at once: what the counters of memory management should be.

The same oracle as scan.py, with NumPy over whole tables, so that ``--check`` can afford it after every system call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kernel.mm.page import PG_anon, PG_swapbacked, PG_table
from kernel.mm.pagetable import PTE_PRESENT, PTE_SPECIAL
from kernel.mm.types import PAGE_SHIFT, MmStruct, Vma
from mmu.paging import PTE_P, PTE_PFN_MASK, PTE_W

if TYPE_CHECKING:
    from kernel.kernel import Kernel

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

_PFN_MASK = np.uint64(PTE_PFN_MASK)
_SHIFT = np.uint64(PAGE_SHIFT)


class MmRecount:
    """What the page tables of one mm hold: parallel arrays, one element for each PTE that is not 0."""

    __slots__ = ("areas", "ends", "flags", "mm", "nr_tables", "pfns", "ptes", "starts", "swap_ptes", "tables", "vaddrs")

    def __init__(self, mm: MmStruct) -> None:
        self.mm = mm
        words = mm.kernel.physmem.words
        self.tables = walk_tables(mm)
        """Frames of the last-level tables that the root leads to."""
        slots = sorted(mm.pt.leaf)
        if slots:
            block = words[np.array([mm.pt.leaf[slot] for slot in slots], np.int64) >> 9]
            rows, columns = np.nonzero(block)
            ptes = block[rows, columns]
            vaddrs = (np.array(slots, np.int64)[rows] << 21) + (columns << PAGE_SHIFT)
        else:
            ptes, vaddrs = np.zeros(0, np.uint64), np.zeros(0, np.int64)
        self.ptes = ptes
        self.vaddrs = vaddrs
        self.pfns = ((ptes & _PFN_MASK) >> _SHIFT).astype(np.int64)
        self.swap_ptes = ptes[(ptes & PTE_PRESENT) == 0]
        self.areas: list[Vma] = list(mm.areas)
        self.starts = np.array([vma.vm_start for vma in self.areas], np.int64)
        self.ends = np.array([vma.vm_end for vma in self.areas], np.int64)
        self.flags = np.array([vma.vm_flags for vma in self.areas], np.int64)

    @property
    def is_counted(self) -> BoolArray:
        """Present and of a frame that is counted (not the zero page, not a device)."""
        counted: BoolArray = ((self.ptes & PTE_PRESENT) != 0) & ((self.ptes & PTE_SPECIAL) == 0)
        return counted

    @property
    def is_writable(self) -> BoolArray:
        writable: BoolArray = (self.ptes & (PTE_P | PTE_W)) == PTE_P | PTE_W
        return writable

    def area_numbers(self) -> IntArray:
        """For each PTE the index in ``areas``, -1 if it lies in none."""
        if not self.areas:
            return np.full(self.vaddrs.size, -1, np.int64)
        numbers = np.searchsorted(self.starts, self.vaddrs, "right") - 1
        outside = (numbers < 0) | (self.vaddrs >= self.ends[numbers])
        numbers[outside] = -1
        return numbers

    def rss(self) -> tuple[int, int, int]:
        """(anonymous, file, shmem) pages."""
        page_flags = self.mm.kernel.pages.flags_np[self.pfns[self.is_counted]]
        nr_anon = int(np.count_nonzero(page_flags & PG_anon))
        nr_shmem = int(np.count_nonzero((page_flags & (PG_anon | PG_swapbacked)) == PG_swapbacked))
        return nr_anon, int(page_flags.size) - nr_anon - nr_shmem, nr_shmem


def walk_tables(mm: MmStruct) -> tuple[IntArray, IntArray, IntArray]:
    """(third-level, second-level, last-level) table frames, found from the root as the processor would."""
    words = mm.kernel.physmem.words
    upper = _next_level(words[mm.pt.root_pfn, :256])
    middle = _next_level(words[upper])
    return upper, middle, _next_level(words[middle])


def _next_level(entries: NDArray[np.uint64]) -> IntArray:
    entries = entries[entries != 0]
    return ((entries & _PFN_MASK) >> _SHIFT).astype(np.int64)


def living_mms(kernel: Kernel) -> list[MmStruct]:
    """Every mm that has page tables: also one that exec is building, which no task has yet."""
    pages = kernel.pages
    found = dict.fromkeys(kernel.all_mms())
    for pfn in np.flatnonzero(pages.flags_np & PG_table).tolist():
        mm = pages.mapping[pfn]
        if mm is not None:
            found[mm] = None
    return sorted(found, key=lambda mm: mm.id)


class Recount:
    """All address spaces, and what the frames' counters come to."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        pages = kernel.pages
        self.mms = [MmRecount(mm) for mm in living_mms(kernel)]
        self.mapcount: IntArray = np.zeros(pages.nr_frames, np.int64)
        for mm in self.mms:
            self.mapcount += np.bincount(mm.pfns[mm.is_counted], minlength=pages.nr_frames)
        self.in_page_cache: BoolArray = np.zeros(pages.nr_frames, bool)
        for mapping in pages.mappings:
            self.in_page_cache[np.fromiter(mapping.pages.values(), np.int64, len(mapping.pages))] = True

    def places_of(self, pfn: int) -> list[tuple[MmStruct, int]]:
        """(mm, address) of every PTE that maps ``pfn``."""
        found = []
        for recount in self.mms:
            here = recount.vaddrs[(recount.pfns == pfn) & recount.is_counted]
            found += [(recount.mm, vaddr) for vaddr in here.tolist()]
        return found


def count_hits(found: IntArray, mm: MmStruct, vaddrs: IntArray, pfns: IntArray) -> None:
    """Add 1 to ``found[pfn]`` for each (address, pfn) pair of which ``mm``'s PTE at that address maps that frame."""
    leaf = mm.pt.leaf
    if not vaddrs.size or not leaf:
        return
    slots, place = np.unique(vaddrs >> 21, return_inverse=True)
    tables = np.array([leaf.get(slot, -1) for slot in slots.tolist()], np.int64)[place]
    exists = tables >= 0
    if not exists.all():
        tables, vaddrs, pfns = tables[exists], vaddrs[exists], pfns[exists]
    ptes = mm.pt.words[tables + (vaddrs >> PAGE_SHIFT & 511)]
    hits = ((ptes & np.uint64(PTE_PFN_MASK | PTE_SPECIAL)) >> _SHIFT == pfns.astype(np.uint64)) & (
        (ptes & PTE_PRESENT) != 0
    )
    hits &= (ptes & PTE_SPECIAL) == 0
    np.add.at(found, pfns[hits], 1)
