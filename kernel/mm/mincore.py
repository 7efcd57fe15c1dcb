"""mincore: which pages of a range are in memory.

Models ``mm/mincore.c``.  Manual: mincore(2).
"""

from __future__ import annotations

from kernel.abi.errno import Errno, KernelError
from kernel.abi.fcntl import MAY_WRITE
from kernel.fs.permission import owner_or_capable
from kernel.mm.pagetable import PTE_PRESENT
from kernel.mm.types import PAGE_SHIFT, MmStruct, Vma

_PTE_ENTRY_SHIFT = 9


def do_mincore(mm: MmStruct, start: int, nr_pages: int) -> bytes:
    """One byte for each page from ``start`` on, as far as areas go; ENOMEM if there is none at ``start``."""
    vma = mm.areas.find_exact(start)
    if vma is None:
        raise KernelError(Errno.ENOMEM, "hole in the range")
    nr_pages = min(nr_pages, (vma.vm_end - start) >> PAGE_SHIFT)
    if not _may_know(vma):
        return bytes([1]) * nr_pages
    return bytes(_is_resident(vma, start + (i << PAGE_SHIFT)) for i in range(nr_pages))


def _may_know(vma: Vma) -> bool:
    """``can_do_mincore``: what others have in the page cache is not for everybody to see."""
    if vma.vm_ops is not None:
        return False
    file = vma.vm_file
    if file is None:
        return True
    task = vma.vm_mm.kernel.current
    return owner_or_capable(task, file.f_inode) or file.f_inode.permission(task, MAY_WRITE)


def _is_resident(vma: Vma, vaddr: int) -> bool:
    mm = vma.vm_mm
    pte = mm.pt.get(vaddr)
    if pte & PTE_PRESENT:
        return True
    if pte:
        return bool(mm.kernel.swap.cache.lookup(pte >> _PTE_ENTRY_SHIFT))
    mapping = vma.vm_file.f_mapping if vma.vm_file is not None else None
    return mapping is not None and vma.vm_pgoff + ((vaddr - vma.vm_start) >> PAGE_SHIFT) in mapping.pages
