"""One task signals others: kill, tkill, sigqueue, and who may do so.

Models ``check_kill_permission``, ``kill_something_info`` and their kin of ``kernel/signal.c``.
Manual: kill(2), tgkill(2).
"""

from __future__ import annotations

from kernel.abi.capability import Cap
from kernel.abi.errno import Errno, KernelError
from kernel.abi.signal import SI_TKILL, SI_USER, SIGCONT, SigInfo
from kernel.task.cred import capable
from kernel.task.signal import send_signal
from kernel.task.task import Task


def user_info(sender: Task, sig: int, code: int = SI_USER) -> SigInfo:
    return SigInfo(sig, code, pid=sender.tgid, uid=sender.creds.uid)


def check_kill_permission(sender: Task, sig: int, target: Task) -> None:
    """EPERM unless ``sender`` may send ``sig`` to ``target``'s process."""
    if sender.signal is target.signal:
        return
    mine, theirs = sender.creds, target.creds
    if mine.euid in (theirs.suid, theirs.uid) or mine.uid in (theirs.suid, theirs.uid) or capable(sender, Cap.CAP_KILL):
        return
    if sig == SIGCONT and sender.signal.session == target.signal.session:
        return
    raise KernelError(Errno.EPERM, f"may not signal process {target.tgid}")


def group_send_sig_info(sender: Task, info: SigInfo, target: Task) -> None:
    """One process; signal 0 tests only."""
    check_kill_permission(sender, info.signo, target)
    if info.signo:
        send_signal(target, info)


def kill_pid_info(sender: Task, info: SigInfo, pid: int) -> None:
    target = sender.kernel.tasks.get(pid)
    if target is None:
        raise KernelError(Errno.ESRCH, f"no process {pid}")
    group_send_sig_info(sender, info, target)


def kill_pgrp_info(sender: Task, sig: int, pgrp: int) -> None:
    """Every process of the group; ESRCH if it has none, and an error only if nobody could be signalled."""
    members = sender.kernel.pids.pgrp_members(pgrp)
    if not members:
        raise KernelError(Errno.ESRCH, f"no process group {pgrp}")
    _signal_each(sender, sig, members)


def _signal_each(sender: Task, sig: int, members: list[Task]) -> None:
    error: KernelError | None = None
    succeeded = False
    for member in members:
        try:
            group_send_sig_info(sender, user_info(sender, sig), member)
            succeeded = True
        except KernelError as refused:
            error = refused
    if error is not None and not succeeded:
        raise error


def kill_something_info(sender: Task, sig: int, pid: int) -> None:
    """kill(2): ``pid`` > 0 a process, 0 the caller's group, -1 all processes, below that a group."""
    if pid > 0:
        kill_pid_info(sender, user_info(sender, sig), pid)
    elif pid == -0x8000_0000:
        raise KernelError(Errno.ESRCH, "-pid would overflow")
    elif pid != -1:
        kill_pgrp_info(sender, sig, -pid if pid else sender.signal.pgrp)
    else:
        others = [t for t in sender.kernel.pids.thread_group_leaders() if t.pid > 1 and t.signal is not sender.signal]
        if not others:
            raise KernelError(Errno.ESRCH, "there is no other process")
        _kill_all(sender, sig, others)


def _kill_all(sender: Task, sig: int, others: list[Task]) -> None:
    """kill(-1): Linux keeps the last error that is not EPERM."""
    error: KernelError | None = None
    for target in others:
        try:
            group_send_sig_info(sender, user_info(sender, sig), target)
        except KernelError as refused:
            if refused.errno != Errno.EPERM:
                error = refused
    if error is not None:
        raise error


def send_specific(sender: Task, tgid: int, tid: int, info: SigInfo) -> None:
    """tkill, tgkill, rt_tgsigqueueinfo: one thread (of process ``tgid`` unless that is 0)."""
    target = sender.kernel.tasks.get(tid)
    if target is None or (tgid > 0 and target.tgid != tgid):
        raise KernelError(Errno.ESRCH, f"no thread {tid}")
    check_kill_permission(sender, info.signo, target)
    if info.signo:
        send_signal(target, info, group=False)


def tkill_info(sender: Task, sig: int) -> SigInfo:
    return user_info(sender, sig, SI_TKILL)
