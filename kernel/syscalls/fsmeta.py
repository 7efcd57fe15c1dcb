"""What is known about files: stat(2), access(2), chmod(2), chown(2), utimensat(2), statfs(2), readlink(2), xattr(7).

Models ``fs/stat.c``, ``fs/open.c``, ``fs/utimes.c``, ``fs/statfs.c`` and ``fs/xattr.c``.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Annotated

from kernel.abi.errno import Errno, KernelError
from kernel.abi.fcntl import (
    AT_EACCESS,
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_NO_AUTOMOUNT,
    AT_STATX_SYNC_TYPE,
    AT_SYMLINK_NOFOLLOW,
    MAY_EXEC,
    MAY_WRITE,
    AccessAtFlags,
    AccessMode,
    AtFlags,
)
from kernel.abi.mount import MS_NOEXEC
from kernel.abi.stat import (
    S_IFLNK,
    S_IFMT,
    S_IFREG,
    ST_VALID,
    STATX_ATTR_MOUNT_ROOT,
    STATX_BTIME,
    STATX_RESERVED,
    UNKNOWN_TIME,
    Kstatfs,
    StatxMask,
    pack_stat,
    pack_statfs,
    pack_statx,
)
from kernel.fs import dcache
from kernel.fs.attr import UTIME_NOW, UTIME_OMIT, do_chmod, do_chown, do_ftruncate, do_truncate, do_utimes
from kernel.fs.namei import LOOKUP_EMPTY, LOOKUP_FOLLOW, path_lookup
from kernel.fs.permission import inode_permission
from kernel.fs.uio import getname, user_mm
from kernel.mm.usercopy import copy_from_user, copy_to_user
from kernel.syscalls.table import INT, BufOut, Fd, Int, Mode, Offset, Path, StructOut, UInt, UserAddr, syscall

if TYPE_CHECKING:
    from kernel.task.cred import Cred
    from kernel.task.task import Task

_NS_PER_SEC = 1_000_000_000
Uid = UInt


def _lookup(task: Task, dfd: int, filename: int, at_flags: int, follow: bool) -> dcache.Path:
    """The place that a *at call means; ``follow``: a symbolic link at the end."""
    flags = LOOKUP_FOLLOW if follow else 0
    if at_flags & AT_EMPTY_PATH:
        flags |= LOOKUP_EMPTY
        if not filename:  # a NULL path is an empty one (Linux 6.11)
            return path_lookup(task.kernel.vfs, task, dfd, b"", flags)
    return path_lookup(task.kernel.vfs, task, dfd, getname(task, filename), flags)


# ---- stat -----------------------------------------------------------------------------------------------------------


@syscall("stat", x86_64=4, i386=None, group="file")
def sys_stat(task: Task, filename: Path, statbuf: StructOut("stat")) -> None:  # type: ignore[valid-type]
    """What a file is, following links."""
    path = path_lookup(task.kernel.vfs, task, AT_FDCWD, getname(task, filename), LOOKUP_FOLLOW)
    copy_to_user(user_mm(task), statbuf, pack_stat(path.dentry.d_inode.getattr()))


@syscall("lstat", x86_64=6, i386=None, group="file")
def sys_lstat(task: Task, filename: Path, statbuf: StructOut("stat")) -> None:  # type: ignore[valid-type]
    """What a file is, links themselves."""
    path = path_lookup(task.kernel.vfs, task, AT_FDCWD, getname(task, filename), 0)
    copy_to_user(user_mm(task), statbuf, pack_stat(path.dentry.d_inode.getattr()))


@syscall("fstat", x86_64=5, i386=None, group="desc")
def sys_fstat(task: Task, fd: Fd, statbuf: StructOut("stat")) -> None:  # type: ignore[valid-type]
    """What an open file is."""
    copy_to_user(user_mm(task), statbuf, pack_stat(task.files.get_raw(fd).f_inode.getattr()))


@syscall("newfstatat", x86_64=262, i386=None, group="file")
def sys_newfstatat(
    task: Task,
    dfd: Fd,
    filename: Path,
    statbuf: StructOut("stat"),  # type: ignore[valid-type]
    flag: Annotated[AtFlags, INT],
) -> None:
    """What a file is, relative to a directory."""
    if flag & ~(AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH | AT_STATX_SYNC_TYPE):
        raise KernelError(Errno.EINVAL, "unknown flags")
    path = _lookup(task, dfd, filename, flag, not flag & AT_SYMLINK_NOFOLLOW)
    copy_to_user(user_mm(task), statbuf, pack_stat(path.dentry.d_inode.getattr()))


@syscall("statx", x86_64=332, i386=383, group="file")
def sys_statx(
    task: Task,
    dfd: Fd,
    filename: Path,
    flags: Annotated[AtFlags, INT],
    mask: StatxMask,
    buffer: StructOut("statx"),  # type: ignore[valid-type]
) -> None:
    """What a file is, with time of birth and mount."""
    if mask & STATX_RESERVED or flags & AT_STATX_SYNC_TYPE == AT_STATX_SYNC_TYPE:
        raise KernelError(Errno.EINVAL, "reserved mask, or both synchronization types")
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH | AT_STATX_SYNC_TYPE):
        raise KernelError(Errno.EINVAL, "unknown flags")
    path = _lookup(task, dfd, filename, flags, not flags & AT_SYMLINK_NOFOLLOW)
    inode = path.dentry.d_inode
    stat = inode.getattr()
    if mask & STATX_BTIME and stat.btime == UNKNOWN_TIME:
        stat = stat._replace(btime=inode.btime())
    attributes = stat.attributes | (STATX_ATTR_MOUNT_ROOT if path.dentry is path.mnt.mnt_root else 0)
    copy_to_user(user_mm(task), buffer, pack_statx(stat._replace(mnt_id=path.mnt.mnt_id, attributes=attributes)))


@syscall("readlink", x86_64=89, i386=85, group="file", returns="size")
def sys_readlink(task: Task, path: Path, buf: BufOut, bufsiz: Int) -> int:
    """Where a symbolic link leads."""
    return _readlinkat(task, AT_FDCWD, path, buf, bufsiz)


@syscall("readlinkat", x86_64=267, i386=305, group="file", returns="size")
def sys_readlinkat(task: Task, dfd: Fd, path: Path, buf: BufOut, bufsiz: Int) -> int:
    """Where a symbolic link leads, relative to a directory."""
    return _readlinkat(task, dfd, path, buf, bufsiz)


def _readlinkat(task: Task, dfd: int, path: int, buf: int, bufsiz: int) -> int:
    if bufsiz <= 0:
        raise KernelError(Errno.EINVAL, "no room for the answer")
    name = getname(task, path)
    place = path_lookup(task.kernel.vfs, task, dfd, name, LOOKUP_EMPTY if dfd != AT_FDCWD else 0)
    inode = place.dentry.d_inode
    if inode.i_mode & S_IFMT != S_IFLNK:
        raise KernelError(Errno.ENOENT if not name else Errno.EINVAL, "not a symbolic link")
    inode.touch_atime()
    target = inode.readlink(task)[:bufsiz]
    copy_to_user(user_mm(task), buf, target)
    return len(target)


# ---- access ---------------------------------------------------------------------------------------------------------


def _faccessat(task: Task, dfd: int, filename: int, mode: int, flags: int) -> None:
    if mode & ~7 or flags & ~(AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        raise KernelError(Errno.EINVAL, "unknown mode or flags")
    effective = task.creds
    if not flags & AT_EACCESS:
        task.creds = _real_creds(task)
    try:
        path = _lookup(task, dfd, filename, flags, not flags & AT_SYMLINK_NOFOLLOW)
        inode = path.dentry.d_inode
        if mode & MAY_EXEC and inode.i_mode & S_IFMT == S_IFREG and path.mnt.mnt_flags & MS_NOEXEC:
            raise KernelError(Errno.EACCES, "noexec mount")
        if mode:
            inode_permission(task, inode, mode, path.mnt if mode & MAY_WRITE else None)
    finally:
        task.creds = effective


def _real_creds(task: Task) -> Cred:
    """access_override_creds(): the real ids, and root's capabilities only for a real root."""
    creds = task.creds
    if creds.fsuid == creds.uid and creds.fsgid == creds.gid and creds.cap_effective == creds.cap_permitted:
        return creds
    creds = creds.copy()
    creds.fsuid, creds.fsgid = creds.uid, creds.gid
    creds.cap_effective = creds.cap_permitted if creds.uid == 0 else 0
    return creds


@syscall("access", x86_64=21, i386=33, group="file")
def sys_access(task: Task, filename: Path, mode: Annotated[AccessMode, INT]) -> None:
    """May the real user read, write or execute a file?"""
    _faccessat(task, AT_FDCWD, filename, mode, 0)


@syscall("faccessat", x86_64=269, i386=307, group="file")
def sys_faccessat(task: Task, dfd: Fd, filename: Path, mode: Annotated[AccessMode, INT]) -> None:
    """As access, relative to a directory."""
    _faccessat(task, dfd, filename, mode, 0)


@syscall("faccessat2", x86_64=439, i386=439, group="file")
def sys_faccessat2(
    task: Task, dfd: Fd, filename: Path, mode: Annotated[AccessMode, INT], flags: Annotated[AccessAtFlags, INT]
) -> None:
    """As faccessat, possibly for the effective user or a link itself."""
    _faccessat(task, dfd, filename, mode, flags)


# ---- mode and owner -------------------------------------------------------------------------------------------------


@syscall("umask", x86_64=95, i386=60, group="file")
def sys_umask(task: Task, mask: Mode) -> int:
    """Set the mask for new files' modes; returns the old one."""
    old = task.fs.umask
    task.fs.umask = mask & 0o777
    return old


@syscall("chmod", x86_64=90, i386=15, group="file")
def sys_chmod(task: Task, filename: Path, mode: Mode) -> None:
    """Change a file's mode."""
    do_chmod(task, _lookup(task, AT_FDCWD, filename, 0, True), mode)


@syscall("fchmod", x86_64=91, i386=94, group="desc")
def sys_fchmod(task: Task, fd: Fd, mode: Mode) -> None:
    """Change an open file's mode."""
    do_chmod(task, task.files.get(fd).f_path, mode)


@syscall("fchmodat", x86_64=268, i386=306, group="file")
def sys_fchmodat(task: Task, dfd: Fd, filename: Path, mode: Mode) -> None:
    """Change a file's mode, relative to a directory."""
    do_chmod(task, _lookup(task, dfd, filename, 0, True), mode)


@syscall("fchmodat2", x86_64=452, i386=452, group="file")
def sys_fchmodat2(task: Task, dfd: Fd, filename: Path, mode: Mode, flags: AtFlags) -> None:
    """As fchmodat, possibly for a link itself (EOPNOTSUPP) or an open file."""
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        raise KernelError(Errno.EINVAL, "unknown flags")
    do_chmod(task, _lookup(task, dfd, filename, flags, not flags & AT_SYMLINK_NOFOLLOW), mode)


@syscall("chown", x86_64=92, i386=None, group="file")
def sys_chown(task: Task, filename: Path, user: Uid, group: Uid) -> None:
    """Change a file's owner and group."""
    do_chown(task, _lookup(task, AT_FDCWD, filename, 0, True), user, group)


@syscall("lchown", x86_64=94, i386=None, group="file")
def sys_lchown(task: Task, filename: Path, user: Uid, group: Uid) -> None:
    """Change the owner and group of a file or a link itself."""
    do_chown(task, _lookup(task, AT_FDCWD, filename, 0, False), user, group)


@syscall("fchown", x86_64=93, i386=None, group="desc")
def sys_fchown(task: Task, fd: Fd, user: Uid, group: Uid) -> None:
    """Change an open file's owner and group."""
    do_chown(task, task.files.get(fd).f_path, user, group)


@syscall("fchownat", x86_64=260, i386=298, group="file")
def sys_fchownat(
    task: Task, dfd: Fd, filename: Path, user: Uid, group: Uid, flag: Annotated[AtFlags, INT]
) -> None:
    """Change a file's owner and group, relative to a directory."""
    if flag & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        raise KernelError(Errno.EINVAL, "unknown flags")
    do_chown(task, _lookup(task, dfd, filename, flag, not flag & AT_SYMLINK_NOFOLLOW), user, group)


# ---- sizes ----------------------------------------------------------------------------------------------------------


@syscall("truncate", x86_64=76, i386=None, group="file")
def sys_truncate(task: Task, path: Path, length: Offset) -> None:
    """Set a file's size."""
    if length < 0:
        raise KernelError(Errno.EINVAL, "negative length")
    do_truncate(task, _lookup(task, AT_FDCWD, path, 0, True), length)


@syscall("ftruncate", x86_64=77, i386=None, group="desc")
def sys_ftruncate(task: Task, fd: Fd, length: Offset) -> None:
    """Set an open file's size."""
    if length < 0:
        raise KernelError(Errno.EINVAL, "negative length")
    do_ftruncate(task, task.files.get(fd), length)


# ---- times ----------------------------------------------------------------------------------------------------------


def _set_times(task: Task, path: dcache.Path, times: tuple[tuple[int, int], tuple[int, int]] | None) -> None:
    """``times``: (seconds, nanoseconds or UTIME_*) of access and of modification; None: now."""
    now = task.kernel.clock.realtime_ns()
    if times is None:
        do_utimes(task, path, now, now, explicit=False)
        return
    values: list[int | None] = []
    for seconds, nanoseconds in times:
        if nanoseconds == UTIME_OMIT:
            values.append(None)
        elif nanoseconds == UTIME_NOW:
            values.append(now)
        elif 0 <= nanoseconds < _NS_PER_SEC:
            values.append(seconds * _NS_PER_SEC + nanoseconds)
        else:
            raise KernelError(Errno.EINVAL, "nanoseconds out of range")
    if values == [None, None]:
        return
    explicit = not all(nanoseconds == UTIME_NOW for _seconds, nanoseconds in times)
    do_utimes(task, path, values[0], values[1], explicit)


def _time_pair(task: Task, address: int, unit_ns: int) -> tuple[tuple[int, int], tuple[int, int]] | None:
    if not address:
        return None
    a, b, c, d = struct.unpack("<qqqq", copy_from_user(user_mm(task), address, 32))
    if unit_ns != 1:
        if not (0 <= b < 1_000_000 and 0 <= d < 1_000_000):
            raise KernelError(Errno.EINVAL, "microseconds out of range")
        b, d = b * unit_ns, d * unit_ns
    return (a, b), (c, d)


@syscall("utimensat", x86_64=280, i386=None, group="file")
def sys_utimensat(
    task: Task, dfd: Fd, filename: Path, utimes: UserAddr, flags: Annotated[AtFlags, INT]
) -> None:
    """Set a file's times in nanoseconds; no path: those of the open file."""
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        raise KernelError(Errno.EINVAL, "unknown flags")
    times = _time_pair(task, utimes, 1)
    if times is not None and times[0][1] == UTIME_OMIT and times[1][1] == UTIME_OMIT:
        return
    if not filename and dfd != AT_FDCWD:
        if flags & ~AT_EMPTY_PATH:
            raise KernelError(Errno.EINVAL, "flags without a path")
        _set_times(task, task.files.get(dfd).f_path, times)
        return
    _set_times(task, _lookup(task, dfd, filename, flags, not flags & AT_SYMLINK_NOFOLLOW), times)


@syscall("futimesat", x86_64=261, i386=None, group="file")
def sys_futimesat(task: Task, dfd: Fd, filename: Path, utimes: UserAddr) -> None:
    """Set a file's times in microseconds, relative to a directory."""
    times = _time_pair(task, utimes, 1000)
    path = task.files.get(dfd).f_path if not filename else _lookup(task, dfd, filename, 0, True)
    _set_times(task, path, times)


@syscall("utimes", x86_64=235, i386=None, group="file")
def sys_utimes(task: Task, filename: Path, utimes: UserAddr) -> None:
    """Set a file's times in microseconds."""
    times = _time_pair(task, utimes, 1000)
    _set_times(task, _lookup(task, AT_FDCWD, filename, 0, True), times)


@syscall("utime", x86_64=132, i386=None, group="file")
def sys_utime(task: Task, filename: Path, times: UserAddr) -> None:
    """Set a file's times in seconds."""
    pair = None
    if times:
        atime, mtime = struct.unpack("<qq", copy_from_user(user_mm(task), times, 16))
        pair = (atime, 0), (mtime, 0)
    _set_times(task, _lookup(task, AT_FDCWD, filename, 0, True), pair)


# ---- file systems ---------------------------------------------------------------------------------------------------


def _statfs(path: dcache.Path) -> Kstatfs:
    stat = path.dentry.d_sb.statfs(path.dentry)
    return stat._replace(flags=stat.flags | _statfs_flags(path.mnt.mnt_flags) | ST_VALID)


def _statfs_flags(mnt_flags: int) -> int:
    """calculate_f_flags(): ST_* from MS_*."""
    flags = mnt_flags & 0xF | mnt_flags & 0xC00
    return flags | (0x1000 if mnt_flags >> 21 & 1 else 0)


@syscall("statfs", x86_64=137, i386=None, group="file")
def sys_statfs(task: Task, pathname: Path, buf: StructOut("statfs")) -> None:  # type: ignore[valid-type]
    """What the file system of a path is."""
    copy_to_user(user_mm(task), buf, pack_statfs(_statfs(_lookup(task, AT_FDCWD, pathname, 0, True))))


@syscall("fstatfs", x86_64=138, i386=None, group="desc")
def sys_fstatfs(task: Task, fd: Fd, buf: StructOut("statfs")) -> None:  # type: ignore[valid-type]
    """What the file system of an open file is."""
    copy_to_user(user_mm(task), buf, pack_statfs(_statfs(task.files.get_raw(fd).f_path)))


@syscall("ustat", x86_64=136, i386=62, group="file")
def sys_ustat(task: Task, dev: UInt, ubuf: UserAddr) -> None:
    """Old: free space of a mounted file system by device number."""
    for sb in task.kernel.vfs.superblocks:
        if sb.s_dev == dev and sb.s_root is not None:
            stat = sb.statfs(sb.s_root)
            record = struct.pack("<iQ6s6s", stat.bfree & 0x7FFFFFFF, stat.ffree, b"", b"")
            copy_to_user(user_mm(task), ubuf, record.ljust(32, b"\0"))
            return
    raise KernelError(Errno.EINVAL, "no such device is mounted")


@syscall("sysfs", x86_64=139, i386=135, group="misc")
def sys_sysfs(task: Task, option: Int, arg1: UserAddr, arg2: UserAddr) -> int:
    """Old: the file systems that the kernel knows."""
    from kernel.fs.do_mount import FILESYSTEMS

    names = list(FILESYSTEMS)
    if option == 1:
        name = getname(task, arg1).decode("utf-8", "replace")
        if name not in names:
            raise KernelError(Errno.EINVAL, "unknown file system")
        return names.index(name)
    if option == 2:
        if arg1 >= len(names):
            raise KernelError(Errno.EINVAL, "no such index")
        copy_to_user(user_mm(task), arg2, names[arg1].encode() + b"\0")
        return 0
    if option == 3:
        return len(names)
    raise KernelError(Errno.EINVAL, "unknown option")
