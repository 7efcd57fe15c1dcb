"""POSIX per-process timers, and what the clocks show.

Models ``kernel/time/posix-timers.c``.  Manual: timer_create(2), timer_settime(2), clock_gettime(2).

A periodic timer is not re-armed when it expires but when its signal is taken; the periods that passed in between
are the overrun.  If the signal is ignored, it is re-armed at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.abi.errno import Errno, KernelError
from kernel.abi.signal import SI_TIMER, SIGEV_NONE, SigInfo
from kernel.abi.time import (
    CLOCK_BOOTTIME,
    CLOCK_BOOTTIME_ALARM,
    CLOCK_MONOTONIC,
    CLOCK_MONOTONIC_COARSE,
    CLOCK_MONOTONIC_RAW,
    CLOCK_PROCESS_CPUTIME_ID,
    CLOCK_REALTIME,
    CLOCK_REALTIME_ALARM,
    CLOCK_REALTIME_COARSE,
    CLOCK_TAI,
    CLOCK_THREAD_CPUTIME_ID,
    CPUCLOCK_CLOCK_MASK,
    CPUCLOCK_PERTHREAD_MASK,
    CPUCLOCK_SCHED,
    NS_PER_JIFFY,
)
from kernel.task.cpu_timers import CpuTimer, process_sample_ns, thread_sample_ns
from kernel.task.signal import send_sigqueue
from kernel.task.task import TaskState

if TYPE_CHECKING:
    from kernel.kernel import Kernel
    from kernel.task.task import SignalStruct, Task
    from kernel.task.timers import Timer

REALTIME_CLOCKS = frozenset((CLOCK_REALTIME, CLOCK_REALTIME_COARSE, CLOCK_REALTIME_ALARM, CLOCK_TAI))
MONOTONIC_CLOCKS = frozenset(
    (CLOCK_MONOTONIC, CLOCK_MONOTONIC_RAW, CLOCK_MONOTONIC_COARSE, CLOCK_BOOTTIME, CLOCK_BOOTTIME_ALARM)
)
COARSE_CLOCKS = frozenset((CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE))
TIMER_CLOCKS = frozenset((CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_TAI))
"""Clocks one can sleep and arm timers on; the alarm clocks need a real-time clock chip, which the machine has not."""
OVERRUN_MAX = 0x7FFF_FFFF


class CpuClock:
    """A decoded CPU clock: of one thread, or of a process (``thread`` is None)."""

    __slots__ = ("clock", "signal", "thread")

    def __init__(self, signal: SignalStruct, thread: Task | None, clock: int) -> None:
        self.signal = signal
        self.thread = thread
        self.clock = clock

    def now_ns(self) -> int:
        if self.thread is not None:
            return thread_sample_ns(self.thread, self.clock)
        return process_sample_ns(self.signal, self.clock)


def cpu_clock_of(task: Task, clockid: int) -> CpuClock | None:
    """The CPU clock that ``clockid`` names; None if it names another one.  EINVAL: no such task, or no clock at all."""
    if clockid == CLOCK_PROCESS_CPUTIME_ID:
        return CpuClock(task.signal, None, CPUCLOCK_SCHED)
    if clockid == CLOCK_THREAD_CPUTIME_ID:
        return CpuClock(task.signal, task, CPUCLOCK_SCHED)
    if clockid >= 0:
        return None
    clock = clockid & CPUCLOCK_CLOCK_MASK
    if clock > CPUCLOCK_SCHED:
        raise KernelError(Errno.EINVAL, "clocks of descriptors are not supported")
    pid = ~(clockid >> 3)
    target = task if pid == 0 else task.kernel.tasks.get(pid)
    if target is None:
        raise KernelError(Errno.EINVAL, f"no task {pid}")
    if clockid & CPUCLOCK_PERTHREAD_MASK:
        if target.signal is not task.signal:
            raise KernelError(Errno.EINVAL, "a thread of another process")
        return CpuClock(target.signal, target, clock)
    if pid and target is not target.signal.group_leader and target is not task:
        raise KernelError(Errno.EINVAL, "not a process")
    return CpuClock(target.signal, None, clock)


def clock_now_ns(task: Task, clockid: int) -> int:
    """What clock ``clockid`` shows; EINVAL if there is none."""
    clock = task.kernel.clock
    if clockid in MONOTONIC_CLOCKS:
        now_ns: int = clock.now_ns()
    elif clockid in REALTIME_CLOCKS:
        now_ns = clock.realtime_ns()
    else:
        cpu = cpu_clock_of(task, clockid)
        if cpu is None:
            raise KernelError(Errno.EINVAL, f"no clock {clockid}")
        return cpu.now_ns()
    return now_ns - now_ns % NS_PER_JIFFY if clockid in COARSE_CLOCKS else now_ns


def clock_resolution_ns(task: Task, clockid: int) -> int:
    if clockid in COARSE_CLOCKS:
        return NS_PER_JIFFY
    if clockid in (CLOCK_REALTIME_ALARM, CLOCK_BOOTTIME_ALARM):
        raise KernelError(Errno.EINVAL, "no real-time clock chip")
    clock_now_ns(task, clockid)
    return 1


def to_monotonic_ns(kernel: Kernel, clockid: int, absolute_ns: int) -> int:
    """The moment on the monotonic clock at which ``clockid`` (a TIMER_CLOCK) shows ``absolute_ns``."""
    if clockid in REALTIME_CLOCKS:
        return absolute_ns - kernel.clock.realtime_ns() + kernel.clock.now_ns()
    return absolute_ns


class PosixTimer:
    """``struct k_itimer``."""

    def __init__(
        self, task: Task, timer_id: int, clockid: int, notify: int, signo: int, value: int, target: Task | None
    ) -> None:
        self.kernel = task.kernel
        self.signal = task.signal
        self.id = timer_id
        self.clockid = clockid
        self.cpu = cpu_clock_of(task, clockid)
        self.notify = notify
        self.signo = signo
        self.value = value
        self.target = target
        """SIGEV_THREAD_ID: the thread; None: the process."""
        self.interval_ns = 0
        self.expires_ns = 0
        """When it expires or expired last, on its CPU clock or else on the monotonic clock; 0 when disarmed."""
        self.realtime_ns: int | None = None
        """The absolute time it was set to on CLOCK_REALTIME: it moves when that clock is set."""
        self.overrun = -1
        self.overrun_last = 0
        self._armed: Timer | CpuTimer | None = None
        self._queued: SigInfo | None = None

    # ---- the clock -------------------------------------------------------------------------------

    def _now_ns(self) -> int:
        return self.cpu.now_ns() if self.cpu is not None else self.kernel.clock.now_ns()

    def _arm(self) -> None:
        if self.cpu is not None:
            cpu = self.cpu
            self._armed = CpuTimer(cpu.signal, cpu.thread, cpu.clock, self.expires_ns, lambda _now: self._expire())
        else:
            self._armed = self.kernel.timers.add(self.expires_ns, self._expire)

    def _disarm(self) -> None:
        if self._armed is not None:
            self._armed.cancel()
            self._armed = None

    # ---- timer_settime, timer_gettime ------------------------------------------------------------

    def set(self, interval_ns: int, value_ns: int, absolute: bool) -> None:
        self._disarm()
        self._forget_signal()
        self.overrun = -1
        self.overrun_last = 0
        self.interval_ns = 0
        self.realtime_ns = None
        self.kernel.timers.realtime.pop(self, None)
        if not value_ns:
            self.expires_ns = 0
            return
        self.interval_ns = interval_ns
        if not absolute:
            self.expires_ns = self._now_ns() + value_ns
        elif self.cpu is None and self.clockid in REALTIME_CLOCKS:
            self.realtime_ns = value_ns
            self.kernel.timers.realtime[self] = None
            self.expires_ns = to_monotonic_ns(self.kernel, self.clockid, value_ns)
        else:
            self.expires_ns = value_ns
        if self.notify != SIGEV_NONE:
            self._arm()

    def clock_was_set(self) -> None:
        """CLOCK_REALTIME jumped."""
        if self.realtime_ns is not None and self._armed is not None:
            self._disarm()
            self.expires_ns = to_monotonic_ns(self.kernel, self.clockid, self.realtime_ns)
            self._arm()

    def get(self) -> tuple[int, int]:
        """Interval and what is left, 1 ns at least while something is still to come."""
        if not self.expires_ns:
            return self.interval_ns, 0
        left_ns = self.expires_ns - self._now_ns()
        waits = self.notify == SIGEV_NONE or self._queued is not None
        if self.interval_ns and waits and left_ns <= 0:
            left_ns += (-left_ns // self.interval_ns + 1) * self.interval_ns
        if left_ns > 0:
            return self.interval_ns, left_ns
        if self.notify == SIGEV_NONE or self._armed is None:
            return self.interval_ns, 0
        return self.interval_ns, 1

    # ---- expiry ----------------------------------------------------------------------------------

    def _expire(self) -> None:
        self._armed = None
        if self.realtime_ns is not None:
            self.realtime_ns = None
            self.kernel.timers.realtime.pop(self, None)
        target = self.target if self.target is not None else self.signal.group_leader
        if target.state is TaskState.DEAD:
            return
        info = SigInfo(self.signo, SI_TIMER, value=self.value)
        info.tid = self.id
        info.timer = self
        self._queued = info
        if not send_sigqueue(target, info, group=self.target is None):
            self._queued = None
            if self.interval_ns:
                self._forward()

    def _forward(self) -> None:
        """Arm for the next period that has not begun yet, and count the ones that have passed."""
        late_ns = self._now_ns() - self.expires_ns
        periods = late_ns // self.interval_ns + 1
        self.overrun += periods
        self.expires_ns += periods * self.interval_ns
        self._arm()

    def deliver(self, info: SigInfo) -> bool:
        """The signal is taken: fill in the overrun and start the next period.  False: it is out of date, drop it."""
        if info is not self._queued:
            return False
        self._queued = None
        if self.interval_ns:
            self._forward()
            self.overrun_last = min(self.overrun, OVERRUN_MAX)
            self.overrun = -1
            info.overrun = self.overrun_last
        return True

    def _forget_signal(self) -> None:
        """Signals of an earlier setting are out of date; they are dropped when they are taken."""
        self._queued = None

    def delete(self) -> None:
        self._disarm()
        self._forget_signal()
        self.kernel.timers.realtime.pop(self, None)
        self.signal.posix_timers.pop(self.id, None)


def set_realtime(kernel: Kernel, realtime_ns: int) -> None:
    """settimeofday: CLOCK_REALTIME jumps; those who wait for a moment on it count anew."""
    clock = kernel.clock
    if clock.is_host:
        raise KernelError(Errno.EPERM, "the clock is the host's")
    clock.realtime_offset_ns = realtime_ns - clock.now_ns()
    for timer in list(kernel.timers.realtime):
        timer.clock_was_set()
    kernel.timers.clock_was_set.wake_up()
