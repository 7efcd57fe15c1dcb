"""Sockets: constants and structures of ``<sys/socket.h>``, ``<linux/un.h>``, ``<linux/in.h>``, ``<linux/tcp.h>``."""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag
from typing import NamedTuple


class Family(IntEnum):
    AF_UNSPEC = 0
    AF_UNIX = 1
    AF_INET = 2
    AF_INET6 = 10
    AF_NETLINK = 16
    AF_PACKET = 17
    AF_ALG = 38
    AF_VSOCK = 40


AF_UNSPEC, AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 0, 1, 2, 10, 16
AF_MAX = 46


class SockType(IntFlag):
    """The type in the low bits, with the two flags of socket(2)."""

    SOCK_STREAM = 1
    SOCK_DGRAM = 2
    SOCK_RAW = 3
    SOCK_SEQPACKET = 5
    SOCK_NONBLOCK = 0o4000
    SOCK_CLOEXEC = 0o2000000


SOCK_STREAM, SOCK_DGRAM, SOCK_RAW, SOCK_SEQPACKET = 1, 2, 3, 5
SOCK_NONBLOCK, SOCK_CLOEXEC, SOCK_TYPE_MASK = 0o4000, 0o2000000, 0xF
IPPROTO_IP, IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_IPV6, IPPROTO_UDPLITE = 0, 1, 6, 17, 41, 136
IPPROTO_MAX = 263


class MsgFlags(IntFlag):
    MSG_OOB = 0x1
    MSG_PEEK = 0x2
    MSG_DONTROUTE = 0x4
    MSG_CTRUNC = 0x8
    MSG_TRUNC = 0x20
    MSG_DONTWAIT = 0x40
    MSG_EOR = 0x80
    MSG_WAITALL = 0x100
    MSG_CONFIRM = 0x800
    MSG_ERRQUEUE = 0x2000
    MSG_NOSIGNAL = 0x4000
    MSG_MORE = 0x8000
    MSG_WAITFORONE = 0x10000
    MSG_FASTOPEN = 0x20000000
    MSG_CMSG_CLOEXEC = 0x40000000


MSG_OOB, MSG_PEEK, MSG_CTRUNC, MSG_TRUNC, MSG_DONTWAIT, MSG_EOR, MSG_WAITALL = 0x1, 0x2, 0x8, 0x20, 0x40, 0x80, 0x100
MSG_ERRQUEUE, MSG_NOSIGNAL, MSG_WAITFORONE, MSG_CMSG_CLOEXEC = 0x2000, 0x4000, 0x10000, 0x40000000


class ShutdownHow(IntEnum):
    SHUT_RD = 0
    SHUT_WR = 1
    SHUT_RDWR = 2


SHUT_RD, SHUT_WR, SHUT_RDWR = 0, 1, 2
RCV_SHUTDOWN, SEND_SHUTDOWN = 1, 2

SOL_SOCKET = 1
(
    SO_DEBUG, SO_REUSEADDR, SO_TYPE, SO_ERROR, SO_DONTROUTE, SO_BROADCAST, SO_SNDBUF, SO_RCVBUF, SO_KEEPALIVE,
    SO_OOBINLINE, SO_NO_CHECK, SO_PRIORITY, SO_LINGER, SO_BSDCOMPAT, SO_REUSEPORT, SO_PASSCRED, SO_PEERCRED,
    SO_RCVLOWAT, SO_SNDLOWAT, SO_RCVTIMEO, SO_SNDTIMEO,
) = range(1, 22)  # fmt: skip
SO_BINDTODEVICE, SO_ATTACH_FILTER, SO_DETACH_FILTER, SO_PEERNAME, SO_TIMESTAMP, SO_ACCEPTCONN = 25, 26, 27, 28, 29, 30
SO_PEERSEC, SO_SNDBUFFORCE, SO_RCVBUFFORCE, SO_PASSSEC, SO_MARK, SO_PROTOCOL, SO_DOMAIN = 31, 32, 33, 34, 36, 38, 39
SO_PEERGROUPS, SO_INCOMING_CPU, SO_COOKIE, SO_PEERPIDFD = 59, 49, 57, 77
SCM_RIGHTS, SCM_CREDENTIALS = 1, 2
SCM_MAX_FD = 253
SOMAXCONN = 4096

TCP_NODELAY, TCP_MAXSEG, TCP_CORK, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT = 1, 2, 3, 4, 5, 6
TCP_INFO, TCP_QUICKACK, TCP_CONGESTION, TCP_USER_TIMEOUT = 11, 12, 13, 18
IPV6_V6ONLY, IPV6_RECVPKTINFO, IPV6_PKTINFO, IPV6_RECVHOPLIMIT, IPV6_HOPLIMIT = 26, 49, 50, 51, 52
IPV6_RECVTCLASS, IPV6_TCLASS, IPV6_UNICAST_HOPS = 66, 67, 16
IP_TOS, IP_TTL, IP_PKTINFO, IP_RECVTTL, IP_RECVTOS = 1, 2, 8, 12, 13
TCP_ESTABLISHED, TCP_CLOSE_WAIT, TCP_CLOSE, TCP_LISTEN, TCP_FIN_WAIT2 = 1, 8, 7, 10, 5

SIOCGIFNAME, SIOCGIFCONF, SIOCGIFFLAGS, SIOCGIFADDR, SIOCGIFBRDADDR = 0x8910, 0x8912, 0x8913, 0x8915, 0x8919
SIOCGIFNETMASK, SIOCGIFMTU, SIOCGIFHWADDR, SIOCGIFINDEX, SIOCGIFTXQLEN = 0x891B, 0x8921, 0x8927, 0x8933, 0x8942
SIOCATMARK, SIOCINQ, SIOCOUTQ = 0x8905, 0x541B, 0x5411

UNIX_PATH_MAX = 108
SOCKADDR_STORAGE_SIZE = 128
MSGHDR = struct.Struct("<QIxxxxQQQQixxxx")
"""``struct msghdr``: name, namelen, iov, iovlen, control, controllen, flags."""
MSGHDR_SIZE = 56
MMSGHDR_SIZE = 64
CMSGHDR = struct.Struct("<Qii")
UCRED = struct.Struct("<iII")
LINGER = struct.Struct("<ii")


class InetAddress(NamedTuple):
    """An internet address: ``ip`` is 16 bytes, IPv4 addresses mapped into ::ffff:0:0/96."""

    ip: bytes
    port: int


_V4_PREFIX = bytes(10) + b"\xff\xff"
ANY_V4 = _V4_PREFIX + bytes(4)
ANY_V6 = bytes(16)
LOOPBACK_V4 = _V4_PREFIX + bytes((127, 0, 0, 1))
LOOPBACK_V6 = bytes(15) + b"\x01"


def is_v4(ip: bytes) -> bool:
    return ip.startswith(_V4_PREFIX)


def is_any(ip: bytes) -> bool:
    return ip in (ANY_V4, ANY_V6)


def is_local(ip: bytes) -> bool:
    """Does the address belong to this machine (its loopback interface)?"""
    return ip == LOOPBACK_V6 or (is_v4(ip) and ip[12] == 127)


def parse_inet(raw: bytes) -> InetAddress:
    """``struct sockaddr_in``, at least 16 bytes."""
    return InetAddress(_V4_PREFIX + raw[4:8], int.from_bytes(raw[2:4], "big"))


def parse_inet6(raw: bytes) -> InetAddress:
    """``struct sockaddr_in6``, at least 24 bytes."""
    return InetAddress(raw[8:24], int.from_bytes(raw[2:4], "big"))


def pack_inet(family: int, address: InetAddress) -> bytes:
    """The address as a socket of ``family`` shows it."""
    port = address.port.to_bytes(2, "big")
    if family == AF_INET:
        return struct.pack("<H", AF_INET) + port + address.ip[12:] + bytes(8)
    ip = ANY_V6 if address.ip == ANY_V4 else address.ip
    return struct.pack("<H", AF_INET6) + port + bytes(4) + ip + bytes(4)


def cmsg_align(length: int) -> int:
    return (length + 7) & ~7
