"""fcntl(2)'s commands.

Models ``fs/fcntl.c``, and of ``mm/memfd.c`` the seals.

Deliberate difference: no leases (F_SETLEASE: EINVAL).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from kernel.abi.errno import Errno, KernelError
from kernel.abi.fcntl import (
    F_RDLCK,
    F_SEAL_EXEC,
    F_SEAL_GROW,
    F_SEAL_SEAL,
    F_SEAL_SHRINK,
    F_SEAL_WRITE,
    F_UNLCK,
    F_WRLCK,
    FD_CLOEXEC,
    O_ASYNC,
    O_NOATIME,
    SETFL_MASK,
    FcntlCmd,
)
from kernel.fs.fasync import dnotify, set_fasync
from kernel.fs.locks import OFFSET_MAX, PosixLock, lock_context, posix_lock
from kernel.fs.permission import owner_or_capable
from kernel.fs.pipe import PipeFile
from kernel.fs.uio import nofile_limit, user_mm
from kernel.mm.shmem import ShmemInode
from kernel.mm.types import VM_MAYWRITE, VM_SHARED
from kernel.mm.usercopy import copy_from_user, copy_to_user, get_user_u64, put_user_u64

if TYPE_CHECKING:
    from kernel.fs.file import File
    from kernel.fs.files import FilesStruct
    from kernel.task.task import Task
    from kernel.task.waitqueue import Blocking

_FLOCK = struct.Struct("<hhxxxxqqixxxx")
_ALL_SEALS = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | 16 | F_SEAL_EXEC
_OFD = (FcntlCmd.F_OFD_GETLK, FcntlCmd.F_OFD_SETLK, FcntlCmd.F_OFD_SETLKW)
_LOCK_COMMANDS = (FcntlCmd.F_GETLK, FcntlCmd.F_SETLK, FcntlCmd.F_SETLKW, *_OFD)


def do_fcntl(task: Task, fd: int, file: File, cmd: int, arg: int) -> int | Blocking[None] | None:
    files = task.files
    arg_int = (arg & 0xFFFF_FFFF ^ 0x8000_0000) - 0x8000_0000
    if cmd in (FcntlCmd.F_DUPFD, FcntlCmd.F_DUPFD_CLOEXEC):
        limit = nofile_limit(task)
        if not 0 <= arg_int < limit:
            raise KernelError(Errno.EINVAL, "lowest descriptor beyond RLIMIT_NOFILE")
        return files.add(file.get(), cmd == FcntlCmd.F_DUPFD_CLOEXEC, limit, arg_int)
    if cmd == FcntlCmd.F_GETFD:
        return FD_CLOEXEC if files.get_cloexec(fd) else 0
    if cmd == FcntlCmd.F_SETFD:
        files.set_cloexec(fd, arg & FD_CLOEXEC != 0)
        return 0
    if cmd == FcntlCmd.F_GETFL:
        return file.f_flags
    if cmd == FcntlCmd.F_SETFL:
        return _setfl(task, fd, file, arg)
    if cmd == FcntlCmd.F_NOTIFY:
        return dnotify(task, file, fd, arg)
    if cmd in _LOCK_COMMANDS:
        return _lock_command(task, file, cmd, arg)
    if cmd == FcntlCmd.F_DUPFD_QUERY:
        other = files.lookup(arg_int)
        if other is None:
            raise KernelError(Errno.EBADF, "descriptor not open")
        return int(other is file)
    return _rare_command(task, file, cmd, arg, arg_int)


def _rare_command(task: Task, file: File, cmd: int, arg: int, arg_int: int) -> int:
    if cmd == FcntlCmd.F_SETOWN:
        file.f_owner = arg_int
        return 0
    if cmd == FcntlCmd.F_GETOWN:
        return file.f_owner
    if cmd == FcntlCmd.F_SETOWN_EX:
        kind, pid = struct.unpack("<ii", copy_from_user(user_mm(task), arg, 8))
        if not 0 <= kind <= 2:
            raise KernelError(Errno.EINVAL, "unknown owner type")
        file.f_owner = -pid if kind == 2 else pid
        return 0
    if cmd == FcntlCmd.F_GETOWN_EX:
        owner = file.f_owner
        copy_to_user(user_mm(task), arg, struct.pack("<ii", 2 if owner < 0 else 1, abs(owner)))
        return 0
    if cmd == FcntlCmd.F_SETSIG:
        if not 0 <= arg_int <= 64:
            raise KernelError(Errno.EINVAL, "not a signal")
        file.f_sig = arg_int
        return 0
    if cmd == FcntlCmd.F_GETSIG:
        return file.f_sig
    if cmd == FcntlCmd.F_GETLEASE:
        return F_UNLCK
    if cmd in (FcntlCmd.F_SETPIPE_SZ, FcntlCmd.F_GETPIPE_SZ):
        if not isinstance(file, PipeFile):
            raise KernelError(Errno.EBADF, "not a pipe")
        if cmd == FcntlCmd.F_SETPIPE_SZ:
            return file.pipe.set_size(task, arg & 0xFFFF_FFFF)
        return file.pipe.ring_size * 4096
    if cmd == FcntlCmd.F_ADD_SEALS:
        return _add_seals(file, arg & 0xFFFF_FFFF)
    if cmd == FcntlCmd.F_GET_SEALS:
        if file.f_inode.i_seals < 0:
            raise KernelError(Errno.EINVAL, "file cannot be sealed")
        return file.f_inode.i_seals
    if cmd == FcntlCmd.F_GET_RW_HINT:
        put_user_u64(user_mm(task), arg, 0)
        return 0
    if cmd == FcntlCmd.F_SET_RW_HINT:
        if get_user_u64(user_mm(task), arg) > 5:
            raise KernelError(Errno.EINVAL, "unknown hint")
        return 0
    raise KernelError(Errno.EINVAL, f"fcntl command {cmd}")


def _setfl(task: Task, fd: int, file: File, arg: int) -> int:
    if arg & O_NOATIME and not file.f_flags & O_NOATIME and not owner_or_capable(task, file.f_inode):
        raise KernelError(Errno.EPERM, "O_NOATIME on a file of somebody else")
    if (arg ^ file.f_flags) & O_ASYNC:
        set_fasync(task, file, fd, arg & O_ASYNC != 0)
    file.set_flags(arg & SETFL_MASK | file.f_flags & ~SETFL_MASK)
    return 0


def _lock_command(task: Task, file: File, cmd: int, arg: int) -> int | Blocking[None] | None:
    mm = user_mm(task)
    kind, whence, start, length, pid = _FLOCK.unpack(copy_from_user(mm, arg, _FLOCK.size))
    if kind not in (F_RDLCK, F_WRLCK, F_UNLCK):
        raise KernelError(Errno.EINVAL, "unknown lock type")
    first, last = _lock_range(file, whence, start, length)
    ofd = cmd in _OFD
    if ofd and pid:
        raise KernelError(Errno.EINVAL, "l_pid must be 0 for open-file-description locks")
    owner: FilesStruct | File = file if ofd else task.files
    request = PosixLock(owner, -1 if ofd else task.tgid, kind, first, last)
    if cmd in (FcntlCmd.F_GETLK, FcntlCmd.F_OFD_GETLK):
        if kind == F_UNLCK and not ofd:
            raise KernelError(Errno.EINVAL, "unknown lock type")
        blocker = lock_context(file.f_inode).conflict(request) if kind != F_UNLCK else None
        if blocker is None:
            answer = _FLOCK.pack(F_UNLCK, whence, start, length, pid)
        else:
            span = 0 if blocker.end == OFFSET_MAX else blocker.end - blocker.start + 1
            answer = _FLOCK.pack(blocker.type, 0, blocker.start, span, blocker.pid)
        copy_to_user(mm, arg, answer)
        return 0
    if kind == F_RDLCK and not file.readable:
        raise KernelError(Errno.EBADF, "read lock on a file not open for reading")
    if kind == F_WRLCK and not file.writable:
        raise KernelError(Errno.EBADF, "write lock on a file not open for writing")
    return posix_lock(file, request, cmd in (FcntlCmd.F_SETLKW, FcntlCmd.F_OFD_SETLKW))


def _lock_range(file: File, whence: int, start: int, length: int) -> tuple[int, int]:
    """flock64_to_posix_lock(): first and last byte."""
    if whence == 1:
        start += file.f_pos
    elif whence == 2:
        start += file.f_inode.i_size
    elif whence != 0:
        raise KernelError(Errno.EINVAL, "unknown whence")
    if start > OFFSET_MAX:
        raise KernelError(Errno.EOVERFLOW, "lock beyond the largest offset")
    if start < 0:
        raise KernelError(Errno.EINVAL, "lock before the start of the file")
    if length > 0:
        if length - 1 > OFFSET_MAX - start:
            raise KernelError(Errno.EOVERFLOW, "lock beyond the largest offset")
        return start, start + length - 1
    if length < 0:
        if start + length < 0:
            raise KernelError(Errno.EINVAL, "lock before the start of the file")
        return start + length, start - 1
    return start, OFFSET_MAX


def _add_seals(file: File, seals: int) -> int:
    """memfd_add_seals()."""
    inode = file.f_inode
    if not file.writable:
        raise KernelError(Errno.EPERM, "descriptor not open for writing")
    if seals & ~_ALL_SEALS:
        raise KernelError(Errno.EINVAL, "unknown seals")
    if not isinstance(inode, ShmemInode):
        raise KernelError(Errno.EINVAL, "file cannot be sealed")
    if inode.i_seals & F_SEAL_SEAL:
        raise KernelError(Errno.EPERM, "sealed against seals")
    if seals & F_SEAL_WRITE and not inode.i_seals & F_SEAL_WRITE:
        mapping = inode.mapping_if_any
        areas = mapping.i_mmap.overlapping(0, 1 << 52) if mapping is not None else ()
        if any(vma.vm_flags & VM_SHARED and vma.vm_flags & VM_MAYWRITE for vma in areas):
            raise KernelError(Errno.EBUSY, "mapped shared and writable")
    if seals & F_SEAL_EXEC and inode.i_mode & 0o111:
        seals |= F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | 16
    inode.i_seals |= seals
    return 0
