"""Locked memory: mlock, mlock2, munlock, mlockall, munlockall, and faulting ranges in.

Models ``mm/mlock.c`` of 2.6.9 and of Linux 6, and ``mm_populate`` (mm/gup.c).  Manual: mlock(2).

The eras differ (RMAP.md 1.1, tests/data/vectors): 2.6 goes area by area - set VM_LOCKED, split, fault that area's pages
in, go on - and never joins; Linux 6 changes all flags first, joining areas, and then faults everything in.

Deliberate difference: one PG_mlocked bit a page instead of a count of the locked areas that map it.
"""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from kernel.abi.errno import Errno, KernelError
from kernel.abi.mman import Mcl
from kernel.mm.accounting import CAP_IPC_LOCK, RLIMIT_MEMLOCK, can_do_mlock, capable, rlimit
from kernel.mm.area import page_align, split_vma
from kernel.mm.fault import populate_range
from kernel.mm.merge import modify_flags
from kernel.mm.page import PG_mlocked
from kernel.mm.pagetable import PTE_PRESENT, PTE_SPECIAL
from kernel.mm.types import (
    PAGE_MASK,
    PAGE_SHIFT,
    TASK_SIZE,
    VM_DROPPABLE,
    VM_HUGETLB,
    VM_IO,
    VM_LOCKED,
    VM_LOCKONFAULT,
    VM_PFNMAP,
    VM_SPECIAL,
    MmStruct,
    Vma,
)
from kernel.profile import MlockRules
from mmu.paging import PTE_PFN_MASK

VM_LOCKED_MASK = VM_LOCKED | VM_LOCKONFAULT
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = int(Mcl.MCL_CURRENT), int(Mcl.MCL_FUTURE), int(Mcl.MCL_ONFAULT)
_LINUX_2_6 = MlockRules.LINUX_2_6


# -- faulting in -----------------------------------------------------------------------------------------------------


def mm_populate(mm: MmStruct, start: int, len_bytes: int) -> None:
    """Make the pages of ``[start, start + len_bytes)`` present where that is possible; never fails."""
    end = start + page_align(len_bytes)
    vma = mm.areas.find_vma(start)
    while vma is not None and vma.vm_start < end:
        with suppress(KernelError):
            populate_vma(vma, max(start, vma.vm_start), min(end, vma.vm_end))
        vma = vma.vm_next


def populate_vma(vma: Vma, start: int, end: int) -> None:
    """``populate_vma_page_range``: fault the pages of one area in.  KernelError: EFAULT, ENOMEM."""
    if not vma.vm_flags & (VM_IO | VM_PFNMAP | VM_LOCKONFAULT):
        populate_range(vma.vm_mm, start, end)


def _populate_or_fail(mm: MmStruct, start: int, end: int) -> None:
    """``__mm_populate`` and ``__mlock_posix_error_return``: ENOMEM for what cannot be present, EAGAIN without memory.
    """
    vma = mm.areas.find_vma(start)
    while vma is not None and vma.vm_start < end:
        try:
            populate_vma(vma, max(start, vma.vm_start), min(end, vma.vm_end))
        except KernelError as error:
            code = Errno.EAGAIN if error.errno == Errno.ENOMEM else Errno.ENOMEM
            raise KernelError(code, f"locked, but not present: {error.reason}") from None
        vma = vma.vm_next


# -- the calls -------------------------------------------------------------------------------------------------------


def do_mlock(mm: MmStruct, start: int, len_bytes: int, lock_flags: int) -> None:
    """mlock and mlock2; ``lock_flags`` is VM_LOCKED, with VM_LOCKONFAULT for MLOCK_ONFAULT.

    KernelError: EPERM, ENOMEM (hole, RLIMIT_MEMLOCK, unpopulatable), EINVAL, EAGAIN, EFAULT (2.6).
    """
    kernel = mm.kernel
    if not can_do_mlock(mm):
        raise KernelError(Errno.EPERM, "RLIMIT_MEMLOCK is 0")
    start, end = _round(start, len_bytes)
    if not capable(kernel, CAP_IPC_LOCK):
        limit = rlimit(kernel, RLIMIT_MEMLOCK) >> PAGE_SHIFT
        wanted = ((end - start) >> PAGE_SHIFT) + mm.locked_vm
        if wanted > limit and kernel.profile.mlock is not _LINUX_2_6:
            wanted -= _nr_locked(mm, start, end)
        if wanted > limit:
            raise KernelError(Errno.ENOMEM, "RLIMIT_MEMLOCK")
    _apply_range(mm, start, end, lock_flags)
    if kernel.profile.mlock is not _LINUX_2_6:
        _populate_or_fail(mm, start, end)


def do_munlock(mm: MmStruct, start: int, len_bytes: int) -> None:
    """munlock.  KernelError: ENOMEM (hole, split), EINVAL."""
    start, end = _round(start, len_bytes)
    _apply_range(mm, start, end, 0)


def do_mlockall(mm: MmStruct, flags: int) -> None:
    """mlockall with MCL_* ``flags``.  KernelError: EINVAL, EPERM, ENOMEM (RLIMIT_MEMLOCK)."""
    kernel = mm.kernel
    if not flags or flags & ~(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) or flags == _MCL_ONFAULT:
        raise KernelError(Errno.EINVAL, "flags")
    if not can_do_mlock(mm):
        raise KernelError(Errno.EPERM, "RLIMIT_MEMLOCK is 0")
    if (
        flags & _MCL_CURRENT
        and mm.total_vm > rlimit(kernel, RLIMIT_MEMLOCK) >> PAGE_SHIFT
        and not capable(kernel, CAP_IPC_LOCK)
    ):
        raise KernelError(Errno.ENOMEM, "RLIMIT_MEMLOCK")
    _apply_all(mm, flags)
    if flags & _MCL_CURRENT:
        mm_populate(mm, 0, TASK_SIZE)


def do_munlockall(mm: MmStruct) -> None:
    """munlockall: unlock everything now and to come."""
    _apply_all(mm, 0)


def _round(start: int, len_bytes: int) -> tuple[int, int]:
    length = page_align(len_bytes + (start & ~PAGE_MASK))
    start &= PAGE_MASK
    if start + length >= 1 << 64:
        raise KernelError(Errno.EINVAL, "length wraps around")
    return start, start + length


def _nr_locked(mm: MmStruct, start: int, end: int) -> int:
    """``count_mm_mlocked_page_nr``: pages of the range that are locked already."""
    nr_pages = 0
    vma = mm.areas.find_vma(start)
    while vma is not None and vma.vm_start < end:
        if vma.vm_flags & VM_LOCKED:
            nr_pages += (min(end, vma.vm_end) - max(start, vma.vm_start)) >> PAGE_SHIFT
        vma = vma.vm_next
    return nr_pages


def _apply_range(mm: MmStruct, start: int, end: int, lock_flags: int) -> None:
    """``apply_vma_lock_flags``: give every area of the range ``lock_flags``, splitting as needed."""
    if start == end:
        return
    vma = mm.areas.find_exact(start)
    if vma is None:
        raise KernelError(Errno.ENOMEM, "hole at the start")
    fixup = _fixup_2_6 if mm.kernel.profile.mlock is _LINUX_2_6 else _fixup
    while True:
        following = vma.vm_next
        stop = min(end, vma.vm_end)
        vma = fixup(vma, start, stop, vma.vm_flags & ~VM_LOCKED_MASK | lock_flags)
        start = max(stop, vma.vm_end)
        if start >= end:
            return
        following = vma.vm_next
        if following is None or following.vm_start != start:
            raise KernelError(Errno.ENOMEM, "hole in the range")
        vma = following


def _apply_all(mm: MmStruct, flags: int) -> None:
    """``apply_mlockall_flags``.  Areas that cannot be changed are left as they are."""
    to_add = VM_LOCKED if flags & _MCL_CURRENT else 0
    onfault = VM_LOCKONFAULT if flags & _MCL_ONFAULT else 0
    mm.def_flags &= ~VM_LOCKED_MASK
    if flags & _MCL_FUTURE:
        mm.def_flags |= VM_LOCKED | onfault
        if not flags & _MCL_CURRENT:
            return
    if to_add:
        to_add |= onfault
    fixup = _fixup_2_6 if mm.kernel.profile.mlock is _LINUX_2_6 else _fixup
    vma = mm.areas.first
    while vma is not None:
        with suppress(KernelError):
            vma = fixup(vma, vma.vm_start, vma.vm_end, vma.vm_flags & ~VM_LOCKED_MASK | to_add)
        vma = vma.vm_next


def _fixup_2_6(vma: Vma, start: int, end: int, new_flags: int) -> Vma:
    """``mlock_fixup`` of 2.6.9; returns the area that ends at ``end``."""
    mm = vma.vm_mm
    old_flags = vma.vm_flags
    if new_flags == old_flags:
        return vma
    try:
        if start != vma.vm_start:
            split_vma(mm, vma, start, True)
        if end != vma.vm_end:
            split_vma(mm, vma, end, False)
    except KernelError:
        raise KernelError(Errno.EAGAIN, "area cannot be split") from None
    vma.vm_flags = new_flags
    _count(vma, start, end, old_flags, new_flags)
    if new_flags & VM_LOCKED:
        populate_vma(vma, start, end)
    return vma


def _fixup(vma: Vma, start: int, end: int, new_flags: int) -> Vma:
    """``mlock_fixup`` of Linux 6; returns the area that contains ``end - 1``."""
    old_flags = vma.vm_flags
    if new_flags == old_flags or old_flags & (VM_SPECIAL | VM_HUGETLB | VM_DROPPABLE):
        return vma
    vma = modify_flags(vma, start, end, new_flags)
    _count(vma, start, end, old_flags, new_flags)
    return vma


def _count(vma: Vma, start: int, end: int, old_flags: int, new_flags: int) -> None:
    """Keep ``locked_vm`` and the pages' PG_mlocked bits right."""
    if not (old_flags ^ new_flags) & VM_LOCKED:
        return
    mm = vma.vm_mm
    nr_pages = (end - start) >> PAGE_SHIFT
    locks = new_flags & VM_LOCKED
    mm.locked_vm += nr_pages if locks else -nr_pages
    pages_flags = mm.kernel.pages.flags_np
    words = mm.kernel.physmem.words.reshape(-1)
    for _base, table, i0, i1 in mm.pt.leaf_ranges(start, end):
        ptes = words[table + i0 : table + i1]
        mapped = ptes[(ptes & np.uint64(PTE_PRESENT) != 0) & (ptes & np.uint64(PTE_SPECIAL) == 0)]
        pfns = (mapped & np.uint64(PTE_PFN_MASK)) >> np.uint64(PAGE_SHIFT)
        if locks:
            pages_flags[pfns] |= np.uint32(PG_mlocked)
        else:
            pages_flags[pfns] &= np.uint32(~PG_mlocked & 0xFFFF_FFFF)
