"""Sending signals, and the state of signals that wait.

Models the first half of ``kernel/signal.c``: ``prepare_signal``, ``__send_signal_locked``, ``complete_signal``,
``force_sig_info_to_task``, ``dequeue_signal``, masks, and who may signal whom.  What happens to a signal when the task
goes back to user mode is in deliver.py.

Deliberate difference: no tracing (ptrace).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.abi.errno import Errno, KernelError
from kernel.abi.resource import RLIMIT_SIGPENDING
from kernel.abi.signal import (
    ALL_SIGNALS,
    SI_KERNEL,
    SI_USER,
    SIG_DFL,
    SIG_IGN,
    SIG_KERNEL_COREDUMP_MASK,
    SIG_KERNEL_IGNORE_MASK,
    SIG_KERNEL_ONLY_MASK,
    SIG_KERNEL_STOP_MASK,
    SIGALRM,
    SIGCONT,
    SIGKILL,
    SIGRTMIN,
    SIGSEGV,
    SYNCHRONOUS_MASK,
    SigHow,
    SigInfo,
    sigmask,
)
from kernel.task.task import (
    SIGNAL_CLD_CONTINUED,
    SIGNAL_CLD_STOPPED,
    SIGNAL_GROUP_EXIT,
    SIGNAL_STOP_CONTINUED,
    SIGNAL_STOP_MASK,
    SIGNAL_STOP_STOPPED,
    SIGNAL_UNKILLABLE,
    TIF_RESTORE_SIGMASK,
    TIF_SIGPENDING,
    SigPending,
    Task,
    TaskState,
)
from kernel.task.waitqueue import WakeReason
from kernel.trace import Tracepoint

if TYPE_CHECKING:
    from kernel.kernel import Kernel

SIGNAL_GENERATE = Tracepoint("signal:signal_generate", "task info group result")
"""``result``: delivered, ignored, already_pending, overflow_fail, lose_info (TRACE_SIGNAL_*)."""

_SIGKILL_BIT = sigmask(SIGKILL)
_SIGCONT_BIT = sigmask(SIGCONT)


# ---- state ---------------------------------------------------------------------------------------


def signal_pending(task: Task) -> bool:
    """Must a sleeping system call of ``task`` give up?"""
    return task.exit_work & TIF_SIGPENDING != 0


def fatal_signal_pending(task: Task) -> bool:
    return task.pending.signal & _SIGKILL_BIT != 0


def recalc_sigpending(task: Task) -> None:
    """Set or clear TIF_SIGPENDING.  Only on behalf of ``task`` itself: others may only set it."""
    waiting = task.pending.signal | task.signal.shared_pending.signal
    if waiting & ~task.blocked or task.jobctl_stop_signal:
        task.exit_work |= TIF_SIGPENDING
    else:
        task.exit_work &= ~TIF_SIGPENDING


def set_current_blocked(task: Task, mask: int) -> None:
    """Replace the mask of ``task`` (SIGKILL and SIGSTOP stay open)."""
    mask &= ALL_SIGNALS & ~SIG_KERNEL_ONLY_MASK
    if mask == task.blocked:
        return
    newly_blocked = mask & ~task.blocked
    task.blocked = mask
    shared = task.signal.shared_pending.signal
    if newly_blocked & shared and task.exit_work & TIF_SIGPENDING and len(task.signal.threads) > 1:
        _retarget_shared_pending(task, newly_blocked & shared)
    recalc_sigpending(task)


def _retarget_shared_pending(task: Task, waiting: int) -> None:
    """``task`` will not take the process's signals ``waiting`` any more: wake other threads that can."""
    for thread in list(task.signal.threads):
        if thread is task or thread.exiting or not waiting & ~thread.blocked:
            continue
        waiting &= thread.blocked
        if not thread.exit_work & TIF_SIGPENDING:
            signal_wake_up(thread)
        if not waiting:
            return


def sigprocmask(task: Task, how: int, mask: int) -> None:
    if how == SigHow.SIG_BLOCK:
        set_current_blocked(task, task.blocked | mask)
    elif how == SigHow.SIG_UNBLOCK:
        set_current_blocked(task, task.blocked & ~mask)
    elif how == SigHow.SIG_SETMASK:
        set_current_blocked(task, mask)
    else:
        raise KernelError(Errno.EINVAL, f"sigprocmask: how is {how}")


def set_temporary_sigmask(task: Task, mask: int) -> None:
    """set_user_sigmask(): ``mask`` holds until the call ends (sigsuspend, ppoll, pselect6, epoll_pwait).

    A call that ends with EINTR leaves restoring to signal delivery; otherwise it calls
    :func:`restore_saved_sigmask_unless` at its end.
    """
    task.saved_sigmask = task.blocked
    task.exit_work |= TIF_RESTORE_SIGMASK
    set_current_blocked(task, mask)


def restore_saved_sigmask(task: Task) -> None:
    if task.exit_work & TIF_RESTORE_SIGMASK:
        task.exit_work &= ~TIF_RESTORE_SIGMASK
        set_current_blocked(task, task.saved_sigmask)


def restore_saved_sigmask_unless(task: Task, interrupted: bool) -> None:
    """The call with a temporary mask ends; if ``interrupted``, the handler is to run with that mask first."""
    if not interrupted:
        restore_saved_sigmask(task)


# ---- taking signals ------------------------------------------------------------------------------


def _next_signal(pending: SigPending, mask: int) -> int:
    """The signal to take next: a synchronous one, else the lowest; 0 when all are in ``mask``."""
    ready = pending.signal & ~mask
    if not ready:
        return 0
    if ready & SYNCHRONOUS_MASK:
        ready &= SYNCHRONOUS_MASK
    return (ready & -ready).bit_length()


def _collect_signal(task: Task, pending: SigPending, sig: int) -> SigInfo:
    found: SigInfo | None = None
    more = False
    for info in pending.queue:
        if info.signo == sig:
            if found is not None:
                more = True
                break
            found = info
    if found is None:
        found = SigInfo(sig, SI_USER)
    else:
        pending.queue.remove(found)
        uncharge_sigqueue(task.kernel, found)
    if not more:
        pending.signal &= ~sigmask(sig)
    return found


def dequeue_signal(task: Task, mask: int) -> SigInfo | None:
    """Take the next signal that is not in ``mask``; the thread's own before the process's."""
    while True:
        pending = task.pending
        sig = _next_signal(pending, mask)
        if not sig:
            pending = task.signal.shared_pending
            sig = _next_signal(pending, mask)
            if not sig:
                recalc_sigpending(task)
                return None
        info = _collect_signal(task, pending, sig)
        if sig == SIGALRM and pending is not task.pending:
            rearm_real_timer(task)
        if info.timer is not None and not info.timer.deliver(info):
            continue  # the timer was deleted or set anew since
        recalc_sigpending(task)
        return info


def dequeue_synchronous_signal(task: Task) -> SigInfo | None:
    """Take a fault of the thread itself first, so that the frame shows the instruction that faulted."""
    for info in task.pending.queue:
        if info.code > SI_USER and sigmask(info.signo) & SYNCHRONOUS_MASK & ~task.blocked:
            return _take(task, info)
    return None


def _take(task: Task, info: SigInfo) -> SigInfo:
    taken = _collect_signal(task, task.pending, info.signo)
    recalc_sigpending(task)
    return taken


def rearm_real_timer(task: Task) -> None:
    """SIGALRM was taken: start the next period of ITIMER_REAL (it does not run while its signal waits)."""
    signal = task.signal
    if signal.real_interval_ns and signal.real_timer is not None and not signal.real_timer.active:
        old = signal.real_timer
        now_ns = task.kernel.clock.now_ns()
        periods = (now_ns - old.deadline_ns) // signal.real_interval_ns + 1
        signal.real_timer = task.kernel.timers.add(
            old.deadline_ns + max(periods, 1) * signal.real_interval_ns, old.function
        )


def flush_sigqueue_mask(task: Task, mask: int, pending: SigPending) -> None:
    """Forget the signals of ``mask``."""
    if not pending.signal & mask:
        return
    pending.signal &= ~mask
    for info in pending.queue:
        if sigmask(info.signo) & mask:
            uncharge_sigqueue(task.kernel, info)
    pending.queue = [info for info in pending.queue if not sigmask(info.signo) & mask]


def uncharge_sigqueue(kernel: Kernel, info: SigInfo) -> None:
    if info.charged_uid >= 0:
        kernel.pids.nr_sigqueue[info.charged_uid] -= 1
        info.charged_uid = -1


def flush_signal_handlers(task: Task) -> None:
    """execve: caught signals get their default action; ignored ones stay ignored."""
    for action in task.sighand.action:
        if action.handler != SIG_IGN:
            action.handler = SIG_DFL
        action.flags = 0
        action.restorer = 0
        action.mask = 0


# ---- sending -------------------------------------------------------------------------------------


def sig_ignored(task: Task, sig: int, force: bool = False) -> bool:
    """Would ``sig`` have no effect at all?  A blocked signal is never ignored: the action may change."""
    if (task.blocked | task.real_blocked) & sigmask(sig):
        return False
    return _task_ignores(task, sig, force)


def _task_ignores(task: Task, sig: int, force: bool) -> bool:
    handler = task.sighand.action[sig - 1].handler
    if (
        task.signal.flags & SIGNAL_UNKILLABLE
        and handler == SIG_DFL
        and not (force and sigmask(sig) & SIG_KERNEL_ONLY_MASK)
    ):
        return True
    return handler == SIG_IGN or (handler == SIG_DFL and sigmask(sig) & SIG_KERNEL_IGNORE_MASK != 0)


def signal_wake_up(task: Task, fatal: bool = False) -> None:
    """Make ``task`` look at its signals: end an interruptible sleep, and any sleep or stop if ``fatal``."""
    task.exit_work |= TIF_SIGPENDING
    state = task.state
    if state is TaskState.INTERRUPTIBLE or (fatal and state is TaskState.KILLABLE):
        task.wake(WakeReason.SIGNAL)
    elif fatal and state is TaskState.STOPPED:
        task.kernel.sched.enqueue(task)


def _prepare_signal(task: Task, sig: int, force: bool) -> bool:
    """The side effects that stop and continue signals have when they are *sent*; False: drop the signal."""
    signal = task.signal
    if signal.flags & SIGNAL_GROUP_EXIT:
        return False
    if sigmask(sig) & SIG_KERNEL_STOP_MASK:
        flush_sigqueue_mask(task, _SIGCONT_BIT, signal.shared_pending)
        for thread in signal.threads:
            flush_sigqueue_mask(thread, _SIGCONT_BIT, thread.pending)
    elif sig == SIGCONT:
        flush_sigqueue_mask(task, SIG_KERNEL_STOP_MASK, signal.shared_pending)
        for thread in signal.threads:
            flush_sigqueue_mask(thread, SIG_KERNEL_STOP_MASK, thread.pending)
            thread.jobctl_stop_signal = 0
            thread.jobctl_stop_consume = False
            if thread.state is TaskState.STOPPED:
                thread.exit_work |= TIF_SIGPENDING  # back into get_signal, which tells the parent
                thread.kernel.sched.enqueue(thread)
        why = 0
        if signal.flags & SIGNAL_STOP_STOPPED:
            why = SIGNAL_CLD_CONTINUED
        elif signal.group_stop_count:
            why = SIGNAL_CLD_STOPPED
        if why:
            signal.flags = signal.flags & ~SIGNAL_STOP_MASK | why | SIGNAL_STOP_CONTINUED
            signal.group_stop_count = 0
            signal.group_exit_code = 0
    return not sig_ignored(task, sig, force)


def _charge_sigqueue(task: Task, info: SigInfo, override: bool) -> bool:
    """Count one more queued signal against the receiver's user; False when RLIMIT_SIGPENDING is reached."""
    uid = task.creds.uid
    table = task.kernel.pids.nr_sigqueue
    count = table.get(uid, 0)
    if not override and count >= task.rlimit(RLIMIT_SIGPENDING):
        return False
    table[uid] = count + 1
    info.charged_uid = uid
    return True


def send_signal(task: Task, info: SigInfo, *, group: bool = True, force: bool = False) -> bool:
    """send_signal_locked(): queue ``info`` for ``task`` (or for its whole process) and wake who is to take it.

    ``force``: sent by the kernel itself (init may not ignore it).  False: dropped, because it is ignored or already
    waits.  Raises EAGAIN when a real-time signal cannot be queued.  Permission was checked.
    """
    sig = info.signo
    if not _prepare_signal(task, sig, force):
        if SIGNAL_GENERATE.on:
            SIGNAL_GENERATE.emit(task, info, group, "ignored")
        return False
    pending = task.signal.shared_pending if group else task.pending
    if sig < SIGRTMIN and pending.signal & sigmask(sig):
        if SIGNAL_GENERATE.on:
            SIGNAL_GENERATE.emit(task, info, group, "already_pending")
        return False
    result = "delivered"
    if sig != SIGKILL:
        if _charge_sigqueue(task, info, override=sig < SIGRTMIN and info.code >= 0):
            pending.queue.append(info)
        elif sig >= SIGRTMIN and info.code not in (SI_USER, SI_KERNEL):
            if SIGNAL_GENERATE.on:
                SIGNAL_GENERATE.emit(task, info, group, "overflow_fail")
            raise KernelError(Errno.EAGAIN, "RLIMIT_SIGPENDING")
        else:
            result = "lose_info"
    if SIGNAL_GENERATE.on:
        SIGNAL_GENERATE.emit(task, info, group, result)
    if task.sighand.signalfd_wqh:
        task.sighand.signalfd_wqh.wake_up()
    pending.signal |= sigmask(sig)
    _complete_signal(task, sig, group)
    return True


def send_sigqueue(task: Task, info: SigInfo, *, group: bool) -> bool:
    """A POSIX timer's signal: queued even if the same signal waits already.  False: it is ignored."""
    if not _prepare_signal(task, info.signo, force=False):
        if SIGNAL_GENERATE.on:
            SIGNAL_GENERATE.emit(task, info, group, "ignored")
        return False
    pending = task.signal.shared_pending if group else task.pending
    if SIGNAL_GENERATE.on:
        SIGNAL_GENERATE.emit(task, info, group, "delivered")
    if task.sighand.signalfd_wqh:
        task.sighand.signalfd_wqh.wake_up()
    pending.queue.append(info)
    pending.signal |= sigmask(info.signo)
    _complete_signal(task, info.signo, group)
    return True


def _wants_signal(task: Task, sig: int) -> bool:
    if task.blocked & sigmask(sig) or task.exiting:
        return False
    if sig == SIGKILL:
        return True
    if task.state is TaskState.STOPPED:
        return False
    return task.kernel.sched.current is task or not task.exit_work & TIF_SIGPENDING


def _complete_signal(task: Task, sig: int, group: bool) -> None:
    """Choose the thread that takes ``sig`` and wake it; a fatal signal takes the whole group down at once."""
    signal = task.signal
    target: Task | None = None
    if _wants_signal(task, sig):
        target = task
    elif group and len(signal.threads) > 1:
        threads = list(signal.threads)
        start = threads.index(signal.curr_target) if signal.curr_target in signal.threads else 0
        for thread in threads[start:] + threads[:start]:
            if _wants_signal(thread, sig):
                target = signal.curr_target = thread
                break
    if target is None:
        return  # taken when somebody opens its mask
    if (
        task.sighand.action[sig - 1].handler == SIG_DFL
        and not sigmask(sig) & (SIG_KERNEL_IGNORE_MASK | SIG_KERNEL_STOP_MASK | SIG_KERNEL_COREDUMP_MASK)
        and not target.real_blocked & sigmask(sig)
    ):
        signal.flags = SIGNAL_GROUP_EXIT
        signal.group_exit_code = sig
        signal.group_stop_count = 0
        for thread in list(signal.threads):
            thread.jobctl_stop_signal = 0
            thread.jobctl_stop_consume = False
            thread.pending.signal |= _SIGKILL_BIT
            signal_wake_up(thread, fatal=True)
        return
    signal_wake_up(target, fatal=sig == SIGKILL)


def send_sig(task: Task, sig: int, *, group: bool = False) -> None:
    """A signal from the kernel itself (SEND_SIG_PRIV): SIGPIPE, SIGXFSZ, SIGHUP ..."""
    send_signal(task, SigInfo(sig, SI_KERNEL), group=group, force=True)


def force_sig_info(task: Task, info: SigInfo, *, default_action: bool = False) -> None:
    """force_sig_info_to_task(): a signal that ``task`` cannot ignore or hold back: then its default action happens."""
    sig = info.signo
    action = task.sighand.action[sig - 1]
    blocked = task.blocked & sigmask(sig)
    if blocked or action.handler == SIG_IGN or default_action:
        action.handler = SIG_DFL
        if blocked:
            task.blocked &= ~sigmask(sig)
            recalc_sigpending(task)
    if action.handler == SIG_DFL:
        task.signal.flags &= ~SIGNAL_UNKILLABLE
    send_signal(task, info, group=False, force=False)
    if not task.exit_work & TIF_SIGPENDING:
        signal_wake_up(task)


def force_sig(task: Task, sig: int) -> None:
    """A signal without a place (SI_KERNEL): general protection, a frame that could not be written."""
    force_sig_info(task, SigInfo(sig, SI_KERNEL))


def force_fatal_sig(task: Task, sig: int) -> None:
    """Kill the process with ``sig``, whatever its handler."""
    force_sig_info(task, SigInfo(sig, SI_KERNEL), default_action=True)


def force_sigsegv(task: Task, sig: int) -> None:
    """The frame for ``sig`` could not be written: SIGSEGV, and no handler for it if it was SIGSEGV's own frame."""
    if sig == SIGSEGV:
        force_fatal_sig(task, SIGSEGV)
    else:
        force_sig(task, SIGSEGV)


def force_sig_fault(task: Task, sig: int, code: int, addr: int) -> None:
    """A fault of ``task`` at ``addr``.  The caller has set ``trap_nr``, ``error_code`` and ``cr2``."""
    force_sig_info(task, SigInfo(sig, code, addr=addr))


def kill_pgrp(kernel: Kernel, pgrp: int, sig: int) -> int:
    """The kernel itself signals a process group (terminal keys, hang-up); returns how many processes it has."""
    members = kernel.pids.pgrp_members(pgrp)
    for member in members:
        send_signal(member, SigInfo(sig, SI_KERNEL), force=True)
    return len(members)
