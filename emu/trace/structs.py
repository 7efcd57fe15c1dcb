"""Structures of the x86-64 system-call interface as strace prints them.

Each printer gets the memory to read from and an address, and gives text, or None when the memory is not readable (the
caller then prints the address).  Structures that strace abbreviates (``struct stat``) are abbreviated alike.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import IntFlag
from typing import TYPE_CHECKING

from emu.trace.peek import peek_exactly, peek_string
from emu.trace.quote import flags_text, pointer, quote
from kernel.abi.clone import CloneFlags
from kernel.abi.fcntl import OpenFlags, ResolveFlags
from kernel.abi.poll import PollEvents
from kernel.abi.signal import SIGCHLD, SigactionFlags, si_code_name, signal_name
from kernel.abi.stat import S_IFMT, StatxMask, dev_major, dev_minor

if TYPE_CHECKING:
    from kernel.mm.types import MmStruct

StructPrinter = Callable[["MmStruct | None", int], str | None]

_RLIM_INFINITY = (1 << 64) - 1
_FILE_TYPES = {
    0o140000: "S_IFSOCK", 0o120000: "S_IFLNK", 0o100000: "S_IFREG", 0o060000: "S_IFBLK", 0o040000: "S_IFDIR",
    0o020000: "S_IFCHR", 0o010000: "S_IFIFO",
}  # fmt: skip
_AT_MOST_BYTES = 32
"""strace's -s: string bytes shown."""


def _fields(layout: str) -> Callable[[MmStruct | None, int], tuple[int, ...] | None]:
    packed = struct.Struct(layout)

    def read(mm: MmStruct | None, address: int) -> tuple[int, ...] | None:
        data = peek_exactly(mm, address, packed.size)
        return None if data is None else packed.unpack(data)

    return read


def _plain(names: str, layout: str) -> StructPrinter:
    """A structure of plain numbers: ``{a=1, b=2}``."""
    read, labels = _fields(layout), names.split()

    def text(mm: MmStruct | None, address: int) -> str | None:
        values = read(mm, address)
        if values is None:
            return None
        return "{" + ", ".join(f"{label}={value}" for label, value in zip(labels, values, strict=True)) + "}"

    return text


timespec = _plain("tv_sec tv_nsec", "<qq")
timeval = _plain("tv_sec tv_usec", "<qq")
tms = _plain("tms_utime tms_stime tms_cutime tms_cstime", "<qqqq")
timezone = _plain("tz_minuteswest tz_dsttime", "<ii")
winsize = _plain("ws_row ws_col ws_xpixel ws_ypixel", "<HHHH")


def _pair(first: str, second: str, part: StructPrinter) -> StructPrinter:
    def text(mm: MmStruct | None, address: int) -> str | None:
        one, two = part(mm, address), part(mm, address + 16)
        return None if one is None or two is None else f"{{{first}={one}, {second}={two}}}"

    return text


itimerval = _pair("it_interval", "it_value", timeval)
itimerspec = _pair("it_interval", "it_value", timespec)


def mode_text(mode: int) -> str:
    """``S_IFREG|0644``."""
    kind = _FILE_TYPES.get(mode & S_IFMT)
    permissions = f"0{mode & ~S_IFMT & 0xFFFF:03o}"
    return f"{kind}|{permissions}" if kind else permissions


def device_text(dev: int) -> str:
    return f"makedev({dev_major(dev):#x}, {dev_minor(dev):#x})"


_read_stat = _fields("<QQQIIIIQq88x")


def stat(mm: MmStruct | None, address: int) -> str | None:
    values = _read_stat(mm, address)
    if values is None:
        return None
    mode, rdev, size = values[3], values[7], values[8]
    if mode & S_IFMT in (0o020000, 0o060000):
        return f"{{st_mode={mode_text(mode)}, st_rdev={device_text(rdev)}, ...}}"
    return f"{{st_mode={mode_text(mode)}, st_size={size}, ...}}"


_read_statx = _fields("<IIQIIIHxxQQ")


def statx(mm: MmStruct | None, address: int) -> str | None:
    values = _read_statx(mm, address)
    if values is None:
        return None
    mask, _blksize, attributes, _nlink, _uid, _gid, mode, _ino, size = values
    return (
        f"{{stx_mask={flags_text(StatxMask, mask)}, stx_attributes={attributes:#x}, "
        f"stx_mode={mode_text(mode)}, stx_size={size}, ...}}"
    ).replace("stx_attributes=0x0,", "stx_attributes=0,")


_read_statfs = _fields("<qqQQQQQIIqqq")
_FILE_SYSTEMS = {
    0xEF53: "EXT2_SUPER_MAGIC", 0x01021994: "TMPFS_MAGIC", 0x9FA0: "PROC_SUPER_MAGIC",
    0x794C7630: "OVERLAYFS_SUPER_MAGIC",
    0x50495045: "PIPEFS_MAGIC", 0x62656572: "SYSFS_MAGIC", 0x1CD1: "DEVPTS_SUPER_MAGIC", 0x58465342: "XFS_SUPER_MAGIC",
    0x9123683E: "BTRFS_SUPER_MAGIC",
}  # fmt: skip


def statfs(mm: MmStruct | None, address: int) -> str | None:
    values = _read_statfs(mm, address)
    if values is None:
        return None
    kind, bsize, blocks, bfree, bavail, files, ffree, id0, id1, namelen, frsize, _flags = values
    return (
        f"{{f_type={_FILE_SYSTEMS.get(kind, f'{kind:#x}')}, f_bsize={bsize}, f_blocks={blocks}, f_bfree={bfree}, "
        f"f_bavail={bavail}, f_files={files}, f_ffree={ffree}, f_fsid={{val=[{id0:#x}, {id1:#x}]}}, "
        f"f_namelen={namelen}, f_frsize={frsize}, ...}}"
    )


def signal_set_text(mask: int) -> str:
    """``[INT CHLD]``; ``~[...]`` when most are set."""
    inverted = mask.bit_count() * 3 > 64 * 2
    if inverted:
        mask ^= (1 << 64) - 1
    names = [_short_signal(sig) for sig in range(1, 65) if mask >> (sig - 1) & 1]
    return f"{'~' if inverted else ''}[{' '.join(names)}]"


def _short_signal(sig: int) -> str:
    name = signal_name(sig).removeprefix("SIG")
    return "RTMIN" if name == "RT_0" else name


_read_u64 = _fields("<Q")
_read_int = _fields("<i")
_read_uint = _fields("<I")


def sigset(mm: MmStruct | None, address: int) -> str | None:
    values = _read_u64(mm, address)
    return None if values is None else signal_set_text(values[0])


_read_sigaction = _fields("<QQQQ")


def sigaction(mm: MmStruct | None, address: int) -> str | None:
    values = _read_sigaction(mm, address)
    if values is None:
        return None
    handler, flags, restorer, mask = values
    handler_text = {0: "SIG_DFL", 1: "SIG_IGN"}.get(handler) or f"{handler:#x}"
    text = (
        f"sa_handler={handler_text}, sa_mask={signal_set_text(mask)}, "
        f"sa_flags={flags_text(SigactionFlags, flags & 0xFFFFFFFF)}"
    )
    if flags & SigactionFlags.SA_RESTORER:
        text += f", sa_restorer={pointer(restorer)}"
    return f"{{{text}}}"


_read_stack = _fields("<QiIQ")


def stack_t(mm: MmStruct | None, address: int) -> str | None:
    values = _read_stack(mm, address)
    if values is None:
        return None
    names = [
        name for bit, name in ((1, "SS_ONSTACK"), (2, "SS_DISABLE"), (1 << 31, "SS_AUTODISARM")) if values[1] & bit
    ]
    return f"{{ss_sp={pointer(values[0])}, ss_flags={'|'.join(names) or 0}, ss_size={values[3]}}}"


_FAULT_SIGNALS = ("SIGILL", "SIGFPE", "SIGSEGV", "SIGBUS", "SIGTRAP")


def siginfo_text(signo: int, code: int, data: bytes) -> str:
    """``{si_signo=SIGSEGV, si_code=SEGV_MAPERR, si_addr=NULL}`` from the 128 bytes of a siginfo_t."""
    name = signal_name(signo)
    text = f"si_signo={name}, si_code={si_code_name(signo, code)}"
    if 0 < code < 0x80 and name in _FAULT_SIGNALS:
        text += f", si_addr={pointer(struct.unpack_from('<Q', data, 16)[0])}"
    elif 0 < code < 0x80 and signo == SIGCHLD:
        pid, uid, status = struct.unpack_from("<iIi", data, 16)
        utime, stime = struct.unpack_from("<qq", data, 32)
        shown = status if code == 1 else signal_name(status & 0x7F)
        text += f", si_pid={pid}, si_uid={uid}, si_status={shown}, si_utime={utime}, si_stime={stime}"
    elif code == -2:
        timer, overrun, value = struct.unpack_from("<iiQ", data, 16)
        text += f", si_timerid={timer:#x}, si_overrun={overrun}, si_int={value & 0xFFFFFFFF}, si_ptr={pointer(value)}"
    elif code <= 0:
        pid, uid = struct.unpack_from("<iI", data, 16)
        text += f", si_pid={pid}, si_uid={uid}"
    return f"{{{text}}}"


def siginfo(mm: MmStruct | None, address: int) -> str | None:
    data = peek_exactly(mm, address, 128)
    if data is None:
        return None
    signo, _errno, code = struct.unpack_from("<iii", data)
    return siginfo_text(signo, code, data) if signo else "{}"


_read_rlimit = _fields("<QQ")


def _limit_text(value: int) -> str:
    if value == _RLIM_INFINITY:
        return "RLIM64_INFINITY"
    return f"{value // 1024}*1024" if value > 1024 and value % 1024 == 0 else str(value)


def rlimit(mm: MmStruct | None, address: int) -> str | None:
    values = _read_rlimit(mm, address)
    return None if values is None else f"{{rlim_cur={_limit_text(values[0])}, rlim_max={_limit_text(values[1])}}}"


def rusage(mm: MmStruct | None, address: int) -> str | None:
    utime, stime = timeval(mm, address), timeval(mm, address + 16)
    return None if utime is None or stime is None else f"{{ru_utime={utime}, ru_stime={stime}, ...}}"


def utsname(mm: MmStruct | None, address: int) -> str | None:
    data = peek_exactly(mm, address, 390)
    if data is None:
        return None
    sysname, nodename = (data[at : at + 65].split(b"\0", 1)[0] for at in (0, 65))
    return f"{{sysname={quote(sysname)}, nodename={quote(nodename)}, ...}}"


_read_sysinfo = _fields("<qQQQQQQQQQHxxxxxxQQI4x")


def sysinfo(mm: MmStruct | None, address: int) -> str | None:
    values = _read_sysinfo(mm, address)
    if values is None:
        return None
    names = "totalram freeram sharedram bufferram totalswap freeswap procs totalhigh freehigh mem_unit".split()
    rest = ", ".join(f"{name}={value}" for name, value in zip(names, values[4:], strict=True))
    return f"{{uptime={values[0]}, loads=[{values[1]}, {values[2]}, {values[3]}], {rest}}}"


_read_flock = _fields("<hhxxxxqqi4x")


def flock(mm: MmStruct | None, address: int) -> str | None:
    values = _read_flock(mm, address)
    if values is None:
        return None
    kind = {0: "F_RDLCK", 1: "F_WRLCK", 2: "F_UNLCK"}.get(values[0], str(values[0]))
    whence = {0: "SEEK_SET", 1: "SEEK_CUR", 2: "SEEK_END"}.get(values[1], str(values[1]))
    return f"{{l_type={kind}, l_whence={whence}, l_start={values[2]}, l_len={values[3]}}}"


class EpollEvents(IntFlag):
    """``struct epoll_event.events``: poll's bits and four of its own (<linux/eventpoll.h>)."""

    EPOLLIN = 0x1
    EPOLLPRI = 0x2
    EPOLLOUT = 0x4
    EPOLLERR = 0x8
    EPOLLHUP = 0x10
    EPOLLNVAL = 0x20
    EPOLLRDNORM = 0x40
    EPOLLRDBAND = 0x80
    EPOLLWRNORM = 0x100
    EPOLLWRBAND = 0x200
    EPOLLMSG = 0x400
    EPOLLRDHUP = 0x2000
    EPOLLEXCLUSIVE = 1 << 28
    EPOLLWAKEUP = 1 << 29
    EPOLLONESHOT = 1 << 30
    EPOLLET = 1 << 31


_read_epoll = _fields("<IQ")


def epoll_event(mm: MmStruct | None, address: int) -> str | None:
    values = _read_epoll(mm, address)
    if values is None:
        return None
    data = values[1]
    return f"{{events={flags_text(EpollEvents, values[0])}, data={{u32={data & 0xFFFFFFFF}, u64={data}}}}}"


def clone_args(mm: MmStruct | None, address: int) -> str | None:
    values = _fields("<8Q")(mm, address)
    if values is None:
        return None
    flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls = values
    parts = [f"flags={flags_text(CloneFlags, flags)}"]
    if flags & CloneFlags.CLONE_PIDFD:
        parts.append(f"pidfd={pointer(pidfd)}")
    if flags & (CloneFlags.CLONE_CHILD_SETTID | CloneFlags.CLONE_CHILD_CLEARTID):
        parts.append(f"child_tid={pointer(child_tid)}")
    if flags & CloneFlags.CLONE_PARENT_SETTID:
        parts.append(f"parent_tid={pointer(parent_tid)}")
    parts.append(f"exit_signal={signal_name(exit_signal) if exit_signal else 0}")
    parts += [f"stack={pointer(stack)}", f"stack_size={stack_size:#x}" if stack_size else "stack_size=0"]
    if flags & CloneFlags.CLONE_SETTLS:
        parts.append(f"tls={pointer(tls)}")
    return f"{{{', '.join(parts)}}}"


def open_how(mm: MmStruct | None, address: int) -> str | None:
    values = _fields("<QQQ")(mm, address)
    if values is None:
        return None
    mode = f", mode=0{values[1]:03o}" if values[1] else ""
    return f"{{flags={flags_text(OpenFlags, values[0])}{mode}, resolve={flags_text(ResolveFlags, values[2])}}}"


def sockaddr(mm: MmStruct | None, address: int, length: int) -> str | None:
    data = peek_exactly(mm, address, max(0, min(length, 128)))
    if data is None or len(data) < 2:
        return None
    family = int.from_bytes(data[:2], "little")
    if family == 1:
        if len(data) == 2:
            return "{sa_family=AF_UNIX}"
        path = data[2:]
        abstract = path[:1] == b"\0"
        name = "@" + quote(path[1:]) if abstract else quote(path.split(b"\0", 1)[0])
        return f"{{sa_family=AF_UNIX, sun_path={name}}}"
    if family == 2 and len(data) >= 8:
        port, host = int.from_bytes(data[2:4], "big"), ".".join(str(byte) for byte in data[4:8])
        return f'{{sa_family=AF_INET, sin_port=htons({port}), sin_addr=inet_addr("{host}")}}'
    if family == 10 and len(data) >= 24:
        import ipaddress

        port, host6 = int.from_bytes(data[2:4], "big"), ipaddress.IPv6Address(data[8:24])
        return f'{{sa_family=AF_INET6, sin6_port=htons({port}), inet_pton(AF_INET6, "{host6}", &sin6_addr), ...}}'
    return f"{{sa_family={family:#x}, sa_data={quote(data[2:])}}}"


def array(part: StructPrinter, size: int) -> Callable[[MmStruct | None, int, int], str | None]:
    """``count`` structures of ``size`` bytes in brackets; at most 32 are shown."""

    def text(mm: MmStruct | None, address: int, count: int) -> str | None:
        if count == 0:
            return "[]"
        shown: list[str] = []
        for index in range(min(count, 32)):
            one = part(mm, address + index * size)
            if one is None:
                if not shown:
                    return None
                shown.append(f"... /* {address + index * size:#x} */")
                break
            shown.append(one)
        else:
            if count > 32:
                shown.append("...")
        return f"[{', '.join(shown)}]"

    return text


_read_iovec = _fields("<QQ")


def iovecs(mm: MmStruct | None, address: int, count: int, limit: int | None) -> str | None:
    """``limit`` bytes of content are shown (what was read), None all, -1 only addresses."""
    left = limit

    def one(mm: MmStruct | None, at: int) -> str | None:
        nonlocal left
        values = _read_iovec(mm, at)
        if values is None:
            return None
        base, length = values
        if left == -1:
            return f"{{iov_base={pointer(base)}, iov_len={length}}}"
        nr_bytes = length if left is None else min(length, left)
        if left is not None:
            left -= nr_bytes
        return f"{{iov_base={buffer_text(mm, base, nr_bytes)}, iov_len={length}}}"

    return array(one, 16)(mm, address, count)


def buffer_text(mm: MmStruct | None, address: int, length: int) -> str:
    """The bytes at ``address``, the first 32 of them; the address when they are not readable."""
    data = peek_exactly(mm, address, min(length, _AT_MOST_BYTES))
    return pointer(address) if data is None else quote(data, ellipsis=length > _AT_MOST_BYTES)


def string_text(mm: MmStruct | None, address: int, max_len: int = 4096) -> str:
    found = peek_string(mm, address, max_len) if address else None
    return pointer(address) if found is None else quote(found[0], ellipsis=not found[1])


_read_pollfd = _fields("<ihh")


def pollfd_event(mm: MmStruct | None, address: int) -> str | None:
    values = _read_pollfd(mm, address)
    if values is None:
        return None
    fd, events, _ = values
    return f"{{fd={fd}}}" if fd < 0 else f"{{fd={fd}, events={flags_text(PollEvents, events & 0xFFFF)}}}"


def ready_fds(mm: MmStruct | None, address: int, count: int) -> str:
    """What poll(2) found: the entries whose ``revents`` is not zero."""
    found = []
    for index in range(count):
        values = _read_pollfd(mm, address + 8 * index)
        if values is not None and values[2]:
            found.append(f"{{fd={values[0]}, revents={flags_text(PollEvents, values[2] & 0xFFFF)}}}")
    return f"[{', '.join(found)}]"


def fd_set(mm: MmStruct | None, address: int, nfds: int) -> str | None:
    data = peek_exactly(mm, address, (max(0, min(nfds, 1024)) + 63) // 64 * 8)
    if data is None:
        return None
    bits = int.from_bytes(data, "little")
    return f"[{' '.join(str(fd) for fd in range(min(nfds, 1024)) if bits >> fd & 1)}]"


def int_at(mm: MmStruct | None, address: int) -> str | None:
    values = _read_int(mm, address)
    return None if values is None else f"[{values[0]}]"


def uint_at(mm: MmStruct | None, address: int) -> str | None:
    values = _read_uint(mm, address)
    return None if values is None else f"[{values[0]}]"


def pointer_at(mm: MmStruct | None, address: int) -> str | None:
    values = _read_u64(mm, address)
    return None if values is None else f"[{pointer(values[0])}]"


def fd_pair(mm: MmStruct | None, address: int) -> str | None:
    values = _fields("<ii")(mm, address)
    return None if values is None else f"[{values[0]}, {values[1]}]"


def wait_status(mm: MmStruct | None, address: int) -> str | None:
    """``[{WIFEXITED(s) && WEXITSTATUS(s) == 0}]``."""
    values = _read_int(mm, address)
    if values is None:
        return None
    status = values[0] & 0xFFFFFFFF
    if status == 0xFFFF:
        text = "WIFCONTINUED(s)"
    elif status & 0xFF == 0x7F:
        text = f"WIFSTOPPED(s) && WSTOPSIG(s) == {signal_name(status >> 8 & 0xFF)}"
    elif status & 0x7F:
        core = " && WCOREDUMP(s)" if status & 0x80 else ""
        text = f"WIFSIGNALED(s) && WTERMSIG(s) == {signal_name(status & 0x7F)}{core}"
    else:
        text = f"WIFEXITED(s) && WEXITSTATUS(s) == {status >> 8 & 0xFF}"
    return f"[{{{text}}}]"


def string_array(mm: MmStruct | None, address: int) -> str:
    """``["echo", "hi"]``: argv."""
    if not address:
        return "NULL"
    shown: list[str] = []
    for index in range(33):
        values = _read_u64(mm, address + 8 * index)
        if values is None:
            return pointer(address) if not shown else f"[{', '.join(shown)}, ...]"
        if values[0] == 0:
            break
        shown.append("..." if index == 32 else string_text(mm, values[0], 4096))
    return f"[{', '.join(shown)}]"


def count_pointers(mm: MmStruct | None, address: int) -> int | None:
    """How many entries a NULL-terminated array of pointers has."""
    count = 0
    while True:
        values = _read_u64(mm, address + 8 * count)
        if values is None:
            return None
        if values[0] == 0:
            return count
        count += 1


def count_dirents(mm: MmStruct | None, address: int, nr_bytes: int) -> int:
    count, at = 0, 0
    while at < nr_bytes:
        data = peek_exactly(mm, address + at + 16, 2)
        if data is None:
            break
        at += max(1, int.from_bytes(data, "little"))
        count += 1
    return count


STRUCTS: dict[str, StructPrinter] = {
    "timespec": timespec,
    "timeval": timeval,
    "timezone": timezone,
    "tms": tms,
    "winsize": winsize,
    "itimerval": itimerval,
    "itimerspec": itimerspec,
    "stat": stat,
    "statx": statx,
    "statfs": statfs,
    "sigset": sigset,
    "sigset_t": sigset,
    "sigaction": sigaction,
    "kernel_sigaction": sigaction,
    "stack_t": stack_t,
    "siginfo": siginfo,
    "siginfo_t": siginfo,
    "rlimit": rlimit,
    "rlimit64": rlimit,
    "rusage": rusage,
    "utsname": utsname,
    "sysinfo": sysinfo,
    "flock": flock,
    "epoll_event": epoll_event,
    "clone_args": clone_args,
    "open_how": open_how,
    "int": int_at,
    "uint": uint_at,
    "pointer": pointer_at,
    "wait_status": wait_status,
    "fd_pair": fd_pair,
}
"""By the name that a declaration gives in ``StructIn`` or ``StructOut``."""
