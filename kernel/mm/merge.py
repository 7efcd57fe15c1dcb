"""When two areas become one.

Models ``vma_merge`` and ``vma_adjust`` of ``mm/mmap.c`` (2.6.7) and their successors in ``mm/vma.c``
(``vma_merge_new_range``, ``vma_merge_existing_range``).  RMAP.md sections 1.1 and 8.  One engine serves all eras; what
they disagree on is which flags count and what the rmap policy answers to ``compatible``, ``joinable`` and
``anon_pgoff_matters``.

Every touching neighbour that stays apart is counted by reason in ``kernel.vm_stat.refused`` and, when somebody listens,
told by ``mm:merge_refused`` with both areas' first writes: who made the anon_vmas that keep them apart.

Deliberate differences: the lower area survives, but for case 8, as in 2.6 (today's kernels sometimes keep another one);
no allocation can fail here; special mappings never join (their operations have ``close``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from kernel.mm.area import VMA_STORE, free_vma, i_mmap_remove, set_vma_range, split_vma, vma_unlink
from kernel.mm.rmap.policy import MERGE_REFUSED, RmapPolicy
from kernel.mm.types import (
    PAGE_SHIFT,
    VM_DONTCOPY,
    VM_DONTEXPAND,
    VM_IO,
    VM_MIXEDMAP,
    VM_PFNMAP,
    VM_RESERVED,
    VM_SOFTDIRTY,
    MmStruct,
    Vma,
)
from kernel.profile import MergeRules
from kernel.trace import Tracepoint

if TYPE_CHECKING:
    from kernel.fs.file import File

VMA_MERGE = Tracepoint("mm:vma_merge", "mm case start end vma")
"""``[start, end)`` is now part of ``vma``, by ``case``: 1 to 8 of vma_merge, ``prev`` or ``next`` of mprotect before
rmap 36.
"""

_LINUX_6 = MergeRules.LINUX_6
_SPECIAL_2_6 = VM_IO | VM_DONTCOPY | VM_DONTEXPAND | VM_RESERVED
_SPECIAL_6 = VM_IO | VM_DONTEXPAND | VM_PFNMAP | VM_MIXEDMAP


class Area(NamedTuple):
    """What wanted to join, for ``mm:merge_refused``: a new range, or a part of ``source`` about to change."""

    vm_start: int
    vm_end: int
    vm_flags: int
    vm_pgoff: int
    source: Vma | None


def vma_merge(
    mm: MmStruct,
    prev: Vma | None,
    start: int,
    end: int,
    vm_flags: int,
    anon_vma: Any,
    file: File | None,
    pgoff: int,
    source: Vma | None = None,
    anon_name: str | None = None,
    vm_policy: Any = None,
) -> Vma | None:
    """Join ``[start, end)`` to the areas that touch it, or return None.

    ``prev`` is the area before ``start``, or the one that contains ``start`` (mprotect of a part).  The range is a
    hole or lies within one area.  ``source`` is the area that the range is part of, or that mremap moves there;
    ``anon_vma`` is its anon_vma.  Returns the area that now contains the range; after case 8 the caller must still set
    its flags.
    """
    kernel = mm.kernel
    policy = kernel.policy
    if vm_flags & (_SPECIAL_6 if kernel.profile.merge is _LINUX_6 else _SPECIAL_2_6):
        return None
    following = prev.vm_next if prev is not None else mm.areas.first
    area = following
    if following is not None and following.vm_end == end:  # the range is a whole area
        following = following.vm_next
    left = right = False
    if prev is not None and prev.vm_end == start:
        prev_pgoff_end = prev.vm_pgoff + ((start - prev.vm_start) >> PAGE_SHIFT)
        why = _why_not(policy, prev, vm_flags, anon_vma, file, source, anon_name, vm_policy, prev_pgoff_end == pgoff)
        if why:
            _refused(mm, Area(start, end, vm_flags, pgoff, source), anon_vma, prev, why)
        else:
            left = True
    if following is not None and following.vm_start == end:
        next_pgoff = pgoff + ((end - start) >> PAGE_SHIFT)
        continues = following.vm_pgoff == next_pgoff
        why = _why_not(policy, following, vm_flags, anon_vma, file, source, anon_name, vm_policy, continues)
        if not why and left and prev is not None and not policy.joinable(prev, following):
            why = "anon_vma"
        if why:
            _refused(mm, Area(start, end, vm_flags, pgoff, source), anon_vma, following, why)
        else:
            right = True
    if left and prev is not None:
        if area is None or area.vm_start >= end:  # a hole
            if right and following is not None:
                case, merged = "1", absorb_next(mm, prev, 1)
            else:
                set_vma_range(prev, prev.vm_start, end, prev.vm_pgoff)
                case, merged = "2", prev
        elif area.vm_end > end:
            case, merged = "5", move_boundary(prev, area, end)
        elif right:
            case, merged = "6", absorb_next(mm, prev, 2)
        else:
            case, merged = "7", absorb_next(mm, prev, 1)
    elif right and following is not None:
        if prev is not None and start < prev.vm_end:
            case, merged = "4", move_boundary(prev, following, start)
        elif area is following:
            set_vma_range(following, start, following.vm_end, following.vm_pgoff - ((end - start) >> PAGE_SHIFT))
            case, merged = "3", following
        else:
            assert area is not None
            case, merged = "8", absorb_next(mm, area, 1)
    else:
        return None
    kernel.vm_stat.merged[case] += 1
    if VMA_MERGE.on:
        VMA_MERGE.emit(mm, case, start, end, merged)
    return merged


def _why_not(
    policy: RmapPolicy,
    near: Vma,
    vm_flags: int,
    anon_vma: Any,
    file: File | None,
    source: Vma | None,
    anon_name: str | None,
    vm_policy: Any,
    continues: bool,
) -> str:
    """Which rule keeps an area apart from ``near``, the area that it touches; ``""`` if none does."""
    if near.vm_flags != vm_flags and (near.vm_flags ^ vm_flags) & ~VM_SOFTDIRTY:
        return "flags"
    if near.vm_file is not file:
        return "file"
    if near.vm_ops is not None:
        return "close"
    if near.vm_policy != vm_policy:
        return "policy"
    if near.anon_name != anon_name:
        return "anon_name"
    if not continues and (file is not None or policy.anon_pgoff_matters):
        return "pgoff"
    if not policy.compatible(anon_vma, source, near):
        return "anon_vma"
    return ""


def modify_flags(vma: Vma, start: int, end: int, new_flags: int, anon_name: str | None = None) -> Vma:
    """``vma_modify_flags``: give ``[start, end)`` of ``vma`` new flags (and name), joining where the era allows, else
    splitting.

    Returns the area that contains the range.  KernelError(ENOMEM) when a split is refused.  For madvise and mlock;
    mprotect has rules of its own.  ``anon_name`` None keeps the name.
    """
    mm = vma.vm_mm
    name = vma.anon_name if anon_name is None else anon_name or None
    if mm.kernel.profile.merge is _LINUX_6:
        prev = vma if start > vma.vm_start else vma.vm_prev
        pgoff = vma.vm_pgoff + ((start - vma.vm_start) >> PAGE_SHIFT)
        merged = vma_merge(
            mm, prev, start, end, new_flags, vma.anon_vma, vma.vm_file, pgoff, vma, name, vma.vm_policy
        )
        if merged is not None:
            merged.vm_flags = new_flags
            merged.anon_name = name
            if VMA_STORE.on:
                VMA_STORE.emit(mm, merged)
            return merged
    if start > vma.vm_start:
        split_vma(mm, vma, start, True)
    if end < vma.vm_end:
        split_vma(mm, vma, end, False)
    vma.vm_flags = new_flags
    vma.anon_name = name
    if VMA_STORE.on:
        VMA_STORE.emit(mm, vma)
    return vma


def can_join(mm: MmStruct, lower: Vma, upper: Vma, upper_flags: int | None = None) -> bool:
    """May ``upper`` (with ``upper_flags`` instead of its own) be joined to ``lower``, which it touches?"""
    vm_flags = upper.vm_flags if upper_flags is None else upper_flags
    why = why_apart(lower, upper, vm_flags)
    if why and why != "special":
        area = Area(upper.vm_start, upper.vm_end, vm_flags, upper.vm_pgoff, upper)
        _refused(mm, area, upper.anon_vma, lower, why)
    return not why


def why_apart(lower: Vma, upper: Vma, upper_flags: int) -> str:
    """Which rule keeps ``upper`` (with ``upper_flags``) apart from ``lower``, which it touches; ``""`` if none does.

    Counts and tells nothing.  ``special``: such an area never joins, whatever its neighbours are.
    """
    kernel = lower.vm_mm.kernel
    if upper_flags & (_SPECIAL_6 if kernel.profile.merge is _LINUX_6 else _SPECIAL_2_6):
        return "special"
    continues = lower.vm_pgoff + ((lower.vm_end - lower.vm_start) >> PAGE_SHIFT) == upper.vm_pgoff
    return _why_not(
        kernel.policy,
        lower,
        upper_flags,
        upper.anon_vma,
        upper.vm_file,
        upper,
        upper.anon_name,
        upper.vm_policy,
        continues,
    )


def _refused(mm: MmStruct, area: Area, anon_vma: Any, near: Vma, why: str) -> None:
    mm.kernel.vm_stat.refused[why] += 1
    if MERGE_REFUSED.on:
        source = area.source
        first_write = source.first_write if source is not None else None
        MERGE_REFUSED.emit(mm, area, near, why, anon_vma, near.anon_vma, first_write, near.first_write)


def absorb_next(mm: MmStruct, keeper: Vma, nr_areas: int) -> Vma:
    """``keeper`` takes over the ``nr_areas`` areas after it, and all between; returns ``keeper``."""
    policy = mm.kernel.policy
    for _ in range(nr_areas):
        dying = keeper.vm_next
        assert dying is not None
        if dying.vm_file is not None:
            i_mmap_remove(dying)
        vma_unlink(mm, dying)
        policy.absorb(keeper, dying)
        set_vma_range(keeper, keeper.vm_start, dying.vm_end, keeper.vm_pgoff)
        free_vma(dying)
    return keeper


def move_boundary(lower: Vma, upper: Vma, addr: int) -> Vma:
    """Move the boundary between two touching areas to ``addr``; returns the one that grew."""
    policy = lower.vm_mm.kernel.policy
    pgoff = upper.vm_pgoff + ((addr - upper.vm_start) >> PAGE_SHIFT)
    if addr > lower.vm_end:
        grower = lower
        policy.boundary(lower, upper)
        set_vma_range(upper, addr, upper.vm_end, pgoff)
        set_vma_range(lower, lower.vm_start, addr, lower.vm_pgoff)
    else:
        grower = upper
        policy.boundary(upper, lower)
        set_vma_range(lower, lower.vm_start, addr, lower.vm_pgoff)
        set_vma_range(upper, addr, upper.vm_end, pgoff)
    return grower
