"""Bringing pages back from swap: the fault on a swap entry, and pages of shared memory.

Models ``do_swap_page`` of ``mm/memory.c`` (2.6.7; RMAP.md section 10, "Swap-in") and ``shmem_getpage``'s swap half.

Deliberate difference: no page lock, so "recheck the PTE" is needed only after an allocation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.abi.errno import KernelError
from kernel.mm.page import (
    PG_active,
    PG_anon,
    PG_dirty,
    PG_exclusive,
    PG_exec,
    PG_mlocked,
    PG_referenced,
    PG_swapbacked,
)
from kernel.mm.pagetable import PROTECTION_MAP
from kernel.mm.swap import PTE_ENTRY_SHIFT
from kernel.mm.swap_state import SwapReadError
from kernel.mm.types import PAGE_SHIFT, VM_EXEC, VM_LOCKED, Vma
from mmu.paging import PF_WRITE, PTE_D, PTE_P, PTE_PFN_MASK, PTE_W

if TYPE_CHECKING:
    from kernel.mm.fault import Served
    from kernel.mm.filemap import AddressSpace
    from kernel.mm.swapfile import SwapSystem


def do_swap_page(swap: SwapSystem, vma: Vma, vaddr: int, index: int, pte: int, access: int) -> Served:
    """The fault on swap entry ``pte`` at word ``index``.  KernelError(ENOMEM): out of memory; (EIO): a bus error."""
    from kernel.mm.fault import MAJOR, MINOR, OOM, SIGBUS_ADRERR, Served, do_wp_page

    kernel, cache, q = swap.kernel, swap.cache, vma.vm_mm.pt.q
    entry = pte >> PTE_ENTRY_SHIFT
    result = MINOR
    pfn = cache.lookup(entry)
    if not pfn:
        try:
            pfn = cache.swapin_readahead(entry)
        except SwapReadError:
            return Served(SIGBUS_ADRERR, "bad")
        except KernelError:
            return Served(OOM, "bad") if q[index] == pte else Served(MINOR, "swap")
        if not pfn or q[index] != pte:
            return Served(MINOR, "swap")
        result = MAJOR
    if kernel.policy.must_copy_on_swap_in(pfn, vma, vaddr):
        copy_on_swap_in(swap, vma, vaddr, index, pte, pfn)
        new_pte = q[index]
        return Served(result, "swap", (new_pte & PTE_PFN_MASK) >> PAGE_SHIFT if new_pte & PTE_P else None, pfn)
    shared = map_swapped_page(swap, vma, vaddr, index, pte, pfn, access)
    if shared and access & PF_WRITE:
        served = do_wp_page(vma.vm_mm, vma, vaddr, index, q[index])
        return served._replace(result=max(result, served.result), kind="swap")
    return Served(result, "swap", pfn)


def map_swapped_page(swap: SwapSystem, vma: Vma, vaddr: int, index: int, pte: int, pfn: int, access: int) -> bool:
    """Replace swap entry ``pte`` by the page ``pfn`` of the swap cache; is the page shared with others?

    Takes no frame.  Writable only for a write to a page that nobody else can get at.
    """
    kernel = swap.kernel
    pages, policy, mm = kernel.pages, kernel.policy, vma.vm_mm
    flags, vm_flags = pages.flags, vma.vm_flags
    if vma.anon_vma is None and policy.needs_anon_vma:
        policy.anon_vma_prepare(vma, vaddr)  # only a defect (--bug) can have lost it

    swap.free(pte >> PTE_ENTRY_SHIFT)
    exclusive = swap.cache.can_share(pfn)
    pages.refcount[pfn] += 1
    if exclusive and (vm_flags & VM_LOCKED or swap.vm_swap_full()):
        swap.cache.delete(pfn)
    mm.swap_pages -= 1
    mm.rss_anon += 1

    new = flags[pfn]
    if new & PG_referenced and not new & PG_active:
        kernel.lru.mark_page_accessed(pfn)
        new = flags[pfn]
    new |= PG_anon | PG_swapbacked | PG_referenced
    new_pte = pfn << PAGE_SHIFT | PROTECTION_MAP[vm_flags & 7]
    if exclusive:
        new |= PG_exclusive
        if access & PF_WRITE:
            new_pte |= PTE_W | PTE_D
    if vm_flags & VM_LOCKED:
        new |= PG_mlocked
    if vm_flags & VM_EXEC:
        new |= PG_exec
    flags[pfn] = new

    pages.mapcount[pfn] += 1
    policy.page_add_anon_rmap(pfn, vma, vaddr, index)
    mm.pt.q[index] = new_pte
    return not exclusive


def copy_on_swap_in(swap: SwapSystem, vma: Vma, vaddr: int, index: int, pte: int, pfn: int) -> None:
    """anonmm: the page is known at another address, so this fault gets a copy.  KernelError(ENOMEM)."""
    from kernel.mm.fault import map_new_anon_page

    kernel = swap.kernel
    pages, mm = kernel.pages, vma.vm_mm
    pages.get_page(pfn)
    try:
        new_pfn = pages.alloc_page()
    except KernelError:
        pages.put_page(pfn)
        raise
    if mm.pt.q[index] != pte:
        pages.put_page(pfn)
        pages.put_page(new_pfn)
        return
    kernel.physmem.copy_frame(new_pfn, pfn)
    pages.put_page(pfn)
    mm.swap_pages -= 1
    swap.free_swap_and_cache(pte >> PTE_ENTRY_SHIFT)
    prot = PROTECTION_MAP[vma.vm_flags & 7] | PTE_D
    map_new_anon_page(mm, vma, vaddr, index, new_pfn, prot)
    kernel.policy.counters.nr_unshared += 1


# ---- shared memory --------------------------------------------------------------------------------------------------


def shmem_swapin(swap: SwapSystem, mapping: AddressSpace, pgoff: int) -> int:
    """Bring page ``pgoff`` of a shmem mapping back into its page cache.  KernelError: ENOMEM, EIO."""
    pages = swap.kernel.pages
    entry = mapping.swapped[pgoff]
    pfn = 0
    while not pfn:
        pfn = swap.cache.lookup(entry) or swap.cache.swapin_readahead(entry)
    # From the swap cache to the page cache: the slot and its copy are given up, so the page is dirty.
    pages.get_page(pfn)
    del mapping.swapped[pgoff]
    swap.free(entry)
    swap.cache.delete(pfn)
    kept = pages.flags[pfn]
    mapping.add_page(pgoff, pfn, kept | PG_dirty | PG_swapbacked)
    return pfn
