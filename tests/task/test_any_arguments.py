"""Calls with any arguments, in any order, by any task: a value or an error comes back, never a Python exception.

After each run the books must balance: run queue, threads, process groups, users, queued signals.
"""

from __future__ import annotations

import random

import pytest

from kernel.kernel import Kernel
from kernel.syscalls.table import BY_NAME
from kernel.task.task import Task, TaskState
from tests.task.harness import CODE, DATA, STACK, Sim, make_elf

MODULES = ("process", "signal", "time", "futex", "sched", "creds", "misc", "prctl", "resource")
CALLS = [
    spec.name
    for spec in BY_NAME.values()
    if spec.x86_64 is not None and spec.handler.__module__ in {f"kernel.syscalls.{name}" for name in MODULES}
]
MAX_TASKS = 12
VALUES = (
    0, 1, 2, 3, 4, 5, 8, 9, 16, 17, 24, 32, 64, 100, 128, 0xFF, 0x100, 0x1000, 0x10F00, 0x8000, 0x1_0000, 1 << 20,
    1 << 31,
    (1 << 31) - 1, (1 << 32) - 1, 1 << 32, 1 << 47, (1 << 47) - 4096, 1 << 62, 1 << 63, (1 << 64) - 1, (1 << 64) - 2,
    DATA, DATA + 1, DATA + 64, DATA + 0x1000, DATA + 64 * 4096 - 4, CODE, STACK, 0x400_0000, 0x53564D41, 0x2008_0522,
)  # fmt: skip


def balance(kernel: Kernel) -> None:
    """What pid.py, task.py and sched.py promise."""
    sched, pids = kernel.sched, kernel.pids
    assert sched.current not in sched.runnable and len(set(sched.runnable)) == len(sched.runnable)
    users: dict[int, int] = {}
    queued: dict[int, int] = {}
    for pid, task in kernel.tasks.items():
        assert task.pid == pid and task.state is not TaskState.DEAD
        assert task in task.signal.threads and task.signal.group_leader in task.signal.threads
        assert (task.state is TaskState.RUNNING) == (task in sched.runnable or task is sched.current)
        assert task.exiting == (task.state is TaskState.ZOMBIE)
        assert task.state is TaskState.RUNNING or not task.on_rq
        assert not task.queues or task.state in (TaskState.INTERRUPTIBLE, TaskState.KILLABLE)
        users[task.creds.uid] = users.get(task.creds.uid, 0) + 1
        if task is task.signal.group_leader:
            assert task in pids.pgrps[task.signal.pgrp] and task in pids.sessions[task.signal.session]
            assert task is kernel.init_task or task in task.parent.children
            assert task.signal.nr_live == sum(not thread.exiting for thread in task.signal.threads)
        pendings = [task.pending] + ([task.signal.shared_pending] if task is task.signal.group_leader else [])
        for pending in pendings:
            for info in pending.queue:
                assert pending.signal >> (info.signo - 1) & 1
                if info.charged_uid >= 0:
                    queued[info.charged_uid] = queued.get(info.charged_uid, 0) + 1
    assert users == pids.nr_user_tasks
    assert queued == {uid: nr for uid, nr in pids.nr_sigqueue.items() if nr}
    assert all(members for members in (*pids.pgrps.values(), *pids.sessions.values()))
    for waiters in kernel.futexes.waiters.values():
        assert waiters


def one_call(sim: Sim, rng: random.Random, tasks: list[Task]) -> None:
    task = rng.choice(tasks)
    name = rng.choice(CALLS)
    if name in ("fork", "vfork", "clone", "clone3") and len(sim.kernel.tasks) > MAX_TASKS:
        return
    if name in ("exit", "exit_group") and rng.random() < 0.8:
        return
    args = [rng.choice((*VALUES, *sim.kernel.tasks)) for _ in range(6)]
    if rng.random() < 0.3:
        sim.poke(task, DATA + rng.randrange(0, 256, 8), rng.randbytes(rng.choice((1, 8, 64))))
    if name.startswith("execve"):
        sim.poke(task, DATA, rng.choice((b"/prog\0", b"/script\0", b"/bad\0")))
    sim.call(task, name, *args)


@pytest.mark.parametrize("seed", range(12))
def test_random_calls(seed: int) -> None:
    rng = random.Random(seed)
    sim = Sim(seed=seed)
    sim.write_file("/prog", make_elf(base=0x10_0000, bss=0x4_0000))
    sim.write_file("/script", b"#!/prog x\n")
    sim.write_file("/bad", make_elf(base=0x10_0000, entry_offset=1 << 50))
    for _ in range(3):
        sim.process(uid=rng.choice((0, 1000)))
    for _ in range(250):
        able = [
            task
            for task in sim.kernel.tasks.values()
            if task.state is TaskState.RUNNING and task.continuation is None and not task.exit_work
        ]
        if able:
            one_call(sim, rng, able)
        if rng.random() < 0.2 or not able:
            sim.advance(rng.choice((1_000, 1_000_000, 1_000_000_000)))
        if len(sim.kernel.tasks) < 3:
            sim.process()
        sim.kernel.sched.pick_next()
        balance(sim.kernel)
