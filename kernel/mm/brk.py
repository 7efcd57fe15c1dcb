"""The heap: brk.

Models ``sys_brk`` and ``do_brk_flags`` of ``mm/mmap.c``.  Manual: brk(2).

Like Linux's, the call never fails: it returns the old break.
"""

from __future__ import annotations

from contextlib import suppress

from kernel.abi.errno import Errno, KernelError
from kernel.mm.accounting import (
    RLIM_INFINITY,
    RLIMIT_DATA,
    check_may_expand_vm,
    mlock_future_ok,
    rlimit,
    vm_enough_memory,
    vm_stat_account,
)
from kernel.mm.area import page_align, vm_start_gap, vma_link
from kernel.mm.merge import vma_merge
from kernel.mm.mlock import mm_populate
from kernel.mm.munmap import do_munmap
from kernel.mm.types import (
    PAGE_SHIFT,
    PAGE_SIZE,
    TASK_SIZE,
    VM_ACCOUNT,
    VM_EXEC,
    VM_LOCKED,
    VM_MAYEXEC,
    VM_MAYREAD,
    VM_MAYWRITE,
    VM_READ,
    VM_WRITE,
    MmStruct,
    Vma,
)

VM_DATA_DEFAULT_FLAGS = VM_READ | VM_WRITE | VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC


def sys_brk(mm: MmStruct, brk: int) -> int:
    """Set the end of the heap; returns where it is now."""
    with suppress(KernelError):
        _set_brk(mm, brk)
    return mm.brk


def _set_brk(mm: MmStruct, brk: int) -> None:
    if brk < mm.start_brk:
        raise KernelError(Errno.EINVAL, "break below the heap")
    limit = rlimit(mm.kernel, RLIMIT_DATA)
    if limit != RLIM_INFINITY and brk - mm.start_brk + mm.end_data - mm.start_data > limit:
        raise KernelError(Errno.ENOMEM, "RLIMIT_DATA")
    new = page_align(brk)
    old = page_align(mm.brk)
    if new < old:
        heap = mm.areas.find_vma(old - 1)
        if heap is None or heap.vm_start >= old:
            raise KernelError(Errno.EINVAL, "heap is not mapped")
        do_munmap(mm, new, old - new)
    elif new > old:
        following = mm.areas.find_vma(old)
        if following is not None and new + PAGE_SIZE > vm_start_gap(following):
            raise KernelError(Errno.ENOMEM, "heap would touch another area")
        do_brk(mm, old, new - old)
    mm.brk = brk


def do_brk(mm: MmStruct, addr: int, len_bytes: int, extra_flags: int = 0) -> None:
    """``do_brk_flags``: map anonymous memory at ``[addr, addr + len_bytes)`` (heap and bss).  ``extra_flags``: VM_EXEC
    or 0.
    """
    kernel = mm.kernel
    if extra_flags & ~VM_EXEC:
        raise KernelError(Errno.EINVAL, "flags other than VM_EXEC")
    len_bytes = page_align(len_bytes)
    if not len_bytes:
        return
    if addr + len_bytes > TASK_SIZE:
        raise KernelError(Errno.ENOMEM, "beyond the address space")
    flags = VM_DATA_DEFAULT_FLAGS | VM_ACCOUNT | mm.def_flags | extra_flags
    if not mlock_future_ok(mm, flags, len_bytes):
        raise KernelError(Errno.EAGAIN, "RLIMIT_MEMLOCK")
    if mm.areas.find_intersection(addr, addr + len_bytes) is not None:
        do_munmap(mm, addr, len_bytes)
    nr_pages = len_bytes >> PAGE_SHIFT
    check_may_expand_vm(mm, flags, nr_pages)
    if mm.map_count > kernel.sysctl.max_map_count:
        raise KernelError(Errno.ENOMEM, "map_count above max_map_count")
    vm_enough_memory(mm, nr_pages)
    prev = mm.areas.find_prev(addr)
    pgoff = addr >> PAGE_SHIFT
    if vma_merge(mm, prev, addr, addr + len_bytes, flags, None, None, pgoff) is None:
        vma = Vma(mm, addr, addr + len_bytes, flags, pgoff)
        vma_link(mm, vma)
        if kernel.policy.shares_at_merge:
            kernel.policy.on_new_vma(vma, prev, vma.vm_next)
    vm_stat_account(mm, flags, nr_pages)
    if flags & VM_LOCKED:
        mm.locked_vm += nr_pages
        mm_populate(mm, addr, len_bytes)
