"""netdevice(7): the one interface, ``lo``.  Models ``net/core/dev_ioctl.c`` and ``devinet_ioctl``."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from kernel.abi import socket as s
from kernel.abi.errno import Errno, KernelError
from kernel.fs.uio import user_mm
from kernel.mm.usercopy import copy_from_user, copy_to_user

if TYPE_CHECKING:
    from kernel.task.task import Task

_NAME = b"lo".ljust(16, b"\0")
_IFREQ_SIZE = 40
_IFF_UP_LOOPBACK_RUNNING = 0x49
_ARPHRD_LOOPBACK = 772


def _sockaddr(ip: bytes) -> bytes:
    return struct.pack("<HH", s.AF_INET, 0) + ip + bytes(8)


_ANSWERS = {
    s.SIOCGIFFLAGS: struct.pack("<h", _IFF_UP_LOOPBACK_RUNNING),
    s.SIOCGIFADDR: _sockaddr(bytes((127, 0, 0, 1))),
    s.SIOCGIFNETMASK: _sockaddr(bytes((255, 0, 0, 0))),
    s.SIOCGIFBRDADDR: _sockaddr(bytes(4)),
    s.SIOCGIFMTU: struct.pack("<i", 65536),
    s.SIOCGIFHWADDR: struct.pack("<H", _ARPHRD_LOOPBACK) + bytes(14),
    s.SIOCGIFINDEX: struct.pack("<i", 1),
    s.SIOCGIFTXQLEN: struct.pack("<i", 1000),
}


def interface_ioctl(task: Task, cmd: int, arg: int) -> int:
    mm = user_mm(task)
    if cmd == s.SIOCGIFCONF:
        length, buffer = struct.unpack("<i4xQ", copy_from_user(mm, arg, 16))
        entry = (_NAME + _ANSWERS[s.SIOCGIFADDR]).ljust(_IFREQ_SIZE, b"\0")
        if buffer:
            entry = entry if length >= _IFREQ_SIZE else b""
            copy_to_user(mm, buffer, entry)
        copy_to_user(mm, arg, struct.pack("<i", len(entry)))
        return 0
    if cmd == s.SIOCGIFNAME:
        (index,) = struct.unpack("<i", copy_from_user(mm, arg + 16, 4))
        if index != 1:
            raise KernelError(Errno.ENODEV, "no such interface")
        copy_to_user(mm, arg, _NAME)
        return 0
    answer = _ANSWERS.get(cmd)
    if answer is None:
        raise KernelError(Errno.ENOTTY, f"socket ioctl {cmd:#x}")
    if copy_from_user(mm, arg, 16).split(b"\0")[0] != b"lo":
        raise KernelError(Errno.ENODEV, "no such interface")
    copy_to_user(mm, arg + 16, answer)
    return 0
