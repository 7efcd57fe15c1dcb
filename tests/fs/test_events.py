"""poll(2), select(2), epoll(7), eventfd(2), timerfd_create(2), signalfd(2), inotify(7)."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from kernel.abi.errno import Errno
from kernel.abi.inotify import (
    IN_ATTRIB,
    IN_CLOSE_WRITE,
    IN_CREATE,
    IN_DELETE,
    IN_DELETE_SELF,
    IN_IGNORED,
    IN_ISDIR,
    IN_MODIFY,
    IN_MOVED_FROM,
    IN_MOVED_TO,
    IN_OPEN,
)
from kernel.abi.poll import EPOLLET, EPOLLONESHOT, POLLHUP, POLLIN, POLLNVAL, POLLOUT
from kernel.task.task import Task
from tests.fs.harness import BUFFER, FileSim, Out
from tests.fs.test_pipe import pipe, write
from tests.task.harness import ASLEEP

MS, SECOND = 1_000_000, 1_000_000_000
ADD, DEL, MOD = 1, 2, 3
SIGUSR1, SIGCHLD = 10, 17


@pytest.fixture
def sim(tmp_path: Path) -> FileSim:
    return FileSim(tmp_path)


def ctl(sim: FileSim, task: Task, ep: int, op: int, fd: int, events: int = 0, data: int = 0) -> int:
    sim.poke(task, BUFFER + 0x1000, struct.pack("<IQ", events, data))
    result: int = sim.call(task, "epoll_ctl", ep, op, fd, BUFFER + 0x1000)
    return result


def wait(sim: FileSim, task: Task, ep: int, timeout: int = 0, room: int = 8) -> object:
    count = sim.do(task, "epoll_wait", ep, Out(12 * room), room, timeout)
    if count is ASLEEP:
        return ASLEEP
    return [struct.unpack_from("<IQ", sim.answer[0], 12 * i) for i in range(count)]


# ---- poll and select ------------------------------------------------------------------------------------------------


def test_poll(sim: FileSim) -> None:
    task = sim.shell()
    r, w = pipe(sim, task)
    entries = [(r, POLLIN), (w, POLLOUT), (-1, POLLIN), (77, POLLIN), (0, POLLIN | POLLOUT)]
    sim.poke(task, BUFFER, b"".join(struct.pack("<ihh", fd, events, 0) for fd, events in entries))
    assert sim.call(task, "poll", BUFFER, 5, -1) == 3
    revents = [item[2] for item in struct.iter_unpack("<ihh", sim.peek(task, BUFFER, 40))]
    assert revents == [0, POLLOUT, 0, POLLNVAL, POLLIN | POLLOUT]
    assert sim.call(task, "poll", BUFFER, 1, 100) is ASLEEP
    sim.advance(99 * MS)
    assert task.continuation is not None
    sim.advance(2 * MS)
    assert sim.result(task) == 0
    child = sim.fork(task)
    assert sim.call(task, "poll", BUFFER, 1, -1) is ASLEEP
    write(sim, child, w, b"x")
    sim.settle()
    assert sim.result(task) == 1


def test_select(sim: FileSim) -> None:
    task = sim.shell()
    r, w = pipe(sim, task)
    sim.poke(task, BUFFER, struct.pack("<QQ", 1 << r, 1 << w))
    sim.poke(task, BUFFER + 64, struct.pack("<qq", 1, 500_000))
    assert sim.call(task, "select", w + 1, BUFFER, BUFFER + 8, 0, BUFFER + 64) == 1
    assert struct.unpack("<QQ", sim.peek(task, BUFFER, 16)) == (0, 1 << w)
    sim.poke(task, BUFFER, struct.pack("<Q", 1 << r))
    child = sim.fork(task)
    assert sim.call(task, "select", w + 1, BUFFER, 0, 0, BUFFER + 64) is ASLEEP
    sim.advance(500 * MS)
    write(sim, child, w, b"x")
    sim.settle()
    assert sim.result(task) == 1
    seconds, micros = struct.unpack("<qq", sim.peek(task, BUFFER + 64, 16))
    assert 900_000 < seconds * 1_000_000 + micros <= 1_000_000, "the time that was left is stored"
    sim.poke(task, BUFFER, struct.pack("<Q", 1 << 40))
    assert sim.call(task, "select", 64, BUFFER, 0, 0, 0) == -Errno.EBADF
    assert sim.call(task, "select", -1, 0, 0, 0, 0) == -Errno.EINVAL


def test_ppoll_opens_the_signal_mask_for_its_time(sim: FileSim) -> None:
    task = sim.shell()
    r, _w = pipe(sim, task)
    sim.handle(task, SIGUSR1, 0x40_0100)
    sim.block(task, 1 << (SIGUSR1 - 1))
    sim.call(task, "kill", task.pid, SIGUSR1)
    sim.poke(task, BUFFER, struct.pack("<ihh", r, POLLIN, 0))
    sim.poke(task, BUFFER + 64, bytes(8))
    sim.call(task, "ppoll", BUFFER, 1, 0, BUFFER + 64, 8)
    assert task.regs.read(15) == 0x40_0100, "the handler runs"
    frame_mask = task.blocked
    assert frame_mask >> (SIGUSR1 - 1) & 1
    sim.sigreturn(task)
    assert sim.result(task) == -Errno.EINTR
    assert task.blocked >> (SIGUSR1 - 1) & 1, "the old mask is back"


# ---- epoll ----------------------------------------------------------------------------------------------------------


def test_epoll_level_and_edge(sim: FileSim) -> None:
    task = sim.shell()
    r, w = pipe(sim, task)
    ep = sim.do(task, "epoll_create1", 0)
    assert ctl(sim, task, ep, ADD, r, POLLIN, 7) == 0
    assert wait(sim, task, ep) == []
    write(sim, task, w, b"x")
    assert wait(sim, task, ep) == [(POLLIN, 7)]
    assert wait(sim, task, ep) == [(POLLIN, 7)], "level-triggered: told again"
    assert ctl(sim, task, ep, MOD, r, POLLIN | EPOLLET, 8) == 0
    assert wait(sim, task, ep) == [(POLLIN, 8)]
    assert wait(sim, task, ep) == [], "edge-triggered: told once"
    write(sim, task, w, b"y")
    assert wait(sim, task, ep) == [(POLLIN, 8)]
    assert ctl(sim, task, ep, MOD, r, POLLIN | EPOLLONESHOT, 9) == 0
    assert wait(sim, task, ep) == [(POLLIN, 9)]
    write(sim, task, w, b"z")
    assert wait(sim, task, ep) == [], "one shot: disarmed"


def test_epoll_errors_and_closing(sim: FileSim) -> None:
    task = sim.shell()
    r, w = pipe(sim, task)
    ep = sim.do(task, "epoll_create1", 0)
    regular = sim.do(task, "open", b"/f", 0o102, 0o644)
    assert ctl(sim, task, ep, ADD, regular, POLLIN) == -Errno.EPERM
    assert ctl(sim, task, ep, ADD, ep, POLLIN) == -Errno.EINVAL
    assert ctl(sim, task, ep, ADD, 99, POLLIN) == -Errno.EBADF
    assert ctl(sim, task, ep, MOD, r, POLLIN) == -Errno.ENOENT
    assert ctl(sim, task, ep, ADD, r, POLLIN, 1) == 0
    assert ctl(sim, task, ep, ADD, r, POLLIN, 1) == -Errno.EEXIST
    other = sim.do(task, "epoll_create1", 0)
    assert ctl(sim, task, other, ADD, ep, POLLIN, 2) == 0
    assert ctl(sim, task, ep, ADD, other, POLLIN, 2) == -Errno.ELOOP
    write(sim, task, w, b"x")
    assert wait(sim, task, other) == [(POLLIN, 2)], "an epoll descriptor is itself ready"
    sim.do(task, "close", r)
    assert wait(sim, task, ep) == []
    assert wait(sim, task, other) == []
    assert sim.do(task, "epoll_wait", ep, Out(12), 0, 0) == -Errno.EINVAL


def test_epoll_wait_sleeps(sim: FileSim) -> None:
    task = sim.shell()
    r, w = pipe(sim, task)
    ep = sim.do(task, "epoll_create1", 0)
    ctl(sim, task, ep, ADD, r, POLLIN, 5)
    child = sim.fork(task)
    assert wait(sim, task, ep, -1) is ASLEEP
    write(sim, child, w, b"x")
    sim.settle()
    assert sim.result(task) == 1
    sim.do(task, "read", r, Out(10), 10)
    assert wait(sim, task, ep, 50) is ASLEEP
    sim.advance(60 * MS)
    assert sim.result(task) == 0
    for fd_task in (task, child):
        sim.do(fd_task, "close", w)
    assert wait(sim, task, ep) == [(POLLHUP, 5)]


# ---- eventfd, timerfd, signalfd -------------------------------------------------------------------------------------


def test_eventfd(sim: FileSim) -> None:
    task = sim.shell()
    fd = sim.do(task, "eventfd2", 3, 0o4000)
    assert sim.do(task, "read", fd, Out(8), 8) == 8
    assert sim.answer[0] == struct.pack("<Q", 3)
    assert sim.do(task, "read", fd, Out(8), 8) == -Errno.EAGAIN
    assert sim.do(task, "read", fd, Out(4), 4) == -Errno.EINVAL
    assert write(sim, task, fd, struct.pack("<Q", 5)) == 8
    assert write(sim, task, fd, struct.pack("<Q", 2**64 - 1)) == -Errno.EINVAL
    assert write(sim, task, fd, struct.pack("<Q", 2**64 - 6)) == -Errno.EAGAIN
    semaphore = sim.do(task, "eventfd2", 2, 1)
    for _ in range(2):
        assert sim.do(task, "read", semaphore, Out(8), 8) == 8
        assert sim.answer[0] == struct.pack("<Q", 1)
    child = sim.fork(task)
    assert sim.do(task, "read", semaphore, Out(8), 8) is ASLEEP
    assert write(sim, child, semaphore, struct.pack("<Q", 1)) == 8
    sim.settle()
    assert sim.result(task) == 8


def test_timerfd(sim: FileSim) -> None:
    task = sim.shell()
    fd = sim.do(task, "timerfd_create", 1, 0)
    sim.poke(task, BUFFER + 0x1000, struct.pack("<qqqq", 0, 100 * MS, 0, 250 * MS))
    assert sim.call(task, "timerfd_settime", fd, 0, BUFFER + 0x1000, 0) == 0
    assert sim.do(task, "read", fd, Out(8), 8) is ASLEEP
    sim.advance(300 * MS)
    assert sim.result(task) == 8
    assert sim.u64(task, BUFFER) == 1
    sim.advance(350 * MS)
    assert sim.do(task, "read", fd, Out(8), 8) == 8
    assert sim.answer[0] == struct.pack("<Q", 4), "at 350, 450, 550 and 650 ms"
    assert sim.do(task, "timerfd_gettime", fd, Out(32)) == 0
    interval_s, interval, value_s, value = struct.unpack("<qqqq", sim.answer[0])
    assert (interval_s, interval, value_s) == (0, 100 * MS, 0) and 0 < value <= 100 * MS
    sim.poke(task, BUFFER + 0x1000, bytes(32))
    assert sim.call(task, "timerfd_settime", fd, 0, BUFFER + 0x1000, 0) == 0
    sim.advance(SECOND)
    sim.do(task, "fcntl", fd, 4, 0o4000)
    assert sim.do(task, "read", fd, Out(8), 8) == -Errno.EAGAIN
    now = sim.kernel.clock.realtime_ns()
    absolute = sim.do(task, "timerfd_create", 0, 0)
    sim.poke(task, BUFFER + 0x1000, struct.pack("<qqqq", 0, 0, *divmod(now + SECOND, SECOND)))
    assert sim.call(task, "timerfd_settime", absolute, 1, BUFFER + 0x1000, 0) == 0
    sim.advance(999 * MS)
    assert sim.kernel.timers.next_deadline_ns() is not None
    sim.advance(2 * MS)
    assert sim.do(task, "read", absolute, Out(8), 8) == 8
    assert sim.do(task, "timerfd_create", 2, 0) == -Errno.EINVAL


def test_signalfd(sim: FileSim) -> None:
    task = sim.shell()
    sim.block(task, 1 << (SIGUSR1 - 1))
    sim.poke(task, BUFFER + 0x1000, struct.pack("<Q", 1 << (SIGUSR1 - 1)))
    fd = sim.call(task, "signalfd4", -1, BUFFER + 0x1000, 8, 0)
    assert fd >= 0
    child = sim.fork(task)
    assert sim.do(task, "read", fd, Out(256), 256) is ASLEEP
    sim.call(child, "kill", task.pid, SIGUSR1)
    sim.settle()
    assert sim.result(task) == 128
    signo, _errno, _code, pid = struct.unpack("<IiiI", sim.peek(task, BUFFER, 16))
    assert (signo, pid) == (SIGUSR1, child.pid)
    assert not task.pending.signal | task.signal.shared_pending.signal


# ---- inotify --------------------------------------------------------------------------------------------------------


def events(sim: FileSim, task: Task, fd: int) -> list[tuple[int, int, bytes]]:
    count = sim.do(task, "read", fd, Out(4096), 4096)
    if count < 0:
        return []
    found = []
    data = sim.answer[0][:count]
    while data:
        wd, mask, _cookie, length = struct.unpack_from("<iIII", data)
        found.append((wd, mask, data[16 : 16 + length].rstrip(b"\0")))
        data = data[16 + length :]
    return found


def test_inotify_of_a_directory(sim: FileSim) -> None:
    task = sim.shell()
    sim.do(task, "mkdir", b"/d", 0o755)
    fd = sim.do(task, "inotify_init1", 0o4000)
    wd = sim.do(task, "inotify_add_watch", fd, b"/d", 0xFFF)
    file = sim.do(task, "open", b"/d/f", 0o102, 0o644)
    write(sim, task, file, b"x")
    write(sim, task, file, b"y")
    sim.do(task, "close", file)
    sim.do(task, "chmod", b"/d/f", 0o600)
    sim.do(task, "rename", b"/d/f", b"/d/g")
    sim.do(task, "mkdir", b"/d/s", 0o755)
    sim.do(task, "unlink", b"/d/g")
    assert events(sim, task, fd) == [
        (wd, IN_CREATE, b"f"), (wd, IN_OPEN, b"f"), (wd, IN_MODIFY, b"f"), (wd, IN_CLOSE_WRITE, b"f"),
        (wd, IN_ATTRIB, b"f"), (wd, IN_MOVED_FROM, b"f"), (wd, IN_MOVED_TO, b"g"), (wd, IN_CREATE | IN_ISDIR, b"s"),
        (wd, IN_DELETE, b"g"),
    ]  # fmt: skip
    assert events(sim, task, fd) == []
    assert sim.do(task, "inotify_rm_watch", fd, wd) == 0
    assert events(sim, task, fd) == [(wd, IN_IGNORED, b"")]
    assert sim.do(task, "inotify_rm_watch", fd, wd) == -Errno.EINVAL


def test_inotify_of_a_file_that_goes_away(sim: FileSim) -> None:
    task = sim.shell()
    sim.do(task, "close", sim.do(task, "open", b"/f", 0o102, 0o644))
    fd = sim.do(task, "inotify_init1", 0o4000)
    wd = sim.do(task, "inotify_add_watch", fd, b"/f", IN_ATTRIB | IN_DELETE_SELF)
    sim.do(task, "unlink", b"/f")
    assert events(sim, task, fd) == [(wd, IN_ATTRIB, b""), (wd, IN_DELETE_SELF, b""), (wd, IN_IGNORED, b"")]
    assert sim.do(task, "inotify_add_watch", fd, b"/f", IN_ATTRIB) == -Errno.ENOENT
    assert sim.do(task, "inotify_add_watch", 0, b"/", IN_ATTRIB) == -Errno.EINVAL
    assert sim.kernel.vfs.superblocks[0].watched == 0


# ---- SIGIO ----------------------------------------------------------------------------------------------------------


def test_sigio_and_directory_notification(sim: FileSim) -> None:
    task = sim.shell()
    sim.block(task, 1 << 28 | 1 << 39)
    r, w = pipe(sim, task)
    assert sim.do(task, "fcntl", r, 8, task.pid) == 0
    assert sim.do(task, "fcntl", r, 4, 0o20000) == 0
    write(sim, task, w, b"x")
    assert task.signal.shared_pending.signal == 1 << 28, "SIGIO"
    assert sim.do(task, "fcntl", r, 10, 40) == 0
    write(sim, task, w, b"y")
    assert task.signal.shared_pending.signal == 1 << 28 | 1 << 39, "the signal of F_SETSIG"
    assert task.signal.shared_pending.queue[-1].fd == r
    assert sim.do(task, "fcntl", r, 4, 0) == 0
    sim.do(task, "mkdir", b"/d", 0o755)
    directory = sim.do(task, "open", b"/d", 0)
    assert sim.do(task, "fcntl", r, 1026, 4) == -Errno.ENOTDIR
    assert sim.do(task, "fcntl", directory, 1026, 0x8000_0000) == 0
    assert sim.do(task, "fcntl", directory, 10, 40) == 0
    assert sim.do(task, "fcntl", directory, 1026, 4) == 0
    before = len(task.signal.shared_pending.queue)
    sim.do(task, "mkdir", b"/d/x", 0o755)
    sim.do(task, "mkdir", b"/d/y", 0o755)
    assert len(task.signal.shared_pending.queue) == before + 1, "told once without DN_MULTISHOT"
