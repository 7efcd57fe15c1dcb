"""pipe(7), fifo(7), splice(2), tee(2)."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from kernel.abi.errno import Errno
from kernel.abi.poll import POLLERR, POLLHUP, POLLIN, POLLOUT
from kernel.task.task import Task
from tests.fs.harness import BUFFER, FileSim, Out
from tests.task.harness import ASLEEP

O_WRONLY, O_RDWR, O_NONBLOCK, O_DIRECT, O_CLOEXEC = 1, 2, 0o4000, 0o40000, 0o2000000
F_SETPIPE_SZ, F_GETPIPE_SZ = 1031, 1032
SIGPIPE = 13


@pytest.fixture
def sim(tmp_path: Path) -> FileSim:
    return FileSim(tmp_path)


def pipe(sim: FileSim, task: Task, flags: int = 0) -> tuple[int, int]:
    assert sim.do(task, "pipe2", Out(8), flags) == 0
    read_end, write_end = struct.unpack("<ii", sim.answer[0])
    return read_end, write_end


def write(sim: FileSim, task: Task, fd: int, data: bytes) -> object:
    return sim.do(task, "write", fd, data, len(data))


def poll(sim: FileSim, task: Task, fd: int) -> int:
    sim.poke(task, BUFFER, struct.pack("<ihh", fd, 0x7FF, 0))
    sim.call(task, "poll", BUFFER, 1, 0)
    revents: int = struct.unpack("<ihh", sim.peek(task, BUFFER, 8))[2]
    return revents & (POLLIN | POLLOUT | POLLERR | POLLHUP)


def test_bytes_come_out_in_order(sim: FileSim) -> None:
    task = sim.shell()
    r, w = pipe(sim, task)
    assert write(sim, task, w, b"one") == 3
    assert write(sim, task, w, b"two") == 3
    assert sim.do(task, "read", r, Out(4), 4) == 4
    assert sim.answer[0] == b"onet"
    assert sim.do(task, "read", r, Out(10), 10) == 2
    assert sim.do(task, "close", w) == 0
    assert sim.do(task, "read", r, Out(10), 10) == 0


def test_capacity_in_pages(sim: FileSim) -> None:
    """16 buffers; small writes fill pages, writes of just over half a page take one each."""
    task = sim.shell()
    for size, total in ((1, 65_536), (4096, 65_536), (3000, 48_000), (512, 65_536), (65_536, 65_536)):
        r, w = pipe(sim, task, O_NONBLOCK)
        written = 0
        while (count := write(sim, task, w, b"x" * size)) != -Errno.EAGAIN:
            assert isinstance(count, int)
            written += count
        assert written == total, size
        for fd in (r, w):
            sim.do(task, "close", fd)


def test_a_blocked_reader_and_a_blocked_writer(sim: FileSim) -> None:
    task = sim.shell()
    r, w = pipe(sim, task)
    child = sim.fork(task)
    assert sim.do(child, "read", r, Out(10), 10) is ASLEEP
    assert write(sim, task, w, b"wake") == 4
    sim.settle()
    assert sim.result(child) == 4
    assert sim.do(task, "write", w, b"y" * 100_000, 100_000) is ASLEEP
    assert sim.do(child, "read", r, Out(60_000), 60_000) == 60_000
    sim.settle()
    assert sim.do(child, "read", r, Out(60_000), 60_000) == 40_000
    sim.settle()
    assert sim.result(task) == 100_000


def test_without_a_reader(sim: FileSim) -> None:
    task = sim.shell()
    sim.handle(task, SIGPIPE, 1)  # ignored: EPIPE only
    r, w = pipe(sim, task)
    sim.do(task, "close", r)
    assert write(sim, task, w, b"x") == -Errno.EPIPE
    assert sim.do(task, "write", w, 0, 0) == 0
    assert poll(sim, task, w) == POLLOUT | POLLERR
    sim.handle(task, SIGPIPE, 0)
    sim.block(task, 1 << (SIGPIPE - 1))
    assert write(sim, task, w, b"x") == -Errno.EPIPE
    assert task.pending.signal >> (SIGPIPE - 1) & 1


def test_poll_and_hang_up(sim: FileSim) -> None:
    task = sim.shell()
    r, w = pipe(sim, task)
    assert poll(sim, task, r) == 0 and poll(sim, task, w) == POLLOUT
    write(sim, task, w, b"x" * 65_536)
    assert poll(sim, task, r) == POLLIN and poll(sim, task, w) == 0
    sim.do(task, "close", w)
    assert poll(sim, task, r) == POLLIN | POLLHUP
    sim.do(task, "read", r, Out(65_536), 65_536)
    assert poll(sim, task, r) == POLLHUP


def test_resizing(sim: FileSim) -> None:
    task = sim.shell()
    r, w = pipe(sim, task)
    assert sim.do(task, "fcntl", r, F_GETPIPE_SZ, 0) == 65_536
    assert sim.do(task, "fcntl", w, F_SETPIPE_SZ, 5000) == 8192
    assert sim.do(task, "fcntl", r, F_GETPIPE_SZ, 0) == 8192
    write(sim, task, w, b"x" * 8192)
    assert sim.do(task, "fcntl", w, F_SETPIPE_SZ, 4096) == -Errno.EBUSY
    assert sim.do(task, "fcntl", w, F_SETPIPE_SZ, 1 << 20) == 1 << 20
    assert sim.do(task, "fcntl", 0, F_GETPIPE_SZ, 0) == -Errno.EBADF
    other = sim.shell(1000, 1000)
    r, w = pipe(sim, other)
    assert sim.do(other, "fcntl", w, F_SETPIPE_SZ, (1 << 20) + 1) == -Errno.EPERM


def test_packets(sim: FileSim) -> None:
    task = sim.shell()
    r, w = pipe(sim, task, O_DIRECT)
    write(sim, task, w, b"first")
    write(sim, task, w, b"second")
    assert sim.do(task, "read", r, Out(3), 3) == 3
    assert sim.do(task, "read", r, Out(100), 100) == 6, "the rest of a packet is lost"


def test_a_bad_buffer_loses_nothing(sim: FileSim) -> None:
    task = sim.shell()
    r, w = pipe(sim, task)
    write(sim, task, w, b"precious")
    assert sim.call(task, "read", r, 0x5000, 8) == -Errno.EFAULT
    assert sim.do(task, "read", r, Out(8), 8) == 8
    assert sim.answer[0] == b"precious"
    assert sim.call(task, "write", w, 0x5000, 8) == -Errno.EFAULT
    assert sim.call(task, "pipe2", 0x5000, 0) == -Errno.EFAULT
    assert sim.call(task, "pipe2", BUFFER, 1) == -Errno.EINVAL


def test_fifo_opens_wait_for_each_other(sim: FileSim) -> None:
    task = sim.shell()
    assert sim.do(task, "mknod", b"/fifo", 0o10644, 0) == 0
    assert sim.do(task, "open", b"/fifo", O_WRONLY | O_NONBLOCK) == -Errno.ENXIO
    fd = sim.do(task, "open", b"/fifo", O_NONBLOCK)
    assert sim.do(task, "read", fd, Out(1), 1) == 0, "no writer: the end"
    assert poll(sim, task, fd) == 0, "but no hang-up before the first writer"
    sim.do(task, "close", fd)
    child = sim.fork(task)
    assert sim.do(child, "open", b"/fifo", 0) is ASLEEP
    w = sim.do(task, "open", b"/fifo", O_WRONLY)
    assert w >= 0
    sim.settle()
    r = sim.result(child)
    assert r >= 0
    assert write(sim, task, w, b"through") == 7
    assert sim.do(child, "read", r, Out(10), 10) == 7
    sim.do(task, "close", w)
    assert poll(sim, child, r) == POLLHUP


def test_splice_and_tee(sim: FileSim) -> None:
    task = sim.shell()
    r, w = pipe(sim, task)
    r2, w2 = pipe(sim, task)
    fd = sim.do(task, "open", b"/out", O_RDWR | 0o100, 0o644)
    write(sim, task, w, b"some data")
    assert sim.do(task, "tee", r, w2, 100, 0) == 9
    assert sim.do(task, "splice", r, 0, fd, 0, 4, 0) == 4
    assert sim.do(task, "splice", r2, 0, w, 0, 100, 0) == 9
    assert sim.do(task, "read", r, Out(20), 20) == 14
    assert sim.answer[0][:14] == b" datasome data"
    assert sim.do(task, "lseek", fd, 0, 0) == 0
    assert sim.do(task, "splice", fd, 0, w, 0, 100, 0) == 4
    assert sim.do(task, "sendfile", w, fd, 0, 10) == 0
    assert sim.do(task, "splice", fd, 0, fd, 0, 100, 0) == -Errno.EINVAL
    assert sim.do(task, "splice", r, 0, fd, 0, 100, 2) == 4
    assert sim.do(task, "splice", r, 0, fd, 0, 100, 2) == -Errno.EAGAIN


def test_descriptors(sim: FileSim) -> None:
    task = sim.shell()
    r, w = pipe(sim, task, O_CLOEXEC | O_NONBLOCK)
    assert sim.do(task, "fcntl", r, 1, 0) == 1
    assert sim.do(task, "fcntl", r, 3, 0) == O_NONBLOCK
    assert sim.do(task, "fcntl", w, 3, 0) == O_NONBLOCK | O_WRONLY
    assert sim.do(task, "lseek", r, 0, 0) == -Errno.ESPIPE
    assert sim.do(task, "pread64", r, Out(1), 1, 0) == -Errno.ESPIPE
    assert write(sim, task, r, b"x") == -Errno.EBADF
    assert sim.do(task, "readlink", b"/proc/self/fd/%d" % r, Out(30), 30) > 0
    assert sim.answer[0].startswith(b"pipe:[")
    write(sim, task, w, b"abc")
    assert sim.do(task, "ioctl", r, 0x541B, Out(4)) == 0
    assert sim.answer[0] == b"\3\0\0\0"
