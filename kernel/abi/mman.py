"""Memory-management constants of the system-call interface.

Models ``include/uapi/asm-generic/mman*.h``, ``include/uapi/linux/mman.h`` and ``arch/x86/include/uapi/asm/mman.h``.
Handlers and printers use the same enums; hot code uses plain ints.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag


class Prot(IntFlag):
    """Protection of mmap, mprotect."""

    PROT_NONE = 0
    PROT_READ = 0x1
    PROT_WRITE = 0x2
    PROT_EXEC = 0x4
    PROT_SEM = 0x8
    PROT_GROWSDOWN = 0x0100_0000
    PROT_GROWSUP = 0x0200_0000


class Map(IntFlag):
    """Flags of mmap.  The low four bits are one of four types, not bits."""

    MAP_SHARED = 0x01
    MAP_PRIVATE = 0x02
    MAP_SHARED_VALIDATE = 0x03
    MAP_DROPPABLE = 0x08
    MAP_FIXED = 0x10
    MAP_ANONYMOUS = 0x20
    MAP_32BIT = 0x40
    MAP_ABOVE4G = 0x80
    MAP_GROWSDOWN = 0x0100
    MAP_DENYWRITE = 0x0800
    MAP_EXECUTABLE = 0x1000
    MAP_LOCKED = 0x2000
    MAP_NORESERVE = 0x4000
    MAP_POPULATE = 0x8000
    MAP_NONBLOCK = 0x1_0000
    MAP_STACK = 0x2_0000
    MAP_HUGETLB = 0x4_0000
    MAP_SYNC = 0x8_0000
    MAP_FIXED_NOREPLACE = 0x10_0000
    MAP_UNINITIALIZED = 0x400_0000


MAP_TYPE = 0x0F
LEGACY_MAP_MASK = int(
    Map.MAP_SHARED | Map.MAP_PRIVATE | Map.MAP_FIXED | Map.MAP_ANONYMOUS | Map.MAP_DENYWRITE | Map.MAP_EXECUTABLE
    | Map.MAP_UNINITIALIZED | Map.MAP_GROWSDOWN | Map.MAP_LOCKED | Map.MAP_NORESERVE | Map.MAP_POPULATE
    | Map.MAP_NONBLOCK | Map.MAP_STACK | Map.MAP_HUGETLB | Map.MAP_32BIT | Map.MAP_ABOVE4G | 0x3F << 26
)  # fmt: skip
"""Flags that MAP_SHARED_VALIDATE knows (``MAP_HUGE_SHIFT`` bits included)."""


class Mremap(IntFlag):
    MREMAP_MAYMOVE = 1
    MREMAP_FIXED = 2
    MREMAP_DONTUNMAP = 4


class Msync(IntFlag):
    MS_ASYNC = 1
    MS_INVALIDATE = 2
    MS_SYNC = 4


class Mcl(IntFlag):
    MCL_CURRENT = 1
    MCL_FUTURE = 2
    MCL_ONFAULT = 4


class Mlock2(IntFlag):
    MLOCK_ONFAULT = 1


class Madv(IntEnum):
    """Advice of madvise and process_madvise."""

    MADV_NORMAL = 0
    MADV_RANDOM = 1
    MADV_SEQUENTIAL = 2
    MADV_WILLNEED = 3
    MADV_DONTNEED = 4
    MADV_FREE = 8
    MADV_REMOVE = 9
    MADV_DONTFORK = 10
    MADV_DOFORK = 11
    MADV_MERGEABLE = 12
    MADV_UNMERGEABLE = 13
    MADV_HUGEPAGE = 14
    MADV_NOHUGEPAGE = 15
    MADV_DONTDUMP = 16
    MADV_DODUMP = 17
    MADV_WIPEONFORK = 18
    MADV_KEEPONFORK = 19
    MADV_COLD = 20
    MADV_PAGEOUT = 21
    MADV_POPULATE_READ = 22
    MADV_POPULATE_WRITE = 23
    MADV_DONTNEED_LOCKED = 24
    MADV_COLLAPSE = 25
    MADV_HWPOISON = 100
    MADV_SOFT_OFFLINE = 101
    MADV_GUARD_INSTALL = 102
    MADV_GUARD_REMOVE = 103


class Pkey(IntFlag):
    """Access rights of pkey_alloc."""

    PKEY_DISABLE_ACCESS = 1
    PKEY_DISABLE_WRITE = 2
