"""Changing mode, owner, times and size of a file: who may, and what else changes with it.

Models ``fs/attr.c`` (``setattr_prepare``, ``notify_change``), ``fs/open.c`` (``chmod_common``, ``chown_common``,
``do_truncate``) and ``fs/utimes.c``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.abi.errno import Errno, KernelError
from kernel.abi.fcntl import MAY_WRITE
from kernel.abi.inotify import IN_ACCESS, IN_ATTRIB, IN_MODIFY
from kernel.abi.resource import RLIM_INFINITY, RLIMIT_FSIZE
from kernel.abi.signal import SIGXFSZ
from kernel.abi.stat import S_IFLNK, S_IFMT, S_IFREG, S_ISGID, S_ISUID, S_IXGRP
from kernel.fs.inode import Iattr, Inode, is_dir
from kernel.fs.notify import fsnotify_path
from kernel.fs.permission import (
    CAP_CHOWN,
    CAP_FSETID,
    capable,
    check_writable,
    in_group,
    inode_permission,
    owner_or_capable,
)
from kernel.fs.regular import DataInode

if TYPE_CHECKING:
    from kernel.fs.dcache import Path
    from kernel.fs.file import File
    from kernel.task.task import Task

UTIME_NOW = (1 << 30) - 1
UTIME_OMIT = (1 << 30) - 2


def do_chmod(task: Task | None, path: Path, mode: int) -> None:
    inode = path.dentry.d_inode
    check_writable(path.mnt)
    if inode.i_mode & S_IFMT == S_IFLNK:
        raise KernelError(Errno.EOPNOTSUPP, "symbolic links have no mode")
    if not owner_or_capable(task, inode):
        raise KernelError(Errno.EPERM, "not the owner")
    mode &= 0o7777
    if mode & S_ISGID and task is not None and not in_group(task.creds, inode.i_gid) and not capable(task, CAP_FSETID):
        mode &= ~S_ISGID
    inode.setattr(Iattr(mode=mode))
    fsnotify_path(path, IN_ATTRIB)


def do_chown(task: Task, path: Path, uid: int, gid: int) -> None:
    """``uid`` or ``gid`` 0xffffffff leaves it alone."""
    inode = path.dentry.d_inode
    check_writable(path.mnt)
    attr = Iattr(uid=None if uid == 0xFFFFFFFF else uid, gid=None if gid == 0xFFFFFFFF else gid)
    creds = task.creds
    mine = creds.fsuid == inode.i_uid
    if attr.uid is not None and not (mine and attr.uid == inode.i_uid) and not capable(task, CAP_CHOWN):
        raise KernelError(Errno.EPERM, "changing the owner needs CAP_CHOWN")
    if attr.gid is not None and not capable(task, CAP_CHOWN):
        allowed = mine and (in_group(creds, attr.gid) or attr.gid == inode.i_gid)
        if not allowed:
            raise KernelError(Errno.EPERM, "not the owner, or not a member of the group")
    if not is_dir(inode) and inode.i_mode & S_IFMT != S_IFLNK:
        kill = inode.i_mode & S_ISUID
        if inode.i_mode & (S_ISGID | S_IXGRP) == S_ISGID | S_IXGRP:
            kill |= S_ISGID
        if kill:
            attr.mode = inode.i_mode & 0o7777 & ~kill
    inode.setattr(attr)
    fsnotify_path(path, IN_ATTRIB)


def do_utimes(task: Task, path: Path, atime: int | None, mtime: int | None, explicit: bool) -> None:
    """Set the times (nanoseconds; None leaves one alone).

    ``explicit``: the caller chose them; else both are the present, which whoever may write the file may set.
    """
    inode = path.dentry.d_inode
    check_writable(path.mnt)
    if not owner_or_capable(task, inode):
        if explicit:
            raise KernelError(Errno.EPERM, "not the owner")
        inode_permission(task, inode, MAY_WRITE, path.mnt)
    inode.setattr(Iattr(atime=atime, mtime=mtime))
    if atime is not None and mtime is not None:
        mask = IN_ATTRIB
    else:
        mask = IN_ACCESS if mtime is None else IN_MODIFY
    fsnotify_path(path, mask)


def _set_size(task: Task, path: Path, size: int) -> None:
    inode = path.dentry.d_inode
    if size > inode.i_size:
        limit = task.rlimit(RLIMIT_FSIZE)
        if limit != RLIM_INFINITY and size > limit:
            from kernel.task.signal import send_sig

            send_sig(task, SIGXFSZ)
            raise KernelError(Errno.EFBIG, "RLIMIT_FSIZE")
    if isinstance(inode, DataInode) and inode.i_mode & (S_ISUID | S_ISGID):
        inode.file_remove_privs(task)
    inode.setattr(Iattr(size=size))
    fsnotify_path(path, IN_MODIFY)


def do_truncate(task: Task, path: Path, size: int) -> None:
    """truncate(2)."""
    from kernel.fs.open import get_write_access

    inode = path.dentry.d_inode
    if is_dir(inode):
        raise KernelError(Errno.EISDIR, "directories have no length to set")
    if inode.i_mode & S_IFMT != S_IFREG:
        raise KernelError(Errno.EINVAL, "not a regular file")
    inode_permission(task, inode, MAY_WRITE, path.mnt)
    get_write_access(inode)
    try:
        _set_size(task, path, size)
    finally:
        inode.i_writecount -= 1


def do_ftruncate(task: Task, file: File, size: int) -> None:
    inode: Inode = file.f_inode
    if inode.i_mode & S_IFMT != S_IFREG or not file.writable:
        raise KernelError(Errno.EINVAL, "not a regular file open for writing")
    _set_size(task, file.f_path, size)
    inode.touch_mtime()
