"""A host directory that the guest may write: ``--writable DIR``.

Models ``fs/hostfs`` (of user-mode Linux).  Every operation is done on the host at once; only file data is also kept in
the page cache, so that mappings work, and written through.  Names are looked up afresh at every step (``volatile``), so
what the host changes is seen: attributes at once, data when the file is next opened, as on NFS.

Confined by kernel/fs/hostfs.py: the tree handed in has DIR as its top, and no link is ever followed by the host.

Deliberate differences: times of files here are the host's, not the machine's clock; device nodes cannot be made
(EPERM); sockets that are bound here are seen by the guest only.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from kernel.abi.errno import Errno, KernelError
from kernel.abi.stat import S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK, Kstatfs, mode_to_dtype
from kernel.fs.dcache import Dentry, Path
from kernel.fs.dirfile import DirFile
from kernel.fs.file import File
from kernel.fs.hostfs import FdCache, HostDir, HostStat, WritableHostTree
from kernel.fs.hostnode import MAX_OPEN_DIRS, HostFsSuper, HostInode, Place
from kernel.fs.hostreg import HostReg
from kernel.fs.inode import DirEntry, Inode
from kernel.fs.permission import Owner
from kernel.fs.special import open_special

if TYPE_CHECKING:
    from kernel.kernel import Kernel
    from kernel.task.task import Task


class HostDirSuper(HostFsSuper):
    """One writable host directory."""

    def __init__(self, kernel: Kernel, tree: WritableHostTree) -> None:
        dirs = FdCache(tree, MAX_OPEN_DIRS)
        top = HostDir(dirs, None, b"")
        stat = top.stat()
        super().__init__(kernel, tree, stat.dev, dirs)
        self.known: WeakValueDictionary[tuple[int, int], HostInode] = WeakValueDictionary()
        root = HostSubdir(self, stat, top)
        self.known[(stat.dev, stat.ino)] = root
        self.s_root = Dentry(b"/", None, root, self)

    def inode(self, parent: HostDir, name: bytes, stat: HostStat) -> HostInode:
        """The inode of a host object, brought up to date."""
        key = (stat.dev, stat.ino)
        inode = self.known.get(key)
        if inode is None or inode.i_nlink == 0 or (inode.i_mode ^ stat.mode) & S_IFMT:  # the host reuses numbers
            inode = self.known[key] = self._make(parent, name, stat)
        inode.found_at((parent, name))
        inode.refresh(stat)
        return inode

    def _make(self, parent: HostDir, name: bytes, stat: HostStat) -> HostInode:
        kind = stat.mode & S_IFMT
        if kind == S_IFDIR:
            return HostSubdir(self, stat, parent.child(name))
        if kind == S_IFREG:
            return HostReg(self, stat)
        if kind == S_IFLNK:
            return HostSymlink(self, stat, parent.readlink(name))
        return HostSpecial(self, stat)

    def statfs(self, dentry: Dentry) -> Kstatfs:
        root = self.s_root
        assert root is not None and isinstance(root.d_inode, HostSubdir)
        return self.tree.statfs(root.d_inode.dir.fd())._replace(type=self.s_magic, flags=0)

    def sync(self) -> None:
        for inode in list(self.written):
            with suppress(KernelError):  # sync(2) reports nothing
                inode.fsync(False)


class HostSymlink(HostInode):
    __slots__ = ("target",)

    def __init__(self, sb: HostDirSuper, stat: HostStat, target: bytes) -> None:
        super().__init__(sb, stat)
        self.target = target

    def readlink(self, task: Task | None = None) -> bytes:
        return self.target


class HostSpecial(HostInode):
    """A FIFO, device or socket that is there: what it does is the guest's own."""

    __slots__ = ()

    def open(self, task: Task | None, path: Path, flags: int) -> File | Generator[Any, Any, File]:
        return open_special(self, task, path, flags)


class GuestSocket(Inode):
    """A socket bound in a writable directory: a name that only the guest sees."""

    __slots__ = ()


class HostSubdir(HostInode):
    """A directory."""

    __slots__ = ("dir", "sockets")

    volatile = True

    def __init__(self, sb: HostDirSuper, stat: HostStat, directory: HostDir) -> None:
        super().__init__(sb, stat)
        self.dir = directory
        self.sockets: dict[bytes, Inode] = {}

    def open(self, task: Task | None, path: Path, flags: int) -> File | Generator[Any, Any, File]:
        return DirFile(path, self, flags)

    def stat(self) -> HostStat | None:
        return self.dir.stat() if self.i_nlink else None

    @property
    def top(self) -> HostDirSuper:
        sb = self.i_sb
        assert isinstance(sb, HostDirSuper)
        return sb

    def is_removed(self) -> bool:
        return self.i_nlink == 0

    def at(self) -> tuple[int, bytes]:
        return self.dir.fd(), b""

    def lookup(self, name: bytes, task: Task | None = None) -> Inode | None:
        stat = self.dir.lstat(name)
        return self.sockets.get(name) if stat is None else self.top.inode(self.dir, name, stat)

    def entries(self, task: Task | None = None) -> list[DirEntry]:
        found = [DirEntry(*entry) for entry in self.dir.listdir()]
        found += [DirEntry(name, inode.i_ino, mode_to_dtype(inode.i_mode)) for name, inode in self.sockets.items()]
        return found

    def _made(self, name: bytes, owner: Owner) -> HostInode:
        """The object just made as ``name``, given to ``owner`` where the host lets us."""
        stat = self.dir.lstat(name)
        if stat is None:
            raise KernelError(Errno.EIO, "what was just made is gone")
        if (stat.uid, stat.gid) != owner:
            with suppress(KernelError):
                self.host.tree.chown(self.dir.fd(), name, owner.uid, owner.gid)
                stat = self.dir.lstat(name) or stat
        return self.top.inode(self.dir, name, stat)

    def create(self, name: bytes, mode: int, owner: Owner) -> Inode:
        fd = self.host.tree.create(self.dir.fd(), name, mode & 0o7777)
        inode = self._made(name, owner)
        assert isinstance(inode, HostReg)
        inode.fd, inode.is_writable = fd, True
        return inode

    def mkdir(self, name: bytes, mode: int, owner: Owner) -> Inode:
        self.host.tree.mkdir(self.dir.fd(), name, mode & 0o7777)
        return self._made(name, owner)

    def symlink(self, name: bytes, target: bytes, owner: Owner) -> Inode:
        self.host.tree.symlink(self.dir.fd(), name, target)
        return self._made(name, owner)

    def mknod(self, name: bytes, mode: int, rdev: int, owner: Owner) -> Inode:
        kind = mode & S_IFMT
        if kind == S_IFIFO:
            self.host.tree.mkfifo(self.dir.fd(), name, mode & 0o7777)
            return self._made(name, owner)
        if kind == S_IFSOCK:
            inode = self.sockets[name] = GuestSocket(self.i_sb, self.i_sb.new_ino(), mode, owner.uid, owner.gid)
            return inode
        raise KernelError(Errno.EPERM, "device nodes cannot be made on the host")

    def tmpfile(self, mode: int, owner: Owner) -> Inode:
        tree = self.host.tree
        fd = tree.create_unnamed(self.dir.fd(), mode & 0o7777)
        inode = HostReg(self.host, tree.fstat(fd))
        inode.refresh(tree.fstat(fd))
        inode.fd, inode.is_writable = fd, True
        return inode

    def link(self, name: bytes, inode: Inode) -> None:
        tree = self.host.tree
        if isinstance(inode, HostReg) and inode.place is None:
            tree.link_fd(inode.fd, self.dir.fd(), name)
        else:
            assert isinstance(inode, HostInode)
            tree.link(*inode.at(), self.dir.fd(), name)
        assert isinstance(inode, HostInode)
        inode.found_at((self.dir, name))
        inode.i_nlink += 1

    def unlink(self, name: bytes, inode: Inode) -> None:
        if self.sockets.get(name) is inode:
            del self.sockets[name]
            inode.i_nlink = 0
            return
        self.host.tree.unlink(self.dir.fd(), name)
        self._lost_name(inode, (self.dir, name))

    @staticmethod
    def _lost_name(inode: Inode, place: Place) -> None:
        """One of the names of ``inode`` is gone on the host."""
        assert isinstance(inode, HostInode)
        inode.i_nlink = max(0, inode.i_nlink - 1)
        inode.lost(place)

    def rmdir(self, name: bytes, inode: Inode) -> None:
        if isinstance(inode, HostSubdir) and inode.sockets:
            raise KernelError(Errno.ENOTEMPTY, "directory is not empty")
        self.host.tree.rmdir(self.dir.fd(), name)
        inode.i_nlink = 0

    def rename(
        self, name: bytes, inode: Inode, new_dir: Inode, new_name: bytes, target: Inode | None, exchange: bool
    ) -> None:
        assert isinstance(new_dir, HostSubdir)
        if self.sockets.get(name) is inode or (target is not None and new_dir.sockets.get(new_name) is target):
            raise KernelError(Errno.EXDEV, "a socket that only the guest sees cannot be moved")
        self.host.tree.rename(self.dir.fd(), name, new_dir.dir.fd(), new_name, exchange)
        old, new = (self.dir, name), (new_dir.dir, new_name)
        if target is not None and exchange:
            _moved(target, new, old)
        elif isinstance(target, HostSubdir):
            target.i_nlink = 0
        elif target is not None:
            self._lost_name(target, new)
        _moved(inode, old, new)


def _moved(inode: Inode, old: Place, new: Place) -> None:
    assert isinstance(inode, HostInode)
    inode.lost(old)
    inode.found_at(new)
    parent, name = new
    if isinstance(inode, HostSubdir):
        inode.dir.parent, inode.dir.name = parent, name
