"""Structures of files, descriptors, sockets and waiting for them, as strace prints (and abbreviates) them."""

from __future__ import annotations

import ipaddress
from enum import IntFlag
from typing import TYPE_CHECKING

from emu.trace.layout import array, buffer_text, fields, plain
from emu.trace.peek import peek_exactly
from emu.trace.quote import flags_text, pointer, quote
from kernel.abi.fcntl import OpenFlags, ResolveFlags
from kernel.abi.poll import PollEvents
from kernel.abi.stat import S_IFMT, StatxMask, dev_major, dev_minor

if TYPE_CHECKING:
    from kernel.mm.types import MmStruct

_FILE_TYPES = {
    0o140000: "S_IFSOCK", 0o120000: "S_IFLNK", 0o100000: "S_IFREG", 0o060000: "S_IFBLK", 0o040000: "S_IFDIR",
    0o020000: "S_IFCHR", 0o010000: "S_IFIFO",
}  # fmt: skip


def mode_text(mode: int) -> str:
    """``S_IFREG|0644``."""
    kind = _FILE_TYPES.get(mode & S_IFMT)
    permissions = f"0{mode & ~S_IFMT & 0xFFFF:o}".zfill(3)
    return f"{kind}|{permissions}" if kind else permissions


def device_text(dev: int) -> str:
    return f"makedev({dev_major(dev):#x}, {dev_minor(dev):#x})"


_read_stat = fields("<QQQIIIIQq88x")


def stat(mm: MmStruct | None, address: int) -> str | None:
    values = _read_stat(mm, address)
    if values is None:
        return None
    mode, rdev, size = values[3], values[7], values[8]
    if mode & S_IFMT in (0o020000, 0o060000):
        return f"{{st_mode={mode_text(mode)}, st_rdev={device_text(rdev)}, ...}}"
    return f"{{st_mode={mode_text(mode)}, st_size={size}, ...}}"


_read_statx = fields("<IIQIIIHxxQQ")


def statx(mm: MmStruct | None, address: int) -> str | None:
    values = _read_statx(mm, address)
    if values is None:
        return None
    mask, _blksize, attributes, _nlink, _uid, _gid, mode, _ino, size = values
    return (
        f"{{stx_mask={flags_text(StatxMask, mask)}, stx_attributes={attributes:#x}, "
        f"stx_mode={mode_text(mode)}, stx_size={size}, ...}}"
    ).replace("stx_attributes=0x0,", "stx_attributes=0,")


class MountFlags(IntFlag):
    """``f_flags`` of statfs(2) (include/linux/statfs.h)."""

    ST_VALID = 0x20
    ST_RDONLY = 0x1
    ST_NOSUID = 0x2
    ST_NODEV = 0x4
    ST_NOEXEC = 0x8
    ST_SYNCHRONOUS = 0x10
    ST_MANDLOCK = 0x40
    ST_NOATIME = 0x400
    ST_NODIRATIME = 0x800
    ST_RELATIME = 0x1000
    ST_NOSYMFOLLOW = 0x2000


_read_statfs = fields("<qqQQQQQIIqqq")
_FILE_SYSTEMS = {
    0xEF53: "EXT2_SUPER_MAGIC", 0x01021994: "TMPFS_MAGIC", 0x9FA0: "PROC_SUPER_MAGIC",
    0x794C7630: "OVERLAYFS_SUPER_MAGIC",
    0x50495045: "PIPEFS_MAGIC", 0x62656572: "SYSFS_MAGIC", 0x1CD1: "DEVPTS_SUPER_MAGIC", 0x58465342: "XFS_SUPER_MAGIC",
    0x9123683E: "BTRFS_SUPER_MAGIC",
}  # fmt: skip


def statfs(mm: MmStruct | None, address: int) -> str | None:
    values = _read_statfs(mm, address)
    if values is None:
        return None
    kind, bsize, blocks, bfree, bavail, files, ffree, id0, id1, namelen, frsize, flags = values
    return (
        f"{{f_type={_FILE_SYSTEMS.get(kind, f'{kind:#x}')}, f_bsize={bsize}, f_blocks={blocks}, f_bfree={bfree}, "
        f"f_bavail={bavail}, f_files={files}, f_ffree={ffree}, f_fsid={{val=[{id0:#x}, {id1:#x}]}}, "
        f"f_namelen={namelen}, f_frsize={frsize}, f_flags={flags_text(MountFlags, flags)}}}"
    )


_read_flock = fields("<hhxxxxqqi4x")


def flock(mm: MmStruct | None, address: int, with_pid: bool = False) -> str | None:
    values = _read_flock(mm, address)
    if values is None:
        return None
    kind = {0: "F_RDLCK", 1: "F_WRLCK", 2: "F_UNLCK"}.get(values[0], str(values[0]))
    whence = {0: "SEEK_SET", 1: "SEEK_CUR", 2: "SEEK_END"}.get(values[1], str(values[1]))
    pid = f", l_pid={values[4]}" if with_pid else ""
    return f"{{l_type={kind}, l_whence={whence}, l_start={values[2]}, l_len={values[3]}{pid}}}"


class EpollEvents(IntFlag):
    """``struct epoll_event.events``: poll's bits and four of its own (<linux/eventpoll.h>)."""

    EPOLLIN = 0x1
    EPOLLPRI = 0x2
    EPOLLOUT = 0x4
    EPOLLERR = 0x8
    EPOLLHUP = 0x10
    EPOLLNVAL = 0x20
    EPOLLRDNORM = 0x40
    EPOLLRDBAND = 0x80
    EPOLLWRNORM = 0x100
    EPOLLWRBAND = 0x200
    EPOLLMSG = 0x400
    EPOLLRDHUP = 0x2000
    EPOLLEXCLUSIVE = 1 << 28
    EPOLLWAKEUP = 1 << 29
    EPOLLONESHOT = 1 << 30
    EPOLLET = 1 << 31


_read_epoll = fields("<IQ")


def epoll_event(mm: MmStruct | None, address: int) -> str | None:
    values = _read_epoll(mm, address)
    if values is None:
        return None
    data = values[1]
    return f"{{events={flags_text(EpollEvents, values[0])}, data={{u32={data & 0xFFFFFFFF}, u64={data}}}}}"


def open_how(mm: MmStruct | None, address: int) -> str | None:
    values = fields("<QQQ")(mm, address)
    if values is None:
        return None
    mode = f", mode=0{values[1]:03o}" if values[1] else ""
    return f"{{flags={flags_text(OpenFlags, values[0])}{mode}, resolve={flags_text(ResolveFlags, values[2])}}}"


def sockaddr(mm: MmStruct | None, address: int, length: int) -> str | None:
    data = peek_exactly(mm, address, max(0, min(length, 128)))
    if data is None or len(data) < 2:
        return None
    family = int.from_bytes(data[:2], "little")
    if family == 1:
        if len(data) == 2:
            return "{sa_family=AF_UNIX}"
        path = data[2:]
        abstract = path[:1] == b"\0"
        name = "@" + quote(path[1:]) if abstract else quote(path.split(b"\0", 1)[0])
        return f"{{sa_family=AF_UNIX, sun_path={name}}}"
    if family == 2 and len(data) >= 8:
        port, host = int.from_bytes(data[2:4], "big"), ".".join(str(byte) for byte in data[4:8])
        return f'{{sa_family=AF_INET, sin_port=htons({port}), sin_addr=inet_addr("{host}")}}'
    if family == 10 and len(data) >= 24:
        port, host6 = int.from_bytes(data[2:4], "big"), ipaddress.IPv6Address(data[8:24])
        return f'{{sa_family=AF_INET6, sin6_port=htons({port}), inet_pton(AF_INET6, "{host6}", &sin6_addr), ...}}'
    return f"{{sa_family={family:#x}, sa_data={quote(data[2:])}}}"


_read_iovec = fields("<QQ")


def iovecs(mm: MmStruct | None, address: int, count: int, limit: int | None) -> str | None:
    """``limit`` bytes of content are shown (what was read), None all, -1 only addresses."""
    left = limit

    def one(mm: MmStruct | None, at: int) -> str | None:
        nonlocal left
        values = _read_iovec(mm, at)
        if values is None:
            return None
        base, length = values
        if left == -1:
            return f"{{iov_base={pointer(base)}, iov_len={length}}}"
        nr_bytes = length if left is None else min(length, left)
        if left is not None:
            left -= nr_bytes
        return f"{{iov_base={buffer_text(mm, base, nr_bytes)}, iov_len={length}}}"

    return array(one, 16)(mm, address, count)


_read_pollfd = fields("<ihh")


def pollfd_event(mm: MmStruct | None, address: int) -> str | None:
    values = _read_pollfd(mm, address)
    if values is None:
        return None
    fd, events, _ = values
    return f"{{fd={fd}}}" if fd < 0 else f"{{fd={fd}, events={flags_text(PollEvents, events & 0xFFFF)}}}"


def ready_fds(mm: MmStruct | None, address: int, count: int) -> str:
    """What poll(2) found: the entries whose ``revents`` is not zero."""
    found = []
    for index in range(count):
        values = _read_pollfd(mm, address + 8 * index)
        if values is None:
            break
        if values[2]:
            found.append(f"{{fd={values[0]}, revents={flags_text(PollEvents, values[2] & 0xFFFF)}}}")
    return f"[{', '.join(found)}]"


def fd_set(mm: MmStruct | None, address: int, nfds: int) -> str | None:
    data = peek_exactly(mm, address, (max(0, min(nfds, 1024)) + 63) // 64 * 8)
    if data is None:
        return None
    bits = int.from_bytes(data, "little")
    return f"[{' '.join(str(fd) for fd in range(min(nfds, 1024)) if bits >> fd & 1)}]"


def fd_pair(mm: MmStruct | None, address: int) -> str | None:
    values = fields("<ii")(mm, address)
    return None if values is None else f"[{values[0]}, {values[1]}]"


def count_dirents(mm: MmStruct | None, address: int, nr_bytes: int) -> int:
    count, at = 0, 0
    while at < nr_bytes:
        data = peek_exactly(mm, address + at + 16, 2)
        if data is None:
            break
        at += max(1, int.from_bytes(data, "little"))
        count += 1
    return count


winsize = plain("ws_row ws_col ws_xpixel ws_ypixel", "<HHHH")
