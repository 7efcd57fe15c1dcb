"""Signals: kill(2), sigaction(2), sigprocmask(2), sigsuspend(2), sigaltstack(2) ...

Models the system calls of ``kernel/signal.c`` and ``rt_sigreturn`` of ``arch/x86/kernel/signal_64.c``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kernel.abi.errno import ERESTARTNOHAND, Errno, KernelError
from kernel.abi.signal import (
    ALL_SIGNALS,
    SI_TKILL,
    SIG_DFL,
    SIG_IGN,
    SIG_KERNEL_IGNORE_MASK,
    SIG_KERNEL_ONLY_MASK,
    SIGACTION,
    SIGINFO_SIZE,
    SIGSEGV,
    SIGSET_SIZE,
    SS_FLAG_BITS,
    STACK_T,
    UAPI_SA_FLAGS,
    SigHow,
    SigInfo,
    sigmask,
)
from kernel.abi.time import TIMESPEC, timespec_to_ns
from kernel.fs.uio import user_mm
from kernel.hardware import Reg
from kernel.mm.types import TASK_SIZE
from kernel.mm.usercopy import copy_from_user, copy_to_user, get_user_u64, put_user_u64
from kernel.syscalls.table import (
    Fd,
    Pid,
    Signo,
    Size,
    StructIn,
    StructOut,
    UInt,
    syscall,
)
from kernel.task.kill import (
    check_kill_permission,
    kill_pid_info,
    kill_something_info,
    send_specific,
    tkill_info,
    user_info,
)
from kernel.task.pidfd import pidfd_task
from kernel.task.sigframe import restore_rt_frame, sas_ss_flags, set_altstack
from kernel.task.signal import (
    dequeue_signal,
    flush_sigqueue_mask,
    force_sig,
    recalc_sigpending,
    send_signal,
    set_current_blocked,
    set_temporary_sigmask,
    sigprocmask,
)
from kernel.task.task import Task
from kernel.task.waitqueue import Blocking, Sleep, WakeReason

if TYPE_CHECKING:
    from kernel.task.task import SigAction

_NR_SIGNALS = 64


def _check_sigsetsize(size: int) -> None:
    if size != SIGSET_SIZE:
        raise KernelError(Errno.EINVAL, f"sigset of {size} bytes instead of 8")


def _check_signal(sig: int) -> None:
    if not 0 <= sig <= _NR_SIGNALS:
        raise KernelError(Errno.EINVAL, f"no signal {sig}")


# ---- actions and masks ---------------------------------------------------------------------------


@syscall("rt_sigaction", x86_64=13, i386=174, group="signal")
def sys_rt_sigaction(
    task: Task,
    sig: Signo,
    act: StructIn("sigaction"),  # type: ignore[valid-type]
    oact: StructOut("sigaction"),  # type: ignore[valid-type]
    sigsetsize: Size,
) -> None:
    """Read and change what happens when a signal comes."""
    _check_sigsetsize(sigsetsize)
    mm = user_mm(task)
    new = SIGACTION.unpack(copy_from_user(mm, act, SIGACTION.size)) if act else None
    if not 1 <= sig <= _NR_SIGNALS or (new is not None and sigmask(sig) & SIG_KERNEL_ONLY_MASK):
        raise KernelError(Errno.EINVAL, "no such signal, or one whose action is fixed")
    action = task.sighand.action[sig - 1]
    old = SIGACTION.pack(action.handler, action.flags, action.restorer, action.mask)
    if new is not None:
        handler, flags, restorer, mask = new
        action.handler = handler
        action.flags = flags & UAPI_SA_FLAGS
        action.restorer = restorer
        action.mask = mask & ~SIG_KERNEL_ONLY_MASK
        _drop_if_ignored(task, sig, action)
    if oact:
        copy_to_user(mm, oact, old)


def _drop_if_ignored(task: Task, sig: int, action: SigAction) -> None:
    """POSIX 3.3.1.3: setting a pending signal to ignored discards it."""
    ignored = action.handler == SIG_IGN or (action.handler == SIG_DFL and sigmask(sig) & SIG_KERNEL_IGNORE_MASK != 0)
    if not ignored:
        return
    flush_sigqueue_mask(task, sigmask(sig), task.signal.shared_pending)
    for thread in task.signal.threads:
        flush_sigqueue_mask(thread, sigmask(sig), thread.pending)


@syscall("rt_sigprocmask", x86_64=14, i386=175, group="signal")
def sys_rt_sigprocmask(
    task: Task,
    how: SigHow,
    nset: StructIn("sigset"),  # type: ignore[valid-type]
    oset: StructOut("sigset"),  # type: ignore[valid-type]
    sigsetsize: Size,
) -> None:
    """Read and change which signals are held back."""
    _check_sigsetsize(sigsetsize)
    mm = user_mm(task)
    old = task.blocked
    if nset:
        sigprocmask(task, how, get_user_u64(mm, nset) & ~SIG_KERNEL_ONLY_MASK)
    if oset:
        put_user_u64(mm, oset, old)


@syscall("rt_sigpending", x86_64=127, i386=176, group="signal")
def sys_rt_sigpending(task: Task, uset: StructOut("sigset"), sigsetsize: Size) -> None:  # type: ignore[valid-type]
    """Which signals wait because they are held back."""
    if sigsetsize > SIGSET_SIZE:
        raise KernelError(Errno.EINVAL, "sigset larger than 8 bytes")
    waiting = (task.pending.signal | task.signal.shared_pending.signal) & task.blocked
    copy_to_user(user_mm(task), uset, waiting.to_bytes(8, "little")[:sigsetsize])


@syscall("sigaltstack", x86_64=131, i386=186, group="signal")
def sys_sigaltstack(
    task: Task,
    uss: StructIn("stack_t"),  # type: ignore[valid-type]
    uoss: StructOut("stack_t"),  # type: ignore[valid-type]
) -> None:
    """Read and change the stack for handlers with SA_ONSTACK."""
    mm = user_mm(task)
    sp = task.regs.read(Reg.RSP)
    new = STACK_T.unpack(copy_from_user(mm, uss, STACK_T.size)) if uss else None
    flags = sas_ss_flags(task, sp) | (task.sas_ss_flags & SS_FLAG_BITS)
    flags = (flags ^ 0x8000_0000) - 0x8000_0000
    old = STACK_T.pack(task.sas_ss_sp, flags, 0, task.sas_ss_size)
    if new is not None:
        ss_sp, ss_flags, _, ss_size = new
        error = set_altstack(task, ss_sp, ss_flags & 0xFFFF_FFFF, ss_size, sp)
        if error:
            raise KernelError(error, "the stack is in use, too small, or has unknown flags")
    if uoss:
        copy_to_user(mm, uoss, old)


@syscall("rt_sigreturn", x86_64=15, i386=173, group="signal", stopped=True)
def sys_rt_sigreturn(task: Task) -> None:
    """A handler has ended: go back to what it interrupted."""
    mask = restore_rt_frame(task)
    task.syscall_nr = -1
    task.restart_block = None
    if mask is None:
        force_sig(task, SIGSEGV)
        return
    set_current_blocked(task, mask)
    if task.regs.read(Reg.RIP) >= TASK_SIZE:
        force_sig(task, SIGSEGV)


# ---- sending -------------------------------------------------------------------------------------


@syscall("kill", x86_64=62, i386=37, group="signal")
def sys_kill(task: Task, pid: Pid, sig: Signo) -> None:
    """Send a signal to a process, a process group, or all processes."""
    _check_kill(task, pid, sig)
    kill_something_info(task, sig, pid)


def _check_kill(task: Task, pid: int, sig: int) -> None:
    """An invalid signal is only reported if there is somebody to send it to."""
    if 0 <= sig <= _NR_SIGNALS:
        return
    if pid > 0 and pid not in task.kernel.tasks:
        raise KernelError(Errno.ESRCH, f"no process {pid}")
    if pid < -1 and not task.kernel.pids.pgrp_members(-pid):
        raise KernelError(Errno.ESRCH, f"no process group {-pid}")
    raise KernelError(Errno.EINVAL, f"no signal {sig}")


def _do_tkill(task: Task, tgid: int, tid: int, sig: int) -> None:
    if tid not in task.kernel.tasks:
        raise KernelError(Errno.ESRCH, f"no thread {tid}")
    _check_signal(sig)
    send_specific(task, tgid, tid, tkill_info(task, sig))


@syscall("tkill", x86_64=200, i386=238, group="signal")
def sys_tkill(task: Task, pid: Pid, sig: Signo) -> None:
    """Send a signal to one thread."""
    if pid <= 0:
        raise KernelError(Errno.EINVAL, "thread number not positive")
    _do_tkill(task, 0, pid, sig)


@syscall("tgkill", x86_64=234, i386=270, group="signal")
def sys_tgkill(task: Task, tgid: Pid, pid: Pid, sig: Signo) -> None:
    """Send a signal to one thread of a certain process."""
    if pid <= 0 or tgid <= 0:
        raise KernelError(Errno.EINVAL, "number not positive")
    _do_tkill(task, tgid, pid, sig)


def _siginfo_from_user(task: Task, sig: int, uinfo: int) -> SigInfo:
    return SigInfo.from_user(sig, copy_from_user(user_mm(task), uinfo, SIGINFO_SIZE))


def _may_forge(task: Task, info: SigInfo, pid: int) -> None:
    """Only to oneself may one pretend that the kernel or kill(2) sent a signal."""
    if (info.code >= 0 or info.code == SI_TKILL) and task.tgid != pid:
        raise KernelError(Errno.EPERM, "si_code belongs to the kernel")


@syscall("rt_sigqueueinfo", x86_64=129, i386=178, group="signal")
def sys_rt_sigqueueinfo(task: Task, pid: Pid, sig: Signo, uinfo: StructIn("siginfo")) -> None:  # type: ignore[valid-type]
    """Send a signal with data to a process."""
    info = _siginfo_from_user(task, sig, uinfo)
    _may_forge(task, info, pid)
    if pid not in task.kernel.tasks:
        raise KernelError(Errno.ESRCH, f"no process {pid}")
    _check_signal(sig)
    kill_pid_info(task, info, pid)


@syscall("rt_tgsigqueueinfo", x86_64=297, i386=335, group="signal")
def sys_rt_tgsigqueueinfo(
    task: Task,
    tgid: Pid,
    pid: Pid,
    sig: Signo,
    uinfo: StructIn("siginfo"),  # type: ignore[valid-type]
) -> None:
    """Send a signal with data to one thread."""
    info = _siginfo_from_user(task, sig, uinfo)
    if pid <= 0 or tgid <= 0:
        raise KernelError(Errno.EINVAL, "number not positive")
    _may_forge(task, info, pid)
    if pid not in task.kernel.tasks:
        raise KernelError(Errno.ESRCH, f"no thread {pid}")
    _check_signal(sig)
    send_specific(task, tgid, pid, info)


PIDFD_SIGNAL_THREAD = 1
PIDFD_SIGNAL_THREAD_GROUP = 2
PIDFD_SIGNAL_PROCESS_GROUP = 4


@syscall("pidfd_send_signal", x86_64=424, i386=424, group="signal")
def sys_pidfd_send_signal(
    task: Task,
    pidfd: Fd,
    sig: Signo,
    info: StructIn("siginfo"),  # type: ignore[valid-type]
    flags: UInt,
) -> None:
    """Send a signal to the process of a pidfd."""
    if flags not in (0, PIDFD_SIGNAL_THREAD, PIDFD_SIGNAL_THREAD_GROUP, PIDFD_SIGNAL_PROCESS_GROUP):
        raise KernelError(Errno.EINVAL, "unknown flag, or more than one")
    target, file = pidfd_task(task, pidfd)
    if info:
        record = _siginfo_from_user(task, sig, info)
        if int.from_bytes(copy_from_user(user_mm(task), info, 4), "little", signed=True) != sig:
            raise KernelError(Errno.EINVAL, "si_signo is another signal")
        _may_forge(task, record, target.tgid)
    else:
        record = user_info(task, sig)
    _check_signal(sig)
    if flags == PIDFD_SIGNAL_PROCESS_GROUP:
        kill_something_info(task, sig, -target.signal.pgrp)
        return
    check_kill_permission(task, sig, target)
    if sig:
        to_thread = flags == PIDFD_SIGNAL_THREAD or (flags == 0 and file.for_thread)
        send_signal(target, record, group=not to_thread)


# ---- waiting -------------------------------------------------------------------------------------


@syscall("pause", x86_64=34, i386=29, group="signal")
def sys_pause(task: Task) -> Blocking[int]:
    """Sleep until a signal handler has run."""
    while (yield Sleep()) is not WakeReason.SIGNAL:
        pass
    raise KernelError(ERESTARTNOHAND, "signal")


@syscall("rt_sigsuspend", x86_64=130, i386=179, group="signal")
def sys_rt_sigsuspend(task: Task, unewset: StructIn("sigset"), sigsetsize: Size) -> Blocking[int]:  # type: ignore[valid-type]
    """Sleep with another mask until a signal handler has run."""
    _check_sigsetsize(sigsetsize)
    set_temporary_sigmask(task, get_user_u64(user_mm(task), unewset))
    while (yield Sleep()) is not WakeReason.SIGNAL:
        pass
    raise KernelError(ERESTARTNOHAND, "signal")


@syscall("rt_sigtimedwait", x86_64=128, i386=177, group="signal")
def sys_rt_sigtimedwait(
    task: Task,
    uthese: StructIn("sigset"),  # type: ignore[valid-type]
    uinfo: StructOut("siginfo"),  # type: ignore[valid-type]
    uts: StructIn("timespec"),  # type: ignore[valid-type]
    sigsetsize: Size,
) -> Blocking[int]:
    """Take one of some signals without a handler, waiting for it if need be."""
    _check_sigsetsize(sigsetsize)
    mm = user_mm(task)
    these = get_user_u64(mm, uthese) & ~SIG_KERNEL_ONLY_MASK
    deadline_ns: int | None = None
    if uts:
        timeout_ns = timespec_to_ns(*TIMESPEC.unpack(copy_from_user(mm, uts, TIMESPEC.size)))
        deadline_ns = task.kernel.clock.now_ns() + timeout_ns
    info = yield from _sigtimedwait(task, these, deadline_ns)
    if uinfo:
        copy_to_user(mm, uinfo, info.to_bytes())
    return info.signo


def _sigtimedwait(task: Task, these: int, deadline_ns: int | None) -> Blocking[SigInfo]:
    """do_sigtimedwait(): the signals are let in while we sleep, so that they wake us."""
    others = ALL_SIGNALS & ~these
    info = dequeue_signal(task, others)
    if info is not None:
        return info
    if deadline_ns is not None and deadline_ns <= task.kernel.clock.now_ns():
        raise KernelError(Errno.EAGAIN, "none of the signals waits")
    task.real_blocked = task.blocked
    task.blocked &= ~these
    recalc_sigpending(task)
    reason = WakeReason.EVENT
    try:
        reason = yield Sleep(deadline_ns=deadline_ns)
    finally:
        task.blocked = task.real_blocked
        task.real_blocked = 0
        recalc_sigpending(task)
    info = dequeue_signal(task, others)
    if info is not None:
        return info
    if reason is WakeReason.SIGNAL:
        raise KernelError(Errno.EINTR, "another signal")
    raise KernelError(Errno.EAGAIN, "none of the signals came in time")


@syscall("restart_syscall", x86_64=219, i386=0, group="signal")
def sys_restart_syscall(task: Task) -> Any:
    """Go on with a sleep that a stop or an ignored signal interrupted."""
    restart, task.restart_block = task.restart_block, None
    if restart is None:
        raise KernelError(Errno.EINTR, "nothing to restart")
    result = restart(task)
    return result
