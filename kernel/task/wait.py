"""Waiting for children.

Models ``do_wait`` and its helpers of ``kernel/exit.c``.  Manual: wait(2), wait4(2), waitid(2).
"""

from __future__ import annotations

from dataclasses import dataclass

from kernel.abi.errno import ERESTARTSYS, Errno, KernelError
from kernel.abi.signal import (
    CLD_CONTINUED,
    CLD_DUMPED,
    CLD_EXITED,
    CLD_KILLED,
    CLD_STOPPED,
    SIGCHLD,
    SIGCONT,
)
from kernel.abi.wait import (
    STATUS_CONTINUED,
    WALL,
    WCLONE,
    WCONTINUED,
    WEXITED,
    WNOHANG,
    WNOTHREAD,
    WNOWAIT,
    WUNTRACED,
    IdType,
    stopped,
)
from kernel.task.exit import release_task, thread_group_usage, wait_status
from kernel.task.task import SIGNAL_STOP_CONTINUED, SIGNAL_STOP_STOPPED, Task, TaskState, Usage
from kernel.task.waitqueue import Blocking, Sleep, WakeReason


@dataclass(slots=True)
class WaitResult:
    """What was found; ``pid`` 0: WNOHANG and nobody has anything to tell."""

    pid: int
    status: int = 0
    """The status word of wait4."""
    uid: int = 0
    code: int = 0
    """CLD_*, for waitid."""
    si_status: int = 0
    """For waitid: exit code or signal."""
    usage: Usage | None = None


@dataclass(slots=True)
class WaitOpts:
    """``struct wait_opts``: whom to wait for, and for what."""

    kind: IdType
    id: int
    options: int
    target: Task | None = None
    """P_PIDFD: the process."""


def _eligible(opts: WaitOpts, child: Task) -> bool:
    """Is ``child`` one of those that were asked for (eligible_child)?"""
    if opts.kind is IdType.P_PID and child.pid != opts.id:
        return False
    if opts.kind is IdType.P_PGID and child.signal.pgrp != opts.id:
        return False
    if opts.kind is IdType.P_PIDFD and child is not opts.target:
        return False
    if opts.options & WALL:
        return True
    is_clone_child = child.exit_signal != SIGCHLD
    return is_clone_child == (opts.options & WCLONE != 0)


def do_wait(task: Task, opts: WaitOpts) -> Blocking[WaitResult]:
    """Sleep until a child has something to tell; ECHILD when there is none to wait for."""
    while True:
        found, any_child = _look_around(task, opts)
        if found is not None:
            return found
        if not any_child:
            raise KernelError(Errno.ECHILD, "no such child")
        if opts.options & WNOHANG:
            return WaitResult(0)
        if (yield Sleep(task.signal.wait_chldexit)) is WakeReason.SIGNAL:
            # A child's SIGCHLD wakes us together with its news: the news goes first, as in Linux.
            found, any_child = _look_around(task, opts)
            if found is not None:
                return found
            raise KernelError(ERESTARTSYS, "signal")


def _look_around(task: Task, opts: WaitOpts) -> tuple[WaitResult | None, bool]:
    """What some child has to tell, and whether there is any child that may have one day."""
    any_child = False
    parents = [task] if opts.options & WNOTHREAD else [task, *(t for t in task.signal.threads if t is not task)]
    for parent in parents:
        for child in list(parent.children):
            if not _eligible(opts, child):
                continue
            any_child = True
            found = _consider(task, opts, child)
            if found is not None:
                return found, True
    return None, any_child


def _consider(task: Task, opts: WaitOpts, child: Task) -> WaitResult | None:
    """wait_consider_task()."""
    if child.state is TaskState.ZOMBIE and child.signal.nr_threads == 1:  # with other threads, it has not ended yet
        return _wait_zombie(task, opts, child) if opts.options & WEXITED else None
    return _wait_stopped(opts, child) or _wait_continued(opts, child)


def _wait_zombie(task: Task, opts: WaitOpts, child: Task) -> WaitResult:
    status = wait_status(child)
    usage = Usage()
    usage.add(thread_group_usage(child))
    usage.add(child.signal.children_usage)
    result = WaitResult(child.pid, status, child.creds.uid, usage=usage)
    if status & 0x7F:
        result.code, result.si_status = CLD_DUMPED if status & 0x80 else CLD_KILLED, status & 0x7F
    else:
        result.code, result.si_status = CLD_EXITED, status >> 8 & 0xFF
    if not opts.options & WNOWAIT:
        task.signal.children_usage.add(usage)
        release_task(child)
    return result


def _wait_stopped(opts: WaitOpts, child: Task) -> WaitResult | None:
    signal = child.signal
    if not opts.options & WUNTRACED or not signal.flags & SIGNAL_STOP_STOPPED or not signal.group_exit_code:
        return None
    sig = signal.group_exit_code
    if not opts.options & WNOWAIT:
        signal.group_exit_code = 0
    return WaitResult(child.pid, stopped(sig), child.creds.uid, CLD_STOPPED, sig, _total_usage(child))


def _wait_continued(opts: WaitOpts, child: Task) -> WaitResult | None:
    signal = child.signal
    if not opts.options & WCONTINUED or not signal.flags & SIGNAL_STOP_CONTINUED:
        return None
    if not opts.options & WNOWAIT:
        signal.flags &= ~SIGNAL_STOP_CONTINUED
    return WaitResult(child.pid, STATUS_CONTINUED, child.creds.uid, CLD_CONTINUED, SIGCONT, _total_usage(child))


def _total_usage(child: Task) -> Usage:
    usage = thread_group_usage(child)
    usage.add(child.signal.children_usage)
    return usage
