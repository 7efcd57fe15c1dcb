"""Files that live in memory: tmpfs, and the upper layer of the root file system.

Models ``mm/shmem.c`` (as a file system) and ``fs/ramfs``.  A directory's ``children`` are the truth about its names.

Deliberate differences: the data of files on these file systems lies in host memory behind the page cache
(kernel/fs/store.py), bounded by a :class:`~kernel.fs.store.Space`, so it takes no frames of the guest that
it could not give back; only memfds, shared anonymous memory and /dev/shm are shmem proper (kernel/mm/shmem.py).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from kernel.abi.errno import Errno, KernelError
from kernel.abi.stat import S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, TMPFS_MAGIC, Kstatfs, mode_to_dtype
from kernel.fs.dcache import Dentry, Path
from kernel.fs.dirfile import DirFile
from kernel.fs.file import File
from kernel.fs.inode import DirEntry, Inode, SuperBlock, is_dir
from kernel.fs.permission import Owner
from kernel.fs.regular import DataInode
from kernel.fs.special import open_special
from kernel.fs.store import FileStore, Space
from kernel.fs.xattr import XattrTable
from kernel.mm.filemap import filemap_write_and_wait
from kernel.mm.types import PAGE_SHIFT, PAGE_SIZE

if TYPE_CHECKING:
    from kernel.kernel import Kernel
    from kernel.task.task import Task

DIRENT_SIZE = 20
"""BOGO_DIRENT_SIZE: what one name adds to the size of a tmpfs directory."""
MAX_NLINK = 65_000


class MemSuper(SuperBlock):
    """A tmpfs."""

    s_type = "tmpfs"
    s_magic = TMPFS_MAGIC
    dirent_size = DIRENT_SIZE
    has_btime = True

    def __init__(self, kernel: Kernel, dev: int, space: Space, mode: int = 0o1777) -> None:
        super().__init__(kernel, dev)
        self.space = space
        root = MemDir(self, self.new_ino(), S_IFDIR | mode)
        self.s_root = Dentry(b"/", None, root, self)

    def new_inode(self, parent: Inode, mode: int, owner: Owner, rdev: int = 0, target: bytes = b"") -> Inode:
        """An inode of the type that ``mode`` says, with no name yet."""
        ino = self.new_ino()
        kind = mode & S_IFMT
        if kind == S_IFREG:
            return MemReg(self, ino, mode, owner, FileStore(self.space))
        if kind == S_IFDIR:
            return MemDir(self, ino, mode, owner.uid, owner.gid)
        if kind == S_IFLNK:
            return MemSymlink(self, ino, owner, target)
        return MemSpecial(self, ino, mode, owner.uid, owner.gid, rdev)

    def statfs(self, dentry: Dentry) -> Kstatfs:
        space = self.space
        return Kstatfs(
            self.s_magic, PAGE_SIZE, space.limit, space.free, space.free, 1 << 20, (1 << 20) - self._last_ino,
            self.s_dev, 255, PAGE_SIZE, 0,
        )  # fmt: skip


class MemReg(XattrTable, DataInode):
    """A regular file in memory."""

    __slots__ = ("store", "xattrs")

    def __init__(self, sb: SuperBlock, ino: int, mode: int, owner: Owner, store: FileStore) -> None:
        super().__init__(sb, ino, mode, owner.uid, owner.gid)
        self.store = store
        self.xattrs: dict[bytes, bytes] | None = None

    def readpages(self, pgoff: int, nr: int) -> bytes:
        return self.store.readpages(pgoff, nr)

    def writepage(self, pgoff: int, data: bytes) -> None:
        beyond = (pgoff + 1 << PAGE_SHIFT) - self.i_size
        if beyond > 0:
            data = bytes(data[: max(0, PAGE_SIZE - beyond)]).ljust(PAGE_SIZE, b"\0")
        self.store.writepage(pgoff, bytes(data))

    def reserve(self, pos: int, count: int) -> int:
        return self._reserve(self.store.reserve, pos, count)

    def allocate(self, pos: int, count: int) -> int:
        return self._reserve(self.store.allocate, pos, count)

    @staticmethod
    def _reserve(pages: Callable[[int, int], int], pos: int, count: int) -> int:
        first, last = pos >> PAGE_SHIFT, pos + count - 1 >> PAGE_SHIFT
        nr = pages(first, last)
        return count if nr > last - first else max(0, (first + nr << PAGE_SHIFT) - pos)

    def cut(self, size: int) -> None:
        self.store.truncate(size)

    def punch(self, first_page: int, last_page: int) -> None:
        self.store.punch(first_page, last_page)

    def blocks(self) -> int:
        return self.store.nr_pages << PAGE_SHIFT - 9

    def flush(self) -> None:
        """What mappings wrote into holes is known to the store only after write-back."""
        mapping = self.mapping_if_any
        if mapping is not None:
            filemap_write_and_wait(mapping)

    def next_data(self, pos: int) -> int:
        self.flush()
        pgoff = self.store.next_data(pos >> PAGE_SHIFT, self.i_size + PAGE_SIZE - 1 >> PAGE_SHIFT)
        return max(pos, pgoff << PAGE_SHIFT)

    def next_hole(self, pos: int) -> int:
        self.flush()
        pgoff = self.store.next_hole(pos >> PAGE_SHIFT, self.i_size + PAGE_SIZE - 1 >> PAGE_SHIFT)
        return max(pos, pgoff << PAGE_SHIFT)


class MemSymlink(Inode):
    __slots__ = ("target",)

    def __init__(self, sb: SuperBlock, ino: int, owner: Owner, target: bytes) -> None:
        super().__init__(sb, ino, S_IFLNK | 0o777, owner.uid, owner.gid)
        self.target = target
        self.i_size = len(target)

    def readlink(self, task: Task | None = None) -> bytes:
        return self.target


class MemSpecial(Inode):
    """A device node, a FIFO or a bound socket."""

    __slots__ = ()

    def open(self, task: Task | None, path: Path, flags: int) -> File | Generator[Any, Any, File]:
        return open_special(self, task, path, flags)


class MemDir(XattrTable, Inode):
    """A directory in memory."""

    __slots__ = ("children", "xattrs")

    def __init__(self, sb: SuperBlock, ino: int, mode: int, uid: int = 0, gid: int = 0) -> None:
        super().__init__(sb, ino, mode, uid, gid)
        self.children: dict[bytes, Inode] = {}
        self.xattrs: dict[bytes, bytes] | None = None
        self.i_nlink = 2
        self.i_size = 2 * self.dirent_size if self.dirent_size else 4096

    @property
    def dirent_size(self) -> int:
        """What a name adds to ``i_size``; 0 where directories always show 4096."""
        return getattr(self.i_sb, "dirent_size", 0)

    def open(self, task: Task | None, path: Path, flags: int) -> File | Generator[Any, Any, File]:
        return DirFile(path, self, flags)

    def lookup(self, name: bytes, task: Task | None = None) -> Inode | None:
        return self.children.get(name)

    def entries(self, task: Task | None = None) -> list[DirEntry]:
        return [DirEntry(name, inode.i_ino, mode_to_dtype(inode.i_mode)) for name, inode in self.children.items()]

    def is_empty(self) -> bool:
        return not self.children

    # -- the two places where names change (the overlay adds whiteouts) ------------------------------------
    def put(self, name: bytes, inode: Inode) -> None:
        if name not in self.children:
            self.i_size += self.dirent_size
        self.children[name] = inode

    def take(self, name: bytes) -> None:
        if self.children.pop(name, None) is not None:
            self.i_size -= self.dirent_size

    # -- operations ----------------------------------------------------------------------------------------
    def _new(self, name: bytes, mode: int, owner: Owner, rdev: int = 0, target: bytes = b"") -> Inode:
        sb = self.i_sb
        assert isinstance(sb, MemSuper)
        inode = sb.new_inode(self, mode, owner, rdev, target)
        self.put(name, inode)
        if mode & S_IFMT == S_IFDIR:
            self.i_nlink += 1
        self.touch_mtime()
        return inode

    def create(self, name: bytes, mode: int, owner: Owner) -> Inode:
        return self._new(name, S_IFREG | mode & 0o7777, owner)

    def mknod(self, name: bytes, mode: int, rdev: int, owner: Owner) -> Inode:
        return self._new(name, mode, owner, rdev)

    def mkdir(self, name: bytes, mode: int, owner: Owner) -> Inode:
        return self._new(name, S_IFDIR | mode & 0o7777, owner)

    def symlink(self, name: bytes, target: bytes, owner: Owner) -> Inode:
        return self._new(name, S_IFLNK | 0o777, owner, 0, target)

    def tmpfile(self, mode: int, owner: Owner) -> Inode:
        sb = self.i_sb
        assert isinstance(sb, MemSuper)
        inode = sb.new_inode(self, S_IFREG | mode & 0o7777, owner)
        inode.i_nlink = 0
        return inode

    def link(self, name: bytes, inode: Inode) -> None:
        if inode.i_nlink >= MAX_NLINK:
            raise KernelError(Errno.EMLINK, "too many links to one file")
        inode.i_nlink += 1
        inode.touch_ctime()
        self.put(name, inode)
        self.touch_mtime()

    def unlink(self, name: bytes, inode: Inode) -> None:
        self.take(name)
        inode.i_nlink -= 1
        inode.touch_ctime()
        self.touch_mtime()

    def rmdir(self, name: bytes, inode: Inode) -> None:
        if not _empty(inode):
            raise KernelError(Errno.ENOTEMPTY, "directory is not empty")
        self.take(name)
        inode.i_nlink = 0
        inode.touch_ctime()
        self.i_nlink -= 1
        self.touch_mtime()

    def rename(
        self, name: bytes, inode: Inode, new_dir: Inode, new_name: bytes, target: Inode | None, exchange: bool
    ) -> None:
        assert isinstance(new_dir, MemDir)
        if exchange:
            assert target is not None
            self._exchange(name, inode, new_dir, new_name, target)
        else:
            if target is not None:
                if is_dir(target):
                    if not _empty(target):
                        raise KernelError(Errno.ENOTEMPTY, "directory is not empty")
                    target.i_nlink = 0
                    new_dir.i_nlink -= 1
                else:
                    target.i_nlink -= 1
                target.touch_ctime()
            self.take(name)
            new_dir.put(new_name, inode)
            if is_dir(inode) and new_dir is not self:
                self.i_nlink -= 1
                new_dir.i_nlink += 1
        inode.touch_ctime()
        self.touch_mtime()
        new_dir.touch_mtime()

    def _exchange(self, name: bytes, inode: Inode, new_dir: MemDir, new_name: bytes, target: Inode) -> None:
        change = is_dir(inode) - is_dir(target)
        if new_dir is not self and change:
            self.i_nlink -= change
            new_dir.i_nlink += change
        self.put(name, target)
        new_dir.put(new_name, inode)
        target.touch_ctime()


def _empty(inode: Inode) -> bool:
    return isinstance(inode, MemDir) and inode.is_empty()
