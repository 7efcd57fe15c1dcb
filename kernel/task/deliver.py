"""On the way back to user mode: signals, stops, restarts, time slices.

Models ``exit_to_user_mode_loop`` (kernel/entry/common.c), ``get_signal`` and ``do_signal_stop`` (kernel/signal.c),
``arch_do_signal_or_restart`` and ``handle_signal`` (arch/x86/kernel/signal.c).

Deliberate differences: no core file is written, WCOREDUMP says whether Linux would have written one (RLIMIT_CORE,
dumpable); an instruction pointer that is no user address is answered with SIGSEGV before the processor sees it.
"""

from __future__ import annotations

from enum import Enum

from kernel.abi.errno import ERESTART_RESTARTBLOCK, ERESTARTNOHAND, ERESTARTNOINTR, ERESTARTSYS, Errno
from kernel.abi.resource import RLIMIT_CORE
from kernel.abi.signal import (
    CLD_CONTINUED,
    CLD_STOPPED,
    SA_NODEFER,
    SA_RESETHAND,
    SA_RESTART,
    SIG_DFL,
    SIG_IGN,
    SIG_KERNEL_COREDUMP_MASK,
    SIG_KERNEL_IGNORE_MASK,
    SIG_KERNEL_ONLY_MASK,
    SIG_KERNEL_STOP_MASK,
    SIGKILL,
    SIGSEGV,
    SIGSTOP,
    SS_AUTODISARM,
    SigInfo,
    sigmask,
)
from kernel.hardware import Reg
from kernel.mm.types import PAGE_SIZE, TASK_SIZE
from kernel.task.cred import SUID_DUMP_USER
from kernel.task.exit import do_group_exit
from kernel.task.jobctl import do_notify_parent_cldstop, leave_group_stop
from kernel.task.pgrp import is_current_pgrp_orphaned
from kernel.task.rseq import rseq_handle_notify_resume
from kernel.task.sigframe import sas_ss_reset, setup_rt_frame
from kernel.task.signal import (
    dequeue_signal,
    dequeue_synchronous_signal,
    force_sig,
    force_sigsegv,
    restore_saved_sigmask,
    set_current_blocked,
    signal_wake_up,
)
from kernel.task.task import (
    SIGNAL_CLD_CONTINUED,
    SIGNAL_CLD_MASK,
    SIGNAL_GROUP_EXIT,
    SIGNAL_STOP_STOPPED,
    SIGNAL_UNKILLABLE,
    TIF_EXITED,
    TIF_NEED_RESCHED,
    TIF_NOTIFY_RESUME,
    TIF_RESTORE_SIGMASK,
    TIF_SIGPENDING,
    SigAction,
    Task,
    TaskState,
)
from kernel.trace import Tracepoint

SIGNAL_DELIVER = Tracepoint("signal:signal_deliver", "task info handler flags")
"""A signal takes effect; ``handler`` is an address, SIG_DFL or SIG_IGN."""

NR_RESTART_SYSCALL = 219
SYSCALL_INSN_BYTES = 2
_RESTARTS = {-code & 0xFFFF_FFFF_FFFF_FFFF: code for code in (
    ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND, ERESTART_RESTARTBLOCK,
)}  # fmt: skip
_EINTR = -int(Errno.EINTR) & 0xFFFF_FFFF_FFFF_FFFF


class Gone(Enum):
    """Why get_signal has no signal and the task must not go on."""

    STOPPED = "stopped"
    DEAD = "dead"


def exit_to_user_mode(task: Task) -> bool:
    """Do everything that ``exit_work`` asks for.  The processor is stopped; a system call's result is in RAX.

    True: the task may go on in user mode.  False: pick another task (it stopped, died, or its turn is over).
    """
    while True:
        work = task.exit_work
        if work & TIF_EXITED:
            return False
        if work & (TIF_SIGPENDING | TIF_RESTORE_SIGMASK):
            if not deliver_signals(task):
                return False
            continue
        if work & TIF_NOTIFY_RESUME:
            task.exit_work &= ~TIF_NOTIFY_RESUME
            rseq_handle_notify_resume(task)
            continue
        task.syscall_nr = -1
        return not work & TIF_NEED_RESCHED


def deliver_signals(task: Task) -> bool:
    """arch_do_signal_or_restart(): False when the task stopped or died."""
    taken = get_signal(task)
    if isinstance(taken, Gone):
        return False
    if taken is not None:
        info, action = taken
        handle_signal(task, info, action)
    else:
        _restart_without_handler(task)
        restore_saved_sigmask(task)
    if task.regs.read(Reg.RIP) >= TASK_SIZE and not task.exit_work & TIF_SIGPENDING:
        force_sig(task, SIGSEGV)
    return True


def _restart_without_handler(task: Task) -> None:
    """Did the system call ask to be restarted?  No handler ran, so it is."""
    if task.syscall_nr == -1:
        return
    regs = task.regs
    code = _RESTARTS.get(regs.read(Reg.RAX))
    if code is None:
        return
    regs.write(Reg.RAX, NR_RESTART_SYSCALL if code == ERESTART_RESTARTBLOCK else task.syscall_nr)
    regs.write(Reg.RIP, regs.read(Reg.RIP) - SYSCALL_INSN_BYTES)
    task.syscall_nr = -1


def handle_signal(task: Task, info: SigInfo, action: SigAction) -> None:
    """Let ``action`` handle ``info``: settle the interrupted call, build the frame, set the handler's mask."""
    regs = task.regs
    if task.syscall_nr != -1:
        code = _RESTARTS.get(regs.read(Reg.RAX))
        if code in (ERESTART_RESTARTBLOCK, ERESTARTNOHAND) or (code == ERESTARTSYS and not action.flags & SA_RESTART):
            regs.write(Reg.RAX, _EINTR)
        elif code is not None:
            regs.write(Reg.RAX, task.syscall_nr)
            regs.write(Reg.RIP, regs.read(Reg.RIP) - SYSCALL_INSN_BYTES)
        task.syscall_nr = -1
    if task.rseq is not None:
        rseq_handle_notify_resume(task)
    oldmask = task.saved_sigmask if task.exit_work & TIF_RESTORE_SIGMASK else task.blocked
    if not setup_rt_frame(task, info, action, oldmask):
        force_sigsegv(task, info.signo)
        return
    task.exit_work &= ~TIF_RESTORE_SIGMASK
    mask = task.blocked | action.mask
    if not action.flags & SA_NODEFER:
        mask |= sigmask(info.signo)
    set_current_blocked(task, mask)
    if task.sas_ss_flags & SS_AUTODISARM:
        sas_ss_reset(task)


def get_signal(task: Task) -> tuple[SigInfo, SigAction] | Gone | None:
    """The next signal with a handler.  Default actions happen in here; None when no signal is left."""
    signal = task.signal
    while True:
        if signal.flags & SIGNAL_CLD_MASK:
            why = CLD_CONTINUED if signal.flags & SIGNAL_CLD_CONTINUED else CLD_STOPPED
            signal.flags &= ~SIGNAL_CLD_MASK
            do_notify_parent_cldstop(task, why)
        if signal.flags & SIGNAL_GROUP_EXIT:
            if SIGNAL_DELIVER.on:
                _trace_fatal_signal(task)
            do_group_exit(task, signal.group_exit_code)
            return Gone.DEAD
        if task.jobctl_stop_signal:
            _participate_in_stop(task)
            return Gone.STOPPED
        info = dequeue_synchronous_signal(task) or dequeue_signal(task, task.blocked)
        if info is None:
            return None
        if task.kernel.ptrace_signal is not None and info.signo != SIGKILL:
            info = task.kernel.ptrace_signal(task, info)
            if info is None:
                continue
        sig = info.signo
        action = task.sighand.action[sig - 1]
        if SIGNAL_DELIVER.on:
            SIGNAL_DELIVER.emit(task, info, action.handler, action.flags)
        if action.handler == SIG_IGN:
            continue
        if action.handler != SIG_DFL:
            chosen = action.copy()
            if action.flags & SA_RESETHAND:
                action.handler = SIG_DFL
            return info, chosen
        if _default_action(task, sig):
            return Gone.STOPPED if task.state is TaskState.STOPPED else Gone.DEAD


def _trace_fatal_signal(task: Task) -> None:
    """The signal that ended the process when it was sent: its record still waits (SIGKILL has none)."""
    sig = task.signal.group_exit_code & 0x7F
    for info in (*task.pending.queue, *task.signal.shared_pending.queue):
        if info.signo == sig:
            SIGNAL_DELIVER.emit(task, info, SIG_DFL, 0)
            return


def _default_action(task: Task, sig: int) -> bool:
    """What a signal without a handler does.  False: nothing; True: the task stopped or died."""
    bit = sigmask(sig)
    signal = task.signal
    if bit & SIG_KERNEL_IGNORE_MASK:
        return False
    if signal.flags & SIGNAL_UNKILLABLE and not bit & SIG_KERNEL_ONLY_MASK:
        return False
    if bit & SIG_KERNEL_STOP_MASK:
        if sig != SIGSTOP and is_current_pgrp_orphaned(task):
            return False
        _start_group_stop(task, sig)
        return True
    code = sig
    if bit & SIG_KERNEL_COREDUMP_MASK and _dumps_core(task):
        code |= 0x80
    do_group_exit(task, code)
    return True


def _dumps_core(task: Task) -> bool:
    mm = task.mm
    return mm is not None and mm.dumpable == SUID_DUMP_USER and task.rlimit(RLIMIT_CORE) >= PAGE_SIZE


def _start_group_stop(task: Task, sig: int) -> None:
    """do_signal_stop(): every thread of the process is asked to stop; this one does at once."""
    signal = task.signal
    if not signal.flags & SIGNAL_STOP_STOPPED:
        signal.group_exit_code = sig
    signal.group_stop_count = 0
    for thread in list(signal.threads):
        if thread.exiting or thread.state is TaskState.STOPPED:
            continue
        thread.jobctl_stop_signal = sig
        thread.jobctl_stop_consume = True
        signal.group_stop_count += 1
        if thread is not task:
            signal_wake_up(thread)
    _participate_in_stop(task)


def _participate_in_stop(task: Task) -> None:
    """Stop this thread; the last one to stop tells the parent."""
    task.jobctl_stop_signal = 0
    notify = False
    if task.jobctl_stop_consume:
        task.jobctl_stop_consume = False
        notify = leave_group_stop(task)
    task.kernel.sched.dequeue(task)
    task.state = TaskState.STOPPED
    if notify:
        do_notify_parent_cldstop(task, CLD_STOPPED)
