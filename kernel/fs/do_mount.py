"""mount(2), umount2(2), chroot(2), pivot_root(2): checks and arguments; the tree itself is in kernel/fs/mount.py.

Models ``fs/namespace.c``.  What can be mounted is what :data:`FILESYSTEMS` has; the file systems with a device (ext4
...) are unknown (ENODEV), as are devices to mount.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from kernel.abi.errno import Errno, KernelError
from kernel.abi.fcntl import AT_FDCWD, MAY_EXEC
from kernel.abi.mount import (
    MNT_USER_SETTABLE,
    MS_BIND,
    MS_MOVE,
    MS_NOATIME,
    MS_PROPAGATION,
    MS_REC,
    MS_RELATIME,
    MS_REMOUNT,
    MS_STRICTATIME,
    UMOUNT_NOFOLLOW,
)
from kernel.fs.dcache import Path, is_subdir
from kernel.fs.inode import is_dir
from kernel.fs.namei import LOOKUP_DIRECTORY, LOOKUP_FOLLOW, path_lookup
from kernel.fs.permission import CAP_SYS_ADMIN, CAP_SYS_CHROOT, capable, inode_permission

if TYPE_CHECKING:
    from kernel.fs.inode import SuperBlock
    from kernel.fs.vfs import Vfs
    from kernel.task.task import Task

FILESYSTEMS: dict[str, Callable[[Vfs, dict[str, str]], SuperBlock]] = {}
"""Name -> a function (vfs, mount options) that gives the file system (made at first, or the one there is)."""


def register_filesystem(name: str, make: Callable[[Vfs, dict[str, str]], SuperBlock]) -> None:
    FILESYSTEMS[name] = make


def _must_be_admin(task: Task) -> None:
    if not capable(task, CAP_SYS_ADMIN):
        raise KernelError(Errno.EPERM, "needs CAP_SYS_ADMIN")


def _options(data: bytes) -> dict[str, str]:
    pairs = [part.partition("=") for part in data.decode("utf-8", "surrogateescape").split(",") if part]
    return {key: value for key, _equals, value in pairs}


def _mount_flags(flags: int) -> int:
    kept = flags & MNT_USER_SETTABLE
    if not flags & (MS_NOATIME | MS_STRICTATIME):
        kept |= MS_RELATIME
    return kept


def do_mount(task: Task, source: bytes, target: bytes, fstype: bytes, flags: int, data: bytes) -> None:
    vfs = task.kernel.vfs
    where = path_lookup(vfs, task, AT_FDCWD, target)
    _must_be_admin(task)
    if flags & MS_REMOUNT:
        if where.dentry is not where.mnt.mnt_root:
            raise KernelError(Errno.EINVAL, "not a mount point")
        where.mnt.mnt_flags = _mount_flags(flags)
    elif flags & MS_BIND:
        _bind(vfs, task, source, where, flags & MS_REC != 0)
    elif flags & MS_PROPAGATION:
        return  # every mount is private already, and there is one name space
    elif flags & MS_MOVE:
        old = path_lookup(vfs, task, AT_FDCWD, source)
        if old.dentry is not old.mnt.mnt_root:
            raise KernelError(Errno.EINVAL, "not a mount point")
        vfs.mounts.move(old.mnt, where)
    else:
        make = FILESYSTEMS.get(fstype.decode("utf-8", "replace"))
        if make is None:
            raise KernelError(Errno.ENODEV, "unknown file system")
        mount_fs(vfs, make(vfs, _options(data)), where, source.decode("utf-8", "replace") or "none", flags)


def mount_fs(vfs: Vfs, sb: SuperBlock, where: Path, devname: str, flags: int = 0) -> None:
    """Mount the whole of ``sb`` on ``where``."""
    root = sb.s_root
    assert root is not None
    if sb not in vfs.superblocks:
        vfs.superblocks.append(sb)
    vfs.mounts.attach(vfs.mounts.new(root, devname, _mount_flags(flags)), where)


def _bind(vfs: Vfs, task: Task, source: bytes, where: Path, recursive: bool) -> None:
    old = path_lookup(vfs, task, AT_FDCWD, source)
    copy, children = vfs.mounts.bind(old, recursive)
    vfs.mounts.attach(copy, where)
    for child, parent, mountpoint in children:
        vfs.mounts.attach(child, Path(parent, mountpoint))


def do_umount(task: Task, name: bytes, flags: int) -> None:
    if flags & ~15:
        raise KernelError(Errno.EINVAL, "unknown flags")
    vfs = task.kernel.vfs
    _must_be_admin(task)
    path = path_lookup(vfs, task, AT_FDCWD, name, 0 if flags & UMOUNT_NOFOLLOW else LOOKUP_FOLLOW)
    vfs.mounts.umount(path, flags, _places_in_use(task))


def _places_in_use(task: Task) -> Iterator[Path]:
    """Every place that a task stands on or has open."""
    for other in task.kernel.tasks.values():
        if other._fs is not None:
            yield other._fs.cwd
            yield other._fs.root
        if other._files is not None:
            for _fd, file in other._files:
                yield file.f_path


def do_chroot(task: Task, name: bytes) -> None:
    path = path_lookup(task.kernel.vfs, task, AT_FDCWD, name, LOOKUP_FOLLOW | LOOKUP_DIRECTORY)
    inode_permission(task, path.dentry.d_inode, MAY_EXEC)
    if not capable(task, CAP_SYS_CHROOT):
        raise KernelError(Errno.EPERM, "needs CAP_SYS_CHROOT")
    task.fs.root = path


def do_pivot_root(task: Task, new_root: bytes, put_old: bytes) -> None:
    vfs = task.kernel.vfs
    _must_be_admin(task)
    new = path_lookup(vfs, task, AT_FDCWD, new_root, LOOKUP_FOLLOW | LOOKUP_DIRECTORY)
    old = path_lookup(vfs, task, AT_FDCWD, put_old, LOOKUP_FOLLOW | LOOKUP_DIRECTORY)
    root = task.fs.root
    if new.mnt is root.mnt or old.mnt is root.mnt:
        raise KernelError(Errno.EBUSY, "new root or put_old is on the present root mount")
    if new.dentry is not new.mnt.mnt_root or root.dentry is not root.mnt.mnt_root:
        raise KernelError(Errno.EINVAL, "not a mount point")
    if old.mnt is not new.mnt or not is_subdir(old.dentry, new.dentry) or not is_dir(old.dentry.d_inode):
        raise KernelError(Errno.EINVAL, "put_old is not below the new root")
    vfs.mounts.pivot(new.mnt, old, root.mnt)
    vfs.root = new
    for other in task.kernel.tasks.values():
        fs = other._fs
        if fs is None:
            continue
        if fs.root == root:
            fs.root = new
        if fs.cwd == root:
            fs.cwd = new
