"""The host process's standard descriptors as files of the guest.

A terminal is the guest's /dev/pts/0, /dev/null its /dev/null; a regular file, pipe, socket or other device stays what
it is: fstat shows the host's numbers, reads and writes go straight through, in order, and share the host's file
position.  So a program behaves in a pipeline or with redirections as it does natively.

Deliberate differences: O_NONBLOCK that the guest sets stays in the guest; a write to a full pipe holds the whole
machine up; /proc/self/fd/N can be opened again only with what the descriptor itself allows; closing the last descriptor
of a pipe does not close the host's, so its reader sees the end only when the machine stops.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from kernel.abi.errno import ERESTARTSYS, Errno, KernelError
from kernel.abi.fcntl import AT_FDCWD, O_ACCMODE, O_APPEND, O_NOCTTY, O_NONBLOCK, O_RDWR, SEEK_CUR, SEEK_SET
from kernel.abi.ioctl import FIONREAD
from kernel.abi.poll import POLLERR, POLLHUP, POLLIN
from kernel.abi.signal import SIGPIPE
from kernel.abi.stat import S_IFMT, S_IFREG, UNKNOWN_TIME, Kstat
from kernel.fs.dcache import Path
from kernel.fs.file import File
from kernel.fs.regular import DataInode, RegularFile
from kernel.fs.tty import StdioKind
from kernel.mm.filemap import invalidate_mapping_pages
from kernel.mm.types import PAGE_SHIFT, PAGE_SIZE
from kernel.task.waitqueue import Blocking, Sleep, WaitQueue, WakeReason

if TYPE_CHECKING:
    from kernel.fs.inode import SuperBlock
    from kernel.fs.tty import Console
    from kernel.fs.tty.console import ConsoleDriver
    from kernel.task.task import Task


class StdioInode(DataInode):
    """What a standard descriptor is on the host."""

    __slots__ = ("console", "dev", "driver", "fd")

    def __init__(self, sb: SuperBlock, console: Console, driver: ConsoleDriver, fd: int) -> None:
        stat = console.stat(fd)
        super().__init__(sb, stat.ino, stat.mode, stat.uid, stat.gid, stat.rdev)
        self.dev = stat.dev
        self.console = console
        self.driver = driver
        self.fd = fd
        self.i_size = stat.size

    def getattr(self) -> Kstat:
        st = self.console.stat(self.fd)
        self.i_size = st.size
        return Kstat(
            st.dev, st.ino, st.mode, st.nlink, st.uid, st.gid, st.rdev, st.size, 4096, st.blocks,
            st.atime, st.mtime, st.ctime, UNKNOWN_TIME,
        )  # fmt: skip

    def open(self, task: Task | None, path: Path, flags: int) -> File | Generator[Any, Any, File]:
        """/dev/stdin and the like: the same descriptor once more."""
        have = self.console.open_flags(self.fd) & O_ACCMODE
        if have not in (O_RDWR, flags & O_ACCMODE):
            raise KernelError(Errno.EACCES, "the host's descriptor is not open for that")
        if self.i_mode & S_IFMT == S_IFREG:
            return StdioRegular(path, self, flags, self.console.open_again(self.fd, flags & (O_ACCMODE | O_APPEND)))
        return StdioStream(path, self, flags)

    def readpages(self, pgoff: int, nr: int) -> bytes:
        data = self.console.pread(self.fd, pgoff << PAGE_SHIFT, nr << PAGE_SHIFT)
        return data.ljust(nr << PAGE_SHIFT, b"\0")

    def writepage(self, pgoff: int, data: bytes) -> None:
        pos = pgoff << PAGE_SHIFT
        count = min(PAGE_SIZE, self.i_size - pos)
        if count > 0:
            self.console.pwrite(self.fd, pos, bytes(data[:count]))

    def cut(self, size: int) -> None:
        self.console.ftruncate(self.fd, size)

    def touch_atime(self) -> None:
        """The host keeps the times."""

    def touch_mtime(self) -> None:
        """The host keeps the times."""

    def touch_ctime(self) -> None:
        """The host keeps the times."""


class StdioStream(File):
    """A pipe, a socket or a device of the host."""

    __slots__ = ("console", "driver", "fd")

    def __init__(self, path: Path, inode: StdioInode, flags: int) -> None:
        super().__init__(path, inode, flags)
        self.console = inode.console
        self.driver = inode.driver
        self.fd = inode.fd

    def _ready(self) -> bool:
        return self.console.poll_mask(self.fd) & (POLLIN | POLLHUP | POLLERR) != 0

    def read(self, task: Task | None, count: int) -> bytes | Blocking[bytes]:
        if count == 0:
            return b""
        if self._ready():
            return self.console.read(self.fd, count)
        if self.f_flags & O_NONBLOCK:
            raise KernelError(Errno.EAGAIN, "no input")
        return self._read_blocking(count)

    def _read_blocking(self, count: int) -> Blocking[bytes]:
        while not self._ready():
            if (yield Sleep(self.driver.input_waitqueue)) is WakeReason.SIGNAL and not self._ready():
                raise KernelError(ERESTARTSYS, "signal while waiting for input")
        return self.console.read(self.fd, count)

    def write(self, task: Task | None, data: bytes) -> int | Blocking[int]:
        return write_through(task, self.console, self.fd, data)

    def poll(self, task: Task | None) -> int:
        return self.console.poll_mask(self.fd)

    def poll_queues(self, task: Task | None) -> tuple[WaitQueue, ...]:
        return (self.driver.input_waitqueue,)

    def ioctl(self, task: Task, cmd: int, arg: int) -> int | Blocking[int]:
        if cmd == FIONREAD:
            raise KernelError(Errno.ENOTTY, "how much waits at the host is not known")
        raise KernelError(Errno.ENOTTY, "not a terminal")


def write_through(task: Task | None, console: Console, fd: int, data: bytes) -> int:
    """Write to the host; a broken pipe is the guest's SIGPIPE."""
    try:
        return console.write(fd, data)
    except KernelError as error:
        if error.errno == Errno.EPIPE and task is not None:
            from kernel.task.signal import send_sig

            send_sig(task, SIGPIPE)
        raise


class StdioRegular(RegularFile):
    """A regular file of the host, at the position that the host's descriptor has.

    Opened again (/dev/stdin), it has a descriptor of its own, with a position of its own.
    """

    __slots__ = ("console", "fd", "owns_fd")

    def __init__(self, path: Path, inode: StdioInode, flags: int, own_fd: int | None = None) -> None:
        self.fd = -1
        super().__init__(path, inode, flags)
        self.console = inode.console
        self.fd = inode.fd if own_fd is None else own_fd
        self.owns_fd = own_fd is not None
        self.noatime = True

    @property
    def f_pos(self) -> int:
        """The host's descriptor knows."""
        return self.console.lseek(self.fd, 0, SEEK_CUR)

    @f_pos.setter
    def f_pos(self, pos: int) -> None:
        if self.fd >= 0:  # not while this object is being made
            self.console.lseek(self.fd, pos, SEEK_SET)

    def read(self, task: Task | None, count: int) -> bytes | Blocking[bytes]:
        return self.console.read(self.fd, count)

    def unread(self, data: bytes) -> None:
        self.console.lseek(self.fd, -len(data), 1)

    def pread(self, pos: int, count: int) -> bytes:
        return self.console.pread(self.fd, pos, count)

    def write(self, task: Task | None, data: bytes) -> int | Blocking[int]:
        written = write_through(task, self.console, self.fd, data)
        self._drop_cached()
        return written

    def pwrite(self, pos: int, data: bytes) -> int:
        if self.f_flags & O_APPEND:
            return self.console.write(self.fd, data)
        written = self.console.pwrite(self.fd, pos, data)
        self._drop_cached()
        return written

    def _drop_cached(self) -> None:
        """What mappings have cached is stale now (unless somebody still maps it)."""
        mapping = self.data.mapping_if_any
        if mapping is not None:
            invalidate_mapping_pages(mapping)
        self.data.getattr()

    def lseek(self, offset: int, whence: int) -> int:
        return self.console.lseek(self.fd, offset, whence)

    def mmap_prepare(self, task: Task | None, len_bytes: int, pgoff: int, prot: int, shared: bool) -> File | None:
        self.data.getattr()
        return self.get()

    def fsync(self, datasync: bool) -> None:
        super().fsync(datasync)
        self.console.fsync(self.fd)

    def fallocate(self, mode: int, offset: int, len_bytes: int) -> None:
        raise KernelError(Errno.EOPNOTSUPP, "not on the host's descriptors")

    def release(self) -> None:
        if self.owns_fd:
            self.console.close_again(self.fd)

    def __repr__(self) -> str:
        return f"<StdioRegular {self.fd}>"


def make_stdio_file(path: Path, inode: StdioInode, flags: int) -> File:
    if inode.i_mode & S_IFMT == S_IFREG:
        return StdioRegular(path, inode, flags)
    return StdioStream(path, inode, flags)


def install_stdio(task: Task, console: Console, driver: ConsoleDriver) -> None:
    """Give ``task`` (new, without descriptors) 0, 1 and 2, and the terminal if there is one."""
    kernel = task.kernel
    pseudo = kernel.vfs.pseudo
    driver.first_pgrp = task.signal.pgrp
    if driver.tty is not None and not driver.tty.session:
        driver.tty.set_controlling(task)
    inodes: dict[tuple[int, int], StdioInode] = {}
    for fd in range(3):
        kind = console.kind(fd)
        flags = console.open_flags(fd) if kind is not StdioKind.CLOSED else 0
        if kind is StdioKind.CLOSED:
            continue
        if kind in (StdioKind.TTY, StdioKind.NULL):
            name = b"/dev/pts/0" if kind is StdioKind.TTY else b"/dev/null"
            file = kernel.vfs.open(None, AT_FDCWD, name, flags & (O_ACCMODE | O_APPEND) | O_NOCTTY)
            assert isinstance(file, File)
        else:
            stat = console.stat(fd)
            key = (stat.dev, stat.ino)
            inode = inodes.get(key)
            if inode is None or stat.mode & S_IFMT == S_IFREG:
                inode = StdioInode(pseudo.shm.mnt_sb, console, driver, fd)
                inodes.setdefault(key, inode)
            path = pseudo.place(pseudo.shm, inode, console.name(fd))
            file = make_stdio_file(path, inode, flags & ~O_NONBLOCK)
        if isinstance(file, StdioStream):
            file.fd = fd
        task.files.install(fd, file)
