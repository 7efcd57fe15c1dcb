"""Interval timers: setitimer and alarm.

Models ``kernel/time/itimer.c``.  Manual: setitimer(2), alarm(2).  ITIMER_REAL is re-armed when its SIGALRM is taken,
not when it expires; ITIMER_VIRTUAL and ITIMER_PROF count the CPU time of the process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.abi.signal import SIGALRM, SIGPROF, SIGVTALRM
from kernel.abi.time import CPUCLOCK_PROF, CPUCLOCK_VIRT, ITIMER_REAL, ITIMER_VIRTUAL
from kernel.task.cpu_timers import CpuTimer, process_sample_ns
from kernel.task.signal import send_sig

if TYPE_CHECKING:
    from kernel.task.task import SignalStruct, Task

NS_PER_USEC = 1_000


class CpuItimer:
    """ITIMER_VIRTUAL or ITIMER_PROF of one process."""

    __slots__ = ("clock", "interval_ns", "signal", "signo", "timer")

    def __init__(self, signal: SignalStruct, clock: int, signo: int) -> None:
        self.signal = signal
        self.clock = clock
        self.signo = signo
        self.interval_ns = 0
        self.timer: CpuTimer | None = None

    def get(self) -> tuple[int, int]:
        """Interval and what is left (at least 1 us while armed)."""
        if self.timer is None:
            return self.interval_ns, 0
        return self.interval_ns, max(self.timer.expires_ns - process_sample_ns(self.signal, self.clock), NS_PER_USEC)

    def set(self, interval_ns: int, value_ns: int) -> None:
        self.cancel()
        self.interval_ns = interval_ns
        if value_ns:
            self._arm(process_sample_ns(self.signal, self.clock) + value_ns)

    def cancel(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def _arm(self, expires_ns: int) -> None:
        self.timer = CpuTimer(self.signal, None, self.clock, expires_ns, self._expire)

    def _expire(self, now_ns: int) -> None:
        assert self.timer is not None
        expired_ns = self.timer.expires_ns
        self.timer = None
        if self.interval_ns:
            periods = (now_ns - expired_ns) // self.interval_ns + 1
            self._arm(expired_ns + periods * self.interval_ns)
        send_sig(self.signal.group_leader, self.signo, group=True)


def _cpu_itimer(signal: SignalStruct, which: int) -> CpuItimer:
    if which == ITIMER_VIRTUAL:
        if signal.virt_timer is None:
            signal.virt_timer = CpuItimer(signal, CPUCLOCK_VIRT, SIGVTALRM)
        return signal.virt_timer
    if signal.prof_timer is None:
        signal.prof_timer = CpuItimer(signal, CPUCLOCK_PROF, SIGPROF)
    return signal.prof_timer


def do_getitimer(task: Task, which: int) -> tuple[int, int]:
    """Interval and time left, in ns; (0, 0) left means not armed."""
    signal = task.signal
    if which != ITIMER_REAL:
        return _cpu_itimer(signal, which).get()
    timer = signal.real_timer
    if timer is None or not timer.active:
        return signal.real_interval_ns, 0
    return signal.real_interval_ns, max(timer.deadline_ns - task.kernel.clock.now_ns(), NS_PER_USEC)


def do_setitimer(task: Task, which: int, interval_ns: int, value_ns: int) -> None:
    """Arm (or, with ``value_ns`` 0, disarm) one of the three timers."""
    signal = task.signal
    if which != ITIMER_REAL:
        _cpu_itimer(signal, which).set(interval_ns, value_ns)
        return
    if signal.real_timer is not None:
        signal.real_timer.cancel()
        signal.real_timer = None
    if not value_ns:
        signal.real_interval_ns = 0
        return
    signal.real_interval_ns = interval_ns
    kernel = task.kernel
    signal.real_timer = kernel.timers.add(
        kernel.clock.now_ns() + value_ns, lambda: send_sig(signal.group_leader, SIGALRM, group=True)
    )
