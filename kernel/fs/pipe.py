"""Pipes and FIFOs.

Models ``fs/pipe.c``: pipe(7), fifo(7).  A pipe is a ring of up to ``ring_size`` buffers of one page each; a small
write joins the last buffer if it fits whole, so capacity and atomicity (PIPE_BUF) come out as on Linux.

Invariants: ``0 <= len(bufs) <= ring_size``; no buffer is empty; ``readers`` and ``writers`` count open files.

Deliberate difference: the inode's times stay.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from kernel.abi.errno import ERESTARTSYS, Errno, KernelError
from kernel.abi.fcntl import FMODE_READ, FMODE_WRITE, O_ACCMODE, O_DIRECT, O_NONBLOCK, O_WRONLY, PIPE_BUF
from kernel.abi.ioctl import FIONREAD
from kernel.abi.poll import POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDNORM, POLLWRNORM
from kernel.abi.signal import SIGPIPE
from kernel.fs.file import File, fput
from kernel.fs.permission import CAP_SYS_RESOURCE, capable
from kernel.mm.types import PAGE_SHIFT, PAGE_SIZE
from kernel.mm.usercopy import put_user_u32
from kernel.task.waitqueue import Blocking, Sleep, WaitQueue, WakeReason

if TYPE_CHECKING:
    from kernel.fs.dcache import Path
    from kernel.fs.inode import Inode
    from kernel.task.task import Task

PIPE_DEF_BUFFERS = 16
_PAGE_MASK = PAGE_SIZE - 1


class PipeBuf:
    """``struct pipe_buffer``: bytes ``data[start:]`` of one page."""

    __slots__ = ("can_merge", "data", "packet", "start")

    def __init__(self, data: bytes | bytearray, can_merge: bool, packet: bool = False) -> None:
        self.data = data
        self.start = 0
        self.can_merge = can_merge
        self.packet = packet

    def __len__(self) -> int:
        return len(self.data) - self.start


class Pipe:
    """``struct pipe_inode_info``."""

    __slots__ = ("bufs", "r_counter", "rd_wait", "readers", "ring_size", "w_counter", "wr_wait", "writers")

    def __init__(self) -> None:
        self.bufs: deque[PipeBuf] = deque()
        self.ring_size = PIPE_DEF_BUFFERS
        self.readers = 0
        self.writers = 0
        self.r_counter = 0
        """How often the pipe was opened for reading: FIFO openers wait for a change."""
        self.w_counter = 0
        self.rd_wait = WaitQueue()
        self.wr_wait = WaitQueue()

    def nr_bytes(self) -> int:
        return sum(map(len, self.bufs))

    @property
    def full(self) -> bool:
        return len(self.bufs) >= self.ring_size

    def wake_all(self) -> None:
        self.rd_wait.wake_up()
        self.wr_wait.wake_up()

    # -- moving bytes, never sleeping ----------------------------------------------------------------------
    def take(self, count: int) -> bytes:
        """Up to ``count`` bytes (one packet at most, whose rest is lost); writers are woken when room appears."""
        bufs = self.bufs
        was_full = len(bufs) >= self.ring_size
        parts: list[bytes] = []
        while bufs and count > 0:
            buf = bufs[0]
            start = buf.start
            data = bytes(buf.data[start : start + count]) if start or count < len(buf.data) else bytes(buf.data)
            parts.append(data)
            count -= len(data)
            if buf.packet or start + len(data) == len(buf.data):
                bufs.popleft()
                if buf.packet:
                    break
            else:
                buf.start += len(data)
        if was_full and len(bufs) < self.ring_size:
            self.wr_wait.wake_up()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def put_back(self, data: bytes) -> None:
        """Undo the last ``take``."""
        for start in range((len(data) - 1) // PAGE_SIZE * PAGE_SIZE, -1, -PAGE_SIZE):
            self.bufs.appendleft(PipeBuf(data[start : start + PAGE_SIZE], can_merge=False))

    def give(self, data: bytes, packet: bool) -> int:
        """Put in what fits, as Linux divides it; returns how many bytes.  Readers are woken."""
        bufs = self.bufs
        total = len(data)
        done = 0
        first = total & _PAGE_MASK
        if first and bufs and not packet:
            last = bufs[-1]
            if last.can_merge and len(last.data) + first <= PAGE_SIZE:
                if not isinstance(last.data, bytearray):
                    last.data = bytearray(last.data)
                last.data += data[:first]
                done = first
        while done < total and len(bufs) < self.ring_size:
            bufs.append(PipeBuf(data[done : done + PAGE_SIZE], can_merge=not packet, packet=packet))
            done = min(total, done + PAGE_SIZE)
        if done:
            self.rd_wait.wake_up()
        return done

    def set_size(self, task: Task, size: int) -> int:
        """F_SETPIPE_SZ; returns the new size in bytes."""
        if size > 1 << 31:
            raise KernelError(Errno.EINVAL, "pipe size too large")
        nr_slots = 1
        while nr_slots << PAGE_SHIFT < size:
            nr_slots <<= 1
        new_size = nr_slots << PAGE_SHIFT
        too_large = nr_slots > self.ring_size and new_size > task.kernel.sysctl.pipe_max_size
        if too_large and not capable(task, CAP_SYS_RESOURCE):
            raise KernelError(Errno.EPERM, "fs.pipe-max-size")
        if nr_slots < len(self.bufs):
            raise KernelError(Errno.EBUSY, "more is in the pipe than the new size holds")
        grown = nr_slots > self.ring_size
        self.ring_size = nr_slots
        if grown:
            self.wr_wait.wake_up()
        return new_size


class PipeFile(File):
    """One end of a pipe, or both (a FIFO opened O_RDWR)."""

    __slots__ = ("pipe", "w_seen")

    unit_bytes = PAGE_SIZE

    def __init__(self, path: Path, inode: Inode, flags: int, pipe: Pipe) -> None:
        super().__init__(path, inode, flags)
        self.pipe = pipe
        self.w_seen = -1
        """A FIFO opened without a writer shows no hang-up until one has come and gone (``f_version``)."""

    def read(self, task: Task | None, count: int) -> bytes | Blocking[bytes]:
        pipe = self.pipe
        if pipe.bufs or count == 0:
            return pipe.take(count)
        if not pipe.writers:
            return b""
        if self.f_flags & O_NONBLOCK:
            raise KernelError(Errno.EAGAIN, "pipe empty")
        return self._read_blocking(count)

    def _read_blocking(self, count: int) -> Blocking[bytes]:
        pipe = self.pipe
        while not pipe.bufs:
            if not pipe.writers:
                return b""
            if (yield Sleep(pipe.rd_wait)) is WakeReason.SIGNAL and not pipe.bufs:
                raise KernelError(ERESTARTSYS, "signal while the pipe was empty")
        return pipe.take(count)

    def unread(self, data: bytes) -> None:
        self.pipe.put_back(data)

    def write(self, task: Task | None, data: bytes) -> int | Blocking[int]:
        if not data:
            return 0
        pipe = self.pipe
        if not pipe.readers:
            self._broken(task)
        packet = self.f_flags & O_DIRECT != 0
        done = pipe.give(data, packet)
        if done == len(data):
            return done
        if self.f_flags & O_NONBLOCK:
            if not done:
                raise KernelError(Errno.EAGAIN, "pipe full")
            return done
        return self._write_blocking(task, data, done, packet)

    def _write_blocking(self, task: Task | None, data: bytes, done: int, packet: bool) -> Blocking[int]:
        pipe = self.pipe
        while True:
            reason = yield Sleep(pipe.wr_wait)
            if not pipe.readers:
                if done:
                    _sigpipe(task)
                    return done
                self._broken(task)
            done += pipe.give(data[done:], packet)
            if done == len(data):
                return done
            if reason is WakeReason.SIGNAL and pipe.full:
                if done:
                    return done
                raise KernelError(ERESTARTSYS, "signal while the pipe was full")

    @staticmethod
    def _broken(task: Task | None) -> None:
        _sigpipe(task)
        raise KernelError(Errno.EPIPE, "nobody has the pipe open for reading")

    def poll(self, task: Task | None) -> int:
        pipe = self.pipe
        mask = 0
        if self.f_mode & FMODE_READ:
            if pipe.bufs:
                mask |= POLLIN | POLLRDNORM
            if not pipe.writers and self.w_seen != pipe.w_counter:
                mask |= POLLHUP
        if self.f_mode & FMODE_WRITE:
            if not pipe.full:
                mask |= POLLOUT | POLLWRNORM
            if not pipe.readers:
                mask |= POLLERR
        return mask

    def poll_queues(self, task: Task | None) -> tuple[WaitQueue, ...]:
        if self.f_mode & FMODE_READ:
            return (self.pipe.rd_wait, self.pipe.wr_wait) if self.f_mode & FMODE_WRITE else (self.pipe.rd_wait,)
        return (self.pipe.wr_wait,)

    def ioctl(self, task: Task, cmd: int, arg: int) -> int | Blocking[int]:
        if cmd == FIONREAD:
            assert task.mm is not None
            put_user_u32(task.mm, arg, self.pipe.nr_bytes())
            return 0
        raise KernelError(Errno.ENOTTY, "no such ioctl for pipes")

    def release(self) -> None:
        pipe = self.pipe
        if self.f_mode & FMODE_READ:
            pipe.readers -= 1
        if self.f_mode & FMODE_WRITE:
            pipe.writers -= 1
        if pipe.readers or pipe.writers:
            pipe.wake_all()
        else:
            self.f_inode.i_pipe = None


def _sigpipe(task: Task | None) -> None:
    if task is not None:
        from kernel.task.signal import send_sig

        send_sig(task, SIGPIPE)


def create_pipe(task: Task, flags: int) -> tuple[PipeFile, PipeFile]:
    """do_pipe2 without the descriptors: the read end and the write end."""
    path = task.kernel.vfs.pseudo.new_pipe(task)
    inode = path.dentry.d_inode
    pipe = inode.i_pipe = Pipe()
    pipe.readers = pipe.writers = pipe.r_counter = pipe.w_counter = 1
    kept = flags & (O_NONBLOCK | O_DIRECT)
    return PipeFile(path, inode, kept, pipe), PipeFile(path, inode, O_WRONLY | kept, pipe)


def open_pipe_again(inode: Inode, path: Path, flags: int) -> File:
    """Open a pipe without a name through /proc/PID/fd: never waits for the other end."""
    file = PipeFile(path, inode, flags, inode.i_pipe)
    _count(file)
    return file


def open_fifo(inode: Inode, path: Path, flags: int) -> File | Generator[Any, Any, File]:
    """fifo_open(): waits for the other end, unless O_NONBLOCK or O_RDWR."""
    if flags & O_ACCMODE == O_ACCMODE:
        raise KernelError(Errno.EINVAL, "a FIFO is opened for reading, writing or both")
    pipe: Pipe | None = inode.i_pipe
    if pipe is None:
        pipe = inode.i_pipe = Pipe()
    if flags & O_ACCMODE == O_WRONLY and flags & O_NONBLOCK and not pipe.readers:
        if not pipe.writers:
            inode.i_pipe = None
        raise KernelError(Errno.ENXIO, "FIFO without a reader, opened O_WRONLY | O_NONBLOCK")
    file = PipeFile(path, inode, flags, pipe)
    mode = file.f_mode & (FMODE_READ | FMODE_WRITE)
    _count(file)
    if mode == FMODE_READ and not pipe.writers:
        if flags & O_NONBLOCK:
            file.w_seen = pipe.w_counter
            return file
        return _wait_for_partner(file, pipe.rd_wait, "w_counter")
    if mode == FMODE_WRITE and not pipe.readers:
        return _wait_for_partner(file, pipe.wr_wait, "r_counter")
    return file


def _count(file: PipeFile) -> None:
    """One more reader or writer; those who wait for a first one hear of it."""
    pipe = file.pipe
    if file.f_mode & FMODE_READ:
        pipe.readers += 1
        pipe.r_counter += 1
        if pipe.readers == 1:
            pipe.wr_wait.wake_up()
    if file.f_mode & FMODE_WRITE:
        pipe.writers += 1
        pipe.w_counter += 1
        if pipe.writers == 1:
            pipe.rd_wait.wake_up()


def _wait_for_partner(file: PipeFile, queue: WaitQueue, counter: str) -> Blocking[File]:
    pipe = file.pipe
    before = getattr(pipe, counter)
    opened = False
    try:
        while getattr(pipe, counter) == before:
            if (yield Sleep(queue)) is WakeReason.SIGNAL and getattr(pipe, counter) == before:
                raise KernelError(ERESTARTSYS, "signal while waiting for the FIFO's other end")
        opened = True
    finally:
        if not opened:
            fput(file)
    return file


assert PIPE_BUF == PAGE_SIZE  # what makes one slot enough for an atomic write
