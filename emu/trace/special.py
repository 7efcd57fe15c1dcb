"""What no declaration can say: arguments whose meaning depends on other arguments, and strace's notes after a result.

Keyed by the name of the call and, for arguments, by their place, which the ABI fixes.
"""

from __future__ import annotations

from collections.abc import Callable

from emu.trace import special_files, special_tasks
from emu.trace.calls import Call, Printer, When, buffer_out, hexadecimal, mode_bits
from emu.trace.quote import pointer
from emu.trace.structs import STRUCTS

ENTRY, EXIT = When.ENTRY, When.EXIT


def _hex_always(call: Call, value: int) -> str:
    return f"{value:#x}"


def _struct_in(name: str) -> tuple[When, Printer]:
    read = STRUCTS[name]
    return ENTRY, lambda call, value: (value and read(call.mm, value)) or pointer(value)


def _struct_out(name: str, when_zero: bool = True) -> tuple[When, Printer]:
    """Filled by the call; ``when_zero``: also when it returns 0."""
    read = STRUCTS[name]

    def text(call: Call, value: int) -> str:
        if call.failed or not value or (not call.ret and not when_zero):
            return pointer(value)
        return read(call.mm, value) or pointer(value)

    return EXIT, text


# ---- the tables ------------------------------------------------------------------------------------

_INT_OUT = _struct_out("int")
_READ_BUFFER = (EXIT, buffer_out)

ARGUMENTS: dict[str, dict[int, tuple[When, Printer]]] = {
    "execve": {1: (ENTRY, special_tasks.argv), 2: (ENTRY, special_tasks.envp)},
    "execveat": {2: (ENTRY, special_tasks.argv), 3: (ENTRY, special_tasks.envp)},
    "mmap": {5: (ENTRY, hexadecimal)},
    "mincore": {2: (EXIT, special_tasks.residency)},
    "getrandom": {0: (EXIT, special_tasks.random_bytes)},
    "getdents64": {1: (EXIT, special_files.directory_entries)},
    "getdents": {1: (EXIT, special_files.directory_entries)},
    "getcwd": {0: (EXIT, special_files.working_directory)},
    "readlink": {1: _READ_BUFFER},
    "readlinkat": {2: _READ_BUFFER},
    "writev": {1: (ENTRY, special_files.iovec_in)},
    "pwritev": {1: (ENTRY, special_files.iovec_in)},
    "pwritev2": {1: (ENTRY, special_files.iovec_in)},
    "readv": {1: (EXIT, special_files.iovec_out)},
    "preadv": {1: (EXIT, special_files.iovec_out)},
    "preadv2": {1: (EXIT, special_files.iovec_out)},
    "fcntl": {2: (EXIT, special_files.fcntl_any)},
    "mknod": {1: (ENTRY, special_files.file_mode), 2: (ENTRY, special_files.device)},
    "mknodat": {2: (ENTRY, special_files.file_mode), 3: (ENTRY, special_files.device)},
    "utimensat": {2: (ENTRY, special_files.times)},
    "ioctl": {1: (ENTRY, special_files.ioctl_name), 2: (EXIT, special_files.ioctl_argument)},
    "wait4": {1: _struct_out("wait_status", when_zero=False), 3: (EXIT, special_tasks.wait_rusage)},
    "nanosleep": {1: (EXIT, special_tasks.sleep_rest)},
    "clock_nanosleep": {3: (EXIT, special_tasks.sleep_rest)},
    "arch_prctl": {0: (ENTRY, special_tasks.arch_operation), 1: (EXIT, special_tasks.arch_argument)},
    "sched_getaffinity": {2: (EXIT, special_tasks.affinity_out)},
    "rseq": {0: (ENTRY, _hex_always), 1: (ENTRY, _hex_always), 2: (ENTRY, hexadecimal), 3: (ENTRY, _hex_always)},
    "poll": {0: (ENTRY, special_files.pollfds)},
    "ppoll": {0: (ENTRY, special_files.pollfds), 2: _struct_in("timespec")},
    "statx": {2: (ENTRY, special_files.statx_flags)},
    "select": {
        1: (ENTRY, special_files.fd_set),
        2: (ENTRY, special_files.fd_set),
        3: (ENTRY, special_files.fd_set),
        4: _struct_in("timeval"),
    },
    "pselect6": {
        1: (ENTRY, special_files.fd_set),
        2: (ENTRY, special_files.fd_set),
        3: (ENTRY, special_files.fd_set),
        4: _struct_in("timespec"),
        5: (ENTRY, special_files.select_mask),
    },
    "epoll_wait": {1: (EXIT, special_files.epoll_events)},
    "epoll_pwait": {1: (EXIT, special_files.epoll_events)},
    "pipe": {0: _struct_out("fd_pair")},
    "pipe2": {0: _struct_out("fd_pair"), 1: (ENTRY, special_files.open_bits)},
    "dup3": {2: (ENTRY, special_files.open_bits)},
    "socketpair": {3: _struct_out("fd_pair")},
    "connect": {1: special_files.address_in(2)},
    "bind": {1: special_files.address_in(2)},
    "sendto": {4: special_files.address_in(5)},
    "accept": {1: special_files.address_out(2), 2: _INT_OUT},
    "accept4": {1: special_files.address_out(2), 2: _INT_OUT},
    "getsockname": {1: special_files.address_out(2), 2: _INT_OUT},
    "getpeername": {1: special_files.address_out(2), 2: _INT_OUT},
    "recvfrom": {4: special_files.address_out(5), 5: _INT_OUT},
    "getsockopt": {
        1: (ENTRY, special_files.option_level),
        2: (ENTRY, special_files.option_name),
        3: (EXIT, special_files.option_value),
        4: _INT_OUT,
    },
    "setsockopt": {
        1: (ENTRY, special_files.option_level),
        2: (ENTRY, special_files.option_name),
        3: (ENTRY, special_files.option_value),
    },
    "getresuid": {0: _INT_OUT, 1: _INT_OUT, 2: _INT_OUT},
    "getresgid": {0: _INT_OUT, 1: _INT_OUT, 2: _INT_OUT},
}
"""(when, how) by place; replaces what the declaration says."""


def _mremap_count(call: Call) -> int:
    return 5 if call.args[3] & 3 == 3 else 4  # MREMAP_MAYMOVE, MREMAP_FIXED


COUNT: dict[str, Callable[[Call], int]] = {
    "mremap": _mremap_count,
    "open": special_files.mode_is_shown(1),
    "openat": special_files.mode_is_shown(2),
    "fcntl": lambda call: 2 if call.value(1) in special_files.NO_ARGUMENT else 3,
    "ioctl": special_files.ioctl_count,
    "mknod": lambda call: 3 if call.args[1] & 0o170000 in (0o020000, 0o060000) else 2,
    "mknodat": lambda call: 4 if call.args[2] & 0o170000 in (0o020000, 0o060000) else 3,
}
"""How many arguments mean something."""

WHOLE: dict[str, tuple[When, Callable[[Call], list[str]]]] = {
    "clone": (EXIT, special_tasks.clone),
    "futex": (ENTRY, special_tasks.futex),
    "prctl": (EXIT, special_tasks.prctl),
    "rt_sigreturn": (ENTRY, special_tasks.saved_mask),
}
"""Calls whose arguments are printed together."""

RESULT: dict[str, Callable[[Call], str]] = {
    "fcntl": special_files.fcntl_result,
    "membarrier": special_tasks.membarrier_result,
    "umask": lambda call: mode_bits(call.ret or 0),
    "shmat": lambda call: pointer(call.ret or 0),
}

NOTE: dict[str, Callable[[Call], str]] = {
    "prctl": special_tasks.prctl_note,
    "poll": special_files.poll_note,
    "ppoll": special_files.poll_note,
    "select": special_files.select_note,
    "pselect6": special_files.select_note,
}
"""What stands in parentheses after a result."""
