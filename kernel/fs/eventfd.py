"""eventfd(2): a counter as a file.  Models ``fs/eventfd.c``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.abi.errno import ERESTARTSYS, Errno, KernelError
from kernel.abi.fcntl import O_NONBLOCK, O_RDWR
from kernel.abi.poll import EFD_SEMAPHORE, POLLERR, POLLIN, POLLOUT
from kernel.fs.file import File
from kernel.task.waitqueue import Blocking, Sleep, WaitQueue, WakeReason

if TYPE_CHECKING:
    from kernel.task.task import Task

ULLONG_MAX = 0xFFFF_FFFF_FFFF_FFFF


class EventFile(File):
    """``struct eventfd_ctx``.  Invariant: ``0 <= count < ULLONG_MAX``."""

    __slots__ = ("count", "ident", "semaphore", "wq")

    def __init__(self, task: Task, count: int, flags: int) -> None:
        path = task.kernel.vfs.pseudo.new_anon("[eventfd]")
        super().__init__(path, path.dentry.d_inode, O_RDWR | flags & O_NONBLOCK)
        self.count = count
        self.semaphore = flags & EFD_SEMAPHORE != 0
        self.wq = WaitQueue()
        self.ident = task.kernel.vfs.new_cookie()

    def read(self, task: Task | None, count: int) -> bytes | Blocking[bytes]:
        if count < 8:
            raise KernelError(Errno.EINVAL, "less than 8 bytes")
        if self.count:
            return self._take()
        if self.f_flags & O_NONBLOCK:
            raise KernelError(Errno.EAGAIN, "counter is 0")
        return self._read_blocking()

    def _read_blocking(self) -> Blocking[bytes]:
        while not self.count:
            if (yield Sleep(self.wq)) is WakeReason.SIGNAL and not self.count:
                raise KernelError(ERESTARTSYS, "signal while the counter was 0")
        return self._take()

    def _take(self) -> bytes:
        value = 1 if self.semaphore else self.count
        self.count -= value
        self.wq.wake_up()
        return value.to_bytes(8, "little")

    def unread(self, data: bytes) -> None:
        self.count += int.from_bytes(data, "little")

    def write(self, task: Task | None, data: bytes) -> int | Blocking[int]:
        if len(data) < 8:
            raise KernelError(Errno.EINVAL, "less than 8 bytes")
        value = int.from_bytes(data[:8], "little")
        if value == ULLONG_MAX:
            raise KernelError(Errno.EINVAL, "the largest number cannot be added")
        if ULLONG_MAX - self.count > value:
            return self._add(value)
        if self.f_flags & O_NONBLOCK:
            raise KernelError(Errno.EAGAIN, "the counter would overflow")
        return self._write_blocking(value)

    def _write_blocking(self, value: int) -> Blocking[int]:
        while ULLONG_MAX - self.count <= value:
            if (yield Sleep(self.wq)) is WakeReason.SIGNAL and ULLONG_MAX - self.count <= value:
                raise KernelError(ERESTARTSYS, "signal while the counter was full")
        return self._add(value)

    def _add(self, value: int) -> int:
        self.count += value
        self.wq.wake_up()
        return 8

    def poll(self, task: Task | None) -> int:
        mask = POLLIN if self.count else 0
        if self.count == ULLONG_MAX:
            mask |= POLLERR
        return mask | POLLOUT if self.count < ULLONG_MAX - 1 else mask

    def poll_queues(self, task: Task | None) -> tuple[WaitQueue, ...]:
        return (self.wq,)

    def fdinfo(self) -> str:
        return f"eventfd-count: {self.count:16x}\neventfd-id: {self.ident}\neventfd-semaphore: {int(self.semaphore)}\n"
