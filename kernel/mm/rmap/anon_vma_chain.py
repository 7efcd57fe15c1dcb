"""anon_vma_chain: a child has its own anon_vma, and links to all those whose pages it may still map.

Models ``mm/rmap.c`` of Linux 6 (``__anon_vma_prepare``, ``anon_vma_clone``, ``anon_vma_fork``, ``unlink_anon_vmas``)
and ``is_mergeable_anon_vma`` in its two forms (3.0 to 6.15; 6.16 and later).  RMAP.md section 8.

``vma.anon_vma`` is where new pages go.  ``vma.anon_vma_chain`` holds one :class:`AnonVmaChain` for it and one for each
ancestor whose pages the area may map, the newest last (Linux: newest first).

Invariants (checked): an area with an anon_vma has exactly one link to it; equal anon_vmas mean equal chains;
``num_active_vmas`` counts the areas whose ``anon_vma`` it is, ``num_children`` its children (a root counts itself); an
anon_vma without links is freed; anon_vmas are at most twice the areas linked.

Deliberate differences: no locks, no RCU reference counts; the interval tree is made when it is needed (interval.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import TYPE_CHECKING, Any

from kernel.mm.page import PG_exclusive
from kernel.mm.rmap.interval import IntervalIndex
from kernel.mm.rmap.policy import ANON_VMA_PREPARE, MERGE_REFUSED, MemoryCost, Proposal, RmapPolicy
from kernel.mm.types import PAGE_SHIFT, VM_ACCESS_FLAGS, VM_SOFTDIRTY, Vma

if TYPE_CHECKING:
    from kernel.kernel import Kernel

ANON_VMA_BYTES = 96
ANON_VMA_CHAIN_BYTES = 64
_IGNORED_FLAGS = VM_ACCESS_FLAGS | VM_SOFTDIRTY


class ChainMergeRule(Enum):
    """``is_mergeable_anon_vma`` through the years."""

    LINUX_3_0 = "3.0"
    """Equal, or one missing and the neighbour's chain has exactly one link: so a faulted area never joins an
    unfaulted neighbour."""
    LINUX_6_16 = "6.16"
    """Equal, or one missing and the other not inherited by fork."""


class ChainAnonVma:
    """``struct anon_vma``."""

    __slots__ = ("id", "num_active_vmas", "num_children", "parent", "root", "tree")

    def __init__(self, number: int, parent: ChainAnonVma | None) -> None:
        self.id = number
        self.root: ChainAnonVma = self if parent is None else parent.root
        self.parent: ChainAnonVma = self if parent is None else parent
        self.num_children = 1 if parent is None else 0
        self.num_active_vmas = 0
        self.tree: IntervalIndex[AnonVmaChain] = IntervalIndex()

    def __repr__(self) -> str:
        return f"anon_vma#{self.id}({len(self.tree)} areas, {self.num_children} children)"


class AnonVmaChain:
    """``struct anon_vma_chain``: this area may map pages of this anon_vma."""

    __slots__ = ("anon_vma", "vma")

    def __init__(self, vma: Vma, anon_vma: ChainAnonVma) -> None:
        self.vma = vma
        self.anon_vma = anon_vma


def _chain(vma: Vma) -> list[AnonVmaChain]:
    chain: list[AnonVmaChain] | None = vma.anon_vma_chain
    return [] if chain is None else chain


def inherited(vma: Vma) -> bool:
    """Did the area's anon_vma go through fork (``vma_is_fork_child``, ``vma_had_uncowed_parents``)?"""
    return vma.anon_vma is not None and len(vma.anon_vma_chain) != 1


class AnonVmaChainPolicy(RmapPolicy):
    """anon_vmas in a tree by fork, areas in each by page offset."""

    name = "anon_vma_chain"
    indexed = True

    def __init__(
        self,
        kernel: Kernel,
        rule: ChainMergeRule,
        *,
        mover_forgets: bool = False,
        reuse_by_degree: bool = False,
    ) -> None:
        super().__init__(kernel)
        self.rule = rule
        self.mover_forgets = mover_forgets
        """``--bug mremap-twin``: 6.16 to January 2026."""
        self.reuse_by_degree = reuse_by_degree
        """``--bug chain-reuse``: 3.19 to 5.19 counted children and areas in one ``degree``."""
        self.nr_anon_vmas = 0
        self.nr_chains = 0
        self._next_id = 1

    # -- objects ------------------------------------------------------------------------------------------------

    def _new_anon_vma(self, parent: ChainAnonVma | None) -> ChainAnonVma:
        anon_vma = ChainAnonVma(self._next_id, parent)
        self._next_id += 1
        self.nr_anon_vmas += 1
        self.counters.nr_allocated += 1
        if parent is not None:
            parent.num_children += 1
        return anon_vma

    def _link(self, vma: Vma, anon_vma: ChainAnonVma) -> None:
        if vma.anon_vma_chain is None:
            vma.anon_vma_chain = []
        link = AnonVmaChain(vma, anon_vma)
        vma.anon_vma_chain.append(link)
        anon_vma.tree.add(link)
        self.nr_chains += 1

    # -- may these become one area? -----------------------------------------------------------------------------

    def compatible(self, anon_vma: Any, source: Vma | None, neighbour: Vma) -> bool:
        other = neighbour.anon_vma
        if self.rule is ChainMergeRule.LINUX_3_0:
            if (anon_vma is None or other is None) and len(_chain(neighbour)) == 1:
                return True
            return anon_vma is other
        if other is None and anon_vma is not None:
            return source is None or not inherited(source)
        if other is not None and anon_vma is None:
            return not inherited(neighbour)
        return anon_vma is other

    # -- areas --------------------------------------------------------------------------------------------------

    def anon_vma_prepare(self, vma: Vma, vaddr: int | None = None) -> None:
        if vma.anon_vma is not None:
            return
        self.counters.nr_prepared += 1
        how, anon_vma = self._find_mergeable_anon_vma(vma)
        if anon_vma is None:
            anon_vma = self._new_anon_vma(None)
        else:
            self.counters.nr_adopted += 1
        vma.anon_vma = anon_vma
        self._link(vma, anon_vma)
        anon_vma.num_active_vmas += 1
        if MERGE_REFUSED.on or ANON_VMA_PREPARE.on or self.kernel.notes_first_writes:
            self._first_write(vma, how, vaddr)

    def _find_mergeable_anon_vma(self, vma: Vma) -> tuple[str, ChainAnonVma | None]:
        following, prev = vma.vm_next, vma.vm_prev
        if following is not None and _reusable(vma, following, vma, following):
            return "next", following.anon_vma
        if prev is not None and _reusable(vma, prev, prev, vma):
            return "prev", prev.anon_vma
        return "new", None

    def _clone(self, dst: Vma, src: Vma, reuse_for_fork: bool = False) -> ChainAnonVma | None:
        """``anon_vma_clone``: link ``dst`` to all that ``src`` is linked to; returns an ancestor that may be reused."""
        reused: ChainAnonVma | None = None
        for link in _chain(src):
            anon_vma = link.anon_vma
            self._link(dst, anon_vma)
            if reuse_for_fork and reused is None and self._reusable_by_child(anon_vma, src):
                reused = anon_vma
        return reused

    def _reusable_by_child(self, anon_vma: ChainAnonVma, src: Vma) -> bool:
        if self.reuse_by_degree:
            degree = anon_vma.num_children + anon_vma.num_active_vmas
            return anon_vma is not src.anon_vma and degree < 2
        return anon_vma.num_children < 2 and anon_vma.num_active_vmas == 0

    def fork_vma(self, parent: Vma, child: Vma) -> None:
        if parent.anon_vma is None:
            return
        reused = self._clone(child, parent, reuse_for_fork=True)
        if reused is not None:
            child.anon_vma = reused
            reused.num_active_vmas += 1
            self.counters.nr_adopted += 1
            return
        anon_vma = self._new_anon_vma(parent.anon_vma)
        child.anon_vma = anon_vma
        anon_vma.num_active_vmas = 1
        self._link(child, anon_vma)

    def split(self, vma: Vma, new: Vma) -> None:
        if vma.anon_vma is not None:
            self._dup(new, vma)

    def _dup(self, dst: Vma, src: Vma) -> None:
        """``dst`` without anon_vma gets all that ``src`` has."""
        dst.anon_vma = src.anon_vma
        self._clone(dst, src)
        src.anon_vma.num_active_vmas += 1
        if dst.first_write is None:
            dst.first_write = src.first_write

    def absorb(self, keeper: Vma, dying: Vma) -> None:
        if dying.anon_vma is None:
            return
        if keeper.anon_vma is None:
            self._dup(keeper, dying)
        elif keeper.anon_vma is not dying.anon_vma:
            raise AssertionError(f"merge of {keeper!r} and {dying!r} with different anon_vmas")
        self.unlink_vma(dying)

    def boundary(self, grower: Vma, shrinker: Vma) -> None:
        if grower.anon_vma is None and shrinker.anon_vma is not None:
            self._dup(grower, shrinker)

    def hand_over(self, merged: Vma, source: Vma) -> None:
        if merged.anon_vma is None and source.anon_vma is not None and not self.mover_forgets:
            self._dup(merged, source)

    def unlink_vma(self, vma: Vma) -> None:
        """``unlink_anon_vmas``: from the newest to the oldest, so that children go before their parents."""
        chain = _chain(vma)
        for link in reversed(chain):
            anon_vma = link.anon_vma
            anon_vma.tree.remove(link)
            if not anon_vma.tree:
                anon_vma.parent.num_children -= 1
                self.nr_anon_vmas -= 1
        self.nr_chains -= len(chain)
        if vma.anon_vma is not None:
            vma.anon_vma.num_active_vmas -= 1
        vma.anon_vma = None
        vma.anon_vma_chain = None
        vma.first_write = None

    def range_changed(self, vma: Vma) -> None:
        if vma.anon_vma_chain:
            for link in vma.anon_vma_chain:
                link.anon_vma.tree.range_changed()

    # -- pages --------------------------------------------------------------------------------------------------

    def page_add_new_anon_rmap(self, pfn: int, vma: Vma, vaddr: int, pte_word_index: int) -> None:
        pages = self.kernel.pages
        pages.mapping[pfn] = vma.anon_vma
        pages.index[pfn] = ((vaddr - vma.vm_start) >> PAGE_SHIFT) + vma.vm_pgoff

    def page_add_anon_rmap(self, pfn: int, vma: Vma, vaddr: int, pte_word_index: int) -> None:
        """A page that others may map belongs to the root, where every sharer finds it."""
        pages = self.kernel.pages
        if pages.mapcount[pfn] > 1:
            return
        exclusive = pages.flags[pfn] & PG_exclusive
        pages.mapping[pfn] = vma.anon_vma if exclusive else vma.anon_vma.root
        pages.index[pfn] = ((vaddr - vma.vm_start) >> PAGE_SHIFT) + vma.vm_pgoff

    def walk(self, pfn: int) -> Iterator[Proposal]:
        counters = self.counters
        counters.nr_walks += 1
        pages = self.kernel.pages
        anon_vma = pages.mapping[pfn]
        if not isinstance(anon_vma, ChainAnonVma):
            return
        index = pages.index[pfn]
        for link in anon_vma.tree.containing(index):
            vma = link.vma
            counters.nr_visited += 1
            counters.nr_proposed += 1
            yield Proposal(vma.vm_mm, vma.vm_start + ((index - vma.vm_pgoff) << PAGE_SHIFT), vma)

    # -- reports ------------------------------------------------------------------------------------------------

    def memory_cost(self) -> MemoryCost:
        return MemoryCost(
            self.nr_anon_vmas + self.nr_chains,
            self.nr_anon_vmas * ANON_VMA_BYTES + self.nr_chains * ANON_VMA_CHAIN_BYTES,
        )

    def vmas_of(self, anon_vma: Any) -> list[Vma]:
        return [link.vma for link in anon_vma.tree] if isinstance(anon_vma, ChainAnonVma) else []


def _reusable(vma: Vma, near: Vma, lower: Vma, upper: Vma) -> bool:
    """``reusable_anon_vma``: ``near`` (one of ``lower`` and ``upper``, ``vma`` the other) may lend its anon_vma."""
    return (
        near.anon_vma is not None
        and len(near.anon_vma_chain) == 1
        and lower.vm_end == upper.vm_start
        and not (vma.vm_flags ^ near.vm_flags) & ~_IGNORED_FLAGS
        and near.vm_file is vma.vm_file
        and near.vm_policy == vma.vm_policy
        and upper.vm_pgoff == lower.vm_pgoff + ((lower.vm_end - lower.vm_start) >> PAGE_SHIFT)
    )
