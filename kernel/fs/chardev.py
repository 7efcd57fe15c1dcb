"""The memory devices: /dev/null, zero, full, random, urandom, kmsg.

Models ``drivers/char/mem.c``, ``drivers/char/random.c`` and ``kernel/printk/printk.c`` (devkmsg).

Deliberate difference: random bytes come from the machine's seed and never block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.abi.errno import ERESTARTSYS, Errno, KernelError
from kernel.abi.fcntl import FMODE_LSEEK, FMODE_PREAD, FMODE_PWRITE, MAX_RW_COUNT, O_NONBLOCK
from kernel.abi.ioctl import RNDGETENTCNT
from kernel.abi.stat import makedev
from kernel.fs.file import File
from kernel.fs.special import register_chrdev
from kernel.mm.usercopy import put_user_u32
from kernel.task.waitqueue import Blocking, Sleep, WaitQueue, WakeReason

if TYPE_CHECKING:
    from kernel.fs.dcache import Path
    from kernel.fs.inode import Inode
    from kernel.task.task import Task

_NEVER = WaitQueue()


class NullFile(File):
    """/dev/null."""

    __slots__ = ()

    seekable = FMODE_LSEEK | FMODE_PREAD | FMODE_PWRITE
    reads_buffer = False

    def read(self, task: Task | None, count: int) -> bytes | Blocking[bytes]:
        return b""

    def write(self, task: Task | None, data: bytes) -> int | Blocking[int]:
        return len(data)

    def pread(self, pos: int, count: int) -> bytes:
        return b""

    def pwrite(self, pos: int, data: bytes) -> int:
        return len(data)

    def lseek(self, offset: int, whence: int) -> int:
        """null_lseek(): the position is always 0."""
        self.f_pos = 0
        return 0


class ZeroFile(NullFile):
    """/dev/zero."""

    __slots__ = ()

    bulk = True

    def read(self, task: Task | None, count: int) -> bytes | Blocking[bytes]:
        return bytes(count)

    def pread(self, pos: int, count: int) -> bytes:
        return bytes(count)

    def mmap_prepare(self, task: Task | None, len_bytes: int, pgoff: int, prot: int, shared: bool) -> File | None:
        if not shared:
            return None
        from kernel.mm.shmem import shmem_file_setup

        return shmem_file_setup(self.kernel, "dev/zero", len_bytes)


class FullFile(ZeroFile):
    """/dev/full."""

    __slots__ = ()

    def write(self, task: Task | None, data: bytes) -> int | Blocking[int]:
        raise KernelError(Errno.ENOSPC, "/dev/full")

    def pwrite(self, pos: int, data: bytes) -> int:
        raise KernelError(Errno.ENOSPC, "/dev/full")

    def mmap_prepare(self, task: Task | None, len_bytes: int, pgoff: int, prot: int, shared: bool) -> File | None:
        raise KernelError(Errno.ENODEV, "/dev/full cannot be mapped")


class RandomFile(NullFile):
    """/dev/random and /dev/urandom."""

    __slots__ = ()

    bulk = True
    reads_buffer = True

    def read(self, task: Task | None, count: int) -> bytes | Blocking[bytes]:
        return self.kernel.rng.randbytes(min(count, MAX_RW_COUNT))

    def pread(self, pos: int, count: int) -> bytes:
        return self.kernel.rng.randbytes(count)

    def ioctl(self, task: Task, cmd: int, arg: int) -> int | Blocking[int]:
        if cmd == RNDGETENTCNT:
            assert task.mm is not None
            put_user_u32(task.mm, arg, 256)
            return 0
        raise KernelError(Errno.EINVAL, "no such ioctl for /dev/random")


class KmsgFile(File):
    """/dev/kmsg: one record a read; what is written joins the kernel log."""

    __slots__ = ()

    def read(self, task: Task | None, count: int) -> bytes | Blocking[bytes]:
        lines = self.kernel.log_lines
        if self.f_pos < len(lines):
            record = b"6,%d,0,-;%s\n" % (self.f_pos, lines[self.f_pos].encode())
            if len(record) > count:
                raise KernelError(Errno.EINVAL, "buffer too small for the record")
            self.f_pos += 1
            return record
        if self.f_flags & O_NONBLOCK:
            raise KernelError(Errno.EAGAIN, "no new record")
        return self._wait()

    @staticmethod
    def _wait() -> Blocking[bytes]:
        while (yield Sleep(_NEVER)) is not WakeReason.SIGNAL:
            pass
        raise KernelError(ERESTARTSYS, "signal while waiting for a kernel message")

    def write(self, task: Task | None, data: bytes) -> int | Blocking[int]:
        self.kernel.log(data.rstrip(b"\n").decode("utf-8", "backslashreplace"))
        return len(data)

    def lseek(self, offset: int, whence: int) -> int:
        if offset:
            raise KernelError(Errno.ESPIPE, "only the ends of the log can be sought")
        self.f_pos = 0 if whence == 0 else len(self.kernel.log_lines)
        return 0


def _register(minor: int, kind: type[File]) -> None:
    def open_device(task: Task | None, path: Path, inode: Inode, flags: int) -> File:
        return kind(path, inode, flags)

    register_chrdev(makedev(1, minor), open_device)


_register(3, NullFile)
_register(5, ZeroFile)
_register(7, FullFile)
_register(8, RandomFile)
_register(9, RandomFile)
_register(11, KmsgFile)
