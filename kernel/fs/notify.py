"""Telling watchers what happens to files.

Models ``fs/notify/fsnotify.c`` and ``include/linux/fsnotify.h``.  ``SuperBlock.watched`` counts the watches of a file
system, so that callers skip all of this while nobody watches.  The watchers themselves (inotify) are in
kernel/fs/inotify.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from kernel.abi.inotify import (
    IN_ATTRIB,
    IN_CLOSE_NOWRITE,
    IN_CLOSE_WRITE,
    IN_DELETE,
    IN_DELETE_SELF,
    IN_ISDIR,
    IN_MOVE_SELF,
    IN_MOVED_FROM,
    IN_MOVED_TO,
)
from kernel.abi.stat import S_IFDIR, S_IFMT

if TYPE_CHECKING:
    from kernel.fs.dcache import Path
    from kernel.fs.file import File
    from kernel.fs.inode import Inode


class Mark(Protocol):
    """One watch on one inode."""

    def event(self, mask: int, name: bytes, cookie: int) -> None: ...

    def inode_gone(self) -> None:
        """The inode is deleted: the watch ends."""
        ...

    def file_closed(self, file: File) -> None:
        """The last descriptor of an open file on the inode is gone."""
        ...


InodeMarks = list[Mark]


def _tell(inode: Inode, mask: int, name: bytes, cookie: int) -> None:
    marks = inode.i_marks
    if marks:
        for mark in list(marks):
            mark.event(mask, name, cookie)


def _isdir(inode: Inode) -> int:
    return IN_ISDIR if inode.i_mode & S_IFMT == S_IFDIR else 0


def fsnotify_dirent(directory: Inode, mask: int, name: bytes, inode: Inode, cookie: int = 0) -> None:
    """Something happened to the name ``name`` of ``directory``."""
    if directory.i_sb.watched:
        _tell(directory, mask | _isdir(inode), name, cookie)


def fsnotify_path(path: Path, mask: int) -> None:
    """Something happened to the file at ``path``: its own watchers and those of its directory hear of it."""
    dentry = path.dentry
    inode = dentry.d_inode
    if not inode.i_sb.watched:
        return
    mask |= _isdir(inode)
    if not dentry.is_root:
        _tell(dentry.d_parent.d_inode, mask, dentry.d_name, 0)
    _tell(inode, mask, b"", 0)


def fsnotify_file(file: File, mask: int) -> None:
    fsnotify_path(file.f_path, mask)


def fsnotify_close(file: File) -> None:
    fsnotify_path(file.f_path, IN_CLOSE_WRITE if file.writable else IN_CLOSE_NOWRITE)


def fsnotify_unlink(directory: Inode, name: bytes, inode: Inode) -> None:
    """The name is gone already; ``i_nlink`` is the new count."""
    if inode.i_sb.watched:
        if inode.i_mode & S_IFMT != S_IFDIR:
            _tell(inode, IN_ATTRIB, b"", 0)
        _tell(directory, IN_DELETE | _isdir(inode), name, 0)


def fsnotify_inode_gone(inode: Inode) -> None:
    """The last name and the last user are gone."""
    marks = inode.i_marks
    if marks:
        for mark in list(marks):
            mark.event(IN_DELETE_SELF, b"", 0)
            mark.inode_gone()


def fsnotify_move(old_dir: Inode, old_name: bytes, new_dir: Inode, new_name: bytes, inode: Inode, cookie: int) -> None:
    if inode.i_sb.watched:
        isdir = _isdir(inode)
        _tell(old_dir, IN_MOVED_FROM | isdir, old_name, cookie)
        _tell(new_dir, IN_MOVED_TO | isdir, new_name, cookie)
        _tell(inode, IN_MOVE_SELF, b"", 0)
