"""Arguments of calls on files, descriptors and sockets whose meaning depends on other arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from emu.trace import layout, structs, structs_files, structs_tasks
from emu.trace.calls import Call, Printer, When, hexadecimal, mode_bits, signal_text
from emu.trace.peek import peek_exactly
from emu.trace.quote import flags_text, open_bits_text, pointer, quote
from kernel.abi import socket
from kernel.abi.fcntl import O_CREAT, O_TMPFILE_BIT, AtFlags, OpenFlags


def directory_entries(call: Call, value: int) -> str:
    if call.failed or call.ret is None:
        return pointer(value)
    count = structs_files.count_dirents(call.mm, value, call.ret)
    return f"{pointer(value)} /* {count} entr{'y' if count == 1 else 'ies'} */"


def working_directory(call: Call, value: int) -> str:
    return pointer(value) if call.failed else layout.string_text(call.mm, value)


def iovec_in(call: Call, value: int) -> str:
    return structs_files.iovecs(call.mm, value, call.value(2), None) or pointer(value)


def iovec_out(call: Call, value: int) -> str:
    limit = -1 if call.failed or call.ret is None else call.ret
    return structs_files.iovecs(call.mm, value, call.value(2), limit) or pointer(value)


_F_DUPFD, _F_GETFD, _F_SETFD, _F_GETFL, _F_SETFL = range(5)
_LOCK_COMMANDS = (6, 7, 37, 38)
_GETLK_COMMANDS = (5, 36)
NO_ARGUMENT = (_F_GETFD, _F_GETFL, 9, 11, 1025, 1032, 1034)
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
        return structs_files.flock(call.mm, value) or pointer(value)
    if command == 1033:
        return _bit_names(value, _SEALS)
    if command in (_F_DUPFD, 8, 1030, 1031):
        return str((value & 0xFFFFFFFF ^ 0x80000000) - 0x80000000)
    if command == 10:
        return signal_text(value)
    return f"{value:#x}"


def _fcntl_lock(call: Call, value: int) -> str:
    """F_GETLK fills its argument."""
    text = None if call.failed else structs_files.flock(call.mm, value, with_pid=True)
    return text or pointer(value)


def fcntl_any(call: Call, value: int) -> str:
    return _fcntl_lock(call, value) if call.value(1) in _GETLK_COMMANDS else _fcntl_argument(call, value)


def fcntl_result(call: Call) -> str:
    ret = call.ret or 0
    if call.value(1) == _F_GETFD and ret:
        return f"{ret:#x} (flags {_bit_names(ret, ['FD_CLOEXEC'])})"
    if call.value(1) == _F_GETFL:
        return f"{ret:#x} (flags {flags_text(OpenFlags, ret)})"
    if call.value(1) == 1034 and ret:
        return f"{ret:#x} (seals {_bit_names(ret, _SEALS)})"
    return str(ret)


def mode_is_shown(flags_index: int) -> Callable[[Call], int]:
    """open's mode means nothing unless a file may be made."""

    def count(call: Call) -> int:
        makes_file = call.args[flags_index] & (O_CREAT | O_TMPFILE_BIT)
        return flags_index + 2 if makes_file else flags_index + 1

    return count


def open_bits(call: Call, value: int) -> str:
    return open_bits_text(OpenFlags, value & 0xFFFFFFFF)


def statx_flags(call: Call, value: int) -> str:
    """How far the answer must be synchronised is a number in the flags, and zero has a name."""
    rest = flags_text(AtFlags, value & 0xFFFFFFFF) if value else ""
    return rest if value & 0x6000 else "|".join(filter(None, ["AT_STATX_SYNC_AS_STAT", rest]))


def file_mode(call: Call, value: int) -> str:
    return structs_files.mode_text(value) if value & 0o170000 else mode_bits(value)


def device(call: Call, value: int) -> str:
    return structs_files.device_text(value)


def times(call: Call, value: int) -> str:
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


def ioctl_name(call: Call, value: int) -> str:
    known = _IOCTLS.get(value & 0xFFFFFFFF)
    if known is not None:
        return known[0]
    number = value & 0xFFFFFFFF
    direction = ("_IOC_NONE", "_IOC_WRITE", "_IOC_READ", "_IOC_READ|_IOC_WRITE")[number >> 30]
    return f"_IOC({direction}, {number >> 8 & 0xFF:#x}, {number & 0xFF:#x}, {hexadecimal(call, number >> 16 & 0x3FFF)})"


def ioctl_argument(call: Call, value: int) -> str:
    how = _IOCTLS.get(call.args[1] & 0xFFFFFFFF, ("", "address"))[1]
    if how == "number":
        return str(value)
    name = how.removesuffix("_in")
    if name not in structs.STRUCTS or not value or (call.failed and not how.endswith("_in")):
        return f"{value:#x}"
    return structs.STRUCTS[name](call.mm, value) or f"{value:#x}"


def ioctl_count(call: Call) -> int:
    return 2 if _IOCTLS.get(call.args[1] & 0xFFFFFFFF, ("", "address"))[1] == "" else 3


def pollfds(call: Call, value: int) -> str:
    if not value:
        return "NULL"
    return layout.array(structs_files.pollfd_event, 8)(call.mm, value, call.value(1)) or pointer(value)


def poll_note(call: Call) -> str:
    return structs_files.ready_fds(call.mm, call.args[0], call.value(1)) if call.ret else "Timeout"


def fd_set(call: Call, value: int) -> str:
    return (structs_files.fd_set(call.mm, value, call.value(0)) if value else None) or pointer(value)


def select_note(call: Call) -> str:
    if not call.ret:
        return "Timeout"
    parts = []
    for label, value in zip(("in", "out", "except"), call.args[1:4], strict=True):
        text = structs_files.fd_set(call.mm, value, call.value(0)) if value else None
        if text not in (None, "[]"):
            parts.append(f"{label} {text}")
    if call.args[4]:
        left = structs_tasks.timeval if call.name == "select" else structs_tasks.timespec
        parts.append(f"left {left(call.mm, call.args[4])}")
    return ", ".join(parts)


def select_mask(call: Call, value: int) -> str:
    """pselect6's sixth argument: address and size of the mask."""
    data = peek_exactly(call.mm, value, 16) if value else None
    if data is None:
        return pointer(value)
    mask, size = (int.from_bytes(data[at : at + 8], "little") for at in (0, 8))
    text = (structs_tasks.sigset(call.mm, mask) if mask else None) or pointer(mask)
    return f"{{sigmask={text}, sigsetsize={size}}}"


def epoll_events(call: Call, value: int) -> str:
    if call.failed or call.ret is None:
        return pointer(value)
    return layout.array(structs_files.epoll_event, 12)(call.mm, value, call.ret) or pointer(value)


# ---- sockets ---------------------------------------------------------------------------------------


def address_in(length_index: int) -> tuple[When, Printer]:
    return (
        When.ENTRY,
        lambda call, value: (
            (structs_files.sockaddr(call.mm, value, call.value(length_index)) if value else None) or pointer(value)
        ),
    )


def address_out(length_index: int) -> tuple[When, Printer]:
    def text(call: Call, value: int) -> str:
        length = peek_exactly(call.mm, call.args[length_index], 4) if value and not call.failed else None
        if length is None:
            return pointer(value)
        return structs_files.sockaddr(call.mm, value, int.from_bytes(length, "little")) or pointer(value)

    return When.EXIT, text


_LEVELS = {0: "SOL_IP", 1: "SOL_SOCKET", 6: "SOL_TCP", 17: "SOL_UDP", 41: "SOL_IPV6"}
_SOCKET_OPTIONS = {value: name for name, value in vars(socket).items() if name.startswith("SO_")}


def option_level(call: Call, value: int) -> str:
    return _LEVELS.get(value) or f"{value:#x} /* SOL_??? */"


def option_name(call: Call, value: int) -> str:
    name = _SOCKET_OPTIONS.get(value) if call.value(1) == socket.SOL_SOCKET else None
    return name or f"{value:#x}"


def option_value(call: Call, value: int) -> str:
    if call.name == "getsockopt":
        length = peek_exactly(call.mm, call.args[4], 4) if not call.failed else None
        size = int.from_bytes(length, "little") if length else 0
    else:
        size = call.args[4] & 0xFFFFFFFF
    if size == 4:
        return layout.int_at(call.mm, value) or pointer(value)
    data = peek_exactly(call.mm, value, min(size, 32)) if value and size else None
    return pointer(value) if data is None else quote(data, ellipsis=size > 32)
