"""The files of /proc about the machine.

Models ``fs/proc/*.c``: cpuinfo, stat, uptime, loadavg, version, filesystems, devices, kpagecount, kpageflags ...

Deliberate differences: one processor, no interrupts, no disks: those lines are empty or zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kernel.abi.errno import Errno, KernelError
from kernel.abi.utsname import PROC_VERSION
from kernel.fs.do_mount import FILESYSTEMS
from kernel.fs.procfs.base import TextFile
from kernel.mm.page import (
    PG_active,
    PG_anon,
    PG_dirty,
    PG_lru,
    PG_referenced,
    PG_reserved,
    PG_swapbacked,
    PG_swapcache,
    PG_table,
    PG_uptodate,
    PG_writeback,
)
from kernel.task.task import TaskState

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kernel.kernel import Kernel
    from kernel.task.task import Task

NS_PER_SEC = 1_000_000_000
NS_PER_TICK = 10_000_000

# What the processor model of emu/cpu offers to programs (an EPYC without AVX, see UNICORN notes in emu/cpu).
CPU_FLAGS = (
    "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 syscall nx "
    "mmxext fxsr_opt pdpe1gb rdtscp lm nopl cpuid pni pclmulqdq ssse3 cx16 sse4_1 movbe popcnt aes rdrand lahf_lm "
    "abm sse4a misalignsse 3dnowprefetch fsgsbase bmi1 bmi2 rdseed adx clflushopt"
)


def cpuinfo_text(kernel: Kernel) -> str:
    return (
        "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 23\nmodel\t\t: 49\n"
        "model name\t: AMD EPYC (pagewalk)\nstepping\t: 0\nmicrocode\t: 0x8301038\ncpu MHz\t\t: 100.000\n"
        "cache size\t: 512 KB\nphysical id\t: 0\nsiblings\t: 1\ncore id\t\t: 0\ncpu cores\t: 1\napicid\t\t: 0\n"
        "initial apicid\t: 0\nfpu\t\t: yes\nfpu_exception\t: yes\ncpuid level\t: 13\nwp\t\t: yes\n"
        f"flags\t\t: {CPU_FLAGS}\nbugs\t\t:\nbogomips\t: 200.00\nclflush size\t: 64\ncache_alignment\t: 64\n"
        "address sizes\t: 40 bits physical, 48 bits virtual\npower management:\n\n"
    )


def cpu_times(kernel: Kernel) -> tuple[int, int, int]:
    """User, system and idle time of the machine, in ticks."""
    user = system = 0
    for task in kernel.tasks.values():
        user += task.utime_ns
        system += task.stime_ns
        if task.is_group_leader:
            signal = task.signal
            user += signal.dead_threads.utime_ns + signal.children_usage.utime_ns
            system += signal.dead_threads.stime_ns + signal.children_usage.stime_ns
    idle = max(0, kernel.clock.now_ns() - user - system)
    return user // NS_PER_TICK, system // NS_PER_TICK, idle // NS_PER_TICK


def nr_running(kernel: Kernel) -> int:
    return sum(1 for task in kernel.tasks.values() if task.state is TaskState.RUNNING and task is not kernel.init_task)


def stat_text(kernel: Kernel) -> str:
    user, system, idle = cpu_times(kernel)
    times = f"{user} 0 {system} {idle} 0 0 0 0 0 0"
    boot = (kernel.clock.realtime_ns() - kernel.clock.now_ns()) // NS_PER_SEC
    return (
        f"cpu  {times}\ncpu0 {times}\nintr 0\nctxt {kernel.sched.nr_switches}\nbtime {boot}\n"
        f"processes {kernel.pids.nr_forks}\nprocs_running {nr_running(kernel)}\nprocs_blocked 0\n"
        "softirq 0 0 0 0 0 0 0 0 0 0 0\n"
    )


def uptime_text(kernel: Kernel) -> str:
    _user, _system, idle = cpu_times(kernel)
    centiseconds = kernel.clock.now_ns() // NS_PER_TICK
    return f"{centiseconds // 100}.{centiseconds % 100:02} {idle // 100}.{idle % 100:02}\n"


def loadavg_text(kernel: Kernel) -> str:
    total = sum(1 for task in kernel.tasks.values() if task is not kernel.init_task)
    return f"0.00 0.00 0.00 {max(1, nr_running(kernel))}/{total} {kernel.pids.last_pid}\n"


def version_text(kernel: Kernel) -> str:
    return PROC_VERSION


def filesystems_text(kernel: Kernel) -> str:
    return "".join(f"nodev\t{name}\n" for name in [*FILESYSTEMS, "sockfs", "pipefs", "overlay"])


def devices_text(kernel: Kernel) -> str:
    lines = "  1 mem\n  5 /dev/tty\n  5 /dev/console\n  5 /dev/ptmx\n128 ptm\n136 pts\n"
    return f"Character devices:\n{lines}\nBlock devices:\n"


def locks_text(kernel: Kernel) -> str:
    """/proc/locks: of all files that are open."""
    lines: list[str] = []
    seen = set()
    for task in kernel.tasks.values():
        for _fd, file in task._files or ():
            inode = file.f_inode
            if inode.i_flctx is None or inode in seen:
                continue
            seen.add(inode)
            dev = inode.getattr().dev
            place = f"{dev >> 8 & 0xFFF:02x}:{dev & 0xFF:02x}:{inode.i_ino}"
            for lock in inode.i_flctx.posix:
                kind = "WRITE" if lock.type == 1 else "READ "
                family = "OFDLCK" if lock.pid < 0 else "POSIX "
                end = "EOF" if lock.end == (1 << 63) - 1 else str(lock.end)
                lines.append(f"{len(lines) + 1}: {family} ADVISORY  {kind} {lock.pid} {place} {lock.start} {end}\n")
            for _holder, flock in inode.i_flctx.flocks.items():
                kind = "WRITE" if flock == 2 else "READ "
                lines.append(f"{len(lines) + 1}: FLOCK  ADVISORY  {kind} {task.tgid} {place} 0 EOF\n")
    return "".join(lines)


# ---- the page array -------------------------------------------------------------------------------------------------

_KPF = (
    (PG_referenced, 2), (PG_uptodate, 3), (PG_dirty, 4), (PG_lru, 5), (PG_active, 6), (PG_writeback, 8),
    (PG_anon, 12), (PG_swapcache, 13), (PG_swapbacked, 14), (PG_table, 26), (PG_reserved, 32),
)  # fmt: skip
"""PG_* bit of ours -> bit number of /proc/kpageflags (include/uapi/linux/kernel-page-flags.h)."""
_KPF_MMAP, _KPF_BUDDY, _KPF_NOPAGE = 11, 10, 20


def kpageflags(kernel: Kernel, first: int, last: int) -> bytes:
    pages = kernel.pages
    flags = pages.flags_np[first:last]
    entries: NDArray[np.uint64] = np.zeros(len(flags), np.uint64)
    for ours, bit in _KPF:
        entries[(flags & ours) != 0] |= np.uint64(1 << bit)
    entries[pages.mapcount_np[first:last] > 0] |= np.uint64(1 << _KPF_MMAP)
    entries[pages.refcount_np[first:last] == 0] |= np.uint64(1 << _KPF_BUDDY)
    return entries.tobytes()


def kpagecount(kernel: Kernel, first: int, last: int) -> bytes:
    counts = kernel.pages.mapcount_np[first:last].astype(np.int64)
    return bytes(np.maximum(counts, 0).astype(np.uint64).tobytes())


class KpageFile(TextFile):
    """/proc/kpagecount and kpageflags: eight bytes for each frame."""

    __slots__ = ()

    def pread(self, pos: int, count: int) -> bytes:
        kernel = self.kernel
        if pos & 7 or count & 7:
            raise KernelError(Errno.EINVAL, "entries are of 8 bytes")
        first = pos >> 3
        last = min(first + (count >> 3), kernel.pages.nr_frames)
        if first >= last:
            return b""
        is_count = self.f_path.dentry.d_name == b"kpagecount"
        return kpagecount(kernel, first, last) if is_count else kpageflags(kernel, first, last)


def kmsg_text(kernel: Kernel) -> str:
    return "".join(f"<6>[    0.000000] {line}\n" for line in kernel.log_lines)


def task_of(task: Task | None) -> Task:
    if task is None:
        raise KernelError(Errno.ENOENT, "no task reads")
    return task
