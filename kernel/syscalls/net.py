"""Sockets: socket(2), bind(2), connect(2), accept(2), sendmsg(2), recvmsg(2) ...

Models ``net/socket.c`` and ``net/core/scm.c``.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Annotated

from kernel.abi import socket as s
from kernel.abi.errno import Errno, KernelError
from kernel.abi.fcntl import O_CLOEXEC, O_NONBLOCK, UIO_MAXIOV
from kernel.abi.time import TIMESPEC
from kernel.fs.file import File, fput
from kernel.fs.net.inet import make_inet
from kernel.fs.net.netlink import NETLINK_ROUTE, NetlinkSocket
from kernel.fs.net.socket import Control, Received, Socket, Ucred
from kernel.fs.net.stream import ConnectedSocket
from kernel.fs.net.unix import UnixDgram, UnixStream, make_unix
from kernel.fs.permission import CAP_SYS_ADMIN, capable
from kernel.fs.uio import check_rw_range, fd_install, gather, import_iovec, scatter, total_length, user_mm
from kernel.mm.usercopy import copy_from_user, copy_to_user, get_user_i32, put_user_u32, put_user_u64
from kernel.syscalls.table import INT, UINT, BufIn, BufOut, Fd, Int, Size, UInt, UserAddr, syscall

if TYPE_CHECKING:
    from kernel.task.task import Task
    from kernel.task.waitqueue import Blocking

_FAMILY = Annotated[s.Family, INT]
_TYPE = Annotated[s.SockType, INT]
_MSG = Annotated[s.MsgFlags, UINT]
_NS_PER_SEC = 1_000_000_000
_MAX_SOCKET_DATA = 1 << 24
_HEADER_FIELDS = {
    (s.IPPROTO_IP, s.IP_TTL),
    (s.IPPROTO_IP, s.IP_TOS),
    (s.IPPROTO_IPV6, s.IPV6_HOPLIMIT),
    (s.IPPROTO_IPV6, s.IPV6_TCLASS),
}
"""Control messages that set a field of the packet's header."""


def _socket(task: Task, fd: int) -> Socket:
    file = task.files.get(fd)
    if not isinstance(file, Socket):
        raise KernelError(Errno.ENOTSOCK, "descriptor is no socket")
    return file


# ---- making ---------------------------------------------------------------------------------------------------------


def _check_type(sock_type: int) -> tuple[int, int]:
    """Type without flags, and the flags; EINVAL for unknown ones."""
    flags = sock_type & ~s.SOCK_TYPE_MASK
    if flags & ~(s.SOCK_NONBLOCK | s.SOCK_CLOEXEC):
        raise KernelError(Errno.EINVAL, "unknown flags")
    return sock_type & s.SOCK_TYPE_MASK, flags


@syscall("socket", x86_64=41, i386=359, group="network", returns="fd")
def sys_socket(task: Task, family: _FAMILY, type: _TYPE, protocol: Int) -> int:
    """An end point for communication."""
    kind, flags = _check_type(type)
    if not 0 <= family < s.AF_MAX:
        raise KernelError(Errno.EAFNOSUPPORT, "no such family")
    if kind > 10:
        raise KernelError(Errno.EINVAL, "no such socket type")
    sock: Socket
    if family == s.AF_UNIX:
        if protocol not in (0, s.AF_UNIX):
            raise KernelError(Errno.EPROTONOSUPPORT, "AF_UNIX has one protocol")
        sock = make_unix(task, kind, flags & O_NONBLOCK)
    elif family in (s.AF_INET, s.AF_INET6):
        sock = make_inet(task, family, kind, protocol, flags & O_NONBLOCK)
    elif family == s.AF_NETLINK:
        if kind not in (s.SOCK_RAW, s.SOCK_DGRAM):
            raise KernelError(Errno.ESOCKTNOSUPPORT, "no such socket type")
        if protocol != NETLINK_ROUTE:
            raise KernelError(Errno.EPROTONOSUPPORT, "only NETLINK_ROUTE")
        sock = NetlinkSocket(task, kind, flags & O_NONBLOCK)
    else:
        raise KernelError(Errno.EAFNOSUPPORT, "only AF_UNIX, AF_INET, AF_INET6 and AF_NETLINK")
    return fd_install(task, sock, flags & O_CLOEXEC != 0)


@syscall("socketpair", x86_64=53, i386=360, group="network")
def sys_socketpair(task: Task, family: _FAMILY, type: _TYPE, protocol: Int, usockvec: UserAddr) -> None:
    """Two connected sockets."""
    kind, flags = _check_type(type)
    if family != s.AF_UNIX:
        known = family in (s.AF_INET, s.AF_INET6)
        raise KernelError(Errno.EOPNOTSUPP if known else Errno.EAFNOSUPPORT, "pairs are of AF_UNIX")
    if protocol not in (0, s.AF_UNIX):
        raise KernelError(Errno.EPROTONOSUPPORT, "AF_UNIX has one protocol")
    one = make_unix(task, kind, flags & O_NONBLOCK)
    other = make_unix(task, kind, flags & O_NONBLOCK)
    if isinstance(one, UnixStream):
        assert isinstance(other, UnixStream)
        one.join(other)
    else:
        assert isinstance(other, UnixDgram)
        one.join(other)
    one.peercred = other.peercred = Ucred.of(task)
    cloexec = flags & O_CLOEXEC != 0
    fds: list[int] = []
    try:
        fds.append(fd_install(task, one, cloexec))
        fds.append(fd_install(task, other, cloexec))
        copy_to_user(user_mm(task), usockvec, struct.pack("<ii", *fds))
    except KernelError:
        for fd in fds:
            task.files.close(fd)
        if not fds:
            fput(other)
        raise


# ---- addresses ------------------------------------------------------------------------------------------------------


def _get_address(task: Task, address: int, length: int) -> bytes:
    """move_addr_to_kernel()."""
    if not 0 <= length <= s.SOCKADDR_STORAGE_SIZE:
        raise KernelError(Errno.EINVAL, "address length")
    return copy_from_user(user_mm(task), address, length) if length else b""


def _put_address(task: Task, raw: bytes, address: int, length_at: int) -> None:
    """move_addr_to_user(): as much as fits, and the whole length."""
    if not address:
        return
    mm = user_mm(task)
    room = get_user_i32(mm, length_at)
    if room < 0:
        raise KernelError(Errno.EINVAL, "negative address length")
    if raw[:room]:
        copy_to_user(mm, address, raw[:room])
    put_user_u32(mm, length_at, len(raw))


@syscall("bind", x86_64=49, i386=361, group="network")
def sys_bind(task: Task, fd: Fd, umyaddr: UserAddr, addrlen: Int) -> None:
    """Give a socket a name."""
    sock = _socket(task, fd)
    sock.bind(task, _get_address(task, umyaddr, addrlen))


@syscall("connect", x86_64=42, i386=362, group="network")
def sys_connect(task: Task, fd: Fd, uservaddr: UserAddr, addrlen: Int) -> Blocking[None]:
    """Connect a socket."""
    sock = _socket(task, fd)
    yield from sock.connect(task, _get_address(task, uservaddr, addrlen))


@syscall("listen", x86_64=50, i386=363, group="network")
def sys_listen(task: Task, fd: Fd, backlog: Int) -> None:
    """Wait for connections."""
    _socket(task, fd).listen(task, backlog)


def _accept(task: Task, fd: int, address: int, length_at: int, flags: int) -> Blocking[int]:
    if flags & ~(s.SOCK_CLOEXEC | s.SOCK_NONBLOCK):
        raise KernelError(Errno.EINVAL, "unknown flags")
    sock = _socket(task, fd)
    child = yield from sock.accept(task, flags & O_NONBLOCK)
    try:
        if address:
            assert isinstance(child, ConnectedSocket)
            _put_address(task, child.peer_name, address, length_at)
    except KernelError:
        fput(child)
        raise
    return fd_install(task, child, flags & O_CLOEXEC != 0)


@syscall("accept", x86_64=43, i386=None, group="network", returns="fd")
def sys_accept(task: Task, fd: Fd, upeer_sockaddr: UserAddr, upeer_addrlen: UserAddr) -> Blocking[int]:
    """Take the next connection."""
    return (yield from _accept(task, fd, upeer_sockaddr, upeer_addrlen, 0))


@syscall("accept4", x86_64=288, i386=364, group="network", returns="fd")
def sys_accept4(task: Task, fd: Fd, upeer_sockaddr: UserAddr, upeer_addrlen: UserAddr, flags: _TYPE) -> Blocking[int]:
    """Take the next connection, with flags."""
    return (yield from _accept(task, fd, upeer_sockaddr, upeer_addrlen, flags))


@syscall("getsockname", x86_64=51, i386=367, group="network")
def sys_getsockname(task: Task, fd: Fd, usockaddr: UserAddr, usockaddr_len: UserAddr) -> None:
    """A socket's name."""
    _put_address(task, _socket(task, fd).getsockname(), usockaddr, usockaddr_len)


@syscall("getpeername", x86_64=52, i386=368, group="network")
def sys_getpeername(task: Task, fd: Fd, usockaddr: UserAddr, usockaddr_len: UserAddr) -> None:
    """The name of the other end."""
    _put_address(task, _socket(task, fd).getpeername(), usockaddr, usockaddr_len)


@syscall("shutdown", x86_64=48, i386=373, group="network")
def sys_shutdown(task: Task, fd: Fd, how: s.ShutdownHow) -> None:
    """End one or both directions of a connection."""
    sock = _socket(task, fd)
    if not 0 <= how <= 2:
        raise KernelError(Errno.EINVAL, "shutdown how")
    sock.shutdown(how)


# ---- options --------------------------------------------------------------------------------------------------------


@syscall("setsockopt", x86_64=54, i386=366, group="network")
def sys_setsockopt(task: Task, fd: Fd, level: Int, optname: Int, optval: BufIn, optlen: Int) -> None:
    """Set an option of a socket."""
    if optlen < 0:
        raise KernelError(Errno.EINVAL, "negative option length")
    sock = _socket(task, fd)
    value = copy_from_user(user_mm(task), optval, min(optlen, 4096)) if optlen else b""
    sock.setsockopt(task, level, optname, value)


@syscall("getsockopt", x86_64=55, i386=365, group="network")
def sys_getsockopt(task: Task, fd: Fd, level: Int, optname: Int, optval: UserAddr, optlen: UserAddr) -> None:
    """Read an option of a socket."""
    sock = _socket(task, fd)
    mm = user_mm(task)
    room = get_user_i32(mm, optlen)
    if room < 0:
        raise KernelError(Errno.EINVAL, "negative option length")
    value = sock.getsockopt(level, optname)[:room]
    if value:
        copy_to_user(mm, optval, value)
    put_user_u32(mm, optlen, len(value))


# ---- sending --------------------------------------------------------------------------------------------------------


@syscall("sendto", x86_64=44, i386=369, group="network", returns="size")
def sys_sendto(task: Task, fd: Fd, buff: BufIn, len: Size, flags: _MSG, addr: UserAddr, addr_len: Int) -> Blocking[int]:
    """Send a message."""
    sock = _socket(task, fd)
    count = min(check_rw_range(buff, len), _MAX_SOCKET_DATA)
    address = _get_address(task, addr, addr_len) if addr else b""
    data = copy_from_user(user_mm(task), buff, count) if count else b""
    return (yield from sock.sendmsg(task, data, address, flags, Control()))


def _read_msghdr(task: Task, address: int) -> tuple[int, int, int, int, int, int, int]:
    """name, name length, iov, iov length, control, control length, flags."""
    fields = s.MSGHDR.unpack(copy_from_user(user_mm(task), address, s.MSGHDR_SIZE))
    if fields[1] < 0:
        raise KernelError(Errno.EINVAL, "negative address length")
    if fields[3] > UIO_MAXIOV:
        raise KernelError(Errno.EMSGSIZE, "more than UIO_MAXIOV elements")
    return fields


def _scm_send(task: Task, address: int, length: int) -> Control:
    """__scm_send(): files and credentials to pass."""
    control = Control()
    if not length:
        return control
    if length > 1 << 16:
        raise KernelError(Errno.ENOBUFS, "control data too large")
    raw = copy_from_user(user_mm(task), address, length)
    offset = 0
    try:
        while offset + s.CMSGHDR.size <= length:
            cmsg_len, level, kind = s.CMSGHDR.unpack_from(raw, offset)
            if cmsg_len < s.CMSGHDR.size or offset + cmsg_len > length:
                raise KernelError(Errno.EINVAL, "control message length")
            if level == s.SOL_SOCKET:
                _scm_item(task, control, kind, raw[offset + s.CMSGHDR.size : offset + cmsg_len])
            elif (level, kind) in _HEADER_FIELDS:
                if cmsg_len != s.CMSGHDR.size + 4:
                    raise KernelError(Errno.EINVAL, "not an int")
                control.headers[(level, kind)] = struct.unpack_from("<i", raw, offset + s.CMSGHDR.size)[0]
            offset += s.cmsg_align(cmsg_len)
    except KernelError:
        control.drop()
        raise
    return control


def _scm_item(task: Task, control: Control, kind: int, payload: bytes) -> None:
    if kind == s.SCM_RIGHTS:
        nr = len(payload) // 4
        if nr + len(control.files) > s.SCM_MAX_FD:
            raise KernelError(Errno.EINVAL, "more files than SCM_MAX_FD")
        for (fd,) in struct.iter_unpack("<i", payload[: nr * 4]):
            control.files.append(task.files.get_raw(fd).get())
    elif kind == s.SCM_CREDENTIALS:
        if len(payload) != s.UCRED.size:
            raise KernelError(Errno.EINVAL, "struct ucred")
        pid, uid, gid = s.UCRED.unpack(payload)
        creds = task.creds
        honest = (
            pid == task.tgid
            and uid in (creds.uid, creds.euid, creds.suid)
            and gid in (creds.gid, creds.egid, creds.sgid)
        )
        if not honest and not capable(task, CAP_SYS_ADMIN):
            raise KernelError(Errno.EPERM, "somebody else's credentials")
        control.cred = Ucred(pid, uid, gid)
    else:
        raise KernelError(Errno.EINVAL, "unknown control message")


def _sendmsg(task: Task, sock: Socket, msg: int, flags: int) -> Blocking[int]:
    name, namelen, iov, iovlen, control_at, control_len, _flags = _read_msghdr(task, msg)
    address = _get_address(task, name, min(namelen, s.SOCKADDR_STORAGE_SIZE)) if name else b""
    vector = import_iovec(task, iov, iovlen)
    if total_length(vector) > _MAX_SOCKET_DATA:
        raise KernelError(Errno.EMSGSIZE, "message too large")
    data = gather(task, vector)
    control = _scm_send(task, control_at, control_len)
    if control.files and sock.family != s.AF_UNIX:
        control.drop()
        raise KernelError(Errno.EINVAL, "files can be passed with AF_UNIX only")
    return (yield from sock.sendmsg(task, data, address, flags, control))


@syscall("sendmsg", x86_64=46, i386=370, group="network", returns="size")
def sys_sendmsg(task: Task, fd: Fd, msg: UserAddr, flags: _MSG) -> Blocking[int]:
    """Send a message with control data."""
    return (yield from _sendmsg(task, _socket(task, fd), msg, flags))


@syscall("sendmmsg", x86_64=307, i386=345, group="network")
def sys_sendmmsg(task: Task, fd: Fd, mmsg: UserAddr, vlen: UInt, flags: _MSG) -> Blocking[int]:
    """Send several messages."""
    sock = _socket(task, fd)
    sent = 0
    for index in range(min(vlen, UIO_MAXIOV)):
        entry = mmsg + index * s.MMSGHDR_SIZE
        try:
            count = yield from _sendmsg(task, sock, entry, flags)
            put_user_u32(user_mm(task), entry + s.MSGHDR_SIZE, count)
        except KernelError:
            if sent:
                return sent
            raise
        sent += 1
    return sent


# ---- receiving ------------------------------------------------------------------------------------------------------


@syscall("recvfrom", x86_64=45, i386=371, group="network", returns="size")
def sys_recvfrom(
    task: Task, fd: Fd, ubuf: BufOut, size: Size, flags: _MSG, addr: UserAddr, addr_len: UserAddr
) -> Blocking[int]:
    """Receive a message."""
    sock = _socket(task, fd)
    count = min(check_rw_range(ubuf, size), _MAX_SOCKET_DATA)
    received = yield from sock.recvmsg(task, count, flags)
    _drop_files(received)
    if received.data:
        copy_to_user(user_mm(task), ubuf, received.data)
    if addr:
        _put_address(task, received.address, addr, addr_len)
    return max(len(received.data), received.full_length) if flags & s.MSG_TRUNC else len(received.data)


def _drop_files(received: Received) -> None:
    for file in received.files:
        fput(file)
    received.files = []


class _ControlRoom:
    """The program's room for control messages, filled as put_cmsg() does; ``flags`` gets MSG_CTRUNC."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.data = b""
        self.flags = 0

    def put(self, level: int, kind: int, payload: bytes) -> None:
        if self.room < s.CMSGHDR.size:
            self.flags = s.MSG_CTRUNC
            return
        length = s.CMSGHDR.size + len(payload)
        if length > self.room:
            self.flags = s.MSG_CTRUNC
            length = self.room
        item = (s.CMSGHDR.pack(length, level, kind) + payload)[:length]
        self.data += item.ljust(min(s.cmsg_align(length), self.room), b"\0")
        self.room = max(0, self.room - s.cmsg_align(length))


def _scm_recv(task: Task, sock: Socket, received: Received, room: int, flags: int) -> _ControlRoom:
    """scm_recv(): control data for the program.  Installs passed files as far as there is room for them."""
    control = _ControlRoom(room)
    if sock.flag(s.SO_PASSCRED) and received.cred is not None:
        control.put(s.SOL_SOCKET, s.SCM_CREDENTIALS, received.cred.pack())
    for level, kind, payload in received.items:
        control.put(level, kind, payload)
    files: list[File] = received.files
    received.files = []
    fds: list[int] = []
    fit = max(0, (control.room - s.CMSGHDR.size) // 4)
    for file in files:
        if len(fds) == fit:
            fput(file)
            control.flags = s.MSG_CTRUNC
            continue
        try:
            fds.append(fd_install(task, file, flags & s.MSG_CMSG_CLOEXEC != 0))
        except KernelError:
            control.flags = s.MSG_CTRUNC
            fit = len(fds)
    if fds:
        control.put(s.SOL_SOCKET, s.SCM_RIGHTS, struct.pack(f"<{len(fds)}i", *fds))
    return control


def _recvmsg(task: Task, sock: Socket, msg: int, flags: int) -> Blocking[int]:
    mm = user_mm(task)
    name, namelen, iov, iovlen, control_at, control_len, _flags = _read_msghdr(task, msg)
    vector = import_iovec(task, iov, iovlen)
    received = yield from sock.recvmsg(task, min(total_length(vector), _MAX_SOCKET_DATA), flags)
    if received.data and scatter(task, vector, received.data) < len(received.data):
        _drop_files(received)
        raise KernelError(Errno.EFAULT, "bad buffer")
    control = _scm_recv(task, sock, received, control_len if control_at else 0, flags)
    if control.data:
        copy_to_user(mm, control_at, control.data)
    if name:
        if received.address[:namelen]:
            copy_to_user(mm, name, received.address[:namelen])
        put_user_u32(mm, msg + 8, len(received.address))
    put_user_u64(mm, msg + 40, len(control.data))
    put_user_u32(mm, msg + 48, received.flags | control.flags | flags & s.MSG_CMSG_CLOEXEC)
    return max(len(received.data), received.full_length) if flags & s.MSG_TRUNC else len(received.data)


@syscall("recvmsg", x86_64=47, i386=372, group="network", returns="size")
def sys_recvmsg(task: Task, fd: Fd, msg: UserAddr, flags: _MSG) -> Blocking[int]:
    """Receive a message with control data."""
    return (yield from _recvmsg(task, _socket(task, fd), msg, flags))


@syscall("recvmmsg", x86_64=299, i386=None, group="network")
def sys_recvmmsg(task: Task, fd: Fd, mmsg: UserAddr, vlen: UInt, flags: _MSG, timeout: UserAddr) -> Blocking[int]:
    """Receive several messages."""
    sock = _socket(task, fd)
    deadline_ns = None
    if timeout:
        seconds, rest = TIMESPEC.unpack(copy_from_user(user_mm(task), timeout, 16))
        if seconds < 0 or not 0 <= rest < _NS_PER_SEC:
            raise KernelError(Errno.EINVAL, "time out of range")
        deadline_ns = task.kernel.clock.now_ns() + seconds * _NS_PER_SEC + rest
    got = 0
    while got < min(vlen, UIO_MAXIOV):
        entry = mmsg + got * s.MMSGHDR_SIZE
        try:
            count = yield from _recvmsg(task, sock, entry, flags & ~s.MSG_WAITFORONE)
            put_user_u32(user_mm(task), entry + s.MSGHDR_SIZE, count)
        except KernelError:
            if got:
                return got
            raise
        got += 1
        if flags & s.MSG_WAITFORONE:
            flags |= s.MSG_DONTWAIT
        if deadline_ns is not None and task.kernel.clock.now_ns() >= deadline_ns:
            break
    return got
