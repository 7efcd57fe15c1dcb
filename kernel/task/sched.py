"""Who runs next; sleeping and waking.

Models ``kernel/sched/core.c`` with one processor and one queue: deterministic round robin.  A task runs for a quantum
of basic blocks (the run loop's business), then goes to the end of the queue; a task that wakes up goes to the end of
the queue too and never pre-empts.

Invariant: ``current`` is never in ``runnable``; every other task in state RUNNING is in it exactly once.

Deliberate difference: priorities and policies are kept and shown but change nothing.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from kernel.task.cpu_timers import arm_cpu_event
from kernel.task.task import (
    TIF_NEED_RESCHED,
    TIF_NOTIFY_RESUME,
    TIF_SIGPENDING,
    Task,
    TaskState,
)
from kernel.task.waitqueue import Sleep, WakeReason
from kernel.trace import Tracepoint

if TYPE_CHECKING:
    from kernel.kernel import Kernel

SCHED_SWITCH = Tracepoint("sched:sched_switch", "prev next")
"""``prev`` or ``next`` is None when the processor was, or becomes, idle."""
SCHED_WAKEUP = Tracepoint("sched:sched_wakeup", "task reason")
SCHED_SLEEP = Tracepoint("sched:sched_sleep", "task deadline_ns queues")


class Scheduler:
    """The run queue of the one processor."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.runnable: deque[Task] = deque()
        self.current: Task | None = None
        self.last: Task | None = None
        """Who ran before; not None keeps a switch back to the same task from counting."""
        self.nr_switches = 0
        self._exec_start_ns = 0
        self._charged_start_ns = 0

    # ---- the queue -------------------------------------------------------------------------------

    def enqueue(self, task: Task) -> None:
        """``task`` can run: put it at the end of the queue."""
        task.state = TaskState.RUNNING
        if not task.on_rq and task is not self.current:
            task.on_rq = True
            self.runnable.append(task)
            if SCHED_WAKEUP.on:
                SCHED_WAKEUP.emit(task, task.wake_reason)

    def dequeue(self, task: Task) -> None:
        """``task`` cannot run any more (stopped or dead)."""
        if task.on_rq:
            task.on_rq = False
            self.runnable.remove(task)
        if self.current is task:
            self.update_curr()
            self.current = None

    def pick_next(self) -> Task | None:
        """Make the longest waiting task ``current`` and return it; None when all sleep.

        The task that was current is put at the end of the queue first if it can still run.
        """
        previous = self.current
        if previous is not None:
            self.update_curr()
            self.current = None
            if previous.state is TaskState.RUNNING:
                self._requeue(previous)
        task = self.runnable.popleft() if self.runnable else None
        if task is None:
            if SCHED_SWITCH.on and self.last is not None:
                SCHED_SWITCH.emit(self.last, None)
            self.last = None
            return None
        task.on_rq = False
        task.exit_work &= ~TIF_NEED_RESCHED
        self.current = task
        if task is not self.last:
            self.nr_switches += 1
            if SCHED_SWITCH.on:
                SCHED_SWITCH.emit(self.last, task)
            if task.rseq is not None:
                task.exit_work |= TIF_NOTIFY_RESUME
            self.last = task
        clock = self.kernel.clock
        self._exec_start_ns = clock.now_ns()
        self._charged_start_ns = clock.charged_ns
        if task.signal.cpu_timers:
            arm_cpu_event(task.signal)
        return task

    def _requeue(self, task: Task) -> None:
        if self.runnable:
            task.nivcsw += 1
        task.on_rq = True
        self.runnable.append(task)

    def resched(self, task: Task) -> None:
        """Ask that ``task`` leaves the processor at the next way back to user mode (sched_yield, a used-up quantum)."""
        task.exit_work |= TIF_NEED_RESCHED

    @property
    def nr_running(self) -> int:
        return len(self.runnable) + (self.current is not None)

    # ---- accounting ------------------------------------------------------------------------------

    def update_curr(self) -> None:
        """Charge the current task for its time on the processor up to now.

        What the clock was charged with outside executed blocks is system time, the rest user time.
        """
        task = self.current
        if task is None:
            return
        clock = self.kernel.clock
        now_ns = clock.now_ns()
        delta_ns = now_ns - self._exec_start_ns
        system_ns = min(clock.charged_ns - self._charged_start_ns, delta_ns)
        self._exec_start_ns = now_ns
        self._charged_start_ns = clock.charged_ns
        task.stime_ns += system_ns
        task.utime_ns += delta_ns - system_ns

    # ---- sleeping --------------------------------------------------------------------------------

    def park(self, task: Task, sleep: Sleep) -> WakeReason | None:
        """Put ``task`` to sleep as its handler asks.

        None: it sleeps; when it runs again, ``task.wake_reason`` says why.  Otherwise it must not sleep at all: send
        the reason into its handler at once (a signal is waiting, the deadline has passed).
        """
        if task.exit_work & TIF_SIGPENDING and (not sleep.killable_only or fatal_signal_pending(task)):
            return WakeReason.SIGNAL
        kernel = self.kernel
        deadline_ns = sleep.deadline_ns
        if deadline_ns is not None:
            if deadline_ns <= kernel.clock.now_ns():
                return WakeReason.TIMEOUT
            task.sleep_timer = kernel.timers.add(deadline_ns, lambda: _time_out(task))
        task.queues = sleep.queues
        for queue in sleep.queues:
            queue.waiters[task] = None
        if self.current is task:
            self.update_curr()
            self.current = None
        elif task.on_rq:
            self.dequeue(task)
        task.state = TaskState.KILLABLE if sleep.killable_only else TaskState.INTERRUPTIBLE
        task.nvcsw += 1
        if SCHED_SLEEP.on:
            SCHED_SLEEP.emit(task, deadline_ns, sleep.queues)
        return None


def _time_out(task: Task) -> None:
    task.sleep_timer = None
    task.wake(WakeReason.TIMEOUT)


def fatal_signal_pending(task: Task) -> bool:
    """A SIGKILL waits for ``task`` (every fatal signal becomes one when it is sent)."""
    return task.pending.signal >> 8 & 1 != 0
