"""CPU clocks, and timers on them.

Models ``kernel/time/posix-cpu-timers.c``.  A timer on a CPU clock can only become due while a thread of its process has
the processor, so a kernel timer is armed when one gets it, for the earliest moment at which any of them may be due.

Deliberate difference: RLIMIT_RTTIME does nothing (there is no real-time scheduling).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kernel.abi.resource import RLIM_INFINITY, RLIMIT_CPU
from kernel.abi.signal import SIGKILL, SIGXCPU
from kernel.abi.time import CPUCLOCK_VIRT, NS_PER_SEC

if TYPE_CHECKING:
    from kernel.task.task import SignalStruct, Task


def thread_sample_ns(task: Task, clock: int) -> int:
    """What CPU clock ``clock`` (CPUCLOCK_*) of one thread shows."""
    task.kernel.sched.update_curr()
    return task.utime_ns if clock == CPUCLOCK_VIRT else task.utime_ns + task.stime_ns


def process_sample_ns(signal: SignalStruct, clock: int) -> int:
    """The same for a process: all threads, released ones included."""
    signal.group_leader.kernel.sched.update_curr()
    dead = signal.dead_threads
    total = dead.utime_ns
    if clock != CPUCLOCK_VIRT:
        total += dead.stime_ns
    for thread in signal.threads:
        total += thread.utime_ns
        if clock != CPUCLOCK_VIRT:
            total += thread.stime_ns
    return total


class CpuTimer:
    """One armed deadline on a CPU clock.  ``function`` is called once with what the clock shows then."""

    __slots__ = ("active", "clock", "expires_ns", "function", "signal", "thread")

    def __init__(
        self, signal: SignalStruct, thread: Task | None, clock: int, expires_ns: int, function: Callable[[int], None]
    ) -> None:
        self.signal = signal
        self.thread = thread
        """The one thread whose clock counts; None for the whole process."""
        self.clock = clock
        self.expires_ns = expires_ns
        self.function = function
        self.active = True
        signal.cpu_timers.append(self)
        arm_cpu_event(signal)

    def sample_ns(self) -> int:
        if self.thread is not None:
            return thread_sample_ns(self.thread, self.clock)
        return process_sample_ns(self.signal, self.clock)

    def cancel(self) -> None:
        """Idempotent."""
        if self.active:
            self.active = False
            self.signal.cpu_timers.remove(self)


def arm_cpu_event(signal: SignalStruct) -> None:
    """If a thread of the process has the processor, look again when its first CPU timer may be due."""
    event = signal.cpu_event
    if event is not None:
        event.cancel()
        signal.cpu_event = None
    if not signal.cpu_timers:
        return
    kernel = signal.group_leader.kernel
    current = kernel.sched.current
    if current is None or current.signal is not signal:
        return
    left_ns = min(timer.expires_ns - timer.sample_ns() for timer in signal.cpu_timers)
    deadline_ns = kernel.clock.now_ns() + max(left_ns, 1)
    signal.cpu_event = kernel.timers.add(deadline_ns, lambda: _check(signal))


def _check(signal: SignalStruct) -> None:
    signal.cpu_event = None
    for timer in list(signal.cpu_timers):
        now_ns = timer.sample_ns()
        if timer.active and timer.expires_ns <= now_ns:
            timer.cancel()
            timer.function(now_ns)
    arm_cpu_event(signal)


# ---- RLIMIT_CPU ----------------------------------------------------------------------------------


def update_rlimit_cpu(signal: SignalStruct) -> None:
    """The limit was set or inherited: SIGXCPU when it is reached and every second after, SIGKILL at the hard limit."""
    if signal.rlimit_timer is not None:
        signal.rlimit_timer.cancel()
        signal.rlimit_timer = None
    soft, hard = signal.rlimits[RLIMIT_CPU]
    first = min(soft, hard)
    if first == RLIM_INFINITY:
        return
    signal.rlimit_timer = CpuTimer(signal, None, 0, first * NS_PER_SEC, lambda now_ns: _limit_reached(signal, now_ns))


def _limit_reached(signal: SignalStruct, now_ns: int) -> None:
    from kernel.task.signal import send_sig

    signal.rlimit_timer = None
    soft, hard = signal.rlimits[RLIMIT_CPU]
    leader = signal.group_leader
    if hard != RLIM_INFINITY and now_ns >= hard * NS_PER_SEC:
        send_sig(leader, SIGKILL, group=True)
        return
    if now_ns >= soft * NS_PER_SEC:
        send_sig(leader, SIGXCPU, group=True)
        signal.rlimits[RLIMIT_CPU] = (now_ns // NS_PER_SEC + 1, hard)
    update_rlimit_cpu(signal)
