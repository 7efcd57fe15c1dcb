"""msync: write what was changed through a shared mapping.

Models ``mm/msync.c``.  Manual: msync(2).
"""

from __future__ import annotations

from kernel.abi.errno import Errno, KernelError
from kernel.abi.mman import Msync
from kernel.mm.area import page_align
from kernel.mm.filemap import msync_interval
from kernel.mm.types import PAGE_MASK, VM_LOCKED, VM_SHARED, MmStruct

_MS_ASYNC, _MS_INVALIDATE, _MS_SYNC = int(Msync.MS_ASYNC), int(Msync.MS_INVALIDATE), int(Msync.MS_SYNC)


def do_msync(mm: MmStruct, start: int, len_bytes: int, flags: int) -> None:
    """msync(2).  KernelError: EINVAL, ENOMEM (a hole; the rest is synchronized), EBUSY (locked), EIO."""
    if flags & ~(_MS_ASYNC | _MS_INVALIDATE | _MS_SYNC) or (flags & _MS_ASYNC and flags & _MS_SYNC):
        raise KernelError(Errno.EINVAL, "flags")
    if start & ~PAGE_MASK:
        raise KernelError(Errno.EINVAL, "address not page aligned")
    end = start + page_align(len_bytes) & (1 << 64) - 1
    if end < start:
        raise KernelError(Errno.ENOMEM, "length wraps around")
    if end == start:
        return
    hole = False
    vma = mm.areas.find_vma(start)
    while vma is not None and start < end:
        if start < vma.vm_start:
            hole = True
            if flags == _MS_ASYNC or vma.vm_start >= end:
                break
            start = vma.vm_start
        if flags & _MS_INVALIDATE and vma.vm_flags & VM_LOCKED:
            raise KernelError(Errno.EBUSY, "MS_INVALIDATE of locked memory")
        stop = min(end, vma.vm_end)
        if flags & _MS_SYNC and vma.vm_file is not None and vma.vm_flags & VM_SHARED:
            msync_interval(vma, start, stop)
        start = vma.vm_end
        vma = mm.areas.find_vma(start)
    if hole or start < end:
        raise KernelError(Errno.ENOMEM, "hole in the range")
