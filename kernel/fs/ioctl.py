"""ioctl(2): what all files understand, then the file's own.

Models ``fs/ioctl.c``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.abi.errno import Errno, KernelError
from kernel.abi.fcntl import O_ASYNC, O_NONBLOCK
from kernel.abi.ioctl import FICLONE, FICLONERANGE, FIGETBSZ, FIOASYNC, FIOCLEX, FIONBIO, FIONCLEX, FIONREAD, FIOQSIZE
from kernel.abi.stat import S_IFDIR, S_IFLNK, S_IFMT, S_IFREG
from kernel.fs.fasync import set_fasync
from kernel.fs.uio import user_mm
from kernel.mm.usercopy import get_user_u32, put_user_u32, put_user_u64

if TYPE_CHECKING:
    from kernel.fs.file import File
    from kernel.task.task import Task
    from kernel.task.waitqueue import Blocking

_FS_IOC_FIEMAP = 0xC020660B


def do_ioctl(task: Task, fd: int, file: File, cmd: int, arg: int) -> int | Blocking[int]:
    if cmd in (FIOCLEX, FIONCLEX):
        task.files.set_cloexec(fd, cmd == FIOCLEX)
        return 0
    if cmd in (FIONBIO, FIOASYNC):
        bit = O_NONBLOCK if cmd == FIONBIO else O_ASYNC
        on = get_user_u32(user_mm(task), arg) != 0
        if cmd == FIOASYNC:
            set_fasync(task, file, fd, on)
        file.set_flags(file.f_flags | bit if on else file.f_flags & ~bit)
        return 0
    kind = file.f_inode.i_mode & S_IFMT
    if cmd == FIOQSIZE:
        if kind not in (S_IFDIR, S_IFREG, S_IFLNK):
            raise KernelError(Errno.ENOTTY, "FIOQSIZE of a special file")
        put_user_u64(user_mm(task), arg, file.f_inode.i_size)
        return 0
    if cmd == FIGETBSZ:
        put_user_u32(user_mm(task), arg, file.f_inode.i_sb.s_blocksize)
        return 0
    if kind == S_IFREG:
        if cmd == FIONREAD:
            put_user_u32(user_mm(task), arg, file.f_inode.i_size - file.f_pos)
            return 0
        if cmd in (FICLONE, FICLONERANGE, _FS_IOC_FIEMAP):
            raise KernelError(Errno.EOPNOTSUPP, "the file system has no extents to share or show")
    return file.ioctl(task, cmd, arg)
