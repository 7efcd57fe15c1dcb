"""``struct file``: one open file, shared by the descriptors that were duplicated or inherited from it.

Models ``include/linux/fs.h`` and ``fs/file_table.c``.  A kind of file is a subclass that overrides operations;
what is not overridden fails as Linux's missing ``file_operations`` do.

How other rooms use it:

* ``read``/``write``/``ioctl`` return the value or a generator to be driven with ``yield from`` (it may sleep):
  ``result = file.read(task, count); if not isinstance(result, bytes): result = yield from result``.
* ``pread``/``pwrite`` never sleep.
* ``poll(task)`` gives POLL* bits now; ``poll_queues(task)`` the queues that wake when they may have changed.
* ``get()`` takes one more reference, ``fput(file)`` gives one back; the last one releases the file.
* ``mmap_prepare(...)`` says what mmap(2) of the file maps.

Units: ``f_pos`` in bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kernel.abi.errno import Errno, KernelError
from kernel.abi.fcntl import (
    FMODE_LSEEK,
    FMODE_PATH,
    FMODE_PREAD,
    FMODE_PWRITE,
    FMODE_READ,
    FMODE_WRITE,
    O_ACCMODE,
    O_CREAT,
    O_EXCL,
    O_NOCTTY,
    O_NONBLOCK,
    O_PATH,
    O_TRUNC,
    SEEK_CUR,
    SEEK_SET,
)
from kernel.abi.poll import DEFAULT_POLLMASK
from kernel.fs.inode import DirEntry, Inode
from kernel.fs.notify import fsnotify_close

if TYPE_CHECKING:
    from kernel.fs.dcache import Path
    from kernel.kernel import Kernel
    from kernel.mm.filemap import AddressSpace
    from kernel.task.task import Task
    from kernel.task.waitqueue import Blocking, WaitQueue

__all__ = ["NO_QUEUES", "File", "Inode", "PathFile", "SeekableFile", "fput"]

_FMODE_OF_ACCMODE = (FMODE_READ, FMODE_WRITE, FMODE_READ | FMODE_WRITE, 0)

NO_QUEUES: tuple[WaitQueue, ...] = ()


class File:
    """An open file.  Compared by identity."""

    __slots__ = (
        "__weakref__",
        "f_count",
        "f_ep",
        "f_fasync",
        "f_flags",
        "f_inode",
        "f_mode",
        "f_owner",
        "f_path",
        "f_pos",
        "f_sig",
        "f_writer",
    )

    bulk = False
    """A read of ``count`` bytes that gives fewer has come to the end, so large reads may be done in parts."""
    unit_bytes = 1
    """A transfer to or from a bad buffer ends at a multiple of this many bytes: a pipe moves whole pages."""
    reads_buffer = True
    """False: a write never looks at its buffer (/dev/null)."""
    can_poll = True
    """False: epoll_ctl refuses the file with EPERM (regular files and directories)."""
    seekable = 0
    """FMODE_LSEEK | FMODE_PREAD | FMODE_PWRITE where the kind of file has them."""

    def __init__(self, path: Path, inode: Inode, flags: int) -> None:
        self.f_path = path
        self.f_inode = inode
        self.f_flags = flags & ~(O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC)
        self.f_mode = _FMODE_OF_ACCMODE[flags & O_ACCMODE] | self.seekable
        self.f_pos = 0
        self.f_count = 1
        inode.i_count += 1
        self.f_ep: Any = None
        """The epoll items that watch this file (kernel/fs/eventpoll.py)."""
        self.f_fasync: Any = None
        """Who is to be signalled (kernel/fs/fasync.py) while O_ASYNC is set."""
        self.f_owner = 0
        """F_SETOWN: pid, or minus a process group."""
        self.f_sig = 0
        self.f_writer = 0
        """What this file adds to the inode's ``i_writecount``: 1 for a writer, -1 for a program's text."""

    # -- references ----------------------------------------------------------------------------------------
    def get(self) -> File:
        """One more user.  Returns the file itself."""
        self.f_count += 1
        return self

    # -- what everybody asks -------------------------------------------------------------------------------
    @property
    def kernel(self) -> Kernel:
        return self.f_inode.i_sb.kernel

    @property
    def f_mapping(self) -> AddressSpace | None:
        """The page cache that mmap and reads use."""
        return self.f_inode.i_mapping

    @property
    def nonblock(self) -> bool:
        return self.f_flags & O_NONBLOCK != 0

    @property
    def readable(self) -> bool:
        return self.f_mode & FMODE_READ != 0

    @property
    def writable(self) -> bool:
        return self.f_mode & FMODE_WRITE != 0

    # -- operations (struct file_operations) ---------------------------------------------------------------
    def read(self, task: Task | None, count: int) -> bytes | Blocking[bytes]:
        """Up to ``count`` bytes from the file position on, which moves; ``b""`` at the end."""
        raise KernelError(Errno.EINVAL, "file cannot be read")

    def write(self, task: Task | None, data: bytes) -> int | Blocking[int]:
        """Write at the file position (at the end with O_APPEND), which moves; returns how many bytes."""
        raise KernelError(Errno.EINVAL, "file cannot be written")

    def pread(self, pos: int, count: int) -> bytes:
        """Up to ``count`` bytes from ``pos`` on; the file position stays."""
        raise KernelError(Errno.ESPIPE, "file has no positions")

    def pwrite(self, pos: int, data: bytes) -> int:
        """Write at ``pos``; the file position stays."""
        raise KernelError(Errno.ESPIPE, "file has no positions")

    def unread(self, data: bytes) -> None:
        """Undo the last ``read``: the caller's buffer was bad (called before anybody else ran)."""
        if self.f_mode & FMODE_LSEEK:
            self.f_pos -= len(data)

    def lseek(self, offset: int, whence: int) -> int:
        """Move the file position; returns the new one."""
        raise KernelError(Errno.ESPIPE, "file has no positions")

    def ioctl(self, task: Task, cmd: int, arg: int) -> int | Blocking[int]:
        """What is special to this kind of file.  (FIONREAD of regular files, FIOCLEX ... are in kernel/fs/ioctl.py.)"""
        raise KernelError(Errno.ENOTTY, "no such ioctl for this file")

    def poll(self, task: Task | None) -> int:
        return DEFAULT_POLLMASK

    def poll_queues(self, task: Task | None) -> tuple[WaitQueue, ...]:
        return NO_QUEUES

    def iterate(self, task: Task | None) -> list[DirEntry]:
        """The directory's entries, ``.`` and ``..`` first; the index in the list is the position."""
        raise KernelError(Errno.ENOTDIR, "not a directory")

    def mmap_prepare(self, task: Task | None, len_bytes: int, pgoff: int, prot: int, shared: bool) -> File | None:
        """What mmap(2) is to map: this file, another one (shared /dev/zero), or None (anonymous memory).

        The file that is returned comes with a reference of its own.  Raises ENODEV when the file cannot be mapped,
        EACCES/EPERM when not like this.  Open modes were checked.
        """
        raise KernelError(Errno.ENODEV, "file cannot be mapped")

    def fsync(self, datasync: bool) -> None:
        raise KernelError(Errno.EINVAL, "file cannot be synchronized")

    def fallocate(self, mode: int, offset: int, len_bytes: int) -> None:
        raise KernelError(Errno.ENODEV, "file has no space to allocate")

    def flush(self) -> None:
        """A descriptor for this file is being closed; may raise what close(2) reports."""

    def set_flags(self, flags: int) -> None:
        """F_SETFL: the changeable bits are already merged into ``flags``."""
        self.f_flags = flags

    def release(self) -> None:
        """The last reference is gone."""

    def fdinfo(self) -> str:
        """Extra lines of /proc/PID/fdinfo/N."""
        return ""

    def __repr__(self) -> str:
        name = self.f_path.dentry.d_text or self.f_path.dentry.d_name
        return f"<{type(self).__name__} {name!r} flags={self.f_flags:o}>"


class SeekableFile(File):
    """A file with positions: lseek by arithmetic, read and write through ``pread`` and ``pwrite``."""

    __slots__ = ()

    seekable = FMODE_LSEEK | FMODE_PREAD | FMODE_PWRITE

    def size(self) -> int:
        return self.f_inode.i_size

    def read(self, task: Task | None, count: int) -> bytes | Blocking[bytes]:
        data = self.pread(self.f_pos, count)
        self.f_pos += len(data)
        return data

    def write(self, task: Task | None, data: bytes) -> int | Blocking[int]:
        written = self.pwrite(self.f_pos, data)
        self.f_pos += written
        return written

    def lseek(self, offset: int, whence: int) -> int:
        if whence == SEEK_SET:
            pos = offset
        elif whence == SEEK_CUR:
            pos = self.f_pos + offset
        else:
            pos = self.seek_special(offset, whence)
        if not 0 <= pos < 1 << 63:
            raise KernelError(Errno.EINVAL, "position below zero" if pos < 0 else "position too large")
        self.f_pos = pos
        return pos

    def seek_special(self, offset: int, whence: int) -> int:
        """generic_file_llseek for SEEK_END, SEEK_DATA and SEEK_HOLE: the file is one run of data."""
        size = self.size()
        if whence == 2:
            return size + offset
        if whence not in (3, 4):
            raise KernelError(Errno.EINVAL, "unknown whence")
        if not 0 <= offset < size:
            raise KernelError(Errno.ENXIO, "position beyond the end")
        return offset if whence == 3 else size


class PathFile(File):
    """What open(O_PATH) gives: a place in the tree, no data."""

    __slots__ = ()

    can_poll = False

    def __init__(self, path: Path, inode: Inode, flags: int) -> None:
        super().__init__(path, inode, flags)
        self.f_mode = FMODE_PATH
        self.f_flags = flags & ~O_ACCMODE | O_PATH


def fput(file: File) -> None:
    """Give one reference back; the last one closes the file."""
    file.f_count -= 1
    if file.f_count == 0:
        _final_fput(file)


def _final_fput(file: File) -> None:
    if file.f_ep is not None:
        for item in list(file.f_ep):
            item.file_released()
    if file.f_fasync is not None:
        file.f_fasync.end()
    inode = file.f_inode
    if inode.i_marks:
        for mark in list(inode.i_marks):
            mark.file_closed(file)
    if inode.i_flctx is not None:
        inode.i_flctx.remove_file(file)
    if inode.i_sb.watched and not file.f_mode & FMODE_PATH:
        fsnotify_close(file)
    inode.i_writecount -= file.f_writer
    file.release()
    inode.i_count -= 1
    if inode.i_count == 0:
        inode.on_last_close()
        inode.drop_if_unused()
