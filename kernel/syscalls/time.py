"""Clocks, sleeping and timers: clock_gettime(2), nanosleep(2), setitimer(2), timer_create(2), times(2) ...

Models ``kernel/time/`` (time.c, posix-timers.c, itimer.c, hrtimer.c) and ``times`` of ``kernel/sys.c``.
"""

from __future__ import annotations

import struct
from typing import Annotated, Any

from kernel.abi.capability import Cap
from kernel.abi.errno import ERESTART_RESTARTBLOCK, ERESTARTNOHAND, Errno, KernelError
from kernel.abi.signal import (
    SIGALRM,
    SIGEV_NONE,
    SIGEV_SIGNAL,
    SIGEV_THREAD,
    SIGEV_THREAD_ID,
    SIGEVENT,
)
from kernel.abi.time import (
    CLOCK_REALTIME,
    CLOCK_THREAD_CPUTIME_ID,
    ITIMER_REAL,
    ITIMERSPEC,
    NS_PER_SEC,
    NS_PER_TICK,
    NS_PER_USEC,
    TIMER_ABSTIME,
    TIMESPEC,
    TIMEZONE,
    TMS,
    ClockId,
    Itimer,
    TimerFlags,
    pack_timespec,
    pack_timeval,
    timespec_to_ns,
    timeval_to_ns,
)
from kernel.fs.uio import user_mm
from kernel.mm.usercopy import copy_from_user, copy_to_user, put_user_u32, put_user_u64
from kernel.syscalls.table import INT, Int, StructIn, StructOut, Support, UInt, UserAddr, syscall
from kernel.task.cpu_timers import CpuTimer
from kernel.task.cred import require
from kernel.task.exit import thread_group_usage
from kernel.task.itimers import do_getitimer, do_setitimer
from kernel.task.posix_timers import (
    REALTIME_CLOCKS,
    TIMER_CLOCKS,
    CpuClock,
    PosixTimer,
    clock_now_ns,
    clock_resolution_ns,
    cpu_clock_of,
    set_realtime,
    to_monotonic_ns,
)
from kernel.task.task import Task
from kernel.task.waitqueue import Blocking, Sleep, WaitQueue, WakeReason


def _get_timespec(task: Task, address: int) -> int:
    return timespec_to_ns(*TIMESPEC.unpack(copy_from_user(user_mm(task), address, TIMESPEC.size)))


# ---- reading and setting clocks ------------------------------------------------------------------


@syscall("clock_gettime", x86_64=228, i386=265, group="time")
def sys_clock_gettime(task: Task, which_clock: ClockId, tp: StructOut("timespec")) -> None:  # type: ignore[valid-type]
    """What a clock shows."""
    copy_to_user(user_mm(task), tp, pack_timespec(clock_now_ns(task, which_clock)))


@syscall("clock_getres", x86_64=229, i386=266, group="time")
def sys_clock_getres(task: Task, which_clock: ClockId, tp: StructOut("timespec")) -> None:  # type: ignore[valid-type]
    """How fine a clock is."""
    resolution_ns = clock_resolution_ns(task, which_clock)
    if tp:
        copy_to_user(user_mm(task), tp, pack_timespec(resolution_ns))


def _set_realtime(task: Task, realtime_ns: int) -> None:
    require(task, Cap.CAP_SYS_TIME)
    if realtime_ns < task.kernel.clock.now_ns():
        raise KernelError(Errno.EINVAL, "the machine would have been started before 1970")
    set_realtime(task.kernel, realtime_ns)


@syscall("clock_settime", x86_64=227, i386=264, group="time")
def sys_clock_settime(task: Task, which_clock: ClockId, tp: StructIn("timespec")) -> None:  # type: ignore[valid-type]
    """Set the real-time clock (the virtual one only: the host's is not ours)."""
    if which_clock < 0 or which_clock in (2, 3):
        cpu_clock_of(task, which_clock)
        raise KernelError(Errno.EPERM, "CPU clocks cannot be set")
    if which_clock != CLOCK_REALTIME:
        raise KernelError(Errno.EINVAL, "only CLOCK_REALTIME can be set")
    _set_realtime(task, _get_timespec(task, tp))


@syscall("gettimeofday", x86_64=96, i386=78, group="time")
def sys_gettimeofday(
    task: Task,
    tv: StructOut("timeval"),  # type: ignore[valid-type]
    tz: StructOut("timezone"),  # type: ignore[valid-type]
) -> None:
    """The time of day; the time zone is always UTC."""
    mm = user_mm(task)
    if tv:
        copy_to_user(mm, tv, pack_timeval(task.kernel.clock.realtime_ns()))
    if tz:
        copy_to_user(mm, tz, TIMEZONE.pack(0, 0))


@syscall("settimeofday", x86_64=164, i386=79, group="time", support=Support.PARTIAL, note="time zones are not kept")
def sys_settimeofday(
    task: Task,
    tv: StructIn("timeval"),  # type: ignore[valid-type]
    tz: StructIn("timezone"),  # type: ignore[valid-type]
) -> None:
    """Set the time of day."""
    mm = user_mm(task)
    now_ns = timeval_to_ns(*TIMESPEC.unpack(copy_from_user(mm, tv, TIMESPEC.size))) if tv else None
    if tz:
        minutes_west, _ = TIMEZONE.unpack(copy_from_user(mm, tz, TIMEZONE.size))
        if abs(minutes_west) > 15 * 60:
            raise KernelError(Errno.EINVAL, "more than 15 hours from UTC")
    require(task, Cap.CAP_SYS_TIME)
    if now_ns is not None:
        _set_realtime(task, now_ns)


@syscall("time", x86_64=201, i386=13, group="time")
def sys_time(task: Task, tloc: UserAddr) -> int:
    """Seconds since 1970."""
    seconds = task.kernel.clock.realtime_ns() // NS_PER_SEC
    if tloc:
        put_user_u64(user_mm(task), tloc, seconds)
    return int(seconds)


@syscall("times", x86_64=100, i386=43, group="time")
def sys_times(task: Task, tbuf: StructOut("tms")) -> int:  # type: ignore[valid-type]
    """CPU times in ticks of 10 ms; returns the ticks since the machine started."""
    if tbuf:
        mine, children = thread_group_usage(task), task.signal.children_usage
        values = (mine.utime_ns, mine.stime_ns, children.utime_ns, children.stime_ns)
        copy_to_user(user_mm(task), tbuf, TMS.pack(*(value // NS_PER_TICK for value in values)))
    return int(task.kernel.clock.now_ns() // NS_PER_TICK)


_TIMEX = struct.Struct("<I4xqqqqi4xqqqqqqqqi4xqqqqqi44x")
_STA_UNSYNC = 0x40
_TIME_ERROR = 5
_ADJ_OFFSET_SS_READ = 0xA001


def _adjtimex(task: Task, buf: int) -> int:
    """Read the clock's state: free-running, never synchronized.  Adjusting it is refused."""
    mm = user_mm(task)
    modes, *_ = _TIMEX.unpack(copy_from_user(mm, buf, _TIMEX.size))
    if modes and modes != _ADJ_OFFSET_SS_READ:
        require(task, Cap.CAP_SYS_TIME)
        raise KernelError(Errno.EPERM, "the clock cannot be adjusted")
    seconds, rest_ns = divmod(task.kernel.clock.realtime_ns(), NS_PER_SEC)
    copy_to_user(
        mm, buf,
        _TIMEX.pack(
            modes, 0, 0, 16_000_000, 16_000_000, _STA_UNSYNC, 2, 1, 32_768_000, seconds, rest_ns // NS_PER_USEC, 10_000,
            0, 0, 0, 0, 0, 0, 0, 0, 0,
        ),
    )  # fmt: skip
    return _TIME_ERROR


@syscall("adjtimex", x86_64=159, i386=124, group="time", support=Support.PARTIAL, note="reading only")
def sys_adjtimex(task: Task, txc: UserAddr) -> int:
    """The state of the real-time clock's discipline."""
    return _adjtimex(task, txc)


@syscall("clock_adjtime", x86_64=305, i386=343, group="time", support=Support.PARTIAL, note="reading only")
def sys_clock_adjtime(task: Task, which_clock: ClockId, utx: UserAddr) -> int:
    """adjtimex of one clock."""
    if which_clock != CLOCK_REALTIME:
        clock_now_ns(task, which_clock)
        raise KernelError(Errno.EOPNOTSUPP, "only CLOCK_REALTIME has a discipline")
    return _adjtimex(task, utx)


# ---- sleeping ------------------------------------------------------------------------------------


@syscall("nanosleep", x86_64=35, i386=162, group="time")
def sys_nanosleep(
    task: Task,
    rqtp: StructIn("timespec"),  # type: ignore[valid-type]
    rmtp: StructOut("timespec"),  # type: ignore[valid-type]
) -> Any:
    """Sleep for a while; a signal ends it early, with what was left in ``rmtp``."""
    deadline_ns = task.kernel.clock.now_ns() + _get_timespec(task, rqtp)
    return _sleep_until(task, deadline_ns, rmtp)


def _sleep_until(task: Task, deadline_ns: int, rmtp: int) -> Blocking[int]:
    """A relative sleep, which ends at a fixed moment however often it is restarted."""
    while True:
        reason = yield Sleep(deadline_ns=deadline_ns)
        if reason is WakeReason.TIMEOUT:
            return 0
        if reason is WakeReason.SIGNAL:
            break
    left_ns = deadline_ns - task.kernel.clock.now_ns()
    if left_ns <= 0:
        return 0
    if rmtp:
        copy_to_user(user_mm(task), rmtp, pack_timespec(left_ns))
    task.restart_block = lambda again: _sleep_until(again, deadline_ns, rmtp)
    raise KernelError(ERESTART_RESTARTBLOCK, "signal")


@syscall("clock_nanosleep", x86_64=230, i386=267, group="time")
def sys_clock_nanosleep(
    task: Task,
    which_clock: ClockId,
    flags: Annotated[TimerFlags, INT],
    rqtp: StructIn("timespec"),  # type: ignore[valid-type]
    rmtp: StructOut("timespec"),  # type: ignore[valid-type]
) -> Any:
    """Sleep for a while, or until a clock shows a time."""
    cpu = cpu_clock_of(task, which_clock)
    if cpu is None:
        clock_now_ns(task, which_clock)
        if which_clock not in TIMER_CLOCKS:
            raise KernelError(Errno.EOPNOTSUPP, "one cannot sleep on that clock")
    elif which_clock == CLOCK_THREAD_CPUTIME_ID or cpu.thread is task:
        raise KernelError(Errno.EINVAL, "a sleeping thread's own clock stands still")
    value_ns = _get_timespec(task, rqtp)
    absolute = int(flags) & TIMER_ABSTIME
    if cpu is not None:
        return _sleep_on_cpu_clock(task, cpu, value_ns if absolute else cpu.now_ns() + value_ns)
    if absolute:
        return _sleep_until_shown(task, which_clock, value_ns)
    return _sleep_until(task, task.kernel.clock.now_ns() + value_ns, rmtp)


def _sleep_until_shown(task: Task, which_clock: int, value_ns: int) -> Blocking[int]:
    """TIMER_ABSTIME: if the clock is set meanwhile, what counts is what it shows."""
    kernel = task.kernel
    queues = (kernel.timers.clock_was_set,) if which_clock in REALTIME_CLOCKS else ()
    while True:
        reason = yield Sleep(*queues, deadline_ns=to_monotonic_ns(kernel, which_clock, value_ns))
        if reason is WakeReason.TIMEOUT:
            return 0
        if reason is WakeReason.SIGNAL:
            raise KernelError(ERESTARTNOHAND, "signal")


def _sleep_on_cpu_clock(task: Task, cpu: CpuClock, expires_ns: int) -> Blocking[int]:
    """Until other threads (or another process) have used that much processor time."""
    queue = WaitQueue()
    timer = CpuTimer(cpu.signal, cpu.thread, cpu.clock, expires_ns, lambda _now: _wake_all(queue))
    try:
        while timer.active and timer.sample_ns() < expires_ns:
            if (yield Sleep(queue)) is WakeReason.SIGNAL:
                raise KernelError(ERESTARTNOHAND, "signal")
    finally:
        timer.cancel()
    return 0


def _wake_all(queue: WaitQueue) -> None:
    queue.wake_up()


# ---- interval timers -----------------------------------------------------------------------------


def _pack_itimerval(interval_ns: int, value_ns: int) -> bytes:
    return pack_timeval(interval_ns) + pack_timeval(value_ns)


@syscall("getitimer", x86_64=36, i386=105, group="time")
def sys_getitimer(task: Task, which: Itimer, value: StructOut("itimerval")) -> None:  # type: ignore[valid-type]
    """The state of an interval timer."""
    if not 0 <= which <= 2:
        raise KernelError(Errno.EINVAL, f"no interval timer {which}")
    copy_to_user(user_mm(task), value, _pack_itimerval(*do_getitimer(task, which)))


@syscall("setitimer", x86_64=38, i386=104, group="time")
def sys_setitimer(
    task: Task,
    which: Itimer,
    value: StructIn("itimerval"),  # type: ignore[valid-type]
    ovalue: StructOut("itimerval"),  # type: ignore[valid-type]
) -> None:
    """Set an interval timer."""
    mm = user_mm(task)
    interval_ns = value_ns = 0
    if value:
        fields = ITIMERSPEC.unpack(copy_from_user(mm, value, ITIMERSPEC.size))
        value_ns, interval_ns = timeval_to_ns(*fields[2:]), timeval_to_ns(*fields[:2])
    if not 0 <= which <= 2:
        raise KernelError(Errno.EINVAL, f"no interval timer {which}")
    old = do_getitimer(task, which)
    do_setitimer(task, which, interval_ns, value_ns)
    if ovalue:
        copy_to_user(mm, ovalue, _pack_itimerval(*old))


@syscall("alarm", x86_64=37, i386=27, group="time")
def sys_alarm(task: Task, seconds: UInt) -> int:
    """SIGALRM in some seconds; returns how many were left of the last alarm."""
    _, left_ns = do_getitimer(task, ITIMER_REAL)
    do_setitimer(task, ITIMER_REAL, 0, min(seconds, 0x7FFF_FFFF) * NS_PER_SEC)
    whole, rest_ns = divmod(left_ns, NS_PER_SEC)
    # Never 0 while something was left, else rounded to the nearest second.
    return int(whole + (1 if (not whole and rest_ns) or rest_ns >= NS_PER_SEC // 2 else 0))


# ---- POSIX timers --------------------------------------------------------------------------------


@syscall("timer_create", x86_64=222, i386=259, group="time")
def sys_timer_create(
    task: Task,
    which_clock: ClockId,
    timer_event_spec: StructIn("sigevent"),  # type: ignore[valid-type]
    created_timer_id: UserAddr,
) -> None:
    """Make a timer."""
    mm = user_mm(task)
    event = SIGEVENT.unpack(copy_from_user(mm, timer_event_spec, SIGEVENT.size)) if timer_event_spec else None
    if cpu_clock_of(task, which_clock) is None:
        clock_now_ns(task, which_clock)
        if which_clock not in TIMER_CLOCKS:
            raise KernelError(Errno.EOPNOTSUPP, "no timers on that clock")
    signal = task.signal
    timer_id = signal.next_posix_timer_id
    while timer_id in signal.posix_timers:
        timer_id = timer_id + 1 & 0x7FFF_FFFF
    value, signo, notify, tid = event if event is not None else (timer_id, SIGALRM, SIGEV_SIGNAL, 0)
    target: Task | None = None
    if notify == SIGEV_SIGNAL | SIGEV_THREAD_ID:
        target = task.kernel.tasks.get(tid)
        if target is None or target.signal is not signal:
            raise KernelError(Errno.EINVAL, f"no thread {tid} in this process")
    elif notify not in (SIGEV_SIGNAL, SIGEV_NONE, SIGEV_THREAD):
        raise KernelError(Errno.EINVAL, "unknown notification")
    if notify != SIGEV_NONE and not 1 <= signo <= 64:
        raise KernelError(Errno.EINVAL, f"no signal {signo}")
    put_user_u32(mm, created_timer_id, timer_id)
    signal.posix_timers[timer_id] = PosixTimer(task, timer_id, which_clock, notify, signo, value, target)
    signal.next_posix_timer_id = timer_id + 1 & 0x7FFF_FFFF


def _timer(task: Task, timer_id: int) -> PosixTimer:
    timer = task.signal.posix_timers.get(timer_id)
    if timer is None:
        raise KernelError(Errno.EINVAL, f"no timer {timer_id}")
    return timer


def _pack_itimerspec(interval_ns: int, value_ns: int) -> bytes:
    return pack_timespec(interval_ns) + pack_timespec(value_ns)


@syscall("timer_settime", x86_64=223, i386=260, group="time")
def sys_timer_settime(
    task: Task,
    timer_id: Int,
    flags: Annotated[TimerFlags, INT],
    new_setting: StructIn("itimerspec"),  # type: ignore[valid-type]
    old_setting: StructOut("itimerspec"),  # type: ignore[valid-type]
) -> None:
    """Arm or disarm a timer."""
    mm = user_mm(task)
    if not new_setting:
        raise KernelError(Errno.EINVAL, "no setting")
    fields = ITIMERSPEC.unpack(copy_from_user(mm, new_setting, ITIMERSPEC.size))
    interval_ns, value_ns = timespec_to_ns(*fields[:2]), timespec_to_ns(*fields[2:])
    timer = _timer(task, timer_id)
    old = timer.get()
    timer.set(interval_ns, value_ns, absolute=int(flags) & TIMER_ABSTIME != 0)
    if old_setting:
        copy_to_user(mm, old_setting, _pack_itimerspec(*old))


@syscall("timer_gettime", x86_64=224, i386=261, group="time")
def sys_timer_gettime(task: Task, timer_id: Int, setting: StructOut("itimerspec")) -> None:  # type: ignore[valid-type]
    """How a timer is set."""
    copy_to_user(user_mm(task), setting, _pack_itimerspec(*_timer(task, timer_id).get()))


@syscall("timer_getoverrun", x86_64=225, i386=262, group="time")
def sys_timer_getoverrun(task: Task, timer_id: Int) -> int:
    """How many expiries the last signal stood for, beyond the first."""
    return _timer(task, timer_id).overrun_last


@syscall("timer_delete", x86_64=226, i386=263, group="time")
def sys_timer_delete(task: Task, timer_id: Int) -> None:
    """Forget a timer."""
    _timer(task, timer_id).delete()
