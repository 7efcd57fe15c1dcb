"""Descriptors: open(2), close(2), dup(2), fcntl(2), ioctl(2), flock(2), pipe(2), memfd_create(2).

Models ``fs/open.c``, ``fs/file.c``, ``fs/fcntl.c``, ``fs/ioctl.c``, ``fs/locks.c``, ``fs/pipe.c``, ``mm/memfd.c``.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Annotated, Any

from kernel.abi.errno import Errno, KernelError
from kernel.abi.fcntl import (
    AT_FDCWD,
    CLOSE_RANGE_CLOEXEC,
    CLOSE_RANGE_UNSHARE,
    LOCK_EX,
    LOCK_NB,
    LOCK_SH,
    LOCK_UN,
    MFD_ALLOW_SEALING,
    MFD_CLOEXEC,
    MFD_EXEC,
    MFD_HUGETLB,
    MFD_NOEXEC_SEAL,
    O_CLOEXEC,
    O_CREAT,
    O_DIRECT,
    O_LARGEFILE,
    O_NONBLOCK,
    O_PATH,
    O_TMPFILE_BIT,
    O_TRUNC,
    O_WRONLY,
    RESOLVE_BENEATH,
    RESOLVE_CACHED,
    RESOLVE_IN_ROOT,
    CloseRangeFlags,
    FcntlCmd,
    FlockOp,
    MemfdFlags,
    OpenFlags,
)
from kernel.fs.fcntl import do_fcntl
from kernel.fs.file import File, PathFile
from kernel.fs.files import FilesStruct
from kernel.fs.ioctl import do_ioctl
from kernel.fs.locks import flock_lock
from kernel.fs.open import do_filp_open
from kernel.fs.pipe import create_pipe
from kernel.fs.uio import fd_install, getname, nofile_limit, user_mm
from kernel.mm.shmem import ShmemInode, shmem_file_setup
from kernel.mm.usercopy import copy_from_user, copy_to_user, strncpy_from_user
from kernel.syscalls.table import INT, Fd, Mode, Path, Size, StructIn, UInt, ULong, UserAddr, syscall

if TYPE_CHECKING:
    from kernel.task.task import Task
    from kernel.task.waitqueue import Blocking

_OPEN = Annotated[OpenFlags, INT]
_RESOLVE_FLAGS = 0x3F
_MFD_NAME_MAX = 249


# ---- opening and closing --------------------------------------------------------------------------------------------


def _finish_open(task: Task, opened: Any, cloexec: bool) -> Any:
    if isinstance(opened, File):
        return fd_install(task, opened, cloexec)
    return _install_when_open(task, opened, cloexec)


def _install_when_open(task: Task, pending: Blocking[File], cloexec: bool) -> Blocking[int]:
    file = yield from pending
    return fd_install(task, file, cloexec)


def _do_sys_open(task: Task, dirfd: int, filename: int, flags: int, mode: int) -> Any:
    name = getname(task, filename)
    task.files.alloc_fd(0, nofile_limit(task))  # EMFILE comes before anything is created
    opened = do_filp_open(task.kernel.vfs, task, dirfd, name, flags | O_LARGEFILE, mode, 0)
    return _finish_open(task, opened, flags & O_CLOEXEC != 0)


@syscall("open", x86_64=2, i386=5, group="file", returns="fd")
def sys_open(task: Task, filename: Path, flags: _OPEN, mode: Mode) -> Any:
    """Open, and possibly create, a file."""
    return _do_sys_open(task, AT_FDCWD, filename, flags, mode)


@syscall("openat", x86_64=257, i386=295, group="file", returns="fd")
def sys_openat(task: Task, dfd: Fd, filename: Path, flags: _OPEN, mode: Mode) -> Any:
    """Open relative to a directory."""
    return _do_sys_open(task, dfd, filename, flags, mode)


@syscall("creat", x86_64=85, i386=8, group="file", returns="fd")
def sys_creat(task: Task, pathname: Path, mode: Mode) -> Any:
    """Create or truncate a file and open it for writing."""
    return _do_sys_open(task, AT_FDCWD, pathname, O_CREAT | O_WRONLY | O_TRUNC, mode)


@syscall("openat2", x86_64=437, i386=437, group="file", returns="fd")
def sys_openat2(task: Task, dfd: Fd, filename: Path, how: StructIn("open_how"), size: Size) -> Any:  # type: ignore[valid-type]
    """Open with rules for the walk."""
    if size < 24:
        raise KernelError(Errno.EINVAL, "open_how too small")
    if size > 4096:
        raise KernelError(Errno.E2BIG, "open_how too large")
    raw = copy_from_user(user_mm(task), how, size)
    if any(raw[24:]):
        raise KernelError(Errno.E2BIG, "unknown fields of open_how are set")
    flags, mode, resolve = struct.unpack_from("<QQQ", raw)
    if resolve & ~_RESOLVE_FLAGS or resolve & (RESOLVE_BENEATH | RESOLVE_IN_ROOT) == RESOLVE_BENEATH | RESOLVE_IN_ROOT:
        raise KernelError(Errno.EINVAL, "resolve flags")
    if resolve & RESOLVE_CACHED and flags & (O_TRUNC | O_CREAT | O_TMPFILE_BIT):
        raise KernelError(Errno.EAGAIN, "RESOLVE_CACHED cannot change anything")
    if not flags & O_PATH:
        flags |= O_LARGEFILE
    name = getname(task, filename)
    task.files.alloc_fd(0, nofile_limit(task))
    opened = do_filp_open(task.kernel.vfs, task, dfd, name, flags, mode, resolve, strict=True)
    return _finish_open(task, opened, flags & O_CLOEXEC != 0)


@syscall("close", x86_64=3, i386=6, group="desc")
def sys_close(task: Task, fd: Fd) -> None:
    """Close a descriptor."""
    task.files.close(fd)


@syscall("close_range", x86_64=436, i386=436, group="desc")
def sys_close_range(task: Task, first: UInt, last: UInt, flags: CloseRangeFlags) -> None:
    """Close, or mark close-on-exec, all descriptors in a range."""
    if flags & ~(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC) or first > last:
        raise KernelError(Errno.EINVAL, "unknown flags or an empty range")
    files = task.files
    if flags & CLOSE_RANGE_UNSHARE and files.refs > 1:
        task.files = files.copy()
        files.put()
        files = task.files
    for fd, _file in list(files):
        if first <= fd <= last:
            if flags & CLOSE_RANGE_CLOEXEC:
                files.set_cloexec(fd, True)
            else:
                _close_quietly(files, fd)


def _close_quietly(files: FilesStruct, fd: int) -> None:
    try:
        files.close(fd)
    except KernelError:
        return


# ---- duplicating ----------------------------------------------------------------------------------------------------


@syscall("dup", x86_64=32, i386=41, group="desc", returns="fd")
def sys_dup(task: Task, fildes: Fd) -> int:
    """A second descriptor for an open file."""
    return fd_install(task, task.files.get_raw(fildes).get(), False)


@syscall("dup2", x86_64=33, i386=63, group="desc", returns="fd")
def sys_dup2(task: Task, oldfd: Fd, newfd: Fd) -> int:
    """Make a given descriptor a copy of another."""
    if oldfd == newfd:
        task.files.get_raw(oldfd)
        return newfd
    return task.files.dup2(oldfd, newfd, False, nofile_limit(task))


@syscall("dup3", x86_64=292, i386=330, group="desc", returns="fd")
def sys_dup3(task: Task, oldfd: Fd, newfd: Fd, flags: _OPEN) -> int:
    """As dup2, with O_CLOEXEC, and an error when both are the same."""
    if flags & ~O_CLOEXEC or oldfd == newfd:
        raise KernelError(Errno.EINVAL, "unknown flags or equal descriptors")
    return task.files.dup2(oldfd, newfd, flags & O_CLOEXEC != 0, nofile_limit(task))


# ---- fcntl, ioctl, flock --------------------------------------------------------------------------------------------

_PATH_COMMANDS = (FcntlCmd.F_DUPFD, FcntlCmd.F_DUPFD_CLOEXEC, FcntlCmd.F_GETFD, FcntlCmd.F_SETFD, FcntlCmd.F_GETFL)


@syscall("fcntl", x86_64=72, i386=None, group="desc")
def sys_fcntl(task: Task, fd: Fd, cmd: FcntlCmd, arg: ULong) -> Any:
    """Descriptor and file flags, record locks, pipe sizes, seals."""
    file = task.files.get_raw(fd)
    if isinstance(file, PathFile) and cmd not in _PATH_COMMANDS:
        raise KernelError(Errno.EBADF, "descriptor opened with O_PATH")
    return do_fcntl(task, fd, file, cmd, arg)


@syscall("ioctl", x86_64=16, i386=54, group="desc")
def sys_ioctl(task: Task, fd: Fd, cmd: UInt, arg: ULong) -> Any:
    """Device-specific requests."""
    return do_ioctl(task, fd, task.files.get(fd), cmd, arg)


@syscall("flock", x86_64=73, i386=143, group="desc")
def sys_flock(task: Task, fd: Fd, operation: Annotated[FlockOp, INT]) -> Any:
    """Lock or unlock a whole file."""
    kind = operation & ~LOCK_NB
    if kind not in (LOCK_SH, LOCK_EX, LOCK_UN):
        raise KernelError(Errno.EINVAL, "unknown operation")
    file = task.files.get(fd)
    if kind != LOCK_UN and not (file.readable or file.writable):
        raise KernelError(Errno.EBADF, "descriptor open for nothing")
    return flock_lock(file, 0 if kind == LOCK_UN else kind, operation & LOCK_NB != 0)


# ---- new files without names ----------------------------------------------------------------------------------------


def _pipe(task: Task, address: int, flags: int) -> int:
    if flags & ~(O_CLOEXEC | O_NONBLOCK | O_DIRECT):
        raise KernelError(Errno.EINVAL, "unknown flags")
    read_end, write_end = create_pipe(task, flags)
    cloexec = flags & O_CLOEXEC != 0
    files = task.files
    fds: list[int] = []
    try:
        fds.append(fd_install(task, read_end, cloexec))
        fds.append(fd_install(task, write_end, cloexec))
        copy_to_user(user_mm(task), address, struct.pack("<ii", *fds))
    except KernelError:
        for fd in fds:
            files.close(fd)
        if not fds:
            _drop(write_end)
        raise
    return 0


def _drop(file: File) -> None:
    from kernel.fs.file import fput

    fput(file)


@syscall("pipe", x86_64=22, i386=42, group="desc")
def sys_pipe(task: Task, fildes: UserAddr) -> int:
    """A pipe: descriptors to read from and to write to."""
    return _pipe(task, fildes, 0)


@syscall("pipe2", x86_64=293, i386=331, group="desc")
def sys_pipe2(task: Task, fildes: UserAddr, flags: _OPEN) -> int:
    """As pipe, with O_CLOEXEC, O_NONBLOCK and O_DIRECT (packets)."""
    return _pipe(task, fildes, flags)


@syscall("memfd_create", x86_64=319, i386=356, group="desc", returns="fd")
def sys_memfd_create(task: Task, uname: Path, flags: MemfdFlags) -> int:
    """A file that lives in memory and has no name."""
    if flags & ~(MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB | MFD_NOEXEC_SEAL | MFD_EXEC):
        raise KernelError(Errno.EINVAL, "unknown flags")
    if flags & MFD_EXEC and flags & MFD_NOEXEC_SEAL:
        raise KernelError(Errno.EINVAL, "MFD_EXEC and MFD_NOEXEC_SEAL")
    name = strncpy_from_user(user_mm(task), uname, _MFD_NAME_MAX + 1)
    if len(name) > _MFD_NAME_MAX:
        raise KernelError(Errno.EINVAL, "name too long")
    if flags & MFD_HUGETLB:
        raise KernelError(Errno.ENOSYS, "no huge pages")
    file = shmem_file_setup(task.kernel, "memfd:" + name.decode("utf-8", "surrogateescape"), 0)
    file.f_flags |= O_LARGEFILE
    inode = file.f_inode
    assert isinstance(inode, ShmemInode)
    if flags & MFD_NOEXEC_SEAL:
        inode.i_mode &= ~0o111
        inode.i_seals = 32  # F_SEAL_EXEC, and sealing is allowed
    elif flags & MFD_ALLOW_SEALING:
        inode.i_seals = 0
    return fd_install(task, file, flags & MFD_CLOEXEC != 0)


@syscall("vhangup", x86_64=153, i386=111, group="misc")
def sys_vhangup(task: Task) -> None:
    """Hang up the controlling terminal: for CAP_SYS_TTY_CONFIG, and there is nothing to do."""
    from kernel.fs.permission import CAP_SYS_TTY_CONFIG, capable

    if not capable(task, CAP_SYS_TTY_CONFIG):
        raise KernelError(Errno.EPERM, "needs CAP_SYS_TTY_CONFIG")
    if task.signal.tty is not None:
        task.signal.tty.hangup()
