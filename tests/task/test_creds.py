"""Users, groups and capabilities: setuid(2), setresuid(2), capabilities(7)."""

from __future__ import annotations

import struct

import pytest

from kernel.abi.capability import CAP_FULL_SET, Cap
from kernel.abi.errno import Errno
from kernel.task.cred import CAP_FS_SET, Cred, exec_creds, ptrace_may_access
from kernel.task.task import Task
from tests.task.harness import DATA, Sim

KEEP = 0xFFFF_FFFF


@pytest.fixture
def sim() -> Sim:
    return Sim()


def users(task: Task) -> tuple[int, int, int, int]:
    creds = task.creds
    return creds.uid, creds.euid, creds.suid, creds.fsuid


def groups(task: Task) -> tuple[int, int, int, int]:
    creds = task.creds
    return creds.gid, creds.egid, creds.sgid, creds.fsgid


def test_setuid_of_root_changes_all_and_drops_capabilities(sim: Sim) -> None:
    task = sim.process()
    assert sim.call(task, "setuid", 1000) == 0
    assert users(task) == (1000, 1000, 1000, 1000)
    assert task.creds.cap_permitted == task.creds.cap_effective == 0
    assert sim.call(task, "setuid", 0) == -Errno.EPERM
    assert sim.call(task, "setuid", KEEP) == -Errno.EINVAL


def test_setuid_of_a_user_switches_between_real_and_saved(sim: Sim) -> None:
    task = sim.process()
    assert sim.call(task, "setresuid", 1000, 2000, 3000) == 0
    assert users(task) == (1000, 2000, 3000, 2000)
    assert sim.call(task, "setuid", 3000) == 0 and users(task) == (1000, 3000, 3000, 3000)
    assert sim.call(task, "setuid", 1000) == 0 and users(task) == (1000, 1000, 3000, 1000)
    assert sim.call(task, "setuid", 2000) == -Errno.EPERM


def test_setreuid(sim: Sim) -> None:
    task = sim.process(uid=1000)
    assert sim.call(task, "setreuid", KEEP, 2000) == -Errno.EPERM
    assert sim.call(task, "setreuid", 2000, KEEP) == -Errno.EPERM
    root = sim.process()
    assert sim.call(root, "setreuid", 1000, 2000) == 0 and users(root) == (1000, 2000, 2000, 2000)
    assert sim.call(root, "setreuid", 2000, 1000) == 0 and users(root) == (2000, 1000, 1000, 1000)
    assert sim.call(root, "setreuid", KEEP, KEEP) == 0 and users(root) == (2000, 1000, 1000, 1000)


def test_setresuid_and_getresuid(sim: Sim) -> None:
    task = sim.process(uid=1000)
    assert sim.call(task, "setresuid", KEEP, 1000, KEEP) == 0
    assert sim.call(task, "setresuid", 1000, 1001, 1000) == -Errno.EPERM
    assert sim.call(task, "getresuid", DATA, DATA + 4, DATA + 8) == 0
    assert struct.unpack("<III", sim.peek(task, DATA, 12)) == (1000, 1000, 1000)
    assert sim.call(task, "getresuid", DATA, 8, DATA) == -Errno.EFAULT


def test_setfsuid_returns_the_old_one_always(sim: Sim) -> None:
    task = sim.process()
    assert sim.call(task, "setfsuid", 1000) == 0
    assert task.creds.fsuid == 1000 and not task.creds.cap_effective & CAP_FS_SET
    assert sim.call(task, "setfsuid", KEEP) == 1000 and task.creds.fsuid == 1000
    assert sim.call(task, "setfsuid", 0) == 1000 and task.creds.cap_effective == CAP_FULL_SET
    user = sim.process(uid=1000)
    assert sim.call(user, "setfsuid", 7) == 1000 and user.creds.fsuid == 1000


def test_groups(sim: Sim) -> None:
    task = sim.process()
    assert sim.call(task, "setgid", 100) == 0 and groups(task) == (100,) * 4
    assert sim.call(task, "setregid", 5, 6) == 0 and groups(task) == (5, 6, 6, 6)
    assert sim.call(task, "setresgid", 7, 8, 9) == 0 and groups(task) == (7, 8, 9, 8)
    assert sim.call(task, "setfsgid", 3) == 8 and task.creds.fsgid == 3
    assert task.creds.cap_effective == CAP_FULL_SET  # groups do not touch capabilities
    user = sim.process(uid=1000)
    assert sim.call(user, "setgid", 5) == -Errno.EPERM
    assert sim.call(user, "setresgid", 5, KEEP, KEEP) == -Errno.EPERM
    assert sim.call(user, "setregid", KEEP, 5) == -Errno.EPERM
    sim.poke(task, DATA, struct.pack("<III", 30, 10, 20))
    assert sim.call(task, "setgroups", 3, DATA) == 0 and task.creds.groups == (10, 20, 30)
    assert sim.call(task, "getgroups", 0, 0) == 3
    assert sim.call(task, "getgroups", 2, DATA) == -Errno.EINVAL
    assert sim.call(task, "getgroups", -1, DATA) == -Errno.EINVAL
    assert sim.call(task, "getgroups", 9, DATA + 64) == 3
    assert struct.unpack("<III", sim.peek(task, DATA + 64, 12)) == (10, 20, 30)
    assert sim.call(task, "setgroups", 65_537, DATA) == -Errno.EINVAL
    assert sim.call(user, "setgroups", 0, 0) == -Errno.EPERM


def test_keepcaps_and_a_change_of_user(sim: Sim) -> None:
    task = sim.process()
    assert sim.call(task, "prctl", 8, 1) == 0 and sim.call(task, "prctl", 7) == 1
    sim.call(task, "setresuid", 1000, 1000, 1000)
    assert task.creds.cap_permitted == CAP_FULL_SET and task.creds.cap_effective == 0


def test_a_change_of_identity_forgets_dumpable_and_pdeathsig(sim: Sim) -> None:
    task = sim.process()
    sim.call(task, "prctl", 1, 9)
    assert sim.call(task, "prctl", 3) == 1
    sim.call(task, "setuid", 1000)
    assert sim.call(task, "prctl", 3) == 0 and task.pdeath_signal == 0


def test_users_are_counted(sim: Sim) -> None:
    task = sim.process()
    table = sim.kernel.pids.nr_user_tasks
    before = table[0]
    sim.call(task, "setuid", 1000)
    assert table[0] == before - 1 and table[1000] == 1
    child = sim.fork(task)
    assert table[1000] == 2
    sim.call(child, "exit_group", 0)
    sim.call(task, "wait4", -1, 0, 0, 0)
    assert table[1000] == 1


# ---- capabilities --------------------------------------------------------------------------------


def capset(sim: Sim, task: Task, effective: int, permitted: int, inheritable: int) -> int:
    sim.poke(task, DATA, struct.pack("<Ii", 0x2008_0522, 0))
    words = b"".join(
        struct.pack("<III", *(value >> shift & 0xFFFF_FFFF for value in (effective, permitted, inheritable)))
        for shift in (0, 32)
    )
    sim.poke(task, DATA + 8, words)
    return int(sim.call(task, "capset", DATA, DATA + 8))


def test_capget(sim: Sim) -> None:
    task = sim.process()
    sim.poke(task, DATA, struct.pack("<Ii", 0x2008_0522, 0))
    assert sim.call(task, "capget", DATA, DATA + 8) == 0
    low = struct.unpack("<III", sim.peek(task, DATA + 8, 12))
    high = struct.unpack("<III", sim.peek(task, DATA + 20, 12))
    assert low == (0xFFFF_FFFF, 0xFFFF_FFFF, 0) and high == (0x1FF, 0x1FF, 0)
    sim.poke(task, DATA, struct.pack("<Ii", 0, 0))
    assert sim.call(task, "capget", DATA, 0) == 0 and sim.u32(task, DATA) == 0x2008_0522
    sim.poke(task, DATA, struct.pack("<Ii", 0, 0))
    assert sim.call(task, "capget", DATA, DATA + 8) == -Errno.EINVAL
    sim.poke(task, DATA, struct.pack("<Ii", 0x2008_0522, 999))
    assert sim.call(task, "capget", DATA, DATA + 8) == -Errno.ESRCH
    sim.poke(task, DATA, struct.pack("<Ii", 0x2008_0522, -1))
    assert sim.call(task, "capget", DATA, DATA + 8) == -Errno.EINVAL


def test_capset_only_ever_takes_away(sim: Sim) -> None:
    task = sim.process()
    kill = 1 << Cap.CAP_KILL
    assert capset(sim, task, 0, kill, 0) == 0
    assert task.creds.cap_effective == 0 and task.creds.cap_permitted == kill
    assert capset(sim, task, kill, kill, kill) == 0
    assert capset(sim, task, kill, kill | 1, 0) == -Errno.EPERM
    assert capset(sim, task, kill | 1, kill, 0) == -Errno.EPERM
    assert capset(sim, task, 0, 0, 1) == -Errno.EPERM
    sim.poke(task, DATA, struct.pack("<Ii", 0x2008_0522, 1))
    assert sim.call(task, "capset", DATA, DATA + 8) == -Errno.EPERM


def test_bounding_and_ambient_sets(sim: Sim) -> None:
    task = sim.process()
    kill = 1 << Cap.CAP_KILL
    assert sim.call(task, "prctl", 23, Cap.CAP_KILL) == 1
    assert sim.call(task, "prctl", 23, 41) == -Errno.EINVAL
    assert sim.call(task, "prctl", 24, Cap.CAP_CHOWN) == 0 and sim.call(task, "prctl", 23, Cap.CAP_CHOWN) == 0
    assert sim.call(task, "prctl", 47, 2, Cap.CAP_KILL, 0, 0) == -Errno.EPERM  # not inheritable yet
    capset(sim, task, CAP_FULL_SET, CAP_FULL_SET, kill)
    assert sim.call(task, "prctl", 47, 2, Cap.CAP_KILL, 0, 0) == 0
    assert sim.call(task, "prctl", 47, 1, Cap.CAP_KILL, 0, 0) == 1
    assert sim.call(task, "prctl", 47, 4, 0, 0, 0) == 0 and task.creds.cap_ambient == 0


def test_exec_creds() -> None:
    user = Cred(1000, 1000)
    plain, secure = exec_creds(user, 1000, 1000, no_new_privs=False)
    assert (plain.euid, plain.cap_effective, secure) == (1000, 0, False)
    suid, secure = exec_creds(user, 0, 1000, no_new_privs=False)
    assert (suid.uid, suid.euid, suid.suid, suid.cap_effective, secure) == (1000, 0, 0, CAP_FULL_SET, True)
    user.cap_permitted = user.cap_inheritable = user.cap_ambient = 1 << Cap.CAP_KILL
    ambient, secure = exec_creds(user, 1000, 1000, no_new_privs=False)
    assert ambient.cap_effective == ambient.cap_permitted == 1 << Cap.CAP_KILL and not secure
    dropped = Cred()
    dropped.cap_permitted = dropped.cap_effective = 0
    again, _ = exec_creds(dropped, 0, 0, no_new_privs=False)
    assert again.cap_effective == CAP_FULL_SET  # root's programs get all back
    held, _ = exec_creds(dropped, 0, 0, no_new_privs=True)
    assert held.cap_effective == 0


def test_ptrace_may_access(sim: Sim) -> None:
    root, one, two, other = sim.process(), sim.process(uid=1000), sim.process(uid=1000), sim.process(uid=1001)
    assert ptrace_may_access(root, one) and ptrace_may_access(one, two) and ptrace_may_access(one, one)
    assert not ptrace_may_access(one, other) and not ptrace_may_access(one, root)
    assert two.mm is not None
    two.mm.dumpable = 0
    assert not ptrace_may_access(one, two) and ptrace_may_access(root, two)
