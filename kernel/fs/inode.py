"""``struct inode`` and ``struct super_block``: what a file is, apart from its names.

Models ``include/linux/fs.h`` and ``fs/inode.c``, ``fs/libfs.c``.  A file system is a set of :class:`Inode`
subclasses that answer the directory operations (``lookup``, ``create``, ``rename`` ...) and ``open``.

Units: times in nanoseconds since 1970, ``i_size`` in bytes.  Names are bytes without ``/``.

Invariants: ``i_size`` is the truth for regular files, whatever pages the page cache holds; the page cache never holds
a page wholly beyond ``i_size`` (truncation removes them).

Deliberate differences: no inode locks (the kernel is never pre-empted in the middle of an operation); no separate
``inode_operations`` table (methods); access times follow ``relatime``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from kernel.abi.errno import Errno, KernelError
from kernel.abi.stat import S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, UNKNOWN_TIME, Kstat, Kstatfs
from kernel.fs.notify import fsnotify_inode_gone
from kernel.fs.permission import Owner, generic_permission

if TYPE_CHECKING:
    from collections.abc import Generator

    from kernel.fs.dcache import Dentry, Path
    from kernel.fs.file import File
    from kernel.fs.locks import FileLockContext
    from kernel.fs.notify import InodeMarks
    from kernel.kernel import Kernel
    from kernel.mm.filemap import AddressSpace
    from kernel.task.task import Task

DAY_NS = 86_400 * 1_000_000_000


class DirEntry(NamedTuple):
    """One name of a directory as getdents64 shows it; ``dtype`` is DT_*."""

    name: bytes
    ino: int
    dtype: int


class Iattr:
    """``struct iattr``: the attributes that ``setattr`` is to change; None leaves one alone."""

    __slots__ = ("atime", "ctime", "gid", "mode", "mtime", "size", "uid")

    def __init__(
        self,
        *,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        size: int | None = None,
        atime: int | None = None,
        mtime: int | None = None,
        ctime: int | None = None,
    ) -> None:
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.size = size
        self.atime = atime
        self.mtime = mtime
        self.ctime = ctime


class SuperBlock:
    """``struct super_block``: one mounted file system (shared by bind mounts of it)."""

    s_type = "none"
    """The name in the third column of /proc/mounts."""
    s_magic = 0
    s_blocksize = 4096
    has_btime = False
    """Do its files know when they were made?"""

    def __init__(self, kernel: Kernel, dev: int) -> None:
        self.kernel = kernel
        self.s_dev = dev
        """``st_dev`` of its files."""
        self.s_root: Dentry | None = None
        self.s_options = ""
        """What /proc/mounts shows after the mount flags (",size=..." and the like, without the comma)."""
        self.watched = 0
        """How many inotify watches lie on inodes of this file system (0: no event needs to be made)."""
        self._last_ino = 0

    def new_ino(self) -> int:
        self._last_ino += 1
        return self._last_ino

    def statfs(self, dentry: Dentry) -> Kstatfs:
        """simple_statfs."""
        return Kstatfs(self.s_magic, self.s_blocksize, 0, 0, 0, 0, 0, 0, 255, self.s_blocksize, 0)

    def put_super(self) -> None:
        """The machine is switched off: give back what is held outside of it."""

    def sync(self) -> None:
        """Write everything that is dirty to where it is kept; nothing for file systems in memory."""


class Inode:
    """``struct inode``.  Operations that a file system does not have fail as Linux's missing methods do."""

    __slots__ = (
        "__weakref__",
        "_mapping",
        "i_atime",
        "i_btime",
        "i_count",
        "i_ctime",
        "i_flctx",
        "i_gid",
        "i_ino",
        "i_linkable",
        "i_marks",
        "i_mode",
        "i_mtime",
        "i_nlink",
        "i_pipe",
        "i_rdev",
        "i_sb",
        "i_size",
        "i_socket",
        "i_uid",
        "i_writecount",
    )

    i_seals = -1
    """File seals of a memfd (F_SEAL_*); -1: the file cannot be sealed."""
    volatile = False
    """A directory whose names come and go by themselves: every step of a path asks ``lookup`` again (d_revalidate)."""

    def __init__(self, sb: SuperBlock, ino: int, mode: int, uid: int = 0, gid: int = 0, rdev: int = 0) -> None:
        self.i_sb = sb
        self.i_ino = ino
        self.i_mode = mode
        self.i_uid = uid
        self.i_gid = gid
        self.i_nlink = 1
        self.i_rdev = rdev
        self.i_size = 0
        now = sb.kernel.clock.realtime_ns()
        self.i_atime = now
        self.i_mtime = now
        self.i_ctime = now
        self.i_btime = now if sb.has_btime else UNKNOWN_TIME
        self._mapping: AddressSpace | None = None
        self.i_flctx: FileLockContext | None = None
        self.i_marks: InodeMarks | None = None
        """Who watches this inode (inotify)."""
        self.i_pipe: Any = None
        """The pipe of a FIFO while somebody has it open (kernel/fs/pipe.py)."""
        self.i_socket: Any = None
        """The AF_UNIX socket that is bound to this inode (kernel/fs/unix.py)."""
        self.i_linkable = False
        """Made by O_TMPFILE (without O_EXCL): linkat may give it its first name."""
        self.i_count = 0
        """How many open files there are (``struct file``, also those of mappings)."""
        self.i_writecount = 0
        """Open writers when positive; mapped as a program's text (ETXTBSY) when negative."""

    # -- the page cache ------------------------------------------------------------------------------------
    @property
    def i_mapping(self) -> AddressSpace | None:
        """The page cache of a regular file, made at first use; None for everything else."""
        mapping = self._mapping
        if mapping is None and self.i_mode & S_IFMT == S_IFREG:
            mapping = self._mapping = self.new_mapping()
        return mapping

    @property
    def mapping_if_any(self) -> AddressSpace | None:
        """The page cache if one has been made."""
        return self._mapping

    def new_mapping(self) -> AddressSpace | None:
        """Make the page cache of this regular file; None for files whose data does not live in pages."""
        return None

    def readpages(self, pgoff: int, nr: int) -> bytes:
        """The bytes of ``nr`` pages from page ``pgoff`` on, as they are "on disk"; zeros beyond the end.

        Called by the page cache.  May raise ``KernelError(EIO)``.
        """
        raise KernelError(Errno.EIO, "file has no pages")

    def writepage(self, pgoff: int, data: bytes) -> None:
        """Put one page (4096 bytes) back "on disk".  What lies beyond ``i_size`` is to be ignored."""
        raise KernelError(Errno.EIO, "file has no pages")

    # -- permission ----------------------------------------------------------------------------------------
    def permission(self, task: Task | None, mask: int) -> bool:
        """May ``task`` do ``mask`` (MAY_*)?"""
        return generic_permission(task, self, mask)

    # -- attributes ----------------------------------------------------------------------------------------
    def getattr(self) -> Kstat:
        sb = self.i_sb
        return Kstat(
            sb.s_dev, self.i_ino, self.i_mode, self.i_nlink, self.i_uid, self.i_gid, self.i_rdev, self.i_size,
            sb.s_blocksize, self.blocks(), self.i_atime, self.i_mtime, self.i_ctime, self.i_btime,
        )  # fmt: skip

    def btime(self) -> int:
        """When the file was made, for statx; UNKNOWN_TIME if that is not known."""
        return self.i_btime

    def blocks(self) -> int:
        """``st_blocks``: how many 512-byte units are allocated."""
        return 0

    def setattr(self, attr: Iattr) -> None:
        """Change attributes; permission was checked (``kernel/fs/attr.py``).  A change of size truncates."""
        if attr.mode is not None:
            self.i_mode = (self.i_mode & S_IFMT) | (attr.mode & 0o7777)
        if attr.uid is not None:
            self.i_uid = attr.uid
        if attr.gid is not None:
            self.i_gid = attr.gid
        if attr.atime is not None:
            self.i_atime = attr.atime
        if attr.mtime is not None:
            self.i_mtime = attr.mtime
        if attr.size is not None:
            self.truncate(attr.size)
        self.i_ctime = attr.ctime if attr.ctime is not None else self.i_sb.kernel.clock.realtime_ns()
        self.mark_dirty()

    def truncate(self, size: int) -> None:
        raise KernelError(Errno.EINVAL, "file cannot be truncated")

    def mark_dirty(self) -> None:
        """Attributes differ from what is kept elsewhere."""

    def touch_atime(self) -> None:
        """The file was read: relatime (file_accessed)."""
        now = self.i_sb.kernel.clock.realtime_ns()
        if self.i_atime <= self.i_mtime or self.i_atime <= self.i_ctime or now - self.i_atime >= DAY_NS:
            self.i_atime = now
            self.mark_dirty()

    def touch_mtime(self) -> None:
        """The data was changed (file_update_time)."""
        self.i_mtime = self.i_ctime = self.i_sb.kernel.clock.realtime_ns()
        self.mark_dirty()

    def touch_ctime(self) -> None:
        self.i_ctime = self.i_sb.kernel.clock.realtime_ns()
        self.mark_dirty()

    # -- extended attributes -------------------------------------------------------------------------------
    def getxattr(self, name: bytes) -> bytes:
        raise KernelError(Errno.EOPNOTSUPP, "no extended attributes here")

    def listxattr(self) -> list[bytes]:
        return []

    def setxattr(self, name: bytes, value: bytes, flags: int) -> None:
        raise KernelError(Errno.EOPNOTSUPP, "no extended attributes here")

    def removexattr(self, name: bytes) -> None:
        raise KernelError(Errno.EOPNOTSUPP, "no extended attributes here")

    # -- directory operations: self is the directory -------------------------------------------------------
    def lookup(self, name: bytes, task: Task | None = None) -> Inode | None:
        """The inode called ``name``, or None."""
        return None

    def entries(self, task: Task | None = None) -> list[DirEntry]:
        """All names but ``.`` and ``..``, in the order in which they are to be shown."""
        raise KernelError(Errno.ENOTDIR, "not a directory")

    def create(self, name: bytes, mode: int, owner: Owner) -> Inode:
        raise KernelError(Errno.EACCES, "file system cannot create files")

    def mknod(self, name: bytes, mode: int, rdev: int, owner: Owner) -> Inode:
        raise KernelError(Errno.EPERM, "file system cannot make nodes")

    def mkdir(self, name: bytes, mode: int, owner: Owner) -> Inode:
        raise KernelError(Errno.EPERM, "file system cannot make directories")

    def symlink(self, name: bytes, target: bytes, owner: Owner) -> Inode:
        raise KernelError(Errno.EPERM, "file system cannot make symbolic links")

    def tmpfile(self, mode: int, owner: Owner) -> Inode:
        """An unnamed regular file in this directory's file system (O_TMPFILE)."""
        raise KernelError(Errno.EOPNOTSUPP, "file system has no O_TMPFILE")

    def link(self, name: bytes, inode: Inode) -> None:
        raise KernelError(Errno.EPERM, "file system has no hard links")

    def unlink(self, name: bytes, inode: Inode) -> None:
        raise KernelError(Errno.EPERM, "file system cannot remove names")

    def rmdir(self, name: bytes, inode: Inode) -> None:
        raise KernelError(Errno.EPERM, "file system cannot remove directories")

    def rename(
        self, name: bytes, inode: Inode, new_dir: Inode, new_name: bytes, target: Inode | None, exchange: bool
    ) -> None:
        """Move ``name`` (``inode``) to ``new_name`` of ``new_dir``; ``target`` is what is there now."""
        raise KernelError(Errno.EPERM, "file system cannot rename")

    # -- symbolic links ------------------------------------------------------------------------------------
    def readlink(self, task: Task | None = None) -> bytes:
        raise KernelError(Errno.EINVAL, "not a symbolic link")

    def get_link(self, task: Task | None) -> bytes | Path:
        """Where a symbolic link leads: text to walk, or (magic links of /proc) the place itself."""
        return self.readlink(task)

    # -- opening -------------------------------------------------------------------------------------------
    def open(self, task: Task | None, path: Path, flags: int) -> File | Generator[Any, Any, File]:
        """The open file.  A generator when opening may sleep (FIFOs)."""
        raise KernelError(Errno.ENXIO, "file cannot be opened")

    def drop_if_unused(self) -> None:
        """Called when a name or a user went away: with the last of both, the data goes too (iput_final)."""
        if self.i_nlink == 0 and self.i_count == 0:
            fsnotify_inode_gone(self)
            self.evict()

    def on_last_close(self) -> None:
        """Nobody has the file open any more."""

    def evict(self) -> None:
        """The last name and the last user are gone: forget the data."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.i_ino} mode={self.i_mode:o} size={self.i_size}>"


def is_dir(inode: Inode) -> bool:
    return inode.i_mode & S_IFMT == S_IFDIR


def is_symlink(inode: Inode) -> bool:
    return inode.i_mode & S_IFMT == S_IFLNK


def is_reg(inode: Inode) -> bool:
    return inode.i_mode & S_IFMT == S_IFREG
