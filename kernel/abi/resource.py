"""Resource limits and usage.  Models ``include/uapi/asm-generic/resource.h`` and ``include/uapi/linux/resource.h``."""

from __future__ import annotations

import struct
from enum import IntEnum


class Rlimit(IntEnum):
    """Resources of getrlimit(2)."""

    RLIMIT_CPU = 0
    RLIMIT_FSIZE = 1
    RLIMIT_DATA = 2
    RLIMIT_STACK = 3
    RLIMIT_CORE = 4
    RLIMIT_RSS = 5
    RLIMIT_NPROC = 6
    RLIMIT_NOFILE = 7
    RLIMIT_MEMLOCK = 8
    RLIMIT_AS = 9
    RLIMIT_LOCKS = 10
    RLIMIT_SIGPENDING = 11
    RLIMIT_MSGQUEUE = 12
    RLIMIT_NICE = 13
    RLIMIT_RTPRIO = 14
    RLIMIT_RTTIME = 15


(
    RLIMIT_CPU, RLIMIT_FSIZE, RLIMIT_DATA, RLIMIT_STACK, RLIMIT_CORE, RLIMIT_RSS, RLIMIT_NPROC, RLIMIT_NOFILE,
    RLIMIT_MEMLOCK, RLIMIT_AS, RLIMIT_LOCKS, RLIMIT_SIGPENDING, RLIMIT_MSGQUEUE, RLIMIT_NICE, RLIMIT_RTPRIO,
    RLIMIT_RTTIME,
) = range(16)  # fmt: skip
RLIM_NLIMITS = 16
RLIM_INFINITY = 0xFFFF_FFFF_FFFF_FFFF
RLIM64 = struct.Struct("<QQ")

_INF = (RLIM_INFINITY, RLIM_INFINITY)


def default_rlimits(max_processes: int) -> list[tuple[int, int]]:
    """(soft, hard) of the first program: what a login shell on a current distribution has."""
    return [
        _INF,                                  # RLIMIT_CPU
        _INF,                                  # RLIMIT_FSIZE
        _INF,                                  # RLIMIT_DATA
        (8 << 20, RLIM_INFINITY),              # RLIMIT_STACK
        (0, RLIM_INFINITY),                    # RLIMIT_CORE
        _INF,                                  # RLIMIT_RSS
        (max_processes, max_processes),        # RLIMIT_NPROC
        (1024, 1 << 20),                       # RLIMIT_NOFILE
        (8 << 20, 8 << 20),                    # RLIMIT_MEMLOCK
        _INF,                                  # RLIMIT_AS
        _INF,                                  # RLIMIT_LOCKS
        (max_processes, max_processes),        # RLIMIT_SIGPENDING
        (819200, 819200),                      # RLIMIT_MSGQUEUE
        (0, 0),                                # RLIMIT_NICE
        (0, 0),                                # RLIMIT_RTPRIO
        _INF,                                  # RLIMIT_RTTIME
    ]  # fmt: skip


class RusageWho(IntEnum):
    RUSAGE_CHILDREN = -1
    RUSAGE_SELF = 0
    RUSAGE_THREAD = 1


RUSAGE = struct.Struct("<18q")
"""``struct rusage``: utime (s, us), stime (s, us), maxrss in KiB, ixrss, idrss, isrss, minflt, majflt, nswap, inblock,
oublock, msgsnd, msgrcv, nsignals, nvcsw, nivcsw."""


class PriorityWhich(IntEnum):
    """First argument of getpriority(2)."""

    PRIO_PROCESS = 0
    PRIO_PGRP = 1
    PRIO_USER = 2
