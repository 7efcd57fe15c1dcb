"""What all objects of a writable host directory share: where they are on the host, and attributes kept there.

Models ``fs/hostfs`` (of user-mode Linux); see kernel/fs/hostdir.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.abi.errno import Errno, KernelError
from kernel.abi.stat import UNKNOWN_TIME, Kstat
from kernel.fs.hostfs import FdCache, HostDir, HostStat, WritableHostTree
from kernel.fs.inode import Iattr, Inode, SuperBlock

if TYPE_CHECKING:
    from kernel.fs.hostreg import HostReg
    from kernel.kernel import Kernel

HOSTFS_SUPER_MAGIC = 0x00C0FFEE
MAX_OPEN_DIRS = 128
Place = tuple[HostDir, bytes]
"""Parent directory and name."""


class HostFsSuper(SuperBlock):
    """The host side of one writable directory."""

    s_type = "hostfs"
    s_magic = HOSTFS_SUPER_MAGIC

    def __init__(self, kernel: Kernel, tree: WritableHostTree, dev: int, dirs: FdCache) -> None:
        super().__init__(kernel, dev)
        self.tree = tree
        self.dirs = dirs
        self.written: dict[HostReg, None] = {}
        """Files open for writing: what sync has to look at."""

    def put_super(self) -> None:
        self.dirs.close_all()
        for inode in self.written:
            if inode.fd >= 0:
                self.tree.close(inode.fd)
                inode.fd = -1


class HostInode(Inode):
    """What all objects of a writable directory share: where they are on the host."""

    __slots__ = ("dev", "places")

    def __init__(self, sb: HostFsSuper, stat: HostStat) -> None:
        super().__init__(sb, stat.ino, stat.mode, stat.uid, stat.gid, stat.rdev)
        self.dev = stat.dev
        self.places: list[Place] = []
        """Parent directory and name of each name that we know, the last one seen at the end."""

    @property
    def place(self) -> Place | None:
        """Where the object is; None for the top and for files without a name."""
        return self.places[-1] if self.places else None

    def found_at(self, place: Place) -> None:
        if not self.places or self.places[-1] != place:
            if place in self.places:
                self.places.remove(place)
            self.places.append(place)

    def lost(self, place: Place) -> None:
        if place in self.places:
            self.places.remove(place)

    @property
    def host(self) -> HostFsSuper:
        sb = self.i_sb
        assert isinstance(sb, HostFsSuper)
        return sb

    def refresh(self, stat: HostStat) -> None:
        self.i_mode, self.i_uid, self.i_gid, self.i_nlink = stat.mode, stat.uid, stat.gid, stat.nlink
        self.i_size = stat.size
        self.i_atime, self.i_mtime, self.i_ctime, self.i_btime = stat.atime, stat.mtime, stat.ctime, UNKNOWN_TIME

    def stat(self) -> HostStat | None:
        """What the host says now; None if the object cannot be found any more."""
        return self.place[0].lstat(self.place[1]) if self.place is not None else None

    def getattr(self) -> Kstat:
        stat = self.stat()
        blocks = 0
        if stat is not None and stat.ino == self.i_ino:
            self.refresh(stat)
            blocks = stat.blocks
        return Kstat(
            self.dev, self.i_ino, self.i_mode, self.i_nlink, self.i_uid, self.i_gid, self.i_rdev, self.i_size,
            4096, blocks, self.i_atime, self.i_mtime, self.i_ctime, UNKNOWN_TIME,
        )  # fmt: skip

    def is_removed(self) -> bool:
        """No name of it is known on the host any more."""
        return self.place is None

    def at(self) -> tuple[int, bytes]:
        """Directory handle and name, for calls on the host."""
        if self.place is None:
            raise KernelError(Errno.EPERM, "the object has no place of its own on the host")
        return self.place[0].fd(), self.place[1]

    def setattr(self, attr: Iattr) -> None:
        if self.is_removed():
            super().setattr(attr)  # gone from the host, still open here
            return
        tree = self.host.tree
        if attr.size is not None:
            self.truncate(attr.size)
            if self.i_count == 0:
                self.on_last_close()
        if attr.uid is not None or attr.gid is not None:
            uid = self.i_uid if attr.uid is None else attr.uid
            gid = self.i_gid if attr.gid is None else attr.gid
            tree.chown(*self.at(), uid, gid)
        if attr.mode is not None:
            tree.chmod(*self.at(), attr.mode & 0o7777)
        if attr.size is None and (attr.atime is not None or attr.mtime is not None):
            atime = self.i_atime if attr.atime is None else attr.atime
            mtime = self.i_mtime if attr.mtime is None else attr.mtime
            tree.utimens(*self.at(), atime, mtime)
        stat = self.stat()
        if stat is not None:
            self.refresh(stat)

    def touch_atime(self) -> None:
        """The host keeps the times."""

    def touch_mtime(self) -> None:
        """The host keeps the times."""

    def touch_ctime(self) -> None:
        """The host keeps the times."""

    def getxattr(self, name: bytes) -> bytes:
        return self.host.tree.getxattr(*self.at(), name)

    def listxattr(self) -> list[bytes]:
        return self.host.tree.listxattr(*self.at())

    def setxattr(self, name: bytes, value: bytes, flags: int) -> None:
        self.host.tree.setxattr(*self.at(), name, value, flags)

    def removexattr(self, name: bytes) -> None:
        self.host.tree.removexattr(*self.at(), name)
