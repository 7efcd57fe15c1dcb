"""/proc/sys: the tunables of kernel/sysctl.py as files.

Models ``fs/proc/proc_sysctl.c`` and ``kernel/sysctl.c`` (``proc_dointvec_minmax`` and friends).

A tunable that is not in kernel/sysctl.py is shown with a fixed value and cannot be written (EPERM).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from kernel.abi.errno import Errno, KernelError
from kernel.abi.utsname import UTS_RELEASE, UTS_SYSNAME, UTS_VERSION
from kernel.fs.procfs.base import StaticDir, TextInode, Writer

if TYPE_CHECKING:
    from kernel.fs.inode import SuperBlock
    from kernel.kernel import Kernel
    from kernel.task.task import Task

_INT_MAX = 0x7FFF_FFFF


class Number(NamedTuple):
    """A writable number: the field of ``kernel.sysctl`` and its limits."""

    path: str
    field: str
    low: int = 0
    high: int = _INT_MAX
    apply: Callable[[Kernel, int], None] | None = None
    """What a new value does at once."""


def _set_watermarks(kernel: Kernel, min_free_kbytes: int) -> None:
    """``setup_per_zone_wmarks``."""
    kernel.pages.set_watermarks(min_free_kbytes // 4)


_NUMBERS = (
    Number("vm/max_map_count", "max_map_count"),
    Number("vm/overcommit_memory", "overcommit_memory", 0, 2),
    Number("vm/overcommit_ratio", "overcommit_ratio"),
    Number("vm/overcommit_kbytes", "overcommit_kbytes", 0, 1 << 62),
    Number("vm/mmap_min_addr", "mmap_min_addr", 0, 1 << 47),
    Number("vm/swappiness", "swappiness", 0, 200),
    Number("vm/panic_on_oom", "panic_on_oom", 0, 2),
    Number("vm/oom_kill_allocating_task", "oom_kill_allocating_task", 0, 1),
    Number("vm/laptop_mode", "laptop_mode"),
    Number("vm/dirty_ratio", "dirty_ratio", 0, 100),
    Number("vm/dirty_background_ratio", "dirty_background_ratio", 0, 100),
    Number("vm/min_free_kbytes", "min_free_kbytes", apply=_set_watermarks),
    Number("vm/page-cluster", "page_cluster", 0, 31),
    Number("vm/admin_reserve_kbytes", "admin_reserve_kbytes", 0, 1 << 62),
    Number("vm/user_reserve_kbytes", "user_reserve_kbytes", 0, 1 << 62),
    Number("kernel/pid_max", "pid_max", 301, 4194304),
    Number("kernel/threads-max", "threads_max", 1, _INT_MAX),
    Number("kernel/randomize_va_space", "randomize_va_space", 0, 2),
    Number("fs/pipe-max-size", "pipe_max_size", 4096, 1 << 31),
    Number("fs/file-max", "file_max", 0, 1 << 62),
    Number("fs/nr_open", "nr_open", 64, 0x7FFF_FFC0),
    Number("fs/protected_hardlinks", "protected_hardlinks", 0, 1),
    Number("fs/protected_symlinks", "protected_symlinks", 0, 1),
)
_STRINGS = (
    ("kernel/hostname", "hostname", 64),
    ("kernel/domainname", "domainname", 64),
    ("kernel/core_pattern", "core_pattern", 127),
)
_FIXED = (
    ("kernel/ostype", UTS_SYSNAME),
    ("kernel/osrelease", UTS_RELEASE),
    ("kernel/version", UTS_VERSION),
    ("kernel/cap_last_cap", "40"),
    ("kernel/ngroups_max", "65536"),
    ("kernel/overflowuid", "65534"),
    ("kernel/overflowgid", "65534"),
    ("kernel/core_uses_pid", "0"),
    ("kernel/core_pipe_limit", "0"),
    ("kernel/dmesg_restrict", "0"),
    ("kernel/kptr_restrict", "0"),
    ("kernel/perf_event_paranoid", "2"),
    ("kernel/panic", "0"),
    ("kernel/printk", "4\t4\t1\t7"),
    ("kernel/sem", "32000\t1024000000\t500\t32000"),
    ("kernel/shmmax", "18446744073692774399"),
    ("kernel/shmall", "18446744073692774399"),
    ("kernel/shmmni", "4096"),
    ("kernel/msgmax", "8192"),
    ("kernel/msgmnb", "16384"),
    ("kernel/msgmni", "32000"),
    ("kernel/sched_rr_timeslice_ms", "100"),
    ("kernel/sched_rt_period_us", "1000000"),
    ("kernel/sched_rt_runtime_us", "950000"),
    ("kernel/tainted", "0"),
    ("kernel/seccomp/actions_avail", ""),
    ("kernel/yama/ptrace_scope", "0"),
    ("kernel/random/entropy_avail", "256"),
    ("kernel/random/poolsize", "256"),
    ("kernel/pty/max", "4096"),
    ("kernel/pty/nr", "0"),
    ("vm/legacy_va_layout", "0"),
    ("vm/nr_hugepages", "0"),
    ("vm/nr_overcommit_hugepages", "0"),
    ("vm/vfs_cache_pressure", "100"),
    ("vm/zone_reclaim_mode", "0"),
    ("vm/watermark_scale_factor", "10"),
    ("vm/dirty_expire_centisecs", "3000"),
    ("vm/dirty_writeback_centisecs", "500"),
    ("vm/dirty_bytes", "0"),
    ("vm/dirty_background_bytes", "0"),
    ("vm/mmap_rnd_bits", "28"),
    ("vm/memfd_noexec", "0"),
    ("vm/oom_dump_tasks", "1"),
    ("vm/unprivileged_userfaultfd", "0"),
    ("fs/inotify/max_queued_events", "16384"),
    ("fs/inotify/max_user_instances", "128"),
    ("fs/inotify/max_user_watches", "65536"),
    ("fs/epoll/max_user_watches", "1048576"),
    ("fs/suid_dumpable", "0"),
    ("fs/pipe-user-pages-hard", "0"),
    ("fs/pipe-user-pages-soft", "16384"),
    ("fs/leases-enable", "0"),
    ("fs/mount-max", "100000"),
    ("fs/overflowuid", "65534"),
    ("fs/overflowgid", "65534"),
    ("fs/file-nr", "512\t0\t1048576"),
    ("fs/protected_fifos", "0"),
    ("fs/protected_regular", "0"),
    ("net/core/somaxconn", "4096"),
    ("net/core/rmem_default", "212992"),
    ("net/core/wmem_default", "212992"),
    ("net/core/rmem_max", "212992"),
    ("net/core/wmem_max", "212992"),
    ("net/ipv4/ip_local_port_range", "32768\t60999"),
    ("net/ipv4/ip_unprivileged_port_start", "1024"),
    ("net/ipv4/tcp_syncookies", "1"),
    ("net/unix/max_dgram_qlen", "10"),
)


def fill_sys(root: StaticDir, kernel: Kernel) -> None:
    """Put all tunables below ``root`` (/proc/sys)."""
    for number in _NUMBERS:
        _add(root, number.path, _number_inode(root.i_sb, kernel, number))
    for path, field, limit in _STRINGS:
        _add(root, path, _string_inode(root.i_sb, kernel, field, limit))
    for path, value in _FIXED:
        _add(root, path, _fixed_inode(root.i_sb, value))
    sb = root.i_sb
    _add(root, "kernel/random/uuid", TextInode(sb, sb.new_ino(), 0o444, lambda task: _uuid(kernel)))
    boot_id = _uuid_from(0x7061_6765, 0)
    _add(root, "kernel/random/boot_id", TextInode(sb, sb.new_ino(), 0o444, lambda task: boot_id))
    _add(root, "vm/drop_caches", TextInode(sb, sb.new_ino(), 0o200, None, _drop_caches(kernel)))


def _add(root: StaticDir, path: str, inode: TextInode) -> None:
    *directories, name = path.split("/")
    place = root
    for part in directories:
        below = place.children.get(part.encode())
        if below is None:
            below = place.add_dir(part)
        assert isinstance(below, StaticDir)
        place = below
    place.add(name, inode)


def _number_inode(sb: SuperBlock, kernel: Kernel, number: Number) -> TextInode:
    def show(task: Task | None) -> str:
        return f"{getattr(kernel.sysctl, number.field)}\n"

    def store(task: Task | None, data: bytes) -> None:
        text = data.split(b"\0")[0].strip().split()
        if not text:
            return
        try:
            value = int(text[0], 0)
        except ValueError:
            raise KernelError(Errno.EINVAL, "not a number") from None
        if not number.low <= value <= number.high:
            raise KernelError(Errno.EINVAL, f"{number.path} is {number.low} to {number.high}")
        setattr(kernel.sysctl, number.field, value)
        if number.apply is not None:
            number.apply(kernel, value)

    return TextInode(sb, sb.new_ino(), 0o644, show, store)


def _string_inode(sb: SuperBlock, kernel: Kernel, field: str, limit: int) -> TextInode:
    def show(task: Task | None) -> str:
        return f"{getattr(kernel.sysctl, field)}\n"

    def store(task: Task | None, data: bytes) -> None:
        text = data.split(b"\n")[0].split(b"\0")[0][:limit]
        setattr(kernel.sysctl, field, text.decode("utf-8", "surrogateescape"))

    return TextInode(sb, sb.new_ino(), 0o644, show, store)


def _fixed_inode(sb: SuperBlock, value: str) -> TextInode:
    def refuse(task: Task | None, data: bytes) -> None:
        raise KernelError(Errno.EPERM, "this tunable is fixed")

    return TextInode(sb, sb.new_ino(), 0o444, lambda task: value + "\n", refuse)


def _uuid(kernel: Kernel) -> str:
    return _uuid_from(kernel.rng.getrandbits(64), kernel.rng.getrandbits(64))


def _uuid_from(high: int, low: int) -> str:
    """A version 4 UUID from 128 bits."""
    high = high & ~0xF000 | 0x4000
    low = low & ~(3 << 62) | 2 << 62
    text = f"{high:016x}{low:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}\n"


def _drop_caches(kernel: Kernel) -> Writer:
    """Writing 1 drops clean page cache, 2 names and inodes, 3 both."""

    def store(task: Task | None, data: bytes) -> None:
        from kernel.mm.filemap import invalidate_mapping_pages

        text = data.strip()
        if text not in (b"1", b"2", b"3", b"4"):
            raise KernelError(Errno.EINVAL, "drop_caches is 1 to 4")
        what = int(text)
        if what & 1:
            for mapping in list(kernel.pages.mappings):
                invalidate_mapping_pages(mapping)
        if what & 2:
            kernel.vfs.dcache.prune_all()

    return store
