"""The end of an address space.

Models ``mmput`` (kernel/fork.c) and ``exit_mmap`` (mm/mmap.c): zap everything, then unlink and free all areas, then the
page tables.
"""

from __future__ import annotations

from kernel.fs.file import fput
from kernel.mm.accounting import vm_unacct_memory
from kernel.mm.area import AreaTree, free_vma, i_mmap_remove
from kernel.mm.memory import zap_page_range
from kernel.mm.types import PAGE_SHIFT, VM_ACCOUNT, MmStruct
from kernel.trace import Tracepoint

EXIT_MMAP = Tracepoint("mmap:exit_mmap", "mm")
"""The last moment at which ``mm`` is whole."""


def mmget(mm: MmStruct) -> MmStruct:
    """One more user (CLONE_VM)."""
    mm.mm_users += 1
    return mm


def mmput(mm: MmStruct) -> None:
    """One user less; the last one takes the address space down."""
    mm.mm_users -= 1
    if mm.mm_users == 0:
        exit_mmap(mm)


def exit_mmap(mm: MmStruct) -> None:
    """Unmap and free everything.  The mm is empty afterwards and has no page tables."""
    kernel = mm.kernel
    policy = kernel.policy
    if EXIT_MMAP.on:
        EXIT_MMAP.emit(mm)
    nr_accounted = 0
    areas = list(mm.areas)
    for vma in areas:
        zap_page_range(vma, vma.vm_start, vma.vm_end)
        if vma.vm_flags & VM_ACCOUNT:
            nr_accounted += (vma.vm_end - vma.vm_start) >> PAGE_SHIFT
    vm_unacct_memory(kernel, nr_accounted)
    for vma in areas:
        policy.unlink_vma(vma)
        if vma.vm_file is not None:
            i_mmap_remove(vma)
            free_vma(vma)
    mm.areas = AreaTree()
    mm.map_count = 0
    mm.total_vm = mm.locked_vm = mm.data_vm = mm.exec_vm = mm.stack_vm = 0
    mm.pt.destroy()
    policy.exit_mm(mm)
    if mm.exe_file is not None:
        fput(mm.exe_file)
        mm.exe_file = None
