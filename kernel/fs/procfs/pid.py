"""/proc/PID and /proc/PID/task/TID: which entries there are, and who may use them.

Models ``fs/proc/base.c``.

Deliberate differences: no map_files, attr, sched and stack; the links of ns show numbers only and lead nowhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from kernel.abi.errno import Errno, KernelError
from kernel.abi.stat import S_IFDIR, S_IFLNK, S_IFREG, mode_to_dtype
from kernel.fs.inode import DirEntry, Inode
from kernel.fs.permission import CAP_SYS_RESOURCE, capable
from kernel.fs.procfs import array, mounts
from kernel.fs.procfs.base import LinkInode, PseudoSuper, TextInode, VolatileDir
from kernel.fs.procfs.fd import FdDir, FdInfoDir
from kernel.fs.procfs.mem import (
    ClearRefsFile,
    MemFile,
    MmFile,
    MmInode,
    PagemapFile,
    auxv_bytes,
    cmdline_bytes,
    environ_bytes,
)
from kernel.fs.procfs.net import make_net_dir
from kernel.mm.task_mmu import maps_text, smaps_rollup_text, smaps_text, statm_text
from kernel.task.cred import SUID_DUMP_USER, ptrace_may_access
from kernel.task.task import COMM_LEN, TaskState

if TYPE_CHECKING:
    from kernel.fs.dcache import Path
    from kernel.mm.types import MmStruct
    from kernel.task.task import Task

_NS_NUMBERS = {
    "cgroup": 4026531835, "ipc": 4026531839, "mnt": 4026531832, "net": 4026531833, "pid": 4026531836,
    "pid_for_children": 4026531836, "time": 4026531834, "time_for_children": 4026531834, "user": 4026531837,
    "uts": 4026531838,
}  # fmt: skip
_ID_MAP = "         0          0 4294967295\n"


class PidEntry(NamedTuple):
    """One name in /proc/PID."""

    name: str
    mode: int
    make: Callable[[PseudoSuper, Task, int], Inode]
    """(file system, task, mode with type) -> inode."""
    process_only: bool = False
    """Not in /proc/PID/task/TID."""


def _owner(task: Task, mode: int) -> tuple[int, int]:
    """task_dump_owner(): root's for undumpable processes, except for files that all may read."""
    if mode != S_IFDIR | 0o555 and task.mm is not None and task.mm.dumpable != SUID_DUMP_USER:
        return 0, 0
    return task.creds.euid, task.creds.egid


Maker = Callable[[PseudoSuper, "Task", int], Inode]


def _text(
    show: Callable[[Task, Task | None], str | bytes], store: Callable[[Task, Task | None, bytes], None] | None = None
) -> Maker:
    """A text about the task, for a reader."""

    def make(sb: PseudoSuper, task: Task, mode: int) -> Inode:
        def read(reader: Task | None) -> str | bytes:
            _check_alive(task)
            return show(task, reader)

        def write(writer: Task | None, data: bytes) -> None:
            _check_alive(task)
            if store is not None:
                store(task, writer, data)

        writer = write if store is not None else None
        return TextInode(sb, sb.new_ino(), mode & 0o777, read, writer, *_owner(task, mode))

    return make


def _private(show: Callable[[Task], str | bytes]) -> Maker:
    """A text that only the process itself and those who may trace it can read."""

    def checked(task: Task, reader: Task | None) -> str | bytes:
        if reader is not None and not ptrace_may_access(reader, task):
            raise KernelError(Errno.EACCES, "another user's process")
        return show(task)

    return _text(checked)


def _of_mm(show: Callable[[MmStruct], str | bytes]) -> Callable[[Task], str | bytes]:
    return lambda task: show(task.mm) if task.mm is not None else ""


def _mm_file(kind: type[MmFile]) -> Maker:
    def make(sb: PseudoSuper, task: Task, mode: int) -> Inode:
        return MmInode(Inode(sb, sb.new_ino(), mode, *_owner(task, mode)), task, kind)

    return make


def _link(place: Callable[[Task], Path]) -> Maker:
    """A magic link to a place that the task holds."""

    def make(sb: PseudoSuper, task: Task, mode: int) -> Inode:
        def checked(reader: Task | None) -> Path:
            if reader is not None and not ptrace_may_access(reader, task):
                raise KernelError(Errno.EACCES, "another user's process")
            return place(task)

        return LinkInode(
            sb, sb.new_ino(), lambda reader: task.kernel.vfs.path_text(checked(reader), reader), checked, 0o777,
            _owner(task, mode),
        )  # fmt: skip

    return make


def _exe(task: Task) -> Path:
    mm = task.mm
    if mm is None or mm.exe_file is None:
        raise KernelError(Errno.ENOENT, "the task runs no program")
    return mm.exe_file.f_path


def _cwd(task: Task) -> Path:
    if task._fs is None:
        raise KernelError(Errno.ENOENT, "the task has exited")
    return task._fs.cwd


def _root(task: Task) -> Path:
    if task._fs is None:
        raise KernelError(Errno.ENOENT, "the task has exited")
    return task._fs.root


def _check_alive(task: Task) -> None:
    if task.state is TaskState.DEAD:
        raise KernelError(Errno.ESRCH, "the task is gone")


# ---- files that can be written --------------------------------------------------------------------------------------


def _write_comm(task: Task, writer: Task | None, data: bytes) -> None:
    if writer is not None and writer.signal is not task.signal:
        raise KernelError(Errno.EINVAL, "another process's name")
    task.comm = data.rstrip(b"\n")[: COMM_LEN - 1].decode("utf-8", "surrogateescape")


def _number(data: bytes) -> int:
    try:
        return int(data.strip())
    except ValueError:
        raise KernelError(Errno.EINVAL, "not a number") from None


def _set_oom_score_adj(task: Task, writer: Task | None, value: int) -> None:
    if not -1000 <= value <= 1000:
        raise KernelError(Errno.EINVAL, "oom_score_adj is -1000 to 1000")
    if value < task.signal.oom_score_adj and not capable(writer, CAP_SYS_RESOURCE):
        raise KernelError(Errno.EACCES, "lowering oom_score_adj needs CAP_SYS_RESOURCE")
    task.signal.oom_score_adj = value


def _write_oom_adj(task: Task, writer: Task | None, data: bytes) -> None:
    value = _number(data)
    if not (-16 <= value <= 15 or value == -17):
        raise KernelError(Errno.EINVAL, "oom_adj is -17 to 15")
    _set_oom_score_adj(task, writer, 1000 if value == 15 else value * 1000 // 17)


def _oom_adj(task: Task, reader: Task | None) -> str:
    adj = task.signal.oom_score_adj
    return f"{15 if adj == 1000 else int(adj * 17 / 1000)}\n"


def _oom_score(task: Task, reader: Task | None) -> str:
    return f"{task.kernel.oom.oom_score(task)}\n"


def _write_timerslack(task: Task, writer: Task | None, data: bytes) -> None:
    value = _number(data)
    task.timer_slack_ns = value or task.default_timer_slack_ns


def _wchan(task: Task, reader: Task | None) -> str:
    return "0" if task.state is TaskState.RUNNING else "schedule"


def _syscall(task: Task) -> str:
    if task.state is TaskState.RUNNING:
        return "running\n"
    from kernel.hardware import Reg

    regs = task.regs
    args = " ".join(f"{regs.read(reg):#x}" for reg in (Reg.RDI, Reg.RSI, Reg.RDX, Reg.R10, Reg.R8, Reg.R9))
    return f"{task.syscall_nr} {args} {regs.read(Reg.RSP):#x} {regs.read(Reg.RIP):#x}\n"


# ---- the table ------------------------------------------------------------------------------------------------------

_REG, _DIR, _LNK = S_IFREG, S_IFDIR, S_IFLNK
_ENTRIES = (
    PidEntry("task", _DIR | 0o555, lambda sb, task, mode: TaskDir(sb, task), process_only=True),
    PidEntry("fd", _DIR | 0o500, lambda sb, task, mode: FdDir(sb, task)),
    PidEntry("fdinfo", _DIR | 0o555, lambda sb, task, mode: FdInfoDir(sb, task)),
    PidEntry("ns", _DIR | 0o511, lambda sb, task, mode: NsDir(sb, task)),
    PidEntry("net", _DIR | 0o555, lambda sb, task, mode: make_net_dir(sb), process_only=True),
    PidEntry("environ", _REG | 0o400, _private(environ_bytes)),
    PidEntry("auxv", _REG | 0o400, _private(auxv_bytes)),
    PidEntry("status", _REG | 0o444, _text(lambda task, reader: array.full_status_text(task))),
    PidEntry("personality", _REG | 0o400, _private(lambda task: f"{task.personality:08x}\n")),
    PidEntry("limits", _REG | 0o444, _text(lambda task, reader: array.limits_text(task))),
    PidEntry("comm", _REG | 0o644, _text(lambda task, reader: task.comm + "\n", _write_comm)),
    PidEntry("syscall", _REG | 0o400, _private(_syscall)),
    PidEntry("cmdline", _REG | 0o444, _text(lambda task, reader: cmdline_bytes(task))),
    PidEntry("stat", _REG | 0o444, _text(lambda task, reader: array.stat_text(task, reader, True))),
    PidEntry("statm", _REG | 0o444,
             _text(lambda task, reader: statm_text(task.mm) if task.mm is not None else "0 0 0 0 0 0 0\n")),
    PidEntry("maps", _REG | 0o444, _private(_of_mm(maps_text))),
    PidEntry("mem", _REG | 0o600, _mm_file(MemFile)),
    PidEntry("cwd", _LNK | 0o777, _link(_cwd)),
    PidEntry("root", _LNK | 0o777, _link(_root)),
    PidEntry("exe", _LNK | 0o777, _link(_exe)),
    PidEntry("mounts", _REG | 0o444, _text(lambda task, reader: mounts.mounts_text(task))),
    PidEntry("mountinfo", _REG | 0o444, _text(lambda task, reader: mounts.mountinfo_text(task))),
    PidEntry("mountstats", _REG | 0o400, _text(lambda task, reader: mounts.mountstats_text(task)), process_only=True),
    PidEntry("clear_refs", _REG | 0o200, _mm_file(ClearRefsFile)),
    PidEntry("smaps", _REG | 0o444, _private(_of_mm(smaps_text))),
    PidEntry("smaps_rollup", _REG | 0o444, _private(_of_mm(smaps_rollup_text))),
    PidEntry("pagemap", _REG | 0o400, _mm_file(PagemapFile)),
    PidEntry("wchan", _REG | 0o444, _text(_wchan)),
    PidEntry("schedstat", _REG | 0o444, _text(lambda task, reader: array.schedstat_text(task))),
    PidEntry("cpuset", _REG | 0o444, _text(lambda task, reader: "/\n")),
    PidEntry("cgroup", _REG | 0o444, _text(lambda task, reader: "0::/\n")),
    PidEntry("oom_score", _REG | 0o444, _text(_oom_score)),
    PidEntry("oom_adj", _REG | 0o644, _text(_oom_adj, _write_oom_adj)),
    PidEntry("oom_score_adj", _REG | 0o644,
             _text(lambda task, reader: f"{task.signal.oom_score_adj}\n",
                   lambda task, writer, data: _set_oom_score_adj(task, writer, _number(data)))),
    PidEntry("loginuid", _REG | 0o444, _text(lambda task, reader: "4294967295")),
    PidEntry("sessionid", _REG | 0o444, _text(lambda task, reader: "4294967295")),
    PidEntry("coredump_filter", _REG | 0o444, _text(lambda task, reader: "00000033\n"), process_only=True),
    PidEntry("io", _REG | 0o400, _private(array.io_text)),
    PidEntry("uid_map", _REG | 0o444, _text(lambda task, reader: _ID_MAP)),
    PidEntry("gid_map", _REG | 0o444, _text(lambda task, reader: _ID_MAP)),
    PidEntry("projid_map", _REG | 0o444, _text(lambda task, reader: _ID_MAP)),
    PidEntry("setgroups", _REG | 0o444, _text(lambda task, reader: "allow\n")),
    PidEntry("timens_offsets", _REG | 0o444,
             _text(lambda task, reader: "monotonic           0         0\nboottime            0         0\n"),
             process_only=True),
    PidEntry("timerslack_ns", _REG | 0o666,
             _text(lambda task, reader: f"{task.timer_slack_ns}\n", _write_timerslack), process_only=True),
    PidEntry("children", _REG | 0o444, _text(lambda task, reader: array.children_text(task))),
)  # fmt: skip


class PidDir(VolatileDir):
    """/proc/PID (``whole``) or /proc/PID/task/TID."""

    __slots__ = ("subject", "whole")

    def __init__(self, sb: PseudoSuper, task: Task, whole: bool) -> None:
        super().__init__(sb, sb.new_ino(), 0o555, task.creds.euid, task.creds.egid)
        self.subject = task
        self.whole = whole
        self.i_nlink = 9 if whole else 7

    def _table(self) -> list[PidEntry]:
        if self.whole:
            return [entry for entry in _ENTRIES if entry.name != "children"]
        return [entry for entry in _ENTRIES if not entry.process_only]

    def find(self, name: bytes, task: Task | None) -> Inode | None:
        if self.subject.state is TaskState.DEAD:
            return None
        text = name.decode("latin-1")
        for entry in self._table():
            if entry.name == text:
                return self._inode(entry)
        return None

    def _inode(self, entry: PidEntry) -> Inode:
        sb, task = self.i_sb, self.subject
        assert isinstance(sb, PseudoSuper)
        if entry.name == "stat" and not self.whole:
            make = _text(lambda task, reader: array.stat_text(task, reader, False))
        else:
            make = entry.make
        return sb.once((task, self.whole, entry.name), lambda: make(sb, task, entry.mode))

    def entries(self, task: Task | None = None) -> list[DirEntry]:
        if self.subject.state is TaskState.DEAD:
            raise KernelError(Errno.ENOENT, "the task is gone")
        return [
            DirEntry(entry.name.encode(), self._inode(entry).i_ino, mode_to_dtype(entry.mode))
            for entry in self._table()
        ]


class TaskDir(VolatileDir):
    """/proc/PID/task."""

    __slots__ = ("leader",)

    def __init__(self, sb: PseudoSuper, leader: Task) -> None:
        super().__init__(sb, sb.new_ino(), 0o555, leader.creds.euid, leader.creds.egid)
        self.leader = leader

    def _threads(self) -> list[Task]:
        return sorted(self.leader.signal.threads, key=lambda thread: thread.pid)

    def find(self, name: bytes, task: Task | None) -> Inode | None:
        sb = self.i_sb
        assert isinstance(sb, PseudoSuper)
        for thread in self._threads():
            if b"%d" % thread.pid == name:
                return sb.once((thread, "tid"), lambda thread=thread: PidDir(sb, thread, False))  # type: ignore[misc]
        return None

    def entries(self, task: Task | None = None) -> list[DirEntry]:
        sb = self.i_sb
        assert isinstance(sb, PseudoSuper)
        found = []
        for thread in self._threads():
            inode = self.find(b"%d" % thread.pid, None)
            assert inode is not None
            found.append(DirEntry(b"%d" % thread.pid, inode.i_ino, mode_to_dtype(S_IFDIR)))
        return found


class NsDir(VolatileDir):
    """/proc/PID/ns: there is one name space of each kind."""

    __slots__ = ("subject",)

    def __init__(self, sb: PseudoSuper, task: Task) -> None:
        super().__init__(sb, sb.new_ino(), 0o511, task.creds.euid, task.creds.egid)
        self.subject = task

    def find(self, name: bytes, task: Task | None) -> Inode | None:
        sb, subject = self.i_sb, self.subject
        assert isinstance(sb, PseudoSuper)
        kind = name.decode("latin-1")
        number = _NS_NUMBERS.get(kind)
        if number is None:
            return None
        text = f"{kind.removesuffix('_for_children')}:[{number}]".encode()

        def refuse(reader: Task | None) -> Path:
            raise KernelError(Errno.EACCES, "name spaces cannot be opened")

        owner = subject.creds.euid, subject.creds.egid
        return sb.once(
            (subject, "ns", kind), lambda: LinkInode(sb, sb.new_ino(), lambda reader: text, refuse, 0o777, owner)
        )

    def entries(self, task: Task | None = None) -> list[DirEntry]:
        found = []
        for kind in _NS_NUMBERS:
            inode = self.find(kind.encode(), None)
            assert inode is not None
            found.append(DirEntry(kind.encode(), inode.i_ino, mode_to_dtype(S_IFLNK)))
        return found
