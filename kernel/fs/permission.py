"""Who may do what with a file: mode bits, sticky directories, capabilities.

Models ``fs/namei.c`` (``inode_permission``, ``may_delete``, ``may_create``), ``fs/inode.c``
(``inode_owner_or_capable``) and ``include/linux/fs.h``.  A task of None stands for the kernel itself, which may do
everything.

Deliberate difference: no access control lists, no security modules, one user namespace.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kernel.abi.errno import Errno, KernelError
from kernel.abi.fcntl import MAY_EXEC, MAY_READ, MAY_WRITE
from kernel.abi.stat import S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, S_ISGID, S_ISVTX, S_IXGRP

if TYPE_CHECKING:
    from kernel.fs.dcache import Mount
    from kernel.fs.inode import Inode
    from kernel.task.cred import Cred
    from kernel.task.task import Task

CAP_CHOWN = 0
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2
CAP_FOWNER = 3
CAP_FSETID = 4
CAP_NET_BIND_SERVICE = 10
CAP_SYS_CHROOT = 18
CAP_SYS_ADMIN = 21
CAP_SYS_RESOURCE = 24
CAP_SYS_TTY_CONFIG = 26
CAP_MKNOD = 27
CAP_LEASE = 28

MNT_RDONLY = 1


class Owner(NamedTuple):
    """Who owns what is being created (fsuid and fsgid of the caller)."""

    uid: int
    gid: int


def capable(task: Task | None, cap: int) -> bool:
    return task is None or task.creds.cap_effective >> cap & 1 != 0


def in_group(creds: Cred, gid: int) -> bool:
    """in_group_p(): is ``gid`` the file-system group or a supplementary one?"""
    return gid == creds.fsgid or gid in creds.groups


def generic_permission(task: Task | None, inode: Inode, mask: int) -> bool:
    """May ``task`` do ``mask`` (MAY_READ | MAY_WRITE | MAY_EXEC) with ``inode``, by mode bits and capabilities?"""
    if task is None:
        return True
    creds = task.creds
    mode = inode.i_mode
    if creds.fsuid == inode.i_uid:
        bits = mode >> 6
    elif in_group(creds, inode.i_gid):
        bits = mode >> 3
    else:
        bits = mode
    if mask & ~bits & 7 == 0:
        return True
    capabilities = creds.cap_effective
    override = capabilities >> CAP_DAC_OVERRIDE & 1
    read_search = capabilities >> CAP_DAC_READ_SEARCH & 1
    if mode & S_IFMT == S_IFDIR:
        return bool(override or (read_search and not mask & MAY_WRITE))
    if read_search and mask == MAY_READ:
        return True
    return bool(override and (not mask & MAY_EXEC or mode & 0o111))


def inode_permission(task: Task | None, inode: Inode, mask: int, mnt: Mount | None = None) -> None:
    """EACCES, or EROFS for writing where the mount is read-only, unless ``mask`` is allowed."""
    if mask & MAY_WRITE and mnt is not None:
        check_writable(mnt, inode)
    if not inode.permission(task, mask):
        raise KernelError(Errno.EACCES, "permission bits of the file")


def check_writable(mnt: Mount, inode: Inode | None = None) -> None:
    """EROFS when nothing may change on this mount (devices, pipes and sockets may be written)."""
    if mnt.mnt_flags & MNT_RDONLY and (inode is None or inode.i_mode & S_IFMT in (S_IFREG, S_IFDIR, S_IFLNK)):
        raise KernelError(Errno.EROFS, "read-only mount")


def owner_or_capable(task: Task | None, inode: Inode) -> bool:
    """inode_owner_or_capable()."""
    return task is None or task.creds.fsuid == inode.i_uid or capable(task, CAP_FOWNER)


def may_create(task: Task | None, mnt: Mount, directory: Inode) -> None:
    """May a name be added to ``directory``?"""
    if directory.i_nlink == 0:
        raise KernelError(Errno.ENOENT, "the directory was removed")
    inode_permission(task, directory, MAY_WRITE | MAY_EXEC, mnt)


def may_delete(task: Task | None, mnt: Mount, directory: Inode, victim: Inode, want_dir: bool) -> None:
    """May the name of ``victim`` be taken out of ``directory``; is it a directory or not, as wanted?"""
    inode_permission(task, directory, MAY_WRITE | MAY_EXEC, mnt)
    if is_sticky_for(task, directory, victim):
        raise KernelError(Errno.EPERM, "sticky directory, and neither it nor the file is yours")
    if want_dir and victim.i_mode & S_IFMT != S_IFDIR:
        raise KernelError(Errno.ENOTDIR, "not a directory")
    if not want_dir and victim.i_mode & S_IFMT == S_IFDIR:
        raise KernelError(Errno.EISDIR, "is a directory")
    if directory.i_nlink == 0:
        raise KernelError(Errno.ENOENT, "the directory was removed")


def is_sticky_for(task: Task | None, directory: Inode, victim: Inode) -> bool:
    """check_sticky()."""
    if task is None or not directory.i_mode & S_ISVTX:
        return False
    fsuid = task.creds.fsuid
    return fsuid not in (victim.i_uid, directory.i_uid) and not capable(task, CAP_FOWNER)


def new_inode_owner(task: Task | None, directory: Inode, mode: int) -> tuple[int, Owner]:
    """inode_init_owner(): mode and owner of what is created in ``directory`` (set-gid passes its group on)."""
    uid, gid = (0, 0) if task is None else (task.creds.fsuid, task.creds.fsgid)
    if directory.i_mode & S_ISGID:
        gid = directory.i_gid
        if mode & S_IFMT == S_IFDIR:
            mode |= S_ISGID
        elif (
            mode & (S_ISGID | S_IXGRP) == S_ISGID | S_IXGRP
            and task is not None
            and not in_group(task.creds, gid)
            and not capable(task, CAP_FSETID)
        ):
            mode &= ~S_ISGID
    return mode, Owner(uid, gid)
