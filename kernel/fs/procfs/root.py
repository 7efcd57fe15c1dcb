"""/proc itself: the machine's files, self, and a directory for each process.

Models ``fs/proc/root.c``, ``fs/proc/self.c`` and ``proc_pid_readdir`` of ``fs/proc/base.c``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.abi.stat import S_IFDIR, Kstat, mode_to_dtype
from kernel.fs.dcache import Dentry, Path
from kernel.fs.inode import DirEntry, Inode
from kernel.fs.procfs import system
from kernel.fs.procfs.base import PROC_SUPER_MAGIC, LinkInode, PseudoSuper, StaticDir, TextInode, VolatileDir
from kernel.fs.procfs.pid import PidDir
from kernel.fs.procfs.sysctl import fill_sys
from kernel.mm.vmstat import meminfo_text, swaps_text, vmstat_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from kernel.fs.file import File
    from kernel.fs.vfs import Vfs
    from kernel.kernel import Kernel
    from kernel.task.task import Task


class ProcSuper(PseudoSuper):
    """The one proc file system of the machine."""

    def __init__(self, vfs: Vfs) -> None:
        super().__init__(vfs, "proc", PROC_SUPER_MAGIC)
        root = ProcRoot(self)
        self.s_root = Dentry(b"/", None, root, self)


_MACHINE_TEXTS: tuple[tuple[str, Callable[[Kernel], str]], ...] = (
    ("cpuinfo", system.cpuinfo_text),
    ("devices", system.devices_text),
    ("filesystems", system.filesystems_text),
    ("loadavg", system.loadavg_text),
    ("locks", system.locks_text),
    ("meminfo", meminfo_text),
    ("stat", system.stat_text),
    ("swaps", swaps_text),
    ("uptime", system.uptime_text),
    ("version", system.version_text),
    ("vmstat", vmstat_text),
)
_FIXED_TEXTS = (
    ("cgroups", "#subsys_name\thierarchy\tnum_cgroups\tenabled\n"),
    ("cmdline", "\n"),
    ("consoles", "tty0                 -WU (EC p  )    4:1\n"),
    ("diskstats", ""),
    ("dma", ""),
    ("execdomains", "0-0\tLinux           \t[kernel]\n"),
    ("interrupts", "           CPU0       \n"),
    ("modules", ""),
    ("partitions", "major minor  #blocks  name\n\n"),
    ("softirqs", "                    CPU0       \n"),
)


class KpageInode(TextInode):
    __slots__ = ()

    def open(self, task: Task | None, path: Path, flags: int) -> File:
        return system.KpageFile(path, self, flags, None, None)


class ProcRoot(VolatileDir):
    __slots__ = ("fixed",)

    def __init__(self, sb: PseudoSuper) -> None:
        super().__init__(sb, 1)
        sb._last_ino = 0xF000_0000  # PROC_DYNAMIC_FIRST
        kernel = sb.kernel
        self.fixed = fixed = StaticDir(sb, sb.new_ino())
        for name, show in _MACHINE_TEXTS:
            fixed.add_text(name, lambda task, show=show: show(kernel))  # type: ignore[misc]
        for name, text in _FIXED_TEXTS:
            fixed.add_text(name, lambda task, text=text: text)  # type: ignore[misc]
        fixed.add_text("kmsg", lambda task: system.kmsg_text(kernel), 0o400)
        for name in ("kpagecount", "kpageflags"):
            fixed.add(name, KpageInode(sb, sb.new_ino(), 0o400, None))
        fixed.add("mounts", LinkInode(sb, sb.new_ino(), lambda task: b"self/mounts"))
        fixed.add("net", LinkInode(sb, sb.new_ino(), lambda task: b"self/net"))
        fixed.add("self", LinkInode(sb, sb.new_ino(), lambda task: b"%d" % system.task_of(task).tgid))
        fixed.add("thread-self", LinkInode(sb, sb.new_ino(), _thread_self))
        fill_sys(fixed.add_dir("sys"), kernel)
        pressure = fixed.add_dir("pressure")
        for name in ("cpu", "io", "memory"):
            line = "avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
            pressure.add_text(name, lambda task, line=line: f"some {line}full {line}")  # type: ignore[misc]
        self.i_nlink = fixed.i_nlink

    def find(self, name: bytes, task: Task | None) -> Inode | None:
        found = self.fixed.children.get(name)
        if found is not None:
            return found
        if not name.isdigit() or name.startswith(b"0"):
            return None
        process = self.i_sb.kernel.tasks.get(int(name))
        return self._pid_dir(process) if process is not None else None

    def _pid_dir(self, task: Task) -> Inode:
        sb = self.i_sb
        assert isinstance(sb, PseudoSuper)
        return sb.once((task, "pid"), lambda: PidDir(sb, task, True))

    def getattr(self) -> Kstat:
        """Every process is a link more."""
        nr_processes = len(self.i_sb.kernel.pids.thread_group_leaders())
        return super().getattr()._replace(nlink=self.fixed.i_nlink + nr_processes)

    def entries(self, task: Task | None = None) -> list[DirEntry]:
        kernel = self.i_sb.kernel
        found = self.fixed.entries()
        for leader in sorted(kernel.pids.thread_group_leaders(), key=lambda leader: leader.pid):
            found.append(DirEntry(b"%d" % leader.pid, self._pid_dir(leader).i_ino, mode_to_dtype(S_IFDIR)))
        return found


def _thread_self(task: Task | None) -> bytes:
    reader = system.task_of(task)
    return b"%d/task/%d" % (reader.tgid, reader.pid)


def make_proc(vfs: Vfs) -> PseudoSuper:
    for sb in vfs.superblocks:
        if isinstance(sb, ProcSuper):
            return sb
    return ProcSuper(vfs)
