"""Regular files of a writable host directory: data in the page cache, written through to the host.

Models ``fs/hostfs`` (of user-mode Linux); see kernel/fs/hostdir.py.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from kernel.abi.errno import KernelError
from kernel.abi.fcntl import FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE, SEEK_DATA, SEEK_HOLE
from kernel.fs.file import File
from kernel.fs.hostfs import HostStat
from kernel.fs.hostnode import HostFsSuper, HostInode
from kernel.fs.inode import Iattr
from kernel.fs.regular import DataInode, RegularFile
from kernel.mm.filemap import (
    evict_mapping,
    filemap_write_and_wait,
    invalidate_mapping_pages,
    pagecache_isize_extended,
    truncate_pagecache_range,
)
from kernel.mm.types import PAGE_SHIFT, PAGE_SIZE

if TYPE_CHECKING:
    from kernel.fs.dcache import Path
    from kernel.mm.filemap import AddressSpace
    from kernel.task.task import Task


class HostReg(HostInode, DataInode):
    """A regular file.  Its handle is open while the guest has it open or mapped."""

    __slots__ = ("fd", "is_writable", "seen")

    def __init__(self, sb: HostFsSuper, stat: HostStat) -> None:
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
