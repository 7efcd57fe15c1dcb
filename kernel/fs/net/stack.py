"""The tables of one machine's network: abstract names, ports, and the sockets for /proc/net."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from kernel.abi import socket as s
from kernel.abi.errno import Errno, KernelError

if TYPE_CHECKING:
    from kernel.fs.net.inet import InetSocket
    from kernel.fs.net.socket import Socket
    from kernel.kernel import Kernel

FIRST_EPHEMERAL, LAST_EPHEMERAL = 32768, 60999


class NetStack:
    """Invariant: ``bound[protocol][port]`` lists the sockets bound to the port, oldest first; no empty list is kept."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.abstract: dict[bytes, Socket] = {}
        """AF_UNIX sockets by abstract name, leading NUL included."""
        self.bound: dict[int, dict[int, list[InetSocket]]] = {
            s.IPPROTO_TCP: {},
            s.IPPROTO_UDP: {},
            s.IPPROTO_UDPLITE: {},
        }
        self.netlink_ports: dict[int, None] = {}
        self._next_ephemeral = FIRST_EPHEMERAL

    # -- ports ---------------------------------------------------------------------------------------------
    def bind_port(self, sock: InetSocket, ip: bytes, port: int) -> int:
        """Give ``sock`` the port (0: any free one); EADDRINUSE."""
        table = self.bound[sock.protocol]
        if port == 0:
            port = self._free_port(table)
        elif any(conflicts(sock, ip, other) for other in table.get(port, ())):
            raise KernelError(Errno.EADDRINUSE, "port in use")
        table.setdefault(port, []).append(sock)
        return port

    def _free_port(self, table: dict[int, list[InetSocket]]) -> int:
        for _ in range(LAST_EPHEMERAL - FIRST_EPHEMERAL + 1):
            port = self._next_ephemeral
            self._next_ephemeral = port + 1 if port < LAST_EPHEMERAL else FIRST_EPHEMERAL
            if port not in table:
                return port
        raise KernelError(Errno.EADDRINUSE, "no port is free")

    def release_port(self, sock: InetSocket, port: int) -> None:
        table = self.bound[sock.protocol]
        sockets = table.get(port)
        if sockets is not None and sock in sockets:
            sockets.remove(sock)
            if not sockets:
                del table[port]

    def lookup(self, protocol: int, ip: bytes, port: int) -> list[InetSocket]:
        """The sockets that a packet for (ip, port) could be for: exact addresses before wildcards."""
        candidates = self.bound[protocol].get(port, [])
        exact = [sock for sock in candidates if sock.local_ip == ip]
        wild = [sock for sock in candidates if s.is_any(sock.local_ip) and sock.accepts(ip)]
        return exact + wild

    # -- /proc/net -----------------------------------------------------------------------------------------
    def _sockets(self) -> list[Socket]:
        """Every open socket, in the order of processes and descriptors."""
        from kernel.fs.net.socket import Socket

        found: dict[Socket, None] = {}
        for task in self.kernel.tasks.values():
            for _fd, file in task._files or ():
                if isinstance(file, Socket):
                    found[file] = None
        return list(found)

    def unix_lines(self) -> str:
        lines = []
        for sock in self._sockets():
            if sock.family != s.AF_UNIX:
                continue
            state = 1
            if sock.listening:
                state = 1
            elif getattr(sock, "peer", None) is not None:
                state = 3
            name: bytes = getattr(sock, "name", b"")
            text = " " + name.replace(b"\0", b"@").decode("utf-8", "surrogateescape") if name else ""
            flags = 0x10000 if sock.listening else 0
            ino = sock.f_inode.i_ino
            lines.append(f"{ino:016x}: 00000002 00000000 {flags:08X} {sock.type:04X} {state:02X} {ino:5}{text}\n")
        return "".join(lines)

    def inet_lines(self, which: str) -> str:
        from kernel.fs.net.inet import InetSocket

        protocol = s.IPPROTO_TCP if which == "tcp" else s.IPPROTO_UDP
        lines: list[str] = []
        for sock in self._sockets():
            if not isinstance(sock, InetSocket) or sock.protocol != protocol or sock.family != s.AF_INET:
                continue
            local = _hex(sock.local_ip, sock.local_port)
            remote = _hex(sock.remote.ip, sock.remote.port) if sock.remote is not None else "00000000:0000"
            row = (
                f"{len(lines):4}: {local} {remote} {sock.tcp_state():02X} {sock.outq():08X}:{sock.queued_bytes:08X}"
                f" 00:00000000 00000000 {sock.f_inode.i_uid:5}        0 {sock.f_inode.i_ino} 1 0000000000000000"
            )
            lines.append(row.ljust(149 if which == "tcp" else 127) + "\n")
        return "".join(lines)


def conflicts(sock: InetSocket, ip: bytes, other: InetSocket) -> bool:
    """inet_csk_bind_conflict(): may ``sock`` not share its port with ``other``?"""
    same_place = ip == other.local_ip or s.is_any(ip) or s.is_any(other.local_ip)
    if not same_place or not sock.overlaps(other):
        return False
    if sock.flag(s.SO_REUSEPORT) and other.flag(s.SO_REUSEPORT):
        return False
    return not (sock.flag(s.SO_REUSEADDR) and other.flag(s.SO_REUSEADDR) and not other.listening)


def _hex(ip: bytes, port: int) -> str:
    """An address as /proc/net/tcp shows it: the IPv4 address as a little-endian word."""
    return f"{struct.unpack('<I', ip[12:])[0]:08X}:{port:04X}"
