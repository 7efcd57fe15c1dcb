"""New address spaces: empty ones for exec, copies for fork.

Models ``mm_init``, ``dup_mm`` and ``dup_mmap`` of ``kernel/fork.c`` (today ``mm/mmap.c``).  Manual: fork(2), madvise(2)
(MADV_DONTFORK, MADV_WIPEONFORK), mlock(2) (locks are not inherited).

Order for each area (RMAP.md section 1.4): copy the structure, link it to the rmap policy, to its file and into the
child's mm, and then copy its page tables.

Deliberate difference: ENOMEM in the middle takes the whole child down at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.abi.errno import KernelError
from kernel.mm.accounting import vm_enough_memory, vm_stat_account
from kernel.mm.area import AreaTree, duplicate, vma_link
from kernel.mm.exit import exit_mmap
from kernel.mm.memory import copy_page_range
from kernel.mm.pagetable import PageTables
from kernel.mm.types import (
    PAGE_SHIFT,
    VM_ACCOUNT,
    VM_DONTCOPY,
    VM_LOCKED,
    VM_LOCKONFAULT,
    VM_WIPEONFORK,
    MmStruct,
)

if TYPE_CHECKING:
    from kernel.kernel import Kernel

_COPIED_FIELDS = (
    "mmap_base", "start_code", "end_code", "start_data", "end_data", "start_brk", "brk", "start_stack",
    "arg_start", "arg_end", "env_start", "env_end", "saved_auxv", "vdso_base", "dumpable", "membarrier_state",
    "total_vm", "data_vm", "exec_vm", "stack_vm", "hiwater_vm",
)  # fmt: skip


def _mm_init(kernel: Kernel) -> MmStruct:
    page_tables = PageTables(kernel)
    mm = MmStruct(kernel, AreaTree(), page_tables)
    page_tables.mm = mm
    return mm


def new_mm(kernel: Kernel) -> MmStruct:
    """``mm_alloc``: an empty address space with one user.  KernelError(ENOMEM)."""
    mm = _mm_init(kernel)
    kernel.policy.new_mm(mm)
    return mm


def dup_mm(oldmm: MmStruct) -> MmStruct:
    """fork's copy of ``oldmm``, with one user.  KernelError(ENOMEM): nothing is left of the copy."""
    mm = _mm_init(oldmm.kernel)
    mm.has_forked = True
    for name in _COPIED_FIELDS:
        setattr(mm, name, getattr(oldmm, name))
    if oldmm.exe_file is not None:
        mm.exe_file = oldmm.exe_file.get()
    oldmm.kernel.policy.fork_mm(oldmm, mm)
    try:
        dup_mmap(mm, oldmm)
    except KernelError:
        exit_mmap(mm)
        raise
    oldmm.has_forked = True
    mm.hiwater_rss = mm.rss
    return mm


def dup_mmap(mm: MmStruct, oldmm: MmStruct) -> None:
    """Copy every area of ``oldmm``, and what its page tables hold, into the empty ``mm``."""
    policy = mm.kernel.policy
    for parent in oldmm.areas:
        nr_pages = (parent.vm_end - parent.vm_start) >> PAGE_SHIFT
        if parent.vm_flags & VM_DONTCOPY:
            vm_stat_account(mm, parent.vm_flags, -nr_pages)
            continue
        if parent.vm_flags & VM_ACCOUNT:
            vm_enough_memory(oldmm, nr_pages)
        child = duplicate(parent)
        child.vm_mm = mm
        child.vm_flags &= ~(VM_LOCKED | VM_LOCKONFAULT)
        if child.vm_file is not None:
            child.vm_file.get()
        wiped = parent.vm_flags & VM_WIPEONFORK
        if wiped:
            child.first_write = None
        else:
            policy.fork_vma(parent, child)
        vma_link(mm, child)
        if not wiped:
            copy_page_range(child, parent)
