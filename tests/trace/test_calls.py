"""System calls printed from their declarations, against the lines of strace 6.1 for the same calls."""

from __future__ import annotations

import struct
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest

from emu.trace.calls import Call
from emu.trace.printer import CallPrinter, unknown_call
from kernel.abi.errno import Errno
from kernel.mm.usercopy import copy_to_user
from kernel.syscalls.table import BY_NAME
from tests.kernel.fakes import make_kernel, make_mm, map_anon

import_module("kernel.syscalls.all")  # declares them all

A, B, C = 0x40_0000, 0x40_1000, 0x40_2000
"""Places in the guest's memory where a test puts what a call points to."""
MINUS_1 = (1 << 64) - 1


@pytest.fixture
def task() -> Any:
    mm = make_mm(make_kernel())
    map_anon(mm, A, 4)
    return SimpleNamespace(mm=mm, pid=1)


def printed(task: Any, name: str, *args: int, ret: int | None = 0, reason: str = "", **memory: bytes) -> str:
    """One call from entry to exit; ``at_A=...`` is in memory before, ``then_A=...`` is written by the call."""
    spec = BY_NAME[name]
    places = {"A": A, "B": B, "C": C}
    for key, data in memory.items():
        if key.startswith("at_"):
            copy_to_user(task.mm, places[key[3:]], data)
    call = Call(task, task.mm, name, spec.params, (*args, 0, 0, 0, 0, 0, 0)[:6])
    printer = CallPrinter(spec)
    printer.enter(call)
    for key, data in memory.items():
        if key.startswith("then_"):
            copy_to_user(task.mm, places[key[5:]], data)
    call.ret = ret
    call.error = -ret if ret is not None and -4096 < ret < 0 else 0
    printer.leave(call)
    return f"{name}({', '.join(str(text) for text in call.texts)}) = {printer.result(call, reason)}"


EFAULT, EINVAL, ENOENT, ENOMEM = (-int(Errno[name]) for name in ("EFAULT", "EINVAL", "ENOENT", "ENOMEM"))


def test_memory_calls(task: Any) -> None:
    assert printed(task, "mmap", 0, 8192, 3, 0x22, MINUS_1, 0, ret=0x7F5918C69000) == (
        "mmap(NULL, 8192, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f5918c69000"
    )
    assert printed(task, "mmap", 0, 4096, 0x60, 0x61, MINUS_1, 0x1000, ret=0x40D87000) == (
        "mmap(NULL, 4096, 0x60 /* PROT_??? */, MAP_SHARED|MAP_ANONYMOUS|MAP_32BIT, -1, 0x1000) = 0x40d87000"
    )
    assert printed(task, "mprotect", B, 4096, 5) == f"mprotect({B:#x}, 4096, PROT_READ|PROT_EXEC) = 0"
    assert printed(task, "mremap", B, 8192, 16384, 1, 7, ret=EFAULT, reason="spans two areas") == (
        f"mremap({B:#x}, 8192, 16384, MREMAP_MAYMOVE) = -1 EFAULT (Bad address: spans two areas)"
    )
    assert printed(task, "mremap", B, 1, 2, 3, 0x5000, ret=0x5000) == (
        f"mremap({B:#x}, 1, 2, MREMAP_MAYMOVE|MREMAP_FIXED, 0x5000) = 0x5000"
    )
    assert printed(task, "brk", 0, ret=0x55E06F1CD000) == "brk(NULL) = 0x55e06f1cd000"
    assert printed(task, "madvise", B, 4096, 99, ret=EINVAL) == (
        f"madvise({B:#x}, 4096, 0x63 /* MADV_??? */) = -1 EINVAL (Invalid argument)"
    )
    assert printed(task, "munmap", 3, 1, ret=EINVAL) == "munmap(0x3, 1) = -1 EINVAL (Invalid argument)"
    assert printed(task, "msync", B, 4096, 6) == f"msync({B:#x}, 4096, MS_SYNC|MS_INVALIDATE) = 0"
    assert printed(task, "mlockall", 9, ret=EINVAL) == "mlockall(MCL_CURRENT|0x8) = -1 EINVAL (Invalid argument)"
    assert printed(task, "mlock2", B, 1, 1, ret=ENOMEM) == (
        f"mlock2({B:#x}, 1, MLOCK_ONFAULT) = -1 ENOMEM (Cannot allocate memory)"
    )
    assert printed(task, "mincore", B, 8192, A, then_A=b"\1\0") == f"mincore({B:#x}, 8192, [1, 0]) = 0"
    assert printed(task, "mincore", B, 8192, A, ret=ENOMEM) == (
        f"mincore({B:#x}, 8192, {A:#x}) = -1 ENOMEM (Cannot allocate memory)"
    )


def test_reading_and_writing(task: Any) -> None:
    text = b'hello\n\1\0019\xff"\\ a very long string indeed is here now'
    assert printed(task, "write", 1, A, len(text), at_A=text, ret=len(text)) == (
        f'write(1, "hello\\n\\1\\19\\377\\"\\\\ a very long string "..., {len(text)}) = {len(text)}'
    )
    assert printed(task, "write", 1, 1, 5, ret=EFAULT) == "write(1, 0x1, 5) = -1 EFAULT (Bad address)"
    assert printed(task, "read", 3, A, 832, then_A=b"\x7fELF\2\1\1\0", ret=8) == (
        'read(3, "\\177ELF\\2\\1\\1\\0", 832) = 8'
    )
    assert printed(task, "read", 3, 8, 4, ret=EFAULT) == "read(3, 0x8, 4) = -1 EFAULT (Bad address)"
    assert printed(task, "pread64", 3, A, 3, 5, then_A=b"x:0", ret=3) == 'pread64(3, "x:0", 3, 5) = 3'
    assert printed(task, "lseek", 3, 0, 2, ret=1221) == "lseek(3, 0, SEEK_END) = 1221"
    assert printed(task, "lseek", 3, 1, 77, ret=EINVAL) == (
        "lseek(3, 1, 0x4d /* SEEK_??? */) = -1 EINVAL (Invalid argument)"
    )
    vector = struct.pack("<QQQQ", B, 2, B + 2, 3)
    assert printed(task, "writev", 1, A, 2, at_A=vector, at_B=b"abcde", ret=5) == (
        'writev(1, [{iov_base="ab", iov_len=2}, {iov_base="cde", iov_len=3}], 2) = 5'
    )
    assert printed(task, "readv", 3, A, 2, at_A=vector, then_B=b"wxyz", ret=3) == (
        'readv(3, [{iov_base="wx", iov_len=2}, {iov_base="y", iov_len=3}], 2) = 3'
    )


def test_files(task: Any) -> None:
    fdcwd = (1 << 64) - 100
    assert printed(task, "openat", fdcwd, A, 0o2000000, at_A=b"/etc/passwd\0", ret=3) == (
        'openat(AT_FDCWD, "/etc/passwd", O_RDONLY|O_CLOEXEC) = 3'
    )
    assert printed(task, "openat", fdcwd & 0xFFFFFFFF, A, 0o1101, 0o644, at_A=b"x\0", ret=4) == (
        'openat(AT_FDCWD, "x", O_WRONLY|O_CREAT|O_TRUNC, 0644) = 4'
    )
    assert printed(task, "openat", 3, A, 0x80000000, ret=EINVAL) == (
        'openat(3, "x", O_RDONLY|0x80000000) = -1 EINVAL (Invalid argument)'
    )
    assert printed(task, "openat", fdcwd, 1, 0, ret=EFAULT) == (
        "openat(AT_FDCWD, 0x1, O_RDONLY) = -1 EFAULT (Bad address)"
    )
    assert printed(task, "pipe2", A, 0o2004000, then_A=struct.pack("<ii", 9, 11)) == (
        "pipe2([9, 11], O_NONBLOCK|O_CLOEXEC) = 0"
    )
    assert printed(task, "pipe2", 1, 0, ret=EFAULT) == "pipe2(0x1, 0) = -1 EFAULT (Bad address)"
    assert printed(task, "close", MINUS_1, ret=-9) == "close(-1) = -1 EBADF (Bad file descriptor)"


def test_fcntl(task: Any) -> None:
    assert printed(task, "fcntl", 1, 3, 99, ret=0x8001) == "fcntl(1, F_GETFL) = 0x8001 (flags O_WRONLY|O_LARGEFILE)"
    assert printed(task, "fcntl", 1, 2, 1) == "fcntl(1, F_SETFD, FD_CLOEXEC) = 0"
    assert printed(task, "fcntl", 1, 1, ret=1) == "fcntl(1, F_GETFD) = 0x1 (flags FD_CLOEXEC)"
    assert printed(task, "fcntl", 1, 2, 0) == "fcntl(1, F_SETFD, 0) = 0"
    assert printed(task, "fcntl", 1, 0, 10, ret=12) == "fcntl(1, F_DUPFD, 10) = 12"
    assert printed(task, "fcntl", 9, 4, 0o4000) == "fcntl(9, F_SETFL, O_RDONLY|O_NONBLOCK) = 0"
    lock = struct.pack("<hhxxxxqqi4x", 0, 0, 0, 10, 0)
    assert printed(task, "fcntl", 3, 6, A, at_A=lock) == (
        "fcntl(3, F_SETLK, {l_type=F_RDLCK, l_whence=SEEK_SET, l_start=0, l_len=10}) = 0"
    )
    assert printed(task, "fcntl", 1, 777, 5, ret=EINVAL) == (
        "fcntl(1, 0x309 /* F_??? */, 0x5) = -1 EINVAL (Invalid argument)"
    )
    assert printed(task, "fcntl", 3, 1033, 3, ret=-1) == (
        "fcntl(3, F_ADD_SEALS, F_SEAL_SEAL|F_SEAL_SHRINK) = -1 EPERM (Operation not permitted)"
    )


def test_ioctl(task: Any) -> None:
    assert printed(task, "ioctl", 1, 0x5401, A, ret=-25) == (
        f"ioctl(1, TCGETS, {A:#x}) = -1 ENOTTY (Inappropriate ioctl for device)"
    )
    assert printed(task, "ioctl", 1, 0x1234, 5, ret=-25) == (
        "ioctl(1, _IOC(_IOC_NONE, 0x12, 0x34, 0), 0x5) = -1 ENOTTY (Inappropriate ioctl for device)"
    )
    assert printed(task, "ioctl", 1, 0x541B, A, then_A=struct.pack("<i", 7)) == "ioctl(1, FIONREAD, [7]) = 0"
    assert printed(task, "ioctl", 1, 0x5413, A, then_A=struct.pack("<HHHH", 24, 80, 0, 0)) == (
        "ioctl(1, TIOCGWINSZ, {ws_row=24, ws_col=80, ws_xpixel=0, ws_ypixel=0}) = 0"
    )


def test_processes(task: Any) -> None:
    argv = struct.pack("<QQQ", B, B + 7, 0)
    env = struct.pack("<QQQ", B, B, 0)
    assert (
        printed(task, "execve", B + 16, A, C, at_A=argv, at_B=b'echo\0\0\0a "b"\0\0\0\0/bin/echo\0', at_C=env)
        == f'execve("/bin/echo", ["echo", "a \\"b\\""], {C:#x} /* 2 vars */) = 0'
    )
    assert printed(task, "clone", 0x1200011, 0, 0, A, 0, ret=77) == (
        f"clone(child_stack=NULL, flags=CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID|SIGCHLD, child_tidptr={A:#x}) = 77"
    )
    assert printed(task, "wait4", 77, A, 0, 0, then_A=struct.pack("<i", 3 << 8), ret=77) == (
        "wait4(77, [{WIFEXITED(s) && WEXITSTATUS(s) == 3}], 0, NULL) = 77"
    )
    assert printed(task, "wait4", MINUS_1, A, 1, 0, ret=-10) == (
        f"wait4(-1, {A:#x}, WNOHANG, NULL) = -1 ECHILD (No child processes)"
    )
    assert printed(task, "exit_group", 3, ret=None) == "exit_group(3) = ?"
    assert printed(task, "prctl", 15, A, at_A=b"abc\0") == 'prctl(PR_SET_NAME, "abc") = 0'
    assert printed(task, "arch_prctl", 0x1003, A, then_A=struct.pack("<Q", 0x7F5918A7D740)) == (
        "arch_prctl(ARCH_GET_FS, [0x7f5918a7d740]) = 0"
    )
    assert printed(task, "umask", 0o22, ret=0o22) == "umask(022) = 022"


def test_signals(task: Any) -> None:
    assert printed(task, "kill", 11280, 99, ret=EINVAL) == "kill(11280, 99) = -1 EINVAL (Invalid argument)"
    assert printed(task, "tgkill", 5, 5, 10) == "tgkill(5, 5, SIGUSR1) = 0"
    action = struct.pack("<QQQQ", 1, 0x4000000, 0x7F5918ABC050, 0)
    assert printed(task, "rt_sigaction", 2, A, B, 8, at_A=action, then_B=bytes(32)) == (
        "rt_sigaction(SIGINT, {sa_handler=SIG_IGN, sa_mask=[], sa_flags=SA_RESTORER, sa_restorer=0x7f5918abc050}, "
        "{sa_handler=SIG_DFL, sa_mask=[], sa_flags=0}, 8) = 0"
    )
    assert printed(task, "rt_sigprocmask", 0, A, 0, 8, at_A=struct.pack("<Q", 1 << 16)) == (
        "rt_sigprocmask(SIG_BLOCK, [CHLD], NULL, 8) = 0"
    )


def test_futex(task: Any) -> None:
    assert printed(task, "futex", A, 128, 1, 0, ret=-11) == (
        f"futex({A:#x}, FUTEX_WAIT_PRIVATE, 1, NULL) = -1 EAGAIN (Resource temporarily unavailable)"
    )
    assert printed(task, "futex", A, 1, 1) == f"futex({A:#x}, FUTEX_WAKE, 1) = 0"
    assert printed(task, "futex", A, 9 | 256, 0, B, 0, MINUS_1, at_B=struct.pack("<qq", 0, 1), ret=-110) == (
        f"futex({A:#x}, FUTEX_WAIT_BITSET|FUTEX_CLOCK_REALTIME, 0, {{tv_sec=0, tv_nsec=1}}, "
        "FUTEX_BITSET_MATCH_ANY) = -1 ETIMEDOUT (Connection timed out)"
    )
    assert printed(task, "futex", A, 132, 1, 2, B, 0) == (
        f"futex({A:#x}, FUTEX_CMP_REQUEUE_PRIVATE, 1, 2, {B:#x}, 0) = 0"
    )


def test_calls_that_will_be_restarted(task: Any) -> None:
    assert printed(task, "read", 0, A, 1, ret=-512) == (
        f"read(0, {A:#x}, 1) = ? ERESTARTSYS (To be restarted if SA_RESTART is set)"
    )


def test_calls_without_declaration() -> None:
    assert unknown_call(999, (1, 2, 3, 4, 5, 6)) == ("syscall_999", ["0x1", "0x2", "0x3", "0x4", "0x5", "0x6"])


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_every_declared_call_can_be_printed_with_wild_arguments(task: Any, name: str) -> None:
    task.regs = SimpleNamespace(read=lambda reg: A)
    for raw in (0, 1, A, MINUS_1, 1 << 63):
        for ret in (0, 1, EFAULT, None):
            assert printed(task, name, raw, raw, raw, raw, raw, raw, ret=ret).startswith(f"{name}(")
