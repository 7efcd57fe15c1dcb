"""mremap as 6.1 and as 6.17 have it.

Models ``mm/mremap.c`` of Linux 6.1 (``mremap_to``, ``vma_to_resize``) and of 6.17 (``check_prep_vma``,
``remap_move``).  RMAP.md sections 9.2 and 9.3.  Manual: mremap(2).

The two differ in when a range that spans areas is refused: 6.1 has then unmapped the target already; 6.17 looks first,
and moves a range of many areas with MREMAP_FIXED and equal lengths piece by piece, gaps kept (earlier pieces stay
moved when a later one fails).

Deliberate difference: no userfaultfd, no huge pages.
"""

from __future__ import annotations

from kernel.abi.errno import Errno, KernelError
from kernel.mm.accounting import (
    check_may_expand_vm,
    mlock_future_ok,
    vm_enough_memory,
    vm_stat_account,
    vm_unacct_memory,
)
from kernel.mm.area import page_align
from kernel.mm.merge import vma_merge
from kernel.mm.mlock import mm_populate
from kernel.mm.mremap import (
    MREMAP_DONTUNMAP,
    MREMAP_FIXED,
    MREMAP_MAYMOVE,
    Growth,
    MremapRequest,
    SpansAreas,
    find_new_addr,
    move_vma,
    no_growth,
)
from kernel.mm.munmap import do_munmap
from kernel.mm.types import (
    PAGE_MASK,
    PAGE_SHIFT,
    TASK_SIZE,
    VM_ACCOUNT,
    VM_DONTEXPAND,
    VM_LOCKED,
    VM_MAYSHARE,
    VM_PFNMAP,
    VM_SEALED,
    VM_SHARED,
    MmStruct,
    Vma,
)

_KNOWN_FLAGS = MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP
_U64 = (1 << 64) - 1
_NEW_ADDR = MREMAP_FIXED | MREMAP_DONTUNMAP
"""Flags that imply a new address."""


def _check_target(request: MremapRequest) -> None:
    """Limits and overlap of a move to a given address."""
    if request.new_len > TASK_SIZE or request.new_addr > TASK_SIZE - request.new_len:
        raise KernelError(Errno.EINVAL, "target beyond the address space")
    old_end = request.addr + request.old_len & _U64
    if old_end > request.new_addr and request.new_addr + request.new_len > request.addr:
        raise KernelError(Errno.EINVAL, "old and new range overlap")


def _check_map_count(mm: MmStruct) -> None:
    """move_vma needs room for both ranges to be split in three; better to know before the target is gone."""
    if mm.map_count + 2 >= mm.kernel.sysctl.max_map_count - 3:
        raise KernelError(Errno.ENOMEM, "map_count near max_map_count")


def _check_resize(mm: MmStruct, vma: Vma, addr: int, old_len: int, new_len: int, flags: int) -> None:
    """``vma_to_resize``: may the range be mapped anew with ``new_len`` bytes?"""
    if not old_len and not vma.vm_flags & (VM_SHARED | VM_MAYSHARE):
        raise KernelError(Errno.EINVAL, "old length 0 of private memory")
    if flags & MREMAP_DONTUNMAP and vma.vm_flags & (VM_DONTEXPAND | VM_PFNMAP):
        raise KernelError(Errno.EINVAL, "area cannot be kept")
    if old_len > vma.vm_end - addr:
        raise SpansAreas
    if new_len == old_len:
        return
    if vma.vm_pgoff + ((addr - vma.vm_start) >> PAGE_SHIFT) + (new_len >> PAGE_SHIFT) >= 1 << 64:
        raise KernelError(Errno.EINVAL, "page offset wraps around")
    if vma.vm_flags & (VM_DONTEXPAND | VM_PFNMAP):
        raise KernelError(Errno.EFAULT, "area may not grow")
    if not mlock_future_ok(mm, vma.vm_flags, new_len - old_len):
        raise KernelError(Errno.EAGAIN, "RLIMIT_MEMLOCK")
    check_may_expand_vm(mm, vma.vm_flags, (new_len - old_len) >> PAGE_SHIFT)


# -- 6.1 -----------------------------------------------------------------------------------------------------------


def mremap_6_1(mm: MmStruct, request: MremapRequest) -> int:
    addr, flags = request.addr, request.flags
    if flags & ~_KNOWN_FLAGS:
        raise KernelError(Errno.EINVAL, "unknown flag")
    if flags & MREMAP_FIXED and not flags & MREMAP_MAYMOVE:
        raise KernelError(Errno.EINVAL, "MREMAP_FIXED without MREMAP_MAYMOVE")
    if flags & MREMAP_DONTUNMAP and (not flags & MREMAP_MAYMOVE or request.old_len != request.new_len):
        raise KernelError(Errno.EINVAL, "MREMAP_DONTUNMAP without MREMAP_MAYMOVE, or resizing")
    if addr & ~PAGE_MASK:
        raise KernelError(Errno.EINVAL, "old address not page aligned")
    request.old_len, request.new_len = page_align(request.old_len), page_align(request.new_len)
    if not request.new_len:
        raise KernelError(Errno.EINVAL, "new length 0")
    vma = mm.areas.find_exact(addr)
    if vma is None:
        raise KernelError(Errno.EFAULT, "no area at the old address")
    _check_not_sealed(vma)
    if flags & _NEW_ADDR:
        return _mremap_to_6_1(mm, request)
    if request.old_len >= request.new_len:
        if request.old_len > request.new_len:
            do_munmap(mm, addr + request.new_len, request.old_len - request.new_len)
        return addr
    _check_resize(mm, vma, addr, request.old_len, request.new_len, flags)
    return _grow(mm, vma, request)


def _mremap_to_6_1(mm: MmStruct, request: MremapRequest) -> int:
    addr, flags = request.addr, request.flags
    if request.new_addr & ~PAGE_MASK:
        raise KernelError(Errno.EINVAL, "new address not page aligned")
    _check_target(request)
    _check_map_count(mm)
    if flags & MREMAP_FIXED:
        do_munmap(mm, request.new_addr, request.new_len)
    if request.old_len > request.new_len:
        do_munmap(mm, addr + request.new_len, request.old_len - request.new_len)
        request.old_len = request.new_len
    vma = mm.areas.find_exact(addr)
    if vma is None:
        raise KernelError(Errno.EFAULT, "no area at the old address")
    _check_resize(mm, vma, addr, request.old_len, request.new_len, flags)
    return _move_to(mm, vma, request)


# -- 6.17 ----------------------------------------------------------------------------------------------------------


def mremap_6_17(mm: MmStruct, request: MremapRequest) -> int:
    request.old_len, request.new_len = page_align(request.old_len), page_align(request.new_len)
    _check_params_6_17(mm, request)
    addr, old_len, new_len, flags = request.addr, request.old_len, request.new_len, request.flags
    if flags & MREMAP_FIXED and old_len == new_len:
        return _move_many(mm, request)
    vma = mm.areas.find_exact(addr)
    if vma is None:
        raise KernelError(Errno.EFAULT, "no area at the old address")
    _check_not_sealed(vma)
    if flags & _NEW_ADDR or new_len > old_len:
        # A shrinking move needs only what it keeps to lie in one area.
        _check_resize(mm, vma, addr, min(old_len, new_len), new_len, flags)
    if flags & _NEW_ADDR:
        return _mremap_to_6_17(mm, request)
    if new_len > old_len:
        return _grow(mm, vma, request)
    if new_len < old_len:
        do_munmap(mm, addr + new_len, old_len - new_len)
    return addr


def _check_params_6_17(mm: MmStruct, request: MremapRequest) -> None:
    flags = request.flags
    if flags & ~_KNOWN_FLAGS:
        raise KernelError(Errno.EINVAL, "unknown flag")
    if request.addr & ~PAGE_MASK:
        raise KernelError(Errno.EINVAL, "old address not page aligned")
    if not request.new_len:
        raise KernelError(Errno.EINVAL, "new length 0")
    if request.new_len > TASK_SIZE:
        raise KernelError(Errno.EINVAL, "longer than the address space")
    if not flags & _NEW_ADDR:
        return
    if request.new_addr > TASK_SIZE - request.new_len:
        raise KernelError(Errno.EINVAL, "target beyond the address space")
    if request.new_addr & ~PAGE_MASK:
        raise KernelError(Errno.EINVAL, "new address not page aligned")
    if not flags & MREMAP_MAYMOVE:
        raise KernelError(Errno.EINVAL, "MREMAP_FIXED or MREMAP_DONTUNMAP without MREMAP_MAYMOVE")
    if flags & MREMAP_DONTUNMAP and request.old_len != request.new_len:
        raise KernelError(Errno.EINVAL, "MREMAP_DONTUNMAP resizing")
    _check_target(request)
    _check_map_count(mm)


def _mremap_to_6_17(mm: MmStruct, request: MremapRequest) -> int:
    """``mremap_to``: everything about the source is known to be good, unless it loses itself with the target."""
    addr = request.addr
    if request.flags & MREMAP_FIXED:
        do_munmap(mm, request.new_addr, request.new_len)
        if mm.areas.find_exact(addr) is None:
            raise KernelError(Errno.EFAULT, "the source was in the target")
    if request.old_len > request.new_len:
        do_munmap(mm, addr + request.new_len, request.old_len - request.new_len)
        request.old_len = request.new_len
    vma = mm.areas.find_exact(addr)
    if vma is None:
        raise KernelError(Errno.EFAULT, "no area at the old address")
    return _move_to(mm, vma, request)


def _move_many(mm: MmStruct, request: MremapRequest) -> int:
    """``remap_move``: every area of the range in turn, to the same distance from the one before."""
    start, end = request.addr, request.addr + request.old_len
    target = request.new_addr
    last_end = -1
    vma = mm.areas.find_vma(start)
    while vma is not None and vma.vm_start < end:
        if last_end < 0 and vma.vm_start > start:
            raise KernelError(Errno.EFAULT, "hole at the start of the range")
        gap = vma.vm_start - last_end if last_end >= 0 else 0
        last_end = vma.vm_end
        addr = max(vma.vm_start, start)
        length = min(end, vma.vm_end) - addr
        piece = MremapRequest(addr, length, length, request.flags, target + gap)
        _check_not_sealed(vma)
        _check_resize(mm, vma, addr, piece.old_len, piece.new_len, piece.flags)
        target = _mremap_to_6_17(mm, piece) + piece.new_len
        # The piece may have been joined to its source's neighbour: go on behind where the source ended.
        vma = mm.areas.find_vma(last_end) if last_end < end else None
    if last_end < 0:
        raise KernelError(Errno.EFAULT, "no area in the range")
    return request.new_addr


# -- both ----------------------------------------------------------------------------------------------------------


def _check_not_sealed(vma: Vma) -> None:
    if vma.vm_flags & VM_SEALED:
        raise KernelError(Errno.EPERM, "area is sealed")


def _move_to(mm: MmStruct, vma: Vma, request: MremapRequest) -> int:
    """Move to the given address (a hint only without MREMAP_FIXED)."""
    flags = request.flags
    if flags & MREMAP_DONTUNMAP:
        check_may_expand_vm(mm, vma.vm_flags, request.old_len >> PAGE_SHIFT)
    request.new_addr = find_new_addr(mm, vma, request.new_addr, request.new_len, flags)
    return _move(mm, vma, request)


def _move(mm: MmStruct, vma: Vma, request: MremapRequest) -> int:
    charged = 0
    if vma.vm_flags & VM_ACCOUNT:
        kept = 0 if request.flags & MREMAP_DONTUNMAP else request.old_len
        charged = (request.new_len - kept) >> PAGE_SHIFT
        vm_enough_memory(mm, charged)
    locked = vma.vm_flags & VM_LOCKED
    addr = move_vma(mm, vma, request, charged)
    if locked and request.new_len > request.old_len:
        mm_populate(mm, addr + request.old_len, request.new_len - request.old_len)
    return addr


def _grow(mm: MmStruct, vma: Vma, request: MremapRequest) -> int:
    """``expand_vma``: in place if there is room, joining the next area if that is possible; else move."""
    addr, old_len, new_len = request.addr, request.old_len, request.new_len
    has_room = old_len == vma.vm_end - addr and _room_after(mm, vma, new_len - old_len)
    if has_room and request.growth is Growth.IN_PLACE:
        nr_pages = (new_len - old_len) >> PAGE_SHIFT
        vm_flags = vma.vm_flags
        if vm_flags & VM_ACCOUNT:
            vm_enough_memory(mm, nr_pages)
        end = vma.vm_end
        pgoff = vma.vm_pgoff + ((end - vma.vm_start) >> PAGE_SHIFT)
        grown = vma_merge(
            mm, vma, end, addr + new_len, vm_flags, vma.anon_vma, vma.vm_file, pgoff, vma, vma.anon_name, vma.vm_policy
        )
        if grown is None:
            if vm_flags & VM_ACCOUNT:
                vm_unacct_memory(mm.kernel, nr_pages)
            raise KernelError(Errno.ENOMEM, "area cannot be extended")
        vm_stat_account(mm, vm_flags, nr_pages)
        if vm_flags & VM_LOCKED:
            mm.locked_vm += nr_pages
            mm_populate(mm, end, new_len - old_len)
        return addr
    if not request.flags & MREMAP_MAYMOVE:
        raise no_growth(has_room)
    request.new_addr = find_new_addr(mm, vma, 0, new_len, request.flags)
    return _move(mm, vma, request)


def _room_after(mm: MmStruct, vma: Vma, nr_bytes: int) -> bool:
    end = vma.vm_end + nr_bytes
    return end <= TASK_SIZE and (vma.vm_next is None or vma.vm_next.vm_start >= end)
