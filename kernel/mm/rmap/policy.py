"""What a reverse-mapping policy is: the hooks that the rest of memory management calls.

Models the seams between ``mm/rmap.c`` and its callers through the years (RMAP.md section 1.5 names them).  Callers
never ask which policy is in force; what differs is behind these hooks and the class attributes below.

A policy answers one question, :meth:`RmapPolicy.walk`: where may this page be mapped?  It *proposes* (mm, address)
pairs; the caller checks each against the page tables.  A policy that proposes too much costs time, one that proposes
too little loses mappings (``rmap/check.py`` looks for that).

Deliberate differences: no locks; kernel objects are Python objects, their sizes in bytes are the historic ones (given
by each policy) so that memory costs can be compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from kernel.hardware import Reg
from kernel.mm.types import PAGE_SHIFT, MmStruct, Vma
from kernel.trace import Tracepoint

if TYPE_CHECKING:
    import numpy as np

    from kernel.kernel import Kernel

ANON_VMA_PREPARE = Tracepoint("rmap:anon_vma_prepare", "vma how anon_vma")
"""A first write gave ``vma`` its anon_vma; ``how`` is ``new``, ``next`` or ``prev`` (adopted from that neighbour)."""


MERGE_REFUSED = Tracepoint(
    "mm:merge_refused", "mm area near reason anon_vma near_anon_vma first_write near_first_write"
)
"""Two touching areas stay apart (kernel/mm/merge.py).  ``reason``: flags, file, close, policy, anon_name, pgoff,
anon_vma. While it is on, first writes are kept on the areas (:class:`FirstWrite`)."""


class MoveResult(Enum):
    """What mremap must do with a page that it moves to another address."""

    MOVED = "moved"
    UNSHARE = "unshare"
    """The policy cannot hold this page at two addresses: break copy-on-write first, then move the private copy."""


class Proposal(NamedTuple):
    """A place where a page may be mapped."""

    mm: MmStruct
    vaddr: int
    vma: Vma | None
    """The area, if the policy knows it (the walkers of 2.6.6 must look it up)."""


class FirstWrite(NamedTuple):
    """Who made an area's anon_vma: kept for ``mm:merge_refused`` while that tracepoint is on."""

    task: Any
    ip: int
    vaddr: int | None


@dataclass(frozen=True)
class MemoryCost:
    """What the policy's own structures would take on a 64-bit kernel."""

    nr_objects: int
    nr_bytes: int


@dataclass
class WalkCounters:
    """How much the policy worked, for --stats."""

    nr_walks: int = 0
    nr_visited: int = 0
    """Entries looked at (areas, mms or pte slots)."""
    nr_proposed: int = 0
    """Entries handed out as proposals."""
    nr_prepared: int = 0
    """First writes that needed an anon_vma."""
    nr_allocated: int = 0
    nr_adopted: int = 0
    nr_unshared: int = 0
    """Pages copied because mremap could not move them (anonmm)."""


class RmapPolicy:
    """The base: hooks that do nothing, for a policy that needs nothing at that place."""

    name = ""
    per_pte = False
    """Every set and clear of a present PTE is told to the policy (pte_chains)."""
    needs_anon_vma = True
    """``vma.anon_vma`` is set by the first write."""
    anon_pgoff_matters = True
    """Anonymous areas merge only if their page offsets continue."""
    always_prepare = False
    """``anon_vma_prepare`` is to be called at each anonymous fault, even when ``vma.anon_vma`` is set."""
    indexed = False
    """Areas are kept sorted by offset: ``range_changed`` is to be told of every change of range."""
    shares_at_merge = False
    """mmap and brk ask ``on_new_vma`` for areas that could not be merged."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.counters = WalkCounters()

    # -- may these become one area? -----------------------------------------------------------------------------

    def compatible(self, anon_vma: Any, source: Vma | None, neighbour: Vma) -> bool:
        """May an area with ``anon_vma`` (of ``source``; both None for new memory) become part of ``neighbour``?"""
        other = neighbour.anon_vma
        return anon_vma is None or other is None or anon_vma is other

    def joinable(self, prev: Vma, following: Vma) -> bool:
        """May ``prev`` and ``following`` be joined through the area between them?"""
        return prev.anon_vma is None or following.anon_vma is None or prev.anon_vma is following.anon_vma

    # -- areas --------------------------------------------------------------------------------------------------

    def new_mm(self, mm: MmStruct) -> None:
        """exec made an empty address space."""

    def fork_mm(self, parent: MmStruct, child: MmStruct) -> None:
        """fork made ``child``; called before any :meth:`fork_vma`."""

    def exit_mm(self, mm: MmStruct) -> None:
        """All PTEs of ``mm`` are gone and all its areas unlinked."""

    def on_new_vma(self, vma: Vma, prev: Vma | None, following: Vma | None) -> None:
        """mmap or brk made ``vma`` (linked) since it could not be merged with its neighbours."""

    def anon_vma_prepare(self, vma: Vma, vaddr: int | None = None) -> None:
        """An anonymous page is about to be put into ``vma``."""

    def fork_vma(self, parent: Vma, child: Vma) -> None:
        """``child`` is the copy of ``parent`` in the child's mm."""

    def copy_vma(self, vma: Vma, new: Vma) -> None:
        """mremap duplicated ``vma`` to another place of the same mm."""
        self.split(vma, new)

    def split(self, vma: Vma, new: Vma) -> None:
        """``new`` was cut off ``vma``."""

    def absorb(self, keeper: Vma, dying: Vma) -> None:
        """``keeper`` has taken over the whole range of ``dying``, which will be freed."""

    def boundary(self, grower: Vma, shrinker: Vma) -> None:
        """``grower`` has taken over a part of ``shrinker``."""

    def hand_over(self, merged: Vma, source: Vma) -> None:
        """mremap: pages of ``source`` are about to be moved into ``merged``, an area that was there before."""

    def unlink_vma(self, vma: Vma) -> None:
        """``vma`` has no PTEs any more and is about to be freed."""

    def forget_vma(self, vma: Vma) -> None:
        """All anonymous pages of ``vma`` have been moved away by MREMAP_DONTUNMAP: it is unfaulted again."""
        self.unlink_vma(vma)

    def range_changed(self, vma: Vma) -> None:
        """vm_start, vm_end or vm_pgoff of ``vma`` have changed (only if ``indexed``)."""

    # -- pages --------------------------------------------------------------------------------------------------

    def page_add_new_anon_rmap(self, pfn: int, vma: Vma, vaddr: int, pte_word_index: int) -> None:
        """``pfn`` is a new anonymous page, about to be mapped at ``vaddr`` by that PTE."""
        raise NotImplementedError

    def page_add_anon_rmap(self, pfn: int, vma: Vma, vaddr: int, pte_word_index: int) -> None:
        """``pfn`` came back from swap and is about to be mapped at ``vaddr``; others may share it."""
        self.page_add_new_anon_rmap(pfn, vma, vaddr, pte_word_index)

    def page_dup_rmap(self, pfn: int, vma: Vma, vaddr: int, pte_word_index: int) -> None:
        """A present PTE now maps ``pfn``, which is not a new or swapped anonymous page (only if ``per_pte``)."""

    def page_remove_rmap(self, pfn: int, vma: Vma | None, vaddr: int, pte_word_index: int) -> None:
        """That PTE maps it no more (only if ``per_pte``)."""

    def dup_rmaps(self, pfns: np.ndarray, pte_word_indices: np.ndarray) -> None:
        """:meth:`page_dup_rmap` for many PTEs at once."""

    def remove_rmaps(self, pfns: np.ndarray, pte_word_indices: np.ndarray) -> None:
        """:meth:`page_remove_rmap` for many PTEs at once."""

    def move_page(self, pfn: int, old_vma: Vma, new_vma: Vma, new_vaddr: int) -> MoveResult:
        """mremap moves the PTE of an anonymous page to ``new_vaddr``."""
        return MoveResult.MOVED

    def must_copy_on_swap_in(self, pfn: int, vma: Vma, vaddr: int) -> bool:
        """The page found in the swap cache cannot be mapped at ``vaddr``: the fault must make a copy."""
        return False

    def walk(self, pfn: int) -> Iterator[Proposal]:
        """Where the anonymous page ``pfn`` may be mapped."""
        raise NotImplementedError

    # -- reports ------------------------------------------------------------------------------------------------

    def memory_cost(self) -> MemoryCost:
        raise NotImplementedError

    def describe_page(self, pfn: int) -> str:
        """One line for ``pagewalk page``: which object the page names, at which index."""
        pages = self.kernel.pages
        return f"mapping={pages.mapping[pfn]!r} index={pages.index[pfn]:#x}"

    def vmas_of(self, anon_vma: Any) -> list[Vma]:
        """The areas that hang on one of the policy's objects, in the order in which a walk visits them."""
        return []

    def violations(self) -> list[str]:
        """What is wrong in the policy's own structures (for rmap/check.py)."""
        return []

    # -- helpers for policies that keep linear offsets ------------------------------------------------------------

    def _first_write(self, vma: Vma, how: str, vaddr: int | None) -> None:
        """``vma`` has got its anon_vma: say so to those who listen."""
        if MERGE_REFUSED.on or self.kernel.notes_first_writes:
            task = self.kernel.current
            vma.first_write = FirstWrite(task, task.regs.read(Reg.RIP) if task is not None else 0, vaddr)
        if ANON_VMA_PREPARE.on:
            ANON_VMA_PREPARE.emit(vma, how, vma.anon_vma)


def linear_index(vma: Vma, vaddr: int) -> int:
    """``linear_page_index``: the page offset that names ``vaddr`` inside ``vma``."""
    return ((vaddr - vma.vm_start) >> PAGE_SHIFT) + vma.vm_pgoff


def vma_address(vma: Vma, index: int) -> int | None:
    """Where page ``index`` lies in ``vma``, or None if it is outside."""
    vaddr = vma.vm_start + ((index - vma.vm_pgoff) << PAGE_SHIFT)
    return vaddr if vma.vm_start <= vaddr < vma.vm_end else None
