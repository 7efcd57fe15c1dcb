"""Regular files: data through the page cache.

Models ``mm/filemap.c`` (``generic_file_read_iter``, ``generic_write_checks``), ``fs/open.c`` (``do_truncate``,
``vfs_fallocate``), ``fs/inode.c`` (``file_remove_privs``) and ``fs/libfs.c``.

:class:`DataInode` is a regular file whose pages come from and go to somewhere (its subclasses say where);
:class:`RegularFile` is such a file opened.

Deliberate differences: FALLOC_FL_COLLAPSE_RANGE and INSERT_RANGE are not supported (EOPNOTSUPP, as on tmpfs);
O_DIRECT has no alignment rules.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from kernel.abi.errno import Errno, KernelError
from kernel.abi.fcntl import (
    F_SEAL_GROW,
    F_SEAL_SHRINK,
    F_SEAL_WRITE,
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
    FALLOC_FL_ZERO_RANGE,
    FMODE_WRITE,
    O_APPEND,
    O_NOATIME,
    O_SYNC,
    SEEK_DATA,
    SEEK_END,
    SEEK_HOLE,
)
from kernel.abi.inotify import IN_ACCESS, IN_MODIFY
from kernel.abi.mount import MS_NOATIME, MS_NOEXEC
from kernel.abi.resource import RLIM_INFINITY, RLIMIT_FSIZE
from kernel.abi.signal import SIGXFSZ
from kernel.abi.stat import S_ISGID, S_ISUID, S_IXGRP
from kernel.fs.file import File, SeekableFile
from kernel.fs.inode import Inode
from kernel.fs.notify import fsnotify_file
from kernel.fs.permission import CAP_FSETID, capable
from kernel.mm.filemap import (
    AddressSpace,
    evict_mapping,
    filemap_check_errors,
    filemap_write_and_wait,
    generic_file_read,
    generic_file_write,
    pagecache_isize_extended,
    truncate_inode_pages,
    truncate_pagecache_range,
)
from kernel.mm.types import PAGE_SHIFT, PAGE_SIZE

if TYPE_CHECKING:
    from kernel.fs.dcache import Path
    from kernel.task.task import Task
    from kernel.task.waitqueue import Blocking

MAX_LFS_FILESIZE = (1 << 63) - 1
PROT_EXEC = 4


class DataInode(Inode):
    """A regular file with a page cache.  Subclasses: ``readpages``, ``writepage``, and the five methods below."""

    __slots__ = ()

    # -- what lies under the page cache --------------------------------------------------------------------
    def reserve(self, pos: int, count: int) -> int:
        """Bytes ``[pos, pos + count)`` are about to be written: how many of them there is space for (ENOSPC: none)."""
        return count

    def allocate(self, pos: int, count: int) -> int:
        """fallocate of a range: as :meth:`reserve`, for bytes that nobody writes yet."""
        return self.reserve(pos, count)

    def cut(self, size: int) -> None:
        """The file now ends at ``size`` (less or more than before): forget what is kept beyond."""

    def punch(self, first_page: int, last_page: int) -> None:
        """These whole pages read as zeros from now on and take no space."""

    def next_data(self, pos: int) -> int:
        """The first position from ``pos`` on that is data; ``i_size`` if none."""
        return pos

    def next_hole(self, pos: int) -> int:
        return self.i_size

    def open(self, task: Task | None, path: Path, flags: int) -> File | Generator[Any, Any, File]:
        return RegularFile(path, self, flags)

    # -- common --------------------------------------------------------------------------------------------
    def new_mapping(self) -> AddressSpace | None:
        return AddressSpace(self)

    def truncate(self, size: int) -> None:
        old_size = self.i_size
        if size > MAX_LFS_FILESIZE:
            raise KernelError(Errno.EFBIG, "larger than any file")
        seals = self.i_seals
        if seals > 0 and ((seals & F_SEAL_SHRINK and size < old_size) or (seals & F_SEAL_GROW and size > old_size)):
            raise KernelError(Errno.EPERM, "sealed")
        mapping = self.mapping_if_any
        if size >= old_size:
            if mapping is not None:
                pagecache_isize_extended(mapping, old_size, size)
            self.i_size = size
        else:
            self.i_size = size
            if mapping is not None:
                truncate_inode_pages(mapping, size)
        self.cut(size)
        if size != old_size:
            self.i_mtime = self.i_sb.kernel.clock.realtime_ns()

    def fallocate(self, mode: int, offset: int, len_bytes: int) -> None:
        if mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE):
            raise KernelError(Errno.EOPNOTSUPP, "fallocate mode not supported by this file system")
        end = offset + len_bytes
        seals = self.i_seals
        if mode & FALLOC_FL_PUNCH_HOLE:
            if seals > 0 and seals & F_SEAL_WRITE:
                raise KernelError(Errno.EPERM, "sealed")
            self._zero_range(offset, min(end, -(-self.i_size // PAGE_SIZE) * PAGE_SIZE))
        else:
            if end > self.i_size and not mode & FALLOC_FL_KEEP_SIZE and seals > 0 and seals & F_SEAL_GROW:
                raise KernelError(Errno.EPERM, "sealed")
            if mode & FALLOC_FL_ZERO_RANGE:
                self._zero_range(offset, end)
            if self.allocate(offset, len_bytes) < len_bytes:
                raise KernelError(Errno.ENOSPC, "file system full")
            if end > self.i_size and not mode & FALLOC_FL_KEEP_SIZE:
                mapping = self.mapping_if_any
                if mapping is not None:
                    pagecache_isize_extended(mapping, self.i_size, end)
                self.i_size = end
                self.cut(end)
        self.touch_mtime()

    def _zero_range(self, start: int, end: int) -> None:
        mapping = self.i_mapping
        assert mapping is not None
        size = self.i_size
        for edge in (start, end):  # partial pages at the edges must be in the cache to be zeroed there
            if edge & (PAGE_SIZE - 1) and edge < size:
                mapping.read_mapping_page(edge >> PAGE_SHIFT, 1)
        if end > start:
            truncate_pagecache_range(mapping, start, end)
        first, last = -(-start // PAGE_SIZE), end // PAGE_SIZE - 1
        if last >= first:
            self.punch(first, last)

    def fsync(self, datasync: bool) -> None:
        mapping = self.mapping_if_any
        if mapping is not None:
            filemap_write_and_wait(mapping)
            filemap_check_errors(mapping)

    def evict(self) -> None:
        mapping = self.mapping_if_any
        if mapping is not None:
            evict_mapping(mapping)
        self.i_size = 0
        self.cut(0)

    def file_remove_privs(self, task: Task | None) -> None:
        """Writing takes the set-user-ID and set-group-ID bits away, unless CAP_FSETID."""
        mode = self.i_mode
        kill = mode & S_ISUID
        if mode & (S_ISGID | S_IXGRP) == S_ISGID | S_IXGRP:
            kill |= S_ISGID
        if kill and not capable(task, CAP_FSETID):
            self.i_mode = mode & ~kill
            self.mark_dirty()


class RegularFile(SeekableFile):
    """An open regular file."""

    __slots__ = ("data", "mapping", "noatime")

    can_poll = False
    bulk = True

    def __init__(self, path: Path, inode: DataInode, flags: int) -> None:
        super().__init__(path, inode, flags)
        self.data = inode
        mapping = inode.i_mapping
        assert mapping is not None
        self.mapping = mapping
        self.noatime = bool(flags & O_NOATIME or path.mnt.mnt_flags & MS_NOATIME)

    @property
    def f_mapping(self) -> AddressSpace | None:
        return self.mapping

    def read(self, task: Task | None, count: int) -> bytes | Blocking[bytes]:
        if self.f_pos + count > MAX_LFS_FILESIZE:
            raise KernelError(Errno.EINVAL, "position beyond the largest")
        data = generic_file_read(self.mapping, self.f_pos, count)
        self.f_pos += len(data)
        self._accessed()
        return data

    def pread(self, pos: int, count: int) -> bytes:
        data = generic_file_read(self.mapping, pos, count)
        self._accessed()
        return data

    def _accessed(self) -> None:
        if not self.noatime:
            self.data.touch_atime()
        if self.data.i_sb.watched:
            fsnotify_file(self, IN_ACCESS)

    def write(self, task: Task | None, data: bytes) -> int | Blocking[int]:
        if not data:
            return 0
        inode = self.data
        pos = inode.i_size if self.f_flags & O_APPEND else self.f_pos
        if self.f_pos + len(data) > MAX_LFS_FILESIZE:
            raise KernelError(Errno.EINVAL, "position beyond the largest")
        if task is not None and task.signal.rlimits[RLIMIT_FSIZE][0] != RLIM_INFINITY:
            data = self._limit(task, pos, data)
        if inode.i_mode & (S_ISUID | S_ISGID):
            inode.file_remove_privs(task)
        written = self._write_at(pos, data)
        self.f_pos = pos + written
        return written

    def pwrite(self, pos: int, data: bytes) -> int:
        if not data:
            return 0
        inode = self.data
        task = self.kernel.current
        if self.f_flags & O_APPEND:
            pos = inode.i_size
        if task is not None and task.signal.rlimits[RLIMIT_FSIZE][0] != RLIM_INFINITY:
            data = self._limit(task, pos, data)
        if inode.i_mode & (S_ISUID | S_ISGID):
            inode.file_remove_privs(task)
        return self._write_at(pos, data)

    def _write_at(self, pos: int, data: bytes) -> int:
        count = len(data)
        inode = self.data
        if inode.i_seals > 0:
            self._check_seals(pos, count)
        if pos + count > MAX_LFS_FILESIZE:
            if pos >= MAX_LFS_FILESIZE:
                raise KernelError(Errno.EFBIG, "position beyond the largest file")
            data = data[: MAX_LFS_FILESIZE - pos]
            count = len(data)
        space = inode.reserve(pos, count)
        if space < count:
            if space <= 0:
                raise KernelError(Errno.ENOSPC, "file system full")
            data = data[:space]
        written = self.put_data(pos, data)
        inode.touch_mtime()
        if self.f_flags & O_SYNC:
            inode.fsync(True)
        if inode.i_sb.watched:
            fsnotify_file(self, IN_MODIFY)
        return written

    def put_data(self, pos: int, data: bytes) -> int:
        """Everything is checked: store ``data``."""
        return generic_file_write(self.mapping, pos, data)

    def _check_seals(self, pos: int, count: int) -> None:
        seals = self.data.i_seals
        if seals & F_SEAL_WRITE or (seals & F_SEAL_GROW and pos + count > self.data.i_size):
            raise KernelError(Errno.EPERM, "sealed")

    def _limit(self, task: Task, pos: int, data: bytes) -> bytes:
        """generic_write_check_limits(): RLIMIT_FSIZE."""
        limit = task.rlimit(RLIMIT_FSIZE)
        if pos >= limit and data:
            from kernel.task.signal import send_sig

            send_sig(task, SIGXFSZ)
            raise KernelError(Errno.EFBIG, "RLIMIT_FSIZE")
        return data[: limit - pos]

    def seek_special(self, offset: int, whence: int) -> int:
        inode = self.data
        size = inode.i_size
        if whence == SEEK_END:
            return size + offset
        if whence not in (SEEK_DATA, SEEK_HOLE):
            raise KernelError(Errno.EINVAL, "unknown whence")
        if not 0 <= offset < size:
            raise KernelError(Errno.ENXIO, "position beyond the end")
        if whence == SEEK_HOLE:
            return min(size, inode.next_hole(offset))
        pos = inode.next_data(offset)
        if pos >= size:
            raise KernelError(Errno.ENXIO, "no data from here on")
        return pos

    def mmap_prepare(self, task: Task | None, len_bytes: int, pgoff: int, prot: int, shared: bool) -> File | None:
        if prot & PROT_EXEC and self.f_path.mnt.mnt_flags & MS_NOEXEC:
            raise KernelError(Errno.EPERM, "noexec mount")
        seals = self.data.i_seals
        if shared and seals > 0 and self.f_mode & FMODE_WRITE and prot & 2 and seals & (F_SEAL_WRITE | 16):
            raise KernelError(Errno.EPERM, "sealed against writing")
        if not self.noatime:
            self.data.touch_atime()
        return self.get()

    def fsync(self, datasync: bool) -> None:
        self.data.fsync(datasync)

    def fallocate(self, mode: int, offset: int, len_bytes: int) -> None:
        self.data.file_remove_privs(self.kernel.current)
        self.data.fallocate(mode, offset, len_bytes)
        if self.data.i_sb.watched:
            fsnotify_file(self, IN_MODIFY)
