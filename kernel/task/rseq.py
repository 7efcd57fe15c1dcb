"""Restartable sequences: a thread that lost the processor inside one goes to its abort handler.

Models ``kernel/rseq.c``.  Manual: rseq(2).  One processor: the CPU and node fields are 0 and never change.
"""

from __future__ import annotations

from kernel.abi.errno import Errno, KernelError
from kernel.abi.rseq import (
    CPU_ID_START,
    NODE_ID,
    NODE_ID_OFFSET,
    ORIG_RSEQ_SIZE,
    RSEQ_ALIGN,
    RSEQ_CPU_ID_UNINITIALIZED,
    RSEQ_CS,
    RSEQ_CS_OFFSET,
    RSEQ_FEATURE_SIZE,
    RSEQ_FLAG_UNREGISTER,
)
from kernel.abi.signal import SIGSEGV
from kernel.hardware import Reg
from kernel.mm.types import TASK_SIZE
from kernel.mm.usercopy import access_ok, copy_from_user, copy_to_user, get_user_u32, get_user_u64, put_user_u64
from kernel.task.signal import force_sig
from kernel.task.task import TIF_NOTIFY_RESUME, Rseq, Task


def rseq_register(task: Task, address: int, length: int, flags: int, signature: int) -> None:
    """rseq(2)."""
    if flags & RSEQ_FLAG_UNREGISTER:
        if flags & ~RSEQ_FLAG_UNREGISTER:
            raise KernelError(Errno.EINVAL, "unknown flag")
        _unregister(task, address, length, signature)
        return
    if flags:
        raise KernelError(Errno.EINVAL, "unknown flag")
    area = task.rseq
    if area is not None:
        if (area.address, area.length) != (address, length):
            raise KernelError(Errno.EINVAL, "another area is registered")
        if area.signature != signature:
            raise KernelError(Errno.EPERM, "signature differs from the registered one")
        raise KernelError(Errno.EBUSY, "already registered")
    if length < ORIG_RSEQ_SIZE or length < RSEQ_FEATURE_SIZE or address % RSEQ_ALIGN:
        raise KernelError(Errno.EINVAL, "area too small or not aligned")
    if not access_ok(address, length):
        raise KernelError(Errno.EFAULT, "area is not user memory")
    assert task.mm is not None
    copy_to_user(task.mm, address, CPU_ID_START.pack(0, 0) + bytes(8))
    copy_to_user(task.mm, address + NODE_ID_OFFSET, NODE_ID.pack(0, 0))
    task.rseq = Rseq(address, length, signature)
    task.exit_work |= TIF_NOTIFY_RESUME


def _unregister(task: Task, address: int, length: int, signature: int) -> None:
    area = task.rseq
    if area is None or area.address != address or area.length != length:
        raise KernelError(Errno.EINVAL, "not the registered area")
    if area.signature != signature:
        raise KernelError(Errno.EPERM, "signature differs from the registered one")
    assert task.mm is not None
    copy_to_user(task.mm, address, CPU_ID_START.pack(0, RSEQ_CPU_ID_UNINITIALIZED))
    copy_to_user(task.mm, address + NODE_ID_OFFSET, NODE_ID.pack(0, 0))
    task.rseq = None


def rseq_handle_notify_resume(task: Task) -> None:
    """Before ``task`` goes on after losing the processor, and before a signal frame is built from its registers."""
    if task.rseq is None or task.exiting:
        return
    try:
        _ip_fixup(task, task.rseq)
    except KernelError:
        force_sig(task, SIGSEGV)


def _ip_fixup(task: Task, area: Rseq) -> None:
    """rseq_ip_fixup(): KernelError when the descriptor or the signature before the abort handler is bad."""
    mm = task.mm
    assert mm is not None
    descriptor = get_user_u64(mm, area.address + RSEQ_CS_OFFSET)
    if not descriptor:
        return
    if descriptor >= TASK_SIZE:
        raise KernelError(Errno.EINVAL, "rseq_cs is no user address")
    version, flags, start_ip, post_commit_offset, abort_ip = RSEQ_CS.unpack(
        copy_from_user(mm, descriptor, RSEQ_CS.size)
    )
    end_ip = start_ip + post_commit_offset
    if max(start_ip, end_ip, abort_ip) >= TASK_SIZE or version or start_ip <= abort_ip < end_ip:
        raise KernelError(Errno.EINVAL, "bad rseq_cs")
    if get_user_u32(mm, abort_ip - 4) != area.signature:
        raise KernelError(Errno.EINVAL, "no signature before the abort handler")
    inside = start_ip <= task.regs.read(Reg.RIP) < end_ip
    if inside and flags:
        raise KernelError(Errno.EINVAL, "rseq_cs flags are no longer allowed")
    put_user_u64(mm, area.address + RSEQ_CS_OFFSET, 0)
    if inside:
        task.regs.write(Reg.RIP, abort_ip)
