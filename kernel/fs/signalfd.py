"""signalfd(2): waiting signals as records to read.  Models ``fs/signalfd.c``.

The signals are those of whoever reads, not of whoever made the descriptor.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from kernel.abi.errno import ERESTARTSYS, Errno, KernelError
from kernel.abi.fcntl import O_NONBLOCK, O_RDWR
from kernel.abi.poll import POLLIN
from kernel.fs.file import NO_QUEUES, File
from kernel.task.signal import dequeue_signal
from kernel.task.waitqueue import Blocking, Sleep, WaitQueue, WakeReason

if TYPE_CHECKING:
    from kernel.abi.signal import SigInfo
    from kernel.task.task import Task

_RECORD = struct.Struct("<IiiIIiIIIIiiQQQQHHiQI")
RECORD_SIZE = 128
_ALL = 0xFFFF_FFFF_FFFF_FFFF


class SignalFile(File):
    """``struct signalfd_ctx``; ``mask`` is the set of signals to read."""

    __slots__ = ("mask",)

    def __init__(self, task: Task, mask: int, flags: int) -> None:
        path = task.kernel.vfs.pseudo.new_anon("[signalfd]")
        super().__init__(path, path.dentry.d_inode, O_RDWR | flags & O_NONBLOCK)
        self.mask = mask

    def read(self, task: Task | None, count: int) -> bytes | Blocking[bytes]:
        if count < RECORD_SIZE:
            raise KernelError(Errno.EINVAL, "less than one record")
        assert task is not None
        records = self._take(task, count)
        if records:
            return records
        if self.f_flags & O_NONBLOCK:
            raise KernelError(Errno.EAGAIN, "no signal waits")
        return self._read_blocking(task, count)

    def _read_blocking(self, task: Task, count: int) -> Blocking[bytes]:
        while True:
            reason = yield Sleep(task.sighand.signalfd_wqh)
            records = self._take(task, count)
            if records:
                return records
            if reason is WakeReason.SIGNAL:
                raise KernelError(ERESTARTSYS, "another signal while waiting for one")

    def _take(self, task: Task, count: int) -> bytes:
        records: list[bytes] = []
        while len(records) < count // RECORD_SIZE:
            info = dequeue_signal(task, ~self.mask & _ALL)
            if info is None:
                break
            records.append(pack_siginfo(info))
        return b"".join(records)

    def unread(self, data: bytes) -> None:
        """Signals taken cannot be put back; they are lost, as on Linux when the buffer is bad."""

    def poll(self, task: Task | None) -> int:
        if task is None:
            return 0
        waiting = task.pending.signal | task.signal.shared_pending.signal
        return POLLIN if waiting & self.mask else 0

    def poll_queues(self, task: Task | None) -> tuple[WaitQueue, ...]:
        return (task.sighand.signalfd_wqh,) if task is not None else NO_QUEUES

    def fdinfo(self) -> str:
        return f"sigmask:\t{self.mask:016x}\n"


def pack_siginfo(info: SigInfo) -> bytes:
    """``struct signalfd_siginfo``."""
    value = info.value
    record = _RECORD.pack(
        info.signo, info.errno, info.code, info.pid & 0xFFFF_FFFF, info.uid & 0xFFFF_FFFF, info.fd,
        info.tid & 0xFFFF_FFFF, info.band & 0xFFFF_FFFF, info.overrun & 0xFFFF_FFFF, 0, info.status,
        (value & 0xFFFF_FFFF ^ 0x8000_0000) - 0x8000_0000, value & _ALL, info.utime & _ALL, info.stime & _ALL,
        info.addr & _ALL, 0, 0, 0, 0, 0,
    )  # fmt: skip
    return record.ljust(RECORD_SIZE, b"\0")
