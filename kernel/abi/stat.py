"""File modes and the structures that describe files: ``<linux/stat.h>``, ``<asm/stat.h>``, ``<linux/statfs.h>``.

The ``pack_*`` functions give the exact bytes of the x86-64 structures.
"""

from __future__ import annotations

import struct
from enum import IntFlag
from typing import NamedTuple

S_IFMT = 0o170000
S_IFSOCK = 0o140000
S_IFLNK = 0o120000
S_IFREG = 0o100000
S_IFBLK = 0o060000
S_IFDIR = 0o040000
S_IFCHR = 0o020000
S_IFIFO = 0o010000
S_ISUID = 0o4000
S_ISGID = 0o2000
S_ISVTX = 0o1000
S_IXGRP = 0o010
S_IALLUGO = 0o7777
S_IRWXUGO = 0o777

DT_UNKNOWN = 0


def mode_to_dtype(mode: int) -> int:
    """``d_type`` of getdents64 for a file mode."""
    return (mode & S_IFMT) >> 12


def makedev(major: int, minor: int) -> int:
    return (minor & 0xFF) | ((major & 0xFFF) << 8) | ((minor & ~0xFF) << 12) | ((major & ~0xFFF) << 32)


def dev_major(dev: int) -> int:
    return ((dev >> 8) & 0xFFF) | ((dev >> 32) & ~0xFFF)


def dev_minor(dev: int) -> int:
    return (dev & 0xFF) | ((dev >> 12) & ~0xFF)


UNKNOWN_TIME = -1
"""``btime`` of a file whose time of birth is not known."""


class Kstat(NamedTuple):
    """``struct kstat``: what stat(2) and statx(2) report.  Times in nanoseconds since 1970."""

    dev: int
    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    blksize: int
    blocks: int
    atime: int
    mtime: int
    ctime: int
    btime: int
    mnt_id: int = 0
    attributes: int = 0


_STAT64 = struct.Struct("<QQQIIIIQqqqqqqqqq24x").pack


def pack_stat(st: Kstat) -> bytes:
    """``struct stat`` of x86-64, 144 bytes."""
    return _STAT64(
        st.dev, st.ino, st.nlink, st.mode, st.uid, st.gid, 0, st.rdev, st.size, st.blksize, st.blocks,
        st.atime // 1_000_000_000, st.atime % 1_000_000_000,
        st.mtime // 1_000_000_000, st.mtime % 1_000_000_000,
        st.ctime // 1_000_000_000, st.ctime % 1_000_000_000,
    )  # fmt: skip


class StatxMask(IntFlag):
    STATX_TYPE = 0x1
    STATX_MODE = 0x2
    STATX_NLINK = 0x4
    STATX_UID = 0x8
    STATX_GID = 0x10
    STATX_ATIME = 0x20
    STATX_MTIME = 0x40
    STATX_CTIME = 0x80
    STATX_INO = 0x100
    STATX_SIZE = 0x200
    STATX_BLOCKS = 0x400
    STATX_BTIME = 0x800
    STATX_MNT_ID = 0x1000
    STATX_DIOALIGN = 0x2000
    STATX_MNT_ID_UNIQUE = 0x4000
    STATX__RESERVED = 0x80000000


STATX_BASIC_STATS = 0x7FF
STATX_BTIME = 0x800
STATX_MNT_ID = 0x1000
STATX_RESERVED = 0x80000000
STATX_ATTR_MOUNT_ROOT = 0x2000
STATX_ATTR_APPEND = 0x20
STATX_ATTR_IMMUTABLE = 0x10
STATX_ATTRIBUTES_MASK = STATX_ATTR_MOUNT_ROOT

_STATX = struct.Struct("<IIQIIIHxxQQQQ" + "qIxxxx" * 4 + "IIIIQII" + "96x").pack


def pack_statx(st: Kstat) -> bytes:
    """``struct statx``, 256 bytes.  ``stx_btime`` is left out of the mask when it is not known."""
    mask = STATX_BASIC_STATS | STATX_MNT_ID | (STATX_BTIME if st.btime >= 0 else 0)
    giga = 1_000_000_000
    birth = max(0, st.btime)
    return _STATX(
        mask, st.blksize, st.attributes, st.nlink, st.uid, st.gid, st.mode, st.ino, st.size, st.blocks,
        STATX_ATTRIBUTES_MASK,
        st.atime // giga, st.atime % giga, birth // giga, birth % giga,
        st.ctime // giga, st.ctime % giga, st.mtime // giga, st.mtime % giga,
        dev_major(st.rdev), dev_minor(st.rdev), dev_major(st.dev), dev_minor(st.dev),
        st.mnt_id, 0, 0,
    )  # fmt: skip


class StatfsFlags(IntFlag):
    """``f_flags`` of statfs(2) (include/linux/statfs.h)."""

    ST_RDONLY = 0x1
    ST_NOSUID = 0x2
    ST_NODEV = 0x4
    ST_NOEXEC = 0x8
    ST_SYNCHRONOUS = 0x10
    ST_VALID = 0x20
    ST_NOATIME = 0x400
    ST_NODIRATIME = 0x800
    ST_RELATIME = 0x1000


ST_VALID = 0x20


class Kstatfs(NamedTuple):
    """``struct kstatfs``; block counts in units of ``bsize`` bytes."""

    type: int
    bsize: int
    blocks: int
    bfree: int
    bavail: int
    files: int
    ffree: int
    fsid: int
    namelen: int
    frsize: int
    flags: int


_STATFS = struct.Struct("<qqQQQQQQqqq32x").pack


def pack_statfs(st: Kstatfs) -> bytes:
    """``struct statfs`` of x86-64, 120 bytes."""
    return _STATFS(
        st.type, st.bsize, st.blocks, st.bfree, st.bavail, st.files, st.ffree, st.fsid, st.namelen, st.frsize, st.flags
    )


# Superblock magics (include/uapi/linux/magic.h)
EXT4_SUPER_MAGIC = 0xEF53
OVERLAYFS_SUPER_MAGIC = 0x794C7630
TMPFS_MAGIC = 0x01021994
PROC_SUPER_MAGIC = 0x9FA0
SYSFS_MAGIC = 0x62656572
DEVPTS_SUPER_MAGIC = 0x1CD1
PIPEFS_MAGIC = 0x50495045
SOCKFS_MAGIC = 0x534F434B
ANON_INODE_FS_MAGIC = 0x09041934
