"""Extended attributes: getxattr(2), setxattr(2), listxattr(2), removexattr(2).

Models ``fs/xattr.c``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from kernel.abi.errno import Errno, KernelError
from kernel.abi.fcntl import AT_FDCWD, MAY_READ, MAY_WRITE
from kernel.abi.inotify import IN_ATTRIB
from kernel.abi.xattr import XATTR_LIST_MAX, XATTR_NAME_MAX, XATTR_SIZE_MAX, XattrFlags
from kernel.fs import dcache
from kernel.fs.namei import LOOKUP_FOLLOW, path_lookup
from kernel.fs.notify import fsnotify_path
from kernel.fs.permission import CAP_SYS_ADMIN, capable, check_writable
from kernel.fs.uio import getname, user_mm
from kernel.fs.xattr import xattr_permission
from kernel.mm.usercopy import copy_from_user, copy_to_user, strncpy_from_user
from kernel.syscalls.table import INT, BufIn, BufOut, Fd, Path, Size, syscall

if TYPE_CHECKING:
    from kernel.task.task import Task

_FLAGS = Annotated[XattrFlags, INT]


def _at(task: Task, pathname: int, follow: bool) -> dcache.Path:
    name = getname(task, pathname)
    return path_lookup(task.kernel.vfs, task, AT_FDCWD, name, LOOKUP_FOLLOW if follow else 0)


def _name(task: Task, address: int) -> bytes:
    name = strncpy_from_user(user_mm(task), address, XATTR_NAME_MAX + 1)
    if not name or len(name) > XATTR_NAME_MAX:
        raise KernelError(Errno.ERANGE, "attribute name empty or too long")
    return name


def _set(task: Task, path: dcache.Path, name_at: int, value_at: int, size: int, flags: int) -> None:
    if flags & ~3:
        raise KernelError(Errno.EINVAL, "unknown flags")
    name = _name(task, name_at)
    if size > XATTR_SIZE_MAX:
        raise KernelError(Errno.E2BIG, "attribute value too large")
    value = copy_from_user(user_mm(task), value_at, size) if size else b""
    inode = path.dentry.d_inode
    check_writable(path.mnt)
    xattr_permission(task, inode, name, MAY_WRITE)
    if name.startswith(b"security.") and not capable(task, CAP_SYS_ADMIN):
        raise KernelError(Errno.EPERM, "security. needs CAP_SYS_ADMIN")
    inode.setxattr(name, value, flags)
    inode.touch_ctime()
    fsnotify_path(path, IN_ATTRIB)


def _get(task: Task, path: dcache.Path, name_at: int, value_at: int, size: int) -> int:
    name = _name(task, name_at)
    inode = path.dentry.d_inode
    xattr_permission(task, inode, name, MAY_READ)
    value = inode.getxattr(name)
    if size:
        if len(value) > size:
            raise KernelError(Errno.ERANGE, "buffer too small")
        copy_to_user(user_mm(task), value_at, value)
    return len(value)


def _list(task: Task, path: dcache.Path, list_at: int, size: int) -> int:
    admin = capable(task, CAP_SYS_ADMIN)
    names = [name for name in path.dentry.d_inode.listxattr() if admin or not name.startswith(b"trusted.")]
    text = b"".join(name + b"\0" for name in names)
    if len(text) > XATTR_LIST_MAX:
        raise KernelError(Errno.E2BIG, "too many attributes")
    if size:
        if len(text) > size:
            raise KernelError(Errno.ERANGE, "buffer too small")
        copy_to_user(user_mm(task), list_at, text)
    return len(text)


def _remove(task: Task, path: dcache.Path, name_at: int) -> None:
    name = _name(task, name_at)
    inode = path.dentry.d_inode
    check_writable(path.mnt)
    xattr_permission(task, inode, name, MAY_WRITE)
    inode.removexattr(name)
    inode.touch_ctime()
    fsnotify_path(path, IN_ATTRIB)


@syscall("setxattr", x86_64=188, i386=226, group="file")
def sys_setxattr(task: Task, pathname: Path, name: Path, value: BufIn, size: Size, flags: _FLAGS) -> None:
    """Set an extended attribute."""
    _set(task, _at(task, pathname, True), name, value, size, flags)


@syscall("lsetxattr", x86_64=189, i386=227, group="file")
def sys_lsetxattr(task: Task, pathname: Path, name: Path, value: BufIn, size: Size, flags: _FLAGS) -> None:
    """Set an extended attribute, of a link itself."""
    _set(task, _at(task, pathname, False), name, value, size, flags)


@syscall("fsetxattr", x86_64=190, i386=228, group="desc")
def sys_fsetxattr(task: Task, fd: Fd, name: Path, value: BufIn, size: Size, flags: _FLAGS) -> None:
    """Set an extended attribute of an open file."""
    _set(task, task.files.get(fd).f_path, name, value, size, flags)


@syscall("getxattr", x86_64=191, i386=229, group="file", returns="size")
def sys_getxattr(task: Task, pathname: Path, name: Path, value: BufOut, size: Size) -> int:
    """Read an extended attribute."""
    return _get(task, _at(task, pathname, True), name, value, size)


@syscall("lgetxattr", x86_64=192, i386=230, group="file", returns="size")
def sys_lgetxattr(task: Task, pathname: Path, name: Path, value: BufOut, size: Size) -> int:
    """Read an extended attribute, of a link itself."""
    return _get(task, _at(task, pathname, False), name, value, size)


@syscall("fgetxattr", x86_64=193, i386=231, group="desc", returns="size")
def sys_fgetxattr(task: Task, fd: Fd, name: Path, value: BufOut, size: Size) -> int:
    """Read an extended attribute of an open file."""
    return _get(task, task.files.get(fd).f_path, name, value, size)


@syscall("listxattr", x86_64=194, i386=232, group="file", returns="size")
def sys_listxattr(task: Task, pathname: Path, names: BufOut, size: Size) -> int:
    """The names of a file's extended attributes."""
    return _list(task, _at(task, pathname, True), names, size)


@syscall("llistxattr", x86_64=195, i386=233, group="file", returns="size")
def sys_llistxattr(task: Task, pathname: Path, names: BufOut, size: Size) -> int:
    """The names of extended attributes, of a link itself."""
    return _list(task, _at(task, pathname, False), names, size)


@syscall("flistxattr", x86_64=196, i386=234, group="desc", returns="size")
def sys_flistxattr(task: Task, fd: Fd, names: BufOut, size: Size) -> int:
    """The names of an open file's extended attributes."""
    return _list(task, task.files.get(fd).f_path, names, size)


@syscall("removexattr", x86_64=197, i386=235, group="file")
def sys_removexattr(task: Task, pathname: Path, name: Path) -> None:
    """Remove an extended attribute."""
    _remove(task, _at(task, pathname, True), name)


@syscall("lremovexattr", x86_64=198, i386=236, group="file")
def sys_lremovexattr(task: Task, pathname: Path, name: Path) -> None:
    """Remove an extended attribute, of a link itself."""
    _remove(task, _at(task, pathname, False), name)


@syscall("fremovexattr", x86_64=199, i386=237, group="desc")
def sys_fremovexattr(task: Task, fd: Fd, name: Path) -> None:
    """Remove an extended attribute of an open file."""
    _remove(task, task.files.get(fd).f_path, name)
