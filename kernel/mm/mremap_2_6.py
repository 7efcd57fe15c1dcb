"""mremap as 2.6.7 to 2.6.9 had it.

Models ``do_mremap`` of mm/mremap.c, 2.6.9; the numbers below are the rows of RMAP.md section 9.1.  What surprises: the
source is looked up only when the range grows or moves; the target of MREMAP_FIXED is gone before anything is known
about the source; old_len 0 maps private memory a second time; growth in place never joins the next area.
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
from kernel.mm.area import page_align, set_vma_range
from kernel.mm.mlock import mm_populate
from kernel.mm.mremap import (
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
    VM_HUGETLB,
    VM_LOCKED,
    VM_SEALED,
    MmStruct,
    Vma,
)


def mremap_2_6(mm: MmStruct, request: MremapRequest) -> int:
    addr, flags, new_addr = request.addr, request.flags, request.new_addr
    if flags & ~(MREMAP_MAYMOVE | MREMAP_FIXED):  # 1
        raise KernelError(Errno.EINVAL, "flag other than MREMAP_MAYMOVE and MREMAP_FIXED")
    if addr & ~PAGE_MASK:  # 2
        raise KernelError(Errno.EINVAL, "old address not page aligned")
    old_len = page_align(request.old_len)
    new_len = page_align(request.new_len)
    if not new_len:  # 3
        raise KernelError(Errno.EINVAL, "new length 0")
    if flags & MREMAP_FIXED:
        _check_target(addr, old_len, new_len, flags, new_addr)  # 4
        do_munmap(mm, new_addr, new_len)  # 5
    if old_len >= new_len:  # 6
        if old_len > new_len:
            do_munmap(mm, addr + new_len, old_len - new_len)
        if not flags & MREMAP_FIXED:
            return addr
        old_len = new_len
    vma = mm.areas.find_exact(addr)
    if vma is None:  # 7
        raise KernelError(Errno.EFAULT, "no area at the old address")
    if vma.vm_flags & VM_SEALED:
        raise KernelError(Errno.EPERM, "area is sealed")
    if vma.vm_flags & VM_HUGETLB:  # 8
        raise KernelError(Errno.EINVAL, "huge pages")
    if old_len > vma.vm_end - addr:  # 9
        raise SpansAreas
    growth = new_len - old_len
    if vma.vm_flags & VM_DONTEXPAND and growth:  # 10
        raise KernelError(Errno.EFAULT, "area may not grow")
    if not mlock_future_ok(mm, vma.vm_flags, growth):  # 11
        raise KernelError(Errno.EAGAIN, "RLIMIT_MEMLOCK")
    check_may_expand_vm(mm, vma.vm_flags, growth >> PAGE_SHIFT)  # 12
    charged = 0
    if vma.vm_flags & VM_ACCOUNT:
        charged = growth >> PAGE_SHIFT
        vm_enough_memory(mm, charged)
    has_room = old_len == vma.vm_end - addr and not flags & MREMAP_FIXED and _room_after(vma, addr) >= new_len
    if has_room and request.growth is Growth.IN_PLACE:  # 13
        _grow_in_place(mm, vma, addr, old_len, new_len)
        return addr
    if not flags & MREMAP_MAYMOVE:  # 14
        vm_unacct_memory(mm.kernel, charged)
        raise no_growth(has_room)
    if not flags & MREMAP_FIXED:
        try:
            new_addr = find_new_addr(mm, vma, 0, new_len, flags)
        except KernelError:
            vm_unacct_memory(mm.kernel, charged)
            raise
    locked = vma.vm_flags & VM_LOCKED
    move_vma(mm, vma, MremapRequest(addr, old_len, new_len, flags, new_addr), charged)  # 15
    if locked and new_len > old_len:
        mm_populate(mm, new_addr + old_len, new_len - old_len)
    return new_addr


def _check_target(addr: int, old_len: int, new_len: int, flags: int, new_addr: int) -> None:
    if new_addr & ~PAGE_MASK:
        raise KernelError(Errno.EINVAL, "new address not page aligned")
    if not flags & MREMAP_MAYMOVE:
        raise KernelError(Errno.EINVAL, "MREMAP_FIXED without MREMAP_MAYMOVE")
    if new_len > TASK_SIZE or new_addr > TASK_SIZE - new_len:
        raise KernelError(Errno.EINVAL, "target beyond the address space")
    if new_addr <= addr < new_addr + new_len or addr <= new_addr < (addr + old_len & (1 << 64) - 1):
        raise KernelError(Errno.EINVAL, "old and new range overlap")


def _room_after(vma: Vma, addr: int) -> int:
    """Bytes from ``addr`` to the next area."""
    return (vma.vm_next.vm_start if vma.vm_next is not None else TASK_SIZE) - addr


def _grow_in_place(mm: MmStruct, vma: Vma, addr: int, old_len: int, new_len: int) -> None:
    nr_pages = (new_len - old_len) >> PAGE_SHIFT
    set_vma_range(vma, vma.vm_start, addr + new_len, vma.vm_pgoff)
    vm_stat_account(mm, vma.vm_flags, nr_pages)
    if vma.vm_flags & VM_LOCKED:
        mm.locked_vm += nr_pages
        mm_populate(mm, addr + old_len, new_len - old_len)
