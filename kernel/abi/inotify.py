"""inotify(7): event bits and the event structure (``include/uapi/linux/inotify.h``)."""

from __future__ import annotations

import struct
from enum import IntFlag


class InotifyMask(IntFlag):
    IN_ACCESS = 0x1
    IN_MODIFY = 0x2
    IN_ATTRIB = 0x4
    IN_CLOSE_WRITE = 0x8
    IN_CLOSE_NOWRITE = 0x10
    IN_OPEN = 0x20
    IN_MOVED_FROM = 0x40
    IN_MOVED_TO = 0x80
    IN_CREATE = 0x100
    IN_DELETE = 0x200
    IN_DELETE_SELF = 0x400
    IN_MOVE_SELF = 0x800
    IN_UNMOUNT = 0x2000
    IN_Q_OVERFLOW = 0x4000
    IN_IGNORED = 0x8000
    IN_ONLYDIR = 0x1000000
    IN_DONT_FOLLOW = 0x2000000
    IN_EXCL_UNLINK = 0x4000000
    IN_MASK_CREATE = 0x10000000
    IN_MASK_ADD = 0x20000000
    IN_ISDIR = 0x40000000
    IN_ONESHOT = 0x80000000


IN_ACCESS, IN_MODIFY, IN_ATTRIB, IN_CLOSE_WRITE, IN_CLOSE_NOWRITE, IN_OPEN = 0x1, 0x2, 0x4, 0x8, 0x10, 0x20
IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE, IN_DELETE_SELF, IN_MOVE_SELF = 0x40, 0x80, 0x100, 0x200, 0x400, 0x800
IN_UNMOUNT, IN_Q_OVERFLOW, IN_IGNORED = 0x2000, 0x4000, 0x8000
IN_ONLYDIR, IN_DONT_FOLLOW, IN_EXCL_UNLINK = 0x1000000, 0x2000000, 0x4000000
IN_MASK_CREATE, IN_MASK_ADD, IN_ISDIR, IN_ONESHOT = 0x10000000, 0x20000000, 0x40000000, 0x80000000
IN_ALL_EVENTS = 0xFFF


class InotifyInitFlags(IntFlag):
    IN_NONBLOCK = 0o4000
    IN_CLOEXEC = 0o2000000


_EVENT = struct.Struct("<iIII")
EVENT_HEADER_LEN = _EVENT.size


def pack_event(wd: int, mask: int, cookie: int, name: bytes) -> bytes:
    """``struct inotify_event``; the name is padded with zeros to a multiple of the header's size."""
    padded = 0 if not name else (len(name) + 1 + EVENT_HEADER_LEN - 1) // EVENT_HEADER_LEN * EVENT_HEADER_LEN
    return _EVENT.pack(wd, mask, cookie, padded) + name.ljust(padded, b"\0")
