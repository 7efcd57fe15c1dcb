"""/sys: the few files that programs read.

Models ``fs/sysfs`` with the entries of one processor, one memory node, and transparent huge pages that never come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.abi.errno import Errno, KernelError
from kernel.abi.stat import SYSFS_MAGIC
from kernel.fs.dcache import Dentry
from kernel.fs.procfs.base import PseudoSuper, Reader, StaticDir, TextInode

if TYPE_CHECKING:
    from kernel.fs.vfs import Vfs
    from kernel.task.task import Task

_THP = "kernel/mm/transparent_hugepage"
_CPU = "devices/system/cpu"
_FILES = (
    (f"{_CPU}/online", "0\n"),
    (f"{_CPU}/offline", "\n"),
    (f"{_CPU}/possible", "0\n"),
    (f"{_CPU}/present", "0\n"),
    (f"{_CPU}/isolated", "\n"),
    (f"{_CPU}/kernel_max", "8191\n"),
    (f"{_CPU}/cpu0/online", "1\n"),
    (f"{_CPU}/cpu0/topology/core_id", "0\n"),
    (f"{_CPU}/cpu0/topology/physical_package_id", "0\n"),
    (f"{_CPU}/cpu0/topology/thread_siblings", "1\n"),
    (f"{_CPU}/cpu0/topology/thread_siblings_list", "0\n"),
    (f"{_CPU}/cpu0/topology/core_siblings", "1\n"),
    (f"{_CPU}/cpu0/topology/core_siblings_list", "0\n"),
    ("devices/system/node/online", "0\n"),
    ("devices/system/node/possible", "0\n"),
    ("devices/system/node/node0/cpulist", "0\n"),
    ("devices/system/node/node0/cpumap", "1\n"),
    (f"{_THP}/enabled", "always madvise [never]\n"),
    (f"{_THP}/defrag", "always defer defer+madvise [madvise] never\n"),
    (f"{_THP}/shmem_enabled", "always within_size advise [never] deny force\n"),
    (f"{_THP}/use_zero_page", "0\n"),
    (f"{_THP}/hpage_pmd_size", "2097152\n"),
    ("kernel/mm/ksm/run", "0\n"),
    ("kernel/mm/lru_gen/enabled", "0x0000\n"),
)
_DIRECTORIES = ("block", "bus", "class/net/lo", "dev", "firmware", "fs/cgroup", "kernel", "module", "power")


class SysfsSuper(PseudoSuper):
    s_blocksize = 4096

    def __init__(self, vfs: Vfs) -> None:
        super().__init__(vfs, "sysfs", SYSFS_MAGIC)
        root = StaticDir(self, self.new_ino(), 0o755)
        for path in _DIRECTORIES:
            _directory(root, path)
        for path, text in _FILES:
            place, _slash, name = path.rpartition("/")
            inode = TextInode(self, self.new_ino(), 0o644 if path.startswith(_THP) else 0o444, _shower(text), _refuse)
            inode.i_size = 4096
            _directory(root, place).add(name, inode)
        for path, text in (("address", "00:00:00:00:00:00\n"), ("mtu", "65536\n"), ("operstate", "unknown\n")):
            _directory(root, "class/net/lo").add_text(path, _shower(text))
        self.s_root = Dentry(b"/", None, root, self)


def _shower(text: str) -> Reader:
    return lambda task: text


def _refuse(task: Task | None, data: bytes) -> None:
    raise KernelError(Errno.EINVAL, "the machine has no such feature to switch")


def _directory(root: StaticDir, path: str) -> StaticDir:
    place = root
    for part in path.split("/"):
        below = place.children.get(part.encode())
        if below is None:
            below = place.add_dir(part)
            below.i_mode = below.i_mode & ~0o777 | 0o755
        assert isinstance(below, StaticDir)
        place = below
    return place


def make_sysfs(vfs: Vfs) -> SysfsSuper:
    for sb in vfs.superblocks:
        if isinstance(sb, SysfsSuper):
            return sb
    return SysfsSuper(vfs)
