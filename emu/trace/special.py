"""What no declaration can say: arguments whose meaning depends on other arguments, and strace's notes after a result.

Keyed by the name of the call and, for arguments, by their place, which the ABI fixes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from emu.trace import structs
from emu.trace.calls import Call, Printer, When, buffer_out, mode_bits, signal_text
from emu.trace.peek import peek, peek_exactly
from emu.trace.quote import flags_text, open_bits_text, pointer, quote, quote_hex
from kernel.abi.clone import CSIGNAL, CloneFlags
from kernel.abi.fcntl import O_CREAT, O_TMPFILE_BIT, OpenFlags
from kernel.hardware import Reg

ENTRY, EXIT = When.ENTRY, When.EXIT


def _hex(call: Call, value: int) -> str:
    return f"{value & 0xFFFF_FFFF_FFFF_FFFF:#x}" if value else "0"


def _hex_always(call: Call, value: int) -> str:
    return f"{value:#x}"


def _pointer(call: Call, value: int) -> str:
    return pointer(value)


def _struct_in(name: str) -> tuple[When, Printer]:
    read = structs.STRUCTS[name]
    return ENTRY, lambda call, value: (value and read(call.mm, value)) or pointer(value)


def _struct_out(name: str, when_zero: bool = True) -> tuple[When, Printer]:
    """Filled by the call; ``when_zero``: also when it returns 0."""
    read = structs.STRUCTS[name]

    def text(call: Call, value: int) -> str:
        if call.failed or not value or (not call.ret and not when_zero):
            return pointer(value)
        return read(call.mm, value) or pointer(value)

    return EXIT, text


# ---- strings and buffers -------------------------------------------------------------------------


def _argv(call: Call, value: int) -> str:
    return structs.string_array(call.mm, value)


def _envp(call: Call, value: int) -> str:
    if not value:
        return "NULL"
    count = structs.count_pointers(call.mm, value)
    return pointer(value) if count is None else f"{value:#x} /* {count} var{'' if count == 1 else 's'} */"


def _random_bytes(call: Call, value: int) -> str:
    if call.failed or not call.ret:
        return pointer(value)
    data = peek(call.mm, value, min(call.ret, 32))
    return quote_hex(data, ellipsis=call.ret > 32)


def _directory_entries(call: Call, value: int) -> str:
    if call.failed or call.ret is None:
        return pointer(value)
    count = structs.count_dirents(call.mm, value, call.ret)
    return f"{pointer(value)} /* {count} entr{'y' if count == 1 else 'ies'} */"


def _working_directory(call: Call, value: int) -> str:
    return pointer(value) if call.failed else structs.string_text(call.mm, value)


def _iovec_in(call: Call, value: int) -> str:
    return structs.iovecs(call.mm, value, call.value(2), None) or pointer(value)


def _iovec_out(call: Call, value: int) -> str:
    limit = -1 if call.failed or call.ret is None else call.ret
    return structs.iovecs(call.mm, value, call.value(2), limit) or pointer(value)


def _residency(call: Call, value: int) -> str:
    """mincore's vector."""
    nr_pages = (call.args[1] + 4095) >> 12
    data = None if call.failed else peek_exactly(call.mm, value, min(nr_pages, 32))
    if data is None:
        return pointer(value)
    return f"[{', '.join(str(byte & 1) for byte in data)}{', ...' if nr_pages > 32 else ''}]"


# ---- files ---------------------------------------------------------------------------------------

_F_DUPFD, _F_GETFD, _F_SETFD, _F_GETFL, _F_SETFL = range(5)
_LOCK_COMMANDS = (6, 7, 37, 38)
_GETLK_COMMANDS = (5, 36)
_NO_ARGUMENT = (_F_GETFD, _F_GETFL, 9, 11, 1025, 1032, 1034)
_SEALS = "F_SEAL_SEAL F_SEAL_SHRINK F_SEAL_GROW F_SEAL_WRITE F_SEAL_FUTURE_WRITE F_SEAL_EXEC".split()


def _bit_names(value: int, names: Iterable[str]) -> str:
    known = [(1 << bit, name) for bit, name in enumerate(names)]
    found = [name for bit, name in known if value & bit]
    rest = value & ~sum(bit for bit, _ in known)
    return "|".join([*found, f"{rest:#x}"] if rest else found) or "0"


def _fcntl_argument(call: Call, value: int) -> str:
    command = call.value(1)
    if command == _F_SETFD:
        return _bit_names(value, ["FD_CLOEXEC"])
    if command == _F_SETFL:
        return flags_text(OpenFlags, value & 0xFFFFFFFF)
    if command in _LOCK_COMMANDS:
        return structs.flock(call.mm, value) or pointer(value)
    if command == 1033:
        return _bit_names(value, _SEALS)
    if command in (_F_DUPFD, 8, 1030, 1031):
        return str((value & 0xFFFFFFFF ^ 0x80000000) - 0x80000000)
    if command == 10:
        return signal_text(value)
    return f"{value:#x}"


def _fcntl_lock(call: Call, value: int) -> str:
    """F_GETLK fills its argument."""
    text = None if call.failed else structs.flock(call.mm, value)
    return text or pointer(value)


def _fcntl_any(call: Call, value: int) -> str:
    return _fcntl_lock(call, value) if call.value(1) in _GETLK_COMMANDS else _fcntl_argument(call, value)


def _fcntl_result(call: Call) -> str:
    ret = call.ret or 0
    if call.value(1) == _F_GETFD and ret:
        return f"{ret:#x} (flags {_bit_names(ret, ['FD_CLOEXEC'])})"
    if call.value(1) == _F_GETFL:
        return f"{ret:#x} (flags {flags_text(OpenFlags, ret)})"
    if call.value(1) == 1034 and ret:
        return f"{ret:#x} (seals {_bit_names(ret, _SEALS)})"
    return str(ret)


def _mode_is_shown(flags_index: int) -> Callable[[Call], int]:
    """open's mode means nothing unless a file may be made."""

    def count(call: Call) -> int:
        makes_file = call.args[flags_index] & (O_CREAT | O_TMPFILE_BIT)
        return flags_index + 2 if makes_file else flags_index + 1

    return count


def _open_bits(call: Call, value: int) -> str:
    return open_bits_text(OpenFlags, value & 0xFFFFFFFF)


def _file_mode(call: Call, value: int) -> str:
    return structs.mode_text(value) if value & 0o170000 else mode_bits(value)


def _times(call: Call, value: int) -> str:
    """utimensat's two times."""
    data = peek_exactly(call.mm, value, 32) if value else None
    if data is None:
        return pointer(value)
    return f"[{', '.join(_time(data[at : at + 16]) for at in (0, 16))}]"


def _time(data: bytes) -> str:
    seconds, nanoseconds = (int.from_bytes(data[at : at + 8], "little", signed=True) for at in (0, 8))
    if nanoseconds in (0x3FFFFFFF, 0x3FFFFFFE):
        return "UTIME_NOW" if nanoseconds == 0x3FFFFFFF else "UTIME_OMIT"
    text = f"{{tv_sec={seconds}, tv_nsec={nanoseconds}}}"
    if not -62135596800 <= seconds <= 253402300799 or not 0 <= nanoseconds < 1_000_000_000:
        return text
    moment = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text} /* {moment}{f'.{nanoseconds:09}' if nanoseconds else ''}+0000 */"


_IOCTLS: dict[int, tuple[str, str]] = {
    0x5401: ("TCGETS", "termios"), 0x5402: ("TCSETS", "termios_in"), 0x5403: ("TCSETSW", "termios_in"),
    0x5404: ("TCSETSF", "termios_in"), 0x5409: ("TCSBRK", "number"), 0x540A: ("TCXONC", "number"),
    0x540B: ("TCFLSH", "number"), 0x540E: ("TIOCSCTTY", "number"), 0x540F: ("TIOCGPGRP", "int"),
    0x5410: ("TIOCSPGRP", "int_in"), 0x5413: ("TIOCGWINSZ", "winsize"), 0x5414: ("TIOCSWINSZ", "winsize_in"),
    0x541B: ("FIONREAD", "int"), 0x5421: ("FIONBIO", "int_in"), 0x5422: ("TIOCNOTTY", ""), 0x5429: ("TIOCGSID", "int"),
    0x5450: ("FIONCLEX", ""), 0x5451: ("FIOCLEX", ""), 0x5452: ("FIOASYNC", "int_in"),
    0x80045430: ("TIOCGPTN", "int"), 0x40045431: ("TIOCSPTLCK", "int_in"), 0x40049409: ("FICLONE", "number"),
    0x80086601: ("FS_IOC_GETFLAGS", "int"), 0x40086602: ("FS_IOC_SETFLAGS", "int_in"), 2: ("FIGETBSZ", "int"),
}  # fmt: skip


def _ioctl_name(call: Call, value: int) -> str:
    known = _IOCTLS.get(value & 0xFFFFFFFF)
    if known is not None:
        return known[0]
    number = value & 0xFFFFFFFF
    direction = ("_IOC_NONE", "_IOC_WRITE", "_IOC_READ", "_IOC_READ|_IOC_WRITE")[number >> 30]
    return f"_IOC({direction}, {number >> 8 & 0xFF:#x}, {number & 0xFF:#x}, {_hex(call, number >> 16 & 0x3FFF)})"


def _ioctl_argument(call: Call, value: int) -> str:
    how = _IOCTLS.get(call.args[1] & 0xFFFFFFFF, ("", "address"))[1]
    if how == "number":
        return str(value)
    name = how.removesuffix("_in")
    if name not in structs.STRUCTS or not value or (call.failed and not how.endswith("_in")):
        return f"{value:#x}"
    return structs.STRUCTS[name](call.mm, value) or f"{value:#x}"


def _ioctl_count(call: Call) -> int:
    return 2 if _IOCTLS.get(call.args[1] & 0xFFFFFFFF, ("", "address"))[1] == "" else 3


# ---- processes -----------------------------------------------------------------------------------

_CLONE_TID = CloneFlags.CLONE_CHILD_SETTID | CloneFlags.CLONE_CHILD_CLEARTID


def _clone(call: Call) -> list[str]:
    """strace's order is not that of the registers, and each argument has its name."""
    flags, stack, parent_tid, child_tid, tls = call.args[:5]
    signal = flags & CSIGNAL
    names = flags_text(CloneFlags, flags & ~CSIGNAL & 0xFFFFFFFF) if flags & ~CSIGNAL else ""
    shown = "|".join(filter(None, [names, signal_text(signal) if signal else ""])) or "0"
    parts = [f"child_stack={pointer(stack)}", f"flags={shown}"]
    if flags & CloneFlags.CLONE_PARENT_SETTID:
        text = None if call.failed else structs.int_at(call.mm, parent_tid)
        parts.append(f"parent_tid={text or pointer(parent_tid)}")
    if flags & CloneFlags.CLONE_SETTLS:
        parts.append(f"tls={pointer(tls)}")
    if flags & _CLONE_TID:
        parts.append(f"child_tidptr={pointer(child_tid)}")
    return parts


def _wait_rusage(call: Call, value: int) -> str:
    text = structs.rusage(call.mm, value) if value and call.ret and not call.failed else None
    return text or pointer(value)


def _saved_mask(call: Call) -> list[str]:
    """rt_sigreturn has no arguments; the stack holds the frame."""
    stack = call.task.regs.read(Reg.RSP)
    return [f"{{mask={structs.sigset(call.mm, stack + 296) or '?'}}}"]


def _sleep_rest(call: Call, value: int) -> str:
    """The time left is written only when a signal ends the sleep."""
    text = structs.timespec(call.mm, value) if value and call.failed and call.error not in (14, 22) else None
    return text or pointer(value)


_FUTEX_OPERATIONS = """FUTEX_WAIT FUTEX_WAKE FUTEX_FD FUTEX_REQUEUE FUTEX_CMP_REQUEUE FUTEX_WAKE_OP FUTEX_LOCK_PI
    FUTEX_UNLOCK_PI FUTEX_TRYLOCK_PI FUTEX_WAIT_BITSET FUTEX_WAKE_BITSET FUTEX_WAIT_REQUEUE_PI FUTEX_CMP_REQUEUE_PI
    FUTEX_LOCK_PI2""".split()


def _futex(call: Call) -> list[str]:
    address, raw_operation, value, timeout, address2, value3 = call.args
    number = raw_operation & 0x7F
    if number >= len(_FUTEX_OPERATIONS):
        return [
            pointer(address),
            f"{raw_operation & 0xFFFFFFFF:#x} /* FUTEX_??? */",
            *(f"{v:#x}" for v in call.args[2:]),
        ]
    name = _FUTEX_OPERATIONS[number]
    operation = (
        name + ("_PRIVATE" if raw_operation & 128 else "") + ("|FUTEX_CLOCK_REALTIME" if raw_operation & 256 else "")
    )
    count, mask = str(value & 0xFFFFFFFF), f"{value3 & 0xFFFFFFFF:#x}"
    if value3 & 0xFFFFFFFF == 0xFFFFFFFF:
        mask = "FUTEX_BITSET_MATCH_ANY"
    until = (structs.timespec(call.mm, timeout) if timeout else None) or pointer(timeout)
    head = [pointer(address), operation]
    if name == "FUTEX_WAIT":
        return [*head, count, until]
    if name == "FUTEX_WAKE":
        return [*head, count]
    if name == "FUTEX_WAIT_BITSET":
        return [*head, count, until, mask]
    if name == "FUTEX_WAKE_BITSET":
        return [*head, count, mask]
    if name in ("FUTEX_LOCK_PI", "FUTEX_LOCK_PI2"):
        return [*head, until]
    if name in ("FUTEX_UNLOCK_PI", "FUTEX_TRYLOCK_PI"):
        return head
    second = [count, str(timeout & 0xFFFFFFFF), pointer(address2)]
    if name == "FUTEX_REQUEUE":
        return [*head, *second]
    return [*head, *second, f"{value3 & 0xFFFFFFFF:#x}" if name == "FUTEX_WAKE_OP" else str(value3 & 0xFFFFFFFF)]


_ARCH = {0x1001: "ARCH_SET_GS", 0x1002: "ARCH_SET_FS", 0x1003: "ARCH_GET_FS", 0x1004: "ARCH_GET_GS",
         0x1011: "ARCH_GET_CPUID", 0x1012: "ARCH_SET_CPUID", 0x3001: "ARCH_CET_STATUS"}  # fmt: skip


def _arch_operation(call: Call, value: int) -> str:
    return _ARCH.get(value & 0xFFFFFFFF) or f"{value & 0xFFFFFFFF:#x} /* ARCH_??? */"


def _arch_argument(call: Call, value: int) -> str:
    if call.args[0] in (0x1003, 0x1004) and not call.failed:
        return structs.pointer_at(call.mm, value) or pointer(value)
    return f"{value:#x}"


_PR_SET_VMA, _PR_SET_NAME, _PR_GET_NAME = 0x53564D41, 15, 16


def _prctl(call: Call) -> list[str]:
    option, *rest = call.args[:5]
    first = call.texts[0] or str(option)
    if option == _PR_SET_NAME:
        return [first, structs.string_text(call.mm, rest[0], 16)]
    if option == _PR_GET_NAME:
        return [first, pointer(rest[0]) if call.failed else structs.string_text(call.mm, rest[0], 16)]
    if option == _PR_SET_VMA:
        return [first, "PR_SET_VMA_ANON_NAME", f"{rest[1]:#x}", str(rest[2]), structs.string_text(call.mm, rest[3], 80)]
    if option == 1:
        return [first, signal_text(rest[0])]
    if option == 2:
        return [first, (None if call.failed else structs.int_at(call.mm, rest[0])) or pointer(rest[0])]
    if option == 38:
        return [first, *map(str, rest)]
    if option in (3, 7, 21, 27, 30):
        return [first]
    if option in (4, 8, 23, 24, 28, 29):
        return [first, str(rest[0])]
    return [first, *(f"{value:#x}" for value in rest)]


def _affinity_out(call: Call, value: int) -> str:
    data = None if call.failed or not call.ret else peek_exactly(call.mm, value, call.ret)
    if data is None:
        return pointer(value)
    bits = int.from_bytes(data, "little")
    return f"[{' '.join(str(cpu) for cpu in range(bits.bit_length()) if bits >> cpu & 1)}]"


# ---- waiting for files -----------------------------------------------------------------------------


def _pollfds(call: Call, value: int) -> str:
    if not value:
        return "NULL"
    return structs.array(structs.pollfd_event, 8)(call.mm, value, call.value(1)) or pointer(value)


def _poll_note(call: Call) -> str:
    return structs.ready_fds(call.mm, call.args[0], call.value(1)) if call.ret else "Timeout"


def _fd_set(call: Call, value: int) -> str:
    return (structs.fd_set(call.mm, value, call.value(0)) if value else None) or pointer(value)


def _select_note(call: Call) -> str:
    if not call.ret:
        return "Timeout"
    parts = []
    for label, value in zip(("in", "out", "except"), call.args[1:4], strict=True):
        text = structs.fd_set(call.mm, value, call.value(0)) if value else None
        if text not in (None, "[]"):
            parts.append(f"{label} {text}")
    if call.args[4]:
        left = structs.timeval if call.name == "select" else structs.timespec
        parts.append(f"left {left(call.mm, call.args[4])}")
    return ", ".join(parts)


def _select_mask(call: Call, value: int) -> str:
    """pselect6's sixth argument: address and size of the mask."""
    data = peek_exactly(call.mm, value, 16) if value else None
    if data is None:
        return pointer(value)
    mask, size = (int.from_bytes(data[at : at + 8], "little") for at in (0, 8))
    text = (structs.sigset(call.mm, mask) if mask else None) or pointer(mask)
    return f"{{sigmask={text}, sigsetsize={size}}}"


def _epoll_events(call: Call, value: int) -> str:
    if call.failed or call.ret is None:
        return pointer(value)
    return structs.array(structs.epoll_event, 12)(call.mm, value, call.ret) or pointer(value)


# ---- sockets ---------------------------------------------------------------------------------------


def _address_in(length_index: int) -> tuple[When, Printer]:
    return (
        ENTRY,
        lambda call, value: (
            (structs.sockaddr(call.mm, value, call.value(length_index)) if value else None) or pointer(value)
        ),
    )


def _address_out(length_index: int) -> tuple[When, Printer]:
    def text(call: Call, value: int) -> str:
        length = peek_exactly(call.mm, call.args[length_index], 4) if value and not call.failed else None
        if length is None:
            return pointer(value)
        return structs.sockaddr(call.mm, value, int.from_bytes(length, "little")) or pointer(value)

    return EXIT, text


def _option_value(call: Call, value: int) -> str:
    if call.name == "getsockopt":
        length = peek_exactly(call.mm, call.args[4], 4) if not call.failed else None
        size = int.from_bytes(length, "little") if length else 0
    else:
        size = call.args[4] & 0xFFFFFFFF
    if size == 4:
        return structs.int_at(call.mm, value) or pointer(value)
    data = peek_exactly(call.mm, value, min(size, 32)) if value and size else None
    return pointer(value) if data is None else quote(data, ellipsis=size > 32)


# ---- the tables ------------------------------------------------------------------------------------

_INT_OUT = _struct_out("int")
_READ_BUFFER = (EXIT, buffer_out)

ARGUMENTS: dict[str, dict[int, tuple[When, Printer]]] = {
    "execve": {1: (ENTRY, _argv), 2: (ENTRY, _envp)},
    "execveat": {2: (ENTRY, _argv), 3: (ENTRY, _envp)},
    "mmap": {5: (ENTRY, _hex)},
    "mincore": {2: (EXIT, _residency)},
    "getrandom": {0: (EXIT, _random_bytes)},
    "getdents64": {1: (EXIT, _directory_entries)},
    "getdents": {1: (EXIT, _directory_entries)},
    "getcwd": {0: (EXIT, _working_directory)},
    "readlink": {1: _READ_BUFFER},
    "readlinkat": {2: _READ_BUFFER},
    "writev": {1: (ENTRY, _iovec_in)},
    "pwritev": {1: (ENTRY, _iovec_in)},
    "pwritev2": {1: (ENTRY, _iovec_in)},
    "readv": {1: (EXIT, _iovec_out)},
    "preadv": {1: (EXIT, _iovec_out)},
    "preadv2": {1: (EXIT, _iovec_out)},
    "fcntl": {2: (EXIT, _fcntl_any)},
    "mknod": {1: (ENTRY, _file_mode)},
    "mknodat": {2: (ENTRY, _file_mode)},
    "utimensat": {2: (ENTRY, _times)},
    "ioctl": {1: (ENTRY, _ioctl_name), 2: (EXIT, _ioctl_argument)},
    "wait4": {1: _struct_out("wait_status", when_zero=False), 3: (EXIT, _wait_rusage)},
    "nanosleep": {1: (EXIT, _sleep_rest)},
    "clock_nanosleep": {3: (EXIT, _sleep_rest)},
    "arch_prctl": {0: (ENTRY, _arch_operation), 1: (EXIT, _arch_argument)},
    "sched_getaffinity": {2: (EXIT, _affinity_out)},
    "rseq": {0: (ENTRY, _hex_always), 1: (ENTRY, _hex_always), 2: (ENTRY, _hex), 3: (ENTRY, _hex_always)},
    "poll": {0: (ENTRY, _pollfds)},
    "ppoll": {0: (ENTRY, _pollfds)},
    "select": {1: (ENTRY, _fd_set), 2: (ENTRY, _fd_set), 3: (ENTRY, _fd_set), 4: _struct_in("timeval")},
    "pselect6": {
        1: (ENTRY, _fd_set),
        2: (ENTRY, _fd_set),
        3: (ENTRY, _fd_set),
        4: _struct_in("timespec"),
        5: (ENTRY, _select_mask),
    },
    "epoll_wait": {1: (EXIT, _epoll_events)},
    "epoll_pwait": {1: (EXIT, _epoll_events)},
    "pipe": {0: _struct_out("fd_pair")},
    "pipe2": {0: _struct_out("fd_pair"), 1: (ENTRY, _open_bits)},
    "dup3": {2: (ENTRY, _open_bits)},
    "socketpair": {3: _struct_out("fd_pair")},
    "connect": {1: _address_in(2)},
    "bind": {1: _address_in(2)},
    "sendto": {4: _address_in(5)},
    "accept": {1: _address_out(2), 2: _INT_OUT},
    "accept4": {1: _address_out(2), 2: _INT_OUT},
    "getsockname": {1: _address_out(2), 2: _INT_OUT},
    "getpeername": {1: _address_out(2), 2: _INT_OUT},
    "recvfrom": {4: _address_out(5), 5: _INT_OUT},
    "getsockopt": {3: (EXIT, _option_value), 4: _INT_OUT},
    "setsockopt": {3: (ENTRY, _option_value)},
    "getresuid": {0: _INT_OUT, 1: _INT_OUT, 2: _INT_OUT},
    "getresgid": {0: _INT_OUT, 1: _INT_OUT, 2: _INT_OUT},
}
"""(when, how) by place; replaces what the declaration says."""


def _mremap_count(call: Call) -> int:
    return 5 if call.args[3] & 6 else 4  # MREMAP_FIXED, MREMAP_DONTUNMAP


COUNT: dict[str, Callable[[Call], int]] = {
    "mremap": _mremap_count,
    "open": _mode_is_shown(1),
    "openat": _mode_is_shown(2),
    "fcntl": lambda call: 2 if call.value(1) in _NO_ARGUMENT else 3,
    "ioctl": _ioctl_count,
    "mknod": lambda call: 3 if call.args[1] & 0o170000 in (0o020000, 0o060000) else 2,
    "mknodat": lambda call: 4 if call.args[2] & 0o170000 in (0o020000, 0o060000) else 3,
}
"""How many arguments mean something."""

WHOLE: dict[str, tuple[When, Callable[[Call], list[str]]]] = {
    "clone": (EXIT, _clone),
    "futex": (ENTRY, _futex),
    "prctl": (EXIT, _prctl),
    "rt_sigreturn": (ENTRY, _saved_mask),
}
"""Calls whose arguments are printed together."""

RESULT: dict[str, Callable[[Call], str]] = {
    "fcntl": _fcntl_result,
    "umask": lambda call: mode_bits(call.ret or 0),
    "shmat": lambda call: pointer(call.ret or 0),
}

NOTE: dict[str, Callable[[Call], str]] = {
    "poll": _poll_note,
    "ppoll": _poll_note,
    "select": _select_note,
    "pselect6": _select_note,
}
"""What stands in parentheses after a result."""
