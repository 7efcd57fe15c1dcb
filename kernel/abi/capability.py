"""Capabilities.  Models ``include/uapi/linux/capability.h``.  A set is a plain int: bit ``cap``."""

from __future__ import annotations

import struct
from enum import IntEnum


class Cap(IntEnum):
    """Capability numbers (capabilities(7))."""

    CAP_CHOWN = 0
    CAP_DAC_OVERRIDE = 1
    CAP_DAC_READ_SEARCH = 2
    CAP_FOWNER = 3
    CAP_FSETID = 4
    CAP_KILL = 5
    CAP_SETGID = 6
    CAP_SETUID = 7
    CAP_SETPCAP = 8
    CAP_LINUX_IMMUTABLE = 9
    CAP_NET_BIND_SERVICE = 10
    CAP_NET_BROADCAST = 11
    CAP_NET_ADMIN = 12
    CAP_NET_RAW = 13
    CAP_IPC_LOCK = 14
    CAP_IPC_OWNER = 15
    CAP_SYS_MODULE = 16
    CAP_SYS_RAWIO = 17
    CAP_SYS_CHROOT = 18
    CAP_SYS_PTRACE = 19
    CAP_SYS_PACCT = 20
    CAP_SYS_ADMIN = 21
    CAP_SYS_BOOT = 22
    CAP_SYS_NICE = 23
    CAP_SYS_RESOURCE = 24
    CAP_SYS_TIME = 25
    CAP_SYS_TTY_CONFIG = 26
    CAP_MKNOD = 27
    CAP_LEASE = 28
    CAP_AUDIT_WRITE = 29
    CAP_AUDIT_CONTROL = 30
    CAP_SETFCAP = 31
    CAP_MAC_OVERRIDE = 32
    CAP_MAC_ADMIN = 33
    CAP_SYSLOG = 34
    CAP_WAKE_ALARM = 35
    CAP_BLOCK_SUSPEND = 36
    CAP_AUDIT_READ = 37
    CAP_PERFMON = 38
    CAP_BPF = 39
    CAP_CHECKPOINT_RESTORE = 40


CAP_LAST_CAP = 40
CAP_FULL_SET = (1 << (CAP_LAST_CAP + 1)) - 1

LINUX_CAPABILITY_VERSION_1 = 0x1998_0330
LINUX_CAPABILITY_VERSION_2 = 0x2007_1026
LINUX_CAPABILITY_VERSION_3 = 0x2008_0522
CAP_HEADER = struct.Struct("<Ii")
"""version, pid."""
CAP_DATA = struct.Struct("<III")
"""effective, permitted, inheritable (low or high 32 bits)."""

# securebits (include/uapi/linux/securebits.h)
SECBIT_NOROOT = 1 << 0
SECBIT_NO_SETUID_FIXUP = 1 << 2
SECBIT_KEEP_CAPS = 1 << 4
SECBIT_NO_CAP_AMBIENT_RAISE = 1 << 6
SECURE_ALL_BITS = 0x55
SECURE_ALL_LOCKS = 0xAA
SECURE_ALL_UNPRIVILEGED = 0  # the exec-restrict bits of 6.14 are not offered
