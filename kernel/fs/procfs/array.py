"""/proc/PID/stat, status, limits, io, and other short texts about a task.

Models ``fs/proc/array.c`` and ``fs/proc/base.c`` of Linux 6.18.

Deliberate differences: one processor, no groups of tasks (cgroup), no seccomp; I/O is counted in no file (io: zeros).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.abi.resource import RLIM_INFINITY
from kernel.abi.signal import SIG_DFL, SIG_IGN
from kernel.abi.stat import dev_major, dev_minor
from kernel.mm.task_mmu import status_text
from kernel.mm.types import PAGE_SHIFT
from kernel.task.cred import ptrace_may_access
from kernel.task.exit import task_usage, thread_group_usage
from kernel.task.task import TaskState

if TYPE_CHECKING:
    from kernel.task.cred import Cred
    from kernel.task.task import Task

NS_PER_TICK = 10_000_000
"""USER_HZ is 100."""
_CAP_LAST = 41
_STATES = {
    "R": "R (running)",
    "S": "S (sleeping)",
    "D": "D (disk sleep)",
    "T": "T (stopped)",
    "Z": "Z (zombie)",
    "X": "X (dead)",
}
_PF_RANDOMIZE = 0x0040_0000
_NR_MEMS_WORDS = 32


def escape_name(name: str, special: str = "\n\\") -> str:
    """A task's name with the characters that would break the line as octal numbers."""
    return "".join(f"\\{ord(char):03o}" if char in special else char for char in name)


def ppid_of(task: Task) -> int:
    return 0 if task.parent is task else task.parent.tgid


def signal_sets(task: Task) -> tuple[int, int]:
    """The signals that are ignored, and those with a handler, as bit sets."""
    ignored = caught = 0
    for nr, action in enumerate(task.sighand.action):
        if action.handler == SIG_IGN:
            ignored |= 1 << nr
        elif action.handler != SIG_DFL:
            caught |= 1 << nr
    return ignored, caught


def tty_nr(task: Task) -> int:
    tty = task.signal.tty
    if tty is None:
        return 0
    major, minor = dev_major(tty.rdev), dev_minor(tty.rdev)
    return (minor & 0xFF) | major << 8 | (minor & ~0xFF) << 12


def stat_text(task: Task, reader: Task | None, whole: bool) -> str:
    """/proc/PID/stat, for the process (``whole``) or one thread."""
    signal, mm = task.signal, task.mm
    usage = thread_group_usage(task) if whole else task_usage(task)
    children = signal.children_usage
    ignored, caught = signal_sets(task)
    tty = signal.tty
    may_see = mm is not None and (reader is None or ptrace_may_access(reader, task))
    fields: list[object] = [
        task.pid, f"({escape_name(task.comm, chr(10))})", task.state_letter, ppid_of(task), signal.pgrp,
        signal.session, tty_nr(task), tty.pgrp if tty is not None else -1, _PF_RANDOMIZE,
        usage.minflt, children.minflt if whole else 0, usage.majflt, children.majflt if whole else 0,
        usage.utime_ns // NS_PER_TICK, usage.stime_ns // NS_PER_TICK,
        children.utime_ns // NS_PER_TICK, children.stime_ns // NS_PER_TICK,
        20 + task.nice if task.policy not in (1, 2) else -1 - task.rt_priority, task.nice, signal.nr_threads, 0,
        task.start_ns // NS_PER_TICK,
        mm.total_vm << PAGE_SHIFT if mm is not None else 0, mm.rss if mm is not None else 0,
        signal.rlimits[5][0],
    ]  # fmt: skip
    if mm is not None and may_see:
        fields += [mm.start_code, mm.end_code, mm.start_stack]
    else:
        fields += [1 if mm is not None else 0, 1 if mm is not None else 0, 0]
    fields += [0, 0, task.pending.signal & 0x7FFFFFFF, task.blocked & 0x7FFFFFFF, ignored & 0x7FFFFFFF]
    fields += [caught & 0x7FFFFFFF, int(task.state is not TaskState.RUNNING), 0, 0, task.exit_signal, 0]
    fields += [task.rt_priority, task.policy, 0, 0, 0]
    if mm is not None and may_see:
        fields += [mm.start_data, mm.end_data, mm.start_brk, mm.arg_start, mm.arg_end, mm.env_start, mm.env_end]
        fields.append(task.exit_code)
    else:
        fields += [0] * 8
    return " ".join(map(str, fields)) + "\n"


def full_status_text(task: Task) -> str:
    """/proc/PID/status."""
    signal, cred = task.signal, task.creds
    fs, files = task._fs, task._files
    lines = [f"Name:\t{escape_name(task.comm)}\n"]
    if fs is not None:
        lines.append(f"Umask:\t{fs.umask:04o}\n")
    groups = "".join(f"{gid} " for gid in cred.groups)
    table_size = 0
    if files is not None:
        table_size = 64
        while table_size < len(files.fdt):
            table_size *= 2
    lines.append(
        f"State:\t{_STATES[task.state_letter]}\nTgid:\t{task.tgid}\nNgid:\t0\nPid:\t{task.pid}\n"
        f"PPid:\t{ppid_of(task)}\nTracerPid:\t0\n"
        f"Uid:\t{cred.uid}\t{cred.euid}\t{cred.suid}\t{cred.fsuid}\n"
        f"Gid:\t{cred.gid}\t{cred.egid}\t{cred.sgid}\t{cred.fsgid}\n"
        f"FDSize:\t{table_size}\nGroups:\t{groups or ' '}\nNStgid:\t{task.tgid}\nNSpid:\t{task.pid}\n"
        f"NSpgid:\t{signal.pgrp}\nNSsid:\t{signal.session}\nKthread:\t0\n"
    )
    if task.mm is not None:
        lines.append(status_text(task.mm))
        lines.append("CoreDumping:\t0\nTHP_enabled:\t0\nuntag_mask:\t0xffffffffffffffff\n")
    lines.append(_signal_lines(task))
    lines.append(_capability_lines(cred))
    lines.append(f"NoNewPrivs:\t{int(task.no_new_privs)}\nSeccomp:\t0\nSeccomp_filters:\t0\n")
    lines.append("Speculation_Store_Bypass:\tvulnerable\nSpeculationIndirectBranch:\talways enabled\n")
    mems = ",".join(["00000000"] * (_NR_MEMS_WORDS - 1) + ["00000001"])
    lines.append(f"Cpus_allowed:\t1\nCpus_allowed_list:\t0\nMems_allowed:\t{mems}\nMems_allowed_list:\t0\n")
    lines.append(f"voluntary_ctxt_switches:\t{task.nvcsw}\nnonvoluntary_ctxt_switches:\t{task.nivcsw}\n")
    return "".join(lines)


def _signal_lines(task: Task) -> str:
    signal = task.signal
    ignored, caught = signal_sets(task)
    queued = len(task.pending.queue) + len(signal.shared_pending.queue)
    return (
        f"Threads:\t{signal.nr_threads}\nSigQ:\t{queued}/{signal.rlimits[11][0]}\n"
        f"SigPnd:\t{task.pending.signal:016x}\nShdPnd:\t{signal.shared_pending.signal:016x}\n"
        f"SigBlk:\t{task.blocked:016x}\nSigIgn:\t{ignored:016x}\nSigCgt:\t{caught:016x}\n"
    )


def _capability_lines(cred: Cred) -> str:
    return (
        f"CapInh:\t{cred.cap_inheritable:016x}\nCapPrm:\t{cred.cap_permitted:016x}\n"
        f"CapEff:\t{cred.cap_effective:016x}\nCapBnd:\t{cred.cap_bset:016x}\nCapAmb:\t{cred.cap_ambient:016x}\n"
    )


_LIMITS = (
    ("Max cpu time", "seconds"),
    ("Max file size", "bytes"),
    ("Max data size", "bytes"),
    ("Max stack size", "bytes"),
    ("Max core file size", "bytes"),
    ("Max resident set", "bytes"),
    ("Max processes", "processes"),
    ("Max open files", "files"),
    ("Max locked memory", "bytes"),
    ("Max address space", "bytes"),
    ("Max file locks", "locks"),
    ("Max pending signals", "signals"),
    ("Max msgqueue size", "bytes"),
    ("Max nice priority", ""),
    ("Max realtime priority", ""),
    ("Max realtime timeout", "us"),
)


def limits_text(task: Task) -> str:
    """/proc/PID/limits."""
    lines = [f"{'Limit':25} {'Soft Limit':20} {'Hard Limit':20} {'Units':10}\n"]
    for (name, unit), (soft, hard) in zip(_LIMITS, task.signal.rlimits, strict=True):
        values = ["unlimited" if value == RLIM_INFINITY else str(value) for value in (soft, hard)]
        lines.append(f"{name:25} {values[0]:20} {values[1]:20} " + (f"{unit:10}\n" if unit else "\n"))
    return "".join(lines)


def io_text(task: Task) -> str:
    return (
        "rchar: 0\nwchar: 0\nsyscr: 0\nsyscw: 0\n"
        f"read_bytes: {task.inblock * 512}\nwrite_bytes: {task.oublock * 512}\ncancelled_write_bytes: 0\n"
    )


def schedstat_text(task: Task) -> str:
    return f"{task.utime_ns + task.stime_ns} 0 {task.nvcsw + task.nivcsw}\n"


def children_text(task: Task) -> str:
    return "".join(f"{child.pid} " for child in task.children)
