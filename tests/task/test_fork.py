"""clone and its flags, fork, vfork, threads: clone(2), fork(2), vfork(2), unshare(2)."""

from __future__ import annotations

import struct

import pytest

from kernel.abi.clone import (
    CLONE_CHILD_CLEARTID,
    CLONE_CHILD_SETTID,
    CLONE_CLEAR_SIGHAND,
    CLONE_DETACHED,
    CLONE_FILES,
    CLONE_FS,
    CLONE_INTO_CGROUP,
    CLONE_NEWNS,
    CLONE_NEWUSER,
    CLONE_PARENT,
    CLONE_PARENT_SETTID,
    CLONE_PIDFD,
    CLONE_SETTLS,
    CLONE_SIGHAND,
    CLONE_THREAD,
    CLONE_VFORK,
    CLONE_VM,
)
from kernel.abi.errno import Errno, KernelError
from kernel.abi.signal import SIG_IGN, SIGCHLD, SIGUSR1, sigmask
from kernel.hardware import Reg
from kernel.task.fork import max_threads
from kernel.task.task import Task, TaskState
from tests.task.harness import ASLEEP, DATA, GONE, Sim, make_elf

THREAD = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD
HANDLER = 0x40_0800


@pytest.fixture
def sim() -> Sim:
    return Sim()


def clone3(sim: Sim, task: Task, size: int = 88, **fields: int) -> object:
    names = "flags pidfd child_tid parent_tid exit_signal stack stack_size tls set_tid set_tid_size cgroup".split()
    data = struct.pack("<11Q", *(fields.get(name, 0) for name in names))
    sim.poke(task, DATA + 0x600, data + bytes(64))
    return sim.call(task, "clone3", DATA + 0x600, size)


def test_fork_copies(sim: Sim) -> None:
    task = sim.process()
    sim.poke(task, DATA, b"before")
    sim.handle(task, SIGUSR1, HANDLER)
    sim.block(task, sigmask(40))
    sim.call(task, "kill", task.pid, 40)
    child = sim.fork(task)
    assert child.parent is task and child.tgid == child.pid
    assert child.mm is not task.mm and sim.peek(child, DATA, 6) == b"before"
    sim.poke(child, DATA, b"child!")
    assert sim.peek(task, DATA, 6) == b"before"
    assert child.sighand is not task.sighand and child.sighand.action[SIGUSR1 - 1].handler == HANDLER
    assert child.blocked == task.blocked and not child.signal.shared_pending.signal
    assert child.regs.read(Reg.RAX) == 0 and child.regs.read(Reg.RIP) == task.regs.read(Reg.RIP)
    assert child.files is not task.files and child.fs is not task.fs
    assert child.signal.pgrp == task.signal.pgrp and child.signal.session == task.signal.session


def test_numbers_go_up_and_are_the_same_every_time() -> None:
    runs = []
    for _ in range(2):
        sim = Sim()
        task = sim.process()
        runs.append([sim.fork(task).pid for _ in range(4)])
    assert runs[0] == runs[1] == [3, 4, 5, 6]


@pytest.mark.parametrize(
    "flags",
    [
        CLONE_THREAD | CLONE_VM,
        CLONE_SIGHAND,
        CLONE_NEWNS,
        CLONE_NEWUSER,
        CLONE_NEWNS | CLONE_FS,
        CLONE_PIDFD | CLONE_DETACHED,
    ],
)
def test_flags_that_do_not_go_together(sim: Sim, flags: int) -> None:
    assert sim.call(sim.process(), "clone", flags | SIGCHLD, 0, DATA, 0, 0) == -Errno.EINVAL


def test_pidfd_and_parent_tid_cannot_share_a_word(sim: Sim) -> None:
    flags = CLONE_PIDFD | CLONE_PARENT_SETTID
    assert sim.call(sim.process(), "clone", flags | SIGCHLD, 0, DATA, 0, 0) == -Errno.EINVAL


def test_sharing(sim: Sim) -> None:
    task = sim.process()
    flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND
    child = sim.kernel.tasks[sim.call(task, "clone", flags | SIGCHLD, DATA + 0x8000)]
    assert child.mm is task.mm and child.files is task.files and child.fs is task.fs and child.sighand is task.sighand
    assert child.signal is not task.signal and child.regs.read(Reg.RSP) == DATA + 0x8000
    assert task.mm is not None and task.mm.mm_users == 2 and task.files.refs == 2
    sim.call(child, "exit_group", 0)
    assert task.mm.mm_users == 1 and task.files.refs == 1


def test_thread_ids_tls_and_addresses(sim: Sim) -> None:
    task = sim.process()
    flags = THREAD | CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID
    tid = sim.call(task, "clone", flags, DATA + 0x8000, DATA, DATA + 4, DATA + 0x2000)
    thread = sim.kernel.tasks[tid]
    assert sim.u32(task, DATA) == tid and sim.u32(task, DATA + 4) == tid
    assert thread.regs.read(Reg.FS_BASE) == DATA + 0x2000
    assert thread.signal is task.signal and thread.tgid == task.tgid and thread.parent is task.parent
    assert sim.call(thread, "gettid") == tid and sim.call(thread, "getpid") == task.pid
    assert sim.call(thread, "getppid") == 1
    sim.call(thread, "exit", 0)
    assert sim.u32(task, DATA + 4) == 0 and tid not in sim.kernel.tasks


def test_child_settid_goes_to_the_childs_memory(sim: Sim) -> None:
    task = sim.process()
    pid = sim.call(task, "clone", CLONE_CHILD_SETTID | SIGCHLD, 0, 0, DATA)
    assert sim.u32(sim.kernel.tasks[pid], DATA) == pid and sim.u32(task, DATA) == 0


def test_clone_parent_makes_a_sibling(sim: Sim) -> None:
    task = sim.process()
    child = sim.fork(task)
    sibling = sim.kernel.tasks[sim.call(child, "clone", CLONE_PARENT | 10)]
    assert sibling.parent is task and sibling in task.children
    assert sibling.exit_signal == SIGCHLD  # the caller's, not the one asked for
    orphan = sim.kernel.init_task
    assert sim.kernel.tasks[sim.call(task, "clone", CLONE_PARENT | SIGCHLD)].parent is orphan


def test_exit_signal_other_than_sigchld(sim: Sim) -> None:
    task = sim.process()
    sim.block(task, sigmask(SIGUSR1))
    child = sim.kernel.tasks[sim.call(task, "clone", SIGUSR1)]
    sim.call(child, "exit_group", 3)
    assert task.signal.shared_pending.signal == sigmask(SIGUSR1)
    assert sim.call(task, "wait4", -1, 0, 0, 0) == -Errno.ECHILD  # needs __WCLONE or __WALL
    assert sim.call(task, "wait4", -1, DATA, 0x4000_0000, 0) == child.pid
    assert sim.u32(task, DATA) == 3 << 8


def test_clone_pidfd(sim: Sim) -> None:
    task = sim.process()
    pid = sim.call(task, "clone", CLONE_PIDFD | SIGCHLD, 0, DATA)
    fd = sim.u32(task, DATA)
    assert task.files.get_cloexec(fd)
    assert sim.call(task, "pidfd_send_signal", fd, 0, 0, 0) == 0
    assert sim.kernel.tasks[pid].files.lookup(fd) is None


def test_vfork_sleeps_until_the_child_lets_go(sim: Sim) -> None:
    task = sim.process()
    sim.handle(task, SIGUSR1, HANDLER)
    assert sim.call(task, "vfork") is ASLEEP
    (child,) = task.children
    assert child.mm is task.mm and task.state is TaskState.KILLABLE
    sim.call(sim.process(), "kill", task.pid, SIGUSR1)
    sim.settle()
    assert task.state is TaskState.KILLABLE  # only what is fatal wakes it
    sim.call(child, "exit_group", 0)
    sim.settle()
    assert task.regs.read(Reg.RIP) == HANDLER  # the signal that waited meanwhile
    sim.sigreturn(task)
    assert sim.result(task) == child.pid


def test_vfork_ends_at_exec(sim: Sim) -> None:
    sim.write_file("/prog", make_elf())
    task = sim.process()
    sim.call(task, "vfork")
    (child,) = task.children
    sim.poke(child, DATA, b"/prog\0")
    assert sim.call(child, "execve", DATA, 0, 0) is GONE
    sim.settle()
    assert sim.result(task) == child.pid and child.mm is not task.mm


def test_a_killed_vfork_parent_does_not_wait(sim: Sim) -> None:
    task = sim.process()
    sim.call(task, "vfork")
    (child,) = task.children
    sim.call(sim.process(), "kill", task.pid, 9)
    sim.settle()
    assert task.exiting and not child.exiting and child.parent is sim.kernel.init_task


def test_clone3(sim: Sim) -> None:
    task = sim.process()
    pid = clone3(sim, task, exit_signal=SIGCHLD)
    assert isinstance(pid, int) and sim.kernel.tasks[pid].parent is task
    tid = clone3(sim, task, flags=THREAD, stack=DATA + 0x4000, stack_size=0x1000)
    assert isinstance(tid, int) and sim.kernel.tasks[tid].regs.read(Reg.RSP) == DATA + 0x5000


@pytest.mark.parametrize(
    ("fields", "errno"),
    [
        ({"flags": SIGCHLD}, Errno.EINVAL),
        ({"flags": CLONE_DETACHED}, Errno.EINVAL),
        ({"flags": 1 << 40}, Errno.EINVAL),
        ({"exit_signal": 65}, Errno.EINVAL),
        ({"exit_signal": 256}, Errno.EINVAL),
        ({"flags": THREAD, "exit_signal": SIGCHLD, "stack": DATA, "stack_size": 4096}, Errno.EINVAL),
        ({"flags": CLONE_SIGHAND | CLONE_VM | CLONE_CLEAR_SIGHAND}, Errno.EINVAL),
        ({"stack": DATA}, Errno.EINVAL),
        ({"stack_size": 4096}, Errno.EINVAL),
        ({"stack": 1 << 63, "stack_size": 4096}, Errno.EINVAL),
        ({"set_tid": DATA}, Errno.EINVAL),
        ({"set_tid_size": 1}, Errno.EINVAL),
        ({"set_tid": DATA, "set_tid_size": 33}, Errno.EINVAL),
        ({"flags": CLONE_INTO_CGROUP, "cgroup": 1 << 40}, Errno.EINVAL),
    ],
)
def test_clone3_refuses(sim: Sim, fields: dict[str, int], errno: int) -> None:
    assert clone3(sim, sim.process(), **fields) == -errno


def test_clone3_sizes(sim: Sim) -> None:
    task = sim.process()
    assert clone3(sim, task, size=63) == -Errno.EINVAL
    assert clone3(sim, task, size=4097) == -Errno.E2BIG
    assert isinstance(clone3(sim, task, size=64, exit_signal=SIGCHLD), int)
    sim.poke(task, DATA + 0x600, struct.pack("<12Q", *([0] * 11), 1))
    assert sim.call(task, "clone3", DATA + 0x600, 96) == -Errno.E2BIG


def test_clone3_set_tid(sim: Sim) -> None:
    task = sim.process()
    sim.poke(task, DATA, struct.pack("<i", 777))
    assert clone3(sim, task, exit_signal=SIGCHLD, set_tid=DATA, set_tid_size=1) == 777
    assert clone3(sim, task, exit_signal=SIGCHLD, set_tid=DATA, set_tid_size=1) == -Errno.EEXIST
    sim.poke(task, DATA, struct.pack("<i", 40_000))
    assert clone3(sim, task, exit_signal=SIGCHLD, set_tid=DATA, set_tid_size=1) == -Errno.EINVAL
    user = sim.process(uid=1000)
    sim.poke(user, DATA, struct.pack("<i", 778))
    assert clone3(sim, user, exit_signal=SIGCHLD, set_tid=DATA, set_tid_size=1) == -Errno.EPERM


def test_clear_sighand(sim: Sim) -> None:
    task = sim.process()
    sim.handle(task, SIGUSR1, HANDLER)
    sim.handle(task, 12, SIG_IGN)
    pid = clone3(sim, task, flags=CLONE_CLEAR_SIGHAND, exit_signal=SIGCHLD)
    assert isinstance(pid, int)
    actions = sim.kernel.tasks[pid].sighand.action
    assert actions[SIGUSR1 - 1].handler == 0 and actions[11].handler == SIG_IGN


def test_nproc_limit_holds_for_users_not_for_root(sim: Sim) -> None:
    user, root = sim.process(uid=1000), sim.process()
    for task in (user, root):
        sim.poke(task, DATA, struct.pack("<QQ", 2, 2))
        assert sim.call(task, "setrlimit", 6, DATA) == 0
    assert sim.call(user, "fork") > 0
    assert sim.call(user, "fork") == -Errno.EAGAIN
    assert sim.call(root, "fork") > 0 and sim.call(root, "fork") > 0


def test_a_fork_bomb_ends_with_eagain() -> None:
    sim = Sim(ram_pages=2048)
    task = sim.process()
    nr = 0
    while (pid := sim.call(task, "fork")) > 0:
        nr += 1
        task = sim.kernel.tasks[pid]
    assert pid == -Errno.EAGAIN and nr == max_threads(sim.kernel) - 2


def test_numbers_wrap_around_and_skip_what_is_taken(sim: Sim) -> None:
    sim.kernel.sysctl.pid_max = 310
    task = sim.process()
    sim.kernel.pids.last_pid = 305
    pids = []
    for _ in range(8):
        child = sim.fork(task)
        pids.append(child.pid)
        sim.call(child, "exit_group", 0)
        if child.pid != 307:
            sim.call(task, "wait4", child.pid, 0, 0, 0)
    assert pids == [306, 307, 308, 309, 300, 301, 302, 303]
    sim.kernel.pids.last_pid = 306
    assert sim.fork(task).pid == 308


def test_a_failed_fork_leaves_nothing_behind(sim: Sim, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(mm: object) -> None:
        raise KernelError(Errno.ENOMEM, "test")

    task = sim.process()
    monkeypatch.setattr("kernel.task.fork.dup_mm", no_memory)
    before = (task.files.refs, task.fs.refs, task.sighand.refs, len(sim.kernel.tasks), sim.kernel.pids.nr_user_tasks[0])
    assert sim.call(task, "clone", CLONE_PIDFD | SIGCHLD, 0, DATA) == -Errno.ENOMEM
    assert before == (
        task.files.refs, task.fs.refs, task.sighand.refs, len(sim.kernel.tasks), sim.kernel.pids.nr_user_tasks[0],
    )  # fmt: skip
    assert task.files.lookup(0) is None and not task.children


def test_unshare(sim: Sim) -> None:
    task = sim.process()
    child = sim.kernel.tasks[sim.call(task, "clone", CLONE_FS | CLONE_FILES | SIGCHLD)]
    assert sim.call(child, "unshare", CLONE_FS | CLONE_FILES) == 0
    assert child.fs is not task.fs and child.files is not task.files and task.fs.refs == 1 == task.files.refs
    assert sim.call(child, "unshare", CLONE_NEWNS) == -Errno.EINVAL
    assert sim.call(child, "unshare", CLONE_VFORK) == -Errno.EINVAL
    sim.thread(task)
    assert sim.call(task, "unshare", CLONE_THREAD) == -Errno.EINVAL
