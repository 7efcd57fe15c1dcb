"""/proc/PID/mem, pagemap, cmdline, environ, auxv, clear_refs: a process's memory as files.

Models ``fs/proc/base.c`` and ``fs/proc/task_mmu.c``.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from kernel.abi.errno import Errno, KernelError
from kernel.fs.file import File, SeekableFile
from kernel.fs.inode import Inode
from kernel.fs.permission import CAP_SYS_ADMIN, capable
from kernel.mm.task_mmu import clear_refs_write, pagemap_read
from kernel.mm.types import TASK_SIZE, MmStruct
from kernel.mm.usercopy import copy_from_user_some, copy_to_user_some

if TYPE_CHECKING:
    from kernel.fs.dcache import Path
    from kernel.task.task import Task

MAX_ARG_BYTES = 1 << 21


class MmInode(Inode):
    """A file about an address space; which one is settled when it is opened."""

    __slots__ = ("kind", "task")

    def __init__(self, base: Inode, task: Task, kind: type[MmFile]) -> None:
        super().__init__(base.i_sb, base.i_ino, base.i_mode, base.i_uid, base.i_gid)
        self.task = task
        self.kind = kind

    def open(self, task: Task | None, path: Path, flags: int) -> File | Generator[Any, Any, File]:
        from kernel.task.cred import ptrace_may_access

        if task is not None and not ptrace_may_access(task, self.task):
            raise KernelError(Errno.EACCES, "another user's process")
        return self.kind(path, self, flags, self.task.mm)

    def touch_atime(self) -> None:
        """No access times here."""


class MmFile(SeekableFile):
    """An open file about the address space ``mm`` (None: the process has none any more)."""

    __slots__ = ("mm",)

    can_poll = True

    def __init__(self, path: Path, inode: Inode, flags: int, mm: MmStruct | None) -> None:
        super().__init__(path, inode, flags)
        self.mm = mm

    def alive(self) -> MmStruct | None:
        """The address space if somebody still uses it."""
        mm = self.mm
        return mm if mm is not None and mm.mm_users > 0 else None

    def seek_special(self, offset: int, whence: int) -> int:
        raise KernelError(Errno.EINVAL, "no end to seek from")


class MemFile(MmFile):
    """/proc/PID/mem."""

    __slots__ = ()

    def pread(self, pos: int, count: int) -> bytes:
        mm = self.alive()
        if mm is None:
            return b""
        data = copy_from_user_some(mm, pos, min(count, TASK_SIZE - pos)) if pos < TASK_SIZE else b""
        if not data and count:
            raise KernelError(Errno.EIO, "nothing is mapped there")
        return data

    def pwrite(self, pos: int, data: bytes) -> int:
        mm = self.alive()
        if mm is None:
            return 0
        done = copy_to_user_some(mm, pos, data)
        if not done and data:
            raise KernelError(Errno.EIO, "nothing is mapped there, or not for writing")
        return done

    def lseek(self, offset: int, whence: int) -> int:
        """mem_lseek(): any 64-bit position."""
        if whence not in (0, 1):
            raise KernelError(Errno.EINVAL, "no end to seek from")
        self.f_pos = (offset if whence == 0 else self.f_pos + offset) & 0xFFFF_FFFF_FFFF_FFFF
        return self.f_pos


class PagemapFile(MmFile):
    """/proc/PID/pagemap."""

    __slots__ = ()

    def pread(self, pos: int, count: int) -> bytes:
        mm = self.alive()
        if mm is None or not count:
            return b""
        if pos & 7 or count & 7:
            raise KernelError(Errno.EINVAL, "entries are of 8 bytes")
        return pagemap_read(mm, pos, count, show_pfn=capable(self.kernel.current, CAP_SYS_ADMIN))


class ClearRefsFile(MmFile):
    """/proc/PID/clear_refs."""

    __slots__ = ()

    def pwrite(self, pos: int, data: bytes) -> int:
        text = data[:12].strip()
        if not text.isdigit() or not 1 <= int(text) <= 5:
            raise KernelError(Errno.EINVAL, "not 1 to 5")
        mm = self.alive()
        if mm is not None:
            clear_refs_write(mm, int(text))
        return len(data)


def cmdline_bytes(task: Task) -> bytes:
    """get_mm_cmdline(): the arguments, and what follows when the program has written over their end (setproctitle)."""
    mm = task.mm
    if mm is None or mm.arg_end <= mm.arg_start:
        return b""
    length = min(mm.arg_end - mm.arg_start, MAX_ARG_BYTES)
    data = copy_from_user_some(mm, mm.arg_start, length)
    if data.endswith(b"\0") or len(data) < length:
        return data
    more = copy_from_user_some(mm, mm.arg_start, min(mm.env_end - mm.arg_start, 4096))
    end = more.find(b"\0")
    return more[: end + 1] if end >= 0 else more


def environ_bytes(task: Task) -> bytes:
    mm = task.mm
    if mm is None or not mm.env_end:
        return b""
    return copy_from_user_some(mm, mm.env_start, min(mm.env_end - mm.env_start, MAX_ARG_BYTES))


def auxv_bytes(task: Task) -> bytes:
    return task.mm.saved_auxv if task.mm is not None else b""
