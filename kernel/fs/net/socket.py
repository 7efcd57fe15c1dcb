"""What all sockets share: options, time-outs, errors, messages.

Models ``net/socket.c`` and ``net/core/sock.c``.

Invariants: a message in a receive queue counts in ``queued_bytes`` of that queue's socket, as far as it is not read; it
is charged to its sender's ``wmem`` until it is gone (:meth:`Message.free`).

Deliberate differences: no out-of-band data (MSG_OOB: EOPNOTSUPP); buffer sizes are kept as set, and bound what is
queued.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from kernel.abi import socket as s
from kernel.abi.errno import ERESTARTSYS, Errno, KernelError
from kernel.abi.fcntl import O_NONBLOCK, O_RDWR
from kernel.abi.ioctl import FIONREAD
from kernel.abi.signal import SIGPIPE
from kernel.fs.file import File, fput
from kernel.fs.uio import user_mm
from kernel.mm.usercopy import put_user_u32
from kernel.task.signal import send_sig
from kernel.task.waitqueue import Blocking, Sleep, WaitQueue, WakeReason

if TYPE_CHECKING:
    from kernel.fs.dcache import Path
    from kernel.task.task import Task

DEFAULT_BUFFER = 212_992
MIN_SNDBUF, MIN_RCVBUF = 4608, 2304
_FLAG_OPTIONS = {
    s.SO_DEBUG, s.SO_REUSEADDR, s.SO_DONTROUTE, s.SO_BROADCAST, s.SO_KEEPALIVE, s.SO_OOBINLINE, s.SO_NO_CHECK,
    s.SO_REUSEPORT, s.SO_PASSCRED, s.SO_TIMESTAMP, s.SO_PASSSEC,
}  # fmt: skip
_PLAIN_OPTIONS = {s.SO_PRIORITY, s.SO_RCVLOWAT, s.SO_MARK, s.SO_INCOMING_CPU}


class Ucred:
    """``struct ucred``: who sends, or who connected."""

    __slots__ = ("gid", "pid", "uid")

    def __init__(self, pid: int, uid: int, gid: int) -> None:
        self.pid = pid
        self.uid = uid
        self.gid = gid

    @classmethod
    def of(cls, task: Task) -> Ucred:
        return cls(task.tgid, task.creds.euid, task.creds.egid)

    def pack(self) -> bytes:
        return s.UCRED.pack(self.pid, self.uid & 0xFFFF_FFFF, self.gid & 0xFFFF_FFFF)


class Message:
    """One buffer in a receive queue (``struct sk_buff``): bytes, sender, passed files."""

    __slots__ = ("address", "charge", "cred", "data", "files", "headers", "sender", "start")

    def __init__(
        self, sender: Socket, charge: int, data: bytes, address: bytes, cred: Ucred | None, files: list[File]
    ) -> None:
        self.sender = sender
        self.charge = charge
        sender.wmem += charge
        self.data = data
        self.start = 0
        self.address = address
        """The sender's name as recvfrom shows it."""
        self.cred = cred
        self.files = files
        """Files passed with SCM_RIGHTS; each holds a reference."""
        self.headers: dict[tuple[int, int], int] = {}
        """Fields of the packet's header that the sender set for this packet: by level and name."""

    def __len__(self) -> int:
        return len(self.data) - self.start

    def free(self) -> None:
        """The message has left its queue: its sender has room again, files that nobody took are closed."""
        self.sender.wmem -= self.charge
        self.charge = 0
        self.sender.wq.wake_up()
        for file in self.files:
            fput(file)
        self.files = []


def skb_truesize(length: int) -> int:
    """What a buffer with ``length`` bytes takes: the structure, and its data in a slab or in pages."""
    needed = length + 320
    if needed > 4096:
        return 768 + (length + 4095 & ~4095)
    size = 512
    while size < needed:
        size *= 2
    return 256 + size


class Received:
    """What recvmsg gives: the data, the sender, control items and MSG_* flags."""

    __slots__ = ("address", "cred", "data", "files", "flags", "full_length", "items")

    @classmethod
    def datagram(cls, message: Message, count: int) -> Received:
        """The first ``count`` bytes of a message whose boundaries are kept, and who sent it."""
        received = cls(message.data[:count])
        received.full_length = len(message.data)
        received.address = message.address
        received.flags = s.MSG_TRUNC if len(message.data) > count else 0
        return received

    def __init__(self, data: bytes = b"") -> None:
        self.data = data
        self.address = b""
        self.cred: Ucred | None = None
        self.files: list[File] = []
        self.items: list[tuple[int, int, bytes]] = []
        """Other control messages: level, type, payload."""
        self.flags = 0
        self.full_length = len(data)
        """The whole datagram's length, for MSG_TRUNC."""


class Control:
    """What sendmsg carries besides data."""

    __slots__ = ("cred", "files", "headers")

    def __init__(self, files: list[File] | None = None, cred: Ucred | None = None) -> None:
        self.files = files or []
        self.cred = cred
        self.headers: dict[tuple[int, int], int] = {}

    def drop(self) -> None:
        for file in self.files:
            fput(file)
        self.files = []


class Socket(File):
    """``struct socket`` and ``struct sock``."""

    __slots__ = (
        "error", "family", "linger", "listening", "options", "peercred", "protocol", "queued_bytes", "rcv_timeout_ns",
        "rcvbuf", "shutdown_mask", "snd_timeout_ns", "sndbuf", "type", "wmem", "wq",
    )  # fmt: skip

    def __init__(self, task: Task, family: int, sock_type: int, protocol: int, flags: int, path: Path) -> None:
        super().__init__(path, path.dentry.d_inode, O_RDWR | flags & O_NONBLOCK)
        path.dentry.d_inode.i_socket = self
        self.family = family
        self.type = sock_type
        self.protocol = protocol
        self.wq = WaitQueue()
        self.error = 0
        """``sk_err``: reported once, by the next operation or SO_ERROR."""
        self.shutdown_mask = 0
        self.listening = False
        self.options: dict[tuple[int, int], int] = {}
        self.linger = (0, 0)
        self.rcvbuf = self.sndbuf = DEFAULT_BUFFER
        self.rcv_timeout_ns: int | None = None
        self.snd_timeout_ns: int | None = None
        self.peercred: Ucred | None = None
        self.queued_bytes = 0
        self.wmem = 0
        """What this socket has sent and nobody has read, in bytes of memory."""

    # -- errors and waiting --------------------------------------------------------------------------------
    def take_error(self) -> None:
        """sock_error(): raise and forget a pending error."""
        if self.error:
            error, self.error = self.error, 0
            raise KernelError(error, "earlier failure of the socket")

    def blocks(self, flags: int) -> bool:
        return not (self.f_flags & O_NONBLOCK or flags & s.MSG_DONTWAIT)

    def deadline(self, timeout_ns: int | None) -> int | None:
        return None if timeout_ns is None else self.kernel.clock.now_ns() + timeout_ns

    def pause(self, deadline_ns: int | None, *queues: WaitQueue) -> Blocking[None]:
        """Sleep once; EAGAIN when the time-out passes, ERESTARTSYS (EINTR with a time-out) for a signal."""
        reason = yield Sleep(*(queues or (self.wq,)), deadline_ns=deadline_ns)
        if reason is WakeReason.TIMEOUT:
            raise KernelError(Errno.EAGAIN, "time-out of the socket")
        if reason is WakeReason.SIGNAL:
            raise KernelError(ERESTARTSYS if deadline_ns is None else Errno.EINTR, "signal while waiting")

    def broken_pipe(self, task: Task | None, flags: int) -> KernelError:
        if task is not None and not flags & s.MSG_NOSIGNAL:
            send_sig(task, SIGPIPE)
        return KernelError(Errno.EPIPE, "the other side does not read any more")

    # -- as a file -----------------------------------------------------------------------------------------
    def read(self, task: Task | None, count: int) -> bytes | Blocking[bytes]:
        assert task is not None
        return self._read(task, count)

    def _read(self, task: Task, count: int) -> Blocking[bytes]:
        received = yield from self.recvmsg(task, count, 0)
        for file in received.files:  # read(2) cannot take them
            fput(file)
        return received.data

    def unread(self, data: bytes) -> None:
        """What was received into a bad buffer is lost."""

    def write(self, task: Task | None, data: bytes) -> int | Blocking[int]:
        assert task is not None
        return self.sendmsg(task, data, b"", 0, Control())

    def poll_queues(self, task: Task | None) -> tuple[WaitQueue, ...]:
        return (self.wq,)

    def ioctl(self, task: Task, cmd: int, arg: int) -> int | Blocking[int]:
        if cmd == FIONREAD:
            if self.listening:
                raise KernelError(Errno.EINVAL, "a listening socket has no data")
            put_user_u32(user_mm(task), arg, self.inq())
            return 0
        if cmd == s.SIOCOUTQ:
            put_user_u32(user_mm(task), arg, self.outq())
            return 0
        if cmd == s.SIOCATMARK:
            put_user_u32(user_mm(task), arg, 0)
            return 0
        from kernel.fs.net.ifreq import interface_ioctl

        return interface_ioctl(task, cmd, arg)

    # -- operations (struct proto_ops); what a kind of socket lacks fails ----------------------------------
    def bind(self, task: Task, address: bytes) -> None:
        raise KernelError(Errno.EOPNOTSUPP, "socket cannot be bound")

    def connect(self, task: Task, address: bytes) -> Blocking[None]:
        raise KernelError(Errno.EOPNOTSUPP, "socket cannot be connected")
        yield

    def listen(self, task: Task, backlog: int) -> None:
        raise KernelError(Errno.EOPNOTSUPP, "socket cannot listen")

    def accept(self, task: Task, flags: int) -> Blocking[Socket]:
        """``flags``: O_NONBLOCK for the new socket."""
        raise KernelError(Errno.EOPNOTSUPP, "socket cannot accept")
        yield

    def getsockname(self) -> bytes:
        raise KernelError(Errno.EOPNOTSUPP, "socket has no name")

    def getpeername(self) -> bytes:
        raise KernelError(Errno.ENOTCONN, "socket is not connected")

    def sendmsg(self, task: Task, data: bytes, address: bytes, flags: int, control: Control) -> Blocking[int]:
        """Takes over the files of ``control``."""
        try:
            return (yield from self._send(task, data, address, flags, control))
        finally:
            control.drop()

    def _send(self, task: Task, data: bytes, address: bytes, flags: int, control: Control) -> Blocking[int]:
        raise KernelError(Errno.EOPNOTSUPP, "socket cannot send")
        yield

    def _first_message(self, queue: deque[Message], flags: int) -> Blocking[Message | None]:
        """__skb_recv_datagram(): wait for a message, which stays in ``queue``; None when none can come any more."""
        if flags & s.MSG_ERRQUEUE:
            raise KernelError(Errno.EAGAIN, "no queued errors")
        deadline_ns = self.deadline(self.rcv_timeout_ns)
        while not queue:
            self.take_error()
            if self.shutdown_mask & s.RCV_SHUTDOWN:
                return None
            if not self.blocks(flags):
                raise KernelError(Errno.EAGAIN, "nothing to receive")
            yield from self.pause(deadline_ns)
        return queue[0]

    def recvmsg(self, task: Task, count: int, flags: int) -> Blocking[Received]:
        raise KernelError(Errno.EOPNOTSUPP, "socket cannot receive")
        yield

    def shutdown(self, how: int) -> None:
        raise KernelError(Errno.ENOTCONN, "socket is not connected")

    def inq(self) -> int:
        """SIOCINQ: bytes to read (of the next datagram)."""
        return self.queued_bytes

    def outq(self) -> int:
        return 0

    # -- options -------------------------------------------------------------------------------------------
    def setsockopt(self, task: Task, level: int, name: int, value: bytes) -> None:
        if level == s.SOL_SOCKET:
            self._set_socket_option(task, name, value)
            return
        self.set_protocol_option(level, name, value)

    def _set_socket_option(self, task: Task, name: int, value: bytes) -> None:
        if name in (s.SO_RCVTIMEO, s.SO_SNDTIMEO):
            self._set_timeout(name, value)
            return
        if name == s.SO_LINGER:
            if len(value) < 8:
                raise KernelError(Errno.EINVAL, "struct linger too short")
            self.linger = s.LINGER.unpack(value[:8])
            return
        number = _int(value)
        if name in _FLAG_OPTIONS:
            self.options[(s.SOL_SOCKET, name)] = int(number != 0)
        elif name in _PLAIN_OPTIONS:
            self.options[(s.SOL_SOCKET, name)] = number
        elif name in (s.SO_SNDBUF, s.SO_SNDBUFFORCE):
            self.sndbuf = max(MIN_SNDBUF, 2 * min(number & 0xFFFF_FFFF, DEFAULT_BUFFER))
            self.wq.wake_up()
        elif name in (s.SO_RCVBUF, s.SO_RCVBUFFORCE):
            self.rcvbuf = max(MIN_RCVBUF, 2 * min(number & 0xFFFF_FFFF, DEFAULT_BUFFER))
        elif name in (s.SO_BINDTODEVICE, s.SO_ATTACH_FILTER, s.SO_DETACH_FILTER):
            raise KernelError(Errno.EPERM, "devices and filters are not for guests")
        elif name in (s.SO_TYPE, s.SO_PROTOCOL, s.SO_DOMAIN, s.SO_ERROR, s.SO_ACCEPTCONN, s.SO_PEERCRED):
            raise KernelError(Errno.ENOPROTOOPT, "option can only be read")
        else:
            raise KernelError(Errno.ENOPROTOOPT, f"socket option {name}")

    def _set_timeout(self, name: int, value: bytes) -> None:
        if len(value) < 16:
            raise KernelError(Errno.EINVAL, "struct timeval too short")
        seconds = int.from_bytes(value[:8], "little", signed=True)
        micros = int.from_bytes(value[8:16], "little", signed=True)
        if not 0 <= micros < 1_000_000:
            raise KernelError(Errno.EDOM, "microseconds out of range")
        timeout = None if seconds == micros == 0 else max(0, seconds * 1_000_000_000 + micros * 1000)
        if name == s.SO_RCVTIMEO:
            self.rcv_timeout_ns = timeout
        else:
            self.snd_timeout_ns = timeout

    def set_protocol_option(self, level: int, name: int, value: bytes) -> None:
        raise KernelError(Errno.EOPNOTSUPP if level != s.SOL_SOCKET else Errno.ENOPROTOOPT, "unknown option level")

    def getsockopt(self, level: int, name: int) -> bytes:
        if level == s.SOL_SOCKET:
            return self._get_socket_option(name)
        return self.get_protocol_option(level, name)

    def _get_socket_option(self, name: int) -> bytes:
        if name == s.SO_ERROR:
            error, self.error = self.error, 0
            return _pack(error)
        if name == s.SO_LINGER:
            return s.LINGER.pack(*self.linger)
        if name in (s.SO_RCVTIMEO, s.SO_SNDTIMEO):
            timeout = (self.rcv_timeout_ns if name == s.SO_RCVTIMEO else self.snd_timeout_ns) or 0
            return (timeout // 1_000_000_000).to_bytes(8, "little") + (timeout % 1_000_000_000 // 1000).to_bytes(
                8, "little"
            )
        if name == s.SO_PEERCRED:
            return (self.peercred or Ucred(0, -1, -1)).pack()
        if name == s.SO_PEERSEC:
            raise KernelError(Errno.ENOPROTOOPT, "no security module")
        if name == s.SO_COOKIE:
            return self.f_inode.i_ino.to_bytes(8, "little")
        values = {
            s.SO_TYPE: self.type,
            s.SO_DOMAIN: self.family,
            s.SO_PROTOCOL: self.protocol,
            s.SO_ACCEPTCONN: int(self.listening),
            s.SO_SNDBUF: self.sndbuf,
            s.SO_RCVBUF: self.rcvbuf,
            s.SO_SNDLOWAT: 1,
            s.SO_RCVLOWAT: self.options.get((s.SOL_SOCKET, s.SO_RCVLOWAT), 1),
        }
        if name in values:
            return _pack(values[name])
        if name in _FLAG_OPTIONS or name in _PLAIN_OPTIONS:
            return _pack(self.options.get((s.SOL_SOCKET, name), 0))
        raise KernelError(Errno.ENOPROTOOPT, f"socket option {name}")

    def get_protocol_option(self, level: int, name: int) -> bytes:
        raise KernelError(Errno.EOPNOTSUPP, "unknown option level")

    def flag(self, name: int) -> bool:
        return bool(self.options.get((s.SOL_SOCKET, name), 0))


def _int(value: bytes) -> int:
    if len(value) < 4:
        raise KernelError(Errno.EINVAL, "option value shorter than an int")
    return int.from_bytes(value[:4], "little", signed=True)


def _pack(value: int) -> bytes:
    return (value & 0xFFFF_FFFF).to_bytes(4, "little")


int_of_option = _int
pack_int_option = _pack
