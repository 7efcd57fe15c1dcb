"""The end of threads and processes.

Models ``kernel/exit.c`` and ``mm_release`` of ``kernel/fork.c``.  Manual: _exit(2), exit_group(2), wait(2).

Deliberate difference: exit_group ends the other threads at once, one after the other, instead of sending them
SIGKILL and letting each run to its end; nothing else can run in between, so nobody can tell.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from kernel.abi.errno import KernelError
from kernel.abi.futex import FUTEX_BITSET_MATCH_ANY
from kernel.abi.signal import (
    ALL_SIGNALS,
    CLD_DUMPED,
    CLD_EXITED,
    CLD_KILLED,
    CLD_STOPPED,
    SA_NOCLDWAIT,
    SI_USER,
    SIG_IGN,
    SIGCHLD,
    SigInfo,
)
from kernel.abi.time import NS_PER_TICK
from kernel.mm.exit import mmput
from kernel.mm.usercopy import put_user_u32
from kernel.task.futex import exit_robust_list, futex_wake
from kernel.task.jobctl import do_notify_parent_cldstop, leave_group_stop
from kernel.task.pgrp import kill_orphaned_pgrp
from kernel.task.signal import (
    flush_sigqueue_mask,
    send_signal,
    signal_wake_up,
)
from kernel.task.task import (
    SIGNAL_GROUP_EXIT,
    TIF_EXITED,
    TIF_SIGPENDING,
    SigPending,
    Task,
    TaskState,
    Usage,
)
from kernel.trace import Tracepoint

if TYPE_CHECKING:
    from kernel.mm.types import MmStruct

SCHED_PROCESS_EXIT = Tracepoint("sched:sched_process_exit", "task exit_code group_dead")


def wait_status(task: Task) -> int:
    """The status word of a process that has exited, by its leader (also after it was released)."""
    signal = task.signal
    return signal.group_exit_code if signal.flags & SIGNAL_GROUP_EXIT else task.exit_code


def do_group_exit(task: Task, code: int) -> None:
    """End the whole process of ``task`` with status word ``code`` (the one already chosen, if one has been)."""
    signal = task.signal
    if signal.flags & SIGNAL_GROUP_EXIT:
        code = signal.group_exit_code
    else:
        signal.group_exit_code = code
        signal.flags = SIGNAL_GROUP_EXIT
        signal.group_stop_count = 0
    signal.group_leader.exit_code = code  # also if the leader has exited already, with a status of its own
    zap_other_threads(task, code)
    do_exit(task, code)


def zap_other_threads(task: Task, code: int) -> None:
    """End every other thread of the process (exit_group, a fatal signal, execve)."""
    for thread in list(task.signal.threads):
        if thread is not task and not thread.exiting:
            do_exit(thread, code)


def do_exit(task: Task, code: int) -> None:
    """End one thread; ``code`` is its status word.  The task never runs again."""
    if task.exiting:
        return
    kernel = task.kernel
    signal = task.signal
    kernel.sched.update_curr()
    _abandon_sleep(task)
    _exit_signals(task)
    signal.nr_live -= 1
    group_dead = signal.nr_live == 0
    task.exit_code = code
    task.exit_work = TIF_EXITED
    if group_dead:
        _exit_timers(task)
        if task.mm is not None:
            signal.dead_threads.maxrss_pages = max(signal.dead_threads.maxrss_pages, task.mm.hiwater_rss, task.mm.rss)
    if SCHED_PROCESS_EXIT.on:
        SCHED_PROCESS_EXIT.emit(task, code, group_dead)
    mm_release(task)
    if task.mm is not None:
        mm, task.mm = task.mm, None
        mmput(mm)
    _exit_files(task)
    if group_dead and signal.is_session_leader:
        _disassociate_tty(task)
    kernel.sched.dequeue(task)
    _exit_notify(task, group_dead)


def _abandon_sleep(task: Task) -> None:
    """Take the task off its queues and close its sleeping handler, whose ``finally`` clauses clean up."""
    for queue in task.queues:
        queue.remove(task)
    task.queues = ()
    if task.sleep_timer is not None:
        task.sleep_timer.cancel()
        task.sleep_timer = None
    continuation, task.continuation = task.continuation, None
    if continuation is not None and inspect.getgeneratorstate(continuation) != inspect.GEN_RUNNING:
        continuation.close()


def _exit_signals(task: Task) -> None:
    """From now on the thread takes no signals; others of its process take those that wait for all."""
    signal = task.signal
    task.exiting = True
    waiting = signal.shared_pending.signal & ~task.blocked
    if task.exit_work & TIF_SIGPENDING and waiting:
        for thread in list(signal.threads):
            if thread is not task and not thread.exiting and waiting & ~thread.blocked:
                signal_wake_up(thread)
                waiting &= thread.blocked
    task.jobctl_stop_signal = 0
    if task.jobctl_stop_consume:
        task.jobctl_stop_consume = False
        if leave_group_stop(task):
            do_notify_parent_cldstop(task, CLD_STOPPED)


def _exit_timers(task: Task) -> None:
    signal = task.signal
    if signal.real_timer is not None:
        signal.real_timer.cancel()
        signal.real_timer = None
    for timer in list(signal.posix_timers.values()):
        timer.delete()
    for cpu_timer in list(signal.cpu_timers):
        cpu_timer.cancel()
    if signal.cpu_event is not None:
        signal.cpu_event.cancel()


def mm_release(task: Task) -> None:
    """The thread lets go of its memory (exit or exec): robust futexes, clear_child_tid, the vfork parent."""
    mm: MmStruct | None = task.mm
    if mm is not None:
        if task.robust_list:
            exit_robust_list(task)
            task.robust_list = 0
        if task.clear_child_tid:
            if mm.mm_users > 1:
                _clear_child_tid(task, mm)
            task.clear_child_tid = 0
    task.rseq = None
    done = task.vfork_done
    if done is not None:
        task.vfork_done = None
        done.wake_up()


def _clear_child_tid(task: Task, mm: MmStruct) -> None:
    try:
        put_user_u32(mm, task.clear_child_tid, 0)
        futex_wake(task, task.clear_child_tid, 1, FUTEX_BITSET_MATCH_ANY, shared=True)
    except KernelError:
        return  # the memory went away: nobody can be waiting there


def _exit_files(task: Task) -> None:
    files, task._files = task._files, None
    if files is not None:
        files.put()
    fs, task._fs = task._fs, None
    if fs is not None:
        fs.put()


def _disassociate_tty(task: Task) -> None:
    """The session leader is gone: its terminal belongs to nobody, the foreground group is hung up."""
    tty = task.signal.tty
    if tty is not None:
        tty.disassociate(task)


# ---- the family ----------------------------------------------------------------------------------


def _exit_notify(task: Task, group_dead: bool) -> None:
    _forget_original_parent(task)
    if group_dead:
        kill_orphaned_pgrp(task.signal.group_leader, None)
    task.state = TaskState.ZOMBIE
    if task is task.signal.group_leader:
        if group_dead:
            task.signal.wait_pidfd.wake_up()
        if task.signal.nr_threads == 1 and do_notify_parent(task):
            release_task(task)
    else:
        release_task(task)


def do_notify_parent(task: Task) -> bool:
    """Tell the parent that the process of leader ``task`` has exited.  True: the parent does not want to wait."""
    parent = task.parent
    sig = task.exit_signal
    status = wait_status(task)
    info = SigInfo(sig, SI_USER, pid=task.pid, uid=task.creds.uid)
    usage = thread_group_usage(task)
    info.utime, info.stime = usage.utime_ns // NS_PER_TICK, usage.stime_ns // NS_PER_TICK
    info.status = status & 0x7F
    if status & 0x80:
        info.code = CLD_DUMPED
    elif status & 0x7F:
        info.code = CLD_KILLED
    else:
        info.code = CLD_EXITED
        info.status = status >> 8
    autoreap = False
    if sig == SIGCHLD:
        action = parent.sighand.action[SIGCHLD - 1]
        if action.handler == SIG_IGN or action.flags & SA_NOCLDWAIT:
            autoreap = True
            if action.handler == SIG_IGN:
                sig = 0
    task.signal.wait_pidfd.wake_up()
    if 0 < sig <= 64:  # clone(2) takes any byte for an exit signal
        send_signal(parent, info)
    parent.signal.wait_chldexit.wake_up()
    return autoreap


def _find_alive_thread(task: Task) -> Task | None:
    return next((thread for thread in task.signal.threads if not thread.exiting), None)


def _find_new_reaper(father: Task) -> Task:
    """Who gets the children: another thread, the nearest living subreaper among the ancestors, or init."""
    thread = _find_alive_thread(father)
    if thread is not None:
        return thread
    init: Task = father.kernel.init_task
    if father.signal.has_child_subreaper:
        ancestor = father.parent
        while ancestor is not init:
            if ancestor.signal.is_child_subreaper:
                thread = _find_alive_thread(ancestor)
                if thread is not None:
                    return thread
            ancestor = ancestor.parent
    return init


def _forget_original_parent(father: Task) -> None:
    """Give the children of ``father`` a new parent."""
    if not father.children:
        return
    reaper = _find_new_reaper(father)
    same_process = reaper.signal is father.signal
    children = list(father.children)
    father.children = {}
    dead: list[Task] = []
    for child in children:
        for thread in child.signal.threads:
            thread.parent = reaper
            if thread.pdeath_signal:
                send_signal(thread, SigInfo(thread.pdeath_signal, SI_USER, pid=father.tgid, uid=father.creds.uid))
        reaper.children[child] = None
        if same_process:
            continue
        child.exit_signal = SIGCHLD
        if child.state is TaskState.ZOMBIE and child.signal.nr_threads == 1 and do_notify_parent(child):
            dead.append(child)
        kill_orphaned_pgrp(child, father)
    for child in dead:
        release_task(child)


def task_usage(task: Task) -> Usage:
    """What one thread has used so far."""
    task.kernel.sched.update_curr()
    usage = Usage()
    usage.utime_ns, usage.stime_ns = task.utime_ns, task.stime_ns
    usage.minflt, usage.majflt = task.min_flt, task.maj_flt
    usage.nvcsw, usage.nivcsw = task.nvcsw, task.nivcsw
    usage.inblock, usage.oublock = task.inblock, task.oublock
    return usage


def thread_group_usage(task: Task) -> Usage:
    """What all threads of the process, released ones included, have used so far."""
    usage = Usage()
    usage.add(task.signal.dead_threads)
    for thread in task.signal.threads:
        usage.add(task_usage(thread))
    return usage


def release_task(task: Task) -> None:
    """Forget a dead thread: its number is free.  The last other thread of a dead leader lets the parent know."""
    kernel = task.kernel
    signal = task.signal
    leader = signal.group_leader
    pids = kernel.pids
    signal.dead_threads.add(task_usage(task))
    del signal.threads[task]
    pids.tasks.pop(task.pid, None)
    pids.charge_user(task.creds.uid, -1)
    flush_sigqueue_mask(task, ALL_SIGNALS, task.pending)
    task.sighand.refs -= 1
    task.state = TaskState.DEAD
    if signal.curr_target is task:
        signal.curr_target = leader
    if task is leader:
        flush_sigqueue_mask(task, ALL_SIGNALS, signal.shared_pending)
        signal.shared_pending = SigPending()
        pids.leave(task)
        task.parent.children.pop(task, None)
    elif signal.nr_threads == 1 and leader.state is TaskState.ZOMBIE and do_notify_parent(leader):
        release_task(leader)
