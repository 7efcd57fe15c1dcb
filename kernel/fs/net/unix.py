"""AF_UNIX sockets: unix(7).

Models ``net/unix/af_unix.c``.  A socket bound to a path is found through the inode that bind made; one bound to an
abstract name through the machine's table.  The host's sockets are only names here: nobody listens on them.

Deliberate differences: no garbage collection of files that are only in flight in cycles; no SO_PEERPIDFD.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import TYPE_CHECKING

from kernel.abi import socket as s
from kernel.abi.errno import Errno, KernelError
from kernel.abi.fcntl import AT_FDCWD, MAY_WRITE
from kernel.abi.poll import POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDHUP, POLLRDNORM, POLLWRBAND, POLLWRNORM
from kernel.abi.stat import S_IFMT, S_IFSOCK
from kernel.fs.dcache import Path
from kernel.fs.dirops import do_mknodat
from kernel.fs.namei import LOOKUP_FOLLOW, path_lookup
from kernel.fs.net.socket import Control, Message, Received, Socket, Ucred, skb_truesize
from kernel.fs.net.stream import ConnectedSocket, wait_for_backlog
from kernel.fs.permission import inode_permission
from kernel.task.waitqueue import Blocking

if TYPE_CHECKING:
    from kernel.task.task import Task

MAX_DGRAM_QLEN = 10
_FAMILY = struct.pack("<H", s.AF_UNIX)


def parse_name(raw: bytes) -> bytes:
    """unix_validate_addr and unix_mkname_bsd: a path without its NUL, or an abstract name with its leading NUL."""
    if len(raw) <= 2 or len(raw) > 2 + s.UNIX_PATH_MAX or raw[:2] != _FAMILY:
        raise KernelError(Errno.EINVAL, "not a name for AF_UNIX")
    name = raw[2:]
    return name if name.startswith(b"\0") else name.split(b"\0", 1)[0]


def pack_name(name: bytes) -> bytes:
    """``struct sockaddr_un`` as getsockname shows it."""
    if not name or name.startswith(b"\0"):
        return _FAMILY + name
    return _FAMILY + name + b"\0"


class _UnixNamed(Socket):
    """The name of a socket; mixed into both kinds."""

    __slots__ = ()

    name: bytes
    place: Path | None

    def bind(self, task: Task, address: bytes) -> None:
        if address == _FAMILY:
            self._autobind()
            return
        name = parse_name(address)
        if self.name:
            raise KernelError(Errno.EINVAL, "socket is bound already")
        vfs = task.kernel.vfs
        if name.startswith(b"\0"):
            if name in vfs.net.abstract:
                raise KernelError(Errno.EADDRINUSE, "abstract name in use")
            vfs.net.abstract[name] = self
        else:
            try:
                place = do_mknodat(vfs, task, AT_FDCWD, name, S_IFSOCK | 0o777, 0)
            except KernelError as error:
                if error.errno == Errno.EEXIST:
                    raise KernelError(Errno.EADDRINUSE, "the name exists") from None
                raise
            place.dentry.d_inode.i_socket = self
            self.place = place  # type: ignore[misc]
        self.name = name  # type: ignore[misc]

    def _autobind(self) -> None:
        if self.name:
            return
        table = self.kernel.vfs.net.abstract
        number = 0
        while b"\0%05x" % number in table:
            number += 1
        self.name = b"\0%05x" % number  # type: ignore[misc]
        table[self.name] = self

    def unbind(self) -> None:
        if self.place is not None:
            self.place.dentry.d_inode.i_socket = None
        elif self.name:
            self.kernel.vfs.net.abstract.pop(self.name, None)

    def getsockname(self) -> bytes:
        return pack_name(self.name)

    def set_protocol_option(self, level: int, name: int, value: bytes) -> None:
        raise KernelError(Errno.EOPNOTSUPP, "AF_UNIX has no options of its own")


def find_other(task: Task, raw: bytes, sock_type: int) -> _UnixNamed:
    """unix_find_other(): the socket that a name leads to."""
    name = parse_name(raw)
    vfs = task.kernel.vfs
    found: object
    if name.startswith(b"\0"):
        found = vfs.net.abstract.get(name)
    else:
        path = path_lookup(vfs, task, AT_FDCWD, name, LOOKUP_FOLLOW)
        inode = path.dentry.d_inode
        inode_permission(task, inode, MAY_WRITE, path.mnt)
        if inode.i_mode & S_IFMT != S_IFSOCK:
            raise KernelError(Errno.ECONNREFUSED, "not a socket")
        found = inode.i_socket
    if not isinstance(found, _UnixNamed):
        raise KernelError(Errno.ECONNREFUSED, "nobody is bound to the name")
    if found.type != sock_type:
        raise KernelError(Errno.EPROTOTYPE, "a socket of another type")
    return found


class UnixStream(_UnixNamed, ConnectedSocket):
    """SOCK_STREAM."""

    __slots__ = ("name", "place")

    def __init__(self, task: Task, sock_type: int, flags: int) -> None:
        path = task.kernel.vfs.pseudo.new_socket(task)
        super().__init__(task, s.AF_UNIX, sock_type, 0, flags, path)
        self.name = b""
        self.place: Path | None = None

    def new_child(self, task: Task) -> UnixStream:
        child = type(self)(task, self.type, 0)
        child.name = self.name
        return child

    def unbind(self) -> None:
        if not self.was_connected or self.place is not None or self.kernel.vfs.net.abstract.get(self.name) is self:
            super().unbind()

    def listen(self, task: Task, backlog: int) -> None:
        if not self.name:
            raise KernelError(Errno.EINVAL, "socket is not bound")
        super().listen(task, backlog)

    def connect(self, task: Task, address: bytes) -> Blocking[None]:
        if self.connected:
            raise KernelError(Errno.EISCONN, "socket is connected")
        if self.listening:
            raise KernelError(Errno.EINVAL, "socket listens")
        server = find_other(task, address, self.type)
        if not isinstance(server, ConnectedSocket) or not server.listening:
            raise KernelError(Errno.ECONNREFUSED, "nobody listens")
        if server.shutdown_mask & s.RCV_SHUTDOWN:
            raise KernelError(Errno.ECONNREFUSED, "the listening socket was shut down")
        if server.backlog_full:
            if not self.blocks(0):
                raise KernelError(Errno.EAGAIN, "the backlog is full")
            yield from wait_for_backlog(self, server)
        self.reach(task, server)

    def release(self) -> None:
        self.unbind()
        super().release()


class UnixSeqpacket(UnixStream):
    """SOCK_SEQPACKET."""

    __slots__ = ()

    records = True


class UnixDgram(_UnixNamed):
    """SOCK_DGRAM."""

    __slots__ = ("is_closed", "name", "peer", "place", "queue", "senders")

    def __init__(self, task: Task, flags: int) -> None:
        path = task.kernel.vfs.pseudo.new_socket(task)
        super().__init__(task, s.AF_UNIX, s.SOCK_DGRAM, 0, flags, path)
        self.name = b""
        self.place: Path | None = None
        self.is_closed = False
        """Those connected to it notice when they next send."""
        self.peer: UnixDgram | None = None
        self.queue: deque[Message] = deque()
        self.senders: dict[UnixDgram, None] = {}
        """Sockets connected to this one."""

    def join(self, other: UnixDgram) -> None:
        """socketpair."""
        self._set_peer(other)
        other._set_peer(self)

    def _set_peer(self, other: UnixDgram | None) -> None:
        if self.peer is not None:
            self.peer.senders.pop(self, None)
        self.peer = other
        if other is not None:
            other.senders[self] = None

    def connect(self, task: Task, address: bytes) -> Blocking[None]:
        if address[:2] == struct.pack("<H", s.AF_UNSPEC):
            self._set_peer(None)
            return
        other = find_other(task, address, s.SOCK_DGRAM)
        assert isinstance(other, UnixDgram)
        if other.peer is not None and other.peer is not self:
            raise KernelError(Errno.EPERM, "the other socket is connected elsewhere")
        self._set_peer(other)
        return
        yield

    def getpeername(self) -> bytes:
        if self.peer is None:
            raise KernelError(Errno.ENOTCONN, "socket is not connected")
        return self.peer.getsockname()

    def _send(self, task: Task, data: bytes, address: bytes, flags: int, control: Control) -> Blocking[int]:
        if flags & s.MSG_OOB:
            raise KernelError(Errno.EOPNOTSUPP, "no out-of-band data")
        self.take_error()
        if address:
            found = find_other(task, address, s.SOCK_DGRAM)
            assert isinstance(found, UnixDgram)
            other = found
            if other.peer is not None and other.peer is not self:
                raise KernelError(Errno.EPERM, "the other socket is connected elsewhere")
        elif self.peer is not None:
            other = self.peer
            if other.is_closed:
                self._set_peer(None)
                raise KernelError(Errno.ECONNREFUSED, "the receiver is gone")
        else:
            raise KernelError(Errno.ENOTCONN, "socket is not connected")
        if self.shutdown_mask & s.SEND_SHUTDOWN or other.shutdown_mask & s.RCV_SHUTDOWN:
            raise self.broken_pipe(task, flags)
        if len(data) > self.sndbuf - 32:
            raise KernelError(Errno.EMSGSIZE, "datagram larger than the send buffer")
        deadline_ns = self.deadline(self.snd_timeout_ns)
        while self.wmem >= self.sndbuf or (len(other.queue) > MAX_DGRAM_QLEN and other is not self):
            if not self.blocks(flags):
                raise KernelError(Errno.EAGAIN, "the receiver's queue is full")
            yield from self.pause(deadline_ns, self.wq, other.wq)
            if other.is_closed:
                raise KernelError(Errno.ECONNREFUSED, "the receiver is gone")
        files, control.files = control.files, []
        source = self.getsockname() if self.name else b""
        cred = control.cred or Ucred.of(task)
        other.queue.append(Message(self, skb_truesize(len(data)), data, source, cred, files))
        other.queued_bytes += len(data)
        other.wq.wake_up()
        return len(data)

    def recvmsg(self, task: Task, count: int, flags: int) -> Blocking[Received]:
        message = yield from self._first_message(self.queue, flags)
        if message is None:
            return Received()
        received = Received.datagram(message, count)
        received.cred = message.cred
        if flags & s.MSG_PEEK:
            received.files = [file.get() for file in message.files]
            return received
        received.files, message.files = message.files, []
        self.queue.popleft().free()
        self.queued_bytes -= len(message.data)
        self.wq.wake_up()
        for sender in self.senders:
            sender.wq.wake_up()
        return received

    def inq(self) -> int:
        return len(self.queue[0].data) if self.queue else 0

    def shutdown(self, how: int) -> None:
        if not 0 <= how <= 2:
            raise KernelError(Errno.EINVAL, "shutdown how")
        self.shutdown_mask |= how + 1
        self.wq.wake_up()

    def poll(self, task: Task | None) -> int:
        mask = POLLERR if self.error else 0
        if self.shutdown_mask == 3:
            mask |= POLLHUP
        if self.shutdown_mask & s.RCV_SHUTDOWN:
            mask |= POLLRDHUP | POLLIN | POLLRDNORM
        if self.queue:
            mask |= POLLIN | POLLRDNORM
        if self.peer is None or len(self.peer.queue) <= MAX_DGRAM_QLEN:
            mask |= POLLOUT | POLLWRNORM | POLLWRBAND
        return mask

    def release(self) -> None:
        self.unbind()
        self.f_inode.i_socket = None
        self._set_peer(None)
        self.is_closed = True
        for sender in self.senders:
            sender.wq.wake_up()
        self.senders.clear()
        for message in self.queue:
            message.free()
        self.queue.clear()
        self.wq.wake_up()


def make_unix(task: Task, sock_type: int, flags: int) -> UnixStream | UnixDgram:
    if sock_type == s.SOCK_STREAM:
        return UnixStream(task, sock_type, flags)
    if sock_type == s.SOCK_SEQPACKET:
        return UnixSeqpacket(task, sock_type, flags)
    if sock_type in (s.SOCK_DGRAM, s.SOCK_RAW):
        return UnixDgram(task, flags)
    raise KernelError(Errno.ESOCKTNOSUPPORT, "no such socket type")
