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
from kernel.abi.fcntl import FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE, SEEK_DATA, SEEK_HOLE
from kernel.abi.stat import S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK, Kstat, Kstatfs, mode_to_dtype
from kernel.fs.dcache import Dentry, Path
from kernel.fs.dirfile import DirFile
from kernel.fs.file import File
from kernel.fs.hostfs import FdCache, HostDir, HostStat, WritableHostTree
from kernel.fs.inode import DirEntry, Iattr, Inode, SuperBlock
from kernel.fs.permission import Owner
from kernel.fs.regular import DataInode, RegularFile
from kernel.fs.special import open_special
from kernel.mm.filemap import (
    evict_mapping,
    filemap_write_and_wait,
    invalidate_mapping_pages,
    pagecache_isize_extended,
    truncate_pagecache_range,
)
from kernel.mm.types import PAGE_SHIFT, PAGE_SIZE

if TYPE_CHECKING:
    from kernel.kernel import Kernel
    from kernel.mm.filemap import AddressSpace
    from kernel.task.task import Task

HOSTFS_SUPER_MAGIC = 0x00C0FFEE
MAX_OPEN_DIRS = 128
Place = tuple[HostDir, bytes]


class HostDirSuper(SuperBlock):
    """One writable host directory."""

    s_type = "hostfs"
    s_magic = HOSTFS_SUPER_MAGIC

    def __init__(self, kernel: Kernel, tree: WritableHostTree) -> None:
        self.tree = tree
        self.dirs = FdCache(tree, MAX_OPEN_DIRS)
        top = HostDir(self.dirs, None, b"")
        stat = top.stat()
        super().__init__(kernel, stat.dev)
        self.known: WeakValueDictionary[tuple[int, int], _HostInode] = WeakValueDictionary()
        self.written: dict[HostReg, None] = {}
        """Files open for writing or mapped: what sync has to look at."""
        root = HostSubdir(self, stat, top)
        self.known[(stat.dev, stat.ino)] = root
        self.s_root = Dentry(b"/", None, root, self)

    def inode(self, parent: HostDir, name: bytes, stat: HostStat) -> _HostInode:
        """The inode of a host object, brought up to date."""
        key = (stat.dev, stat.ino)
        inode = self.known.get(key)
        if inode is None or inode.i_nlink == 0 or (inode.i_mode ^ stat.mode) & S_IFMT:  # the host reuses numbers
            inode = self.known[key] = self._make(parent, name, stat)
        inode.found_at((parent, name))
        inode.refresh(stat)
        return inode

    def _make(self, parent: HostDir, name: bytes, stat: HostStat) -> _HostInode:
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


class _HostInode(Inode):
    """What all objects of a writable directory share: where they are on the host."""

    __slots__ = ("dev", "places")

    def __init__(self, sb: HostDirSuper, stat: HostStat) -> None:
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
    def host(self) -> HostDirSuper:
        sb = self.i_sb
        assert isinstance(sb, HostDirSuper)
        return sb

    def refresh(self, stat: HostStat) -> None:
        self.i_mode, self.i_uid, self.i_gid, self.i_nlink = stat.mode, stat.uid, stat.gid, stat.nlink
        self.i_size = stat.size
        self.i_atime, self.i_mtime, self.i_ctime, self.i_btime = stat.atime, stat.mtime, stat.ctime, 0

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
            4096, blocks, self.i_atime, self.i_mtime, self.i_ctime, 0,
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


class HostSymlink(_HostInode):
    __slots__ = ("target",)

    def __init__(self, sb: HostDirSuper, stat: HostStat, target: bytes) -> None:
        super().__init__(sb, stat)
        self.target = target

    def readlink(self, task: Task | None = None) -> bytes:
        return self.target


class HostSpecial(_HostInode):
    """A FIFO, device or socket that is there: what it does is the guest's own."""

    __slots__ = ()

    def open(self, task: Task | None, path: Path, flags: int) -> File | Generator[Any, Any, File]:
        return open_special(self, task, path, flags)


class GuestSocket(Inode):
    """A socket bound in a writable directory: a name that only the guest sees."""

    __slots__ = ()


class HostReg(_HostInode, DataInode):
    """A regular file.  Its handle is open while the guest has it open or mapped."""

    __slots__ = ("fd", "is_writable", "seen")

    def __init__(self, sb: HostDirSuper, stat: HostStat) -> None:
        super().__init__(sb, stat)
        self.fd = -1
        self.is_writable = False
        self.seen = (stat.mtime, stat.size)
        """Time and size of the data in the page cache."""

    def refresh(self, stat: HostStat) -> None:
        super().refresh(stat)
        data = (stat.mtime, stat.size)
        if data != self.seen and self.i_writecount <= 0:
            mapping = self.mapping_if_any
            if mapping is not None:
                invalidate_mapping_pages(mapping)
        self.seen = data

    def stat(self) -> HostStat | None:
        return self.host.tree.fstat(self.fd) if self.fd >= 0 else super().stat()

    def setattr(self, attr: Iattr) -> None:
        if self.place is not None or self.fd < 0:
            super().setattr(attr)
            return
        tree = self.host.tree  # a file without a name: by its handle
        if attr.size is not None:
            self.truncate(attr.size)
        if attr.uid is not None or attr.gid is not None:
            uid, gid = (-1 if new is None else new for new in (attr.uid, attr.gid))
            tree.fchown(self.fd, uid, gid)
        if attr.mode is not None:
            tree.fchmod(self.fd, attr.mode & 0o7777)
        if attr.atime is not None or attr.mtime is not None:
            atime = self.i_atime if attr.atime is None else attr.atime
            tree.futimens(self.fd, atime, self.i_mtime if attr.mtime is None else attr.mtime)

    # -- the handle ----------------------------------------------------------------------------------------
    def need_fd(self, write: bool) -> int:
        if self.fd >= 0 and (self.is_writable or not write):
            return self.fd
        tree = self.host.tree
        try:
            fd, writable = tree.open_file(*self.at(), write=True), True
        except KernelError:
            if write:
                raise
            fd, writable = tree.open_file(*self.at(), write=False), False
        if self.fd >= 0:
            tree.close(self.fd)
        self.fd, self.is_writable = fd, writable
        return fd

    def open(self, task: Task | None, path: Path, flags: int) -> File | Generator[Any, Any, File]:
        write = flags & 3 != 0
        self.need_fd(write)
        if write:
            self.host.written[self] = None
        return HostRegularFile(path, self, flags)

    def on_last_close(self) -> None:
        mapping = self.mapping_if_any
        if self.fd < 0:
            return
        try:
            if mapping is not None:
                filemap_write_and_wait(mapping)
            stat = self.host.tree.fstat(self.fd)
            self.seen = (stat.mtime, stat.size)
        finally:
            self.host.tree.close(self.fd)
            self.fd = -1
            self.host.written.pop(self, None)

    # -- data ----------------------------------------------------------------------------------------------
    def readpages(self, pgoff: int, nr: int) -> bytes:
        data = self.host.tree.pread(self.need_fd(False), pgoff << PAGE_SHIFT, nr << PAGE_SHIFT)
        return data.ljust(nr << PAGE_SHIFT, b"\0")

    def writepage(self, pgoff: int, data: bytes) -> None:
        pos = pgoff << PAGE_SHIFT
        self.write_host(pos, bytes(data[: max(0, min(PAGE_SIZE, self.i_size - pos))]))

    def write_host(self, pos: int, data: bytes) -> int:
        fd, tree = self.need_fd(True), self.host.tree
        done = 0
        while done < len(data):
            done += tree.pwrite(fd, pos + done, data[done:])
        return done

    def cut(self, size: int) -> None:
        self.host.tree.ftruncate(self.need_fd(True), size)

    def fallocate(self, mode: int, offset: int, len_bytes: int) -> None:
        """The host does it; what is cached of a punched or zeroed range is dropped or zeroed."""
        mapping = self.mapping_if_any
        if mapping is not None:
            filemap_write_and_wait(mapping)
        fd, tree = self.need_fd(True), self.host.tree
        tree.fallocate(fd, mode, offset, len_bytes)
        if mapping is not None and mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE):
            truncate_pagecache_range(mapping, offset, offset + len_bytes)
        self.i_size = tree.fstat(fd).size

    def next_data(self, pos: int) -> int:
        return self._seek(pos, SEEK_DATA)

    def next_hole(self, pos: int) -> int:
        return self._seek(pos, SEEK_HOLE)

    def _seek(self, pos: int, whence: int) -> int:
        mapping = self.mapping_if_any
        if mapping is not None:
            filemap_write_and_wait(mapping)
        return self.host.tree.seek(self.need_fd(False), pos, whence)

    def evict(self) -> None:
        """Only what is cached here goes; the file is the host's."""
        mapping = self.mapping_if_any
        if mapping is not None:
            evict_mapping(mapping)

    def fsync(self, datasync: bool) -> None:
        super().fsync(datasync)
        if self.fd >= 0:
            self.host.tree.fsync(self.fd)


class HostRegularFile(RegularFile):
    """Writes go to the host first, then to the pages that are cached."""

    __slots__ = ()

    def put_data(self, pos: int, data: bytes) -> int:
        inode = self.data
        assert isinstance(inode, HostReg)
        if pos > inode.i_size:
            pagecache_isize_extended(self.mapping, inode.i_size, pos)
        written = inode.write_host(pos, data)
        _update_cached(self.mapping, pos, data[:written])
        inode.i_size = max(inode.i_size, pos + written)
        return written


def _update_cached(mapping: AddressSpace, pos: int, data: bytes) -> None:
    """Bring cached pages in line with what was just written below them."""
    memmap = mapping.memmap
    done = 0
    while done < len(data):
        offset = pos + done & (PAGE_SIZE - 1)
        nr_bytes = min(PAGE_SIZE - offset, len(data) - done)
        pfn = mapping.pages.get(pos + done >> PAGE_SHIFT)
        if pfn is not None:
            address = (pfn << PAGE_SHIFT) + offset
            memmap.physmem.mem[address : address + nr_bytes] = data[done : done + nr_bytes]
            memmap.hw.invalidate_code(pfn)
        done += nr_bytes


class HostSubdir(_HostInode):
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

    def is_removed(self) -> bool:
        return self.i_nlink == 0

    def at(self) -> tuple[int, bytes]:
        return self.dir.fd(), b""

    def lookup(self, name: bytes, task: Task | None = None) -> Inode | None:
        stat = self.dir.lstat(name)
        return self.sockets.get(name) if stat is None else self.host.inode(self.dir, name, stat)

    def entries(self, task: Task | None = None) -> list[DirEntry]:
        found = [DirEntry(*entry) for entry in self.dir.listdir()]
        found += [DirEntry(name, inode.i_ino, mode_to_dtype(inode.i_mode)) for name, inode in self.sockets.items()]
        return found

    def _made(self, name: bytes, owner: Owner) -> _HostInode:
        """The object just made as ``name``, given to ``owner`` where the host lets us."""
        stat = self.dir.lstat(name)
        if stat is None:
            raise KernelError(Errno.EIO, "what was just made is gone")
        if (stat.uid, stat.gid) != owner:
            with suppress(KernelError):
                self.host.tree.chown(self.dir.fd(), name, owner.uid, owner.gid)
                stat = self.dir.lstat(name) or stat
        return self.host.inode(self.dir, name, stat)

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
            assert isinstance(inode, _HostInode)
            tree.link(*inode.at(), self.dir.fd(), name)
        assert isinstance(inode, _HostInode)
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
        assert isinstance(inode, _HostInode)
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
    assert isinstance(inode, _HostInode)
    inode.lost(old)
    inode.found_at(new)
    parent, name = new
    if isinstance(inode, HostSubdir):
        inode.dir.parent, inode.dir.name = parent, name
