"""wait(2): options, id types and the status word.  Models ``include/uapi/linux/wait.h``."""

from __future__ import annotations

from enum import IntEnum, IntFlag


class WaitOptions(IntFlag):
    """Options of wait4 and waitid."""

    WNOHANG = 0x1
    WUNTRACED = 0x2
    WEXITED = 0x4
    WCONTINUED = 0x8
    WNOWAIT = 0x0100_0000
    __WNOTHREAD = 0x2000_0000
    __WALL = 0x4000_0000
    __WCLONE = 0x8000_0000


WNOHANG = 0x1
WUNTRACED = WSTOPPED = 0x2
WEXITED = 0x4
WCONTINUED = 0x8
WNOWAIT = 0x0100_0000
WNOTHREAD = 0x2000_0000
WALL = 0x4000_0000
WCLONE = 0x8000_0000


class IdType(IntEnum):
    """First argument of waitid(2)."""

    P_ALL = 0
    P_PID = 1
    P_PGID = 2
    P_PIDFD = 3


W_COREDUMP_FLAG = 0x80
STATUS_CONTINUED = 0xFFFF


def exited(code: int) -> int:
    """The status word of a program that called exit(code)."""
    return (code & 0xFF) << 8


def stopped(sig: int) -> int:
    return (sig << 8) | 0x7F
