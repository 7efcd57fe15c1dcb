"""Clocks and time structures.  Models ``include/uapi/linux/time.h``, ``time_types.h`` and ``timex.h``."""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag

from kernel.abi.errno import Errno, KernelError

NS_PER_SEC = 1_000_000_000
NS_PER_USEC = 1_000
TIMESPEC = struct.Struct("<qq")
"""seconds, nanoseconds; ``struct timeval`` is the same with microseconds."""
ITIMERSPEC = struct.Struct("<qqqq")
"""it_interval, it_value."""
TIMEZONE = struct.Struct("<ii")
TMS = struct.Struct("<qqqq")
KTIME_MAX_NS = (1 << 63) - 1
USER_HZ = 100
NS_PER_TICK = NS_PER_SEC // USER_HZ
HZ = 250
NS_PER_JIFFY = NS_PER_SEC // HZ
"""Resolution of the coarse clocks."""


class ClockId(IntEnum):
    """Clocks of clock_gettime(2).  Negative numbers name the CPU clocks of a process or thread."""

    CLOCK_REALTIME = 0
    CLOCK_MONOTONIC = 1
    CLOCK_PROCESS_CPUTIME_ID = 2
    CLOCK_THREAD_CPUTIME_ID = 3
    CLOCK_MONOTONIC_RAW = 4
    CLOCK_REALTIME_COARSE = 5
    CLOCK_MONOTONIC_COARSE = 6
    CLOCK_BOOTTIME = 7
    CLOCK_REALTIME_ALARM = 8
    CLOCK_BOOTTIME_ALARM = 9
    CLOCK_TAI = 11


(CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID, CLOCK_MONOTONIC_RAW,
 CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE, CLOCK_BOOTTIME, CLOCK_REALTIME_ALARM,
 CLOCK_BOOTTIME_ALARM) = range(10)  # fmt: skip
CLOCK_TAI = 11
CPUCLOCK_PERTHREAD_MASK = 4
CPUCLOCK_CLOCK_MASK = 3
CPUCLOCK_PROF, CPUCLOCK_VIRT, CPUCLOCK_SCHED = range(3)


class TimerFlags(IntFlag):
    """Flags of clock_nanosleep, timer_settime."""

    TIMER_ABSTIME = 1


TIMER_ABSTIME = 1


class Itimer(IntEnum):
    """First argument of setitimer(2)."""

    ITIMER_REAL = 0
    ITIMER_VIRTUAL = 1
    ITIMER_PROF = 2


ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF = range(3)


def timespec_to_ns(seconds: int, nanoseconds: int) -> int:
    """EINVAL unless the pair is a valid duration; as large as a ktime_t at the most."""
    if seconds < 0 or not 0 <= nanoseconds < NS_PER_SEC:
        raise KernelError(Errno.EINVAL, "not a valid timespec")
    return min(seconds * NS_PER_SEC + nanoseconds, KTIME_MAX_NS)


def timeval_to_ns(seconds: int, microseconds: int) -> int:
    """The same for a timeval."""
    if seconds < 0 or not 0 <= microseconds < 1_000_000:
        raise KernelError(Errno.EINVAL, "not a valid timeval")
    return min(seconds * NS_PER_SEC + microseconds * NS_PER_USEC, KTIME_MAX_NS)


def pack_timespec(ns: int) -> bytes:
    return TIMESPEC.pack(*divmod(ns, NS_PER_SEC))


def pack_timeval(ns: int) -> bytes:
    seconds, rest = divmod(ns, NS_PER_SEC)
    return TIMESPEC.pack(seconds, rest // NS_PER_USEC)
