"""munmap: split at both ends, take the areas out, unmap their pages, free them.

Models ``do_munmap`` (mm/mmap.c of 2.6) and ``do_vmi_align_munmap`` (mm/vma.c).  Manual: munmap(2).

Order (RMAP.md section 1.4): areas leave the mm, then their PTEs go, and only then do they leave their anon_vma and
file.
"""

from __future__ import annotations

from kernel.abi.errno import Errno, KernelError
from kernel.mm.accounting import vm_stat_account, vm_unacct_memory
from kernel.mm.area import free_vma, i_mmap_remove, page_align, split_vma, split_vma_unlimited, vma_unlink
from kernel.mm.memory import zap_page_range
from kernel.mm.types import (
    PAGE_MASK,
    PAGE_SHIFT,
    TASK_SIZE,
    VM_ACCOUNT,
    VM_LOCKED,
    VM_SEALED,
    MmStruct,
    Vma,
)
from kernel.profile import MergeRules


def do_munmap(mm: MmStruct, start: int, len_bytes: int) -> None:
    """Unmap ``[start, start + len_bytes)``; a range without areas is no error.  EINVAL, ENOMEM (too many areas),
    EPERM.
    """
    if start & ~PAGE_MASK:
        raise KernelError(Errno.EINVAL, "address not page aligned")
    if start > TASK_SIZE or len_bytes > TASK_SIZE - start:
        raise KernelError(Errno.EINVAL, "range outside the address space")
    end = start + page_align(len_bytes)
    if end == start:
        raise KernelError(Errno.EINVAL, "length 0")
    first = mm.areas.find_vma(start)
    if first is None or first.vm_start >= end:
        return
    vma: Vma | None = gather(mm, first, start, end)
    detached: list[Vma] = []
    while vma is not None and vma.vm_start < end:
        following = vma.vm_next
        vma_unlink(mm, vma)
        detached.append(vma)
        vma = following
    unmap_detached(mm, detached)


def gather(mm: MmStruct, first: Vma, start: int, end: int) -> Vma:
    """Cut the areas at both ends of ``[start, end)``; returns the first inside.  ``first`` overlaps the range.

    EPERM for a sealed area, ENOMEM: cuts that were made before stay.
    """
    cut = split_vma
    if mm.kernel.profile.merge is MergeRules.LINUX_6:
        if start > first.vm_start and end < first.vm_end and mm.map_count >= mm.kernel.sysctl.max_map_count:
            raise KernelError(Errno.ENOMEM, "munmap in the middle: map_count at max_map_count")
        cut = split_vma_unlimited
    if start > first.vm_start:
        _check_not_sealed(first)
        first = cut(mm, first, start, False)
    last = first
    while True:
        _check_not_sealed(last)
        following = last.vm_next
        if following is None or following.vm_start >= end:
            break
        last = following
    if last.vm_end > end:
        below = cut(mm, last, end, True)
        if first is last:
            first = below
    return first


def _check_not_sealed(vma: Vma) -> None:
    """``can_modify_vma``: EPERM if the area was sealed by mseal."""
    if vma.vm_flags & VM_SEALED:
        raise KernelError(Errno.EPERM, "area is sealed")


def unmap_detached(mm: MmStruct, detached: list[Vma]) -> None:
    """Zap and free areas that are in the mm no more.  They follow each other in the address space."""
    kernel = mm.kernel
    policy = kernel.policy
    for vma in detached:
        zap_page_range(vma, vma.vm_start, vma.vm_end)
    below, above = detached[0].vm_prev, detached[-1].vm_next
    mm.pt.free_pgtables(
        detached[0].vm_start,
        detached[-1].vm_end,
        below.vm_end if below is not None else 0,
        above.vm_start if above is not None else 0,
    )
    for vma in detached:
        nr_pages = (vma.vm_end - vma.vm_start) >> PAGE_SHIFT
        vm_flags = vma.vm_flags
        if vm_flags & VM_ACCOUNT:
            vm_unacct_memory(kernel, nr_pages)
        if vm_flags & VM_LOCKED:
            mm.locked_vm -= nr_pages
        vm_stat_account(mm, vm_flags, -nr_pages)
        policy.unlink_vma(vma)
        if vma.vm_file is not None:
            i_mmap_remove(vma)
            free_vma(vma)

