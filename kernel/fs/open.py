"""open(2), openat2(2): from flags and a path to an open file.

Models ``fs/open.c`` (``build_open_flags``, ``do_dentry_open``) and ``fs/namei.c`` (``open_last_lookups``, ``may_open``,
``do_open``, ``do_tmpfile``).

Deliberate differences: O_DIRECT reads and writes through the page cache; O_SYNC and O_DSYNC write through only where
there is something to write to (``--writable`` directories).
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from kernel.abi.errno import Errno, KernelError
from kernel.abi.fcntl import (
    AT_EMPTY_PATH,
    MAY_EXEC,
    MAY_READ,
    MAY_WRITE,
    O_ACCMODE,
    O_CLOEXEC,
    O_CREAT,
    O_DIRECTORY,
    O_DSYNC,
    O_EXCL,
    O_NOATIME,
    O_NOFOLLOW,
    O_PATH,
    O_PATH_FLAGS,
    O_SYNC,
    O_TMPFILE,
    O_TMPFILE_BIT,
    O_TRUNC,
    VALID_OPEN_FLAGS,
)
from kernel.abi.inotify import IN_CREATE, IN_MODIFY, IN_OPEN
from kernel.abi.mount import MS_NODEV
from kernel.abi.stat import S_IALLUGO, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK
from kernel.fs.dcache import Dentry, Path
from kernel.fs.file import File, PathFile
from kernel.fs.inode import Iattr, Inode
from kernel.fs.namei import LOOKUP_DIRECTORY, LOOKUP_EMPTY, LOOKUP_FOLLOW, LastType, Walk, path_lookup
from kernel.fs.notify import fsnotify_dirent, fsnotify_file
from kernel.fs.permission import check_writable, inode_permission, may_create, new_inode_owner, owner_or_capable

if TYPE_CHECKING:
    from kernel.fs.dcache import Mount
    from kernel.fs.vfs import Vfs
    from kernel.task.task import Task

_ACC_MODE = (MAY_READ, MAY_WRITE, MAY_READ | MAY_WRITE, MAY_READ | MAY_WRITE)


def build_open_flags(flags: int, mode: int, strict: bool) -> tuple[int, int]:
    """The flags and mode that count.  ``strict`` (openat2): what open(2) ignores is EINVAL."""
    if strict:
        if flags & ~VALID_OPEN_FLAGS:
            raise KernelError(Errno.EINVAL, "unknown open flags")
        if mode & ~S_IALLUGO or (mode and not flags & (O_CREAT | O_TMPFILE_BIT)):
            raise KernelError(Errno.EINVAL, "mode without O_CREAT or O_TMPFILE, or not a mode")
    flags &= VALID_OPEN_FLAGS & ~O_CLOEXEC
    mode = mode & S_IALLUGO | S_IFREG if flags & (O_CREAT | O_TMPFILE_BIT) else 0
    if flags & (O_DIRECTORY | O_CREAT) == O_DIRECTORY | O_CREAT:
        raise KernelError(Errno.EINVAL, "O_DIRECTORY with O_CREAT")
    if flags & O_TMPFILE_BIT:
        if flags & O_TMPFILE != O_TMPFILE:
            raise KernelError(Errno.EINVAL, "__O_TMPFILE without O_DIRECTORY")
        if not _ACC_MODE[flags & O_ACCMODE] & MAY_WRITE:
            raise KernelError(Errno.EINVAL, "O_TMPFILE needs write access")
    if flags & O_PATH:
        if strict and flags & ~O_PATH_FLAGS:
            raise KernelError(Errno.EINVAL, "flags that O_PATH does not take")
        flags &= O_PATH_FLAGS
    if flags & O_SYNC == O_SYNC & ~O_DSYNC:
        flags |= O_DSYNC
    return flags, mode


def do_filp_open(
    vfs: Vfs,
    task: Task | None,
    dirfd: int,
    name: bytes,
    flags: int,
    mode: int,
    resolve: int,
    *,
    strict: bool = False,
    extra_mask: int = 0,
    at_flags: int = 0,
) -> File | Generator[Any, Any, File]:
    """The open file that ``name`` leads to.  ``extra_mask`` (MAY_EXEC, not MAY_READ) and ``at_flags`` are execve's."""
    flags, mode = build_open_flags(flags, mode, strict)
    if flags & O_TMPFILE_BIT:
        return _do_tmpfile(vfs, task, dirfd, name, flags, mode, resolve)
    if flags & O_CREAT:
        return _open_create(vfs, task, dirfd, name, flags, mode, resolve)
    lookup_flags = 0 if flags & O_NOFOLLOW else LOOKUP_FOLLOW
    if flags & O_DIRECTORY:
        lookup_flags |= LOOKUP_DIRECTORY
    if at_flags & AT_EMPTY_PATH:
        lookup_flags |= LOOKUP_EMPTY
    path = path_lookup(vfs, task, dirfd, name, lookup_flags, resolve)
    if flags & O_PATH:
        return PathFile(path, path.dentry.d_inode, flags)
    return _do_open(task, path, flags, extra_mask, created=False)


def _open_create(
    vfs: Vfs, task: Task | None, dirfd: int, name: bytes, flags: int, mode: int, resolve: int
) -> File | Generator[Any, Any, File]:
    if not name:
        raise KernelError(Errno.ENOENT, "empty path")
    walk = Walk(vfs, task, dirfd, name, resolve)
    walk.to_parent(name)
    while True:
        if walk.last_type is not LastType.NORM or walk.must_be_dir:
            if flags & O_EXCL and walk.last_type is not LastType.NORM:
                raise KernelError(Errno.EEXIST, "O_EXCL and a directory")
            raise KernelError(Errno.EISDIR, "O_CREAT and a path that asks for a directory")
        parent = walk.dentry
        child = vfs.lookup_one(parent, walk.last, task)
        if child is None:
            child = _create(vfs, task, walk.mnt, parent, walk.last, mode)
            return _do_open(task, Path(walk.mnt, child), flags & ~O_TRUNC, 0, created=True)
        if flags & O_EXCL:
            raise KernelError(Errno.EEXIST, "O_EXCL and the name exists")
        if child.d_inode.i_mode & S_IFMT != S_IFLNK:
            break
        if flags & O_NOFOLLOW:
            raise KernelError(Errno.ELOOP, "O_NOFOLLOW and a symbolic link")
        if walk.follow_last(child):
            return _open_existing_for_create(task, walk.path, flags)
    walk.dentry = child
    walk._follow_mount()
    return _open_existing_for_create(task, walk.path, flags)


def _open_existing_for_create(task: Task | None, path: Path, flags: int) -> File | Generator[Any, Any, File]:
    if path.dentry.d_inode.i_mode & S_IFMT == S_IFDIR:
        raise KernelError(Errno.EISDIR, "O_CREAT and a directory")
    return _do_open(task, path, flags, 0, created=False)


def _create(vfs: Vfs, task: Task | None, mnt: Mount, parent: Dentry, name: bytes, mode: int) -> Dentry:
    """vfs_create() with the task's umask."""
    directory = parent.d_inode
    check_writable(mnt)
    may_create(task, mnt, directory)
    if task is not None:
        mode &= ~task.fs.umask
    mode, owner = new_inode_owner(task, directory, mode)
    inode = directory.create(name, mode, owner)
    dentry = vfs.instantiate(parent, name, inode)
    fsnotify_dirent(directory, IN_CREATE, name, inode)
    return dentry


def _do_tmpfile(
    vfs: Vfs, task: Task | None, dirfd: int, name: bytes, flags: int, mode: int, resolve: int
) -> File | Generator[Any, Any, File]:
    follow = 0 if flags & O_NOFOLLOW else LOOKUP_FOLLOW
    path = path_lookup(vfs, task, dirfd, name, follow | LOOKUP_DIRECTORY, resolve)
    directory = path.dentry.d_inode
    check_writable(path.mnt)
    inode_permission(task, directory, MAY_WRITE | MAY_EXEC, path.mnt)
    if task is not None:
        mode &= ~task.fs.umask
    mode, owner = new_inode_owner(task, directory, mode)
    inode = directory.tmpfile(mode, owner)
    inode.i_linkable = not flags & O_EXCL
    dentry = Dentry(b"#%d" % inode.i_ino, path.dentry, inode, path.dentry.d_sb)
    dentry.d_hashed = False
    return _do_open(task, Path(path.mnt, dentry), flags & ~O_EXCL, 0, created=True)


def _do_open(
    task: Task | None, path: Path, flags: int, extra_mask: int, created: bool
) -> File | Generator[Any, Any, File]:
    """may_open and do_dentry_open: permissions (not for a file just created), then the file system's own ``open``."""
    inode = path.dentry.d_inode
    kind = inode.i_mode & S_IFMT
    if not created:
        _may_open(task, path, inode, kind, flags, extra_mask)
    if kind != S_IFREG:
        flags &= ~O_TRUNC
    if flags & O_ACCMODE != 0 and kind == S_IFREG:
        return _open_for_write(task, path, inode, flags)
    if flags & O_TRUNC:
        _truncate_on_open(task, path, inode)
    file = inode.open(task, path, flags)
    if isinstance(file, File) and inode.i_sb.watched:
        fsnotify_file(file, IN_OPEN)
    return file


def _open_for_write(task: Task | None, path: Path, inode: Inode, flags: int) -> File | Generator[Any, Any, File]:
    get_write_access(inode)
    try:
        if flags & O_TRUNC:
            _truncate_on_open(task, path, inode)
        file = inode.open(task, path, flags)
        assert isinstance(file, File)
    except KernelError:
        inode.i_writecount -= 1
        raise
    file.f_writer = 1
    if inode.i_sb.watched:
        fsnotify_file(file, IN_OPEN)
    return file


def _truncate_on_open(task: Task | None, path: Path, inode: Inode) -> None:
    now = inode.i_sb.kernel.clock.realtime_ns()
    inode.setattr(Iattr(size=0, mtime=now, ctime=now))
    if inode.i_sb.watched:
        from kernel.fs.notify import fsnotify_path

        fsnotify_path(path, IN_MODIFY)


def _may_open(task: Task | None, path: Path, inode: Inode, kind: int, flags: int, extra_mask: int) -> None:
    mask = extra_mask or _ACC_MODE[flags & O_ACCMODE]  # a program may be run by those who cannot read it
    if flags & O_TRUNC:
        mask |= MAY_WRITE
    if kind == S_IFLNK:
        raise KernelError(Errno.ELOOP, "O_NOFOLLOW and a symbolic link")
    if kind == S_IFDIR:
        if mask & MAY_WRITE:
            raise KernelError(Errno.EISDIR, "directories cannot be written")
        if mask & MAY_EXEC:
            raise KernelError(Errno.EACCES, "directories cannot be executed")
    elif kind in (S_IFCHR, S_IFBLK):
        if path.mnt.mnt_flags & MS_NODEV:
            raise KernelError(Errno.EACCES, "device on a nodev mount")
    elif kind in (S_IFIFO, S_IFSOCK) and mask & MAY_EXEC:
        raise KernelError(Errno.EACCES, "not a regular file")
    inode_permission(task, inode, mask, path.mnt)
    if flags & O_NOATIME and not owner_or_capable(task, inode):
        raise KernelError(Errno.EPERM, "O_NOATIME on a file of somebody else")


def get_write_access(inode: Inode) -> None:
    """One more writer; ETXTBSY while a program runs from the file."""
    if inode.i_writecount < 0:
        raise KernelError(Errno.ETXTBSY, "the file is being executed")
    inode.i_writecount += 1


def deny_write_access(file: File) -> None:
    """``file`` is executed: until it is released nobody may open it for writing."""
    inode = file.f_inode
    if inode.i_writecount > 0:
        raise KernelError(Errno.ETXTBSY, "the file is open for writing")
    inode.i_writecount -= 1
    file.f_writer = -1
