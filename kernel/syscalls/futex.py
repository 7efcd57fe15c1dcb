"""futex(2), the futex2 calls, and robust lists.  Models ``kernel/futex/syscalls.c``."""

from __future__ import annotations

from typing import Any

from kernel.abi.errno import Errno, KernelError
from kernel.abi.futex import (
    FUTEX2_PRIVATE,
    FUTEX2_SIZE_MASK,
    FUTEX2_SIZE_U32,
    FUTEX2_VALID_MASK,
    FUTEX_BITSET_MATCH_ANY,
    FUTEX_CLOCK_REALTIME,
    FUTEX_CMD_MASK,
    FUTEX_CMP_REQUEUE,
    FUTEX_PRIVATE_FLAG,
    FUTEX_REQUEUE,
    FUTEX_WAIT,
    FUTEX_WAIT_BITSET,
    FUTEX_WAITV,
    FUTEX_WAITV_MAX,
    FUTEX_WAKE,
    FUTEX_WAKE_BITSET,
    FUTEX_WAKE_OP,
    PI_COMMANDS,
    ROBUST_LIST_HEAD,
    Futex2Flags,
)
from kernel.abi.time import CLOCK_MONOTONIC, CLOCK_REALTIME, TIMESPEC, ClockId, timespec_to_ns
from kernel.fs.uio import user_mm
from kernel.mm.usercopy import copy_from_user, put_user_u64
from kernel.syscalls.table import Int, Pid, Size, StructIn, Support, UInt, ULong, UserAddr, syscall
from kernel.task.cred import ptrace_may_access
from kernel.task.futex import futex_requeue, futex_wait, futex_wait_multiple, futex_wake, futex_wake_op
from kernel.task.posix_timers import to_monotonic_ns
from kernel.task.task import Task


def _signed(value: int) -> int:
    return (value & 0xFFFF_FFFF ^ 0x8000_0000) - 0x8000_0000


def _timespec_ns(task: Task, address: int) -> int:
    return timespec_to_ns(*TIMESPEC.unpack(copy_from_user(user_mm(task), address, TIMESPEC.size)))


@syscall(
    "futex",
    x86_64=202,
    i386=240,
    group="process",
    support=Support.PARTIAL,
    note="priority inheritance (FUTEX_LOCK_PI and its kin): ENOSYS",
)
def sys_futex(
    task: Task,
    uaddr: UserAddr,
    op: UInt,
    val: UInt,
    utime: ULong,
    uaddr2: UserAddr,
    val3: UInt,
) -> Any:
    """Sleep on a word of memory, and wake sleepers."""
    command = op & FUTEX_CMD_MASK
    shared = not op & FUTEX_PRIVATE_FLAG
    if command in PI_COMMANDS:
        raise KernelError(Errno.ENOSYS, "priority-inheritance futexes are not supported")
    if op & FUTEX_CLOCK_REALTIME and command not in (FUTEX_WAIT, FUTEX_WAIT_BITSET):
        raise KernelError(Errno.ENOSYS, "FUTEX_CLOCK_REALTIME with an operation that does not wait")
    if command in (FUTEX_WAIT, FUTEX_WAIT_BITSET):
        deadline_ns: int | None = None
        if utime:
            clock = CLOCK_REALTIME if op & FUTEX_CLOCK_REALTIME else CLOCK_MONOTONIC
            timeout_ns = _timespec_ns(task, utime)
            if command == FUTEX_WAIT:  # the only relative one
                deadline_ns = task.kernel.clock.now_ns() + timeout_ns
            else:
                deadline_ns = to_monotonic_ns(task.kernel, clock, timeout_ns)
        bitset = val3 if command == FUTEX_WAIT_BITSET else FUTEX_BITSET_MATCH_ANY
        return futex_wait(task, uaddr, val, deadline_ns, bitset, shared)
    if command == FUTEX_WAKE:
        return futex_wake(task, uaddr, _signed(val), FUTEX_BITSET_MATCH_ANY, shared)
    if command == FUTEX_WAKE_BITSET:
        return futex_wake(task, uaddr, _signed(val), val3, shared)
    if command == FUTEX_REQUEUE:
        return futex_requeue(task, uaddr, uaddr2, _signed(val), _signed(utime), None, shared, shared)
    if command == FUTEX_CMP_REQUEUE:
        return futex_requeue(task, uaddr, uaddr2, _signed(val), _signed(utime), val3, shared, shared)
    if command == FUTEX_WAKE_OP:
        return futex_wake_op(task, uaddr, uaddr2, _signed(val), _signed(utime), val3, shared)
    raise KernelError(Errno.ENOSYS, f"unknown futex operation {command}")


# ---- futex2 --------------------------------------------------------------------------------------


def _check_futex2_flags(flags: int) -> bool:
    """True: a shared futex."""
    if flags & ~FUTEX2_VALID_MASK or flags & FUTEX2_SIZE_MASK != FUTEX2_SIZE_U32:
        raise KernelError(Errno.EINVAL, "only 32-bit futexes, with or without FUTEX2_PRIVATE")
    return not flags & FUTEX2_PRIVATE


def _futex2_deadline(task: Task, timeout: int, clockid: int) -> int | None:
    if not timeout:
        return None
    if clockid not in (CLOCK_REALTIME, CLOCK_MONOTONIC):
        raise KernelError(Errno.EINVAL, "neither CLOCK_REALTIME nor CLOCK_MONOTONIC")
    return to_monotonic_ns(task.kernel, clockid, _timespec_ns(task, timeout))


@syscall("futex_waitv", x86_64=449, i386=449, group="process")
def sys_futex_waitv(
    task: Task,
    waiters: StructIn("futex_waitv"),  # type: ignore[valid-type]
    nr_futexes: UInt,
    flags: UInt,
    timeout: StructIn("timespec"),  # type: ignore[valid-type]
    clockid: ClockId,
) -> Any:
    """Sleep until one of several futexes is woken; returns its index."""
    if flags or not 0 < nr_futexes <= FUTEX_WAITV_MAX or not waiters:
        raise KernelError(Errno.EINVAL, "flags, or not 1 to 128 futexes")
    deadline_ns = _futex2_deadline(task, timeout, clockid)
    futexes: list[tuple[int, int, bool]] = []
    data = copy_from_user(user_mm(task), waiters, nr_futexes * FUTEX_WAITV.size)
    for val, uaddr, one_flags, reserved in FUTEX_WAITV.iter_unpack(data):
        if reserved:
            raise KernelError(Errno.EINVAL, "reserved field is not 0")
        shared = _check_futex2_flags(one_flags)
        if val >> 32:
            raise KernelError(Errno.EINVAL, "value larger than the futex")
        futexes.append((uaddr, val, shared))
    return futex_wait_multiple(task, futexes, deadline_ns)


def _check_mask(*masks: int) -> None:
    if any(mask >> 32 for mask in masks):
        raise KernelError(Errno.EINVAL, "mask or value larger than the futex")


@syscall("futex_wake", x86_64=454, i386=454, group="process")
def sys_futex_wake(task: Task, uaddr: UserAddr, mask: ULong, nr: Int, flags: Futex2Flags) -> int:
    """Wake sleepers of one futex."""
    shared = _check_futex2_flags(flags)
    _check_mask(mask)
    if not nr:
        return 0
    return futex_wake(task, uaddr, nr, mask, shared)


@syscall("futex_wait", x86_64=455, i386=455, group="process")
def sys_futex_wait(
    task: Task,
    uaddr: UserAddr,
    val: ULong,
    mask: ULong,
    flags: Futex2Flags,
    timeout: StructIn("timespec"),  # type: ignore[valid-type]
    clockid: ClockId,
) -> Any:
    """Sleep on one futex until an absolute time."""
    shared = _check_futex2_flags(flags)
    _check_mask(val, mask)
    return futex_wait(task, uaddr, val, _futex2_deadline(task, timeout, clockid), mask, shared)


@syscall("futex_requeue", x86_64=456, i386=456, group="process")
def sys_futex_requeue(
    task: Task,
    waiters: StructIn("futex_waitv"),  # type: ignore[valid-type]
    flags: UInt,
    nr_wake: Int,
    nr_requeue: Int,
) -> int:
    """Wake some sleepers of one futex and move others to a second."""
    if flags or not waiters:
        raise KernelError(Errno.EINVAL, "flags, or no futexes")
    data = copy_from_user(user_mm(task), waiters, 2 * FUTEX_WAITV.size)
    (val, uaddr, flags1, reserved1), (_, uaddr2, flags2, reserved2) = FUTEX_WAITV.iter_unpack(data)
    if reserved1 or reserved2:
        raise KernelError(Errno.EINVAL, "reserved field is not 0")
    shared, shared2 = _check_futex2_flags(flags1), _check_futex2_flags(flags2)
    _check_mask(val)
    return futex_requeue(task, uaddr, uaddr2, nr_wake, nr_requeue, val, shared, shared2)


# ---- robust lists --------------------------------------------------------------------------------


@syscall("set_robust_list", x86_64=273, i386=311, group="process")
def sys_set_robust_list(task: Task, head: UserAddr, len_bytes: Size) -> None:
    """Where the thread's list of held locks begins."""
    if len_bytes != ROBUST_LIST_HEAD.size:
        raise KernelError(Errno.EINVAL, f"list head of {len_bytes} bytes instead of 24")
    task.robust_list = head


@syscall("get_robust_list", x86_64=274, i386=312, group="process")
def sys_get_robust_list(task: Task, pid: Pid, head_ptr: UserAddr, len_ptr: UserAddr) -> None:
    """Where another thread's list of held locks begins."""
    target = task if pid == 0 else task.kernel.tasks.get(pid)
    if target is None:
        raise KernelError(Errno.ESRCH, f"no thread {pid}")
    if not ptrace_may_access(task, target):
        raise KernelError(Errno.EPERM, "may not look into that process")
    mm = user_mm(task)
    put_user_u64(mm, len_ptr, ROBUST_LIST_HEAD.size)
    put_user_u64(mm, head_ptr, target.robust_list)
