"""``struct files_struct`` and ``struct fs_struct``: a task's descriptors, and its root, directory and umask.

Models ``fs/file.c`` and ``fs/fs_struct.c``.

Invariant: ``fdt[fd]`` is an open file or None; every descriptor holds one reference to its file; ``close_on_exec`` has
bits only for open descriptors.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from kernel.abi.errno import Errno, KernelError
from kernel.abi.fcntl import FMODE_PATH
from kernel.fs.dcache import Path
from kernel.fs.file import File, fput

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT_NOFILE = 1024


class FilesStruct:
    """The descriptor table of a process (shared by tasks cloned with CLONE_FILES; ``refs`` counts them)."""

    __slots__ = ("close_on_exec", "fdt", "next_fd", "refs")

    def __init__(self) -> None:
        self.fdt: list[File | None] = []
        self.close_on_exec = 0
        """Bit ``fd`` set: close at execve."""
        self.next_fd = 0
        """No free descriptor lies below this one."""
        self.refs = 1

    def get(self, fd: int) -> File:
        """The file of ``fd`` (fdget); EBADF if there is none or it was opened with O_PATH.  Takes no reference."""
        file = self.fdt[fd] if 0 <= fd < len(self.fdt) else None
        if file is None:
            raise KernelError(Errno.EBADF, "descriptor not open")
        if file.f_mode & FMODE_PATH:
            raise KernelError(Errno.EBADF, "descriptor opened with O_PATH")
        return file

    def get_raw(self, fd: int) -> File:
        """The file of ``fd``, O_PATH or not (fdget_raw)."""
        file = self.fdt[fd] if 0 <= fd < len(self.fdt) else None
        if file is None:
            raise KernelError(Errno.EBADF, "descriptor not open")
        return file

    def lookup(self, fd: int) -> File | None:
        """The file of ``fd`` or None (for /proc)."""
        return self.fdt[fd] if 0 <= fd < len(self.fdt) else None

    def __iter__(self) -> Iterator[tuple[int, File]]:
        for fd, file in enumerate(self.fdt):
            if file is not None:
                yield fd, file

    def alloc_fd(self, start: int = 0, limit: int = DEFAULT_NOFILE) -> int:
        """The lowest free descriptor from ``start`` on; EMFILE when it is not below ``limit`` (RLIMIT_NOFILE)."""
        fdt = self.fdt
        fd = max(start, self.next_fd)
        nr = len(fdt)
        while fd < nr and fdt[fd] is not None:
            fd += 1
        if fd >= limit:
            raise KernelError(Errno.EMFILE, "RLIMIT_NOFILE")
        return fd

    def install(self, fd: int, file: File, cloexec: bool = False) -> None:
        """Put ``file`` (whose reference is handed over) at the free descriptor ``fd``."""
        fdt = self.fdt
        if fd >= len(fdt):
            fdt.extend([None] * (fd + 1 - len(fdt)))
        fdt[fd] = file
        if fd == self.next_fd:
            self.next_fd = fd + 1
        if cloexec:
            self.close_on_exec |= 1 << fd
        else:
            self.close_on_exec &= ~(1 << fd)

    def add(self, file: File, cloexec: bool = False, limit: int = DEFAULT_NOFILE, start: int = 0) -> int:
        """``alloc_fd`` and ``install`` in one; on EMFILE the reference is given back."""
        try:
            fd = self.alloc_fd(start, limit)
        except KernelError:
            fput(file)
            raise
        self.install(fd, file, cloexec)
        return fd

    def close(self, fd: int) -> None:
        """close(2): EBADF, or what the file's flush says (the descriptor is gone in any case)."""
        file = self.get_raw(fd)
        self.fdt[fd] = None
        self.close_on_exec &= ~(1 << fd)
        if fd < self.next_fd:
            self.next_fd = fd
        self.filp_close(file)

    def filp_close(self, file: File) -> None:
        """Give up one descriptor's reference: POSIX locks of this table on the file go, then flush, then fput."""
        try:
            if file.f_mode & FMODE_PATH == 0:
                context = file.f_inode.i_flctx
                if context is not None:
                    context.remove_posix(self)
                file.flush()
        finally:
            fput(file)

    def dup2(self, old_fd: int, new_fd: int, cloexec: bool = False, limit: int = DEFAULT_NOFILE) -> int:
        """dup3 without its argument checks: ``new_fd`` names the file of ``old_fd`` from now on."""
        if new_fd >= limit or new_fd < 0:
            raise KernelError(Errno.EBADF, "descriptor beyond RLIMIT_NOFILE")
        file = self.get_raw(old_fd)
        replaced = self.lookup(new_fd)
        self.install(new_fd, file.get(), cloexec)
        if replaced is not None:
            with suppress(KernelError):  # dup2(2): errors of the silent close are lost
                self.filp_close(replaced)
        return new_fd

    def set_cloexec(self, fd: int, cloexec: bool) -> None:
        self.get_raw(fd)
        if cloexec:
            self.close_on_exec |= 1 << fd
        else:
            self.close_on_exec &= ~(1 << fd)

    def get_cloexec(self, fd: int) -> bool:
        self.get_raw(fd)
        return self.close_on_exec >> fd & 1 != 0

    def copy(self) -> FilesStruct:
        """dup_fd(): the table of a forked child; every file gets one more reference."""
        new = FilesStruct()
        new.fdt = list(self.fdt)
        new.close_on_exec = self.close_on_exec
        new.next_fd = self.next_fd
        for file in new.fdt:
            if file is not None:
                file.f_count += 1
        return new

    def get_ref(self) -> FilesStruct:
        """CLONE_FILES: one more task uses this table."""
        self.refs += 1
        return self

    def put(self) -> None:
        """A task that used this table is gone; the last one closes everything (exit_files)."""
        self.refs -= 1
        if self.refs == 0:
            for fd in range(len(self.fdt)):
                self._close_quietly(fd)

    def do_close_on_exec(self) -> None:
        """execve: close what is marked close-on-exec."""
        marked = self.close_on_exec
        fd = 0
        while marked:
            if marked & 1:
                self._close_quietly(fd)
            marked >>= 1
            fd += 1

    def _close_quietly(self, fd: int) -> None:
        if self.fdt[fd] is not None:
            with suppress(KernelError):  # nobody is left to be told
                self.close(fd)


class FsStruct:
    """``struct fs_struct``: root directory, working directory and umask (shared with CLONE_FS)."""

    __slots__ = ("cwd", "refs", "root", "umask")

    def __init__(self, root: Path, cwd: Path, umask: int = 0o022) -> None:
        self.root = root
        self.cwd = cwd
        self.umask = umask
        self.refs = 1

    def copy(self) -> FsStruct:
        return FsStruct(self.root, self.cwd, self.umask)

    def get_ref(self) -> FsStruct:
        """CLONE_FS: one more task uses it."""
        self.refs += 1
        return self

    def put(self) -> None:
        self.refs -= 1
