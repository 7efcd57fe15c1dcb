"""``struct task_struct`` and what the threads of a process share: ``signal_struct`` and ``sighand_struct``.

Models ``include/linux/sched.h`` and ``include/linux/sched/signal.h``.  Data and trivial accessors; behaviour is in
fork.py, exec.py, exit.py, wait.py, signal.py and deliver.py.

Invariants:

* ``signal.threads`` holds every thread that has not been released, the leader first until it is replaced by exec; a
  thread group exists as long as its leader has not been released.
* A task is in ``sched.runnable`` only in state RUNNING; it is on wait queues only in INTERRUPTIBLE or KILLABLE.
* ``TIF_SIGPENDING`` in ``exit_work`` is set whenever an unblocked signal or a group stop waits for the task.
* ``children`` of a task lists thread-group leaders whose ``parent`` is that very thread.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from kernel.abi.signal import SIG_DFL, SIGCHLD, SS_DISABLE, SigInfo
from kernel.task.waitqueue import Sleep, WaitQueue, WakeReason

if TYPE_CHECKING:
    from kernel.fs.files import FilesStruct, FsStruct
    from kernel.hardware import Registers
    from kernel.kernel import Kernel
    from kernel.mm.types import MmStruct
    from kernel.task.cpu_timers import CpuTimer
    from kernel.task.cred import Cred
    from kernel.task.itimers import CpuItimer
    from kernel.task.posix_timers import PosixTimer
    from kernel.task.timers import Timer

COMM_LEN = 16

# Task.exit_work: why the way back to user mode is not the short one (TIF_* of arch/x86/include/asm/thread_info.h).
TIF_SIGPENDING = 1
TIF_NEED_RESCHED = 2
TIF_NOTIFY_RESUME = 4
TIF_RESTORE_SIGMASK = 8
TIF_EXITED = 16
TIF_SYSCALL_TRACE = 32
"""A traced call is under way: its end is to be told (SYSCALL_WORK_SYSCALL_TRACEPOINT)."""
"""The task is dead: the processor must leave it."""

# SignalStruct.flags
SIGNAL_STOP_STOPPED = 0x1
SIGNAL_STOP_CONTINUED = 0x2
SIGNAL_GROUP_EXIT = 0x4
SIGNAL_CLD_STOPPED = 0x10
SIGNAL_CLD_CONTINUED = 0x20
SIGNAL_CLD_MASK = SIGNAL_CLD_STOPPED | SIGNAL_CLD_CONTINUED
SIGNAL_UNKILLABLE = 0x40
SIGNAL_STOP_MASK = SIGNAL_CLD_MASK | SIGNAL_STOP_STOPPED | SIGNAL_STOP_CONTINUED


class TaskState(IntEnum):
    """What a task is doing.  The letters of /proc/PID/stat are in :data:`STATE_LETTERS`."""

    RUNNING = 0
    """Running or waiting for the processor."""
    INTERRUPTIBLE = 1
    KILLABLE = 2
    """Sleeping; only a fatal signal ends the sleep early."""
    STOPPED = 3
    ZOMBIE = 4
    DEAD = 5
    """Released; nobody can find it any more."""


STATE_LETTERS = "RSDTZX"


class SigPending:
    """Signals that wait: ``signal`` is the set, ``queue`` the records (oldest first; a signal may have none)."""

    __slots__ = ("queue", "signal")

    def __init__(self) -> None:
        self.queue: list[SigInfo] = []
        self.signal = 0


class SigAction:
    """``struct k_sigaction``."""

    __slots__ = ("flags", "handler", "mask", "restorer")

    def __init__(self, handler: int = SIG_DFL, flags: int = 0, restorer: int = 0, mask: int = 0) -> None:
        self.handler = handler
        self.flags = flags
        self.restorer = restorer
        self.mask = mask

    def copy(self) -> SigAction:
        return SigAction(self.handler, self.flags, self.restorer, self.mask)


class Sighand:
    """``struct sighand_struct``: the table of signal actions (shared with CLONE_SIGHAND)."""

    __slots__ = ("action", "refs", "signalfd_wqh")

    def __init__(self) -> None:
        self.action = [SigAction() for _ in range(64)]
        """Indexed by ``sig - 1``."""
        self.signalfd_wqh = WaitQueue()
        """Woken when a signal is sent to one of the tasks: signalfds poll on it."""
        self.refs = 1

    def copy(self) -> Sighand:
        new = Sighand()
        new.action = [action.copy() for action in self.action]
        return new


class Usage:
    """What tasks have used: the sums that getrusage and times show.  CPU time in ns, the rest are counts."""

    __slots__ = ("inblock", "majflt", "maxrss_pages", "minflt", "nivcsw", "nvcsw", "oublock", "stime_ns", "utime_ns")

    def __init__(self) -> None:
        self.utime_ns = 0
        self.stime_ns = 0
        self.minflt = 0
        self.majflt = 0
        self.nvcsw = 0
        self.nivcsw = 0
        self.inblock = 0
        self.oublock = 0
        self.maxrss_pages = 0

    def add(self, other: Usage) -> None:
        for name in ("utime_ns", "stime_ns", "minflt", "majflt", "nvcsw", "nivcsw", "inblock", "oublock"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.maxrss_pages = max(self.maxrss_pages, other.maxrss_pages)


class SignalStruct:
    """``struct signal_struct``: what all threads of a process share, apart from memory and files."""

    def __init__(self, leader: Task, rlimits: list[tuple[int, int]]) -> None:
        self.group_leader = leader
        self.threads: dict[Task, None] = {}
        self.nr_live = 0
        """Threads that have not begun to exit."""
        self.shared_pending = SigPending()
        self.flags = 0
        self.group_exit_code = 0
        self.group_stop_count = 0
        self.curr_target: Task = leader
        """The thread that took the last signal sent to the process."""

        self.wait_chldexit = WaitQueue()
        self.wait_pidfd = WaitQueue()
        """Woken when the process has exited: pidfds poll on it."""
        self.pgrp = 0
        self.session = 0
        self.tty: Any = None
        """The controlling terminal (kernel/fs/tty.py) or None."""
        self.tty_old_pgrp = 0
        self.rlimits = rlimits
        """(soft, hard) by RLIMIT_*."""
        self.is_child_subreaper = False
        self.has_child_subreaper = False
        self.oom_score_adj = 0
        self.dead_threads = Usage()
        """Threads that were released."""
        self.children_usage = Usage()
        """Children that were waited for."""
        self.real_timer: Timer | None = None
        self.real_interval_ns = 0
        self.virt_timer: CpuItimer | None = None
        self.prof_timer: CpuItimer | None = None
        self.posix_timers: dict[int, PosixTimer] = {}
        self.next_posix_timer_id = 0
        self.cpu_timers: list[CpuTimer] = []
        """Armed deadlines on CPU clocks of this process or its threads."""
        self.cpu_event: Timer | None = None
        """The kernel timer that looks at them, armed while a thread of the process has the processor."""
        self.rlimit_timer: CpuTimer | None = None

    @property
    def is_session_leader(self) -> bool:
        return self.session == self.group_leader.pid

    @property
    def nr_threads(self) -> int:
        return len(self.threads)


class Rseq:
    """A registered restartable-sequences area (rseq(2)); ``signature`` stands before every abort handler."""

    __slots__ = ("address", "length", "signature")

    def __init__(self, address: int, length: int, signature: int) -> None:
        self.address = address
        self.length = length
        self.signature = signature


class Task:
    """``struct task_struct``: one thread.  Made by fork.py only.  Compared by identity."""

    def __init__(self, kernel: Kernel, pid: int, creds: Cred, regs: Registers) -> None:
        self.kernel = kernel
        self.pid = pid
        """The thread's number (Linux's pid, gettid's tid)."""
        self.tgid = pid
        self.comm = ""
        self.state = TaskState.RUNNING
        self.exit_work = 0
        """TIF_* bits; anything but 0 sends the task through deliver.exit_to_user_mode."""
        self.syscall_nr = -1
        """The call that the task is in (set by kernel/entry.py), -1 when it came in otherwise: decides on restarts."""
        self.regs = regs
        self.creds = creds
        self.mm: MmStruct | None = None
        """None only for init, which has no user memory, and for tasks that have exited."""
        self._files: FilesStruct | None = None
        self._fs: FsStruct | None = None
        self.signal: SignalStruct
        self.sighand: Sighand
        self.blocked = 0
        """Signals that are held back, as a set."""
        self.real_blocked = 0
        """The mask before sigtimedwait opened it."""
        self.saved_sigmask = 0
        """What TIF_RESTORE_SIGMASK restores (sigsuspend, ppoll ...)."""
        self.pending = SigPending()
        self.jobctl_stop_signal = 0
        """Not 0: a group stop for this signal waits for this thread (JOBCTL_STOP_PENDING)."""
        self.jobctl_stop_consume = False
        """This thread still counts in ``group_stop_count``."""
        self.sas_ss_sp = 0
        self.sas_ss_size = 0
        self.sas_ss_flags = SS_DISABLE
        self.restart_block: Callable[[Task], Any] | None = None
        """What restart_syscall(2) runs."""
        # what the last fault looked like (struct thread_struct), for signal frames
        self.error_code = 0
        self.trap_nr = 0
        self.cr2 = 0
        # family
        self.parent: Task
        self.children: dict[Task, None] = {}
        self.exit_signal = SIGCHLD
        """Sent to the parent at exit; -1 for threads that are not leaders; 0 for none."""
        self.pdeath_signal = 0
        self.exit_code = 0
        """The status word that wait(2) shows."""
        self.exiting = False
        # sleeping
        self.queues: tuple[WaitQueue, ...] = ()
        self.sleep_timer: Timer | None = None
        self.wake_reason = WakeReason.EVENT
        self.on_rq = False
        self.continuation: Generator[Sleep, WakeReason, Any] | None = None
        """The handler that sleeps; driven by kernel/entry.py."""
        self.vfork_done: WaitQueue | None = None
        """Woken (and set to None) when this task lets go of its parent's memory."""
        # addresses that exit and exec write to
        self.set_child_tid = 0
        self.clear_child_tid = 0
        self.robust_list = 0
        self.rseq: Rseq | None = None
        # accounting
        self.start_ns = kernel.clock.now_ns()
        self.utime_ns = 0
        self.stime_ns = 0
        self.min_flt = 0
        self.maj_flt = 0
        self.nvcsw = 0
        self.nivcsw = 0
        self.inblock = 0
        self.oublock = 0
        # scheduling parameters: kept and shown, but every task gets the same share
        self.policy = 0
        self.nice = 0
        self.rt_priority = 0
        self.reset_on_fork = False
        self.ioprio = 0
        # prctl
        self.no_new_privs = False
        self.personality = 0
        self.timer_slack_ns = 50_000
        self.default_timer_slack_ns = 50_000
        self.tsc_mode = 1
        self.io_flusher = False
        self.thp_disable = False
        self.did_exec = False

    @property
    def files(self) -> FilesStruct:
        """The descriptor table.  Only tasks that have exited have none."""
        assert self._files is not None
        return self._files

    @files.setter
    def files(self, files: FilesStruct) -> None:
        self._files = files

    @property
    def fs(self) -> FsStruct:
        assert self._fs is not None
        return self._fs

    @fs.setter
    def fs(self, fs: FsStruct) -> None:
        self._fs = fs

    @property
    def group_leader(self) -> Task:
        return self.signal.group_leader

    @property
    def is_group_leader(self) -> bool:
        return self.exit_signal >= 0

    def rlimit(self, resource: int) -> int:
        """The soft limit for RLIMIT_*."""
        return self.signal.rlimits[resource][0]

    def wake(self, reason: WakeReason = WakeReason.EVENT) -> bool:
        """End a sleep (not a job-control stop); False when the task was not sleeping."""
        if self.state is not TaskState.INTERRUPTIBLE and self.state is not TaskState.KILLABLE:
            return False
        for queue in self.queues:
            queue.waiters.pop(self, None)
        self.queues = ()
        if self.sleep_timer is not None:
            self.sleep_timer.cancel()
            self.sleep_timer = None
        self.wake_reason = reason
        self.kernel.sched.enqueue(self)
        return True

    @property
    def state_letter(self) -> str:
        """The letter of /proc/PID/stat."""
        return STATE_LETTERS[self.state]

    def __repr__(self) -> str:
        return f"<Task {self.pid} {self.comm!r} {self.state.name}>"
