"""The system as a whole, random numbers, other processes' memory: uname(2), sysinfo(2), getrandom(2) ...

Models ``kernel/sys.c`` (uname, sethostname, sysinfo), ``drivers/char/random.c``, ``kernel/printk``,
``mm/process_vm_access.c`` and ``kernel/ptrace.c``.
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag

from kernel.abi.capability import Cap
from kernel.abi.errno import Errno, KernelError
from kernel.abi.personality import Personality
from kernel.abi.time import NS_PER_SEC
from kernel.fs.uio import Iovec, import_iovec, user_mm
from kernel.mm.types import MmStruct
from kernel.mm.usercopy import copy_from_user, copy_from_user_some, copy_to_user, copy_to_user_some
from kernel.mm.vmstat import meminfo
from kernel.syscalls.table import (
    BufIn,
    BufOut,
    Int,
    Long,
    Pid,
    Size,
    StructIn,
    StructOut,
    Support,
    ULong,
    UserAddr,
    syscall,
)
from kernel.task.cred import ptrace_may_access, require
from kernel.task.task import Task

UTS_SYSNAME = "Linux"
UTS_RELEASE = "6.18.0-pagewalk"
UTS_RELEASE_26 = "2.6.78-pagewalk"
"""What UNAME26 makes of it."""
UTS_VERSION = "#1 SMP PREEMPT_DYNAMIC Thu Jan  1 00:00:00 UTC 2026"
UTS_MACHINE = "x86_64"
UTS_LEN = 64
_CHUNK = 1 << 20


def utsname(task: Task) -> tuple[str, str, str, str, str, str]:
    """sysname, nodename, release, version, machine, domainname."""
    sysctl = task.kernel.sysctl
    release = UTS_RELEASE_26 if task.personality & Personality.UNAME26 else UTS_RELEASE
    return UTS_SYSNAME, sysctl.hostname, release, UTS_VERSION, UTS_MACHINE, sysctl.domainname


@syscall("uname", x86_64=63, i386=122, group="misc")
def sys_uname(task: Task, name: StructOut("utsname")) -> None:  # type: ignore[valid-type]
    """Names of the system, the same whatever --kernel says."""
    fields = (field.encode("latin-1")[:UTS_LEN].ljust(UTS_LEN + 1, b"\0") for field in utsname(task))
    copy_to_user(user_mm(task), name, b"".join(fields))


def _new_name(task: Task, address: int, length: int) -> str:
    require(task, Cap.CAP_SYS_ADMIN)
    if not 0 <= length <= UTS_LEN:
        raise KernelError(Errno.EINVAL, "name longer than 64 bytes")
    return copy_from_user(user_mm(task), address, length).split(b"\0", 1)[0].decode("latin-1")


@syscall("sethostname", x86_64=170, i386=74, group="misc")
def sys_sethostname(task: Task, name: BufIn, length: Int) -> None:
    """Set the host name."""
    task.kernel.sysctl.hostname = _new_name(task, name, length)


@syscall("setdomainname", x86_64=171, i386=121, group="misc")
def sys_setdomainname(task: Task, name: BufIn, length: Int) -> None:
    """Set the NIS domain name."""
    task.kernel.sysctl.domainname = _new_name(task, name, length)


_SYSINFO = struct.Struct("<q9QHH4xQQI4x")


@syscall("sysinfo", x86_64=99, i386=116, group="misc")
def sys_sysinfo(task: Task, info: StructOut("sysinfo")) -> None:  # type: ignore[valid-type]
    """Uptime, memory and the number of tasks.  Load averages are not kept: 0."""
    kernel = task.kernel
    kib = meminfo(kernel)
    memory = ("MemTotal", "MemFree", "Shmem", "Buffers", "SwapTotal", "SwapFree")
    uptime = -(-kernel.clock.now_ns() // NS_PER_SEC)
    nr_tasks = min(len(kernel.tasks), 0xFFFF)
    data = _SYSINFO.pack(uptime, 0, 0, 0, *(kib[name] * 1024 for name in memory), nr_tasks, 0, 0, 0, 1)
    copy_to_user(user_mm(task), info, data)


class GetrandomFlags(IntFlag):
    GRND_NONBLOCK = 1
    GRND_RANDOM = 2
    GRND_INSECURE = 4


@syscall("getrandom", x86_64=318, i386=355, group="misc", returns="size")
def sys_getrandom(task: Task, ubuf: BufOut, length: Size, flags: GetrandomFlags) -> int:
    """Random bytes: from the seed, the same in every run."""
    bits = int(flags)
    if bits & ~7 or bits & 6 == 6:
        raise KernelError(Errno.EINVAL, "unknown flag, or GRND_RANDOM with GRND_INSECURE")
    mm = user_mm(task)
    length = min(length, 0x7FFF_F000)
    done = 0
    while done < length:
        part = min(length - done, _CHUNK)
        copied = copy_to_user_some(mm, ubuf + done, task.kernel.rng.randbytes(part))
        done += copied
        if copied < part:
            break
    if length and not done:
        raise KernelError(Errno.EFAULT, "bad buffer")
    return done


class SyslogAction(IntEnum):
    SYSLOG_ACTION_CLOSE = 0
    SYSLOG_ACTION_OPEN = 1
    SYSLOG_ACTION_READ = 2
    SYSLOG_ACTION_READ_ALL = 3
    SYSLOG_ACTION_READ_CLEAR = 4
    SYSLOG_ACTION_CLEAR = 5
    SYSLOG_ACTION_CONSOLE_OFF = 6
    SYSLOG_ACTION_CONSOLE_ON = 7
    SYSLOG_ACTION_CONSOLE_LEVEL = 8
    SYSLOG_ACTION_SIZE_UNREAD = 9
    SYSLOG_ACTION_SIZE_BUFFER = 10


LOG_BUF_BYTES = 1 << 18


@syscall(
    "syslog", x86_64=103, i386=103, group="misc", support=Support.PARTIAL, note="the log cannot be consumed or cleared"
)
def sys_syslog(task: Task, action: SyslogAction, buf: BufOut, length: Int) -> int:
    """Read the kernel log."""
    if action == SyslogAction.SYSLOG_ACTION_SIZE_BUFFER:
        return LOG_BUF_BYTES
    if action not in SyslogAction.__members__.values():
        raise KernelError(Errno.EINVAL, f"unknown action {int(action)}")
    if action != SyslogAction.SYSLOG_ACTION_READ_ALL:
        require(task, Cap.CAP_SYSLOG)
    if action in (SyslogAction.SYSLOG_ACTION_CLOSE, SyslogAction.SYSLOG_ACTION_OPEN):
        return 0
    if action == SyslogAction.SYSLOG_ACTION_READ_ALL:
        if not buf or length < 0:
            raise KernelError(Errno.EINVAL, "no buffer")
        text = "".join(f"<6>{line}\n" for line in task.kernel.log_lines).encode()
        text = text[-length:] if length else b""
        copy_to_user(user_mm(task), buf, text)
        return len(text)
    raise KernelError(Errno.EPERM, "the log belongs to the machine's owner")


# ---- other processes' memory ---------------------------------------------------------------------


def _remote_vector(task: Task, address: int, nr: int) -> list[Iovec]:
    if not 0 <= nr <= 1024:
        raise KernelError(Errno.EINVAL, "more than UIO_MAXIOV elements")
    raw = copy_from_user(user_mm(task), address, nr * 16) if nr else b""
    vector = list(struct.iter_unpack("<QQ", raw))
    if any(length >> 63 for _, length in vector):
        raise KernelError(Errno.EINVAL, "negative length in a vector")
    return vector


def _other_mm(task: Task, pid: int) -> MmStruct:
    target = task.kernel.tasks.get(pid)
    if target is None or target.mm is None:
        raise KernelError(Errno.ESRCH, f"no process {pid}")
    if not ptrace_may_access(task, target):
        raise KernelError(Errno.EPERM, "may not look into that process")
    return target.mm


def _pairs(local: list[Iovec], remote: list[Iovec]) -> list[tuple[int, int, int]]:
    """(local address, remote address, length) of the pieces that lie whole in one element of both vectors."""
    pieces: list[tuple[int, int, int]] = []
    i = j = local_used = remote_used = 0
    while i < len(local) and j < len(remote):
        length = min(local[i][1] - local_used, remote[j][1] - remote_used)
        if length:
            pieces.append((local[i][0] + local_used, remote[j][0] + remote_used, length))
        local_used += length
        remote_used += length
        if local_used == local[i][1]:
            i, local_used = i + 1, 0
        if remote_used == remote[j][1]:
            j, remote_used = j + 1, 0
    return pieces


def _process_vm_rw(
    task: Task, pid: int, lvec: int, nr_local: int, rvec: int, nr_remote: int, flags: int, write: bool
) -> int:
    """process_vm_rw_core(): how many bytes were moved before the first bad page; EFAULT if none."""
    if flags:
        raise KernelError(Errno.EINVAL, "flags must be 0")
    local = import_iovec(task, lvec, nr_local)
    remote = _remote_vector(task, rvec, nr_remote)
    if not sum(length for _, length in local) or not remote:
        return 0
    mine, other = user_mm(task), _other_mm(task, pid)
    done = 0
    for local_addr, remote_addr, length in _pairs(local, remote):
        source, target = (mine, other) if write else (other, mine)
        from_addr, to_addr = (local_addr, remote_addr) if write else (remote_addr, local_addr)
        moved = _move(source, from_addr, target, to_addr, length)
        done += moved
        if moved < length:
            break
    if not done and any(length for _, length in remote):
        raise KernelError(Errno.EFAULT, "bad address")
    return done


def _move(source: MmStruct, from_addr: int, target: MmStruct, to_addr: int, length: int) -> int:
    moved = 0
    while moved < length:
        data = copy_from_user_some(source, from_addr + moved, min(length - moved, _CHUNK))
        if not data:
            break
        written = copy_to_user_some(target, to_addr + moved, data)
        moved += written
        if written < len(data):
            break
    return moved


@syscall("process_vm_readv", x86_64=310, i386=347, group="process", returns="size")
def sys_process_vm_readv(
    task: Task,
    pid: Pid,
    lvec: StructIn("iovec"),  # type: ignore[valid-type]
    liovcnt: ULong,
    rvec: StructIn("iovec"),  # type: ignore[valid-type]
    riovcnt: ULong,
    flags: ULong,
) -> int:
    """Copy from another process's memory."""
    return _process_vm_rw(task, pid, lvec, liovcnt, rvec, riovcnt, flags, write=False)


@syscall("process_vm_writev", x86_64=311, i386=348, group="process", returns="size")
def sys_process_vm_writev(
    task: Task,
    pid: Pid,
    lvec: StructIn("iovec"),  # type: ignore[valid-type]
    liovcnt: ULong,
    rvec: StructIn("iovec"),  # type: ignore[valid-type]
    riovcnt: ULong,
    flags: ULong,
) -> int:
    """Copy into another process's memory."""
    return _process_vm_rw(task, pid, lvec, liovcnt, rvec, riovcnt, flags, write=True)


@syscall(
    "ptrace",
    x86_64=101,
    i386=26,
    group="process",
    support=Support.PARTIAL,
    note="always ENOSYS: no tracing inside the guest",
)
def sys_ptrace(task: Task, request: Long, pid: Long, addr: UserAddr, data: UserAddr) -> int:
    """Trace another process: not supported."""
    raise KernelError(Errno.ENOSYS, "ptrace is not supported: use pagewalk trace or the gdb stub from outside")
