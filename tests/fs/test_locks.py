"""flock(2), and the record locks of fcntl(2)."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from kernel.abi.errno import Errno
from kernel.task.task import Task
from tests.fs.harness import BUFFER, FileSim
from tests.task.harness import ASLEEP

RD, WR, UN = 0, 1, 2
GETLK, SETLK, SETLKW, OFD_GETLK, OFD_SETLK = 5, 6, 7, 36, 37
SH, EX, NB, UNLOCK = 1, 2, 4, 8


@pytest.fixture
def sim(tmp_path: Path) -> FileSim:
    (tmp_path / "f").write_bytes(b"x" * 100)
    return FileSim(tmp_path)


def lock(sim: FileSim, task: Task, fd: int, cmd: int, kind: int, start: int, length: int, whence: int = 0) -> object:
    sim.poke(task, BUFFER, struct.pack("<hhxxxxqqixxxx", kind, whence, start, length, 0))
    return sim.call(task, "fcntl", fd, cmd, BUFFER)


def blocker(sim: FileSim, task: Task, fd: int, kind: int, start: int, length: int, cmd: int = GETLK) -> object:
    assert lock(sim, task, fd, cmd, kind, start, length) == 0
    found = struct.unpack("<hhxxxxqqixxxx", sim.peek(task, BUFFER, 32))
    return None if found[0] == UN else (found[0], found[2], found[3], found[4])


def test_ranges_are_split_and_joined(sim: FileSim) -> None:
    one, two = sim.shell(), sim.shell()
    fd, fd2 = sim.do(one, "open", b"/f", 2), sim.do(two, "open", b"/f", 2)
    assert lock(sim, one, fd, SETLK, WR, 10, 20) == 0
    assert lock(sim, one, fd, SETLK, WR, 30, 10) == 0
    assert blocker(sim, two, fd2, RD, 0, 0) == (WR, 10, 30, one.pid), "neighbours are one lock"
    assert lock(sim, one, fd, SETLK, UN, 15, 5) == 0
    assert blocker(sim, two, fd2, RD, 12, 100) == (WR, 10, 5, one.pid)
    assert blocker(sim, two, fd2, RD, 15, 5) is None
    assert blocker(sim, two, fd2, WR, 16, 10) == (WR, 20, 20, one.pid)
    assert lock(sim, one, fd, SETLK, RD, 0, 0) == 0
    assert blocker(sim, two, fd2, RD, 0, 0) is None
    assert blocker(sim, two, fd2, WR, 500, 1) == (RD, 0, 0, one.pid)
    assert lock(sim, two, fd2, SETLK, WR, 0, 1) == -Errno.EAGAIN
    assert lock(sim, two, fd2, SETLK, RD, 0, 1) == 0
    assert lock(sim, one, fd, SETLK, WR, -5, 5, 2) == 0, "from the end"
    assert lock(sim, one, fd, SETLK, WR, -500, 5, 2) == -Errno.EINVAL
    assert blocker(sim, two, fd2, RD, 97, 1) == (WR, 95, 5, one.pid)
    assert lock(sim, one, fd, SETLK, 7, 0, 1) == -Errno.EINVAL
    readonly = sim.do(one, "open", b"/f", 0)
    assert lock(sim, one, readonly, SETLK, WR, 0, 1) == -Errno.EBADF


def test_any_close_gives_up_the_locks_of_the_process(sim: FileSim) -> None:
    one, two = sim.shell(), sim.shell()
    fd, fd2 = sim.do(one, "open", b"/f", 2), sim.do(two, "open", b"/f", 2)
    lock(sim, one, fd, SETLK, WR, 0, 10)
    another = sim.do(one, "open", b"/f", 0)
    sim.do(one, "close", another)
    assert lock(sim, two, fd2, SETLK, WR, 0, 10) == 0
    child = sim.fork(two)
    assert lock(sim, child, fd2, SETLK, WR, 0, 10) == -Errno.EAGAIN, "locks are not inherited"


def test_waiting_and_deadlock(sim: FileSim) -> None:
    one, two = sim.shell(), sim.shell()
    fd, fd2 = sim.do(one, "open", b"/f", 2), sim.do(two, "open", b"/f", 2)
    lock(sim, one, fd, SETLK, WR, 0, 10)
    lock(sim, two, fd2, SETLK, WR, 20, 10)
    assert lock(sim, one, fd, SETLKW, WR, 20, 10) is ASLEEP
    assert lock(sim, two, fd2, SETLKW, WR, 0, 10) == -Errno.EDEADLK
    assert lock(sim, two, fd2, SETLK, UN, 0, 0) == 0
    sim.settle()
    assert sim.result(one) == 0
    assert lock(sim, two, fd2, SETLK, RD, 25, 1) == -Errno.EAGAIN


def test_open_file_description_locks(sim: FileSim) -> None:
    task = sim.shell()
    fd, fd2 = sim.do(task, "open", b"/f", 2), sim.do(task, "open", b"/f", 2)
    assert lock(sim, task, fd, OFD_SETLK, WR, 0, 10) == 0
    assert lock(sim, task, fd2, OFD_SETLK, WR, 5, 1) == -Errno.EAGAIN
    assert blocker(sim, task, fd2, WR, 5, 1, OFD_GETLK) == (WR, 0, 10, -1)
    copy = sim.do(task, "dup", fd)
    sim.do(task, "close", fd)
    assert lock(sim, task, fd2, OFD_SETLK, WR, 5, 1) == -Errno.EAGAIN, "another descriptor still has it"
    sim.do(task, "close", copy)
    assert lock(sim, task, fd2, OFD_SETLK, WR, 5, 1) == 0


def test_flock(sim: FileSim) -> None:
    task = sim.shell()
    fd, fd2 = sim.do(task, "open", b"/f", 0), sim.do(task, "open", b"/f", 0)
    assert sim.do(task, "flock", fd, SH) == 0
    assert sim.do(task, "flock", fd2, SH | NB) == 0
    assert sim.do(task, "flock", fd2, EX | NB) == -Errno.EAGAIN
    assert sim.do(task, "flock", fd, UNLOCK) == 0
    child = sim.fork(task)
    assert sim.do(task, "flock", fd2, EX | NB) == 0
    assert sim.do(child, "flock", fd, EX) is ASLEEP
    sim.do(task, "close", fd2)
    sim.settle()
    assert child.continuation is not None, "the child's copy of the descriptor keeps the lock"
    assert sim.do(task, "flock", fd, 3) == -Errno.EINVAL
    assert sim.do(task, "flock", 55, SH) == -Errno.EBADF
