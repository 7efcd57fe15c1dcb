"""The structures that a declaration can name in ``StructIn`` or ``StructOut``."""

from __future__ import annotations

from emu.trace import layout, structs_files, structs_tasks
from emu.trace.layout import StructPrinter

STRUCTS: dict[str, StructPrinter] = {
    "timespec": structs_tasks.timespec,
    "timeval": structs_tasks.timeval,
    "timezone": structs_tasks.timezone,
    "tms": structs_tasks.tms,
    "winsize": structs_files.winsize,
    "itimerval": structs_tasks.itimerval,
    "itimerspec": structs_tasks.itimerspec,
    "stat": structs_files.stat,
    "statx": structs_files.statx,
    "statfs": structs_files.statfs,
    "sigset": structs_tasks.sigset,
    "sigset_t": structs_tasks.sigset,
    "sigaction": structs_tasks.sigaction,
    "kernel_sigaction": structs_tasks.sigaction,
    "stack_t": structs_tasks.stack_t,
    "siginfo": structs_tasks.siginfo,
    "siginfo_t": structs_tasks.siginfo,
    "rlimit": structs_tasks.rlimit,
    "rlimit64": structs_tasks.rlimit,
    "rusage": structs_tasks.rusage,
    "utsname": structs_tasks.utsname,
    "sysinfo": structs_tasks.sysinfo,
    "flock": structs_files.flock,
    "epoll_event": structs_files.epoll_event,
    "clone_args": structs_tasks.clone_args,
    "open_how": structs_files.open_how,
    "int": layout.int_at,
    "uint": layout.uint_at,
    "pointer": layout.pointer_at,
    "sched_param": layout.int_at,
    "sigevent": structs_tasks.sigevent,
    "wait_status": structs_tasks.wait_status,
    "fd_pair": structs_files.fd_pair,
}
"""By name."""
