"""What entries of /proc are made of.

Models ``fs/proc/generic.c``, ``fs/proc/inode.c`` and ``fs/seq_file.c``: a text is made as a whole when reading starts
at the beginning, and read on from there.

A directory is a table of :class:`Entry`; its inodes are made when they are looked up, and are the same as long
as somebody holds them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from kernel.abi.errno import Errno, KernelError
from kernel.abi.fcntl import SEEK_CUR, SEEK_END, SEEK_SET
from kernel.abi.stat import PROC_SUPER_MAGIC, S_IFDIR, S_IFLNK, S_IFREG, mode_to_dtype
from kernel.fs.dirfile import DirFile
from kernel.fs.file import File, SeekableFile
from kernel.fs.inode import DirEntry, Inode, SuperBlock

if TYPE_CHECKING:
    from kernel.fs.dcache import Dentry, Path
    from kernel.fs.vfs import Vfs
    from kernel.task.task import Task
    from kernel.task.waitqueue import Blocking

Reader = Callable[["Task | None"], "str | bytes"]
"""Makes the text for the task that opens it (None: the kernel)."""
Writer = Callable[["Task | None", bytes], None]
"""Takes all that one write(2) brings."""


class PseudoSuper(SuperBlock):
    """A file system of made-up files: proc, sysfs."""

    s_blocksize = 1024

    def __init__(self, vfs: Vfs, s_type: str, magic: int) -> None:
        super().__init__(vfs.kernel, vfs.new_anon_dev())
        self.vfs = vfs
        self.s_type = s_type
        self.s_magic = magic
        self.s_root: Dentry | None = None
        self.known: WeakValueDictionary[object, Inode] = WeakValueDictionary()
        """Inodes of entries that come and go, by what they stand for."""

    def missing(self) -> None:
        """What looking up a name that is not there answers: proc says ENOENT at once, even when creating."""
        if self.s_type == "proc":
            raise KernelError(Errno.ENOENT, "no such entry in /proc")

    def once(self, key: object, make: Callable[[], Inode]) -> Inode:
        """The inode for ``key``: the one that somebody still holds, or a new one."""
        inode = self.known.get(key)
        if inode is None:
            inode = self.known[key] = make()
        return inode


class TextInode(Inode):
    """A file whose text a function makes; ``store`` takes what is written."""

    __slots__ = ("show", "store")

    def __init__(
        self, sb: SuperBlock, ino: int, mode: int, show: Reader | None, store: Writer | None = None,
        uid: int = 0, gid: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(sb, ino, S_IFREG | mode, uid, gid)
        self.show = show
        self.store = store

    def open(self, task: Task | None, path: Path, flags: int) -> File | Generator[Any, Any, File]:
        return TextFile(path, self, flags, self.show, self.store)

    def truncate(self, size: int) -> None:
        """O_TRUNC on /proc/sys files does nothing."""

    def touch_atime(self) -> None:
        """No access times here."""


class TextFile(SeekableFile):
    """An open made-up file (seq_file)."""

    __slots__ = ("_show", "_store", "_text")

    can_poll = True

    def __init__(self, path: Path, inode: Inode, flags: int, show: Reader | None, store: Writer | None) -> None:
        super().__init__(path, inode, flags)
        self._show = show
        self._store = store
        self._text: bytes | None = None

    def _content(self, pos: int) -> bytes:
        text = self._text
        if text is None or pos == 0:
            if self._show is None:
                raise KernelError(Errno.EINVAL, "file cannot be read")
            made = self._show(self.kernel.current)
            text = self._text = made if isinstance(made, bytes) else made.encode("utf-8", "surrogateescape")
        return text

    def pread(self, pos: int, count: int) -> bytes:
        return self._content(pos)[pos : pos + count]

    def write(self, task: Task | None, data: bytes) -> int | Blocking[int]:
        if self._store is None:
            raise KernelError(Errno.EIO, "file cannot be written")
        self._store(task, data)
        self.f_pos += len(data)
        return len(data)

    def pwrite(self, pos: int, data: bytes) -> int:
        if self._store is None:
            raise KernelError(Errno.EIO, "file cannot be written")
        self._store(self.kernel.current, data)
        return len(data)

    def lseek(self, offset: int, whence: int) -> int:
        if whence == SEEK_END:
            raise KernelError(Errno.EINVAL, "the end of a made-up file is not known")
        if whence not in (SEEK_SET, SEEK_CUR):
            raise KernelError(Errno.EINVAL, "unknown whence")
        return super().lseek(offset, whence)


class LinkInode(Inode):
    """A symbolic link; ``target`` gives its text, ``jump`` (magic links) the place itself."""

    __slots__ = ("_jump", "_target")

    def __init__(
        self,
        sb: SuperBlock,
        ino: int,
        target: Callable[[Task | None], bytes],
        jump: Callable[[Task | None], Path] | None = None,
        mode: int = 0o777,
        owner: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__(sb, ino, S_IFLNK | mode, *owner)
        self._target = target
        self._jump = jump

    def readlink(self, task: Task | None = None) -> bytes:
        return self._target(task)

    def get_link(self, task: Task | None) -> bytes | Path:
        return self._target(task) if self._jump is None else self._jump(task)

    def touch_atime(self) -> None:
        """No access times here."""


class StaticDir(Inode):
    """A directory of fixed entries."""

    __slots__ = ("children",)

    def __init__(self, sb: SuperBlock, ino: int, mode: int = 0o555, uid: int = 0, gid: int = 0) -> None:
        super().__init__(sb, ino, S_IFDIR | mode, uid, gid)
        self.i_nlink = 2
        self.children: dict[bytes, Inode] = {}

    def add(self, name: str, inode: Inode) -> Inode:
        self.children[name.encode()] = inode
        if inode.i_mode & S_IFDIR == S_IFDIR and inode.i_mode & 0o170000 == S_IFDIR:
            self.i_nlink += 1
        return inode

    def add_text(self, name: str, show: Reader, mode: int = 0o444, store: Writer | None = None) -> Inode:
        return self.add(name, TextInode(self.i_sb, self.i_sb.new_ino(), mode, show, store))

    def add_dir(self, name: str) -> StaticDir:
        directory = StaticDir(self.i_sb, self.i_sb.new_ino())
        self.add(name, directory)
        return directory

    def open(self, task: Task | None, path: Path, flags: int) -> File | Generator[Any, Any, File]:
        return DirFile(path, self, flags)

    def lookup(self, name: bytes, task: Task | None = None) -> Inode | None:
        inode = self.children.get(name)
        if inode is None:
            sb = self.i_sb
            assert isinstance(sb, PseudoSuper)
            sb.missing()
        return inode

    def entries(self, task: Task | None = None) -> list[DirEntry]:
        return [DirEntry(name, inode.i_ino, mode_to_dtype(inode.i_mode)) for name, inode in self.children.items()]

    def touch_atime(self) -> None:
        """No access times here."""


class VolatileDir(Inode):
    """A directory whose names come and go; subclasses give ``find`` and ``entries``."""

    __slots__ = ()

    volatile = True

    def __init__(self, sb: SuperBlock, ino: int, mode: int = 0o555, uid: int = 0, gid: int = 0) -> None:
        super().__init__(sb, ino, S_IFDIR | mode, uid, gid)
        self.i_nlink = 2

    def open(self, task: Task | None, path: Path, flags: int) -> File | Generator[Any, Any, File]:
        return DirFile(path, self, flags)

    def find(self, name: bytes, task: Task | None) -> Inode | None:
        """The entry called ``name``, for the reader ``task``."""
        raise NotImplementedError

    def lookup(self, name: bytes, task: Task | None = None) -> Inode | None:
        inode = self.find(name, task)
        if inode is None:
            sb = self.i_sb
            assert isinstance(sb, PseudoSuper)
            sb.missing()
        return inode

    def touch_atime(self) -> None:
        """No access times here."""


__all__ = [
    "PROC_SUPER_MAGIC",
    "LinkInode",
    "PseudoSuper",
    "Reader",
    "StaticDir",
    "TextFile",
    "TextInode",
    "VolatileDir",
    "Writer",
]
