"""Reading and writing: read(2), write(2), pread(2), readv(2), preadv2(2), lseek(2), sync(2), fallocate(2) ...

Models ``fs/read_write.c``, ``fs/sync.c``, ``mm/fadvise.c`` and ``mm/readahead.c``.

Deliberate differences: data is on "disk" as soon as it is in memory, except in ``--writable`` directories, where fsync
and sync write it through to the host; RWF_HIPRI, RWF_NOWAIT and O_DIRECT change nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from kernel.abi.errno import Errno, KernelError
from kernel.abi.fcntl import (
    FALLOC_FL_INSERT_RANGE,
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
    FALLOC_FL_UNSHARE_RANGE,
    FALLOC_FL_ZERO_RANGE,
    FMODE_LSEEK,
    FMODE_PREAD,
    FMODE_PWRITE,
    FMODE_READ,
    FMODE_WRITE,
    O_APPEND,
    RWF_APPEND,
    RWF_DSYNC,
    RWF_NOAPPEND,
    RWF_SUPPORTED,
    RWF_SYNC,
    Advice,
    FallocFlags,
    RwfFlags,
    Whence,
)
from kernel.abi.stat import S_IFBLK, S_IFDIR, S_IFIFO, S_IFMT, S_IFREG
from kernel.fs.file import File
from kernel.fs.regular import MAX_LFS_FILESIZE, RegularFile
from kernel.fs.uio import (
    CHUNK,
    Iovec,
    check_rw_range,
    gather,
    import_iovec,
    read_in_parts,
    read_then_store,
    store_read,
    total_length,
    write_in_parts,
)
from kernel.mm.filemap import filemap_write_and_wait, invalidate_mapping_pages
from kernel.mm.types import PAGE_SHIFT, PAGE_SIZE
from kernel.mm.usercopy import copy_from_user, copy_to_user
from kernel.syscalls.table import INT, BufIn, BufOut, Fd, Offset, Size, UInt, ULong, UserAddr, syscall

if TYPE_CHECKING:
    from kernel.task.task import Task


def _readable(task: Task, fd: int) -> File:
    file = task.files.get(fd)
    if not file.f_mode & FMODE_READ:
        raise KernelError(Errno.EBADF, "descriptor not open for reading")
    return file


def _writable(task: Task, fd: int) -> File:
    file = task.files.get(fd)
    if not file.f_mode & FMODE_WRITE:
        raise KernelError(Errno.EBADF, "descriptor not open for writing")
    return file


# ---- at the file position -------------------------------------------------------------------------------------------


@syscall("read", x86_64=0, i386=3, group="desc", returns="size")
def sys_read(task: Task, fd: Fd, buf: BufOut, count: Size) -> Any:
    """Read up to ``count`` bytes."""
    file = task.files.get(fd)
    if not file.f_mode & FMODE_READ:
        raise KernelError(Errno.EBADF, "descriptor not open for reading")
    if count > CHUNK:
        return _read_vector(task, file, [(buf, check_rw_range(buf, count))])
    data = file.read(task, count)
    if not isinstance(data, bytes):
        return read_then_store(task, file, [(buf, count)], data)
    try:
        copy_to_user(task.mm, buf, data)  # type: ignore[arg-type]  # a task that makes calls has memory
    except KernelError:
        file.unread(data)
        return _read_vector(task, file, [(buf, check_rw_range(buf, count))])
    return len(data)


@syscall("write", x86_64=1, i386=4, group="desc", returns="size")
def sys_write(task: Task, fd: Fd, buf: BufIn, count: Size) -> Any:
    """Write up to ``count`` bytes."""
    file = task.files.get(fd)
    if not file.f_mode & FMODE_WRITE:
        raise KernelError(Errno.EBADF, "descriptor not open for writing")
    if count > CHUNK:
        return write_in_parts(task, file, [(buf, check_rw_range(buf, count))])
    try:
        data = copy_from_user(task.mm, buf, count)  # type: ignore[arg-type]
    except KernelError:
        data = gather(task, [(buf, check_rw_range(buf, count))], file)
    return file.write(task, data)


def _read_vector(task: Task, file: File, vector: list[Iovec]) -> Any:
    count = total_length(vector)
    if count > CHUNK and file.bulk:

        def step(wanted: int) -> bytes:
            data = file.read(task, wanted)
            assert isinstance(data, bytes)
            return data

        return read_in_parts(task, file, vector, step)
    result = file.read(task, min(count, CHUNK))
    if not isinstance(result, bytes):
        return read_then_store(task, file, vector, result)
    return store_read(task, file, vector, result)


@syscall("readv", x86_64=19, i386=145, group="desc", returns="size")
def sys_readv(task: Task, fd: Fd, vec: UserAddr, vlen: ULong) -> Any:
    """Read into several buffers."""
    file = _readable(task, fd)
    return _read_vector(task, file, import_iovec(task, vec, vlen))


@syscall("writev", x86_64=20, i386=146, group="desc", returns="size")
def sys_writev(task: Task, fd: Fd, vec: UserAddr, vlen: ULong) -> Any:
    """Write from several buffers."""
    file = _writable(task, fd)
    return _write_vector(task, file, import_iovec(task, vec, vlen))


def _write_vector(task: Task, file: File, vector: list[Iovec]) -> Any:
    if total_length(vector) > CHUNK:
        return write_in_parts(task, file, vector)
    return file.write(task, gather(task, vector, file))


# ---- at a given position --------------------------------------------------------------------------------------------


def _check_pos(file: File, pos: int, mode: int) -> None:
    if pos < 0:
        raise KernelError(Errno.EINVAL, "negative position")
    if not file.f_mode & mode:
        raise KernelError(Errno.ESPIPE, "file has no positions")


def _pread_vector(task: Task, file: File, vector: list[Iovec], pos: int) -> int:
    def step(wanted: int) -> bytes:
        nonlocal pos
        data = file.pread(pos, wanted)
        pos += len(data)
        return data

    if pos + total_length(vector) > MAX_LFS_FILESIZE:
        raise KernelError(Errno.EINVAL, "position beyond the largest")
    saved = file.f_pos  # store_read may give bytes back by moving it
    try:
        return read_in_parts(task, file, vector, step)
    finally:
        file.f_pos = saved


def _pwrite_vector(task: Task, file: File, vector: list[Iovec], pos: int) -> int:
    if pos + total_length(vector) > MAX_LFS_FILESIZE:
        raise KernelError(Errno.EINVAL, "position beyond the largest")
    done = 0
    for base, length in vector:
        offset = 0
        while offset < length:
            count = min(CHUNK, length - offset)
            try:
                written = file.pwrite(pos + done, gather(task, [(base + offset, count)]))
            except KernelError:
                if done:
                    return done
                raise
            done += written
            offset += written
            if written < count:
                return done
    return done


@syscall("pread64", x86_64=17, i386=None, group="desc", returns="size")
def sys_pread64(task: Task, fd: Fd, buf: BufOut, count: Size, pos: Offset) -> int:
    """Read at a position; the file position stays."""
    if pos < 0:
        raise KernelError(Errno.EINVAL, "negative position")
    file = task.files.get(fd)
    if not file.f_mode & FMODE_PREAD:
        raise KernelError(Errno.ESPIPE, "file has no positions")
    if not file.f_mode & FMODE_READ:
        raise KernelError(Errno.EBADF, "descriptor not open for reading")
    return _pread_vector(task, file, [(buf, check_rw_range(buf, count))], pos)


@syscall("pwrite64", x86_64=18, i386=None, group="desc", returns="size")
def sys_pwrite64(task: Task, fd: Fd, buf: BufIn, count: Size, pos: Offset) -> int:
    """Write at a position; the file position stays."""
    if pos < 0:
        raise KernelError(Errno.EINVAL, "negative position")
    file = task.files.get(fd)
    if not file.f_mode & FMODE_PWRITE:
        raise KernelError(Errno.ESPIPE, "file has no positions")
    if not file.f_mode & FMODE_WRITE:
        raise KernelError(Errno.EBADF, "descriptor not open for writing")
    return _pwrite_vector(task, file, [(buf, check_rw_range(buf, count))], pos)


@syscall("preadv", x86_64=295, i386=None, group="desc", returns="size")
def sys_preadv(task: Task, fd: Fd, vec: UserAddr, vlen: ULong, pos: Offset, pos_high: ULong) -> int:
    """Read into several buffers at a position."""
    file = task.files.get(fd)
    _check_pos(file, pos, FMODE_PREAD)
    if not file.f_mode & FMODE_READ:
        raise KernelError(Errno.EBADF, "descriptor not open for reading")
    return _pread_vector(task, file, import_iovec(task, vec, vlen), pos)


@syscall("pwritev", x86_64=296, i386=None, group="desc", returns="size")
def sys_pwritev(task: Task, fd: Fd, vec: UserAddr, vlen: ULong, pos: Offset, pos_high: ULong) -> int:
    """Write from several buffers at a position."""
    file = task.files.get(fd)
    _check_pos(file, pos, FMODE_PWRITE)
    if not file.f_mode & FMODE_WRITE:
        raise KernelError(Errno.EBADF, "descriptor not open for writing")
    return _pwrite_vector(task, file, import_iovec(task, vec, vlen), pos)


@syscall("preadv2", x86_64=327, i386=None, group="desc", returns="size")
def sys_preadv2(
    task: Task, fd: Fd, vec: UserAddr, vlen: ULong, pos: Offset, pos_high: ULong, flags: Annotated[RwfFlags, INT]
) -> Any:
    """As preadv with flags; position -1 is the file position."""
    if flags & ~RWF_SUPPORTED or flags & (RWF_APPEND | RWF_NOAPPEND):
        raise KernelError(Errno.EOPNOTSUPP, "unknown RWF flags")
    return sys_readv(task, fd, vec, vlen) if pos == -1 else sys_preadv(task, fd, vec, vlen, pos, pos_high)


@syscall("pwritev2", x86_64=328, i386=None, group="desc", returns="size")
def sys_pwritev2(
    task: Task, fd: Fd, vec: UserAddr, vlen: ULong, pos: Offset, pos_high: ULong, flags: Annotated[RwfFlags, INT]
) -> Any:
    """As pwritev with flags; position -1 is the file position."""
    if flags & ~RWF_SUPPORTED:
        raise KernelError(Errno.EOPNOTSUPP, "unknown RWF flags")
    if flags & RWF_APPEND and flags & RWF_NOAPPEND:
        raise KernelError(Errno.EINVAL, "RWF_APPEND and RWF_NOAPPEND")
    file = _writable(task, fd)
    saved = file.f_flags
    if flags & RWF_APPEND:
        file.f_flags |= O_APPEND
    elif flags & RWF_NOAPPEND:
        file.f_flags &= ~O_APPEND
    try:
        if pos == -1:
            result = sys_writev(task, fd, vec, vlen)
        else:
            result = sys_pwritev(task, fd, vec, vlen, pos, pos_high)
    finally:
        file.f_flags = saved
    if flags & (RWF_SYNC | RWF_DSYNC) and isinstance(result, int):
        file.fsync(not flags & RWF_SYNC)
    return result


@syscall("lseek", x86_64=8, i386=19, group="desc", returns="size")
def sys_lseek(task: Task, fd: Fd, offset: Offset, whence: Whence) -> int:
    """Move the file position."""
    file = task.files.get(fd)
    if not 0 <= whence <= 4:
        raise KernelError(Errno.EINVAL, "unknown whence")
    if not file.f_mode & FMODE_LSEEK:
        raise KernelError(Errno.ESPIPE, "file has no positions")
    return file.lseek(offset, whence)


# ---- sizes and space ------------------------------------------------------------------------------------------------


@syscall("fallocate", x86_64=285, i386=None, group="desc")
def sys_fallocate(task: Task, fd: Fd, mode: Annotated[FallocFlags, INT], offset: Offset, length: Offset) -> None:
    """Allocate, zero or punch out a range of a file."""
    file = task.files.get(fd)
    if offset < 0 or length <= 0:
        raise KernelError(Errno.EINVAL, "negative offset or no length")
    if mode & ~(2 * FALLOC_FL_UNSHARE_RANGE - 1) or mode & 4:
        raise KernelError(Errno.EOPNOTSUPP, "unknown mode")
    if mode & FALLOC_FL_PUNCH_HOLE and mode != FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE:
        raise KernelError(Errno.EOPNOTSUPP, "a hole is punched with FALLOC_FL_KEEP_SIZE")
    exclusive = mode & (FALLOC_FL_ZERO_RANGE | FALLOC_FL_INSERT_RANGE | 8 | FALLOC_FL_UNSHARE_RANGE)
    if exclusive & (exclusive - 1):
        raise KernelError(Errno.EINVAL, "modes that exclude each other")
    if not file.f_mode & FMODE_WRITE:
        raise KernelError(Errno.EBADF, "descriptor not open for writing")
    kind = file.f_inode.i_mode & S_IFMT
    if kind == S_IFIFO:
        raise KernelError(Errno.ESPIPE, "a pipe has no space to allocate")
    if kind == S_IFDIR:
        raise KernelError(Errno.EISDIR, "a directory")
    if kind not in (S_IFREG, S_IFBLK):
        raise KernelError(Errno.ENODEV, "not a regular file")
    if offset + length > MAX_LFS_FILESIZE:
        raise KernelError(Errno.EFBIG, "beyond the largest file")
    file.fallocate(mode, offset, length)


@syscall("readahead", x86_64=187, i386=None, group="desc")
def sys_readahead(task: Task, fd: Fd, offset: Offset, count: Size) -> None:
    """Read a part of a file into the page cache."""
    file = _readable(task, fd)
    mapping = file.f_mapping
    if mapping is None or not isinstance(file, RegularFile):
        raise KernelError(Errno.EINVAL, "not a regular file")
    _populate_cache(file, offset, count)


def _populate_cache(file: File, offset: int, count: int) -> None:
    mapping = file.f_mapping
    if mapping is None or offset < 0:
        return
    end = min(offset + count, file.f_inode.i_size) if count else file.f_inode.i_size
    pgoff = offset >> PAGE_SHIFT
    last = min(-(-end // PAGE_SIZE), pgoff + 512)
    while pgoff < last:
        if pgoff not in mapping.pages:
            mapping.read_mapping_page(pgoff)
        pgoff += 1


@syscall("fadvise64", x86_64=221, i386=None, group="desc")
def sys_fadvise64(task: Task, fd: Fd, offset: Offset, length: Offset, advice: Advice) -> None:
    """How a part of a file is going to be used: only DONTNEED and WILLNEED do something."""
    file = task.files.get(fd)
    if file.f_inode.i_mode & S_IFMT == S_IFIFO:
        raise KernelError(Errno.ESPIPE, "a pipe")
    if length < 0 or not 0 <= advice <= 5:
        raise KernelError(Errno.EINVAL, "negative length or unknown advice")
    mapping = file.f_mapping
    if mapping is None:
        return
    end = offset + length if length else MAX_LFS_FILESIZE
    if advice == Advice.POSIX_FADV_DONTNEED:
        filemap_write_and_wait(mapping, offset >> PAGE_SHIFT, end >> PAGE_SHIFT)
        first, last = -(-offset // PAGE_SIZE), (end >> PAGE_SHIFT) - 1
        if end >= file.f_inode.i_size:
            last = end >> PAGE_SHIFT
        invalidate_mapping_pages(mapping, first, last)
    elif advice == Advice.POSIX_FADV_WILLNEED:
        _populate_cache(file, offset, length)


# ---- to the disk ----------------------------------------------------------------------------------------------------


@syscall("fsync", x86_64=74, i386=118, group="desc")
def sys_fsync(task: Task, fd: Fd) -> None:
    """Write a file's changes to where it is kept."""
    task.files.get(fd).fsync(False)


@syscall("fdatasync", x86_64=75, i386=148, group="desc")
def sys_fdatasync(task: Task, fd: Fd) -> None:
    """As fsync, without attributes that do not matter for reading."""
    task.files.get(fd).fsync(True)


@syscall("sync", x86_64=162, i386=36, group="desc")
def sys_sync(task: Task) -> None:
    """Write all changes to where they are kept."""
    task.kernel.vfs.sync()


@syscall("syncfs", x86_64=306, i386=344, group="desc")
def sys_syncfs(task: Task, fd: Fd) -> None:
    """Write the changes of one file system to where they are kept."""
    task.files.get(fd).f_inode.i_sb.sync()


@syscall("sync_file_range", x86_64=277, i386=None, group="desc")
def sys_sync_file_range(task: Task, fd: Fd, offset: Offset, nbytes: Offset, flags: UInt) -> None:
    """Write a part of a file to where it is kept."""
    file = task.files.get(fd)
    if flags & ~7 or offset < 0 or nbytes < 0:
        raise KernelError(Errno.EINVAL, "unknown flags or negative range")
    if file.f_inode.i_mode & S_IFMT not in (S_IFREG, S_IFBLK, S_IFDIR):
        raise KernelError(Errno.ESPIPE, "not a regular file")
    mapping = file.f_mapping
    if mapping is not None and flags:
        last = (offset + nbytes - 1 if nbytes else MAX_LFS_FILESIZE) >> PAGE_SHIFT
        filemap_write_and_wait(mapping, offset >> PAGE_SHIFT, last)
