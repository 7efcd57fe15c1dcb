"""From a path name to a place: the walk.

Models ``fs/namei.c`` (``link_path_walk``, ``path_lookupat``, ``path_parentat``, ``may_follow_link``) and
path_resolution(7).

Everything is confined to the task's root: ``..`` at the root stays there, absolute links start again at the root,
and no step ever asks the host to resolve more than one component (see kernel/fs/hostfs.py).

Deliberate difference: no RCU walk, no automounts.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from kernel.abi.errno import Errno, KernelError
from kernel.abi.fcntl import (
    AT_FDCWD,
    MAY_EXEC,
    NAME_MAX,
    PATH_MAX,
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
)
from kernel.abi.mount import MS_NOSYMFOLLOW
from kernel.abi.stat import S_IFDIR, S_IFLNK, S_IFMT, S_ISVTX
from kernel.fs.dcache import Dentry, Path
from kernel.fs.permission import CAP_DAC_OVERRIDE, capable

if TYPE_CHECKING:
    from kernel.fs.dcache import Mount
    from kernel.fs.inode import Inode
    from kernel.fs.vfs import Vfs
    from kernel.task.task import Task

LOOKUP_FOLLOW = 0x1
LOOKUP_DIRECTORY = 0x2
LOOKUP_EMPTY = 0x4000

MAX_LINKS = 40
"""MAXSYMLINKS: more than this many symbolic links in one walk is ELOOP."""


class LastType(Enum):
    """What the last component of a walk to the parent is."""

    NORM = "a name"
    ROOT = "/"
    DOT = "."
    DOTDOT = ".."


class Walk:
    """``struct nameidata``: one resolution in progress; ``mnt`` and ``dentry`` say where it stands."""

    __slots__ = (
        "beneath",
        "dentry",
        "last",
        "last_type",
        "mnt",
        "must_be_dir",
        "nr_links",
        "override",
        "resolve",
        "root",
        "task",
        "vfs",
    )

    def __init__(self, vfs: Vfs, task: Task | None, dirfd: int, name: bytes, resolve: int = 0) -> None:
        self.vfs = vfs
        self.task = task
        self.resolve = resolve
        self.nr_links = 0
        self.must_be_dir = False
        self.last = b""
        self.last_type = LastType.ROOT
        self.override = capable(task, CAP_DAC_OVERRIDE)
        if len(name) >= PATH_MAX:
            raise KernelError(Errno.ENAMETOOLONG, "path longer than PATH_MAX")
        self.root = task.fs.root if task is not None else vfs.root
        if name.startswith(b"/") and not resolve & (RESOLVE_IN_ROOT | RESOLVE_BENEATH):
            start = self.root
        elif task is None:
            start = vfs.root
        elif dirfd == AT_FDCWD:
            start = task.fs.cwd
        else:
            start = task.files.get_raw(dirfd).f_path
            if name and start.dentry.d_inode.i_mode & S_IFMT != S_IFDIR:
                raise KernelError(Errno.ENOTDIR, "descriptor of *at call is no directory")
        self.beneath = resolve & RESOLVE_BENEATH != 0
        if resolve & (RESOLVE_IN_ROOT | RESOLVE_BENEATH):
            self.root = start
        self.mnt: Mount = start.mnt
        self.dentry: Dentry = start.dentry

    @property
    def path(self) -> Path:
        return Path(self.mnt, self.dentry)

    # -- walking -------------------------------------------------------------------------------------------
    def to_end(self, text: bytes, follow: bool) -> Path:
        """Walk the whole of ``text``; a symbolic link at its end is followed if ``follow`` (or a slash follows it)."""
        self._run(self._begin(text), follow, want_parent=False)
        if self.must_be_dir and self.dentry.d_inode.i_mode & S_IFMT != S_IFDIR:
            raise KernelError(Errno.ENOTDIR, "path must lead to a directory")
        return Path(self.mnt, self.dentry)

    def to_parent(self, text: bytes) -> None:
        """Walk to the directory that holds the last component, which is left in ``last`` and ``last_type``."""
        self._run(self._begin(text), follow=False, want_parent=True)

    def follow_last(self, link: Dentry) -> bool:
        """After :meth:`to_parent`: the last component is the symbolic link ``link``; go where it leads.

        False: walked to the parent of the link's own last component.  True: a magic link, and we are at its end.
        """
        parts: list[bytes] = []
        if self._follow_link(link.d_inode, parts, at_end=True):
            return True
        self._run(parts, follow=False, want_parent=True)
        return False

    def _begin(self, text: bytes) -> list[bytes]:
        if text.startswith(b"/"):
            if self.beneath:
                raise KernelError(Errno.EXDEV, "RESOLVE_BENEATH and an absolute path")
            self.mnt, self.dentry = self.root
        return self._split(text)

    def _split(self, text: bytes) -> list[bytes]:
        """The components of ``text``, last one first; a slash at the end asks for a directory."""
        if text.endswith(b"/"):
            self.must_be_dir = True
        parts = [part for part in text.split(b"/") if part]
        parts.reverse()
        return parts

    def _run(self, parts: list[bytes], follow: bool, want_parent: bool) -> None:
        self.last_type = LastType.ROOT
        task, vfs = self.task, self.vfs
        while parts:
            name = parts.pop()
            dentry = self.dentry
            inode = dentry.d_inode
            if inode.i_mode & S_IFMT != S_IFDIR:
                raise KernelError(Errno.ENOTDIR, "a component of the path is no directory")
            if not self.override and not inode.permission(task, MAY_EXEC):
                raise KernelError(Errno.EACCES, "no search permission on a directory of the path")
            if name == b".":
                self.last_type = LastType.DOT
                if want_parent and not parts:
                    self.last = name
                continue
            if name == b"..":
                self.last_type = LastType.DOTDOT
                if want_parent and not parts:
                    self.last = name
                else:
                    self._follow_dotdot()
                continue
            self.last_type = LastType.NORM
            if len(name) > NAME_MAX:
                raise KernelError(Errno.ENAMETOOLONG, "component longer than NAME_MAX")
            if want_parent and not parts:
                self.last = name
                return
            child = vfs.lookup_one(dentry, name, task)
            if child is None:
                raise KernelError(Errno.ENOENT, "no such name")
            target = child.d_inode
            if target.i_mode & S_IFMT == S_IFLNK and (parts or follow or self.must_be_dir):
                self._follow_link(target, parts, at_end=not parts)
                continue
            self.dentry = child
            if child.d_mounted:
                self._follow_mount()

    def _follow_mount(self) -> None:
        """Step onto whatever is mounted here."""
        mounts = self.vfs.mounts
        while self.dentry.d_mounted:
            mounted = mounts.at(self.mnt, self.dentry)
            if mounted is None:
                return
            if self.resolve & RESOLVE_NO_XDEV:
                raise KernelError(Errno.EXDEV, "RESOLVE_NO_XDEV and a mount point")
            self.mnt = mounted
            self.dentry = mounted.mnt_root

    def _follow_dotdot(self) -> None:
        root = self.root
        while True:
            if self.dentry is root.dentry and self.mnt is root.mnt:
                if self.beneath:
                    raise KernelError(Errno.EXDEV, "RESOLVE_BENEATH and .. above the start")
                break
            if self.dentry is not self.mnt.mnt_root:
                self.dentry = self.dentry.d_parent
                break
            if self.mnt.mnt_parent is self.mnt:
                break
            if self.resolve & RESOLVE_NO_XDEV:
                raise KernelError(Errno.EXDEV, "RESOLVE_NO_XDEV and .. out of a mount")
            self.dentry = self.mnt.mnt_mountpoint
            self.mnt = self.mnt.mnt_parent
        self._follow_mount()

    def _follow_link(self, link: Inode, parts: list[bytes], at_end: bool) -> bool:
        """Go where ``link`` (in the current directory) leads: its text goes onto ``parts``.  True: a magic link."""
        self.nr_links += 1
        if self.nr_links > MAX_LINKS:
            raise KernelError(Errno.ELOOP, "more than 40 symbolic links")
        if self.resolve & RESOLVE_NO_SYMLINKS:
            raise KernelError(Errno.ELOOP, "RESOLVE_NO_SYMLINKS")
        if self.mnt.mnt_flags & MS_NOSYMFOLLOW:
            raise KernelError(Errno.ELOOP, "mount does not follow symbolic links")
        if at_end:
            self._may_follow_link(link)
        target = link.get_link(self.task)
        if isinstance(target, Path):
            self._jump(target)
            return True
        if not target:
            raise KernelError(Errno.ENOENT, "empty symbolic link")
        if target.startswith(b"/"):
            if self.beneath:
                raise KernelError(Errno.EXDEV, "RESOLVE_BENEATH and an absolute link")
            if self.resolve & RESOLVE_NO_XDEV and self.mnt is not self.root.mnt:
                raise KernelError(Errno.EXDEV, "RESOLVE_NO_XDEV and a link to another mount")
            self.mnt, self.dentry = self.root
        parts.extend(self._split(target) if at_end else [p for p in reversed(target.split(b"/")) if p])
        if not parts:
            self.last_type = LastType.ROOT
        return False

    def _jump(self, target: Path) -> None:
        """nd_jump_link(): a magic link of /proc leads to a place, not to a name."""
        if self.resolve & RESOLVE_NO_MAGICLINKS:
            raise KernelError(Errno.ELOOP, "RESOLVE_NO_MAGICLINKS")
        if self.resolve & (RESOLVE_BENEATH | RESOLVE_IN_ROOT):
            raise KernelError(Errno.EXDEV, "a magic link leaves the scope of openat2")
        if self.resolve & RESOLVE_NO_XDEV and target.mnt is not self.mnt:
            raise KernelError(Errno.EXDEV, "RESOLVE_NO_XDEV and a magic link to another mount")
        self.mnt, self.dentry = target

    def _may_follow_link(self, link: Inode) -> None:
        """fs.protected_symlinks: in a sticky directory that all may write, only your own links and the owner's."""
        task = self.task
        if task is None or not self.vfs.kernel.sysctl.protected_symlinks:
            return
        directory = self.dentry.d_inode
        if directory.i_mode & (S_ISVTX | 0o002) != S_ISVTX | 0o002:
            return
        if link.i_uid not in (task.creds.fsuid, directory.i_uid):
            raise KernelError(Errno.EACCES, "fs.protected_symlinks")


def path_lookup(
    vfs: Vfs, task: Task | None, dirfd: int, name: bytes, flags: int = LOOKUP_FOLLOW, resolve: int = 0
) -> Path:
    """The place that ``name`` leads to, seen from ``dirfd`` (AT_FDCWD: the working directory)."""
    if not name and not flags & LOOKUP_EMPTY:
        raise KernelError(Errno.ENOENT, "empty path")
    walk = Walk(vfs, task, dirfd, name, resolve)
    if not name:
        return walk.path
    if flags & LOOKUP_DIRECTORY:
        walk.must_be_dir = True
    return walk.to_end(name, flags & LOOKUP_FOLLOW != 0)


def parent_lookup(vfs: Vfs, task: Task | None, dirfd: int, name: bytes) -> Walk:
    """The walk, stopped at the directory of ``name``'s last component."""
    if not name:
        raise KernelError(Errno.ENOENT, "empty path")
    walk = Walk(vfs, task, dirfd, name)
    walk.to_parent(name)
    return walk
