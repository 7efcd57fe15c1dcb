"""Exit, zombies, orphans and waiting: _exit(2), wait(2), waitid(2), prctl(2) (subreapers, PDEATHSIG)."""

from __future__ import annotations

import struct

import pytest

from kernel.abi.errno import Errno
from kernel.abi.signal import SIG_IGN, SIGCHLD, SIGCONT, SIGKILL, SIGSEGV, SIGSTOP, SIGTERM, SIGUSR1, sigmask
from kernel.hardware import Reg
from kernel.task.exit import wait_status
from kernel.task.task import Task, TaskState
from tests.task.harness import ASLEEP, DATA, GONE, Sim

HANDLER = 0x40_0800
SA_NOCLDSTOP, SA_NOCLDWAIT, SA_RESTART = 1, 2, 0x1000_0000
WNOHANG, WUNTRACED, WEXITED, WCONTINUED, WNOWAIT, WALL = 1, 2, 4, 8, 0x0100_0000, 0x4000_0000
P_ALL, P_PID, P_PGID, P_PIDFD = range(4)


@pytest.fixture
def sim() -> Sim:
    return Sim()


def siginfo(sim: Sim, task: Task) -> tuple[int, int, int, int, int]:
    """signo, code, pid, uid, status of a waitid result at DATA."""
    signo, _, code, pid, uid, status = struct.unpack("<iii4xiIi", sim.peek(task, DATA, 28))
    return signo, code, pid, uid, status


def test_exit_status(sim: Sim) -> None:
    task = sim.process()
    child = sim.fork(task)
    assert sim.call(child, "exit_group", 0x1FF) is GONE
    assert child.state is TaskState.ZOMBIE and child.mm is None
    assert sim.call(task, "wait4", -1, DATA, 0, 0) == child.pid
    assert sim.u32(task, DATA) == 0xFF00
    assert child.state is TaskState.DEAD and child.pid not in sim.kernel.tasks


def test_death_by_signal_and_core_flag(sim: Sim) -> None:
    task = sim.process()
    for limit, expected in ((0, SIGSEGV), (1 << 20, SIGSEGV | 0x80)):
        sim.poke(task, DATA, struct.pack("<QQ", limit, 1 << 20))
        sim.call(task, "setrlimit", 4, DATA)
        child = sim.fork(task)
        sim.call(child, "kill", child.pid, SIGSEGV)
        sim.call(task, "wait4", -1, DATA, 0, 0)
        assert sim.u32(task, DATA) == expected
    child = sim.fork(task)
    sim.call(child, "prctl", 4, 0)  # not dumpable: no core
    sim.call(child, "kill", child.pid, SIGSEGV)
    sim.call(task, "wait4", -1, DATA, 0, 0)
    assert sim.u32(task, DATA) == SIGSEGV


def test_wait_sleeps_until_a_child_exits(sim: Sim) -> None:
    task = sim.process()
    child = sim.fork(task)
    assert sim.call(task, "wait4", -1, 0, WNOHANG, 0) == 0
    assert sim.call(task, "wait4", -1, DATA, 0, 0) is ASLEEP
    sim.call(child, "exit_group", 1)
    sim.settle()
    assert sim.result(task) == child.pid


def test_whom_to_wait_for(sim: Sim) -> None:
    task = sim.process()
    one, two = sim.fork(task), sim.fork(task)
    sim.call(two, "setpgid", 0, 0)
    sim.call(one, "exit_group", 1)
    sim.call(two, "exit_group", 2)
    assert sim.call(task, "wait4", 999, 0, 0, 0) == -Errno.ECHILD
    assert sim.call(task, "wait4", -999, 0, 0, 0) == -Errno.ECHILD
    assert sim.call(task, "wait4", -two.pid, 0, 0, 0) == two.pid
    assert sim.call(task, "wait4", 0, 0, 0, 0) == one.pid
    assert sim.call(task, "wait4", -1, 0, 0, 0) == -Errno.ECHILD
    assert sim.call(task, "wait4", -1, 0, 0x40, 0) == -Errno.EINVAL
    assert sim.call(task, "wait4", -(1 << 31), 0, 0, 0) == -Errno.ESRCH


def test_sigchld_tells_how_the_child_ended(sim: Sim) -> None:
    task = sim.process()
    sim.block(task, sigmask(SIGCHLD))
    child = sim.fork(task)
    sim.call(child, "exit_group", 7)
    (info,) = task.signal.shared_pending.queue
    assert (info.code, info.pid, info.status) == (1, child.pid, 7)
    child = sim.fork(task)
    sim.call(task, "wait4", -1, 0, 0, 0)
    task.signal.shared_pending.queue.clear()
    task.signal.shared_pending.signal = 0
    sim.call(child, "kill", child.pid, SIGTERM)
    (info,) = task.signal.shared_pending.queue
    assert (info.code, info.pid, info.status) == (2, child.pid, SIGTERM)


@pytest.mark.parametrize("how", ["ignore", "nocldwait"])
def test_children_nobody_wants_to_wait_for_vanish(sim: Sim, how: str) -> None:
    task = sim.process()
    if how == "ignore":
        sim.handle(task, SIGCHLD, SIG_IGN)
    else:
        sim.handle(task, SIGCHLD, 0, SA_NOCLDWAIT)
    child = sim.fork(task)
    assert sim.call(task, "wait4", -1, 0, 0, 0) is ASLEEP
    sim.call(child, "exit_group", 0)
    assert child.state is TaskState.DEAD
    sim.settle()
    assert sim.result(task) == -Errno.ECHILD


def test_a_wait_interrupted_by_sigchlds_handler_returns_the_child(sim: Sim) -> None:
    task = sim.process()
    sim.handle(task, SIGCHLD, HANDLER, SA_RESTART)
    child = sim.fork(task)
    assert sim.call(task, "wait4", -1, 0, 0, 0) is ASLEEP
    sim.call(child, "exit_group", 0)
    sim.settle()
    assert task.regs.read(Reg.RIP) == HANDLER
    sim.sigreturn(task)
    assert sim.result(task) == child.pid


def test_orphans_go_to_init_which_reaps_them(sim: Sim) -> None:
    task = sim.process()
    child = sim.fork(task)
    grandchild = sim.fork(child)
    sim.call(child, "exit_group", 0)
    assert grandchild.parent is sim.kernel.init_task and sim.call(grandchild, "getppid") == 1
    sim.call(grandchild, "exit_group", 0)
    assert grandchild.state is TaskState.DEAD


def test_zombies_of_a_dying_parent_vanish(sim: Sim) -> None:
    task = sim.process()
    child = sim.fork(task)
    grandchild = sim.fork(child)
    sim.call(grandchild, "exit_group", 0)
    assert grandchild.state is TaskState.ZOMBIE
    sim.call(child, "exit_group", 0)
    assert grandchild.state is TaskState.DEAD


def test_subreaper(sim: Sim) -> None:
    task = sim.process()
    child = sim.fork(task)
    assert sim.call(task, "prctl", 36, 1) == 0
    grandchild = sim.fork(child)
    great = sim.fork(grandchild)
    sim.call(grandchild, "exit_group", 0)
    assert great.parent is task
    sim.call(great, "exit_group", 9)
    assert sim.call(task, "wait4", great.pid, DATA, 0, 0) == great.pid and sim.u32(task, DATA) == 9 << 8


def test_parent_death_signal(sim: Sim) -> None:
    task = sim.process()
    child = sim.fork(task)
    grandchild = sim.fork(child)
    assert sim.call(grandchild, "prctl", 1, SIGUSR1) == 0
    assert sim.call(grandchild, "prctl", 1, 65) == -Errno.EINVAL
    sim.call(child, "exit_group", 0)
    sim.settle()
    assert grandchild.exit_code == SIGUSR1


def test_the_leader_waits_as_a_zombie_for_its_threads(sim: Sim) -> None:
    task = sim.process()
    child = sim.fork(task)
    thread = sim.thread(child)
    sim.call(child, "exit", 5)
    assert child.state is TaskState.ZOMBIE
    assert sim.call(task, "wait4", child.pid, 0, WNOHANG, 0) == 0
    sim.call(thread, "exit", 6)
    assert sim.call(task, "wait4", child.pid, DATA, 0, 0) == child.pid
    assert sim.u32(task, DATA) == 5 << 8  # the leader's own status


def test_exit_group_by_a_thread_after_the_leader(sim: Sim) -> None:
    task = sim.process()
    child = sim.fork(task)
    thread = sim.thread(child)
    sim.call(child, "exit", 5)
    sim.call(thread, "exit_group", 6)
    assert wait_status(child) == child.exit_code == 6 << 8
    assert sim.call(task, "wait4", child.pid, DATA, 0, 0) == child.pid and sim.u32(task, DATA) == 6 << 8


def test_exit_group_ends_sleeping_threads(sim: Sim) -> None:
    task = sim.process()
    sim.call(task, "pipe", DATA + 512)
    thread = sim.thread(task)
    assert sim.call(thread, "read", sim.u32(task, DATA + 512), DATA, 1) is ASLEEP
    sim.call(task, "exit_group", 0)
    assert thread.state is TaskState.DEAD and thread.continuation is None


def test_any_thread_may_wait_for_the_processes_children(sim: Sim) -> None:
    task = sim.process()
    thread = sim.thread(task)
    child = sim.fork(task)
    sim.call(child, "exit_group", 0)
    assert sim.call(thread, "wait4", -1, 0, 0x2000_0000, 0) == -Errno.ECHILD  # __WNOTHREAD
    assert sim.call(thread, "wait4", -1, 0, 0, 0) == child.pid


def test_children_of_a_dead_thread_belong_to_the_others(sim: Sim) -> None:
    task = sim.process()
    thread = sim.thread(task)
    child = sim.fork(thread)
    assert child.parent is thread
    sim.call(thread, "exit", 0)
    assert child.parent is task


def test_rusage_of_children_counts_only_those_waited_for(sim: Sim) -> None:
    task = sim.process()
    child = sim.fork(task)
    sim.switch_to(child)
    sim.advance(30_000_000)
    sim.call(child, "exit_group", 0)
    sim.call(task, "getrusage", -1, DATA)
    assert sim.peek(task, DATA, 16) == bytes(16)
    assert sim.call(task, "wait4", -1, 0, 0, DATA + 256) == child.pid
    sim.call(task, "getrusage", -1, DATA)
    seconds, micros = struct.unpack("<qq", sim.peek(task, DATA, 16))
    assert (seconds, micros) == struct.unpack("<qq", sim.peek(task, DATA + 256, 16))
    assert seconds == 0 and 29_000 <= micros <= 31_000


# ---- waitid --------------------------------------------------------------------------------------


def test_waitid(sim: Sim) -> None:
    task = sim.process()
    child = sim.fork(task)
    assert sim.call(task, "waitid", P_ALL, 0, DATA, WEXITED | WNOHANG, 0) == 0
    assert siginfo(sim, task) == (0, 0, 0, 0, 0)
    sim.call(child, "exit_group", 42)
    for _ in range(2):  # WNOWAIT leaves the zombie
        assert sim.call(task, "waitid", P_PID, child.pid, DATA, WEXITED | WNOWAIT, 0) == 0
        assert siginfo(sim, task) == (SIGCHLD, 1, child.pid, 0, 42)
    assert sim.call(task, "waitid", P_ALL, 0, 0, WEXITED, 0) == 0
    assert sim.call(task, "waitid", P_ALL, 0, DATA, WEXITED, 0) == -Errno.ECHILD


def test_waitid_refuses(sim: Sim) -> None:
    task = sim.process()
    for args, errno in (
        ((P_ALL, 0, 0, 0), Errno.EINVAL),
        ((P_ALL, 0, 0, WEXITED | 0x10), Errno.EINVAL),
        ((P_PID, 0, 0, WEXITED), Errno.EINVAL),
        ((P_PGID, -1, 0, WEXITED), Errno.EINVAL),
        ((9, 0, 0, WEXITED), Errno.EINVAL),
        ((P_PIDFD, 77, 0, WEXITED), Errno.EBADF),
    ):
        assert sim.call(task, "waitid", *args, 0) == -errno


def test_waitid_by_pidfd_and_poll(sim: Sim) -> None:
    task = sim.process()
    child = sim.fork(task)
    fd = sim.call(task, "pidfd_open", child.pid, 0)
    file = task.files.get(fd)
    assert file.poll(task) == 0
    sim.call(child, "kill", child.pid, SIGKILL)
    assert file.poll(task) & 1
    assert sim.call(task, "waitid", P_PIDFD, fd, DATA, WEXITED, 0) == 0
    assert siginfo(sim, task) == (SIGCHLD, 2, child.pid, 0, SIGKILL)
    assert file.poll(task) & 0x10
    nonblocking = sim.call(task, "pidfd_open", sim.fork(task).pid, 0o4000)
    assert sim.call(task, "waitid", P_PIDFD, nonblocking, DATA, WEXITED, 0) == -Errno.EAGAIN


# ---- stopping and continuing ---------------------------------------------------------------------


def test_stop_and_continue_are_reported_once(sim: Sim) -> None:
    task = sim.process()
    child = sim.fork(task)
    sim.call(task, "kill", child.pid, SIGSTOP)
    sim.settle()
    assert child.state is TaskState.STOPPED and child.state_letter == "T"
    assert sim.call(task, "wait4", -1, 0, WNOHANG, 0) == 0
    assert sim.call(task, "wait4", -1, DATA, WNOHANG | WUNTRACED, 0) == child.pid
    assert sim.u32(task, DATA) == SIGSTOP << 8 | 0x7F
    assert sim.call(task, "wait4", -1, DATA, WNOHANG | WUNTRACED, 0) == 0
    sim.call(task, "kill", child.pid, SIGCONT)
    sim.settle()
    assert child.state is TaskState.RUNNING
    assert sim.call(task, "waitid", P_ALL, 0, DATA, WCONTINUED, 0) == 0
    assert siginfo(sim, task) == (SIGCHLD, 6, child.pid, 0, SIGCONT)
    assert sim.call(task, "wait4", -1, DATA, WNOHANG | WCONTINUED, 0) == 0


def test_sigchld_for_stops_unless_nocldstop(sim: Sim) -> None:
    task = sim.process()
    sim.block(task, sigmask(SIGCHLD))
    child = sim.fork(task)
    for flags, expected in ((0, sigmask(SIGCHLD)), (SA_NOCLDSTOP, 0)):
        sim.handle(task, SIGCHLD, HANDLER, flags)
        task.signal.shared_pending.signal = 0
        task.signal.shared_pending.queue.clear()
        sim.call(task, "kill", child.pid, SIGSTOP)
        sim.settle()
        assert task.signal.shared_pending.signal == expected
        sim.call(task, "kill", child.pid, SIGCONT)
        sim.settle()


def test_a_stopped_process_can_be_killed_but_not_terminated(sim: Sim) -> None:
    task = sim.process()
    child = sim.fork(task)
    sim.handle(child, SIGUSR1, HANDLER)
    sim.call(task, "kill", child.pid, SIGSTOP)
    sim.settle()
    sim.call(task, "kill", child.pid, SIGUSR1)
    sim.settle()
    assert child.state is TaskState.STOPPED
    sim.call(task, "kill", child.pid, SIGKILL)
    sim.settle()
    assert child.exit_code == SIGKILL


def test_sigcont_runs_pending_handlers_and_resumes_a_sleep(sim: Sim) -> None:
    task = sim.process()
    child = sim.fork(task)
    sim.poke(child, DATA, struct.pack("<qq", 5, 0))
    assert sim.call(child, "nanosleep", DATA, 0) is ASLEEP
    sim.call(task, "kill", child.pid, SIGSTOP)
    sim.settle()
    assert child.state is TaskState.STOPPED
    sim.call(task, "kill", child.pid, SIGCONT)
    sim.settle()
    # restart_syscall is to be made at the same instruction
    assert child.regs.read(Reg.RAX) == 219
    child.regs.write(Reg.RIP, child.regs.read(Reg.RIP) + 2)
    assert sim.call(child, "restart_syscall") is ASLEEP
    sim.advance(5_000_000_000)
    assert sim.result(child) == 0


def test_all_threads_stop_and_the_parent_hears_when_the_last_did(sim: Sim) -> None:
    task = sim.process()
    sim.block(task, sigmask(SIGCHLD))
    child = sim.fork(task)
    thread = sim.thread(child)
    assert sim.call(thread, "pause") is ASLEEP
    sim.call(task, "kill", child.pid, SIGSTOP)
    sim.settle()
    assert child.state is thread.state is TaskState.STOPPED
    (info,) = task.signal.shared_pending.queue
    assert (info.code, info.status) == (5, SIGSTOP)
    sim.call(task, "kill", child.pid, SIGCONT)
    sim.settle()
    assert TaskState.STOPPED not in (child.state, thread.state)


def test_stop_and_continue_cancel_each_other(sim: Sim) -> None:
    task = sim.process()
    child = sim.fork(task)
    sim.block(child, sigmask(20) | sigmask(SIGCONT))
    sim.call(task, "kill", child.pid, 20)
    sim.call(task, "kill", child.pid, SIGCONT)
    assert child.signal.shared_pending.signal == sigmask(SIGCONT)
    sim.call(task, "kill", child.pid, 20)
    assert child.signal.shared_pending.signal == sigmask(20)


def test_an_orphaned_group_does_not_stop_for_the_terminal(sim: Sim) -> None:
    task = sim.process()  # leader of its session, child of init: orphaned
    assert sim.call(task, "kill", task.pid, 20) == 0
    assert task.state is TaskState.RUNNING
    child = sim.fork(task)
    sim.call(child, "setpgid", 0, 0)
    assert sim.call(child, "kill", child.pid, 20) is GONE
    assert child.state is TaskState.STOPPED


def test_a_newly_orphaned_group_with_stopped_members_is_hung_up(sim: Sim) -> None:
    shell = sim.process()
    job = sim.fork(shell)
    sim.call(job, "setpgid", 0, 0)
    member = sim.fork(job)
    sim.call(member, "kill", member.pid, SIGSTOP)
    assert member.state is TaskState.STOPPED
    sim.call(job, "exit_group", 0)  # its parent was the only one outside the group
    sim.settle()
    assert member.exit_code == 1  # SIGHUP
