"""Opening what is no data: devices, FIFOs, sockets.

Models ``fs/char_dev.c`` (``chrdev_open``), ``fs/inode.c`` (``init_special_inode``).  Device numbers are looked up in
:data:`CHRDEVS`, which kernel/fs/chardev.py and kernel/fs/tty fill; host devices are never opened.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from kernel.abi.errno import Errno, KernelError
from kernel.abi.stat import S_IFCHR, S_IFDIR, S_IFIFO, S_IFMT, dev_major
from kernel.fs.dirfile import DirFile
from kernel.fs.pipe import open_fifo

if TYPE_CHECKING:
    from kernel.fs.dcache import Path
    from kernel.fs.file import File
    from kernel.fs.inode import Inode
    from kernel.task.task import Task

Opener = Callable[["Task | None", "Path", "Inode", int], "File | Generator[Any, Any, File]"]

CHRDEVS: dict[int, Opener] = {}
"""Device number (``makedev``) -> what opens it."""
MAJORS: dict[int, Opener] = {}
"""What opens the other devices of a major number."""


def register_chrdev(rdev: int, opener: Opener) -> None:
    CHRDEVS[rdev] = opener


def register_major(major: int, opener: Opener) -> None:
    MAJORS[major] = opener


def open_special(inode: Inode, task: Task | None, path: Path, flags: int) -> File | Generator[Any, Any, File]:
    """The open file of anything but a regular file."""
    kind = inode.i_mode & S_IFMT
    if kind == S_IFDIR:
        return DirFile(path, inode, flags)
    if kind == S_IFIFO:
        return open_fifo(inode, path, flags)
    if kind == S_IFCHR:
        opener = CHRDEVS.get(inode.i_rdev) or MAJORS.get(dev_major(inode.i_rdev))
        if opener is None:
            raise KernelError(Errno.ENXIO, f"no driver for character device major {dev_major(inode.i_rdev)}")
        return opener(task, path, inode, flags)
    raise KernelError(Errno.ENXIO, "block devices and sockets cannot be opened")
