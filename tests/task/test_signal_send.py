"""Sending signals: who may, what is queued, what is dropped, who takes them.  signal(7), kill(2), sigqueue(3)."""

from __future__ import annotations

import struct

import pytest

from kernel.abi.errno import Errno
from kernel.abi.signal import (
    SIG_IGN,
    SIGALRM,
    SIGCHLD,
    SIGKILL,
    SIGSTOP,
    SIGTERM,
    SIGUSR1,
    SIGUSR2,
    SigInfo,
    sigmask,
)
from kernel.hardware import Reg
from kernel.task.signal import dequeue_signal, force_sig_fault, kill_pgrp, send_signal
from kernel.task.task import TIF_SIGPENDING, TaskState
from tests.task.harness import ASLEEP, DATA, GONE, Sim

HANDLER = 0x40_0800


@pytest.fixture
def sim() -> Sim:
    return Sim()


def test_kill_of_oneself_is_delivered_before_kill_returns(sim: Sim) -> None:
    task = sim.process()
    sim.handle(task, SIGUSR1, HANDLER)
    assert sim.call(task, "kill", task.pid, SIGUSR1) is GONE
    assert task.regs.read(Reg.RIP) == HANDLER


def test_classic_signals_do_not_queue_but_real_time_ones_do(sim: Sim) -> None:
    task = sim.process()
    sim.block(task, sigmask(SIGUSR1) | sigmask(40))
    for _ in range(3):
        sim.call(task, "kill", task.pid, SIGUSR1)
        sim.call(task, "kill", task.pid, 40)
    queue = [info.signo for info in task.signal.shared_pending.queue]
    assert queue.count(SIGUSR1) == 1 and queue.count(40) == 3


def test_signals_are_taken_lowest_first_and_the_threads_own_before_the_processes(sim: Sim) -> None:
    task = sim.process()
    sim.block(task, (1 << 64) - 1)
    sim.call(task, "kill", task.pid, 40)
    sim.call(task, "kill", task.pid, SIGTERM)
    sim.call(task, "tkill", task.pid, 41)
    sim.call(task, "tkill", task.pid, SIGUSR2)
    taken = []
    while (info := dequeue_signal(task, 0)) is not None:
        taken.append(info.signo)
    assert taken == [SIGUSR2, 41, SIGTERM, 40]


def test_ignored_signals_leave_no_trace_unless_blocked(sim: Sim) -> None:
    task = sim.process()
    sim.handle(task, SIGUSR1, SIG_IGN)
    assert sim.call(task, "kill", task.pid, SIGUSR1) == 0
    assert not task.signal.shared_pending.signal
    sim.block(task, sigmask(SIGUSR1))
    sim.call(task, "kill", task.pid, SIGUSR1)
    assert task.signal.shared_pending.signal == sigmask(SIGUSR1)
    sim.block(task, 0)
    assert not task.signal.shared_pending.signal


def test_setting_a_pending_signal_to_ignored_discards_it(sim: Sim) -> None:
    task = sim.process()
    sim.block(task, sigmask(SIGCHLD) | sigmask(SIGUSR1))
    sim.call(task, "kill", task.pid, SIGUSR1)
    sim.call(task, "kill", task.pid, SIGCHLD)
    sim.handle(task, SIGUSR1, SIG_IGN)
    sim.handle(task, SIGCHLD, 0)  # SIG_DFL of SIGCHLD ignores it too
    assert not task.signal.shared_pending.signal and not task.signal.shared_pending.queue


def test_kill_reports_who_is_missing_and_what_is_wrong(sim: Sim) -> None:
    task = sim.process()
    assert sim.call(task, "kill", 999, SIGTERM) == -Errno.ESRCH
    assert sim.call(task, "kill", task.pid, 65) == -Errno.EINVAL
    assert sim.call(task, "kill", task.pid, -1) == -Errno.EINVAL
    assert sim.call(task, "kill", -999, SIGTERM) == -Errno.ESRCH
    assert sim.call(task, "kill", -(1 << 31), SIGTERM) == -Errno.ESRCH
    assert sim.call(task, "kill", task.pid, 0) == 0
    assert sim.call(task, "tgkill", task.pid, 0, SIGTERM) == -Errno.EINVAL
    assert sim.call(task, "tgkill", task.pid + 7, task.pid, SIGTERM) == -Errno.ESRCH
    assert sim.call(task, "tkill", 999, SIGTERM) == -Errno.ESRCH


def test_another_users_process_may_not_be_signalled(sim: Sim) -> None:
    mine, theirs = sim.process(uid=1000), sim.process(uid=1001)
    root = sim.process()
    assert sim.call(mine, "kill", theirs.pid, SIGTERM) == -Errno.EPERM
    assert sim.call(mine, "kill", theirs.pid, 0) == -Errno.EPERM
    assert sim.call(root, "kill", theirs.pid, 0) == 0


def test_kill_minus_one_spares_init_and_the_caller(sim: Sim) -> None:
    task = sim.process()
    assert sim.call(task, "kill", -1, SIGTERM) == -Errno.ESRCH
    others = [sim.process(), sim.process()]
    assert sim.call(task, "kill", -1, SIGKILL) == 0
    sim.settle()
    assert all(other.exiting for other in others) and not task.exiting and not sim.kernel.init_task.exiting


def test_kill_of_a_group_reaches_all_members(sim: Sim) -> None:
    task = sim.process()
    child = sim.fork(task)
    assert sim.call(task, "setpgid", 0, 0) == -Errno.EPERM  # a session leader
    sim.handle(task, SIGUSR1, SIG_IGN)
    assert sim.call(task, "kill", 0, SIGUSR1) == 0
    sim.settle()
    assert child.exiting and child.exit_code == SIGUSR1


def test_init_cannot_be_killed(sim: Sim) -> None:
    task = sim.process()
    assert sim.call(task, "kill", 1, SIGKILL) == 0
    sim.settle()
    assert sim.kernel.init_task.state is TaskState.INTERRUPTIBLE


def test_sigkill_and_sigstop_cannot_be_caught_or_blocked(sim: Sim) -> None:
    task = sim.process()
    sim.poke(task, DATA, struct.pack("<QQQQ", HANDLER, 0, 0, 0))
    for sig in (SIGKILL, SIGSTOP):
        assert sim.call(task, "rt_sigaction", sig, DATA, 0, 8) == -Errno.EINVAL
    assert sim.call(task, "rt_sigaction", SIGKILL, 0, DATA, 8) == 0  # reading is allowed
    sim.block(task, (1 << 64) - 1)
    assert task.blocked & (sigmask(SIGKILL) | sigmask(SIGSTOP)) == 0


def test_rlimit_sigpending_bounds_real_time_signals_from_sigqueue(sim: Sim) -> None:
    task = sim.process()
    sim.block(task, sigmask(40))
    sim.poke(task, DATA, struct.pack("<QQ", 2, 2))
    assert sim.call(task, "setrlimit", 11, DATA) == 0
    sim.poke(task, DATA + 64, struct.pack("<iii", 40, 0, -1).ljust(128, b"\0"))
    results = [sim.call(task, "rt_sigqueueinfo", task.pid, 40, DATA + 64) for _ in range(3)]
    assert results == [0, 0, -Errno.EAGAIN]
    assert sim.call(task, "kill", task.pid, 40) == 0  # kill(2) loses the record, not the signal


def test_sigqueue_carries_its_record_unchanged(sim: Sim) -> None:
    task = sim.process()
    sim.block(task, sigmask(SIGUSR1))
    record = struct.pack("<iii4xiIQ", SIGUSR2, 7, -1, 1234, 99, 0xDEAD_BEEF).ljust(128, b"\x55")
    sim.poke(task, DATA, record)
    assert sim.call(task, "rt_sigqueueinfo", task.pid, SIGUSR1, DATA) == 0
    sim.poke(task, DATA + 512, struct.pack("<Q", sigmask(SIGUSR1)))
    assert sim.call(task, "rt_sigtimedwait", DATA + 512, DATA + 1024, 0, 8) == SIGUSR1
    assert sim.peek(task, DATA + 1024, 128) == struct.pack("<i", SIGUSR1) + record[4:]


def test_only_oneself_may_be_told_that_the_kernel_sent_it(sim: Sim) -> None:
    task, other = sim.process(), sim.process()
    for code in (0, 0x80, -6):
        sim.poke(task, DATA, struct.pack("<iii", SIGUSR1, 0, code).ljust(128, b"\0"))
        assert sim.call(task, "rt_sigqueueinfo", other.pid, SIGUSR1, DATA) == -Errno.EPERM


def test_a_process_signal_goes_to_a_thread_that_has_it_open(sim: Sim) -> None:
    task = sim.process()
    other = sim.thread(task)
    sim.handle(task, SIGUSR1, HANDLER)
    sim.block(task, sigmask(SIGUSR1))
    assert sim.call(task, "kill", task.pid, SIGUSR1) == 0
    sim.settle()
    assert other.regs.read(Reg.RIP) == HANDLER


def test_blocking_a_waiting_signal_hands_it_to_another_thread(sim: Sim) -> None:
    task = sim.process()
    other = sim.thread(task)
    sim.handle(task, SIGUSR1, HANDLER)
    sim.block(other, 0)
    assert sim.call(other, "pause") is ASLEEP
    send_signal(task, SigInfo(SIGUSR1, 0))
    assert task.exit_work & TIF_SIGPENDING and not other.exit_work & TIF_SIGPENDING
    from kernel.task.signal import set_current_blocked

    set_current_blocked(task, sigmask(SIGUSR1))
    assert other.exit_work & TIF_SIGPENDING
    sim.settle()
    assert other.regs.read(Reg.RIP) == HANDLER


def test_a_fatal_signal_ends_all_threads(sim: Sim) -> None:
    task = sim.process()
    thread = sim.thread(task)
    assert sim.call(thread, "pause") is ASLEEP
    assert sim.call(task, "kill", task.pid, SIGTERM) is GONE
    assert thread.exiting and task.exiting and task.exit_code == SIGTERM


def test_a_fault_cannot_be_blocked_or_ignored(sim: Sim) -> None:
    task = sim.process()
    sim.handle(task, 11, HANDLER)
    sim.block(task, sigmask(11))
    force_sig_fault(task, 11, 1, 0x1234)
    assert not sim.take_signals(task)
    assert task.exit_code & 0x7F == 11


def test_a_synchronous_fault_is_delivered_before_lower_signals(sim: Sim) -> None:
    task = sim.process()
    sim.handle(task, 11, HANDLER)
    sim.handle(task, 1, HANDLER + 8)
    send_signal(task, SigInfo(1, 0))
    task.regs.write(Reg.RIP, 0x40_0123)
    force_sig_fault(task, 11, 1, 0x1234)
    assert sim.take_signals(task)
    # SIGHUP's frame lies on top: its handler runs first, and returns into SIGSEGV's.
    assert task.regs.read(Reg.RIP) == HANDLER + 8
    frame = task.regs.read(Reg.RSP)
    assert sim.u64(task, frame + 8 + 40 + 16 * 8) == HANDLER


def test_the_terminal_signals_a_whole_group(sim: Sim) -> None:
    task = sim.process()
    child = sim.fork(task)
    assert kill_pgrp(sim.kernel, task.signal.pgrp, 2) == 2
    sim.settle()
    assert task.exiting and child.exiting


def test_signals_to_a_zombie_succeed_and_do_nothing(sim: Sim) -> None:
    task = sim.process()
    child = sim.fork(task)
    sim.call(child, "exit_group", 0)
    assert sim.call(task, "kill", child.pid, SIGKILL) == 0
    assert sim.call(task, "tgkill", child.pid, child.pid, SIGALRM) == 0
    assert child.state is TaskState.ZOMBIE


def test_pidfd_send_signal(sim: Sim) -> None:
    task = sim.process()
    child = sim.fork(task)
    fd = sim.call(task, "pidfd_open", child.pid, 0)
    assert sim.call(task, "pidfd_send_signal", fd, 0, 0, 0) == 0
    assert sim.call(task, "pidfd_send_signal", fd, 70, 0, 0) == -Errno.EINVAL
    assert sim.call(task, "pidfd_send_signal", 77, SIGTERM, 0, 0) == -Errno.EBADF
    assert sim.call(task, "pidfd_send_signal", fd, SIGTERM, 0, 0) == 0
    sim.settle()
    assert child.exit_code == SIGTERM
    assert sim.call(task, "wait4", child.pid, 0, 0, 0) == child.pid
    assert sim.call(task, "pidfd_send_signal", fd, SIGTERM, 0, 0) == -Errno.ESRCH
