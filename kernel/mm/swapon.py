"""What a program may give to swapon: the machine's swap device, or a regular file.

Models ``swapon``/``swapoff`` of ``mm/swapfile.c`` as far as they deal with files.  Manual: swapon(2).

Deliberate differences: the machine's devices are known by name (``/dev/vda``) whether or not there is a node of that
name; a swap file may still be written by others (Linux: ETXTBSY).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.abi.errno import Errno, KernelError
from kernel.abi.fcntl import AT_FDCWD, O_RDWR
from kernel.abi.stat import S_IFBLK, S_IFMT, S_IFREG
from kernel.fs.file import File, fput
from kernel.mm.filemap import filemap_write_and_wait, invalidate_mapping_pages
from kernel.mm.swap import SwapArea, SwapDevice
from kernel.mm.swapoff import do_swapoff
from kernel.mm.types import PAGE_SHIFT, PAGE_SIZE

if TYPE_CHECKING:
    from kernel.fs.inode import Inode
    from kernel.kernel import Kernel
    from kernel.task.task import Task

_SECTOR_SHIFT = 9


class FileBackedDevice:
    """A regular file of the guest as a swap device, below its page cache."""

    def __init__(self, file: File) -> None:
        self.file = file
        self._inode: Inode = file.f_inode

    @property
    def nr_pages(self) -> int:
        return self._inode.i_size >> PAGE_SHIFT

    def read_pages(self, offset: int, frames: list[memoryview]) -> None:
        try:
            data = memoryview(self._inode.readpages(offset, len(frames)))
        except KernelError as error:
            raise OSError(error.errno, error.reason) from error
        for i, frame in enumerate(frames):
            frame[:] = data[i * PAGE_SIZE : (i + 1) * PAGE_SIZE]

    def write_pages(self, offset: int, frames: list[memoryview]) -> None:
        try:
            for i, frame in enumerate(frames):
                self._inode.writepage(offset + i, bytes(frame))
        except KernelError as error:
            raise OSError(error.errno, error.reason) from error


def swapon(task: Task, name: bytes, prio: int | None) -> None:
    """Use the device or file ``name`` for swapping.

    KernelError: EINVAL (no swap space, not a file that can be swapped to), EBUSY (in use already), EPERM (too many
    areas), and what opening gives.
    """
    kernel = task.kernel
    path, device = _machine_device(task, name)
    if device is not None:
        if _area_named(kernel, path) is not None:
            raise KernelError(Errno.EBUSY, "device is in use for swapping")
        kernel.swap.swapon_device(device, path, prio)
        return
    file = kernel.vfs.open(task, AT_FDCWD, name, O_RDWR)
    if not isinstance(file, File):
        raise KernelError(Errno.EINVAL, "not a file that can be swapped to")
    try:
        area = _swapon_file(kernel, file, path, prio)
    except KernelError:
        fput(file)
        raise
    area.inode = file.f_inode
    area.is_partition = False


def _swapon_file(kernel: Kernel, file: File, path: bytes, prio: int | None) -> SwapArea:
    inode = file.f_inode
    mapping = inode.i_mapping
    if inode.i_mode & S_IFMT != S_IFREG or mapping is None or mapping.is_shmem:
        raise KernelError(Errno.EINVAL, "not a file that can be swapped to")
    if any(area.inode is inode for area in kernel.swap.active_areas()):
        raise KernelError(Errno.EBUSY, "file is in use for swapping")
    filemap_write_and_wait(mapping)
    if inode.blocks() << _SECTOR_SHIFT < inode.i_size & -PAGE_SIZE:
        raise KernelError(Errno.EINVAL, "swapfile has holes")
    invalidate_mapping_pages(mapping)
    return kernel.swap.swapon_device(FileBackedDevice(file), path, prio)


def swapoff(task: Task, name: bytes) -> None:
    """Stop swapping to ``name``.  KernelError: EINVAL (not in use), ENOMEM, EIO, and what finding the file gives."""
    kernel = task.kernel
    path, device = _machine_device(task, name)
    if device is not None:
        area = _area_named(kernel, path)
    else:
        inode = kernel.vfs.lookup(task, name).dentry.d_inode
        area = next((found for found in kernel.swap.active_areas() if found.inode is inode), None)
    if area is None:
        raise KernelError(Errno.EINVAL, "not in use for swapping")
    do_swapoff(kernel, area)
    if isinstance(area.device, FileBackedDevice):
        fput(area.device.file)


def _machine_device(task: Task, name: bytes) -> tuple[bytes, SwapDevice | None]:
    """The full name that ``name`` leads to, and the machine's swap device if it is one's.  KernelError: ENOENT ..."""
    kernel = task.kernel
    try:
        path = kernel.vfs.lookup(task, name)
    except KernelError:
        if name in kernel.swap.devices:
            return name, kernel.swap.devices[name]
        raise
    text = kernel.vfs.path_text(path, task)
    if path.dentry.d_inode.i_mode & S_IFMT == S_IFBLK and text not in kernel.swap.devices:
        raise KernelError(Errno.ENXIO, "no such device")
    return text, kernel.swap.devices.get(text)


def _area_named(kernel: Kernel, path: bytes) -> SwapArea | None:
    return next((area for area in kernel.swap.active_areas() if area.path == path), None)
