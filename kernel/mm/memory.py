"""Work on whole page tables: unmap a range, copy it at fork, change its protection, move it.

Models ``mm/memory.c`` (``zap_page_range``, ``copy_page_range``, ``unmap_mapping_range``), the page-table halves of
``mm/mprotect.c`` (``change_protection``) and ``mm/mremap.c`` (``move_page_tables``).  Faults are in fault.py.

A range is worked on table by table.  Few entries are done one by one (a NumPy call costs as much as one or two
entries), many with NumPy over the table.  Within one area no frame but the zero page is mapped twice, so
plain fancy indexing counts right.

Deliberate differences: fork copies the tables of a private area only where they hold anonymous pages or swap entries
(Linux: when the area has an anon_vma); everything else is faulted in again by the child, as in Linux.  No mmu_gather:
a TLB flush asked for at any time before the guest runs again is in time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kernel.abi.errno import KernelError
from kernel.mm.page import (
    PG_anon,
    PG_dirty,
    PG_exclusive,
    PG_exec,
    PG_mlocked,
    PG_referenced,
    PG_swapbacked,
    PG_swapcache,
)
from kernel.mm.pagetable import PROTECTION_MAP, PTE_PRESENT, PTE_SPECIAL, SWP_EXCLUSIVE
from kernel.mm.rmap.policy import MoveResult, RmapPolicy
from kernel.mm.types import (
    PAGE_SHIFT,
    VM_LOCKED,
    VM_MAYWRITE,
    VM_SHARED,
    VM_WRITE,
    MmStruct,
    Vma,
)
from mmu.paging import PTE_A, PTE_D, PTE_NX, PTE_P, PTE_PFN_MASK, PTE_W

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kernel.mm.filemap import AddressSpace

_FEW = 12
"""Up to so many entries are cheaper one by one."""
_FLUSH_CEILING = 8
"""Up to so many pages are flushed one by one (``tlb_single_page_flush_ceiling``)."""
_NOT_W = ~PTE_W & 0xFFFF_FFFF_FFFF_FFFF
_NOT_EXCLUSIVE = ~PG_exclusive & 0xFFFF_FFFF
_NOT_MLOCKED = ~PG_mlocked & 0xFFFF_FFFF
_CHG_MASK = PTE_PFN_MASK | PTE_A | PTE_D | PTE_SPECIAL
"""What survives a change of protection (``_PAGE_CHG_MASK``)."""
_MAY_BE_SHARED = PTE_P | PTE_SPECIAL


def vm_page_prot(vma: Vma) -> int:
    """PTE bits for a page of ``vma`` that is not (yet) to be written: ``vma->vm_page_prot``.

    Writable at once only for shared areas whose file does not want to notice the first write.
    """
    prot = PROTECTION_MAP[vma.vm_flags & 15]
    if prot & PTE_W and vma_wants_writenotify(vma):
        prot &= _NOT_W
    return prot


def flush_tlb_range(mm: MmStruct, start: int, end: int) -> None:
    """PTEs in ``[start, end)`` lost a right or changed their frame."""
    hw = mm.kernel.hw
    if end - start <= _FLUSH_CEILING << PAGE_SHIFT:
        for vaddr in range(start, end, 1 << PAGE_SHIFT):
            hw.flush_tlb_page(vaddr)
    else:
        hw.flush_tlb()


def vma_wants_writenotify(vma: Vma) -> bool:
    """Must the first write to a clean page of this shared area fault, so that the file learns that it is dirty?"""
    file = vma.vm_file
    if file is None:
        return False
    mapping = file.f_mapping
    return mapping is not None and not mapping.is_shmem


def update_hiwater_rss(mm: MmStruct) -> None:
    """Before rss falls: remember how high it was."""
    rss = mm.rss_anon + mm.rss_file + mm.rss_shmem
    if rss > mm.hiwater_rss:
        mm.hiwater_rss = rss


def _nonzero(words: NDArray[np.uint64], first: int, last: int) -> list[int] | NDArray[np.int64]:
    """Word indices in ``[first, last)`` that are not zero: a list if they are few, else an array."""
    found: NDArray[np.int64] = np.flatnonzero(words[first:last])
    if found.size > _FEW:
        return found + first
    return [first + i for i in found.tolist()]


# ---- unmapping ------------------------------------------------------------------------------------------------------


def zap_page_range(vma: Vma, start: int, end: int, *, even_cows: bool = True) -> int:
    """Remove all PTEs of ``vma`` in ``[start, end)``; returns how many there were.

    Without ``even_cows`` the private copies of a file mapping stay (hole punch, invalidation).
    """
    mm = vma.vm_mm
    pt = mm.pt
    q = pt.q
    nr_zapped = 0
    update_hiwater_rss(mm)
    for base, table, i0, i1 in pt.leaf_ranges(start, end):
        first, last = table + i0, table + i1
        found: list[int] | NDArray[np.int64]
        if last - first <= _FEW:
            found = [i for i in range(first, last) if q[i]]
        else:
            found = _nonzero(pt.words, first, last)
        if isinstance(found, list):
            for index in found:
                nr_zapped += _zap_pte(mm, vma, base + (index - table << PAGE_SHIFT), index, even_cows)
        else:
            nr_zapped += _zap_table(mm, vma, found, even_cows)
    if nr_zapped:
        flush_tlb_range(mm, start, end)
    return nr_zapped


def _zap_pte(mm: MmStruct, vma: Vma, vaddr: int, index: int, even_cows: bool) -> int:
    kernel = mm.kernel
    pages = kernel.pages
    q = mm.pt.q
    pte = q[index]
    if not pte & PTE_PRESENT:
        if not even_cows:
            return 0
        assert pages.swap is not None, f"bad PTE {pte:#x} at {vaddr:#x}"
        q[index] = 0
        mm.swap_pages -= 1
        pages.swap.swap_free([pte])
        return 1
    if pte & PTE_SPECIAL:
        q[index] = 0
        return 1
    pfn = (pte & PTE_PFN_MASK) >> PAGE_SHIFT
    flags = pages.flags[pfn]
    if flags & PG_anon:
        if not even_cows:
            return 0
        mm.rss_anon -= 1
    else:
        if flags & PG_swapbacked:
            mm.rss_shmem -= 1
        else:
            mm.rss_file -= 1
        pages.flags[pfn] = flags | (PG_dirty if pte & PTE_D else 0) | (PG_referenced if pte & PTE_A else 0)
    if vma.vm_flags & VM_LOCKED:
        pages.flags[pfn] &= _NOT_MLOCKED
    q[index] = 0
    policy = kernel.policy
    if policy.per_pte:
        policy.page_remove_rmap(pfn, vma, vaddr, index)
    pages.mapcount[pfn] -= 1
    if flags & PG_swapcache and pages.swap is not None:
        pages.swap.release_swap_cache(np.array([pfn]))
    pages.put_page(pfn)
    return 1


def _zap_table(mm: MmStruct, vma: Vma, indices: NDArray[np.int64], even_cows: bool) -> int:
    """As :func:`_zap_pte` for many non-zero entries of one table."""
    kernel = mm.kernel
    pages = kernel.pages
    words = mm.pt.words
    ptes = words[indices]
    is_present = (ptes & PTE_PRESENT) != 0
    if not is_present.all():
        swap_indices = indices[~is_present]
        if even_cows and swap_indices.size:
            assert pages.swap is not None, "bad PTEs"
            pages.swap.swap_free(words[swap_indices].tolist())
            mm.swap_pages -= int(swap_indices.size)
            words[swap_indices] = 0
            nr_swap = int(swap_indices.size)
        else:
            nr_swap = 0
        indices, ptes = indices[is_present], ptes[is_present]
        return nr_swap + (_zap_table(mm, vma, indices, even_cows) if indices.size else 0)

    is_special = (ptes & PTE_SPECIAL) != 0
    nr_special = int(np.count_nonzero(is_special))
    if nr_special:
        words[indices[is_special]] = 0
        indices, ptes = indices[~is_special], ptes[~is_special]
    pfns = (ptes & PTE_PFN_MASK).astype(np.int64) >> PAGE_SHIFT
    flags = pages.flags_np[pfns]
    is_anon = (flags & PG_anon) != 0
    nr_anon = int(np.count_nonzero(is_anon))
    if nr_anon and not even_cows:
        indices, ptes, pfns, flags = indices[~is_anon], ptes[~is_anon], pfns[~is_anon], flags[~is_anon]
        nr_anon = 0
    nr_pages = int(pfns.size)
    if nr_pages == 0:
        return nr_special
    if nr_anon != nr_pages:
        nr_shmem = int(np.count_nonzero((flags & (PG_anon | PG_swapbacked)) == PG_swapbacked))
        mm.rss_shmem -= nr_shmem
        mm.rss_file -= nr_pages - nr_anon - nr_shmem
        is_file = (flags & PG_anon) == 0
        pages.flags_np[pfns[is_file & ((ptes & PTE_D) != 0)]] |= PG_dirty
        pages.flags_np[pfns[is_file & ((ptes & PTE_A) != 0)]] |= PG_referenced
    mm.rss_anon -= nr_anon
    if vma.vm_flags & VM_LOCKED:
        pages.flags_np[pfns] &= _NOT_MLOCKED
    words[indices] = 0
    if kernel.policy.per_pte:
        kernel.policy.remove_rmaps(pfns, indices)
    pages.mapcount_np[pfns] -= 1
    if pages.swap is not None:
        pages.swap.release_swap_cache(pfns[(flags & PG_swapcache) != 0])
    pages.put_distinct_pages(pfns)
    return nr_special + nr_pages


def unmap_mapping_range(mapping: AddressSpace, first_pgoff: int, nr_pages: int, even_cows: bool) -> None:
    """Unmap pages ``first_pgoff ..`` of a file from every mm (truncate, hole punch); 0 pages means to the end."""
    last_pgoff = first_pgoff + nr_pages - 1 if nr_pages else (1 << 52) - 1
    for vma in mapping.i_mmap.overlapping(first_pgoff, last_pgoff):
        start = max(vma.vm_start, vma.vm_start + ((first_pgoff - vma.vm_pgoff) << PAGE_SHIFT))
        end = min(vma.vm_end, vma.vm_start + ((last_pgoff + 1 - vma.vm_pgoff) << PAGE_SHIFT))
        zap_page_range(vma, start, end, even_cows=even_cows)


# ---- fork -----------------------------------------------------------------------------------------------------------


def is_cow_mapping(vm_flags: int) -> bool:
    """May a write to this area need a private copy?"""
    return vm_flags & (VM_SHARED | VM_MAYWRITE) == VM_MAYWRITE


def copy_page_range(dst_vma: Vma, src_vma: Vma) -> None:
    """Fork: let the child's area map the anonymous pages of the parent's, read-only in both.

    Raises KernelError(ENOMEM); the child then holds what was copied so far.
    """
    flags = src_vma.vm_flags
    if flags & VM_SHARED or src_vma.vm_ops is not None:
        return
    src, dst = src_vma.vm_mm, dst_vma.vm_mm
    q, words = src.pt.q, src.pt.words
    write_protected = False
    for base, table, i0, i1 in src.pt.leaf_ranges(src_vma.vm_start, src_vma.vm_end):
        first, last = table + i0, table + i1
        if last - first <= _FEW:
            if not any(q[i] for i in range(first, last)):
                continue
        elif not _holds_private(src, first, last):
            continue
        # This may run reclaim, so the entries are read after it.
        shift = dst.pt.pte_alloc(base + (i0 << PAGE_SHIFT)) - first
        found: list[int] | NDArray[np.int64]
        if last - first <= _FEW:
            found = [i for i in range(first, last) if q[i]]
        else:
            found = _nonzero(words, first, last)
        if isinstance(found, list):
            for index in found:
                _copy_pte(dst, dst_vma, base + (index - table << PAGE_SHIFT), index, index + shift)
        else:
            _copy_table(dst, found, shift)
        write_protected = True
    if write_protected:
        src.kernel.hw.flush_tlb()


def _holds_private(mm: MmStruct, first: int, last: int) -> bool:
    """Is there an anonymous page or a swap entry among these PTEs?"""
    ptes = mm.pt.words[first:last]
    ptes = ptes[ptes != 0]
    if (ptes & PTE_PRESENT == 0).any():
        return True
    pfns = (ptes[ptes & PTE_SPECIAL == 0] & PTE_PFN_MASK).astype(np.int64) >> PAGE_SHIFT
    return bool((mm.kernel.pages.flags_np[pfns] & PG_anon).any())


def _copy_pte(dst: MmStruct, dst_vma: Vma, vaddr: int, index: int, dst_index: int) -> None:
    kernel = dst.kernel
    pages = kernel.pages
    q = dst.pt.q
    pte = q[index]
    if not pte & PTE_PRESENT:
        assert pages.swap is not None, f"bad PTE {pte:#x} at {vaddr:#x}"
        pte &= ~SWP_EXCLUSIVE
        q[index] = q[dst_index] = pte
        dst.swap_pages += 1
        pages.swap.swap_duplicate([pte])
        return
    pte &= ~PTE_W
    q[index] = pte
    q[dst_index] = pte & ~PTE_A
    if pte & PTE_SPECIAL:
        return
    pfn = (pte & PTE_PFN_MASK) >> PAGE_SHIFT
    flags = pages.flags[pfn]
    if flags & PG_anon:
        pages.flags[pfn] = flags & _NOT_EXCLUSIVE
        dst.rss_anon += 1
    elif flags & PG_swapbacked:
        dst.rss_shmem += 1
    else:
        dst.rss_file += 1
    pages.refcount[pfn] += 1
    pages.mapcount[pfn] += 1
    if kernel.policy.per_pte:
        kernel.policy.page_dup_rmap(pfn, dst_vma, vaddr, dst_index)


def _copy_table(dst: MmStruct, indices: NDArray[np.int64], shift: int) -> None:
    kernel = dst.kernel
    pages = kernel.pages
    words = dst.pt.words
    ptes = words[indices]
    is_swap = (ptes & PTE_PRESENT) == 0
    if is_swap.any():
        assert pages.swap is not None, "bad PTEs"
        swap_indices = indices[is_swap]
        entries = ptes[is_swap] & ~np.uint64(SWP_EXCLUSIVE)
        words[swap_indices] = entries
        words[swap_indices + shift] = entries
        dst.swap_pages += int(entries.size)
        pages.swap.swap_duplicate(entries.tolist())
        indices, ptes = indices[~is_swap], ptes[~is_swap]
    ptes &= _NOT_W
    words[indices] = ptes
    words[indices + shift] = ptes & ~np.uint64(PTE_A)
    is_normal = (ptes & PTE_SPECIAL) == 0
    if not is_normal.all():
        indices, ptes = indices[is_normal], ptes[is_normal]
    pfns = (ptes & PTE_PFN_MASK).astype(np.int64) >> PAGE_SHIFT
    flags = pages.flags_np[pfns]
    nr_anon = int(np.count_nonzero(flags & PG_anon))
    nr_shmem = int(np.count_nonzero((flags & (PG_anon | PG_swapbacked)) == PG_swapbacked))
    dst.rss_anon += nr_anon
    dst.rss_shmem += nr_shmem
    dst.rss_file += int(pfns.size) - nr_anon - nr_shmem
    pages.flags_np[pfns] = flags & _NOT_EXCLUSIVE
    pages.refcount_np[pfns] += 1
    pages.mapcount_np[pfns] += 1
    if kernel.policy.per_pte:
        kernel.policy.dup_rmaps(pfns, indices + shift)


# ---- mprotect -------------------------------------------------------------------------------------------------------


def change_protection(vma: Vma, start: int, end: int) -> int:
    """Give the pages present in ``[start, end)`` the permissions of ``vma.vm_flags``; returns how many PTEs changed.

    Pages that must be copied or noticed at the first write stay read-only; an exclusive anonymous page and a shared
    page that is dirty already become writable at once (``can_change_pte_writable``).
    """
    mm = vma.vm_mm
    pt = mm.pt
    prot = vm_page_prot(vma) & ~PTE_A
    nr_changed = 0
    for _base, table, i0, i1 in pt.leaf_ranges(start, end):
        change = _change_few if i1 - i0 <= _FEW else _change_table
        nr_changed += change(mm, vma.vm_flags, prot, table + i0, table + i1)
    if nr_changed:
        flush_tlb_range(mm, start, end)
    return nr_changed


def _change_few(mm: MmStruct, vm_flags: int, prot: int, first: int, last: int) -> int:
    """As :func:`_change_table`, entry by entry."""
    q, flags = mm.pt.q, mm.kernel.pages.flags
    is_executable = prot & (PTE_P | PTE_NX) == PTE_P
    nr_changed = 0
    for index in range(first, last):
        old = q[index]
        if not old & PTE_PRESENT:
            continue
        new = old & _CHG_MASK | prot
        if not old & PTE_SPECIAL:
            pfn = (old & PTE_PFN_MASK) >> PAGE_SHIFT
            if vm_flags & VM_WRITE and (old & PTE_D if vm_flags & VM_SHARED else flags[pfn] & PG_exclusive):
                new |= PTE_W
            if is_executable:
                flags[pfn] |= PG_exec
        if new != old:
            q[index] = new
            nr_changed += 1
    return nr_changed


def _change_table(mm: MmStruct, vm_flags: int, prot: int, first: int, last: int) -> int:
    words, pages = mm.pt.words, mm.kernel.pages
    indices = np.flatnonzero(words[first:last] & PTE_PRESENT)
    if not indices.size:
        return 0
    indices += first
    old = words[indices]
    new = old & _CHG_MASK | prot
    is_normal = (old & PTE_SPECIAL) == 0
    pfns = (old & PTE_PFN_MASK).astype(np.int64) >> PAGE_SHIFT
    if vm_flags & VM_WRITE:
        if vm_flags & VM_SHARED:
            may_write = (old & PTE_D) != 0
        else:
            may_write = (pages.flags_np[pfns] & PG_exclusive) != 0
        new[may_write & is_normal] |= PTE_W
    if prot & (PTE_P | PTE_NX) == PTE_P:
        pages.flags_np[pfns[is_normal]] |= PG_exec
    nr_changed = int(np.count_nonzero(new != old))
    if nr_changed:
        words[indices] = new
    return nr_changed


# ---- mremap ---------------------------------------------------------------------------------------------------------


def move_page_tables(vma: Vma, old_addr: int, new_vma: Vma, new_addr: int, len_bytes: int) -> int:
    """Move the PTEs of ``[old_addr, old_addr + len_bytes)`` to ``new_addr``; returns how many bytes were moved.

    Less than ``len_bytes``: memory ran out (for a page table, or for a private copy that the rmap policy asked for).
    """
    mm = vma.vm_mm
    pt = mm.pt
    words = pt.words
    move = _move_slice if _moves_are_trivial(mm.kernel.policy) else _move_ptes
    distance = new_addr - old_addr
    moved_any = False
    try:
        for base, table, i0, i1 in pt.leaf_ranges(old_addr, old_addr + len_bytes):
            i = i0
            while i < i1:
                vaddr = base + (i << PAGE_SHIFT)
                room = 512 - (vaddr + distance >> PAGE_SHIFT & 511)
                nr = min(i1 - i, room)
                if words[table + i : table + i + nr].any():
                    moved_any = True
                    dst = pt.pte_alloc(vaddr + distance)
                    stopped = move(vma, new_vma, vaddr, vaddr + distance, table + i, dst, nr)
                    if stopped >= 0:
                        return vaddr + (stopped << PAGE_SHIFT) - old_addr
                i += nr
    except KernelError:
        return vaddr - old_addr
    finally:
        if moved_any:
            flush_tlb_range(mm, old_addr, old_addr + len_bytes)
    return len_bytes


def _moves_are_trivial(policy: RmapPolicy) -> bool:
    """Does the policy not care where in an mm a page is mapped (all but pte_chains and anonmm)?"""
    return not policy.per_pte and type(policy).move_page is RmapPolicy.move_page


def _move_slice(vma: Vma, new_vma: Vma, vaddr: int, new_vaddr: int, src: int, dst: int, nr: int) -> int:
    words = vma.vm_mm.pt.words
    words[dst : dst + nr] = words[src : src + nr]
    words[src : src + nr] = 0
    return -1


def _move_ptes(vma: Vma, new_vma: Vma, vaddr: int, new_vaddr: int, src: int, dst: int, nr: int) -> int:
    """One by one, asking the policy; returns the number of the entry where memory ran out, -1 if all went well."""
    from kernel.mm.fault import unshare_page

    kernel = vma.vm_mm.kernel
    policy, pages, q = kernel.policy, kernel.pages, vma.vm_mm.pt.q
    for i in range(nr):
        pte = q[src + i]
        if not pte:
            continue
        if pte & PTE_PRESENT and not pte & PTE_SPECIAL:
            pfn = (pte & PTE_PFN_MASK) >> PAGE_SHIFT
            there = new_vaddr + (i << PAGE_SHIFT)
            if pages.flags[pfn] & PG_anon and policy.move_page(pfn, vma, new_vma, there) is MoveResult.UNSHARE:
                try:
                    pfn = unshare_page(vma, vaddr + (i << PAGE_SHIFT))
                except KernelError:
                    return i
                policy.move_page(pfn, vma, new_vma, there)
                pte = q[src + i]
            if policy.per_pte:
                policy.page_remove_rmap(pfn, vma, vaddr + (i << PAGE_SHIFT), src + i)
                policy.page_dup_rmap(pfn, new_vma, there, dst + i)
        q[src + i] = 0
        q[dst + i] = pte
    return -1
