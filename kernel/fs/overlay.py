"""The root file system: the host's files below, read only, and everything the guest changes above, in memory.

Models ``fs/overlayfs`` in what a program sees (copy-up, whiteouts, opaque directories, moved directories), not in how.

A lower object becomes an inode when it is first looked up, found again by its host (st_dev, st_ino), so hard links
stay links.  "Copy-up" changes that inode: attributes in place, data page by page over the host's file
(kernel/fs/store.py).  A changed inode is *pinned*: kept for good, whatever the name cache drops.

Invariants: ``children`` of a directory are the names that the guest made or moved here; ``whiteouts`` are the lower
names that it took away; a name in neither is what the host has.

Deliberate differences: ``st_dev`` and ``st_ino`` of lower files are the host's own; files made by the guest
get inode numbers from 2**30 on and the device of their directory; access times of unchanged lower files stay.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from kernel.abi.errno import KernelError
from kernel.abi.stat import (
    OVERLAYFS_SUPER_MAGIC,
    S_IFDIR,
    S_IFLNK,
    S_IFMT,
    S_IFREG,
    UNKNOWN_TIME,
    Kstat,
    Kstatfs,
    mode_to_dtype,
)
from kernel.fs.dcache import Dentry, Path
from kernel.fs.file import File
from kernel.fs.hostfs import FdCache, HostDir, HostFile, HostStat, HostTree
from kernel.fs.inode import DirEntry, Inode
from kernel.fs.memfs import MemDir, MemReg, MemSpecial, MemSuper, MemSymlink
from kernel.fs.permission import Owner
from kernel.fs.store import FileStore, Space
from kernel.fs.xattr import XattrTable

if TYPE_CHECKING:
    from kernel.kernel import Kernel
    from kernel.task.task import Task

FIRST_NEW_INO = 1 << 30
NEW_DIR_BLOCKS = 8
"""``st_blocks`` of a new directory: 4096 bytes."""
MAX_OPEN_DIRS = 192
MAX_OPEN_FILES = 192


class OverlaySuper(MemSuper):
    """The overlay of one host tree."""

    s_type = "overlay"
    s_magic = OVERLAYFS_SUPER_MAGIC
    dirent_size = 0

    def __init__(self, kernel: Kernel, tree: HostTree, space: Space) -> None:
        self.dirs = FdCache(tree, MAX_OPEN_DIRS)
        self.files = FdCache(tree, MAX_OPEN_FILES)
        self.known: WeakValueDictionary[tuple[int, int], Inode] = WeakValueDictionary()
        """Inodes of lower objects by the host's (st_dev, st_ino)."""
        self.pinned: dict[Inode, None] = {}
        """Those of them that the guest has changed."""
        lower = HostDir(self.dirs, None, b"")
        stat = lower.stat()
        super().__init__(kernel, stat.dev, space)
        self._last_ino = FIRST_NEW_INO - 1
        root = OvlDir(self, stat.dev, stat.ino, stat.mode, Owner(stat.uid, stat.gid), lower)
        _take_attributes(root, stat)
        self.known[(stat.dev, stat.ino)] = root
        self.s_root = Dentry(b"/", None, root, self)

    def put_super(self) -> None:
        self.dirs.close_all()
        self.files.close_all()

    def lower_inode(self, parent: HostDir, name: bytes) -> Inode | None:
        """The inode of a lower name, made at first sight."""
        stat = parent.lstat(name)
        if stat is None:
            return None
        key = (stat.dev, stat.ino)
        known = self.known.get(key)
        if known is not None and known.i_nlink:
            return known
        inode = self._make_lower(parent, name, stat)
        _take_attributes(inode, stat)
        inode.lower_at = (parent, name)
        self.known[key] = inode
        return inode

    def _make_lower(self, parent: HostDir, name: bytes, stat: HostStat) -> OvlReg | OvlDir | OvlSymlink | OvlSpecial:
        owner = Owner(stat.uid, stat.gid)
        kind = stat.mode & S_IFMT
        if kind == S_IFREG:
            file = HostFile(self.files, parent, name)
            return OvlReg(self, stat.dev, stat.ino, stat.mode, owner, FileStore(self.space, file, stat.size))
        if kind == S_IFDIR:
            return OvlDir(self, stat.dev, stat.ino, stat.mode, owner, parent.child(name))
        if kind == S_IFLNK:
            return OvlSymlink(self, stat.dev, stat.ino, owner, parent.readlink(name))
        return OvlSpecial(self, stat.dev, stat.ino, stat.mode, owner, stat.rdev)

    def new_inode(self, parent: Inode, mode: int, owner: Owner, rdev: int = 0, target: bytes = b"") -> Inode:
        assert isinstance(parent, OvlDir)
        dev, ino = parent.dev, self.new_ino()
        kind = mode & S_IFMT
        if kind == S_IFREG:
            return OvlReg(self, dev, ino, mode, owner, FileStore(self.space))
        if kind == S_IFDIR:
            return OvlDir(self, dev, ino, mode, owner, None)
        if kind == S_IFLNK:
            return OvlSymlink(self, dev, ino, owner, target)
        return OvlSpecial(self, dev, ino, mode, owner, rdev)

    def statfs(self, dentry: Dentry) -> Kstatfs:
        """The host's figures for the directory, with no more free space than the upper layer has."""
        directory = dentry.d_inode if isinstance(dentry.d_inode, OvlDir) else dentry.d_parent.d_inode
        while isinstance(directory, OvlDir) and directory.lower is None and dentry.d_parent is not dentry:
            dentry = dentry.d_parent
            directory = dentry.d_inode
        assert isinstance(directory, OvlDir) and directory.lower is not None
        host = self.dirs.tree.statfs(directory.lower.fd())
        free = self.space.free * 4096 // max(1, host.bsize)
        return host._replace(type=self.s_magic, flags=0, bfree=min(host.bfree, free), bavail=min(host.bavail, free))


def _take_attributes(inode: OvlReg | OvlDir | OvlSymlink | OvlSpecial, stat: HostStat) -> None:
    inode.i_nlink = stat.nlink
    inode.i_size = stat.size
    inode.i_atime, inode.i_mtime, inode.i_ctime = stat.atime, stat.mtime, stat.ctime
    inode.i_btime = UNKNOWN_TIME
    inode.lower_blocks = stat.blocks


class _Overlaid:
    """What all overlay inodes share: the device number, and being pinned when changed."""

    __slots__ = ()

    dev: int
    is_pinned: bool
    lower_at: tuple[HostDir, bytes] | None
    """Where the object is on the host, if it comes from there."""
    lower_blocks: int
    """``st_blocks`` on the host; for what is not there, what a new directory takes."""

    def mark_dirty(self) -> None:
        if not self.is_pinned:
            self.is_pinned = True  # type: ignore[misc]  # a slot of the classes that this is mixed into
            assert isinstance(self, Inode)
            sb = self.i_sb
            assert isinstance(sb, OverlaySuper)
            sb.pinned[self] = None

    def getattr(self) -> Kstat:
        assert isinstance(self, Inode)
        return Kstat(
            self.dev, self.i_ino, self.i_mode, self.i_nlink, self.i_uid, self.i_gid, self.i_rdev, self.i_size,
            4096, self.blocks(), self.i_atime, self.i_mtime, self.i_ctime, self.i_btime,
        )  # fmt: skip

    def blocks(self) -> int:
        return self.lower_blocks

    def btime(self) -> int:
        """Asked of the host only when a program wants it."""
        assert isinstance(self, Inode)
        if self.lower_at is None:
            return Inode.btime(self)
        parent, name = self.lower_at
        try:
            return parent.cache.tree.btime(parent.fd(), name)
        except KernelError:
            return UNKNOWN_TIME

    def evict(self) -> None:
        assert isinstance(self, Inode)
        super().evict()  # type: ignore[misc]
        sb = self.i_sb
        assert isinstance(sb, OverlaySuper)
        sb.pinned.pop(self, None)

    def touch_atime(self) -> None:
        if self.is_pinned:
            super().touch_atime()  # type: ignore[misc]


class _OverlaidXattrs(_Overlaid, XattrTable):
    """Extended attributes that are the host's until they are first asked for."""

    __slots__ = ()

    def listxattr(self) -> list[bytes]:
        self._load_xattrs()
        return super().listxattr()

    def getxattr(self, name: bytes) -> bytes:
        self._load_xattrs()
        return super().getxattr(name)

    def setxattr(self, name: bytes, value: bytes, flags: int) -> None:
        self._load_xattrs()
        self.mark_dirty()
        super().setxattr(name, value, flags)

    def removexattr(self, name: bytes) -> None:
        self._load_xattrs()
        self.mark_dirty()
        super().removexattr(name)

    def _load_xattrs(self) -> None:
        if self.xattrs is None:
            found = {} if self.lower_at is None else _host_xattrs(*self.lower_at)
            self.xattrs = found  # type: ignore[misc]  # a slot of the classes that this is mixed into


class OvlReg(_OverlaidXattrs, MemReg):
    __slots__ = ("dev", "is_pinned", "lower_at", "lower_blocks")

    def __init__(self, sb: OverlaySuper, dev: int, ino: int, mode: int, owner: Owner, store: FileStore) -> None:
        super().__init__(sb, ino, mode, owner, store)
        self.dev = dev
        self.is_pinned = False
        self.lower_at: tuple[HostDir, bytes] | None = None
        self.lower_blocks = 0

    def open(self, task: Task | None, path: Path, flags: int) -> File | Generator[Any, Any, File]:
        base = self.store.base
        if base is not None and self.store.base_size and self.mapping_if_any is None:
            base.pread(0, 1)  # the host may say EACCES: now is the time
        return super().open(task, path, flags)

    def blocks(self) -> int:
        store = self.store
        return self.lower_blocks if store.base is not None and not self.is_pinned else store.nr_pages << 3

    def reserve(self, pos: int, count: int) -> int:
        self.mark_dirty()
        return super().reserve(pos, count)

    def allocate(self, pos: int, count: int) -> int:
        self.mark_dirty()
        return super().allocate(pos, count)


class OvlSymlink(_Overlaid, MemSymlink):
    __slots__ = ("dev", "is_pinned", "lower_at", "lower_blocks")

    def __init__(self, sb: OverlaySuper, dev: int, ino: int, owner: Owner, target: bytes) -> None:
        super().__init__(sb, ino, owner, target)
        self.dev = dev
        self.is_pinned = False
        self.lower_at: tuple[HostDir, bytes] | None = None
        self.lower_blocks = 0


class OvlSpecial(_Overlaid, MemSpecial):
    __slots__ = ("dev", "is_pinned", "lower_at", "lower_blocks")

    def __init__(self, sb: OverlaySuper, dev: int, ino: int, mode: int, owner: Owner, rdev: int) -> None:
        super().__init__(sb, ino, mode, owner.uid, owner.gid, rdev)
        self.dev = dev
        self.is_pinned = False
        self.lower_at: tuple[HostDir, bytes] | None = None
        self.lower_blocks = 0


class OvlDir(_OverlaidXattrs, MemDir):
    """A directory: merged if ``lower`` is not None."""

    __slots__ = ("dev", "is_pinned", "lower", "lower_at", "lower_blocks", "whiteouts")

    def __init__(self, sb: OverlaySuper, dev: int, ino: int, mode: int, owner: Owner, lower: HostDir | None) -> None:
        super().__init__(sb, ino, mode, owner.uid, owner.gid)
        self.dev = dev
        self.is_pinned = False
        self.lower_at: tuple[HostDir, bytes] | None = None
        self.lower_blocks = NEW_DIR_BLOCKS
        self.lower = lower
        self.whiteouts: dict[bytes, None] = {}

    def lookup(self, name: bytes, task: Task | None = None) -> Inode | None:
        inode = self.children.get(name)
        if inode is not None or self.lower is None or name in self.whiteouts:
            return inode
        sb = self.i_sb
        assert isinstance(sb, OverlaySuper)
        return sb.lower_inode(self.lower, name)

    def entries(self, task: Task | None = None) -> list[DirEntry]:
        children = self.children
        if self.lower is None:
            return super().entries(task)
        found: list[DirEntry] = []
        seen: set[bytes] = set()
        for name, ino, dtype in self.lower.listdir():
            child = children.get(name)
            if child is not None:
                found.append(DirEntry(name, child.i_ino, mode_to_dtype(child.i_mode)))
                seen.add(name)
            elif name not in self.whiteouts:
                found.append(DirEntry(name, ino, dtype))
        found.extend(
            DirEntry(name, child.i_ino, mode_to_dtype(child.i_mode))
            for name, child in children.items()
            if name not in seen
        )
        return found

    def is_empty(self) -> bool:
        if self.children:
            return False
        return self.lower is None or not self.entries()

    def put(self, name: bytes, inode: Inode) -> None:
        super().put(name, inode)
        if self.lower is not None:
            self.whiteouts[name] = None  # the lower name stays hidden when this one goes

    def take(self, name: bytes) -> None:
        super().take(name)
        if self.lower is not None:
            self.whiteouts[name] = None


def _host_xattrs(parent: HostDir, name: bytes) -> dict[bytes, bytes]:
    """The attributes of a lower object that the host lets us see."""
    tree = parent.cache.tree
    found: dict[bytes, bytes] = {}
    try:
        for attribute in tree.listxattr(parent.fd(), name):
            if attribute.startswith((b"user.", b"security.", b"trusted.")):
                found[attribute] = tree.getxattr(parent.fd(), name, attribute)
    except KernelError:
        return found
    return found
