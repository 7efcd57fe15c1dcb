"""AF_NETLINK, NETLINK_ROUTE: what programs ask about interfaces, addresses and routes.

Models ``net/netlink/af_netlink.c`` and ``net/core/rtnetlink.c``: netlink(7), rtnetlink(7).  There is one interface,
``lo``, with 127.0.0.1/8 and ::1/128, and no route.

Deliberate difference: nothing can be changed (EPERM), and no events come.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import TYPE_CHECKING

from kernel.abi import socket as s
from kernel.abi.errno import Errno, KernelError
from kernel.abi.poll import POLLIN, POLLOUT, POLLRDNORM, POLLWRBAND, POLLWRNORM
from kernel.fs.net.socket import Control, Received, Socket
from kernel.task.waitqueue import Blocking

if TYPE_CHECKING:
    from kernel.task.task import Task

NETLINK_ROUTE = 0
SOL_NETLINK = 270
_HEADER = struct.Struct("<IHHII")
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_MULTI, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x2, 0x4, 0x300
RTM_NEWLINK, RTM_GETLINK, RTM_NEWADDR, RTM_GETADDR, RTM_GETROUTE = 16, 18, 20, 22, 26
_IFF_LO = 0x1_0049
_ARPHRD_LOOPBACK = 772
_RT_SCOPE_HOST = 254
_IFA_F_PERMANENT = 0x80


def _attributes(*pairs: tuple[int, bytes]) -> bytes:
    """``struct rtattr`` after another, each aligned to 4 bytes."""
    parts = []
    for kind, payload in pairs:
        length = 4 + len(payload)
        parts.append((struct.pack("<HH", length, kind) + payload).ljust(length + 3 & ~3, b"\0"))
    return b"".join(parts)


_LINK = struct.pack("<BxHiII", 0, _ARPHRD_LOOPBACK, 1, _IFF_LO, 0) + _attributes(
    (3, b"lo\0"),  # IFLA_IFNAME
    (13, struct.pack("<I", 1000)),  # IFLA_TXQLEN
    (16, b"\0"),  # IFLA_OPERSTATE
    (17, b"\0"),  # IFLA_LINKMODE
    (4, struct.pack("<I", 65536)),  # IFLA_MTU
    (6, b"noqueue\0"),  # IFLA_QDISC
    (1, bytes(6)),  # IFLA_ADDRESS
    (2, bytes(6)),  # IFLA_BROADCAST
)


def _address(family: int, prefix: int, ip: bytes) -> bytes:
    head = struct.pack("<BBBBI", family, prefix, _IFA_F_PERMANENT, _RT_SCOPE_HOST, 1)
    flags = (8, struct.pack("<I", _IFA_F_PERMANENT))  # IFA_FLAGS
    if family == s.AF_INET:
        return head + _attributes((1, ip), (2, ip), (3, b"lo\0"), flags)  # IFA_ADDRESS, IFA_LOCAL, IFA_LABEL
    return head + _attributes((1, ip), flags)


_ADDRESSES = {
    s.AF_INET: _address(s.AF_INET, 8, bytes((127, 0, 0, 1))),
    s.AF_INET6: _address(s.AF_INET6, 128, s.LOOPBACK_V6),
}


class NetlinkSocket(Socket):
    __slots__ = ("port", "queue")

    def __init__(self, task: Task, sock_type: int, flags: int) -> None:
        path = task.kernel.vfs.pseudo.new_socket(task)
        super().__init__(task, s.AF_NETLINK, sock_type, NETLINK_ROUTE, flags, path)
        self.port = 0
        self.queue: deque[bytes] = deque()

    # -- names ---------------------------------------------------------------------------------------------
    def _autobind(self, task: Task) -> None:
        if not self.port:
            taken = self.kernel.vfs.net.netlink_ports
            self.port = task.tgid
            while self.port in taken:
                self.port += 1 << 22
            taken[self.port] = None

    def bind(self, task: Task, address: bytes) -> None:
        port, groups = self._parse(address)
        if groups:
            raise KernelError(Errno.EPERM, "no multicast groups")
        if port and port != self.port:
            if self.port or port in self.kernel.vfs.net.netlink_ports:
                raise KernelError(Errno.EADDRINUSE, "netlink port in use")
            self.port = port
            self.kernel.vfs.net.netlink_ports[port] = None
        self._autobind(task)

    @staticmethod
    def _parse(address: bytes) -> tuple[int, int]:
        if len(address) < 12 or address[:2] != struct.pack("<H", s.AF_NETLINK):
            raise KernelError(Errno.EINVAL, "not a netlink address")
        _family, _pad, port, groups = struct.unpack_from("<HHII", address)
        return port, groups

    def connect(self, task: Task, address: bytes) -> Blocking[None]:
        self._parse(address)
        self._autobind(task)
        return
        yield

    def getsockname(self) -> bytes:
        return struct.pack("<HHII", s.AF_NETLINK, 0, self.port, 0)

    def getpeername(self) -> bytes:
        return struct.pack("<HHII", s.AF_NETLINK, 0, 0, 0)

    def set_protocol_option(self, level: int, name: int, value: bytes) -> None:
        if level != SOL_NETLINK:
            raise KernelError(Errno.ENOPROTOOPT, "unknown option level")
        self.options[(level, name)] = 1

    # -- requests and answers ------------------------------------------------------------------------------
    def _send(self, task: Task, data: bytes, address: bytes, flags: int, control: Control) -> Blocking[int]:
        self._autobind(task)
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, nl_flags, seq, _port = _HEADER.unpack_from(data, offset)
            if length < _HEADER.size or offset + length > len(data):
                break
            if nl_flags & NLM_F_REQUEST and kind >= 16:
                self._request(kind, nl_flags, seq, data[offset : offset + length])
            offset += length + 3 & ~3
        self.wq.wake_up()
        return len(data)
        yield

    def _request(self, kind: int, flags: int, seq: int, message: bytes) -> None:
        family = message[_HEADER.size] if len(message) > _HEADER.size else 0
        is_dump = flags & NLM_F_DUMP == NLM_F_DUMP
        if kind == RTM_GETLINK:
            answers = [(RTM_NEWLINK, _LINK)]
        elif kind == RTM_GETADDR and is_dump:
            answers = [(RTM_NEWADDR, body) for af, body in _ADDRESSES.items() if family in (0, af)]
        elif kind == RTM_GETROUTE and is_dump:
            answers = []
        else:
            self._error(seq, Errno.EPERM if kind & 3 != 2 else Errno.EOPNOTSUPP, message)
            return
        if not is_dump:
            self.queue.append(self._pack(answers[0][0], 0, seq, answers[0][1]))
            if flags & NLM_F_ACK:
                self._error(seq, 0, message)
            return
        if answers:
            self.queue.append(b"".join(self._pack(what, NLM_F_MULTI, seq, body) for what, body in answers))
        self.queue.append(self._pack(NLMSG_DONE, NLM_F_MULTI, seq, struct.pack("<i", 0)))

    def _error(self, seq: int, errno: int, message: bytes) -> None:
        self.queue.append(self._pack(NLMSG_ERROR, 0, seq, struct.pack("<i", -errno) + message[: _HEADER.size]))

    def _pack(self, kind: int, flags: int, seq: int, body: bytes) -> bytes:
        length = _HEADER.size + len(body)
        return (_HEADER.pack(length, kind, flags, seq, self.port) + body).ljust(length + 3 & ~3, b"\0")

    def recvmsg(self, task: Task, count: int, flags: int) -> Blocking[Received]:
        deadline_ns = self.deadline(self.rcv_timeout_ns)
        while not self.queue:
            if not self.blocks(flags):
                raise KernelError(Errno.EAGAIN, "nothing to receive")
            yield from self.pause(deadline_ns)
        message = self.queue[0]
        received = Received(message[:count])
        received.full_length = len(message)
        received.address = self.getpeername()
        received.flags = s.MSG_TRUNC if len(message) > count else 0
        if not flags & s.MSG_PEEK:
            self.queue.popleft()
        return received

    def inq(self) -> int:
        return len(self.queue[0]) if self.queue else 0

    def poll(self, task: Task | None) -> int:
        return POLLOUT | POLLWRNORM | POLLWRBAND | (POLLIN | POLLRDNORM if self.queue else 0)

    def release(self) -> None:
        self.kernel.vfs.net.netlink_ports.pop(self.port, None)
        self.f_inode.i_socket = None
