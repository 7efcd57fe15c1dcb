"""Process numbers: allocation, and who is in which process group and session.

Models ``kernel/pid.c``.  Numbers are given out in ascending order and wrap around at ``pid_max``, like Linux's cyclic
allocation; a number stays taken while it names a task, a process group or a session.

Invariants: every task that has not been released is in ``tasks`` under its pid; every thread-group leader is in
exactly one group of ``pgrps`` and one of ``sessions``; no empty group is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.abi.errno import Errno, KernelError

if TYPE_CHECKING:
    from kernel.task.task import Task

RESERVED_PIDS = 300
"""After wrap-around, numbers below this are not used again."""
PID_MAX_DEFAULT = 32768


class PidTable:
    """All numbers in use."""

    def __init__(self) -> None:
        self.tasks: dict[int, Task] = {}
        """Every thread by its tid, zombies included."""
        self.pgrps: dict[int, dict[Task, None]] = {}
        """Thread-group leaders by process group, oldest member first."""
        self.sessions: dict[int, dict[Task, None]] = {}
        self.nr_user_tasks: dict[int, int] = {}
        """Tasks by real uid, for RLIMIT_NPROC."""
        self.nr_sigqueue: dict[int, int] = {}
        """Queued signals by real uid of the receiver, for RLIMIT_SIGPENDING."""
        self.last_pid = 0
        self.nr_forks = 0

    def in_use(self, nr: int) -> bool:
        return nr in self.tasks or nr in self.pgrps or nr in self.sessions

    def alloc(self, pid_max: int = PID_MAX_DEFAULT) -> int:
        """The next free number; EAGAIN when all are taken."""
        if len(self.tasks) >= pid_max - 1:
            raise KernelError(Errno.EAGAIN, "no process number is free")
        nr = self.last_pid
        for _ in range(pid_max):
            nr += 1
            if nr >= pid_max:
                nr = RESERVED_PIDS
            if not self.in_use(nr):
                self.last_pid = nr
                return nr
        raise KernelError(Errno.EAGAIN, "no process number is free")

    def take(self, nr: int, pid_max: int = PID_MAX_DEFAULT) -> int:
        """The number that clone3's set_tid asks for."""
        if nr <= 0 or nr >= pid_max:
            raise KernelError(Errno.EINVAL, f"set_tid {nr} is out of range")
        if self.in_use(nr):
            raise KernelError(Errno.EEXIST, f"process number {nr} is taken")
        return nr

    def join_pgrp(self, leader: Task, pgrp: int) -> None:
        """Move a thread group (by its leader) into process group ``pgrp``."""
        self._leave(self.pgrps, leader.signal.pgrp, leader)
        leader.signal.pgrp = pgrp
        self.pgrps.setdefault(pgrp, {})[leader] = None

    def join_session(self, leader: Task, session: int) -> None:
        self._leave(self.sessions, leader.signal.session, leader)
        leader.signal.session = session
        self.sessions.setdefault(session, {})[leader] = None

    def leave(self, leader: Task) -> None:
        """The thread group is released: it is in no group any more."""
        self._leave(self.pgrps, leader.signal.pgrp, leader)
        self._leave(self.sessions, leader.signal.session, leader)

    def replace_leader(self, old: Task, new: Task) -> None:
        """execve by another thread than the leader: ``new`` stands for the group from now on, in the same place."""
        for table, nr in ((self.pgrps, old.signal.pgrp), (self.sessions, old.signal.session)):
            table[nr] = {new if member is old else member: None for member in table[nr]}

    @staticmethod
    def _leave(table: dict[int, dict[Task, None]], nr: int, leader: Task) -> None:
        members = table.get(nr)
        if members is None:
            return
        members.pop(leader, None)
        if not members:
            del table[nr]

    def pgrp_members(self, pgrp: int) -> list[Task]:
        return list(self.pgrps.get(pgrp, ()))

    def session_members(self, session: int) -> list[Task]:
        return list(self.sessions.get(session, ()))

    def thread_group_leaders(self) -> list[Task]:
        """All processes, zombies included, in the order in which they were made."""
        return [task for task in self.tasks.values() if task.pid == task.tgid]

    def charge_user(self, uid: int, nr_tasks: int) -> None:
        count = self.nr_user_tasks.get(uid, 0) + nr_tasks
        if count:
            self.nr_user_tasks[uid] = count
        else:
            self.nr_user_tasks.pop(uid, None)
