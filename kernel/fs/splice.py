"""Moving data between files inside the kernel: splice(2), tee(2), vmsplice(2), sendfile(2), copy_file_range(2).

Models ``fs/splice.c`` and ``fs/read_write.c``.

Deliberate difference: bytes are copied; no page is ever given away (SPLICE_F_MOVE and SPLICE_F_GIFT change nothing).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.abi.errno import ERESTARTSYS, Errno, KernelError
from kernel.abi.fcntl import FMODE_PREAD, O_APPEND, SPLICE_F_NONBLOCK
from kernel.abi.signal import SIGPIPE
from kernel.abi.stat import S_IFDIR, S_IFMT, S_IFREG
from kernel.fs.file import File
from kernel.fs.pipe import PipeFile
from kernel.fs.regular import MAX_LFS_FILESIZE
from kernel.mm.types import PAGE_SIZE
from kernel.task.waitqueue import Blocking, Sleep, WakeReason

if TYPE_CHECKING:
    from kernel.fs.pipe import Pipe
    from kernel.task.task import Task

CHUNK = 65_536


def _read(task: Task, file: File, pos: int | None, count: int) -> Blocking[bytes]:
    if pos is not None:
        return file.pread(pos, count)
    result = file.read(task, count)
    return result if isinstance(result, bytes) else (yield from result)


def _write(task: Task, file: File, pos: int | None, data: bytes) -> Blocking[int]:
    if pos is not None:
        return file.pwrite(pos, data)
    result = file.write(task, data)
    return result if isinstance(result, int) else (yield from result)


# ---- sendfile and copy_file_range -----------------------------------------------------------------------------------


def do_sendfile(task: Task, out: File, source: File, pos: int | None, count: int) -> Blocking[int]:
    """Copy up to ``count`` bytes; ``pos`` None: from (and moving) the source's own position."""
    if (source.f_pos if pos is None else pos) >= MAX_LFS_FILESIZE:
        raise KernelError(Errno.EOVERFLOW, "position beyond the largest file")
    if out.f_flags & O_APPEND or not source.f_mode & FMODE_PREAD:
        raise KernelError(Errno.EINVAL, "destination opened with O_APPEND, or source without positions")
    if not count:
        return 0
    if source.f_inode.i_mode & S_IFMT == S_IFDIR:
        raise KernelError(Errno.EINVAL, "a directory")
    done = 0
    while done < count:
        here = source.f_pos if pos is None else pos + done
        data = source.pread(here, min(CHUNK, count - done))
        if not data:
            break
        try:
            written = yield from _write(task, out, None, data)
        except KernelError:
            if done:
                break
            raise
        done += written
        if pos is None:
            source.f_pos = here + written
        if written < len(data):
            break
    return done


def check_copy_kinds(source: File, out: File) -> None:
    """generic_file_rw_checks(): only regular files."""
    kinds = [file.f_inode.i_mode & S_IFMT for file in (source, out)]
    if S_IFDIR in kinds:
        raise KernelError(Errno.EISDIR, "a directory")
    if kinds != [S_IFREG, S_IFREG]:
        raise KernelError(Errno.EINVAL, "not a regular file")


def do_copy_file_range(source: File, pos_in: int, out: File, pos_out: int, count: int) -> int:
    """Copy inside one file system; the caller moves the positions."""
    if source.f_inode.i_sb is not out.f_inode.i_sb:
        raise KernelError(Errno.EXDEV, "not on the same file system")
    count = max(0, min(count, source.f_inode.i_size - pos_in))
    if source.f_inode is out.f_inode and pos_out < pos_in + count and pos_in < pos_out + count:
        raise KernelError(Errno.EINVAL, "the ranges overlap")
    done = 0
    while done < count:
        data = source.pread(pos_in + done, min(CHUNK, count - done))
        if not data:
            break
        try:
            written = out.pwrite(pos_out + done, data)
        except KernelError:
            if done:
                break
            raise
        done += written
        if written < len(data):
            break
    return done


# ---- splice ---------------------------------------------------------------------------------------------------------


def _wait_for_room(task: Task, out: PipeFile, nonblock: bool) -> Blocking[None]:
    """Until the pipe has a free slot; EPIPE without readers."""
    pipe = out.pipe
    while True:
        if not pipe.readers:
            from kernel.task.signal import send_sig

            send_sig(task, SIGPIPE)
            raise KernelError(Errno.EPIPE, "nobody has the pipe open for reading")
        if not pipe.full:
            return
        if nonblock or out.nonblock:
            raise KernelError(Errno.EAGAIN, "pipe full")
        if (yield Sleep(pipe.wr_wait)) is WakeReason.SIGNAL and pipe.full:
            raise KernelError(ERESTARTSYS, "signal while the pipe was full")


def _wait_for_data(source: PipeFile, nonblock: bool) -> Blocking[bool]:
    """Until the pipe has data; False: it is empty and nobody writes any more."""
    pipe = source.pipe
    while not pipe.bufs:
        if not pipe.writers:
            return False
        if nonblock or source.nonblock:
            raise KernelError(Errno.EAGAIN, "pipe empty")
        if (yield Sleep(pipe.rd_wait)) is WakeReason.SIGNAL and not pipe.bufs:
            raise KernelError(ERESTARTSYS, "signal while the pipe was empty")
    return True


def _room(pipe: Pipe) -> int:
    return (pipe.ring_size - len(pipe.bufs)) * PAGE_SIZE


def do_splice(
    task: Task, source: File, pos_in: int | None, out: File, pos_out: int | None, count: int, flags: int
) -> Blocking[int]:
    """Move bytes; one end at least is a pipe.  A position that is given is used instead of the file's own."""
    nonblock = flags & SPLICE_F_NONBLOCK != 0
    if isinstance(source, PipeFile) and isinstance(out, PipeFile):
        if pos_in is not None or pos_out is not None:
            raise KernelError(Errno.ESPIPE, "a pipe has no positions")
        if source.pipe is out.pipe:
            raise KernelError(Errno.EINVAL, "the same pipe twice")
        if not (yield from _wait_for_data(source, nonblock)):
            return 0
        yield from _wait_for_room(task, out, nonblock)
        data = source.pipe.take(min(count, _room(out.pipe)))
        return out.pipe.give(data, packet=False)
    if isinstance(source, PipeFile):
        if pos_in is not None:
            raise KernelError(Errno.ESPIPE, "a pipe has no positions")
        if out.f_flags & O_APPEND:
            raise KernelError(Errno.EINVAL, "destination opened with O_APPEND")
        return (yield from _pipe_to_file(task, source, out, pos_out, count, nonblock))
    if isinstance(out, PipeFile):
        if pos_out is not None:
            raise KernelError(Errno.ESPIPE, "a pipe has no positions")
        if source.f_inode.i_mode & S_IFMT == S_IFDIR:
            raise KernelError(Errno.EINVAL, "a directory")
        yield from _wait_for_room(task, out, nonblock)
        data = yield from _read(task, source, pos_in, min(count, _room(out.pipe), CHUNK))
        return out.pipe.give(data, packet=False) if data else 0
    raise KernelError(Errno.EINVAL, "neither end is a pipe")


def _pipe_to_file(
    task: Task, source: PipeFile, out: File, pos: int | None, count: int, nonblock: bool
) -> Blocking[int]:
    done = 0
    while done < count:
        if done and not source.pipe.bufs:
            break
        if not (yield from _wait_for_data(source, nonblock)):
            break
        data = source.pipe.take(min(count - done, CHUNK))
        try:
            written = yield from _write(task, out, None if pos is None else pos + done, data)
        except KernelError:
            source.pipe.put_back(data)
            if done:
                break
            raise
        done += written
        if written < len(data):
            source.pipe.put_back(data[written:])
            break
    return done


def do_tee(task: Task, source: File, out: File, count: int, flags: int) -> Blocking[int]:
    """Copy what is in one pipe to another without taking it."""
    if not isinstance(source, PipeFile) or not isinstance(out, PipeFile) or source.pipe is out.pipe:
        raise KernelError(Errno.EINVAL, "tee needs two pipes")
    nonblock = flags & SPLICE_F_NONBLOCK != 0
    if not (yield from _wait_for_data(source, nonblock)):
        return 0
    yield from _wait_for_room(task, out, nonblock)
    count = min(count, _room(out.pipe))
    parts: list[bytes] = []
    for buf in source.pipe.bufs:
        if count <= 0:
            break
        part = bytes(buf.data[buf.start : buf.start + count])
        parts.append(part)
        count -= len(part)
    return out.pipe.give(b"".join(parts), packet=False)
