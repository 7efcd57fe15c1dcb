"""The host's directory tree as the kernel sees it, and handles on its directories and files.

:class:`HostTree` is what the emulator gives (``emu/hosttree.py`` over ``os``).  It works on one directory handle and
one component at a time and never follows a symbolic link, so that no name the guest makes up can lead out of the
tree: the walk itself is done by kernel/fs/namei.py, which stops at the guest's root.

The tree is taken to stand still while the guest runs, like an overlayfs lower layer; directories that the guest may
write (``--writable``) are looked at afresh at every lookup.

All methods raise :class:`~kernel.abi.errno.KernelError`, never OSError.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple, Protocol

from kernel.abi.errno import Errno, KernelError

if TYPE_CHECKING:
    from kernel.abi.stat import Kstatfs


class HostStat(NamedTuple):
    """What lstat says; times in nanoseconds, ``blocks`` in units of 512 bytes."""

    dev: int
    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    blocks: int
    atime: int
    mtime: int
    ctime: int


class HostTree(Protocol):
    """A host directory and what lies below it.  ``dirfd`` and ``fd`` are handles that this object gave."""

    def open_root(self) -> int:
        """A handle on the top directory."""
        ...

    def open_dir(self, dirfd: int, name: bytes) -> int:
        """A handle on a directory (no permission to read it is needed); ENOTDIR, ENOENT ..."""
        ...

    def close(self, fd: int) -> None: ...
    def fstat(self, fd: int) -> HostStat: ...
    def lstat(self, dirfd: int, name: bytes) -> HostStat: ...
    def btime(self, dirfd: int, name: bytes) -> int:
        """When the object was made, in nanoseconds since 1970; UNKNOWN_TIME if the host does not say."""
        ...

    def readlink(self, dirfd: int, name: bytes) -> bytes: ...
    def listdir(self, dirfd: int) -> list[tuple[bytes, int, int]]:
        """(name, inode number, DT_*) in the host's order, without ``.`` and ``..``."""
        ...

    def open_file(self, dirfd: int, name: bytes, write: bool) -> int:
        """A regular file; EACCES if it is anything else (nothing of a device or a FIFO is ever touched)."""
        ...

    def pread(self, fd: int, offset: int, count: int) -> bytes: ...
    def statfs(self, dirfd: int) -> Kstatfs: ...
    def listxattr(self, dirfd: int, name: bytes) -> list[bytes]: ...
    def getxattr(self, dirfd: int, name: bytes, attribute: bytes) -> bytes: ...


class WritableHostTree(HostTree, Protocol):
    """A host tree that the guest may change (``--writable``).

    ``chmod``, ``chown``, ``utimens`` and the calls on extended attributes take an empty name for ``dirfd`` itself.
    """

    def pwrite(self, fd: int, offset: int, data: bytes) -> int: ...
    def ftruncate(self, fd: int, size: int) -> None: ...
    def fsync(self, fd: int) -> None: ...
    def fallocate(self, fd: int, mode: int, offset: int, len_bytes: int) -> None: ...
    def seek(self, fd: int, offset: int, whence: int) -> int:
        """SEEK_DATA and SEEK_HOLE."""
        ...

    def create(self, dirfd: int, name: bytes, mode: int) -> int:
        """O_CREAT | O_EXCL: the new file, open for reading and writing."""
        ...

    def create_unnamed(self, dirfd: int, mode: int) -> int: ...
    def link_fd(self, fd: int, dirfd: int, name: bytes) -> None: ...
    def mkdir(self, dirfd: int, name: bytes, mode: int) -> None: ...
    def mkfifo(self, dirfd: int, name: bytes, mode: int) -> None: ...
    def symlink(self, dirfd: int, name: bytes, target: bytes) -> None: ...
    def link(self, dirfd: int, name: bytes, new_dirfd: int, new_name: bytes) -> None: ...
    def unlink(self, dirfd: int, name: bytes) -> None: ...
    def rmdir(self, dirfd: int, name: bytes) -> None: ...
    def rename(self, dirfd: int, name: bytes, new_dirfd: int, new_name: bytes, exchange: bool) -> None: ...
    def chmod(self, dirfd: int, name: bytes, mode: int) -> None: ...
    def chown(self, dirfd: int, name: bytes, uid: int, gid: int) -> None: ...
    def utimens(self, dirfd: int, name: bytes, atime: int, mtime: int) -> None: ...
    def fchmod(self, fd: int, mode: int) -> None: ...
    def fchown(self, fd: int, uid: int, gid: int) -> None: ...
    def futimens(self, fd: int, atime: int, mtime: int) -> None: ...
    def setxattr(self, dirfd: int, name: bytes, attribute: bytes, value: bytes, flags: int) -> None: ...
    def removexattr(self, dirfd: int, name: bytes, attribute: bytes) -> None: ...


class FdCache:
    """The open handles on one host tree, least recently used first; the oldest are closed when there are too many."""

    def __init__(self, tree: HostTree, limit: int) -> None:
        self.tree = tree
        self.limit = limit
        self._open: OrderedDict[HostNode, int] = OrderedDict()

    def get(self, node: HostNode) -> int | None:
        fd = self._open.get(node)
        if fd is not None:
            self._open.move_to_end(node)
        return fd

    def put(self, node: HostNode, fd: int) -> None:
        self._open[node] = fd
        while len(self._open) > self.limit:
            _node, oldest = self._open.popitem(last=False)
            self.tree.close(oldest)

    def drop(self, node: HostNode) -> None:
        fd = self._open.pop(node, None)
        if fd is not None:
            self.tree.close(fd)

    def close_all(self) -> None:
        while self._open:
            _node, fd = self._open.popitem()
            self.tree.close(fd)


class HostNode:
    """A host directory or file by its name in a parent directory; its handle is opened when needed."""

    __slots__ = ("cache", "name", "parent")

    def __init__(self, cache: FdCache, parent: HostDir | None, name: bytes) -> None:
        if parent is not None and (not name or name in (b".", b"..") or b"/" in name or b"\0" in name):
            raise KernelError(Errno.EINVAL, "not a name of one component")
        self.cache = cache
        self.parent = parent
        self.name = name


class HostDir(HostNode):
    """A host directory.  ``parent`` None: the top of the tree."""

    __slots__ = ()

    def fd(self) -> int:
        fd = self.cache.get(self)
        if fd is None:
            tree = self.cache.tree
            fd = tree.open_root() if self.parent is None else tree.open_dir(self.parent.fd(), self.name)
            self.cache.put(self, fd)
        return fd

    def child(self, name: bytes) -> HostDir:
        return HostDir(self.cache, self, name)

    def lstat(self, name: bytes) -> HostStat | None:
        """The entry called ``name``, None if there is none (or the host does not let us look)."""
        try:
            return self.cache.tree.lstat(self.fd(), name)
        except KernelError as error:
            if error.errno in (Errno.ENOENT, Errno.ENOTDIR):
                return None
            raise

    def stat(self) -> HostStat:
        return self.cache.tree.fstat(self.fd())

    def readlink(self, name: bytes) -> bytes:
        return self.cache.tree.readlink(self.fd(), name)

    def listdir(self) -> list[tuple[bytes, int, int]]:
        return self.cache.tree.listdir(self.fd())


class HostFile(HostNode):
    """A regular host file, read only: the :class:`~kernel.fs.store.Original` of an overlay file."""

    __slots__ = ()

    def fd(self) -> int:
        fd = self.cache.get(self)
        if fd is None:
            assert self.parent is not None
            fd = self.cache.tree.open_file(self.parent.fd(), self.name, write=False)
            self.cache.put(self, fd)
        return fd

    def pread(self, offset: int, count: int) -> bytes:
        return self.cache.tree.pread(self.fd(), offset, count)
