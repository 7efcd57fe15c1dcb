"""The guest's files for gdb: the ``vFile`` packets ("Host I/O Packets" of gdb's manual).

gdb reads programs, shared libraries and ``/proc/PID/maps`` this way.  Nothing can be written.  Regular files are read
past the page cache, so that a debugger does not fill the guest's memory.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from emu.gdb.packets import PACKET_BYTES, escape, unescape
from kernel.abi.errno import Errno, KernelError
from kernel.abi.fcntl import AT_FDCWD
from kernel.abi.stat import S_IFLNK, S_IFMT, S_IFREG
from kernel.fs.file import File, fput
from kernel.mm.types import PAGE_SHIFT, PAGE_SIZE

if TYPE_CHECKING:
    from kernel.fs.inode import Inode
    from kernel.kernel import Kernel
    from kernel.task.task import Task

_STAT = struct.Struct(">7I3Q3I")
_MAX_READ = PACKET_BYTES // 2 - 64
"""Every byte may need an escape."""
_GDB_ERRNOS = frozenset((1, 2, 4, 9, 13, 14, 16, 17, 19, 20, 21, 22, 23, 24, 27, 28, 29, 30, 91))
_GDB_EUNKNOWN = 9999


class _Handle:
    """One open file: ``file`` for what the kernel makes up when it is read, else the inode alone."""

    def __init__(self, inode: Inode, file: File | None) -> None:
        self.inode = inode
        self.file = file
        self.text: bytes | None = None

    def pread(self, kernel: Kernel, task: Task, position: int, count: int) -> bytes:
        if self.file is None:
            return _pread(kernel, self.inode, position, count)
        if self.text is None:
            self.text = _read_all(self.file, task)
        return self.text[position : position + count]


class GuestFiles:
    """The files that one gdb has open."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._open: dict[int, _Handle] = {}
        self._operations: dict[bytes, Callable[[Task, list[bytes]], bytes]] = {
            b"setfs": lambda _task, _args: b"F0",
            b"open": self._do_open,
            b"pread": self._do_pread,
            b"fstat": self._do_fstat,
            b"close": self._do_close,
            b"readlink": self._do_readlink,
        }

    def close(self) -> None:
        for handle in self._open.values():
            if handle.file is not None:
                fput(handle.file)
        self._open.clear()

    def answer(self, task: Task, packet: bytes) -> bytes:
        """``packet`` is what follows ``vFile:``; names are looked up as ``task`` sees them."""
        name, _, rest = packet.partition(b":")
        operation = self._operations.get(name)
        if operation is None:
            return b""
        try:
            return operation(task, rest.split(b","))
        except KernelError as error:
            number = int(error.errno)
            return b"F-1,%x" % (number if number in _GDB_ERRNOS else _GDB_EUNKNOWN)
        except (ValueError, IndexError):
            return b"F-1,%x" % Errno.EINVAL

    def _handle(self, number: bytes) -> _Handle:
        handle = self._open.get(int(number, 16))
        if handle is None:
            raise KernelError(Errno.EBADF, "gdb never opened it")
        return handle

    def _do_open(self, task: Task, args: list[bytes]) -> bytes:
        name, flags = bytes.fromhex(args[0].decode()), int(args[1], 16)
        if flags:
            raise KernelError(Errno.EROFS, "a debugger may only read")
        vfs = self._kernel.vfs
        inode = vfs.lookup(task, name).dentry.d_inode
        file = None
        if inode.i_mapping is None or inode.i_mode & S_IFMT != S_IFREG:
            if inode.i_mode & S_IFMT != S_IFREG:
                raise KernelError(Errno.EACCES, "not a regular file")
            opened = vfs.open(task, AT_FDCWD, name, 0)
            if not isinstance(opened, File):
                raise KernelError(Errno.EACCES, "not a regular file")
            file = opened
        number = next(n for n in range(len(self._open) + 1) if n not in self._open)
        self._open[number] = _Handle(inode, file)
        return b"F%x" % number

    def _do_pread(self, task: Task, args: list[bytes]) -> bytes:
        handle = self._handle(args[0])
        count, position = min(int(args[1], 16), _MAX_READ), int(args[2], 16)
        data = handle.pread(self._kernel, task, position, count)
        return b"F%x;%s" % (len(data), escape(data))

    def _do_fstat(self, _task: Task, args: list[bytes]) -> bytes:
        inode = self._handle(args[0]).inode
        size = inode.i_size
        low = 0xFFFF_FFFF
        data = _STAT.pack(
            0, inode.i_ino & low, inode.i_mode, 1, inode.i_uid, inode.i_gid, 0, size, PAGE_SIZE, (size + 511) // 512,
            0, 0, 0,
        )  # fmt: skip
        return b"F%x;%s" % (len(data), escape(data))

    def _do_close(self, _task: Task, args: list[bytes]) -> bytes:
        handle = self._handle(args[0])
        del self._open[int(args[0], 16)]
        if handle.file is not None:
            fput(handle.file)
        return b"F0"

    def _do_readlink(self, task: Task, args: list[bytes]) -> bytes:
        name = bytes.fromhex(unescape(args[0]).decode())
        inode = self._kernel.vfs.lookup(task, name, flags=0).dentry.d_inode
        if inode.i_mode & S_IFMT != S_IFLNK:
            raise KernelError(Errno.EINVAL, "no symbolic link")
        target = inode.readlink(task)
        return b"F%x;%s" % (len(target), escape(target))


def _pread(kernel: Kernel, inode: Inode, position: int, count: int) -> bytes:
    """Part of a regular file, dirty pages of the page cache included."""
    count = min(count, inode.i_size - position)
    if count <= 0:
        return b""
    first = position >> PAGE_SHIFT
    nr_pages = ((position + count + PAGE_SIZE - 1) >> PAGE_SHIFT) - first
    data = bytearray(inode.readpages(first, nr_pages).ljust(nr_pages << PAGE_SHIFT, b"\0"))
    mapping = inode.i_mapping
    if mapping is not None:
        for number in range(nr_pages):
            pfn = mapping.pages.get(first + number)
            if pfn is not None:
                data[number << PAGE_SHIFT : (number + 1) << PAGE_SHIFT] = kernel.physmem.frame(pfn)
    start = position - (first << PAGE_SHIFT)
    return bytes(data[start : start + count])


def _read_all(file: File, task: Task) -> bytes:
    """The whole text of a file of /proc."""
    data = b""
    while True:
        part = file.read(task, 1 << 16)
        if not isinstance(part, bytes):
            part.close()
            raise KernelError(Errno.EAGAIN, "the file makes its reader wait")
        if not part:
            return data
        data += part
