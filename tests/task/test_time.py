"""Clocks, sleeps, timers, CPU time: clock_gettime(2), nanosleep(2), setitimer(2), timer_create(2)."""

from __future__ import annotations

import struct

import pytest

from kernel.abi.errno import Errno
from kernel.abi.signal import SIG_IGN, SIGALRM, SIGPROF, SIGUSR1, SIGVTALRM, sigmask
from kernel.clock import BOOT_REALTIME_NS
from kernel.hardware import Reg
from kernel.task.signal import dequeue_signal
from kernel.task.task import Task
from kernel.task.timers import Timers
from tests.task.harness import ASLEEP, CODE, DATA, GONE, Sim

HANDLER = 0x40_0800
MS = 1_000_000
SECOND = 1_000 * MS


@pytest.fixture
def sim() -> Sim:
    return Sim()


def timespec(sim: Sim, task: Task, address: int = DATA) -> int:
    seconds, rest = struct.unpack("<qq", sim.peek(task, address, 16))
    return int(seconds * SECOND + rest)


def put_timespec(sim: Sim, task: Task, *ns: int, address: int = DATA + 0x100) -> int:
    sim.poke(task, address, b"".join(struct.pack("<qq", *divmod(value, SECOND)) for value in ns))
    return address


# ---- the heap ------------------------------------------------------------------------------------


def test_timers_run_in_order_of_deadline_then_of_arming() -> None:
    timers, ran = Timers(), []
    timers.add(20, lambda: ran.append("late"))
    first = timers.add(10, lambda: ran.append("first"))
    timers.add(10, lambda: ran.append("second"))
    cancelled = timers.add(5, lambda: ran.append("never"))
    assert cancelled.cancel() and not cancelled.cancel()
    assert timers.next_deadline_ns() == 10
    assert timers.run(9) == 0 and timers.run(10) == 2 and ran == ["first", "second"]
    assert not first.cancel() and timers.next_deadline_ns() == 20


def test_a_timer_armed_by_a_timer_runs_if_due_and_cancelled_ones_are_swept() -> None:
    timers, ran = Timers(), []
    timers.add(1, lambda: timers.add(2, lambda: ran.append(2)) and None)
    assert timers.run(3) == 2 and ran == [2]
    for _ in range(10_000):
        timers.add(1 << 60, lambda: None).cancel()
    assert len(timers._heap) < 200
    assert timers.next_deadline_ns() is None


# ---- clocks --------------------------------------------------------------------------------------


def test_clocks_show_the_virtual_time(sim: Sim) -> None:
    task = sim.process()
    sim.switch_to(task)
    sim.advance(3 * SECOND + 5 * MS)
    now = sim.kernel.clock.now_ns()
    for clock in (1, 4, 7):
        assert sim.call(task, "clock_gettime", clock, DATA) == 0
        assert 0 <= timespec(sim, task) - now < MS
    assert sim.call(task, "clock_gettime", 0, DATA) == 0
    assert 0 <= timespec(sim, task) - now - BOOT_REALTIME_NS < MS
    assert sim.call(task, "clock_gettime", 6, DATA) == 0
    assert timespec(sim, task) == 3 * SECOND + 4 * MS  # coarse: whole ticks of 4 ms
    for clock in (2, 3):
        assert sim.call(task, "clock_gettime", clock, DATA) == 0
        assert 3 * SECOND <= timespec(sim, task) <= 3 * SECOND + 6 * MS
    assert sim.call(task, "gettimeofday", DATA, DATA + 16) == 0
    seconds, micros, west, dst = struct.unpack("<qqii", sim.peek(task, DATA, 24))
    assert seconds == BOOT_REALTIME_NS // SECOND + 3 and 5000 <= micros < 6000 and (west, dst) == (0, 0)
    assert sim.call(task, "time", DATA) == seconds == sim.u64(task, DATA)


def test_clock_errors_and_resolutions(sim: Sim) -> None:
    task = sim.process()
    assert sim.call(task, "clock_gettime", 10, DATA) == -Errno.EINVAL
    assert sim.call(task, "clock_gettime", 99, DATA) == -Errno.EINVAL
    assert sim.call(task, "clock_gettime", 1, 8) == -Errno.EFAULT
    assert sim.call(task, "clock_gettime", (~9999 << 3) | 2, DATA) == -Errno.EINVAL
    for clock, expected in ((0, 1), (5, 4 * MS), (2, 1)):
        assert sim.call(task, "clock_getres", clock, DATA) == 0 and timespec(sim, task) == expected
    assert sim.call(task, "clock_getres", 1, 0) == 0


def test_cpu_clocks_of_other_processes_and_threads(sim: Sim) -> None:
    task = sim.process()
    thread = sim.thread(task)
    other = sim.process()
    sim.switch_to(thread)
    sim.advance(20 * MS)
    assert sim.call(task, "clock_gettime", (~thread.pid << 3) | 4 | 2, DATA) == 0
    assert 20 * MS <= timespec(sim, task) < 21 * MS
    assert sim.call(other, "clock_gettime", (~task.pid << 3) | 2, DATA) == 0
    assert 20 * MS <= timespec(sim, other) < 21 * MS
    assert sim.call(other, "clock_gettime", (~thread.pid << 3) | 4 | 2, DATA) == -Errno.EINVAL


def test_setting_the_clock(sim: Sim) -> None:
    root, user = sim.process(), sim.process(uid=1000)
    for task in (root, user):
        put_timespec(sim, task, 1_900_000_000 * SECOND)
    assert sim.call(user, "clock_settime", 0, DATA + 0x100) == -Errno.EPERM
    assert sim.call(root, "clock_settime", 1, DATA + 0x100) == -Errno.EINVAL
    assert sim.call(root, "clock_settime", 2, DATA + 0x100) == -Errno.EPERM
    sleeper = sim.process()
    put_timespec(sim, sleeper, 1_900_000_001 * SECOND)
    assert sim.call(sleeper, "clock_nanosleep", 0, 1, DATA + 0x100, 0) is ASLEEP
    assert sim.call(root, "clock_settime", 0, DATA + 0x100) == 0
    assert sim.call(root, "time", 0) == 1_900_000_000
    sim.settle()
    assert sleeper.continuation is not None
    sim.advance(SECOND)
    assert sleeper.continuation is None and sim.result(sleeper) == 0


# ---- sleeping ------------------------------------------------------------------------------------


def test_nanosleep(sim: Sim) -> None:
    task = sim.process()
    assert sim.call(task, "nanosleep", put_timespec(sim, task, 50 * MS), 0) is ASLEEP
    sim.advance(49 * MS)
    assert task.continuation is not None
    sim.advance(2 * MS)
    assert sim.result(task) == 0
    sim.poke(task, DATA, struct.pack("<qq", 0, SECOND))
    assert sim.call(task, "nanosleep", DATA, 0) == -Errno.EINVAL
    sim.poke(task, DATA, struct.pack("<qq", -1, 0))
    assert sim.call(task, "nanosleep", DATA, 0) == -Errno.EINVAL


def test_an_interrupted_sleep_says_what_was_left(sim: Sim) -> None:
    task = sim.process()
    sim.handle(task, SIGUSR1, HANDLER, 0x1000_0000)
    assert sim.call(task, "nanosleep", put_timespec(sim, task, SECOND), DATA) is ASLEEP
    sim.advance(300 * MS)
    sim.call(sim.process(), "kill", task.pid, SIGUSR1)
    sim.settle()
    sim.sigreturn(task)
    assert task.regs.read(Reg.RIP) == CODE and sim.result(task) == -Errno.EINTR
    assert 699 * MS <= timespec(sim, task) <= 700 * MS


def test_absolute_sleeps_are_not_given_a_remainder(sim: Sim) -> None:
    task = sim.process()
    sim.handle(task, SIGUSR1, HANDLER)
    sim.advance(SECOND)
    assert sim.call(task, "clock_nanosleep", 1, 1, put_timespec(sim, task, SECOND), DATA) == 0  # it has passed
    assert sim.call(task, "clock_nanosleep", 1, 1, put_timespec(sim, task, 3 * SECOND), DATA) is ASLEEP
    sim.call(sim.process(), "kill", task.pid, SIGUSR1)
    sim.settle()
    sim.sigreturn(task)
    assert sim.result(task) == -Errno.EINTR and sim.peek(task, DATA, 16) == bytes(16)


def test_clock_nanosleep_errors(sim: Sim) -> None:
    task = sim.process()
    where = put_timespec(sim, task, MS)
    assert sim.call(task, "clock_nanosleep", 3, 0, where, 0) == -Errno.EINVAL
    assert sim.call(task, "clock_nanosleep", 10, 0, where, 0) == -Errno.EINVAL
    assert sim.call(task, "clock_nanosleep", 4, 0, where, 0) == -Errno.EOPNOTSUPP
    assert sim.call(task, "clock_nanosleep", 1, 0, 8, 0) == -Errno.EFAULT


def test_sleeping_on_another_processes_cpu_clock(sim: Sim) -> None:
    task, worker = sim.process(), sim.process()
    where = put_timespec(sim, task, 40 * MS)
    assert sim.call(task, "clock_nanosleep", (~worker.pid << 3) | 2, 0, where, 0) is ASLEEP
    sim.advance(100 * MS)  # nobody computes
    assert task.continuation is not None
    sim.switch_to(worker)
    sim.advance(50 * MS)
    assert task.continuation is None and sim.result(task) == 0


# ---- interval timers -----------------------------------------------------------------------------


def setitimer(sim: Sim, task: Task, which: int, interval_us: int, value_us: int) -> int:
    fields = (*divmod(interval_us, 1_000_000), *divmod(value_us, 1_000_000))
    sim.poke(task, DATA + 0x200, struct.pack("<qqqq", *fields))
    return int(sim.call(task, "setitimer", which, DATA + 0x200, DATA + 0x240))


def getitimer(sim: Sim, task: Task, which: int) -> tuple[int, int]:
    assert sim.call(task, "getitimer", which, DATA + 0x280) == 0
    fields = struct.unpack("<qqqq", sim.peek(task, DATA + 0x280, 32))
    return fields[0] * 1_000_000 + fields[1], fields[2] * 1_000_000 + fields[3]


def pending(task: Task) -> int:
    return task.signal.shared_pending.signal


def test_itimer_real_waits_for_its_signal_to_be_taken(sim: Sim) -> None:
    task = sim.process()
    sim.block(task, sigmask(SIGALRM))
    assert setitimer(sim, task, 0, 10_000, 25_000) == 0
    sim.advance(24 * MS)
    assert not pending(task)
    sim.advance(2 * MS)
    assert pending(task) == sigmask(SIGALRM)
    interval, left = getitimer(sim, task, 0)
    assert (interval, left) == (10_000, 0)  # not armed until SIGALRM is taken
    info = dequeue_signal(task, 0)
    assert info is not None and info.code == 0x80
    interval, left = getitimer(sim, task, 0)
    assert interval == 10_000 and 8_000 <= left <= 10_000
    assert setitimer(sim, task, 0, 0, 0) == 0
    sim.advance(SECOND)
    assert not pending(task)


def test_alarm_rounds(sim: Sim) -> None:
    task = sim.process()
    sim.block(task, sigmask(SIGALRM))
    assert sim.call(task, "alarm", 10) == 0
    sim.advance(2_400 * MS)
    assert sim.call(task, "alarm", 10) == 8  # 7.6 rounded
    assert sim.call(task, "alarm", 0) == 10
    assert setitimer(sim, task, 0, 0, 100_000) == 0
    assert sim.call(task, "alarm", 0) == 1  # never 0 while armed
    sim.advance(20 * SECOND)
    assert not pending(task)


def test_itimers_on_cpu_time(sim: Sim) -> None:
    task = sim.process()
    sim.block(task, sigmask(SIGVTALRM) | sigmask(SIGPROF))
    assert setitimer(sim, task, 1, 0, 10_000) == 0
    assert setitimer(sim, task, 2, 20_000, 15_000) == 0
    assert setitimer(sim, task, 9, 0, 0) == -Errno.EINVAL
    other = sim.process()
    sim.switch_to(other)
    sim.advance(100 * MS)  # somebody else computes
    assert not pending(task)
    sim.switch_to(task)
    sim.advance(11 * MS)
    assert pending(task) == sigmask(SIGVTALRM)
    sim.advance(5 * MS)
    assert pending(task) == sigmask(SIGVTALRM) | sigmask(SIGPROF)
    interval, left = getitimer(sim, task, 2)
    assert interval == 20_000 and 17_000 <= left <= 20_000
    assert getitimer(sim, task, 1) == (0, 0)


def test_itimers_are_not_inherited_and_survive_exec(sim: Sim) -> None:
    task = sim.process()
    setitimer(sim, task, 0, 0, 500_000)
    child = sim.fork(task)
    assert getitimer(sim, child, 0) == (0, 0)
    assert getitimer(sim, task, 0)[1] > 0
    sim.call(task, "exit_group", 0)
    assert task.signal.real_timer is None


# ---- POSIX timers --------------------------------------------------------------------------------


def timer_create(sim: Sim, task: Task, clock: int = 1, notify: int = 0, signo: int = SIGUSR1, tid: int = 0) -> int:
    sim.poke(task, DATA + 0x300, struct.pack("<Qiii44x", 0x1234, signo, notify, tid))
    result = sim.call(task, "timer_create", clock, DATA + 0x300, DATA + 0x380)
    return sim.u32(task, DATA + 0x380) if result == 0 else int(result)


def settime(sim: Sim, task: Task, timer: int, interval: int, value: int, flags: int = 0) -> int:
    where = put_timespec(sim, task, interval, value, address=DATA + 0x400)
    return int(sim.call(task, "timer_settime", timer, flags, where, DATA + 0x440))


def gettime(sim: Sim, task: Task, timer: int) -> tuple[int, int]:
    assert sim.call(task, "timer_gettime", timer, DATA + 0x480) == 0
    return timespec(sim, task, DATA + 0x480), timespec(sim, task, DATA + 0x490)


def test_a_timers_signal_carries_id_value_and_overrun(sim: Sim) -> None:
    task = sim.process()
    sim.block(task, sigmask(SIGUSR1))
    timer = timer_create(sim, task)
    assert timer == 0 and timer_create(sim, task) == 1
    assert settime(sim, task, timer, 10 * MS, 10 * MS) == 0
    sim.advance(35 * MS)
    info = dequeue_signal(task, 0)
    assert info is not None
    signo, _, code, tid, overrun, value = struct.unpack("<iii4xiiQ", info.to_bytes()[:32])
    assert (signo, code, tid, overrun, value) == (SIGUSR1, -2, 0, 2, 0x1234)
    assert sim.call(task, "timer_getoverrun", timer) == 2
    interval, left = gettime(sim, task, timer)
    assert interval == 10 * MS and 0 < left <= 10 * MS
    sim.advance(left + MS)
    assert pending(task)
    assert sim.call(task, "timer_delete", timer) == 0
    assert sim.call(task, "timer_gettime", timer, DATA) == -Errno.EINVAL
    assert dequeue_signal(task, 0) is None  # a deleted timer's signal is dropped


def test_one_shot_and_absolute_timers(sim: Sim) -> None:
    task = sim.process()
    sim.block(task, sigmask(SIGUSR1))
    timer = timer_create(sim, task)
    sim.advance(SECOND)
    assert settime(sim, task, timer, 0, SECOND // 2, 1) == 0  # has passed: at once
    sim.settle()
    assert dequeue_signal(task, 0) is not None
    assert gettime(sim, task, timer) == (0, 0)
    assert settime(sim, task, timer, 0, 2 * SECOND, 1) == 0
    assert SECOND // 2 < gettime(sim, task, timer)[1] < SECOND
    assert settime(sim, task, timer, 0, 0) == 0
    assert SECOND // 2 < timespec(sim, task, DATA + 0x450) < SECOND  # the old setting
    sim.advance(5 * SECOND)
    assert not pending(task)


def test_a_timer_whose_signal_is_ignored_goes_on(sim: Sim) -> None:
    task = sim.process()
    sim.handle(task, SIGUSR1, SIG_IGN)
    timer = timer_create(sim, task)
    settime(sim, task, timer, 10 * MS, 10 * MS)
    sim.advance(55 * MS)
    sim.handle(task, SIGUSR1, HANDLER)
    sim.block(task, sigmask(SIGUSR1))
    sim.advance(10 * MS)
    assert pending(task) == sigmask(SIGUSR1)


def test_notification_kinds(sim: Sim) -> None:
    task = sim.process()
    thread = sim.thread(task)
    sim.block(thread, sigmask(SIGUSR1))
    timer = timer_create(sim, task, notify=4, tid=thread.pid)
    settime(sim, task, timer, 0, MS)
    sim.advance(2 * MS)
    assert thread.pending.signal == sigmask(SIGUSR1) and not pending(task)
    quiet = timer_create(sim, task, notify=1)
    settime(sim, task, quiet, 10 * MS, 10 * MS)
    sim.advance(25 * MS)
    assert 0 < gettime(sim, task, quiet)[1] <= 10 * MS and not pending(task)
    assert sim.call(task, "timer_create", 1, 0, DATA + 0x380) == 0  # default: SIGALRM, its id as value
    for bad in ({"notify": 4, "tid": 999}, {"notify": 7}, {"signo": 0}, {"signo": 65}, {"clock": 10}):
        assert timer_create(sim, task, **bad) == -Errno.EINVAL
    assert timer_create(sim, task, clock=4) == -Errno.EOPNOTSUPP
    assert settime(sim, task, 99, 0, 0) == -Errno.EINVAL


def test_timers_on_cpu_clocks(sim: Sim) -> None:
    task, other = sim.process(), sim.process()
    sim.block(task, sigmask(SIGUSR1))
    timer = timer_create(sim, task, clock=2)
    settime(sim, task, timer, 0, 30 * MS)
    sim.switch_to(other)
    sim.advance(100 * MS)
    assert not pending(task)
    sim.switch_to(task)
    sim.advance(31 * MS)
    assert pending(task) == sigmask(SIGUSR1)


def test_timers_do_not_survive_fork_and_exit(sim: Sim) -> None:
    task = sim.process()
    timer = timer_create(sim, task)
    settime(sim, task, timer, 0, SECOND)
    child = sim.fork(task)
    assert sim.call(child, "timer_gettime", timer, DATA) == -Errno.EINVAL
    sim.call(task, "exit_group", 0)
    assert not task.signal.posix_timers and sim.kernel.timers.next_deadline_ns() is None


# ---- CPU time ------------------------------------------------------------------------------------


def test_times_and_getrusage(sim: Sim) -> None:
    task = sim.process()
    sim.switch_to(task)
    sim.advance(250 * MS)
    ticks = sim.call(task, "times", DATA)
    assert ticks == sim.kernel.clock.now_ns() // (10 * MS)
    utime, stime, cutime, cstime = struct.unpack("<qqqq", sim.peek(task, DATA, 32))
    assert utime == 25 and (stime, cutime, cstime) == (0, 0, 0)
    assert sim.call(task, "getrusage", 0, DATA) == 0
    fields = struct.unpack("<18q", sim.peek(task, DATA, 144))
    assert fields[0] == 0 and 249_000 <= fields[1] <= 251_000 and fields[4] > 0
    assert sim.call(task, "getrusage", 5, DATA) == -Errno.EINVAL


def test_rlimit_cpu(sim: Sim) -> None:
    task = sim.process()
    sim.block(task, sigmask(24))
    sim.poke(task, DATA, struct.pack("<QQ", 1, 3))
    assert sim.call(task, "setrlimit", 0, DATA) == 0
    sim.switch_to(task)
    sim.advance(900 * MS)
    assert not pending(task)
    sim.advance(200 * MS)
    assert pending(task) == sigmask(24)  # SIGXCPU
    dequeue_signal(task, 0)
    sim.advance(SECOND)
    assert pending(task) == sigmask(24)
    sim.advance(SECOND)
    assert task.exiting and task.exit_code == 9


def test_adjtimex_shows_a_free_running_clock(sim: Sim) -> None:
    task = sim.process()
    sim.poke(task, DATA, bytes(208))
    assert sim.call(task, "adjtimex", DATA) == 5
    assert struct.unpack_from("<i", sim.peek(task, DATA, 208), 40)[0] == 0x40
    seconds = struct.unpack_from("<q", sim.peek(task, DATA, 208), 72)[0]
    assert seconds == BOOT_REALTIME_NS // SECOND
    sim.poke(task, DATA, struct.pack("<I", 1))
    assert sim.call(task, "adjtimex", DATA) == -Errno.EPERM


def test_a_signal_during_a_sleep_is_not_lost(sim: Sim) -> None:
    task = sim.process()
    sim.handle(task, SIGALRM, HANDLER)
    setitimer(sim, task, 0, 0, 50_000)
    assert sim.call(task, "pause") is ASLEEP
    sim.advance(60 * MS)
    assert task.regs.read(Reg.RIP) == HANDLER
    assert sim.call(task, "kill", task.pid, 9) is GONE
