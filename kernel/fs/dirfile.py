"""An open directory.

Models ``fs/readdir.c`` and ``fs/libfs.c`` (``dcache_readdir``).  The entries are taken once, when reading starts at
position 0, so that names may be removed while a program walks through them; the position is the next entry's index, and
at the end what ext4 has there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.abi.errno import Errno, KernelError
from kernel.abi.fcntl import (
    FMODE_LSEEK,
    FMODE_PREAD,
    FMODE_PWRITE,
    O_NOATIME,
    SEEK_CUR,
    SEEK_DATA,
    SEEK_END,
    SEEK_HOLE,
    SEEK_SET,
)
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


END_OF_DIRECTORY = (1 << 63) - 1
"""Where SEEK_END leads: ext4's EXT4_HTREE_EOF_64BIT."""


class DirFile(File):
    __slots__ = ("_entries",)

    can_poll = False
    seekable = FMODE_LSEEK | FMODE_PREAD | FMODE_PWRITE

    def __init__(self, path: Path, inode: Inode, flags: int) -> None:
        super().__init__(path, inode, flags)
        self._entries: list[DirEntry] | None = None

    def read(self, task: Task | None, count: int) -> bytes | Blocking[bytes]:
        return self.pread(self.f_pos, count)

    def pread(self, pos: int, count: int) -> bytes:
        if pos + count > END_OF_DIRECTORY:
            raise KernelError(Errno.EINVAL, "position beyond the largest")
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
        end = END_OF_DIRECTORY if self.f_inode.i_nlink else 0
        if whence == SEEK_SET:
            pos = offset
        elif whence == SEEK_CUR:
            pos = self.f_pos + offset
        elif whence == SEEK_END:
            pos = end + offset
        elif whence in (SEEK_DATA, SEEK_HOLE):
            if not 0 <= offset < end:
                raise KernelError(Errno.ENXIO, "position beyond the end")
            pos = offset if whence == SEEK_DATA else end
        else:
            raise KernelError(Errno.EINVAL, "unknown whence")
        if not 0 <= pos <= END_OF_DIRECTORY:
            raise KernelError(Errno.EINVAL, "position out of range")
        self.f_pos = pos
        return pos

    def fsync(self, datasync: bool) -> None:
        """Names are kept at once."""
