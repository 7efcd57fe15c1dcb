"""Putting the guest's file systems together: ``mount_root(kernel, host_tree, console)``.

What init and the initramfs do on a real machine:

    /           overlay of the host tree (--root), read only below, changes in memory
    /dev        devtmpfs: the standard nodes; /dev/pts devpts; /dev/shm a fresh tmpfs
    /proc       proc
    /sys        sysfs: the few files that programs read
    DIR         for every --writable DIR, that host directory itself

/tmp, /run and everything else are part of the overlay: programs find the host's files there, and what they write stays
in memory.  A mount point that the host tree lacks is made in the upper layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from kernel.abi.errno import Errno, KernelError
from kernel.abi.fcntl import AT_FDCWD
from kernel.abi.mount import MS_NODEV, MS_NOEXEC, MS_NOSUID
from kernel.fs.devfs import make_devtmpfs
from kernel.fs.dirops import do_mkdirat
from kernel.fs.do_mount import mount_fs, register_filesystem
from kernel.fs.hostdir import HostDirSuper
from kernel.fs.inode import SuperBlock
from kernel.fs.memfs import MemSuper
from kernel.fs.namei import LOOKUP_DIRECTORY, LOOKUP_FOLLOW
from kernel.fs.overlay import OverlaySuper
from kernel.fs.procfs.root import make_proc
from kernel.fs.pseudo import PseudoFs
from kernel.fs.shmfs import ShmSuper
from kernel.fs.store import Space
from kernel.fs.sysfs import make_sysfs
from kernel.fs.tty.devpts import make_devpts
from kernel.fs.vfs import Vfs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kernel.fs.hostfs import HostTree, WritableHostTree
    from kernel.fs.tty import Console
    from kernel.kernel import Kernel

PAGE_SIZE = 4096


class HostFiles(Protocol):
    """What the emulator gives (``emu/hosttree.py``)."""

    @property
    def lower(self) -> HostTree:
        """The host directory that becomes the root."""
        ...

    @property
    def writable(self) -> Sequence[tuple[bytes, WritableHostTree]]:
        """For every --writable directory: where the guest sees it, and its tree."""
        ...


@dataclass
class MountOptions:
    upper_bytes: int = 4 << 30
    """How much the guest may write into the memory behind the root file system, in all."""
    tmpfs_bytes: int | None = None
    """The size of a tmpfs without a size= option; None: half of the machine's RAM."""


def mount_root(kernel: Kernel, host_files: HostFiles, console: Console, options: MountOptions | None = None) -> Vfs:
    """Make ``kernel.vfs`` and ``kernel.console``, mount everything; returns the VFS."""
    options = options or MountOptions()
    vfs = Vfs(kernel)
    kernel.vfs = vfs
    kernel.console = console
    vfs.host = host_files.lower
    vfs.pseudo = PseudoFs(vfs)
    tmpfs_pages = (options.tmpfs_bytes or kernel.physmem.size // 2) // PAGE_SIZE
    _register(tmpfs_pages)
    writable = dict(host_files.writable)
    root: SuperBlock
    if b"/" in writable:
        root = HostDirSuper(kernel, writable.pop(b"/"))
    else:
        root = OverlaySuper(kernel, host_files.lower, Space(options.upper_bytes // PAGE_SIZE))
    vfs.superblocks.append(root)
    assert root.s_root is not None
    root_mount = vfs.mounts.new(root.s_root, root.s_type, 1 << 21)
    vfs.mounts.attach_root(root_mount)
    vfs.root = vfs.path(root_mount, root.s_root)
    device = MS_NOSUID | MS_NOEXEC
    _mount(vfs, b"/dev", make_devtmpfs(vfs), "udev", MS_NOSUID)
    _mount(vfs, b"/dev/pts", make_devpts(vfs, console), "devpts", device)
    _mount(vfs, b"/dev/shm", _make_tmpfs(vfs, {}, tmpfs_pages), "tmpfs", MS_NOSUID | MS_NODEV)
    _mount(vfs, b"/proc", make_proc(vfs), "proc", device | MS_NODEV)
    _mount(vfs, b"/sys", make_sysfs(vfs), "sysfs", device | MS_NODEV)
    for place, tree in writable.items():
        _mount(vfs, place, HostDirSuper(kernel, tree), place.decode("utf-8", "replace"), MS_NODEV)
    return vfs


def _mount(vfs: Vfs, place: bytes, sb: SuperBlock, devname: str, flags: int) -> None:
    """Mount ``sb`` on ``place``, which is made (in memory) if the host tree does not have it."""
    _make_directories(vfs, place)
    try:
        where = vfs.lookup(None, place, flags=LOOKUP_FOLLOW | LOOKUP_DIRECTORY)
    except KernelError:
        return  # the host tree has a file there; it stays as it is
    mount_fs(vfs, sb, where, devname, flags)


def _make_directories(vfs: Vfs, place: bytes) -> None:
    parts = [part for part in place.split(b"/") if part]
    for nr in range(1, len(parts) + 1):
        path = b"/" + b"/".join(parts[:nr])
        try:
            do_mkdirat(vfs, None, AT_FDCWD, path, 0o755)
        except KernelError as error:
            if error.errno != Errno.EEXIST:
                return


def _make_tmpfs(vfs: Vfs, options: dict[str, str], default_pages: int) -> MemSuper:
    size = _size(options.get("size", ""), default_pages)
    mode = options.get("mode", "1777")
    sb = ShmSuper(vfs.kernel, vfs.new_anon_dev(), Space(size), int(mode, 8) if mode.isdigit() else 0o1777)
    sb.s_options = "".join(f",{key}={value}" for key, value in options.items() if key in ("size", "mode"))
    return sb


def _size(text: str, default_pages: int) -> int:
    """size=10M and the like, in pages."""
    if not text:
        return default_pages
    unit = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}.get(text[-1].lower(), 1)
    digits = text[:-1] if unit > 1 else text
    if not digits.isdigit():
        raise KernelError(Errno.EINVAL, "size= of tmpfs")
    return max(1, int(digits) * unit // PAGE_SIZE)


def _register(tmpfs_pages: int) -> None:
    register_filesystem("sysfs", lambda vfs, options: make_sysfs(vfs))
    register_filesystem("tmpfs", lambda vfs, options: _make_tmpfs(vfs, options, tmpfs_pages))
    register_filesystem("ramfs", lambda vfs, options: _make_tmpfs(vfs, options, tmpfs_pages))
    register_filesystem("devtmpfs", lambda vfs, options: make_devtmpfs(vfs))
    register_filesystem("proc", lambda vfs, options: make_proc(vfs))
    register_filesystem("devpts", lambda vfs, options: make_devpts(vfs, vfs.kernel.console))
