"""Making, removing and moving names.

Models ``fs/namei.c``: ``do_mkdirat``, ``do_mknodat``, ``do_symlinkat``, ``do_linkat``, ``do_unlinkat``, ``do_rmdir``,
``do_renameat2`` and the ``vfs_*`` functions below them.  Errors come in Linux's order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.abi.errno import Errno, KernelError
from kernel.abi.fcntl import (
    AT_EMPTY_PATH,
    AT_SYMLINK_FOLLOW,
    MAY_READ,
    MAY_WRITE,
    PATH_MAX,
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    RENAME_WHITEOUT,
)
from kernel.abi.inotify import IN_CREATE
from kernel.abi.stat import (
    S_IFBLK,
    S_IFCHR,
    S_IFDIR,
    S_IFIFO,
    S_IFMT,
    S_IFREG,
    S_IFSOCK,
    S_ISGID,
    S_ISUID,
    S_ISVTX,
    S_IXGRP,
)
from kernel.fs.dcache import Dentry, Path, d_drop, d_exchange, d_move, is_subdir
from kernel.fs.inode import Inode, is_dir
from kernel.fs.namei import LOOKUP_EMPTY, LOOKUP_FOLLOW, LastType, Walk, parent_lookup, path_lookup
from kernel.fs.notify import fsnotify_dirent, fsnotify_move, fsnotify_unlink
from kernel.fs.permission import (
    CAP_DAC_READ_SEARCH,
    CAP_FOWNER,
    CAP_MKNOD,
    capable,
    check_writable,
    inode_permission,
    may_create,
    may_delete,
    new_inode_owner,
)

if TYPE_CHECKING:
    from kernel.fs.vfs import Vfs
    from kernel.task.task import Task


def _create_place(vfs: Vfs, task: Task | None, dirfd: int, name: bytes, for_dir: bool) -> Walk:
    """filename_create(): the directory where ``name`` is to be made, checked to be free."""
    walk = parent_lookup(vfs, task, dirfd, name)
    if walk.last_type is not LastType.NORM:
        raise KernelError(Errno.EEXIST, "the path names an existing directory")
    if vfs.lookup_one(walk.dentry, walk.last, task) is not None:
        raise KernelError(Errno.EEXIST, "the name exists")
    if walk.must_be_dir and not for_dir:
        raise KernelError(Errno.ENOENT, "a slash after the name of what is no directory")
    check_writable(walk.mnt)
    return walk


def _finish(vfs: Vfs, walk: Walk, inode: Inode) -> Path:
    dentry = vfs.instantiate(walk.dentry, walk.last, inode)
    fsnotify_dirent(walk.dentry.d_inode, IN_CREATE, walk.last, inode)
    return Path(walk.mnt, dentry)


def do_mkdirat(vfs: Vfs, task: Task | None, dirfd: int, name: bytes, mode: int) -> Path:
    walk = _create_place(vfs, task, dirfd, name, for_dir=True)
    directory = walk.dentry.d_inode
    may_create(task, walk.mnt, directory)
    mode &= 0o777 | S_ISVTX
    if task is not None:
        mode &= ~task.fs.umask
    mode, owner = new_inode_owner(task, directory, S_IFDIR | mode)
    return _finish(vfs, walk, directory.mkdir(walk.last, mode, owner))


def do_mknodat(vfs: Vfs, task: Task | None, dirfd: int, name: bytes, mode: int, rdev: int) -> Path:
    """Also what bind(2) of an AF_UNIX socket does (S_IFSOCK)."""
    kind = mode & S_IFMT or S_IFREG
    if kind == S_IFDIR:
        raise KernelError(Errno.EPERM, "mknod makes no directories")
    if kind not in (S_IFREG, S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK):
        raise KernelError(Errno.EINVAL, "unknown file type")
    walk = _create_place(vfs, task, dirfd, name, for_dir=False)
    directory = walk.dentry.d_inode
    may_create(task, walk.mnt, directory)
    if kind in (S_IFCHR, S_IFBLK) and not capable(task, CAP_MKNOD):
        raise KernelError(Errno.EPERM, "device nodes need CAP_MKNOD")
    mode &= 0o7777
    if task is not None:
        mode &= ~task.fs.umask
    mode, owner = new_inode_owner(task, directory, kind | mode)
    if kind == S_IFREG:
        inode = directory.create(walk.last, mode, owner)
        inode.on_last_close()
    else:
        inode = directory.mknod(walk.last, mode, rdev if kind in (S_IFCHR, S_IFBLK) else 0, owner)
    return _finish(vfs, walk, inode)


def do_symlinkat(vfs: Vfs, task: Task | None, target: bytes, dirfd: int, name: bytes) -> Path:
    if not target:
        raise KernelError(Errno.ENOENT, "empty target")
    if len(target) >= PATH_MAX:
        raise KernelError(Errno.ENAMETOOLONG, "target longer than PATH_MAX")
    walk = _create_place(vfs, task, dirfd, name, for_dir=False)
    directory = walk.dentry.d_inode
    may_create(task, walk.mnt, directory)
    _mode, owner = new_inode_owner(task, directory, 0o777)
    return _finish(vfs, walk, directory.symlink(walk.last, target, owner))


def do_linkat(vfs: Vfs, task: Task, old_dirfd: int, old: bytes, new_dirfd: int, new: bytes, flags: int) -> None:
    if flags & ~(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH):
        raise KernelError(Errno.EINVAL, "unknown flags")
    lookup_flags = LOOKUP_FOLLOW if flags & AT_SYMLINK_FOLLOW else 0
    if flags & AT_EMPTY_PATH:
        if not old and not capable(task, CAP_DAC_READ_SEARCH):
            raise KernelError(Errno.ENOENT, "AT_EMPTY_PATH needs CAP_DAC_READ_SEARCH")
        lookup_flags |= LOOKUP_EMPTY
    source = path_lookup(vfs, task, old_dirfd, old, lookup_flags)
    inode = source.dentry.d_inode
    walk = _create_place(vfs, task, new_dirfd, new, for_dir=False)
    if walk.mnt is not source.mnt:
        raise KernelError(Errno.EXDEV, "not on the same mount")
    directory = walk.dentry.d_inode
    _may_linkat(task, inode)
    may_create(task, walk.mnt, directory)
    if inode.i_sb is not directory.i_sb:
        raise KernelError(Errno.EXDEV, "not on the same file system")
    if is_dir(inode):
        raise KernelError(Errno.EPERM, "directories have one name")
    if inode.i_nlink == 0 and not inode.i_linkable:
        raise KernelError(Errno.ENOENT, "the file has no name any more")
    directory.link(walk.last, inode)
    inode.i_linkable = False
    _finish(vfs, walk, inode)


def _may_linkat(task: Task, inode: Inode) -> None:
    """fs.protected_hardlinks: only your own files, or ones that you may read and write and are not special."""
    if not task.kernel.sysctl.protected_hardlinks or task.creds.fsuid == inode.i_uid or capable(task, CAP_FOWNER):
        return
    mode = inode.i_mode
    special = mode & S_IFMT != S_IFREG or mode & S_ISUID or mode & (S_ISGID | S_IXGRP) == S_ISGID | S_IXGRP
    if special or not inode.permission(task, MAY_READ | MAY_WRITE):
        raise KernelError(Errno.EPERM, "fs.protected_hardlinks")


def do_unlinkat(vfs: Vfs, task: Task | None, dirfd: int, name: bytes) -> None:
    walk = parent_lookup(vfs, task, dirfd, name)
    if walk.last_type is not LastType.NORM:
        raise KernelError(Errno.EISDIR, "the path names a directory")
    dentry = vfs.lookup_one(walk.dentry, walk.last, task)
    if dentry is None:
        raise KernelError(Errno.ENOENT, "no such name")
    if walk.must_be_dir:
        raise KernelError(Errno.EISDIR if is_dir(dentry.d_inode) else Errno.ENOTDIR, "a slash after the name")
    check_writable(walk.mnt)
    unlink_dentry(vfs, task, Path(walk.mnt, dentry))


def unlink_dentry(vfs: Vfs, task: Task | None, path: Path) -> None:
    """vfs_unlink()."""
    dentry = path.dentry
    directory, inode = dentry.d_parent.d_inode, dentry.d_inode
    may_delete(task, path.mnt, directory, inode, want_dir=False)
    if dentry.d_mounted:
        raise KernelError(Errno.EBUSY, "something is mounted there")
    directory.unlink(dentry.d_name, inode)
    d_drop(dentry)
    fsnotify_unlink(directory, dentry.d_name, inode)
    inode.drop_if_unused()


def do_rmdir(vfs: Vfs, task: Task | None, dirfd: int, name: bytes) -> None:
    walk = parent_lookup(vfs, task, dirfd, name)
    if walk.last_type is LastType.DOTDOT:
        raise KernelError(Errno.ENOTEMPTY, "..")
    if walk.last_type is LastType.DOT:
        raise KernelError(Errno.EINVAL, ".")
    if walk.last_type is LastType.ROOT:
        raise KernelError(Errno.EBUSY, "/")
    dentry = vfs.lookup_one(walk.dentry, walk.last, task)
    if dentry is None:
        raise KernelError(Errno.ENOENT, "no such name")
    check_writable(walk.mnt)
    directory, inode = walk.dentry.d_inode, dentry.d_inode
    may_delete(task, walk.mnt, directory, inode, want_dir=True)
    if dentry.d_mounted:
        raise KernelError(Errno.EBUSY, "something is mounted there")
    directory.rmdir(walk.last, inode)
    d_drop(dentry)
    fsnotify_unlink(directory, walk.last, inode)
    inode.drop_if_unused()


def do_renameat2(
    vfs: Vfs, task: Task | None, old_dirfd: int, old: bytes, new_dirfd: int, new: bytes, flags: int
) -> None:
    if flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT):
        raise KernelError(Errno.EINVAL, "unknown flags")
    if flags & RENAME_EXCHANGE and flags & (RENAME_NOREPLACE | RENAME_WHITEOUT):
        raise KernelError(Errno.EINVAL, "RENAME_EXCHANGE goes with nothing else")
    if flags & RENAME_WHITEOUT:
        raise KernelError(Errno.EINVAL, "RENAME_WHITEOUT is not supported")
    source = parent_lookup(vfs, task, old_dirfd, old)
    dest = parent_lookup(vfs, task, new_dirfd, new)
    if source.mnt is not dest.mnt:
        raise KernelError(Errno.EXDEV, "not on the same mount")
    if source.last_type is not LastType.NORM:
        raise KernelError(Errno.EBUSY, "the old path ends in . or .. or is /")
    if dest.last_type is not LastType.NORM:
        raise KernelError(Errno.EEXIST if flags & RENAME_NOREPLACE else Errno.EBUSY, "the new path ends in . or ..")
    check_writable(source.mnt)
    old_dentry = vfs.lookup_one(source.dentry, source.last, task)
    if old_dentry is None:
        raise KernelError(Errno.ENOENT, "no such name")
    new_dentry = vfs.lookup_one(dest.dentry, dest.last, task)
    if flags & RENAME_NOREPLACE and new_dentry is not None:
        raise KernelError(Errno.EEXIST, "RENAME_NOREPLACE and the new name exists")
    _check_slashes(flags, source, dest, old_dentry, new_dentry)
    if is_subdir(dest.dentry, old_dentry):
        raise KernelError(Errno.EINVAL, "a directory cannot be moved below itself")
    if new_dentry is not None and is_subdir(source.dentry, new_dentry):
        exchange = flags & RENAME_EXCHANGE
        raise KernelError(Errno.EINVAL if exchange else Errno.ENOTEMPTY, "the new name is above the old one")
    _vfs_rename(vfs, task, source, dest, old_dentry, new_dentry, flags)


def _check_slashes(flags: int, source: Walk, dest: Walk, old: Dentry, new: Dentry | None) -> None:
    """A slash after a name asks for a directory."""
    if flags & RENAME_EXCHANGE:
        if new is None:
            raise KernelError(Errno.ENOENT, "RENAME_EXCHANGE and no new name")
        if dest.must_be_dir and not is_dir(new.d_inode):
            raise KernelError(Errno.ENOTDIR, "a slash after the name of what is no directory")
    if is_dir(old.d_inode):
        return
    if source.must_be_dir or (not flags & RENAME_EXCHANGE and dest.must_be_dir):
        raise KernelError(Errno.ENOTDIR, "a slash after the name of what is no directory")


def _vfs_rename(
    vfs: Vfs, task: Task | None, source: Walk, dest: Walk, old_dentry: Dentry, new_dentry: Dentry | None, flags: int
) -> None:
    old_dir, new_dir = source.dentry.d_inode, dest.dentry.d_inode
    inode = old_dentry.d_inode
    target = new_dentry.d_inode if new_dentry is not None else None
    if inode is target:
        return
    exchange = flags & RENAME_EXCHANGE != 0
    may_delete(task, source.mnt, old_dir, inode, want_dir=is_dir(inode))
    if target is None:
        may_create(task, dest.mnt, new_dir)
    else:
        may_delete(task, dest.mnt, new_dir, target, want_dir=is_dir(target) if exchange else is_dir(inode))
    if old_dir is not new_dir:  # moving a directory changes its ".."
        if is_dir(inode):
            inode_permission(task, inode, MAY_WRITE, source.mnt)
        if exchange and target is not None and is_dir(target):
            inode_permission(task, target, MAY_WRITE, dest.mnt)
    if old_dentry.d_mounted or (new_dentry is not None and new_dentry.d_mounted):
        raise KernelError(Errno.EBUSY, "something is mounted there")
    old_dir.rename(source.last, inode, new_dir, dest.last, target, exchange)
    if exchange:
        assert new_dentry is not None and target is not None
        d_exchange(old_dentry, new_dentry)
    else:
        d_move(old_dentry, dest.dentry, dest.last)
    _tell_watchers(vfs, source, dest, inode, target, exchange)
    if target is not None and not exchange:
        target.drop_if_unused()


def _tell_watchers(vfs: Vfs, source: Walk, dest: Walk, inode: Inode, target: Inode | None, exchange: bool) -> None:
    old_dir, new_dir = source.dentry.d_inode, dest.dentry.d_inode
    if not old_dir.i_sb.watched:
        return
    fsnotify_move(old_dir, source.last, new_dir, dest.last, inode, vfs.new_cookie())
    if target is not None and exchange:
        fsnotify_move(new_dir, dest.last, old_dir, source.last, target, vfs.new_cookie())
