"""/proc/PID/fd and /proc/PID/fdinfo.

Models ``fs/proc/fd.c``.  The links of fd are magic: they lead to the open file's place itself, whatever its name is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.abi.errno import Errno, KernelError
from kernel.abi.fcntl import FMODE_READ, FMODE_WRITE, O_CLOEXEC
from kernel.abi.stat import S_IFLNK, S_IFREG, Kstat, mode_to_dtype
from kernel.fs.inode import DirEntry, Inode
from kernel.fs.permission import generic_permission
from kernel.fs.procfs.base import LinkInode, PseudoSuper, TextInode, VolatileDir
from kernel.task.cred import ptrace_may_access

if TYPE_CHECKING:
    from kernel.fs.dcache import Path
    from kernel.fs.file import File
    from kernel.task.task import Task


class FdDir(VolatileDir):
    """/proc/PID/fd."""

    __slots__ = ("task",)

    mode_of_entries = S_IFLNK

    def __init__(self, sb: PseudoSuper, task: Task, mode: int = 0o500) -> None:
        super().__init__(sb, sb.new_ino(), mode, task.creds.euid, task.creds.egid)
        self.task = task

    def permission(self, task: Task | None, mask: int) -> bool:
        """proc_fd_permission(): one's own directory is always open."""
        return (task is not None and task.signal is self.task.signal) or generic_permission(task, self, mask)

    def _check(self, reader: Task | None) -> None:
        if reader is not None and not ptrace_may_access(reader, self.task):
            raise KernelError(Errno.EACCES, "another user's process")

    def find(self, name: bytes, task: Task | None) -> Inode | None:
        if not name.isdigit() or (name.startswith(b"0") and name != b"0"):
            return None
        fd = int(name)
        files = self.task._files
        file = files.lookup(fd) if files is not None else None
        if file is None:
            return None
        self._check(task)
        return self.entry(fd, file)

    def entry(self, fd: int, file: File) -> Inode:
        sb = self.i_sb
        assert isinstance(sb, PseudoSuper)
        mode = 0o100 | (0o400 if file.f_mode & FMODE_READ else 0) | (0o200 if file.f_mode & FMODE_WRITE else 0)
        owner = self.i_uid, self.i_gid
        task = self.task

        def make() -> Inode:
            link = LinkInode(
                sb, sb.new_ino(), lambda reader: _fd_text(task, fd, reader), lambda reader: _fd_place(task, fd), mode,
                owner,
            )  # fmt: skip
            link.i_size = 64
            return link

        return sb.once((task, "fd", fd, file), make)

    def entries(self, task: Task | None = None) -> list[DirEntry]:
        self._check(task)
        files = self.task._files
        if files is None:
            return []
        dtype = mode_to_dtype(self.mode_of_entries)
        return [DirEntry(b"%d" % fd, self.entry(fd, file).i_ino, dtype) for fd, file in files]

    def getattr(self) -> Kstat:
        """The size of /proc/PID/fd is the number of descriptors."""
        files = self.task._files
        size = sum(1 for _ in files) if files is not None and self.mode_of_entries == S_IFLNK else 0
        return super().getattr()._replace(size=size)


def _fd_file(task: Task, fd: int) -> File:
    files = task._files
    file = files.lookup(fd) if files is not None else None
    if file is None:
        raise KernelError(Errno.ENOENT, "descriptor was closed")
    return file


def _fd_text(task: Task, fd: int, reader: Task | None) -> bytes:
    return task.kernel.vfs.path_text(_fd_file(task, fd).f_path, reader)


def _fd_place(task: Task, fd: int) -> Path:
    return _fd_file(task, fd).f_path


class FdInfoDir(FdDir):
    """/proc/PID/fdinfo."""

    __slots__ = ()

    mode_of_entries = S_IFREG

    def __init__(self, sb: PseudoSuper, task: Task) -> None:
        super().__init__(sb, task, 0o555)

    def entry(self, fd: int, file: File) -> Inode:
        sb = self.i_sb
        assert isinstance(sb, PseudoSuper)
        task = self.task
        uid, gid = self.i_uid, self.i_gid
        return sb.once(
            (task, "fdinfo", fd, file),
            lambda: TextInode(sb, sb.new_ino(), 0o444, lambda reader: _fdinfo_text(task, fd), None, uid, gid),
        )


def _fdinfo_text(task: Task, fd: int) -> str:
    file = _fd_file(task, fd)
    flags = file.f_flags | (O_CLOEXEC if task.files.get_cloexec(fd) else 0)
    text = f"pos:\t{file.f_pos}\nflags:\t0{flags:o}\nmnt_id:\t{file.f_path.mnt.mnt_id}\nino:\t{file.f_inode.i_ino}\n"
    return text + _lock_lines(file) + file.fdinfo()


def _lock_lines(file: File) -> str:
    context = file.f_inode.i_flctx
    if context is None or file not in context.flocks:
        return ""
    inode = file.f_inode
    dev = inode.i_sb.s_dev
    kind = "WRITE" if context.flocks[file] == 2 else "READ"
    return f"lock:\t1: FLOCK  ADVISORY  {kind} 0 {dev >> 8 & 0xFFF:02x}:{dev & 0xFF:02x}:{inode.i_ino} 0 EOF\n"
