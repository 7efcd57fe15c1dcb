"""/dev/shm: a tmpfs whose files are shared memory proper, pages and nothing below them.

Models ``mm/shmem.c``.  Differs from kernel/fs/memfs.py in where the data of regular files lives (kernel/mm/shmem.py).
"""

from __future__ import annotations

from kernel.abi.stat import S_IFMT, S_IFREG
from kernel.fs.inode import Inode
from kernel.fs.memfs import MemSuper
from kernel.fs.permission import Owner
from kernel.fs.xattr import XattrTable
from kernel.mm.shmem import ShmemInode


class ShmReg(XattrTable, ShmemInode):
    """A named file of shared memory."""

    __slots__ = ("xattrs",)

    def __init__(self, sb: MemSuper, mode: int, owner: Owner) -> None:
        super().__init__(sb, 0, owner.uid, owner.gid, mode & 0o7777)
        self.i_nlink = 1
        self.xattrs: dict[bytes, bytes] | None = None


class ShmSuper(MemSuper):
    def new_inode(self, parent: Inode, mode: int, owner: Owner, rdev: int = 0, target: bytes = b"") -> Inode:
        if mode & S_IFMT == S_IFREG:
            return ShmReg(self, mode, owner)
        return super().new_inode(parent, mode, owner, rdev, target)
