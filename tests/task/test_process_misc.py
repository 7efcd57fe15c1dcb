"""Process groups and sessions, limits, priorities, prctl, rseq, uname and the rest of the small calls."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from kernel.abi.errno import Errno
from kernel.hardware import Reg
from kernel.syscalls.table import BY_NAME
from kernel.task.task import TIF_NEED_RESCHED, Task, TaskState
from tests.task.harness import ASLEEP, DATA, GONE, Sim


@pytest.fixture
def sim() -> Sim:
    return Sim()


# ---- process groups and sessions -----------------------------------------------------------------


def test_setpgid_rules(sim: Sim) -> None:
    shell = sim.process()
    child, other = sim.fork(shell), sim.fork(shell)
    grandchild = sim.fork(child)
    assert sim.call(shell, "setpgid", child.pid, 0) == 0 and child.signal.pgrp == child.pid
    assert sim.call(shell, "setpgid", other.pid, child.pid) == 0 and other.signal.pgrp == child.pid
    assert sim.call(shell, "getpgid", other.pid) == child.pid == sim.call(other, "getpgrp")
    assert sim.call(shell, "setpgid", grandchild.pid, 0) == -Errno.ESRCH
    assert sim.call(shell, "setpgid", child.pid, -1) == -Errno.EINVAL
    assert sim.call(shell, "setpgid", child.pid, 999) == -Errno.EPERM
    assert sim.call(shell, "setpgid", 0, child.pid) == -Errno.EPERM  # a session leader
    child.did_exec = True
    assert sim.call(shell, "setpgid", child.pid, shell.pid) == -Errno.EACCES
    assert sim.call(shell, "getpgid", 999) == -Errno.ESRCH
    thread = sim.thread(other)
    assert sim.call(other, "setpgid", thread.pid, 0) == -Errno.EINVAL


def test_setsid(sim: Sim) -> None:
    shell = sim.process()
    child = sim.fork(shell)
    assert sim.call(shell, "setsid") == -Errno.EPERM
    assert sim.call(child, "setsid") == child.pid
    assert sim.call(child, "getsid", 0) == sim.call(child, "getpgrp") == child.pid
    assert sim.call(shell, "getsid", child.pid) == child.pid
    assert sim.call(shell, "setpgid", child.pid, 0) == -Errno.EPERM  # another session
    leader = sim.fork(shell)
    member = sim.fork(leader)
    sim.call(leader, "setpgid", 0, 0)
    sim.call(member, "setpgid", 0, leader.pid)
    sim.call(leader, "exit_group", 0)
    sim.call(shell, "wait4", leader.pid, 0, 0, 0)
    assert sim.kernel.pids.in_use(leader.pid)  # still the name of a group
    sim.call(member, "exit_group", 0)
    assert not sim.kernel.pids.in_use(leader.pid)


# ---- limits --------------------------------------------------------------------------------------


def test_prlimit(sim: Sim) -> None:
    task, user = sim.process(), sim.process(uid=1000)
    assert sim.call(task, "prlimit64", 0, 7, 0, DATA) == 0
    assert struct.unpack("<QQ", sim.peek(task, DATA, 16)) == (1024, 1 << 20)
    sim.poke(user, DATA, struct.pack("<QQ", 100, 200))
    assert sim.call(user, "prlimit64", 0, 7, DATA, DATA + 16) == 0
    assert struct.unpack("<QQ", sim.peek(user, DATA + 16, 16)) == (1024, 1 << 20)
    assert sim.call(user, "getrlimit", 7, DATA + 16) == 0
    assert struct.unpack("<QQ", sim.peek(user, DATA + 16, 16)) == (100, 200)
    sim.poke(user, DATA, struct.pack("<QQ", 100, 201))
    assert sim.call(user, "setrlimit", 7, DATA) == -Errno.EPERM
    sim.poke(user, DATA, struct.pack("<QQ", 201, 200))
    assert sim.call(user, "setrlimit", 7, DATA) == -Errno.EINVAL
    assert sim.call(user, "getrlimit", 16, DATA) == -Errno.EINVAL
    assert sim.call(user, "prlimit64", task.pid, 7, 0, DATA) == -Errno.EPERM
    assert sim.call(user, "prlimit64", 999, 7, 0, DATA) == -Errno.ESRCH
    sim.poke(task, DATA, struct.pack("<QQ", 1, (1 << 20) + 1))
    assert sim.call(task, "setrlimit", 7, DATA) == -Errno.EPERM  # above fs.nr_open
    child = sim.fork(user)
    sim.call(child, "getrlimit", 7, DATA)
    assert struct.unpack("<QQ", sim.peek(child, DATA, 16)) == (100, 200)


# ---- scheduling ----------------------------------------------------------------------------------


def test_round_robin(sim: Sim) -> None:
    tasks = [sim.process() for _ in range(3)]
    order = [sim.kernel.sched.pick_next() for _ in range(6)]
    assert order == tasks + tasks
    assert sim.kernel.sched.nr_running == 3 and len(sim.kernel.sched.runnable) == 2


def test_yield_lets_the_others_run(sim: Sim) -> None:
    one, two = sim.process(), sim.process()
    sim.call(one, "sched_yield")
    assert one.exit_work & TIF_NEED_RESCHED
    assert sim.kernel.sched.pick_next() is two
    alone = Sim()
    task = alone.process()
    alone.switch_to(task)
    assert alone.call(task, "sched_yield") == 0 and not task.exit_work


def test_affinity_shows_one_processor(sim: Sim) -> None:
    task = sim.process()
    assert sim.call(task, "sched_getaffinity", 0, 128, DATA) == 8 and sim.u64(task, DATA) == 1
    assert sim.call(task, "sched_getaffinity", 0, 4, DATA) == -Errno.EINVAL
    assert sim.call(task, "sched_getaffinity", 999, 128, DATA) == -Errno.ESRCH
    sim.poke(task, DATA, struct.pack("<Q", 3))
    assert sim.call(task, "sched_setaffinity", 0, 8, DATA) == 0
    sim.poke(task, DATA, struct.pack("<Q", 2))
    assert sim.call(task, "sched_setaffinity", 0, 8, DATA) == -Errno.EINVAL
    assert sim.call(task, "getcpu", DATA, DATA + 4, 0) == 0 and sim.u64(task, DATA) == 0


def test_policies(sim: Sim) -> None:
    task, user = sim.process(), sim.process(uid=1000)
    for who in (task, user):
        sim.poke(who, DATA, struct.pack("<i", 10))
    assert sim.call(task, "sched_setscheduler", 0, 1, DATA) == 0
    assert sim.call(task, "sched_getscheduler", 0) == 1
    assert sim.call(task, "sched_getparam", 0, DATA + 8) == 0 and sim.u32(task, DATA + 8) == 10
    assert sim.call(task, "sched_setscheduler", 0, 0, DATA) == -Errno.EINVAL  # priority with SCHED_OTHER
    assert sim.call(task, "sched_setscheduler", 0, 4, DATA) == -Errno.EINVAL
    assert sim.call(task, "sched_setscheduler", 0, 2 | 0x4000_0000, DATA) == 0
    assert sim.call(task, "sched_getscheduler", 0) == 2 | 0x4000_0000
    assert sim.fork(task).policy == 0
    assert sim.call(user, "sched_setscheduler", 0, 1, DATA) == -Errno.EPERM
    bounds = [
        (sim.call(task, "sched_get_priority_min", p), sim.call(task, "sched_get_priority_max", p)) for p in range(4)
    ]
    assert bounds == [(0, 0), (1, 99), (1, 99), (0, 0)]
    assert sim.call(task, "sched_get_priority_max", 4) == -Errno.EINVAL
    assert sim.call(task, "sched_rr_get_interval", 0, DATA) == 0
    assert struct.unpack("<qq", sim.peek(task, DATA, 16)) == (0, 100_000_000)


def test_sched_attr(sim: Sim) -> None:
    task = sim.process()
    assert sim.call(task, "sched_getattr", 0, DATA, 48, 0) == 0
    assert struct.unpack("<IIQiI", sim.peek(task, DATA, 24)) == (48, 0, 0, 0, 0)
    sim.poke(task, DATA, struct.pack("<IIQiIQQQ", 48, 3, 0, 5, 0, 0, 0, 0))
    assert sim.call(task, "sched_setattr", 0, DATA, 0) == 0
    assert (task.policy, task.nice) == (3, 5)
    sim.poke(task, DATA, struct.pack("<I", 20))
    assert sim.call(task, "sched_setattr", 0, DATA, 0) == -Errno.E2BIG and sim.u32(task, DATA) == 56
    assert sim.call(task, "sched_getattr", 0, DATA, 47, 0) == -Errno.EINVAL


def test_nice_values(sim: Sim) -> None:
    task, user = sim.process(), sim.process(uid=1000)
    assert sim.call(user, "getpriority", 0, 0) == 20
    assert sim.call(user, "setpriority", 0, 0, 5) == 0 and sim.call(user, "getpriority", 0, 0) == 15
    assert sim.call(user, "setpriority", 0, 0, 4) == -Errno.EACCES
    assert sim.call(user, "setpriority", 0, task.pid, 7) == -Errno.EPERM
    assert sim.call(task, "setpriority", 0, user.pid, -99) == 0 and user.nice == -20
    assert sim.call(task, "getpriority", 0, 999) == -Errno.ESRCH
    assert sim.call(task, "getpriority", 9, 0) == -Errno.EINVAL
    child = sim.fork(task)
    sim.call(task, "setpriority", 1, 0, 3)
    assert (task.nice, child.nice) == (3, 3)
    assert sim.call(task, "getpriority", 2, 1000) == 40
    assert sim.call(task, "ioprio_get", 1, 0) == 2 << 13 | 4
    assert sim.call(task, "ioprio_set", 1, 0, 3 << 13) == 0 and sim.call(task, "ioprio_get", 1, 0) == 3 << 13
    assert sim.call(task, "ioprio_set", 1, 0, 2 << 13 | 9) == -Errno.EINVAL


def test_states_and_letters(sim: Sim) -> None:
    task = sim.process()
    assert task.state_letter == "R"
    assert sim.call(task, "pause") is ASLEEP and task.state_letter == "S"
    other = sim.process()
    sim.call(other, "vfork")
    assert other.state is TaskState.KILLABLE and other.state_letter == "D"


# ---- restartable sequences -----------------------------------------------------------------------

SEQ, SEQ_CS = DATA + 0x1000, DATA + 0x1100
SIGNATURE = 0x5305_3053


def register_rseq(sim: Sim) -> Task:
    task = sim.process()
    sim.poke(task, SEQ, b"\xff" * 32)
    assert sim.call(task, "rseq", SEQ, 32, 0, SIGNATURE) == 0
    return task


def test_rseq_registration(sim: Sim) -> None:
    task = register_rseq(sim)
    assert sim.peek(task, SEQ, 16) == bytes(16)

    def call(*args: int) -> object:
        return sim.call(task, "rseq", *args)

    assert call(SEQ, 32, 0, SIGNATURE) == -Errno.EBUSY
    assert call(SEQ + 32, 32, 0, SIGNATURE) == -Errno.EINVAL
    assert call(SEQ, 32, 0, 1) == -Errno.EPERM
    assert call(SEQ, 32, 2, SIGNATURE) == -Errno.EINVAL
    assert call(SEQ, 32, 1, 1) == -Errno.EPERM
    assert call(SEQ, 32, 1, SIGNATURE) == 0
    assert sim.u32(task, SEQ + 4) == 0xFFFF_FFFF
    assert call(SEQ, 32, 1, SIGNATURE) == -Errno.EINVAL
    assert call(SEQ + 8, 32, 0, SIGNATURE) == -Errno.EINVAL
    assert call(SEQ, 16, 0, SIGNATURE) == -Errno.EINVAL


def enter_sequence(sim: Sim, task: Task, ip: int, signature: int = SIGNATURE) -> None:
    """A sequence at [DATA + 0x1300, + 0x20) whose abort handler is at DATA + 0x1404."""
    sim.poke(task, DATA + 0x1400, struct.pack("<I", signature))
    sim.poke(task, SEQ_CS, struct.pack("<IIQQQ", 0, 0, DATA + 0x1300, 0x20, DATA + 0x1404))
    sim.poke(task, SEQ + 8, struct.pack("<Q", SEQ_CS))
    task.regs.write(Reg.RIP, ip)


def test_losing_the_processor_aborts_a_sequence(sim: Sim) -> None:
    task = register_rseq(sim)
    other = sim.process()
    for ip, expected in (
        (DATA + 0x1300, DATA + 0x1404),
        (DATA + 0x131F, DATA + 0x1404),
        (DATA + 0x1320, DATA + 0x1320),
    ):
        sim.switch_to(task)
        sim.take_signals(task)
        enter_sequence(sim, task, ip)
        sim.switch_to(other)
        sim.take_signals(task)
        assert task.regs.read(Reg.RIP) == expected
        assert sim.u64(task, SEQ + 8) == 0


def test_a_signal_aborts_a_sequence_before_the_handler_runs(sim: Sim) -> None:
    task = register_rseq(sim)
    sim.handle(task, 10, 0x40_0800)
    enter_sequence(sim, task, DATA + 0x1310)
    sim.call(sim.process(), "kill", task.pid, 10)
    sim.settle()
    assert task.regs.read(Reg.RIP) == 0x40_0800
    sim.sigreturn(task)
    assert task.regs.read(Reg.RIP) == DATA + 0x1404


def test_a_wrong_signature_kills(sim: Sim) -> None:
    task = register_rseq(sim)
    enter_sequence(sim, task, DATA + 0x1310, signature=1)
    sim.switch_to(sim.process())
    sim.take_signals(task)
    assert task.exit_code & 0x7F == 11


# ---- prctl and the rest --------------------------------------------------------------------------


def test_prctl_names(sim: Sim) -> None:
    task = sim.process()
    sim.poke(task, DATA, b"a-name-that-is-too-long\0")
    assert sim.call(task, "prctl", 15, DATA) == 0 and task.comm == "a-name-that-is-"
    assert sim.call(task, "prctl", 16, DATA + 64) == 0
    assert sim.peek(task, DATA + 64, 16) == b"a-name-that-is-\0"
    assert sim.fork(task).comm == task.comm


def test_prctl_flags(sim: Sim) -> None:
    task = sim.process()
    assert sim.call(task, "prctl", 39, 0, 0, 0, 0) == 0
    assert sim.call(task, "prctl", 38, 1, 1, 0, 0) == -Errno.EINVAL
    assert sim.call(task, "prctl", 38, 1, 0, 0, 0) == 0 and sim.call(task, "prctl", 39, 0, 0, 0, 0) == 1
    assert sim.fork(task).no_new_privs
    assert sim.call(task, "prctl", 4, 2) == -Errno.EINVAL
    assert sim.call(task, "prctl", 30) == 50_000
    assert sim.call(task, "prctl", 29, 1234) == 0 and sim.call(task, "prctl", 30) == 1234
    assert sim.call(task, "prctl", 29, 0) == 0 and sim.call(task, "prctl", 30) == 50_000
    assert sim.call(task, "prctl", 40, DATA) == 0
    assert sim.call(task, "prctl", 21) == 0
    for unsupported in (5, 22, 35, 45, 59, 999):
        assert sim.call(task, "prctl", unsupported, 2, 0, 0, 0) == -Errno.EINVAL


def test_prctl_names_anonymous_areas(sim: Sim) -> None:
    task = sim.process()
    sim.poke(task, DATA, b"heap of x\0bad[name\0")
    assert sim.call(task, "prctl", 0x5356_4D41, 0, DATA + 0x2000, 0x1000, DATA) == 0
    assert task.mm is not None
    assert [a.anon_name for a in task.mm.areas if a.vm_start <= DATA + 0x2000 < a.vm_end] == ["heap of x"]
    assert sim.call(task, "prctl", 0x5356_4D41, 0, DATA + 0x2000, 0x1000, DATA + 10) == -Errno.EINVAL
    assert sim.call(task, "prctl", 0x5356_4D41, 1, DATA, 0x1000, DATA) == -Errno.EINVAL
    assert sim.call(task, "prctl", 0x5356_4D41, 0, DATA + 0x2000, 0x1000, 0) == 0


def test_arch_prctl(sim: Sim) -> None:
    task = sim.process()
    assert sim.call(task, "arch_prctl", 0x1002, DATA) == 0 and task.regs.read(Reg.FS_BASE) == DATA
    assert sim.call(task, "arch_prctl", 0x1003, DATA + 8) == 0 and sim.u64(task, DATA + 8) == DATA
    assert sim.call(task, "arch_prctl", 0x1001, DATA + 16) == 0 and task.regs.read(Reg.GS_BASE) == DATA + 16
    assert sim.call(task, "arch_prctl", 0x1002, 0x7FFF_FFFF_F000) == -Errno.EPERM
    assert sim.call(task, "arch_prctl", 0x1003, 8) == -Errno.EFAULT
    assert sim.call(task, "arch_prctl", 0x3001, DATA) == -Errno.EINVAL
    assert sim.call(task, "arch_prctl", 0x1011, 0) == 1


def test_uname_and_names(sim: Sim) -> None:
    task, user = sim.process(), sim.process(uid=1000)
    assert sim.call(task, "uname", DATA) == 0
    fields = [part.split(b"\0")[0] for part in struct.unpack("65s" * 6, sim.peek(task, DATA, 390))]
    assert fields[0] == b"Linux" and fields[2].startswith(b"6.") and fields[4] == b"x86_64"
    sim.poke(task, DATA, b"guest")
    assert sim.call(task, "sethostname", DATA, 5) == 0
    assert sim.call(task, "sethostname", DATA, 65) == -Errno.EINVAL
    assert sim.call(user, "sethostname", DATA, 5) == -Errno.EPERM
    sim.call(task, "uname", DATA)
    assert sim.peek(task, DATA + 65, 6) == b"guest\0"
    assert sim.call(task, "personality", 0x2_0000) == 0
    sim.call(task, "uname", DATA)
    assert sim.peek(task, DATA + 130, 4) == b"2.6."
    assert sim.call(task, "personality", 0xFFFF_FFFF) == 0x2_0000


def test_sysinfo(sim: Sim) -> None:
    task = sim.process()
    sim.advance(5_500_000_000)
    assert sim.call(task, "sysinfo", DATA) == 0
    uptime, _, _, _, total, free = struct.unpack("<q5Q", sim.peek(task, DATA, 48))
    procs = struct.unpack("<H", sim.peek(task, DATA + 80, 2))[0]
    unit = struct.unpack("<I", sim.peek(task, DATA + 104, 4))[0]
    assert uptime == 6 and 0 < free < total <= 4096 * 4096 and procs == 2 and unit == 1


def test_getrandom_comes_from_the_seed() -> None:
    seen = []
    for seed in (1, 1, 2):
        sim = Sim(seed=seed)
        task = sim.process()
        assert sim.call(task, "getrandom", DATA, 32, 0) == 32
        seen.append(sim.peek(task, DATA, 32))
    assert seen[0] == seen[1] != seen[2]
    sim = Sim()
    task = sim.process()
    assert sim.call(task, "getrandom", DATA, 8, 8) == -Errno.EINVAL
    assert sim.call(task, "getrandom", DATA, 8, 6) == -Errno.EINVAL
    assert sim.call(task, "getrandom", 8, 8, 0) == -Errno.EFAULT
    end = DATA + 64 * 4096
    assert sim.call(task, "getrandom", end - 100, 200, 0) == 100


def test_process_vm(sim: Sim) -> None:
    task = sim.process()
    child = sim.fork(task)
    sim.poke(child, DATA + 0x1000, b"secret of the child")
    local, remote = DATA + 0x100, DATA + 0x140
    sim.poke(task, local, struct.pack("<QQQQ", DATA + 0x400, 6, DATA + 0x500, 100))
    sim.poke(task, remote, struct.pack("<QQ", DATA + 0x1000, 19))
    assert sim.call(task, "process_vm_readv", child.pid, local, 2, remote, 1, 0) == 19
    assert sim.peek(task, DATA + 0x400, 6) == b"secret" and sim.peek(task, DATA + 0x500, 13) == b" of the child"
    sim.poke(task, DATA + 0x400, b"SECRET")
    assert sim.call(task, "process_vm_writev", child.pid, local, 1, remote, 1, 0) == 6
    assert sim.peek(child, DATA + 0x1000, 9) == b"SECRET of"
    assert sim.call(task, "process_vm_readv", 999, local, 1, remote, 1, 0) == -Errno.ESRCH
    assert sim.call(task, "process_vm_readv", child.pid, local, 1, remote, 1, 1) == -Errno.EINVAL
    sim.poke(task, remote, struct.pack("<QQ", 0x10, 19))
    assert sim.call(task, "process_vm_readv", child.pid, local, 1, remote, 1, 0) == -Errno.EFAULT
    sim.poke(task, remote, struct.pack("<QQ", DATA + 64 * 4096 - 4, 19))
    assert sim.call(task, "process_vm_readv", child.pid, local, 1, remote, 1, 0) == 4
    user = sim.process(uid=1000)
    sim.poke(user, local, struct.pack("<QQ", DATA, 4))
    assert sim.call(user, "process_vm_readv", child.pid, local, 1, local, 1, 0) == -Errno.EPERM


def test_pidfd_getfd(sim: Sim) -> None:
    task = sim.process()
    child = sim.fork(task)
    sim.call(child, "pipe", DATA)
    fd = sim.call(task, "pidfd_open", child.pid, 0)
    stolen = sim.call(task, "pidfd_getfd", fd, sim.u32(child, DATA), 0)
    assert task.files.get(stolen) is child.files.get(sim.u32(child, DATA))
    assert sim.call(task, "pidfd_getfd", fd, 99, 0) == -Errno.EBADF
    assert sim.call(task, "pidfd_getfd", fd, 0, 1) == -Errno.EINVAL
    assert sim.call(task, "pidfd_open", 999, 0) == -Errno.ESRCH
    assert sim.call(task, "pidfd_open", 0, 0) == -Errno.EINVAL
    assert sim.call(task, "pidfd_open", child.pid, 1) == -Errno.EINVAL
    thread = sim.thread(task)
    assert sim.call(task, "pidfd_open", thread.pid, 0) == -Errno.ENOENT
    assert sim.call(task, "pidfd_open", thread.pid, 0o200) >= 0
    assert "Pid:\t" in task.files.get(fd).fdinfo()


def test_ptrace_says_that_it_is_not_there(sim: Sim) -> None:
    assert sim.call(sim.process(), "ptrace", 0, 0, 0, 0) == -Errno.ENOSYS


def test_syslog(sim: Sim) -> None:
    task, user = sim.process(), sim.process(uid=1000)
    sim.kernel.log("hello")
    assert sim.call(task, "syslog", 10, 0, 0) == 1 << 18
    nr = sim.call(task, "syslog", 3, DATA, 4096)
    assert b"<6>hello\n" in sim.peek(task, DATA, nr)
    assert sim.call(user, "syslog", 5, 0, 0) == -Errno.EPERM
    assert sim.call(task, "syslog", 11, 0, 0) == -Errno.EINVAL


def test_exit_work_after_death_leaves_the_processor(sim: Sim) -> None:
    task = sim.process()
    assert sim.call(task, "exit", 0) is GONE and sim.kernel.sched.current is None


@pytest.mark.skipif(not Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h").exists(), reason="no kernel headers")
def test_numbers_are_those_of_the_headers() -> None:
    text = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h").read_text()
    numbers = {
        line.split()[1].removeprefix("__NR_"): int(line.split()[2]) for line in text.splitlines() if "__NR_" in line
    }
    for name, spec in BY_NAME.items():
        if spec.x86_64 is not None and name in numbers:
            assert numbers[name] == spec.x86_64, name
