"""futex(2): operations and flags.  Models ``include/uapi/linux/futex.h``."""

from __future__ import annotations

import struct
from enum import IntFlag

FUTEX_WAIT = 0
FUTEX_WAKE = 1
FUTEX_FD = 2
FUTEX_REQUEUE = 3
FUTEX_CMP_REQUEUE = 4
FUTEX_WAKE_OP = 5
FUTEX_LOCK_PI = 6
FUTEX_UNLOCK_PI = 7
FUTEX_TRYLOCK_PI = 8
FUTEX_WAIT_BITSET = 9
FUTEX_WAKE_BITSET = 10
FUTEX_WAIT_REQUEUE_PI = 11
FUTEX_CMP_REQUEUE_PI = 12
FUTEX_LOCK_PI2 = 13
FUTEX_PRIVATE_FLAG = 128
FUTEX_CLOCK_REALTIME = 256
FUTEX_CMD_MASK = 127
PI_COMMANDS = frozenset((6, 7, 8, 11, 12, 13))

FUTEX_BITSET_MATCH_ANY = 0xFFFF_FFFF

FUTEX_WAITERS = 0x8000_0000
FUTEX_OWNER_DIED = 0x4000_0000
FUTEX_TID_MASK = 0x3FFF_FFFF
ROBUST_LIST_LIMIT = 2048
ROBUST_LIST_HEAD = struct.Struct("<QqQ")
"""list, futex_offset, list_op_pending."""


# futex2 (futex_waitv, futex_wait, futex_wake, futex_requeue)
class Futex2Flags(IntFlag):
    FUTEX2_SIZE_U16 = 0x1
    FUTEX2_SIZE_U32 = 0x2
    FUTEX2_NUMA = 0x4
    FUTEX2_MPOL = 0x8
    FUTEX2_PRIVATE = 0x80


FUTEX2_SIZE_MASK = 0x3
FUTEX2_SIZE_U32 = 0x2
FUTEX2_PRIVATE = 0x80
FUTEX2_VALID_MASK = FUTEX2_SIZE_MASK | FUTEX2_PRIVATE
FUTEX_WAITV_MAX = 128
FUTEX_WAITV = struct.Struct("<QQII")
"""val, uaddr, flags, reserved."""
