"""Locked memory: mlock, mlock2, munlock, mlockall, munlockall, and faulting ranges in.

Models ``mm/mlock.c`` and ``mm_populate`` (mm/gup.c).  Manual: mlock(2).
"""

from __future__ import annotations

from kernel.abi.errno import KernelError
from kernel.mm.fault import populate_range
from kernel.mm.types import PAGE_MASK, PAGE_SIZE, VM_IO, VM_LOCKONFAULT, VM_PFNMAP, MmStruct, Vma


def mm_populate(mm: MmStruct, start: int, len_bytes: int) -> None:
    """Make the pages of ``[start, start + len_bytes)`` present where that is possible; never fails."""
    end = start + (len_bytes + PAGE_SIZE - 1 & PAGE_MASK)
    vma = mm.areas.find_vma(start)
    while vma is not None and vma.vm_start < end:
        try:
            populate_vma(vma, max(start, vma.vm_start), min(end, vma.vm_end))
        except KernelError:
            pass
        vma = vma.vm_next


def populate_vma(vma: Vma, start: int, end: int) -> None:
    """``populate_vma_page_range``: fault the pages of one area in.  KernelError: EFAULT, ENOMEM."""
    if vma.vm_flags & (VM_IO | VM_PFNMAP | VM_LOCKONFAULT):
        return
    populate_range(vma.vm_mm, start, end)
