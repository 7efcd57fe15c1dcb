"""New tasks: init, the first program, and clone.

Models ``copy_process`` and ``kernel_clone`` of ``kernel/fork.c``.  Manual: fork(2), clone(2), vfork(2).

Deliberate differences: no name spaces (CLONE_NEW*: EINVAL, as from a kernel configured without them), no cgroups, no
tracing; CLONE_SYSVSEM, CLONE_IO, CLONE_PTRACE and CLONE_UNTRACED are accepted and mean nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kernel.abi.capability import Cap
from kernel.abi.clone import (
    CLONE_CHILD_CLEARTID,
    CLONE_CHILD_SETTID,
    CLONE_CLEAR_SIGHAND,
    CLONE_DETACHED,
    CLONE_FILES,
    CLONE_FS,
    CLONE_INTO_CGROUP,
    CLONE_NAMESPACES,
    CLONE_PARENT,
    CLONE_PARENT_SETTID,
    CLONE_PIDFD,
    CLONE_SETTLS,
    CLONE_SIGHAND,
    CLONE_THREAD,
    CLONE_VFORK,
    CLONE_VM,
)
from kernel.abi.errno import Errno, KernelError
from kernel.abi.resource import RLIMIT_NOFILE, RLIMIT_NPROC, default_rlimits
from kernel.abi.signal import SIG_DFL, SIG_IGN, SIGCHLD
from kernel.fs.files import FilesStruct
from kernel.hardware import Reg
from kernel.mm.exit import mmget
from kernel.mm.fork import dup_mm
from kernel.mm.usercopy import put_user_u32
from kernel.task.cpu_timers import update_rlimit_cpu
from kernel.task.cred import Cred, capable
from kernel.task.pidfd import PIDFD_THREAD, PidFile
from kernel.task.sched import fatal_signal_pending
from kernel.task.sigframe import sas_ss_reset
from kernel.task.task import SIGNAL_UNKILLABLE, Sighand, SignalStruct, Task, TaskState
from kernel.task.waitqueue import Blocking, Sleep, WaitQueue, WakeReason
from kernel.trace import Tracepoint

if TYPE_CHECKING:
    from kernel.kernel import Kernel

SCHED_PROCESS_FORK = Tracepoint("sched:sched_process_fork", "parent child flags")

INIT_PID = 1
FRAMES_PER_THREAD = 32
"""set_max_threads(): thread stacks of 16 KiB may take one eighth of memory."""
MIN_THREADS = 20


def max_threads(kernel: Kernel) -> int:
    """How many tasks may exist at once."""
    by_memory = max(kernel.physmem.nr_frames // FRAMES_PER_THREAD, MIN_THREADS)
    return min(by_memory, kernel.sysctl.threads_max)


# ---- init and the first program ------------------------------------------------------------------


def create_init_task(kernel: Kernel) -> Task:
    """Process 1: it never runs, inherits orphans, and ignores SIGCHLD so that they vanish when they exit."""
    pid = kernel.pids.alloc()
    task = Task(kernel, pid, Cred(), kernel.hw.new_registers())
    task.comm = "init"
    task.parent = task
    task.signal = SignalStruct(task, default_rlimits(max_threads(kernel) // 2))
    task.signal.flags = SIGNAL_UNKILLABLE
    task.sighand = Sighand()
    task.sighand.action[SIGCHLD - 1].handler = SIG_IGN
    task.state = TaskState.INTERRUPTIBLE
    _attach_process(task, pid, pid)
    return task


def spawn_task(kernel: Kernel, creds: Cred | None = None) -> Task:
    """A child of init, leader of a new session, without memory: for :func:`~kernel.task.exec.do_execve`.

    ``files`` is empty; the caller sets ``fs``, opens descriptors, and after exec puts it into the scheduler.
    """
    init: Task = kernel.init_task
    pid = kernel.pids.alloc(kernel.sysctl.pid_max)
    task = Task(kernel, pid, creds or Cred(), kernel.hw.new_registers())
    task.parent = init
    task.signal = SignalStruct(task, list(init.signal.rlimits))
    task.sighand = Sighand()
    task.files = FilesStruct()
    init.children[task] = None
    _attach_process(task, pid, pid)
    return task


def _attach_process(task: Task, pgrp: int, session: int) -> None:
    pids = task.kernel.pids
    pids.tasks[task.pid] = task
    pids.charge_user(task.creds.uid, 1)
    task.signal.threads[task] = None
    task.signal.nr_live = 1
    pids.join_pgrp(task, pgrp)
    pids.join_session(task, session)


# ---- clone ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class CloneArgs:
    """``struct kernel_clone_args``."""

    flags: int
    exit_signal: int = 0
    stack: int = 0
    """The child's stack pointer; 0 keeps the parent's."""
    tls: int = 0
    parent_tid: int = 0
    child_tid: int = 0
    pidfd: int = 0
    set_tid: int | None = None


def check_clone_flags(task: Task, args: CloneArgs) -> None:
    """The combinations that clone(2) refuses, in Linux's order."""
    flags = args.flags
    if flags & CLONE_PIDFD and flags & CLONE_PARENT_SETTID and args.pidfd == args.parent_tid:
        raise KernelError(Errno.EINVAL, "CLONE_PIDFD and CLONE_PARENT_SETTID want the same word")
    if flags & CLONE_NAMESPACES:
        raise KernelError(Errno.EINVAL, "kernel without name spaces")
    if flags & CLONE_THREAD and not flags & CLONE_SIGHAND:
        raise KernelError(Errno.EINVAL, "CLONE_THREAD without CLONE_SIGHAND")
    if flags & CLONE_SIGHAND and not flags & CLONE_VM:
        raise KernelError(Errno.EINVAL, "CLONE_SIGHAND without CLONE_VM")
    if flags & CLONE_PARENT and task.signal.flags & SIGNAL_UNKILLABLE:
        raise KernelError(Errno.EINVAL, "CLONE_PARENT by init")
    if flags & CLONE_PIDFD and flags & CLONE_DETACHED:
        raise KernelError(Errno.EINVAL, "CLONE_PIDFD with CLONE_DETACHED")
    if flags & CLONE_INTO_CGROUP:
        raise KernelError(Errno.EBADF, "no control groups: no such descriptor can exist")


def _check_limits(task: Task) -> None:
    """RLIMIT_NPROC (not for the privileged) and the number of tasks the machine can hold."""
    kernel = task.kernel
    creds = task.creds
    if (
        kernel.pids.nr_user_tasks.get(creds.uid, 0) >= task.rlimit(RLIMIT_NPROC)
        and creds.uid != 0
        and not capable(task, Cap.CAP_SYS_RESOURCE)
        and not capable(task, Cap.CAP_SYS_ADMIN)
    ):
        raise KernelError(Errno.EAGAIN, "RLIMIT_NPROC")
    if len(kernel.pids.tasks) >= max_threads(kernel):
        raise KernelError(Errno.EAGAIN, f"{max_threads(kernel)} tasks are as many as fit this memory")


def do_clone(task: Task, args: CloneArgs) -> int | Blocking[int]:
    """kernel_clone(): a runnable copy of ``task``; its number (with CLONE_VFORK: once it let go of our memory)."""
    child = copy_process(task, args)
    nr = child.pid
    if SCHED_PROCESS_FORK.on:
        SCHED_PROCESS_FORK.emit(task, child, args.flags)
    if args.flags & CLONE_PARENT_SETTID:
        _put_tid(task, args.parent_tid, nr)
    if args.flags & CLONE_CHILD_SETTID:
        _put_tid(child, args.child_tid, nr)
    task.kernel.pids.nr_forks += 1
    if args.flags & CLONE_VFORK:
        done = child.vfork_done = WaitQueue()
        task.kernel.sched.enqueue(child)
        return _wait_for_vfork_done(task, child, done, nr)
    task.kernel.sched.enqueue(child)
    return nr


def _put_tid(task: Task, address: int, nr: int) -> None:
    assert task.mm is not None
    try:
        put_user_u32(task.mm, address, nr)
    except KernelError:
        return  # clone(2) does not report it


def _wait_for_vfork_done(task: Task, child: Task, done: WaitQueue, nr: int) -> Blocking[int]:
    """Sleep, deaf to all but fatal signals, until the child has called exec or exit."""
    while child.vfork_done is done:
        reason = yield Sleep(done, killable_only=True)
        if reason is WakeReason.SIGNAL and fatal_signal_pending(task):
            child.vfork_done = None
            break
    return nr


def copy_process(task: Task, args: CloneArgs) -> Task:
    """The child, complete but for the scheduler.  A failure leaves nothing behind."""
    flags = args.flags
    kernel = task.kernel
    check_clone_flags(task, args)
    _check_limits(task)
    pids = kernel.pids
    if args.set_tid is None:
        nr = pids.alloc(kernel.sysctl.pid_max)
    else:
        if not capable(task, Cap.CAP_SYS_ADMIN) and not capable(task, Cap.CAP_CHECKPOINT_RESTORE):
            raise KernelError(Errno.EPERM, "set_tid needs CAP_CHECKPOINT_RESTORE")
        nr = pids.take(args.set_tid, kernel.sysctl.pid_max)
    pidfd = -1
    if flags & CLONE_PIDFD:
        pidfd = task.files.alloc_fd(0, task.rlimit(RLIMIT_NOFILE))
    assert task.mm is not None
    # The only steps that can still fail come first: there is nothing to undo before them.
    if flags & CLONE_PIDFD:
        put_user_u32(task.mm, args.pidfd, pidfd)
    mm = mmget(task.mm) if flags & CLONE_VM else dup_mm(task.mm)
    child = Task(kernel, nr, task.creds, task.regs.clone())
    child.mm = mm
    _copy_scalars(task, child)
    child.files = task.files.get_ref() if flags & CLONE_FILES else task.files.copy()
    child.fs = task.fs.get_ref() if flags & CLONE_FS else task.fs.copy()
    _copy_sighand(task, child, flags)
    _copy_registers(child, args)
    child.set_child_tid = args.child_tid if flags & CLONE_CHILD_SETTID else 0
    child.clear_child_tid = args.child_tid if flags & CLONE_CHILD_CLEARTID else 0
    child.rseq = None if flags & CLONE_VM else task.rseq
    if flags & CLONE_VM and not flags & CLONE_VFORK:
        sas_ss_reset(child)
    _join_family(task, child, args)
    if flags & CLONE_PIDFD:
        file_flags = PIDFD_THREAD if flags & CLONE_THREAD else 0
        task.files.install(pidfd, PidFile(child, file_flags), cloexec=True)
    return child


_INHERITED = (
    "comm", "blocked", "sas_ss_sp", "sas_ss_size", "sas_ss_flags", "policy", "nice", "rt_priority", "ioprio",
    "no_new_privs", "personality", "tsc_mode", "io_flusher", "thp_disable",
)  # fmt: skip


def _copy_scalars(task: Task, child: Task) -> None:
    for name in _INHERITED:
        setattr(child, name, getattr(task, name))
    child.timer_slack_ns = child.default_timer_slack_ns = task.timer_slack_ns
    if task.reset_on_fork:
        child.policy = child.rt_priority = 0
        child.nice = max(child.nice, 0)


def _copy_sighand(task: Task, child: Task, flags: int) -> None:
    if flags & CLONE_SIGHAND:
        task.sighand.refs += 1
        child.sighand = task.sighand
        return
    child.sighand = task.sighand.copy()
    if flags & CLONE_CLEAR_SIGHAND:
        for action in child.sighand.action:
            if action.handler != SIG_IGN:
                action.handler = SIG_DFL
                action.flags = action.restorer = action.mask = 0


def _copy_registers(child: Task, args: CloneArgs) -> None:
    regs = child.regs
    regs.write(Reg.RAX, 0)
    if args.stack:
        regs.write(Reg.RSP, args.stack)
    if args.flags & CLONE_SETTLS:
        regs.write(Reg.FS_BASE, args.tls)


def _join_family(task: Task, child: Task, args: CloneArgs) -> None:
    """Parent, process, process group and session of the child."""
    flags = args.flags
    signal = task.signal
    pids = child.kernel.pids
    if flags & CLONE_THREAD:
        child.tgid = task.tgid
        child.exit_signal = -1
        child.parent = task.parent
        child.signal = signal
        signal.threads[child] = None
        signal.nr_live += 1
        pids.tasks[child.pid] = child
        pids.charge_user(child.creds.uid, 1)
        return
    if flags & CLONE_PARENT:
        child.parent = task.parent
        child.exit_signal = signal.group_leader.exit_signal
    else:
        child.parent = task
        child.exit_signal = args.exit_signal
    new = child.signal = SignalStruct(child, list(signal.rlimits))
    new.tty = signal.tty
    new.has_child_subreaper = signal.has_child_subreaper or signal.is_child_subreaper
    new.oom_score_adj = signal.oom_score_adj
    child.parent.children[child] = None
    _attach_process(child, signal.pgrp, signal.session)
    update_rlimit_cpu(new)
