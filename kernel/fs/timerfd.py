"""timerfd_create(2): a timer as a file.

Models ``fs/timerfd.c``: an interval timer fires once and is wound up again when it is read, so an unread timer costs
nothing.

Deliberate difference: the alarm clocks are the plain ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from kernel.abi.errno import ERESTARTSYS, Errno, KernelError
from kernel.abi.fcntl import O_NONBLOCK, O_RDWR
from kernel.abi.poll import POLLIN
from kernel.abi.time import CLOCK_REALTIME, CLOCK_REALTIME_ALARM
from kernel.fs.file import File
from kernel.task.waitqueue import Blocking, Sleep, WaitQueue, WakeReason

if TYPE_CHECKING:
    from kernel.task.task import Task
    from kernel.task.timers import Timer

TFD_TIMER_ABSTIME = 1
TFD_TIMER_CANCEL_ON_SET = 2


class TimerFile(File):
    """``struct timerfd_ctx``; all times in nanoseconds, ``deadline_ns`` on the monotonic clock (0: disarmed)."""

    __slots__ = (
        "cancel_on_set", "cancelled", "clock_id", "deadline_ns", "interval_ns", "realtime_ns", "settime_flags",
        "ticks", "timer", "wq",
    )  # fmt: skip

    def __init__(self, task: Task, clock_id: int, flags: int) -> None:
        path = task.kernel.vfs.pseudo.new_anon("[timerfd]")
        super().__init__(path, path.dentry.d_inode, O_RDWR | flags & O_NONBLOCK)
        self.clock_id = clock_id
        self.timer: Timer | None = None
        self.deadline_ns = 0
        self.interval_ns = 0
        self.realtime_ns: int | None = None
        """The moment on CLOCK_REALTIME that an absolute timer waits for."""
        self.ticks = 0
        self.settime_flags = 0
        self.cancel_on_set = False
        self.cancelled = False
        self.wq = WaitQueue()

    @property
    def is_realtime(self) -> bool:
        return self.clock_id in (CLOCK_REALTIME, CLOCK_REALTIME_ALARM)

    def set_time(self, value_ns: int, interval_ns: int, flags: int) -> None:
        """timerfd_settime: ``value_ns`` 0 disarms."""
        clock = self.kernel.clock
        self._disarm()
        self.ticks = 0
        self.cancelled = False
        self.settime_flags = flags
        self.interval_ns = interval_ns
        self.realtime_ns = None
        self.cancel_on_set = bool(flags & TFD_TIMER_CANCEL_ON_SET and flags & TFD_TIMER_ABSTIME and self.is_realtime)
        if not value_ns:
            return
        if not flags & TFD_TIMER_ABSTIME:
            self.deadline_ns = clock.now_ns() + value_ns
        elif self.is_realtime:
            self.realtime_ns = value_ns
            self.deadline_ns = value_ns - (clock.realtime_ns() - clock.now_ns())
            self.kernel.timers.clock_was_set.add(cast("Task", self))
        else:
            self.deadline_ns = value_ns
        self.deadline_ns = max(1, self.deadline_ns)
        self._arm()

    def _arm(self) -> None:
        if self.deadline_ns <= self.kernel.clock.now_ns():
            self._fire()
        else:
            self.timer = self.kernel.timers.add(self.deadline_ns, self._fire)

    def _disarm(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        self.deadline_ns = 0
        self.kernel.timers.clock_was_set.remove(cast("Task", self))

    def _fire(self) -> None:
        self.timer = None
        self.ticks += 1
        self.wq.wake_up()

    def wake(self, reason: WakeReason) -> bool:
        """The real-time clock was set: an absolute timer waits for another monotonic moment now."""
        if self.realtime_ns is not None and self.timer is not None:
            clock = self.kernel.clock
            self.timer.cancel()
            self.deadline_ns = max(1, self.realtime_ns - (clock.realtime_ns() - clock.now_ns()))
            self._arm()
        if self.cancel_on_set:
            self.cancelled = True
            self.wq.wake_up()
        return True

    def _catch_up(self) -> None:
        """Count the intervals that have passed since the timer fired, and wind it up for the next."""
        if self.timer is None and self.deadline_ns and self.interval_ns:
            late = self.kernel.clock.now_ns() - self.deadline_ns
            missed = max(0, late // self.interval_ns)
            self.ticks += missed
            self.deadline_ns += (missed + 1) * self.interval_ns
            if self.realtime_ns is not None:
                self.realtime_ns += (missed + 1) * self.interval_ns
            self._arm()

    def remaining_ns(self) -> int:
        """timerfd_gettime: until the next expiration, 0 if disarmed."""
        self._catch_up()
        if self.timer is None:
            return 0
        return max(1, self.deadline_ns - self.kernel.clock.now_ns())

    def read(self, task: Task | None, count: int) -> bytes | Blocking[bytes]:
        if count < 8:
            raise KernelError(Errno.EINVAL, "less than 8 bytes")
        if self.ticks or self.cancelled:
            return self._take()
        if self.f_flags & O_NONBLOCK:
            raise KernelError(Errno.EAGAIN, "timer has not expired")
        return self._read_blocking()

    def _read_blocking(self) -> Blocking[bytes]:
        while not self.ticks and not self.cancelled:
            if (yield Sleep(self.wq)) is WakeReason.SIGNAL and not self.ticks:
                raise KernelError(ERESTARTSYS, "signal while waiting for the timer")
        return self._take()

    def _take(self) -> bytes:
        if self.cancelled:
            self.cancelled = False
            self.ticks = 0
            raise KernelError(Errno.ECANCELED, "the clock was set")
        self._catch_up()
        ticks, self.ticks = self.ticks, 0
        return ticks.to_bytes(8, "little")

    def unread(self, data: bytes) -> None:
        self.ticks += int.from_bytes(data, "little")

    def poll(self, task: Task | None) -> int:
        return POLLIN if self.ticks or self.cancelled else 0

    def poll_queues(self, task: Task | None) -> tuple[WaitQueue, ...]:
        return (self.wq,)

    def release(self) -> None:
        self._disarm()

    def fdinfo(self) -> str:
        remaining, interval = self.remaining_ns(), self.interval_ns
        giga = 1_000_000_000
        return (
            f"clockid: {self.clock_id}\nticks: {self.ticks}\nsettime flags: 0{self.settime_flags:o}\n"
            f"it_value: ({remaining // giga}, {remaining % giga})\n"
            f"it_interval: ({interval // giga}, {interval % giga})\n"
        )
