"""Standard descriptors that are bytes in memory: the console of a program whose input is given and output kept.

To the guest they are pipes, as ``subprocess.run(input=..., capture_output=True)`` makes them: all input is there at
once, then comes its end; whatever is written is taken.  Descriptors that are not in memory are the host's.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

from emu.console import HostConsole
from kernel.abi.errno import Errno, KernelError
from kernel.abi.fcntl import O_RDONLY, O_WRONLY
from kernel.abi.poll import POLLHUP, POLLIN, POLLOUT
from kernel.clock import BOOT_REALTIME_NS
from kernel.fs.hostfs import HostStat
from kernel.fs.tty import StdioKind

_PIPEFS_DEV = 0x0E
"""An anonymous device number, as pipefs has one."""


class MemoryConsole(HostConsole):
    """``host``'s descriptors, but for standard input (``stdin``, if not None) and those in ``outputs``."""

    def __init__(self, host: HostConsole, stdin: bytes | None, outputs: Mapping[int, bytearray]) -> None:
        super().__init__()
        self._driver = host._driver
        self._input = None if stdin is None else memoryview(stdin)
        self._outputs = outputs

    def _is_here(self, fd: int) -> bool:
        return fd in self._outputs or (fd == 0 and self._input is not None)

    def kind(self, fd: int) -> StdioKind:
        return StdioKind.STREAM if self._is_here(fd) else super().kind(fd)

    def stat(self, fd: int) -> HostStat:
        if not self._is_here(fd):
            return super().stat(fd)
        mode, now = stat.S_IFIFO | 0o600, BOOT_REALTIME_NS
        return HostStat(_PIPEFS_DEV, fd + 1, mode, 1, os.getuid(), os.getgid(), 0, 0, 0, now, now, now)

    def name(self, fd: int) -> bytes:
        return b"pipe:[%d]" % (fd + 1) if self._is_here(fd) else super().name(fd)

    def open_flags(self, fd: int) -> int:
        if not self._is_here(fd):
            return super().open_flags(fd)
        return O_RDONLY if fd == 0 else O_WRONLY

    def poll_mask(self, fd: int) -> int:
        if not self._is_here(fd):
            return super().poll_mask(fd)
        return POLLIN | POLLHUP if fd == 0 else POLLOUT

    def read(self, fd: int, count: int) -> bytes:
        if fd in self._outputs:
            raise KernelError(Errno.EBADF, "the writing end of a pipe")
        if fd != 0 or self._input is None:
            return super().read(fd, count)
        data = bytes(self._input[:count])
        self._input = self._input[count:]
        return data

    def write(self, fd: int, data: bytes) -> int:
        if fd in self._outputs:
            self._outputs[fd] += data
            return len(data)
        if self._is_here(fd):
            raise KernelError(Errno.EBADF, "the reading end of a pipe")
        return super().write(fd, data)
