"""Packets on a socket: ``$data#checksum``, acknowledgements, escapes, and the lone byte 0x03 that interrupts.

Only 127.0.0.1 is listened on: whoever can connect can read every file that the guest can.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable

PACKET_BYTES = 0x20000
"""What we accept, and the most that we send, in one packet."""
_INTERRUPT = 0x03
_ESCAPE = 0x7D
_ESCAPED = frozenset(b"#$}*")
_POLL_SECONDS = 0.25


class Disconnected(Exception):
    """gdb has closed the connection."""


def listen(port: int) -> socket.socket:
    """A listening socket on the loopback interface.  OSError."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(1)
    except OSError:
        listener.close()
        raise
    return listener


def escape(data: bytes) -> bytes:
    """Binary data as it stands in a packet."""
    if not any(byte in _ESCAPED for byte in data):
        return data
    out = bytearray()
    for byte in data:
        if byte in _ESCAPED:
            out += bytes((_ESCAPE, byte ^ 0x20))
        else:
            out.append(byte)
    return bytes(out)


def unescape(data: bytes) -> bytes:
    if _ESCAPE not in data:
        return data
    out = bytearray()
    bytes_left = iter(data)
    for byte in bytes_left:
        out.append(next(bytes_left, 0) ^ 0x20 if byte == _ESCAPE else byte)
    return bytes(out)


class Connection:
    """One gdb.  Invariant: ``_buffer`` holds what was received and not yet understood."""

    def __init__(self, peer: socket.socket) -> None:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = peer
        self._buffer = b""
        self.acknowledges = True
        """Until QStartNoAckMode."""

    def close(self) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, data: bytes) -> None:
        """One packet; ``data`` is escaped already.  In acknowledging mode gdb's ``+`` is skipped when it is read."""
        packet = b"$%s#%02x" % (data, sum(data) & 0xFF)
        try:
            self._socket.sendall(packet)
        except OSError as error:
            raise Disconnected from error

    def is_interrupted(self) -> bool:
        """Whether gdb asks for a stop (or has gone), without waiting."""
        try:
            while select.select((self._socket,), (), (), 0)[0]:
                self._receive()
        except Disconnected:
            return True
        position = self._buffer.find(_INTERRUPT)
        if position >= 0 and b"$" not in self._buffer[:position]:
            self._buffer = self._buffer[position + 1 :]
            return True
        return False

    def read_packet(self, wait: Callable[[], None]) -> bytes:
        """The next packet, still escaped; an interrupt in between is forgotten.  ``wait()`` is called now and then."""
        while True:
            start = self._buffer.find(b"$")
            end = self._buffer.find(b"#", start) if start >= 0 else -1
            if 0 <= end <= len(self._buffer) - 3:
                data, checksum = self._buffer[start + 1 : end], self._buffer[end + 1 : end + 3]
                self._buffer = self._buffer[end + 3 :]
                good = checksum == b"%02x" % (sum(data) & 0xFF)
                if self.acknowledges:
                    self._acknowledge(good)
                if good or not self.acknowledges:
                    return data
                continue
            while not select.select((self._socket,), (), (), _POLL_SECONDS)[0]:
                wait()
            self._receive()

    def _acknowledge(self, good: bool) -> None:
        try:
            self._socket.sendall(b"+" if good else b"-")
        except OSError as error:
            raise Disconnected from error

    def _receive(self) -> None:
        try:
            data = self._socket.recv(PACKET_BYTES)
        except OSError as error:
            raise Disconnected from error
        if not data:
            raise Disconnected
        self._buffer += data
