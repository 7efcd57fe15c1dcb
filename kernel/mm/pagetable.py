"""Page tables of one mm: the only door to a PTE.

Models ``include/linux/pgtable.h``, ``arch/x86/include/asm/pgtable*.h`` and the table half of ``mm/memory.c``
(``__pte_alloc``, ``free_pgtables``).  Format: four levels, 64-bit entries (mmu/paging.py ``FourLevel``), 4 KiB pages.

A PTE is named by its *word index* in ``physmem.q``: table pfn * 512 + index in the table.  ``leaf`` maps
``vaddr >> 21`` to the word index of the first PTE of that last-level table, so that a PTE is one dictionary look-up and
one memoryview access away, and no walk is ever needed; the hardware walks the same tables from ``root_pfn``.

States of a PTE (``include/linux/swapops.h``):

================  ==================================================================================================
0                 none
P                 present; PTE_SPECIAL: no struct page is counted for it (the zero page, device and special mappings)
PROTNONE, not P   present for the kernel, not for the processor (PROT_NONE): Linux's _PAGE_PROTNONE is bit 8 (G) too
neither, not 0    a swap entry: bits 59-63 swap type, 9-58 offset (never 0), bit 3 exclusive (_PAGE_SWP_EXCLUSIVE)
================  ==================================================================================================

Invariants: every table's frame has PG_table, ``mapping`` = the mm, ``index`` = the first address that it maps,
``private`` = its number of used entries (not kept for last-level tables); ``nr_tables`` counts all tables but the root
(Linux's ``mm_pgtables_bytes``); the user's entries of the root lie below index 256, those above are the CPU's
(``pml4_template``).

Deliberate differences: swap offsets are not stored inverted (no L1TF here); PROT_NONE frame numbers neither.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from kernel.mm.page import PG_table
from kernel.mm.types import (
    PAGE_SHIFT,
    VM_EXEC,
    VM_READ,
    VM_SHARED,
    VM_WRITE,
)
from mmu.paging import (
    PTE_A,
    PTE_D,
    PTE_G,
    PTE_NX,
    PTE_P,
    PTE_SOFT1,
    PTE_U,
    PTE_W,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kernel.kernel import Kernel
    from kernel.mm.types import MmStruct

PMD_SHIFT = 21
PUD_SHIFT = 30
PGDIR_SHIFT = 39
PMD_SIZE = 1 << PMD_SHIFT
PTRS_PER_PTE = 512
USER_PGTABLES_CEILING = 1 << 47

PTE_PROTNONE = PTE_G
PTE_SPECIAL = PTE_SOFT1
PTE_PRESENT = PTE_P | PTE_PROTNONE
"""``pte_present()``: any of these bits."""
_TABLE = PTE_P | PTE_W | PTE_U | PTE_A | PTE_D  # _PAGE_TABLE

SWP_EXCLUSIVE = 1 << 3
_SWP_TYPE_SHIFT = 59
_SWP_OFFSET_SHIFT = 9
_SWP_OFFSET_MASK = (1 << 50) - 1


def _protection_map() -> list[int]:
    """``protection_map[]`` of arch/x86/mm/pgprot.c, by VM_READ|VM_WRITE|VM_EXEC|VM_SHARED; writable only if shared."""
    table = []
    for flags in range(16):
        if not flags & (VM_READ | VM_WRITE | VM_EXEC):
            table.append(PTE_PROTNONE | PTE_A | PTE_NX)
            continue
        prot = PTE_P | PTE_U | PTE_A
        if flags & VM_SHARED and flags & VM_WRITE:
            prot |= PTE_W
        if not flags & VM_EXEC:
            prot |= PTE_NX
        table.append(prot)
    return table


PROTECTION_MAP = _protection_map()
"""``vm_page_prot`` of an area with ``vm_flags``: ``PROTECTION_MAP[vm_flags & 15]``."""


def pte_present(pte: int) -> bool:
    return bool(pte & PTE_PRESENT)


def is_swap_pte(pte: int) -> bool:
    return pte != 0 and not pte & PTE_PRESENT


def swp_entry_to_pte(swp_type: int, offset: int) -> int:
    """The not-present entry for slot ``offset`` (> 0) of swap area ``swp_type`` (0-31)."""
    return swp_type << _SWP_TYPE_SHIFT | offset << _SWP_OFFSET_SHIFT


def pte_to_swp_entry(pte: int) -> tuple[int, int]:
    """(type, offset) of a swap entry."""
    return pte >> _SWP_TYPE_SHIFT, pte >> _SWP_OFFSET_SHIFT & _SWP_OFFSET_MASK


class PageTables:
    """The page tables of one mm.  ``new_mm`` sets :attr:`mm` before the first table is allocated."""

    __slots__ = ("_mid", "_pages", "_upper", "cr3", "leaf", "mm", "nr_tables", "q", "root_pfn", "words")

    def __init__(self, kernel: Kernel) -> None:
        """Allocates the root.  Raises KernelError(ENOMEM)."""
        self._pages = kernel.pages
        self.q = kernel.physmem.q
        self.words: NDArray[np.uint64] = kernel.physmem.words.reshape(-1)
        """The same words as one flat NumPy array, for slices of tables."""
        self.mm: MmStruct | None = None
        self.leaf: dict[int, int] = {}
        """vaddr >> 21 -> word index of the first PTE of that last-level table."""
        self._mid: dict[int, int] = {}  # vaddr >> 30 -> word index of that PMD table
        self._upper: dict[int, int] = {}  # vaddr >> 39 -> word index of that PUD table
        self.nr_tables = 0
        self.root_pfn = self._alloc_table(0)
        self.nr_tables = 0  # mm_pgtables_bytes does not count the root
        self.cr3 = self.root_pfn << PAGE_SHIFT
        root = self.root_pfn << 9
        for slot, entry in kernel.pml4_template.items():
            self.q[root + slot] = entry

    # ---- access to one PTE --------------------------------------------------------------------------------------

    def pte_index(self, vaddr: int) -> int:
        """Word index of the PTE for ``vaddr``, -1 if its table does not exist (``pte_offset_map``)."""
        table = self.leaf.get(vaddr >> 21)
        return -1 if table is None else table + (vaddr >> 12 & 511)

    def pte_alloc(self, vaddr: int) -> int:
        """Word index of the PTE for ``vaddr``; allocates missing tables (KernelError ENOMEM; a later try goes on)."""
        table = self.leaf.get(vaddr >> 21)
        if table is None:
            table = self._alloc_leaf(vaddr)
        return table + (vaddr >> 12 & 511)

    def get(self, vaddr: int) -> int:
        """The PTE for ``vaddr``; 0 if there is none."""
        table = self.leaf.get(vaddr >> 21)
        if table is None:
            return 0
        pte: int = self.q[table + (vaddr >> 12 & 511)]
        return pte

    def set_pte(self, vaddr: int, pte: int) -> int:
        """Store a PTE, allocating tables; returns its word index.  Counts and TLB are the caller's business."""
        index = self.pte_alloc(vaddr)
        self.q[index] = pte
        return index

    # ---- whole tables -------------------------------------------------------------------------------------------

    def leaf_ranges(self, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """The existing last-level tables over ``[start, end)``, in address order.

        Yields (vaddr of entry 0, word index of entry 0, first entry in range, entry after the last in range).
        Tables allocated or freed meanwhile may or may not be seen.
        """
        if start >= end:
            return
        leaf = self.leaf
        first, last = start >> 21, (end - 1) >> 21
        slots: Iterator[int] | list[int] | range
        if last - first < len(leaf):
            slots = range(first, last + 1)
        else:
            slots = sorted(slot for slot in leaf if first <= slot <= last)
        for slot in slots:
            table = leaf.get(slot)
            if table is None:
                continue
            i0 = start >> 12 & 511 if slot == first else 0
            i1 = ((end - 1) >> 12 & 511) + 1 if slot == last else 512
            yield slot << 21, table, i0, i1

    # ---- tables -------------------------------------------------------------------------------------------------

    def _alloc_table(self, base_vaddr: int) -> int:
        pages = self._pages
        pfn = pages.alloc_zeroed_page()
        pages.flags[pfn] = PG_table
        pages.mapping[pfn] = self.mm
        pages.index[pfn] = base_vaddr
        self.nr_tables += 1
        return pfn

    def _link_table(self, parent_entry: int, base_vaddr: int) -> int:
        pfn = self._alloc_table(base_vaddr)
        self.q[parent_entry] = pfn << PAGE_SHIFT | _TABLE
        self._pages.private[parent_entry >> 9] += 1
        return pfn << 9

    def _alloc_leaf(self, vaddr: int) -> int:
        mid = self._mid.get(vaddr >> 30)
        if mid is None:
            upper = self._upper.get(vaddr >> 39)
            if upper is None:
                upper = self._link_table((self.root_pfn << 9) + (vaddr >> 39), vaddr >> 39 << 39)
                self._upper[vaddr >> 39] = upper
            mid = self._link_table(upper + (vaddr >> 30 & 511), vaddr >> 30 << 30)
            self._mid[vaddr >> 30] = mid
        table = self._link_table(mid + (vaddr >> 21 & 511), vaddr >> 21 << 21)
        self.leaf[vaddr >> 21] = table
        return table

    def free_pgtables(self, start: int, end: int, floor: int | None = None, ceiling: int | None = None) -> None:
        """Free the tables over ``[start, end)`` that no other area can use: those that lie in ``[floor, ceiling)``.

        ``floor`` is the end of the area before (0: none), ``ceiling`` the start of the area after (0: none); without
        them, only tables inside ``[start, end)`` go.  All PTEs in ``[floor, ceiling)`` must be zero already.
        """
        floor = start if floor is None else floor
        ceiling = end if ceiling is None else ceiling
        if ceiling == 0 or ceiling >= (1 << 47) - 4096:
            ceiling = USER_PGTABLES_CEILING
        if start >= end:
            return
        self._free_level(self.leaf, 21, self._mid, start, end, floor, ceiling)
        self._free_level(self._mid, 30, self._upper, start, end, floor, ceiling)
        self._free_level(self._upper, 39, None, start, end, floor, ceiling)

    def _free_level(
        self,
        tables: dict[int, int],
        shift: int,
        parents: dict[int, int] | None,
        start: int,
        end: int,
        floor: int,
        ceiling: int,
    ) -> None:
        first = max(start >> shift, (floor + (1 << shift) - 1) >> shift)
        last = min((end - 1) >> shift, (ceiling >> shift) - 1)
        if first > last:
            return
        if last - first < len(tables):
            slots = [slot for slot in range(first, last + 1) if slot in tables]
        else:
            slots = sorted(slot for slot in tables if first <= slot <= last)
        pages = self._pages
        private = pages.private
        for slot in slots:
            table = tables[slot]
            if private[table >> 9]:
                continue
            entry = (self.root_pfn << 9) + slot if parents is None else parents[slot >> 9] + (slot & 511)
            del tables[slot]
            self.q[entry] = 0
            private[entry >> 9] -= 1
            self._free_table(table >> 9)

    def _free_table(self, pfn: int) -> None:
        self.nr_tables -= 1
        self._pages.put_page(pfn)

    def destroy(self) -> None:
        """Free every table, the root last.  All PTEs must be zero already."""
        for tables in (self.leaf, self._mid, self._upper):
            for table in tables.values():
                self._free_table(table >> 9)
            tables.clear()
        self._pages.put_page(self.root_pfn)
