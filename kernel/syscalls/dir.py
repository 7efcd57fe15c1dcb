"""Names and directories: mkdir(2), rename(2), unlink(2), getdents(2), chdir(2), mount(2) ...

Models ``fs/namei.c``, ``fs/readdir.c``, ``fs/d_path.c`` (``getcwd``), ``fs/open.c`` (``chdir``) and ``fs/namespace.c``.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Annotated

from kernel.abi.errno import Errno, KernelError
from kernel.abi.fcntl import AT_FDCWD, AT_REMOVEDIR, MAY_EXEC, AtFlags, RenameFlags
from kernel.abi.mount import MountFlags, UmountFlags
from kernel.abi.stat import S_IFDIR, S_IFMT
from kernel.fs.dcache import path_text
from kernel.fs.dirfile import END_OF_DIRECTORY
from kernel.fs.dirops import do_linkat, do_mkdirat, do_mknodat, do_renameat2, do_rmdir, do_symlinkat, do_unlinkat
from kernel.fs.do_mount import do_chroot, do_mount, do_pivot_root, do_umount
from kernel.fs.namei import LOOKUP_DIRECTORY, LOOKUP_FOLLOW, path_lookup
from kernel.fs.permission import inode_permission
from kernel.fs.uio import getname, user_mm
from kernel.mm.usercopy import copy_to_user, strncpy_from_user
from kernel.syscalls.table import INT, UINT, ULONG, BufOut, Fd, Kind, Mode, Path, Size, UInt, UserAddr, syscall

if TYPE_CHECKING:
    from kernel.fs.inode import DirEntry
    from kernel.task.task import Task

Dev = Annotated[int, UINT, Kind("dev")]


# ---- making and removing names --------------------------------------------------------------------------------------


@syscall("mkdir", x86_64=83, i386=39, group="file")
def sys_mkdir(task: Task, pathname: Path, mode: Mode) -> None:
    """Make a directory."""
    do_mkdirat(task.kernel.vfs, task, AT_FDCWD, getname(task, pathname), mode)


@syscall("mkdirat", x86_64=258, i386=296, group="file")
def sys_mkdirat(task: Task, dfd: Fd, pathname: Path, mode: Mode) -> None:
    """Make a directory relative to another."""
    do_mkdirat(task.kernel.vfs, task, dfd, getname(task, pathname), mode)


@syscall("mknod", x86_64=133, i386=14, group="file")
def sys_mknod(task: Task, filename: Path, mode: Mode, dev: Dev) -> None:
    """Make a FIFO, a device node, a socket or an empty file."""
    do_mknodat(task.kernel.vfs, task, AT_FDCWD, getname(task, filename), mode, dev)


@syscall("mknodat", x86_64=259, i386=297, group="file")
def sys_mknodat(task: Task, dfd: Fd, filename: Path, mode: Mode, dev: Dev) -> None:
    """As mknod, relative to a directory."""
    do_mknodat(task.kernel.vfs, task, dfd, getname(task, filename), mode, dev)


@syscall("symlink", x86_64=88, i386=83, group="file")
def sys_symlink(task: Task, oldname: Path, newname: Path) -> None:
    """Make a symbolic link."""
    do_symlinkat(task.kernel.vfs, task, getname(task, oldname), AT_FDCWD, getname(task, newname))


@syscall("symlinkat", x86_64=266, i386=304, group="file")
def sys_symlinkat(task: Task, oldname: Path, newdfd: Fd, newname: Path) -> None:
    """Make a symbolic link relative to a directory."""
    do_symlinkat(task.kernel.vfs, task, getname(task, oldname), newdfd, getname(task, newname))


@syscall("link", x86_64=86, i386=9, group="file")
def sys_link(task: Task, oldname: Path, newname: Path) -> None:
    """Give a file a second name."""
    do_linkat(task.kernel.vfs, task, AT_FDCWD, getname(task, oldname), AT_FDCWD, getname(task, newname), 0)


@syscall("linkat", x86_64=265, i386=303, group="file")
def sys_linkat(
    task: Task, olddfd: Fd, oldname: Path, newdfd: Fd, newname: Path, flags: Annotated[AtFlags, INT]
) -> None:
    """Give a file a second name, relative to directories."""
    do_linkat(task.kernel.vfs, task, olddfd, getname(task, oldname), newdfd, getname(task, newname), flags)


@syscall("unlink", x86_64=87, i386=10, group="file")
def sys_unlink(task: Task, pathname: Path) -> None:
    """Remove a name."""
    do_unlinkat(task.kernel.vfs, task, AT_FDCWD, getname(task, pathname))


@syscall("rmdir", x86_64=84, i386=40, group="file")
def sys_rmdir(task: Task, pathname: Path) -> None:
    """Remove an empty directory."""
    do_rmdir(task.kernel.vfs, task, AT_FDCWD, getname(task, pathname))


@syscall("unlinkat", x86_64=263, i386=301, group="file")
def sys_unlinkat(task: Task, dfd: Fd, pathname: Path, flag: Annotated[AtFlags, INT]) -> None:
    """Remove a name or an empty directory, relative to a directory."""
    if flag & ~AT_REMOVEDIR:
        raise KernelError(Errno.EINVAL, "unknown flags")
    remove = do_rmdir if flag & AT_REMOVEDIR else do_unlinkat
    remove(task.kernel.vfs, task, dfd, getname(task, pathname))


@syscall("rename", x86_64=82, i386=38, group="file")
def sys_rename(task: Task, oldname: Path, newname: Path) -> None:
    """Move a name, replacing what is there."""
    do_renameat2(task.kernel.vfs, task, AT_FDCWD, getname(task, oldname), AT_FDCWD, getname(task, newname), 0)


@syscall("renameat", x86_64=264, i386=302, group="file")
def sys_renameat(task: Task, olddfd: Fd, oldname: Path, newdfd: Fd, newname: Path) -> None:
    """Move a name, relative to directories."""
    do_renameat2(task.kernel.vfs, task, olddfd, getname(task, oldname), newdfd, getname(task, newname), 0)


@syscall("renameat2", x86_64=316, i386=353, group="file")
def sys_renameat2(task: Task, olddfd: Fd, oldname: Path, newdfd: Fd, newname: Path, flags: RenameFlags) -> None:
    """Move a name, not replacing or exchanging."""
    do_renameat2(task.kernel.vfs, task, olddfd, getname(task, oldname), newdfd, getname(task, newname), flags)


# ---- reading directories --------------------------------------------------------------------------------------------

_DIRENT64 = struct.Struct("<QqHB").pack
_DIRENT64_HEADER = 19
_DIRENT = struct.Struct("<QqH").pack
_DIRENT_HEADER = 18


def _dirent64(entry: DirEntry, offset: int) -> bytes:
    reclen = (_DIRENT64_HEADER + len(entry.name) + 8) & ~7
    return (_DIRENT64(entry.ino, offset, reclen, entry.dtype) + entry.name).ljust(reclen, b"\0")


def _dirent(entry: DirEntry, offset: int) -> bytes:
    reclen = (_DIRENT_HEADER + len(entry.name) + 2 + 7) & ~7
    record = (_DIRENT(entry.ino, offset, reclen) + entry.name).ljust(reclen - 1, b"\0")
    return record + bytes((entry.dtype,))


def _getdents(task: Task, fd: int, dirent: int, count: int, old: bool) -> int:
    file = task.files.get(fd)
    entries = file.iterate(task)
    pos = file.f_pos
    records: list[bytes] = []
    room = count
    while pos < len(entries):
        following = pos + 1 if pos + 1 < len(entries) else END_OF_DIRECTORY
        record = _dirent(entries[pos], following) if old else _dirent64(entries[pos], following)
        if len(record) > room:
            if not records:
                raise KernelError(Errno.EINVAL, "buffer too small for one entry")
            break
        records.append(record)
        room -= len(record)
        pos += 1
    if records:
        copy_to_user(user_mm(task), dirent, b"".join(records))
    file.f_pos = pos if pos < len(entries) else END_OF_DIRECTORY
    return count - room


@syscall("getdents64", x86_64=217, i386=220, group="desc", returns="size")
def sys_getdents64(task: Task, fd: Fd, dirent: BufOut, count: UInt) -> int:
    """The next entries of a directory."""
    return _getdents(task, fd, dirent, count, old=False)


@syscall("getdents", x86_64=78, i386=None, group="desc", returns="size")
def sys_getdents(task: Task, fd: Fd, dirent: BufOut, count: UInt) -> int:
    """The next entries of a directory, in the old format."""
    return _getdents(task, fd, dirent, count, old=True)


# ---- where a task is ------------------------------------------------------------------------------------------------


@syscall("getcwd", x86_64=79, i386=183, group="file", returns="size")
def sys_getcwd(task: Task, buf: UserAddr, size: Size) -> int:
    """The working directory's name; returns its length with the NUL."""
    cwd, root = task.fs.cwd, task.fs.root
    if not cwd.dentry.d_hashed and not cwd.dentry.is_root:
        raise KernelError(Errno.ENOENT, "the working directory was removed")
    text, reached = path_text(cwd, root)
    if not reached:
        text = b"(unreachable)" + text
    if len(text) + 1 > size:
        raise KernelError(Errno.ERANGE, "buffer too small")
    copy_to_user(user_mm(task), buf, text + b"\0")
    return len(text) + 1


@syscall("chdir", x86_64=80, i386=12, group="file")
def sys_chdir(task: Task, filename: Path) -> None:
    """Change the working directory."""
    path = path_lookup(task.kernel.vfs, task, AT_FDCWD, getname(task, filename), LOOKUP_FOLLOW | LOOKUP_DIRECTORY)
    inode_permission(task, path.dentry.d_inode, MAY_EXEC)
    task.fs.cwd = path


@syscall("fchdir", x86_64=81, i386=133, group="desc")
def sys_fchdir(task: Task, fd: Fd) -> None:
    """Change the working directory to an open one."""
    file = task.files.get_raw(fd)
    if file.f_inode.i_mode & S_IFMT != S_IFDIR:
        raise KernelError(Errno.ENOTDIR, "not a directory")
    inode_permission(task, file.f_inode, MAY_EXEC)
    task.fs.cwd = file.f_path


@syscall("chroot", x86_64=161, i386=61, group="file")
def sys_chroot(task: Task, filename: Path) -> None:
    """Change the root directory."""
    do_chroot(task, getname(task, filename))


# ---- mounts ---------------------------------------------------------------------------------------------------------


@syscall("mount", x86_64=165, i386=21, group="file", note="no block devices, no propagation between mounts")
def sys_mount(
    task: Task, dev_name: Path, dir_name: Path, fstype: Path, flags: Annotated[MountFlags, ULONG], data: UserAddr
) -> None:
    """Attach a file system, or change or move a mount."""

    def text(address: int) -> bytes:
        return strncpy_from_user(user_mm(task), address, 4096) if address else b""

    do_mount(task, text(dev_name), getname(task, dir_name), text(fstype), flags, text(data))


@syscall("umount2", x86_64=166, i386=52, group="file")
def sys_umount2(task: Task, name: Path, flags: Annotated[UmountFlags, INT]) -> None:
    """Detach a file system."""
    do_umount(task, getname(task, name), flags)


@syscall("pivot_root", x86_64=155, i386=217, group="file")
def sys_pivot_root(task: Task, new_root: Path, put_old: Path) -> None:
    """Exchange the root mount."""
    do_pivot_root(task, getname(task, new_root), getname(task, put_old))
