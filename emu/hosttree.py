"""The host's files for the kernel's file systems, over ``os``: one directory handle, one component at a time.

Implements :class:`kernel.fs.hostfs.HostTree` and :class:`~kernel.fs.hostfs.WritableHostTree`.

What keeps the guest inside:

* every name is one component (never empty, ``.``, ``..``, never with a slash or NUL), or EINVAL;
* every call is an *at call on a directory handle of ours, with O_NOFOLLOW or follow_symlinks=False, so neither a
  symbolic link nor a change of the tree behind our back is ever followed;
* only regular files are opened, checked before and after opening, so devices, FIFOs and sockets are never touched;
* :class:`ReadOnlyHostTree` has no method that writes.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import stat as stat_module
import struct
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from kernel.abi.errno import Errno, KernelError
from kernel.abi.stat import UNKNOWN_TIME, Kstatfs
from kernel.fs.hostfs import HostStat

_DIR_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_RENAME_EXCHANGE = 2
_STATX_BTIME = 0x800
_STATX_FLAGS = 0x100 | 0x800  # AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT
_DTYPE_SHIFT = 12

P = ParamSpec("P")
T = TypeVar("T")


def _kernel_errors(method: Callable[P, T]) -> Callable[P, T]:
    """OSError of the host becomes the same error for the guest."""

    @functools.wraps(method)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except OSError as error:
            raise KernelError(error.errno or errno.EIO, f"host: {error.strerror}") from None

    return wrapper


def _checked(name: bytes) -> bytes:
    if not name or name in (b".", b"..") or b"/" in name or b"\0" in name:
        raise KernelError(Errno.EINVAL, "not a name of one component")
    return name


def _host_stat(st: os.stat_result) -> HostStat:
    return HostStat(
        st.st_dev, st.st_ino, st.st_mode, st.st_nlink, st.st_uid, st.st_gid, st.st_rdev, st.st_size, st.st_blocks,
        st.st_atime_ns, st.st_mtime_ns, st.st_ctime_ns,
    )  # fmt: skip


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


class ReadOnlyHostTree:
    """A host directory, never written."""

    def __init__(self, root: str | bytes) -> None:
        self.root = os.fsencode(os.path.realpath(root))
        self._root_fd = os.open(self.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def shutdown(self) -> None:
        os.close(self._root_fd)

    @_kernel_errors
    def open_root(self) -> int:
        return os.dup(self._root_fd)

    @_kernel_errors
    def open_dir(self, dirfd: int, name: bytes) -> int:
        return os.open(_checked(name), _DIR_FLAGS, dir_fd=dirfd)

    def close(self, fd: int) -> None:
        os.close(fd)

    @_kernel_errors
    def fstat(self, fd: int) -> HostStat:
        return _host_stat(os.stat(fd))

    @_kernel_errors
    def lstat(self, dirfd: int, name: bytes) -> HostStat:
        return _host_stat(os.stat(_checked(name), dir_fd=dirfd, follow_symlinks=False))

    @_kernel_errors
    def btime(self, dirfd: int, name: bytes) -> int:
        room = ctypes.create_string_buffer(256)
        statx = getattr(_libc(), "statx", None)
        if statx is None or statx(dirfd, _checked(name), _STATX_FLAGS, _STATX_BTIME, room):
            return UNKNOWN_TIME
        (mask,) = struct.unpack_from("<I", room)
        seconds, nanoseconds = struct.unpack_from("<qI", room, 80)
        return seconds * 1_000_000_000 + nanoseconds if mask & _STATX_BTIME else UNKNOWN_TIME

    @_kernel_errors
    def readlink(self, dirfd: int, name: bytes) -> bytes:
        return os.readlink(_checked(name), dir_fd=dirfd)

    @_kernel_errors
    def listdir(self, dirfd: int) -> list[tuple[bytes, int, int]]:
        fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dirfd)
        try:
            found = []
            with os.scandir(fd) as entries:
                for entry in entries:
                    if entry.is_file(follow_symlinks=False):
                        kind = stat_module.S_IFREG
                    elif entry.is_dir(follow_symlinks=False):
                        kind = stat_module.S_IFDIR
                    elif entry.is_symlink():
                        kind = stat_module.S_IFLNK
                    else:
                        kind = stat_module.S_IFMT(_mode_of(entry))
                    found.append((os.fsencode(entry.name), entry.inode(), kind >> _DTYPE_SHIFT))
            return found
        finally:
            os.close(fd)

    @_kernel_errors
    def open_file(self, dirfd: int, name: bytes, write: bool) -> int:
        if write:
            raise KernelError(Errno.EROFS, "the host's files are read only")
        return self._open_regular(dirfd, name, os.O_RDONLY)

    def _open_regular(self, dirfd: int, name: bytes, flags: int) -> int:
        _checked(name)
        if not stat_module.S_ISREG(os.stat(name, dir_fd=dirfd, follow_symlinks=False).st_mode):
            raise KernelError(Errno.EACCES, "not a regular file")
        fd = os.open(name, flags | _FILE_FLAGS, dir_fd=dirfd)
        if not stat_module.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise KernelError(Errno.EACCES, "not a regular file")
        return fd

    @_kernel_errors
    def pread(self, fd: int, offset: int, count: int) -> bytes:
        data = os.pread(fd, count, offset)
        if len(data) == count or not data:
            return data
        parts = [data]
        got = len(data)
        while got < count:
            data = os.pread(fd, count - got, offset + got)
            if not data:
                break
            parts.append(data)
            got += len(data)
        return b"".join(parts)

    @_kernel_errors
    def statfs(self, dirfd: int) -> Kstatfs:
        st = os.statvfs(dirfd)
        return Kstatfs(
            0, st.f_bsize, st.f_blocks, st.f_bfree, st.f_bavail, st.f_files, st.f_ffree, st.f_fsid, st.f_namemax,
            st.f_frsize, st.f_flag,
        )  # fmt: skip

    @_kernel_errors
    def listxattr(self, dirfd: int, name: bytes) -> list[bytes]:
        return _with_path(dirfd, name, lambda path: [os.fsencode(entry) for entry in os.listxattr(path)])

    @_kernel_errors
    def getxattr(self, dirfd: int, name: bytes, attribute: bytes) -> bytes:
        return _with_path(dirfd, name, lambda path: os.getxattr(path, attribute))


def _mode_of(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_mode
    except OSError:
        return 0


def _with_path(dirfd: int, name: bytes, function: Callable[[str], T]) -> T:
    """Run ``function`` on a path that leads to exactly this object, link or not: calls without an *at form need one.

    An empty name is the directory itself.
    """
    if not name:
        return function(f"/proc/self/fd/{dirfd}")
    fd = os.open(_checked(name), os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dirfd)
    try:
        return function(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


class HostDirectory(ReadOnlyHostTree):
    """A host directory that the guest may write (``--writable``): nothing outside of it can be reached."""

    @_kernel_errors
    def open_file(self, dirfd: int, name: bytes, write: bool) -> int:
        return self._open_regular(dirfd, name, os.O_RDWR if write else os.O_RDONLY)

    @_kernel_errors
    def pwrite(self, fd: int, offset: int, data: bytes) -> int:
        return os.pwrite(fd, data, offset)

    @_kernel_errors
    def ftruncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    @_kernel_errors
    def fsync(self, fd: int) -> None:
        os.fsync(fd)

    @_kernel_errors
    def fallocate(self, fd: int, mode: int, offset: int, len_bytes: int) -> None:
        if _libc().fallocate64(fd, mode, ctypes.c_longlong(offset), ctypes.c_longlong(len_bytes)):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    @_kernel_errors
    def seek(self, fd: int, offset: int, whence: int) -> int:
        return os.lseek(fd, offset, whence)

    @_kernel_errors
    def create(self, dirfd: int, name: bytes, mode: int) -> int:
        fd = os.open(_checked(name), os.O_RDWR | os.O_CREAT | os.O_EXCL | _FILE_FLAGS, 0o600, dir_fd=dirfd)
        os.fchmod(fd, mode)
        return fd

    @_kernel_errors
    def create_unnamed(self, dirfd: int, mode: int) -> int:
        fd = os.open(b".", os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600, dir_fd=dirfd)
        os.fchmod(fd, mode)
        return fd

    @_kernel_errors
    def link_fd(self, fd: int, dirfd: int, name: bytes) -> None:
        os.link(f"/proc/self/fd/{fd}", _checked(name), dst_dir_fd=dirfd, follow_symlinks=True)

    @_kernel_errors
    def mkdir(self, dirfd: int, name: bytes, mode: int) -> None:
        os.mkdir(_checked(name), 0o700, dir_fd=dirfd)
        self._chmod(dirfd, name, mode)

    @_kernel_errors
    def mkfifo(self, dirfd: int, name: bytes, mode: int) -> None:
        os.mkfifo(_checked(name), 0o600, dir_fd=dirfd)
        self._chmod(dirfd, name, mode)

    @_kernel_errors
    def symlink(self, dirfd: int, name: bytes, target: bytes) -> None:
        os.symlink(target, _checked(name), dir_fd=dirfd)

    @_kernel_errors
    def link(self, dirfd: int, name: bytes, new_dirfd: int, new_name: bytes) -> None:
        os.link(_checked(name), _checked(new_name), src_dir_fd=dirfd, dst_dir_fd=new_dirfd, follow_symlinks=False)

    @_kernel_errors
    def unlink(self, dirfd: int, name: bytes) -> None:
        os.unlink(_checked(name), dir_fd=dirfd)

    @_kernel_errors
    def rmdir(self, dirfd: int, name: bytes) -> None:
        os.rmdir(_checked(name), dir_fd=dirfd)

    @_kernel_errors
    def rename(self, dirfd: int, name: bytes, new_dirfd: int, new_name: bytes, exchange: bool) -> None:
        _checked(name), _checked(new_name)
        if not exchange:
            os.rename(name, new_name, src_dir_fd=dirfd, dst_dir_fd=new_dirfd)
            return
        if _libc().renameat2(dirfd, name, new_dirfd, new_name, _RENAME_EXCHANGE):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    @_kernel_errors
    def chmod(self, dirfd: int, name: bytes, mode: int) -> None:
        self._chmod(dirfd, name, mode)

    def _chmod(self, dirfd: int, name: bytes, mode: int) -> None:
        if name and stat_module.S_ISLNK(os.stat(_checked(name), dir_fd=dirfd, follow_symlinks=False).st_mode):
            raise KernelError(Errno.EOPNOTSUPP, "symbolic links have no mode")
        _with_path(dirfd, name, lambda path: os.chmod(path, mode))

    @_kernel_errors
    def chown(self, dirfd: int, name: bytes, uid: int, gid: int) -> None:
        if name:
            os.chown(_checked(name), uid, gid, dir_fd=dirfd, follow_symlinks=False)
        else:
            os.chown(f"/proc/self/fd/{dirfd}", uid, gid)

    @_kernel_errors
    def utimens(self, dirfd: int, name: bytes, atime: int, mtime: int) -> None:
        if name:
            os.utime(_checked(name), ns=(atime, mtime), dir_fd=dirfd, follow_symlinks=False)
        else:
            os.utime(f"/proc/self/fd/{dirfd}", ns=(atime, mtime))

    @_kernel_errors
    def fchmod(self, fd: int, mode: int) -> None:
        os.fchmod(fd, mode)

    @_kernel_errors
    def fchown(self, fd: int, uid: int, gid: int) -> None:
        os.fchown(fd, uid, gid)

    @_kernel_errors
    def futimens(self, fd: int, atime: int, mtime: int) -> None:
        os.utime(fd, ns=(atime, mtime))

    @_kernel_errors
    def setxattr(self, dirfd: int, name: bytes, attribute: bytes, value: bytes, flags: int) -> None:
        _with_path(dirfd, name, lambda path: os.setxattr(path, attribute, value, flags))

    @_kernel_errors
    def removexattr(self, dirfd: int, name: bytes, attribute: bytes) -> None:
        _with_path(dirfd, name, lambda path: os.removexattr(path, attribute))


class OsHostTree:
    """What :func:`kernel.fs.mount_root.mount_root` is given: the root's lower layer and the writable directories.

    ``writable`` lists host directories, each as ``DIR`` (the guest sees it at the same place, seen from the root) or as
    ``DIR:PLACE``.  Raises OSError or ValueError when one of them cannot be used.
    """

    def __init__(self, root: str = "/", writable: list[str] | None = None) -> None:
        self.lower = ReadOnlyHostTree(root)
        self.writable: list[tuple[bytes, HostDirectory]] = []
        for entry in writable or []:
            directory, place = self._place(entry)
            self.writable.append((place, HostDirectory(directory)))
        self.writable.sort(key=lambda pair: pair[0].count(b"/"))  # outer mounts first

    def _place(self, entry: str) -> tuple[bytes, bytes]:
        directory, colon, place = entry.partition(":")
        if colon and place.startswith("/"):
            return os.fsencode(os.path.realpath(directory)), os.fsencode(os.path.normpath(place))
        real = os.fsencode(os.path.realpath(entry))
        root = self.lower.root
        if root == b"/" or real == root or real.startswith(root + b"/"):
            inside = real[len(root) :] if root != b"/" else real
            return real, inside or b"/"
        return real, real

    def close(self) -> None:
        self.lower.shutdown()
        for _place, tree in self.writable:
            tree.shutdown()
