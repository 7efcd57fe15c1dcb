"""Limits and counters of address spaces: RLIMIT_AS, RLIMIT_DATA, RLIMIT_MEMLOCK, overcommit, ``total_vm`` and its
parts.

Models ``__vm_enough_memory`` (mm/util.c), ``may_expand_vm`` and ``vm_stat_account`` (mm/vma.c), ``mlock_future_ok``,
``can_do_mlock`` (mm/mlock.c).  Manual: proc(5) overcommit_memory, getrlimit(2), mlock(2).

Deliberate differences: limits and capabilities are those of the task that runs (Linux's ``current``); without one
(tests of the kernel alone) there are no limits.  ``/proc/sys/vm/overcommit_kbytes`` is honoured when it is not 0, as
in Linux.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from kernel.abi.errno import Errno, KernelError
from kernel.fs.permission import capable as task_capable
from kernel.mm.types import (
    PAGE_SHIFT,
    VM_EXEC,
    VM_LOCKED,
    VM_SHARED,
    VM_STACK,
    VM_WRITE,
    MmStruct,
)

if TYPE_CHECKING:
    from kernel.kernel import Kernel

RLIM_INFINITY = 0xFFFF_FFFF_FFFF_FFFF
RLIMIT_DATA = 2
RLIMIT_STACK = 3
RLIMIT_MEMLOCK = 8
RLIMIT_AS = 9

CAP_IPC_LOCK = 14
CAP_SYS_RAWIO = 17
CAP_SYS_ADMIN = 21

OVERCOMMIT_GUESS = 0
OVERCOMMIT_ALWAYS = 1
OVERCOMMIT_NEVER = 2


class VmStat:
    """Counters of one kernel's address spaces."""

    def __init__(self) -> None:
        self.committed_pages = 0
        """``vm_committed_as``: pages promised to all address spaces (Committed_AS)."""
        self.merged: Counter[str] = Counter()
        """Merges of areas, by case of vma_merge (kernel/mm/merge.py)."""
        self.refused: Counter[str] = Counter()
        """Touching areas that stayed apart, by reason."""
        self.nr_splits = 0
        self.nr_uncharged_areas = 0
        """How often an area became writable without being charged by rule: MAP_NORESERVE, and the source that mremap
        with old_len 0 leaves.  While it is 0, every private writable area has VM_ACCOUNT (rmap/check.py)."""


def rlimit(kernel: Kernel, resource: int) -> int:
    """The soft limit of the running task, in the units of getrlimit(2)."""
    task = kernel.current
    return task.signal.rlimits[resource][0] if task is not None else RLIM_INFINITY


def capable(kernel: Kernel, capability: int) -> bool:
    """Has the running task this capability?"""
    return task_capable(kernel.current, capability)


# -- commit charge -------------------------------------------------------------------------------------------------


def vm_commit_limit(kernel: Kernel) -> int:
    """``CommitLimit`` of /proc/meminfo, in pages."""
    sysctl = kernel.sysctl
    if sysctl.overcommit_kbytes:
        allowed = sysctl.overcommit_kbytes >> (PAGE_SHIFT - 10)
    else:
        allowed = kernel.pages.nr_usable * sysctl.overcommit_ratio // 100
    return allowed + total_swap_pages(kernel)


def total_swap_pages(kernel: Kernel) -> int:
    """Pages of all swap areas together."""
    return kernel.swap.total_swap_pages if kernel.pages.swap is not None else 0


def vm_enough_memory(mm: MmStruct, nr_pages: int) -> None:
    """``security_vm_enough_memory_mm``: charge ``nr_pages`` to the commit, or ENOMEM."""
    kernel = mm.kernel
    mode = kernel.sysctl.overcommit_memory
    if mode == OVERCOMMIT_GUESS:
        if nr_pages > kernel.pages.nr_usable + total_swap_pages(kernel):
            raise KernelError(Errno.ENOMEM, "overcommit: more than RAM and swap")
    elif mode == OVERCOMMIT_NEVER:
        allowed = vm_commit_limit(kernel)
        sysctl = kernel.sysctl
        if not capable(kernel, CAP_SYS_ADMIN):
            allowed -= sysctl.admin_reserve_kbytes >> (PAGE_SHIFT - 10)
        allowed -= min(mm.total_vm // 32, sysctl.user_reserve_kbytes >> (PAGE_SHIFT - 10))
        if kernel.vm_stat.committed_pages + nr_pages >= allowed:
            raise KernelError(Errno.ENOMEM, "overcommit: CommitLimit")
    kernel.vm_stat.committed_pages += nr_pages


def vm_acct_memory(kernel: Kernel, nr_pages: int) -> None:
    """Charge without asking."""
    kernel.vm_stat.committed_pages += nr_pages


def vm_unacct_memory(kernel: Kernel, nr_pages: int) -> None:
    """Give ``nr_pages`` of the commit charge back."""
    kernel.vm_stat.committed_pages -= nr_pages


# -- size limits ---------------------------------------------------------------------------------------------------


def is_data_mapping(flags: int) -> bool:
    """Counted against RLIMIT_DATA: private, writable, not a stack."""
    return flags & (VM_WRITE | VM_SHARED | VM_STACK) == VM_WRITE


def may_expand_vm(mm: MmStruct, flags: int, nr_pages: int) -> bool:
    """May ``nr_pages`` of an area with ``flags`` be added (RLIMIT_AS, RLIMIT_DATA)?"""
    return not _exceeded(mm, flags, nr_pages)


def check_may_expand_vm(mm: MmStruct, flags: int, nr_pages: int) -> None:
    """ENOMEM, with the name of the limit, if ``nr_pages`` of an area with ``flags`` may not be added."""
    exceeded = _exceeded(mm, flags, nr_pages)
    if exceeded:
        raise KernelError(Errno.ENOMEM, exceeded)


def _exceeded(mm: MmStruct, flags: int, nr_pages: int) -> str:
    kernel = mm.kernel
    if mm.total_vm + nr_pages > rlimit(kernel, RLIMIT_AS) >> PAGE_SHIFT:
        return "RLIMIT_AS"
    if is_data_mapping(flags) and mm.data_vm + nr_pages > rlimit(kernel, RLIMIT_DATA) >> PAGE_SHIFT:
        return "RLIMIT_DATA"
    return ""


def vm_stat_account(mm: MmStruct, flags: int, nr_pages: int) -> None:
    """``nr_pages`` (may be negative) of an area with ``flags`` came or went."""
    mm.total_vm += nr_pages
    if flags & (VM_EXEC | VM_WRITE | VM_STACK) == VM_EXEC:
        mm.exec_vm += nr_pages
    elif flags & VM_STACK:
        mm.stack_vm += nr_pages
    elif flags & (VM_WRITE | VM_SHARED) == VM_WRITE:
        mm.data_vm += nr_pages
    if mm.total_vm > mm.hiwater_vm:
        mm.hiwater_vm = mm.total_vm


def can_do_mlock(mm: MmStruct) -> bool:
    """May the running task lock anything at all?"""
    return rlimit(mm.kernel, RLIMIT_MEMLOCK) != 0 or capable(mm.kernel, CAP_IPC_LOCK)


def mlock_future_ok(mm: MmStruct, flags: int, nr_bytes: int) -> bool:
    """May an area with ``flags`` grow by ``nr_bytes`` (RLIMIT_MEMLOCK)?"""
    if not flags & VM_LOCKED:
        return True
    limit = rlimit(mm.kernel, RLIMIT_MEMLOCK) >> PAGE_SHIFT
    return mm.locked_vm + (nr_bytes >> PAGE_SHIFT) <= limit or capable(mm.kernel, CAP_IPC_LOCK)
