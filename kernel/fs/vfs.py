"""The VFS object: the tree of mounts, the name cache, and the kernel's own ways to files.

Models ``fs/namei.c`` (``lookup_one``), ``fs/open.c`` (``filp_open``, ``do_open_execat``) and ``fs/super.c``.

``kernel.vfs`` is made by ``kernel/fs/mount_root.py``.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from kernel.abi.errno import Errno, KernelError
from kernel.abi.fcntl import AT_FDCWD, AT_SYMLINK_NOFOLLOW, MAY_EXEC, O_NOFOLLOW, O_RDONLY
from kernel.abi.mount import MS_NOEXEC, MS_NOSUID
from kernel.abi.stat import S_IFMT, S_IFREG, makedev
from kernel.fs.dcache import Dentry, DentryCache, Path, d_drop, d_path
from kernel.fs.file import File
from kernel.fs.mount import MountTree
from kernel.fs.namei import LOOKUP_FOLLOW, path_lookup
from kernel.fs.net.stack import NetStack

if TYPE_CHECKING:
    from kernel.fs.dcache import Mount
    from kernel.fs.hostfs import HostTree
    from kernel.fs.inode import Inode, SuperBlock
    from kernel.fs.pseudo import PseudoFs
    from kernel.fs.tty.tty import Tty
    from kernel.kernel import Kernel
    from kernel.task.task import Task

ANON_DEV_MAJOR = 0


class Vfs:
    """All that the files of one machine share."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.dcache = DentryCache()
        self.mounts = MountTree()
        self.root: Path
        """The root of the tree; a task's own root may lie below."""
        self.host: HostTree
        self.pseudo: PseudoFs
        """Pipes, sockets and anonymous files."""
        self.superblocks: list[SuperBlock] = []
        self.net = NetStack(kernel)
        self.ttys: dict[int, Tty] = {}
        """Terminals by device number."""
        self._last_anon_dev = 0x40
        self._last_cookie = 0

    # -- numbers -------------------------------------------------------------------------------------------
    def new_anon_dev(self) -> int:
        """``st_dev`` for a file system without a device (get_anon_bdev); starts high to stay clear of the host's."""
        self._last_anon_dev += 1
        return makedev(ANON_DEV_MAJOR, self._last_anon_dev)

    def new_cookie(self) -> int:
        """A number never given before (rename events, for one)."""
        self._last_cookie += 1
        return self._last_cookie

    @staticmethod
    def path(mnt: Mount, dentry: Dentry) -> Path:
        return Path(mnt, dentry)

    # -- names ---------------------------------------------------------------------------------------------
    def lookup_one(self, parent: Dentry, name: bytes, task: Task | None = None) -> Dentry | None:
        """The dentry ``name`` in the directory ``parent``, mounts not crossed; None if there is none."""
        child = parent.d_children.get(name)
        directory = parent.d_inode
        if child is not None and not directory.volatile:
            return child
        inode = directory.lookup(name, task)
        if child is not None:
            if inode is child.d_inode:
                return child
            if child.d_mounted:
                return child
            d_drop(child)
        if inode is None:
            return None
        return self.dcache.add(parent, name, inode)

    def instantiate(self, parent: Dentry, name: bytes, inode: Inode) -> Dentry:
        """d_instantiate(): ``inode`` was just created as ``name``."""
        return self.dcache.add(parent, name, inode)

    def path_text(self, path: Path, task: Task | None = None) -> bytes:
        """The name of ``path`` as ``task`` sees it (d_path)."""
        return d_path(path, self.root if task is None else task.fs.root)

    def lookup(
        self, task: Task | None, path: bytes, dirfd: int = AT_FDCWD, flags: int = LOOKUP_FOLLOW, resolve: int = 0
    ) -> Path:
        return path_lookup(self, task, dirfd, path, flags, resolve)

    # -- opening for the kernel itself ---------------------------------------------------------------------
    def open(
        self, task: Task | None, dirfd: int, path: bytes, flags: int, mode: int = 0, resolve: int = 0
    ) -> File | Generator[object, object, File]:
        """open(2) without the descriptor.  A generator when opening may sleep (FIFOs)."""
        from kernel.fs.open import do_filp_open

        return do_filp_open(self, task, dirfd, path, flags, mode, resolve)

    def open_exec(self, task: Task, path: bytes, dirfd: int = AT_FDCWD, at_flags: int = 0) -> File:
        """do_open_execat(): a regular file that ``task`` may execute; nobody may write it until it is released."""
        from kernel.fs.open import deny_write_access, do_filp_open

        flags = O_RDONLY | (O_NOFOLLOW if at_flags & AT_SYMLINK_NOFOLLOW else 0)
        file = do_filp_open(self, task, dirfd, path, flags, 0, 0, extra_mask=MAY_EXEC, at_flags=at_flags)
        if not isinstance(file, File):
            raise KernelError(Errno.EACCES, "not a regular file")
        inode = file.f_inode
        if inode.i_mode & S_IFMT != S_IFREG or file.f_path.mnt.mnt_flags & MS_NOEXEC:
            raise KernelError(Errno.EACCES, "not a regular file, or on a noexec mount")
        deny_write_access(file)
        return file

    def may_suid(self, file: File) -> bool:
        """Do the set-user-ID bits of ``file`` count (mnt_may_suid)?"""
        return not file.f_path.mnt.mnt_flags & MS_NOSUID

    # -- the end -------------------------------------------------------------------------------------------
    def sync(self) -> None:
        """sync(2), also done before the machine stops: everything dirty goes to the host's writable directories."""
        for sb in self.superblocks:
            sb.sync()

    def shutdown(self) -> None:
        """The machine is switched off: no file of the host stays open."""
        for sb in self.superblocks:
            sb.put_super()
