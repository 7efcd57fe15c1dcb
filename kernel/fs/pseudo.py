"""Files without a place in the tree: pipes, sockets, anonymous inodes, shared memory.

Models ``fs/libfs.c`` (``init_pseudo``, ``alloc_file_pseudo``) and ``fs/anon_inodes.c``.  Each kind has an internal file
system that is never mounted anywhere; its files show as ``pipe:[7]`` and the like in /proc/PID/fd.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from kernel.abi.stat import (
    ANON_INODE_FS_MAGIC,
    PIPEFS_MAGIC,
    S_IFDIR,
    S_IFIFO,
    S_IFSOCK,
    SOCKFS_MAGIC,
    TMPFS_MAGIC,
)
from kernel.fs.dcache import Dentry, Mount, Path
from kernel.fs.inode import Inode, SuperBlock
from kernel.fs.pipe import open_pipe_again

if TYPE_CHECKING:
    from kernel.fs.file import File
    from kernel.fs.vfs import Vfs
    from kernel.task.task import Task


class _PseudoSuper(SuperBlock):
    def __init__(self, vfs: Vfs, s_type: str, magic: int) -> None:
        super().__init__(vfs.kernel, vfs.new_anon_dev())
        self.s_type = s_type
        self.s_magic = magic


class PipeInode(Inode):
    """The inode of a pipe without a name; /proc/PID/fd can open it again."""

    __slots__ = ()

    def open(self, task: Task | None, path: Path, flags: int) -> File | Generator[Any, Any, File]:
        return open_pipe_again(self, path, flags)


class SocketInode(Inode):
    __slots__ = ()


class AnonInode(Inode):
    """The one inode that all epoll, eventfd, timerfd ... files share (``anon_inode_inode``): mode 0600, no type."""

    __slots__ = ()


class PseudoFs:
    """The internal file systems of one machine."""

    def __init__(self, vfs: Vfs) -> None:
        self._pipefs = self._mount(vfs, "pipefs", PIPEFS_MAGIC)
        self._sockfs = self._mount(vfs, "sockfs", SOCKFS_MAGIC)
        self._anonfs = self._mount(vfs, "anon_inodefs", ANON_INODE_FS_MAGIC)
        self.shm = self._mount(vfs, "tmpfs", TMPFS_MAGIC)
        """The internal mount that memfds and shared anonymous memory live on (``shm_mnt``)."""
        self._anon_inode = AnonInode(self._anonfs.mnt_sb, 1, 0o600)
        self._anon_inode.i_count = 1  # it is never evicted

    @staticmethod
    def _mount(vfs: Vfs, s_type: str, magic: int) -> Mount:
        sb = _PseudoSuper(vfs, s_type, magic)
        root = Dentry(b"/", None, Inode(sb, sb.new_ino(), S_IFDIR | 0o555), sb)
        sb.s_root = root
        return Mount(0, root, s_type)

    @staticmethod
    def place(mnt: Mount, inode: Inode, text: bytes) -> Path:
        """A path for an unnamed inode of the internal mount ``mnt``."""
        dentry = Dentry(b"", mnt.mnt_root, inode, mnt.mnt_sb)
        dentry.d_hashed = False
        dentry.d_text = text
        return Path(mnt, dentry)

    def new_pipe(self, task: Task) -> Path:
        """A place for a new pipe: ``pipe:[ino]``."""
        sb = self._pipefs.mnt_sb
        inode = PipeInode(sb, sb.new_ino(), S_IFIFO | 0o600, task.creds.fsuid, task.creds.fsgid)
        return self.place(self._pipefs, inode, b"pipe:[%d]" % inode.i_ino)

    def new_socket(self, task: Task) -> Path:
        sb = self._sockfs.mnt_sb
        inode = SocketInode(sb, sb.new_ino(), S_IFSOCK | 0o777, task.creds.fsuid, task.creds.fsgid)
        return self.place(self._sockfs, inode, b"socket:[%d]" % inode.i_ino)

    def new_anon(self, name: str) -> Path:
        """A place for ``anon_inode:[name]`` (give ``[eventfd]`` and so on as Linux writes them)."""
        return self.place(self._anonfs, self._anon_inode, b"anon_inode:" + name.encode())
