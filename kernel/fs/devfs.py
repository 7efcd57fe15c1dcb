"""/dev: the nodes that every program expects.

Models ``drivers/base/devtmpfs.c`` and what udev adds to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.abi.stat import S_IFCHR, makedev
from kernel.fs import chardev as _chardev  # noqa: F401 - registers the memory devices
from kernel.fs.memfs import MemSuper
from kernel.fs.permission import Owner
from kernel.fs.store import Space

if TYPE_CHECKING:
    from kernel.fs.vfs import Vfs

DEVTMPFS_PAGES = 1024

# name, mode, major, minor
_NODES = (
    (b"console", 0o600, 5, 1),
    (b"full", 0o666, 1, 7),
    (b"kmsg", 0o644, 1, 11),
    (b"null", 0o666, 1, 3),
    (b"ptmx", 0o666, 5, 2),
    (b"random", 0o666, 1, 8),
    (b"tty", 0o666, 5, 0),
    (b"urandom", 0o666, 1, 9),
    (b"zero", 0o666, 1, 5),
)
_LINKS = (
    (b"fd", b"/proc/self/fd"),
    (b"stderr", b"/proc/self/fd/2"),
    (b"stdin", b"/proc/self/fd/0"),
    (b"stdout", b"/proc/self/fd/1"),
)
_ROOT = Owner(0, 0)


class DevtmpfsSuper(MemSuper):
    s_type = "devtmpfs"
    dirent_size = 20


def make_devtmpfs(vfs: Vfs) -> DevtmpfsSuper:
    """A file system with the standard nodes and the directories pts and shm to mount on."""
    sb = DevtmpfsSuper(vfs.kernel, vfs.new_anon_dev(), Space(DEVTMPFS_PAGES), 0o755)
    assert sb.s_root is not None
    root = sb.s_root.d_inode
    for name, mode, major, minor in _NODES:
        root.mknod(name, S_IFCHR | mode, makedev(major, minor), _ROOT)
    for name, target in _LINKS:
        root.symlink(name, target, _ROOT)
    root.mkdir(b"pts", 0o755, _ROOT)
    root.mkdir(b"shm", 0o1777, _ROOT)
    return sb
