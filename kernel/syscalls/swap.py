"""Swap areas: swapon(2), swapoff(2).

Models the two system calls of ``mm/swapfile.c``.
"""

from __future__ import annotations

from enum import IntFlag
from typing import TYPE_CHECKING, Annotated

from kernel.abi.capability import Cap
from kernel.abi.errno import Errno, KernelError
from kernel.fs.uio import getname
from kernel.mm.swapon import swapoff, swapon
from kernel.syscalls.table import INT, Path, syscall
from kernel.task.cred import require

if TYPE_CHECKING:
    from kernel.task.task import Task


class SwapFlags(IntFlag):
    """Flags of swapon(2)."""

    SWAP_FLAG_PREFER = 0x8000
    SWAP_FLAG_DISCARD = 0x10000
    SWAP_FLAG_DISCARD_ONCE = 0x20000
    SWAP_FLAG_DISCARD_PAGES = 0x40000


_PRIO_MASK = 0x7FFF
_VALID = 0x7FFFF


@syscall("swapon", x86_64=167, i386=87, group="file")
def sys_swapon(task: Task, specialfile: Path, swap_flags: Annotated[SwapFlags, INT]) -> None:
    """Start swapping to a file or device; discarding is accepted and does nothing."""
    if swap_flags & ~_VALID:
        raise KernelError(Errno.EINVAL, "unknown flag")
    require(task, Cap.CAP_SYS_ADMIN)
    prio = swap_flags & _PRIO_MASK if swap_flags & SwapFlags.SWAP_FLAG_PREFER else None
    swapon(task, getname(task, specialfile), prio)


@syscall("swapoff", x86_64=168, i386=115, group="file")
def sys_swapoff(task: Task, specialfile: Path) -> None:
    """Stop swapping to a file or device: all its pages come back into memory."""
    require(task, Cap.CAP_SYS_ADMIN)
    swapoff(task, getname(task, specialfile))
