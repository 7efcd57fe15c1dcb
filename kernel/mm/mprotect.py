"""mprotect: change protection area by area, joining and splitting as the era does.

Models ``do_mprotect_pkey`` and ``mprotect_fixup`` (mm/mprotect.c): today's, 2.6.7's (rmap 36) and the older shape of
2.6.6 and 2.6.5-aa (``mprotect_attempt_merge``).  RMAP.md section 1.2.  Manual: mprotect(2).

A range with a hole, or that fails later for another reason, has its first part changed: as Linux.

Deliberate difference: no protection keys (as on a processor without PKU).
"""

from __future__ import annotations

from kernel.abi.errno import Errno, KernelError
from kernel.abi.mman import Prot
from kernel.mm.accounting import may_expand_vm, vm_enough_memory, vm_stat_account, vm_unacct_memory
from kernel.mm.area import VMA_STORE, page_align, split_vma
from kernel.mm.memory import change_protection
from kernel.mm.merge import absorb_next, can_join, move_boundary, vma_merge
from kernel.mm.mlock import populate_vma
from kernel.mm.types import (
    PAGE_MASK,
    PAGE_SHIFT,
    VM_ACCESS_FLAGS,
    VM_ACCOUNT,
    VM_GROWSDOWN,
    VM_HUGETLB,
    VM_LOCKED,
    VM_NORESERVE,
    VM_SEALED,
    VM_SHARED,
    VM_WRITE,
    MmStruct,
    Vma,
)
from kernel.profile import Bug, MergeRules, MprotectRules

_PROT_GROWSDOWN, _PROT_GROWSUP = int(Prot.PROT_GROWSDOWN), int(Prot.PROT_GROWSUP)
_PROT_VALID = int(Prot.PROT_READ | Prot.PROT_WRITE | Prot.PROT_EXEC | Prot.PROT_SEM)
_LINUX_6 = MergeRules.LINUX_6
_PREV_ANONYMOUS, _PREV = MprotectRules.PREV_ANONYMOUS, MprotectRules.PREV


def do_mprotect(mm: MmStruct, start: int, len_bytes: int, prot: int, pkey: int = -1) -> None:
    """mprotect(2) and pkey_mprotect(2).

    KernelError: EINVAL, ENOMEM (hole, too many areas, commit), EACCES, EPERM (sealed).
    """
    grows = prot & (_PROT_GROWSDOWN | _PROT_GROWSUP)
    prot &= ~(_PROT_GROWSDOWN | _PROT_GROWSUP)
    if grows == _PROT_GROWSDOWN | _PROT_GROWSUP:
        raise KernelError(Errno.EINVAL, "PROT_GROWSDOWN and PROT_GROWSUP")
    if start & ~PAGE_MASK:
        raise KernelError(Errno.EINVAL, "address not page aligned")
    if not len_bytes:
        return
    end = start + page_align(len_bytes)
    if not start < end < 1 << 64:
        raise KernelError(Errno.ENOMEM, "length wraps around")
    if prot & ~_PROT_VALID:
        raise KernelError(Errno.EINVAL, "unknown protection bits")
    if pkey != -1:
        raise KernelError(Errno.EINVAL, "no such protection key")
    vma = mm.areas.find_vma(start)
    if vma is None or vma.vm_start >= end:
        raise KernelError(Errno.ENOMEM, "no area in the range")
    if grows & _PROT_GROWSDOWN:
        start = vma.vm_start
        if not vma.vm_flags & VM_GROWSDOWN:
            raise KernelError(Errno.EINVAL, "area does not grow down")
    else:
        if vma.vm_start > start:
            raise KernelError(Errno.ENOMEM, "hole at the start")
        if grows:
            raise KernelError(Errno.EINVAL, "area does not grow up")
    rules = mm.kernel.profile.mprotect
    if rules is _PREV or rules is _PREV_ANONYMOUS:
        _protect_joining_prev(mm, vma, start, end, prot & VM_ACCESS_FLAGS)
    else:
        _protect(mm, vma, start, end, prot & VM_ACCESS_FLAGS)


def _new_flags(vma: Vma, access: int) -> int:
    """The area's flags with protection ``access``; EACCES if the file does not allow it."""
    vm_flags = vma.vm_flags & ~VM_ACCESS_FLAGS | access
    if access & ~(vm_flags >> 4):
        raise KernelError(Errno.EACCES, "protection that the mapping may not have")
    return vm_flags


def _account(mm: MmStruct, vma: Vma, new_flags: int, nr_pages: int) -> int:
    """Charge a private area that becomes writable, once for ever; returns the flags with VM_ACCOUNT."""
    old_flags = vma.vm_flags
    profile = mm.kernel.profile
    if new_flags & VM_WRITE:
        if (
            profile.merge is _LINUX_6
            and not may_expand_vm(mm, new_flags, nr_pages)
            and may_expand_vm(mm, old_flags, nr_pages)
        ):
            raise KernelError(Errno.ENOMEM, "RLIMIT_DATA")
        if not old_flags & (VM_ACCOUNT | VM_WRITE | VM_HUGETLB | VM_SHARED | VM_NORESERVE) and not profile.has(
            Bug.ACCOUNT_REVERSED
        ):
            vm_enough_memory(mm, nr_pages)
            return new_flags | VM_ACCOUNT
    elif (
        profile.uncommit
        and old_flags & VM_ACCOUNT
        and vma.vm_file is None
        and vma.anon_vma is None
        and mm.kernel.policy.needs_anon_vma
    ):
        return new_flags & ~VM_ACCOUNT
    return new_flags


def _unaccount(mm: MmStruct, old_flags: int, new_flags: int, nr_pages: int) -> None:
    """Undo :func:`_account` when the change fails."""
    if new_flags & ~old_flags & VM_ACCOUNT:
        vm_unacct_memory(mm.kernel, nr_pages)


def _set_flags(mm: MmStruct, vma: Vma, start: int, end: int, old_flags: int, new_flags: int) -> None:
    """``vma`` contains ``[start, end)`` now: give it its flags and the PTEs theirs."""
    nr_pages = (end - start) >> PAGE_SHIFT
    vma.vm_flags = new_flags
    if VMA_STORE.on:
        VMA_STORE.emit(mm, vma)
    change_protection(vma, start, end)
    vm_stat_account(mm, old_flags, -nr_pages)
    vm_stat_account(mm, new_flags, nr_pages)
    if old_flags & ~new_flags & VM_ACCOUNT:
        vm_unacct_memory(mm.kernel, nr_pages)


# -- since rmap 36: all eight cases of vma_merge ---------------------------------------------------------------------


def _protect(mm: MmStruct, vma: Vma, start: int, end: int, access: int) -> None:
    prev = vma if start > vma.vm_start else vma.vm_prev
    while True:
        new_flags = _new_flags(vma, access)
        if vma.vm_flags & VM_SEALED:
            raise KernelError(Errno.EPERM, "area is sealed")
        stop = min(end, vma.vm_end)
        prev = vma if new_flags == vma.vm_flags else _fixup(mm, vma, prev, start, stop, new_flags)
        start = max(stop, prev.vm_end)
        if start >= end:
            return
        following = prev.vm_next
        if following is None or following.vm_start != start:
            raise KernelError(Errno.ENOMEM, "hole in the range")
        vma = following


def _fixup(mm: MmStruct, vma: Vma, prev: Vma | None, start: int, end: int, new_flags: int) -> Vma:
    """``mprotect_fixup``: join, else split; returns the area that contains ``[start, end)``."""
    old_flags = vma.vm_flags
    nr_pages = (end - start) >> PAGE_SHIFT
    new_flags = _account(mm, vma, new_flags, nr_pages)
    vm_start = vma.vm_start
    pgoff = vma.vm_pgoff + ((start - vm_start) >> PAGE_SHIFT)
    merged = vma_merge(
        mm, prev, start, end, new_flags, vma.anon_vma, vma.vm_file, pgoff, vma, vma.anon_name, vma.vm_policy
    )
    if merged is None:
        try:
            if start != vm_start:
                split_vma(mm, vma, start, True)
            if end != vma.vm_end:
                split_vma(mm, vma, end, False)
        except KernelError:
            _unaccount(mm, old_flags, new_flags, nr_pages)
            raise
        merged = vma
    _set_flags(mm, merged, start, end, old_flags, new_flags)
    if old_flags & (VM_WRITE | VM_SHARED | VM_LOCKED) == VM_LOCKED and new_flags & VM_WRITE:  # noqa: SIM102
        if mm.kernel.profile.merge is _LINUX_6:
            try:
                populate_vma(merged, start, end)
            except KernelError:
                return merged
    return merged


# -- before: join the area before, from the area's start; at last the area after --------------------------------------


def _protect_joining_prev(mm: MmStruct, vma: Vma, start: int, end: int, access: int) -> None:
    prev = vma.vm_prev
    while True:
        new_flags = _new_flags(vma, access)
        if vma.vm_flags & VM_SEALED:
            raise KernelError(Errno.EPERM, "area is sealed")
        vm_end = vma.vm_end
        following = vma.vm_next
        prev = _fixup_joining_prev(mm, vma, prev, start, min(end, vm_end), new_flags)
        if vm_end > end:
            return
        if vm_end == end:
            break
        start = vm_end
        if following is None or following.vm_start != start:
            raise KernelError(Errno.ENOMEM, "hole in the range")
        vma = following
    if (
        following is not None
        and prev.vm_end == following.vm_start
        and _may_join(mm, following)
        and can_join(mm, prev, following)
    ):
        absorb_next(mm, prev, 1)
        mm.kernel.vm_stat.merged["next"] += 1


def _may_join(mm: MmStruct, vma: Vma) -> bool:
    """2.6.6 left areas of files, and shared ones, alone."""
    if mm.kernel.profile.mprotect is _PREV_ANONYMOUS:
        return vma.vm_file is None and not vma.vm_flags & VM_SHARED
    return True


def _fixup_joining_prev(mm: MmStruct, vma: Vma, prev: Vma | None, start: int, end: int, new_flags: int) -> Vma:
    old_flags = vma.vm_flags
    if new_flags == old_flags:
        return vma
    nr_pages = (end - start) >> PAGE_SHIFT
    new_flags = _account(mm, vma, new_flags, nr_pages)
    if (
        start == vma.vm_start
        and prev is not None
        and prev.vm_end == start
        and _may_join(mm, vma)
        and can_join(mm, prev, vma, new_flags)
    ):
        if end == vma.vm_end:
            absorb_next(mm, prev, 1)
        else:
            move_boundary(prev, vma, end)
        mm.kernel.vm_stat.merged["prev"] += 1
        _set_flags(mm, prev, start, end, old_flags, new_flags)
        return prev
    try:
        if start != vma.vm_start:
            split_vma(mm, vma, start, True)
        if end != vma.vm_end:
            split_vma(mm, vma, end, False)
    except KernelError:
        _unaccount(mm, old_flags, new_flags, nr_pages)
        raise
    _set_flags(mm, vma, start, end, old_flags, new_flags)
    return vma
