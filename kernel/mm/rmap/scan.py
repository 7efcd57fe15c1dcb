"""The oracle: where every page is really mapped, found by reading all page tables.

No kernel could afford this (it is what 2.4 did to find the pages to swap); here it is what the rmap policies are
measured against.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kernel.mm.pagetable import PTE_PRESENT, PTE_SPECIAL
from kernel.mm.types import PAGE_SHIFT, MmStruct
from mmu.paging import PTE_PFN_MASK

if TYPE_CHECKING:
    from kernel.kernel import Kernel


class Mapping(NamedTuple):
    """One present PTE of a counted page."""

    mm: MmStruct
    vaddr: int
    pte_word_index: int


def scan_mm(mm: MmStruct) -> list[tuple[int, Mapping]]:
    """(pfn, mapping) of every present PTE of ``mm``, in address order; special PTEs (the zero page) left out."""
    words = mm.pt.words
    found: list[tuple[int, Mapping]] = []
    for slot in sorted(mm.pt.leaf):
        table = mm.pt.leaf[slot]
        ptes = words[table : table + 512]
        counted = np.flatnonzero((ptes & np.uint64(PTE_PRESENT) != 0) & (ptes & np.uint64(PTE_SPECIAL) == 0))
        pfns = (ptes[counted] & np.uint64(PTE_PFN_MASK)) >> np.uint64(PAGE_SHIFT)
        base = slot << 21
        for i, pfn in zip(counted.tolist(), pfns.tolist(), strict=True):
            found.append((pfn, Mapping(mm, base + (i << PAGE_SHIFT), table + i)))
    return found


def scan_all(mms: Iterable[MmStruct]) -> dict[int, list[Mapping]]:
    """pfn -> all its mappings, for every mapped page."""
    found: dict[int, list[Mapping]] = {}
    for mm in mms:
        for pfn, mapping in scan_mm(mm):
            found.setdefault(pfn, []).append(mapping)
    return found


def scan_page(kernel: Kernel, pfn: int) -> list[Mapping]:
    """All mappings of one page."""
    found: list[Mapping] = []
    for mm in kernel.all_mms():
        words = mm.pt.words
        for slot in sorted(mm.pt.leaf):
            table = mm.pt.leaf[slot]
            ptes = words[table : table + 512]
            same = (ptes & np.uint64(PTE_PFN_MASK | PTE_SPECIAL)) == np.uint64(pfn << PAGE_SHIFT)
            for i in np.flatnonzero(same & (ptes & np.uint64(PTE_PRESENT) != 0)).tolist():
                found.append(Mapping(mm, (slot << 21) + (i << PAGE_SHIFT), table + i))
    return found
