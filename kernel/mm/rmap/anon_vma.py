"""anon_vma as one list of areas: rmap 39, Andrea Arcangeli's sharing, rmap 40, and the extreme of one for all.

Models ``mm/rmap.c`` of 2.6.7 (``anon_vma_prepare``, ``__anon_vma_merge``, ``anon_vma_unlink``),
``find_mergeable_anon_vma`` of ``mm/mmap.c`` and, for AT_MERGE, the ``anon_vma`` cache of 2.6.5-aa's ``vma_merge``.
RMAP.md sections 4 to 7.

Invariants (checked): an anonymous page in area V has ``mapping`` V.anon_vma and ``index`` (address - vm_start) in
pages + vm_pgoff; an area with ``anon_vma`` set is on that list exactly once; a list in use is never empty.

Deliberate differences: the list is a dict in order of insertion, walked backwards (Linux adds at the head);
``Sharing.ALL`` never existed in any kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import TYPE_CHECKING, Any

from kernel.mm.rmap.policy import (
    ANON_VMA_PREPARE,
    MERGE_REFUSED,
    MemoryCost,
    Proposal,
    RmapPolicy,
    linear_index,
)
from kernel.mm.types import PAGE_SHIFT, VM_ACCESS_FLAGS, MmStruct, Vma

if TYPE_CHECKING:
    from kernel.kernel import Kernel

ANON_VMA_BYTES = 24
"""Lock and list head."""
VMA_NODE_BYTES = 24
"""List node and pointer in every area that has an anon_vma."""


class Sharing(Enum):
    """When neighbouring areas come to share an anon_vma."""

    NONE = "never"
    AT_MERGE = "when mmap finds a neighbour that differs only in flags"
    AT_FIRST_WRITE = "when the first write finds a neighbour that differs only in protection"
    ALL = "always: one for the whole address space"


class AnonVma:
    """``struct anon_vma``: the areas in which a page may lie."""

    __slots__ = ("id", "nr_mms", "vmas")

    def __init__(self, number: int) -> None:
        self.id = number
        self.nr_mms = 0
        """Address spaces that have it as their one anon_vma (Sharing.ALL)."""
        self.vmas: dict[Vma, None] = {}

    def __repr__(self) -> str:
        return f"anon_vma#{self.id}({len(self.vmas)} areas)"


class AnonVmaPolicy(RmapPolicy):
    """One list of areas for each anon_vma."""

    name = "anon_vma"

    def __init__(
        self,
        kernel: Kernel,
        sharing: Sharing,
        *,
        grower_forgets: bool = False,
        mover_forgets: bool = False,
    ) -> None:
        super().__init__(kernel)
        self.sharing = sharing
        self.shares_at_merge = sharing is Sharing.AT_MERGE
        self.grower_forgets = grower_forgets
        """``--bug mprotect-grower``: 2.6.7 as released (RMAP.md section 12, item 1)."""
        self.mover_forgets = mover_forgets
        """``--bug mremap-twin``: 2.6.7 to 2.6.9 (item 1a)."""
        self.nr_anon_vmas = 0
        self.nr_linked = 0
        self._next_id = 1

    # -- lists --------------------------------------------------------------------------------------------------

    def _new_anon_vma(self) -> AnonVma:
        anon_vma = AnonVma(self._next_id)
        self._next_id += 1
        self.nr_anon_vmas += 1
        self.counters.nr_allocated += 1
        return anon_vma

    def _link(self, vma: Vma, anon_vma: AnonVma) -> None:
        vma.anon_vma = anon_vma
        anon_vma.vmas[vma] = None
        self.nr_linked += 1

    # -- areas --------------------------------------------------------------------------------------------------

    def new_mm(self, mm: MmStruct) -> None:
        mm.rmap = None

    def fork_mm(self, parent: MmStruct, child: MmStruct) -> None:
        if self.sharing is Sharing.ALL:
            child.rmap = self._one_of(parent)
            child.rmap.nr_mms += 1

    def _one_of(self, mm: MmStruct) -> AnonVma:
        """Sharing.ALL: the anon_vma of the whole address space."""
        anon_vma: AnonVma | None = mm.rmap
        if anon_vma is None:
            anon_vma = mm.rmap = self._new_anon_vma()
            anon_vma.nr_mms = 1
        return anon_vma

    def anon_vma_prepare(self, vma: Vma, vaddr: int | None = None) -> None:
        if vma.anon_vma is not None:
            return
        self.counters.nr_prepared += 1
        how, anon_vma = "new", None
        if self.sharing is Sharing.ALL:
            how = "new" if vma.vm_mm.rmap is None else "mm"
            anon_vma = self._one_of(vma.vm_mm)
        elif self.sharing is Sharing.AT_FIRST_WRITE:
            how, anon_vma = self._find_mergeable_anon_vma(vma)
        if anon_vma is None:
            anon_vma = self._new_anon_vma()
        elif how != "new":
            self.counters.nr_adopted += 1
        self._link(vma, anon_vma)
        if MERGE_REFUSED.on or ANON_VMA_PREPARE.on or self.kernel.notes_first_writes:
            self._first_write(vma, how, vaddr)

    def _find_mergeable_anon_vma(self, vma: Vma) -> tuple[str, AnonVma | None]:
        """rmap 40: a touching neighbour that differs only in read, write and execute permission; next, then prev."""
        near = vma.vm_next
        if (
            near is not None
            and near.anon_vma is not None
            and vma.vm_end == near.vm_start
            and near.vm_pgoff == vma.vm_pgoff + ((vma.vm_end - vma.vm_start) >> PAGE_SHIFT)
            and _differ_in_protection_only(vma, near)
        ):
            return "next", near.anon_vma
        near = vma.vm_prev
        if (
            near is not None
            and near.anon_vma is not None
            and near.vm_end == vma.vm_start
            and near.vm_pgoff + ((near.vm_end - near.vm_start) >> PAGE_SHIFT) == vma.vm_pgoff
            and _differ_in_protection_only(vma, near)
        ):
            return "prev", near.anon_vma
        return "new", None

    def on_new_vma(self, vma: Vma, prev: Vma | None, following: Vma | None) -> None:
        """2.6.5-aa: the first touching neighbour that differs only in flags lends its anon_vma, perhaps NULL."""
        cache: AnonVma | None = None
        if prev is not None and prev.vm_end == vma.vm_start and _differ_in_flags_only(vma, prev, vma):
            cache = prev.anon_vma
        if cache is None and following is not None and following.vm_start == vma.vm_end:  # noqa: SIM102
            if _differ_in_flags_only(vma, vma, following):
                cache = following.anon_vma
        if cache is not None:
            self.counters.nr_adopted += 1
            self._link(vma, cache)

    def fork_vma(self, parent: Vma, child: Vma) -> None:
        if parent.anon_vma is not None:
            self._link(child, parent.anon_vma)

    def split(self, vma: Vma, new: Vma) -> None:
        if vma.anon_vma is not None:
            self._link(new, vma.anon_vma)

    def absorb(self, keeper: Vma, dying: Vma) -> None:
        anon_vma = dying.anon_vma
        if anon_vma is None:
            return
        if keeper.anon_vma is None:
            self._link(keeper, anon_vma)
            keeper.first_write = dying.first_write
        elif keeper.anon_vma is not anon_vma:
            raise AssertionError(f"merge of {keeper!r} and {dying!r} with different anon_vmas")
        self.unlink_vma(dying)

    def boundary(self, grower: Vma, shrinker: Vma) -> None:
        if grower.anon_vma is None and shrinker.anon_vma is not None and not self.grower_forgets:
            self._link(grower, shrinker.anon_vma)
            grower.first_write = shrinker.first_write

    def hand_over(self, merged: Vma, source: Vma) -> None:
        if merged.anon_vma is None and source.anon_vma is not None and not self.mover_forgets:
            self._link(merged, source.anon_vma)
            merged.first_write = source.first_write

    def unlink_vma(self, vma: Vma) -> None:
        anon_vma = vma.anon_vma
        if anon_vma is None:
            return
        vma.anon_vma = None
        vma.first_write = None
        del anon_vma.vmas[vma]
        self.nr_linked -= 1
        if not anon_vma.vmas and self.sharing is not Sharing.ALL:
            self.nr_anon_vmas -= 1

    def exit_mm(self, mm: MmStruct) -> None:
        anon_vma: AnonVma | None = mm.rmap
        mm.rmap = None
        if anon_vma is not None:
            anon_vma.nr_mms -= 1
            if not anon_vma.nr_mms:
                self.nr_anon_vmas -= 1

    # -- pages --------------------------------------------------------------------------------------------------

    def page_add_new_anon_rmap(self, pfn: int, vma: Vma, vaddr: int, pte_word_index: int) -> None:
        pages = self.kernel.pages
        pages.mapping[pfn] = vma.anon_vma
        pages.index[pfn] = ((vaddr - vma.vm_start) >> PAGE_SHIFT) + vma.vm_pgoff

    def walk(self, pfn: int) -> Iterator[Proposal]:
        counters = self.counters
        counters.nr_walks += 1
        pages = self.kernel.pages
        anon_vma = pages.mapping[pfn]
        if not isinstance(anon_vma, AnonVma):
            return
        index = pages.index[pfn]
        for vma in reversed(anon_vma.vmas):
            counters.nr_visited += 1
            vaddr = vma.vm_start + ((index - vma.vm_pgoff) << PAGE_SHIFT)
            if vma.vm_start <= vaddr < vma.vm_end:
                counters.nr_proposed += 1
                yield Proposal(vma.vm_mm, vaddr, vma)

    # -- reports ------------------------------------------------------------------------------------------------

    def memory_cost(self) -> MemoryCost:
        return MemoryCost(self.nr_anon_vmas, self.nr_anon_vmas * ANON_VMA_BYTES + self.nr_linked * VMA_NODE_BYTES)

    def vmas_of(self, anon_vma: Any) -> list[Vma]:
        return list(reversed(anon_vma.vmas)) if isinstance(anon_vma, AnonVma) else []


def _differ_in_protection_only(vma: Vma, near: Vma) -> bool:
    """``reusable_anon_vma`` of rmap 40, but for the address and offset tests."""
    return (
        not (vma.vm_flags ^ near.vm_flags) & ~VM_ACCESS_FLAGS
        and near.vm_file is vma.vm_file
        and near.vm_policy == vma.vm_policy
        and near.vm_ops is None
    )


def _differ_in_flags_only(new: Vma, lower: Vma, upper: Vma) -> bool:
    """2.6.5-aa's test: ``lower`` and ``upper`` (one of them is ``new``) would merge if their flags agreed, and they do
    not.
    """
    near = upper if lower is new else lower
    return (
        near.vm_flags != new.vm_flags
        and near.vm_file is new.vm_file
        and near.vm_private is None
        and near.vm_ops is None
        and linear_index(lower, lower.vm_end) == upper.vm_pgoff
    )
