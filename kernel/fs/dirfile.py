"""An open directory.

Models ``fs/readdir.c`` and ``fs/libfs.c`` (``dcache_readdir``).  The entries are taken once, when reading starts at
position 0, so that names may be removed while a program walks through them; the position is the next entry's index.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.abi.errno import Errno, KernelError
from kernel.abi.fcntl import FMODE_LSEEK, O_NOATIME, SEEK_CUR, SEEK_END, SEEK_SET
from kernel.abi.inotify import IN_ACCESS
from kernel.abi.mount import MS_NOATIME, MS_NODIRATIME
from kernel.abi.stat import mode_to_dtype
from kernel.fs.file import File
from kernel.fs.inode import DirEntry, Inode
from kernel.fs.notify import fsnotify_file

if TYPE_CHECKING:
    from kernel.fs.dcache import Path
    from kernel.task.task import Task
    from kernel.task.waitqueue import Blocking


class DirFile(File):
    __slots__ = ("_entries",)

    can_poll = False
    seekable = FMODE_LSEEK

    def __init__(self, path: Path, inode: Inode, flags: int) -> None:
        super().__init__(path, inode, flags)
        self._entries: list[DirEntry] | None = None

    def read(self, task: Task | None, count: int) -> bytes | Blocking[bytes]:
        raise KernelError(Errno.EISDIR, "a directory is read with getdents64")

    def pread(self, pos: int, count: int) -> bytes:
        raise KernelError(Errno.EISDIR, "a directory is read with getdents64")

    def iterate(self, task: Task | None) -> list[DirEntry]:
        inode = self.f_inode
        if inode.i_nlink == 0:
            raise KernelError(Errno.ENOENT, "the directory was removed")
        entries = self._entries
        if entries is None or self.f_pos == 0:
            parent = self.f_path.dentry.d_parent.d_inode
            entries = [
                DirEntry(b".", inode.i_ino, mode_to_dtype(inode.i_mode)),
                DirEntry(b"..", parent.i_ino, mode_to_dtype(parent.i_mode)),
            ]
            entries.extend(inode.entries(task))
            self._entries = entries
            if not (self.f_flags & O_NOATIME or self.f_path.mnt.mnt_flags & (MS_NOATIME | MS_NODIRATIME)):
                inode.touch_atime()
            if inode.i_sb.watched:
                fsnotify_file(self, IN_ACCESS)
        return entries

    def lseek(self, offset: int, whence: int) -> int:
        if whence == SEEK_SET:
            pos = offset
        elif whence == SEEK_CUR:
            pos = self.f_pos + offset
        elif whence == SEEK_END:
            pos = len(self.iterate(None)) + offset
        else:
            raise KernelError(Errno.EINVAL, "unknown whence")
        if pos < 0:
            raise KernelError(Errno.EINVAL, "position below zero")
        self.f_pos = pos
        return pos

    def fsync(self, datasync: bool) -> None:
        """Names are kept at once."""
