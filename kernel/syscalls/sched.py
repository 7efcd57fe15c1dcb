"""Scheduling parameters, priorities, affinity, barriers and restartable sequences.

Models ``kernel/sched/syscalls.c``, ``kernel/sched/membarrier.c``, ``kernel/rseq.c``, ``block/ioprio.c`` and the
priority calls of ``kernel/sys.c``.  One processor, and every task gets the same share of it: parameters are checked,
kept and shown, but change nothing.
"""

from __future__ import annotations

from typing import Annotated

from kernel.abi.capability import Cap
from kernel.abi.errno import Errno, KernelError
from kernel.abi.resource import RLIMIT_NICE, RLIMIT_RTPRIO, PriorityWhich
from kernel.abi.sched import (
    IOPRIO_CLASS_BE,
    IOPRIO_CLASS_IDLE,
    IOPRIO_CLASS_NONE,
    IOPRIO_CLASS_RT,
    IOPRIO_CLASS_SHIFT,
    IOPRIO_DEFAULT,
    IOPRIO_WHO_PGRP,
    IOPRIO_WHO_PROCESS,
    IOPRIO_WHO_USER,
    MAX_RT_PRIO,
    MEMBARRIER_ALL,
    MEMBARRIER_CMD_FLAG_CPU,
    RR_TIMESLICE_NS,
    RT_POLICIES,
    SCHED_ATTR,
    SCHED_ATTR_SIZE_VER0,
    SCHED_BATCH,
    SCHED_FLAG_KEEP_PARAMS,
    SCHED_FLAG_KEEP_POLICY,
    SCHED_FLAG_RESET_ON_FORK,
    SCHED_FLAGS_KNOWN,
    SCHED_IDLE,
    SCHED_NORMAL,
    SCHED_RESET_ON_FORK,
    SCHED_RR,
    MembarrierCmd,
    SchedPolicy,
)
from kernel.abi.time import pack_timespec
from kernel.fs.uio import user_mm
from kernel.mm.types import PAGE_SIZE
from kernel.mm.usercopy import copy_from_user, copy_to_user, get_user_i32, get_user_u32, put_user_u32
from kernel.syscalls.table import INT, BufOut, Int, Pid, StructIn, StructOut, Support, UInt, UserAddr, syscall
from kernel.task.cred import capable
from kernel.task.rseq import rseq_register
from kernel.task.task import TIF_NOTIFY_RESUME, Task

NR_CPUS = 1
CPUMASK_BYTES = 8


def _find(task: Task, pid: int) -> Task:
    if pid < 0:
        raise KernelError(Errno.EINVAL, "negative pid")
    target = task if pid == 0 else task.kernel.tasks.get(pid)
    if target is None:
        raise KernelError(Errno.ESRCH, f"no task {pid}")
    return target


def _same_owner(task: Task, target: Task) -> bool:
    return task.creds.euid in (target.creds.euid, target.creds.uid)


# ---- yielding, CPUs ------------------------------------------------------------------------------


@syscall("sched_yield", x86_64=24, i386=158, group="process")
def sys_sched_yield(task: Task) -> None:
    """Let the others run first."""
    if task.kernel.sched.runnable:
        task.kernel.sched.resched(task)


@syscall("getcpu", x86_64=309, i386=318, group="process")
def sys_getcpu(task: Task, cpu: UserAddr, node: UserAddr, unused: UserAddr) -> None:
    """Which processor and memory node the thread runs on: 0 and 0."""
    mm = user_mm(task)
    if cpu:
        put_user_u32(mm, cpu, 0)
    if node:
        put_user_u32(mm, node, 0)


@syscall("sched_getaffinity", x86_64=204, i386=242, group="process", returns="size")
def sys_sched_getaffinity(task: Task, pid: Pid, len_bytes: UInt, user_mask: BufOut) -> int:
    """The processors that a thread may run on: the one there is."""
    if len_bytes * 8 < NR_CPUS or len_bytes & 7:
        raise KernelError(Errno.EINVAL, "mask too small, or not whole longs")
    _find(task, pid)
    size = min(len_bytes, CPUMASK_BYTES)
    copy_to_user(user_mm(task), user_mask, (1).to_bytes(size, "little"))
    return size


@syscall("sched_setaffinity", x86_64=203, i386=241, group="process")
def sys_sched_setaffinity(task: Task, pid: Pid, len_bytes: UInt, user_mask: UserAddr) -> None:
    """Choose the processors that a thread may run on; there is only number 0."""
    size = min(len_bytes, CPUMASK_BYTES)
    mask = int.from_bytes(copy_from_user(user_mm(task), user_mask, size), "little")
    target = _find(task, pid)
    if not _same_owner(task, target) and not capable(task, Cap.CAP_SYS_NICE):
        raise KernelError(Errno.EPERM, "another user's task")
    if not mask & 1:
        raise KernelError(Errno.EINVAL, "no processor in the mask")


# ---- policies ------------------------------------------------------------------------------------


def _set_scheduler(task: Task, target: Task, policy: int, priority: int, nice: int | None, reset_on_fork: bool) -> None:
    """__sched_setscheduler(): check and keep."""
    if policy not in (SCHED_NORMAL, *RT_POLICIES, SCHED_BATCH, SCHED_IDLE):
        raise KernelError(Errno.EINVAL, f"scheduling policy {policy} is not supported")
    is_rt = policy in RT_POLICIES
    if not 0 <= priority < MAX_RT_PRIO or is_rt != (priority != 0):
        raise KernelError(Errno.EINVAL, "priority does not fit the policy")
    if not capable(task, Cap.CAP_SYS_NICE):
        if nice is not None and nice < target.nice and 20 - nice > target.rlimit(RLIMIT_NICE):
            raise KernelError(Errno.EPERM, "RLIMIT_NICE")
        limit = target.rlimit(RLIMIT_RTPRIO)
        if is_rt and ((policy != target.policy and not limit) or (priority > target.rt_priority and priority > limit)):
            raise KernelError(Errno.EPERM, "RLIMIT_RTPRIO")
        if not _same_owner(task, target):
            raise KernelError(Errno.EPERM, "another user's task")
        if target.reset_on_fork and not reset_on_fork:
            raise KernelError(Errno.EPERM, "reset-on-fork cannot be taken back")
    target.policy = policy
    target.rt_priority = priority
    target.reset_on_fork = reset_on_fork
    if nice is not None and not is_rt:
        target.nice = min(max(nice, -20), 19)


@syscall("sched_setscheduler", x86_64=144, i386=156, group="process")
def sys_sched_setscheduler(
    task: Task,
    pid: Pid,
    policy: Annotated[SchedPolicy, INT],
    param: StructIn("sched_param"),  # type: ignore[valid-type]
) -> None:
    """Set policy and real-time priority."""
    if policy < 0 or not param:
        raise KernelError(Errno.EINVAL, "negative policy, or no parameters")
    priority = get_user_i32(user_mm(task), param)
    reset = policy & SCHED_RESET_ON_FORK != 0
    _set_scheduler(task, _find(task, pid), policy & ~SCHED_RESET_ON_FORK, priority, None, reset)


@syscall("sched_setparam", x86_64=142, i386=154, group="process")
def sys_sched_setparam(task: Task, pid: Pid, param: StructIn("sched_param")) -> None:  # type: ignore[valid-type]
    """Set the real-time priority."""
    if not param:
        raise KernelError(Errno.EINVAL, "no parameters")
    priority = get_user_i32(user_mm(task), param)
    target = _find(task, pid)
    _set_scheduler(task, target, target.policy, priority, None, target.reset_on_fork)


@syscall("sched_getscheduler", x86_64=145, i386=157, group="process")
def sys_sched_getscheduler(task: Task, pid: Pid) -> int:
    """The scheduling policy of a thread."""
    target = _find(task, pid)
    return target.policy | (SCHED_RESET_ON_FORK if target.reset_on_fork else 0)


@syscall("sched_getparam", x86_64=143, i386=155, group="process")
def sys_sched_getparam(task: Task, pid: Pid, param: StructOut("sched_param")) -> None:  # type: ignore[valid-type]
    """The real-time priority of a thread."""
    if not param:
        raise KernelError(Errno.EINVAL, "no parameters")
    put_user_u32(user_mm(task), param, _find(task, pid).rt_priority)


@syscall("sched_get_priority_max", x86_64=146, i386=159, group="process")
def sys_sched_get_priority_max(task: Task, policy: SchedPolicy) -> int:
    """The highest priority of a policy."""
    return _priority_bound(policy, MAX_RT_PRIO - 1)


@syscall("sched_get_priority_min", x86_64=147, i386=160, group="process")
def sys_sched_get_priority_min(task: Task, policy: SchedPolicy) -> int:
    """The lowest priority of a policy."""
    return _priority_bound(policy, 1)


def _priority_bound(policy: int, rt_bound: int) -> int:
    if policy in RT_POLICIES:
        return rt_bound
    if policy in SchedPolicy.__members__.values():
        return 0
    raise KernelError(Errno.EINVAL, f"no policy {policy}")


@syscall("sched_rr_get_interval", x86_64=148, i386=161, group="process")
def sys_sched_rr_get_interval(task: Task, pid: Pid, interval: StructOut("timespec")) -> None:  # type: ignore[valid-type]
    """The time slice of SCHED_RR: Linux's default of 100 ms; 0 for SCHED_FIFO, 4 ms for the others."""
    target = _find(task, pid)
    slice_ns = {SCHED_RR: RR_TIMESLICE_NS, 1: 0}.get(target.policy, 4_000_000)
    copy_to_user(user_mm(task), interval, pack_timespec(slice_ns))


@syscall(
    "sched_setattr",
    x86_64=314,
    i386=351,
    group="process",
    support=Support.PARTIAL,
    note="no SCHED_DEADLINE, no util clamps",
)
def sys_sched_setattr(task: Task, pid: Pid, uattr: StructIn("sched_attr"), flags: UInt) -> None:  # type: ignore[valid-type]
    """Set policy, nice value and priority from one structure."""
    if not uattr or pid < 0 or flags:
        raise KernelError(Errno.EINVAL, "no structure, negative pid, or flags")
    mm = user_mm(task)
    size = get_user_u32(mm, uattr) or SCHED_ATTR_SIZE_VER0
    known = SCHED_ATTR.size
    if not SCHED_ATTR_SIZE_VER0 <= size <= PAGE_SIZE or any(copy_from_user(mm, uattr, size)[known:]):
        put_user_u32(mm, uattr, known)
        raise KernelError(Errno.E2BIG, "structure of unknown size")
    data = copy_from_user(mm, uattr, min(size, known)).ljust(known, b"\0")
    _, policy, attr_flags, nice, priority, *_ = SCHED_ATTR.unpack(data)
    if policy >> 31 or attr_flags & ~SCHED_FLAGS_KNOWN:
        raise KernelError(Errno.EINVAL, "negative policy or unknown flag")
    target = _find(task, pid)
    if attr_flags & SCHED_FLAG_KEEP_POLICY:
        policy = target.policy
    if attr_flags & SCHED_FLAG_KEEP_PARAMS:
        nice, priority = target.nice, target.rt_priority
    _set_scheduler(task, target, policy, priority, nice, attr_flags & SCHED_FLAG_RESET_ON_FORK != 0)


@syscall("sched_getattr", x86_64=315, i386=352, group="process")
def sys_sched_getattr(
    task: Task,
    pid: Pid,
    uattr: StructOut("sched_attr"),  # type: ignore[valid-type]
    usize: UInt,
    flags: UInt,
) -> None:
    """Policy, nice value and priority in one structure."""
    if not uattr or pid < 0 or not SCHED_ATTR_SIZE_VER0 <= usize <= PAGE_SIZE or flags:
        raise KernelError(Errno.EINVAL, "no structure, bad size, negative pid, or flags")
    target = _find(task, pid)
    size = min(usize, SCHED_ATTR.size)
    attr_flags = SCHED_FLAG_RESET_ON_FORK if target.reset_on_fork else 0
    nice = 0 if target.policy in RT_POLICIES else target.nice
    data = SCHED_ATTR.pack(size, target.policy, attr_flags, nice, target.rt_priority, 0, 0, 0, 0, 1024)
    copy_to_user(user_mm(task), uattr, data[:size])


# ---- nice values ---------------------------------------------------------------------------------


def _priority_targets(task: Task, which: int, who: int) -> list[Task]:
    """Whom getpriority and setpriority mean."""
    kernel = task.kernel
    if which == PriorityWhich.PRIO_PROCESS:
        target = kernel.tasks.get(who) if who else task
        return [target] if target is not None else []
    if which == PriorityWhich.PRIO_PGRP:
        members = kernel.pids.pgrp_members(who or task.signal.pgrp)
        return [thread for member in members for thread in member.signal.threads]
    if which == PriorityWhich.PRIO_USER:
        uid = who or task.creds.uid
        return [other for other in kernel.tasks.values() if other.creds.uid == uid]
    raise KernelError(Errno.EINVAL, f"unknown kind {which}")


@syscall("getpriority", x86_64=140, i386=96, group="process")
def sys_getpriority(task: Task, which: PriorityWhich, who: Int) -> int:
    """20 minus the lowest nice value among the tasks."""
    targets = _priority_targets(task, which, who)
    if not targets:
        raise KernelError(Errno.ESRCH, "no such task")
    return 20 - min(target.nice for target in targets)


@syscall("setpriority", x86_64=141, i386=97, group="process")
def sys_setpriority(task: Task, which: PriorityWhich, who: Int, niceval: Int) -> None:
    """Set the nice value of tasks."""
    nice = min(max(niceval, -20), 19)
    targets = _priority_targets(task, which, who)
    if not targets:
        raise KernelError(Errno.ESRCH, "no such task")
    error: KernelError | None = None
    for target in targets:
        try:
            _set_one_nice(task, target, nice)
        except KernelError as refused:
            error = refused
    if error is not None:
        raise error


def _set_one_nice(task: Task, target: Task, nice: int) -> None:
    is_owner = task.creds.euid in (target.creds.uid, target.creds.euid)
    if not is_owner and not capable(task, Cap.CAP_SYS_NICE):
        raise KernelError(Errno.EPERM, "another user's task")
    if nice < target.nice and 20 - nice > target.rlimit(RLIMIT_NICE) and not capable(task, Cap.CAP_SYS_NICE):
        raise KernelError(Errno.EACCES, "RLIMIT_NICE")
    target.nice = nice


# ---- I/O priorities ------------------------------------------------------------------------------


def _ioprio_targets(task: Task, which: int, who: int) -> list[Task]:
    kinds = {
        IOPRIO_WHO_PROCESS: PriorityWhich.PRIO_PROCESS,
        IOPRIO_WHO_PGRP: PriorityWhich.PRIO_PGRP,
        IOPRIO_WHO_USER: PriorityWhich.PRIO_USER,
    }
    if which not in kinds:
        raise KernelError(Errno.EINVAL, f"unknown kind {which}")
    targets = _priority_targets(task, kinds[which], who)
    if not targets:
        raise KernelError(Errno.ESRCH, "no such task")
    return targets


@syscall("ioprio_set", x86_64=251, i386=289, group="process")
def sys_ioprio_set(task: Task, which: Int, who: Int, ioprio: Int) -> None:
    """Set an I/O priority (kept, but all I/O is equal)."""
    io_class, level = ioprio >> IOPRIO_CLASS_SHIFT & 7, ioprio & 0x1FFF
    if io_class == IOPRIO_CLASS_RT and not capable(task, Cap.CAP_SYS_NICE):
        raise KernelError(Errno.EPERM, "needs CAP_SYS_NICE")
    if io_class in (IOPRIO_CLASS_RT, IOPRIO_CLASS_BE):
        if level & 7 != level:
            raise KernelError(Errno.EINVAL, "level above 7")
    elif io_class not in (IOPRIO_CLASS_NONE, IOPRIO_CLASS_IDLE) or (io_class == IOPRIO_CLASS_NONE and level):
        raise KernelError(Errno.EINVAL, "unknown class, or no class with a level")
    for target in _ioprio_targets(task, which, who):
        if not _same_owner(task, target) and not capable(task, Cap.CAP_SYS_NICE):
            raise KernelError(Errno.EPERM, "another user's task")
        target.ioprio = ioprio


@syscall("ioprio_get", x86_64=252, i386=290, group="process")
def sys_ioprio_get(task: Task, which: Int, who: Int) -> int:
    """The highest I/O priority among the tasks."""
    return min(target.ioprio or IOPRIO_DEFAULT for target in _ioprio_targets(task, which, who))


# ---- barriers, restartable sequences -------------------------------------------------------------

_REGISTER = {
    MembarrierCmd.MEMBARRIER_CMD_PRIVATE_EXPEDITED: MembarrierCmd.MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED,
    MembarrierCmd.MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE:
        MembarrierCmd.MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE,
    MembarrierCmd.MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ: MembarrierCmd.MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ,
}  # fmt: skip


@syscall("membarrier", x86_64=324, i386=375, group="process")
def sys_membarrier(task: Task, cmd: Annotated[MembarrierCmd, INT], flags: UInt, cpu_id: Int) -> int:
    """Order the memory accesses of all threads: with one processor they are."""
    bits = int(cmd)
    is_rseq = bits == MembarrierCmd.MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ
    if flags & ~(MEMBARRIER_CMD_FLAG_CPU if is_rseq else 0):
        raise KernelError(Errno.EINVAL, "unknown flag")
    if bits == 0:
        return MEMBARRIER_ALL
    if bits & (bits - 1) or bits & ~MEMBARRIER_ALL:
        raise KernelError(Errno.EINVAL, "unknown command")
    mm = task.mm
    assert mm is not None
    command = MembarrierCmd(bits)
    if command is MembarrierCmd.MEMBARRIER_CMD_GET_REGISTRATIONS:
        return mm.membarrier_state
    if command in _REGISTER.values() or command is MembarrierCmd.MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED:
        mm.membarrier_state |= bits
    elif command in _REGISTER:
        if not mm.membarrier_state & _REGISTER[command]:
            raise KernelError(Errno.EPERM, "the process has not registered for that")
        if is_rseq:
            _restart_sequences(task)
    return 0


def _restart_sequences(task: Task) -> None:
    """Other threads that stand inside a restartable sequence begin it again."""
    for thread in task.signal.threads:
        if thread is not task and thread.rseq is not None:
            thread.exit_work |= TIF_NOTIFY_RESUME


@syscall("rseq", x86_64=334, i386=386, group="process")
def sys_rseq(task: Task, rseq: UserAddr, rseq_len: UInt, flags: Int, sig: UInt) -> None:
    """Register the thread's area for restartable sequences."""
    rseq_register(task, rseq, rseq_len, flags, sig)
