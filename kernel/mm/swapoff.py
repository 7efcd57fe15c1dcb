"""Taking a swap area out of use: every page on it comes back into memory.

Models ``try_to_unuse`` and the ``swapoff`` system call of ``mm/swapfile.c`` (today's order: address space by address
space; 2.6.7 went slot by slot, with the same result).  Manual: swapoff(2).

Under anonmm a page that others map at another address is copied, as by the fault (RMAP.md section 3).

Deliberate differences: memory is looked at before each page, and when it runs out the call fails with ENOMEM and the
area stays in use; Linux's would fall to the OOM killer.  A page that cannot be read fails the call with EIO.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kernel.abi.errno import Errno, KernelError
from kernel.mm.accounting import vm_enough_memory, vm_unacct_memory
from kernel.mm.pagetable import PTE_PRESENT
from kernel.mm.swap import PTE_ENTRY_SHIFT, SWAP_TYPE_SHIFT, SwapArea
from kernel.mm.swapin import copy_on_swap_in, map_swapped_page, shmem_swapin
from kernel.mm.types import PAGE_SHIFT, MmStruct, Vma
from kernel.trace import Tracepoint

if TYPE_CHECKING:
    from kernel.kernel import Kernel
    from kernel.mm.swapfile import SwapSystem

SWAPOFF = Tracepoint("swap:off", "path type errno")

_PTE_TYPE_SHIFT = SWAP_TYPE_SHIFT + PTE_ENTRY_SHIFT


def do_swapoff(kernel: Kernel, area: SwapArea) -> None:
    """Empty ``area`` and forget it.  KernelError: ENOMEM, EIO; the area is then in use as before."""
    swap = kernel.swap
    task = kernel.current
    if task is not None and task.mm is not None:
        vm_enough_memory(task.mm, area.pages)
        vm_unacct_memory(kernel, area.pages)
    swap.clear_writeok(area)
    kernel.reclaim.oom_disabled += 1
    try:
        _try_to_unuse(kernel, area)
    except KernelError as error:
        swap.set_writeok(area)
        if SWAPOFF.on:
            SWAPOFF.emit(area.path, area.swp_type, error.errno)
        raise
    finally:
        kernel.reclaim.oom_disabled -= 1
    assert not area.inuse_pages, f"{area!r} still holds pages after swapoff"
    swap.forget(area)
    if SWAPOFF.on:
        SWAPOFF.emit(area.path, area.swp_type, 0)


def _try_to_unuse(kernel: Kernel, area: SwapArea) -> None:
    """Pass after pass: reclaim, which makes room meanwhile, may push pages back that still have a slot of ``area``."""
    nr_left = area.inuse_pages + 1
    while area.inuse_pages < nr_left:
        nr_left = area.inuse_pages
        if not nr_left:
            return
        _free_cached(kernel, area)
        for mm in kernel.all_mms():
            if mm.swap_pages:
                _unuse_mm(kernel.swap, area, mm)
        for mapping in list(kernel.pages.mappings):
            for pgoff, entry in sorted(mapping.swapped.items()):
                if entry >> SWAP_TYPE_SHIFT == area.swp_type:
                    _want_memory(kernel)
                    shmem_swapin(kernel.swap, mapping, pgoff)
        _free_cached(kernel, area)
    raise KernelError(Errno.ENOMEM, "pages go out as fast as they come in")


def _free_cached(kernel: Kernel, area: SwapArea) -> None:
    """Give up the slots of pages in memory that nobody else needs."""
    for pfn in area.cache_np[area.cache_np != 0].tolist():
        kernel.swap.cache.try_to_free_swap(pfn)


def _unuse_mm(swap: SwapSystem, area: SwapArea, mm: MmStruct) -> None:
    """Bring in every page whose entry is in ``mm``'s page tables."""
    words, q = mm.pt.words, mm.pt.q
    for vma in list(mm.areas):
        for base, table, i0, i1 in mm.pt.leaf_ranges(vma.vm_start, vma.vm_end):
            ptes = words[table + i0 : table + i1]
            found = np.flatnonzero(
                (ptes != 0) & ((ptes & PTE_PRESENT) == 0) & (ptes >> np.uint64(_PTE_TYPE_SHIFT) == area.swp_type)
            )
            for i in (found + i0).tolist():
                index = table + i
                pte = q[index]
                # Reclaim runs between the pages: look again.
                if pte and not pte & PTE_PRESENT and pte >> _PTE_TYPE_SHIFT == area.swp_type:
                    _unuse_pte(swap, vma, base + (i << PAGE_SHIFT), index, pte)


def _unuse_pte(swap: SwapSystem, vma: Vma, vaddr: int, index: int, pte: int) -> None:
    kernel, cache, q = swap.kernel, swap.cache, vma.vm_mm.pt.q
    pfn = 0
    while not pfn:
        if q[index] != pte:
            return
        _want_memory(kernel)
        entry = pte >> PTE_ENTRY_SHIFT
        pfn = cache.lookup(entry) or cache.swapin_readahead(entry)
    if q[index] != pte:
        return
    if kernel.policy.must_copy_on_swap_in(pfn, vma, vaddr):
        copy_on_swap_in(swap, vma, vaddr, index, pte, pfn)
    else:
        map_swapped_page(swap, vma, vaddr, index, pte, pfn, 0)
    cache.try_to_free_swap(pfn)


def _want_memory(kernel: Kernel) -> None:
    """Room for the next page and what is read with it; ENOMEM if there is none."""
    pages = kernel.pages
    wanted = 1 << kernel.sysctl.page_cluster
    if pages.nr_free > wanted + pages.watermark_min:
        return
    kernel.reclaim.try_to_free_pages(wanted)
    if pages.nr_free <= pages.watermark_min:
        raise KernelError(Errno.ENOMEM, "no room for what is on the swap area")
