"""Terminals: termios(3), ioctl_tty(2), pty(7), through a pseudo-terminal."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from kernel.abi import termios as t
from kernel.abi.errno import Errno
from kernel.abi.poll import POLLHUP, POLLIN, POLLOUT
from kernel.task.task import Task
from tests.fs.harness import BUFFER, FileSim, Out
from tests.fs.test_pipe import poll, write
from tests.task.harness import ASLEEP

SIGHUP, SIGINT, SIGTTIN, SIGTTOU, SIGCONT, SIGWINCH = 1, 2, 21, 22, 18, 28
O_RDWR, O_NOCTTY, O_NONBLOCK = 2, 0o400, 0o4000


class Pty:
    """A pty with both ends open in one process that leads its session."""

    def __init__(self, sim: FileSim, flags: int = 0) -> None:
        self.sim = sim
        self.task = sim.shell()
        self.master = sim.do(self.task, "open", b"/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK)
        assert sim.do(self.task, "ioctl", self.master, t.TIOCGPTN, Out(4)) == 0
        self.number = struct.unpack("<I", sim.answer[0])[0]
        self.path = b"/dev/pts/%d" % self.number
        assert sim.do(self.task, "open", self.path, O_RDWR | flags) == -Errno.EIO, "locked"
        sim.poke(self.task, BUFFER, bytes(4))
        assert sim.call(self.task, "ioctl", self.master, t.TIOCSPTLCK, BUFFER) == 0
        self.slave = sim.do(self.task, "open", self.path, O_RDWR | flags)
        assert self.slave >= 0

    def type(self, text: bytes) -> None:
        assert write(self.sim, self.task, self.master, text) == len(text)

    def shown(self) -> bytes:
        count = self.sim.do(self.task, "read", self.master, Out(4096), 4096)
        return b"" if count == -Errno.EAGAIN else self.sim.answer[0][:count]

    def read(self, size: int = 100) -> object:
        count = self.sim.do(self.task, "read", self.slave, Out(size), size)
        return self.sim.answer[0][:count] if isinstance(count, int) and count >= 0 else count

    def settings(self) -> t.Termios:
        assert self.sim.do(self.task, "ioctl", self.slave, t.TCGETS, Out(36)) == 0
        settings = t.Termios()
        settings.set(self.sim.answer[0])
        return settings

    def set(self, settings: t.Termios, how: int = t.TCSETS) -> None:
        self.sim.poke(self.task, BUFFER, settings.pack())
        assert self.sim.call(self.task, "ioctl", self.slave, how, BUFFER) == 0

    def raw(self, minimum: int = 1, tenths: int = 0) -> None:
        settings = self.settings()
        settings.lflag &= ~(t.ICANON | t.ECHO | t.ISIG | t.IEXTEN)
        settings.iflag &= ~(t.ICRNL | t.IXON)
        settings.oflag &= ~t.OPOST
        cc = bytearray(settings.cc)
        cc[t.VMIN], cc[t.VTIME] = minimum, tenths
        settings.cc = bytes(cc)
        self.set(settings)


@pytest.fixture
def pty(tmp_path: Path) -> Pty:
    return Pty(FileSim(tmp_path))


def test_a_line_is_echoed_and_read(pty: Pty) -> None:
    pty.type(b"hello")
    assert pty.shown() == b"hello"
    assert poll(pty.sim, pty.task, pty.slave) == POLLOUT
    pty.type(b"\r")
    assert pty.shown() == b"\r\n"
    assert poll(pty.sim, pty.task, pty.slave) == POLLIN | POLLOUT
    assert pty.read(3) == b"hel"
    assert pty.read() == b"lo\n"
    assert pty.read() is ASLEEP


@pytest.mark.parametrize(
    ("typed", "line", "shown"),
    [
        (b"ab\x7fc\r", b"ac\n", b"ab\b \bc\r\n"),
        (b"one two\x17x\r", b"one x\n", b"one two\b \b\b \b\b \bx\r\n"),
        (b"abc\x15z\r", b"z\n", b"abc\b \b\b \b\b \bz\r\n"),
        (b"a\x16\x03b\r", b"a\x03b\n", b"a^\b^Cb\r\n"),
        (b"\x01\r", b"\x01\n", b"^A\r\n"),
        (b"\x01\x7fq\r", b"q\n", b"^A\b \b\b \bq\r\n"),
        (b"ab\x04", b"ab", b"ab"),
        (b"x\ny\r", b"x\n", b"x\r\ny\r\n"),
        (b"\x7f\x7f\r", b"\n", b"\r\n"),
    ],
)
def test_line_editing(pty: Pty, typed: bytes, line: bytes, shown: bytes) -> None:
    pty.type(typed)
    assert pty.shown() == shown
    assert pty.read() == line


def test_end_of_file(pty: Pty) -> None:
    pty.type(b"\x04")
    assert pty.read() == b""
    assert pty.read() is ASLEEP


def test_output_processing(pty: Pty) -> None:
    write(pty.sim, pty.task, pty.slave, b"a\nb\r\n")
    assert pty.shown() == b"a\r\nb\r\r\n"
    settings = pty.settings()
    settings.oflag |= t.XTABS
    pty.set(settings)
    write(pty.sim, pty.task, pty.slave, b"\rx\ty")
    assert pty.shown() == b"\rx       y"
    pty.raw()
    write(pty.sim, pty.task, pty.slave, b"a\n")
    assert pty.shown() == b"a\n"


def test_raw_mode(pty: Pty) -> None:
    pty.raw(minimum=3)
    pty.type(b"\x03\r")
    assert pty.shown() == b""
    assert poll(pty.sim, pty.task, pty.slave) == POLLOUT
    pty.type(b"z")
    assert pty.read() == b"\x03\rz"
    pty.raw(minimum=0)
    assert pty.read() == b""
    pty.raw(minimum=0, tenths=5)
    assert pty.read() is ASLEEP
    pty.sim.advance(600_000_000)
    assert pty.sim.result(pty.task) == 0


def test_switching_modes_keeps_what_was_typed(pty: Pty) -> None:
    pty.type(b"half")
    pty.raw()
    assert pty.read() == b"half"
    pty.type(b"raw")
    settings = t.Termios()
    pty.set(settings)
    assert pty.read() == b"raw"
    pty.type(b"gone\r")
    pty.set(settings, t.TCSETSF)
    assert pty.read() is ASLEEP


def test_the_session_leader_gets_a_controlling_terminal(pty: Pty) -> None:
    sim, task = pty.sim, pty.task
    assert sim.do(task, "ioctl", pty.slave, t.TIOCGPGRP, Out(4)) == 0
    assert struct.unpack("<i", sim.answer[0])[0] == task.pid
    assert sim.do(task, "open", b"/dev/tty", O_RDWR) >= 0
    assert sim.do(task, "ioctl", 0, t.TCGETS, Out(36)) == -Errno.ENOTTY
    sim.block(task, 1 << (SIGINT - 1))
    pty.type(b"typed\x03")
    assert pty.shown() == b"typed^C"
    assert task.signal.shared_pending.signal >> (SIGINT - 1) & 1
    assert pty.read() is ASLEEP, "the line is flushed"


def test_a_background_process_stops_when_it_reads(pty: Pty) -> None:
    sim, task = pty.sim, pty.task
    child = sim.fork(task)
    assert sim.call(child, "setpgid", 0, 0) == 0
    pty.type(b"input\r")
    sim.do(child, "read", pty.slave, Out(10), 10)
    assert child.signal.flags & 1, "stopped by SIGTTIN"
    sim.call(task, "kill", child.pid, 9)
    sim.settle()
    second = sim.fork(task)
    sim.call(second, "setpgid", 0, 0)
    sim.handle(second, SIGTTIN, 1)
    assert sim.do(second, "read", pty.slave, Out(10), 10) == -Errno.EIO
    sim.poke(second, BUFFER, struct.pack("<i", second.pid))
    sim.handle(second, SIGTTOU, 1)
    assert sim.call(second, "ioctl", pty.slave, t.TIOCSPGRP, BUFFER) == 0
    assert sim.do(second, "read", pty.slave, Out(10), 10) == 6


def test_window_size(pty: Pty) -> None:
    sim, task = pty.sim, pty.task
    sim.handle(task, SIGWINCH, 0x40_0100)
    sim.block(task, 1 << (SIGWINCH - 1))
    sim.poke(task, BUFFER, struct.pack("<HHHH", 50, 132, 0, 0))
    assert sim.call(task, "ioctl", pty.master, t.TIOCSWINSZ, BUFFER) == 0
    assert task.signal.shared_pending.signal >> (SIGWINCH - 1) & 1
    assert sim.do(task, "ioctl", pty.slave, t.TIOCGWINSZ, Out(8)) == 0
    assert struct.unpack("<HHHH", sim.answer[0]) == (50, 132, 0, 0)


def test_closing_either_end(tmp_path: Path) -> None:
    pty = Pty(FileSim(tmp_path), O_NOCTTY)
    sim, task = pty.sim, pty.task
    write(sim, task, pty.slave, b"last words")
    sim.do(task, "close", pty.slave)
    assert poll(sim, task, pty.master) & POLLHUP
    assert pty.shown() == b"last words"
    assert sim.do(task, "read", pty.master, Out(10), 10) == -Errno.EIO
    slave = sim.do(task, "open", pty.path, O_RDWR | O_NOCTTY)
    assert pty.shown() == b"", "open again: not at the end any more"
    sim.do(task, "close", pty.master)
    assert sim.do(task, "read", slave, Out(10), 10) == 0
    assert write(sim, task, slave, b"x") == -Errno.EIO
    assert sim.do(task, "open", pty.path, O_RDWR) == -Errno.ENOENT


def test_the_master_hangs_up_the_session(pty: Pty) -> None:
    sim, task = pty.sim, pty.task
    sim.block(task, 1 << (SIGHUP - 1))
    sim.do(task, "close", pty.master)
    assert task.signal.shared_pending.signal >> (SIGHUP - 1) & 1
    assert task.signal.tty is None


def test_flow_control(pty: Pty) -> None:
    pty.type(b"\x13")
    child = pty.sim.fork(pty.task)
    assert write(pty.sim, child, pty.slave, b"held") is ASLEEP
    assert pty.shown() == b""
    pty.type(b"\x11")
    pty.sim.settle()
    assert pty.shown() == b"held"


def test_descriptors_name_the_terminal(pty: Pty) -> None:
    sim, task = pty.sim, pty.task
    assert sim.do(task, "readlink", b"/proc/self/fd/%d" % pty.slave, Out(30), 30) == len(pty.path)
    assert sim.answer[0].rstrip(b"\0") == pty.path
    assert sim.do(task, "lseek", pty.slave, 0, 0) == -Errno.ESPIPE
    assert sim.do(task, "stat", pty.path, Out(144)) == 0
    assert struct.unpack_from("<I", sim.answer[0], 24)[0] == 0o20620
    assert isinstance(task, Task)
