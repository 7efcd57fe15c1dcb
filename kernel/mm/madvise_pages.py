"""What madvise does to pages: drop, free lazily, cool down, page out, read ahead, populate.

Models ``mm/madvise.c`` (``madvise_dontneed_free``, ``madvise_free_single_vma``, ``madvise_cold_or_pageout_pte_range``,
``madvise_willneed``, ``madvise_remove``, ``madvise_populate``).  Manual: madvise(2).
"""

from __future__ import annotations

from collections.abc import Iterator

from kernel.abi.errno import Errno, KernelError
from kernel.abi.fcntl import FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE
from kernel.mm.fault import FaultResult, fault_in_page
from kernel.mm.memory import zap_page_range
from kernel.mm.page import PG_anon, PG_dirty, PG_referenced, PG_swapbacked, PG_swapcache
from kernel.mm.pagetable import PTE_PRESENT, PTE_SPECIAL
from kernel.mm.types import (
    PAGE_SHIFT,
    VM_HUGETLB,
    VM_IO,
    VM_LOCKED,
    VM_MAYWRITE,
    VM_PFNMAP,
    VM_READ,
    VM_SHARED,
    VM_WRITE,
    MmStruct,
    Vma,
)
from mmu.paging import PF_WRITE, PTE_A, PTE_D, PTE_PFN_MASK

_NOT_LRU_AREA = VM_LOCKED | VM_PFNMAP | VM_HUGETLB
_NOT_A = ~PTE_A & 0xFFFF_FFFF_FFFF_FFFF
_NOT_AD = ~(PTE_A | PTE_D) & 0xFFFF_FFFF_FFFF_FFFF
_NOT_LAZY = ~(PG_swapbacked | PG_dirty | PG_referenced) & 0xFFFF_FFFF
_PTE_ENTRY_SHIFT = 9


def _ptes(mm: MmStruct, start: int, end: int) -> Iterator[tuple[int, int]]:
    """(vaddr, word index) of every PTE in the range that is not 0."""
    q = mm.pt.q
    for base, table, i0, i1 in mm.pt.leaf_ranges(start, end):
        for i in range(i0, i1):
            if q[table + i]:
                yield base + (i << PAGE_SHIFT), table + i


def advise_dontneed(vma: Vma, start: int, end: int, locked_too: bool = False) -> None:
    """MADV_DONTNEED: the next access sees zeros, or the file's data."""
    if vma.vm_flags & (VM_PFNMAP | (0 if locked_too else VM_LOCKED)):
        raise KernelError(Errno.EINVAL, "locked or device memory")
    zap_page_range(vma, start, end)


def advise_free(vma: Vma, start: int, end: int) -> None:
    """MADV_FREE: reclaim may drop the pages, unless they are written first."""
    if vma.vm_flags & (VM_PFNMAP | VM_LOCKED):
        raise KernelError(Errno.EINVAL, "locked or device memory")
    if vma.vm_file is not None or vma.vm_ops is not None or vma.vm_flags & VM_SHARED:
        raise KernelError(Errno.EINVAL, "MADV_FREE is for private anonymous memory")
    mm = vma.vm_mm
    kernel = mm.kernel
    pages, q, swap = kernel.pages, mm.pt.q, kernel.pages.swap
    if swap is not None:
        kernel.lru.drain()
    for _vaddr, index in _ptes(mm, start, end):
        pte = q[index]
        if not pte & PTE_PRESENT:
            assert swap is not None
            q[index] = 0
            mm.swap_pages -= 1
            swap.swap_free([pte])
            continue
        if pte & PTE_SPECIAL:
            continue
        pfn = (pte & PTE_PFN_MASK) >> PAGE_SHIFT
        flags = pages.flags[pfn]
        if not flags & PG_anon or pages.mapcount[pfn] != 1:
            continue
        if flags & PG_swapcache and (swap is None or not swap.try_to_free_swap(pfn)):
            continue
        pages.flags[pfn] &= _NOT_LAZY
        # The next write sets the dirty bit, and so takes the page back.
        q[index] = pte & _NOT_AD
        if swap is not None:
            kernel.lru.deactivate_page(pfn)
            kernel.vmstat.pglazyfree += 1
    kernel.hw.flush_tlb()


def _cold_pages(vma: Vma, start: int, end: int) -> list[int]:
    """The pages of the range that this area alone maps, their marks of use taken off."""
    mm = vma.vm_mm
    pages, q = mm.kernel.pages, mm.pt.q
    found = []
    for _vaddr, index in _ptes(mm, start, end):
        pte = q[index]
        if not pte & PTE_PRESENT or pte & PTE_SPECIAL:
            continue
        pfn = (pte & PTE_PFN_MASK) >> PAGE_SHIFT
        if pages.mapcount[pfn] == 1:
            q[index] = pte & _NOT_A
            pages.flags[pfn] &= ~PG_referenced & 0xFFFF_FFFF
            found.append(pfn)
    mm.kernel.hw.flush_tlb()
    return found


def advise_cold(vma: Vma, start: int, end: int) -> None:
    """MADV_COLD: to the inactive list."""
    if vma.vm_flags & _NOT_LRU_AREA:
        raise KernelError(Errno.EINVAL, "locked or device memory")
    kernel = vma.vm_mm.kernel
    found = _cold_pages(vma, start, end)
    if kernel.pages.swap is not None:
        kernel.lru.drain()
        for pfn in found:
            kernel.lru.deactivate_page(pfn)


def advise_pageout(vma: Vma, start: int, end: int) -> None:
    """MADV_PAGEOUT: reclaim the pages now."""
    if vma.vm_flags & _NOT_LRU_AREA:
        raise KernelError(Errno.EINVAL, "locked or device memory")
    kernel = vma.vm_mm.kernel
    if kernel.pages.swap is None:
        return
    kernel.lru.drain()
    isolated = [pfn for pfn in _cold_pages(vma, start, end) if kernel.lru.isolate_page(pfn)]
    if isolated:
        kernel.reclaim.shrink_list(isolated)


def advise_willneed(vma: Vma, start: int, end: int) -> None:
    """MADV_WILLNEED: read the file's pages, or what is on swap, ahead.  What cannot be read is left for the fault."""
    mm = vma.vm_mm
    mapping = vma.vm_file.f_mapping if vma.vm_file is not None else None
    try:
        if mapping is not None:
            end_of_file = (mapping.host.i_size + (1 << PAGE_SHIFT) - 1) >> PAGE_SHIFT
            pgoff = vma.vm_pgoff + ((start - vma.vm_start) >> PAGE_SHIFT)
            last = min(pgoff + ((end - start) >> PAGE_SHIFT), end_of_file)
            if mapping.is_shmem:
                return
            for index in range(pgoff, last):
                mapping.read_mapping_page(index, last - index)
        else:
            q = mm.pt.q
            entries = [q[i] >> _PTE_ENTRY_SHIFT for _, i in _ptes(mm, start, end) if not q[i] & PTE_PRESENT]
            for entry in entries:
                if not mm.kernel.swap.cache.lookup(entry):
                    mm.kernel.swap.cache.swapin_readahead(entry)
    except KernelError:
        return


def advise_remove(vma: Vma, start: int, end: int) -> None:
    """MADV_REMOVE: punch a hole into the file."""
    if vma.vm_flags & VM_LOCKED:
        raise KernelError(Errno.EINVAL, "locked memory")
    if vma.vm_file is None or vma.vm_file.f_mapping is None:
        raise KernelError(Errno.EINVAL, "no file")
    if vma.vm_flags & (VM_SHARED | VM_MAYWRITE) != VM_SHARED | VM_MAYWRITE:
        raise KernelError(Errno.EACCES, "not a shared writable mapping")
    offset = (vma.vm_pgoff << PAGE_SHIFT) + start - vma.vm_start
    vma.vm_file.fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, end - start)


def populate(mm: MmStruct, start: int, end: int, write: bool) -> None:
    """MADV_POPULATE_READ and MADV_POPULATE_WRITE: as reading or writing every page, errors told.

    ENOMEM (a hole, or no memory), EINVAL (not permitted), EFAULT (the access would raise a signal).
    """
    access = PF_WRITE if write else 0
    wanted = VM_WRITE if write else VM_READ
    while start < end:
        vma = mm.areas.find_exact(start)
        if vma is None:
            raise KernelError(Errno.ENOMEM, "hole in the range")
        if vma.vm_flags & (VM_IO | VM_PFNMAP) or not vma.vm_flags & wanted:
            raise KernelError(Errno.EINVAL, "area cannot be accessed so")
        stop = min(end, vma.vm_end)
        while start < stop:
            result = fault_in_page(mm, start, access)
            if result is FaultResult.OOM:
                raise KernelError(Errno.ENOMEM, "no page")
            if result > FaultResult.MAJOR:
                raise KernelError(Errno.EFAULT, "access would raise a signal")
            start += 1 << PAGE_SHIFT
