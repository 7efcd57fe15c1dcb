"""Connected sockets: byte streams and sequenced records between two ends in the guest.

Models ``net/unix/af_unix.c`` (``unix_stream_sendmsg``, ``unix_stream_read_generic``, ``unix_accept``) and, seen from
outside, ``net/ipv4/tcp.c``.

Invariants: ``a.peer is b`` if and only if ``b.peer is a``, until one is released; what ``a`` has sent and ``b`` has not
read lies in ``b.queue``.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from kernel.abi import socket as s
from kernel.abi.errno import Errno, KernelError
from kernel.abi.poll import POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDHUP, POLLRDNORM, POLLWRBAND, POLLWRNORM
from kernel.fs.file import fput
from kernel.fs.net.socket import Control, Message, Received, Socket, Ucred, skb_truesize
from kernel.task.waitqueue import Blocking

if TYPE_CHECKING:
    from kernel.fs.dcache import Path
    from kernel.task.task import Task

_READABLE = POLLIN | POLLRDNORM
MAX_PIECE = 36_480
"""A stream is sent in buffers of at most this many bytes."""


class ConnectedSocket(Socket):
    """A socket of a connection-oriented type, in any state from new to closed."""

    __slots__ = (
        "accept_queue", "backlog", "connected", "peer", "peer_name", "pending_connect", "queue", "was_connected",
    )  # fmt: skip

    records = False
    """SOCK_SEQPACKET: every send is one record."""
    writable_mask = POLLOUT | POLLWRNORM | POLLWRBAND

    def __init__(self, task: Task, family: int, sock_type: int, protocol: int, flags: int, path: Path) -> None:
        super().__init__(task, family, sock_type, protocol, flags, path)
        self.queue: deque[Message] = deque()
        self.peer: ConnectedSocket | None = None
        self.peer_name = b""
        """What getpeername says, also after the other end was closed."""
        self.connected = False
        self.was_connected = False
        self.pending_connect = False
        """A non-blocking connect has been answered with EINPROGRESS; the next one reports its end."""
        self.accept_queue: deque[ConnectedSocket] = deque()
        self.backlog = 0

    # -- connecting ----------------------------------------------------------------------------------------
    def join(self, other: ConnectedSocket) -> None:
        """The two ends of a new connection."""
        self.peer, other.peer = other, self
        self.connected = other.connected = True
        self.was_connected = other.was_connected = True
        self.peer_name, other.peer_name = other.getsockname(), self.getsockname()

    def new_child(self, task: Task) -> ConnectedSocket:
        """The server's end of a connection to this listening socket."""
        raise NotImplementedError

    def listen(self, task: Task, backlog: int) -> None:
        if self.connected:
            raise KernelError(Errno.EINVAL, "socket is connected")
        self.listening = True
        self.backlog = min(backlog & 0xFFFF_FFFF, s.SOMAXCONN)
        self.peercred = Ucred.of(task)

    @property
    def backlog_full(self) -> bool:
        return len(self.accept_queue) > self.backlog

    def reach(self, task: Task, server: ConnectedSocket) -> None:
        """Connect to ``server``, whose backlog has room."""
        child = server.new_child(task)
        child.rcvbuf, child.sndbuf = server.rcvbuf, server.sndbuf
        self.join(child)
        child.peercred = Ucred.of(task)
        self.peercred = server.peercred
        server.accept_queue.append(child)
        server.wq.wake_up()

    def accept(self, task: Task, flags: int) -> Blocking[Socket]:
        if not self.listening:
            raise KernelError(Errno.EINVAL, "socket does not listen")
        if not self.accept_queue and not self.blocks(0):
            raise KernelError(Errno.EAGAIN, "nobody has connected")
        deadline_ns = self.deadline(self.rcv_timeout_ns)
        while not self.accept_queue:
            if self.shutdown_mask & s.RCV_SHUTDOWN:
                raise KernelError(Errno.EINVAL, "socket was shut down")
            yield from self.pause(deadline_ns)
        child = self.accept_queue.popleft()
        child.f_flags |= flags
        self.wq.wake_up()
        return child

    # -- sending -------------------------------------------------------------------------------------------
    def _send(self, task: Task, data: bytes, address: bytes, flags: int, control: Control) -> Blocking[int]:
        if flags & s.MSG_OOB:
            raise KernelError(Errno.EOPNOTSUPP, "no out-of-band data")
        if address and self.family == s.AF_UNIX:
            raise KernelError(Errno.EISCONN if self.connected else Errno.EOPNOTSUPP, "a connection has one other end")
        self.take_error()
        if not self.was_connected:
            if self.family != s.AF_UNIX and not self.listening:
                raise self.broken_pipe(task, flags)
            raise KernelError(Errno.ENOTCONN, "socket is not connected")
        if self.records:
            if len(data) > self.sndbuf - 32:
                raise KernelError(Errno.EMSGSIZE, "record larger than the send buffer")
        elif not data:
            return 0
        if self.peer is None and self.unnoticed_close():
            return len(data)
        deadline_ns = self.deadline(self.snd_timeout_ns)
        done = 0
        while True:
            peer = self._writable_peer(task, flags, done)
            if peer is None:
                return done
            if self.wmem < self.sndbuf:
                part = data if self.records else data[done : done + MAX_PIECE]
                self._deliver(task, peer, part, control)
                done += len(part)
                if done == len(data):
                    return done
                continue
            if not self.blocks(flags):
                if done:
                    return done
                raise KernelError(Errno.EAGAIN, "the other side's buffer is full")
            try:
                yield from self.pause(deadline_ns)
            except KernelError:
                if done:
                    return done
                raise

    def _writable_peer(self, task: Task, flags: int, done: int) -> ConnectedSocket | None:
        """The other end if it can be sent to; None: it went away in the middle of this call."""
        peer = self.peer
        broken = peer is None or self.shutdown_mask & s.SEND_SHUTDOWN or peer.shutdown_mask & s.RCV_SHUTDOWN
        if not broken:
            return peer
        if done:
            return None
        self.take_error()
        raise self.broken_pipe(task, flags)

    def unnoticed_close(self) -> bool:
        """TCP notices only from the answer to a first send that the other end is gone: that send succeeds."""
        return False

    def _deliver(self, task: Task, peer: ConnectedSocket, part: bytes, control: Control) -> None:
        files, control.files = control.files, []
        cred = control.cred or (Ucred.of(task) if self.family == s.AF_UNIX else None)
        peer.queue.append(Message(self, self.charge_for(len(part)), part, b"", cred, files))
        peer.queued_bytes += len(part)
        peer.wq.wake_up()

    def charge_for(self, length: int) -> int:
        """How much of the send buffer ``length`` bytes take."""
        return skb_truesize(length)

    # -- receiving -----------------------------------------------------------------------------------------
    def recvmsg(self, task: Task, count: int, flags: int) -> Blocking[Received]:
        if flags & s.MSG_OOB:
            raise KernelError(Errno.EINVAL if self.family != s.AF_UNIX else Errno.EOPNOTSUPP, "no out-of-band data")
        if flags & s.MSG_ERRQUEUE:
            raise KernelError(Errno.EAGAIN, "no queued errors")
        if not self.was_connected:
            refused = Errno.ENOTCONN if self.family != s.AF_UNIX or self.records else Errno.EINVAL
            raise KernelError(refused, "socket is not connected")
        deadline_ns = self.deadline(self.rcv_timeout_ns)
        received = Received()
        wanted = count if flags & s.MSG_WAITALL and not flags & s.MSG_PEEK else min(count, 1)
        while True:
            if self.records:
                if self.queue:
                    self._take_record(received, count, flags)
                    return received
            else:
                self._take_bytes(received, count, flags)
                if len(received.data) >= wanted or received.files:
                    return received
            if not received.data:
                self.take_error()
            if self._at_end():
                return received
            if not self.blocks(flags):
                if received.data:
                    return received
                raise KernelError(Errno.EAGAIN, "nothing to receive")
            try:
                yield from self.pause(deadline_ns)
            except KernelError:
                if received.data:
                    return received
                raise

    def _at_end(self) -> bool:
        peer = self.peer
        return peer is None or bool(self.shutdown_mask & s.RCV_SHUTDOWN or peer.shutdown_mask & s.SEND_SHUTDOWN)

    def _take_bytes(self, received: Received, count: int, flags: int) -> None:
        """Move bytes up to ``count`` to ``received``, from one sender, up to the first files."""
        peeked = 0
        parts = [received.data]
        have = len(received.data)
        while have < count and peeked < len(self.queue):
            message = self.queue[peeked]
            if (have or received.files) and (
                message.files or (received.cred is not None and not _same_sender(received.cred, message.cred))
            ):
                break
            piece = message.data[message.start : message.start + count - have]
            received.cred = message.cred
            if flags & s.MSG_PEEK:
                peeked += 1
                received.files = [file.get() for file in message.files]
            else:
                received.files, message.files = received.files + message.files, []
                message.start += len(piece)
                self.queued_bytes -= len(piece)
                if message.start == len(message.data):
                    self.queue.popleft().free()
            parts.append(piece)
            have += len(piece)
            if received.files:
                break
        received.data = b"".join(parts)

    def _take_record(self, received: Received, count: int, flags: int) -> None:
        message = self.queue[0]
        received.data = message.data[:count]
        received.full_length = len(message.data)
        received.cred = message.cred
        received.flags |= s.MSG_TRUNC if len(message.data) > count else 0
        if flags & s.MSG_PEEK:
            received.files = [file.get() for file in message.files]
            return
        received.files, message.files = message.files, []
        self.queue.popleft().free()
        self.queued_bytes -= len(message.data)

    def getpeername(self) -> bytes:
        if not self.was_connected:
            raise KernelError(Errno.ENOTCONN, "socket is not connected")
        return self.peer_name

    # -- state ---------------------------------------------------------------------------------------------
    def shutdown(self, how: int) -> None:
        if not self.was_connected and not self.listening and self.family != s.AF_UNIX:
            raise KernelError(Errno.ENOTCONN, "socket is not connected")
        if not 0 <= how <= 2:
            raise KernelError(Errno.EINVAL, "shutdown how")
        self.shutdown_mask |= how + 1
        self.wq.wake_up()
        if self.peer is not None:
            self.peer.wq.wake_up()

    def poll(self, task: Task | None) -> int:
        if self.listening:
            return _READABLE if self.accept_queue else 0
        peer = self.peer
        mask = POLLERR if self.error else 0
        if not self.was_connected:
            return mask | POLLHUP | self.writable_mask
        peer_sends = peer is not None and not peer.shutdown_mask & s.SEND_SHUTDOWN
        peer_reads = peer is not None and not peer.shutdown_mask & s.RCV_SHUTDOWN
        receive_shut = self.shutdown_mask & s.RCV_SHUTDOWN or not peer_sends
        send_shut = self.shutdown_mask & s.SEND_SHUTDOWN or (peer is None and self.family == s.AF_UNIX)
        if receive_shut:
            mask |= POLLRDHUP | _READABLE
        if receive_shut and send_shut:
            mask |= POLLHUP
        if self.queue or self.error:
            mask |= _READABLE
        if peer is None or not peer_reads or self.wmem * 4 <= self.sndbuf:
            mask |= self.writable_mask
        return mask

    def outq(self) -> int:
        return self.wmem

    def release(self) -> None:
        peer = self.peer
        self.peer = None
        self.f_inode.i_socket = None
        if peer is not None:
            peer.peer = None
            peer.connected = False
            self.closed_with(peer, bool(self.queue))
            peer.wq.wake_up()
        for message in self.queue:
            message.free()
        self.queue.clear()
        for child in list(self.accept_queue):  # connections that nobody accepted
            if child.peer is not None:
                child.peer.error = int(Errno.ECONNRESET)
            fput(child)
        self.accept_queue.clear()
        self.wq.wake_up()

    def closed_with(self, peer: ConnectedSocket, unread: bool) -> None:
        """This end is gone; ``unread``: it had not read everything that ``peer`` sent."""
        if unread:
            peer.error = int(Errno.ECONNRESET)


def _same_sender(one: Ucred | None, other: Ucred | None) -> bool:
    if one is None or other is None:
        return one is other
    return (one.pid, one.uid, one.gid) == (other.pid, other.uid, other.gid)


def wait_for_backlog(client: ConnectedSocket, server: ConnectedSocket) -> Blocking[None]:
    """Sleep until ``server`` accepts somebody; ECONNREFUSED if it goes away."""
    deadline_ns = client.deadline(client.snd_timeout_ns)
    while server.backlog_full:
        if not server.listening or server.f_count <= 0:
            raise KernelError(Errno.ECONNREFUSED, "the listening socket was closed")
        yield from client.pause(deadline_ns, server.wq)
