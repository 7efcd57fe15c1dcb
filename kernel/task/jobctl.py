"""Stopping and continuing: telling the parent, counting the threads that have stopped.

Models ``do_notify_parent_cldstop`` and ``task_participate_group_stop`` of ``kernel/signal.c``.
"""

from __future__ import annotations

from kernel.abi.signal import (
    CLD_CONTINUED,
    CLD_STOPPED,
    SA_NOCLDSTOP,
    SIG_IGN,
    SIGCHLD,
    SIGCONT,
    SigInfo,
)
from kernel.abi.time import NS_PER_TICK
from kernel.task.signal import send_signal
from kernel.task.task import SIGNAL_STOP_MASK, SIGNAL_STOP_STOPPED, Task


def do_notify_parent_cldstop(task: Task, why: int) -> None:
    """SIGCHLD (unless SA_NOCLDSTOP) and a wake-up for the parent: the process stopped or continued."""
    leader = task.signal.group_leader
    parent = leader.parent
    info = SigInfo(SIGCHLD, why, pid=leader.pid, uid=leader.creds.uid)
    info.utime, info.stime = leader.utime_ns // NS_PER_TICK, leader.stime_ns // NS_PER_TICK
    if why == CLD_STOPPED:
        info.status = task.signal.group_exit_code & 0x7F
    elif why == CLD_CONTINUED:
        info.status = SIGCONT
    action = parent.sighand.action[SIGCHLD - 1]
    if action.handler != SIG_IGN and not action.flags & SA_NOCLDSTOP:
        send_signal(parent, info)
    parent.signal.wait_chldexit.wake_up()


def leave_group_stop(task: Task) -> bool:
    """task_participate_group_stop(): one thread less to wait for; True when the process has now stopped."""
    signal = task.signal
    if signal.group_stop_count > 0:
        signal.group_stop_count -= 1
    if signal.group_stop_count or signal.flags & SIGNAL_STOP_STOPPED:
        return False
    signal.flags = signal.flags & ~SIGNAL_STOP_MASK | SIGNAL_STOP_STOPPED
    return True
