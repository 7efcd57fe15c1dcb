"""anonmm: one object for each address space; a page is at the same address in all of an exec family.

Models ``mm/rmap.c`` of rmap 10 to 37 (``struct anonmm``, ``exec_rmap``, ``dup_rmap``, ``exit_rmap``,
``mremap_move_anon_rmap``). RMAP.md section 3.

Invariants: all address spaces of one exec are on one ring, the head first, forks at the tail; every mapping of an
anonymous page is at the page's ``index`` (here a byte address) in each of them.

Linux counts references: one for the mm, one for each page, and on the head one for each member.  Here Python's
references are those counts: pages hold theirs in ``MemMap.mapping``, members hold the head, the ring holds members
weakly once their mm is gone; so a dead member leaves the ring with its last page.

Deliberate difference: page_referenced re-homed pages of a dead mm to the first mm found; the walk here does it.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from kernel.mm.rmap.policy import MemoryCost, MoveResult, Proposal, RmapPolicy
from kernel.mm.types import MmStruct, Vma

if TYPE_CHECKING:
    from kernel.kernel import Kernel

ANONMM_BYTES = 48
"""count, lock, mm, head and list node on a 64-bit kernel (24 bytes on i386)."""


class Anonmm:
    """``struct anonmm``."""

    __slots__ = ("__weakref__", "head", "id", "mm", "ring")

    def __init__(self, mm: MmStruct, head: Anonmm | None) -> None:
        self.id = mm.id
        self.mm: MmStruct | None = mm
        """None once the address space is gone."""
        self.head = head
        """None for the head itself."""
        self.ring: list[weakref.ref[Anonmm]] = []
        """Head only: all members in order of birth, the head first."""

    def members(self) -> list[Anonmm]:
        """The ring of this object's family, without those that are gone."""
        head = self.head or self
        alive = [member for ref in head.ring if (member := ref()) is not None]
        if len(alive) != len(head.ring):
            head.ring = [weakref.ref(member) for member in alive]
        return alive

    def __repr__(self) -> str:
        return f"anonmm(mm {self.id}{'' if self.mm is not None else ', gone'})"


class AnonmmPolicy(RmapPolicy):
    """No anon_vmas; anonymous areas merge whatever their history and offset."""

    name = "anonmm"
    needs_anon_vma = False
    anon_pgoff_matters = False

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel)
        self._all: list[weakref.ref[Anonmm]] = []

    # -- address spaces -------------------------------------------------------------------------------------------

    def new_mm(self, mm: MmStruct) -> None:
        self._add(mm, None)

    def fork_mm(self, parent: MmStruct, child: MmStruct) -> None:
        own: Anonmm = parent.rmap
        self._add(child, own.head or own)

    def _add(self, mm: MmStruct, head: Anonmm | None) -> None:
        anonmm = Anonmm(mm, head)
        mm.rmap = anonmm
        ref = weakref.ref(anonmm)
        (head or anonmm).ring.append(ref)
        self._all = [other for other in self._all if other() is not None]
        self._all.append(ref)

    def exit_mm(self, mm: MmStruct) -> None:
        anonmm: Anonmm | None = mm.rmap
        if anonmm is not None:
            anonmm.mm = None
            mm.rmap = None

    # -- areas: nothing to do, ever ---------------------------------------------------------------------------------

    def fork_vma(self, parent: Vma, child: Vma) -> None:
        return

    def split(self, vma: Vma, new: Vma) -> None:
        return

    # -- pages --------------------------------------------------------------------------------------------------

    def page_add_new_anon_rmap(self, pfn: int, vma: Vma, vaddr: int, pte_word_index: int) -> None:
        pages = self.kernel.pages
        pages.mapping[pfn] = vma.vm_mm.rmap
        pages.index[pfn] = vaddr

    def must_copy_on_swap_in(self, pfn: int, vma: Vma, vaddr: int) -> bool:
        """Others map the page at its index and the swap entry was moved meanwhile: this fault needs a copy.

        A page that nobody maps is taken over, with its new address, by whoever faults first.
        """
        pages = self.kernel.pages
        return bool(pages.mapcount[pfn]) and pages.index[pfn] != vaddr

    def move_page(self, pfn: int, old_vma: Vma, new_vma: Vma, new_vaddr: int) -> MoveResult:
        pages = self.kernel.pages
        if pages.mapcount[pfn] > 1:
            self.counters.nr_unshared += 1
            return MoveResult.UNSHARE
        pages.mapping[pfn] = new_vma.vm_mm.rmap
        pages.index[pfn] = new_vaddr
        return MoveResult.MOVED

    def walk(self, pfn: int) -> Iterator[Proposal]:
        """One probe for each address space of the family, from the page's own round the ring."""
        counters = self.counters
        counters.nr_walks += 1
        pages = self.kernel.pages
        own = pages.mapping[pfn]
        if not isinstance(own, Anonmm):
            return
        vaddr = pages.index[pfn]
        ring = own.members()
        start = ring.index(own)
        for anonmm in ring[start:] + ring[:start]:
            mm = anonmm.mm
            if mm is None or not mm.rss:
                continue
            counters.nr_visited += 1
            counters.nr_proposed += 1
            if own.mm is None and pages.mapping[pfn] is own and mm.pt.get(vaddr) >> 12 & 0xFF_FFFF_FFFF == pfn:
                pages.mapping[pfn] = anonmm
            yield Proposal(mm, vaddr, mm.areas.find_exact(vaddr))

    # -- reports ------------------------------------------------------------------------------------------------

    def memory_cost(self) -> MemoryCost:
        nr_objects = sum(1 for ref in self._all if ref() is not None)
        return MemoryCost(nr_objects, nr_objects * ANONMM_BYTES)

    def vmas_of(self, anon_vma: Any) -> list[Vma]:
        return []

    def violations(self) -> list[str]:
        wrong: list[str] = []
        for ref in self._all:
            anonmm = ref()
            if anonmm is None:
                continue
            if anonmm.members().count(anonmm) != 1:
                wrong.append(f"{anonmm!r} is not on its ring exactly once")
            if anonmm.mm is not None and anonmm.mm.rmap is not anonmm:
                wrong.append(f"{anonmm!r}: its mm names another")
        return wrong
