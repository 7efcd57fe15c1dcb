"""madvise: what a program says about its memory.

Models ``mm/madvise.c`` of Linux 6.18: every advice that it knows, errors in its order.  Manual: madvise(2),
process_madvise(2), prctl(2) (PR_SET_VMA).  What is done to pages is in madvise_pages.py.

A range with holes is worked on all the same, and ENOMEM told at the end; everything else that fails stops at once.

Deliberate differences: no memory-failure handling (MADV_HWPOISON: EINVAL for who may ask at all), no huge pages
(MADV_HUGEPAGE only sets its flag, MADV_COLLAPSE: EINVAL), no KSM (MADV_MERGEABLE only sets its flag), no guard regions
(MADV_GUARD_*: EINVAL, as before 6.13).
"""

from __future__ import annotations

from collections.abc import Callable

from kernel.abi.errno import Errno, KernelError
from kernel.abi.mman import Madv
from kernel.mm.accounting import CAP_SYS_ADMIN, capable
from kernel.mm.area import page_align
from kernel.mm.madvise_pages import (
    advise_cold,
    advise_dontneed,
    advise_free,
    advise_pageout,
    advise_remove,
    advise_willneed,
    populate,
)
from kernel.mm.merge import modify_flags
from kernel.mm.types import (
    PAGE_MASK,
    VM_DONTCOPY,
    VM_DONTDUMP,
    VM_DONTEXPAND,
    VM_DROPPABLE,
    VM_HUGEPAGE,
    VM_HUGETLB,
    VM_IO,
    VM_MAYSHARE,
    VM_MERGEABLE,
    VM_MIXEDMAP,
    VM_NOHUGEPAGE,
    VM_PFNMAP,
    VM_RAND_READ,
    VM_SEALED,
    VM_SEQ_READ,
    VM_SHARED,
    VM_SPECIAL,
    VM_WIPEONFORK,
    VM_WRITE,
    MmStruct,
    Vma,
)

_NOT_MERGEABLE = (
    VM_SHARED | VM_MAYSHARE | VM_PFNMAP | VM_IO | VM_DONTEXPAND | VM_HUGETLB | VM_MIXEDMAP | VM_DROPPABLE
)


def _normal(vma: Vma, flags: int) -> int:
    return flags & ~(VM_RAND_READ | VM_SEQ_READ)


def _random(vma: Vma, flags: int) -> int:
    return flags & ~VM_SEQ_READ | VM_RAND_READ


def _sequential(vma: Vma, flags: int) -> int:
    return flags & ~VM_RAND_READ | VM_SEQ_READ


def _dontfork(vma: Vma, flags: int) -> int:
    return flags | VM_DONTCOPY


def _dofork(vma: Vma, flags: int) -> int:
    if flags & VM_IO:
        raise KernelError(Errno.EINVAL, "device memory is never copied")
    return flags & ~VM_DONTCOPY


def _wipeonfork(vma: Vma, flags: int) -> int:
    if vma.vm_file is not None or flags & VM_SHARED:
        raise KernelError(Errno.EINVAL, "MADV_WIPEONFORK is for private anonymous memory")
    return flags | VM_WIPEONFORK


def _keeponfork(vma: Vma, flags: int) -> int:
    if flags & VM_DROPPABLE:
        raise KernelError(Errno.EINVAL, "droppable memory is always wiped")
    return flags & ~VM_WIPEONFORK


def _dontdump(vma: Vma, flags: int) -> int:
    return flags | VM_DONTDUMP


def _dodump(vma: Vma, flags: int) -> int:
    if flags & (VM_SPECIAL | VM_DROPPABLE):
        raise KernelError(Errno.EINVAL, "area cannot be dumped")
    return flags & ~VM_DONTDUMP


def _mergeable(vma: Vma, flags: int) -> int:
    return flags if flags & _NOT_MERGEABLE else flags | VM_MERGEABLE


def _unmergeable(vma: Vma, flags: int) -> int:
    return flags & ~VM_MERGEABLE


def _hugepage(vma: Vma, flags: int) -> int:
    return flags & ~VM_NOHUGEPAGE | VM_HUGEPAGE


def _nohugepage(vma: Vma, flags: int) -> int:
    return flags & ~VM_HUGEPAGE | VM_NOHUGEPAGE


_FLAG_ADVICE: dict[int, Callable[[Vma, int], int]] = {
    Madv.MADV_NORMAL: _normal,
    Madv.MADV_RANDOM: _random,
    Madv.MADV_SEQUENTIAL: _sequential,
    Madv.MADV_DONTFORK: _dontfork,
    Madv.MADV_DOFORK: _dofork,
    Madv.MADV_WIPEONFORK: _wipeonfork,
    Madv.MADV_KEEPONFORK: _keeponfork,
    Madv.MADV_DONTDUMP: _dontdump,
    Madv.MADV_DODUMP: _dodump,
    Madv.MADV_MERGEABLE: _mergeable,
    Madv.MADV_UNMERGEABLE: _unmergeable,
    Madv.MADV_HUGEPAGE: _hugepage,
    Madv.MADV_NOHUGEPAGE: _nohugepage,
}
"""Advice that only changes the area's flags: (area, old flags) -> new flags."""

_PAGE_ADVICE: dict[int, Callable[[Vma, int, int], None]] = {
    Madv.MADV_WILLNEED: advise_willneed,
    Madv.MADV_DONTNEED: advise_dontneed,
    Madv.MADV_DONTNEED_LOCKED: lambda vma, start, end: advise_dontneed(vma, start, end, locked_too=True),
    Madv.MADV_FREE: advise_free,
    Madv.MADV_REMOVE: advise_remove,
    Madv.MADV_COLD: advise_cold,
    Madv.MADV_PAGEOUT: advise_pageout,
}
"""Advice about pages."""

_DISCARDS = frozenset((
    Madv.MADV_FREE, Madv.MADV_DONTNEED, Madv.MADV_DONTNEED_LOCKED, Madv.MADV_REMOVE, Madv.MADV_DONTFORK,
    Madv.MADV_WIPEONFORK,
))  # fmt: skip
"""Forbidden on sealed memory that may not be written."""


_UNSUPPORTED = frozenset((Madv.MADV_COLLAPSE, Madv.MADV_GUARD_INSTALL, Madv.MADV_GUARD_REMOVE))


def do_madvise(mm: MmStruct, start: int, len_bytes: int, advice: int) -> None:
    """madvise(2).  KernelError: EINVAL, ENOMEM, EPERM, EAGAIN, EACCES, EFAULT."""
    if advice not in Madv._value2member_map_:
        raise KernelError(Errno.EINVAL, "unknown advice")
    if start & ~PAGE_MASK:
        raise KernelError(Errno.EINVAL, "address not page aligned")
    end = _end(start, len_bytes)
    if end == start:
        return
    if advice in (Madv.MADV_HWPOISON, Madv.MADV_SOFT_OFFLINE):
        if not capable(mm.kernel, CAP_SYS_ADMIN):
            raise KernelError(Errno.EPERM, "needs CAP_SYS_ADMIN")
        raise KernelError(Errno.EINVAL, "no memory failure here")
    if advice in _UNSUPPORTED:
        raise KernelError(Errno.EINVAL, "no huge pages, no guard regions")
    if advice in (Madv.MADV_POPULATE_READ, Madv.MADV_POPULATE_WRITE):
        populate(mm, start, end, advice == Madv.MADV_POPULATE_WRITE)
        return
    walk_areas(mm, start, end, lambda vma, first, last: _advise(vma, first, last, advice))


def _end(start: int, len_bytes: int) -> int:
    """The end of a range; EINVAL if it or its length wraps around."""
    length = page_align(len_bytes)
    if (len_bytes and not length) or start + length >= 1 << 64:
        raise KernelError(Errno.EINVAL, "length wraps around")
    return start + length


def walk_areas(mm: MmStruct, start: int, end: int, visit: Callable[[Vma, int, int], Vma]) -> None:
    """``madvise_walk_vmas``: ``visit`` the part of every area in the range; it returns the area that now contains it.

    ENOMEM at the end if there was a hole.
    """
    hole = False
    vma = mm.areas.find_vma(start)
    while vma is not None and vma.vm_start < end:
        if start < vma.vm_start:
            hole = True
            start = vma.vm_start
        stop = min(end, vma.vm_end)
        vma = visit(vma, start, stop)
        start = max(stop, vma.vm_end)
        if start >= end:
            break
        vma = mm.areas.find_vma(start)
    if hole or start < end:
        raise KernelError(Errno.ENOMEM, "hole in the range")


def _advise(vma: Vma, start: int, end: int, advice: int) -> Vma:
    if vma.vm_flags & VM_SEALED and advice in _DISCARDS and vma.vm_file is None and not vma.vm_flags & VM_WRITE:
        raise KernelError(Errno.EPERM, "area is sealed")
    act = _PAGE_ADVICE.get(advice)
    if act is not None:
        act(vma, start, end)
        return vma
    new_flags = _FLAG_ADVICE[advice](vma, vma.vm_flags)
    if new_flags == vma.vm_flags:
        return vma
    try:
        return modify_flags(vma, start, end, new_flags)
    except KernelError:
        raise KernelError(Errno.EAGAIN, "area cannot be split") from None


def set_anon_vma_name(mm: MmStruct, start: int, len_bytes: int, name: str | None) -> None:
    """prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME); ``name`` None takes the name away.  EINVAL, ENOMEM, EBADF (a file)."""
    if start & ~PAGE_MASK:
        raise KernelError(Errno.EINVAL, "address not page aligned")
    end = _end(start, len_bytes)
    if end == start:
        return

    def visit(vma: Vma, first: int, last: int) -> Vma:
        mapping = vma.vm_file.f_mapping if vma.vm_file is not None else None
        if vma.vm_file is not None and not (mapping is not None and mapping.is_shmem):
            raise KernelError(Errno.EBADF, "area of a file")
        if vma.anon_name == name:
            return vma
        return modify_flags(vma, first, last, vma.vm_flags, name or "")

    walk_areas(mm, start, end, visit)


def do_mseal(mm: MmStruct, start: int, len_bytes: int) -> None:
    """mseal(2): the layout of the range is not to be changed any more.  EINVAL, ENOMEM (a hole: nothing is sealed)."""
    if start & ~PAGE_MASK:
        raise KernelError(Errno.EINVAL, "address not page aligned")
    end = _end(start, len_bytes)
    if end == start:
        return
    addr = start
    vma = mm.areas.find_vma(start)
    while vma is not None and vma.vm_start <= addr < end:
        addr = vma.vm_end
        vma = vma.vm_next
    if addr < end:
        raise KernelError(Errno.ENOMEM, "hole in the range")

    def visit(vma: Vma, first: int, last: int) -> Vma:
        if vma.vm_flags & VM_SEALED:
            return vma
        return modify_flags(vma, first, last, vma.vm_flags | VM_SEALED)

    walk_areas(mm, start, end, visit)
