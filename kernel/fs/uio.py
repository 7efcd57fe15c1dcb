"""Between system calls and files: paths, buffers and vectors in the program's memory.

Models ``fs/namei.c`` (``getname``), ``lib/iov_iter.c`` (``import_iovec``) and ``fs/read_write.c`` (``vfs_read``,
``vfs_write``).

A read gives the file's bytes first and stores them afterwards; if the buffer turns out to be bad, the file takes
them back (:meth:`~kernel.fs.file.File.unread`).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from kernel.abi.errno import Errno, KernelError
from kernel.abi.fcntl import MAX_RW_COUNT, PATH_MAX, UIO_MAXIOV
from kernel.abi.resource import RLIMIT_NOFILE
from kernel.mm.types import TASK_SIZE
from kernel.mm.usercopy import copy_from_user, copy_from_user_some, copy_to_user_some, strncpy_from_user

if TYPE_CHECKING:
    from collections.abc import Callable

    from kernel.fs.file import File
    from kernel.mm.types import MmStruct
    from kernel.task.task import Task
    from kernel.task.waitqueue import Blocking

CHUNK = 1 << 20
"""Larger transfers are done in parts of this many bytes, to bound what the host holds at once."""

Iovec = tuple[int, int]
"""(address, length in bytes)."""


def user_mm(task: Task) -> MmStruct:
    mm = task.mm
    assert mm is not None
    return mm


def getname(task: Task, addr: int) -> bytes:
    """The path at ``addr`` (EFAULT, ENAMETOOLONG); may be empty."""
    name = strncpy_from_user(user_mm(task), addr, PATH_MAX)
    if len(name) >= PATH_MAX:
        raise KernelError(Errno.ENAMETOOLONG, "path longer than PATH_MAX")
    return name


def nofile_limit(task: Task) -> int:
    return min(task.signal.rlimits[RLIMIT_NOFILE][0], task.kernel.sysctl.nr_open)


def fd_install(task: Task, file: File, cloexec: bool) -> int:
    """The lowest free descriptor for ``file``; EMFILE gives the file back."""
    return task.files.add(file, cloexec, nofile_limit(task))


def check_rw_range(buf: int, count: int) -> int:
    """access_ok and rw_verify_area: the number of bytes that one call may move."""
    if count >> 63:
        raise KernelError(Errno.EINVAL, "count is negative as a ssize_t")
    if buf + count > TASK_SIZE or buf < 0:
        raise KernelError(Errno.EFAULT, "buffer is not in user memory")
    return min(count, MAX_RW_COUNT)


def import_iovec(task: Task, addr: int, nr: int) -> list[Iovec]:
    """The vector of readv(2) and friends; what exceeds MAX_RW_COUNT in all is cut off."""
    if not 0 <= nr <= UIO_MAXIOV:
        raise KernelError(Errno.EINVAL, "more than UIO_MAXIOV elements")
    if nr == 0:
        return []
    raw = copy_from_user(user_mm(task), addr, nr * 16)
    vector: list[Iovec] = []
    total = 0
    for base, length in struct.iter_unpack("<QQ", raw):
        if length >> 63:
            raise KernelError(Errno.EINVAL, "negative length in a vector")
        if length and base + length > TASK_SIZE:
            raise KernelError(Errno.EFAULT, "buffer is not in user memory")
        length = min(length, MAX_RW_COUNT - total)
        total += length
        vector.append((base, length))
    return vector


def gather(task: Task, vector: list[Iovec], file: File | None = None) -> bytes:
    """The bytes that the vector names, up to the first bad page as ``file`` takes them (EFAULT if that is nothing)."""
    if file is not None and not file.reads_buffer:
        return bytes(total_length(vector))
    data = _gather_some(task, vector)
    if file is not None and file.unit_bytes > 1 and len(data) < total_length(vector):
        data = data[: len(data) - len(data) % file.unit_bytes]
        if not data:
            raise KernelError(Errno.EFAULT, "bad address in the buffer")
    return data


def _gather_some(task: Task, vector: list[Iovec]) -> bytes:
    mm = user_mm(task)
    parts: list[bytes] = []
    for base, length in vector:
        if not length:
            continue
        data = copy_from_user_some(mm, base, length)
        parts.append(data)
        if len(data) < length:
            if not any(parts):
                raise KernelError(Errno.EFAULT, f"bad address {base:#x}")
            break
    return parts[0] if len(parts) == 1 else b"".join(parts)


def scatter(task: Task, vector: list[Iovec], data: bytes) -> int:
    """Store ``data`` in the vector's buffers; returns how many bytes before the first bad page."""
    mm = user_mm(task)
    done = 0
    for base, length in vector:
        if done >= len(data):
            break
        part = data[done : done + length]
        if not part:
            continue
        stored = copy_to_user_some(mm, base, part)
        done += stored
        if stored < len(part):
            break
    return done


def total_length(vector: list[Iovec]) -> int:
    return sum(length for _base, length in vector)


def store_read(task: Task, file: File, vector: list[Iovec], data: bytes) -> int:
    """Give the program what was read; what cannot be stored goes back to the file."""
    done = scatter(task, vector, data)
    if done < len(data):
        done -= done % file.unit_bytes
        file.unread(data[done:])
        if not done:
            raise KernelError(Errno.EFAULT, "bad buffer")
    return done


def read_then_store(task: Task, file: File, vector: list[Iovec], pending: Blocking[bytes]) -> Blocking[int]:
    """The rest of a read that sleeps."""
    data = yield from pending
    return store_read(task, file, vector, data)


def skip(vector: list[Iovec], nr_bytes: int) -> list[Iovec]:
    """The vector without its first ``nr_bytes``."""
    rest: list[Iovec] = []
    for base, length in vector:
        cut = min(length, nr_bytes)
        nr_bytes -= cut
        if length > cut:
            rest.append((base + cut, length - cut))
    return rest


def head(vector: list[Iovec], nr_bytes: int) -> list[Iovec]:
    """The first ``nr_bytes`` of the vector."""
    first: list[Iovec] = []
    for base, length in vector:
        if nr_bytes <= 0:
            break
        first.append((base, min(length, nr_bytes)))
        nr_bytes -= length
    return first


def read_in_parts(task: Task, file: File, vector: list[Iovec], step: Callable[[int], bytes]) -> int:
    """A large read of a ``bulk`` file: ``step(count)`` reads the next part."""
    done = 0
    while vector:
        part = head(vector, CHUNK)
        wanted = total_length(part)
        try:
            data = step(wanted)
            stored = store_read(task, file, part, data)
        except KernelError:
            if done:
                return done
            raise
        done += stored
        if stored < wanted:
            break
        vector = skip(vector, stored)
    return done


def write_in_parts(task: Task, file: File, vector: list[Iovec]) -> Blocking[int]:
    """A large write: each part may sleep; a short or failed part ends it."""
    done = 0
    while vector:
        part = head(vector, CHUNK)
        try:
            data = gather(task, part, file)
            result = file.write(task, data)
            written = result if isinstance(result, int) else (yield from result)
        except KernelError:
            if done:
                return done
            raise
        done += written
        if written < total_length(part):
            break
        vector = skip(vector, written)
    return done
