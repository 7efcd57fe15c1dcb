"""mremap: the parts that all rule sets share, and the way to the chosen one.

Models ``copy_vma`` (mm/mmap.c) and ``move_vma`` (mm/mremap.c).  Manual: mremap(2).  What is accepted, in which order
it is checked and what has been destroyed when it fails differs: mremap_2_6.py, mremap_6.py.  RMAP.md section 9.
Kernels that decide otherwise what mremap(2) leaves open: what_if.py, mremap_what_if.py.

Deliberate difference: a range that merges into an unfaulted neighbour gives it its anon_vma in every profile, unless
``--bug mremap-twin`` asks for the historic behaviour (RMAP.md section 12, item 1a).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from kernel.abi.errno import Errno, KernelError
from kernel.abi.mman import Map
from kernel.mm.accounting import mlock_future_ok, vm_stat_account, vm_unacct_memory
from kernel.mm.area import VMA_STORE, duplicate, vma_link
from kernel.mm.memory import move_page_tables
from kernel.mm.merge import vma_merge
from kernel.mm.mmap import get_unmapped_area
from kernel.mm.munmap import do_munmap
from kernel.mm.types import PAGE_SHIFT, VM_ACCOUNT, VM_LOCKED, VM_LOCKONFAULT, VM_MAYSHARE, MmStruct, Vma
from kernel.profile import MremapRules

MREMAP_MAYMOVE, MREMAP_FIXED, MREMAP_DONTUNMAP = 1, 2, 4
_MAP_FIXED = int(Map.MAP_FIXED)


class Growth(Enum):
    """Where a mapping may grow."""

    IN_PLACE = "in place"
    """Or elsewhere, if there is no room and the caller permits it."""
    ELSEWHERE = "elsewhere"
    """Only by moving (what_if.py)."""


class SpansAreas(KernelError):
    """EFAULT: the range lies in more than one area."""

    __slots__ = ()

    def __init__(self, reason: str = "range spans areas") -> None:
        super().__init__(Errno.EFAULT, reason)


def no_growth(has_room: bool) -> KernelError:
    """ENOMEM: a mapping can neither grow where it is nor move."""
    reason = "what if: never grow in place" if has_room else "no room to grow and no MREMAP_MAYMOVE"
    return KernelError(Errno.ENOMEM, reason)


@dataclass(slots=True)
class MremapRequest:
    """The arguments of mremap, then the state of the operation (``struct vma_remap_struct``)."""

    addr: int
    old_len: int
    new_len: int
    flags: int
    new_addr: int = 0
    growth: Growth = Growth.IN_PLACE


def do_mremap(mm: MmStruct, request: MremapRequest) -> int:
    """mremap(2) by the rules of the profile; returns the address of the range."""
    rules: Callable[[MmStruct, MremapRequest], int]
    if mm.kernel.profile.mremap is MremapRules.LINUX_2_6:
        from kernel.mm.mremap_2_6 import mremap_2_6 as rules
    elif mm.kernel.profile.mremap is MremapRules.LINUX_6_1:
        from kernel.mm.mremap_6 import mremap_6_1 as rules
    else:
        from kernel.mm.mremap_6 import mremap_6_17 as rules
    if mm.kernel.what_if.changes_mremap:
        from kernel.mm.mremap_what_if import mremap_what_if

        return mremap_what_if(mm, request, rules)
    return rules(mm, request)


def find_new_addr(mm: MmStruct, vma: Vma, new_addr: int, new_len: int, flags: int) -> int:
    """Where ``vma`` goes: ``new_addr`` if MREMAP_FIXED, near it as a hint, or anywhere if it is 0."""
    return get_unmapped_area(mm, vma.vm_file, new_addr, new_len, _MAP_FIXED if flags & MREMAP_FIXED else 0)


def copy_vma(vma: Vma, addr: int, len_bytes: int, pgoff: int) -> tuple[Vma, Vma]:
    """An area like ``vma`` at ``[addr, addr + len_bytes)``: joined to what is there, or new.

    Returns it and the source, which may have been joined to it.
    """
    mm = vma.vm_mm
    policy = mm.kernel.policy
    vm_start = vma.vm_start
    if vma.vm_file is None and vma.vm_ops is None and vma.anon_vma is None:
        pgoff = addr >> PAGE_SHIFT  # unfaulted: no page knows its offset yet
    prev = mm.areas.find_prev(addr)
    anon_vma = vma.anon_vma
    merged = vma_merge(
        mm, prev, addr, addr + len_bytes, vma.vm_flags, anon_vma, vma.vm_file, pgoff, vma, vma.anon_name, vma.vm_policy
    )
    if merged is not None:
        if merged.vm_start <= vm_start < merged.vm_end:
            vma = merged
        policy.hand_over(merged, vma)
        return merged, vma
    new = duplicate(vma)
    new.vm_start, new.vm_end, new.vm_pgoff = addr, addr + len_bytes, pgoff
    if new.vm_file is not None:
        new.vm_file.get()
    vma_link(mm, new)
    policy.copy_vma(vma, new)
    return new, vma


def move_vma(mm: MmStruct, vma: Vma, request: MremapRequest, charged: int) -> int:
    """Copy the area, move its pages, unmap the source; returns the new address.

    ``charged`` pages of commit were taken by the caller and are given back when this fails (KernelError ENOMEM): the
    pages are then back where they were.
    """
    kernel = mm.kernel
    addr, old_len, new_len, new_addr = request.addr, request.old_len, request.new_len, request.new_addr
    if mm.map_count >= kernel.sysctl.max_map_count - 3:
        vm_unacct_memory(kernel, charged)
        raise KernelError(Errno.ENOMEM, "move: map_count within 3 of max_map_count")
    if kernel.what_if.no_move_after_fork and mm.has_forked and old_len and not vma.vm_flags & VM_MAYSHARE:
        vm_unacct_memory(kernel, charged)
        raise KernelError(Errno.ENOMEM, "what if: no move after fork")
    vm_flags = vma.vm_flags
    pgoff = vma.vm_pgoff + ((addr - vma.vm_start) >> PAGE_SHIFT)
    new_vma, vma = copy_vma(vma, new_addr, new_len, pgoff)
    moved = move_page_tables(vma, addr, new_vma, new_addr, old_len) if old_len else 0
    failed = moved < old_len
    hiwater_vm = mm.hiwater_vm  # total_vm is too high until the source is gone
    vm_stat_account(mm, vm_flags, new_len >> PAGE_SHIFT)
    if vm_flags & VM_LOCKED:
        mm.locked_vm += new_len >> PAGE_SHIFT
    mm.hiwater_vm = hiwater_vm
    if failed:
        move_page_tables(new_vma, new_addr, vma, addr, moved)
        _unmap_source(mm, new_vma, new_addr, new_len)
        vm_unacct_memory(kernel, charged)
        raise KernelError(Errno.ENOMEM, "no memory for page tables or private copies")
    if request.flags & MREMAP_DONTUNMAP:
        _keep_source(mm, vma, new_vma, addr, addr + old_len)
    else:
        _unmap_source(mm, vma, addr, old_len)
    mm.hiwater_vm = max(hiwater_vm, mm.total_vm)
    return new_addr


def _unmap_source(mm: MmStruct, vma: Vma, addr: int, len_bytes: int) -> None:
    """Unmap what was moved away, without giving back the commit charge that moved with it."""
    vm_start, vm_end = vma.vm_start, vma.vm_end
    accounted = vma.vm_flags & VM_ACCOUNT
    vma.vm_flags &= ~VM_ACCOUNT
    try:
        do_munmap(mm, addr, len_bytes)
    except KernelError:
        # The source cannot be split, or old_len was 0.  It stays, never to be accounted again: so did Linux.
        if accounted:
            mm.kernel.vm_stat.nr_uncharged_areas += 1
            vm_unacct_memory(mm.kernel, (vm_end - vm_start - len_bytes) >> PAGE_SHIFT)
        return
    if not accounted:
        return
    if vm_start < addr:
        below = mm.areas.find_exact(addr - 1)
        assert below is not None
        below.vm_flags |= VM_ACCOUNT
    if addr + len_bytes < vm_end:
        above = mm.areas.find_exact(addr + len_bytes)
        assert above is not None
        above.vm_flags |= VM_ACCOUNT


def _keep_source(mm: MmStruct, vma: Vma, new_vma: Vma, start: int, end: int) -> None:
    """MREMAP_DONTUNMAP: the source stays, unlocked and, if all of it was moved, unfaulted."""
    if vma.vm_flags & VM_LOCKED:
        mm.locked_vm -= vma.nr_pages
        vma.vm_flags &= ~(VM_LOCKED | VM_LOCKONFAULT)
    if new_vma is not vma and vma.vm_start == start and vma.vm_end == end:
        mm.kernel.policy.forget_vma(vma)
        if mm.kernel.profile.mremap is MremapRules.LINUX_6_1 and vma.vm_file is None:
            vma.vm_pgoff = vma.vm_start >> PAGE_SHIFT
        if VMA_STORE.on:
            VMA_STORE.emit(mm, vma)


def check_growth(mm: MmStruct, vma: Vma, nr_bytes: int) -> None:
    """EAGAIN: a locked area may not grow by ``nr_bytes``."""
    if not mlock_future_ok(mm, vma.vm_flags, nr_bytes):
        raise KernelError(Errno.EAGAIN, "RLIMIT_MEMLOCK")
