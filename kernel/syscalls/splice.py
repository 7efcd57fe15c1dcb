"""Moving data inside the kernel: sendfile(2), copy_file_range(2), splice(2), tee(2), vmsplice(2).

Models ``fs/splice.c`` and ``fs/read_write.c``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.abi.errno import Errno, KernelError
from kernel.abi.fcntl import FMODE_PREAD, FMODE_PWRITE, FMODE_READ, FMODE_WRITE, MAX_RW_COUNT, O_APPEND, SpliceFlags
from kernel.fs.file import File
from kernel.fs.pipe import PipeFile
from kernel.fs.regular import MAX_LFS_FILESIZE
from kernel.fs.splice import check_copy_kinds, do_copy_file_range, do_sendfile, do_splice, do_tee
from kernel.fs.uio import CHUNK, gather, import_iovec, store_read, total_length, user_mm
from kernel.mm.usercopy import get_user_i64, put_user_u64
from kernel.syscalls.table import Fd, Size, UInt, ULong, UserAddr, syscall

if TYPE_CHECKING:
    from kernel.task.task import Task
    from kernel.task.waitqueue import Blocking


def _file(task: Task, fd: int, mode: int) -> File:
    file = task.files.get(fd)
    if not file.f_mode & mode:
        raise KernelError(Errno.EBADF, "descriptor not open for that")
    return file


def _position(task: Task, file: File, address: int, mode: int) -> int | None:
    """The position at ``address``; None when there is no address."""
    if not address:
        return None
    if not file.f_mode & mode:
        raise KernelError(Errno.ESPIPE, "file has no positions")
    pos = get_user_i64(user_mm(task), address)
    if pos < 0:
        raise KernelError(Errno.EINVAL, "negative position")
    return pos


@syscall("sendfile", x86_64=40, i386=None, group="desc", returns="size")
def sys_sendfile(task: Task, out_fd: Fd, in_fd: Fd, offset: UserAddr, count: Size) -> Blocking[int]:
    """Copy from a file to a descriptor."""
    source = _file(task, in_fd, FMODE_READ)
    pos = _position(task, source, offset, FMODE_PREAD)
    if count >> 63 or (source.f_pos if pos is None else pos) + count > MAX_LFS_FILESIZE:
        raise KernelError(Errno.EINVAL, "count is negative as a ssize_t, or beyond the largest position")
    out = _file(task, out_fd, FMODE_WRITE)
    done = yield from do_sendfile(task, out, source, pos, min(count, MAX_RW_COUNT))
    if pos is not None:
        put_user_u64(user_mm(task), offset, pos + done)
    return done


@syscall("copy_file_range", x86_64=326, i386=377, group="desc", returns="size")
def sys_copy_file_range(
    task: Task, fd_in: Fd, off_in: UserAddr, fd_out: Fd, off_out: UserAddr, len: Size, flags: UInt
) -> int:
    """Copy from one regular file to another."""
    source = task.files.get(fd_in)
    out = task.files.get(fd_out)
    pos_in = _position(task, source, off_in, FMODE_PREAD)
    pos_out = _position(task, out, off_out, FMODE_PWRITE)
    if flags:
        raise KernelError(Errno.EINVAL, "unknown flags")
    check_copy_kinds(source, out)
    if not source.readable or not out.writable or out.f_flags & O_APPEND:
        raise KernelError(Errno.EBADF, "descriptors not open for that, or O_APPEND")
    start_in = source.f_pos if pos_in is None else pos_in
    start_out = out.f_pos if pos_out is None else pos_out
    done = do_copy_file_range(source, start_in, out, start_out, min(len, MAX_RW_COUNT))
    if done:
        if pos_in is None:
            source.f_pos = start_in + done
        else:
            put_user_u64(user_mm(task), off_in, start_in + done)
        if pos_out is None:
            out.f_pos = start_out + done
        else:
            put_user_u64(user_mm(task), off_out, start_out + done)
    return done


@syscall("splice", x86_64=275, i386=313, group="desc", returns="size")
def sys_splice(
    task: Task, fd_in: Fd, off_in: UserAddr, fd_out: Fd, off_out: UserAddr, len: Size, flags: SpliceFlags
) -> Blocking[int]:
    """Move data to or from a pipe."""
    if not len:
        return 0
    if flags & ~15:
        raise KernelError(Errno.EINVAL, "unknown flags")
    source = _file(task, fd_in, FMODE_READ)
    out = _file(task, fd_out, FMODE_WRITE)
    if (off_in and isinstance(source, PipeFile)) or (off_out and isinstance(out, PipeFile)):
        raise KernelError(Errno.ESPIPE, "a pipe has no positions")
    pos_in = _position_for_splice(task, source, off_in, FMODE_PREAD)
    pos_out = _position_for_splice(task, out, off_out, FMODE_PWRITE)
    done = yield from do_splice(task, source, pos_in, out, pos_out, min(len, MAX_RW_COUNT), flags)
    if pos_in is not None:
        put_user_u64(user_mm(task), off_in, pos_in + done)
    if pos_out is not None:
        put_user_u64(user_mm(task), off_out, pos_out + done)
    return done


def _position_for_splice(task: Task, file: File, address: int, mode: int) -> int | None:
    if address and not file.f_mode & mode:
        raise KernelError(Errno.EINVAL, "file has no positions")
    return _position(task, file, address, mode)


@syscall("tee", x86_64=276, i386=315, group="desc", returns="size")
def sys_tee(task: Task, fdin: Fd, fdout: Fd, len: Size, flags: SpliceFlags) -> Blocking[int]:
    """Copy what is in a pipe to another."""
    if flags & ~15:
        raise KernelError(Errno.EINVAL, "unknown flags")
    if not len:
        return 0
    source = _file(task, fdin, FMODE_READ)
    out = _file(task, fdout, FMODE_WRITE)
    return (yield from do_tee(task, source, out, min(len, MAX_RW_COUNT), flags))


@syscall("vmsplice", x86_64=278, i386=316, group="desc", returns="size")
def sys_vmsplice(task: Task, fd: Fd, iov: UserAddr, nr_segs: ULong, flags: SpliceFlags) -> Blocking[int]:
    """Put memory into a pipe, or a pipe's data into memory."""
    if flags & ~15:
        raise KernelError(Errno.EINVAL, "unknown flags")
    file = task.files.get(fd)
    if not isinstance(file, PipeFile):
        raise KernelError(Errno.EBADF, "not a pipe")
    vector = import_iovec(task, iov, nr_segs)
    if not total_length(vector):
        return 0
    if file.writable:
        data = gather(task, vector)
        result = file.write(task, data)
        return result if isinstance(result, int) else (yield from result)
    read = file.read(task, min(total_length(vector), CHUNK))
    taken = read if isinstance(read, bytes) else (yield from read)
    return store_read(task, file, vector, taken)
