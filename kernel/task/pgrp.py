"""Orphaned process groups.

Models ``will_become_orphaned_pgrp`` and ``kill_orphaned_pgrp`` of ``kernel/exit.c``: a group that nobody outside can
continue any more does not stop for the terminal, and gets SIGHUP and SIGCONT if it has stopped.
"""

from __future__ import annotations

from kernel.abi.signal import SIGCONT, SIGHUP
from kernel.task.signal import kill_pgrp
from kernel.task.task import SIGNAL_STOP_STOPPED, Task, TaskState


def will_become_orphaned_pgrp(task: Task, pgrp: int, ignored: Task | None) -> bool:
    """Has no member but ``ignored`` a parent outside the group and inside the session?"""
    kernel = task.kernel
    for member in kernel.pids.pgrp_members(pgrp):
        if member is ignored or (member.state >= TaskState.ZOMBIE and member.signal.nr_threads <= 1):
            continue
        parent = member.parent
        if parent is kernel.init_task:
            continue
        if parent.signal.pgrp != pgrp and parent.signal.session == member.signal.session:
            return False
    return True


def is_current_pgrp_orphaned(task: Task) -> bool:
    return will_become_orphaned_pgrp(task, task.signal.pgrp, None)


def kill_orphaned_pgrp(task: Task, parent: Task | None) -> None:
    """``task`` exits (``parent`` is None), or its parent ``parent`` does: wake its group if that orphans it."""
    pgrp = task.signal.pgrp
    ignored: Task | None = None
    if parent is None:
        parent = task.parent
        ignored = task
    if parent.signal.pgrp == pgrp or parent.signal.session != task.signal.session:
        return
    if not will_become_orphaned_pgrp(task, pgrp, ignored):
        return
    members = task.kernel.pids.pgrp_members(pgrp)
    if any(member.signal.flags & SIGNAL_STOP_STOPPED for member in members):
        kill_pgrp(task.kernel, pgrp, SIGHUP)
        kill_pgrp(task.kernel, pgrp, SIGCONT)
