"""Structures as strace 6.1 printed them for the same bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from emu.trace import layout, structs, structs_files, structs_tasks
from kernel.mm.types import MmStruct
from kernel.mm.usercopy import copy_to_user
from tests.kernel.fakes import make_kernel, make_mm, map_anon

BASE = 0x40_0000


@pytest.fixture
def mm() -> MmStruct:
    mm = make_mm(make_kernel())
    map_anon(mm, BASE, 4)
    return mm


def poke(mm: MmStruct, layout: str, *values: int | bytes) -> int:
    copy_to_user(mm, BASE, struct.pack(layout, *values))
    return BASE


@pytest.mark.parametrize(
    ("name", "layout", "values", "text"),
    [
        ("timespec", "<qq", (1, 2), "{tv_sec=1, tv_nsec=2}"),
        ("itimerval", "<qqqq", (0, 0, 0, 5), "{it_interval={tv_sec=0, tv_usec=0}, it_value={tv_sec=0, tv_usec=5}}"),
        ("sigset", "<Q", (0x10000,), "[CHLD]"),
        ("sigset", "<Q", (0xFFFFFFFE7FFFFFFF,), "~[RTMIN RT_1]"),
        ("sigset", "<Q", (0,), "[]"),
        ("sigaction", "<QQQQ", (0, 0, 0, 0), "{sa_handler=SIG_DFL, sa_mask=[], sa_flags=0}"),
        ("sigaction", "<QQQQ", (0x55E061E85929, 0x14000004, 0x7F5918ABC050, 0x800000002),
         "{sa_handler=0x55e061e85929, sa_mask=[INT RT_4], sa_flags=SA_RESTORER|SA_RESTART|SA_SIGINFO, "
         "sa_restorer=0x7f5918abc050}"),
        ("stack_t", "<QiIQ", (0x1000, 2, 0, 8192), "{ss_sp=0x1000, ss_flags=SS_DISABLE, ss_size=8192}"),
        ("rlimit", "<QQ", (8 << 20, (1 << 64) - 1), "{rlim_cur=8192*1024, rlim_max=RLIM64_INFINITY}"),
        ("rlimit", "<QQ", (1024, 4096), "{rlim_cur=1024, rlim_max=4*1024}"),
        ("flock", "<hhxxxxqqi4x", (0, 0, 0, 10, 0), "{l_type=F_RDLCK, l_whence=SEEK_SET, l_start=0, l_len=10}"),
        ("epoll_event", "<IQ", (0x80000001, 7), "{events=EPOLLIN|EPOLLET, data={u32=7, u64=7}}"),
        ("winsize", "<HHHH", (24, 80, 0, 0), "{ws_row=24, ws_col=80, ws_xpixel=0, ws_ypixel=0}"),
        ("int", "<i", (-3,), "[-3]"),
        ("fd_pair", "<ii", (7, 8), "[7, 8]"),
        ("wait_status", "<i", (3 << 8,), "[{WIFEXITED(s) && WEXITSTATUS(s) == 3}]"),
        ("wait_status", "<i", (9,), "[{WIFSIGNALED(s) && WTERMSIG(s) == SIGKILL}]"),
        ("wait_status", "<i", (139,), "[{WIFSIGNALED(s) && WTERMSIG(s) == SIGSEGV && WCOREDUMP(s)}]"),
        ("wait_status", "<i", (0x137F,), "[{WIFSTOPPED(s) && WSTOPSIG(s) == SIGSTOP}]"),
        ("wait_status", "<i", (0xFFFF,), "[{WIFCONTINUED(s)}]"),
    ],
)  # fmt: skip
def test_structures(mm: MmStruct, name: str, layout: str, values: tuple[int, ...], text: str) -> None:
    assert structs.STRUCTS[name](mm, poke(mm, layout, *values)) == text


@pytest.mark.parametrize("name", sorted(structs.STRUCTS))
def test_unreadable_memory_is_none(mm: MmStruct, name: str) -> None:
    assert structs.STRUCTS[name](mm, 0x10) is None


@pytest.mark.parametrize(
    ("mode", "rdev", "size", "text"),
    [
        (0o100644, 0, 1221, "{st_mode=S_IFREG|0644, st_size=1221, ...}"),
        (0o020666, 0x103, 0, "{st_mode=S_IFCHR|0666, st_rdev=makedev(0x1, 0x3), ...}"),
        (0o040755, 0, 4096, "{st_mode=S_IFDIR|0755, st_size=4096, ...}"),
    ],
)
def test_stat(mm: MmStruct, mode: int, rdev: int, size: int, text: str) -> None:
    address = poke(mm, "<QQQIIIIQq88x", 1, 2, 1, mode, 0, 0, 0, rdev, size)
    assert structs_files.stat(mm, address) == text


@pytest.mark.parametrize(
    ("signo", "code", "layout", "values", "text"),
    [
        (11, 1, "<Q", (0,), "{si_signo=SIGSEGV, si_code=SEGV_MAPERR, si_addr=NULL}"),
        (10, -6, "<iI", (11280, 0), "{si_signo=SIGUSR1, si_code=SI_TKILL, si_pid=11280, si_uid=0}"),
        (14, 128, "<ii", (0, 0), "{si_signo=SIGALRM, si_code=SI_KERNEL}"),
        (17, 1, "<iIi4xqq", (2, 0, 3, 0, 0),
         "{si_signo=SIGCHLD, si_code=CLD_EXITED, si_pid=2, si_uid=0, si_status=3, si_utime=0, si_stime=0}"),
        (17, 2, "<iIi4xqq", (2, 0, 9, 0, 0),
         "{si_signo=SIGCHLD, si_code=CLD_KILLED, si_pid=2, si_uid=0, si_status=SIGKILL, si_utime=0, si_stime=0}"),
    ],
)  # fmt: skip
def test_siginfo(signo: int, code: int, layout: str, values: tuple[int, ...], text: str) -> None:
    data = struct.pack("<iiii", signo, 0, code, 0) + struct.pack(layout, *values)
    assert structs_tasks.siginfo_text(signo, code, data.ljust(128, b"\0")) == text


def test_iovecs_show_what_was_read(mm: MmStruct) -> None:
    copy_to_user(mm, BASE + 100, b"abcde")
    poke(mm, "<QQQQ", BASE + 100, 2, BASE + 102, 3)
    assert structs_files.iovecs(mm, BASE, 2, None) == (
        '[{iov_base="ab", iov_len=2}, {iov_base="cde", iov_len=3}]'
    )  # fmt: skip
    assert structs_files.iovecs(mm, BASE, 2, 3) == '[{iov_base="ab", iov_len=2}, {iov_base="c", iov_len=3}]'
    assert structs_files.iovecs(mm, 8, 2, None) is None
    assert structs_files.iovecs(mm, BASE, 0, None) == "[]"


def test_buffers_are_cut_at_32_bytes(mm: MmStruct) -> None:
    copy_to_user(mm, BASE, b"x" * 40)
    assert layout.buffer_text(mm, BASE, 40) == '"' + "x" * 32 + '"...'
    assert layout.buffer_text(mm, BASE, 32) == '"' + "x" * 32 + '"'
    assert layout.buffer_text(mm, 8, 4) == "0x8"


def test_string_arrays(mm: MmStruct) -> None:
    copy_to_user(mm, BASE + 100, b"echo\0hi\0")
    poke(mm, "<QQQ", BASE + 100, BASE + 105, 0)
    assert layout.string_array(mm, BASE) == '["echo", "hi"]'
    assert layout.count_pointers(mm, BASE) == 2
    assert layout.string_array(mm, 0) == "NULL"
    assert layout.string_array(mm, 8) == "0x8"


@pytest.mark.parametrize(
    ("data", "length", "text"),
    [
        (b"\1\0/var/run/x\0zzz", 110, '{sa_family=AF_UNIX, sun_path="/var/run/x"}'),
        (b"\1\0", 2, "{sa_family=AF_UNIX}"),
        (b"\2\0\0\x50\x7f\0\0\1", 16, '{sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("127.0.0.1")}'),
    ],
)
def test_socket_addresses(mm: MmStruct, data: bytes, length: int, text: str) -> None:
    copy_to_user(mm, BASE, data)
    assert structs_files.sockaddr(mm, BASE, length) == text


def test_poll(mm: MmStruct) -> None:
    poke(mm, "<ihhihh", 3, 3, 1, 1, 4, 0)
    part: Callable[..., str | None] = layout.array(structs_files.pollfd_event, 8)
    assert part(mm, BASE, 2) == "[{fd=3, events=POLLIN|POLLPRI}, {fd=1, events=POLLOUT}]"
    assert structs_files.ready_fds(mm, BASE, 2) == "[{fd=3, revents=POLLIN}]"


def test_fd_sets(mm: MmStruct) -> None:
    poke(mm, "<Q", 1 << 3 | 1 << 9)
    assert structs_files.fd_set(mm, BASE, 50) == "[3 9]"
