"""unix(7), tcp(7), udp(7): sockets inside the guest.  What is asserted was checked on Linux."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from kernel.abi.errno import Errno
from kernel.abi.poll import POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDHUP
from kernel.task.task import Task
from tests.fs.harness import BUFFER, FileSim, Out
from tests.fs.test_pipe import write
from tests.task.harness import ASLEEP

AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16
STREAM, DGRAM, RAW, SEQPACKET, NONBLOCK = 1, 2, 3, 5, 0o4000
DONTWAIT, PEEK, TRUNC, NOSIGNAL, WAITALL = 0x40, 0x2, 0x20, 0x4000, 0x100
SOL_SOCKET, SO_ERROR, SO_TYPE, SO_PASSCRED, SO_PEERCRED, SO_REUSEADDR, SO_RCVTIMEO = 1, 4, 3, 16, 17, 2, 20
MSG = BUFFER + 0x4000


@pytest.fixture
def sim(tmp_path: Path) -> FileSim:
    return FileSim(tmp_path)


@pytest.fixture
def task(sim: FileSim) -> Task:
    task = sim.shell()
    sim.handle(task, 13, 1)  # SIGPIPE ignored
    return task


def sun(name: bytes) -> bytes:
    return struct.pack("<H", AF_UNIX) + name


def sin(port: int, ip: tuple[int, int, int, int] = (127, 0, 0, 1)) -> bytes:
    return struct.pack(">2sH4B8x", struct.pack("<H", AF_INET), port, *ip)


def named(sim: FileSim, task: Task, call: str, fd: int, address: bytes) -> object:
    sim.poke(task, MSG, address)
    return sim.call(task, call, fd, MSG, len(address))


def name_of(sim: FileSim, task: Task, fd: int, call: str = "getsockname") -> bytes:
    sim.poke(task, MSG + 256, struct.pack("<i", 128))
    result = sim.call(task, call, fd, MSG, MSG + 256)
    assert result == 0, result
    return sim.peek(task, MSG, sim.u32(task, MSG + 256))


def pair(sim: FileSim, task: Task, kind: int = STREAM) -> tuple[int, int]:
    assert sim.do(task, "socketpair", AF_UNIX, kind, 0, Out(8)) == 0
    a, b = struct.unpack("<ii", sim.answer[0])
    return a, b


def send(sim: FileSim, task: Task, fd: int, data: bytes, flags: int = 0, to: bytes = b"") -> object:
    if to:
        sim.poke(task, MSG, to)
    return sim.do(task, "sendto", fd, data, len(data), flags, MSG if to else 0, len(to))


def recv(sim: FileSim, task: Task, fd: int, size: int = 100, flags: int = 0) -> object:
    count = sim.do(task, "recvfrom", fd, Out(size), size, flags, 0, 0)
    return sim.answer[0][:count] if isinstance(count, int) and count >= 0 else count


def poll(sim: FileSim, task: Task, fd: int) -> int:
    sim.poke(task, BUFFER, struct.pack("<ihh", fd, 0x27FF, 0))
    sim.call(task, "poll", BUFFER, 1, 0)
    revents: int = struct.unpack("<ihh", sim.peek(task, BUFFER, 8))[2]
    return revents & (POLLIN | POLLOUT | POLLERR | POLLHUP | POLLRDHUP)


def option(sim: FileSim, task: Task, fd: int, name: int, level: int = SOL_SOCKET) -> int:
    sim.poke(task, MSG, struct.pack("<ii", 4, 0))
    assert sim.call(task, "getsockopt", fd, level, name, MSG + 4, MSG) == 0
    return sim.u32(task, MSG + 4)


def set_option(sim: FileSim, task: Task, fd: int, name: int, value: bytes = b"\1\0\0\0", level: int = 1) -> object:
    sim.poke(task, MSG, value)
    return sim.call(task, "setsockopt", fd, level, name, MSG, len(value))


# ---- pairs ----------------------------------------------------------------------------------------------------------


def test_stream_pair(sim: FileSim, task: Task) -> None:
    a, b = pair(sim, task)
    assert send(sim, task, a, b"one") == 3 and write(sim, task, a, b"two") == 3
    assert recv(sim, task, b, 100, PEEK) == b"onetwo"
    assert recv(sim, task, b, 4) == b"onet"
    assert recv(sim, task, b) == b"wo"
    assert recv(sim, task, b, 10, DONTWAIT) == -Errno.EAGAIN
    assert poll(sim, task, a) == POLLOUT
    assert sim.do(task, "shutdown", a, 1) == 0
    assert recv(sim, task, b) == b""
    assert poll(sim, task, b) == POLLIN | POLLOUT | POLLRDHUP
    assert send(sim, task, a, b"x", NOSIGNAL) == -Errno.EPIPE
    assert send(sim, task, b, b"back") == 4
    sim.do(task, "close", b)
    assert recv(sim, task, a) == b"back"
    assert recv(sim, task, a) == b""
    assert poll(sim, task, a) & (POLLIN | POLLHUP) == POLLIN | POLLHUP


def test_closing_with_unread_data_resets(sim: FileSim, task: Task) -> None:
    a, b = pair(sim, task)
    send(sim, task, a, b"never read")
    sim.do(task, "close", b)
    assert poll(sim, task, a) & POLLERR
    assert recv(sim, task, a) == -Errno.ECONNRESET
    assert recv(sim, task, a) == b""


def test_records_keep_their_bounds(sim: FileSim, task: Task) -> None:
    for kind in (DGRAM, SEQPACKET):
        a, b = pair(sim, task, kind)
        send(sim, task, a, b"first")
        send(sim, task, a, b"")
        send(sim, task, a, b"third")
        assert recv(sim, task, b, 3) == b"fir"
        assert recv(sim, task, b) == b""
        assert sim.do(task, "recvfrom", b, Out(2), 2, TRUNC, 0, 0) == 5


def test_a_full_buffer_blocks(sim: FileSim, task: Task) -> None:
    a, b = pair(sim, task)
    child = sim.fork(task)
    total = 0
    data = b"x" * 50_000
    while (count := send(sim, task, a, data, DONTWAIT)) != -Errno.EAGAIN:
        assert isinstance(count, int)
        total += count
    assert total >= 100_000
    assert sim.do(task, "write", a, data, len(data)) is ASLEEP
    got = 0
    while got < total:
        piece = recv(sim, child, b, 60_000)
        assert isinstance(piece, bytes)
        got += len(piece)
    sim.settle()
    assert sim.result(task) == len(data)


def test_waitall_and_timeouts(sim: FileSim, task: Task) -> None:
    a, b = pair(sim, task)
    child = sim.fork(task)
    assert sim.do(task, "recvfrom", b, Out(10), 10, WAITALL, 0, 0) is ASLEEP
    send(sim, child, a, b"12345")
    sim.settle()
    assert task.continuation is not None
    send(sim, child, a, b"67890")
    sim.settle()
    assert sim.result(task) == 10
    assert set_option(sim, task, b, SO_RCVTIMEO, struct.pack("<qq", 0, 50_000)) == 0
    assert sim.do(task, "read", b, Out(10), 10) is ASLEEP
    sim.advance(60_000_000)
    assert sim.result(task) == -Errno.EAGAIN


# ---- AF_UNIX names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [b"/sock", b"\0abstract"])
def test_unix_server(sim: FileSim, task: Task, name: bytes) -> None:
    server = sim.do(task, "socket", AF_UNIX, STREAM, 0)
    client = sim.do(task, "socket", AF_UNIX, STREAM, 0)
    missing = -Errno.ENOENT if name.startswith(b"/") else -Errno.ECONNREFUSED
    assert named(sim, task, "connect", client, sun(name)) == missing
    assert sim.do(task, "listen", server, 5) == -Errno.EINVAL
    assert named(sim, task, "bind", server, sun(name)) == 0
    assert named(sim, task, "bind", server, sun(name)) == -Errno.EINVAL
    assert named(sim, task, "connect", client, sun(name)) == -Errno.ECONNREFUSED
    assert sim.do(task, "listen", server, 5) == 0
    assert option(sim, task, server, 30) == 1
    assert named(sim, task, "connect", client, sun(name)) == 0
    assert named(sim, task, "connect", client, sun(name)) == -Errno.EISCONN
    assert poll(sim, task, server) == POLLIN
    connection = sim.do(task, "accept4", server, 0, 0, NONBLOCK)
    assert sim.do(task, "fcntl", connection, 3, 0) == NONBLOCK | 2
    shown = name + (b"\0" if name.startswith(b"/") else b"")
    assert name_of(sim, task, client, "getpeername") == sun(shown)
    assert name_of(sim, task, connection) == sun(shown)
    assert name_of(sim, task, connection, "getpeername") == sun(b"")
    assert send(sim, task, client, b"hello") == 5
    assert recv(sim, task, connection) == b"hello"
    sim.poke(task, MSG, struct.pack("<i", 12))
    assert sim.call(task, "getsockopt", client, SOL_SOCKET, SO_PEERCRED, MSG + 8, MSG) == 0
    assert sim.u32(task, MSG + 8) == task.pid
    other = sim.do(task, "socket", AF_UNIX, STREAM, 0)
    assert named(sim, task, "bind", other, sun(name)) == -Errno.EADDRINUSE
    sim.do(task, "close", server)
    assert named(sim, task, "connect", other, sun(name)) == -Errno.ECONNREFUSED
    dgram = sim.do(task, "socket", AF_UNIX, DGRAM, 0)
    if name.startswith(b"/"):
        assert sim.do(task, "unlink", name) == 0
    assert named(sim, task, "bind", dgram, sun(name)) == 0
    assert named(sim, task, "connect", other, sun(name)) == -Errno.EPROTOTYPE


def test_accept_sleeps(sim: FileSim, task: Task) -> None:
    server = sim.do(task, "socket", AF_UNIX, STREAM, 0)
    named(sim, task, "bind", server, sun(b"\0x"))
    sim.do(task, "listen", server, 0)
    child = sim.fork(task)
    assert sim.do(task, "accept", server, 0, 0) is ASLEEP
    client = sim.do(child, "socket", AF_UNIX, STREAM, 0)
    assert named(sim, child, "connect", client, sun(b"\0x")) == 0
    sim.settle()
    assert sim.result(task) >= 0
    second = sim.do(child, "socket", AF_UNIX, STREAM, 0)
    assert named(sim, child, "connect", second, sun(b"\0x")) == 0
    third = sim.do(child, "socket", AF_UNIX, STREAM | NONBLOCK, 0)
    assert named(sim, child, "connect", third, sun(b"\0x")) == -Errno.EAGAIN, "backlog 0 takes one"


def test_unix_datagrams(sim: FileSim, task: Task) -> None:
    a = sim.do(task, "socket", AF_UNIX, DGRAM, 0)
    b = sim.do(task, "socket", AF_UNIX, DGRAM, 0)
    named(sim, task, "bind", a, sun(b"/a"))
    assert send(sim, task, b, b"x") == -Errno.ENOTCONN
    assert send(sim, task, b, b"hi", 0, sun(b"/a")) == 2
    assert named(sim, task, "bind", b, sun(b"")) == 0
    assert name_of(sim, task, b).startswith(sun(b"\0")) and len(name_of(sim, task, b)) == 8
    assert send(sim, task, b, b"named", 0, sun(b"/a")) == 5
    sim.poke(task, MSG + 256, struct.pack("<i", 100))
    assert sim.do(task, "recvfrom", a, Out(10), 10, 0, MSG, MSG + 256) == 2
    assert sim.u32(task, MSG + 256) == 0, "an unnamed sender"
    sim.poke(task, MSG + 256, struct.pack("<i", 100))
    assert sim.do(task, "recvfrom", a, Out(10), 10, 0, MSG, MSG + 256) == 5
    assert sim.u32(task, MSG + 256) == 8
    count = 0
    while send(sim, task, b, b"q", DONTWAIT, sun(b"/a")) == 1:
        count += 1
    assert count == 11, "max_dgram_qlen"


def scm(sim: FileSim, task: Task, fd: int, control: bytes = b"", data: bytes = b"!", room: int = 0) -> int:
    """One msghdr with one vector at MSG."""
    sim.poke(task, MSG + 512, data.ljust(16, b"\0"))
    sim.poke(task, MSG + 256, struct.pack("<QQ", MSG + 512, len(data)))
    sim.poke(task, MSG + 1024, control)
    length = len(control) or room
    sim.poke(task, MSG, struct.pack("<QIxxxxQQQQixxxx", 0, 0, MSG + 256, 1, MSG + 1024, length, 0))
    return MSG


def test_passing_files(sim: FileSim, task: Task) -> None:
    a, b = pair(sim, task)
    file = sim.do(task, "open", b"/passed", 0o102, 0o644)
    control = struct.pack("<Qiii", 20, SOL_SOCKET, 1, file).ljust(24, b"\0")
    assert sim.call(task, "sendmsg", a, scm(sim, task, a, control), 0) == 1
    sim.do(task, "close", file)
    sim.do(task, "unlink", b"/passed")
    assert sim.call(task, "recvmsg", b, scm(sim, task, b, b"", b"\0", 64), 0) == 1
    length, level, kind, fd = struct.unpack("<Qiii", sim.peek(task, MSG + 1024, 20))
    assert (length, level, kind) == (20, SOL_SOCKET, 1)
    assert write(sim, task, fd, b"alive") == 5
    bad = struct.pack("<Qiii", 20, SOL_SOCKET, 1, 99).ljust(24, b"\0")
    assert sim.call(task, "sendmsg", a, scm(sim, task, a, bad), 0) == -Errno.EBADF


def test_passing_credentials(sim: FileSim, task: Task) -> None:
    a, b = pair(sim, task, DGRAM)
    set_option(sim, task, b, SO_PASSCRED)
    assert send(sim, task, a, b"x") == 1
    assert sim.call(task, "recvmsg", b, scm(sim, task, b, b"", b"\0", 64), 0) == 1
    length, level, kind, pid, uid, _gid = struct.unpack("<QiiiII", sim.peek(task, MSG + 1024, 28))
    assert (length, level, kind, pid, uid) == (28, SOL_SOCKET, 2, task.pid, task.creds.euid)


# ---- AF_INET --------------------------------------------------------------------------------------------------------


def listener(sim: FileSim, task: Task, port: int = 0, family: int = AF_INET) -> tuple[int, int]:
    server = sim.do(task, "socket", family, STREAM, 0)
    address = sin(port, (0, 0, 0, 0)) if family == AF_INET else struct.pack("<H", AF_INET6) + bytes(26)
    assert named(sim, task, "bind", server, address) == 0
    assert sim.do(task, "listen", server, 5) == 0
    return server, int.from_bytes(name_of(sim, task, server)[2:4], "big")


def test_tcp(sim: FileSim, task: Task) -> None:
    server, port = listener(sim, task)
    assert port >= 32768
    client = sim.do(task, "socket", AF_INET, STREAM, 0)
    assert named(sim, task, "connect", client, sin(port)) == 0
    connection = sim.do(task, "accept", server, 0, 0)
    assert name_of(sim, task, client, "getpeername") == sin(port)
    assert name_of(sim, task, connection, "getpeername") == name_of(sim, task, client)
    assert send(sim, task, client, b"request") == 7
    assert recv(sim, task, connection) == b"request"
    assert send(sim, task, connection, b"answer") == 6
    sim.do(task, "close", connection)
    assert recv(sim, task, client) == b"answer"
    assert recv(sim, task, client) == b""
    assert send(sim, task, client, b"x", NOSIGNAL) == 1, "the first send after the end is lost in the network"
    assert send(sim, task, client, b"x", NOSIGNAL) == -Errno.EPIPE
    assert option(sim, task, client, SO_TYPE) == STREAM


def test_tcp_without_blocking(sim: FileSim, task: Task) -> None:
    _server, port = listener(sim, task)
    client = sim.do(task, "socket", AF_INET, STREAM | NONBLOCK, 0)
    assert named(sim, task, "connect", client, sin(port)) == -Errno.EINPROGRESS
    assert poll(sim, task, client) == POLLOUT
    assert option(sim, task, client, SO_ERROR) == 0
    assert named(sim, task, "connect", client, sin(port)) == 0
    assert named(sim, task, "connect", client, sin(port)) == -Errno.EISCONN
    refused = sim.do(task, "socket", AF_INET, STREAM | NONBLOCK, 0)
    assert named(sim, task, "connect", refused, sin(1)) == -Errno.EINPROGRESS
    assert poll(sim, task, refused) & (POLLERR | POLLHUP) == POLLERR | POLLHUP
    assert option(sim, task, refused, SO_ERROR) == Errno.ECONNREFUSED
    blocking = sim.do(task, "socket", AF_INET, STREAM, 0)
    assert named(sim, task, "connect", blocking, sin(1)) == -Errno.ECONNREFUSED


def test_only_the_loopback_exists(sim: FileSim, task: Task) -> None:
    for kind in (STREAM, DGRAM):
        sock = sim.do(task, "socket", AF_INET, kind, 0)
        assert named(sim, task, "connect", sock, sin(80, (192, 0, 2, 1))) == -Errno.ENETUNREACH
        assert named(sim, task, "bind", sock, sin(0, (192, 0, 2, 1))) == -Errno.EADDRNOTAVAIL
    assert send(sim, task, sock, b"x", 0, sin(53, (8, 8, 8, 8))) == -Errno.ENETUNREACH
    assert sim.do(task, "socket", AF_INET, RAW, 1) == -Errno.EPERM
    assert sim.do(task, "socket", AF_NETLINK, RAW, 15) == -Errno.EPROTONOSUPPORT, "udev events"
    assert sim.do(task, "socket", 17, RAW, 3) == -Errno.EAFNOSUPPORT, "AF_PACKET"
    assert sim.do(task, "socket", AF_INET, STREAM, 17) == -Errno.EPROTONOSUPPORT
    assert sim.do(task, "socket", 77, STREAM, 0) == -Errno.EAFNOSUPPORT
    assert sim.do(task, "bind", 0, BUFFER, 16) == -Errno.ENOTSOCK


def test_netlink_tells_of_the_one_interface(sim: FileSim, task: Task) -> None:
    sock = sim.do(task, "socket", AF_NETLINK, RAW, 0)
    assert isinstance(sock, int)
    get_link, dump = 18, 0x301
    assert send(sim, task, sock, struct.pack("<IHHIIBxxx", 20, get_link, dump, 7, 0, 0)) == 20
    links = recv(sim, task, sock, 4096)
    assert isinstance(links, bytes)
    length, kind, flags, seq, port = struct.unpack_from("<IHHII", links)
    assert (length, kind, flags, seq, port) == (len(links), 16, 2, 7, task.tgid)
    assert struct.unpack_from("<BxHiI", links, 16) == (0, 772, 1, 0x10049)
    assert b"\x07\0\x03\0lo\0" in links
    done = recv(sim, task, sock, 4096)
    assert isinstance(done, bytes) and struct.unpack_from("<IHHII", done) == (20, 3, 2, 7, task.tgid)
    assert recv(sim, task, sock, 4096, DONTWAIT) == -Errno.EAGAIN
    delete_link = 17
    send(sim, task, sock, struct.pack("<IHHIIBxxx", 20, delete_link, 5, 8, 0, 0))
    answer = recv(sim, task, sock, 4096)
    assert isinstance(answer, bytes)
    assert struct.unpack_from("<IHHIIi", answer)[1::4] == (2, -Errno.EPERM)


def test_header_fields_of_datagrams(sim: FileSim, task: Task) -> None:
    """RFC 3542: the hop limit and the traffic class, as the sender set them; cut off as there is room."""
    ipv6, recv_hops, hops, recv_class, unicast_hops = 41, 51, 52, 66, 16
    server = sim.do(task, "socket", AF_INET6, DGRAM, 0)
    client = sim.do(task, "socket", AF_INET6, DGRAM, 0)
    assert isinstance(server, int) and isinstance(client, int)
    here = struct.pack("<H", AF_INET6) + bytes(6) + bytes(15) + b"\x01" + bytes(4)
    assert named(sim, task, "bind", server, here) == 0
    address = name_of(sim, task, server)
    set_option(sim, task, server, recv_hops, level=ipv6)
    set_option(sim, task, server, recv_class, level=ipv6)
    set_option(sim, task, client, unicast_hops, struct.pack("<i", 9), ipv6)

    def items(room: int) -> tuple[bytes, int]:
        sim.poke(task, MSG, struct.pack("<QQ", MSG + 256, 16) + bytes(240))
        sim.poke(task, MSG + 64, struct.pack("<QIIQQQQII", 0, 0, 0, MSG, 1, MSG + 512, room, 0, 0))
        assert sim.call(task, "recvmsg", server, MSG + 64, 0) == 1
        length = struct.unpack("<Q", sim.peek(task, MSG + 104, 8))[0]
        return sim.peek(task, MSG + 512, length), sim.u32(task, MSG + 112)

    assert send(sim, task, client, b"x", 0, address) == 1
    assert items(200) == (
        struct.pack("<QiiiiQiiii", 20, ipv6, hops, 9, 0, 20, ipv6, 67, 0, 0),
        0,
    )
    sim.poke(task, MSG + 512, struct.pack("<Qiiii", 20, ipv6, hops, 3, 0))
    sim.poke(task, MSG, struct.pack("<QQ", MSG + 256, 1) + bytes(240))
    sim.poke(task, MSG + 128, address)
    sim.poke(task, MSG + 64, struct.pack("<QIIQQQQII", MSG + 128, len(address), 0, MSG, 1, MSG + 512, 24, 0, 0))
    assert sim.call(task, "sendmsg", client, MSG + 64, 0) == 1
    assert items(18) == (struct.pack("<Qii", 18, ipv6, hops) + b"\3\0", 8), "MSG_CTRUNC"


def test_ports(sim: FileSim, task: Task) -> None:
    _server, port = listener(sim, task)
    other = sim.do(task, "socket", AF_INET, STREAM, 0)
    assert named(sim, task, "bind", other, sin(port)) == -Errno.EADDRINUSE
    set_option(sim, task, other, SO_REUSEADDR)
    assert named(sim, task, "bind", other, sin(port)) == -Errno.EADDRINUSE, "the other one listens"
    user = sim.shell(1000, 1000)
    mine = sim.do(user, "socket", AF_INET, STREAM, 0)
    assert named(sim, user, "bind", mine, sin(80)) == -Errno.EACCES


def test_udp(sim: FileSim, task: Task) -> None:
    a = sim.do(task, "socket", AF_INET, DGRAM, 0)
    b = sim.do(task, "socket", AF_INET, DGRAM, 0)
    assert named(sim, task, "bind", a, sin(0)) == 0
    address = name_of(sim, task, a)
    assert send(sim, task, b, b"hello", 0, address) == 5
    sim.poke(task, MSG + 256, struct.pack("<i", 100))
    assert sim.do(task, "recvfrom", a, Out(3), 3, TRUNC, MSG, MSG + 256) == 5
    sender = sim.peek(task, MSG, 16)
    assert sender[2:4] == name_of(sim, task, b)[2:4]
    assert named(sim, task, "connect", b, sin(9)) == 0
    assert send(sim, task, b, b"nobody") == 6
    assert recv(sim, task, b) == -Errno.ECONNREFUSED
    assert send(sim, task, a, b"x") == -Errno.EDESTADDRREQ
    assert sim.do(task, "sendto", a, b"x" * 65_508, 65_508, 0, 0, 0) in (-Errno.EDESTADDRREQ, -Errno.EMSGSIZE)


def test_a_dual_stack_server(sim: FileSim, task: Task) -> None:
    server, port = listener(sim, task, 0, AF_INET6)
    client = sim.do(task, "socket", AF_INET, STREAM, 0)
    assert named(sim, task, "connect", client, sin(port)) == 0
    connection = sim.do(task, "accept", server, 0, 0)
    assert name_of(sim, task, connection, "getpeername")[8:24] == bytes(10) + b"\xff\xff\x7f\0\0\1"
    again = sim.do(task, "socket", AF_INET, STREAM, 0)
    assert named(sim, task, "bind", again, sin(port, (0, 0, 0, 0))) == -Errno.EADDRINUSE
