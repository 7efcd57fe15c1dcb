"""pte_chains: every mapped page lists the page-table entries that map it.

Models ``mm/rmap.c`` to 2.6.6 (``page_add_rmap``, ``page_remove_rmap``, ``struct pte_chain``).  RMAP.md section 2.

``page->pte`` is nothing, one PTE (PG_direct), or a chain of blocks of ``NRPTE`` slots.  Here it is one word a page: 0,
the word index of the PTE, or -1 with the slots in a list beside (only the number of blocks matters, for the cost; the
newest slot is taken first, as from the head block).

Invariant: exactly one slot for each present PTE of each page (swap entries have none).

Deliberate differences: the whole of 2.6.6's file and anonymous memory hangs on chains here, as in 2.6.6 (the page
cache was not yet walked by object); the walk looks the area up only when it proposes, as try_to_unmap did.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from kernel.mm.page import PG_table
from kernel.mm.rmap.policy import MemoryCost, Proposal, RmapPolicy
from kernel.mm.types import PAGE_SHIFT, Vma

if TYPE_CHECKING:
    from kernel.kernel import Kernel

NRPTE = 7
"""Slots in a block: a 64-byte cache line less the link word, with 8-byte PTE addresses."""
BLOCK_BYTES = 64

_CHAIN = -1


class PteChainPolicy(RmapPolicy):
    """No anon_vmas at all; areas merge whatever their history and offset."""

    name = "pte_chain"
    per_pte = True
    needs_anon_vma = False
    anon_pgoff_matters = False

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel)
        self._direct_np = np.zeros(kernel.pages.nr_frames, np.int64)
        self._direct = memoryview(self._direct_np)  # type: ignore[arg-type]
        self._chains: dict[int, list[int]] = {}

    # -- areas: nothing to do, ever ---------------------------------------------------------------------------------

    def fork_vma(self, parent: Vma, child: Vma) -> None:
        return

    def split(self, vma: Vma, new: Vma) -> None:
        return

    # -- pages --------------------------------------------------------------------------------------------------

    def page_add_new_anon_rmap(self, pfn: int, vma: Vma, vaddr: int, pte_word_index: int) -> None:
        pages = self.kernel.pages
        pages.mapping[pfn] = None
        pages.index[pfn] = 0
        self._direct[pfn] = pte_word_index

    def page_add_anon_rmap(self, pfn: int, vma: Vma, vaddr: int, pte_word_index: int) -> None:
        pages = self.kernel.pages
        pages.mapping[pfn] = None
        pages.index[pfn] = 0
        self.page_dup_rmap(pfn, vma, vaddr, pte_word_index)

    def page_dup_rmap(self, pfn: int, vma: Vma | None, vaddr: int, pte_word_index: int) -> None:
        direct = self._direct
        first = direct[pfn]
        if not first:
            direct[pfn] = pte_word_index
        elif first == _CHAIN:
            self._chains[pfn].append(pte_word_index)
        else:
            direct[pfn] = _CHAIN
            self._chains[pfn] = [first, pte_word_index]

    def page_remove_rmap(self, pfn: int, vma: Vma | None, vaddr: int, pte_word_index: int) -> None:
        direct = self._direct
        first = direct[pfn]
        if first == pte_word_index:
            direct[pfn] = 0
            return
        if first != _CHAIN:
            raise AssertionError(f"pfn {pfn:#x} is not mapped by PTE {pte_word_index:#x}")
        slots = self._chains[pfn]
        # The first used slot of the head block is moved into the hole.
        hole = slots.index(pte_word_index)
        last = slots.pop()
        if hole < len(slots):
            slots[hole] = last
        if not slots:
            del self._chains[pfn]
            direct[pfn] = 0

    def dup_rmaps(self, pfns: np.ndarray, pte_word_indices: np.ndarray) -> None:
        direct = self._direct_np
        old = direct[pfns]
        unmapped = old == 0
        if unmapped.all():
            direct[pfns] = pte_word_indices
            return
        direct[pfns[unmapped]] = pte_word_indices[unmapped]
        mapped = ~unmapped
        direct[pfns[mapped]] = _CHAIN
        chains = self._chains
        rows = zip(pfns[mapped].tolist(), old[mapped].tolist(), pte_word_indices[mapped].tolist(), strict=True)
        for pfn, first, index in rows:
            if first == _CHAIN:
                chains[pfn].append(index)
            else:
                chains[pfn] = [first, index]

    def remove_rmaps(self, pfns: np.ndarray, pte_word_indices: np.ndarray) -> None:
        direct = self._direct_np
        alone = direct[pfns] == pte_word_indices
        direct[pfns[alone]] = 0
        if alone.all():
            return
        shared = ~alone
        for pfn, index in zip(pfns[shared].tolist(), pte_word_indices[shared].tolist(), strict=True):
            self.page_remove_rmap(pfn, None, 0, index)

    def slots(self, pfn: int) -> list[int]:
        """Word indices of the PTEs that map ``pfn``, the newest first."""
        first = self._direct[pfn]
        if not first:
            return []
        return self._chains[pfn][::-1] if first == _CHAIN else [first]

    def mapped_pfns(self) -> list[int]:
        """Every page that has a slot."""
        mapped: list[int] = np.flatnonzero(self._direct_np).tolist()
        return mapped

    def walk(self, pfn: int) -> Iterator[Proposal]:
        counters = self.counters
        counters.nr_walks += 1
        pages = self.kernel.pages
        for index in self.slots(pfn):
            counters.nr_visited += 1
            table = index >> 9
            if not pages.flags[table] & PG_table:
                continue
            mm = pages.mapping[table]
            vaddr = pages.index[table] + ((index & 511) << PAGE_SHIFT)
            counters.nr_proposed += 1
            yield Proposal(mm, vaddr, mm.areas.find_exact(vaddr))
        self._collapse(pfn)

    def _collapse(self, pfn: int) -> None:
        """``page_referenced``: a chain that holds one slot becomes a direct pointer again."""
        slots = self._chains.get(pfn)
        if slots is not None and len(slots) == 1:
            self._direct[pfn] = slots[0]
            del self._chains[pfn]

    # -- reports ------------------------------------------------------------------------------------------------

    def memory_cost(self) -> MemoryCost:
        nr_blocks = sum((len(slots) + NRPTE - 1) // NRPTE for slots in self._chains.values())
        return MemoryCost(nr_blocks, nr_blocks * BLOCK_BYTES)

    def describe_page(self, pfn: int) -> str:
        slots = self.slots(pfn)
        kind = "direct" if len(slots) == 1 else f"chain of {len(slots)}"
        return f"pte_chain: {kind}: {', '.join(f'{slot << 3:#x}' for slot in slots)}" if slots else "pte_chain: none"

    def violations(self) -> list[str]:
        wrong = [f"pfn {pfn:#x}: empty chain" for pfn, slots in self._chains.items() if not slots]
        wrong += [f"pfn {pfn:#x}: chain not marked" for pfn in self._chains if self._direct[pfn] != _CHAIN]
        return wrong
