"""AF_INET and AF_INET6 sockets inside the machine's loopback: ip(7), tcp(7), udp(7), ipv6(7).

Models ``net/ipv4/af_inet.c``, ``tcp.c``, ``udp.c`` as a program sees them.  The only interface is ``lo`` (127.0.0.0/8
and ::1); everything else is ENETUNREACH.

Deliberate differences: no packets, so no loss, no time-outs and no TIME_WAIT; connecting is done at once, though a
non-blocking connect says EINPROGRESS first, as Linux does; UDP never drops.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import TYPE_CHECKING

from kernel.abi import socket as s
from kernel.abi.errno import Errno, KernelError
from kernel.abi.poll import POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDHUP, POLLRDNORM, POLLWRBAND, POLLWRNORM
from kernel.abi.socket import InetAddress
from kernel.fs.net.socket import Control, Message, Received, Socket, int_of_option, pack_int_option
from kernel.fs.net.stream import ConnectedSocket, wait_for_backlog
from kernel.fs.permission import CAP_NET_BIND_SERVICE, capable
from kernel.task.waitqueue import Blocking

if TYPE_CHECKING:
    from kernel.task.task import Task

TCP_BUFFER = 1 << 20
TCP_RCVBUF = 131_072
MAX_UDP = 65_507
FIRST_UNPRIVILEGED_PORT = 1024
_OPTION_DEFAULTS = {
    (s.IPPROTO_TCP, s.TCP_MAXSEG): 32768,
    (s.IPPROTO_TCP, s.TCP_KEEPIDLE): 7200,
    (s.IPPROTO_TCP, s.TCP_KEEPINTVL): 75,
    (s.IPPROTO_TCP, s.TCP_KEEPCNT): 9,
    (s.IPPROTO_TCP, s.TCP_QUICKACK): 1,
    (s.IPPROTO_IP, s.IP_TTL): 64,
    (s.IPPROTO_IPV6, s.IPV6_UNICAST_HOPS): 64,
}


class InetSocket(Socket):
    """Names, ports and options of an internet socket."""

    __slots__ = ()

    local_ip: bytes
    local_port: int
    remote: InetAddress | None

    def parse(self, raw: bytes) -> InetAddress:
        """A sockaddr for this family; AF_INET ones are taken by AF_INET6 sockets only as mapped addresses."""
        if len(raw) < 2:
            raise KernelError(Errno.EINVAL, "address too short")
        (family,) = struct.unpack("<H", raw[:2])
        if self.family == s.AF_INET:
            if family not in (s.AF_INET, s.AF_UNSPEC):
                raise KernelError(Errno.EAFNOSUPPORT, "not an AF_INET address")
            if len(raw) < 16:
                raise KernelError(Errno.EINVAL, "address too short")
            return s.parse_inet(raw)
        if family != s.AF_INET6:
            raise KernelError(Errno.EAFNOSUPPORT, "not an AF_INET6 address")
        if len(raw) < 24:
            raise KernelError(Errno.EINVAL, "address too short")
        return s.parse_inet6(raw)

    @property
    def v6only(self) -> bool:
        return bool(self.options.get((s.IPPROTO_IPV6, s.IPV6_V6ONLY), 0))

    def accepts(self, ip: bytes) -> bool:
        """Does a wildcard-bound socket take packets for ``ip``?"""
        return s.is_v4(ip) if self.family == s.AF_INET else not (s.is_v4(ip) and self.v6only)

    def overlaps(self, other: InetSocket) -> bool:
        """Could a packet be for both?"""
        if self.family == other.family:
            return True
        six = self if self.family == s.AF_INET6 else other
        return not six.v6only and (s.is_any(six.local_ip) or s.is_v4(six.local_ip))

    @property
    def any_ip(self) -> bytes:
        return s.ANY_V4 if self.family == s.AF_INET else s.ANY_V6

    def bind(self, task: Task, address: bytes) -> None:
        ip, port = self.parse(address)
        if not s.is_local(ip) and not s.is_any(ip):
            raise KernelError(Errno.EADDRNOTAVAIL, "not an address of this machine")
        if 0 < port < FIRST_UNPRIVILEGED_PORT and not capable(task, CAP_NET_BIND_SERVICE):
            raise KernelError(Errno.EACCES, "port below 1024")
        if self.local_port:
            raise KernelError(Errno.EINVAL, "socket is bound already")
        self.local_port = self.kernel.vfs.net.bind_port(self, ip, port)  # type: ignore[misc]
        self.local_ip = ip  # type: ignore[misc]

    def autobind(self) -> None:
        if not self.local_port:
            self.local_port = self.kernel.vfs.net.bind_port(self, self.local_ip, 0)  # type: ignore[misc]

    def unbind(self) -> None:
        if self.local_port:
            self.kernel.vfs.net.release_port(self, self.local_port)

    def destination(self, raw: bytes) -> InetAddress:
        """Where to connect or send to; an unspecified address means this machine."""
        target = self.parse(raw)
        ip = target.ip
        if s.is_any(ip):
            ip = s.LOOPBACK_V4 if s.is_v4(ip) else s.LOOPBACK_V6
        if not s.is_local(ip) or (self.family == s.AF_INET6 and s.is_v4(ip) and self.v6only):
            raise KernelError(Errno.ENETUNREACH, "only the loopback network exists")
        return InetAddress(ip, target.port)

    def source_ip(self, destination: bytes) -> bytes:
        if not s.is_any(self.local_ip):
            return self.local_ip
        return s.LOOPBACK_V4 if s.is_v4(destination) else s.LOOPBACK_V6

    def getsockname(self) -> bytes:
        return s.pack_inet(self.family, InetAddress(self.local_ip, self.local_port))

    def tcp_state(self) -> int:
        return s.TCP_CLOSE

    # -- options -------------------------------------------------------------------------------------------
    def set_protocol_option(self, level: int, name: int, value: bytes) -> None:
        if level not in (s.IPPROTO_IP, s.IPPROTO_IPV6, self.protocol):
            raise KernelError(Errno.ENOPROTOOPT, "unknown option level")
        if level == s.IPPROTO_TCP and name in (s.TCP_INFO,):
            raise KernelError(Errno.ENOPROTOOPT, "option can only be read")
        if level == s.IPPROTO_TCP and name == s.TCP_CONGESTION:
            return
        number = int_of_option(value) if len(value) >= 4 else int.from_bytes(value, "little")
        if level == s.IPPROTO_IPV6 and name == s.IPV6_V6ONLY and self.local_port:
            raise KernelError(Errno.EINVAL, "socket is bound already")
        self.options[(level, name)] = number

    def get_protocol_option(self, level: int, name: int) -> bytes:
        if level not in (s.IPPROTO_IP, s.IPPROTO_IPV6, self.protocol):
            raise KernelError(Errno.ENOPROTOOPT, "unknown option level")
        if level == s.IPPROTO_TCP and name == s.TCP_INFO:
            return bytes((self.tcp_state(),)).ljust(104, b"\0")
        if level == s.IPPROTO_TCP and name == s.TCP_CONGESTION:
            return b"cubic".ljust(16, b"\0")
        return pack_int_option(self.options.get((level, name), _OPTION_DEFAULTS.get((level, name), 0)))


class TcpSocket(InetSocket, ConnectedSocket):
    """SOCK_STREAM."""

    __slots__ = ("failed_connect", "local_ip", "local_port", "noticed_close", "owns_port", "remote")

    writable_mask = POLLOUT | POLLWRNORM

    def __init__(self, task: Task, family: int, flags: int) -> None:
        path = task.kernel.vfs.pseudo.new_socket(task)
        super().__init__(task, family, s.SOCK_STREAM, s.IPPROTO_TCP, flags, path)
        self.local_ip = self.any_ip
        self.local_port = 0
        self.remote: InetAddress | None = None
        self.owns_port = True
        self.noticed_close = False
        self.failed_connect = False
        """A non-blocking connect was refused."""
        self.sndbuf, self.rcvbuf = TCP_BUFFER, TCP_RCVBUF

    def tcp_state(self) -> int:
        if self.listening:
            return s.TCP_LISTEN
        if not self.was_connected:
            return s.TCP_CLOSE
        peer = self.peer
        if peer is None or peer.shutdown_mask & s.SEND_SHUTDOWN:
            return s.TCP_CLOSE_WAIT
        return s.TCP_FIN_WAIT2 if self.shutdown_mask & s.SEND_SHUTDOWN else s.TCP_ESTABLISHED

    def new_child(self, task: Task) -> TcpSocket:
        child = TcpSocket(task, self.family, 0)
        child.owns_port = False
        child.local_port = self.local_port
        child.local_ip = self.local_ip
        child.options = dict(self.options)
        return child

    def listen(self, task: Task, backlog: int) -> None:
        if self.was_connected:
            raise KernelError(Errno.EINVAL, "socket is connected")
        self.autobind()
        super().listen(task, backlog)

    def connect(self, task: Task, address: bytes) -> Blocking[None]:
        if address[:2] == struct.pack("<H", s.AF_UNSPEC) and len(address) >= 2:
            self._disconnect()
            return
        if self.pending_connect:
            self.pending_connect = False
            self.take_error()
            if self.failed_connect:
                self.failed_connect = False
                raise KernelError(Errno.ECONNABORTED, "the connection was refused")
            return
        if self.was_connected:
            raise KernelError(Errno.EISCONN, "socket is connected")
        if self.listening:
            raise KernelError(Errno.EISCONN, "socket listens")
        target = self.destination(address)
        self.autobind()
        server = self._find_listener(target)
        blocks = self.blocks(0)
        if server is None:
            if blocks:
                raise KernelError(Errno.ECONNREFUSED, "nobody listens")
            self.error = int(Errno.ECONNREFUSED)
            self.failed_connect = True
        else:
            if server.backlog_full and blocks:
                yield from wait_for_backlog(self, server)
            self.remote = target
            self.local_ip = self.source_ip(target.ip)
            self.reach(task, server)
            child = server.accept_queue[-1]
            assert isinstance(child, TcpSocket)
            child.local_ip = target.ip
            child.remote = InetAddress(self.local_ip, self.local_port)
            self.peer_name = s.pack_inet(self.family, target)
            child.peer_name = s.pack_inet(child.family, child.remote)
        if not blocks:
            self.pending_connect = True
            raise KernelError(Errno.EINPROGRESS, "the connection is being made")

    def _find_listener(self, target: InetAddress) -> TcpSocket | None:
        for sock in self.kernel.vfs.net.lookup(s.IPPROTO_TCP, target.ip, target.port):
            if isinstance(sock, TcpSocket) and sock.listening:
                return sock
        return None

    def _disconnect(self) -> None:
        peer = self.peer
        if peer is not None:
            peer.peer = None
            peer.error = int(Errno.ECONNRESET)
            peer.wq.wake_up()
        self.peer = None
        self.connected = self.was_connected = False
        self.remote = None

    def unnoticed_close(self) -> bool:
        if self.noticed_close or self.error or self.shutdown_mask & s.SEND_SHUTDOWN:
            return False
        self.noticed_close = True
        return True

    def poll(self, task: Task | None) -> int:
        if self.failed_connect or (self.peer is None and self.noticed_close and self.was_connected):
            both = POLLIN | POLLRDNORM | self.writable_mask | POLLHUP | POLLRDHUP
            return both | (POLLERR if self.error else 0)
        return super().poll(task)

    def charge_for(self, length: int) -> int:
        return length

    def shutdown(self, how: int) -> None:
        if self.listening and how != s.SHUT_WR:
            self.listening = False
            self.wq.wake_up()
            return
        super().shutdown(how)

    def release(self) -> None:
        if self.owns_port:
            self.unbind()
        if self.linger[0] and self.linger[1] == 0 and self.peer is not None:
            self.peer.error = int(Errno.ECONNRESET)
        super().release()


class UdpSocket(InetSocket):
    """SOCK_DGRAM: UDP, and UDP-Lite as the same thing in a port space of its own."""

    __slots__ = ("local_ip", "local_port", "queue", "remote")

    def __init__(self, task: Task, family: int, protocol: int, flags: int) -> None:
        path = task.kernel.vfs.pseudo.new_socket(task)
        super().__init__(task, family, s.SOCK_DGRAM, protocol, flags, path)
        self.local_ip = self.any_ip
        self.local_port = 0
        self.remote: InetAddress | None = None
        self.queue: deque[Message] = deque()

    def tcp_state(self) -> int:
        return s.TCP_ESTABLISHED if self.remote is not None else s.TCP_CLOSE

    def connect(self, task: Task, address: bytes) -> Blocking[None]:
        if address[:2] == struct.pack("<H", s.AF_UNSPEC):
            self.remote = None
            return
        target = self.destination(address)
        self.autobind()
        self.local_ip = self.source_ip(target.ip)
        self.remote = target
        return
        yield

    def getpeername(self) -> bytes:
        if self.remote is None:
            raise KernelError(Errno.ENOTCONN, "socket is not connected")
        return s.pack_inet(self.family, self.remote)

    def _send(self, task: Task, data: bytes, address: bytes, flags: int, control: Control) -> Blocking[int]:
        headers = control.headers
        if flags & s.MSG_OOB:
            raise KernelError(Errno.EOPNOTSUPP, "no out-of-band data")
        self.take_error()
        if self.shutdown_mask & s.SEND_SHUTDOWN:
            raise self.broken_pipe(task, flags)
        if address:
            target = self.destination(address)
        elif self.remote is not None:
            target = self.remote
        else:
            raise KernelError(Errno.EDESTADDRREQ, "no destination")
        if target.port == 0:
            raise KernelError(Errno.EINVAL, "port 0")
        if len(data) > MAX_UDP:
            raise KernelError(Errno.EMSGSIZE, "datagram too large")
        self.autobind()
        source = InetAddress(self.source_ip(target.ip), self.local_port)
        receiver = self._find_receiver(target, source)
        if receiver is None:
            if self.remote is not None:
                self.error = int(Errno.ECONNREFUSED)  # the answer to a connected socket: port unreachable
                self.wq.wake_up()
        elif receiver.queued_bytes + len(data) <= receiver.rcvbuf:
            sender = s.pack_inet(receiver.family, source)
            message = Message(self, 0, data, sender, None, [])
            message.headers = headers
            receiver.queue.append(message)
            receiver.queued_bytes += len(data)
            receiver.wq.wake_up()
        return len(data)
        yield

    def _find_receiver(self, target: InetAddress, source: InetAddress) -> UdpSocket | None:
        """udp4_lib_lookup2(): a socket connected to the sender is preferred, then the address, then the newest."""
        best: UdpSocket | None = None
        for sock in self.kernel.vfs.net.lookup(self.protocol, target.ip, target.port):
            if not isinstance(sock, UdpSocket) or (sock.remote is not None and sock.remote != source):
                continue
            if best is None or (sock.remote is not None and best.remote is None):
                best = sock
        return best

    def recvmsg(self, task: Task, count: int, flags: int) -> Blocking[Received]:
        message = yield from self._first_message(self.queue, flags)
        if message is None:
            return Received()
        received = Received.datagram(message, count)
        received.items = self._header_items(message)
        if not flags & s.MSG_PEEK:
            self.queue.popleft().free()
            self.queued_bytes -= len(message.data)
        return received

    def _header_items(self, message: Message) -> list[tuple[int, int, bytes]]:
        """What IP_RECVTTL, IPV6_RECVHOPLIMIT and the like ask for: fields of the packet's header."""
        wanted = self.options
        v4, v6 = s.IPPROTO_IP, s.IPPROTO_IPV6
        items: list[tuple[int, int, bytes]] = []
        if self.family == s.AF_INET:
            if wanted.get((v4, s.IP_PKTINFO)):
                items.append((v4, s.IP_PKTINFO, struct.pack("<i", 1) + self.local_ip[12:] + self.local_ip[12:]))
            if wanted.get((v4, s.IP_RECVTTL)):
                items.append((v4, s.IP_TTL, _header(message, v4, s.IP_TTL)))
            if wanted.get((v4, s.IP_RECVTOS)):
                items.append((v4, s.IP_TOS, _header(message, v4, s.IP_TOS)[:1]))
            return items
        if wanted.get((v6, s.IPV6_RECVPKTINFO)):
            items.append((v6, s.IPV6_PKTINFO, self.local_ip + struct.pack("<i", 1)))
        if wanted.get((v6, s.IPV6_RECVHOPLIMIT)):
            items.append((v6, s.IPV6_HOPLIMIT, _header(message, v6, s.IPV6_HOPLIMIT)))
        if wanted.get((v6, s.IPV6_RECVTCLASS)):
            items.append((v6, s.IPV6_TCLASS, _header(message, v6, s.IPV6_TCLASS)))
        return items

    def inq(self) -> int:
        return len(self.queue[0].data) if self.queue else 0

    def shutdown(self, how: int) -> None:
        if self.remote is None:
            raise KernelError(Errno.ENOTCONN, "socket is not connected")
        if not 0 <= how <= 2:
            raise KernelError(Errno.EINVAL, "shutdown how")
        self.shutdown_mask |= how + 1
        self.wq.wake_up()

    def poll(self, task: Task | None) -> int:
        mask = POLLOUT | POLLWRNORM | POLLWRBAND
        if self.error:
            mask |= POLLERR
        if self.queue:
            mask |= POLLIN | POLLRDNORM
        if self.shutdown_mask & s.RCV_SHUTDOWN:
            mask |= POLLRDHUP | POLLIN | POLLRDNORM
        if self.shutdown_mask == 3:
            mask |= POLLHUP
        return mask

    def release(self) -> None:
        self.unbind()
        self.f_inode.i_socket = None
        self.queue.clear()
        self.wq.wake_up()


def _header(message: Message, level: int, name: int) -> bytes:
    """A field of the packet's header: set for the packet, for the sender's socket, or as always."""
    value = message.headers.get((level, name))
    if value is None:
        option = (level, s.IPV6_UNICAST_HOPS if name == s.IPV6_HOPLIMIT else name)
        value = message.sender.options.get(option, _OPTION_DEFAULTS.get(option, 0))
    return struct.pack("<i", value)


def make_inet(task: Task, family: int, sock_type: int, protocol: int, flags: int) -> InetSocket:
    if not 0 <= protocol < s.IPPROTO_MAX:
        raise KernelError(Errno.EINVAL, "no protocol has this number")
    if sock_type == s.SOCK_STREAM and protocol in (0, s.IPPROTO_TCP):
        return TcpSocket(task, family, flags)
    if sock_type == s.SOCK_DGRAM and protocol in (0, s.IPPROTO_UDP, s.IPPROTO_UDPLITE):
        return UdpSocket(task, family, protocol or s.IPPROTO_UDP, flags)
    if sock_type == s.SOCK_RAW:
        raise KernelError(Errno.EPERM, "no raw sockets")
    if sock_type in (s.SOCK_STREAM, s.SOCK_DGRAM):
        raise KernelError(Errno.EPROTONOSUPPORT, "protocol not supported")
    raise KernelError(Errno.ESOCKTNOSUPPORT, "no such socket type")
