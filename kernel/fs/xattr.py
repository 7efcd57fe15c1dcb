"""Extended attributes kept in memory, and who may use which.

Models ``fs/xattr.c`` (``xattr_permission``, ``simple_xattr_*``).  Namespaces: ``user.`` on regular files and
directories, ``trusted.`` for CAP_SYS_ADMIN, ``security.`` as plain data.  No ``system.`` (access control lists):
EOPNOTSUPP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.abi.errno import Errno, KernelError
from kernel.abi.fcntl import MAY_READ, MAY_WRITE
from kernel.abi.stat import S_IFDIR, S_IFMT, S_IFREG, S_ISVTX
from kernel.abi.xattr import XATTR_CREATE, XATTR_REPLACE
from kernel.fs.permission import CAP_SYS_ADMIN, capable, inode_permission, owner_or_capable

if TYPE_CHECKING:
    from kernel.fs.inode import Inode
    from kernel.task.task import Task

MAX_TOTAL = 1 << 20
"""Bytes of attributes that one inode may have."""
_NAMESPACES = (b"user.", b"trusted.", b"security.")


class XattrTable:
    """Mixed into inodes that keep their attributes in a dict ``xattrs`` (None: none yet)."""

    __slots__ = ()

    xattrs: dict[bytes, bytes] | None

    def getxattr(self, name: bytes) -> bytes:
        if not name.startswith(_NAMESPACES):
            raise KernelError(Errno.EOPNOTSUPP, "no such attribute namespace")
        value = (self.xattrs or {}).get(name)
        if value is None:
            raise KernelError(Errno.ENODATA, "no such attribute")
        return value

    def listxattr(self) -> list[bytes]:
        return list(self.xattrs or ())

    def setxattr(self, name: bytes, value: bytes, flags: int) -> None:
        if not name.startswith(_NAMESPACES):
            raise KernelError(Errno.EOPNOTSUPP, "no such attribute namespace")
        table = dict(self.xattrs or {})
        if flags & XATTR_CREATE and name in table:
            raise KernelError(Errno.EEXIST, "XATTR_CREATE and the attribute exists")
        if flags & XATTR_REPLACE and name not in table:
            raise KernelError(Errno.ENODATA, "XATTR_REPLACE and no such attribute")
        table[name] = value
        if sum(len(key) + len(text) for key, text in table.items()) > MAX_TOTAL:
            raise KernelError(Errno.ENOSPC, "too many extended attributes")
        self.xattrs = table  # type: ignore[misc]  # a slot of the classes that this is mixed into

    def removexattr(self, name: bytes) -> None:
        if self.xattrs is None or name not in self.xattrs:
            raise KernelError(Errno.ENODATA, "no such attribute")
        del self.xattrs[name]


def xattr_permission(task: Task | None, inode: Inode, name: bytes, mask: int) -> None:
    """May ``task`` read or write (``mask``) attribute ``name`` of ``inode``?"""
    if name.startswith((b"security.", b"system.")):
        return
    if name.startswith(b"trusted."):
        if not capable(task, CAP_SYS_ADMIN):
            raise KernelError(Errno.EPERM if mask & MAY_WRITE else Errno.ENODATA, "trusted. needs CAP_SYS_ADMIN")
        return
    if name.startswith(b"user."):
        kind = inode.i_mode & S_IFMT
        if kind not in (S_IFREG, S_IFDIR):
            raise KernelError(Errno.EPERM if mask & MAY_WRITE else Errno.ENODATA, "user. on a special file")
        sticky = kind == S_IFDIR and inode.i_mode & S_ISVTX
        if sticky and mask & MAY_WRITE and not owner_or_capable(task, inode):
            raise KernelError(Errno.EPERM, "user. on a sticky directory of somebody else")
    inode_permission(task, inode, mask & (MAY_READ | MAY_WRITE))
